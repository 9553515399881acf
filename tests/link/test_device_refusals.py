"""What cannot be executed is refused with its reason, and changes nothing."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from device_cases import loaded, run_of, snapshot_of, told
from device_ends import GRADIENT, LAYOUTS, UHAT, Board, image_messages, pack, set_of
from hwgle._core import lib

SYNC = pack("SYNC", cookie=9)


def whole_state(board: Board) -> bytes:
    return snapshot_of(board) + b"".join(m.tail for m in told(board, "DIGEST")[:-1])


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Any:
    return run_of(20250115, layers=2, neurons=6)


def ready(run: Any, options: int = 0, **board: Any) -> Board:
    return loaded(Board(**board), run, options)


def test_no_model() -> None:
    board = Board()
    for name, layout in LAYOUTS.items():
        if layout.to_host or name in ("INFO", "STATUS", "SYNC", "ECHO", "REBOOT", "IMAGE_BEGIN"):
            continue
        message = layout.fixed.pack(layout.id, *(1 for _ in layout.fields))
        reason = "order" if name in ("STEPS", "IMAGE_DATA", "IMAGE_COMMIT") else "no_model"
        assert board.refused(message)[:2] == (reason, 0), name


def test_malformed_and_unknown(run: Any) -> None:
    board = ready(run)
    before = whole_state(board)
    assert board.refused(b"") == ("malformed", 1, 0)
    for k in range(256):
        if not any(layout.id == k and not layout.to_host for layout in LAYOUTS.values()):
            assert board.refused(bytes([k]) + bytes(8)) == ("unknown", 0, k)
    for name, layout in LAYOUTS.items():
        if layout.to_host:
            continue
        whole = layout.fixed.size
        wrong = list(range(1, whole))
        wrong += {"NONE": [whole + 1], "I16": [whole + 1], "I32": [whole + 1, whole + 2]}.get(
            layout.tail, []
        )
        for n in wrong:
            message = bytes([layout.id]) + bytes(n - 1)
            assert board.refused(message) == ("malformed", whole, n), name
    assert whole_state(board) == before


def test_everything_behind_a_refusal_is_passed_over(run: Any) -> None:
    board = ready(run)
    before = whole_state(board)
    board.refused(b"\xff", sync=False)
    passed = [
        pack("ECHO", b"x"), pack("WEIGHTS_ADD", [5], layer=0, first=0),
        pack("RESET_STATES", first=0),
        SYNC[:-1], SYNC + b"\0", b"", pack("BLOCK", steps=0, flags=0), b"\xff",
        *image_messages(run.image, 1),
    ]  # fmt: skip
    for message in passed:
        assert board.feed(message) == []
    assert board.feed(SYNC)[0].cookie == 9
    assert board.do("STATUS")[0].discarded == len(passed)
    assert whole_state(board) == before


def test_a_refusal_names_the_request(run: Any) -> None:
    board = Board()
    for _ in range(5):
        board.do("ECHO")
    (refused,) = board.feed(pack("SET_RATE", shift=1))
    assert (refused.number, refused.message) == (5, lib.MESSAGE_SET_RATE)
    board.feed(b"passed over")
    board.feed(SYNC)
    (refused,) = board.feed(b"\xff")
    assert (refused.number, refused.message) == (8, 0xFF)
    lib.device_session_ended(board.device)
    assert board.feed(b"\xff")[0].number == 0


def values(run: Any) -> list[tuple[bytes, tuple[str, int, int]]]:
    top = len(run.case.network.layers) - 1
    n, m = run.case.network.layers[0].size, run.case.network.inputs
    last = 2**32 - 1
    bad = "bad_value"
    result = [
        (pack("REBOOT", how=2), (bad, 1, 2)),
        (pack("IMAGE_BEGIN", words=9, batch=0, options=0), (bad, 4096, 0)),
        (pack("IMAGE_BEGIN", words=9, batch=4097, options=0), (bad, 4096, 4097)),
        (pack("IMAGE_BEGIN", words=9, batch=1, options=4), (bad, 3, 4)),
        (pack("IMAGE_BEGIN", words=last, batch=1, options=0), ("no_memory", last, 1 << 20)),
        (pack("IMAGE_DATA", b"x", offset=3), ("order", 0, 3)),
        (pack("IMAGE_COMMIT", crc=0), ("order", 0, 0)),
        (pack("WEIGHTS_DATA", [1], layer=0, first=2), ("order", 0, 2)),
        (pack("BIAS_DATA", [1], layer=0, first=2), ("order", 0, 2)),
        (pack("WEIGHTS_COMMIT", crc=0), ("order", 0, 0)),
        (pack("WEIGHTS_ADD", [1], layer=top + 1, first=0), (bad, top, top + 1)),
        (pack("WEIGHTS_ADD", [1, 1], layer=0, first=n * m - 1), (bad, n * m, n * m + 1)),
        (pack("WEIGHTS_ADD", [1], layer=0, first=last), (bad, n * m, last)),
        (pack("BIAS_ADD", [1], layer=255, first=0), (bad, top, 255)),
        (pack("BIAS_ADD", [1], layer=0, first=n), (bad, n, n + 1)),
        (pack("WEIGHTS_READ", layer=0, first=1, count=n * m), (bad, n * m, n * m + 1)),
        (pack("WEIGHTS_READ", layer=0, first=last, count=last), (bad, n * m, last)),
        (pack("BIAS_READ", layer=0, first=0, count=n + 1), (bad, n, n + 1)),
        (pack("BIAS_READ", layer=9, first=0, count=0), (bad, top, 9)),
        (pack("BLOCK", b"\0", steps=1, flags=0), ("malformed", 6, 7)),
        (pack("BLOCK", steps=1, flags=32), (bad, 23, 32)),
        (pack("BLOCK", steps=1, flags=lib.BLOCK_GRADIENT), (bad, 23, 8)),
        (pack("BLOCK", bytes([top + 1, 0]), steps=1, flags=0), (bad, top, top + 1)),
        (pack("BLOCK", bytes([0, 5]), steps=1, flags=0), (bad, 4, 5)),
        (pack("BLOCK", bytes([0, 2]), steps=1, flags=0), (bad, 4, 2)),
        (pack("BLOCK", bytes(258), steps=1, flags=0), ("too_long", 258, 256)),
        (pack("STEPS"), ("order", 0, 0)),
        (pack("SET_RATE", shift=65), (bad, 64, 65)),
        (pack("SET_RATE", shift=-33), (bad, 64, 2**32 - 33)),
        (pack("GRADIENT_CLEAR", drop=0), (bad, GRADIENT, 0)),
        (pack("GRADIENT_READ", layer=0), (bad, GRADIENT, 0)),
        (pack("COUNTERS", layer=top + 1), (bad, top, top + 1)),
        (pack("FORMATS", layer=top + 1), (bad, top, top + 1)),
        (pack("SNAPSHOT_DATA", b"x", offset=4), ("order", 0, 4)),
        (pack("SNAPSHOT_COMMIT", crc=0), ("order", 0, 0)),
        (pack("TAMPER", step=0, layer=top + 1, signal=0, index=0, bit=0), (bad, top, top + 1)),
        (pack("TAMPER", step=0, layer=0, signal=7, index=0, bit=0), (bad, 6, 7)),
        (pack("TAMPER", step=0, layer=0, signal=2, index=0, bit=0), (bad, 6, 2)),
        (pack("TAMPER", step=0, layer=0, signal=0, index=0, bit=16), (bad, 15, 16)),
        (pack("TAMPER", step=0, layer=0, signal=1, index=0, bit=32), (bad, 31, 32)),
        (
            pack("TAMPER", step=0, layer=0, signal=1, index=n * run.batch, bit=1),
            (bad, n * run.batch - 1, n * run.batch),
        ),
        (pack("TAMPER", step=0, layer=0, signal=5, index=n * m, bit=1), (bad, n * m - 1, n * m)),
        (pack("TAMPER", step=0, layer=0, signal=6, index=n, bit=1), (bad, n - 1, n)),
    ]
    return result


def test_values_out_of_range(run: Any) -> None:
    assert len(run.case.network.layers) > 1  # or layer 0 always keeps its uhat
    board = ready(run)
    before = whole_state(board)
    for message, expected in values(run):
        assert board.refused(message) == expected, message
        assert whole_state(board) == before, message


def test_gradients_drop_at_most_31_bits(run: Any) -> None:
    board = ready(run, GRADIENT)
    board.do("GRADIENT_CLEAR", drop=31)
    assert board.refused(pack("GRADIENT_CLEAR", drop=32)) == ("bad_value", 31, 32)
    layers = len(run.case.network.layers)
    assert board.refused(pack("GRADIENT_READ", layer=layers)) == ("bad_value", layers - 1, layers)


def test_blocks_one_at_a_time_and_no_byte_too_many(run: Any) -> None:
    board = ready(run)
    size = 2 * run.batch * run.case.network.inputs
    for message in (
        pack("BLOCK", steps=1, flags=0), pack("WEIGHTS_BEGIN"), pack("RESET_STATES", first=0),
        pack("SNAPSHOT_BEGIN", size=1), pack("IMAGE_BEGIN", words=1, batch=1, options=0),
        pack("IMAGE_COMMIT", crc=0),
    ):  # fmt: skip
        board.do("BLOCK", steps=3, flags=0)
        board.do("STEPS", bytes(size + 1))
        assert board.refused(message) == ("order", 3, 1)
    board.do("BLOCK", steps=3, flags=0)
    board.do("STEPS", bytes(2 * size + 1))
    digest = board.digest()
    assert board.refused(pack("STEPS", bytes(size))) == ("bad_value", size - 1, size)
    assert board.digest() == digest  # nor was the step executed that is in it
    assert board.refused(pack("STEPS", b"x")) == ("order", 0, 1)  # dropped at the SYNC


# --- images -------------------------------------------------------------------


def test_images_that_are_refused(run: Any) -> None:
    board = ready(run)
    before = whole_state(board)
    begin, *data, commit = image_messages(run.image, run.batch, UHAT)
    size = 4 * run.image.words.size
    words = run.image.words.astype("<u4").tobytes()

    def send(*messages: bytes) -> None:
        board.all([begin, *messages])

    send(data[0])
    first = len(data[0]) - 5
    assert board.refused(data[0]) == ("order", first, 0)
    send(data[0])
    assert board.refused(pack("IMAGE_DATA", b"x", offset=first + 1)) == ("order", first, first + 1)
    send(*data)
    assert board.refused(pack("IMAGE_DATA", b"x", offset=size)) == ("bad_value", size, size + 1)
    send(*data[:-1])
    have = size - len(data[-1]) + 5
    assert board.refused(commit) == ("order", size, have)
    send(*data)
    crc = zlib.crc32(words)
    assert board.refused(pack("IMAGE_COMMIT", crc=crc ^ 1)) == ("bad_crc", crc, crc ^ 1)
    assert board.refused(commit) == ("order", 0, 0)  # it is gone
    wrong = b"\0" + words[1:]
    messages = [pack("IMAGE_DATA", wrong[k : k + 200], offset=k) for k in range(0, size, 200)]
    send(*messages)
    assert board.refused(pack("IMAGE_COMMIT", crc=zlib.crc32(wrong))) == ("bad_image", 0, 0)
    # The one before served all the while.
    assert whole_state(board) == before
    send(*data, commit)
    assert whole_state(board) != before


def test_an_image_too_large_for_the_memory_leaves_the_old_one(run: Any) -> None:
    board = ready(run, memory=30000)
    before = whole_state(board)
    *rest, commit = image_messages(run.image, 200, 3)
    board.all(rest)
    reason, need, have = board.refused(commit)
    assert (reason, have) == ("no_memory", 30000)
    assert whole_state(board) == before
    # What was asked for is enough, and nothing less is.
    for memory in (need, need - 8):
        other = Board(memory=memory)
        other.all(rest)
        if memory == need:
            other.all([commit])
        else:
            assert other.refused(commit) == ("no_memory", need, memory)


def test_formats_must_fit_a_message(run: Any) -> None:
    deep = (run_of(k, layers=40, neurons=3) for k in range(100))
    many = next(r for r in deep if len(r.case.network.layers) > 29)
    layers = len(many.case.network.layers)
    board = Board(payload=64)
    *rest, commit = image_messages(many.image, 1, payload=64)
    board.all(rest)
    assert board.refused(commit) == ("too_long", 5 + 2 * layers, 64)
    loaded(Board(payload=5 + 2 * layers), many, 0)


# --- sets of weights and snapshots beside what is live --------------------------


def test_sets_that_are_refused(run: Any) -> None:
    board = ready(run)
    before = whole_state(board)
    begin, *data, commit = set_of(run.image, {k: (w + 1, b) for k, (w, b) in run.weights.items()})
    crc = zlib.crc32(b"".join(data))
    n, m = run.case.network.layers[0].size, run.case.network.inputs
    top = len(run.case.network.layers) - 1
    for wrong, expected in [
        (pack("WEIGHTS_DATA", [1], layer=0, first=n * m), ("bad_value", n * m, n * m + 1)),
        (pack("BIAS_DATA", [1], layer=top + 1, first=0), ("bad_value", top, top + 1)),
        (pack("WEIGHTS_COMMIT", crc=crc ^ 2), ("bad_crc", crc, crc ^ 2)),
        (pack("IMAGE_COMMIT", crc=0), ("order", 0, 0)),
        (pack("SNAPSHOT_COMMIT", crc=0), ("order", 0, 0)),
    ]:
        board.all([begin, *data])
        assert board.refused(wrong)[0] == expected[0]
        assert board.refused(commit)[0] == "order"  # the whole set is gone
        assert whole_state(board) == before
    board.all([begin, *data, commit])
    assert whole_state(board) != before


def test_snapshots_that_are_refused(run: Any) -> None:
    board = ready(run)
    taken = snapshot_of(board)
    size = len(taken)
    assert board.refused(pack("SNAPSHOT_BEGIN", size=size - 1)) == ("bad_snapshot", size, size - 1)

    def put(data: bytes) -> None:
        board.do("SNAPSHOT_BEGIN", size=size)
        for at in range(0, len(data), 200):
            board.do("SNAPSHOT_DATA", data[at : at + 200], offset=at)

    crc = zlib.crc32(taken)
    put(taken[:-1])
    assert board.refused(pack("SNAPSHOT_COMMIT", crc=crc)) == ("order", size, size - 1)
    put(taken)
    assert board.refused(pack("SNAPSHOT_DATA", b"x", offset=0)) == ("order", size, 0)
    put(taken)
    assert board.refused(pack("SNAPSHOT_DATA", b"x", offset=size)) == ("bad_value", size, size + 1)
    put(taken)
    assert board.refused(pack("SNAPSHOT_COMMIT", crc=crc ^ 1)) == ("bad_crc", crc, crc ^ 1)
    for at in (0, 5, 9, 13):  # of another image or batch
        other = taken[:at] + bytes([taken[at] ^ 1]) + taken[at + 1 :]
        put(other)
        assert board.refused(pack("SNAPSHOT_COMMIT", crc=zlib.crc32(other)))[0] == "bad_snapshot"
    other = taken[:-4] + b"\0\0\0\x80"  # uhat of the output layer
    put(other)
    assert board.refused(pack("SNAPSHOT_COMMIT", crc=zlib.crc32(other)))[0] == "bad_snapshot"
    assert snapshot_of(board) == taken
