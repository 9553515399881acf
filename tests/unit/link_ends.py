"""The link for tests: its C as a library, an oracle for its frames, two ends with a line.

The oracle shares no line with the C; the clock is a number.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc" / "link"
SOURCES = sorted(CSRC.glob("*.c"))
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
FLAGS = ["-std=c11", "-O2", "-ffreestanding", *WARNINGS]
HEADER = struct.Struct("<BBBBHHHH")
OVERHEAD = HEADER.size + 4
SYN, SYN_ACK, REFUSED, DATA, ACK, RESET, CLOSE = range(1, 8)
NAK = 1  # a flag
DEFAULTS: dict[str, int] = {
    "rx_window": 4, "rx_payload": 256, "tx_window": 4, "tx_payload": 256,
    "rto_initial": 100, "rto_least": 20, "rto_most": 1000, "keepalive": 250,
    "silent_after": 2000, "stalled_after": 5000, "open_within": 1000, "protocol": 7,
}  # fmt: skip


def compiler() -> str:
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    assert found, "no C compiler, yet hwgle was built"
    return found


def declarations(*headers: str) -> str:
    """The headers as cffi reads them: no comments, no preprocessor but plain numbers."""
    text = "\n".join((CSRC / header).read_text() for header in headers)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"^#(?!define \w+ (\d+|0x[0-9a-f]+) *$).*$", "", text, flags=re.M)
    return text


def link_library(directory: Path) -> tuple[FFI, Any]:
    path = directory / "link.so"
    if built := os.environ.get("HWGLE_LINK_LIBRARY"):  # one that counts its branches
        path = Path(built)
    else:
        command = [compiler(), *FLAGS, "-fPIC", "-shared", *map(str, SOURCES), "-o", str(path)]
        subprocess.run(command, check=True)
    ffi = FFI()
    ffi.cdef(declarations("crc32.h", "cobs.h", "frame.h", "rto.h", "link.h"))
    return ffi, ffi.dlopen(str(path))


def cobs(data: bytes) -> bytes:
    """Each run up to a zero as its length plus one and itself; 254 bytes need no zero."""
    out = b""
    while True:
        run, zero, rest = data.partition(b"\0")
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
            if not run and not zero:
                return out
        out += bytes([len(run) + 1]) + run
        if not zero:
            return out
        data = rest


def uncobs(data: bytes) -> bytes:
    out, at = b"", 0
    while at < len(data):
        code = data[at]
        assert code > 0
        assert at + code <= len(data)
        out += data[at + 1 : at + code]
        at += code
        if code < 255 and at < len(data):
            out += b"\0"
    return out


def wire_frame(
    kind: int,
    payload: bytes = b"",
    *,
    flags: int = 0,
    credit: int = 0,
    held: int = 0,
    session: int = 0,
    boot: int = 0,
    sequence: int = 0,
    ack: int = 0,
) -> bytes:
    """A frame as the layout in frame.h says, without the C."""
    body = HEADER.pack(kind, flags, credit, held, session, boot, sequence, ack) + payload
    return cobs(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def split(wire: bytes) -> list[tuple[Any, ...]]:
    """Header fields and payload of every frame in bytes that must be free of faults."""
    frames = []
    for part in filter(None, wire.split(b"\0")):
        body = uncobs(part)
        assert struct.unpack("<I", body[-4:])[0] == zlib.crc32(body[:-4])
        frames.append((*HEADER.unpack(body[: HEADER.size]), body[HEADER.size : -4]))
    return frames


class End:
    """One end and what it has seen."""

    def __init__(self, c: tuple[FFI, Any], hello: bytes = b"", **config: int) -> None:
        self.ffi, self.lib = c
        self.hello = self.ffi.from_buffer(hello)
        self.config = self.ffi.new("link_config *", DEFAULTS | config)
        self.config.hello, self.config.hello_bytes = self.hello, len(hello)
        need = self.lib.link_bytes(self.config)
        assert need
        self.arena = self.ffi.new("uint64_t[]", (need + 7) // 8)
        out = self.ffi.new("link_state **")
        assert self.lib.link_init(self.arena, need, self.config, out) == self.lib.LINK_OK
        self.link = out[0]
        self.auto = True  # consume what arrives
        self.got: list[bytes] = []
        self.events: list[tuple[int, int, int, int]] = []

    def receive(self, now: int, wire: bytes) -> None:
        self.lib.link_receive(self.link, now % 2**32, wire, len(wire))
        while self.auto and self.consume():
            pass
        self.take_events()

    def poll(self, now: int, capacity: int = 4096) -> bytes:
        out = self.ffi.new("uint8_t[]", capacity)
        n = self.lib.link_poll(self.link, now % 2**32, out, capacity)
        self.take_events()
        return bytes(self.ffi.buffer(out, n))

    def send(self, message: bytes) -> int:
        return int(self.lib.link_send(self.link, message, len(message), self.ffi.NULL))

    def message(self) -> bytes | None:
        at, n = self.ffi.new("const uint8_t **"), self.ffi.new("size_t *")
        if self.lib.link_message(self.link, at, n) != self.lib.LINK_OK:
            return None
        return bytes(self.ffi.buffer(at[0], n[0]))

    def consume(self) -> bool:
        if (message := self.message()) is None:
            return False
        self.got.append(message)
        assert self.lib.link_consumed(self.link) == self.lib.LINK_OK
        return True

    def take_events(self) -> None:
        event = self.ffi.new("link_event *")
        while self.lib.link_next_event(self.link, event) == self.lib.LINK_OK:
            self.events.append((event.kind, event.reason, event.first_unconfirmed, event.end))

    @property
    def open(self) -> bool:
        return bool(self.lib.link_is_open(self.link))

    @property
    def confirmed(self) -> int:
        return int(self.lib.link_confirmed(self.link))

    @property
    def count(self) -> Any:
        count = self.ffi.new("link_statistics *")
        self.lib.link_get_statistics(self.link, count)
        return count


@dataclass
class Pair:
    """Host and board, a line of `latency` ms each way and a place to tamper."""

    host: End
    board: End
    now: int = 1000
    latency: int = 2
    rate: int = 4096  # bytes per ms
    application: Callable[[], None] = lambda: None  # acts between bytes in and bytes out
    tamper: Callable[[int, bytes], bytes] = lambda _, wire: wire

    def __post_init__(self) -> None:
        self.line: list[tuple[int, int, bytes]] = []
        self.wire = [b"", b""]

    def run(self, ms: int) -> None:
        for _ in range(ms):
            for to, end in enumerate((self.host, self.board)):
                due = [w for at, where, w in self.line if where == to and at <= self.now]
                self.line = [x for x in self.line if x[1] != to or x[0] > self.now]
                end.receive(self.now, b"".join(due))
                self.application()
                if wire := end.poll(self.now, self.rate):
                    self.wire[to] += wire
                    wire = self.tamper(to, wire)
                    self.line.append((self.now + self.latency, 1 - to, wire))
            self.now += 1

    def connect(self) -> Pair:
        assert self.host.lib.link_open(self.host.link, self.now) == self.host.lib.LINK_OK
        self.run(8 + 4 * self.latency)
        assert self.host.open
        assert self.board.open
        return self

    def sent_by(self, end: int) -> list[tuple[Any, ...]]:
        frames = split(self.wire[end])
        self.wire[end] = b""
        return frames


def make_pair(c: tuple[FFI, Any], board: dict[str, int] | None = None, **host: int) -> Pair:
    return Pair(
        End(c, b"host", initiator=1, boot=0x12345678, **host),
        End(c, b"board \0 1.0", boot=0xABCD4321, **(board or {})),
    )


def lose(which: Callable[[tuple[Any, ...]], bool]) -> Callable[[int, bytes], bytes]:
    """Loses the first of the host's frames of which `which` is true."""
    lost: list[int] = []

    def tamper(frm: int, wire: bytes) -> bytes:
        kept = b""
        for part in filter(None, wire.split(b"\0")):
            if frm == 0 and not lost and which(split(part)[0]):
                lost.append(1)
            else:
                kept += b"\0" + part + b"\0"
        return kept

    return tamper
