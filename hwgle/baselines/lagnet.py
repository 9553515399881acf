"""Lagnet: how far the loss falls and how well GLE follows the adjoint. A run per method.

    python -m hwgle.baselines.lagnet METHOD --seeds 0 1 2 3 4 --out DIR
    python -m hwgle.baselines.lagnet plot --out DIR

METHOD is gle, instantaneous, rtrl or bptt3 (the adjoint over windows of 3 units of time, one
update for each, as in arXiv 2403.16933). Momentum 0.9 and rate 2e-2 per unit of time, 80
units before learning starts, 1000 in all; the first layer learns. Seeds draw the student and
run side by side. Beside gle and instantaneous looks RTRL, which is the adjoint's gradient
exactly: a point of a curve is the cosine between what the method and what RTRL summed over a
block of 13 units of time, a cycle of the slowest sine. It is given for weights held at those
of the student (220 units, after the 80), while learning until the loss has fallen 100 times,
and from there on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.following import Following
from hwgle.baselines.gle import Gle
from hwgle.baselines.instantaneous import Instantaneous
from hwgle.baselines.method import Method
from hwgle.baselines.online import Online
from hwgle.baselines.optimisers import Momentum
from hwgle.baselines.rtrl import Rtrl
from hwgle.baselines.truncated import Truncated
from hwgle.cache import replacing
from hwgle.network import Network
from hwgle.tasks import Series, lagnet

STEPS_PER_UNIT = 100
UNITS = 1000
SETTLE = 80 * STEPS_PER_UNIT
BLOCK = 3 * STEPS_PER_UNIT
CYCLE = 13 * STEPS_PER_UNIT
HELD = 300 * STEPS_PER_UNIT
RATE, MOMENTUM = 2e-2 / STEPS_PER_UNIT, 0.9
SPAN = 60 * STEPS_PER_UNIT  # over which the loss at either end is averaged
FOLLOWED = ("gle", "instantaneous")
METHODS = ("gle", "instantaneous", "rtrl", "bptt3")


def make(method: str) -> Method:
    """A method by its name."""
    if method == "bptt3":
        return Truncated(BLOCK)
    makers: dict[str, Callable[[], Method]] = {
        "gle": Gle,
        "instantaneous": Instantaneous,
        "rtrl": Rtrl,
    }
    return makers[method]()


def start(
    method: str, seeds: list[int], series: Series, learns: bool
) -> tuple[Online, Following | None]:
    """A run from its beginning, and the comparison with RTRL where there is one."""
    net = Copies(Network.load("lagnet"), [lagnet.student(seed) for seed in seeds], 1)
    following = Following(net, Rtrl(), CYCLE) if method in FOLLOWED else None
    online = Online(
        net,
        make(method),
        Momentum(RATE, MOMENTUM) if learns else None,
        series,
        kinds=("weight",),
        settle=SETTLE,
        block=BLOCK,
        watcher=following,
    )
    return online, following


def measure(method: str, seeds: list[int], out: Path, units: int) -> dict[str, Any]:
    """Run one method and write `<method>.json` and `<method>.npz`."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    steps = units * STEPS_PER_UNIT
    series = lagnet.load_series(steps, 1).train
    online, following = start(method, seeds, series, learns=True)
    while online.step < steps:
        online.run(min(100 * STEPS_PER_UNIT, steps - online.step))
        latest = [f"{v:.1e}" for v in online.loss[-1]]
        seconds = time.monotonic() - began
        print(f"{method} {online.step / STEPS_PER_UNIT:g}: {latest} {seconds:.0f} s", flush=True)
    loss = np.array(online.loss)
    settled, span = SETTLE // BLOCK, SPAN // BLOCK
    before = loss[settled - span : settled].mean(axis=0)
    after = loss[-span:].mean(axis=0)
    net = online.net
    students = net.named(net.flat)["h1.weight"]
    summary: dict[str, Any] = {
        "method": method,
        "seeds": seeds,
        "steps": steps,
        "loss_before": before.tolist(),
        "loss_after": after.tolist(),
        "loss_falls_by": (before / after).tolist(),
        "weight_error": np.abs(students - lagnet.teacher()["h1.weight"]).max((1, 2)).tolist(),
    }
    arrays: dict[str, NDArray[Any]] = {
        "loss": loss.astype(np.float32),
        "time": np.arange(1, len(loss) + 1) * BLOCK / STEPS_PER_UNIT,
        "h1.weight": net.named(np.array(online.parameters))["h1.weight"][..., 0],
    }
    if following is not None:
        held, beside = start(method, seeds, series, learns=False)
        held.run(min(HELD, steps))
        assert beside is not None
        summary["cosine"] = cosine_figures(following, beside, loss, before)
        for name, curve in following.curves.items():
            arrays[f"cosine/{name}"] = np.array(curve, np.float32)
        count = len(following.curves["all"])
        arrays["cosine.time"] = np.arange(1, count + 1) * CYCLE / STEPS_PER_UNIT
    summary["seconds"] = round(time.monotonic() - began)
    with replacing(out / f"{method}.json") as path:
        path.write_text(json.dumps(summary, indent=1) + "\n")
    with replacing(out / f"{method}.npz") as path:
        np.savez_compressed(path, allow_pickle=False, **arrays)
    return summary


def cosine_figures(
    learning: Following, held: Following, loss: Array, before: Array
) -> dict[str, dict[str, Any]]:
    """Per layer and stage: median and smallest over blocks and seeds, share above 0.9.

    loss: (blocks of BLOCK, seeds), before: (seeds,), of the run that learned.
    """
    first = -(-SETTLE // CYCLE)
    count = len(learning.curves["all"])
    ends = [min((k + 1) * CYCLE // BLOCK, len(loss)) for k in range(count)]
    low = np.array([loss[:end].min(axis=0) * 100 <= before for end in ends])
    counts = np.arange(count)[:, None] >= first
    figures: dict[str, dict[str, Any]] = {}
    for name, curve in learning.curves.items():
        values = np.array(curve)
        stages = {
            "held": np.array(held.curves[name])[first:].ravel(),
            "until_100_times_less": values[counts & ~low],
            "from_there_on": values[counts & low],
        }
        figures[name] = {stage: _figures(found) for stage, found in stages.items()}
    return figures


def _figures(values: Array) -> dict[str, float]:
    if len(values) == 0:
        return {"blocks": 0}
    return {
        "blocks": len(values),
        "median": float(np.median(values)),
        "smallest": float(values.min()),
        "share_above_0.9": float(np.mean(values > 0.9)),
    }


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m hwgle.baselines.lagnet")
    parser.add_argument("method", choices=(*METHODS, "plot"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time", type=int, default=UNITS, help="units of time in all")
    given = parser.parse_args(arguments)
    if given.method == "plot":
        from hwgle.baselines.plots import lagnet_figure

        lagnet_figure(given.out)
        return
    print(json.dumps(measure(given.method, given.seeds, given.out, given.time), indent=1))


if __name__ == "__main__":
    main()
