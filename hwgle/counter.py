"""Random numbers that are a pure function of (seed, purpose, layer, index): the same on every
machine, in any order, whatever else is drawn. Integer hashing and exact products only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

GOLDEN = 0x9E3779B97F4A7C15
U64 = (1 << 64) - 1


def mix(z: int) -> int:
    """The finaliser of SplitMix64, as in csrc/rng.h."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & U64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & U64
    return z ^ z >> 31


def random_words(seed: int, purpose: int, layer: int, numbers: Hashes) -> Hashes:
    """64 random bits for each number: SplitMix64 from a state of its own for each place."""
    state = mix((seed + GOLDEN) & U64)
    state = mix(state ^ (purpose << 32 | layer))
    z = numbers * np.uint64(GOLDEN) + np.uint64((state + GOLDEN) & U64)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def uniform(seed: int, purpose: int, layer: int, index: Hashes) -> Floats:
    """Uniform in [0, 1), one for each index, in steps of 2**-53."""
    high = random_words(seed, purpose, layer, index) >> np.uint64(11)
    return high.astype(np.float64) * 2.0**-53
