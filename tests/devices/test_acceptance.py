"""The paper's networks on the board that holds them: what they classify and learn there is
what the emulator says, to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwgle.accuracy import accuracy, chip_scales, chip_votes, part
from hwgle.chip import Chip
from hwgle.device import Device
from hwgle.devices import open_device
from hwgle.devices.emulator import Emulator
from hwgle.experiment import Experiment
from hwgle.learning.trainer import Trainer
from hwgle.network import Network
from hwgle.session import run
from hwgle.tasks import TASKS, Task
from hwgle.weights import Weights, initial, load

URL = "qemu:stm32f405"
CHIP = Chip.load("ideal")
STREAM = 20  # samples, one behind the other
TRAINED = 10

pytestmark = pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")


@pytest.fixture(scope="module")
def board() -> Iterator[Device]:
    with open_device(URL, shadow=False) as device:
        yield device


@pytest.fixture(scope="module")
def task() -> Task:
    """The data of the paper's figures."""
    return TASKS["mnist1d"](42, 43)


def trained(name: str) -> tuple[Network, Weights]:
    network = Network.load(name)
    return network, load(Path(__file__).parents[2] / f"hwgle/zoo/weights/{name}.npz", network)


def same_votes(board: Device, name: str, task: Task, samples: int) -> float:
    """Accuracy over the first test samples, the same on the board and the emulator."""
    network, weights = trained(name)
    scales = chip_scales(network, CHIP, weights, part(task.train, 100))
    split = part(task.test, samples)
    with Emulator() as emulator:
        want, got = (
            chip_votes(body, network, CHIP, weights, scales, split) for body in (emulator, board)
        )
    assert np.array_equal(got.sums, want.sums)
    assert (got.digest, got.clipped) == (want.digest, want.clipped)
    found = accuracy(got.sums, split.y)
    assert found == accuracy(want.sums, split.y)
    return found


@pytest.mark.parametrize(("name", "learn"), [("mnist1d-15k", True), ("mnist1d-42k", False)])
def test_the_papers_networks_run_on_the_board(board: Device, name: str, learn: bool) -> None:
    """A few steps of them; 15k learns too, with stochastic rounding."""
    network = Network.load(name)
    weights = initial(network, 1)
    x = np.random.default_rng(1).normal(size=(16, 1, 1))
    target = np.array([3]) if learn else None
    rate = 0.05 if learn else 0.0
    with Emulator() as emulator:
        want, got = (
            run(body, network, CHIP, weights, x, target, learning_rate=rate, seed=5)
            for body in (emulator, board)
        )
    a, b = got.arrays(), want.arrays()
    assert a.keys() == b.keys()
    for key in a:
        assert np.array_equal(a[key], b[key]), key
    assert (sum(c["updates"] for c in got.counters) > 0) == learn


@pytest.mark.long
def test_accuracy_of_15k_over_a_stream_of_samples(board: Device, task: Task) -> None:
    assert same_votes(board, "mnist1d-15k", task, STREAM) > 0.7


@pytest.mark.long
def test_accuracy_of_42k_on_some_samples(board: Device, task: Task) -> None:
    assert same_votes(board, "mnist1d-42k", task, 5) > 0.5


@pytest.mark.long
def test_15k_learns_on_the_board(task: Task, tmp_path: Path) -> None:
    """Plain SGD, stochastic rounding, one stream: weights and accuracy of the emulator."""
    assert CHIP.plasticity.rounding == "stochastic"
    few = Task(task.name, part(task.train, TRAINED), part(task.validation, STREAM),
               part(task.test, STREAM))  # fmt: skip
    network = Network.load("mnist1d-15k")
    left = []
    for url in ("emu:", URL):
        out = tmp_path / url.replace(":", "-")
        with open_device(url, shadow=False) as device:
            Trainer(experiment(), network, CHIP, few, device, out).run()
            weights = device.read_weights()
        left.append((_summary(out), weights))
    (want, stored), (got, on_board) = left
    assert got == want
    for name, (w, b) in stored.items():
        assert np.array_equal(on_board[name][0], w)
        assert np.array_equal(on_board[name][1], b)


def experiment() -> Experiment:
    return Experiment.model_validate(
        {
            "format": "hwgle/experiment/1",
            "name": "few",
            "network": "mnist1d-15k",
            "chip": "ideal",
            "task": {"name": "mnist1d", "seed": 42, "validation_seed": 43},
            "training": {"rule": "sgd", "epochs": 1, "batch": 1, "learning_rate": 1e-3, "seed": 4},
        }
    )


def _summary(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    del summary["seconds"]
    return summary
