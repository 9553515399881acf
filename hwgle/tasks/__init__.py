"""Data to learn from. A task is one file in this folder.

It holds a function `load`, which returns labelled samples (`Task`), or `load_series`, time
series with a target at every step (`SeriesTask`), and a class `Settings` (see `settings.py`):
its keys in an experiment. `TASKS`, `SERIES` and `SETTINGS` map the name of each file, `-` for
`_`, to them; adding a task edits nothing else. A task file imports what generates its data
only when it loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
from numpy.typing import NDArray

from hwgle.tasks.settings import TaskSettings


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their classes.

    Attributes:
        x: inputs in network units, float32, shape (samples, steps, inputs).
        y: classes, int64, shape (samples,).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Task:
    """One task: learn from `train`, choose by `validation`, report `test`.

    content: hash of what the data are, where an experiment's settings do not say it all.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    content: str = ""


@dataclass(frozen=True, eq=False)
class Series:
    """Streams with a target at every step, for loss `mse`.

    Attributes:
        x: inputs in network units, float64, shape (streams, steps, inputs).
        y: targets for the rates at the END of the same step, float64, shape (streams, steps,
            outputs); NaN where there is none. (Errors in a GLE network compare a target with
            the rates of the step before: hand them y one step later.)
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class SeriesTask:
    """As `Task`, with series.

    loops: each split is one period and may be shown without end. settle: steps at the
    beginning of learning, and of every run from rest that is judged, that do not count.
    """

    name: str
    train: Series
    validation: Series
    test: Series
    loops: bool = False
    settle: int = 0
    content: str = ""


Loader = Callable[..., Task]
SeriesLoader = Callable[..., SeriesTask]

TASKS: dict[str, Loader] = {}
SERIES: dict[str, SeriesLoader] = {}
SETTINGS: dict[str, type[TaskSettings]] = {}

for _file in iter_modules(__path__):
    _module, _name = import_module(f"{__name__}.{_file.name}"), _file.name.replace("_", "-")
    if hasattr(_module, "load"):
        TASKS[_name] = _module.load
    if hasattr(_module, "load_series"):
        SERIES[_name] = _module.load_series
    if hasattr(_module, "Settings"):
        SETTINGS[_name] = _module.Settings
