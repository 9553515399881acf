"""A program beside this one that never outlives it.

It runs in a session of its own, so that Ctrl-C in the terminal reaches only us, and it
hangs on a pipe that ends with us, however we end: even SIGKILL closes it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from types import TracebackType
from typing import IO, Any, Self

SECONDS_TO_END = 5.0


class Lifeline:
    """A process whose standard input is a pipe from us; the process ends with the pipe."""

    def __init__(self, command: list[str], stdout: int | Any, stderr: int | IO[bytes]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Of the process itself, which leads its group."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes] | None:
        """Its standard output, if it was asked for as a pipe."""
        return self._process.stdout

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def send(self, signal_number: int) -> None:
        """A signal to the process; nothing if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal_number)

    def cut(self) -> None:
        """End it, and wait until it is gone. Safe to call twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """cut(), and let go of the pipes."""
        self.cut()
        if self._process.stdout is not None:
            self._process.stdout.close()


class RunningBoard(ABC):
    """A board that runs on this machine. Use as a context manager, or call close().

    port: the pseudo terminal that is its serial line, for any serial program.
    """

    port: str

    @abstractmethod
    def reset(self) -> None:
        """Press its reset button."""

    @abstractmethod
    def alive(self) -> bool:
        """Whether it still runs."""

    @abstractmethod
    def kill(self) -> None:
        """Pull the plug: it is gone and its line is dead."""

    @abstractmethod
    def close(self) -> None:
        """Stop it and let go of everything; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
