"""One fault at a time, by sample; fault_matrix.py is the whole of it and its table."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fault_matrix import (
    EITHER,
    RECOVERS,
    ROWS,
    TYPED,
    Row,
    board,
    build_link_matrix,
    link_rows,
    run_row,
    written,
)

from hwgle.cli.main import cli
from hwgle.devices import open_board, open_device
from hwgle.devices.emulator import Emulator
from hwgle.devices.faults import Faults, Way
from hwgle.devices.faults.forging import stuffed, unstuffed
from hwgle.devices.faults.options import ALLOWED, KEYS
from hwgle.errors import UsageError

SLOW = ("mute from a frame on", "mute both ways", "baud rate 25 % off")  # wait for silence


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Any, Any]]:
    if shutil.which("cc") is None:
        pytest.skip("no cc")
    with board() as here:
        yield here


@pytest.mark.parametrize("row", [r for r in ROWS if r.name not in SLOW], ids=lambda r: r.name)
def test_a_session_with_each_fault(running: tuple[Any, Any], row: Row, seed: int) -> None:
    count = run_row(*running, written(), row, range(seed, seed + 2))
    assert count.sessions == 2
    # The board is as good as before.
    assert run_row(*running, written(), ROWS[0], range(1)).recovered == 1


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_many_sessions_with_each_fault(running: tuple[Any, Any], row: Row, seed: int) -> None:
    count = run_row(*running, written(rounds=12), row, range(seed, seed + 12))
    assert count.recovered == {RECOVERS: 12, TYPED: 0, EITHER: count.recovered}[row.must]


@pytest.mark.long
@pytest.mark.board("cc", "qemu-system-arm", "arm-none-eabi-gcc")
@pytest.mark.parametrize("row", [r for r in ROWS if r.name not in SLOW], ids=lambda r: r.name)
def test_a_session_with_each_fault_on_an_emulated_board(row: Row, seed: int) -> None:
    with board("qemu:stm32f405") as here:
        run_row(*here, written(), row, range(seed, seed + 1))


@pytest.mark.board("cc")
def test_the_link_alone_under_each_fault(tmp_path: Path, seed: int) -> None:
    rows = link_rows(build_link_matrix(tmp_path), 5, seed)
    assert len(rows) == 24
    assert all(int(n) == int(whole) + int(typed) for _, n, whole, typed, *_ in rows)


@pytest.mark.long
@pytest.mark.board("cc")
def test_the_link_alone_under_each_fault_very_often(tmp_path: Path, seed: int) -> None:
    link_rows(build_link_matrix(tmp_path), 1000, seed)


# --- what a device string may ask for -------------------------------------------

BAD = [
    ("fault+emu:", "is the emulator itself"),
    ("fault+", "device '' is not known"),
    ("fault+nope:?flip=0", "device 'nope:\\?flip=0' is not known"),
    ("fault+host:?flp=1", "no option flp; allowed: memory, payload, window; with fault\\+"),
    ("fault+host:?flip=", "fault flip=: a probability, 0..1"),
    ("fault+host:?flip=nan", "fault flip=nan: a probability"),
    ("fault+host:?flip=0.7&drop=0.7", "together at most 1"),
    ("fault+host:?flip=x&seed=-1", "flip=x.*\n.*fault seed=-1: an integer"),
    ("fault+/dev/null-port?reset=out3", "cannot open /dev/null-port"),
]
VALUES = {  # of each option: a bad value
    **dict.fromkeys(("flip", "drop", "dup", "insert", "burst", "short", "again"), "1.5"),
    **dict.fromkeys([k for k in KEYS if k.endswith("_at")], "up3"),
    **dict.fromkeys(("lose", "twice", "reset", "mute", "stall"), "out"),
    **dict.fromkeys(("eio", "unplug", "intruder"), "in-1"),
    **dict.fromkeys(("stall_ms", "latency", "jitter", "batch", "wrap"), "86400001"),
    **{"seed": "4294967296", "pace": "fast", "noise": "1e3", "skew": "0", "messages": "-1",
       "version": "65536"},
}  # fmt: skip


@pytest.mark.parametrize(("url", "message"), BAD, ids=[u for u, _ in BAD])
def test_a_bad_device_string(url: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as told:
        open_device(url)
    assert told.value.exit_code == (3 if "cannot open" in message else 2)


def test_every_option_has_a_bad_value_here() -> None:
    assert VALUES.keys() == set(KEYS) == ALLOWED.keys()


@pytest.mark.parametrize("key", KEYS)
def test_a_bad_value_of_each_option(key: str) -> None:
    message = f"fault {key}={VALUES[key]}: {ALLOWED[key][0]}"
    with pytest.raises(UsageError, match=re.escape(message)):
        open_board(f"fault+host:?{key}={VALUES[key]}")


def test_the_command_line_says_so_and_ends_with_2() -> None:
    command = ["verify", "mnist1d-15k", "--device", "fault+host:?flip=2"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2, result.output
    assert "fault flip=2: a probability, 0..1" in result.output


# --- pieces -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 253, 254, 255, 508, 600])
def test_frames_of_the_forger_are_frames(n: int) -> None:
    rng = np.random.default_rng(n)
    for body in (bytes(12 + n), bytes([7]) * (12 + n), rng.bytes(12 + n)):
        frame = stuffed(body)
        assert frame.count(0) == 1
        assert unstuffed(frame[:-1]) == body
        damaged = bytearray(frame[:-1])
        damaged[len(damaged) // 2] ^= 1 if damaged[len(damaged) // 2] != 1 else 2
        assert unstuffed(bytes(damaged)) != body


def test_a_burst_goes_on_in_the_next_bytes() -> None:
    data = bytes(range(1, 255)) * 4
    way = Way("out", Faults(burst_at=frozenset({("out", 10)}), seed=3))
    out = b"".join(way.carry(data[k : k + 4]) for k in range(0, len(data), 4))
    changed = [k for k in range(len(data)) if out[k] != data[k]]
    assert len(out) == len(data)
    assert 10 <= changed[0] < 14
    assert 2 <= changed[-1] - changed[0] + 1 <= 60
    assert way.struck.faults == 1


def test_a_wrong_rate_garbles_and_a_small_error_does_not() -> None:
    data = bytes(range(256))
    assert Way("in", Faults(skew=1.03)).carry(data) == data
    assert Way("in", Faults(skew=1.25)).carry(data) != data


@pytest.mark.board("cc")
def test_signals_that_interrupt_calls_change_nothing(running: tuple[Any, Any]) -> None:
    """EINTR: calls of the port's thread are begun again."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timers")
    came = []
    old = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    with Emulator() as emulator:
        want = written(rounds=20).play(emulator)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        with open_board("host:?payload=256&window=4") as device:
            found = written(rounds=20).play(device)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert found == want
    assert came
