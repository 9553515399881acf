"""The image word by word, read again from the contract and not with the code that wrote it.

`Words` follows the layout in csrc/gle.h: a head of 24 words, 20 a layer, 4 a neuron, then
the sections that the flags name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hwgle._core import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from networks import random_case

from hwgle.calibrate import FOR_TRAINING, calibrate, row_fractions, seen_weights, weight_scales
from hwgle.chip import Chip
from hwgle.device import Formats
from hwgle.errors import UsageError
from hwgle.identity import draw
from hwgle.packing import drift_words, noise_word, section_words, sections
from hwgle.quantise import Image, Scales, build_image, quantise_weights
from hwgle.session import scales_now, weights_from

ROWS, ANALOG, INPUTS, GAINS = 1, 2, 4, 8
EVERYTHING: dict[str, dict[str, Any]] = {
    "weight": {"bits": 6, "stored_bits": 8, "scale": "neuron", "mismatch": 0.1,
               "stuck_zero": 0.05, "stuck_full": 0.05, "drift": 5e5},
    "rate": {"bits": 10},
    "input": {"bits": 5, "offset": 0.5, "gain": 0.03},
    "membrane": {"range": 40.0, "noise": 0.01},
    "leak": {"bits": 8, "mismatch": 0.1, "tracks": False},
    "activation": {"gain": 0.05, "offset": 0.1, "dead": 0.2},
    "error": {"bits": 10, "noise": 0.002},
    "readout": {"bits": 8, "offset": 1.0, "gain": 0.02, "noise": 0.5},
    "plasticity": {"update_bits": 5, "update_noise": 0.1},
}  # fmt: skip
ALONE = [
    {"weight": {"mismatch": 0.05}},
    {"weight": {"stuck_zero": 0.05}},
    {"weight": {"scale": "neuron"}},
    {"weight": {"drift": 1e5}},
    {"input": {"gain": 0.05}},
    {"membrane": {"noise": 0.01}},
    {"membrane": {"range": 20.0}},
    {"membrane": {"bits": 16}},
    {"leak": {"mismatch": 0.1}},
    {"leak": {"bits": 6}},
    {"activation": {"gain": 0.05}},
    {"activation": {"dead": 0.2}},
    {"error": {"noise": 0.01}},
    {"readout": {"bits": 8}},
    {"readout": {"noise": 1.0}},
    {"plasticity": {"update_bits": 8}},
    {"plasticity": {"update_noise": 0.3}},
]


def chip_of(parts: dict[str, dict[str, Any]], seed: int = 9) -> Chip:
    """The ideal chip with some imperfections."""
    data = Chip.load("ideal").model_dump() | {"seed": seed}
    for name, changes in parts.items():
        data[name] = {**data[name], **changes}
    return Chip.model_validate(data)


def signed(word: int, bits: int = 32) -> int:
    """Two's complement."""
    return word - (1 << bits) if word >> (bits - 1) & 1 else word


def multiplier(word: int) -> float:
    """A gle_coef: mantissa << 8 | shift."""
    return math.ldexp(word >> 8, -(word & 0xFF))


def noise(word: int) -> float:
    """Standard deviation of a noise word; 0 is none."""
    m, k = word >> 8, (word & 0xFF) - 8
    assert word == 0 or (0 < m <= 32767 and -5 <= k <= 31)
    return m * 2.0**-k * math.sqrt(21845)


class Words:
    """An image taken apart."""

    def __init__(self, words: list[int]) -> None:
        self._words: Iterator[int] = iter(words)
        self.head = self._take(24)
        count, inputs, flags = self.head[2], self.head[3], self.head[15]
        self.layers = [self._take(20) for _ in range(count)]
        sizes = [y[0] for y in self.layers]
        self.neurons = [[self._take(4) for _ in range(n)] for n in sizes]
        self.rows = [self._take(n) for n in sizes] if flags & ROWS else []
        self.analog = [[self._take(4) for _ in range(n)] for n in sizes] if flags & ANALOG else []
        self.inputs = self._take(inputs) if flags & INPUTS else []
        self.gains: list[list[list[int]]] = []
        if flags & GAINS:
            for n, m in zip(sizes, [inputs, *sizes[:-1]], strict=True):
                self.gains.append([self._halves(m) for _ in range(n)])
        assert next(self._words, None) is None, "words behind the last section"

    def _take(self, count: int) -> list[int]:
        return [next(self._words) for _ in range(count)]

    def _halves(self, m: int) -> list[int]:
        words = self._take((m + 1) // 2)
        halves = [h for w in words for h in (signed(w & 0xFFFF, 16), signed(w >> 16, 16))]
        assert halves[m:] in ([], [0])
        return halves[:m]


def image_of(chip: Chip, seed: int, **options: Any) -> tuple[Image, Words]:
    """A random network on a chip."""
    c = random_case(seed, layers=4, neurons=12, inputs=5, batch=4, steps=60)
    scales = calibrate(c.network, chip, c.weights, c.x, c.target)
    image = build_image(c.network, chip, scales, **options)
    return image, Words(image.words.tolist())


# --- numbers as words --------------------------------------------------------------------------


@given(st.floats(1e-6, 1e7))
def test_a_noise_word_has_the_noise_that_was_asked_for(sd: float) -> None:
    word = noise_word(sd)
    assert abs(noise(word) - sd) <= max(sd * 2.0**-15, 2.0**-32 * math.sqrt(21845))


def test_no_noise_and_impossible_noise() -> None:
    assert noise_word(0.0) == 0
    assert noise_word(1e-9) == 0
    for sd in (-1.0, math.inf, math.nan, 1e9):
        with pytest.raises(UsageError):
            noise_word(sd)
    assert noise(noise_word(1.5e8)) == pytest.approx(1.5e8, rel=1e-4)


@given(st.floats(16, 1e9))
def test_drift_has_the_time_constant_that_was_asked_for(tau: float) -> None:
    every, shift = drift_words(chip_of({"weight": {"drift": tau}}))
    assert every >= 1
    assert 1 <= shift <= 10
    real = -every / math.log1p(-(2.0**-shift))
    assert real == pytest.approx(tau, rel=0.046)
    if tau > 1e5:
        assert real == pytest.approx(tau, rel=0.006)


# --- an ideal chip -----------------------------------------------------------------------------


def test_everything_off_is_the_image_of_before(seed: int) -> None:
    for name in ("ideal", "ideal8"):
        chip = Chip.load(f"{name}:{seed}")
        image, w = image_of(chip, seed, batch=4, learning_rate=0.01, range_every=7)
        n, s = image.network, image.scales
        assert (w.head[0], w.head[1]) == (0x32454C47, image.words.size)
        assert w.head[2:5] == [len(n.layers), n.inputs, int(n.loss == "mse")]
        assert multiplier(w.head[5]) == pytest.approx(n.beta, rel=2**-15)
        assert multiplier(w.head[6]) == pytest.approx(n.gamma, rel=2**-15)
        assert [signed(x) for x in w.head[7:12]] == [s.input, 8191, s.target, 7, 1]
        assert w.head[12] | w.head[13] << 32 == seed
        assert w.head[14] == round(0.0003 * 65536)
        assert w.head[15:] == [0, 0, 0, 1, 65535, 0, 0, 0, 0]
        shift = chip.weight.stored_bits - chip.weight.bits
        for k, (y, words) in enumerate(zip(n.layers, w.layers, strict=True)):
            scale = s.layers[k]
            assert words[0] == y.size
            assert words[1] == ("linear", "tanh", "sigmoid", "softplus", "relu").index(y.phi)
            assert [signed(x) for x in words[2:14]] == [
                int(y.learn), scale.weight + shift, shift, chip.stored_max,
                scale.membrane, 2**28 - 1, scale.rate, chip.rate_max,
                scale.error, chip.error_max, scale.error_extra,
                round(math.log2(4 / 0.01)),
            ]  # fmt: skip
            assert words[14:] == [0, 0, 0, 0, chip.rate_max, 0]
            for tau_m, tau_r, neuron in zip(y.tau_m, y.tau_r, w.neurons[k], strict=True):
                want = [n.dt / tau_m, tau_r / tau_m, n.dt / tau_r, tau_m / tau_r]
                assert [multiplier(x) for x in neuron] == pytest.approx(want, rel=2**-15)


@pytest.mark.parametrize(
    "parts", ALONE, ids=lambda p: "-".join(f"{k}.{'.'.join(v)}" for k, v in p.items())
)
def test_each_imperfection_alone_can_be_built(seed: int, parts: dict[str, Any]) -> None:
    chip = chip_of(parts)
    for k in range(4):
        image, w = image_of(chip, seed + k)
        assert w.head[15] == sections(chip)
        plain = 24 + 24 * len(image.network.layers) - 4 * len(image.network.layers)
        plain += 4 * sum(image.network.sizes)
        assert image.words.size == plain + section_words(image.network, chip)


# --- everything at once ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> tuple[Image, Words]:
    """All imperfections on one network."""
    return image_of(chip_of(EVERYTHING), 41)


def test_the_head(full: tuple[Image, Words]) -> None:
    image, w = full
    assert w.head[15] == ROWS | ANALOG | INPUTS | GAINS
    assert w.head[16] == 14 - 5
    assert signed(w.head[7]) == image.scales.input + 9
    assert w.head[8] == 15
    every, shift = w.head[17], w.head[18]
    assert -every / math.log1p(-(2.0**-shift)) == pytest.approx(5e5, rel=0.002)
    assert w.head[19] == 15
    assert noise(w.head[20]) == pytest.approx(0.1 * 8192, rel=1e-4)


def test_the_layers(full: tuple[Image, Words]) -> None:
    image, w = full
    for words, s in zip(w.layers, image.scales.layers, strict=True):
        assert signed(words[3]) == s.weight + 2
        assert words[4:6] == [2, 31 << 2]
        assert words[7] == min(2**28 - 1, round(40.0 * 2.0**s.membrane))
        assert words[14] == 14 - 6
        assert noise(words[15]) == pytest.approx(0.002 * 511 * 2.0**s.error_extra, rel=1e-4)
        assert noise(words[16]) == pytest.approx(0.5 * 8192, rel=1e-4)
        assert words[17:] == [2, 127, 0]


def test_the_neurons(full: tuple[Image, Words]) -> None:
    image, w = full
    n = image.network
    fastest = min(min(y.tau_m.min(), y.tau_r.min()) for y in n.layers)
    for k, (y, own) in enumerate(zip(n.layers, draw(image.chip, n).layers, strict=True)):
        for i in range(y.size):
            tau = []
            for nominal, factor in ((y.tau_m[i], own.tau_m[i]), (y.tau_r[i], own.tau_r[i])):
                code = max(1, math.floor(255 * fastest / nominal + 0.5))
                tau.append(max(n.dt, 255 * fastest / code * factor))
            want = [n.dt / tau[0], tau[1] / tau[0], n.dt / tau[1], tau[0] / tau[1]]
            found = [multiplier(x) for x in w.neurons[k][i]]
            assert found == pytest.approx(want, rel=2**-15)
            assert found[0] <= 1
            assert found[2] <= 1
            offset, gain, noise_u, adc = w.analog[k][i]
            unit = 2.0 ** image.scales.layers[k].membrane
            assert abs(signed(offset) - own.activation_offset[i] * unit) <= 0.5
            assert gain == (0 if own.dead[i] else round(own.activation_gain[i] * 8192))
            a = n.dt / tau[0]
            assert noise(noise_u) == pytest.approx(
                0.01 * unit * math.sqrt(1 - (1 - a) ** 2), rel=1e-4
            )
            assert abs((adc & 0xFFFF) - own.readout_gain[i] * 8192) <= 0.5
            assert abs(signed(adc >> 16, 16) - own.readout_offset[i] * 64) <= 0.5
    dead = [x for y in draw(image.chip, n).layers for x in y.dead]
    assert any(dead)


def test_inputs_rows_and_synapses(full: tuple[Image, Words]) -> None:
    image, w = full
    draws = draw(image.chip, image.network)
    for word, gain, offset in zip(w.inputs, draws.input_gain, draws.input_offset, strict=True):
        assert abs((word & 0xFFFF) - gain * 8192) <= 0.5
        assert abs(signed(word >> 16, 16) - offset * 2**9) <= 0.5
    for k, own in enumerate(draws.layers):
        assert own.gain is not None
        assert w.gains[k] == own.gain.tolist()
        assert tuple(w.rows[k]) == image.scales.layers[k].rows
        assert all(g >= -16383 for row in w.gains[k] for g in row)
    stuck = [g for y in w.gains for row in y for g in row if g < 0]
    assert {-g - 8192 for g in stuck} <= {0, 31 << 8, -31 << 8}


def test_the_seed_of_a_run_changes_no_mismatch(full: tuple[Image, Words]) -> None:
    image, w = full
    other = build_image(image.network, image.chip, image.scales, seed=2**40 + 3)
    again = Words(other.words.tolist())
    assert again.head[12] | again.head[13] << 32 == 2**40 + 3
    assert again.head[:12] == w.head[:12]
    assert other.words[24:].tolist() == image.words[24:].tolist()


# --- scales per neuron -------------------------------------------------------------------------

PER_NEURON = chip_of({"weight": {"bits": 6, "stored_bits": 10, "scale": "neuron"}})


def test_rows_are_the_least_squares_of_each_neuron(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(40, 30)) * 2.0 ** rng.uniform(-5, 0, (40, 1))
    w[7] = 0
    frac, rows = row_fractions(w, 31)
    assert min(rows) == rows[7] == 0
    assert max(rows) <= 7
    for row, values in zip(rows, w, strict=True):
        error = {}
        for bits in range(frac, frac + 8):
            seen = np.clip(np.floor(values * 2.0**bits + 0.5), -31, 31) * 2.0**-bits
            error[bits - frac] = float(np.sum((seen - values) ** 2))
        if values.any():
            assert error[row] == min(error.values())
    assert row_fractions(np.zeros((3, 2)), 31)[1] == (0, 0, 0)


def test_weights_come_back_within_half_a_step_of_their_row(seed: int) -> None:
    chip = PER_NEURON
    c = random_case(seed, layers=3, neurons=12, batch=4, steps=60)
    scale = {name: w * 2.0 ** np.linspace(-4, 0, len(w)).reshape(-1, *[1] * (w.ndim - 1))
             for name, w in c.weights.items()}  # fmt: skip
    scales = calibrate(c.network, chip, scale, c.x, c.target, FOR_TRAINING)
    image = build_image(c.network, chip, scales)
    assert Scales.from_array(scales.to_array()) == scales
    stored = quantise_weights(image, scale)
    formats = [
        Formats(s.weight + 4, s.membrane, s.rate, s.error, s.error + s.error_extra, 0, 0)
        for s in scales.layers
    ]
    assert scales_now(image, formats) == scales
    back = weights_from(image, stored, formats)
    for layer, s in zip(c.network.layers, scales.layers, strict=True):
        assert len(s.rows) == layer.size
        step = 2.0 ** -(s.weight + 4 + np.array(s.rows))[:, None]
        inside = np.abs(scale[f"{layer.name}.weight"]) <= chip.stored_max * step
        off = np.abs(back[f"{layer.name}.weight"] - scale[f"{layer.name}.weight"])
        assert np.all(off[inside] <= (np.broadcast_to(step, off.shape) / 2)[inside])
        # once more: what is in the format stays as it is
        again = quantise_weights(image, back)[layer.name][0]
        assert np.array_equal(again, stored[layer.name][0])
        whole = quantise_weights(image, back, stored=False)[layer.name][0]
        assert not np.any(whole & 15)


def test_scales_of_another_kind_of_chip_are_refused(seed: int) -> None:
    c = random_case(seed, layers=3, neurons=12, batch=4, steps=60)
    scales = calibrate(c.network, PER_NEURON, c.weights, c.x)
    assert any(any(s.rows) for s in scales.layers)
    with pytest.raises(UsageError, match="one weight scale for a layer"):
        build_image(c.network, Chip.load("ideal"), scales)
    for rows in ((0,) * 99, (8,) * c.network.layers[0].size):
        with pytest.raises(UsageError, match="weight scales of"):
            build_image(c.network, PER_NEURON, scales.with_layer(0, rows=rows))
    plain = calibrate(c.network, Chip.load("ideal"), c.weights, c.x)
    w = Words(build_image(c.network, PER_NEURON, plain).words.tolist())
    assert not any(any(rows) for rows in w.rows)


def test_scales_with_rows_survive_their_array(seed: int) -> None:
    c = random_case(seed + 3, layers=4, neurons=12, batch=4, steps=60)
    scales = calibrate(c.network, PER_NEURON, c.weights, c.x, c.target)
    array = scales.to_array()
    assert array.shape == (1 + len(scales.layers), 5 + max(c.network.sizes))
    assert Scales.from_array(array) == scales


# --- what the array sees -----------------------------------------------------------------------


def test_seen_weights_are_what_the_words_say(full: tuple[Image, Words]) -> None:
    """In float what the core computes from codes, gains and stuck synapses."""
    image, w = full
    network, chip = image.network, image.chip
    rng = np.random.default_rng(1)
    weights = {}
    for k, layer in enumerate(network.layers):
        weights[f"{layer.name}.weight"] = rng.normal(0, 0.3, (layer.size, network.fan_in(k)))
        weights[f"{layer.name}.bias"] = np.zeros(layer.size)
    scales = weight_scales(network, chip, weights)
    seen = seen_weights(network, chip, weights, scales)
    for k, layer in enumerate(network.layers):
        frac, rows = scales[k]
        for i, row in enumerate(w.gains[k]):
            step = 2.0 ** -(frac + 8 + rows[i])
            for j, g in enumerate(row):
                value = weights[f"{layer.name}.weight"][i, j]
                want = (-g - 8192) * step if g < 0 else value * g / 8192
                assert seen[f"{layer.name}.weight"][i, j] == pytest.approx(want, abs=1e-12)


def test_what_is_drawn_is_what_is_built(seed: int) -> None:
    """Converters far off: no word is cut where draws and `chip show` are not."""
    chip = chip_of(
        {
            "input": {"bits": 5, "offset": 3.2, "gain": 1.0},
            "activation": {"gain": 1.0, "offset": 10.0},
            "readout": {"bits": 4, "offset": 100.0, "gain": 1.0},
        },
        seed,
    )
    image, words = image_of(chip, seed)
    draws = draw(chip, image.network)
    for own, s, layer in zip(draws.layers, image.scales.layers, words.analog, strict=True):
        for i, (offset, gain, _, adc) in enumerate(layer):
            assert abs(signed(offset) - own.activation_offset[i] * 2.0**s.membrane) <= 0.5
            assert abs(gain - own.activation_gain[i] * 8192) <= 0.5
            assert abs((adc & 0xFFFF) - own.readout_gain[i] * 8192) <= 0.5
            assert abs(signed(adc >> 16, 16) - own.readout_offset[i] * 64) <= 0.5
    for word, gain, offset in zip(words.inputs, draws.input_gain, draws.input_offset, strict=True):
        assert abs((word & 0xFFFF) - gain * 8192) <= 0.5
        assert abs(signed(word >> 16, 16) - offset * 2.0**9) <= 0.5


def test_a_rate_is_halved_for_a_layer_at_most_32_times() -> None:
    case = random_case(21, layers=4, neurons=4, inputs=2, batch=1, steps=20)
    ideal = Chip.load("ideal")
    scales = calibrate(case.network, ideal, case.weights, case.x, case.target)
    slowest = build_image(case.network, ideal, scales, layer_rate=1e-12)
    layers = len(case.network.layers)
    assert layers > 1
    halved = [int(slowest.words[24 + 20 * k + 2]) >> 8 for k in range(layers)]
    assert halved == [32] * (layers - 1) + [0]
    for learn, allowed in ((32 << 8 | 15, True), (33 << 8, False), (16, False), (128, False)):
        words = slowest.words.copy()
        words[24 + 2] = learn
        pointer = ffi.from_buffer("uint32_t[]", words)
        assert (lib.gle_image_check(pointer, words.size) == lib.GLE_OK) == allowed, learn
