"""The machine that a measurement is of, so that two tables can be compared."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

# The instruction sets that matter to integer and float products.
FLAGS = re.compile(r"^(sse4_2|avx|avx2|fma|avx_vnni|avx512\w*|amx\w*|asimd\w*|sve\w*)$")


def describe() -> dict[str, str]:
    """What is known of this machine, in words, most telling first."""
    cpu, flags = _cpu()
    return {
        "cpu": cpu,
        "flags": flags,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "compiler": _compiler(),
    }


def _cpu() -> tuple[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    known = [f for f in flags[1].split() if FLAGS.match(f)] if flags else []
    return model[1] if model else platform.machine(), " ".join(known)


def _blas() -> str:
    """Name, version and threads as they stand of the BLAS that NumPy uses."""
    try:
        pools: list[dict[str, Any]] = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError:
        built: Any = np.show_config(mode="dicts")
        blas = built.get("Build Dependencies", {}).get("blas", {})
        return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    found = [p for p in pools if p.get("user_api") == "blas"]
    return ", ".join(
        f"{p['internal_api']} {p['version']} ({p.get('architecture', '?')}, "
        f"{p['num_threads']} thread{'s' * (p['num_threads'] != 1)})"
        for p in found
    )


def _compiler() -> str:
    """First line of `cc --version`, for the cc that Python's extensions are built with."""
    cc = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    for name in (cc, "cc", "gcc", "clang"):
        if path := shutil.which(name):
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return (told.stdout.splitlines() or ["unknown"])[0]
    return "none found"
