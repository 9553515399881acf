"""Lagnet: a student learns the first layer of a teacher of 1-2-2-1 neurons, slow ones among them.

Of Ellenberger et al., arXiv 2403.16933: the network is `lagnet`; the input, one stream, the
sum of three sines of incommensurate frequencies. Training begins at time 0, with the teacher
at rest; validation and test are what the same stream brings after it, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from hwgle.errors import UsageError
from hwgle.network import Network
from hwgle.reference import Reference
from hwgle.tasks import Series, SeriesTask
from hwgle.tasks.settings import Count, Needs, Progress, Steps, TaskSettings, settled
from hwgle.weights import Weights
from hwgle.yamlfile import Rule

FREQUENCIES = (0.49, 1.07, 1.98)  # radians per unit of time
TEACHER = {
    "h1": [[-0.5], [1.0]],
    "h2": [[0.5, 0.0], [0.0, 1.0]],
    "out": [[0.5, 1.0]],
}

NEEDS = Needs("mse", 1, 1, layers=tuple((name, len(w)) for name, w in TEACHER.items()))


class Settings(TaskSettings):
    """Steps of 0.01 units of time; learning begins with the weights of a student, drawn from
    the seed of the training."""

    NEEDS: ClassVar[Needs | None] = NEEDS

    name: Literal["lagnet"]
    train: Count = 100_000
    test: Count = 10_000
    settle: Steps = 8000

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """See TaskSettings."""
        yield from settled(data, "train", "test")

    @classmethod
    def count(cls, data: Mapping[str, Any]) -> float | None:
        """One stream."""
        return 1

    def load(self, base: Path, progress: Progress | None = None) -> SeriesTask:
        """See TaskSettings."""
        return replace(load_series(self.train, self.test), settle=self.settle)

    def first_weights(self, network: Network, seed: int) -> Weights:
        """The student's."""
        return student(seed)


def load_series(train: int = 100_000, test: int = 10_000) -> SeriesTask:
    """The stream and the teacher's answer (some seconds).

    There is nothing random in it: repetitions differ by the student they begin with.

    Args:
        train: steps to learn in, of 0.01 units of time.
        test: steps of validation and of test.

    Raises:
        UsageError: a length below 1.
    """
    if min(train, test) < 1:
        raise UsageError(f"lagnet: train {train} and test {test} steps; at least 1 each")
    network = Network.load("lagnet")
    time = network.dt * np.arange(train + 2 * test)
    x = sum(np.sin(omega * time) for omega in FREQUENCIES)
    x = np.asarray(x)[:, None, None]
    silent = network.model_copy(update={"gamma": 0.0})
    y = Reference(silent, teacher(), 1).run(x, record=())["output"].astype(np.float64)
    cuts = [(0, train), (train, train + test), (train + test, train + 2 * test)]
    first, second, third = (Series(x[None, a:b, 0], y[None, a:b, 0]) for a, b in cuts)
    return SeriesTask("lagnet", train=first, validation=second, test=third)


def teacher() -> Weights:
    """Weights and biases (0) of the teacher."""
    weights: Weights = {}
    for name, value in TEACHER.items():
        weights[f"{name}.weight"] = np.array(value)
        weights[f"{name}.bias"] = np.zeros(len(value))
    return weights


def student(seed: int) -> Weights:
    """The teacher with a first layer uniform in -1..0."""
    rng = np.random.Generator(np.random.PCG64(seed))
    first = -rng.uniform(0, 1, (2, 1))
    return teacher() | {"h1.weight": first}
