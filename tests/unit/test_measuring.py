"""Calibration on the bench: planted chips, known only through their read-outs.

Every chip here is sealed: the measurement gets a device that does nothing but load, write
and read rates, images that name the chip as designed, and the data sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwgle.accuracy import sqnr
from hwgle.calibrate import calibrate
from hwgle.chip import Chip
from hwgle.device import Block, Records
from hwgle.devices.emulator import Emulator
from hwgle.errors import FileMistakes, UsageError
from hwgle.identity import Draws, draw, factors, identity_hash, stuck
from hwgle.measuring import Calibration, Estimate, measure, prepare, residuals
from hwgle.measuring.bench import nominal
from hwgle.measuring.regression import MINUS, NORMAL, PLUS, ZERO
from hwgle.measuring.twin import builder
from hwgle.network import Network
from hwgle.quantise import Image, Quantised, Scales, build_image
from hwgle.reference import Reference
from hwgle.session import run
from hwgle.weights import initial

SIZE, INPUTS, DT = 12, 3, 0.1
PHIS = ("linear", "tanh", "sigmoid", "softplus", "relu")

# All that a chip can be off by; 8-bit read-out, 6-bit weights.
SPREAD: dict[str, dict[str, Any]] = {
    "weight": {"bits": 6, "stored_bits": 6, "mismatch": 0.1},
    "input": {"bits": 8, "offset": 1.0},
    "leak": {"mismatch": 0.15, "tracks": False},
    "activation": {"gain": 0.1, "offset": 0.1},
    "readout": {"bits": 8, "offset": 1.0},
}
NOISE: dict[str, dict[str, Any]] = {
    "membrane": {"noise": 0.005},
    "readout": {"noise": 0.5},
}
CHIPS: dict[str, dict[str, dict[str, Any]]] = {
    "all": {},
    "fine": {"weight": {"bits": 14, "stored_bits": 16}, "readout": {"bits": 14}},
    "tracks, leak 6 bits": {"leak": {"tracks": True, "bits": 6}},
    "dead and stuck": {
        "weight": {"stuck_zero": 0.03, "stuck_full": 0.02},
        "activation": {"dead": 0.06},
    },
    "noise": NOISE,
    "8-bit rates, scale of a neuron": {
        "rate": {"bits": 8},
        "weight": {"scale": "neuron", "distribution": "normal"},
    },
    "two gains": {"readout": {"gain": 0.03}, "input": {"gain": 0.03}},
}


def planted(name: str, seed: int = 3) -> Chip:
    data = Chip.load("ideal").model_dump()
    for changes in (SPREAD, CHIPS[name]):
        for part, values in changes.items():
            data[part] |= values
    return Chip.model_validate({**data, "seed": seed})


def network(phis: tuple[str, ...] = PHIS, size: int = SIZE, inputs: int = INPUTS) -> Network:
    taus = [(0.6, 0.2), (0.2, 0.2), (0.2, 0.6)]
    layers = [
        {
            "name": f"l{k}",
            "phi": phi,
            "populations": [
                {"size": size // 3, "tau_m": tau_m, "tau_r": tau_r} for tau_m, tau_r in taus
            ],
        }
        for k, phi in enumerate(phis)
    ]
    return Network.model_validate(
        {
            "format": "hwgle/network/1",
            "name": "planted",
            "dt": DT,
            "inputs": inputs,
            "loss": "mse",
            "layers": layers,
        }
    )


class Sealed(Emulator):
    """A chip of which nothing but rates can be read."""

    def run(self, block: Block, adam: Any = None) -> Records:
        assert all(signal == "r" for _, signal in block.record)
        return super().run(block)

    def _hidden(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a bench cannot do this")

    read_weights = snapshot = restore = counters = read_gradient = _hidden
    digest = stream_digests = weights_digest = _hidden


def sealed(chip: Chip) -> Callable[[Network, Scales], Image]:
    designed = nominal(chip.profile)
    return lambda n, s: replace(build_image(n, chip, s), chip=designed)


@cache
def measured(name: str, seed: int = 3) -> Calibration:
    chip = planted(name, seed)
    with Sealed() as device:
        return measure(device, sealed(chip), chip.profile, network(), identity=identity_hash(chip))


def truth(own: Any) -> dict[str, NDArray[np.float64]]:
    return {
        "gain": np.where(own.dead, 0.0, own.activation_gain * own.readout_gain),
        "offset": own.activation_offset,
        "readout_offset": own.readout_offset,
        "tau_m": own.tau_m,
        "tau_r": own.tau_r,
    }


def drawn(name: str, seed: int = 3) -> Draws:
    return draw(planted(name, seed), network())


def received(c: Calibration, draws: Draws, k: int) -> Iterator[NDArray[np.float64]]:
    """What layer k gets of one unit that is shown (or sent) below: estimated, planted."""
    own, there = c.layers[k], draws.layers[k]
    assert own.synapse is not None
    assert there.gain is not None
    if k:
        yield own.synapse.value / c.layers[k - 1].readout_gain.value
        yield factors(there.gain) / draws.layers[k - 1].readout_gain
    else:
        yield own.synapse.value * c.input_gain.value
        yield factors(there.gain) * draws.input_gain


# --- what was planted --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHIPS)
def test_planted_values_are_recovered(name: str) -> None:
    """Gains and time constants within 2 %; offsets within a quarter LSB of the ADC."""
    c, draws = measured(name), drawn(name)
    noisy = name == "noise"
    coarse = planted(name).adc_drop == 0  # what the ADC adds to a whole LSB is rounded to one
    for own, there, curve in zip(c.layers, draws.layers, c.curves, strict=True):
        assert np.array_equal(own.dead, there.dead)
        living, want = ~there.dead, truth(there)
        for key in ("gain", "tau_m", "tau_r"):
            ratio = getattr(own, key).value[living] / want[key][living]
            assert np.abs(ratio - 1).max() < 0.02, (curve.phi, key)
        off = np.abs(own.offset.value - want["offset"])[living]
        # A sigmoid's slope is a quarter at most: its LSB is worth more of the membrane.
        lsb = curve.lsb * (4.0 if curve.phi == "sigmoid" else 1.0)
        assert off.max() < (0.5 if noisy else 0.25) * lsb, curve.phi
        off = np.abs(own.readout_offset.value - want["readout_offset"])[living]
        assert off.max() < (0.6 if coarse else 0.25), curve.phi


@pytest.mark.parametrize("name", CHIPS)
def test_synapses_are_recovered(name: str) -> None:
    """What a layer receives: each synapse of living neurons to 2 % rms, stuck ones exactly."""
    c, draws = measured(name), drawn(name)
    for k, (own, there) in enumerate(zip(c.layers, draws.layers, strict=True)):
        assert own.stuck is not None
        assert there.gain is not None
        got, want = received(c, draws, k)
        seen = ~there.dead[:, None] & np.ones_like(stuck(there.gain))
        if k:
            seen &= ~draws.layers[k - 1].dead
        off = (got - want)[seen & ~stuck(there.gain)]
        # relu and softplus drive with half of their range, and less of it is read
        assert np.sqrt(np.mean(off**2)) < (0.03 if name == "noise" else 0.02), k
        is_stuck, value = stuck(there.gain), -there.gain.astype(int) - 8192
        kind = np.select([~is_stuck, value == 0, value > 0], [NORMAL, ZERO, PLUS], MINUS)
        assert np.array_equal(own.stuck[seen], kind[seen])


def test_input_offsets_are_recovered() -> None:
    for name in CHIPS:
        c, draws = measured(name), drawn(name)
        off = np.abs(c.input_offset.value - draws.input_offset)
        assert np.all(off < 4 * c.input_offset.error)
        assert off.max() < 0.15  # LSB of the DAC


def test_standard_errors_are_honest() -> None:
    """Deviations over their errors have mean 0 and variance 1, over neurons and chips."""
    scores: dict[str, list[NDArray[np.float64]]] = {}
    for name in ("all", "noise", "two gains"):
        for seed in (3, 4, 5):
            c, draws = measured(name, seed), drawn(name, seed)
            for k, (own, there) in enumerate(zip(c.layers, draws.layers, strict=True)):
                for key, want in truth(there).items():
                    e = getattr(own, key)
                    scores.setdefault(key, []).append((e.value - want) / e.error)
                if name != "two gains":  # there products are known, their factors are not
                    got, want = received(c, draws, k)
                    assert own.synapse is not None
                    scores.setdefault("synapse", []).append(
                        ((got - want) / own.synapse.error).ravel()
                    )
    for key, parts in scores.items():
        z = np.concatenate(parts)
        assert 0.8 < np.sqrt(np.mean(z**2)) < 1.3, key
        assert abs(z.mean()) < 0.25, key
        assert np.mean(np.abs(z) > 3.5) < 0.02, key


def test_the_split_of_two_gains_is_honest() -> None:
    z = []
    for seed in (3, 4, 5):
        c, draws = measured("two gains", seed), drawn("two gains", seed)
        for own, there in zip(c.layers, draws.layers, strict=True):
            z.append((own.readout_gain.value - there.readout_gain) / own.readout_gain.error)
            assert own.readout_gain.error.max() <= 0.03 + 1e-3  # never worse than the data sheet
    assert 0.75 < np.sqrt(np.mean(np.concatenate(z) ** 2)) < 1.3


@pytest.mark.parametrize(
    ("part", "change", "within"),
    [
        ("readout", {"bits": 4}, 0.15),
        ("rate", {"bits": 4}, 0.15),
        ("membrane", {"bits": 16}, 0.02),
        ("membrane", {"range": 1.0}, 0.04),
        ("leak", {"bits": 2}, 0.02),
        ("weight", {"bits": 2, "stored_bits": 2}, 0.02),
        ("activation", {"gain": 0.3, "offset": 0.5}, 0.05),
    ],
)
def test_poor_chips_have_wider_error_bars(part: str, change: dict[str, Any], within: float) -> None:
    """Coarse converters and membranes cost precision, and the errors say so."""
    data = planted("all").model_dump()
    data[part] |= change
    chip = Chip.model_validate(data)
    with Sealed() as device:
        c = measure(device, sealed(chip), chip.profile, network())
    z, off = [], []
    for own, there in zip(c.layers, draw(chip, network()).layers, strict=True):
        for key, want in truth(there).items():
            e = getattr(own, key)
            z.append((e.value - want)[~own.dead] / e.error[~own.dead])
        off.append(own.gain.value - truth(there)["gain"])
    assert 0.6 < np.sqrt(np.mean(np.concatenate(z) ** 2)) < 1.5
    assert np.sqrt(np.mean(np.concatenate(off) ** 2)) < within


def test_more_effort_is_more_precise() -> None:
    chip = planted("noise")
    with Sealed() as device:
        long = measure(device, sealed(chip), chip.profile, network(), effort=4)
    ratio = [
        np.median(b.gain.error) / np.median(a.gain.error)
        for a, b in zip(measured("noise").layers, long.layers, strict=True)
    ]
    assert 0.35 < np.mean(ratio) < 0.65


@pytest.mark.parametrize("name", ["all", "dead and stuck", "noise"])
def test_progress_ends_with_the_last_step(name: str) -> None:
    told: list[tuple[int, int]] = []
    chip = planted(name)
    with Sealed() as device:
        c = measure(
            device, sealed(chip), chip.profile, network(("tanh", "linear"), 3, 7),
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert told == sorted(told)
    assert told[-1] == (c.steps, c.steps)


def test_an_ideal_chip_has_nothing_to_measure() -> None:
    chip = Chip.load("ideal")
    with Sealed() as device:
        c = measure(device, sealed(chip), chip.profile, network())
    for own in c.layers:
        assert np.all(own.gain.value == 1)
        assert not own.gain.error.any()
        assert own.synapse is None
    assert c.not_observable(chip.profile) == []
    assert c.twin(chip.profile).measured.layers[0].tau_m == ()


# --- twins -------------------------------------------------------------------------------------


def waves(seed: int, steps: int, streams: int, inputs: int = INPUTS) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    shape = (1, streams, inputs)
    t = np.arange(steps)[:, None, None]
    return np.asarray(np.sin(t * rng.uniform(0.03, 0.3, shape) + rng.uniform(0, 6, shape)))


@pytest.mark.parametrize("name", CHIPS)
def test_a_twin_predicts_unseen_streams(name: str) -> None:
    """20 dB better than the chip as designed, in every layer."""
    chip, net = planted(name), network()
    twin = measured(name).twin(chip.profile)
    weights, x = initial(net, 7, gain=1.5), waves(8, 300, 3)
    scales = calibrate(net, nominal(chip.profile), weights, x)
    with Emulator() as device:
        left = residuals(device, builder(chip), twin, net, weights, scales, x)
    for one in left:
        assert np.isfinite(one.repeated) == (name == "noise")
        # With rates of 8 bits inside, rounding alone leaves no more than some 35 dB.
        rounded = chip.rate.bits == 8 and one.twin > 33
        assert one.better > 20 or rounded or one.twin > one.repeated - 6, one


def test_a_twin_is_an_identity(tmp_path: Path) -> None:
    from hwgle.identity import save

    chip = planted("dead and stuck")
    twin = measured("dead and stuck").twin(chip.profile)
    save(twin, tmp_path / "twin.yaml")
    again = Chip.load(str(tmp_path / "twin.yaml"))
    assert identity_hash(again) == identity_hash(twin) != identity_hash(chip)
    dead = draw(again, network()).layers[0].dead
    assert np.array_equal(dead, drawn("dead and stuck").layers[0].dead)
    with pytest.raises(UsageError, match="another shape"):
        draw(again, network(("tanh", "linear")))


def test_a_twin_holds_what_an_identity_can() -> None:
    """Whatever was measured; and no neuron that lives is built dead."""
    chip, c = planted("two gains"), measured("two gains")
    for value in (1e6, -1e6):
        wild = Estimate(np.full(SIZE, value), np.ones(SIZE))
        tau = Estimate(np.abs(wild.value) if value > 0 else 1 / np.abs(wild.value), wild.error)
        layers = [
            replace(own, activation_gain=wild, readout_gain=wild, offset=wild, tau_m=tau, tau_r=tau,
                    readout_offset=wild)
            for own in c.layers
        ]  # fmt: skip
        few = Estimate(wild.value[:INPUTS], wild.error[:INPUTS])
        made = replace(c, layers=tuple(layers), input_gain=few, input_offset=few)
        twin = made.twin(chip.profile)
        assert Chip.model_validate(twin.model_dump()) == twin
        draws = draw(twin, network())
        assert not any(own.dead.any() for own in draws.layers)
        weights = initial(network(), 1)
        assert build_image(network(), twin, calibrate(network(), twin, weights, waves(1, 50, 1)))


def test_input_offsets_behind_a_dac_without_gain() -> None:
    """The offset is added behind the gain: it is measured where there is no gain at all."""
    data = Chip.load("ideal").model_dump()
    data["input"] |= {"bits": 8, "offset": 1.0, "gain": 1.0}
    for seed in range(50):
        chip = Chip.model_validate({**data, "seed": seed})
        draws = draw(chip, network(("tanh",), 12))
        if (draws.input_gain == 0).any():
            break
    with Sealed() as device:
        c = measure(device, sealed(chip), chip.profile, network(("tanh",), 12))
    assert np.abs(c.input_gain.value - draws.input_gain).max() < 0.02
    assert np.abs(c.input_offset.value - draws.input_offset).max() < 0.3


# --- corrections -------------------------------------------------------------------------------


def ideal(net: Network, weights: dict[str, NDArray[np.float64]], x: NDArray[np.float64]) -> Any:
    return Reference(net, weights, batch=x.shape[1]).run(x)["output"]


@pytest.mark.parametrize(("name", "per", "least"), [("fine", "synapse", 20), ("fine", "neuron", 3)])
def test_corrections_bring_a_chip_to_what_was_asked(name: str, per: str, least: float) -> None:
    """Of a chip with fine converters all but the stuck and the dead can be corrected."""
    chip, net = planted(name), network(size=12)
    weights, x = initial(net, 7, gain=1.5), waves(9, 400, 3)
    want = ideal(net, weights, x)[50:]
    c = measured(name)
    with Emulator() as device:
        plain = run(device, net, chip, weights, x).signals["output"][50:]
        done = prepare(c, chip, net, weights, lambda n, w: calibrate(n, chip, w, x))
        if per == "neuron":
            lsb = 2.0**-done.scales.input
            done = replace(done, corrected=c.correct(net, weights, input_lsb=lsb, per=per))
        result = run(device, done.network, chip, done.weights, x, scales=done.scales)
        right = done.result(result).signals["output"][50:]
    assert sqnr(want, right) > sqnr(want, plain) + least
    votes = done.votes(result.signals["output"].sum(axis=0, dtype=np.float64), len(x))
    assert np.allclose(votes, done.result(result).signals["output"].sum(axis=0), atol=1e-2)


def test_time_constants_asked_for_are_allowed() -> None:
    """None below dt, and instantaneous neurons stay instantaneous."""
    net = network()
    for name in CHIPS:
        corrected = measured(name).correct(net, initial(net, 7)).network
        Network.model_validate(corrected.model_dump())
        for asked, wanted, own in zip(
            corrected.layers, net.layers, measured(name).layers, strict=True
        ):
            assert asked.size == wanted.size
            made_m, made_r = asked.tau_m * own.tau_m.value, asked.tau_r * own.tau_r.value
            same = np.isclose(wanted.tau_m, wanted.tau_r)
            assert np.allclose(made_m[same], made_r[same], rtol=1e-4)
            free = ~same & (asked.tau_m > DT) & (asked.tau_r > DT)
            assert np.allclose(made_m[free], wanted.tau_m[free], rtol=1e-4)
            assert np.allclose(made_r[free], wanted.tau_r[free], rtol=1e-4)


def test_unknown_corrections_are_refused() -> None:
    net = network()
    with pytest.raises(UsageError, match="synapse, neuron"):
        measured("all").correct(net, initial(net, 1), per="row")
    other = network(("tanh", "linear"))
    with pytest.raises(UsageError, match="other sizes"):
        measured("all").correct(other, initial(other, 1))


# --- the file ----------------------------------------------------------------------------------


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    c = measured("dead and stuck")
    c.save(tmp_path / "a.npz")
    again = Calibration.load(tmp_path / "a.npz")
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert np.array_equal(again.layers[1].offset.value, c.layers[1].offset.value)
    assert again.facts == c.facts
    chip = planted("dead and stuck")
    again.check(chip, network())
    assert identity_hash(again.twin(chip.profile)) == identity_hash(
        Calibration.load(tmp_path / "b.npz").twin(chip.profile)
    )


def test_a_calibration_of_another_chip_or_network_is_refused() -> None:
    c = measured("all")
    with pytest.raises(FileMistakes, match="identity: found a calibration of the chip"):
        c.check(planted("all", 4), network())
    with pytest.raises(FileMistakes, match=r"network: found .* of 3 inputs and 12"):
        c.check(planted("all"), network(("tanh", "linear")))


@pytest.mark.parametrize("damage", ["cut", "missing", "shape", "nan", "format", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.npz"
    measured("all").save(path)
    if damage == "text":
        path.write_text("no archive")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    else:
        with np.load(path) as file:
            arrays = dict(file)
        if damage == "missing":
            del arrays["l0.offset"]
        elif damage == "shape":
            arrays["l0.offset"] = arrays["l0.offset"][:-1]
        elif damage == "nan":
            arrays["l0.offset"][0] = np.nan
        else:
            text = arrays["header"].tobytes().replace(b"calibration/1", b"calibration/9")
            arrays["header"] = np.frombuffer(text, dtype=np.uint8)
        np.savez(path, **arrays)
    with pytest.raises(FileMistakes, match="allowed: a calibration as"):
        Calibration.load(path)


def test_what_cannot_be_observed_is_said() -> None:
    lines = "\n".join(measured("two gains").not_observable(planted("two gains").profile))
    assert "only their product is seen" in lines
    assert "gain of an input DAC" in lines
    dead = measured("dead and stuck").not_observable(planted("dead and stuck").profile)
    assert any("dead neuron" in line for line in dead)
    noise = measured("noise").not_observable(planted("noise").profile)
    assert any("noise in time" in line for line in noise)


def test_no_noise_comes_twice() -> None:
    """Streams are numbered on through all sweeps: noise is drawn by number and step."""
    numbers: list[int] = []

    class Watched(Sealed):
        def reset(self, first: int = 0) -> None:
            numbers.append(first)
            super().reset(first)

    chip = planted("noise")
    with Watched() as device:
        measure(device, sealed(chip), chip.profile, network(("tanh", "linear"), 3))
    assert len(numbers) == len(set(numbers)) == 4  # two ranges, two layers' synapses
    assert min(numbers) >= 1 << 20  # and none of them is a run's


def test_weights_that_drift_are_written_again() -> None:
    writes: list[Quantised] = []

    class Watched(Sealed):
        def write_weights(self, weights: Quantised) -> None:
            writes.append(weights)
            super().write_weights(weights)

    net = network(("tanh", "linear"))
    data = planted("all").model_dump()
    data["weight"] |= {"drift": 2e4}
    chip = Chip.model_validate(data)
    with Watched() as device:
        c = measure(device, sealed(chip), chip.profile, net)
    draws = draw(chip, net)
    got, want = received(c, draws, 1)
    assert len(writes) > 50
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02
