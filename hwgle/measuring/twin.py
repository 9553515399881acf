"""The emulator's twin of a chip: an identity whose numbers were measured, not drawn.

It has the profile's widths and noise and the measured gains, offsets and time constants. How
good it is shows on streams that nobody fitted anything to (`residuals`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy import sqnr
from hwgle.chip import MAX_BITS, Chip, Profile
from hwgle.device import Block, Device
from hwgle.devices.emulator import Emulator
from hwgle.identity import stuck_code
from hwgle.measured import (
    FACTOR_MAX,
    GAIN_MAX,
    GAIN_ONE,
    OFFSET_MAX,
    Measured,
    MeasuredLayer,
    encode,
)
from hwgle.measuring import regression
from hwgle.measuring.bench import Build, nominal
from hwgle.network import Network
from hwgle.quantise import Scales, build_image, quantise_weights, to_int16
from hwgle.weights import Weights

if TYPE_CHECKING:
    from hwgle.measuring.calibration import Calibration
    from hwgle.measuring.estimates import LayerEstimates

TRIALS = 8
NAME_MAX = 64  # characters of a profile's name
SUFFIX = "-twin"
# What an identity can hold, see hwgle/measured.py; a gain of 0 is that of a dead neuron.
FACTORS = (1.0 / FACTOR_MAX, FACTOR_MAX)
OFFSETS = (-OFFSET_MAX, OFFSET_MAX)
ACTIVATIONS = (1.0 / GAIN_ONE, 2.0 - 1.0 / GAIN_ONE)
CONVERTERS = (0.0, GAIN_MAX / GAIN_ONE)


def twin_of(calibration: Calibration, profile: Profile) -> Chip:
    """A chip of this profile with everything that has a spread there as measured; its name
    says that it is a twin."""
    name = profile.name[: NAME_MAX - len(SUFFIX)] + SUFFIX
    chip = Chip.model_validate({**profile.model_dump(), "seed": 0, "name": name})
    layers = tuple(_layer(own, profile, chip) for own in calibration.layers)
    p = profile.input
    measured = Measured(
        network=calibration.network,
        layers=layers,
        input_gain=_numbers(calibration.input_gain.value, p.gain > 0, CONVERTERS),
        input_offset=_numbers(calibration.input_offset.value, p.offset > 0, OFFSETS),
    )
    return chip.model_copy(update={"measured": measured})


def _numbers(
    values: NDArray[np.float64], varies: bool, limits: tuple[float, float]
) -> tuple[float, ...]:
    if not varies:
        return ()
    return tuple(float(f"{v:.7g}") for v in np.clip(values, *limits).tolist())


def _layer(own: LayerEstimates, profile: Profile, chip: Chip) -> MeasuredLayer:
    a, r, leak = profile.activation, profile.readout, profile.leak
    gain = np.clip(own.activation_gain.value, *ACTIVATIONS)
    return MeasuredLayer(
        tau_m=_numbers(own.tau_m.value, leak.mismatch > 0, FACTORS),
        tau_r=_numbers(own.tau_r.value, leak.mismatch > 0, FACTORS),
        activation_gain=_numbers(
            np.where(own.dead, 0.0, gain), a.gain > 0 or a.dead > 0, (0.0, ACTIVATIONS[1])
        ),
        activation_offset=_numbers(own.offset.value, a.offset > 0, OFFSETS),
        readout_gain=_numbers(own.readout_gain.value, r.gain > 0, CONVERTERS),
        readout_offset=_numbers(own.readout_offset.value, r.offset > 0, OFFSETS),
        synapse_gain=_codes(own, chip) if chip.synapses_differ else "",
    )


def _codes(own: LayerEstimates, chip: Chip) -> str:
    assert own.synapse is not None
    assert own.stuck is not None
    factor = np.where(np.isfinite(own.synapse.value), own.synapse.value, 0.0)
    codes = np.clip(np.floor(factor * GAIN_ONE + 0.5), 0, GAIN_MAX).astype(np.int16)
    full = chip.weight_max << (MAX_BITS - chip.weight.bits)
    for kind, seen in ((regression.ZERO, 0), (regression.PLUS, full), (regression.MINUS, -full)):
        codes[own.stuck == kind] = stuck_code(seen)
    return encode(codes)


# --- how good it is ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Residual:
    """Of one layer's rates on streams, dB of signal over difference: the chip as designed and
    the twin against the chip, and the chip against itself (the limit that its noise sets;
    infinite without noise)."""

    layer: str
    designed: float
    twin: float
    repeated: float

    @property
    def better(self) -> float:
        """dB that the twin is nearer to the chip than the design is."""
        return self.twin - self.designed


def still(chip: Chip) -> Chip:
    """The same chip without noise in time."""
    silent = {
        "membrane": chip.membrane.model_copy(update={"noise": 0.0}),
        "readout": chip.readout.model_copy(update={"noise": 0.0}),
        "error": chip.error.model_copy(update={"noise": 0.0}),
    }
    return chip.model_copy(update=silent)


def residuals(
    device: Device,
    build: Build,
    twin: Chip,
    network: Network,
    weights: Weights,
    scales: Scales,
    x: NDArray[np.floating],
) -> list[Residual]:
    """Rates of all layers on x (T, streams, inputs): twin and design against the chip.

    The streams go one after another: a chip on a desk has one at a time. What no twin can
    predict is kept out of it: a chip with noise runs TRIALS times and the mean is taken, the
    twin runs without noise.
    """
    profile = twin.profile
    noisy = profile.membrane.noise > 0 or profile.readout.noise > 0
    designed, quiet = nominal(profile), still(twin)
    trials = TRIALS if noisy else 1
    chip = [_rates(device, build, network, weights, scales, x, k) for k in range(trials)]
    with Emulator() as body:
        own = _rates(body, builder(quiet), network, weights, scales, x, 0)
        plan = _rates(body, builder(designed), network, weights, scales, x, 0)
    result = []
    for k, layer in enumerate(network.layers):
        runs = np.stack([trial[k] for trial in chip])
        mean = runs.mean(axis=0)
        repeated = float("inf")
        if trials > 1:
            noise = runs.var(axis=0, ddof=1).mean() / trials
            repeated = float(10 * np.log10(np.square(mean).mean() / max(noise, 1e-30)))
        result.append(Residual(layer.name, sqnr(mean, plan[k]), sqnr(mean, own[k]), repeated))
    return result


def builder(chip: Chip) -> Build:
    """Powers up an emulated chip."""
    return lambda network, scales: build_image(network, chip, scales)


def _rates(
    device: Device,
    build: Build,
    network: Network,
    weights: Weights,
    scales: Scales,
    x: NDArray[np.floating],
    trial: int,
) -> list[NDArray[np.float64]]:
    """Rates (streams * T, n) of each layer as read; trials differ by their noise."""
    wish = [(k, "r") for k in range(len(network.layers))]
    image = build(network, scales)
    device.load(image, 1, uhat=False)
    device.write_weights(quantise_weights(image, weights))
    codes, _ = to_int16(x, scales.input, image.chip.input_max)
    streams = codes.shape[1]
    parts: list[list[NDArray[np.float64]]] = [[] for _ in wish]
    for b in range(streams):
        device.reset(trial * streams + b)
        records = device.run(Block(codes[:, b : b + 1], record=wish))
        for signals, r in zip(parts, records.signals, strict=True):
            signals.append(r[:, 0].astype(np.float64))
    return [np.concatenate(part) for part in parts]
