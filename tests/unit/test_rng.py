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
void share(uint64_t seed, uint32_t first, uint32_t roots, uint32_t *to);
void share(uint64_t seed, uint32_t first, uint32_t roots, uint32_t *to)
{
    const gle_key key = gle_rng_key(seed, GLE_RNG_WEIGHT_UPDATE, 0, 0);
    for (uint32_t k = 0; k < roots; k++) {
        gle_rng_share(to + k * GLE_RNG_SHARE, gle_rng_root(key, first + k));
    }
}
"""
COUNT = 1 << 20
SIGMA = 5.0
Draws = NDArray[np.uint32]
Fill = Callable[..., Draws]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The core's random bits, compiled."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("rng")
    (folder / "harness.c").write_text(HARNESS)
    made = folder / "harness.so"
    command = [gcc, "-std=c11", "-O2", "-shared", "-fPIC", "-I", str(CSRC)]
    subprocess.run([*command, str(folder / "harness.c"), "-o", str(made)], check=True)
    return ctypes.CDLL(str(made))


@pytest.fixture(scope="module")
def fill(core: ctypes.CDLL) -> Fill:
    """Random bits of the core: fill(seed, purpose, where, step, count=, first=)."""
    function = core.fill
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


# --- weights: sixteen neighbours share a root, each has 16 bits, a one and zeros ---------------

ROOTS = 1 << 18


@pytest.fixture(scope="module")
def shared(core: ctypes.CDLL) -> Callable[..., Draws]:
    """shared(seed, first=, roots=): (roots, 16), the random bits of weights."""
    core.share.restype = None
    core.share.argtypes = [ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p]

    def draw(seed: int, first: int = 0, roots: int = ROOTS) -> Draws:
        to = np.empty((roots, 16), np.uint32)
        core.share(seed, first, roots, to.ctypes.data)
        return to

    return draw


def test_each_weight_of_a_root_has_sixteen_fair_bits(
    shared: Callable[..., Draws], seed: int
) -> None:
    x = shared(seed)
    assert np.all(x & 0xFFFF == 0x8000)
    assert np.array_equal(x[7:9], shared(seed, first=7, roots=2))
    for j in range(16):
        u = (x[:, j] >> 16) / 2.0**16
        assert deviation(u.mean(), 0.5 - 2.0**-17, 1 / 12 / ROOTS) < SIGMA, (seed, j)
        for byte in (2, 3):
            counts = np.bincount(x[:, j] >> (8 * byte) & 0xFF, minlength=256)
            chi = float((np.square(counts - ROOTS / 256) / (ROOTS / 256)).sum())
            assert deviation(chi, 255, 2 * 255) < SIGMA, (seed, j, byte, chi)


def test_weights_that_share_a_root_round_independently(
    shared: Callable[..., Draws], seed: int
) -> None:
    """All pairs of the sixteen: of their bits, and of what they decide for several chances to
    round up, alike and different, small ones included."""
    x = shared(seed)
    bits = np.unpackbits((x >> 16).astype(">u2").view(np.uint8), axis=1).reshape(ROOTS, 256)
    sums = np.zeros((256, 256), np.float64)
    for k in range(0, ROOTS, 1 << 14):  # in pieces that fit a cache
        some = bits[k : k + (1 << 14)].astype(np.float32) * 2 - 1
        sums += some.T @ some
    np.fill_diagonal(sums, 0)
    # 32,640 pairs of bits: two more sigma
    assert np.abs(sums).max() / np.sqrt(ROOTS) < SIGMA + 2, seed
    for p in (0.5, 0.1, 1 / 3, 2.0**-6, 2.0**-9):
        up = (x >> 16) < round(p * 2**16)
        for q in (0.5, p):
            other = (x >> 16) < round(q * 2**16)
            both = up.astype(np.float32).T @ other.astype(np.float32)
            exact_p, exact_q = round(p * 2**16) / 2**16, round(q * 2**16) / 2**16
            mean = ROOTS * exact_p * exact_q
            off = np.abs(both - mean) / np.sqrt(mean * (1 - exact_p * exact_q))
            np.fill_diagonal(off, 0)
            assert off.max() < SIGMA + 1, (seed, p, q, off.max())


def test_weights_of_neighbouring_roots_round_independently(
    shared: Callable[..., Draws], seed: int
) -> None:
    x = shared(seed, roots=ROOTS + 64) / 2.0**32 - 0.5
    for lag in (1, 2, 64):
        both = x[:ROOTS].T @ x[lag : lag + ROOTS] * 12 / np.sqrt(ROOTS)
        assert np.abs(both).max() < SIGMA + 1, (seed, lag)  # 256 pairs


@pytest.mark.parametrize("k", [1, 2, 9, 15, 16, 17, 20, 27])
def test_rounding_at_random_has_no_bias(
    shared: Callable[..., Draws], k: int, seed: int
) -> None:
    """What is rounded up on the whole is what was dropped: the mean over 2^22 roundings of
    numbers with k bits to drop, and, all 2^16 draws counted, exactly within 2^-17 of a step."""
    low = np.random.default_rng(seed).integers(0, 1 << k, (ROOTS, 16), dtype=np.int64)
    carry = (low + (shared(seed) >> np.uint32(32 - k)).astype(np.int64)) >> k
    chance = low / 2.0**k
    variance = float((chance * (1 - chance)).sum())
    assert deviation(float(carry.sum()), float(chance.sum()), max(variance, 1)) < SIGMA, (seed, k)
    every = (np.arange(1 << 16, dtype=np.int64) << 16 | 0x8000) >> (32 - k)
    bias = []
    for one in (0, 1, (1 << k) - 1, *low[0].tolist(), *((1 << k) - low[0]).tolist()):
        bias.append(float(np.mean((one + every) >> k)) - one / 2.0**k)
    assert bias[0] == 0  # what is 0 stays 0
    assert max(map(abs, bias)) <= (2.0**-17 if k > 16 else 0)
    # a number and what it lacks to the next step are off by opposite amounts, but for ties
    up, down = bias[3 : 3 + len(low[0])], bias[3 + len(low[0]) :]
    assert all(abs(a + b) <= 2.0**-16 for a, b in zip(up, down, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_more_seeds(fill: Fill, way: Callable[..., Draws], seed: int) -> None:
    for k in range(20):
        test_mean_variance_and_bytes(fill, way, seed + 7919 * (k + 1))
