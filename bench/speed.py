"""How long a step takes: the emulator, each of its kernel tables, against NumPy (and
PyTorch, if it is installed), and against what arithmetic and memory allow at most.

Everything is measured in one run and in turn (A B C A B C ...), as CPU time of this
process, on one thread. A ratio compares the two halves of one round, so that a machine
that slows down slows both; its median and range over the rounds are what is shown.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure, document, write
from bench.machine import describe
from bench.numpy_rival import Rival
from bench.peak import Memory, Peak, peaks
from bench.show import plot, table
from bench.torch_rival import TorchRival, torch_or_none
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import AdamState, Emulator
from hwgle.errors import UsageError
from hwgle.network import Layer, Network, Population
from hwgle.quantise import build_image, quantise_weights, to_int16
from hwgle.weights import initial

KERNELS = ("amx", "vnni", "avx2", "neon", "scalar")
# Multiply-accumulates of a step, as multiples of weights x batch.
WORK = {"sgd": 3, "adam": 3, "error": 2, "infer": 1}
RIVALS = ("numpy", "torch")
# Bytes of a step that no kernel for one stream can do without, for each weight: (read, and
# read and written in turn). Forward and back read int16; an update changes it in place; a
# gradient is an int32 written and read; Adam changes three float32 and writes the weight.
MOVED = {"infer": (2, 0), "error": (4, 0), "sgd": (4, 4), "adam": (4, 8 + 24 + 2)}
HELD = {"infer": 2, "error": 2, "sgd": 2, "adam": 2 + 4 + 12}  # of a weight, for all that
SEED = 0
# Small and powers of two: what learns must not run away, and a chip can only shift.
SGD_RATE, ADAM_RATE = 2.0**-14, 2.0**-14
RANGE_EVERY = 100  # steps between two looks of the auto-ranging
WARM_UP = 10  # steps
CALL_SECONDS = 0.25  # of one measured call at most, where that leaves LEAST_STEPS
LEAST_STEPS = 4
CALIBRATION = (100, 8)  # steps, streams

Contestant = Callable[[int], None]  # runs so many steps


@dataclass(frozen=True)
class Case:
    """One network and batch; `steps` in each measured call, `rounds` of them.

    A contestant that would need more than CALL_SECONDS for a call does fewer steps.
    """

    network: Network
    batch: int
    steps: int
    rounds: int

    @property
    def network_weights(self) -> int:
        """Number of weights, biases not among them."""
        return sum(n * self.network.fan_in(k) for k, n in enumerate(self.network.sizes))


@dataclass(frozen=True)
class Result:
    """One contestant at one kind of step, over all rounds.

    steps: of each call. ms: milliseconds of CPU time per step. ratio: the rival's time over
    this one's, of the same round. gmacs: 10^9 multiply-accumulates per second, counted as
    WORK says. share: gmacs over the int16 peak that its instructions have (`peak_of`) in
    the same round; None without one and for the rivals. roof: the least time that memory
    needs for the bytes of MOVED, over this one's, for a batch of 1.
    """

    network: str
    batch: int
    work: str
    who: str
    steps: int
    ms: float
    ms_range: tuple[float, float]
    ratio: float
    ratio_range: tuple[float, float]
    gmacs: float
    share: float | None
    share_range: tuple[float, float] | None = None
    roof: float | None = None
    roof_range: tuple[float, float] | None = None


def three_layers(size: int = 750) -> Network:
    """Three hidden layers with the time constants of mnist1d-15k; 32 inputs, 12 classes."""
    third = size // 3
    taus = ((0.6, 0.2), (1.2, 0.2), (1.2, 1.2))
    mixed = tuple(Population(size=third, tau_m=m, tau_r=r) for m, r in taus)
    layers = [
        Layer(name=f"h{k}", phi="tanh" if k > 1 else "linear", populations=mixed) for k in (1, 2, 3)
    ]
    out = (Population(size=12, tau_m=1.2, tau_r=1.2),)
    layers.append(Layer(name="out", phi="linear", populations=out))
    return Network(
        format="hwgle/network/1",
        name=f"3x{size}",
        dt=0.2,
        inputs=32,
        loss="cross_entropy",
        beta=1.0,
        gamma=0.0,
        layers=tuple(layers),
    )


def smooth(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Random input (T, B, inputs) of variance 1 that forgets itself in about 10 steps."""
    x = rng.normal(size=shape)
    for t in range(1, shape[0]):
        x[t] = 0.9 * x[t - 1] + np.sqrt(1 - 0.9**2) * x[t]
    return x.astype(np.float32)


def available() -> list[str]:
    """The kernel tables that this build and machine have, fastest first."""
    names = []
    for name in KERNELS:
        try:
            Emulator(name)
        except UsageError:
            continue
        names.append(name)
    return names


def contestants(
    case: Case, kernels: Sequence[str], seed: int = SEED
) -> dict[str, dict[str, Contestant]]:
    """By kind of step and then by name, all on the same weights, input and labels."""
    network, batch = case.network, case.batch
    rng = np.random.default_rng(seed)
    weights = initial(network, seed)
    x = smooth(rng, (max(case.steps, WARM_UP), batch, network.inputs))
    labels = rng.integers(0, network.outputs, batch)
    chip = Chip.load("ideal")
    few = smooth(rng, (CALIBRATION[0], CALIBRATION[1], network.inputs)).astype(np.float64)
    classes = rng.integers(0, network.outputs, CALIBRATION[1])
    scales = calibrate(network, chip, weights, few, classes, FOR_TRAINING)
    image = build_image(
        network, chip, scales, batch=batch, learning_rate=SGD_RATE, range_every=RANGE_EVERY
    )
    x16, _ = to_int16(x, scales.input, chip.input_max)
    y16 = labels.astype(np.int16)
    one_hot = np.eye(network.outputs, dtype=np.float32)[labels]

    def emulator(work: str, table: str) -> Contestant:
        body = Emulator(table)
        body.load(image, batch, gradient=work == "adam", uhat=False)
        body.write_weights(quantise_weights(image, weights, stored=work != "adam"))
        adam = AdamState.of(image, weights, ADAM_RATE) if work == "adam" else None
        target = None if work == "infer" else y16
        learn = work == "sgd"

        def run(steps: int) -> None:
            ranging = work in ("sgd", "adam")
            body.run(Block(x16[:steps], target, learn=learn, ranging=ranging), adam)

        return run

    def rival(work: str, kind: type[Rival] | type[TorchRival]) -> Contestant:
        rate = ADAM_RATE if work == "adam" else SGD_RATE
        body = kind(network, weights, batch, rate, adam=work == "adam")
        target = None if work == "infer" else one_hot
        learn = work in ("sgd", "adam")

        def run(steps: int) -> None:
            for sample in x[:steps]:
                body.step(sample, target, learn)
            if not body.finite():
                raise RuntimeError(f"{network.name}: the rival ran away; its times mean nothing")

        return run

    rivals: dict[str, type[Rival] | type[TorchRival]] = {"numpy": Rival}
    if torch_or_none() is not None:
        rivals["torch"] = TorchRival
    return {
        work: {name: rival(work, kind) for name, kind in rivals.items()}
        | {f"hwgle {k}": emulator(work, k) for k in kernels}
        for work in WORK
    }


def seconds(run: Contestant, steps: int) -> float:
    """CPU time of this process for so many steps, in seconds."""
    begun = time.process_time()
    run(steps)
    return time.process_time() - begun


def peak_of(who: str) -> str:
    """The peak that a contestant is held against: AVX2's for all but amx and vnni,
    so that amx, which has other instructions, may be above it."""
    return "vnni" if who.endswith(("amx", "vnni")) else "avx2"


@dataclass
class Rounds:
    """What was measured of one kind of step: a number a round, by name.

    ms: CPU time of a step. top: int16 peaks in GMAC/s. roof: ms that memory needs at least.
    """

    steps: dict[str, int]
    ms: dict[str, list[float]]
    top: dict[str, list[float]]
    roof: list[float]


def moved(work: str, weights: int, memory: Memory) -> float:
    """Milliseconds that the bytes of MOVED take at least."""
    read, copied = (weights * of_each / 1e6 for of_each in MOVED[work])
    return read / memory.read() + (copied / memory.copy() if copied else 0.0)


def in_turn(
    case: Case, work: str, field: Mapping[str, Contestant], tops: Mapping[str, Peak]
) -> Rounds:
    """All contestants, the peaks and the memory, one after the other in each round."""
    weights = case.network_weights
    steps = {}
    for who, run in field.items():
        step = seconds(run, WARM_UP) / WARM_UP
        most = int(CALL_SECONDS / max(step, 1e-7))
        steps[who] = min(case.steps, max(LEAST_STEPS, most))
    found = Rounds(steps, {who: [] for who in field}, {name: [] for name in tops}, [])
    memory = Memory(weights * HELD[work]) if case.batch == 1 and tops else None
    for _ in range(case.rounds):
        for who, run in field.items():
            found.ms[who].append(seconds(run, steps[who]) * 1e3 / steps[who])
        for name, peak in tops.items():
            found.top[name].append(peak.gmacs())
        if memory is not None:
            found.roof.append(moved(work, weights, memory))
    return found


def spread(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median, and least and most."""
    return statistics.median(values), (min(values), max(values))


def measure(case: Case, kernels: Sequence[str], tops: Mapping[str, Peak]) -> list[Result]:
    """All contestants at all kinds of step."""
    results = []
    for work, field in contestants(case, kernels).items():
        found = in_turn(case, work, field, tops)
        macs = WORK[work] * case.network_weights * case.batch / 1e6  # macs / ms is GMAC/s
        for who, ms in found.ms.items():
            rival = who in RIVALS
            ratio = spread([a / b for a, b in zip(found.ms["numpy"], ms, strict=True)])
            limits = () if rival else found.top.get(peak_of(who), ())
            shares = [macs / t / p for t, p in zip(ms, limits, strict=False)]
            roofs = [] if rival else [a / b for a, b in zip(found.roof, ms, strict=False)]
            share = spread(shares) if shares else (None, None)
            roof = spread(roofs) if roofs else (None, None)
            results.append(
                Result(
                    network=case.network.name,
                    batch=case.batch,
                    work=work,
                    who=who,
                    steps=found.steps[who],
                    ms=statistics.median(ms),
                    ms_range=(min(ms), max(ms)),
                    ratio=ratio[0],
                    ratio_range=ratio[1],
                    gmacs=macs / statistics.median(ms),
                    share=share[0],
                    share_range=share[1],
                    roof=roof[0],
                    roof_range=roof[1],
                )
            )
    return results


def figures(results: Sequence[Result]) -> list[Figure]:
    """What of it can be compared: times NumPy, and shares of the peak and of the roof."""
    found = []
    for r in results:
        name = f"speed/{r.network}/batch {r.batch}/{r.work}/{r.who}"
        if r.who != "numpy":
            found.append(Figure(f"{name}/times numpy", r.ratio, *r.ratio_range, "more"))
        if r.share is not None and r.share_range is not None:
            found.append(Figure(f"{name}/of peak", r.share, *r.share_range, "more"))
        if r.roof is not None and r.roof_range is not None:
            found.append(Figure(f"{name}/of memory", r.roof, *r.roof_range, "more"))
    return found + adam_over_sgd(results)


def adam_over_sgd(results: Sequence[Result]) -> list[Figure]:
    """Speed of learning with the host's Adam over that with SGD on the chip, of the fastest
    kernels. The two are not of one round: each is held against the peak of its own."""
    found = []
    cases = dict.fromkeys((r.network, r.batch) for r in results)
    for network, batch in cases:
        of_case = [r for r in results if (r.network, r.batch) == (network, batch)]
        sgd, adam = (
            next((r for r in of_case if r.work == work and r.who not in RIVALS), None)
            for work in ("sgd", "adam")
        )
        if sgd is None or adam is None or not (sgd.share_range and adam.share_range):
            continue
        assert sgd.share is not None
        assert adam.share is not None
        low = adam.share_range[0] / sgd.share_range[1]
        high = adam.share_range[1] / sgd.share_range[0]
        name = f"speed/{network}/batch {batch}/adam over sgd"
        found.append(Figure(name, adam.share / sgd.share, low, high, "more"))
    return found


def one_thread() -> AbstractContextManager[object]:
    """NumPy's BLAS on one thread: threadpoolctl; without it bench/__main__.py has seen to it."""
    try:
        limits = importlib.import_module("threadpoolctl").threadpool_limits
    except ImportError:
        return nullcontext()
    context: AbstractContextManager[object] = limits(limits=1)
    return context


def cases(quick: bool) -> list[Case]:
    """What is measured."""
    small = [Network.load("mnist1d-15k"), Network.load("mnist1d-42k")]
    if quick:
        return [Case(small[0], 100, 200, 3), Case(small[0], 1, 400, 3)]
    large = three_layers()
    return [
        *(Case(network, 100, 200, 5) for network in small),
        Case(large, 100, 200, 3),
        *(Case(network, 1, 2000, 5) for network in small),
        Case(large, 1, 200, 5),
    ]


def run_cases(
    todo: Sequence[Case], kernels: Sequence[str], tops: Mapping[str, Peak]
) -> tuple[list[Result], dict[str, float]]:
    """All of them, told on the way; and the peaks' medians over the whole run."""
    results: list[Result] = []
    gmacs: dict[str, list[float]] = {name: [] for name in tops}
    for case in todo:
        where = f"{case.network.name}, batch {case.batch}"
        print(f"measuring {where} ...", file=sys.stderr, flush=True)
        results += measure(case, kernels, tops)
        for name, peak in tops.items():
            gmacs[name].append(peak.gmacs())
    return results, {name: statistics.median(values) for name, values in gmacs.items()}


def peaks_or_why() -> tuple[dict[str, Peak], str]:
    """The peaks of this machine, or why there are none."""
    try:
        return peaks(), ""
    except RuntimeError as error:
        return {}, str(error).splitlines()[0]


def check_folders(parser: argparse.ArgumentParser, *paths: Path | None) -> None:
    """Not after minutes of measuring."""
    for path in paths:
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no such folder")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench speed`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench speed", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="mnist1d-15k, fastest kernels only, under 20 s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw them")
    options = parser.parse_args(argv)
    check_folders(parser, options.json, options.plot)
    tops, without = peaks_or_why()
    try:
        with one_thread():
            machine = describe()
            kernels = available()[:1] if options.quick else available()
            results, typical = run_cases(cases(options.quick), kernels, tops)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(table(results, machine, typical, without))
    if options.json:
        write(
            options.json,
            document(machine, figures(results), {"speed": SEED}, details(results, typical)),
        )
    if options.plot:
        plot(results, machine, options.plot)
    return 0


def details(results: Sequence[Result], typical: Mapping[str, float]) -> dict[str, Any]:
    """All that was measured, for the file."""
    told = {
        "peak_gmacs": dict(typical),
        "work": WORK,
        "moved": MOVED,
        "results": [asdict(result) for result in results],
    }
    return {"speed": told}
