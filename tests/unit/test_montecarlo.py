"""Many chips: results depend on seeds alone, and nothing that is finished is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import make_network

from hwgle import montecarlo
from hwgle.chip import Chip
from hwgle.errors import FileMistakes, Interrupted, UsageError
from hwgle.experiment import Experiment
from hwgle.identity import identity_hash
from hwgle.learning import trainer as trainer_module
from hwgle.montecarlo import (
    Study,
    accuracies,
    chip_folder,
    read_lines,
    simulate,
    spread,
    stages,
    summarise,
    yield_at,
)
from hwgle.report.yield_plot import curve, yield_curves
from hwgle.tasks import Split, Task
from hwgle.weights import initial

STEPS, CLASSES = 20, 3
SEEDS = (3, 4, 5, 6)
PROFILE = {
    "format": "hwgle/chip/1",
    "name": "rough",
    "weight": {"bits": 8, "stored_bits": 8, "mismatch": 0.3},
    "rate": {"bits": 10},
    "input": {"bits": 8},
    "membrane": {"noise": 0.01},
    "leak": {"mismatch": 0.2},
    "error": {"bits": 14},
}


def split(count: int, seed: int) -> Split:
    """Waves of three frequencies, which are the classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    t = np.arange(STEPS)
    wave = np.sin((y[:, None] + 1) * 0.3 * t + rng.uniform(0, 6, (count, 1)))
    return Split(wave[:, :, None].astype(np.float32), y.astype(np.int64))


TASK = Task("waves", split(40, 1), split(20, 2), split(30, 3))


def study(learn: bool = True, **training: Any) -> Study:
    rng = np.random.default_rng(0)
    net = make_network([6, CLASSES], ["tanh", "linear"], rng, inputs=1, loss="cross_entropy")
    experiment = Experiment.model_validate(
        {
            "format": "hwgle/experiment/1",
            "name": "waves",
            "network": "waves",
            "chip": "rough",
            "task": {"name": "mnist1d", "seed": 1, "validation_seed": 2, "train": 40, "test": 30},
            "training": {
                "rule": "adam",
                "epochs": 2,
                "batch": 10,
                "learning_rate": 1e-3,
                **training,
            },
        }
    )
    return Study(experiment, net, Chip.model_validate(PROFILE), initial(net, 7), learn)


def run(
    out: Path,
    workers: int = 1,
    what: Study | None = None,
    seeds: Sequence[int] = SEEDS,
    progress: Callable[..., None] = lambda *told: None,
) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(workers) as pool:
        return simulate(what or study(), TASK, seeds, out, pool, progress)


def test_lines_do_not_depend_on_workers_and_go_with_the_seed(tmp_path: Path) -> None:
    one = run(tmp_path / "one")
    assert run(tmp_path / "three", workers=3) == one
    files = [(tmp_path / name / "chips.jsonl").read_bytes() for name in ("one", "three")]
    assert files[0] == files[1]
    assert [line["seed"] for line in one] == list(SEEDS)
    chip = study().chip
    assert [line["identity"] for line in one] == [
        identity_hash(chip.model_copy(update={"seed": seed})) for seed in SEEDS
    ]
    assert len({line["learned"]["weights_digest"] for line in one}) == len(SEEDS)
    # the same chips, whatever others are beside them
    assert run(tmp_path / "two", seeds=(6, 4)) == [one[3], one[1]]


def test_what_learned_weights_give_can_be_read_again(tmp_path: Path) -> None:
    lines = run(tmp_path, seeds=(3,))
    folder = chip_folder(tmp_path, 3)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"] == lines[0]["learned"]["raw"]
    assert (folder / "weights.npz").exists()
    assert not (folder / "checkpoint.npz").exists()  # large, and of no use any more


def test_more_chips_join_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "more", seeds=SEEDS[:2])
    measured: list[int] = []
    original = montecarlo.measure

    def measure(study: Study, task: Task, seed: int, *rest: Any) -> Any:
        measured.append(seed)
        return original(study, task, seed, *rest)

    monkeypatch.setattr(montecarlo, "measure", measure)
    assert run(tmp_path / "more") == whole
    assert measured == list(SEEDS[2:])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [1, 9, 40])
def test_interrupted_and_continued_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, at: int
) -> None:
    run(tmp_path / "whole")
    monkeypatch.setattr(trainer_module, "PIECE_SECONDS", 0.0)
    looks, lock = 0, threading.Lock()
    original = trainer_module.Trainer._look

    def look(self: trainer_module.Trainer) -> None:
        nonlocal looks
        with lock:
            looks += 1
            mine = looks == at
        if mine:
            os.kill(os.getpid(), signal.SIGINT)
            # Until the main thread has heard: this chip could be finished before it does.
            while not (self._stop or self._told_to_stop()):
                time.sleep(0.001)
        original(self)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(trainer_module.Trainer, "_look", look)
        with pytest.raises(Interrupted, match="of 4 chips are finished") as caught:
            run(tmp_path / "cut", workers)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    finished = read_lines(tmp_path / "cut" / "chips.jsonl", study().key())
    assert len(finished) < len(SEEDS)
    run(tmp_path / "cut", workers)
    files = [(tmp_path / name / "chips.jsonl").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_one_chip_that_fails_ends_it_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = montecarlo.measure

    def measure(study: Study, task: Task, seed: int, *rest: Any) -> Any:
        if seed == 5:
            raise UsageError("no such chip")
        return original(study, task, seed, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(montecarlo, "measure", measure)
        with pytest.raises(UsageError, match="no such chip"):
            run(tmp_path)
    assert set(read_lines(tmp_path / "chips.jsonl", study().key())) == {3, 4}
    assert len(run(tmp_path)) == 4


def test_results_of_another_study_are_refused(tmp_path: Path) -> None:
    run(tmp_path, seeds=(3,))
    before = (tmp_path / "chips.jsonl").read_bytes()
    weights = {name: 2 * w for name, w in study().weights.items()}
    others = [
        study(epochs=3),
        study(learn=False),
        Study(study().experiment, study().network, Chip.load("ideal"), study().weights),
        Study(study().experiment, study().network, study().chip, weights),
    ]
    for other in others:
        with pytest.raises(UsageError, match="belongs to another"):
            run(tmp_path, what=other)
    assert (tmp_path / "chips.jsonl").read_bytes() == before
    (tmp_path / "chips.jsonl").write_bytes(before[:-20])
    with pytest.raises(FileMistakes, match=r"chips\.jsonl:1"):
        run(tmp_path)


def test_without_learning_chips_are_only_judged(tmp_path: Path) -> None:
    learned = run(tmp_path / "learned", seeds=(3, 4))
    lines = run(tmp_path / "judged", what=study(learn=False), seeds=(3, 4))
    assert stages(lines) == ["before"]
    assert [x["before"] for x in lines] == [x["before"] for x in learned]
    assert not (tmp_path / "judged" / "chips").exists()


def test_chips_are_measured_once_and_learn_from_what_that_corrects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = replace(study(), calibrate=True)
    measured = 0
    original = montecarlo.measure_chip

    def measure_chip(*args: Any, **options: Any) -> Any:
        nonlocal measured
        measured += 1
        return original(*args, **options)

    monkeypatch.setattr(montecarlo, "measure_chip", measure_chip)
    (line,) = run(tmp_path / "whole", what=what, seeds=(3,))
    assert list(line) == ["key", "seed", "identity", "before", "calibrated", "learned"]
    assert measured == 1

    def interrupted(self: Any) -> Any:
        raise Interrupted("while learning: what was measured stays")

    with monkeypatch.context() as patched:
        patched.setattr(trainer_module.Trainer, "run", interrupted)
        with pytest.raises(Interrupted):
            montecarlo.measure(what, TASK, 3, chip_folder(tmp_path / "cut", 3))
    assert measured == 2
    assert run(tmp_path / "cut", what=what, seeds=(3,)) == [line]
    assert measured == 2
    with pytest.raises(UsageError, match="belongs to another"):
        run(tmp_path / "whole", seeds=(3,))


def test_progress_grows_to_all_chips(tmp_path: Path) -> None:
    told: list[tuple[int, float, Any]] = []
    lines = run(tmp_path, workers=2, progress=lambda *what: told.append(what))
    shares = [finished + parts for finished, parts, _ in told]
    assert shares == sorted(shares)
    assert told[0] == (0, 0, None)
    assert told[-1] == (len(SEEDS), 0, None)
    assert sorted(x["seed"] for _, _, x in told if x) == [line["seed"] for line in lines]
    assert [n for n, _, x in told if x] == [1, 2, 3, 4]


def lines_of(values: Sequence[float], stage: str = "before") -> list[dict[str, Any]]:
    return [{"seed": k, stage: {"raw": v, "offset_calibrated": v}} for k, v in enumerate(values)]


def test_spread_and_yield() -> None:
    lines = lines_of([0.9, 0.7, 0.8, 0.6])
    found = summarise(lines)["before"]["raw"]
    assert found == pytest.approx(
        {
            "mean": 0.75,
            "sd": np.sqrt(0.05 / 3),
            "min": 0.6,
            "q1": 0.675,
            "median": 0.75,
            "q3": 0.825,
            "max": 0.9,
        }
    )
    assert spread(np.array([0.5]))["sd"] == 0.0
    values = accuracies(lines, "before", "raw")
    assert [yield_at(values, x) for x in (0.6, 0.61, 0.8, 0.9, 0.95)] == [1, 0.75, 0.5, 0.25, 0]


def test_yield_curve_is_the_yield_at_every_accuracy() -> None:
    values = np.array([0.6, 0.8, 0.8, 0.9])
    x, y = curve(values)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 1, 1, 0)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) <= 0)
    for least in (0.3, 0.599, 0.601, 0.79, 0.81, 0.89, 0.91):
        assert np.interp(least, x, y) == pytest.approx(yield_at(values, least))


def test_figure_says_means_and_how_many_chips() -> None:
    lines = [
        {**a, **b}
        for a, b in zip(lines_of([0.4, 0.6]), lines_of([0.8, 0.9], "learned"), strict=True)
    ]
    figure = yield_curves(lines, {"before": "before", "learned": "after 2 epochs"}, 0.91, "title")
    axes = figure.axes[0]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "before, raw: mean 50.0 %" in texts
    assert "after 2 epochs, offset-calibrated: mean 85.0 %" in texts
    assert any("91.0 %" in text for text in texts)
    assert "of 2" in axes.get_ylabel()
