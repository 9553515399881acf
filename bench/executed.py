"""The instructions of the core that a step executes, counted one by one, by kind.

What they need at the least (bench/units.py) is told function by function, as if nothing else took
time, waited, or was in the way. Of narrower vectors and scalars it is told only that they are
instructions; conditional jumps are not, since most are one with what comes before them.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import built
from bench.units import ADD, ANY, GATHER, READ, TILE, WRITE
from hwgle import _core

SOURCE = Path(__file__).with_name("executed.c")
DECLARATIONS = """
    int32_t bench_count_on(uint32_t *counts, uint64_t low, uint64_t high);
    void bench_count_off(void);
"""
LABEL = re.compile(r"^([0-9a-f]+) <(\S+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")
MOVE = re.compile(r"^vmov(dq|ap|up|nt)")
SUFFIX = re.compile(r"\.(constprop|isra|part|cold)\.?\d*")


KINDS = (  # of vector instructions: the first that fits a name
    ("product of 32", r"vpmulld"),
    ("product", r"vpdp|vpmul|vpmadd"),
    ("shift", r"vps[lr][la]|vpro[lr]|vpsh[lr]d"),
    ("mask", r"vpcmp|vptest|vpmov[bwdq]2m"),
    ("saturated", r"vpabs|vpadds|vpsubs"),
    ("shuffle", r"vperm|vpshuf|vpack|vpalignr|valign|vshuf|vextract|vinsert|vpmov"),
)
COUNTED = ("amx", "vnni")  # tables whose vectors have 512 bits
TO_MEMORY = re.compile(r"\)(\{%k\d\})?$")
JUMP = re.compile(r"^j(?!mp)")


class NoCount(Exception):
    """Instructions cannot be counted here: the message says why."""


def kinds(name: str, operands: str) -> tuple[str, ...]:
    """Of an instruction as objdump writes it (AT&T syntax), what it takes of a core."""
    return () if JUMP.match(name) else (ANY, *_vectors(name, operands))


def _vectors(name: str, operands: str) -> tuple[str, ...]:
    """The same, but that it is an instruction."""
    memory = "(" in operands
    if name.startswith("tdp"):
        return (TILE,)
    if "%zmm" not in operands:
        return ()
    if MOVE.match(name):
        if not memory:
            return ()
        return (WRITE,) if operands.startswith("%") else (READ,)
    if "gather" in name:
        return (GATHER,)
    if memory and (name.startswith(("vpbroadcast", "vbroadcast")) or TO_MEMORY.search(operands)):
        return ()  # half a vector and less, and no unit but those that read and write
    whole = memory and "{1to" not in operands and not name.startswith(("vpmov", "vinsert"))
    kind = next((k for k, pattern in KINDS if re.match(pattern, name)), ADD)
    return (kind, READ) if whole else (kind,)


@cache
def compiled() -> Any:
    """executed.c as a module."""
    name, source = "_hwgle_bench_executed", SOURCE.read_text()
    return built.module(name, source, DECLARATIONS, extra_compile_args=["-std=gnu11", "-O1"])


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


def by_function(counts: NDArray[np.uint32], disassembled: str) -> dict[str, dict[str, int]]:
    """How many of each kind, of the functions that were executed."""
    sums: dict[str, Counter[str]] = {}
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
            of = sums.setdefault(function, Counter())
            for kind in kinds(found[2], found[3]):
                of[kind] += times
    return {name: dict(of) for name, of in sums.items()}
