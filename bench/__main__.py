"""`python -m bench [speed] [OPTION...]`: what hwgle's speed is, against NumPy."""

from __future__ import annotations

import os
import sys

# Read once, when NumPy loads its BLAS: must come before the first import of it.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"


def main(argv: list[str]) -> int:
    """Run the bench that the first word names; speed without one."""
    from bench import speed

    if argv[:1] == ["speed"]:
        argv = argv[1:]
    return speed.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
