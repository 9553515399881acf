"""From fits to what is individual of a chip: which part of a product belongs to which part.

A read-out only ever shows the product of the gains of activation and ADC, and a synapse only
its own over that of the ADC below (or times that of its input DAC). All that the network
computes and shows follows from these products; how they are split matters to nobody but the
data sheet, whose spreads split them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import MAX_BITS, Profile
from hwgle.measuring import regression
from hwgle.measuring.bench import Floats
from hwgle.measuring.neurons import GAIN, LOG_M, LOG_R, OFFSET, READOUT, NeuronFit
from hwgle.measuring.regression import SynapseFit

LEAST = 0.05  # of a gain that anything is divided by


@dataclass(frozen=True)
class Estimate:
    """Values and their standard errors, arrays of one shape."""

    value: Floats
    error: Floats


@dataclass(frozen=True)
class LayerEstimates:
    """What was measured of a layer of n neurons with m inputs; units as hwgle.identity's.

    gain: of activation and read-out together, which is what is seen; activation_gain and
    readout_gain: its parts. offset: network units. readout_offset: LSB of the ADC. tau_m,
    tau_r: factors. synapse: factors (n, m), NaN where stuck, None where all are alike.
    stuck: (n, m) of regression.NORMAL, ZERO, PLUS, MINUS. residual: rms in LSB that the fit
    of the neurons leaves.
    """

    gain: Estimate
    activation_gain: Estimate
    readout_gain: Estimate
    offset: Estimate
    readout_offset: Estimate
    tau_m: Estimate
    tau_r: Estimate
    dead: NDArray[np.bool_]
    residual: Floats
    synapse: Estimate | None = None
    stuck: NDArray[np.int8] | None = None


def split(total: Floats, error: Floats, first: float, second: Floats) -> tuple[Floats, Floats]:
    """The first factor of a product known within `error`: 1 on average with spread `first`
    where the other has spread `second`; the mean and its standard error.

    second may be known better than its data sheet's spread: each has its own.
    """
    if first == 0:
        return np.ones_like(total), np.zeros_like(total)
    share = first**2 / (first**2 + second**2)
    left = np.sqrt(first**2 * second**2 / (first**2 + second**2))
    return 1.0 + share * (total - 1.0), np.hypot(share * error, left)


def column_means(fit: SynapseFit, spread: float) -> tuple[Floats, Floats]:
    """Mean factor of the synapses of each input (m,) and the spread of that mean.

    `spread`: of the synapses alone; n of them tell their common factor to spread/sqrt(n).
    """
    known = np.isfinite(fit.factor) & (fit.error < 0.5 * max(spread, 1e-3) + 1.0)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, fit.factor, 0.0).sum(axis=0) / count
    noise = np.sqrt(np.where(known, fit.error**2, 0.0).sum(axis=0)) / count
    empty = ~known.any(axis=0)
    return np.where(empty, 1.0, mean), np.where(
        empty, 1.0, np.hypot(noise, spread / np.sqrt(count))
    )


def readout_gains(
    profile: Profile, own: NeuronFit, above: SynapseFit | None
) -> tuple[Estimate, Estimate]:
    """Gains of activation and read-out of one layer, from their product and, where there is
    a layer above, from what it received: its factors go with 1 / read-out."""
    total, error = own.value[:, GAIN], own.error[:, GAIN]
    a, r = profile.activation.gain, profile.readout.gain
    second: Floats = np.full(total.shape, r)
    centre = total
    if above is not None and a > 0 and r > 0:
        mean, spread = column_means(above, profile.weight.mismatch)
        # 1/readout = mean +- spread, with prior 1 +- r: a sharper prior around another mean
        precision = 1.0 / r**2 + 1.0 / spread**2
        expected = np.maximum(1.0 - ((mean - 1.0) / spread**2) / precision, LEAST)
        second = 1.0 / np.sqrt(precision)
        centre = total / expected
    activation, activation_error = split(centre, error, a, second)
    dead = own.dead
    activation = np.where(dead, 0.0, activation)
    safe = np.where(activation > 0, activation, 1.0)
    readout = np.where(dead, 1.0, total / safe) if r > 0 else np.ones_like(total)
    if r == 0:
        activation, activation_error = total.copy(), error.copy()
    readout_error = np.where(dead, r, np.hypot(error, activation_error) * (r > 0))
    activation_error = np.where(dead, 0.0, activation_error)
    return Estimate(activation, activation_error), Estimate(readout, readout_error)


def input_gains(profile: Profile, fit: SynapseFit) -> Estimate:
    """Gains of the input DACs, as far as they are common to all synapses of an input."""
    g, s = profile.input.gain, profile.weight.mismatch
    m = fit.factor.shape[1]
    if g == 0:
        return Estimate(np.ones(m), np.zeros(m))
    mean, spread = column_means(fit, s)
    share = g**2 / (g**2 + spread**2)
    return Estimate(np.maximum(1.0 + share * (mean - 1.0), 0.0), g * spread / np.hypot(g, spread))


def input_offsets(profile: Profile, fit: SynapseFit, gain: Estimate, lsb: float) -> Estimate:
    """Offsets of the input DACs in LSB, from how the answers' mean turns with the signs.

    gain: of the DACs, which is before the offset and so not in what synapses make of it.
    """
    m = fit.factor.shape[1]
    sigma = profile.input.offset
    if sigma == 0:
        return Estimate(np.zeros(m), np.zeros(m))
    own = fit.factor / np.maximum(gain.value, LEAST)
    own = np.where(np.isfinite(own), np.where(gain.value > LEAST, own, 1.0), 0.0)
    design = np.concatenate([fit.weight * lsb * own * signs for signs in fit.signs])
    shift, error = fit.shift.ravel(), fit.shift_error.ravel()
    good = np.isfinite(error)
    d = design[good] / error[good, None]
    back = np.linalg.inv(d.T @ d + np.eye(m) / sigma**2)
    value = back @ (d.T @ (shift[good] / error[good]))
    split = np.abs(value) * gain.error  # a gain that is the synapses' would scale it
    step = 2.0 ** (profile.input.bits - MAX_BITS) / np.sqrt(12.0)  # as finely as the model has it
    return Estimate(value, np.sqrt(np.diag(back) + split**2 + step**2))


def synapse_factors(fit: SynapseFit, common: Estimate, spread: float) -> Estimate:
    """The synapses' own factors: what was measured over what is common to a column."""
    if spread == 0:
        return Estimate(np.where(np.isfinite(fit.factor), 1.0, np.nan), np.zeros(fit.factor.shape))
    told = common.value > LEAST  # behind a DAC without gain the data sheet is all that is known
    below = np.where(told, common.value, 1.0)
    value = fit.factor / below
    error = np.hypot(fit.error, value * common.error) / below
    known = told | ~np.isfinite(fit.factor)
    return Estimate(np.where(known, value, 1.0), np.where(known, error, spread))


def layer_estimates(
    profile: Profile,
    own: NeuronFit,
    pushed: Floats,
    links: SynapseFit | None,
    above: SynapseFit | None,
    common: Estimate | None,
) -> LayerEstimates:
    """All of one layer. pushed: what stuck synapses added while its neurons were measured.
    links: its synapses; common: gains of what is below them; above: the next layer's."""
    v, e = own.value, own.error
    activation, readout = readout_gains(profile, own, above)
    synapse = None
    if links is not None and common is not None:
        synapse = synapse_factors(links, common, profile.weight.mismatch)
    return LayerEstimates(
        gain=Estimate(v[:, GAIN], e[:, GAIN]),
        activation_gain=activation,
        readout_gain=readout,
        offset=Estimate(np.where(own.dead, 0.0, v[:, OFFSET] - pushed), e[:, OFFSET]),
        readout_offset=Estimate(v[:, READOUT], e[:, READOUT]),
        tau_m=_factor(v[:, LOG_M], e[:, LOG_M]),
        tau_r=_factor(v[:, LOG_R], e[:, LOG_R]),
        dead=own.dead,
        residual=own.residual,
        synapse=synapse,
        stuck=None if links is None else links.stuck,
    )


def _factor(log: Floats, error: Floats) -> Estimate:
    value = np.exp(log)
    return Estimate(value, value * error)


def pushed_by(
    profile: Profile, layers: Sequence[SynapseFit | None], k: int, quiet_rate: Floats, full: float
) -> Floats | float:
    """What the stuck synapses of layer k add to its membranes while the layer below rests at
    `quiet_rate`; full: full scale of the array's weights there, network units."""
    fit = layers[k]
    if fit is None or profile.weight.stuck_full == 0:
        return 0.0
    value = np.select(
        [fit.stuck == regression.PLUS, fit.stuck == regression.MINUS], [full, -full], 0.0
    )
    return np.asarray(value @ quiet_rate, dtype=np.float64)
