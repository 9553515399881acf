"""A user's arrays as a task: `train_x`, `train_y`, and so for `validation` and `test`.

x is (samples or streams, steps, inputs). y of whole numbers (samples,) holds classes, y of
floats (streams, steps, outputs) the target of each step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.arrays import describe_shape, not_finite
from hwgle.tasks import Series, SeriesTask, Split, Task
from hwgle.tasks.settings import Needs

SPLITS = ("train", "validation", "test")
KEYS = tuple(f"{split}_{which}" for split in SPLITS for which in ("x", "y"))
X = "numbers (samples, steps, inputs)"
Y = "whole numbers (samples,) for classes, or floats (streams, steps, outputs)"

Arrays = Mapping[str, NDArray[np.generic]]


def problems(arrays: Arrays) -> Iterator[tuple[str, str, str]]:
    """Key, what was found and what is allowed, of all that is wrong with the six arrays."""
    for key in KEYS:
        if key not in arrays:
            yield key, "nothing, the key is missing", X if key.endswith("_x") else Y
    good = {}
    for key in (k for k in KEYS if k in arrays):
        a = arrays[key]
        found = f"{describe_shape(a.shape)}, {a.dtype}"
        if key.endswith("_x"):
            right = a.ndim == 3 and a.dtype.kind in "fiu"
        else:
            right = (a.ndim, a.dtype.kind) in ((1, "i"), (1, "u"), (3, "f"))
        if not right or 0 in a.shape:
            yield key, found, X if key.endswith("_x") else Y
        elif a.dtype.kind == "f" and (wrong := _not_finite(a)) is not None:
            yield key, wrong, "finite numbers"
        elif key.endswith("_y") and a.ndim == 1 and int(a.min()) < 0:
            yield key, f"class {int(a.min())}", "classes from 0"
        else:
            good[key] = a
    first: dict[str, tuple[str, NDArray[np.generic]]] = {}
    for key, a in good.items():
        split, which = key.rsplit("_", 1)
        if which == "y":
            x, shared = good.get(f"{split}_x"), 1 if a.ndim == 1 else 2
            if x is not None and a.shape[:shared] != x.shape[:shared]:
                allowed = f"as many samples (and steps) as {split}_x, {describe_shape(x.shape)}"
                yield key, describe_shape(a.shape), allowed
        other, model = first.setdefault(which, (key, a))
        if a.ndim != model.ndim or (a.ndim == 3 and a.shape[2] != model.shape[2]):
            allowed = f"the kind and width of {other}, {describe_shape(model.shape)}"
            yield key, describe_shape(a.shape), allowed


def _not_finite(a: NDArray[np.generic]) -> str | None:
    """See not_finite. One number that stands for all (npz._heads) is looked at once: a copy
    would need the memory of all."""
    if not any(a.strides):
        a = a[(slice(1),) * a.ndim]
    return not_finite(np.asarray(a, np.float64))


def needs(arrays: Arrays) -> Needs:
    """What a network must have for arrays without problems (but for their values)."""
    x, y = arrays["train_x"], arrays["train_y"]
    if y.ndim == 3:
        return Needs("mse", x.shape[2], y.shape[2])
    classes = max(int(arrays[f"{split}_y"].max()) for split in SPLITS) + 1
    return Needs("cross_entropy", x.shape[2], max(2, classes), at_least=True)


def content_hash(arrays: Arrays) -> str:
    """SHA-256 (hex) of the six arrays."""
    digest = hashlib.sha256()
    for key in KEYS:
        a = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {a.dtype.str} {a.shape} ".encode())
        digest.update(a.tobytes())
    return digest.hexdigest()


def task(name: str, arrays: Arrays, settle: int) -> Task | SeriesTask:
    """Of arrays without problems."""
    content = content_hash(arrays)
    if arrays["train_y"].ndim == 1:
        samples = (
            Split(arrays[f"{s}_x"].astype(np.float32), arrays[f"{s}_y"].astype(np.int64))
            for s in SPLITS
        )
        train, validation, test = samples
        return Task(name, train, validation, test, content=content)
    first, second, third = (
        Series(arrays[f"{s}_x"].astype(np.float64), arrays[f"{s}_y"].astype(np.float64))
        for s in SPLITS
    )
    return SeriesTask(name, first, second, third, settle=settle, content=content)
