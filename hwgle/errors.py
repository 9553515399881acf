"""What can go wrong, one class and one exit code each (design: command line).

Every error that hwgle raises on purpose is a `HwgleError`; the command line
prints its text without a traceback and exits with its `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class HwgleError(Exception):
    """Base of all errors that hwgle raises on purpose."""

    exit_code: int = 2


class UsageError(HwgleError):
    """The command line or an argument does not make sense; nothing was done."""

    exit_code = 2


class NotEqual(HwgleError):
    """A limit or a bit equality that was asked for did not hold."""

    exit_code = 1


class DeviceError(HwgleError):
    """The body (emulator, host process, board) or the link to it failed."""

    exit_code = 3


class SessionEnded(DeviceError):
    """The session with a board ended before everything was confirmed.

    number, message: the first request that the board has not confirmed as executed, None
    when nothing was under way. It and those behind it may or may not have acted.
    """

    def __init__(self, text: str, number: int | None = None, message: str | None = None) -> None:
        if number is not None:
            text += f"; the first request not confirmed is number {number} ({message})"
        super().__init__(text)
        self.number, self.message = number, message


class LinkLost(SessionEnded):
    """Silence, an unplugged board, or a line on which nothing arrives any more."""


class BoardReset(SessionEnded):
    """The board restarted, or somebody else opened it: its states are gone."""


class LinkRefused(DeviceError):
    """Host and board speak different protocols; the text shows both sides."""


class DeviceTimeout(DeviceError):
    """The link is alive, yet the board does not answer what was asked."""


class DeviceRefused(DeviceError):
    """The board cannot do what was asked and changed nothing.

    request, reason: names as in csrc/device; need, have: what they mean depends on reason.
    """

    def __init__(self, text: str, request: str, reason: str, need: int, have: int) -> None:
        super().__init__(text)
        self.request, self.reason, self.need, self.have = request, reason, need, have


class Interrupted(HwgleError):
    """The person at the keyboard pressed Ctrl-C; what was finished was written."""

    exit_code = 130


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file that a user wrote."""

    file: str
    line: int | None
    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f" {self.key}:" if self.key else ""
        return f"{where}:{key} found {self.found}; allowed: {self.allowed}"


class FileMistakes(HwgleError):
    """One or more files have mistakes; carries all of them at once."""

    exit_code = 4

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(m) for m in self.mistakes))
