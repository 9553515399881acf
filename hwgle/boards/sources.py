"""Where the C sources of core and firmware lie: in the repository or in the package."""

from __future__ import annotations

from pathlib import Path

from hwgle.errors import DeviceError

PACKAGE = Path(__file__).resolve().parents[1]


def root() -> Path:
    """The folder with csrc/ and firmware/.

    Raises:
        DeviceError: this installation came without them.
    """
    for place in (PACKAGE / "_sources", PACKAGE.parent):
        if (place / "csrc" / "gle.h").is_file() and (place / "firmware" / "main.c").is_file():
            return place
    raise DeviceError(f"the sources of the firmware are missing beside {PACKAGE}: install anew")


def core(place: Path) -> list[Path]:
    """The C of core, link and device that every board carries: all but the vector kernels."""
    csrc = place / "csrc"
    vectors = ("_avx2", "_vnni", "_amx", "_neon")
    files = [path for path in csrc.glob("*.c") if not path.stem.endswith(vectors)]
    return sorted([*files, *(csrc / "link").glob("*.c"), *(csrc / "device").glob("*.c")])


def read_by(place: Path) -> list[Path]:
    """Every file that a build may read: what its result depends on."""
    kinds = {".c", ".h", ".inc", ".def", ".S", ".ld", ".yaml"}
    files = [path for top in ("csrc", "firmware") for path in (place / top).rglob("*")]
    host_only = place / "csrc" / "host"
    return sorted(f for f in files if f.suffix in kinds and host_only not in f.parents)
