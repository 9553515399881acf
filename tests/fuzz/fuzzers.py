"""Building and running the fuzzers, and the seeds that they begin with.

    ./run python tests/fuzz/fuzzers.py --seconds 600            all, one after another
    ./run python tests/fuzz/fuzzers.py --seconds 600 device     one; what it finds is kept

With clang they run under libFuzzer; with any compiler on files and on damaged copies of
them (standalone.c). corpus/NAME/ holds inputs that reach what others do not,
regressions/NAME/ one for each bug that was found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
sys.path[:0] = [str(CSRC)]
from build_core import CORE_AARCH64, CORE_PORTABLE, CORE_X86, HOST, ffi  # noqa: E402, F401

from hwgle import cache  # noqa: E402

LINK = [name for name in CORE_PORTABLE if name.startswith("link/")]
WORLD = "../tests/c/link_world.c"
# what each is linked with, and whether boards' alignment makes its memory exact to the byte
FUZZERS: dict[str, list[str]] = {
    "frame": ["link/cobs.c", "link/crc32.c", "link/frame.c"],
    "link": [*LINK, WORLD],
    "message": ["device/message.c", "link/crc32.c"],
    "device": list(CORE_PORTABLE),
    # AVX2 beside plain C; AVX-512 takes clang minutes under sanitizers, tests/parity has it
    "image": [
        *(name for name in CORE_PORTABLE if "/" not in name),  # neither link nor device
        *(name for name in CORE_X86 if "avx2" in name),
        *CORE_AARCH64,
    ],
}
LONGEST = {"frame": 600, "link": 1500, "message": 64, "device": 6000, "image": 4000}
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FLAGS = ["-std=c11", "-g1", "-O2", "-fno-omit-frame-pointer"]
REGRESSIONS = HERE / "regressions"
CORPUS = HERE / "corpus"


@dataclass
class Ran:
    """What a fuzzer did. edges: of the C that its inputs reached, as libFuzzer counts."""

    fuzzer: str
    executions: int
    seconds: int
    edges: int
    corpus: int


def flags_of(name: str) -> list[str]:
    """The image's kernels need vectors; all others are built as for a board."""
    align = [] if name == "image" else ["-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8"]
    beside = [f"-I{CSRC}", f"-I{CSRC / 'link'}", f"-I{ROOT / 'tests' / 'c'}"]
    return [*FLAGS, *align, "-DDEVICE_LOOKS", *beside]


def checked(command: Sequence[str], **how: Any) -> str:
    """Run it; what it said. Raises AssertionError with all of that where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", **how)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr[-6000:]}"
    return str(done.stdout + done.stderr)


def build(
    name: str, to: Path, compiler: str, *, libfuzzer: bool, extra: Iterable[str] = SANITIZERS
) -> Path:
    """The fuzzer as a program in the folder `to`."""
    to.mkdir(parents=True, exist_ok=True)
    flags = [*flags_of(name), *extra]
    main = [] if libfuzzer else [HERE / "standalone.c"]
    sources = [CSRC / part for part in FUZZERS[name]] + [HERE / f"{name}.c", *main]
    if libfuzzer:
        # Tracing comparisons would take three quarters of the time; CRCs, which it could not
        # guess either, are set right by the fuzzers themselves.
        flags = ["-fsanitize=fuzzer-no-link", "-fno-sanitize-coverage=trace-cmp", *flags]

    def one(source: Path) -> str:
        made = to / f"{name}_{source.parent.name}_{source.stem}.o"
        checked([compiler, *flags, "-c", str(source), "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(one, sources))
    program = to / f"fuzz_{name}"
    link = [*flags, "-fsanitize=fuzzer"] if libfuzzer else flags
    checked([compiler, *link, *objects, "-o", str(program)])
    return program


def built(name: str, compiler: str, *, libfuzzer: bool) -> Path:
    """The same, kept in the cache until a line of C changes."""
    sources = [*CSRC.rglob("*.[ch]"), *CSRC.rglob("*.inc"), *CSRC.rglob("*.def"),
               *HERE.glob("*.[ch]"), *(ROOT / "tests" / "c").glob("*.[ch]")]  # fmt: skip
    hashed = hashlib.sha256(f"{shutil.which(compiler)} {flags_of(name)} {libfuzzer}".encode())
    for source in sorted(sources):
        hashed.update(source.read_bytes())
    program = cache.directory() / "fuzz" / hashed.hexdigest()[:16] / f"fuzz_{name}"
    if not program.exists():
        with tempfile.TemporaryDirectory() as folder, cache.replacing(program) as temporary:
            shutil.copy(build(name, Path(folder), compiler, libfuzzer=libfuzzer), temporary)
    return program


def kept(name: str) -> list[Path]:
    """All inputs in the repository, regressions first."""
    folders = (REGRESSIONS / name, CORPUS / name)
    return [f for folder in folders if folder.is_dir() for f in sorted(folder.iterdir())]


def run_libfuzzer(
    program: Path, name: str, seconds: int, work: Path, seeds: Sequence[Path], seed: int = 1
) -> Ran:
    """Fuzz for some seconds, beginning with the folders of seeds; finds go to `work`.

    Raises AssertionError with what libFuzzer said when an invariant was broken.
    """
    found = work / name
    found.mkdir(parents=True, exist_ok=True)
    have = [str(s) for s in seeds if s.is_dir()]
    text = checked(
        [str(program), f"-max_total_time={seconds}", f"-max_len={LONGEST[name]}", f"-seed={seed}",
         "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=2048", "-verbosity=1",
         "-detect_leaks=0", f"-artifact_prefix={work}/{name}-", str(found), *have],
        cwd=work, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16"},
    )  # fmt: skip
    number = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text)
    edges = [int(x) for x in re.findall(r"cov: (\d+)", text)]
    sizes = [int(x) for x in re.findall(r"corp: (\d+)/", text)]
    return Ran(name, int(number[-1]), seconds, max(edges, default=0), max(sizes, default=0))


def merged(program: Path, name: str, found: Path, to: Path) -> int:
    """Keep in `to` the fewest, shortest inputs that reach what all reach; how many."""
    with tempfile.TemporaryDirectory() as folder:
        most = f"-max_len={LONGEST[name]}"
        checked([str(program), "-merge=1", most, folder, str(found), str(to)])
        shutil.rmtree(to)
        to.mkdir()
        for file in Path(folder).iterdir():
            shutil.copy(file, to / file.name)
    return len(list(to.iterdir()))


def main(argv: list[str]) -> int:
    """Run them and add what was done to a file of JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fuzzer", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "hwgle-fuzz")
    parser.add_argument("--log", type=Path, help="a line of JSON for each run is added here")
    parser.add_argument("--merge", action="store_true", help="add finds to the kept corpus")
    given = parser.parse_args(argv)
    for name in given.fuzzer or FUZZERS:
        program = built(name, "clang", libfuzzer=True)
        seeds = [CORPUS / name, REGRESSIONS / name]
        ran = run_libfuzzer(program, name, given.seconds, given.work, seeds, given.seed)
        print(ran, flush=True)
        if given.log is not None:
            with given.log.open("a") as log:
                log.write(json.dumps(asdict(ran)) + "\n")
        if given.merge:
            print(merged(program, name, given.work / name, CORPUS / name), "inputs kept")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
