"""Adam on the host for a body that only lends its gradient: float32, bit for bit what
csrc/host/adam.c does inside the emulator.

After each step the gradient comes over the wire and the weights go back: slow, and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwgle import packing, topology
from hwgle._core import lib
from hwgle.device import Block, Device, Formats, Gradient, Records
from hwgle.devices.answers import joined
from hwgle.devices.emulator import AdamState
from hwgle.quantise import HEAD, LAYER, STATE_MAX, Image, Quantised, weight_shift
from hwgle.snapshot import pieces

ONE = np.float32(1)
HALF = np.float32(0.5)
NO_LIMIT = np.float32(np.inf)


class HostAdam:
    """Adam at every time step on a body's gradient."""

    def __init__(self, device: Device, image: Image, batch: int, state: AdamState) -> None:
        self._device, self._image, self._batch, self._state = device, image, batch, state

    def run(self, block: Block) -> Records:
        """Run a block step by step, each followed by its update."""
        per_step = self._image.network.loss == "mse"
        parts = []
        for t in range(block.input.shape[0]):
            one = slice(t, t + 1)
            target = block.target
            if target is not None and per_step:
                target = target[one]
            self._device.clear_gradient()
            step = replace(block, input=block.input[one], target=target, gradient=True)
            pending = self._device.submit(step)
            gradient = self._device.read_gradient()
            formats = self._device.formats()
            parts.append(pending.result())
            self._update(gradient, formats)
        return joined(parts)

    def _update(self, gradient: Sequence[Gradient], formats: Sequence[Formats]) -> None:
        a = self._state
        a.beta1_power *= float(np.float32(a.beta1))
        a.beta2_power *= float(np.float32(a.beta2))
        rate = np.float32(float(np.float32(a.rate)) / (1.0 - a.beta1_power))
        root = np.float32(1.0 / np.sqrt(1.0 - a.beta2_power))
        written: Quantised = {}
        times: dict[str, NDArray[np.uint32]] = {}
        clipped = [0] * len(formats)
        network = self._image.network
        at = of_times = behind = 0
        for k, (layer, g, f) in enumerate(
            zip(self._image.network.layers, gradient, formats, strict=True)
        ):
            own = rate if a.layer_rate is None else rate * a.layer_rate[k]
            share = np.float32(self._batch)
            if layer.learn:
                part = slice(at, at + g.weight.size)
                unit = np.float32(2.0**-g.frac) / share
                limit = NO_LIMIT if a.weight_limit is None else a.weight_limit[k]
                update = self._values(part, g.weight.ravel(), unit, own, root, limit)
                w, clipped[k] = self._stored(a.weight[part].reshape(g.weight.shape), k, f)
                if a.feedback is not None and topology.feedback_shape(network, k) is not None:
                    back = a.feedback[behind : behind + update.size]
                    back[:] = np.clip(back + update, -limit, limit)
                    behind += update.size
                    stored, more = self._stored(back.reshape(g.weight.shape), k, f, rows=False)
                    clipped[k] += more
                    written[f"{layer.name}.feedback"] = stored, np.zeros(0, dtype=np.int32)
                part = slice(part.stop, part.stop + g.bias.size)
                if layer.bias:
                    self._values(part, g.bias, np.float32(2.0**-g.bias_frac) / share, own, root)
                b = np.floor(a.weight[part] * np.float32(2.0**f.membrane) + HALF).astype(np.int64)
                at = part.stop
                biases = np.clip(b, -STATE_MAX, STATE_MAX).astype(np.int32)
                written[layer.name] = w, biases
            if layer.learn_tau_m:
                part, those = slice(at, at + layer.size), slice(of_times, of_times + layer.size)
                frac = g.bias_frac + f.membrane - lib.GLE_TAU_DROP
                unit = np.float32(-(2.0**-frac)) / (share * np.float32(a.dt))
                self._values(part, g.tau, unit, own * np.float32(a.tau_rate), root)
                a.weight[part] = np.clip(a.weight[part], a.tau_least[those], a.tau_most[those])
                leak_v = leaks(self._image, k)
                times[layer.name] = packing.times(a.dt, a.weight[part], a.tau_r[those], leak_v)
                at, of_times = part.stop, those.stop
        self._device.write_weights(written)
        if times:
            self._device.write_times(times)
        if any(clipped):
            a.clipped += sum(clipped)
            note_clipped(self._device, self._image, self._batch, clipped)

    def _values(
        self,
        part: slice,
        gradient: NDArray[np.int32],
        unit: np.float32,
        rate: np.float32,
        root: np.float32,
        limit: np.float32 = NO_LIMIT,
    ) -> NDArray[np.float32]:
        a = self._state
        beta1, beta2 = np.float32(a.beta1), np.float32(a.beta2)
        g = gradient.astype(np.float32) * unit
        m = beta1 * a.m[part] + (ONE - beta1) * g
        v = beta2 * a.v[part] + (ONE - beta2) * (g * g)
        a.m[part], a.v[part] = m, v
        update: NDArray[np.float32] = rate * m / (np.sqrt(v) * root + np.float32(a.epsilon))
        a.weight[part] = np.clip(a.weight[part] + update, -limit, limit)
        return update

    def _stored(
        self, w: NDArray[np.float32], layer: int, f: Formats, rows: bool = True
    ) -> tuple[NDArray[np.int16], int]:
        """Nearest values that the array can tell apart, (n, m), and how many clipped."""
        shift = weight_shift(self._image.chip)
        limit = np.float32(self._image.chip.stored_max >> shift)
        s = self._image.scales.layers[layer]
        finer = s.weights() - s.weight if rows else np.int64(0)
        scale = np.ldexp(np.float32(1), f.stored - shift + finer)
        x = np.floor(w * scale + HALF)
        clipped = int(np.count_nonzero(np.abs(x) > limit))
        kept = np.clip(x, -limit, limit).astype(np.int32) * (1 << shift)
        return kept.astype(np.int16), clipped


def leaks(image: Image, layer: int) -> NDArray[np.uint32]:
    """dt/tau_r (n,) of a layer's neurons, as the image has them."""
    sizes = image.network.sizes
    first = HEAD + LAYER * len(sizes) + 4 * sum(sizes[:layer])
    return image.words[first + 2 : first + 4 * sizes[layer] : 4]


def note_clipped(device: Device, image: Image, batch: int, clipped: Sequence[int]) -> None:
    """Count weights that the host clipped, as the chip counts its own: auto-ranging makes
    the scale of a layer coarser whose weights clip."""
    state = bytearray(device.snapshot())
    for piece in pieces(image.network, batch, image.learner):
        if piece.kind in ("counter", "window") and piece.layer is not None:
            numbers = np.frombuffer(state, piece.dtype, len(piece.names), piece.offset)
            numbers[piece.names.index("sat_w")] += clipped[piece.layer]
    device.restore(bytes(state))
