"""Bytes of one direction to frames, by the decoder that both ends of the link use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from hwgle._core import ffi, lib

ROOM = int(lib.LINK_MAX_PAYLOAD + lib.FRAME_OVERHEAD)
DAMAGE = {
    lib.FRAME_BAD_COBS: "ended inside a block",
    lib.FRAME_BAD_CRC: "wrong CRC",
    lib.FRAME_TOO_LONG: "too long",
    lib.FRAME_TOO_SHORT: "too short",
}


class Frame(NamedTuple):
    """A frame that arrived whole; see csrc/link/frame.h. time: of its last byte."""

    time: float
    type: int
    flags: int
    held: int
    session: int
    boot: int
    sequence: int
    ack: int
    payload: bytes


class Decoder:
    """Takes the bytes of one direction in pieces. damaged: frames that were not whole."""

    def __init__(self) -> None:
        self._receiver = ffi.new("frame_receiver *")
        self._room = ffi.new("uint8_t[]", ROOM)
        self._header = ffi.new("frame_header *")
        self.damaged: Counter[str] = Counter()
        self.bytes = 0
        self._start()

    def _start(self) -> None:
        lib.frame_receive_start(self._receiver, self._room, ROOM)

    def take(self, data: bytes, time: float) -> Iterator[Frame]:
        """Frames that these bytes complete."""
        self.bytes += len(data)
        receive, receiver, more = lib.frame_receive, self._receiver, lib.FRAME_MORE
        for byte in data:
            result = receive(receiver, byte)
            if result == more:
                continue
            if result == lib.FRAME_GOOD:
                yield self._frame(time)
            else:
                self.damaged[DAMAGE.get(result, "damaged")] += 1
            self._start()

    def _frame(self, time: float) -> Frame:
        h, n = self._header, int(self._receiver.n)
        lib.frame_read_header(self._room, h)
        payload = bytes(ffi.buffer(self._room, n))[lib.FRAME_HEADER :]
        return Frame(time, h.type, h.flags, h.held, h.session, h.boot, h.sequence, h.ack, payload)
