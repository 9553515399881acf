"""Where memory holds the new beside the old, the old serves until the new is whole; where
not, nothing serves, and nobody mistakes one for the other."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from device_cases import emulator, loaded, run_block, run_of, same_records, same_state, snapshot_of
from device_ends import UHAT, Board, image_messages, pack, set_of
from hwgle._core import ffi, lib


@pytest.fixture(scope="module")
def run() -> Any:
    return run_of(20250207, layers=2, neurons=8, batch=2)


def tiny(run: Any, extra: int = 0, options: int = UHAT) -> Board:
    """A board on which the image just fits."""
    board = Board()
    board.all(image_messages(run.image, run.batch, options))
    need = board.do("STATUS")[0].memory_used
    return loaded(Board(memory=need + extra), run, options)


def test_everything_runs_where_it_just_fits(run: Any) -> None:
    board = tiny(run)
    status = board.do("STATUS")[0]
    assert status.memory == status.memory_used
    rng = np.random.default_rng(1)
    with emulator(run) as chip:
        block = run.block(learn=True, ranging=True, votes=True, record=run.pairs())
        same_records(run_block(board, run, block, rng), chip.run(block), "")
        same_state(board, chip, run)
        taken = chip.snapshot()
        board.do("SNAPSHOT_BEGIN", size=len(taken))
        for at in range(0, len(taken), 33):
            board.do("SNAPSHOT_DATA", taken[at : at + 33], offset=at)
        board.do("SNAPSHOT_COMMIT", crc=zlib.crc32(taken))
        same_state(board, chip, run)
        board.all(image_messages(run.image, run.batch, UHAT))
        board.all(set_of(run.image, run.weights))
    with emulator(run) as chip:
        same_state(board, chip, run)
    board.check_guards()


OUT = [
    pack("BLOCK", steps=0, flags=0), pack("WEIGHTS_READ", layer=0, first=0, count=0),
    pack("BIAS_READ", layer=0, first=0, count=0), pack("WEIGHTS_ADD", layer=0, first=0),
    pack("BIAS_ADD", layer=0, first=0), pack("SNAPSHOT_READ"),
]  # fmt: skip


def is_out(board: Board) -> None:
    for message in OUT:
        assert board.refused(message) == ("out_of_service", 0, 0)


def is_zero(board: Board) -> None:
    for layer in range(lib.gle_layers(board.chip)):
        shape = ffi.new("gle_shape *")
        lib.gle_shape_of(board.chip, layer, shape)
        w = ffi.new("int16_t[]", shape.neurons * shape.inputs)
        b = ffi.new("int32_t[]", shape.neurons)
        lib.gle_weights_read(board.chip, layer, 0, len(w), w)
        lib.gle_bias_read(board.chip, layer, 0, len(b), b)
        assert not any(w)
        assert not any(b)


@pytest.mark.parametrize("how", ["crc", "sync", "session", "refused", "other"])
def test_a_set_that_fits_once_serves_when_it_is_whole(run: Any, how: str) -> None:
    board = tiny(run)
    begin, *data, commit = set_of(run.image, run.weights, 64)
    board.all([begin, *data[:-1]])
    if how == "crc":
        board.refused(pack("WEIGHTS_COMMIT", crc=1))
    elif how == "sync":
        board.do("SYNC", cookie=1)
    elif how == "session":
        lib.device_session_ended(board.device)
    elif how == "refused":
        board.refused(pack("WEIGHTS_DATA", [1], layer=99, first=0))
    else:
        board.do("SNAPSHOT_BEGIN", size=lib.gle_snapshot_bytes(board.chip))
        board.do("SYNC", cookie=1)
    is_out(board)
    is_zero(board)
    assert board.refused(commit)[0] == "order"
    board.all([begin, *data, commit])
    with emulator(run) as chip:
        same_state(board, chip, run)


def test_a_set_that_never_began_harms_nothing(run: Any) -> None:
    board = tiny(run)
    board.do("WEIGHTS_BEGIN")
    assert board.refused(OUT[0])[0] == "out_of_service"
    with emulator(run) as chip:
        same_state(board, chip, run)


def test_states_are_held_when_a_set_is_dropped(run: Any) -> None:
    board = tiny(run)
    rng = np.random.default_rng(1)
    block = run.block(0, 9, learn=True)
    run_block(board, run, block, rng)
    begin, *data, commit = set_of(run.image, run.weights)
    board.all([begin, *data])
    lib.device_session_ended(board.device)
    board.all([begin, *data, commit])
    with emulator(run) as chip:
        chip.run(block)
        chip.write_weights(run.weights)
        same_state(board, chip, run)


@pytest.mark.parametrize("how", ["crc", "sync", "value", "other image"])
def test_a_snapshot_that_fits_once_serves_when_it_is_whole(run: Any, how: str) -> None:
    board = tiny(run)
    taken = snapshot_of(board)
    size = len(taken)
    board.do("SNAPSHOT_BEGIN", size=size)
    data = taken
    if how == "value":
        at = size - 4  # uhat of the output layer
        data = taken[:at] + b"\0\0\0\x80"
    if how == "other image":
        assert board.refused(pack("SNAPSHOT_DATA", b"x" * 20, offset=0)) == ("bad_snapshot", 0, 0)
        assert snapshot_of(board) == taken  # nothing had been touched
        return
    for k in range(0, size, 7):
        board.do("SNAPSHOT_DATA", data[k : k + 7], offset=k)
    if how == "crc":
        crc = zlib.crc32(data)
        assert board.refused(pack("SNAPSHOT_COMMIT", crc=crc ^ 8)) == ("bad_crc", crc, crc ^ 8)
    elif how == "sync":
        board.do("SYNC", cookie=0)
    else:
        commit = pack("SNAPSHOT_COMMIT", crc=zlib.crc32(data))
        assert board.refused(commit) == ("bad_snapshot", 0, 0)
    is_out(board)
    is_zero(board)
    board.all(set_of(run.image, run.weights))
    with emulator(run) as chip:
        same_state(board, chip, run)


def test_a_snapshot_that_only_offered_its_head_harms_nothing(run: Any) -> None:
    board = tiny(run)
    taken = snapshot_of(board)
    board.do("SNAPSHOT_BEGIN", size=len(taken))
    board.do("SNAPSHOT_DATA", taken[:16], offset=0)
    board.do("SYNC", cookie=0)
    assert snapshot_of(board) == taken


def test_an_image_that_fits_once_takes_the_old_one_out(run: Any) -> None:
    board = tiny(run)
    begin, *data, commit = image_messages(run.image, run.batch, UHAT)
    board.all([begin])
    assert board.refused(pack("DIGEST")) == ("no_model", 0, 0)
    assert board.refused(commit)[0] == "order"  # forgotten at the SYNC
    board.all([begin, *data, commit])
    is_zero(board)
    board.all(set_of(run.image, run.weights))
    with emulator(run) as chip:
        same_state(board, chip, run)


def test_a_log_that_is_full_is_refused_and_the_old_set_serves(run: Any) -> None:
    """Data in many pieces that do not follow each other need more room than a set."""
    layers = [(n.size, run.case.network.fan_in(k)) for k, n in enumerate(run.case.network.layers)]
    whole = sum(24 + 2 * n * m + 4 * n for n, m in layers)
    board = tiny(run, (whole + 7) // 8 * 8)
    with emulator(run) as chip:
        board.do("WEIGHTS_BEGIN")
        data = pack("WEIGHTS_DATA", [3], layer=0, first=0)
        for _ in range(whole // 14):
            board.all([data])
        reason, need, have = board.refused(data)
        assert (reason, need > have >= whole) == ("no_memory", True)
        same_state(board, chip, run)
        board.all(set_of(run.image, run.weights))  # in order it fits to the byte
        same_state(board, chip, run)
    board.check_guards()


def test_every_size_of_memory(run: Any) -> None:
    """From nothing to plenty: refused or right, and never outside."""
    want = None
    for memory in [*range(0, 600, 40), *range(600, 12000, 328), 1 << 16]:
        board = Board(memory=memory)
        for message in [*image_messages(run.image, run.batch), *set_of(run.image, run.weights)]:
            board.feed(message)
        board.feed(pack("SYNC", cookie=0))
        if board.chip:
            want = want or lib.gle_weights_digest(board.chip)
            assert lib.gle_weights_digest(board.chip) == want
        board.check_guards()
    assert want


@pytest.mark.parametrize(
    "message",
    [
        pack("RESET_STATES", first=0),
        pack("SET_RATE", shift=3),
        pack("COUNTERS_CLEAR"),
        pack("GRADIENT_CLEAR", drop=0),
    ],
)
def test_a_snapshot_went_live_altered_by_what_came_between_its_parts(
    run: Any, message: bytes
) -> None:
    board = tiny(run)
    with emulator(run) as chip:
        taken = chip.snapshot()
    board.do("SNAPSHOT_BEGIN", size=len(taken))
    board.do("SNAPSHOT_DATA", taken[:200], offset=0)
    assert board.refused(message)[0] == "out_of_service"


def test_an_empty_set_put_zeros_into_service_after_a_dropped_one(run: Any) -> None:
    board = tiny(run)
    board.do("WEIGHTS_BEGIN")
    board.do("WEIGHTS_DATA", b"\1\0\2\0", layer=0, first=0)
    board.do("SYNC", cookie=1)
    is_out(board)
    board.do("WEIGHTS_BEGIN")
    reason, need, have = board.refused(pack("WEIGHTS_COMMIT", crc=0))
    assert (reason, have) == ("out_of_service", 0)
    assert need == sum(w.size + b.size for w, b in run.weights.values())
    board.all(set_of(run.image, run.weights))
    with emulator(run) as chip:
        same_state(board, chip, run)
