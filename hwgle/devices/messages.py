"""Messages between host and board: packed and unpacked as the compiler's list says.

Ids, fields and tails come from `message_list` in the core (csrc/device/messages.def);
nothing is written here a second time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle._core import ffi, lib
from hwgle.errors import DeviceError

CODES = {
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q",
}  # fmt: skip
TAILS = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "U64": "<u8"}  # NONE and BYTES are no numbers


@dataclass(frozen=True)
class Layout:
    """One row of the list: what a message is made of."""

    name: str
    id: int
    to_host: bool
    fields: tuple[str, ...]
    fixed: struct.Struct
    tail: str

    @property
    def overhead(self) -> int:
        """Bytes in front of the tail, the id included."""
        return 1 + self.fixed.size

    def pack(self, *values: int, tail: bytes | NDArray[Any] = b"") -> bytes:
        """A message with these fields. A tail of numbers must have the tail's type."""
        if isinstance(tail, np.ndarray):
            tail = tail.astype(TAILS[self.tail], copy=False).tobytes()
        return bytes([self.id]) + self.fixed.pack(*values) + tail


@dataclass(frozen=True)
class Message:
    """A message as it was received."""

    layout: Layout
    values: tuple[int, ...]
    tail: bytes

    @property
    def name(self) -> str:
        """Its name in the list."""
        return self.layout.name

    def __getattr__(self, field: str) -> int:
        try:
            return self.values[self.layout.fields.index(field)]
        except ValueError:
            raise AttributeError(field) from None

    def numbers(self) -> NDArray[Any]:
        """The tail as the numbers that the list says."""
        return np.frombuffer(self.tail, dtype=TAILS[self.layout.tail])


def _layout(row: Any) -> Layout:
    fields, codes = [], "<"
    for part in ffi.string(row.fields).decode().split(","):
        if part.strip():
            kind, name = part.split()
            fields.append(name)
            codes += CODES[kind]
    return Layout(
        name=ffi.string(row.name).decode(),
        id=int(row.id),
        to_host=row.way == lib.TO_HOST,
        fields=tuple(fields),
        fixed=struct.Struct(codes),
        tail=ffi.string(row.tail).decode(),
    )


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (_layout(lib.message_list[k]) for k in range(lib.message_count))
}
_BY_ID = {layout.id: layout for layout in LAYOUTS.values()}


def pack(name: str, *values: int, tail: bytes | NDArray[Any] = b"") -> bytes:
    """The bytes of a message of this name."""
    return LAYOUTS[name].pack(*values, tail=tail)


def unpack(raw: bytes) -> Message:
    """What was received. Raises DeviceError for bytes that are no message of the list."""
    layout = _BY_ID.get(raw[0]) if raw else None
    if layout is None or len(raw) < layout.overhead:
        raise DeviceError(f"a message that is not in the list: {raw[:16].hex()}")
    tail = raw[layout.overhead :]
    size = 0 if layout.tail == "NONE" else int(TAILS.get(layout.tail, "1")[-1])
    if (size == 0 and tail) or (size and len(tail) % size):
        raise DeviceError(f"{layout.name} with a tail of {len(tail)} bytes")
    return Message(layout, layout.fixed.unpack(raw[1 : layout.overhead]), tail)


def name_of(raw: bytes) -> str:
    """The name of a message, for texts; its id where the list has none."""
    layout = _BY_ID.get(raw[0]) if raw else None
    return layout.name if layout is not None else f"message {raw[:1].hex()}"


def enum_names(enum: str, prefix: str) -> dict[int, str]:
    """Value to name of one of the core's enums, e.g. the reasons of a refusal."""
    elements = ffi.typeof(f"enum {enum}").elements
    return {value: name.removeprefix(prefix).lower() for value, name in elements.items()}
