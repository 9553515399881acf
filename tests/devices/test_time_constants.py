"""Time constants that are learned: their gradient, Adam on them, what is written and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import Case, draw_run, draw_weights, make_network, quantised

from hwgle import weights as weights_file
from hwgle.chip import Chip
from hwgle.device import Block, Device
from hwgle.devices import open_device
from hwgle.devices.emulator import Emulator
from hwgle.errors import DeviceRefused, FileMistakes, UsageError
from hwgle.learning.adam import Learner
from hwgle.packing import coefficient, times
from hwgle.quantise import quantise_weights
from hwgle.reference import Reference
from hwgle.snapshot import differences, pieces, place

BODIES = [
    pytest.param("host:", marks=pytest.mark.board("cc")),
    pytest.param(
        "qemu:stm32f405", marks=pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
    ),
]
DROP = 12


def make_case(seed: int, batch: int = 3, steps: int = 60, **layer: Any) -> Case:
    """Three layers; the first two learn their tau_m, the second nothing else."""
    rng = np.random.default_rng(seed)
    plain = make_network([7, 5, 2], ["tanh", "softplus", "linear"], rng, inputs=2, beta=0.3)
    layers = [y.model_copy(update={"learn_tau_m": k < 2}) for k, y in enumerate(plain.layers)]
    layers[1] = layers[1].model_copy(update={"learn": False})
    layers[0] = layers[0].model_copy(update=layer)
    network = plain.model_copy(update={"layers": tuple(layers)})
    return Case(seed, network, draw_weights(network, rng), *draw_run(network, rng, steps, batch))


def loaded(device: Device, case: Case, q: Any) -> Device:
    device.load(q.image, case.batch, gradient=True)
    device.write_weights(quantise_weights(q.image, case.weights))
    return device


@pytest.mark.parametrize("kernels", ["scalar", "avx2", "vnni", "amx"])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_the_gradient_is_the_exact_sum_over_streams_and_steps(kernels: str, batch: int) -> None:
    case = make_case(5, batch=batch)
    q = quantised(case, Chip.load("ideal"))
    try:
        device: Device = Emulator(kernels)
    except UsageError:
        pytest.skip(f"no {kernels} here")
    loaded(device, case, q)
    want = {0: np.zeros(7, dtype=object), 1: np.zeros(5, dtype=object)}
    device.clear_gradient(4)
    u = {k: np.zeros((batch, n), dtype=object) for k, n in ((0, 7), (1, 5))}
    for t in range(len(q.input)):
        record = [(k, s) for k in (0, 1) for s in ("e", "u")]
        one = Block(q.input[t : t + 1], q.target[t : t + 1], record=record, gradient=True)
        e0, u0, e1, u1 = (x[0].astype(object) for x in device.run(one).signals)
        for k, e, new in ((0, e0, u0), (1, e1, u1)):
            exact = (e * (new - u[k])).sum(axis=0)
            want[k] += (exact + (1 << (DROP - 1))) >> DROP
            u[k] = new
    got = device.read_gradient()
    assert got[2].tau.size == 0
    for k in (0, 1):
        assert np.any(want[k])
        assert np.array_equal(got[k].tau.astype(object), want[k])


def test_the_gradient_is_that_of_the_equations() -> None:
    """Against float64, summed over a run: within what 14 bits of e allow."""
    case = make_case(6, batch=4, steps=80)
    q = quantised(case, Chip.load("ideal"))
    reference = Reference(case.network, case.weights, case.batch)
    want = {"l0.tau_m": np.zeros(7), "l1.tau_m": np.zeros(5)}
    for x, y in zip(case.x, case.target, strict=True):
        reference.step(x, y)
        for name, g in reference.gradient(("tau_m",), learned_only=False).items():
            if name in want:
                want[name] += g
    with Emulator() as device:
        loaded(device, case, q).clear_gradient()
        device.run(Block(q.input, q.target, gradient=True))
        formats = device.formats()
        for k, g in enumerate(device.read_gradient()[:2]):
            frac = g.bias_frac + formats[k].membrane - DROP
            got = -np.ldexp(g.tau.astype(float), -frac) / (case.batch * case.network.dt)
            float_one = want[f"l{k}.tau_m"]
            assert np.linalg.norm(got - float_one) < 0.01 * np.linalg.norm(float_one)


@pytest.mark.parametrize("url", BODIES)
@pytest.mark.parametrize("bias", [True, False])
def test_adam_learns_the_same_time_constants_everywhere(url: str, bias: bool) -> None:
    case = make_case(7, batch=1 if "qemu" in url else 3, steps=30, bias=bias)
    q = quantised(case, Chip.load("ideal"), range_every=16, seed=3)
    block = Block(q.input, q.target, ranging=True)
    ended = []
    for where in ("emu:", url):
        with open_device(where) as device:
            rule = Learner()
            rule.begin(device, q.image, case.batch, case.weights)
            rule.set_rate(0.01)
            rule.run(block)
            ended.append((device.snapshot(), device.weights_digest(), rule.state()))
            learned = rule.weights()
            stored = device.read_weights()
    assert learned is not None
    for k, layer in enumerate(case.network.layers[:2]):
        assert np.all(learned[f"{layer.name}.tau_m"] != layer.tau_m), k
    before = quantise_weights(q.image, case.weights, stored=False)
    assert np.array_equal(stored["l1"][0], before["l1"][0])
    assert np.array_equal(stored["l0"][1], before["l0"][1]) is not bias
    (a, digest, state), (b, other, state_b) = ended
    assert a == b
    assert digest == other
    assert all(np.array_equal(state[key], state_b[key]) for key in state)


def test_time_constants_stay_between_their_limits() -> None:
    case = make_case(8)
    q = quantised(case, Chip.load("ideal"))
    with Emulator() as device:
        rule = Learner()
        rule._tau_floor, rule._tau_rate = 3.0, 1000.0
        rule.begin(device, q.image, case.batch, case.weights)
        rule.set_rate(0.1)
        rule.run(Block(q.input, q.target))
        found = rule.weights()
    assert found is not None
    dt = case.network.dt
    values = np.concatenate([found["l0.tau_m"], found["l1.tau_m"]])
    assert values.min() >= np.float32(3 * dt)
    assert values.min() == pytest.approx(3 * dt)
    for k in (0, 1):
        _, most = weights_file.times_between(case.network, k)
        assert np.all(found[f"l{k}.tau_m"] <= most * (1 + 1e-6))


def test_snapshots_hold_them() -> None:
    case = make_case(9)
    q = quantised(case, Chip.load("ideal"))
    network = q.image.network
    with Emulator() as one, Emulator() as other:
        loaded(one, case, q)
        loaded(other, case, q)
        before, digest = one.snapshot(), one.weights_digest()
        layer = network.layers[1]
        leak_v = np.array([coefficient(network.dt / t) for t in layer.tau_r], dtype=np.uint32)
        slower = (layer.tau_m * 1.5).astype(np.float32)
        words = times(network.dt, slower, layer.tau_r.astype(np.float32), leak_v)
        assert words[0, 0] == coefficient(float(np.float32(network.dt) / slower[0]))
        one.write_times({"l1": words})
        assert one.weights_digest() != digest
        found = differences(network, case.batch, before, one.snapshot())
        assert {d.kind for d in found} == {"multiplier"}
        assert place(network, found[0]) == "layer l1, neuron 0, multiplier leak_u"
        other.restore(one.snapshot())
        block = Block(q.input, q.target)
        one.run(block)
        other.run(block)
        assert one.snapshot() == other.snapshot()
        bad = bytearray(before)
        at = next(p.offset for p in pieces(network, case.batch) if p.kind == "multiplier")
        bad[at : at + 4] = b"\xff\xff\xff\xff"
        kept = one.snapshot()
        with pytest.raises(UsageError, match="snapshot"):
            one.restore(bytes(bad))
        assert one.snapshot() == kept
        words[2, 0] = 0xFFFFFF00
        with pytest.raises(UsageError, match="time constants of l1"):
            one.write_times({"l1": words})
        assert one.snapshot() == kept
        with pytest.raises(UsageError, match="time constants of l2"):
            one.write_times({"l2": words[:2]})


@pytest.mark.board("cc")
def test_a_board_refuses_bad_multipliers_and_changes_nothing() -> None:
    case = make_case(10)
    q = quantised(case, Chip.load("ideal"))
    with open_device("host:", shadow=False) as device:
        loaded(device, case, q)
        digest = device.digest()
        for layer, words in (("l0", np.full((7, 4), 0xFFFFFF00)), ("l2", np.full((2, 4), 257))):
            device.write_times({layer: words.astype(np.uint32)})
            with pytest.raises(DeviceRefused):
                device.digest()
        assert device.digest() == digest


def test_files_of_weights_may_bring_time_constants(tmp_path: Path) -> None:
    case = make_case(11)
    path = tmp_path / "w.npz"
    weights_file.save(path, case.weights)
    assert set(weights_file.load(path, case.network)) == set(case.weights)
    own = case.network.layers[0]
    taught = {**case.weights, "l0.tau_m": own.tau_m * 1.25}
    weights_file.save(path, taught)
    found = weights_file.load(path, case.network)
    network = weights_file.with_times(case.network, found)
    assert np.array_equal(network.layers[0].tau_m, own.tau_m * 1.25)
    assert np.array_equal(network.layers[0].tau_r, own.tau_r)
    assert network.layers[1] == case.network.layers[1]
    weights_file.save(path, {**taught, "l0.tau_m": own.tau_m * 0, "l2.tau_m": np.ones(2)})
    with pytest.raises(FileMistakes) as told:
        weights_file.load(path, case.network)
    text = str(told.value)
    assert "tau_m = 0 of neuron 0" in text
    assert "l2.tau_m" in text
