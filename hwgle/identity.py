"""Everything individual of a chip, drawn from its seed: the same on every machine.

Each number is a function of (seed, purpose, layer, index) alone: switching one imperfection
on or off, or another network around a layer, changes no other. Integer hashing, and float64
by +, -, *, / and sqrt only, which IEEE 754 defines to the last bit (no libm, whose exp
differs between machines): the version of these rules is `hwgle.chip.DRAWING`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hwgle.cache import write_text
from hwgle.chip import DRAWING, MAX_BITS, Chip, content_hash, full_scale
from hwgle.counter import Floats, Hashes, random_words, uniform
from hwgle.errors import UsageError
from hwgle.measured import GAIN_MAX, GAIN_ONE, Measured, MeasuredLayer, decode
from hwgle.network import MAX_SIZE, Network
from hwgle.yamlfile import MAX_BYTES

# Purposes of draws. A number, once used, keeps its meaning; those of the core's own random
# bits (csrc/rng.h) are below 256.
SYNAPSE_GAIN, SYNAPSE_STUCK = 256, 257
TAU_M, TAU_R = 258, 259
ACTIVATION_GAIN, ACTIVATION_OFFSET, DEAD = 260, 261, 262
READOUT_GAIN, READOUT_OFFSET = 263, 264
INPUT_GAIN, INPUT_OFFSET = 265, 266
# 267 and 268 are the network's own: hwgle/topology.py.

ROW = MAX_SIZE  # a synapse has index i * ROW + j, whatever the fan-in
CHUNK = 1 << 16
# Gains that the core's words can hold, see csrc/gle.h: of activations, none of them dead, and
# of converters.
LEAST, MOST = 1.0 / GAIN_ONE, 2.0 - 1.0 / GAIN_ONE
MOST_CONVERTER = GAIN_MAX / GAIN_ONE


@dataclass(frozen=True)
class LayerDraws:
    """What is individual in a layer of n neurons with m inputs; arrays are read-only.

    gain: (n, m) int16 as in the image, Q13; negative: stuck, the array sees -g - 8192; None
    where all synapses are alike. tau_m, tau_r: (n,) factors on the time constants.
    activation_gain (n,), activation_offset (n,) in network units, dead (n,) bool.
    readout_gain (n,), readout_offset (n,) in LSB of the ADC.
    """

    gain: NDArray[np.int16] | None
    tau_m: Floats
    tau_r: Floats
    activation_gain: Floats
    activation_offset: Floats
    dead: NDArray[np.bool_]
    readout_gain: Floats
    readout_offset: Floats


@dataclass(frozen=True)
class Draws:
    """What is individual in a chip that carries a network.

    input_gain, input_offset: (inputs,), offsets in LSB of the input DAC.
    """

    layers: tuple[LayerDraws, ...]
    input_gain: Floats
    input_offset: Floats


# --- random numbers ----------------------------------------------------------------------------


def normal(seed: int, purpose: int, layer: int, index: Hashes) -> Floats:
    """Mean 0, variance 1 - 2**-32, one for each index: the sum of twelve 16-bit uniforms.

    Within +-6, kurtosis 2.9: tails a little lighter than a normal's, as those of parts that
    passed a test are.
    """
    total = np.zeros(index.shape, dtype=np.int64)
    for k in range(3):
        words = random_words(seed, purpose, layer, index * np.uint64(3) + np.uint64(k))
        for shift in (0, 16, 32, 48):
            total += ((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
    return (total - 6 * 0xFFFF).astype(np.float64) * 2.0**-16


def exp(x: Floats) -> Floats:
    """e**x for |x| <= 16 to 13 digits, by sums and products alone."""
    y = x * 2.0**-8
    term = np.ones_like(y)
    total = np.ones_like(y)
    for k in range(1, 13):
        term = term * y / float(k)
        total = total + term
    for _ in range(8):
        total = total * total
    return total


def log1p(x: float) -> float:
    """ln(1 + x) for 0 <= x <= 1, by sums and products alone."""
    t = x / (2.0 + x)
    power, total = t, 0.0
    for k in range(1, 41, 2):
        total += power / k
        power *= t * t
    return 2.0 * total


def lognormal(spread: float, z: Floats) -> Floats:
    """Factors with mean 1 and standard deviation `spread`, from normal numbers.

    Mean 1, not median 1: a wider spread makes neurons and synapses more different, not
    stronger on the whole, so that what it costs is the mismatch alone.
    """
    variance = log1p(spread * spread)
    return exp(z * sqrt(variance) - 0.5 * variance)


# --- one chip ----------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def draw(chip: Chip, network: Network) -> Draws:
    """Everything individual of a chip with this network on it.

    Raises UsageError when the chip holds measured numbers of another network.
    """
    misfit = chip.measured.misfit(network)
    if misfit is not None:
        text = f"chip {chip.name} is a twin, but not for network {network.name}: {misfit}"
        raise UsageError(text)
    layers = []
    for k, layer in enumerate(network.layers):
        own = chip.measured.layers[k] if chip.measured.layers else MeasuredLayer()
        layers.append(_layer(chip, k, layer.size, network.fan_in(k), own))
    index = np.arange(network.inputs, dtype=np.uint64)
    gain = 1.0 + chip.input.gain * normal(chip.seed, INPUT_GAIN, 0, index)
    offset = chip.input.offset * normal(chip.seed, INPUT_OFFSET, 0, index)
    m = chip.measured
    return Draws(
        tuple(layers),
        _kept(m.input_gain, _within(gain, 0.0, MOST_CONVERTER)),
        _kept(m.input_offset, offset),
    )


def _layer(chip: Chip, k: int, n: int, m: int, own: MeasuredLayer) -> LayerDraws:
    index = np.arange(n, dtype=np.uint64)
    a, leak, readout = chip.activation, chip.leak, chip.readout

    def z(purpose: int) -> Floats:
        return normal(chip.seed, purpose, k, index)

    tau_m = lognormal(leak.mismatch, z(TAU_M))
    tau_r = tau_m if leak.tracks else lognormal(leak.mismatch, z(TAU_R))
    gain = _kept(own.activation_gain, _within(1.0 + a.gain * z(ACTIVATION_GAIN), LEAST, MOST))
    dead = uniform(chip.seed, DEAD, k, index) < a.dead
    if own.activation_gain:
        dead = gain == 0
    dead.setflags(write=False)
    return LayerDraws(
        gain=_synapses(chip, k, n, m, own),
        tau_m=_kept(own.tau_m, tau_m),
        tau_r=_kept(own.tau_r, tau_r),
        activation_gain=gain,
        activation_offset=_kept(own.activation_offset, a.offset * z(ACTIVATION_OFFSET)),
        dead=dead,
        readout_gain=_kept(
            own.readout_gain, _within(1.0 + readout.gain * z(READOUT_GAIN), 0.0, MOST_CONVERTER)
        ),
        readout_offset=_kept(own.readout_offset, readout.offset * z(READOUT_OFFSET)),
    )


def _within(drawn: Floats, least: float, most: float) -> Floats:
    """Cut where the core's words end, so that what is drawn is what is built."""
    return np.clip(drawn, least, most)


def _kept(measured: tuple[float, ...], drawn: Floats) -> Floats:
    """Measured numbers if there are any, otherwise the drawn ones; read-only."""
    values = np.array(measured, dtype=np.float64) if measured else drawn.copy()
    values.setflags(write=False)
    return values


def _synapses(chip: Chip, k: int, n: int, m: int, own: MeasuredLayer) -> NDArray[np.int16] | None:
    if not chip.synapses_differ:
        return None
    if own.synapse_gain:
        codes = decode(own.synapse_gain).reshape(n, m)
    else:
        codes = np.empty((n, m), dtype=np.int16)
        most = max(1, CHUNK // m)  # rows at a time: twelve words a synapse take room
        for first in range(0, n, most):
            rows = slice(first, min(first + most, n))
            codes[rows] = _codes(chip, k, rows, m)
    codes.setflags(write=False)
    return codes


def _codes(chip: Chip, k: int, rows: slice, m: int) -> NDArray[np.int64]:
    """Gain codes of some rows, Q13."""
    w = chip.weight
    i = np.arange(rows.start, rows.stop, dtype=np.uint64)[:, None]
    index: Hashes = (i * np.uint64(ROW) + np.arange(m, dtype=np.uint64)).astype(np.uint64)
    gain = np.ones(index.shape)
    if w.mismatch > 0:
        z = normal(chip.seed, SYNAPSE_GAIN, k, index)
        gain = lognormal(w.mismatch, z) if w.distribution == "lognormal" else 1.0 + w.mismatch * z
    codes = np.clip(np.floor(gain * GAIN_ONE + 0.5), 0, GAIN_MAX).astype(np.int64)
    if w.stuck_zero > 0 or w.stuck_full > 0:
        full = chip.weight_max << (MAX_BITS - w.bits)
        u = uniform(chip.seed, SYNAPSE_STUCK, k, index)
        edges = np.array([0.0, w.stuck_zero, 0.5 * w.stuck_full, 0.5 * w.stuck_full]).cumsum()
        for value, low, high in zip((0, full, -full), edges, edges[1:], strict=False):
            codes[(low <= u) & (u < high)] = stuck_code(value)
    return codes


def stuck_code(seen: int) -> int:
    """The code of a synapse of which the array always sees the same, -8191..8191."""
    assert abs(seen) <= full_scale(MAX_BITS)
    return -seen - GAIN_ONE


def stuck(gain: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which synapses are stuck."""
    return gain < 0


def factors(gain: NDArray[np.int16]) -> Floats:
    """Gains as factors; NaN where a synapse is stuck."""
    return np.where(stuck(gain), np.nan, gain / GAIN_ONE)


# --- identities --------------------------------------------------------------------------------


def identity(chip: Chip) -> dict[str, Any]:
    """What an identity file of this chip says, its hash included."""
    data: dict[str, Any] = {
        "format": "hwgle/identity/1",
        "drawing": DRAWING,
        "seed": chip.seed,
        "profile": chip.profile.model_dump(mode="json"),
    }
    if chip.measured != Measured():
        data["measured"] = chip.measured.model_dump(mode="json", exclude_defaults=True)
    digest = content_hash(data)
    return {"format": data.pop("format"), "sha256": digest, **data}


def identity_hash(chip: Chip) -> str:
    """SHA-256 (hex) of profile, seed, drawing rules and what was measured: one chip."""
    return str(identity(chip)["sha256"])


class _Dumper(yaml.SafeDumper):
    """Quotes text that starts with a digit: `1e5` is a name here, but a number in YAML 1.2."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if text[:1].isdigit() else None
    ),
)


def save(chip: Chip, path: Path) -> None:
    """Write an identity file, whole or not at all.

    Raises:
        UsageError: it cannot be written there, or would be larger than what is read.
    """
    text = yaml.dump(
        identity(chip), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100
    )
    if len(text) > MAX_BYTES:
        raise UsageError(
            f"{path}: an identity of {len(text):,} bytes; files of up to {MAX_BYTES:,} are read"
        )
    head = f"# One chip: {chip.name}, seed {chip.seed}. After an edit its hash does not hold.\n"
    write_text(path, head + text)
