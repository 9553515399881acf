"""`hwgle chip calibrate` and `twin`, and what run and eval make of a calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.network import Network
from hwgle.reference import Reference
from hwgle.weights import load

CHIP = """\
format: hwgle/chip/1
name: planted
weight: {bits: 14, stored_bits: 16, mismatch: 0.05}
rate: {bits: 14}
input: {bits: 14}
error: {bits: 14}
leak: {mismatch: 0.1}
activation: {gain: 0.05, offset: 0.1}
readout: {bits: 10, offset: 2.0}
"""
CALIBRATE = ["chip", "calibrate", "net.yaml", "--chip", "planted.yaml:5", "--out", "c.npz"]
RUN = ["run", "net.yaml", "--weights", "w.npz", "--input", "x.npy"]


def hwgle(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.fixture
def bench(files: Path) -> Path:
    (files / "planted.yaml").write_text(CHIP)
    t = np.arange(300)[:, None, None]
    np.save("x.npy", np.sin(t * np.array([0.05, 0.12]) + np.array([[0.0, 1.0], [2.0, 4.0]])))
    done = hwgle(*CALIBRATE)
    assert done.exit_code == 0, done.output
    return files


def test_a_chip_is_calibrated(files: Path) -> None:
    (files / "planted.yaml").write_text(CHIP)
    done = hwgle(*CALIBRATE, "--plot", "picture")
    assert done.exit_code == 0, done.output
    for word in ("Standard errors", "Furthest from design", "hidden[", "synapses (%)", "steps"):
        assert word in done.output
    assert (files / "picture.png").stat().st_size > 20_000
    assert b"<svg" in (files / "picture.svg").read_bytes()
    before = (files / "c.npz").read_bytes()
    assert hwgle(*CALIBRATE).exit_code == 0
    assert (files / "c.npz").read_bytes() == before


def test_a_twin_is_made_and_tried(bench: Path) -> None:
    words = ["chip", "twin", "c.npz", "--chip", "planted.yaml:5", "--out", "twin.yaml"]
    done = hwgle(*words, "--network", "net.yaml", "--weights", "w.npz")
    assert done.exit_code == 0, done.output
    better = [float(line.split()[-2]) for line in done.output.splitlines()[1:3]]
    assert min(better) > 20
    twin = Chip.load("twin.yaml")
    assert twin.measured.layers[0].tau_m
    assert hwgle(*words).exit_code == 0
    assert Chip.load("twin.yaml") == twin


def test_a_run_through_its_calibration_is_nearer_to_what_was_asked(bench: Path) -> None:
    words = [*RUN, "--chip", "planted.yaml:5"]
    assert hwgle(*words, "--out", "plain.npz").exit_code == 0
    done = hwgle(*words, "--calibration", "c.npz", "--record", "r", "--out", "right.npz")
    assert done.exit_code == 0, done.output
    network = Network.load("net.yaml")
    x = np.load("x.npy")
    oracle = Reference(network, load("w.npz", network), batch=x.shape[1])
    want = oracle.run(x)
    off = {}
    for name in ("plain", "right"):
        with np.load(f"{name}.npz") as file:
            off[name] = np.abs(file["output"] - want["output"])[50:].mean()
    assert off["right"] < 0.1 * off["plain"]
    with np.load("right.npz") as file:
        assert np.abs(file["hidden.r"] - want["hidden.r"])[50:].mean() < 0.01
        assert np.array_equal(file["out.r"], file["output"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (["--chip", "planted.yaml:6"], "identity: found a calibration of the chip"),
        (["--chip", "ideal"], "identity"),
        (["--chip", "planted.yaml:5", "--calibration", "w.npz"], "damaged data"),
        (["--chip", "planted.yaml:5", "--calibration", "none.npz"], "no such file"),
    ],
)
def test_what_is_not_of_this_chip_is_refused(bench: Path, change: list[str], word: str) -> None:
    done = hwgle(*RUN, "--calibration", "c.npz", "--out", "o.npz", *change)
    assert done.exit_code == 4
    assert word in done.output
    assert not (bench / "o.npz").exists()


def test_another_network_is_refused(bench: Path) -> None:
    text = (bench / "net.yaml").read_text().replace("size: 5", "size: 4")
    (bench / "other.yaml").write_text(text)
    done = hwgle("chip", "calibrate", "other.yaml", "--chip", "planted.yaml:5", "--out", "o.npz")
    assert done.exit_code == 0
    done = hwgle(*RUN, "--chip", "planted.yaml:5", "--calibration", "o.npz", "--out", "r.npz")
    assert done.exit_code == 4
    assert "network: found a calibration of a network of 2 inputs and 7 + 3 neurons" in done.output


def test_usage(bench: Path) -> None:
    done = hwgle("chip", "twin", "c.npz", "--chip", "planted.yaml:5", "--out", "t.yaml",
                 "--weights", "w.npz")  # fmt: skip
    assert (done.exit_code, "name it with --network" in done.output) == (2, True)
    done = hwgle(*CALIBRATE[:-1], "nowhere/c.npz")
    assert (done.exit_code, "there is no folder" in done.output) == (2, True)
    done = hwgle("chip", "twin", "c.npz", "--chip", "planted.yaml:6", "--out", "t.yaml")
    assert done.exit_code == 4
