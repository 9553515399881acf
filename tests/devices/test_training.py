"""Training on a board: the bits of the emulator, and checkpoints that go on elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import make_network, quantised, random_case

from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices import open_device
from hwgle.devices.emulator import Emulator
from hwgle.errors import DeviceRefused, Interrupted, UsageError
from hwgle.experiment import Experiment
from hwgle.learning import trainer as module
from hwgle.learning.adam import Learner
from hwgle.learning.trainer import Trainer
from hwgle.tasks import Split, Task

STEPS, CLASSES = 20, 3
NETWORK = make_network(
    [6, CLASSES], ["tanh", "linear"], np.random.default_rng(0), inputs=1, loss="cross_entropy"
)
HOST = pytest.param("host:", marks=pytest.mark.board("cc"))
F405 = pytest.param(
    "qemu:stm32f405", marks=pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
)


def split(count: int, seed: int) -> Split:
    """Waves of three frequencies, which are the classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    wave = np.sin((y[:, None] + 1) * 0.3 * np.arange(STEPS) + rng.uniform(0, 6, (count, 1)))
    return Split(wave[:, :, None].astype(np.float32), y.astype(np.int64))


TASK = Task("waves", split(10, 1), split(8, 2), split(8, 3))


def experiment(rule: str, batch: int) -> Experiment:
    training = {"rule": rule, "epochs": 2, "batch": batch, "learning_rate": 0.01, "seed": 4}
    if rule in ("normalised", "sign"):
        training |= {"apply_every": 3, "schedule": {"kind": "halving", "every": 30, "final": 1e-3}}
    task = {"name": "mnist1d", "seed": 1, "validation_seed": 2, "train": 12, "test": 8}
    return Experiment.model_validate(
        {
            "format": "hwgle/experiment/1",
            "name": "waves",
            "network": "waves",
            "chip": "ideal",
            "task": task,
            "training": training,
        }
    )


def train(url: str, out: Path, ex: Experiment) -> None:
    with open_device(url) as device:
        Trainer(ex, NETWORK, Chip.load("ideal"), TASK, device, out).run()


def left(out: Path) -> dict[str, Any]:
    """What a training leaves, apart from how long it took."""
    summary = json.loads((out / "summary.json").read_text())
    del summary["seconds"]
    with np.load(out / "checkpoint.npz") as file:
        state = {name: file[name].tobytes() for name in file.files if name != "position"}
    return {"summary": summary, "state": state}


@pytest.mark.parametrize(
    ("url", "rule", "batch"),
    [
        pytest.param("host:", "sgd", 1, marks=pytest.mark.board("cc")),
        pytest.param("host:", "sgd", 5, marks=pytest.mark.board("cc")),
        pytest.param("host:", "adam", 5, marks=pytest.mark.board("cc")),
        pytest.param("host:", "normalised", 5, marks=pytest.mark.board("cc")),
        pytest.param("host:", "sign", 1, marks=pytest.mark.board("cc")),
        pytest.param(*F405.values, "sgd", 1, marks=F405.marks),
    ],
)
def test_training_is_equal_and_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, rule: str, batch: int
) -> None:
    ex = experiment(rule, batch)
    train("emu:", tmp_path / "emu", ex)
    whole = left(tmp_path / "emu")
    train(url, tmp_path / "board", ex)
    assert left(tmp_path / "board") == whole
    original = Trainer._look
    for one, at in ((url, 2), ("emu:", 3)):
        looks = [0]

        def look(this: Trainer, at: int = at, looks: list[int] = looks) -> None:
            looks[0] += 1
            this._stop = this._stop or looks[0] == at
            original(this)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_look", look)
            patch.setattr(module, "PIECE_SECONDS", 0.0)
            with pytest.raises(Interrupted):
                train(one, tmp_path / "cut", ex)
    train(url, tmp_path / "cut", ex)
    assert left(tmp_path / "cut") == whole


@pytest.mark.board("cc")
@pytest.mark.parametrize("seed", [9, 13])
def test_adam_on_the_host_is_that_of_the_emulator(seed: int) -> None:
    """Weights that clip included, which make the chip's scales coarser."""
    case = random_case(seed, layers=3, neurons=12, inputs=3, batch=4, steps=50)
    q = quantised(case, Chip.load("ideal"), range_every=16, seed=3)
    block = Block(q.input, q.target, ranging=True, votes=True, record=[(0, "r")])
    ended = []
    for url in ("emu:", "host:"):
        with open_device(url) as device:
            rule = Learner()
            rule.begin(device, q.image, case.batch, case.weights)
            rule.set_rate(0.05)
            records = rule.run(block)
            ended.append((device.snapshot(), rule.state(), records))
    (a, state_a, records_a), (b, state_b, records_b) = ended
    assert a == b
    assert int(state_a["adam.clipped"]) > 0
    for key in state_a:
        assert np.array_equal(state_a[key], state_b[key]), key
    assert np.array_equal(records_a.votes, records_b.votes)
    assert np.array_equal(records_a.fracs, records_b.fracs)


@pytest.mark.board("cc")
def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(DeviceRefused, match=r"training\.batch 5 streams: fewer need less"):
        train("host:?memory=6000&payload=64&window=1", tmp_path / "out", experiment("adam", 5))
    assert not (tmp_path / "out" / "checkpoint.npz").exists()


def test_a_batch_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator() as device:
        limits = device.limits
        monkeypatch.setattr(Emulator, "limits", replace(limits, max_batch=1))
        with pytest.raises(UsageError, match=r"is 5; .* at most 1 stream .*batch: 1"):
            Trainer(experiment("sgd", 5), NETWORK, Chip.load("ideal"), TASK, device, tmp_path)
        monkeypatch.setattr(Emulator, "limits", replace(limits, gradient=False))
        with pytest.raises(UsageError, match="reads a gradient"):
            Trainer(experiment("adam", 5), NETWORK, Chip.load("ideal"), TASK, device, tmp_path)
