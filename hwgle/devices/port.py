"""Ports: a line to a board with the link on it, driven by one thread.

The thread owns the line and the link's state machine (csrc/link). Callers queue messages
and wait, with deadlines; whatever ends the session is raised in every call after it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hwgle._core import ffi, lib
from hwgle.devices.line import Line, Unplugged
from hwgle.devices.messages import name_of
from hwgle.errors import BoardReset, DeviceError, DeviceTimeout, LinkLost, LinkRefused

# direction "out" (to the board) or "in", the bytes, time.monotonic()
Observer = Callable[[str, bytes, float], None]
# Of every port that is opened in this context: what a session recorder sets.
recorder: ContextVar[Observer | None] = ContextVar("recorder", default=None)

CLOSE_WITHIN = 0.2  # seconds for the farewell to leave
JOIN_WITHIN = 2.0
WINDOW = 32
PAYLOAD = 4096
STUCK_LOOK = 0.05  # seconds between two looks at the link's timers while the line takes nothing
REASONS = {
    lib.LINK_SILENT: "the board has fallen silent",
    lib.LINK_STALLED: "the board lives, but nothing that is sent arrives",
    lib.LINK_NO_ANSWER: "no answer",
    lib.LINK_NO_SUCH_SESSION: "the board has restarted: it knows no session",
    lib.LINK_NEW_SESSION: "somebody else has opened the board",
    lib.LINK_OTHER_BOOT: "the board has restarted",
    lib.LINK_BY_PEER: "the board has ended the session",
}


@dataclass(frozen=True)
class Timing:
    """The link's times in ms (csrc/link/link.h), and how long an answer may take in s."""

    rto_initial: int = 200
    rto_least: int = 20
    rto_most: int = 1000
    keepalive: int = 250
    silent_after: int = 1800
    stalled_after: int = 5000
    open_within: int = 2000
    answer_within: float = 10.0


FAST = Timing()
# An emulated board on a loaded machine: single writes have been seen to stall for 5.6 s.
GENEROUS = Timing(
    rto_initial=1000,
    rto_least=100,
    rto_most=4000,
    keepalive=1000,
    silent_after=15000,
    stalled_after=30000,
    open_within=15000,
    answer_within=60.0,
)


@dataclass(frozen=True)
class Hello:
    """What the board told when the session began; data: of its upper layer."""

    version: int
    protocol: int
    boot: int
    payload: int
    window: int
    data: bytes


class Port:
    """An open session with a board. Use from one thread; close() from any.

    Raises LinkLost, BoardReset or LinkRefused from every call once the session has ended.
    """

    def __init__(
        self,
        line: Line,
        name: str,
        timing: Timing = FAST,
        *,
        window: int = WINDOW,
        payload: int = PAYLOAD,
        protocol: int | None = None,
        observer: Observer | None = None,
        wrap_in: int | None = None,
    ) -> None:
        """wrap_in: for tests, ms until the link's clock of 32 bits wraps."""
        self.name, self.timing = name, timing
        self._clock = 0 if wrap_in is None else -wrap_in - _now()
        self.observer = observer or recorder.get()
        self._line = line
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[bytes] = deque()  # not yet in the link
        self._inbox: deque[bytes] = deque()
        self._names: deque[str] = deque()  # of requests in the link, from _confirmed on
        self._confirmed = 0
        self._fed = 0  # messages that have left the queue
        self._opened = False
        self._stop = False
        self._ended: DeviceError | None = None
        self._moved = time.monotonic()
        try:
            self._link = self._make_link(window, payload, protocol)
        except BaseException:
            line.close()
            raise
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"hwgle {name}", daemon=True)
        self._thread.start()

    def _make_link(self, window: int, payload: int, protocol: int | None) -> Any:
        t = self.timing
        config = ffi.new("link_config *")
        config.initiator, config.boot = 1, int.from_bytes(os.urandom(4), "little")
        config.protocol = lib.message_list_crc() if protocol is None else protocol
        config.rx_window = config.tx_window = window
        config.rx_payload = config.tx_payload = payload
        for key in ("rto_initial", "rto_least", "rto_most", "keepalive", "silent_after",
                    "stalled_after", "open_within"):  # fmt: skip
            setattr(config, key, getattr(t, key))
        need = lib.link_bytes(config)
        assert need, "a link configuration that breaks a limit"
        arena = ffi.new("uint64_t[]", (need + 7) // 8)
        made = ffi.new("link_state **")
        status = lib.link_init(arena, need, config, made)
        assert status == lib.LINK_OK, status
        self._keep = (arena, config)
        self._protocol = int(config.protocol)
        return made[0]

    # --- what callers do ------------------------------------------------------------

    def open(self) -> Hello:
        """Wait for the session. Raises LinkLost without an answer, LinkRefused."""
        deadline = time.monotonic() + self.timing.open_within / 1000 + 1.0
        with self._lock:
            while not self._opened:
                self._raise_if_ended()
                if not self._changed.wait(deadline - time.monotonic()) and not self._opened:
                    self._raise_if_ended()
                    raise DeviceTimeout(f"{self.name}: the link did not open in time")
            return self._peer()

    def send(self, message: bytes) -> int:
        """Queue a message; returns its number in the session."""
        with self._lock:
            self._raise_if_ended()
            number = self._count()
            self._queue.append(message)
        self._wake()
        return number

    def send_all(self, messages: list[bytes]) -> None:
        """Queue several messages: all or, when this raises before that, none; see sent."""
        with self._lock:
            self._raise_if_ended()
            self._queue.extend(messages)  # one call, which Ctrl-C does not cut in two
        self._wake()

    @property
    def sent(self) -> int:
        """Messages queued in this session."""
        with self._lock:
            return self._count()

    def _count(self) -> int:
        return self._fed + len(self._queue)

    def receive(self) -> bytes:
        """The next message of the board.

        Raises DeviceTimeout when for timing.answer_within seconds nothing was confirmed
        and nothing came, and what ended the session, after what came before its end.
        """
        with self._lock:
            self._moved = max(self._moved, time.monotonic())
            while not self._inbox:
                self._raise_if_ended()
                self._wait_for_progress("answered")
            return self._inbox.popleft()

    def arrived(self) -> bool:
        """Whether receive() would return at once. Raises what ended the session."""
        with self._lock:
            if not self._inbox:
                self._raise_if_ended()
            return bool(self._inbox)

    def wait_confirmed(self, number: int | None = None) -> None:
        """Wait until the board has executed all messages up to a number (all: None)."""
        with self._lock:
            need = self._count() if number is None else number + 1
            self._moved = max(self._moved, time.monotonic())
            while self._confirmed < need:
                self._raise_if_ended()
                self._wait_for_progress("confirmed")

    @property
    def largest(self) -> int:
        """The largest message of this session in bytes."""
        with self._lock:
            return int(lib.link_largest(self._link))

    @property
    def unconfirmed(self) -> int:
        """Requests that the board has not confirmed yet."""
        with self._lock:
            return self._count() - self._confirmed

    def statistics(self) -> dict[str, int]:
        """The link's counters since the port was opened."""
        counts = ffi.new("link_statistics *")
        with self._lock:
            lib.link_get_statistics(self._link, counts)
        names = [name for name, _ in ffi.typeof("link_statistics").fields]
        return {name: int(getattr(counts, name)) for name in names}

    def close(self) -> None:
        """End the session and let go of the line; never waits long, safe to call twice."""
        with self._lock:
            self._stop = True
            if self._ended is None:
                self._ended = DeviceError(f"{self.name} is closed")
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_WITHIN)
        if self._thread.is_alive():
            self._line.close()  # a driver that does not return: nothing better can be done

    def _wait_for_progress(self, what: str) -> None:
        """Sleep until something happens; the lock is held."""
        left = self._moved + self.timing.answer_within - time.monotonic()
        if left <= 0:
            number, name = self._first_unconfirmed()
            behind = "" if number is None else f"; not confirmed: number {number} ({name})"
            raise DeviceTimeout(
                f"{self.name}: the link is alive, but nothing was {what} for "
                f"{self.timing.answer_within:g} s{behind}"
            )
        self._changed.wait(left)

    def _raise_if_ended(self) -> None:
        if self._ended is not None:
            # A new object each time: tracebacks would otherwise grow on the old one.
            raise _copy(self._ended)

    def _first_unconfirmed(self) -> tuple[int | None, str | None]:
        if self._names:
            return self._confirmed, self._names[0]
        return (self._fed, name_of(self._queue[0])) if self._queue else (None, None)

    def _peer(self) -> Hello:
        p = lib.link_peer(self._link)
        data = bytes(ffi.buffer(p.hello, p.hello_bytes))
        return Hello(p.version, p.protocol, p.boot, p.rx_payload, p.rx_window, data)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_out.send(b"\0")

    # --- what the thread does ---------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except Unplugged as error:
            self._end(LinkLost, f"{self.name}: unplugged ({error})")
        except Exception as error:  # must reach the caller, who would wait for ever
            self._end(LinkLost, f"{self.name}: the port's thread failed ({error!r})")
        finally:
            self._line.close()
            self._wake_in.close()
            self._wake_out.close()

    def _loop(self) -> None:
        line, buffer = self._line, ffi.new("uint8_t[]", PAYLOAD)
        view = memoryview(ffi.buffer(buffer))
        out = b""
        with self._lock:
            lib.link_open(self._link, self._time())
        goodbye = None
        while True:
            data = line.read()
            if data and self.observer is not None:
                self.observer("in", data, time.monotonic())
            with self._lock:
                now = self._time()
                if data:
                    lib.link_receive(self._link, now, data, len(data))
                self._collect(bool(data))
                if self._stop and goodbye is None:
                    lib.link_close(self._link)
                    goodbye = time.monotonic() + CLOSE_WITHIN
                if goodbye is None:
                    self._feed()
                # Without room too: its timers must run when the line takes nothing any more.
                room = 0 if out else max(0, min(PAYLOAD, line.room()))
                n = lib.link_poll(self._link, now, buffer, room)
                out = out or bytes(view[:n])
                self._collect(False)
                wait = lib.link_next_deadline(self._link, now)
                over = self._ended is not None and goodbye is None
            if over:
                return
            if out:
                n = line.write(out)
                if n and self.observer is not None:
                    self.observer("out", out[:n], time.monotonic())
                out = out[n:]
            elif goodbye is not None and not line.backlog():
                return
            if goodbye is not None and time.monotonic() > goodbye:
                return
            self._sleep(wait, bool(out), goodbye)

    def _time(self) -> int:
        return _now() + self._clock & 0xFFFFFFFF

    def _sleep(self, wait: int, blocked: bool, goodbye: float | None) -> None:
        """Until bytes come, the link or the line has something to do, or somebody calls."""
        line = self._line
        if line.descriptor is None:
            self._drain_wake()
            return  # its reads are timed
        seconds = 3600.0 if wait == lib.LINK_NEVER else wait / 1000
        due = line.due()
        if blocked or (seconds == 0 and line.paced and line.room() <= 0):
            seconds = STUCK_LOOK
        if due is not None:
            seconds = min(seconds, due)
        if goodbye is not None:
            seconds = min(seconds, CLOSE_WITHIN / 4)
        if _wait([line.descriptor, self._wake_in.fileno()], blocked or line.backlog(), seconds):
            self._drain_wake()

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)

    def _feed(self) -> None:
        """From the queue into the link, as far as it has room."""
        while self._queue and lib.link_room(self._link) > 0:
            message = self._queue.popleft()
            status = lib.link_send(self._link, message, len(message), ffi.NULL)
            if status != lib.LINK_OK:
                raise DeviceError(f"the link refused {name_of(message)} (status {status})")
            self._names.append(name_of(message))
            self._fed += 1

    def _collect(self, received: bool) -> None:
        """Messages and events out of the link; the lock is held."""
        link, news = self._link, False
        if received:
            at, n = ffi.new("const uint8_t **"), ffi.new("size_t *")
            while lib.link_message(link, at, n) == lib.LINK_OK:
                self._inbox.append(bytes(ffi.buffer(at[0], n[0])))
                lib.link_consumed(link)
                news = True
            if self._opened:
                confirmed = int(lib.link_confirmed(link))
                while self._confirmed < confirmed:
                    self._names.popleft()
                    self._confirmed += 1
                    news = True
        event = ffi.new("link_event *")
        while lib.link_next_event(link, event) == lib.LINK_OK:
            self._take_event(event)
            news = True
        if news:
            self._moved = time.monotonic()
            self._changed.notify_all()

    def _take_event(self, event: Any) -> None:
        if event.kind == lib.LINK_OPENED:
            self._opened = True
        elif event.kind == lib.LINK_REFUSED:
            self._end_locked(LinkRefused(self._both_sides()))
        elif not self._stop:
            kind = BoardReset if event.kind == lib.LINK_RESET else LinkLost
            text = f"{self.name}: {REASONS.get(event.reason, 'the session has ended')}"
            if event.reason == lib.LINK_NO_ANSWER:
                text += f" within {self.timing.open_within / 1000:g} s (is it powered, flashed "
                text += "with hwgle's firmware, at this baud rate?)"
            self._end_locked(kind(text, *self._first_unconfirmed()))

    def _both_sides(self) -> str:
        p, own = self._peer(), self._keep[1]
        return (
            f"{self.name}: host and board do not speak the same protocol\n"
            f"  host:  link version {lib.LINK_VERSION}, messages {self._protocol:08x}, "
            f"payload {own.rx_payload}, window {own.rx_window}\n"
            f"  board: link version {p.version}, messages {p.protocol:08x}, "
            f"payload {p.payload}, window {p.window}\n"
            "build and flash the firmware that belongs to this hwgle"
        )

    def _end(self, kind: type[LinkLost], text: str) -> None:
        with self._lock:
            self._end_locked(kind(text, *self._first_unconfirmed()))

    def _end_locked(self, error: DeviceError) -> None:
        if self._ended is None:
            self._ended = error
        self._changed.notify_all()


def _now() -> int:
    return time.monotonic_ns() // 1_000_000 & 0xFFFFFFFF


def _wait(descriptors: list[int], write: bool, seconds: float) -> bool:
    """Until the first is readable (or writable), the second readable; True for the latter."""
    first, second = descriptors
    if not hasattr(select, "poll"):
        ready, _, _ = select.select(descriptors, [first] if write else [], [], seconds)
        return second in ready
    poll = select.poll()
    poll.register(first, select.POLLIN | (select.POLLOUT if write else 0))
    poll.register(second, select.POLLIN)
    return any(fd == second for fd, _ in poll.poll(seconds * 1000))


def _copy(error: DeviceError) -> DeviceError:
    copy = type(error).__new__(type(error))
    copy.args, copy.__dict__ = error.args, dict(error.__dict__)
    return copy
