"""What can be taken off a chip's imperfections from outside, once they are known.

    bias        takes the offset in front of the activation, and of the input DACs
    weights     each over the gain of its synapse, of the neuron or DAC below it
    leak code   the time constant asked for, over the factor by which the chip misses it
    read-out    offset and gain of each channel, by the host

What cannot: synapses that are stuck, neurons that are dead, noise, and the widths of weights
and converters. Those are for learning on the chip itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwgle.errors import UsageError
from hwgle.network import MAX_TAU_RATIO, MAX_TAU_STEPS, Layer, Network, Population
from hwgle.weights import Weights

if TYPE_CHECKING:
    from hwgle.measuring.calibration import Calibration
    from hwgle.measuring.estimates import LayerEstimates

Floats = NDArray[np.float64]

PER = ("synapse", "neuron")
DIGITS = 6  # of a time constant asked for
LEAST_GAIN = 0.1  # of what a weight is divided by: below it the synapse is given up


@dataclass(frozen=True)
class Readout:
    """Gain and offset (LSB of the ADC) of the channels of one layer, (n,)."""

    gain: Floats
    offset: Floats

    def apply(self, r: NDArray[np.floating], lsb: float) -> Floats:
        """Rates (..., n) as read, in network units, as phi alone would have them.

        lsb: of the ADC, in network units.
        """
        return np.asarray((r - self.offset * lsb) / self.gain, dtype=np.float64)


@dataclass(frozen=True)
class Corrected:
    """What to run in place of a network and its weights; readouts: of each layer, by name."""

    network: Network
    weights: Weights
    readouts: dict[str, Readout]

    @property
    def readout(self) -> Readout:
        """Of the output layer."""
        return self.readouts[self.network.layers[-1].name]


def correct(
    calibration: Calibration,
    network: Network,
    weights: Weights,
    *,
    input_lsb: float = 0.0,
    per: str = "synapse",
) -> Corrected:
    """Network and weights such that the chip does what the given ones say.

    input_lsb: of the input DAC in network units, without which the offsets of the inputs stay
    in. per: `synapse`, or `neuron`: one factor on all weights of a neuron, which is what a
    chip whose weights have few bits but a scale for each neuron can do.
    Raises UsageError for a network of another shape.
    """
    if per not in PER:
        raise UsageError(f"corrections per {per!r}; allowed: {', '.join(PER)}")
    if calibration.sizes != (network.inputs, *network.sizes):
        raise UsageError(f"the calibration is not of network {network.name}: other sizes")
    result: Weights = dict(weights)
    layers = []
    below = calibration.input_gain.value
    for k, (layer, own) in enumerate(zip(network.layers, calibration.layers, strict=True)):
        w = np.asarray(weights[f"{layer.name}.weight"], dtype=np.float64)
        b = np.asarray(weights[f"{layer.name}.bias"], dtype=np.float64)
        seen = np.broadcast_to(below, w.shape)
        if own.synapse is not None:
            seen = np.where(np.isfinite(own.synapse.value), own.synapse.value, 1.0) * below
        seen = np.where(seen < LEAST_GAIN, 1.0, seen)
        if per == "neuron":
            power = np.square(w).sum(axis=1)
            mean = (np.square(w) * seen).sum(axis=1) / np.where(power > 0, power, 1.0)
            seen = np.broadcast_to(np.where(power > 0, mean, 1.0)[:, None], w.shape)
        result[f"{layer.name}.weight"] = w / seen
        b = b - own.offset.value
        if k == 0 and input_lsb > 0:
            gain = np.where(below > LEAST_GAIN, below, 1.0)
            b = b - (w / gain) @ (calibration.input_offset.value * input_lsb)
        result[f"{layer.name}.bias"] = b
        layers.append(_asked(network, layer, own))
        below = own.activation_gain.value
    readouts = {
        layer.name: Readout(np.where(own.dead, 1.0, own.gain.value), own.readout_offset.value)
        for layer, own in zip(network.layers, calibration.layers, strict=True)
    }
    return Corrected(network.model_copy(update={"layers": tuple(layers)}), result, readouts)


def _asked(network: Network, layer: Layer, own: LayerEstimates) -> Layer:
    """A layer with the time constants to ask for. The leak DAC then takes its nearest code.

    None is below dt or beyond what a network may say; an instantaneous neuron, whose time
    constants only have to be equal, gets both longer where one would be below dt.
    """
    dt = network.dt
    tau_m, tau_r = layer.tau_m / own.tau_m.value, layer.tau_r / own.tau_r.value
    short = np.minimum(tau_m, tau_r)
    longer = np.where(np.isclose(layer.tau_m, layer.tau_r), np.maximum(dt / short, 1.0), 1.0)
    tau_m, tau_r = (np.clip(t * longer, dt, MAX_TAU_STEPS * dt) for t in (tau_m, tau_r))
    tau_r = np.clip(tau_r, tau_m / MAX_TAU_RATIO, tau_m * MAX_TAU_RATIO)
    pairs = [
        (float(f"{m:.{DIGITS}g}"), float(f"{r:.{DIGITS}g}"))
        for m, r in zip(tau_m.tolist(), tau_r.tolist(), strict=True)
    ]
    populations = tuple(
        Population(size=len(list(same)), tau_m=max(m, dt), tau_r=max(r, dt))
        for (m, r), same in groupby(pairs)
    )
    return layer.model_copy(update={"populations": populations})
