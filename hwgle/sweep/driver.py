"""Runs a sweep on an executor: what is finished is never run again, whatever ends it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwgle.errors import DeviceError, Interrupted
from hwgle.parallel import Call, drive, interruptible
from hwgle.sweep.executors import Workers
from hwgle.sweep.journal import Journal, Result
from hwgle.sweep.plan import make_plan
from hwgle.sweep.study import Job, Point, Setting, Study
from hwgle.sweep.work import Common, work

TASK_SECONDS = 1.5  # of one task on a worker, where points are smaller than that
MAX_BATCH = 1000
# as hwgle.cache.replacing and hwgle.arrays.save_npz_atomic name what is not yet whole
TEMPORARY = re.compile(r"\..+-[0-9a-f]{16}\.(jsonl|svg|png|npz)")


@dataclass
class Progress:
    """How far a sweep, or a shard, is. total, finished: points; jobs: of those, the ones that
    differ; run: jobs that this run has finished; known: that others had before."""

    total: int = 0
    finished: int = 0
    jobs: int = 0
    jobs_finished: int = 0
    run: int = 0
    known: int = 0


@dataclass(frozen=True)
class Outcome:
    """All points in the order of the table with their results; None: of another shard."""

    points: list[Point]
    jobs: list[Job]
    results: list[Result | None]

    @property
    def complete(self) -> bool:
        """Whether there is a result for every point."""
        return all(result is not None for result in self.results)


class Batches:
    """How many jobs make a task of TASK_SECONDS, from what those before took."""

    def __init__(self) -> None:
        self._jobs, self._seconds = 0, 0.0

    def told(self, jobs: int, seconds: float) -> None:
        """A task of that many jobs took so long."""
        self._jobs, self._seconds = self._jobs + jobs, self._seconds + seconds

    def size(self, left: int, workers: int) -> int:
        """Of the next task; towards the end smaller, so that no worker waits for another."""
        if not self._jobs:
            return 1
        fits = int(TASK_SECONDS / max(1e-6, self._seconds / self._jobs))
        return max(1, min(fits, MAX_BATCH, -(-left // (2 * workers))))


def run_sweep(
    study: Study,
    out: Path,
    workers: Workers,
    *,
    shard: tuple[int, int] | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Run all points of a study that `out` does not hold yet.

    shard: (I, N): only jobs I, I + N ... (from 1), which needs a plan that is known
    beforehand. tell is called ten times a second.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, what is finished is kept.
        UsageError, FileMistakes: the folder cannot be used.
    """
    stop = threading.Event()
    plan = make_plan(study)
    progress = Progress()
    points: list[Point] = []
    jobs: list[Job] = []
    batches = Batches()
    with Journal(out, shard).open() as journal, interruptible(stop):
        if shard is None:  # nobody else is writing here
            _clear_away(out)
        common = Common.of(study, None if workers.remote else out)
        number = 0
        while settings := plan.ask():
            new = [p for k, s in enumerate(settings) for p in study.points(number + k, s)]
            number += len(settings)
            own = [study.job(p) for p in new]
            points += new
            jobs += own
            _count(progress, plan.total, len(new) // len(settings), jobs, journal, shard)
            progress.known = progress.jobs_finished - progress.run
            _run_jobs(common, own, journal, workers, stop, shard, progress, tell, batches, jobs)
            if progress.jobs_finished < progress.jobs:
                raise Interrupted(
                    f"interrupted: {progress.finished} of {progress.total} points are finished, "
                    f"in {out}; the same command continues"
                )
            plan.tell(_means(settings, new, own, journal))
        journal.read()  # what other shards have finished meanwhile
        if common.folder is not None:
            _end_trainings(common.folder, shard is None)
    return Outcome(points, jobs, [journal.results.get(job.key) for job in jobs])


def _clear_away(out: Path) -> None:
    """Remove what a killed run was writing: tables and pictures under temporary names."""
    for path in out.iterdir():
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _end_trainings(folder: Path, alone: bool) -> None:
    """Remove checkpoints that nobody needs; those of other shards stay."""
    if alone:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _mine(keys: Sequence[str], shard: tuple[int, int] | None) -> list[str]:
    """Keys of the shard, by their place in the order of the sweep: the same whatever has been
    finished already."""
    return list(keys) if shard is None else list(keys)[shard[0] - 1 :: shard[1]]


def _count(
    progress: Progress, settings: int, each: int, jobs: Sequence[Job], journal: Journal,
    shard: tuple[int, int] | None,
) -> None:  # fmt: skip
    keys = _mine(list(dict.fromkeys(job.key for job in jobs)), shard)
    own = set(keys)
    progress.jobs = len(keys)
    progress.jobs_finished = sum(key in journal.results for key in keys)
    progress.total = settings * each if shard is None else sum(job.key in own for job in jobs)
    progress.finished = sum(job.key in own and job.key in journal.results for job in jobs)


def _run_jobs(
    common: Common, new: Sequence[Job], journal: Journal, workers: Workers,
    stop: threading.Event, shard: tuple[int, int] | None, progress: Progress,
    tell: Callable[[Progress], None], batches: Batches, all_jobs: Sequence[Job],
) -> None:  # fmt: skip
    distinct = {job.key: job for job in new}
    waiting = [distinct[k] for k in _mine(list(distinct), shard) if k not in journal.results]
    weight: dict[str, int] = {}
    for job in all_jobs:
        weight[job.key] = weight.get(job.key, 0) + 1

    def calls() -> Iterator[Call[Any]]:
        while waiting:
            count = batches.size(len(waiting), workers.count)
            batch, waiting[:count] = waiting[:count], []
            yield Call([job.key for job in batch], work, (common, batch))

    def finished(keys: list[str], answer: tuple[dict[str, Result], float]) -> None:
        results, seconds = answer
        journal.add(results)
        batches.told(len(results), seconds)
        for key in keys:
            progress.finished += weight[key]
            progress.jobs_finished += 1
            progress.run += 1
            if common.folder is not None:
                shutil.rmtree(common.folder / key[:16], ignore_errors=True)
        tell(progress)

    def tick() -> None:
        if stop.is_set():
            workers.halt()
        tell(progress)

    tell(progress)
    try:
        drive(
            workers.executor, calls(), 2 * workers.count, stop, finished, tick,
            abandon=workers.remote,
        )  # fmt: skip
    except BrokenExecutor as error:
        raise DeviceError(f"a worker process ended unasked (no memory?): {error}") from None


def _means(
    settings: Sequence[Setting], points: Sequence[Point], jobs: Sequence[Job], journal: Journal
) -> list[float | None]:
    """Offset-calibrated accuracy of each setting, the mean over its seeds."""
    found: dict[int, list[float | None]] = {}
    for point, job in zip(points, jobs, strict=True):
        result = journal.results.get(job.key, {})
        found.setdefault(point.number, []).append(result.get("offset_calibrated"))
    means: list[float | None] = []
    for values in found.values():
        known = [v for v in values if v is not None]
        means.append(float(np.mean(known)) if len(known) == len(values) else None)
    return means
