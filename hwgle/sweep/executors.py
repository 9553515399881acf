"""Where the work of a sweep is done: processes of this machine, or a dask cluster.

Both are `concurrent.futures.Executor`s; nothing else of a sweep knows which it is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from hwgle.errors import DeviceError, UsageError
from hwgle.sweep import work
from hwgle.undisturbed import undisturbed

CONNECT_SECONDS = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """An executor. count: tasks at a time; remote: workers do not see this machine's files
    and cannot be told to stop; halt: tells the others."""

    executor: Executor
    count: int
    remote: bool = False
    halt: Callable[[], None] = lambda: None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Pool(ProcessPoolExecutor):
    """Starts its processes as work comes in, which is when Ctrl-C may come in too."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        with undisturbed():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def local(count: int) -> Iterator[Workers]:
    """Processes of this machine."""
    context = get_context("spawn")
    stop = context.Event()
    pool = _Pool(count, mp_context=context, initializer=_begin, initargs=(stop,))
    try:
        yield Workers(pool, count, halt=stop.set)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(stop: Any) -> None:
    """In a worker: Ctrl-C is the parent's, and a worker whose parent was killed ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    work.set_stop(stop.is_set)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent.sentinel,), daemon=True).start()


def _outlive(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@contextmanager
def cluster(address: str) -> Iterator[Workers]:
    """The workers of a dask scheduler. Raises UsageError without dask.distributed or where
    `address` is none, DeviceError where nobody answers or there are no workers."""
    try:
        import distributed as untyped
    except ImportError:
        raise UsageError(
            "--scheduler needs dask.distributed: pip install 'hwgle[cluster]'"
        ) from None
    distributed: Any = untyped
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except ValueError as error:
        text = f"--scheduler: found {address!r} ({error}); allowed: tcp://HOST:PORT"
        raise UsageError(text) from None
    except (OSError, TimeoutError) as error:
        raise DeviceError(f"--scheduler {address}: no scheduler answers ({error})") from None
    with client:
        count = sum(client.ncores().values())
        if not count:
            raise DeviceError(f"--scheduler {address}: it has no workers")
        # pure=False: a task that was cancelled by one client is not another one's result
        executor = client.get_executor(pure=False)
        try:
            yield Workers(executor, count, remote=True)
        finally:
            executor.shutdown(wait=False)
