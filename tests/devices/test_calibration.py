"""Calibration of planted chips behind a wire: the bits of the emulator, the values planted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hwgle.calibrate import calibrate
from hwgle.chip import Chip
from hwgle.devices import open_device
from hwgle.identity import draw, factors
from hwgle.measuring import Calibration, measure_chip, residuals
from hwgle.measuring.bench import nominal
from hwgle.measuring.twin import builder
from hwgle.network import Network
from hwgle.weights import initial

BODIES = [
    pytest.param("host:", marks=pytest.mark.board("cc")),
    pytest.param("qemu:stm32f405", marks=pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")),
]
NETWORK = Network.model_validate(
    {
        "format": "hwgle/network/1",
        "name": "bench",
        "dt": 0.1,
        "inputs": 2,
        "loss": "mse",
        "layers": [
            {
                "name": "hidden",
                "phi": "tanh",
                "populations": [
                    {"size": 4, "tau_m": 0.6, "tau_r": 0.2},
                    {"size": 3, "tau_m": 0.3, "tau_r": 0.3},
                ],
            },
            {
                "name": "out",
                "phi": "linear",
                "populations": [{"size": 4, "tau_m": 0.4, "tau_r": 0.1}],
            },
        ],
    }
)


def planted() -> Chip:
    """6-bit weights, 8-bit ADC, 10 % of mismatch in everything."""
    data = Chip.load("ideal").model_dump()
    data["weight"] |= {"bits": 6, "stored_bits": 6, "mismatch": 0.1, "stuck_zero": 0.05}
    data["input"] |= {"bits": 8, "offset": 1.0}
    data["leak"] |= {"mismatch": 0.1, "tracks": False}
    data["activation"] |= {"gain": 0.1, "offset": 0.1}
    data["readout"] |= {"bits": 8, "offset": 1.0}
    return Chip.model_validate({**data, "seed": 11})


CHIP = planted()


@cache
def on(url: str) -> Calibration:
    with open_device(url, shadow=False) as device:
        return measure_chip(device, CHIP, NETWORK)


@pytest.mark.parametrize("url", BODIES)
def test_a_board_is_measured_as_the_emulator(
    url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("calibration")
    on("emu:").save(folder / "emulator.npz")
    on(url).save(folder / "board.npz")
    assert (folder / "board.npz").read_bytes() == (folder / "emulator.npz").read_bytes()


@pytest.mark.parametrize("url", BODIES)
def test_planted_values_are_recovered(url: str) -> None:
    """Gains and time constants within 2 %, offsets within a tenth of the ADC's LSB (of the
    read-out) and 2 % of a network unit, synapses within 2 % rms."""
    draws = draw(CHIP, NETWORK)
    for own, there in zip(on(url).layers, draws.layers, strict=True):
        assert np.abs(own.gain.value / there.activation_gain - 1).max() < 0.02
        assert np.abs(own.tau_m.value / there.tau_m - 1).max() < 0.02
        assert np.abs(own.tau_r.value / there.tau_r - 1).max() < 0.02
        assert np.abs(own.offset.value - there.offset).max() < 0.002
        assert np.abs(own.readout_offset.value - there.readout_offset).max() < 0.1
        assert own.synapse is not None
        assert there.gain is not None
        want = factors(there.gain)
        assert np.array_equal(np.isnan(own.synapse.value), np.isnan(want))
        assert np.sqrt(np.nanmean((own.synapse.value - want) ** 2)) < 0.02


@pytest.mark.parametrize("url", BODIES)
def test_the_twin_predicts_a_board(url: str) -> None:
    """Unseen streams, at least 20 dB better than the emulator without calibration."""
    weights = initial(NETWORK, 5, gain=1.5)
    t = np.arange(200)[:, None, None]
    x = np.sin(t * np.array([0.11, 0.23]) + np.array([[0.0, 1.0], [2.0, 4.0]]))
    scales = calibrate(NETWORK, nominal(CHIP.profile), weights, x)
    twin = on(url).twin(CHIP.profile)
    with open_device(url, shadow=False) as device:
        left = residuals(device, builder(CHIP), twin, NETWORK, weights, scales, x)
    for one in left:
        assert one.better > 20, one


@pytest.mark.board("cc")
def test_a_shadowed_board_is_measured() -> None:
    """Biases alone travel to the board; the emulator beside it agrees in every bit."""
    chip = CHIP.model_copy(update={"input": CHIP.input.model_copy(update={"offset": 0.0})})
    with open_device("host:") as device, open_device("emu:") as emulator:
        got, want = (measure_chip(body, chip, NETWORK) for body in (device, emulator))
        assert device.digest() == emulator.digest()
    assert np.array_equal(got.layers[0].gain.value, want.layers[0].gain.value)
