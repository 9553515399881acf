"""tanh by permutations of bytes, which AMD's processors take, gives what the table does: here on
any processor that has the instructions. And the tables are what their program makes."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wno-unused-function", "-Werror"]
NOT_HERE = 77


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86-64")
def test_bytes_give_the_entries_of_the_table(tmp_path: Path) -> None:
    program, seed = tmp_path / "tanh_bytes", time.time_ns() % 10**6
    print(f"seed {seed}")
    source = ROOT / "tests" / "c" / "tanh_bytes.c"
    build = ["gcc", *FLAGS, "-I", str(ROOT / "csrc"), str(source), "-o", str(program)]
    subprocess.run(build, check=True)
    done = subprocess.run([str(program), str(seed)], capture_output=True, text=True, check=False)
    if done.returncode == NOT_HERE:
        pytest.skip(done.stdout.strip())
    assert (done.returncode, done.stdout) == (0, "")


def test_tables_are_what_their_program_makes() -> None:
    path = ROOT / "csrc" / "make_phi_tables.py"
    spec = importlib.util.spec_from_file_location("make_phi_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.headers()
    assert made == {name: (path.parent / name).read_text() for name in made}
    assert len(made) == 3
