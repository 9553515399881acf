"""Calibration: every scale of a network on a chip, from samples, never from guesses.

The float64 oracle runs the samples; each format is then the finest power of two whose
range holds the largest value seen times a margin. Bounded activations use their full
scale. Weights take the step with the least squared error, clipping included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import Chip
from hwgle.network import Network
from hwgle.quantise import (
    BOUNDED,
    FINEST_RATE,
    SHIFT_RANGE,
    STATE_MAX,
    LayerScales,
    Scales,
    round_half_up,
)
from hwgle.reference import Reference

MEMBRANE_RANGE = (6, 22)
ERROR_RANGE = (-12, 24)
INPUT_RANGE = (-16, 24)
ERROR_EXTRA = 12
DEFAULT_ERROR = 13


@dataclass(frozen=True)
class Margins:
    """How much larger than on the samples a value may become before it clips."""

    signal: float = 1.25
    membrane: float = 8.0
    error: float = 1.25


FOR_RUN = Margins()
FOR_TRAINING = Margins(signal=1.5, membrane=64.0, error=2.0)


@dataclass(frozen=True)
class Peaks:
    """Largest sizes seen, per layer, in network units; errors are 0 without a target."""

    input: float
    target: float
    membrane: NDArray[np.float64]
    rate: NDArray[np.float64]
    error: NDArray[np.float64]
    error_state: NDArray[np.float64]


def measure(
    network: Network,
    weights: Mapping[str, NDArray[np.float64]],
    x: NDArray[np.float64],
    target: NDArray[np.generic] | None,
) -> Peaks:
    """Run the oracle on x (T, B, inputs) with target, and note the peaks."""
    count = len(network.layers)
    membrane, rate, error, error_state = (np.zeros(count) for _ in range(4))
    oracle = Reference(network, weights, batch=x.shape[1])
    for t in range(x.shape[0]):
        y = target
        if target is not None and network.loss == "mse":
            y = target[t]
        oracle.step(x[t], y)
        for k, s in enumerate(oracle.state.values()):
            membrane[k] = max(membrane[k], *(np.abs(a).max() for a in (s.x, s.u, s.uhat)))
            rate[k] = max(rate[k], np.abs(s.r).max())
            error[k] = max(error[k], np.abs(s.e).max())
            error_state[k] = max(error_state[k], *(np.abs(a).max() for a in (s.v, s.inst)))
    largest = 0.0
    if target is not None and network.loss == "mse":
        largest = float(np.abs(target).max())
    return Peaks(float(np.abs(x).max()), largest, membrane, rate, error, error_state)


def fraction(full_scale: int, peak: float, least: int, most: int) -> int:
    """Most fraction bits in least..most with peak <= full_scale * 2**-bits."""
    if peak <= 0 or not math.isfinite(peak):
        return most if peak <= 0 else least
    return min(most, max(least, math.floor(math.log2((full_scale + 0.5) / peak))))


def weight_fraction(w: NDArray[np.float64], full_scale: int) -> int:
    """Fraction bits of the array's weights with the least squared error on w."""
    start = fraction(full_scale, float(np.abs(w).max(initial=0.0)), -2, 24)
    best = start
    least = math.inf
    for bits in range(start, min(start + 4, 25)):
        seen = np.clip(round_half_up(w * 2.0**bits), -full_scale, full_scale)
        error = float(np.square(np.ldexp(seen, -bits) - w).sum())
        if error < least:
            best, least = bits, error
    return best


def scales_from(
    network: Network,
    chip: Chip,
    weights: Mapping[str, NDArray[np.float64]],
    peaks: Peaks,
    margins: Margins,
) -> Scales:
    """Formats that hold the peaks with their margins, and that the core can do."""
    layers: list[LayerScales] = []
    x_frac = fraction(chip.input_max, peaks.input, *INPUT_RANGE)
    below = x_frac
    for k, layer in enumerate(network.layers):
        w_frac = weight_fraction(np.asarray(weights[f"{layer.name}.weight"]), chip.weight_max)
        u_frac = fraction(STATE_MAX, peaks.membrane[k] * margins.membrane, *MEMBRANE_RANGE)
        u_frac = min(max(u_frac, w_frac + below - SHIFT_RANGE[1]), w_frac + below - SHIFT_RANGE[0])
        u_frac = min(max(u_frac, MEMBRANE_RANGE[0]), MEMBRANE_RANGE[1])
        finest = min(FINEST_RATE, u_frac)
        if layer.phi in BOUNDED:
            r_frac = min(chip.rate.bits - 1, finest)
        else:
            coarsest = max(u_frac - 30, -8)
            r_frac = fraction(chip.rate_max, peaks.rate[k] * margins.signal, coarsest, finest)
        e_frac = DEFAULT_ERROR
        if peaks.error[k] > 0:
            e_frac = fraction(chip.error_max, peaks.error[k] * margins.error, *ERROR_RANGE)
        room = fraction(STATE_MAX, peaks.error_state[k] * 2, -64, 64) - e_frac
        layers.append(LayerScales(w_frac, u_frac, r_frac, e_frac, min(ERROR_EXTRA, max(0, room))))
        below = r_frac
    y_frac = fraction(32767, peaks.target, *INPUT_RANGE) if peaks.target else x_frac
    return _consistent(Scales(x_frac, min(y_frac, 15), tuple(layers)))


def _consistent(scales: Scales) -> Scales:
    """Move error formats, from the output down, to where W^T e has a possible shift."""
    for k in range(len(scales.layers) - 1, 0, -1):
        top, below = scales.layers[k], scales.layers[k - 1]
        product = top.weight + top.error
        least, most = product - SHIFT_RANGE[1], product - SHIFT_RANGE[0]
        state = min(max(below.error + below.error_extra, least), most)
        error = min(max(state - below.error_extra, ERROR_RANGE[0]), ERROR_RANGE[1])
        extra = min(max(state - error, 0), 14)
        scales = scales.with_layer(k - 1, error=error, error_extra=extra)
    return scales


def calibrate(
    network: Network,
    chip: Chip,
    weights: Mapping[str, NDArray[np.float64]],
    x: NDArray[np.float64],
    target: NDArray[np.generic] | None = None,
    margins: Margins = FOR_RUN,
) -> Scales:
    """All scales from samples.

    x: (T, B, inputs) in network units; target: (B,) labels or (T, B, outputs), or None.
    """
    return scales_from(network, chip, weights, measure(network, weights, x, target), margins)


def output_offsets(
    votes: NDArray[np.float64], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Offsets of the outputs that make training data come out right.

    votes: (N, classes), outputs summed (or averaged) over time; labels: (N,). Returns
    (classes,) in units of the votes, mean 0: to be added to votes before the argmax.
    Fitted as softmax regression with one common gain, logits = gain * votes + c, which is
    convex; offsets are c / gain. Online learning leaves the outputs biased to its last
    samples; this is what corrects it, and nothing else.
    """
    from scipy.optimize import minimize

    n, classes = votes.shape
    spread = float(votes.std()) or 1.0
    z = votes / spread
    rows = np.arange(n)

    def loss(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = p[0] * z + p[1:]
        logits = logits - logits.max(axis=1, keepdims=True)
        q = np.exp(logits)
        q /= q.sum(axis=1, keepdims=True)
        value = -np.log(np.maximum(q[rows, labels], 1e-300)).mean()
        q[rows, labels] -= 1.0
        slope = np.concatenate([[np.sum(q * z)], q.sum(axis=0)]) / n
        return float(value), slope

    start = np.concatenate([[1.0], np.zeros(classes)])
    bounds = [(1e-3, None)] + [(None, None)] * classes
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    offset = found.x[1:] / found.x[0] * spread
    return np.asarray(offset - offset.mean(), dtype=np.float64)
