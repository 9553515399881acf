"""A second rival: the same equations in PyTorch, if PyTorch is there.

Written from the equations alone (shared/design.md, section 3), the way they are written
down in PyTorch: a layer after the other, tensors (B, n) in float32, in place where that is
natural, learning left to torch.optim. On one thread and without autograd, which GLE does
not need. Never a dependency: without torch the bench goes without this rival.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle.reference import NetworkLike


def torch_or_none() -> Any:
    """The module, on one thread; None where it cannot be imported."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(1)
    return torch


class _Layer:
    """Weights, time constants and states of one layer."""

    def __init__(self, torch: Any, layer: Any, weights: Mapping[str, ArrayLike], batch: int,
                 dt: float) -> None:  # fmt: skip
        def tensor(x: ArrayLike) -> Any:
            return torch.tensor(np.asarray(x, np.float32))

        self.name = layer.phi
        self.W = tensor(weights[f"{layer.name}.weight"])
        self.b = tensor(weights[f"{layer.name}.bias"])
        tau_m, tau_r = np.asarray(layer.tau_m), np.asarray(layer.tau_r)
        self.leak_u, self.ratio_u = tensor(dt / tau_m), tensor(tau_r / tau_m)
        self.leak_v, self.ratio_v = tensor(dt / tau_r), tensor(tau_m / tau_r)
        states = (torch.zeros(batch, len(self.b)) for _ in range(5))
        self.u, self.v, self.r, self.e, self.slope = states


class TorchRival:
    """As bench.numpy_rival.Rival: same arguments, same `step` with NumPy arrays."""

    def __init__(
        self,
        network: NetworkLike,
        weights: Mapping[str, ArrayLike],
        batch: int,
        rate: float = 0.0,
        adam: bool = False,
    ) -> None:
        torch = torch_or_none()
        if torch is None:
            raise RuntimeError("torch is not installed")
        self.torch = torch
        self.layers = [_Layer(torch, n, weights, batch, network.dt) for n in network.layers]
        parameters = [p for layer in self.layers for p in (layer.W, layer.b)]
        kind = torch.optim.Adam if adam else torch.optim.SGD
        self.optimiser = kind(parameters, lr=rate, maximize=True)
        self.softmax = network.loss == "cross_entropy"
        self.beta, self.gamma, self.batch = network.beta, network.gamma, batch

    def step(self, x: NDArray[np.float32], y: NDArray[np.float32] | None, learn: bool) -> None:
        """One dt; see bench.numpy_rival.Rival.step."""
        torch = self.torch
        with torch.inference_mode():
            target = None if y is None else torch.from_numpy(y)
            self._step(torch.from_numpy(x), target, learn)

    def finite(self) -> bool:
        """Whether it has not run away."""
        tensors = [t for layer in self.layers for t in (layer.W, layer.b, layer.r)]
        return all(bool(self.torch.isfinite(t).all()) for t in tensors)

    def _phi(self, name: str, s: Any) -> Any:
        torch = self.torch
        if name == "linear":
            return s
        if name == "softplus":
            return torch.nn.functional.softplus(s)
        return getattr(torch, name)(s)

    def _dphi(self, name: str, r: Any) -> Any:
        """From the rate."""
        torch = self.torch
        if name == "linear":
            return torch.ones_like(r)
        if name == "tanh":
            return 1 - r * r
        if name == "sigmoid":
            return r * (1 - r)
        if name == "softplus":
            return -torch.expm1(-r)
        return (r > 0).to(r.dtype)

    def _step(self, x: Any, y: Any, learn: bool) -> None:
        below = [x, *(layer.r for layer in self.layers[:-1])]
        drive = [self.torch.addmm(n.b, r, n.W.t()) for n, r in zip(self.layers, below, strict=True)]
        if y is not None:
            self._errors(y)
            if self.gamma:
                for current, layer in zip(drive, self.layers, strict=True):
                    current.add_(layer.e, alpha=self.gamma)
        if learn:
            for layer, r in zip(self.layers, below, strict=True):
                layer.W.grad = layer.e.t() @ r / self.batch
                layer.b.grad = layer.e.mean(0)
            self.optimiser.step()
        for layer, current in zip(self.layers, drive, strict=True):
            move = current - layer.u
            s = self.torch.addcmul(layer.u, layer.ratio_u, move)
            layer.u.addcmul_(layer.leak_u, move)
            layer.r = self._phi(layer.name, s)
            if y is not None:
                layer.slope = self._dphi(layer.name, layer.r)

    def _errors(self, y: Any) -> None:
        top = self.layers[-1].r
        above = [n.e @ n.W for n in self.layers[1:]]
        above.append(self.beta * (y - (top.softmax(1) if self.softmax else top)))
        for layer, from_above in zip(self.layers, above, strict=True):
            move = layer.slope * from_above - layer.v
            layer.e = self.torch.addcmul(layer.v, layer.ratio_v, move)
            layer.v.addcmul_(layer.leak_v, move)
