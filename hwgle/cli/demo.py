"""`hwgle demo`: one command to see what this is about."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from hwgle import demo
from hwgle.cli import options
from hwgle.cli.comparison import comparison_text
from hwgle.cli.files import unwritable_folder
from hwgle.cli.progress import Bar
from hwgle.cli.table import percent
from hwgle.device import Device
from hwgle.devices import open_device
from hwgle.errors import UsageError
from hwgle.report.floats import FloatPool


@click.command()
@options.device
@click.option(
    "--out",
    type=options.FILE,
    default=Path("hwgle-demo"),
    metavar="DIR",
    help="Folder of the pictures.  [default: ./hwgle-demo]",
)
def command(device: str, out: Path) -> None:
    """Classify and learn real MNIST-1D streams on a chip, next to float64.

    Prints accuracies, SQNR and saturations, and writes pictures to DIR.
    """
    if (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    begun = time.monotonic()
    with open_device(device) as body, Bar("demo") as bar:
        if not bar.visible:
            click.echo("demo: loading data, generated on first use", err=True)
        setting = demo.load()
        out.mkdir(parents=True, exist_ok=True)
        pictures = _run(body, setting, bar, device, out)
    click.echo(f"\npictures, after {time.monotonic() - begun:.0f} s:")
    for path in pictures:
        click.echo(f"  {path}")


def _run(body: Device, setting: demo.Setting, bar: Bar, device: str, out: Path) -> list[Path]:
    how = setting.relearning
    pictures: list[Path] = []
    chip: list[float] = []

    def progress(what: str, done: int, total: int) -> None:
        bar.label = what
        bar.update(done, total, "")

    def meanwhile() -> None:
        chip.extend(demo.relearn_chip(body, setting, progress))
        progress("drawing", 0, 1)
        stream = demo.show_stream(body, setting)
        pictures.extend(demo.draw_stream(setting, stream, out))
        pictures.extend(demo.draw_epochs(setting, out))

    # The main process and that which learns are two; the pool gets what cores are left.
    processes = max(1, (os.cpu_count() or 1) - 1)
    with FloatPool(processes) as pool, demo.float_relearning(setting) as accuracies:
        click.echo(
            f"{setting.network.name} on chip {setting.chip.name}:{setting.chip.seed}, {device}, "
            "next to float64\n\n1. Classify MNIST-1D\n"
        )
        sys.stdout.flush()
        result = demo.classify(body, setting, pool, progress, meanwhile)
        bar.clear()
        click.echo(comparison_text(result))
        click.echo(
            f"\n2. Forget the read-out and learn it again: batches of {how.batch} streams, "
            "Adam at every step\n\n   batch  float64     chip"
        )
        floating = []
        for k, accuracy in enumerate(accuracies):
            floating.append(accuracy)
            bar.clear()
            click.echo(f"   {k + 1:5}  {percent(accuracy):>7}  {percent(chip[k]):>7}")
            progress("float64 learns", k + 1, how.batches)
        bar.clear()
        last = how.batches // 4
        ends = percent(sum(floating[-last:]) / last), percent(sum(chip[-last:]) / last)
        click.echo(f"   last {last}  {ends[0]:>6}  {ends[1]:>7}   mean")
    before = result.chip.raw
    pictures.extend(demo.draw_relearning(setting, floating, chip, before, out))
    if not setting.metrics:
        click.echo("\nno metrics of the full training in this installation: no picture of it")
    return pictures
