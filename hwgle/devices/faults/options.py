"""Faults as a device string asks for them: `fault+host:?flip=1e-5&mute=in40&seed=3`.

`out` is the way to the board, `in` the way from it. Frames and bytes are counted from 0 in
their direction; probabilities are for each byte unless it is said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from hwgle.errors import UsageError

WAYS = ("out", "in")
KINDS = ("flip", "drop", "dup", "insert", "burst")
Places = frozenset[tuple[str, int]]
NOWHERE: Places = frozenset()


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    flip, drop, dup, insert: one byte; burst: up to BURST bytes from there become others; with
    _at: at these bytes. What is inserted, behind a byte, is as often a delimiter as not.
    seed: of all that is drawn.
    lose, twice: frames that never arrive, or arrive twice. reset: the board's button is
    pressed before the frame is handed on. mute: from this frame on its direction carries
    nothing. stall: before this frame nothing moves for stall_ms, either way. eio: reading or
    writing fails from there on, unplug: the line is gone. intruder: another host opens the
    board there.
    pace: bits per second, 0 for none. latency, jitter: ms later, and up to so many more.
    batch: ms between two moments at which bytes arrive (a USB adapter's 16).
    short, again: probability, for each write and read, that only a part of it is done, or
    nothing (EAGAIN). noise: bytes that a board throws at the host when it boots.
    skew: the board's baud rate over the host's; both ways are sampled at the wrong times.
    messages, version: what the board's HELLO is made to say, as of other firmware.
    wrap: ms from the beginning until the host's clock of 32 bits wraps.
    """

    flip: float = 0.0
    drop: float = 0.0
    dup: float = 0.0
    insert: float = 0.0
    burst: float = 0.0
    seed: int = 0
    flip_at: Places = NOWHERE
    drop_at: Places = NOWHERE
    dup_at: Places = NOWHERE
    insert_at: Places = NOWHERE
    burst_at: Places = NOWHERE
    lose: Places = NOWHERE
    twice: Places = NOWHERE
    reset: Places = NOWHERE
    mute: Places = NOWHERE
    stall: Places = NOWHERE
    eio: Places = NOWHERE
    unplug: Places = NOWHERE
    intruder: Places = NOWHERE
    stall_ms: int = 500
    pace: int = 0
    latency: int = 0
    jitter: int = 0
    batch: int = 0
    short: float = 0.0
    again: float = 0.0
    noise: int = 0
    skew: float = 1.0
    messages: int | None = None
    version: int | None = None
    wrap: int | None = None

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Faults:
        """From a device string's options. Raises UsageError naming all that are wrong."""
        values: dict[str, object] = {}
        wrong = []
        for key, text in options.items():
            allowed, read = ALLOWED[key]
            try:
                values[key] = read(text)
            except ValueError:
                wrong.append(f"fault {key}={text}: {allowed}")
        if wrong:
            raise UsageError("\n".join(wrong))
        made = cls(**values)  # type: ignore[arg-type]
        if (total := sum(getattr(made, kind) for kind in KINDS)) > 1:
            raise UsageError(f"fault {'+'.join(KINDS)}={total:g}: together at most 1")
        return made

    def unplanned(self) -> Faults:
        """Without what strikes at a certain frame or byte."""
        keys = (*FRAME_KEYS, *(f"{kind}_at" for kind in KINDS))
        return replace(self, **dict.fromkeys(keys, NOWHERE))  # type: ignore[arg-type]

    def places(self) -> Places:
        """All frames at which something is planned."""
        planned = (getattr(self, name) for name in FRAME_KEYS)
        return frozenset(place for places in planned for place in places)


FRAME_KEYS = ("lose", "twice", "reset", "mute", "stall", "eio", "unplug", "intruder")


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _ratio(text: str) -> float:
    value = float(text)
    if not 0.25 <= value <= 4:
        raise ValueError
    return value


def _whole(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text, 0)
        if not 0 <= value <= most:
            raise ValueError
        return value

    return read


def _places(text: str) -> Places:
    return frozenset(_place(part) for part in text.split(","))


def _place(text: str) -> tuple[str, int]:
    for way in WAYS:
        if text.startswith(way) and text[len(way) :].isdecimal():
            return way, int(text[len(way) :])
    raise ValueError


DAY = 86_400_000  # ms
_PROBABILITY = "a probability, 0..1", _probability
_MILLISECONDS = "milliseconds, 0..86400000", _whole(DAY)
_FRAMES = "frames such as out3 or out3,in7", _places
_BYTES = "bytes such as out3 or out3,in7", _places
# key -> what may stand there, and what reads it
ALLOWED: dict[str, tuple[str, Callable[[str], object]]] = {
    **dict.fromkeys((*KINDS, "short", "again"), _PROBABILITY),
    "seed": ("an integer, 0..4294967295", _whole(2**32 - 1)),
    **dict.fromkeys((f"{kind}_at" for kind in KINDS), _BYTES),
    **dict.fromkeys(FRAME_KEYS, _FRAMES),
    **dict.fromkeys(("stall_ms", "latency", "jitter", "batch", "wrap"), _MILLISECONDS),
    "pace": ("bits per second, 0..100000000", _whole(10**8)),
    "noise": ("bytes, 0..65536", _whole(65536)),
    "skew": ("the board's rate over the host's, 0.25..4", _ratio),
    "messages": ("a number of 32 bits, the CRC of a list of messages", _whole(2**32 - 1)),
    "version": ("a number, 0..65535, the version of the link", _whole(65535)),
}
KEYS = tuple(f.name for f in fields(Faults))
