"""Digits: 1797 written digits of 8 x 8 pixels, all 64 at once, in ten classes.

The set that scikit-learn brings along (a copy of the test set of the UCI "Optical
Recognition of Handwritten Digits"); nothing is downloaded. Each image is shown without
change for some steps: a task for networks of instantaneous neurons, Latent Equilibrium.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from hwgle.errors import UsageError
from hwgle.tasks import Split, Task

SAMPLES = 1797
PIXELS = 64


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
            f"digits: the images come with scikit-learn ({error}): pip install scikit-learn"
        ) from None
    data = datasets.load_digits()
    return np.asarray(data.data, np.float64), np.asarray(data.target, np.int64)
