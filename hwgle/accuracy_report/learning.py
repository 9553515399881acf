"""Learning: the direction of updates against float GLE and the exact adjoint, and what becomes
of them in stored weights, beside a float shadow of the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy_report.material import Material
from hwgle.accuracy_report.signals import Basis, Progress
from hwgle.activation import softmax
from hwgle.adjoint import adjoint_gradient, cosine, online_gradient
from hwgle.calibrate import FOR_TRAINING
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.network import Network
from hwgle.quantise import applied_rate, build_image, quantise_weights, to_int16
from hwgle.reference import Reference, Sgd
from hwgle.session import RANGE_EVERY, weights_from
from hwgle.weights import Weights

Floats = NDArray[np.floating[Any]]


def unasked(network: Network, material: Material) -> NDArray[Any]:
    """The material's target with none in the segments that settle."""
    target = material.run_target(network)
    assert target is not None
    missing = -1 if network.loss == "cross_entropy" else np.nan
    target = target.copy()
    target[: material.settle * material.steps] = missing
    return target


class Directions:
    """Updates summed over the judged segments with fixed weights: float GLE and the adjoint,
    which no chip changes."""

    def __init__(self, network: Network, weights: Weights, material: Material) -> None:
        self.network, self.weights, self.material = network, weights, material
        target = unasked(network, material)
        self.gle = online_gradient(network, weights, material.x, target)
        self.adjoint: Mapping[str, Floats] | None = None
        if network.gamma == 0:
            self.adjoint = adjoint_gradient(network, weights, material.x, target)[1]

    def of_chip(self, chip: Chip, basis: Basis) -> dict[str, Floats]:
        """The same on a chip, from its gradient accumulators."""
        m = self.material
        scales = basis.scales(chip)
        image = build_image(self.network, chip, scales, batch=m.streams)
        emulator = Emulator()
        emulator.load(image, m.streams, gradient=True)
        emulator.write_weights(quantise_weights(image, self.weights))
        codes, _ = to_int16(m.x, scales.input, chip.input_max)
        drop = int(np.ceil(np.log2(max(2, m.steps))))
        total: dict[str, Floats] = {}
        for k in range(m.segments):
            part = slice(k * m.steps, (k + 1) * m.steps)
            if k < m.settle:
                emulator.run(Block(codes[part]))
                continue
            _, y = m.segment(k)
            if self.network.loss == "mse":
                assert y is not None
                y = to_int16(y, scales.target, 32767)[0]
            emulator.clear_gradient(drop)
            assert y is not None
            emulator.run(Block(codes[part], y.astype(np.int16), gradient=True))
            for name, g in emulator.gradient().items():
                total[name] = total[name] + g if name in total else g
        return total

    def figures(self, chip: Chip, basis: Basis) -> dict[str, Any]:
        """Per layer: cosine and size (ratio of norms) of the chip's update of the weights
        against float GLE and against the adjoint, and GLE's own against the adjoint."""
        own = self.of_chip(chip, basis)
        names = [layer.name for layer in self.network.layers]
        layers = {name: self._one(own, [f"{name}.weight"]) for name in names}
        everything = self._one(own, [f"{name}.weight" for name in names])
        known = [y["cosine_gle"] for y in layers.values() if y["cosine_gle"] is not None]
        mean = sum(known) / len(known) if known else None
        return {"layers": layers, "all": everything, "mean": {"cosine_gle": mean}}

    def _one(self, own: Mapping[str, Floats], keys: Sequence[str]) -> dict[str, Any]:
        chip, gle = {k: own[k] for k in keys}, {k: self.gle[k] for k in keys}
        found: dict[str, Any] = {
            "cosine_gle": told(cosine(chip, gle)),
            "size_gle": size(chip, gle),
            "cosine_adjoint": None,
            "size_adjoint": None,
            "gle_cosine_adjoint": None,
        }
        if self.adjoint is not None:
            exact = {k: self.adjoint[k] for k in keys}
            found["cosine_adjoint"] = told(cosine(chip, exact))
            found["size_adjoint"] = size(chip, exact)
            found["gle_cosine_adjoint"] = told(cosine(gle, exact))
        return found


def told(value: float) -> float | None:
    """None for a cosine with nothing."""
    return None if np.isnan(value) else float(value)


def norm(parts: Mapping[str, Floats]) -> float:
    """Of all arrays together."""
    return float(np.sqrt(sum(float(np.square(p).sum()) for p in parts.values())))


def size(a: Mapping[str, Floats], b: Mapping[str, Floats]) -> float | None:
    """Norm of a over norm of b; None where b is 0."""
    below = norm(b)
    return norm(a) / below if below > 0 else None


# --- plasticity --------------------------------------------------------------------------------


def audit(
    network: Network,
    chip: Chip,
    weights: Weights,
    material: Material,
    basis: Basis,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """On-chip SGD at the chip's own rate, a float shadow beside it: what became of updates.

    Both begin with the same weights and see the same samples; no segment is left out.
    """
    wide = basis.scales(chip, FOR_TRAINING)
    rate = chip.plasticity.learning_rate
    image = build_image(
        network, chip, wide, batch=material.streams, learning_rate=rate, range_every=RANGE_EVERY
    )
    emulator = Emulator()
    emulator.load(image, material.streams)
    stored = quantise_weights(image, weights)
    emulator.write_weights(stored)
    before = weights_from(image, stored, emulator.formats())
    applied = applied_rate(rate, material.streams)
    shadow, sgd = Reference(network, weights, material.streams), Sgd(applied)
    top = len(network.layers) - 1
    loss: dict[str, list[float]] = {"chip": [], "float": []}
    for k in range(material.segments):
        x, y = material.segment(k)
        codes, _ = to_int16(x, wide.input, chip.input_max)
        assert y is not None
        on_chip: NDArray[np.int16] = y.astype(np.int16)
        if network.loss == "mse":
            on_chip = to_int16(y, wide.target, 32767)[0]
        block = Block(codes, on_chip, learn=True, ranging=True, record=[(top, "r")])
        records = emulator.run(block)
        assert records.fracs is not None
        fracs = records.fracs[:, top, 0].astype(np.int64)[:, None, None]
        loss["chip"].append(_loss(network, np.ldexp(records.signals[0], -fracs), y))
        output = np.empty((len(x), material.streams, network.outputs))
        for t in range(len(x)):
            shadow.step(x[t], y[t] if network.loss == "mse" else y)
            sgd(shadow)
            output[t] = shadow.output
        loss["float"].append(_loss(network, output, y))
        if progress is not None:
            progress(k + 1, material.segments)
    after = weights_from(image, emulator.read_weights(), emulator.formats())
    counters = emulator.counters()
    layers = {}
    for k, layer in enumerate(network.layers):
        key = f"{layer.name}.weight"
        moved = {key: after[key] - before[key]}
        meant = {key: shadow.weights[key] - np.asarray(weights[key])}
        layers[layer.name] = {
            **shares(counters[k], after[key].size),
            "moved_cosine": told(cosine(moved, meant)),
            "moved_size": size(moved, meant),
        }
    return {"rate": applied, "streams": material.streams, "samples": material.segments,
            "loss": loss, "layers": layers}  # fmt: skip


def shares(counter: Mapping[str, int], synapses: int) -> dict[str, float]:
    """Of all weight updates those that rounded to nothing and that met the end of the weights'
    range; of all errors those that rounded to 0 and that clipped."""
    updates, steps = max(1, counter["updates"]), max(1, counter["steps"])
    return {
        "updates": counter["updates"],
        "to_nothing": counter["under_w"] / updates,
        "saturated": counter["sat_w"] / updates,
        "errors_to_nothing": counter["under_e"] / steps,
        "errors_clipped": counter["sat_e"] / steps,
        "range_moves": counter["range_moves"],
        "synapses": synapses,
    }


def _loss(network: Network, output: Floats, y: NDArray[Any]) -> float:
    """Mean over streams and steps; output (T, B, outputs)."""
    if network.loss == "mse":
        return float(0.5 * np.mean(np.nansum(np.square(y - output), axis=2)))
    total = 0.0
    for r in output:
        total -= float(np.log(np.maximum(softmax(r)[np.arange(len(y)), y], 1e-300)).sum())
    return total / (len(output) * len(y))
