"""Bytes that take their time."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np


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


class Delay:
    """Bytes that come out later, in their order.

    latency, jitter, batch: ms, see Faults; a batch opens at each whole multiple of its time.
    """

    def __init__(self, latency: int, jitter: int, batch: int, draws: np.random.Generator) -> None:
        self._latency, self._jitter, self._batch = latency / 1e3, jitter / 1e3, batch / 1e3
        self._draws = draws
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._last = 0.0

    def put(self, data: bytes) -> None:
        """They have arrived at the near end."""
        if not data:
            return
        due = time.monotonic() + self._latency + self._jitter * float(self._draws.random())
        if self._batch:
            due = (due // self._batch + 1) * self._batch
        self._last = max(self._last, due)  # nothing overtakes
        self._waiting.append((self._last, data))

    def take(self) -> bytes:
        """What is due by now."""
        now, out = time.monotonic(), bytearray()
        while self._waiting and self._waiting[0][0] <= now:
            out += self._waiting.popleft()[1]
        return bytes(out)

    def wait(self) -> float | None:
        """Seconds until more is due; None when nothing waits."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def clear(self) -> None:
        """All that is under way is lost."""
        self._waiting.clear()
