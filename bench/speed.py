"""How long a step takes: the emulator, each of its kernel tables, against NumPy.

Everything is measured in one run and in turn (A B C A B C ...), as CPU time of this
process, on one thread. A ratio compares the two halves of one round, so that a machine
that slows down slows both; its median and range over the rounds are what is shown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.machine import describe
from bench.numpy_rival import Rival
from bench.peak import Peak, peaks
from bench.show import plot, table
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import AdamState, Emulator
from hwgle.errors import UsageError
from hwgle.network import Layer, Network, Population
from hwgle.quantise import build_image, quantise_weights, to_int16
from hwgle.weights import initial

KERNELS = ("vnni", "avx2", "scalar")
# Multiply-accumulates of a step, as multiples of weights x batch.
WORK = {"sgd": 3, "adam": 3, "error": 2, "infer": 1}
# Small and powers of two: what learns must not run away, and a chip can only shift.
SGD_RATE, ADAM_RATE = 2.0**-14, 2.0**-14
RANGE_EVERY = 100  # steps between two looks of the auto-ranging
WARM_UP = 10  # steps
CALL_SECONDS = 5.0  # of one measured call at most, where that leaves LEAST_STEPS
LEAST_STEPS = 10
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


@dataclass(frozen=True)
class Result:
    """One contestant at one kind of step, over all rounds.

    steps: of each call. ms: milliseconds of CPU time per step. ratio: the rival's time over
    this one's, of the same round. gmacs: 10^9 multiply-accumulates per second, counted as
    WORK says. share: gmacs over the int16 peak that its instructions have (`peak_of`) in
    the same round; None without one and for the rival.
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
    case: Case, kernels: Sequence[str], seed: int = 0
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

    def rival(work: str) -> Contestant:
        rate = ADAM_RATE if work == "adam" else SGD_RATE
        numpy = Rival(network, weights, batch, rate, adam=work == "adam")
        target = None if work == "infer" else one_hot
        learn = work in ("sgd", "adam")

        def run(steps: int) -> None:
            for sample in x[:steps]:
                numpy.step(sample, target, learn)
            if not (np.isfinite(numpy.parameters).all() and np.isfinite(numpy.r).all()):
                raise RuntimeError(f"{network.name}: the rival ran away; its times mean nothing")

        return run

    return {
        work: {"numpy": rival(work)} | {f"hwgle {k}": emulator(work, k) for k in kernels}
        for work in WORK
    }


def seconds(run: Contestant, steps: int) -> float:
    """CPU time of this process for so many steps, in seconds."""
    begun = time.process_time()
    run(steps)
    return time.process_time() - begun


def peak_of(who: str) -> str:
    """The peak that a contestant is held against: AVX2's for all but vnni."""
    return "vnni" if who.endswith("vnni") else "avx2"


def measure(case: Case, kernels: Sequence[str], tops: Mapping[str, Peak]) -> list[Result]:
    """All contestants at all kinds of step, and the peaks, in turn within each round."""
    weights = sum(n * case.network.fan_in(k) for k, n in enumerate(case.network.sizes))
    results = []
    for work, field in contestants(case, kernels).items():
        steps = {}
        for who, run in field.items():
            step = seconds(run, WARM_UP) / WARM_UP
            most = int(CALL_SECONDS / max(step, 1e-7))
            steps[who] = min(case.steps, max(LEAST_STEPS, most))
        times: dict[str, list[float]] = {who: [] for who in field}
        top: dict[str, list[float]] = {name: [] for name in tops}
        for _ in range(case.rounds):
            for who, run in field.items():
                times[who].append(seconds(run, steps[who]) * 1e3 / steps[who])
            for name, peak in tops.items():
                top[name].append(peak.gmacs())
        macs = WORK[work] * weights * case.batch / 1e6  # of a step, so that macs / ms is GMAC/s
        for who, ms in times.items():
            ratios = [a / b for a, b in zip(times["numpy"], ms, strict=True)]
            limits = () if who == "numpy" else top.get(peak_of(who), ())
            shares = [macs / t / p for t, p in zip(ms, limits, strict=False)]
            results.append(
                Result(
                    network=case.network.name,
                    batch=case.batch,
                    work=work,
                    who=who,
                    steps=steps[who],
                    ms=statistics.median(ms),
                    ms_range=(min(ms), max(ms)),
                    ratio=statistics.median(ratios),
                    ratio_range=(min(ratios), max(ratios)),
                    gmacs=macs / statistics.median(ms),
                    share=statistics.median(shares) if shares else None,
                )
            )
    return results


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


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench speed`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench speed", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="mnist1d-15k, fastest kernels only, under 20 s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw them")
    options = parser.parse_args(argv)
    for path in (options.json, options.plot):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no such folder")  # not after minutes of measuring
    results: list[Result] = []
    tops: dict[str, Peak] = {}
    without = ""
    try:
        tops = peaks()
    except RuntimeError as error:
        without = str(error).splitlines()[0]
    gmacs: dict[str, list[float]] = {name: [] for name in tops}
    try:
        with one_thread():
            machine = describe()
            kernels = available()[:1] if options.quick else available()
            for case in cases(options.quick):
                where = f"{case.network.name}, batch {case.batch}"
                print(f"measuring {where} ...", file=sys.stderr, flush=True)
                results += measure(case, kernels, tops)
                for name, peak in tops.items():
                    gmacs[name].append(peak.gmacs())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    typical = {name: statistics.median(values) for name, values in gmacs.items()}
    print(table(results, machine, typical, without))
    if options.json:
        found = {
            "format": "hwgle/bench-speed/1",
            "machine": machine,
            "peak_gmacs": typical,
            "work": WORK,
            "results": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(results, machine, options.plot)
    return 0
