"""`hwgle sweep`: one experiment over chips, settings and seeds, into one table."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import click

from hwgle.cli import options
from hwgle.cli.files import unwritable_folder
from hwgle.cli.progress import Bar, duration
from hwgle.cli.table import pairs, percent, table
from hwgle.errors import UsageError
from hwgle.sweep.driver import Outcome, Progress, run_sweep
from hwgle.sweep.executors import cluster, cores, local
from hwgle.sweep.study import Study, load_sweep
from hwgle.sweep.summary import Settled, front, settle
from hwgle.sweep.table import Row, rows, write_table

SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
SHOWN = 5
LINES = 20  # of progress, where there is no terminal


@click.command()
@click.argument("sweep", metavar="SWEEP")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes; changes no result.  [default: number of cores, 1 with --shard]",
)
@click.option("--scheduler", metavar="ADDRESS", help="A dask cluster: tcp://HOST:PORT.")
@click.option("--shard", metavar="I/N", help="Only part I of N (from 1): for job arrays.")
@click.option("--out", type=options.FILE, required=True, metavar="DIR", help="Folder of results.")
def command(
    sweep: str, workers: int | None, scheduler: str | None, shard: str | None, out: Path
) -> None:
    """Run an experiment over all points of SWEEP (a name or a file).

    A point that is finished is never run again: the same command continues after Ctrl-C or a
    crash, and with more values in SWEEP it runs what is new. Points that cannot differ (a
    chip that draws nothing and has no noise is the same for every seed) are run once.

    Writes table.jsonl and table.npz (a row a point, the same bytes however it was run) and
    pictures; with --shard as soon as the last shard is there.
    """
    begun = time.monotonic()
    part = _shard(shard)
    if scheduler is not None and (workers is not None or part is not None):
        raise UsageError("--scheduler: its workers are the cluster's; no --workers, no --shard")
    if (why := unwritable_folder(out)) is not None:
        raise UsageError(why)
    study = load_sweep(sweep)
    if part is not None and study.sweep.search.kind not in ("grid", "random"):
        kind = study.sweep.search.kind
        raise UsageError(f"--shard: search {kind} asks by what it found; use grid or random")
    count = workers or (1 if part is not None else cores())
    where = cluster(scheduler) if scheduler is not None else local(count)
    # leaving the workers waits for them: after the bar has been wiped
    with where as found, Bar("points") as bar:
        outcome = run_sweep(study, out, found, shard=part, tell=Show(bar))
    took = ("time", duration(time.monotonic() - begun))
    if not outcome.complete:
        done = sum(result is not None for result in outcome.results)
        click.echo(f"shard {shard} is done; {done} of {len(outcome.results)} points are there")
        click.echo("the table is written by the shard that ends last")
        return
    lines = rows(study, outcome)
    paths = write_table(out, lines)
    keys = [key for axis in study.sweep.axes for key in axis.all_keys]
    settled = settle(lines, keys)
    if settled:
        from hwgle.sweep.plots import draw_all

        paths += draw_all(study, settled, out)
    click.echo(_text(study, outcome, lines, settled))
    click.echo("\n" + pairs([took, ("written", ", ".join(str(p) for p in paths))]))


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = SHARD.fullmatch(text)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise UsageError(f"--shard: found {text!r}; allowed: I/N with 1 <= I <= N, such as 3/10")
    return part


class Show:
    """Draws how far a sweep is on a terminal; writes some lines elsewhere."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._begun = time.monotonic()
        self._said = 0

    def __call__(self, progress: Progress) -> None:
        """See run_sweep."""
        p = progress
        left = p.jobs - p.jobs_finished
        seconds = time.monotonic() - self._begun
        note = f"{duration(seconds / p.run * left)} left" if p.run and left else ""
        if self._bar.visible:
            self._bar.label = f"points {p.finished}/{p.total}"
            self._bar.update(p.finished, p.total, note)
        elif p.run and (stage := LINES * p.finished // max(1, p.total)) > self._said:
            self._said = stage
            text = f"{p.finished} of {p.total} points"
            click.echo(f"{text}, {note}" if note else text, err=True)


def _text(
    study: Study, outcome: Outcome, lines: Sequence[Row], settled: Sequence[Settled]
) -> str:
    kind = study.sweep.search.kind
    distinct = len({job.key for job in outcome.jobs})
    head = f"{study.sweep.name}: {study.network.name}, {kind}, {len(lines)} points"
    if distinct < len(lines):
        head += f" of which {distinct} differ"
        if settled and any(s.distinct < s.accuracies["raw"].size for s in settled):
            head += " (a chip that draws nothing and has no noise is the same for every seed)"
    parts = [head]
    refused = [row for row in lines if "refused" in row]
    if refused:
        parts.append(f"{len(refused)} points were refused, the first: {refused[0]['refused']}")
    if settled:
        best = sorted(settled, key=lambda s: (-s.mean(), s.memory_bits, s.number))[:SHOWN]
        parts.append(_settings("most accurate", best))
        parts.append(_settings("Pareto front, bits against accuracy", front(settled)[-12:]))
    return "\n\n".join(parts)


def _settings(title: str, settled: Sequence[Settled]) -> str:
    keys = list(settled[0].setting)
    grid = [[title, "kbit", "raw", "offset-calibrated", "worst"]]
    for one in settled:
        words = ", ".join(f"{k.split('.', 1)[1]} {one.setting[k]}" for k in keys)
        accuracy = one.accuracies["offset_calibrated"]
        grid.append(
            [
                words,
                f"{one.memory_bits / 1000:.1f}",
                percent(one.mean("raw")),
                percent(one.mean()),
                percent(float(accuracy.min())),
            ]
        )
    return table(grid)
