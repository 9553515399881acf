"""Questions and answers over a port.

A board answers in the order of the requests, and acts in that order; a request that only
acts has no answer. When the board refuses one, it passes over all behind it up to a SYNC:
so does this side, and every answer that was still to come raises that refusal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import NoReturn

from hwgle.devices.messages import Message, enum_names, name_of, pack, unpack
from hwgle.devices.port import Port
from hwgle.errors import DeviceError, DeviceRefused

REASONS = enum_names("message_reason", "REASON_")
TEXTS = {
    "unknown": "its firmware does not know this request",
    "malformed": "the request is malformed",
    "no_model": "no network is loaded",
    "out_of_service": "the last set of weights or snapshot was not written to its end",
    "no_memory": "it does not fit: {need} bytes are needed, {have} are there",
    "bad_image": "the image breaks a rule of the core",
    "bad_crc": "the data arrived with CRC {need:08x} instead of {have:08x}",
    "bad_value": "a value of {have} where at most {need} is allowed",
    "order": "out of order: position {need} was due, {have} came",
    "too_long": "the answer of {need} bytes does not fit its messages of {have}",
    "bad_snapshot": "the snapshot belongs to another network, chip or batch, or is damaged",
}


class Answer(ABC):
    """What a request will bring. Subclasses say what belongs to it, and when it is complete."""

    failed: DeviceError | None = None
    done = False

    @abstractmethod
    def take(self, message: Message) -> bool:
        """Take in a message; True when it was the last one.

        Raises DeviceError for one that is no part of this answer.
        """

    def refuse(self, message: Message) -> DeviceError:
        """The error for a message that does not belong here."""
        return DeviceError(f"the board sent {message.name} where {type(self).__name__} was due")


class One(Answer):
    """An answer of one message."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.message: Message | None = None

    def take(self, message: Message) -> bool:
        """See Answer."""
        if message.name != self._name:
            raise self.refuse(message)
        self.message = message
        return True


class Dialogue:
    """Requests and their answers on one port."""

    def __init__(self, port: Port, name: str) -> None:
        self.port, self.name = port, name
        self._due: deque[Answer] = deque()
        self._cookie = 0
        self._skip: int | None = None  # cookie of the SYNC behind a refusal
        self.acted = False  # since the last answer that proved that nothing was refused

    def act(self, name: str, *values: int, tail: bytes = b"") -> None:
        """Send a request that has no answer. Its refusal is raised by a later call."""
        self.port.send(pack(name, *values, tail=tail))
        self.acted = True

    def ask(self, answer: Answer, messages: Iterable[bytes]) -> Answer:
        """Send requests that together bring one answer."""
        asked = list(messages)
        before = self.port.sent
        try:
            self._due.append(answer)
            self.port.send_all(asked)
        except BaseException:
            # Ctrl-C may come when they are under way already: then their answer will too.
            if self.port.sent == before and answer in self._due:
                self._due.remove(answer)
            raise
        return answer

    def one(self, name: str, answer: str, *values: int, tail: bytes = b"") -> Message:
        """Send a request and wait for its answer of one message."""
        waited = One(answer)
        self.ask(waited, [pack(name, *values, tail=tail)])
        self.wait(waited)
        assert waited.message is not None
        return waited.message

    def wait(self, answer: Answer) -> None:
        """Wait for an answer that was asked for.

        Raises DeviceRefused when the board refused it or something before it, and what a
        port raises. After Ctrl-C it can be waited for again.
        """
        while not answer.done:
            if answer.failed is not None:
                raise answer.failed
            self._pump()

    def sync(self) -> None:
        """Wait until the board has executed everything sent so far. Raises DeviceRefused."""
        cookie = self._next_cookie()
        message = self.one("SYNC", "SYNCED", cookie)
        if message.cookie != cookie:
            raise DeviceError(f"{self.name}: SYNCED {message.cookie} instead of {cookie}")
        self.acted = False

    def _pump(self) -> None:
        message = unpack(self.port.receive())
        if self._skip is not None:
            if message.name == "SYNCED" and message.cookie == self._skip:
                self._skip = None
            return
        if message.name == "REFUSED":
            self._refused(message)
        if not self._due:
            raise DeviceError(f"{self.name}: the board sent {message.name} unasked")
        if self._due[0].take(message):
            self._due.popleft().done = True

    def _refused(self, message: Message) -> NoReturn:
        """Everything that was due is void, and whatever comes before the next SYNCED."""
        error = refusal(self.name, message)
        while self._due:
            self._due.popleft().failed = error
        self._skip = self._next_cookie()
        self.port.send(pack("SYNC", self._skip))
        self.acted = False
        raise error

    def _next_cookie(self) -> int:
        self._cookie = self._cookie + 1 & 0xFFFFFFFF
        return self._cookie


def refusal(name: str, message: Message) -> DeviceRefused:
    """The error that a REFUSED message is."""
    reason = REASONS.get(message.reason, f"reason {message.reason}")
    text = TEXTS.get(reason, reason).format(need=message.need, have=message.have)
    request = name_of(bytes([message.message]))
    return DeviceRefused(
        f"{name} refused {request} (request {message.number}): {text}",
        request,
        reason,
        int(message.need),
        int(message.have),
    )
