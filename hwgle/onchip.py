"""How a chip learns by itself: the words of an image that say so (csrc/learner.h), and what
they cost and mean.

    sgd         W += 2^-k * sum over the batch of e below^T
    normalised  W += 2^-k * momentum / running mean of |gradient|, a power of two
    sign        W += 2^-k * sign(momentum)

where momentum is a running mean of the gradient, or its sum over `apply_every` steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwgle._core import lib

RULES = {"sgd": lib.GLE_SGD, "normalised": lib.GLE_NORMALISED, "sign": lib.GLE_SIGN}
MOMENTUM_SHIFT = {"sgd": 0, "normalised": 3, "sign": 3}  # unless somebody says another
NORM_SHIFT = 10
MOMENTUM_SHIFTS = (0, 16)
NORM_SHIFTS = (4, 14)
MAX_APPLY_EVERY = 1 << 24
RATE = {"normalised": 2.0**-12, "sign": 2.0**-14}  # the chip's own for sgd
RATE_SHIFTS = (-32, 64)
MAX_RISES = 96


@dataclass(frozen=True)
class OnChip:
    """A rule and its parameters.

    momentum_shift: 2^-momentum_shift of the momentum is new in each application; 0: it is the
    gradient itself. norm_shift: the same of the running mean of |gradient|, 0 for rules that
    have none. apply_every: learning steps whose gradients are summed before they are applied.
    rate_every: learning steps after which the rate halves, 0 for never, rate_rises times at
    most.
    """

    rule: str = "sgd"
    momentum_shift: int = 0
    norm_shift: int = 0
    apply_every: int = 1
    rate_every: int = 0
    rate_rises: int = 0

    @classmethod
    def named(
        cls,
        rule: str,
        momentum_shift: int | None = None,
        norm_shift: int = NORM_SHIFT,
        apply_every: int = 1,
    ) -> OnChip:
        """A rule with its usual parameters where none are given."""
        momentum = MOMENTUM_SHIFT[rule] if momentum_shift is None else momentum_shift
        return cls(rule, momentum, norm_shift if rule == "normalised" else 0, apply_every)

    @classmethod
    def of_words(cls, words: Sequence[int]) -> OnChip:
        """The reverse of `words`, from an image."""
        word = words[21]
        names = {number: name for name, number in RULES.items()}
        return cls(
            names[word & 0xFF],
            word >> 8 & 0xFF,
            word >> 16 & 0xFF,
            max(1, words[22]),
            words[23],
            word >> 24,
        )

    def words(self) -> tuple[int, int, int]:
        """learner, apply_every and rate_every of gle_image."""
        word = RULES[self.rule] | self.momentum_shift << 8 | self.norm_shift << 16
        word |= self.rate_rises << 24
        return word, self.apply_every if self.apply_every > 1 else 0, self.rate_every

    @property
    def remembers(self) -> bool:
        """Whether each weight that learns has an accumulator (4 bytes)."""
        return self.rule != "sgd" or self.momentum_shift > 0 or self.apply_every > 1

    @property
    def normalises(self) -> bool:
        """Whether each has a running mean too (1 byte)."""
        return self.rule == "normalised"

    @property
    def counts(self) -> bool:
        """Whether the number of learning steps is a state of the chip."""
        return self.remembers or self.rate_every > 0

    def rate_shift(self, rate: float, batch: int) -> int:
        """The shift nearest to a learning rate; 64 (no learning at all) for 0.

        sgd's rate is on the mean over the batch, the gradient of the chip the sum; the
        others' is the size of a step in units of the weight.
        """
        if rate <= 0:
            return RATE_SHIFTS[1]
        shift = round(math.log2((batch if self.rule == "sgd" else 1) / rate))
        return min(RATE_SHIFTS[1], max(RATE_SHIFTS[0], shift))

    def applied_rate(self, rate: float, batch: int) -> float:
        """The learning rate that a chip uses which can only shift."""
        scale = batch if self.rule == "sgd" else 1
        return scale * 2.0 ** -self.rate_shift(rate, batch) if rate > 0 else 0.0


PLAIN = OnChip()
