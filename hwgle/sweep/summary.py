"""What a table says on the whole: means over seeds, the Pareto front, yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.sweep.table import Row

ACCURACIES = ("raw", "offset_calibrated")


@dataclass(frozen=True)
class Settled:
    """One setting over all its seeds. accuracies: kind -> (chips and trainings,) of 0..1;
    distinct: jobs that differ among them."""

    number: int
    setting: dict[str, Any]
    memory_bits: int
    accuracies: dict[str, NDArray[np.float64]]
    distinct: int

    def mean(self, kind: str = "offset_calibrated") -> float:
        """Over all seeds."""
        return float(self.accuracies[kind].mean())


def settle(table: Sequence[Row], keys: Sequence[str]) -> list[Settled]:
    """Settings in their order; those with a refused chip are left out. keys: of the axes."""
    groups: dict[int, list[Row]] = {}
    for row in table:
        groups.setdefault(row["setting"], []).append(row)
    result = []
    for number, group in groups.items():
        if any("refused" in row for row in group):
            continue
        found = {k: np.array([row[k] for row in group], dtype=np.float64) for k in ACCURACIES}
        setting = {key: group[0][key] for key in keys}
        distinct = len({row["job"] for row in group})
        result.append(Settled(number, setting, group[0]["memory_bits"], found, distinct))
    return result


def front(settled: Sequence[Settled]) -> list[Settled]:
    """Those that no other one beats in both accuracy (mean, offset-calibrated) and bits,
    from few bits to many; of equal ones the first."""
    best = -1.0
    result = []
    for one in sorted(settled, key=lambda s: (s.memory_bits, -s.mean(), s.number)):
        if one.mean() > best:
            best = one.mean()
            result.append(one)
    return result
