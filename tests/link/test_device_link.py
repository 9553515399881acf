"""A device behind the link: in order, once, held back where there is no room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from device_cases import Run, emulator, run_of, same_records, same_state
from device_ends import (
    UHAT,
    Board,
    Message,
    block_came,
    block_messages,
    image_messages,
    pack,
    set_of,
    unpack,
)
from hwgle._core import ffi, lib


def end_of(initiator: int, window: int, payload: int, boot: int, **more: int) -> tuple[Any, Any]:
    config = ffi.new("link_config *", {
        "initiator": initiator, "boot": boot, "protocol": lib.message_list_crc(),
        "rx_window": window, "rx_payload": payload, "tx_window": window, "tx_payload": payload,
        "rto_initial": 60, "rto_least": 20, "rto_most": 1000, "keepalive": 250,
        "silent_after": 2000, "stalled_after": 60000, "open_within": 1000,
    } | more)  # fmt: skip
    need = lib.link_bytes(config)
    arena = ffi.new("uint64_t[]", (need + 7) // 8)
    out = ffi.new("link_state **")
    assert lib.link_init(arena, need, config, out) == lib.LINK_OK
    return out[0], (config, arena)


@dataclass
class Desk:
    """A host's link, a line, a board's link and its device; the clock is a number."""

    board: Board
    window: int = 4
    payload: int = 256
    board_window: int = 4
    lose: Callable[[int, bytes], bytes] = lambda _, wire: wire
    polls: int = 3  # of the device in a millisecond
    now: int = 1000
    got: list[Message] = field(default_factory=list)
    reading: bool = True
    waited: int = 0
    events: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host, self._keep = end_of(1, self.window, self.payload, 1)
        self.link, self._kept = end_of(0, self.board_window, self.payload, 0xB0A2D)
        self.wires = [b"", b""]
        self.open()

    def open(self) -> None:
        assert lib.link_open(self.host, self.now) == lib.LINK_OK
        self.run(50)
        assert lib.link_is_open(self.host)

    def poll(self, link: Any) -> bytes:
        out = ffi.new("uint8_t[]", 4096)
        return bytes(ffi.buffer(out, lib.link_poll(link, self.now, out, 4096)))

    def read(self) -> None:
        at, n = ffi.new("const uint8_t **"), ffi.new("size_t *")
        while self.reading and lib.link_message(self.host, at, n) == lib.LINK_OK:
            self.got.append(unpack(bytes(ffi.buffer(at[0], n[0]))))
            lib.link_consumed(self.host)
        event = ffi.new("link_event *")
        while lib.link_next_event(self.host, event) == lib.LINK_OK:
            self.events.append(event.kind)

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.now += 1
            to_board, to_host = self.wires
            lib.link_receive(self.link, self.now, to_board, len(to_board))
            for _ in range(self.polls):
                progress = lib.device_poll(self.board.device, self.link)
                self.waited += progress == lib.DEVICE_WAITS
                if progress != lib.DEVICE_BUSY:
                    break
            lib.link_receive(self.host, self.now, to_host, len(to_host))
            self.read()
            self.wires = [
                self.lose(0, self.poll(self.host)), self.lose(1, self.poll(self.link))
            ]  # fmt: skip

    def send(self, messages: list[bytes], patience: int = 60000) -> None:
        for message in messages:
            while (status := lib.link_send(self.host, message, len(message), ffi.NULL)) != 0:
                assert status == lib.LINK_NO_CREDIT, status
                patience -= 1
                assert patience
                self.run(1)

    def all(self, messages: list[bytes]) -> list[Message]:
        """What came back until all is executed."""
        self.got = []
        self.send([*messages, pack("SYNC", cookie=77)])
        for _ in range(60000):
            self.run(1)
            if self.got and self.got[-1].name == "SYNCED":
                break
        assert self.got[-1].fields == {"cookie": 77}
        assert all(m.name != "REFUSED" for m in self.got), self.got
        return self.got[:-1]


def loaded(desk: Desk, run: Run) -> Desk:
    desk.all(image_messages(run.image, run.batch, UHAT, desk.payload))
    desk.all(set_of(run.image, run.weights, desk.payload))
    return desk


def faults(seed: int, chance: float) -> Callable[[int, bytes], bytes]:
    rng = np.random.default_rng(seed)

    def lose(_: int, wire: bytes) -> bytes:
        if not wire or rng.random() >= chance:
            return wire
        kind, at = int(rng.integers(4)), int(rng.integers(len(wire)))
        flipped = wire[:at] + bytes([wire[at] ^ 1 << int(rng.integers(8))]) + wire[at + 1 :]
        return [b"", wire[:at], wire + wire, flipped][kind]

    return lose


@pytest.mark.parametrize("chance", [0.0, 0.1])
@pytest.mark.parametrize(("payload", "window"), [(64, 1), (64, 4), (256, 8)])
def test_blocks_over_a_line(payload: int, window: int, chance: float, seed: int) -> None:
    """Records, votes and digests are the emulator's, whatever the line does."""
    run = run_of(seed + payload + window, batch=2)
    rng = np.random.default_rng(seed)
    board = Board(payload=payload)
    desk = Desk(board, window=window, board_window=window, payload=payload)
    desk.lose = faults(seed, chance)
    loaded(desk, run)
    with emulator(run) as chip:
        for first in (0, 8):
            record = run.pairs()[: (payload - 6) // 2]
            block = run.block(first, first + 8, learn=True, ranging=True, votes=True, record=record)
            got = desk.all(block_messages(block, rng, payload))
            same_records(block_came(got, block, run.image, run.batch), chip.run(block), run.case)
        same_state(board, chip, run)
    board.check_guards()


def test_no_room_holds_everything_back_and_loses_nothing(seed: int) -> None:
    """A host that does not read: the board stops, and goes on where it was."""
    run = run_of(seed + 9, batch=2)
    rng = np.random.default_rng(seed)
    board = Board(payload=64)
    desk = loaded(Desk(board, payload=64, board_window=2), run)
    block = run.block(0, 8, learn=True, votes=True, record=run.pairs()[:20])
    messages = block_messages(block, rng, 64)
    desk.got, desk.reading, desk.waited = [], False, 0
    while lib.link_send(desk.host, messages[0], len(messages[0]), ffi.NULL) == lib.LINK_OK:
        messages.pop(0)
    desk.run(300)
    assert desk.waited > 100
    before = board.digest()
    desk.run(300)
    assert board.digest() == before
    desk.reading = True
    got = desk.all(messages)
    with emulator(run) as chip:
        same_records(block_came(got, block, run.image, run.batch), chip.run(block), run.case)
        same_state(board, chip, run)


@pytest.mark.parametrize("room", [1, 2, 3])
def test_sends_that_fail_at_every_place(room: int, seed: int) -> None:
    """`send` refuses again and again: the same messages come, each step runs once."""
    run = run_of(seed + 12, batch=2)
    rng = np.random.default_rng(seed)
    messages = [
        *image_messages(run.image, run.batch, UHAT), *set_of(run.image, run.weights),
        *block_messages(run.block(0, 6, votes=True, record=run.pairs()), rng),
        pack("DIGEST"), pack("SNAPSHOT_READ"), pack("COUNTERS", layer=0), b"\xff", pack("ECHO"),
    ]  # fmt: skip
    plain, slow = Board(payload=100), Board(payload=100)
    want = [m for message in messages for m in plain.raw(message)]
    got = []
    for message in messages:
        slow.out = []
        slow.room = 0
        while (progress := slow.once(message)) != lib.DEVICE_IDLE:
            if progress == lib.DEVICE_WAITS:
                assert slow.once(message) == lib.DEVICE_WAITS  # asking again changes nothing
                slow.room = int(rng.integers(1, room + 1))
        got += slow.out
    assert got == want


def test_one_step_a_call(seed: int) -> None:
    run = run_of(seed + 13, batch=1)
    board = Board()
    board.all(image_messages(run.image, run.batch, 0, 2000))
    size = 2 * run.case.network.inputs
    board.do("BLOCK", steps=5, flags=0)
    message = pack("STEPS", bytes(5 * size))
    for k in range(1, 6):
        progress = board.once(message)
        assert lib.gle_steps(board.chip) == k
        assert progress == (lib.DEVICE_BUSY if k < 5 else lib.DEVICE_IDLE)


@pytest.mark.parametrize("how", ["close", "silence", "new session"])
def test_the_end_of_a_session_forgets_what_was_half_sent(how: str, seed: int) -> None:
    run = run_of(seed + 14, batch=2)
    rng = np.random.default_rng(seed)
    board = Board()
    desk = loaded(Desk(board), run)
    with emulator(run) as chip:
        block = run.block(0, 6, learn=True, record=[(0, "u")])
        desk.send(block_messages(block, rng)[:4])
        desk.all([])  # ends in a SYNC, but the steps that were there stay
        done = lib.gle_steps(board.chip)
        chip.run(run.block(0, done, learn=True))
        same_state(board, chip, run)
        layer = run.case.network.layers[0]
        desk.send([
            pack("TAMPER", step=done, layer=0, signal=1, index=0, bit=5),
            pack("WEIGHTS_BEGIN"), pack("BIAS_DATA", [1] * layer.size, layer=0, first=0), b"\xff",
        ])  # fmt: skip
        desk.run(20)
        if how == "close":
            lib.link_close(desk.host)
            desk.run(20)
        elif how == "silence":
            desk.lose = lambda _, wire: b""
            desk.run(5000)
            desk.lose = lambda _, wire: wire
        else:
            desk.host, desk._keep = end_of(1, 4, 256, 2)
        desk.open()
        got = desk.all([pack("ECHO", b"again")])  # no longer passed over
        assert [m.name for m in got] == ["ECHOED"]
        desk.send([pack("BIAS_DATA", [1], layer=0, first=0)])
        desk.run(20)
        assert desk.got[-1].name == "REFUSED"
        assert (desk.got[-1].number, desk.got[-1].reason) == (2, lib.REASON_ORDER)
        desk.all([])
        same_state(board, chip, run)
        more = run.block(done, done + 3, learn=True)
        desk.all(block_messages(more, rng))
        chip.run(more)
        same_state(board, chip, run)


def test_messages_of_a_session_that_ended_are_counted_not_executed(seed: int) -> None:
    run = run_of(seed + 15, batch=1)
    board = Board()
    desk = loaded(Desk(board), run)
    before = board.digest()
    desk.polls = 0
    add = pack("BIAS_ADD", [5], layer=0, first=0)
    desk.send([add, add])
    desk.run(10)
    lib.link_close(desk.host)
    desk.run(10)
    desk.polls = 3
    desk.run(10)
    assert board.digest() == before
    assert board.do("STATUS")[0].discarded == 2
    desk.open()


def test_the_message_fits_what_the_host_takes(seed: int) -> None:
    """A board of large messages behind a host of small ones."""
    run = run_of(seed + 16, batch=2)
    board = Board(payload=1000)
    desk = Desk(board, payload=64)
    desk.link, desk._kept = end_of(0, 4, 1000, 0xB0B)
    desk.host, desk._keep = end_of(1, 4, 64, 3)
    desk.open()
    loaded(desk, run)
    rng = np.random.default_rng(seed)
    with emulator(run) as chip:
        block = run.block(0, 6, learn=True, votes=True, record=run.pairs()[:20])
        got = desk.all(block_messages(block, rng, 64))
        same_records(block_came(got, block, run.image, run.batch), chip.run(block), run.case)
    desk.send([pack("ECHO", bytes(63))])
    assert len(desk.all([])[0].tail) == 63


def test_formats_must_fit_what_another_host_takes() -> None:
    """A deep network stays loaded when a host of small messages comes; its blocks are refused."""
    deep = (run_of(k, layers=40, neurons=3) for k in range(100))
    many = next(r for r in deep if len(r.case.network.layers) > 29)
    layers = len(many.case.network.layers)
    desk = loaded(Desk(Board()), many)
    desk.host, desk._keep = end_of(1, 4, 64, 3)
    desk.open()
    desk.got = []
    desk.send([pack("BLOCK", steps=1, flags=0)])
    desk.run(20)
    (refused,) = desk.got
    assert (refused.name, refused.need, refused.have) == ("REFUSED", 5 + 2 * layers, 64)
    assert refused.reason == lib.REASON_TOO_LONG


def test_status_tells_what_the_link_sent_again(seed: int) -> None:
    lost = []

    def lose_one(way: int, wire: bytes) -> bytes:
        if way == 1 and len(wire) > 30 and not lost:
            lost.append(wire)
            return b""
        return wire

    desk = Desk(Board())
    (status,) = desk.all([pack("STATUS")])
    assert status.retransmitted == 0
    desk.lose = lose_one
    desk.all([pack("ECHO", bytes(100))])
    assert lost
    (status,) = desk.all([pack("STATUS")])
    assert status.retransmitted >= 1
