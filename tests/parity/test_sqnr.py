"""What the ideal chip loses against float64: the acceptance criterion, in dB.

On random networks with scales calibrated on the run's own input and target: output at
least 45 dB, error of the output layer 40, errors of hidden layers 30; at most 5 % of the
networks may fall short.

The slope of relu is a step: where the chip's uhat and the oracle's lie on two sides of
the kink, the error is on or off, and every layer below hears of it. That is the network
and not the chip, so the oracle takes the side on which the chip is (`SideOfChip`), and
then every layer is judged, relu ones included. Without that, 20 % of these networks
fall short, all but one of them with relu in them (`test_without_the_chips_side`), and so
does float64 with nothing but the 14 bits of weights, inputs, rates and errors rounded: it
takes 18 (`test_by_the_letter_fourteen_bits_are_too_few`).

What a network that falls short suffers from is found with a second oracle, in float64
but for the formats (`FormatsOnly`): weights, inputs, rates and errors are rounded to
theirs, all else is exact. No arithmetic can do better with these formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from networks import Case, Quantised, quantised, random_case
from numpy.typing import NDArray

from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.quantise import quantise_weights, round_half_up, to_float
from hwgle.reference import Reference

OUTPUT, OUTPUT_ERROR, HIDDEN_ERROR = 45.0, 40.0, 30.0
SHARE = 0.05
FIRST_SEED = 0
CLIPS = ("sat_x", "sat_uhat", "sat_r", "sat_inst", "sat_e")
Signals = dict[str, NDArray[np.floating[Any]]]


def sqnr(expected: NDArray[np.floating[Any]], got: NDArray[np.floating[Any]]) -> float:
    """Signal to quantisation noise, dB; inf where nothing differs."""
    noise = float(np.square(expected - got).sum())
    signal = float(np.square(expected).sum())
    if noise == 0:
        return np.inf
    return 10 * np.log10(signal / noise) if signal > 0 else -np.inf


class SideOfChip:
    """A learner that changes no weight: sets relu's slope to the chip's side of the kink."""

    def __init__(self, case: Case, uhat: list[NDArray[np.int32]]) -> None:
        self.layers = case.network.layers
        self.uhat = uhat
        self.t = 0

    def __call__(self, oracle: Reference) -> None:
        for layer, uhat in zip(self.layers, self.uhat, strict=True):
            if layer.phi == "relu":
                oracle.state[layer.name].dphi[:] = uhat[self.t] > 0
        self.t += 1


class Rounding:
    """A learner that changes no weight: rounds rates and errors to their formats, or to so many
    bits more."""

    def __init__(self, case: Case, q: Quantised, more: int = 0) -> None:
        self.layers = case.network.layers
        self.q = q
        self.more = more

    def __call__(self, oracle: Reference) -> None:
        chip, scales = self.q.image.chip, self.q.image.scales
        for layer, s in zip(self.layers, scales.layers, strict=True):
            state = oracle.state[layer.name]
            state.r[:] = rounded(state.r, s.rate, chip.rate_max, self.more)
            state.e[:] = rounded(state.e, s.error, chip.error_max, self.more)


class FormatsOnly(SideOfChip):
    """Both."""

    def __init__(self, case: Case, uhat: list[NDArray[np.int32]], q: Quantised) -> None:
        super().__init__(case, uhat)
        self.rounding = Rounding(case, q)

    def __call__(self, oracle: Reference) -> None:
        super().__call__(oracle)
        self.rounding(oracle)


def rounded(
    x: NDArray[np.floating[Any]], frac: int, limit: int, more: int = 0
) -> NDArray[np.float64]:
    """To a format and back, or to one of so many bits more."""
    frac, limit = frac + more, limit << more
    return np.ldexp(np.clip(round_half_up(np.ldexp(x, frac)), -limit, limit), -frac)


def as_seen(case: Case, q: Quantised, more: int = 0) -> tuple[Any, NDArray[np.float64]]:
    """Weights as the array sees them, and input, rounded to their formats."""
    chip, scales = q.image.chip, q.image.scales
    weights = dict(case.weights)
    for layer, s in zip(case.network.layers, scales.layers, strict=True):
        name = f"{layer.name}.weight"
        weights[name] = rounded(case.weights[name], s.weight, chip.weight_max, more)
    return weights, rounded(case.x, scales.input, chip.input_max, more)


@dataclass(frozen=True)
class Verdict:
    """One network: dB of the output and of each layer's error, and what else is known.

    plain_error: against the oracle that takes its own side of relu's kinks.
    formats_output, formats_error: of the oracle in which only formats are rounded.
    """

    case: Case
    output: float
    error: tuple[float, ...]
    plain_output: float
    plain_error: tuple[float, ...]
    formats_output: float
    formats_error: tuple[float, ...]
    clips: int

    @property
    def short(self) -> bool:
        """Falls short of the criterion."""
        return falls_short(self.output, self.error)


def falls_short(output: float, error: tuple[float, ...]) -> bool:
    """The criterion, on every layer."""
    hidden = min(error[:-1], default=np.inf)
    return output < OUTPUT or error[-1] < OUTPUT_ERROR or hidden < HIDDEN_ERROR


@cache
def judged(seed: int) -> Verdict:
    """Run one network on the chip and on three oracles."""
    case = random_case(seed)
    q = quantised(case, Chip.load("ideal"))
    network = case.network
    names = [layer.name for layer in network.layers]
    pairs = [(k, s) for s in ("r", "e", "uhat") for k in range(len(names))]
    with Emulator() as chip:
        chip.load(q.image, case.batch)
        chip.write_weights(quantise_weights(q.image, case.weights))
        signals = chip.run(Block(q.input, q.target, record=pairs)).signals
        formats, counters = chip.formats(), chip.counters()
    got = dict(zip(pairs, signals, strict=True))
    uhat = [got[k, "uhat"] for k in range(len(names))]

    def against(weights: Any, x: Any, learner: Any) -> Signals:
        oracle = Reference(network, weights, case.batch)
        return oracle.run(x, case.target, record=("r", "e"), learner=learner)

    def decibels(expected: Signals, other: Signals) -> tuple[float, tuple[float, ...]]:
        error = tuple(sqnr(expected[f"{n}.e"], other[f"{n}.e"]) for n in names)
        return sqnr(expected["output"], other["output"]), error

    measured: Signals = {
        f"{n}.e": to_float(got[k, "e"], formats[k].error) for k, n in enumerate(names)
    }
    measured["output"] = to_float(got[len(names) - 1, "r"], formats[-1].rate)
    exact = against(case.weights, case.x, SideOfChip(case, uhat))
    plain = against(case.weights, case.x, None)
    best = against(*as_seen(case, q), FormatsOnly(case, uhat, q))
    return Verdict(
        case,
        *decibels(exact, measured),
        *decibels(plain, measured),
        *decibels(exact, best),
        sum(c[name] for c in counters for name in CLIPS),
    )


NUMBERS = [
    pytest.param(25, id="25"),
    pytest.param(200, marks=pytest.mark.long, id="200"),
]


def verdicts(count: int) -> list[Verdict]:
    """Of so many networks; run once for all tests of a session."""
    return [judged(FIRST_SEED + k) for k in range(count)]


@pytest.mark.parametrize("count", NUMBERS)
def test_at_most_a_twentieth_falls_short(count: int) -> None:
    short = [v for v in verdicts(count) if v.short]
    told = "\n".join(f"{v.case}: {v.output:.1f} dB, e {np.round(v.error, 1)}" for v in short)
    assert len(short) <= SHARE * count, told


@pytest.mark.parametrize("count", NUMBERS)
def test_what_falls_short_is_explained(count: int) -> None:
    """By clips that were counted, or by the formats: rounding them alone falls short too."""
    for v in verdicts(count):
        if v.short:
            formats_alone = falls_short(v.formats_output - 1, tuple(e - 1 for e in v.formats_error))
            assert v.clips or formats_alone, v


@pytest.mark.parametrize("count", NUMBERS)
def test_nothing_is_lost_beyond_the_formats(count: int) -> None:
    """Tables, slopes, multipliers and states cost under 3 dB below 60, where 20 are left; of 200
    networks one figure in fifty may lose more, none 8."""
    lost = []
    for v in verdicts(count):
        pairs = [(v.output, v.formats_output), *zip(v.error, v.formats_error, strict=True)]
        lost += [min(best, 60.0) - got for got, best in pairs if best >= 20]
    assert max(lost) < (8 if count == 200 else 3)
    assert np.mean(np.array(lost) >= 3) <= 0.02


def by_the_letter(case: Case, output: float, error: tuple[float, ...]) -> bool:
    """Falls short, with smooth hidden layers judged below relu ones too."""
    pairs = zip(error[:-1], case.network.layers[:-1], strict=True)
    smooth = tuple(e for e, layer in pairs if layer.phi != "relu")
    return falls_short(output, (*smooth, error[-1]))


@pytest.mark.long
@pytest.mark.xfail(reason="relu's slope is a step: 20 % fall short where the sides differ")
def test_without_the_chips_side() -> None:
    """The criterion by the letter."""
    short = [by_the_letter(v.case, v.plain_output, v.plain_error) for v in verdicts(200)]
    assert sum(short) <= SHARE * 200


def short_by_formats(more: int) -> int:
    """Of 200 networks in float64 with only weights, inputs, rates and errors rounded, each to 14
    bits and so many more: those that fall short of float64 by the letter."""
    short = 0
    for seed in range(FIRST_SEED, FIRST_SEED + 200):
        case = random_case(seed)
        q = quantised(case, Chip.load("ideal"))
        names = [layer.name for layer in case.network.layers]
        found = []
        for weights, x, learner in (
            (case.weights, case.x, None),
            (*as_seen(case, q, more), Rounding(case, q, more)),
        ):
            oracle = Reference(case.network, weights, case.batch)
            found.append(oracle.run(x, case.target, record=("r", "e"), learner=learner))
        exact, got = found
        error = tuple(sqnr(exact[f"{n}.e"], got[f"{n}.e"]) for n in names)
        short += by_the_letter(case, sqnr(exact["output"], got["output"]), error)
    return short


@pytest.mark.long
def test_by_the_letter_fourteen_bits_are_too_few() -> None:
    """Float64 with the formats that calibration chose for `ideal`, rounded to nearest and nothing
    else: 35 of 200 fall short, 13 with 17 bits, 7 with 18."""
    short = [short_by_formats(more) for more in (0, 3, 4)]
    assert min(short[:2]) > SHARE * 200 >= short[2], short


@pytest.mark.long
@pytest.mark.xfail(reason="in linear chains with tau_r > tau_m rounded rates are amplified")
def test_only_clips_make_a_network_fall_short() -> None:
    """By the letter: what falls short shows a clip."""
    assert all(v.clips for v in verdicts(200) if v.short)
