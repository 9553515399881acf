"""All benches in one run: `python -m bench all`, for bench/baseline.json and its pictures.

./run bench all --json bench/baseline.json --out bench/results/speed
./run bench compare                                # a quick run of now against it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import footprint, growth, limits, products, speed
from bench.curves import plot_bytes, plot_products
from bench.figures import Figure, document, write
from bench.machine import describe
from bench.products import Neurons, Products
from bench.show import plot
from bench.show import table as speed_table
from hwgle.boards.description import load, names
from hwgle.errors import DeviceError
from hwgle.network import Network

QUICK_STEPS = 100_000
SEEDS = {"speed": speed.SEED, "growth": growth.SEED, "memory": footprint.SEED,
         "boards": products.SEED}  # fmt: skip


@dataclass
class Everything:
    """What a run has found."""

    machine: Mapping[str, str]
    results: list[speed.Result] = field(default_factory=list)
    peaks: Mapping[str, float] = field(default_factory=dict)
    without: str = ""
    points: list[growth.Point] = field(default_factory=list)
    bytes: list[footprint.Bytes] = field(default_factory=list)
    steady: footprint.Steady | None = None
    counted: list[Products] = field(default_factory=list)
    neurons: list[Neurons] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """All that can be compared."""
        return [
            *speed.figures(self.results),
            *growth.figures(self.points),
            *growth.flat(self.points),
            *footprint.figures(self.bytes, self.steady),
            *products.figures(self.counted, self.neurons),
        ]

    def document(self) -> dict[str, Any]:
        """For the file."""
        told = (
            speed.details(self.results, self.peaks)
            | growth.details(self.points)
            | footprint.details(self.bytes, self.steady)
            | products.details(self.counted, self.neurons)
        )
        return document(self.machine, self.figures(), SEEDS, told)

    def markdown(self) -> str:
        """All tables."""
        parts = [
            "# What was measured",
            "Made by `./run bench all`; each table and picture also by its own command, see "
            "`./run bench --help`. CPU time, one thread, medians and ranges over the rounds.",
            "```",
            speed_table(self.results, self.machine, self.peaks, self.without),
            "```",
            "## What must hold",
            limits.table(self.figures()),
            "Where a step's time goes, stage by stage, and what a missed figure would leave of it: "
            "[profile.md](profile.md), made by `./run bench profile`.",
            "## Growth",
            "wide: two layers of half the neurons each, all weights between them grow with the "
            "square. deep: layers of 64. same: one layer, 131,072 weights whatever its neurons.",
            growth.table(self.points),
            "## Memory",
            footprint.table(self.bytes, self.steady),
        ]
        if self.counted:
            parts += ["## Boards", products.table(self.counted, self.neurons)]
        return "\n\n".join(parts) + "\n"

    def draw(self, folder: Path) -> None:
        """A picture for each question."""
        plot(self.results, self.machine, folder / "speed.svg")
        growth.draw(self.points, self.machine, folder)
        plot_bytes(self.bytes, folder / "memory.svg")
        if self.counted:
            plot_products(self.counted, folder / "boards.svg")


def boards() -> list[str]:
    """Those that QEMU has, one of each processor."""
    found: dict[str, str] = {}
    for name in names():
        board = load(name).board
        if board.qemu is not None:
            found.setdefault(board.cpu, name)
    four = load(limits.FOUR).board
    return sorted({**found, four.cpu: four.name}.values())


def collect(quick: bool) -> Everything:
    """Measure it all."""
    tops, without = speed.peaks_or_why()
    with speed.one_thread():
        found = Everything(describe(), without=without)
        kernels = speed.available()[: 1 if quick else 2]  # scalar: python -m bench speed
        found.results, found.peaks = speed.run_cases(speed.cases(quick), kernels, tops)
        found.points = growth.run_all(quick, 3, list(growth.QUESTIONS))
        print("counting bytes ...", file=sys.stderr, flush=True)
        found.bytes = [row for net in footprint.networks() for row in footprint.count(net)]
        steps = QUICK_STEPS if quick else footprint.STEPS
        found.steady = footprint.steady(Network.load("mnist1d-15k"), steps)
    for name in boards():
        print(f"counting instructions of {name} ...", file=sys.stderr, flush=True)
        try:
            rows, neurons = products.measure(name)
        except DeviceError as error:  # no emulator or no compiler for it here
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        found.counted += rows
        found.neurons += [neurons] if neurons is not None else []
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench all`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="pictures, and README.md")
    options = parser.parse_args(argv)
    speed.check_folders(parser, options.json, options.out)
    try:
        found = collect(options.quick)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(found.markdown())
    if options.json:
        write(options.json, found.document())
    if options.out:
        options.out.mkdir(exist_ok=True)
        found.draw(options.out)
        (options.out / "README.md").write_text(found.markdown())
    return 0
