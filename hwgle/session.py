"""Running a network on a chip in network units: quantise, run, convert back.

This is the only place between float and the chip's integers in time, for all bodies.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hwgle._core import lib
from hwgle.calibrate import (
    FOR_RUN,
    FOR_TRAINING,
    INPUT_RANGE,
    calibrate,
    fraction,
    input_fraction,
)
from hwgle.chip import Chip
from hwgle.device import SIGNALS, Block, Device, Formats, Pending, Records
from hwgle.devices.emulator import arena_bytes
from hwgle.errors import DeviceRefused, UsageError
from hwgle.health import Health, Watch
from hwgle.identity import draw
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.quantise import (
    Image,
    Quantised,
    Scales,
    build_image,
    quantise_weights,
    to_float,
    to_int16,
    weight_shift,
)
from hwgle.weights import Weights

CALIBRATION_STREAMS = 32
CALIBRATION_STEPS = 2000
ARRAY_MAX = 8191  # of a weight as the array has it, gain included
GROUP = 500  # streams on one chip at a time, where nothing couples them
RANGE_EVERY = 256
UNDER_WAY = 3  # blocks on their way to a board while the oldest is waited for
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """What a run gave.

    signals: `output` and `<layer>.<signal>`, (T, B, n) float32 in network units. weights: as
    they stand after the run. counters: per layer. rate: the learning rate that the chip
    applied (0: none). health: what looks at the run found of its neurons.
    """

    signals: dict[str, NDArray[np.float32]]
    weights: Weights
    scales: Scales
    digest: int
    stream_digests: NDArray[np.uint64]
    counters: list[dict[str, int]]
    clipped_input: int
    clipped_weights: int
    rate: float
    health: Health

    @property
    def silent(self) -> tuple[str, ...]:
        """Layers that said nothing whenever looked at."""
        return self.health.silent

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What OUT.npz holds."""
        out: dict[str, NDArray[np.generic]] = dict(self.signals)
        out |= {name: w.astype(np.float32) for name, w in self.weights.items()}
        out["scales"] = self.scales.to_array()
        out["digest"] = np.array(self.digest, dtype=np.uint64)
        out["stream_digests"] = self.stream_digests
        for name in self.counters[0]:
            out[f"counters.{name}"] = np.array([c[name] for c in self.counters], dtype=np.int64)
        out["counters.clipped_input"] = np.array(self.clipped_input, dtype=np.int64)
        out["counters.clipped_weights"] = np.array(self.clipped_weights, dtype=np.int64)
        return out | self.health.arrays()


def weights_from(image: Image, stored: Quantised, formats: Sequence[Formats]) -> Weights:
    """Stored integers in network units, exactly."""
    result: Weights = {}
    for layer, s, f in zip(image.network.layers, image.scales.layers, formats, strict=True):
        w, b = stored[layer.name]
        result[f"{layer.name}.weight"] = to_float(w, f.stored + s.weights() - s.weight)
        result[f"{layer.name}.bias"] = to_float(b, f.membrane)
        if f"{layer.name}.feedback" in stored:
            back, _ = stored[f"{layer.name}.feedback"]
            result[f"{layer.name}.feedback"] = to_float(back, f.stored)
    return result


def scales_now(image: Image, formats: Sequence[Formats]) -> Scales:
    """An image's scales with what auto-ranging made of them."""
    layers = tuple(
        replace(s, weight=f.stored - weight_shift(image.chip), rate=f.rate, error=f.error)
        for s, f in zip(image.scales.layers, formats, strict=True)
    )
    return replace(image.scales, layers=layers)


def calibrate_on(
    network: Network,
    chip: Chip,
    weights: Weights,
    x: NDArray[np.floating],
    target: NDArray[np.generic] | None,
    learning: bool = False,
) -> Scales:
    """Scales from the first streams of an input; the input's own range from all of it."""
    part = np.asarray(x[:CALIBRATION_STEPS, :CALIBRATION_STREAMS], dtype=np.float64)
    y = target
    if y is not None:
        y = y[:CALIBRATION_STREAMS]
        if network.loss == "mse" and target is not None:
            y = target[:CALIBRATION_STEPS, :CALIBRATION_STREAMS]
    scales = calibrate(network, chip, weights, part, y, FOR_TRAINING if learning else FOR_RUN)
    scales = replace(scales, input=input_fraction(chip, x))
    if target is not None and network.loss == "mse":
        peak = float(np.nanmax(np.abs(target), initial=0.0))
        scales = replace(scales, target=min(15, fraction(32767, peak, *INPUT_RANGE)))
    return scales


def run(
    device: Device,
    network: Network,
    chip: Chip,
    weights: Weights,
    x: NDArray[np.floating],
    target: NDArray[np.generic] | None = None,
    *,
    scales: Scales | None = None,
    record: Sequence[str] = (),
    learning_rate: float = 0.0,
    learner: OnChip = PLAIN,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run streams through a network on a chip.

    x: (T, B, inputs); target: None, (B,) integers (-1: none) for cross_entropy, (T, B,
    outputs) for mse. learning_rate > 0: `learner` learns on the chip, all streams at once,
    with auto-ranging; otherwise streams are independent and run in groups. `seed`: of
    stochastic rounding, instead of the chip's. Raises UsageError for arrays or signals
    that do not fit.
    """
    _check(network, x, target, record)
    learning = learning_rate > 0
    if scales is None:
        scales = calibrate_on(network, chip, weights, x, target, learning)
    if len(scales.layers) != len(network.layers):
        raise UsageError(f"scales of {len(scales.layers)} layers, not {len(network.layers)}")
    steps, batch, _ = x.shape
    group = group_size(device, batch, learning)
    if "uhat" in record and not device.limits.uhat:
        raise UsageError("this body keeps no uhat, so it cannot be recorded")
    names = [layer.name for layer in network.layers]
    wanted = [(k, s) for k in range(len(names)) for s in record]
    top = (len(names) - 1, "r")
    pairs = wanted if top in wanted else [*wanted, top]
    signals = {
        f"{names[k]}.{s}": np.empty((steps, batch, network.layers[k].size), dtype=np.float32)
        for k, s in pairs
    }
    xi, clipped = to_int16(x, scales.input, chip.input_max)
    yi = _target(network, scales, target)

    def build(count: int) -> Image:
        return build_image(
            network,
            chip,
            scales,
            batch=count,
            learning_rate=learning_rate,
            range_every=RANGE_EVERY if learning else 0,
            seed=seed,
            learner=learner if learning else PLAIN,
        )

    loaded = Loaded(device, build, weights, uhat="uhat" in record)
    digests: list[NDArray[np.uint64]] = []
    done = 0
    watch = Watch(network, chip, weights, steps, batch, scales.input)
    pieces = list(_pieces(steps, max(4, 64 * group // batch), watch.steps))
    for part in loaded.groups(batch, group, alone=learning):
        under_way: deque[tuple[Pending, int, int, bool]] = deque()

        def take(part: slice, under_way: deque[tuple[Pending, int, int, bool]]) -> None:
            nonlocal done
            pending, a, b, look = under_way.popleft()
            records = pending.result()
            if look:
                assert records.fracs is not None
                rates = records.signals[len(pairs) :]
                watch.look(xi[a:b, part], rates, records.fracs, part.start)
                del records.signals[len(pairs) :]
            _convert(signals, records, pairs, names, loaded.image, slice(a, b), part)
            done += (b - a) * (part.stop - part.start)
            if progress is not None:
                progress(done, steps * batch)

        for a, b, look in pieces:
            y = yi if yi is None or network.loss == "cross_entropy" else yi[a:b]
            y = y if y is None else (y[part] if network.loss == "cross_entropy" else y[:, part])
            wish = pairs + watch.pairs if look else pairs
            block = Block(xi[a:b, part], y, learn=learning, ranging=learning, record=wish)
            under_way.append((device.submit(block), a, b, look))
            if len(under_way) >= (1 if device.limits.immediate else UNDER_WAY):
                take(part, under_way)
        while under_way:
            take(part, under_way)
        digests.append(device.stream_digests())
    weights_digest = device.weights_digest()
    after = weights_from(loaded.image, device.read_weights(), device.formats())
    total = loaded.counters()
    final = scales_now(loaded.image, device.formats())
    clipped_weights = loaded.clipped
    output = signals[f"{names[-1]}.r"]
    if top not in wanted:
        del signals[f"{names[-1]}.r"]
    streams = np.concatenate(digests)
    return Result(
        signals={"output": output, **signals},
        weights=after,
        scales=final,
        digest=combined_digest(weights_digest, steps, streams),
        stream_digests=streams,
        counters=total,
        clipped_input=clipped,
        clipped_weights=clipped_weights,
        rate=learner.applied_rate(learning_rate, batch) if learning else 0.0,
        health=watch.health(),
    )


def group_size(device: Device, batch: int, learning: bool) -> int:
    """Streams that a body takes at once; all of them where they learn together.

    Raises UsageError when so many cannot learn at once.
    """
    most = device.limits.max_batch
    if learning and batch > most:
        raise UsageError(
            f"{batch} streams would learn on one chip at once; this body takes at most {most}: "
            f"give an input of shape (T, {most}, inputs), or learn on emu:"
        )
    return batch if learning else min(batch, GROUP, most)


class Loaded:
    """Streams in groups on a body: loaded once for all groups of one size, reset between."""

    def __init__(
        self,
        device: Device,
        build: Callable[[int], Image],
        weights: Weights,
        *,
        uhat: bool = False,
    ) -> None:
        self._device, self._build, self._weights, self._uhat = device, build, weights, uhat
        self._count = 0
        self._total: list[dict[str, int]] = []
        self.clipped = 0
        self.image: Image

    def groups(self, batch: int, group: int, alone: bool = False) -> Iterator[slice]:
        """Which streams come next, the body ready for them.

        alone: all in one group; DeviceRefused if the body's memory does not hold it.
        Otherwise such a group is made smaller.
        """
        first = 0
        while first < batch:
            count = min(group, batch - first)
            try:
                self._ready(count, first)
            except DeviceRefused as error:
                if error.reason != "no_memory" or count == 1:
                    raise
                if alone:
                    raise too_many(error, f"{count} streams learn on one chip at once") from error
                group = _that_fit(self._build(count), count, error.need - error.have)
                continue
            yield slice(first, first + count)
            first += count

    def _ready(self, count: int, first: int) -> None:
        if count == self._count:
            if self.image.chip.weight.drift is not None:  # as fresh as the first group's were
                self._device.write_weights(quantise_weights(self.image, self._weights))
            self._device.reset(first)
            return
        if self._count:
            self._total = _added(self._total, self._device.counters())
        self._count = 0
        image = self._build(count)
        self._device.load(image, count, uhat=self._uhat)
        stored = quantise_weights(image, self._weights)
        self._device.write_weights(stored)
        self.clipped = _clipped(image, stored, self._weights)
        self.image, self._count = image, count
        if first:
            self._device.reset(first)

    def counters(self) -> list[dict[str, int]]:
        """Of all groups so far."""
        return _added(self._total, self._device.counters())


def too_many(error: DeviceRefused, why: str) -> DeviceRefused:
    """The same refusal with what the person can do about it."""
    text = f"{error}\n{why}: fewer need less memory, 1 the least"
    return DeviceRefused(text, error.request, error.reason, error.need, error.have)


def _that_fit(image: Image, count: int, missing: int) -> int:
    """Fewer streams than `count`, for which that many bytes were missing."""
    if count <= 2:
        return 1
    each = (arena_bytes(image, count) - arena_bytes(image, 2)) / (count - 2)
    return max(1, min(count - 1, count - math.ceil(missing / max(1.0, each))))


def combined_digest(weights_digest: int, steps: int, streams: NDArray[np.uint64]) -> int:
    """One digest for streams that ran in groups: the same as for one batch of them all."""
    digest = int(lib.gle_digest_mix(weights_digest, steps))
    for d in streams:
        digest = int(lib.gle_digest_mix(digest, int(d)))
    return digest


def _check(
    network: Network,
    x: NDArray[np.floating],
    target: NDArray[np.generic] | None,
    record: Sequence[str],
) -> None:
    if x.ndim != 3 or x.shape[2] != network.inputs or x.size == 0:
        raise UsageError(f"input {x.shape} is not (T, streams, {network.inputs})")
    unknown = [s for s in record if s not in SIGNALS]
    if unknown:
        raise UsageError(f"cannot record {', '.join(unknown)}; allowed: {', '.join(SIGNALS)}")
    if target is None:
        return
    need: tuple[int, ...] = (x.shape[1],)
    if network.loss == "mse":
        need = (x.shape[0], x.shape[1], network.outputs)
    if target.shape != need:
        raise UsageError(f"target {target.shape} is not {need}")


def _target(
    network: Network, scales: Scales, target: NDArray[np.generic] | None
) -> NDArray[np.int16] | None:
    if target is None:
        return None
    if network.loss == "cross_entropy":
        return target.astype(np.int16)
    return to_int16(target, scales.target, 32767)[0]


def _pieces(steps: int, most: int, looks: Sequence[int] = ()) -> Iterator[tuple[int, int, bool]]:
    """Some dozen pieces, so that progress is seen, and whether to look at the neurons.

    A look is a step by itself; how a run is cut changes no bit.
    """
    size = max(16, -(-steps // most))
    at = [] if 2 * len(looks) >= most else [*range(0, steps, size)]
    return cut(0, steps, at, looks)


def cut(
    first: int, last: int, at: Sequence[int], looks: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """Steps first..last - 1 in parts: ends of parts `at`, and each look a part by itself."""
    inside = [t for t in looks if first <= t < last]
    ends = {first, last, *(t for t in at if first < t < last)}
    ends |= {*inside, *(t + 1 for t in inside)}
    return ((a, b, a in inside) for a, b in pairwise(sorted(ends)))


def _clipped(image: Image, stored: Quantised, weights: Mapping[str, NDArray[np.float64]]) -> int:
    """Weights that lie outside what the array can hold, as they are or with their gain."""
    count = 0
    chip = image.chip
    shift = weight_shift(chip)
    draws = draw(chip, image.network).layers
    for layer, s, own in zip(image.network.layers, image.scales.layers, draws, strict=True):
        w = stored[layer.name][0]
        if own.gain is not None:
            seen = (w >> shift << chip.weight_left) * own.gain.astype(np.int64)
            count += int(np.count_nonzero(np.abs(seen) > (ARRAY_MAX << 13)))
        frac = s.weights() + shift
        off = np.abs(to_float(w, frac) - weights[f"{layer.name}.weight"])
        count += int(np.count_nonzero(off > np.ldexp(1.0, -frac)))
    return count


def _convert(
    signals: dict[str, NDArray[np.float32]],
    records: Records,
    pairs: Sequence[tuple[int, str]],
    names: Sequence[str],
    image: Image,
    when: slice,
    who: slice,
) -> None:
    assert records.fracs is not None
    for (k, s), values in zip(pairs, records.signals, strict=True):
        if s in ("u", "uhat"):
            frac = np.array(image.scales.layers[k].membrane)
        elif s == "r":
            frac = records.fracs[:, k, 0].astype(np.int64)[:, None, None]
        else:
            frac = records.fracs[:, k, 1].astype(np.int64)[:, None, None]
            if s == "v":
                frac = frac + image.scales.layers[k].error_extra
        signals[f"{names[k]}.{s}"][when, who] = to_float(values, frac)


def _added(total: list[dict[str, int]], more: list[dict[str, int]]) -> list[dict[str, int]]:
    if not total:
        return [dict(c) for c in more]
    return [{k: a[k] + b[k] for k in a} for a, b in zip(total, more, strict=True)]
