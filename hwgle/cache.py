"""Where hwgle keeps what it can make again: outside the repository, per user."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwgle.errors import UsageError


def directory() -> Path:
    """The cache directory; it may not exist yet.

    `$HWGLE_CACHE`, else `$XDG_CACHE_HOME/hwgle`, else `~/.cache/hwgle`.

    Raises:
        OSError: there is no home directory to put it in. Callers treat this as
            they treat a directory that cannot be written: they do without.
    """
    if chosen := os.environ.get("HWGLE_CACHE"):
        return Path(chosen).absolute()
    # The XDG specification tells to ignore relative paths.
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):
        return Path(xdg) / "hwgle"
    try:
        return Path.home() / ".cache" / "hwgle"
    except RuntimeError as error:
        raise OSError(f"no cache directory: {error}; set HWGLE_CACHE") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a temporary file beside `path`, which takes its place in the end.

    The block writes it. Readers see the old file or the whole new one, however
    many write at once, and whenever the process is killed or the power goes: it is
    on the disk before it takes the name. If the block raises, `path` stays as it was.

    Raises:
        OSError: the directory cannot be made, or the block wrote no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The writer creates it, so that it gets the permissions of any other file.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _to_disk(path.parent, os.O_RDONLY)


def write_text(path: Path, text: str) -> None:
    """A text, whole or not at all.

    Raises:
        UsageError: it cannot be written there, or the disk is full.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def _to_disk(path: Path, mode: int) -> None:
    """What has been written to a file, or renamed in a folder, survives the power."""
    if os.name == "nt" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
