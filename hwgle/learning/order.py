"""In which order an epoch presents its samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced_order(labels: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order in which every stretch holds the classes in the data's proportions.

    labels: (N,); returns a permutation of 0..N-1. Online learning follows whatever its
    streams show just now: with batches of plainly shuffled samples the outputs' offsets
    wander with the accidental class counts of each batch.
    """
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(position, kind="stable")
