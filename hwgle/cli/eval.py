"""`hwgle eval`: what a chip makes of trained weights, next to float64."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from hwgle.cache import write_text
from hwgle.cli import options
from hwgle.cli.comparison import comparison_text, tracking_text
from hwgle.cli.files import Files, unwritable
from hwgle.cli.naming import chip_text
from hwgle.cli.progress import Bar, duration
from hwgle.cli.train import load_task
from hwgle.devices import open_device
from hwgle.errors import UsageError
from hwgle.experiment import Experiment
from hwgle.learning.trainer import make_lesson
from hwgle.report.comparison import Comparison, compare
from hwgle.report.floats import FloatPool
from hwgle.report.tracking import Tracking, track
from hwgle.tasks import SeriesTask
from hwgle.weights import with_times


@click.command()
@click.argument("experiment", metavar="EXPERIMENT")
@options.weights
@options.device
@options.shadow
@options.baud
@options.chip
@click.option(
    "--float/--no-float", "floating", default=True, help="With float64, or the chip alone."
)
@options.calibration
@click.option("--json", "json_", type=options.FILE, metavar="FILE", help="Write the numbers too.")
def command(
    experiment: str,
    weights: Path,
    device: str,
    shadow: bool,
    baud: int | None,
    chip: str | None,
    floating: bool,
    calibration: Path | None,
    json_: Path | None,
) -> None:
    """Run the test split of EXPERIMENT (a name or a file) with trained weights.

    Samples with classes: raw, the class is the output that is largest in its sum over the
    steps; offset-calibrated, the same after adding output offsets that were fitted on
    training data. Series: the normalised error of each output, root-mean-square over the
    standard deviation of its target.
    """
    if json_ is not None and (why := unwritable(json_)) is not None:
        raise UsageError(why.replace("--out", "--json", 1))
    files = Files()
    profile = None if chip is None else files.chip(chip)
    ex = files.read(lambda: Experiment.load(experiment))
    network = None if ex is None else ex.load_network()
    w = files.weights(weights, network, corrected=calibration is None)
    measured = None if calibration is None else files.calibration(calibration)
    files.check()
    assert ex is not None
    assert network is not None
    assert w is not None
    network = with_times(network, w)
    profile = profile or ex.load_chip()
    if measured is not None:
        measured.check(profile, network, str(calibration))
    begun = time.monotonic()
    with open_device(device, shadow=shadow, baud=baud) as body, Bar("evaluating") as bar:
        task = load_task(ex, bar)

        def progress(what: str, done: int, total: int) -> None:
            bar.label = what
            bar.update(done, total)

        def result_with(pool: FloatPool | None) -> Comparison | Tracking:
            if isinstance(task, SeriesTask):
                return track(body, network, profile, w, task, pool, progress, measured)
            make_lesson(network, profile, task, ex.training)  # whether the data fit the network
            return compare(
                body, network, profile, w, task, pool, progress, calibration=measured
            )

        if floating:
            with FloatPool() as pool:
                result = result_with(pool)
        else:
            result = result_with(None)
    if json_ is not None:
        head = {
            "experiment": ex.name,
            "network": network.name,
            "chip": f"{profile.name}:{profile.seed}",
            "device": device,
        }
        write_text(json_, json.dumps(head | result.to_dict(), indent=2) + "\n")
    click.echo(f"{ex.name} on chip {chip_text(profile)}, {device}\n")
    time_taken = ("time", duration(time.monotonic() - begun))
    if isinstance(result, Comparison):
        click.echo(comparison_text(result, [time_taken]))
    else:
        click.echo(tracking_text(result, [time_taken]))
