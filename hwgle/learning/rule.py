"""What a learning rule is to the trainer. A rule is a file that defines one of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Pending, Records
from hwgle.errors import UsageError
from hwgle.experiment import Training
from hwgle.quantise import Image
from hwgle.weights import Weights

Arrays = dict[str, NDArray[np.generic]]


class Rule(Protocol):
    """Learns on a device, block by block."""

    def check(self, device: Device, batch: int) -> None:
        """Raises UsageError, with need against have, where a body cannot do this."""
        ...

    def begin(self, device: Device, image: Image, batch: int, weights: Weights) -> None:
        """Load the image and the first weights."""
        ...

    def set_rate(self, rate: float) -> None:
        """Learning rate from now on, per step, on the mean over the batch."""
        ...

    def submit(self, block: Block) -> Pending:
        """Start a block, learning after every step; several may be under way."""
        ...

    def run(self, block: Block) -> Records:
        """Run a block, learning after every step."""
        ...

    def sample_done(self) -> None:
        """A batch of samples has been shown to its end."""
        ...

    def weights(self) -> Weights | None:
        """The weights to validate and keep; None: those that the device holds."""
        ...

    def state(self) -> Arrays:
        """What the host keeps beside the device's snapshot."""
        ...

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up what `state` returned."""
        ...


def check_batch(device: Device, batch: int) -> None:
    """Raises UsageError when a body does not take so many streams at once."""
    most = device.limits.max_batch
    if batch > most:
        raise UsageError(
            f"training.batch is {batch}; this body takes at most {most} "
            f"stream{'s' if most != 1 else ''} at once: set batch: {most} in the experiment "
            "(and a learning rate for it), or train on emu:"
        )


# name in an experiment -> module with a class Learner
RULES: dict[str, str] = {
    name: f"hwgle.learning.{name}" for name in ("adam", "normalised", "sgd", "sign")
}


def make_rule(training: Training, batches: int) -> Rule:
    """The rule that a training names; `batches`: of an epoch."""
    make: Callable[[Training, int], Rule] = import_module(RULES[training.rule]).Learner
    return make(training, batches)
