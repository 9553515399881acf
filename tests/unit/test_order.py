"""Balanced orders: every sample once, classes spread evenly, reproducible."""

from __future__ import annotations

import numpy as np

from hwgle.learning.order import balanced_order


def test_every_sample_once_and_classes_even(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(10, 4000, p=np.arange(1, 11) / 55)
    order = balanced_order(labels, np.random.default_rng(seed + 1))
    assert sorted(order) == list(range(4000))
    share = np.bincount(labels, minlength=10) / 4000
    for batch in labels[order].reshape(40, 100):
        counts = np.bincount(batch, minlength=10)
        assert np.all(np.abs(counts - 100 * share) < 2), f"seed {seed}"


def test_the_generator_decides() -> None:
    labels = np.repeat(np.arange(4), 25)
    first, again, other = (balanced_order(labels, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert first.tolist() != list(range(100))
