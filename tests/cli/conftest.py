"""A small network with everything that `hwgle run` needs, in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hwgle.network import Network
from hwgle.weights import initial, save

NETWORK = """\
format: hwgle/network/1
name: small
dt: 0.1
inputs: 2
loss: cross_entropy
layers:
  - name: hidden
    phi: tanh
    populations:
      - {size: 5, tau_m: 0.4, tau_r: 0.1}
      - {size: 3, tau_m: 0.4, tau_r: 0.4}
  - name: out
    phi: linear
    populations:
      - {size: 3, tau_m: 0.2, tau_r: 0.2}
"""
STEPS, STREAMS = 40, 6


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with net.yaml, w.npz, x.npy and y.npy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("net.yaml").write_text(NETWORK)
    save("w.npz", initial(Network.load("net.yaml"), 3))
    rng = np.random.default_rng(5)
    np.save("x.npy", rng.normal(size=(STEPS, STREAMS, 2)))
    np.save("y.npy", rng.integers(0, 3, STREAMS))
    return tmp_path


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For `python -m hwgle` in a process of its own."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1"}
