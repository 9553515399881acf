"""Lagline: a chain of two neurons learns weights and time constants of a teacher.

Of Ellenberger et al., arXiv 2403.16933. The input is a square wave of +-1 with half-period 2
(in units of time; dt is 0.01), smoothed by a Gaussian with a standard deviation of 5 steps;
every stream has its own random shift within a half-period. The teacher is the network
`lagline` with weights 1 and 2 and no bias; its response has settled, so a split is one period
and may be shown again and again without a seam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hwgle.errors import UsageError
from hwgle.network import Network
from hwgle.reference import Reference
from hwgle.tasks import Series, SeriesTask
from hwgle.tasks.settings import Count, Needs, Progress, Seed, Steps, TaskSettings, other_seed
from hwgle.weights import Weights
from hwgle.yamlfile import Rule

HALF_PERIOD = 200  # steps
PERIOD = 2 * HALF_PERIOD
SMOOTHING = 5.0  # steps
SETTLING = 20  # periods, 40 times the longest tau_m
TEACHER = {"first": 1.0, "second": 2.0}
TAU_M_FLOOR = 10  # dt


class Settings(TaskSettings):
    """Seeds of the shifts; learning begins with the weights of a student."""

    COUNTED: ClassVar[str | None] = "streams"
    NEEDS: ClassVar[Needs | None] = Needs("mse", 1, 1, layers=(("first", 1), ("second", 1)))

    name: Literal["lagline"]
    seed: Seed
    validation_seed: Seed
    streams: Count = 100
    settle: Steps = 5000

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """See TaskSettings."""
        yield from other_seed(data)

    def load(self, base: Path, progress: Progress | None = None) -> SeriesTask:
        """See TaskSettings."""
        task = load_series(self.seed, self.validation_seed, self.streams)
        return replace(task, settle=self.settle)

    def first_weights(self, network: Network, seed: int) -> Weights:
        """The student's; time constants that do not learn are those of the network."""
        held = {f"{layer.name}.tau_m" for layer in network.layers if not layer.learn_tau_m}
        return {name: w for name, w in student(seed).items() if name not in held}


def load_series(seed: int, validation_seed: int, streams: int = 100) -> SeriesTask:
    """One period of every stream.

    Args:
        seed: of the shifts of `train` and, next drawn, `test`.
        validation_seed: of the shifts of `validation`.
        streams: in each split.

    Raises:
        UsageError: a negative seed, both seeds equal, or no streams.
    """
    if streams < 1 or min(seed, validation_seed) < 0 or seed == validation_seed:
        raise UsageError(
            f"lagline: seed {seed}, validation_seed {validation_seed}, streams {streams}; "
            "seeds must differ and not be negative, streams be at least 1"
        )
    one = _answered()
    rng = np.random.Generator(np.random.PCG64(seed))
    other = np.random.Generator(np.random.PCG64(validation_seed))
    train, test = _series(rng, one, streams), _series(rng, one, streams)
    return SeriesTask("lagline", train, _series(other, one, streams), test, loops=True)


def teacher() -> Weights:
    """Weights, biases (0) and `<layer>.tau_m` of the teacher."""
    network = Network.load("lagline")
    weights: Weights = {}
    for layer in network.layers:
        weights[f"{layer.name}.weight"] = np.full((1, 1), TEACHER[layer.name])
        weights[f"{layer.name}.bias"] = np.zeros(1)
        weights[f"{layer.name}.tau_m"] = layer.tau_m
    return weights


def student(seed: int) -> Weights:
    """As `teacher`: weights and tau_m uniform in 0..1, tau_m at least TAU_M_FLOOR dt."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    floor = TAU_M_FLOOR * Network.load("lagline").dt
    weights = teacher()
    for name, value in weights.items():
        if not name.endswith(".bias"):
            value = rng.uniform(0, 1, value.shape)
            weights[name] = np.maximum(value, floor) if name.endswith(".tau_m") else value
    return weights


def wave() -> NDArray[np.float64]:
    """One period of the smoothed square wave, (400,)."""
    square = np.repeat([1.0, -1.0], HALF_PERIOD)
    offsets = np.arange(-PERIOD // 2, PERIOD // 2)
    kernel = np.exp(-0.5 * np.square(offsets / SMOOTHING))
    kernel /= kernel.sum()
    return np.array([kernel @ square[(t - offsets) % PERIOD] for t in range(PERIOD)])


def _series(rng: np.random.Generator, one: Series, streams: int) -> Series:
    """One stream, shifted at random for each of `streams`."""
    shifts = rng.integers(0, HALF_PERIOD, (streams, 1))
    at = (np.arange(PERIOD) + shifts) % PERIOD
    return Series(one.x[0, at], one.y[0, at])


def _answered() -> Series:
    """One period of the wave and the settled teacher's answer, one stream."""
    x = wave()[:, None, None]
    # The teacher makes the target: no error acts on it.
    network = Network.load("lagline").model_copy(update={"gamma": 0.0})
    reference = Reference(network, teacher(), 1)
    for _ in range(SETTLING):
        reference.run(x, record=())
    y = reference.run(x, record=())["output"].astype(np.float64)
    return Series(x[:, 0][None], y[:, 0][None])
