"""What an epoch shows more often, and that it is told as if all had been shown alike."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import test_tasks_training
from numpy.typing import NDArray
from test_trainer import Looks, experiment, network, outcome, split, trainer

from hwgle.chip import Chip
from hwgle.errors import FileMistakes, UsageError
from hwgle.experiment import Experiment
from hwgle.learning.focus import Focus
from hwgle.learning.labelled import Labelled
from hwgle.learning.order import balanced_order
from hwgle.tasks import Task

CLASSES = 3


def labels_of(seed: int, count: int = 90) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, CLASSES, count)


def shown(focus: Focus, labels: NDArray[np.int64], margins: NDArray[np.int64]) -> None:
    """An epoch after which the samples have these margins."""
    votes = np.zeros((len(labels), CLASSES), np.int64) - 10**9
    rows = np.arange(len(labels))
    votes[rows, (labels + 1) % CLASSES] = 50
    votes[rows, labels] = 50 + margins
    focus.note(rows, votes)
    focus.epoch_done()


def test_without_focus_the_order_is_the_balanced_one(seed: int) -> None:
    labels = labels_of(seed)
    focus = Focus(labels, 0.0)
    shown(focus, labels, np.arange(len(labels)) - 40)
    order, times = focus.order(np.random.default_rng(seed + 1))
    assert np.array_equal(order, balanced_order(labels, np.random.default_rng(seed + 1)))
    assert (times == 1).all()


def test_at_first_each_sample_is_shown_once(seed: int) -> None:
    labels = labels_of(seed)
    order, times = Focus(labels, 0.9).order(np.random.default_rng(seed + 1))
    assert sorted(order) == list(range(len(labels)))
    assert times == pytest.approx(1)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_missed_samples_are_shown_more_often_and_classes_as_before(
    seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed + 1)  # not that of the labels
    labels = labels_of(seed)
    margins = rng.integers(-100, 400, len(labels))
    focus = Focus(labels, share)
    shown(focus, labels, margins)
    order, times = focus.order(rng)
    again = np.bincount(order, minlength=len(labels))
    assert np.array_equal(np.bincount(labels[order]), np.bincount(labels))
    difficulty = np.clip(0.5 - margins / np.median(margins), 0, 1)
    weights = 1 - share + share * difficulty
    for label in range(CLASSES):
        of = labels == label
        wanted = weights[of] * of.sum() / weights[of].sum()
        # never further from it than one: nothing is left to luck but who is rounded up
        assert (np.abs(again[of] - wanted) < 1).all()
        told = {int(k): float(v) for k, v in zip(order, times, strict=True)}
        for sample, value in zip(np.flatnonzero(of), wanted, strict=True):
            assert told.get(int(sample), value) == pytest.approx(value)
    assert again[margins < 0].mean() > 2 * share * again[margins > np.median(margins)].mean()


def test_a_class_that_is_all_easy_keeps_its_share(seed: int) -> None:
    labels = labels_of(seed)
    margins = np.where(labels == 1, 10**6, np.arange(len(labels)) - 30)
    focus = Focus(labels, 0.99)
    shown(focus, labels, margins)
    order, times = focus.order(np.random.default_rng(seed))
    assert np.array_equal(np.bincount(labels[order]), np.bincount(labels))
    assert times[labels[order] == 1] == pytest.approx(1)


@pytest.mark.parametrize("margins", ["all wrong", "none shown", "all alike"])
def test_where_nothing_tells_samples_apart_they_are_shown_evenly(seed: int, margins: str) -> None:
    labels = labels_of(seed)
    focus = Focus(labels, 0.9)
    if margins != "none shown":
        shown(focus, labels, np.full(len(labels), -5 if margins == "all wrong" else 7))
    order, times = focus.order(np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    assert times == pytest.approx(1)


def test_samples_that_were_not_shown_yet_are_as_difficult_as_missed_ones(seed: int) -> None:
    labels = labels_of(seed)
    focus = Focus(labels, 0.9)
    rows = np.arange(40)
    votes = np.zeros((40, CLASSES), np.int64)
    votes[rows, labels[:40]] = 5  # all alike, and far enough from wrong
    focus.note(rows, votes)
    focus.epoch_done()
    order, times = focus.order(np.random.default_rng(seed + 1))
    for label in range(CLASSES):
        of = labels == label
        weights = np.where(np.arange(90) < 40, 0.1, 1.0)[of]
        wanted = dict(zip(np.flatnonzero(of), weights * of.sum() / weights.sum(), strict=True))
        for sample, value in zip(order, times, strict=True):
            assert sample not in wanted or value == pytest.approx(wanted[sample])
    assert np.bincount(order, minlength=90)[40:].min() >= 1


def test_batches_hold_all_classes_whatever_is_drawn(seed: int) -> None:
    labels = np.repeat(np.arange(CLASSES), 100)
    focus = Focus(labels, 0.9)
    shown(focus, labels, np.random.default_rng(seed).integers(-100, 400, 300))
    order, _ = focus.order(np.random.default_rng(seed + 1))
    for batch in labels[order].reshape(10, 30):
        assert np.all(np.abs(np.bincount(batch, minlength=CLASSES) - 10) < 2)


def test_a_single_class_has_margins_too() -> None:
    focus = Focus(np.zeros(4, np.int64), 0.9)
    focus.note(np.arange(4), np.array([[-5], [-3], [-9], [10**9]]))
    focus.epoch_done()
    order, times = focus.order(np.random.default_rng(1))
    assert sorted(order) == [0, 1, 2, 3]
    assert times == pytest.approx(1)


def test_margins_count_from_the_next_epoch_on(seed: int) -> None:
    labels = labels_of(seed)
    focus = Focus(labels, 0.9)
    rows = np.arange(len(labels))
    votes = np.random.default_rng(seed + 1).integers(-9, 9, (len(labels), CLASSES))
    votes[rows, labels] += 9  # most are voted right
    focus.note(rows, votes)
    assert focus.order(np.random.default_rng(1))[1] == pytest.approx(1)
    focus.epoch_done()
    assert np.ptp(focus.order(np.random.default_rng(1))[1]) > 0


def test_interrupted_and_continued_is_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    ex = experiment("normalised", epochs=8, learning_rate=2.0**-5, apply_every=1, focus=0.9)
    trainer(tmp_path / "whole", ex).run()
    whole = outcome(tmp_path / "whole")
    with np.load(tmp_path / "whole" / "checkpoint.npz") as file:
        assert np.median(file["lesson.margins"][0]) > 0, "too little learned: nothing is drawn"
    looks = Looks(monkeypatch)
    trainer(tmp_path / "counted", ex).run()
    assert outcome(tmp_path / "counted") == whole
    rng, total = np.random.default_rng(seed), looks.count
    for case, third in enumerate((0, 1, 2, 2)):  # in the last it knows what is difficult
        out = tmp_path / f"cut{case}"
        looks.count, looks.at = 0, 1 + (third * total + int(rng.integers(total))) // 3
        with pytest.raises(BaseException, match="the same command continues"):
            trainer(out, ex).run()
        looks.at = None
        trainer(out, ex).run()
        assert outcome(out) == whole, f"cut at look {looks.at} of {total}"


def test_accuracy_while_learning_is_of_all_samples_alike(seed: int) -> None:
    """Some samples are always voted wrong and so shown more often: it still tells their share."""
    task = Task("waves", split(600, 1), split(20, 2), split(20, 3))
    lesson = Labelled(network(), Chip.load("ideal"), task, experiment(focus=0.9).training)
    lesson._x = np.zeros((1, 600, 1), np.int16)
    lesson._y = task.train.y.astype(np.int16)
    wrong = np.random.default_rng(seed + 1).random(600) < 0.2
    frequent: list[bool] = []
    told: list[float] = []
    for epoch in range(5):
        for index in range(lesson.batches):
            batch = lesson.batch(epoch, index)
            which = lesson._which
            lesson._votes[np.arange(10), batch.y] = np.where(wrong[which], -3, 9)
            lesson.batch_done(batch)
            frequent += list(wrong[which]) if epoch else []
        told += [lesson.learning()["accuracy_learning"]]
        lesson.epoch_done()
    assert np.mean(frequent) > wrong.mean() + 0.2
    assert np.mean(told) == pytest.approx(1 - wrong.mean(), abs=0.02)


def test_without_focus_checkpoints_are_what_they_were(tmp_path: Path) -> None:
    """Those of trainings that began before there was focus still continue."""
    ex = experiment()
    trainer(tmp_path, ex).run()
    with np.load(tmp_path / "checkpoint.npz") as file:
        assert "lesson.margins" not in file.files
        key = json.loads(file["position"].tobytes())["key"]
    told = ex.model_dump(mode="json")
    for name in ("focus", "starts", "start_epochs"):
        del told["training"][name]
    text = {"experiment": told, "network": network().hash(), "chip": Chip.load("ideal").hash()}
    assert key == hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()


def test_series_have_no_votes(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "hwgle/zoo/experiments/mackey-glass.yaml").read_text()
    path = tmp_path / "e.yaml"
    path.write_text(text + "  focus: 0.5\n")
    with pytest.raises(FileMistakes, match=r"training\.focus.*0\.5.*allowed: 0 with loss mse"):
        Experiment.load(path)


def test_series_from_python_have_none_either(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"focus is 0\.5: a series has no votes"):
        test_tasks_training.trainer(tmp_path, test_tasks_training.experiment(focus=0.5))
