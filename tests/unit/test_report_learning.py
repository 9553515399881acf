"""Directions of updates and the plasticity audit."""

from __future__ import annotations

import numpy as np
import pytest

from hwgle.accuracy_report import learning
from hwgle.accuracy_report.signals import Basis
from hwgle.adjoint import cosine, online_gradient
from hwgle.chip import Chip
from tests.reports import Drawn, drawn


def chip_with(**plasticity: object) -> Chip:
    ideal = Chip.load("ideal")
    changed = ideal.plasticity.model_copy(update=plasticity)
    return ideal.model_copy(update={"plasticity": changed})


def learned(d: Drawn, chip: Chip) -> dict[str, dict[str, float]]:
    layers: dict[str, dict[str, float]] = learning.audit(
        d.network, chip, d.weights, d.chosen.first(2), d.basis
    )["layers"]
    return layers


def test_directions_of_an_ideal_chip_are_those_of_float() -> None:
    d = drawn(1)
    lessons = d.chosen.first(2)
    found = learning.Directions(d.network, d.weights, lessons).figures(Chip.load("ideal"), d.basis)
    for name, own in found["layers"].items():
        assert own["cosine_gle"] > 0.99, name
        assert own["size_gle"] == pytest.approx(1, abs=0.05), name
    assert found["mean"]["cosine_gle"] > 0.99


def test_directions_against_plain_ones() -> None:
    """Float GLE as summed by itself; the adjoint where gamma is 0, none elsewhere."""
    for seed in range(12):
        d = drawn(seed)
        lessons = d.chosen.first(2)
        found = learning.Directions(d.network, d.weights, lessons)
        assert (found.adjoint is None) == (d.network.gamma != 0)
        told = found.figures(Chip.load("ideal8"), d.basis)["all"]
        assert (told["cosine_adjoint"] is None) == (d.network.gamma != 0)
        if found.adjoint is not None:
            break
    target = learning.unasked(d.network, lessons)
    own = online_gradient(d.network, d.weights, lessons.x, target)
    keys = [k for k in own if k.endswith(".weight")]
    exact = {k: found.adjoint[k] for k in keys} if found.adjoint is not None else {}
    assert told["gle_cosine_adjoint"] == pytest.approx(cosine({k: own[k] for k in keys}, exact))


def test_updates_that_are_too_small_round_to_nothing() -> None:
    d = drawn(1)
    tiny = learned(d, chip_with(learning_rate=2.0**-40, rounding="nearest"))
    assert all(own["to_nothing"] == 1.0 for own in tiny.values())
    assert all(own["moved_size"] == 0.0 for own in tiny.values())
    usual = learned(d, chip_with(learning_rate=2.0**-4, rounding="stochastic"))
    assert all(own["to_nothing"] < 1.0 for own in usual.values())
    top = list(usual)[-1]
    assert usual[top]["moved_cosine"] > 0.9
    assert usual[top]["moved_size"] == pytest.approx(1, abs=0.2)


def test_updates_that_are_too_large_meet_the_range() -> None:
    d = drawn(1)
    huge = learned(d, chip_with(learning_rate=16.0))
    assert max(own["saturated"] for own in huge.values()) > 0.01


def test_the_shadow_learns_the_same_samples() -> None:
    d = drawn(1)
    basis: Basis = d.basis
    found = learning.audit(d.network, chip_with(learning_rate=2.0**-30), d.weights, d.chosen, basis)
    loss = found["loss"]
    assert len(loss["chip"]) == d.chosen.segments
    assert np.allclose(loss["chip"], loss["float"], rtol=0.02, atol=1e-3)
