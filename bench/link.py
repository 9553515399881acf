"""The wire in numbers: efficiency, throughput on a paced line, round trips.

    python -m bench link            on host:
    python -m bench link qemu:stm32f405 /dev/ttyACM0

Bytes of payload over all bytes that travelled with it, both as the link counts them;
throughput against the line's rate, where the line takes ten bits for a byte.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hwgle.chip import Chip
from hwgle.cli.table import table
from hwgle.device import Block
from hwgle.devices import open_board
from hwgle.devices.line import BITS
from hwgle.devices.serial import SerialDevice
from hwgle.network import Network
from hwgle.quantise import build_image, quantise_weights
from hwgle.session import calibrate_on
from hwgle.weights import initial

PACE = 1_000_000  # bits per second
INPUTS = 64
NETWORK = {
    "format": "hwgle/network/1",
    "name": "wide",
    "dt": 0.1,
    "inputs": INPUTS,
    "loss": "mse",
    "layers": [
        {"name": "out", "phi": "tanh", "populations": [{"size": 1, "tau_m": 0.4, "tau_r": 0.1}]}
    ],
}


def moved(device: SerialDevice, call: Callable[[], Any]) -> tuple[dict[str, int], float]:
    """What the link counted during a call, and the seconds that it took."""
    before, begun = device.port.statistics(), time.perf_counter()
    call()
    seconds = time.perf_counter() - begun
    after = device.port.statistics()
    return {name: after[name] - before[name] for name in after}, seconds


def wide(device: SerialDevice) -> np.ndarray[Any, Any]:
    """Load a network whose steps cost more on the wire than on the chip; one step's input."""
    network, chip = Network.model_validate(NETWORK), Chip.load("ideal")
    weights = initial(network, 1)
    x = np.random.default_rng(1).uniform(-1, 1, (64, 1, INPUTS))
    image = build_image(network, chip, calibrate_on(network, chip, weights, x, None))
    device.load(image, 1, uhat=False)
    device.write_weights(quantise_weights(image, weights))
    return (x * 1000).astype(np.int16)


def stream(device: SerialDevice, steps: int, **options: Any) -> Callable[[], Any]:
    """Runs that many steps, two blocks under way at once."""
    x = np.resize(wide(device), (steps // 4, 1, INPUTS))

    def call() -> None:
        under_way = [device.submit(Block(x, **options)) for _ in range(2)]
        for _ in range(2):
            under_way.append(device.submit(Block(x, **options)))
            under_way.pop(0).result()
        for pending in under_way:
            pending.result()

    return call


def inward(url: str, steps: int) -> list[str]:
    """Input to the chip: payload over bytes, both ways counted."""
    with open_board(url) as device:
        counts, seconds = moved(device, stream(device, steps))
        largest = device.port.largest
    payload = steps * INPUTS * 2
    share = payload / counts["bytes_out"]
    rate = counts["bytes_out"] * BITS / seconds / PACE if "pace" in url else None
    paced = "" if rate is None else f"{100 * rate:.1f} %"
    return [url, "input", str(largest), f"{payload / seconds / 1e3:.0f}", f"{100 * share:.1f} %",
            paced, str(counts["retransmitted"])]  # fmt: skip


def both_ways(url: str, count: int, size: int = 256) -> list[str]:
    """Echoes of the largest messages, many under way."""
    with open_board(url) as device:
        data = os.urandom(min(size, device.port.largest) - 1)
        counts, seconds = moved(device, lambda: device.echo_many([data] * count))
        largest = device.port.largest
    payload = count * (len(data) + 1)
    share = 2 * payload / (counts["bytes_out"] + counts["bytes_in"])
    rate = counts["bytes_out"] * BITS / seconds / PACE if "pace" in url else None
    paced = "" if rate is None else f"{100 * rate:.1f} %"
    return [url, "echo", str(largest), f"{payload / seconds / 1e3:.0f}", f"{100 * share:.1f} %",
            paced, str(counts["retransmitted"])]  # fmt: skip


def round_trips(url: str, count: int) -> list[str]:
    """One echo of 64 bytes at a time; milliseconds."""
    data, times = os.urandom(64), []
    with open_board(url) as device:
        device.echo_many([data] * 200)
        for _ in range(count):
            begun = time.perf_counter()
            device.echo(data)
            times.append(1e3 * (time.perf_counter() - begun))
    p50, p90, p99 = np.quantile(times, [0.5, 0.9, 0.99])
    return [url, f"{p50:.3f}", f"{p90:.3f}", f"{p99:.3f}", f"{max(times):.2f}"]


def main(argv: list[str]) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench link", description=__doc__)
    parser.add_argument("device", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    given = parser.parse_args(argv)
    part = 10 if given.quick else 1
    urls = given.device or ["host:?payload=256", f"fault+host:?payload=256&pace={PACE}"]
    rows = [["device", "what", "payload", "kB/s", "of the bytes", "of the line", "repeated"]]
    for url in urls:
        steps = (8000 if "pace" in url else 20000) // part
        if url.startswith("qemu:") or not url.startswith(("host:", "fault+")):
            steps = 1200 // part
        rows.append(inward(url, steps // 16 * 16))
        rows.append(both_ways(url, steps // 4))
    print(table(rows))
    print()
    trips = [["round trip of 64 bytes, ms", "p50", "p90", "p99", "most"]]
    trips += [
        round_trips(url, 2000 // part) for url in given.device or ["host:", "host:?payload=256"]
    ]
    print(table(trips))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
