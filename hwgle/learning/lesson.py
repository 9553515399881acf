"""What a task is to the trainer: what is shown, batch by batch, and how it is judged.

A kind of task is one file: `labelled` (samples with classes) and `series` (a target at every
step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Records
from hwgle.health import Health
from hwgle.learning.rule import Arrays
from hwgle.quantise import Scales
from hwgle.weights import Weights

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shown:
    """A batch: all its streams side by side for some steps, in the chip's integers.

    x: (T, B, inputs). target: classes (B,), or (T, B, outputs). free: the first steps, which
    go without a target. y: what the rates are to be, in whichever form the lesson takes it.
    """

    x: NDArray[np.int16]
    target: NDArray[np.int16]
    y: NDArray[Any]
    free: int = 0


@dataclass(frozen=True)
class Judged:
    """How weights did on a split. score: higher is better. facts: for metrics and summary,
    by what follows the name of the split ("" the figure itself)."""

    score: float
    facts: dict[str, Any]
    health: Health


class Lesson(Protocol):
    """Attributes: measure, "accuracy" or "nrmse"; batches and steps of an epoch; range_every,
    steps between two looks of the chip's auto-ranging; tells_before, whether the summary is to
    say how the weights did that learning began with."""

    measure: str
    tells_before: bool
    batches: int
    steps: int
    range_every: int

    def begin(self, weights: Weights) -> Scales:
        """Scales to learn with, and everything in the chip's integers."""
        ...

    def batch(self, epoch: int, index: int) -> Shown:
        """The index-th batch of an epoch; it may hang on what earlier epochs showed."""
        ...

    def block(self, shown: Shown, first: int, last: int) -> Block:
        """Steps first..last - 1 of a batch, on one side of its `free`."""
        ...

    def take(self, shown: Shown, first: int, last: int, records: Records) -> None:
        """What such a block gave; in their order."""
        ...

    def batch_done(self, shown: Shown) -> None:
        """A batch has been shown to its end."""
        ...

    def learning(self) -> dict[str, float]:
        """How well it did while learning since the last `epoch_done`, for the metrics; first
        the measure, NaN where there is nothing yet."""
        ...

    def epoch_done(self) -> None:
        """Begin counting anew."""
        ...

    def judge(self, weights: Weights, split: str, say: Progress) -> Judged:
        """Weights on `validation` or `test`."""
        ...

    def value(self, score: float) -> float:
        """The measure that a score of `Judged` stands for."""
        ...

    def state(self) -> Arrays:
        """What it counts, for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up what `state` returned."""
        ...
