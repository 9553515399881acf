"""What an installed hwgle carries: firmware is built from it, from any directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hwgle.boards import sources

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_carries_every_source_that_a_board_is_built_from(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    carried = tmp_path / "hwgle" / "_sources"
    wanted = [path.relative_to(ROOT) for path in sources.read_by(ROOT)]
    assert len(wanted) > 50
    for path in wanted:
        assert (carried / path).read_bytes() == (ROOT / path).read_bytes(), path
