"""`hwgle chip yield`: one network on many chips of a profile, before and after learning."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from hwgle.chip import MAX_SEED, Chip, split_seed
from hwgle.cli import options
from hwgle.cli.files import Files, unwritable_folder
from hwgle.cli.progress import Bar, duration
from hwgle.cli.table import pairs, percent, table
from hwgle.cli.train import load_task
from hwgle.errors import UsageError
from hwgle.experiment import Experiment
from hwgle.measured import Measured
from hwgle.montecarlo import (
    SCORES,
    Line,
    Study,
    accuracies,
    judge,
    simulate,
    stages,
    summarise,
    yield_at,
)
from hwgle.tasks import Task
from hwgle.weights import content_hash, with_times

LEVELS = (0.7, 0.8, 0.85, 0.88, 0.9)  # accuracies of the table of yields
WORST = 5


@click.command("yield")
@click.argument("experiment", metavar="EXPERIMENT")
@options.weights
@click.option(
    "--chip",
    metavar="NAME|FILE",
    help="The profile of the chips.  [default: the experiment's]",
)
@click.option("--chips", type=click.IntRange(1, 10**6), default=20, show_default=True)
@click.option(
    "--first-seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Of the first chip; the others follow.",
)
@click.option(
    "--epochs",
    type=click.IntRange(0, 10**6),
    help="Of learning on each chip, 0 for none.  [default: the experiment's]",
)
@click.option(
    "--calibrate/--no-calibrate",
    default=True,
    help="Measure each chip on the bench, and learn from what that corrects.  [default: calibrate]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Chips at a time; changes no result.  [default: number of cores]",
)
@click.option("--out", type=options.FILE, required=True, metavar="DIR", help="Folder of results.")
def command(
    experiment: str,
    weights: Path,
    chip: str | None,
    chips: int,
    first_seed: int,
    epochs: int | None,
    calibrate: bool,
    workers: int | None,
    out: Path,
) -> None:
    """Accuracy of trained weights on many chips: as they come, calibrated, and after learning.

    EXPERIMENT (a name or a file) holds the task, and how a chip learns with itself in the
    loop, from the given weights. Chip k has seed FIRST + k, which is also the seed of its
    learning.

    Writes chips.jsonl (a line a chip), summary.json, yield.svg, yield.png and, in
    chips/SEED, what was measured of each and what it has learned. After Ctrl-C the same
    command continues; with more --chips it goes on to those.
    """
    begun = time.monotonic()
    study = _study(experiment, weights, chip, epochs, calibrate)
    if first_seed + chips - 1 > MAX_SEED:
        raise UsageError(f"--first-seed {first_seed}: {chips} chips need seeds above {MAX_SEED}")
    if (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    seeds = range(first_seed, first_seed + chips)
    count = min(workers or os.cpu_count() or 1, chips)
    # leaving the pool waits for its threads: after the bar has been wiped
    with ThreadPoolExecutor(count) as pool, Bar("chips") as bar:
        task = load_task(study.experiment, bar)
        if not isinstance(task, Task):
            raise UsageError(f"chip yield classifies samples; {task.name} is a task of series")
        show = Show(bar, chips)
        out.mkdir(parents=True, exist_ok=True)
        lines = simulate(study, task, seeds, out, pool, show)
        ideal = Chip.load("ideal")
        reference = judge(ideal, study.network, study.weights, task)
    summary = _summary(study, weights, seeds, lines, reference)
    summary["command"] = _command_line()
    paths = _write(out, study, lines, summary)
    click.echo(_text(study, weights, lines, reference))
    rows = [
        ("time", duration(time.monotonic() - begun)),
        ("written", ", ".join(str(p) for p in paths)),
    ]
    click.echo("\n" + pairs(rows))


def _study(
    experiment: str, weights: Path, chip: str | None, epochs: int | None, calibrate: bool
) -> Study:
    """What the command line says, all mistakes of its files at once."""
    files = Files()
    ex = files.read(lambda: Experiment.load(experiment))
    profile = files.chip(chip) if chip is not None else None if ex is None else ex.load_chip()
    network = None if ex is None else ex.load_network()
    w = files.weights(weights, network, corrected=not calibrate)
    files.check()
    assert ex is not None
    assert network is not None
    assert profile is not None
    assert w is not None
    network = with_times(network, w)
    named = chip if chip is not None else ex.chip
    if split_seed(named)[1] is not None or profile.measured != Measured():
        raise UsageError(f"chip {named}: it is one chip; name its profile, seeds follow")
    ex = ex.with_(chip=chip, epochs=epochs or None)
    return Study(ex, network, profile, w, learn=epochs != 0, calibrate=calibrate)


class Show:
    """Draws how far the chips are on a terminal; writes a line for each elsewhere."""

    def __init__(self, bar: Bar, chips: int) -> None:
        self._bar, self._chips = bar, chips

    def __call__(self, finished: int, parts: float, line: Line | None) -> None:
        """See `simulate`."""
        self._bar.label = f"chips {finished}/{self._chips}"
        self._bar.update(finished + parts, self._chips)
        if line is None or self._bar.visible:
            return
        found = [f"{name(s)} {percent(line[s]['offset_calibrated'])}" for s in stages([line])]
        click.echo(f"chip {line['seed']}: {', '.join(found)}  ({finished}/{self._chips})")


def name(stage: str, epochs: int | None = None) -> str:
    """A stage in words."""
    if stage != "learned":
        return {"before": "before", "calibrated": "after calibration"}[stage]
    if epochs is None:
        return "after learning"
    return f"after {epochs} epoch{'s' if epochs != 1 else ''} on the chip"


def _names(study: Study) -> dict[str, str]:
    epochs = study.experiment.training.epochs
    return {stage: name(stage, epochs) for stage in ("before", "calibrated", "learned")}


def _command_line() -> str:
    return shlex.join(["hwgle", *sys.argv[1:]])


def _summary(
    study: Study, weights: Path, seeds: range, lines: Sequence[Line], reference: dict[str, float]
) -> dict[str, Any]:
    return {
        "format": "hwgle/yield/1",
        "key": study.key(),
        "experiment": study.experiment.model_dump(mode="json"),
        "learn": study.learn,
        "calibrate": study.calibrate,
        "network": {"name": study.network.name, "sha256": study.network.hash()},
        "profile": study.chip.profile.model_dump(mode="json"),
        "profile_sha256": study.chip.profile.hash(),
        "weights": {"file": str(weights), "sha256": content_hash(study.weights)},
        "first_seed": seeds[0],
        "chips": len(seeds),
        "ideal": reference,
        "stages": summarise(lines),
        "yield": {
            stage: {
                kind: {f"{x:g}": yield_at(accuracies(lines, stage, kind), x) for x in LEVELS}
                for kind in SCORES
            }
            for stage in stages(lines)
        },
        "lines": list(lines),
    }


def _write(out: Path, study: Study, lines: Sequence[Line], summary: dict[str, Any]) -> list[Path]:
    from hwgle.cache import write_text
    from hwgle.report.plots import save
    from hwgle.report.yield_plot import yield_curves

    title = f"{study.network.name} on {len(lines)} chips {study.chip.name}"
    best = summary["ideal"]["offset_calibrated"]
    pictures = save(yield_curves(lines, _names(study), best, title), out / "yield")
    path = out / "summary.json"
    write_text(path, json.dumps(summary, indent=2) + "\n")
    return [path, out / "chips.jsonl", *pictures]


def _text(study: Study, weights: Path, lines: Sequence[Line], reference: dict[str, float]) -> str:
    names = _names(study)
    first, last = lines[0]["seed"], lines[-1]["seed"]
    head = (
        f"{study.network.name} on {len(lines)} chips {study.chip.name}:{first} to {last}, "
        f"weights {weights}\nThese weights on chip ideal: {percent(reference['raw'])} raw, "
        f"{percent(reference['offset_calibrated'])} offset-calibrated"
    )
    keys = ("mean", "sd", "min", "q1", "median", "q3", "max")
    rows = [["accuracy on the test split (%)", "", "mean", "sd", "min", "25", "50", "75", "max"]]
    yields = [["chips at or above (%)", "", *(f"{100 * x:g} %" for x in LEVELS)]]
    for stage, kinds in summarise(lines).items():
        for kind, numbers in kinds.items():
            label = [names[stage] if kind == "raw" else "", kind.replace("_", "-")]
            rows.append([*label, *(f"{100 * numbers[k]:.1f}" for k in keys)])
            values = accuracies(lines, stage, kind)
            yields.append([*label, *(f"{100 * yield_at(values, x):.0f}" for x in LEVELS)])
    end = stages(lines)[-1]
    worst = sorted(lines, key=lambda line: (line[end]["offset_calibrated"], line["seed"]))[:WORST]
    chips = [[f"worst {names[end]}", *stages(lines)]]
    chips += [
        [
            f"{study.chip.name}:{line['seed']}",
            *(percent(line[s]["offset_calibrated"]) for s in stages(lines)),
        ]
        for line in worst
    ]
    return "\n\n".join([head, table(rows), table(yields), table(chips)])
