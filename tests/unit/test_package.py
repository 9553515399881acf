"""What an installed hwgle carries: firmware is built from it, from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hwgle.boards import sources

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))

from build_core import CORE_AARCH64, CORE_PORTABLE, CORE_X86, HOST  # noqa: E402


def test_a_wheel_carries_every_source_that_a_board_is_built_from(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    carried = tmp_path / "hwgle" / "_sources"
    wanted = [path.relative_to(ROOT) for path in sources.read_by(ROOT)]
    assert len(wanted) > 50
    for path in wanted:
        assert (carried / path).read_bytes() == (ROOT / path).read_bytes(), path


# In place of a compiler: writes when it begins and ends, in one system call each, and fails for
# the file that FAILS names.
COMPILER = """\
#!/bin/sh
out= file=
while [ $# -gt 0 ]; do
    case $1 in
        -o) out=$2; shift ;;
        *.c) file=$1 ;;
    esac
    shift
done
echo "begin $file" >>"$LOG"
sleep 0.1
[ "${file##*/}" != "${FAILS:-none}" ] || { echo "no $file today" >&2; exit 1; }
: >"$out"
echo "end $file" >>"$LOG"
"""


def build(tmp_path: Path, **more: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """With that compiler, three at a time; and what it wrote."""
    (tmp_path / "cc").write_text(COMPILER)
    (tmp_path / "cc").chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    environment = {**os.environ, "CC": str(tmp_path / "cc"), "LOG": str(log), **more}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--parallel", "3",
         "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, log.read_text().splitlines()


def test_the_core_is_compiled_by_as_many_as_are_asked_for(tmp_path: Path) -> None:
    done, log = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in log if line.startswith("begin csrc")) == sorted(
        f"begin csrc/{name}" for name in CORE_X86 + CORE_AARCH64 + CORE_PORTABLE + HOST
    )
    working, most = 0, 0
    for line in log:
        working += 1 if line.startswith("begin") else -1
        most = max(most, working)
    assert most == 3


def test_a_file_that_does_not_compile_ends_the_build(tmp_path: Path) -> None:
    done, log = build(tmp_path, FAILS="chip.c")
    assert done.returncode != 0
    assert "no csrc/chip.c today" in done.stderr
    assert "end csrc/chip.c" not in log
    assert not list((tmp_path / "lib").rglob("*.so"))
