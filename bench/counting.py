"""Instructions that a firmware in QEMU executes, exactly, function by function."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwgle.boards import build, start_qemu
from hwgle.boards.elf import Elf
from hwgle.boards.qemu import QemuBoard

# Files whose static functions do not belong to a step, and beginnings of the names of
# functions that do not: link, device, board. What is left is the chip, with the division
# that the compiler brings.
AROUND_FILES = ("link", "frame", "cobs", "crc32", "rto", "hello", "session", "device", "message",
                "main", "board", "line", "boot", "cortex", "riscv", "stack", "stm32")  # fmt: skip
AROUND = (*(f"{name}_" for name in AROUND_FILES), "mem", "firmware_run", "wait_for")

# Kernels of products for one stream, whatever an instruction set calls them: static
# functions of their files, and what the table of kernels points at.
PRODUCT_FILES = ("matvec", "single")
PRODUCT_NAMES = re.compile(r"^gle_(product|learn|update|outer|see)\w*?_(one|row|dsp)\w*$")


class Counted:
    """A running board and its counters."""

    def __init__(self, board: QemuBoard, elf: Elf, base: int, out: Path) -> None:
        self.board = board
        self._out, self._base = out, base
        self._chip = [f for f in elf.functions() if _of_the_chip(f[0], f[1])]

    def chip(self) -> int:
        """Instructions so far in functions of the chip."""
        return sum(self.functions().values())

    def parts(self) -> tuple[int, int, int]:
        """The same in parts: kernels of products, neurons, all else."""
        parts = [0, 0, 0]
        for (name, file), count in self.functions().items():
            parts[_part(name, file)] += count
        return parts[0], parts[1], parts[2]

    def functions(self) -> dict[tuple[str, str], int]:
        """The same by function: name, and source file of static ones."""
        counters: NDArray[np.uint64] = np.fromfile(self._out, dtype=np.uint64)
        found: dict[tuple[str, str], int] = {}
        for name, file, address, size in self._chip:
            first = (address - self._base) // 2
            count = int(counters[first : first + (size + 1) // 2].sum())
            found[name, file] = found.get((name, file), 0) + count
        return found


def _of_the_chip(name: str, file: str) -> bool:
    return not (name.startswith(AROUND) or file.startswith(AROUND_FILES))


def _part(name: str, file: str) -> int:
    """0: kernels of products, 1: neurons, 2: all else."""
    if name.startswith("gle_neurons") or file.startswith("neurons"):
        return 1
    return 0 if file.startswith(PRODUCT_FILES) or PRODUCT_NAMES.match(name) else 2


@contextmanager
def counted(name: str) -> Iterator[Counted]:
    """A board in QEMU that counts."""
    path = build(name)
    elf = Elf(path)
    base, image = elf.image()
    with tempfile.TemporaryDirectory(prefix="hwgle-count-") as work:
        plugin, out = Path(work) / "count.so", Path(work) / "counters"
        source = Path(__file__).with_name("count.c")
        command = [
            "cc",
            "-O2",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-o",
            str(plugin),
            str(source),
        ]
        subprocess.run(command, check=True)
        words = f"{plugin},base={base:#x},bytes={len(image):#x},out={out}"
        with start_qemu(name, extra=["-plugin", words]) as board:
            yield Counted(board, elf, base, out)
