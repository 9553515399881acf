"""The demo, with an untrained network and few streams: what it says, draws and repeats."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle import demo
from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.devices.emulator import Emulator
from hwgle.errors import FileMistakes
from hwgle.network import Network
from hwgle.report import plots
from hwgle.tasks import Split, Task
from hwgle.weights import initial

METRICS = [
    {"epoch": 1, "accuracy_learning": 0.3, "seconds": 1.0},
    {"epoch": 2, "accuracy_learning": 0.5, "validation": 0.4, "validation_calibrated": 0.6},
]


def split(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.normal(size=(count, 60, 1)), axis=1) / 8
    return Split(steps.astype(np.float32), np.arange(count) % 10)


@pytest.fixture
def setting() -> demo.Setting:
    network = Network.load("mnist1d-15k")
    return demo.Setting(
        network=network,
        chip=Chip.load("ideal"),
        weights=initial(network, 0),
        metrics=METRICS,
        task=Task("few", split(40, 1), split(10, 2), split(20, 3)),
        relearning=demo.Relearning(batch=10, batches=4),
    )


def test_the_command(
    setting: demo.Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "load", lambda: setting)
    result = CliRunner().invoke(cli, ["demo"])
    assert result.exit_code == 0, result.output
    for fragment in ("SQNR", "float64", "chip", "saturated", "digest", "offset-calibrated"):
        assert fragment in result.output
    assert len(re.findall(r"^ +\d +\d+\.\d % +\d+\.\d %$", result.output, re.M)) == 4
    for stem in ("stream", "relearning", "epochs"):
        for suffix in ("svg", "png"):
            path = Path("hwgle-demo") / f"{stem}.{suffix}"
            assert path.stat().st_size > 1000
            assert str(path) in result.output
    assert len(list(Path("hwgle-demo").iterdir())) == 6


def test_both_sides_relearn_the_same_and_again(setting: demo.Setting) -> None:
    def silence(what: str, done: int, total: int) -> None:
        pass

    with Emulator() as device:
        chip = demo.relearn_chip(device, setting, silence)
        assert demo.relearn_chip(device, setting, silence) == chip
    train, how = demo.lesson(setting), setting.relearning
    floating = list(demo.relearn_float(setting.network, demo.forgotten(setting), train, how))
    assert np.abs(np.subtract(chip, floating)).max() <= 0.2  # two streams of ten


def test_each_batch_of_the_lesson_holds_all_classes_alike(setting: demo.Setting) -> None:
    train = setting.task.train
    order = np.random.default_rng(5).permutation(np.arange(len(train)) // 4)  # 4 of each class
    task = replace(setting.task, train=Split(train.x, order))
    lesson = demo.lesson(replace(setting, task=task))
    for batch in np.split(lesson.y, 4):
        assert np.bincount(batch, minlength=10).tolist() == [1] * 10
    assert lesson.x.shape == train.x.shape


def test_the_read_out_is_forgotten_and_nothing_else(setting: demo.Setting) -> None:
    trained = {name: w + 1 for name, w in setting.weights.items()}
    weights = demo.forgotten(replace(setting, weights=trained))
    changed = [k for k in weights if not np.array_equal(weights[k], trained[k])]
    assert changed == ["out.weight", "out.bias"]


def test_pictures_are_the_same_bytes(setting: demo.Setting, tmp_path: Path) -> None:
    with Emulator() as device:
        stream = demo.show_stream(device, setting)
    for name in ("a", "b"):
        demo.draw_stream(setting, stream, tmp_path / name)
        demo.draw_epochs(setting, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert demo.draw_epochs(replace(setting, metrics=[]), tmp_path) == []


def test_without_weights_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileMistakes, match="no such file"):
        demo.load(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (-0.01, "−0.01"), (0.0003, "3e−4"), (2e5, "2e5"), (-5e4, "−50000")],
)
def test_numbers_on_axes(value: float, text: str) -> None:
    assert plots.short(value) == text
