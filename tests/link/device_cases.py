"""Small random networks on boards, and the emulator beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from device_ends import (
    Board,
    Came,
    Message,
    block_came,
    block_messages,
    image_messages,
    pack,
    set_of,
)
from networks import Case, chip_with, draw_run, quantised, random_case
from numpy.typing import NDArray

from hwgle.calibrate import FOR_TRAINING
from hwgle.device import SIGNALS, Block, Records
from hwgle.devices.emulator import Emulator
from hwgle.quantise import Image, Quantised, quantise_weights


@dataclass(frozen=True)
class Run:
    """A case in integers."""

    case: Case
    image: Image
    weights: Quantised
    input: NDArray[np.int16]
    target: NDArray[np.int16]

    @property
    def batch(self) -> int:
        return self.case.batch

    def block(self, first: int = 0, end: int | None = None, **how: Any) -> Block:
        target = self.target if self.target.ndim == 1 else self.target[first:end]
        return Block(self.input[first:end], target=target, **how)

    def pairs(self, *, uhat: bool = True) -> list[tuple[int, str]]:
        """Every signal of every layer."""
        top = len(self.case.network.layers) - 1
        return [(k, s) for k in range(top + 1) for s in SIGNALS if uhat or k == top or s != "uhat"]


def run_of(
    seed: int, *, steps: int = 30, ranging: int = 7, streams: int | None = None, **most: int
) -> Run:
    """A random case on a chip that learns with stochastic rounding and ranges often.

    streams: exactly so many, and exactly `steps`.
    """
    sizes = {"layers": 3, "neurons": 9, "inputs": 5, "batch": 4} | most
    case = random_case(seed, steps=steps, **sizes)
    if streams is not None:
        x, target = draw_run(case.network, np.random.default_rng(seed), steps, streams)
        case = replace(case, x=x, target=target)
    chip = chip_with(seed, rounding="stochastic", weight=8, stored=10)
    q = quantised(
        case, chip, margins=FOR_TRAINING, learning_rate=0.3, range_every=ranging, range_clip=0.01
    )
    return Run(case, q.image, quantise_weights(q.image, case.weights), q.input, q.target)


def emulator(run: Run, *, gradient: bool = False, uhat: bool = True) -> Emulator:
    chip = Emulator()
    chip.load(run.image, run.batch, gradient=gradient, uhat=uhat)
    chip.write_weights(run.weights)
    return chip


def loaded(board: Board, run: Run, options: int) -> Board:
    board.all(image_messages(run.image, run.batch, options, board.payload))
    board.all(set_of(run.image, run.weights, board.payload))
    return board


def run_block(
    board: Board, run: Run, block: Block, rng: np.random.Generator, *, gradient: bool = False
) -> Came:
    got = board.all(block_messages(block, rng, board.payload, gradient))
    return block_came(got, block, run.image, run.batch)


def same_records(came: Came, records: Records, what: object) -> None:
    assert len(came.signals) == len(records.signals)
    for k, (a, b) in enumerate(zip(came.signals, records.signals, strict=True)):
        assert np.array_equal(a, b), (what, k)
    assert np.array_equal(came.fracs, records.fracs), what
    if records.votes is not None:
        assert np.array_equal(came.votes, records.votes), what


def told(board: Board, name: str, **fields: int) -> list[Message]:
    return board.feed(pack(name, **fields))


def same_state(board: Board, chip: Emulator, run: Run, what: object = "") -> None:
    """All that can be asked for, by messages, equals the emulator's."""
    got = told(board, "DIGEST")
    streams = [x for m in got[:-1] for x in m.numbers()]
    last = got[-1]
    assert streams == chip.stream_digests().tolist(), what
    assert (last.digest, last.weights) == (chip.digest(), chip.weights_digest()), what
    formats, counters, weights = chip.formats(), chip.counters(), chip.read_weights()
    for k, layer in enumerate(run.case.network.layers):
        f = formats[k]
        assert told(board, "FORMATS", layer=k)[0].numbers() == [
            f.stored, f.membrane, f.rate, f.error, f.error_state, f.gradient, f.gradient_bias
        ], what  # fmt: skip
        told_counters = [x for m in told(board, "COUNTERS", layer=k) for x in m.numbers()]
        assert told_counters == list(counters[k].values()), what
        w, b = weights[layer.name]
        got = told(board, "WEIGHTS_READ", layer=k, first=0, count=w.size)
        assert [x for m in got for x in m.numbers()] == w.ravel().tolist(), what
        got = told(board, "BIAS_READ", layer=k, first=0, count=b.size)
        assert [x for m in got for x in m.numbers()] == b.tolist(), what
    assert snapshot_of(board) == chip.snapshot(), what


def snapshot_of(board: Board) -> bytes:
    got = told(board, "SNAPSHOT_READ")
    assert got[0].name == "SNAPSHOT_IS"
    at = 0
    for m in got[1:]:
        assert m.offset == at
        at += len(m.tail)
    assert at == got[0].size
    return b"".join(m.tail for m in got[1:])
