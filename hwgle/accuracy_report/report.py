"""The whole report of an experiment as one dictionary, as the schema says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwgle.accuracy import OFFSET_SAMPLES, Votes, in_streams, part, sums
from hwgle.accuracy_report import (
    bodies,
    budget,
    classes,
    faults,
    formats,
    learning,
    made,
    signals,
    widths,
)
from hwgle.accuracy_report import limits as limits_
from hwgle.accuracy_report.material import Material, of_split
from hwgle.accuracy_report.signals import Basis, Segment
from hwgle.accuracy_report.stages import FIXED, SWITCHED, base, of_stage, with_stages
from hwgle.accuracy_report.trial import Trials
from hwgle.chip import Chip
from hwgle.experiment import Experiment
from hwgle.identity import identity_hash
from hwgle.network import Network
from hwgle.quantise import Scales
from hwgle.report.floats import FloatPool
from hwgle.report.individual import in_words
from hwgle.tasks import Split, Task
from hwgle.weights import Weights

FORMAT = "hwgle/report/1"
Progress = Callable[[str, float], None]
VALUES = 6_000_000  # of a signal, all layers, streams and steps of what is judged


@dataclass(frozen=True)
class Sizes:
    """How much is run. samples: classified, of the test split. streams, segments: of the
    budget, the first segment settles. trials: segments for other formats and widths. seeds:
    more chips of a profile, for the spread."""

    samples: int = 1000
    streams: int = 8
    segments: int = 5
    trials: int = 4
    learning: int = 3
    seeds: int = 4
    seed: int = 0


@dataclass
class Inputs:
    """What is reported on. data: the task; picked: its samples in the order of the seed."""

    experiment: Experiment
    network: Network
    weights: Weights
    chips: list[Chip]
    task: Task
    devices: list[str] = field(default_factory=lambda: ["emu:"])
    baud: int | None = None
    limits: limits_.Limits | None = None
    files: dict[str, str] = field(default_factory=dict)
    sizes: Sizes = Sizes()


@dataclass(frozen=True)
class Advised:
    """What can be used as it stands: scales and a profile with fewer bits, of one chip."""

    scales: Scales | None
    narrower: Chip | None


@dataclass
class _Shared:
    """What does not depend on a chip."""

    judged: Material
    reference: list[Segment]
    trials: Material
    tried: list[Segment]
    lessons: Material
    directions: learning.Directions
    test: Split
    fitted: Split


def _picked(split: Split, seed: int) -> Split:
    """The split, in an order that the seed draws; 0: as it is."""
    if seed == 0:
        return split
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(split))
    return Split(split.x[order], split.y[order])


def segments_for(network: Network, steps: int, sizes: Sizes) -> tuple[int, int]:
    """Streams and segments of what is judged, so that memory does for large networks."""
    neurons = sum(network.sizes)
    streams = sizes.streams
    while streams > 2 and streams * sizes.segments * steps * neurons > VALUES:
        streams //= 2
    return streams, sizes.segments


def build(inputs: Inputs, progress: Progress | None = None) -> tuple[dict[str, Any], list[Advised]]:
    """Run everything. Returns the report, and per chip what it recommends."""
    begun = time.monotonic()
    say = progress or (lambda what, share: None)
    count = len(inputs.chips)
    with FloatPool() as pool:
        task, sizes = inputs.task, inputs.sizes
        test, fitted = part(task.test, sizes.samples), part(task.train, OFFSET_SAMPLES)
        fitted = part(fitted, max(200, sizes.samples))
        votes = [
            pool.outputs(inputs.network, inputs.weights, in_streams(split))
            for split in (test, fitted)
        ]
        shared = _share(inputs, test, fitted, lambda s: say("float64", 0.15 * s))
        chips: list[dict[str, Any]] = []
        advised: list[Advised] = []
        outputs: list[Any] = []

        def floating() -> tuple[Any, Any]:
            if not outputs:
                outputs.extend(
                    sums(v.get(), len(s)) for v, s in zip(votes, (test, fitted), strict=True)
                )
            return outputs[0], outputs[1]

        for k, chip in enumerate(inputs.chips):

            def inner(what: str, share: float, k: int = k, chip: Chip = chip) -> None:
                say(f"{chip.name}: {what}", 0.15 + 0.85 * (k + share) / count)

            found, advice = _chip(inputs, chip, shared, floating, inner)
            chips.append(found)
            advised.append(advice)
    report: dict[str, Any] = {
        "format": FORMAT,
        "experiment": inputs.experiment.name,
        "verdict": {},
        "network": _network(inputs.network),
        "setting": _setting(inputs, shared),
        "limits": None,
        "chips": chips,
        "made": {**made.told(inputs), "seconds": time.monotonic() - begun},
    }
    if inputs.limits is not None:
        results = limits_.check(inputs.limits, report)
        broken = sum(not r["met"] for r in results)
        report["limits"] = {"count": len(results), "broken": broken, "results": results}
    report["verdict"] = faults.verdict(report)
    return report, advised


def _share(inputs: Inputs, test: Split, fitted: Split, say: Callable[[float], None]) -> _Shared:
    network, weights, sizes = inputs.network, inputs.weights, inputs.sizes
    steps = inputs.task.test.x.shape[1]
    streams, segments = segments_for(network, steps, sizes)
    judged = of_split(_picked(inputs.task.test, sizes.seed), streams, segments)
    train = _picked(inputs.task.train, sizes.seed)
    trials = of_split(train, streams, sizes.trials)
    used = trials.segments * trials.streams
    rest = Split(train.x[used:], train.y[used:]) if len(train) >= 2 * used else train
    lessons = of_split(rest, 2 * streams, sizes.learning)
    say(0.1)
    reference = signals.float_segments(network, weights, judged)
    say(0.4)
    tried = signals.float_segments(network, weights, trials)
    say(0.7)
    directions = learning.Directions(network, weights, lessons.first(2))
    say(1.0)
    return _Shared(
        judged, reference, trials, tried, lessons, directions, test, fitted
    )


def _network(network: Network) -> dict[str, Any]:
    return {
        "name": network.name,
        "parameters": network.parameters,
        "neurons": sum(network.sizes),
        "inputs": network.inputs,
        "dt": network.dt,
        "loss": network.loss,
        "layers": [{"name": y.name, "size": y.size, "phi": y.phi} for y in network.layers],
    }


def _setting(inputs: Inputs, shared: _Shared) -> dict[str, Any]:
    return {
        "task": inputs.task.name,
        "steps": shared.judged.steps,
        "classified": len(shared.test),
        "fitted": len(shared.fitted),
        "judged": shared.judged.judged,
        "tried": shared.trials.judged,
        "learned": shared.lessons.segments * shared.lessons.streams,
    }


def _chip(
    inputs: Inputs,
    chip: Chip,
    shared: _Shared,
    floating: Callable[[], tuple[Any, Any]],
    say: Progress,
) -> tuple[dict[str, Any], Advised]:
    network, weights, task = inputs.network, inputs.weights, inputs.task
    basis = Basis(network, weights, np.swapaxes(task.train.x, 0, 1), task.train.y)
    say("error budget", 0.0)
    measured = budget.measure(
        network, chip, weights, shared.judged, shared.reference, basis,
        lambda done, of: say("error budget", 0.3 * done / of),
    )  # fmt: skip
    trials = Trials(network, weights, shared.trials, basis, shared.tried)
    held = Trials(network, weights, shared.judged, basis, shared.reference)
    say("formats", 0.3)
    each, scales = _formats(inputs, chip, measured, shared, trials, held)
    say("bit widths", 0.4)
    table, narrow = _widths(chip, trials, held)
    say("learning", 0.6)
    learned = {
        "directions": shared.directions.figures(chip, basis),
        "plasticity": learning.audit(network, chip, weights, shared.lessons, basis),
    }
    say("classes", 0.7)
    own, others = _votes(inputs, chip, shared, say)
    accuracy = classes.figures(network, shared.test, shared.fitted, own, floating(), others)
    accuracy["stages"] = _by_stage(inputs, chip, shared, own, say)
    health = classes.health_of(own[0])
    say("bodies", 0.95)
    met = [
        bodies.compare(url, network, chip, weights, shared.judged, basis, inputs.baud)
        for url in inputs.devices
    ]
    adds = sum(body["adds"] for body in met)
    found: dict[str, Any] = {
        "name": chip.name,
        "seed": chip.seed,
        "identity": identity_hash(chip),
        "parts": [{"part": name, "text": text} for name, text in in_words(chip)],
        "found": [],
        "faults": 0,
        "budget": budget.to_dict(measured, adds),
        "formats": each,
        "widths": table,
        "learning": learned,
        "task": accuracy,
        "health": health.to_dict(),
        "bodies": met,
    }
    found["found"] = faults.find(found)
    found["faults"] = sum(f["severity"] == faults.FAULT for f in found["found"])
    say("done", 1.0)
    return found, Advised(scales, narrow)


def _formats(
    inputs: Inputs,
    chip: Chip,
    measured: budget.Budget,
    shared: _Shared,
    trials: Trials,
    held: Trials,
) -> tuple[dict[str, Any], Scales | None]:
    network, scales = inputs.network, measured.scales
    names = [layer.name for layer in network.layers]
    chosen_on, judged_by = (
        formats.used(network, chip, inputs.weights, scales, m, r, measured.counters)
        for m, r in ((shared.trials, shared.tried), (shared.judged, shared.reference))
    )
    each, advice = [], {}
    for seen, use in zip(chosen_on, judged_by, strict=True):
        k = 0 if use.layer is None else names.index(use.layer)
        own = formats.advise(seen, formats.finest(seen, scales, k))
        advice[use.kind, use.layer] = own
        each.append(formats.figures(use, own))
    best = formats.recommend(network, chip, scales, advice, trials)
    gain = held(chip, best.scales).gain(held(chip, scales))
    recommended = {
        "kinds": list(best.kinds),
        "promised": best.promised,
        "measured": gain,
        "now": held(chip, scales).figures(),
    }
    return {"each": each, "recommended": recommended}, best.scales if best.kinds else None


def _widths(chip: Chip, trials: Trials, held: Trials) -> tuple[dict[str, Any], Chip | None]:
    each = widths.sensitivity(chip, trials)
    found = widths.narrower(chip, trials)
    titles = {w.name: w.title for w in widths.WIDTHS}
    changes = {
        name: {"title": titles[name], "now": now, "then": then}
        for name, (now, then) in found.changes.items()
    }
    gain = held(found.chip).gain(held(chip))
    table = {
        "each": each,
        "narrower": {"changes": changes, "promised": found.promised, "measured": gain},
    }
    return table, found.chip if changes else None


def _by_stage(
    inputs: Inputs, chip: Chip, shared: _Shared, own: tuple[Votes, Votes], say: Progress
) -> dict[str, dict[str, float]]:
    """Accuracies with the stages of the budget accumulated; the last is the chip itself."""
    present = [s for s in SWITCHED if of_stage(chip, s)]
    found = {}
    for k, name in enumerate([FIXED, *present]):
        one = with_stages(chip, present[:k]) if k else base(chip)
        say(f"classes, {name}", 0.9 + 0.05 * k / (1 + len(present)))
        votes = own
        if one != chip:
            votes = classes.votes_of(
                inputs.network, one, inputs.weights, inputs.task.train, shared.test, shared.fitted
            )
        found[name] = classes.accuracies(votes, shared.test, shared.fitted)
    return found


def _votes(
    inputs: Inputs, chip: Chip, shared: _Shared, say: Progress
) -> tuple[tuple[Votes, Votes], list[tuple[int, dict[str, float]]]]:
    """Of the chip, and accuracies of more seeds of its profile."""
    network, weights, train = inputs.network, inputs.weights, inputs.task.train
    more = inputs.sizes.seeds if classes.differs_by_seed(chip) and not chip.measured.layers else 0

    def votes(one: Chip, k: int) -> tuple[Votes, Votes]:
        say(f"classes, seed {one.seed}", 0.7 + 0.2 * k / (more + 1))
        return classes.votes_of(network, one, weights, train, shared.test, shared.fitted)

    own = votes(chip, 0)
    others = []
    for k in range(1, more + 1):
        one = chip.model_copy(update={"seed": chip.seed + k})
        others.append((one.seed, classes.accuracies(votes(one, k), shared.test, shared.fitted)))
    return own, others

