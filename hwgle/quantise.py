"""From float to the chip's integers and back: formats, images, weights, streams.

Every format is a power of two: value = integer * 2**-frac. `Scales` holds the fracs
that calibration chose; `build_image` packs them with the network's constants into the
words that the core (and a board) builds a chip from, see csrc/gle.h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle import topology
from hwgle._core import ffi, lib
from hwgle.chip import Chip, full_scale
from hwgle.errors import UsageError
from hwgle.identity import draw
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.packing import (
    MAX_COEFFICIENT,
    analog_words,
    built,
    coefficient,
    drift_words,
    error_noise,
    feedback_words,
    gain_words,
    input_words,
    mask_words,
    neuron_words,
    noise_word,
    readout_noise,
    round_half_up,
    sections,
    source_words,
    update_words,
)

__all__ = [
    "MAX_COEFFICIENT",
    "Image",
    "LayerScales",
    "Quantised",
    "Scales",
    "applied_rate",
    "build_image",
    "coefficient",
    "noise_word",
    "quantise_weights",
    "round_half_up",
    "sections",
    "to_float",
    "to_int16",
    "to_int32",
]

PHI = {
    "linear": lib.GLE_LINEAR,
    "tanh": lib.GLE_TANH,
    "sigmoid": lib.GLE_SIGMOID,
    "softplus": lib.GLE_SOFTPLUS,
    "relu": lib.GLE_RELU,
}
BOUNDED = ("tanh", "sigmoid")
STATE_MAX = (1 << 28) - 1
FINEST_RATE = 15
SHIFT_RANGE = (-14, 31)
MAX_SLOWER = 32  # halvings of a layer's rate, see csrc/gle.h
MAX_ROW = 7  # bits by which a neuron's weights may be finer than its layer's coarsest
HEAD, LAYER = 24, 20  # words


@dataclass(frozen=True)
class LayerScales:
    """Fraction bits of one layer: array weights, membrane, rates, errors, error neurons.

    rows: with one weight scale per neuron, bits (0..7) by which each neuron's weights are
    finer than `weight` says; () where all have the same.
    """

    weight: int
    membrane: int
    rate: int
    error: int
    error_extra: int
    rows: tuple[int, ...] = ()

    def weights(self) -> NDArray[np.int64] | np.int64:
        """Fraction bits of the array's weights: (n, 1), or one number for all."""
        if not self.rows:
            return np.int64(self.weight)
        return self.weight + np.array(self.rows, dtype=np.int64)[:, None]


@dataclass(frozen=True)
class Scales:
    """All formats of a network on a chip (fraction bits)."""

    input: int
    target: int
    layers: tuple[LayerScales, ...]

    def to_array(self) -> NDArray[np.int64]:
        """Shape (1 + layers, 5), row 0 = input, target, 0, 0, 0: what OUT.npz holds.

        With scales per neuron as many columns follow as the largest layer has neurons:
        `rows`, then -1 where a layer has fewer (row 0 is -1 throughout).
        """
        width = max(len(s.rows) for s in self.layers)
        result = np.full((1 + len(self.layers), 5 + width), -1, dtype=np.int64)
        result[0, :5] = [self.input, self.target, 0, 0, 0]
        for own, s in zip(result[1:], self.layers, strict=True):
            own[:5] = [s.weight, s.membrane, s.rate, s.error, s.error_extra]
            own[5 : 5 + len(s.rows)] = s.rows
        return result

    @classmethod
    def from_array(cls, rows: NDArray[np.integer]) -> Scales:
        """The reverse of `to_array`; raises ValueError on a wrong shape."""
        if rows.ndim != 2 or rows.shape[1] < 5 or rows.shape[0] < 2:
            raise ValueError(f"scales of shape {rows.shape}")
        layers = []
        for row in rows[1:].tolist():
            finer = tuple(x for x in row[5:] if x >= 0)
            layers.append(LayerScales(row[0], row[1], row[2], row[3], row[4], finer))
        return cls(int(rows[0, 0]), int(rows[0, 1]), tuple(layers))

    def with_layer(self, index: int, **changes: Any) -> Scales:
        """The same with some formats of one layer changed."""
        layers = list(self.layers)
        layers[index] = replace(layers[index], **changes)
        return replace(self, layers=tuple(layers))


def to_int16(x: ArrayLike, frac: ArrayLike, limit: int) -> tuple[NDArray[np.int16], int]:
    """Values in a format (fracs broadcast), clipped to +-limit, and how many were clipped."""
    y = round_half_up(np.ldexp(np.asarray(x, dtype=np.float64), np.asarray(frac)))
    clipped = int(np.count_nonzero(np.abs(y) > limit))
    return np.clip(y, -limit, limit).astype(np.int16), clipped


def to_int32(x: ArrayLike, frac: int, limit: int = STATE_MAX) -> NDArray[np.int32]:
    """Values in a state's format, clipped to +-limit."""
    y = round_half_up(np.asarray(x, dtype=np.float64) * 2.0**frac)
    return np.clip(y, -limit, limit).astype(np.int32)


def weight_shift(chip: Chip) -> int:
    """Bits of a stored weight that the array does not see."""
    return chip.weight.stored_bits - chip.weight.bits


@dataclass(frozen=True)
class Image:
    """What a chip is built from: words for the core, and what they were made of."""

    words: NDArray[np.uint32]
    network: Network
    chip: Chip
    scales: Scales
    learner: OnChip = PLAIN

    def seen_fracs(self) -> list[int]:
        """Fraction bits of what the array sees of the weights, per layer (without rows)."""
        return [s.weight + self.chip.weight_left for s in self.scales.layers]


def check_learnable(network: Network, learner: OnChip) -> None:
    """Feedback that learns copies each update of plain SGD: raises UsageError for a rule on the
    chip that remembers."""
    if learner.remembers and topology.learns_feedback(network):
        raise UsageError(
            f"network {network.name}: feedback kolen-pollack: found rule {learner.rule}, "
            f"momentum_shift {learner.momentum_shift}, apply_every {learner.apply_every}; "
            "allowed on the chip: rule sgd, momentum_shift 0, apply_every 1"
        )


def build_image(
    network: Network,
    chip: Chip,
    scales: Scales,
    *,
    batch: int = 1,
    learning_rate: float = 0.0,
    range_every: int = 0,
    range_clip: float = 0.0003,
    seed: int | None = None,
    learner: OnChip = PLAIN,
    hold_weights: bool = False,
    layer_rate: float = 1.0,
) -> Image:
    """Pack a network with its formats and the chip's imperfections into an image.

    `learner`: the rule on the chip. `learning_rate` is its rate, of sgd on the mean over
    `batch` streams; the chip can only shift, so the nearest power of two is used (see
    OnChip.applied_rate). `range_every` is the number of steps between two looks of the
    auto-ranging, 0 for none; with `hold_weights` it leaves the formats of weights. `layer_rate`:
    factor on the rate of rules on the chip for each layer further from the output (see
    halvings). `seed` overrides the chip's for what happens while it runs (stochastic rounding,
    noise); mismatch is always that of the chip.
    Raises UsageError when the core refuses the image, and for feedback that learns beside a
    rule that remembers.
    """
    check_learnable(network, learner)
    words = image_words(
        network,
        chip,
        scales,
        learner.rate_shift(learning_rate, batch),
        range_every,
        range_clip,
        chip.seed if seed is None else seed,
        learner,
        hold_weights,
        layer_rate,
    )
    image = Image(words, network, chip, scales, learner)
    pointer = ffi.from_buffer("uint32_t[]", image.words)
    if lib.gle_image_check(pointer, image.words.size) != lib.GLE_OK:
        raise UsageError(
            f"network {network.name} on chip {chip.name}: these scales cannot be built: {scales}"
        )
    return image


def image_words(
    network: Network,
    chip: Chip,
    scales: Scales,
    rate: int,
    range_every: int,
    range_clip: float,
    seed: int,
    learner: OnChip = PLAIN,
    hold_weights: bool = False,
    layer_rate: float = 1.0,
) -> NDArray[np.uint32]:
    """The words of an image, unchecked: see csrc/gle.h. rate: shift of learning on the chip."""
    draws = draw(chip, network)
    neurons = built(network, chip, draws)
    flags = sections(chip, network)
    every, drift = drift_words(chip)
    most, update_noise = update_words(chip)
    head = np.zeros(HEAD, dtype=np.int64)
    head[0] = lib.GLE_MAGIC
    head[2:24] = [
        len(network.layers),
        network.inputs,
        lib.GLE_CROSS_ENTROPY if network.loss == "cross_entropy" else lib.GLE_MSE,
        coefficient(network.beta),
        coefficient(network.gamma),
        scales.input + chip.input_left,
        chip.input_max,
        scales.target,
        range_every,
        int(chip.plasticity.rounding == "stochastic"),
        seed & 0xFFFFFFFF,
        seed >> 32,
        round(range_clip * 65536),
        flags,
        chip.input_left,
        every,
        drift,
        most,
        update_noise,
        *learner.words(),
    ]
    parts = [head]
    layers = range(len(network.layers))
    slower = halvings(layer_rate, len(layers))
    parts += [
        _layer_words(network, chip, scales, k, rate, hold_weights, slower[k]) for k in layers
    ]
    parts.append(neuron_words(network, neurons))
    if flags & lib.GLE_HAS_SOURCES:
        parts.append(source_words(network))
    if flags & lib.GLE_HAS_FEEDBACK:
        parts.append(feedback_words(network))
    if flags & lib.GLE_HAS_ROWS:
        parts.append(_row_words(network, scales))
    elif any(any(s.rows) for s in scales.layers):
        raise UsageError(
            f"chip {chip.name} has one weight scale for a layer: these scales are of a chip "
            "with one for each neuron"
        )
    if flags & lib.GLE_HAS_ANALOG:
        membrane = [s.membrane for s in scales.layers]
        parts.append(analog_words(network, chip, draws, neurons, membrane))
    if flags & lib.GLE_HAS_INPUTS:
        parts.append(input_words(chip, draws))
    if flags & lib.GLE_HAS_GAINS:
        parts.append(gain_words(draws, network))
    if flags & lib.GLE_HAS_MASKS:
        parts.append(mask_words(network))
    words = np.concatenate(parts)
    words[1] = words.size
    return (words & 0xFFFFFFFF).astype(np.uint32)


def halvings(layer_rate: float, layers: int) -> list[int]:
    """How often each layer's rate is halved so that it falls by about layer_rate from layer to
    layer, from the output on: (layers,), at most 32 each."""
    each = -math.log2(layer_rate)
    return [min(MAX_SLOWER, round(each * (layers - 1 - k))) for k in range(layers)]


def _layer_words(
    network: Network, chip: Chip, scales: Scales, k: int, rate: int, hold: bool, slower: int
) -> NDArray[np.int64]:
    layer, s = network.layers[k], scales.layers[k]
    shift = weight_shift(chip)
    words = np.zeros(LAYER, dtype=np.int64)
    words[:20] = [
        layer.size,
        PHI[layer.phi],
        int(
            lib.GLE_LEARNS_WEIGHTS * layer.learn
            | lib.GLE_LEARNS_TAU * layer.learn_tau_m
            | lib.GLE_HOLDS_BIAS * (not layer.bias)
            | lib.GLE_HOLDS_RANGE * hold
            | slower << lib.GLE_SLOWER_AT
        ),
        s.weight + shift,
        shift,
        chip.stored_max,
        s.membrane,
        membrane_max(chip, s.membrane),
        s.rate,
        chip.rate_max,
        s.error,
        chip.error_max,
        s.error_extra,
        rate,
        chip.weight_left,
        error_noise(chip, s.error_extra),
        readout_noise(chip),
        chip.adc_drop,
        chip.adc_max,
        int(topology.masked(network, k)),
    ]
    return words


def _row_words(network: Network, scales: Scales) -> NDArray[np.int64]:
    parts = []
    for layer, s in zip(network.layers, scales.layers, strict=True):
        rows = s.rows or (0,) * layer.size
        if len(rows) != layer.size or not all(0 <= r <= MAX_ROW for r in rows):
            raise UsageError(
                f"layer {layer.name}: weight scales of {len(rows)} neurons, each 0 to {MAX_ROW} "
                f"bits finer than the layer's, are needed for {layer.size}: found {rows}"
            )
        parts.append(np.array(rows, dtype=np.int64))
    return np.concatenate(parts)


def membrane_max(chip: Chip, frac: int) -> int:
    """Largest |u| in LSB: the chip's range in this format, and what its bits hold."""
    most = full_scale(chip.membrane.bits)
    if chip.membrane.range is None:
        return most
    return min(most, max(1, math.floor(math.ldexp(chip.membrane.range, frac) + 0.5)))


def rate_shift(learning_rate: float, batch: int) -> int:
    """The shift nearest to learning_rate / batch; 64 (no learning at all) for 0."""
    return PLAIN.rate_shift(learning_rate, batch)


def applied_rate(learning_rate: float, batch: int) -> float:
    """The learning rate of plain SGD on a chip, which can only shift."""
    return PLAIN.applied_rate(learning_rate, batch)


Quantised = dict[str, tuple[NDArray[np.int16], NDArray[np.int32]]]


def quantise_weights(
    image: Image, weights: Mapping[str, ArrayLike], *, stored: bool = True
) -> Quantised:
    """Weights and biases as a chip stores them, per layer name; feedback as "<layer>.feedback",
    whose biases are none, drawn where the weights have none.

    stored=False: only steps that the array can tell apart (what a host writes that
    keeps the fine weights itself).
    """
    chip = image.chip
    shift = weight_shift(chip)
    result: Quantised = {}

    def codes(w: ArrayLike, frac: ArrayLike) -> NDArray[np.int16]:
        if stored:
            return to_int16(w, np.asarray(frac) + shift, chip.stored_max)[0]
        seen, _ = to_int16(w, frac, chip.weight_max)
        return (seen.astype(np.int32) << shift).astype(np.int16)

    weights = topology.with_feedback(image.network, weights)
    for layer, s in zip(image.network.layers, image.scales.layers, strict=True):
        fine = codes(weights[f"{layer.name}.weight"], s.weights())
        result[layer.name] = (fine, to_int32(weights[f"{layer.name}.bias"], s.membrane))
        back = f"{layer.name}.feedback"
        if back in weights:
            result[back] = codes(weights[back], s.weight), np.zeros(0, dtype=np.int32)
    return result


def to_float(x: NDArray[np.integer], frac: ArrayLike) -> NDArray[np.float64]:
    """Integers of a format (fracs broadcast) in network units."""
    return np.ldexp(x.astype(np.float64), -np.asarray(frac, dtype=np.int64))


def layer_names(network: Network) -> Sequence[str]:
    """Names of the layers, first to last."""
    return [layer.name for layer in network.layers]
