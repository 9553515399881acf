"""Dead and saturated neurons and silent layers, found from read-outs at looks over a run.

A look reads r of all layers at one step. Looks lie irregularly over a run, so that they do not
keep time with its input; where they lie follows from its length and its streams alone, so
that every body finds the same. Only sums are kept, and nothing that grows with the steps.

What is known of a healthy chip is its profile: a constant rate is read out with the ADC's own
noise, rounded to its LSB, and each neuron's ends lie where its gains and its offset put them.

dead: the read-out does not move. Its variance is that of a constant, read with the ADC's noise
    (at most SURE standard deviations of an estimate above it), although it would be seen to
    move if it followed its weighted input, W times the read-outs of the layer below, as the
    median of its layer does: by VISIBLE times more than can hide below LSB and noise. Weights
    that are tiny, inputs that cancel or stand still, and slow neurons (a low-pass of noise is
    what is expected of them at least) thus accuse nobody; weights that are all 0 do.
    Where a neuron may rest at one value and now and then speak, as relu does, RARE reads are
    needed: a neuron that speaks in 2 % of them is then taken for dead once in 400 times.
saturated: in all but NEARLY of the reads, with a confidence of two standard deviations (none
    of 300 elsewhere, 1 of 600), at one end of its format or of its bounded activation. Where
    gains, offsets or noise let that end lie anywhere in a range, it must also be nearly still,
    and this be VISIBLE in view of its input. A neuron that swings between both ends is in good
    health: in trained networks tanh neurons are at one end for up to 98 % of the time.
silent: no neuron of the layer moves, and all read 0, as nearly as offsets and noise allow.

Nothing is said where the input stands still or the reads are too few. While it learns, a
network is judged by the weights that it began with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle.chip import Chip
from hwgle.network import Layer, Network
from hwgle.quantise import BOUNDED
from hwgle.weights import Weights

READS = 400  # wanted of each neuron: looks times streams
MOST_LOOKS = 64  # of a stream
LEAST_LOOKS = 4
SPACING = 16  # steps between two looks, on average: at 64 values a step one costs half a step
SETTLED = 3.0  # time constants after which the first look may come
STREAMS = 128  # that are looked at
ROWS = 256  # reads that are taken up at once, since each time costs as much as a few steps

SURE = 5.0  # standard deviations
VISIBLE = 10.0  # healthy neurons moved at least 0.16 of what is expected here (zoo networks)
FEW = 48  # reads that a verdict of death needs
RARE = 300  # reads that it needs of a neuron that may rest, and that one of saturation needs
NEARLY = 0.01
END = 0.01  # of a bounded activation's range: there tanh has 2 % of its slope
DRIVEN = 8  # reads of an input that has moved, and of a layer that is called silent
RESTING = ("relu", "softplus", "sigmoid")  # may be 0 for long
NAMED = 5  # neurons that a sentence names


@dataclass(frozen=True)
class LayerHealth:
    """What is wrong with one layer; indices of its neurons, of saturated ones the worst first."""

    name: str
    size: int
    dead: tuple[int, ...] = ()
    saturated: tuple[int, ...] = ()
    silent: bool = False

    @property
    def well(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.dead or self.saturated or self.silent)

    def sentences(self) -> list[str]:
        """One for each finding."""
        lines = []
        if self.silent:
            lines.append(f"layer {self.name} is silent: all {self.size} read-outs stay at 0")
        if self.dead:
            what = "does not move though its input does"
            lines.append(self._sentence(self.dead, "dead", what))
        if self.saturated:
            what = "stays at one end of its range"
            lines.append(self._sentence(self.saturated, "saturated", what))
        return lines

    def _sentence(self, which: tuple[int, ...], state: str, what: str) -> str:
        named = ", ".join(str(i) for i in which[:NAMED])
        more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
        count = f"{len(which)} of {self.size} neurons {state}"
        return f"layer {self.name}: {count} (read-out {what}): {named}{more}"


@dataclass(frozen=True)
class Health:
    """What looks at a run found, layer by layer; `reads` of each neuron, looks times streams."""

    layers: tuple[LayerHealth, ...]
    reads: int = 0

    @property
    def silent(self) -> tuple[str, ...]:
        """Names of the silent layers."""
        return tuple(layer.name for layer in self.layers if layer.silent)

    def sentences(self) -> list[str]:
        """One for each finding, first layer first; none for a network in good health."""
        return [line for layer in self.layers for line in layer.sentences()]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """For OUT.npz: a flag a neuron, layer by layer in one row, and a flag a layer."""
        return {
            "health.dead": self._flags("dead"),
            "health.saturated": self._flags("saturated"),
            "health.silent": np.array([layer.silent for layer in self.layers]),
            "health.reads": np.array(self.reads, dtype=np.int64),
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the layers with findings alone, all of their neurons by index."""
        return {
            "reads": self.reads,
            "findings": self.sentences(),
            "layers": {
                layer.name: {
                    "size": layer.size,
                    "silent": layer.silent,
                    "dead": list(layer.dead),
                    "saturated": list(layer.saturated),
                }
                for layer in self.layers
                if not layer.well
            },
        }

    def _flags(self, name: str) -> NDArray[np.bool_]:
        parts = []
        for layer in self.layers:
            flags = np.zeros(layer.size, dtype=np.bool_)
            flags[list(getattr(layer, name))] = True
            parts.append(flags)
        return np.concatenate(parts)


def look_steps(network: Network, steps: int, streams: int) -> tuple[int, ...]:
    """At which steps (from 0) of a run to look.

    Enough for READS, as far as a run of this length has room for them, and none before its
    first layers and slowest neurons have settled, or a quarter of the run has passed.
    """
    slowest = max(float(max(layer.tau_m.max(), layer.tau_r.max())) for layer in network.layers)
    settled = len(network.layers) + min(math.ceil(SETTLED * slowest / network.dt), steps // 4)
    room = steps - settled
    wanted = min(MOST_LOOKS, max(LEAST_LOOKS, -(-READS // streams)))
    count = min(wanted, -(-room // SPACING))
    if count <= 0:
        return ()
    # Each somewhere in its own part of the run, by the golden ratio: the same at any time.
    where = (np.arange(count) + np.arange(1, count + 1) * 0.6180339887498949 % 1.0) / count
    return tuple(int(t) for t in settled + np.floor(where * room).astype(np.int64))


def still_variance(noise: float) -> float:
    """Largest variance, in LSB**2, of the read-outs of a constant: Gaussian noise of `noise`
    LSB is added, then rounded."""
    if noise <= 0:
        return 0.0
    if noise > 2:
        return noise**2 + 1 / 12
    reach = math.ceil(6 * noise) + 2
    code = np.arange(-reach, reach + 1)
    worst = 0.0
    for value in np.linspace(0, 0.5, 6):
        edges = [(c - 0.5 - value) / (noise * math.sqrt(2)) for c in range(-reach, reach + 2)]
        share = np.diff([0.5 * math.erf(edge) for edge in edges])
        mean = float(share @ code)
        worst = max(worst, float(share @ np.square(code - mean)))
    return worst


class Moments:
    """Running variance of each column, from sums of differences to the first row: a column
    that never changes has a variance of exactly 0."""

    def __init__(self) -> None:
        self.count = 0
        self._first: NDArray[np.float64]
        self._sum: NDArray[np.float64]
        self._squares: NDArray[np.float64]

    def add(self, values: NDArray[Any]) -> None:
        """Rows of values, (count, n)."""
        if not self.count:
            self._first = values[0].astype(np.float64)
            self._sum = np.zeros_like(self._first)
            self._squares = np.zeros_like(self._first)
        difference = values - self._first
        self._sum += difference.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", difference, difference)
        self.count += len(values)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of each column."""
        return self._first + self._sum / self.count

    @property
    def variance(self) -> NDArray[np.float64]:
        """Of each column, unbiased."""
        off = self._squares - np.square(self._sum) / self.count
        return np.maximum(off, 0.0) / max(1, self.count - 1)


class _Layer:
    """What was seen of one layer, in codes of the read-out ADC."""

    def __init__(self, layer: Layer, dt: float, chip: Chip, weight: NDArray[np.float64]) -> None:
        self._layer, self._weight = layer, weight
        bits = chip.readout.bits
        self._drop = 0 if bits is None else max(0, chip.rate.bits - bits)
        self._full = chip.rate_max >> self._drop
        self._noise, self._offset = chip.readout.noise, chip.readout.offset
        self._gain = math.hypot(chip.activation.gain, chip.readout.gain)
        self._bounded = layer.phi in BOUNDED
        self._end = float(self._full)
        # Reads near either end.
        self.top, self.bottom = np.zeros(layer.size), np.zeros(layer.size)
        self._reads, self._drive = Moments(), Moments()
        # What is left of white noise by u += a (x - u), uhat = u + (tau_r / tau_m)(x - u).
        a, ratio = dt / layer.tau_m, layer.tau_r / layer.tau_m
        left = np.sqrt(np.square(1 - ratio) * a / (2 - a) + np.square(ratio))
        self._left = np.minimum(1.0, left)

    def look(self, below: NDArray[Any], r: NDArray[np.integer], frac: int) -> None:
        """Rates or inputs below and read-outs, (reads, .), and their format."""
        codes = r >> self._drop if self._drop else r
        self._reads.add(codes)
        self._drive.add(below.astype(np.float64) @ self._weight.T)
        if self._bounded:
            self._end = max(1.0, min(self._full, float(np.round(2.0 ** (frac - self._drop)))))
        reach = self._margin()
        # A gain of its own moves every end but 0.
        spread = min(self._end / 2, reach + 3 * self._gain * self._end)
        self.top += np.count_nonzero(codes >= math.ceil(self._end - spread), axis=0)
        if self._layer.phi == "sigmoid":
            self.bottom += np.count_nonzero(codes <= math.floor(reach), axis=0)
        elif self._layer.phi in ("linear", "tanh"):
            self.bottom += np.count_nonzero(codes <= -math.ceil(self._end - spread), axis=0)

    def _margin(self) -> float:
        """How far from its end a neuron without a gain of its own may read."""
        slack = END * self._end if self._bounded else 0.0
        return slack + 3 * self._offset + SURE * self._noise

    @property
    def still(self) -> NDArray[np.bool_]:
        """Neurons whose read-outs are those of a constant."""
        return self._reads.variance <= self._still_variance() * (1 + SURE * self._estimate())

    def silent(self) -> bool:
        """See above; that none moves is asked of all neurons together too, which tells
        signals below the noise of a single one."""
        if self._reads.count * self._layer.size < FEW:
            return False
        noise = self._noise / math.sqrt(self._reads.count)
        zero = np.abs(self._reads.mean) <= SURE * (self._offset + noise)
        most = 1 + SURE * self._estimate() / math.sqrt(self._layer.size)
        together = float(self._reads.variance.mean()) <= self._still_variance() * most
        return together and bool((self.still & zero).all())

    def _still_variance(self) -> float:
        return still_variance(self._noise)

    def _estimate(self) -> float:
        """Relative standard deviation of the variance of so many reads of noise."""
        return math.sqrt(2 / max(1, self._reads.count - 1))

    def dead(self) -> tuple[int, ...]:
        """See above; neurons near an end, other than 0, are for `saturated` to judge."""
        reads = self._reads.count
        if reads < (RARE if self._layer.phi in RESTING else FEW):
            return ()
        ends = self.top
        if self._layer.phi != "sigmoid":
            ends = np.maximum(ends, self.bottom)
        still = self.still & (ends < reads / 2)
        hidden = math.sqrt(max(0.25, 2 * SURE * self._still_variance() * self._estimate()))
        which = np.flatnonzero(still & (self._expected() >= VISIBLE * hidden))
        return tuple(int(i) for i in which)

    def _expected(self) -> NDArray[np.float64]:
        """Standard deviation of read-outs, in LSB, if each neuron followed its weighted input as
        the median of those that move; 0 where none does."""
        drive = np.sqrt(self._drive.variance)
        moving = ~self.still & (drive > 0)
        if not moving.any():
            return np.zeros(self._layer.size)
        sd = np.sqrt(np.maximum(self._reads.variance - self._still_variance(), 0.0))
        expected: NDArray[np.float64] = np.median(sd[moving] / drive[moving]) * drive
        unconnected = ~self._weight.any(axis=1)
        expected[unconnected] = np.median(sd[moving])
        return expected * self._left

    def saturated(self) -> tuple[int, ...]:
        """See above."""
        reads = self._reads.count
        off = reads - np.maximum(self.top, self.bottom)
        flags = off + 2 * np.sqrt(off) + NEARLY * RARE <= NEARLY * reads
        if self._gain or self._offset or self._noise:
            most = self._still_variance() * (1 + SURE * self._estimate()) + (END * self._end) ** 2
            flags &= self._reads.variance <= most
            flags &= self._expected() >= VISIBLE * math.sqrt(most)
        which = np.flatnonzero(flags)
        return tuple(int(i) for i in which[np.argsort(off[which], kind="stable")])


class Watch:
    """Looks at one run of a network, in as many groups of streams as it likes.

    `steps` and `pairs` are when to look and what to record then.
    """

    def __init__(
        self,
        network: Network,
        chip: Chip,
        weights: Weights,
        steps: int,
        streams: int,
        input_frac: int = 0,
    ) -> None:
        self.steps = look_steps(network, steps, streams)
        self.pairs = [(k, "r") for k in range(len(network.layers))]
        self._names = [(layer.name, layer.size) for layer in network.layers]
        self._layers = [
            _Layer(layer, network.dt, chip, np.asarray(weights[f"{layer.name}.weight"]))
            for layer in network.layers
        ]
        self._heard = [topology.segments(network, k) for k in range(len(network.layers))]
        self._input_frac = input_frac
        self._reads = self._driven = 0
        self._first: NDArray[np.int16] | None = None
        self._kept: list[tuple[NDArray[Any], ...]] = []
        self._formats = np.zeros(0, dtype=np.int8)

    def look(
        self,
        x: NDArray[np.int16],
        rates: Sequence[NDArray[np.integer]],
        fracs: NDArray[np.int8],
        first: int,
    ) -> None:
        """What a block of one step gave: its input (1, B, inputs), r of all layers (1, B, n),
        formats (1, layers, 2). first: number of the first of these streams."""
        count = min(x.shape[1], STREAMS - first)
        if count <= 0:
            return
        formats = fracs[0, :, 0]
        if not np.array_equal(formats, self._formats):
            self._take()
            self._formats = formats.copy()
        self._kept.append(tuple(values[0, :count] for values in (x, *rates)))
        self._reads += count
        if len(self._kept) * count >= ROWS:
            self._take()

    def _take(self) -> None:
        """What was kept, into the sums."""
        if not self._kept:
            return
        below, *rates = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        self._kept.clear()
        if self._first is None:
            self._first = below[0].copy()
        self._driven += int(np.count_nonzero((below != self._first).any(axis=1)))
        for k, (layer, r, frac) in enumerate(
            zip(self._layers, rates, self._formats, strict=True)
        ):
            heard = [s.source for s in self._heard[k]]
            if len(heard) > 1:  # in network units; alone, a source's unit does not matter
                parts = [
                    np.ldexp(below.astype(np.float64), -self._input_frac)
                    if s < 0
                    else np.ldexp(rates[s].astype(np.float64), -int(self._formats[s]))
                    for s in heard
                ]
                layer.look(np.concatenate(parts, axis=1), r, int(frac))
            else:
                layer.look(below if heard[0] < 0 else rates[heard[0]], r, int(frac))

    def health(self) -> Health:
        """What was found so far."""
        self._take()
        found = []
        for (name, size), layer in zip(self._names, self._layers, strict=True):
            if self._driven < DRIVEN:
                found.append(LayerHealth(name, size))
            elif layer.silent():
                found.append(LayerHealth(name, size, silent=True))
            else:
                dead = layer.dead()
                others = set(range(size)).difference(dead)
                saturated = tuple(i for i in layer.saturated() if i in others)
                found.append(LayerHealth(name, size, dead, saturated))
        return Health(tuple(found), self._reads)
