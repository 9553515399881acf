"""The rival: the same equations as hwgle.reference, as fast as plain NumPy does them.

float32, everything allocated once and changed in place, states (B, n). The layers stand
side by side in one array (B, N) of all N neurons, so that what is elementwise is one call
for the whole network, and all parameters stand in one vector, so that learning is too.
Only the products go layer by layer. Whatever has the same activation in a row shares a
call. This is what a user would have without hwgle, not a straw man: see tests/unit/test_bench.py
for its numbers and the table of `python -m bench` for its speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle.activation import activation
from hwgle.reference import NetworkLike

Float32 = NDArray[np.float32]


class Rival:
    """A GLE network of `batch` streams; learns with SGD, or with Adam if `adam`.

    `rate` is the learning rate per step, on the mean gradient of the batch. Values are in
    network units; `parameters` holds all weights row by row and then all biases.
    """

    def __init__(
        self,
        network: NetworkLike,
        weights: Mapping[str, ArrayLike],
        batch: int,
        rate: float = 0.0,
        adam: bool = False,
    ) -> None:
        layers, dt = network.layers, network.dt
        ends = np.cumsum([0] + [layer.size for layer in layers])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        names = [f"{n.name}.weight" for n in layers] + [f"{n.name}.bias" for n in layers]
        flat = [np.asarray(weights[name], np.float32) for name in names]
        cuts = np.cumsum([w.size for w in flat])[: len(layers)]
        self.parameters = np.concatenate([w.ravel() for w in flat])
        self.ascent, self.m, self.v2, self.tmp = (np.zeros_like(self.parameters) for _ in range(4))
        shapes = [w.shape for w in flat[: len(layers)]]
        *wide, self.b = np.split(self.parameters, cuts)
        self.W = [w.reshape(s) for w, s in zip(wide, shapes, strict=True)]
        *wide, self.db = np.split(self.ascent, cuts)
        self.dW = [w.reshape(s) for w, s in zip(wide, shapes, strict=True)]
        tau_m, tau_r = (np.concatenate([getattr(n, t) for n in layers]) for t in ("tau_m", "tau_r"))
        ratios = (dt / tau_m, tau_r / tau_m, dt / tau_r, tau_m / tau_r)
        self.k = [np.tile(k.astype(np.float32), (batch, 1)) for k in ratios]
        self.u, self.v, self.r, self.e, self.x, self.above, self.slope, self.s = (
            np.zeros((batch, int(ends[-1])), np.float32) for _ in range(8)
        )
        runs = groupby(zip(layers, self.parts, strict=True), key=lambda pair: pair[0].phi)
        self.phi = [
            (activation(name), slice(same[0][1].start, same[-1][1].stop))
            for name, same in ((name, list(run)) for name, run in runs)
        ]
        self.softmax = network.loss == "cross_entropy"
        self.beta, self.gamma = np.float32(network.beta), np.float32(network.gamma)
        self.mean = np.full(batch, 1 / batch, np.float32)
        self.rate, self.adam, self.steps = rate, adam, 0

    def step(self, x: Float32, y: Float32 | None, learn: bool) -> None:
        """One dt: input x (B, inputs), target y (B, outputs; one-hot for cross_entropy).

        y None is inference: the error path is left out, and stays as it was.
        """
        below = [x, *(self.r[:, part] for part in self.parts[:-1])]
        for w, part, r in zip(self.W, self.parts, below, strict=True):
            np.matmul(r, w.T, out=self.x[:, part])
        self.x += self.b
        if y is not None:
            self._errors(y)
        if learn:
            for dw, part, r in zip(self.dW, self.parts, below, strict=True):
                np.matmul(self.e[:, part].T, r, out=dw)
            np.matmul(self.mean, self.e, out=self.db)
            self._learn()
        x_u, s = self.x, self.s
        x_u -= self.u
        np.multiply(x_u, self.k[1], out=s)
        s += self.u  # uhat
        x_u *= self.k[0]
        self.u += x_u
        for act, part in self.phi:
            act.phi(s[:, part], out=self.r[:, part])
            if y is not None:
                act.dphi_of_rate(self.r[:, part], out=self.slope[:, part])

    def finite(self) -> bool:
        """Whether it has not run away."""
        return bool(np.isfinite(self.parameters).all() and np.isfinite(self.r).all())

    def _errors(self, y: Float32) -> None:
        top, above, inst = self.r[:, self.parts[-1]], self.above, self.s
        if self.softmax:
            p = np.exp(top - top.max(axis=1, keepdims=True))
            top = np.divide(p, p.sum(axis=1, keepdims=True), out=p)
        np.multiply(y - top, self.beta, out=above[:, self.parts[-1]])
        for w, part, to in zip(self.W[1:], self.parts[1:], self.parts[:-1], strict=True):
            np.matmul(self.e[:, part], w, out=above[:, to])
        np.multiply(self.slope, above, out=inst)
        inst -= self.v
        np.multiply(inst, self.k[3], out=self.e)
        self.e += self.v
        inst *= self.k[2]
        self.v += inst
        if self.gamma:
            self.x += np.multiply(self.e, self.gamma, out=inst)

    def _learn(self) -> None:
        g, m, v, tmp = self.ascent, self.m, self.v2, self.tmp
        g[: -self.b.size] *= self.mean[0]
        if not self.adam:
            g *= self.rate
            self.parameters += g
            return
        self.steps += 1
        m *= 0.9
        m += np.multiply(g, 0.1, out=tmp)
        v *= 0.999
        g *= g
        v += np.multiply(g, 0.001, out=g)
        np.sqrt(v, out=tmp)
        tmp *= (1 - 0.999**self.steps) ** -0.5
        tmp += 1e-8
        np.divide(m, tmp, out=tmp)
        self.parameters += np.multiply(tmp, self.rate / (1 - 0.9**self.steps), out=tmp)
