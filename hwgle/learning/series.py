"""Series with a target at every step: streams go on for as long as the series does.

An epoch shows every stream once, in groups of `batch` streams side by side; states persist
from one group, and one epoch, to the next. A batch is a section of some steps, so that a long
series has its learning rates, its progress and its weight decay in between.

The chip compares a target with the rates of the step before: the target of a step is that of
the step before it, at a seam the last one that was shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle import prediction
from hwgle.chip import Chip
from hwgle.device import Block, Records
from hwgle.devices.emulator import Emulator
from hwgle.errors import UsageError
from hwgle.experiment import Training
from hwgle.learning.lesson import Judged, Progress, Shown
from hwgle.learning.rule import Arrays
from hwgle.network import Network
from hwgle.quantise import Scales, to_int16
from hwgle.session import calibrate_on, run
from hwgle.tasks import Series, SeriesTask
from hwgle.weights import Weights, with_times

SECTION = 1000  # steps of a batch
RANGE_EVERY = 1000  # steps
TARGET_MAX = 32767


class SeriesLesson:
    """See Lesson."""

    measure = "nrmse"
    tells_before = True

    def __init__(
        self, network: Network, chip: Chip, task: SeriesTask, training: Training
    ) -> None:
        if network.loss != "mse":
            raise UsageError(f"{task.name}: series; the network's loss is {network.loss}, not mse")
        prediction.check(task, network.inputs, network.outputs)
        if training.batch > len(task.train):
            raise UsageError(
                f"{task.name}: {len(task.train)} streams to learn from; "
                f"training.batch is {training.batch}"
            )
        self._network, self._chip, self._task = network, chip, task
        self._batch, self._seed = training.batch, training.seed
        self._steps = task.train.x.shape[1]
        self._groups = len(task.train) // self._batch
        self._sections = -(-self._steps // SECTION)
        self.batches = self._groups * self._sections
        self.steps = self._groups * self._steps
        self.range_every = min(RANGE_EVERY, self._steps)
        self._spread = task.train.y.std(axis=(0, 1))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._squares = np.zeros(network.outputs)
        self._seen = 0

    def begin(self, weights: Weights) -> Scales:
        """See Lesson."""
        x, y = (np.swapaxes(part, 0, 1) for part in (self._task.train.x, self._task.train.y))
        late = np.concatenate([y[:1], y[:-1]])
        network = with_times(self._network, weights)
        scales = calibrate_on(network, self._chip, weights, x, late, learning=True)
        self._x, _ = to_int16(x, scales.input, self._chip.input_max)
        self._target, _ = to_int16(y, scales.target, TARGET_MAX)
        self._y = y
        return scales

    def batch(self, epoch: int, index: int) -> Shown:
        """See Lesson."""
        group, section = divmod(index, self._sections)
        first = section * SECTION
        last = min(first + SECTION, self._steps)
        which = self._streams(epoch, group)
        if first:
            before = self._target[first - 1, which]
        else:
            past = max(0, epoch * self._groups + group - 1)
            before = self._target[-1, self._streams(*divmod(past, self._groups))]
        target = np.concatenate([before[None], self._target[first : last - 1, which]])
        begun = (epoch * self._groups + group) * self._steps + first
        free = min(max(self._task.settle, 1) - begun, last - first)  # nothing was before step 0
        return Shown(self._x[first:last, which], target, self._y[first:last, which], max(0, free))

    def _streams(self, epoch: int, group: int) -> NDArray[np.int64]:
        """Which streams a group shows; in one group always in the same places."""
        if self._groups == 1:
            return np.arange(self._batch)
        if self._order[0] != epoch:
            rng = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._order = epoch, rng.permutation(len(self._task.train))
        return self._order[1][group * self._batch : (group + 1) * self._batch]

    def block(self, shown: Shown, first: int, last: int) -> Block:
        """See Lesson."""
        target = None if first < shown.free else shown.target[first:last]
        top = (len(self._network.layers) - 1, "r")
        return Block(shown.x[first:last], target, ranging=True, record=[top])

    def take(self, shown: Shown, first: int, last: int, records: Records) -> None:
        """See Lesson."""
        if first < shown.free:
            return
        assert records.fracs is not None
        frac = records.fracs[:, -1, 0].astype(np.int64)[:, None, None]
        off = np.ldexp(records.signals[0].astype(np.float64), -frac) - shown.y[first:last]
        # Step after step: how a batch is cut into blocks does not change the sum.
        each = np.concatenate([self._squares[None], np.square(off).mean(axis=1)])
        self._squares = np.cumsum(each, axis=0)[-1]
        self._seen += last - first

    def batch_done(self, shown: Shown) -> None:
        """See Lesson."""

    def learning(self) -> dict[str, float]:
        """See Lesson."""
        if not self._seen:
            return {"nrmse_learning": math.nan, "loss_learning": math.nan}
        mean = self._squares / self._seen
        error = float(np.mean(np.sqrt(mean) / self._spread))
        return {"nrmse_learning": error, "loss_learning": 0.5 * float(mean.sum())}

    def epoch_done(self) -> None:
        """See Lesson."""
        self._squares[:] = 0
        self._seen = 0

    def judge(self, weights: Weights, split: str, say: Progress) -> Judged:
        """See Lesson; the score is the mean of nrmse over the outputs, with a minus."""
        series: Series = getattr(self._task, split)
        x, target = prediction.judged(self._task, series)
        train = np.swapaxes(self._task.train.x, 0, 1)
        network = with_times(self._network, weights)
        scales = calibrate_on(network, self._chip, weights, train, None)
        with Emulator() as body:
            result = run(
                body, network, self._chip, weights, np.swapaxes(x, 0, 1),
                scales=scales, progress=say,
            )  # fmt: skip
        found = prediction.fit(result.signals["output"], target)
        facts = {"": found.error, "_nrmse": list(found.nrmse), "_loss": found.loss}
        return Judged(-found.error, facts, result.health)

    def value(self, score: float) -> float:
        """See Lesson."""
        return -score

    def state(self) -> Arrays:
        """See Lesson."""
        return {"squares": self._squares, "seen": np.array(self._seen)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Lesson."""
        self._squares = state["squares"].astype(np.float64)
        self._seen = int(state["seen"])
