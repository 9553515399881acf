"""What a core's units can do at the very most with vectors of 512 bits: how long instructions of a
kind take, and which kinds are in each other's way. Measured, as the peak is: cores differ, and
what a maker says of them is not what they do at the clock of this moment.

Kinds that share their units take as long as all of them one after the other, and are counted
together. Two kinds that share some of theirs take together what they took in turn. All vector
instructions take at the least what additions do, which any unit takes; all instructions, what it
takes to bring in those that need no unit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from bench import built
from bench.peak import peaks

READ, WRITE, GATHER, TILE, ADD, ANY = "read", "write", "gather", "tile", "add", "any"
# A kind's instruction, {r} the vector that it makes. Nothing waits: no result is read but sums'.
LOOPS = {
    ANY: "vpxor %%xmm0, %%xmm0, %%xmm0",  # two nops may be taken as one
    ADD: "vpaddd %%zmm30, %%zmm31, %%zmm{r}",
    "product": "vpdpwssd %%zmm30, %%zmm31, %%zmm{r}",
    "product of 32": "vpmulld %%zmm30, %%zmm31, %%zmm{r}",
    "saturated": "vpaddsw %%zmm30, %%zmm31, %%zmm{r}",
    "mask": "vpcmpgtd %%zmm30, %%zmm31, %%k1",
    "shift": "vpslld $1, %%zmm30, %%zmm{r}",
    "shuffle": "vpermd %%zmm30, %%zmm31, %%zmm{r}",
    READ: "vmovdqu64 64*({r}&7)(%1), %%zmm{r}",
    WRITE: "vmovdqu64 %%zmm30, 64*({r}&7)(%1)",
    GATHER: "kxnorw %%k1, %%k1, %%k2; vpgatherdd (%1,%%zmm31,4), %%zmm{r}%{{%%k2%}}",
}
VECTOR = ("product", "product of 32", "saturated", "mask", "shift", "shuffle")
DECLARATION = "void bench_units_run(int32_t which, int64_t rounds);"
LENGTH = 24  # instructions of a loop's body, each with a vector of its own
TILE_SHIFTS = 16  # a product of tiles begins every 16 cycles, a shift of 512 bits every cycle
SECONDS = 0.002  # CPU time of one measurement
TIMES = 20  # that all loops are measured in turn
SHARED = 0.97  # of the time of one after the other, from which on two kinds are one
ALIKE = 1.05  # times as long, up to which two kinds take as long


class NoUnits(Exception):
    """Nothing can be measured here: the message says why."""


@dataclass(frozen=True)
class Units:
    """seconds: of one instruction of each kind. groups: kinds of vector instructions that share
    their units. pairs: numbers of two groups that share some of theirs, and the seconds of an
    instruction where they come in turn."""

    seconds: Mapping[str, float]
    groups: Sequence[Sequence[str]]
    pairs: Mapping[tuple[int, int], float]

    def needs(self, counts: Mapping[str, int]) -> float:
        """Seconds that so many of each kind take at the least: what takes longest, as if nothing
        else took time, waited, or was in the way."""
        of = {kind: counts.get(kind, 0) * self.seconds[kind] for kind in self.seconds}
        by_group = [sum(of[kind] for kind in group) for group in self.groups]
        number = [sum(counts.get(kind, 0) for kind in group) for group in self.groups]
        every = (sum(number) + counts.get(ADD, 0)) * self.seconds[ADD]
        both = [(number[a] + number[b]) * each for (a, b), each in self.pairs.items()]
        single = (of[kind] for kind in (ANY, READ, WRITE, GATHER, TILE))
        return max(every, *single, *by_group, *both)


def grouped(
    alone: Mapping[str, float], in_turn: Mapping[tuple[str, str], float]
) -> tuple[list[list[str]], dict[tuple[int, int], float]]:
    """Groups and pairs of Units. alone: seconds of an instruction of each kind; in_turn: of one of
    each of two kinds."""
    groups: list[list[str]] = []
    for kind in alone:
        for group in groups:
            if all(in_turn[k, kind] >= SHARED * (alone[k] + alone[kind]) for k in group):
                group.append(kind)
                break
        else:
            groups.append([kind])
    pairs = {}
    for a, b in combinations(range(len(groups)), 2):
        one, other = groups[a][0], groups[b][0]
        short, long = sorted((alone[one], alone[other]))
        # The least of all: a pair of kinds says no more than its groups' most independent ones.
        each = min(in_turn[min(x, y, key=list(alone).index), max(x, y, key=list(alone).index)]
                   for x in groups[a] for y in groups[b]) / 2  # fmt: skip
        if long <= ALIKE * short and 2 * each > ALIKE * long:
            pairs[a, b] = each
    return groups, pairs


def _loop(number: int, kinds: Sequence[str]) -> str:
    """The C function of a loop in which kinds come in turn."""
    body = "".join(f'"{LOOPS[kinds[r % len(kinds)]].format(r=r)}\\n\\t"' for r in range(LENGTH))
    changed = ", ".join(f'"xmm{r}"' for r in range(16))
    # Vectors from the sixteenth on and masks are not named as changed: nothing else has them here.
    return f"""
static void loop{number}(int64_t rounds)
{{
    __asm__ volatile("vpxord %%zmm30, %%zmm30, %%zmm30\\n\\tvpxord %%zmm31, %%zmm31, %%zmm31\\n\\t"
                     ".p2align 5\\n1:\\n\\t" {body} "dec %0\\n\\tjnz 1b\\n\\tvzeroupper"
                     : "+r"(rounds) : "r"(memory) : "cc", "memory", {changed});
}}
"""


def _source(loops: Sequence[Sequence[str]]) -> str:
    """In assembly, as bench/peak.c."""
    calls = "".join(f"    case {n}: loop{n}(rounds); break;\n" for n in range(len(loops)))
    return f"""
#include <stdint.h>
static char memory[64 * 8] __attribute__((aligned(64)));
{"".join(_loop(n, kinds) for n, kinds in enumerate(loops))}
void bench_units_run(int32_t which, int64_t rounds)
{{
    switch (which) {{
{calls}    }}
}}
"""


class Meter:
    """Measures this core's units, again and again: of all times the best counts."""

    def __init__(self) -> None:
        """Raises NoUnits where it does not have these instructions, or they cannot be compiled."""
        if "vnni" not in peaks():
            raise NoUnits("this processor has no AVX-512 VNNI")
        self._loops: list[tuple[str, ...]] = [(kind,) for kind in LOOPS]
        self._loops += combinations(VECTOR, 2)
        source = _source(self._loops)
        try:
            self._lib: Any = built.module("_hwgle_bench_units", source, DECLARATION).lib
        except RuntimeError as error:
            raise NoUnits(str(error)) from error
        self._best = [float("inf")] * len(self._loops)  # seconds of a round
        self._rounds = [1000] * len(self._loops)

    def measure(self) -> None:
        """All loops in turn, some times: a shared machine slows down for a second at a time."""
        for _ in range(TIMES):
            for number, rounds in enumerate(self._rounds):
                begun = time.process_time()
                self._lib.bench_units_run(number, rounds)
                spent = (time.process_time() - begun) / rounds
                self._best[number] = min(self._best[number], spent)
                self._rounds[number] = max(rounds, int(SECONDS / self._best[number]))

    def units(self) -> Units:
        """By what was measured until now, once at the least."""
        each = {k: b / LENGTH * len(k) for k, b in zip(self._loops, self._best, strict=True)}
        seconds = {kind: each[kind,] for kind in LOOPS}
        seconds[ANY] *= LENGTH / (LENGTH + 1)  # the loop's own end, that is one more
        seconds[TILE] = TILE_SHIFTS * seconds["shift"]
        groups, pairs = grouped(
            {kind: seconds[kind] for kind in VECTOR},
            {(a, b): each[a, b] for a, b in combinations(VECTOR, 2)},
        )
        return Units(seconds, groups, pairs)
