"""The core as boards compile it: without a warning, a libc, or memory of its own."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
sys.path.insert(0, str(CSRC))
from build_core import CORE_PORTABLE  # noqa: E402

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
ALONE = ["-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8", "-ffreestanding", "-nostdlib", "-fno-pic", "-Os"]
TARGETS = {
    "gcc": [],
    "clang": [],
    "arm-none-eabi-gcc": ["-mcpu=cortex-m3", "-mthumb"],
    "riscv64-unknown-elf-gcc": ["-march=rv32imac", "-mabi=ilp32"],
}
BUILTINS = {"memcpy", "memset", "memmove", "memcmp"}


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def objects(compiler: str, sources: list[Path], to: Path, flags: list[str]) -> list[str]:
    def one(source: Path) -> str:
        made = to / f"{source.parent.name}_{source.stem}.o"
        run([compiler, *flags, "-I", str(CSRC), "-c", str(source), "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, sources))


@pytest.mark.parametrize("compiler", TARGETS)
def test_what_a_board_compiles_needs_nothing(compiler: str, tmp_path: Path) -> None:
    """Without a warning, without a libc, without a byte of memory of its own."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    flags = [*STRICT, *ALONE, *TARGETS[compiler]]
    if compiler == "gcc" and platform.machine() in ("x86_64", "aarch64"):
        flags.append("-mgeneral-regs-only")  # refuses every floating-point operation
    made = objects(compiler, [CSRC / name for name in CORE_PORTABLE], tmp_path, flags)
    whole = tmp_path / "whole.o"
    machine = [flag for flag in TARGETS[compiler] if flag.startswith("-m")]
    run([compiler, *machine, "-nostdlib", "-r", *made, "-o", str(whole)])
    nm = compiler.replace("gcc", "nm") if "-" in compiler else "nm"
    lines = [line.split() for line in run([nm, str(whole)]).splitlines()]
    missing = {line[-1] for line in lines if line[-2] == "U"}
    # of 64-bit division, which a 32-bit machine has in libgcc
    assert {name for name in missing if not name.startswith("__")} <= BUILTINS
    assert not {line[-1] for line in lines if line[-2] in "bBdDcC"} - {"message_list"}
