"""Firmware is built: without a warning, without a libc, within its memory, once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from all_boards import BOARDS, EMULATED, param

from hwgle.boards import build
from hwgle.boards.builder import BuildFailed, MissingProgram
from hwgle.boards.elf import Elf
from hwgle.boards.size import size_of
from hwgle.boards.sources import root

# What gcc calls for floating point: AEABI and libgcc names.
FLOATING = re.compile(r"__aeabi_[fd]|__aeabi_\w*2[fd]\b|__\w+[sdt]f\d?$|__float|__fix")


@pytest.mark.parametrize("name", [param(name, run=False) for name in EMULATED])
def test_builds_and_fits(name: str) -> None:
    """Warnings are errors in every build."""
    elf = build(name)
    board = BOARDS[name]
    size = size_of(board, elf)
    assert board.memory.flash is not None
    assert size.flash < board.memory.flash
    assert size.stack is not None
    assert size.memory is not None
    # Alignment may cost a few bytes, nothing else is lost.
    assert 0 <= board.memory.ram - size.ram - size.stack - size.memory < 64
    assert size.stack_bound is not None
    assert 500 < size.stack_bound <= size.stack


@pytest.mark.parametrize("name", [param(name, run=False) for name in EMULATED])
def test_needs_no_libc_and_no_floating_point(name: str) -> None:
    symbols = Elf(build(name)).symbols()
    assert "firmware_run" in symbols
    assert not [s for s in symbols if FLOATING.search(s)]
    assert not {"malloc", "printf", "_sbrk", "__libc_init_array", "abort"} & set(symbols)


@pytest.mark.parametrize("name", [param("stm32f405", run=False)])
def test_the_image_begins_with_the_vectors(name: str) -> None:
    elf = Elf(build(name))
    start, image = elf.image()
    symbols = elf.symbols()
    assert start == 0x08000000
    assert int.from_bytes(image[:4], "little") == symbols["map_stack_end"]
    assert int.from_bytes(image[4:8], "little") == symbols["cortex_reset"] | 1
    assert symbols["map_stack"] == 0x20000000  # an overflow leaves the RAM


@pytest.mark.board("arm-none-eabi-gcc")
def test_a_board_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    """Nothing but the folder is needed."""
    folder = tmp_path / "my_board"
    shutil.copytree(root() / "firmware" / "boards" / "stm32vldiscovery", folder)
    text = (folder / "board.yaml").read_text()
    (folder / "board.yaml").write_text(text.replace("name: stm32vldiscovery", "name: my_board"))
    elf = build(folder)
    assert b"my_board" in elf.read_bytes()
    with (folder / "board.c").open("a") as file:
        file.write("\nint unused_but_new;\n")
    assert build(folder) != elf


def test_host_is_built_once_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build("host")
    monkeypatch.chdir(tmp_path)
    date = first.stat().st_mtime_ns
    assert build("host") == first
    assert first.stat().st_mtime_ns == date
    copy = build("host", tmp_path / "here" / "host.elf")
    assert copy.read_bytes() == first.read_bytes()
    assert os.access(copy, os.X_OK)


@pytest.mark.long
def test_two_builds_at_once(tmp_path: Path) -> None:
    code = "from hwgle.boards import build; print(build('host'))"
    environment = {**os.environ, "HWGLE_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert said[0] == said[1]
    assert sorted(p.suffix for p in (tmp_path / "firmware").iterdir()) == [".elf", ".json"]


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgram, match="sudo apt-get install gcc-arm-none-eabi"):
        build("stm32f405")


def test_what_the_compiler_says_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(root() / "firmware" / "boards" / "host", folder)
    text = (folder / "board.yaml").read_text()
    (folder / "board.yaml").write_text(text.replace("name: host", "name: broken"))
    (folder / "wrong.c").write_text("int f(void) { int unused; return 0; }\n")
    with pytest.raises(BuildFailed, match=r"unused variable|unused-variable"):
        build(folder)
    assert "broken" not in os.listdir()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HWGLE_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildFailed, match="set HWGLE_CACHE"):
        build("host")
