"""Random chips as the words of an image, and the core that takes these words.

Nothing here goes through hwgle's own network, chip or quantisation: an image is drawn
word by word, with every section and every imperfection on or off at random, so that the
core can be held against its contract and not against the Python that feeds it. All draws
come from a counter (SplitMix64 in whole numbers): one seed is one image on every machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
from hwgle._core import ffi, lib
from numpy.typing import NDArray

T = TypeVar("T")

MAGIC = 0x32454C47
ROWS, ANALOG, INPUTS, GAINS, MASKS, SOURCES, FEEDBACK = (1 << k for k in range(7))
ALIGNMENT, KOLEN_POLLACK, DIRECT = 1, 2, 3
U32 = (1 << 32) - 1
ONE = 8192  # Q13
STATE_MAX = (1 << 28) - 1
GUARD = 4096  # bytes behind an arena that no chip may touch
LINEAR, TANH, SIGMOID, SOFTPLUS, RELU = range(5)
SIGNALS = ("r", "u", "uhat", "v", "e")
NO_NEURON = (0, ONE, 0, ONE)  # of ANALOG: offset 0, gain 1, no noise, a perfect ADC channel

# What can be on or off by itself.
FEATURES = (
    *("input_left", "inputs", "w_left", "gains", "rows", "analog", "noise_u", "noise_e"),
    *("noise_r", "adc", "update_noise", "update_max", "drift"),
)


class Draws:
    """A stream of numbers that follows from its seed alone."""

    def __init__(self, *seed: int) -> None:
        self._state = 0
        for part in seed:
            self._state = (self._state ^ part) & (1 << 64) - 1
            self.bits()

    def bits(self) -> int:
        """64 of them."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & (1 << 64) - 1
        z = self._state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        z = (z ^ z >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        return z ^ z >> 31

    def between(self, least: int, most: int) -> int:
        """Both included."""
        return least + self.bits() % (most - least + 1)

    def chance(self, percent: int) -> bool:
        """True that often."""
        return self.bits() % 100 < percent

    def pick(self, *from_these: T) -> T:
        """One of them."""
        return from_these[self.bits() % len(from_these)]

    def bell(self, limit: int) -> int:
        """Within +-limit, mostly near 0."""
        return sum(self.between(-limit, limit) for _ in range(4)) // 4

    def array(self, shape: tuple[int, ...], limit: int, kind: int) -> NDArray[np.int64]:
        """Whole numbers within +-limit; 0 bell, 1 flat, 2 tiny, 3 largest, 4 one largest."""
        sign = self.pick(-1, 1)
        draw = {
            0: lambda: self.bell(limit),
            1: lambda: self.between(-limit, limit),
            2: lambda: self.between(-min(3, limit), min(3, limit)),
            3: lambda: limit * self.pick(-1, 1),
            4: lambda: limit * sign,
        }[kind]
        flat = [draw() for _ in range(int(np.prod(shape)))]
        return np.array(flat, dtype=np.int64).reshape(shape)


def noise_word(m: int, k: int) -> int:
    """Noise of m * 2^-k times the sum of four random bytes."""
    assert 0 <= m <= 32767
    assert -5 <= k <= 31
    return m << 8 | (k + 8)


def noise_of(sd: float) -> int:
    """The word of a standard deviation, with as many bits as there are."""
    for k in range(31, -6, -1):
        m = round(sd / 147.8005 * 2.0**k)
        if m <= 32767:
            return noise_word(m, k) if m else 0
    return noise_word(32767, -5)


def coefficient(d: Draws, least: int, most: int) -> int:
    """A multiplier from 2^least to about 2^(most + 1) with a random mantissa, never above 1
    if most is -1."""
    k = 14 - d.between(least, most)
    return d.between(1 << 14, (1 << 15) - 1) << 8 | max(1, min(31, k))


ONE_COEFFICIENT = 1 << 14 << 8 | 14


@dataclass
class LayerPlan:
    """The words of a layer, in their order."""

    size: int
    phi: int
    learn: int = 1
    w_frac: int = 12
    w_shift: int = 0
    w_max: int = 8191
    u_frac: int = 16
    u_max: int = STATE_MAX
    r_frac: int = 10
    r_max: int = 8191
    e_frac: int = 10
    e_max: int = 8191
    v_frac_extra: int = 8
    rate_shift: int = 0
    w_left: int = 0
    noise_e: int = 0
    noise_r: int = 0
    adc_drop: int = 0
    adc_max: int = 8191
    masked: int = 0

    @property
    def seen_frac(self) -> int:
        """Fraction bits of the weights that the array sees, of a row 0."""
        return self.w_frac - self.w_shift + self.w_left

    @property
    def code_max(self) -> int:
        """Largest |code| of a stored weight."""
        return (self.w_max + (1 << self.w_shift) // 2) >> self.w_shift


@dataclass
class Plan:
    """An image before it is words. Sections are lists, None where the image has none."""

    inputs: int
    layers: list[LayerPlan]
    neurons: list[tuple[int, int, int, int]]
    loss: int = 1
    beta: int = ONE_COEFFICIENT
    gamma: int = 15
    input_frac: int = 10
    input_max: int = 8191
    target_frac: int = 10
    range_every: int = 0
    stochastic: int = 1
    seed: int = 0
    range_clip: int = 0
    input_left: int = 0
    drift_every: int = 0
    drift_shift: int = 1
    update_max: int = 65535
    update_noise: int = 0
    learner: int = 0  # rule | momentum_shift << 8 | norm_shift << 16 | rises << 24
    apply_every: int = 0
    rate_every: int = 0
    rows: list[int] | None = None
    analog: list[tuple[int, int, int, int]] | None = None
    dac: list[int] | None = None  # a word per input
    gains: list[list[list[int]]] | None = None  # [layer][neuron][input]
    masks: list[list[list[int]] | None] | None = None  # [layer][neuron][input]; None: all there
    sources: list[list[int]] | None = None  # [layer], -1: the inputs; None: a chain
    feedback: tuple[int, int, int] | None = None  # kind, decay_every, decay_shift
    what: str = field(default="", compare=False)

    @property
    def sections(self) -> int:
        """Flags of the sections that are there."""
        there = (self.rows, self.analog, self.dac, self.gains, self.masks, self.sources,
                 self.feedback)  # fmt: skip
        return sum(1 << k for k, section in enumerate(there) if section is not None)

    def fan_in(self, k: int) -> int:
        """Inputs of a layer."""
        heard = [k - 1] if self.sources is None else self.sources[k]
        return sum(self.inputs if s < 0 else self.layers[s].size for s in heard)

    def back_shape(self, k: int) -> tuple[int, int] | None:
        """Of a layer's feedback weights."""
        if self.feedback is None:
            return None
        if self.feedback[0] == DIRECT:
            last = len(self.layers) - 1
            return (self.layers[-1].size, self.layers[k].size) if k < last else None
        heard = [k - 1] if self.sources is None else self.sources[k]
        return (self.layers[k].size, self.fan_in(k)) if max(heard) >= 0 else None

    def words(self) -> list[int]:
        """The image."""
        out = [MAGIC, 0, len(self.layers), self.inputs, self.loss, self.beta, self.gamma]
        out += [self.input_frac, self.input_max, self.target_frac, self.range_every]
        out += [self.stochastic, self.seed & U32, self.seed >> 32, self.range_clip]
        out += [self.sections, self.input_left, self.drift_every, self.drift_shift]
        out += [self.update_max, self.update_noise]
        out += [self.learner, self.apply_every, self.rate_every]
        for y in self.layers:
            out += [getattr(y, f.name) for f in fields(y)]
        for four in self.neurons:
            out += four
        for heard in self.sources or []:
            bits = sum(1 << s + 1 for s in heard)
            out += [bits >> 32 * part & U32 for part in range(3)]
        out += self.feedback or ()
        out += self.rows or []
        for four in self.analog or []:
            out += four
        out += self.dac or []
        for matrix in self.gains or []:
            for row in matrix:
                even = [*row, 0] if len(row) % 2 else row
                out += [
                    (low & 0xFFFF) | (high & 0xFFFF) << 16
                    for low, high in zip(even[::2], even[1::2], strict=True)
                ]
        for mask in self.masks or []:
            for row in mask or []:
                bits = sum(there << j for j, there in enumerate(row))
                out += [bits >> 32 * part & U32 for part in range((len(row) + 31) // 32)]
        out[1] = len(out)
        return [x & U32 for x in out]

    def valid(self) -> bool:
        """Whether the core takes it."""
        words = np.array(self.words(), dtype=np.uint32)
        at = ffi.from_buffer("uint32_t[]", words)
        return bool(lib.gle_image_check(at, words.size) == lib.GLE_OK)

    def without(self, feature: str) -> Plan:
        """The same chip with one imperfection that it never had."""
        none: dict[str, dict[str, Any]] = {
            "inputs": {"dac": None},
            "gains": {"gains": None},
            "rows": {"rows": None},
            "analog": {"analog": None},
            "update_noise": {"update_noise": 0},
            "update_max": {"update_max": 65535},
            "drift": {"drift_every": 0, "drift_shift": 1},
        }
        if feature in none:
            return replace(self, **none[feature])
        if feature == "noise_u":
            analog = self.analog and [(a, b, 0, d) for a, b, _, d in self.analog]
            return replace(self, analog=analog)
        per_layer: dict[str, dict[str, int]] = {
            "noise_e": {"noise_e": 0},
            "noise_r": {"noise_r": 0},
            "adc": {"adc_drop": 0, "adc_max": 8191},
        }
        return replace(self, layers=[replace(y, **per_layer[feature]) for y in self.layers])


# --- drawn --------------------------------------------------------------------------------------


def one_channel(gain: int, offset: int) -> int:
    """Gain and offset of a converter in one word."""
    return (gain & 0xFFFF) | (offset & 0xFFFF) << 16


def tame_layer(d: Draws, size: int, phi: int, on: Collection[str]) -> LayerPlan:
    """A layer whose numbers are neither all 0 nor all at their limits."""
    bits = d.between(4, 11) if "w_left" in on else 14
    shift = d.between(0, 16 - bits) if d.chance(60) else 0
    seen_frac = d.between(9, 11) if "rows" in on else d.between(11, 13)
    u_frac, r_bits, e_bits = d.between(12, 20), d.between(6, 14), d.between(8, 14)
    bounded = phi in (TANH, SIGMOID)
    return LayerPlan(
        size,
        phi,
        learn=int(d.chance(85)),
        w_frac=seen_frac + shift - (14 - bits),
        w_shift=shift,
        w_max=((1 << bits - 1) - 1) << shift,
        u_frac=u_frac,
        u_max=d.pick(STATE_MAX, 1 << u_frac + 3, 3 << u_frac),
        r_frac=min(u_frac, r_bits - 1 - (0 if bounded else d.between(0, 2))),
        r_max=(1 << r_bits - 1) - 1,
        e_frac=e_bits - 1 - d.between(0, 3),
        e_max=(1 << e_bits - 1) - 1,
        v_frac_extra=d.between(0, 14),
        w_left=14 - bits,
    )


def tame_neuron(d: Draws) -> tuple[int, int, int, int]:
    """Time constants within a factor of 8 of each other."""
    slow, ratio = d.between(0, 4), d.between(-3, 3)
    if d.chance(30):
        ratio = 0
    k = 14 - ratio
    mantissa = d.between(1 << 14, (1 << 15) - 1)
    back = (1 << 28) // mantissa
    leak_u, leak_v = coefficient(d, -5, -1 - slow), coefficient(d, -5, -1)
    if d.chance(20):
        leak_u = leak_v = ONE_COEFFICIENT
    return leak_u, mantissa << 8 | k, leak_v, min(back, 32767) << 8 | (28 - k)


def draw_imperfections(d: Draws, plan: Plan, on: Collection[str], extreme: bool) -> None:
    """The sections and words of whatever is on."""
    total = sum(y.size for y in plan.layers)

    def some_noise(sd: float) -> int:
        if extreme and d.chance(30):
            return noise_word(d.pick(0, 1, 32767), d.pick(-5, 0, 31))
        return noise_of(sd * d.between(1, 64) / 16)

    if "rows" in on:
        plan.rows = [d.between(0, 7) if d.chance(80) else d.pick(0, 7) for _ in range(total)]
    if "analog" in on:
        plan.analog = []
        for y in plan.layers:
            for _ in range(y.size):
                offset = d.bell(1 << y.u_frac - 2)
                gain = ONE + d.bell(ONE // 2) if d.chance(80) else ONE
                adc = one_channel(ONE + d.bell(ONE // 4), d.bell(64 << y.adc_drop))
                if d.chance(10):
                    gain = d.pick(0, 0, 1, 16383)
                if extreme and d.chance(30):
                    offset = d.pick(-STATE_MAX, STATE_MAX, 1, -1)
                if extreme and d.chance(30):
                    adc = one_channel(d.pick(0, 1, 32767), d.pick(-32768, 32767, 0))
                noise = some_noise(2.0 ** (y.u_frac - 7)) if "noise_u" in on else 0
                plan.analog.append((offset, gain, noise, adc))
    for y in plan.layers:
        if "noise_e" in on:
            y.noise_e = some_noise(2.0**y.v_frac_extra)
        if "noise_r" in on:
            y.noise_r = some_noise(ONE << y.adc_drop)
    if "inputs" in on:
        plan.dac = [one_channel(ONE + d.bell(ONE // 4), d.bell(256)) for _ in range(plan.inputs)]
        if extreme:
            for j in range(0, plan.inputs, 3):
                plan.dac[j] = one_channel(d.pick(0, 1, 32767), d.pick(-32768, 32767, 0))
    if "gains" in on:
        plan.gains = []
        for k, y in enumerate(plan.layers):
            g = [[ONE + d.bell(ONE // 2) for _ in range(plan.fan_in(k))] for _ in range(y.size)]
            for row in g:
                for j in range(len(row)):
                    if d.chance(15):
                        row[j] = d.pick(0, 1, 32767, -1, -8192, -16383, -d.between(1, 16383))
            plan.gains.append(g)
    if "update_noise" in on:
        plan.update_noise = some_noise(ONE / 4)
    if "update_max" in on:
        plan.update_max = d.pick(1, 3, d.between(2, 400), 40000, 65534)
    if "drift" in on:
        plan.drift_every = d.pick(1, 2, d.between(1, 9))
        plan.drift_shift = d.pick(1, d.between(2, 12), 30 if extreme else 8)


def some_features(d: Draws) -> tuple[str, ...]:
    """None, one, nearly all, or any."""
    kind = d.between(0, 5)
    if kind == 0:
        on = {d.pick(*FEATURES)}
    elif kind == 1:
        on = set(FEATURES) - {d.pick(*FEATURES)}
    else:
        on = {name for name in FEATURES if d.chance(50)}
    if on & {"noise_u", "noise_r", "adc"}:
        on.add("analog")
    return tuple(name for name in FEATURES if name in on)


HOLDS_RANGE, SLOWER_AT = 8, 8  # of gle_learns


def draw_plan(
    *seed: int,
    on: Collection[str] | None = None,
    extreme: bool = False,
    layers: int = 3,
    neurons: int = 9,
    inputs: int = 7,
    sizes: Sequence[int] | None = None,
    wiring: str | None = None,
) -> Plan:
    """A chip that the core takes; the numbers are the largest that are drawn. wiring: a chain
    if None, else see `wire`.

    on: which of FEATURES; None for any. extreme: formats and words at the ends of what the
    contract allows, so that most numbers clip.
    """
    for attempt in range(2000):
        d = Draws(*seed, attempt)
        features = some_features(d) if on is None else tuple(on)
        depth = len(sizes) if sizes is not None else d.between(1, layers)
        loss = d.between(0, 1)
        phis = [d.between(0, 4) for _ in range(depth)]
        drawn = [d.between(1, neurons) for _ in range(depth)] if sizes is None else [*sizes]
        if loss == 0:
            drawn[-1] = max(2, drawn[-1])
        make = extreme_layer if extreme else tame_layer
        plan = Plan(
            inputs=d.between(1, inputs) if sizes is None else inputs,
            layers=[make(d, n, phi, features) for n, phi in zip(drawn, phis, strict=True)],
            neurons=[],
            loss=loss,
            beta=coefficient(d, -4, -1),
            gamma=d.pick(15, coefficient(d, -7, -4)),
            input_frac=d.between(9, 12),
            target_frac=d.between(8, 12),
            stochastic=d.between(0, 1),
            seed=d.bits() >> d.pick(0, 1, 40),
            what=f"draw_plan{(*seed,)} {'extreme ' if extreme else ''}{' '.join(features)}",
        )
        plan.neurons = [extreme_neuron(d) if extreme else tame_neuron(d) for _ in range(sum(drawn))]
        if "input_left" in features:
            plan.input_left = d.between(1, 10)
            plan.input_max = (1 << 13 - plan.input_left) - 1
        if "adc" in features:
            for y in plan.layers:
                y.adc_drop = d.between(0, 6)
                y.adc_max = max(1, (y.r_max >> y.adc_drop) + d.between(-2, 2))
        if extreme:
            spread(d, plan, features)
        if wiring is not None:
            wire(Draws(*seed, attempt, 7), plan, wiring)
        draw_imperfections(d, plan, features, extreme)
        forget_absent(plan)
        for k, y in enumerate(plan.layers):
            below = plan.layers[k - 1].r_frac if k else plan.input_frac
            kept = d.between(6, 18) if not extreme else d.between(-8, 40)
            y.rate_shift = max(-32, min(64, kept - y.e_frac - below + y.w_frac))
            y.learn |= HOLDS_RANGE * (kept % 3 == 0) | (kept % 4) << SLOWER_AT
        if plan.valid():
            return plan
    raise AssertionError(f"no image from {seed}")


WIRINGS = tuple(
    f"{sources} {back}"
    for sources in ("chain", "masks", "skips")
    for back in ("transposed", "alignment", "kolen-pollack", "direct")
    if (sources, back) != ("chain", "transposed")
)


def wire(d: Draws, plan: Plan, wiring: str) -> None:
    """Sources, masks and feedback of the kinds that the two words say: `chain`, `masks` (of
    some layers) or `skips` (skips, recurrence and masks); transposed or a kind of feedback."""
    sources, back = wiring.split()
    count = len(plan.layers)
    if sources == "skips":
        plan.sources = []
        for k in range(count):
            heard = {k - 1, *(s for s in range(-1, k + 1) if d.chance(40))}
            plan.sources.append(sorted(heard))
    if sources != "chain":
        plan.masks = [None] * count
        for k in {d.between(0, count - 1), d.between(0, count - 1)}:
            share = d.pick(20, 50, 90)
            m, n = plan.fan_in(k), plan.layers[k].size
            plan.masks[k] = [[int(d.chance(share)) for _ in range(m)] for _ in range(n)]
            plan.layers[k].masked = 1
    decay = (d.pick(0, 1, 3), d.between(1, 9)) if back == "kolen-pollack" else (0, 1)
    kinds = {"alignment": ALIGNMENT, "kolen-pollack": KOLEN_POLLACK, "direct": DIRECT}
    if back != "transposed":
        plan.feedback = (kinds[back], *decay)


def forget_absent(plan: Plan) -> None:
    """A synapse that is not there is not stuck."""
    for g, mask in zip(plan.gains or (), plan.masks or (), strict=False):
        for row, there in zip(g, mask or (), strict=False):
            row[:] = [x if here else max(x, 0) for x, here in zip(row, there, strict=True)]


def extreme_layer(d: Draws, size: int, phi: int, on: Collection[str]) -> LayerPlan:
    """Any format at all; spread() then makes the products' shifts possible."""
    shift = d.pick(0, 14, d.between(0, 14))
    code = d.pick(1, 8191, 31, d.between(1, 8191))
    if shift + code.bit_length() > 15:
        code >>= shift + code.bit_length() - 15
    code = max(1, code)
    left = d.between(0, 12) if "w_left" in on else 0
    left = min(left, 13 - code.bit_length())
    u_frac = d.pick(6, 22, d.between(6, 22))
    r_frac = d.between(max(u_frac - 30, -8), min(15, u_frac))
    return LayerPlan(
        size,
        phi,
        learn=int(d.chance(85)),
        w_shift=shift,
        w_max=min(code << shift, 32764),
        u_frac=u_frac,
        u_max=d.pick(STATE_MAX, 1, d.between(1, STATE_MAX)),
        r_frac=d.pick(r_frac, min(15, u_frac)),
        r_max=d.pick(1, 8191, 127, d.between(1, 8191)),
        e_frac=d.between(-12, 24),
        e_max=d.pick(1, 8191, 127, d.between(1, 8191)),
        v_frac_extra=d.pick(0, 14, d.between(0, 14)),
        w_left=left,
        adc_drop=0,
        adc_max=8191,
    )


def extreme_neuron(d: Draws) -> tuple[int, int, int, int]:
    """Multipliers of any size that the image may have."""

    def ratio() -> int:
        return d.pick(15, 32767 << 8 | d.pick(1, 31), d.between(0, 32767) << 8 | d.between(1, 31))

    def leak() -> int:
        k = d.between(1, 31)
        largest = min(32767, 1 << k)
        return d.pick(largest, 0, d.between(0, largest)) << 8 | k

    return leak(), ratio(), leak(), ratio()


def spread(d: Draws, plan: Plan, on: Collection[str]) -> None:
    """Shifts of the products at -14, at 31, or anywhere; loss and converters out of range."""
    most = 31 - (7 if "rows" in on else 0)
    plan.input_frac = below = d.between(-16, 24)
    plan.input_max = d.pick(1, 8191, d.between(1, 8191))
    if "input_left" in on:
        plan.input_left = d.between(0, 12)
        plan.input_max = max(1, plan.input_max >> plan.input_left)
    for y in plan.layers:
        seen = d.pick(-14, most, d.between(-14, most)) + y.u_frac - below
        y.w_frac = seen + y.w_shift - y.w_left
        below = y.r_frac
        if "adc" in on:
            y.adc_drop = d.between(0, 13)
            y.adc_max = d.pick(1, min(8191, 32767 >> y.adc_drop))
    e = d.between(-12, 24)
    for k in range(len(plan.layers) - 1, -1, -1):
        plan.layers[k].e_frac = e
        shift = d.pick(-14, 31, d.between(-14, 31))
        if k:
            e += plan.layers[k].seen_frac - shift - plan.layers[k - 1].v_frac_extra
    plan.target_frac = d.between(-4, 15)
    plan.beta = d.pick(32767 << 8 | 1, d.between(0, 32767) << 8 | d.between(1, 31))
    plan.gamma = d.pick(15, 32767 << 8 | 1, d.between(0, 32767) << 8 | d.between(1, 31))


Weights = list[tuple[NDArray[np.int16], NDArray[np.int32]]]


@dataclass(frozen=True)
class Run:
    """What goes into a chip: stored weights, input codes (T, B, inputs), targets, labels (B,)
    or (T, B, outputs)."""

    weights: Weights
    x: NDArray[np.int16]
    target: NDArray[np.int16]
    backs: list[NDArray[np.int16] | None] = field(default_factory=list)  # feedback weights


def draw_run(plan: Plan, *seed: int, steps: int, batch: int, extreme: bool = False) -> Run:
    """Weights, inputs and targets of a plan."""
    d = Draws(*seed, 99)
    weights: Weights = []
    for k, y in enumerate(plan.layers):
        m = plan.fan_in(k)
        kind = d.between(0, 4) if extreme else 0
        limit = y.w_max if extreme or m < 5 else 2 * y.w_max // max(1, round(m**0.5))
        w = d.array((y.size, m), max(1, min(limit, y.w_max)), kind)
        bias = d.array((y.size,), STATE_MAX if extreme else 1 << y.u_frac - 2, kind)
        weights.append((w.astype(np.int16), bias.astype(np.int32)))
    backs: list[NDArray[np.int16] | None] = []
    more = Draws(*seed, 98)
    for k, y in enumerate(plan.layers):
        back, mask = plan.back_shape(k), plan.masks[k] if plan.masks else None
        b = None
        if back is not None:
            b = more.array(back, max(1, y.w_max // (1 if extreme else 3)), int(extreme)).astype(
                np.int16
            )
        if mask is not None:
            weights[k] = weights[k][0] * np.array(mask, np.int16), weights[k][1]
            if b is not None and b.shape == np.shape(mask) and plan.feedback[0] != DIRECT:
                b = b * np.array(mask, np.int16)
        backs.append(b)
    shape = (steps, batch, plan.inputs)
    if extreme:
        x = np.clip(d.array(shape, 32768, d.between(0, 4)), -32768, 32767)
    else:
        largest = min(plan.input_max, 1 << max(0, plan.input_frac + 1 - plan.input_left))
        start = d.array(shape[1:], largest, 0)
        moves = d.array(shape, max(1, largest // 8), 0)
        x = np.clip(start + np.cumsum(moves, axis=0), -2 * largest, 2 * largest)
    outputs = plan.layers[-1].size
    if plan.loss == 0:
        y = np.array([d.between(-1, outputs - 1) for _ in range(batch)])
    elif extreme:
        y = np.clip(d.array((steps, batch, outputs), 32768, d.between(0, 4)), -32768, 32767)
    else:
        y = d.array((steps, batch, outputs), 1 << plan.target_frac, 0)
    return Run(weights, x.astype(np.int16), y.astype(np.int16), backs)


# --- the core -----------------------------------------------------------------------------------


class Core:
    """The chip of an image's words, by the C interface alone."""

    def __init__(
        self,
        words: Sequence[int],
        batch: int,
        kernels: str | None = None,
        first: int = 0,
        gradient: bool = False,
    ) -> None:
        self.words = np.array(words, dtype=np.uint32)
        self.batch = batch
        at, count = ffi.from_buffer("uint32_t[]", self.words), self.words.size
        table = lib.gle_kernels_named(kernels.encode() if kernels else ffi.NULL)
        assert table != ffi.NULL, kernels
        need = ffi.new("size_t *")
        options = lib.GLE_WITH_UHAT | lib.GLE_WITH_GRADIENT * gradient
        status = lib.gle_arena_bytes(at, count, batch, options, need)
        assert status == lib.GLE_OK, status
        self._memory = np.full(need[0] + 64 + GUARD, 0xA5, dtype=np.uint8)
        offset = -self._memory.ctypes.data % 64
        arena = ffi.from_buffer(self._memory[offset:])
        self._guard = self._memory[offset + need[0] :]
        made = ffi.new("gle_chip **")
        status = lib.gle_open(arena, need[0], at, count, batch, options, table, made)
        assert status == lib.GLE_OK, status
        self.chip = made[0]
        self.layers = lib.gle_layers(self.chip)
        shape = ffi.new("gle_shape *")
        self.shapes = []
        self.backs: list[int] = []
        for k in range(self.layers):
            lib.gle_shape_of(self.chip, k, shape)
            self.shapes.append((shape.neurons, shape.inputs))
            self.backs.append(shape.feedback)
        self.loss = shape.loss
        if first:
            self.reset(first)

    def intact(self) -> bool:
        """Nothing was written behind the arena."""
        return bool(np.all(self._guard == 0xA5))

    def reset(self, first: int = 0) -> None:
        """States to zero; the first stream has this number."""
        lib.gle_reset(self.chip, first)

    def write(self, weights: Weights) -> Self:
        """Stored weights and biases."""
        for k, (w, b) in enumerate(weights):
            w, b = np.ascontiguousarray(w, np.int16), np.ascontiguousarray(b, np.int32)
            at = ffi.from_buffer("int16_t[]", w), ffi.from_buffer("int32_t[]", b)
            assert lib.gle_weights_write(self.chip, k, 0, w.size, at[0]) == lib.GLE_OK
            assert lib.gle_bias_write(self.chip, k, 0, b.size, at[1]) == lib.GLE_OK
        return self

    def write_back(self, backs: Sequence[NDArray[np.int16] | None]) -> Self:
        """Feedback weights, which stand behind a layer's own."""
        for k, back in enumerate(backs):
            if back is not None:
                n, m = self.shapes[k]
                at = ffi.from_buffer("int16_t[]", np.ascontiguousarray(back, np.int16))
                assert lib.gle_weights_write(self.chip, k, n * m, back.size, at) == lib.GLE_OK
        return self

    def read_back(self) -> list[list[int]]:
        """Feedback weights of all layers, flat."""
        result = []
        for k, (n, m) in enumerate(self.shapes):
            b = np.empty(self.backs[k], np.int16)
            at = ffi.from_buffer("int16_t[]", b)
            assert lib.gle_weights_read(self.chip, k, n * m, b.size, at) == lib.GLE_OK
            result.append(b.tolist())
        return result

    def read(self) -> Weights:
        """Stored weights and biases."""
        result = []
        for k, (n, m) in enumerate(self.shapes):
            w, b = np.empty((n, m), np.int16), np.empty(n, np.int32)
            lib.gle_weights_read(self.chip, k, 0, w.size, ffi.from_buffer("int16_t[]", w))
            lib.gle_bias_read(self.chip, k, 0, b.size, ffi.from_buffer("int32_t[]", b))
            result.append((w, b))
        return result

    def run(
        self,
        x: NDArray[np.int16],
        target: NDArray[np.int16] | None = None,
        *,
        learn: bool = False,
        ranging: bool = False,
        record: Sequence[tuple[int, str]] = (),
        votes: bool = False,
        flags: int = 0,
        adam: Any = ffi.NULL,
    ) -> dict[Any, NDArray[Any]]:
        """Steps; what was recorded by (layer, signal), (T, B, n), and "votes" if asked for."""
        x = np.ascontiguousarray(x, np.int16)
        steps = x.shape[0]
        assert x.shape[1] == self.batch
        c = ffi.new("gle_block *")
        c.steps, c.input = steps, ffi.from_buffer("int16_t[]", x)
        c.flags = lib.GLE_LEARN * learn | lib.GLE_RANGE * ranging | flags
        if target is not None:
            target = np.ascontiguousarray(target, np.int16)
            c.target = ffi.from_buffer("int16_t[]", target)
            c.target_stride = target[0].size if self.loss else 0
        result: dict[Any, NDArray[Any]] = {
            (k, s): np.empty((steps, self.batch, self.shapes[k][0]), np.int32) for k, s in record
        }
        parts = [ffi.from_buffer("int32_t[]", a) for a in result.values()]
        layers = ffi.new("int32_t[]", [k for k, _ in record] or [0])
        signals = ffi.new("int32_t[]", [SIGNALS.index(s) for _, s in record] or [0])
        to = ffi.new("int32_t *[]", parts or [ffi.NULL])
        c.records, c.record_layer, c.record_signal, c.record_to = len(parts), layers, signals, to
        if votes:
            result["votes"] = np.zeros((self.batch, self.shapes[-1][0]), np.int64)
            c.votes = ffi.from_buffer("int64_t[]", result["votes"])
        assert steps == 0 or lib.gle_run(self.chip, c, adam, ffi.NULL) == steps
        return result

    def signal(self, k: int, name: str) -> NDArray[np.int32]:
        """As it can be read now: [batch][n]."""
        x = np.empty((self.batch, self.shapes[k][0]), np.int32)
        at = ffi.from_buffer("int32_t[]", x)
        assert lib.gle_read(self.chip, k, SIGNALS.index(name), at) == lib.GLE_OK
        return x

    def gradient(self, k: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Of the last step that read it: weights and biases."""
        n, m = self.shapes[k]
        w, b = np.empty((n, m), np.int32), np.empty(n, np.int32)
        at = ffi.from_buffer("int32_t[]", w), ffi.from_buffer("int32_t[]", b)
        assert lib.gle_gradient(self.chip, k, *at) == lib.GLE_OK
        return w, b

    def stream_digests(self) -> list[int]:
        """Of each stream."""
        return [int(lib.gle_stream_digest(self.chip, b)) for b in range(self.batch)]

    def weights_digest(self) -> int:
        """Of all that is stored."""
        return int(lib.gle_weights_digest(self.chip))

    def digest(self) -> int:
        """Of everything."""
        return int(lib.gle_digest(self.chip))

    def counters(self) -> list[dict[str, int]]:
        """Per layer."""
        c = ffi.new("gle_counters *")
        result = []
        for k in range(self.layers):
            lib.gle_counters_of(self.chip, k, c)
            names = (name for name, _ in ffi.typeof("gle_counters").fields)
            result.append({name: int(getattr(c, name)) for name in names})
        return result

    def snapshot(self) -> bytes:
        """The complete state."""
        to = bytearray(lib.gle_snapshot_bytes(self.chip))
        at = ffi.from_buffer("unsigned char[]", to)
        assert lib.gle_snapshot_read(self.chip, at, len(to)) == lib.GLE_OK
        return bytes(to)

    def restore(self, taken: bytes) -> None:
        """Take up a snapshot."""
        at = ffi.from_buffer("unsigned char[]", taken)
        assert lib.gle_snapshot_write(self.chip, at, len(taken)) == lib.GLE_OK


def tables() -> list[str]:
    """The kernel tables of this machine."""
    names = ("scalar", "avx2", "vnni", "amx", "neon")
    return [name for name in names if lib.gle_kernels_named(name.encode()) != ffi.NULL]


def all_signals(plan: Plan) -> list[tuple[int, str]]:
    """Every signal of every layer."""
    return [(k, s) for k in range(len(plan.layers)) for s in SIGNALS]


# --- chips whose numbers are known --------------------------------------------------------------


def ideal_plan(which: int) -> tuple[Plan, Run]:
    """One of four ideal chips whose digests test_ideal_chip.py keeps, and 60 steps for it.

    Never change what this draws: the digests were taken from the core as it was before a
    chip could have any imperfection.
    """
    d = Draws(2025, which)
    sizes = [(11, 7, 4), (5, 5, 5, 3), (33, 18), (8, 6, 5)][which]
    phis = [(TANH, SIGMOID, LINEAR), (RELU, SOFTPLUS, TANH, LINEAR), (SOFTPLUS, TANH), (0, 4, 2)]
    batch, inputs = (5, 1, 20, 3)[which], (6, 3, 35, 4)[which]
    plan = Plan(
        inputs=inputs,
        layers=[
            LayerPlan(
                n,
                phi,
                w_frac=14,
                w_shift=2,
                w_max=32764,
                u_frac=(18, 16, 20, 14)[which],
                r_frac=11,
                e_frac=8 + k,
                v_frac_extra=(8, 10, 6, 12)[which],
                rate_shift=(2, 4, 3, -1)[which],
            )
            for k, (n, phi) in enumerate(zip(sizes, phis[which], strict=True))
        ],
        neurons=[],
        loss=which % 2,
        beta=16384 << 8 | 15,
        gamma=(15, 20000 << 8 | 19)[which // 2],
        input_frac=11,
        target_frac=11,
        range_every=(0, 0, 0, 6)[which],
        range_clip=(0, 0, 0, 600)[which],
        stochastic=int(which != 2),
        seed=0x123456789ABC + which,
    )
    plan.neurons = [tame_neuron(d) for _ in range(sum(sizes))]
    weights: Weights = []
    for k, n in enumerate(sizes):
        m = plan.fan_in(k)
        w = d.array((n, m), 4 * 32764 // (m + 3), 0)
        weights.append((w.astype(np.int16), d.array((n,), 1 << 13, 0).astype(np.int32)))
    start = d.array((batch, inputs), 2048, 0)
    x = np.clip(start + np.cumsum(d.array((60, batch, inputs), 512, 0), axis=0), -9000, 9000)
    if plan.loss:
        y = d.array((60, batch, sizes[-1]), 2048, 0)
    else:
        y = np.array([d.between(-1, sizes[-1] - 1) for _ in range(batch)])
    return plan, Run(weights, x.astype(np.int16), y.astype(np.int16))
