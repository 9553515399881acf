"""Which samples an epoch shows: evenly, or more often those that were voted wrong or nearly so.

The target error of a step knows nothing of the vote that decides in the end: a sample whose
class is beyond doubt pulls at the weights as much as one that is missed. Showing the missed
ones more often shifts what is learned towards the vote, and asks nothing of the chip. As
importance sampling goes by the size of gradients (Katharopoulos and Fleuret, arXiv 1803.00942),
this goes by the margin of the vote.

The margin of a sample is its class's vote less the largest other one, when it was last shown;
its difficulty is 1/2 less its margin in units of the median margin, from 0 to 1, and 1 as long
as it has not been shown. An epoch shows a sample (1 - share) + share * difficulty times, in
units that leave to each class as many as the data have.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.learning.order import balanced_order
from hwgle.learning.rule import Arrays

UNSEEN = np.iinfo(np.int64).min


class Focus:
    """Margins of N samples, of the epochs before and of the one under way.

    labels: (N,); share: from 0 (evenly) to less than 1: what is never shown is never judged anew.
    """

    def __init__(self, labels: NDArray[np.integer], share: float) -> None:
        self._labels, self._share = labels, share
        self._before = np.full(len(labels), UNSEEN)
        self._now = self._before.copy()

    def order(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Samples of an epoch in their order (N,), and for each the number of times (N,) that
        such a one is shown on average."""
        if self._share == 0:
            order = balanced_order(self._labels, rng)
            return order, np.ones(len(order))
        drawn, times = [], np.empty(len(self._labels))
        weights = (1 - self._share) + self._share * self._difficulty()
        for label in np.unique(self._labels):
            members = rng.permutation(np.flatnonzero(self._labels == label))
            own = weights[members]
            times[members] = own * (len(members) / own.sum())
            ends = np.cumsum(times[members])
            # Each as often as it should be, but for less than once: no luck in between.
            at = np.searchsorted(ends, rng.random() + np.arange(len(members)), side="right")
            drawn.append(members[np.minimum(at, len(members) - 1)])  # ends are rounded sums
        which = np.concatenate(drawn)
        order = which[balanced_order(self._labels[which], rng)]
        return order, times[order]

    def note(self, which: NDArray[np.int64], votes: NDArray[np.int64]) -> None:
        """What samples (B,) were voted: (B, classes)."""
        rows = np.arange(len(which))
        own = votes[rows, self._labels[which]]
        others = votes.copy()
        others[rows, self._labels[which]] = UNSEEN // 2  # so that a single class has a margin too
        self._now[which] = own - others.max(axis=1)

    def epoch_done(self) -> None:
        """The epoch under way has ended."""
        self._before = self._now.copy()

    def state(self) -> Arrays:
        """For a checkpoint; nothing where samples are shown evenly."""
        return {} if self._share == 0 else {"margins": np.stack([self._before, self._now])}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up what `state` returned."""
        if self._share != 0:
            self._before, self._now = state["margins"].astype(np.int64)

    def _difficulty(self) -> NDArray[np.float64]:
        seen = self._before != UNSEEN
        margins = self._before[seen]
        unit = float(np.median(margins)) if seen.any() else 0.0
        difficulty = np.ones(len(seen))
        if unit > 0:  # else most are voted wrong: all are difficult
            difficulty[seen] = np.clip(0.5 - margins / unit, 0.0, 1.0)
        return difficulty
