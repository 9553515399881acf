"""Lagline: do weights and time constants reach the teacher's? A run per method, and the picture.

    python -m hwgle.baselines.lagline METHOD --seeds 0 1 2 3 4 --out DIR
    python -m hwgle.baselines.lagline plot --out DIR

METHOD is gle, instantaneous, rtrl (the exact gradient), or bptt4, bptt2, bptt1: the gradient
of truncated backpropagation through time over windows of so many units of time, each step's
part of it applied at once (`Rtrl(window)`), so that all methods learn by the same optimiser
at every step; bptt4-windows and so on sum it up and update once for each window. Each seed
draws its own student and input; all run side by side. As in arXiv 2403.16933: 100 streams, 50
units of time to settle, 4000 to learn, Adam with rate 1e-4. A method with an update for every
K steps is given the rates 0.1, 0.3 and 1 times K 1e-4 (the last allows the same greatest
speed) and, of these, the one with the smallest mean error in the end is reported first. A run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.gle import Gle
from hwgle.baselines.instantaneous import Instantaneous
from hwgle.baselines.method import Method
from hwgle.baselines.online import Online
from hwgle.baselines.optimisers import Adam
from hwgle.baselines.rtrl import Rtrl
from hwgle.baselines.truncated import Truncated
from hwgle.cache import replacing
from hwgle.network import Network
from hwgle.tasks import lagline

STEPS_PER_UNIT = 100
SETTLE = 50 * STEPS_PER_UNIT
BLOCK = lagline.PERIOD
RATE = 1e-4
SHARES = (0.1, 0.3, 1.0)
WITHIN = 0.02
CURVE_POINTS = 250
PARAMETERS = ("first.weight", "second.weight", "first.tau_m", "second.tau_m")
WINDOWS = ("bptt4", "bptt2", "bptt1")
METHODS = ("gle", "instantaneous", "rtrl", *WINDOWS, *(f"{name}-windows" for name in WINDOWS))


def make(method: str) -> tuple[Method, tuple[float, ...]]:
    """A method by its name and the learning rates to try."""
    name, _, late = method.partition("-")
    if name in WINDOWS:
        window = int(name.removeprefix("bptt")) * STEPS_PER_UNIT
        if not late:
            return Rtrl(window), (RATE,)
        return Truncated(window), tuple(share * window * RATE for share in SHARES)
    makers: dict[str, Callable[[], Method]] = {
        "gle": Gle,
        "instantaneous": Instantaneous,
        "rtrl": Rtrl,
    }
    return makers[method](), (RATE,)


def build(method: str, seeds: list[int], streams: int) -> tuple[Online, tuple[float, ...]]:
    """A run from its beginning: for each rate, each seed."""
    what, rates = make(method)
    network = Network.load("lagline")
    students = [lagline.student(seed) for _ in rates for seed in seeds]
    net = Copies(network, students, streams)
    net.tau_m_floor = lagline.TAU_M_FLOOR * network.dt
    every = Adam(np.repeat(rates, len(seeds))[:, None])
    inputs = [lagline.load_series(seed, seed + 1, streams).train for seed in seeds]
    online = Online(
        net,
        what,
        every,
        inputs * len(rates),
        kinds=("weight", "tau_m"),
        settle=SETTLE,
        loops=True,
        block=BLOCK,
    )
    return online, rates


def errors(net: Copies, parameters: Array) -> Array:
    """Relative errors (..., C, 4) of `Copies.flat` (..., C, P), in the order of PARAMETERS."""
    parts, teacher = net.named(parameters), lagline.teacher()
    columns = []
    for name in PARAMETERS:
        value = parts[name].reshape(*parameters.shape[:-1])
        columns.append(value / float(teacher[name].ravel()[0]) - 1)
    return np.stack(columns, axis=-1)


def reached(worst: Array, within: float = WITHIN) -> float | None:
    """Units of time after settling from which the worst error (blocks,) stays within."""
    outside = np.flatnonzero(~(worst <= within))
    block = 0 if len(outside) == 0 else int(outside[-1]) + 1
    if block == len(worst):
        return None
    return max(0.0, ((block + 1) * BLOCK - SETTLE) / STEPS_PER_UNIT)


def summarise(
    method: str, online: Online, rates: tuple[float, ...], seeds: list[int], seconds: float
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Figures for JSON and the curves (points, seeds, 4) of the best rate."""
    trace = errors(online.net, np.array(online.parameters))  # (blocks, C, 4)
    worst = np.abs(trace).max(axis=-1)
    last = np.abs(errors(online.net, online.net.flat))  # (C, 4)
    best = int(np.argmin(last.max(axis=-1).reshape(len(rates), len(seeds)).mean(axis=-1)))
    mine = slice(best * len(seeds), (best + 1) * len(seeds))
    loss = np.array(online.loss)
    runs = []
    for k, rate in enumerate(rates):
        for i, seed in enumerate(seeds):
            c = k * len(seeds) + i
            values = {
                name: float(part[c].ravel()[0])
                for name, part in online.net.named(online.net.flat).items()
                if name in PARAMETERS
            }
            runs.append(
                {
                    "seed": seed,
                    "learning_rate": rate,
                    **values,
                    "worst_error": float(last[c].max()),
                    "within_2_percent_from": reached(worst[:, c]),
                    "loss_first_block": float(loss[min(SETTLE // BLOCK, len(loss) - 1), c]),
                    "loss_last_block": float(loss[-1, c]),
                }
            )
    final = last[mine]
    summary = {
        "method": method,
        "seeds": seeds,
        "steps": online.step,
        "best_learning_rate": rates[best],
        "worst_error": [float(v) for v in final.max(axis=-1)],
        "mean_error": {n: float(v) for n, v in zip(PARAMETERS, final.mean(axis=0), strict=True)},
        "all_within_2_percent": bool((final <= WITHIN).all()),
        "seconds": round(seconds),
        "runs": runs,
    }
    points = np.unique(np.linspace(0, len(trace) - 1, CURVE_POINTS).astype(int))
    curves: dict[str, Array] = {
        "time": (points + 1) * BLOCK / STEPS_PER_UNIT,
        "error": trace[points, mine],
        "loss": loss[points, mine],
    }
    return summary, curves


def measure(method: str, seeds: list[int], out: Path, units: int, streams: int) -> dict[str, Any]:
    """Run or continue one method and write `<method>.json` and `<method>.npz`."""
    out.mkdir(parents=True, exist_ok=True)
    online, rates = build(method, seeds, streams)
    checkpoint = out / f"{method}.checkpoint.npz"
    told = {"task": np.array([*map(float, seeds), float(streams)])}
    before = online.load(checkpoint, told)
    spent = float(before["seconds"][0]) if before is not None else 0.0
    steps = SETTLE + units * STEPS_PER_UNIT
    while online.step < steps:
        began = time.monotonic()
        online.run(min(100 * STEPS_PER_UNIT, steps - online.step))
        spent += time.monotonic() - began
        online.save(checkpoint, told | {"seconds": np.array([spent])})
        worst = np.abs(errors(online.net, online.net.flat)).max(axis=-1)
        at = online.step / STEPS_PER_UNIT
        print(f"{method} {at:g}: worst errors {np.round(worst, 4)} {spent:.0f} s", flush=True)
    summary, curves = summarise(method, online, rates, seeds, spent)
    with replacing(out / f"{method}.json") as path:
        path.write_text(json.dumps(summary, indent=1) + "\n")
    with replacing(out / f"{method}.npz") as path:
        thin = {name: curve.astype(np.float32) for name, curve in curves.items()}
        np.savez_compressed(path, allow_pickle=False, **thin)
    checkpoint.unlink()
    return summary


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m hwgle.baselines.lagline")
    parser.add_argument("method", choices=(*METHODS, "plot"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time", type=int, default=4000, help="units of time to learn")
    parser.add_argument("--streams", type=int, default=100)
    given = parser.parse_args(arguments)
    if given.method == "plot":
        from hwgle.baselines.plots import lagline_figure

        lagline_figure(given.out)
        return
    summary = measure(given.method, given.seeds, given.out, given.time, given.streams)
    print(json.dumps({key: value for key, value in summary.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    main()
