"""`hwgle chip calibrate` and `twin`, and what run and eval make of a calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.identity import identity_hash
from hwgle.measuring import Calibration
from hwgle.network import Network
from hwgle.reference import Reference
from hwgle.weights import initial, load, save

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
    assert twin.name == "planted-twin"
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
        (["--chip", "planted.yaml:5", "--calibration", "w.npz"], "header: found nothing"),
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


def test_a_chip_that_is_not_ideal_is_named_by_its_identity(bench: Path) -> None:
    assert (
        hwgle("chip", "twin", "c.npz", "--chip", "planted.yaml:5", "--out", "t.yaml").exit_code == 0
    )
    for spec, name in (("planted.yaml:5", "planted:5"), ("t.yaml", "planted-twin:0")):
        done = hwgle(*RUN, "--chip", spec, "--out", "o.npz")
        digits = identity_hash(Chip.load(spec))[:8]
        assert f"on chip {name} (identity {digits}), emu:" in done.output
    assert "on chip ideal:3, emu:" in hwgle(*RUN, "--chip", "ideal:3", "--out", "o.npz").output


def test_corrected_weights_are_not_corrected_again(bench: Path) -> None:
    words = [*RUN, "--chip", "planted.yaml:5"]
    assert hwgle(*words, "--calibration", "c.npz", "--out", "right.npz").exit_code == 0
    own = Calibration.load(Path("c.npz")).hash()
    with np.load("right.npz") as file:
        assert str(file["calibration"]) == own
    again = [*words, "--weights", "right.npz", "--out", "o.npz"]
    assert hwgle(*again).exit_code == 0
    with np.load("o.npz") as file:
        assert "calibration" not in file
    (bench / "o.npz").unlink()
    done = hwgle(*again, "--calibration", "c.npz")
    assert done.exit_code == 4
    assert f"calibration: found weights already corrected by calibration {own}" in done.output
    assert not (bench / "o.npz").exists()


def edited(**changes: Any) -> None:
    """c.npz as bad.npz: `header_KEY` changes the header, another key (`.` as `__`) an array;
    None removes it."""
    with np.load("c.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    for key, value in changes.items():
        where, name = (
            (header, key[7:]) if key.startswith("header_") else (arrays, key.replace("__", "."))
        )
        if value is None:
            del where[name]
        else:
            where[name] = value(where.get(name)) if callable(value) else value
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez("bad.npz", **arrays)


def with_first(value: float) -> Any:
    def change(values: Any) -> Any:
        values.flat[0] = value
        return values

    return change


BAD = {
    "tau huge": ({"hidden__tau_m": with_first(1e300)}, "hidden.tau_m: found 1e+300"),
    "tau zero": ({"hidden__tau_r": with_first(0.0)}, "hidden.tau_r: found 0 at index"),
    "tau nan": ({"hidden__tau_r": with_first(np.nan)}, "hidden.tau_r: found nan"),
    "gain": ({"hidden__gain": with_first(0.0)}, "hidden.gain: found 0 at index"),
    "split": ({"hidden__activation_gain": with_first(-0.1)}, "hidden.activation_gain: found -0.1"),
    "read-out": ({"out__readout_gain": with_first(-1.0)}, "out.readout_gain: found -1"),
    "input": ({"inputs__input_gain": with_first(-1.0)}, "inputs.input_gain: found -1"),
    "offset": ({"hidden__offset": with_first(1e30)}, "hidden.offset: found 1e+30"),
    "error": ({"hidden__offset__error": with_first(-1e-9)}, "hidden.offset.error: found -1e-09"),
    "residual": ({"out__residual": with_first(np.inf)}, "out.residual: found inf"),
    "curve": ({"out__curve__rate": with_first(np.nan)}, "out.curve.rate: found nan"),
    "synapse": ({"hidden__synapse": with_first(np.nan)}, "hidden.synapse: found nan"),
    "kind": ({"hidden__stuck": with_first(7)}, "hidden.stuck: found numbers"),
    "array": ({"out__offset": None}, "out.offset: found nothing, the key is missing"),
    "length": ({"out__offset": lambda v: v[:-1]}, "out.offset: found 2 values"),
    "dtype": ({"out__offset": lambda v: v.astype(int)}, "out.offset: found 3 values int64"),
    "more": ({"extra": lambda _: np.ones(2)}, "extra: found an array that does not belong"),
    "no format": ({"header_format": None}, "header: found format None"),
    "no steps": ({"header_steps": None}, "header: found 'steps', which is missing"),
    "new key": ({"header_zzz": 1}, "header: found 'zzz', which does not belong"),
    "sizes": ({"header_sizes": [2, 8, 10**12]}, "header: found sizes"),
    "no sizes": ({"header_sizes": []}, "header: found sizes"),
    "fewer": ({"header_sizes": [2, 8]}, "header: found names"),
    "names": ({"header_names": ["out", "out"]}, "header: found names"),
    "flags": ({"header_synapses": [True, False]}, "does not belong here"),
    "no flags": ({"header_synapses": []}, "header: found synapses"),
    "curves": ({"header_curves": []}, "header: found curves"),
    "phi": ({"header_curves": [{"phi": "sin", "lsb": 1.0}] * 2}, "header: found curves"),
    "levels": ({"header_levels": 2.5}, "header: found levels"),
    "steps": ({"header_steps": -1}, "header: found steps"),
    "identity": ({"header_identity": "x"}, "header: found identity"),
    "network": ({"header_network": "0" * 64}, "header: found network"),
    "facts": ({"header_facts": {}}, "header: found sweep_db"),
    "db": ({"header_facts": {"sweep_db": [[1.0, 2.0]]}}, "header: found sweep_db"),
    "inf": ({"header_facts": {"sweep_db": [[1.0, np.inf]] * 2}}, "header: found sweep_db"),
    "no synapses": (
        {"header_synapses": [True, False], "out__stuck": None, "out__synapse": None,
         "out__synapse__error": None},
        "out.synapse: found no gains",
    ),
}  # fmt: skip
EVAL = """\
format: hwgle/experiment/1
name: e
network: net10.yaml
chip: planted.yaml:5
task: {name: mnist1d, seed: 1, validation_seed: 2, train: 20, test: 10}
training: {rule: adam, epochs: 1, batch: 20, learning_rate: 1e-3}
"""


def test_a_well_formed_but_wrong_file_is_one_message(bench: Path) -> None:
    (bench / "e.yaml").write_text(EVAL)
    text = (bench / "net.yaml").read_text().replace("inputs: 2", "inputs: 1")
    (bench / "net10.yaml").write_text(
        text.replace("- {size: 3, tau_m: 0.2", "- {size: 10, tau_m: 0.2")
    )
    save("w10.npz", initial(Network.load("net10.yaml"), 3))
    for name, (change, words) in BAD.items():
        edited(**change)
        chip = ["--chip", "planted.yaml:5"]
        for command in (
            ["chip", "twin", "bad.npz", *chip, "--out", "o.yaml"],
            [*RUN, *chip, "--calibration", "bad.npz", "--out", "o.npz"],
            ["eval", "e.yaml", "--weights", "w10.npz", *chip, "--calibration", "bad.npz"],
        ):
            done = hwgle(*command)
            assert done.exit_code == 4, (name, done.output, done.exception)
            assert f"bad.npz: {words}" in done.output or words == "does not belong here", name
            assert words in done.output, (name, done.output)
            lines = done.output.strip().splitlines()
            if (name, command[0]) != ("no synapses", "eval"):  # whose network is another one
                assert len(lines) == 1, (name, done.output)
        assert not (bench / "o.yaml").exists()
        assert not (bench / "o.npz").exists()


@pytest.mark.parametrize(
    ("part", "spread"),
    [
        ("leak", "{bits: 2, mismatch: 1, tracks: false}"),
        ("input", "{bits: 2, offset: 0.4, gain: 1}"),
        ("activation", "{gain: 1, offset: 10, dead: 0.5}"),
        ("activation", "{dead: 1}"),
    ],
)
def test_every_chip_that_is_allowed_has_a_twin(files: Path, part: str, spread: str) -> None:
    """A calibration is always one that can be read, and its twin one that can be built."""
    design = dict.fromkeys(("rate", "input", "error"), "{bits: 8}")
    design |= {"weight": "{bits: 8, stored_bits: 8}", part: spread}
    lines = [f"{name}: {value}\n" for name, value in design.items()]
    (files / "planted.yaml").write_text("format: hwgle/chip/1\nname: x\n" + "".join(lines))
    assert hwgle(*CALIBRATE).exit_code == 0
    chip = ["--chip", "planted.yaml:5"]
    done = hwgle("chip", "twin", "c.npz", *chip, "--out", "t.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    assert hwgle(*RUN, "--chip", "t.yaml", "--out", "o.npz").exit_code == 0
    done = hwgle(*RUN, *chip, "--calibration", "c.npz", "--out", "o.npz")
    assert done.exit_code == 0, (done.output, done.exception)


def test_the_twin_of_an_exact_chip_is_equal(files: Path) -> None:
    words = ["--chip", "ideal"]
    assert hwgle("chip", "calibrate", "net.yaml", *words, "--out", "c.npz").exit_code == 0
    done = hwgle("chip", "twin", "c.npz", *words, "--network", "net.yaml", "--out", "t.yaml")
    assert done.exit_code == 0
    assert "equal" in done.output
    assert "inf" not in done.output
    assert "nan" not in done.output


def test_a_twin_for_another_network_is_refused(bench: Path) -> None:
    assert (
        hwgle("chip", "twin", "c.npz", "--chip", "planted.yaml:5", "--out", "t.yaml").exit_code == 0
    )
    assert hwgle(*RUN, "--chip", "t.yaml", "--out", "o.npz").exit_code == 0
    text = (bench / "net.yaml").read_text().replace("size: 5", "size: 4")
    (bench / "other.yaml").write_text(text)
    network = Network.load("other.yaml")
    save("v.npz", initial(network, 3))
    run = ["run", "other.yaml", "--weights", "v.npz", "--input", "x.npy", "--chip", "t.yaml",
           "--out", "p.npz"]  # fmt: skip
    for command in (
        run,
        [*run, "--scales", "o.npz"],
        ["preflight", "other.yaml", "--device", "nowhere:", "--chip", "t.yaml"],
    ):
        done = hwgle(*command)
        assert done.exit_code == 2, done.output
        assert "planted-twin is a twin, but not for network small" in done.output
        assert "scales" not in done.output


def test_the_picture_is_checked_before_anything_is_measured(files: Path) -> None:
    (files / "planted.yaml").write_text(CHIP)
    (files / "folder.png").mkdir()
    for stem, words in (("nowhere/p", "there is no folder nowhere"), ("folder", "it is a folder")):
        done = hwgle(*CALIBRATE, "--plot", stem)
        assert done.exit_code == 2
        assert f"--plot {stem}" in done.output
        assert words in done.output
        assert not (files / "c.npz").exists()
        assert not (files / "nowhere").exists()


def test_usage(bench: Path) -> None:
    done = hwgle("chip", "twin", "c.npz", "--chip", "planted.yaml:5", "--out", "t.yaml",
                 "--weights", "w.npz")  # fmt: skip
    assert (done.exit_code, "name it with --network" in done.output) == (2, True)
    done = hwgle(*CALIBRATE[:-1], "nowhere/c.npz")
    assert (done.exit_code, "there is no folder" in done.output) == (2, True)
    done = hwgle("chip", "twin", "c.npz", "--chip", "planted.yaml:6", "--out", "t.yaml")
    assert done.exit_code == 4
