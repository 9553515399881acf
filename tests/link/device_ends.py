"""A device for tests: messages as the list lays them out, a board that is fed directly.

Layouts are made here from `message_list` with `struct`, so that the C's own encoding is
checked by something that shares no line with it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hwgle._core import ffi, lib
from numpy.typing import NDArray

from hwgle.device import SIGNALS, Block
from hwgle.quantise import Image, Quantised

CODES = {"u8": "B", "i8": "b", "u32": "I", "i32": "i", "u64": "Q"}
TAILS = {"NONE": "", "BYTES": "B", "I8": "b", "I16": "h", "I32": "i", "U64": "Q"}
REASONS = {name[7:].lower(): getattr(lib, name) for name in dir(lib) if name.startswith("REASON_")}
UNREASONS = {number: name for name, number in REASONS.items()}
GRADIENT, UHAT = lib.GLE_WITH_GRADIENT, lib.GLE_WITH_UHAT


@dataclass(frozen=True)
class Layout:
    """One message of the list."""

    name: str
    id: int
    to_host: bool
    fields: tuple[tuple[str, str], ...]
    tail: str

    @property
    def fixed(self) -> struct.Struct:
        return struct.Struct("<B" + "".join(CODES[kind] for kind, _ in self.fields))


def layouts() -> dict[str, Layout]:
    """The list as the core tells it."""
    result = {}
    for k in range(lib.message_count):
        row = lib.message_list[k]
        name, fields, tail = (ffi.string(x).decode() for x in (row.name, row.fields, row.tail))
        pairs = tuple((a, b) for a, b in re.findall(r"(\w+) (\w+), ", fields))
        result[name] = Layout(name, row.id, bool(row.way), pairs, tail)
    return result


LAYOUTS = layouts()
BY_ID = {layout.id: layout for layout in LAYOUTS.values()}


def pack(name: str, tail: Any = b"", **fields: int) -> bytes:
    """A message; a tail of numbers is an array or a list."""
    layout = LAYOUTS[name]
    assert fields.keys() == {n for _, n in layout.fields}, (name, fields)
    fixed = layout.fixed.pack(layout.id, *(fields[n] for _, n in layout.fields))
    if not isinstance(tail, bytes):
        code = TAILS[layout.tail]
        tail = struct.pack(f"<{len(tail)}{code}", *(int(x) for x in tail))
    return fixed + tail


@dataclass(frozen=True)
class Message:
    """A message that came back."""

    name: str
    fields: dict[str, int]
    tail: bytes

    def __getattr__(self, name: str) -> int:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None

    def numbers(self) -> list[int]:
        code = TAILS[LAYOUTS[self.name].tail]
        size = struct.calcsize(code)
        assert len(self.tail) % size == 0
        return list(struct.unpack(f"<{len(self.tail) // size}{code}", self.tail))


def unpack(message: bytes) -> Message:
    """The reverse of `pack`; the message must be one of the list, to the host, and whole."""
    layout = BY_ID[message[0]]
    assert layout.to_host, layout.name
    fixed = layout.fixed
    values = fixed.unpack(message[: fixed.size])[1:]
    tail = message[fixed.size :]
    code = TAILS[layout.tail]
    assert len(tail) % (struct.calcsize(code) if code else len(tail) + 1) == 0
    fields = {n: v for (_, n), v in zip(layout.fields, values, strict=True)}
    return Message(layout.name, fields, tail)


def kernels(name: str = "scalar") -> Any:
    return lib.gle_kernels_named(name.encode())


class Board:
    """A device with its memory. `feed` gives a message and returns what came back."""

    def __init__(
        self,
        memory: int = 1 << 20,
        payload: int = 256,
        table: str = "scalar",
        name: bytes = b"test",
    ) -> None:
        self.room: int | None = None  # messages that `send` still takes; None: any number
        self.out: list[bytes] = []
        self.payload = payload
        self.polls = 0
        # Guards on both sides: the device must not leave what it was given.
        self._memory = np.full(memory + 256, 0xA5, dtype=np.uint8)
        self._at = -self._memory.ctypes.data % 64 + 64
        self.bytes = memory
        self._state = np.full(lib.device_bytes(payload) + 16, 0x5A, dtype=np.uint8)
        at = -self._state.ctypes.data % 8
        self._state_end = at + lib.device_bytes(payload)
        self._name = ffi.new("char[]", name)
        self._status = ffi.callback("void(void *, device_board_status *)", self._tell_status)
        self._reboot = ffi.callback(
            "void(void *, uint32_t)", lambda _, how: self.reboots.append(how)
        )
        self._send = ffi.callback("device_send", self._take)
        self.reboots: list[int] = []
        c = self.config = ffi.new("device_config *")
        c.memory = ffi.from_buffer(self._memory[self._at :])
        c.memory_bytes, c.payload, c.kernels = memory, payload, kernels(table)
        c.name, c.boot_cause, c.boots = self._name, lib.BOOT_WATCHDOG, 3
        c.status, c.reboot, c.features = self._status, self._reboot, lib.FEATURE_WATCHDOG
        self.device = lib.device_open(ffi.from_buffer(self._state[at:]), c)
        assert self.device != ffi.NULL

    def _tell_status(self, board: Any, status: Any) -> None:
        status.stack_size, status.stack_used = 1000, 100
        status.uptime_ms, status.rx_lost = 12345, 7

    def _take(self, to: Any, message: Any, n: int) -> int:
        if self.room == 0:
            return 0
        if self.room is not None:
            self.room -= 1
        assert n <= self.payload
        self.out.append(bytes(ffi.buffer(message, n)))
        return 1

    def once(self, message: bytes) -> int:
        """One call."""
        self.polls += 1
        keep = ffi.new("uint8_t[]", message or b"\0")  # exactly as long: a sanitizer's case
        return int(lib.device_feed(self.device, keep, len(message), self._send, ffi.NULL))

    def raw(self, message: bytes) -> list[bytes]:
        """Until it is executed."""
        self.out = []
        while (progress := self.once(message)) != lib.DEVICE_IDLE:
            assert progress == lib.DEVICE_BUSY
        return self.out

    def feed(self, message: bytes) -> list[Message]:
        return [unpack(m) for m in self.raw(message)]

    def all(self, messages: Iterable[bytes]) -> list[Message]:
        """Many; nothing may be refused."""
        result = [m for message in messages for m in self.feed(message)]
        for m in result:
            assert m.name != "REFUSED", (BY_ID[m.message].name, UNREASONS[m.reason], m)
        return result

    def do(self, name: str, tail: Any = b"", **fields: int) -> list[Message]:
        return self.all([pack(name, tail, **fields)])

    def refused(self, message: bytes, sync: bool = True) -> tuple[str, int, int]:
        """Reason, need and have of a message that must be refused; in step again after it."""
        got = self.feed(message)
        assert [m.name for m in got][-1:] == ["REFUSED"], got
        if sync:
            assert self.feed(pack("SYNC", cookie=9))[-1].cookie == 9
        return UNREASONS[got[-1].reason], got[-1].need, got[-1].have

    @property
    def chip(self) -> Any:
        return lib.device_chip(self.device)

    def digest(self) -> int:
        return int(lib.gle_digest(self.chip)) if self.chip else 0

    def check_guards(self) -> None:
        """Nothing was written outside of what the device was given."""
        assert (self._memory[: self._at] == 0xA5).all()
        assert (self._memory[self._at + self.bytes :] == 0xA5).all()
        assert (self._state[self._state_end :] == 0x5A).all()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[k : k + size] for k in range(0, len(data), size)]


def cut_anywhere(data: bytes, largest: int, rng: np.random.Generator) -> list[bytes]:
    """Pieces of 0 to `largest` bytes, often tiny ones."""
    pieces, at = [], 0
    while at < len(data):
        n = int(rng.integers(0, 4) if rng.random() < 0.3 else rng.integers(1, largest + 1))
        pieces.append(data[at : at + n])
        at += n
    return pieces


def image_messages(image: Image, batch: int, options: int = 0, payload: int = 256) -> list[bytes]:
    data = image.words.astype("<u4").tobytes()
    result = [pack("IMAGE_BEGIN", words=image.words.size, batch=batch, options=options)]
    room = payload - LAYOUTS["IMAGE_DATA"].fixed.size
    at = 0
    for piece in cut(data, room):
        result.append(pack("IMAGE_DATA", piece, offset=at))
        at += len(piece)
    return [*result, pack("IMAGE_COMMIT", crc=zlib.crc32(data))]


def weights_data(weights: Quantised, names: Sequence[str], payload: int = 256) -> list[bytes]:
    """*_DATA of all layers in `weights`, layer by layer."""
    result = []
    for k, name in enumerate(names):
        if name not in weights:
            continue
        for message, numbers, width in (
            ("WEIGHTS_DATA", weights[name][0].ravel(), 2),
            ("BIAS_DATA", weights[name][1], 4),
        ):
            room = (payload - 6) // width
            for first in range(0, len(numbers), room):
                piece = numbers[first : first + room]
                result.append(pack(message, piece, layer=k, first=first))
    return result


def weights_messages(data: list[bytes]) -> list[bytes]:
    crc = zlib.crc32(b"".join(data))
    return [pack("WEIGHTS_BEGIN"), *data, pack("WEIGHTS_COMMIT", crc=crc)]


def set_of(image: Image, weights: Quantised, payload: int = 256) -> list[bytes]:
    names = [layer.name for layer in image.network.layers]
    return weights_messages(weights_data(weights, names, payload))


def block_bytes(block: Block) -> bytes:
    """What STEPS carry."""
    steps = block.input.shape[0]
    if steps == 0:
        return b""
    x = block.input.astype("<i2").reshape(steps, -1)
    if block.target is None:
        return x.tobytes()
    y = block.target.astype("<i2")
    if y.ndim == 1:
        return y.tobytes() + x.tobytes()
    return np.concatenate([x, y.reshape(steps, -1)], axis=1).tobytes()


def block_flags(block: Block, gradient: bool = False) -> int:
    return int(
        lib.BLOCK_LEARN * block.learn
        | lib.BLOCK_RANGE * block.ranging
        | lib.BLOCK_TARGET * (block.target is not None)
        | lib.BLOCK_GRADIENT * gradient
        | lib.BLOCK_VOTES * block.votes
    )


def block_head(block: Block, gradient: bool = False) -> bytes:
    pairs = bytes(x for k, s in block.record for x in (k, SIGNALS.index(s)))
    steps = block.input.shape[0]
    return pack("BLOCK", pairs, steps=steps, flags=block_flags(block, gradient))


def block_messages(
    block: Block, rng: np.random.Generator, payload: int = 256, gradient: bool = False
) -> list[bytes]:
    pieces = cut_anywhere(block_bytes(block), payload - 1, rng)
    return [block_head(block, gradient), *(pack("STEPS", piece) for piece in pieces)]


@dataclass
class Came:
    """What a block gave."""

    signals: list[NDArray[np.int32]] = field(default_factory=list)
    fracs: NDArray[np.int8] | None = None
    votes: NDArray[np.int64] | None = None
    digest: int = 0
    steps: int = 0


def block_came(messages: Sequence[Message], block: Block, image: Image, batch: int) -> Came:
    """Records, formats and votes of a whole block, as the emulator gives them."""
    sizes = [layer.size for layer in image.network.layers]
    steps = block.input.shape[0]
    data = b"".join(m.tail for m in messages if m.name == "RECORDS")
    widths = [np.dtype("<i2" if s in "re" else "<i4") for _, s in block.record]
    result = Came()
    at, columns = 0, [batch * sizes[k] for k, _ in block.record]
    row = sum(w.itemsize * n for w, n in zip(widths, columns, strict=True))
    whole = np.frombuffer(data[: row * steps], np.uint8).reshape(steps, row)
    for (k, _), w, n in zip(block.record, widths, columns, strict=True):
        part = np.ascontiguousarray(whole[:, at : at + n * w.itemsize]).view(w)
        result.signals.append(part.reshape(steps, batch, sizes[k]).astype(np.int32))
        at += n * w.itemsize
    rest = data[row * steps :]
    if block.votes:
        result.votes = np.frombuffer(rest, "<i8").reshape(batch, sizes[-1]).astype(np.int64)
    else:
        assert rest == b""
    result.fracs = np.zeros((steps, len(sizes), 2), np.int8)
    for m in messages:
        if m.name == "FORMATS_ARE":
            result.fracs[m.step :] = np.array(m.numbers(), np.int8).reshape(-1, 2)
    done = [m for m in messages if m.name == "BLOCK_DONE"]
    assert len(done) == 1
    assert messages[-1].name == "BLOCK_DONE"
    result.digest, result.steps = done[0].digest, done[0].steps
    return result
