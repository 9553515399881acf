"""Updates, drift, dead neurons, stuck synapses, read-outs: each does what it says."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from chip_checks import (
    SIGMAS,
    TABLES,
    check_uncorrelated,
    noise_plan,
    part,
    state_of,
)
from imperfections import chip_of
from networks import quantised, random_case
from random_images import (
    LINEAR,
    ONE,
    TANH,
    Core,
    all_signals,
    draw_plan,
    draw_run,
)

from hwgle.calibrate import calibrate
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.identity import draw
from hwgle.quantise import quantise_weights


def test_update_max_is_the_largest_update(table: str, seed: int) -> None:
    for most in (1, 5, 40):
        plan = draw_plan(seed, 410, on=("update_noise", "update_max"), layers=2)
        plan.update_max = most
        for y in plan.layers:
            y.learn, y.rate_shift = 1, y.rate_shift - 12
        run = draw_run(plan, seed, 410, steps=10, batch=4)
        core = Core(plan.words(), 4, table).write(run.weights)
        largest, before = 0, core.read()
        for t in range(10):
            core.run(*part(plan, run, t, t + 1), learn=True)
            after = core.read()
            for (a, _), (b, _) in zip(before, after, strict=True):
                largest = max(largest, int(np.abs(a.astype(int) - b).max()))
            before = after
        assert largest == most


@pytest.mark.parametrize("batch", [4, 20])
def test_from_one_end_to_the_other_nothing_is_clipped(batch: int, table: str, seed: int) -> None:
    """The largest update is as wide as the range of a weight; one more or less is not."""
    clipped = 0
    for most, slower in product((199, 200, 201), range(0, 18, 3)):
        plan = draw_plan(seed, 410, on=("update_max",), layers=2, neurons=20, inputs=40)
        plan.update_max = most
        for y in plan.layers:
            y.learn, y.w_max, y.w_shift, y.w_left = 1, 100, 0, 0
            y.rate_shift -= slower
        assert plan.valid()
        run = draw_run(plan, seed, 410, steps=20, batch=batch)
        weights = [(np.clip(w, -100, 100), b) for w, b in run.weights]
        states = []
        for name in ("scalar", table):
            core = Core(plan.words(), batch, name).write(weights)
            core.run(*part(plan, run, 0, 20), learn=True)
            states.append(state_of(core))
        assert states[0] == states[1], (most, slower)
        clipped += sum(c["sat_w"] for c in states[0]["counters"])
    assert clipped > 0


@pytest.mark.parametrize(("start", "shift", "drifts"), [(6000, 4, 30), (1, 3, 12), (-3000, 7, 60)])
def test_drift_takes_its_share(start: int, shift: int, drifts: int, seed: int) -> None:
    """In the mean the share 2^-shift a drift, exactly: even a weight of 1 LSB decays."""
    plan = noise_plan(2, 80, seed)
    plan.inputs, plan.drift_every, plan.drift_shift = 80, 3, shift
    core = Core(plan.words(), 1)
    core.write([(np.full((80, 80), start, np.int16), np.zeros(80, np.int32))] * 2)
    x = np.zeros((3, 1, 80), np.int16)
    keep = 1 - 2.0**-shift
    mean, variance = float(start), 0.0
    for k in range(drifts):
        core.run(x[:2])
        frozen = core.read()
        core.run(x[2:])
        after = core.read()
        assert any(not np.array_equal(a[0], b[0]) for a, b in zip(frozen, after, strict=True))
        mean *= keep
        # of a rounding: at most a quarter
        variance = variance * keep**2 + 0.25
        w = np.stack([a[0] for a in after]).astype(float)
        error = (min(variance, abs(start)) / w.size) ** 0.5
        assert abs(w.mean() - mean) < SIGMAS * error, k
        assert np.all(np.abs(w) <= abs(start))
        assert np.all(w * np.sign(start) >= 0)
    # what one synapse loses says nothing of the next one, nor of the other layer
    last = np.stack([a[0].astype(float) for a in after])
    if last.std() > 0.3 and last.size >= 10000:
        flat = last.reshape(2, -1)
        check_uncorrelated(flat.T)
        check_uncorrelated(np.stack([flat[0][:-1], flat[0][1:]], axis=1))


def test_drift_does_not_ask_what_is_learned(seed: int, table: str) -> None:
    """Layers that do not learn drift too, by the number of steps since the reset."""
    plan = draw_plan(seed, 430, on=("drift",), layers=2)
    plan.drift_every = 4
    for y in plan.layers:
        y.learn = 0
    run = draw_run(plan, seed, 430, steps=9, batch=2)
    core = Core(plan.words(), 2, table).write(run.weights)
    moved = []
    before = core.read()
    for t in range(9):
        core.run(*part(plan, run, t, t + 1))
        after = core.read()
        moved.append(
            any(not np.array_equal(a[0], b[0]) for a, b in zip(before, after, strict=True))
        )
        before = after
    assert moved == [t in (3, 7) for t in range(9)]


def test_a_dead_neuron_says_nothing_and_learns_nothing(table: str, seed: int) -> None:
    """Gain 0: rate 0 and slope 0, so that no error passes it."""
    for k in range(5):
        plan = draw_plan(seed, 440 + k, on=("analog",), sizes=(6, 4), inputs=5)
        plan.layers[0].learn = plan.layers[1].learn = 1
        plan.layers[0].phi = (TANH, LINEAR, 2, 3, 4)[k]
        assert plan.analog is not None
        plan.analog[2] = (12345, 0, 0, ONE)
        run = draw_run(plan, seed, k, steps=20, batch=3)
        core = Core(plan.words(), 3, table).write(run.weights)
        got = core.run(run.x, run.target, learn=True, record=all_signals(plan))
        assert not got[0, "r"][..., 2].any()
        assert not got[0, "e"][..., 2].any()
        assert got[0, "u"][..., 2].any()
        (w, _), (top, _) = core.read()
        assert np.array_equal(w[2], run.weights[0][0][2])
        assert np.array_equal(top[:, 2], run.weights[1][0][:, 2])


def test_a_stuck_synapse_does_not_hear_what_is_stored(table: str, seed: int) -> None:
    plan = draw_plan(seed, 460, on=("gains", "w_left"), sizes=(4, 3), inputs=5)
    assert plan.gains is not None
    plan.gains[0][1] = [-8192, -1, -16383, -8192 - 1000, -8192 + 500]
    run = draw_run(plan, seed, 460, steps=12, batch=3)
    results = []
    for fill in (0, plan.layers[0].w_max, -7):
        w = run.weights[0][0].copy()
        w[1] = fill
        core = Core(plan.words(), 3, table).write([(w, run.weights[0][1]), run.weights[1]])
        core.run(run.x, run.target)
        results.append(core.stream_digests())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("table", TABLES)
def test_each_clipped_read_out_is_counted_once(table: str, seed: int) -> None:
    """Of what the converter clips, and of nothing else: from the rates as they are inside."""
    case = random_case(seed + 3, layers=2, neurons=8, batch=5, steps=30, phis=("linear",))
    top = len(case.network.layers) - 1
    plain = chip_of({}, seed)
    narrow = chip_of({"readout": {"bits": 4, "offset": 4.0, "gain": 0.2}}, seed)
    inside: list[np.ndarray] = []
    for chip in (plain, narrow):
        q = quantised(case, chip, scales=calibrate(case.network, plain, case.weights, case.x))
        with Emulator(table) as body:
            body.load(q.image, case.batch)
            body.write_weights(quantise_weights(q.image, case.weights))
            block = Block(q.input, record=[(top, "r")])
            inside.append(body.run(block).signals[0])
            counters = body.counters()
    own = draw(narrow, case.network).layers[top]
    gain = np.floor(own.readout_gain * 8192 + 0.5).astype(np.int64)
    offset = np.floor(own.readout_offset * 64 + 0.5).astype(np.int64)
    drop = narrow.adc_drop
    level = inside[0] * gain + (offset << (7 + drop))
    code = (level + (1 << (12 + drop))) >> (13 + drop)
    clipped = np.abs(code) > narrow.adc_max
    assert np.array_equal(inside[1], np.clip(code, -narrow.adc_max, narrow.adc_max) << drop)
    assert counters[top]["sat_read"] == np.count_nonzero(clipped) > 0
    assert sum(c["sat_read"] for c in counters[:top]) == 0
