"""Accuracy of a network on a chip and in float, on labelled samples.

The class of a sample is the argmax of the outputs summed over its steps. States persist
from sample to sample, as while learning: samples are presented one behind the other in
streams of up to `STREAM`, each of which begins at rest. Presented each by itself from
rest, a network is judged on a beginning that it has hardly ever seen: that costs the 15k
network 1 to 4 points.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.calibrate import output_offsets
from hwgle.chip import Chip
from hwgle.device import Block, Device, Pending
from hwgle.health import Health, Watch
from hwgle.network import Network
from hwgle.quantise import Scales, build_image, to_int16
from hwgle.session import Loaded, Progress, calibrate_on, combined_digest, cut, group_size
from hwgle.tasks import Split
from hwgle.weights import Weights

OFFSET_SAMPLES = 1000  # of the training data, for the output offsets
STREAM = 20  # samples
UNDER_WAY = 2  # samples on their way to a board


@dataclass(frozen=True)
class Score:
    """Accuracies in 0..1: as the outputs come, and with fitted output offsets."""

    raw: float
    calibrated: float


@dataclass(frozen=True)
class Votes:
    """Outputs summed over each sample, (N, classes) in network units, and how they came about.

    digest and clipped are 0 in float. clipped: values of rates, inputs and membranes that
    did not fit their format. health: None where nobody looked.
    """

    sums: NDArray[np.float64]
    digest: int = 0
    clipped: int = 0
    health: Health | None = None


def stream_length(count: int) -> int:
    """Samples of a stream: the most, up to STREAM, that divide `count` without a rest."""
    return next(n for n in range(min(STREAM, max(count, 1)), 0, -1) if count % n == 0)


def in_streams(split: Split) -> NDArray[np.float32]:
    """The samples one behind the other: (streams, samples of a stream * T, inputs)."""
    count, steps, inputs = split.x.shape
    length = stream_length(count)
    return split.x.reshape(count // length, length * steps, inputs)


def sums(output: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Votes of `count` samples, (count, classes), from outputs (steps, streams, classes)."""
    total, streams, classes = output.shape
    length = count // streams
    each = output.reshape(length, total // length, streams, classes)
    votes: NDArray[np.float64] = each.sum(axis=1, dtype=np.float64)
    return votes.swapaxes(0, 1).reshape(count, classes)


def chip_votes(
    device: Device,
    network: Network,
    chip: Chip,
    weights: Weights,
    scales: Scales,
    split: Split,
    progress: Progress | None = None,
    *,
    health: bool = False,
) -> Votes:
    """A chip on a split, in groups of streams; scales from `chip_scales`. health: look at its
    neurons on the way."""
    x = in_streams(split)
    count, steps = len(x), split.x.shape[1]
    length = x.shape[1] // steps
    votes = np.zeros((count, length, network.outputs))
    watch = Watch(network, chip, weights, length * steps, count, scales.input) if health else None
    looks = watch.steps if watch is not None else ()
    digests = []
    over = 0
    loaded = Loaded(device, lambda n: build_image(network, chip, scales, batch=n), weights)
    for part in loaded.groups(count, group_size(device, count, False)):
        xi, clipped = to_int16(np.swapaxes(x[part], 0, 1), scales.input, chip.input_max)
        over += clipped
        under_way: deque[list[tuple[Pending, int, bool]]] = deque()
        sent = 0
        for k in range(length):
            while sent < min(k + UNDER_WAY, length):
                pieces = []
                for a, b, look in cut(sent * steps, (sent + 1) * steps, (), looks):
                    pairs = watch.pairs if look and watch is not None else ()
                    block = Block(xi[a:b], record=pairs, votes=True)
                    pieces.append((device.submit(block), a, look))
                under_way.append(pieces)
                sent += 1
            for pending, a, look in under_way.popleft():
                records = pending.result()
                assert records.votes is not None
                votes[part, k] += np.ldexp(records.votes, -scales.layers[-1].rate)
                if look and watch is not None:
                    assert records.fracs is not None
                    watch.look(xi[a : a + 1], records.signals, records.fracs, part.start)
            if progress is not None:
                done = part.start * length + (k + 1) * (part.stop - part.start)
                progress(done, len(split))
        digests.append(device.stream_digests())
    weights_digest = device.weights_digest()
    clipped = over + sum(c["sat_x"] + c["sat_uhat"] + c["sat_r"] for c in loaded.counters())
    digest = combined_digest(weights_digest, x.shape[1], np.concatenate(digests))
    found = watch.health() if watch is not None else None
    return Votes(votes.reshape(len(split), network.outputs), digest, clipped, found)


def chip_scales(network: Network, chip: Chip, weights: Weights, train: Split) -> Scales:
    """Scales for inference, from training data."""
    return calibrate_on(network, chip, weights, np.swapaxes(train.x, 0, 1), None)


def part(split: Split, count: int) -> Split:
    """The first samples of a split."""
    return Split(split.x[:count], split.y[:count])


def accuracy(votes: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Share of samples whose largest vote is their label."""
    return float(np.mean(votes.argmax(axis=1) == labels))


def score(votes: Votes, split: Split, on_train: Votes, train: Split) -> Score:
    """Raw, and with the output offsets that training data ask for."""
    offsets = output_offsets(on_train.sums, train.y)
    return Score(accuracy(votes.sums, split.y), accuracy(votes.sums + offsets, split.y))


def sqnr(reference: NDArray[np.floating], chip: NDArray[np.floating]) -> float:
    """Signal to quantisation-noise ratio in dB: power of reference over power of the error.

    inf where they are equal, -inf where the reference is nothing and the other is not."""
    error = np.sum(np.square(reference.astype(np.float64) - chip))
    power = np.sum(np.square(reference.astype(np.float64)))
    if error == 0:
        return float("inf")
    return float(10 * np.log10(power / error)) if power > 0 else float("-inf")
