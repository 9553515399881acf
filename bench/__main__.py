"""`python -m bench [BENCH] [OPTION...]`, of speed, kernels, threads, profile, growth, memory, chip,
boards, link, neon, all, compare.

speed: a step against NumPy and PyTorch, and what of the machine's peak it reaches. kernels:
the same of each product by itself. threads: what several save. profile: where a step's time
goes. growth: against neurons, batch, length, chips. memory: bytes, and that they stay. chip:
what imperfections cost. boards: memory, stack and instructions of each board. link: the wire
in numbers. neon: instructions of the kernels for AArch64, under an emulator. all: everything
that bench/baseline.json holds. compare: what changed since.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

# Read once, when NumPy loads its BLAS: must come before the first import of it.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

BENCHES = (
    "speed",
    "kernels",
    "threads",
    "profile",
    "growth",
    "memory",
    "chip",
    "boards",
    "link",
    "neon",
    "all",
    "compare",
)
MODULES = {"memory": "footprint", "all": "everything"}


def main(argv: list[str]) -> int:
    """Run the bench that the first word names; speed without one."""
    name = argv[0] if argv[:1] and argv[0] in BENCHES else "speed"
    rest = argv[1:] if argv[:1] == [name] else argv
    status: int = import_module(f"bench.{MODULES.get(name, name)}").main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
