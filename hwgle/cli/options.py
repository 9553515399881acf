"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from hwgle.chip import MAX_SEED

FILE = click.Path(path_type=Path)

device = click.option(
    "--device", default="emu:", show_default=True, metavar="URL", help="The body of the chip."
)
chip = click.option(
    "--chip", metavar="NAME|FILE[:SEED]", help="Another chip than the experiment's."
)
seed = click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Seed of training and draws.")
weights = click.option(
    "--weights", type=FILE, required=True, metavar="W.npz", help="Weights of the network."
)
