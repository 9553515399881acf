"""Lines: what carries bytes to a board and back. pyserial opens them all.

A line never blocks: `read` gives what is there, `write` takes what fits. Where there is a
descriptor the port sleeps on it; where there is none (Windows, rfc2217) reads are timed.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from typing import Any

import serial

from hwgle.errors import DeviceError, UsageError

CHUNK = 65536
TIMED = 0.003  # seconds that a read waits where there is no descriptor to sleep on
AHEAD = 0.02  # seconds of line time that may wait in the driver's buffer
LEAST_AHEAD = 64
BITS = 10  # on the line for each byte: start, eight, stop


class Unplugged(Exception):
    """The line is gone: no more bytes will come or go."""


class Line(ABC):
    """Bytes to a board and back. Owned by one thread, but for close()."""

    descriptor: int | None = None
    paced = False  # room() may say 0 although the descriptor could take more

    @abstractmethod
    def read(self) -> bytes:
        """What has arrived, b"" for nothing. Raises Unplugged."""

    @abstractmethod
    def write(self, data: bytes) -> int:
        """Takes the first bytes of data and returns how many. Raises Unplugged."""

    def room(self) -> int:
        """Bytes worth making now: what is ahead of the line cannot be taken back."""
        return 4096

    def backlog(self) -> bool:
        """Whether taken bytes wait for the descriptor to become writable."""
        return False

    def due(self) -> float | None:
        """Seconds until read() or write() can do more, whatever the descriptor says."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go; safe to call twice."""


class DescriptorLine(Line):
    """A serial port, pty or socket with a descriptor. baud None: the line is not paced."""

    def __init__(self, handle: Any, baud: int | None = None) -> None:
        self._handle = handle
        self.descriptor = handle.fileno()
        os.set_blocking(self.descriptor, False)
        if os.isatty(self.descriptor):
            _tell_nothing_from_end(self.descriptor)
        self._ahead = None if baud is None else max(LEAST_AHEAD, int(baud / BITS * AHEAD))
        self.paced = baud is not None

    def read(self) -> bytes:
        """See Line; end of file means that the other end is gone."""
        assert self.descriptor is not None
        try:
            data = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise Unplugged(error.strerror or str(error)) from error
        if not data:
            raise Unplugged("end of file")
        return data

    def write(self, data: bytes) -> int:
        """See Line."""
        assert self.descriptor is not None
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Unplugged(error.strerror or str(error)) from error

    def room(self) -> int:
        """See Line."""
        if self._ahead is None:
            return super().room()
        try:
            return max(0, self._ahead - int(self._handle.out_waiting))
        except (OSError, AttributeError):
            return self._ahead

    def due(self) -> float | None:
        """See Line."""
        return AHEAD / 4 if self.paced and self.room() < LEAST_AHEAD // 2 else None

    def close(self) -> None:
        """See Line."""
        self.descriptor = None
        with contextlib.suppress(OSError, serial.SerialException):
            self._handle.close()


class TimedLine(Line):
    """A handle without a descriptor: a read waits for TIMED seconds at most."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        handle.timeout = TIMED
        handle.write_timeout = 1.0

    def read(self) -> bytes:
        """See Line."""
        try:
            return bytes(self._handle.read(self._handle.in_waiting or 1))
        except (OSError, serial.SerialException) as error:
            raise Unplugged(str(error)) from error

    def write(self, data: bytes) -> int:
        """See Line."""
        try:
            written = self._handle.write(data)
        except serial.SerialTimeoutException:
            return 0
        except (OSError, serial.SerialException) as error:
            raise Unplugged(str(error)) from error
        return len(data) if written is None else int(written)

    def room(self) -> int:
        """See Line."""
        return 256

    def close(self) -> None:
        """See Line."""
        with contextlib.suppress(OSError, serial.SerialException):
            self._handle.close()


def open_line(url: str, baud: int) -> Line:
    """Open whatever `serial.serial_for_url` takes, for us alone.

    Raises UsageError for a string that it does not take, DeviceError when the port cannot
    be opened.
    """
    if url.startswith("loop:"):
        raise UsageError(f"device {url!r}: a loop has no board at its other end")
    try:
        handle = serial.serial_for_url(url, baudrate=baud, timeout=0, do_not_open=True)
        if "://" not in url:
            handle.exclusive = True
        handle.open()
    except ValueError as error:
        raise UsageError(f"device {url!r}: {error}") from error
    except (OSError, serial.SerialException) as error:
        raise DeviceError(f"cannot open {url}: {_why(error)}") from error
    if os.name == "posix" and not url.startswith("spy:"):  # which looks at reads and writes
        try:
            handle.fileno()
        except (OSError, AttributeError):
            pass
        else:
            return DescriptorLine(handle, None if _unpaced(url) else baud)
    return TimedLine(handle)


def _tell_nothing_from_end(descriptor: int) -> None:
    """pyserial's VMIN of 0 makes a read without data look like the end of the file."""
    import termios

    attributes = termios.tcgetattr(descriptor)
    attributes[6][termios.VMIN] = 1
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _unpaced(url: str) -> bool:
    """A pty or a socket takes bytes as fast as they come."""
    return "://" in url or os.path.realpath(url).startswith("/dev/pts/")


def _why(error: Exception) -> str:
    number = getattr(error, "errno", None)
    text = os.strerror(number) if isinstance(number, int) else str(error)
    if number == 13:
        text += " (on Linux: join the group that owns it, often dialout)"
    if number in (11, 16):
        text += " (another program holds it)"
    return text
