"""`hwgle preflight`: need against have, and that boards agree with it to the byte."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hwgle._core import lib

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.device import Block, Limits
from hwgle.devices import open_board
from hwgle.devices.messages import name_of
from hwgle.devices.port import Port
from hwgle.devices.serial import SerialDevice
from hwgle.errors import DeviceRefused
from hwgle.network import Network
from hwgle.preflight import check, check_network, machine_of, refuse
from hwgle.preflight.memory import BOARD, HOST, board_bytes
from hwgle.preflight.pace import Speed
from hwgle.preflight.wire import block_traffic, frame_bytes, load_bytes
from hwgle.quantise import Image, LayerScales, Scales, build_image
from hwgle.weights import initial, save

CHIP = Chip.load("ideal")
FLAGS = lib.GLE_WITH_GRADIENT, lib.GLE_WITH_UHAT
BODIES = [
    pytest.param("host:?memory=60000&payload=64", marks=pytest.mark.board("cc")),
    *(
        pytest.param(f"qemu:{name}", marks=pytest.mark.board(emulator, compiler))
        for name, emulator, compiler in (
            ("stm32f405", "qemu-system-arm", "arm-none-eabi-gcc"),
            ("stm32vldiscovery", "qemu-system-arm", "arm-none-eabi-gcc"),
            ("hifive1", "qemu-system-riscv32", "riscv64-unknown-elf-gcc"),
        )
    ),
]


def network(size: int, inputs: int = 3, loss: str = "mse") -> Network:
    layers = [
        {"name": f"l{k}", "phi": "tanh", "populations": [{"size": n, "tau_m": 1.0, "tau_r": 1.0}]}
        for k, n in enumerate((size, 5))
    ]
    return Network.model_validate(
        {"format": "hwgle/network/1", "name": "sized", "dt": 0.5, "inputs": inputs, "loss": loss,
         "layers": layers}
    )  # fmt: skip


def image_of(net: Network) -> Image:
    scales = Scales(8, 8, (LayerScales(8, 16, 8, 8, 4),) * len(net.layers))
    return build_image(net, CHIP, scales)


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["preflight", *args])
    return result.exit_code, result.output


@pytest.mark.parametrize("url", BODIES)
def test_boards_take_what_fits_and_refuse_one_neuron_more(url: str) -> None:
    with open_board(url) as body:
        machine, have = machine_of(body), body.limits.memory
        assert have is not None
        everything = int(lib.GLE_WITH_UHAT | lib.GLE_WITH_GRADIENT)
        for batch, options in ((1, 0), (3, everything)):

            def need(n: int, batch: int = batch, options: int = options) -> int:
                return board_bytes(network(n), CHIP, batch, options, machine)

            most = bisect_right(range(1, 4000), have, key=need)
            if most == 0:
                continue
            gradient, uhat = (bool(options & flag) for flag in FLAGS)
            body.load(image_of(network(most)), batch, gradient=gradient, uhat=uhat)
            too_large = image_of(network(most + 1))
            refused = []
            with pytest.raises(DeviceRefused, match="this network does not fit") as told:
                body.load(too_large, batch, gradient=gradient, uhat=uhat)
            refused.append(told.value)
            with pytest.raises(DeviceRefused, match="refused IMAGE_") as told:
                body.send_image(too_large, batch, options)
            refused.append(told.value)
            assert [(r.need, r.have) for r in refused] == [(need(most + 1), have)] * 2
            assert [r.reason for r in refused] == ["no_memory"] * 2


@pytest.mark.board("cc")
def test_what_the_board_says_is_in_use() -> None:
    with open_board("host:") as body:
        for n, loss in ((4, "mse"), (31, "cross_entropy")):
            net = network(n, loss=loss)
            body.load(image_of(net), 5, uhat=True)
            used = body.status()["memory_used"]
            assert used == board_bytes(net, CHIP, 5, int(lib.GLE_WITH_UHAT), HOST)


def test_problems_name_need_and_have() -> None:
    net = network(40)
    need = board_bytes(net, CHIP, 1, 0, BOARD)
    assert check(image_of(net), 1, 0, Limits(max_batch=1, memory=need)) == []
    (problem,) = check(image_of(net), 1, 0, Limits(max_batch=1, memory=need - 1))
    assert (problem.need, problem.have, problem.reason) == (need, need - 1, "no_memory")
    (problem,) = check(image_of(net), 2, 0, Limits(max_batch=1, memory=need))
    assert (problem.need, problem.have) == (2, 1)
    (problem,) = check(image_of(net), 1, 0, Limits(max_batch=1, payload=8))
    assert (problem.need, problem.have, problem.reason) == (9, 8, "too_long")
    with pytest.raises(DeviceRefused, match="9 bytes are needed, 8 are there"):
        refuse("x", [problem])
    assert check_network(net, CHIP, 1, 0, Limits(max_batch=1)) == []


def test_frames_are_as_long_as_the_header_says() -> None:
    assert frame_bytes(256) == 275  # csrc/link/frame.h
    assert frame_bytes(0) == 18


@pytest.mark.board("cc")
@pytest.mark.parametrize("record", [[], [(0, "u"), (1, "r")]])
@pytest.mark.parametrize(
    ("loss", "learn"), [("mse", True), ("cross_entropy", True), ("mse", False)]
)
def test_bytes_on_the_line_are_those_that_travel(
    loss: str, learn: bool, record: list[tuple[int, str]]
) -> None:
    net = network(20, inputs=4, loss=loss)
    steps = 4 * 256
    with open_board("host:?payload=256") as body:
        assert isinstance(body, SerialDevice)
        payload = body.port.largest
        before = body.port.statistics()
        body.load(image_of(net), 1)
        body.write_weights({x.name: (np.zeros((x.size, net.fan_in(k)), np.int16),
                                     np.zeros(x.size, np.int32))
                            for k, x in enumerate(net.layers)})  # fmt: skip
        loaded = body.port.statistics()
        assert loaded["bytes_out"] - before["bytes_out"] == pytest.approx(
            load_bytes(net, image_of(net).chip, payload), rel=0.1, abs=300
        )
        rng = np.random.default_rng(1)
        target = np.zeros(1, np.int16) if loss == "cross_entropy" else None
        if loss == "mse":
            target = rng.integers(-99, 99, (steps, 1, 5)).astype(np.int16)
        x = rng.integers(-9999, 9999, (steps, 1, 4)).astype(np.int16)
        body.run(Block(x, target if learn else None, learn=learn, record=record))
        after = body.port.statistics()
    traffic = block_traffic(net, 1, target=learn, record=record, payload=payload)
    out = (after["bytes_out"] - loaded["bytes_out"]) / 4
    back = (after["bytes_in"] - loaded["bytes_in"]) / 4
    # On the idle way there may be up to twice the acknowledgements; the busy way decides.
    assert max(out, back) == pytest.approx(max(traffic.out, traffic.back), rel=0.1)
    assert min(out, back) <= 2 * max(min(traffic.out, traffic.back), 100)


@pytest.mark.board("cc")
def test_bytes_of_a_step_in_real_time() -> None:
    net, steps = network(20, inputs=4), 100
    x = np.ones((1, 1, 4), np.int16)
    with open_board("host:?payload=256") as body:
        body.load(image_of(net), 1)
        before = body.port.statistics()
        for _ in range(steps):
            body.run(Block(x, record=[(1, "r")]))
        after = body.port.statistics()
    traffic = block_traffic(net, 1, 1, record=[(1, "r")], payload=256)
    for key, want in (("bytes_out", traffic.out), ("bytes_in", traffic.back)):
        assert (after[key] - before[key]) / steps == pytest.approx(want, rel=0.3)


def test_a_step_takes_what_was_measured() -> None:
    speed = Speed(hz=1e6, step=100, neuron=10, forward=2, back=3, update=4)
    net = network(4, inputs=3)
    products, above = 4 * 3 + 5 * 4, 5 * 4
    assert speed.instructions(net, 1, False) == 100 + 90 + 2 * products + 3 * above
    assert speed.instructions(net, 2, True) == 100 + 2 * (
        90 + 2 * products + 3 * above + 4 * products
    )
    assert speed.seconds(net, 1, False) == speed.instructions(net, 1, False) / 1e6
    assert Speed.of(object()) is None


@pytest.mark.board("cc")
def test_the_command_says_it_and_exits_1_when_it_does_not_fit(files: Path) -> None:
    code, text = run("net.yaml", "--board", "host", "--learn", "--record", "r,e", "--batch", "2")
    assert code == 0, text
    for word in ("memory", "bytes of", "blocks", "real time", "fits"):
        assert word in text
    code, text = run("net.yaml", "--board", "host", "--rate", "100000")
    assert code == 1
    assert "100,000 are needed" in text
    code, text = run("mnist1d-15k", "--device", "host:?memory=20000&payload=64")
    assert code == 1, text
    assert "does not fit" in text


EXPERIMENT = """\
format: hwgle/experiment/1
name: tiny
network: mnist1d-15k
chip: ideal
task: {name: mnist1d, seed: 1, validation_seed: 2, train: 40, test: 10}
training: {rule: sgd, epochs: 1, batch: 1, learning_rate: 1e-3}
"""
LARGE = ("mnist1d-15k", "--weights", "large.npz")
COMMANDS = {
    "run": ("run", *LARGE, "--input", "one.npy", "--out", "o.npz"),
    "eval": ("eval", "e.yaml", "--weights", "large.npz", "--no-float"),
    "train": ("train", "e.yaml", "--out", "trained"),
    "stream": ("stream", *LARGE, "one.txt"),
    "verify": ("verify", "mnist1d-15k", "--steps", "10"),
}
SMALL = [
    pytest.param("host:?memory=20000&payload=64", marks=pytest.mark.board("cc")),
    pytest.param(
        "qemu:stm32vldiscovery", marks=pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
    ),
]


@pytest.mark.parametrize("url", SMALL)
def test_every_command_says_what_does_not_fit_before_it_is_sent(
    files: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    Path("e.yaml").write_text(EXPERIMENT)
    save("large.npz", initial(Network.load("mnist1d-15k"), 0))
    np.save("one.npy", np.ones((20, 1, 1)))
    Path("one.txt").write_text("1\n" * 20)
    sent: list[bytes] = []
    queued = Port.send, Port.send_all
    monkeypatch.setattr(Port, "send", lambda p, m: (sent.append(m), queued[0](p, m))[1])
    monkeypatch.setattr(Port, "send_all", lambda p, m: (sent.extend(m), queued[1](p, m))[1])
    for name, args in COMMANDS.items():
        result = CliRunner().invoke(cli, [*args, "--device", url])
        assert result.exit_code == 3, (name, result.output)
        told = re.search(r"does not fit: memory: (\d+) bytes are needed, (\d+)", result.output)
        assert told is not None, (name, result.output)
        assert int(told[1]) > int(told[2])
    assert {name_of(message) for message in sent} <= {"INFO", "SYNC"}
    assert not Path("o.npz").exists()
    assert not Path("trained/weights.npz").exists()


def test_usage(files: Path) -> None:
    for args in (
        ("net.yaml",),
        ("net.yaml", "--board", "host", "--device", "host:"),
        ("net.yaml", "--board", "no-such-board"),
        ("net.yaml", "--board", "host", "--record", "q"),
        ("net.yaml", "--board", "host", "--rate", "0"),
    ):
        code, text = run(*args)
        assert code == 2, text
    assert run("nothing", "--board", "host")[0] == 4


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
def test_the_papers_networks_fit_the_stm32f405() -> None:
    began = time.monotonic()
    assert run("mnist1d-15k", "--board", "stm32f405", "--learn")[0] == 0
    code, text = run("mnist1d-42k", "--board", "stm32f405")
    assert code == 0
    assert "fit once" in text
    assert time.monotonic() - began < 300  # its firmware is built on first use
