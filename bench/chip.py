"""What imperfections cost: a step of a chip that has one, or all, against the ideal chip's.

Everything in one run and in turn, as CPU time of this process on one thread; a ratio
compares the two of one round. Off, an imperfection is not computed at all, so that a chip
with none is the ideal one. Inference has no target: with gamma 0 its errors have no noise.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.machine import describe
from bench.speed import CALIBRATION, SGD_RATE, WARM_UP, Contestant, one_thread, seconds, smooth
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.network import Network
from hwgle.quantise import build_image, quantise_weights, to_int16
from hwgle.weights import initial

Changes = dict[str, dict[str, Any]]
EACH: dict[str, Changes] = {
    "scale per neuron": {"weight": {"scale": "neuron"}},
    "synapses: gain, stuck": {"weight": {"mismatch": 0.1, "stuck_zero": 0.01, "stuck_full": 0.01}},
    "drift, tau 10^5 steps": {"weight": {"drift": 1e5}},
    "input DAC": {"input": {"bits": 5, "offset": 0.5, "gain": 0.02}},
    "membrane noise": {"membrane": {"noise": 0.003}},
    "leak DAC and mismatch": {"leak": {"bits": 6, "mismatch": 0.1}},
    "activations": {"activation": {"gain": 0.05, "offset": 0.05, "dead": 0.01}},
    "error noise": {"error": {"noise": 0.001}},
    "read-out ADC": {"readout": {"bits": 8, "offset": 1.0, "gain": 0.02, "noise": 0.5}},
    "update bits and noise": {"plasticity": {"update_bits": 8, "update_noise": 0.2}},
}


def chip_of(changes: Sequence[Changes]) -> Chip:
    """The ideal chip, changed."""
    data = Chip.load("ideal").model_dump()
    for one in changes:
        for section, values in one.items():
            data[section].update(values)
    return Chip.model_validate(data)


def chips() -> dict[str, Chip]:
    """By name, the ideal one first, the one with everything last."""
    found = {"ideal": Chip.load("ideal")}
    found |= {name: chip_of([changes]) for name, changes in EACH.items()}
    return found | {"all of them": chip_of(list(EACH.values()))}


def contestant(network: Network, chip: Chip, batch: int, steps: int, learn: bool) -> Contestant:
    """On-chip SGD, or inference with the output's rates summed, on smooth random input."""
    rng = np.random.default_rng(0)
    weights = initial(network, 0)
    x = smooth(rng, (max(steps, WARM_UP), batch, network.inputs))
    labels = rng.integers(0, network.outputs, batch).astype(np.int16)
    few = smooth(rng, (*CALIBRATION, network.inputs)).astype(np.float64)
    classes = rng.integers(0, network.outputs, CALIBRATION[1])
    scales = calibrate(network, chip, weights, few, classes, FOR_TRAINING)
    image = build_image(network, chip, scales, batch=batch, learning_rate=SGD_RATE, range_every=100)
    x16, _ = to_int16(x, scales.input, chip.input_max)
    body = Emulator()
    body.load(image, batch, uhat=False)
    body.write_weights(quantise_weights(image, weights))

    def run(count: int) -> None:
        target = labels if learn else None
        body.run(Block(x16[:count], target, learn=learn, ranging=learn, votes=not learn))

    return run


def measure(network: Network, batch: int, steps: int, rounds: int, learn: bool) -> list[str]:
    """Rows of the table: milliseconds of a step, and its ratio to the ideal chip's."""
    field = {n: contestant(network, c, batch, steps, learn) for n, c in chips().items()}
    times: dict[str, list[float]] = {name: [] for name in field}
    for run in field.values():
        run(WARM_UP)
    for _ in range(rounds):
        for name, run in field.items():
            times[name].append(seconds(run, steps) * 1e3 / steps)
    rows = []
    for name, ms in times.items():
        ratio = [a / b for a, b in zip(ms, times["ideal"], strict=True)]
        middle, low, high = statistics.median(ratio), min(ratio), max(ratio)
        rows.append(
            f"| {'learning' if learn else 'inference'} | {name} | {statistics.median(ms):.3f} "
            f"| {middle:.2f} ({low:.2f} .. {high:.2f}) |"
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench chip`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench chip", description=__doc__)
    parser.add_argument("network", nargs="?", default="mnist1d-15k", help="default: mnist1d-15k")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100, help="of each measured call")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(argv)
    if min(options.batch, options.steps, options.rounds) < 1:
        parser.error("--batch, --steps and --rounds: allowed: 1 or more")
    network = Network.load(options.network)
    try:
        with one_thread():
            machine = describe()
            rows = []
            for learn in (True, False):
                rows += measure(network, options.batch, options.steps, options.rounds, learn)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"{network.name}, batch {options.batch}, {machine['cpu']}, {machine['compiler']}\n")
    print("| step | chip | ms | times the ideal chip's |\n|---|---|---|---|")
    print("\n".join(rows))
    return 0
