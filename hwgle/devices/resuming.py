"""A body that survives the resets of its board: what was under way is done again.

Beside the last confirmed snapshot stands a journal of all calls since then that change the
chip. When the session ends (a reset, a cable that was pulled and put back), the board is
opened anew, gets image and snapshot, and the journal is played to it. The chip is
deterministic, so the states, and whatever blocks return, are those of a run that nothing
disturbed; blocks whose results had been given away must tell the digest that they told
then. Gradients are in no snapshot: once a caller accumulates them, snapshots are only
taken where the accumulators are cleared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Formats, Gradient, Limits, Pending, Records
from hwgle.errors import DeviceError, DeviceRefused, NotEqual, SessionEnded
from hwgle.quantise import Image, Quantised

T = TypeVar("T")
KEEP_SECONDS = 5.0  # of work that may have to be done again
KEEP_SHARE = 20.0  # a snapshot may take a twentieth of the time
ATTEMPTS = 3  # resumptions in a row without a new block


@dataclass
class Resumed:
    """A resumption: why the session ended, why the board booted, and what was done again."""

    error: SessionEnded
    boot_cause: str
    boots: int
    calls: int

    def __str__(self) -> str:
        booted = f"its boot {self.boots} was by {self.boot_cause}"
        return f"{self.error}; resumed ({booted}), {self.calls} calls done again"


@dataclass
class _Entry:
    """A call that changes the chip. pending: of a block, told: digests that it gave away."""

    call: Callable[[Device], Pending | None]
    pending: ResumingPending | None = None
    told: list[tuple[int, int]] | None = None


class ResumingPending:
    """A block under way, perhaps for the second time."""

    def __init__(self, device: ResumingDevice) -> None:
        self._device = device
        self.inner: Pending | None = None
        self._records: Records | None = None

    def result(self) -> Records:
        """See Pending. Raises SessionEnded when the board does not come back."""
        while self._records is None:
            try:
                assert self.inner is not None
                self._records = self.inner.result()
            except SessionEnded as error:
                self._device.resume(error)
        self._device.done(self, self._records)
        return self._records


@dataclass
class _Kept:
    """What the journal begins with: no snapshot is a network that has just been loaded."""

    image: Image | None = None
    batch: int = 0
    options: dict[str, bool] = field(default_factory=dict)
    snapshot: bytes | None = None
    clipped: list[int] = field(default_factory=list)  # read-outs, which no snapshot counts


class ResumingDevice(Device):
    """Around a SerialDevice or a ShadowedDevice. say: told of each resumption."""

    def __init__(
        self,
        device: Any,
        say: Callable[[Resumed], None] = lambda _: None,
        *,
        keep_after: float = KEEP_SECONDS,
    ) -> None:
        self._device, self._say, self._keep_after = device, say, keep_after
        self._kept = _Kept()
        self._journal: list[_Entry] = []
        self._open: list[ResumingPending] = []
        self._gradient = False  # somebody accumulates them
        self._void = False  # the board has refused something: the journal is not what it did
        self._fruitless = 0
        self._kept_at, self._cost = time.monotonic(), 0.0
        self.resumptions: list[Resumed] = []

    def __getattr__(self, name: str) -> Any:
        """What only the body can do: status, echo, info ..."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._device, name)

    # --- calls -------------------------------------------------------------------------

    def _ask(self, call: Callable[[Any], T]) -> T:
        """A call that changes nothing: asked again after a resumption."""
        while True:
            try:
                return call(self._device)
            except SessionEnded as error:
                self.resume(error)
            except DeviceRefused:
                self._void = True
                raise

    def _act(self, call: Callable[[Any], Pending | None], pending: ResumingPending | None) -> None:
        """A call that changes the chip: done again as a part of the journal."""
        entry = _Entry(call, pending)
        self._journal.append(entry)
        try:
            inner = call(self._device)
            if pending is not None:
                pending.inner = inner
        except SessionEnded as error:
            self.resume(error)
        except DeviceRefused:
            self._void = True
            raise
        except Exception:
            self._journal.remove(entry)  # refused on this side: nothing was sent
            raise

    def done(self, pending: ResumingPending, records: Records) -> None:
        """Its result was given away."""
        if pending in self._open:
            self._open.remove(pending)
            self._fruitless = 0
            for entry in self._journal:
                if entry.pending is pending:
                    entry.told, entry.pending = records.digests, None

    def _keep(self) -> None:
        """Take a snapshot if it is time, and begin a new journal."""
        now = time.monotonic()
        due = self._kept_at + max(self._keep_after, KEEP_SHARE * self._cost)
        if self._open or not self._journal or now < due:
            return
        snapshot = self._ask(lambda d: d.snapshot())
        self._kept.clipped = [c["sat_read"] for c in self.counters()]
        self._kept.snapshot = snapshot
        self._journal.clear()
        self._kept_at = time.monotonic()
        self._cost = self._kept_at - now

    # --- after the end of a session ----------------------------------------------------

    def resume(self, error: SessionEnded) -> None:
        """Open the board again and bring it to where it was.

        Raises the error that ended the session when the board does not come back, when it
        ends session after session without finishing a block, or when it cannot be known
        what it had done.
        """
        while True:
            self._fruitless += 1
            if self._void or self._fruitless > ATTEMPTS:
                raise error
            try:
                self._device.reconnect()
                self._again()
            except SessionEnded as again:
                error = again
                continue
            except DeviceError as reason:
                raise error from reason
            info = self._device.info
            told = Resumed(_bare(error), info.boot_cause, info.boots, len(self._journal))
            self.resumptions.append(told)
            self._say(told)
            return

    def _again(self) -> None:
        kept = self._kept
        if kept.image is None:
            return
        self._device.load(kept.image, kept.batch, **kept.options)
        if kept.snapshot is not None:
            self._device.restore(kept.snapshot)
        for entry in self._journal:
            inner = entry.call(self._device)
            if entry.pending is not None:
                entry.pending.inner = inner
            elif entry.told is not None:
                assert inner is not None
                self._same(entry.told, inner.result().digests)

    def _same(self, told: list[tuple[int, int]], now: list[tuple[int, int]]) -> None:
        if told != now:
            raise NotEqual("after its reset the board did not repeat what it had done before")

    # --- the one interface -------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """See Device."""
        limits: Limits = self._device.limits
        return limits

    @property
    def image(self) -> Image:
        """The loaded image."""
        image: Image = self._device.image
        return image

    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """See Device."""
        options = {"gradient": gradient, "uhat": uhat}
        self._kept, self._void, self._gradient = _Kept(), False, False
        self._journal.clear()
        self._open.clear()
        self._ask(lambda d: d.load(image, batch, **options))
        self._kept = _Kept(image, batch, options)

    def write_weights(self, weights: Quantised) -> None:
        """See Device."""
        self._act(lambda d: d.write_weights(weights), None)

    def add_weights(self, increments: Quantised) -> None:
        """See Device."""
        self._act(lambda d: d.add_weights(increments), None)

    def add_biases(self, increments: Quantised) -> None:
        """See Device."""
        self._act(lambda d: d.add_biases(increments), None)

    def write_times(self, times: Mapping[str, NDArray[np.uint32]]) -> None:
        """See Device."""
        self._act(lambda d: d.write_times(times), None)

    def read_weights(self) -> Quantised:
        """See Device."""
        return self._ask(lambda d: d.read_weights())

    def reset(self, first: int = 0) -> None:
        """See Device."""
        self._act(lambda d: d.reset(first), None)

    def answered(self) -> bool:
        """See Device."""
        try:
            return bool(self._device.answered())
        except SessionEnded:
            return True  # whoever waits now brings it back

    def submit(self, block: Block) -> Pending:
        """See Device."""
        if not self._gradient:
            self._keep()
        pending = ResumingPending(self)
        self._open.append(pending)
        self._act(lambda d: d.submit(block), pending)
        return pending

    def set_rate(self, shift: int) -> None:
        """See Device."""
        self._act(lambda d: d.set_rate(shift), None)

    def clear_gradient(self, drop: int = 0) -> None:
        """See Device."""
        self._gradient = True
        self._keep()
        self._act(lambda d: d.clear_gradient(drop), None)

    def read_gradient(self) -> list[Gradient]:
        """See Device."""
        return self._ask(lambda d: d.read_gradient())

    def digest(self) -> int:
        """See Device."""
        return int(self._ask(lambda d: d.digest()))

    def stream_digests(self) -> NDArray[np.uint64]:
        """See Device."""
        return self._ask(lambda d: d.stream_digests())

    def weights_digest(self) -> int:
        """See Device."""
        return int(self._ask(lambda d: d.weights_digest()))

    def counters(self) -> list[dict[str, int]]:
        """See Device."""
        counters: list[dict[str, int]] = self._ask(lambda d: d.counters())
        clipped: Sequence[int] = self._kept.clipped if self.resumptions else ()
        for counts, before in zip(counters, clipped, strict=False):
            counts["sat_read"] += before
        return counters

    def formats(self) -> list[Formats]:
        """See Device."""
        return self._ask(lambda d: d.formats())

    def snapshot(self) -> bytes:
        """See Device."""
        return bytes(self._ask(lambda d: d.snapshot()))

    def restore(self, snapshot: bytes) -> None:
        """See Device."""
        self._act(lambda d: d.restore(snapshot), None)

    def close(self) -> None:
        """See Device."""
        self._device.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See Device; without an error in flight, what was asked for last is done too."""
        try:
            if kind is None and self._journal:
                self._ask(lambda d: d.sync())
        finally:
            self._device.__exit__(kind, error, trace)


def _bare(error: SessionEnded) -> SessionEnded:
    """The error without what led to it: its frames would keep the session that is gone, and
    a long run on a bad board would hold all of them."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def resuming(device: Device, say: Callable[[Resumed], None] = lambda _: None) -> Device:
    """The same device, surviving resets if it is one that can have any."""
    return ResumingDevice(device, say) if hasattr(device, "reconnect") else device
