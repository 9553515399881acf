"""Whether a network fits a board, before anything is sent: need against have.

`check` is what every load onto a board asks first (hwgle/devices/serial.py), and with it
run, eval, train, stream and verify; `hwgle preflight` prints more: wire.py has the bytes on
the line, pace.py the smallest step in real time.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwgle._core import lib
from hwgle.chip import Chip
from hwgle.device import Device, Limits
from hwgle.errors import DeviceRefused
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.preflight.memory import BOARD, HERE, HOST, Machine, board_bytes, weights_bytes
from hwgle.quantise import Image

__all__ = ["Problem", "check", "check_network", "machine_of", "refuse"]


@dataclass(frozen=True)
class Problem:
    """Something that does not fit. reason: as a board's refusal names it."""

    what: str
    need: int
    have: int
    unit: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.need} {self.unit} are needed, {self.have} are there"


def check(
    image: Image, batch: int, options: int, limits: Limits, machine: Machine = BOARD
) -> list[Problem]:
    """What of an image does not fit a body. options: of gle_open (GLE_WITH_GRADIENT ...)."""
    return check_network(
        image.network, image.chip, batch, options, limits, machine, image.learner
    )


def check_network(
    network: Network,
    chip: Chip,
    batch: int,
    options: int,
    limits: Limits,
    machine: Machine = BOARD,
    learner: OnChip = PLAIN,
) -> list[Problem]:
    """The same for a network of which there is no image yet."""
    problems = []
    if batch > limits.max_batch:
        problems.append(Problem("batch", batch, limits.max_batch, "streams at once", "bad_value"))
    elif limits.memory is not None:
        need = board_bytes(network, chip, batch, options, machine, learner)
        if need > limits.memory:
            problems.append(Problem("memory", need, limits.memory, "bytes", "no_memory"))
    formats = 5 + 2 * len(network.layers)  # FORMATS_ARE of all layers is one message
    if limits.payload and formats > limits.payload:
        what = f"a message that tells the formats of {len(network.layers)} layers"
        problems.append(Problem(what, formats, limits.payload, "bytes", "too_long"))
    if options & lib.GLE_WITH_GRADIENT and not limits.gradient:
        problems.append(Problem("reading gradients out", 1, 0, "such abilities", "bad_value"))
    return problems


def refuse(name: str, problems: list[Problem]) -> None:
    """Raises DeviceRefused if there are problems; nothing has been sent."""
    if problems:
        first = problems[0]
        text = f"{name}: this network does not fit: " + "; ".join(map(str, problems))
        raise DeviceRefused(text, "IMAGE_BEGIN", first.reason, first.need, first.have)


def machine_of(device: Device) -> Machine:
    """The machine that a body's chip lives on, for the sizes of its pointers."""
    info = getattr(device, "info", None)
    if info is None:
        return HERE
    return HOST if info.name == "host" else BOARD


def replaced_in_place(network: Network, chip: Chip, batch: int, options: int, limits: Limits,
                      machine: Machine = BOARD, learner: OnChip = PLAIN) -> bool:  # fmt: skip
    """Whether a new set of weights fits only once: it is out of service while written."""
    if limits.memory is None:
        return False
    free = limits.memory - board_bytes(network, chip, batch, options, machine, learner)
    return free < weights_bytes(network)
