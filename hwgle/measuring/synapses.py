"""Synapses and input DACs: patterns from below, answers of the layer above, one regression.

The layer below has no weights and is driven through its biases (inputs: by their codes) in
Hadamard patterns; the layer above has all weights at +w or -w, in signs that are balanced
along rows and columns, and once more with all signs turned. Every synapse is in every
answer, so that all gains are measured at the precision of a mean over all patterns:

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
from hwgle.measuring.bench import Bench, Floats, Range, curve, inverse, retimed
from hwgle.measuring.neurons import GAIN, OFFSET, READOUT, NeuronFit

SETTLE = 16  # steps: layer below, then layer above, time constants near one step
READS = 8  # where reads are noisy
PATTERNS = 64  # at least
DRIVE = 0.85  # of the swing that the layer below has
PEAK = 2.5  # standard deviations of the sum of many synapses that must fit
HEADROOM = 5.0  # standard deviations of a synapse's gain
ROUNDS = 4
WHOLE = 0.9  # share of answers not clipped, for a mean to count
DRIFT_SHARE = 1e-3  # of a weight that may have drifted away before it is written again
NORMAL, ZERO, PLUS, MINUS = range(4)
EDGES = {"tanh": (-0.985, 0.985), "sigmoid": (0.015, 0.985), "softplus": (0.03, np.inf)}

Stuck = NDArray[np.int8]


@dataclass(frozen=True)
class Swing:
    """Half the difference of a layer's two rates, and their mean, with their biases."""

    middle: float
    half: float
    rate: float
    mean: float


@dataclass(frozen=True)
class Plan:
    """How one layer is measured: array codes (rounds, n, m), LSB of a weight."""

    code: int
    lsb: float
    signs: NDArray[np.int16]

    @property
    def weight(self) -> float:
        """|w| in network units."""
        return self.code * self.lsb


@dataclass(frozen=True)
class Answers:
    """One round: what went in below and came out above with both signs.

    below (2, P, m): see `y_j` above. above (2, P, n): read-outs. bias (2, n).
    """

    below: Floats
    above: Floats
    bias: Floats


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


def needed(profile: Profile, k: int) -> bool:
    """Whether the data sheet leaves anything to measure at the synapses of layer k."""
    w = profile.weight
    open_ = w.mismatch > 0 or w.stuck_zero > 0 or w.stuck_full > 0
    if k == 0:
        return open_ or profile.input.gain > 0 or profile.input.offset > 0
    return open_ or (profile.activation.gain > 0 and profile.readout.gain > 0)


# --- stimuli -----------------------------------------------------------------------------------


def swing(phi: str, span: Range) -> Swing:
    """The two levels between which a layer below is driven."""
    half = DRIVE * span.half
    ends = np.array([span.middle - half, span.middle + half])
    low, high = curve(phi, ends)[0]
    return Swing(span.middle, half, float(high - low) / 2, float(high + low) / 2)


def hadamard(order: int) -> NDArray[np.int16]:
    """Signs (order, order), columns orthogonal; order is a power of two."""
    signs = np.ones((1, 1), dtype=np.int16)
    while len(signs) < order:
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs


def balanced(rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Signs (rows, columns): columns orthogonal as far as there are rows for it."""
    order = 2
    while order < max(rows, columns + 1):
        order *= 2
    chosen = hadamard(order)[:, 1 + rng.permutation(order - 1)[:columns]]
    flipped = chosen * rng.choice([-1, 1], columns)
    if order == rows:
        return np.asarray(flipped, dtype=np.int16)
    return np.asarray(flipped[rng.permutation(order)[:rows]], dtype=np.int16)


def plan(bench: Bench, k: int, rng: np.random.Generator) -> Plan:
    """Weights of layer k at which its answers fill its range and do not clip."""
    network, profile = bench.network, bench.profile
    n, m = network.layers[k].size, network.fan_in(k)
    span = bench.range(k)
    amplitude = input_swing(bench)[1] if k == 0 else below_swing(bench, k).rate
    wanted = 0.9 * span.half / (amplitude * min(m, PEAK * np.sqrt(m)))
    # The array clips what a gain above 1 makes of a code near full scale.
    most = max(1.0, bench.chip.weight_max / (1.0 + HEADROOM * profile.weight.mismatch))
    frac = int(np.clip(np.floor(np.log2(most / wanted)), -2, 20))
    code = int(np.clip(round(wanted * 2.0**frac), 1, most))
    rounds = 1
    if k == 0 and profile.input.offset > 0:
        rounds = min(8, -(-m // n))
    signs = np.stack([balanced(n, m, rng) for _ in range(rounds)])
    return Plan(code, 2.0**-frac, signs)


def below_swing(bench: Bench, k: int) -> Swing:
    """Of the layer below layer k > 0."""
    return swing(bench.network.layers[k - 1].phi, bench.range(k - 1))


def input_swing(bench: Bench) -> tuple[int, float]:
    """Largest code of an input pattern, and what it is in network units."""
    code = max(1, int(DRIVE * bench.chip.input_max))
    return code, code * 2.0**-bench.input_frac


# --- the sweep ---------------------------------------------------------------------------------


def sweep(
    bench: Bench,
    layers: Sequence[int],
    plans: dict[int, Plan],
    fits: Sequence[NeuronFit],
    effort: int,
    rng: np.random.Generator,
) -> dict[int, list[Answers]]:
    """Answers of these layers, no two of them neighbours, in all rounds."""
    network = bench.network
    fan_in = {k: network.fan_in(k) for k in layers}
    order = 1
    while order < max(PATTERNS * effort, max(fan_in.values()) + 8):
        order *= 2
    frac = [8] * len(network.layers)
    for k, p in plans.items():
        frac[k] = -int(np.log2(p.lsb))
    bench.power_up(retimed(network, 1.0, 1.0), bench.scales(frac))
    rounds = max(len(plans[k].signs) for k in layers)
    result: dict[int, list[Answers]] = {k: [] for k in layers}
    reads = READS if bench.noisy else 1
    each = SETTLE + reads
    drift = bench.profile.weight.drift
    again = order if drift is None else max(1, int(drift * DRIFT_SHARE / each))
    for turn in range(rounds):
        active = [k for k in layers if turn < len(plans[k].signs)]
        watched = sorted({*active, *(k - 1 for k in active if k)})
        drive = {k: _drive(bench, k, order, rng) for k in active}
        below = {k: np.empty((2, order, fan_in[k])) for k in active}
        above = {k: np.empty((2, order, network.layers[k].size)) for k in active}
        bias = {k: np.empty((2, network.layers[k].size)) for k in active}
        for side, sign in enumerate((1, -1)):
            codes = [
                (sign * plans[k].code * plans[k].signs[turn]).astype(np.int16)
                if k in active
                else np.zeros((y.size, network.fan_in(k)), dtype=np.int16)
                for k, y in enumerate(network.layers)
            ]
            centred = {k: _centre(bench, k, plans[k], sign, turn, fits) for k in active}
            applied = bench.set_biases(centred)
            for k in active:
                bias[k][side] = applied[k]
            for row in range(order):
                if row % again == 0:
                    bench.set_weights(codes)
                driven = bench.set_biases({k - 1: drive[k][row] for k in active if k})
                inputs = drive[0][row].astype(np.int16) if 0 in active else None
                if reads < each:
                    bench.read([], each - reads, inputs)
                got = dict(zip(watched, bench.read(watched, reads, inputs), strict=True))
                for k in active:
                    above[k][side, row] = got[k].mean(axis=0)
                    if k:
                        read = got[k - 1].mean(axis=0)
                        below[k][side, row] = _rate(bench, k - 1, fits, driven[k - 1], read)
                    else:
                        below[k][side, row] = drive[0][row] * 2.0**-bench.input_frac
        for k in active:
            result[k].append(Answers(below[k], above[k], bias[k]))
    return result


def _drive(bench: Bench, k: int, order: int, rng: np.random.Generator) -> Floats:
    """Patterns (order, m) for layer k: input codes, or biases of the layer below."""
    m = bench.network.fan_in(k)
    signs = balanced(order, m, rng) * rng.uniform(0.75, 1.0, (order, m))
    if k == 0:
        return np.asarray(np.round(signs * input_swing(bench)[0]))
    s = below_swing(bench, k)
    return np.asarray(s.middle + signs * s.half)


def _centre(
    bench: Bench, k: int, p: Plan, sign: int, turn: int, fits: Sequence[NeuronFit]
) -> Floats:
    """Biases of layer k around which its answers swing in the middle of its range."""
    mean = 0.0 if k == 0 else below_swing(bench, k).mean
    pushed = sign * p.weight * p.signs[turn].sum(axis=1) * mean
    return np.asarray(bench.range(k).middle - fits[k].value[:, OFFSET] - pushed)


def _rate(bench: Bench, k: int, fits: Sequence[NeuronFit], bias: Floats, read: Floats) -> Floats:
    """What layer k shows, its read-out's offset taken off: as fitted, which averages the ADC's
    steps out, unless what was read differs (a stuck synapse moves the neuron)."""
    span, value = bench.range(k), fits[k].value
    shown = read - value[:, READOUT] * span.lsb
    model = value[:, GAIN] * curve(bench.network.layers[k].phi, bias + value[:, OFFSET])[0]
    near = np.abs(shown - model) < span.lsb * (1.0 + 4.0 * bench.profile.readout.noise)
    return np.where(near, model, shown)


# --- the regression ----------------------------------------------------------------------------


def fit(bench: Bench, k: int, p: Plan, rounds: Sequence[Answers], neurons: NeuronFit) -> SynapseFit:
    """All synapses of layer k; what several rounds say is put together at the end."""
    profile = bench.profile
    sigma = spread_of(profile, k)
    parts = []
    stuck: Stuck | None = None
    if profile.weight.stuck_zero > 0 or profile.weight.stuck_full > 0:
        odds = np.zeros((*p.signs[0].shape, 4))
        for turn, a in enumerate(rounds):
            odds += _likelihood(bench, k, p, p.signs[turn], a, neurons, sigma)
        odds += _prior(profile)
        stuck = np.asarray(odds.argmax(axis=-1), dtype=np.int8)
    for turn, a in enumerate(rounds):
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
