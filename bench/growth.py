"""How the cost of a step grows: with neurons, batch, length of a run, chips side by side.

Each question has lines, each line a few points. All points of a question are measured in
turn within each round, as CPU time on one thread, beside the int16 peak of that moment.
What counts is nanoseconds for each multiply-accumulate, and these over those of the line's
first point in the same round: 1 is flat. Multiply-accumulates are those that are really
done: forward and update of all layers, back of all but the first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.curves import plot_growth
from bench.figures import Figure, document, write
from bench.machine import describe
from bench.numpy_rival import Rival
from bench.peak import Peak
from bench.speed import (
    RANGE_EVERY,
    SGD_RATE,
    check_folders,
    one_thread,
    peak_of,
    peaks_or_why,
    seconds,
    smooth,
)
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.network import Layer, Network, Population
from hwgle.quantise import build_image, quantise_weights, to_int16
from hwgle.weights import initial

SEED = 0
CALIBRATION = (60, 2)  # steps, streams: errors need a step for each layer on their way down
GAIN = 1.7  # on drawn weights, so that signals neither grow nor die out from layer to layer
CALL_SECONDS = 0.03  # CPU time of a measured call, about
STREAM = 360  # steps of a sample of mnist1d
LENGTH = 200  # steps of input; longer runs get it again and again
STREAMS = 100  # of which so many steps are measured in a call at most, of fewer streams more
SAME = 1 << 17  # weights, however many neurons
# Hardly prospective: where errors are amplified from layer to layer, many layers are too
# much for fixed scales. What they are costs no time.
TAUS = ((1.2, 1.0), (0.6, 0.5), (1.2, 1.2))
QUESTIONS = {
    "neurons": "neurons in the network",
    "batch": "streams at once (mnist1d-15k)",
    "length": "steps of one run (mnist1d-15k)",
    "chips": "chips or streams side by side (mnist1d-15k)",
}


@dataclass(frozen=True)
class Spot:
    """A point to measure. macs: of a step of all that it runs; weights: bytes of int16 as
    stored, of all its chips. run: so many steps. steps: of each call; None: what fits, up to
    longest: else the call of a small network with one stream would be over before its caches
    are warm."""

    question: str
    line: str
    x: int
    macs: int
    weights: int
    run: Callable[[int], None]
    steps: int | None = None
    longest: int = LENGTH


@dataclass(frozen=True)
class Point:
    """What was measured there. ns: for each multiply-accumulate. growth: over that of the
    line's first point. share: of the int16 peak; None without one."""

    question: str
    line: str
    x: int
    weights: int
    steps: int
    ns: float
    ns_range: tuple[float, float]
    growth: float
    growth_range: tuple[float, float]
    share: float | None
    share_range: tuple[float, float] | None


def layers(name: str, inputs: int, sizes: Sequence[int]) -> Network:
    """Hidden layers of these sizes with time constants of three kinds; 10 classes."""
    made = []
    for k, n in enumerate(sizes):
        parts = (n - 2 * (n // 3), n // 3, n // 3)
        mixed = tuple(
            Population(size=size, tau_m=m, tau_r=r)
            for size, (m, r) in zip(parts, TAUS, strict=True)
            if size
        )
        made.append(Layer(name=f"h{k + 1}", phi="tanh" if k else "linear", populations=mixed))
    out = (Population(size=10, tau_m=1.2, tau_r=1.2),)
    made.append(Layer(name="out", phi="linear", populations=out))
    return Network(
        format="hwgle/network/1",
        name=name,
        dt=0.2,
        inputs=inputs,
        loss="cross_entropy",
        beta=1.0,
        gamma=0.0,
        layers=tuple(made),
    )


def wide(n: int) -> Network:
    """n neurons in two layers, n/2 x n/2 between them: weights grow with the square."""
    return layers(f"wide-{n}", 32, (n // 2, n // 2))


def deep(n: int) -> Network:
    """n neurons in layers of 64: weights grow with n and fit L2 throughout."""
    return layers(f"deep-{n}", 64, (64,) * (n // 64))


def same(n: int) -> Network:
    """n neurons in one layer that has as many weights whatever n is."""
    return layers(f"same-{n}", SAME // n, (n,))


def weights_of(network: Network) -> int:
    """Number of weights, biases not among them."""
    return sum(n * network.fan_in(k) for k, n in enumerate(network.sizes))


def macs_of(network: Network, work: str) -> int:
    """Of a step of one stream, as they are done."""
    back = weights_of(network) - network.sizes[0] * network.inputs
    return weights_of(network) * (2 if work == "sgd" else 1) + (back if work == "sgd" else 0)


def body_of(
    network: Network, batch: int, work: str, kernels: str, seed: int = SEED
) -> Callable[[int], None]:
    """One chip with weights of its own: on-chip SGD, or inference."""
    rng = np.random.default_rng(seed)
    weights = initial(network, seed, GAIN)
    x = smooth(rng, (LENGTH, batch, network.inputs))
    labels = rng.integers(0, network.outputs, batch).astype(np.int16)
    chip = Chip.load("ideal")
    few = smooth(rng, (*CALIBRATION, network.inputs)).astype(np.float64)
    classes = rng.integers(0, network.outputs, CALIBRATION[1])
    scales = calibrate(network, chip, weights, few, classes, FOR_TRAINING)
    image = build_image(
        network, chip, scales, batch=batch, learning_rate=SGD_RATE, range_every=RANGE_EVERY
    )
    x16, _ = to_int16(x, scales.input, chip.input_max)
    body = Emulator(kernels)
    body.load(image, batch, uhat=False)
    body.write_weights(quantise_weights(image, weights))
    learn = work == "sgd"
    longer = x16

    def run(steps: int) -> None:
        nonlocal longer
        if steps > len(longer):  # not in a measured call: there is one before
            longer = np.resize(x16, (steps, *x16.shape[1:]))
        body.run(Block(longer[:steps], labels if learn else None, learn=learn, ranging=learn))

    return run


def longest(batch: int) -> int:
    """Steps of a call at most."""
    return LENGTH * max(1, STREAMS // batch)


def rival_of(network: Network, batch: int, work: str) -> Callable[[int], None]:
    """NumPy with the same."""
    rng = np.random.default_rng(SEED)
    x = smooth(rng, (LENGTH, batch, network.inputs))
    labels = rng.integers(0, network.outputs, batch)
    one_hot = np.eye(network.outputs, dtype=np.float32)[labels]
    rival = Rival(network, initial(network, SEED, GAIN), batch, SGD_RATE)
    learn = work == "sgd"

    def run(steps: int) -> None:
        for t in range(steps):
            rival.step(x[t % LENGTH], one_hot if learn else None, learn)

    return run


def neurons(quick: bool, kernels: str) -> Iterator[Spot]:
    """Networks of 128 to 2048 neurons."""
    sizes = (128, 512, 2048) if quick else (128, 256, 512, 1024, 2048)
    for batch in (100, 1):
        for name, made in (("wide", wide), ("deep", deep), ("same", same)):
            for n in sizes:
                network = made(n)
                macs = macs_of(network, "sgd") * batch
                run = body_of(network, batch, "sgd", kernels)
                line = f"{name}, batch {batch}"
                held = 2 * weights_of(network)
                yield Spot("neurons", line, n, macs, held, run, longest=longest(batch))


def batches(quick: bool, kernels: str) -> Iterator[Spot]:
    """One network, 1 to 256 streams at once; NumPy beside it."""
    network = Network.load("mnist1d-15k")
    few = (1, 4, 16, 100, 256) if quick else (1, 2, 4, 8, 16, 32, 64, 100, 128, 256)
    held = 2 * weights_of(network)
    for work, told in (("sgd", "train"), ("infer", "inference")):
        for batch in few:
            macs = macs_of(network, work) * batch
            run = body_of(network, batch, work, kernels)
            yield Spot("batch", told, batch, macs, held, run, longest=longest(batch))
        for batch in few[:: 1 if quick else 3]:
            macs = macs_of(network, work) * batch
            yield Spot("batch", f"NumPy: {told}", batch, macs, held, rival_of(network, batch, work))


def lengths(quick: bool, kernels: str) -> Iterator[Spot]:
    """One call, ever more steps."""
    network = Network.load("mnist1d-15k")
    for batch, most in ((1, 1_000 if quick else 10_000), (100, 1_000 if quick else 3_000)):
        macs = macs_of(network, "sgd") * batch
        run = body_of(network, batch, "sgd", kernels)
        steps = 100
        while steps <= most:
            held = 2 * weights_of(network)
            yield Spot("length", f"batch {batch}", steps, macs, held, run, steps)
            steps *= 10 if batch == 1 or steps < 1000 else 3


def chips(quick: bool, kernels: str) -> Iterator[Spot]:
    """So many chips, each with its own weights and one stream, a sample at a time, against
    as many streams on one chip."""
    network = Network.load("mnist1d-15k")
    each = 2 * weights_of(network)
    counts = (1, 10, 100) if quick else (1, 3, 10, 30, 100)
    for work, told in (("sgd", "train"), ("infer", "inference")):
        bodies = [body_of(network, 1, work, kernels, seed) for seed in range(counts[-1])]
        for count in counts:
            some = bodies[:count]

            def run(steps: int, some: Sequence[Callable[[int], None]] = some) -> None:
                for one in some:
                    one(steps)

            macs = macs_of(network, work) * count
            steps = STREAM if count > 1 else None
            own = f"own weights: {told}"
            yield Spot("chips", own, count, macs, each * count, run, steps, longest(count))
            shared = body_of(network, count, work, kernels)
            one = f"one chip: {told}"
            yield Spot("chips", one, count, macs, each, shared, longest=longest(count))


SPOTS = {"neurons": neurons, "batch": batches, "length": lengths, "chips": chips}


def measure(spots: Sequence[Spot], rounds: int, peak: Peak | None) -> list[Point]:
    """All spots in turn within each round."""
    steps = []
    for spot in spots:
        spot.run(spot.steps or 2)  # tables, caches, and the length of the input
        one = seconds(spot.run, spot.steps or 2) / (spot.steps or 2)
        fit = min(spot.longest, max(2, int(CALL_SECONDS / max(one, 1e-7))))
        steps.append(spot.steps or fit)
        spot.run(steps[-1])
    times: list[list[float]] = [[] for _ in spots]
    tops: list[float] = []
    for _ in range(rounds):
        for k, spot in enumerate(spots):
            per_mac = 1e9 / (steps[k] * spot.macs)
            times[k].append(seconds(spot.run, steps[k]) * per_mac)
        if peak is not None:
            tops.append(peak.gmacs())
    first: dict[str, list[float]] = {}
    points = []
    for spot, count, ns in zip(spots, steps, times, strict=True):
        begun = first.setdefault(spot.line, ns)
        growth = [a / b for a, b in zip(ns, begun, strict=True)]
        share = [1 / t / top for t, top in zip(ns, tops, strict=False)]
        points.append(
            Point(
                question=spot.question,
                line=spot.line,
                x=spot.x,
                weights=spot.weights,
                steps=count,
                ns=statistics.median(ns),
                ns_range=(min(ns), max(ns)),
                growth=statistics.median(growth),
                growth_range=(min(growth), max(growth)),
                share=statistics.median(share) if share else None,
                share_range=(min(share), max(share)) if share else None,
            )
        )
    return points


def run_all(quick: bool, rounds: int, questions: Sequence[str]) -> list[Point]:
    """All questions, one after the other, told on the way."""
    tops, _ = peaks_or_why()
    kernels = Emulator().kernels
    points = []
    for question in questions:
        print(f"measuring cost against {QUESTIONS[question]} ...", file=sys.stderr, flush=True)
        spots = list(SPOTS[question](quick, kernels))
        points += measure(spots, rounds, tops.get(peak_of(kernels)))
    return points


def figures(points: Sequence[Point]) -> list[Figure]:
    """Growth, and shares of the peak."""
    found = []
    for p in points:
        name = f"growth/{p.question}/{p.line}/{p.x}"
        if p.growth_range != (1.0, 1.0):
            found.append(Figure(f"{name}/over the first", p.growth, *p.growth_range, "less"))
        if p.share is not None and p.share_range is not None and "NumPy" not in p.line:
            found.append(Figure(f"{name}/of peak", p.share, *p.share_range, "more"))
    return found


def flat(points: Sequence[Point]) -> list[Figure]:
    """How much dearer the dearest point of a line of the first question is than its
    cheapest; the range is the widest that their rounds allow."""
    found = []
    for line in dict.fromkeys(p.line for p in points if p.question == "neurons"):
        of_line = [p for p in points if (p.question, p.line) == ("neurons", line)]
        most, least = max(of_line, key=lambda p: p.ns), min(of_line, key=lambda p: p.ns)
        (low, high), (lowest, highest) = most.ns_range, least.ns_range
        name = f"growth/neurons/{line}/most over least"
        found.append(Figure(name, most.ns / least.ns, low / highest, high / lowest, "less"))
    return found


def table(points: Sequence[Point]) -> str:
    """As Markdown."""
    rows = [
        "| question | line | at | weights | ns/MAC | over the first | of peak |",
        "|" + "---|" * 7,
    ]
    for p in points:
        low, high = p.growth_range
        rows.append(
            f"| {p.question} | {p.line} | {p.x} | {p.weights / 1024:.0f} KB | {p.ns:.3g} "
            f"| {p.growth:.2f} ({low:.2f} .. {high:.2f}) "
            f"| {'' if p.share is None else f'{100 * p.share:.0f} %'} |"
        )
    return "\n".join(rows)


def details(points: Sequence[Point]) -> dict[str, Any]:
    """All that was measured, for the file."""
    return {"growth": [asdict(point) for point in points]}


def draw(points: Sequence[Point], machine: Mapping[str, str], folder: Path) -> None:
    """A picture for each question."""
    for question, told in QUESTIONS.items():
        some = [p for p in points if p.question == question]
        if some:
            plot_growth(some, told, machine, folder / f"growth-{question}.svg")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench growth`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--quick", action="store_true", help="fewer points, 3 rounds, under 30 s")
    parser.add_argument("--rounds", type=int, help="default: 5; 3 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw them: growth-*.svg")
    options = parser.parse_args(argv)
    if wrong := set(options.questions) - set(QUESTIONS):
        parser.error(f"{', '.join(sorted(wrong))}: allowed: {', '.join(QUESTIONS)}")
    rounds = (3 if options.quick else 5) if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error("--rounds: allowed: 1 or more")
    check_folders(parser, options.json, options.plots and options.plots / "one")
    try:
        with one_thread():
            machine = describe()
            points = run_all(options.quick, rounds, options.questions or list(QUESTIONS))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"{machine['cpu']}, {machine['caches']}, {machine['compiler']}\n\n{table(points)}")
    if options.json:
        write(options.json, document(machine, figures(points), {"growth": SEED}, details(points)))
    if options.plots:
        draw(points, machine, options.plots)
    return 0
