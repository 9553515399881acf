"""What a worker does, in whichever process or machine: jobs in, results out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwgle.accuracy import OFFSET_SAMPLES, part, score
from hwgle.devices.emulator import Emulator
from hwgle.errors import DeviceError, Interrupted, UsageError
from hwgle.golden import arithmetic
from hwgle.learning.trainer import Trainer
from hwgle.montecarlo import votes_of
from hwgle.network import Network
from hwgle.sweep.journal import Result
from hwgle.sweep.study import Job, Study
from hwgle.tasks import Task
from hwgle.tasks.settings import TaskSettings
from hwgle.weights import Weights

_stop: list[Callable[[], bool]] = []  # of this process, set by who started it


def set_stop(stop: Callable[[], bool]) -> None:
    """What this process asks whether to end."""
    _stop[:] = [stop]


def stopped() -> bool:
    """Whether it is to end; never where nobody can tell (a cluster's worker)."""
    return any(stop() for stop in _stop)


@dataclass(frozen=True)
class Common:
    """What all jobs of a sweep share. task: the settings of its data; arithmetic: of who
    asks; folder: where trainings keep checkpoints, None for a temporary one."""

    network: Network
    weights: Weights | None
    task: TaskSettings
    samples: int
    arithmetic: str
    folder: Path | None

    @classmethod
    def of(cls, study: Study, folder: Path | None) -> Common:
        """Of a study; `folder`: of its results, where workers see the same files."""
        trainings = None if folder is None else folder / "trainings"
        task = study.experiment.task
        return cls(study.network, study.weights, task, study.samples, arithmetic(), trainings)


# What this process has loaded last, by its settings.
_DATA: dict[str, Task] = {}


def _data(settings: TaskSettings) -> Task:
    key = settings.model_dump_json()
    if key not in _DATA:
        _DATA.clear()
        task = settings.load(Path())
        assert isinstance(task, Task)
        _DATA[key] = task
    return _DATA[key]


def work(common: Common, jobs: list[Job]) -> tuple[dict[str, Result], float]:
    """Results of some jobs by key, and the seconds that they took.

    What a chip cannot do is a result too ({"refused": why}). Raises DeviceError where this
    worker computes in another arithmetic, Interrupted when told to stop.
    """
    begun = time.perf_counter()
    if arithmetic() != common.arithmetic:
        raise DeviceError(
            f"this worker's arithmetic is {arithmetic()[:12]}, not {common.arithmetic[:12]}: "
            "install the same hwgle on all workers"
        )
    task = _data(common.task)
    task = replace(task, test=part(task.test, common.samples))
    results = {}
    for job in jobs:
        if stopped():
            raise Interrupted("interrupted before it began")
        try:
            one = _evaluate if job.experiment is None else _train
            results[job.key] = one(common, job, task)
        except UsageError as error:
            results[job.key] = {"refused": str(error)}
    return results, time.perf_counter() - begun


def _evaluate(common: Common, job: Job, task: Task) -> Result:
    assert common.weights is not None
    _, votes, on_train = votes_of(job.chip, common.network, common.weights, task, stopped)
    found = score(votes, task.test, on_train, part(task.train, OFFSET_SAMPLES))
    return {
        "raw": found.raw,
        "offset_calibrated": found.calibrated,
        "clipped": votes.clipped,
        "digest": f"{votes.digest:016x}",
    }


def _train(common: Common, job: Job, task: Task) -> Result:
    if common.folder is None:
        with tempfile.TemporaryDirectory(prefix="hwgle-sweep-") as folder:
            return _trained(common, job, task, Path(folder))
    return _trained(common, job, task, common.folder / job.key[:16])


def _trained(common: Common, job: Job, task: Task, folder: Path) -> Result:
    assert job.experiment is not None
    with Emulator() as body:
        trainer = Trainer(
            job.experiment, common.network, job.chip, task, body, folder,
            weights=common.weights, stop=stopped,
        )  # fmt: skip
        summary: dict[str, Any] = trainer.run()
    return {
        "raw": summary["test"],
        "offset_calibrated": summary["test_calibrated"],
        "validation": summary["validation"],
        "best_epoch": summary["best_epoch"],
        "digest": summary["weights_digest"],
    }
