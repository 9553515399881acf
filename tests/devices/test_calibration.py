"""Calibration of planted chips behind a wire: the bits of the emulator, the values planted."""

from __future__ import annotations

from functools import cache
from typing import Any

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

HOST = pytest.mark.board("cc")
STM32 = pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
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


# What is planted: 6-bit weights, 8-bit ADC, 10 % of mismatch in everything; besides, gains of
# read-out and input DACs; and besides the first, noise of membranes and of the read-out.
SPREAD: dict[str, dict[str, Any]] = {
    "weight": {"bits": 6, "stored_bits": 6, "mismatch": 0.1, "stuck_zero": 0.05},
    "input": {"bits": 8, "offset": 1.0},
    "leak": {"mismatch": 0.1, "tracks": False},
    "activation": {"gain": 0.1, "offset": 0.1},
    "readout": {"bits": 8, "offset": 1.0},
}
MORE: dict[str, dict[str, dict[str, Any]]] = {
    "spread": {},
    "gains": {"readout": {"gain": 0.05}, "input": {"gain": 0.05}},
    "noise": {"readout": {"noise": 0.5}, "membrane": {"noise": 0.005}},
}


def planted(name: str) -> Chip:
    data = Chip.load("ideal").model_dump()
    for changes in (SPREAD, MORE[name]):
        for part, values in changes.items():
            data[part] |= values
    return Chip.model_validate({**data, "seed": 11})


CHIPS = {name: planted(name) for name in MORE}
# Measuring one on an emulated board takes 10 to 20 s: by default the one whose numbers depend
# on the random bits too; the others go through the same code.
MEASURED = [
    *(pytest.param("host:", name, marks=HOST) for name in CHIPS),
    pytest.param("qemu:stm32f405", "noise", marks=STM32),
    pytest.param("qemu:stm32f405", "spread", marks=[STM32, pytest.mark.long]),
    pytest.param("qemu:stm32f405", "gains", marks=[STM32, pytest.mark.long]),
]


@cache
def on(url: str, name: str) -> Calibration:
    with open_device(url, shadow=False) as device:
        return measure_chip(device, CHIPS[name], NETWORK)


@pytest.mark.parametrize(("url", "name"), MEASURED)
def test_a_board_is_measured_as_the_emulator(
    url: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("calibration")
    on("emu:", name).save(folder / "emulator.npz")
    on(url, name).save(folder / "board.npz")
    assert (folder / "board.npz").read_bytes() == (folder / "emulator.npz").read_bytes()


@pytest.mark.parametrize(("url", "name"), MEASURED)
def test_planted_values_are_recovered(url: str, name: str) -> None:
    """Gains (of activation and read-out together) and time constants within 2 %, offsets
    within a tenth of the ADC's LSB (of the read-out) and 0.002 network units, what a layer
    receives of one unit shown or sent below within 2 % rms; with noise twice as far off."""
    draws, c, more = draw(CHIPS[name], NETWORK), on(url, name), 2 if name == "noise" else 1
    shown = (1 / c.input_gain.value, 1 / draws.input_gain)
    for own, there in zip(c.layers, draws.layers, strict=True):
        gain = there.activation_gain * there.readout_gain
        assert np.abs(own.gain.value / gain - 1).max() < 0.02 * more
        assert np.abs(own.tau_m.value / there.tau_m - 1).max() < 0.02 * more
        assert np.abs(own.tau_r.value / there.tau_r - 1).max() < 0.02 * more
        assert np.abs(own.offset.value - there.activation_offset).max() < 0.002 * more
        assert np.abs(own.readout_offset.value - there.readout_offset).max() < 0.1 * more
        assert own.synapse is not None
        assert there.gain is not None
        got, want = own.synapse.value / shown[0], factors(there.gain) / shown[1]
        assert np.array_equal(np.isnan(got), np.isnan(want))
        assert np.sqrt(np.nanmean((got - want) ** 2)) < 0.02 * more
        shown = (own.readout_gain.value, there.readout_gain)


@pytest.mark.parametrize(("url", "name"), MEASURED)
def test_the_twin_predicts_a_board(url: str, name: str) -> None:
    """Unseen streams: at least 20 dB better than the emulator without calibration, or, where
    noise is the limit, within 6 dB of how well the chip repeats itself."""
    chip = CHIPS[name]
    weights = initial(NETWORK, 5, gain=1.5)
    t = np.arange(200)[:, None, None]
    x = np.sin(t * np.array([0.11, 0.23]) + np.array([[0.0, 1.0], [2.0, 4.0]]))
    scales = calibrate(NETWORK, nominal(chip.profile), weights, x)
    twin = on(url, name).twin(chip.profile)
    with open_device(url, shadow=False) as device:
        left = residuals(device, builder(chip), twin, NETWORK, weights, scales, x)
    for one in left:
        assert np.isfinite(one.repeated) == (name == "noise")
        limit = one.repeated - 6 if name == "noise" else np.inf
        assert one.better > 20 or one.twin > limit, one


@pytest.mark.board("cc")
def test_a_shadowed_board_is_measured() -> None:
    """Biases alone travel to the board; the emulator beside it agrees in every bit."""
    chip = CHIPS["spread"]
    chip = chip.model_copy(update={"input": chip.input.model_copy(update={"offset": 0.0})})
    with open_device("host:") as device, open_device("emu:") as emulator:
        got, want = (measure_chip(body, chip, NETWORK) for body in (device, emulator))
        assert device.digest() == emulator.digest()
    assert np.array_equal(got.layers[0].gain.value, want.layers[0].gain.value)
