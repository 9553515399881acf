"""The firmware as a process on a pseudo terminal."""

from __future__ import annotations

import select
import signal
import tempfile
from pathlib import Path
from subprocess import PIPE

from hwgle.boards.builder import build
from hwgle.boards.process import Lifeline, RunningBoard
from hwgle.errors import DeviceError

SECONDS_TO_START = 20.0


class HostBoard(RunningBoard):
    """The process behind `host:`."""

    def __init__(self, program: Path, arguments: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._process = Lifeline([str(program), *arguments], PIPE, self._errors)
        except OSError as error:
            self._errors.close()
            raise DeviceError(f"{program} does not run: {error.strerror}") from error
        try:
            self.port = self._read_port()
        except BaseException:
            self.close()
            raise

    def _read_port(self) -> str:
        output = self._process.output
        assert output is not None
        if not select.select([output], [], [], SECONDS_TO_START)[0]:
            raise DeviceError(f"the host board told no port within {SECONDS_TO_START:.0f} s")
        if not (name := output.readline().decode().strip()):
            self._errors.seek(0)
            why = self._errors.read().decode(errors="replace").strip()
            raise DeviceError(why or "the host board ended at once")
        return name

    @property
    def pid(self) -> int:
        """Of the process; a reset does not change it."""
        return self._process.pid

    def reset(self) -> None:
        """See RunningBoard."""
        self._process.send(signal.SIGHUP)

    def alive(self) -> bool:
        """See RunningBoard."""
        return not self._process.ended()

    def kill(self) -> None:
        """See RunningBoard."""
        self._process.send(signal.SIGKILL)
        self._process.cut()

    def close(self) -> None:
        """See RunningBoard: at once, it has nothing to save."""
        self._process.send(signal.SIGKILL)
        self._process.close()
        self._errors.close()


def start_host(
    memory: int | None = None, payload: int | None = None, window: int | None = None
) -> HostBoard:
    """Start the host board, built first if it must be.

    memory: bytes for link, device and chip; payload, window: limits of its link.

    Raises:
        DeviceError: it cannot be built or does not start.
    """
    given = {"memory": memory, "payload": payload, "window": window}
    arguments = [
        word
        for name, value in given.items()
        if value is not None
        for word in (f"--{name}", str(value))
    ]
    return HostBoard(build("host"), arguments)
