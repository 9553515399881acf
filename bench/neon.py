"""Instructions of the NEON kernels beside those of plain C, counted by an emulator.

    python -m bench neon [WIDTH ...]

The core is compiled for AArch64 as setup.py compiles it here (gcc, -O3, which makes vectors of
plain C where it can) and runs under qemu-aarch64 with the plugin that counts for boards
(bench/count.c). A layer as wide as its input; instructions are those of two calls of a kernel
less those of one, so that they are exact, per multiply-accumulate, or per neuron and step for
neurons (tanh, no imperfections). Batch of 100: with packing; learn: the outer product and the
update, rounded at random. one: a single stream. Counts are no times: how many instructions a
core does in a cycle is not in them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hwgle.boards.elf import Elf

ROOT = Path(__file__).resolve().parent.parent
GCC = "aarch64-linux-gnu-gcc"
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno")
BATCH = 100
KERNELS = ("forward", "transposed", "outer", "learn", "neurons", "one", "one back", "one learn",
           "one neurons")  # fmt: skip
TABLES = ("neon", "scalar")
WIDTHS = (53, 90, 256)
MOST = 1024


def built(folder: Path) -> tuple[Path, Path]:
    """The program for AArch64 and the plugin, in a folder."""
    sys.path.insert(0, str(ROOT / "csrc"))
    from build_core import CORE_AARCH64, CORE_PORTABLE, HOST

    sources = [ROOT / "csrc" / name for name in (*CORE_AARCH64, *CORE_PORTABLE, *HOST)]
    sources.append(ROOT / "bench" / "neon.c")

    def compiled(source: Path) -> str:
        made = folder / f"{source.parent.name}_{source.stem}.o"
        include = f"-I{ROOT / 'csrc'}"
        subprocess.run([GCC, *FLAGS, include, "-c", str(source), "-o", str(made)], check=True)
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    program, plugin = folder / "neon", folder / "count.so"
    subprocess.run([GCC, "-static", *objects, "-lm", "-o", str(program)], check=True)
    count = str(ROOT / "bench" / "count.c")
    subprocess.run(["cc", "-O2", "-fPIC", "-shared", "-o", str(plugin), count], check=True)
    return program, plugin


def executed(program: Path, plugin: Path, words: Sequence[str]) -> int:
    """Instructions of a run, those of the start and of filling arrays included."""
    functions = Elf(program).functions()
    base = min(at for _, _, at, _ in functions)
    size = max(at + size for _, _, at, size in functions) - base
    with tempfile.TemporaryDirectory(prefix="hwgle-count-") as work:
        out = Path(work) / "counters"
        how = f"{plugin},base={base:#x},bytes={size:#x},out={out}"
        subprocess.run(["qemu-aarch64", "-plugin", how, str(program), *words], check=True)
        return int(np.fromfile(out, dtype=np.uint64).sum())


def per_unit(program: Path, plugin: Path, table: str, kernel: str, width: int) -> float:
    """Instructions of a call for each multiply-accumulate, or each neuron and stream."""
    once, twice = (
        executed(program, plugin, [table, kernel, str(width), str(n)]) for n in (1, 2)
    )
    streams = 1 if kernel.startswith("one") else BATCH
    return (twice - once) / (streams * width * (1 if kernel.endswith("neurons") else width))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench neon",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("widths", nargs="*", type=int, metavar="WIDTH", help=f"at most {MOST}")
    options = parser.parse_args(argv)
    for name in (GCC, "qemu-aarch64", "cc"):
        if shutil.which(name) is None:
            parser.error(f"there is no {name} here")
    if wrong := [width for width in options.widths if not 1 <= width <= MOST]:
        parser.error(f"width {wrong[0]}: 1 to {MOST} are allowed")
    print(f"| wide | table | {' | '.join(KERNELS)} |")
    print("|" + "---|" * (len(KERNELS) + 2))
    with tempfile.TemporaryDirectory(prefix="hwgle-neon-") as folder:
        program, plugin = built(Path(folder))
        for width in options.widths or WIDTHS:
            for table in TABLES:
                found = [per_unit(program, plugin, table, kernel, width) for kernel in KERNELS]
                cells = [f"{x:.2f}" if x < 10 else f"{x:.0f}" for x in found]
                print(f"| {width} | {table} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
