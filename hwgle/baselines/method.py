"""What a method of credit assignment is to the loop in `online`. A method is one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, Copies


class Method(Protocol):
    """Directions of ascent for all parameters, from what a network does step by step.

    Attributes:
        in_network: the errors live in the network: it is stepped with targets, and a target
            is compared with the rates of the step before, as between any two layers.
    """

    in_network: bool

    def begin(self, net: Copies) -> None:
        """Forget everything and serve this network from here on."""
        ...

    def after_step(self, net: Copies, target: NDArray[np.generic]) -> Array | None:
        """The direction (C, P) after a step, None where this step gives none.

        Args:
            target: for the rates at the end of this step, as in `Copies.step`.
        """
        ...

    def state(self) -> dict[str, Array]:
        """What it remembers, for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up what `state` returned, after `begin`."""
        ...


class Memoryless:
    """A method that remembers nothing from step to step."""

    def begin(self, net: Copies) -> None:
        """See Method."""

    def state(self) -> dict[str, Array]:
        """See Method."""
        return {}

    def restore(self, state: Mapping[str, Array]) -> None:
        """See Method."""
