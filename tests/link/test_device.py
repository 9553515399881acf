"""A device does by messages what the emulator does by calls, equal in every bit."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import pytest
from device_cases import (
    emulator,
    loaded,
    run_block,
    run_of,
    same_records,
    same_state,
    snapshot_of,
    told,
)
from device_ends import GRADIENT, LAYOUTS, UHAT, Board, block_messages, cut, pack, weights_messages
from hwgle._core import ffi, lib

from hwgle.device import SIGNALS
from hwgle.quantise import STATE_MAX


def test_the_list() -> None:
    assert len({layout.id for layout in LAYOUTS.values()}) == len(LAYOUTS)
    for layout in LAYOUTS.values():
        assert getattr(lib, f"MESSAGE_{layout.name}") == layout.id
        assert layout.to_host == bool(layout.id & 0x40)
        assert layout.fixed.size <= lib.DEVICE_LEAST_PAYLOAD


def test_the_crc_is_of_the_whole_list() -> None:
    text = b""
    for k in range(lib.message_count):
        row = lib.message_list[k]
        text += ffi.string(row.name) + b"\0" + row.id.to_bytes(4, "little")
        text += row.way.to_bytes(4, "little") + ffi.string(row.fields) + b"\0"
        text += ffi.string(row.tail) + b"\0"
    counters, formats = (len(ffi.typeof(t).fields) for t in ("gle_counters", "gle_formats"))
    for number in (lib.GLE_MAGIC, counters, formats, lib.GLE_FLIP_COUNT):
        text += number.to_bytes(4, "little")
    assert lib.message_list_crc() == zlib.crc32(text)


def test_what_a_board_tells_of_itself() -> None:
    board = Board(memory=5000, name=b"a board")
    (info,) = board.do("INFO")
    features = lib.FEATURE_WATCHDOG | lib.FEATURE_GRADIENT | lib.FEATURE_UHAT
    assert info.fields == {
        "memory": 5000, "features": features, "max_batch": lib.GLE_MAX_BATCH,
        "boot_cause": lib.BOOT_WATCHDOG, "boots": 3,
    }  # fmt: skip
    assert info.tail == b"a board"
    out = ffi.new("uint8_t[]", lib.DEVICE_HELLO_BYTES)
    lib.device_hello(board.config, out)
    assert bytes(ffi.buffer(out)) == (5000).to_bytes(4, "little") + b"\0\1" + bytes([features, 0])
    (status,) = board.do("STATUS")
    assert status.fields == {
        "stack_size": 1000, "stack_used": 100, "memory": 5000, "memory_used": 0,
        "uptime_ms": 12345, "rx_lost": 7, "discarded": 0, "retransmitted": 0, "refused": 0,
    }  # fmt: skip
    board.refused(b"\xff", sync=False)
    board.feed(pack("ECHO"))
    board.feed(pack("SYNC", cookie=1))
    (status,) = board.do("STATUS")
    assert (status.discarded, status.refused) == (1, 1)
    assert board.do("REBOOT", how=lib.REBOOT_WEDGE) == []
    assert board.reboots == [lib.REBOOT_WEDGE]


def test_a_long_name_is_cut() -> None:
    board = Board(payload=64, name=b"x" * 100)
    (info,) = board.do("INFO")
    assert info.tail == b"x" * 46


def test_echo_and_sync() -> None:
    board = Board(payload=64)
    for n in (0, 1, 63):
        assert board.raw(pack("ECHO", bytes(range(n)))) == [b"\x44" + bytes(range(n))]
    assert board.refused(pack("ECHO", bytes(64))) == ("too_long", 65, 64)
    (synced,) = board.do("SYNC", cookie=2**32 - 1)
    assert synced.cookie == 2**32 - 1


def test_what_cannot_be_opened() -> None:
    for payload in (0, 63, 8193):
        assert lib.device_bytes(payload) == 0
    board = Board()
    state = ffi.new("uint64_t[]", lib.device_bytes(256) // 8 + 2)
    for change in ("payload", "memory", "kernels"):
        config = ffi.new("device_config *", board.config[0])
        value = {"payload": 63}.get(change, ffi.NULL)
        setattr(config, change, value)
        assert lib.device_open(state, config) == ffi.NULL
    config = ffi.new("device_config *", board.config[0])
    config.memory = ffi.cast("char *", config.memory) + 4
    assert lib.device_open(state, config) == ffi.NULL
    assert lib.device_open(ffi.cast("char *", state) + 4, board.config) == ffi.NULL
    assert lib.device_open(ffi.NULL, board.config) == ffi.NULL
    assert lib.device_open(state, ffi.NULL) == ffi.NULL


@pytest.mark.parametrize("payload", [64, 256, 1000])
def test_blocks_equal_the_emulator(payload: int, seed: int) -> None:
    """Learning, ranging, stochastic rounding, all records, both losses, one and more streams."""
    for k in range(8):
        run = run_of(seed + 100 * payload + k, batch=1 if k % 2 else 5)
        rng = np.random.default_rng(seed + k)
        board = loaded(Board(payload=payload), run, UHAT)
        with emulator(run) as chip:
            same_state(board, chip, run, run.case)
            steps = len(run.input)
            pieces = [0, *sorted(rng.integers(0, steps + 1, 2)), steps]
            for first, end in pairwise(pieces):
                pairs = [p for p in run.pairs() if rng.random() < 0.5][: (payload - 6) // 2]
                how = {"learn": bool(k % 3), "ranging": bool(k % 5), "votes": bool(rng.integers(2))}
                block = run.block(first, end, record=pairs, **how)
                came = run_block(board, run, block, rng)
                same_records(came, chip.run(block), run.case)
                assert came.digest == chip.digest()
                assert came.steps == end - first
            same_state(board, chip, run, run.case)
        board.check_guards()


def test_a_block_without_target_and_one_of_no_steps(seed: int) -> None:
    run = run_of(seed)
    board = loaded(Board(), run, 0)
    with emulator(run) as chip:
        block = run.block(0, 3, votes=True)
        block = type(block)(block.input, None, votes=True)
        same_records(run_block(board, run, block, np.random.default_rng(0)), chip.run(block), "")
        (*votes, done) = board.do("BLOCK", steps=0, flags=lib.BLOCK_VOTES)
        assert done.fields == {"steps": 0, "digest": chip.digest()}
        assert b"".join(m.tail for m in votes) == bytes(8 * run.batch * run.case.network.outputs)
        same_state(board, chip, run)
    held = next(r for k in range(100) if (r := run_of(k)).target.ndim == 1)
    board = loaded(Board(), held, 0)
    (done,) = board.do("BLOCK", steps=0, flags=lib.BLOCK_TARGET)  # no labels are awaited
    assert done.name == "BLOCK_DONE"
    assert board.refused(pack("STEPS", b"x"))[0] == "order"


def test_digests_of_more_streams_than_a_message_holds(seed: int) -> None:
    run = run_of(seed + 5, streams=17)
    board = loaded(Board(payload=64), run, UHAT)
    with emulator(run) as chip:
        got = told(board, "DIGEST")
        assert [len(m.numbers()) for m in got[:-1]] == [7, 7, 3]
        assert [x for m in got[:-1] for x in m.numbers()] == chip.stream_digests().tolist()


def test_a_set_in_many_messages(seed: int) -> None:
    """What goes on where the last message ended lengthens its entry of the log."""
    wide = (run_of(k, layers=1, inputs=9) for k in range(200))
    run = next(r for r in wide if next(iter(r.weights.values()))[0].size > 40)
    board = loaded(Board(payload=64), run, UHAT)
    with emulator(run) as chip:
        same_state(board, chip, run)


def test_what_may_come_between_the_steps_of_a_block(seed: int) -> None:
    """Reads and increments act between two steps; the records stay in order."""
    run = run_of(seed + 3, batch=2)
    rng = np.random.default_rng(seed)
    board = loaded(Board(), run, UHAT)
    with emulator(run) as chip:
        block = run.block(0, 6, record=[(0, "u")])
        head, *steps = block_messages(block, rng)
        got = board.do("BLOCK", head[6:], steps=6, flags=lib.BLOCK_TARGET)
        for piece in steps:
            for message in (pack("ECHO", b"?"), piece, pack("DIGEST"), pack("SET_RATE", shift=5)):
                got += board.all([message])
        records = chip.run(block)
        data = b"".join(m.tail for m in got if m.name == "RECORDS")
        assert data == records.signals[0].astype("<i4").tobytes()
        assert [m.name for m in got].count("ECHOED") == len(steps)
        chip.set_rate(5)
        same_state(board, chip, run)


def test_rate_reset_and_counters(seed: int) -> None:
    run = run_of(seed + 1)
    rng = np.random.default_rng(seed)
    board = loaded(Board(), run, UHAT)
    with emulator(run) as chip:
        for shift in (-32, 3, 64):
            board.do("SET_RATE", shift=shift)
            chip.set_rate(shift)
            block = run.block(0, 4, learn=True)
            run_block(board, run, block, rng)
            chip.run(block)
            same_state(board, chip, run)
        board.do("RESET_STATES", first=0)
        chip.reset()
        same_state(board, chip, run)
        board.do("COUNTERS_CLEAR")
        for k in range(len(run.case.network.layers)):
            assert not any(x for m in told(board, "COUNTERS", layer=k) for x in m.numbers())


def test_increments_saturate(seed: int) -> None:
    run = run_of(seed + 2)
    rng = np.random.default_rng(seed)
    board = loaded(Board(payload=64), run, UHAT)
    with emulator(run) as chip:
        before = chip.read_weights()
        clipped = []
        for k, layer in enumerate(run.case.network.layers):
            w, b = before[layer.name]
            dw = rng.integers(-(2**15), 2**15, w.size)
            dw[::2] //= 1000
            db = rng.integers(-(2**31), 2**31, b.size)
            db[::2] //= 10**6
            for first in range(0, w.size, 20):
                board.do("WEIGHTS_ADD", dw[first : first + 20], layer=k, first=first)
            for first in range(0, b.size, 10):
                board.do("BIAS_ADD", db[first : first + 10], layer=k, first=first)
            most = int(run.image.words[24 + 20 * k + 5])  # w_max
            sum_w, sum_b = w.ravel() + dw, b.astype(np.int64) + db
            new_w, new_b = np.clip(sum_w, -most, most), np.clip(sum_b, -STATE_MAX, STATE_MAX)
            clipped.append(int((new_w != sum_w).sum() + (new_b != sum_b).sum()))
            new = new_w.astype(np.int16).reshape(w.shape), new_b.astype(np.int32)
            chip.write_weights({layer.name: new})
        told_clipped = [
            [x for m in told(board, "COUNTERS", layer=k) for x in m.numbers()][9]
            for k in range(len(clipped))
        ]
        assert told_clipped == clipped
        board.do("COUNTERS_CLEAR")
        same_state(board, chip, run)


def test_part_of_a_set_leaves_the_rest(seed: int) -> None:
    run = run_of(seed + 4)
    board = loaded(Board(), run, UHAT)
    with emulator(run) as chip:
        data = [
            pack("WEIGHTS_DATA", [5], layer=0, first=0),
            pack("BIAS_DATA", [7], layer=0, first=0),
            pack("WEIGHTS_DATA", [-6], layer=0, first=0),
        ]
        name = run.case.network.layers[0].name
        board.all(weights_messages(data))
        w, b = chip.read_weights()[name]
        w.ravel()[0], b[0] = -6, 7
        chip.write_weights({name: (w, b)})
        same_state(board, chip, run)


def test_a_set_is_live_at_its_commit_and_not_before(seed: int) -> None:
    run = run_of(seed + 5)
    board = loaded(Board(), run, UHAT)
    with emulator(run) as chip:
        message = pack("WEIGHTS_DATA", [9], layer=0, first=0)
        board.all([pack("WEIGHTS_BEGIN"), message])
        block = run.block(0, 5, learn=True)
        run_block(board, run, block, np.random.default_rng(1))
        chip.run(block)
        same_state(board, chip, run)
        board.do("WEIGHTS_COMMIT", crc=zlib.crc32(message))
        name = run.case.network.layers[0].name
        w, b = chip.read_weights()[name]
        w.ravel()[0] = 9
        chip.write_weights({name: (w, b)})
        same_state(board, chip, run)


@pytest.mark.parametrize("room", ["beside", "straight"])
def test_a_snapshot_taken_up_elsewhere_goes_on_equally(room: str, seed: int) -> None:
    for k in range(4):
        run = run_of(seed + 20 + k, batch=3)
        rng = np.random.default_rng(seed + k)
        half = len(run.input) // 2
        one, way = loaded(Board(payload=100), run, UHAT), {"learn": True, "ranging": True}
        run_block(one, run, run.block(0, half, **way), rng)
        taken = snapshot_of(one)
        need = one.do("STATUS")[0].memory_used + (len(taken) + 8 if room == "beside" else 100)
        other = loaded(Board(memory=need, payload=64), run, UHAT)
        run_block(other, run, run.block(0, 3, **way), rng)
        other.do("SNAPSHOT_BEGIN", size=len(taken))
        at = 0
        for piece in cut(taken, 37):
            other.do("SNAPSHOT_DATA", piece, offset=at)
            at += len(piece)
        other.do("SNAPSHOT_COMMIT", crc=zlib.crc32(taken))
        assert snapshot_of(other) == taken
        with emulator(run) as chip:
            chip.restore(taken)
            block = run.block(half, **way, record=run.pairs())
            records = chip.run(block)
            same_records(run_block(other, run, block, rng), records, run.case)
            same_state(other, chip, run)


def test_gradients_over_blocks(seed: int) -> None:
    """Equal to the core's own sum, and in the formats that were fixed at the clear."""
    for k in range(6):
        run = run_of(seed + 40 + k, batch=1 if k % 2 else 6, ranging=3)
        rng = np.random.default_rng(seed)
        board = loaded(Board(payload=64 + 20 * k), run, GRADIENT)
        with emulator(run, gradient=True, uhat=False) as chip:
            board.do("GRADIENT_CLEAR", drop=k)
            assert lib.gle_gradient_clear(chip._chip, k) == lib.GLE_OK
            for first in (0, 3, 9):
                block = run.block(first, first + 5, learn=True, ranging=True)
                run_block(board, run, block, rng, gradient=True)
                for t in range(len(block.input)):
                    y = block.target if block.target.ndim == 1 else block.target[t]
                    flags = lib.GLE_LEARN | lib.GLE_RANGE | lib.GLE_ADD_GRADIENT
                    x = ffi.from_buffer("int16_t[]", np.ascontiguousarray(block.input[t]))
                    y = ffi.from_buffer("int16_t[]", np.ascontiguousarray(y))
                    assert lib.gle_step(chip._chip, x, y, flags) == lib.GLE_OK
            for n, layer in enumerate(run.case.network.layers):
                head, *rest = told(board, "GRADIENT_READ", layer=n)
                w = np.empty((layer.size, run.case.network.fan_in(n)), np.int32)
                b = np.empty(layer.size, np.int32)
                to = (ffi.from_buffer("int32_t[]", x) for x in (w, b))
                assert lib.gle_gradient(chip._chip, n, *to) == lib.GLE_OK
                numbers = [x for m in rest for x in m.numbers()]
                assert numbers == [*w.ravel().tolist(), *b.tolist()]
                assert any(numbers) or not w.any()
                f = chip.formats()[n]
                assert (head.layer, head.frac, head.bias_frac) == (n, f.gradient, f.gradient_bias)
            same_state(board, chip, run)


@pytest.mark.parametrize("options", [0, UHAT])
def test_what_can_be_flipped(options: int, seed: int) -> None:
    run = run_of(seed + 61, layers=2, batch=2)
    board = loaded(Board(), run, options)
    names = [*SIGNALS, "weight", "bias"]
    for k, name in enumerate(names):
        bits = 16 if name in ("r", "e", "weight") else 32
        asked = {"step": 0, "layer": 0, "signal": k, "index": 0}
        if name == "uhat" and not options:
            assert board.refused(pack("TAMPER", **asked, bit=0)) == ("bad_value", len(names) - 1, k)
            continue
        board.do("TAMPER", **asked, bit=bits - 1)
        assert board.refused(pack("TAMPER", **asked, bit=bits)) == ("bad_value", bits - 1, bits)


def test_one_flipped_bit_is_found_again_and_again(seed: int) -> None:
    run = run_of(seed + 60, batch=2, steps=12)
    rng = np.random.default_rng(seed)
    board = loaded(Board(), run, UHAT)
    with emulator(run) as chip:
        clean = [(chip.run(run.block(t, t + 1)), chip.digest())[1] for t in range(6)]
    for signal in ("u", "v"):
        board.do("TAMPER", step=3, layer=0, signal=SIGNALS.index(signal), index=1, bit=12)
        for _ in range(2):
            board.do("RESET_STATES", first=0)
            got = [run_block(board, run, run.block(t, t + 1), rng).digest for t in range(6)]
            assert got[:4] == clean[:4]
            assert not set(got[4:]) & set(clean)
    board.do("TAMPER", step=0, layer=0, signal=0, index=0, bit=255)
    board.do("RESET_STATES", first=0)
    assert [run_block(board, run, run.block(t, t + 1), rng).digest for t in range(6)] == clean
