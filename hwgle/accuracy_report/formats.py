"""Values against formats: how many of its bits each value uses, what clips, what rounds to
nothing, which codes are never used, and which format would represent it better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy_report.deviation import decibel
from hwgle.accuracy_report.material import Material
from hwgle.accuracy_report.signals import Segment
from hwgle.accuracy_report.trial import Outcome, Trials
from hwgle.chip import Chip, full_scale
from hwgle.errors import UsageError
from hwgle.network import Network
from hwgle.quantise import FINEST_RATE, Scales, build_image, membrane_max, round_half_up
from hwgle.weights import Weights

KINDS = ("input", "weight", "membrane", "rate", "error")
VALUES = 60_000  # of a signal that are looked at
SHIFTS = range(-4, 7)
MARGIN = 0.7  # dB by which other samples may come out otherwise: taken off what is promised
WORTH = 0.5  # dB: what a change of a format must gain to be recommended
ENOUGH = 0.05  # dB that a narrower format may be worse and yet count as equal
LEAST_BITS = 2
COUNTED_BITS = 16  # codes of wider formats are not counted

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Used:
    """One format and the values it has to hold. frac: () or, with rows, one a value."""

    kind: str
    layer: str | None
    bits: int
    frac: int
    full: int
    values: Floats
    codes: Floats
    clipped: float

    @property
    def lsb(self) -> float:
        """In network units."""
        return float(2.0**-self.frac)


def used(
    network: Network,
    chip: Chip,
    weights: Weights,
    scales: Scales,
    material: Material,
    reference: Sequence[Segment],
    counters: Sequence[Mapping[str, int]],
) -> Iterator[Used]:
    """All formats of a chip with what float64 would put into them."""
    judged = list(reference[material.settle :])
    x = np.concatenate([s.below[0].ravel() for s in judged])
    yield _use("input", None, chip.input.bits, scales.input, chip.input_max, x, None)
    for k, layer in enumerate(network.layers):
        own, count = scales.layers[k], counters[k]
        w = np.asarray(weights[f"{layer.name}.weight"])
        finer = np.ldexp(w, np.asarray(own.weights()) - own.weight)
        yield _use("weight", layer.name, chip.weight.bits, own.weight, chip.weight_max, finer, None)
        steps = max(1, count["steps"])
        u = np.concatenate([s.signals[k, n].ravel() for s in judged for n in ("u", "uhat")])
        most = membrane_max(chip, own.membrane)
        over = (count["sat_x"] + count["sat_uhat"]) / steps
        yield _use("membrane", layer.name, chip.membrane.bits, own.membrane, most, u, over)
        r = np.concatenate([s.signals[k, "r"].ravel() for s in judged])
        over = count["sat_r"] / steps
        yield _use("rate", layer.name, chip.rate.bits, own.rate, chip.rate_max, r, over)
        e = np.concatenate([s.signals[k, "e"].ravel() for s in judged])
        over = count["sat_e"] / steps
        yield _use("error", layer.name, chip.error.bits, own.error, chip.error_max, e, over)


def _use(
    kind: str,
    layer: str | None,
    bits: int,
    frac: int,
    full: int,
    values: NDArray[Any],
    clipped: float | None,
) -> Used:
    flat = np.asarray(values, dtype=np.float64).ravel()
    largest = flat[np.abs(flat).argmax()] if flat.size else 0.0
    codes = round_half_up(np.ldexp(flat, frac))
    share = float(np.mean(np.abs(codes) > full)) if flat.size else 0.0
    few = np.append(flat[:: max(1, math.ceil(flat.size / VALUES))], largest)
    return Used(kind, layer, bits, frac, full, few, codes, share if clipped is None else clipped)


def bit_histogram(use: Used) -> list[float]:
    """Share of values that use 0 (they round to nothing), 1, 2, ... bits - 1 bits of the code,
    sign apart; the last entry is what lies beyond full scale."""
    size = np.abs(use.codes)
    beyond = size > use.full
    need = np.frexp(np.where(beyond, 0, size))[1]
    counts = np.bincount(need[~beyond], minlength=use.bits)[: use.bits].astype(np.float64)
    counts = np.append(counts, np.count_nonzero(beyond))
    return [float(c) for c in counts / max(1, size.size)]


def error_power(values: Floats, full: int, frac: int) -> float:
    """Mean squared error of values in a format, clipping included."""
    codes = np.clip(round_half_up(np.ldexp(values, frac)), -full, full)
    return float(np.mean(np.square(np.ldexp(codes, -frac) - values)))


def finest(use: Used, scales: Scales, k: int) -> int:
    """Most fraction bits that the core has for it."""
    if use.kind == "rate":
        return min(FINEST_RATE, scales.layers[k].membrane)
    return 24


@dataclass(frozen=True)
class Advice:
    """A better format of one signal: fraction bits, what that gains (dB, of the signal's own
    representation), and with how few bits it would be as good as it is now."""

    frac: int
    gain: float
    bits: int


def advise(use: Used, most: int) -> Advice:
    """The format of as many bits with the least squared error, if that is worth it."""
    now = error_power(use.values, use.full, use.frac)
    if now == 0.0 or use.kind == "membrane":
        return Advice(use.frac, 0.0, use.bits)
    tried = {use.frac + s: 0.0 for s in SHIFTS if use.frac + s <= most}
    for frac in tried:
        tried[frac] = error_power(use.values, use.full, frac)
    best = min(tried, key=lambda f: (tried[f], abs(f - use.frac)))
    gain = decibel(now, tried[best])
    if gain < WORTH:
        best, gain = use.frac, 0.0
    bits = use.bits
    while bits > LEAST_BITS:
        narrow = full_scale(bits - 1)
        least = min(
            error_power(use.values, narrow, use.frac + s)
            for s in range(SHIFTS.start - (use.bits - bits + 1), SHIFTS.stop)
            if use.frac + s <= most
        )
        if least > now * 10 ** (ENOUGH / 10):
            break
        bits -= 1
    return Advice(best, gain, bits)


def figures(use: Used, advice: Advice) -> dict[str, Any]:
    """One format for JSON."""
    peak = float(np.abs(use.values).max(initial=0.0))
    full = use.full * use.lsb
    error = error_power(use.values, use.full, use.frac)
    found: dict[str, Any] = {
        "kind": use.kind,
        "layer": use.layer,
        "bits": use.bits,
        "frac": use.frac,
        "lsb": use.lsb,
        "full": full,
        "peak": peak,
        "headroom": decibel(full**2, peak**2),
        "clipped": use.clipped,
        "to_nothing": float(np.mean(use.codes == 0)) if use.codes.size else 0.0,
        "sqnr": decibel(float(np.mean(np.square(use.values))), error),
        "bits_used": bit_histogram(use),
        "dead_codes": None,
        "recommended": {"frac": advice.frac, "gain": advice.gain, "bits": advice.bits},
    }
    if use.bits <= COUNTED_BITS:
        seen = np.unique(np.clip(use.codes, -use.full, use.full)).size
        found["dead_codes"] = 1.0 - seen / (2 * use.full + 1)
    return found


# --- all of them together ----------------------------------------------------------------------


@dataclass(frozen=True)
class Recommended:
    """Scales to use instead, the kinds that change, and what was promised (on the samples that
    scales are chosen on: what the least favourable of them gave, less MARGIN), dB."""

    scales: Scales
    kinds: tuple[str, ...]
    promised: dict[str, float]


def recommend(
    network: Network,
    chip: Chip,
    scales: Scales,
    advice: Mapping[tuple[str, str | None], Advice],
    trials: Trials,
) -> Recommended:
    """Advice for single signals, tried on the whole network: kept where it helps there.

    A signal's own format may be perfect and yet its finer steps be worth nothing, or clipped
    values cost more than their number says: what is promised was measured end to end.
    """
    now = trials(chip, scales)
    none = Recommended(scales, (), dict.fromkeys(("output", "rates", "errors"), 0.0))
    good: list[tuple[float, str]] = []
    for kind in KINDS:
        tried = changed(network, chip, scales, advice, (kind,))
        if tried != scales:
            gain = worth(trials(chip, tried), now)
            if gain > 0:
                good.append((gain, kind))
    best, promised = none, 0.0
    kinds: tuple[str, ...] = ()
    for _, kind in sorted(good, reverse=True):
        tried = changed(network, chip, scales, advice, (*kinds, kind))
        outcome = trials(chip, tried)
        gain = worth(outcome, now)
        if gain > promised:
            kinds = (*kinds, kind)
            sure = {n: value - MARGIN for n, value in outcome.least_gain(now).items()}
            best, promised = Recommended(tried, kinds, sure), gain
    return best if max(best.promised["output"], best.promised["errors"]) > 0 else none


def worth(outcome: Outcome, now: Outcome) -> float:
    """What a change is worth in dB: the gain of what matters most, 0 or less if anything else
    loses more than a little, or if it is too small to tell."""
    gain = outcome.gain(now)
    if min(gain.values()) < -0.1:
        return 0.0
    total = max(gain["output"], gain["errors"])
    return total if total >= 2 * MARGIN else 0.0


def changed(
    network: Network,
    chip: Chip,
    scales: Scales,
    advice: Mapping[tuple[str, str | None], Advice],
    kinds: Sequence[str],
) -> Scales:
    """Scales with the advice for some kinds, as far as the core can build them."""
    result = scales
    for kind in kinds:
        if kind == "input":
            result = _if_built(
                network, chip, result, replace(result, input=advice["input", None].frac)
            )
            continue
        for k, layer in enumerate(network.layers):
            frac = advice[kind, layer.name].frac
            if frac != getattr(result.layers[k], kind):
                tried = result.with_layer(k, **{kind: frac})
                result = _if_built(network, chip, result, tried)
    return result


def _if_built(network: Network, chip: Chip, before: Scales, tried: Scales) -> Scales:
    try:
        build_image(network, chip, tried)
    except UsageError:
        return before
    return tried
