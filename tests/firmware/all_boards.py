"""The boards as parameters of tests, each marked with the programs that it needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwgle.boards import start_host, start_qemu
from hwgle.boards.description import Board, load, names
from hwgle.boards.process import RunningBoard
from hwgle.devices.line import open_line
from hwgle.devices.port import GENEROUS
from hwgle.devices.serial import SerialDevice
from hwgle.errors import DeviceError

BOARDS = {name: load(name).board for name in names()}
EMULATED = [name for name, board in BOARDS.items() if board.qemu is not None]
# A board whose machine is short of time answers late, and its watchdog comes late.
PATIENCE_SECONDS = 90


def param(name: str, *marks: pytest.MarkDecorator, run: bool = True) -> object:
    """A board as a parameter; run: its emulator is needed too."""
    board: Board = BOARDS[name]
    programs = [board.compiler.program]
    if run and board.qemu is not None:
        programs.append(board.qemu.program)
    return pytest.param(name, marks=[pytest.mark.board(*programs), *marks])


def start(name: str) -> RunningBoard:
    """A board of its own kind of body, running."""
    return start_host() if BOARDS[name].body == "host" else start_qemu(name)


def talk(running: RunningBoard, name: str) -> SerialDevice:
    """A session with it, however long it takes to come up."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return SerialDevice(open_line(running.port, 115200), name, GENEROUS)
        except DeviceError:
            if time.monotonic() > deadline:
                raise


def left_behind(mark: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As many are open behind the block as before it."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    after = set(os.listdir("/proc/self/fd"))
    assert len(after) == len(before), sorted(
        os.readlink(f"/proc/self/fd/{k}") for k in after - before
    )
