"""Flashing: the right line for the tool that is there, or how to get one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from hwgle.boards import flash
from hwgle.boards.builder import MissingProgram
from hwgle.boards.description import load, names
from hwgle.cli.board import command
from hwgle.errors import UsageError

FLASHED = [name for name in names() if load(name).board.flash]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of programs; make one there and it is found."""
    folder = tmp_path / "tools"
    folder.mkdir()
    installed = shutil.which

    def which(name: str) -> str | None:
        if name.endswith("gcc"):
            return installed(name)
        return next(map(str, folder.glob(name)), None)

    monkeypatch.setattr(shutil, "which", which)
    return folder


def make(tools: Path, name: str, code: int = 0) -> None:
    (tools / name).write_text(f"#!/bin/sh\nexit {code}\n")
    (tools / name).chmod(0o755)


@pytest.mark.parametrize("name", FLASHED)
def test_without_a_tool_every_way_is_told(name: str, tools: Path) -> None:
    board = load(name).board
    with pytest.raises(MissingProgram) as caught:
        flash.choose(board)
    for method in board.flash:
        assert method.install in str(caught.value)
        assert method.needs in str(caught.value)


@pytest.mark.parametrize("name", FLASHED)
def test_every_method_has_its_line(name: str) -> None:
    for method in load(name).board.flash:
        line = flash.words(method, "a b.elf", "a b.bin", "/dev/ttyUSB0", None)
        assert any("a b.elf" in word or "a b.bin" in word for word in line)
        assert "" not in line
        assert not any("{probe}" in word or "{port}" in word for word in line)
        if method.probe:
            assert any("ABC" in w for w in flash.words(method, "e", "b", "p", "ABC"))


def test_the_tool_that_is_there_is_taken(tools: Path) -> None:
    board = load("stm32f405").board
    make(tools, "openocd")
    assert flash.choose(board).command[0] == "openocd"
    make(tools, "pyocd")
    assert flash.choose(board).command[0] == "pyocd"
    assert flash.choose(board, tool="openocd").command[0] == "openocd"
    make(tools, "stm32flash")
    assert flash.choose(board, port="/dev/ttyUSB0").command[0] == "stm32flash"


def test_what_cannot_be_meant_is_refused(tools: Path) -> None:
    with pytest.raises(UsageError, match="nothing to flash"):
        flash.choose(load("host").board)
    with pytest.raises(UsageError, match="allowed: openocd"):
        flash.choose(load("hifive1").board, tool="pyocd")
    with pytest.raises(UsageError, match="nothing here flashes over a port"):
        flash.choose(load("hifive1").board, port="/dev/ttyUSB0")
    method = load("stm32f405").board.flash[-1]
    with pytest.raises(UsageError, match="say --port"):
        flash.words(method, "e", "b", None, None)
    with pytest.raises(UsageError, match="cannot be told which probe"):
        flash.words(method, "e", "b", "p", "ABC")


@pytest.mark.board("arm-none-eabi-gcc")
def test_flash_builds_and_runs_the_tool(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tools, "st-flash")
    calls: list[list[str]] = []
    monkeypatch.setattr(flash, "run", lambda line, folder: calls.append(line))
    result = CliRunner().invoke(command, ["flash", "stm32vldiscovery", "--probe", "42"])
    assert result.exit_code == 0, result.output
    (line,) = calls
    assert line[:5] == ["st-flash", "--reset", "--serial", "42", "write"]
    image = Path(line[5]).read_bytes()
    assert len(image) < 131072
    assert int.from_bytes(image[4:8], "little") & 1  # the reset vector, Thumb
    CliRunner().invoke(command, ["flash", "stm32vldiscovery", "--dry-run"])
    assert len(calls) == 1


def test_a_tool_that_fails_is_told(tmp_path: Path) -> None:
    make(tmp_path, "tool", 3)
    with pytest.raises(flash.FlashFailed, match="ended with 3"):
        flash.run([str(tmp_path / "tool")], tmp_path)
    with pytest.raises(flash.FlashFailed, match="does not run"):
        flash.run([str(tmp_path / "none")], tmp_path)
