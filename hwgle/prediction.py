"""How well a network follows the targets of series, on a chip and in float.

A run that is judged begins at rest; its first `settle` steps do not count. The rates at the
END of a step are compared with the target of that same step (errors in the network, which
compare a target with the rates of the step before, are handed it one step later).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwgle.errors import UsageError

if TYPE_CHECKING:
    from hwgle.tasks import Series, SeriesTask

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Fit:
    """nrmse: per output, see `nrmse`. loss: mean over steps and streams of |y - r|^2 / 2."""

    nrmse: tuple[float, ...]
    loss: float

    @property
    def error(self) -> float:
        """One number to choose by: the mean of nrmse over the outputs."""
        return float(np.mean(self.nrmse))


def nrmse(prediction: NDArray[np.floating], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the mean square error over the standard deviation of the target, per output.

    Args:
        prediction, target: (..., outputs); NaN in the target is left out.

    Returns:
        (outputs,); 1 is what predicting the mean reaches.
    """
    axes = tuple(range(target.ndim - 1))
    error = np.nanmean(np.square(prediction - target), axis=axes)
    result: NDArray[np.float64] = np.sqrt(error / np.nanvar(target, axis=axes))
    return result


def judged(task: SeriesTask, split: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a judged run is shown, x (N, T, inputs) from rest, and the targets (N, t, outputs)
    of its last t steps, which count."""
    if not task.loops:
        return split.x, split.y[:, task.settle :]
    period = split.x.shape[1]
    at = (np.arange(-task.settle, period)) % period
    return split.x[:, at], split.y


def fit(output: NDArray[np.floating], target: NDArray[np.float64]) -> Fit:
    """Of outputs (T, N, outputs), for the last steps of which there are targets
    (N, t, outputs)."""
    y = np.swapaxes(target, 0, 1)
    r = output[len(output) - len(y) :].astype(np.float64)
    loss = 0.5 * float(np.square(r - y).sum(axis=2).mean())
    return Fit(tuple(float(v) for v in nrmse(r, y)), loss)


def check(task: SeriesTask, inputs: int, outputs: int) -> None:
    """Raises UsageError, with all that is wrong, for series that a chip cannot be shown or
    judged by."""
    wrong = []
    for name in SPLITS:
        split: Series = getattr(task, name)
        x, y = split.x, split.y
        if x.ndim != 3 or y.ndim != 3 or x.shape[:2] != y.shape[:2]:
            wrong.append(f"{name}: x {x.shape} and y {y.shape}; (streams, steps, values) of each")
            continue
        if (x.shape[2], y.shape[2]) != (inputs, outputs):
            found = f"{x.shape[2]} inputs, {y.shape[2]} outputs"
            wrong.append(f"{name}: {found}; the network has {inputs} and {outputs}")
        if not task.loops and x.shape[1] <= task.settle:
            wrong.append(f"{name}: {x.shape[1]} steps; more than settle = {task.settle}")
            continue
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            wrong.append(f"{name}: a number that is not finite")
            continue
        still = np.flatnonzero(np.ptp(judged(task, split)[1], axis=(0, 1)) == 0)
        if len(still):
            wrong.append(f"{name}: output {still[0]} never changes: nothing to normalise by")
    if wrong:
        raise UsageError("\n".join(f"{task.name}: {line}" for line in wrong))
