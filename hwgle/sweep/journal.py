"""Finished jobs, one line each, appended as they end: whatever kills a sweep, they stay.

A line is whole or it is not counted: a run that was cut off while it wrote one leaves text
without an end, which the next run cuts away. Each shard writes a file of its own and reads
those of all.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwgle.errors import FileMistakes, Mistake, UsageError

NAME = re.compile(r"finished(-\d+-of-\d+)?\.jsonl")
Result = dict[str, Any]


def journal_name(shard: tuple[int, int] | None) -> str:
    """The file that a whole sweep, or shard (I, N), writes."""
    return "finished.jsonl" if shard is None else f"finished-{shard[0]}-of-{shard[1]}.jsonl"


class Journal:
    """All that is finished in a folder, and the file that this run appends to."""

    def __init__(self, folder: Path, shard: tuple[int, int] | None = None) -> None:
        self._folder, self._path = folder, folder / journal_name(shard)
        self.results: dict[str, Result] = {}
        self._descriptor = -1

    @contextmanager
    def open(self) -> Iterator[Journal]:
        """Take the file: nobody else may append to it meanwhile.

        Raises UsageError where somebody does, FileMistakes for damaged lines.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"cannot write {self._path}: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self._path}: another sweep is writing to it") from None
            whole = self.read()
            os.ftruncate(self._descriptor, whole)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            yield self
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self) -> int:
        """Take up what all files hold now; returns the bytes of whole lines of the own one."""
        own = 0
        for path in sorted(self._folder.iterdir()):
            if NAME.fullmatch(path.name):
                found, whole = read_lines(path)
                self.results.update(found)
                own = whole if path == self._path else own
        return own

    def add(self, results: Mapping[str, Result]) -> None:
        """Append finished jobs; they are on the disk when this returns."""
        lines = "".join(
            json.dumps({"job": key, "result": result}, sort_keys=True) + "\n"
            for key, result in results.items()
        )
        data = lines.encode()
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)
        self.results.update(results)


def read_lines(path: Path) -> tuple[dict[str, Result], int]:
    """Results by key and the bytes of whole lines. Raises FileMistakes for a damaged one."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    results: dict[str, Result] = {}
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            found = json.loads(line)
            results[str(found["job"])] = dict(found["result"])
        except (ValueError, KeyError, TypeError) as error:
            allowed = "a finished point; remove the line to run it again"
            what = f"a damaged line ({type(error).__name__})"
            raise FileMistakes([Mistake(str(path), number, "", what, allowed)]) from None
    return results, whole
