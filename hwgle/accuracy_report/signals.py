"""Signals of all layers, segment by segment: of the float64 reference and of chips.

`dW` is the direction of ascent of every step for every stream by itself, e below^T: an outer
product, kept as its two factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy_report.material import Material
from hwgle.calibrate import (
    FOR_RUN,
    INPUT_RANGE,
    Margins,
    Peaks,
    fraction,
    input_fraction,
    measure,
    scales_from,
    seen_weights,
    weight_scales,
)
from hwgle.chip import Chip, Readout
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.identity import draw
from hwgle.measured import Measured
from hwgle.network import Network
from hwgle.quantise import Image, Scales, build_image, quantise_weights, to_int16
from hwgle.reference import Reference
from hwgle.session import CALIBRATION_STEPS, CALIBRATION_STREAMS
from hwgle.weights import Weights

RECORDED = ("u", "uhat", "r", "e")
SIGNALS = (*RECORDED, "dW")
NAMES = {
    "u": "membrane u",
    "uhat": "prospective û",
    "r": "rate r",
    "e": "error e",
    "dW": "update dW",
}
Values = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass
class Segment:
    """One segment: per layer and recorded signal (steps, B, n) float32 in network units.

    below: per layer what its synapses were given at each step, (steps, B, m).
    """

    signals: dict[tuple[int, str], Values]
    below: list[Values]


def float_segments(
    network: Network, weights: Weights, material: Material, progress: Progress | None = None
) -> list[Segment]:
    """The reference on the material, all segments."""
    oracle = Reference(network, weights, material.streams)
    states = list(oracle.state.values())
    found = []
    for k in range(material.segments):
        x, target = material.segment(k)
        segment = Segment(
            {
                (i, s): np.empty((len(x), *getattr(state, s).shape), dtype=np.float32)
                for i, state in enumerate(states)
                for s in RECORDED
            },
            [np.empty((len(x), *x.shape[1:]), dtype=np.float32)]
            + [np.empty((len(x), *state.r.shape), dtype=np.float32) for state in states[:-1]],
        )
        for t in range(len(x)):
            y = target
            if target is not None and network.loss == "mse":
                y = target[t]
            oracle.step(x[t], y)
            for (i, s), values in segment.signals.items():
                values[t] = getattr(states[i], s)
            for i, values in enumerate(segment.below[1:]):
                values[t] = states[i].r_old
        segment.below[0][:] = x
        found.append(segment)
        if progress is not None:
            progress(k + 1, material.segments)
    return found


class Basis:
    """What scales are calibrated on: inputs (T, B, inputs) and targets, never those judged.

    As `hwgle.session.calibrate_on`, with the peaks of each array of synapses measured once.
    """

    def __init__(
        self,
        network: Network,
        weights: Weights,
        x: NDArray[np.floating[Any]],
        target: NDArray[Any] | None,
    ) -> None:
        self.x = np.asarray(x[:CALIBRATION_STEPS, :CALIBRATION_STREAMS], dtype=np.float64)
        self.all, self.target = x, target
        if target is not None:
            both = network.loss == "mse"
            self.target = target[:CALIBRATION_STEPS, :CALIBRATION_STREAMS] if both else (
                target[:CALIBRATION_STREAMS]
            )
        self.network, self.weights = network, weights
        self._peaks: dict[Any, Peaks] = {}

    def scales(self, chip: Chip, margins: Margins = FOR_RUN) -> Scales:
        """Scales of a chip."""
        own = weight_scales(self.network, chip, self.weights)
        found = scales_from(
            self.network, chip, own, input_fraction(chip, self.all), self.peaks(chip, own), margins
        )
        if self.target is not None and self.network.loss == "mse":
            peak = float(np.nanmax(np.abs(self.target), initial=0.0))
            found = replace(found, target=min(15, fraction(32767, peak, *INPUT_RANGE)))
        return found

    def peaks(self, chip: Chip, scales: list[tuple[int, tuple[int, ...]]]) -> Peaks:
        """Largest values with the synapses of this chip."""
        w = chip.weight
        stuck = (w.bits, w.scale) if w.stuck_zero or w.stuck_full else ()
        key = (chip.seed, w.mismatch, w.distribution, w.stuck_zero, w.stuck_full, stuck,
               chip.measured != Measured())  # fmt: skip
        if key not in self._peaks:
            seen = seen_weights(self.network, chip, self.weights, scales)
            self._peaks[key] = measure(self.network, seen, self.x, self.target)
        return self._peaks[key]


def without_readout(chip: Chip) -> Chip:
    """The same chip, of which rates are read as they are. Nothing else in it changes."""
    measured = chip.measured
    if measured != Measured():
        layers = tuple(
            layer.model_copy(update={"readout_gain": (), "readout_offset": ()})
            for layer in measured.layers
        )
        measured = measured.model_copy(update={"layers": layers})
    return chip.model_copy(update={"readout": Readout(), "measured": measured})


class ChipRun:
    """One chip on the material, segment by segment; scales fixed.

    Where read-outs are not ideal a second emulator runs beside, whose rates are probed: what
    synapses are given does not go through the converter.
    """

    def __init__(
        self,
        network: Network,
        chip: Chip,
        weights: Weights,
        scales: Scales,
        streams: int,
        *,
        signals: tuple[str, ...] = RECORDED,
    ) -> None:
        """signals: what is recorded; with all of them `below` too."""
        self.network, self.chip, self.scales = network, chip, scales
        self._names, self._full = signals, signals == RECORDED
        self._read = self._start(chip, weights, streams)
        probed = without_readout(chip)
        self._probe = None
        if self._full and probed != chip:
            self._probe = self._start(probed, weights, streams)
        self._last: list[Values] | None = None

    def _start(self, chip: Chip, weights: Weights, streams: int) -> tuple[Emulator, Image]:
        image = build_image(self.network, chip, self.scales, batch=streams)
        emulator = Emulator()
        emulator.load(image, streams, uhat=self._full)
        emulator.write_weights(quantise_weights(image, weights))
        return emulator, image

    def segment(self, x: NDArray[np.float64], target: NDArray[Any] | None) -> Segment:
        """The next segment: x (steps, B, inputs), target as `Material.segment` gives it."""
        count = len(self.network.layers)
        codes, _ = to_int16(x, self.scales.input, self.chip.input_max)
        y = self._target(target)
        names = [s for s in self._names if s != "r"]
        if self._probe is None:
            signals = self._run(self._read[0], codes, y, self._names)
            rates = [signals[k, "r"] for k in range(count)]
        else:
            signals = self._run(self._read[0], codes, y, ("r",))
            more = self._run(self._probe[0], codes, y, self._names)
            rates = [more[k, "r"] for k in range(count)]
            signals |= {(k, s): more[k, s] for k in range(count) for s in names}
        if not self._full:
            return Segment(signals, [])
        below = [self._input(codes)]
        for k, r in enumerate(rates[:-1]):
            before = np.empty_like(r)
            before[1:] = r[:-1]
            before[0] = 0.0 if self._last is None else self._last[k]
            below.append(before)
        self._last = [r[-1].copy() for r in rates]
        return Segment(signals, below)

    def _target(self, target: NDArray[Any] | None) -> NDArray[np.int16] | None:
        if target is None:
            return None
        if self.network.loss == "cross_entropy":
            return target.astype(np.int16)
        return to_int16(target, self.scales.target, 32767)[0]

    def _run(
        self,
        emulator: Emulator,
        codes: NDArray[np.int16],
        y: NDArray[np.int16] | None,
        names: tuple[str, ...],
    ) -> dict[tuple[int, str], Values]:
        pairs = [(k, s) for k in range(len(self.network.layers)) for s in names]
        records = emulator.run(Block(codes, y, record=pairs))
        result = {}
        for (k, s), values in zip(pairs, records.signals, strict=True):
            own = self.scales.layers[k]
            frac = {"r": own.rate, "e": own.error}.get(s, own.membrane)
            result[k, s] = values.astype(np.float32) * np.float32(2.0**-frac)
        return result

    def _input(self, codes: NDArray[np.int16]) -> Values:
        """What the array is given: codes through the gains and offsets of the DACs."""
        x = codes.astype(np.float32)
        if self.chip.inputs_differ:
            own = draw(self.chip, self.network)
            x = x * own.input_gain.astype(np.float32) + own.input_offset.astype(np.float32)
        scaled: Values = x * np.float32(2.0**-self.scales.input)
        return scaled

    def counters(self) -> list[Mapping[str, int]]:
        """Of what ran so far, per layer."""
        counters: list[Mapping[str, int]] = list(self._read[0].counters())
        return counters


def lsb(network: Network, chip: Chip, scales: Scales, k: int, signal: str) -> float:
    """One LSB of a signal of layer k in network units: of the membrane, of the read-out's
    converter, of the error; of dW that of the product of an error and what is below."""
    own = scales.layers[k]
    below = scales.layers[k - 1].rate if k else scales.input
    frac = {
        "u": own.membrane,
        "uhat": own.membrane,
        "r": own.rate - chip.adc_drop,
        "e": own.error,
        "dW": own.error + below,
    }[signal]
    return float(2.0**-frac)

