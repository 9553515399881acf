"""Limits on any number of a report: `hwgle/limits/1`, and what JUnit is told of them.

    format: hwgle/limits/1
    limits:
      - {path: "chips[*].task.chip.calibrated", min: 0.90, why: "design review of May"}
      - {path: "chips[0].budget.output.sqnr", min: 45}
      - {path: "chips[*].budget.layers.*.r.bits", min: 6}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from pydantic import Field

from hwgle.accuracy_report import paths
from hwgle.accuracy_report.schema import resolve
from hwgle.errors import FileMistakes, Mistake
from hwgle.yamlfile import Checked, Rule, YamlFile, mappings, number, read, validate


class Limit(Checked):
    """One number (or many, with `*`) and what it may be. why: shown where it is broken."""

    path: str = Field(min_length=1, description="a dotted path such as chips[0].budget.output.sqnr")
    min: float | None = Field(default=None, description="a number, or left out")
    max: float | None = Field(default=None, description="a number, or left out")
    why: str = ""


class Limits(Checked):
    """A file of limits."""

    format: Literal["hwgle/limits/1"]
    limits: tuple[Limit, ...] = Field(
        strict=False, min_length=1, description="a list of one or more {path, min, max}"
    )

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """Each limit has a path and a bound, and its bounds are in order."""
        for i, limit in mappings(data.get("limits")):
            path, low, high = limit.get("path"), limit.get("min"), limit.get("max")
            if isinstance(path, str) and path:
                try:
                    paths.parse(path)
                except ValueError as error:
                    allowed = "keys with dots between, [0] or [*] for lists, * for all keys"
                    yield Rule(("limits", i, "path"), f"{str(error)!r} in {path!r}", allowed)
            if low is None and high is None:
                yield Rule(("limits", i), "neither min nor max", "one of them or both")
            a, b = number(low), number(high)
            if a is not None and b is not None and a > b:
                yield Rule(("limits", i, "min"), f"{a:g}", f"at most max = {b:g}")


def load(path: Path, layers: list[str]) -> tuple[YamlFile, Limits]:
    """Read limits for a report on a network with these layers.

    Raises:
        FileMistakes: all mistakes, paths that no report has among them.
    """
    file = read(path)
    limits = validate(Limits, file)
    mistakes: list[Mistake] = []
    for i, limit in enumerate(limits.limits):
        wrong = resolve(paths.parse(limit.path), layers)
        if wrong is not None:
            word, known = wrong
            near = difflib.get_close_matches(word, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            allowed = (", ".join(known) or "a path that ends here, at a number") + hint
            found = f"{limit.path!r}: no {word!r} in a report"
            mistakes.append(file.mistake(("limits", i, "path"), found, allowed))
    if mistakes:
        raise FileMistakes(mistakes)
    return file, limits


def check(limits: Limits, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every number that a limit names, and whether it holds. What was not measured, or is not
    there (a second chip), does not hold."""
    results: list[dict[str, Any]] = []
    for limit in limits.limits:
        found = list(paths.matches(report, limit.path)) or [(limit.path, None)]
        for path, value in found:
            known = isinstance(value, (int, float))
            met = known and (limit.min is None or value >= limit.min)
            met = met and (limit.max is None or value <= limit.max)
            results.append(
                {
                    "path": path,
                    "found": value if known else None,
                    "min": limit.min,
                    "max": limit.max,
                    "met": bool(met),
                    "why": limit.why,
                }
            )
    return results


def in_words(result: Mapping[str, Any]) -> str:
    """One result as a sentence."""
    allowed = []
    if result["min"] is not None:
        allowed.append(f"at least {result['min']:g}")
    if result["max"] is not None:
        allowed.append(f"at most {result['max']:g}")
    found = "nothing was measured" if result["found"] is None else f"found {result['found']:.6g}"
    why = f" ({result['why']})" if result["why"] else ""
    return f"{result['path']}: {found}; allowed: {' and '.join(allowed)}{why}"


def junit(results: list[dict[str, Any]], experiment: str) -> str:
    """What CI reads: a test case for each number."""
    broken = sum(not r["met"] for r in results)
    suite = ElementTree.Element(
        "testsuite",
        name="hwgle report: limits",
        tests=str(len(results)),
        failures=str(broken),
        errors="0",
        skipped="0",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"hwgle.report.{experiment}", name=result["path"]
        )
        if not result["met"]:
            text = in_words(result)
            ElementTree.SubElement(case, "failure", message=text, type="limit").text = text
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
