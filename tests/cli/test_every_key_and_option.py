"""Every key of every file and every option of every command has a bad value here, with its
message and exit code; a new one without an entry fails the count of both tables."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pydantic
import pytest
import yaml
from click.testing import CliRunner
from test_bad_input import everything

from hwgle.chip import Chip
from hwgle.cli.main import cli
from hwgle.experiment import Experiment
from hwgle.network import Network

# --- keys ----------------------------------------------------------------------------

KINDS: dict[str, type[pydantic.BaseModel]] = {
    "network": Network, "chip": Chip, "experiment": Experiment,
}  # fmt: skip


def keys_of(model: type[pydantic.BaseModel], before: str = "") -> Iterator[str]:
    """All keys, `layers.populations.size`; of alternatives the keys of all."""
    for name, field in model.model_fields.items():
        yield before + name
        for inner in models_in(field.annotation):
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
    ("experiment", "task.seed"): -1,
    ("experiment", "task.validation_seed"): 0.5,
    ("experiment", "task.train"): 0,
    ("experiment", "task.test"): "all",
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
    ("experiment", "training.layer_rate"): 0,
    ("experiment", "training.beta1"): 1,
    ("experiment", "training.beta2"): -0.1,
    ("experiment", "training.initial_gain"): 0,
    ("experiment", "training.weight_decay"): -1,
    ("experiment", "training.average"): -1,
    ("experiment", "training.validate_every"): 0,
    ("experiment", "training.schedule.every"): 0,
    ("experiment", "training.momentum_shift"): -1,
    ("experiment", "training.norm_shift"): 99,
    ("experiment", "training.apply_every"): 0,
    ("experiment", "training.tau_rate"): -1,
    ("experiment", "training.tau_floor"): -1,
    ("experiment", "training.seed"): -1,
}
# What nobody writes by hand: an identity file holds it under a hash (tests/unit/test_identity).
NOT_WRITTEN = {("chip", "seed"), ("chip", "measured")}


def test_every_key_has_a_bad_value() -> None:
    keys = {(kind, key) for kind, model in KINDS.items() for key in keys_of(model)}
    written = {(k, key) for k, key in keys if (k, key.split(".")[0]) not in NOT_WRITTEN}
    assert written == BAD_KEYS.keys()


EXPERIMENT = {
    "format": "hwgle/experiment/1", "name": "e", "network": "mnist1d-15k", "chip": "ideal",
    "task": {"name": "mnist1d", "seed": 1, "validation_seed": 2},
    "training": {"rule": "sgd", "epochs": 1, "batch": 10, "learning_rate": 0.01,
                 "schedule": {"kind": "plateau"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "key"), BAD_KEYS, ids=[f"{kind}:{key}" for kind, key in BAD_KEYS]
)
def test_a_bad_value_of_each_key(files: Path, kind: str, key: str) -> None:
    value = BAD_KEYS[kind, key]
    good: Any
    if kind == "network":
        good = yaml.safe_load(Path("net.yaml").read_text())
    elif kind == "chip":
        good = {"format": "hwgle/chip/1", "name": "c"}
    else:
        good = EXPERIMENT | {k: dict(v) for k, v in EXPERIMENT.items() if isinstance(v, dict)}
        kinds = {"final": "cosine", "every": "halving"}
        schedule = {"kind": kinds.get(key.rpartition(".")[2], "plateau")}
        good["training"] = dict(EXPERIMENT["training"]) | {"schedule": schedule}  # type: ignore[call-overload]
    at, path = good, []
    *above, last = key.split(".")
    for name in above:
        at = at.setdefault(name, {})
        path.append(name)
        if isinstance(at, list):
            at = at[0]
            path[-1] += "[0]"
    at[last] = value
    Path("bad.yaml").write_text(yaml.safe_dump(good, sort_keys=False))
    weights = ["--weights", "w.npz", "--input", "x.npy", "--out", "o.npz"]
    command = {
        "network": ["run", "bad.yaml", *weights],
        "chip": ["run", "net.yaml", *weights, "--chip", "bad.yaml"],
        "experiment": ["train", "bad.yaml"],
    }[kind]
    before = everything(Path.cwd())
    result = CliRunner().invoke(cli, command)
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
ZOO = Path(__file__).parents[2] / "hwgle" / "zoo" / "weights"
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
    "--record": ("q", 2, "cannot record q; allowed: r, u, uhat, v, e"),
    "--json": ("no/x.json", 2, "--json no/x.json: there is no folder no"),
    "--record-latency": ("no/x", 2, "--record-latency no/x: there is no folder no"),
    "--plot": ("x.npy/p", *NO_FOLDER),
    "--port": ("", 2, "--port"),
    "--probe": ("", 2, "--probe"),
    "--tool": ("hammer", 2, "hammer"),
    "file": ("gone.hwr", 4, "gone.hwr: found"),
    "words": ("nope", 2, "nope"),
}  # fmt: skip
# (command, option): where it is not that
OTHERS: dict[tuple[str, str], tuple[str, int, str]] = {
    ("stream", "file"): ("gone.txt", 4, "gone.txt"),
    ("record", "file"): ("no/r.hwr", 2, "no/r.hwr"),
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
            words += [option, value]
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
