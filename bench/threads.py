"""What two threads save, by the clock on the wall: they only pay where layers are large.

    python -m bench threads [--threads N] [--rounds N]

The same steps on one thread and on several, in turn; ratios of a round. Where no layer is
worth the wait for another core (csrc/host/crew.c) all run on one thread, and the ratio is 1.
A core that is busy with something else makes several threads slower than one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence

from bench.speed import WARM_UP, WORK, Case, Contestant, available, contestants, three_layers
from hwgle.devices.emulator import MOST_THREADS
from hwgle.network import Network

CALL_SECONDS = 0.5
BATCH = 100
NAMES = {"sgd": "train (SGD on the chip)", "adam": "train (Adam on the host)",
         "error": "errors, no learning", "infer": "inference"}  # fmt: skip


def on_threads(case: Case, table: str, threads: int) -> dict[str, Contestant]:
    """Kinds of step, by the name of WORK, on so many threads."""
    before = os.environ.get("HWGLE_THREADS")
    os.environ["HWGLE_THREADS"] = str(threads)
    try:
        found = contestants(case, [table])
    finally:
        os.environ.pop("HWGLE_THREADS")
        if before is not None:
            os.environ["HWGLE_THREADS"] = before
    return {work: field[f"hwgle {table}"] for work, field in found.items()}


def seconds(run: Contestant, steps: int) -> float:
    """By the clock on the wall."""
    begun = time.perf_counter()
    run(steps)
    return time.perf_counter() - begun


def compare(case: Case, table: str, threads: int, rounds: int) -> list[str]:
    """A row of the table for each kind of step."""
    sides = on_threads(case, table, 1), on_threads(case, table, threads)
    rows = []
    for work in WORK:
        one, several = (side[work] for side in sides)
        step = (seconds(one, WARM_UP) + seconds(several, WARM_UP)) / 2 / WARM_UP
        steps = min(case.steps, max(1, int(CALL_SECONDS / step)))
        times = [(seconds(one, steps) / steps, seconds(several, steps) / steps)
                 for _ in range(rounds)]  # fmt: skip
        ratios = [a / b for a, b in times]
        alone, shared = (statistics.median(side) * 1e3 for side in zip(*times, strict=True))
        rows.append(
            f"| {case.network.name} | {NAMES[work]} | {alone:.3g} | {shared:.3g} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f}) |"
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench threads`. Returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench threads", None, __doc__, formatter_class=raw)
    parser.add_argument("--threads", type=int, choices=range(2, MOST_THREADS + 1), default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    networks = [Network.load("mnist1d-15k"), Network.load("mnist1d-42k"),
                three_layers(255), three_layers()]  # fmt: skip
    table = available()[0]
    print(f"batch {BATCH}, kernels {table}, ms of a step by the clock\n")
    print(f"| network | step | 1 thread | {options.threads} threads | times as fast |")
    print("|---|---|---|---|---|", flush=True)
    try:
        for network in networks:
            case = Case(network, BATCH, 400, options.rounds)
            for row in compare(case, table, options.threads, options.rounds):
                print(row, flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
