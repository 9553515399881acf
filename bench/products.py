"""Instructions that a board takes for a multiply-accumulate, by kind of product.

One network for each length of a sum, so that its kernels can be told apart: what the
kernels' functions execute in inference is the forward product; what they execute more
with a target is the transposed product (of the errors); what they execute more when the
chip learns is the update (outer product). Everything that a row needs is in it: loop,
rounding, saturation, calls. Counted exactly, in steps whose errors are not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.counting import Counted, counted
from bench.figures import Figure, exact
from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.devices.line import open_line
from hwgle.devices.port import GENEROUS
from hwgle.devices.serial import SerialDevice
from hwgle.network import Network
from hwgle.preflight import check_network
from hwgle.quantise import Image, Quantised, build_image, quantise_weights
from hwgle.session import calibrate_on
from hwgle.verify.drawing import draw_weights

SEED = 5
LENGTHS = (64, 256)  # of a sum
OTHERS = (64, 32, 16, 8, 4)  # neurons (columns for the transposed product): what fits
SHORT, LONG = 8, 24  # steps of the two runs whose difference counts
RATE = 2.0**-8
Shape = tuple[int, tuple[int, ...]]  # inputs, and neurons of each layer
# What must hold on a Cortex-M4: at most so many, by kind and length.
LIMITS = {
    ("forward", 64): 1.8,
    ("forward", 256): 1.2,
    ("transposed", 64): 2.6,
    ("transposed", 256): 2.6,
    ("outer nearest", 64): 4.6,
    ("outer nearest", 256): 4.6,
    ("outer stochastic", 64): 9.0,
    ("outer stochastic", 256): 9.0,
}


@dataclass(frozen=True)
class Products:
    """One kind of product on one board: `others` sums of `length` each. per_mac:
    instructions of the kernels for each multiply-accumulate."""

    board: str
    kind: str
    length: int
    others: int
    per_mac: float


@dataclass(frozen=True)
class Neurons:
    """The rest of a step, for each neuron of a layer of tanh neurons: `step` in inference;
    `rest` is what is neither neurons nor products; `learn`: what learning adds to it."""

    board: str
    neurons: int
    step: float
    rest: float
    learn: float


def network(inputs: int, sizes: Sequence[int]) -> Network:
    """Tanh layers, half slow, half instantaneous, that follow a target: no error is 0."""
    layers = [
        {
            "name": f"l{k}",
            "phi": "tanh",
            "populations": [
                {"size": n - n // 2, "tau_m": 1.2, "tau_r": 0.4},
                {"size": n // 2, "tau_m": 1.2, "tau_r": 1.2},
            ],
        }
        for k, n in enumerate(sizes)
    ]
    head = {"format": "hwgle/network/1", "name": "products", "dt": 0.2, "loss": "mse"}
    return Network.model_validate({**head, "inputs": inputs, "layers": layers})


def rounding(how: str) -> Chip:
    """The ideal chip with nearest or stochastic rounding of updates."""
    chip = Chip.load("ideal")
    plasticity = chip.plasticity.model_copy(update={"rounding": how})
    return chip.model_copy(update={"plasticity": plasticity})


@dataclass(frozen=True)
class Job:
    """What a board gets to run."""

    image: Image
    weights: Quantised
    x: NDArray[np.int16]
    y: NDArray[np.int16]

    def load(self, device: SerialDevice | Emulator) -> None:
        """Onto a device."""
        device.load(self.image, 1, uhat=False)
        device.write_weights(self.weights)

    def run(self, device: SerialDevice, steps: int, learn: bool, errors: bool) -> None:
        """From a reset on; returns when it is done."""
        device.reset()
        device.sync()
        y = self.y[:steps] if errors else None
        device.run(Block(self.x[:steps], y, learn=learn))
        device.sync()


def job_of(net: Network, chip: Chip) -> Job:
    """Drawn from the seed. Raises RuntimeError where errors of the last layer, which is the
    one that is measured, are 0 after the first steps: kernels skip those, and the count
    would flatter."""
    rng = np.random.default_rng(SEED)
    weights = draw_weights(net, rng)
    x = np.cumsum(rng.normal(0, 0.2, (LONG, 1, net.inputs)), axis=0)
    # Out of reach, up and down, so that errors stay.
    y = np.where(np.arange(net.outputs) % 2, 3.0, -3.0) + rng.normal(0, 0.3, (LONG, 1, net.outputs))
    scales = calibrate_on(net, chip, weights, x, y, learning=True)
    image = build_image(net, chip, scales, learning_rate=RATE)
    x16 = np.clip(np.rint(x * 2.0**scales.input), -8191, 8191).astype(np.int16)
    y16 = np.clip(np.rint(y * 2.0**scales.target), -32767, 32767).astype(np.int16)
    job = Job(image, quantise_weights(image, weights), x16, y16)
    with Emulator() as twin:
        job.load(twin)
        for learn in (False, True):
            twin.reset()
            block = Block(x16, y16, learn=learn, record=[(len(net.sizes) - 1, "e")])
            zeros = float(np.mean(twin.run(block).signals[0][SHORT:] == 0))
            if zeros > 0.02:
                raise RuntimeError(f"{zeros:.0%} of the errors are 0: nothing to measure")
    return job


def counts(
    board: Counted, device: SerialDevice, job: Job, learn: bool, errors: bool
) -> NDArray[np.float64]:
    """Instructions of a step: kernels of products, neurons, all else."""
    job.load(device)
    seen: list[NDArray[np.float64]] = []
    for steps in (SHORT, SHORT, LONG):
        device.write_weights(job.weights)  # or the last run would not begin as the others do
        before = np.array(board.parts(), dtype=np.float64)
        job.run(device, steps, learn, errors)
        seen.append(np.array(board.parts(), dtype=np.float64) - before)
    # The first run also brings what is kept of the weights up to date.
    return (seen[2] - seen[1]) / (LONG - SHORT)


def fitting(board: SerialDevice, shape: Callable[[int], Shape]) -> tuple[Network, int] | None:
    """The network of `shape(others)` with the most others that the board can hold."""
    chip = Chip.load("ideal")
    for others in OTHERS:
        net = network(*shape(others))
        if not check_network(net, chip, 1, 0, board.limits):
            return net, others
    return None


def _one_layer(length: int, others: int) -> Shape:
    return length, (others,)


def _two_layers(length: int, others: int) -> Shape:
    return 2, (others, length)


def measure(name: str) -> tuple[list[Products], Neurons | None]:
    """One board; what does not fit it is left out."""
    found: list[Products] = []
    neurons: Neurons | None = None
    with (
        counted(name) as board,
        SerialDevice(open_line(board.board.port, 115200), "the board", GENEROUS) as device,
    ):
        for length in LENGTHS:
            if fit := fitting(device, partial(_one_layer, length)):
                net, others = fit
                macs = length * others
                plain = counts(board, device, job_of(net, rounding("nearest")), False, False)
                found.append(Products(name, "forward", length, others, plain[0] / macs))
                for how in ("nearest", "stochastic"):
                    job = job_of(net, rounding(how))
                    idle = counts(board, device, job, False, True)
                    learns = counts(board, device, job, True, True)
                    update = (learns[0] - idle[0]) / macs
                    found.append(Products(name, f"outer {how}", length, others, update))
                if neurons is None:
                    more = (learns[2] - idle[2]) / others
                    neurons = Neurons(name, others, plain[1] / others, plain[2] / others, more)
            if fit := fitting(device, partial(_two_layers, length)):
                net, others = fit
                job = job_of(net, rounding("nearest"))
                plain = counts(board, device, job, False, False)
                errors = counts(board, device, job, False, True)
                back = (errors[0] - plain[0]) / (length * others)
                found.append(Products(name, "transposed", length, others, back))
    order = ("forward", "transposed", "outer nearest", "outer stochastic")
    return sorted(found, key=lambda r: (order.index(r.kind), r.length)), neurons


def figures(rows: Sequence[Products], neurons: Sequence[Neurons]) -> list[Figure]:
    """All of them; exact."""
    found = [
        exact(f"boards/{r.board}/{r.kind}/{r.length}/instructions per MAC", round(r.per_mac, 4))
        for r in rows
    ]
    for n in neurons:
        for what in ("step", "rest", "learn"):
            value = round(float(getattr(n, what)), 4)
            found.append(exact(f"boards/{n.board}/neuron/{what}/instructions", value))
    return found


def table(rows: Sequence[Products], neurons: Sequence[Neurons]) -> str:
    """As Markdown: what is allowed stands beside what a Cortex-M4 takes."""
    boards = list(dict.fromkeys(r.board for r in rows))
    heads = ("instructions for each", "of a sum of", "allowed on a Cortex-M4", *boards)
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    by_key = {(r.board, r.kind, r.length): r for r in rows}
    for kind, length in LIMITS:
        cells = [by_key.get((board, kind, length)) for board in boards]
        told = [f"{r.per_mac:.2f}" if r else "does not fit" for r in cells]
        name = f"product, {kind}"
        lines.append(f"| {name} | {length} | {LIMITS[kind, length]} | {' | '.join(told)} |")
    for what, told_as in (
        ("step", "neuron (tanh)"),
        ("rest", "neuron: the rest of a step"),
        ("learn", "neuron: learning, beside its weights"),
    ):
        some = {n.board: f"{getattr(n, what):.0f}" for n in neurons}
        lines.append(f"| {told_as} | | | {' | '.join(some.get(b, '-') for b in boards)} |")
    return "\n".join(lines)


def details(rows: Sequence[Products], neurons: Sequence[Neurons]) -> dict[str, Any]:
    """All that was counted, for the file."""
    return {
        "boards": {
            "products": [asdict(row) for row in rows],
            "neurons": [asdict(one) for one in neurons],
            "seed": SEED,
        }
    }
