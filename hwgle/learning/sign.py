"""Momentum and its sign on the chip: each weight moves by the rate, csrc/rule_sign.c.

Four bytes a weight beside it. Steps below the LSB of the stored weight need stochastic
rounding: to nearest, they are never taken.
"""

from __future__ import annotations

from hwgle.learning.onchip import OnChipLearner


class Learner(OnChipLearner):
    """A rate is the size of a step, in units of the weight."""
