"""`hwgle verify`: equal bodies are equal, and whatever is changed is found and named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.cli.verify import difference_text
from hwgle.device import Block, Pending
from hwgle.snapshot import place
from hwgle.verify import Case, draw_case, verify
from hwgle.verify.bodies import FLIPPED, TamperableEmulator, kernels_here
from hwgle.weights import load

HOST = pytest.param("host:", marks=pytest.mark.board("cc"))
QEMU = [
    pytest.param(f"qemu:{name}", marks=pytest.mark.board(emulator, compiler))
    for name, emulator, compiler in (
        ("stm32f405", "qemu-system-arm", "arm-none-eabi-gcc"),
        ("stm32vldiscovery", "qemu-system-arm", "arm-none-eabi-gcc"),
        ("hifive1", "qemu-system-riscv32", "riscv64-unknown-elf-gcc"),
    )
]


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["verify", *args])
    return result.exit_code, result.output


def case(seed: int = 1, steps: int = 700, **more: object) -> Case:
    with TamperableEmulator() as body:
        made = draw_case(body, Chip.load("ideal"), seed, steps, 1, True)
    assert made is not None
    return Case(**{**made.__dict__, **more})


def compared(body: TamperableEmulator, one: Case, **options: bool):  # type: ignore[no-untyped-def]
    with body, TamperableEmulator("scalar") as emulator:
        return verify(body, emulator, one, **options)


@pytest.mark.parametrize("kernels", kernels_here())
def test_kernels_are_equal_while_learning(kernels: str) -> None:
    outcome, _ = compared(TamperableEmulator(kernels), case())
    assert outcome.located is None
    assert outcome.steps == 700
    assert outcome.blocks == 3
    assert outcome.updates > 0
    assert outcome.weights_changed > 0


@pytest.mark.parametrize("body", ["emu:", HOST])
def test_equal_prints_what_was_compared(files: Path, body: str) -> None:
    code, text = run("net.yaml", "--steps", "600", "--device", body)
    assert code == 0
    assert "equal: every state of every step" in text
    assert "600 of 600 steps in 3 blocks" in text
    assert re.search(r"digest +[0-9a-f]{16}", text)
    assert "stochastic rounding" in text


def test_given_weights_and_streams(files: Path) -> None:
    code, text = run("net.yaml", "--weights", "w.npz", "--input", "x.npy", "--target", "y.npy")
    assert code == 0
    assert "40 of 40 steps" in text
    assert "streams: 6" in text
    code, _ = run("net.yaml", "--weights", "w.npz", "--no-learn", "--batch", "3", "--steps", "9")
    assert code == 0


@pytest.mark.parametrize("body", ["emu:", HOST])
def test_tampering_is_found_and_located(body: str) -> None:
    code, text = run("--networks", "6", "--tamper", "--steps", "600", "--device", body)
    assert code == 1
    assert text.count("DIFFERENT in block") == 6
    assert text.count("found, and located where it is") == 6


@pytest.mark.parametrize("signal", FLIPPED)
def test_each_signal_is_named(signal: str) -> None:
    one = case(3, 600)
    body, top = TamperableEmulator(), len(one.network.layers) - 1
    body.load = lambda *a, **k: (  # type: ignore[method-assign]
        TamperableEmulator.load(body, *a, **k),
        body.tamper(300, top, signal, 1, 14 if signal in ("r", "e", "weight") else 20),
    )[0]
    outcome, _ = compared(body, one)
    if outcome.located is None:  # a rate of the last layer goes nowhere
        assert signal == "r"
        return
    assert outcome.located.step == 300
    (found,) = outcome.located.found
    assert (found.layer, found.kind) == (top, signal)
    neuron = 0 if signal == "weight" else 1
    assert found.at[0] == neuron
    assert f"neuron {neuron}, {signal}" in place(one.network, found)


def test_a_flip_behind_the_last_step_of_a_block() -> None:
    """Its digest shows nothing yet: the snapshot that both have in common lies before it."""
    one = case(3, 600)
    body = TamperableEmulator()
    body.load = lambda *a, **k: (  # type: ignore[method-assign]
        TamperableEmulator.load(body, *a, **k),
        body.tamper(255, 0, "u", 0, 20),
    )[0]
    outcome, _ = compared(body, one)
    assert outcome.located is not None
    assert outcome.located.block[0] == 256
    assert outcome.located.step == 255
    assert [(d.layer, d.kind, d.at) for d in outcome.located.found] == [(0, "u", (0, 0))]


class Transient(TamperableEmulator):
    """A body that a particle strikes once."""

    struck, where = False, "weight"

    def submit(self, block: Block) -> Pending:
        result = super().submit(block)
        if not self.struck and block.learn:
            self.struck = True
            self.flip(0, self.where, 0, 12)
        return result


@pytest.mark.parametrize(
    ("where", "words"),
    [("weight", "layer l0, neuron 0, weight from input 0"), ("u", "has died away")],
)
def test_what_does_not_repeat_is_called_transient(where: str, words: str) -> None:
    one = case(2)
    body = Transient()
    body.where = where
    outcome, _ = compared(body, one)
    assert outcome.located is not None
    assert outcome.located.step is None
    assert outcome.located.found
    text = difference_text(one, outcome.located, "board", "emu:")
    assert "transient" in text
    assert words in text


class Defect(TamperableEmulator):
    """A body that computes one neuron wrongly from one state on, whenever that comes."""

    def submit(self, block: Block) -> Pending:
        from hwgle._core import lib

        first = int(lib.gle_steps(self._chip))
        wrong = [s for s in (410, 411, 412) if first <= s < first + len(block.input)]
        if wrong:
            self.tamper(wrong[0], 1, "v", 2, 11)
        return super().submit(block)


def test_a_defect_that_repeats_is_located() -> None:
    outcome, _ = compared(Defect(), case(1))
    assert outcome.located is not None
    assert outcome.located.step == 410
    assert outcome.located.found[0][:4] == (1, "v", "v", (2, 0))


class Forgetful(TamperableEmulator):
    """A body that counts wrongly, which no digest sees."""

    def snapshot(self) -> bytes:
        raw = bytearray(super().snapshot())
        if int.from_bytes(raw[16:24], "little") > 600:
            raw[16 + 12 + 8 + 20] ^= 1  # the first counter of the first layer
        return bytes(raw)


def test_counters_are_compared_at_the_end() -> None:
    outcome, _ = compared(Forgetful(), case(1))
    assert outcome.located is not None
    assert outcome.located.step == 600
    assert outcome.located.found[0].name == "steps"


def test_networks_are_drawn_to_fit_the_body() -> None:
    class Small(TamperableEmulator):
        limits = property(lambda self: TamperableEmulator().limits.__class__(8, 4000))  # type: ignore[assignment]

    with Small() as body:
        drawn = [draw_case(body, Chip.load("ideal"), k, 10, 1, True) for k in range(5)]
        sizes = [sum(c.network.sizes) for c in drawn if c is not None]
    assert len(sizes) == 5
    assert max(sizes) < 60


def test_usage_errors_are_told(files: Path) -> None:
    for args, words in (
        ((), "--networks"),
        (("net.yaml", "--networks", "2"), "--networks"),
        (("net.yaml", "--device", "emu:x"), "emu:"),
        (("net.yaml", "--device", "nowhere"), "not known"),
        (("net.yaml", "--target", "y.npy"), "--input"),
        (("net.yaml", "--input", "x.npy", "--batch", "2"), "6 streams"),
        (("net.yaml", "--input", "x.npy", "--steps", "41"), "40"),
    ):
        code, text = run(*args)
        assert code == 2, text
        assert words in text
    assert run("no-such-network")[0] == 4
    assert run("mnist1d-15k", "--steps", "3")[0] == 0


def test_an_experiment_brings_its_chip(files: Path) -> None:
    Path("ex.yaml").write_text(
        "format: hwgle/experiment/1\nname: tiny\nnetwork: mnist1d-15k\nchip: ideal8\n"
        "task: {name: mnist1d, seed: 1, validation_seed: 2, train: 40, test: 10}\n"
        "training: {rule: adam, epochs: 2, batch: 20, learning_rate: 1e-3}\n"
    )
    code, text = run("ex.yaml", "--steps", "20")
    assert code == 0
    assert "chip ideal8" in text


@pytest.mark.board("cc")
def test_what_does_not_fit_is_refused_before_anything_is_sent() -> None:
    code, text = run("mnist1d-15k", "--device", "host:?memory=40000&payload=64")
    assert code == 3
    assert "does not fit" in text
    assert "bytes are needed" in text


@pytest.mark.parametrize("body", QEMU)
def test_boards_in_qemu_are_equal(body: str) -> None:
    code, text = run("--networks", "1", "--steps", "300", "--device", body, "--seed", "5")
    assert code == 0, text


@pytest.mark.long
@pytest.mark.parametrize("body", QEMU)
def test_boards_in_qemu_are_equal_for_long(body: str) -> None:
    code, text = run("--networks", "3", "--steps", "5000", "--device", body)
    assert code == 0, text
    code, text = run("--networks", "3", "--steps", "1000", "--device", body, "--tamper")
    assert code == 1
    assert text.count("found, and located where it is") == 3


@pytest.mark.long
@pytest.mark.board("cc")
def test_a_hundred_thousand_steps_on_the_host() -> None:
    code, text = run("--networks", "3", "--steps", "100000", "--device", "host:")
    assert code == 0, text


def test_zoo_weights_are_a_case_too() -> None:
    one = case(1, 30)
    weights = Path(__file__).parents[2] / "hwgle/zoo/weights/mnist1d-15k.npz"
    from hwgle.network import Network

    network = Network.load("mnist1d-15k")
    given = Case(network, one.chip, 1, 30, weights=load(weights, network))
    outcome, _ = compared(TamperableEmulator(), given)
    assert outcome.located is None
    assert np.uint64(outcome.digest) == outcome.digest
