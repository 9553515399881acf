"""What is individual in one chip: every imperfection in words, and what was drawn of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import STATE_BITS, Chip
from hwgle.identity import draw, factors, stuck
from hwgle.measured import MeasuredLayer
from hwgle.network import Network
from hwgle.packing import built

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One imperfection of neurons (or inputs) as drawn.

    values: per layer (n,), deviations from what was designed in `unit`. spread: sd that the
    profile says, in the same unit; None where it says none (measured, or a DAC's steps).
    low, high: per layer (n,), where values are means over a neuron's synapses: range of the
    middle 90 % of them, and spread is of one synapse.
    """

    name: str
    unit: str
    values: tuple[Floats, ...]
    spread: float | None = None
    low: tuple[Floats, ...] = ()
    high: tuple[Floats, ...] = ()

    def all(self) -> Floats:
        """Of all layers, one after another."""
        return np.concatenate(self.values)


class Worst(NamedTuple):
    """A neuron far from design. score: rms of its deviations, each in standard deviations
    of its kind over the chip (infinite: dead). kind, most: the largest of them, its name and
    all of it in words."""

    layer: str
    neuron: int
    score: float
    kind: str
    most: str


def quantities(chip: Chip, network: Network) -> list[Quantity]:
    """What differs between this chip's neurons; nothing for an ideal one."""
    draws = draw(chip, network)
    taus = built(network, chip, draws)
    m, found = chip.measured, []

    def add(name: str, unit: str, values: Sequence[Floats], spread: float | None) -> None:
        if any(np.any(v != 0) for v in values):
            found.append(Quantity(name, unit, tuple(values), spread))

    if chip.synapses_differ:
        found += _synapses(chip, network)
    leak = chip.leak
    known = None if leak.bits is not None or m.has("tau_m", "tau_r") else 100 * leak.mismatch
    layers = list(zip(network.layers, taus, strict=True))
    tau_m = [100 * (t.tau_m / y.tau_m - 1) for y, t in layers]
    tau_r = [100 * (t.tau_r / y.tau_r - 1) for y, t in layers]
    add("tau_m as built", "%", tau_m, known)
    if not leak.tracks or leak.bits is not None or m.has("tau_r"):
        add("tau_r as built", "%", tau_r, known)
    a, r = chip.activation, chip.readout
    own = draws.layers
    gain = [100 * (d.activation_gain - 1) for d in own]
    add("activation gain", "%", gain, None if m.has("activation_gain") else 100 * a.gain)
    offset = [d.activation_offset for d in own]
    add("activation offset", "units", offset, None if m.has("activation_offset") else a.offset)
    gain = [100 * (d.readout_gain - 1) for d in own]
    add("ADC gain", "%", gain, None if m.has("readout_gain") else 100 * r.gain)
    offset = [d.readout_offset for d in own]
    add("ADC offset", "LSB", offset, None if m.has("readout_offset") else r.offset)
    return found


def input_quantities(chip: Chip, network: Network) -> list[Quantity]:
    """The same of the input DACs, (inputs,)."""
    draws = draw(chip, network)
    m = chip.measured
    gain, offset = 100 * (draws.input_gain - 1), draws.input_offset
    found = [
        Quantity("input gain", "%", (gain,), None if m.input_gain else 100 * chip.input.gain),
        Quantity("input offset", "LSB", (offset,), None if m.input_offset else chip.input.offset),
    ]
    return [q for q in found if np.any(q.all() != 0)]


def _synapses(chip: Chip, network: Network) -> list[Quantity]:
    """Gains of each neuron's synapses: their mean and their range; the share that is stuck."""
    mean: list[Floats] = []
    low: list[Floats] = []
    high: list[Floats] = []
    fixed: list[Floats] = []
    for own in draw(chip, network).layers:
        assert own.gain is not None
        off = 100 * (np.nan_to_num(factors(own.gain), nan=1.0) - 1)
        mean.append(off.mean(axis=1))
        low.append(np.percentile(off, 5, axis=1))
        high.append(np.percentile(off, 95, axis=1))
        fixed.append(100 * stuck(own.gain).mean(axis=1))
    spread = None if chip.measured.has("synapse_gain") else 100 * chip.weight.mismatch
    gain = Quantity("synapse gain", "%", tuple(mean), spread, tuple(low), tuple(high))
    share = Quantity("stuck synapses", "%", tuple(fixed), None)
    return [q for q in (gain, share) if any(np.any(v != 0) for v in q.values)]


def dead_neurons(chip: Chip, network: Network) -> list[NDArray[np.bool_]]:
    """Which neurons are dead, per layer (n,)."""
    return [own.dead for own in draw(chip, network).layers]


def synapse_deviations(chip: Chip, network: Network) -> list[Floats]:
    """Of each layer, what every synapse's gain is off, in %; stuck ones left out."""
    result = []
    for own in draw(chip, network).layers:
        if own.gain is not None:
            result.append(100 * (factors(own.gain[~stuck(own.gain)]) - 1))
    return result


def worst(chip: Chip, network: Network, count: int) -> list[Worst]:
    """The neurons furthest from design, the furthest first."""
    found = quantities(chip, network)
    if not found:
        return []
    scales = [float(np.sqrt(np.mean(np.square(q.all())))) or 1.0 for q in found]
    dead = dead_neurons(chip, network)
    result = []
    for k, layer in enumerate(network.layers):
        z = np.array([q.values[k] / s for q, s in zip(found, scales, strict=True)])
        score = np.where(dead[k], np.inf, np.sqrt(np.mean(np.square(z), axis=0)))
        for i in np.argsort(-score, kind="stable")[:count].tolist():
            most = int(np.abs(z[:, i]).argmax())
            q = found[most]
            text = "dead" if dead[k][i] else f"{q.name} {signed(q.values[k][i])} {q.unit}"
            result.append(Worst(layer.name, i, float(score[i]), q.name, text))
    result.sort(key=lambda w: -w.score)
    return result[:count]


def signed(value: float) -> str:
    """Three significant digits with a sign: +5.12, -0.034, 0."""
    return f"{value:+.3g}" if value else "0"


# --- in words ----------------------------------------------------------------------------------


def in_words(chip: Chip) -> list[tuple[str, str]]:
    """Each part of the chip and what is not ideal in it."""
    w, leak, a, r, p = chip.weight, chip.leak, chip.activation, chip.readout, chip.plasticity
    scale = "one scale for each neuron" if w.scale == "neuron" else "one scale for a layer"
    weights = [f"{w.bits} bits ({w.stored_bits} stored), {scale}"]
    weights += _spread("gain", w.mismatch, f", {w.distribution}")
    weights += _share("stuck at 0", w.stuck_zero) + _share("stuck at full scale", w.stuck_full)
    weights += [f"decay with a time constant of {w.drift:g} steps"] if w.drift else []
    inputs = [f"{chip.input.bits} bits", *_spread("gain", chip.input.gain)]
    inputs += _sd("offset", chip.input.offset, "LSB")
    bits = "analog or wide" if chip.membrane.bits == STATE_BITS else f"{chip.membrane.bits} bits"
    membrane = [bits, *_rms(chip.membrane.noise, "network units")]
    membrane += [f"range {chip.membrane.range:g}"] if chip.membrane.range else []
    set_by = "tau set exactly" if leak.bits is None else f"tau set by a DAC of {leak.bits} bits"
    tracks = ", tau_r follows tau_m" if leak.tracks else ", tau_m and tau_r each"
    activation = _spread("gain", a.gain) + _sd("offset", a.offset, "network units")
    activation += _share("dead", a.dead)
    noise = [f"noise {100 * chip.error.noise:.3g} % of full scale"] if chip.error.noise else []
    readout = [f"{r.bits or chip.rate.bits} bits", *_spread("gain", r.gain)]
    readout += _sd("offset", r.offset, "LSB") + _rms(r.noise, "LSB")
    updates = [f"{p.rounding} rounding"]
    updates += [f"an update has {p.update_bits} bits"] if p.update_bits else []
    updates += _spread("noise", p.update_noise, " of the update")
    return [
        ("weights", "; ".join(weights)),
        ("inputs", "; ".join(inputs)),
        ("membranes", "; ".join(membrane)),
        ("leak", "; ".join([set_by, *_spread("tau", leak.mismatch, tracks)])),
        ("activation", "; ".join([f"rates of {chip.rate.bits} bits", *activation])),
        ("errors", "; ".join([f"{chip.error.bits} bits", *noise])),
        ("read-out", "; ".join(readout)),
        ("plasticity", "; ".join(updates)),
        *_twin(chip),
    ]


def _twin(chip: Chip) -> list[tuple[str, str]]:
    names = [name for name in MeasuredLayer.model_fields if chip.measured.has(name)]
    names += [n for n in ("input_gain", "input_offset") if getattr(chip.measured, n)]
    return [("measured", ", ".join(names))] if names else []


def _spread(name: str, sd: float, more: str = "") -> list[str]:
    return [f"{name} sd {100 * sd:.3g} %{more}"] if sd else []


def _sd(name: str, sd: float, unit: str) -> list[str]:
    return [f"{name} sd {sd:.3g} {unit}"] if sd else []


def _rms(noise: float, unit: str) -> list[str]:
    return [f"noise {noise:.3g} {unit} rms"] if noise else []


def _share(name: str, share: float) -> list[str]:
    return [f"{100 * share:.3g} % {name}"] if share else []
