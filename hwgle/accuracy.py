"""Accuracy of a network on a chip and in float, on labelled streams.

The class of a stream is the argmax of the outputs summed over its steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.calibrate import output_offsets
from hwgle.chip import Chip
from hwgle.device import Block, Device
from hwgle.network import Network
from hwgle.quantise import Scales, build_image, quantise_weights, to_int16
from hwgle.reference import Reference
from hwgle.session import GROUP, Progress, calibrate_on, combined_digest
from hwgle.tasks import Split
from hwgle.weights import Weights

OFFSET_SAMPLES = 1000  # of the training data, for the output offsets
FLOAT_GROUP = 100


@dataclass(frozen=True)
class Score:
    """Accuracies in 0..1: as the outputs come, and with fitted output offsets."""

    raw: float
    calibrated: float


@dataclass(frozen=True)
class Votes:
    """Outputs summed over time, (N, classes) in network units, and how they came about.

    digest and clipped are 0 in float. clipped: values of rates, inputs and membranes that
    did not fit their format.
    """

    sums: NDArray[np.float64]
    digest: int = 0
    clipped: int = 0


def float_votes(
    network: Network, weights: Weights, split: Split, progress: Progress | None = None
) -> Votes:
    """The float64 oracle on a split."""
    sums = np.zeros((len(split.y), network.outputs))
    for a in range(0, len(split.y), FLOAT_GROUP):
        x = split.x[a : a + FLOAT_GROUP]
        oracle = Reference(network, weights, batch=len(x))
        for t in range(x.shape[1]):
            oracle.step(x[:, t])
            sums[a : a + FLOAT_GROUP] += oracle.output
        if progress is not None:
            progress(min(a + FLOAT_GROUP, len(split.y)), len(split.y))
    return Votes(sums)


def chip_votes(
    device: Device,
    network: Network,
    chip: Chip,
    weights: Weights,
    scales: Scales,
    split: Split,
    progress: Progress | None = None,
) -> Votes:
    """A chip on a split, in groups of streams; scales from `chip_scales`."""
    count = len(split.y)
    sums = np.zeros((count, network.outputs))
    digests = []
    clipped = 0
    weights_digest = 0
    for a in range(0, count, GROUP):
        x = split.x[a : a + GROUP]
        image = build_image(network, chip, scales, batch=len(x))
        device.load(image, len(x))
        device.write_weights(quantise_weights(image, weights))
        xi, over = to_int16(np.swapaxes(x, 0, 1), scales.input, chip.input_max)
        records = device.run(Block(xi, votes=True))
        assert records.votes is not None
        sums[a : a + GROUP] = np.ldexp(records.votes, -scales.layers[-1].rate)
        clipped += over + sum(c["sat_x"] + c["sat_uhat"] + c["sat_r"] for c in device.counters())
        digests.append(device.stream_digests())
        weights_digest = device.weights_digest()
        if progress is not None:
            progress(min(a + GROUP, count), count)
    streams = np.concatenate(digests)
    digest = combined_digest(weights_digest, split.x.shape[1], streams)
    return Votes(sums, digest, clipped)


def chip_scales(network: Network, chip: Chip, weights: Weights, train: Split) -> Scales:
    """Scales for inference, from training data."""
    return calibrate_on(network, chip, weights, np.swapaxes(train.x, 0, 1), None)


def part(split: Split, count: int) -> Split:
    """The first samples of a split."""
    return Split(split.x[:count], split.y[:count])


def accuracy(votes: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Share of streams whose largest vote is their label."""
    return float(np.mean(votes.argmax(axis=1) == labels))


def score(votes: Votes, split: Split, on_train: Votes, train: Split) -> Score:
    """Raw, and with the output offsets that training data ask for."""
    offsets = output_offsets(on_train.sums, train.y)
    return Score(accuracy(votes.sums, split.y), accuracy(votes.sums + offsets, split.y))


def sqnr(reference: NDArray[np.floating], chip: NDArray[np.floating]) -> float:
    """Signal to quantisation-noise ratio in dB: power of reference over power of the error."""
    error = np.sum(np.square(reference.astype(np.float64) - chip))
    power = np.sum(np.square(reference.astype(np.float64)))
    return float(10 * np.log10(power / error)) if error > 0 else float("inf")
