"""A board as its board.yaml tells it: compiler, sources, memory, emulator, how to flash."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from hwgle.boards import sources
from hwgle.errors import DeviceError, UsageError
from hwgle.yamlfile import Checked, Rule, mappings, read, validate

LEAST_PAYLOAD, MOST_PAYLOAD, MOST_WINDOW = 64, 8192, 64
PLACES = ("elf", "bin", "port", "probe")

Words = Annotated[tuple[str, ...], Field(strict=False, description="a list of words")]


class Program(Checked):
    """A program that must be installed, and the Debian package that brings it."""

    program: str
    debian: str


class Memory(Checked):
    """Bytes. ram: all of it; stack: what of it is kept for the stack; flash: for the code."""

    ram: int = Field(ge=4096)
    flash: int | None = Field(None, ge=4096)
    stack: int | None = Field(None, ge=256)


class Limits(Checked):
    """Of the link: bytes of the largest message, messages under way."""

    payload: int = Field(ge=LEAST_PAYLOAD, le=MOST_PAYLOAD)
    window: int = Field(ge=1, le=MOST_WINDOW)


class Qemu(Program):
    """The emulator: its machine, and which of its serial lines the firmware uses, from 0."""

    machine: str
    serial: int = Field(0, ge=0, le=7)


class Speed(Checked):
    """What a step costs, for the preflight: instructions for a step whatever its size, for
    each neuron, for each product of the forward and the backward sums, for each weight that
    learns; hz: of the core. command: what measured them."""

    hz: float = Field(gt=0)
    step: float = Field(ge=0)
    neuron: float = Field(ge=0)
    forward: float = Field(ge=0)
    back: float = Field(ge=0)
    update: float = Field(ge=0)
    command: str


class FlashMethod(Checked):
    """One way to get the firmware onto a real board.

    command: words, with {elf}, {bin} and {port} put in; a word {probe} stands for the words
    of `probe` when the user names one, else for nothing. install: how to get the program;
    needs: what must lie on the desk.
    """

    command: tuple[str, ...] = Field(strict=False, min_length=1, description="a list of words")
    probe: Words = ()
    install: str
    needs: str


class Board(Checked):
    """One board.yaml."""

    format: Literal["hwgle/board/1"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="a name of a-z, 0-9 and _")
    title: str
    cpu: str
    body: Literal["host", "firmware"] = "firmware"
    hardware: Words = ()
    proven: str
    baud: int = Field(115200, ge=1200)
    memory: Memory
    link: Limits
    compiler: Program
    flags: Words
    defines: dict[str, int] = Field(default_factory=dict, description="names with numbers")
    sources: Words
    qemu: Qemu | None = None
    speed: Speed | None = None
    flash: tuple[FlashMethod, ...] = Field(
        default=(), strict=False, description="a list of ways to flash"
    )

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """Firmware for a chip needs to know flash and stack; commands name known places."""
        memory = data.get("memory")
        if data.get("body", "firmware") == "firmware" and isinstance(memory, Mapping):
            for key in ("flash", "stack"):
                if memory.get(key) is None:
                    yield Rule(("memory", key), "nothing, the key is missing", "bytes")
        for i, method in mappings(data.get("flash")):
            for word in (*(method.get("command") or ()), *(method.get("probe") or ())):
                try:
                    str(word).format_map(dict.fromkeys(PLACES, ""))
                except (KeyError, ValueError, IndexError):
                    allowed = ", ".join(f"{{{place}}}" for place in PLACES)
                    yield Rule(("flash", i, "command"), repr(word), f"words with {allowed}")


class Described(NamedTuple):
    """A board and the folder that holds it."""

    board: Board
    folder: Path

    @property
    def outside(self) -> bool:
        """Whether it is not one of those that hwgle ships."""
        return self.folder.parent != sources.root() / "firmware" / "boards"


def names() -> list[str]:
    """The boards that hwgle ships."""
    folders = (sources.root() / "firmware" / "boards").iterdir()
    return sorted(folder.name for folder in folders if (folder / "board.yaml").is_file())


def load(name: str | os.PathLike[str]) -> Described:
    """A board by its name, or by a path to a folder with a board.yaml.

    Raises:
        UsageError: there is no such board.
        FileMistakes: all mistakes of its board.yaml.
    """
    text = os.fspath(name)
    if "/" in text or os.sep in text:
        folder = Path(text).resolve()
        if not (folder / "board.yaml").is_file():
            raise UsageError(f"board {text!r}: there is no {folder / 'board.yaml'}")
    else:
        folder = sources.root() / "firmware" / "boards" / text
        if text not in names():
            raise UsageError(f"no board named {text!r}; allowed: {', '.join(names())}, or a path")
    board = validate(Board, read(folder / "board.yaml"))
    if board.name != folder.name:
        raise DeviceError(f"{folder / 'board.yaml'}: name is {board.name}, folder {folder.name}")
    return Described(board, folder)
