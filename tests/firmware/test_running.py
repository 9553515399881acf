"""Every body that runs here: boots, answers, notices resets, watches itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import serial
from all_boards import BOARDS, EMULATED, PATIENCE_SECONDS, no_descriptor_left, param, start, talk
from networks import quantised, random_case

from hwgle.boards import build, start_host, start_qemu
from hwgle.boards.process import RunningBoard
from hwgle.boards.selftest import selftest
from hwgle.boards.size import size_of
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.serial import SerialDevice
from hwgle.errors import BoardReset, DeviceError, SessionEnded
from hwgle.golden import golden_names, load_golden
from hwgle.onchip import OnChip
from hwgle.quantise import quantise_weights

ALL = list(BOARDS)


def echo_for_long(device: SerialDevice) -> None:
    for _ in range(1000):
        device.echo(b"still there?")


def reboot(device: SerialDevice, wedge: bool) -> None:
    device.reboot(wedge)
    device.sync()


@pytest.fixture(scope="module", params=[param(name) for name in ALL])
def board(request: pytest.FixtureRequest) -> Iterator[tuple[str, RunningBoard]]:
    name: str = request.param
    with start(name) as running:
        yield name, running


@pytest.fixture
def device(board: tuple[str, RunningBoard]) -> Iterator[SerialDevice]:
    name, running = board
    with talk(running, name) as device:
        yield device


def test_tells_what_it_is(board: tuple[str, RunningBoard], device: SerialDevice) -> None:
    description = BOARDS[board[0]]
    assert device.info.name == description.name
    assert device.limits.payload == description.link.payload
    assert device.limits.window == description.link.window
    # What link and device keep for themselves is a few kilobytes, or less where it is little.
    assert device.limits.memory is not None
    assert 0.5 * description.memory.ram < device.limits.memory < description.memory.ram


def test_echoes(device: SerialDevice) -> None:
    rng = np.random.default_rng(1)
    most = device.limits.payload - 1
    sent = [rng.bytes(int(n)) for n in rng.integers(0, most + 1, 40)] + [
        b"\0" * most,
        b"\xff" * most,
    ]
    assert device.echo_many(sent) == sent
    assert device.status()["rx_lost"] == 0


def test_selftest_passes(device: SerialDevice) -> None:
    """A network learns and every digest is the emulator's."""
    results = list(selftest(device, 3, 300, lambda *_: None))
    assert [r.name for r in results] == ["echo", "learning", "weights", "stack", "memory", "line"]
    assert all(r.good for r in results), results


def bound_of(name: str) -> int | None:
    """Bytes of the stack as computed from what gcc tells of the board's firmware."""
    return size_of(BOARDS[name], build(name)).stack_bound


def test_the_stack_mark_is_told_and_within_its_bound(
    board: tuple[str, RunningBoard], device: SerialDevice
) -> None:
    status = device.status()
    assert 300 < status["stack_used"] < status["stack_size"]
    assert status["stack_used"] <= (bound_of(board[0]) or status["stack_size"])


def busy(device: SerialDevice) -> None:
    """All that goes deep: every golden network, every rule that learns, all that is told."""
    case = random_case(21, layers=2, neurons=4, inputs=3, batch=1, steps=40)
    how = {"learning_rate": 0.01, "range_every": 16, "range_clip": 0.01}
    for rule in (OnChip("sgd", 3), OnChip("normalised", 3, 10, 1, 16, 3), OnChip("sign", 4)):
        q = quantised(case, Chip.load("ideal"), seed=5, learner=rule, **how)
        device.load(q.image, case.batch, gradient=True)
        device.write_weights(quantise_weights(q.image, case.weights))
        device.clear_gradient(4)
        device.run(Block(q.input, q.target, gradient=True))
        device.read_gradient()
        device.run(Block(q.input, q.target, learn=True, ranging=True, votes=True))
        device.restore(device.snapshot())
        device.read_weights()
        device.counters()
    for name in golden_names():
        load_golden(name).check(device)
    list(selftest(device, 3, 300, lambda *_: None))


@pytest.mark.long
@pytest.mark.parametrize("name", [param(name) for name in EMULATED])
def test_the_stack_bound_holds_and_is_not_far_above_the_mark(name: str) -> None:
    bound = bound_of(name)
    assert bound is not None
    with start(name) as running, talk(running, name) as device:
        busy(device)
        used = device.status()["stack_used"]
    print(f"{name}: {used} bytes used, bound {bound}, kept {BOARDS[name].memory.stack}")
    assert used <= bound <= 1.6 * used


def test_time_passes(device: SerialDevice) -> None:
    """Not faster than here; slower is possible where the machine is busy."""
    begin, before = time.monotonic(), device.status()["uptime_ms"]
    passed = 0
    while passed < 200:
        time.sleep(0.05)
        passed = device.status()["uptime_ms"] - before
        assert passed < 1000 * (time.monotonic() - begin) + 50
        assert time.monotonic() - begin < PATIENCE_SECONDS


def test_another_session_finds_it_as_it_was(board: tuple[str, RunningBoard]) -> None:
    name, running = board
    with no_descriptor_left():
        boots = set()
        for _ in range(5):
            with talk(running, name) as device:
                boots.add(device.info.boots)
    assert len(boots) == 1


def test_reset_button(board: tuple[str, RunningBoard]) -> None:
    name, running = board
    device = talk(running, name)
    boots = device.info.boots
    running.reset()
    with pytest.raises(SessionEnded):
        echo_for_long(device)
    device.close()
    with talk(running, name) as again:
        assert again.info.boots == boots + 1
        assert again.info.boot_cause == "pin"
        assert again.status()["memory_used"] == 0


def test_reboot_by_message(board: tuple[str, RunningBoard]) -> None:
    name, running = board
    device = talk(running, name)
    boots = device.info.boots
    with pytest.raises(BoardReset):
        reboot(device, wedge=False)
    device.close()
    with talk(running, name) as again:
        assert again.info.boots == boots + 1
        assert again.info.boot_cause == "software"


def test_noise_is_survived(board: tuple[str, RunningBoard]) -> None:
    name, running = board
    rng = np.random.default_rng(2)
    with talk(running, name) as device:
        boots = device.info.boots
    with serial.Serial(running.port, timeout=0) as line:
        for _ in range(10):
            line.write(rng.bytes(300) + b"\0")
            line.read(4096)
            time.sleep(0.01)
    with talk(running, name) as device:
        assert device.echo(b"here") == b"here"
        assert device.info.boots == boots


@pytest.mark.parametrize("name", [param("stm32vldiscovery")])
def test_other_limits_of_the_link(name: str) -> None:
    with start_qemu(name, payload=96, window=3) as running, talk(running, name) as device:
        assert (device.limits.payload, device.limits.window) == (96, 3)
        assert device.echo_many([b"x" * 95] * 10) == [b"x" * 95] * 10


def test_a_small_host_board() -> None:
    with start_host(memory=8192) as running, talk(running, "host") as device:
        assert (device.limits.payload, device.limits.window) == (64, 2)
        assert device.limits.memory is not None
        assert 4096 < device.limits.memory < 8192


# A Cortex-M in QEMU counts its ticks late on a busy machine, so its watchdog may take long.
WATCHED = [
    param("hifive1"),
    *(param(name, pytest.mark.long) for name in ALL if name != "hifive1"),
]


@pytest.mark.parametrize("name", WATCHED)
def test_watchdog_ends_a_wedged_loop(name: str) -> None:
    with start(name) as running:
        device = talk(running, name)
        boots = device.info.boots
        with pytest.raises(DeviceError):
            reboot(device, wedge=True)
        device.close()
        begin = time.monotonic()
        with talk(running, name) as again:
            assert time.monotonic() - begin < PATIENCE_SECONDS
            assert again.info.boots == boots + 1
            assert again.info.boot_cause == "watchdog"


@pytest.mark.parametrize("name", [param("hifive1"), param("stm32vldiscovery")])
def test_the_boot_id_differs_at_each_boot(name: str) -> None:
    seen = set()
    with start(name) as running:
        for _ in range(6):
            with talk(running, name) as device:
                seen.add(device.hello.boot)
            running.reset()
    assert len(seen) == 6
