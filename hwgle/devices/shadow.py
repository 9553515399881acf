"""A body with its shadow: the emulator gets the same calls, and every bit must agree.

Digests are compared for each block on the wire, and so is whatever else comes back. The
emulator works while the body does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Formats, Gradient, Limits, Pending, Records
from hwgle.devices.answers import joined
from hwgle.devices.emulator import Emulator
from hwgle.devices.serial import SerialDevice
from hwgle.errors import DeviceError, NotEqual
from hwgle.quantise import Image, Quantised

T = TypeVar("T")


class ShadowedPending:
    """A block under way on the body; the emulator has run it."""

    def __init__(self, pending: Pending, expected: Records, device: ShadowedDevice) -> None:
        self._pending, self._expected, self._device = pending, expected, device
        self._first, self._block = device.steps_done, device.blocks_done

    def result(self) -> Records:
        """See Pending. Raises NotEqual naming the first block on the wire that differs."""
        with self._device.together():
            records = self._pending.result()
        self._compare(records)
        return records

    def _compare(self, got: Records) -> None:
        want, begun = self._expected, 0
        for k, ((end, a), (_, b)) in enumerate(zip(got.digests, want.digests, strict=True)):
            where = f"block {self._block + k} (steps {self._first + begun}..{self._first + end - 1}"
            where += " since the network was loaded)"
            if a != b:
                self._device.differ(f"{where}: digest", f"{a:016x}", f"{b:016x}")
            part = slice(begun, end)
            if not _same(got.fracs, want.fracs, part):
                self._device.differ(f"{where}: formats")
            for n, (x, y) in enumerate(zip(got.signals, want.signals, strict=True)):
                if not _same(x, y, part):
                    self._device.differ(f"{where}: record {n}")
            begun = end
        if not _same(got.votes, want.votes):
            self._device.differ(f"votes of the block that began at step {self._first}")


class ShadowedDevice(Device):
    """A serial device and an emulator that is given the same calls."""

    def __init__(self, body: SerialDevice) -> None:
        self.body, self._twin = body, Emulator()
        self._broken: str | None = "no network is loaded"
        self.steps_done = self.blocks_done = 0

    def __getattr__(self, name: str) -> Any:
        """What only the body can do: status, echo, info ..."""
        if name.startswith("_") or "body" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.body, name)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong in here may leave the two apart: only a load goes on from there."""
        if self._broken is not None:
            raise DeviceError(f"{self.body.name}: {self._broken}: load a network first")
        try:
            yield
        except BaseException as error:
            self._broken = f"a call before this one failed ({type(error).__name__})"
            raise

    def differ(self, what: str, got: str = "", want: str = "") -> None:
        """Raises NotEqual."""
        self._broken = "it differed from the emulator"
        values = f": {got} on {self.body.name}, {want} on emu:" if got or want else ""
        raise NotEqual(
            f"{self.body.name} and the emulator differ in {what}{values}\n"
            "hwgle verify finds the step, layer, neuron and signal"
        )

    def _both(self, what: str, ask: Callable[[Device], T], same: Callable[[T, T], bool]) -> T:
        with self.together():
            got, want = ask(self.body), ask(self._twin)
        if not same(got, want):
            self.differ(what)
        return got

    def reconnect(self) -> None:
        """Open the body again after its session has ended: only a load goes on from there."""
        self._broken = "no network is loaded"
        self.body.reconnect()
        self._twin.close()
        self._twin = Emulator()

    @property
    def limits(self) -> Limits:
        """See Device."""
        return self.body.limits

    @property
    def image(self) -> Image:
        """The loaded image."""
        return self.body.image

    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """See Device."""
        self._broken = "loading failed"
        self.body.load(image, batch, gradient=gradient, uhat=uhat)
        self._twin.load(image, batch, gradient=gradient, uhat=uhat)
        self._broken = None
        self.steps_done = self.blocks_done = 0

    def write_weights(self, weights: Quantised) -> None:
        """See Device."""
        with self.together():
            self.body.write_weights(weights)
            self._twin.write_weights(weights)

    def add_weights(self, increments: Quantised) -> None:
        """See Device."""
        with self.together():
            self.body.add_weights(increments)
            self._twin.add_weights(increments)

    def write_times(self, times: Mapping[str, NDArray[np.uint32]]) -> None:
        """See Device."""
        with self.together():
            self.body.write_times(times)
            self._twin.write_times(times)

    def add_biases(self, increments: Quantised) -> None:
        """See Device."""
        with self.together():
            self.body.add_biases(increments)
            self._twin.add_biases(increments)

    def read_weights(self) -> Quantised:
        """See Device."""
        return self._both("the weights", lambda d: d.read_weights(), same_weights)

    def reset(self, first: int = 0) -> None:
        """See Device."""
        with self.together():
            self.body.reset(first)
            self._twin.reset(first)

    def answered(self) -> bool:
        """See Device."""
        return self.body.answered()

    def submit(self, block: Block) -> Pending:
        """See Device. The emulator runs the block at once, while the body does."""
        with self.together():
            cuts = self.body.cuts(block.input.shape[0])
            pending = self.body.submit(block)
            expected = joined(list(self._pieces(block, cuts)))
            shadowed = ShadowedPending(pending, expected, self)
        self.steps_done += sum(cuts)
        self.blocks_done += len(cuts)
        return shadowed

    def _pieces(self, block: Block, cuts: list[int]) -> Iterator[Records]:
        """The block on the emulator, cut as it is on the wire."""
        first = 0
        per_step = self.image.network.loss == "mse"
        for steps in cuts:
            part = slice(first, first + steps)
            target = block.target
            if target is not None and per_step:
                target = target[part]
            records = self._twin.run(replace(block, input=block.input[part], target=target))
            records.digests = [(steps, self._twin.digest())]
            yield records
            first += steps

    def set_rate(self, shift: int) -> None:
        """See Device."""
        with self.together():
            self.body.set_rate(shift)
            self._twin.set_rate(shift)

    def clear_gradient(self, drop: int = 0) -> None:
        """See Device."""
        with self.together():
            self.body.clear_gradient(drop)
            self._twin.clear_gradient(drop)

    def read_gradient(self) -> list[Gradient]:
        """See Device."""
        return self._both("the gradient", lambda d: d.read_gradient(), _same_gradient)

    def digest(self) -> int:
        """See Device."""
        return self._both("the digest", lambda d: d.digest(), lambda a, b: a == b)

    def stream_digests(self) -> NDArray[np.uint64]:
        """See Device."""
        return self._both("the streams' digests", lambda d: d.stream_digests(), np.array_equal)

    def weights_digest(self) -> int:
        """See Device."""
        return self._both("the weights", lambda d: d.weights_digest(), lambda a, b: a == b)

    def counters(self) -> list[dict[str, int]]:
        """See Device."""
        return self._both("the counters", lambda d: d.counters(), lambda a, b: a == b)

    def formats(self) -> list[Formats]:
        """See Device."""
        return self._both("the formats", lambda d: d.formats(), lambda a, b: a == b)

    def snapshot(self) -> bytes:
        """See Device."""
        return self._both("the snapshot", lambda d: d.snapshot(), lambda a, b: a == b)

    def restore(self, snapshot: bytes) -> None:
        """See Device."""
        with self.together():
            self.body.restore(snapshot)
            self._twin.restore(snapshot)

    def close(self) -> None:
        """See Device."""
        self._twin.close()
        self.body.close()

    def __exit__(self, *what: Any) -> None:
        """See Device."""
        self._twin.close()
        self.body.__exit__(*what)


def _same(a: NDArray[Any] | None, b: NDArray[Any] | None, part: slice = slice(None)) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a[part], b[part])


def same_weights(a: Quantised, b: Quantised) -> bool:
    """Every stored weight and bias is equal."""
    return a.keys() == b.keys() and all(
        np.array_equal(a[name][0], b[name][0]) and np.array_equal(a[name][1], b[name][1])
        for name in a
    )


def _same_gradient(a: list[Gradient], b: list[Gradient]) -> bool:
    return all(
        np.array_equal(p.weight, q.weight)
        and np.array_equal(p.bias, q.bias)
        and np.array_equal(p.tau, q.tau)
        and (p.frac, p.bias_frac) == (q.frac, q.bias_frac)
        for p, q in zip(a, b, strict=True)
    )
