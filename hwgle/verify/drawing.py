"""What verify runs when nobody says: networks, weights, inputs and targets from a seed.

Everything follows from one integer. Steps are computed where they are needed, so that a
hundred thousand of them cost no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle.device import Block
from hwgle.network import Network
from hwgle.quantise import Image, to_int16
from hwgle.weights import Weights, masked_away

OUTPUTS = 10  # at most: mean squared error sends a target for each at every step
PHIS = ("linear", "tanh", "sigmoid", "softplus", "relu")
KINDS = ("transposed", "alignment", "kolen-pollack", "direct", "broadcast")
LOSSES = ("cross_entropy", "mse")
BLOCK = 256  # steps; of one block on the wire too
SINES = 3
RISE = 12.0  # steps in which the input grows from 0: a jump there would drown what follows
UNLABELLED = 0.1
TRIES = 40


def draw_network(
    rng: np.random.Generator,
    fits: Callable[[Network], bool],
    neurons: int = 48,
    name: str = "drawn",
) -> Network | None:
    """A random network that fits, smaller and smaller ones until one does; None: none does."""
    for _ in range(TRIES):
        network = _network(rng, neurons, name)
        if fits(network):
            return network
        neurons = max(2, neurons * 4 // 5)
    return None


def _network(rng: np.random.Generator, neurons: int, name: str) -> Network:
    depth = int(rng.integers(1, 6))
    sizes = [int(s) for s in np.round(neurons ** rng.uniform(0.2, 1, depth))]
    loss = LOSSES[int(rng.integers(2))]
    sizes[-1] = min(sizes[-1], OUTPUTS)
    if loss == "cross_entropy":
        sizes[-1] = max(2, sizes[-1])
    dt = float(10 ** rng.uniform(-2, 0))
    layers: list[dict[str, Any]] = [
        {"name": f"l{k}", "phi": PHIS[int(rng.integers(len(PHIS)))],
         "populations": _populations(rng, size, dt)}
        for k, size in enumerate(sizes)
    ]  # fmt: skip
    wiring = _wiring(rng.spawn(1)[0], layers)
    return Network.model_validate(
        {
            **wiring,
            "format": "hwgle/network/1",
            "name": name,
            "dt": dt,
            "inputs": int(rng.integers(1, min(16, neurons) + 1)),
            "loss": loss,
            "beta": float(10 ** rng.uniform(-1, 0)),
            "gamma": float(rng.choice([0.0, 10 ** rng.uniform(-3, -1)])),
            "layers": layers,
        }
    )


def _wiring(rng: np.random.Generator, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Half of the networks: skips, recurrence, masks and a way of feedback, in part put into
    the layers; of a generator of its own, so that everything else is drawn as ever."""
    if rng.random() < 0.5:
        return {}
    for k, layer in enumerate(layers):
        if k and rng.random() < 0.3:
            earlier = ["input", *(y["name"] for y in layers[: k - 1])]
            layer["from"] = [layers[k - 1]["name"], *(s for s in earlier if rng.random() < 0.5)]
        if rng.random() < 0.25:
            layer["recurrent"] = True
        if rng.random() < 0.25:
            layer["sparsity"] = {
                "density": float(rng.choice([0.2, 0.6])), "modules": int(rng.integers(1, 4)),
                "seed": int(rng.integers(1000)),
            }  # fmt: skip
    kind = KINDS[int(rng.integers(len(KINDS)))]
    return {"feedback": {"kind": kind}} if kind != "transposed" else {}


def _populations(rng: np.random.Generator, size: int, dt: float) -> list[dict[str, float]]:
    """One or two populations: instantaneous, slow or prospective."""
    cut = int(rng.integers(1, size + 1))
    result = []
    for part in (cut, size - cut):
        if part == 0:
            continue
        small = dt * float(10 ** rng.uniform(0, 1)) if rng.random() < 0.8 else dt
        large = small * float(8 ** rng.uniform(0, 1))
        tau_m, tau_r = [(large, large), (large, small), (small, large)][int(rng.integers(3))]
        result.append({"size": part, "tau_m": tau_m, "tau_r": tau_r})
    return result


def draw_weights(network: Network, rng: np.random.Generator) -> Weights:
    """Weights of normal numbers over the root of the fan-in, biases a fifth of that."""
    weights: Weights = {}
    for k, layer in enumerate(network.layers):
        m = network.fan_in(k)
        weights[f"{layer.name}.weight"] = rng.normal(0, 1 / np.sqrt(m), (layer.size, m))
        weights[f"{layer.name}.bias"] = rng.normal(0, 0.2, layer.size)
    weights |= topology.drawn_feedback(network)
    masked_away(network, weights)
    return weights


class Signal:
    """Smooth signals (B, n) within +-height: sums of sines of 60 steps a turn and slower."""

    def __init__(self, rng: np.random.Generator, batch: int, size: int, height: float) -> None:
        shape = (SINES, 1, batch, size)
        self._pace = 2 * np.pi / (60 * 10 ** rng.uniform(0, 0.7, shape))
        self._phase = rng.uniform(0, 2 * np.pi, shape)
        weight = rng.uniform(0.1, 1.0, shape)
        self._height = height * weight / weight.sum(axis=0)

    def at(self, first: int, count: int) -> NDArray[np.float64]:
        """Steps first .. first + count, (count, B, n)."""
        t = np.arange(first, first + count, dtype=np.float64).reshape(1, count, 1, 1)
        waves = (self._height * np.sin(self._pace * t + self._phase)).sum(axis=0)
        return np.asarray(waves * -np.expm1(-np.square(t[0] / RISE)))


class Run:
    """Inputs and targets of `steps` steps in network units: given, or drawn from a seed."""

    def __init__(
        self,
        network: Network,
        batch: int,
        steps: int,
        seed: int,
        x: NDArray[np.float64] | None = None,
        target: NDArray[np.generic] | None = None,
    ) -> None:
        self.network, self.batch, self.steps, self._seed = network, batch, steps, seed
        rng = np.random.default_rng([seed, 2])
        self._x, self._target = x, target
        self._signal = Signal(rng, batch, network.inputs, float(10 ** rng.uniform(-0.5, 0.5)))
        self._wanted = Signal(rng, batch, network.outputs, 1.0)

    def input(self, first: int, count: int) -> NDArray[np.float64]:
        """(count, B, inputs)."""
        if self._x is not None:
            return self._x[first : first + count]
        return self._signal.at(first, count)

    def target(self, first: int, count: int) -> NDArray[np.generic]:
        """(B,) labels of the block that `first` lies in, or (count, B, outputs)."""
        if self._target is not None:
            one = self.network.loss == "cross_entropy"
            return self._target if one else self._target[first : first + count]
        if self.network.loss == "mse":
            return self._wanted.at(first, count)
        rng = np.random.default_rng([self._seed, 3, first // BLOCK])
        labels = rng.integers(0, self.network.outputs, self.batch)
        labels[rng.random(self.batch) < UNLABELLED] = -1
        return labels

    def spans(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Steps first .. end in pieces (first, count) that no block's border lies in."""
        while first < end:
            count = min(BLOCK - first % BLOCK, end - first)
            yield first, count
            first += count


@dataclass(frozen=True)
class Blocks:
    """A run in the chip's integers."""

    run: Run
    image: Image
    learn: bool

    def block(self, first: int, count: int) -> Block:
        """Steps within one block."""
        image, network = self.image, self.image.network
        x, _ = to_int16(self.run.input(first, count), image.scales.input, image.chip.input_max)
        y = self.run.target(first, count)
        if network.loss == "mse":
            target, _ = to_int16(np.asarray(y, dtype=np.float64), image.scales.target, 32767)
        else:
            target = np.asarray(y, dtype=np.int16)
        return Block(x, target, learn=self.learn, ranging=self.learn)
