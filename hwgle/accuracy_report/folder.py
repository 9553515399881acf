"""The folder of a report: written beside its place and put there as a whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwgle.errors import UsageError

OWN = ("report.html", "report.json", "junit.xml", "compare.html")
NUMBERED = ("narrower-*.yaml", "scales-*.npz")


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `out` when the block ends well.

    A folder that holds an earlier report and nothing else is replaced as a whole; in one with
    other files each file is put in its place whole and the report's older ones are removed.
    Raises UsageError when it cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}-{secrets.token_hex(8)}")
        temporary.mkdir()
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    try:
        yield temporary
        if out.exists():
            _into(temporary, out)
        else:
            os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _into(temporary: Path, out: Path) -> None:
    new = {path.name for path in temporary.iterdir()}
    for path in sorted(temporary.iterdir()):
        os.replace(path, out / path.name)
    old = [out / name for name in OWN]
    for pattern in NUMBERED:
        old += out.glob(pattern)
    for path in old:
        if path.name not in new:
            path.unlink(missing_ok=True)
