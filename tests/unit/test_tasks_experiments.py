"""Tasks as experiments see them: keys, mistakes, sizes, and a user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwgle.errors import FileMistakes, UsageError
from hwgle.experiment import Experiment
from hwgle.learning.trainer import make_lesson
from hwgle.network import Network
from hwgle.tasks import SERIES, SETTINGS, TASKS, SeriesTask, Task, digits
from hwgle.yamlfile import zoo_names

EXPERIMENT = """\
format: hwgle/experiment/1
name: mine
network: NETWORK
chip: ideal
task: TASK
training: {rule: adam, epochs: 2, batch: 2, learning_rate: 1e-3}
"""
NETWORK = """\
format: hwgle/network/1
name: net
dt: 1.0
inputs: INPUTS
loss: LOSS
layers:
  - {name: out, phi: linear, populations: [{size: OUTPUTS, tau_m: 2, tau_r: 1}]}
"""


def load(
    tmp_path: Path, task: str, network: str | tuple[int, int, str] = (1, 2, "mse")
) -> Experiment:
    if not isinstance(network, str):
        inputs, outputs, loss = network
        text = NETWORK.replace("INPUTS", str(inputs)).replace("OUTPUTS", str(outputs))
        (tmp_path / "net.yaml").write_text(text.replace("LOSS", loss))
        network = "net.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("NETWORK", network).replace("TASK", task))
    return Experiment.load(path)


def mistakes(tmp_path: Path, *args: Any) -> list[str]:
    """Line, key and text of each."""
    with pytest.raises(FileMistakes) as caught:
        load(tmp_path, *args)
    assert all(m.file == str(tmp_path / "mine.yaml") for m in caught.value.mistakes)
    return [f"{m.line} {m.key}: {m.found} | {m.allowed}" for m in caught.value.mistakes]


def test_each_task_has_settings_and_they_are_of_its_name() -> None:
    assert set(TASKS) | set(SERIES) | {"npz", "python"} == set(SETTINGS)
    for name, settings in SETTINGS.items():
        assert next(iter(settings.model_fields)) == "name"
        assert settings.model_fields["name"].annotation.__args__ == (name,)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", zoo_names("experiments"))
def test_experiments_of_the_zoo_fit_their_networks(name: str) -> None:
    if name == "speech":
        with pytest.raises(FileMistakes, match=r"task\.folder: found no such folder"):
            Experiment.load(name)
    else:
        assert Experiment.load(name).name == name


@pytest.mark.parametrize(
    ("task", "network", "expected"),
    [
        ("{name: nosuch}", (1, 2, "mse"), ["task.name: the text 'nosuch' | one of digits"]),
        ("{seed: 1}", (1, 2, "mse"), ["task.name: nothing, the key is missing | one of digits"]),
        ("3", (1, 2, "mse"), ["task: 3 | a mapping of the kind digits or"]),
        ("{name: [1]}", (1, 2, "mse"), ["task.name: a list of 1 | one of"]),
        # a key of another task, and everything else at once
        (
            "{name: mackey-glass, seed: 1, validation_seed: 1, train: 50, steps: 3, settle: 50}",
            (2, 3, "cross_entropy"),
            [
                "network: 'net' with 2 inputs | a network with 1 inputs for mackey-glass",
                "network: 'net' with loss cross_entropy | a network with loss mse",
                "task.steps: unknown key",
                "task.validation_seed: 1 | another seed",
                "task.settle: 50 | less than train = 50",
            ],
        ),
        (
            "{name: mackey-glass, seed: 1, validation_seed: 2, streams: 1}",
            (1, 3, "cross_entropy"),
            [
                "network: 'net' with 3 outputs | a network with 2 outputs",
                "network: 'net' with loss cross_entropy | a network with loss mse",
                "training.batch: 2 | at most streams = 1",
            ],
        ),
        (
            "{name: digits, seed: 1, validation_seed: 2, train: 1500, test: 300}",
            (64, 10, "cross_entropy"),
            ["task.train: 1500 with test 300 | train + 2 test at most 1797"],
        ),
        (
            "{name: mnist1d, seed: 1, validation_seed: 2, train: 41, test: 10}",
            (1, 10, "cross_entropy"),
            ["task.train: 41 with test 10 | train + test a multiple of 10"],
        ),
        ("{name: lagnet}", (1, 1, "mse"), ["layers out of 1 | a network with layers h1 of 2, h2"]),
        ("{name: lagnet, test: 100}", "lagnet", ["task.settle: 8000 | less than test = 100"]),
        ("{name: npz, file: no.npz}", (1, 2, "mse"), ["task.file: ", "no such file"]),
        ("{name: python, file: no.py}", (1, 2, "mse"), ["task.file: no such file"]),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, task: str, network: Any, expected: list[str]) -> None:
    told = mistakes(tmp_path, task, network)
    for text in expected:
        assert any(text in line for line in told), (text, told)


def test_digits_without_scikit_learn_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    told = mistakes(tmp_path, "{name: digits, seed: 1, validation_seed: 2}", "digits")
    assert told == [
        "5 task.name: digits without scikit-learn | scikit-learn, which brings the images: "
        "pip install 'hwgle[digits]'"
    ]


# --- npz ----------------------------------------------------------------------------------------


def arrays(kind: str) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    made = {}
    for split, count in (("train", 6), ("validation", 3), ("test", 4)):
        made[f"{split}_x"] = rng.normal(size=(count, 5, 2)).astype(np.float32)
        made[f"{split}_y"] = (
            np.arange(count) % 3 if kind == "classes" else rng.normal(size=(count, 5, 3))
        )
    return made


@pytest.mark.parametrize("kind", ["classes", "series"])
def test_npz(tmp_path: Path, kind: str) -> None:
    given = arrays(kind)
    np.savez(tmp_path / "data.npz", **given)
    loss = "cross_entropy" if kind == "classes" else "mse"
    experiment = load(tmp_path, "{name: npz, file: data.npz, settle: 2}", (2, 3, loss))
    task = experiment.load_task()
    assert isinstance(task, Task if kind == "classes" else SeriesTask)
    for split in ("train", "validation", "test"):
        part = getattr(task, split)
        np.testing.assert_array_equal(part.x, given[f"{split}_x"])
        np.testing.assert_array_equal(part.y, given[f"{split}_y"])
    given["test_x"][0, 0, 0] += 1
    np.savez(tmp_path / "data.npz", **given)
    assert experiment.load_task().content != task.content


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"test_y": None, "train_x": None}, ["train_x: nothing, the key is missing", "test_y: n"]),
        ({"train_x": np.zeros((6, 5))}, ["train_x: 6 x 5, float64 | numbers (samples, steps"]),
        ({"test_y": np.zeros(3, int)}, ["test_y: 3 values | as many samples (and steps) as test"]),
        ({"train_y": np.array([0, 1, 2, 0, 1, -2])}, ["train_y: class -2 | classes from 0"]),
        ({"train_y": np.zeros(6)}, ["train_y: 6 values, float64 | whole numbers (samples,)"]),
        ({"test_x": np.zeros((4, 5, 3))}, ["test_x: 4 x 5 x 3 | the kind and width of train_x"]),
        ({"train_y": np.array([{}] * 6)}, ["train_y: damaged or pickled (an object array"]),
        ({"test_y": np.zeros((4, 5, 3))}, ["test_y: 4 x 5 x 3 | the kind and width of train_y"]),
    ],
)
def test_npz_with_mistakes(
    tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    given = {k: v for k, v in (arrays("classes") | change).items() if v is not None}
    np.savez(tmp_path / "data.npz", **given)
    told = mistakes(tmp_path, "{name: npz, file: data.npz}", (2, 3, "cross_entropy"))
    for text in expected:
        assert any(text in line and line.startswith("5 task.file: ") for line in told), told


def test_npz_must_fit_the_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays("classes"))
    told = mistakes(tmp_path, "{name: npz, file: data.npz}", (3, 2, "mse"))
    assert [line.partition(" | ")[2] for line in told] == [
        "a network with 2 inputs for npz",
        "a network with 3 outputs or more for npz",
        "a network with loss cross_entropy for npz",
    ]
    load(tmp_path, "{name: npz, file: data.npz}", (2, 4, "cross_entropy"))


def test_npz_with_numbers_that_are_not_finite(tmp_path: Path) -> None:
    given = arrays("series")
    given["test_y"][1, 2, 0] = np.nan
    np.savez(tmp_path / "data.npz", **given)
    experiment = load(tmp_path, "{name: npz, file: data.npz}", (2, 3, "mse"))
    with pytest.raises(FileMistakes, match="test_y: found nan"):
        experiment.load_task()


def test_no_npz(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 and nothing else")
    told = mistakes(tmp_path, "{name: npz, file: data.npz}", (2, 3, "mse"))
    assert len(told) == 1
    assert "a .npz with train_x, train_y" in told[0]


# --- python -------------------------------------------------------------------------------------

CODE = """\
import numpy as np
from hwgle.tasks import Series, SeriesTask, Split, Task

def load(kind="mapping", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 5, 2))
    if kind == "task":
        part = Split(x.astype(np.float32), np.arange(4) % 2)
        return Task("mine", part, part, part)
    if kind == "series":
        part = Series(x, x[:, :, :1] * 2)
        return SeriesTask("mine", part, part, part)
    if kind == "wrong":
        raise ZeroDivisionError("by design")
    if kind == "leaves":
        raise SystemExit(3)
    if kind == "text":
        return "data"
    y = np.arange(4) % 2
    if kind == "bad":
        y = y - 1
    return {f"{s}_{k}": v for s in ("train", "validation", "test") for k, v in (("x", x), ("y", y))}
"""


def python(tmp_path: Path, arguments: str, loss: str = "cross_entropy") -> Experiment:
    (tmp_path / "mytask.py").write_text(CODE)
    task = f"{{name: python, file: mytask.py, loss: {loss}, arguments: {arguments}}}"
    return load(tmp_path, task, (2, 2 if loss == "cross_entropy" else 1, loss))


def test_python(tmp_path: Path) -> None:
    first = python(tmp_path, "{}").load_task()
    assert isinstance(first, Task)
    assert first.train.y.tolist() == [0, 1, 0, 1]
    other = python(tmp_path, "{seed: 1}").load_task()
    assert other.content != first.content
    assert isinstance(python(tmp_path, "{kind: task}").load_task(), Task)
    series = python(tmp_path, "{kind: series}", "mse").load_task()
    assert isinstance(series, SeriesTask)


@pytest.mark.parametrize(
    ("arguments", "loss", "line", "expected"),
    [
        ("{kind: wrong}", "mse", 14, "ZeroDivisionError: by design"),
        ("{kind: leaves}", "mse", 16, "SystemExit: 3"),
        ("{kind: text}", "mse", None, "load() returned str; allowed: a Task, a SeriesTask"),
        ("{kind: bad}", "cross_entropy", None, "class -1; allowed: classes from 0"),
        ("{kind: series}", "cross_entropy", None, "a target at every step; allowed: data for lo"),
        ("{colour: red}", "mse", None, "TypeError: load() got an unexpected keyword"),
    ],
)
def test_python_with_mistakes(
    tmp_path: Path, arguments: str, loss: str, line: int | None, expected: str
) -> None:
    experiment = python(tmp_path, arguments, loss)  # looking at it does not run it
    with pytest.raises(FileMistakes) as caught:
        experiment.load_task()
    assert expected in str(caught.value)
    assert {m.file for m in caught.value.mistakes} == {str(tmp_path / "mytask.py")}
    assert caught.value.mistakes[0].line == line


def test_python_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mytask.py").write_text("def load(:\n")
    told = mistakes(tmp_path, "{name: python, file: mytask.py}", (2, 2, "cross_entropy"))
    assert "mytask.py:1: " in told[0]


def test_data_of_a_python_file_must_fit_the_network(tmp_path: Path) -> None:
    experiment = python(tmp_path, "{kind: series}", "mse")
    wide = Network.model_validate(
        experiment.load_network().model_dump() | {"inputs": 3, "name": "wide"}
    )
    with pytest.raises(UsageError, match="2 inputs, 1 outputs; the network has 3 and 1"):
        make_lesson(wide, experiment.load_chip(), experiment.load_task(), experiment.training)
