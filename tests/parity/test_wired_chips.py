"""Sources, masks and feedback on the chip: every kernel table against whole numbers, step by
step, and what must hold whatever is wired how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chip_checks import TABLES, accepted, check_against_oracle, of_streams, part, state_of
from hwgle._core import ffi, lib
from random_images import (
    DIRECT,
    KOLEN_POLLACK,
    WIRINGS,
    Core,
    Draws,
    Plan,
    Run,
    draw_plan,
    draw_run,
    tables,
)


def drawn(
    wiring: str, seed: int, extreme: bool = False, **largest: Any
) -> tuple[Plan, Run, bool]:
    """A random chip with this wiring, a run, and whether scales follow."""
    d = Draws(seed, 5)
    ranging = d.chance(40)
    plan = draw_plan(seed, extreme=extreme, wiring=wiring, **{"layers": 4, **largest})
    if ranging:
        plan = replace(plan, range_every=d.between(1, 7), range_clip=d.between(0, 6000))
    batch = 1 if seed % 2 == 0 else d.pick(d.between(2, 40), d.between(2, 5))
    run = draw_run(plan, seed, steps=8 if batch > 8 else 14, batch=batch, extreme=extreme)
    return plan, run, ranging


def check(wiring: str, seeds: range, extreme: bool = False, **largest: Any) -> dict[str, int]:
    """Against the oracle; the counters of all of them."""
    reached: dict[str, int] = {}
    for seed in seeds:
        plan, run, ranging = drawn(wiring, seed, extreme, **largest)
        learn = extreme or Draws(seed, 6).chance(80)
        counted = check_against_oracle(plan, run, learn=learn, ranging=ranging, first=seed % 5)
        for name, count in counted.items():
            reached[name] = reached.get(name, 0) + count
    return reached


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_wiring(wiring: str, seed: int) -> None:
    reached = check(wiring, range(seed, seed + 4))
    assert reached["updates"] > 0


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_wiring_at_the_ends_of_every_range(wiring: str, seed: int) -> None:
    check(wiring, range(seed, seed + 2), extreme=True)


def test_feedback_learns_at_the_rate_of_its_weights_as_it_falls(seed: int) -> None:
    for case, wiring in enumerate(("chain kolen-pollack", "skips kolen-pollack")):
        plan, run, ranging = drawn(wiring, seed + case)
        plan = replace(plan, learner=9 << 24, rate_every=2)
        check_against_oracle(plan, run, learn=True, ranging=ranging)


@pytest.mark.long
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_many_of_every_wiring(wiring: str, extreme: bool, seed: int) -> None:
    check(wiring, range(seed + 1000, seed + 1040), extreme)


def test_large_ones_are_the_same_on_every_table(seed: int) -> None:
    """Rows that spill, vectors and their ends, for a batch and for one stream."""
    for k, wiring in enumerate(WIRINGS):
        batch = (1, 20)[k % 2]
        plan = draw_plan(seed + k, wiring=wiring, sizes=(70, 33, 50), inputs=41, on=("gains",))
        run = draw_run(plan, seed, steps=6, batch=batch)
        states = []
        for name in TABLES:
            core = Core(plan.words(), batch, name, gradient=True)
            core.write(run.weights).write_back(run.backs)
            core.run(run.x, run.target, learn=True, flags=lib.GLE_READ_GRADIENT)
            assert core.intact()
            gradients = [core.gradient(layer) for layer in range(core.layers)]
            states.append(
                (state_of(core), core.read_back(), [(w.tolist(), b.tolist()) for w, b in gradients])
            )
        assert all(s == states[0] for s in states[1:]), wiring


@pytest.mark.parametrize("wiring", WIRINGS)
def test_cuts_streams_and_snapshots_change_nothing(wiring: str, seed: int) -> None:
    plan = draw_plan(seed, wiring=wiring, layers=4)
    run = draw_run(plan, seed, steps=12, batch=5)

    def fresh(batch: int = 5) -> Core:
        return Core(plan.words(), batch).write(run.weights).write_back(run.backs)

    whole, cut = fresh(), fresh()
    whole.run(run.x, run.target, learn=True)
    x, y = part(plan, run, 0, 7)
    cut.run(x, y, learn=True)
    taken = cut.snapshot()
    other = Core(plan.words(), 5)
    other.restore(taken)
    x, y = part(plan, run, 7, 12)
    for core in (cut, other):
        core.run(x, y, learn=True)
        assert state_of(core) == state_of(whole)
        assert core.read_back() == whole.read_back()
    together = fresh()
    together.run(run.x, run.target)
    alone = []
    for b in range(5):
        core = fresh(1)
        core.reset(b)
        core.run(*of_streams(plan, run, slice(b, b + 1)))
        alone += core.stream_digests()
    assert alone == together.stream_digests()


def test_an_absent_synapse_takes_nothing(seed: int) -> None:
    """Writing, adding, learning, flipping and snapshots leave it at 0."""
    plan = draw_plan(seed, wiring="masks kolen-pollack", sizes=(6, 5, 4), inputs=3, on=())
    plan.layers = [replace(y, learn=1) for y in plan.layers]
    run = draw_run(plan, seed, steps=30, batch=1)
    assert plan.masks is not None
    k = next(k for k, mask in enumerate(plan.masks) if mask is not None)
    absent = np.array(plan.masks[k]) == 0
    n, m = absent.shape
    core = Core(plan.words(), 1)
    full = np.full((n, m), plan.layers[k].w_max, np.int16)
    at = ffi.from_buffer("int16_t[]", full)
    for call in (lib.gle_weights_write, lib.gle_weights_add):
        assert call(core.chip, k, 0, full.size, at) == lib.GLE_OK
        stored = core.read()[k][0]
        assert not stored[absent].any()
        assert (stored[~absent] == plan.layers[k].w_max).all()
    core.write(run.weights).write_back(run.backs)
    core.run(run.x, run.target, learn=True)
    assert not core.read()[k][0][absent].any()
    if plan.back_shape(k) == absent.shape:
        assert not np.reshape(core.read_back()[k], (n, m))[absent].any()
    where = int(np.flatnonzero(absent.ravel())[0])
    stored_weight = lib.GLE_STORED_WEIGHT
    before = core.digest()
    assert lib.gle_flip(core.chip, k, stored_weight, where, 3) == lib.GLE_BAD_ARGUMENT
    assert core.digest() == before
    open_plan = replace(plan, masks=None, layers=[replace(y, masked=0) for y in plan.layers])
    assert open_plan.valid()


def test_feedback_learns_with_kolen_pollack_alone(seed: int) -> None:
    for wiring in ("chain alignment", "chain kolen-pollack", "chain direct"):
        plan = draw_plan(seed, wiring=wiring, sizes=(6, 5, 4), inputs=3, on=())
        plan.layers = [replace(y, learn=1) for y in plan.layers]
        run = draw_run(plan, seed, steps=40, batch=4)
        core = Core(plan.words(), 4).write(run.weights).write_back(run.backs)
        before = core.read_back()
        core.run(run.x, run.target, learn=True)
        assert plan.feedback is not None
        assert (core.read_back() != before) == (plan.feedback[0] == KOLEN_POLLACK)


def test_feedback_equal_to_the_weights_is_the_transposed_network(seed: int) -> None:
    for sources in ("chain", "skips"):
        plan = draw_plan(seed, wiring=f"{sources} alignment", sizes=(9, 7, 5), inputs=3, on=())
        for batch in (1, 6):
            run = draw_run(plan, seed, steps=15, batch=batch)
            backs = [
                w if plan.back_shape(k) is not None else None
                for k, (w, _) in enumerate(run.weights)
            ]
            one = Core(plan.words(), batch).write(run.weights).write_back(backs)
            other = Core(replace(plan, feedback=None).words(), batch).write(run.weights)
            for core in (one, other):
                core.run(run.x, run.target)
            assert one.stream_digests() == other.stream_digests()


# --- images ------------------------------------------------------------------------------------


def wired(seed: int, **how: Any) -> Plan:
    """Three layers with skips and no imperfection."""
    return draw_plan(seed, wiring="skips alignment", sizes=(4, 3, 2), inputs=2, on=(), **how)


def test_images_that_break_a_rule_are_refused(seed: int) -> None:
    plan = wired(seed)
    assert accepted(plan.words())
    for sources in ([[-1], [0, 2], [1]], [[], [0], [1]], [[-1], [0], [1, 3]], [[-1], [], [1]]):
        assert not accepted(replace(plan, sources=sources, masks=None).words()), sources
    for feedback in ((0, 0, 1), (4, 0, 1), (1, 1, 1), (DIRECT, 2, 1), (2, -1, 1), (2, 1, 0),
                     (2, 1, 31)):  # fmt: skip
        assert not accepted(replace(plan, feedback=feedback).words()), feedback
    assert accepted(replace(plan, feedback=(KOLEN_POLLACK, 5, 30)).words())
    learned = replace(plan, feedback=(KOLEN_POLLACK, 0, 1))
    for word, every in ((1 << 8, 0), (1 | 10 << 16, 0), (2, 0), (0, 2)):
        refused = replace(learned, learner=word, apply_every=every)
        assert not accepted(refused.words()), word
        assert accepted(replace(refused, feedback=(DIRECT, 0, 1)).words()), word
    assert accepted(replace(learned, learner=5 << 24, rate_every=3, apply_every=1).words())
    words = plan.words()
    for count in range(len(words)):
        assert not accepted([words[0], count, *words[2:count]][:count]), count


def test_a_stuck_synapse_that_is_absent_is_refused(seed: int) -> None:
    plan = draw_plan(seed, wiring="masks alignment", sizes=(4, 3), inputs=2, on=("gains",))
    assert plan.masks is not None
    assert plan.gains is not None
    k = next(k for k, mask in enumerate(plan.masks) if mask is not None)
    plan.masks[k][1][0], plan.gains[k][1][0] = 0, 0  # type: ignore[index]
    assert accepted(plan.words())
    plan.gains[k][1][0] = -5
    assert not accepted(plan.words())


def test_too_many_inputs_from_all_sources_are_refused() -> None:
    plan = draw_plan(3, wiring="chain alignment", sizes=(4, 3), inputs=4096, on=())
    assert accepted(replace(plan, sources=[[-1], [0]]).words())
    assert not accepted(replace(plan, sources=[[-1], [-1, 0]]).words())


def test_a_snapshot_with_an_absent_weight_is_refused(seed: int) -> None:
    plan = draw_plan(seed, wiring="masks transposed", sizes=(6, 5), inputs=4, on=())
    open_plan = replace(plan, masks=None, layers=[replace(y, masked=0) for y in plan.layers])
    run = draw_run(open_plan, seed, steps=1, batch=1)
    masked = Core(plan.words(), 1)
    free = Core(open_plan.words(), 1).write(
        [(np.where(w == 0, 1, w).astype(np.int16), b) for w, b in run.weights]
    )
    head = masked.snapshot()[:16]
    taken = head + free.snapshot()[16:]
    at = ffi.from_buffer("unsigned char[]", taken)
    assert lib.gle_snapshot_write(masked.chip, at, len(taken)) == lib.GLE_BAD_IMAGE
    masked.write(run.weights)
    masked.restore(masked.snapshot())


def test_the_tables_are_those_of_this_machine() -> None:
    assert list(TABLES) == tables()
