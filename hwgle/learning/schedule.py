"""Learning rates over time, as an experiment's `schedule` says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwgle.experiment import Constant, Cosine, Exponential, Halving, Plateau, Training


@dataclass
class PlateauState:
    """What a plateau schedule has seen: times it was reduced, and the best score."""

    reductions: int = 0
    best: float = -math.inf
    waited: int = 0

    def look(self, score: float, plateau: Plateau) -> None:
        """Take in the validation score of an epoch (higher is better)."""
        if score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > plateau.patience:
            self.reductions, self.waited = self.reductions + 1, 0


def rate_at(training: Training, done: float, plateau: PlateauState) -> float:
    """What the host sets when a share `done` in 0..1 of all batches is behind."""
    start = training.learning_rate
    match training.schedule:
        case Constant() | Halving():  # the chip halves it by itself
            return start
        case Cosine(final=final):
            return final + (start - final) * 0.5 * (1.0 + math.cos(math.pi * done))
        case Exponential(final=final):
            return start * float((final / start) ** done)
        case Plateau(factor=factor, final=final):
            return max(final, start * float(factor**plateau.reductions))


def rate_on_chip(training: Training, rate: float, steps: int) -> float:
    """What the chip has made of the rate that was set, after so many learning steps."""
    if not isinstance(training.schedule, Halving):
        return rate
    rule = training.on_chip()
    return math.ldexp(rate, -min(rule.rate_rises, steps // rule.rate_every))
