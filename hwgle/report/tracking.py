"""A trained network on a chip next to float64 on series: errors, SQNR, saturations, digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwgle import prediction
from hwgle.accuracy import sqnr
from hwgle.chip import Chip
from hwgle.device import Device
from hwgle.health import Health
from hwgle.measuring import Calibration, prepare
from hwgle.network import Network
from hwgle.prediction import Fit
from hwgle.report.comparison import Progress, effective_bits
from hwgle.report.floats import FloatPool
from hwgle.session import calibrate_on, run
from hwgle.tasks import SeriesTask
from hwgle.weights import Weights


@dataclass(frozen=True)
class Tracking:
    """As `hwgle.report.comparison.Comparison`, of a test split of series.

    chip, floating: see `hwgle.prediction.Fit`; sqnr and bits over all steps of the run.
    steps: of a stream, those that do not count among them.
    """

    chip: Fit
    floating: Fit | None
    sqnr: float | None
    bits: float | None
    digest: str
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


def track(
    device: Device,
    network: Network,
    chip: Chip,
    weights: Weights,
    task: SeriesTask,
    pool: FloatPool | None,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
) -> Tracking:
    """Run the test split on a chip, and in float64 if there is a pool to do so.

    Scales come from training data. `calibration`: of this chip; what it can correct is
    corrected, in float64 nothing is.

    Raises:
        UsageError: series that do not fit the network.
    """

    def say(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(what, done, total) if progress else None

    prediction.check(task, network.inputs, network.outputs)
    x, target = prediction.judged(task, task.test)
    train = np.swapaxes(task.train.x, 0, 1)
    waiting = None if pool is None else pool.outputs(network, weights, x)
    prepared = None
    if calibration is None:
        scales = calibrate_on(network, chip, weights, train, None)
    else:
        prepared = prepare(
            calibration, chip, network, weights,
            lambda n, w: calibrate_on(n, chip, w, train, None),
        )  # fmt: skip
        network, weights, scales = prepared.network, prepared.weights, prepared.scales
    inputs = np.swapaxes(x, 0, 1)
    result = run(device, network, chip, weights, inputs, scales=scales, progress=say("chip"))
    if prepared is not None:
        result = prepared.result(result)
    output = result.signals["output"]
    floating = ratio = None
    if waiting is not None:
        reference = waiting.get(say("float64"))
        ratio = sqnr(reference, output)
        floating = prediction.fit(reference, target)
    counters = result.counters
    return Tracking(
        chip=prediction.fit(output, target),
        floating=floating,
        sqnr=ratio,
        bits=None if ratio is None else effective_bits(ratio),
        digest=f"{result.digest:016x}",
        streams=len(x),
        steps=x.shape[1],
        layers=tuple(layer.name for layer in network.layers),
        clipped_rates=tuple(c["sat_r"] for c in counters),
        clipped_membranes=tuple(c["sat_x"] + c["sat_uhat"] for c in counters),
        values=tuple(c["steps"] for c in counters),
        clipped_input=result.clipped_input,
        clipped_weights=result.clipped_weights,
        health=result.health,
    )
