"""One direction: bytes in, damaged bytes out.

Random faults strike single bytes, with probabilities and a seed; planned ones single bytes
or whole frames, by their number in their direction. What strikes more than this direction
(a reset, a cut) is told by `on_frame`, before the frame is handed on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwgle.devices.faults.options import KINDS, WAYS, Faults

FLIP, DROP, DUP, INSERT, BURST = range(5)
LONGEST_BURST = 60  # bytes


@dataclass
class Struck:
    """What a direction has carried and what was done to it."""

    frames: int = 0
    bytes: int = 0
    faults: int = 0


class Way:
    """See above. on_frame: told (way, number) of each frame at which something is planned;
    what it returns goes before the frame."""

    def __init__(
        self, name: str, faults: Faults, on_frame: Callable[[tuple[str, int]], bytes] | None = None
    ) -> None:
        self._name, self._faults, self._on_frame = name, faults, on_frame
        self._hits = self.random(0)
        self._kinds = self.random(1)
        self._rates = np.array([getattr(faults, kind) for kind in KINDS])
        self._aimed = sorted(
            (at, kind)
            for kind, name_at in enumerate(f"{k}_at" for k in KINDS)
            for way, at in getattr(faults, name_at)
            if way == name
        )
        self._planned = faults.places()
        self._part = bytearray()  # of a frame whose end has not come
        self._burst = self._last_burst = 0  # bytes of a burst that are still to come
        self._samples = _sampled(faults.skew if name == "in" else 1 / faults.skew)
        self.struck = Struck()

    def random(self, purpose: int) -> np.random.Generator:
        """A stream of numbers of this direction's own."""
        seed = [self._faults.seed, WAYS.index(self._name), purpose]
        return np.random.Generator(np.random.PCG64(seed))

    def carry(self, data: bytes) -> bytes:
        """What becomes of some bytes."""
        first = self.struck.bytes
        self.struck.bytes += len(data)
        if self._burst:
            data = self._in_burst(data)
        if self._aimed and self._aimed[0][0] < self.struck.bytes:
            data = self._strike(data, first)
        if self._planned:
            data = self._frames(data)
        else:
            self.struck.frames += data.count(0)
        if self._rates.any():
            data = self._bytes(data)
        if self._samples is not None:
            data = self._sampled_wrong(data)
        return data

    def _bytes(self, data: bytes) -> bytes:
        total = float(self._rates.sum())
        hits = np.flatnonzero(self._hits.random(len(data)) < total)
        if not hits.size:
            return data
        out, done = bytearray(), 0
        for at in map(int, hits):
            if at < done:
                continue  # in a burst
            out += data[done:at]
            done = at + 1
            kind = int(np.searchsorted(np.cumsum(self._rates) / total, self._kinds.random()))
            if kind == BURST:
                out += self._begin_burst(data[at:])
                done = min(len(data), at + self._last_burst)
            else:
                out += self._damaged(data[at], kind)
        return bytes(out + data[done:])

    def _begin_burst(self, data: bytes) -> bytes:
        self.struck.faults += 1
        self._last_burst = 2 + int(self._kinds.integers(LONGEST_BURST - 1))
        here = data[: self._last_burst]
        self._burst = self._last_burst - len(here)
        return self._kinds.bytes(len(here))

    def _in_burst(self, data: bytes) -> bytes:
        """What a burst that began in earlier bytes leaves of these."""
        n = min(self._burst, len(data))
        self._burst -= n
        return self._kinds.bytes(n) + data[n:]

    def _strike(self, data: bytes, first: int) -> bytes:
        """The planned faults among these bytes, of which the first has number `first`."""
        out, done = bytearray(), 0
        while self._aimed and self._aimed[0][0] < first + len(data):
            number, kind = self._aimed.pop(0)
            at = number - first
            if at < done:
                continue
            out += data[done:at]
            done = at + 1
            if kind == BURST:
                out += self._begin_burst(data[at:])
                done = min(len(data), at + self._last_burst)
                continue
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

    def _sampled_wrong(self, data: bytes) -> bytes:
        assert self._samples is not None
        out = bytes(seen for b in data if (seen := self._samples[b]) is not None)
        self.struck.faults += data != out
        return out

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
        before = b""
        if key in self._planned:
            self.struck.faults += 1
            if self._on_frame is not None:
                before = self._on_frame(key)
        if key in self._faults.lose:
            return before
        return before + (frame + b"\0") * (2 if key in self._faults.twice else 1)


def _sampled(ratio: float) -> list[int | None] | None:
    """What a receiver makes of each byte of a sender `ratio` times as fast; None of those
    whose stop bit is not where it looks. No list where both rates are equal."""
    if ratio == 1:
        return None
    found: list[int | None] = []
    for byte in range(256):
        line = [0, *(byte >> k & 1 for k in range(8)), 1]
        seen = [line[at] if (at := int((k + 0.5) * ratio)) < 10 else 1 for k in range(10)]
        value = sum(bit << k for k, bit in enumerate(seen[1:9]))
        found.append(value if seen[0] == 0 and seen[9] == 1 else None)
    return found
