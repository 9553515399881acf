"""A training whose board loses power goes on, and ends with the bits of one that did not."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import chip_with, quantised, random_case
from test_training import NETWORK, TASK, experiment, left, train

from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices import open_board, open_device
from hwgle.devices.emulator import Emulator
from hwgle.devices.resuming import ATTEMPTS, ResumingDevice, resuming
from hwgle.errors import BoardReset, DeviceError, NotEqual, SessionEnded
from hwgle.learning import trainer as module
from hwgle.learning.trainer import Trainer
from hwgle.quantise import quantise_weights

host = pytest.mark.board("cc")
CASE = random_case(40, layers=2, neurons=8, inputs=2, batch=2, steps=40)
Q = quantised(CASE, chip_with(seed=2), learning_rate=0.1, range_every=16)
WEIGHTS = quantise_weights(Q.image, CASE.weights)
BIASES = {name: (0 * w, b) for name, (w, b) in WEIGHTS.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What undisturbed trainings leave, by rule."""
    found = {}
    for rule in ("sgd", "adam"):
        out = tmp_path_factory.mktemp(rule)
        train("emu:", out, experiment(rule, 1))
        found[rule] = left(out)
    return found


def frames_of(url: str, rule: str, out: Path) -> int:
    """How many frames go to the board in a training."""
    with open_device(url) as device:
        Trainer(experiment(rule, 1), NETWORK, Chip.load("ideal"), TASK, device, out).run()
        return int(device.port.statistics()["frames_out"])


def cut_training(url: str, rule: str, frame: int, out: Path, keep_after: float) -> ResumingDevice:
    """Train while the board is reset when that frame comes."""
    opened = open_device(f"fault+{url}?reset=out{frame}")
    with ResumingDevice(opened, keep_after=keep_after) as device:
        Trainer(experiment(rule, 1), NETWORK, Chip.load("ideal"), TASK, device, out).run()
    return device


def resets(
    url: str, rule: str, times: int, seed: int, tmp_path: Path, want: dict[str, Any]
) -> None:
    frames = frames_of(url, rule, tmp_path / "counted")
    rng = np.random.default_rng(seed)
    met = 0
    for k in range(times):
        out = tmp_path / str(k)
        frame = int(rng.integers(8, int(0.95 * frames)))
        keep_after = float(rng.choice([0.0, 0.02, 1e9]))  # short journals, long ones, all of it
        device = cut_training(url, rule, frame, out, keep_after)
        assert left(out) == want, (rule, k, frame, keep_after)
        met += len(device.resumptions)
        for resumed in device.resumptions:
            assert (resumed.boot_cause, resumed.boots) == ("pin", 2), resumed
    assert met >= 0.8 * times  # keep-alives make the count of frames not quite the same


@host
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_reset_at_some_moments(
    rule: str, tmp_path: Path, whole: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_SECONDS", 0.002)
    resets("host:", rule, 3 if rule == "sgd" else 1, seed, tmp_path, whole[rule])


@pytest.mark.long
@host
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_reset_at_fifty_moments(
    rule: str, tmp_path: Path, whole: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_SECONDS", 0.002)
    resets("host:", rule, 50, seed + 1, tmp_path, whole[rule])


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
def test_a_reset_of_an_emulated_board(tmp_path: Path, whole: dict[str, Any]) -> None:
    device = cut_training("qemu:stm32f405", "sgd", 60, tmp_path, 0.0)
    assert left(tmp_path) == whole["sgd"]
    assert len(device.resumptions) == 1


# --- calls in flight --------------------------------------------------------------


def play(device: Any, resets: set[int] = frozenset()) -> list[Any]:  # type: ignore[assignment]
    """Every call there is, several blocks under way; before some, the board is reset."""
    out: list[Any] = []
    count = 0

    def maybe() -> None:
        nonlocal count
        if count in resets:
            device.reset_board()
        count += 1

    device.load(Q.image, CASE.batch, gradient=True)
    for call in (
        lambda: device.write_weights(WEIGHTS),
        lambda: device.set_rate(3),
        lambda: device.add_weights(WEIGHTS),
        lambda: device.add_biases(BIASES),
    ):
        maybe()
        call()
    blocks = []
    for _ in range(3):
        maybe()
        blocks.append(device.submit(Block(Q.input, Q.target, learn=True, record=[(0, "r")])))
    maybe()
    out += [b.result().signals[0].tolist() for b in blocks]
    maybe()
    device.clear_gradient(4)
    block = device.submit(Block(Q.input, Q.target, gradient=True))
    maybe()
    out.append([g.weight.tolist() for g in device.read_gradient()])
    out.append(block.result().steps)
    maybe()
    out.append([g.weight.tolist() for g in device.read_gradient()])
    device.reset(2)
    device.run(Block(Q.input, Q.target))
    maybe()
    kept = device.snapshot()
    device.run(Block(Q.input, Q.target, learn=True))
    maybe()
    device.restore(kept)
    maybe()
    weights = {k: (w.tolist(), b.tolist()) for k, (w, b) in device.read_weights().items()}
    streams = device.stream_digests().tolist()
    return [*out, kept, weights, streams, device.digest(), device.weights_digest(),
            device.formats(), device.counters()]  # fmt: skip


@host
@pytest.mark.parametrize("keep_after", [0.0, 1e9])
def test_a_reset_before_any_call_changes_no_answer(keep_after: float) -> None:
    with Emulator() as emulator:
        want = play(emulator)
    for shadow in (True, False):
        with open_device("host:", shadow=shadow) as body:
            for k in range(14):
                device = ResumingDevice(body, keep_after=keep_after)
                assert play(device, {k}) == want, k
                assert len(device.resumptions) == 1
            device = ResumingDevice(body, keep_after=keep_after)
            assert play(device, {1, 4, 6, 7, 11}) == want
            assert 1 <= len(device.resumptions) <= 5  # two may come before one is noticed


@host
def test_a_board_that_is_gone_is_the_error_that_it_was() -> None:
    with resuming(open_board("host:")) as device:
        device.load(Q.image, CASE.batch)
        device.write_weights(WEIGHTS)
        device._device._body.kill()
        with pytest.raises(SessionEnded, match="unplugged"):
            device.run(Block(Q.input, Q.target))
        device._journal.clear()  # or leaving would raise it again


@host
def test_a_board_that_resets_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    with open_board("host:") as body:
        device = ResumingDevice(body, said.append)
        device.load(Q.image, CASE.batch)
        device.write_weights(WEIGHTS)
        submit = body.submit

        def and_reset(block: Block) -> Any:
            pending = submit(block)
            body.reset_board()
            return pending

        monkeypatch.setattr(body, "submit", and_reset)
        with pytest.raises(BoardReset):
            device.run(Block(np.resize(Q.input, (20000, *Q.input.shape[1:]))))
        assert len(said) == ATTEMPTS


@host
def test_what_is_told_of_a_reset_keeps_nothing_of_the_session_before() -> None:
    """The frames of its error held the old session's buffers, 0.3 MB a reset (found by a soak)."""
    with open_board("host:") as body:
        device = ResumingDevice(body)
        device.load(Q.image, CASE.batch)
        device.write_weights(WEIGHTS)
        before = weakref.ref(body.port)
        body.reset_board()
        device.run(Block(Q.input, Q.target))
        assert len(device.resumptions) == 1
        gc.collect()
        assert before() is None


@host
def test_a_board_that_does_not_repeat_itself_is_noticed() -> None:
    with open_board("host:") as body:
        device = ResumingDevice(body)
        device.load(Q.image, CASE.batch)
        device.write_weights(WEIGHTS)
        device.run(Block(Q.input, Q.target, learn=True))
        told = device._journal[-1].told
        assert told
        told[0] = (told[0][0], told[0][1] ^ 1)
        body.reset_board()
        with pytest.raises(NotEqual, match="did not repeat"):
            device.digest()


@host
def test_after_a_refusal_nothing_is_done_again() -> None:
    with open_board("host:") as body:
        device = ResumingDevice(body)
        device.load(Q.image, CASE.batch)
        device.write_weights(WEIGHTS)
        body._talk.act("WEIGHTS_READ", 99, 0, 1)
        with pytest.raises(DeviceError, match="refused"):
            device.digest()
        body.reset_board()
        with pytest.raises(SessionEnded):
            device.digest()


def test_the_emulator_needs_none_of_this() -> None:
    with Emulator() as emulator:
        assert resuming(emulator) is emulator
