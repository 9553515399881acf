"""A line that does what bad lines do: a layer between a line and the link, both ways.

Random faults strike single bytes, with probabilities and a seed; planned ones single bytes
or whole frames, by their number in their direction: "out" to the board, "in" from it. It can
also pace: bytes take their time, as at a baud rate.
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
    """flip, drop, dup, insert: probability for each byte; with _at: (way, byte), which; what
    is inserted, behind a byte, is as often a delimiter as not. lose, twice, reset: (way,
    frame); a reset comes before the frame is handed on, the frame itself is handed on after
    it. pace: bits per second, 0 for none."""

    flip: float = 0.0
    drop: float = 0.0
    dup: float = 0.0
    insert: float = 0.0
    seed: int = 0
    pace: int = 0
    flip_at: frozenset[tuple[str, int]] = frozenset()
    drop_at: frozenset[tuple[str, int]] = frozenset()
    dup_at: frozenset[tuple[str, int]] = frozenset()
    insert_at: frozenset[tuple[str, int]] = frozenset()
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


KINDS = ("flip", "drop", "dup", "insert")
FLIP, DROP, DUP, INSERT = range(4)
PROBABILITY = "a probability, 0..1"
FRAMES = "frames such as out3 or out3,in7"
BYTES = "bytes such as out3 or out3,in7"
ALLOWED = {
    **dict.fromkeys(KINDS, PROBABILITY),
    "seed": "an integer of at least 0",
    "pace": "bits per second",
    **dict.fromkeys((f"{kind}_at" for kind in KINDS), BYTES),
    **dict.fromkeys(("lose", "twice", "reset"), FRAMES),
}
KEYS = tuple(f.name for f in fields(Faults))


def _parsed(key: str, text: str) -> object:
    if ALLOWED[key] == PROBABILITY:
        value = float(text)
        if not 0 <= value <= 1:
            raise ValueError
        return value
    if ALLOWED[key] in (FRAMES, BYTES):
        return frozenset(_place(part) for part in text.split(","))
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _place(text: str) -> tuple[str, int]:
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
        self._rates = np.array([getattr(faults, kind) for kind in KINDS])
        self._aimed = sorted(
            (at, kind)
            for kind, name_at in enumerate(f"{k}_at" for k in KINDS)
            for way, at in getattr(faults, name_at)
            if way == name
        )
        self._planned = {k for s in (faults.lose, faults.twice, faults.reset) for k in s}
        self._part = bytearray()  # of a frame whose end has not come
        self.struck = Struck()

    def carry(self, data: bytes) -> bytes:
        """What becomes of some bytes."""
        first = self.struck.bytes
        self.struck.bytes += len(data)
        if self._aimed and self._aimed[0][0] < self.struck.bytes:
            data = self._strike(data, first)
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
            out += self._damaged(data[at], kind)
        return bytes(out + data[done:])

    def _strike(self, data: bytes, first: int) -> bytes:
        """The planned faults among these bytes, of which the first has number `first`."""
        out, done = bytearray(), 0
        while self._aimed and self._aimed[0][0] < first + len(data):
            number, kind = self._aimed.pop(0)
            at = number - first
            out += data[done:at]
            done = at + 1
            damaged = self._damaged(data[at], kind)
            if kind == INSERT and self._kinds.integers(2):
                damaged = damaged[:1] + b"\0"
            out += damaged
        return bytes(out + data[done:])

    def _damaged(self, byte: int, kind: int) -> bytes:
        """What one byte becomes; kind: of KINDS."""
        self.struck.faults += 1
        if kind == FLIP:
            return bytes([byte ^ 1 << int(self._kinds.integers(8))])
        if kind == DROP:
            return b""
        return bytes([byte, byte if kind == DUP else int(self._kinds.integers(256))])

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
