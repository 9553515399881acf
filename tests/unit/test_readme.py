"""What README.md shows works: its Python, its files, its command lines."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

from bench.__main__ import BENCHES
from hwgle.cli.main import cli
from hwgle.network import Network

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    found: list[str] = []
    parser = CodeBlockParser(language, evaluator=lambda example: found.append(example.parsed))
    for example in Sybil(parsers=[parser], path=str(ROOT), pattern="README.md").parse(README):
        example.evaluate()
    return found


def command_lines() -> list[str]:
    """What stands behind `./run`, without comments, in indented lines and between backquotes."""
    found = []
    for line in README.read_text().splitlines():
        if line.startswith("    ./run "):
            found.append(line.strip())
        else:
            found += [part for part in line.split("`")[1::2] if part.startswith("./run ")]
    return [" ".join(shlex.split(line, comments=True)[1:]) for line in found]


LINES = command_lines()


def parse(words: list[str]) -> None:
    """By the real command line, as far as it goes without running anything."""
    command: click.Command = cli
    context = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=command.name)
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        command = found
    if not words:
        return  # a command that is only mentioned
    with command.make_context(command.name, list(words), parent=context) as made:
        rest = made.params.get("command") if command.name == "record" else None
    if rest:
        parse(list(rest))


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("hwgle ")])
def test_command_lines_of_the_readme_are_taken(line: str) -> None:
    parse(shlex.split(line)[1:])


BAD = ["run mnist1d-15k", "run --no-such", "chip nothing", "board build --x"]


@pytest.mark.parametrize("line", BAD)
def test_lines_that_are_none_are_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line.split())


def test_there_are_lines_of_each_kind() -> None:
    assert len([line for line in LINES if line.startswith("hwgle ")]) > 20
    for line in LINES:
        kind, *rest = line.split()
        assert kind in ("demo", "test", "bench", "python", "hwgle"), line
        if kind == "bench":
            assert rest[0] in BENCHES, line
        if kind == "python":
            assert rest[0] == "-m", line
            assert importlib.util.find_spec(rest[1]) is not None, line


def test_python_of_the_readme_runs(tmp_path: Path) -> None:
    """As tests, which its blocks are, on the emulator."""
    found = blocks("python")
    assert found
    for k, text in enumerate(found):
        (tmp_path / f"test_readme_{k}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         *([] if plugged() else ["-p", "hwgle.pytest_plugin"]), "--rootdir", ".", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= sum(text.count("def test_") for text in found)


def plugged() -> bool:
    """Whether pytest finds the plugin of an installed hwgle by itself."""
    from importlib.metadata import entry_points

    return any(point.name == "hwgle" for point in entry_points(group="pytest11"))


def test_networks_of_the_readme_are_sound(tmp_path: Path) -> None:
    found = [text for text in blocks("yaml") if text.startswith("format: hwgle/network/")]
    assert len(found) == 2
    for text in found:
        (tmp_path / "net.yaml").write_text(text)
        Network.load(str(tmp_path / "net.yaml"))
