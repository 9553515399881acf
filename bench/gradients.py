"""How near a trained network's GLE gradient is to the true one, and how saturated it is.

    ./run python -m bench.gradients mnist1d-15k

Float64, the first SAMPLES training samples, the trained weights of the zoo (or --weights):
per layer the cosine of the summed gradients of its weights with the adjoint's
(hwgle/adjoint.py), their sizes, and the share of rates beyond 0.95. Then, of networks that tell
classes apart, how many samples are right at the best single step and by the votes over all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwgle import weights as weights_file
from hwgle import zoo
from hwgle.adjoint import adjoint_gradient, online_gradient
from hwgle.experiment import Experiment
from hwgle.reference import Reference

SAMPLES = 400
SATURATED = 0.95
COLUMNS = "{:6} {:>7} {:>9} {:>9} {:>10}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gradients", description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    experiment = Experiment.load(arguments.experiment)
    network, task = experiment.load_network(), experiment.load_task()
    path = arguments.weights or Path(zoo.__file__).parent / "weights" / f"{network.name}.npz"
    weights = weights_file.load(path, network)
    x = np.swapaxes(task.train.x[:SAMPLES], 0, 1)
    y = task.train.y[:SAMPLES]
    _, true = adjoint_gradient(network, weights, x, y)
    own = online_gradient(network, weights, x, y)
    rates = Reference(network, weights, SAMPLES).run(x, record=("r",))
    print(COLUMNS.format("layer", "cosine", "|adjoint|", "|GLE|", "saturated"))
    for layer in network.layers:
        a, b = (g[f"{layer.name}.weight"].ravel() for g in (true, own))
        sizes = np.linalg.norm(a), np.linalg.norm(b)
        beyond = float(np.mean(np.abs(rates[f"{layer.name}.r"]) > SATURATED))
        share = f"{beyond:.2f}" if layer.phi == "tanh" else "-"
        cosine = f"{a @ b / (sizes[0] * sizes[1]):.2f}"
        print(COLUMNS.format(layer.name, cosine, *(f"{s:.3g}" for s in sizes), share))
    if network.loss == "cross_entropy":
        print(by_steps_and_votes(rates[f"{network.layers[-1].name}.r"], np.asarray(y)))


def by_steps_and_votes(out: NDArray[np.float64], y: NDArray[np.integer]) -> str:
    """Of outputs (T, B, classes) and classes (B,)."""
    steps = np.mean(out.argmax(axis=2) == y, axis=1)
    votes = np.mean(out.sum(axis=0).argmax(axis=1) == y)
    shifted = out - out.max(axis=2, keepdims=True)
    own = shifted[:, np.arange(len(y)), y]
    entropy = np.mean(np.log(np.exp(shifted).sum(axis=2)) - own)
    return (
        f"right at the best single step: {100 * steps.max():.0f} % of the samples "
        f"(cross-entropy over all steps {entropy:.2f}, chance {np.log(out.shape[2]):.2f}); "
        f"by votes: {100 * votes:.0f} %"
    )


if __name__ == "__main__":
    main()
