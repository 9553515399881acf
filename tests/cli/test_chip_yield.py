"""`hwgle chip yield`: what it says and writes, Ctrl-C, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.identity import identity_hash
from hwgle.measuring import Calibration
from hwgle.network import Network
from hwgle.weights import initial, save

PATIENCE = 180.0
NETWORK = """\
format: hwgle/network/1
name: small
dt: 0.2
inputs: 1
loss: cross_entropy
layers:
  - {name: hidden, phi: tanh, populations: [{size: 6, tau_m: 0.6, tau_r: 0.2}]}
  - {name: out, phi: linear, populations: [{size: 10, tau_m: 1.2, tau_r: 1.2}]}
"""
EXPERIMENT = """\
format: hwgle/experiment/1
name: tiny
network: net.yaml
chip: mismatch10
task: {name: mnist1d, seed: 1, validation_seed: 2, train: 40, test: 10}
training: {rule: adam, epochs: 1, batch: 20, learning_rate: 1e-3}
"""
YIELD = ["chip", "yield", "e.yaml", "--weights", "w.npz", "--chips", "3", "--first-seed", "5"]
YIELD += ["--no-calibrate"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(NETWORK)
    Path("e.yaml").write_text(EXPERIMENT)
    save("w.npz", initial(Network.load("net.yaml"), 3))
    return tmp_path


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def test_writes_chips_summary_and_curves(here: Path) -> None:
    result = invoke(*YIELD, "--out", "out")
    assert result.exit_code == 0, result.output
    for text in ("mismatch10:5 to 7", "offset-calibrated", "mean", "after 1 epoch on the chip"):
        assert text in result.output
    lines = [json.loads(text) for text in Path("out/chips.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [5, 6, 7]
    assert lines[1]["identity"] == identity_hash(Chip.load("mismatch10:6"))
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["lines"] == lines
    assert summary["experiment"]["chip"] == "mismatch10"
    raw = [line["learned"]["raw"] for line in lines]
    assert summary["stages"]["learned"]["raw"]["mean"] == pytest.approx(np.mean(raw))
    assert list(summary["stages"]) == ["before", "learned"]
    for name in ("yield.svg", "yield.png", "chips/6/weights.npz", "chips/6/summary.json"):
        assert Path("out", name).stat().st_size > 0
    again = invoke(*YIELD, "--workers", "1", "--out", "out")  # nothing is left to do
    assert again.output.split("\ntime")[0].split("\n\n", 1)[1] in result.output


def test_calibrated_before_it_learns(here: Path) -> None:
    result = invoke(*YIELD, "--chips", "1", "--calibrate", "--out", "out")
    assert result.exit_code == 0, result.output
    assert "after calibration" in result.output
    summary = json.loads(Path("out/summary.json").read_text())
    assert list(summary["stages"]) == ["before", "calibrated", "learned"]
    assert Path("out/chips/5/calibration.npz").exists()


def test_weights_learned_after_a_calibration_say_so(here: Path) -> None:
    words = [*YIELD, "--chips", "1", "--out", "out"]
    assert invoke(*words, "--calibrate").exit_code == 0
    own = Calibration.load(Path("out/chips/5/calibration.npz")).hash()
    again = [*YIELD, "--chips", "1", "--weights", "out/chips/5/weights.npz", "--out", "more"]
    result = invoke(*again, "--calibrate")
    assert result.exit_code == 4
    assert f"already corrected by calibration {own}" in result.output
    assert not Path("more").exists()
    result = invoke("eval", "e.yaml", "--weights", "out/chips/5/weights.npz", "--chip",
                    "mismatch10:5", "--calibration", "out/chips/5/calibration.npz")  # fmt: skip
    assert result.exit_code == 4
    assert f"already corrected by calibration {own}" in result.output
    assert invoke(*again).exit_code == 0


def test_one_chip_is_what_train_and_eval_make_of_it(here: Path) -> None:
    """Results can be made again one by one, with the other commands."""
    assert invoke(*YIELD, "--out", "out").exit_code == 0
    line = json.loads(Path("out/chips.jsonl").read_text().splitlines()[0])
    chip = ["--chip", "mismatch10:5"]
    args = ["train", "e.yaml", "--weights", "w.npz", *chip, "--seed", "5", "--out", "one"]
    assert invoke(*args).exit_code == 0
    with np.load("one/weights.npz") as a, np.load("out/chips/5/weights.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in b.files)
    for weights, stage in (("w.npz", "before"), ("one/weights.npz", "learned")):
        args = ["eval", "e.yaml", "--weights", weights, *chip, "--no-float", "--json", "e.json"]
        assert invoke(*args).exit_code == 0
        found = json.loads(Path("e.json").read_text())["chip"]
        assert found["raw"] == line[stage]["raw"]
        assert found["calibrated"] == line[stage]["offset_calibrated"]


def test_without_learning(here: Path) -> None:
    result = invoke(*YIELD, "--chip", "ideal8", "--epochs", "0", "--out", "out")
    assert result.exit_code == 0, result.output
    summary = json.loads(Path("out/summary.json").read_text())
    assert list(summary["stages"]) == ["before"]
    assert summary["profile"]["name"] == "ideal8"


def test_refusals(here: Path) -> None:
    for args, code, message in (
        (["--chip", "mismatch10:3", "--out", "out"], 2, "name its profile"),
        (["--chips", "0", "--out", "out"], 2, "--chips"),
        (["--first-seed", str(2**63 - 1), "--out", "out"], 2, "seeds above"),
        (["--out", "w.npz"], 2, "not a folder"),
        (["--chip", "nope", "--weights", "gone.npz", "--out", "out"], 4, "nope"),
        (["--chip", "nope", "--weights", "gone.npz", "--out", "out"], 4, "gone.npz"),
    ):
        result = invoke(*YIELD, *args)
        assert result.exit_code == code, result.output
        assert message in result.output
    assert not Path("out").exists()
    assert invoke(*YIELD, "--epochs", "0", "--chips", "1", "--out", "out").exit_code == 0
    result = invoke(*YIELD, "--chips", "1", "--out", "out")
    assert result.exit_code == 2
    assert "belongs to another" in result.output


def test_ctrl_c_leaves_what_is_finished_and_the_same_command_continues(
    here: Path, environment: dict[str, str]
) -> None:
    Path("e.yaml").write_text(EXPERIMENT.replace("epochs: 1", "validate_every: 30, epochs: 30"))
    args = [*YIELD, "--workers", "2", "--out", "out"]
    command = [sys.executable, "-m", "hwgle", *args]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + PATIENCE
    while not Path("out/chips.jsonl").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert "of 3 chips are finished" in said
    assert "Traceback" not in said
    finished = Path("out/chips.jsonl").read_text().splitlines()
    assert 1 <= len(finished) < 3
    assert not Path("out/summary.json").exists()
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    lines = Path("out/chips.jsonl").read_text().splitlines()
    assert set(finished) < set(lines)
    assert invoke(*YIELD, "--out", "whole").exit_code == 0
    assert Path("whole/chips.jsonl").read_text().splitlines() == lines
