"""The chip once more, in Python's whole numbers: literal loops, no widths, no vectors.

Written from the design (the order of a step, exact sums rounded once, clips), from the
contract of the image (every imperfection, section by section) and from the comments of
csrc/gle.h, fixed.h, rng.h and phi.h, not from the C. It reads the same image words as the
core. Slow on purpose: what it says should be plain to read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SUM_MAX = 1 << 30
STATE_MAX = (1 << 28) - 1
LINEAR, TANH, SIGMOID, SOFTPLUS, RELU = range(5)
CROSS_ENTROPY, MSE = range(2)
U32, U64 = (1 << 32) - 1, (1 << 64) - 1
WEIGHT_UPDATE, BIAS_UPDATE, NEURON_NOISE, READ_OUT_NOISE, UPDATE_NOISE, DRIFT = 1, 2, 3, 5, 6, 7
NORM, NORM_BIAS = 8, 9
SGD, NORMALISED, SIGN = range(3)
FEEDBACK_UPDATE, FEEDBACK_NOISE, FEEDBACK_DRIFT, DECAY, FEEDBACK_DECAY = range(32, 37)
ALIGNMENT, KOLEN_POLLACK, DIRECT = 1, 2, 3


def nearest(x: int, k: int) -> int:
    """x * 2^-k, halves up; k may be negative."""
    return (x + (1 << (k - 1))) >> k if k > 0 else x << -k


def clip(x: int, limit: int) -> int:
    """Into -limit..limit."""
    return max(-limit, min(limit, x))


def clip32(x: int) -> int:
    """An update that the shift made larger than any weight."""
    return clip(x, (1 << 31) - 1)


@dataclass(frozen=True)
class Multiplier:
    """m * 2^-k, packed as m << 8 | k."""

    m: int
    k: int

    @classmethod
    def of(cls, packed: int) -> Multiplier:
        """Unpack."""
        return cls(packed >> 8, packed & 0xFF)

    def times(self, d: int) -> int:
        """One rounding."""
        return nearest(d * self.m, self.k)

    @property
    def limit(self) -> int:
        """Largest |d| that is let in: 15-bit mantissas, products within 2^30."""
        return min(1 << 29, 1 << (15 + self.k))


# --- random bits ------------------------------------------------------------------------------


def mix64(z: int) -> int:
    """The finaliser of SplitMix64."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & U64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & U64
    return z ^ z >> 31


def key_of(seed: int, purpose: int, where: int, step: int) -> tuple[int, int]:
    """The key of one purpose at one place in one step."""
    h = mix64((seed + 0x9E3779B97F4A7C15) & U64)
    h = mix64(h ^ (purpose << 32 | where))
    h = mix64(h ^ step)
    return h & U32, h >> 32


def random32(key: tuple[int, int], index: int, which: int = 0) -> int:
    """32 random bits of one index; a second word has another last factor."""
    x = index ^ key[0]
    x = (x ^ x >> 16) * 0x7FEB352D & U32
    x = ((x ^ x >> 15) + key[1]) * 0x846CA68B & U32
    x ^= x >> 16
    x = x * (0x9E3779B1, 0x27D4EB2F)[which] & U32
    return x ^ x >> 15


def stochastic(x: int, k: int, random: int) -> int:
    """x * 2^-k, k > 0: up with the probability of what is dropped, to 31 bits of it."""
    x, k = x >> max(0, min(k - 31, 31)), min(k, 31)
    return (x + (random >> (32 - k))) >> k


def random_of_weight(key: tuple[int, int], m: int, i: int, j: int) -> int:
    """16 random bits, a one, 15 zeros: for weight (i, j) of rows of m. Sixteen neighbours have
    eight words of one root, which are its products with powers of one factor."""
    x = (i * -(-m // 16) + j // 16) ^ key[0]
    x = (x ^ x >> 16) * 0x7FEB352D & U32
    x = ((x ^ x >> 15) + key[1]) * 0x846CA68B & U32
    word = (x ^ x >> 16) * pow(0x8763B035, j % 16 // 2, 1 << 32) & U32
    word ^= word >> 15
    return (word >> 16 if j % 2 else word & 0xFFFF) << 16 | 0x8000


# --- activations ------------------------------------------------------------------------------

ONE = 1 << 18


def _entry(value: float) -> int:
    return math.floor(value * ONE + 0.5)


TANH_TABLE = [_entry(math.tanh(i / 64)) for i in range(513)]
SOFTPLUS_TABLE = [_entry(math.log1p(math.exp(-i / 32))) for i in range(513)]
EXP2_TABLE = [math.floor(2.0 ** (-i / 256) * (1 << 20) + 0.5) for i in range(257)]


def interpolated(table: Sequence[int], position: int, finer: int = 0) -> int:
    """Linear, 16 bits between two entries; the part of a step is rounded to nearest.

    finer: fraction bits of the result beyond the table's 18.
    """
    at, part = position >> 16, position & 0xFFFF
    step = table[at + 1] - table[at]
    more = nearest(abs(step) * part, 16 - finer)
    value = table[at] << finer
    return value + more if step >= 0 else value - more


def activation(phi: int, uhat: int, u_frac: int, r_frac: int) -> tuple[int, int]:
    """Rate before its clip, and slope in 15 fraction bits."""
    size = abs(uhat)
    if phi == TANH:
        position = min(size, (1 << (u_frac + 3)) - 1) << (22 - u_frac)
        y = interpolated(TANH_TABLE, position)
        y15 = nearest(y, 3)
        rate = nearest(y, 18 - r_frac)
        return (-rate if uhat < 0 else rate), (1 << 15) - nearest(y15 * y15, 15)
    if phi in (SIGMOID, SOFTPLUS):
        position = (min(size, (1 << (u_frac + 4)) - 1) << (22 - u_frac)) >> 1
        y = interpolated(TANH_TABLE, position)
        z = ONE - y if uhat < 0 else ONE + y  # sigmoid with 19 fraction bits
        if phi == SIGMOID:
            y15 = nearest(y, 3)
            return nearest(z, 19 - r_frac), nearest((1 << 15) - nearest(y15 * y15, 15), 2)
        rest = nearest(interpolated(SOFTPLUS_TABLE, position, finer=4), 22 - u_frac)
        return nearest(rest + max(uhat, 0), u_frac - r_frac), z >> 4
    if phi == RELU:
        return nearest(max(uhat, 0), u_frac - r_frac), (1 << 15 if uhat > 0 else 0)
    return nearest(uhat, u_frac - r_frac), 1 << 15


# --- the chip ---------------------------------------------------------------------------------

Rows = list[list[int]]

COUNTED = (
    *("steps", "sat_x", "sat_uhat", "sat_r", "sat_inst", "sat_e", "under_e"),
    *("updates", "under_w", "sat_w", "range_moves"),
)


HADAMARD = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


@dataclass(frozen=True)
class Noise:
    """Four random bytes with signs, their mean taken off, times m * 2^-k."""

    m: int
    k: int

    @classmethod
    def of(cls, packed: int) -> Noise | None:
        """Unpack; None for the word 0."""
        return cls(packed >> 8, (packed & 0xFF) - 8) if packed else None

    def draw(self, key: tuple[int, int], index: int, i: int, which: int = 0) -> int:
        """One value, of a neuron with this number: four share a word, each with its signs."""
        word = random32(key, index, which)
        signs = HADAMARD[i % 4]
        n = sum(s * (word >> 8 * k & 0xFF) for k, s in enumerate(signs))
        return nearest(n * self.m - sum(signs) * 255 * self.m // 2, self.k)


@dataclass
class Cell:
    """What is individual about one neuron."""

    leak_u: Multiplier
    ratio_u: Multiplier
    leak_v: Multiplier
    ratio_v: Multiplier
    row: int = 0  # fraction bits that its weights have beyond w_frac
    offset: int = 0  # of the activation
    gain: int = 1 << 13
    noise_u: Noise | None = None
    adc_gain: int = 1 << 13
    adc_offset: int = 0


@dataclass
class Window:
    """What the auto-ranging has seen since it last looked."""

    samples: int = 0
    sat_e: int = 0
    half_e: int = 0
    sat_r: int = 0
    peak_r: int = 0
    sat_w: int = 0


@dataclass
class Layer:
    """One layer's constants, weights and states ([stream][neuron])."""

    n: int
    m: int
    first: int
    phi: int
    learn: int
    w_frac: int
    w_shift: int
    w_max: int
    u_frac: int
    u_max: int
    r_frac: int
    r_max: int
    e_frac: int
    e_max: int
    v_frac: int
    rate_shift: int
    w_left: int
    noise_e: Noise | None
    noise_r: Noise | None
    adc_drop: int
    adc_max: int
    cells: list[Cell]
    sources: list[int]  # -1: the inputs; columns are in this order
    gains: Rows | None = None
    mask: Rows | None = None
    back: Rows | None = None  # feedback weights, [neuron or output][input or neuron]
    w: Rows = field(default_factory=list)
    bias: list[int] = field(default_factory=list)
    memory: Rows = field(default_factory=list)
    memory_bias: list[int] = field(default_factory=list)
    means: Rows = field(default_factory=list)
    means_bias: list[int] = field(default_factory=list)
    u: Rows = field(default_factory=list)
    uhat: Rows = field(default_factory=list)
    v: Rows = field(default_factory=list)
    r: Rows = field(default_factory=list)
    e: Rows = field(default_factory=list)
    slope: Rows = field(default_factory=list)
    window: Window = field(default_factory=Window)
    # sat_gradient: of what rules remember; the oracle accumulates no gradients for a host
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*COUNTED, "sat_gradient", "sat_read"), 0)
    )

    def seen(self, i: int, j: int) -> int:
        """The weight as the array sees it."""
        code = nearest(self.w[i][j], self.w_shift)
        if self.gains is None:
            return code << self.w_left
        g = self.gains[i][j]
        return clip(nearest(code * g, 13 - self.w_left), 8191) if g >= 0 else -g - 8192

    def there(self, i: int, j: int) -> int:
        """Whether there is a synapse."""
        return 1 if self.mask is None else self.mask[i][j]

    def seen_back(self, i: int, j: int) -> int:
        """The feedback weight as the array sees it: no gains, no scales of its rows."""
        assert self.back is not None
        return nearest(self.back[i][j], self.w_shift) << self.w_left

    @property
    def seen_frac(self) -> int:
        """Fraction bits of that, of a row 0."""
        return self.w_frac - self.w_shift + self.w_left

    @property
    def bounded(self) -> bool:
        """Whether the activation ends by itself."""
        return self.phi in (TANH, SIGMOID)


def signed(word: int, bits: int = 32) -> int:
    """A word as a number; 16 bits: of its lower half."""
    word &= (1 << bits) - 1
    return word - (1 << bits) if word >> (bits - 1) else word


class IntegerChip:
    """The chip of an image for `batch` streams; weights start at 0."""

    def __init__(self, words: Sequence[int], batch: int, first: int = 0) -> None:
        word = [int(x) for x in words]
        head = [signed(x) for x in word[:24]]
        self.batch, self.step_number, self.first_stream = batch, 0, first
        self.digests = [0] * batch
        self.inputs, self.loss = head[3], head[4]
        self.beta, self.gamma = Multiplier.of(word[5]), Multiplier.of(word[6])
        self.input_frac, self.input_max, self.target_frac = head[7:10]
        self.range_every, self.is_stochastic = head[10:12]
        self.seed = word[13] << 32 | word[12]
        self.range_clip, sections = head[14:16]
        self.input_left, self.drift_every, self.drift_shift, self.update_max = head[16:20]
        self.update_noise = Noise.of(word[20])
        packed = (word[21] >> k & 255 for k in (0, 8, 16, 24))
        self.rule, self.momentum, self.norm, self.rises = packed
        self.apply_every, self.rate_every = max(1, word[22]), word[23]
        self.remembers = self.rule != SGD or self.momentum > 0 or self.apply_every > 1
        self.learned = 0
        self.has_rows, self.has_analog, has_inputs, has_gains, has_masks, has_sources, has_back = (
            bool(sections >> k & 1) for k in range(7)
        )
        self.layers: list[Layer] = []
        rest = iter(word[24 + 20 * head[2] :])
        sizes = [word[24 + 20 * k] for k in range(head[2])]
        behind = 24 + 20 * head[2] + 4 * sum(sizes)
        first_neuron, masked = 0, []
        for k in range(head[2]):
            (n, phi, learn, w_frac, w_shift, w_max, u_frac, u_max, r_frac, r_max, e_frac, e_max,
             extra, rate, w_left, _, _, adc_drop, adc_max, has_mask) = (
                signed(x) for x in word[24 + 20 * k :][:20]
            )  # fmt: skip
            noise_e, noise_r = (Noise.of(x) for x in word[24 + 20 * k :][15:17])
            cells = [Cell(*(Multiplier.of(next(rest)) for _ in range(4))) for _ in range(n)]
            sources = [k - 1]
            if has_sources:
                bits = sum(word[behind + 3 * k + part] << 32 * part for part in range(3))
                sources = [s for s in range(-1, k + 1) if bits >> s + 1 & 1]
            m = sum(self.inputs if s < 0 else sizes[s] for s in sources)
            masked.append(has_mask)
            y = Layer(n, m, first_neuron, phi, learn, w_frac, w_shift, w_max, u_frac, u_max,
                      r_frac, r_max, e_frac, e_max, e_frac + extra, rate, w_left,
                      noise_e, noise_r, adc_drop, adc_max, cells, sources)  # fmt: skip
            y.w, y.bias = [[0] * m for _ in range(n)], [0] * n
            y.memory, y.memory_bias = [[0] * m for _ in range(n)], [0] * n
            y.means, y.means_bias = [[0] * m for _ in range(n)], [0] * n
            self.layers.append(y)
            first_neuron += n
        for _ in self.layers if has_sources else ():
            next(rest), next(rest), next(rest)
        self.feedback, self.decay_every, self.decay_shift = (
            [next(rest) for _ in range(3)] if has_back else (0, 0, 0)
        )
        for k, y in enumerate(self.layers):
            if self.feedback == DIRECT:
                shape = (sizes[-1], y.n) if k + 1 < len(sizes) else None
            else:
                shape = (y.n, y.m) if self.feedback and max(y.sources) >= 0 else None
            y.back = shape and [[0] * shape[1] for _ in range(shape[0])]
        cells = [cell for y in self.layers for cell in y.cells]
        for cell in cells if self.has_rows else ():
            cell.row = next(rest)
        for cell in cells if self.has_analog else ():
            cell.offset, cell.gain = signed(next(rest)), next(rest)
            cell.noise_u, adc = Noise.of(next(rest)), next(rest)
            cell.adc_gain, cell.adc_offset = adc & 0xFFFF, signed(adc >> 16, 16)
        self.dac = [next(rest) for _ in range(self.inputs)] if has_inputs else None
        for y in self.layers if has_gains else ():
            pairs = [[next(rest) for _ in range((y.m + 1) // 2)] for _ in range(y.n)]
            y.gains = [[signed(x >> h, 16) for x in row for h in (0, 16)][: y.m] for row in pairs]
        for y in [y for y, has in zip(self.layers, masked, strict=True) if has_masks and has]:
            lines = [[next(rest) for _ in range((y.m + 31) // 32)] for _ in range(y.n)]
            y.mask = [[row[j // 32] >> j % 32 & 1 for j in range(y.m)] for row in lines]
        assert list(rest) == []
        self.reset(first)

    def reset(self, first: int = 0) -> None:
        """States, digests and the step number to 0; the batch's first stream has this number."""
        self.step_number, self.first_stream = 0, first
        self.digests = [0] * self.batch
        for y in self.layers:
            y.window = Window()
            for name in ("u", "uhat", "v", "r", "e", "slope"):
                setattr(y, name, [[0] * y.n for _ in range(self.batch)])

    def key(self, purpose: int, y: Layer) -> tuple[int, int]:
        """Of this step and this layer."""
        return key_of(self.seed, purpose, y.first, self.step_number)

    def index(self, b: int, i: int) -> int:
        """Of a neuron's word of noise: streams keep their numbers in whatever batch they are."""
        return ((self.first_stream + b) * 1024 + i // 4) & U32

    def step(
        self,
        x: Sequence[Sequence[int]],
        target: Sequence[int] | Rows | None,
        learn: bool,
        ranging: bool = False,
    ) -> None:
        """One step. target: labels for cross entropy, [stream][output] for mse."""
        # the error path is at rest, and has no noise, where nothing can listen to it
        self.driven = target is not None or self.gamma.m != 0
        x = [[self.converted(j, code) for j, code in enumerate(row)] for row in x]
        below_frac = [self.heard_frac(y) for y in self.layers]
        below = [self.heard(y, x, f) for y, f in zip(self.layers, below_frac, strict=True)]
        arrays = [[[y.seen(i, j) for j in range(y.m)] for i in range(y.n)] for y in self.layers]
        sums = [
            self.forward(y, seen, b, f)
            for y, seen, b, f in zip(self.layers, arrays, below, below_frac, strict=True)
        ]
        above = self.errors(arrays, self.target_error(target))
        for y, s, a in zip(self.layers, sums, above, strict=True):
            key = self.key(NEURON_NOISE, y)
            for b in range(self.batch):
                for i in range(y.n):
                    self.neuron(y, b, i, s[b][i], a[b][i], key, ranging)
        for b in range(self.batch):
            self.digests[b] = chained(self.digests[b], self.hash_of(b))
        if learn:
            for y, rates, frac in zip(self.layers, below, below_frac, strict=True):
                if y.learn & 1:
                    self.learn(y, rates, frac)
            self.learned += 1
            if self.decay_every and (self.step_number + 1) % self.decay_every == 0:
                for y in [y for y in self.layers if y.learn & 1]:
                    self.relax(y.w, self.decay_shift, self.key(DECAY, y))
                    self.relax(y.back, self.decay_shift, self.key(FEEDBACK_DECAY, y))
        self.step_number += 1
        if ranging and self.range_every and self.step_number % self.range_every == 0:
            for k, y in enumerate(self.layers):
                self.look(k, y)
                y.window = Window()
        if self.drift_every and self.step_number % self.drift_every == 0:
            for y in self.layers:
                self.drift(y)

    def converted(self, j: int, code: int) -> int:
        """An input as the array sees it: through the DAC of its column."""
        code = clip(code, self.input_max) << self.input_left
        if self.dac is not None:
            gain, offset = self.dac[j] & 0xFFFF, signed(self.dac[j] >> 16, 16)
            code = nearest(code * gain + (offset << 13), 13)
        return clip(code, 8191)

    def forward(self, y: Layer, seen: Rows, below: Sequence[Sequence[int]], frac: int) -> Rows:
        """W below in u_frac."""
        shift = y.seen_frac + frac - y.u_frac
        return [
            [
                clip(
                    nearest(sum(w * r for w, r in zip(line, row, strict=True)), shift + cell.row),
                    SUM_MAX,
                )
                for line, cell in zip(seen, y.cells, strict=True)
            ]
            for row in below
        ]

    def heard_frac(self, y: Layer) -> int:
        """The coarsest of a layer's sources."""
        return min(self.input_frac if s < 0 else self.layers[s].r_frac for s in y.sources)

    def heard(self, y: Layer, x: Rows, frac: int) -> Rows:
        """Rates of all sources of a layer, one behind the other, rounded to that."""
        result: Rows = [[] for _ in range(self.batch)]
        for s in y.sources:
            own = self.input_frac if s < 0 else self.layers[s].r_frac
            for row, rates in zip(result, x if s < 0 else self.layers[s].r, strict=True):
                row += [nearest(r, own - frac) for r in rates]
        return result

    def errors(self, arrays: list[Rows], of_target: Rows) -> list[Rows]:
        """What each layer hears of errors: from the last layer that sends on down, each sum
        rounded once, what comes together clipped."""
        above = [[[0] * y.n for _ in range(self.batch)] for y in self.layers[:-1]]
        above.append([row[:] for row in of_target])
        top = self.layers[-1]
        for k in range(len(self.layers) - 1, -1, -1):
            y = self.layers[k]
            if self.feedback == DIRECT:
                if y.back is not None:
                    above[k] = self.back(y, y, top, 0, y)
                continue
            at = 0
            for s in y.sources:
                if s >= 0:
                    part = self.back(y, self.layers[s], y, at, None, arrays[k])
                    for row, more in zip(above[s], part, strict=True):
                        row[:] = [clip(a + b, SUM_MAX) for a, b in zip(row, more, strict=True)]
                at += self.inputs if s < 0 else self.layers[s].n
        return above

    def back(
        self,
        owner: Layer,
        to: Layer,
        sender: Layer,
        at: int,
        direct: Layer | None,
        seen: Rows | None = None,
    ) -> Rows:
        """Errors of `sender` through columns at .. of the owner's weights or feedback, in
        v_frac of `to`."""
        shift = owner.seen_frac + sender.e_frac - to.v_frac
        own = owner.back is None and direct is None  # weights themselves, with their scales
        result = []
        for stream in sender.e:
            sums = [0] * to.n
            for i, error in enumerate(stream):
                e = nearest(error, owner.cells[i].row) if own else error
                for j in range(to.n):
                    if own:
                        assert seen is not None
                        sums[j] += seen[i][at + j] * e
                    else:
                        sums[j] += owner.seen_back(i, at + j) * e
            result.append([clip(nearest(total, shift), SUM_MAX) for total in sums])
        return result

    def target_error(self, target: Sequence[int] | Rows | None) -> Rows:
        """beta (y - softmax r) or beta (y - r) of the output layer, in its v_frac.

        r here is the rate before it is rounded to travel: up to 15 fraction bits, no clip.
        """
        top = self.layers[-1]
        r_frac = min(15, top.u_frac)
        fine = [[self.fine_rate(top, i, u, r_frac) for i, u in enumerate(row)] for row in top.uhat]
        if self.step_number == 0:
            fine = [[0] * top.n for _ in range(self.batch)]
        rows = [[0] * top.n for _ in range(self.batch)]
        for b in range(self.batch if target is not None else 0):
            assert target is not None
            given = target[b]
            if isinstance(given, int):
                if given < 0:
                    continue
                p, frac = softmax24(fine[b], r_frac), 24
                error = [(int(i == given) << 24) - p[i] for i in range(top.n)]
            else:
                frac = max(self.target_frac, r_frac)
                error = [
                    (y << (frac - self.target_frac)) - (r << (frac - r_frac))
                    for y, r in zip(given, fine[b], strict=True)
                ]
            shift = frac + self.beta.k - top.v_frac
            rows[b] = [clip(nearest(e * self.beta.m, shift), SUM_MAX) for e in error]
        return rows

    def fine_rate(self, top: Layer, i: int, uhat: int, r_frac: int) -> int:
        """What an output neuron compares with its target; within the range of a sum."""
        if not self.has_analog:
            return activation(top.phi, uhat, top.u_frac, r_frac)[0]
        cell = top.cells[i]
        rate, _ = activation(top.phi, uhat + cell.offset, top.u_frac, r_frac)
        return clip(nearest(rate * cell.gain, 13), SUM_MAX)

    def neuron(
        self,
        y: Layer,
        b: int,
        i: int,
        total: int,
        above: int,
        key: tuple[int, int],
        ranging: bool,
    ) -> None:
        """The equations of one neuron of one stream."""
        count, cell = y.counters, y.cells[i]
        count["steps"] += 1
        v, u = y.v[b][i], y.u[b][i]

        raw = nearest(above * y.slope[b][i], 15)
        inst = clip(raw, STATE_MAX)
        near = clip(inst - v, cell.ratio_v.limit)
        count["sat_inst"] += raw != inst or near != inst - v
        prospective = v + cell.ratio_v.times(near)
        if y.noise_e is not None and self.driven:
            prospective += y.noise_e.draw(key, self.index(b, i), i, which=1)
        y.v[b][i] = v + cell.leak_v.times(inst - v)
        raw = nearest(prospective, y.v_frac - y.e_frac)
        e = clip(raw, y.e_max)
        sat_e = raw != e
        count["sat_e"] += sat_e
        count["under_e"] += e == 0 and prospective != 0
        y.e[b][i] = e

        raw = total + y.bias[i] + self.nudge(y, e)
        x = clip(raw, y.u_max)
        count["sat_x"] += raw != x
        near = clip(x - u, cell.ratio_u.limit)
        count["sat_uhat"] += near != x - u
        uhat = u + cell.ratio_u.times(near)
        y.u[b][i] = u + cell.leak_u.times(x - u)
        if cell.noise_u is not None:
            y.u[b][i] = clip(y.u[b][i] + cell.noise_u.draw(key, self.index(b, i), i), y.u_max)
        y.uhat[b][i] = uhat
        r, y.slope[b][i], sat_r = self.rate(y, cell, uhat)
        count["sat_r"] += sat_r
        y.r[b][i] = r
        if ranging:
            y.window.samples += 1
            y.window.sat_e += sat_e
            y.window.half_e += abs(e) > y.e_max >> 1
            y.window.sat_r += sat_r
            y.window.peak_r = max(y.window.peak_r, 0 if y.bounded else abs(r))

    def rate(self, y: Layer, cell: Cell, uhat: int) -> tuple[int, int, bool]:
        """Rate, slope, and whether an activation without bounds was cut."""
        if not self.has_analog:
            raw, slope = activation(y.phi, uhat, y.u_frac, y.r_frac)
            r = clip(raw, y.r_max)
            return r, slope, not y.bounded and raw != r
        fine = y.r_frac if cell.gain == 1 << 13 else min(15, y.u_frac, y.r_frac + 4)
        extra = fine - y.r_frac
        raw, slope = activation(y.phi, uhat + cell.offset, y.u_frac, fine)
        inner = clip(raw, y.r_max << extra)
        outer = nearest(inner * cell.gain, 13 + extra)
        r = clip(outer, y.r_max)
        cut = not y.bounded and cell.gain != 0 and (raw != inner or outer != r)
        return r, slope if cell.gain else 0, cut

    def nudge(self, y: Layer, e: int) -> int:
        """gamma e in u_frac, within 2^28; where it is too small for 30 shifts, nothing."""
        shift = self.gamma.k + y.e_frac - y.u_frac
        if shift > 30:
            return 0
        return clip(nearest(e * self.gamma.m, shift), 1 << 28)

    def read_out(self, k: int) -> Rows:
        """The rates of a layer as they are measured now, through the ADC."""
        y = self.layers[k]
        if not self.has_analog:
            return [row[:] for row in y.r]
        key = self.key(READ_OUT_NOISE, y)
        result = []
        for b, rates in enumerate(y.r):
            codes = []
            for i, (r, cell) in enumerate(zip(rates, y.cells, strict=True)):
                more = cell.adc_offset << 7
                if y.noise_r is not None:
                    more += y.noise_r.draw(key, self.index(b, i), i)
                level = r * cell.adc_gain + (more << y.adc_drop)
                code = nearest(level, 13 + y.adc_drop)
                codes.append(clip(code, y.adc_max) << y.adc_drop)
            result.append(codes)
        return result

    # --- learning ---

    def learn(self, y: Layer, below: Sequence[Sequence[int]], frac: int) -> None:
        """The gradient, summed over the batch; what is remembered of it; what is applied."""
        dropped = max(0, (self.batch - 1).bit_length() - 5)
        gradient = [
            [
                nearest(sum(y.e[b][i] * below[b][j] for b in range(self.batch)), dropped)
                * y.there(i, j)
                for j in range(y.m)
            ]
            for i in range(y.n)
        ]
        of_bias = [sum(y.e[b][i] for b in range(self.batch)) for i in range(y.n)]
        rises = min(self.rises, self.learned // self.rate_every) if self.rate_every else 0
        rate = min(64, y.rate_shift + (y.learn >> 8) + rises)
        if not self.remembers:
            scale, rows = y.e_frac + frac - dropped + rate, [cell.row for cell in y.cells]
            self.update(y, y.w, gradient, rows, scale, self.key(WEIGHT_UPDATE, y),
                        self.key(UPDATE_NOISE, y))  # fmt: skip
            if self.feedback == KOLEN_POLLACK and y.back is not None:
                self.update(y, y.back, gradient, [0] * y.n, scale, self.key(FEEDBACK_UPDATE, y),
                            self.key(FEEDBACK_NOISE, y))  # fmt: skip
            self.update_bias(y, of_bias, y.e_frac + rate, self.step_number)
            return
        now = (self.learned + 1) % self.apply_every == 0
        bits = (self.batch - 1).bit_length()
        drop = self.drop(26 + bits - dropped)
        key = key_of(self.seed, NORM, y.first, self.learned)
        asked = [
            [
                self.recall(y, y.memory[i], y.means[i], j, g, drop, key, i * y.m + j, now)
                for j, g in enumerate(row)
            ]
            for i, row in enumerate(gradient)
        ]
        drop_bias = self.drop(13 + bits)
        key = key_of(self.seed, NORM_BIAS, y.first, self.learned)
        asked_bias = [
            self.recall(y, y.memory_bias, y.means_bias, i, g, drop_bias, key, i, now)
            for i, g in enumerate(of_bias)
        ]
        if now:
            scale, scale_bias = (
                (f + self.momentum, 16, 0)[self.rule]
                for f in (y.e_frac + frac - dropped - drop, y.e_frac - drop_bias)
            )
            key, noise_key = (
                key_of(self.seed, purpose, y.first, self.learned)
                for purpose in (WEIGHT_UPDATE, UPDATE_NOISE)
            )
            self.update(y, y.w, asked, [cell.row for cell in y.cells], scale + rate, key, noise_key)
            self.update_bias(y, asked_bias, scale_bias + rate, self.learned)

    def drop(self, bits: int) -> int:
        """Bits of a gradient of so many that an accumulator does not hold."""
        steps = self.momentum + (self.apply_every - 1).bit_length()
        return max(0, bits + (steps + 1) // 2 - 30)

    def recall(self, y: Layer, memory: list[int], means: list[int], j: int, gradient: int,
               drop: int, key: tuple[int, int], index: int, now: bool) -> int:  # fmt: skip
        """An accumulator takes up a gradient; what it asks for if it is applied now."""
        most = (1 << 30) - 1
        g = clip(nearest(gradient, drop), most)
        a = clip(memory[j] + g, most)
        y.counters["sat_gradient"] += a != memory[j] + g
        memory[j] = a
        if not now:
            return 0
        lost = -(-abs(a) >> self.momentum) if self.momentum else abs(a)
        memory[j] = a - lost if a > 0 else a + lost
        if self.rule == SGD:
            return a
        if self.rule == SIGN:
            return (a > 0) - (a < 0)
        x = abs(g) if self.apply_every == 1 else abs(a) >> self.momentum
        means[j] = c = self.mean(means[j], x, key, index)
        k = self.momentum + ((c + 4) >> 3)
        return nearest(clip(a, 1 << (k + 4)), k - 16)

    def mean(self, c: int, x: int, key: tuple[int, int], index: int) -> int:
        """A running mean 2^(c/8) hears x."""
        if c == 0:
            return 8 * (x.bit_length() - 1) + 4 if x else 0
        n = min(self.norm, 4 + (self.learned // self.apply_every).bit_length())
        o = c >> 3
        t = (min(x, 1 << (o + 10)) << 6) >> o
        one = 1024 * 8 / math.log(2)
        d = t * math.floor(one * 2 ** (-(c & 7) / 8) + 0.5) - 64 * math.floor(one + 0.5)
        d = min(d, 8 << (16 + n))
        return max(1, min(255, c + ((d + (random32(key, index) >> (16 - n))) >> (16 + n))))

    def update(self, y: Layer, w: Rows, asked: Rows, finer: Sequence[int], scale: int,
               key: tuple[int, int], noise_key: tuple[int, int]) -> None:  # fmt: skip
        """w += round(asked * 2^-k) where there are synapses, in steps of the stored weight."""
        for i in range(y.n):
            k = scale - (y.w_frac + finer[i])
            for j in range(y.m):
                if not y.there(i, j):
                    continue
                g = asked[i][j]
                if self.update_noise is not None:
                    g = clip(g, 1 << 30)
                    d = clip(self.update_noise.draw(noise_key, i // 4 * y.m + j, i), 8191)
                    g += (g >> 13) * d + (((g & 8191) * d + 4096) >> 13)
                random = random_of_weight(key, y.m, i, j)
                delta = clip(self.rounded(g, k, random), self.update_max)
                # what is asked for is the update as it varies: one of 1 may vary to 0
                y.counters["updates"] += g != 0
                y.counters["under_w"] += g != 0 and delta == 0
                cut = abs(w[i][j] + delta) > y.w_max
                y.counters["sat_w"] += cut
                y.window.sat_w += cut
                w[i][j] = clip(w[i][j] + delta, y.w_max)

    def update_bias(self, y: Layer, asked: list[int], scale: int, count: int) -> None:
        """The same for biases, which are states: no noise, no largest update."""
        key = key_of(self.seed, BIAS_UPDATE, y.first, count)
        for i in range(y.n):
            delta = self.rounded(asked[i], scale - y.u_frac, random32(key, i))
            y.bias[i] = clip(y.bias[i] + delta, STATE_MAX)

    def rounded(self, x: int, k: int, random: int) -> int:
        """An update in steps of the stored weight; larger than 32 bits counts as that."""
        if k > 0 and self.is_stochastic:
            return stochastic(x, k, random)
        return clip32(nearest(x, k))

    def drift(self, y: Layer) -> None:
        """Every stored weight loses its share, rounded stochastically."""
        self.relax(y.w, self.drift_shift, self.key(DRIFT, y))
        self.relax(y.back, self.drift_shift, self.key(FEEDBACK_DRIFT, y))

    def relax(self, w: Rows | None, shift: int, key: tuple[int, int]) -> None:
        """A share of 2^-shift goes."""
        for i, row in enumerate(w or ()):
            for j in range(len(row)):
                row[j] -= stochastic(row[j], shift, random32(key, i * len(row) + j))

    # --- auto-ranging ---

    def look(self, k: int, y: Layer) -> None:
        """Move a layer's scales by one bit where its signals ask for it."""
        seen = y.window
        if seen.samples == 0:
            return
        if seen.sat_e * 65536 > seen.samples * self.range_clip:
            self.move_error(k, y, -1)
        elif seen.half_e * 2 * 65536 < seen.samples * self.range_clip:
            self.move_error(k, y, 1)
        if not y.bounded:
            if seen.sat_r * 10000 > seen.samples:
                self.move_rate(k, y, -1)
            elif seen.sat_r == 0 and 0 < seen.peak_r * 10 < y.r_max * 4:
                self.move_rate(k, y, 1)
        if seen.sat_w and not y.learn & 8:
            y.w_frac -= 1
            if self.possible(k):
                y.w = [[clip(nearest(w, 1), y.w_max) for w in row] for row in y.w]
                if y.back is not None:
                    y.back = [[clip(nearest(w, 1), y.w_max) for w in row] for row in y.back]
                y.counters["range_moves"] += 1
            else:
                y.w_frac += 1

    def possible(self, k: int) -> bool:
        """Whether all products have shifts that the kernels can do."""
        del k
        result = True
        for y in self.layers:
            finest = max(cell.row for cell in y.cells)
            result &= -14 <= y.seen_frac + self.heard_frac(y) - y.u_frac <= 31 - finest
            if self.feedback == DIRECT:
                top = self.layers[-1]
                if y.back is not None:
                    result &= -14 <= y.seen_frac + top.e_frac - y.v_frac <= 31
                continue
            for s in y.sources:
                if s >= 0:
                    result &= -14 <= y.seen_frac + y.e_frac - self.layers[s].v_frac <= 31
        return result

    def move_error(self, k: int, y: Layer, by: int) -> None:
        """Errors and error neurons, one bit finer or coarser."""
        y.e_frac, y.v_frac = y.e_frac + by, y.v_frac + by
        if not (-12 <= y.e_frac <= 24 and self.possible(k)):
            y.e_frac, y.v_frac = y.e_frac - by, y.v_frac - by
            return
        y.e = [[clip(nearest(x, -by), y.e_max) for x in row] for row in y.e]
        y.v = [[clip(nearest(x, -by), STATE_MAX) for x in row] for row in y.v]
        self.rescale(y, by)
        y.memory_bias = [clip(nearest(a, -by), (1 << 30) - 1) for a in y.memory_bias]
        y.means_bias = [shifted_mean(c, by) for c in y.means_bias]
        y.counters["range_moves"] += 1

    def move_rate(self, k: int, y: Layer, by: int) -> None:
        """Rates, one bit finer or coarser; four bits finer than the membrane is no use."""
        heard = [self.heard_frac(z) for z in self.layers]
        y.r_frac += by
        too_fine = by > 0 and y.r_frac > min(15, y.u_frac - 4)
        if too_fine or y.r_frac < -8 or y.u_frac - y.r_frac > 30 or not self.possible(k):
            y.r_frac -= by
            return
        y.r = [[clip(nearest(x, -by), y.r_max) for x in row] for row in y.r]
        for z, before in zip(self.layers, heard, strict=True):
            if self.heard_frac(z) != before:
                self.rescale(z, by)
        y.counters["range_moves"] += 1

    def rescale(self, y: Layer, by: int) -> None:
        """What is remembered of gradients whose scale moved by one bit."""
        y.memory = [[clip(nearest(a, -by), (1 << 30) - 1) for a in row] for row in y.memory]
        y.means = [[shifted_mean(c, by) for c in row] for row in y.means]

    # --- digests ---

    def hash_of(self, b: int) -> int:
        """All states of one stream after a step, each times an odd number of its own."""
        total = 0
        for y in self.layers:
            for i in range(y.n):
                at = 3 * (y.first + i)
                total += ((at + 1) * 0x9E3779B1 & U32 | 1) * y.u[b][i]
                total += ((at + 2) * 0x85EBCA77 & U32 | 1) * y.v[b][i]
                both = y.e[b][i] << 16 | y.r[b][i] & 0xFFFF
                total += ((at + 3) * 0xC2B2AE3D & U32 | 1) * both
        return total & U32

    def weights_digest(self) -> int:
        """Of stored weights, biases and formats."""
        d = 0
        for y in self.layers:
            for line, bias in zip(y.w, y.bias, strict=True):
                row = bias & U32
                for w in line:
                    row = (row * 0xD6E8FEB86659FD93 + (w & 0xFFFF)) & U64
                d = mixed(d, row)
            for i in range(y.n if self.remembers and y.learn & 1 else 0):
                row = y.means_bias[i] << 32 | y.memory_bias[i] & U32
                for a, c in zip(y.memory[i], y.means[i], strict=True):
                    row = (row * 0xD6E8FEB86659FD93 + (c << 32 | a & U32)) & U64
                d = mixed(d, row)
            for line in y.back or ():
                row = 0
                for w in line:
                    row = (row * 0xD6E8FEB86659FD93 + (w & 0xFFFF)) & U64
                d = mixed(d, row)
            d = mixed(d, (y.w_frac & U32) << 32 | y.u_frac & U32)
            d = mixed(d, (y.r_frac & U32) << 32 | y.e_frac & U32)
        return mixed(d, self.learned) if self.remembers or self.rate_every else d

    def digest(self) -> int:
        """Of everything."""
        d = mixed(self.weights_digest(), self.step_number)
        for of_stream in self.digests:
            d = mixed(d, of_stream)
        return d


def mixed(digest: int, word: int) -> int:
    """A digest takes up a word."""
    return mix64(((digest ^ word) + 0x9E3779B97F4A7C15) & U64)


def shifted_mean(c: int, by: int) -> int:
    """The logarithm of a mean whose numbers were doubled (by 1) or halved (-1)."""
    return max(1, min(255, c + 8 * by)) if c else 0


def chained(digest: int, word: int) -> int:
    """A stream's digest takes up a step."""
    d = (digest ^ word) * 0xD6E8FEB86659FD93 & U64
    return d ^ d >> 32


def softmax24(r: Sequence[int], r_frac: int) -> list[int]:
    """Probabilities with 24 fraction bits: powers of two below the largest rate.

    2^-t with 20 fraction bits from 16 fraction bits of t; the reciprocal of the sum is
    taken of its upper 16 bits.
    """
    powers = []
    for value in r:
        t = min((max(r) - value) * 94548 >> r_frac, (1 << 31) - 1)  # log2(e) in 16 bits
        whole, at, part = t >> 16, t >> 8 & 0xFF, t & 0xFF
        y = EXP2_TABLE[at] - nearest((EXP2_TABLE[at] - EXP2_TABLE[at + 1]) * part, 8)
        powers.append(0 if whole > 20 else y >> whole)
    norm = max(0, sum(powers).bit_length() - 16)
    inverse = U32 // (sum(powers) >> norm)
    return [p * inverse >> (32 + norm - 24) for p in powers]
