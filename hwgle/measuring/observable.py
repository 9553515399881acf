"""What a measurement through read-outs alone cannot tell, and how much that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwgle.chip import Profile
from hwgle.measuring import regression

if TYPE_CHECKING:
    from hwgle.measuring.calibration import Calibration
    from hwgle.measuring.estimates import LayerEstimates

# name of an estimate -> how people call it, and its spread on the data sheet
WORDS = {
    "gain": "gains",
    "offset": "offsets",
    "readout_offset": "offsets of the read-out",
    "tau_m": "tau_m",
    "tau_r": "tau_r",
}
FEW_BITS = 18  # of a membrane, below which its rounding is seen
UNKNOWN = 0.5  # share of the data sheet's spread: an error above it is next to no knowledge


def spread(profile: Profile, name: str) -> float:
    """Standard deviation of a quantity on the data sheet."""
    return {
        "gain": float(np.hypot(profile.activation.gain, profile.readout.gain)),
        "activation_gain": profile.activation.gain,
        "readout_gain": profile.readout.gain,
        "offset": profile.activation.offset,
        "readout_offset": profile.readout.offset,
        "tau_m": profile.leak.mismatch,
        "tau_r": profile.leak.mismatch,
        "synapse": profile.weight.mismatch,
        "input_gain": profile.input.gain,
        "input_offset": profile.input.offset,
    }[name]


def not_observable(calibration: Calibration, profile: Profile) -> list[str]:
    """A sentence for each."""
    lines = []
    dead = sum(int(own.dead.sum()) for own in calibration.layers)
    if dead:
        lines.append(
            f"{_count(dead, 'dead neuron')}: nothing of them but the read-out's offset, and "
            "nothing of the synapses to and from them; none of it matters"
        )
    a, r = profile.activation.gain, profile.readout.gain
    if a > 0 and r > 0:
        error = np.median(np.concatenate([y.readout_gain.error for y in calibration.layers]))
        lines.append(
            "gain of an activation and of its read-out apart: only their product is seen; split "
            f"by the data sheet and by what the next layer receives, to {100 * error:.1f} %"
        )
    if profile.input.gain > 0 and profile.weight.mismatch > 0:
        error = float(np.median(calibration.input_gain.error))
        lines.append(
            "gain of an input DAC and what all its synapses have in common: split by the data "
            f"sheet, to {100 * error:.1f} %; their products are measured"
        )
    for name, words in WORDS.items():
        sd = spread(profile, name)
        if sd > 0 and (name != "tau_r" or not profile.leak.tracks):
            count = sum(_unknown(own, name, sd) for own in calibration.layers)
            if count:
                lines.append(f"{words} of {_count(count, 'living neuron')}: hardly better known "
                             "than from the data sheet")  # fmt: skip
    lines += _synapses(calibration, profile)
    if profile.leak.mismatch > 0 and profile.leak.tracks:
        lines.append(
            "time constants of instantaneous neurons (tau_m = tau_r) at work: they have no effect "
            "there; the factors are those measured at 9 and 3 steps"
        )
    if profile.membrane.bits < FEW_BITS:
        lines.append(
            f"what {profile.membrane.bits} bits of a membrane round away: it stops where a step of "
            "its leak is less than half an LSB, which looks like offsets and time constants"
        )
    noise = (profile.membrane.noise, profile.readout.noise, profile.error.noise)
    if any(n > 0 for n in noise) or profile.plasticity.update_noise > 0:
        lines.append("noise in time: the data sheet's is taken; no correction can help it")
    return lines


def _unknown(own: LayerEstimates, name: str, sd: float) -> int:
    return int(np.sum((getattr(own, name).error > UNKNOWN * sd) & ~own.dead))


def _synapses(calibration: Calibration, profile: Profile) -> list[str]:
    sd = profile.weight.mismatch
    count = total = 0
    for own in calibration.layers:
        if own.synapse is not None and own.stuck is not None and sd > 0:
            living = (own.stuck == regression.NORMAL) & ~own.dead[:, None]
            count += int(np.sum((own.synapse.error > UNKNOWN * sd) & living))
            total += int(living.sum())
    if not count:
        return []
    return [
        f"gains of {count} of {total} synapses of living neurons: hardly better known than "
        "from the data sheet"
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number > 1 else "")
