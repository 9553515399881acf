"""`hwgle board`, as a user meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import serial

from hwgle.boards.description import load, names

HWGLE = [sys.executable, "-m", "hwgle", "board"]
PATIENCE = 60.0  # seconds to end, on a machine that is busy


def board(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HWGLE, *words], capture_output=True, text=True, timeout=300, check=False
    )


def test_list_says_where_each_has_been_tried() -> None:
    done = board("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    for name in names():
        (line,) = [line for line in lines if line.startswith(name + " ")]
        assert load(name).board.proven in line
    assert "unproven on silicon" in done.stdout


def test_mistakes_are_usage_errors() -> None:
    assert board("build", "nothing").returncode == 2
    assert board("start", "stm32f405", "--memory", "65536").returncode == 2
    assert board("info", "--device", "nothing").returncode == 2
    assert board("info", "--device", "/dev/nothing").returncode == 3


@pytest.mark.board("arm-none-eabi-gcc")
def test_build_tells_sizes() -> None:
    done = board("build", "stm32vldiscovery")
    assert done.returncode == 0, done.stderr
    for word in ("flash", "RAM", "stack", "left", "131,072"):
        assert word in done.stdout


def test_info_and_selftest_on_the_host_board() -> None:
    done = board("info", "--device", "host:?memory=65536")
    assert done.returncode == 0, done.stderr
    assert "booted   1 times; last: power" in done.stdout
    done = board("selftest", "--device", "host:", "--steps", "100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nok ") == 6


def test_start_prints_a_port_and_stops_on_ctrl_c() -> None:
    process = subprocess.Popen([*HWGLE, "start", "host"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        port = process.stdout.readline().strip()
        assert port.startswith("/dev/")
        with serial.Serial(port, timeout=5) as line:
            # A frame of an unknown session is answered.
            line.write(b"\0")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)
