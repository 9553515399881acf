"""Branches of the link and the device that the C tests and what the fuzzers keep reach.

    python tests/fuzz/coverage.py [FOLDER...]      further inputs, FOLDER/<fuzzer>/

gcov's count on gcc -O0: simulated links, every fault at every byte, the fault matrix, the
corpus of the fuzzers and damaged copies of it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from fuzzers import CORE_PORTABLE, CSRC, HERE, ROOT, checked, kept

FLAGS = ["-std=c11", "-O0", "-g", "--coverage", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8",
         f"-I{CSRC}", f"-I{CSRC / 'link'}", f"-I{ROOT / 'tests' / 'c'}"]  # fmt: skip
SIMULATIONS = {"link_sim": ["1", "2000"], "link_exhaustive": [], "link_matrix": ["5"]}
LOOKED_AT = re.compile(r"link/|device/")


def measure(more: list[Path], rounds: int = 3000) -> dict[str, tuple[int, int]]:
    """By file: branches taken, branches there are."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder)

        def compiled(source: Path) -> str:
            made = to / f"{source.parent.name}_{source.stem}.o"
            if not made.exists():
                checked(["gcc", *FLAGS, "-c", str(source), "-o", str(made)], cwd=to)
            return str(made)

        core = [compiled(CSRC / name) for name in CORE_PORTABLE]
        world = compiled(ROOT / "tests" / "c" / "link_world.c")
        for name, words in SIMULATIONS.items():
            main = compiled(ROOT / "tests" / "c" / f"{name}.c")
            checked(["gcc", *FLAGS, *core, world, main, "-o", str(to / name)], cwd=to)
            checked([str(to / name), *words], cwd=to)
        alone = compiled(HERE / "standalone.c")
        for name in ("frame", "link", "message", "device"):
            objects = [*core, world, alone, compiled(HERE / f"{name}.c")]
            checked(["gcc", *FLAGS, *objects, "-o", str(to / f"fuzz_{name}")], cwd=to)
            extra = [f for one in more if (one / name).is_dir() for f in (one / name).iterdir()]
            files = [str(f) for f in [*kept(name), *extra]]
            for k in range(0, len(files), 500):
                checked([str(to / f"fuzz_{name}"), *files[k : k + 500]], cwd=to)
            checked([str(to / f"fuzz_{name}"), "--damage", "1", str(rounds), *files[:500]], cwd=to)
        found = {}
        for name in filter(LOOKED_AT.match, CORE_PORTABLE):
            folder_name, file = name.split("/")
            text = checked(
                ["gcov", "-b", "-o", f"{folder_name}_{file[:-2]}.o", str(CSRC / name)], cwd=to
            )
            part = text.split(f"{name}'", 1)[1].split("File '", 1)[0]
            hit = re.search(r"Taken at least once:([\d.]+)% of (\d+)", part)
            total = int(hit[2]) if hit else 0
            found[name] = round(float(hit[1]) * total / 100) if hit else 0, total
        return found


def main() -> int:
    found = measure([Path(word) for word in sys.argv[1:]])
    for name, (taken, total) in found.items():
        share = f"{100 * taken / total:.1f} %" if total else "no branches"
        print(f"| {name} | {taken} of {total} | {share} |")
    taken, total = (sum(column) for column in zip(*found.values(), strict=True))
    print(f"| all | {taken} of {total} | {100 * taken / total:.1f} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
