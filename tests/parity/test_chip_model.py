"""A chip with imperfections is in every bit what the contract of its image says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chip_checks import (
    TABLES,
    check_against_oracle,
    check_seeds,
    noise_plan,
    oracle_of,
    part,
    same,
    state_of,
    target_at,
)
from hwgle._core import ffi, lib
from random_images import (
    FEATURES,
    ONE,
    ONE_COEFFICIENT,
    STATE_MAX,
    Core,
    Run,
    all_signals,
    draw_plan,
    draw_run,
    noise_of,
    one_channel,
)


def test_random_chips(seed: int) -> None:
    reached = check_seeds(range(seed, seed + 40), False)
    assert min(reached[name] for name in ("updates", "under_w", "sat_r", "range_moves")) > 0


def test_random_chips_at_the_ends_of_every_range(seed: int) -> None:
    reached = check_seeds(range(seed + 1000, seed + 1040), True)
    assert [name for name, count in reached.items() if count == 0] == ["sat_gradient", "sat_read"]


@pytest.mark.parametrize("batch", [1, 3, 17, 150])
@pytest.mark.parametrize("feature", FEATURES)
def test_each_imperfection_alone(feature: str, batch: int, seed: int) -> None:
    """The smallest chip that fails, if one does; and that the imperfection does something."""
    on = {feature} | ({"analog"} if feature in ("noise_u", "noise_r", "adc") else set())
    on |= {"w_left"} if feature == "gains" else set()
    for k in range(2):
        plan = draw_plan(seed, k, on=[f for f in FEATURES if f in on], layers=2, neurons=5)
        run = draw_run(plan, seed, k, steps=10, batch=batch)
        check_against_oracle(plan, run, learn=True)


@pytest.mark.parametrize("inputs", [1, 2, 31, 32, 33, 70])
def test_wide_rows(inputs: int, seed: int) -> None:
    """Around the vectors' widths and the spills of sums, everything on."""
    for batch in (1, 2, 20):
        plan = draw_plan(seed, inputs, batch, on=FEATURES, sizes=(5, 3), inputs=inputs)
        run = draw_run(plan, seed, inputs, steps=4, batch=batch)
        check_against_oracle(plan, run, learn=True)
        plan = draw_plan(seed, inputs, batch, extreme=True, sizes=(3, 5), inputs=inputs)
        run = draw_run(plan, seed, inputs, steps=4, batch=batch, extreme=True)
        check_against_oracle(plan, run, learn=True)


@pytest.mark.parametrize("inputs", [33, 66, 70])
def test_sums_of_the_largest_inputs(inputs: int, seed: int) -> None:
    """A DAC of one bit with offsets, synapses that are stuck: the array has full scale all
    the same, and sums do not fit an int32."""
    for sign in (1, -1):
        for batch in (1, 3):
            plan = draw_plan(
                seed, 9, on=("inputs", "gains"), sizes=(inputs, 3), inputs=inputs, extreme=True
            )
            plan.input_max = 1
            plan.dac = [one_channel(32767, 32767 * sign)] * inputs
            plan.gains = [
                [[-16383 if sign > 0 else -1] * plan.fan_in(k) for _ in range(y.size)]
                for k, y in enumerate(plan.layers)
            ]
            plan.layers[0].learn = 0
            plan.layers[1].e_max = 8191
            run = draw_run(plan, seed, 9, steps=4, batch=batch, extreme=True)
            check_against_oracle(plan, run, learn=True)


@pytest.mark.parametrize("loss", [0, 1])
def test_rates_far_beyond_their_range_are_compared(loss: int, seed: int) -> None:
    """The output's rate before it travels has no limit but that of a sum, gain included."""
    for sign in (1, -1):
        for beta in (1, 20000):
            plan = noise_plan(1, 4, seed, u_frac=10, r_frac=6, e_frac=-4 if beta > 1 else 8)
            plan.loss, plan.beta = loss, beta << 8 | 31
            large = 32767 << 8 | 13  # ratio 4: uhat beyond a state
            plan.neurons = [(ONE_COEFFICIENT, large, ONE_COEFFICIENT, ONE_COEFFICIENT)] * 4
            plan.analog = [(STATE_MAX * sign, g, 0, ONE) for g in (16383, 12000, ONE, 1)]
            bias = np.full(4, STATE_MAX * sign, np.int32)
            bias[2] = 0
            weights = [(np.zeros((4, 1), np.int16), bias)]
            y = np.zeros((5, 3, 4) if loss else 3, np.int16)
            run = Run(weights, np.zeros((5, 3, 1), np.int16), y)
            check_against_oracle(plan, run, learn=False)


@pytest.mark.parametrize("drop", [0, 1, 5])
def test_rows_limit_how_far_rates_become_finer(drop: int, seed: int) -> None:
    """A shift of 31 is the last one, that of the finest row included."""
    plan = noise_plan(2, 4, seed, u_frac=20, r_frac=4, w_max=8191)
    plan.rows = [0] * 5 + [7, 3, 0]
    plan.layers[1].w_frac = 31 - 7 - drop - 4 + 20
    plan.layers[0].v_frac_extra, plan.layers[1].e_frac = 14, -4
    plan.range_every = 1
    bias = np.full(4, 1 << 18, np.int32)
    weights = [(np.full((4, n), 77, np.int16), bias) for n in (1, 4)]
    run = Run(weights, np.zeros((20, 2, 1), np.int16), np.zeros((20, 2, 4), np.int16))
    counted = check_against_oracle(plan, run, learn=False, ranging=True)
    assert counted["range_moves"] > 0


@pytest.mark.parametrize("batch", [31, 32, 33])
def test_the_largest_gradients_vary(batch: int, seed: int) -> None:
    """32 streams of the largest errors and inputs: what is beyond 2^30 is cut before it varies."""
    for sign in (1, -1):
        for relative in (0.1, 0.9):
            plan = noise_plan(1, 3, seed, learn=1, rate_shift=16, w_max=8191, w_frac=8)
            plan.inputs, plan.input_frac, plan.target_frac = 5, 4, 8
            plan.update_noise = noise_of(relative * ONE)
            plan.stochastic = sign > 0
            plan.rows = [0, 3, 7]
            x = np.full((4, batch, 5), 8191 * sign, np.int16)
            y = np.full((4, batch, 3), 32767, np.int16)
            zero = [(np.zeros((3, 5), np.int16), np.zeros(3, np.int32))]
            counted = check_against_oracle(plan, Run(zero, x, y), learn=True)
            assert counted["sat_e"] > 0
            assert 0 < counted["updates"] > counted["sat_w"]


@pytest.mark.long
@pytest.mark.parametrize("extreme", [False, True])
def test_many_random_chips(extreme: bool, seed: int) -> None:
    check_seeds(range(seed + 10000, seed + 11500), extreme)


@pytest.mark.long
@pytest.mark.parametrize("extreme", [False, True])
def test_many_larger_chips(extreme: bool, seed: int) -> None:
    seeds = range(seed + 20000, seed + 20100)
    check_seeds(seeds, extreme, layers=4, neurons=40, inputs=70)


def test_large_chips_are_the_same_on_every_table(seed: int) -> None:
    """More neurons, inputs and streams than the oracle has the time for."""
    for k in range(28):
        extreme = k % 2 == 1
        plan = draw_plan(seed, 500 + k, extreme=extreme, neurons=80, inputs=90)
        plan = replace(plan, range_every=3, range_clip=600)
        batch = (100, 2, 33, 16, 1, 1, 1)[k % 7]
        run = draw_run(plan, seed, k, steps=6, batch=batch, extreme=extreme)
        results = []
        for name in TABLES:
            core = Core(plan.words(), batch, name, 5).write(run.weights)
            got = core.run(
                run.x, run.target, learn=True, ranging=k % 3 == 0, record=all_signals(plan)
            )
            results.append((got, state_of(core)))
            assert core.intact(), (plan.what, name)
        for name, (got, state) in zip(TABLES[1:], results[1:], strict=True):
            for pair in reversed(all_signals(plan)):
                same(got[pair], results[0][0][pair], plan.what, name, pair)
            assert state == results[0][1], (plan.what, name)


def test_what_is_read_is_what_is_recorded(table: str, seed: int) -> None:
    """By whole signals, by ranges, one by one, and before the first step too."""
    for k in range(6):
        plan = draw_plan(seed, 530 + k, on=FEATURES, extreme=k % 2 == 1)
        batch = (1, 5, 18)[k % 3]
        run = draw_run(plan, seed, k, steps=3, batch=batch, extreme=k % 2 == 1)
        core = Core(plan.words(), batch, table, 9).write(run.weights)
        oracle = oracle_of(plan, run, 9)
        for t in range(4):
            if t:
                core.run(*part(plan, run, t - 1, t))
                x, target = run.x[t - 1].tolist(), target_at(plan, run, t - 1).tolist()
                oracle.step(x, target, False)
            for n, y in enumerate(oracle.layers):
                want = np.array(oracle.read_out(n))
                same(core.signal(n, "r"), want, plan.what, t, n)
                same(core.signal(n, "u"), y.u, plan.what, t, n)
                part_of = ffi.new("int32_t[]", want.size)
                first = want.size // 3
                status = lib.gle_read_part(core.chip, n, 0, first, want.size - first, part_of)
                assert status == lib.GLE_OK
                same(list(part_of)[: want.size - first], want.ravel()[first:], plan.what, t, n)
                alone = [
                    [lib.gle_read_out(core.chip, n, i, b) for i in range(y.n)] for b in range(batch)
                ]
                same(alone, want, plan.what, t, n)


def test_a_gradient_is_read_without_the_noise_of_updates(table: str, seed: int) -> None:
    """e below^T as the array has them, whatever the rows' scales are."""
    for k in range(6):
        plan = draw_plan(seed, 550 + k, on=FEATURES)
        for y in plan.layers:
            y.learn = 1
        batch = (1, 4, 40)[k % 3]
        dropped = max(0, (batch - 1).bit_length() - 5)
        run = draw_run(plan, seed, k, steps=4, batch=batch)
        core, adder = (
            Core(plan.words(), batch, table, gradient=True).write(run.weights) for _ in range(2)
        )
        oracle = oracle_of(plan, run)
        for t in range(4):
            x, target = part(plan, run, t, t + 1)
            rates = [
                [[oracle.converted(j, c) for j, c in enumerate(row)] for row in x[0].tolist()],
                *([row[:] for row in y.r] for y in oracle.layers[:-1]),
            ]
            core.run(x, target, learn=True, flags=lib.GLE_READ_GRADIENT)
            assert lib.gle_gradient_clear(adder.chip, 0) == lib.GLE_OK
            adder.run(x, target, learn=True, flags=lib.GLE_ADD_GRADIENT)
            oracle.step(x[0].tolist(), target_at(plan, run, t).tolist(), True)
            for n, y in enumerate(oracle.layers):
                exact = np.array(y.e).T @ np.array(rates[n])
                for one in (core, adder):
                    w, b = one.gradient(n)
                    same(w, (exact + (1 << dropped >> 1)) >> dropped, plan.what, t, n)
                    same(b, np.array(y.e).sum(axis=0), plan.what, t, n)
        assert state_of(adder) == state_of(core)
        assert core.intact()
        assert adder.intact()


def test_a_host_that_learns_knows_the_scale_of_each_row(table: str, seed: int) -> None:
    """Adam at rate 0 writes its weights as they are, in steps that the array can tell apart."""
    plan = draw_plan(seed, 570, on=("rows", "gains", "w_left", "update_noise"), layers=3)
    for y in plan.layers:
        y.learn = 1
    run = draw_run(plan, seed, 570, steps=1, batch=3)
    assert plan.rows is not None
    core = Core(plan.words(), 3, table, gradient=True).write(run.weights)
    rng = np.random.default_rng(seed)
    flat, want, first = [], [], 0
    for k, y in enumerate(plan.layers):
        rows = np.array(plan.rows[first : first + y.size])
        first += y.size
        fracs = (y.w_frac - y.w_shift + rows)[:, None]
        w = rng.uniform(-1.2, 1.2, (y.size, plan.fan_in(k))) * y.code_max * 2.0**-fracs
        w = w.astype(np.float32)
        codes = np.floor(np.ldexp(w.astype(float), fracs) + 0.5)
        most = y.w_max >> y.w_shift
        want.append(np.clip(codes, -most, most).astype(int) << y.w_shift)
        flat += [w.ravel(), np.zeros(y.size, np.float32)]
    weight = np.concatenate(flat)
    moments = np.zeros_like(weight), np.zeros_like(weight)
    adam = ffi.new("gle_adam *")
    adam.weight = ffi.from_buffer("float[]", weight)
    adam.m, adam.v = (ffi.from_buffer("float[]", x) for x in moments)
    adam.rate, adam.beta1, adam.beta2, adam.epsilon = 0, 0.9, 0.999, 1e-8
    adam.beta1_power = adam.beta2_power = 1
    core.run(run.x, run.target, adam=adam)
    for k, (got, _) in enumerate(core.read()):
        same(got, want[k], plan.what, k)
