"""Firmware from its sources, kept in the user's cache.

The cache is keyed by everything that the result depends on: the bytes of all sources, the
command lines and the compiler's version. A build is made aside and put in place as a
whole, so that two at once do no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from hwgle import cache
from hwgle.boards import sources
from hwgle.boards.description import Described, Program, load
from hwgle.boards.stack import stack_bound
from hwgle.errors import DeviceError

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wundef", "-Werror")
CORE = ("-std=c11", "-g", "-fno-common", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8")
BARE = ("-ffreestanding", "-fcallgraph-info=su", "-ffunction-sections", "-fdata-sections")
MINUTES = 5


class MissingProgram(DeviceError):
    """A compiler, an emulator or a flashing tool is not installed; the text says which
    package brings it."""


class BuildFailed(DeviceError):
    """The compiler refused; its words are in the text."""


def program(wanted: Program) -> str:
    """The path of an installed program. Raises MissingProgram."""
    if (found := shutil.which(wanted.program)) is None:
        raise MissingProgram(
            f"{wanted.program} is not installed; on Debian and Ubuntu: "
            f"sudo apt-get install {wanted.debian}"
        )
    return found


class Recipe(NamedTuple):
    """How one board is compiled and linked."""

    compiler: str
    files: list[Path]
    compile: list[str]
    link: list[str]
    place: Path

    def key(self) -> str:
        """Of everything that the result depends on."""
        digest = hashlib.sha256(_run([self.compiler, "--version"], self.place).encode())
        for words in (self.compile, self.link, map(str, self.files)):
            digest.update("\0".join(words).encode() + b"\1")
        folders = {path.parent for path in self.files if self.place not in path.parents}
        outside = sorted(path for folder in folders for path in folder.iterdir() if path.is_file())
        for path in (*sources.read_by(self.place), *outside):
            digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\1")
        return digest.hexdigest()[:20]


def recipe(described: Described, payload: int | None = None, window: int | None = None) -> Recipe:
    """What to run for a board; payload, window: other limits than its own."""
    board, folder = described
    place = sources.root()
    firmware = place / "firmware"
    numbers = {
        "BOARD_PAYLOAD": payload or board.link.payload,
        "BOARD_WINDOW": window or board.link.window,
        "BOARD_BAUD": board.baud,
        **board.defines,
    }
    flags = [
        *CORE,
        *WARNINGS,
        *board.flags,
        f'-DBOARD_NAME="{board.name}"',
        *(f"-D{name}={number}" for name, number in numbers.items()),
        *(f"-I{path}" for path in (place / "csrc", firmware, firmware / "common", folder)),
        # What the debugger and assertions see does not depend on where this is installed.
        f"-ffile-prefix-map={place}=.",
    ]
    link = list(board.flags)
    if board.body == "firmware":
        flags[len(CORE) : len(CORE)] = BARE
        sizes = {
            "FLASH_BYTES": board.memory.flash,
            "RAM_BYTES": board.memory.ram,
            "STACK_BYTES": board.memory.stack,
        }
        link += ["-nostdlib", "-static", f"-L{firmware / 'common'}", f"-T{folder / 'link.ld'}"]
        link += ["-Wl,--gc-sections", "-Wl,--fatal-warnings", "-Wl,--build-id=none"]
        link += [f"-Wl,--defsym={name}={number}" for name, number in sizes.items()]
    files = [
        firmware / "main.c",
        *sorted(path for path in folder.iterdir() if path.suffix in (".c", ".S")),
        *(firmware / name for name in board.sources),
        *sources.core(place),
    ]
    return Recipe(program(board.compiler), files, flags, link, place)


def build(
    board: str | os.PathLike[str],
    out: Path | None = None,
    *,
    payload: int | None = None,
    window: int | None = None,
) -> Path:
    """The firmware of a board as an ELF file: from the cache, or compiled now.

    out: put a copy there. payload, window: build with other limits than the board's own.

    Raises:
        MissingProgram: there is no compiler for it; the text says what to install.
        BuildFailed: it does not compile, or does not fit the board.
    """
    described = load(board)
    how = recipe(described, payload, window)
    try:
        kept = cache.directory() / "firmware" / f"{described.board.name}-{how.key()}.elf"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            _compile(how, kept, described.board.body == "firmware")
    except OSError as error:
        raise BuildFailed(
            f"the cache cannot hold the firmware ({error}); set HWGLE_CACHE to a folder that can"
        ) from error
    if out is None:
        return kept
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with cache.replacing(out) as copy:
            shutil.copy(kept, copy)
    except OSError as error:
        raise BuildFailed(f"{out} cannot be written: {error.strerror}") from error
    return out


def _compile(how: Recipe, elf: Path, bare: bool) -> None:
    """Each file for itself, on all cores, then the link; beside the ELF what gcc told."""
    with tempfile.TemporaryDirectory(prefix="hwgle-build-") as work:

        def one(item: tuple[int, Path]) -> str:
            # Two folders may hold files of one name.
            target = str(Path(work) / f"{item[0]}-{item[1].stem}.o")
            _run([how.compiler, *how.compile, "-c", str(item[1]), "-o", target], work)
            return target

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            objects = list(pool.map(one, enumerate(how.files)))
        # libgcc goes last: everything else may need its 64-bit division.
        last = ["-lgcc"] if bare else []
        told = {"stack_bound": stack_bound(Path(work).glob("*.ci")) if bare else None}
        with cache.replacing(elf.with_suffix(".json")) as fresh:
            fresh.write_text(json.dumps(told))
        with cache.replacing(elf) as fresh:
            _run([how.compiler, *how.link, *objects, *last, "-o", str(fresh)], work)


def _run(command: Sequence[str], where: str | Path) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=where,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"no end after {MINUTES} minutes: {' '.join(command)}") from None
    except OSError as error:
        raise BuildFailed(f"{command[0]} does not run: {error.strerror}") from error
    if done.returncode:
        raise BuildFailed(f"this failed: {' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout
