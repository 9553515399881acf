"""From float to the chip's integers and back: formats, images, weights, streams.

Every format is a power of two: value = integer * 2**-frac. `Scales` holds the fracs
that calibration chose; `build_image` packs them with the network's constants into the
words that the core (and a board) builds a chip from, see csrc/gle.h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle._core import ffi, lib
from hwgle.chip import Chip
from hwgle.errors import UsageError
from hwgle.network import Network

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
MAX_COEFFICIENT = 8192.0


@dataclass(frozen=True)
class LayerScales:
    """Fraction bits of one layer: array weights, membrane, rates, errors, error neurons."""

    weight: int
    membrane: int
    rate: int
    error: int
    error_extra: int


@dataclass(frozen=True)
class Scales:
    """All formats of a network on a chip (fraction bits)."""

    input: int
    target: int
    layers: tuple[LayerScales, ...]

    def to_array(self) -> NDArray[np.int64]:
        """Shape (1 + layers, 5), row 0 = input, target, 0, 0, 0: what OUT.npz holds."""
        rows = [[self.input, self.target, 0, 0, 0]]
        rows += [[s.weight, s.membrane, s.rate, s.error, s.error_extra] for s in self.layers]
        return np.array(rows, dtype=np.int64)

    @classmethod
    def from_array(cls, rows: NDArray[np.integer]) -> Scales:
        """The reverse of `to_array`; raises ValueError on a wrong shape."""
        if rows.ndim != 2 or rows.shape[1] != 5 or rows.shape[0] < 2:
            raise ValueError(f"scales of shape {rows.shape}")
        layers = tuple(LayerScales(*(int(x) for x in row)) for row in rows[1:])
        return cls(int(rows[0, 0]), int(rows[0, 1]), layers)

    def with_layer(self, index: int, **changes: int) -> Scales:
        """The same with some formats of one layer changed."""
        layers = list(self.layers)
        layers[index] = replace(layers[index], **changes)
        return replace(self, layers=tuple(layers))


def coefficient(value: float) -> int:
    """A multiplier >= 0 as the core packs it: 15-bit mantissa << 8 | shift.

    Relative error at most 2**-15. Raises UsageError outside 0..8192.
    """
    if not 0 <= value <= MAX_COEFFICIENT:
        raise UsageError(f"multiplier {value!r} is outside 0..{MAX_COEFFICIENT:g}")
    if value == 0:
        return 15
    shift = min(14 - math.floor(math.log2(value)), 31)
    mantissa = round(value * 2**shift)
    if mantissa == 1 << 15:
        mantissa, shift = mantissa >> 1, shift - 1
    return int(mantissa << 8 | shift)


def round_half_up(x: ArrayLike) -> NDArray[np.float64]:
    """Rounding as everywhere on the chip: add half, floor."""
    return np.floor(np.asarray(x, dtype=np.float64) + 0.5)


def to_int16(x: ArrayLike, frac: int, limit: int) -> tuple[NDArray[np.int16], int]:
    """Values in a format, clipped to +-limit, and how many were clipped."""
    y = round_half_up(np.asarray(x, dtype=np.float64) * 2.0**frac)
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

    def seen_fracs(self) -> list[int]:
        """Fraction bits of the weights as the array sees them, per layer."""
        return [s.weight for s in self.scales.layers]


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
) -> Image:
    """Pack a network with its formats into an image.

    `learning_rate` is that of plain on-chip SGD on the mean over `batch` streams; the
    chip can only shift, so the nearest power of two of rate/batch is used (see
    `applied_rate`). `range_every` is the number of steps between two looks of the
    auto-ranging, 0 for none. `seed` overrides the chip's (stochastic rounding).
    Raises UsageError when the core refuses the image.
    """
    shift = weight_shift(chip)
    seed = chip.seed if seed is None else seed
    head = np.zeros(16, dtype=np.int64)
    head[0] = lib.GLE_MAGIC
    head[2:13] = [
        len(network.layers),
        network.inputs,
        lib.GLE_CROSS_ENTROPY if network.loss == "cross_entropy" else lib.GLE_MSE,
        coefficient(network.beta),
        coefficient(network.gamma),
        scales.input,
        chip.input_max,
        scales.target,
        range_every,
        int(chip.plasticity.rounding == "stochastic"),
        seed & 0xFFFFFFFF,
    ]
    head[13] = seed >> 32
    head[14] = round(range_clip * 65536)
    parts = [head]
    for layer, s in zip(network.layers, scales.layers, strict=True):
        words = np.zeros(16, dtype=np.int64)
        words[:14] = [
            layer.size,
            PHI[layer.phi],
            int(layer.learn),
            s.weight + shift,
            shift,
            chip.stored_max,
            s.membrane,
            STATE_MAX,
            s.rate,
            chip.rate_max,
            s.error,
            chip.error_max,
            s.error_extra,
            rate_shift(learning_rate, batch),
        ]
        parts.append(words)
    for layer in network.layers:
        for tau_m, tau_r in zip(layer.tau_m, layer.tau_r, strict=True):
            ratios = (network.dt / tau_m, tau_r / tau_m, network.dt / tau_r, tau_m / tau_r)
            parts.append(np.array([coefficient(min(c, MAX_COEFFICIENT)) for c in ratios]))
    words64 = np.concatenate(parts)
    words64[1] = words64.size
    image = Image((words64 & 0xFFFFFFFF).astype(np.uint32), network, chip, scales)
    pointer = ffi.from_buffer("uint32_t[]", image.words)
    if lib.gle_image_check(pointer, image.words.size) != lib.GLE_OK:
        raise UsageError(
            f"network {network.name} on chip {chip.name}: these scales cannot be built: {scales}"
        )
    return image


def rate_shift(learning_rate: float, batch: int) -> int:
    """The shift nearest to learning_rate / batch; 64 (no learning at all) for 0."""
    if learning_rate <= 0:
        return 64
    return min(64, max(-32, round(math.log2(batch / learning_rate))))


def applied_rate(learning_rate: float, batch: int) -> float:
    """The learning rate that a chip uses which can only shift."""
    return batch * 2.0 ** -rate_shift(learning_rate, batch) if learning_rate > 0 else 0.0


Quantised = dict[str, tuple[NDArray[np.int16], NDArray[np.int32]]]


def quantise_weights(
    image: Image, weights: Mapping[str, ArrayLike], *, stored: bool = True
) -> Quantised:
    """Weights and biases as a chip stores them, per layer name.

    stored=False: only steps that the array can tell apart (what a host writes that
    keeps the fine weights itself).
    """
    chip = image.chip
    shift = weight_shift(chip)
    result: Quantised = {}
    for layer, s in zip(image.network.layers, image.scales.layers, strict=True):
        w = weights[f"{layer.name}.weight"]
        if stored:
            fine, _ = to_int16(w, s.weight + shift, chip.stored_max)
        else:
            seen, _ = to_int16(w, s.weight, chip.weight_max)
            fine = (seen.astype(np.int32) << shift).astype(np.int16)
        result[layer.name] = (fine, to_int32(weights[f"{layer.name}.bias"], s.membrane))
    return result


def to_float(x: NDArray[np.integer], frac: ArrayLike) -> NDArray[np.float64]:
    """Integers of a format (fracs broadcast) in network units."""
    return np.ldexp(x.astype(np.float64), -np.asarray(frac, dtype=np.int64))


def layer_names(network: Network) -> Sequence[str]:
    """Names of the layers, first to last."""
    return [layer.name for layer in network.layers]
