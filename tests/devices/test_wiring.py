"""Networks with skips, recurrence, masks and feedback of their own, from their files to a
body: near the float64 oracle, and the same bits everywhere while they learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import draw_topology

from hwgle import topology, weights
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices import open_device
from hwgle.devices.emulator import Emulator
from hwgle.errors import UsageError
from hwgle.experiment import Training
from hwgle.learning.adam import Learner
from hwgle.network import Network
from hwgle.quantise import Image, build_image, quantise_weights, to_int16
from hwgle.reference import Reference
from hwgle.session import run, weights_from

KINDS = ("transposed", "alignment", "kolen-pollack", "direct", "broadcast")
IDEAL = Chip.load("ideal")


def drawn(
    seed: int, kind: str, batch: int, steps: int = 60, sparse: bool | None = None
) -> tuple[Network, weights.Weights, Any, Any]:
    """A network without kinks whose signals stay small, smooth inputs, labels or targets."""
    rng = np.random.default_rng([seed, 31])
    network = draw_topology(rng, kind, smooth=True, sparse=sparse)
    w = {
        name: rng.normal(0, 0.4 / np.sqrt(shape[-1]), shape)
        for name, shape in weights.shapes(network).items()
    }
    weights.masked_away(network, w)
    start, more = rng.normal(0, 0.5, (2, 1, batch, network.inputs))
    x = start + more * np.sin(0.2 * np.arange(steps))[:, None, None]
    if network.loss == "cross_entropy":
        return network, w, x, rng.integers(0, network.outputs, batch)
    return network, w, x, 0.5 * rng.normal(size=(1, batch, network.outputs)).repeat(steps, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_chip_follows_the_oracle(kind: str, seed: int) -> None:
    """Rates and errors of every layer within the chip's resolution."""
    for case in range(4):
        network, w, x, y = drawn(seed + case, kind, batch=3)
        with Emulator() as device:
            got = run(device, network, IDEAL, w, x, y, record=("r", "e")).signals
        target = y if network.loss == "mse" else np.broadcast_to(y, (len(x), len(y)))
        want = Reference(network, w, 3).run(x, target, ("r", "e"))
        for name in (f"{layer.name}.{s}" for layer in network.layers for s in ("r", "e")):
            power = float(np.square(want[name]).mean())
            noise = float(np.square(got[name] - want[name]).mean())
            assert noise <= power * 10 ** -(4.0 if name.endswith("r") else 3.0), (case, name)


def image_of(network: Network, w: weights.Weights, x: Any, y: Any, chip: Chip) -> Image:
    scales = calibrate(network, chip, w, x, y, FOR_TRAINING)
    return build_image(
        network, chip, scales, batch=x.shape[1], learning_rate=0.02, range_every=16, seed=5
    )


def block_of(image: Image, x: Any, y: Any, **how: Any) -> Block:
    xi, _ = to_int16(x, image.scales.input, image.chip.input_max)
    if image.network.loss == "mse":
        return Block(xi, to_int16(y, image.scales.target, 32767)[0], **how)
    return Block(xi, y.astype(np.int16), **how)


def learned(url: str, image: Image, w: weights.Weights, x: Any, y: Any) -> tuple[Any, ...]:
    """All that is left after learning on a body, and what can be read of it."""
    with open_device(url, shadow=False) as device:
        device.load(image, x.shape[1], uhat=False)
        device.write_weights(quantise_weights(image, w))
        device.run(block_of(image, x, y, learn=True, ranging=True))
        read = device.read_weights()
        device.add_weights({name: (np.ones_like(a), b) for name, (a, b) in read.items()})
        stored = device.read_weights()
        floats = weights_from(image, stored, device.formats())
        flat = {name: (a.tolist(), b.tolist()) for name, (a, b) in stored.items()}
        return device.snapshot(), device.digest(), flat, sorted(floats)


LIMITED = Training(rule="adam", epochs=1, batch=3, learning_rate=0.02, weight_limit=0.25)

BODIES = [
    pytest.param("host:", 1, marks=pytest.mark.board("cc")),
    pytest.param("host:", 4, marks=pytest.mark.board("cc")),
    pytest.param(
        "qemu:stm32f405", 1, marks=pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
    ),
]


@pytest.mark.parametrize(("url", "batch"), BODIES)
def test_a_body_learns_the_bits_of_the_emulator(url: str, batch: int, seed: int) -> None:
    for case, kind in enumerate(KINDS):
        chip = Chip.load("mixed-signal:2") if case % 2 else IDEAL
        network, w, x, y = drawn(seed + case, kind, batch)
        image = image_of(network, w, x, y, chip)
        want = learned("emu:", image, w, x, y)
        assert learned(url, image, w, x, y) == want, kind
        assert want[3] == sorted(weights.shapes(network))


@pytest.mark.board("cc")
@pytest.mark.parametrize("kind", ["alignment", "kolen-pollack", "direct"])
def test_adam_on_the_host_is_that_of_the_emulator(kind: str, seed: int) -> None:
    for case in range(2):
        network, w, x, y = drawn(seed + case, kind, batch=3, sparse=True)
        image = image_of(network, w, x, y, IDEAL)
        ended = []
        for url in ("emu:", "host:"):
            with open_device(url, shadow=False) as device:
                rule = Learner(LIMITED if case else None)
                rule.begin(device, image, 3, w)
                rule.set_rate(0.02)
                rule.run(block_of(image, x, y))
                rule.sample_done()
                ended.append((device.snapshot(), rule.state(), device.read_weights()))
        (a, state_a, after), (b, state_b, _) = ended
        assert a == b
        for key in state_a:
            assert np.array_equal(state_a[key], state_b[key]), key
        first = quantise_weights(image, w, stored=False)
        for k, layer in enumerate(network.layers):
            assert not after[layer.name][0][~topology.mask(network, k)].any()
            back = f"{layer.name}.feedback"
            if back in first:
                same = np.array_equal(after[back][0], first[back][0])
                assert same == (kind != "kolen-pollack" or not layer.learn), back


def test_kolen_pollack_on_the_chip_follows_its_weights(seed: int) -> None:
    """Without decay both move by the same, but for a rounding each."""
    network, w, x, y = drawn(seed, "kolen-pollack", batch=4, steps=200)
    data = network.model_dump()
    data["feedback"]["decay"] = 0.0
    network = Network.model_validate(data)
    image = image_of(network, w, x, y, IDEAL)
    with Emulator() as device:
        device.load(image, 4)
        first = quantise_weights(image, w)
        device.write_weights(first)
        device.run(block_of(image, x, y, learn=True))
        after = device.read_weights()
    moved = 0
    for layer in network.layers:
        back = f"{layer.name}.feedback"
        if back in after:
            one = after[layer.name][0].astype(int) - first[layer.name][0]
            other = after[back][0].astype(int) - first[back][0]
            assert np.abs(one - other).max() < 8 * np.sqrt(200)
            moved = max(moved, int(np.abs(one).max()))
    assert moved > 100


def test_feedback_of_another_shape_is_refused(seed: int) -> None:
    network, w, x, y = drawn(seed, "alignment", batch=2)
    image = image_of(network, w, x, y, IDEAL)
    with Emulator() as device:
        device.load(image, 2)
        stored = quantise_weights(image, w)
        name = next(n for n in stored if n.endswith(".feedback"))
        stored[name] = stored[name][0][:, :-1], stored[name][1]
        with pytest.raises(UsageError, match="does not fit"):
            device.write_weights(stored)
