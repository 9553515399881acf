"""What SECURITY.md says of files and of the code, as far as a test can see it."""

from __future__ import annotations

import ast
import io
import re
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hwgle.cli.main import cli
from hwgle.errors import FileMistakes
from hwgle.experiment import Experiment
from hwgle.recording.file import BYTES_MAX, MAGIC, RECORD, Reader

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path for folder in ("hwgle", "bench", "firmware", "csrc")
    for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts
]  # fmt: skip
FORBIDDEN = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "marshal.loads", "shelve.open",
    "subprocess.getoutput", "subprocess.getstatusoutput", "joblib.load",
}  # fmt: skip
# A user's own data from a Python file that the experiment names (SECURITY.md, 10).
RUNS_PYTHON = {("hwgle/tasks/python.py", "exec"), ("hwgle/tasks/python.py", "compile")}
MOST = 16 << 20  # bytes that refusing a bomb may take


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def test_nothing_is_evaluated_unpickled_or_given_to_a_shell() -> None:
    assert len(SOURCES) > 100
    for path in SOURCES:
        for name, call in calls(path):
            if (path.relative_to(ROOT).as_posix(), name) not in RUNS_PYTHON:
                assert name not in FORBIDDEN, (path, name)
            named = [k for k in call.keywords if k.arg in ("shell", "allow_pickle")]
            given = {k.arg: ast.unparse(k.value) for k in named}
            assert given.get("shell", "False") == "False", (path, name)
            if name in ("np.load", "numpy.load"):
                assert given.get("allow_pickle") == "False", (path, call.lineno)
            if name.startswith("subprocess.") and call.args:
                assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), (path, name)


def test_nothing_listens_but_on_this_machine() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert "0.0.0.0" not in text, path
        for name, call in calls(path):
            if name.endswith(".bind") and call.args:
                assert re.search(r"127\.0\.0\.1|localhost|::1", ast.unparse(call)), (path, name)


def member(claimed: int | tuple[int, ...], held: bytes, descr: str = "<f8") -> bytes:
    """A `.npy` that claims so many numbers and holds these bytes."""
    stream = io.BytesIO()
    shape = claimed if isinstance(claimed, tuple) else (claimed,)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + held


BOMBS = {
    "unpacks to 32 MB": (4_000_000, 32_000_000),
    "claims 8 TB": (1 << 40, 80),
    "claims nothing, unpacks to 32 MB": (1, 32_000_000),
}


def refused_cheaply(words: list[str], *fragments: str) -> None:
    tracemalloc.start()
    try:
        result = CliRunner().invoke(cli, words)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert result.exit_code == 4, result.output
    assert "Traceback" not in result.output
    for fragment in fragments:
        assert fragment in result.output, result.output


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of each kind, with a member of each name that is looked for."""
    folder = tmp_path_factory.mktemp("bombs")
    for k, (claimed, held) in enumerate(BOMBS.values()):
        with zipfile.ZipFile(
            folder / f"{k}.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            for name in ("h1.weight", "scales", "header"):
                archive.writestr(f"{name}.npy", member(claimed, bytes(held)))
    np.save(folder / "x.npy", np.zeros((4, 1, 1)))
    return folder


@pytest.mark.parametrize("which", ["--weights", "--scales", "--calibration"])
@pytest.mark.parametrize("network", ["mnist1d-15k", "no-such-network"])
def test_archives_that_are_bombs(which: str, network: str, bombs: Path) -> None:
    for k in range(len(BOMBS)):
        path = bombs / f"{k}.npz"
        given = {"--weights": str(ROOT / "hwgle/zoo/weights/mnist1d-15k.npz"), which: str(path)}
        words = ["run", network, "--input", str(bombs / "x.npy"), "--out", str(bombs / "o.npz")]
        told = f"{k}.npz: " if network == "mnist1d-15k" else "no network named"
        refused_cheaply([*words, *(w for pair in given.items() for w in pair)], told)


EXPERIMENT = """\
format: hwgle/experiment/1
name: own
network: mnist1d-15k
chip: ideal
task: {name: %s, file: data}
training: {rule: adam, epochs: 1, batch: 1, learning_rate: 0.001}
"""


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("train_y", member(10, bytes(32_000_000), "<i8"), "32000000 bytes of data where"),
        ("train_y", member(1 << 40, bytes(80), "<i8"), "80 bytes of data where the header"),
        ("train_x", member((1 << 40, 1, 1), bytes(80), "<f4"), "80 bytes of data where"),
        ("train_x", member((1, 8_000_000, 1), bytes(32_000_000), "<f4"), "train_y: nothing"),
    ],
    ids=["holds more", "claims 8 TB", "claims 4 TB", "large as it says"],
)
def test_data_that_are_bombs(name: str, data: bytes, found: str, tmp_path: Path) -> None:
    """Looking at an experiment unpacks none of it."""
    with zipfile.ZipFile(tmp_path / "data", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"{name}.npy", data)
    (tmp_path / "bad.yaml").write_text(EXPERIMENT % "npz")
    refused_cheaply(["train", str(tmp_path / "bad.yaml")], found)


def test_a_python_file_is_not_run_by_looking_at_it(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "data").write_text(f"open({str(ran)!r}, 'w')\ndef load(): pass\n")
    (tmp_path / "e.yaml").write_text(EXPERIMENT % "python")
    experiment = Experiment.load(tmp_path / "e.yaml")
    assert not ran.exists()
    with pytest.raises(FileMistakes, match="returned NoneType"):
        experiment.load_task()
    assert ran.exists()


def test_an_input_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(member(1 << 40, bytes(80)))
    words = ["run", "mnist1d-15k", "--weights", str(ROOT / "hwgle/zoo/weights/mnist1d-15k.npz"),
             "--input", str(tmp_path / "x.npy"), "--out", str(tmp_path / "o.npz")]  # fmt: skip
    refused_cheaply(words, "80 bytes of data where the header claims")


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join(9 * [f'*a{k - 1}'])}]\n" for k in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ALIASES, "the alias"),
        ("name: !!python/object/apply:os.system [echo]\n", "the tag tag:yaml.org,2002:python"),
        ("a: " + "[" * 300, "bad.yaml:1"),
        ("a: " + "x" * (2 << 20), "more than 1048576 bytes"),
    ],
    ids=["aliases", "tag", "depth", "size"],
)
def test_yaml_bombs(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    weights = str(ROOT / "hwgle/zoo/weights/mnist1d-15k.npz")
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 1)))
    refused_cheaply(
        ["run", str(tmp_path / "bad.yaml"), "--weights", weights, "--input",
         str(tmp_path / "x.npy"), "--out", str(tmp_path / "o.npz")],
        found,
    )  # fmt: skip


def test_a_record_that_claims_more_than_any_has(tmp_path: Path) -> None:
    head = b'{"command": [], "hwgle": "1", "python": "3", "system": "x", "began": "", '
    head += b'"messages": 1, "link": 1}\n'
    path = tmp_path / "r.hwr"
    path.write_bytes(MAGIC + head + RECORD.pack(1, 0, 0, BYTES_MAX + 1, 0) + b"x")
    reader = Reader(path)
    assert list(reader.records()) == []
    assert reader.cut is not None
    path.write_bytes(MAGIC + b"{" * (1 << 20) + b"\n")
    with pytest.raises(FileMistakes, match="damaged"):
        Reader(path)
