"""`hwgle chip`: new identities, what they show, and every mistake with its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.identity import draw, identity_hash
from hwgle.network import Network
from hwgle.yamlfile import zoo_names

PROFILE = """\
format: hwgle/chip/1
name: bench
weight: {bits: 6, stored_bits: 8, scale: neuron, mismatch: 0.05, stuck_zero: 0.1}
rate: {bits: 8}
input: {bits: 5, offset: 0.5, gain: 0.02}
membrane: {noise: 0.003}
leak: {bits: 10, mismatch: 0.05}
activation: {gain: 0.03, offset: 0.02, dead: 0.3}
error: {bits: 12, noise: 0.001}
readout: {gain: 0.01, offset: 1.0, noise: 0.5}
plasticity: {update_bits: 6, update_noise: 0.1}
"""


@pytest.fixture
def bench(files: Path) -> Path:
    """The working directory with net.yaml of `files`, and bench.yaml."""
    Path("bench.yaml").write_text(PROFILE)
    return files


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["chip", *args])
    return result.exit_code, result.output


def test_a_new_identity_is_one_chip(bench: Path) -> None:
    code, text = run("new", "--profile", "bench.yaml", "--seed", "7", "--out", "one.yaml")
    assert code == 0, text
    chip = Chip.load("one.yaml")
    assert chip == Chip.load("bench.yaml:7")
    assert identity_hash(chip) in text
    first = Path("one.yaml").read_bytes()
    assert run("new", "--profile", "bench.yaml", "--seed", "7", "--out", "one.yaml")[0] == 0
    assert Path("one.yaml").read_bytes() == first
    net = Network.load("net.yaml")
    assert draw(chip, net) is draw(Chip.load("bench.yaml:7"), net)


def test_an_identity_runs_as_any_chip(bench: Path) -> None:
    run("new", "--profile", "bench.yaml", "--seed", "7", "--out", "one.yaml")
    outputs = []
    for spec in ("one.yaml", "bench.yaml:7", "bench.yaml:8"):
        args = ["run", "net.yaml", "--weights", "w.npz", "--input", "x.npy", "--chip", spec]
        result = CliRunner().invoke(cli, [*args, "--out", "out.npz"])
        assert result.exit_code == 0, result.output
        outputs.append(next(y for y in result.output.splitlines() if y.startswith("digest")))
    assert outputs[0] == outputs[1] != outputs[2]


def test_show_tells_everything(bench: Path) -> None:
    code, text = run("show", "bench.yaml:7", "--network", "net.yaml")
    assert code == 0, text
    for words in (
        identity_hash(Chip.load("bench.yaml:7")),
        "one scale for each neuron; gain sd 5 %, lognormal; 10 % stuck at 0",
        "5 bits; gain sd 2 %; offset sd 0.5 LSB",
        "noise 0.003 network units rms",
        "tau set by a DAC of 10 bits; tau sd 5 %, tau_r follows tau_m",
        "rates of 8 bits; gain sd 3 %; offset sd 0.02 network units; 30 % dead",
        "12 bits; noise 0.1 % of full scale",
        "8 bits; gain sd 1 %; offset sd 1 LSB; noise 0.5 LSB rms",
        "stochastic rounding; an update has 6 bits; noise sd 10 % of the update",
        "synapse gain (%)",
        "stuck synapses (%)",
        "tau_m as built (%)",
        "activation offset (units)",
        "ADC offset (LSB)",
        "input gain (%)",
        "Furthest from design",
    ):
        assert words in text
    chip, net = Chip.load("bench.yaml:7"), Network.load("net.yaml")
    dead = [int(d.dead.sum()) for d in draw(chip, net).layers]
    rows = [line.split() for line in text.splitlines()]
    for layer, count in zip(net.layers, dead, strict=True):
        assert [layer.name, str(layer.size), str(count)] in [row[:3] for row in rows]


@pytest.mark.parametrize("name", zoo_names("chips"))
def test_show_of_all_chips_that_are_shipped(name: str, files: Path) -> None:
    code, text = run("show", name)
    assert code == 0, text
    assert ("alike" in text) == (name not in ("mixed-signal", "crossbar", "mismatch10"))


def test_pictures(bench: Path) -> None:
    code, text = run("show", "bench.yaml:7", "--network", "net.yaml", "--out", "pictures")
    assert code == 0, text
    svg, png = Path("pictures/chip-bench-7.svg"), Path("pictures/chip-bench-7.png")
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert png.stat().st_size > 20_000
    first = svg.read_bytes()
    assert b"<svg" in first
    assert sorted(p.name for p in Path("pictures").iterdir()) == [png.name, svg.name]
    run("show", "bench.yaml:7", "--network", "net.yaml", "--out", "pictures")
    assert svg.read_bytes() == first
    assert run("show", "ideal", "--network", "net.yaml", "--out", "pictures")[0] == 0


def test_all_mistakes_of_the_files_at_once_and_nothing_written(bench: Path) -> None:
    wrong = PROFILE.replace("mismatch: 0.05, stuck", "mismatch: 2, stuck").replace(
        "{noise: 0.003}", "{bits: 40, noise: 0.003}"
    )
    Path("bench.yaml").write_text(wrong)
    code, text = run("new", "--profile", "bench.yaml", "--seed", "7", "--out", "one.yaml")
    assert code == 4
    assert "bench.yaml:3: weight.mismatch: found 2" in text
    assert "bench.yaml:6: membrane.bits: found 40" in text
    assert not Path("one.yaml").exists()
    code, text = run("show", "bench.yaml:x", "--network", "nothing", "--out", "pictures")
    assert code == 4
    assert "weight.mismatch" in text
    assert "a whole number from 0" in text
    assert "no network named 'nothing'" in text
    assert not Path("pictures").exists()


def test_an_identity_that_was_changed(bench: Path) -> None:
    run("new", "--profile", "bench.yaml", "--seed", "7", "--out", "one.yaml")
    path = Path("one.yaml")
    path.write_text(path.read_text().replace("seed: 7\n", "seed: 8\n"))
    code, text = run("show", "one.yaml", "--network", "net.yaml")
    assert code == 4
    assert "one.yaml:3: sha256" in text


def test_usage(bench: Path) -> None:
    run("new", "--profile", "bench.yaml", "--seed", "7", "--out", "one.yaml")
    before = Path("one.yaml").read_bytes()
    for profile, out, words in (
        ("bench.yaml:3", "nowhere/one.yaml", ("say the seed with --seed", "no folder nowhere")),
        ("one.yaml", "two.yaml", ("it is one chip already",)),
        ("bench.yaml", ".", ("it is a folder",)),
    ):
        code, text = run("new", "--profile", profile, "--seed", "1", "--out", out)
        assert code == 2, text
        for word in words:
            assert word in text
    assert run("new", "--profile", "bench.yaml", "--seed", "-1", "--out", "two.yaml")[0] == 2
    assert run("show", "ideal", "--out", "one.yaml")[0] == 2
    assert Path("one.yaml").read_bytes() == before
    assert not Path("two.yaml").exists()
