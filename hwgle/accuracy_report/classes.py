"""The task: accuracies of chips and of float64, confusions, samples that change their class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy import Votes, chip_scales, chip_votes, score
from hwgle.calibrate import output_offsets
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.health import Health
from hwgle.montecarlo import spread
from hwgle.network import Network
from hwgle.tasks import Split
from hwgle.weights import Weights

Progress = Callable[[int, int], None]
Floats = NDArray[np.float64]
Classes = NDArray[np.int64]
RAW, CALIBRATED = "raw", "calibrated"


def differs_by_seed(chip: Chip) -> bool:
    """Whether another seed is another chip, or another run of noise."""
    noisy = chip.membrane.noise > 0 or chip.error.noise > 0 or chip.readout.noise > 0
    drawn = chip.leak.mismatch > 0 or chip.synapses_differ or chip.inputs_differ
    return noisy or drawn or (chip.neurons_differ and not only_adc(chip))


def only_adc(chip: Chip) -> bool:
    """Whether its neurons differ from ideal ones by the ADC's bits alone."""
    a, r = chip.activation, chip.readout
    return not any((a.gain, a.offset, a.dead, chip.membrane.noise, r.offset, r.gain, r.noise))


def votes_of(
    network: Network,
    chip: Chip,
    weights: Weights,
    train: Split,
    test: Split,
    fitted: Split,
    progress: Progress | None = None,
) -> tuple[Votes, Votes]:
    """Of the test split (with a look at the neurons' health) and of the samples that offsets
    are fitted on. train: scales come from it."""
    scales = chip_scales(network, chip, weights, train)
    device = Emulator()
    on_test = chip_votes(device, network, chip, weights, scales, test, progress, health=True)
    return on_test, chip_votes(device, network, chip, weights, scales, fitted)


def confusion(labels: Classes, found: Classes, classes: int) -> list[list[int]]:
    """Rows are labels, columns the classes found."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, found), 1)
    return [[int(n) for n in row] for row in counts]


def changes(labels: Classes, floating: Floats, chip: Floats) -> list[dict[str, Any]]:
    """Samples whose class is another on the chip. margin: by how much float64's vote led, in
    standard deviations of its votes."""
    a, b = floating.argmax(axis=1), chip.argmax(axis=1)
    unit = float(floating.std()) or 1.0
    top = np.sort(floating, axis=1)
    lead = (top[:, -1] - top[:, -2]) / unit
    return [
        {
            "sample": int(i),
            "label": int(labels[i]),
            "float": int(a[i]),
            "chip": int(b[i]),
            "margin": float(lead[i]),
        }
        for i in np.flatnonzero(a != b)
    ]


def figures(
    network: Network,
    test: Split,
    fitted: Split,
    chip: tuple[Votes, Votes],
    floating: tuple[Floats, Floats],
    others: Sequence[tuple[int, dict[str, float]]],
) -> dict[str, Any]:
    """For JSON. floating: votes of both splits. others: more seeds and their accuracies."""
    own = score(chip[0], test, chip[1], fitted)
    true = score(Votes(floating[0]), test, Votes(floating[1]), fitted)
    offsets = output_offsets(chip[1].sums, fitted.y), output_offsets(floating[1], fitted.y)
    better = chip[0].sums + offsets[0], floating[0] + offsets[1]
    plain = changes(test.y, floating[0], chip[0].sums)
    calibrated = changes(test.y, better[1], better[0])
    seeds = [{"raw": own.raw, "calibrated": own.calibrated}, *(a for _, a in others)]
    return {
        "samples": len(test),
        "fitted": len(fitted),
        "float": {"raw": true.raw, "calibrated": true.calibrated},
        "chip": {"raw": own.raw, "calibrated": own.calibrated},
        "difference": {
            "raw": own.raw - true.raw,
            "calibrated": own.calibrated - true.calibrated,
        },
        "seeds": {
            "each": [{"seed": seed, **a} for seed, a in others],
            "count": len(seeds),
            **{k: spread(np.array([s[k] for s in seeds])) for k in (RAW, CALIBRATED)},
        },
        "confusion": {
            "chip": confusion(test.y, chip[0].sums.argmax(axis=1), network.outputs),
            "chip_calibrated": confusion(test.y, better[0].argmax(axis=1), network.outputs),
            "float": confusion(test.y, floating[0].argmax(axis=1), network.outputs),
        },
        "changed": {
            "raw": plain,
            "raw_count": len(plain),
            "calibrated": calibrated,
            "calibrated_count": len(calibrated),
        },
    }


def accuracies(votes: tuple[Votes, Votes], test: Split, fitted: Split) -> dict[str, float]:
    """Of one chip."""
    found = score(votes[0], test, votes[1], fitted)
    return {RAW: found.raw, CALIBRATED: found.calibrated}


def health_of(votes: Votes) -> Health:
    """What the look at the neurons found."""
    assert votes.health is not None
    return votes.health
