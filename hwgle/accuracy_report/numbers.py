"""Numbers as text: one place, so that page, terminal and tests say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwgle.accuracy_report.deviation import MOST_DB

NONE = "–"


def db(value: float) -> str:
    """Decibels; what has no error at all is equal."""
    return "equal" if value >= MOST_DB else f"{value:.1f}"


def gain(value: float) -> str:
    """Decibels with a sign."""
    return f"{round(value, 1) + 0.0:+.1f}"


def bits(value: float) -> str:
    """Effective bits."""
    return f"{value:.1f}"


def percent(value: float) -> str:
    """A share in per cent, one digit."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of accuracies."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def small(value: float) -> str:
    """A share that never hides its last one."""
    share = 100 * value
    if share >= 10:
        return f"{share:.1f} %"
    return "0" if value == 0 else f"{share:.2g} %" if share >= 0.01 else f"{share:.0e} %"


def short(value: float) -> str:
    """Three significant digits."""
    return "0" if value == 0 else f"{value:.3g}"


def compact(value: float) -> str:
    """Two or three significant digits, thousands as k, millions as M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g}{unit}"
    return "0" if value == 0 else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3g}"


def cosine(value: float) -> str:
    """Two digits behind the point."""
    return f"{round(value, 2) + 0.0:.2f}"


def whole(value: float) -> str:
    """With thousands apart."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """A time with its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}"
    return ""


KINDS: dict[str, Callable[[float], str]] = {
    f.__name__: f
    for f in (db, gain, bits, percent, points, small, short, compact, cosine, whole, seconds)
}


def text(value: Any, kind: str) -> str:
    """A number as text of a kind; a dash for none."""
    return NONE if value is None else KINDS[kind](value)
