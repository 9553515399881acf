"""The page: `report.html`, one file, readable without JavaScript, on paper and on a phone.

Every number is a <data> element with its full value and its path in report.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hwgle.accuracy_report import figures, numbers, paths

SHOWN = 40  # samples that change their class


def environment() -> Environment:
    """Templates of this package."""
    return Environment(
        loader=PackageLoader("hwgle.accuracy_report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def element(report: Mapping[str, Any], path: str, kind: str) -> Markup:
    """The number at a path, shown as `numbers` says."""
    value = paths.value(report, path)
    if value is None:
        return Markup(numbers.NONE)
    exact = json.dumps(value)
    return Markup(
        f'<data value="{escape(exact)}" data-path="{escape(path)}" data-kind="{kind}">'
        f"{escape(numbers.text(value, kind))}</data>"
    )


def shade(value: float, low: float, high: float) -> str:
    """How far between two ends, 0.00 to 1.00: for the background of a cell."""
    return f"{min(1.0, max(0.0, (value - low) / (high - low))):.2f}"


def render(report: Mapping[str, Any]) -> str:
    """The whole page."""
    plots = [
        {name: Markup(svg) for name, svg in figures.all_of(chip, k).items()}
        for k, chip in enumerate(report["chips"])
    ]
    template = environment().get_template("report.html.j2")
    return template.render(
        report=report,
        plots=plots,
        n=lambda path, kind: element(report, path, kind),
        shade=shade,
        shown=SHOWN,
        signals={"u": "u", "uhat": "û", "r": "r", "e": "e", "dW": "dW"},
        enumerate=enumerate,
    )
