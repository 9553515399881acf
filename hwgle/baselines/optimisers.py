"""From directions of ascent to increments, for arrays of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from hwgle.baselines.copies import Array


class Optimiser(Protocol):
    """Turns each direction into an increment of the parameters."""

    def increment(self, gradient: Array) -> Array:
        """What to add to the parameters; a new array."""
        ...

    def state(self) -> dict[str, Array]:
        """What it remembers, for a checkpoint; empty before the first increment."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up what `state` returned."""
        ...


class Adam:
    """Kingma and Ba, arXiv 1412.6980, algorithm 1, as ascent.

    Args:
        lr: step size; a number or an array that broadcasts with the gradient, such as (C, 1).
        beta1, beta2: decay of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        lr: float | Array,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self._state: dict[str, Array] = {}

    def increment(self, gradient: Array) -> Array:
        """See Optimiser."""
        if not self._state:
            self._state = {name: np.zeros_like(gradient) for name in ("m", "v")}
            self._state["powers"] = np.ones(2)
        m, v, powers = self._state["m"], self._state["v"], self._state["powers"]
        powers *= (self.beta1, self.beta2)
        m += (1 - self.beta1) * (gradient - m)
        v += (1 - self.beta2) * (gradient * gradient - v)
        root: Array = np.sqrt(v / (1 - powers[1]))
        root += self.eps
        step: Array = m / root
        step *= self.lr / (1 - powers[0])
        return step

    def state(self) -> dict[str, Array]:
        """See Optimiser."""
        return self._state

    def restore(self, state: Mapping[str, Array]) -> None:
        """See Optimiser."""
        self._state = {name: np.array(array) for name, array in state.items()}


class Momentum:
    """Gradient ascent with momentum: p <- momentum p + gradient, w += lr p.

    Args:
        lr: step size; a number or an array that broadcasts with the gradient.
        momentum: 0..1; 0 is plain gradient ascent.
    """

    def __init__(self, lr: float | Array, momentum: float = 0.0) -> None:
        self.lr, self.momentum = lr, momentum
        self._state: dict[str, Array] = {}

    def increment(self, gradient: Array) -> Array:
        """See Optimiser."""
        if not self._state:
            self._state = {"p": np.zeros_like(gradient)}
        p = self._state["p"]
        p *= self.momentum
        p += gradient
        return p * self.lr

    def state(self) -> dict[str, Array]:
        """See Optimiser."""
        return self._state

    def restore(self, state: Mapping[str, Array]) -> None:
        """See Optimiser."""
        self._state = {name: np.array(array) for name, array in state.items()}
