"""A terminal that is drawn over and gives keys; as it was when it is left, whatever happens."""

from __future__ import annotations

import os
import select
import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from hwgle.scope.screen import ASCII, BLOCKS

try:
    import termios
    import tty
except ImportError:  # Windows: no keys; Ctrl-C ends
    termios = None  # type: ignore[assignment]

ENTER = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
LEAVE = "\x1b[?25h\x1b[?1049l"


def blocks(stream: TextIO) -> str:
    """The characters to draw with that the stream can say."""
    try:
        BLOCKS.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


class Terminal:
    """Use as a context manager. keys: whether standard input is there to be pressed on."""

    def __init__(self, keys: bool = True) -> None:
        self._out = sys.stdout
        self._before: list[object] | None = None
        self.keys = keys and termios is not None and sys.stdin.isatty()

    def __enter__(self) -> Self:
        if self.keys:
            self._before = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        self._out.write(ENTER)
        self._out.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._out.write(LEAVE)
        self._out.flush()
        if self._before is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    def draw(self, lines: Sequence[str]) -> None:
        """These lines from the upper left corner, nothing else on the screen."""
        text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
        self._out.write(text)
        self._out.flush()

    def pressed(self, seconds: float) -> str:
        """Keys pressed within that time, "" for none."""
        if not self.keys:
            select.select([], [], [], seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], max(0.0, seconds))
        return os.read(sys.stdin.fileno(), 64).decode("ascii", "ignore") if ready else ""
