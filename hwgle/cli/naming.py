"""How a chip is called where people read it."""

from __future__ import annotations

from hwgle.chip import Chip
from hwgle.identity import identity_hash

DIGITS = 8


def chip_text(chip: Chip) -> str:
    """Name and seed; of a chip other than the ideal one the first digits of its identity too."""
    text = f"{chip.name}:{chip.seed}"
    if chip == Chip.load("ideal").model_copy(update={"seed": chip.seed}):
        return text
    return f"{text} (identity {identity_hash(chip)[:DIGITS]})"
