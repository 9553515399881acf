"""A user's own data from an `.npz`: see `splits.py` for what it holds."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwgle.arrays import Header, from_bytes, open_regular, read_header
from hwgle.errors import FileMistakes, Mistake
from hwgle.tasks import SeriesTask, Task
from hwgle.tasks.settings import Needs, Progress, Steps, TaskSettings
from hwgle.tasks.splits import KEYS, Arrays, needs, problems, task
from hwgle.yamlfile import Rule


class Settings(TaskSettings):
    """file: the `.npz`, relative to the experiment; settle: of series, see SeriesTask."""

    name: Literal["npz"]
    file: str = Field(min_length=1, description="the path of a .npz")
    settle: Steps = 0

    def check(self, base: Path) -> Iterator[Rule]:
        """Shapes and types, and the classes; the rest of the numbers is not read."""
        path = base / self.file
        try:
            heads = _heads(path)
        except FileMistakes as error:
            for m in error.mistakes:
                key = f"{m.key}: " if m.key else ""
                yield Rule(("file",), f"{path}: {key}{m.found}", m.allowed)
            return
        for key, found, allowed in problems(heads):
            yield Rule(("file",), f"{path}: {key}: {found}", allowed)

    def needs(self, base: Path) -> Needs:
        """See TaskSettings."""
        return needs(_heads(base / self.file))

    def load(self, base: Path, progress: Progress | None = None) -> Task | SeriesTask:
        """See TaskSettings."""
        path = base / self.file
        arrays = _read(path, _whole)
        wrong = [Mistake(str(path), None, *problem) for problem in problems(arrays)]
        if wrong:
            raise FileMistakes(wrong)
        return task(path.stem, arrays, self.settle)


def _heads(path: Path) -> Arrays:
    """Classes as they are; of all other arrays zeros of their shape and type, which cost no
    memory."""
    return _read(path, _head)


def _whole(stream: IO[bytes], size: int) -> NDArray[np.generic]:
    return from_bytes(_complete(stream, size), stream.read())


def _head(stream: IO[bytes], size: int) -> NDArray[np.generic]:
    header = _complete(stream, size)
    if len(header.shape) == 1 and header.dtype.kind in "iu":
        return from_bytes(header, stream.read())
    return np.broadcast_to(np.zeros((), header.dtype), header.shape)


def _complete(stream: IO[bytes], size: int) -> Header:
    """The head of a member that unpacks to `size` bytes, compared before anything is unpacked."""
    header = read_header(stream)
    held = size - stream.tell()
    if held != header.nbytes:
        raise ValueError(f"{held} bytes of data where the header claims {header.nbytes}")
    return header


def _read(path: Path, reader: Callable[[IO[bytes], int], NDArray[np.generic]]) -> Arrays:
    """The arrays that are there.

    Raises:
        FileMistakes: no file, no archive, or arrays that are pickled or damaged, all of them.
    """
    allowed = "a .npz with " + ", ".join(KEYS)
    mistakes = []
    arrays: dict[str, NDArray[np.generic]] = {}
    with open_regular(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise FileMistakes([Mistake(str(path), None, "", str(error), allowed)]) from None
        with archive:
            there = archive.namelist()
            for key in (k for k in KEYS if f"{k}.npy" in there):
                try:
                    with archive.open(f"{key}.npy") as member:
                        arrays[key] = reader(member, archive.getinfo(f"{key}.npy").file_size)
                except Exception as error:  # a damaged archive can fail in every way
                    text = f"damaged or pickled ({error})"
                    mistakes.append(Mistake(str(path), None, key, text, "an array of numbers"))
    if mistakes:
        raise FileMistakes(mistakes)
    return arrays
