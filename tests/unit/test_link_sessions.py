"""Sessions of the link: how they begin, how they end, and that no other one gets in."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from cffi import FFI
from link_ends import (
    ACK,
    CLOSE,
    DATA,
    RESET,
    SYN,
    SYN_ACK,
    End,
    Pair,
    link_library,
    make_pair,
    split,
    wire_frame,
)


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> tuple[FFI, Any]:
    return link_library(tmp_path_factory.mktemp("link"))


# --- the handshake ------------------------------------------------------------


def test_each_end_learns_the_limits_of_the_other(c: tuple[FFI, Any]) -> None:
    small = {"rx_payload": 64, "rx_window": 2, "tx_payload": 100, "keepalive": 100}
    pair = make_pair(c, board=small).connect()
    host, board, lib = pair.host, pair.board, c[1]
    peer = lib.link_peer(host.link)
    assert bytes(c[0].buffer(peer.hello, peer.hello_bytes)) == b"board \0 1.0"
    assert (peer.boot, peer.rx_window, peer.version) == (0xABCD4321, 2, lib.LINK_VERSION)
    assert lib.link_peer(board.link).boot == 0x12345678
    assert (lib.link_largest(host.link), lib.link_largest(board.link)) == (64, 100)
    assert host.send(bytes(65)) == lib.LINK_TOO_LONG
    assert host.events == board.events == [(lib.LINK_OPENED, 0, 0, 0)]
    # The shorter keep-alive holds for both.
    frames = host.count.frames_out
    pair.run(1000)
    assert 9 <= host.count.frames_out - frames <= 11


def test_a_mismatch_is_refused_before_anything_changes(c: tuple[FFI, Any]) -> None:
    lib = c[1]
    pair = make_pair(c).connect()
    pair.host.send(b"running")
    pair.run(10)
    stranger = Pair(End(c, initiator=1, boot=5, protocol=8), pair.board, now=pair.now)
    lib.link_open(stranger.host.link, stranger.now)
    stranger.run(10)
    assert stranger.host.events == [(lib.LINK_REFUSED, lib.LINK_BY_PEER, 0, 0)]
    assert lib.link_peer(stranger.host.link).protocol == 7
    assert pair.board.count.refused == 1
    # The session that ran goes on as if nothing had been.
    pair.now = stranger.now
    pair.host.send(b"on")
    pair.run(10)
    assert pair.board.got == [b"running", b"on"]
    assert len(pair.board.events) == len(pair.host.events) == 1


def test_the_opening_end_refuses_too(c: tuple[FFI, Any]) -> None:
    lib = c[1]
    host = End(c, initiator=1, boot=0x00050000)
    lib.link_open(host.link, 0)
    host.poll(0)
    hello = b"\2\0" + b"\0\1" + b"\7\0\0\0" + bytes(12)  # version 2
    host.receive(1, wire_frame(SYN_ACK, hello, session=6, boot=9))
    assert host.events == [(lib.LINK_REFUSED, lib.LINK_BY_US, 0, 0)]
    assert lib.link_peer(host.link).version == 2


def test_a_hello_that_breaks_a_limit_is_counted_and_not_answered(c: tuple[FFI, Any]) -> None:
    def hello(payload: int = 256, window: int = 4, keepalive: int = 250, more: int = 0) -> bytes:
        fixed = struct.pack("<HHIIHBBI", 1, payload, 7, 9, 0, window, 0, keepalive)
        return fixed + bytes(more)

    board = End(c, boot=5)
    wrong = [hello()[:-1], hello(more=45), hello(payload=63), hello(payload=8193)]
    wrong += [hello(window=0), hello(window=65), hello(keepalive=0), hello(keepalive=2**30)]
    for k, payload in enumerate(wrong):
        board.receive(k, wire_frame(SYN, payload, session=6))
        assert board.count.bad_hello == k + 1
        assert board.poll(k) == b""
    board.receive(9, wire_frame(SYN, hello(more=44), session=6))
    assert board.poll(9) != b""


def test_a_syn_that_comes_late_or_twice_harms_no_session(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    syn = b"\0".join(pair.wire[0].split(b"\0")[:2]) + b"\0"
    assert split(syn)[0][0] == SYN
    pair.host.send(b"one")
    pair.run(10)
    other = End(c, initiator=1, boot=0x77777777)
    c[1].link_open(other.link, 0)
    for late in (syn, other.poll(0), syn):
        pair.line.append((pair.now, 1, late))
        pair.run(20)
        pair.host.send(b"more")
        pair.run(20)
    assert pair.board.got == [b"one"] + 3 * [b"more"]
    assert len(pair.board.events) == len(pair.host.events) == 1


def test_a_lost_first_frame_is_made_up_for_before_the_keep_alive(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, rto_initial=30)
    dropped = []

    def drop_first_ack(frm: int, wire: bytes) -> bytes:
        if frm == 0 and not dropped and split(wire)[0][0] == ACK:
            dropped.append(wire)
            return b""
        return wire

    pair.tamper = drop_first_ack
    c[1].link_open(pair.host.link, pair.now)
    pair.run(60)
    assert dropped
    assert pair.board.open


def test_silence_ends_an_attempt(c: tuple[FFI, Any]) -> None:
    lib = c[1]
    host = End(c, initiator=1)
    lib.link_open(host.link, 50)
    times = [now for now in range(50, 2000) if host.poll(now)]
    assert times[:4] == [50, 150, 350, 750]  # backing off from rto_initial
    assert host.events == [(lib.LINK_LOST, lib.LINK_NO_ANSWER, 0, 0)]
    assert lib.link_next_deadline(host.link, 2000) == lib.LINK_NEVER
    assert lib.link_open(host.link, 2000) == lib.LINK_OK


# --- ends ---------------------------------------------------------------------


def reboot(c: tuple[FFI, Any], pair: Pair, boot: int = 0x9999) -> None:
    pair.board = End(c, b"board \0 1.0", boot=boot)


@pytest.mark.parametrize("boot", [0x9999, 0xABCD4321], ids=["another boot id", "the same boot id"])
def test_a_reset_is_told_within_one_round_trip_of_traffic(c: tuple[FFI, Any], boot: int) -> None:
    pair = make_pair(c).connect()
    lib = c[1]
    for i in range(3):
        pair.host.send(b"%d" % i)
        pair.run(10)
    reboot(c, pair, boot)
    pair.host.send(b"unconfirmed")
    pair.host.send(b"as well")
    pair.run(2 * pair.latency + 2)
    assert pair.host.events[1:] == [(lib.LINK_RESET, lib.LINK_NO_SUCH_SESSION, 3, 5)]
    assert pair.board.got == []
    assert pair.host.send(b"x") == lib.LINK_NOT_OPEN


def test_an_idle_link_costs_keep_alives_and_sees_a_reset_at_the_next(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.run(100)
    before = [end.count.bytes_out for end in (pair.host, pair.board)]
    pair.run(10_000)
    for end, was in zip((pair.host, pair.board), before, strict=True):
        assert 38 * 18 <= end.count.bytes_out - was <= 41 * 20
    reboot(c, pair)
    pair.run(250 + 2 * pair.latency + 2)
    assert pair.host.events[-1][:2] == (c[1].LINK_RESET, c[1].LINK_NO_SUCH_SESSION)


def test_the_clock_may_wrap(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c)
    pair.now = 2**32 - 300
    pair.connect()
    for _ in range(500):
        pair.run(10)
        # A deadline on the far side of the wrap is neither now nor never.
        wait = c[1].link_next_deadline(pair.host.link, pair.now % 2**32)
        assert wait <= 250
        assert wait > 0 or pair.now % 250 < 20 or pair.host.poll(pair.now)
    assert pair.host.open
    assert pair.board.open


def test_a_silent_peer_is_lost_on_both_sides(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, board={"silent_after": 700}).connect()
    lib = c[1]
    pair.host.send(b"done")
    pair.run(10)
    pair.tamper = lambda frm, wire: b""
    pair.host.send(b"lost")
    pair.run(690)
    assert pair.board.open
    pair.run(20)
    assert pair.board.events[1:] == [(lib.LINK_LOST, lib.LINK_SILENT, 0, 0)]
    pair.run(1290)
    assert pair.host.events[1:] == [(lib.LINK_LOST, lib.LINK_SILENT, 1, 2)]


def test_a_peer_that_lives_but_gets_no_message_is_lost(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    pair.tamper = lambda frm, wire: b"" if frm == 0 and b"poison" in wire else wire
    pair.host.send(b"poison")
    pair.run(5100)
    assert pair.host.events[1:] == [(c[1].LINK_LOST, c[1].LINK_STALLED, 0, 1)]


def test_close_tells_the_peer_and_names_what_is_unconfirmed(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    lib = c[1]
    pair.host.send(b"in time")
    pair.run(10)
    pair.host.send(b"too late")
    assert lib.link_close(pair.host.link) == lib.LINK_OK
    assert lib.link_close(pair.host.link) == lib.LINK_NOT_OPEN
    pair.run(10)
    assert pair.host.events[1:] == [(lib.LINK_CLOSED, lib.LINK_BY_US, 1, 2)]
    assert pair.board.events[1:] == [(lib.LINK_CLOSED, lib.LINK_BY_PEER, 0, 0)]
    pair.connect()
    pair.host.send(b"again")
    pair.run(10)
    assert pair.board.got == [b"in time", b"again"]


def test_a_new_session_waits_for_the_message_that_is_being_executed(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    lib = c[1]
    pair.board.auto = False
    for i in range(3):
        pair.host.send(b"old %d" % i)
    pair.run(10)
    assert pair.board.message() == b"old 0"
    lib.link_close(pair.host.link)
    pair.run(5)
    lib.link_open(pair.host.link, pair.now)
    pair.run(10)
    pair.host.send(b"new")
    pair.run(1500)
    assert pair.host.open, "an executing board answers, so it is not lost"
    assert not pair.board.open
    assert pair.board.message() == b"old 0"
    assert pair.host.count.frames_in < 40, "and they do not answer each other for ever"
    pair.board.consume()
    pair.run(1000)
    assert pair.board.open
    assert pair.board.message() == b"new"
    assert pair.board.count.messages_abandoned == 2


def test_frames_of_other_sessions_and_boots_are_counted_and_answered(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    board = pair.board
    session, boot = split(pair.wire[0])[-1][4:6]
    for kind, where in [(DATA, (session ^ 1, boot)), (DATA, (session, boot ^ 1))]:
        board.receive(
            pair.now, wire_frame(kind, b"stray", session=where[0], boot=where[1], credit=4)
        )
        answer = split(board.poll(pair.now))
        assert [(a[0], *a[4:6]) for a in answer] == [(RESET, *where)]
    for kind in (RESET, CLOSE):
        board.receive(pair.now, wire_frame(kind, session=session ^ 1, boot=boot))
        board.receive(pair.now, wire_frame(kind, session=session, boot=boot ^ 1))
    assert board.poll(pair.now) == b""
    assert (board.count.wrong_session, board.count.wrong_boot) == (3, 3)
    assert board.open
    assert board.got == []


def test_an_acknowledgement_of_what_was_never_sent_is_refused(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c).connect()
    session, boot = split(pair.wire[0])[-1][4:6]
    pair.host.send(b"x")
    pair.host.poll(pair.now)
    for bad in [{"ack": 2}, {"ack": 1, "held": 1}, {"held": 2}, {"credit": 5}, {"ack": 0x7FFF}]:
        pair.host.receive(pair.now, wire_frame(ACK, session=session, boot=boot, **bad))
    assert pair.host.count.bad_ack == 5
    assert pair.host.confirmed == 0
    pair.host.receive(pair.now, wire_frame(ACK, session=session, boot=boot, ack=1, credit=4))
    assert pair.host.confirmed == 1


def test_more_than_there_is_credit_for_is_counted_and_not_kept(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c, board={"rx_window": 1}).connect()
    pair.board.auto = False
    session, boot = split(pair.wire[0])[-1][4:6]
    for i in range(3):
        pair.board.receive(
            pair.now, wire_frame(DATA, b"%d" % i, session=session, boot=boot, sequence=i, credit=4)
        )
    pair.board.receive(
        pair.now, wire_frame(DATA, session=session, boot=boot, sequence=900, credit=4)
    )
    count = pair.board.count
    assert (count.no_credit, count.gap, count.out_of_window) == (1, 1, 1)
    assert pair.board.message() == b"0"


def test_a_whole_session_played_again_executes_nothing(c: tuple[FFI, Any]) -> None:
    """A SYN and the messages behind it, repeated by the line after the session."""
    pair = make_pair(c).connect()
    pair.host.send(b"once")
    pair.run(10)
    c[1].link_close(pair.host.link)
    pair.run(10)
    assert pair.board.got == [b"once"]
    recorded = pair.wire[0]
    assert [frame[0] for frame in split(recorded)].count(DATA) == 1
    for _ in range(3):
        for part in filter(None, recorded.split(b"\0")):
            pair.board.receive(pair.now, b"\0" + part + b"\0")
            pair.board.poll(pair.now)
    assert pair.board.got == [b"once"]
    assert len(pair.board.events) == 2
    pair.connect()
    pair.host.send(b"twice")
    pair.run(10)
    assert pair.board.got == [b"once", b"twice"]


def test_a_frame_that_is_half_sent_ends_with_its_session(c: tuple[FFI, Any]) -> None:
    """Its payload lies in a buffer that the next session fills anew."""
    pair = make_pair(c).connect()
    lib, host = c[1], pair.host
    host.send(b"A" * 200)
    half = host.poll(pair.now, 50)
    lib.link_close(host.link)
    host.take_events()
    lib.link_open(host.link, pair.now)
    rest = host.poll(pair.now)
    assert b"A" not in rest
    assert [frame[0] for frame in split(rest[1:])] == [CLOSE, SYN]
    pair.line.append((pair.now, 1, half + rest))
    pair.run(20)
    assert host.open
    assert pair.board.got == []
    assert pair.board.count.bad_cobs + pair.board.count.bad_crc == 1
    host.send(b"B")
    pair.run(20)
    assert (pair.board.got, host.confirmed, host.count.retransmitted) == ([b"B"], 1, 0)


def test_each_copy_of_a_syn_gets_the_same_answer(c: tuple[FFI, Any]) -> None:
    """Whichever answer arrives, it opens the session."""
    pair = make_pair(c)
    c[1].link_open(pair.host.link, pair.now)
    syn = pair.host.poll(pair.now)
    answers = []
    for _ in range(3):
        pair.board.receive(pair.now, syn)
        answers.append(pair.board.poll(pair.now))
    assert answers[0] == answers[1] == answers[2]
    pair.host.receive(pair.now, answers[0])
    pair.board.receive(pair.now, pair.host.poll(pair.now))
    assert pair.board.open


def test_each_session_has_a_nak_of_its_own(c: tuple[FFI, Any]) -> None:
    pair = make_pair(c)
    for session in (1, 2):
        pair.connect()
        pair.board.receive(pair.now, b"damaged\0")
        pair.run(3)
        assert pair.board.count.naks == session
        c[1].link_close(pair.host.link)
        pair.run(5)


def test_events_that_nobody_reads_hold_back_sessions_and_are_never_lost(c: tuple[FFI, Any]) -> None:
    lib = c[1]
    pair = make_pair(c)
    take, pair.board.take_events = pair.board.take_events, lambda: None
    for _ in range(4):
        lib.link_open(pair.host.link, pair.now)
        pair.run(20)
        lib.link_close(pair.host.link)
        pair.run(20)
    assert pair.board.count.busy > 0
    take()
    kinds = [event[0] for event in pair.board.events]
    assert kinds == [lib.LINK_OPENED, lib.LINK_CLOSED] * 2
    pair.connect()
