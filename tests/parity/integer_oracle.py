"""The chip once more, in Python's whole numbers: literal loops, no widths, no vectors.

Written from the design (the order of a step, exact sums rounded once, clips) and from
the comments of csrc/gle.h, fixed.h, rng.h and phi.h, not from the C. It reads the same
image words as the core. Slow on purpose: what it says should be plain to read.
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
WEIGHT_UPDATE, BIAS_UPDATE = 1, 2


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


def random32(key: tuple[int, int], index: int) -> int:
    """32 random bits of one index."""
    x = index ^ key[0]
    x = (x ^ x >> 16) * 0x7FEB352D & U32
    x = ((x ^ x >> 15) + key[1]) * 0x846CA68B & U32
    x ^= x >> 16
    x = x * 0x9E3779B1 & U32
    return x ^ x >> 15


def stochastic(x: int, k: int, key: tuple[int, int], index: int) -> int:
    """x * 2^-k, k > 0: up with the probability of what is dropped, to 31 bits of it."""
    x, k = x >> max(0, min(k - 31, 31)), min(k, 31)
    return (x + (random32(key, index) >> (32 - k))) >> k


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
    leak_u: list[Multiplier]
    ratio_u: list[Multiplier]
    leak_v: list[Multiplier]
    ratio_v: list[Multiplier]
    w: Rows = field(default_factory=list)
    bias: list[int] = field(default_factory=list)
    u: Rows = field(default_factory=list)
    uhat: Rows = field(default_factory=list)
    v: Rows = field(default_factory=list)
    r: Rows = field(default_factory=list)
    e: Rows = field(default_factory=list)
    slope: Rows = field(default_factory=list)
    # the oracle accumulates no gradients: that counter stays 0 (tests/link/test_device_core.py)
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*COUNTED, "sat_gradient"), 0)
    )

    def seen(self, i: int, j: int) -> int:
        """The weight as the array sees it."""
        return nearest(self.w[i][j], self.w_shift)


def signed(word: int) -> int:
    """A 32-bit word as a number."""
    return word - (1 << 32) if word >> 31 else word


class IntegerChip:
    """The chip of an image for `batch` streams; weights start at 0."""

    def __init__(self, words: Sequence[int], batch: int) -> None:
        word = [int(x) for x in words]
        head = [signed(x) for x in word[:16]]
        self.batch, self.step_number = batch, 0
        self.inputs, self.loss = head[3], head[4]
        self.beta, self.gamma = Multiplier.of(word[5]), Multiplier.of(word[6])
        self.input_frac, self.input_max, self.target_frac = head[7:10]
        self.is_stochastic = head[11]
        self.seed = word[13] << 32 | word[12]
        self.layers: list[Layer] = []
        at = 16 + 16 * head[2]
        m, first = self.inputs, 0
        for k in range(head[2]):
            (n, phi, learn, w_frac, w_shift, w_max, u_frac, u_max, r_frac, r_max, e_frac, e_max,
             extra, rate) = (signed(x) for x in word[16 + 16 * k :][:14])  # fmt: skip
            neurons = [[Multiplier.of(x) for x in word[at + 4 * i :][:4]] for i in range(n)]
            at += 4 * n
            leak_u, ratio_u, leak_v, ratio_v = ([row[c] for row in neurons] for c in range(4))
            y = Layer(n, m, first, phi, learn, w_frac, w_shift, w_max, u_frac, u_max, r_frac,
                      r_max, e_frac, e_max, e_frac + extra, rate,
                      leak_u, ratio_u, leak_v, ratio_v)  # fmt: skip
            y.w, y.bias = [[0] * m for _ in range(n)], [0] * n
            for name in ("u", "uhat", "v", "r", "e", "slope"):
                setattr(y, name, [[0] * n for _ in range(batch)])
            self.layers.append(y)
            m, first = n, first + n
        assert at == len(word)

    def step(
        self, x: Sequence[Sequence[int]], target: Sequence[int] | Rows | None, learn: bool
    ) -> None:
        """One step. target: labels for cross entropy, [stream][output] for mse."""
        x = [[clip(value, self.input_max) for value in row] for row in x]
        below: list[Sequence[Sequence[int]]] = [x]
        below += [[row[:] for row in y.r] for y in self.layers[:-1]]
        below_frac = [self.input_frac, *(y.r_frac for y in self.layers[:-1])]
        sums = [
            self.forward(y, b, f) for y, b, f in zip(self.layers, below, below_frac, strict=True)
        ]
        above = [
            self.back(upper, lower)
            for lower, upper in zip(self.layers[:-1], self.layers[1:], strict=True)
        ]
        above.append(self.target_error(target))
        for y, s, a in zip(self.layers, sums, above, strict=True):
            for b in range(self.batch):
                for i in range(y.n):
                    self.neuron(y, b, i, s[b][i], a[b][i])
        if learn:
            for y, rates, frac in zip(self.layers, below, below_frac, strict=True):
                if y.learn:
                    self.update(y, rates, frac)
        self.step_number += 1

    def forward(self, y: Layer, below: Sequence[Sequence[int]], frac: int) -> Rows:
        """W below in u_frac."""
        shift = y.w_frac - y.w_shift + frac - y.u_frac
        return [
            [
                clip(nearest(sum(y.seen(i, j) * row[j] for j in range(y.m)), shift), SUM_MAX)
                for i in range(y.n)
            ]
            for row in below
        ]

    def back(self, upper: Layer, lower: Layer) -> Rows:
        """W^T e of the upper layer in v_frac of the lower one."""
        shift = upper.w_frac - upper.w_shift + upper.e_frac - lower.v_frac
        return [
            [
                clip(nearest(sum(upper.seen(i, j) * e[i] for i in range(upper.n)), shift), SUM_MAX)
                for j in range(upper.m)
            ]
            for e in upper.e
        ]

    def target_error(self, target: Sequence[int] | Rows | None) -> Rows:
        """beta (y - softmax r) or beta (y - r) of the output layer, in its v_frac.

        r here is the rate before it is rounded to travel: up to 15 fraction bits, no clip.
        """
        top = self.layers[-1]
        r_frac = min(15, top.u_frac)
        fine = [[activation(top.phi, u, top.u_frac, r_frac)[0] for u in row] for row in top.uhat]
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

    def neuron(self, y: Layer, b: int, i: int, total: int, above: int) -> None:
        """The equations of one neuron of one stream."""
        count = y.counters
        count["steps"] += 1
        v, u = y.v[b][i], y.u[b][i]

        raw = nearest(above * y.slope[b][i], 15)
        inst = clip(raw, STATE_MAX)
        near = clip(inst - v, y.ratio_v[i].limit)
        count["sat_inst"] += raw != inst or near != inst - v
        prospective = v + y.ratio_v[i].times(near)
        y.v[b][i] = v + y.leak_v[i].times(inst - v)
        raw = nearest(prospective, y.v_frac - y.e_frac)
        e = clip(raw, y.e_max)
        count["sat_e"] += raw != e
        count["under_e"] += e == 0 and prospective != 0
        y.e[b][i] = e

        raw = total + y.bias[i] + self.nudge(y, e)
        x = clip(raw, y.u_max)
        count["sat_x"] += raw != x
        near = clip(x - u, y.ratio_u[i].limit)
        count["sat_uhat"] += near != x - u
        uhat = u + y.ratio_u[i].times(near)
        y.u[b][i] = u + y.leak_u[i].times(x - u)
        y.uhat[b][i] = uhat
        raw, y.slope[b][i] = activation(y.phi, uhat, y.u_frac, y.r_frac)
        r = clip(raw, y.r_max)
        count["sat_r"] += y.phi not in (TANH, SIGMOID) and raw != r
        y.r[b][i] = r

    def nudge(self, y: Layer, e: int) -> int:
        """gamma e in u_frac, within 2^28; where it is too small for 30 shifts, nothing."""
        shift = self.gamma.k + y.e_frac - y.u_frac
        if shift > 30:
            return 0
        return clip(nearest(e * self.gamma.m, shift), 1 << 28)

    def update(self, y: Layer, below: Sequence[Sequence[int]], frac: int) -> None:
        """Plain SGD: stored += round(gradient * 2^-k), gradients summed over the batch."""
        dropped = max(0, (self.batch - 1).bit_length() - 5)
        k = y.e_frac + frac - dropped + y.rate_shift - y.w_frac
        key = key_of(self.seed, WEIGHT_UPDATE, y.first, self.step_number)
        for i in range(y.n):
            for j in range(y.m):
                g = sum(y.e[b][i] * below[b][j] for b in range(self.batch))
                g = nearest(g, dropped)
                delta = self.rounded(g, k, key, i * y.m + j)
                y.counters["updates"] += g != 0
                y.counters["under_w"] += g != 0 and delta == 0
                y.counters["sat_w"] += abs(y.w[i][j] + delta) > y.w_max
                y.w[i][j] = clip(y.w[i][j] + delta, y.w_max)
        k = y.e_frac + y.rate_shift - y.u_frac
        key = key_of(self.seed, BIAS_UPDATE, y.first, self.step_number)
        for i in range(y.n):
            delta = self.rounded(sum(y.e[b][i] for b in range(self.batch)), k, key, i)
            y.bias[i] = clip(y.bias[i] + delta, STATE_MAX)

    def rounded(self, x: int, k: int, key: tuple[int, int], index: int) -> int:
        """An update in steps of the stored weight; larger than 32 bits counts as that."""
        if k > 0 and self.is_stochastic:
            return stochastic(x, k, key, index)
        return clip32(nearest(x, k))


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
