"""The first difference between two runs, so that a test says where and not only that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwgle.device import SIGNALS
from hwgle.golden import Trace
from hwgle.session import Result
from hwgle.snapshot import CAUSES

# A step computes them in this order; what stands first is what the rest follows from.
ORDER = {signal: k for k, signal in enumerate(CAUSES)}


class FirstDifference(NamedTuple):
    """Where two runs differ first. layer: "" for what is not of one (digest, an array of
    another name); step, stream, neuron: None where the array has no such axis."""

    layer: str
    signal: str
    step: int | None
    stream: int | None
    neuron: int | None
    first: Any
    second: Any
    differ: int
    of: int

    def __str__(self) -> str:
        words = [f"layer {self.layer}" if self.layer else "", f"signal {self.signal}"]
        for name, at in (("neuron", self.neuron), ("stream", self.stream), ("step", self.step)):
            words.append("" if at is None else f"{name} {at}")
        text = ", ".join(w for w in words if w)
        text += f": {self.first} and {self.second}"
        return text + (f" ({self.differ:,} of {self.of:,} values differ)" if self.of > 1 else "")


def arrays_of(what: Any) -> dict[str, NDArray[Any]]:
    """Named arrays of a run: a Trace, a Result, the path of an OUT.npz, a mapping, stored
    weights (pairs of arrays), one array or one number.

    Raises TypeError for anything else.
    """
    if isinstance(what, Trace):
        return {**what.signals, "formats": what.formats, "digest": np.uint64(what.digest)}  # type: ignore[dict-item]
    if isinstance(what, Result):
        return dict(what.arrays())
    if isinstance(what, (str, os.PathLike)):
        with np.load(Path(what), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if isinstance(what, Mapping):
        found: dict[str, NDArray[Any]] = {}
        for name, value in what.items():
            if isinstance(value, tuple) and len(value) == 2:
                found |= {f"{name}.weight": value[0], f"{name}.bias": value[1]}
            else:
                found[str(name)] = np.asarray(value)
        return found
    if isinstance(what, (int, float, np.generic, np.ndarray)):
        return {"value": np.asarray(what)}
    raise TypeError(f"cannot compare {type(what).__name__}: give runs, arrays or paths of .npz")


def first_difference(a: Any, b: Any) -> FirstDifference | str | None:
    """Where two runs differ first in time, and there in the chip's own order of causes.

    None: nowhere; a text: they cannot be compared value by value (other names, shapes or
    types). Values are equal when their bits are: NaN equals NaN, 0.0 does not equal -0.0.
    """
    one, two = arrays_of(a), arrays_of(b)
    if odd := sorted(set(one) ^ set(two)):
        where = "first" if odd[0] in one else "second"
        return f"{odd[0]} is in the {where} only"
    layers = list(dict.fromkeys(_split(name)[0] for name in one))
    found: list[tuple[tuple[int, int, int], FirstDifference]] = []
    for name, x in one.items():
        y = np.asarray(two[name])
        x = np.asarray(x)
        if x.shape != y.shape:
            return f"{name}: shape {x.shape} and {y.shape}"
        if x.dtype != y.dtype:
            return f"{name}: {x.dtype} and {y.dtype}"
        different = np.argwhere(_bits_differ(x, y))
        if not len(different):
            continue
        layer, signal = _split(name)
        one_difference = _at(layer, signal, x, y, different)
        step = one_difference.step if one_difference.step is not None else 1 << 62
        rank = ORDER.get(signal, len(ORDER))
        found.append(((step, layers.index(layer), rank), one_difference))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _split(name: str) -> tuple[str, str]:
    layer, dot, signal = name.rpartition(".")
    kinds = (*SIGNALS, "weight", "bias")
    return (layer, signal) if dot and signal in kinds else ("", name)


def _bits_differ(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    if x.dtype.kind not in "fc":
        return np.asarray(x != y)
    size = x.dtype.itemsize
    raw = (np.ascontiguousarray(v).view(np.uint8).reshape(*v.shape, size) for v in (x, y))
    left, right = raw
    return np.asarray((left != right).any(axis=-1))


def _at(
    layer: str, signal: str, x: NDArray[Any], y: NDArray[Any], different: NDArray[np.int64]
) -> FirstDifference:
    """The first in order of step, stream, neuron; a weight's are (neuron, input)."""
    at = tuple(int(i) for i in different[0])
    step = stream = neuron = None
    if x.ndim == 3 and (layer or signal == "output"):
        step, stream, neuron = at
    elif signal in ("weight", "bias") and at:
        neuron = at[0]
        signal += f" of input {at[1]}" if len(at) == 2 else ""
    elif signal == "formats" and x.ndim == 3:
        step = at[0]
        signal = f"format of {'re'[at[2]]} of layer number {at[1]}"
    elif at:
        signal += str(list(at))
    return FirstDifference(
        layer, signal, step, stream, neuron, x[at].item(), y[at].item(), len(different), x.size
    )
