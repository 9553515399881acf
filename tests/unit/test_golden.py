"""Golden networks and the first difference between two runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hwgle._core import ffi, lib

from hwgle.arrays import save_npz_atomic
from hwgle.bits import first_difference
from hwgle.device import SIGNALS
from hwgle.devices.emulator import Emulator
from hwgle.errors import NotEqual, UsageError
from hwgle.golden import arithmetic, golden_names, load_golden
from hwgle.preflight.memory import BOARD, Shape, arena_bytes
from hwgle.verify.bodies import TamperableEmulator

TABLES = ("scalar", "avx2", "vnni", "amx", "neon")
KERNELS = [k for k in TABLES if lib.gle_kernels_named(k.encode()) != ffi.NULL]
SMALLEST = 4672  # bytes that the smallest board has left for the chip


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", golden_names())
def test_recorded_digests_hold_on_all_kernels(name: str, kernels: str) -> None:
    golden = load_golden(name)
    with Emulator(kernels) as emulator:
        golden.check(emulator)


def test_golden_networks_do_what_they_say() -> None:
    assert golden_names() == ["imperfect", "learning", "narrow", "plain"]
    for name in golden_names():
        golden = load_golden(name)
        with Emulator() as emulator:
            trace = golden.run(emulator)
            moved = sum(c["updates"] - c["under_w"] for c in emulator.counters())
        assert (moved > 0) == golden.block.learn == (name != "plain")
        layers = [layer.name for layer in golden.network.layers]
        assert list(trace.signals) == [f"{n}.{s}" for n in layers for s in SIGNALS]
        for signal, values in trace.signals.items():
            assert len(np.unique(values)) > 20, (name, signal)  # nothing idles
    everything = load_golden("imperfect").image.chip
    assert everything.synapses_differ
    assert everything.neurons_differ
    assert everything.inputs_differ


def test_another_digest_says_whether_the_emulator_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = load_golden("plain")
    tampered = TamperableEmulator()
    with tampered, monkeypatch.context() as patched:
        run = tampered.run

        def bad(block: Any, *rest: Any) -> Any:
            patched.undo()
            tampered.tamper(30, 1, "u", 2, 7)
            return tampered.submit(block).result()

        patched.setattr(tampered, "run", bad)
        with pytest.raises(NotEqual, match="the emulator gives the recorded one"):
            golden.check(tampered)
        assert run is not None
    with Emulator() as emulator, pytest.raises(NotEqual, match="nor does the emulator"):
        replace(golden, digest=golden.digest ^ 1).check(emulator)
    with pytest.raises(UsageError, match="there are imperfect, learning"):
        load_golden("none")


def test_arithmetic_is_one_version_and_changes_with_any_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert arithmetic() == arithmetic.__wrapped__()
    for name in ("scalar", "vnni"):
        if name in KERNELS:
            monkeypatch.setenv("HWGLE_SIMD", name)
            assert arithmetic.__wrapped__() == arithmetic()
    monkeypatch.delenv("HWGLE_SIMD", raising=False)
    monkeypatch.setattr(Emulator, "digest", lambda self: 7)
    assert arithmetic.__wrapped__() != arithmetic()


def test_first_difference_is_the_first_in_time_and_its_cause() -> None:
    golden = load_golden("plain")
    want = golden.expected()
    assert first_difference(want, golden.expected()) is None
    emulator = TamperableEmulator()
    emulator.load(golden.image, 1)
    emulator.write_weights(golden.stored)
    emulator.tamper(40, 1, "u", 3, 9)
    names = list(want.signals)
    layers = [layer.name for layer in golden.network.layers]
    pairs = [(layers.index(n.split(".")[0]), n.split(".")[1]) for n in names]
    records = emulator.submit(replace(golden.block, record=pairs)).result()
    got = replace(
        want, signals=dict(zip(names, records.signals, strict=True)), digest=emulator.digest()
    )
    found = first_difference(got, want)
    assert found is not None
    assert not isinstance(found, str)
    assert (found.layer, found.signal) == ("upper", "u")
    assert (found.step, found.stream, found.neuron) == (40, 0, 3)
    assert found.first ^ found.second == 1 << 9
    assert str(found).startswith("layer upper, signal u, neuron 3, stream 0, step 40: ")


def test_bits_count_and_kinds_are_told(tmp_path: Path) -> None:
    a = {"h.r": np.array([[[0.0, np.nan]]], dtype=np.float32), "digest": np.uint64(3)}
    same = {"h.r": np.array([[[0.0, np.nan]]], dtype=np.float32), "digest": np.uint64(3)}
    assert first_difference(a, same) is None
    minus = {**a, "h.r": np.array([[[-0.0, np.nan]]], dtype=np.float32)}
    assert "layer h, signal r, neuron 0, stream 0, step 0: 0.0 and -0.0" in str(
        first_difference(a, minus)
    )
    assert first_difference(a, {"digest": np.uint64(3)}) == "h.r is in the first only"
    wide = {**a, "h.r": np.zeros((1, 1, 2))}
    assert first_difference(a, wide) == "h.r: float32 and float64"
    longer = {**a, "h.r": np.zeros((2, 1, 2), dtype=np.float32)}
    assert first_difference(a, longer) == "h.r: shape (1, 1, 2) and (2, 1, 2)"
    assert "value: 3 and 4" in str(first_difference(3, 4))
    weights = {"h": (np.zeros((2, 3), np.int16), np.zeros(2, np.int32))}
    other = {"h": (np.array([[0, 0, 0], [0, 5, 0]], np.int16), np.zeros(2, np.int32))}
    text = "layer h, signal weight of input 1, neuron 1: 0 and 5 (1 of 6 values differ)"
    assert str(first_difference(weights, other)) == text
    save_npz_atomic(tmp_path / "a.npz", a)
    save_npz_atomic(tmp_path / "b.npz", minus)
    assert "step 0" in str(first_difference(tmp_path / "a.npz", str(tmp_path / "b.npz")))
    with pytest.raises(TypeError, match="cannot compare list"):
        first_difference([1], [1])


def test_golden_networks_fit_the_smallest_board() -> None:
    small = [n for n in golden_names() if _arena(n) <= SMALLEST]
    assert {"learning", "plain", "narrow"} <= set(small)


def _arena(name: str) -> int:
    """Of a board, which has other pointers and alignments than this machine."""
    golden = load_golden(name)
    return arena_bytes(Shape.of_words(golden.image.words.tolist()), golden.batch, 0, BOARD)
