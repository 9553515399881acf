"""Activations of the chip over a dense sweep of the membrane, in every format.

The C that the kernels use (csrc/phi.h) is called directly; against the functions in
double precision. Errors in LSB of the rate's format; a rounding alone is half of one.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hwgle.activation import activation

CSRC = Path(__file__).resolve().parents[2] / "csrc"
NAMES = ("linear", "tanh", "sigmoid", "softplus", "relu")
HARNESS = """
#include "phi.h"
void sweep(int32_t phi, int32_t u_frac, int32_t r_frac, int32_t count, const int32_t *uhat,
           int32_t *rate, int32_t *slope);
void sweep(int32_t phi, int32_t u_frac, int32_t r_frac, int32_t count, const int32_t *uhat,
           int32_t *rate, int32_t *slope)
{
    const gle_phi_format f = gle_phi_format_of(u_frac, r_frac);
    for (int32_t k = 0; k < count; k++) {
        rate[k] = gle_phi_rate(phi, uhat[k], &f, &slope[k]);
    }
}
"""
Ints = NDArray[np.int32]
Sweep = Callable[[str, int, int, Ints], tuple[Ints, Ints]]

# u_frac, r_frac: usual ones, finest and coarsest of each, as fine as each other.
FORMATS = [(22, 13), (20, 13), (18, 13), (17, 13), (16, 12), (22, 15), (14, 11), (22, 8),
           (13, 13), (12, 5), (10, 10), (8, 7), (6, 6), (6, -8)]  # fmt: skip

# Before the rounding to the rate's format, in LSB of 13 fraction bits. The tables have
# 18 fraction bits and 512 segments: measured 0.21 (tanh), 0.11 (sigmoid), 0.28 (softplus).
BEFORE_ROUNDING = 0.3


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """sweep(name, u_frac, r_frac, uhat) -> rate, slope in Q15."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("phi")
    (folder / "harness.c").write_text(HARNESS)
    made = folder / "harness.so"
    command = [gcc, "-std=c11", "-O2", "-shared", "-fPIC", "-I", str(CSRC)]
    subprocess.run([*command, str(folder / "harness.c"), "-o", str(made)], check=True)
    function = ctypes.CDLL(str(made)).sweep
    function.restype = None
    function.argtypes = [ctypes.c_int32] * 4 + [ctypes.c_void_p] * 3

    def call(name: str, u_frac: int, r_frac: int, uhat: Ints) -> tuple[Ints, Ints]:
        uhat = np.ascontiguousarray(uhat, np.int32)
        rate, slope = np.empty_like(uhat), np.empty_like(uhat)
        function(
            NAMES.index(name), u_frac, r_frac, uhat.size,
            uhat.ctypes.data, rate.ctypes.data, slope.ctypes.data,
        )  # fmt: skip
        return rate, slope

    return call


def membranes(u_frac: int, seed: int) -> Ints:
    """Sorted: dense over +-20 with the ends of the tables, and out to the largest uhat."""
    rng = np.random.default_rng([seed, u_frac])
    reach = 20 << u_frac
    ends = [np.arange(-40, 41) + (at << u_frac) for at in (-16, -8, -1, 0, 1, 8, 16)]
    far = 2 ** rng.uniform(0, 30.3, 2000) * rng.choice([-1, 1], 2000)
    if reach < 50_000:
        dense = np.arange(-reach, reach)
    else:  # runs of neighbours: only these show a rate that falls
        starts = rng.integers(-reach, reach, 500)
        dense = (starts[:, None] + np.arange(100)).ravel()
    limit = (1 << 30) + (1 << 28) - 1
    every = np.concatenate([dense, far.astype(np.int64), *ends, [-limit, limit]])
    return np.unique(np.clip(every, -limit, limit)).astype(np.int32)


@pytest.mark.parametrize("formats", FORMATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_rate_and_slope(sweep: Sweep, name: str, formats: tuple[int, int], seed: int) -> None:
    u_frac, r_frac = formats
    uhat = membranes(u_frac, seed)
    x = uhat * 2.0**-u_frac
    act = activation(name)
    rate, slope = sweep(name, u_frac, r_frac, uhat)
    lsb = 2.0**-r_frac
    off = np.abs(rate * lsb - act.phi(x)) / lsb
    before = BEFORE_ROUNDING * 2.0 ** (r_frac - 13)
    if name in ("linear", "relu"):
        before = 0.0
    elif name == "softplus" and u_frac < 18:
        before += 0.5 * 2.0 ** (r_frac - u_frac)  # it is added to uhat in the membrane's format
    worst = int(off.argmax())
    assert off[worst] <= 0.5 + before, (seed, x[worst], rate[worst])
    # relu's slope has no wrong side but at the kink, where it is 0 like the float's
    off = np.abs(slope * 2.0**-15 - act.dphi(x))
    worst = int(off.argmax())
    assert off[worst] <= 2.0**-13, (seed, x[worst], slope[worst])
    assert slope.min() >= 0
    assert slope.max() <= 1 << 15


@pytest.mark.parametrize("formats", FORMATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_monotone_and_symmetric(
    sweep: Sweep, name: str, formats: tuple[int, int], seed: int
) -> None:
    uhat = membranes(formats[0], seed)
    rate, slope = sweep(name, *formats, uhat)
    falls = np.flatnonzero(np.diff(rate) < 0)
    assert falls.size == 0, (seed, uhat[falls[:3]], rate[falls[:3]])
    if name in ("tanh", "sigmoid"):
        mirrored, slope_mirrored = sweep(name, *formats, -uhat)
        assert np.array_equal(slope, slope_mirrored)
        one = 0 if name == "tanh" else 2.0 ** formats[1]
        # sigmoid(-x) = 1 - sigmoid(x) but for the halves, which go up in both
        assert np.abs(mirrored + rate - one).max() <= (0 if name == "tanh" else 1)


@pytest.mark.parametrize(("name", "frac"), [("tanh", 18), ("sigmoid", 19), ("softplus", 22)])
def test_before_the_rounding(sweep: Sweep, name: str, frac: int, seed: int) -> None:
    """Within 0.3 LSB of 13 bits (allowed: half); `frac` is what the core has before it rounds."""
    uhat = membranes(22, seed)
    rate, _ = sweep(name, 22, frac, uhat)
    off = np.abs(rate * 2.0**-frac - activation(name).phi(uhat * 2.0**-22)) * 2.0**13
    assert off.max() <= BEFORE_ROUNDING, (seed, off.max())


@pytest.mark.long
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus"])
def test_every_membrane_of_one_format(sweep: Sweep, name: str) -> None:
    """All of -17..17 with 18 fraction bits, none left out."""
    uhat = np.arange(-17 << 18, 17 << 18, dtype=np.int32)
    rate, slope = sweep(name, 18, 13, uhat)
    x = uhat * 2.0**-18
    act = activation(name)
    assert np.all(np.diff(rate) >= 0)
    assert np.abs(rate - act.phi(x) * 2.0**13).max() <= 1.0
    assert np.abs(slope * 2.0**-15 - act.dphi(x)).max() <= 2.0**-13
