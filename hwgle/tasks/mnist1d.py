"""MNIST-1D at full length: ten drawn digits, each a signal of 360 values.

The generator is that of the `mnist1d` package with its standard parameters
(padding 36 to 60, scale 0.4, translation up to 48, iid noise 0.02, correlated
noise 0.25, shear 0.75) and 360 instead of 40 values. One data set of `train` +
`test` samples is normalised as a whole to mean 0 and standard deviation 1, then
split; its classes are balanced before the split only.
"""

from __future__ import annotations

import random
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hwgle import cache
from hwgle.errors import UsageError
from hwgle.tasks import Split, Task
from hwgle.tasks.settings import Count, Needs, Progress, TaskSettings, other_seed
from hwgle.yamlfile import Rule, number

STEPS = 360
CLASSES = 10

# Changes with whatever changes the stored data for the same parameters.
_STORE_FORMAT = 1

# The generator draws from the global random states; one at a time.
_GENERATING = threading.Lock()


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what NumPy's old generator takes


class Settings(TaskSettings):
    """Samples drawn from `seed`, those for validation from `validation_seed`."""

    COUNTED: ClassVar[str | None] = "train"
    NEEDS: ClassVar[Needs | None] = Needs("cross_entropy", 1, CLASSES)

    name: Literal["mnist1d"]
    seed: Seed
    validation_seed: Seed
    train: Count = 4000
    test: Count = 1000

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """Seeds differ, and the samples are a multiple of the classes."""
        yield from other_seed(data)
        train, test = number(data.get("train")), number(data.get("test"))
        if train is not None and test is not None and (train + test) % CLASSES:
            found = f"{train:g} with test {test:g}"
            yield Rule(("train",), found, f"train + test a multiple of {CLASSES}")

    def load(self, base: Path, progress: Progress | None = None) -> Task:
        """See TaskSettings."""
        return load(self.seed, self.validation_seed, self.train, self.test)


def load(seed: int, validation_seed: int, train: int = 4000, test: int = 1000) -> Task:
    """MNIST-1D, from the cache or generated (some seconds per seed).

    Args:
        seed: of the data set whose first `train` samples are to learn from and
            whose last `test` samples are to test with; 0 <= seed < 2**32.
        validation_seed: of a second data set of the same size, whose last
            `test` samples are for validation. The test set is thereby the one
            others report, and no choice is made on it.
        train: samples to learn from.
        test: samples in each of test and validation; `train` + `test` must be a
            multiple of the 10 classes.

    Returns:
        The task; inputs of shape (samples, 360, 1).

    Raises:
        UsageError: a size or a seed is out of range, or both seeds are equal
            (validation and test would be the same samples).
    """
    if train < 1 or test < 1 or (train + test) % CLASSES:
        raise UsageError(
            f"mnist1d: train {train} and test {test} must be positive and add up to "
            f"a multiple of {CLASSES}"
        )
    for name, value in (("seed", seed), ("validation_seed", validation_seed)):
        if not 0 <= value < 2**32:
            raise UsageError(f"mnist1d: {name} {value} is not in 0..2**32 - 1")
    if seed == validation_seed:
        raise UsageError(
            f"mnist1d: seed and validation_seed are both {seed}; validation would be the test set"
        )
    samples = _samples(seed, train + test)
    other = _samples(validation_seed, train + test)
    return Task(
        name="mnist1d",
        train=Split(samples.x[:train], samples.y[:train]),
        validation=Split(other.x[train:], other.y[train:]),
        test=Split(samples.x[train:], samples.y[train:]),
    )


def _samples(seed: int, count: int) -> Split:
    """The whole data set of a seed: from the cache if it is there and sound."""
    try:
        path = _path(seed, count)
    except OSError as error:
        warnings.warn(f"mnist1d: not cached: {error}", stacklevel=3)
        return _generate(seed, count)
    stored = _read(path, count)
    if stored is not None:
        return stored
    samples = _generate(seed, count)
    try:
        with cache.replacing(path) as temporary:
            np.savez(temporary, x=samples.x, y=samples.y)
    except OSError as error:
        warnings.warn(f"mnist1d: not cached: {error}", stacklevel=3)
    return samples


def _path(seed: int, count: int) -> Path:
    """The cache file: named after all that the data depend on."""
    generator = version("mnist1d")
    name = f"mnist1d-{generator}-f{_STORE_FORMAT}-{STEPS}x{count}-seed{seed}.npz"
    return cache.directory() / "tasks" / name


def _read(path: Path, count: int) -> Split | None:
    """What is stored at `path`; None if there is nothing or it is damaged.

    The members of the archive carry a CRC, so damage to the data is found too.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            x, y = archive["x"], archive["y"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    whole = x.shape == (count, STEPS, 1) and y.shape == (count,)
    return Split(x, y) if whole and (x.dtype, y.dtype) == (np.float32, np.int64) else None


def _generate(seed: int, count: int) -> Split:
    """Draw `count` samples; the global random states are left as they were."""
    # Imported late: it brings SciPy and pyplot along, 1 to 2 s. It opens no
    # window and asks no network; its own pickle files are not used.
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = count
    arguments.final_seq_length = STEPS
    arguments.seed = seed
    with _GENERATING:
        # make_dataset seeds and uses the generators of `random` and of NumPy.
        python_state = random.getstate()
        numpy_state = np.random.get_state()  # noqa: NPY002
        try:
            data = make_dataset(arguments)
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
    # Its own split rounds down; undone here and done exactly by the caller.
    x = np.concatenate([data["x"], data["x_test"]]).astype(np.float32)
    y = np.concatenate([data["y"], data["y_test"]]).astype(np.int64)
    return Split(x[:, :, np.newaxis], y)
