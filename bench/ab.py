"""Two builds of the core against each other: does a change pay, and are the bits the same?

    python -m bench.ab OLD.so NEW.so [--cpu N] [--rounds N] [--simd vnni,avx2] [CASE ...]

Each build lives in a process of its own, both pinned to one CPU and never running at the same
time: short measurements in turn (A B A B ...), CPU time only, so that what else the machine
does slows both alike. Shown are the least and the median time of a step of each, the ratio
of the least and the median of the ratios of the rounds; more than 1 means that NEW is faster.
After each case both tell their digest: a difference is told, and the exit code is 1.

A case is NETWORK:BATCH:WORK, as in 15k:100:sgd; the work is one of bench.speed's.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

CASES = (
    "15k:100:sgd",
    "15k:100:error",
    "15k:100:infer",
    "15k:100:adam",
    "42k:100:sgd",
    "3x750:100:sgd",
    "15k:1:sgd",
    "15k:1:infer",
    "42k:1:sgd",
    "3x750:1:sgd",
)
SLICE = 0.02  # seconds of CPU time of one measurement
STEPS = 64  # different inputs


def load_core(path: Path) -> None:
    """This file as hwgle._core, before anything imports it."""
    spec = importlib.util.spec_from_file_location("hwgle._core", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["hwgle._core"] = module


def prepare(case: str, simd: str) -> tuple[Callable[[int], None], Callable[[], int]]:
    """What runs so many steps of a case, and what tells the digest."""
    import numpy as np

    from bench import speed
    from hwgle.calibrate import FOR_TRAINING, calibrate
    from hwgle.chip import Chip
    from hwgle.device import Block
    from hwgle.devices.emulator import AdamState, Emulator
    from hwgle.network import Network
    from hwgle.quantise import build_image, quantise_weights, to_int16
    from hwgle.weights import initial

    name, batch_text, work = case.split(":")
    batch = int(batch_text)
    network = speed.three_layers() if name == "3x750" else Network.load(f"mnist1d-{name}")
    rng = np.random.default_rng(0)
    weights = initial(network, 0)
    x = speed.smooth(rng, (STEPS, batch, network.inputs))
    labels = rng.integers(0, network.outputs, batch).astype(np.int16)
    few = speed.smooth(rng, (*speed.CALIBRATION, network.inputs)).astype(np.float64)
    classes = rng.integers(0, network.outputs, speed.CALIBRATION[1])
    chip = Chip.load("ideal")
    scales = calibrate(network, chip, weights, few, classes, FOR_TRAINING)
    image = build_image(
        network, chip, scales, batch=batch, learning_rate=speed.SGD_RATE, range_every=100
    )
    x16, _ = to_int16(x, scales.input, chip.input_max)
    body = Emulator(simd)
    body.load(image, batch, gradient=work == "adam", uhat=False)
    body.write_weights(quantise_weights(image, weights, stored=work != "adam"))
    adam = AdamState.of(image, weights, speed.ADAM_RATE) if work == "adam" else None
    target = None if work == "infer" else labels
    ranging = work in ("sgd", "adam")

    def run(steps: int) -> None:
        while steps > 0:
            some = min(steps, STEPS)
            body.run(Block(x16[:some], target, learn=work == "sgd", ranging=ranging), adam)
            steps -= some

    def digest() -> int:
        return int(body.digest())

    return run, digest


def serve(path: Path, cpu: int, pipe: Connection) -> None:
    """One build: prepares a case, runs steps of it and tells the CPU time, or its digest."""
    os.sched_setaffinity(0, {cpu})
    load_core(path)
    run: Callable[[int], None] | None = None
    digest: Callable[[], int] | None = None
    while True:
        order = pipe.recv()
        if order is None:
            return
        if isinstance(order, tuple):
            run, digest = prepare(*order)
            run(STEPS)
            pipe.send(None)
        elif order == 0:
            assert digest is not None
            pipe.send(digest())
        else:
            assert run is not None
            begun = time.process_time()
            run(order)
            pipe.send(time.process_time() - begun)


def ask(pipe: Connection, order: object) -> float:
    """Order and answer."""
    pipe.send(order)
    answer: float = pipe.recv()
    return answer


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where two builds differ in a bit."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.ab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, help="hwgle/_core.abi3.so of one build")
    parser.add_argument("new", type=Path, help="of the other")
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE")
    parser.add_argument(
        "--simd", default="vnni", help="kernel tables, commas between; OLD:NEW where they differ"
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cpu", type=int, default=min(os.sched_getaffinity(0)))
    options = parser.parse_args(argv)
    for path in (options.old, options.new):
        if not path.is_file():
            parser.error(f"{path}: no such file")
    context = get_context("spawn")
    pipes, workers = [], []
    for path in (options.old, options.new):
        here, there = context.Pipe()
        worker = context.Process(
            target=serve, args=(path.absolute(), options.cpu, there), daemon=True
        )
        worker.start()
        pipes.append(here)
        workers.append(worker)
    same = True
    print(f"{'case':24s} {'old us':>9s} {'(median)':>9s} {'new us':>9s} {'(median)':>9s}  "
          f"old/new: least, median")  # fmt: skip
    for simd in options.simd.split(","):
        for case in options.cases or CASES:
            tables = (simd.split(":") * 2)[:2]
            for pipe, table in zip(pipes, tables, strict=True):
                ask(pipe, (case, table))
            steps = max(1, int(SLICE / (ask(pipes[0], STEPS) / STEPS)))
            ask(pipes[1], STEPS)
            times: list[list[float]] = [[], []]
            for k in range(options.rounds):
                for which in (0, 1) if k % 2 else (1, 0):
                    times[which].append(ask(pipes[which], steps) / steps * 1e6)
            ask(pipes[1], steps)
            ask(pipes[0], steps)
            least = [min(t) for t in times]
            middle = [statistics.median(t) for t in times]
            ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
            equal = ask(pipes[0], 0) == ask(pipes[1], 0)
            same &= equal
            print(f"{case + ' ' + simd:24s} {least[0]:9.2f} {middle[0]:9.2f} {least[1]:9.2f} "
                  f"{middle[1]:9.2f}  {least[0] / least[1]:.3f} {ratio:.3f}"
                  f"{'' if equal else '  DIFFERENT BITS'}", flush=True)  # fmt: skip
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(None)
        worker.join()
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
