"""Synapses and input DACs: patterns from below, answers of the layer above.

The layer below has no weights and is driven through its biases (inputs: by their codes) in
Hadamard patterns; the layer above has all weights at +w or -w, in signs that are balanced
along rows and columns, and once more with all signs turned. Every synapse is in every
answer, so that all gains are measured at the precision of a mean over all patterns. What is
made of the answers stands in regression.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import Profile
from hwgle.measuring.bench import Bench, Floats, Range, curve, retimed
from hwgle.measuring.neurons import GAIN, OFFSET, READOUT, NeuronFit

SETTLE = 16  # steps: layer below, then layer above, time constants near one step
READS = 8  # where reads are noisy
PATTERNS = 64  # at least
DRIVE = 0.85  # of the swing that the layer below has
PEAK = 2.5  # standard deviations of the sum of many synapses that must fit
HEADROOM = 5.0  # standard deviations of a synapse's gain
DRIFT_SHARE = 1e-3  # of a weight that may have drifted away before it is written again


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

    below (2, P, m): `y_j` of regression.py. above (2, P, n): read-outs. bias (2, n).
    """

    below: Floats
    above: Floats
    bias: Floats


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
    signs = np.stack([balanced(n, m, rng) for _ in range(rounds(bench, k))])
    return Plan(code, 2.0**-frac, signs)


def rounds(bench: Bench, k: int) -> int:
    """Sets of signs: inputs with offsets of their own need as many answers as there are inputs."""
    if k or bench.profile.input.offset == 0:
        return 1
    return min(8, -(-bench.network.inputs // bench.network.layers[0].size))


def patterns(bench: Bench, layers: Sequence[int], effort: int) -> int:
    """Patterns of a round, a power of two: more than any of these layers has inputs."""
    most = max(bench.network.fan_in(k) for k in layers)
    return int(2 ** np.ceil(np.log2(max(PATTERNS * effort, most + 8))))


def reads(bench: Bench) -> int:
    """Read-outs of one pattern."""
    return READS if bench.noisy else 1


def steps(bench: Bench, layers: Sequence[int], effort: int) -> int:
    """Steps that a sweep of these layers takes."""
    each = SETTLE + reads(bench)
    return 2 * each * patterns(bench, layers, effort) * max(rounds(bench, k) for k in layers)


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
    order = patterns(bench, layers, effort)
    frac = [8] * len(network.layers)
    for k, p in plans.items():
        frac[k] = -int(np.log2(p.lsb))
    bench.power_up(retimed(network, 1.0, 1.0), bench.scales(frac))
    result: dict[int, list[Answers]] = {k: [] for k in layers}
    few = reads(bench)
    each = SETTLE + few
    drift = bench.profile.weight.drift
    again = order if drift is None else max(1, int(drift * DRIFT_SHARE / each))
    for turn in range(max(rounds(bench, k) for k in layers)):
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
                bench.read([], SETTLE, inputs)
                got = dict(zip(watched, bench.read(watched, few, inputs), strict=True))
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
