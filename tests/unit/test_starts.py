"""Several starts: the one that learned best goes on, with the bits it would have had alone."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trainer import TASK, Looks, experiment, network, outcome, trainer

from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.errors import FileMistakes, Interrupted, UsageError
from hwgle.learning.starts import best, seed_of
from hwgle.learning.trainer import Event, Trainer, key_of
from hwgle.weights import initial

# With this seed Adam goes on with the third: none of what follows may hold of the first alone.
STARTS = {"epochs": 4, "starts": 3, "start_epochs": 2, "learning_rate": 2e-3, "seed": 5}
RATES = {"sgd": 0.5, "normalised": 2.0**-6}


def several(rule: str = "adam", **more: Any) -> Any:
    rate = {"learning_rate": RATES[rule]} if rule in RATES else {}
    return experiment(rule, **{**STARTS, **rate, **more})


def without_starts(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "summary": {k: v for k, v in found["summary"].items() if k != "starts"}}


@pytest.mark.parametrize("rule", ["adam", "sgd", "normalised"])
def test_the_best_start_goes_on_as_if_it_had_been_the_only_one(tmp_path: Path, rule: str) -> None:
    ex = several(rule)
    trainer(tmp_path / "several", ex).run()
    found = outcome(tmp_path / "several")
    starts = found["summary"]["starts"]
    learned = []
    for number in range(3):
        text = (tmp_path / "several" / f"start-{number}" / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        learned.append(lines[-1]["accuracy_learning"])
    assert starts["learned"] == learned
    assert len(set(learned)) > 1, "all starts learned the same: nothing is chosen"
    assert starts["chosen"] == int(np.argmax(learned))
    assert rule != "adam" or starts["chosen"] == 2
    gain = ex.training.initial_gain
    weights = initial(network(), seed_of(ex.training.seed, starts["chosen"]), gain)
    alone = Trainer(
        several(rule, starts=1), network(), Chip.load("ideal"), TASK, Emulator(),
        tmp_path / "alone", weights=weights,
    )  # fmt: skip
    alone.run()
    assert without_starts(found) == outcome(tmp_path / "alone")


def test_the_first_start_is_that_of_a_single_one(tmp_path: Path) -> None:
    ex = several()
    trainer(tmp_path / "several", ex).run()
    trainer(tmp_path / "one", several(starts=1)).run()
    first = (tmp_path / "several" / "start-0" / "metrics.jsonl").read_text().splitlines()
    one = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()[: len(first)]

    def timeless(lines: list[str]) -> list[Any]:
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    assert timeless(first) == timeless(one)
    assert "starts" not in json.loads((tmp_path / "one" / "summary.json").read_text())
    assert not (tmp_path / "one" / "starts.json").exists()


def test_interrupted_starts_continue_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """In each start and in what goes on; what was learned is not learned again."""
    ex = several()
    looks = Looks(monkeypatch)
    trainer(tmp_path / "whole", ex).run()
    whole, total = outcome(tmp_path / "whole"), looks.count
    rng = np.random.default_rng(seed)
    quarters = [(q * total // 4 + 1, (q + 1) * total // 4) for q in range(4)]
    for case, (first, last) in enumerate(quarters):
        out, at = tmp_path / f"cut{case}", int(rng.integers(first, last))
        looks.count, looks.at = 0, at
        with pytest.raises(Interrupted, match="the same command continues"):
            trainer(out, ex).run()
        assert not (out / "summary.json").exists()
        looks.at = None
        trainer(out, ex).run()
        assert outcome(out) == whole, f"interrupted after {at} of {total} pieces"
        # Only the piece lengths of the first batch after a start may differ: they are measured.
        assert looks.count <= total + 2, f"interrupted after {at} of {total} pieces"


def test_told_to_stop_in_any_start(tmp_path: Path) -> None:
    """By a thread or a sweep, which have no signal."""
    ex = several()
    trainer(tmp_path / "whole", ex).run()
    events: list[Event] = []
    parts = network(), Chip.load("ideal"), TASK, Emulator(), tmp_path / "cut", events.append

    def run(stop: Any) -> None:
        Trainer(ex, *parts, stop=stop).run()

    for start in (0, 1, 2, None):
        with pytest.raises(Interrupted):
            run(lambda start=start: bool(events) and events[-1].start == start)
        assert events[-1].start == start
    run(lambda: False)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("start", [0, 2])
def test_sigint_after_the_last_step_of_a_start(tmp_path: Path, start: int) -> None:
    ex, sent = several(), []

    def interrupt(event: Event) -> None:
        if (event.start, event.epoch) == (start, 2) and not sent:
            sent.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        trainer(tmp_path / "cut", ex, interrupt).run()
    there = sorted(path.name for path in (tmp_path / "cut").glob("start-*"))
    assert there == [f"start-{n}" for n in range(min(3, start + 2))]
    trainer(tmp_path / "cut", ex).run()
    trainer(tmp_path / "whole", ex).run()
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_finished_starts_are_left_alone(tmp_path: Path) -> None:
    ex = several()
    trainer(tmp_path, ex).run()
    (tmp_path / "starts.json").unlink()
    (tmp_path / "checkpoint.npz").unlink()
    files = [tmp_path / f"start-{n}" / "checkpoint.npz" for n in range(3)]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    trainer(tmp_path, ex).run()
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in files] == before


def test_time_of_all_starts_counts(tmp_path: Path) -> None:
    events: list[Event] = []

    def slowly(event: Event) -> None:
        events.append(event)
        time.sleep(0.02)  # the summary has tenths of seconds

    trainer(tmp_path, several(), slowly).run()
    summary = json.loads((tmp_path / "summary.json").read_text())
    starts = json.loads((tmp_path / "starts.json").read_text())
    seconds = [begun["seconds"] for begun in starts["begun"]]
    assert summary["seconds"] >= round(sum(seconds), 1) > 0
    # Of what goes on: time and share of all starts, so that the rest is of the same kind.
    first = next(event for event in events if event.start is None)
    rest = first.seconds_left * first.share / (1 - first.share)
    assert rest >= sum(seconds)


def test_killed_between_the_choice_and_going_on(tmp_path: Path) -> None:
    ex = several()
    trainer(tmp_path, ex).run()
    whole = outcome(tmp_path)
    for name in ("checkpoint.npz", "metrics.jsonl", "summary.json", "weights.npz"):
        (tmp_path / name).unlink()
    trainer(tmp_path, ex).run()
    assert outcome(tmp_path) == whole


def test_a_finished_training_chooses_and_learns_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = several()
    trainer(tmp_path, ex).run()
    whole, looks = outcome(tmp_path), Looks(monkeypatch)
    trainer(tmp_path, ex).run()
    assert outcome(tmp_path) == whole
    assert looks.count == 0


def test_starts_end_where_a_training_does(tmp_path: Path) -> None:
    trainer(tmp_path, several(epochs=1)).run()
    found = outcome(tmp_path)
    lines = [(tmp_path / f"start-{n}" / "metrics.jsonl").read_text() for n in range(3)]
    assert [len(line.splitlines()) for line in lines] == [1, 1, 1]
    assert len(found["metrics"]) == 1


def test_starts_of_another_training_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, several()).run()
    for other in (several(starts=2), several(seed=6), several(start_epochs=1)):
        with pytest.raises(UsageError, match=r"starts\.json belongs to another"):
            trainer(tmp_path, other).run()
    trainer(tmp_path / "one", several(starts=1)).run()
    with pytest.raises(UsageError, match=r"checkpoint\.npz belongs to another"):
        trainer(tmp_path / "one", several()).run()
    assert not (tmp_path / "one" / "start-0").exists(), "learned before it looked"


def test_a_single_start_does_not_take_the_folder_of_several(tmp_path: Path) -> None:
    def stop_in_second(event: Event) -> None:
        if event.start == 1:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        trainer(tmp_path, several(), stop_in_second).run()
    parts = network(), Chip.load("ideal"), TASK, Emulator(), tmp_path
    for ex, weights in ((several(), initial(network(), 77)), (several(starts=1), None)):
        with pytest.raises(UsageError, match=r"start-[01]/checkpoint\.npz belongs to another"):
            Trainer(ex, *parts, weights=weights).run()
    trainer(tmp_path, several()).run()


def test_a_trainer_runs_twice(tmp_path: Path) -> None:
    one = trainer(tmp_path, several())
    assert one.run()["weights_digest"] == one.run()["weights_digest"]


def test_the_chosen_start_is_gone_or_anothers(tmp_path: Path) -> None:
    trainer(tmp_path, several()).run()
    (tmp_path / "checkpoint.npz").unlink()
    there = tmp_path / "start-2" / "checkpoint.npz"
    kept = there.read_bytes()
    there.unlink()
    with pytest.raises(FileMistakes, match="no such file"):
        trainer(tmp_path, several()).run()
    there.write_bytes((tmp_path / "start-1" / "checkpoint.npz").read_bytes())
    with pytest.raises(UsageError, match="belongs to another"):
        trainer(tmp_path, several()).run()
    assert not (tmp_path / "checkpoint.npz").exists()
    there.write_bytes(kept)
    trainer(tmp_path, several()).run()


def test_keys_of_starts_change_nothing_where_there_is_one() -> None:
    parts = network(), Chip.load("ideal")
    assert key_of(several(starts=1), *parts) == key_of(several(starts=1, start_epochs=7), *parts)
    keys = {key_of(several(**more), *parts) for more in ({}, {"starts": 2}, {"start_epochs": 3})}
    assert len(keys) == 3


DAMAGED = ["", "[]", "{}", "[" * 10**5, '{"key": "a", "begun": [], "chosen": 0}',
           '{"key": "a", "begun": [], "chosen": 1e999}']  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_choice_is_a_file_with_mistakes(tmp_path: Path, text: str) -> None:
    (tmp_path / "starts.json").write_text(text)
    with pytest.raises(FileMistakes, match="no starts"):
        trainer(tmp_path, several()).run()
    assert (tmp_path / "starts.json").read_text() == text


def test_given_weights_are_the_only_start(tmp_path: Path) -> None:
    given = initial(network(), 77)
    parts = network(), Chip.load("ideal"), TASK, Emulator()
    Trainer(several(), *parts, tmp_path, weights=given).run()
    assert not (tmp_path / "start-0").exists()


def test_progress_runs_over_all_starts(tmp_path: Path) -> None:
    events: list[Event] = []
    trainer(tmp_path, several(), events.append).run()
    shares = [event.share for event in events]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert [n for n, _ in sorted({(e.start is None, e.start or 0): 0 for e in events})] == [
        False, False, False, True,
    ]  # fmt: skip
    assert {e.epochs for e in events if e.start is not None} == {2}
    assert {e.epochs for e in events if e.start is None} == {4}
    seconds = [event.seconds_left for event in events[1:]]
    assert all(s >= 0 for s in seconds)


def test_which_is_best() -> None:
    assert best([0.5, 0.7, 0.7, 0.6], "accuracy") == 1
    assert best([0.5, 0.2, 0.3, 0.2], "nrmse") == 1


def test_seeds_of_starts_differ_and_the_first_is_the_trainings_own() -> None:
    for seed in (0, 1, 2**63 - 1):
        assert seed_of(seed, 0) == seed
    seeds = {seed_of(seed, start) for seed in range(20) for start in range(50)}
    assert len(seeds) == 20 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
