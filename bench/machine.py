"""The machine that a measurement is of, so that two tables can be compared."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from importlib import metadata
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
        "torch": _torch(),
        "caches": _caches(),
        "compiler": _compiler(),
        "hwgle": _sources(),
    }


def _torch() -> str:
    """Its version, without loading it."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "not installed"


def _caches() -> str:
    """Of the first core, as the kernel tells them."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / n).read_text().strip() for n in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)


def _sources() -> str:
    """The version, and the commit that they are of where this is a clone."""
    told = ""
    if path := shutil.which("git"):
        words = [path, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # only looks, whoever works there
        told = subprocess.run(
            words, capture_output=True, text=True, check=False, env=quiet
        ).stdout.strip()
    return f"{metadata.version('hwgle')} {told}".strip()


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
