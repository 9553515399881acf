"""A soak: one training for many minutes over a line with flipped bits, its board reset again
and again.

    PYTHONPATH=. python tests/link/soak.py --minutes 30 --out bench/results/faults/soak.md

The firmware as a process learns, takes increments and tells its weights. Every line to it
flips bits and presses the board's button at a frame drawn anew each time, in the middle of
whatever is under way. Each block is compared with the emulator's by digest, and once a minute
everything is with an emulator that nothing disturbed. Memory and descriptors of both
processes must stay what they were.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fault_matrix import markdown, written

from hwgle.boards import start_host
from hwgle.device import Block
from hwgle.devices import resuming
from hwgle.devices.emulator import Emulator
from hwgle.devices.faults import FaultLine, Faults
from hwgle.devices.line import Line, open_line
from hwgle.devices.port import FAST
from hwgle.devices.resuming import ResumingDevice
from hwgle.devices.serial import SerialDevice
from hwgle.devices.shadow import ShadowedDevice

FRAMES_TO_RESET = (300, 6000)  # of a line, drawn between these
KEEP_SHARE = 2.0  # journals so short that a replay hardly meets the next reset
WARM_SHARE = 0.2  # of the time, after which memory must be flat
GROWTH = 1 << 20, 1 << 18  # bytes here and on the board: pages come and go
HEAD = ["minute", "blocks", "steps", "kB on the wire", "flips", "sent again", "resets",
        "resumed", "descriptors", "memory, kB", "of the board", "digest"]  # fmt: skip


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@dataclass
class Lines:
    """Every line that was opened to the board, and what it carried in all."""

    running: Any
    flip: float
    seed: int
    opened: int = 0
    bytes: int = 0
    faults: int = 0
    resets: int = 0
    line: FaultLine | None = None

    def open(self) -> Line:
        """The next one, with faults and a reset of its own."""
        self.told()
        rng = np.random.default_rng([self.seed, self.opened])
        self.opened += 1
        reset = frozenset({("out", int(rng.integers(*FRAMES_TO_RESET)))})
        faults = Faults(flip=self.flip, reset=reset, seed=int(rng.integers(2**32)))
        self.line = FaultLine(open_line(self.running.port, 115200), faults, self.press)
        return self.line

    def press(self) -> None:
        """The board's button."""
        self.resets += 1
        self.running.reset()

    def told(self) -> None:
        """Add what the line of now has carried, and forget it."""
        if self.line is not None:
            ways = [way.struck for way in self.line.ways.values()]
            self.bytes += sum(s.bytes for s in ways)
            self.faults += sum(s.faults for s in ways)
            self.line = None


@dataclass
class Sample:
    """Once a minute. memory: bytes here and on the board."""

    minute: float
    blocks: int
    steps: int
    bytes: int
    faults: int
    again: int
    resets: int
    resumed: int
    descriptors: tuple[int, int]
    memory: tuple[int, int]
    digest: int

    def row(self) -> list[str]:
        here, there = self.descriptors
        return [f"{self.minute:.0f}", str(self.blocks), str(self.steps), str(self.bytes // 1000),
                str(self.faults), str(self.again), str(self.resets), str(self.resumed),
                f"{here} + {there}", str(self.memory[0] // 1024), str(self.memory[1] // 1024),
                f"{self.digest:016x}"]  # fmt: skip


class Soaked:
    """The board, its twin that nothing disturbs, and what both are asked for."""

    def __init__(self, device: ResumingDevice, twin: Emulator, seed: int) -> None:
        self.device, self.twin = device, twin
        self.script = written(rounds=1)
        self.rng = np.random.default_rng([seed, 7])
        self.blocks = self.steps = 0
        for body in (device, twin):
            body.load(self.script.q.image, self.script.case.batch, uhat=False)
            body.write_weights(self.script.weights)

    def round(self) -> None:
        """Eight blocks, four of them under way at once, each with increments behind it."""
        q, pending = self.script.q, []
        for _ in range(8):
            x, y = self.rng.permutation(q.input), q.target
            shift = int(self.rng.integers(2, 6))
            sign = int(self.rng.choice([-1, 1]))
            more = {k: (sign * w, sign * b) for k, (w, b) in self.script.increments.items()}
            block = Block(x, y, learn=True, record=[(0, "r")])
            wanted = []
            for body in (self.device, self.twin):
                body.set_rate(shift)
                wanted.append(body.submit(block))
                body.add_weights(more)
            pending.append(wanted)
            if len(pending) == 4:
                self.compare(*pending.pop(0))
            self.blocks += 1
            self.steps += x.shape[0]
        for wanted in pending:
            self.compare(*wanted)

    @staticmethod
    def compare(got: Any, want: Any) -> None:
        assert np.array_equal(got.result().signals[0], want.result().signals[0])

    def same(self) -> int:
        """Everything there is to compare; the digest."""
        digest = self.device.digest()
        assert digest == self.twin.digest(), "a wrong digest"
        assert self.device.weights_digest() == self.twin.weights_digest(), "wrong weights"
        assert self.device.snapshot() == self.twin.snapshot(), "a wrong snapshot"
        return digest


def soak(
    seconds: float, flip: float, seed: int, every: float = 60.0,
    say: Callable[[Sample], None] = lambda _: None,
) -> list[Sample]:  # fmt: skip
    """Run it. Raises AssertionError or NotEqual where a bit differs, and what else went wrong
    and was not survived."""
    samples: list[Sample] = []
    again = 0
    resuming.KEEP_SHARE = KEEP_SHARE
    with start_host(payload=256, window=4) as running, Emulator() as twin:
        lines = Lines(running, flip, seed)
        body = SerialDevice(lines.open(), "board", FAST, again=lines.open)

        def resumed(_: object) -> None:
            nonlocal again
            again += sent_before[0]

        with ResumingDevice(ShadowedDevice(body), resumed, keep_after=0.0) as device:
            sent_before = [0]
            soaked = Soaked(device, twin, seed)
            begun = time.monotonic()
            for k in range(1, max(1, round(seconds / every)) + 1):
                while time.monotonic() < begun + k * every:
                    soaked.round()
                    sent_before[0] = body.port.statistics()["retransmitted"]
                digest = soaked.same()
                here = lines.line
                ways = [way.struck for way in here.ways.values()] if here is not None else []
                pids = os.getpid(), running.pid
                sample = Sample(
                    minute=k * every / 60,
                    blocks=soaked.blocks,
                    steps=soaked.steps,
                    bytes=lines.bytes + sum(s.bytes for s in ways),
                    # what is planned counts as a fault of its direction, too
                    faults=lines.faults + sum(s.faults for s in ways) - lines.resets,
                    again=again + sent_before[0],
                    resets=lines.resets,
                    resumed=len(device.resumptions),
                    descriptors=(descriptors(pids[0]), descriptors(pids[1])),
                    memory=(resident(pids[0]), resident(pids[1])),
                    digest=digest,
                )
                samples.append(sample)
                say(sample)
    return samples


def flat(samples: list[Sample]) -> None:
    """Descriptors are those of the beginning, memory that after it was warm.

    Raises AssertionError.
    """
    assert len({s.descriptors for s in samples}) == 1, [s.descriptors for s in samples]
    warm = samples[int(WARM_SHARE * len(samples)) :]
    half = (len(warm) + 1) // 2
    for which, most in enumerate(GROWTH):
        memory = [s.memory[which] for s in warm]
        assert max(memory[half:], default=0) - max(memory[:half]) <= most, memory


def main(argv: list[str]) -> int:
    """Soak and tell."""
    parser = argparse.ArgumentParser(description="A soak.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--flip", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    every = min(60.0, 6 * given.minutes)
    print("  ".join(HEAD), flush=True)
    samples = soak(
        60 * given.minutes, given.flip, given.seed, every,
        lambda s: print("  ".join(s.row()), flush=True),
    )  # fmt: skip
    flat(samples)
    last = samples[-1]
    here, there = (most // 1024 for most in GROWTH)
    text = f"""# Soak

    PYTHONPATH=. python tests/link/soak.py --minutes {given.minutes:g} --flip {given.flip:g} \
--seed {given.seed}

{given.minutes:g} minutes on `host:`, bits flipped at {given.flip:g} for each byte and way, the
board reset {last.resets} times at frames that were drawn. Every block's digest was the
emulator's, and once a minute digest, weights and the whole snapshot were those of an emulator
that nothing disturbed. Descriptors (here + of the board) never changed; after the first fifth of
the time memory did not grow, the most of the second half against that of the first, by more
than {here} kB here and {there} kB on the board: any of these would have ended the run.

{markdown([HEAD, *(s.row() for s in samples)])}
"""
    if given.out is not None:
        given.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
