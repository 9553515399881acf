"""A chip: a profile (YAML, `hwgle/chip/1`) plus a seed, which is one identity.

All fixed-point formats are signed with a symmetric full scale of
2**(bits-1) - 1 least significant bits, so that negation never saturates.
Everything individual is drawn from the seed, see hwgle/identity.py; a spread of 0
(the default throughout) switches one imperfection off and leaves the others as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hwgle.errors import FileMistakes, Mistake
from hwgle.measured import Measured
from hwgle.yamlfile import Checked, Rule, Where, YamlFile, find, number, read, show, validate

MIN_BITS = 2
# 32 products of two 14-bit factors fit an int32 for certain: 32 * 8191**2 < 2**31.
MAX_BITS = 14
MAX_STORED_BITS = 16
STATE_BITS = 29  # of a membrane inside the core: no limit of the chip's own
MIN_STATE_BITS = 8
MIN_STATE_FRAC = 6  # the core's coarsest membrane: 2**-6 network units an LSB
MAX_SEED = 2**63 - 1
DRAWING = 1  # version of the rules by which identities are drawn

Bits = Annotated[int, Field(ge=MIN_BITS, le=MAX_BITS)]
Spread = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Format(Checked):
    """A signed fixed-point signal of `bits` bits, sign included."""

    bits: Bits


class Input(Checked):
    """The input DACs, one an input. offset: sd in LSB, a fifth of full scale at most (full
    scale is 2**(bits - 1) LSB). gain: relative sd, cut at 0 and 4."""

    bits: Bits
    offset: float = Field(default=0.0, ge=0, le=1000)
    gain: Spread = 0.0


class Weight(Checked):
    """Weights: `stored_bits` are held and learned, the array sees the upper `bits`.

    scale: one power of two for a layer, or one for each neuron. mismatch: relative sd of the
    gain of a synapse, lognormal (mean 1) or normal. stuck_zero, stuck_full: shares of
    synapses that are 0, and that are at full scale (half of them positive), whatever is
    stored. drift: time constant in steps with which stored weights decay, null for never.
    """

    bits: Bits
    stored_bits: int = Field(ge=MIN_BITS, le=MAX_STORED_BITS)
    scale: Literal["layer", "neuron"] = "layer"
    mismatch: Spread = 0.0
    distribution: Literal["lognormal", "normal"] = "lognormal"
    stuck_zero: Share = 0.0
    stuck_full: Share = 0.0
    drift: float | None = Field(
        default=None,
        ge=16,
        le=1e9,
        description="a number of steps from 16 to 1e9, or null for none",
    )


class Membrane(Checked):
    """Membranes, which are analog or wide. bits: of the state, 29 for all that the core has.

    range: largest |u| in network units, null for one that calibration chooses. noise:
    stationary rms of u in network units. Of it a rate shows the share 1 - tau_r/tau_m: the
    prospective uhat = u + (tau_r/tau_m)(x - u) of an instantaneous neuron is x, without noise.
    """

    bits: int = Field(default=STATE_BITS, ge=MIN_STATE_BITS, le=STATE_BITS)
    range: float | None = Field(
        default=None,
        gt=0,
        le=2.0**22,
        description="a number > 0 and <= 4194304, or null: calibrated",
    )
    noise: float = Field(default=0.0, ge=0, le=16)


class Leak(Checked):
    """Time constants as built. bits: of the DAC that sets them, null for exactly.

    mismatch: relative sd (lognormal, mean 1) of tau_m and tau_r. tracks: tau_r deviates by
    the same factor as tau_m of its neuron; otherwise by one of its own.
    """

    bits: int | None = Field(
        default=None,
        ge=MIN_BITS,
        le=MAX_BITS,
        description="a whole number from 2 to 14, or null: exact",
    )
    mismatch: Spread = 0.0
    tracks: bool = True


class Activation(Checked):
    """r = gain * phi(uhat + offset). gain: relative sd, cut at 0 and 2. offset: sd in network
    units.
    dead: share of neurons whose rate and slope are 0."""

    gain: Spread = 0.0
    offset: float = Field(default=0.0, ge=0, le=10)
    dead: Share = 0.0


class Error(Checked):
    """The error path. noise: rms on the error neuron, as a share of full scale, in every step
    that drives the path: where a target is given, or gamma is not 0. Where no target is given
    and gamma is 0, nothing listens to errors: no noise, error neurons decay by their equations."""

    bits: Bits
    noise: Spread = 0.0


class Readout(Checked):
    """The ADC through which rates are read out (what is recorded; the chip itself computes on
    with the analog rate). bits: null as the rate. offset: sd in LSB of the ADC. gain: relative
    sd. noise: rms in LSB of the ADC, at every read-out."""

    bits: int | None = Field(
        default=None,
        ge=MIN_BITS,
        le=MAX_BITS,
        description="a whole number from 2 to 14, or null: as rate",
    )
    offset: float = Field(default=0.0, ge=0, le=100)
    gain: Spread = 0.0
    noise: float = Field(default=0.0, ge=0, le=100)


class Plasticity(Checked):
    """How an update is rounded to the resolution of the stored weight.

    learning_rate: of plain on-chip SGD where nobody says another; the chip shifts, so it
    uses the nearest power of two of rate / streams. update_bits: of one update, in LSB of the
    stored weight, sign included; null for no limit. update_noise: relative sd of an update.
    """

    rounding: Literal["stochastic", "nearest"] = "stochastic"
    learning_rate: float = Field(default=2.0**-10, gt=0, le=16)
    update_bits: int | None = Field(
        default=None, ge=2, le=17, description="a whole number from 2 to 17, or null: no limit"
    )
    update_noise: Spread = 0.0


class Profile(Checked):
    """The design that all chips of one kind share: what a chip's YAML file says."""

    format: Literal["hwgle/chip/1"]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=64,
        description="a name of letters, digits, _ . and -, at most 64 long",
    )
    weight: Weight
    rate: Format
    input: Input
    membrane: Membrane = Membrane()
    leak: Leak = Leak()
    activation: Activation = Activation()
    error: Error
    readout: Readout = Readout()
    plasticity: Plasticity = Plasticity()

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """The array cannot see more bits than are stored, shares add up to at most 1, a
        membrane's bits hold its range."""
        weight, membrane = data.get("weight"), data.get("membrane")
        if isinstance(data.get("input"), Mapping):
            yield from _input_rules(data["input"])
        if isinstance(weight, Mapping):
            yield from _weight_rules(weight)
        if isinstance(membrane, Mapping):
            yield from _membrane_rules(membrane)


def _input_rules(found: Mapping[str, Any]) -> Iterator[Rule]:
    bits, offset = found.get("bits"), number(found.get("offset", 0.0))
    if type(bits) is not int or not MIN_BITS <= bits <= MAX_BITS or offset is None:
        return
    most = 2.0 ** (bits - 1) / 5.0
    if offset > most:
        allowed = f"at most {most:g}, a fifth of the full scale of {bits} bits"
        yield Rule(("input", "offset"), f"{offset:g}", allowed)


def _weight_rules(weight: Mapping[str, Any]) -> Iterator[Rule]:
    bits, stored = weight.get("bits"), weight.get("stored_bits")
    if type(bits) is int and type(stored) is int and stored < bits:
        allowed = f"from bits = {bits} to {MAX_STORED_BITS}"
        yield Rule(("weight", "stored_bits"), str(stored), allowed)
    zero, full = number(weight.get("stuck_zero", 0.0)), number(weight.get("stuck_full", 0.0))
    if zero is not None and full is not None and zero <= 1 and full <= 1 < zero + full:
        allowed = f"at most 1 - stuck_zero = {1 - zero:g}"
        yield Rule(("weight", "stuck_full"), f"{full:g}", allowed)


def _membrane_rules(membrane: Mapping[str, Any]) -> Iterator[Rule]:
    bits, largest = membrane.get("bits", STATE_BITS), number(membrane.get("range"))
    if type(bits) is not int or not MIN_STATE_BITS <= bits <= STATE_BITS or largest is None:
        return
    most = full_scale(bits) / 2**MIN_STATE_FRAC
    if largest > most:
        allowed = f"at most {most:g} with {bits} bits (their coarsest LSB is 1/64)"
        yield Rule(("membrane", "range"), f"{largest:g}", allowed)


class Chip(Profile):
    """One chip: a profile and the seed from which everything individual is drawn, or what
    was measured of it for one network."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    measured: Measured = Measured()

    @classmethod
    def load(cls, spec: str, *, base: Path | None = None, where: Where | None = None) -> Chip:
        """Read `NAME|FILE[:SEED]` or the file of an identity; a relative path starts at `base`.

        Raises:
            FileMistakes: all mistakes of the file, no such file or name, a seed that is no
                whole number from 0 to 2**63 - 1, or one behind an identity.
        """
        name, text = split_seed(os.fspath(spec))
        at = where or Where(spec, None, "seed")
        mistakes: list[Mistake] = []
        seed = 0
        if text is not None:
            if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_SEED:
                seed = int(text)
            else:
                allowed = f"a whole number from 0 to {MAX_SEED} after the colon"
                mistakes.append(Mistake(*at, show(text), allowed))
        try:
            file = read(find("chips", name, base=base, where=where))
            if _is_identity(file):
                identity = _identity(file)
                if text is not None:
                    found = f"the seed {text} after an identity"
                    mistakes = [Mistake(*at, found, "the file alone: it holds its seed")]
                else:
                    return identity.chip()
            else:
                profile = validate(Profile, file)
        except FileMistakes as error:
            raise FileMistakes([*mistakes, *error.mistakes]) from None
        if mistakes:
            raise FileMistakes(mistakes)
        return cls.model_validate({**profile.model_dump(), "seed": seed})

    @property
    def profile(self) -> Profile:
        """The design alone."""
        data = self.model_dump(exclude={"seed", "measured"})
        return Profile.model_validate(data)

    @property
    def weight_max(self) -> int:
        """Largest |weight| that the array sees, in its LSB."""
        return full_scale(self.weight.bits)

    @property
    def stored_max(self) -> int:
        """Largest |weight| that is stored, in the (finer) LSB of storage: what the array
        sees of it is exactly its own full scale."""
        return self.weight_max << (self.weight.stored_bits - self.weight.bits)

    @property
    def rate_max(self) -> int:
        """Largest |rate|, in LSB."""
        return full_scale(self.rate.bits)

    @property
    def input_max(self) -> int:
        """Largest |input|, in LSB of the input DAC."""
        return full_scale(self.input.bits)

    @property
    def error_max(self) -> int:
        """Largest |error|, in LSB."""
        return full_scale(self.error.bits)

    @property
    def synapses_differ(self) -> bool:
        """Whether synapses have gains of their own; then w_left is not 0."""
        w = self.weight
        drawn = w.mismatch > 0 or w.stuck_zero > 0 or w.stuck_full > 0
        return drawn or self.measured.has("synapse_gain")

    @property
    def neurons_differ(self) -> bool:
        """Whether activations or the read-out are other than ideal."""
        a, r = self.activation, self.readout
        spread = (a.gain, a.offset, a.dead, self.membrane.noise, r.offset, r.gain, r.noise)
        names = ("activation_gain", "activation_offset", "readout_gain", "readout_offset")
        return any(s > 0 for s in spread) or self.adc_drop > 0 or self.measured.has(*names)

    @property
    def inputs_differ(self) -> bool:
        """Whether input DACs have gains and offsets of their own; then input_left is not 0."""
        drawn = self.input.offset > 0 or self.input.gain > 0
        return drawn or bool(self.measured.input_gain or self.measured.input_offset)

    @property
    def weight_left(self) -> int:
        """Fraction bits by which what the array sees of a weight is finer than its code, so
        that a gain of a few percent acts on narrow weights too."""
        return MAX_BITS - self.weight.bits if self.synapses_differ else 0

    @property
    def input_left(self) -> int:
        """The same for the inputs."""
        return MAX_BITS - self.input.bits if self.inputs_differ else 0

    @property
    def adc_drop(self) -> int:
        """Bits of a rate that the read-out's ADC does not resolve."""
        return self.rate.bits - min(self.rate.bits, self.readout.bits or self.rate.bits)

    @property
    def adc_max(self) -> int:
        """Largest |code| of the read-out's ADC."""
        return full_scale(self.rate.bits - self.adc_drop)


class Identity(Checked):
    """One chip in a file of its own (`hwgle/identity/1`), with a hash over all it says.

    The hash is over the file's content as it stands, so that keys which later versions of
    hwgle add to profiles do not break older identities. drawing: version of the rules by
    which numbers are drawn from the seed. measured: of a twin, in place of drawn numbers.
    """

    format: Literal["hwgle/identity/1"]
    sha256: str = Field(description="the 64 hex digits that `hwgle chip new` wrote")
    drawing: Literal[1]
    seed: int = Field(ge=0, le=MAX_SEED)
    profile: Profile
    measured: Measured = Measured()

    def chip(self) -> Chip:
        """The chip that this is."""
        data = self.profile.model_dump()
        return Chip.model_validate({**data, "seed": self.seed, "measured": self.measured})


def content_hash(data: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what an identity file says, its `sha256` left out."""
    content = {key: value for key, value in data.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _is_identity(file: YamlFile) -> bool:
    kind = file.data.get("format")
    return isinstance(kind, str) and kind.startswith("hwgle/identity/")


def _identity(file: YamlFile) -> Identity:
    """Raises FileMistakes; where the hash does not hold that is all there is to say."""
    told = file.data.get("sha256")
    if not file.mistakes and isinstance(told, str) and told != content_hash(file.data):
        found = f"{show(told)}, which is not the hash of what the file says"
        allowed = "the file as `hwgle chip new` wrote it: it was changed or is damaged"
        raise FileMistakes([file.mistake(("sha256",), found, allowed)])
    return validate(Identity, file)


def full_scale(bits: int) -> int:
    """Symmetric full scale of a signed format of `bits` bits: 2**(bits-1) - 1."""
    return (1 << (bits - 1)) - 1


def split_seed(spec: str) -> tuple[str, str | None]:
    """`NAME|FILE[:SEED]` as (name, text of the seed); the colon of `C:\\x` is no seed."""
    name, colon, seed = spec.rpartition(":")
    if not colon or not name or "/" in seed or "\\" in seed:
        return spec, None
    return name, seed
