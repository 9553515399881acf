"""Streams, calls, resets and snapshots: however a run is cut up, the bits are the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from chip_checks import (
    TABLES,
    of_streams,
    part,
    same,
    state_of,
)
from networks import quantised, random_case
from random_images import (
    FEATURES,
    SIGNALS,
    Core,
    Draws,
    all_signals,
    draw_plan,
    draw_run,
)

from hwgle.chip import Chip
from hwgle.device import Block, Limits
from hwgle.devices.emulator import Emulator
from hwgle.quantise import quantise_weights
from hwgle.session import run as session_run

NOISY = tuple(f for f in FEATURES if f != "drift")


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
