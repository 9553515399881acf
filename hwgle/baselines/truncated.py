"""Backpropagation through time over a window, from the state that the network is in.

Every `every` steps the losses of those steps are sent back through the last `window` steps
(BPTT(h; h') of R. J. Williams and J. Peng, Neural Computation 2 (1990)); what came before is
taken as given. With every = window, the default, windows follow one another and the loss at
the start of each has no past at all; with a window as long as the run it is the adjoint.
The weights are those at the end of the window. gamma is not differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, CopiedLayer, Copies

KEPT = ("dphi", "pull", "r_old")


class Truncated:
    """See the module.

    Args:
        window: steps to look back, at least 1.
        every: steps between two directions, 1..window; a direction is the sum over them.
    """

    in_network = False

    def __init__(self, window: int, every: int | None = None) -> None:
        self.window = window
        self.every = window if every is None else every
        if not 1 <= self.every <= window:
            raise ValueError(f"window {window}, every {self.every}: 1 <= every <= window")

    def begin(self, net: Copies) -> None:
        """See Method. Rings over the window, with the step as the second axis."""

        def ring(size: int) -> Array:
            return np.zeros((net.copies, self.window, net.batch, size))

        self._past = [{name: ring(s.size) for name in KEPT} for s in net.layers]
        self._input = ring(net.network.inputs)
        self._error = ring(net.layers[-1].size)
        self._steps = np.zeros(1)  # an array, for a checkpoint

    def after_step(self, net: Copies, target: NDArray[np.generic]) -> Array | None:
        """See Method."""
        at = int(self._steps[0]) % self.window
        for s, past in zip(net.layers, self._past, strict=True):
            for name in KEPT:
                past[name][:, at] = getattr(s, name)
        self._input[:, at] = net.input
        self._error[:, at] = net.error_of_output(target)
        self._steps += 1
        return self._now(net, int(self._steps[0]))

    def _now(self, net: Copies, done: int) -> Array | None:
        """The direction after so many steps, if there is one."""
        if done % self.every:
            return None
        length = min(done, self.window)
        return self._direction(net, done, slice(length - self.every, None), slice(None))

    def _direction(self, net: Copies, done: int, losses: slice, counted: slice) -> Array:
        """Back through the last steps, oldest first in all arrays.

        losses: the steps of the window whose losses are sent back; counted: those whose
        use of the parameters counts.
        """
        length = min(done, self.window)
        order = np.arange(done - length, done) % self.window
        handed_down = np.zeros_like(self._error[:, :length])
        handed_down[:, losses] = self._error[:, order][:, losses]
        gradient = np.empty_like(net.flat)
        for k in reversed(range(len(net.layers))):
            s, past = net.layers[k], self._past[k]
            x_bar = _back(s, handed_down * past["dphi"][:, order])
            below = self._past[k - 1]["r_old"][:, order] if k else self._input[:, order]
            rows = x_bar[:, counted].reshape(net.copies, -1, s.size)
            heard = below[:, counted].reshape(net.copies, -1, s.fan_in)
            outer = np.matmul(rows.swapaxes(1, 2), heard)
            gradient[:, s.at["weight"]] = outer.reshape(net.copies, -1)
            gradient[:, s.at["bias"]] = rows.sum(axis=1)
            pulls = past["pull"][:, order][:, counted].reshape(rows.shape)
            pull = np.einsum("ckn,ckn->cn", rows, pulls)
            gradient[:, s.at["tau_m"]] = -pull / s.tau_m[:, 0]
            handed_down = np.zeros_like(below)  # r of the layer below is heard a step later
            handed_down[:, :-1] = np.matmul(x_bar[:, 1:], s.weight[:, None])
        gradient /= net.batch
        return gradient

    def state(self) -> dict[str, Array]:
        """See Method."""
        arrays = {"input": self._input, "error": self._error, "steps": self._steps}
        for k, past in enumerate(self._past):
            arrays |= {f"{name}{k}": array for name, array in past.items()}
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """See Method."""
        for name, array in self.state().items():
            array[:] = state[name]


def _back(s: CopiedLayer, uhat_bar: Array) -> Array:
    """Costate of x from that of uhat, (C, K, B, n); u acts on the future by the next step."""
    x_bar: Array = uhat_bar * s.prospective[:, None]
    own = uhat_bar - x_bar
    keep = 1 - s.dt_m
    u_bar = np.zeros_like(own[:, 0])
    for t in reversed(range(uhat_bar.shape[1])):
        x_bar[:, t] += s.dt_m * u_bar
        u_bar *= keep
        u_bar += own[:, t]
    return x_bar
