"""The counter hash: what the core calls random bits looks like them, to five sigma."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

CSRC = Path(__file__).resolve().parents[2] / "csrc"
HARNESS = """
#include "rng.h"
void fill(uint64_t seed, uint32_t purpose, uint32_t where, uint64_t step, uint32_t first,
          uint32_t count, uint32_t *to);
void fill(uint64_t seed, uint32_t purpose, uint32_t where, uint64_t step, uint32_t first,
          uint32_t count, uint32_t *to)
{
    const gle_key key = gle_rng_key(seed, purpose, where, step);
    for (uint32_t k = 0; k < count; k++) {
        to[k] = gle_rng(key, first + k);
    }
}
"""
COUNT = 1 << 20
SIGMA = 5.0
Draws = NDArray[np.uint32]
Fill = Callable[..., Draws]


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Fill:
    """Random bits of the core: fill(seed, purpose, where, step, count=, first=)."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("rng")
    (folder / "harness.c").write_text(HARNESS)
    made = folder / "harness.so"
    command = [gcc, "-std=c11", "-O2", "-shared", "-fPIC", "-I", str(CSRC)]
    subprocess.run([*command, str(folder / "harness.c"), "-o", str(made)], check=True)
    function = ctypes.CDLL(str(made)).fill
    function.restype = None
    function.argtypes = [
        ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32,
        ctypes.c_uint32, ctypes.c_void_p,
    ]  # fmt: skip

    def draw(
        seed: int, purpose: int = 1, where: int = 0, step: int = 0, count: int = COUNT,
        first: int = 0,
    ) -> Draws:  # fmt: skip
        to = np.empty(count, np.uint32)
        function(seed, purpose, where, step, first, count, to.ctypes.data)
        return to

    return draw


def by_index(fill: Fill, seed: int) -> Draws:
    """One key, a million indices."""
    return fill(seed)


def by_step(fill: Fill, seed: int) -> Draws:
    """One index, a million steps (16 indices of 65536 steps)."""
    return np.concatenate([fill(seed, step=t, count=16) for t in range(COUNT // 16)])


def by_seed(fill: Fill, seed: int) -> Draws:
    """Neighbouring seeds (16 indices of 65536 seeds)."""
    return np.concatenate([fill(seed + s, count=16) for s in range(COUNT // 16)])


def by_place(fill: Fill, seed: int) -> Draws:
    """Neighbouring layers and both purposes."""
    return np.concatenate([fill(seed, 1 + k % 2, k // 2, count=16) for k in range(COUNT // 16)])


WAYS = [by_index, by_step, by_seed, by_place]


def deviation(value: float, mean: float, variance: float) -> float:
    """How many sigma off."""
    return abs(value - mean) / float(np.sqrt(variance))


@pytest.mark.parametrize("way", WAYS)
def test_mean_variance_and_bytes(fill: Fill, way: Callable[..., Draws], seed: int) -> None:
    x = way(fill, seed)
    u = x / 2.0**32
    assert deviation(u.mean(), 0.5, 1 / 12 / x.size) < SIGMA, seed
    # the variance of (u - 1/2)^2 is 1/180
    assert deviation(np.square(u - 0.5).mean(), 1 / 12, 1 / 180 / x.size) < SIGMA, seed
    for byte in range(4):
        counts = np.bincount(x >> (8 * byte) & 0xFF, minlength=256)
        expected = x.size / 256
        chi = float((np.square(counts - expected) / expected).sum())
        assert deviation(chi, 255, 2 * 255) < SIGMA, (seed, byte, chi)
    for bit in range(32):
        ones = int((x >> bit & 1).sum())
        assert deviation(ones, x.size / 2, x.size / 4) < SIGMA, (seed, bit)


def signs(x: Draws) -> NDArray[np.float32]:
    """+-1 per bit, (n, 32)."""
    return np.unpackbits(x.view(np.uint8)).reshape(-1, 32).astype(np.float32) * 2 - 1


def assert_independent(a: Draws, b: Draws, what: object) -> None:
    """No correlation of the numbers nor of any bit of one with any bit of the other."""
    product = np.mean((a / 2.0**32 - 0.5) * (b / 2.0**32 - 0.5)) * 12
    assert abs(product) * np.sqrt(a.size) < SIGMA, what
    pairs = np.zeros((32, 32))
    a, b = a[: 1 << 18], b[: 1 << 18]
    for k in range(0, a.size, 1 << 15):  # in pieces that fit a cache
        one, other = (np.ascontiguousarray(x[k : k + (1 << 15)]) for x in (a, b))
        pairs += signs(one).T @ signs(other)
    # 1024 pairs of bits: one more sigma
    worst = np.abs(pairs).max() / np.sqrt(a.size)
    assert worst < SIGMA + 1, (what, worst)


@pytest.mark.parametrize("lag", [1, 2, 64])
def test_neighbouring_indices(fill: Fill, lag: int, seed: int) -> None:
    x = fill(seed, count=COUNT + lag)
    assert_independent(x[:-lag], x[lag:], (seed, lag))


def test_neighbouring_steps_seeds_places_and_purposes(fill: Fill, seed: int) -> None:
    here = fill(seed)
    others = {
        "step": fill(seed, step=1),
        "seed": fill(seed + 1),
        "high bit of the seed": fill(seed ^ 1 << 62),
        "place": fill(seed, where=1),
        "purpose": fill(seed, 2),
        "step and place": fill(seed, where=1, step=1),
    }
    for name, there in others.items():
        assert_independent(here, there, (seed, name))


def test_avalanche(fill: Fill, seed: int) -> None:
    """One bit of the index flips each bit of the result in half of all cases."""
    count = 1 << 17
    here = fill(seed, count=count)
    for bit in range(32):
        if 1 << bit < count:
            there = here[np.arange(count) ^ 1 << bit]
        else:
            there = fill(seed, count=count, first=1 << bit)
        ones = np.unpackbits((here ^ there).view(np.uint8)).reshape(-1, 32).sum(axis=0, dtype=int)
        # pairs within the block are counted twice; 1024 numbers: one more sigma
        pairs = count / 2 if 1 << bit < count else count
        off = np.abs(ones / count - 0.5) * 2 * np.sqrt(pairs)
        assert off.max() < SIGMA + 1, (seed, bit, off.max())


def test_a_function_of_its_counters_and_of_each(fill: Fill, seed: int) -> None:
    """The same event, the same bits, in any order; another event, others."""
    x = fill(seed, 1, 7, 11, count=1000)
    assert np.array_equal(x[300:500], fill(seed, 1, 7, 11, count=200, first=300))
    for other in ((seed + 1, 1, 7, 11), (seed, 2, 7, 11), (seed, 1, 8, 11), (seed, 1, 7, 12),
                  (seed, 1, 7, 11 + 2**32), (seed + 2**32, 1, 7, 11)):  # fmt: skip
        assert np.count_nonzero(fill(*other, count=1000) == x) <= 1, (seed, other)


def test_one_key_draws_no_number_twice(fill: Fill, seed: int) -> None:
    """For one key the hash permutes 32 bits: no collisions at all."""
    for k in range(3):
        x = np.sort(fill(seed + k))
        assert np.all(x[1:] != x[:-1]), seed + k


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_more_seeds(fill: Fill, way: Callable[..., Draws], seed: int) -> None:
    for k in range(20):
        test_mean_variance_and_bytes(fill, way, seed + 7919 * (k + 1))
