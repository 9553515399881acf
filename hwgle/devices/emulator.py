"""emu: the chip inside this process. Calls the core directly, many steps a call."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle import topology
from hwgle._core import ffi, lib
from hwgle.device import SIGNALS, Block, Device, Done, Formats, Gradient, Limits, Pending, Records
from hwgle.errors import DeviceError, UsageError
from hwgle.quantise import Image, Quantised
from hwgle.weights import times_between

SIGNAL_IDS = {name: k for k, name in enumerate(SIGNALS)}
COUNTERS = tuple(name for name, _ in ffi.typeof("gle_counters").fields)
MOST_THREADS = 8  # csrc/host/crew.h
CALL_SECONDS = 0.05  # of one call into the core, so that Ctrl-C is noticed in time


NO_TIMES: NDArray[np.float32] = np.zeros(0, dtype=np.float32)


@dataclass
class AdamState:
    """Adam on the host: float32 parameters and moments of all learning layers, flat.

    Order: layer by layer, weights row by row and biases of one that learns them, then tau_m
    of one that learns that. Powers are beta**steps. layer_rate: (layers,) factors on the
    rate, None for 1 throughout. weight_limit: (layers,) largest sizes of weights, None for
    none. tau_rate: factor on the rate of tau_m; tau_r, tau_least,
    tau_most: (neurons that learn tau_m,) in the network's unit of time, as is dt. feedback: with
    Kolen-Pollack that of all layers that learn and have some, which follows their weights.
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
    weight_limit: NDArray[np.float32] | None = None
    feedback: NDArray[np.float32] | None = None
    tau_rate: float = 1.0
    dt: float = 1.0
    tau_r: NDArray[np.float32] = field(default_factory=lambda: NO_TIMES)
    tau_least: NDArray[np.float32] = field(default_factory=lambda: NO_TIMES)
    tau_most: NDArray[np.float32] = field(default_factory=lambda: NO_TIMES)

    @classmethod
    def of(
        cls, image: Image, weights: Mapping[str, ArrayLike], rate: float, tau_floor: float = 0.0
    ) -> AdamState:
        """Start from float weights (`<layer>.weight`, `<layer>.bias`) and the time constants
        of the image's network. tau_floor: least tau_m in steps of dt."""
        parts, tau_r, tau_least, tau_most = [NO_TIMES], [NO_TIMES], [NO_TIMES], [NO_TIMES]
        network = image.network
        weights = topology.with_feedback(network, weights)
        for k, layer in enumerate(network.layers):
            if layer.learn:
                parts += [
                    np.asarray(weights[f"{layer.name}.{kind}"], dtype=np.float32).ravel()
                    for kind in ("weight", "bias")
                ]
            if layer.learn_tau_m:
                parts.append(layer.tau_m.astype(np.float32))
                least, most = times_between(network, k)
                tau_r.append(layer.tau_r.astype(np.float32))
                tau_least.append(np.maximum(least, tau_floor * network.dt).astype(np.float32))
                tau_most.append(most.astype(np.float32))
        flat = np.concatenate(parts)
        state = cls(flat, np.zeros_like(flat), np.zeros_like(flat), rate, dt=network.dt)
        state.tau_r, state.tau_least, state.tau_most = map(
            np.concatenate, (tau_r, tau_least, tau_most)
        )
        if topology.learns_feedback(network):
            backs = [
                np.asarray(weights[f"{layer.name}.feedback"], dtype=np.float32).ravel()
                for k, layer in enumerate(network.layers)
                if layer.learn and topology.feedback_shape(network, k) is not None
            ]
            state.feedback = np.concatenate([NO_TIMES, *backs])
        return state


def kernels_from_environment() -> Any:
    """The kernel table that HWGLE_SIMD names (scalar; avx2, vnni or amx on x86-64; neon on
    AArch64), or the fastest of this machine.

    Raises UsageError when the machine does not have the one asked for.
    """
    name = os.environ.get("HWGLE_SIMD", "")
    table = lib.gle_kernels_named(name.encode() if name else ffi.NULL)
    if table == ffi.NULL:
        allowed = "scalar, avx2, vnni, amx, neon"
        raise UsageError(f"HWGLE_SIMD={name}: not on this machine; allowed: {allowed}")
    return table


def threads_from_environment() -> int:
    """How many threads HWGLE_THREADS asks for, 1 without it. Raises UsageError for others than
    1 to MOST_THREADS."""
    given = os.environ.get("HWGLE_THREADS", "") or "1"
    if not (given.isdecimal() and 1 <= int(given) <= MOST_THREADS):
        raise UsageError(f"HWGLE_THREADS={given}: allowed: 1 to {MOST_THREADS}")
    return int(given)


def arena_bytes(image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> int:
    """Memory of a chip on this machine; a small board, which aligns less, needs less.

    Raises DeviceError where no machine could address it, UsageError for a wrong image.
    """
    words = ffi.from_buffer("uint32_t[]", image.words)
    options = lib.GLE_WITH_GRADIENT * gradient | lib.GLE_WITH_UHAT * uhat
    need = ffi.new("size_t *")
    check(lib.gle_arena_bytes(words, image.words.size, batch, options, need), "image")
    return int(need[0])


def check(status: int, what: str) -> None:
    """Raises DeviceError or UsageError for a core's status that is not GLE_OK."""
    if status == lib.GLE_NO_MEMORY:
        raise DeviceError(f"{what}: does not fit")
    if status != lib.GLE_OK:
        raise UsageError(f"{what}: refused by the core (status {status})")


class Emulator(Device):
    """The core in this process. `kernels` forces a table by name, see kernels_from_environment.

    threads: that share the rows of large layers in batches, 1 to 8; None: what HWGLE_THREADS
    says, or 1. Below 0: as many, and they share small layers too, which tests want. Their number
    changes no bit. Raises UsageError for others.
    """

    def __init__(self, kernels: str | None = None, threads: int | None = None) -> None:
        self.threads = threads_from_environment() if threads is None else threads
        if not 1 <= abs(self.threads) <= MOST_THREADS:
            raise UsageError(f"threads {self.threads}: allowed: 1 to {MOST_THREADS}")
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

    @property
    def limits(self) -> Limits:
        """See Device."""
        return Limits(max_batch=int(lib.GLE_MAX_BATCH))

    def load(self, image: Image, batch: int, *, gradient: bool = False, uhat: bool = True) -> None:
        """See Device."""
        options = lib.GLE_WITH_GRADIENT * gradient | lib.GLE_WITH_UHAT * uhat
        words = ffi.from_buffer("uint32_t[]", image.words)
        count = image.words.size
        need = arena_bytes(image, batch, gradient=gradient, uhat=uhat)
        memory = np.zeros(need + 64, dtype=np.uint8)
        offset = -memory.ctypes.data % 64
        arena = memory[offset : offset + need]
        made = ffi.new("gle_chip **")
        status = lib.gle_open(
            ffi.from_buffer(arena), need, words, count, batch, options, self._kernels, made
        )
        check(status, "image")
        self._chip = made[0]
        self._keep = (memory, words, image)
        self._step_seconds = CALL_SECONDS  # one step first: how long they take is not known
        self.image = image
        self.batch = batch
        self.arena_bytes = need
        self._sizes = [layer.size for layer in image.network.layers]

    def write_weights(self, weights: Quantised) -> None:
        """See Device."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name not in weights:
                continue
            w, b = self._fitting(k, weights[layer.name])
            to = ffi.from_buffer("int16_t[]", w)
            check(lib.gle_weights_write(self._chip, k, 0, w.size, to), layer.name)
            to = ffi.from_buffer("int32_t[]", b)
            check(lib.gle_bias_write(self._chip, k, 0, b.size, to), layer.name)
        for k, layer in enumerate(self.image.network.layers):
            back = self._back(k, weights)
            to = ffi.from_buffer("int16_t[]", back)
            first = math.prod(self._shape(k))
            if back.size:
                check(lib.gle_weights_write(self._chip, k, first, back.size, to), layer.name)

    def read_weights(self) -> Quantised:
        """See Device."""
        result: Quantised = {}
        for k, layer in enumerate(self.image.network.layers):
            w = np.empty(self._shape(k), dtype=np.int16)
            b = np.empty(layer.size, dtype=np.int32)
            lib.gle_weights_read(self._chip, k, 0, w.size, ffi.from_buffer("int16_t[]", w))
            lib.gle_bias_read(self._chip, k, 0, b.size, ffi.from_buffer("int32_t[]", b))
            result[layer.name] = (w, b)
            shape = topology.feedback_shape(self.image.network, k)
            if shape is not None:
                back = np.empty(shape, dtype=np.int16)
                to = ffi.from_buffer("int16_t[]", back)
                lib.gle_weights_read(self._chip, k, w.size, back.size, to)
                result[f"{layer.name}.feedback"] = back, np.zeros(0, dtype=np.int32)
        return result

    def add_weights(self, increments: Quantised) -> None:
        """See Device."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name not in increments:
                continue
            w, b = self._fitting(k, increments[layer.name])
            to = ffi.from_buffer("int16_t[]", w)
            check(lib.gle_weights_add(self._chip, k, 0, w.size, to), layer.name)
            to = ffi.from_buffer("int32_t[]", b)
            check(lib.gle_bias_add(self._chip, k, 0, b.size, to), layer.name)
            back = self._back(k, increments)
            if back.size:
                to = ffi.from_buffer("int16_t[]", back)
                check(lib.gle_weights_add(self._chip, k, w.size, back.size, to), layer.name)

    def write_times(self, times: Mapping[str, NDArray[np.uint32]]) -> None:
        """See Device."""
        for k, layer in enumerate(self.image.network.layers):
            if layer.name in times:
                words = np.ascontiguousarray(times[layer.name], dtype=np.uint32)
                neurons = ffi.cast("gle_neuron *", ffi.from_buffer("uint32_t[]", words))
                status = lib.gle_times_write(self._chip, k, 0, words.shape[0], neurons)
                check(status, f"time constants of {layer.name}")

    def reset(self, first: int = 0) -> None:
        """See Device."""
        lib.gle_reset(self._chip, first & 0xFFFFFFFF)

    def submit(self, block: Block) -> Pending:
        """See Device; the block is done when this returns."""
        return Done(self.run(block))

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
        if block.gradient:
            flags |= lib.GLE_ADD_GRADIENT
        done = 0
        while done < steps:
            count = min(steps - done, max(1, int(CALL_SECONDS / self._step_seconds)))
            parts = [ffi.from_buffer("int32_t[]", r[done:]) for r in records.signals]
            c = ffi.new("gle_block *")
            c.steps, c.flags, c.target_stride = count, flags, stride
            c.threads = self.threads
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
        check(lib.gle_set_rate(self._chip, shift), f"learning rate 2**-{shift}")

    def gradient(self) -> dict[str, NDArray[np.float64]]:
        """Of the last step that read it out, mean over the batch, in network units."""
        result: dict[str, NDArray[np.float64]] = {}
        for layer, g in zip(self.image.network.layers, self.read_gradient(), strict=True):
            result[f"{layer.name}.weight"] = np.ldexp(g.weight / self.batch, -g.frac)
            result[f"{layer.name}.bias"] = np.ldexp(g.bias / self.batch, -g.bias_frac)
        return result

    def clear_gradient(self, drop: int = 0) -> None:
        """See Device."""
        check(lib.gle_gradient_clear(self._chip, drop), f"gradient, {drop} bits dropped")

    def read_gradient(self) -> list[Gradient]:
        """See Device."""
        result = []
        for k, f in enumerate(self.formats()):
            w = np.empty(self._shape(k), dtype=np.int32)
            b = np.empty(self._sizes[k], dtype=np.int32)
            to = ffi.from_buffer("int32_t[]", w), ffi.from_buffer("int32_t[]", b)
            check(lib.gle_gradient(self._chip, k, *to), "gradient")
            tau = np.empty(self._sizes[k] * self.image.network.layers[k].learn_tau_m, np.int32)
            behind = self._sizes[k] * (self._shape(k)[1] + 1)
            into = ffi.from_buffer("int32_t[]", tau)
            check(lib.gle_gradient_part(self._chip, k, behind, tau.size, into), "gradient")
            result.append(Gradient(w, b, f.gradient, f.gradient_bias, tau))
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
        check(lib.gle_snapshot_read(self._chip, pointer, size), "snapshot")
        return bytes(to)

    def restore(self, snapshot: bytes) -> None:
        """See Device."""
        pointer = ffi.from_buffer("unsigned char[]", snapshot)
        status = lib.gle_snapshot_write(self._chip, pointer, len(snapshot))
        check(status, "a snapshot of another network, chip or batch")

    def close(self) -> None:
        """See Device."""
        self._chip = None

    _check = staticmethod(check)  # for bodies that are built on this one

    def _fitting(
        self, k: int, given: tuple[NDArray[Any], NDArray[Any]]
    ) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        w = np.ascontiguousarray(given[0], dtype=np.int16)
        b = np.ascontiguousarray(given[1], dtype=np.int32)
        if w.shape != self._shape(k) or b.shape != (self._sizes[k],):
            name = self.image.network.layers[k].name
            raise UsageError(f"{name}: weights {w.shape}, biases {b.shape} do not fit")
        return w, b

    def _shape(self, k: int) -> tuple[int, int]:
        return self._sizes[k], self.image.network.fan_in(k)

    def _back(self, k: int, given: Quantised) -> NDArray[np.int16]:
        """Feedback weights of a layer as they are given; none where there are none."""
        name = f"{self.image.network.layers[k].name}.feedback"
        if name not in given:
            return np.zeros(0, dtype=np.int16)
        back = np.ascontiguousarray(given[name][0], dtype=np.int16)
        if back.shape != topology.feedback_shape(self.image.network, k):
            raise UsageError(f"{name}: {back.shape} does not fit")
        return back

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
        for name in ("layer_rate", "weight_limit"):
            if getattr(adam, name) is not None:
                setattr(state, name, ffi.from_buffer("float[]", getattr(adam, name)))
        for name in ("tau_r", "tau_least", "tau_most"):
            setattr(state, name, ffi.from_buffer("float[]", getattr(adam, name)))
        state.dt, state.tau_rate = adam.dt, adam.tau_rate
        if adam.feedback is not None:
            state.feedback = ffi.from_buffer("float[]", adam.feedback)
        state.epsilon, state.clipped = adam.epsilon, adam.clipped
        state.beta1_power, state.beta2_power = adam.beta1_power, adam.beta2_power
        return state


def open_emulator(url: str) -> Emulator:
    """`emu:`; nothing may stand behind the colon."""
    if url != "emu:":
        raise UsageError(f"device {url!r}: nothing may stand behind 'emu:'")
    return Emulator()
