"""The core builds with two compilers without a warning, alone, and without floats.

What runs under the address and undefined-behaviour sanitizers is tests/c/step_driver.c.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
CORE = sorted(CSRC.glob("*.c"))
HOST = sorted((CSRC / "host").glob("*.c"))  # names the kernel tables; no part of the core
DRIVER = ROOT / "tests" / "c" / "step_driver.c"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
ALONE = ["-DGLE_SCALAR_ONLY", "-ffreestanding", "-nostdlib", "-fno-pic", "-O2"]
SANITIZED = [
    "-std=c11", "-g1", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip
# What a compiler may call on its own account even in a freestanding program.
BUILTINS = {"memcpy", "memset", "memmove", "memcmp"}


def run(command: list[str]) -> str:
    """Output of a command; its messages are the failure when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def program(name: str) -> str:
    """Path of a program; skips where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here")
    return path


def compiled(compiler: str, sources: list[Path], to: Path, flags: list[str]) -> list[Path]:
    """Object files, made two at a time."""

    def one(source: Path) -> Path:
        made = to / f"{source.stem}.o"
        run([compiler, *flags, "-I", str(CSRC), "-c", str(source), "-o", str(made)])
        return made

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, sources))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warning(compiler: str, tmp_path: Path) -> None:
    # not -O0: there gcc's intrinsics are macros, and their insides would be warned about
    compiled(program(compiler), [*CORE, *HOST], tmp_path, [*STRICT, "-O1"])


def test_no_warning_in_what_is_for_neon() -> None:
    """clang for AArch64; gcc's is in tests/parity/test_neon.py, which runs what it makes."""
    sources = [str(source) for source in CORE if source.stem.endswith("_neon")]
    assert len(sources) >= 6
    target = ["--target=aarch64-linux-gnu", "-O1", "-fsyntax-only"]
    run([program("clang"), *STRICT, *target, "-I", str(CSRC), *sources])


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_alone_it_needs_nothing(compiler: str, tmp_path: Path) -> None:
    """Freestanding: no libc beyond what a compiler itself calls, no globals that change."""
    compiler = program(compiler)
    objects = compiled(compiler, CORE, tmp_path, [*STRICT, *ALONE])
    whole = tmp_path / "core.o"
    run([compiler, "-nostdlib", "-r", *map(str, objects), "-o", str(whole)])
    nm = program("nm")
    missing = {line.split()[-1] for line in run([nm, "-u", str(whole)]).splitlines()}
    assert missing <= BUILTINS
    kinds = {line.split()[-2]: line.split()[-1] for line in run([nm, str(whole)]).splitlines()}
    assert not kinds.keys() & set("bBdDcC"), kinds


def test_integers_only(tmp_path: Path) -> None:
    """With general registers only a compiler refuses every floating-point operation."""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("needs an x86_64 or aarch64 machine for -mgeneral-regs-only")
    flags = [*STRICT, *ALONE, "-mgeneral-regs-only"]
    compiled(program("gcc"), CORE, tmp_path, flags)
    probe = tmp_path / "probe.c"
    probe.write_text("float f(float x); float f(float x) { return 2 * x; }\n")
    done = subprocess.run(
        [program("gcc"), *flags, "-c", str(probe), "-o", str(tmp_path / "probe.o")],
        capture_output=True,
    )
    assert done.returncode != 0, "the flag lets floats pass: this test proves nothing"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver with the core, under sanitizers."""
    gcc = program("gcc")
    to = tmp_path_factory.mktemp("driver")
    objects = compiled(gcc, [*CORE, *HOST, DRIVER], to, SANITIZED)
    run([gcc, *SANITIZED, *map(str, objects), "-lm", "-o", str(to / "step_driver")])
    return to / "step_driver"


def test_chips_under_sanitizers(driver: Path, seed: int) -> None:
    """Learning, ranging, read-outs and snapshots; both tables equal at every step."""
    for k in range(3):
        run([str(driver), "parity", str(seed + 1000 * k), "12"])


def test_hostile_images_under_sanitizers(driver: Path, seed: int) -> None:
    """Every word replaced, several at once: refused, or a chip that runs."""
    for k in range(3):
        run([str(driver), "hostile", str(seed + k), "1"])


def test_kernels_under_sanitizers(driver: Path, seed: int) -> None:
    """Products at every shift and at their largest, against the definition."""
    run([str(driver), "kernels", str(seed), "150"])


@pytest.mark.long
@pytest.mark.parametrize("mode", ["parity", "hostile", "kernels"])
def test_many_under_sanitizers(driver: Path, mode: str, seed: int) -> None:
    rounds = {"parity": 600, "hostile": 60, "kernels": 3000}[mode]
    run([str(driver), mode, str(seed + 10**6), str(rounds)])
