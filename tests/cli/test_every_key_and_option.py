"""Every key of every file and every option of every command has a bad value here, with its
message and exit code; a new one without an entry fails the count of both tables."""

from __future__ import annotations

import copy
import re
import types
import typing
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pydantic
import pytest
import yaml
from click.testing import CliRunner
from test_bad_input import everything

from hwgle.accuracy_report.limits import Limits
from hwgle.accuracy_report.limits import load as load_limits
from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.experiment import Experiment
from hwgle.network import Network
from hwgle.sweep.file import Sweep
from hwgle.sweep.study import load_sweep
from hwgle.tasks import SETTINGS
from hwgle.tasks.settings import TaskSettings
from hwgle.tasks.speech_folder import NOISE, SPLITS, WORDS

# --- keys ----------------------------------------------------------------------------

KINDS: dict[str, type[pydantic.BaseModel]] = {
    "network": Network, "chip": Chip, "experiment": Experiment, "sweep": Sweep, "limits": Limits,
}  # fmt: skip


def keys_of(model: type[pydantic.BaseModel], before: str = "") -> Iterator[str]:
    """All keys, `layers.populations.size`; of alternatives the keys of all, and of tasks those
    of each by itself, `task[speech].folder`, as keys of one name mean something else there."""
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        yield before + name
        for inner in models_in(field.annotation):
            if issubclass(inner, TaskSettings):
                yield f"{before}{name}.name"
                task = typing.get_args(inner.model_fields["name"].annotation)[0]
                within = keys_of(inner, f"{before}{name}[{task}].")
                yield from (key for key in within if not key.endswith("].name"))
            else:
                yield from keys_of(inner, f"{before}{name}.")


def models_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, pydantic.BaseModel):
            yield annotation
        return
    for part in typing.get_args(annotation):
        yield from models_in(part)


# kind, key -> a bad value; lists are entered at their first element
BAD_KEYS: dict[tuple[str, str], Any] = {
    ("network", "format"): "hwgle/network/9",
    ("network", "name"): "",
    ("network", "dt"): 0,
    ("network", "inputs"): 0,
    ("network", "loss"): "hinge",
    ("network", "beta"): -1,
    ("network", "gamma"): "much",
    ("network", "feedback"): 3,
    ("network", "feedback.kind"): "random",
    ("network", "feedback.seed"): -1,
    ("network", "feedback.scale"): 0,
    ("network", "feedback.decay"): 0.6,
    ("network", "layers.from"): "x",
    ("network", "layers.recurrent"): "perhaps",
    ("network", "layers.sparsity"): 3,
    ("network", "layers.sparsity.density"): 2,
    ("network", "layers.sparsity.modules"): 0,
    ("network", "layers.sparsity.seed"): -1,
    ("network", "layers.sparsity.of"): 3,
    ("network", "layers"): [],
    ("network", "layers.name"): "a b",
    ("network", "layers.phi"): "tahn",
    ("network", "layers.learn"): "perhaps",
    ("network", "layers.bias"): "perhaps",
    ("network", "layers.learn_tau_m"): "perhaps",
    ("network", "layers.init"): "zeros",
    ("network", "layers.populations"): 7,
    ("network", "layers.populations.size"): 1.5,
    ("network", "layers.populations.tau_m"): -0.4,
    ("network", "layers.populations.tau_r"): float("nan"),
    ("chip", "format"): "hwgle/chip/0",
    ("chip", "name"): 3,
    ("chip", "weight"): 6,
    ("chip", "weight.bits"): 1,
    ("chip", "weight.stored_bits"): 99,
    ("chip", "weight.scale"): "synapse",
    ("chip", "weight.mismatch"): -0.1,
    ("chip", "weight.distribution"): "cauchy",
    ("chip", "weight.stuck_zero"): 1.5,
    ("chip", "weight.stuck_full"): -1,
    ("chip", "weight.drift"): -2,
    ("chip", "rate"): "8 bits",
    ("chip", "rate.bits"): 99,
    ("chip", "input"): [],
    ("chip", "input.bits"): 0,
    ("chip", "input.offset"): -1,
    ("chip", "input.gain"): "x",
    ("chip", "membrane"): 1,
    ("chip", "membrane.bits"): 2,
    ("chip", "membrane.range"): 0,
    ("chip", "membrane.noise"): -0.1,
    ("chip", "leak"): 10,
    ("chip", "leak.bits"): 1.5,
    ("chip", "leak.mismatch"): float("inf"),
    ("chip", "leak.tracks"): "sometimes",
    ("chip", "activation"): True,
    ("chip", "activation.gain"): -0.1,
    ("chip", "activation.offset"): "x",
    ("chip", "activation.dead"): 2,
    ("chip", "error"): 12,
    ("chip", "error.bits"): 77,
    ("chip", "error.noise"): -1,
    ("chip", "readout"): "adc",
    ("chip", "readout.bits"): 0,
    ("chip", "readout.offset"): -1,
    ("chip", "readout.gain"): [1],
    ("chip", "readout.noise"): -1,
    ("chip", "plasticity"): "sgd",
    ("chip", "plasticity.rounding"): "up",
    ("chip", "plasticity.learning_rate"): 0,
    ("chip", "plasticity.update_bits"): 99,
    ("chip", "plasticity.update_noise"): -1,
    ("experiment", "format"): "hwgle/experiment/2",
    ("experiment", "name"): "",
    ("experiment", "network"): "mnist1d-15x",
    ("experiment", "chip"): "idela",
    ("experiment", "task"): "mnist1d",
    ("experiment", "task.name"): "mnist",
    ("experiment", "task[mnist1d].seed"): -1,
    ("experiment", "task[mnist1d].validation_seed"): 0.5,
    ("experiment", "task[mnist1d].train"): 0,
    ("experiment", "task[mnist1d].test"): "all",
    ("experiment", "task[digits].seed"): "one",
    ("experiment", "task[digits].validation_seed"): -1,
    ("experiment", "task[digits].train"): 1198,
    ("experiment", "task[digits].test"): 0,
    ("experiment", "task[digits].steps"): 0.5,
    ("experiment", "task[mackey-glass].seed"): 2**63,
    ("experiment", "task[mackey-glass].validation_seed"): 1,
    ("experiment", "task[mackey-glass].train"): -3000,
    ("experiment", "task[mackey-glass].test"): "all",
    ("experiment", "task[mackey-glass].streams"): 0,
    ("experiment", "task[mackey-glass].settle"): 1000,
    ("experiment", "task[lagnet].train"): 0,
    ("experiment", "task[lagnet].test"): 1.5,
    ("experiment", "task[lagnet].settle"): 10_000,
    ("experiment", "task[lagline].seed"): -1,
    ("experiment", "task[lagline].validation_seed"): 1,
    ("experiment", "task[lagline].streams"): 0,
    ("experiment", "task[lagline].settle"): -1,
    ("experiment", "task[speech].folder"): "gone",
    ("experiment", "task[speech].classes"): 10,
    ("experiment", "task[speech].bands"): 1,
    ("experiment", "task[speech].rate"): 8,
    ("experiment", "task[speech].seconds"): 0,
    ("experiment", "task[speech].window"): "long",
    ("experiment", "task[speech].hop"): 26,
    ("experiment", "task[speech].validation"): 1,
    ("experiment", "task[speech].test"): -0.1,
    ("experiment", "task[speech].seed"): True,
    ("experiment", "task[npz].file"): "gone.npz",
    ("experiment", "task[npz].settle"): -1,
    ("experiment", "task[python].file"): "gone.py",
    ("experiment", "task[python].loss"): "hinge",
    ("experiment", "task[python].arguments"): [1, 2],
    ("experiment", "task[python].settle"): "some",
    ("experiment", "training"): None,
    ("experiment", "training.rule"): "hebb",
    ("experiment", "training.epochs"): 0,
    ("experiment", "training.batch"): 0,
    ("experiment", "training.learning_rate"): -1,
    ("experiment", "training.schedule"): "cosine",
    ("experiment", "training.schedule.kind"): "linear",
    ("experiment", "training.schedule.final"): -1,
    ("experiment", "training.schedule.factor"): 7,
    ("experiment", "training.schedule.patience"): 0,
    ("experiment", "training.error_clip"): 2,
    ("experiment", "training.hold_weight_range"): "perhaps",
    ("experiment", "training.layer_rate"): 0,
    ("experiment", "training.beta1"): 1,
    ("experiment", "training.beta2"): -0.1,
    ("experiment", "training.initial_gain"): 0,
    ("experiment", "training.weight_decay"): -1,
    ("experiment", "training.weight_limit"): 0,
    ("experiment", "training.average"): -1,
    ("experiment", "training.validate_every"): 0,
    ("experiment", "training.starts"): 0,
    ("experiment", "training.start_epochs"): 0,
    ("experiment", "training.focus"): 1,
    ("experiment", "training.schedule.every"): 0,
    ("experiment", "training.momentum_shift"): -1,
    ("experiment", "training.norm_shift"): 99,
    ("experiment", "training.apply_every"): 0,
    ("experiment", "training.tau_rate"): -1,
    ("experiment", "training.tau_floor"): -1,
    ("experiment", "training.seed"): -1,
    ("sweep", "format"): "hwgle/sweep/2",
    ("sweep", "name"): "a b",
    ("sweep", "experiment"): "mnist1d-15x",
    ("sweep", "weights"): "gone.npz",
    ("sweep", "chip"): "idela",
    ("sweep", "do"): "evaluate",
    ("sweep", "do.kind"): "look",
    ("sweep", "do.samples"): 0,
    ("sweep", "do.epochs"): 0,
    ("sweep", "search"): "grid",
    ("sweep", "search.kind"): "bayes",
    ("sweep", "search.points"): 0,
    ("sweep", "search.seed"): -1,
    ("sweep", "search.generation"): 1001,
    ("sweep", "seeds"): 3,
    ("sweep", "seeds.chip"): [],
    ("sweep", "seeds.training"): [-1],
    ("sweep", "axes"): [],
    ("sweep", "axes.key"): "chip.weight.bist",
    ("sweep", "axes.keys"): "chip.rate.bits",
    ("sweep", "axes.values"): 5,
    ("sweep", "axes.low"): "few",
    ("sweep", "axes.high"): 2,
    ("sweep", "axes.step"): 0,
    ("sweep", "axes.scale"): "cubic",
    ("limits", "format"): "hwgle/limits/0",
    ("limits", "limits"): [],
    ("limits", "limits.path"): "chips[0].tusk",
    ("limits", "limits.min"): "high",
    ("limits", "limits.max"): float("nan"),
    ("limits", "limits.why"): 7,
}
# What nobody writes by hand: an identity file holds it under a hash (tests/unit/test_identity).
NOT_WRITTEN = {("chip", "seed"), ("chip", "measured")}


def test_every_key_has_a_bad_value() -> None:
    keys = {(kind, key) for kind, model in KINDS.items() for key in keys_of(model)}
    written = {(k, key) for k, key in keys if (k, key.split(".")[0]) not in NOT_WRITTEN}
    assert written == BAD_KEYS.keys()


ZOO = Path(__file__).parents[2] / "hwgle" / "zoo" / "weights"
TRAINING: dict[str, Any] = {
    "rule": "sgd", "epochs": 1, "batch": 10, "learning_rate": 0.01,
    "schedule": {"kind": "plateau"},
}  # fmt: skip
EXPERIMENT: dict[str, Any] = {
    "format": "hwgle/experiment/1", "name": "e", "network": "mnist1d-15k", "chip": "ideal",
    "task": {"name": "mnist1d", "seed": 1, "validation_seed": 2}, "training": TRAINING,
}  # fmt: skip
SEEDS = {"seed": 1, "validation_seed": 2}
# the task that an experiment on each network has, from files that `data` writes
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mnist1d": ("mnist1d-15k", SEEDS), "digits": ("digits", SEEDS),
    "mackey-glass": ("mackey-glass", SEEDS), "lagnet": ("lagnet", {}),
    "lagline": ("lagline", SEEDS), "speech": ("speech", {"folder": "sounds", "classes": 12}),
    "npz": ("net.yaml", {"file": "data.npz"}), "python": ("net.yaml", {"file": "data.py"}),
}  # fmt: skip
SWEEP: dict[str, Any] = {
    "format": "hwgle/sweep/1", "name": "s", "experiment": "mnist1d-15k",
    "weights": str(ZOO / "mnist1d-15k.npz"), "chip": "ideal", "do": {"kind": "evaluate"},
    "search": {"kind": "grid"}, "axes": [{"key": "chip.weight.bits", "low": 3, "high": 5}],
}  # fmt: skip
LIMITS: dict[str, Any] = {
    "format": "hwgle/limits/1", "limits": [{"path": "chips[0].task.chip.raw", "min": 0.5}],
}  # fmt: skip


@pytest.fixture
def data(files: Path) -> Path:
    """What the tasks read: data.npz and data.py for net.yaml, and sounds."""
    x = {f"{split}_x": np.zeros((12, 4, 2), np.float32) for split in SPLITS}
    y = {f"{split}_y": np.arange(12) % 3 for split in SPLITS}
    np.savez("data.npz", **x, **y)  # type: ignore[arg-type]
    Path("data.py").write_text("def load():\n    raise AssertionError('looking runs nothing')\n")
    for word in (*WORDS, "house", NOISE):
        folder = Path("sounds", word)
        folder.mkdir(parents=True)
        for name in "abc":
            with wave.open(str(folder / f"{name}.wav"), "wb") as sound:
                sound.setparams((1, 2, 16_000, 0, "NONE", ""))
                sound.writeframes(bytes(3200))
    return files


def good_file(kind: str, key: str) -> dict[str, Any]:
    """A file without mistakes in which this key has a place."""
    last = key.rpartition(".")[2]
    good: dict[str, Any]
    if kind == "network":
        good = yaml.safe_load(Path("net.yaml").read_text())
        if key.startswith("feedback."):
            good["feedback"] = {"kind": "kolen-pollack"}
        if key.startswith("layers.sparsity."):
            good["layers"][0]["sparsity"] = [{"density": 0.5, "seed": 1}]
    elif kind == "chip":
        good = {"format": "hwgle/chip/1", "name": "c"}
    elif kind == "limits":
        good = copy.deepcopy(LIMITS)
    elif kind == "sweep":
        good = copy.deepcopy(SWEEP)
        if key in ("do.epochs", "seeds.training"):
            good["do"] = {"kind": "train", "epochs": 1}
        if key.startswith("search.") and last != "kind":
            good["search"] = {"kind": "pareto", "points": 4}
        if last in ("keys", "values"):
            del good["axes"][0]["low"], good["axes"][0]["high"]
            good["axes"][0]["values"] = [3, 4]
        if last == "keys":
            del good["axes"][0]["key"]
            good["axes"][0] = {"keys": ["chip.weight.bits"], "values": [[3], [4]]}
    else:
        good = copy.deepcopy(EXPERIMENT)
        kinds = {"final": "cosine", "every": "halving"}
        if key.startswith("training.schedule."):
            good["training"]["schedule"] = {"kind": kinds.get(last, "plateau")}
        if of := re.match(r"task\[(.+)\]", key):
            good["network"], own = TASKS[of[1]]
            good["task"] = {"name": of[1], **own}
            good["training"]["batch"] = 1
    return good


def call_with(kind: str) -> list[str]:
    """The command that reads bad.yaml."""
    weights = ["--weights", "w.npz", "--input", "x.npy", "--out", "o.npz"]
    return {
        "network": ["run", "bad.yaml", *weights],
        "chip": ["run", "net.yaml", *weights, "--chip", "bad.yaml"],
        "experiment": ["train", "bad.yaml"],
        "sweep": ["sweep", "bad.yaml", "--out", "o"],
        "limits": ["report", "mnist1d-15k", "--limits", "bad.yaml", "--out", "o"],
    }[kind]


def test_what_the_bad_values_are_put_into_is_good(data: Path) -> None:
    assert TASKS.keys() == SETTINGS.keys()
    Network.load("net.yaml")
    for task in TASKS:
        path = Path("good.yaml")
        path.write_text(yaml.safe_dump(good_file("experiment", f"task[{task}].x")))
        assert Experiment.load(path).task.name == task  # type: ignore[attr-defined]
    for key in sorted(key for kind, key in BAD_KEYS if kind == "sweep"):
        Path("good.yaml").write_text(yaml.safe_dump(good_file("sweep", key)))
        load_sweep("good.yaml")
    Path("good.yaml").write_text(yaml.safe_dump(LIMITS))
    load_limits(Path("good.yaml"), ["h1"])


@pytest.mark.parametrize(
    ("kind", "key"), BAD_KEYS, ids=[f"{kind}:{key}" for kind, key in BAD_KEYS]
)
def test_a_bad_value_of_each_key(data: Path, kind: str, key: str) -> None:
    good = good_file(kind, key)
    at: Any = good
    path = []
    *above, last = re.sub(r"^task\[.+\]", "task", key).split(".")
    for name in above:
        at = at.setdefault(name, {})
        path.append(name)
        if isinstance(at, list):
            at = at[0]
            path[-1] += "[0]"
    at[last] = BAD_KEYS[kind, key]
    Path("bad.yaml").write_text(yaml.safe_dump(good, sort_keys=False))
    before = everything(Path.cwd())
    result = CliRunner().invoke(cli, call_with(kind))
    assert result.exit_code == 4, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    where = re.escape(".".join([*path, last]))
    line = rf"^bad\.yaml:\d+: {where}[^:]*: found .+; allowed: .+$"
    assert re.search(line, result.output, re.MULTILINE), result.output
    assert everything(Path.cwd()) == before


# --- options -------------------------------------------------------------------------


def commands(of: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[Any]:
    """All commands that do something, with their words."""
    context = click.Context(of)
    if isinstance(of, click.Group):
        for name in of.list_commands(context):
            command = of.get_command(context, name)
            assert command is not None
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), of


COMMANDS = dict(commands())
RUN = "net.yaml --weights w.npz --input x.npy --out o.npz"
EXP = f"mnist1d-15k --weights {ZOO / 'mnist1d-15k.npz'}"
# what each command is called with but for the bad option
GOOD = {
    "demo": "", "run": RUN, "train": "mnist1d-15k", "eval": EXP,
    "stream": "net.yaml s.txt --weights w.npz",
    "verify": "net.yaml --input x.npy", "record": "r.hwr run",
    "replay": "r.hwr", "preflight": "net.yaml --board stm32f405",
    "chip calibrate": "net.yaml --chip ideal:1 --out c.npz",
    "chip new": "--profile mixed-signal --seed 1 --out chip.yaml", "chip show": "ideal:1",
    "chip twin": "c.npz --chip ideal:1 --network net.yaml --out t.yaml",
    "chip yield": f"{EXP} --out y", "board build": "host", "board flash": "nucleo_f446re",
    "board info": "--device host:", "board list": "", "board selftest": "--device host:",
    "board start": "host",
    "report": "mnist1d-15k --out o", "sweep": "bits-15k --out o",
    "scope": "net.yaml s.txt --weights w.npz --frames 1",
}  # fmt: skip
RANGE = (2, "is not in the range")
NO_FILE = (4, "gone.npz: found no such file")
NO_FOLDER = (2, "no folder|cannot write|is not a folder|not a directory")
# option or argument -> a bad value, the exit code, the message
BAD_OPTIONS: dict[str, tuple[str, int, str]] = {
    "--device": ("nope:", 2, "device 'nope:' is not known"),
    "--baud": ("1", *RANGE),
    "--out": ("x.npy/o", *NO_FOLDER),
    "--weights": ("gone.npz", *NO_FILE),
    "--input": ("gone.npz", *NO_FILE),
    "--target": ("gone.npz", *NO_FILE),
    "--scales": ("gone.npz", *NO_FILE),
    "--calibration": ("gone.npz", *NO_FILE),
    "--chip": ("idela", 4, "no chip named 'idela'"),
    "--profile": ("idela", 4, "no chip named 'idela'"),
    "--network": ("nope", 4, "no network named 'nope'"),
    "network": ("nope", 4, "no network named 'nope'"),
    "experiment": ("nope", 4, "no experiment named 'nope'"),
    "spec": ("idela", 4, "no chip named 'idela'"),
    "calibration": ("gone.npz", *NO_FILE),
    "board": ("nope", 2, "no board named 'nope'"),
    "--board": ("nope", 2, "no board named 'nope'"),
    "--seed": ("-1", *RANGE), "--epochs": ("0", *RANGE), "--steps": ("0", *RANGE),
    "--batch": ("0", *RANGE), "--networks": ("0", *RANGE), "--chips": ("0", *RANGE),
    "--first-seed": ("-1", *RANGE), "--workers": ("0", *RANGE), "--effort": ("-1", *RANGE),
    "--calibrate": ("0", *RANGE), "--payload": ("1", *RANGE), "--window": ("0", *RANGE),
    "--memory": ("0", *RANGE),
    "--learn": ("hebb", 2, "no rule 'hebb'; allowed: sgd"),
    "--rule": ("hebb", 2, "hebb"),
    "--rate": ("-1", 2, "--rate"),
    "--learning-rate": ("-1", *RANGE),
    "--record": ("q", 2, "cannot record q; allowed: r, u, uhat, v, e"),
    "--json": ("no/x.json", 2, "--json no/x.json: there is no folder no"),
    "--record-latency": ("no/x", 2, "--record-latency no/x: there is no folder no"),
    "--plot": ("x.npy/p", *NO_FOLDER),
    "--port": ("", 2, "--port"),
    "--probe": ("", 2, "--probe"),
    "--tool": ("hammer", 2, "hammer"),
    "file": ("gone.hwr", 4, "gone.hwr: found"),
    "words": ("nope", 2, "nope"),
    "--samples": ("19", *RANGE), "--neuron": ("-1", *RANGE), "--frames": ("0", *RANGE),
    "--limits": ("gone.yaml", 4, "gone.yaml: found no such file"),
    "--compare": ("a b", 2, "--compare takes two reports and no EXPERIMENT"),
    "--signals": ("u,q", 2, "--signals: no q; allowed: "),
    "sweep": ("nope", 4, "no sweep named 'nope'"),
    "--shard": ("3/2", 2, "--shard: found '3/2'; allowed: I/N"),
    "--scheduler": ("nope", 2, "--scheduler"),
}  # fmt: skip
# (command, option): where it is not that
OTHERS: dict[tuple[str, str], tuple[str, int, str]] = {
    ("stream", "file"): ("gone.txt", 4, "gone.txt"),
    ("record", "file"): ("no/r.hwr", 2, "no/r.hwr"),
    ("scope", "file"): ("gone.txt", 4, "gone.txt"),
    ("scope", "--out"): ("x.npy/o.svg", *NO_FOLDER),
    ("chip yield", "--epochs"): ("-1", *RANGE),  # 0 is calibration alone
    ("preflight", "--record"): ("q", 2, "--record: q; allowed: r, u, uhat, v, e"),
    ("preflight", "--device"): ("nope:", 2, "--board B or --device URL, one of them"),
    ("preflight", "--board"): ("nope", 2, "no board named 'nope'"),
    # Files come first.
    ("chip twin", "--device"): ("nope:", 4, "c.npz: found no such file"),
    # What is done to boards ends with 3, with or without the tools of this machine.
    ("board build", "--out"): ("x.npy/o", 3, "x.npy/o cannot be written"),
    ("board flash", "--port"): ("/nowhere/port", 3, "port|tool|nowhere"),
    ("board flash", "--probe"): ("nope", 3, "probe|tool"),
}


def calls() -> Iterator[tuple[str, str]]:
    for name, command in COMMANDS.items():
        for parameter in command.params:
            yield name, parameter.opts[0]


def bad_call(name: str, option: str) -> tuple[list[str], int, str]:
    """The command with this option bad, its exit code and message."""
    parameter = next(p for p in COMMANDS[name].params if p.opts[0] == option)
    words = GOOD[name].split()
    if getattr(parameter, "is_flag", False):
        return [*name.split(), *words, f"{option}=3"], 2, f"Option '{option}' does not take a value"
    value, code, message = OTHERS.get((name, option)) or BAD_OPTIONS[option]
    if option.startswith("-"):
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, *(value.split() or [value])]  # --compare takes two
    else:
        arguments = [p.opts[0] for p in COMMANDS[name].params if isinstance(p, click.Argument)]
        words[arguments.index(option)] = value
    return [*name.split(), *words], code, message


def test_every_command_and_option_has_an_entry() -> None:
    assert GOOD.keys() == COMMANDS.keys()
    for name, option in calls():
        bad_call(name, option)
    assert set(BAD_OPTIONS) <= {option for _, option in calls()}


@pytest.mark.parametrize(("name", "option"), list(calls()), ids=[" ".join(c) for c in calls()])
def test_a_bad_value_of_each_option(files: Path, name: str, option: str) -> None:
    words, code, message = bad_call(name, option)
    Path("s.txt").write_text("0 0\n" * 50)
    before = everything(Path.cwd())
    result = CliRunner().invoke(cli, words, input="")
    text = result.output
    assert result.exit_code == code, (words, text)
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in text
    assert re.search(message, text), (words, text)
    assert everything(Path.cwd()) == before
