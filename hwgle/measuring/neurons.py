"""What a neuron is, from its answer to steps of its own bias: one model, one fit.

All weights are 0, so that every neuron is alone and all can be measured at once. Biases jump
between levels and are held too briefly to settle, which shows the static curve and the time
constants in one sweep:

    r' = G phi(uhat + o) + A LSB,   uhat = u + (tau_r/tau_m)(x - u),   u += (dt/tau_m)(x - u)

Sweeping a second time with the ADC's range widened fourfold tells the offset o in front of
the activation (network units) from the one behind it (LSB of the ADC), for linear phi too.
G is the product of the gains of activation and read-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwgle.accuracy import sqnr
from hwgle.chip import Profile
from hwgle.measuring.bench import Bench, Floats, Range, curve, retimed

TAU_M, TAU_R = 9.0, 3.0  # in steps, during the sweep: both are well seen at this ratio
# A membrane stops where a step of its leak rounds to nothing, half an LSB times tau_m/dt from
# where it should be: so much of the offset, in LSB of the membrane, is uncertain.
STALL = 2.0
HOLD = 24  # steps of a level
LEVELS = 48
IDLE_BITS = 9  # full scale of a weight is 2**-9 while none are written
COARSER = 2  # bits, of the second range
ROUNDS = 8  # of Gauss and Newton
FLAT = {"relu": 0.99}  # slope up to which a sample is passed over, see `normal_equations`
STEEP = 0.03
FAR = 6.0  # standard deviations: nothing is further off than that
SMALL = 1e-5  # of the data sheet's spread: a step that is none
DEAD = 0.15  # of the expected response: below it there is none
QUIET = {"sigmoid": -6.0, "softplus": -6.0, "relu": -2.0}
# How finely the chip itself has what is estimated: gains in 1/8192, multipliers of time
# constants in 2**-15. An ADC sees rates that are rounded already, so that its offset is known
# to a rate's LSB at best: of an ADC as coarse as the rate, to the nearest whole one.
RESOLUTION = (5e-5, 0.0, 0.289, 2e-5, 2e-5)
NAMES = ("gain", "offset", "readout_offset", "tau_m", "tau_r")
GAIN, OFFSET, READOUT, LOG_M, LOG_R = range(5)


@dataclass(frozen=True)
class Sweep:
    """One layer's sweep: biases (levels, n) and rates as read (levels, hold, n)."""

    span: Range
    bias: Floats
    rate: Floats


@dataclass(frozen=True)
class NeuronFit:
    """Of one layer: value and error (n, 5) in the order of NAMES; time constants as logarithms
    of their factors. dead (n,). residual: rms of what the fit leaves, in LSB, (n,)."""

    value: Floats
    error: Floats
    dead: np.typing.NDArray[np.bool_]
    residual: Floats


def levels(span: Range, count: int, n: int, rng: np.random.Generator) -> Floats:
    """Biases (count, n): every neuron runs through all levels, in an order of its own, each
    level moved a little so that the ADC's steps average out."""
    grid = np.linspace(span.low, span.high, count)
    order = np.argsort(rng.random((count, n)), axis=0)
    spacing = grid[1] - grid[0]
    moved: Floats = grid[order] + spacing * rng.uniform(-0.5, 0.5, (count, n))
    return moved


def quiet(phi: str) -> float:
    """A bias at which a layer passes next to nothing on."""
    return QUIET.get(phi, 0.0)


def idle_frac(bench: Bench) -> int:
    """Fraction bits of weights while none are written: so fine that synapses which are stuck
    at full scale add little."""
    return bench.profile.weight.bits - 1 + IDLE_BITS


def sweep(
    bench: Bench, layers: Sequence[int], coarser: int, count: int, rng: np.random.Generator
) -> dict[int, Sweep]:
    """Sweep these layers at once while the others are quiet."""
    network = bench.network
    frac = [idle_frac(bench)] * len(network.layers)
    bench.power_up(retimed(network, TAU_M, TAU_R), bench.scales(frac, coarser))
    rest = {
        k: np.full(y.size, quiet(y.phi)) for k, y in enumerate(network.layers) if k not in layers
    }
    spans = {k: bench.range(k, coarser) for k in layers}
    wanted = {k: levels(spans[k], count, network.layers[k].size, rng) for k in layers}
    biases: dict[int, list[Floats]] = {k: [] for k in layers}
    rates: dict[int, list[Floats]] = {k: [] for k in layers}
    if rest:
        bench.set_biases(rest)
    for step in range(count):
        applied = bench.set_biases({k: wanted[k][step] for k in layers})
        for k, r in zip(layers, bench.read(layers, HOLD), strict=True):
            biases[k].append(applied[k])
            rates[k].append(r)
    return {k: Sweep(spans[k], np.array(biases[k]), np.array(rates[k])) for k in layers}


# --- the model ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Time constants in steps as the data sheet says they are set, and what is known of them."""

    tau_m: float
    tau_r: float
    tracks: bool
    noise: float  # of uhat, rms


def timing(profile: Profile) -> Timing:
    """Of the sweep on a chip of this profile, its leak DAC included."""
    tau_m, tau_r = TAU_M, TAU_R
    if profile.leak.bits is not None:
        full = (1 << profile.leak.bits) - 1
        tau_m, tau_r = (
            full * TAU_R / max(1.0, np.floor(full * TAU_R / t + 0.5)) for t in (TAU_M, TAU_R)
        )
    noise = profile.membrane.noise * abs(1.0 - tau_r / tau_m)
    return Timing(tau_m, tau_r, profile.leak.tracks, noise)


def membranes(bias: Floats, p: Floats, t: Timing, hold: int) -> tuple[Floats, Floats, Floats]:
    """uhat (levels, hold, n) and its derivatives by the logarithms of tau_m and tau_r."""
    factor_r = p[:, LOG_M] if t.tracks else p[:, LOG_R]
    tau_m = np.maximum(t.tau_m * np.exp(p[:, LOG_M]), 1.0)
    tau_r = np.maximum(t.tau_r * np.exp(factor_r), 1.0)
    alpha, ratio = 1.0 / tau_m, tau_r / tau_m
    n = np.arange(hold + 1)[:, None]
    kept = (1.0 - alpha) ** n
    slope = np.where(n > 0, n * (1.0 - alpha) ** np.maximum(n - 1, 0), 0.0) * alpha
    u, du = np.zeros_like(bias), np.zeros_like(bias)  # at the beginning of each level
    for k in range(1, len(bias)):
        away = u[k - 1] - bias[k - 1]
        u[k] = bias[k - 1] + away * kept[-1]
        du[k] = du[k - 1] * kept[-1] + away * slope[-1]
    away = (bias - u)[:, None] * kept[:-1]  # x - u
    uhat = bias[:, None] - (1.0 - ratio) * away
    jump = ratio * away
    by_m = (1.0 - ratio) * (du[:, None] * kept[:-1] - (bias - u)[:, None] * slope[:-1])
    if t.tracks:
        return uhat, by_m, np.zeros_like(uhat)
    return uhat, by_m - jump, jump


def predicted(phi: str, s: Sweep, p: Floats, t: Timing) -> tuple[Floats, Floats]:
    """Read-outs (levels, hold, n) without clipping, and their derivatives (..., 5)."""
    uhat, by_m, by_r = membranes(s.bias, p, t, s.rate.shape[1])
    y, dy = curve(phi, uhat + p[:, OFFSET], t.noise)
    r = p[:, GAIN] * y + p[:, READOUT] * s.span.lsb
    dz = p[:, GAIN] * dy
    jacobian = np.stack([y, dz, np.full_like(y, s.span.lsb), dz * by_m, dz * by_r], axis=-1)
    return r, jacobian


# --- the fit -----------------------------------------------------------------------------------


def spreads(profile: Profile, bench: Bench) -> Floats:
    """Prior standard deviations in the order of NAMES; 0: the data sheet has no spread."""
    leak = np.sqrt(np.log1p(profile.leak.mismatch**2))
    return np.array(
        [
            bench.gain_spread,
            profile.activation.offset,
            profile.readout.offset,
            leak,
            0.0 if profile.leak.tracks else leak,
        ]
    )


def fit(bench: Bench, k: int, sweeps: Sequence[Sweep]) -> NeuronFit:
    """Maximum a posteriori of all neurons of layer k, errors from what is left over.

    What is left within one level hangs together (rounding of the ADC, membrane noise), so
    errors are those of the sandwich estimator with a level as the unit.
    """
    profile, phi, frac = bench.profile, bench.network.layers[k].phi, bench.membrane_frac(k)
    t = timing(profile)
    prior = spreads(profile, bench)
    free = np.flatnonzero(prior > 0)
    n = sweeps[0].bias.shape[1]
    mean = np.zeros((n, 5))
    mean[:, GAIN] = 1.0  # as `design` has it
    dead = no_response(phi, sweeps[0], mean, t)
    p = mean.copy()
    if free.size == 0:
        return NeuronFit(np.where(dead[:, None], dead_values(p), p), np.zeros((n, 5)), dead,
                         np.zeros(n))  # fmt: skip
    weight = 1.0 / prior[free] ** 2
    for _ in range(ROUNDS):
        hessian, gradient, scores, _, _ = normal_equations(phi, sweeps, p, t, bench, free)
        hessian += np.diag(weight)
        gradient += weight * (mean - p)[:, free]
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        p[:, free] += np.clip(step, -1.5 * prior[free], 1.5 * prior[free])
        reach = FAR * prior[free]
        p[:, free] = np.clip(p[:, free], mean[:, free] - reach, mean[:, free] + reach)
        p[:, GAIN] = np.maximum(p[:, GAIN], 0.05)
        if np.all(np.abs(step) < SMALL * prior[free]):
            break
    hessian, _, scores, residual, units = normal_equations(phi, sweeps, p, t, bench, free)
    hessian += np.diag(weight)
    small = units / np.maximum(units - free.size, 1.0)
    middle = small[:, None, None] * scores + np.diag(weight)
    back = np.linalg.inv(hessian)
    variance = np.einsum("nij,njk,nki->ni", back, middle, back)
    error = np.zeros((n, 5))
    floor = np.array(RESOLUTION)
    # Noise of half an LSB and more makes an ADC linear on average.
    dither = np.exp(-2.0 * (np.pi * profile.readout.noise) ** 2)
    floor[READOUT] *= 2.0**-bench.chip.adc_drop * max(dither, 0.05)
    floor[OFFSET] = STALL * 2.0**-frac
    error[:, free] = np.hypot(np.sqrt(variance), floor[free])
    if profile.leak.tracks:
        p[:, LOG_R], error[:, LOG_R] = p[:, LOG_M], error[:, LOG_M]
    _silence(p, error, dead, sweeps, prior)
    return NeuronFit(p, error, dead, residual)


def normal_equations(
    phi: str,
    sweeps: Sequence[Sweep],
    p: Floats,
    t: Timing,
    bench: Bench,
    free: np.typing.NDArray[np.intp],
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Hessian (n, f, f), gradient (n, f), sum of the squared scores of all levels (n, f, f),
    rms of what is left in LSB (n,), levels that count (n,).

    Where the curve is flat all samples round alike, so that none tells more than the first:
    they are passed over, and so is what clips.
    """
    n, f = len(p), free.size
    hessian, scores = np.zeros((n, f, f)), np.zeros((n, f, f))
    gradient, left, count, units = np.zeros((n, f)), np.zeros(n), np.zeros(n), np.zeros(n)
    noise = bench.profile.readout.noise
    for s in sweeps:
        r, jacobian = predicted(phi, s, p, t)
        lsb = s.span.lsb
        analog = (jacobian[..., OFFSET] * t.noise) ** 2
        variance = lsb**2 * (1.0 / 12.0 + noise**2) + analog
        margin = lsb * (1.0 + 3.0 * noise) + 3.0 * np.sqrt(analog)
        # A rate clips before its read-out has its own gain, which is not known apart.
        limit = min(s.span.clip, s.span.full * (1.0 - 2.0 * bench.profile.readout.gain)) - margin
        fits = (np.abs(r) < limit) & (np.abs(s.rate) < s.span.clip - 0.5 * lsb)
        steep = jacobian[..., OFFSET] > FLAT.get(phi, STEEP) * p[:, GAIN]
        w = np.where(fits & steep, 1.0 / variance, 0.0)
        w[0] = 0.0  # what other layers pass on has yet to settle
        rest = s.rate - r
        j = jacobian[..., free]
        weighted = j * w[..., None]
        hessian += np.einsum("khni,khnj->nij", weighted, j, optimize=True)
        score = np.einsum("khni,khn->kni", weighted, rest)
        gradient += score.sum(axis=0)
        scores += np.einsum("kni,knj->nij", score, score)
        left += ((rest / lsb) ** 2 * (w > 0)).sum(axis=(0, 1))
        count += (w > 0).sum(axis=(0, 1))
        units += (w > 0).any(axis=1).sum(axis=0)
    return hessian, gradient, scores, np.sqrt(left / np.maximum(count, 1.0)), units


def no_response(phi: str, s: Sweep, mean: Floats, t: Timing) -> np.typing.NDArray[np.bool_]:
    """Neurons that hardly move where their neighbours on the data sheet do."""
    expected, _ = predicted(phi, s, mean, t)
    moved: np.typing.NDArray[np.bool_] = s.rate.reshape(-1, len(mean)).std(
        axis=0
    ) < DEAD * expected.reshape(-1, len(mean)).std(axis=0)
    return moved


def design(own: NeuronFit) -> Floats:
    """Values (n, 5) that the data sheet has."""
    values = np.zeros_like(own.value)
    values[:, GAIN] = 1.0
    return values


def explained(phi: str, s: Sweep, p: Floats, profile: Profile) -> float:
    """dB of a sweep's rates over what they differ by from those predicted."""
    r, _ = predicted(phi, s, p, timing(profile))
    r = np.clip(r, -s.span.clip, s.span.clip)
    return sqnr(s.rate[1:], r[1:])


def dead_values(p: Floats) -> Floats:
    """A dead neuron: no gain, the rest as the data sheet has it."""
    values = p.copy()
    values[:, GAIN] = 0.0
    values[:, OFFSET] = values[:, LOG_M] = values[:, LOG_R] = 0.0
    return values


def _silence(
    p: Floats,
    error: Floats,
    dead: np.typing.NDArray[np.bool_],
    sweeps: Sequence[Sweep],
    prior: Floats,
) -> None:
    """Dead neurons: only the offset of their read-out can be measured."""
    if not dead.any():
        return
    p[dead] = dead_values(p[dead])
    error[dead] = prior
    error[dead, GAIN] = 0.0
    if prior[READOUT] > 0:
        reads = sweeps[0].rate[:, :, dead].reshape(-1, int(dead.sum())) / sweeps[0].span.lsb
        p[dead, READOUT] = reads.mean(axis=0)
        error[dead, READOUT] = np.sqrt(1.0 / 12.0 + reads.var(axis=0))
