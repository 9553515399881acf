"""The JSON schema of a report: where it is, and whether a path leads to a number in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from hwgle.accuracy_report.paths import Part


@cache
def schema() -> dict[str, Any]:
    """`report.schema.json` (JSON Schema 2020-12)."""
    text = resources.files("hwgle.accuracy_report").joinpath("report.schema.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def resolve(parts: Sequence[Part], layers: Sequence[str]) -> tuple[str, list[str]] | None:
    """None if a path may lead to a number in a report on a network with these layers;
    otherwise the first word that does not, and what may stand there."""
    node = _deref(schema())
    for part in parts:
        kind = node.get("type")
        if "items" in node:
            if isinstance(part, str):
                return part, ["[0]", "[*]"]
            node = _deref(node["items"])
            continue
        known = _known(node, layers)
        if isinstance(part, int):
            return f"[{part}]", known
        if part is None and known:
            node = _child(node, known[0])
            continue
        if part is None or (known and part not in known) or not _children(node):
            return part or "*", known
        node = _child(node, part)
        assert kind
    if _is_number(node):
        return None
    return str(parts[-1]), _known(node, layers)


def _deref(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node itself, behind references and the alternative `null`."""
    while True:
        if "$ref" in node:
            node = schema()["$defs"][node["$ref"].rpartition("/")[2]]
        elif "anyOf" in node:
            node = next(n for n in node["anyOf"] if n.get("type") != "null")
        else:
            return node


def _children(node: Mapping[str, Any]) -> bool:
    return "properties" in node or isinstance(node.get("additionalProperties"), Mapping)


def _known(node: Mapping[str, Any], layers: Sequence[str]) -> list[str]:
    """Keys that may stand there; none where any may."""
    if "properties" in node:
        return list(node["properties"])
    return list(layers) if node.get("title") == "by layer" else []


def _child(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    own = node.get("properties", {})
    return _deref(own[key] if key in own else node["additionalProperties"])


def _is_number(node: Mapping[str, Any]) -> bool:
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return any(k in ("number", "integer") for k in kinds)
