"""The error budget: what each stage costs alone, accumulated, and in pairs.

With e(S) the deviation of the chip that has the stages S on top of fixed point from the chip
that has fixed point alone (from float64 for fixed point itself), the error of the whole chip is
e(fixed) + e(converters) + e(mismatch) + e(noise) + what they do to each other. Its power is

    P = sum of parts P(a) + sum of pairs I(a, b) + rest,    I(a, b) = P(a, b) - P(a) - P(b)

where P(a, b) is measured with both switched on together. Errors that add up as vectors do,
correlated or not, leave no rest; nor do two stages of any strength whatever they do to each
other. The rest is what three stages do together and no two of them do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hwgle.accuracy_report.deviation import (
    MOST_DB,
    Deviation,
    Deviations,
    Key,
    decibel,
    signal_powers,
)
from hwgle.accuracy_report.material import Material, time_bins
from hwgle.accuracy_report.signals import SIGNALS, Basis, ChipRun, Segment, lsb
from hwgle.accuracy_report.stages import (
    FIXED,
    STAGES,
    SWITCHED,
    TITLES,
    Imperfection,
    base,
    imperfections,
    of_stage,
    with_only,
    with_stages,
)
from hwgle.chip import Chip
from hwgle.network import Network
from hwgle.quantise import Scales
from hwgle.weights import Weights

THREADS = 2
FEW = ("r", "e")  # of chips with one imperfection
Subset = frozenset[str]
EMPTY: Subset = frozenset()
ALL: Subset = frozenset(SWITCHED)
Progress = Callable[[int, int], None]


@dataclass
class Budget:
    """What was measured of one chip. accumulated: from fixed point to all, against float64.
    alone: each stage (fixed against float64, the others against fixed). pairs: both on. own:
    each imperfection alone, r and e of all layers. scales: of the whole chip."""

    network: Network
    chip: Chip
    scales: Scales
    accumulated: dict[str, Deviations]
    alone: dict[str, Deviations]
    pairs: dict[tuple[str, str], Deviations]
    own: list[tuple[Imperfection, Deviations]]
    counters: list[dict[str, int]]
    steps: int

    def power(self, stages: Iterable[str], key: Key) -> float:
        """Of the error of a stage alone or of a pair, 0 for stages that the chip has not."""
        names = [s for s in STAGES if s in stages]
        if len(names) == 1:
            return self.alone[names[0]].of[key].power if names[0] in self.alone else 0.0
        first, second = names
        if (first, second) in self.pairs:
            return self.pairs[first, second].of[key].power
        return self.power([first], key) + self.power([second], key)

    def total(self, key: Key) -> Deviation:
        """All on, against float64."""
        return list(self.accumulated.values())[-1].of[key]

    def parts(self, key: Key) -> dict[str, float]:
        """Powers of the stages alone."""
        return {stage: self.power([stage], key) for stage in self.alone}

    def interactions(self, key: Key) -> dict[tuple[str, str], float]:
        """What pairs add to their parts (negative: they cancel)."""
        return {
            (a, b): self.power([a, b], key) - self.power([a], key) - self.power([b], key)
            for a, b in self.pairs
        }

    def explained(self, key: Key) -> float:
        """Parts and pairs in dB above the power that was measured with everything on."""
        found = sum(self.parts(key).values()) + sum(self.interactions(key).values())
        return ratio_db(found, self.total(key).power)


def ratio_db(a: float, b: float) -> float:
    """a over b in dB, 0 where both are 0, within +-MOST_DB."""
    if a <= 0 and b <= 0:
        return 0.0
    if a <= 0 or b <= 0:
        return -MOST_DB if a <= 0 else MOST_DB
    return 10 * math.log10(a / b)


def measure(
    network: Network,
    chip: Chip,
    weights: Weights,
    material: Material,
    reference: list[Segment],
    basis: Basis,
    progress: Progress | None = None,
) -> Budget:
    """The budget of a chip. reference: `float_segments` of the material."""
    present = [s for s in SWITCHED if of_stage(chip, s)]
    order: list[Subset] = [EMPTY]
    order += [frozenset(present[: k + 1]) for k in range(len(present))]
    singles = {s: frozenset([s]) for s in present}
    doubles = {(a, b): frozenset([a, b]) for a, b in combinations(present, 2)}
    subsets = list(dict.fromkeys([*order, *singles.values(), *doubles.values()]))
    chips = {s: with_stages(chip, s) if s else base(chip) for s in subsets}
    built = {c: basis.scales(c) for c in dict.fromkeys(chips.values())}
    runs = {
        s: ChipRun(network, c, weights, built[c], material.streams) for s, c in chips.items()
    }
    items = imperfections(chip)
    small: list[ChipRun] = []
    for item in items:
        one = with_only(chip, [item])
        scales = basis.scales(one)
        small.append(ChipRun(network, one, weights, scales, material.streams, signals=FEW))

    keys = [(k, s) for k in range(len(network.layers)) for s in SIGNALS]
    some = [(k, s) for k in range(len(network.layers)) for s in FEW]
    names = [FIXED, *present]
    accumulated = {n: Deviations(keys) for n in names}
    alone = {n: Deviations(keys) for n in names}
    every = [*combinations(names, 2)]
    pairs = {pair: Deviations(keys) for pair in every}
    own = [(item, Deviations(some)) for item in items]

    def compare(k: int, found: dict[Subset, Segment], few: list[Segment]) -> None:
        true, bare = reference[k], found[EMPTY]
        signal = signal_powers(true, keys)
        for name, subset in zip(names, order, strict=True):
            accumulated[name].add(true, found[subset], signal)
        alone[FIXED].add(true, bare, signal)
        for name in present:
            alone[name].add(bare, found[singles[name]], signal)
        for a, b in every:
            if a == FIXED:
                pairs[a, b].add(true, found[singles[b]], signal)
            else:
                pairs[a, b].add(bare, found[doubles[a, b]], signal)
        for (_, deviations), segment in zip(own, few, strict=True):
            deviations.add(bare, segment, signal)

    pool = ThreadPoolExecutor(THREADS)
    try:
        for k in range(material.segments):
            x, y = material.segment(k)
            full = pool.map(lambda run: run.segment(x, y), runs.values())  # noqa: B023
            few = pool.map(lambda run: run.segment(x, y), small)  # noqa: B023
            segments = dict(zip(runs, full, strict=True))
            rest = list(few)
            if k >= material.settle:
                compare(k, segments, rest)
            if progress is not None:
                progress(k + 1, material.segments)
    finally:  # after Ctrl-C nothing is begun any more
        pool.shutdown(cancel_futures=True)
    whole = runs[order[-1]]
    counters = [dict(c) for c in whole.counters()]
    return Budget(
        network, chip, whole.scales, accumulated, alone, pairs, own, counters, material.steps
    )


# --- for JSON ----------------------------------------------------------------------------------


def to_dict(budget: Budget, board: float = 0.0) -> dict[str, Any]:
    """The budget for JSON. board: power that bodies add to the output over the signal's, 0
    where all digests are equal."""
    layers: dict[str, Any] = {}
    for k, layer in enumerate(budget.network.layers):
        layers[layer.name] = {s: _signal(budget, (k, s)) for s in SIGNALS}
    top = len(budget.network.layers) - 1
    output = copy.deepcopy(layers[budget.network.layers[top].name]["r"])
    output["powers"]["board"] = board
    worst = max((abs(budget.explained((k, s))), k, s) for k in range(top + 1) for s in SIGNALS)
    return {
        "stages": [
            {
                "name": stage,
                "title": TITLES[stage],
                "present": stage in budget.alone,
                "imperfections": [i.text for i, _ in budget.own if i.stage == stage],
            }
            for stage in STAGES
        ],
        "output": output,
        "layers": layers,
        "adds_up": {
            "worst": worst[0],
            "layer": budget.network.layers[worst[1]].name,
            "signal": worst[2],
        },
        "imperfections": [_own(budget, i, d) for i, d in budget.own],
        "time": _time(budget),
    }


def _signal(budget: Budget, key: Key) -> dict[str, Any]:
    unit = lsb(budget.network, budget.chip, budget.scales, *key)
    total = budget.total(key)
    power, reference = total.power, total.reference
    scale = reference or 1.0
    parts = budget.parts(key)
    pairs = budget.interactions(key)
    return {
        "lsb": unit,
        **total.figures(unit),
        "accumulated": {n: d.of[key].figures(unit) for n, d in budget.accumulated.items()},
        "alone": {n: d.of[key].figures(unit) for n, d in budget.alone.items()},
        "powers": {
            "total": power / scale,
            "parts": {n: p / scale for n, p in parts.items()},
            "pairs": {f"{a}+{b}": p / scale for (a, b), p in pairs.items()},
            "rest": (power - sum(parts.values()) - sum(pairs.values())) / scale,
            "explained_db": budget.explained(key),
        },
    }


def _own(budget: Budget, item: Imperfection, found: Deviations) -> dict[str, Any]:
    last = len(budget.network.layers) - 1
    each = {
        layer.name: {s: decibel(found.of[k, s].reference, found.of[k, s].power) for s in FEW}
        for k, layer in enumerate(budget.network.layers)
    }
    return {
        "name": item.name,
        "stage": item.stage,
        "text": item.text,
        "sqnr": each[budget.network.layers[last].name]["r"],
        "error_sqnr": min(own["e"] for own in each.values()),
        "layers": each,
    }


def _time(budget: Budget) -> dict[str, Any]:
    """SQNR of each layer's rates and updates over a segment, stages accumulated."""
    bins = list(time_bins(budget.steps))
    middle = [(b.start + b.stop) / 2 * budget.network.dt for b in bins]
    layers: dict[str, Any] = {}
    for k, layer in enumerate(budget.network.layers):
        layers[layer.name] = {
            s: {
                name: [_binned(d.of[k, s], b) for b in bins]
                for name, d in budget.accumulated.items()
            }
            for s in SIGNALS
        }
    return {"at": middle, "layers": layers}


def _binned(found: Deviation, when: slice) -> float:
    if found.signal is None or found.error is None:
        return MOST_DB
    return decibel(float(found.signal[when].sum()), float(found.error[when].sum()))

