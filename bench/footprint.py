"""Memory: bytes that a chip takes, and that none of it grows with the steps.

Bytes are those of `gle_arena_bytes` (weights, states, scratch) on this machine, and what
a board needs for the same, image and buffers included. A long run must leave the arena,
its size, and the process as large as they were.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.curves import plot_bytes
from bench.figures import Figure, document, exact, write
from bench.growth import deep, weights_of, wide
from bench.machine import describe
from bench.speed import check_folders, one_thread, smooth, three_layers
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator, arena_bytes
from hwgle.network import Network
from hwgle.preflight.memory import board_bytes
from hwgle.quantise import Image, build_image, quantise_weights, to_int16
from hwgle.weights import initial

SEED = 0
BATCHES = (1, 2, 16, 100, 256)
STEPS, LOOKS = 1_000_000, 10
BLOCK = 2000  # steps of a call
GROWN = 1 << 20  # bytes of the process that are no growth: what Python keeps for itself


@dataclass(frozen=True)
class Bytes:
    """Of one body. body: emu, or board (batch 1). states: what is not stored weights and
    biases: copies, states, scratch. gradient: with room to read it out."""

    body: str
    network: str
    neurons: int
    weights: int
    batch: int
    gradient: bool
    bytes: int
    states: int


@dataclass(frozen=True)
class Steady:
    """Of one long run: resident bytes of the process and bytes of arena and snapshot at
    each look, the first one after the first block."""

    network: str
    steps: int
    resident: list[int]
    arena: list[int]
    snapshot: list[int]

    @property
    def grown(self) -> int:
        """Bytes that the process has grown from the first look to the last."""
        return self.resident[-1] - self.resident[0]

    @property
    def flat(self) -> bool:
        """Whether nothing grew."""
        return self.grown <= GROWN and len({*self.arena}) == len({*self.snapshot}) == 1


def networks() -> list[Network]:
    """What is looked at."""
    small = [Network.load("mnist1d-15k"), Network.load("mnist1d-42k"), three_layers()]
    return [*small, wide(128), wide(2048), deep(2048)]


def image_of(network: Network, batch: int) -> tuple[Image, Any]:
    """An image, and its weights."""
    rng = np.random.default_rng(SEED)
    weights = initial(network, SEED)
    chip = Chip.load("ideal")
    few = smooth(rng, (10, 2, network.inputs)).astype(np.float64)
    classes = rng.integers(0, network.outputs, 2)
    scales = calibrate(network, chip, weights, few, classes, FOR_TRAINING)
    return build_image(network, chip, scales, batch=batch, learning_rate=2.0**-14), weights


def count(network: Network) -> list[Bytes]:
    """Of one network, all batches and bodies."""
    image, _ = image_of(network, 1)
    weights, neurons = weights_of(network), sum(network.sizes)
    stored = 2 * weights + 4 * neurons
    rows = []
    for gradient in (False, True):
        for batch in BATCHES:
            need = arena_bytes(image, batch, gradient=gradient, uhat=False)
            rows.append(
                Bytes("emu", network.name, neurons, weights, batch, gradient, need, need - stored)
            )
    need = board_bytes(network, Chip.load("ideal"), 1, 0)
    rows.append(Bytes("board", network.name, neurons, weights, 1, False, need, need - stored))
    return rows


def resident() -> int:
    """Bytes of this process in memory; 0 where nobody tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def steady(network: Network, steps: int = STEPS) -> Steady:
    """Run so many steps of one stream, learning and with the auto-ranging on."""
    image, weights = image_of(network, 1)
    x = smooth(np.random.default_rng(SEED), (BLOCK, 1, network.inputs))
    x16, _ = to_int16(x, image.scales.input, image.chip.input_max)
    y = np.zeros(1, dtype=np.int16)
    found = Steady(network.name, steps, [], [], [])
    with Emulator() as body:
        body.load(image, 1, uhat=False)
        body.write_weights(quantise_weights(image, weights))
        done = 0
        for look in range(LOOKS + 1):
            until = max(1, steps * look // LOOKS)
            while done < until:
                some = min(BLOCK, until - done)
                body.run(Block(x16[:some], y, learn=True, ranging=True))
                done += some
            found.snapshot.append(len(body.snapshot()))
            found.arena.append(arena_bytes(image, 1, uhat=False))
            found.resident.append(resident())
    return found


def figures(rows: Sequence[Bytes], run: Steady | None) -> list[Figure]:
    """Bytes, and whether they stay; all exact."""
    found = []
    for r in rows:
        what = f"memory/{r.network}/{r.body}, batch {r.batch}{', gradient' * r.gradient}/bytes"
        found.append(exact(what, r.bytes))
    if run is not None:
        name = f"memory/{run.network}/{run.steps} steps/grows"
        found.append(exact(name, float(not run.flat)))
    return found


def table(rows: Sequence[Bytes], run: Steady | None) -> str:
    """As Markdown."""
    heads = ("network", "weights", "neurons", "a board, batch 1",
             *(f"batch {b}" for b in BATCHES), f"batch {BATCHES[-2]} + gradient")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name in dict.fromkeys(r.network for r in rows):
        of_name = [r for r in rows if r.network == name]
        plain = {r.batch: r for r in of_name if r.body == "emu" and not r.gradient}
        board = next(r for r in of_name if r.body == "board")
        gradient = next(r for r in of_name if r.gradient and r.batch == BATCHES[-2])
        cells = [f"{r.bytes / 1024:,.0f} K ({r.bytes / r.weights:.1f})"
                 for r in (board, *(plain[b] for b in BATCHES), gradient)]  # fmt: skip
        first = (name, f"{board.weights:,}", f"{board.neurons:,}")
        lines.append(f"| {' | '.join((*first, *cells))} |")
    lines += ["", "In brackets: bytes for each weight, of which 2 are the stored weight itself."]
    if run is not None:
        told = "nothing grew" if run.flat else "IT GREW"
        lines.append(
            f"{run.steps:,} learning steps of {run.network}: {told} (process "
            f"{run.grown / 1024:+.0f} K from {run.resident[0] / 1048576:.1f} M; arena and "
            f"snapshot {run.arena[-1]:,} and {run.snapshot[-1]:,} bytes throughout)."
        )
    return "\n".join(lines)


def details(rows: Sequence[Bytes], run: Steady | None) -> dict[str, Any]:
    """All that was found, for the file."""
    return {
        "memory": {
            "bytes": [asdict(row) for row in rows],
            "steady": asdict(run) if run is not None else None,
        }
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench memory`. Returns 1 if anything grew."""
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}; 0: none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw them")
    options = parser.parse_args(argv)
    if options.steps < 0:
        parser.error("--steps: allowed: 0 or more")
    check_folders(parser, options.json, options.plot)
    try:
        with one_thread():
            rows = [row for network in networks() for row in count(network)]
            run = steady(Network.load("mnist1d-15k"), options.steps) if options.steps else None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(table(rows, run))
    if options.json:
        found = document(describe(), figures(rows, run), {"memory": SEED}, details(rows, run))
        write(options.json, found)
    if options.plot:
        plot_bytes(rows, options.plot)
    return 0 if run is None or run.flat else 1
