"""What goes wrong with boards: unplugged, reset, refused, silent; and nothing is leaked."""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import Case, chip_with, draw_run, draw_weights, make_network, quantised, random_case

from hwgle.device import Block
from hwgle.devices import open_board, open_device
from hwgle.devices.bodies import open_body
from hwgle.devices.emulator import Emulator
from hwgle.devices.line import Line
from hwgle.devices.port import recorder
from hwgle.devices.serial import SerialDevice
from hwgle.devices.shadow import ShadowedDevice
from hwgle.errors import (
    BoardReset,
    DeviceError,
    DeviceRefused,
    DeviceTimeout,
    LinkLost,
    LinkRefused,
    NotEqual,
    SessionEnded,
    UsageError,
)
from hwgle.quantise import quantise_weights

CASE = random_case(40, layers=2, neurons=8, inputs=2, batch=2, steps=40)
Q = quantised(CASE, chip_with(seed=2), learning_rate=0.1)
host = pytest.mark.board("cc")
BUSY = 8.0  # seconds that a busy machine may add to what the device promises


def loaded(device: Any) -> Any:
    device.load(Q.image, CASE.batch)
    device.write_weights(quantise_weights(Q.image, CASE.weights))
    return device


def long_block(steps: int) -> Block:
    """Many steps without a target."""
    x = np.resize(Q.input, (steps, *Q.input.shape[1:]))
    return Block(x, record=[(0, "r")])


@pytest.fixture
def board() -> Iterator[SerialDevice]:
    with_it = loaded(open_board("host:"))
    yield with_it
    with_it.close()


def body_of(device: SerialDevice) -> Any:
    return device._body


def when_waiting(device: SerialDevice, act: Any) -> None:
    """Call `act` from another thread as soon as someone waits for the device, however fast it
    works: a timer's delay may be longer than the work."""
    wait = device.port._wait_for_progress

    def waiting(what: str) -> None:
        device.port._wait_for_progress = wait  # type: ignore[method-assign]
        threading.Thread(target=act).start()
        wait(what)

    device.port._wait_for_progress = waiting  # type: ignore[method-assign]


def timed(call: Any) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


@host
def test_unplugged_while_it_runs(board: SerialDevice) -> None:
    pending = board.submit(long_block(200_000))
    body = body_of(board)
    when_waiting(board, body.kill)
    begun = time.monotonic()
    with pytest.raises(LinkLost, match=r"unplugged .*not confirmed is number \d+ \(\w+\)") as told:
        pending.result()
    assert time.monotonic() - begun < 2.0 + BUSY
    assert told.value.exit_code == 3
    assert told.value.message == "STEPS"
    with pytest.raises(LinkLost):
        board.digest()
    assert timed(board.close) < 2.0 + BUSY


@host
def test_unplugged_while_it_idles(board: SerialDevice) -> None:
    body_of(board).kill()
    with pytest.raises(LinkLost):
        board.echo(b"there?")


@host
def test_a_reset_is_no_success(board: SerialDevice) -> None:
    pending = board.submit(long_block(200_000))
    when_waiting(board, board.reset_board)
    with pytest.raises(BoardReset, match="not confirmed is number"):
        pending.result()
    board.close()


@host
def test_a_reset_between_two_calls(board: SerialDevice) -> None:
    board.reset_board()
    with pytest.raises(SessionEnded):
        board.run(long_block(10))


@host
def test_a_reboot_that_was_asked_for(board: SerialDevice) -> None:
    board.reboot()
    with pytest.raises(BoardReset):
        board.sync()


@host
def test_ctrl_c_while_waiting_leaves_the_board_usable(board: SerialDevice) -> None:
    block = long_block(30_000)
    pending = board.submit(block)
    when_waiting(board, _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt):
        pending.result()
    records = pending.result()
    assert records.steps == 30_000
    with open_device("emu:") as emulator:
        loaded(emulator).run(block)
        assert emulator.digest() == board.digest()


@host
def test_close_during_a_run_is_quick_and_safe_twice(board: SerialDevice) -> None:
    board.submit(long_block(200_000))
    assert timed(board.close) < 2.0 + BUSY
    board.close()
    with pytest.raises(DeviceError, match="closed"):
        board.echo(b"")


@host
def test_a_refusal_says_what_is_needed_and_there() -> None:
    rng = np.random.default_rng(1)
    network = make_network([64, 64], ["tanh", "tanh"], rng)
    weights = draw_weights(network, rng)
    q = quantised(Case(1, network, weights, *draw_run(network, rng, 10, 1)), chip_with())
    with open_board("host:?memory=6000&payload=64&window=1") as small:
        have = small.info.memory
        with pytest.raises(DeviceRefused, match=r"does not fit: \d+ bytes are needed") as told:
            small.send_image(q.image, 1, 0)
        assert told.value.reason == "no_memory"
        assert told.value.need > told.value.have
        assert told.value.have <= have
        with pytest.raises(UsageError, match="no network is loaded"):
            small.digest()
        assert small.echo(b"still there") == b"still there"


@host
def test_a_refusal_voids_what_came_behind_it(board: SerialDevice) -> None:
    before = board.digest()
    board._talk.act("WEIGHTS_READ", 99, 0, 1)
    pending = board.submit(long_block(10))
    board.add_weights(quantise_weights(Q.image, CASE.weights))
    with pytest.raises(DeviceRefused, match="refused WEIGHTS_READ"):
        pending.result()
    with pytest.raises(DeviceRefused):
        pending.result()
    assert board.digest() == before
    assert board.status()["refused"] == 1


@host
def test_another_protocol_is_refused_with_both_sides() -> None:
    with pytest.raises(LinkRefused, match=r"host: .*messages 00000007.*\n.*board: .*messages"):
        open_board("host:", protocol=7)


@host
def test_a_board_that_never_answers_times_out(board: SerialDevice) -> None:
    board.port.timing = replace(board.port.timing, answer_within=0.2)
    begun = time.monotonic()
    with pytest.raises(DeviceTimeout, match="link is alive"):
        board.port.receive()
    assert time.monotonic() - begun < 0.2 + BUSY


def test_nobody_at_the_other_end() -> None:
    ours, theirs = os.openpty()
    try:
        begun = time.monotonic()
        with pytest.raises(LinkLost, match="no answer within 2 s"):
            open_board(os.ttyname(theirs))
        assert time.monotonic() - begun < 2.0 + BUSY
    finally:
        os.close(ours)
        os.close(theirs)


@host
def test_noise_before_a_session_is_survived() -> None:
    with open_board("fault+host:?insert=0.01&seed=3&payload=64") as board:
        assert board.echo(bytes(range(40))) == bytes(range(40))


def resources() -> tuple[int, int, int]:
    """Descriptors, threads and children of this process."""
    children = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            children += len(file.read().split())
    return len(os.listdir("/proc/self/fd")), threading.active_count(), children


def reconnect(times: int) -> None:
    loaded(open_board("host:")).close()
    before = resources()
    for k in range(times):
        with open_board("host:") as board:
            assert board.echo(b"%d" % k) == b"%d" % k
    assert resources() == before


@host
def test_reconnecting_leaks_nothing() -> None:
    reconnect(50)


@host
@pytest.mark.long
def test_a_thousand_reconnects_leak_nothing() -> None:
    reconnect(1000)


@host
def test_reopening_one_board(board: SerialDevice) -> None:
    """A session ends, another begins on the same process; the model stays in service."""
    first = board.digest()
    port = body_of(board).port
    body, board._body = body_of(board), None
    board.close()
    try:
        for _ in range(10):
            with open_board(port) as again:
                assert again._talk.one("SYNC", "SYNCED", 1).cookie == 1
                again._image, again.batch = Q.image, CASE.batch
                assert again.digest() == first
    finally:
        body.close()


@host
def test_a_failed_open_leaks_nothing() -> None:
    with pytest.raises(LinkRefused):
        open_board("host:", protocol=7)
    before = resources()
    for _ in range(3):
        with pytest.raises(LinkRefused):
            open_board("host:", protocol=7)
    assert resources() == before


@host
def test_a_shadow_finds_one_flipped_bit() -> None:
    with open_device("host:") as device:
        assert isinstance(device, ShadowedDevice)
        loaded(device)
        device.tamper(300, 0, "u", 1, 9)
        with pytest.raises(NotEqual, match=r"block 1 \(steps 256\.\.511") as told:
            device.run(long_block(600))
        assert told.value.exit_code == 1
        with pytest.raises(DeviceError, match="load a network first"):
            device.digest()
        loaded(device)
        device.run(Block(Q.input, Q.target, learn=True, votes=True, record=[(0, "e")]))


@host
def test_a_shadow_finds_a_flipped_weight() -> None:
    with open_device("host:") as device:
        loaded(device)
        device.body.tamper(3, 0, "weight", 0, 2)
        with pytest.raises(NotEqual, match="digest"):
            device.run(long_block(5))


@host
def test_without_a_shadow_nobody_compares() -> None:
    with open_device("host:", shadow=False) as device:
        assert isinstance(device, SerialDevice)
        loaded(device).tamper(1, 0, "u", 0, 3)
        device.run(long_block(5))


@host
def test_a_session_can_be_recorded() -> None:
    seen: list[tuple[str, bytes, float]] = []
    token = recorder.set(lambda way, data, when: seen.append((way, data, when)))
    try:
        with open_board("host:") as board:
            board.echo(b"recorded")
    finally:
        recorder.reset(token)
    for way in ("out", "in"):
        assert b"recorded" in b"".join(data for w, data, _ in seen if w == way)
    times = [when for _, _, when in seen]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nope:", "is not known; allowed: emu:, host:, qemu:"),
        ("emu:x", "nothing may stand behind"),
        ("host:x", "only options may stand behind"),
        ("host:?speed=3", "no option speed; allowed: memory, payload, window"),
        ("host:?memory=lots", "memory=lots; allowed: a positive number"),
        ("loop://", "a loop has no board"),
        ("fault+host:?flip=2", "flip=2: a probability"),
        ("fault+host:?lose=3", "lose=3: frames such as out3"),
        ("fault+host:?flip_at=3", "flip_at=3: bytes such as out3"),
        ("/dev/ttyS0?baud=fast", "baud=fast; allowed"),
        ("qemu:abacus", "abacus"),
    ],
)
def test_device_strings_that_name_nothing(url: str, text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("+", r"\+")):
        open_device(url)


def test_ports_that_cannot_be_opened() -> None:
    with pytest.raises(DeviceError, match="cannot open /dev/hwgle-nothing: No such file"):
        open_device("/dev/hwgle-nothing")
    with pytest.raises(DeviceError, match="cannot open socket://"):
        open_device("socket://localhost:9")


@host
@pytest.mark.long
def test_the_watchdog_leaves_a_busy_session_alone(board: SerialDevice) -> None:
    """Busy for some ms, idle for a moment, for longer than BOARD_WEDGED_MS of processor time."""
    rng = np.random.default_rng(1)
    network = make_network([128, 128], ["tanh", "tanh"], rng)
    case = Case(1, network, draw_weights(network, rng), *draw_run(network, rng, 10, 8))
    q = quantised(case, chip_with())
    board.load(q.image, case.batch)
    pid, before = body_of(board).pid, board.status()["uptime_ms"]
    # A pause that a busy machine puts in would wind the watchdog up and hide its fault.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    deadline = time.monotonic() + 240
    while used(pid) < 6.0:
        assert time.monotonic() < deadline, f"only {used(pid)} s of processor time"
        for _ in range(20):
            board.run(Block(q.input[:6]))
            assert board.echo(b"busy?") == b"busy?"
    assert board.status()["uptime_ms"] > before
    assert board._info().boots == board.info.boots


def used(pid: int) -> float:
    """Processor seconds of a process."""
    with open(f"/proc/{pid}/stat") as file:
        times = file.read().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
@pytest.mark.parametrize("what", ["unplugged", "reset"])
def test_an_emulated_board_is_lost_as_a_real_one(what: str) -> None:
    rng = np.random.default_rng(2)
    network = make_network([4, 3], ["tanh", "linear"], rng)
    case = Case(2, network, draw_weights(network, rng), *draw_run(network, rng, 20, 1))
    q = quantised(case, chip_with())
    with open_board("qemu:stm32f405") as device:
        device.load(q.image, 1)
        pending = device.submit(Block(np.resize(q.input, (50_000, *q.input.shape[1:]))))
        body = body_of(device)
        when_waiting(device, body.kill if what == "unplugged" else body.reset)
        with pytest.raises(LinkLost if what == "unplugged" else BoardReset, match=r"STEPS|BLOCK"):
            pending.result()
        assert timed(device.close) < 2.0 + BUSY


@host
def test_ctrl_c_gave_the_answers_of_a_request_to_the_next(board: SerialDevice) -> None:
    half = len(Q.input) // 2
    first = Block(Q.input[:half], record=[(0, "r")])
    second = Block(Q.input[half : 2 * half], record=[(0, "r")])
    wake = board.port._wake

    def interrupted() -> None:
        board.port._wake = wake  # type: ignore[method-assign]
        wake()
        raise KeyboardInterrupt  # where a real one lands: the request is on its way

    board.port._wake = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        board.submit(first)
    got = board.run(second)
    with Emulator() as emulator:
        loaded(emulator).run(first)
        want = emulator.run(second)
        assert np.array_equal(got.signals[0], want.signals[0])
        assert got.digests[-1][1] == emulator.digest()


class Stuck(Line):
    """A line whose driver takes no more bytes and brings none, once told so."""

    paced = True

    def __init__(self, inner: Line) -> None:
        self.inner, self.descriptor, self.stuck = inner, inner.descriptor, False

    def read(self) -> bytes:
        return b"" if self.stuck else self.inner.read()

    def write(self, data: bytes) -> int:
        return 0 if self.stuck else self.inner.write(data)

    def room(self) -> int:
        return 0 if self.stuck else self.inner.room()

    def due(self) -> float | None:
        return 0.005 if self.stuck else self.inner.due()

    def close(self) -> None:
        self.inner.close()


@host
def test_a_line_that_takes_nothing_more_stopped_the_clock_of_the_link() -> None:
    lines: list[Stuck] = []

    def wrap(line: Line, _reset: Any) -> Line:
        lines.append(Stuck(line))
        return lines[-1]

    with contextlib.closing(loaded(open_body("host:", wrap=wrap))) as device:
        lines[0].stuck = True
        begun = time.monotonic()
        with pytest.raises(LinkLost):
            device.run(Block(Q.input))
        assert time.monotonic() - begun < 2.0 + BUSY
        with contextlib.suppress(DeviceError):
            device.close()


@host
def test_a_layer_that_cannot_be_left_the_line_open() -> None:
    held = []  # or the collector would close what nobody did

    def wrap(line: Line, reset: Any) -> Line:
        held.append(line)
        raise UsageError("no")

    before = resources()
    for _ in range(3):
        with pytest.raises(UsageError):
            open_body("host:", wrap=wrap)
    assert resources() == before
