"""Work on an executor: what is finished is handed over at once, Ctrl-C ends it in order.

The only seam is `concurrent.futures.Executor`: threads, processes and clusters look alike.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

from hwgle.errors import Interrupted

LOOK_SECONDS = 0.1
T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One task: what is called with what, and a tag by which its caller knows it."""

    tag: Any
    function: Callable[..., T]
    arguments: tuple[Any, ...]


def drive(
    executor: Executor,
    calls: Iterator[Call[T]],
    slots: int,
    stop: threading.Event,
    finished: Callable[[Any, T], None],
    tick: Callable[[], None],
    *,
    abandon: bool = False,
) -> None:
    """Run all calls, at most `slots` of them submitted at a time.

    finished(tag, result) and tick() (ten times a second) are called in this thread. When
    `stop` is set, or a call fails, nothing new is begun, and calls under way are waited for:
    they are expected to look at `stop`, or, with `abandon`, left to themselves. Calls that
    raise Interrupted or were cancelled are passed over. Raises what the first one that
    failed raised.
    """
    under_way: dict[Future[T], Any] = {}
    failed: Exception | None = None
    try:
        while True:
            while not stop.is_set() and len(under_way) < slots:
                call = next(calls, None)
                if call is None:
                    break
                under_way[executor.submit(call.function, *call.arguments)] = call.tag
            if not under_way or (abandon and stop.is_set()):
                break
            ended, _ = wait(under_way, LOOK_SECONDS, FIRST_COMPLETED)
            for future in ended:
                tag = under_way.pop(future)
                try:
                    result = future.result()
                except (Interrupted, CancelledError):
                    continue
                except Exception as error:
                    failed = failed or error
                    continue
                finished(tag, result)
            if failed is not None:
                stop.set()
            if stop.is_set():
                for future in under_way:
                    future.cancel()
            tick()
    except BaseException:  # whatever went wrong, nothing goes on behind the caller's back
        stop.set()
        for future in under_way:
            future.cancel()
        raise
    if failed is not None:
        raise failed


@contextmanager
def when_told_to_end(told: Callable[[], None]) -> Iterator[None]:
    """Calls `told` at Ctrl-C, at SIGTERM, and when the terminal is closed (SIGHUP, unless
    `nohup` is what ignores that one). Does nothing outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        told()

    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """Being told to end sets `stop`; a second time ends at once."""

    def told() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with when_told_to_end(told):
        yield
