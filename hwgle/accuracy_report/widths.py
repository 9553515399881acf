"""Bit widths: what one bit more would gain and one fewer cost, and how few would do.

Whoever chooses a width asks twice: on this chip, with its mismatch and noise, and with the
converters alone, since mismatch can be calibrated or learned away and a width cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwgle.accuracy_report.stages import CONVERTERS, adc_bits, with_stages
from hwgle.accuracy_report.trial import Outcome, Trials
from hwgle.chip import MAX_BITS, MAX_STORED_BITS, MIN_BITS, MIN_STATE_BITS, STATE_BITS, Chip
from hwgle.errors import UsageError

TOLERANCE = 0.3  # dB that a narrower width may cost, of outputs and of errors
MARGIN = 0.7  # dB by which other samples may come out otherwise: taken off what is promised
JUDGED = 6.0  # dB: errors below are as good as noise, and of that any width is good enough


@dataclass(frozen=True)
class Width:
    """One width of a chip: how it is read and changed, and where it ends."""

    name: str
    title: str
    least: int
    most: int
    get: Callable[[Chip], int]
    put: Callable[[Chip, int], Chip]


def _section(chip: Chip, section: str, **values: Any) -> Chip:
    part = getattr(chip, section).model_copy(update=values)
    return chip.model_copy(update={section: part})


def _weight(chip: Chip, bits: int) -> Chip:
    """What is stored beyond the array's own bits stays as much finer."""
    more = chip.weight.stored_bits - chip.weight.bits
    stored = min(MAX_STORED_BITS, bits + more)
    return _section(chip, "weight", bits=bits, stored_bits=max(bits, stored))


def _input(chip: Chip, bits: int) -> Chip:
    """Offsets keep their size in volts."""
    offset = chip.input.offset * 2.0 ** (bits - chip.input.bits)
    return _section(chip, "input", bits=bits, offset=offset)


def _rate(chip: Chip, bits: int) -> Chip:
    return _same_adc(chip, _section(chip, "rate", bits=bits))


def _readout(chip: Chip, bits: int) -> Chip:
    return _same_adc(chip, _section(chip, "readout", bits=bits))


def _same_adc(before: Chip, after: Chip) -> Chip:
    """Offset and noise of the read-out in LSB of an ADC with another number of bits."""
    factor = 2.0 ** (adc_bits(after) - adc_bits(before))
    r = after.readout
    return _section(after, "readout", offset=r.offset * factor, noise=r.noise * factor)


WIDTHS = (
    Width("weight", "weights", MIN_BITS, MAX_BITS, lambda c: c.weight.bits, _weight),
    Width("rate", "rates", MIN_BITS, MAX_BITS, lambda c: c.rate.bits, _rate),
    Width("input", "input DACs", MIN_BITS, MAX_BITS, lambda c: c.input.bits, _input),
    Width("error", "errors", MIN_BITS, MAX_BITS, lambda c: c.error.bits,
          lambda c, b: _section(c, "error", bits=b)),
    Width("membrane", "membranes", MIN_STATE_BITS, STATE_BITS, lambda c: c.membrane.bits,
          lambda c, b: _section(c, "membrane", bits=b)),
    Width("readout", "read-out ADC", MIN_BITS, MAX_BITS, adc_bits, _readout),
)  # fmt: skip


def widths_of(chip: Chip) -> list[Width]:
    """Those that the chip has a say in: of a read-out as fine as the rates there is none."""
    return [w for w in WIDTHS if w.name != "readout" or chip.adc_drop > 0]


def at(width: Width, chip: Chip, bits: int) -> Chip | None:
    """The chip with another width; None where there is no such one."""
    most = chip.rate.bits if width.name == "readout" else width.most
    return width.put(chip, bits) if width.least <= bits <= most else None


def tried(chip: Chip | None, trials: Trials) -> Outcome | None:
    """What comes out; None for no chip, or one whose formats cannot be built."""
    if chip is None:
        return None
    try:
        return trials(chip)
    except UsageError:
        return None


def sensitivity(chip: Chip, trials: Trials) -> dict[str, Any]:
    """Per width: bits, and what one more and one fewer would gain (dB; None: there is none),
    on the chip and with its converters alone."""
    alone = with_stages(chip, [CONVERTERS])
    found: dict[str, Any] = {}
    for width in widths_of(chip):
        bits = width.get(chip)
        rows: dict[str, Any] = {"title": width.title, "bits": bits}
        for name, one in (("chip", chip), ("converters", alone)):
            now = trials(one)
            for key, step in (("more", 1), ("fewer", -1)):
                other = tried(at(width, one, bits + step), trials)
                rows.setdefault(name, {})[key] = None if other is None else other.gain(now)
        found[width.name] = rows
    return found


@dataclass(frozen=True)
class Narrower:
    """The narrowest widths that cost no more than TOLERANCE each: the chip, what changes as
    name -> (bits now, bits then), and what all together gain at least (dB, as in formats.py)."""

    chip: Chip
    changes: dict[str, tuple[int, int]]
    promised: dict[str, float]


def narrower(chip: Chip, trials: Trials) -> Narrower:
    """Found on the samples of the trials, one width after another and then together.

    Nothing may be lost on the chip nor with its converters alone: beside mismatch any width
    looks good enough. Widths are taken back, the one that saves least first, until all
    together cost no more than TOLERANCE for each.
    """
    both = (chip, with_stages(chip, [CONVERTERS]))
    widths = [w for w in widths_of(chip) if w.name != "error" or _judged(both[1], trials)]
    few: dict[str, int] = {}
    for width in widths:
        least = _least(width, both, trials)
        if least < width.get(chip):
            few[width.name] = least
    while few:
        found = [_narrow(one, few) for one in both]
        outcomes = [tried(one, trials) for one in found]
        now = [trials(one) for one in both]
        allowed = -TOLERANCE * len(few)
        good = (
            o is not None and _loss(o, n) >= allowed for o, n in zip(outcomes, now, strict=True)
        )
        if all(good):
            before = {w.name: w.get(chip) for w in widths}
            assert outcomes[0] is not None
            worst = outcomes[0].least_gain(now[0])
            gain = {name: value - MARGIN for name, value in worst.items()}
            return Narrower(found[0], {n: (before[n], b) for n, b in few.items()}, gain)
        saved = {w.name: w.get(chip) - few[w.name] for w in widths if w.name in few}
        last = min(few, key=lambda n: (saved[n], n))
        if saved[last] > 1:
            few[last] += 1
        else:
            del few[last]
    return Narrower(chip, {}, dict.fromkeys(("output", "rates", "errors"), 0.0))


def _narrow(chip: Chip, few: dict[str, int]) -> Chip:
    for width in WIDTHS:
        if width.name in few:
            chip = width.put(chip, few[width.name])
    return chip


def _judged(chip: Chip, trials: Trials) -> bool:
    return trials(chip).errors >= JUDGED


def _loss(outcome: Outcome, now: Outcome) -> float:
    gain = outcome.gain(now)
    errors = gain["errors"] if now.errors >= JUDGED else 0.0
    return min(gain["output"], gain["rates"], errors)


def _enough(width: Width, chips: tuple[Chip, ...], bits: int, trials: Trials) -> bool:
    for chip in chips:
        outcome = tried(at(width, chip, bits), trials)
        if outcome is None or _loss(outcome, trials(chip)) < -TOLERANCE:
            return False
    return True


def _least(width: Width, chips: tuple[Chip, ...], trials: Trials) -> int:
    """By steps that double and then by halving: SQNR falls with each bit that is taken away."""
    low, high = width.least - 1, width.get(chips[0])  # low: too few; high: enough
    step = 1
    while high - low > 1:
        bits = max(low + 1, high - step) if low < width.least else (low + high) // 2
        if _enough(width, chips, bits, trials):
            high, step = bits, step * 2
        else:
            low = bits
    return high
