"""What the wire must reach: bench/link.py measures the same with more patience."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwgle.devices import open_board
from hwgle.devices.line import BITS
from hwgle.devices.serial import SerialDevice

sys.path.insert(0, str(Path(__file__).parents[2]))  # bench/ is no part of the package

from bench.link import INPUTS, PACE, moved, stream

pytestmark = pytest.mark.board("cc")


LONGEST = 60.0  # seconds for this machine to have time for a measurement


def best(measured: Callable[[], float], reached: Callable[[float], bool]) -> float:
    """What is measured once `reached` says so, or after LONGEST: what else this machine does
    only makes it worse."""
    deadline = time.monotonic() + LONGEST
    while not reached(found := measured()) and time.monotonic() < deadline:
        pass
    return found


def share_of_payload(device: SerialDevice, steps: int) -> tuple[float, float]:
    """Payload over bytes to the board, and the bits per second that went there."""
    deadline = time.monotonic() + LONGEST
    counts, seconds = moved(device, stream(device, steps))
    # A machine that does something else for long enough looks like a lost frame.
    while counts["retransmitted"] and time.monotonic() < deadline:
        counts, seconds = moved(device, stream(device, steps))
    assert counts["retransmitted"] == 0
    return steps * INPUTS * 2 / counts["bytes_out"], counts["bytes_out"] * BITS / seconds


def test_bytes_on_the_wire_are_payload() -> None:
    with open_board("host:?payload=256") as device:
        assert share_of_payload(device, 1600)[0] >= 0.92


def test_a_paced_line_is_kept_busy() -> None:
    with open_board(f"fault+host:?payload=256&pace={PACE}") as device:
        rate = best(lambda: share_of_payload(device, 1600)[1], lambda rate: rate >= 0.9 * PACE)
    assert rate >= 0.9 * PACE


def test_round_trips_are_short() -> None:
    with open_board("host:") as device:
        device.echo_many([b"warm"] * 100)
        p50 = best(lambda: median_of(device, 300), lambda p50: p50 < 0.5e-3)
    assert p50 < 0.5e-3


def median_of(device: SerialDevice, count: int) -> float:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        device.echo(b"x" * 64)
        times.append(time.perf_counter() - begun)
    return float(np.median(times))
