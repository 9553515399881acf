"""Threads that share the rows of a layer: the bits are those of one, whatever their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from networks import quantised
from test_kernels import (
    adam_of,
    all_signals,
    differences,
    everything,
    sized_case,
    table_exists,
)

from hwgle.calibrate import FOR_TRAINING
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import MOST_THREADS, Emulator
from hwgle.errors import UsageError
from hwgle.quantise import build_image, quantise_weights

TABLES = ("scalar", "avx2", "vnni", "amx")
CHIPS = ("ideal", "weights8", "crossbar", "mixed-signal")
# Fewer than 0: as many, and whatever can be shared is, however small.
NUMBERS = (-2, -3, -MOST_THREADS)
WAYS: dict[str, dict[str, Any]] = {
    "inference": {},
    "errors": {"target": True},
    "learning": {"target": True, "learn": True, "ranging": True},
    "host Adam": {"target": True, "adam": 1.0, "ranging": True},
}


CASES = [
    pytest.param(p, w, marks=() if p == "ideal" or w == "learning" else pytest.mark.long)
    for p in CHIPS
    for w in WAYS
]


@pytest.mark.parametrize(("profile", "way"), CASES)
@pytest.mark.parametrize("table", TABLES)
def test_threads_change_no_bit(table: str, profile: str, way: str, seed: int) -> None:
    """Layers of several pieces, of one, of fewer rows than threads, and wide enough for tiles."""
    if not table_exists(table):
        pytest.skip(f"this machine has no {table}")
    chip = Chip.load(profile).model_copy(update={"seed": seed})
    for batch, sizes in ((33, [130, 70, 18]), (7, [5, 200, 3])):
        case = sized_case(seed, 140, sizes, batch, steps=4)
        q = quantised(case, chip, None, FOR_TRAINING, learning_rate=2.0**-6, range_every=3)
        weights = quantise_weights(q.image, case.weights)
        how = dict(WAYS[way])
        rate = how.pop("adam", 0)
        how["target"] = q.target if how.get("target") else None
        block = Block(q.input, record=all_signals(case.network), **how)

        found = []
        for threads in (1, *NUMBERS):
            adam = adam_of(q.image, weights, rate) if rate else None
            found.append(everything(table, q.image, batch, weights, block, adam, threads))
        alone = found[0]
        for threads, shared in zip(NUMBERS, found[1:], strict=True):
            assert differences(alone, shared) == [], (case, threads)
        if way == "learning":
            assert any(c["updates"] for c in alone["counters"])
        if rate:
            assert sum(c["sat_w"] for c in alone["counters"]) > 0


def test_a_layer_that_is_worth_it(seed: int) -> None:
    """Shared by itself: 300 x 300 weights and 64 streams. No thread stays behind."""
    case = sized_case(seed, 300, [300, 10], 64, steps=5)
    q = quantised(case, Chip.load("ideal"), None, FOR_TRAINING, learning_rate=2.0**-8)
    weights = quantise_weights(q.image, case.weights)
    block = Block(q.input, q.target, learn=True, record=all_signals(case.network))
    before = threads_of_this_process()
    results = [
        everything("scalar", q.image, 64, weights, block, threads=1),
        everything("scalar", q.image, 64, weights, block, threads=2),
    ]
    with Emulator() as chip:
        chip.threads = 2
        chip.load(build_image(case.network, Chip.load("ideal"), q.image.scales, batch=64), 64)
        for _ in range(100):
            chip.run(Block(q.input[:1]))
    assert differences(*results) == []
    assert threads_of_this_process() == before


def threads_of_this_process() -> int:
    """As the system counts them."""
    status = Path("/proc/self/status").read_text()
    return int(next(s.split()[1] for s in status.splitlines() if s.startswith("Threads:")))


@pytest.mark.parametrize("given", ["0", "9", "two", "-2"])
def test_a_wrong_number(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWGLE_THREADS", given)
    with pytest.raises(UsageError, match=f"HWGLE_THREADS={given}: allowed: 1 to {MOST_THREADS}"):
        Emulator("scalar")


def test_the_number_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWGLE_THREADS", "2")
    assert Emulator("scalar").threads == 2
    monkeypatch.delenv("HWGLE_THREADS")
    assert Emulator("scalar").threads == 1
    assert Emulator("scalar", 3).threads == 3
    with pytest.raises(UsageError, match="threads 9: allowed: 1 to"):
        Emulator("scalar", 9)
