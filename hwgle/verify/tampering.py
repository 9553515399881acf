"""Which bit to flip: drawn from the seed, among those that matter.

A rate that no weight passes on, or the lowest bit of a state that is rounded away, leaves
no trace in any later state; nobody could find it, and it does no harm. Such draws are
passed over, and counted.
"""

from __future__ import annotations

import numpy as np

from hwgle import topology
from hwgle._core import lib
from hwgle.errors import UsageError
from hwgle.quantise import Quantised
from hwgle.verify.bodies import FLIPPED, WIDTH, TamperableEmulator, Tampering
from hwgle.verify.drawing import BLOCK, Blocks

TRIES = 1000
WATCHED = 2 * BLOCK  # steps in which a flipped bit must show


def draw(blocks: Blocks, stored: Quantised, seed: int, uhat: bool) -> Tampering:
    """A bit whose flip changes a later state. Raises UsageError when none is found."""
    rng = np.random.default_rng([seed, 4])
    run, network = blocks.run, blocks.image.network
    if run.steps < 2:
        raise UsageError("--tamper: at least 2 steps are needed for a flipped bit to show")
    step = int(rng.integers(0, run.steps - 1))
    end = min(run.steps, step + 1 + WATCHED)
    with TamperableEmulator() as emulator:
        emulator.load(blocks.image, run.batch, uhat=uhat)
        emulator.write_weights(stored)

        def advance(first: int, to: int) -> None:
            for at, count in run.spans(first, to):
                emulator.run(blocks.block(at, count))

        advance(0, step + 1)
        assert lib.gle_steps(emulator._chip) == step + 1
        snapshot = emulator.snapshot()
        advance(step + 1, end)
        untouched = emulator.digest()
        for passed_over in range(TRIES):
            layer = int(rng.integers(len(network.layers)))
            signal = FLIPPED[int(rng.integers(len(FLIPPED)))]
            if signal == "uhat" and not uhat and layer + 1 < len(network.layers):
                continue
            n, m = network.sizes[layer], network.fan_in(layer)
            absent = np.zeros(0, dtype=np.bool_)
            if signal == "weight" and topology.masked(network, layer):
                absent = ~topology.mask(network, layer).ravel()
            count = {"weight": n * m, "bias": n}.get(signal, n * run.batch)
            index, bit = int(rng.integers(count)), int(rng.integers(WIDTH.get(signal, 32)))
            if absent.size and absent[index]:
                continue
            emulator.restore(snapshot)
            emulator.flip(layer, signal, index, bit)
            advance(step + 1, end)
            if emulator.digest() != untouched:
                drawn = Tampering(step, layer, signal, index, bit)
                drawn.passed_over = passed_over
                return drawn
    raise UsageError(f"--tamper: none of {TRIES} drawn bits changes any later state")
