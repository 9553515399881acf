"""Branches of the link and the device that the tests reach.

    python tests/fuzz/branches.py [--missed] [FOLDER...]      further inputs, FOLDER/<fuzzer>/

gcov's count on gcc -O0: simulated links, every fault at every byte, the fault matrix, the
corpus of the fuzzers and damaged copies of it, and the Python tests of link and device
against a core of these same object files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzzers import CORE_PORTABLE, CSRC, HERE, HOST, ROOT, checked, ffi, kept

FLAGS = ["-std=c11", "-g", "-fPIC", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8",
         f"-I{CSRC}", f"-I{CSRC / 'link'}", f"-I{ROOT / 'tests' / 'c'}"]  # fmt: skip
COUNTED = ["-O0", "--coverage"]
SIMULATIONS = {"link_sim": ["1", "400"], "link_exhaustive": [], "link_matrix": ["5"]}
TESTS = ("tests/unit/test_frame.py", "tests/unit/test_link.py", "tests/unit/test_link_sessions.py",
         "tests/link/test_device.py", "tests/link/test_device_link.py",
         "tests/link/test_device_memory.py", "tests/link/test_device_refusals.py",
         "tests/link/test_device_times.py", "tests/link/test_every_field.py")  # fmt: skip
LOOKED_AT = re.compile(r"link/|device/")
# Branches that no test on this machine can take: file, line -> why
BEYOND = {
    ("device/device_image.c", "if (status == GLE_NO_MEMORY) {"): (
        "a chip of more than half of the address space: only where addresses have 32 bits"
    ),
}


@dataclass(frozen=True)
class Branch:
    """One way that a line can go. number: of those of its line, as gcov counts them."""

    line: int
    number: int
    count: int


def told(note: Path, source: Path, at: Path) -> list[Branch]:
    """The branches of a source that an object was compiled from."""
    checked(["gcov", "-b", "-j", str(note)], cwd=at)
    found = []
    for file in at.glob("*.gcov.json.gz"):
        for part in json.loads(gzip.decompress(file.read_bytes()))["files"]:
            if Path(at, part["file"]).resolve() == source.resolve():
                for line in part["lines"]:
                    found += [
                        Branch(line["line_number"], k, branch["count"])
                        for k, branch in enumerate(line["branches"])
                    ]
        file.unlink()
    return found


class Counted:
    """Object files that count their branches, in a folder."""

    def __init__(self, to: Path) -> None:
        self.to = to
        with ThreadPoolExecutor(2) as pool:
            self.core = list(pool.map(self.compiled, [CSRC / name for name in CORE_PORTABLE]))

    def compiled(self, source: Path) -> str:
        """An object; what is not looked at is as fast as a compiler makes it at once."""
        made = self.to / f"{source.parent.name}_{source.stem}.o"
        counted = source.parent.name in ("link", "device")
        how = COUNTED if counted else ["-O1"]
        checked(["gcc", *FLAGS, *how, "-c", str(source), "-o", str(made)], cwd=self.to)
        return str(made)

    def linked(self, name: str, *objects: str, shared: bool = False) -> str:
        made = str(self.to / name)
        kind = ["-shared"] if shared else []
        checked(["gcc", "--coverage", *kind, *objects, "-o", made, "-lm"], cwd=self.to)
        return made

    def simulate(self) -> None:
        """The C tests of the link."""
        world = self.compiled(ROOT / "tests" / "c" / "link_world.c")
        for name, words in SIMULATIONS.items():
            main = self.compiled(ROOT / "tests" / "c" / f"{name}.c")
            checked([self.linked(name, *self.core, world, main), *words], cwd=self.to)

    def fuzz(self, more: list[Path], rounds: int) -> None:
        """What the fuzzers keep, and damaged copies of it."""
        world = self.compiled(ROOT / "tests" / "c" / "link_world.c")
        alone = self.compiled(HERE / "standalone.c")
        for name in ("frame", "link", "message", "device"):
            own = self.compiled(HERE / f"{name}.c")
            program = self.linked(f"fuzz_{name}", *self.core, world, alone, own)
            extra = [f for one in more if (one / name).is_dir() for f in (one / name).iterdir()]
            files = [str(f) for f in [*kept(name), *extra]]
            for k in range(0, len(files), 500):
                checked([program, *files[k : k + 500]], cwd=self.to)
            checked([program, "--damage", "1", str(rounds), *files[:500]], cwd=self.to)

    def test(self) -> None:
        """The Python tests, against these objects."""
        package = self.to / "package" / "hwgle"
        shutil.copytree(ROOT / "hwgle", package, ignore=shutil.ignore_patterns("_core*", "_c*__"))
        wrapper = self.to / "wrapper.c"
        ffi.emit_c_code(str(wrapper))
        include = f"-I{sysconfig.get_path('include')}"
        flags = [f for f in FLAGS if f != "-std=c11"]
        checked(["gcc", *flags, "-O1", include, "-c", str(wrapper), "-o", f"{wrapper}.o"])
        host = [self.compiled(CSRC / name) for name in HOST]
        made = self.linked("core.so", *self.core, *host, f"{wrapper}.o", shared=True)
        shutil.copy(made, package / "_core.abi3.so")
        link = [made for made in self.core if Path(made).name.startswith("link_")]
        library = self.linked("link.so", *link, shared=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(package.parent),
            "HWGLE_LINK_LIBRARY": library,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        checked(
            [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider",
             *(str(ROOT / name) for name in TESTS)],
            cwd=self.to, env=environment,
        )  # fmt: skip

    def branches(self, name: str) -> list[Branch]:
        """Of a source of the core."""
        folder, file = name.split("/")
        return told(self.to / f"{folder}_{file[:-2]}.gcno", CSRC / name, self.to)


def measure(more: list[Path], rounds: int = 2000) -> dict[str, list[Branch]]:
    """By file: its branches, and how often each was taken."""
    with tempfile.TemporaryDirectory() as folder:
        counted = Counted(Path(folder))
        counted.simulate()
        counted.fuzz(more, rounds)
        counted.test()
        return {name: counted.branches(name) for name in filter(LOOKED_AT.match, CORE_PORTABLE)}


def share(branches: list[Branch]) -> str:
    """Taken of all, as a figure and a share."""
    taken, total = sum(b.count > 0 for b in branches), len(branches)
    return f"{taken} of {total} | {100 * taken / total:.1f} %" if total else "0 of 0 | none"


def missed(found: dict[str, list[Branch]]) -> list[str]:
    """Each branch that nothing took and something could, with its line."""
    lines = []
    for name, its in found.items():
        text = (CSRC / name).read_text().splitlines()
        for b in its:
            line = text[b.line - 1].strip()
            if b.count == 0 and (name, line) not in BEYOND:
                lines.append(f"{name}:{b.line} branch {b.number}: {line}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--missed", action="store_true", help="name each that was not taken")
    parser.add_argument("folder", nargs="*", type=Path)
    given = parser.parse_args()
    found = measure(given.folder)
    for name, its in found.items():
        print(f"| {name} | {share(its)} |")
    print(f"| all | {share([b for part in found.values() for b in part])} |")
    if given.missed:
        print("\n".join(missed(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
