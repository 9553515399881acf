"""Running in network units: what may not change a bit, and what must come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import Case, chip_with, random_case

from hwgle import session
from hwgle.chip import Chip
from hwgle.device import SIGNALS, Block
from hwgle.devices.emulator import Emulator
from hwgle.errors import UsageError
from hwgle.quantise import Scales, build_image, quantise_weights, to_float, to_int16
from hwgle.reference import Reference
from hwgle.session import Result, calibrate_on, combined_digest, run

IDEAL = Chip.load("ideal")


def case(loss: str, seed: int) -> Case:
    """A random case with this loss, several layers and streams."""
    for k in range(seed, seed + 200):
        found = random_case(k, layers=3, neurons=12, inputs=3, batch=9, steps=60)
        if found.network.loss == loss and found.batch > 4 and len(found.network.layers) > 1:
            return found
    raise AssertionError("no such case")


def run_case(c: Case, chip: Chip = IDEAL, **options: Any) -> Result:
    """A run of a case on an emulator of its own."""
    with Emulator() as device:
        return run(device, c.network, chip, c.weights, c.x, c.target, **options)


def same(a: Result, b: Result) -> None:
    """Every bit that comes back is equal."""
    first, second = a.arrays(), b.arrays()
    assert first.keys() == second.keys()
    for key in first:
        assert np.array_equal(first[key], second[key]), key


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_groups_of_streams_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, seed: int, loss: str
) -> None:
    c = case(loss, seed)
    whole = run_case(c, record=SIGNALS)
    for group in (1, 2, 3, c.batch - 1):
        monkeypatch.setattr(session, "GROUP", group)
        same(run_case(c, record=SIGNALS, scales=calibrated(c)), whole)


def test_groups_of_streams_do_not_matter_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream keeps its number, by which its noise is drawn."""
    c = case("mse", 1)
    data = IDEAL.model_dump()
    data["membrane"]["noise"], data["readout"]["noise"] = 0.01, 2.0
    chip = Chip.model_validate(data)
    whole = run_case(c, chip, record=("r",))
    assert np.any(whole.signals["output"] != run_case(c, record=("r",)).signals["output"])
    for group in (1, c.batch - 2):  # reset between them; and loaded anew for the last
        monkeypatch.setattr(session, "GROUP", group)
        same(run_case(c, chip, record=("r",), scales=calibrated(c, chip)), whole)


def calibrated(c: Case, chip: Chip = IDEAL, learning: bool = False) -> Scales:
    return calibrate_on(c.network, chip, c.weights, c.x, c.target, learning)


@pytest.mark.parametrize("learning_rate", [0.0, 0.05])
def test_pieces_of_a_run_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, seed: int, learning_rate: float
) -> None:
    c = case("cross_entropy", seed + 1000)
    whole = run_case(c, record=("r", "e"), learning_rate=learning_rate)
    pieces = session._pieces
    for most in (1, 2, 1000):
        monkeypatch.setattr(
            session, "_pieces", lambda steps, _, looks, most=most: pieces(steps, most, looks)
        )
        same(run_case(c, record=("r", "e"), learning_rate=learning_rate), whole)


def test_pieces_cover_every_step_once() -> None:
    for steps in (1, 2, 15, 16, 17, 360, 5000):
        looks = [t for t in (0, 1, 14, 16, 359, 4999) if t < steps]
        parts = list(session._pieces(steps, 64, looks))
        assert [a for a, _, _ in parts] == [0, *(b for _, b, _ in parts[:-1])]
        assert parts[-1][1] == steps
        assert all(b > a for a, b, _ in parts)
        assert [(a, b) for a, b, look in parts if look] == [(t, t + 1) for t in looks]


@pytest.mark.parametrize("learning_rate", [0.0, 0.05])
def test_recording_changes_nothing(seed: int, learning_rate: float) -> None:
    c = case("mse", seed + 2000)
    quiet = run_case(c, learning_rate=learning_rate)
    loud = run_case(c, record=SIGNALS, learning_rate=learning_rate)
    assert quiet.digest == loud.digest
    assert set(quiet.signals) == {"output"}
    assert np.array_equal(quiet.signals["output"], loud.signals["output"])


def test_scales_of_a_run_reproduce_it(seed: int) -> None:
    c = case("cross_entropy", seed + 3000)
    first = run_case(c)
    scales = Scales.from_array(first.scales.to_array())
    again = run_case(c, scales=scales)
    same(first, again)
    assert first.scales == calibrated(c)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_signals_are_those_of_the_core(seed: int, loss: str) -> None:
    c = case(loss, seed + 4000)
    chip = chip_with(seed=7)
    result = run_case(c, chip, record=SIGNALS)
    scales = calibrated(c, chip)
    image = build_image(c.network, chip, scales, batch=c.batch)
    pairs = [(k, s) for k in range(len(c.network.layers)) for s in SIGNALS]
    x, _ = to_int16(c.x, scales.input, chip.input_max)
    y = c.target.astype(np.int16)
    if loss == "mse":
        y, _ = to_int16(c.target, scales.target, 32767)
    with Emulator() as device:
        device.load(image, c.batch)
        device.write_weights(quantise_weights(image, c.weights))
        records = device.run(Block(x, y, record=pairs))
        assert device.digest() == result.digest
        assert np.array_equal(device.stream_digests(), result.stream_digests)
        counters = device.counters()
    assert counters == result.counters
    for (k, s), values in zip(pairs, records.signals, strict=True):
        f = scales.layers[k]
        bits = {"r": f.rate, "e": f.error, "v": f.error + f.error_extra}.get(s, f.membrane)
        name = c.network.layers[k].name
        want = to_float(values, bits).astype(np.float32)
        assert np.array_equal(result.signals[f"{name}.{s}"], want), (name, s)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_signals_are_near_float(seed: int, loss: str) -> None:
    c = case(loss, seed + 5000)
    result = run_case(c)
    oracle = Reference(c.network, c.weights, c.batch)
    output = oracle.run(c.x, c.target, record=())["output"]
    error = np.square(result.signals["output"] - output).sum()
    assert 10 * np.log10(np.square(output).sum() / error) > 40


def test_learning_on_the_chip(seed: int) -> None:
    c = case("cross_entropy", seed + 6000)
    still = run_case(c)
    learned = run_case(c, learning_rate=0.05, seed=1)
    assert still.rate == 0.0
    assert learned.rate > 0.0
    assert sum(n["updates"] for n in learned.counters) > 0
    assert sum(n["updates"] for n in still.counters) == 0
    moved = [k for k in still.weights if not np.array_equal(still.weights[k], learned.weights[k])]
    assert moved
    assert run_case(c, learning_rate=0.05, seed=1).digest == learned.digest
    assert run_case(c, learning_rate=0.05, seed=2).digest != learned.digest


def test_silent_layers_are_named() -> None:
    c = case("mse", 1)
    first = c.network.layers[0].name
    layers = tuple(layer.model_copy(update={"phi": "relu"}) for layer in c.network.layers)
    network = c.network.model_copy(update={"layers": layers, "gamma": 0.0})
    weights = {k: w.copy() for k, w in c.weights.items()}
    weights[f"{first}.weight"][:] = 0
    weights[f"{first}.bias"][:] = -1
    for layer in layers[1:]:
        weights[f"{layer.name}.bias"][:] = 1
    with Emulator() as device:
        assert run(device, network, IDEAL, weights, c.x).silent == (first,)


def test_digest_of_groups_is_that_of_the_batch(seed: int) -> None:
    c = case("mse", seed + 7000)
    result = run_case(c)
    steps = c.x.shape[0]
    with Emulator() as device:
        device.load(build_image(c.network, IDEAL, calibrated(c)), 1)
        stored = quantise_weights(build_image(c.network, IDEAL, calibrated(c)), c.weights)
        device.write_weights(stored)
        weights_digest = device.weights_digest()
    assert combined_digest(weights_digest, steps, result.stream_digests) == result.digest


def test_progress_reaches_the_end(seed: int) -> None:
    c = case("mse", seed)
    seen: list[tuple[int, int]] = []
    run_case(c, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == c.x.shape[0] * c.batch
    assert seen == sorted(seen)


def test_what_does_not_fit_is_refused(seed: int) -> None:
    c = case("cross_entropy", seed)
    with Emulator() as device:
        for x, y, options in (
            (c.x[0], c.target, {}),
            (c.x[:0], c.target, {}),
            (c.x, c.target[:-1], {}),
            (c.x, c.target, {"record": ["q"]}),
            (c.x, c.target, {"scales": Scales(0, 0, calibrated(c).layers[:1])}),
        ):
            with pytest.raises(UsageError):
                run(device, c.network, IDEAL, c.weights, x, y, **options)
