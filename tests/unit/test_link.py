"""The link: simulated, tried exhaustively, forged (tests/c); its code, its messages."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI
from link_ends import (
    ACK,
    CSRC,
    DATA,
    DEFAULTS,
    FLAGS,
    NAK,
    ROOT,
    SOURCES,
    compiler,
    link_library,
    lose,
    make_pair,
    split,
    wire_frame,
)

TESTS_C = ROOT / "tests" / "c"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> tuple[FFI, Any]:
    return link_library(tmp_path_factory.mktemp("link"))


def run_c(tmp_path: Path, name: str, *arguments: str) -> str:
    program = tmp_path / name
    sources = [*map(str, SOURCES), str(TESTS_C / "link_world.c"), str(TESTS_C / f"{name}.c")]
    command = [compiler(), "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZE]
    subprocess.run([*command, f"-I{CSRC}", *sources, "-o", str(program)], check=True)
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- a bad line -----------------------------------------------------


def test_random_sessions_on_bad_lines(tmp_path: Path, seed: int) -> None:
    out = run_c(tmp_path, "link_sim", str(seed), "2000")
    assert int(re.findall(r"(\d+) openings", out)[0]) >= 4000
    assert int(re.findall(r"(\d+) typed ends", out)[0]) > 100


@pytest.mark.long
def test_very_many_random_sessions_on_bad_lines(tmp_path: Path, seed: int) -> None:
    run_c(tmp_path, "link_sim", str(seed + 2000), "100000")


def test_every_byte_of_a_session_faulty_and_every_moment_a_reset(tmp_path: Path) -> None:
    run_c(tmp_path, "link_exhaustive")


# --- what the code is made of -------------------------------------------------

TARGETS = [
    ("gcc", ""),
    ("clang", ""),
    ("clang", "thumbv7m-none-eabi -mcpu=cortex-m3"),
    ("clang", "riscv32-none-elf -march=rv32imac -mabi=ilp32"),
]


@pytest.mark.parametrize(("cc", "target"), TARGETS)
def test_stands_alone_without_warnings(tmp_path: Path, cc: str, target: str) -> None:
    if not shutil.which(cc):
        pytest.skip(f"no {cc}")
    known = [cc, "--print-targets"] if target else [cc, "--version"]
    known_targets = subprocess.run(known, capture_output=True, text=True).stdout
    if target and target[:5] not in known_targets:
        pytest.skip(f"this {cc} does not know {target}")
    flags = [*FLAGS, *([f"--target={target.split()[0]}", *target.split()[1:]] if target else [])]
    for source in SOURCES:
        out = tmp_path / f"{source.stem}.o"
        subprocess.run([cc, *flags, "-c", str(source), "-o", str(out)], check=True)
        if not target:
            only_what_it_needs(source, out)


def only_what_it_needs(source: Path, out: Path) -> None:
    includes = re.findall(r"#include <(.*)>", source.read_text())
    assert set(includes) <= {"stdint.h", "stddef.h"}
    symbols = subprocess.run(["nm", str(out)], capture_output=True, text=True).stdout
    for kind, name in re.findall(r" (\w) (\w+)$", symbols, flags=re.M):
        # Nothing to write to, and of a library only what compilers call by themselves.
        assert kind not in "bBdDC", f"{source.name} keeps state in {name}"
        ours = name.startswith(("link_", "frame_", "cobs_", "rto_", "crc32_"))
        assert kind != "U" or ours or name in ("memcpy", "memset")


def test_memory_is_known_and_small(c: tuple[FFI, Any]) -> None:
    for window, payload, most in [(4, 256, 3300), (2, 64, 1200)]:
        sizes = dict.fromkeys(("rx_window", "tx_window"), window)
        sizes |= dict.fromkeys(("rx_payload", "tx_payload"), payload)
        config = c[0].new("link_config *", DEFAULTS | sizes)
        assert 0 < c[1].link_bytes(config) <= most


@pytest.mark.parametrize(
    "wrong",
    [
        {"rx_window": 0}, {"rx_window": 65}, {"tx_window": 0}, {"rx_payload": 63},
        {"rx_payload": 8193}, {"tx_payload": 0}, {"first": 65536}, {"rto_initial": 5},
        {"rto_least": 0}, {"keepalive": 0}, {"silent_after": 500}, {"initiator": 2},
        {"hello_bytes": 45}, {"stalled_after": 2**30}, {"open_within": 0},
        {"rto_initial": 1001}, {"rto_most": 2**30}, {"rto_initial": 2**30, "rto_most": 2**30},
    ],
)  # fmt: skip
def test_a_configuration_that_breaks_a_limit_is_refused(
    c: tuple[FFI, Any], wrong: dict[str, int]
) -> None:
    ffi, lib = c
    config = ffi.new("link_config *", DEFAULTS | wrong)
    config.hello = hello = ffi.new("uint8_t[100]")
    assert hello
    assert lib.link_bytes(config) == 0
    out, arena = ffi.new("link_state **"), ffi.new("uint64_t[2000]")
    assert lib.link_init(arena, 16000, config, out) == lib.LINK_BAD_ARGUMENT


def test_what_is_not_there_is_refused(c: tuple[FFI, Any]) -> None:
    ffi, lib = c
    config = ffi.new("link_config *", DEFAULTS)
    out, arena = ffi.new("link_state **"), ffi.new("uint64_t[2000]")
    assert lib.link_bytes(ffi.NULL) == 0
    for given in ((ffi.NULL, 16000, config, out), (arena, 16000, config, ffi.NULL),
                  (arena, 16000, ffi.NULL, out)):  # fmt: skip
        assert lib.link_init(*given) == lib.LINK_BAD_ARGUMENT
    config.hello_bytes = 1  # and no hello
    assert lib.link_bytes(config) == 0
    config.hello_bytes = 0
    assert lib.link_init(arena, lib.link_bytes(config) - 1, config, out) == lib.LINK_NO_MEMORY
    assert lib.link_init(arena, 16000, config, out) == lib.LINK_OK


# --- messages -----------------------------------------------------------------


def test_an_acknowledgement_means_executed(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.board.auto = False
    for i in range(3):
        pair.host.send(b"%d" % i)
    pair.run(20)
    assert pair.host.confirmed == 0
    assert pair.board.message() == b"0"
    for done in (1, 2, 3):
        assert pair.board.consume()
        pair.run(10)
        assert pair.host.confirmed == done
    assert c[1].link_consumed(pair.board.link) == c[1].LINK_EMPTY


def test_slow_execution_is_neither_a_loss_nor_a_longer_round_trip(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.board.auto = False
    pair.host.send(b"slow")
    pair.run(1500)
    pair.board.consume()
    pair.run(20)
    assert pair.host.confirmed == 1
    assert pair.host.count.retransmitted == 0
    assert pair.host.count.srtt <= 6


def test_credit_holds_the_sender_back(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, board={"rx_window": 2}).connect()
    pair.board.auto = False
    while pair.host.send(b"x" * 200) == c[1].LINK_OK:
        pair.run(5)
    pair.run(1000)
    assert pair.host.send(b"x") == c[1].LINK_NO_CREDIT
    assert c[1].link_room(pair.host.link) == 0
    data = [frame for frame in pair.sent_by(0) if frame[0] == DATA]
    assert len(data) == 2
    assert pair.board.count.no_credit == 0
    pair.board.auto = True
    pair.run(50)
    assert len(pair.board.got) == 6


def test_credit_that_got_lost_is_asked_for_long_before_the_keep_alive(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, keepalive=900).connect()
    pair.board.auto = False
    for _ in range(4):
        pair.host.send(b"x")
    pair.run(8)
    lost = pair.tamper
    pair.tamper = lambda frm, wire: b"" if frm == 1 else wire
    for _ in range(4):
        pair.board.consume()
    pair.run(2)
    pair.tamper = lost
    pair.run(110)
    assert pair.host.confirmed == 4
    assert pair.host.count.probes >= 1


def test_a_gap_is_answered_by_one_nak_and_no_time_out(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, rto_least=500, rto_initial=500).connect()
    pair.tamper = lose(lambda frame: frame[0] == DATA and frame[-1] == b"1")
    for i in range(4):
        pair.host.send(b"%d" % i)
        pair.run(1)
    pair.run(25)
    assert pair.board.got == [b"0", b"1", b"2", b"3"]
    assert (pair.host.count.fast_retransmits, pair.host.count.timeouts) == (1, 0)
    assert (pair.board.count.naks, pair.board.count.gap) == (1, 2)


def test_a_lost_last_message_takes_one_time_out(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.tamper = lose(lambda frame: frame[-1] == b"last")
    pair.host.send(b"last")
    pair.run(130)
    assert pair.board.got == [b"last"]
    assert pair.host.count.timeouts == 1


def test_after_a_time_out_only_the_oldest_is_sent_until_there_is_an_answer(
    c: tuple[FFI, Any],
) -> None:
    pair = make_pair(c).connect()
    pair.tamper = lambda frm, wire: b""
    for i in range(4):
        pair.host.send(b"%d" % i)
    pair.run(150)
    pair.sent_by(0)
    pair.run(250)
    again = [frame[-1] for frame in pair.sent_by(0) if frame[0] == DATA]
    assert again == [b"0"]
    # The answer lets the others go, at once and together.
    pair.tamper = lambda frm, wire: wire
    pair.run(450)
    assert pair.board.got == [b"0", b"1", b"2", b"3"]
    pair.sent_by(0)
    for i in range(4):
        pair.host.send(b"%d" % i)
    pair.run(1)
    assert len([frame for frame in pair.sent_by(0) if frame[0] == DATA]) == 4


def test_a_repeated_message_is_counted_and_executed_once(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.tamper = lambda frm, wire: 2 * wire
    for i in range(4):
        pair.host.send(b"%d" % i)
        pair.run(10)
    assert pair.board.got == [b"0", b"1", b"2", b"3"]
    assert pair.board.count.duplicate >= 4


def test_karn_no_sample_from_a_message_sent_twice(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.tamper = lose(lambda frame: frame[-1] == b"x")
    pair.host.send(b"x")
    pair.run(150)
    assert pair.board.got == [b"x"]
    assert (pair.host.count.srtt, pair.host.count.rto) == (0, 200)
    pair.host.send(b"y")
    pair.run(10)
    assert pair.host.count.srtt in (4, 5)
    assert pair.host.count.rto == 20


def test_one_byte_of_capacity_makes_way(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    for i in range(4):
        pair.host.send(bytes([i, 0]) * 100)
    wire = b"".join(iter(lambda: pair.host.poll(pair.now, 1), b""))
    pair.board.receive(pair.now, wire)
    assert pair.board.got == [bytes([i, 0]) * 100 for i in range(4)]
    assert c[1].link_next_deadline(pair.host.link, pair.now) > 0


def test_a_message_on_its_way_out_is_not_overwritten(c: tuple[FFI, Any]) -> None:
    """The acknowledgement of a first copy comes while the second is half sent."""
    pair = make_pair(c, tx_window=1).connect()
    lib, host, board = c[1], pair.host, pair.board
    host.send(b"A" * 100)
    board.receive(pair.now, host.poll(pair.now))
    ack = board.poll(pair.now)
    half = host.poll(pair.now + 100, 50)
    assert half
    host.receive(pair.now + 100, ack)
    assert host.confirmed == 1
    assert lib.link_room(host.link) == 0
    assert host.send(b"B" * 100) == lib.LINK_NO_CREDIT
    board.receive(pair.now + 100, half + host.poll(pair.now + 100))
    assert (board.count.duplicate, board.count.bad_crc) == (1, 0)
    assert host.send(b"B" * 100) == lib.LINK_OK


def test_streaming_fills_a_line_of_1_mbaud_and_92_percent_of_it_is_payload(
    c: tuple[FFI, Any],
) -> None:
    pair = make_pair(c).connect()
    pair.rate = 100
    ends = (pair.host, pair.board)
    to_send = [300, 300]

    def stream() -> None:
        for i, end in enumerate(ends):
            while to_send[i] and end.send(bytes(to_send[i] * k % 256 for k in range(256))) == 0:
                to_send[i] -= 1

    pair.application = stream
    pair.run(50)
    before = [(end.count.bytes_out, end.count.messages_out) for end in ends]
    pair.run(700)
    for end, (bytes_before, messages_before) in zip(ends, before, strict=True):
        sent = end.count.bytes_out - bytes_before
        share = 256 * (end.count.messages_out - messages_before) / sent
        print(f"payload: {100 * share:.2f} % of the bytes, line in use {sent / 700:.1f} %")
        assert share >= 0.92
        assert sent >= 0.99 * 700 * pair.rate
    pair.run(200)
    assert [len(end.got) for end in ends] == [300, 300]


def test_noise_on_an_idle_line_costs_no_message(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.run(50)
    for end, noisy in [(0, pair.board), (1, pair.host)]:
        noisy.receive(pair.now, b"\x07noise that no delimiter ends")
        (pair.host, pair.board)[end].send(b"clear")
        pair.run(10)
        assert noisy.got == [b"clear"]
    assert pair.host.count.retransmitted + pair.board.count.retransmitted == 0


def test_a_nak_is_obeyed_once_for_each_gap(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    session, boot = split(pair.wire[0])[-1][4:6]
    pair.host.send(b"x")
    pair.host.poll(pair.now)
    nak = wire_frame(ACK, flags=NAK, credit=4, session=session, boot=boot)
    for _ in range(3):
        pair.host.receive(pair.now, nak)
        pair.host.poll(pair.now)
    assert (pair.host.count.fast_retransmits, pair.host.count.retransmitted) == (1, 1)


def test_karn_holds_for_a_message_that_was_asked_for_again_while_half_sent(
    c: tuple[FFI, Any],
) -> None:
    pair = make_pair(c).connect()
    session, boot = split(pair.wire[0])[-1][4:6]
    pair.host.send(b"x" * 100)
    pair.host.poll(pair.now, 50)
    pair.host.receive(pair.now, wire_frame(ACK, flags=NAK, credit=4, session=session, boot=boot))
    pair.host.poll(pair.now, 4096)
    pair.host.receive(pair.now + 50, wire_frame(ACK, credit=4, session=session, boot=boot, ack=1))
    assert (pair.host.confirmed, pair.host.count.srtt, pair.host.count.rto) == (1, 0, 100)


def test_a_stream_without_end_or_after_a_long_rest_is_not_stalled(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, stalled_after=300).connect()

    def always_one_under_way() -> None:
        while pair.host.send(bytes(200)) == c[1].LINK_OK:
            pass

    pair.run(1000)
    pair.tamper = lose(lambda frame: frame[0] == DATA)
    pair.host.send(b"x")
    pair.run(250)
    assert (pair.board.got, pair.host.count.timeouts) == ([b"x"], 1)
    pair.tamper = lambda frm, wire: wire
    pair.rate = 50  # one message on its way while the one before is acknowledged
    pair.application = always_one_under_way
    pair.run(1000)
    assert len(pair.host.events) == 1
    assert len(pair.board.got) > 100
