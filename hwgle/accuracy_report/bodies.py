"""Other bodies of the same chip: equal bit for bit or not, and how fast they can be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy_report.material import Material
from hwgle.accuracy_report.signals import Basis
from hwgle.chip import Chip
from hwgle.device import Block, Device
from hwgle.devices import open_board
from hwgle.devices.emulator import Emulator
from hwgle.devices.serial import SerialDevice
from hwgle.network import Network
from hwgle.preflight import machine_of
from hwgle.preflight.memory import board_bytes
from hwgle.preflight.pace import Speed
from hwgle.preflight.wire import block_traffic
from hwgle.quantise import Image, Scales, build_image, quantise_weights, to_int16
from hwgle.weights import Weights

Progress = Callable[[int, int], None]
STEPS = 360  # that are compared, of one stream
BLOCK = 60
BAUD = 115200


def compare(
    url: str,
    network: Network,
    chip: Chip,
    weights: Weights,
    material: Material,
    basis: Basis,
    baud: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One body next to the emulator: the same stream, digests block by block, learning in its
    second half. Raises DeviceError when the body cannot be reached or fails."""
    blocks, scales = _blocks(network, chip, material, basis)
    rate = chip.plasticity.learning_rate
    image = build_image(network, chip, scales, batch=1, learning_rate=rate)
    if url.startswith("emu:"):
        return _emulator(image, weights, blocks)
    with open_board(url, baud=baud) as body:
        return _board(url, body, image, weights, blocks, baud or BAUD, progress)


def _blocks(
    network: Network, chip: Chip, material: Material, basis: Basis
) -> tuple[list[Block], Scales]:
    scales = basis.scales(chip)
    steps = min(STEPS, material.steps)
    x, y = material.segment(0)
    codes, _ = to_int16(x[:steps, :1], scales.input, chip.input_max)
    top = len(network.layers) - 1
    blocks = []
    for first in range(0, steps, BLOCK):
        part = slice(first, min(steps, first + BLOCK))
        target = None
        if y is not None:
            target = (
                y[:1].astype(np.int16)
                if network.loss == "cross_entropy"
                else to_int16(y[part, :1], scales.target, 32767)[0]
            )
        learn = target is not None and first >= steps // 2
        blocks.append(Block(codes[part], target, learn=learn, record=[(top, "r")]))
    return blocks, scales


@dataclass
class _Side:
    """What one side gave, block by block."""

    digests: list[int]
    outputs: list[NDArray[np.int32]]
    weights: int
    seconds: list[float]


def _run(
    device: Device,
    image: Image,
    weights: Weights,
    blocks: list[Block],
    progress: Progress | None = None,
) -> _Side:
    device.load(image, 1, uhat=False)
    device.write_weights(quantise_weights(image, weights))
    side = _Side([], [], 0, [])
    for k, block in enumerate(blocks):
        begun = time.perf_counter()
        side.outputs.append(device.run(block).signals[0])
        if not block.learn:
            side.seconds.append((time.perf_counter() - begun) / len(block.input))
        side.digests.append(device.digest())
        if progress is not None:
            progress(k + 1, len(blocks))
    side.weights = device.weights_digest()
    return side


def _compared(one: _Side, other: _Side, blocks: list[Block]) -> dict[str, Any]:
    """adds: power of the difference of outputs over that of the emulator's, exactly 0 where
    every digest is equal."""
    pairs = list(zip(one.digests, other.digests, strict=True))
    first = next((k for k, (a, b) in enumerate(pairs) if a != b), None)
    same = first is None and one.weights == other.weights
    got, want = (np.concatenate(side.outputs).astype(np.float64) for side in (one, other))
    power = float(np.square(got - want).sum() / max(1.0, np.square(want).sum()))
    return {
        "equal": same,
        "digest": f"{one.digests[-1]:016x}",
        "emulator_digest": f"{other.digests[-1]:016x}",
        "steps": sum(len(b.input) for b in blocks),
        "first_difference": None if first is None else first * BLOCK,
        "adds": 0.0 if same else power,
    }


def _board(
    url: str,
    body: SerialDevice,
    image: Image,
    weights: Weights,
    blocks: list[Block],
    baud: int,
    progress: Progress | None,
) -> dict[str, Any]:
    network, chip, limits = image.network, image.chip, body.limits
    got = _run(body, image, weights, blocks, progress)
    want = _run(Emulator(), image, weights, blocks)
    top = len(network.layers) - 1
    line = block_traffic(network, 1, 1, record=[(top, "r")], payload=limits.payload)
    name = body.info.name or url
    return {
        "device": url,
        "name": name,
        **_compared(got, want, blocks),
        "memory": board_bytes(network, chip, 1, 0, machine_of(body)),
        "memory_have": limits.memory,
        "link_bytes_out": line.out,
        "link_bytes_back": line.back,
        "baud": baud,
        "line_steps_per_second": line.fastest(baud),
        **_pace(name, network, line.fastest(baud)),
    }


def _pace(name: str, network: Network, line: float) -> dict[str, Any]:
    """Instructions and the smallest step in real time: the slower of core and line."""
    from hwgle.boards.description import load, names

    speed = Speed.of(load(name).board) if name in names() else None
    core = 0.0 if speed is None else speed.seconds(network, 1, False)
    return {
        "instructions": None if speed is None else speed.instructions(network, 1, False),
        "instructions_learning": None if speed is None else speed.instructions(network, 1, True),
        "real_time_dt": max(core, 1 / line),
        "real_time_by": "core" if core > 1 / line else "line",
    }


def _emulator(image: Image, weights: Weights, blocks: list[Block]) -> dict[str, Any]:
    """emu: its fastest kernels next to plain C, and its time for a step here and now."""
    fast, plain = Emulator(), Emulator("scalar")
    got, want = (_run(e, image, weights, blocks) for e in (fast, plain))
    return {
        "device": "emu:",
        "name": f"emulator, kernels {fast.kernels} next to {plain.kernels}",
        **_compared(got, want, blocks),
        "memory": fast.arena_bytes,
        **dict.fromkeys(("memory_have", "link_bytes_out", "link_bytes_back", "baud")),
        **dict.fromkeys(("line_steps_per_second", "instructions", "instructions_learning")),
        "real_time_dt": min(got.seconds),
        "real_time_by": "this machine",
    }
