"""Calibration: formats that hold what they must and no coarser, multipliers, offsets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chip_with, random_case

from hwgle.calibrate import (
    FOR_RUN,
    FOR_TRAINING,
    INPUT_RANGE,
    Margins,
    calibrate,
    fraction,
    input_fraction,
    measure,
    output_offsets,
    weight_fraction,
)
from hwgle.chip import Chip
from hwgle.errors import UsageError
from hwgle.identity import draw
from hwgle.quantise import (
    BOUNDED,
    MAX_COEFFICIENT,
    Scales,
    applied_rate,
    build_image,
    coefficient,
    rate_shift,
    to_float,
    to_int16,
)
from hwgle.reference import Reference

IDEAL = Chip.load("ideal")


@given(st.floats(2.0**-16, MAX_COEFFICIENT))
def test_a_multiplier_keeps_15_bits(value: float) -> None:
    word = coefficient(value)
    mantissa, shift = word >> 8, word & 0xFF
    assert 0 <= mantissa < 1 << 15
    assert 0 <= shift <= 31
    assert abs(math.ldexp(mantissa, -shift) / value - 1) <= 2.0**-15


@given(st.integers(-31, 13))
def test_powers_of_two_are_exact(exponent: int) -> None:
    word = coefficient(2.0**exponent)
    assert math.ldexp(word >> 8, -(word & 0xFF)) == 2.0**exponent


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, MAX_COEFFICIENT * 1.01])
def test_a_multiplier_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UsageError):
        coefficient(value)


def test_no_multiplier() -> None:
    assert coefficient(0.0) >> 8 == 0


@given(st.floats(1e-3, 1e3), st.sampled_from([31, 127, 2047, 8191, 32767]))
def test_a_format_holds_its_peak_and_is_the_finest(peak: float, full: int) -> None:
    bits = fraction(full, peak, *INPUT_RANGE)
    values, clipped = to_int16([peak, -peak], bits, full)
    assert clipped == 0
    assert np.abs(to_float(values, bits) - [peak, -peak]).max() <= 2.0 ** -(bits + 1)
    if bits < INPUT_RANGE[1]:
        assert peak * 2.0 ** (bits + 1) > full


def test_formats_at_the_ends() -> None:
    assert fraction(8191, 0.0, -3, 9) == 9
    assert fraction(8191, math.inf, -3, 9) == -3
    assert fraction(8191, 1e30, -3, 9) == -3
    assert fraction(8191, 1e-30, -3, 9) == 9


def test_weights_take_the_step_with_the_least_squared_error() -> None:
    rng = np.random.default_rng(3)
    for full in (7, 127, 8191):
        w = rng.normal(size=2000)
        bits = weight_fraction(w, full)

        def error(b: int, w: np.ndarray = w, full: int = full) -> float:
            seen, _ = to_int16(w, b, full)
            return float(np.square(to_float(seen, b) - w).sum())

        assert error(bits) == min(error(b) for b in range(bits - 3, bits + 4))


@pytest.mark.parametrize("margins", [FOR_RUN, FOR_TRAINING])
def test_every_peak_fits_with_its_margin(seed: int, margins: object) -> None:
    for k in range(12):
        c = random_case(seed + k, layers=4, neurons=16, batch=6, steps=80)
        scales = calibrate(c.network, IDEAL, c.weights, c.x, c.target, margins)  # type: ignore[arg-type]
        peaks = measure(c.network, c.weights, c.x, c.target)
        build_image(c.network, IDEAL, scales)  # the core takes them
        assert peaks.input <= (IDEAL.input_max + 0.5) * 2.0**-scales.input
        for layer, s, rate in zip(c.network.layers, scales.layers, peaks.rate, strict=True):
            if layer.phi in BOUNDED:
                assert s.rate in (IDEAL.rate.bits - 1, s.membrane, 15)
            else:
                assert rate <= (IDEAL.rate_max + 0.5) * 2.0**-s.rate


@pytest.mark.parametrize("bits", [4, 6, 8, 12, 14])
def test_narrow_chips_can_be_built(seed: int, bits: int) -> None:
    chip = chip_with(weight=bits, stored=16, rate=bits, input=bits, error=bits)
    for k in range(6):
        c = random_case(seed + 50 + k, layers=4, neurons=16, batch=4, steps=60)
        build_image(c.network, chip, calibrate(c.network, chip, c.weights, c.x, c.target))


def test_measure_notes_the_peaks_of_the_oracle(seed: int) -> None:
    c = random_case(seed, layers=3, neurons=10, batch=4, steps=50)
    peaks = measure(c.network, c.weights, c.x, c.target)
    signals = ("r", "e", "u", "uhat", "x")
    run = Reference(c.network, c.weights, c.batch).run(c.x, c.target, record=signals)
    for k, layer in enumerate(c.network.layers):
        assert peaks.rate[k] == np.abs(run[f"{layer.name}.r"]).max()
        assert peaks.error[k] == np.abs(run[f"{layer.name}.e"]).max()
        states = (np.abs(run[f"{layer.name}.{s}"]).max() for s in ("u", "uhat", "x"))
        assert peaks.membrane[k] == max(states)


def test_scales_survive_their_array(seed: int) -> None:
    c = random_case(seed, layers=3, neurons=6, batch=3, steps=40)
    scales = calibrate(c.network, IDEAL, c.weights, c.x)
    assert Scales.from_array(scales.to_array()) == scales
    with pytest.raises(ValueError, match="scales of shape"):
        Scales.from_array(np.zeros((3, 4), dtype=np.int64))


@given(st.floats(1e-6, 16.0), st.integers(1, 4096))
def test_the_rate_that_a_shift_can_do_is_the_nearest(rate: float, batch: int) -> None:
    assert 2**-0.5001 <= applied_rate(rate, batch) / rate <= 2**0.5001


def test_no_rate_is_no_learning() -> None:
    assert rate_shift(0.0, 100) == 64
    assert applied_rate(0.0, 100) == 0.0


def test_planted_offsets_are_found() -> None:
    rng = np.random.default_rng(8)
    count, classes = 4000, 6
    planted = rng.normal(size=classes) * 20
    planted -= planted.mean()
    logits = rng.normal(size=(count, classes)) * 2
    noise = rng.gumbel(size=(count, classes))
    labels = (logits + noise).argmax(axis=1)  # softmax regression with gain 1 is the truth
    votes = 10 * logits - planted
    found = output_offsets(votes, labels)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert np.abs(found - planted).max() < 2.0  # 0.2 in logits: the spread of an estimate
    before = np.mean(votes.argmax(axis=1) == labels)
    after = np.mean((votes + found).argmax(axis=1) == labels)
    ideal = np.mean(logits.argmax(axis=1) == labels)
    assert before < ideal - 0.1
    assert after > ideal - 0.01


def test_offsets_of_votes_without_any_information() -> None:
    labels = np.arange(100) % 4
    assert np.all(np.isfinite(output_offsets(np.zeros((100, 4)), labels)))


# --- chips with imperfections ------------------------------------------------------------------


def imperfect(seed: int, **parts: dict[str, Any]) -> Chip:
    """The ideal chip with some imperfections."""
    data = IDEAL.model_dump() | {"seed": seed}
    for name, changes in parts.items():
        data[name] = {**data[name], **changes}
    return Chip.model_validate(data)


@pytest.mark.parametrize("bits", [2, 4, 6, 8, 14])
@pytest.mark.parametrize("margins", [FOR_RUN, FOR_TRAINING])
def test_chips_with_everything_can_be_built(seed: int, bits: int, margins: Margins) -> None:
    """The core checks every shift, with gains, inputs and rows in it."""
    width = {"bits": bits}
    chip = imperfect(
        seed,
        weight={**width, "stored_bits": 16, "scale": "neuron", "mismatch": 0.3, "stuck_full": 0.1},
        rate=width,
        input={**width, "gain": 0.1, "offset": 0.1 * 2 ** (bits - 1)},
        error={**width, "noise": 0.01},
        activation={"gain": 0.2, "offset": 0.5, "dead": 0.1},
        membrane={"noise": 0.1},
        leak={"bits": 4, "mismatch": 0.2, "tracks": False},
        readout={"bits": 2, "noise": 1.0},
    )
    for k in range(8):
        c = random_case(seed + 80 + k, layers=5, neurons=16, batch=4, steps=60)
        for factor in (1e-4, 1.0, 100.0):
            weights = {name: w * factor for name, w in c.weights.items()}
            scales = calibrate(c.network, chip, weights, c.x, c.target, margins)
            build_image(c.network, chip, scales)


@pytest.mark.parametrize("bits", [9, 14])
def test_the_input_holds_its_peak_in_codes(seed: int, bits: int) -> None:
    for k in range(6):
        c = random_case(seed + k, layers=2, neurons=6, batch=4, steps=60)
        plain = chip_with(input=bits)
        fine = imperfect(seed, input={"bits": bits, "gain": 0.02})
        a, b = (calibrate(c.network, chip, c.weights, c.x) for chip in (plain, fine))
        assert a.input == b.input
        peak, most = np.abs(c.x).max(), plain.input_max + 0.5
        assert peak <= most * 2.0**-b.input
        assert peak > most * 2.0 ** -(b.input + 1)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_a_narrow_input_takes_the_step_with_the_least_error(seed: int, bits: int) -> None:
    chip = chip_with(input=bits)
    for k in range(6):
        x = np.random.default_rng(seed + k).normal(size=(100, 4, 2)) * 10.0 ** (k - 3)
        errors = {}
        for frac in range(-16, 25):
            codes, _ = to_int16(x, frac, chip.input_max)
            errors[frac] = float(np.sum((to_float(codes, frac) - x) ** 2))
        assert errors[input_fraction(chip, x)] == min(errors.values())


def test_rates_of_a_chip_that_deviates_fit(seed: int) -> None:
    """Offsets and gains make unbounded rates larger than the oracle's: margins are on top."""
    for k in range(6):
        c = random_case(seed + k, layers=2, neurons=8, batch=4, steps=60, phis=("relu", "linear"))
        chip = imperfect(seed + k, activation={"gain": 0.3, "offset": 2.0})
        scales = calibrate(c.network, chip, c.weights, c.x)
        peaks = measure(c.network, c.weights, c.x, None)
        for s, own, peak in zip(
            scales.layers, draw(chip, c.network).layers, peaks.rate, strict=True
        ):
            most = (peak + np.abs(own.activation_offset).max()) * own.activation_gain.max()
            assert most * FOR_RUN.signal <= (chip.rate_max + 0.5) * 2.0**-s.rate or s.rate == -8


def test_a_stuck_synapse_counts_for_what_a_membrane_must_hold(seed: int) -> None:
    c = random_case(seed, layers=1, neurons=8, batch=4, steps=60)
    weights = {name: w / 8 for name, w in c.weights.items()}
    name = f"{c.network.layers[0].name}.weight"
    weights[name][0, 0] = 1.0  # so that full scale is far above the others
    plain = calibrate(c.network, IDEAL, weights, c.x)
    stuck = calibrate(c.network, imperfect(seed, weight={"stuck_full": 1.0}), weights, c.x)
    assert stuck.layers[0].weight == plain.layers[0].weight
    seen = np.full(weights[name].shape, 8191 * 2.0 ** -plain.layers[0].weight)
    most = np.abs(c.x).max(initial=0) * seen.sum(axis=1).max()
    assert most < 2.0**28 * 2.0 ** -stuck.layers[0].membrane


@pytest.mark.parametrize("bits", [8, 12, 16, 24, 29])
def test_a_narrow_membrane_holds_its_peak(seed: int, bits: int) -> None:
    for k in range(4):
        c = random_case(seed + k, layers=2, neurons=8, batch=4, steps=60)
        chip = imperfect(seed, membrane={"bits": bits})
        peaks = measure(c.network, c.weights, c.x, c.target)
        for margins in (FOR_RUN, FOR_TRAINING):
            scales = calibrate(c.network, chip, c.weights, c.x, c.target, margins)
            build_image(c.network, chip, scales)
            for s, peak in zip(scales.layers, peaks.membrane, strict=True):
                assert peak * margins.signal <= 2.0 ** (bits - 1 - s.membrane) or s.membrane == 6


def test_a_range_that_is_given_decides(seed: int) -> None:
    c = random_case(seed, layers=2, neurons=8, batch=4, steps=60)
    for bits, largest, frac in ((29, 100.0, 21), (12, 10.0, 7), (29, 1e-3, 22)):
        chip = imperfect(seed, membrane={"bits": bits, "range": largest})
        scales = calibrate(c.network, chip, c.weights, c.x)
        assert {s.membrane for s in scales.layers} == {frac}
        image = build_image(c.network, chip, scales)
        u_max = [int(image.words[24 + 20 * k + 7]) for k in range(len(scales.layers))]
        assert set(u_max) == {round(largest * 2.0**frac)}
