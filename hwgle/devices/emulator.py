"""emu: the chip inside this process. Calls the core directly, many steps a call."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle._core import ffi, lib
from hwgle.device import SIGNALS, Block, Device, Formats, Records
from hwgle.errors import DeviceError, UsageError
from hwgle.quantise import Image, Quantised

SIGNAL_IDS = {name: k for k, name in enumerate(SIGNALS)}
COUNTERS = tuple(name for name, _ in ffi.typeof("gle_counters").fields)
CALL_SECONDS = 0.05  # of one call into the core, so that Ctrl-C is noticed in time


@dataclass
class AdamState:
    """Adam on the host: float32 weights and moments of all learning layers, flat.

    Order: layer by layer, weights row by row, then biases. Powers are beta**steps.
    layer_rate: (layers,) factors on the rate, None for 1 throughout.
    """

    weight: NDArray[np.float32]
    m: NDArray[np.float32]
    v: NDArray[np.float32]
    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    beta1_power: float = 1.0
    beta2_power: float = 1.0
    clipped: int = 0
    layer_rate: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, image: Image, weights: Mapping[str, ArrayLike], rate: float) -> AdamState:
        """Start from float weights (`<layer>.weight`, `<layer>.bias`)."""
        parts = [
            np.asarray(weights[f"{layer.name}.{kind}"], dtype=np.float32).ravel()
            for layer in image.network.layers
            if layer.learn
            for kind in ("weight", "bias")
        ]
        flat = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return cls(flat, np.zeros_like(flat), np.zeros_like(flat), rate)


def kernels_from_environment() -> Any:
    """The kernel table that HWGLE_SIMD names, or the fastest of this machine.

    Raises UsageError when the machine does not have the one asked for.
    """
    name = os.environ.get("HWGLE_SIMD", "")
    table = lib.gle_kernels_named(name.encode() if name else ffi.NULL)
    if table == ffi.NULL:
        raise UsageError(f"HWGLE_SIMD={name}: not on this machine; allowed: scalar, avx2, vnni")
    return table


class Emulator(Device):
    """The core in this process. `kernels` forces a table by name (scalar, avx2, vnni)."""

    def __init__(self, kernels: str | None = None) -> None:
        if kernels is None:
            self._kernels = kernels_from_environment()
        else:
            self._kernels = lib.gle_kernels_named(kernels.encode())
            if self._kernels == ffi.NULL:
                raise UsageError(f"kernels {kernels}: not on this machine")
        self._chip: Any = None
        self._step_seconds = CALL_SECONDS

    @property
    def kernels(self) -> str:
        """Name of the kernel table in use."""
        return str(ffi.string(lib.gle_kernels_name(self._kernels)).decode())

    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """See Device. gradient: keep room for the read-out; uhat: so that it can be recorded."""
        options = lib.GLE_WITH_GRADIENT * gradient | lib.GLE_WITH_UHAT * uhat
        words = ffi.from_buffer("uint32_t[]", image.words)
        need = ffi.new("size_t *")
        count = image.words.size
        self._check(lib.gle_arena_bytes(words, count, batch, options, need), "image")
        memory = np.zeros(need[0] + 64, dtype=np.uint8)
        offset = -memory.ctypes.data % 64
        arena = memory[offset : offset + need[0]]
        made = ffi.new("gle_chip **")
        status = lib.gle_open(
            ffi.from_buffer(arena), need[0], words, count, batch, options, self._kernels, made
        )
        self._check(status, "image")
        self._chip = made[0]
        self._keep = (memory, words, image)
        self._step_seconds = CALL_SECONDS  # one step first: how long they take is not known
        self.image = image
        self.batch = batch
        self.arena_bytes = int(need[0])
        self._sizes = [layer.size for layer in image.network.layers]

    def write_weights(self, weights: Quantised) -> None:
        """See Device."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name not in weights:
                continue
            w = np.ascontiguousarray(weights[layer.name][0], dtype=np.int16)
            b = np.ascontiguousarray(weights[layer.name][1], dtype=np.int32)
            if w.shape != self._shape(k) or b.shape != (layer.size,):
                raise UsageError(f"{layer.name}: weights {w.shape}, biases {b.shape} do not fit")
            to = ffi.from_buffer("int16_t[]", w)
            self._check(lib.gle_weights_write(self._chip, k, 0, w.size, to), layer.name)
            to = ffi.from_buffer("int32_t[]", b)
            self._check(lib.gle_bias_write(self._chip, k, 0, b.size, to), layer.name)

    def read_weights(self) -> Quantised:
        """See Device."""
        result: Quantised = {}
        for k, layer in enumerate(self.image.network.layers):
            w = np.empty(self._shape(k), dtype=np.int16)
            b = np.empty(layer.size, dtype=np.int32)
            lib.gle_weights_read(self._chip, k, 0, w.size, ffi.from_buffer("int16_t[]", w))
            lib.gle_bias_read(self._chip, k, 0, b.size, ffi.from_buffer("int32_t[]", b))
            result[layer.name] = (w, b)
        return result

    def reset(self) -> None:
        """See Device."""
        lib.gle_reset(self._chip)

    def run(self, block: Block, adam: AdamState | None = None) -> Records:
        """See Device. With `adam` the gradient is read out and applied after every step."""
        x = np.ascontiguousarray(block.input, dtype=np.int16)
        inputs = self.image.network.inputs
        if x.ndim != 3 or x.shape[1:] != (self.batch, inputs):
            raise UsageError(f"input {x.shape} is not (T, {self.batch}, {inputs})")
        steps = x.shape[0]
        target, stride = self._target(block.target, steps)
        records = Records(steps)
        fracs = np.empty((steps, len(self._sizes), 2), dtype=np.int8)
        records.fracs = fracs
        records.signals = [
            np.empty((steps, self.batch, self._sizes[k]), dtype=np.int32) for k, _ in block.record
        ]
        if block.votes:
            records.votes = np.zeros((self.batch, self._sizes[-1]), dtype=np.int64)
        state = self._adam_state(adam)
        layers = ffi.new("int32_t[]", [k for k, _ in block.record] or [0])
        signals = ffi.new("int32_t[]", [SIGNAL_IDS[s] for _, s in block.record] or [0])
        flags = lib.GLE_LEARN * block.learn | lib.GLE_RANGE * block.ranging
        done = 0
        while done < steps:
            count = min(steps - done, max(1, int(CALL_SECONDS / self._step_seconds)))
            parts = [ffi.from_buffer("int32_t[]", r[done:]) for r in records.signals]
            c = ffi.new("gle_block *")
            c.steps, c.flags, c.target_stride = count, flags, stride
            c.input = ffi.from_buffer("int16_t[]", x[done:]) if x.size else ffi.NULL
            if target is not None:
                held = target if stride == 0 else target[done:]
                c.target = ffi.from_buffer("int16_t[]", held)
            to = ffi.new("int32_t *[]", parts or [ffi.NULL])
            c.records, c.record_layer, c.record_signal = len(parts), layers, signals
            c.record_to = to
            c.fracs = ffi.cast("int8_t *", ffi.from_buffer(fracs[done:]))
            if records.votes is not None:
                c.votes = ffi.from_buffer("int64_t[]", records.votes)
            begun = time.perf_counter()
            ran = lib.gle_run(self._chip, c, state, ffi.NULL)
            self._step_seconds = max(1e-7, (time.perf_counter() - begun) / count)
            if ran != count:
                raise DeviceError("the core refused a step")
            done += count
        if adam is not None:
            adam.beta1_power, adam.beta2_power = state.beta1_power, state.beta2_power
            adam.clipped = int(state.clipped)
        return records

    def set_rate(self, shift: int) -> None:
        """See Device."""
        self._check(lib.gle_set_rate(self._chip, shift), f"learning rate 2**-{shift}")

    def gradient(self) -> dict[str, NDArray[np.float64]]:
        """Of the last step that read it out, mean over the batch, in network units."""
        result: dict[str, NDArray[np.float64]] = {}
        for k, (layer, f) in enumerate(
            zip(self.image.network.layers, self.formats(), strict=True)
        ):
            w = np.empty(self._shape(k), dtype=np.int32)
            b = np.empty(layer.size, dtype=np.int32)
            to = ffi.from_buffer("int32_t[]", w), ffi.from_buffer("int32_t[]", b)
            self._check(lib.gle_gradient(self._chip, k, *to), layer.name)
            result[f"{layer.name}.weight"] = np.ldexp(w / self.batch, -f.gradient)
            result[f"{layer.name}.bias"] = np.ldexp(b / self.batch, -f.gradient_bias)
        return result

    def digest(self) -> int:
        """See Device."""
        return int(lib.gle_digest(self._chip))

    def stream_digests(self) -> NDArray[np.uint64]:
        """See Device."""
        digests = [lib.gle_stream_digest(self._chip, b) for b in range(self.batch)]
        return np.array(digests, dtype=np.uint64)

    def weights_digest(self) -> int:
        """See Device."""
        return int(lib.gle_weights_digest(self._chip))

    def counters(self) -> list[dict[str, int]]:
        """See Device."""
        c = ffi.new("gle_counters *")
        result = []
        for k in range(len(self._sizes)):
            lib.gle_counters_of(self._chip, k, c)
            result.append({name: int(getattr(c, name)) for name in COUNTERS})
        return result

    def formats(self) -> list[Formats]:
        """See Device."""
        f = ffi.new("gle_formats *")
        result = []
        for k in range(len(self._sizes)):
            lib.gle_formats_of(self._chip, k, f)
            states = (f.w_frac, f.u_frac, f.r_frac, f.e_frac, f.v_frac)
            result.append(Formats(*states, f.gradient_frac, f.gradient_bias_frac))
        return result

    def snapshot(self) -> bytes:
        """See Device."""
        size = lib.gle_snapshot_bytes(self._chip)
        to = bytearray(size)
        pointer = ffi.from_buffer("unsigned char[]", to)
        self._check(lib.gle_snapshot_read(self._chip, pointer, size), "snapshot")
        return bytes(to)

    def restore(self, snapshot: bytes) -> None:
        """See Device."""
        pointer = ffi.from_buffer("unsigned char[]", snapshot)
        status = lib.gle_snapshot_write(self._chip, pointer, len(snapshot))
        self._check(status, "a snapshot of another network, chip or batch")

    def close(self) -> None:
        """See Device."""
        self._chip = None

    def _shape(self, k: int) -> tuple[int, int]:
        return self._sizes[k], self._sizes[k - 1] if k else self.image.network.inputs

    def _target(
        self, target: NDArray[np.int16] | None, steps: int
    ) -> tuple[NDArray[np.int16] | None, int]:
        if target is None:
            return None, 0
        y = np.ascontiguousarray(target, dtype=np.int16)
        outputs = self._sizes[-1]
        if self.image.network.loss == "cross_entropy":
            if y.shape != (self.batch,):
                raise UsageError(f"target {y.shape} is not ({self.batch},)")
            return y, 0
        if y.shape != (steps, self.batch, outputs):
            raise UsageError(f"target {y.shape} is not ({steps}, {self.batch}, {outputs})")
        return y, self.batch * outputs

    def _adam_state(self, adam: AdamState | None) -> Any:
        if adam is None:
            return ffi.NULL
        if adam.weight.size != lib.gle_adam_size(self._chip):
            raise UsageError("Adam's weights are of another network")
        state = ffi.new("gle_adam *")
        for name in ("weight", "m", "v"):
            setattr(state, name, ffi.from_buffer("float[]", getattr(adam, name)))
        state.rate, state.beta1, state.beta2 = adam.rate, adam.beta1, adam.beta2
        if adam.layer_rate is not None:
            state.layer_rate = ffi.from_buffer("float[]", adam.layer_rate)
        state.epsilon, state.clipped = adam.epsilon, adam.clipped
        state.beta1_power, state.beta2_power = adam.beta1_power, adam.beta2_power
        return state

    def _check(self, status: int, what: str) -> None:
        if status == lib.GLE_NO_MEMORY:
            raise DeviceError(f"{what}: does not fit")
        if status != lib.GLE_OK:
            raise UsageError(f"{what}: refused by the core (status {status})")


def open_emulator(rest: str) -> Emulator:
    """`emu:`; nothing may stand behind the colon."""
    if rest:
        raise UsageError(f"device 'emu:{rest}': nothing may stand behind 'emu:'")
    return Emulator()
