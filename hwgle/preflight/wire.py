"""Bytes on the line: what blocks of a network cost, framing and acknowledgements included.

A frame: csrc/link/frame.h; messages: csrc/device/messages.def; how a block is cut into
them: hwgle/devices/serial.py and csrc/device/device_block.c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwgle import topology
from hwgle._core import lib
from hwgle.chip import Chip
from hwgle.devices.answers import WIDTH
from hwgle.devices.messages import LAYOUTS
from hwgle.devices.port import PAYLOAD
from hwgle.devices.serial import WIRE_STEPS
from hwgle.network import Network
from hwgle.preflight.memory import image_bytes

BITS = 10  # of a byte on a serial line: start, eight, stop


def frame_bytes(payload: int) -> int:
    """Of a frame with this much payload, at most: header, CRC, stuffing, delimiter."""
    n = payload + int(lib.FRAME_OVERHEAD)
    return n + n // 254 + 2


@dataclass(frozen=True)
class Traffic:
    """Of one block. out: to the board, back: from it, bytes on the line; messages: both
    ways; payload: of their bytes, those that are numbers of the network."""

    steps: int
    out: int
    back: int
    payload: int
    messages: int

    def per_second(self, rate: float) -> tuple[float, float]:
        """Bytes each way when this many steps are run in a second."""
        return self.out * rate / self.steps, self.back * rate / self.steps

    def fastest(self, baud: int) -> float:
        """Steps a second that the line allows; both ways go at once."""
        return self.steps * baud / BITS / max(self.out, self.back)


def _cut(total: int, room: int) -> list[int]:
    """Sizes of the messages that a stream of bytes is cut into."""
    return [room] * (total // room) + ([total % room] if total % room else [])


def block_traffic(
    network: Network,
    batch: int,
    steps: int = WIRE_STEPS,
    *,
    target: bool = False,
    record: Sequence[tuple[int, str]] = (),
    payload: int,
) -> Traffic:
    """A block of steps with these records, on a board with messages of `payload` bytes.

    Acknowledgements: one frame of its own for each message, unless others go that way
    anyhow. On an idle way there can be twice as many; the busy way, which decides, is
    within some per cent (tests/cli/test_preflight.py measures it).
    """
    room = min(payload, PAYLOAD)
    labels = 2 * batch if target and network.loss == "cross_entropy" else 0
    each = 2 * batch * network.inputs
    if target and network.loss == "mse":
        each += 2 * batch * network.outputs
    out = [LAYOUTS["BLOCK"].overhead + 2 * len(record)]
    data = labels + steps * each
    out += [n + 1 for n in _cut(data, room - 1)]
    rows = steps * sum(batch * network.sizes[k] * WIDTH[s] for k, s in record)
    back = [LAYOUTS["FORMATS_ARE"].overhead + 2 * len(network.layers)]
    back += [n + 1 for n in _cut(rows, room - 1)]
    back.append(LAYOUTS["BLOCK_DONE"].overhead)
    acks = frame_bytes(0)
    there = sum(map(frame_bytes, out)) + acks * max(0, len(back) - len(out))
    home = sum(map(frame_bytes, back)) + acks * max(0, len(out) - len(back))
    return Traffic(steps, there, home, data + rows, len(out) + len(back))


def load_bytes(network: Network, chip: Chip, payload: int) -> int:
    """To the board, for the image and the weights."""
    room = min(payload, PAYLOAD)
    image = image_bytes(network, chip)
    total = sum(frame_bytes(n + 5) for n in _cut(image, room - 5))
    for k, n in enumerate(network.sizes):
        for numbers, width in ((n * network.fan_in(k), 2), (n, 4)):
            most = (room - 6) // width
            total += sum(frame_bytes(6 + width * c) for c in _cut(numbers, most))
    backs = [topology.feedback_shape(network, k) for k in range(len(network.sizes))]
    for shape in backs:
        most = (room - 6) // 2
        parts = _cut(math.prod(shape), most) if shape is not None else []
        total += sum(frame_bytes(6 + 2 * c) for c in parts)
    return total
