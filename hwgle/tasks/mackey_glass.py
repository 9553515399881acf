"""Mackey-Glass: predict a chaotic series 6 and 84 samples ahead.

    dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x        (Mackey and Glass, Science 1977)

integrated by the fourth-order Runge-Kutta method with 10 steps a sample (the delayed value
between two steps by cubic interpolation), from constant histories drawn per stream, and
sampled at 1 after a transient. Nothing but additions, products and quotients: the same bits
on every machine. All splits are shifted and scaled by the mean and standard deviation of the
training inputs. The measure is `hwgle.prediction.nrmse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwgle.errors import UsageError
from hwgle.tasks import Series, SeriesTask
from hwgle.tasks.settings import (
    Count,
    Needs,
    Progress,
    Seed,
    Steps,
    TaskSettings,
    other_seed,
    settled,
)
from hwgle.yamlfile import Rule

AHEAD = (6, 84)  # samples
DELAY, PER_SAMPLE = 17, 10
TRANSIENT = 1000  # samples
STREAMS_MAX = 4096


class Settings(TaskSettings):
    """Seeds of the histories; train, test: samples of each stream."""

    COUNTED: ClassVar[str | None] = "streams"
    NEEDS: ClassVar[Needs | None] = Needs("mse", 1, len(AHEAD))

    name: Literal["mackey-glass"]
    seed: Seed
    validation_seed: Seed
    train: Count = 3000
    test: Count = 1000
    streams: Annotated[int, Field(ge=1, le=STREAMS_MAX)] = 10
    settle: Steps = 100

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """See TaskSettings."""
        yield from other_seed(data)
        yield from settled(data, "train", "test")

    def load(self, base: Path, progress: Progress | None = None) -> SeriesTask:
        """See TaskSettings."""
        task = load_series(
            self.seed, self.validation_seed, self.train, self.test, self.streams
        )
        return replace(task, settle=self.settle)


def load_series(
    seed: int,
    validation_seed: int,
    train: int = 3000,
    test: int = 1000,
    streams: int = 10,
) -> SeriesTask:
    """Streams on the same attractor, each from a history of its own (some seconds).

    Args:
        seed: of the histories of `train` and, next drawn, `test`.
        validation_seed: of those of `validation`.
        train: samples of each stream of the training split.
        test: samples of each stream of the other two.
        streams: in each split.

    Returns:
        The task; y holds the values 6 and 84 samples ahead.

    Raises:
        UsageError: a size below 1, a negative seed, or both seeds equal.
    """
    if min(train, test, streams) < 1 or streams > STREAMS_MAX:
        raise UsageError(
            f"mackey-glass: train {train}, test {test} and streams {streams} must be at least "
            f"1, streams at most {STREAMS_MAX}"
        )
    if min(seed, validation_seed) < 0 or seed == validation_seed:
        raise UsageError(
            f"mackey-glass: seed {seed} and validation_seed {validation_seed} must differ and "
            "not be negative"
        )
    draws = np.random.Generator(np.random.PCG64(seed))
    other = np.random.Generator(np.random.PCG64(validation_seed))
    histories = [rng.uniform(0.9, 1.5, streams) for rng in (draws, draws, other)]
    raw = generate(np.concatenate(histories), max(train, test) + max(AHEAD))
    fit, tested, validation = np.split(raw, 3)
    mean, deviation = fit[:, :train].mean(), fit[:, :train].std()

    def series(values: NDArray[np.float64], steps: int) -> Series:
        z = (values - mean) / deviation
        y = np.stack([z[:, k : k + steps] for k in AHEAD], axis=2)
        return Series(z[:, :steps, None].copy(), y)

    return SeriesTask(
        "mackey-glass", series(fit, train), series(validation, test), series(tested, test)
    )


def generate(histories: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """The series (streams, samples) from constant histories (streams,), transient left out."""
    lag = DELAY * PER_SAMPLE
    steps = (TRANSIENT + samples) * PER_SAMPLE
    h = 1.0 / PER_SAMPLE
    # x[t + lag + 1] is the value at step t; the first rows are the history.
    x = np.empty((steps + lag + 2, len(histories)))
    x[: lag + 2] = histories
    for t in range(steps):
        now = t + lag + 1
        a, b, c, d = x[t], x[t + 1], x[t + 2], x[t + 3]  # delayed by lag + 1 .. lag - 2 steps
        start = _production(b)
        middle = _production((9.0 * (b + c) - a - d) / 16.0)
        end = _production(c)
        x0 = x[now]
        k1 = start - 0.1 * x0
        k2 = middle - 0.1 * (x0 + 0.5 * h * k1)
        k3 = middle - 0.1 * (x0 + 0.5 * h * k2)
        k4 = end - 0.1 * (x0 + h * k3)
        x[now + 1] = x0 + (h / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)
    first = lag + 1 + TRANSIENT * PER_SAMPLE
    sampled = x[first::PER_SAMPLE][:samples]
    return np.ascontiguousarray(sampled.T)


def _production(delayed: NDArray[np.float64]) -> NDArray[np.float64]:
    """0.2 x / (1 + x^10), the power by products: libraries differ in theirs."""
    square = delayed * delayed
    fourth = square * square
    production: NDArray[np.float64] = 0.2 * delayed / (1.0 + fourth * fourth * square)
    return production
