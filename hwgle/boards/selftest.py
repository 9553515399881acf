"""What a board must be able to do, tried: bytes both ways, memory, learning to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.devices.serial import SerialDevice
from hwgle.errors import DeviceRefused
from hwgle.verify import draw_case, verify

ROUND_TRIPS = 100
# Counters of a link that saw a damaged or lost frame; a good line leaves them at 0. Frames
# that were sent again are none of them: a busy machine answers late.
FAULTS = ("bad_cobs", "bad_crc", "too_long", "too_short", "bad_type", "bad_hello", "bad_ack",
          "gap", "out_of_window", "no_credit")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One test: its name, whether it went well, and what was seen."""

    name: str
    good: bool
    text: str


Progress = Callable[[int, int, str], None]


def selftest(board: SerialDevice, seed: int, steps: int, progress: Progress) -> Iterator[Result]:
    """Run the tests one after another. What the board or the link raises is not caught."""
    rng = np.random.default_rng([seed, 7])
    yield _echo(board, rng)
    yield _learning(board, seed, steps, progress)
    yield _weights(board, rng)
    status = board.status()
    yield _stack(status)
    yield _memory(board, status)
    yield _line(board, status)


def _echo(board: SerialDevice, rng: np.random.Generator) -> Result:
    """Every length once, all byte values; then round trips."""
    most = board.limits.payload - 1  # one byte says that it is an ECHO
    lengths = range(most + 1) if most <= 512 else [0, 1, *(most >> k for k in range(8)), most]
    sent = [rng.bytes(n) for n in lengths]
    if (got := board.echo_many(sent)) != sent:
        wrong = sum(a != b for a, b in zip(got, sent, strict=True))
        return Result("echo", False, f"{wrong} of {len(sent)} messages came back changed")
    times = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        board.echo(b"hwgle")
        times.append(1e3 * (time.perf_counter() - begin))
    middle, most_ms = np.percentile(times, (50, 99))
    total = sum(map(len, sent))
    text = f"{len(sent)} messages, {total} bytes; round trip {middle:.2f} ms, 99 % {most_ms:.2f} ms"
    return Result("echo", True, text)


def _learning(board: SerialDevice, seed: int, steps: int, progress: Progress) -> Result:
    """A random network that fits learns on the board and on the emulator."""
    case = draw_case(board, Chip.load("ideal"), seed, steps, batch=1, learn=True)
    if case is None:
        return Result("learning", False, "not even the smallest network fits")
    with Emulator() as emulator:
        outcome, _ = verify(board, emulator, case, name=board.name, progress=progress)
    sizes = " ".join(f"{layer.phi}{layer.size}" for layer in case.network.layers)
    text = f"{case.network.inputs} in, {sizes}; {outcome.steps} steps, {outcome.updates} updates"
    if outcome.located is not None:
        return Result("learning", False, f"{text}: differs from the emulator; see hwgle verify")
    return Result("learning", True, f"{text}, digest {outcome.digest:016x} on both")


def _weights(board: SerialDevice, rng: np.random.Generator) -> Result:
    """What is written to the memory of the network that is loaded is there."""
    written = {
        name: (rng.integers(-8191, 8192, w.shape, dtype=np.int16), b)
        for name, (w, b) in board.read_weights().items()
    }
    try:
        board.write_weights(written)
    except DeviceRefused as error:
        return Result("weights", False, str(error))
    read = board.read_weights()
    wrong = sum(int(np.count_nonzero(read[k][0] != w)) for k, (w, _) in written.items())
    count = sum(w.size for w, _ in written.values())
    return Result("weights", wrong == 0, f"{count} written, {wrong} read back wrong")


def _stack(status: dict[str, int]) -> Result:
    size, used = status["stack_size"], status["stack_used"]
    if not size:
        return Result("stack", True, "this board does not watch it")
    return Result("stack", used < size, f"{used} of {size} bytes used at most")


def _memory(board: SerialDevice, status: dict[str, int]) -> Result:
    have, used = board.info.memory, status["memory_used"]
    good = used <= have == status["memory"]
    return Result("memory", good, f"{have} bytes for chip and image, {used} in use")


def _line(board: SerialDevice, status: dict[str, int]) -> Result:
    """A line that loses bytes works, yet should not."""
    here = {k: v for k, v in board.port.statistics().items() if k in FAULTS and v}
    lost, discarded = status["rx_lost"], status["discarded"]
    frames = board.port.statistics()["frames_in"]
    text = f"{frames} frames; the board lost {lost} bytes and discarded {discarded} frames"
    if here:
        text += "; here " + ", ".join(f"{name} {count}" for name, count in here.items())
    return Result("line", lost == 0 and not here, text)
