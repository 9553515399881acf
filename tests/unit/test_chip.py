"""The chip file, its seed and its full scales."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from hwgle.chip import MAX_SEED, Chip, full_scale, split_seed
from hwgle.errors import FileMistakes
from hwgle.yamlfile import zoo_names

GOOD = """\
format: hwgle/chip/1
name: bench
weight: {bits: 6, stored_bits: 8}
rate:
  bits: 8
input: {bits: 5}
error: {bits: 12}
plasticity: {rounding: nearest}
"""


def test_a_chip_and_its_full_scales(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text(GOOD)
    chip = Chip.load(str(path))
    assert (chip.name, chip.seed, chip.plasticity.rounding) == ("bench", 0, "nearest")
    assert (chip.weight_max, chip.stored_max) == (31, 124)
    assert (chip.rate_max, chip.input_max, chip.error_max) == (127, 15, 2047)
    assert Chip.load(f"{path}:12").seed == 12
    assert Chip.load("bench.yaml:12", base=tmp_path) == Chip.load(f"{path}:12")


def test_identity_is_profile_and_seed() -> None:
    assert Chip.load("ideal").hash() == Chip.load("ideal:0").hash()
    assert Chip.load("ideal:1").hash() != Chip.load("ideal:2").hash()
    assert Chip.load("ideal").hash() != Chip.load("ideal8").hash()


def test_zoo() -> None:
    assert {"ideal", "ideal8", "mixed-signal", "crossbar"} <= set(zoo_names("chips"))
    ideal, ideal8 = Chip.load("ideal"), Chip.load("ideal8")
    assert ideal.weight_max == ideal.rate_max == ideal.input_max == ideal.error_max == 8191
    assert ideal.stored_max == 4 * 8191
    assert (ideal8.weight_max, ideal8.stored_max, ideal8.rate_max) == (127, 127, 127)
    assert (ideal8.input_max, ideal8.error_max) == (8191, 2047)
    for name in zoo_names("chips"):
        assert Chip.load(name).name == name


def test_a_sum_of_32_products_at_full_scale_fits_an_int32() -> None:
    assert 32 * full_scale(14) ** 2 < 2**31 < 33 * full_scale(14) ** 2


WHOLE = """\
format: hwgle/chip/1
name: whole
weight: {bits: 6, stored_bits: 8, scale: neuron, mismatch: 0.05, distribution: normal,
  stuck_zero: 0.6, stuck_full: 0.01, drift: 1e6}
rate: {bits: 8}
input: {bits: 5, offset: 0.5, gain: 0.02}
membrane: {bits: 16, range: 8.5, noise: 0.003}
leak: {bits: 10, mismatch: 0.05, tracks: false}
activation: {gain: 0.03, offset: 0.02, dead: 0.01}
error: {bits: 12, noise: 0.001}
readout: {bits: 7, offset: 1, gain: 0.01, noise: 0.5}
plasticity: {rounding: nearest, update_bits: 6, update_noise: 0.1}
"""


def test_every_key(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE)
    chip = Chip.load(f"{path}:4")
    assert (chip.weight.scale, chip.weight.drift, chip.membrane.range) == ("neuron", 1e6, 8.5)
    assert (chip.weight_left, chip.input_left, chip.adc_drop, chip.adc_max) == (8, 9, 1, 63)
    assert (chip.leak.bits, chip.leak.tracks, chip.plasticity.update_bits) == (10, False, 6)
    assert chip == Chip.model_validate(chip.model_dump())
    assert hash(chip) == hash(Chip.load(f"{path}:4"))
    assert chip.profile == Chip.load(str(path)).profile


def test_everything_off_is_the_default() -> None:
    ideal = Chip.load("ideal")
    assert not any((ideal.synapses_differ, ideal.neurons_differ, ideal.inputs_differ))
    assert (ideal.weight_left, ideal.input_left, ideal.adc_drop) == (0, 0, 0)
    assert ideal.adc_max == ideal.rate_max
    assert ideal.membrane.bits == 29
    for part in (ideal.weight, ideal.leak, ideal.membrane, ideal.activation, ideal.readout):
        for name, value in part:
            if name not in ("bits", "stored_bits", "scale", "distribution", "tracks"):
                assert not value, name


def test_the_adc_has_at_most_the_bits_of_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE.replace("readout: {bits: 7", "readout: {bits: 12"))
    chip = Chip.load(str(path))
    assert (chip.adc_drop, chip.adc_max) == (0, 127)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "text"),
    [
        ("scale: neuron", "scale: row", 3, "weight.scale", "one of layer, neuron"),
        ("mismatch: 0.05, d", "mismatch: -0.1, d", 3, "weight.mismatch", "from 0 to 1"),
        ("normal", "uniform", 3, "weight.distribution", "one of lognormal, normal"),
        ("stuck_full: 0.01", "stuck_full: 0.41", 4, "weight.stuck_full", "at most 1 - stuck_zero"),
        ("drift: 1e6", "drift: 15", 4, "weight.drift", "from 16 to 1e9, or null"),
        ("offset: 0.5", "offset: x", 6, "input.offset", "a number from 0 to 1000"),
        ("bits: 16", "bits: 7", 7, "membrane.bits", "from 8 to 29"),
        ("range: 8.5", "range: 0", 7, "membrane.range", "a number > 0"),
        ("range: 8.5", "range: 513", 7, "membrane.range", "at most 511.984 with 16 bits"),
        ("bits: 10", "bits: 1", 8, "leak.bits", "from 2 to 14, or null: exact"),
        ("tracks: false", "tracks: 0", 8, "leak.tracks", "true or false"),
        ("dead: 0.01", "dead: 1.5", 9, "activation.dead", "from 0 to 1"),
        ("noise: 0.001", "noise: .nan", 10, "error.noise", "from 0 to 1"),
        ("bits: 7", "bits: 15", 11, "readout.bits", "from 2 to 14, or null: as rate"),
        ("update_bits: 6", "update_bits: 18", 12, "plasticity.update_bits", "from 2 to 17"),
        ("update_noise", "update_nose", 12, "plasticity.update_nose", "did you mean update_noise"),
        ("activation", "activations", 9, "activations", "did you mean activation?"),
    ],
)
def test_mistakes_in_imperfections(
    tmp_path: Path, old: str, new: str, line: int, key: str, text: str
) -> None:
    assert old in WHOLE
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(FileMistakes) as caught:
        Chip.load(str(path))
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.key) == (line, key)
    assert text in str(mistake)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "text"),
    [
        ("chip/1", "chip/0", 1, "format", "hwgle/chip/1"),
        ("name: bench", "seed: 3", 1, "name", "missing"),
        ("bits: 6", "bits: 1", 3, "weight.bits", "from 2 to 14"),
        ("bits: 6", "bits: 15", 3, "weight.bits", "from 2 to 14"),
        ("bits: 6", "bits: 6.0", 3, "weight.bits", "a whole number"),
        ("stored_bits: 8", "stored_bits: 5", 3, "weight.stored_bits", "from bits = 6 to 16"),
        ("stored_bits: 8", "stored_bits: 17", 3, "weight.stored_bits", "from 2 to 16"),
        (", stored_bits: 8", "", 3, "weight.stored_bits", "missing"),
        ("  bits: 8", "  bit: 8", 5, "rate.bit", "did you mean bits?"),
        ("input: {bits: 5}\n", "", 1, "input", "a mapping with the keys bits"),
        ("{bits: 12}", "12", 7, "error", "a mapping with the keys bits"),
        ("nearest", "floor", 8, "plasticity.rounding", "one of stochastic, nearest"),
        ("plasticity", "rounding", 8, "rounding", "unknown key"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, line: int, key: str, text: str) -> None:
    assert old in GOOD
    path = tmp_path / "bench.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(FileMistakes) as caught:
        Chip.load(str(path))
    found = [m for m in caught.value.mistakes if (m.line, m.key) == (line, key)]
    assert found, caught.value
    assert text in str(found[0])


def test_plasticity_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text(GOOD.replace("plasticity: {rounding: nearest}\n", ""))
    assert Chip.load(str(path)).plasticity.rounding == "stochastic"


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "1e3", "²", str(MAX_SEED + 1), "9" * 30])
def test_a_seed_that_is_none(seed: str) -> None:
    with pytest.raises(FileMistakes, match="a whole number from 0 to 9223372036854775807"):
        Chip.load(f"ideal:{seed}")


def test_seed_and_profile_are_told_together() -> None:
    with pytest.raises(FileMistakes) as caught:
        Chip.load("idael:x")
    assert len(caught.value.mistakes) == 2


def test_the_largest_seed_is_allowed_and_a_file_has_none(tmp_path: Path) -> None:
    assert Chip.load(f"ideal:{MAX_SEED}").seed == MAX_SEED
    with pytest.raises(ValidationError):
        Chip.model_validate({**Chip.load("ideal").model_dump(), "seed": MAX_SEED + 1})
    path = tmp_path / "bench.yaml"
    path.write_text(GOOD + "seed: 3\n")
    with pytest.raises(FileMistakes, match="unknown key"):
        Chip.load(str(path))


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("ideal", ("ideal", None)),
        ("ideal:7", ("ideal", "7")),
        ("a/b.yaml:7", ("a/b.yaml", "7")),
        ("C:\\chips\\b.yaml", ("C:\\chips\\b.yaml", None)),
        ("C:/chips/b.yaml:7", ("C:/chips/b.yaml", "7")),
        (":7", (":7", None)),
    ],
)
def test_split_seed(spec: str, parts: tuple[str, str | None]) -> None:
    assert split_seed(spec) == parts
