"""Messages in words, for people who compare two of them."""

from __future__ import annotations

from hwgle.devices.dialogue import REASONS
from hwgle.devices.messages import name_of, unpack
from hwgle.errors import DeviceError

SHOWN = 12
HEX = frozenset({"digest", "weights", "crc"})


def words(raw: bytes) -> str:
    """A message: its name, its fields, the beginning of its tail."""
    try:
        m = unpack(raw)
    except DeviceError:
        return f"no message of the list: {raw[:SHOWN].hex(' ')}, {len(raw)} bytes"
    parts = []
    for field, value in zip(m.layout.fields, m.values, strict=True):
        text = f"{value:016x}" if field in HEX and value > 0xFFFF else str(value)
        if m.name == "REFUSED" and field == "reason":
            text = REASONS.get(value, text)
        if m.name == "REFUSED" and field == "message":
            text = name_of(bytes([value]))
        parts.append(f"{field} {text}")
    if m.name == "INFO_IS":
        parts.append(f"board {m.tail.decode('utf-8', 'replace')}")
    elif m.tail:
        parts.append(_tail(m.layout.tail, raw[m.layout.overhead :], raw))
    return " ".join([m.name, ", ".join(parts)]).strip()


def _tail(kind: str, tail: bytes, raw: bytes) -> str:
    if kind == "BYTES":
        more = " ..." if len(tail) > SHOWN else ""
        return f"{len(tail)} bytes: {tail[:SHOWN].hex(' ')}{more}"
    numbers = unpack(raw).numbers()
    text = " ".join(f"{int(x):016x}" if kind == "U64" else str(int(x)) for x in numbers[:SHOWN])
    return f"{numbers.size} numbers: {text}" + (" ..." if numbers.size > SHOWN else "")


def first_byte(a: bytes, b: bytes) -> int | None:
    """Where two messages begin to differ; None: they do not."""
    for k, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return k
    return None if len(a) == len(b) else min(len(a), len(b))
