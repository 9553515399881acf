"""What a core could do at the very most: int16 multiply-accumulates, and bytes read or copied.

peak.c is compiled when the bench runs (cffi, a temporary directory), so that nothing of it
is in the installed package.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI

from bench import built

DECLARATIONS = """
    int32_t bench_peak_macs(int32_t vnni);
    void bench_peak_run(int32_t vnni, int64_t rounds);
    void bench_read(const char *from, size_t bytes, int64_t rounds);
    void bench_copy(char *both, size_t bytes, int64_t rounds);
"""
SOURCE = Path(__file__).with_name("peak.c")
INSTRUCTIONS = {"avx2": 0, "vnni": 1}  # by kernel table
SECONDS = 0.01  # CPU time of one measurement
TURN = 256  # bytes that a turn of bench_read or bench_copy takes


class Peak:
    """The peak of one core with the instructions of one kernel table, avx2 or vnni."""

    def __init__(self, name: str, lib: Any) -> None:
        self.name = name
        self._lib, self._which = lib, INSTRUCTIONS[name]
        self._macs = int(lib.bench_peak_macs(self._which))
        self._rounds = 10_000
        while (seconds := self._time()) < SECONDS:
            self._rounds = int(self._rounds * min(10.0, 1.2 * SECONDS / max(seconds, 1e-6))) + 1

    def gmacs(self) -> float:
        """Measure once, about 10 ms of CPU time: 10^9 multiply-accumulates per second."""
        return self._rounds * self._macs / self._time() / 1e9

    def _time(self) -> float:
        begun = time.process_time()
        self._lib.bench_peak_run(self._which, self._rounds)
        return time.process_time() - begun


class Memory:
    """What one core reads from, or copies within, `size` bytes that are as near as they
    can be: in the cache that holds them all, else in DRAM."""

    def __init__(self, size: int) -> None:
        """Raises RuntimeError where peak.c cannot be compiled."""
        self._lib = _compiled()
        half = max(TURN, size // 2 // TURN * TURN)
        self.size = 2 * half
        # From a cache line on, and written once, so that there is memory behind it.
        self._memory = np.ones(self.size + 64, dtype=np.uint8)
        self._offset = -self._memory.ctypes.data % 64
        self._ffi = FFI()
        self._rounds = {"read": 1, "copy": 1}
        for what in self._rounds:
            while (seconds := self._time(what)) < SECONDS:
                more = min(100.0, 1.2 * SECONDS / max(seconds, 1e-7))
                self._rounds[what] = int(self._rounds[what] * more) + 1

    def read(self) -> float:
        """GB/s of one reading after the other, about 10 ms of CPU time."""
        return self._rounds["read"] * self.size / self._time("read") / 1e9

    def copy(self) -> float:
        """The same of copying, bytes read and bytes written both counted."""
        return self._rounds["copy"] * self.size / self._time("copy") / 1e9

    def _time(self, what: str) -> float:
        pointer = self._ffi.from_buffer("char[]", self._memory) + self._offset
        begun = time.process_time()
        if what == "read":
            self._lib.bench_read(pointer, self.size, self._rounds[what])
        else:
            self._lib.bench_copy(pointer, self.size // 2, self._rounds[what])
        return time.process_time() - begun


def peaks() -> dict[str, Peak]:
    """Those that this CPU has, by name.

    Raises:
        RuntimeError: no compiler, no Python headers, or none of the instructions; says which.
    """
    lib = _compiled()
    found = {n: Peak(n, lib) for n, which in INSTRUCTIONS.items() if lib.bench_peak_macs(which)}
    if not found:
        raise RuntimeError("no AVX2 on this CPU")
    return found


@cache
def _compiled() -> Any:
    source = SOURCE.read_text()
    return built.module("_hwgle_bench_peak", source, DECLARATIONS, extra_compile_args=["-O2"]).lib
