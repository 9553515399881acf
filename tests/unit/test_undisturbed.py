"""Ctrl-C at any moment of starting processes: the parent hears of it, no child complains."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from multiprocessing.connection import Connection

import pytest

from hwgle.report.floats import FloatPool
from hwgle.undisturbed import undisturbed

STARTS = 8
SEED = 20261122
# A pool is left at once, entered or not; the first work goes out while its processes start.
PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from hwgle.report.floats import FloatPool
for _ in range(int(sys.argv[1])):
    try:
        print("go", flush=True)
        with FloatPool(2) as pool:
            while True:
                time.sleep(0.01)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
def test_interrupted_while_a_pool_starts() -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(STARTS)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    watchdog = threading.Timer(300, parent.kill)  # an interruption that is lost ends in a failure
    watchdog.start()
    try:
        for _ in range(STARTS):
            assert parent.stdout.readline() == "go\n"
            time.sleep(draw.uniform(0, 0.4))
            os.killpg(parent.pid, signal.SIGINT)
            assert parent.stdout.readline() == "interrupted\n"
        _, errors = parent.communicate(timeout=300)
    finally:
        watchdog.cancel()
        parent.kill()
    assert parent.returncode == 0
    assert errors == ""


@pytest.mark.skipif(os.name != "posix", reason="connections of another kind")
def test_a_pool_that_has_ended_has_nothing_left_to_take_down() -> None:
    """What is freed later would run destructors wherever Ctrl-C happens to come, and lose it."""

    def alive() -> list[Connection]:
        return [c for c in gc.get_objects() if isinstance(c, Connection)]

    others = alive()
    with FloatPool(1) as pool:
        connections = [weakref.ref(c) for c in alive() if not any(c is other for other in others)]
        assert connections
    assert [c() for c in connections] == [None] * len(connections)
    del pool


def test_a_signal_meanwhile_is_delivered_when_leaving() -> None:
    reached = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted() -> None:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == ["the end"]


def test_in_another_thread_it_does_nothing() -> None:
    entered = []

    def work() -> None:
        with undisturbed():
            entered.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [before]
