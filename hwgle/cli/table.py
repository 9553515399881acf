"""Tables of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, one a line, both to the left."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def percent(share: float, digits: int = 1) -> str:
    """0.9172 as `91.7 %`."""
    return f"{100 * share:.{digits}f} %"


def small_share(count: int, of: int) -> str:
    """A count as a share that never hides its last one: `0`, `0.0021 %`, `12.3 %`."""
    if not count or not of:
        return "0"
    value = 100 * count / of
    return f"{value:.1f} %" if value >= 10 else f"{value:.2g} %"
