"""Boards in numbers: flash, RAM, stack, and instructions per step, as a Markdown table.

    ./run python -m bench boards                       all boards, in QEMU
    ./run python -m bench boards stm32f405 --fit       and what board.yaml says under `speed`
    ./run python -m bench boards --products            instructions a product only

Instructions are those of the chip's code, counted one by one by a QEMU plugin: the same in
every run. The network is mnist1d-42k or mnist1d-15k where it fits, else the latter with
fewer neurons in each population. The stack mark is the board's own, after learning.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from bench import products
from bench.counting import Counted, counted
from hwgle.boards import build
from hwgle.boards.description import load, names
from hwgle.boards.size import size_of
from hwgle.chip import Chip
from hwgle.device import Block, Limits
from hwgle.devices.line import open_line
from hwgle.devices.port import GENEROUS
from hwgle.devices.serial import SerialDevice
from hwgle.network import Network
from hwgle.preflight import check_network
from hwgle.quantise import build_image, quantise_weights
from hwgle.session import calibrate_on
from hwgle.verify.drawing import draw_weights

HIDDEN = 6  # layers of mnist1d-15k
SHORT, LONG = 8, 40  # steps of the two runs whose difference counts
HEADS = ("board", "flash", "RAM", "stack: mark / bound / kept", "left for the chip", "network",
         "instructions a step", "learning", "steps/s at an instruction a cycle")  # fmt: skip
# Of the fit: inputs and layers, so different that each feature is seen by itself.
SHAPES = ((1, (2,)), (2, (12, 12)), (4, (6, 6, 6)), (40, (4,)), (24, (12,)), (4, (20,)),
          (16, (24, 10)), (64, (48, 10)), (1, (53, 53, 53, 53, 53, 53, 10)),
          (256, (64,)), (2, (64, 128)), (1, (90, 90, 90, 90, 90, 90, 10)))  # fmt: skip
FEATURES = ("step", "neuron", "forward", "back", "update")


@dataclass(frozen=True)
class Row:
    """What was measured on one board."""

    name: str
    mark: int
    memory: int
    network: Network
    run: float
    learn: float


def shrunk(factor: float, hidden: int = HIDDEN) -> Network:
    """mnist1d-15k with its hidden populations smaller, and only the first `hidden` of them."""
    network = Network.load("mnist1d-15k").model_dump()
    network["layers"] = [*network["layers"][:hidden], network["layers"][-1]]
    if hidden < HIDDEN:
        network["name"] += f"-{hidden}"
    for layer in network["layers"][:-1]:
        for population in layer["populations"]:
            population["size"] = max(1, round(population["size"] * factor))
    if factor < 1:
        network["name"] += f"-x{factor:.2f}"
    return Network.model_validate(network)


def largest(limits: Limits, chip: Chip) -> Network:
    """The largest network of that family that fits."""
    for network in (Network.load("mnist1d-42k"), Network.load("mnist1d-15k")):
        if not check_network(network, chip, 1, 0, limits):
            return network
    for hidden in range(HIDDEN, 0, -1):
        for percent in range(99, 0, -1):
            network = shrunk(percent / 100, hidden)
            if not check_network(network, chip, 1, 0, limits):
                return network
    raise SystemExit("not even the smallest network fits")


def talk(board: Counted) -> SerialDevice:
    """A session with it."""
    return SerialDevice(open_line(board.board.port, 115200), "the board", GENEROUS)


def per_step(
    board: Counted, device: SerialDevice, network: Network, chip: Chip, learn: bool
) -> float:
    """Instructions of one step."""
    rng = np.random.default_rng(5)
    weights = draw_weights(network, rng)
    x = np.cumsum(rng.normal(0, 0.3, (LONG, 1, network.inputs)), axis=0)
    y = np.array([1])
    scales = calibrate_on(network, chip, weights, x, y, learn)
    image = build_image(network, chip, scales, learning_rate=0.01 if learn else 0.0)
    device.load(image, 1, uhat=False)
    device.write_weights(quantise_weights(image, weights))
    samples = np.clip(np.rint(x * 2.0**scales.input), -8191, 8191).astype(np.int16)
    seen = []
    for steps in (SHORT, SHORT, LONG):
        device.reset()
        device.sync()
        before = board.chip()
        device.run(Block(samples[:steps], y if learn else None, learn=learn))
        device.sync()
        seen.append(board.chip() - before)
    # The first run also brings the weights' digest up to date.
    return (seen[2] - seen[1]) / (LONG - SHORT)


def measure(name: str) -> Row:
    """One board."""
    chip = Chip.load("ideal")
    with counted(name) as board, talk(board) as device:
        network = largest(device.limits, chip)
        run = per_step(board, device, network, chip, learn=False)
        learn = per_step(board, device, network, chip, learn=True)
        mark = device.status()["stack_used"]
        assert device.limits.memory is not None
        return Row(name, mark, device.limits.memory, network, run, learn)


def features(network: Network, learn: bool) -> list[float]:
    """What hwgle.preflight.pace counts: a step, neurons, products, weights that learn."""
    products = [n * network.fan_in(k) for k, n in enumerate(network.sizes)]
    back = sum(products[1:])
    return [1, sum(network.sizes), sum(products), back, sum(products) if learn else 0]


def shaped(inputs: int, sizes: Sequence[int]) -> Network:
    """A network of these sizes, half of each layer slow, half instantaneous."""
    layers = [
        {
            "name": f"l{k}",
            "phi": "tanh",
            "populations": [
                {"size": n - n // 2, "tau_m": 1.2, "tau_r": 0.2},
                {"size": n // 2, "tau_m": 1.2, "tau_r": 1.2},
            ],
        }
        for k, n in enumerate(sizes)
    ]
    head = {"format": "hwgle/network/1", "name": "shaped", "dt": 0.2, "loss": "cross_entropy"}
    return Network.model_validate({**head, "inputs": inputs, "layers": layers})


def fit(name: str) -> dict[str, float]:
    """Least squares over networks of several shapes, with and without learning; `worst` is
    the largest relative difference that is left."""
    chip = Chip.load("ideal")
    rows, counts = [], []
    with counted(name) as board, talk(board) as device:
        for inputs, sizes in SHAPES:
            network = shaped(inputs, sizes)
            if check_network(network, chip, 1, 0, device.limits):
                continue
            for learn in (False, True):
                rows.append(features(network, learn))
                counts.append(per_step(board, device, network, chip, learn))
    a, b = np.array(rows), np.array(counts)
    # Relative errors count, so that small networks are not drowned by large ones.
    found, _ = nnls(a / b[:, None], np.ones(len(b)))
    worst = float(np.abs(a @ found / b - 1).max())
    return {**dict(zip(FEATURES, map(float, found), strict=True)), "worst": worst}


def line(row: Row) -> str:
    """A row of the table."""
    board = load(row.name).board
    size = size_of(board, build(row.name))
    hz = board.speed.hz if board.speed is not None else 0
    cells = (
        row.name,
        f"{size.flash / 1024:.1f} K",
        f"{size.ram} B",
        f"{row.mark} / {size.stack_bound} / {size.stack} B",
        f"{row.memory:,} B",
        f"{row.network.name}, {row.network.parameters:,} parameters",
        f"{row.run:,.0f}",
        f"{row.learn:,.0f}",
        f"{hz / row.run:,.0f} / {hz / row.learn:,.0f}" if hz else "-",
    )
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str]) -> int:
    """Print the table, or what board.yaml should say."""
    parser = argparse.ArgumentParser(prog="python -m bench boards", description=__doc__)
    emulated = [name for name in names() if load(name).board.qemu is not None]
    parser.add_argument("boards", nargs="*", default=emulated, metavar="BOARD")
    parser.add_argument("--fit", action="store_true", help="fit `speed` of board.yaml as well")
    parser.add_argument(
        "--products", action="store_true", help="instructions for each multiply-accumulate only"
    )
    options = parser.parse_args(argv)
    if not options.products:
        print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
        for name in options.boards:
            print(line(measure(name)), flush=True)
        print()
    found = [products.measure(name) for name in options.boards]
    neurons = [one for _, one in found if one is not None]
    print(products.table([row for rows, _ in found for row in rows], neurons), flush=True)
    for name in options.boards if options.fit else ():
        told = ", ".join(f"{key}: {value:.4g}" for key, value in fit(name).items())
        print(f"\n{name}: {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
