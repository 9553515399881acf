"""Material for tests of the accuracy report: random networks, and a small experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwgle.accuracy_report.material import Material
from hwgle.accuracy_report.signals import Basis, Segment, float_segments
from hwgle.network import Network
from hwgle.verify.drawing import Run, draw_network, draw_weights
from hwgle.weights import Weights, initial

NETWORK = """\
format: hwgle/network/1
name: small
dt: 0.2
inputs: 1
loss: cross_entropy
layers:
  - name: low
    phi: tanh
    populations:
      - {size: 6, tau_m: 0.6, tau_r: 0.2}
      - {size: 4, tau_m: 1.2, tau_r: 1.2}
  - name: mid
    phi: tanh
    populations: [{size: 9, tau_m: 1.2, tau_r: 1.2}]
  - name: out
    phi: linear
    populations: [{size: 10, tau_m: 1.2, tau_r: 1.2}]
"""
EXPERIMENT = """\
format: hwgle/experiment/1
name: tiny
network: small.yaml
chip: ideal
task: {name: mnist1d, seed: 1, validation_seed: 2, train: 200, test: 100}
training: {rule: adam, epochs: 2, batch: 20, learning_rate: 1e-3}
"""
STREAMS, SEGMENTS, STEPS = 8, 4, 90


@dataclass
class Drawn:
    """A random network with two materials of the same kind: to choose on, and to judge by."""

    network: Network
    weights: Weights
    chosen: Material
    judged: Material
    basis: Basis
    reference: list[Segment]


def chain(network: Network) -> Network:
    """The same without what a report does not follow: skips, masks, feedback of its own."""
    data = network.model_dump(by_alias=True, exclude_none=True)
    data.pop("feedback", None)
    for layer in data["layers"]:
        for key in ("from", "recurrent", "sparsity"):
            layer.pop(key, None)
    return Network.model_validate(data)


def drawn(seed: int) -> Drawn:
    """Everything from one seed."""
    rng = np.random.default_rng([seed, 1])
    network = draw_network(rng, lambda _: True)
    assert network is not None
    network = chain(network)
    weights = draw_weights(network, rng)
    run = Run(network, 2 * STREAMS, SEGMENTS * STEPS, seed)
    x = run.input(0, SEGMENTS * STEPS)
    if network.loss == "mse":
        y = run.target(0, SEGMENTS * STEPS)
    else:
        labels = np.random.default_rng([seed, 9])
        y = labels.integers(0, network.outputs, (SEGMENTS, 2 * STREAMS))
    chosen, judged = (
        Material(np.ascontiguousarray(x[:, s]), np.ascontiguousarray(y[:, s]), STEPS)
        for s in (slice(0, STREAMS), slice(STREAMS, 2 * STREAMS))
    )
    target = chosen.target
    assert target is not None
    first = target[0] if network.loss == "cross_entropy" else target
    basis = Basis(network, weights, chosen.x, first)
    return Drawn(
        network, weights, chosen, judged, basis, float_segments(network, weights, judged)
    )


def small(folder: Path) -> tuple[Path, Network, Weights]:
    """small.yaml and tiny.yaml in a folder; the network, and weights with a lively middle."""
    (folder / "small.yaml").write_text(NETWORK)
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    network = Network.load(str(folder / "small.yaml"))
    weights = initial(network, 3)
    weights["mid.weight"] = 8 * weights["mid.weight"]
    return folder / "tiny.yaml", network, weights
