"""Layers wide enough for every kind of tile: all tables give the bits of the scalar one."""

from __future__ import annotations

import numpy as np
import pytest
from networks import PHIS, Quantised, chip_with, make_network
from test_kernels import (
    VECTORS,
    assert_same,
    extreme_run,
    extreme_scales,
    run_way,
    sized_case,
    table_exists,
)

from hwgle.chip import Chip
from hwgle.quantise import LayerScales, Scales, build_image, rate_shift

# Neurons of the layers and streams: whole blocks of 16 and 64, one more, one less, more inputs than
# are split at a time (1024) or multiplied as they are stored (2048), and last vectors of streams
# that are up to half full.
SHAPES = [
    (128, [128, 128], 64),
    (129, [191, 130], 65),
    (193, [130, 10], 100),
    (3, [150, 257], 17),
    (1031, [17, 5], 80),
    (130, [1030, 9], 65),
    (2048, [9, 2047], 18),
    (2049, [3, 2050, 2], 17),
    (600, [530, 521], 38),
    (127, [128, 140], 104),
    (150, [133, 10], 25),
]
WAYS = ("target", "stochastic", "nearest", "gradient", "learning and ranging")


@pytest.fixture(params=VECTORS)
def vector(request: pytest.FixtureRequest) -> str:
    """A kernel table other than the scalar one."""
    name = str(request.param)
    if not table_exists(name):
        pytest.skip(f"this machine has no {name}")
    return name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_wide_layers(vector: str, shape: tuple[int, list[int], int], seed: int) -> None:
    inputs, sizes, batch = shape
    for k, way in enumerate(WAYS if max(inputs, *sizes) < 1000 else WAYS[1:2]):
        case = sized_case(seed + k, inputs, sizes, batch, steps=3)
        got = run_way(vector, case, way)
        assert any(np.any(got[f"{layer}.e"]) for layer in range(len(sizes)))


def test_wide_layers_that_saturate(vector: str, seed: int) -> None:
    """Sums on both sides of what int32 holds, shifts from end to end, scales of rows or not."""
    beyond = within = 0
    for one in range(seed, seed + 12):
        rng = np.random.default_rng([one, 7])
        sizes = [int(n) for n in rng.integers(128, 200, int(rng.integers(1, 3)))]
        phis = [str(p) for p in rng.choice(PHIS, len(sizes))]
        network = make_network(
            sizes, phis, rng, inputs=int(rng.integers(128, 200)), loss="mse", gamma=0.1
        )
        chip = chip_with(one, rounding=("stochastic", "nearest")[one % 2], stored=16 - one % 3)
        scales = extreme_scales(network, chip, rng)
        q, weights = extreme_run(network, chip, scales, rng, 3, 64 + int(rng.integers(1, 20)))
        assert_same(vector, q, weights, f"seed {one}", target=q.target, learn=True)
        w = weights["l0"][0].astype(np.int64) >> (chip.stored_max.bit_length() - 13)
        x = np.clip(q.input[0].astype(np.int64), -chip.input_max, chip.input_max)
        most = int(np.abs(x @ w.T).max())
        beyond += most >= 2**31
        within += 0 < most < 2**31
    assert beyond
    assert within


@pytest.mark.parametrize("shift", [-14, 0, 15, 17, 31])
def test_largest_sums_of_wide_layers(vector: str, shift: int, seed: int) -> None:
    """The largest weights by the largest rates and errors, as they are stored: some 2^36."""
    rng = np.random.default_rng(seed)
    network = make_network([150, 600], ["linear", "linear"], rng, inputs=1100, loss="mse", dt=1.0)
    data = chip_with().model_dump()
    data["weight"]["scale"] = "neuron"
    finer = tuple(k % 8 for k in range(600)) if shift < 18 else ()  # by row
    u, w_top = (22, -4) if shift < 4 else (12, 10)
    first, top = (shift + u - 8, u, 6, 0, 0), (w_top, 12, 6, shift - w_top, 0)
    for chip, rows, sign in (
        (chip_with(), (), 1),
        (chip_with(), (), -1),
        (Chip.model_validate(data), finer, 1),
    ):
        layers = LayerScales(*first, rows=rows[:150]), LayerScales(*top, rows=rows)
        scales = Scales(8, 0, layers)
        image = build_image(network, chip, scales, batch=70, learning_rate=1.0)
        weights = {
            name: (np.full(shape, sign * (8191 << 2), np.int16), np.zeros(shape[0], np.int32))
            for name, shape in (("l0", (150, 1100)), ("l1", (600, 150)))
        }
        x = rng.choice([8191, 8190, 1], (3, 70, 1100), p=[0.9, 0.05, 0.05]).astype(np.int16)
        target = np.full((3, 70, 600), 32767, np.int16)
        assert_same(vector, Quantised(image, x, target), weights, shift, target=target, learn=True)


@pytest.mark.parametrize("lanes", range(0, 16, 2))
def test_large_sums_of_a_few_lanes(vector: str, lanes: int, seed: int) -> None:
    """All weights but those of two lanes of a vector are 0; sums of these leave int32."""
    rng = np.random.default_rng(seed)
    network = make_network([150, 20], ["linear", "linear"], rng, inputs=300, loss="mse", dt=1.0)
    scales = Scales(8, 0, (LayerScales(19, 12, 6, 0, 0), LayerScales(10, 12, 6, 21, 0)))
    image = build_image(network, chip_with(), scales, batch=33, learning_rate=1.0)
    there = np.arange(300) // 4 % 8 == lanes // 2
    w = np.where(there, 8191 << 2, 0) * np.ones((150, 1))
    weights = {
        "l0": (w.astype(np.int16), np.zeros(150, np.int32)),
        "l1": (np.full((20, 150), 8191 << 2, np.int16), np.zeros(20, np.int32)),
    }
    assert there.sum() * 8191**2 > 2**31
    x = np.full((3, 33, 300), 8191, np.int16)
    target = np.full((3, 33, 20), 32767, np.int16)
    q = Quantised(image, x, target)
    got = assert_same(vector, q, weights, lanes, target=target, learn=True)
    assert np.any(got["0.u"])


def test_large_gradients_at_every_shift(vector: str, seed: int) -> None:
    """Sums of e r beyond int32, at the shifts at which two vectors of weights learn at a time; rows
    of such neurons beside rows whose sums fit."""
    rng = np.random.default_rng(seed)
    network = make_network([27], ["linear"], rng, inputs=150, loss="mse", dt=1.0)
    scales = Scales(8, 0, (LayerScales(12, 12, 6, 6, 0),))
    weights = {"l0": (np.zeros((27, 150), np.int16), np.zeros(27, np.int32))}
    x = rng.choice([8191, 8190, -8191], (2, 70, 150), p=[0.9, 0.05, 0.05]).astype(np.int16)
    target = np.full((2, 70, 27), 32767, np.int16)
    target[:, :, 9:18] = rng.integers(-20, 20, (2, 70, 9))
    shifts = set()
    for k in range(12, 29):
        image = build_image(network, chip_with(), scales, batch=70, learning_rate=2.0**-k)
        q = Quantised(image, x, target)
        got = assert_same(vector, q, weights, k, target=target, learn=True)
        shift = 6 + 8 - 2 + rate_shift(2.0**-k, 70) - got["formats"][0].stored  # 2: of the batch
        shifts.add(shift)
        sums = got["0.e"][1].astype(np.int64).T @ x[1].astype(np.int64)
        assert np.abs(sums).max() > 2**32
        assert np.abs(sums[9:18]).max() < 2**31
        assert np.any(got["l0.weight"])
    assert set(range(17, 32)) <= shifts


@pytest.mark.parametrize("pairs", [16, 32, 64, 128, 192, 275])
def test_sums_of_so_many_pairs_at_the_edge_of_int32(vector: str, pairs: int, seed: int) -> None:
    """All weights and rates alike, so that so many products just fit, or do not; they learn, but
    hardly ever move."""
    rng = np.random.default_rng(seed)
    network = make_network([150, 520], ["linear", "linear"], rng, inputs=550, loss="mse", dt=1.0)
    scales = Scales(8, 0, (LayerScales(19, 12, 6, 0, 0), LayerScales(10, 12, 6, 21, 0)))
    image = build_image(network, chip_with(), scales, batch=33, learning_rate=2.0**-30)
    x = np.full((6, 33, 550), 8191, np.int16)
    target = np.full((6, 33, 520), 32767, np.int16)
    edge = 2**31 // (2 * pairs * 8191)
    for w in {min(8191, w) for w in (edge - 1, edge, edge + 1, edge + edge // 3)}:
        weights = {
            "l0": (np.full((150, 550), w << 2, np.int16), np.zeros(150, np.int32)),
            "l1": (np.full((520, 150), w << 2, np.int16), np.zeros(520, np.int32)),
        }
        q = Quantised(image, x, target)
        assert_same(vector, q, weights, w, target=target, learn=True)
