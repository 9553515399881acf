"""Momentum over a running mean of the gradient's size on the chip, csrc/rule_normalised.c.

What Adam becomes where a chip can only shift. Five bytes a weight beside it: an accumulator
and the mean as a logarithm.
"""

from __future__ import annotations

from hwgle.learning.onchip import OnChipLearner


class Learner(OnChipLearner):
    """A rate is about the size of a step, in units of the weight."""
