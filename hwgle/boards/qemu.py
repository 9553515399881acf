"""The firmware in QEMU: its serial line on a pseudo terminal, its buttons over QMP."""

from __future__ import annotations

import json
import os
import socket
import time
import tty
from collections.abc import Sequence
from typing import Any

from hwgle.boards.builder import build, program
from hwgle.boards.description import Described, load
from hwgle.boards.process import Lifeline, RunningBoard
from hwgle.errors import DeviceError, UsageError

# QEMU starts in 50 ms; on a machine that is busy with other things it has taken seconds.
SECONDS_TO_START = 30.0
SECONDS_TO_OBEY = 20.0

# What the shell gets as output is a socket, on which QEMU talks QMP and complains; what it
# gets as error output is our end of a pseudo terminal, which QEMU takes as descriptor 3.
# The shell lets go of both, waits for the end of our pipe and then ends QEMU.
GUARD = """
"$@" <&1 3<&2 2>&1 & child=$!
exec >&- 2>&-
read -r _
kill -9 $child
wait $child
"""


class Qmp:
    """QEMU's control protocol: one JSON object a line, answers in order, events between."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""
        self.complaints: list[str] = []

    def handshake(self, seconds: float) -> None:
        """Wait for the greeting and leave negotiation mode."""
        self._line(time.monotonic() + seconds)
        self.execute("qmp_capabilities", seconds)

    def execute(self, command: str, seconds: float = SECONDS_TO_OBEY) -> Any:
        """The answer to a command. Raises DeviceError if there is none in time."""
        deadline = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        except OSError as error:
            raise DeviceError("QEMU has ended") from error
        while True:
            answer = json.loads(self._line(deadline))
            if "error" in answer:
                raise DeviceError(f"QEMU refused {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def _line(self, deadline: float) -> bytes:
        """The next line that is not a complaint."""
        while not (line := self._any_line(deadline)).startswith(b"{"):
            self.complaints.append(line.decode(errors="replace").strip())
        return line

    def _any_line(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            try:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                data = self._socket.recv(65536)
            except TimeoutError:
                raise DeviceError("QEMU does not answer") from None
            except OSError:
                data = b""
            if not data:
                raise DeviceError("QEMU has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def ended(self) -> bool:
        """Whether QEMU has closed its end; what it told meanwhile is kept."""
        self._socket.setblocking(False)
        try:
            while data := self._socket.recv(65536):
                self._rest += data
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class QemuBoard(RunningBoard):
    """The emulator behind `qemu:<board>`."""

    def __init__(self, emulator: str, arguments: Sequence[str]) -> None:
        # Our own terminal, held open at both ends: QEMU's own chardev of that kind looks
        # only once a second whether somebody has come.
        line, self._far_end = os.openpty()
        ours, theirs = socket.socketpair()
        self._socket = ours
        command = ["/bin/sh", "-c", GUARD, "hwgle-qemu", emulator, *arguments]
        try:
            tty.setraw(self._far_end)
            self.port = os.ttyname(self._far_end)
            self._process = Lifeline(command, theirs, line)
        except OSError as error:
            ours.close()
            os.close(self._far_end)
            raise DeviceError(f"{emulator} does not run: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(line)
        self._qmp = Qmp(ours)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        try:
            self._qmp.handshake(SECONDS_TO_START)
            self._qmp.execute("cont", SECONDS_TO_START)
        except DeviceError as error:
            words = "\n".join(self._qmp.complaints)
            raise DeviceError(f"QEMU did not start: {words or error}") from error

    def reset(self) -> None:
        """See RunningBoard."""
        self._qmp.execute("system_reset")

    def query(self, command: str) -> Any:
        """The answer to any QMP command without arguments, for tests and measurements."""
        return self._qmp.execute(command)

    def alive(self) -> bool:
        """See RunningBoard."""
        return not self._process.ended() and not self._qmp.ended()

    def kill(self) -> None:
        """See RunningBoard."""
        self._process.cut()

    def close(self) -> None:
        """See RunningBoard."""
        self._process.close()
        self._socket.close()
        if self._far_end >= 0:
            os.close(self._far_end)
            self._far_end = -1


def arguments(described: Described, kernel: str) -> list[str]:
    """QEMU's words for a board: nothing but the machine, one serial line and QMP."""
    board = described.board
    if board.qemu is None:
        raise UsageError(f"board {board.name}: QEMU has no machine for it")
    unused = ["-serial", "null"] * board.qemu.serial
    return [
        *("-M", board.qemu.machine, "-kernel", kernel),
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-add-fd", "fd=3,set=1", "-chardev", "pipe,id=line,path=/dev/fdset/1"),
        *(*unused, "-serial", "chardev:line"),
        *("-qmp", "stdio"),
    ]


def start_qemu(
    board: str | os.PathLike[str],
    payload: int | None = None,
    window: int | None = None,
    extra: Sequence[str] = (),
) -> QemuBoard:
    """Start a board's firmware in QEMU, built first if it must be.

    payload, window: limits of its link, if not its own. extra: more words for QEMU.

    Raises:
        UsageError: no such board, or QEMU has no machine for it.
        DeviceError: QEMU or a compiler is missing, or it does not start.
    """
    described = load(board)
    if described.board.qemu is None:
        raise UsageError(f"board {described.board.name}: QEMU has no machine for it")
    emulator = program(described.board.qemu)
    elf = build(board, payload=payload, window=window)
    return QemuBoard(emulator, [*arguments(described, str(elf)), *extra])
