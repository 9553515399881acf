"""The whole measurement of a chip, from the first sweep to a `Calibration`."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgle.chip import Chip, Profile
from hwgle.device import Device
from hwgle.identity import identity_hash
from hwgle.measured import shape_hash
from hwgle.measuring import neurons, synapses
from hwgle.measuring.bench import Bench, Build, Floats, Progress, curve
from hwgle.measuring.calibration import Calibration, Curve
from hwgle.measuring.estimates import (
    Estimate,
    input_gains,
    input_offsets,
    layer_estimates,
    pushed_by,
    readout_gains,
)
from hwgle.measuring.neurons import GAIN, OFFSET, NeuronFit, Sweep
from hwgle.measuring.synapses import SynapseFit
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
    tick = _Ticks(bench, effort, progress)
    sweeps = _neuron_sweeps(bench, effort, rng, tick)
    fits = []
    for k, layer in enumerate(network.layers):
        fits.append(neurons.fit(layer.phi, sweeps[k], bench))
        tick()
    links = _synapse_sweeps(bench, fits, effort, rng, tick)
    return _collect(bench, fits, links, sweeps, identity)


class _Ticks:
    """Progress in parts of equal worth, about."""

    def __init__(self, bench: Bench, effort: int, progress: Progress | None) -> None:
        count = len(bench.network.layers)
        self._total = 6 * count + 1
        self._done, self._progress = 0, progress

    def __call__(self, parts: int = 1) -> None:
        self._done = min(self._done + parts, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)


def _neuron_sweeps(
    bench: Bench, effort: int, rng: np.random.Generator, tick: _Ticks
) -> list[list[Sweep]]:
    """All layers at once; where synapses may be stuck on, every other layer rests."""
    count = len(bench.network.layers)
    groups = [list(range(count))]
    if bench.profile.weight.stuck_full > 0 and count > 1:
        groups = [list(range(0, count, 2)), list(range(1, count, 2))]
    levels = neurons.LEVELS * effort * (2 if bench.noisy else 1)
    sweeps: list[list[Sweep]] = [[] for _ in range(count)]
    ranges = [(0, levels)]
    if bench.profile.readout.offset > 0:
        ranges.append((neurons.COARSER, levels // 2))
    for coarser, many in ranges:
        for group in groups:
            for k, s in neurons.sweep(bench, group, coarser, many, rng).items():
                sweeps[k].append(s)
            tick(len(group))
    return sweeps


def _synapse_sweeps(
    bench: Bench, fits: list[NeuronFit], effort: int, rng: np.random.Generator, tick: _Ticks
) -> list[SynapseFit | None]:
    result: list[SynapseFit | None] = [None] * len(fits)
    for parity in (0, 1):
        layers = [k for k in range(parity, len(fits), 2) if synapses.needed(bench.profile, k)]
        if not layers:
            continue
        plans = {k: synapses.plan(bench, k, rng) for k in layers}
        answers = synapses.sweep(bench, layers, plans, fits, effort, rng)
        tick(2 * len(layers))
        for k in layers:
            result[k] = synapses.fit(bench, k, plans[k], answers[k], fits[k])
            tick()
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
            _curve(s[0], f, y.phi) for s, f, y in zip(sweeps, fits, network.layers, strict=True)
        ),
        facts=_facts(profile, bench),
    )


def _curve(s: Sweep, fit: NeuronFit, phi: str) -> Curve:
    """The static curve as read at the end of each level, for those who want to see it."""
    return Curve(phi, s.span.lsb, s.bias, s.rate[:, -1], fit.value[:, [GAIN, OFFSET]])


def _facts(profile: Profile, bench: Bench) -> dict[str, Any]:
    return {
        "profile": profile.name,
        "adc_bits": profile.rate.bits - bench.chip.adc_drop,
        "lsb": [bench.range(k).lsb for k in range(len(bench.network.layers))],
    }
