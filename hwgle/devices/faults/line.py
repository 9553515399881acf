"""A line with faults around it."""

from __future__ import annotations

import time
from collections.abc import Callable

from hwgle.devices.faults.forging import Intruder, OtherFirmware
from hwgle.devices.faults.options import WAYS, Faults
from hwgle.devices.faults.timing import Delay, Pace
from hwgle.devices.faults.way import Way
from hwgle.devices.line import AHEAD, BITS, Line, Unplugged
from hwgle.errors import UsageError

MOST_WAITING = 4096  # bytes that were taken and cannot go yet
SOON = 0.001  # seconds until it is worth looking again


class FaultLine(Line):
    """Another line with faults. reset: presses the board's reset button, None: it has none.

    Raises UsageError where a fault needs what the board does not have.
    """

    def __init__(
        self, inner: Line, faults: Faults, reset: Callable[[], None] | None = None
    ) -> None:
        if faults.reset and reset is None:
            raise UsageError("fault reset: only emulated boards have a reset that hwgle can press")
        self._inner, self.faults, self._reset = inner, faults, reset
        self.ways = {name: Way(name, faults, self._on_frame) for name in WAYS}
        self._out, self._in = bytearray(), bytearray()
        self._mute: set[str] = set()
        self._broken: str | None = None
        self._still_until = 0.0
        self._draws = self.ways["out"].random(2)
        rate = faults.pace / BITS
        self._pace_out = Pace(rate, AHEAD) if faults.pace else None
        self._pace_in = Pace(rate, 0.0) if faults.pace else None
        later = faults.latency or faults.jitter
        self._delay_out = Delay(faults.latency, faults.jitter, 0, self._draws) if later else None
        self._delay_in = None
        if later or faults.batch:
            draws = self.ways["in"].random(2)
            self._delay_in = Delay(faults.latency, faults.jitter, faults.batch, draws)
        other = faults.messages is not None or faults.version is not None
        self._firmware = OtherFirmware(faults) if other else None
        self._intruder = Intruder() if faults.intruder else None
        self._in += self._boot_noise()
        self.descriptor = inner.descriptor
        self.paced = inner.paced or bool(faults.pace or faults.stall)

    def _boot_noise(self) -> bytes:
        return self._draws.bytes(self.faults.noise)

    def _on_frame(self, key: tuple[str, int]) -> bytes:
        """What is planned at this frame happens; returns what is heard before the frame."""
        way, _ = key
        f = self.faults
        before = b""
        if key in f.reset and self._reset is not None:
            self._reset()
            self._in += self._boot_noise()
        if key in f.mute:
            self._mute.add(way)
        if key in f.stall:
            self._still_until = time.monotonic() + f.stall_ms / 1e3
        if key in f.eio:
            self._broken = "Input/output error"
        if key in f.unplug:
            self._broken = "No such device"
        if key in f.intruder and self._intruder is not None:
            if way == "out":
                before = self._intruder.open()
            else:
                self._out += self._intruder.open()
        return before

    def _still(self) -> bool:
        return time.monotonic() < self._still_until

    def _unwilling(self) -> bool:
        """Whether this call does nothing, as with EAGAIN."""
        return self.faults.again > 0 and float(self._draws.random()) < self.faults.again

    def _check(self) -> None:
        if self._broken is not None:
            raise Unplugged(self._broken)

    def read(self) -> bytes:
        """See Line."""
        self._check()
        self._flush()
        if self._pace_in is not None and not self._in:
            self._pace_in.idle()
        if data := self._inner.read():
            self._arrived(data)
        if self._delay_in is not None:
            self._in += self._delay_in.take()
        if self._still() or self._unwilling():
            return b""
        count = len(self._in)
        if self._pace_in is not None:
            count = min(count, self._pace_in.allowed())
            self._pace_in.take(count)
        if count > 1 and self._cut_short():
            count = 1 + int(self._draws.integers(count - 1))
        data, self._in = bytes(self._in[:count]), self._in[count:]
        return data

    def _arrived(self, data: bytes) -> None:
        if self._firmware is not None:
            data = self._firmware.carry(data)
        if self._intruder is not None:
            self._out += self._intruder.hear("in", data)
        data = self.ways["in"].carry(data)
        if "in" in self._mute:
            return
        if self._delay_in is not None:
            self._delay_in.put(data)
        else:
            self._in += data

    def _cut_short(self) -> bool:
        return self.faults.short > 0 and float(self._draws.random()) < self.faults.short

    def write(self, data: bytes) -> int:
        """See Line."""
        self._check()
        self._flush()
        if len(self._out) > MOST_WAITING or self._still() or self._unwilling():
            return 0
        if self._pace_out is not None:
            self._pace_out.idle()
            data = data[: self._pace_out.allowed()]
            self._pace_out.take(len(data))
        if len(data) > 1 and self._cut_short():
            data = data[: 1 + int(self._draws.integers(len(data) - 1))]
        if self._intruder is not None:
            self._out += self._intruder.hear("out", data)
        carried = self.ways["out"].carry(data)
        if "out" not in self._mute:
            if self._delay_out is not None:
                self._delay_out.put(carried)
            else:
                self._out += carried
        self._flush()
        return len(data)

    def _flush(self) -> None:
        if self._delay_out is not None:
            self._out += self._delay_out.take()
        if self._out and not self._still():
            n = self._inner.write(bytes(self._out))
            self._out = self._out[n:]

    def room(self) -> int:
        """See Line."""
        room = 0 if self._still() else self._inner.room()
        if self._pace_out is None:
            return room
        self._pace_out.idle()
        return min(room, self._pace_out.allowed())

    def backlog(self) -> bool:
        """See Line."""
        return (bool(self._out) and not self._still()) or self._inner.backlog()

    def due(self) -> float | None:
        """See Line."""
        waits = [self._inner.due()]
        if self._broken is not None:
            waits.append(0.0)
        if self._still():
            waits.append(self._still_until - time.monotonic())
        elif self._in or (self._pace_out is not None and self._pace_out.allowed() < 64):
            waits.append(SOON)
        waits += [delay.wait() for delay in (self._delay_in, self._delay_out) if delay is not None]
        known = [wait for wait in waits if wait is not None]
        return min(known) if known else None

    def close(self) -> None:
        """See Line."""
        self._inner.close()
