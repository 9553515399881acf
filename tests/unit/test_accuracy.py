"""Votes and accuracies, on a chip and in float."""

from __future__ import annotations

import numpy as np
import pytest
from networks import draw_weights, make_network, slow_sines

from hwgle import accuracy
from hwgle.accuracy import Votes, chip_scales, chip_votes, float_votes, part, score, sqnr
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.reference import Reference
from hwgle.session import run
from hwgle.tasks import Split

IDEAL = Chip.load("ideal")
RNG = np.random.default_rng(11)
NETWORK = make_network([9, 4], ["tanh", "linear"], RNG, inputs=2, loss="cross_entropy")
WEIGHTS = draw_weights(NETWORK, RNG)
X = np.swapaxes(slow_sines(RNG, 50, 23, 2), 0, 1).astype(np.float32)
SPLIT = Split(X, RNG.integers(0, 4, 23))


def test_float_votes_are_sums_of_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Reference(NETWORK, WEIGHTS, 23)
    output = oracle.run(np.swapaxes(X, 0, 1), record=())["output"]
    for group in (5, 23, 100):
        monkeypatch.setattr(accuracy, "FLOAT_GROUP", group)
        assert np.allclose(float_votes(NETWORK, WEIGHTS, SPLIT).sums, output.sum(axis=0))


def test_chip_votes_are_sums_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scales = chip_scales(NETWORK, IDEAL, WEIGHTS, SPLIT)
    with Emulator() as device:
        x = np.swapaxes(X, 0, 1)
        result = run(device, NETWORK, IDEAL, WEIGHTS, x, scales=scales)
        for group in (5, 23, 500):
            monkeypatch.setattr(accuracy, "GROUP", group)
            votes = chip_votes(device, NETWORK, IDEAL, WEIGHTS, scales, SPLIT)
            want = result.signals["output"].sum(axis=0, dtype=np.float64)
            assert np.array_equal(votes.sums, want)
            assert votes.digest == result.digest
            assert votes.clipped == 0


def test_clipped_values_are_counted() -> None:
    scales = chip_scales(NETWORK, IDEAL, WEIGHTS, Split(X / 100, SPLIT.y))
    with Emulator() as device:
        assert chip_votes(device, NETWORK, IDEAL, WEIGHTS, scales, SPLIT).clipped > 0


def test_chip_and_float_agree_closely() -> None:
    scales = chip_scales(NETWORK, IDEAL, WEIGHTS, SPLIT)
    with Emulator() as device:
        votes = chip_votes(device, NETWORK, IDEAL, WEIGHTS, scales, SPLIT)
    assert sqnr(float_votes(NETWORK, WEIGHTS, SPLIT).sums, votes.sums) > 45


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    float_votes(NETWORK, WEIGHTS, SPLIT, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (23, 23)


def test_part_takes_the_first() -> None:
    some = part(SPLIT, 7)
    assert len(some) == 7
    assert np.array_equal(some.x, X[:7])


def test_score_raw_and_with_offsets() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 600)
    sums = rng.normal(size=(600, 3))
    sums[np.arange(600), labels] += 4
    biased = Votes(sums + np.array([0, 0, 6]))
    split = Split(np.zeros((600, 1, 1), dtype=np.float32), labels)
    found = score(biased, split, biased, split)
    assert found.raw < 0.6
    assert found.calibrated > 0.95


def test_accuracy_counts_hits() -> None:
    votes = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert accuracy.accuracy(votes, np.array([0, 1, 1, 1])) == 0.75


def test_sqnr() -> None:
    reference = np.ones(1000)
    assert sqnr(reference, reference + 0.1) == pytest.approx(20)
    assert sqnr(reference, reference) == float("inf")
