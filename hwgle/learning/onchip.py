"""What all rules that run on the chip have in common: the host loads, sets the rate and waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Pending, Records
from hwgle.experiment import Training
from hwgle.learning.rule import Arrays, check_batch
from hwgle.quantise import Image, quantise_weights
from hwgle.weights import Weights


class OnChipLearner:
    """A rule of csrc/rule_*.c; the rounding is the chip's plasticity. All that it remembers is
    state of the chip, in its snapshot; the image says which rule it is."""

    def __init__(self, training: Training, batches: int) -> None:
        del batches
        self.on_chip = training.on_chip()

    def check(self, device: Device, batch: int) -> None:
        """See Rule."""
        check_batch(device, batch)

    def begin(self, device: Device, image: Image, batch: int, weights: Weights) -> None:
        """See Rule. Raises DeviceRefused where what it remembers does not fit."""
        assert image.learner == self.on_chip
        self._device = device
        self._batch = batch
        device.load(image, batch, uhat=False)
        device.write_weights(quantise_weights(image, weights))

    def set_rate(self, rate: float) -> None:
        """See Rule; the chip takes the nearest power of two."""
        self._device.set_rate(self.on_chip.rate_shift(rate, self._batch))

    def submit(self, block: Block) -> Pending:
        """See Rule."""
        return self._device.submit(replace(block, learn=True))

    def run(self, block: Block) -> Records:
        """See Rule."""
        return self.submit(block).result()

    def sample_done(self) -> None:
        """See Rule."""

    def weights(self) -> Weights | None:
        """See Rule."""
        return None

    def state(self) -> Arrays:
        """See Rule."""
        return {}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Rule."""
