"""Lagline in fixed point: the chip's integers learn weights and time constants of a teacher.

    python -m hwgle.baselines.lagline_chip --chip ideal --seeds 0 1 2 3 4 --out DIR

The same students, inputs, settling and rates as `python -m hwgle.baselines.lagline`: a batch
of streams on one chip, its gradients read out at every step, Adam on the host, weights and
time constants written back in the chip's own formats. `<chip>.json` and `<chip>.npz` stand
beside the files of the float64 methods, and its picture shows them together.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.lagline import (
    BLOCK,
    CURVE_POINTS,
    PARAMETERS,
    RATE,
    SETTLE,
    STEPS_PER_UNIT,
    WITHIN,
    reached,
)
from hwgle.cache import replacing
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.learning.adam import Learner
from hwgle.network import Network
from hwgle.quantise import build_image, to_int16
from hwgle.session import calibrate_on
from hwgle.tasks import lagline
from hwgle.weights import with_times

Array = NDArray[np.float64]
RANGE_EVERY = 4 * BLOCK


def learn(seed: int, chip: Chip, units: int, streams: int) -> tuple[Array, Array]:
    """One student.

    Returns:
        Relative errors (blocks, 4) of PARAMETERS after each block of one period, and the
        mean squared error (blocks,) of the rates against the teacher's.
    """
    task = lagline.load_series(seed, seed + 1, streams)
    student = lagline.student(seed)
    network = with_times(Network.load("lagline"), student)
    x = np.swapaxes(task.train.x, 0, 1)
    y = np.swapaxes(task.train.y, 0, 1)
    late = np.roll(y, 1, axis=0)  # errors compare a target with the rates of the step before
    scales = calibrate_on(network, chip, student, x, late, learning=True)
    image = build_image(
        network, chip, scales, batch=streams, range_every=RANGE_EVERY, range_clip=0.0003, seed=seed
    )
    inputs, _ = to_int16(x, scales.input, chip.input_max)
    targets, _ = to_int16(late, scales.target, 32767)
    rule = Learner()
    rule._tau_floor = float(lagline.TAU_M_FLOOR)
    errors, loss = [], []
    teacher = np.array([lagline.teacher()[name].ravel()[0] for name in PARAMETERS])
    top = len(network.layers) - 1
    with Emulator() as device:
        rule.begin(device, image, streams, student)
        for block in range((SETTLE + units * STEPS_PER_UNIT) // BLOCK):
            rule.set_rate(RATE if block * BLOCK >= SETTLE else 0.0)
            last = Block(inputs, targets, ranging=True, record=[(top, "r")])
            records = rule.run(last)
            assert records.fracs is not None
            rates = np.ldexp(records.signals[0], -records.fracs[:, top, 0][:, None, None])
            loss.append(float(np.mean(np.square(rates - y))))
            weights = rule.weights()
            assert weights is not None
            errors.append([weights[name].ravel()[0] for name in PARAMETERS] / teacher - 1)
    return np.array(errors), np.array(loss)


def measure(name: str, seeds: list[int], out: Path, units: int, streams: int) -> dict[str, Any]:
    """All students on a chip; writes `<chip>.json` and `<chip>.npz`."""
    chip = Chip.load(name)
    began = time.monotonic()
    runs, errors, losses = [], [], []
    for seed in seeds:
        error, loss = learn(seed, chip, units, streams)
        errors.append(error)
        losses.append(loss)
        worst = np.abs(error).max(axis=1)
        first = SETTLE // BLOCK
        runs.append(
            {
                "seed": seed,
                **{p: float(e) for p, e in zip(PARAMETERS, error[-1], strict=True)},
                "worst_error": float(worst[-1]),
                "within_2_percent_from": reached(worst),
                "loss_first_block": float(loss[first]),
                "loss_last_block": float(loss[-1]),
            }
        )
        print(f"{name}, student {seed}: worst error {worst[-1]:.5f}", flush=True)
    final = np.abs(np.array([error[-1] for error in errors]))
    summary = {
        "chip": name,
        "seeds": seeds,
        "steps": len(errors[0]) * BLOCK,
        "learning_rate": RATE,
        "worst_error": [float(v) for v in final.max(axis=1)],
        "mean_error": {n: float(v) for n, v in zip(PARAMETERS, final.mean(axis=0), strict=True)},
        "all_within_2_percent": bool((final <= WITHIN).all()),
        "seconds": round(time.monotonic() - began),
        "runs": runs,
    }
    out.mkdir(parents=True, exist_ok=True)
    points = np.unique(np.linspace(0, len(errors[0]) - 1, CURVE_POINTS).astype(int))
    curves = {
        "time": (points + 1) * BLOCK / STEPS_PER_UNIT,
        "error": np.stack(errors, axis=1)[points],
        "loss": np.stack(losses, axis=1)[points],
    }
    with replacing(out / f"{name}.json") as path:
        path.write_text(json.dumps(summary, indent=1) + "\n")
    with replacing(out / f"{name}.npz") as path:
        thin = {key: curve.astype(np.float32) for key, curve in curves.items()}
        np.savez_compressed(path, allow_pickle=False, **thin)
    return summary


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m hwgle.baselines.lagline_chip")
    parser.add_argument("--chip", default="ideal")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time", type=int, default=4000, help="units of time to learn")
    parser.add_argument("--streams", type=int, default=100)
    given = parser.parse_args(arguments)
    summary = measure(given.chip, given.seeds, given.out, given.time, given.streams)
    print(json.dumps({key: value for key, value in summary.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    main()
