"""Gains of synapses and input DACs from the answers of a sweep, and which synapses are stuck.

    z_i(p) = +-(sum_j V_ij y_j(p) + c_i) + sum_j T_ij y_j(p) + o_i

V: what follows the written sign (w times the gain). T: what does not, a stuck synapse.
c: offsets of the inputs. y_j: rate of the neuron below as its ADC shows it, its offset taken
off, so that V_ij is the gain of the synapse over that of the read-out of neuron j; of an
input its code, so that V_ij holds the gain of its DAC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import Profile
from hwgle.measuring.bench import Bench, Floats, Range, inverse
from hwgle.measuring.neurons import GAIN, OFFSET, READOUT, NeuronFit
from hwgle.measuring.synapses import Answers, Plan

WHOLE = 0.9  # share of answers not clipped, for a mean to count
ROUNDS = 4
EDGES = {"tanh": (-0.985, 0.985), "sigmoid": (0.015, 0.985), "softplus": (0.03, np.inf)}
NORMAL, ZERO, PLUS, MINUS = range(4)

Stuck = NDArray[np.int8]


@dataclass(frozen=True)
class SynapseFit:
    """factor, error (n, m): V over w. stuck (n, m): NORMAL, ZERO, PLUS or MINUS.
    shift, shift_error (rounds, n): c. residual (n,): rms of what is left, network units."""

    factor: Floats
    error: Floats
    stuck: Stuck
    signs: NDArray[np.int16]
    weight: float
    shift: Floats
    shift_error: Floats
    residual: Floats


def spread_of(profile: Profile, k: int) -> float:
    """Prior standard deviation of a factor."""
    own = profile.weight.mismatch
    other = profile.readout.gain if k else profile.input.gain
    return float(np.hypot(own, other))


def fit(
    bench: Bench, k: int, p: Plan, answers: Sequence[Answers], neurons: NeuronFit
) -> SynapseFit:
    """All synapses of layer k; what several rounds say is put together at the end."""
    profile = bench.profile
    sigma = spread_of(profile, k)
    parts = []
    stuck: Stuck | None = None
    if profile.weight.stuck_zero > 0 or profile.weight.stuck_full > 0:
        odds = np.zeros((*p.signs[0].shape, 4))
        for turn, a in enumerate(answers):
            odds += _likelihood(bench, k, p, p.signs[turn], a, neurons, sigma)
        odds += _prior(profile)
        stuck = np.asarray(odds.argmax(axis=-1), dtype=np.int8)
    for turn, a in enumerate(answers):
        parts.append(_joint(bench, k, p, p.signs[turn], a, neurons, sigma, stuck))
    factor, error = parts[0][:2]
    if len(parts) > 1 and sigma > 0:
        each = np.stack([1.0 / part[1] ** 2 for part in parts])
        precision = each.sum(axis=0) - (len(parts) - 1) / sigma**2
        pull = (np.stack([part[0] - 1.0 for part in parts]) * each).sum(axis=0)
        factor, error = 1.0 + pull / precision, 1.0 / np.sqrt(precision)
    return SynapseFit(
        factor,
        error,
        np.zeros(p.signs[0].shape, dtype=np.int8) if stuck is None else stuck,
        p.signs,
        p.weight,
        np.stack([part[2] for part in parts]),
        np.stack([part[3] for part in parts]),
        np.mean([part[4] for part in parts], axis=0),
    )


def _membranes(
    bench: Bench, k: int, a: Answers, neurons: NeuronFit
) -> tuple[Floats, NDArray[np.bool_], Range]:
    """Answers through the inverse of the static curve, biases taken off: (2, P, n), and which
    of them can be inverted."""
    phi, span, value = bench.network.layers[k].phi, bench.range(k), neurons.value
    gain = np.maximum(value[:, GAIN], 0.05)
    noise = bench.profile.readout.noise
    r = (a.above - value[:, READOUT] * span.lsb) / gain
    step = span.lsb * (1.0 + 3.0 * noise) / gain
    low, high = EDGES.get(phi, (-np.inf, np.inf))
    if phi == "relu":
        low = 0.0
    limit = min(span.clip, span.full * (1.0 - 2.0 * bench.profile.readout.gain))
    good = (r > low + step) & (r < high - step) & (np.abs(a.above) < limit - 1.5 * span.lsb)
    good &= ~neurons.dead
    inside = np.clip(r, low + 1e-6, high - 1e-6)
    z = inverse(phi, inside) - value[:, OFFSET] - a.bias[:, None, :]
    return np.where(good, z, 0.0), good, span


def _separate(
    x: Floats, z: Floats, good: NDArray[np.bool_], start: Floats
) -> tuple[Floats, Floats]:
    """Least squares with an intercept, (P, m) and (P, n) -> slopes and errors (n, m); what is
    missing in z is put in as the last round's fit has it. `start`: slopes to begin with."""
    d = np.column_stack([x, np.ones(len(x))])
    back = np.linalg.pinv(d, rcond=1e-6)
    at = np.column_stack([start, np.zeros(len(start))])
    for _ in range(ROUNDS):
        filled = np.where(good, z, d @ at.T)
        at = (back @ filled).T
    rest = np.where(good, z - d @ at.T, 0.0)
    free = np.maximum(good.sum(axis=0) - d.shape[1], 1.0)
    sigma = np.sqrt(np.square(rest).sum(axis=0) / free)
    error = sigma[:, None] * np.sqrt(np.square(back).sum(axis=1))[None, :-1]
    return at[:, :-1], np.maximum(error, 1e-9)


def _prior(profile: Profile) -> Floats:
    """Logarithms of the shares of NORMAL, ZERO, PLUS, MINUS."""
    zero, full = profile.weight.stuck_zero, profile.weight.stuck_full
    share = np.array([max(1.0 - zero - full, 0.0), zero, 0.5 * full, 0.5 * full])
    return np.asarray(np.log(np.maximum(share, 1e-12)))


def _likelihood(
    bench: Bench,
    k: int,
    p: Plan,
    signs: NDArray[np.int16],
    a: Answers,
    neurons: NeuronFit,
    sigma: float,
) -> Floats:
    """Logarithms (n, m, 4) of how probable the slopes with both signs are."""
    z, good, _ = _membranes(bench, k, a, neurons)
    with_plus, with_minus = (
        _separate(
            a.below[side], z[side], good[side], np.asarray(sign * p.weight * signs, np.float64)
        )
        for side, sign in ((0, 1.0), (1, -1.0))
    )
    variance = 0.25 * (with_plus[1] ** 2 + with_minus[1] ** 2) + (2e-3 * p.weight) ** 2
    turned = 0.5 * (with_plus[0] - with_minus[0]) * signs
    same = 0.5 * (with_plus[0] + with_minus[0])
    full = bench.chip.weight_max * p.lsb
    spread = variance + (sigma * p.weight) ** 2
    result = np.empty((*signs.shape, 4))
    result[..., NORMAL] = -0.5 * ((turned - p.weight) ** 2 / spread + np.log(spread / variance))
    result[..., NORMAL] -= 0.5 * same**2 / variance
    for kind, value in ((ZERO, 0.0), (PLUS, full), (MINUS, -full)):
        result[..., kind] = -0.5 * (turned**2 + (same - value) ** 2) / variance
    seen = (np.abs(a.below[0]).max(axis=0) > 0)[None, :, None] & ~neurons.dead[:, None, None]
    return np.where(seen, result, 0.0)


def _joint(
    bench: Bench,
    k: int,
    p: Plan,
    signs: NDArray[np.int16],
    a: Answers,
    neurons: NeuronFit,
    sigma: float,
    stuck: Stuck | None,
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Factors with the data sheet's spread as prior, their errors, c and its error, residual."""
    z, good, span = _membranes(bench, k, a, neurons)
    order, m = a.below.shape[1:]
    n = len(signs)
    w = p.weight
    x = np.concatenate([a.below[0], -a.below[1]])  # (2P, m)
    fixed = np.zeros((n, m)) if stuck is None else _stuck_values(stuck, bench, p)
    normal = np.ones((n, m), dtype=bool) if stuck is None else stuck == NORMAL
    known = np.concatenate([side @ fixed.T for side in a.below])
    z, good = np.concatenate(list(z)) - known, np.concatenate(list(good))
    ends = np.ones((2 * order, 2))
    ends[order:, 0] = -1.0
    centre = x - ends @ (ends.T @ x) / (2 * order)
    gram = centre.T @ centre
    root, basis = np.linalg.eigh(gram)
    start = np.where(normal, w * signs, 0.0)
    slope, level = start.copy(), np.zeros((n, 2))
    level[:, 1] = _level(z, good)
    variance = np.full(n, max((span.lsb / 3) ** 2, 1e-12))
    spread = np.zeros((n, m))
    whole = normal.all(axis=1)
    for _ in range(ROUNDS):
        model = x @ slope.T + ends @ level.T
        filled = np.where(good, z, model)
        level = (ends.T @ (filled - x @ slope.T) / (2 * order)).T
        if sigma > 0:
            pull = (centre.T @ (filled - x @ start.T)).T  # (n, m)
            ridge = variance / (w * sigma) ** 2
            shrink = 1.0 / (np.maximum(root, 0.0) + ridge[:, None])
            slope = start + (pull @ basis * shrink) @ basis.T
            spread = variance[:, None] * (shrink @ np.square(basis).T)
            for i in np.flatnonzero(~whole):
                j = np.flatnonzero(normal[i])
                back = np.linalg.inv(gram[np.ix_(j, j)] + ridge[i] * np.eye(j.size))
                slope[i], spread[i] = 0.0, 0.0
                slope[i, j] = start[i, j] + back @ pull[i, j]
                spread[i, j] = variance[i] * np.diag(back)
        rest = np.where(good, z - x @ slope.T - ends @ level.T, 0.0)
        used = np.sum(root / (root + variance[:, None] / max((w * sigma) ** 2, 1e-12)), axis=1)
        free = np.maximum(good.sum(axis=0) - 2.0 - used * (sigma > 0), 4.0)
        variance = np.maximum(np.square(rest).sum(axis=0) / free, (0.1 * span.lsb) ** 2)
    factor = np.where(normal, slope * signs / w, np.nan)
    error = np.where(normal, np.hypot(np.sqrt(spread) / w, 5e-5 * (sigma > 0)), np.nan)
    blind = neurons.dead | (good.sum(axis=0) < 8)
    factor[blind], error[blind] = 1.0, sigma
    usual = np.maximum(variance, np.median(variance))
    shift_error = np.sqrt(usual / np.maximum(good.sum(axis=0), 1.0))
    # Where much was clipped the mean rests on what the fit put in its place.
    clipped = good.mean(axis=0) < WHOLE
    shift_error[blind | clipped | ~normal.any(axis=1)] = np.inf
    return factor, error, level[:, 0], shift_error, np.sqrt(variance)


def _level(z: Floats, good: NDArray[np.bool_]) -> Floats:
    count = np.maximum(good.sum(axis=0), 1)
    mean: Floats = np.where(good, z, 0.0).sum(axis=0) / count
    return mean


def _stuck_values(stuck: Stuck, bench: Bench, p: Plan) -> Floats:
    """What stuck synapses multiply with, network units; 0 for all others."""
    full = bench.chip.weight_max * p.lsb
    values: NDArray[Any] = np.select([stuck == PLUS, stuck == MINUS], [full, -full], 0.0)
    return np.asarray(values, dtype=np.float64)
