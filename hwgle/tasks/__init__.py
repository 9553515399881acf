"""Data to learn from. A task is one file in this folder with a function `load`.

`TASKS` maps the name of each file to its `load`; adding a task edits nothing
else. A task file imports what generates its data only inside `load`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
from numpy.typing import NDArray


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
    """One task: learn from `train`, choose by `validation`, report `test`."""

    name: str
    train: Split
    validation: Split
    test: Split


Loader = Callable[..., Task]

TASKS: dict[str, Loader] = {
    module.name: import_module(f"{__name__}.{module.name}").load
    for module in iter_modules(__path__)
}
