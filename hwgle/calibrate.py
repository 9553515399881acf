"""Calibration: every scale of a network on a chip, from samples, never from guesses.

Weights take the step with the least squared error, clipping included: one of a layer, or
one of each neuron. The float64 oracle then runs the samples, with the weights as this chip's
array sees them (gains, stuck synapses); each other format is the finest power of two whose
range holds the largest value seen times a margin. Bounded activations use their full scale;
a narrow input DAC takes, as weights do, the step with the least squared error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle.chip import STATE_BITS, Chip, full_scale
from hwgle.identity import Draws, LayerDraws, draw, factors, stuck
from hwgle.measured import GAIN_ONE
from hwgle.network import Network
from hwgle.quantise import (
    BOUNDED,
    FINEST_RATE,
    MAX_ROW,
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
NARROW_INPUT = 8  # bits up to which a finer step is worth some clipped values
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
    return _least_squares(w, full_scale, start, 24)


def _least_squares(x: NDArray[np.float64], full_scale: int, start: int, most: int) -> int:
    """Fraction bits, `start` (nothing clips) or a few more, with the least squared error."""
    best = start
    least = math.inf
    for bits in range(start, min(start + 3, most) + 1):
        seen = np.clip(round_half_up(np.ldexp(x, bits)), -full_scale, full_scale)
        error = float(np.square(np.ldexp(seen, -bits) - x).sum())
        if error < least:
            best, least = bits, error
    return best


def input_fraction(chip: Chip, x: NDArray[np.floating]) -> int:
    """Fraction bits of the codes of the input DACs for x (T, B, inputs), network units.

    The most that hold all of x. With up to 8 bits those of the least squared error: to clip
    one value in 2000 of MNIST-1D at 5 bits halves the error of all the others.
    """
    least, most = input_range(chip)
    start = fraction(chip.input_max, float(np.abs(x).max(initial=0.0)), least, most)
    if chip.input.bits > NARROW_INPUT:
        return start
    return _least_squares(np.asarray(x, dtype=np.float64), chip.input_max, start, most)


def row_fractions(w: NDArray[np.float64], full_scale: int) -> tuple[int, tuple[int, ...]]:
    """Fraction bits of a layer's coarsest neuron, and how many more each neuron has (0..7).

    w: (n, m). A neuron whose weights are all 0 says nothing of how large they will be: it
    gets the coarsest.
    """
    own = [weight_fraction(row, full_scale) if row.any() else None for row in w]
    known = [bits for bits in own if bits is not None]
    if not known:
        return weight_fraction(w, full_scale), (0,) * len(w)
    coarsest = min(known)
    return coarsest, tuple(0 if b is None else min(b - coarsest, MAX_ROW) for b in own)


def weight_scales(
    network: Network, chip: Chip, weights: Mapping[str, NDArray[np.float64]]
) -> list[tuple[int, tuple[int, ...]]]:
    """Per layer, the fraction bits of the array's weights and what rows have more."""
    result: list[tuple[int, tuple[int, ...]]] = []
    weights = topology.with_feedback(network, weights)
    for layer in network.layers:
        w = np.asarray(weights[f"{layer.name}.weight"])
        back = np.asarray(weights.get(f"{layer.name}.feedback", ())).ravel()  # in one format
        if chip.weight.scale == "neuron":
            coarsest, rows = row_fractions(w, chip.weight_max)
            if back.any():
                finer = max(0, coarsest - weight_fraction(back, chip.weight_max))
                coarsest, rows = coarsest - finer, tuple(min(r + finer, MAX_ROW) for r in rows)
            result.append((coarsest, rows))
        else:
            both = np.concatenate([w.ravel(), back])
            result.append((weight_fraction(both, chip.weight_max), ()))
    return result


def seen_weights(
    network: Network,
    chip: Chip,
    weights: Mapping[str, NDArray[np.float64]],
    scales: list[tuple[int, tuple[int, ...]]],
) -> dict[str, NDArray[np.float64]]:
    """Weights as this chip's synapses have them, in float: gains, and what is stuck."""
    result = {name: np.asarray(w, dtype=np.float64) for name, w in weights.items()}
    if not chip.synapses_differ:
        return result
    draws = draw(chip, network)
    for layer, own, (frac, rows) in zip(network.layers, draws.layers, scales, strict=True):
        if own.gain is None:
            continue
        bits = frac + chip.weight_left + np.array(rows or (0,), dtype=np.int64)[:, None]
        fixed = np.ldexp(-own.gain.astype(np.float64) - GAIN_ONE, -bits)
        w = result[f"{layer.name}.weight"]
        result[f"{layer.name}.weight"] = np.where(stuck(own.gain), fixed, w * factors(own.gain))
    return result


def input_range(chip: Chip) -> tuple[int, int]:
    """Fraction bits that codes of the input DACs may have: the array sees `input_left` more."""
    return INPUT_RANGE[0], INPUT_RANGE[1] - chip.input_left


def _membrane(
    chip: Chip, k: int, peaks: Peaks, margins: Margins, seen: int, rows: int, below: int
) -> int:
    """Fraction bits of a membrane: its range, and a shift from W r that the core has."""
    bits = chip.membrane.bits
    peak = chip.membrane.range
    if peak is None:
        # The wide margin is for free in 29 bits; a narrow membrane would lose them all to it.
        spare = 2.0 ** (bits - STATE_BITS + 9)
        margin = max(margins.signal, min(margins.membrane, spare))
        peak = peaks.membrane[k] * margin
    frac = fraction(full_scale(bits), peak, *MEMBRANE_RANGE)
    least, most = seen + rows + below - SHIFT_RANGE[1], seen + below - SHIFT_RANGE[0]
    frac = min(max(frac, least), most)
    return min(max(frac, MEMBRANE_RANGE[0]), MEMBRANE_RANGE[1])


def _rate_peak(peak: float, own: LayerDraws) -> float:
    """Largest rate of an unbounded activation on this chip; its slope is at most 1."""
    offset = float(np.abs(own.activation_offset).max())
    return (peak + offset) * float(np.where(own.dead, 0.0, own.activation_gain).max())


def scales_from(
    network: Network,
    chip: Chip,
    weights: list[tuple[int, tuple[int, ...]]],
    x_frac: int,
    peaks: Peaks,
    margins: Margins,
) -> Scales:
    """Formats that hold the peaks with their margins, and that the core can do.

    weights: fraction bits of each layer, from `weight_scales`; x_frac: `input_fraction`.
    """
    draws: Draws = draw(chip, network)
    layers: list[LayerScales] = []
    for k, layer in enumerate(network.layers):
        w_frac, rows = weights[k]
        seen = w_frac + chip.weight_left
        sources = [s.source for s in topology.segments(network, k) if s.source != k]
        below = min(x_frac + chip.input_left if s < 0 else layers[s].rate for s in sources)
        u_frac = _membrane(chip, k, peaks, margins, seen, max(rows, default=0), below)
        finest = min(FINEST_RATE, u_frac)
        if layer.phi in BOUNDED:
            r_frac = min(chip.rate.bits - 1, finest)
        else:
            coarsest = max(u_frac - 30, -8)
            peak = _rate_peak(float(peaks.rate[k]), draws.layers[k]) * margins.signal
            r_frac = fraction(chip.rate_max, peak, coarsest, finest)
        e_frac = DEFAULT_ERROR
        if peaks.error[k] > 0:
            e_frac = fraction(chip.error_max, peaks.error[k] * margins.error, *ERROR_RANGE)
        room = fraction(STATE_MAX, peaks.error_state[k] * 2, -64, 64) - e_frac
        extra = min(ERROR_EXTRA, max(0, room))
        layers.append(LayerScales(w_frac, u_frac, r_frac, e_frac, extra, rows))
    y_frac = fraction(32767, peaks.target, *INPUT_RANGE) if peaks.target else x_frac
    return _consistent(network, chip, Scales(x_frac, min(y_frac, 15), tuple(layers)))


def _senders(network: Network, k: int) -> list[tuple[int, int]]:
    """(layer whose weights or feedback errors come through, layer whose errors) to layer k."""
    last = len(network.layers) - 1
    if topology.is_direct(network):
        return [(k, last)] if k < last else []
    hears = [[s.source for s in topology.segments(network, j)] for j in range(last + 1)]
    return [(j, j) for j in range(k + 1, last + 1) if k in hears[j]]


def _consistent(network: Network, chip: Chip, scales: Scales) -> Scales:
    """Move error formats, from the output down, to where what brings errors has a possible
    shift."""
    for k in range(len(scales.layers) - 1, -1, -1):
        products = [
            scales.layers[w].weight + chip.weight_left + scales.layers[e].error
            for w, e in _senders(network, k)
        ]
        if not products:
            continue
        below = scales.layers[k]
        least, most = max(products) - SHIFT_RANGE[1], min(products) - SHIFT_RANGE[0]
        state = min(max(below.error + below.error_extra, least), most)
        error = min(max(state - below.error_extra, ERROR_RANGE[0]), ERROR_RANGE[1])
        extra = min(max(state - error, 0), 14)
        scales = scales.with_layer(k, error=error, error_extra=extra)
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
    scales = weight_scales(network, chip, weights)
    peaks = measure(network, seen_weights(network, chip, weights, scales), x, target)
    return scales_from(network, chip, scales, input_fraction(chip, x), peaks, margins)


def output_offsets(votes: NDArray[np.float64], labels: NDArray[np.integer]) -> NDArray[np.float64]:
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
