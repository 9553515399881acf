"""What is drawn for a chip: the statistics that its profile says, the same in any network,
and the file that keeps an identity."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwgle import identity
from hwgle.chip import Chip
from hwgle.errors import FileMistakes, UsageError
from hwgle.identity import draw, factors, identity_hash, save, stuck
from hwgle.measured import Measured, MeasuredLayer, encode, shape_hash
from hwgle.network import Network

Floats = NDArray[np.float64]
SIGMAS = 4.5  # of an estimate: one test in 10^5 fails by chance, and the seed is fixed
FULL: dict[str, dict[str, Any]] = {
    "weight": {"mismatch": 0.1, "stuck_zero": 0.02, "stuck_full": 0.01},
    "input": {"offset": 0.4, "gain": 0.03},
    "leak": {"mismatch": 0.08, "tracks": False},
    "activation": {"gain": 0.05, "offset": 0.02, "dead": 0.01},
    "readout": {"offset": 1.5, "gain": 0.04},
}


def chip_of(seed: int = 0, **parts: dict[str, Any]) -> Chip:
    """The ideal chip with some imperfections."""
    data = Chip.load("ideal").model_dump() | {"seed": seed}
    for name, changes in parts.items():
        data[name] = {**data[name], **changes}
    return Chip.model_validate(data)


def network_of(*sizes: int, inputs: int = 3) -> Network:
    """Layers of these sizes."""
    layers = [
        {
            "name": f"l{k}",
            "phi": "tanh",
            "populations": [{"size": size, "tau_m": 1.0, "tau_r": 0.5}],
        }
        for k, size in enumerate(sizes)
    ]
    head = {"format": "hwgle/network/1", "name": "net", "dt": 0.1, "inputs": inputs}
    return Network.model_validate({**head, "loss": "mse", "layers": layers})


KNOWN_NORMAL = [0.5646514892578125, -0.3499603271484375, -0.4960174560546875, 0.1136474609375]
KNOWN_UNIFORM = [0.16335776027986992, 0.5955770722038426, 0.13091612579251233, 0.08916863435147016]
KNOWN_GAIN = [7902, 8832, 7196, 9399, 8176, 8295, 7015, 7347]
LARGE = network_of(4096, 4096, 4096, inputs=4)
SQUARE = network_of(128, 128)


def check(values: Floats, mean: float, sd: float, seed: int, kurtosis: float = 3.2) -> None:
    """Mean and standard deviation of at least 10,000 draws, within their own errors."""
    n = values.size
    assert n >= 10_000
    at = f"seed {seed}, {n} draws: mean {values.mean()}, sd {values.std()}"
    assert abs(values.mean() - mean) < SIGMAS * sd / math.sqrt(n), at
    # the variance of a variance is (kurtosis - 1) sd^4 / n
    assert abs(values.std() / sd - 1) < SIGMAS * math.sqrt((kurtosis - 1) / (4 * n)), at


# --- random numbers ----------------------------------------------------------------------------


def test_exp_and_log1p_are_right() -> None:
    x = np.linspace(-12, 12, 20_001)
    assert np.abs(identity.exp(x) / np.exp(x) - 1).max() < 1e-12
    for y in np.linspace(0, 1, 1001).tolist():
        assert identity.log1p(y) == pytest.approx(math.log1p(y), rel=1e-14, abs=1e-300)
    assert identity.lognormal(0.0, x).tolist() == [1.0] * x.size


def test_numbers_are_the_same_on_every_machine() -> None:
    """Values that a machine wrote down once: drawing rules, version 1."""
    index = np.arange(4, dtype=np.uint64)
    assert identity.normal(7, identity.TAU_M, 2, index).tolist() == KNOWN_NORMAL
    assert identity.uniform(7, identity.DEAD, 2, index).tolist() == KNOWN_UNIFORM
    gain = draw(chip_of(11, **FULL), SQUARE).layers[1].gain
    assert gain is not None
    assert gain[3, 40:48].tolist() == KNOWN_GAIN


def test_words_by_the_text(seed: int) -> None:
    """The same bits in Python's whole numbers."""
    mask = (1 << 64) - 1

    def mix(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    for purpose, layer, index in ((256, 0, 0), (261, 5, 77), (266, 63, 4095 * 4096 + 4095)):
        state = mix(mix(seed + golden & mask) ^ (purpose << 32 | layer))
        words = [mix(state + golden * (3 * index + k + 1) & mask) for k in range(3)]
        total = sum(w >> s & 0xFFFF for w in words for s in (0, 16, 32, 48))
        at = np.array([index], dtype=np.uint64)
        found = identity.normal(seed, purpose, layer, at)[0]
        assert found == (total - 6 * 0xFFFF) / 65536, (purpose, layer, index)
        first = mix(state + golden * (index + 1) & mask)
        assert identity.uniform(seed, purpose, layer, at)[0] == (first >> 11) / 2**53


def test_normals_are_normal(seed: int) -> None:
    index = np.arange(200_000, dtype=np.uint64)
    z = identity.normal(seed, identity.TAU_M, 0, index)
    check(z, 0.0, 1.0, seed, 2.9)
    for edge in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0):
        share = 0.5 * math.erfc(-edge / math.sqrt(2))
        error = math.sqrt(share * (1 - share) / z.size)
        assert abs(np.mean(z < edge) - share) < SIGMAS * error + 0.002, (seed, edge)


def test_draws_of_two_purposes_layers_and_neighbours_are_independent(seed: int) -> None:
    index = np.arange(50_000, dtype=np.uint64)
    base = identity.normal(seed, identity.TAU_M, 0, index)
    others = {
        "purpose": identity.normal(seed, identity.TAU_R, 0, index),
        "layer": identity.normal(seed, identity.TAU_M, 1, index),
        "seed": identity.normal(seed + 1, identity.TAU_M, 0, index),
        "neighbour": np.roll(base, 1),
    }
    for name, other in others.items():
        correlation = float(np.mean(base * other))
        assert abs(correlation) < SIGMAS / math.sqrt(base.size), (seed, name, correlation)


# --- what is drawn -----------------------------------------------------------------------------

QUANTITIES: dict[str, tuple[Callable[[Any], Floats], float, float]] = {
    "tau_m": (lambda d: d.tau_m, 1.0, 0.08),
    "tau_r": (lambda d: d.tau_r, 1.0, 0.08),
    "activation_gain": (lambda d: d.activation_gain, 1.0, 0.05),
    "activation_offset": (lambda d: d.activation_offset, 0.0, 0.02),
    "readout_gain": (lambda d: d.readout_gain, 1.0, 0.04),
    "readout_offset": (lambda d: d.readout_offset, 0.0, 1.5),
}


@pytest.fixture(scope="module")
def drawn() -> Any:
    """12,288 neurons with everything on but the synapses (which would be 33 million)."""
    parts = {k: v for k, v in FULL.items() if k != "weight"}
    return draw(chip_of(20250101, **parts), LARGE)


@pytest.mark.parametrize("name", QUANTITIES)
def test_neurons_are_as_the_profile_says(drawn: Any, name: str) -> None:
    of, mean, sd = QUANTITIES[name]
    check(np.concatenate([of(d) for d in drawn.layers]), mean, sd, 20250101)


def test_dead_neurons_are_as_many_as_the_profile_says(drawn: Any) -> None:
    dead = np.concatenate([d.dead for d in drawn.layers])
    assert abs(dead.mean() - 0.01) < SIGMAS * math.sqrt(0.01 / dead.size)


def test_inputs_are_as_the_profile_says(seed: int) -> None:
    chip = chip_of(seed, input=FULL["input"])
    found = draw(chip, network_of(1, inputs=4096))
    assert abs(found.input_gain.std() / 0.03 - 1) < SIGMAS / math.sqrt(2 * 4096), seed
    assert abs(found.input_offset.std() / 0.4 - 1) < SIGMAS / math.sqrt(2 * 4096), seed
    assert abs(found.input_gain.mean() - 1) < SIGMAS * 0.03 / 64, seed


@pytest.mark.parametrize("distribution", ["lognormal", "normal"])
def test_synapses_are_as_the_profile_says(seed: int, distribution: str) -> None:
    chip = chip_of(seed, weight={"mismatch": 0.1, "distribution": distribution})
    gains = np.concatenate(
        [factors(d.gain).ravel() for d in draw(chip, SQUARE).layers if d.gain is not None]
    )
    check(gains, 1.0, 0.1, seed, 3.4)
    z = (gains - 1) / 0.1
    skew = float(np.mean(z**3))
    expected = 3 * 0.1 + 0.1**3 if distribution == "lognormal" else 0.0
    assert abs(skew - expected) < SIGMAS * math.sqrt(6 / z.size) * 1.5, (seed, skew)


def test_stuck_synapses_are_as_many_as_the_profile_says(seed: int) -> None:
    chip = chip_of(seed, weight=FULL["weight"])
    gain = draw(chip, SQUARE).layers[1].gain
    assert gain is not None
    n = gain.size
    assert n >= 10_000
    seen = -gain[stuck(gain)].astype(int) - 8192
    assert set(seen.tolist()) <= {0, 8191, -8191}
    for value, share in ((0, 0.02), (8191, 0.005), (-8191, 0.005)):
        error = math.sqrt(share * (1 - share) / n)
        assert abs(np.count_nonzero(seen == value) / n - share) < SIGMAS * error, (seed, value)


def test_a_stuck_synapse_of_a_narrow_array_is_at_its_full_scale() -> None:
    weight = {"bits": 6, "stored_bits": 6, "stuck_full": 1.0}
    gain = draw(chip_of(weight=weight), SQUARE).layers[0].gain
    assert gain is not None
    assert set((-gain.astype(int) - 8192).ravel().tolist()) == {31 << 8, -31 << 8}


def test_tau_r_follows_tau_m_where_it_is_said_to() -> None:
    found = draw(chip_of(leak={"mismatch": 0.1}), SQUARE).layers[0]
    assert np.array_equal(found.tau_m, found.tau_r)
    found = draw(chip_of(leak={"mismatch": 0.1, "tracks": False}), SQUARE).layers[0]
    assert abs(np.corrcoef(found.tau_m, found.tau_r)[0, 1]) < 0.4


def test_an_ideal_chip_has_nothing_individual() -> None:
    for layer in draw(chip_of(5), SQUARE).layers:
        assert layer.gain is None
        assert not layer.dead.any()
        for values in (layer.tau_m, layer.tau_r, layer.activation_gain, layer.readout_gain):
            assert np.all(values == 1.0)
        assert not layer.activation_offset.any()
        assert not layer.readout_offset.any()


# --- one identity ------------------------------------------------------------------------------


def same(a: Any, b: Any, n: int, m: int) -> None:
    """The first n neurons and m inputs of two layers are equal."""
    assert np.array_equal(a.gain[:n, :m], b.gain[:n, :m])
    for name in ("tau_m", "tau_r", "activation_gain", "activation_offset", "dead",
                 "readout_gain", "readout_offset"):  # fmt: skip
        assert np.array_equal(getattr(a, name)[:n], getattr(b, name)[:n]), name


def test_the_same_chip_whatever_the_network_around() -> None:
    chip = chip_of(3, **FULL)
    small, large = draw(chip, network_of(7, 5)), draw(chip, network_of(20, 30, 4, inputs=9))
    same(small.layers[0], large.layers[0], 7, 3)
    same(small.layers[1], large.layers[1], 5, 7)
    assert np.array_equal(small.input_gain, large.input_gain[:3])
    assert np.array_equal(small.input_offset, large.input_offset[:3])


def test_one_imperfection_switched_off_changes_no_other() -> None:
    whole = draw(chip_of(3, **FULL), SQUARE).layers[1]
    for name in FULL:
        rest = {k: v for k, v in FULL.items() if k != name}
        part = draw(chip_of(3, **rest), SQUARE).layers[1]
        if name != "weight":
            assert np.array_equal(part.gain, whole.gain)
        if name != "leak":
            assert np.array_equal(part.tau_r, whole.tau_r)
        if name != "activation":
            assert np.array_equal(part.activation_gain, whole.activation_gain)
            assert np.array_equal(part.dead, whole.dead)
        if name != "readout":
            assert np.array_equal(part.readout_offset, whole.readout_offset)


def test_more_stuck_synapses_leave_the_others_as_they_were() -> None:
    few = draw(chip_of(3, weight={"mismatch": 0.1, "stuck_zero": 0.01}), SQUARE).layers[1].gain
    many = draw(chip_of(3, weight={"mismatch": 0.1, "stuck_zero": 0.05}), SQUARE).layers[1].gain
    assert few is not None
    assert many is not None
    assert np.all(stuck(many)[stuck(few)])
    assert np.array_equal(few[~stuck(many)], many[~stuck(many)])


def test_arrays_cannot_be_changed() -> None:
    layer = draw(chip_of(3, **FULL), SQUARE).layers[0]
    with pytest.raises(ValueError, match="read-only"):
        layer.tau_m[0] = 2.0
    assert layer.gain is not None
    with pytest.raises(ValueError, match="read-only"):
        layer.gain[0, 0] = 2


def test_other_seeds_are_other_chips() -> None:
    a, b = (draw(chip_of(s, **FULL), SQUARE).layers[0] for s in (1, 2))
    assert not np.array_equal(a.tau_m, b.tau_m)
    assert identity_hash(chip_of(1, **FULL)) != identity_hash(chip_of(2, **FULL))
    assert identity_hash(chip_of(1, **FULL)) == identity_hash(chip_of(1, **FULL))
    assert identity_hash(chip_of(1)) != identity_hash(chip_of(1, **FULL))


# --- the file ----------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """An identity in a file."""
    path = tmp_path / "one.yaml"
    save(chip_of(3, **FULL), path)
    return path


def test_an_identity_is_loaded_as_the_chip_it_was(kept: Path) -> None:
    chip = chip_of(3, **FULL)
    assert Chip.load(str(kept)) == chip
    assert identity_hash(Chip.load(str(kept))) == identity_hash(chip)
    assert Chip.load("one.yaml", base=kept.parent) == chip
    assert draw(Chip.load(str(kept)), SQUARE) is draw(chip, SQUARE)  # cached by what it is


def test_a_name_that_is_a_number_survives(tmp_path: Path) -> None:
    chip = Chip.model_validate({**chip_of(3).model_dump(), "name": "1e5"})
    save(chip, tmp_path / "one.yaml")
    assert Chip.load(str(tmp_path / "one.yaml")).name == "1e5"


def test_an_identity_may_be_laid_out_anew_but_not_changed(kept: Path) -> None:
    text = kept.read_text()
    kept.write_text(text.replace("mismatch: 0.1,", "mismatch:   1e-1,") + "# mine\n")
    assert Chip.load(str(kept)) == chip_of(3, **FULL)
    for old, new in (
        ("mismatch: 0.1,", "mismatch: 0.11,"),
        ("seed: 3\n", "seed: 4\n"),
        ("drawing: 1", "drawing: 2"),
        ("name: ideal", "name: better"),
        ("dead: 0.01", "dead: 0.01, more: 1"),
    ):
        assert old in text
        kept.write_text(text.replace(old, new, 1))
        with pytest.raises(FileMistakes, match="not the hash of what the file says") as caught:
            Chip.load(str(kept))
        (mistake,) = caught.value.mistakes
        assert (mistake.key, mistake.line) == ("sha256", 3)


def test_an_identity_without_its_hash_or_of_another_version(kept: Path) -> None:
    text = kept.read_text()
    lines = text.splitlines(keepends=True)
    kept.write_text("".join(line for line in lines if not line.startswith("sha256")))
    with pytest.raises(FileMistakes, match="sha256: found nothing"):
        Chip.load(str(kept))
    kept.write_text(text.replace("hwgle/identity/1", "hwgle/identity/9"))
    with pytest.raises(FileMistakes):
        Chip.load(str(kept))


def test_a_seed_after_an_identity_is_a_mistake(kept: Path) -> None:
    with pytest.raises(FileMistakes, match="it holds its seed"):
        Chip.load(f"{kept}:3")


def test_an_identity_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        save(chip_of(), tmp_path / "file" / "one.yaml")


# --- twins -------------------------------------------------------------------------------------


def twin(network: Network, **changes: Any) -> Chip:
    """A chip of which some things were measured with that network."""
    n, m = network.layers[0].size, network.inputs
    first = MeasuredLayer(
        tau_m=tuple(0.5 + 0.1 * k for k in range(n)),
        activation_gain=(0.0, *(1.0 + 0.01 * k for k in range(n - 1))),
        synapse_gain=encode(np.arange(n * m).reshape(n, m) - 5),
    )
    layers = (first, *(MeasuredLayer() for _ in network.layers[1:]))
    measured = Measured(network=shape_hash(network), layers=layers, input_gain=(1.5,) * m)
    data = {**chip_of(3, **FULL).model_dump(), "measured": measured.model_dump() | changes}
    return Chip.model_validate(data)


def test_measured_numbers_take_the_place_of_drawn_ones(tmp_path: Path) -> None:
    network = network_of(4, 2)
    chip = twin(network)
    save(chip, tmp_path / "twin.yaml")
    assert Chip.load(str(tmp_path / "twin.yaml")) == chip
    found, plain = draw(chip, network), draw(chip_of(3, **FULL), network)
    first = found.layers[0]
    assert first.tau_m.tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert first.dead.tolist() == [True, False, False, False]
    assert first.gain is not None
    assert np.array_equal(first.gain, np.arange(12).reshape(4, 3) - 5)
    assert found.input_gain.tolist() == [1.5] * 3
    assert np.array_equal(first.readout_gain, plain.layers[0].readout_gain)
    same(found.layers[1], plain.layers[1], 2, 4)


def test_a_twin_is_of_one_network() -> None:
    chip = twin(network_of(4, 2))
    for other in (network_of(4, 3), network_of(4, 2, inputs=2), network_of(4, 2, 2)):
        with pytest.raises(UsageError, match="another shape"):
            draw(chip, other)
    short = MeasuredLayer(tau_r=(1.0,))
    for layers, text in (((short, MeasuredLayer()), "tau_r for 4"), ((), "0 layers for 2")):
        network = network_of(4, 2)
        wrong = twin(network, layers=[y.model_dump() for y in layers])
        with pytest.raises(UsageError, match=text):
            draw(wrong, network)
