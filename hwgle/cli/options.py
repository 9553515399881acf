"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from hwgle.chip import MAX_SEED
from hwgle.onchip import RULES

FILE = click.Path(path_type=Path)

device = click.option(
    "--device",
    default="emu:",
    show_default=True,
    metavar="URL",
    help="The body of the chip: emu:, host:, qemu:BOARD, /dev/ttyACM0, COM3, socket://H:P ...",
)
shadow = click.option(
    "--shadow/--no-shadow",
    default=True,
    help="Run the emulator beside a board and compare every bit.  [default: shadow]",
)
baud = click.option(
    "--baud",
    type=click.IntRange(300, 12_000_000),
    help="Of a serial port.  [default: 115200]",
)
chip = click.option(
    "--chip", metavar="NAME|FILE[:SEED]", help="Another chip than the experiment's."
)
seed = click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Seed of training and draws.")
weights = click.option(
    "--weights", type=FILE, required=True, metavar="W.npz", help="Weights of the network."
)
calibration = click.option(
    "--calibration",
    type=FILE,
    metavar="FILE",
    help="Of this chip, from `hwgle chip calibrate`: correct what it says.",
)
rule = click.option(
    "--rule",
    type=click.Choice(list(RULES)),
    help="Rule that learns on the chip.  [default: the experiment's, else sgd]",
)
