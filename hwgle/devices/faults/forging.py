"""Frames as somebody else would write them: a board with other firmware, a second host.

Only what the handshake shows is touched; see csrc/link/frame.h and hello.c for the bytes.
"""

from __future__ import annotations

import struct
import zlib

from hwgle.devices.faults.options import Faults

HEADER = struct.Struct("<BBBBHHHH")  # type flags credit held session boot sequence ack
SYN, SYN_ACK, REFUSED, ACK = 1, 2, 3, 5
PROBE = 2
HELLO_LEAST = 20
OTHER_SESSION = 0x5A5A  # of the intruder: ours, changed by these bits


def unstuffed(frame: bytes) -> bytes | None:
    """What a COBS frame holds, without its CRC; None if it is damaged or too short."""
    out, at = bytearray(), 0
    while at < len(frame):
        code = frame[at]
        if code == 0 or at + code > len(frame):
            return None
        out += frame[at + 1 : at + code]
        at += code
        if code < 255 and at < len(frame):
            out.append(0)
    body, crc = bytes(out[:-4]), out[-4:]
    if len(body) < HEADER.size or struct.pack("<I", zlib.crc32(body)) != crc:
        return None
    return body


def stuffed(body: bytes) -> bytes:
    """The frame of these bytes and their CRC, with its delimiter."""
    out = bytearray()
    blocks = (body + struct.pack("<I", zlib.crc32(body))).split(b"\0")
    for k, block in enumerate(blocks):
        while len(block) > 254:
            out += b"\xff" + block[:254]
            block = block[254:]
        if len(block) == 254:
            out += b"\xff" + block
            if k + 1 < len(blocks):
                out.append(1)
        else:
            out += bytes([len(block) + 1]) + block
    return bytes(out) + b"\0"


class OtherFirmware:
    """Rewrites what the board's HELLO says of its version and its list of messages."""

    def __init__(self, faults: Faults) -> None:
        self._messages, self._version = faults.messages, faults.version
        self._part = bytearray()

    def carry(self, data: bytes) -> bytes:
        """Bytes from the board."""
        self._part += data
        *whole, rest = bytes(self._part).split(b"\0")
        self._part = bytearray(rest)
        return b"".join(self._one(frame) for frame in whole)

    def _one(self, frame: bytes) -> bytes:
        body = unstuffed(frame)
        if body is None or body[0] not in (SYN_ACK, REFUSED):
            return frame + b"\0"
        hello = bytearray(body[HEADER.size :])
        if len(hello) >= HELLO_LEAST:
            if self._version is not None:
                struct.pack_into("<H", hello, 0, self._version)
            if self._messages is not None:
                struct.pack_into("<I", hello, 4, self._messages)
        return stuffed(body[: HEADER.size] + bytes(hello))


class Intruder:
    """A second host on the port: opens a session of its own when it is told to.

    It hears what the board says to both, as anybody on the same port does.
    """

    def __init__(self) -> None:
        self._syn: bytes | None = None
        self._session: int | None = None
        self._part = {"out": bytearray(), "in": bytearray()}

    def hear(self, way: str, data: bytes) -> bytes:
        """What it says to the board after these bytes."""
        part = self._part[way]
        part += data
        *whole, rest = bytes(part).split(b"\0")
        self._part[way] = bytearray(rest)
        said = b""
        for frame in whole:
            body = unstuffed(frame)
            if body is None:
                continue
            kind, _, _, _, session, boot, _, _ = HEADER.unpack_from(body)
            if kind == SYN:
                self._syn = body
            elif kind == SYN_ACK and session == self._session:
                header = HEADER.pack(ACK, PROBE, 1, 0, session, boot, 0, 0)
                said += b"\0" + stuffed(header)
        return said

    def open(self) -> bytes:
        """Its SYN."""
        if self._syn is None:
            return b""
        head = list(HEADER.unpack_from(self._syn))
        head[4] ^= OTHER_SESSION
        self._session = head[4]
        hello = bytearray(self._syn[HEADER.size :])
        hello[8:12] = bytes(b ^ 0xFF for b in hello[8:12])  # another host has another boot id
        return b"\0" + stuffed(HEADER.pack(*head) + bytes(hello))
