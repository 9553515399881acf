"""Samples with classes: shown one behind the other, judged by their votes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy import OFFSET_SAMPLES, chip_scales, chip_votes, part, score
from hwgle.chip import Chip
from hwgle.device import Block, Records
from hwgle.devices.emulator import Emulator
from hwgle.errors import UsageError
from hwgle.experiment import Training
from hwgle.learning.focus import Focus
from hwgle.learning.lesson import Judged, Progress, Shown
from hwgle.learning.rule import Arrays
from hwgle.network import Network
from hwgle.quantise import Scales, to_int16
from hwgle.session import calibrate_on
from hwgle.tasks import Split, Task
from hwgle.weights import Weights, with_times


class Labelled:
    """See Lesson. A batch is a sample for each stream, whose state goes on from the last."""

    measure = "accuracy"
    tells_before = False  # at chance

    def __init__(self, network: Network, chip: Chip, task: Task, training: Training) -> None:
        _check(task, network, training.batch)
        self._network, self._chip, self._task = network, chip, task
        self._batch, self._seed = training.batch, training.seed
        self._steps = task.train.x.shape[1]
        self.batches = len(task.train) // self._batch
        self.steps = self.batches * self._steps
        self.range_every = self._steps
        self._focus = Focus(task.train.y, training.focus)
        self._epoch = -1
        self._hits = self._seen = 0.0
        self._votes = self._no_votes()

    def begin(self, weights: Weights) -> Scales:
        """See Lesson."""
        x = np.swapaxes(self._task.train.x, 0, 1)
        y = self._task.train.y
        network = with_times(self._network, weights)
        scales = calibrate_on(network, self._chip, weights, x, y, learning=True)
        self._x, _ = to_int16(x, scales.input, self._chip.input_max)
        self._y = y.astype(np.int16)
        return scales

    def batch(self, epoch: int, index: int) -> Shown:
        """See Lesson."""
        if self._epoch != epoch:
            rng = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._order, self._times = self._focus.order(rng)
            self._epoch = epoch
        here = slice(index * self._batch, (index + 1) * self._batch)
        self._which = self._order[here]
        # how many samples each stands for: accuracy is told as if all had been shown alike
        self._stands_for = 1 / self._times[here]
        y = self._y[self._which]
        return Shown(self._x[:, self._which], y, y)

    def block(self, shown: Shown, first: int, last: int) -> Block:
        """See Lesson."""
        return Block(shown.x[first:last], shown.target, ranging=True, votes=True)

    def take(self, shown: Shown, first: int, last: int, records: Records) -> None:
        """See Lesson."""
        assert records.votes is not None
        self._votes += records.votes

    def batch_done(self, shown: Shown) -> None:
        """See Lesson."""
        right = self._votes.argmax(axis=1) == shown.y
        self._hits += float(self._stands_for[right].sum())
        self._seen += float(self._stands_for.sum())
        self._focus.note(self._which, self._votes)
        self._votes = self._no_votes()

    def learning(self) -> dict[str, float]:
        """See Lesson."""
        return {"accuracy_learning": self._hits / self._seen if self._seen else float("nan")}

    def epoch_done(self) -> None:
        """See Lesson."""
        self._hits = self._seen = 0.0
        self._focus.epoch_done()

    def judge(self, weights: Weights, split: str, say: Progress) -> Judged:
        """See Lesson; the score is the raw accuracy."""
        chip, train = self._chip, self._task.train
        network = with_times(self._network, weights)
        judged: Split = getattr(self._task, split)
        scales = chip_scales(network, chip, weights, train)
        some = part(train, OFFSET_SAMPLES)
        with Emulator() as body:
            votes = chip_votes(body, network, chip, weights, scales, judged, say, health=True)
            on_train = chip_votes(body, network, chip, weights, scales, some, say)
        result = score(votes, judged, on_train, some)
        assert votes.health is not None
        facts = {"": result.raw, "_calibrated": result.calibrated}
        return Judged(result.raw, facts, votes.health)

    def value(self, score: float) -> float:
        """See Lesson."""
        return score

    def state(self) -> Arrays:
        """See Lesson."""
        state = {"votes": self._votes, "counts": np.array([self._hits, self._seen])}
        return state | self._focus.state()

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Lesson."""
        self._votes = state["votes"].astype(np.int64)
        self._hits, self._seen = (float(n) for n in state["counts"])
        self._focus.restore(state)

    def _no_votes(self) -> NDArray[np.int64]:
        return np.zeros((self._batch, self._network.outputs), dtype=np.int64)


def _check(task: Task, network: Network, batch: int) -> None:
    """Raises UsageError, with all that is wrong, for samples that do not fit the network."""
    wrong = []
    if network.loss != "cross_entropy":
        wrong.append(f"samples with classes; the network's loss is {network.loss}")
    for name in ("train", "validation", "test"):
        split: Split = getattr(task, name)
        if split.x.ndim != 3 or len(split.x) != len(split.y) or not len(split.y):
            wrong.append(f"{name}: x {split.x.shape} and y {split.y.shape}")
            continue
        if split.x.shape[2] != network.inputs:
            found = f"{split.x.shape[2]} inputs"
            wrong.append(f"{name}: {found}; the network has {network.inputs}")
        if split.x.shape[1] != task.train.x.shape[1]:
            found = f"{split.x.shape[1]} steps"
            wrong.append(f"{name}: {found}; those of train have {task.train.x.shape[1]}")
        if not np.isfinite(split.x).all():
            wrong.append(f"{name}: a number that is not finite")
        least, most = int(split.y.min()), int(split.y.max())
        if least < 0 or most >= network.outputs:
            found = f"classes {least} to {most}"
            wrong.append(f"{name}: {found}; the network has {network.outputs} outputs")
    if batch > len(task.train):
        wrong.append(f"{len(task.train)} samples to learn from; training.batch is {batch}")
    if wrong:
        raise UsageError("\n".join(f"{task.name}: {line}" for line in wrong))
