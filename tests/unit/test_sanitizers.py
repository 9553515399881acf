"""The core as other compilers, machines and checkers see it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "fuzz")]
from fuzzers import CORE_PORTABLE, CSRC, SANITIZERS, build, checked, kept  # noqa: E402

PORTABLE = [str(CSRC / name) for name in CORE_PORTABLE]
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
# What runs the core most, and in most ways.
CHOSEN = ["tests/unit/test_frame.py", "tests/unit/test_image.py", "tests/unit/test_snapshot.py",
          "tests/parity/test_splits.py", "tests/parity/test_kernels.py",
          "tests/link/test_device_core.py", "tests/link/test_device_refusals.py"]  # fmt: skip


def narrow(compiler: str = "gcc") -> bool:
    """Whether it builds and links for 32 bits here."""
    if shutil.which(compiler) is None:
        return False
    done = subprocess.run(
        [compiler, "-m32", "-fsanitize=address", "-x", "c", "-", "-o", os.devnull],
        input=b"#include <stdlib.h>\nint main(void) { return 0; }", capture_output=True,
    )  # fmt: skip
    return done.returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not narrow(), reason="no 32-bit libraries (gcc-multilib)")
@pytest.mark.parametrize("name", ["frame", "link", "message", "device"])
def test_with_32_bits(name: str, tmp_path: Path, seed: int) -> None:
    program = build(name, tmp_path, "gcc", libfuzzer=False, extra=[*SANITIZERS, "-m32"])
    files = [str(f) for f in kept(name)]
    checked([str(program), *files])
    checked([str(program), "--damage", str(seed), "2000", *files])


@pytest.mark.long
@pytest.mark.skipif(not narrow(), reason="no 32-bit libraries (gcc-multilib)")
def test_without_a_warning_with_32_bits(tmp_path: Path) -> None:
    flags = [*STRICT, "-O2", "-m32", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8", f"-I{CSRC}"]
    for source in PORTABLE:
        checked(["gcc", *flags, "-c", source, "-o", str(tmp_path / "out.o")])


@pytest.mark.long
@pytest.mark.board("gcc")
def test_python_tests_under_the_address_and_undefined_sanitizers(tmp_path: Path) -> None:
    """An instrumented core takes the place of the built one in a copy of the package."""
    shutil.copytree(
        ROOT / "hwgle", tmp_path / "hwgle", ignore=shutil.ignore_patterns("_core*", "__pycache__")
    )
    flags = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined"
    env = {**os.environ, "CFLAGS": flags, "LDFLAGS": "-fsanitize=address,undefined", "CC": "gcc"}
    work = tmp_path / "build"
    checked([sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(work),
             "--build-temp", str(tmp_path / "temp")], cwd=ROOT, env=env)  # fmt: skip
    (made,) = work.rglob("_core*.so")
    shutil.copy(made, tmp_path / "hwgle" / made.name)
    runtime = [checked(["gcc", f"-print-file-name=lib{name}.so"]).strip()
               for name in ("asan", "ubsan")]  # fmt: skip
    env = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    seen = checked(
        [sys.executable, "-c", "import hwgle._core as c; print(c.__file__)"], cwd=tmp_path, env=env
    )
    assert str(tmp_path) in seen
    said = checked(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHOSEN],
        cwd=ROOT, env=env,
    )  # fmt: skip
    assert re.search(r"\d+ passed", said)


@pytest.mark.long
@pytest.mark.board("cppcheck")
def test_cppcheck_finds_nothing() -> None:
    said = checked(
        ["cppcheck", "--quiet", "--std=c11", "--enable=warning,performance,portability",
         "--inline-suppr", "--error-exitcode=1", "-DGLE_SCALAR_ONLY", f"-I{CSRC}", *PORTABLE]
    )  # fmt: skip
    assert said.strip() == ""


def deviations() -> dict[str, str]:
    """Rule -> reason, of csrc/MISRA.md."""
    rows = re.findall(r"^\| (\d+\.\d+) \| (.+?) \|$", (CSRC / "MISRA.md").read_text(), re.MULTILINE)
    return dict(rows)


@pytest.mark.long
@pytest.mark.board("cppcheck")
def test_misra_deviations_are_those_that_are_listed(tmp_path: Path) -> None:
    copy = shutil.copytree(CSRC, tmp_path / "csrc")  # the addon leaves files beside sources
    done = subprocess.run(
        ["cppcheck", "--quiet", "--std=c11", "--addon=misra", "-DGLE_SCALAR_ONLY", f"-I{copy}",
         *(str(copy / name) for name in CORE_PORTABLE)],
        capture_output=True, text=True,
    )  # fmt: skip
    found = set(re.findall(r"misra-c2012-(\d+\.\d+)", done.stdout + done.stderr))
    assert found, done.stderr
    assert found <= deviations().keys(), sorted(found - deviations().keys())
