"""Every kernel table computes the same integers, and these are the ones of plain Python.

The tables are compared by everything that leaves a chip; the scalar one is compared
with an oracle of whole numbers without any width (integer_oracle.py), so that both
together pin down what a step is.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from integer_oracle import COUNTED, IntegerChip
from networks import (
    PHIS,
    Case,
    Quantised,
    chip_with,
    draw_run,
    draw_weights,
    make_network,
    quantised,
    random_case,
)
from numpy.typing import NDArray

from hwgle import _core
from hwgle.calibrate import FOR_TRAINING
from hwgle.chip import Chip
from hwgle.device import SIGNALS, Block
from hwgle.devices.emulator import AdamState, Emulator
from hwgle.errors import UsageError
from hwgle.network import Network
from hwgle.quantise import (
    STATE_MAX,
    Image,
    LayerScales,
    Scales,
    build_image,
    quantise_weights,
    rate_shift,
)
from hwgle.quantise import Quantised as Weights

VECTORS = ("neon",) if platform.machine() == "aarch64" else ("avx2", "vnni", "amx")
BATCHES = (1, 2, 7, 8, 9, 31, 32, 33, 100, 150)


def table_exists(name: str) -> bool:
    """Whether this build and this machine have a kernel table."""
    return bool(_core.lib.gle_kernels_named(name.encode()) != _core.ffi.NULL)


@pytest.fixture(params=VECTORS)
def vector(request: pytest.FixtureRequest) -> str:
    """A kernel table other than the scalar one."""
    name = str(request.param)
    if not table_exists(name):
        pytest.skip(f"this machine has no {name}")
    return name


def everything(
    kernels: str,
    image: Image,
    batch: int,
    weights: Weights,
    block: Block,
    adam: AdamState | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Run one block and return all that can be read from a chip afterwards."""
    with Emulator(kernels, threads) as chip:
        chip.load(image, batch, gradient=adam is not None)
        chip.write_weights(weights)
        records = chip.run(block, adam)
        result: dict[str, Any] = {
            "digest": chip.digest(),
            "stream digests": chip.stream_digests(),
            "weights digest": chip.weights_digest(),
            "counters": chip.counters(),
            "formats": chip.formats(),
            "fracs": records.fracs,
            "snapshot": chip.snapshot(),
        }
        for (k, signal), values in zip(block.record, records.signals, strict=True):
            result[f"{k}.{signal}"] = values
        for name, (w, b) in chip.read_weights().items():
            result[f"{name}.weight"], result[f"{name}.bias"] = w, b
        if adam is not None:
            result |= {f"gradient {name}": g for name, g in chip.gradient().items()}
            result["adam"] = adam.weight.copy()
    return result


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not equal."""
    assert one.keys() == other.keys()
    return [name for name in one if not np.array_equal(one[name], other[name])]


def all_signals(network: Network) -> list[tuple[int, str]]:
    """Every signal of every layer."""
    return [(k, s) for k in range(len(network.layers)) for s in SIGNALS]


def adam_of(image: Image, weights: Weights, rate: float) -> AdamState:
    """Adam that starts from what is stored, in 14 of its 16 bits."""
    floats = {}
    for (name, (w, b)), s in zip(weights.items(), image.scales.layers, strict=True):
        floats[f"{name}.weight"] = np.ldexp(w.astype(float), -s.weight - 2)
        floats[f"{name}.bias"] = np.ldexp(b.astype(float), -s.membrane)
    return AdamState.of(image, floats, rate)


def assert_same(
    vector: str, q: Quantised, weights: Weights, what: object, *, adam_rate: float = 0, **how: Any
) -> dict[str, Any]:
    """Both tables give the same on this run; returns what they give."""
    block = Block(q.input, record=all_signals(q.image.network), **how)
    batch = q.input.shape[1]
    results = []
    for kernels in ("scalar", vector):
        adam = None
        if adam_rate:
            floats = {}
            for (name, (w, b)), s in zip(weights.items(), q.image.scales.layers, strict=True):
                floats[f"{name}.weight"] = np.ldexp(w.astype(float), -s.weight - 2)
                floats[f"{name}.bias"] = np.ldexp(b.astype(float), -s.membrane)
            adam = AdamState.of(q.image, floats, adam_rate)
        results.append(everything(kernels, q.image, batch, weights, block, adam))
    assert differences(*results) == [], (what, how)
    return results[0]


WAYS: dict[str, dict[str, Any]] = {
    "no target": {"target": False},
    "target": {},
    "stochastic": {"learn": True},
    "nearest": {"learn": True, "rounding": "nearest"},
    "gradient": {"adam_rate": 1e-3},
    "ranging": {"ranging": True},
    "learning and ranging": {"learn": True, "ranging": True},
    "gradient and ranging": {"adam_rate": 1e-2, "ranging": True},
}


def run_way(vector: str, case: Case, way: str, scales: Scales | None = None) -> dict[str, Any]:
    """One way of running a case, on both tables."""
    options = dict(WAYS[way])
    chip = chip_with(case.seed, rounding=options.pop("rounding", "stochastic"))
    image_options = {
        "learning_rate": 2.0**-6,
        "range_every": 3 if options.get("ranging") else 0,
        "range_clip": 0.01,
    }
    q = quantised(case, chip, scales, FOR_TRAINING, **image_options)
    with_target = options.pop("target", True)
    options["target"] = q.target if with_target else None
    return assert_same(vector, q, quantise_weights(q.image, case.weights), (case, way), **options)


@pytest.mark.parametrize("way", WAYS)
def test_random_networks(vector: str, way: str, seed: int) -> None:
    for k in range(6):
        run_way(vector, random_case(seed + 100 * k, steps=60), way)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_many_random_networks(vector: str, way: str, seed: int) -> None:
    for k in range(60):
        run_way(vector, random_case(seed + 1000 + k), way)


def sized_case(seed: int, inputs: int, sizes: list[int], batch: int, **options: Any) -> Case:
    """A case of given sizes with drawn activations, both losses in turn."""
    rng = np.random.default_rng([seed, inputs, *sizes, batch])
    loss = "cross_entropy" if sizes[-1] > 1 and rng.random() < 0.5 else "mse"
    phis = [PHIS[int(k)] for k in rng.integers(0, len(PHIS), len(sizes))]
    network = make_network(sizes, phis, rng, inputs=inputs, loss=loss, gamma=0.05)
    x, target = draw_run(network, rng, options.get("steps", 12), batch)
    return Case(seed, network, draw_weights(network, rng), x, target)


def learns_at_every_shift(
    vector: str, profile: str, seed: int, batch: int, cases: list[tuple[int, range]]
) -> tuple[set[int], int]:
    """Fan-ins and exponents of the learning rate; the shifts that came up, and how many weights
    moved. weights8 has a scale for each row."""
    if profile == "updates of 5 bits":
        plasticity = {"rounding": "stochastic", "update_bits": 5}
        chip = Chip.model_validate(Chip.load("ideal").model_dump() | {"plasticity": plasticity})
    else:
        chip = Chip.load(profile)
    shifts: set[int] = set()
    moved = 0
    for inputs, k in [(n, k) for n, exponents in cases for k in exponents]:
        case = sized_case(seed, inputs, [70, 18], batch, steps=6)
        rate = 2.0**-k
        q = quantised(case, chip, None, FOR_TRAINING, learning_rate=rate)
        weights = quantise_weights(q.image, case.weights)
        got = assert_same(vector, q, weights, (case, rate), target=q.target, learn=True)
        below = q.image.scales.input - max(0, (batch - 1).bit_length() - 5)
        for layer, (name, (w, _)) in zip(got["formats"], weights.items(), strict=True):
            shifts.add(layer.error + below + rate_shift(rate, batch) - layer.stored)
            moved += int((got[f"{name}.weight"] != w).sum())
            below = layer.rate - max(0, (batch - 1).bit_length() - 5)
    return shifts, moved


PROFILES = ("ideal", "weights8", "updates of 5 bits")


@pytest.mark.parametrize("profile", PROFILES)
def test_one_stream_learns_at_every_shift(vector: str, profile: str, seed: int) -> None:
    """From updates that fill 16 bits to such as hardly ever come, in rows that share their random
    words' roots with others and in rows that take several."""
    cases = [(53, range(-14, 50))] + [(n, range(0, 50, 10)) for n in (1, 300, 600)]
    shifts, moved = learns_at_every_shift(vector, profile, seed, 1, cases)
    assert set(range(11, 50)) <= shifts
    assert moved > 10000, profile


def test_one_stream_learns_more_weights_than_a_lane_counts(vector: str, seed: int) -> None:
    """Kernels count in 16 bits on the way: so many vectors of 32 weights that all move."""
    rng = np.random.default_rng(seed)
    network = make_network([2200], ["linear"], rng, inputs=1024, loss="mse", dt=1.0)
    scales = Scales(8, 0, (LayerScales(12, 12, 6, 6, 0),))
    image = build_image(network, chip_with(), scales, batch=1, learning_rate=2.0**-14)
    weights = {"l0": (np.zeros((2200, 1024), np.int16), np.zeros(2200, np.int32))}
    x = rng.integers(2000, 8000, (2, 1, 1024)).astype(np.int16)
    target = rng.integers(8000, 32000, (2, 1, 2200)).astype(np.int16)
    q = Quantised(image, x, target)
    got = assert_same(vector, q, weights, seed, target=target, learn=True)
    moved = got["counters"][0]["updates"] - got["counters"][0]["under_w"]
    assert moved == np.count_nonzero(got["l0.weight"]) > 2 * 32 * 2**15


@pytest.mark.parametrize("profile", PROFILES)
def test_a_batch_learns_at_every_shift(vector: str, profile: str, seed: int) -> None:
    """In rows of one vector and of up to five, and of streams that share no vector evenly."""
    cases = [(53, range(-14, 50)), (16, range(3, 33, 5)), (75, range(1, 37, 6))]
    shifts, moved = learns_at_every_shift(vector, profile, seed, 35, cases)
    assert set(range(11, 50)) <= shifts
    assert moved > 10000, profile


@pytest.mark.parametrize("batch", BATCHES)
def test_batches(vector: str, batch: int, seed: int) -> None:
    for k, way in enumerate(WAYS):
        run_way(vector, sized_case(seed + k, 5, [9, 13, 3], batch), way)


def test_sizes(vector: str, seed: int) -> None:
    """1..70: odd and even, around 8, 32 and 64, as fan-in, as layer and as batch row."""
    for n in range(1, 71):
        way = list(WAYS)[2 + n % 6]
        run_way(vector, sized_case(seed, n, [71 - n, n], 2 + n % 17), way)


# --- out of range in every way ----------------------------------------------------------------


def extreme_scales(network: Network, chip: Chip, rng: np.random.Generator) -> Scales:
    """Formats that put the shifts of the products at their limits, -14 and 31, or anywhere."""
    for _ in range(10000):
        below = x_frac = int(rng.integers(-16, 25))
        layers: list[LayerScales] = []
        for _layer in network.layers:
            u = int(rng.integers(6, 23))
            r = int(rng.integers(max(u - 30, -8), min(15, u) + 1))
            w = int(rng.choice([-14, 31, int(rng.integers(-14, 32))])) + u - below
            layers.append(LayerScales(w, u, r, 0, int(rng.integers(0, 15))))
            below = r
        e = int(rng.integers(-12, 25))
        for k in range(len(layers) - 1, -1, -1):
            layers[k] = LayerScales(
                layers[k].weight, layers[k].membrane, layers[k].rate, e, layers[k].error_extra
            )
            shift = int(rng.choice([-14, 31, int(rng.integers(-14, 32))]))
            e = layers[k].weight + e - shift - layers[k - 1].error_extra
        scales = Scales(x_frac, int(rng.integers(-4, 16)), tuple(layers))
        try:
            build_image(network, chip, scales)
        except UsageError:
            continue
        return scales
    raise AssertionError("no scales found")


def extreme_run(
    network: Network, chip: Chip, scales: Scales, rng: np.random.Generator, steps: int, batch: int
) -> tuple[Quantised, Weights]:
    """Inputs beyond their range, largest weights and biases, hostile targets and rates."""
    image = build_image(
        network,
        chip,
        scales,
        batch=batch,
        learning_rate=float(2.0 ** rng.integers(-40, 30)),
        range_every=int(rng.integers(0, 4)),
        range_clip=float(rng.random()),
    )

    def draw(shape: tuple[int, ...], limit: int) -> NDArray[np.integer[Any]]:
        kind = rng.integers(0, 4)
        if kind == 0:
            return np.full(shape, limit * (1 if rng.random() < 0.5 else -1))
        if kind == 1:
            return rng.choice([-limit, limit], shape)
        if kind == 2:
            return rng.integers(-limit, limit + 1, shape)
        return rng.integers(-3, 4, shape)

    weights: Weights = {}
    for k, layer in enumerate(network.layers):
        w = draw((layer.size, network.fan_in(k)), chip.stored_max)
        weights[layer.name] = (w.astype(np.int16), draw((layer.size,), STATE_MAX).astype(np.int32))
    x = np.clip(draw((steps, batch, network.inputs), 32768), -32768, 32767)
    if network.loss == "cross_entropy":
        target = rng.integers(-1, network.outputs, batch)
    else:
        target = np.clip(draw((steps, batch, network.outputs), 32768), -32768, 32767)
    return Quantised(image, x.astype(np.int16), target.astype(np.int16)), weights


def extreme(seed: int, *, neurons: int = 80, batch: int = 20) -> tuple[Quantised, Weights, Chip]:
    """A seeded network in which everything saturates."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 4))
    sizes = [int(s) for s in rng.integers(2, neurons + 1, depth)]
    network = make_network(
        sizes,
        [str(p) for p in rng.choice(PHIS, depth)],
        rng,
        inputs=int(rng.integers(1, neurons + 1)),
        loss=str(rng.choice(["cross_entropy", "mse"])),
        beta=float(10 ** rng.uniform(-3, 3)),
        gamma=float(rng.choice([0, 10 ** rng.uniform(-6, 3)])),
        largest_ratio=float(rng.choice([8, 256])),
    )
    stored = int(rng.choice([14, 16]))
    chip = chip_with(
        seed, rounding=str(rng.choice(["stochastic", "nearest"])), stored=stored,
        weight=int(rng.choice([2, 6, 14])),
    )  # fmt: skip
    streams = int(rng.integers(1, batch + 1))
    scales = extreme_scales(network, chip, rng)
    return *extreme_run(network, chip, scales, rng, 10, streams), chip


def check_extremes(vector: str, seeds: range) -> None:
    """Both tables on saturating networks; together these reach every counter."""
    reached: set[str] = set()
    shifts: set[int] = set()
    for one in seeds:
        q, weights, _ = extreme(one)
        got = assert_same(
            vector, q, weights, f"seed {one}", target=q.target, learn=True, ranging=one % 2 == 0
        )
        reached |= {name for c in got["counters"] for name, count in c.items() if count}
        below = q.image.scales.input
        for s in q.image.scales.layers:
            shifts.add(s.weight + below - s.membrane)
            below = s.rate
    assert reached == set(COUNTED)
    assert {-14, 31} <= shifts


def test_saturating_networks(vector: str, seed: int) -> None:
    check_extremes(vector, range(seed, seed + 60))


def test_saturating_batches(vector: str, seed: int) -> None:
    """Sums of e r over a batch on both sides of what int32 holds for certain, in tiles of any
    height, inputs beyond 64 among them."""
    sums = []
    for one in range(seed, seed + 10):
        q, weights, _ = extreme(one, neurons=70 + 4 * one % 40, batch=120)
        got = assert_same(vector, q, weights, f"seed {one}", target=q.target, learn=True)
        for k in range(len(q.image.network.layers)):
            sums.append(np.abs(got[f"{k}.e"].astype(np.int64)).sum(axis=1).max())
    certain = 2**31 // 8191
    assert max(sums) > certain
    assert 0 < min(s for s in sums if s) < certain


@pytest.mark.long
def test_many_saturating_networks(vector: str, seed: int) -> None:
    check_extremes(vector, range(seed + 1000, seed + 3000))


@pytest.mark.parametrize("shift", [-14, -3, 0, 1, 15, 16, 17, 24, 31])
def test_largest_sums(vector: str, shift: int, seed: int) -> None:
    """4096 of the largest weights by the largest rates and errors, one sign or mixed."""
    rng = np.random.default_rng(seed)
    network = make_network([5, 4096], ["linear", "linear"], rng, inputs=4096, loss="mse", dt=1.0)
    chip = chip_with()
    u, w_top = (22, -4) if shift < 4 else (12, 10)
    first, top = (shift + u - 8, u, 6, 0, 0), (w_top, 12, 6, shift - w_top, 0)
    scales = Scales(8, 0, (LayerScales(*first), LayerScales(*top)))
    for signs in (1, -1, 0):
        w = [np.full(shape, 8191 << 2) for shape in ((5, 4096), (4096, 5))]
        x = np.full((4, 9, 4096), 8191)
        if signs == 0:
            w = [a * rng.choice([-1, 1], a.shape) for a in w]
        elif signs < 0:
            w = [-a for a in w]
        image = build_image(network, chip, scales, batch=9, learning_rate=1.0)
        biases = [np.zeros(n, np.int32) for n in network.sizes]
        weights = {
            f"l{k}": (a.astype(np.int16), b) for k, (a, b) in enumerate(zip(w, biases, strict=True))
        }
        target = np.full((4, 9, 4096), 32767)
        q = Quantised(image, x.astype(np.int16), target.astype(np.int16))
        assert_same(vector, q, weights, (shift, signs), target=q.target, learn=True)


@pytest.mark.parametrize("batch", [8, 33])
def test_sums_at_the_edge_of_int32(vector: str, batch: int, seed: int) -> None:
    """Around 32 and 64 of the largest products, the most that a part of a sum may hold."""
    rng = np.random.default_rng(seed)
    for n in (31, 32, 33, 34, 35, 36, 63, 64, 65, 66, 68):
        network = make_network([n, n], ["linear"] * 2, rng, inputs=n, loss="mse", dt=1.0)
        scales = Scales(8, 0, (LayerScales(22, 12, 6, 0, 0), LayerScales(24, 12, 6, 0, 0)))
        image = build_image(network, chip_with(), scales, batch=batch, learning_rate=1e-9)
        for sign in (1, -1):
            w = np.full((n, n), 32764 * sign, np.int16)
            weights = {f"l{k}": (w, np.zeros(n, np.int32)) for k in range(2)}
            x = np.full((5, batch, n), 8191, np.int16)
            q = Quantised(image, x, np.full((5, batch, n), 32767, np.int16))
            assert_same(vector, q, weights, (n, sign), target=q.target, learn=True)
            assert_same(vector, q, weights, (n, sign), target=q.target, adam_rate=1e-9)


def test_largest_batch(vector: str, seed: int) -> None:
    """The sum of the largest e r^T over 4096 streams still fits what holds it."""
    rng = np.random.default_rng(seed)
    network = make_network([3], ["linear"], rng, inputs=9, loss="mse", dt=1.0)
    for batch in (64, 65, 4096):
        image = build_image(
            network, chip_with(), Scales(8, 0, (LayerScales(8, 12, 6, 0, 0),)), batch=batch,
            learning_rate=1e-6,
        )  # fmt: skip
        for sign in (1, -1):
            x = np.full((3, batch, 9), 8191 * sign, np.int16)
            target = np.full((3, batch, 3), 32767, np.int16)
            weights = {"l0": (np.zeros((3, 9), np.int16), np.zeros(3, np.int32))}
            got = assert_same(
                vector, Quantised(image, x, target), weights, batch, target=target, adam_rate=1e-3
            )
            exact = batch * 8191 * 8191 * sign
            gradient = got["gradient l0.weight"] * batch * 2.0**8
            k = max(0, (batch - 1).bit_length() - 5)
            assert np.all(gradient == ((exact + (1 << k >> 1)) >> k) * 2**k)


# --- against whole numbers --------------------------------------------------------------------


def check_against_oracle(
    q: Quantised, weights: Weights, steps: int, learn: bool, what: object
) -> None:
    """All five signals of every step, weights, biases and counters, by equality."""
    network, batch = q.image.network, q.input.shape[1]
    oracle = IntegerChip(q.image.words.tolist(), batch)
    for y, (w, b) in zip(oracle.layers, weights.values(), strict=True):
        y.w, y.bias = w.tolist(), b.tolist()
    held = network.loss == "cross_entropy"
    pairs = all_signals(network)
    for kernels in ("scalar", *filter(table_exists, VECTORS)):
        with Emulator(kernels) as chip:
            chip.load(q.image, batch)
            chip.write_weights(weights)
            block = Block(
                q.input[:steps], q.target if held else q.target[:steps], learn=learn, record=pairs
            )
            signals = chip.run(block).signals
            read, counters = chip.read_weights(), chip.counters()
        if kernels == "scalar":
            expected: list[list[Any]] = [[] for _ in pairs]
            for t in range(steps):
                target = q.target if held else q.target[t]
                oracle.step(q.input[t].tolist(), target.tolist(), learn)
                for to, (k, signal) in zip(expected, pairs, strict=True):
                    to.append([row[:] for row in getattr(oracle.layers[k], signal)])
        for pair, got, want in zip(pairs, signals, expected, strict=True):
            wrong = np.argwhere(got != np.array(want))
            assert wrong.size == 0, (what, kernels, pair, "first at t, stream, neuron", wrong[0])
        for k, (y, (w, b)) in enumerate(zip(oracle.layers, read.values(), strict=True)):
            assert (w.tolist(), b.tolist()) == (y.w, y.bias), (what, kernels, k)
            assert counters[k] == y.counters, (what, kernels, k)


@pytest.mark.parametrize("learning", ["none", "stochastic", "nearest"])
def test_oracle_of_whole_numbers(learning: str, seed: int) -> None:
    for k in range(12):
        case = random_case(
            seed + 7 * k, layers=4, neurons=7, inputs=6, batch=1 if k % 3 == 0 else 5, steps=30
        )
        rounding = "nearest" if learning == "nearest" else "stochastic"
        chip = chip_with(seed + k, rounding=rounding)
        q = quantised(case, chip, learning_rate=2.0 ** -(k % 7))
        steps = min(25, len(q.input))
        weights = quantise_weights(q.image, case.weights)
        check_against_oracle(q, weights, steps, learning != "none", (case, learning))


def test_oracle_of_whole_numbers_out_of_range(seed: int) -> None:
    for k in range(40):
        q, weights, _ = extreme(seed + k, neurons=7, batch=6)
        check_against_oracle(q, weights, 10, True, f"seed {seed + k}")


def test_oracle_of_whole_numbers_with_spilled_sums(seed: int) -> None:
    """More inputs, neurons and streams than fit an int32 sum."""
    for k, batch in enumerate((1, 40)):
        q, weights, _ = extreme(seed + 500 + k, neurons=70, batch=batch)
        check_against_oracle(q, weights, 3, True, f"seed {seed + 500 + k}")


@pytest.mark.long
def test_oracle_of_whole_numbers_on_many(seed: int) -> None:
    for k in range(300):
        q, weights, _ = extreme(seed + 10000 + k, neurons=12, batch=40)
        check_against_oracle(q, weights, 10, True, f"seed {seed + 10000 + k}")


# --- found by the tests above -----------------------------------------------------------------


def one_neuron(
    rounding: str, learning_rate: float, u_frac: int = 14, rate: int = 10, **options: Any
) -> Image:
    """A linear neuron without memory, one input, w_frac 12 as stored."""
    rng = np.random.default_rng(0)
    network = make_network([1], ["linear"], rng, inputs=1, dt=1.0, largest_ratio=1.0)
    scales = Scales(10, 10, (LayerScales(10, u_frac, rate, 6, 0),))
    chip = chip_with(rounding=rounding)
    return build_image(network, chip, scales, learning_rate=learning_rate, **options)


def learned(image: Image, target: int, steps: int, start: int) -> int:
    """The stored weight after some steps of learning towards a target, input 4."""
    with Emulator("scalar") as chip:
        chip.load(image, 1)
        chip.write_weights({"l0": (np.array([[start]], np.int16), np.zeros(1, np.int32))})
        x = np.full((steps, 1, 1), 4, np.int16)
        chip.run(Block(x, np.full((steps, 1, 1), target, np.int16), learn=True))
        return int(chip.read_weights()["l0"][0][0, 0])


def test_nearest_rounding_leaves_a_weight_alone_when_all_bits_are_dropped() -> None:
    """A negative gradient shifted by more than 31 is 0, not -1."""
    for learning_rate in (0.0, 2.0**-40):
        assert learned(one_neuron("nearest", learning_rate), -3000, 10, 100) == 100


def test_a_rate_beyond_the_format_moves_a_weight_to_its_limit() -> None:
    """Whatever the shift to the left: an update above full scale clips, it does not vanish."""
    for power in range(1, 33):
        image = one_neuron("nearest", 2.0**power)
        # the first error is 0 since phi' starts at 0; the second is about 194 * 2^-6, by 4 * 2^-10
        exact = 190 * 4 * 2.0 ** (12 - 6 - 10 + power)
        got = learned(image, 3000, 2, -32764)
        assert got == 32764 or exact < 2 * 32764, (power, got)


def test_a_target_error_beyond_every_format_clips() -> None:
    """beta (y - r) far above the finest error format: its largest value, of the right sign."""
    rng = np.random.default_rng(0)
    for beta in (1.0, 256.0):
        network = make_network([1], ["linear"], rng, inputs=1, beta=beta, dt=1.0, largest_ratio=1.0)
        image = build_image(network, chip_with(), Scales(0, 24, (LayerScales(0, 6, 0, 24, 14),)))
        for bias in (STATE_MAX, -STATE_MAX):
            x, y = np.zeros((4, 1, 1), np.int16), np.zeros((4, 1, 1), np.int16)
            weights = {"l0": (np.zeros((1, 1), np.int16), np.array([bias], np.int32))}
            check_against_oracle(Quantised(image, x, y), weights, 4, False, (beta, bias))


def test_auto_ranging_coarsens_a_rate_as_fine_as_its_membrane() -> None:
    """r_frac == u_frac is allowed at the start, so it must be possible to leave it."""
    image = one_neuron("nearest", 0.0, u_frac=10, rate=10, range_every=4)
    with Emulator("scalar") as chip:
        chip.load(image, 1)
        chip.write_weights({"l0": (np.array([[32764]], np.int16), np.zeros(1, np.int32))})
        chip.run(Block(np.full((64, 1, 1), 8191, np.int16), ranging=True))
        assert chip.counters()[0]["sat_r"] > 0
        assert chip.formats()[0].rate < 10


def test_a_gradient_means_the_same_when_its_step_moved_a_scale() -> None:
    """gradient() is e below^T in network units, also of a step that ends with a new e_frac."""
    image = one_neuron("nearest", 0.0, range_every=1, range_clip=0.5)
    adam = AdamState.of(image, {"l0.weight": [[0.0]], "l0.bias": [0.0]}, 0.0)
    x = np.full((1, 1, 1), 512, np.int16)
    moves = 0
    with Emulator("scalar") as chip:
        chip.load(image, 1, gradient=True)
        for _ in range(6):
            before = chip.formats()[0].error
            block = Block(x, np.full((1, 1, 1), 100, np.int16), ranging=True, record=[(0, "e")])
            records = chip.run(block, adam)
            e = float(records.signals[0][0, 0, 0]) * 2.0 ** -chip.formats()[0].error
            moves += chip.formats()[0].error > before and e != 0
            assert chip.gradient()["l0.weight"][0, 0] == e * 512 * 2.0**-10
    assert moves > 0
