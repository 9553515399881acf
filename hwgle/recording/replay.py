"""What the host said, said again to csrc/device in this process: equal answers, or not.

The device gets as much memory as the board has for it, and what this machine's wider
pointers and alignment take more for the networks that were loaded (hwgle/preflight).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwgle._core import ffi, lib
from hwgle.devices.messages import name_of, unpack
from hwgle.errors import DeviceError
from hwgle.preflight.memory import BOARD, HOST, Shape, arena_bytes
from hwgle.recording.sessions import Session, boots

# Answers that depend on more than what was asked: nothing of the first two is compared;
# of a refusal for want of memory the bytes are not, they are another machine's.
VOLATILE = frozenset({"INFO_IS", "STATUS_IS"})
ALIGN = 64
MEMORY_MAX = 1 << 30  # bytes that a recording can make this process ask for


def volatile(raw: bytes) -> bool:
    """Whether an answer is not compared."""
    return name_of(raw) in VOLATILE


def comparable(raw: bytes) -> bytes:
    """An answer as it is compared."""
    if name_of(raw) == "REFUSED" and unpack(raw).reason == lib.REASON_NO_MEMORY:
        return raw[:-8]
    return raw


@dataclass(frozen=True)
class Unequal:
    """The first answer that differs. number, request: what it answers; b"": there is none."""

    session: int
    number: int
    request: bytes
    answer: int
    time: float
    board: bytes
    replay: bytes


@dataclass
class Played:
    """What the replay of one session gave. unseen: answers that the host did not wait for."""

    session: Session
    fed: int = 0
    answers: int = 0
    equal: int = 0
    skipped: int = 0
    unseen: int = 0
    steps: int = 0
    digest: int | None = None
    unequal: Unequal | None = None
    notes: list[str] = field(default_factory=list)


class Device:
    """csrc/device in this process."""

    def __init__(self, memory: int, payload: int) -> None:
        config = ffi.new("device_config *")
        self._memory = np.zeros(memory + ALIGN, dtype=np.uint8)
        at = -self._memory.ctypes.data % ALIGN
        config.memory = ffi.from_buffer(self._memory[at : at + memory])
        config.memory_bytes = memory
        config.kernels = lib.gle_kernels_named(ffi.NULL)
        config.payload = payload
        need = lib.device_bytes(payload)
        if need == 0:
            raise DeviceError(f"the recording's messages of {payload} bytes are out of range")
        self._name = ffi.new("char[]", b"replay")
        config.name = self._name
        self._bytes = ffi.new("uint64_t[]", (need + 7) // 8)
        self._device = lib.device_open(self._bytes, config)
        if self._device == ffi.NULL:
            raise DeviceError("no device can be made of the recording's memory and payload")
        self._config = config
        self._answers: list[bytes] = []
        self._send = ffi.callback("int(void *, const uint8_t *, size_t)", self._take)

    def _take(self, _to: Any, message: Any, n: int) -> int:
        self._answers.append(bytes(ffi.buffer(message, n)))
        return 1

    def feed(self, message: bytes) -> list[bytes]:
        """Its answers to a message."""
        self._answers = []
        while lib.device_feed(self._device, message, len(message), self._send, ffi.NULL):
            pass
        return self._answers

    def session_ended(self) -> None:
        """What is half-sent is forgotten."""
        lib.device_session_ended(self._device)


def replay(sessions: Sequence[Session]) -> Iterator[Played]:
    """Session by session, up to the first answer that differs."""
    device: Device | None = None
    limits: tuple[int, int] | None = None
    for k, (anew, session) in enumerate(boots(sessions)):
        need = _memory(sessions, session), session.payload
        if device is None or anew or need != limits:
            device, limits = Device(*need), need
        else:
            device.session_ended()
        played = _play(device, session, k)
        yield played
        if played.unequal is not None:
            return


def _play(device: Device, session: Session, k: int) -> Played:
    played, board = Played(session), session.inward.messages
    for number, request in enumerate(session.out.messages):
        certain = number < session.executed
        if not certain and played.answers >= len(board):
            break  # nobody knows whether the board came to this one
        answers = device.feed(request)
        played.fed += 1
        for answer in answers:
            at = played.answers
            if at >= len(board):
                played.unseen += 1
                continue
            played.answers += 1
            if not _compare(played, answer, board[at]):
                time = session.inward.times[at]
                played.unequal = Unequal(k, number, request, at, time, board[at], answer)
                return played
    if played.answers < len(board):
        at = played.answers
        played.unequal = Unequal(k, played.fed, b"", at, session.inward.times[at], board[at], b"")
    return played


def _compare(played: Played, ours: bytes, boards: bytes) -> bool:
    if volatile(boards) and name_of(ours) == name_of(boards):
        played.skipped += 1
        return True
    if comparable(ours) != comparable(boards):
        return False
    played.equal += 1
    if name_of(boards) == "BLOCK_DONE":
        done = unpack(boards)
        played.steps += done.steps
        played.digest = done.digest
    return True


def _memory(sessions: Sequence[Session], one: Session) -> int:
    """The board's, and what this machine needs more for the networks that it took."""
    board = one.board.memory
    if not 0 < board <= MEMORY_MAX:
        raise DeviceError(f"the board told a memory of {board} bytes: cannot be played here")
    same = [s for s in sessions if (s.device, s.board.boot) == (one.device, one.board.boot)]
    return board + max((more for s in same for more in _more(s)), default=0)


def _more(session: Session) -> Iterator[int]:
    """Of each network that was loaded and not refused."""
    machine = BOARD
    refused = set()
    for raw in session.inward.messages:
        name = name_of(raw)
        if name == "INFO_IS" and unpack(raw).tail == b"host":
            machine = HOST
        if name == "REFUSED":
            refused.add(unpack(raw).number)
    words, batch, options = bytearray(), 0, 0
    for number, raw in enumerate(session.out.messages):
        name = name_of(raw)
        if name == "IMAGE_BEGIN":
            m = unpack(raw)
            words, batch, options = bytearray(), m.batch, m.options
        elif name == "IMAGE_DATA":
            words += unpack(raw).tail
        elif name == "IMAGE_COMMIT" and number not in refused and len(words) % 4 == 0:
            here = ffi.new("size_t *")
            image = np.frombuffer(bytes(words), dtype="<u4").astype(np.uint32)
            pointer = ffi.from_buffer("uint32_t[]", image)
            if lib.gle_arena_bytes(pointer, image.size, batch, options, here) == lib.GLE_OK:
                shape = Shape.of_words(image.tolist())
                yield int(here[0]) - arena_bytes(shape, batch, options, machine)
