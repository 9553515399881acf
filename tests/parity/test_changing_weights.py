"""Weights that change at some steps and stay at others: kernels multiply with what is stored, or
with copies that must be made anew, and every table gives the bits of the scalar one.
"""

from __future__ import annotations

from typing import Any

import pytest
from networks import Quantised, quantised
from test_kernels import VECTORS, all_signals, differences, sized_case, table_exists
from test_splits import state_of

from hwgle.calibrate import FOR_TRAINING
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.onchip import OnChip
from hwgle.quantise import Quantised as Weights
from hwgle.quantise import quantise_weights

# What happens, one after the other: so many steps with and without learning, weights from
# outside, back to the first of the snapshots.
COURSES = (
    ("learn 1", "stay 3", "learn 2", "stay 1", "learn 1", "stay 2"),
    ("stay 2", "write", "stay 1", "write", "learn 1", "write", "stay 3", "back", "stay 2"),
)
CHIPS = ("ideal", "weights8", "crossbar")


def followed(
    table: str, course: tuple[str, ...], q: Quantised, weights: Weights
) -> list[dict[str, Any]]:
    """All that can be read after each part of a course."""
    found, at = [], 0
    held = q.image.network.loss == "cross_entropy"
    other = {name: (-w, b) for name, (w, b) in weights.items()}
    record = all_signals(q.image.network)
    with Emulator(table) as chip:
        chip.load(q.image, q.input.shape[1])
        chip.write_weights(weights)
        first = chip.snapshot()
        for part in course:
            what, _, steps = part.partition(" ")
            signals: dict[str, Any] = {}
            if what == "write":
                other, weights = weights, other
                chip.write_weights(weights)
            elif what == "back":
                chip.restore(first)
            else:
                end = at + int(steps)
                target = q.target if held else q.target[at:end]
                block = Block(q.input[at:end], target, learn=what == "learn", record=record)
                for pair, values in zip(record, chip.run(block).signals, strict=True):
                    signals[str(pair)] = values
                at = end
            found.append(state_of(chip) | signals)
    return found


@pytest.mark.parametrize("every", [1, 3], ids="applied every {}".format)
@pytest.mark.parametrize("profile", CHIPS)
@pytest.mark.parametrize("table", VECTORS)
def test_weights_that_change_and_stay(table: str, profile: str, every: int, seed: int) -> None:
    if not table_exists(table):
        pytest.skip(f"this machine has no {table}")
    chip = Chip.load(profile).model_copy(update={"seed": seed})
    for batch, sizes in ((33, [150, 34, 5]), (100, [17, 131])):
        case = sized_case(seed, 133, sizes, batch, steps=12)
        rule = OnChip(apply_every=every)
        q = quantised(case, chip, None, FOR_TRAINING, learning_rate=2.0**-5, learner=rule)
        weights = quantise_weights(q.image, case.weights)
        for course in COURSES:
            expected = followed("scalar", course, q, weights)
            got = followed(table, course, q, weights)
            for part, one, other in zip(course, expected, got, strict=True):
                assert differences(one, other) == [], (case, course, part)
            updates = [sum(c["updates"] for c in one["counters"]) for one in expected]
            assert max(updates) > 0 or every > 1, (case, course)
