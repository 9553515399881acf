"""Mackey-Glass: how well float64 methods predict, on the network that the chip learns with.

    python -m hwgle.baselines.mackey_glass METHOD --seeds 0 1 2 --out DIR

METHOD is gle, instantaneous or bptt (truncated: every 10 steps the losses of those steps go
back through the last 100). Network and data are those of experiment `mackey-glass`: initial
weights of the seed, ten streams side by side, Adam; GLE and instantaneous backpropagation
update at every step. Learning rates of a grid run beside one another and fall geometrically
to a hundredth; for each seed and rate the weights of the epoch with the smallest validation
error are kept, and the rate with the smallest mean of those is told of. Errors are
root-mean-square over the standard deviation of the target, from rest, without the first
`settle` steps.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.gle import Gle
from hwgle.baselines.instantaneous import Instantaneous
from hwgle.baselines.method import Method
from hwgle.baselines.online import Online
from hwgle.baselines.optimisers import Adam
from hwgle.baselines.truncated import Truncated
from hwgle.cache import replacing
from hwgle.network import Network
from hwgle.prediction import nrmse
from hwgle.tasks import Series, mackey_glass
from hwgle.weights import initial

WINDOW, EVERY = 100, 10
# BPTT updates a tenth as often, by ten times as much.
RATES = {
    "gle": (3e-3, 1e-3, 3e-4, 1e-4),
    "instantaneous": (3e-3, 1e-3, 3e-4, 1e-4),
    "bptt": (1e-2, 3e-3),
}
FALL = 0.01  # of the rate, from the first step to the last
SEED, VALIDATION_SEED = 1, 2
SETTLE = 100
METHODS = ("gle", "instantaneous", "bptt")


def make(method: str) -> Method:
    """A method by its name."""
    if method == "bptt":
        return Truncated(WINDOW, EVERY)
    return Gle() if method == "gle" else Instantaneous()


def errors(network: Network, parameters: Array, like: Copies, series: Series) -> Array:
    """NRMSE (C, outputs) of parameters (C, P) on a series, from rest."""
    named = like.named(parameters)
    weights = [{name: part[c] for name, part in named.items()} for c in range(len(parameters))]
    net = Copies(network, weights, len(series))
    steps = series.x.shape[1]
    output = np.empty((steps, net.copies, len(series), network.outputs))
    for t in range(steps):
        net.step(series.x[None, :, t])
        output[t] = net.output
    target = np.swapaxes(series.y, 0, 1)[SETTLE:]
    return np.array([nrmse(output[SETTLE:, c], target) for c in range(net.copies)])


def measure(
    method: str, seeds: list[int], epochs: int, out: Path, rates: tuple[float, ...] | None = None
) -> dict[str, Any]:
    """Run one method and write `<method>.json`, after every epoch as it stands."""
    began = time.monotonic()
    network = Network.load("mackey-glass")
    task = mackey_glass.load_series(SEED, VALIDATION_SEED)
    offered = rates or RATES[method]
    pairs = [(seed, rate) for rate in offered for seed in seeds]
    net = Copies(network, [initial(network, seed) for seed, _ in pairs], len(task.train))
    each = np.array([[rate] for _, rate in pairs])
    adam = Adam(each)
    online = Online(net, make(method), adam, task.train, loops=True, settle=SETTLE)
    steps = task.train.x.shape[1]
    best = np.full(len(pairs), np.inf)
    kept = net.flat.copy()
    curve: list[list[float]] = []
    summary: dict[str, Any] = {}
    for epoch in range(epochs):
        adam.lr = each * FALL ** (epoch / epochs)
        with np.errstate(all="ignore"):  # a rate may be too large: that shows in its error
            online.run(steps)
            validation = errors(network, net.flat, net, task.validation).mean(axis=1)
        curve.append(validation.tolist())
        better = np.isfinite(validation) & (validation < best)
        best[better], kept[better] = validation[better], net.flat[better]
        text = " ".join(f"{v:.3f}" for v in validation)
        print(f"{method} {epoch + 1}/{epochs}: {text} {time.monotonic() - began:.0f} s", flush=True)
        grid = best.reshape(len(offered), len(seeds))
        chosen = int(np.argmin(grid.mean(axis=1)))
        mine = slice(chosen * len(seeds), (chosen + 1) * len(seeds))
        summary = {
            "method": method,
            "seeds": seeds,
            "epochs": epochs,
            "epochs_done": epoch + 1,
            "rates": list(offered),
            "rate": offered[chosen],
            "validation": grid.tolist(),
            "ahead": list(mackey_glass.AHEAD),
            "test": errors(network, kept[mine], net, task.test).tolist(),
            "curve": np.array(curve)[:, mine].tolist(),
            "seconds": round(time.monotonic() - began),
        }
        with replacing(out / f"{method}.json") as path:
            path.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m hwgle.baselines.mackey_glass")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", help="other learning rates")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    summary = measure(
        given.method, given.seeds, given.epochs, given.out, given.rates and tuple(given.rates)
    )
    print(json.dumps({k: v for k, v in summary.items() if k != "curve"}, indent=1))


if __name__ == "__main__":
    main()
