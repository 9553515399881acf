"""Dotted paths into a report: `chips[0].task.chip.calibrated`, `*` and `[*]` for all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

STEP = re.compile(r"\[(\d+|\*)\]|(?:^|\.)([A-Za-z0-9_+\-]+|\*)")
Part = str | int | None  # None: all


def parse(path: str) -> list[Part]:
    """Keys and indices. Raises ValueError where the text is none."""
    parts: list[Part] = []
    at = 0
    while at < len(path):
        found = STEP.match(path, at)
        if found is None or (at == 0 and path.startswith(".")):
            raise ValueError(path[at:])
        index, key = found.groups()
        text = index if index is not None else key
        parts.append(None if text == "*" else int(text) if index is not None else text)
        at = found.end()
    if not parts:
        raise ValueError("")
    return parts


def joined(parts: Sequence[str | int]) -> str:
    """The text of keys and indices."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def matches(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value that a path names, with its own path; none if there is no such thing."""
    yield from _walk(data, parse(path), ())


def _walk(
    data: Any, parts: Sequence[Part], before: tuple[str | int, ...]
) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield joined(before), data
        return
    head, rest = parts[0], parts[1:]
    if isinstance(data, Mapping):
        keys = list(data) if head is None else [head] if head in data else []
        for key in keys:
            yield from _walk(data[key], rest, (*before, key))
    elif isinstance(data, list):
        indices = range(len(data) if head is None else 0)
        if isinstance(head, int) and head < len(data):
            indices = range(head, head + 1)
        for index in indices:
            yield from _walk(data[index], rest, (*before, index))


def value(data: Any, path: str) -> Any:
    """The one value of a path without `*`. Raises KeyError."""
    for _, found in matches(data, path):
        return found
    raise KeyError(path)
