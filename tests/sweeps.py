"""A small experiment that sweeps are tested with, in files as a user has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hwgle.network import Network
from hwgle.sweep.executors import Workers
from hwgle.sweep.study import Study, load_sweep
from hwgle.weights import initial, save

NETWORK: dict[str, Any] = {
    "format": "hwgle/network/1", "name": "tiny", "dt": 0.2, "inputs": 1,
    "loss": "cross_entropy",
    "layers": [
        {"name": "hidden", "phi": "tanh", "populations": [{"size": 6, "tau_m": 1.2, "tau_r": 0.2}]},
        {"name": "out", "phi": "linear", "populations": [{"size": 10, "tau_m": 1.2, "tau_r": 1.2}]},
    ],
}  # fmt: skip
EXPERIMENT = {
    "format": "hwgle/experiment/1", "name": "tiny", "network": "net.yaml", "chip": "ideal8",
    "task": {"name": "mnist1d", "seed": 3, "validation_seed": 4, "train": 20, "test": 10},
    "training": {"rule": "adam", "epochs": 1, "batch": 10, "learning_rate": 1e-3},
}  # fmt: skip
BITS = [
    {"key": "chip.weight.bits", "low": 3, "high": 5},
    {"key": "chip.rate.bits", "values": [4, 8]},
]
SWEEP: dict[str, Any] = {
    "format": "hwgle/sweep/1", "name": "tiny-bits", "experiment": "exp.yaml",
    "weights": "w.npz", "do": {"kind": "evaluate"}, "axes": BITS,
}  # fmt: skip
ROUGH = [{"key": "chip.weight.mismatch", "values": [0.0, 0.3]}]


def write(folder: Path, **changes: Any) -> Path:
    """All files of a sweep in a folder; the path of the sweep itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.yaml").write_text(yaml.safe_dump(NETWORK))
    (folder / "exp.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    save(folder / "w.npz", initial(Network.model_validate(NETWORK), 3))
    data = {key: value for key, value in {**SWEEP, **changes}.items() if value is not None}
    path = folder / "sweep.yaml"
    # one key a line and no aliases, so that mistakes have lines
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in data.items()))
    return path


def study(folder: Path, **changes: Any) -> Study:
    """The same, read."""
    return load_sweep(str(write(folder, **changes)))


@contextmanager
def threads(count: int = 2) -> Iterator[Workers]:
    """Workers in this process."""
    with ThreadPoolExecutor(count) as pool:
        yield Workers(pool, count)
