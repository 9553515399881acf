"""The core, with every kernel table, against whole numbers without any width.

Images are drawn word by word (random_images.py); integer_oracle.py says what must come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hwgle._core import ffi, lib
from integer_oracle import IntegerChip
from numpy.typing import NDArray
from random_images import (
    LINEAR,
    ONE_COEFFICIENT,
    SIGNALS,
    Core,
    Draws,
    LayerPlan,
    Plan,
    Run,
    all_signals,
    draw_plan,
    draw_run,
    tables,
)

TABLES = tables()


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


def digests_of(plan: Plan, run: Run, table: str | None, first: int = 0) -> list[int]:
    """All digests of a run with learning."""
    core = Core(plan.words(), run.x.shape[1], table, first).write(run.weights)
    core.run(run.x, run.target, learn=True)
    return [core.digest(), core.weights_digest(), *core.stream_digests()]


def accepted(words: Sequence[int]) -> bool:
    """Whether the core would build this chip."""
    array = np.array([w & 0xFFFFFFFF for w in words], dtype=np.uint32)
    at = ffi.from_buffer("uint32_t[]", array)
    return bool(lib.gle_image_check(at, array.size) == lib.GLE_OK)


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


# Of two sums of the same four bytes: the excess kurtosis of one, -1.2 / 4, over its own
# kurtosis less 1.
SQUARES_OF_ONE_WORD = -0.3 / 1.7


def check_uncorrelated(columns: NDArray[Any], words: NDArray[Any] | None = None) -> None:
    """columns: (number of draws, what must not know of each other).

    words: columns of the same number have their noise from the same random word. They are
    not correlated either, but their squares are.
    """
    x = columns.astype(float)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    correlation = x.T @ x / len(x) - np.eye(x.shape[1])
    pairs = x.shape[1] * (x.shape[1] - 1) / 2
    bound = np.sqrt(2 * np.log(max(pairs, 2)) + SIGMAS**2) / len(x) ** 0.5
    assert np.abs(correlation).max() < bound
    squares = x**2 - 1  # not even their sizes know of each other
    correlation = squares.T @ squares / len(x) / (squares**2).mean() - np.eye(x.shape[1])
    if words is not None:
        shared = (words[:, None] == words) & ~np.eye(len(words), dtype=bool)
        correlation -= SQUARES_OF_ONE_WORD * shared
    assert np.abs(correlation).max() < 1.2 * bound + np.abs((squares**2).mean(0).std() * 0.1)
