"""A chip taken apart: which of its imperfections belong to which stage of the error budget,
and the chip that has only some of them.

The stage `fixed` is what no chip is without: 14-bit rates, inputs, errors and weights in
16-bit words, 29-bit membranes (chip `ideal`). On top of it each imperfection can be switched
on by itself. What a profile says in LSB of a converter (offsets of DACs, offset and noise of
the read-out) keeps its size in volts where that converter is finer than the chip's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from hwgle.chip import MAX_BITS, MAX_STORED_BITS, STATE_BITS, Chip
from hwgle.measured import Measured

FIXED = "fixed"
CONVERTERS, MISMATCH, NOISE = "converters", "mismatch", "noise"
SWITCHED = (CONVERTERS, MISMATCH, NOISE)
STAGES = (FIXED, *SWITCHED)
TITLES = {
    FIXED: "fixed point",
    CONVERTERS: "converters and widths",
    MISMATCH: "mismatch",
    NOISE: "temporal noise",
}

Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Imperfection:
    """One thing that is not ideal. text: in words, with its figure. changes: section -> key ->
    value, over the chip that has fixed point alone. measured: it is what a twin holds."""

    name: str
    stage: str
    text: str
    changes: Changes
    measured: bool = False


def base(chip: Chip) -> Chip:
    """The chip of the same seed with fixed point alone."""
    return _with(chip, {}, measured=False)


def with_stages(chip: Chip, stages: Collection[str]) -> Chip:
    """The chip with the imperfections of some stages; of all of them it is the chip itself."""
    if all(stage in stages or not of_stage(chip, stage) for stage in SWITCHED):
        return chip
    return with_only(chip, [i for i in imperfections(chip) if i.stage in stages])


def with_only(chip: Chip, which: Collection[Imperfection]) -> Chip:
    """Fixed point and these imperfections."""
    changes: Changes = {}
    for imperfection in which:
        for section, values in imperfection.changes.items():
            changes.setdefault(section, {}).update(values)
    if any(i.stage == CONVERTERS for i in which):
        _in_own_lsb(chip, changes)
    return _with(chip, changes, measured=any(i.measured for i in which))


def of_stage(chip: Chip, stage: str) -> list[Imperfection]:
    """The imperfections of one stage that this chip has."""
    return [i for i in imperfections(chip) if i.stage == stage]


def adc_bits(chip: Chip) -> int:
    """Bits of what is read out."""
    return min(chip.rate.bits, chip.readout.bits or chip.rate.bits)


def _in_own_lsb(chip: Chip, changes: Changes) -> None:
    """Offsets and noise in the LSB of the converters as these changes make them."""
    steps = {
        "input": changes.get("input", {}).get("bits", MAX_BITS) - chip.input.bits,
        "readout": _adc_of(changes) - adc_bits(chip),
    }
    for section, finer in steps.items():
        for key in ("offset", "noise"):
            if key in changes.get(section, {}):
                value = getattr(getattr(chip, section), key)
                changes[section][key] = value * 2.0**finer


def _adc_of(changes: Changes) -> int:
    rate: int = changes.get("rate", {}).get("bits", MAX_BITS)
    return min(rate, changes.get("readout", {}).get("bits") or rate)


def _with(chip: Chip, changes: Changes, measured: bool) -> Chip:
    """Changes of the chip without imperfections. Not validated: an offset in LSB of a finer
    converter may be more than a profile may say."""
    bits = {"bits": MAX_BITS}
    ideal: Changes = {
        "weight": {**bits, "stored_bits": MAX_STORED_BITS},
        "rate": bits,
        "input": bits,
        "error": bits,
        "membrane": {"bits": STATE_BITS},
        "leak": {},
        "activation": {},
        "readout": {},
        "plasticity": {
            "rounding": chip.plasticity.rounding,
            "learning_rate": chip.plasticity.learning_rate,
        },
    }
    update: dict[str, Any] = {}
    for section, values in ideal.items():
        model = type(getattr(chip, section)).model_validate(values)
        update[section] = model.model_copy(update=changes.get(section, {}))
    update["measured"] = chip.measured if measured else Measured()
    return chip.model_copy(update=update)


# --- what a chip has ---------------------------------------------------------------------------


def imperfections(chip: Chip) -> list[Imperfection]:
    """All that is not ideal in a chip, stage by stage."""
    found: list[Imperfection] = []

    def add(stage: str, name: str, text: str, section: str, **values: Any) -> None:
        found.append(Imperfection(name, stage, text, {section: values}))

    _widths(chip, add)
    _patterns(chip, add)
    if chip.measured != Measured():
        found.append(Imperfection("measured", MISMATCH, "what was measured of a chip", {}, True))
    _temporal(chip, add)
    return found


Add = Callable[..., None]


def _widths(chip: Chip, add: Add) -> None:
    w, m = chip.weight, chip.membrane
    if (w.bits, w.stored_bits, w.scale) != (MAX_BITS, MAX_STORED_BITS, "layer"):
        scale = ", a scale for each neuron" if w.scale == "neuron" else ""
        text = f"weights of {w.bits} bits ({w.stored_bits} stored){scale}"
        values = {"bits": w.bits, "stored_bits": w.stored_bits, "scale": w.scale}
        add(CONVERTERS, "weight", text, "weight", **values)
    for name, what in (("input", "input DACs"), ("rate", "rates"), ("error", "errors")):
        bits = getattr(chip, name).bits
        if bits != MAX_BITS:
            add(CONVERTERS, name, f"{what} of {bits} bits", name, bits=bits)
    if m.bits != STATE_BITS or m.range is not None:
        reach = "" if m.range is None else f" within ±{m.range:g}"
        text = f"membranes of {m.bits} bits{reach}"
        add(CONVERTERS, "membrane", text, "membrane", bits=m.bits, range=m.range)
    if chip.leak.bits is not None:
        text = f"time constants set with {chip.leak.bits} bits"
        add(CONVERTERS, "leak", text, "leak", bits=chip.leak.bits)
    if chip.adc_drop:
        text = f"read-out ADC of {adc_bits(chip)} bits"
        add(CONVERTERS, "readout", text, "readout", bits=chip.readout.bits)


def _patterns(chip: Chip, add: Add) -> None:
    w, i, leak, a, r = chip.weight, chip.input, chip.leak, chip.activation, chip.readout
    if w.mismatch:
        text = f"synapse gains, sd {100 * w.mismatch:.3g} %"
        values = {"mismatch": w.mismatch, "distribution": w.distribution}
        add(MISMATCH, "synapse_gain", text, "weight", **values)
    if w.stuck_zero or w.stuck_full:
        text = f"stuck synapses, {100 * (w.stuck_zero + w.stuck_full):.3g} %"
        values = {"stuck_zero": w.stuck_zero, "stuck_full": w.stuck_full}
        add(MISMATCH, "stuck_synapses", text, "weight", **values)
    if i.gain:
        add(MISMATCH, "input_gain", f"input gains, sd {100 * i.gain:.3g} %", "input", gain=i.gain)
    if i.offset:
        text = f"input offsets, sd {i.offset:g} LSB"
        offset = i.offset * 2.0 ** (MAX_BITS - i.bits)
        add(MISMATCH, "input_offset", text, "input", offset=offset)
    if leak.mismatch:
        text = f"time constants, sd {100 * leak.mismatch:.3g} %"
        values = {"mismatch": leak.mismatch, "tracks": leak.tracks}
        add(MISMATCH, "leak_mismatch", text, "leak", **values)
    if a.gain:
        text = f"activation gains, sd {100 * a.gain:.3g} %"
        add(MISMATCH, "activation_gain", text, "activation", gain=a.gain)
    if a.offset:
        text = f"activation offsets, sd {a.offset:g}"
        add(MISMATCH, "activation_offset", text, "activation", offset=a.offset)
    if a.dead:
        add(MISMATCH, "dead", f"dead neurons, {100 * a.dead:.3g} %", "activation", dead=a.dead)
    if r.gain:
        text = f"read-out gains, sd {100 * r.gain:.3g} %"
        add(MISMATCH, "readout_gain", text, "readout", gain=r.gain)
    if r.offset:
        text = f"read-out offsets, sd {r.offset:g} LSB"
        add(MISMATCH, "readout_offset", text, "readout", offset=r.offset * _finer(chip))


def _temporal(chip: Chip, add: Add) -> None:
    noise = chip.membrane.noise
    if noise:
        add(NOISE, "membrane_noise", f"membrane noise, {noise:g} rms", "membrane", noise=noise)
    noise = chip.error.noise
    if noise:
        text = f"error noise, {100 * noise:.3g} % of full scale"
        add(NOISE, "error_noise", text, "error", noise=noise)
    noise = chip.readout.noise
    if noise:
        text = f"read-out noise, {noise:g} LSB rms"
        add(NOISE, "readout_noise", text, "readout", noise=noise * _finer(chip))
    drift = chip.weight.drift
    if drift is not None:
        text = f"weights decay within {drift:g} steps"
        add(NOISE, "drift", text, "weight", drift=drift)


def _finer(chip: Chip) -> float:
    """LSB of a 14-bit read-out in one of the chip's own."""
    return float(2.0 ** (MAX_BITS - adc_bits(chip)))
