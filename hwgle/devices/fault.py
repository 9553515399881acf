"""A line that does what bad lines do: a layer between a line and the link, both ways.

Random faults strike single bytes, with probabilities and a seed; planned ones whole
frames, by their number in their direction: "out" to the board, "in" from it. It can also
pace: bytes take their time, as at a baud rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from hwgle.devices.line import AHEAD, BITS, Line
from hwgle.errors import UsageError

WAYS = ("out", "in")


@dataclass(frozen=True)
class Faults:
    """flip, drop, dup, insert: probability for each byte. lose, twice, reset: (way, frame);
    a reset comes before the frame is handed on, the frame itself is handed on after it.
    pace: bits per second, 0 for none."""

    flip: float = 0.0
    drop: float = 0.0
    dup: float = 0.0
    insert: float = 0.0
    seed: int = 0
    pace: int = 0
    lose: frozenset[tuple[str, int]] = frozenset()
    twice: frozenset[tuple[str, int]] = frozenset()
    reset: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Faults:
        """From a device string's options: `flip=1e-5`, `lose=out3,in7`. Raises UsageError."""
        values: dict[str, object] = {}
        for key, text in options.items():
            try:
                values[key] = _parsed(key, text)
            except ValueError:
                raise UsageError(f"fault {key}={text}: {ALLOWED[key]}") from None
        return cls(**values)  # type: ignore[arg-type]


PROBABILITY = "a probability, 0..1"
FRAMES = "frames such as out3 or out3,in7"
ALLOWED = {
    **dict.fromkeys(("flip", "drop", "dup", "insert"), PROBABILITY),
    "seed": "an integer of at least 0",
    "pace": "bits per second",
    **dict.fromkeys(("lose", "twice", "reset"), FRAMES),
}
KEYS = tuple(f.name for f in fields(Faults))


def _parsed(key: str, text: str) -> object:
    if ALLOWED[key] == PROBABILITY:
        value = float(text)
        if not 0 <= value <= 1:
            raise ValueError
        return value
    if ALLOWED[key] == FRAMES:
        return frozenset(_frame(part) for part in text.split(","))
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _frame(text: str) -> tuple[str, int]:
    for way in WAYS:
        if text.startswith(way):
            return way, int(text[len(way) :])
    raise ValueError


@dataclass
class Struck:
    """What a direction has carried and what was done to it."""

    frames: int = 0
    bytes: int = 0
    faults: int = 0


class Way:
    """One direction: bytes in, damaged bytes out."""

    def __init__(self, name: str, faults: Faults, reset: Callable[[], None] | None) -> None:
        self._name, self._faults, self._reset = name, faults, reset
        self._hits = np.random.Generator(np.random.PCG64([faults.seed, WAYS.index(name), 0]))
        self._kinds = np.random.Generator(np.random.PCG64([faults.seed, WAYS.index(name), 1]))
        self._rates = np.array([faults.flip, faults.drop, faults.dup, faults.insert])
        self._planned = {k for s in (faults.lose, faults.twice, faults.reset) for k in s}
        self._part = bytearray()  # of a frame whose end has not come
        self.struck = Struck()

    def carry(self, data: bytes) -> bytes:
        """What becomes of some bytes."""
        self.struck.bytes += len(data)
        if self._planned:
            data = self._frames(data)
        else:
            self.struck.frames += data.count(0)
        return self._bytes(data) if self._rates.any() else data

    def _bytes(self, data: bytes) -> bytes:
        total = float(self._rates.sum())
        hits = np.flatnonzero(self._hits.random(len(data)) < total)
        if not hits.size:
            return data
        out, done = bytearray(), 0
        for at in map(int, hits):
            out += data[done:at]
            done = at + 1
            kind = int(np.searchsorted(np.cumsum(self._rates) / total, self._kinds.random()))
            byte = data[at]
            if kind == 0:
                out.append(byte ^ 1 << int(self._kinds.integers(8)))
            elif kind == 2:
                out += bytes([byte, byte])
            elif kind == 3:
                out += bytes([byte, int(self._kinds.integers(256))])
            self.struck.faults += 1
        return bytes(out + data[done:])

    def _frames(self, data: bytes) -> bytes:
        self._part += data
        *whole, rest = bytes(self._part).split(b"\0")
        self._part = bytearray(rest)
        out = bytearray()
        for frame in whole:
            if frame:
                out += self._one(frame)
            else:
                out += b"\0"
        return bytes(out)

    def _one(self, frame: bytes) -> bytes:
        key = (self._name, self.struck.frames)
        self.struck.frames += 1
        if key in self._planned:
            self.struck.faults += 1
        if key in self._faults.reset and self._reset is not None:
            self._reset()
        if key in self._faults.lose:
            return b""
        return (frame + b"\0") * (2 if key in self._faults.twice else 1)


@dataclass
class Pace:
    """Bytes that a line can have carried by now."""

    rate: float  # bytes per second
    ahead: float  # seconds that may be used up in advance
    free_at: float = field(default_factory=time.monotonic)

    def allowed(self) -> int:
        """Bytes that may go now."""
        return max(0, int((time.monotonic() + self.ahead - self.free_at) * self.rate))

    def take(self, count: int) -> None:
        """They went."""
        self.free_at += count / self.rate

    def idle(self) -> None:
        """Nothing waits: time that passes now is lost."""
        self.free_at = max(self.free_at, time.monotonic())


class FaultLine(Line):
    """Another line with faults. reset: presses the board's reset button, None: it has none."""

    def __init__(
        self, inner: Line, faults: Faults, reset: Callable[[], None] | None = None
    ) -> None:
        if faults.reset and reset is None:
            raise UsageError("fault reset: only emulated boards have a reset that hwgle can press")
        self._inner, self.faults = inner, faults
        self.ways = {name: Way(name, faults, reset) for name in WAYS}
        self._out, self._in = bytearray(), bytearray()
        rate = faults.pace / BITS
        self._pace_out = Pace(rate, AHEAD) if faults.pace else None
        self._pace_in = Pace(rate, 0.0) if faults.pace else None
        self.descriptor = inner.descriptor
        self.paced = inner.paced or bool(faults.pace)

    def read(self) -> bytes:
        """See Line."""
        self._flush()
        if self._pace_in is not None and not self._in:
            self._pace_in.idle()
        if data := self._inner.read():
            self._in += self.ways["in"].carry(data)
        count = len(self._in)
        if self._pace_in is not None:
            count = min(count, self._pace_in.allowed())
            self._pace_in.take(count)
        data, self._in = bytes(self._in[:count]), self._in[count:]
        return data

    def write(self, data: bytes) -> int:
        """See Line."""
        self._flush()
        if len(self._out) > 4096:
            return 0
        if self._pace_out is not None:
            self._pace_out.idle()
            data = data[: self._pace_out.allowed()]
            self._pace_out.take(len(data))
        self._out += self.ways["out"].carry(data)
        self._flush()
        return len(data)

    def _flush(self) -> None:
        if self._out:
            n = self._inner.write(bytes(self._out))
            self._out = self._out[n:]

    def room(self) -> int:
        """See Line."""
        room = self._inner.room()
        if self._pace_out is None:
            return room
        self._pace_out.idle()
        return min(room, self._pace_out.allowed())

    def backlog(self) -> bool:
        """See Line."""
        return bool(self._out) or self._inner.backlog()

    def due(self) -> float | None:
        """See Line."""
        due = self._inner.due()
        waits = bool(self._in) or (self._pace_out is not None and self._pace_out.allowed() < 64)
        if waits:
            return 0.001 if due is None else min(due, 0.001)
        return due

    def close(self) -> None:
        """See Line."""
        self._inner.close()
