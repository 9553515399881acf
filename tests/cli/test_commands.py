"""The commands as a person starts them: what they write and say, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle.chip import Chip
from hwgle.cli.main import COMMANDS, cli
from hwgle.cli.progress import Bar
from hwgle.cli.train import Show
from hwgle.identity import draw
from hwgle.learning.trainer import Event
from hwgle.network import Network
from hwgle.parallel import when_told_to_end
from hwgle.weights import initial, save

PATIENCE = 300.0  # seconds for a command to get going or to end, on a machine that is busy
ENDS_WITHIN = 1.0  # seconds of processor time after Ctrl-C, as README.md says
HWGLE = [sys.executable, "-m", "hwgle"]
RUN = ["run", "net.yaml", "--weights", "w.npz", "--input", "x.npy", "--target", "y.npy"]
EXPERIMENT = """\
format: hwgle/experiment/1
name: tiny
network: mnist1d-15k
chip: ideal
task: {name: mnist1d, seed: 1, validation_seed: 2, train: 40, test: 10}
training: {rule: adam, epochs: 2, batch: 20, learning_rate: 1e-3}
"""


def hwgle(args: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HWGLE, *args], env=environment, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {k: file[k] for k in file.files}


def invoke(*args: str) -> str:
    result = CliRunner().invoke(cli, list(args))
    assert result.exit_code == 0, result.output
    return result.output


def test_help_names_every_command_and_is_quick(environment: dict[str, str]) -> None:
    code = (
        "import sys; from hwgle.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'numpy' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("module", ["hwgle", "hwgle.cli.main"])
def test_both_modules_are_the_command_line(module: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", module, "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    assert "Usage" in invoke(name, "--help")


def test_exit_codes_of_processes(files: Path, environment: dict[str, str]) -> None:
    for args, code, message in (
        (["--version"], 0, ""),
        (["--nope"], 2, "No such option"),
        ([*RUN, "--out", "no/o.npz"], 2, "no folder"),
        (["run", "gone", *RUN[2:], "--out", "o.npz"], 4, "no network named 'gone'"),
    ):
        done = hwgle(args, environment)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_run_writes_what_design_says(files: Path) -> None:
    text = invoke(*RUN, "--record", "r,e", "--out", "o.npz")
    out = arrays("o.npz")
    assert out["output"].shape == (40, 6, 3)
    assert out["output"].dtype == np.float32
    assert np.array_equal(out["output"], out["out.r"])
    assert out["hidden.e"].shape == (40, 6, 8)
    assert "hidden.u" not in out
    assert out["hidden.weight"].shape == (8, 2)
    assert out["scales"].shape == (3, 5)
    assert f"{int(out['digest']):016x}" in text
    assert out["counters.steps"].tolist() == [40 * 6 * 8, 40 * 6 * 3]


def test_earlier_scales_reproduce_a_run(files: Path) -> None:
    invoke(*RUN, "--out", "a.npz")
    invoke(*RUN, "--scales", "a.npz", "--out", "b.npz")
    assert arrays("a.npz")["digest"] == arrays("b.npz")["digest"]
    half = np.load("x.npy")[:, :2]
    np.save("half.npy", half)
    np.save("half-y.npy", np.load("y.npy")[:2])
    part = ["run", "net.yaml", "--weights", "w.npz", "--input", "half.npy"]
    invoke(*part, "--target", "half-y.npy", "--scales", "a.npz", "--out", "c.npz")
    assert np.array_equal(arrays("c.npz")["output"], arrays("a.npz")["output"][:, :2])
    same = arrays("c.npz")["stream_digests"] == arrays("a.npz")["stream_digests"][:2]
    assert same.all()


def test_learning_changes_weights_and_a_target_alone_does_not(files: Path) -> None:
    invoke(*RUN, "--out", "still.npz")
    text = invoke(*RUN, "--learn", "--rate", "0.1", "--seed", "7", "--out", "learned.npz")
    assert "sgd, rate 0.09375" in text
    still, learned = arrays("still.npz"), arrays("learned.npz")
    assert np.abs(still["out.weight"] - arrays("w.npz")["out.weight"]).max() < 1e-3
    assert np.abs(learned["out.weight"] - still["out.weight"]).max() > 1e-2
    invoke(*RUN, "--learn", "sgd", "--rate", "0.1", "--seed", "7", "--out", "again.npz")
    assert learned["digest"] == arrays("again.npz")["digest"]
    invoke(*RUN, "--learn", "--rate", "0.1", "--seed", "8", "--out", "other.npz")
    assert learned["digest"] != arrays("other.npz")["digest"]


@pytest.mark.parametrize("rule", ["normalised", "sign"])
def test_learning_by_a_rule_that_remembers(files: Path, rule: str) -> None:
    text = invoke(*RUN, "--learn", rule, "--rate", "0.01", "--seed", "7", "--out", "a.npz")
    assert f"{rule}, rate 0.0078125" in text
    invoke(*RUN, "--learn", "--rate", "0.01", "--seed", "7", "--out", "b.npz")
    a, b = arrays("a.npz"), arrays("b.npz")
    assert a["counters.updates"].sum() > 0
    assert not np.array_equal(a["out.weight"], b["out.weight"])
    text = invoke("verify", "net.yaml", "--rule", rule, "--steps", "60", "--device", "emu:")
    assert f"{rule}: " in text
    assert "equal: every state" in text


def test_run_takes_the_weights_of_an_earlier_run(files: Path) -> None:
    invoke(*RUN, "--out", "a.npz")
    invoke("run", "net.yaml", "--weights", "a.npz", "--input", "x.npy", "--out", "b.npz")


def test_saturation_and_silence_are_told_aloud(files: Path) -> None:
    invoke(*RUN, "--out", "a.npz")
    np.save("x.npy", 100 * np.load("x.npy"))
    text = invoke(*RUN, "--scales", "a.npz", "--out", "b.npz")
    assert "values of the input were clipped" in text
    w = arrays("w.npz")
    w["hidden.weight"][:] = w["hidden.bias"][:] = 0
    np.savez("w.npz", **w)
    text = invoke(*RUN, "--out", "c.npz")
    assert "warning: layer hidden is silent: all 8 read-outs stay at 0\n" in text
    assert arrays("c.npz")["health.silent"].tolist() == [True, False]
    np.save("x.npy", np.zeros((40, 6, 2)))
    text = invoke(*RUN, "--out", "d.npz")  # nothing can be said of those that hear nothing
    assert "silent" not in text
    assert arrays("d.npz")["health.silent"].tolist() == [False, False]


def test_dead_and_saturated_neurons_are_told_aloud(files: Path) -> None:
    rng = np.random.default_rng(6)
    np.save("x.npy", rng.normal(size=(400, 50, 2)))
    np.save("y.npy", rng.integers(0, 3, 50))
    text = invoke(*RUN, "--out", "a.npz")
    assert "warning" not in text
    w = arrays("w.npz")
    w["hidden.weight"][2], w["hidden.bias"][2] = 0, 0
    w["hidden.bias"][5] = 100
    np.savez("w.npz", **w)
    text = invoke(*RUN, "--out", "b.npz")
    start, end = "warning: layer hidden: 1 of 8 neurons", "its range): 5\n"
    assert f"{start} dead (read-out does not move though its input does): 2\n" in text
    assert f"{start} saturated (read-out stays at one end of {end}" in text
    out = arrays("b.npz")
    assert np.flatnonzero(out["health.dead"]).tolist() == [2]
    assert np.flatnonzero(out["health.saturated"]).tolist() == [5]
    assert out["health.dead"].shape == (8 + 3,)
    assert out["health.reads"] == 400


def interrupt(
    args: list[str],
    environment: dict[str, str],
    begun: str,
    number: signal.Signals = signal.SIGINT,
) -> tuple[int, float, str]:
    """Start, wait until its progress shows `begun`, send a signal: exit code, seconds of
    processor time from there to the end, what it showed."""
    ours, theirs = os.openpty()  # progress is for terminals only
    before = ended_children()
    process = subprocess.Popen(
        [*HWGLE, *args], env=environment, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    text, used = "", 0.0
    deadline = time.monotonic() + PATIENCE
    try:
        while more := shown(ours, deadline):
            text += more
            if not used and re.search(begun, text):
                used = processor_time(process.pid)
                process.send_signal(number)
        assert used, f"it never began: {text}"
        return process.wait(PATIENCE), ended_children() - before - used, text
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def processor_time(pid: int) -> float:
    """Seconds, of a process that runs."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def ended_children() -> float:
    """Seconds of processor time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shown(terminal: int, deadline: float) -> str:
    """What comes next; empty at the end of whoever writes, or at the deadline."""
    left = max(0.0, deadline - time.monotonic())
    if not select.select([terminal], [], [], left)[0]:
        return ""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # nobody has the other end any more
        return ""


def test_ctrl_c_ends_a_run_and_writes_nothing(files: Path, environment: dict[str, str]) -> None:
    name = "mnist1d-42k"
    save("big.npz", initial(Network.load(name), 0))
    np.save("long.npy", np.ones((40_000, 100, 1), dtype=np.int8))  # some 15 s
    args = ["run", name, "--weights", "big.npz", "--input", "long.npy", "--out", "o.npz"]
    before = sorted(p.name for p in files.iterdir())
    code, seconds, text = interrupt(args, environment, r"running \[")
    assert code == 130, text
    assert seconds < ENDS_WITHIN
    assert "interrupted" in text
    assert "Traceback" not in text
    assert sorted(p.name for p in files.iterdir()) == before


def test_ctrl_c_in_training_and_how_to_continue(files: Path, environment: dict[str, str]) -> None:
    Path("e.yaml").write_text(EXPERIMENT)
    args = ["train", "e.yaml", "--out", "trained"]
    invoke(*args, "--epochs", "1", "--seed", "5", "--out", "warm")  # data into the cache
    code, seconds, text = interrupt([*args, "--epochs", "100000"], environment, r"epoch [2-9]/")
    assert code == 130, text
    assert seconds < ENDS_WITHIN
    assert "the same command continues from trained/checkpoint.npz" in text
    assert "Traceback" not in text
    assert not Path("trained/weights.npz").exists()
    refused = CliRunner().invoke(cli, args)
    assert refused.exit_code == 2
    assert "belongs to another experiment" in refused.output


def test_a_terminal_that_is_closed_ends_a_training_in_order(
    files: Path, environment: dict[str, str]
) -> None:
    Path("e.yaml").write_text(EXPERIMENT)
    args = ["train", "e.yaml", "--out", "trained", "--epochs", "100000"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    try:
        code, _, text = interrupt(args, environment, r"epoch [2-9]/", signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert code == 130, text
    assert "the same command continues from trained/checkpoint.npz" in text
    assert Path("trained/checkpoint.npz").is_file()


@pytest.mark.parametrize("ignored", [False, True])
def test_nohup_stays_in_force(ignored: bool) -> None:
    told: list[None] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with when_told_to_end(lambda: told.append(None)):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(told) == (0 if ignored else 1)


def test_train_and_eval(files: Path) -> None:
    Path("e.yaml").write_text(EXPERIMENT)
    text = invoke("train", "e.yaml")
    assert "epoch 2/2" in text
    assert "test " in text
    folder = Path("hwgle-tiny-seed0")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in lines] == [1, 2]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 2
    weights = str(folder / "weights.npz")
    text = invoke("eval", "e.yaml", "--weights", weights, "--json", "e.json")
    numbers = json.loads(Path("e.json").read_text())
    assert numbers["sqnr"] > 30
    assert numbers["chip"]["raw"] == summary["test"]
    assert f"{numbers['sqnr']:.1f} dB" in text
    assert numbers["digest"] in text
    text = invoke("eval", "e.yaml", "--weights", weights, "--no-float", "--chip", "ideal8")
    assert "float64" not in text
    assert "ideal8" in text


BROKEN = """\
format: hwgle/chip/1
name: broken
weight: {bits: 14, stored_bits: 16}
rate: {bits: 14}
input: {bits: 14}
error: {bits: 14}
activation: {dead: 0.1}
"""


def test_train_and_eval_tell_of_dead_neurons(files: Path) -> None:
    """Training: once, not at both validations, and in what it writes."""
    Path("e.yaml").write_text(EXPERIMENT)
    Path("broken.yaml").write_text(BROKEN)
    layers = Network.load("mnist1d-15k").layers
    drawn = draw(Chip.load("broken.yaml"), Network.load("mnist1d-15k")).layers
    truth = {x.name: np.flatnonzero(d.dead).tolist() for x, d in zip(layers, drawn, strict=True)}
    assert len(truth["h2"]) > 1
    sentence = f"layer h2: {len(truth['h2'])} of 53 neurons dead"
    done = CliRunner().invoke(cli, ["train", "e.yaml", "--chip", "broken.yaml", "--out", "t"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count(f"warning: {sentence}") == 1
    assert done.stdout.count(sentence) == 1  # at the end, of the weights that are kept
    metrics = [json.loads(line) for line in Path("t/metrics.jsonl").read_text().splitlines()]
    summary = json.loads(Path("t/summary.json").read_text())
    for found in (*(m["health"] for m in metrics), summary["health"]):
        dead = {name: sorted(layer["dead"]) for name, layer in found["layers"].items()}
        assert dead == {name: which for name, which in truth.items() if which}
    args = ["eval", "e.yaml", "--weights", "t/weights.npz", "--no-float"]
    text = invoke(*args, "--chip", "broken.yaml", "--json", "e.json")
    assert sentence in text
    assert json.loads(Path("e.json").read_text())["health"] == summary["health"]
    assert "neurons" not in invoke(*args)


def test_training_with_several_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tells its epochs; what they learned, and which went on, stands in the end."""
    monkeypatch.chdir(tmp_path)
    Path("e.yaml").write_text(EXPERIMENT.replace("1e-3}", "1e-3, starts: 3, start_epochs: 1}"))
    done = CliRunner().invoke(cli, ["train", "e.yaml", "--out", "t"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    shown = [line.split("  ")[:2] for line in lines if "  best " in line]
    assert shown[:3] == [[f"start {n}/3", "epoch 1/1"] for n in (1, 2, 3)]
    assert [line[0] for line in shown[3:]] == ["epoch 2/2"]  # epoch 1 was that of the start
    starts = json.loads(Path("t/summary.json").read_text())["starts"]
    each = ", ".join(f"{100 * value:.1f} %" for value in starts["learned"])
    (line,) = (line for line in lines if line.startswith("starts"))
    assert line.split(maxsplit=1)[1] == f"learned {each}; number {starts['chosen'] + 1} went on"
    again = CliRunner().invoke(cli, ["train", "e.yaml", "--out", "t"])
    assert again.exit_code == 0, again.output
    assert f"continuing from {Path('t/checkpoint.npz')}" in again.stderr


def test_training_says_what_is_new_and_when_all_are_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Show(Bar("training"))
    said = []
    for findings in ((), ("a",), ("a",), ("a", "b"), ("b",), ("a", "b"), (), ()):
        show(Event(0, 9, 0.1, 0.5, 0.5, 1.0, findings))
        said.append(capsys.readouterr().err)
    new = ["", "warning: a\n", "", "warning: b\n", "", "warning: a\n"]
    assert said == [*new, "all neurons are well again\n", ""]


def test_each_start_has_warnings_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show(Bar("training"))
    said = []
    for start, findings in ((0, ("a",)), (0, ("a",)), (1, ()), (1, ("a",)), (None, ("a",))):
        show(Event(0, 9, 0.1, 0.5, 0.5, 1.0, findings, start=start, starts=2))
        said.append(capsys.readouterr().err)
    first, second = (f"warning: start {n}/2  a\n" for n in (1, 2))
    assert said == [first, "", "", second, "warning: a\n"]
