"""Calibration as a bench does it, through the device alone: stimulate, read, estimate, correct.

bench.py        the chip on the bench: all that can be done to it and seen of it
neurons.py      offset, gain, time constants and read-out of every neuron
synapses.py     patterns from below, answers above
regression.py   gain of every synapse, stuck ones, input DACs
estimates.py    from products of gains to gains
measurement.py  the whole measurement
calibration.py  its result, and the file of it
running.py      a run with the corrections in force
corrections.py  what to ask of the chip instead
twin.py         the identity that makes the emulator behave like it
"""

from hwgle.measuring.calibration import Calibration
from hwgle.measuring.corrections import Corrected, Readout
from hwgle.measuring.estimates import Estimate, LayerEstimates
from hwgle.measuring.measurement import measure, measure_chip
from hwgle.measuring.running import Prepared, prepare
from hwgle.measuring.twin import Residual, residuals, twin_of

__all__ = [
    "Calibration",
    "Corrected",
    "Estimate",
    "LayerEstimates",
    "Prepared",
    "Readout",
    "Residual",
    "measure",
    "measure_chip",
    "prepare",
    "residuals",
    "twin_of",
]
