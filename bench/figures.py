"""Figures: what one run of the bench says that another run can be held against.

A figure is a ratio of two times of one round (with the median and the range over the
rounds), or a number that comes out the same in every run: instructions, bytes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = "hwgle/bench/1"


@dataclass(frozen=True)
class Figure:
    """One number. name: bench/case/.../what. better: "more", "less", or "" for neither.
    exact: the same in every run of the same sources, so that any change is one."""

    name: str
    value: float
    low: float
    high: float
    better: str
    exact: bool = False


class WrongFormat(ValueError):
    """A file that is no result of this bench; the text says which and why."""


def measured(name: str, rounds: Sequence[float], better: str) -> Figure:
    """Of ratios, one a round."""
    return Figure(name, statistics.median(rounds), min(rounds), max(rounds), better)


def exact(name: str, value: float, better: str = "less") -> Figure:
    """Of a number that is counted."""
    return Figure(name, value, value, value, better, exact=True)


def document(
    machine: Mapping[str, str],
    figures: Iterable[Figure],
    seeds: Mapping[str, int],
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """All that a run has found, for a file. details: by bench, whatever it measured."""
    return {
        "format": FORMAT,
        "machine": dict(machine),
        "seeds": dict(seeds),
        "figures": [asdict(figure) for figure in figures],
        "details": dict(details),
    }


def write(path: Path, found: Mapping[str, Any]) -> None:
    """As JSON, a figure a line, so that a change of one is a line of a diff."""
    rest = {key: value for key, value in found.items() if key != "figures"}
    text = json.dumps(rest, indent=1, sort_keys=True)
    lines = ",\n  ".join(json.dumps(rounded(figure)) for figure in found["figures"])
    path.write_text(f'{text[:-2]},\n "figures": [\n  {lines}\n ]\n}}\n')


def rounded(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Measured numbers with four digits: more say nothing."""
    if figure["exact"]:
        return dict(figure)
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figure.items()}


def read(path: Path) -> tuple[dict[str, Any], dict[str, Figure]]:
    """A file, and its figures by name.

    Raises WrongFormat: it cannot be read, is no JSON, or none of ours.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WrongFormat(f"{path}: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise WrongFormat(f"{path}: not of format {FORMAT}; made by python -m bench all --json")
    try:
        figures = [Figure(**figure) for figure in found["figures"]]
    except (KeyError, TypeError) as error:
        raise WrongFormat(f"{path}: figures of another kind ({error})") from error
    return found, {figure.name: figure for figure in figures}
