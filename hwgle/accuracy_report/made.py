"""How a report was made: versions, hashes of all that went in, seeds, the command."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwgle.devices.emulator import Emulator
from hwgle.identity import identity_hash
from hwgle.weights import content_hash

if TYPE_CHECKING:
    from hwgle.accuracy_report.report import Inputs

PACKAGES = ("numpy", "scipy", "matplotlib", "jinja2")


def told(inputs: Inputs) -> dict[str, Any]:
    """For JSON. The time is that of SOURCE_DATE_EPOCH where it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = time.gmtime(int(epoch) if epoch.isdigit() else None)
    e = inputs.experiment
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", at),
        "command": command(sys.argv),
        "versions": {
            "hwgle": of("hwgle"),
            "python": platform.python_version(),
            **{name: of(name) for name in PACKAGES},
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "kernels": Emulator().kernels,
        },
        "hashes": {
            "experiment": e.hash(),
            "network": inputs.network.hash(),
            "weights": content_hash(inputs.weights),
            **{f"chip {c.name}:{c.seed}": identity_hash(c) for c in inputs.chips},
            **{f"file {name}": digest for name, digest in inputs.files.items()},
        },
        "seeds": {
            **{f"task_{k}": v for k, v in e.task.model_dump().items() if k.endswith("seed")},
            "samples": inputs.sizes.seed,
        },
    }


def of(package: str) -> str:
    """Version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def command(argv: list[str]) -> str:
    """As it can be typed again."""
    return shlex.join([Path(argv[0]).name.replace("__main__.py", "hwgle"), *argv[1:]])


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
