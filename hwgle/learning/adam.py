"""Adam on the host, chip in the loop: the gradient is read out at every step, summed over
the batch; the host keeps float32 weights and writes back what the array can hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Records
from hwgle.devices.emulator import AdamState, Emulator
from hwgle.errors import UsageError
from hwgle.learning.rule import Arrays
from hwgle.quantise import Image, quantise_weights
from hwgle.weights import Weights


class Learner:
    """Kingma and Ba, arXiv 1412.6980, at every time step as in the GLE paper."""

    def begin(self, device: Device, image: Image, batch: int, weights: Weights) -> None:
        """See Rule. Raises UsageError on a body that cannot be read out at every step."""
        if not isinstance(device, Emulator):
            raise UsageError("rule adam reads a gradient at every step; it needs device emu:")
        self._device = device
        device.load(image, batch, gradient=True, uhat=False)
        device.write_weights(quantise_weights(image, weights, stored=False))
        self._adam = AdamState.of(image, weights, 0.0)

    def set_rate(self, rate: float) -> None:
        """See Rule."""
        self._adam.rate = rate

    def run(self, block: Block) -> Records:
        """See Rule."""
        return self._device.run(block, adam=self._adam)

    def state(self) -> Arrays:
        """See Rule."""
        a = self._adam
        return {
            "adam.weight": a.weight,
            "adam.m": a.m,
            "adam.v": a.v,
            "adam.powers": np.array([a.beta1_power, a.beta2_power]),
            "adam.clipped": np.array(a.clipped),
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Rule."""
        a = self._adam
        for name in ("weight", "m", "v"):
            getattr(a, name)[:] = state[f"adam.{name}"]
        a.beta1_power, a.beta2_power = (float(p) for p in state["adam.powers"])
        a.clipped = int(state["adam.clipped"])
