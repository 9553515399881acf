"""Digits: 1797 written digits of 8 x 8 pixels, all 64 at once, in ten classes.

The set that scikit-learn brings along (a copy of the test set of the UCI "Optical
Recognition of Handwritten Digits"); nothing is downloaded. Each image is shown without
change for some steps: a task for networks of instantaneous neurons, Latent Equilibrium.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hwgle.errors import UsageError
from hwgle.tasks import Split, Task
from hwgle.tasks.settings import Count, Needs, Progress, Seed, TaskSettings
from hwgle.yamlfile import Rule, number

SAMPLES = 1797
PIXELS = 64
CLASSES = 10
EXTRA = "scikit-learn, which brings the images: pip install 'hwgle[digits]'"


class Settings(TaskSettings):
    """seed: of the draw of the test samples; validation_seed: of validation and training
    samples from the rest; steps: for which each image is shown."""

    COUNTED: ClassVar[str | None] = "train"
    NEEDS: ClassVar[Needs | None] = Needs("cross_entropy", PIXELS, CLASSES)

    name: Literal["digits"]
    seed: Seed
    validation_seed: Seed
    train: Count = 1197
    test: Count = 300
    steps: Count = 8

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """There are so many samples and no more."""
        train, test = number(data.get("train")), number(data.get("test"))
        if train is not None and test is not None and train + 2 * test > SAMPLES:
            found = f"{train:g} with test {test:g}"
            yield Rule(("train",), found, f"train + 2 test at most {SAMPLES}")

    def check(self, base: Path) -> Iterator[Rule]:
        """Whether the optional package is there."""
        if find_spec("sklearn") is None:
            yield Rule(("name",), "digits without scikit-learn", EXTRA)

    def load(self, base: Path, progress: Progress | None = None) -> Task:
        """See TaskSettings."""
        return load(self.seed, self.validation_seed, self.train, self.test, self.steps)


def load(
    seed: int, validation_seed: int, train: int = 1197, test: int = 300, steps: int = 8
) -> Task:
    """The digits, dealt out at random.

    Args:
        seed: of the draw of the test samples.
        validation_seed: of the draw of validation and training samples from the rest.
        train: samples to learn from.
        test: samples in each of test and validation.
        steps: for which each image is shown.

    Returns:
        The task; inputs of shape (samples, steps, 64) in -1..1.

    Raises:
        UsageError: sizes that the set does not have, or scikit-learn is missing.
    """
    if min(train, test, steps) < 1 or train + 2 * test > SAMPLES:
        raise UsageError(
            f"digits: train {train}, test {test}, steps {steps}: at least 1 each, and "
            f"train + 2 test at most {SAMPLES}"
        )
    if min(seed, validation_seed) < 0:
        raise UsageError(f"digits: seeds {seed} and {validation_seed} must not be negative")
    pixels, classes = _read()
    order = np.random.Generator(np.random.PCG64(seed)).permutation(SAMPLES)
    tested, rest = order[:test], np.sort(order[test:])
    rest = np.random.Generator(np.random.PCG64(validation_seed)).permutation(rest)

    def split(which: NDArray[np.int64]) -> Split:
        x = (pixels[which] / 8.0 - 1.0).astype(np.float32)
        return Split(np.repeat(x[:, None], steps, axis=1), classes[which])

    return Task("digits", split(rest[test : test + train]), split(rest[:test]), split(tested))


def _read() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels 0..16 (1797, 64) and classes (1797,)."""
    try:
        # An optional package, and one that takes a second to import.
        datasets = import_module("sklearn.datasets")
    except ImportError as error:
        raise UsageError(
            f"digits: the images come with scikit-learn ({error}): pip install 'hwgle[digits]'"
        ) from None
    data = datasets.load_digits()
    return np.asarray(data.data, np.float64), np.asarray(data.target, np.int64)
