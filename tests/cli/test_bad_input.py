"""Every option and every file with a bad value: what is said, the exit code, nothing written."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle.cli.main import cli

RUN = {
    "--weights": "w.npz",
    "--input": "x.npy",
    "--target": "y.npy",
    "--out": "out.npz",
}


def arguments(changes: dict[str, str | None], network: str = "net.yaml") -> list[str]:
    """`run` with its usual options and some changed; None leaves one out, "" is a bare flag."""
    args = ["run", network]
    for name, value in {**RUN, **changes}.items():
        if value is not None:
            args += [name, value] if value else [name]
    return args


def everything(folder: Path) -> dict[str, bytes | None]:
    """What stands in a folder, to see that nothing has changed."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(args: list[str], code: int, *fragments: str) -> str:
    """Run; it must be refused with this exit code and text, and have written nothing."""
    before = everything(Path.cwd())
    result = CliRunner().invoke(cli, args)
    text = result.output
    assert result.exit_code == code, text
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in text
    for fragment in fragments:
        assert re.search(fragment, text), text
    assert everything(Path.cwd()) == before
    return text


def test_the_unchanged_command_works(files: Path) -> None:
    result = CliRunner().invoke(cli, arguments({}))
    assert result.exit_code == 0, result.output
    assert "digest" in result.output


OPTIONS: list[tuple[dict[str, str | None], str]] = [
    ({"--weights": None}, "Missing option '--weights'"),
    ({"--input": None}, "Missing option '--input'"),
    ({"--out": None}, "Missing option '--out'"),
    ({"--record": "r,q,z"}, "cannot record q, z; allowed: r, u, uhat, v, e"),
    ({"--learn": "hebb"}, "no rule 'hebb'; allowed: sgd, normalised, sign"),
    ({"--learn": "", "--target": None}, "without --target there is no error"),
    ({"--rate": "1e-3"}, "--rate: only together with --learn"),
    ({"--learn": "", "--rate": "nan"}, "--rate: found nan"),
    ({"--learn": "", "--rate": "0"}, "--rate: found 0.0"),
    ({"--learn": "", "--rate": "-1"}, "--rate: found -1.0"),
    ({"--learn": "", "--rate": "1e9"}, "--rate: found 1000000000.0"),
    ({"--learn": "", "--rate": "fast"}, "'fast' is not a valid float"),
    ({"--seed": "-1"}, "-1 is not in the range"),
    ({"--seed": "x"}, "'x' is not a valid integer"),
    ({"--device": "nope:"}, "device 'nope:' is not known; allowed: emu:"),
    ({"--device": "emu"}, "device 'emu' is not known"),
    ({"--device": "emu:1"}, "nothing may stand behind 'emu:'"),
    ({"--out": "missing/out.npz"}, "there is no folder missing"),
    ({"--out": "."}, "it is a folder"),
    ({"--out": "/proc/out.npz"}, "cannot write to folder /proc"),
    ({"--out": "/dev/null"}, "it is there and is not a file"),
    ({"--out": "x.npy"}, "--out x.npy: that is the file of --input, which would be lost"),
    ({"--out": "./w.npz"}, "that is the file of --weights"),
    ({"--nonsense": ""}, "No such option"),
]


@pytest.mark.parametrize(("changes", "message"), OPTIONS, ids=[m for _, m in OPTIONS])
def test_options(files: Path, changes: dict[str, str | None], message: str) -> None:
    refused(arguments(changes), 2, message)


def test_wrong_options_are_told_all_at_once(files: Path) -> None:
    changes = {"--learn": "hebb", "--rate": "-1", "--record": "q", "--out": "missing/o.npz"}
    refused(arguments(dict(changes)), 2, "hebb", "found -1.0", "cannot record q", "no folder")


def edited(old: str, new: str) -> Callable[[], None]:
    """A change in net.yaml."""

    def change() -> None:
        text = Path("net.yaml").read_text()
        assert old in text
        Path("net.yaml").write_text(text.replace(old, new, 1))

    return change


def truncated(name: str) -> Callable[[], None]:
    """The first two thirds of a file."""

    def change() -> None:
        data = Path(name).read_bytes()
        Path(name).write_bytes(data[: len(data) * 2 // 3])

    return change


def array(name: str, values: object) -> Callable[[], None]:
    return lambda: np.save(name, values, allow_pickle=True)  # type: ignore[arg-type]


def weights(**changes: object) -> Callable[[], None]:
    """w.npz with arrays replaced, or taken out by None."""

    def change() -> None:
        with np.load("w.npz") as file:
            arrays = {k: file[k] for k in file.files}
        for key, value in changes.items():
            name = key.replace("__", ".")
            arrays.pop(name, None)
            if value is not None:
                arrays[name] = np.asarray(value)
        np.savez("w.npz", **arrays)

    return change


def pickled(name: str) -> Callable[[], None]:
    return lambda: Path(name).write_bytes(pickle.dumps({"hidden.weight": [1.0]}))


NAN = np.full((8, 2), np.nan)
OBJECTS = np.array([{"a": 1}], dtype=object)

FILES: list[tuple[str, Callable[[], None], str]] = [
    ("unknown key", edited("dt: 0.1", "dt: 0.1\nbanana: 1"), r"net.yaml:4: banana: .*unknown"),
    ("duplicate key", edited("dt: 0.1", "dt: 0.1\ndt: 0.2"), r"net.yaml:4: dt: "),
    ("tau below dt", edited("tau_r: 0.1", "tau_r: 0.05"), r"tau_r: found 0.05; .*dt = 0.1"),
    ("no such phi", edited("tanh", "tahn"), r"phi: .*tanh"),
    ("no yaml", edited("layers:", "layers: ]["), r"net.yaml:\d+"),
    ("weights shape", weights(hidden__weight=np.ones((2, 2))), "hidden.weight: found 2 x 2"),
    ("weights missing", weights(out__bias=None), "out.bias: found nothing"),
    ("weights nan", weights(hidden__weight=NAN), "hidden.weight: found nan"),
    ("weights inf", weights(out__bias=[1, 2, np.inf]), "out.bias: found"),
    ("weights integer", weights(out__bias=[1, 2, 3]), "out.bias: found"),
    ("weights of another", weights(h9__weight=np.ones((2, 2))), "weights of another network"),
    ("weights objects", weights(out__bias=OBJECTS), r"out.bias: .*pickled"),
    ("weights pickled", pickled("w.npz"), "no complete zip archive"),
    ("weights truncated", truncated("w.npz"), "no complete zip archive"),
    ("weights gone", lambda: Path("w.npz").unlink(), "w.npz: found no such file"),
    ("input shape", array("x.npy", np.ones((4, 2))), r"x.npy: found \(4, 2\)"),
    ("input wide", array("x.npy", np.ones((40, 6, 3))), r"x.npy: found \(40, 6, 3\)"),
    ("input empty", array("x.npy", np.ones((0, 6, 2))), r"x.npy: found \(0, 6, 2\)"),
    ("input nan", array("x.npy", np.full((40, 6, 2), np.nan)), "x.npy: found nan"),
    ("input objects", array("x.npy", OBJECTS), r"x.npy: found .*pickled"),
    ("input pickled", pickled("x.npy"), "x.npy: found "),
    ("input truncated", truncated("x.npy"), "x.npy: found .*bytes"),
    ("target range", array("y.npy", np.full(6, 3)), "y.npy: found 3 at index 0"),
    ("target shape", array("y.npy", np.zeros(5, dtype=int)), r"y.npy: found \(5,\)"),
    ("target float", array("y.npy", np.zeros(6)), r"y.npy: found \(6,\) float64"),
    ("target gone", lambda: Path("y.npy").unlink(), "y.npy: found no such file"),
]


@pytest.mark.parametrize(
    ("change", "message"), [f[1:] for f in FILES], ids=[name for name, *_ in FILES]
)
def test_files(files: Path, change: Callable[[], None], message: str) -> None:
    change()
    refused(arguments({}), 4, message)


def test_names_that_do_not_exist(files: Path) -> None:
    text = refused(
        arguments({"--chip": "idela"}, "mnist1d-15x"), 4, "mnist1d-15k", "no chip named 'idela'"
    )
    assert "did you mean" in text


@pytest.mark.parametrize("seed", ["-1", "x", "", "99999999999999999999"])
def test_the_seed_of_a_chip(files: Path, seed: str) -> None:
    refused(arguments({"--chip": f"ideal:{seed}"}), 4, "seed: ")


SCALES: list[tuple[str, dict[str, object], str]] = [
    ("none", {"other": np.ones(3)}, "scales: found nothing"),
    ("shape", {"scales": np.ones((3, 4), dtype=int)}, "scales: found 3 x 4"),
    ("float", {"scales": np.ones((3, 5))}, "scales: found 3 x 5, float64"),
    ("layers", {"scales": np.ones((9, 5), dtype=int)}, "scales of 8 layers"),
    ("far off", {"scales": np.full((3, 5), 10**6)}, "numbers far from any format"),
    ("cannot be built", {"scales": np.full((3, 5), 60)}, r"on chip 'ideal' \("),
]


@pytest.mark.parametrize(
    ("arrays", "message"), [s[1:] for s in SCALES], ids=[name for name, *_ in SCALES]
)
def test_scales(files: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez("s.npz", **arrays)
    refused(arguments({"--scales": "s.npz"}), 4, message)


def test_scales_that_are_no_archive(files: Path) -> None:
    refused(arguments({"--scales": "x.npy"}), 4, "x.npy: scales: found damaged data")


def test_mistakes_of_all_files_at_once(files: Path) -> None:
    edited("dt: 0.1", "dt: 0.1\nbanana: 1")()
    weights(hidden__weight=NAN)()
    array("x.npy", np.full((40, 6, 2), np.nan))()
    array("y.npy", np.zeros(6))()
    np.savez("s.npz", other=1)
    changes: dict[str, str | None] = {"--chip": "ideal:x", "--scales": "s.npz"}
    text = refused(arguments(changes), 4, "banana", "hidden.weight: found nan", "x.npy: found nan")
    assert "y.npy" not in text or "float" in text
    assert "s.npz: scales" in text
    assert "seed" in text


def test_weights_and_target_are_looked_at_without_a_network(files: Path) -> None:
    truncated("w.npz")()
    array("y.npy", OBJECTS)()
    refused(arguments({}, "gone.yaml"), 4, "gone.yaml", "w.npz: found no complete", "y.npy: ")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "Usage"),
        (["nope"], 2, "No such command 'nope'"),
        (["train"], 2, "Missing argument 'EXPERIMENT'"),
        (["train", "nope"], 4, "no experiment named 'nope'"),
        (["train", "mnist1d-15k", "--epochs", "0"], 2, "0 is not in the range"),
        (["train", "mnist1d-15k", "--seed", "-1"], 2, "-1 is not in the range"),
        (["train", "mnist1d-15k", "--chip", "nope"], 4, "no chip named 'nope'"),
        (["train", "mnist1d-15k", "--device", "nope:"], 2, "is not known"),
        (["train", "mnist1d-15k", "--out", "/proc/x/y"], 2, "cannot write to folder /proc"),
        (["train", "mnist1d-15k", "--out", "x.npy"], 2, "is not a folder"),
        (["eval", "mnist1d-15k"], 2, "Missing option '--weights'"),
        (["eval", "mnist1d-15k", "--weights", "w.npz"], 4, "weights of another network"),
        (["eval", "nope", "--weights", "gone.npz"], 4, "gone.npz: found no such file"),
        (
            ["eval", "mnist1d-15k", "--weights", "w.npz", "--json", "no/x.json"],
            2,
            "--json no/x.json: there is no folder no",
        ),
        (
            ["verify", "mnist1d-15k-kolen-pollack", "--rule", "sign", "--steps", "2"],
            2,
            r"kolen-pollack: found rule sign.*; allowed on the chip: rule sgd",
        ),
        (
            ["preflight", "mnist1d-15k-kolen-pollack", "--board", "nope", "--learn",
             "--rule", "normalised"],
            2,
            r"kolen-pollack: found rule normalised.*; allowed on the chip: rule sgd",
        ),
        (["demo", "--device", "nope:"], 2, "is not known"),
        (["demo", "--out", "/proc/x"], 2, "cannot write to folder /proc"),
        (["demo", "--out", "x.npy"], 2, "is not a folder"),
    ],
)
def test_other_commands(files: Path, args: list[str], code: int, message: str) -> None:
    refused(args, code, message)


def test_an_experiment_and_a_chip_with_mistakes(files: Path) -> None:
    text = refused(["train", "nope", "--chip", "neither"], 4, "no experiment", "no chip")
    assert text.count("\n") == 2
