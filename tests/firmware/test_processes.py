"""Nothing is left behind: no process, thread or descriptor, however it ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time

import pytest
from all_boards import left_behind, no_descriptor_left, param, start, talk

from hwgle.boards import QemuBoard
from hwgle.boards.builder import MissingProgram
from hwgle.boards.host import HostBoard, start_host
from hwgle.boards.qemu import start_qemu
from hwgle.errors import DeviceError, UsageError

TWO = [param("host"), param("hifive1")]
SECONDS = 60.0  # until all are gone, on a machine that is busy

# A program that starts a board, says so and waits to be ended.
STARTS = """
import sys, time
from hwgle.boards import start_host, start_qemu
name = sys.argv[1]
board = start_host() if name == "host" else start_qemu(name)
print(board.port, flush=True)
{then}
"""


def wait_until_none(mark: str) -> None:
    deadline = time.monotonic() + SECONDS
    while pids := left_behind(mark):
        assert time.monotonic() < deadline, f"left behind: {pids}"
        time.sleep(0.05)


@pytest.mark.parametrize("name", TWO)
def test_closed_boards_leave_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = secrets.token_hex(8)
    monkeypatch.setenv("HWGLE_TEST_MARK", mark)
    threads = threading.active_count()
    with no_descriptor_left():
        for _ in range(5):
            with start(name) as running:
                assert running.alive()
                assert os.path.exists(running.port)
            running.close()  # a second time
    assert threading.active_count() == threads
    wait_until_none(mark)


@pytest.mark.parametrize("name", TWO)
def test_killed_boards_are_gone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = secrets.token_hex(8)
    monkeypatch.setenv("HWGLE_TEST_MARK", mark)
    with start(name) as running:
        far_end = os.open(running.port, os.O_RDWR | os.O_NOCTTY)
        running.kill()
        assert not running.alive()
        wait_until_none(mark)
        # Whoever has the line open sees that it is dead: an error, or the end of file.
        with contextlib.suppress(OSError):
            while os.read(far_end, 100):
                pass
        os.close(far_end)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", TWO)
def test_boards_end_with_their_parent(name: str, signal_number: int) -> None:
    mark = secrets.token_hex(8)
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS.format(then="time.sleep(1000)"), name],
        env={**os.environ, "HWGLE_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline().startswith(b"/dev/")
    assert len(left_behind(mark)) >= 2
    parent.send_signal(signal_number)
    parent.wait()
    wait_until_none(mark)


@pytest.mark.parametrize("name", TWO)
def test_boards_that_nobody_closed_end_with_the_program(name: str) -> None:
    mark = secrets.token_hex(8)
    environment = {**os.environ, "HWGLE_TEST_MARK": mark}
    command = [sys.executable, "-c", STARTS.format(then=""), name]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wait_until_none(mark)


@pytest.mark.parametrize("name", TWO)
def test_a_thread_may_start_a_board_that_outlives_it(name: str) -> None:
    boards: list[HostBoard | QemuBoard] = []
    thread = threading.Thread(target=lambda: boards.append(start(name)))  # type: ignore[arg-type]
    thread.start()
    thread.join()
    deadline = time.monotonic() + SECONDS
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):  # to the system as well
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with boards[0] as running, talk(running, name) as device:
        assert device.echo(b"here") == b"here"
        assert running.alive()


def test_limits_of_the_host_board_are_refused_with_a_reason() -> None:
    with no_descriptor_left(), pytest.raises(DeviceError, match="not a number from 64"):
        start_host(payload=10)


@pytest.mark.board("riscv64-unknown-elf-gcc", "qemu-system-riscv32")
def test_what_qemu_complains_about_is_told() -> None:
    with no_descriptor_left(), pytest.raises(DeviceError, match=r"(?s)did not start.*nonsense"):
        start_qemu("hifive1", extra=["-nonsense"])


def test_a_missing_emulator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgram, match="sudo apt-get install qemu-system-misc"):
        start_qemu("hifive1")


def test_the_host_board_is_no_machine_of_qemu() -> None:
    with pytest.raises(UsageError, match="QEMU has no machine for it"):
        start_qemu("host")
