"""Seeded random networks with weights, inputs and targets, for all tests that need some.

Everything follows from one integer: a test that fails prints it, and
`random_case(seed)` makes the same case again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.calibrate import FOR_RUN, Margins, calibrate
from hwgle.chip import Chip
from hwgle.network import Network
from hwgle.quantise import Image, Scales, build_image, to_int16

PHIS = ("linear", "tanh", "sigmoid", "softplus", "relu")
LOSSES = ("cross_entropy", "mse")


@dataclass(frozen=True)
class Case:
    """A network with weights and a run: x (T, B, inputs), target (B,) or (T, B, outputs)."""

    seed: int
    network: Network
    weights: dict[str, NDArray[np.float64]]
    x: NDArray[np.float64]
    target: NDArray[Any]

    @property
    def batch(self) -> int:
        """Streams B."""
        return int(self.x.shape[1])

    def __repr__(self) -> str:
        """Short, so that a failing assertion can be read."""
        layers = " ".join(f"{layer.phi}{layer.size}" for layer in self.network.layers)
        n = self.network
        return (
            f"Case(seed={self.seed}: {n.inputs} in, {layers}, {n.loss}, gamma {n.gamma:.3g}, "
            f"{self.x.shape[0]} steps of {self.batch} streams)"
        )


def make_network(
    sizes: list[int],
    phis: list[str],
    rng: np.random.Generator,
    *,
    inputs: int = 3,
    loss: str = "mse",
    beta: float = 1.0,
    gamma: float = 0.0,
    dt: float = 0.1,
    largest_ratio: float = 8.0,
    learn: list[bool] | None = None,
) -> Network:
    """A network with drawn time constants: up to three populations a layer.

    The ratio of tau_m and tau_r is 1 in every third population, otherwise up to
    `largest_ratio` either way; the smaller of the two is dt to 10 dt.
    """
    layers = []
    for k, (size, phi) in enumerate(zip(sizes, phis, strict=True)):
        parts = min(size, int(rng.integers(1, 4)))
        cuts = [0, *sorted(rng.choice(np.arange(1, size), parts - 1, replace=False)), size]
        populations = []
        for first, last in pairwise(cuts):
            small = dt * float(10 ** rng.uniform(0, 1))
            small = dt if rng.random() < 0.2 else small
            large = small * float(largest_ratio ** rng.uniform(0, 1))
            kind = rng.integers(3)
            tau_m, tau_r = [(large, large), (large, small), (small, large)][kind]
            populations.append({"size": int(last - first), "tau_m": tau_m, "tau_r": tau_r})
        layers.append(
            {
                "name": f"l{k}",
                "phi": phi,
                "populations": populations,
                "learn": True if learn is None else learn[k],
            }
        )
    return Network.model_validate(
        {
            "format": "hwgle/network/1",
            "name": "random",
            "dt": dt,
            "inputs": inputs,
            "loss": loss,
            "beta": beta,
            "gamma": gamma,
            "layers": layers,
        }
    )


def slow_sines(
    rng: np.random.Generator, steps: int, batch: int, size: int, *, parts: int = 3
) -> NDArray[np.float64]:
    """Smooth signals (T, B, size) within +-1: sums of sines of 60 steps a turn and slower.

    They rise from 0 within some 20 steps: states start at 0, and a jump there would be
    amplified by every layer with tau_r > tau_m until it dwarfed all that follows.
    """
    shape = (parts, 1, batch, size)
    turn = 2 * np.pi / (60 * 10 ** rng.uniform(0, 0.7, shape))
    phase = rng.uniform(0, 2 * np.pi, shape)
    height = rng.uniform(0.1, 1.0, shape)
    t = np.arange(steps).reshape(1, steps, 1, 1)
    total = (height * np.sin(turn * t + phase)).sum(axis=0) / height.sum(axis=0)
    return np.asarray(total * -np.expm1(-np.square(t[0] / 12.0)))


def draw_weights(
    network: Network, rng: np.random.Generator, gain: float = 1.0
) -> dict[str, NDArray[np.float64]]:
    """Weights of gain / sqrt(fan in) times a normal number, biases a fifth of gain."""
    weights = {}
    for k, layer in enumerate(network.layers):
        m = network.fan_in(k)
        weights[f"{layer.name}.weight"] = rng.normal(0, gain / np.sqrt(m), (layer.size, m))
        weights[f"{layer.name}.bias"] = rng.normal(0, gain / 5, layer.size)
    return weights


def draw_run(
    network: Network, rng: np.random.Generator, steps: int, batch: int
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Inputs and targets; of labels a tenth is missing (-1)."""
    x = slow_sines(rng, steps, batch, network.inputs) * 10 ** rng.uniform(-0.5, 0.5)
    if network.loss == "cross_entropy":
        labels = rng.integers(0, network.outputs, batch)
        labels[rng.random(batch) < 0.1] = -1
        labels[0] = abs(labels[0])
        return x, labels
    return x, slow_sines(rng, steps, batch, network.outputs)


def random_case(
    seed: int,
    *,
    layers: int = 8,
    neurons: int = 64,
    inputs: int = 16,
    batch: int = 33,
    steps: int = 500,
    phis: tuple[str, ...] = PHIS,
    largest_ratio: float = 8.0,
) -> Case:
    """One random network with its run; the keywords are the largest values drawn."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[int(rng.integers(2))]
    depth = int(rng.integers(1, layers + 1))
    sizes = [int(s) for s in np.round(neurons ** rng.uniform(0, 1, depth))]
    if loss == "cross_entropy":
        sizes[-1] = max(2, sizes[-1])
    network = make_network(
        sizes,
        [phis[int(k)] for k in rng.integers(0, len(phis), depth)],
        rng,
        inputs=int(rng.integers(1, inputs + 1)),
        loss=loss,
        beta=float(10 ** rng.uniform(-2, 0)),
        gamma=float(rng.choice([0.0, 10 ** rng.uniform(-3, -1)])),
        dt=float(10 ** rng.uniform(-2, 0)),
        largest_ratio=largest_ratio,
    )
    weights = draw_weights(network, rng, float(rng.uniform(0.5, 1.5)))
    count = int(rng.integers(1, batch + 1))
    length = int(rng.integers(max(1, steps // 5), steps + 1))
    x, target = draw_run(network, rng, length, count)
    return Case(seed, network, weights, x, target)


@dataclass(frozen=True)
class Quantised:
    """A case in the chip's integers: what a device takes."""

    image: Image
    input: NDArray[np.int16]
    target: NDArray[np.int16]


def quantised(
    case: Case,
    chip: Chip,
    scales: Scales | None = None,
    margins: Margins = FOR_RUN,
    **options: Any,
) -> Quantised:
    """Calibrate on the case's own run (or take `scales`), build the image, quantise the run."""
    if scales is None:
        scales = calibrate(case.network, chip, case.weights, case.x, case.target, margins)
    image = build_image(case.network, chip, scales, batch=case.batch, **options)
    x, _ = to_int16(case.x, scales.input, chip.input_max)
    if case.network.loss == "mse":
        target, _ = to_int16(case.target, scales.target, 32767)
    else:
        target = case.target.astype(np.int16)
    return Quantised(image, x, target)


def chip_with(seed: int = 0, *, rounding: str = "stochastic", **bits: int) -> Chip:
    """The ideal chip with other widths (weight, stored, rate, input, error) and rounding."""
    data = Chip.load("ideal").model_dump()
    data["seed"] = seed
    data["plasticity"] = {"rounding": rounding}
    data["weight"] = {"bits": bits.pop("weight", 14), "stored_bits": bits.pop("stored", 16)}
    for name, width in bits.items():
        data[name] = {"bits": width}
    return Chip.model_validate(data)


def draw_topology(
    rng: np.random.Generator,
    kind: str = "transposed",
    *,
    sparse: bool | None = None,
    smooth: bool = False,
    neurons: int = 5,
    inputs: int = 3,
    loss: str | None = None,
) -> Network:
    """A random network of three or four layers with skips, recurrence, masks, frozen layers.

    sparse: every layer has a mask, none has; None: some. smooth: no kinks, gamma 0.
    """
    depth = int(rng.integers(3, 5))
    names = [f"l{k}" for k in range(depth)]
    dt = 0.1
    phis = PHIS if not smooth else [p for p in PHIS if p != "relu"]
    layers: list[dict[str, Any]] = []
    for k, name in enumerate(names):
        size = int(rng.integers(2, neurons + 1))
        tau_m, tau_r = (float(t) for t in dt * rng.uniform(1, 4, 2))
        one: dict[str, Any] = {
            "name": name,
            "phi": str(rng.choice(phis)),
            "learn": bool(rng.random() < 0.75 or k + 1 == depth),
            "recurrent": bool(rng.random() < 0.5),
            "populations": [
                {"size": 1, "tau_m": tau_m, "tau_r": tau_r},
                {"size": size - 1, "tau_m": tau_r, "tau_r": tau_r},
            ],
        }
        earlier = ["input", *names[: max(0, k - 1)]]
        skips = [s for s in earlier if rng.random() < 0.5] if k else []
        if skips:
            one["from"] = [names[k - 1], *skips]
        if sparse or (sparse is None and rng.random() < 0.5):
            one["sparsity"] = [
                {"density": 0.6, "seed": int(rng.integers(99))},
                {"modules": 2, "density": 0.5, "of": [names[k - 1] if k else "input"]},
            ]
        layers.append(one)
    data: dict[str, Any] = {
        "format": "hwgle/network/1",
        "name": "drawn",
        "dt": dt,
        "inputs": inputs,
        "loss": loss or str(rng.choice(["mse", "cross_entropy"])),
        "beta": 1.0,
        "gamma": 0.0 if smooth else float(rng.choice([0.0, 0.05])),
        "layers": layers,
    }
    if kind != "transposed":
        data["feedback"] = {"kind": kind}
        if kind == "kolen-pollack" and rng.random() < 0.5:
            data["feedback"]["decay"] = 0.01
    return Network.model_validate(data)
