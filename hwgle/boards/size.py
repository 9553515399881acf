"""How much of a board its firmware takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hwgle.boards.description import Board
from hwgle.boards.elf import Elf


@dataclass(frozen=True)
class Size:
    """Bytes. ram: static data; stack: kept for it, stack_bound: of it at most used as far
    as gcc can tell; memory: left for link, device and chip. None: not known."""

    flash: int
    ram: int
    stack: int | None
    stack_bound: int | None
    memory: int | None


def size_of(board: Board, elf: Path) -> Size:
    """What a firmware that `build` returned takes."""
    file = Elf(elf)
    sections, symbols = file.sections(), file.symbols()
    ram = [s for s in sections if s.name in (".data", ".bss", ".noinit", ".tdata", ".tbss")]
    beside = elf.with_suffix(".json")
    bound = json.loads(beside.read_text())["stack_bound"] if beside.is_file() else None
    free = symbols.get("map_free"), symbols.get("map_free_end")
    return Size(
        flash=sum(s.size for s in sections if s.stored),
        ram=sum(s.size for s in ram),
        stack=board.memory.stack,
        stack_bound=bound,
        memory=None if free[0] is None or free[1] is None else free[1] - free[0],
    )
