"""The words of an image that come from a chip's imperfections, and numbers as words.

One function for each section (csrc/gle.h); hwgle/quantise.py puts them together. Nothing
here depends on the platform: float64 by IEEE operations, rounded half up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle import topology
from hwgle._core import lib
from hwgle.chip import Chip
from hwgle.errors import UsageError
from hwgle.identity import Draws
from hwgle.measured import GAIN_MAX, GAIN_ONE
from hwgle.network import Network

MAX_COEFFICIENT = 8192.0
MAX_MANTISSA = (1 << 15) - 1
# The noise of the core is the sum of four bytes less their mean: 4 * (256**2 - 1) / 12.
NOISE_VARIANCE = 21845
NOISE_SHIFTS = (-5, 31)
NOISE_BIAS = 8
OFFSET_MAX = (1 << 28) - 1
ACTIVATION_GAIN_MAX = (1 << 14) - 1
NO_UPDATE_LIMIT = 65535
DRIFT_SHIFT = 10  # a drift takes 0.1 % where the time constant allows: often enough, cheap
DRIFT_ERROR = 0.04  # of the time constant

Words = NDArray[np.int64]


def round_half_up(x: ArrayLike) -> NDArray[np.float64]:
    """Rounding as everywhere on the chip: add half, floor."""
    return np.floor(np.asarray(x, dtype=np.float64) + 0.5)


def coefficient(value: float) -> int:
    """A multiplier >= 0 as the core packs it: 15-bit mantissa << 8 | shift.

    Relative error at most 2**-15. Raises UsageError outside 0..8192.
    """
    if not 0 <= value <= MAX_COEFFICIENT:
        raise UsageError(f"multiplier {value!r} is outside 0..{MAX_COEFFICIENT:g}")
    if value == 0:
        return 15
    shift = min(15 - math.frexp(value)[1], 31)
    mantissa = round(math.ldexp(value, shift))
    if mantissa > MAX_MANTISSA:
        mantissa, shift = mantissa >> 1, shift - 1
    return int(mantissa << 8 | shift)


def noise_word(sd: float) -> int:
    """Noise of standard deviation `sd`, in units of what it is added to; 0 for none.

    m << 8 | (k + 8) with m * 2**-k = sd / sqrt(21845). Relative error at most 2**-15 down
    to sd = 1e-3; below that coarser, 3e-8 and less is none. Raises UsageError above 1.5e8.
    """
    if not 0 <= sd < math.inf:
        raise UsageError(f"a noise of {sd!r}: allowed: 0 or more")
    if sd == 0:
        return 0
    value = sd / math.sqrt(NOISE_VARIANCE)
    shift = min(15 - math.frexp(value)[1], NOISE_SHIFTS[1])
    mantissa = round(math.ldexp(value, shift))
    if mantissa > MAX_MANTISSA:
        mantissa, shift = mantissa >> 1, shift - 1
    if shift < NOISE_SHIFTS[0]:
        raise UsageError(f"a noise of {sd:g} LSB is more than the core can make")
    return mantissa << 8 | (shift + NOISE_BIAS) if mantissa else 0


# --- what is there at all ----------------------------------------------------------------------


def sections(chip: Chip, network: Network | None = None) -> int:
    """Flags of the sections that an image of this chip, and of this network, has."""
    wiring = 0
    if network is not None:
        wiring = (
            lib.GLE_HAS_MASKS * any(topology.masked(network, k) for k in _layers(network))
            | lib.GLE_HAS_SOURCES * (not topology.is_chain(network))
            | lib.GLE_HAS_FEEDBACK * (topology.feedback_kind(network) != "transposed")
        )
    return int(
        wiring
        |        lib.GLE_HAS_ROWS * (chip.weight.scale == "neuron")
        | lib.GLE_HAS_ANALOG * chip.neurons_differ
        | lib.GLE_HAS_INPUTS * chip.inputs_differ
        | lib.GLE_HAS_GAINS * chip.synapses_differ
    )


def section_words(network: Network, chip: Chip) -> int:
    """Words of all of them."""
    neurons = sum(network.sizes)
    count = neurons * (chip.weight.scale == "neuron") + 4 * neurons * chip.neurons_differ
    count += network.inputs * chip.inputs_differ
    if chip.synapses_differ:
        fan_in = [network.fan_in(k) for k in range(len(network.layers))]
        count += sum(n * (m + m % 2) // 2 for n, m in zip(network.sizes, fan_in, strict=True))
    for k in _layers(network):
        count += 3 * (not topology.is_chain(network))
        if topology.masked(network, k):
            count += network.sizes[k] * -(-network.fan_in(k) // 32)
    return int(count) + 3 * (topology.feedback_kind(network) != "transposed")


def _layers(network: Network) -> range:
    return range(len(network.layers))


# --- wiring ------------------------------------------------------------------------------------


def source_words(network: Network) -> Words:
    """Three words of bits a layer: the inputs, then layers."""
    words: list[int] = []
    for k in _layers(network):
        bits = sum(1 << s.source + 1 for s in topology.segments(network, k))
        words += [bits >> 32 * part & 0xFFFFFFFF for part in range(3)]
    return np.array(words, dtype=np.int64)


def feedback_words(network: Network) -> Words:
    """Kind, and how weights and feedback decay."""
    kind = {
        "alignment": lib.GLE_ALIGNMENT,
        "kolen-pollack": lib.GLE_KOLEN_POLLACK,
    }.get(topology.feedback_kind(network), lib.GLE_DIRECT)
    share = topology.feedback_decay(network)
    every, shift = relaxation(1.0 / share) if share else (0, 1)
    return np.array([kind, every, shift], dtype=np.int64)


def mask_words(network: Network) -> Words:
    """Bits of the masks of all layers that have one, 32 synapses of a row a word."""
    parts = [np.zeros(0, dtype=np.int64)]
    for k in _layers(network):
        if topology.masked(network, k):
            there = topology.mask(network, k)
            n, m = there.shape
            bits = np.zeros((n, -(-m // 32) * 32), dtype=np.int64)
            bits[:, :m] = there
            words = bits.reshape(n, -1, 32) << np.arange(32, dtype=np.int64)
            parts.append(words.sum(axis=2).ravel())
    return np.concatenate(parts)


# --- the whole chip ----------------------------------------------------------------------------


def drift_words(chip: Chip) -> tuple[int, int]:
    """(steps between two drifts, shift): weights lose 2**-shift of themselves each time."""
    return (0, 1) if chip.weight.drift is None else relaxation(chip.weight.drift)


def relaxation(tau: float) -> tuple[int, int]:
    """(steps between two, shift) so that what is kept falls as e^(-steps/tau)."""
    found: tuple[float, int, int] = (math.inf, 1, 1)
    for shift in range(DRIFT_SHIFT, 0, -1):
        # e^(-every/tau) = 1 - x, and -1/ln(1 - x) = 1/x - 1/2 - x/12 - x^2/24 - ...
        x = 2.0**-shift
        once = 1.0 / x - 0.5 - x / 12.0 - x * x / 24.0 - x * x * x * 19.0 / 720.0
        every = max(1, math.floor(tau / once + 0.5))
        off = abs(every * once / tau - 1.0)
        if off <= DRIFT_ERROR:
            return every, shift
        found = min(found, (off, every, shift))
    return found[1], found[2]


def update_words(chip: Chip) -> tuple[int, int]:
    """(largest update in LSB of the stored weight, noise of an update)."""
    bits = chip.plasticity.update_bits
    most = NO_UPDATE_LIMIT if bits is None else (1 << (bits - 1)) - 1
    return most, noise_word(chip.plasticity.update_noise * GAIN_ONE)


# --- neurons -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """Time constants of a layer as built, (n,): DAC, mismatch, at least dt."""

    tau_m: NDArray[np.float64]
    tau_r: NDArray[np.float64]


def built(network: Network, chip: Chip, draws: Draws) -> list[Built]:
    """Time constants of all layers as this chip has them.

    The leak DAC sets conductances, which go with 1/tau: its full scale is the network's
    smallest time constant, its LSB the largest that it can set. No neuron is faster than a
    step: an explicit step of dt > tau would overshoot.
    """
    fastest = min(min(float(y.tau_m.min()), float(y.tau_r.min())) for y in network.layers)
    result = []
    for layer, own in zip(network.layers, draws.layers, strict=True):
        tau = [layer.tau_m * own.tau_m, layer.tau_r * own.tau_r]
        if chip.leak.bits is not None:
            full = (1 << chip.leak.bits) - 1
            code = [round_half_up(full * fastest / y) for y in (layer.tau_m, layer.tau_r)]
            tau = [
                full * fastest / np.maximum(c, 1.0) * factor
                for c, factor in zip(code, (own.tau_m, own.tau_r), strict=True)
            ]
        result.append(Built(np.maximum(tau[0], network.dt), np.maximum(tau[1], network.dt)))
    return result


def neuron_words(network: Network, layers: list[Built]) -> Words:
    """leak_u ratio_u leak_v ratio_v of every neuron, flat."""
    words: list[int] = []
    dt = network.dt
    for layer in layers:
        for tau_m, tau_r in zip(layer.tau_m, layer.tau_r, strict=True):
            ratios = (dt / tau_m, tau_r / tau_m, dt / tau_r, tau_m / tau_r)
            words += [coefficient(min(float(c), MAX_COEFFICIENT)) for c in ratios]
    return np.array(words, dtype=np.int64)


def times(
    dt: float, tau_m: NDArray[np.float32], tau_r: NDArray[np.float32], leak_v: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Multipliers (n, 4) for time constants (n,) that are being learned, in float32 as
    csrc/host/adam.c makes them; leak_v stays as it is."""
    step = np.float32(dt)
    words = np.empty((tau_m.size, 4), dtype=np.uint32)
    words[:, 0] = _coefficients(step / tau_m)
    words[:, 1] = _coefficients(tau_r / tau_m)
    words[:, 2] = leak_v
    words[:, 3] = _coefficients(tau_m / tau_r)
    return words


def _coefficients(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """`coefficient` of many numbers above 0."""
    values = np.minimum(values, np.float32(MAX_COEFFICIENT))
    shift = np.minimum(15 - np.frexp(values)[1], 31)
    mantissa = np.rint(np.ldexp(values, shift)).astype(np.int64)
    over = mantissa > MAX_MANTISSA
    mantissa, shift = np.where(over, mantissa >> 1, mantissa), shift - over
    packed: NDArray[np.uint32] = (mantissa << 8 | shift).astype(np.uint32)
    return packed


def analog_words(
    network: Network, chip: Chip, draws: Draws, layers: list[Built], membrane: list[int]
) -> Words:
    """offset gain noise_u adc of every neuron, flat. membrane: u_frac of each layer."""
    parts = []
    for own, neurons, frac in zip(draws.layers, layers, membrane, strict=True):
        offset = round_half_up(own.activation_offset * 2.0**frac)
        gain = np.clip(round_half_up(own.activation_gain * GAIN_ONE), 1, ACTIVATION_GAIN_MAX)
        words = np.empty((gain.size, 4), dtype=np.int64)
        words[:, 0] = np.clip(offset, -OFFSET_MAX, OFFSET_MAX)
        words[:, 1] = np.where(own.dead, 0.0, gain)
        words[:, 2] = [membrane_noise(chip, network.dt / tau, frac) for tau in neurons.tau_m]
        words[:, 3] = pair(own.readout_gain * GAIN_ONE, own.readout_offset * 64.0)
        parts.append(words.ravel())
    return np.concatenate(parts)


def membrane_noise(chip: Chip, leak: float, frac: int) -> int:
    """Noise word of a neuron: what must be added each step for the rms that the chip says.

    u' = (1 - leak) u + noise has variance sd**2 / (1 - (1 - leak)**2) in the long run.
    """
    kept = 1.0 - leak
    return noise_word(math.ldexp(chip.membrane.noise * math.sqrt(1.0 - kept * kept), frac))


def error_noise(chip: Chip, extra: int) -> int:
    """Noise word in LSB of the error state, which is finer than the error by `extra` bits."""
    return noise_word(math.ldexp(chip.error.noise * chip.error_max, extra))


def readout_noise(chip: Chip) -> int:
    """Noise word in 1/8192 LSB of the ADC."""
    return noise_word(chip.readout.noise * GAIN_ONE)


# --- inputs and synapses -----------------------------------------------------------------------


def pair(gain: ArrayLike, offset: ArrayLike) -> Words:
    """A gain in the lower half of a word (0..32767), an offset in the upper (int16)."""
    low = np.clip(round_half_up(gain), 0, GAIN_MAX).astype(np.int64)
    high = np.clip(round_half_up(offset), -(1 << 15), GAIN_MAX).astype(np.int64)
    return low | (high & 0xFFFF) << 16


def input_words(chip: Chip, draws: Draws) -> Words:
    """Gain and offset of every input DAC."""
    return pair(draws.input_gain * GAIN_ONE, draws.input_offset * 2.0**chip.input_left)


def gain_words(draws: Draws, network: Network) -> Words:
    """Gains of all synapses, two a word, rows padded to an even number; 0 of absent ones,
    which cannot be stuck."""
    parts = []
    for k, own in enumerate(draws.layers):
        assert own.gain is not None
        n, m = own.gain.shape
        rows = np.zeros((n, m + m % 2), dtype=np.int64)
        rows[:, :m] = own.gain
        if topology.masked(network, k):
            rows[:, :m] *= topology.mask(network, k)
        rows &= 0xFFFF
        parts.append((rows[:, 0::2] | rows[:, 1::2] << 16).ravel())
    return np.concatenate(parts)
