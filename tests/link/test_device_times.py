"""Multipliers of neurons that learn their time constants: whole messages or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device_cases import Run, emulator, loaded, run_block, run_of, same_state
from device_ends import UHAT, Board, image_messages, pack, set_of
from networks import chip_with, quantised

from hwgle.calibrate import FOR_TRAINING
from hwgle.packing import times

WORDS = 4  # of a gle_neuron


@pytest.fixture(scope="module")
def learning() -> Run:
    """Two layers or more, the first of which learns its tau_m."""
    case = next(r.case for k in range(50) if len((r := run_of(k)).case.network.layers) > 1)
    layers = list(case.network.layers)
    layers[0] = layers[0].model_copy(update={"learn_tau_m": True})
    case = replace(case, network=case.network.model_copy(update={"layers": tuple(layers)}))
    plain = next(r for k in range(50) if (r := run_of(k)).case.seed == case.seed)
    q = quantised(case, chip_with(1), margins=FOR_TRAINING, learning_rate=0.3)
    return Run(case, q.image, plain.weights, q.input, q.target)


def slower(run: Run) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """(n, 4): half as fast."""
    layer, dt = run.case.network.layers[0], run.case.network.dt
    leak_v = times(dt, layer.tau_r, layer.tau_r, np.zeros(layer.size, np.uint32))[:, 0]
    return times(
        dt, np.float32(2) * layer.tau_m.astype(np.float32), layer.tau_r.astype(np.float32), leak_v
    )


def test_they_are_those_of_the_emulator(learning: Run, seed: int) -> None:
    board = Board()
    board.all(image_messages(learning.image, learning.batch, UHAT))
    board.all(set_of(learning.image, learning.weights))
    words = slower(learning)
    with emulator(learning) as chip:
        chip.write_times({learning.case.network.layers[0].name: words})
        for k, row in enumerate(words):
            board.do("TIMES_WRITE", row.view(np.int32), layer=0, first=k)
        same_state(board, chip, learning)
        block = learning.block(0, 8, learn=True)
        came = run_block(board, learning, block, np.random.default_rng(seed))
        chip.run(block)
        assert came.digest == chip.digest()
    board.do("TIMES_WRITE", layer=0, first=len(words))  # none of them


def test_what_is_refused_changes_nothing(learning: Run) -> None:
    board = loaded(Board(), learning, UHAT)
    words = slower(learning).view(np.int32)
    n, before = len(words), board.digest()
    good = words[:1].ravel().tolist()
    bad = [0xFFFFFF00 - 2**32, *good[1:]]
    for tail, layer, first, expected in [
        (good, 1, 0, ("bad_value", 0, WORDS)),  # learns none
        (good[:3], 0, 0, ("bad_value", WORDS, 3)),
        (good, 0, n, ("bad_value", n, n + 1)),
        ([*good, *bad], 0, 0, ("bad_value", 0, 0xFFFFFF00)),  # nor is the first one written
    ]:
        message = pack("TIMES_WRITE", tail, layer=layer, first=first)
        assert board.refused(message) == expected
        assert board.digest() == before
