"""An ideal chip is what it always was, and imperfections can be switched off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from chip_checks import (
    digests_of,
    oracle_of,
    part,
    same,
    state_of,
    target_at,
)
from random_images import (
    FEATURES,
    NO_NEURON,
    ONE,
    Core,
    Plan,
    all_signals,
    draw_plan,
    draw_run,
    ideal_plan,
    noise_word,
)

# Taken from the core before a chip could have any imperfection: gle_digest after the 60
# steps of ideal_plan, without and with learning, and the streams of the first. Those with
# learning were taken again when neighbouring weights came to share random bits.
IDEAL = {
    0: (0x81E3D81AFF838E70, 0x5DEEA61BAA46524D),
    1: (0xD137AD189B82A50A, 0x9165B42322E2CEC7),
    2: (0x0B4C8B7A5C2A897F, 0x9D6D34FBE2C59D71),
    3: (0x4F35F4D0F54B17E0, 0xD005C428D6CE9D6C),
}
IDEAL_STREAMS = [
    *(0x95A6A9A33DF260FC, 0xDF97AB93074F3754, 0x4650197A2AAC3A65),
    *(0xF4225EA7A012BD29, 0x563A327EA0076B86),
]


@pytest.mark.parametrize("which", IDEAL)
def test_an_ideal_chip_has_the_digests_it_always_had(which: int, table: str) -> None:
    plan, run = ideal_plan(which)
    for learn in (False, True):
        core = Core(plan.words(), run.x.shape[1], table).write(run.weights)
        core.run(run.x, run.target, learn=learn, ranging=which == 3)
        assert core.digest() == IDEAL[which][learn], learn
    if which == 0:
        assert core.stream_digests() == IDEAL_STREAMS


def neutral(plan: Plan, feature: str) -> Plan:
    """The ideal plan with one imperfection there and without effect."""
    total = sum(y.size for y in plan.layers)
    every: dict[str, Callable[[], Plan]] = {
        "inputs": lambda: replace(plan, dac=[ONE] * plan.inputs),
        "gains": lambda: replace(
            plan,
            gains=[[[ONE] * plan.fan_in(k)] * y.size for k, y in enumerate(plan.layers)],
        ),
        "rows": lambda: replace(plan, rows=[0] * total),
        "analog": lambda: replace(plan, analog=[NO_NEURON] * total),
        "a read-out": lambda: replace(
            with_layers(plan, adc_drop=5, adc_max=31, noise_r=noise_word(32767, 0)),
            analog=[(0, ONE, noise_word(0, 9), 0x12343333)] * total,
        ),
        "noise_e": lambda: with_layers(plan, noise_e=noise_word(0, 3)),
        "noise_e, too small": lambda: with_layers(plan, noise_e=noise_word(1, 31)),
        "update_noise": lambda: replace(plan, update_noise=noise_word(0, -5)),
        "update_noise, too small": lambda: replace(plan, update_noise=noise_word(1, 31)),
        "update_max": lambda: replace(plan, update_max=65535),
        "drift": lambda: replace(plan, drift_every=0, drift_shift=30),
    }
    return every[feature]()


NEUTRAL = (
    *("inputs", "gains", "rows", "analog", "a read-out", "noise_e", "noise_e, too small"),
    *("update_noise", "update_noise, too small", "update_max", "drift"),
)


def with_layers(plan: Plan, **changes: int) -> Plan:
    """Words of every layer changed."""
    return replace(plan, layers=[replace(y, **changes) for y in plan.layers])


@pytest.mark.parametrize("feature", NEUTRAL)
def test_an_imperfection_of_no_effect_leaves_an_ideal_chip(feature: str, table: str) -> None:
    for which in IDEAL:
        plan, run = ideal_plan(which)
        plan = neutral(plan, feature)
        core = Core(plan.words(), run.x.shape[1], table).write(run.weights)
        core.run(run.x, run.target, learn=True, ranging=which == 3)
        assert core.digest() == IDEAL[which][1], which


# Those that can be taken away and leave the formats as they are.
SEPARATE = (
    *("inputs", "gains", "rows", "noise_u", "noise_e", "update_noise", "update_max", "drift"),
)


@pytest.mark.parametrize("feature", SEPARATE)
def test_each_imperfection_can_be_switched_off(feature: str, table: str, seed: int) -> None:
    """Off it is neutral or not there at all, which is the same; on it matters."""
    mattered = 0
    for k in range(6):
        plan = draw_plan(seed, 50 + k, on=FEATURES, neurons=12)
        gone = plan.without(feature)
        if feature in ("gains", "rows", "inputs") and not gone.valid():
            continue  # what is left of a chip with gains may lie out of range
        run = draw_run(plan, seed, k, steps=12, batch=3)
        off = plan
        if feature == "inputs":
            off = replace(plan, dac=[ONE] * plan.inputs)
        elif feature == "gains":
            off = replace(plan, gains=[[[ONE] * len(g) for g in m] for m in plan.gains or []])
        elif feature == "rows":
            off = replace(plan, rows=[0] * len(plan.rows or []))
        elif feature == "noise_u":
            quiet = [(a, b, noise_word(0, 31), d) for a, b, _, d in plan.analog or []]
            off = replace(plan, analog=quiet)
        elif feature == "noise_e":
            off = with_layers(plan, noise_e=noise_word(0, -5))
        elif feature == "update_noise":
            off = replace(plan, update_noise=noise_word(0, 0))
        else:
            off = gone
        expected = digests_of(gone, run, table)
        assert digests_of(off, run, table) == expected, plan.what
        mattered += digests_of(plan, run, table) != expected
    assert mattered >= 3


def test_a_read_out_changes_nothing_inside(table: str, seed: int) -> None:
    """ADC gain, offset, resolution and noise are for who looks, not for the neurons."""
    for k in range(6):
        plan = draw_plan(seed, 70 + k, on=FEATURES)
        run = draw_run(plan, seed, k, steps=12, batch=1 + 6 * (k % 2))
        plain = plan.without("adc").without("noise_r")
        plain.analog = [(a, b, c, ONE) for a, b, c, _ in plain.analog or []]
        assert digests_of(plain, run, table) == digests_of(plan, run, table), plan.what
        looked, blind = (
            Core(plan.words(), run.x.shape[1], table).write(run.weights) for _ in range(2)
        )
        got = looked.run(run.x, run.target, learn=True, record=all_signals(plan), votes=True)
        blind.run(run.x, run.target, learn=True)
        assert state_of(looked) == state_of(blind), plan.what
        top = len(plan.layers) - 1
        assert np.array_equal(got["votes"], got[top, "r"].sum(axis=0)), plan.what


def test_a_perfect_read_out_shows_the_rates(table: str, seed: int) -> None:
    for k in range(4):
        plan = draw_plan(seed, 80 + k, on=("analog", "noise_u"))
        plan.analog = [(a, b, c, ONE) for a, b, c, _ in plan.analog or []]
        run = draw_run(plan, seed, k, steps=5, batch=4)
        oracle = oracle_of(plan, run)
        core = Core(plan.words(), 4, table).write(run.weights)
        for t in range(5):
            x, target = part(plan, run, t, t + 1)
            got = core.run(x, target, record=all_signals(plan))
            oracle.step(x[0].tolist(), target_at(plan, run, t).tolist(), False)
            for n, y in enumerate(oracle.layers):
                same(got[n, "r"][0], y.r, plan.what, n)
