"""One line on a terminal that says how far things are; silence everywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

WIDTH = 24
EVERY_SECONDS = 0.1


class Bar:
    """A progress bar on stderr, drawn at most ten times a second and wiped at the end."""

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label = label
        self._stream = stream or sys.stderr
        self.visible = self._stream.isatty()
        self._drawn = 0.0
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def update(self, done: float, total: float, note: str | None = None) -> None:
        """Show done of total; `note` behind the bar, the time left when there is none."""
        now = time.monotonic()
        if not self.visible or now - self._drawn < EVERY_SECONDS:
            return
        self._drawn = now
        share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        if note is None:
            elapsed = now - self._begun
            note = f"{duration(elapsed / share * (1 - share))} left" if share > 0.02 else ""
        filled = round(share * WIDTH)
        bar = "#" * filled + "-" * (WIDTH - filled)
        line = f"{self.label} [{bar}] {share:4.0%} {note}"
        columns = shutil.get_terminal_size().columns
        self._stream.write("\r\x1b[K" + line[: columns - 1])
        self._stream.flush()

    def clear(self) -> None:
        """Wipe the line, so that other text can be written."""
        if self.visible and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = 0.0


def duration(seconds: float) -> str:
    """Seconds as a person says them: 4 s, 3 min 20 s, 2 h 5 min."""
    if seconds != seconds:  # NaN: nobody knows yet
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
