"""The instructions of the core that a step executes, counted one by one, and the time that they
need at the least.

A core takes two vector instructions of 512 bits a cycle, as the peak loop (bench/peak.c) does:
what has N of them takes as long as N of the peak's. It reads two vectors a cycle and writes one,
and starts a product of tiles every 16 cycles. Of these, the one that takes longest, function by
function, is what a step needs at the least: as if nothing else took time, waited, or was in the
way. Narrower vectors and scalars are not counted. It holds for Intel's cores with two such units
(Skylake-SP and later). AMD's Zen 4 starts one product of 512 bits a cycle, as its peak shows, but
two additions: what is not a product needs up to half of what is told here.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI
from numpy.typing import NDArray

from hwgle import _core

SOURCE = Path(__file__).with_name("executed.c")
DECLARATIONS = """
    int32_t bench_count_on(uint32_t *counts, uint64_t low, uint64_t high);
    void bench_count_off(void);
"""
MACS = 32  # of a vector instruction of the peak loop
TILE_CYCLES = 16
LABEL = re.compile(r"^([0-9a-f]+) <(\S+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")
MOVE = re.compile(r"^vmov(dq|ap|up|nt)")
SUFFIX = re.compile(r"\.(constprop|isra|part|cold)\.?\d*")


COUNTED = ("amx", "vnni")  # tables whose vectors have 512 bits


class NoCount(Exception):
    """Instructions cannot be counted here: the message says why."""


@dataclass(frozen=True)
class Units:
    """What one instruction takes of a core: vector instructions, vectors read and written,
    products of tiles."""

    vector: int = 0
    read: int = 0
    written: int = 0
    tile: int = 0


@dataclass(frozen=True)
class Need:
    """What a function executed. instructions: all of them."""

    instructions: int
    vector: int
    read: int
    written: int
    tile: int

    @property
    def cycles(self) -> float:
        """At the least."""
        return max(self.vector / 2, self.read / 2, float(self.written), TILE_CYCLES * self.tile)


def units(name: str, operands: str) -> Units:
    """Of an instruction as objdump writes it (AT&T syntax)."""
    memory = "(" in operands
    if name.startswith("tdp"):
        return Units(tile=1)
    if name.startswith("kmov") or (name.startswith("k") and "%k" in operands):
        return Units(vector=1)
    if "%zmm" not in operands:
        return Units(vector=int("%k" in operands and name.startswith(("vpcmp", "vptest"))))
    if MOVE.match(name):
        stores = memory and operands.startswith("%")
        return Units(read=int(memory and not stores), written=int(stores))
    if "gather" in name:
        return Units(vector=1, read=8)  # sixteen numbers of four bytes, three a cycle at most
    whole = memory and "{1to" not in operands and not name.startswith(("vpbroadcast", "vpmov"))
    if name.startswith("vpbroadcast") and memory:
        return Units()
    return Units(vector=2 if name == "vpmulld" else 1, read=int(whole))


@cache
def compiled() -> Any:
    """executed.c as a module."""
    ffi = FFI()
    ffi.cdef(DECLARATIONS)
    name = "_hwgle_bench_executed"
    ffi.set_source(name, SOURCE.read_text(), extra_compile_args=["-std=gnu11", "-O1"])
    with tempfile.TemporaryDirectory() as folder:
        spec = importlib.util.spec_from_file_location(name, ffi.compile(tmpdir=folder))
        if spec is None or spec.loader is None:
            raise NoCount("what was built cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def placed() -> tuple[int, int]:
    """Where the core is in this process, from and to."""
    path = str(Path(_core.__file__).resolve())
    lines = [row.split() for row in Path("/proc/self/maps").read_text().splitlines()]
    parts = [row[0].split("-") for row in lines if row[-1] == path]
    if not parts:
        raise NoCount(f"{path} is not in /proc/self/maps")
    return min(int(a, 16) for a, _ in parts), max(int(b, 16) for _, b in parts)


def counted(work: Callable[[], None]) -> NDArray[np.uint32]:
    """How often each instruction of the core was executed, by its address in the file.

    Raises NoCount where the processor or the system has no such thing.
    """
    low, high = placed()
    module = compiled()
    counts = np.zeros(high - low, np.uint32)
    to = module.ffi.from_buffer("uint32_t[]", counts)
    if not module.lib.bench_count_on(to, low, high):
        raise NoCount("this processor has no trap flag that is known here")
    try:
        work()
    finally:
        module.lib.bench_count_off()
    if not counts.any():
        raise NoCount("nothing of the core was executed, or the trap flag does not work here")
    return counts


def listing() -> str:
    """The core, disassembled. Raises NoCount without objdump."""
    try:
        return subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", str(_core.__file__)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise NoCount(f"needs objdump (Debian: binutils): {error}") from error


def needs(counts: NDArray[np.uint32], disassembled: str) -> dict[str, Need]:
    """By function, of those that were executed."""
    sums: dict[str, NDArray[np.int64]] = {}
    function = ""
    for line in disassembled.splitlines():
        if (label := LABEL.match(line)) is not None:
            function = SUFFIX.sub("", label[2])
            continue
        found = INSTRUCTION.match(line)
        if found is None:
            continue
        times = int(counts[int(found[1], 16)]) if int(found[1], 16) < counts.size else 0
        if times:
            u = units(found[2], found[3])
            one = np.array([1, u.vector, u.read, u.written, u.tile], np.int64)
            sums[function] = sums.get(function, np.zeros(5, np.int64)) + times * one
    return {name: Need(*(int(x) for x in row)) for name, row in sums.items()}


def cycles(found: Mapping[str, Need], stage_of: Callable[[str], str]) -> dict[str, float]:
    """That the stages need at the least."""
    by: dict[str, float] = {}
    for name, need in found.items():
        stage = stage_of(name)
        by[stage] = by.get(stage, 0.0) + need.cycles
    return by


def microseconds(count: float, gmacs: float) -> float:
    """Of so many cycles, where the peak is `gmacs`."""
    return count * 2 * MACS / gmacs / 1e3
