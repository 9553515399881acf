"""Training on series: targets come one step late, and cuts anywhere change no bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import make_network
from numpy.typing import NDArray

from hwgle import prediction
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.errors import Interrupted, UsageError
from hwgle.experiment import Experiment
from hwgle.learning import series as module
from hwgle.learning import trainer as trainer_module
from hwgle.learning.series import SeriesLesson
from hwgle.learning.trainer import Event, Trainer
from hwgle.network import Network
from hwgle.report.floats import outputs
from hwgle.session import weights_from
from hwgle.tasks import Series, SeriesTask
from hwgle.weights import initial

STEPS = 37


def split(seed: int, streams: int, steps: int = STEPS) -> Series:
    """Two sines, and their sum and difference a little later."""
    rng = np.random.default_rng(seed)
    t = np.arange(steps)[None, :, None] + rng.uniform(0, 50, (streams, 1, 1))
    x = np.concatenate([np.sin(0.3 * t), np.sin(0.5 * t)], axis=2)
    late = np.concatenate([np.sin(0.3 * (t - 2)), np.sin(0.5 * (t - 2))], axis=2)
    return Series(x, late @ np.array([[0.5, 0.5], [0.5, -0.5]]))


def task(settle: int = 5, loops: bool = False, streams: int = 5) -> SeriesTask:
    return SeriesTask("waves", split(1, streams), split(2, 3), split(3, 3), loops, settle)


def network() -> Network:
    rng = np.random.default_rng(0)
    return make_network([6, 2], ["tanh", "linear"], rng, inputs=2, loss="mse")


def experiment(rule: str = "adam", **training: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "format": "hwgle/experiment/1",
            "name": "waves",
            "network": "waves",
            "chip": "ideal",
            "task": {"name": "python", "file": "none.py", "loss": "mse"},
            "training": {
                "rule": rule,
                "epochs": 3,
                "batch": 2,
                "learning_rate": 1e-2,
                "schedule": {"kind": "plateau", "patience": 1},
                "validate_every": 1,
                "seed": 4,
                **({"weight_decay": 0.1, "average": 1.0} if rule == "adam" else {}),
                **training,
            },
        }
    )


def trainer(out: Path, ex: Experiment, data: SeriesTask | None = None, show: Any = None) -> Trainer:
    return Trainer(ex, network(), Chip.load("ideal"), data or task(), Emulator(), out, show)


def outcome(folder: Path) -> dict[str, Any]:
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    for part in (*metrics, summary):
        del part["seconds"]
    state: dict[str, Any] = {}
    for name in ("weights.npz", "checkpoint.npz"):
        with np.load(folder / name) as file:
            state |= {f"{name} {k}": file[k].tobytes() for k in file.files if k != "position"}
    return {"metrics": metrics, "summary": summary, "state": state}


# STEPS of 16: sections of 16, 16 and 5 steps, and a settling time that ends within the first.
@pytest.fixture(autouse=True)
def _short_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECTION", 16)


@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_interrupted_and_continued_is_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    ex = experiment(rule)
    trainer(tmp_path / "whole", ex).run()
    whole = outcome(tmp_path / "whole")
    assert len(whole["metrics"]) == 3
    monkeypatch.setattr(trainer_module, "PIECE_SECONDS", 0.0)  # blocks of one step
    count, stop_at = 0, 0
    original = Trainer._look

    def look(this: Trainer) -> None:
        nonlocal count
        count += 1
        if count == stop_at:
            this._stop = True
        original(this)

    monkeypatch.setattr(Trainer, "_look", look)
    trainer(tmp_path / "pieces", ex).run()
    assert outcome(tmp_path / "pieces") == whole
    total = count
    for k, cuts in enumerate(([1], [total], [3, 20, 60])):
        count = 0
        for stop_at in cuts:  # noqa: B007
            with pytest.raises(Interrupted, match="the same command continues"):
                trainer(tmp_path / f"cut{k}", ex).run()
        stop_at = 0
        trainer(tmp_path / f"cut{k}", ex).run()
        assert outcome(tmp_path / f"cut{k}") == whole, cuts


def shown(lesson: SeriesLesson, epochs: int) -> tuple[NDArray[Any], ...]:
    """Everything that streams are shown, one batch behind the other: x, target, y, free."""
    parts = [lesson.batch(e, k) for e in range(epochs) for k in range(lesson.batches)]
    free = np.concatenate([np.arange(len(p.x)) < p.free for p in parts])
    return (*(np.concatenate([getattr(p, n) for p in parts]) for n in ("x", "target", "y")), free)


@pytest.mark.parametrize("batch", [2, 5])
def test_targets_come_one_step_late(batch: int) -> None:
    training = experiment(batch=batch).training
    lesson = SeriesLesson(network(), Chip.load("ideal"), task(), training)
    scales = lesson.begin(initial(network(), 0))
    x, target, y, free = shown(lesson, 3)
    assert len(x) == 3 * (5 // batch) * STEPS
    np.testing.assert_allclose(np.ldexp(target[1:].astype(float), -scales.target), y[:-1],
                               atol=2.0**-scales.target)  # fmt: skip
    assert free.tolist() == [True] * 5 + [False] * (len(x) - 5)
    # over an epoch every group of streams comes once, from its beginning to its end
    full = task().train
    of = [
        [int(np.argmin(np.abs(full.y[:, 0] - y[k * STEPS, b]).sum(axis=1))) for b in range(batch)]
        for k in range(len(x) // STEPS)
    ]
    for k, which in enumerate(of):
        part = slice(k * STEPS, (k + 1) * STEPS)
        np.testing.assert_array_equal(y[part], np.swapaxes(full.y[which], 0, 1))
        inputs = np.ldexp(x[part].astype(float), -scales.input)
        np.testing.assert_allclose(
            inputs, np.swapaxes(full.x[which], 0, 1), atol=2.0**-scales.input
        )
    groups = 5 // batch
    for e in range(3):
        streams = [b for which in of[e * groups : (e + 1) * groups] for b in which]
        assert len(set(streams)) == len(streams) == groups * batch


def test_nothing_is_learned_before_it_has_settled(tmp_path: Path) -> None:
    data = task(settle=STEPS - 1, streams=2)
    one = experiment("sgd", epochs=1, learning_rate=0.5)
    quiet = trainer(tmp_path / "quiet", one, SeriesTask("waves", *[data.train] * 3, settle=36))
    begun = quiet._begin()
    before = weights_from(quiet._image, quiet._device.read_weights(), quiet._device.formats())
    shown_ = quiet._lesson.batch(0, 0)
    quiet._show(shown_)
    after = weights_from(quiet._image, quiet._device.read_weights(), quiet._device.formats())
    assert begun.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_it_learns_and_its_figures_are_those_of_the_output(tmp_path: Path) -> None:
    ex = experiment(epochs=30, batch=5, learning_rate=2e-2, average=0.0, weight_decay=0.0,
                    schedule={"kind": "constant"})  # fmt: skip
    events: list[Event] = []
    summary = trainer(tmp_path, ex, task(settle=8), events.append).run()
    assert summary["measure"] == "nrmse"
    assert summary["test_loss"] < summary["before_loss"] / 10
    assert summary["test"] < 0.35
    assert summary["test"] == pytest.approx(np.mean(summary["test_nrmse"]))
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert summary["validation"] == min(m["validation"] for m in metrics)
    assert metrics[-1]["nrmse_learning"] < 0.5 < metrics[0]["nrmse_learning"]
    assert events[-1].validation == summary["validation"]
    # in float64, with the weights that were kept, the test error is the same to a percent
    with np.load(tmp_path / "weights.npz") as file:
        weights = {name: file[name] for name in file.files}
    data = task(settle=8)
    x, y = prediction.judged(data, data.test)
    floating = prediction.fit(outputs(network(), weights, x), y)
    assert floating.error == pytest.approx(summary["test"], rel=0.01)


def test_series_that_loop_settle_on_their_own_period() -> None:
    data = task(settle=50, loops=True)
    x, y = prediction.judged(data, data.test)
    assert x.shape[1] == 50 + STEPS
    np.testing.assert_array_equal(y, data.test.y)
    np.testing.assert_array_equal(x[:, 50:], data.test.x)
    np.testing.assert_array_equal(x[:, 13:50], data.test.x)
    output = np.swapaxes(y, 0, 1)
    assert prediction.fit(np.concatenate([output[:50] * 9, output]), y).error == 0
    moved = prediction.fit(output + 0.5, y)
    assert moved.loss == pytest.approx(0.25)
    np.testing.assert_allclose(moved.nrmse, 0.5 / y.std(axis=(0, 1)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: Series(s.x[:, :5], s.y[:, :5]), "test: 5 steps; more than settle = 5"),
        (lambda s: Series(s.x, s.y[:, :, :1]), "test: 2 inputs, 1 outputs; the network has 2"),
        (lambda s: Series(s.x, s.y[:, 1:]), "test: x (3, 37, 2) and y (3, 36, 2)"),
        (lambda s: Series(s.x, np.where(s.y > 0.9, np.nan, s.y)), "test: a number that is not f"),
        (lambda s: Series(s.x, s.y * [1, 0]), "test: output 1 never changes"),
    ],
)
def test_series_that_cannot_be_judged_are_refused(change: Any, text: str) -> None:
    good = task()
    bad = SeriesTask("waves", good.train, good.validation, change(good.test), settle=5)
    with pytest.raises(UsageError) as caught:
        SeriesLesson(network(), Chip.load("ideal"), bad, experiment().training)
    assert text in str(caught.value)


def test_more_streams_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"5 streams to learn from; training\.batch is 6"):
        trainer(tmp_path, experiment(batch=6))


def test_nothing_counted_yet_is_no_number() -> None:
    lesson = SeriesLesson(network(), Chip.load("ideal"), task(), experiment().training)
    assert math.isnan(lesson.learning()["nrmse_learning"])


def test_of_several_starts_that_with_the_least_error_goes_on(tmp_path: Path) -> None:
    trainer(tmp_path, experiment(starts=4, start_epochs=1)).run()
    starts = json.loads((tmp_path / "summary.json").read_text())["starts"]
    learned = starts["learned"]
    assert len(set(learned)) == 4
    assert learned[starts["chosen"]] == min(learned)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["nrmse_learning"] == min(learned)


def test_starts_that_only_settle_are_no_choice(tmp_path: Path) -> None:
    data = task(settle=80, loops=True)
    with pytest.raises(UsageError, match="start_epochs is 1: this task settles for longer"):
        trainer(tmp_path, experiment(starts=3, start_epochs=1), data).run()
    assert not (tmp_path / "start-1").exists()
    trainer(tmp_path / "longer", experiment(starts=2, start_epochs=3), data).run()
