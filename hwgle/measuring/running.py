"""Running on a chip through its calibration: corrected on the way down and on the way up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwgle.chip import Chip
from hwgle.measuring.calibration import Calibration
from hwgle.measuring.corrections import Corrected
from hwgle.network import Network
from hwgle.quantise import Scales
from hwgle.session import Result
from hwgle.weights import Weights

Scaling = Callable[[Network, Weights], Scales]


@dataclass(frozen=True)
class Prepared:
    """What to run in place of a network and weights, and what to make of the rates read."""

    chip: Chip
    scales: Scales
    corrected: Corrected

    @property
    def network(self) -> Network:
        """With the time constants to ask for."""
        return self.corrected.network

    @property
    def weights(self) -> Weights:
        """To write."""
        return self.corrected.weights

    def _lsb(self, k: int, scales: Scales) -> float:
        return float(np.ldexp(1.0, self.chip.adc_drop - scales.layers[k].rate))

    def result(self, result: Result) -> Result:
        """The same with gain and offset of the read-out taken off the output and recorded rates.

        Where auto-ranging moved the formats of rates while learning, offsets are those of
        the formats at the end.
        """
        names = [layer.name for layer in self.network.layers]
        signals = dict(result.signals)
        for key, values in signals.items():
            layer = names[-1] if key == "output" else key.removesuffix(".r")
            if layer in names and (key == "output" or key.endswith(".r")):
                lsb = self._lsb(names.index(layer), result.scales)
                right = self.corrected.readouts[layer].apply(values, lsb)
                signals[key] = right.astype(np.float32)
        return replace(result, signals=signals)

    def votes(self, sums: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        """Outputs (..., outputs) summed over `steps` steps, as `result` would have them."""
        lsb = self._lsb(len(self.network.layers) - 1, self.scales)
        return self.corrected.readout.apply(sums, steps * lsb)


def prepare(
    calibration: Calibration, chip: Chip, network: Network, weights: Weights, scale: Scaling
) -> Prepared:
    """Corrections for a run. scale: formats of what is really run, see hwgle.calibrate.

    Raises FileMistakes where the calibration is of another chip or network.
    """
    calibration.check(chip, network)
    first = calibration.correct(network, weights)
    scales = scale(first.network, first.weights)
    lsb = float(np.ldexp(1.0, -scales.input))
    return Prepared(chip, scales, calibration.correct(network, weights, input_lsb=lsb))
