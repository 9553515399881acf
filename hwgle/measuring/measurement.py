"""The whole measurement of a chip, from the first sweep to a `Calibration`."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgle.chip import Chip, Profile
from hwgle.device import Device
from hwgle.identity import identity_hash
from hwgle.measured import shape_hash
from hwgle.measuring import neurons, regression, synapses
from hwgle.measuring.bench import Bench, Build, Floats, Progress, curve
from hwgle.measuring.calibration import DB_MAX, Calibration, Curve
from hwgle.measuring.estimates import (
    Estimate,
    input_gains,
    input_offsets,
    layer_estimates,
    pushed_by,
    readout_gains,
)
from hwgle.measuring.neurons import GAIN, OFFSET, READOUT, NeuronFit, Sweep
from hwgle.measuring.regression import SynapseFit
from hwgle.network import Network
from hwgle.quantise import build_image

SEED = 20251122  # of the order of levels and patterns: every measurement has the same


def measure_chip(
    device: Device,
    chip: Chip,
    network: Network,
    *,
    effort: int = 1,
    progress: Progress | None = None,
) -> Calibration:
    """Measure the chip on a device, its images built for `chip`; see `measure`."""
    return measure(
        device,
        lambda n, s: build_image(n, chip, s),
        chip.profile,
        network,
        identity=identity_hash(chip),
        effort=effort,
        progress=progress,
    )


def measure(
    device: Device,
    build: Build,
    profile: Profile,
    network: Network,
    *,
    identity: str = "",
    effort: int = 1,
    progress: Progress | None = None,
) -> Calibration:
    """Stimulate and read a chip until everything individual that shows is known.

    build: powers the chip up with other time constants and ranges. profile: its data sheet;
    what has no spread there is taken as designed. identity: hash under which the result is
    stored. effort: times as many levels and patterns; errors go with its root. The device
    is left with whatever was measured last: load it anew.
    Raises DeviceError when the device fails, UsageError when it cannot be built.
    """
    bench = Bench(device, build, profile, network)
    rng = np.random.default_rng(SEED)
    if progress is not None:
        total = _steps(bench, effort)
        bench.tell = lambda done: progress(done, total)
    sweeps = _neuron_sweeps(bench, effort, rng)
    fits = [neurons.fit(bench, k, own) for k, own in enumerate(sweeps)]
    links = _synapse_sweeps(bench, fits, effort, rng)
    return _collect(bench, fits, links, sweeps, identity)


def _steps(bench: Bench, effort: int) -> int:
    """Steps that the measurement takes."""
    static = sum(many for _, many in _ranges(bench, effort)) * neurons.HOLD
    groups = [g for g in _every_other(bench) if g]
    return len(_groups(bench)) * static + sum(synapses.steps(bench, g, effort) for g in groups)


def _groups(bench: Bench) -> list[list[int]]:
    """Layers that are swept at once: all; where synapses may be stuck on, every other one."""
    count = len(bench.network.layers)
    if bench.profile.weight.stuck_full > 0 and count > 1:
        return [list(range(0, count, 2)), list(range(1, count, 2))]
    return [list(range(count))]


def _ranges(bench: Bench, effort: int) -> list[tuple[int, int]]:
    """Bits by which the ADC's range is widened, and levels swept in it."""
    levels = neurons.LEVELS * effort * (2 if bench.noisy else 1)
    if bench.profile.readout.offset > 0:
        return [(0, levels), (neurons.COARSER, levels // 2)]
    return [(0, levels)]


def _every_other(bench: Bench) -> list[list[int]]:
    """Layers whose synapses are measured at once."""
    count = len(bench.network.layers)
    return [
        [k for k in range(first, count, 2) if synapses.needed(bench.profile, k)] for first in (0, 1)
    ]


def _neuron_sweeps(bench: Bench, effort: int, rng: np.random.Generator) -> list[list[Sweep]]:
    sweeps: list[list[Sweep]] = [[] for _ in bench.network.layers]
    for coarser, many in _ranges(bench, effort):
        for group in _groups(bench):
            for k, s in neurons.sweep(bench, group, coarser, many, rng).items():
                sweeps[k].append(s)
    return sweeps


def _synapse_sweeps(
    bench: Bench, fits: list[NeuronFit], effort: int, rng: np.random.Generator
) -> list[SynapseFit | None]:
    result: list[SynapseFit | None] = [None] * len(fits)
    for layers in _every_other(bench):
        if not layers:
            continue
        plans = {k: synapses.plan(bench, k, rng) for k in layers}
        answers = synapses.sweep(bench, layers, plans, fits, effort, rng)
        for k in layers:
            result[k] = regression.fit(bench, k, plans[k], answers[k], fits[k])
    return result


def _collect(
    bench: Bench,
    fits: list[NeuronFit],
    links: list[SynapseFit | None],
    sweeps: list[list[Sweep]],
    identity: str,
) -> Calibration:
    profile, network = bench.profile, bench.network
    lsb = 2.0**-bench.input_frac
    first = links[0]
    m = network.inputs
    gain, offset = Estimate(np.ones(m), np.zeros(m)), Estimate(np.zeros(m), np.zeros(m))
    if first is not None:
        gain = input_gains(profile, first)
        offset = input_offsets(profile, first, gain, lsb)
    full = bench.chip.weight_max * 2.0 ** -neurons.idle_frac(bench)
    layers = []
    common = gain
    below: Floats = offset.value * lsb  # rates at rest, of what is below
    for k, own in enumerate(fits):
        above = links[k + 1] if k + 1 < len(links) else None
        pushed = np.zeros(len(own.value)) + pushed_by(profile, links, k, below, full)
        layers.append(layer_estimates(profile, own, pushed, links[k], above, common))
        activation, readout = readout_gains(profile, own, above)
        phi = network.layers[k].phi
        rest = curve(phi, neurons.quiet(phi) + own.value[:, OFFSET])[0]
        below = activation.value * rest
        common = Estimate(1.0 / readout.value, readout.error / readout.value**2)
    return Calibration(
        identity=identity,
        network=shape_hash(network),
        sizes=(network.inputs, *network.sizes),
        names=tuple(layer.name for layer in network.layers),
        steps=bench.steps,
        layers=tuple(layers),
        input_gain=gain,
        input_offset=offset,
        curves=tuple(
            _curve(profile, s[0], f, y.phi)
            for s, f, y in zip(sweeps, fits, network.layers, strict=True)
        ),
        facts=_facts(bench, fits, sweeps),
    )


def _curve(profile: Profile, s: Sweep, fit: NeuronFit, phi: str) -> Curve:
    """The static curve as read at the end of each level, for those who want to see it."""
    u = neurons.membranes(s.bias, fit.value, neurons.timing(profile), s.rate.shape[1])[0][:, -1]
    return Curve(phi, s.span.lsb, u, s.rate[:, -1], fit.value[:, [GAIN, OFFSET, READOUT]])


def _facts(bench: Bench, fits: list[NeuronFit], sweeps: list[list[Sweep]]) -> dict[str, Any]:
    """sweep_db: per layer, how well the design and the fit explain the sweep."""
    profile = bench.profile
    explained = [
        [neurons.explained(y.phi, s[0], value, profile) for value in (neurons.design(f), f.value)]
        for y, s, f in zip(bench.network.layers, sweeps, fits, strict=True)
    ]
    return {
        "profile": profile.name,
        "adc_bits": profile.rate.bits - bench.chip.adc_drop,
        "sweep_db": [[round(max(-DB_MAX, min(db, DB_MAX)), 2) for db in p] for p in explained],
    }
