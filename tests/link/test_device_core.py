"""What the core gained for boards: accumulated gradients, parts of a snapshot, flipped bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_cases import Run, emulator, run_of
from hwgle._core import ffi, lib
from numpy.typing import NDArray

from hwgle.device import SIGNALS, Block
from hwgle.devices.emulator import Emulator
from hwgle.errors import UsageError
from hwgle.quantise import STATE_MAX
from hwgle.snapshot import COUNTERS

ADD, LEARN, RANGE = lib.GLE_ADD_GRADIENT, lib.GLE_LEARN, lib.GLE_RANGE
BATCHES = (1, 5, 32, 33, 70)


def tables() -> list[str]:
    names = ("scalar", "avx2", "vnni", "amx", "neon")
    return [n for n in names if lib.gle_kernels_named(n.encode()) != ffi.NULL]


def step(chip: Emulator, run: Run, t: int, flags: int) -> None:
    y = run.target if run.target.ndim == 1 else run.target[t]
    x = ffi.from_buffer("int16_t[]", np.ascontiguousarray(run.input[t]))
    y = ffi.from_buffer("int16_t[]", np.ascontiguousarray(y))
    assert lib.gle_step(chip._chip, x, y, flags) == lib.GLE_OK


def signal(chip: Emulator, layer: int, name: str) -> NDArray[np.int64]:
    """(batch, n)"""
    n = chip.image.network.layers[layer].size
    to = ffi.new("int32_t[]", chip.batch * n)
    assert lib.gle_read(chip._chip, layer, SIGNALS.index(name), to) == lib.GLE_OK
    return np.array(list(to), dtype=object).reshape(chip.batch, n)


def gradients(chip: Emulator) -> list[list[int]]:
    result = []
    for k, layer in enumerate(chip.image.network.layers):
        count = layer.size * (chip.image.network.fan_in(k) + 1)
        to = ffi.new("int32_t[]", count)
        for first in range(0, count, 13):
            n = min(13, count - first)
            assert lib.gle_gradient_part(chip._chip, k, first, n, to + first) == lib.GLE_OK
        whole = ffi.new("int32_t[]", count)
        w = count - layer.size
        assert lib.gle_gradient(chip._chip, k, whole, whole + w) == lib.GLE_OK
        assert list(to) == list(whole)
        result.append(list(to))
    return result


def rounded(x: int, shift: int) -> int:
    """x 2^-shift, halves up, without any width."""
    return (x + (1 << shift >> 1)) >> shift if shift > 0 else x << -shift


def gradient_shift(batch: int) -> int:
    k = 0
    while batch > 32 << k:
        k += 1
    return k


def wide(seed: int, batch: int) -> Run:
    return run_of(seed, streams=batch, ranging=1, steps=20)


class Sums:
    """The accumulators in whole numbers without any width."""

    def __init__(self, chip: Emulator, run: Run) -> None:
        self.run, self.layers = run, range(len(run.case.network.layers))
        self.fracs = [(f.gradient, f.gradient_bias) for f in chip.formats()]
        self.sums = [[0] * len(g) for g in gradients(chip)]
        self.clipped = 0

    def below(self, chip: Emulator, k: int, x: NDArray[Any]) -> tuple[NDArray[Any], int]:
        if k == 0:
            return x.astype(object), self.run.image.scales.input
        return signal(chip, k - 1, "r"), chip.formats()[k - 1].rate

    def step(self, chip: Emulator, t: int) -> None:
        """A step of the chip, and what it must have added."""
        f = chip.formats()
        below = [self.below(chip, k, self.run.input[t]) for k in self.layers]
        step(chip, self.run, t, LEARN | ADD)
        for k in self.layers:
            e, (r, r_frac), (frac, frac_bias) = signal(chip, k, "e"), below[k], self.fracs[k]
            shift, shift_bias = f[k].error + r_frac - frac, f[k].error - frac_bias
            parts = [rounded(int(g), shift) for g in (e.T @ r).ravel()]
            parts += [rounded(int(g), shift_bias) for g in e.sum(axis=0)]
            for i, part in enumerate(parts):
                exact = self.sums[k][i] + part
                self.sums[k][i] = max(-(2**31) + 1, min(2**31 - 1, exact))
                self.clipped += self.sums[k][i] != exact

    def check(self, chip: Emulator) -> None:
        assert gradients(chip) == self.sums, self.run.case
        assert sum(c["sat_gradient"] for c in chip.counters()) == self.clipped
        assert [(f.gradient, f.gradient_bias) for f in chip.formats()] == self.fracs


def with_gradient(run: Run, table: str) -> Emulator:
    chip = Emulator(table)
    chip.load(run.image, run.batch, gradient=True, uhat=False)
    chip.write_weights(run.weights)
    return chip


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("table", tables())
def test_accumulated_gradients_are_exact_sums_rounded_once_a_step(
    table: str, batch: int, seed: int
) -> None:
    """Scales move in between, at steps that are not added."""
    run = wide(seed, batch)
    for drop in (0, 2, 9, 31):
        with with_gradient(run, table) as chip:
            step(chip, run, 0, LEARN)
            assert lib.gle_gradient_clear(chip._chip, drop) == lib.GLE_OK
            x_frac = run.image.scales.input
            for k, f in enumerate(chip.formats()):
                below = chip.formats()[k - 1].rate if k else x_frac
                assert f.gradient == f.error + below - gradient_shift(batch) - drop
                assert 0 <= f.error - f.gradient_bias <= drop
            sums = Sums(chip, run)
            for t in range(1, 12):
                if t % 4 == 0:
                    step(chip, run, t, LEARN | RANGE)
                else:
                    sums.step(chip, t)
            sums.check(chip)
            assert any(any(g) for g in sums.sums) or drop == 31


def coarser(chip: Emulator, run: Run, bits: int) -> bytes:
    """A snapshot with the errors of all layers so many bits coarser."""
    data = bytearray(chip.snapshot())
    counted = 8 * len(COUNTERS) + 24
    at, last = 16 + 12 + 8 * run.batch, run.case.network.layers[-1]
    for k, layer in enumerate(run.case.network.layers):
        for field in (8, 12):  # e_frac, v_frac
            old = int.from_bytes(data[at + field : at + field + 4], "little", signed=True)
            data[at + field : at + field + 4] = (old - bits).to_bytes(4, "little", signed=True)
        n, m = layer.size, run.case.network.fan_in(k)
        cells = n * run.batch
        at += 20 + counted + 2 * n * m + 4 * n + 14 * cells + 4 * cells * (layer is last)
    assert at == len(data)
    return bytes(data)


@pytest.mark.parametrize("batch", [1, 33])
@pytest.mark.parametrize("table", tables())
def test_gradients_far_beyond_their_format_clip_and_are_counted(
    table: str, batch: int, seed: int
) -> None:
    """Errors that got much coarser since the clear: nothing wraps, each clip counts."""
    run = wide(seed, batch)
    with with_gradient(run, table) as chip:
        for t in range(3):
            step(chip, run, t, 0)
        assert lib.gle_gradient_clear(chip._chip, 0) == lib.GLE_OK
        sums = Sums(chip, run)
        for more in (3, min(f.error for f in chip.formats()) + 12 - 3):
            chip.restore(coarser(chip, run, more))
            for t in range(3, 9):
                sums.step(chip, t)
            sums.check(chip)
        assert sums.clipped > 0


def test_gradients_need_their_room_and_one_way(seed: int) -> None:
    run = run_of(seed)
    with emulator(run) as chip:
        assert lib.gle_gradient_clear(chip._chip, 0) == lib.GLE_BAD_ARGUMENT
        x = ffi.new("int16_t[]", run.batch * run.case.network.inputs)
        for flags in (ADD, lib.GLE_READ_GRADIENT):
            assert lib.gle_step(chip._chip, x, ffi.NULL, flags) == lib.GLE_BAD_ARGUMENT
        to = ffi.new("int32_t *")
        assert lib.gle_gradient_part(chip._chip, 0, 0, 1, to) == lib.GLE_BAD_ARGUMENT
    with emulator(run, gradient=True) as chip:
        for drop in (-1, 32):
            assert lib.gle_gradient_clear(chip._chip, drop) == lib.GLE_BAD_ARGUMENT
        both = ADD | lib.GLE_READ_GRADIENT
        assert lib.gle_step(chip._chip, x, ffi.NULL, both) == lib.GLE_BAD_ARGUMENT
        layer = run.case.network.layers[0]
        count = layer.size * (run.case.network.inputs + 1)
        for first, n in ((-1, 1), (0, count + 1), (count + 1, 0), (1, 2**31 - 1)):
            status = lib.gle_gradient_part(chip._chip, 0, first, n, to)
            assert status == lib.GLE_BAD_ARGUMENT


def test_parts_of_signals(seed: int) -> None:
    run = run_of(seed + 1, batch=3)
    with emulator(run) as chip:
        chip.run(run.block(0, 5, learn=True))
        for k, name in run.pairs():
            whole = signal(chip, k, name).ravel().tolist()
            s = SIGNALS.index(name)
            for first in range(len(whole) + 1):
                to = ffi.new("int32_t[]", len(whole) + 1)
                assert lib.gle_read_part(chip._chip, k, s, first, len(whole) - first, to) == 0
                assert list(to)[: len(whole) - first] == whole[first:]
                bad = lib.gle_read_part(chip._chip, k, s, first, len(whole) - first + 1, to)
                assert bad == lib.GLE_BAD_ARGUMENT


# --- snapshots in parts ---------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_a_snapshot_in_parts_of_any_size(batch: int, seed: int) -> None:
    run = wide(seed + 7, batch)
    rng = np.random.default_rng(seed)
    with emulator(run) as one, emulator(run) as other:
        one.run(run.block(0, 9, learn=True, ranging=True))
        want = one.snapshot()
        size = len(want)
        at = 0
        while at < size:
            n = min(size - at, int(rng.integers(0, 40)))
            to = ffi.new("unsigned char[]", n + 1)
            to[n] = 0x77
            assert lib.gle_snapshot_part(one._chip, at, to, n) == lib.GLE_OK
            assert bytes(ffi.buffer(to)) == want[at : at + n] + b"\x77"
            assert lib.gle_snapshot_put(other._chip, at, want[at : at + n], n) == lib.GLE_OK
            at += n
        assert lib.gle_snapshot_check(other._chip) == lib.GLE_OK
        assert other.snapshot() == want
        rest = run.block(9, learn=True, ranging=True)
        one.run(rest)
        other.run(rest)
        assert one.digest() == other.digest()
        big = ffi.new("unsigned char[]", size + 1)
        for offset, n in ((size, 1), (size + 1, 0), (0, size + 1), (1, 2**64 - 1)):
            assert lib.gle_snapshot_part(one._chip, offset, big, n) == lib.GLE_BAD_ARGUMENT
            assert lib.gle_snapshot_put(one._chip, offset, big, n) == lib.GLE_BAD_ARGUMENT


def test_every_value_of_a_snapshot_is_looked_at(seed: int) -> None:
    """The largest number in place of each: refused whole, or one that has no limit."""
    run = wide(seed, 1)
    with emulator(run) as chip:
        chip.run(run.block(0, 9, learn=True))
        good = chip.snapshot()
        free = 12 + 8 * run.batch  # the numbers of step and stream, and the digests
        counted = 8 * len(COUNTERS) + 24
        unlimited = set(range(16, 16 + free))
        at = 16 + free
        for k, layer in enumerate(run.case.network.layers):
            unlimited |= set(range(at + 20, at + 20 + counted))
            n, m = layer.size, run.case.network.fan_in(k)
            top = 4 * n if layer is run.case.network.layers[-1] else 0
            at += 20 + counted + 2 * n * m + 4 * n + (4 + 4 + 2 + 2 + 2) * n + top
        assert at == len(good)
        for at in range(0, len(good) - 1):
            wrong = good[:at] + b"\xff\x7f" + good[at + 2 :]
            if at in unlimited and at + 1 in unlimited:
                chip.restore(wrong)
                chip.restore(good)
            elif {at, at + 1} & unlimited or wrong == good:
                continue
            else:
                try:
                    chip.restore(wrong)
                except UsageError:
                    assert chip.snapshot() == good
                else:  # the lower half of a wide number
                    assert lib.gle_snapshot_check(chip._chip) == lib.GLE_OK
                    chip.restore(good)


def test_a_bad_snapshot_put_in_parts_leaves_a_blank_chip(seed: int) -> None:
    run = run_of(seed + 3)
    with emulator(run) as chip, Emulator() as fresh:
        fresh.load(run.image, run.batch)
        chip.run(run.block(0, 9, learn=True, ranging=True))
        bad = chip.snapshot()[:-4] + b"\0\0\0\x80"
        assert lib.gle_snapshot_put(chip._chip, 0, bad, len(bad)) == lib.GLE_OK
        assert lib.gle_snapshot_check(chip._chip) == lib.GLE_BAD_IMAGE
        assert chip.snapshot() == fresh.snapshot()
        other = b"\0" + bad[1:]
        assert lib.gle_snapshot_put(chip._chip, 0, other, len(bad)) == lib.GLE_BAD_IMAGE
        assert chip.snapshot() == fresh.snapshot()


# --- flipped bits, increments, digests --------------------------------------------


def limits(run: Run, layer: int) -> dict[int, int]:
    words = run.image.words[24 + 20 * layer : 44 + 20 * layer].astype(np.int32)
    _, _, _, _, _, w_max, _, u_max, _, r_max, _, e_max = (int(x) for x in words[:12])
    signals = [r_max, u_max, 2**30 + STATE_MAX, STATE_MAX, e_max]
    return dict(enumerate([*signals, w_max, STATE_MAX]))


def held(chip: Emulator, layer: int, what: int) -> list[int]:
    if what < len(SIGNALS):
        return [int(x) for x in signal(chip, layer, SIGNALS[what]).ravel()]
    w, b = chip.read_weights()[chip.image.network.layers[layer].name]
    return (w.ravel() if what == 5 else b).tolist()


def test_a_flip_changes_one_number_and_stays_within(seed: int) -> None:
    run = wide(seed + 5, 5)
    rng = np.random.default_rng(seed)
    with emulator(run) as chip:
        chip.run(run.block(0, 9, learn=True))
        for layer in range(len(run.case.network.layers)):
            for what, limit in limits(run, layer).items():
                bits = 16 if what in (0, 4, 5) else 32
                for bit in range(bits):
                    before = held(chip, layer, what)
                    index = int(rng.integers(len(before)))
                    assert lib.gle_flip(chip._chip, layer, what, index, bit) == lib.GLE_OK
                    after = held(chip, layer, what)
                    changed = [k for k in range(len(before)) if before[k] != after[k]]
                    assert changed == [index]
                    assert abs(after[index]) <= limit
                    mask = 2**bits - 1
                    diff = (before[index] ^ after[index]) & mask
                    assert diff.bit_count() == 1
                    asked = (before[index] ^ 1 << bit) & mask
                    asked -= (asked >> (bits - 1)) << bits
                    assert diff == 1 << bit or abs(asked) > limit
                for index, bit in ((len(before), 0), (-1, 0), (0, bits), (0, -1)):
                    status = lib.gle_flip(chip._chip, layer, what, index, bit)
                    assert status == lib.GLE_BAD_ARGUMENT
        for wrong, what in ((-1, 0), (layer + 1, 0), (0, -1), (0, 7)):
            assert lib.gle_flip(chip._chip, wrong, what, 0, 0) == lib.GLE_BAD_ARGUMENT
        assert lib.gle_snapshot_check(chip._chip) == lib.GLE_OK


def test_increments_of_any_size(seed: int) -> None:
    run = run_of(seed + 8)
    layer = run.case.network.layers[0]
    with emulator(run) as chip:
        w_max = limits(run, 0)[5]
        for value in (-(2**15), 2**15 - 1):
            dw = ffi.new("int16_t[]", [value] * 2)
            edge = w_max if value > 0 else -w_max
            for _ in range(3):
                assert lib.gle_weights_add(chip._chip, 0, 0, 1, dw) == lib.GLE_OK
            assert held(chip, 0, 5)[0] == edge
        for value in (-(2**31), 2**31 - 1):
            db = ffi.new("int32_t[]", [value] * layer.size)
            for _ in range(3):
                assert lib.gle_bias_add(chip._chip, 0, 0, layer.size, db) == lib.GLE_OK
            assert set(held(chip, 0, 6)) == {STATE_MAX if value > 0 else -STATE_MAX}
        assert chip.counters()[0]["sat_w"] == 6 + 6 * layer.size
        count = layer.size * run.case.network.inputs
        before = chip.snapshot()
        for first, n in ((-1, 1), (count, 1), (0, count + 1), (0, -1)):
            assert lib.gle_weights_add(chip._chip, 0, first, n, dw) == lib.GLE_BAD_ARGUMENT
        for first, n in ((-1, 1), (layer.size, 1), (0, layer.size + 1)):
            assert lib.gle_bias_add(chip._chip, 0, first, n, db) == lib.GLE_BAD_ARGUMENT
        assert lib.gle_bias_add(chip._chip, 99, 0, 1, db) == lib.GLE_BAD_ARGUMENT
        assert chip.snapshot() == before


CHANGES: dict[str, Any] = {
    "weights": lambda c, f, run: lib.gle_weights_write(c, 0, 0, 1, ffi.new("int16_t *", 1)),
    "bias": lambda c, f, run: lib.gle_bias_write(c, 0, 0, 1, ffi.new("int32_t *", 1)),
    "weights add": lambda c, f, run: lib.gle_weights_add(c, 0, 0, 1, ffi.new("int16_t *", 3)),
    "bias add": lambda c, f, run: lib.gle_bias_add(c, 0, 0, 1, ffi.new("int32_t *", 3)),
    "flip weight": lambda c, f, run: lib.gle_flip(c, 0, 5, 0, 1),
    "flip bias": lambda c, f, run: lib.gle_flip(c, 0, 6, 0, 1),
    "learning": lambda c, f, run: f.run(run.block(5, 9, learn=True)),
    "ranging": lambda c, f, run: f.run(run.block(5, 20, ranging=True)),
    "snapshot": lambda c, f, run: f.restore(f.first),
    "blank": lambda c, f, run: lib.gle_blank(c),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_kept_digest_is_that_of_the_weights(what: str, seed: int) -> None:
    """A chip that was asked before and one that was not tell the same."""
    run = wide(seed + 11, 5)
    told = []
    for ask in (True, False):
        with emulator(run) as chip:
            chip.first = chip.snapshot()  # type: ignore[attr-defined]
            chip.run(run.block(0, 4, learn=True))
            chip.run(Block(run.input[4:5]))
            before = chip.weights_digest() if ask else None
            assert not ask or chip.weights_digest() == before
            CHANGES[what](chip._chip, chip, run)
            told.append(chip.weights_digest())
            chip.run(Block(run.input[4:5]))
            assert chip.weights_digest() == told[-1]
            assert told[-1] != before
    assert told[0] == told[1]
