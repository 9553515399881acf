"""YAML that users write: read with line numbers, checked, every mistake at once.

PyYAML alone would drop duplicate keys, read `1e-3` as text and `on` as true,
expand aliases without bound and forget on which line a value stood.  Here the
node tree is composed (never constructed by tag), turned into plain Python by
the scalar rules of YAML 1.2, and then held against a pydantic model whose
errors become `Mistake`s with file, line, key, what was found and what is
allowed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from hwgle.errors import FileMistakes, Mistake

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]
Kind = Literal["networks", "chips", "experiments", "sweeps"]


class Rule(NamedTuple):
    """A rule across fields that a file breaks: where, what is there, what may be."""

    path: KeyPath
    found: str
    allowed: str


class Where(NamedTuple):
    """The place in another file that names this one; mistakes point there."""

    file: str
    line: int | None
    key: str


class Checked(BaseModel):
    """Base of all models of user files: frozen, no unknown keys, nothing coerced.

    A subclass states what holds across its fields in `rules`; a model built in
    Python obeys the same rules as one read from a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """Yield the rules that plain `data` breaks.

        `data` may be raw (fields missing or of the wrong type, so that mistakes
        across fields are told together with those within): a rule whose
        ingredients are not there says nothing.
        """
        yield from ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        text = "found {found}; allowed: {allowed}"
        broken: list[InitErrorDetails] = [
            {"type": PydanticCustomError("rule", text, r._asdict()), "loc": r.path, "input": None}
            for r in type(self).rules(self.model_dump())
        ]
        if broken:
            raise ValidationError.from_exception_data(type(self).__name__, broken)
        return self

    def hash(self) -> str:
        """SHA-256 (hex) of the content as canonical JSON, defaults written out."""
        return canonical_hash(self.model_dump(mode="json"))


def canonical_hash(data: Any) -> str:
    """SHA-256 (hex) of plain data as canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def number(value: object) -> float | None:
    """`value` as a finite float if it is a number (no bool), else None; for raw rules."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond float64
        return None


def mappings(value: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings in a list with their index; nothing if it is no list; for raw rules."""
    if isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            if isinstance(entry, Mapping):
                yield i, entry


# --- reading ------------------------------------------------------------------


@dataclass(frozen=True)
class YamlFile:
    """A YAML file as plain Python plus the line of every key and list entry.

    `mistakes` are those of the YAML itself (duplicate keys, aliases, tags) that
    do not keep the rest of the file from being checked; `validate` reports them.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    mistakes: tuple[Mistake, ...]

    def line(self, path: KeyPath) -> int:
        """Line (from 1) of a key, or of its nearest parent when it is not there."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def mistake(self, path: KeyPath, found: str, allowed: str) -> Mistake:
        return Mistake(str(self.path), self.line(path), dotted(path), found, allowed)


def dotted(path: Iterable[str | int]) -> str:
    """`("layers", 0, "name")` as `layers[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: str | os.PathLike[str]) -> YamlFile:
    """Read a YAML file whose top level is a mapping.

    Raises:
        FileMistakes: the file is missing, unreadable, larger than 1 MiB, not
            UTF-8, no YAML, nested deeper than 32, empty, or no mapping.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        loader = _Loader(text, str(path))
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise FileMistakes([_syntax_mistake(error, str(path), text)]) from None
    if root is None:
        raise _fatal(path, "an empty file", "a mapping of keys to values", 1)
    if not isinstance(root, yaml.MappingNode):
        what = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        found, line = f"{what} at the top level", root.start_mark.line + 1
        raise _fatal(path, found, "a mapping of keys to values", line)
    lines: dict[KeyPath, int] = {(): root.start_mark.line + 1}
    mistakes = loader.refused
    data = _plain(root, (), lines, mistakes, str(path))
    return YamlFile(path, data, lines, tuple(mistakes))


def _fatal(path: Path, found: str, allowed: str, line: int | None = None) -> FileMistakes:
    return FileMistakes([Mistake(str(path), line, "", found, allowed)])


def _read_text(path: Path) -> str:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would block
        raise _fatal(path, "not a regular file", "a YAML file")
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _fatal(path, "no such file", "a YAML file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _fatal(path, f"cannot be read ({reason})", "a readable YAML file") from None
    if len(raw) > MAX_BYTES:
        raise _fatal(path, f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _fatal(path, f"byte 0x{raw[error.start]:02x}, not UTF-8", "UTF-8", line) from None


def _syntax_mistake(error: yaml.YAMLError, file: str, text: str) -> Mistake:
    line: int | None = None
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        found = " ".join(part for part in (error.context, error.problem) if part)
    else:
        found = str(error)
        if isinstance(error, yaml.reader.ReaderError):
            line, found = text.count("\n", 0, error.position) + 1, "a control character"
    return Mistake(file, line, "", found, "one YAML document")


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases, anchors, tags and depth as it goes."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self.refused: list[Mistake] = []
        self._file, self._depth = file, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._refuse(mark, f"the alias *{event.anchor}", "values written out, no aliases")
            return yaml.ScalarNode("", "", mark)
        if event.anchor is not None:
            self._refuse(mark, f"the anchor &{event.anchor}", "values written out, no anchors")
            event.anchor = None
        if event.tag is not None:
            self._refuse(mark, f"the tag {event.tag}", "plain values, no tags")
            event.tag = None
        if self._depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_DEPTH} levels", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, mark: yaml.Mark, found: str, allowed: str) -> None:
        self.refused.append(Mistake(self._file, mark.line + 1, "", found, allowed))


def _plain(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], mistakes: list[Mistake], file: str
) -> Any:
    if isinstance(node, yaml.SequenceNode):
        for i, entry in enumerate(node.value):
            lines[(*path, i)] = entry.start_mark.line + 1
        return [_plain(e, (*path, i), lines, mistakes, file) for i, e in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            found = "a key that is a list or mapping"
            mistakes.append(Mistake(file, line, dotted(path), found, "a word"))
            continue
        here = (*path, key_node.value)
        if here in lines:
            found = f"a second `{key_node.value}` (the first is on line {lines[here]})"
            mistakes.append(Mistake(file, line, dotted(here), found, "each key once"))
            continue
        lines[here] = line
        mapping[key_node.value] = _plain(value_node, here, lines, mistakes, file)
    return mapping


_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + inf: math.inf for sign in ("", "+") for inf in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}


def _scalar(node: yaml.Node) -> Any:
    """A scalar by the core schema of YAML 1.2; what is quoted stays text."""
    text: str = node.value
    if getattr(node, "style", None) is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) <= 400:  # int() refuses thousands of digits
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


# --- checking -----------------------------------------------------------------

M = TypeVar("M", bound=Checked)


def validate(model: type[M], file: YamlFile) -> M:
    """Hold a file against its model.

    Raises:
        FileMistakes: every mistake of the YAML, of single fields and of the
            model's rules across fields, in the order of their lines.
    """
    broken: list[Rule] = []
    result: M | None = None
    try:
        result = model.model_validate(file.data)
    except ValidationError as error:
        broken = validation_rules(model, error)
        # The model's own rules do not run when a field, or a model within, is wrong.
        fields = model.model_fields.items()
        defaults = {key: f.get_default() for key, f in fields if not f.is_required()}
        broken += model.rules({**defaults, **file.data})
    mistakes = list(file.mistakes)
    # An alias that was refused stands as null, which must not be told as well;
    # and a rule adds nothing to a key that is wrong already.
    refused = {m.line for m in mistakes if not m.key}
    told: set[str] = set()
    for path, found, allowed in broken:
        mistake = file.mistake(path, found, allowed)
        if mistake.key in told or (found == show(None) and mistake.line in refused):
            continue
        told.add(mistake.key)
        mistakes.append(mistake)
    if mistakes or result is None:
        raise FileMistakes(sorted(mistakes, key=lambda m: m.line or 0))
    return result


def validation_rules(model: type[BaseModel], error: ValidationError) -> list[Rule]:
    """pydantic's errors about `model` in the words of the file, one `Rule` each."""
    return [r for e in error.errors(include_url=False) if (r := _rule(model, e)) is not None]


def _rule(model: type[BaseModel], error: Any) -> Rule | None:
    """One pydantic error in the words of the file; None if it says nothing new."""
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "rule":
        return Rule(_locate(model, loc)[0], context["found"], context["allowed"])
    (path, field), value = _locate(model, loc), error["input"]
    if kind == "too_short" and isinstance(value, list) and len(value) >= context["min_length"]:
        return None  # only short because entries with mistakes were left out
    if kind == "missing":
        return Rule(path, "nothing, the key is missing", describe(field))
    if kind == "extra_forbidden":
        parent = _locate(model, loc[:-1])[1]
        known = list(_keys(_unwrap(parent)[0]))
        return Rule(path, "unknown key", with_hint(str(loc[-1]), known))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = context["discriminator"].strip("'")
        found = show(value[tag]) if tag in value else "nothing, the key is missing"
        return Rule((*path, tag), found, "one of " + ", ".join(_tags(field)))
    return Rule(path, show(value), describe(field))


def with_hint(word: str, known: list[str]) -> str:
    """The known words, and the one that was probably meant."""
    near = difflib.get_close_matches(word, known, n=1)
    return ", ".join(known) + (f" (did you mean {near[0]}?)" if near else "")


def _unwrap(annotation: Any) -> tuple[Any, list[Any], str | None]:
    """Bare type, constraints and description of an annotation or field."""
    constraints: list[Any] = []
    words: str | None = None
    if isinstance(annotation, FieldInfo):
        constraints, words = list(annotation.metadata), annotation.description
        annotation = annotation.annotation
    elif get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        for item in extra:
            constraints += item.metadata if isinstance(item, FieldInfo) else [item]
            words = words or getattr(item, "description", None)
    if get_origin(annotation) in (Union, UnionType):  # what may be left out
        given = [member for member in get_args(annotation) if member is not type(None)]
        if len(given) == 1:
            bare, more, described = _unwrap(given[0])
            return bare, constraints + more, words or described
    return annotation, constraints, words


def _keys(model: Any) -> dict[str, Any]:
    """The fields of a model by the keys that a file has."""
    return {f.alias or name: f for name, f in getattr(model, "model_fields", {}).items()}


def _members(bare: Any) -> list[Any]:
    """The models of a discriminated union; empty for anything else."""
    return [part for part in _parts(bare) if hasattr(part, "model_fields")]


def _parts(bare: Any) -> list[Any]:
    """What a union is of, but for None; empty for anything else."""
    parts = get_args(bare) if get_origin(bare) in (Union, UnionType) else ()
    return [part for part in parts if part is not NoneType]


def _tags(field: Any) -> list[str]:
    """The tags that tell a union's members apart."""
    return [tag for member in _members(_unwrap(field)[0]) for tag in _tag_of(member)]


def _tag_of(member: Any) -> tuple[str, ...]:
    """What the first Literal of a union's member, its discriminator, allows."""
    literals = (f.annotation for f in member.model_fields.values())
    return next((get_args(a) for a in literals if get_origin(a) is Literal), ())


def _locate(model: Any, loc: Iterable[str | int]) -> tuple[KeyPath, Any]:
    """Path in the file and annotation of a pydantic location.

    pydantic puts the tag of a union's member into the location, or its type (`int` of
    `int | float`); the file has no such key, so it is left out of the path.
    """
    path: KeyPath = ()
    here = model
    for part in loc:
        bare = _unwrap(here)[0]
        union = [member for member in _members(bare) if part in _tag_of(member)]
        if union:
            here = union[0]
            continue
        if len(_parts(bare)) > 1 and not _members(bare):
            continue
        path = (*path, part)
        items = next(iter(get_args(bare)), None)
        here = items if isinstance(part, int) else _keys(bare).get(part)
    return path, here


def describe(annotation: Any) -> str:
    """What a field allows, in words; a field's own description comes first."""
    bare, constraints, words = _unwrap(annotation)
    if words:
        return words
    limits = {
        name: getattr(item, name)
        for item in constraints
        for name in ("gt", "ge", "lt", "le", "min_length")
        if getattr(item, name, None) is not None
    }
    if _members(bare):
        return f"a mapping of the kind {' or '.join(_tags(annotation))}"
    if get_origin(bare) is Literal:
        values = [str(value) for value in get_args(bare)]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if get_origin(bare) is tuple:
        return f"a list of {limits.get('min_length', 0)} or more entries"
    if bare is bool:
        return "true or false"
    if bare in (int, float):
        return _bounded("a whole number" if bare is int else "a number", limits)
    fields = getattr(bare, "model_fields", None)
    return "text" if fields is None else "a mapping with the keys " + ", ".join(fields)


def _bounded(noun: str, limits: Mapping[str, Any]) -> str:
    if "ge" in limits and "le" in limits:
        return f"{noun} from {limits['ge']} to {limits['le']}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [f"{sign} {limits[name]:g}" for name, sign in signs.items() if name in limits]
    return " ".join([noun, " and ".join(bounds)]).strip()


def show(value: object) -> str:
    """A value as the user wrote it, cut to a readable length."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    text = f"the text {value!r}" if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- finding ------------------------------------------------------------------


def zoo_names(kind: Kind) -> list[str]:
    """Names of the files of one kind that hwgle ships, sorted."""
    entries = (resources.files("hwgle") / "zoo" / kind).iterdir()
    return sorted(e.name[: -len(".yaml")] for e in entries if e.name.endswith(".yaml"))


def find(
    kind: Kind, name_or_path: str, *, base: Path | None = None, where: Where | None = None
) -> Path:
    """The file that a name or a path stands for.

    A path holds a separator, ends in .yaml or .yml, or is a file that exists;
    relative paths start at `base` (default: the working directory).  Anything
    else is a name in the zoo.

    Raises:
        FileMistakes: no such file, or no such name (listing those there are),
            told at `where` if another file named it.
    """
    name_or_path = os.fspath(name_or_path)
    path = Path(base or "", name_or_path)
    is_path = "/" in name_or_path or os.sep in name_or_path
    if is_path or name_or_path.endswith((".yaml", ".yml")) or os.path.isfile(path):
        if os.path.exists(path):
            return path
        at = where or Where(str(path), None, "")
        found = f"no such file: {path}" if where else "no such file"
        raise FileMistakes([Mistake(*at, found, "an existing YAML file")])
    names = zoo_names(kind)
    if name_or_path in names:
        return Path(str(resources.files("hwgle") / "zoo" / kind / f"{name_or_path}.yaml"))
    at = where or Where(name_or_path, None, "")
    found = f"no {kind[:-1]} named {name_or_path!r}"
    allowed = f"a path, or one of {with_hint(name_or_path, names)}"
    raise FileMistakes([Mistake(*at, found, allowed)])
