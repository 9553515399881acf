"""What of an ELF file counts here: sections, symbols, and the image that is flashed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hwgle.errors import DeviceError

ALLOCATED, NO_CONTENTS, SYMBOLS, PT_LOAD = 2, 8, 2, 1
FUNCTION, FILE = 2, 4  # kinds of symbols


class Section(NamedTuple):
    """A section that takes memory on the board; stored: it has contents in flash too."""

    name: str
    address: int
    size: int
    stored: bool


class Elf:
    """A little-endian ELF file of 32 or 64 bits."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        if self._data[:4] != b"\x7fELF" or self._data[5] != 1:
            raise DeviceError(f"{path} is no little-endian ELF file")
        self._wide = self._data[4] == 2
        head = struct.unpack_from(
            "<HHIQQQIHHHHHH" if self._wide else "<HHIIIIIHHHHHH", self._data, 16
        )
        self._programs = (head[4], head[8], head[9])
        self._headers = [self._section(head[5] + i * head[10]) for i in range(head[11])]
        self._names = head[12]

    def _section(self, at: int) -> tuple[int, ...]:
        """name, type, flags, address, offset, size, link, info, align, entry size"""
        return struct.unpack_from("<IIQQQQIIQQ" if self._wide else "<IIIIIIIIII", self._data, at)

    def _text(self, table: int, at: int) -> str:
        start = self._headers[table][4] + at
        return self._data[start : self._data.index(b"\0", start)].decode()

    def sections(self) -> list[Section]:
        """Those that take memory on the board."""
        return [
            Section(self._text(self._names, h[0]), h[3], h[5], h[1] != NO_CONTENTS)
            for h in self._headers
            if h[2] & ALLOCATED and h[5]
        ]

    def _symbols(self) -> Iterator[tuple[str, int, int, int]]:
        """name, value, size, kind and binding"""
        for header in self._headers:
            if header[1] != SYMBOLS:
                continue
            for at in range(header[4], header[4] + header[5], header[9]):
                if self._wide:
                    name, info, _, _, value, size = struct.unpack_from("<IBBHQQ", self._data, at)
                else:
                    name, value, size, info = struct.unpack_from("<IIIB", self._data, at)
                yield self._text(header[6], name), value, size, info

    def symbols(self) -> dict[str, int]:
        """Name -> value."""
        return {name: value for name, value, _, _ in self._symbols()}

    def functions(self) -> list[tuple[str, str, int, int]]:
        """Name, source file (static ones only, else empty), address, bytes."""
        found, file = [], ""
        for name, value, size, info in self._symbols():
            if info & 15 == FILE:
                file = name
            elif info & 15 == FUNCTION and size:
                # The lowest bit says Thumb.
                found.append((name, file if info >> 4 == 0 else "", value & ~1, size))
        return found

    def image(self) -> tuple[int, bytes]:
        """Address and bytes as they are written to flash, gaps filled with 0xff."""
        parts = []
        start, size, count = self._programs
        for i in range(count):
            at = start + i * size
            if self._wide:
                kind, _, offset, _, load, stored = struct.unpack_from("<IIQQQQ", self._data, at)
            else:
                kind, offset, _, load, stored = struct.unpack_from("<IIIII", self._data, at)
            if kind == PT_LOAD and stored:
                parts.append((load, self._data[offset : offset + stored]))
        if not parts:
            raise DeviceError("there is nothing in the firmware that could be flashed")
        low = min(load for load, _ in parts)
        image = bytearray(b"\xff" * (max(load + len(part) for load, part in parts) - low))
        for load, part in parts:
            image[load - low : load - low + len(part)] = part
        return low, bytes(image)
