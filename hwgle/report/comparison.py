"""A trained network on a chip next to float64: accuracy, SQNR, saturations, digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hwgle.accuracy import (
    OFFSET_SAMPLES,
    Score,
    Votes,
    chip_scales,
    chip_votes,
    in_streams,
    part,
    score,
    sqnr,
    sums,
)
from hwgle.chip import Chip
from hwgle.device import Device
from hwgle.health import Health
from hwgle.measuring import Calibration, prepare
from hwgle.network import Network
from hwgle.report.floats import FloatPool
from hwgle.session import run
from hwgle.tasks import Task
from hwgle.weights import Weights

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """What `hwgle eval` tells; accuracies of the test split, in 0..1.

    floating, sqnr (dB, outputs of all test streams and steps) and bits (effective bits of
    the output) are None where float64 was not asked for. clipped: per layer, values of
    rates and membranes that did not fit, out of `values`; clipped_input and
    clipped_weights: of the input and of the weights. steps: of a sample. digest: 16 hex
    digits. health: of the neurons, on the test split.
    """

    chip: Score
    floating: Score | None
    sqnr: float | None
    bits: float | None
    digest: str
    samples: int
    streams: int
    steps: int
    layers: tuple[str, ...]
    clipped_rates: tuple[int, ...]
    clipped_membranes: tuple[int, ...]
    values: tuple[int, ...]
    clipped_input: int
    clipped_weights: int
    health: Health

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self) | {"health": self.health.to_dict()}


def effective_bits(ratio: float) -> float:
    """Bits of an ideal converter with this SQNR in dB."""
    return (ratio - 1.76) / 6.02


def compare(
    device: Device,
    network: Network,
    chip: Chip,
    weights: Weights,
    task: Task,
    pool: FloatPool | None,
    progress: Progress | None = None,
    meanwhile: Callable[[], None] | None = None,
    calibration: Calibration | None = None,
) -> Comparison:
    """Classify the test split on a chip, and in float64 if there is a pool to do so.

    Scales come from training data, output offsets are fitted on its first samples.
    `calibration`: of this chip; what it can correct is corrected, in float64 nothing is.
    `meanwhile` is called while the pool is still busy with float64.
    """

    def say(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(what, done, total) if progress else None

    test, train = task.test, part(task.train, OFFSET_SAMPLES)
    if pool is not None:
        on_test = pool.outputs(network, weights, in_streams(test))
        on_train = pool.outputs(network, weights, in_streams(train))
    prepared = None
    if calibration is None:
        scales = chip_scales(network, chip, weights, task.train)
    else:
        prepared = prepare(
            calibration, chip, network, weights, lambda n, w: chip_scales(n, chip, w, task.train)
        )
        network, weights, scales = prepared.network, prepared.weights, prepared.scales
    x = np.swapaxes(in_streams(test), 0, 1)
    result = run(device, network, chip, weights, x, scales=scales, progress=say("chip"))
    fit = chip_votes(device, network, chip, weights, scales, train, say("chip, offsets"))
    if prepared is not None:
        result = prepared.result(result)
        fit = replace(fit, sums=prepared.votes(fit.sums, train.x.shape[1]))
    output = result.signals["output"]
    if meanwhile is not None:
        meanwhile()
    floating = ratio = None
    if pool is not None:
        reference = on_test.get(say("float64"))
        ratio = sqnr(reference, output)
        fit_float = Votes(sums(on_train.get(say("float64, offsets")), len(train)))
        floating = score(Votes(sums(reference, len(test))), test, fit_float, train)
    counters = result.counters
    return Comparison(
        chip=score(Votes(sums(output, len(test))), test, fit, train),
        floating=floating,
        sqnr=ratio,
        bits=None if ratio is None else effective_bits(ratio),
        digest=f"{result.digest:016x}",
        samples=len(test),
        streams=x.shape[1],
        steps=test.x.shape[1],
        layers=tuple(layer.name for layer in network.layers),
        clipped_rates=tuple(c["sat_r"] for c in counters),
        clipped_membranes=tuple(c["sat_x"] + c["sat_uhat"] for c in counters),
        values=tuple(c["steps"] for c in counters),
        clipped_input=result.clipped_input,
        clipped_weights=result.clipped_weights,
        health=result.health,
    )
