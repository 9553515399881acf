"""Votes and accuracies, on a chip and in float."""

from __future__ import annotations

import numpy as np
import pytest
from networks import draw_weights, make_network, slow_sines

from hwgle import accuracy, session
from hwgle.accuracy import (
    Votes,
    chip_scales,
    chip_votes,
    in_streams,
    part,
    score,
    sqnr,
    stream_length,
    sums,
)
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.reference import Reference
from hwgle.session import run
from hwgle.tasks import Split

IDEAL = Chip.load("ideal")
RNG = np.random.default_rng(11)
NETWORK = make_network([9, 4], ["tanh", "linear"], RNG, inputs=2, loss="cross_entropy")
WEIGHTS = draw_weights(NETWORK, RNG)
STEPS, COUNT, STREAMS = 50, 60, 3
X = np.swapaxes(slow_sines(RNG, STEPS, COUNT, 2), 0, 1).astype(np.float32)
SPLIT = Split(X, RNG.integers(0, 4, COUNT))


def float_votes() -> Votes:
    """The oracle on the samples, state kept from each to the next of its stream."""
    oracle = Reference(NETWORK, WEIGHTS, STREAMS)
    output = oracle.run(np.swapaxes(in_streams(SPLIT), 0, 1), record=())["output"]
    return Votes(sums(output, COUNT))


def test_streams_hold_the_samples_one_behind_the_other() -> None:
    x = in_streams(SPLIT)
    assert x.shape == (STREAMS, STEPS * COUNT // STREAMS, 2)
    assert np.array_equal(x[1, STEPS : 2 * STEPS], SPLIT.x[COUNT // STREAMS + 1])
    assert [stream_length(n) for n in (1, 19, 20, 23, 30, 1000)] == [1, 19, 20, 1, 15, 20]


def test_sums_are_of_each_sample() -> None:
    output = np.zeros((STEPS * COUNT // STREAMS, STREAMS, 4))
    output[STEPS : 2 * STEPS, 1, 3] = 1
    votes = sums(output, COUNT)
    assert votes[COUNT // STREAMS + 1].tolist() == [0, 0, 0, STEPS]
    assert votes.sum() == STEPS


def test_chip_votes_are_sums_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scales = chip_scales(NETWORK, IDEAL, WEIGHTS, SPLIT)
    with Emulator() as device:
        x = np.swapaxes(in_streams(SPLIT), 0, 1)
        result = run(device, NETWORK, IDEAL, WEIGHTS, x, scales=scales)
        for group in (1, 2, 500):
            monkeypatch.setattr(session, "GROUP", group)
            votes = chip_votes(device, NETWORK, IDEAL, WEIGHTS, scales, SPLIT)
            want = sums(result.signals["output"], COUNT)
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
    assert sqnr(float_votes().sums, votes.sums) > 45


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    scales = chip_scales(NETWORK, IDEAL, WEIGHTS, SPLIT)
    with Emulator() as device:
        chip_votes(device, NETWORK, IDEAL, WEIGHTS, scales, SPLIT, lambda a, b: seen.append((a, b)))
    assert seen[-1] == (COUNT, COUNT)


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
