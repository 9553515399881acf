"""The rules that learn on the chip, on boards: every bit of what they do and remember."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from networks import make_network, quantised, random_case

from hwgle.chip import Chip
from hwgle.device import Block, Device
from hwgle.devices import open_device
from hwgle.devices.emulator import Emulator
from hwgle.devices.shadow import same_weights
from hwgle.errors import DeviceRefused
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.preflight.memory import BOARD, HOST, board_bytes
from hwgle.quantise import LayerScales, Scales, build_image, quantise_weights
from hwgle.snapshot import pieces
from hwgle.verify import Case, verify

IDEAL = Chip.load("ideal")
LEARNERS = {
    "sgd with momentum": OnChip("sgd", 3),
    "sgd, summed": OnChip("sgd", 0, 0, 7),
    "normalised": OnChip("normalised", 3, 10, 1, 16, 3),
    "normalised, summed": OnChip("normalised", 1, 6, 5),
    "sign": OnChip("sign", 4),
    "sign, summed": OnChip("sign", 2, 0, 3, 20, 2),
}
RATES = {"sgd": 0.1, "normalised": 2.0**-8, "sign": 2.0**-10}
BODIES = [
    pytest.param("host:", marks=pytest.mark.board("cc")),
    pytest.param(
        "qemu:stm32f405", marks=pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
    ),
]


@pytest.fixture(scope="module", params=BODIES)
def body(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Without a shadow: what is expected is computed here."""
    with open_device(str(request.param), shadow=False) as device:
        yield device


@pytest.mark.parametrize("name", LEARNERS)
def test_a_rule_learns_as_on_the_emulator(body: Device, name: str) -> None:
    """Over resets between samples, blocks of several sizes, and a move to the other body."""
    learner = LEARNERS[name]
    case = random_case(21, layers=3, neurons=10, inputs=3, batch=1 + len(name) % 3, steps=60)
    options = {"learning_rate": RATES[learner.rule], "range_every": 16, "range_clip": 0.01}
    q = quantised(case, IDEAL, seed=5, learner=learner, layer_rate=0.5, **options)
    held = case.network.loss == "cross_entropy"
    with Emulator() as emulator:
        digests: dict[Device, list[int]] = {body: [], emulator: []}
        for device in digests:
            device.load(q.image, case.batch)
            device.write_weights(quantise_weights(q.image, case.weights))
        before = emulator.read_weights()
        end = len(q.input)
        for a, b in ((0, end // 2), (end // 2, end // 2 + 1), (end // 2 + 1, end), (0, end - 3)):
            target = q.target if held else q.target[a:b]
            block = Block(q.input[a:b], target, learn=True, ranging=True, votes=True)
            for device, found in digests.items():
                device.run(block)
                found += [device.digest(), device.weights_digest()]
                if b == end:
                    device.reset(3)
        assert digests[body] == digests[emulator]
        ended = emulator.snapshot()
        assert body.snapshot() == ended
        assert not same_weights(before, emulator.read_weights())
        kinds = {p.kind for p in pieces(case.network, case.batch, learner)}
        assert ("norm" in kinds) == learner.normalises
        for device in digests:  # what it has remembered goes on elsewhere
            device.load(q.image, case.batch)
            device.restore(ended)
            target = q.target if held else q.target[:9]
            device.run(Block(q.input[:9], target, learn=True, ranging=True))
        assert body.snapshot() == emulator.snapshot() != ended


@pytest.mark.parametrize("name", ["normalised", "sign"])
def test_a_flipped_bit_in_what_is_remembered_is_found_and_named(name: str) -> None:
    learner = LEARNERS[name]
    case = random_case(4, layers=2, neurons=6, inputs=2, batch=1, steps=40)
    q = quantised(case, IDEAL, seed=5, learner=learner, learning_rate=RATES[learner.rule])
    with Emulator() as a, Emulator("scalar") as b:
        for device in (a, b):
            device.load(q.image, 1)
            device.write_weights(quantise_weights(q.image, case.weights))
            device.run(Block(q.input, q.target, learn=True))
        digest = a.weights_digest()
        assert digest == b.weights_digest()
        for kind in ("momentum", "momentum of bias", "norm", "norm of bias", "learned"):
            parts = [p for p in pieces(case.network, 1, learner) if p.kind == kind]
            assert bool(parts) == (learner.normalises or "norm" not in kind)
            for part in parts[-1:]:
                taken = bytearray(b.snapshot())
                taken[part.offset] ^= 1
                a.restore(bytes(taken))
                assert a.weights_digest() != digest, kind
        a.restore(b.snapshot())
        assert a.weights_digest() == digest


def test_verify_and_the_sizes_know_the_rules() -> None:
    """Seven bytes a weight and 15k in the memory of an stm32f405."""
    network = Network.load("mnist1d-15k")
    plain = board_bytes(network, IDEAL, 1, 0, BOARD)
    weights = sum(n * network.fan_in(k) for k, n in enumerate(network.sizes))
    for learner, each in ((LEARNERS["normalised"], 5), (LEARNERS["sign"], 4)):
        more = board_bytes(network, IDEAL, 1, 0, BOARD, learner) - plain
        assert each * weights < more < each * weights * 1.06
    case = Case(network, IDEAL, seed=3, steps=40, learner=LEARNERS["normalised"])
    with Emulator("scalar") as one, Emulator() as other:
        outcome, _ = verify(one, other, case)
        assert outcome.located is None
        assert outcome.updates > 0


@pytest.mark.board("cc")
def test_a_board_without_room_for_the_memory_refuses() -> None:
    """`memory` is all that the firmware has: its link takes some 1600 bytes of it."""
    network = make_network([30, 20], ["tanh", "linear"], np.random.default_rng(0), inputs=20)
    scales = Scales(8, 8, (LayerScales(8, 16, 8, 8, 4),) * 2)
    plain, normalised = (
        build_image(network, IDEAL, scales, learning_rate=0.01, learner=learner)
        for learner in (PLAIN, LEARNERS["normalised"])
    )
    need = board_bytes(network, IDEAL, 1, 0, HOST)
    with open_device(f"host:?memory={need + 2500}&payload=64&window=1", shadow=False) as device:
        device.load(plain, 1, uhat=False)
        with pytest.raises(DeviceRefused, match="memory"):
            device.load(normalised, 1, uhat=False)
        with pytest.raises(DeviceRefused) as refused:  # the board itself, unasked
            device.send_image(normalised, 1, 0)
        assert refused.value.reason == "no_memory"


# Of 15k, on one core of a Xeon.
STEPS_OF_A_MINUTE = {"host:": 150_000, "qemu:stm32f405": 20_000}


@pytest.mark.long
@pytest.mark.parametrize("rule", ["sgd", "normalised", "sign"])
@pytest.mark.parametrize("url", BODIES)
def test_15k_learns_for_a_minute(url: str, rule: str) -> None:
    """The paper's network, one stream, every state of every step."""
    learner = OnChip.named(rule, None if rule != "sgd" else 3)
    steps = STEPS_OF_A_MINUTE[url]
    case = Case(Network.load("mnist1d-15k"), IDEAL, seed=8, steps=steps, learner=learner)
    with open_device(url, shadow=False) as device, Emulator() as emulator:
        outcome, _ = verify(device, emulator, case, name=url)
    assert outcome.located is None
    assert outcome.steps == steps
    assert outcome.weights_changed > 10000
