"""Adam on the host, chip in the loop: the gradient is read out at every step, summed over
the batch; the host keeps float32 weights and writes back what the array can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Done, Pending, Records
from hwgle.devices.emulator import AdamState, Emulator
from hwgle.errors import UsageError
from hwgle.experiment import Training
from hwgle.learning.host_adam import HostAdam
from hwgle.learning.rule import Arrays, check_batch
from hwgle.network import Network
from hwgle.quantise import Image, quantise_weights, round_half_up, weight_shift
from hwgle.session import weights_from
from hwgle.weights import Weights, shapes


class Learner:
    """Kingma and Ba, arXiv 1412.6980, at every time step as in the GLE paper.

    With `average` epochs in the experiment the host also keeps a running average of its
    weights, with that time constant, and it is this average that is validated and kept:
    the weights of the moment carry the noise of the last samples.

    `weight_limit` holds the float weights, and feedback that follows them, within bounds.
    `weight_decay` shrinks weights, not biases, after each batch of samples: decoupled from
    Adam's means (Loshchilov and Hutter, arXiv 1711.05101). Kolen-Pollack feedback gets the
    updates and the decay of its weights; it takes no part in the average.
    """

    def __init__(self, training: Training | None = None, batches: int = 0) -> None:
        self._window = training.average * batches if training is not None else 0.0
        self._layer_rate = training.layer_rate if training is not None else 1.0
        self._decay = training.weight_decay if training is not None else 0.0
        self._limit = training.weight_limit if training is not None else None
        self._tau_floor = training.tau_floor if training is not None else 0.0
        self._tau_rate = training.tau_rate if training is not None else 1.0
        self._betas = (training.beta1, training.beta2) if training is not None else (0.9, 0.999)

    def check(self, device: Device, batch: int) -> None:
        """See Rule; the gradient must come back after every step."""
        check_batch(device, batch)
        if not device.limits.gradient:
            raise UsageError("rule adam reads a gradient at every step; this body keeps none")

    def begin(self, device: Device, image: Image, batch: int, weights: Weights) -> None:
        """See Rule. Raises DeviceRefused where the gradient does not fit beside the rest."""
        self.check(device, batch)
        self._device = device
        device.load(image, batch, gradient=True, uhat=False)
        device.write_weights(quantise_weights(image, weights, stored=False))
        self._adam = AdamState.of(image, weights, 0.0, self._tau_floor)
        self._adam.tau_rate = self._tau_rate
        self._adam.beta1, self._adam.beta2 = self._betas
        depth = np.arange(len(image.network.layers))[::-1]
        self._adam.layer_rate = (self._layer_rate**depth).astype(np.float32)
        if self._limit is not None:
            inputs = [image.network.fan_in(k) for k in range(len(depth))]
            limits = self._limit / np.sqrt(inputs)
            self._adam.weight_limit = limits.astype(np.float32)
        self._image = image
        self._weights = weights
        self._host = HostAdam(device, image, batch, self._adam)
        self._average = self._adam.weight.astype(np.float64)
        self._samples = 0
        self._steps = 0  # of the batch of samples that is shown
        self._shrinks = shrinking(image.network)

    def set_rate(self, rate: float) -> None:
        """See Rule."""
        self._adam.rate = rate

    def submit(self, block: Block) -> Pending:
        """See Rule; each step needs the update of the one before: done when this returns."""
        return Done(self.run(block))

    def run(self, block: Block) -> Records:
        """See Rule."""
        self._steps += len(block.input)
        if isinstance(self._device, Emulator):
            return self._device.run(block, adam=self._adam)
        return self._host.run(block)

    def sample_done(self) -> None:
        """See Rule."""
        self._samples += 1
        if self._decay:
            lost = self._decay * self._adam.rate * self._steps
            self._adam.weight[self._shrinks] *= np.float32(1.0 - lost)
            if self._adam.feedback is not None:
                self._adam.feedback *= np.float32(1.0 - lost)
        self._steps = 0
        share = 1.0 / min(max(self._window, 1.0), self._samples)
        self._average += (self._adam.weight - self._average) * share

    def weights(self) -> Weights | None:
        """See Rule; in steps that the array can tell apart, with the time constants learned."""
        image, device = self._image, self._device
        averaged = self._window != 0
        if not averaged and self._adam.tau_r.size == 0:
            return None
        formats = device.formats()
        result: Weights = dict(self._weights)
        if not averaged:
            result |= weights_from(image, device.read_weights(), formats)
        values = self._average if averaged else self._adam.weight.astype(np.float64)
        at = 0
        for layer, s, f in zip(image.network.layers, image.scales.layers, formats, strict=True):
            seen = f.stored - weight_shift(image.chip) + s.weights() - s.weight
            kinds = [("weight", seen), ("bias", np.int64(f.membrane))] if layer.learn else []
            for kind, frac in kinds:
                shape = self._weights[f"{layer.name}.{kind}"].shape
                size = int(np.prod(shape))
                if averaged:
                    steps = round_half_up(np.ldexp(values[at : at + size].reshape(shape), frac))
                    result[f"{layer.name}.{kind}"] = np.ldexp(steps, -frac)
                at += size
            if layer.learn_tau_m:
                result[f"{layer.name}.tau_m"] = values[at : at + layer.size].copy()
                at += layer.size
        return result

    def state(self) -> Arrays:
        """See Rule."""
        a = self._adam
        more: Arrays = {} if a.feedback is None else {"adam.feedback": a.feedback}
        return more | {
            "adam.weight": a.weight,
            "adam.m": a.m,
            "adam.v": a.v,
            "adam.powers": np.array([a.beta1_power, a.beta2_power]),
            "adam.clipped": np.array(a.clipped),
            "adam.average": self._average,
            "adam.samples": np.array(self._samples),
            "adam.steps": np.array(self._steps),
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See Rule."""
        a = self._adam
        for name in ("weight", "m", "v") + (("feedback",) if a.feedback is not None else ()):
            getattr(a, name)[:] = state[f"adam.{name}"]
        a.beta1_power, a.beta2_power = (float(p) for p in state["adam.powers"])
        a.clipped = int(state["adam.clipped"])
        self._average = np.array(state["adam.average"], dtype=np.float64)
        self._samples = int(state["adam.samples"])
        self._steps = int(state["adam.steps"])


def shrinking(network: Network) -> NDArray[np.bool_]:
    """Which of Adam's parameters a decay takes from: weights, neither biases nor tau_m."""
    parts = [np.zeros(0, dtype=np.bool_)]
    for layer in network.layers:
        if layer.learn:
            parts.append(np.ones(math.prod(shapes(network)[f"{layer.name}.weight"]), np.bool_))
            parts.append(np.zeros(layer.size, np.bool_))
        if layer.learn_tau_m:
            parts.append(np.zeros(layer.size, np.bool_))
    return np.concatenate(parts)
