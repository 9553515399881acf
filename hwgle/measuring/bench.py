"""A chip on the bench: what can be done to it and seen of it, and what its data sheet says.

The only file here that talks to a device. It powers the chip up (an image, with the time
constants and ranges that a sweep needs), sets biases, weights and inputs, and reads rates:
through the ADC, one stream. Nothing that is individual of the chip is known to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle.activation import activation
from hwgle.chip import MIN_STATE_FRAC, Chip, Profile
from hwgle.device import Block, Device
from hwgle.errors import UsageError
from hwgle.network import Network
from hwgle.quantise import Image, LayerScales, Quantised, Scales, weight_shift

Floats = NDArray[np.float64]
Build = Callable[[Network, Scales], Image]
Progress = Callable[[int, int], None]

BOUNDED = ("tanh", "sigmoid")
UNBOUNDED_RANGE = 4.0  # network units, of rates that have no full scale of their own
FILL = 0.95  # of the ADC's range that a sweep uses
SPREADS = 2.5  # standard deviations by which a gain may be larger and still fit
ERROR_FRAC, ERROR_EXTRA = 13, 4
FINEST_MEMBRANE = 22
FIRST_STREAM = 1 << 20  # by which noise is drawn on the bench, nowhere near those of a run
WIDE_BITS = 24  # of a membrane that has bits to spare

# What is individual or random in a profile; a data sheet gives its spread, not its value.
SPREAD_KEYS = {
    "weight": ("mismatch", "stuck_zero", "stuck_full"),
    "input": ("offset", "gain"),
    "membrane": ("noise",),
    "leak": ("mismatch",),
    "activation": ("gain", "offset", "dead"),
    "error": ("noise",),
    "readout": ("offset", "gain", "noise"),
    "plasticity": ("update_noise",),
}


def nominal(profile: Profile) -> Chip:
    """The chip as designed: no spread, no noise, no drift; bits and ranges stay."""
    data = profile.model_dump()
    for part, names in SPREAD_KEYS.items():
        for name in names:
            data[part][name] = 0.0
    data["weight"]["drift"] = None
    return Chip.model_validate({**data, "seed": 0})


@dataclass(frozen=True)
class Range:
    """What one layer can show, in network units.

    full: largest |rate|. clip: largest |read-out|. lsb: of the ADC. low, high: membranes
    between which a sweep moves, so that rates stay within the ADC's range.
    """

    full: float
    clip: float
    lsb: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        """Where the activation is steep, half-way between."""
        return 0.5 * (self.low + self.high)

    @property
    def half(self) -> float:
        """Half the distance of low and high."""
        return 0.5 * (self.high - self.low)


def inverse(phi: str, r: Floats) -> Floats:
    """Membrane at which phi gives r; only for r that it does give."""
    if phi == "tanh":
        return np.asarray(np.arctanh(r))
    if phi == "sigmoid":
        return np.asarray(np.log(r) - np.log1p(-r))
    if phi == "softplus":
        return np.asarray(np.log(np.expm1(r)))
    return r


def curve(phi: str, z: Floats, noise: float = 0.0) -> tuple[Floats, Floats]:
    """phi and its slope as a membrane with that noise (rms) shows them on average."""
    act = activation(phi)
    if noise == 0 or phi == "linear":
        return np.asarray(act.phi(z), np.float64), np.asarray(act.dphi(z), np.float64)
    far = np.sqrt(3.0) * noise  # three-point Gauss-Hermite
    r = (act.phi(z - far) + 4.0 * act.phi(z) + act.phi(z + far)) / 6.0
    slope = (act.dphi(z - far) + 4.0 * act.dphi(z) + act.dphi(z + far)) / 6.0
    return np.asarray(r, np.float64), np.asarray(slope, np.float64)


class Bench:
    """A device with one chip on it, and the data sheet."""

    def __init__(self, device: Device, build: Build, profile: Profile, network: Network) -> None:
        if not topology.is_chain(network) or any(
            topology.masked(network, k) for k in range(len(network.layers))
        ):
            raise UsageError(
                f"network {network.name}: a bench measures chains, where a layer is driven by "
                "the one below alone; this one has from, recurrent or sparsity"
            )
        network = network.model_copy(update={"feedback": None})  # errors play no part here
        self._device, self._build = device, build
        self.profile, self.network = profile, network
        self.chip = nominal(profile)
        self.steps = 0
        self._times = 0
        self.tell: Callable[[int], None] = lambda steps: None  # called with the steps done
        self._image: Image
        self._bias: list[NDArray[np.int32]]

    # --- ranges ---------------------------------------------------------------------------

    @property
    def gain_spread(self) -> float:
        """Of activation and read-out together."""
        p = self.profile
        return float(np.hypot(p.activation.gain, p.readout.gain))

    def range(self, k: int, coarser: int = 0) -> Range:
        """Of layer k; `coarser`: bits by which its rates' range is widened."""
        frac = self.rate_frac(k) - coarser
        chip = self.chip
        full = float(np.ldexp(chip.rate_max, -frac))
        clip = float(np.ldexp(chip.adc_max << chip.adc_drop, -frac))
        low, high = self._span(k, coarser)
        return Range(full, clip, float(np.ldexp(1.0, chip.adc_drop - frac)), low, high)

    def _span(self, k: int, coarser: int) -> tuple[float, float]:
        """Membranes that a sweep covers: what rates and read-out show, as far as membranes go.

        In a wider range a wide membrane moves further, one of few bits does not.
        """
        phi, chip = self.network.layers[k].phi, self.chip
        wide = coarser if chip.membrane.bits >= WIDE_BITS else 0
        frac = self._finest_rate(k) - wide
        most = min(chip.rate_max, chip.adc_max << chip.adc_drop)
        top = FILL * float(np.ldexp(most, -frac)) / (1.0 + SPREADS * self.gain_spread)
        if phi in BOUNDED:
            top = max(min(top, FILL), 0.55)
        high = float(inverse(phi, np.array(top)))
        offset = self.profile.activation.offset
        if phi not in BOUNDED:
            high = max(0.5 * high, high - SPREADS * offset)
        lows = {"sigmoid": -3.0, "softplus": -3.0, "relu": -max(0.25 * high, 2.5 * offset)}
        low = lows.get(phi, -high)
        if chip.membrane.range is not None:
            limit = FILL * chip.membrane.range
            low, high = max(low, -limit), min(high, limit)
        return low, high

    def _finest_rate(self, k: int) -> int:
        bits = self.profile.rate.bits
        if self.network.layers[k].phi in BOUNDED:
            return bits - 1
        wide = max(1.0, 4.0 * SPREADS * self.profile.activation.offset / UNBOUNDED_RANGE)
        return bits - 1 - int(np.ceil(np.log2(UNBOUNDED_RANGE * wide)))

    def membrane_frac(self, k: int, coarser: int = 0) -> int:
        """Fraction bits of the membranes of layer k during a sweep."""
        bits = self.chip.membrane.bits
        margin = float(np.clip(2.0 ** (bits - 20), 1.4, 4.0))
        peak = margin * max(abs(x) for x in self._span(k, coarser))
        frac = np.floor(np.log2((2.0 ** (bits - 1) - 1.0) / peak))
        return int(np.clip(frac, MIN_STATE_FRAC, FINEST_MEMBRANE))

    def rate_frac(self, k: int) -> int:
        """Fraction bits of the rates of layer k in their finest range."""
        return min(self._finest_rate(k), self.membrane_frac(k))

    def scales(self, weight: Sequence[int], coarser: int = 0) -> Scales:
        """Formats for a sweep. weight: fraction bits of the array's weights, per layer."""
        layers = tuple(
            LayerScales(
                w,
                self.membrane_frac(k, coarser),
                self.rate_frac(k) - coarser,
                ERROR_FRAC,
                ERROR_EXTRA,
            )
            for k, w in enumerate(weight)
        )
        return Scales(self.input_frac, 12, layers)

    @property
    def input_frac(self) -> int:
        """Fraction bits of the input DAC's codes: full scale is about 1."""
        return self.profile.input.bits - 1

    @property
    def noisy(self) -> bool:
        """Whether two reads of the same differ."""
        return self.profile.membrane.noise > 0 or self.profile.readout.noise > 0

    # --- acting ---------------------------------------------------------------------------

    def power_up(self, network: Network, scales: Scales) -> None:
        """Load the chip with these time constants and ranges; weights and biases are 0.

        Noise is drawn by the number of a stream: each time another, so that it is never the
        same twice."""
        self._image = self._build(network, scales)
        self._device.load(self._image, 1, uhat=False)
        self._device.reset(FIRST_STREAM + self._times)
        self._times += 1
        self._bias = [np.zeros(layer.size, dtype=np.int32) for layer in network.layers]
        self._scales = scales

    def set_weights(self, codes: Sequence[NDArray[np.int16]]) -> None:
        """Write codes as the array sees them, all layers."""
        shift = weight_shift(self.chip)
        written: Quantised = {}
        for layer, w, b in zip(self.network.layers, codes, self._bias, strict=True):
            written[layer.name] = ((w.astype(np.int32) << shift).astype(np.int16), b)
        self._device.write_weights(written)

    def set_biases(self, biases: dict[int, Floats]) -> dict[int, Floats]:
        """Change the biases of some layers; returns what they are once rounded."""
        steps: Quantised = {}
        result = {}
        for k, wanted in biases.items():
            frac = self._scales.layers[k].membrane
            code = np.floor(np.ldexp(wanted, frac) + 0.5).astype(np.int32)
            layer = self.network.layers[k]
            still = np.zeros((layer.size, self.network.fan_in(k)), dtype=np.int16)
            steps[layer.name] = (still, code - self._bias[k])
            self._bias[k] = code
            result[k] = np.ldexp(code.astype(np.float64), -frac)
        self._device.add_biases(steps)
        return result

    def read(
        self, layers: Sequence[int], steps: int, inputs: NDArray[np.integer[Any]] | None = None
    ) -> list[Floats]:
        """Run steps (inputs: codes, held; 0 unless given) and return rates (steps, n) as read."""
        x = np.zeros((steps, 1, self.network.inputs), dtype=np.int16)
        if inputs is not None:
            x[:] = inputs
        records = self._device.run(Block(x, record=[(k, "r") for k in layers]))
        self.steps += steps
        self.tell(self.steps)
        return [
            np.ldexp(values[:, 0].astype(np.float64), -self._scales.layers[k].rate)
            for k, values in zip(layers, records.signals, strict=True)
        ]


def retimed(network: Network, tau_m: float, tau_r: float) -> Network:
    """The same network with one pair of time constants (in steps), no nudging, no learning."""
    layers = [
        layer.model_copy(
            update={
                "learn": False,
                "populations": (
                    layer.populations[0].model_copy(
                        update={
                            "size": layer.size,
                            "tau_m": tau_m * network.dt,
                            "tau_r": tau_r * network.dt,
                        }
                    ),
                ),
            }
        )
        for layer in network.layers
    ]
    return network.model_copy(update={"layers": tuple(layers), "gamma": 0.0, "loss": "mse"})
