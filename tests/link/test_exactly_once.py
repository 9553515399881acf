"""Over a bad line every session ends with the digest of a good one, or with a typed error.

A session that loads, learns, adds increments and reads a digest: whatever is executed twice
or not at all changes the digest. One host process serves all sessions of a test.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fault_matrix import Script, written
from networks import random_case

from hwgle.boards import HostBoard, start_host
from hwgle.devices.emulator import Emulator
from hwgle.devices.faults import KINDS, FaultLine, Faults
from hwgle.devices.line import open_line
from hwgle.devices.messages import LAYOUTS
from hwgle.devices.port import FAST
from hwgle.devices.serial import SerialDevice
from hwgle.errors import BoardReset, SessionEnded

pytestmark = pytest.mark.board("cc")

PATIENT = replace(FAST, silent_after=5000, stalled_after=20000, open_within=10000)
WAYS = ("out", "in")
ROUNDS = 3  # as written() has them
WITHIN = 30.0  # seconds for a session with one damaged byte, on a machine that is busy


@pytest.fixture(scope="module")
def script() -> Script:
    return written(random_case(20, layers=2, neurons=6, inputs=2, batch=1, steps=24))


@pytest.fixture(scope="module")
def want(script: Script) -> int:
    with Emulator() as emulator:
        return script.play(emulator)


@pytest.fixture(scope="module")
def board() -> Iterator[HostBoard]:
    with start_host(payload=256, window=4) as running:
        yield running


def session(board: HostBoard, script: Script, faults: Faults) -> tuple[int, FaultLine]:
    """A session of its own over a line with these faults; the digest at its end."""
    line = FaultLine(open_line(board.port, 115200), faults, board.reset)
    with SerialDevice(line, "host", PATIENT) as device:
        return script.play(device), line


def frames(board: HostBoard, script: Script) -> dict[str, int]:
    """How many frames a session without faults has, each way."""
    nowhere = Faults(lose=frozenset({("out", 10**6)}))
    _, line = session(board, script, nowhere)
    return {way: line.ways[way].struck.frames for way in WAYS}


def test_the_session_is_long_enough(board: HostBoard, script: Script, want: int) -> None:
    count = frames(board, script)
    assert count["out"] >= 20
    assert session(board, script, Faults())[0] == want


def each_frame(board: HostBoard, script: Script) -> list[tuple[str, int]]:
    """Every frame of a session, the handshake and the acknowledgements too."""
    count = frames(board, script)
    return [(way, k) for way in WAYS for k in range(count[way])]


@pytest.mark.parametrize("kind", ["lose", "twice"])
def test_each_frame_lost_or_repeated_once(
    board: HostBoard, script: Script, want: int, kind: str
) -> None:
    struck = 0
    for where in each_frame(board, script):
        digest, line = session(board, script, Faults(**{kind: frozenset({where})}))
        assert digest == want, where
        struck += line.ways[where[0]].struck.faults
    assert struck > 0


def outcome(board: HostBoard, script: Script, faults: Faults) -> tuple[int | SessionEnded, int]:
    """The digest, or the error that ended the session; and how many faults struck."""
    line = FaultLine(open_line(board.port, 115200), faults, board.reset)

    def struck() -> int:
        return sum(line.ways[way].struck.faults for way in WAYS)

    try:
        with SerialDevice(line, "host", PATIENT) as device:
            return script.play(device), struck()
    except SessionEnded as error:
        return error, struck()


def test_a_reset_in_flight_at_each_frame(board: HostBoard, script: Script, want: int) -> None:
    named = resets = 0
    for where in each_frame(board, script):
        ended, _ = outcome(board, script, Faults(reset=frozenset({where})))
        if isinstance(ended, SessionEnded):
            resets += isinstance(ended, BoardReset)
            if ended.number is not None:
                named += 1
                assert ended.message in LAYOUTS, where
                assert ended.message in str(ended), where
        else:
            assert ended == want, where  # the reset came before the session, or after it
    assert resets > 0
    assert named > resets // 2  # the others had nothing under way: the handshake, the end


def random_faults(
    board: HostBoard, script: Script, want: int, rate: float, seeds: range
) -> tuple[int, int]:
    """Sessions with all kinds of random faults: how many came to their end, faults in all."""
    ended = faults = 0
    for seed in seeds:
        f = Faults(flip=rate, drop=rate / 4, dup=rate / 4, insert=rate / 4, seed=seed)
        found, struck = outcome(board, script, f)
        faults += struck
        if not isinstance(found, SessionEnded):
            assert found == want, (rate, seed)
            ended += 1
    return ended, faults


@pytest.mark.parametrize("rate", [3e-4, 1e-3])
def test_random_faults(board: HostBoard, script: Script, want: int, rate: float, seed: int) -> None:
    ended, faults = random_faults(board, script, want, rate, range(seed, seed + 8))
    assert ended == 8
    assert faults > 0


@pytest.mark.long
@pytest.mark.parametrize("rate", [1e-6, 1e-5, 1e-4, 3e-4, 1e-3])
def test_many_random_faults(board: HostBoard, rate: float, seed: int) -> None:
    case = random_case(20, layers=2, neurons=6, inputs=2, batch=1, steps=24)
    script = written(case, rounds=60 if rate < 1e-4 else ROUNDS)  # so that some strike
    with Emulator() as emulator:
        want = script.play(emulator)
    ended, faults = random_faults(board, script, want, rate, range(seed, seed + 100))
    assert ended >= 95
    assert faults > 0


@pytest.fixture(scope="module")
def short() -> Script:
    """Some 20 frames each way, and few bytes."""
    return written(random_case(20, layers=1, neurons=2, inputs=1, batch=1, steps=6), rounds=2)


def each_byte(
    board: HostBoard, script: Script, kind: str, way: str, stride: int, first: int = 0
) -> None:
    """A session for each of these offsets, in which that one byte is damaged."""
    with Emulator() as emulator:
        want = script.play(emulator)
    _, line = session(board, script, Faults())
    count = line.ways[way].struck.bytes
    assert frames(board, script)[way] >= 20
    struck, offsets = 0, range(first, count, stride)
    for at in offsets:
        begun = time.monotonic()
        aimed = {f"{kind}_at": frozenset({(way, at)})}
        digest, line = session(board, script, Faults(**aimed, seed=at))
        assert digest == want, at
        assert time.monotonic() - begun < WITHIN, at
        struck += line.ways[way].struck.faults
    # Acknowledgements join or stay apart, so that a session may end before the last offsets.
    assert struck > 0.9 * len(offsets)


def test_an_increment_applied_twice_or_never_would_show(short: Script) -> None:
    found = set()
    for times in (0, 1, 2):
        with Emulator() as emulator:
            play = replace(
                short,
                increments={k: (times * w, times * b) for k, (w, b) in short.increments.items()},
            )
            found.add(play.play(emulator))
    assert len(found) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_some_bytes_damaged_in_turn(board: HostBoard, short: Script, kind: str, way: str) -> None:
    first = 7 * KINDS.index(kind)
    each_byte(board, short, kind, way, stride=61, first=first)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_byte_damaged_in_turn(board: HostBoard, short: Script, kind: str, way: str) -> None:
    each_byte(board, short, kind, way, stride=1)
