"""`hwgle train`: an experiment, epoch by epoch, into a folder that can be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hwgle.cli import options
from hwgle.cli.files import Files, unwritable_folder
from hwgle.cli.progress import Bar, duration
from hwgle.cli.table import pairs, percent
from hwgle.devices import open_device
from hwgle.devices.resuming import Resumed, resuming
from hwgle.errors import UsageError
from hwgle.experiment import Experiment
from hwgle.learning.starts import stands_at
from hwgle.learning.trainer import Event, Trainer
from hwgle.tasks import SeriesTask, Task
from hwgle.weights import Weights


@click.command()
@click.argument("experiment", metavar="EXPERIMENT")
@options.device
@options.shadow
@options.baud
@options.chip
@click.option(
    "--weights",
    type=options.FILE,
    metavar="W.npz",
    help="Learn from these, in one start.  [default: drawn from the seed]",
)
@click.option("--epochs", type=click.IntRange(1, 10**6), help="Other than the experiment's.")
@options.seed
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder of results.  [default: ./hwgle-NAME-seedN]",
)
def command(
    experiment: str,
    device: str,
    shadow: bool,
    baud: int | None,
    chip: str | None,
    weights: Path | None,
    epochs: int | None,
    seed: int | None,
    out: Path | None,
) -> None:
    """Train EXPERIMENT (a name or a file) with the chip in the loop.

    Writes metrics.jsonl, checkpoint.npz, weights.npz (best on validation) and summary.json
    to DIR, of several starts also starts.json and a folder each. After Ctrl-C the same
    command continues, with the bits of an uninterrupted training.
    """
    ex, first = load_experiment(experiment, chip, weights)
    ex = ex.with_(epochs=epochs, seed=seed)
    out = out or Path(f"hwgle-{ex.name}-seed{ex.training.seed}")
    if (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    network, profile = ex.load_network(), ex.load_chip()
    opened = resuming(open_device(device, shadow=shadow, baud=baud), _say_resumed)
    with opened as body, Bar("training") as bar:
        task = load_task(ex, bar)
        show = Show(bar, stands_at(out))
        trainer = Trainer(ex, network, profile, task, body, out, show, weights=first)
        summary = trainer.run()
        show.accepted()  # where nothing was left to learn
    click.echo(pairs(_facts(summary, out)))


def _say_resumed(resumed: Resumed) -> None:
    click.echo(f"warning: {resumed}", err=True)


def load_experiment(
    name: str, chip: str | None, weights: Path | None
) -> tuple[Experiment, Weights | None]:
    """An experiment, perhaps with another chip and weights; the mistakes of all at once."""
    files = Files()
    if chip is not None:
        files.chip(chip)
    ex = files.read(lambda: Experiment.load(name))
    network = None if ex is None else ex.load_network()
    first = None if weights is None else files.weights(weights, network)
    files.check()
    assert ex is not None
    return ex.with_(chip=chip), first


def load_task(experiment: Experiment, bar: Bar) -> Task | SeriesTask:
    """The data of an experiment; says so, as making or reading them takes some seconds."""
    if bar.visible:
        click.echo(f"data: {experiment.task.summary()}", err=True)
    label = bar.label

    def progress(what: str, done: int, total: int) -> None:
        bar.label = what
        bar.update(done, total)

    task = experiment.load_task(progress)
    bar.clear()
    bar.label = label
    return task


def measured(measure: str, value: float) -> str:
    """An accuracy as `91.7 %`, an error as `0.123`; `-` where there is none yet."""
    if value < 0 or value != value:
        return "-"
    return percent(value) if measure == "accuracy" else f"{value:.4g}"


class Show:
    """Draws a training on a terminal; writes a line for each validated epoch elsewhere.

    What a validation finds wrong with neurons is said when it is new, not at every epoch.
    """

    def __init__(self, bar: Bar, checkpoint: Path | None = None) -> None:
        self._bar = bar
        self._checkpoint = checkpoint
        self._epoch: int | None = None
        self._said: tuple[str, ...] = ()
        self._start: int | None = None

    def accepted(self) -> None:
        """The checkpoint was one of this training."""
        if self._checkpoint is not None:
            click.echo(f"continuing from {self._checkpoint}", err=True)
            self._checkpoint = None

    def __call__(self, event: Event) -> None:
        """See Trainer's on_event."""
        self.accepted()
        if self._bar.visible:
            epoch = f"epoch {min(event.epoch + 1, event.epochs)}/{event.epochs}"
            self._bar.label = _of_start(event) + epoch
            best = measured(event.measure, event.validation)
            now = measured(event.measure, event.accuracy)
            what = "" if event.measure == "accuracy" else f"{event.measure} "
            note = f"{what}learning {now}, best {best}, {duration(event.seconds_left)} left"
            self._bar.update(event.share, 1.0, note)
        elif self._epoch is not None and event.epoch > self._epoch:
            self._line(event)
        self._epoch = event.epoch
        if event.start != self._start:  # other weights, of which nothing has been said
            self._start, self._said = event.start, ()
        self._warn(event.findings, _of_start(event))

    def _warn(self, findings: tuple[str, ...], where: str) -> None:
        if findings == self._said:
            return
        self._bar.clear()
        for line in findings:
            if line not in self._said:
                click.echo(f"warning: {where}{line}", err=True)
        if not findings:
            click.echo("all neurons are well again", err=True)
        self._said = findings

    def _line(self, event: Event) -> None:
        last = event.line
        if last is None or "validation" not in last:
            return
        if event.measure == "accuracy":
            what, more = "", f" raw, {percent(last['validation_calibrated'])} offset-calibrated"
        else:
            what, more = f"{event.measure} ", f", loss {last['validation_loss']:.3g}"
        learning, validation, best = (
            measured(event.measure, value)
            for value in (
                last[f"{event.measure}_learning"],
                last["validation"],
                event.validation,
            )
        )
        click.echo(
            f"{_of_start(event)}epoch {last['epoch']}/{event.epochs}  {what}learning {learning}  "
            f"validation {validation}{more}  best {best}  {duration(event.seconds_left)} left"
        )


def _starts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    if "starts" not in summary:
        return []
    learned, chosen = summary["starts"]["learned"], summary["starts"]["chosen"]
    each = ", ".join(measured(summary["measure"], value) for value in learned)
    return [("starts", f"learned {each}; number {chosen + 1} went on")]


def _of_start(event: Event) -> str:
    return "" if event.start is None else f"start {event.start + 1}/{event.starts}  "


def _facts(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    more: list[tuple[str, str]] = []
    if summary["measure"] == "accuracy":
        both = percent(summary["test"]), percent(summary["test_calibrated"])
        validation = f"{percent(summary['validation'])} raw"
        test = f"{both[0]} raw, {both[1]} offset-calibrated"
    else:
        each = ", ".join(f"{value:.4g}" for value in summary["test_nrmse"])
        validation = f"{summary['validation']:.4g} normalised error"
        test = f"{summary['test']:.4g} normalised error ({each})"
        loss = f"{summary['test_loss']:.3g} (before learning {summary['before_loss']:.3g})"
        more = [("loss", loss)]
    return [
        ("experiment", f"{summary['experiment']} on chip {summary['chip']}, {summary['rule']}"),
        ("seed", str(summary["seed"])),
        *_starts(summary),
        ("best epoch", f"{summary['best_epoch']} of {summary['epochs']}"),
        ("validation", validation),
        ("test", test),
        *more,
        ("digest", f"{summary['weights_digest']} (weights)"),
        ("time", duration(summary["seconds"])),
        *(("neurons", line) for line in summary["health"]["findings"]),
        ("written", f"{out}/weights.npz, metrics.jsonl, summary.json, checkpoint.npz"),
    ]
