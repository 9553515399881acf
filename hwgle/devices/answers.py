"""What the requests of a serial device bring back, put together from their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Records
from hwgle.devices.dialogue import Answer
from hwgle.devices.messages import Message
from hwgle.errors import DeviceError

WIDTH = {"r": 2, "e": 2, "u": 4, "uhat": 4, "v": 4}  # bytes of a recorded number


class BlockAnswer(Answer):
    """Records, votes and digest of one block on the wire."""

    def __init__(
        self, steps: int, batch: int, layers: int, pairs: Sequence[tuple[int, str]],
        sizes: Sequence[int], votes: bool,
    ) -> None:  # fmt: skip
        self._steps, self._batch, self._sizes, self._votes = steps, batch, sizes, votes
        self._types = [np.dtype(f"<i{WIDTH[signal]}") for _, signal in pairs]
        self._counts = [batch * sizes[layer] for layer, _ in pairs]
        row = sum(n * t.itemsize for n, t in zip(self._counts, self._types, strict=True))
        self._row = row
        self._need = steps * row + (8 * batch * sizes[-1] if votes else 0)
        self._data = bytearray()
        self._fracs = np.zeros((steps, layers, 2), dtype=np.int8)
        self._told = False
        self._pairs = pairs
        self.digest = 0

    def take(self, message: Message) -> bool:
        """See Answer."""
        if message.name == "RECORDS":
            self._data += message.tail
            return False
        if message.name == "FORMATS_ARE":
            rows = message.numbers().reshape(-1, 2)
            if message.step >= self._steps or rows.shape != self._fracs.shape[1:]:
                raise DeviceError("the board told formats of a step or layers that are not there")
            self._fracs[message.step :] = rows
            self._told = True
            return False
        if message.name != "BLOCK_DONE":
            raise self.refuse(message)
        if message.steps != self._steps or len(self._data) != self._need or not self._told:
            raise DeviceError(
                f"the board ended a block after {message.steps} of {self._steps} steps with "
                f"{len(self._data)} of {self._need} bytes of records"
            )
        self.digest = message.digest
        return True

    def records(self) -> Records:
        """What the finished block brought."""
        records = Records(self._steps, fracs=self._fracs, digests=[(self._steps, self.digest)])
        body = np.frombuffer(self._data, dtype=np.uint8)
        rows = body[: self._steps * self._row].reshape(self._steps, self._row)
        at = 0
        for (layer, _), count, kind in zip(self._pairs, self._counts, self._types, strict=True):
            part = np.ascontiguousarray(rows[:, at : at + count * kind.itemsize])
            at += count * kind.itemsize
            shape = self._steps, self._batch, self._sizes[layer]
            records.signals.append(part.view(kind).reshape(shape).astype(np.int32))
        if self._votes:
            sums = body[self._steps * self._row :].tobytes()
            shape_votes = self._batch, self._sizes[-1]
            records.votes = np.frombuffer(sums, dtype="<i8").reshape(shape_votes).astype(np.int64)
        return records


def joined(parts: Sequence[Records]) -> Records:
    """The records of a block that went in several pieces."""
    if len(parts) == 1:
        return parts[0]
    whole = Records(sum(p.steps for p in parts))
    whole.fracs = np.concatenate([p.fracs for p in parts if p.fracs is not None])
    whole.signals = [np.concatenate(s) for s in zip(*(p.signals for p in parts), strict=True)]
    votes = [p.votes for p in parts if p.votes is not None]
    if votes:
        whole.votes = np.add.reduce(votes)
    done = 0
    for p in parts:
        whole.digests += [(done + steps, digest) for steps, digest in p.digests]
        done += p.steps
    return whole


class Numbers(Answer):
    """Numbers that come in pieces, each saying where it begins; perhaps a head before them."""

    def __init__(self, name: str, count: int, head: str | None = None, base: int = 0) -> None:
        self._name, self._head, self._base = name, head, base
        self._parts: list[NDArray[Any]] = []
        self._have, self._count = 0, count
        self.head: Message | None = None

    def take(self, message: Message) -> bool:
        """See Answer."""
        if self._head is not None and self.head is None and message.name == self._head:
            self.head = message
            return self._count == 0
        if message.name != self._name or (self._head is not None and self.head is None):
            raise self.refuse(message)
        numbers = message.numbers()
        if message.first != self._base + self._have or self._have + numbers.size > self._count:
            raise DeviceError(f"{message.name}: numbers out of order")
        self._parts.append(numbers)
        self._have += numbers.size
        return self._have == self._count

    def numbers(self) -> NDArray[Any]:
        """All of them, when done."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=np.int64)


class Digests(Answer):
    """Digests of the streams, then of the whole."""

    def __init__(self, batch: int) -> None:
        self.streams = np.zeros(batch, dtype=np.uint64)
        self._have = 0
        self.message: Message | None = None

    def take(self, message: Message) -> bool:
        """See Answer."""
        if message.name == "STREAMS_ARE":
            numbers = message.numbers()
            if message.first != self._have or self._have + numbers.size > self.streams.size:
                raise DeviceError("STREAMS_ARE: digests out of order")
            self.streams[self._have : self._have + numbers.size] = numbers
            self._have += numbers.size
            return False
        if message.name != "DIGEST_IS" or self._have != self.streams.size:
            raise self.refuse(message)
        self.message = message
        return True


class Snapshot(Answer):
    """The complete state as bytes."""

    def __init__(self) -> None:
        self._size: int | None = None
        self._data = bytearray()

    def take(self, message: Message) -> bool:
        """See Answer."""
        if message.name == "SNAPSHOT_IS" and self._size is None:
            self._size = message.size
            return self._size == 0
        if message.name != "SNAPSHOT_ARE" or message.offset != len(self._data):
            raise self.refuse(message)
        self._data += message.tail
        return len(self._data) == self._size

    def data(self) -> bytes:
        """All of it, when done."""
        return bytes(self._data)
