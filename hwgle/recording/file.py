"""The file of a recording: a head, then records one after another.

    "hwgle recording 1\\n"                                    magic
    one line of JSON                                         what was recorded, see `Head`
    records:  kind u8, port u8, 0 u16, length u32, time u64, then `length` bytes

Little endian. time: nanoseconds of the monotonic clock since the head was written. Kinds:
OUT and IN, bytes to and from the board; PORT, JSON about a port before its first byte; END,
JSON about how the command ended, the last record of a complete recording. Records are only
ever appended, each with one write, so that whatever ends the command leaves a file whose
whole records can be read.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from hwgle.errors import FileMistakes, Mistake, UsageError

MAGIC = b"hwgle recording 1\n"
HEAD_MAX = 1 << 16
BYTES_MAX = 1 << 20  # of one record; a port reads and writes 64 KB at most
RECORD = struct.Struct("<BBHIQ")
OUT, IN, PORT, END = 1, 2, 3, 4
WAYS = {"out": OUT, "in": IN}


@dataclass(frozen=True)
class Head:
    """What was recorded, with what. messages: CRC of the list of messages."""

    command: tuple[str, ...]
    hwgle: str
    python: str
    system: str
    began: str
    messages: int
    link: int


class Record(NamedTuple):
    """One record; time in seconds since the head."""

    kind: int
    port: int
    time: float
    data: bytes


class Writer:
    """Appends to a recording. Not for several threads at once."""

    def __init__(self, path: Path, head: Head) -> None:
        try:
            self._file: IO[bytes] = open(path, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        self._write(MAGIC + json.dumps(asdict(head)).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def append(self, kind: int, port: int, nanoseconds: int, data: bytes) -> None:
        """One record, cut where it is too long. Raises OSError."""
        for at in range(0, max(1, len(data)), BYTES_MAX):
            part = data[at : at + BYTES_MAX]
            self._write(RECORD.pack(kind, port, 0, len(part), nanoseconds) + part)

    def append_json(self, kind: int, port: int, nanoseconds: int, what: Mapping[str, Any]) -> None:
        """One record of JSON."""
        self.append(kind, port, nanoseconds, json.dumps(what).encode())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Reader:
    """Reads a recording. `cut`: why it ends before its END, None if it does not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cut: str | None = None
        self.end: dict[str, Any] = {}
        try:
            self.size = os.stat(path).st_size
            with open(path, "rb") as file:
                self.head = self._head(file)
        except OSError as error:
            raise self._mistake(error.strerror or str(error), "a readable file") from error

    def _mistake(self, found: str, allowed: str) -> FileMistakes:
        return FileMistakes([Mistake(str(self._path), None, "", found, allowed)])

    def _head(self, file: IO[bytes]) -> Head:
        if file.read(len(MAGIC)) != MAGIC:
            raise self._mistake("something else", "a recording of `hwgle record`")
        line = file.readline(HEAD_MAX)
        try:
            if not line.endswith(b"\n"):
                raise ValueError(line)
            data = json.loads(line)
            head = Head(**{**data, "command": tuple(map(str, data["command"]))})
            _ = int(head.messages), int(head.link)
        except (ValueError, TypeError, KeyError):
            raise self._mistake("a head that is damaged", "one line of JSON") from None
        self._begin = file.tell()
        return head

    def records(self) -> Iterator[Record]:
        """All whole records but END, which `end` has then. Damage ends it: see `cut`."""
        self.cut = "it ends without the record of its end: the command was killed"
        with open(self._path, "rb") as file:
            file.seek(self._begin)
            while head := file.read(RECORD.size):
                if len(head) < RECORD.size:
                    return
                kind, port, zero, length, nanoseconds = RECORD.unpack(head)
                if zero or kind not in (OUT, IN, PORT, END) or length > BYTES_MAX:
                    self.cut = f"damaged {file.tell() - RECORD.size} bytes from its beginning"
                    return
                data = file.read(length)
                if len(data) < length:
                    return
                if kind == END:
                    self.end, self.cut = about(data), None
                    return
                yield Record(kind, port, nanoseconds / 1e9, data)


def about(data: bytes) -> dict[str, Any]:
    """The JSON of a record; empty where it is damaged."""
    try:
        what = json.loads(data)
    except ValueError:
        return {}
    return what if isinstance(what, dict) else {}
