"""A chip with imperfections is in every bit what the contract of its image says.

The core, with every kernel table, is held against whole numbers without any width
(integer_oracle.py) on images that are drawn word by word (random_images.py), noise,
learning, drift and converters on. What the noise is worth is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hwgle._core import ffi, lib
from imperfections import chip_of
from integer_oracle import IntegerChip
from networks import make_network, quantised, random_case
from numpy.typing import NDArray
from random_images import (
    FEATURES,
    LINEAR,
    NO_NEURON,
    ONE,
    ONE_COEFFICIENT,
    SIGNALS,
    STATE_MAX,
    TANH,
    Core,
    Draws,
    LayerPlan,
    Plan,
    Run,
    all_signals,
    draw_plan,
    draw_run,
    ideal_plan,
    noise_of,
    noise_word,
    one_channel,
    tables,
)

from hwgle.calibrate import calibrate
from hwgle.chip import Chip
from hwgle.device import Block, Limits
from hwgle.devices.emulator import Emulator
from hwgle.identity import draw
from hwgle.network import Population
from hwgle.quantise import quantise_weights
from hwgle.session import run as session_run

TABLES = tables()
NOISY = tuple(f for f in FEATURES if f != "drift")


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> str:
    """Every kernel table of this machine."""
    return str(request.param)


def target_at(plan: Plan, run: Run, t: int) -> NDArray[np.int16]:
    """Of one step."""
    return run.target[t] if plan.loss else run.target


def part(plan: Plan, run: Run, first: int, last: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Input and target of some steps."""
    return run.x[first:last], run.target[first:last] if plan.loss else run.target


def of_streams(plan: Plan, run: Run, streams: slice) -> tuple[NDArray[Any], NDArray[Any]]:
    """Input and target of some streams."""
    return run.x[:, streams], run.target[:, streams] if plan.loss else run.target[streams]


def oracle_of(plan: Plan, run: Run, first: int = 0) -> IntegerChip:
    """Whole numbers with these weights."""
    oracle = IntegerChip(plan.words(), run.x.shape[1], first)
    for y, (w, b) in zip(oracle.layers, run.weights, strict=True):
        y.w, y.bias = w.tolist(), b.tolist()
    for y, back in zip(oracle.layers, run.backs, strict=False):
        y.back = y.back and back is not None and back.tolist()
    return oracle


def same(got: Any, want: Any, *what: object) -> None:
    """Equal, or say where not."""
    wrong = np.argwhere(np.asarray(got) != np.asarray(want))
    if wrong.size:
        at = tuple(int(k) for k in wrong[0])
        got, want = np.asarray(got)[at], np.asarray(want)[at]
        raise AssertionError(
            f"{what}: {len(wrong)} differ, first at {at}: core {got}, oracle {want}"
        )


def state_of(core: Core) -> dict[str, Any]:
    """All that can be read from a chip between two calls."""
    return {
        "digest": core.digest(),
        "streams": core.stream_digests(),
        "weights": [(w.tolist(), b.tolist()) for w, b in core.read()],
        "counters": [{**c, "sat_read": 0} for c in core.counters()],  # not what was looked at
        "snapshot": core.snapshot(),
    }


# --- against whole numbers --------------------------------------------------------------------


def check_against_oracle(
    plan: Plan,
    run: Run,
    *,
    learn: bool,
    ranging: bool = False,
    first: int = 0,
    kernels: Sequence[str] = TABLES,
) -> dict[str, int]:
    """Every signal, weight, counter, read-out and digest after every step, by equality.

    Returns the counters, summed over the layers, so that a test can see what was reached.
    """
    batch = run.x.shape[1]
    cores = [Core(plan.words(), batch, name, first).write(run.weights) for name in kernels]
    cores = [core.write_back(run.backs) for core in cores]
    oracle = oracle_of(plan, run, first)
    for t in range(len(run.x)):
        x, target = run.x[t], target_at(plan, run, t)
        oracle.step(x.tolist(), target.tolist(), learn, ranging)
        wanted = {(k, s): getattr(y, s) for k, y in enumerate(oracle.layers) for s in SIGNALS}
        wanted |= {(k, "r"): oracle.read_out(k) for k in range(len(oracle.layers))}
        for core, name in zip(cores, kernels, strict=True):
            what = (plan.what, name, f"batch {batch}", f"step {t}", f"learn {learn}")
            got = core.run(
                x[None],
                target[None] if plan.loss else target,
                learn=learn,
                ranging=ranging,
                record=all_signals(plan),
                votes=True,
            )
            top = (len(oracle.layers) - 1, "r")
            for k in reversed(range(len(oracle.layers))):  # upper layers do not yet know
                for s in ("v", "e", "u", "uhat", "r"):
                    same(got[k, s][0], wanted[k, s], *what, f"layer {k}", s)
            same(got["votes"], wanted[top], *what, "votes")
            same(core.stream_digests(), oracle.digests, *what, "the rates behind the read-out")
            for k, (y, (w, b)) in enumerate(zip(oracle.layers, core.read(), strict=True)):
                same(w, y.w, *what, f"layer {k}", "weights")
                same(b, y.bias, *what, f"layer {k}", "biases")
            for k, (y, back) in enumerate(zip(oracle.layers, core.read_back(), strict=True)):
                assert back == [w for row in y.back or () for w in row], (*what, k, "feedback")
            for k, (y, counted) in enumerate(zip(oracle.layers, core.counters(), strict=True)):
                assert {**counted, "sat_read": 0} == y.counters, (*what, f"layer {k}")
            assert core.digest() == oracle.digest(), what
    for core, name in zip(cores, kernels, strict=True):
        assert core.intact(), (plan.what, name, "wrote behind its arena")
    names = oracle.layers[0].counters
    return {name: sum(y.counters[name] for y in oracle.layers) for name in names}


def check_seeds(seeds: Sequence[int], extreme: bool, **largest: int) -> dict[str, int]:
    """Random chips, streams and ways to run them."""
    reached: dict[str, int] = {}
    for seed in seeds:
        d = Draws(seed, 1)
        ranging = d.chance(30)
        plan = draw_plan(seed, extreme=extreme, **largest)
        if ranging:
            plan = replace(plan, range_every=d.between(1, 7), range_clip=d.between(0, 6000))
        batch = 1 if seed % 3 == 0 else d.pick(d.between(2, 40), d.between(2, 5))
        run = draw_run(plan, seed, steps=8 if batch > 8 else 14, batch=batch, extreme=extreme)
        first = d.pick(0, 1, d.between(0, 4096), (1 << 20) - 1)
        counted = check_against_oracle(plan, run, learn=d.chance(70), ranging=ranging, first=first)
        for name, count in counted.items():
            reached[name] = reached.get(name, 0) + count
    return reached


def test_random_chips(seed: int) -> None:
    reached = check_seeds(range(seed, seed + 40), False)
    assert min(reached[name] for name in ("updates", "under_w", "sat_r", "range_moves")) > 0


def test_random_chips_at_the_ends_of_every_range(seed: int) -> None:
    reached = check_seeds(range(seed + 1000, seed + 1040), True)
    assert [name for name, count in reached.items() if count == 0] == ["sat_gradient", "sat_read"]


@pytest.mark.parametrize("batch", [1, 3, 17])
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


# --- an ideal chip is what it was -------------------------------------------------------------

# Taken from the core before a chip could have any imperfection: gle_digest after the 60
# steps of ideal_plan, without and with learning, and the streams of the first.
IDEAL = {
    0: (0x81E3D81AFF838E70, 0x2944B96E07DF77BE),
    1: (0xD137AD189B82A50A, 0xB44DA380B13D4D63),
    2: (0x0B4C8B7A5C2A897F, 0x9D6D34FBE2C59D71),
    3: (0x4F35F4D0F54B17E0, 0x4D1A9735051A5C98),
}
IDEAL_STREAMS = [
    *(0xF2998B9A577FAC2E, 0x72BCC0864BE585DF, 0x05A187DCDE4C6173),
    *(0xBEBB738D1C904BF4, 0xC155B39757DC92FD),
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


def digests_of(plan: Plan, run: Run, table: str | None, first: int = 0) -> list[int]:
    """All digests of a run with learning."""
    core = Core(plan.words(), run.x.shape[1], table, first).write(run.weights)
    core.run(run.x, run.target, learn=True)
    return [core.digest(), core.weights_digest(), *core.stream_digests()]


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


# --- splits -----------------------------------------------------------------------------------


def test_streams_one_after_another_are_the_batch(table: str, seed: int) -> None:
    """Noise included, whatever number the first stream has, singly or in groups."""
    for k in range(8):
        plan = draw_plan(seed, 100 + k, on=FEATURES)
        batch = (5, 18, 33)[k % 3]
        first = (0, 7, 4095, (1 << 20) - 3)[k % 4]
        run = draw_run(plan, seed, k, steps=15, batch=batch)
        pairs = all_signals(plan)
        core = Core(plan.words(), batch, table, first).write(run.weights)
        whole = core.run(run.x, run.target, record=pairs)
        digests = core.stream_digests()
        for size in (1, 4):
            for b in range(0, batch, size):
                streams = slice(b, min(b + size, batch))
                one = Core(plan.words(), streams.stop - b, table).write(run.weights)
                # drift has changed the weights of the batch: each run begins with the same
                one.reset(first + b)
                x, target = of_streams(plan, run, streams)
                got = one.run(x, target, record=pairs)
                assert one.stream_digests() == digests[streams], (plan.what, b, size)
                for pair in pairs:
                    same(got[pair], whole[pair][:, streams], plan.what, b, size, pair)


def test_one_chip_after_another_stream_by_reset(seed: int) -> None:
    """reset(first) on the same chip; without it, the numbers begin at 0 again."""
    plan = draw_plan(seed, 140, on=[f for f in FEATURES if f != "drift"])
    run = draw_run(plan, seed, 140, steps=15, batch=6)
    core = Core(plan.words(), 6).write(run.weights)
    core.run(run.x, run.target)
    digests = core.stream_digests()
    one = Core(plan.words(), 1).write(run.weights)
    for b in (3, 0, 5, 1, 2, 4):
        one.reset(b)
        one.run(*of_streams(plan, run, slice(b, b + 1)))
        assert one.stream_digests() == digests[b : b + 1], b
    one.reset()
    one.run(*of_streams(plan, run, slice(0, 1)))
    assert one.stream_digests() == digests[:1]
    # two streams that get the same input differ by their noise
    x, target = of_streams(plan, run, slice(0, 1))
    one.reset(1)
    one.run(x, target)
    assert one.stream_digests() != digests[:1]


@pytest.mark.parametrize("ranging", [False, True])
def test_cuts_and_records_change_nothing(ranging: bool, table: str, seed: int) -> None:
    for k in range(6):
        plan = draw_plan(seed, 200 + k, on=FEATURES)
        plan = replace(plan, range_every=5 * ranging, range_clip=600)
        run = draw_run(plan, seed, k, steps=24, batch=(1, 4, 21)[k % 3])
        d = Draws(seed, 200 + k, 5)
        whole = Core(plan.words(), run.x.shape[1], table, 2).write(run.weights)
        records = whole.run(
            run.x, run.target, learn=True, ranging=ranging, record=all_signals(plan), votes=True
        )
        edges = sorted({0, 24, *(d.between(1, 23) for _ in range(d.between(1, 6)))})
        for cuts in (edges, range(25)):
            cut = Core(plan.words(), run.x.shape[1], table, 2).write(run.weights)
            votes = 0
            for first, last in pairwise(cuts):
                pairs = [pair for pair in all_signals(plan) if d.chance(40)]
                got = cut.run(
                    *part(plan, run, first, last),
                    learn=True,
                    ranging=ranging,
                    record=pairs,
                    votes=True,
                )
                votes = votes + got["votes"]
                for pair in pairs:
                    same(got[pair], records[pair][first:last], plan.what, cuts, pair)
            same(votes, records["votes"], plan.what, "votes")
            assert state_of(cut) == state_of(whole), (plan.what, list(cuts))


@pytest.mark.parametrize("first", [0, 11])
def test_a_snapshot_goes_on_with_the_same_noise(first: int, table: str, seed: int) -> None:
    """Taken up by a fresh chip of any table, or by one that has done other things."""
    for k in range(5):
        plan = draw_plan(seed, 300 + k, on=FEATURES)
        plan = replace(plan, range_every=4, range_clip=600)
        batch = (1, 3, 19)[k % 3]
        run = draw_run(plan, seed, k, steps=20, batch=batch)
        cut = Draws(seed, k, 6).between(0, 20)
        pairs = all_signals(plan)
        begun = Core(plan.words(), batch, table, first).write(run.weights)
        begun.run(*part(plan, run, 0, cut), learn=True, ranging=True)
        taken = begun.snapshot()
        assert begun.snapshot() == taken
        rest = part(plan, run, cut, 20)
        want = begun.run(*rest, learn=True, ranging=True, record=pairs)
        for other in TABLES:
            taker = Core(plan.words(), batch, other, first)
            if k % 2:
                taker.run(*rest, learn=True, ranging=True)
            taker.restore(taken)
            assert taker.snapshot() == taken, plan.what
            got = taker.run(*rest, learn=True, ranging=True, record=pairs)
            for pair in pairs:
                same(got[pair], want[pair], plan.what, other, pair)
            assert state_of(taker) == state_of(begun), (plan.what, other)


def test_a_snapshot_keeps_the_numbers_of_its_streams(seed: int) -> None:
    """Restored into a chip that never heard of reset(first), the noise is the same."""
    plan = draw_plan(seed, 350, on=NOISY)
    run = draw_run(plan, seed, 350, steps=20, batch=3)
    begun = Core(plan.words(), 3, first=77).write(run.weights)
    begun.run(*part(plan, run, 0, 8))
    taken = begun.snapshot()
    taker = Core(plan.words(), 3)
    taker.restore(taken)
    for core in (begun, taker):
        core.run(*part(plan, run, 8, 20))
    assert taker.stream_digests() == begun.stream_digests()


class Two(Emulator):
    """A body with room for two streams."""

    @property
    def limits(self) -> Limits:
        """See Device."""
        return Limits(max_batch=2)


def noisy_chip(**weight: float) -> Chip:
    """The mixed-signal chip, with everything that moves in time."""
    data = Chip.load("mixed-signal:3").model_dump()
    data["weight"] |= weight
    data["membrane"]["noise"] = 0.02
    data["error"]["noise"] = 0.005
    data["readout"]["noise"] = 1.0
    return Chip.model_validate(data)


def test_a_device_numbers_its_streams(seed: int) -> None:
    """Device.reset(first), as whoever runs groups of streams calls it."""
    chip = noisy_chip()
    for k in range(3):
        case = random_case(seed + k, layers=3, neurons=9, batch=5, steps=20)
        q = quantised(case, chip)
        weights = quantise_weights(q.image, case.weights)
        per_step = case.network.loss == "mse"
        pairs = [(n, s) for n in range(len(case.network.layers)) for s in SIGNALS]
        with Emulator() as whole, Emulator() as single:
            for body, batch in ((whole, case.batch), (single, 1)):
                body.load(q.image, batch)
                body.write_weights(weights)
            want = whole.run(Block(q.input, q.target, record=pairs)).signals
            for b in reversed(range(case.batch)):
                one = slice(b, b + 1)
                single.reset(b)
                target = q.target[:, one] if per_step else q.target[one]
                got = single.run(Block(q.input[:, one], target, record=pairs)).signals
                assert single.stream_digests()[0] == whole.stream_digests()[b], (case, b)
                for x, y, pair in zip(got, want, pairs, strict=True):
                    same(x, y[:, one], case, b, pair)


@pytest.mark.parametrize("drift", [None, 200.0])
def test_a_session_in_groups_is_the_session_in_one(drift: float | None, seed: int) -> None:
    """Noise and drift do not know of the groups that a small body makes."""
    chip = noisy_chip(drift=drift)
    case = random_case(seed + 20, layers=3, neurons=9, batch=3, steps=40)
    x = np.concatenate([case.x, -case.x, case.x], axis=1)[:, :7]
    x = np.concatenate([x] * 7, axis=1)[:, :7]
    results = []
    for body in (Emulator(), Two()):
        with body as device:
            results.append(session_run(device, case.network, chip, case.weights, x, record=("r",)))
    one, groups = results
    assert one.stream_digests.tolist() == groups.stream_digests.tolist()
    for name, values in one.signals.items():
        same(groups.signals[name], values, name)


# --- what an image may say --------------------------------------------------------------------


def accepted(words: Sequence[int]) -> bool:
    """Whether the core would build this chip."""
    array = np.array([w & 0xFFFFFFFF for w in words], dtype=np.uint32)
    at = ffi.from_buffer("uint32_t[]", array)
    return bool(lib.gle_image_check(at, array.size) == lib.GLE_OK)


def small_plan() -> Plan:
    """One layer of one neuron with one input, every section there."""
    plan = Plan(1, [LayerPlan(1, LINEAR, w_max=1, w_left=3)], [(ONE_COEFFICIENT,) * 4])
    plan.input_max = 1
    plan.rows, plan.analog, plan.dac, plan.gains = [0], [(0, ONE, 0, ONE)], [ONE], [[[ONE]]]
    return plan


# Word of small_plan -> the least and the largest values that are allowed.
HEAD, LAYER = 0, 24
SECTIONS = 24 + 20 + 4
LIMITS: dict[str, tuple[int, Sequence[int], Sequence[int]]] = {
    "input_left": (16, [0, 12], [-1, 13, 14]),
    "drift_every": (17, [0, 1, 1 << 20], [-1]),
    "drift_shift": (18, [1, 30], [0, 31, -1]),
    "update_max": (19, [1, 65535], [0, -1, 65536]),
    "update_noise": (20, [0, noise_word(0, -5)], [2, 40, 1 << 8, 32768 << 8 | 8]),
    "learner": (21, [0, 2, 16 << 8, 1 | 3 << 8 | 4 << 16, 1 | 16 << 8 | 14 << 16],
                [3, 17 << 8, 1, 1 | 3 << 16, 1 | 15 << 16, 10 << 16, 2 | 10 << 16, 1 << 24]),
    "apply_every": (22, [0, 1, 1 << 24], [-1, (1 << 24) + 1]),
    "rate_every": (23, [0, 1, (1 << 31) - 1], [-1]),
    "w_left": (LAYER + 14, [0, 12], [-1, 13]),
    "noise_e": (LAYER + 15, [0, noise_word(32767, -5)], [1, 2, 40, 32768 << 8 | 8, 0x80000008]),
    "noise_r": (LAYER + 16, [0, noise_word(32767, 31)], [1, 2, 40, 32768 << 8 | 8]),
    "adc_drop": (LAYER + 17, [0, 2], [-1, 14]),
    "adc_max": (LAYER + 18, [1, 8191], [0, -1, 8192]),
    "reserved 19": (LAYER + 19, [0], [1]),
    "rows": (SECTIONS, [0, 7], [-1, 8]),
    "offset": (SECTIONS + 1, [-(1 << 28) + 1, (1 << 28) - 1], [-(1 << 28), 1 << 28, 1 << 31]),
    "gain": (SECTIONS + 2, [0, 16383], [-1, 16384]),
    "noise_u": (SECTIONS + 3, [0, noise_word(32767, -5)], [1, 2, 40, 32768 << 8 | 8]),
    "adc": (SECTIONS + 4, [0, 32767, 0x80000000, 0xFFFF7FFF], [0x8000, 0xFFFF]),
    "dac": (SECTIONS + 5, [0, 32767, 0x80000000, 0xFFFF7FFF], [0x8000, 0xFFFF]),
    "synapse": (SECTIONS + 6, [0, 32767, -16383 & 0xFFFF, 0xFFFF], [-16384 & 0xFFFF, 0x8000]),
}  # fmt: skip


@pytest.mark.parametrize("word", LIMITS)
def test_words_out_of_range_are_refused(word: str) -> None:
    at, good, bad = LIMITS[word]
    words = small_plan().words()
    assert accepted(words)
    for value, allowed in [*((v, True) for v in good), *((v, False) for v in bad)]:
        changed = [*words]
        changed[at] = value
        if word == "drift_shift":
            changed[17] = 5
        assert accepted(changed) == allowed, value


def test_sections_must_be_what_the_image_says() -> None:
    words = small_plan().words()
    for flags in range(15):
        assert not accepted([*words[:15], flags, *words[16:]]), flags
    for flags in (16, 31, 0x8000000F):
        assert not accepted([*words[:15], flags, *words[16:]]), flags
    for changed in ([*words, 0], words[:-1]):
        assert not accepted([changed[0], len(changed), *changed[2:]])
    assert not accepted([0x31454C47, *words[1:]])  # the layout before this one
    plan = small_plan()
    plan.layers[0].adc_drop, plan.layers[0].adc_max = 2, 8191
    assert accepted(plan.words())
    plan.layers[0].adc_drop, plan.layers[0].adc_max = 3, 4095
    assert accepted(plan.words())
    plan.layers[0].adc_max = 4096
    assert not accepted(plan.words())


# --- what the noise is worth ------------------------------------------------------------------

SD_OF_BYTES = 21845**0.5
SIGMAS = 5.0


def noise_plan(layers: int, neurons: int, seed: int, **words: Any) -> Plan:
    """Layers of neurons without memory and without input that show their noise alone."""
    layer = LayerPlan(
        neurons, LINEAR, learn=0, w_max=8191, u_frac=14, r_frac=10, e_frac=8, v_frac_extra=0
    )
    cell = (ONE_COEFFICIENT,) * 4
    plan = Plan(1, [replace(layer, **words) for _ in range(layers)], [cell] * (layers * neurons))
    plan.seed = seed
    return plan


def noise_records(plan: Plan, steps: int, batch: int, first: int = 0) -> dict[Any, NDArray[Any]]:
    """All signals of a chip with weights 0 that gets input 0."""
    core = Core(plan.words(), batch, first=first)
    return core.run(np.zeros((steps, batch, 1), np.int16), record=all_signals(plan))


def check_noise(values: NDArray[Any], sd: float) -> None:
    """Mean 0, this sd, the shape of four bytes' sum, within 5 standard errors."""
    x = values.astype(float).ravel()
    n = x.size
    assert n >= 10000
    assert abs(x.mean()) < SIGMAS * sd / n**0.5
    kurtosis = 3 - 6 / 5 / 4  # of four uniform numbers
    assert abs(x.var() / sd**2 - 1) < SIGMAS * ((kurtosis - 1) / n) ** 0.5
    assert abs((x**4).mean() / sd**4 - kurtosis) < SIGMAS * (24 / n) ** 0.5
    assert np.abs(x).max() <= 510 / SD_OF_BYTES * sd + 1


def check_uncorrelated(columns: NDArray[Any]) -> None:
    """columns: (number of draws, what must not know of each other)."""
    x = columns.astype(float)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    correlation = x.T @ x / len(x) - np.eye(x.shape[1])
    pairs = x.shape[1] * (x.shape[1] - 1) / 2
    bound = np.sqrt(2 * np.log(max(pairs, 2)) + SIGMAS**2) / len(x) ** 0.5
    assert np.abs(correlation).max() < bound
    squares = x**2 - 1  # not even their sizes know of each other
    correlation = squares.T @ squares / len(x) / (squares**2).mean() - np.eye(x.shape[1])
    assert np.abs(correlation).max() < 1.2 * bound + np.abs((squares**2).mean(0).std() * 0.1)


NOISES = {"membrane": "u", "error": "e", "read-out": "r"}


def noisy_plan(kind: str, sd: float, seed: int, layers: int = 1, neurons: int = 8) -> Plan:
    """A chip with one noise, of this sd in the LSB of what it shows itself in."""
    plan = noise_plan(layers, neurons, seed)
    noise_u = noise_of(sd) if kind in ("membrane", "all") else 0
    plan.analog = [(0, ONE, noise_u, ONE)] * (layers * neurons)
    for y in plan.layers:
        y.noise_e = noise_of(sd) if kind in ("error", "all") else 0
        y.noise_r = noise_of(sd * ONE) if kind in ("read-out", "all") else 0
    return plan


@pytest.mark.parametrize("sd", [30.0, 400.0])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_the_sd_of_its_word(kind: str, sd: float, seed: int) -> None:
    records = noise_records(noisy_plan(kind, sd, seed), steps=400, batch=10)
    for other, signal in NOISES.items():
        x = records[0, signal]
        if other == kind:
            check_noise(x, sd)
        else:
            assert not x.any(), other


def test_small_noise_is_as_often_up_as_down(seed: int) -> None:
    """Below 1 LSB: mean 0 still, since rounding of halves up is all that is not even."""
    x = noise_records(noisy_plan("membrane", 0.4, seed), steps=500, batch=20)[0, "u"]
    share_up, share_down = (x > 0).mean(), (x < 0).mean()
    assert 0.05 < share_up < 0.2
    assert abs(share_up - share_down) < SIGMAS * (2 * share_up / x.size) ** 0.5


@pytest.mark.parametrize("kind", NOISES)
def test_noise_of_neurons_streams_steps_and_layers_is_independent(kind: str, seed: int) -> None:
    signal = NOISES[kind]
    records = noise_records(noisy_plan(kind, 100.0, seed, layers=2), steps=1200, batch=10)
    x = np.stack([records[k, signal] for k in range(2)], axis=-1)  # T, B, n, layers
    check_uncorrelated(x.reshape(len(x), -1))
    steps = x.reshape(len(x), -1)
    for lag in (1, 2, 3):
        check_uncorrelated(np.stack([steps[:-lag].ravel(), steps[lag:].ravel()], axis=1))
    other = noise_records(noisy_plan(kind, 100.0, seed + 1, layers=2), steps=1200, batch=10)
    check_uncorrelated(np.stack([x[..., 0].ravel(), other[0, signal].ravel()], axis=1))
    shifted = noise_records(noisy_plan(kind, 100.0, seed, layers=2), 1200, 10, first=1)
    assert np.array_equal(shifted[0, signal][:, :-1], x[:, 1:, :, 0])


def test_noises_of_different_purposes_are_independent(seed: int) -> None:
    """Same seed, layer, step and index. (A step's read-out has the number of the next one.)"""
    records = noise_records(noisy_plan("all", 100.0, seed), steps=2000, batch=10)
    u, e, r = (records[0, s].astype(float) for s in ("u", "e", "r"))
    check_uncorrelated(np.stack([u.ravel(), e.ravel(), r.ravel()], axis=1))
    check_uncorrelated(np.stack([u[1:].ravel(), e[1:].ravel(), r[:-1].ravel()], axis=1))


def test_update_noise_is_a_share_of_the_update(seed: int, table: str) -> None:
    """Weights back to 0 after each step: what they have learned then is the update alone."""
    for relative in (0.05, 0.3):
        plan = noise_plan(1, 24, seed)
        plan.inputs, plan.stochastic = 24, 0
        plan.layers[0] = replace(plan.layers[0], learn=1, w_frac=12, w_max=32000, w_shift=2)
        plan.layers[0].rate_shift = 8 - 8 - 10 + 12  # g * 2^-8
        plan.input_frac, plan.target_frac = 10, 8
        plan.update_noise = noise_of(relative * ONE)
        core = Core(plan.words(), 1, table)
        zero = [(np.zeros((24, 24), np.int16), np.zeros(24, np.int32))]
        x, y = np.full((1, 1, 24), 1000, np.int16), np.full((1, 1, 24), 900, np.int16)
        core.write(zero).run(x, y)
        seen = []
        for _ in range(24):
            core.write(zero).run(x, y, learn=True)
            seen.append(core.read()[0][0])
        updates = np.array(seen).reshape(24, -1)
        exact = 900 * 1000 / 256
        noise = (updates / exact - 1) * ONE
        check_noise(noise, relative * ONE)
        check_uncorrelated(updates.T)
        check_uncorrelated(np.array(seen).reshape(-1, 24))


def test_update_noise_has_the_sign_of_nothing(seed: int) -> None:
    """An update of one LSB is not made larger on average, nor is its sign lost."""
    plan = draw_plan(seed, 400, on=("update_noise",), layers=1)
    run = draw_run(plan, seed, 400, steps=10, batch=4)
    plan.update_noise = noise_of(0.2 * ONE)
    check_against_oracle(plan, run, learn=True)


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


def test_membrane_noise_reaches_a_rate_by_its_share(seed: int) -> None:
    """rms as the profile says on u; on the rate 1 - tau_r/tau_m of it: an instantaneous neuron
    answers with its input and shows none."""
    network = make_network([3], ["linear"], np.random.default_rng(seed), inputs=1, loss="mse")
    layer = network.layers[0]
    taus = ((0.6, 0.1), (0.6, 0.3), (0.6, 0.6))
    populations = tuple(Population(size=1, tau_m=m, tau_r=r) for m, r in taus)
    layer = layer.model_copy(update={"populations": populations})
    network = network.model_copy(update={"layers": (layer,), "dt": 0.1, "gamma": 0.0})
    chip = chip_of({"membrane": {"noise": 0.1}}, seed)
    weights = {f"{layer.name}.weight": np.zeros((3, 1)), f"{layer.name}.bias": np.full(3, 0.5)}
    x = np.ones((4000, 6, 1))
    with Emulator() as body:
        got = session_run(body, network, chip, weights, x, record=("r", "u"))
    for signal, share in (("u", (1.0, 1.0, 1.0)), ("r", (5 / 6, 1 / 2, 0.0))):
        rms = got.signals[f"{layer.name}.{signal}"][200:].std(axis=(0, 1))
        assert rms == pytest.approx(0.1 * np.array(share), rel=0.05, abs=1e-3), (signal, seed)
