"""As many classes as there may be: where all outputs are equal, all are as likely."""

from __future__ import annotations

import numpy as np
import pytest

from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.network import MAX_CLASSES, Network
from hwgle.session import run

OUTPUTS = {
    "format": "hwgle/network/1",
    "name": "classes",
    "dt": 0.2,
    "inputs": 1,
    "loss": "cross_entropy",
    "beta": 1.0,
    "gamma": 0.0,
}


@pytest.mark.parametrize("classes", [2, 512, MAX_CLASSES])
@pytest.mark.parametrize("streams", [1, 16])
def test_the_target_error_of_equal_outputs(classes: int, streams: int) -> None:
    population = {"size": classes, "tau_m": 1.2, "tau_r": 1.2}
    layers = [{"name": "out", "phi": "linear", "populations": [population]}]
    network = Network.model_validate({**OUTPUTS, "layers": layers})
    weights = {"out.weight": np.full((classes, 1), 0.5), "out.bias": np.zeros(classes)}
    x = np.ones((3, streams, 1))
    y = np.arange(streams) % classes
    with Emulator() as body:
        result = run(body, network, Chip.load("ideal"), weights, x, y, record=("e",))
    expected = np.full((streams, classes), -1 / classes)
    expected[np.arange(streams), y] += 1
    # 14 bits of errors up to 1: a step is 2^-13, and one more for the exponential's table.
    assert np.abs(result.signals["out.e"][1] - expected).max() <= 2.0**-13
