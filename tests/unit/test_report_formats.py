"""Formats and widths: what is recommended keeps its promise on samples not chosen on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwgle import weights as weights_file
from hwgle.accuracy_report import formats, widths
from hwgle.accuracy_report.material import of_split
from hwgle.accuracy_report.signals import Basis, ChipRun, float_segments
from hwgle.accuracy_report.trial import Trials
from hwgle.chip import Chip
from hwgle.experiment import Experiment
from hwgle.quantise import round_half_up
from hwgle.tasks import TASKS
from tests.reports import Drawn, drawn

ZOO = Path(__file__).parents[2] / "hwgle" / "zoo" / "weights"
KEPT = ("output", "errors")


def use_of(values: np.ndarray, bits: int, frac: int) -> formats.Used:
    full = 2 ** (bits - 1) - 1
    codes = round_half_up(np.ldexp(values, frac))
    clipped = float(np.mean(np.abs(codes) > full))
    return formats.Used("rate", "l", bits, frac, full, values, codes, clipped)


def test_values_by_the_bits_that_they_use() -> None:
    use = use_of(np.array([0.0, 0.4, 1.0, 2.0, 3.0, 4.0, 7.0, -8.0]), bits=4, frac=0)
    assert formats.bit_histogram(use) == [2 / 8, 1 / 8, 2 / 8, 2 / 8, 1 / 8]
    found = formats.figures(use, formats.advise(use, 10))
    assert found["to_nothing"] == 2 / 8
    assert found["clipped"] == 1 / 8
    assert found["dead_codes"] == 1 - 7 / 15  # 0 1 2 3 4 7 and -7 of -7..7


def test_advice_for_a_format_with_too_much_room() -> None:
    values = np.random.default_rng(2).uniform(-1, 1, 20_000)
    use = use_of(values, bits=10, frac=6)  # full scale 8
    advice = formats.advise(use, 15)
    assert advice.frac == 9
    assert advice.gain == pytest.approx(18.06, abs=0.3)
    assert advice.bits == 8  # 7 would clip at 63/64
    better = use_of(values, bits=10, frac=9)
    assert formats.advise(better, 15).gain == 0.0
    narrow = formats.error_power(values, 2**7 - 1, 6)
    assert narrow <= formats.error_power(values, use.full, 6) * 1.02


def test_advice_for_a_format_that_clips() -> None:
    values = np.random.default_rng(3).uniform(-4, 4, 20_000)
    advice = formats.advise(use_of(values, bits=8, frac=6), 15)  # full scale 2
    assert advice.frac == 5
    assert advice.gain > 20


def keeps_promises(d: Drawn, chip: Chip) -> tuple[bool, bool]:
    """Whether anything was recommended: scales, widths."""
    trials = Trials(d.network, d.weights, d.chosen, d.basis)
    held = Trials(d.network, d.weights, d.judged, d.basis, d.reference)
    scales = d.basis.scales(chip)
    run = ChipRun(d.network, chip, d.weights, scales, d.chosen.streams, signals=("r", "e"))
    for k in range(d.chosen.segments):
        run.segment(*d.chosen.segment(k))
    seen = float_segments(d.network, d.weights, d.chosen)
    names = [layer.name for layer in d.network.layers]
    advice = {}
    for use in formats.used(
        d.network, chip, d.weights, scales, d.chosen, seen, run.counters()
    ):
        k = 0 if use.layer is None else names.index(use.layer)
        advice[use.kind, use.layer] = formats.advise(use, formats.finest(use, scales, k))
    best = formats.recommend(d.network, chip, scales, advice, trials)
    gain = held(chip, best.scales).gain(held(chip, scales))
    if best.kinds:
        assert max(best.promised[k] for k in KEPT) > 0
        for k in KEPT:
            assert gain[k] >= best.promised[k], (k, best)
    found = widths.narrower(chip, trials)
    gain = held(found.chip).gain(held(chip))
    if found.changes:
        assert all(then < now for now, then in found.changes.values())
        for k in KEPT:
            assert gain[k] >= found.promised[k], (k, found.changes, gain)
    return bool(best.kinds), bool(found.changes)


@pytest.mark.parametrize("profile", ["ideal8", "mixed-signal"])
def test_what_is_recommended_holds_on_random_networks(profile: str) -> None:
    found = [keeps_promises(drawn(seed), Chip.load(f"{profile}:{seed}")) for seed in (0, 2, 5)]
    assert any(scales for scales, _ in found)
    assert any(fewer for _, fewer in found)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("profile", ["ideal8", "mixed-signal"])
def test_what_is_recommended_holds_on_20_random_networks(profile: str, seed: int) -> None:
    keeps_promises(drawn(seed), Chip.load(f"{profile}:{seed}"))


@pytest.mark.long
@pytest.mark.parametrize("profile", ["ideal", "ideal8", "mixed-signal:1"])
def test_what_is_recommended_holds_on_15k(profile: str) -> None:
    experiment = Experiment.load("mnist1d-15k")
    network = experiment.load_network()
    weights = weights_file.load(ZOO / "mnist1d-15k.npz", network)
    task = TASKS["mnist1d"](42, 43, 4000, 1000)
    judged = of_split(task.test, 8, 5)
    basis = Basis(network, weights, np.swapaxes(task.train.x, 0, 1), task.train.y)
    d = Drawn(
        network, weights, of_split(task.train, 8, 4), judged, basis,
        float_segments(network, weights, judged),
    )  # fmt: skip
    assert any(keeps_promises(d, Chip.load(profile)))


def test_an_adc_that_is_short_gains_by_a_bit() -> None:
    d = drawn(2)
    ideal = Chip.load("ideal")
    short = ideal.model_copy(
        update={"readout": ideal.readout.model_copy(update={"bits": 6})}
    )
    trials = Trials(d.network, d.weights, d.chosen, d.basis)
    each = widths.sensitivity(short, trials)
    assert each["readout"]["converters"]["more"]["output"] > 4
    assert each["readout"]["chip"]["fewer"]["output"] < -4
    assert abs(each["input"]["converters"]["fewer"]["output"]) < 1
    assert "readout" not in widths.sensitivity(ideal, trials)
