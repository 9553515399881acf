"""What a snapshot of a chip holds, number by number: the order of csrc/snapshot.c.

    head            magic, words of the image, check of the image, batch     u32 each
    chip            step u64; number of the first stream u32; running digest of each
                    stream, u64 (B,); before the digests, of a chip that counts its learning
                    steps (OnChip.counts), their number u64
    layer, each     w_frac r_frac e_frac v_frac rate_shift                   i32 each
                    counters u64, window of the auto-ranging u32
                    weight i16 (n, m), bias i32 (n,)
                    multipliers u32 (n, 4), of layers that learn tau_m
                    momentum i32 (n, m) and (n,), of biases: layers that learn by a rule that
                    remembers; norm u8 likewise: by one that normalises
                    feedback i16 (its rows, columns), of layers that have any
                    u i32, v i32, r i16, e i16, phi' u16                     (n, B) each
                    uhat i32 (n, B), of the last layer only

This is the only place in Python that knows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle._core import ffi
from hwgle.errors import DeviceError
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip

HEAD = 16
# sat_read counts what was looked at: not a state of the chip
COUNTERS = tuple(name for name, _ in ffi.typeof("gle_counters").fields if name != "sat_read")
FORMATS = ("w_frac", "r_frac", "e_frac", "v_frac", "rate_shift")
WINDOW = ("samples", "sat_e", "half_e", "sat_r", "peak_r", "sat_w")
# A step computes them in this order; what stands first is what the rest follows from.
LEARNT = ("momentum", "momentum of bias", "norm", "norm of bias")
CAUSES = ("v", "e", "u", "uhat", "r", "phi'", *LEARNT, "weight", "bias", "multiplier", "feedback",
          "format")  # fmt: skip
FOLLOWS = ("counter", "window", "step", "first stream", "learned", "digest")
RANK = {kind: k for k, kind in enumerate((*CAUSES, *FOLLOWS))}


@dataclass(frozen=True)
class Piece:
    """Numbers of one kind. layer: None for the chip's own. names: of the numbers, if each
    has one (formats, counters)."""

    kind: str
    layer: int | None
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """The byte behind the last."""
        return self.offset + self.dtype.itemsize * int(np.prod(self.shape))

    def values(self, snapshot: bytes) -> NDArray[Any]:
        """The numbers, shaped."""
        count = int(np.prod(self.shape))
        return np.frombuffer(snapshot, self.dtype, count, self.offset).reshape(self.shape)


class Difference(NamedTuple):
    """Two snapshots differ here. at: (neuron,), (neuron, input) of a weight, (neuron,
    stream) of a state, (stream,) of a digest; () of what has a name of its own."""

    layer: int | None
    kind: str
    name: str
    at: tuple[int, ...]
    first: int
    second: int

    @property
    def order(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Causes before what follows from them, layers from the first on."""
        follows = self.kind in FOLLOWS
        return follows, -1 if self.layer is None else self.layer, RANK[self.kind], self.at


def pieces(network: Network, batch: int, learner: OnChip = PLAIN) -> Iterator[Piece]:
    """All pieces behind the head, in their order. learner: the image's."""
    at = HEAD

    def piece(
        kind: str, layer: int | None, code: str, *shape: int, names: tuple[str, ...] = ()
    ) -> Piece:
        nonlocal at
        made = Piece(kind, layer, at, np.dtype(code), shape, names)
        at = made.end
        return made

    yield piece("step", None, "<u8", 1, names=("step",))
    yield piece("first stream", None, "<u4", 1, names=("first stream",))
    if learner.counts:
        yield piece("learned", None, "<u8", 1, names=("learned",))
    yield piece("digest", None, "<u8", batch)
    for k, layer in enumerate(network.layers):
        n = layer.size
        yield piece("format", k, "<i4", len(FORMATS), names=FORMATS)
        yield piece("counter", k, "<u8", len(COUNTERS), names=COUNTERS)
        yield piece("window", k, "<u4", len(WINDOW), names=WINDOW)
        yield piece("weight", k, "<i2", n, network.fan_in(k))
        yield piece("bias", k, "<i4", n)
        if layer.learn_tau_m:
            yield piece("multiplier", k, "<u4", n, 4)
        if learner.remembers and layer.learn:
            yield piece("momentum", k, "<i4", n, network.fan_in(k))
            yield piece("momentum of bias", k, "<i4", n)
        if learner.normalises and layer.learn:
            yield piece("norm", k, "<u1", n, network.fan_in(k))
            yield piece("norm of bias", k, "<u1", n)
        back = topology.feedback_shape(network, k)
        if back is not None:
            yield piece("feedback", k, "<i2", *back)
        for kind, code in (("u", "<i4"), ("v", "<i4"), ("r", "<i2"), ("e", "<i2"), ("phi'", "<u2")):
            yield piece(kind, k, code, n, batch)
        if k + 1 == len(network.layers):
            yield piece("uhat", k, "<i4", n, batch)


def differences(
    network: Network, batch: int, first: bytes, second: bytes, learner: OnChip = PLAIN
) -> list[Difference]:
    """Where two snapshots of one network differ, causes first.

    Raises DeviceError for bytes that are no snapshot of such a network.
    """
    found = []
    parts = list(pieces(network, batch, learner))
    for raw in (first, second):
        if len(raw) != parts[-1].end:
            raise DeviceError(f"a snapshot of {len(raw)} bytes where {parts[-1].end} were due")
    if first[:HEAD] != second[:HEAD]:
        raise DeviceError("snapshots of two networks, chips or batches")
    for p in parts:
        if first[p.offset : p.end] == second[p.offset : p.end]:
            continue
        a, b = p.values(first), p.values(second)
        for at in np.argwhere(a != b):
            index = tuple(int(i) for i in at)
            name = p.names[index[0]] if p.names else p.kind
            where = () if p.names else index
            found.append(Difference(p.layer, p.kind, name, where, int(a[index]), int(b[index])))
    return sorted(found, key=lambda d: d.order)


def step_of(snapshot: bytes) -> int:
    """Steps since the reset."""
    return int(np.frombuffer(snapshot, "<u8", 1, HEAD)[0])


def place(network: Network, d: Difference) -> str:
    """Where a difference lies, in words."""
    if d.layer is None:
        if d.kind == "first stream":
            return "number of the first stream"
        if d.kind == "learned":
            return "number of learning steps"
        return f"digest of stream {d.at[0]}" if d.kind == "digest" else "number of steps"
    layer = network.layers[d.layer].name
    if d.kind in ("format", "counter", "window"):
        return f"layer {layer}, {d.kind} {d.name}"
    text = f"layer {layer}, neuron {d.at[0]}, {d.kind}"
    if d.kind in ("weight", "momentum", "norm"):
        return f"{text} from input {d.at[1]}"
    if d.kind == "multiplier":
        return f"{text} {('leak_u', 'ratio_u', 'leak_v', 'ratio_v')[d.at[1]]}"
    if d.kind == "feedback":
        return f"layer {layer}, feedback row {d.at[0]}, column {d.at[1]}"
    return f"{text}, stream {d.at[1]}" if len(d.at) > 1 else text
