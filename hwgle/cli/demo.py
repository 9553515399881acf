"""`hwgle demo`: one command to see what this is about."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import click

from hwgle import demo, demo_body
from hwgle.cli import options
from hwgle.cli.comparison import comparison_text
from hwgle.cli.files import unwritable_folder
from hwgle.cli.progress import Bar
from hwgle.cli.table import percent
from hwgle.demo_body import Plan
from hwgle.device import Device
from hwgle.devices import open_device
from hwgle.errors import UsageError
from hwgle.report.floats import FloatPool


@click.command()
@options.device
@options.shadow
@options.baud
@click.option(
    "--out",
    type=options.FILE,
    default=Path("hwgle-demo"),
    metavar="DIR",
    help="Folder of the pictures.  [default: ./hwgle-demo]",
)
def command(device: str, shadow: bool, baud: int | None, out: Path) -> None:
    """Classify and learn real MNIST-1D streams on a chip, next to float64.

    Prints accuracies, SQNR and saturations, and writes pictures to DIR.
    """
    if (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    begun = time.monotonic()
    with open_device(device, shadow=shadow, baud=baud) as body, Bar("demo") as bar:
        if not bar.visible:
            click.echo("demo: loading data, generated on first use", err=True)
        setting = demo.load()
        out.mkdir(parents=True, exist_ok=True)
        pictures = _run(body, demo_body.plan(body, setting), bar, device, out)
    click.echo(f"\npictures, after {time.monotonic() - begun:.0f} s:")
    for path in pictures:
        click.echo(f"  {path}")


def _run(body: Device, plan: Plan, bar: Bar, device: str, out: Path) -> list[Path]:
    setting, relearn = plan.classify, plan.relearn
    pictures: list[Path] = []
    chip: list[float] = []

    def progress(what: str, done: int, total: int) -> None:
        bar.label = what
        bar.update(done, total, "")

    def meanwhile() -> None:
        if relearn is not None:
            chip.extend(demo.relearn_chip(body, relearn, progress))
        progress("drawing", 0, 1)
        stream = demo.show_stream(body, setting)
        pictures.extend(demo.draw_stream(setting, stream, out))
        pictures.extend(demo.draw_epochs(setting, out))

    # The main process and that which learns are two; the pool gets what cores are left.
    processes = max(1, (os.cpu_count() or 1) - 1)
    floats = nullcontext() if relearn is None else demo.float_relearning(relearn)
    with FloatPool(processes) as pool, floats as accuracies:
        click.echo(
            f"{setting.network.name} on chip {setting.chip.name}:{setting.chip.seed}, {device}, "
            "next to float64"
        )
        for note in plan.notes:
            click.echo(note)
        click.echo("\n1. Classify MNIST-1D\n")
        sys.stdout.flush()
        result = demo.classify(body, setting, pool, progress, meanwhile)
        bar.clear()
        click.echo(comparison_text(result))
        if relearn is not None and accuracies is not None:
            floating = _learned(relearn.relearning, accuracies, chip, bar)
            before = result.chip.raw
            pictures.extend(demo.draw_relearning(relearn, floating, chip, before, out))
    if not setting.metrics:
        click.echo("\nno metrics of the full training in this installation: no picture of it")
    return pictures


def _learned(
    how: demo.Relearning, accuracies: Iterator[float], chip: list[float], bar: Bar
) -> list[float]:
    """Print the accuracies of both sides as float64 comes in; returns the latter."""
    click.echo(
        f"\n2. Forget the read-out and learn it again: batches of {how.batch} streams, "
        "Adam at every step\n\n   batch  float64     chip"
    )
    floating = []
    for k, accuracy in enumerate(accuracies):
        floating.append(accuracy)
        bar.clear()
        click.echo(f"   {k + 1:5}  {percent(accuracy):>7}  {percent(chip[k]):>7}")
        bar.label = "float64 learns"
        bar.update(k + 1, how.batches, "")
    bar.clear()
    last = max(1, how.batches // 4)
    ends = percent(sum(floating[-last:]) / last), percent(sum(chip[-last:]) / last)
    click.echo(f"   last {last}  {ends[0]:>6}  {ends[1]:>7}   mean")
    return floating
