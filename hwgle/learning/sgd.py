"""SGD on the chip: dW = 2**-shift * sum over the batch, csrc/rule_sgd.c.

Plain, it needs no memory beside the weights; with momentum or gradients that are summed over
steps, four bytes a weight.
"""

from __future__ import annotations

from hwgle.learning.onchip import OnChipLearner


class Learner(OnChipLearner):
    """The first local rule; the rate is on the mean over the batch."""
