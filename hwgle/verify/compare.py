"""The same stream on a body and on the emulator, block by block, down to the first bit.

Digests are compared after each block while the next ones are under way. The first
difference ends that: from a snapshot that both sides have in common the steps are halved
until one is left that makes equal states unequal.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hwgle.device import Device, Pending
from hwgle.devices.emulator import Emulator
from hwgle.quantise import Quantised
from hwgle.snapshot import Difference, differences, step_of
from hwgle.verify.drawing import BLOCK, Blocks

UNDER_WAY = 3
KEPT = 12  # snapshots of the beginnings of blocks, to go back to
Progress = Callable[[int, int, str], None]


@dataclass
class Located:
    """The first difference. step: number since the reset of the first step whose states
    differ, None if it did not come again. block: (first, count) of the block whose digest
    told. found: what differs, causes first; behind that step, or where it did not come
    again behind the last block that was under way. written: no step makes it; a state that
    was written to the body before `step` reads back otherwise."""

    step: int | None
    block: tuple[int, int]
    digests: tuple[int, int]
    found: list[Difference]
    seen_after: int
    runs: int = 0
    written: bool = False


@dataclass
class Outcome:
    """What a comparison gave. digest: after the last step, of both. updates: that changed a
    weight; weights_changed: different at the end; moves: of scales by the auto-ranging."""

    steps: int
    blocks: int
    digest: int
    body_seconds: float
    emulator_seconds: float
    snapshot_bytes: int = 0
    updates: int = 0
    located: Located | None = None
    weights_changed: int = 0
    moves: int = 0


@dataclass(frozen=True)
class _UnderWay:
    first: int
    count: int
    pending: Pending
    digest: int


class Comparison:
    """A body and the emulator, both loaded with one network."""

    def __init__(
        self, body: Device, emulator: Emulator, blocks: Blocks, stored: Quantised, uhat: bool
    ) -> None:
        self._body, self._emulator, self._blocks = body, emulator, blocks
        self._uhat = uhat
        self._network, self._batch = blocks.image.network, blocks.run.batch
        self._learner = blocks.image.learner
        self._stored = stored
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._runs = 0

    def run(self, progress: Progress | None = None) -> Outcome:
        """All steps, or up to the first difference."""
        total = self._blocks.run.steps
        depth = 1 if self._body.limits.immediate else UNDER_WAY
        under_way: deque[_UnderWay] = deque()
        outcome = Outcome(0, 0, 0, 0.0, 0.0)
        begun = time.perf_counter()

        def settle() -> bool:
            one = under_way.popleft()
            records = one.pending.result()
            got = records.digests[-1][1] if records.digests else self._body.digest()
            if got != one.digest:
                outcome.located = self._locate(one, got, under_way)
                return False
            outcome.steps, outcome.blocks = one.first + one.count, outcome.blocks + 1
            outcome.digest = one.digest
            outcome.body_seconds = (
                time.perf_counter() - begun - outcome.emulator_seconds * (depth == 1)
            )
            if progress is not None:
                progress(outcome.steps, total, _rates(outcome))
            return True

        for first, count in self._blocks.run.spans(0, total):
            block = self._blocks.block(first, count)
            self._kept.append((first, self._emulator.snapshot()))
            pending = self._body.submit(block)
            started = time.perf_counter()
            self._emulator.run(block)
            outcome.emulator_seconds += time.perf_counter() - started
            under_way.append(_UnderWay(first, count, pending, self._emulator.digest()))
            if len(under_way) >= depth and not settle():
                return outcome
        while under_way:
            if not settle():
                return outcome
        self._finish(outcome)
        return outcome

    def _finish(self, outcome: Outcome) -> None:
        """The complete state at the end: also what no digest covers, such as counters."""
        ours, theirs = self._emulator.snapshot(), self._body.snapshot()
        outcome.snapshot_bytes = len(ours)
        if found := differences(self._network, self._batch, theirs, ours, self._learner):
            last = (outcome.steps - 1) // BLOCK * BLOCK
            block = (last, outcome.steps - last)
            digests = (outcome.digest, outcome.digest)
            located = Located(None, block, digests, found, outcome.steps)
            outcome.located = self._go_back(located)
            return
        counters = self._emulator.counters()
        outcome.updates = sum(c["updates"] - c["under_w"] for c in counters)
        outcome.moves = sum(c["range_moves"] for c in counters)
        after = self._emulator.read_weights()
        outcome.weights_changed = sum(
            int(np.count_nonzero(after[name][0] != w)) for name, (w, _) in self._stored.items()
        )

    def _locate(self, one: _UnderWay, got: int, rest: deque[_UnderWay]) -> Located:
        for other in rest:
            other.pending.result()
        after = rest[-1] if rest else one
        found = self._differences()
        end = after.first + after.count
        digests = (got, one.digest)
        return self._go_back(Located(None, (one.first, one.count), digests, found, end))

    def _go_back(self, located: Located) -> Located:
        """From ever earlier snapshots, until the difference comes again."""
        end = sum(located.block)
        for first, snapshot in reversed(self._kept):
            if first > located.block[0]:
                continue
            if self._restore(snapshot):
                # Writing the state and reading it back differ: no step is needed.
                located.step, located.found = first, self._differences()
                located.written = True
                return located
            if found := self._advance(first, end):
                return self._halve(located, first, end, snapshot, found)
        located.runs = self._runs
        return located

    def _halve(
        self, located: Located, equal: int, unequal: int, snapshot: bytes, found: list[Difference]
    ) -> Located:
        """`snapshot`: after step `equal`, of both sides."""
        while unequal - equal > 1:
            middle = (equal + unequal) // 2
            self._restore(snapshot)
            if now := self._advance(equal, middle):
                unequal, found = middle, now
            else:
                equal, snapshot = middle, self._emulator.snapshot()
        located.step, located.found, located.seen_after = equal, found, unequal
        located.found = sorted([*found, *self._hidden(equal, snapshot)], key=lambda d: d.order)
        located.runs = self._runs
        return located

    def _hidden(self, step: int, snapshot: bytes) -> list[Difference]:
        """uhat, which snapshots hold of the last layer only."""
        pairs = [(k, "uhat") for k in range(len(self._network.layers) - 1)]
        if not self._uhat or not pairs:
            return []
        self._restore(snapshot)
        block = replace(self._blocks.block(step, 1), record=pairs)
        theirs = self._body.submit(block).result()
        ours = self._emulator.run(block)
        found = []
        for (k, kind), a, b in zip(pairs, theirs.signals, ours.signals, strict=True):
            for _, stream, neuron in np.argwhere(a != b):
                values = int(a[0, stream, neuron]), int(b[0, stream, neuron])
                found.append(Difference(k, kind, kind, (int(neuron), int(stream)), *values))
        return found

    def _restore(self, snapshot: bytes) -> bool:
        """Both to that state; whether the body's differs from what was written."""
        self._body.restore(snapshot)
        self._emulator.restore(snapshot)
        assert step_of(snapshot) == step_of(self._emulator.snapshot())
        return self._body.snapshot() != snapshot

    def _advance(self, first: int, end: int) -> list[Difference]:
        """Both from step `first` to `end`; what differs then."""
        for at, count in self._blocks.run.spans(first, end):
            block = self._blocks.block(at, count)
            self._body.submit(block).result()
            self._emulator.run(block)
        self._runs += 1
        return self._differences()

    def _differences(self) -> list[Difference]:
        ours = self._emulator.snapshot()
        theirs = self._body.snapshot()
        return differences(self._network, self._batch, theirs, ours, self._learner)


def _rates(outcome: Outcome) -> str:
    body = outcome.steps / max(outcome.body_seconds, 1e-9)
    emulator = outcome.steps / max(outcome.emulator_seconds, 1e-9)
    return f"{body:,.0f} steps/s, emulator {emulator:,.0f}"
