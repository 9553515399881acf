"""A user's own data from a Python file with a function `load`.

The file is run when a command needs the data, as whoever runs the command; naming it in an
experiment is the choice to do so. Looking at an experiment does not run it. Nothing is
unpickled. `load` gets the experiment's `arguments` and returns a `Task`, a `SeriesTask`, or a
mapping of the six arrays of `splits.py`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwgle.errors import FileMistakes, HwgleError, Mistake
from hwgle.tasks import SeriesTask, Task
from hwgle.tasks.settings import Needs, Progress, Steps, TaskSettings
from hwgle.tasks.splits import KEYS, problems, task
from hwgle.yamlfile import Rule

ALLOWED = "a Task, a SeriesTask, or a mapping with " + ", ".join(KEYS)


class Settings(TaskSettings):
    """file: the Python file, relative to the experiment; loss: what its data are for;
    arguments: of `load`, by name; settle: of series, see SeriesTask."""

    name: Literal["python"]
    file: str = Field(min_length=1, description="the path of a Python file")
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    arguments: dict[str, Any] = Field({}, description="a mapping of arguments of load()")
    settle: Steps = 0

    def check(self, base: Path) -> Iterator[Rule]:
        """Whether the file is there and is Python; it is not run."""
        path = base / self.file
        if not path.is_file():
            yield Rule(("file",), f"no such file: {path}", "a Python file with a function load")
            return
        try:
            compile(path.read_bytes(), str(path), "exec")
        except (SyntaxError, ValueError, OSError) as error:
            line = getattr(error, "lineno", None)
            where = f"{path}:{line}" if line else str(path)
            yield Rule(("file",), f"{where}: {error}", "a Python file with a function load")

    def needs(self, base: Path) -> Needs:
        """Sizes are known when the file has run: the lesson checks them."""
        return Needs(self.loss)

    def load(self, base: Path, progress: Progress | None = None) -> Task | SeriesTask:
        """See TaskSettings.

        Raises:
            FileMistakes: the file cannot be run, or does not return what it should.
        """
        path = base / self.file
        result = _run(path, self.arguments)
        kind = SeriesTask if self.loss == "mse" else Task
        if isinstance(result, (Task, SeriesTask)):
            arrays: dict[str, NDArray[np.generic]] = {}
            for split in ("train", "validation", "test"):
                part = getattr(result, split)
                arrays |= {f"{split}_x": np.asarray(part.x), f"{split}_y": np.asarray(part.y)}
        elif isinstance(result, Mapping):
            arrays = {str(key): np.asarray(value) for key, value in result.items()}
        else:
            raise _mistake(path, None, f"load() returned {type(result).__name__}", ALLOWED)
        wrong = [Mistake(str(path), None, f"load() {key}", *r) for key, *r in problems(arrays)]
        if wrong:
            raise FileMistakes(wrong)
        made = task(path.stem, arrays, self.settle)
        if not isinstance(made, kind):
            found = "classes" if isinstance(made, Task) else "a target at every step"
            raise _mistake(path, None, f"load() returned {found}", f"data for loss {self.loss}")
        return made


def _mistake(path: Path, line: int | None, found: str, allowed: str) -> FileMistakes:
    return FileMistakes([Mistake(str(path), line, "", found, allowed)])


def _run(path: Path, arguments: Mapping[str, Any]) -> object:
    """What load() returns. What the user's own code raises is told with its line there."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        load = getattr(module, "load", None)
        if not callable(load):
            raise _mistake(path, None, "no function load", "def load(...): a task")
        return load(**arguments)
    except (HwgleError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if f.filename == str(path)]
        found = f"{type(error).__name__}: {error}"
        raise _mistake(path, lines[-1] if lines else None, found, "code that runs") from error
