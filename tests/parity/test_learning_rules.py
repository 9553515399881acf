"""The rules that learn on the chip, against whole numbers and against themselves.

integer_oracle.py has each rule from its contract (csrc/learner.h); here random chips with
every imperfection learn by them, for one stream and many, on every kernel table.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from chip_checks import check_against_oracle
from hwgle._core import ffi, lib
from random_images import (
    LINEAR,
    ONE_COEFFICIENT,
    WIRINGS,
    Core,
    Draws,
    LayerPlan,
    Plan,
    Run,
    draw_plan,
    draw_run,
    tables,
)

RULES = ("sgd", "normalised", "sign")
REMEMBERED = tuple(wiring for wiring in WIRINGS if "kolen-pollack" not in wiring)


def learning_plan(
    seed: int,
    rule: str | None = None,
    extreme: bool = False,
    wiring: str | None = None,
    **largest: int,
) -> tuple[Plan, Draws]:
    """A random chip with a rule that remembers; `largest` as draw_plan has it."""
    d = Draws(seed, 77)
    layers = 3 if wiring is None else 4
    plan = draw_plan(seed, extreme=extreme, wiring=wiring, **{"layers": layers, **largest})
    rule = rule or d.pick(*RULES)
    momentum = d.pick(0, 1, 3, d.between(0, 16))
    if rule == "sgd" and momentum == 0:
        momentum = 2
    word = RULES.index(rule) | momentum << 8
    if rule == "normalised":
        word |= d.pick(4, 14, d.between(4, 14)) << 16
    every = d.pick(0, 0, 1, d.between(2, 9), 1 << 24 if d.chance(10) else 5)
    rates = d.pick(0, d.between(1, 6))
    word |= (d.between(0, 9) if rates else 0) << 24
    changes = {"learner": word, "apply_every": every, "rate_every": rates}
    for k, y in enumerate(plan.layers):
        if extreme:
            continue
        heard = [k - 1] if plan.sources is None else plan.sources[k]
        below = min(plan.layers[s].r_frac if s >= 0 else plan.input_frac for s in heard)
        fine = {"sgd": y.e_frac + below + momentum, "normalised": 16, "sign": 0}[rule]
        wanted = {"sgd": 16, "normalised": 10, "sign": -2}[rule]
        y.rate_shift = max(-32, min(64, wanted + d.between(-3, 3) - fine + y.w_frac))
    return replace(plan, what=f"{plan.what} {rule} {changes}", **changes), d


def check(
    seeds: range, extreme: bool = False, rule: str | None = None, wiring: str | None = None
) -> dict[str, int]:
    """Core and oracle after every step."""
    reached: dict[str, int] = {}
    for seed in seeds:
        plan, d = learning_plan(seed, rule, extreme, wiring)
        if d.chance(50):
            plan = replace(plan, range_every=d.between(1, 7), range_clip=d.between(0, 6000))
        batch = 1 if seed % 3 == 0 else d.pick(d.between(2, 6), d.between(33, 70))
        run = draw_run(plan, seed, steps=8 if batch > 8 else 16, batch=batch, extreme=extreme)
        counted = check_against_oracle(plan, run, learn=True, ranging=plan.range_every > 0)
        for name, count in counted.items():
            reached[name] = reached.get(name, 0) + count
    return reached


@pytest.mark.parametrize("rule", RULES)
def test_random_chips_learn_as_the_oracle_does(rule: str, seed: int) -> None:
    first = seed + 100 * RULES.index(rule)
    reached = check(range(first, first + 9), rule=rule)
    assert min(reached[name] for name in ("updates", "under_w", "range_moves")) > 0


@pytest.mark.parametrize("wiring", REMEMBERED)
def test_other_topologies_learn_as_the_oracle_does(wiring: str, seed: int) -> None:
    """Absent synapses, sources in formats of their own, fixed feedback."""
    reached = check(range(seed, seed + 4), wiring=wiring)
    assert reached["updates"] > 0


def test_memory_follows_the_coarsest_source(seed: int) -> None:
    """Rates without bounds of two sources: what moves one of them need not move a layer's."""
    learns, moves = 0, 0
    for at in range(seed, seed + 6):
        plan, d = learning_plan(at, wiring="skips transposed")
        count = len(plan.layers)
        if count < 2:
            continue
        plan.sources = [list(range(-1, k + 1)) for k in range(count)]
        plan.masks, plan.gains = None, None
        plan.layers = [replace(y, masked=0, phi=LINEAR, learn=1) for y in plan.layers]
        plan = replace(plan, range_every=2, range_clip=d.between(0, 6000))
        if not plan.valid():
            continue
        run = draw_run(plan, at, steps=16, batch=d.pick(1, 3))
        reached = check_against_oracle(plan, run, learn=True, ranging=True)
        learns, moves = learns + reached["updates"], moves + reached["range_moves"]
    assert min(learns, moves) > 0


def test_an_absent_synapse_has_no_memory(seed: int) -> None:
    for rule in ("sgd", "normalised", "sign"):
        plan = draw_plan(seed, wiring="masks transposed", sizes=(6, 5), inputs=4, on=())
        word = RULES.index(rule) | 3 << 8 | (10 << 16 if rule == "normalised" else 0)
        plan = replace(plan, learner=word)
        plan.layers = [replace(y, learn=1) for y in plan.layers]
        assert plan.masks is not None
        open_plan = replace(plan, masks=None, layers=[replace(y, masked=0) for y in plan.layers])
        run = draw_run(plan, seed, steps=6, batch=1)
        masked, free = Core(plan.words(), 1).write(run.weights), Core(open_plan.words(), 1)
        learnt(masked, plan, run, 0, 6)
        for k, mask in enumerate(plan.masks):
            assert mask is None or not masked.read()[k][0][np.array(mask) == 0].any()
        refused = []
        for core in (masked, free):  # the same state in both, one bit in every other byte changed
            taken = core.snapshot()[:16] + masked.snapshot()[16:]
            core.restore(taken)
            refused.append(0)
            for byte in range(16, len(taken), 2):
                changed = bytearray(taken)
                changed[byte] ^= 1
                to = ffi.from_buffer("unsigned char[]", changed)
                status = lib.gle_snapshot_write(core.chip, to, len(changed))
                refused[-1] += status == lib.GLE_BAD_IMAGE
            core.restore(taken)
        absent = sum(np.sum(np.array(mask) == 0) for mask in plan.masks if mask is not None)
        assert refused[0] - refused[1] == 3 * absent  # of a weight one byte, of its memory two


def test_chips_at_their_ends_learn_as_the_oracle_does(seed: int) -> None:
    check(range(seed + 500, seed + 512), extreme=True)


def test_accumulators_clip_at_the_same_step(seed: int) -> None:
    """An error and a rate at their ends for 300 steps, of which 256 fit."""
    cell = (ONE_COEFFICIENT,) * 4
    layer = LayerPlan(1, LINEAR, w_frac=10, u_frac=16, r_frac=8, e_frac=9, v_frac_extra=4,
                      rate_shift=64)  # fmt: skip
    for rule in range(3):
        plan = Plan(1, [layer], [cell], learner=rule | 16 << 8 | (10 << 16 if rule == 1 else 0))
        for sign in (1, -1):
            run = Run(
                [(np.zeros((1, 1), np.int16), np.zeros(1, np.int32))],
                np.full((300, 1, 1), 8191, np.int16),
                np.full((300, 1, 1), sign * 32767, np.int16),
            )
            assert check_against_oracle(plan, run, learn=True)["sat_gradient"] > 0


@pytest.mark.long
def test_many_chips_learn_as_the_oracle_does(seed: int) -> None:
    for rule in RULES:
        check(range(seed + 1000, seed + 1150), rule=rule)
        check(range(seed + 2000, seed + 2150), extreme=True, rule=rule)


def learnt(core: Core, plan: Plan, run: Run, first: int, last: int) -> None:
    """Some learning steps of a run."""
    target = run.target if plan.loss == 0 else run.target[first:last]
    core.run(run.x[first:last], target, learn=True, ranging=plan.range_every > 0)


@pytest.mark.parametrize("batch", [1, 5, 40])
def test_tables_cuts_and_snapshots_change_no_bit(batch: int, seed: int) -> None:
    """Wide layers, which vectors of every length take; a snapshot at each cut goes to a chip
    that has learned something else, on another table, by parts of any size."""
    names = tables()
    for k, rule in enumerate(RULES * 2):
        plan, d = learning_plan(seed + k, rule)
        drawn = draw_plan(seed + k, sizes=(d.between(20, 70), d.between(2, 40)), inputs=33, on=())
        plan = replace(drawn, learner=plan.learner, apply_every=plan.apply_every,
                       rate_every=plan.rate_every, range_every=3, range_clip=900)  # fmt: skip
        for y, of in zip(plan.layers, learning_plan(seed + k, rule)[0].layers, strict=False):
            y.rate_shift = of.rate_shift + (y.w_frac - of.w_frac)
        run = draw_run(plan, seed, steps=24, batch=batch)
        whole = [Core(plan.words(), batch, name).write(run.weights) for name in names]
        for core in whole:
            learnt(core, plan, run, 0, 24)
            assert core.snapshot() == whole[0].snapshot(), (plan.what, rule)
            assert core.digest() == whole[0].digest()
        cuts = sorted({0, *(d.between(1, 23) for _ in range(4)), 24})
        before: bytes | None = None
        for turn, (a, b) in enumerate(pairwise(cuts)):
            core = Core(plan.words(), batch, names[turn % len(names)]).write(run.weights)
            if before is not None:
                learnt(core, plan, run, 0, 3)
                put_by_parts(core, before, d)
            learnt(core, plan, run, a, b)
            before = core.snapshot()
        assert before == whole[0].snapshot()


def put_by_parts(core: Core, taken: bytes, d: Draws) -> None:
    """A snapshot in pieces, as the wire brings it."""
    at = 0
    while at < len(taken):
        n = min(len(taken) - at, d.between(1, 400))
        part = ffi.from_buffer("unsigned char[]", taken[at : at + n])
        assert lib.gle_snapshot_put(core.chip, at, part, n) == lib.GLE_OK
        at += n
    assert lib.gle_snapshot_check(core.chip) == lib.GLE_OK


def small() -> tuple[Plan, Run]:
    """A normalised chip of one stream, and something to learn."""
    plan, _ = learning_plan(3, "normalised")
    plan = replace(plan, apply_every=3, rate_every=4, learner=plan.learner & 0xFFFFFF | 5 << 24)
    return plan, draw_run(plan, 3, steps=20, batch=1)


def test_what_is_remembered_survives_a_reset_and_is_in_the_digest() -> None:
    plan, run = small()
    core = Core(plan.words(), 1).write(run.weights)
    learnt(core, plan, run, 0, 7)
    kept, digest = core.snapshot(), core.weights_digest()
    core.reset()
    assert core.weights_digest() == digest
    one_by_one = Core(plan.words(), 1).write(run.weights)
    for t in range(7):
        learnt(one_by_one, plan, run, t, t + 1)
    assert one_by_one.snapshot() == kept
    core.restore(kept)
    seen = {core.weights_digest()}
    for at in range(16, len(kept)):  # the head says which chip it is of
        changed = bytearray(kept)
        changed[at] ^= 1
        status = lib.gle_snapshot_write(
            core.chip, ffi.from_buffer("unsigned char[]", changed), len(changed)
        )
        if status == lib.GLE_OK and (now := core.weights_digest()) != digest:
            seen.add(now)
    weights = sum(w.size for w, _ in core.read())
    learning = sum(
        y.size * (plan.fan_in(k) + 1) for k, y in enumerate(plan.layers) if y.learn & 1
    )
    assert len(seen) > 2 * weights + 5 * learning  # each byte of what is kept, by itself
    assert len(seen) > 8  # the count of steps


def test_a_learning_step_without_an_update_moves_the_digest_alone() -> None:
    plan, run = small()
    core = Core(plan.words(), 1).write(run.weights)
    learnt(core, plan, run, 0, 1)
    before, digest = [w.tolist() for w, _ in core.read()], core.weights_digest()
    learnt(core, plan, run, 1, 2)
    assert [w.tolist() for w, _ in core.read()] == before
    assert core.weights_digest() != digest
    learnt(core, plan, run, 2, 20)
    assert [w.tolist() for w, _ in core.read()] != before


def test_a_memory_beyond_its_limit_is_refused() -> None:
    plan, run = small()
    core = Core(plan.words(), 1).write(run.weights)
    taken = core.snapshot()
    n, m = plan.layers[0].size, plan.inputs
    found = 0
    for at in range(16, len(taken) - 4):
        changed = bytearray(taken)
        changed[at : at + 4] = (1 << 30).to_bytes(4, "little")
        at_ = ffi.from_buffer("unsigned char[]", changed)
        found += lib.gle_snapshot_write(core.chip, at_, len(changed)) == lib.GLE_BAD_IMAGE
        core.restore(taken)
    assert found > n * m


def test_the_rate_falls_by_itself() -> None:
    """Each rise halves the step; gle_set_rate sets what the rises add to."""
    plan, run = small()
    plan = replace(plan, learner=2 | 4 << 24, apply_every=0, rate_every=2, stochastic=0,
                   update_noise=0, update_max=65535, drift_every=0, rows=None)  # fmt: skip
    for y in plan.layers:
        y.learn, y.w_max, y.rate_shift = 1, y.w_max, y.w_frac - 4
    core = Core(plan.words(), 1).write([(w * 0, b * 0) for w, b in run.weights])
    steps = []
    for t in range(16):
        before = core.read()[-1][0].astype(int)
        learnt(core, plan, run, t, t + 1)
        steps.append(int(np.abs(core.read()[-1][0] - before).max()))
        if t == 13:
            lib.gle_set_rate(core.chip, plan.layers[-1].w_frac - 8)
    limit = plan.layers[-1].w_max
    expected = [16, 16, 8, 8, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, 16, 16]
    assert limit >= 64
    assert steps[2:] == expected[2:]  # errors begin in the second step, momentum with them
