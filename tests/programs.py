"""Which programs this machine has that tests need."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path


@cache
def present(name: str) -> bool:
    """A program in PATH; `libFuzzer`: clang and its runtime, which is a package of its own."""
    if name != "libFuzzer":
        return shutil.which(name) is not None
    if (clang := shutil.which("clang")) is None:
        return False
    said = subprocess.run([clang, "-print-runtime-dir"], capture_output=True, text=True, check=True)
    return any(Path(said.stdout.strip()).glob("libclang_rt.fuzzer*"))
