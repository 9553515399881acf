"""CRC, COBS, frames and the retransmission time-out against oracles that share no line with them.

The C of csrc/link is compiled into a library of its own (link_ends.py).
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from cffi import FFI
from link_ends import HEADER, OVERHEAD, cobs, link_library, uncobs, wire_frame

MORE, GOOD, BAD_COBS, BAD_CRC, TOO_LONG, TOO_SHORT = range(6)


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> tuple[FFI, Any]:
    return link_library(tmp_path_factory.mktemp("link"))


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


def awkward(rng: random.Random, n: int) -> bytes:
    """Bytes among which zeros, 0xff and long runs without a zero all occur."""
    zeros = rng.choice([0.0, 0.004, 0.05, 0.5, 1.0])
    return bytes(
        0 if rng.random() < zeros else rng.choice([1, 0xFE, 0xFF, rng.randrange(1, 256)])
        for _ in range(n)
    )


def encode(c: tuple[FFI, Any], pieces: list[bytes], chunk: int) -> bytes:
    ffi, lib = c
    kept = [ffi.from_buffer(piece) for piece in pieces]
    three = ffi.new("cobs_piece[3]", [(k, len(p)) for k, p in zip(kept, pieces, strict=True)])
    encoder, out, wire = ffi.new("cobs_encoder *"), ffi.new("uint8_t[]", chunk), b""
    lib.cobs_encode_start(encoder)
    while n := lib.cobs_encode(encoder, three, out, chunk):
        wire += bytes(ffi.buffer(out, n))
    return wire


def decode(c: tuple[FFI, Any], wire: bytes) -> bytes | None:
    ffi, lib = c
    decoder, out = ffi.new("cobs_decoder *"), bytearray()
    lib.cobs_decode_start(decoder)
    for byte in wire:
        if (decoded := lib.cobs_decode(decoder, byte)) >= 0:
            out.append(decoded)
    return bytes(out) if lib.cobs_decode_complete(decoder) else None


class Receiver:
    def __init__(self, c: tuple[FFI, Any], capacity: int) -> None:
        self.ffi, self.lib = c
        self.capacity = capacity
        self.room = self.ffi.new("uint8_t[]", capacity + 8)
        self.receiver = self.ffi.new("frame_receiver *")
        self.start()

    def start(self) -> None:
        self.ffi.buffer(self.room)[:] = b"\xa5" * (self.capacity + 8)
        self.lib.frame_receive_start(self.receiver, self.room, self.capacity)

    def take(self, wire: bytes) -> list[tuple[int, bytes]]:
        results = []
        for byte in wire:
            if result := self.lib.frame_receive(self.receiver, byte):
                body = bytes(self.ffi.buffer(self.room, self.receiver.n))
                results.append((result, body if result == GOOD else b""))
                assert bytes(self.ffi.buffer(self.room))[self.capacity :] == b"\xa5" * 8
                self.start()
        return results


def test_crc_is_that_of_zlib_in_any_pieces(c: tuple[FFI, Any], rng: random.Random) -> None:
    _, lib = c
    assert lib.crc32_update(0, b"123456789", 9) == 0xCBF43926
    for n in [0, 1, 2, 3, 4, 5, 255, 256, 1000]:
        data = rng.randbytes(n)
        cut = rng.randint(0, n)
        crc = lib.crc32_update(lib.crc32_update(0, data[:cut], cut), data[cut:], n - cut)
        assert crc == zlib.crc32(data)


def test_cobs_examples_of_the_paper(c: tuple[FFI, Any]) -> None:
    run = bytes(range(1, 255))
    for data, wire in [
        (b"", b"\x01"),
        (b"\0", b"\x01\x01"),
        (b"\0\0", b"\x01\x01\x01"),
        (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
        (b"\x11\0\0\0", b"\x02\x11\x01\x01\x01"),
        (run, b"\xff" + run),
        (b"\0" + run, b"\x01\xff" + run),
        (run + b"\xff", b"\xff" + run + b"\x02\xff"),
        (run + b"\0", b"\xff" + run + b"\x01\x01"),
    ]:
        assert cobs(data) == wire
        assert encode(c, [data, b"", b""], 1000) == wire
        assert decode(c, wire) == data


def test_cobs_equals_the_oracle_in_any_pieces_and_chunks(
    c: tuple[FFI, Any], rng: random.Random
) -> None:
    for n in [*range(8), *range(250, 260), *range(505, 513), 700, 1024]:
        for _ in range(6):
            data = awkward(rng, n)
            one, two = sorted((rng.randint(0, n), rng.randint(0, n)))
            wire = encode(c, [data[:one], data[one:two], data[two:]], rng.choice([1, 2, 7, 2000]))
            assert wire == cobs(data)
            assert 0 not in wire
            assert decode(c, wire) == data == uncobs(wire)


def test_cobs_refuses_what_ends_inside_a_block(c: tuple[FFI, Any], rng: random.Random) -> None:
    for n in [1, 5, 254, 300]:
        data = bytes(rng.randrange(1, 256) for _ in range(n))
        wire = cobs(data)
        for end in range(len(wire)):
            # Right behind a full block of 254 the encoding may end.
            assert (decode(c, wire[:end]) is None) == (end % 255 != 0)


def send(
    c: tuple[FFI, Any], lead: int, header: tuple[int, ...], extra: bytes, body: bytes
) -> bytes:
    ffi, lib = c
    sender, wire, out = ffi.new("frame_sender *"), b"", ffi.new("uint8_t[50]")
    kept = ffi.from_buffer(body)
    lib.frame_send_start(
        sender, lead, ffi.new("frame_header *", header), extra, len(extra), kept, len(body)
    )
    while sender.stage:
        wire += bytes(ffi.buffer(out, lib.frame_send(sender, out, 1 + len(wire) % 50)))
    return wire


def test_a_frame_is_what_the_layout_says(c: tuple[FFI, Any], rng: random.Random) -> None:
    for n in [0, 1, 20, 64, 237, 238, 239, 256, 500]:
        body, extra = awkward(rng, n), awkward(rng, rng.choice([0, 20]))
        header = (
            *(rng.randrange(256) for _ in range(4)),
            *(rng.randrange(65536) for _ in range(4)),
        )
        kind, flags, credit, held, session, boot, sequence, ack = header
        expected = wire_frame(
            kind, extra + body, flags=flags, credit=credit, held=held,
            session=session, boot=boot, sequence=sequence, ack=ack,
        )  # fmt: skip
        assert send(c, 0, header, extra, body) == expected
        assert send(c, 1, header, extra, body) == b"\0" + expected
        body = HEADER.pack(*header) + extra + body
        assert Receiver(c, len(body) + 4).take(expected) == [(GOOD, body)]
        read = c[0].new("frame_header *")
        c[1].frame_read_header(body, read)
        assert (read.type, read.flags, read.credit, read.held) == header[:4]
        assert (read.session, read.boot, read.sequence, read.ack) == header[4:]


def test_a_frame_with_256_bytes_of_payload_is_at_least_92_percent_payload(
    c: tuple[FFI, Any], rng: random.Random
) -> None:
    payloads = [bytes(256), b"\xff" * 256, rng.randbytes(256)]
    for payload in payloads:
        wire = send(c, 0, (4, 3, 255, 255, 1, 65535, 256, 257), b"", payload)
        assert len(wire) <= 275
        assert len(payload) / len(wire) >= 0.92


def test_an_aborted_frame_is_discarded_and_nothing_else(c: tuple[FFI, Any]) -> None:
    ffi, lib = c
    out = ffi.new("uint8_t[100]")
    for lead in (0, 1):
        for room in range(0, 40):
            sender = ffi.new("frame_sender *")
            lib.frame_send_start(sender, lead, ffi.new("frame_header *"), b"", 0, b"12345678", 8)
            wire = bytes(ffi.buffer(out, lib.frame_send(sender, out, room)))
            lib.frame_send_abort(sender)
            wire += bytes(ffi.buffer(out, lib.frame_send(sender, out, 100)))
            assert sender.stage == 0
            good = wire_frame(5)
            results = Receiver(c, 64).take(wire + good)
            assert results[-1][0] == GOOD
            whole = room >= lead + len(cobs(bytes(12 + 4))) + 8
            assert [r for r, _ in results[:-1]].count(GOOD) == whole


def test_every_discard_has_its_reason(c: tuple[FFI, Any]) -> None:
    receiver = Receiver(c, 64 + OVERHEAD)
    good = wire_frame(5)
    assert receiver.take(b"\0\0\0") == []
    assert [r for r, _ in receiver.take(good + b"\0" + good)] == [GOOD, GOOD]
    assert receiver.take(wire_frame(4, bytes(65))) == [(TOO_LONG, b"")]
    assert receiver.take(wire_frame(4, bytes(64)))[0][0] == GOOD
    assert receiver.take(cobs(bytes(OVERHEAD - 1)) + b"\0") == [(TOO_SHORT, b"")]
    assert receiver.take(cobs(bytes(OVERHEAD)) + b"\0") == [(BAD_CRC, b"")]
    assert receiver.take(b"\x05\x01\0") == [(BAD_COBS, b"")]
    assert receiver.take(b"\x01\0") == [(TOO_SHORT, b"")]
    flipped = bytearray(wire_frame(4, b"\1\2\3\4"))
    flipped[-4] ^= 4
    assert receiver.take(bytes(flipped)) == [(BAD_CRC, b"")]


def test_any_bytes_are_survived_and_the_next_frame_is_received(
    c: tuple[FFI, Any], rng: random.Random
) -> None:
    receiver = Receiver(c, 100)
    good = wire_frame(4, b"after the storm")
    for _ in range(300):
        noise = awkward(rng, rng.randrange(300))
        results = receiver.take(noise + b"\0" + good)
        assert results[-1] == (GOOD, uncobs(good[:-1])[:-4])
        assert all(result != GOOD for result, _ in results[:-1])


def test_a_frame_given_up_ends_when_there_is_room(c: tuple[FFI, Any]) -> None:
    """Its delimiter waits where an output has no room at all."""
    ffi, lib = c
    sender, out = ffi.new("frame_sender *"), ffi.new("uint8_t[8]")
    lib.frame_send_start(sender, 1, ffi.new("frame_header *"), ffi.NULL, 0, ffi.NULL, 0)
    assert lib.frame_send(sender, out, 0) == 0
    assert lib.frame_send(sender, out, 4) == 4
    lib.frame_send_abort(sender)
    assert lib.frame_send(sender, out, 0) == 0
    assert lib.frame_send(sender, out, 8) == 1
    assert out[0] == 0
    assert lib.frame_send(sender, out, 8) == 0


def test_a_timeout_that_is_backed_off_stays_in_range(c: tuple[FFI, Any]) -> None:
    timer = c[0].new("rto_timer *")
    c[1].rto_start(timer, 2**25, 1, 2**29)
    seen = []
    for _ in range(4):
        c[1].rto_back_off(timer)
        seen.append(timer.rto)
    assert seen == [2**26, 2**29, 2**29, 2**29]


def test_retransmission_timeout_follows_rfc_6298(c: tuple[FFI, Any], rng: random.Random) -> None:
    ffi, lib = c
    timer = ffi.new("rto_timer *")
    lib.rto_start(timer, 1000, 10, 60000)
    assert timer.rto == 1000
    srtt = rttvar = 0.0
    for i in range(400):
        r = rng.randrange(20, 400) if i < 200 else 75
        if i == 0:
            srtt, rttvar = r, r / 2
        else:
            rttvar = 0.75 * rttvar + 0.25 * abs(srtt - r)
            srtt = 0.875 * srtt + 0.125 * r
        lib.rto_sample(timer, r)
        # Whole eighths and quarters of a millisecond against real numbers.
        assert abs(timer.rto - (srtt + max(1, 4 * rttvar))) <= 8
    # A steady round trip: the deviation dies away but for what the rounding keeps.
    assert 75 <= timer.rto <= 83
    lib.rto_back_off(timer)
    lib.rto_back_off(timer)
    assert 300 <= timer.rto <= 4 * 83
    for _ in range(40):
        lib.rto_back_off(timer)
    assert timer.rto == 60000
    lib.rto_start(timer, 1000, 10, 60000)
    lib.rto_sample(timer, 0)
    assert timer.rto == 10
    lib.rto_sample(timer, 0xFFFFFFFF)
    assert timer.rto == 60000
