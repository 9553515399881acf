"""Two reports side by side: their key numbers, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hwgle.accuracy_report import numbers, paths
from hwgle.accuracy_report.page import environment

# Path of a number in a chip's part, how it is shown, and from which difference on it is marked.
KEYS: tuple[tuple[str, str, float], ...] = (
    ("task.chip.raw", "percent", 0.005),
    ("task.chip.calibrated", "percent", 0.005),
    ("task.stages.*.calibrated", "percent", 0.005),
    ("task.float.calibrated", "percent", 0.005),
    ("task.seeds.calibrated.mean", "percent", 0.005),
    ("task.seeds.calibrated.min", "percent", 0.005),
    ("task.changed.calibrated_count", "whole", 1),
    ("budget.output.accumulated.*.sqnr", "db", 0.5),
    ("budget.output.alone.*.sqnr", "db", 0.5),
    ("budget.output.bits", "bits", 0.1),
    ("budget.output.rms", "short", 0.1),
    ("budget.output.bias", "short", 0.1),
    ("budget.layers.*.*.sqnr", "db", 0.5),
    ("widths.each.*.bits", "whole", 1),
    ("widths.each.*.converters.more.output", "gain", 0.5),
    ("widths.each.*.converters.fewer.output", "gain", 0.5),
    ("formats.each[*].clipped", "small", 1e-3),
    ("learning.directions.layers.*.cosine_gle", "cosine", 0.02),
    ("learning.directions.layers.*.cosine_adjoint", "cosine", 0.02),
    ("learning.plasticity.layers.*.to_nothing", "small", 0.01),
    ("learning.plasticity.layers.*.saturated", "small", 0.01),
    ("bodies[*].instructions", "whole", 1),
    ("bodies[*].memory", "whole", 1),
    ("faults", "whole", 1),
)


@dataclass(frozen=True)
class Row:
    """One number of both; None where a report has none."""

    path: str
    kind: str
    a: float | None
    b: float | None
    differs: bool

    @property
    def change(self) -> str:
        """b - a in the unit of the number; a dash where one has none."""
        if self.a is None or self.b is None:
            return numbers.NONE
        d = self.b - self.a
        if self.kind in ("percent", "small"):
            return f"{100 * d + 0.0:+.2f}"
        return "0" if d == 0 else f"{d:+.3g}"


@dataclass(frozen=True)
class Compared:
    """Rows of each pair of chips, in their order, and what else is not the same."""

    chips: list[tuple[str, str, list[Row]]]
    others: list[tuple[str, str, str]]

    @property
    def count(self) -> int:
        """Numbers that differ."""
        return sum(row.differs for _, _, rows in self.chips for row in rows)


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Compared:
    """First chip with first chip, and so on; what only one has is a row with one number."""
    chips = []
    for k in range(max(len(a["chips"]), len(b["chips"]))):
        one, other = (r["chips"][k] if k < len(r["chips"]) else None for r in (a, b))
        names = [numbers.NONE if c is None else f"{c['name']}:{c['seed']}" for c in (one, other)]
        chips.append((names[0], names[1], list(_rows(one or {}, other or {}))))
    return Compared(chips, list(_others(a, b)))


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Row]:
    for path, kind, least in KEYS:
        one, other = dict(paths.matches(a, path)), dict(paths.matches(b, path))
        for name in dict.fromkeys([*one, *other]):
            x, y = one.get(name), other.get(name)
            if x is None and y is None:
                continue
            differs = x is None or y is None or abs(x - y) >= least
            yield Row(_named(name, a or b), kind, x, y, differs)


def _named(path: str, chip: Mapping[str, Any]) -> str:
    """`formats.each[3].clipped` says nothing: whose it is, is added."""
    if path.startswith("formats.each["):
        use = paths.value(chip, path.rpartition(".")[0])
        return f"{path} ({use['layer'] or ''} {use['kind']})".replace("( ", "(")
    return path


def _others(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for what in ("verdict.text", "experiment", "network.name"):
        x, y = paths.value(a, what), paths.value(b, what)
        if x != y:
            yield what, str(x), str(y)
    for section in ("versions", "machine", "hashes", "seeds"):
        x, y = a["made"][section], b["made"][section]
        for key in dict.fromkeys([*x, *y]):
            if x.get(key) != y.get(key):
                yield f"{section}: {key}", str(x.get(key, "–")), str(y.get(key, "–"))


def render(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The page of both."""
    template = environment().get_template("compare.html.j2")
    return template.render(compared=compare(a, b), a=a, b=b, names=names, text=numbers.text)
