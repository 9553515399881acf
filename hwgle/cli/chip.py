"""`hwgle chip`: one chip of a profile in a file of its own, and what is individual in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from hwgle.chip import MAX_SEED, Chip, split_seed
from hwgle.cli import chip_measure, chip_yield, options
from hwgle.cli.files import Files, unwritable, unwritable_folder
from hwgle.cli.table import pairs, table
from hwgle.errors import UsageError
from hwgle.identity import identity_hash, save
from hwgle.measured import Measured
from hwgle.network import Network
from hwgle.report.individual import (
    Quantity,
    dead_neurons,
    in_words,
    input_quantities,
    quantities,
    synapse_deviations,
    worst,
)

WORST = 8
NETWORK = "mnist1d-15k"


@click.group()
def command() -> None:
    """One chip: a profile and a seed, which together are an identity.

    CHIP is a profile by name or file, :SEED behind it or not, or the file of an identity.
    """


command.add_command(chip_yield.command)
command.add_command(chip_measure.calibrate)
command.add_command(chip_measure.twin)


@command.command("new")
@click.option("--profile", required=True, metavar="NAME|FILE", help="The chip's design.")
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), required=True, help="What is individual in it."
)
@click.option("--out", type=options.FILE, required=True, metavar="FILE", help="What is written.")
def new(profile: str, seed: int, out: Path) -> None:
    """Write the identity of one chip: profile and seed, with a hash that tells any change.

    Wherever this file is loaded, as --chip or in an experiment, it is the same chip.
    """
    wrong = []
    if split_seed(profile)[1] is not None:
        wrong.append(f"--profile {profile}: say the seed with --seed")
    if (why := unwritable(out)) is not None:
        wrong.append(why)
    if wrong:
        raise UsageError("\n".join(wrong))
    files = Files()
    design = files.chip(profile)
    files.check()
    assert design is not None
    if design.seed != 0 or design.measured != Measured():
        raise UsageError(f"--profile {profile}: it is one chip already; name its profile")
    chip = Chip.model_validate({**design.model_dump(), "seed": seed})
    save(chip, out)
    rows = [("chip", f"{chip.name}:{chip.seed}"), ("identity", identity_hash(chip))]
    click.echo(pairs([*rows, ("written", str(out))]))


@command.command("show")
@click.argument("spec", metavar="CHIP")
@click.option(
    "--network",
    default=NETWORK,
    show_default=True,
    metavar="NETWORK",
    help="What is on the chip: how many neurons and synapses are drawn.",
)
@click.option("--out", type=options.FILE, metavar="DIR", help="Pictures (SVG and PNG) go there.")
def show(spec: str, network: str, out: Path | None) -> None:
    """What is not ideal in a chip: by design, as drawn for its neurons, and the worst ones."""
    if out is not None and (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    files = Files()
    chip, net = files.chip(spec), files.network(network)
    files.check()
    assert chip is not None
    assert net is not None
    text = _text(chip, net)
    if out is not None:
        from hwgle.report.chip_plots import individual
        from hwgle.report.plots import save as save_figure

        paths = save_figure(individual(chip, net), out / f"chip-{chip.name}-{chip.seed}")
        text += "\n\n" + pairs([("written", str(path)) for path in paths])
    click.echo(text)


def _text(chip: Chip, network: Network) -> str:
    head = [("chip", f"{chip.name}:{chip.seed}"), ("identity", identity_hash(chip))]
    parts = [pairs([*head, *in_words(chip)])]
    found = quantities(chip, network)
    if not found:
        parts.append("All its neurons and synapses are alike.")
    else:
        parts.append(f"As drawn for {network.name}, mean and sd of what each is off:")
        parts.append(_drawn(chip, network, found))
    if inputs := input_quantities(chip, network):
        rows = [["inputs", *_titles(inputs)]]
        rows.append([str(network.inputs), *(_mean_sd(q.values[0]) for q in inputs)])
        parts.append(_wrapped(rows, 1))
    if found:
        rows = [["neuron", "far", "most of all"]]
        rows += [
            [f"{w.layer}[{w.neuron}]", "-" if w.score == np.inf else f"{w.score:.2f}", w.most]
            for w in worst(chip, network, WORST)
        ]
        parts.append("Furthest from design (rms of its deviations, in sd of each kind):")
        parts.append(table(rows))
    return "\n\n".join(parts)


def _drawn(chip: Chip, network: Network, found: Sequence[Quantity]) -> str:
    dead = dead_neurons(chip, network)
    some = any(d.any() for d in dead)
    rows = [["layer", "neurons", *(["dead"] if some else []), *_titles(found)]]
    each = synapse_deviations(chip, network)
    for k, layer in enumerate(network.layers):
        row = [layer.name, str(layer.size), *([str(int(dead[k].sum()))] if some else [])]
        # of synapses all, not the means over those of a neuron
        row += [_mean_sd(each[k] if q.low else q.values[k]) for q in found]
        rows.append(row)
    return _wrapped(rows, 2)


def _titles(found: Sequence[Quantity]) -> list[str]:
    return [f"{q.name} ({q.unit})" for q in found]


def _mean_sd(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    if not values.size:
        return "-"
    return f"{values.mean():.2g} ± {values.std():.2g}"


def _wrapped(rows: Sequence[Sequence[str]], fixed: int) -> str:
    """A table no wider than the terminal: more columns go into a table below, with the
    first `fixed` columns again."""
    width = shutil.get_terminal_size((100, 24)).columns
    columns = range(fixed, len(rows[0]))
    blocks: list[list[int]] = [[]]
    for column in columns:
        tried = [*range(fixed), *blocks[-1], column]
        if blocks[-1] and len(table(_columns(rows, tried)).split("\n")[0]) > width:
            blocks.append([])
        blocks[-1].append(column)
    return "\n\n".join(table(_columns(rows, [*range(fixed), *b])) for b in blocks)


def _columns(rows: Sequence[Sequence[str]], which: Sequence[int]) -> list[list[str]]:
    return [[row[k] for k in which] for row in rows]
