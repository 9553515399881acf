"""Ctrl-C while processes of our own are being started.

A terminal sends SIGINT to every process of its group. A child that gets it before it can
ignore it dies with a traceback, and a parent that raises KeyboardInterrupt half-way through
handing over the child's work leaves a child that dies with another.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType


@contextmanager
def undisturbed() -> Iterator[None]:
    """Processes that start in here never get SIGINT (where the system has signal masks), and
    one that comes meanwhile is delivered to this process when leaving."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True

    # The handler as well as the mask: a signal that this thread holds back is taken by
    # another thread of the process, and Python then interrupts this one all the same.
    before = signal.signal(signal.SIGINT, remember)
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        # It starts with the first semaphore, and unblocks SIGINT when it has (Python 3.11).
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)
