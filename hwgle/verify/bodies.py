"""The two sides of a comparison: a body, and the emulator that it must equal."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Protocol, cast

import numpy as np

from hwgle._core import ffi, lib
from hwgle.device import SIGNALS, Block, Device, Done, Pending, Records
from hwgle.devices import open_board
from hwgle.devices.answers import joined
from hwgle.devices.emulator import SIGNAL_IDS, Emulator
from hwgle.errors import UsageError
from hwgle.quantise import Image
from hwgle.snapshot import Difference

FLIPPED = (*SIGNALS, "weight", "bias")  # as gle_flip counts them
WIDTH = {"r": 16, "e": 16, "weight": 16}  # bits; of the others 32


class Flip(Protocol):
    """A body that can be told to flip a bit of itself."""

    def tamper(self, step: int, layer: int, signal: str, index: int, bit: int) -> None:
        """After the step with this number; see csrc/device/messages.def."""
        ...


class TamperableEmulator(Emulator):
    """The emulator with the TAMPER of a board."""

    _armed: tuple[int, int, str, int, int] | None = None

    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """See Device; nothing is armed then."""
        self._armed = None
        super().load(image, batch, gradient=gradient, uhat=uhat)

    def tamper(self, step: int, layer: int, signal: str, index: int, bit: int) -> None:
        """See Flip."""
        self._armed = (step, layer, signal, index, bit)

    def flip(self, layer: int, signal: str, index: int, bit: int) -> None:
        """Flip it now."""
        self._check(
            lib.gle_flip(self._chip, layer, FLIPPED.index(signal), index, bit), "a flipped bit"
        )

    def submit(self, block: Block) -> Pending:
        """See Device; cut behind the step that is tampered with."""
        first, steps = int(lib.gle_steps(self._chip)), block.input.shape[0]
        if self._armed is None or not first <= self._armed[0] < first + steps:
            return Done(self.run(block))
        cut = self._armed[0] - first + 1
        before = self.run(_part(block, self.image.network.loss, slice(0, cut)))
        self.flip(*self._armed[1:])
        patched = self._patched(block, before)  # before any later step
        if cut == steps:
            return Done(patched)
        after = self.run(_part(block, self.image.network.loss, slice(cut, steps)))
        return Done(joined([patched, after]))

    def _patched(self, block: Block, records: Records) -> Records:
        """The last step's records read again, as a board records after it has flipped."""
        for (layer, signal), values in zip(block.record, records.signals, strict=True):
            now = np.empty(values.shape[1:], dtype=np.int32)
            to = ffi.from_buffer("int32_t[]", now)
            self._check(lib.gle_read(self._chip, layer, SIGNAL_IDS[signal], to), signal)
            values[-1] = now
        return records


def _part(block: Block, loss: str, part: slice) -> Block:
    target = block.target
    if target is not None and loss == "mse":
        target = target[part]
    return replace(block, input=block.input[part], target=target)


def kernels_here() -> tuple[str, ...]:
    """The kernel tables to compare with: the one that HWGLE_SIMD names, or all of this
    machine, the fastest first."""
    if forced := os.environ.get("HWGLE_SIMD"):
        return (forced,)
    names = ("amx", "vnni", "avx2", "neon", "scalar")
    return tuple(n for n in names if lib.gle_kernels_named(n.encode()) != ffi.NULL)


def open_body(url: str, baud: int | None) -> Device:
    """A body without a shadow; `emu:` is the fastest kernels of this machine."""
    if url.startswith("emu:"):
        if url != "emu:":
            raise UsageError(f"device {url!r}: nothing may stand behind 'emu:'")
        return TamperableEmulator()
    return open_board(url, baud=baud)


def opposite(body: Device, kernels: tuple[str, ...], turn: int) -> TamperableEmulator:
    """The emulator for the other side: of the kernels in turn, other than the body's own."""
    if isinstance(body, Emulator):
        kernels = ("scalar",) if body.kernels != "scalar" else kernels
    return TamperableEmulator(kernels[turn % len(kernels)])


def names(url: str, body: Device, reference: Emulator) -> tuple[str, str]:
    """What the two sides are called in texts."""
    if isinstance(body, Emulator):
        return f"emu: ({body.kernels})", f"emu: ({reference.kernels})"
    return url, "emu:"


class Tampering:
    """One bit that is flipped on the body: after which step, and where."""

    def __init__(self, step: int, layer: int, signal: str, index: int, bit: int) -> None:
        self.step, self.layer, self.signal, self.index, self.bit = step, layer, signal, index, bit
        self.passed_over = 0

    def arm(self, body: Device) -> None:
        """Tell the body."""
        flip = cast(Flip, body)
        flip.tamper(self.step, self.layer, self.signal, self.index, self.bit)

    def difference(self, inputs: int, neurons: int) -> tuple[int, str, tuple[int, ...]]:
        """Layer, kind and index of the difference that it makes; see hwgle.snapshot."""
        at: tuple[int, ...] = (self.index,)
        if self.signal == "weight":
            at = divmod(self.index, inputs)
        elif self.signal != "bias":
            at = self.index % neurons, self.index // neurons
        return self.layer, self.signal, at

    def is_at(self, found: Difference, inputs: int, neurons: int) -> bool:
        """Whether a difference is the one that it makes."""
        return (found.layer, found.kind, found.at) == self.difference(inputs, neurons)
