"""What the report runs: streams of inputs with a target, in segments of equal length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.network import Network
from hwgle.tasks import Split


@dataclass(frozen=True)
class Material:
    """Streams side by side, samples (segments) of a stream one behind the other.

    x: (T, B, inputs) in network units, T = segments * steps. target: (segments, B) classes
    for cross_entropy, (T, B, outputs) for mse; None for none. settle: segments at the start
    that are run and not judged, since all states begin at 0.
    """

    x: NDArray[np.float64]
    target: NDArray[Any] | None
    steps: int
    settle: int = 1

    @property
    def segments(self) -> int:
        """Of each stream, those that settle included."""
        return len(self.x) // self.steps

    @property
    def streams(self) -> int:
        """B."""
        return int(self.x.shape[1])

    @property
    def judged(self) -> int:
        """Samples of all streams that are judged."""
        return (self.segments - self.settle) * self.streams

    def segment(self, k: int) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
        """Input (steps, B, inputs) of segment k, and its target: (B,) or (steps, B, outputs)."""
        part = slice(k * self.steps, (k + 1) * self.steps)
        if self.target is None or self.target.ndim == 2:
            return self.x[part], None if self.target is None else self.target[k]
        return self.x[part], self.target[part]

    def run_target(self, network: Network) -> NDArray[Any] | None:
        """The target as `Reference.run` takes it: (T, B) classes or (T, B, outputs)."""
        if self.target is None or network.loss == "mse":
            return self.target
        return np.repeat(self.target, self.steps, axis=0)

    def first(self, segments: int) -> Material:
        """The first segments alone."""
        count = segments * self.steps
        target = self.target
        if target is not None:
            target = target[:segments] if target.ndim == 2 else target[:count]
        return Material(self.x[:count], target, self.steps, min(self.settle, segments - 1))


def of_split(split: Split, streams: int, segments: int, settle: int = 1) -> Material:
    """The first streams * segments samples of a split, classes as targets."""
    count, steps, inputs = split.x.shape
    streams = max(1, min(streams, count // segments)) if segments <= count else 1
    segments = min(segments, count)
    x = split.x[: streams * segments].reshape(streams, segments * steps, inputs)
    y = split.y[: streams * segments].reshape(streams, segments)
    turned = np.swapaxes(x, 0, 1).astype(np.float64)
    return Material(turned, np.ascontiguousarray(y.T), steps, min(settle, segments - 1))


def time_bins(steps: int, most: int = 24) -> Iterator[slice]:
    """Steps of a segment in at most so many parts of nearly equal length."""
    edges = np.linspace(0, steps, min(most, steps) + 1).astype(int)
    return (slice(int(a), int(b)) for a, b in pairwise(edges))
