"""What clang-tidy finds in the C that reads what comes from outside: nothing (.clang-tidy)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "csrc")]
from build_core import CORE_PORTABLE  # noqa: E402

OTHERS = ("digest.c", "sections.c", "snapshot.c", "time_constants.c")
LOOKED_AT = [name for name in CORE_PORTABLE if "/" in name or name in OTHERS]
TIDY = next((name for name in ("clang-tidy", "clang-tidy-14") if shutil.which(name)), None)


def tidy(source: Path) -> subprocess.CompletedProcess[str]:
    assert TIDY is not None
    flags = ["-std=c11", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8", f"-I{ROOT / 'csrc'}"]
    configured = f"--config-file={ROOT / '.clang-tidy'}"
    command = [TIDY, "--quiet", configured, str(source), "--", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.long
@pytest.mark.skipif(TIDY is None, reason="no clang-tidy")
@pytest.mark.parametrize("name", LOOKED_AT)
def test_nothing_is_found(name: str) -> None:
    done = tidy(ROOT / "csrc" / name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(TIDY is None, reason="no clang-tidy")
def test_a_fault_is_found(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int f(const int *p) { if (p == 0) { return *p; } return 0; }\n")
    done = tidy(source)
    assert done.returncode != 0
    assert "NullDereference" in done.stdout
