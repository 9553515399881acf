"""The exact gradient of a whole run from rest, for every copy: `hwgle.adjoint`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.adjoint import adjoint_gradient
from hwgle.baselines.copies import Array, Copies
from hwgle.reference import LayerLike


@dataclass(frozen=True)
class _Layer:
    """A layer with time constants that a copy has learned."""

    name: str
    phi: str
    size: int
    tau_m: NDArray[np.float64]
    tau_r: NDArray[np.float64]
    learn: bool


@dataclass(frozen=True)
class _Network:
    dt: float
    inputs: int
    loss: str
    beta: float
    gamma: float
    layers: tuple[LayerLike, ...]


def exact_gradient(
    net: Copies, X: Array, target: NDArray[np.generic]
) -> tuple[NDArray[np.float64], Array]:
    """Loss (C,) and direction of ascent (C, P) of a run from rest with fixed parameters.

    gamma counts as 0 here, whatever the network has: errors do not act on the rates.

    Args:
        net: its present parameters are used, its state is not.
        X: inputs (T, C or 1, B, inputs).
        target: (T, C or 1, B, outputs) for mse, (T, C or 1, B) for cross_entropy.
    """
    gradient = np.empty_like(net.flat)
    losses = np.empty(net.copies)
    parts = net.named(net.flat)
    for c in range(net.copies):
        mine = {name: part[c] for name, part in parts.items()}
        layers = tuple(
            _Layer(y.name, y.phi, y.size, mine[f"{y.name}.tau_m"], np.asarray(y.tau_r), y.learn)
            for y in net.network.layers
        )
        n = net.network
        network = _Network(n.dt, n.inputs, n.loss, n.beta, 0.0, layers)
        x = X[:, c if X.shape[1] > 1 else 0]
        y = target[:, c if target.shape[1] > 1 else 0]
        losses[c], found = adjoint_gradient(network, mine, x, y)
        gradient[c] = np.concatenate([found[name].ravel() for name in net.names()])
    return losses, gradient
