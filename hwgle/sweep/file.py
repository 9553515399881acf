"""What a user writes: `hwgle/sweep/1`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from hwgle.chip import MAX_SEED
from hwgle.yamlfile import Checked, KeyPath, Rule, mappings, number, show

MAX_VALUES = 10_000  # of one axis
SEED_KEYS = ("chip.seed", "training.seed")

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Points = Annotated[int, Field(ge=1, le=10**6)]
Scalar = (bool, int, float, str, type(None))


class Evaluate(Checked):
    """The weights as they are on each chip. samples: of the test split, all unless given."""

    kind: Literal["evaluate"]
    samples: int | None = Field(
        default=None, ge=1, le=10**6, description="a whole number >= 1, or null: all"
    )


class Train(Checked):
    """Learning on each chip for `epochs`, then the test split."""

    kind: Literal["train"]
    epochs: Annotated[int, Field(ge=1, le=10**6)]
    samples: int | None = Field(
        default=None, ge=1, le=10**6, description="a whole number >= 1, or null: all"
    )


class Grid(Checked):
    """Every combination of the axes' values."""

    kind: Literal["grid"]


class Random(Checked):
    """`points` settings, each axis drawn by itself."""

    kind: Literal["random"]
    points: Points
    seed: Seed = 0


class Pareto(Checked):
    """TPE (optuna) after high accuracy and few bits of memory at once.

    generation: settings that are asked for before any of them is told, so that what is
    asked next does not depend on which of them ends first.
    """

    kind: Literal["pareto"]
    points: Points
    seed: Seed = 0
    generation: Annotated[int, Field(ge=1, le=1000)] = 8


class Tpe(Checked):
    """TPE (optuna) after high accuracy alone; see Pareto."""

    kind: Literal["tpe"]
    points: Points
    seed: Seed = 0
    generation: Annotated[int, Field(ge=1, le=1000)] = 8


Do = Annotated[Evaluate | Train, Field(discriminator="kind")]
Search = Annotated[Grid | Random | Pareto | Tpe, Field(discriminator="kind")]


class Seeds(Checked):
    """Each setting is run with every pair of them; what is searched for is the mean."""

    chip: tuple[Seed, ...] = Field(
        default=(0,), strict=False, min_length=1, description="a list of one or more seeds"
    )
    training: tuple[Seed, ...] = Field(
        default=(), strict=False, description="a list of seeds"
    )


class Axis(Checked):
    """One key (`chip.weight.bits`, `training.learning_rate` ...) or several that go together.

    values: of the key; with `keys` a list of values for each point of the axis. low, high,
    step: in place of values, both ends included. scale: how a search draws between them.
    """

    key: str | None = Field(default=None, description="a key such as chip.weight.bits")
    keys: tuple[str, ...] = Field(default=(), strict=False, description="a list of keys")
    values: tuple[Any, ...] = Field(default=(), strict=False, description="a list of values")
    low: int | float | None = Field(default=None, description="a number")
    high: int | float | None = Field(default=None, description="a number")
    step: int | float | None = Field(default=None, gt=0, description="a number > 0")
    scale: Literal["linear", "log"] = "linear"

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The key, or those that go together."""
        return self.keys or ((self.key,) if self.key is not None else ())

    @property
    def points(self) -> list[tuple[Any, ...]]:
        """Values of all keys at each point of the axis; none for a range without steps."""
        if self.values:
            return [tuple(v) if self.keys else (v,) for v in self.values]
        if self.low is None or self.high is None:
            return []
        step = self.step
        if step is None and isinstance(self.low, int) and isinstance(self.high, int):
            step = 1
        if step is None:
            return []
        count = int((self.high - self.low) / step + 1e-9) + 1
        found = [self.low + k * step for k in range(count)]
        whole = all(isinstance(x, int) for x in (self.low, step))
        return [(x if whole else float(f"{x:.12g}"),) for x in found]


class Sweep(Checked):
    """An experiment over axes and seeds. experiment, weights, chip: names or paths, relative
    ones from this file; without weights a training begins with its own."""

    format: Literal["hwgle/sweep/1"]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=64,
        description="a name of letters, digits, _ . and -, at most 64 long",
    )
    experiment: str = Field(min_length=1, description="the name or path of an experiment")
    weights: str | None = Field(default=None, description="the path of a .npz of weights")
    chip: str | None = Field(
        default=None, description="the name or path of a profile, without a seed"
    )
    do: Do
    search: Search = Grid(kind="grid")
    seeds: Seeds = Seeds()
    axes: tuple[Axis, ...] = Field(
        strict=False, min_length=1, max_length=16, description="a list of 1 to 16 axes"
    )

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """What holds across fields."""
        do, search = _kind(data, "do"), _kind(data, "search") or "grid"
        if do == "evaluate":
            if data.get("weights", None) is None:
                yield Rule(("weights",), show(None), "weights to evaluate")
            seeds = data.get("seeds")
            if isinstance(seeds, Mapping) and seeds.get("training"):
                allowed = "none, as nothing is trained (do: {kind: evaluate})"
                yield Rule(("seeds", "training"), show(seeds["training"]), allowed)
        seen: dict[str, int] = {}
        for i, axis in mappings(data.get("axes")):
            yield from _axis_rules(axis, ("axes", i), do, search)
            for key in _keys(axis):
                if seen.setdefault(key, i) != i:
                    allowed = f"each key once (it is in axes[{seen[key]}] too)"
                    yield Rule(("axes", i), f"{key} again", allowed)
        for path, listed in _seed_lists(data):
            if len(set(listed)) != len(listed):
                yield Rule(path, "a seed twice", "each seed once")


def _kind(data: Mapping[str, Any], name: str) -> Any:
    value = data.get(name)
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


def _seed_lists(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, list[int]]]:
    seeds = data.get("seeds")
    for name in ("chip", "training"):
        found = seeds.get(name) if isinstance(seeds, Mapping) else None
        found = found if isinstance(found, (list, tuple)) else []
        yield ("seeds", name), [s for s in found if isinstance(s, int)]


def _keys(axis: Mapping[str, Any]) -> list[str]:
    keys = axis.get("keys") or [axis.get("key")]
    keys = keys if isinstance(keys, (list, tuple)) else []
    return [k for k in keys if isinstance(k, str)]


def _axis_rules(axis: Mapping[str, Any], at: KeyPath, do: Any, search: Any) -> Iterator[Rule]:
    if bool(axis.get("keys")) == (axis.get("key") is not None):
        yield Rule(at, "both or neither of key and keys", "one of the two")
    for key in _keys(axis):
        where = (*at, "keys" if axis.get("keys") else "key")
        if key in SEED_KEYS:
            name = key.split(".")[0]
            yield Rule(where, key, f"no seed: name them in seeds: {{{name}: [...]}}")
        elif key.startswith("training.") and do == "evaluate":
            yield Rule(where, key, "keys of the chip, as nothing is trained")
    values, low, high = axis.get("values"), axis.get("low"), axis.get("high")
    if values:
        yield from _value_rules(axis, at)
        for name in ("low", "high", "step"):
            if axis.get(name) is not None:
                yield Rule((*at, name), show(axis[name]), "values, or low and high, not both")
        return
    if low is None and high is None:
        yield Rule(at, "an axis without values", "values: [...], or low and high")
        return
    if axis.get("keys"):
        yield Rule((*at, "keys"), "a range for several keys", "values: a list of lists")
    yield from _range_rules(axis, at, search)


def _value_rules(axis: Mapping[str, Any], at: KeyPath) -> Iterator[Rule]:
    values, keys = axis["values"], axis.get("keys")
    if not isinstance(values, (list, tuple)):
        return
    if len(values) > MAX_VALUES:
        yield Rule((*at, "values"), f"{len(values)} values", f"at most {MAX_VALUES}")
    for k, value in enumerate(values):
        parts = value if keys and isinstance(value, (list, tuple)) else [value]
        if keys and (not isinstance(value, (list, tuple)) or len(value) != len(keys)):
            allowed = f"a list of {len(keys)} values, one for each of keys"
            yield Rule((*at, "values", k), show(value), allowed)
        elif not all(isinstance(part, Scalar) for part in parts):
            yield Rule((*at, "values", k), show(value), "a number, a word, true, false or null")
        elif value in values[:k] and type(value) is type(values[values.index(value)]):
            yield Rule((*at, "values", k), f"{show(value)} again", "each value once")


def _range_rules(axis: Mapping[str, Any], at: KeyPath, search: Any) -> Iterator[Rule]:
    low, high, step = (number(axis.get(name)) for name in ("low", "high", "step"))
    for name, value in (("low", low), ("high", high)):
        if value is None and axis.get(name) is None:
            yield Rule((*at, name), show(None), "low and high")
    if low is None or high is None:
        return
    whole = all(isinstance(axis.get(n), int) for n in ("low", "high"))
    if high < low:
        yield Rule((*at, "high"), f"{high:g}", f"at least low = {low:g}")
    elif step is not None and 0 < step < (high - low) / MAX_VALUES:
        yield Rule((*at, "step"), f"{step:g}", f"at most {MAX_VALUES} values")
    elif step is None and whole and high - low > MAX_VALUES and search == "grid":
        yield Rule((*at, "high"), f"{high:g}", f"at most {MAX_VALUES} values")
    if axis.get("scale") == "log":
        if search == "grid":
            yield Rule((*at, "scale"), "log", "linear in a grid; or values written out")
        if low <= 0:
            yield Rule((*at, "low"), f"{low:g}", "more than 0 with scale: log")
        if step is not None:
            yield Rule((*at, "step"), f"{step:g}", "none with scale: log")
    elif search == "grid" and step is None and not whole:
        yield Rule((*at, "step"), show(None), "a step, as low and high are no whole numbers")
