"""The float64 oracle on many streams, in processes of its own beside the chip."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.pool import AsyncResult
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hwgle.network import Network
from hwgle.reference import Reference
from hwgle.undisturbed import undisturbed
from hwgle.weights import Weights

GROUP = 50  # streams that step together: a batch that NumPy is quick with
LOOK_SECONDS = 0.1


def outputs(network: Network, weights: Weights, x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rates of the output layer (T, N, outputs) for streams x (N, T, inputs), from rest."""
    count, steps, _ = x.shape
    result = np.empty((steps, count, network.outputs), dtype=np.float32)
    oracle = Reference(network, weights, batch=count)
    for t in range(steps):
        oracle.step(x[:, t])
        result[t] = oracle.output
    return result


def ignore_interrupts() -> None:
    """In a child: Ctrl-C reaches the whole group, but the parent decides what ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Outputs:
    """Outputs that are being computed."""

    def __init__(self, parts: list[AsyncResult[NDArray[np.float32]]]) -> None:
        self._parts = parts

    def get(self, progress: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
        """Wait for them: (T, N, outputs)."""
        for k, part in enumerate(self._parts):
            while not part.ready():
                part.wait(LOOK_SECONDS)
                if progress is not None:
                    progress(k, len(self._parts))
        return np.concatenate([part.get() for part in self._parts], axis=1)


class FloatPool:
    """Processes that run the oracle; use as a context manager, leaving it ends them."""

    def __init__(self, processes: int | None = None) -> None:
        # Spawned, not forked: the same on every system, and safe beside threads.
        context = multiprocessing.get_context("spawn")
        count = processes or os.cpu_count() or 1
        try:
            with undisturbed():
                self._pool: Any = context.Pool(count, initializer=ignore_interrupts)
        except KeyboardInterrupt:  # it stands, and nobody else will take it down
            self._end()
            raise

    def outputs(self, network: Network, weights: Weights, x: NDArray[np.floating]) -> Outputs:
        """Begin to compute what the function `outputs` returns, in groups of streams."""
        groups = [x[a : a + GROUP] for a in range(0, len(x), GROUP)]
        return Outputs([self._pool.apply_async(outputs, (network, weights, g)) for g in groups])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        # Freed in here: an interruption in a destructor of its connections would be lost.
        with undisturbed():
            self._pool.terminate()
            self._pool.join()
            self._pool = None
