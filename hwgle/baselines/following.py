"""How well one method follows another while it learns: cosines, per layer and over time.

The directions of both are summed over blocks of steps, for every copy, on the very states
that the learning network goes through; the cosine of the two sums is one point of a curve.
A truth that comes late (`Costate`) is compared with the block that it is about.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.costate import Costate
from hwgle.baselines.method import Method
from hwgle.baselines.online import Online


class Following:
    """A watcher for `Online`.

    Args:
        net: the network that learns.
        truth: the method to compare with; it looks on and changes nothing. `Costate(block,
            ahead)` is the adjoint's own error at the same times, with `ahead` a multiple of
            the same `block`; `Rtrl` the exact gradient by the time of the loss, for small
            networks; `Truncated(window, every)`, `every` dividing `block`, that of a window.
        block: steps of one point.
        kinds: of parameters to compare.

    Attributes:
        curves: `<layer>.<kind>` -> a list of (C,), a value for each full block; NaN where one
            of the sums is zero. "all" is over all that learn (see `Copies.mask`) together.
    """

    def __init__(
        self, net: Copies, truth: Method, block: int, kinds: tuple[str, ...] = ("weight",)
    ) -> None:
        if truth.in_network:
            raise ValueError("the truth must not need errors in the network")
        delay = truth.delay if isinstance(truth, Costate) else 0
        if delay % block or (isinstance(truth, Costate) and truth.every != block):
            raise ValueError(f"{delay} steps ahead and blocks of {block} do not fit together")
        self._truth, self._block, self._kinds = truth, block, kinds
        self._learned = net.mask(kinds) > 0
        truth.begin(net)
        self._sums = np.zeros((2, *net.flat.shape))
        self._waiting: deque[Array] = deque()
        self._late = delay // block
        self.curves: dict[str, list[Array]] = {
            name: [] for name in ("all", *net.names()) if name == "all" or self._wanted(name)
        }

    def _wanted(self, name: str) -> bool:
        return name.rpartition(".")[2] in self._kinds

    def __call__(self, online: Online, target: Array, direction: Array | None) -> None:
        """See the watcher of `Online`."""
        net = online.net
        true = self._truth.after_step(net, target)
        for total, part in zip(self._sums, (direction, true), strict=True):
            if part is not None:
                total += part
        if (online.step + 1) % self._block:
            return
        self._waiting.append(self._sums[0].copy())
        if len(self._waiting) > self._late:
            self._compare(net, self._waiting.popleft(), self._sums[1])
        self._sums[:] = 0

    def _compare(self, net: Copies, a: Array, b: Array) -> None:
        parts_a, parts_b = net.named(a), net.named(b)
        for name, curve in self.curves.items():
            if name == "all":
                curve.append(cosines(a[:, self._learned], b[:, self._learned]))
            else:
                p, q = parts_a[name], parts_b[name]
                curve.append(cosines(p.reshape(net.copies, -1), q.reshape(net.copies, -1)))


def cosines(a: Array, b: Array) -> Array:
    """Cosine of each row of `a` with that of `b`, (C,) from (C, k); NaN if one is zero."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dot = np.einsum("ck,ck->c", a, b)
    result = np.full(len(a), np.nan)
    np.divide(dot, norms, out=result, where=norms > 0)
    return result
