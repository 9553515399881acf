"""The table of a sweep: one row a point, in the order of the axes and seeds.

The same bytes whatever the workers were, in which order they ended and how often it was
interrupted: rows hold results, no times and no names of machines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.arrays import save_npz_atomic
from hwgle.cache import replacing
from hwgle.sweep.driver import Outcome
from hwgle.sweep.study import Study

Row = dict[str, Any]


def rows(study: Study, outcome: Outcome) -> list[Row]:
    """One flat mapping a point: setting, seeds, bits of memory, results.

    `seed.training` where it learns; `refused` where a chip could not be built. `job` begins
    the hash of what was run: points with the same one cannot differ.
    """
    result: list[Row] = []
    for point, job, found in zip(outcome.points, outcome.jobs, outcome.results, strict=True):
        assert found is not None
        row: Row = {"setting": point.number, **point.setting, "seed.chip": point.chip_seed}
        if point.training_seed is not None:
            row["seed.training"] = point.training_seed
        row["memory_bits"] = study.memory_bits(point.setting)
        result.append({**row, **found, "job": job.key[:16]})
    return result


def columns(table: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """The table as arrays: int64, float64 (NaN: nothing) or text."""
    names = list(dict.fromkeys(name for row in table for name in row))
    return {name: _column([row.get(name) for row in table]) for name in names}


def _column(values: Sequence[Any]) -> NDArray[Any]:
    kinds = {type(v) for v in values}
    if kinds <= {bool}:
        return np.array(values, dtype=np.bool_)
    if kinds <= {int}:
        return np.array(values, dtype=np.int64)
    if kinds <= {int, float, type(None)}:
        return np.array([np.nan if v is None else float(v) for v in values])
    return np.array(["" if v is None else str(v) for v in values])


def write_table(out: Path, table: Sequence[Row]) -> list[Path]:
    """table.jsonl and table.npz, each whole or not at all."""
    paths = [out / "table.jsonl", out / "table.npz"]
    with replacing(paths[0]) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in table))
    save_npz_atomic(paths[1], columns(table))
    return paths


def read_table(path: Path) -> list[Row]:
    """The rows of a table.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]
