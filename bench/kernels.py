"""The products of a batch, kernel by kernel: what of the core's peak each of them reaches.

    python -m bench kernels [--rounds N] [--cpu N] [--tables amx,vnni,avx2] [WIDTH ...]

A layer as wide as its input, 100 streams, one core, CPU time, medians over the rounds; the peak
loop (bench/peak.c) is measured in each round, and the share is of the round's own. forward and
transposed: W r and W^T e with the packing of r or e, sums not known to fit int32. outer: e r^T
summed over the streams, with turning r. learn: the same, and the weights learn, rounded at
random. copy: the weights as the array sees them and transposed, where a table multiplies with
copies: not a product, so that only its time is told, for as many weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench import built
from bench.peak import Peak, peaks

ROOT = Path(__file__).resolve().parent.parent
WHAT = ("forward", "transposed", "outer", "learn", "copy")
WIDTHS = (53, 90, 750)
BATCH = 100
SECONDS = 0.004  # CPU time of one measurement
TYPES = """
    typedef struct {
        int32_t n, m, columns, streams, stride, stride_t;
        int16_t *w, *seen, *seen_t, *x, *e, *pairs, *turned;
        int32_t *out, *sums;
    } bench_layer;
    int32_t bench_kernel(const char *table, int32_t what, const bench_layer *b, int32_t rounds);
"""


@cache
def compiled() -> Any:
    """The core's sources with kernels.c, built in a temporary directory."""
    sys.path.insert(0, str(ROOT / "csrc"))
    from build_core import CORE_AARCH64, CORE_PORTABLE, CORE_X86, HOST

    flags = ["-std=c11", "-O3", "-g0", "-ffp-contract=off", "-fno-math-errno"]
    core = CORE_X86 + CORE_AARCH64 + CORE_PORTABLE + HOST
    return built.module(
        "_hwgle_bench_kernels",
        (ROOT / "bench/kernels.c").read_text(),
        TYPES,
        sources=[str(ROOT / "csrc" / file) for file in core],
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args=[*flags, "-fvisibility=hidden"],
        libraries=["m"],
    )


class Layer:
    """Weights, rates and errors of a layer as wide as its input, drawn."""

    def __init__(self, width: int, batch: int) -> None:
        rng = np.random.default_rng(width)
        columns, stride = -(-batch // 16) * 16, -(-width // 16) * 16
        deep = -(-width // 64) * 64
        self.lib, self._ffi = compiled().lib, compiled().ffi
        self._kept: list[Any] = []
        self.width, self.batch = width, batch

        def memory(count: int, kind: str) -> Any:
            # from a cache line on, as in the core
            size = 2 if kind == "int16_t" else 4
            room = np.zeros(count * size + 64, np.uint8)
            self._kept.append(room)
            at = self._ffi.from_buffer("char[]", room) + -room.ctypes.data % 64
            return self._ffi.cast(f"{kind} *", at)

        def fill(to: Any, rows: int, used: int, step: int, limit: int) -> Any:
            values = np.zeros((rows, step), np.int16)
            values[:, :used] = rng.integers(-limit, limit + 1, (rows, used))
            self._ffi.memmove(to, values.tobytes(), values.nbytes)
            return to

        b = self.layer = self._ffi.new("bench_layer *")
        b.n = b.m = width
        b.columns, b.streams, b.stride, b.stride_t = columns, batch, stride, stride
        b.w = fill(memory(width * stride, "int16_t"), width, width, stride, 32764)
        b.seen = fill(memory(width * stride, "int16_t"), width, width, stride, 8191)
        b.seen_t = fill(memory(width * stride, "int16_t"), width, width, stride, 8191)
        b.x = fill(memory(width * columns, "int16_t"), width, batch, columns, 8191)
        b.e = fill(memory(width * columns, "int16_t"), width, batch, columns, 8191)
        b.pairs = memory(deep * columns, "int16_t")
        b.turned = memory(stride * -(-columns // 64) * 64, "int16_t")
        b.out = memory(width * max(stride, columns), "int32_t")
        b.sums = memory(4 * stride, "int32_t")

    def seconds(self, table: str, what: int, rounds: int) -> float:
        """CPU time of so many calls."""
        begun = time.process_time()
        self.lib.bench_kernel(table.encode(), what, self.layer, rounds)
        return time.process_time() - begun

    def rounds(self, table: str, what: int) -> int:
        """Calls that take about SECONDS."""
        count = 4
        while (took := self.seconds(table, what, count)) < SECONDS / 4 and count < 1 << 16:
            count *= 4
        return max(1, int(count * SECONDS / max(took, 1e-6)))


def measure(layer: Layer, table: str, top: Peak, rounds: int) -> list[str]:
    """A row of the table."""
    macs = layer.width**2 * layer.batch
    calls = [layer.rounds(table, k) for k in range(len(WHAT))]
    took: list[list[float]] = [[] for _ in WHAT]
    share: list[list[float]] = [[] for _ in WHAT]
    for _ in range(rounds):
        peak = top.gmacs()
        for k, count in enumerate(calls):
            one = layer.seconds(table, k, count) / count
            took[k].append(one)
            share[k].append(macs / one / 1e9 / peak)
    cells = [str(layer.width), table]
    for k in range(len(WHAT) - 1):
        gmacs = macs / statistics.median(took[k]) / 1e9
        cells.append(f"{gmacs:.0f} ({100 * statistics.median(share[k]):.0f} %)")
    copy = statistics.median(took[-1])
    forward = statistics.median(took[0])
    cells.append("none" if copy < forward / 1000 else f"{copy / forward:.2f} of a product")
    return cells


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("widths", nargs="*", type=int, metavar="WIDTH")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cpu", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--tables", default="amx,vnni,avx2")
    options = parser.parse_args(argv)
    os.sched_setaffinity(0, {options.cpu})
    tops = peaks()
    print(f"| wide | table | {' | '.join(WHAT)} |")
    print("|" + "---|" * (len(WHAT) + 2))
    for width in options.widths or WIDTHS:
        layer = Layer(width, BATCH)
        for table in options.tables.split(","):
            top = tops.get("avx2" if table == "avx2" else "vnni")
            if top is None or not layer.lib.bench_kernel(table.encode(), 0, layer.layer, 0):
                continue
            print(f"| {' | '.join(measure(layer, table, top, options.rounds))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
