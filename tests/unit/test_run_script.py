"""`./run` where it must not install anything: help, mistakes, a bare machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "run"

# All that `run` uses before it has found a Python.
TOOLS = (
    "sh",
    "cat",
    "cksum",
    "dirname",
    "find",
    "flock",
    "head",
    "id",
    "mkdir",
    "rm",
    "tail",
    "tr",
)


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(RUN), *arguments], capture_output=True, text=True, timeout=300, **options
    )


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder that is the whole PATH, with no Python or compiler in it, and the environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (programs / tool).symlink_to(found)
    # An environment of its own: the one the tests run in is not touched.
    return programs, {"PATH": str(programs), "HWGLE_VENV": str(tmp_path / "venv")}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_shell_takes_it():
    subprocess.run(["sh", "-n", str(RUN)], check=True)
    assert os.access(RUN, os.X_OK)


def test_help(tmp_path):
    for word in ("help", "--help", "-h"):
        result = run(word, cwd=tmp_path)
        assert result.returncode == 0
        assert "usage: ./run" in result.stdout
        assert not result.stderr


def test_no_command_and_unknown_command_exit_2():
    assert run().returncode == 2
    result = run("frobnicate")
    assert result.returncode == 2
    assert "unknown command: frobnicate" in result.stderr
    assert not result.stdout


def test_without_python_it_says_what_to_install(bare):
    _, environment = bare
    result = run("demo", env=environment)
    assert result.returncode == 2
    assert "no Python 3.11 or later found" in result.stderr
    assert "python3 python3-venv python3-dev gcc libc6-dev" in result.stderr


def test_an_old_python_does_not_count(bare):
    programs, environment = bare
    program(programs, "python3", "exit 1")
    result = run("demo", env=environment)
    assert result.returncode == 2
    assert "no Python 3.11 or later found" in result.stderr


def test_only_what_is_missing_is_named(bare):
    programs, environment = bare
    # A Python that lacks nothing but venv; a compiler that finds all headers.
    (programs / "include").mkdir()
    (programs / "include" / "Python.h").touch()
    program(
        programs,
        "python3",
        f"""case $2 in
            *get_path*) echo '{programs}/include' ;;
            *ensurepip*) exit 1 ;;
            *executable*) echo /usr/bin/python3 ;;
            *get_config_var*) echo gcc ;;
        esac""",
    )
    program(programs, "gcc", "exit 0")
    result = run("demo", env=environment)
    assert result.returncode == 2
    assert "missing: Python's venv and ensurepip modules" in result.stderr
    assert "compiler" not in result.stderr
    assert "Python.h" not in result.stderr
    assert "(on Debian they are called: python3-venv)" in result.stderr


def test_who_is_not_root_gets_the_line_and_nothing_is_installed(bare, tmp_path):
    programs, environment = bare
    program(programs, "id", "echo 1000")
    program(programs, "apt-get", f"echo called > '{tmp_path}/called'")
    result = run("demo", env=environment)
    assert result.returncode == 2
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends "
        "python3 python3-venv python3-dev gcc libc6-dev"
    ) in result.stderr
    assert not (tmp_path / "called").exists()


def test_root_on_debian_installs_and_sees_a_failure(bare, tmp_path):
    programs, environment = bare
    program(programs, "id", "echo 0")
    program(programs, "apt-get", "echo the mirror is gone; exit 100")
    result = run("demo", env=environment)
    assert result.returncode == 2
    assert "installing what this machine lacks" in result.stderr
    assert "the mirror is gone" in result.stderr


def test_a_folder_of_other_things_is_not_taken_for_an_environment(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    result = run("demo", env=os.environ | {"HWGLE_VENV": str(tmp_path)})
    assert result.returncode == 2
    assert "is no virtual environment" in result.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck():
    subprocess.run(["shellcheck", str(RUN), str(ROOT / ".ci" / "run")], check=True)
