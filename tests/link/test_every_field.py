"""Every field of every message to the device has a bad value here, and how it is refused."""

from __future__ import annotations

import pytest
from device_cases import loaded, run_of, snapshot_of
from device_ends import GRADIENT, LAYOUTS, UHAT, Board, pack

MOST = 2**32 - 1
# message, field -> the bad value and the reason of the refusal
BAD: dict[tuple[str, str], tuple[int, str]] = {
    ("REBOOT", "how"): (2, "bad_value"),
    ("IMAGE_BEGIN", "words"): (MOST, "no_memory"),
    ("IMAGE_BEGIN", "batch"): (0, "bad_value"),
    ("IMAGE_BEGIN", "options"): (4, "bad_value"),
    ("IMAGE_DATA", "offset"): (4, "order"),
    ("IMAGE_COMMIT", "crc"): (1, "bad_crc"),
    ("WEIGHTS_DATA", "layer"): (200, "bad_value"),
    ("WEIGHTS_DATA", "first"): (MOST, "bad_value"),
    ("BIAS_DATA", "layer"): (200, "bad_value"),
    ("BIAS_DATA", "first"): (MOST, "bad_value"),
    ("WEIGHTS_COMMIT", "crc"): (1, "bad_crc"),
    ("WEIGHTS_ADD", "layer"): (200, "bad_value"),
    ("WEIGHTS_ADD", "first"): (MOST, "bad_value"),
    ("BIAS_ADD", "layer"): (200, "bad_value"),
    ("BIAS_ADD", "first"): (MOST, "bad_value"),
    ("WEIGHTS_READ", "layer"): (200, "bad_value"),
    ("WEIGHTS_READ", "first"): (MOST, "bad_value"),
    ("WEIGHTS_READ", "count"): (MOST, "bad_value"),
    ("BIAS_READ", "layer"): (200, "bad_value"),
    ("BIAS_READ", "first"): (MOST, "bad_value"),
    ("BIAS_READ", "count"): (MOST, "bad_value"),
    ("TIMES_WRITE", "layer"): (200, "bad_value"),
    ("TIMES_WRITE", "first"): (MOST, "bad_value"),
    ("BLOCK", "flags"): (128, "bad_value"),
    ("SET_RATE", "shift"): (65, "bad_value"),
    ("GRADIENT_CLEAR", "drop"): (32, "bad_value"),
    ("GRADIENT_READ", "layer"): (200, "bad_value"),
    ("COUNTERS", "layer"): (200, "bad_value"),
    ("FORMATS", "layer"): (200, "bad_value"),
    ("SNAPSHOT_BEGIN", "size"): (7, "bad_snapshot"),
    ("SNAPSHOT_DATA", "offset"): (4, "order"),
    ("SNAPSHOT_COMMIT", "crc"): (1, "bad_crc"),
    ("TAMPER", "layer"): (200, "bad_value"),
    ("TAMPER", "signal"): (200, "bad_value"),
    ("TAMPER", "index"): (MOST, "bad_value"),
    ("TAMPER", "bit"): (40, "bad_value"),
}
# Any value has a meaning: an echo of it, a number of a stream, a step or a count of steps.
ANY = {("SYNC", "cookie"), ("RESET_STATES", "first"), ("TAMPER", "step"), ("BLOCK", "steps")}
GOOD = {"batch": 1, "count": 1}
TAILS = {"WEIGHTS_DATA", "BIAS_DATA", "WEIGHTS_ADD", "BIAS_ADD"}


def test_every_field_has_an_entry() -> None:
    fields = {
        (layout.name, field)
        for layout in LAYOUTS.values() if not layout.to_host for _, field in layout.fields
    }  # fmt: skip
    assert fields == BAD.keys() | ANY
    assert not BAD.keys() & ANY


@pytest.mark.parametrize(("name", "field"), BAD, ids=[f"{n}.{f}" for n, f in BAD])
def test_a_bad_value_of_each_field(name: str, field: str) -> None:
    run = run_of(5, steps=4)
    board = loaded(Board(), run, UHAT | GRADIENT)
    before = snapshot_of(board)
    before_it = {
        "IMAGE_DATA": [pack("IMAGE_BEGIN", words=9, batch=1, options=0)],
        "IMAGE_COMMIT": [pack("IMAGE_BEGIN", words=0, batch=1, options=0)],
        "WEIGHTS_DATA": [pack("WEIGHTS_BEGIN")],
        "BIAS_DATA": [pack("WEIGHTS_BEGIN")],
        "WEIGHTS_COMMIT": [pack("WEIGHTS_BEGIN")],
        "SNAPSHOT_DATA": [pack("SNAPSHOT_BEGIN", size=len(before))],
        "SNAPSHOT_COMMIT": [
            pack("SNAPSHOT_BEGIN", size=len(before)),
            *(pack("SNAPSHOT_DATA", before[k : k + 100], offset=k)
              for k in range(0, len(before), 100)),
        ],
    }.get(name, [])  # fmt: skip
    board.all(before_it)
    value, reason = BAD[name, field]
    fields = {f: GOOD.get(f, 0) for _, f in LAYOUTS[name].fields} | {field: value}
    tail = [1] * 4 if name == "TIMES_WRITE" else [1] if name in TAILS else b""
    assert board.refused(pack(name, tail, **fields))[0] == reason
    board.check_guards()
    assert snapshot_of(board) == before
