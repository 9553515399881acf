"""Frames of both directions to sessions: the messages of each, once and in order.

What a port wrote is seen before the line and what it read after it, as the host's link saw
it. The link delivers exactly once; here its work is repeated from the record: frames of a
session are put in order by their sequence, those that came again are counted and dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hwgle._core import lib
from hwgle.recording.file import IN, OUT, PORT, Record, about
from hwgle.recording.frames import Decoder, Frame

HELLO = struct.Struct("<HHIIHBBI")  # csrc/link/hello.c
DEVICE = struct.Struct("<IHH")  # of the upper layer behind it: device_hello


@dataclass(frozen=True)
class Hello:
    """What one end told: its limits, and of a board its memory (0: not told)."""

    payload: int
    protocol: int
    boot: int
    first: int
    memory: int = 0
    device_payload: int = 0

    @classmethod
    def read(cls, raw: bytes) -> Hello | None:
        """None for bytes that are too short to be one."""
        if len(raw) < HELLO.size:
            return None
        _, payload, protocol, boot, first, _, _, _ = HELLO.unpack_from(raw)
        rest = raw[HELLO.size :]
        memory, largest, _ = DEVICE.unpack_from(rest) if len(rest) >= DEVICE.size else (0, 0, 0)
        return cls(payload, protocol, boot, first, memory, largest)


@dataclass
class Way:
    """The messages of one direction. repeated: frames that came again; ahead: frames that
    came before one that was missing, and were of no use."""

    messages: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    repeated: int = 0
    ahead: int = 0

    def take(self, frame: Frame, first: int) -> None:
        """A DATA frame of this session."""
        number = len(self.messages)
        off = (frame.sequence - first - number) & 0xFFFF
        if off == 0:
            self.messages.append(frame.payload)
            self.times.append(frame.time)
        elif off >= 0x8000:
            self.repeated += 1
        else:
            self.ahead += 1


@dataclass
class Session:
    """One session. executed: messages of the host that the board confirmed."""

    port: int
    device: str
    number: int
    boot: int
    host: Hello
    board: Hello
    began: float
    ended: float = 0.0
    out: Way = field(default_factory=Way)
    inward: Way = field(default_factory=Way)
    executed: int = 0
    how: str = "went on"
    naks: int = 0

    @property
    def payload(self) -> int:
        """The largest message of the board in this session."""
        return min(self.host.payload, self.board.device_payload or self.board.payload)


@dataclass
class _Port:
    """What one port has under way."""

    device: str = "?"
    out: Decoder = field(default_factory=Decoder)
    inward: Decoder = field(default_factory=Decoder)
    syn: dict[int, tuple[Hello, float]] = field(default_factory=dict)
    session: Session | None = None


class Line:
    """All sessions of a recording. damaged: frames of the board that arrived damaged."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self._ports: dict[int, _Port] = {}
        self.seconds = 0.0

    def read(self, records: Iterable[Record]) -> Line:
        """Take in a whole recording."""
        for record in records:
            port = self._ports.setdefault(record.port, _Port())
            self.seconds = max(self.seconds, record.time)
            if record.kind == PORT:
                port.device = str(about(record.data).get("device", "?"))
            elif record.kind == OUT:
                for frame in port.out.take(record.data, record.time):
                    self._sent(port, frame)
            elif record.kind == IN:
                for frame in port.inward.take(record.data, record.time):
                    self._received(port, record.port, frame)
        return self

    @property
    def damaged(self) -> int:
        """Frames of the board that did not arrive whole."""
        return sum(p.inward.damaged.total() for p in self._ports.values())

    @property
    def bytes(self) -> tuple[int, int]:
        """To the board and from it."""
        ports = self._ports.values()
        return sum(p.out.bytes for p in ports), sum(p.inward.bytes for p in ports)

    def _sent(self, port: _Port, frame: Frame) -> None:
        if frame.type == lib.FRAME_SYN:
            if (hello := Hello.read(frame.payload)) is not None:
                port.syn[frame.session] = (hello, frame.time)
            return
        s = self._of(port, frame)
        if s is None:
            return
        if frame.type == lib.FRAME_DATA:
            s.out.take(frame, s.host.first)
        elif frame.type == lib.FRAME_CLOSE:
            s.how = "closed by the host"
        s.naks += bool(frame.flags & lib.FRAME_NAK)

    def _received(self, port: _Port, number: int, frame: Frame) -> None:
        if frame.type == lib.FRAME_SYN_ACK:
            hello = Hello.read(frame.payload)
            offered = port.syn.get(frame.session)
            old = port.session
            if hello is None or offered is None:
                return
            if old is None or (old.number, old.boot) != (frame.session, frame.boot):
                session = Session(number, port.device, frame.session, frame.boot, offered[0],
                                  hello, offered[1], frame.time)  # fmt: skip
                # Of several answers to one SYN the host takes the first that it sees.
                if old is None or old.number != frame.session:
                    port.session = session
                    self.sessions.append(session)
            return
        s = self._of(port, frame)
        if s is None:
            return
        if frame.type in (lib.FRAME_DATA, lib.FRAME_ACK):
            done = (frame.ack - s.host.first - s.executed) & 0xFFFF
            if done <= len(s.out.messages) - s.executed:
                s.executed += done
            s.naks += bool(frame.flags & lib.FRAME_NAK)
        if frame.type == lib.FRAME_DATA:
            s.inward.take(frame, s.board.first)
        elif frame.type == lib.FRAME_RESET:
            s.how = "the board knew it no more"
        elif frame.type == lib.FRAME_CLOSE:
            s.how = "closed by the board"

    @staticmethod
    def _of(port: _Port, frame: Frame) -> Session | None:
        s = port.session
        if s is None or (s.number, s.boot) != (frame.session, frame.boot):
            return None
        s.ended = frame.time
        return s


def boots(sessions: Iterable[Session]) -> Iterator[tuple[bool, Session]]:
    """Sessions, each with whether the board had started anew since the one before."""
    last: tuple[str, int] | None = None
    for session in sessions:
        this = session.device, session.board.boot  # a port opened again is another port
        yield this != last, session
        last = this
