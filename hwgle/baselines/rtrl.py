"""Real-time recurrent learning: the exact gradient, carried forward in time.

Beside every u and r their derivatives with respect to all parameters are kept, (C, B, n, P).
With the multipliers of the step a = dt/tau_m, k = tau_r/tau_m and D for d/dparameter,

    Dx     = W Dr_below(t-1) + [below for W, 1 for b, -(x - u)/tau_m for tau_m]
    Duhat  = (1 - k) Du + k Dx
    Du    <- (1 - a) Du + a Dx
    Dr     = phi' Duhat

(tau_m with tau_r held fixed: it acts through a and k alike, hence as a drive of
-(x - u)/tau_m.) The direction of a step is that of its own loss; their sum over a run with
fixed weights is what `hwgle.adjoint` finds. With a `window` the derivatives are forgotten every
so many steps: then the directions of a window add up to those of `Truncated(window)`, which is
truncated backpropagation through time with an update at every step. Memory and time are those
of a network P times as large. What errors do to the rates (gamma) is not differentiated.

R. J. Williams and D. Zipser, Neural Computation 1 (1989).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, CopiedLayer, Copies


class Rtrl:
    """See the module.

    Args:
        window: steps after which the past is forgotten, at least 1; None: never.
    """

    in_network = False

    def __init__(self, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise ValueError(f"a window of {window} steps; at least 1")
        self.window = window
        self._steps = np.zeros(1)  # an array, for a checkpoint
        self._du: list[Array] = []
        self._dr: list[Array] = []

    def begin(self, net: Copies) -> None:
        """See Method. Columns end with the parameters of a layer: none above can act on it."""
        self._du, self._dr = (
            [np.zeros((net.copies, net.batch, s.size, s.at["tau_m"].stop)) for s in net.layers]
            for _ in range(2)
        )
        self._steps[:] = 0

    def after_step(self, net: Copies, target: NDArray[np.generic]) -> Array:
        """See Method."""
        if self.window is not None and self._steps[0] % self.window == 0:
            for array in (*self._du, *self._dr):
                array.fill(0)
        self._steps += 1
        heard = net.input
        dr_below: Array | None = None
        for k, s in enumerate(net.layers):
            dr_old = self._dr[k]
            dx = np.zeros_like(dr_old)
            if dr_below is not None:
                columns = dr_below.shape[3]
                flat = dr_below.reshape(net.copies, net.batch, s.fan_in, columns)
                np.matmul(s.weight[:, None], flat, out=dx[..., :columns])
            _direct(s, heard, dx)
            du = self._du[k]
            prospective, dt_m = s.prospective[..., None], s.dt_m[..., None]
            self._dr[k] = s.dphi[..., None] * (du + prospective * (dx - du))
            du += dt_m * (dx - du)
            heard, dr_below = s.r_old, dr_old
        error = net.error_of_output(target)
        gradient: Array = np.einsum("cbo,cbop->cp", error, self._dr[-1])
        gradient /= net.batch
        return gradient

    def state(self) -> dict[str, Array]:
        """See Method."""
        du = {f"du{k}": array for k, array in enumerate(self._du)}
        return {"steps": self._steps} | du | {f"dr{k}": array for k, array in enumerate(self._dr)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """See Method."""
        self._steps[:] = state["steps"]
        for k in range(len(self._du)):
            self._du[k] = np.array(state[f"du{k}"])
            self._dr[k] = np.array(state[f"dr{k}"])


def _direct(s: CopiedLayer, heard: Array, dx: Array) -> None:
    """Add the layer's own parameters to dx (C, B, n, P): each acts on its neuron only."""
    weight, bias, tau = (s.at[kind].start for kind in ("weight", "bias", "tau_m"))
    for i in range(s.size):
        first = weight + i * s.fan_in
        dx[:, :, i, first : first + s.fan_in] = heard
        dx[:, :, i, bias + i] = 1
        dx[:, :, i, tau + i] = -s.pull[:, :, i] / s.tau_m[:, :, i]
