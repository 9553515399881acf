"""board.yaml: what is there is right, what is wrong is told with its line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hwgle import boards
from hwgle.boards import sources
from hwgle.boards.description import load, names
from hwgle.errors import DeviceError, FileMistakes, UsageError

FIRMWARE = sources.root() / "firmware"


def test_all_the_boards_are_there() -> None:
    assert names() == ["hifive1", "host", "nucleo_f446re", "stm32f405", "stm32vldiscovery"]


@pytest.mark.parametrize("name", names())
def test_what_a_board_names_is_there(name: str) -> None:
    board, folder = load(name)
    for source in board.sources:
        assert (FIRMWARE / source).is_file(), source
    assert (folder / "board.c").is_file()
    assert board.body == "host" or (folder / "link.ld").is_file()
    bench_page = (folder / "README.md").read_text()
    for piece in board.hardware:
        assert piece in bench_page
    assert f"hwgle board build {name}" in bench_page or board.body == "host"


def test_the_porting_api_is_about_ten_functions() -> None:
    text = re.sub(r"/\*.*?\*/", "", (FIRMWARE / "board.h").read_text(), flags=re.S)
    functions = re.findall(r"\b(board_\w+)\(", text)
    assert len(functions) == 10
    guide = (FIRMWARE / "README.md").read_text()
    for function in functions:
        assert function in guide


def test_no_code_outside_its_folder_names_a_board() -> None:
    """A new board is a new folder and nothing else."""
    common = [FIRMWARE / "main.c", FIRMWARE / "board.h", *(FIRMWARE / "common").iterdir()]
    ours = [*Path(boards.__file__).parent.glob("*.py")]
    for path in (*common, *ours):
        text = re.sub(r"/\*.*?\*/|\"\"\".*?\"\"\"", "", path.read_text(), flags=re.S)
        for name in set(names()) - {"host"}:
            assert name not in text.lower(), f"{path} names {name}"


def test_the_portable_core_is_what_the_firmware_carries() -> None:
    build_core = (sources.root() / "csrc" / "build_core.py").read_text()
    listed = re.search(r"CORE_PORTABLE = \[(.*?)\]", build_core, re.S)
    assert listed is not None
    place = sources.root() / "csrc"
    carried = {str(path.relative_to(place)) for path in sources.core(sources.root())}
    assert carried == set(re.findall(r'"([^"]+)"', listed[1]))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIRMWARE / "boards" / "stm32f405", tmp_path / "mine"))


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / "board.yaml").read_text()
    assert old in text
    (folder / "board.yaml").write_text(text.replace(old, new))


def test_a_board_of_ones_own(copy: Path) -> None:
    rewrite(copy, "name: stm32f405", "name: mine")
    assert load(copy).board.name == "mine"
    assert load(copy).outside


def test_all_mistakes_at_once_with_their_lines(copy: Path) -> None:
    rewrite(copy, "name: stm32f405", "name: mine")
    rewrite(copy, "payload: 256", "payload: 32")
    rewrite(copy, "  stack: 2048\n", "")
    rewrite(copy, "cpu: Cortex-M4", "cpus: Cortex-M4")
    rewrite(copy, '"{port}"]', '"{prot}"]')
    with pytest.raises(FileMistakes) as caught:
        load(copy)
    text = str(caught.value)
    for words in ("link.payload: found 32; allowed: a whole number from 64 to 8192",
                  "memory.stack: found nothing", "did you mean cpu?", "'{prot}'"):  # fmt: skip
        assert words in text
    assert all(mistake.line for mistake in caught.value.mistakes)


def test_name_and_folder_agree(copy: Path) -> None:
    with pytest.raises(DeviceError, match="name is stm32f405, folder mine"):
        load(copy)


def test_an_unknown_board_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"allowed: .*stm32f405.*, or a path"):
        load("stm32f406")
    with pytest.raises(UsageError, match=r"there is no .*board\.yaml"):
        load(tmp_path / "nothing")
