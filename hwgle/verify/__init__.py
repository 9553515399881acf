"""Proof that a body and the emulator agree in every bit of every state at every step.

prepare() draws what nobody gave and loads both sides, Comparison runs and compares them,
verify() is both. hwgle/cli/verify.py says it in words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle._core import lib
from hwgle.chip import Chip
from hwgle.device import Device
from hwgle.devices.emulator import Emulator
from hwgle.network import Network
from hwgle.onchip import PLAIN, RATE, OnChip
from hwgle.preflight import check_network, machine_of, refuse
from hwgle.quantise import Image, build_image, quantise_weights
from hwgle.session import RANGE_EVERY, calibrate_on
from hwgle.verify import tampering
from hwgle.verify.bodies import Tampering
from hwgle.verify.compare import Comparison, Located, Outcome, Progress
from hwgle.verify.drawing import BLOCK, Blocks, Run, draw_network, draw_weights
from hwgle.weights import Weights

__all__ = ["Case", "Located", "Outcome", "Tampering", "draw_case", "verify"]

CALIBRATION_STEPS = 2 * BLOCK


@dataclass(frozen=True)
class Case:
    """What is run: a network on a chip; what is None is drawn from the seed."""

    network: Network
    chip: Chip
    seed: int
    steps: int
    batch: int = 1
    learn: bool = True
    weights: Weights | None = None
    x: NDArray[np.float64] | None = None
    target: NDArray[np.generic] | None = None
    learner: OnChip = PLAIN
    rate: float | None = None

    @property
    def learning_rate(self) -> float:
        """Per step: what was asked for, else the rule's own."""
        if not self.learn:
            return 0.0
        own = RATE.get(self.learner.rule, self.chip.plasticity.learning_rate)
        return own if self.rate is None else self.rate


def draw_case(
    body: Device,
    chip: Chip,
    seed: int,
    steps: int,
    batch: int,
    learn: bool,
    learner: OnChip = PLAIN,
) -> Case | None:
    """A random network that fits the body; None: not even the smallest does."""

    def fits(network: Network) -> bool:
        options = _options(body, network, chip, batch, learner)
        return not check_network(
            network, chip, batch, options, body.limits, machine_of(body), learner
        )

    rng = np.random.default_rng([seed, 0])
    network = draw_network(rng, fits, name=f"drawn-{seed}")
    if network is None:
        return None
    return Case(network, chip, seed, steps, batch, learn, learner=learner)


def verify(
    body: Device,
    emulator: Emulator,
    case: Case,
    *,
    name: str = "the board",
    tamper: bool = False,
    progress: Progress | None = None,
) -> tuple[Outcome, Tampering | None]:
    """Run a case on both and compare.

    Raises DeviceRefused, before anything is sent, when the network does not fit the body.
    """
    network, chip, limits = case.network, case.chip, body.limits
    learner = case.learner
    options = _options(body, network, chip, case.batch, learner)
    machine = machine_of(body)
    refuse(name, check_network(network, chip, case.batch, options, limits, machine, learner))
    weights = case.weights
    if weights is None:
        weights = draw_weights(network, np.random.default_rng([case.seed, 1]))
    run = Run(network, case.batch, case.steps, case.seed, case.x, case.target)
    image = _image(case, run, weights)
    stored = quantise_weights(image, weights)
    blocks = Blocks(run, image, case.learn)
    uhat = bool(options & lib.GLE_WITH_UHAT)
    flipped = tampering.draw(blocks, stored, case.seed, uhat) if tamper else None
    for side in (body, emulator):
        side.load(image, case.batch, uhat=uhat)
        side.write_weights(stored)
    if flipped is not None:
        flipped.arm(body)
    return Comparison(body, emulator, blocks, stored, uhat).run(progress), flipped


def _options(body: Device, network: Network, chip: Chip, batch: int, learner: OnChip) -> int:
    """With uhat, which helps to name what differs, where there is room for it."""
    limits, with_uhat = body.limits, int(lib.GLE_WITH_UHAT)
    if not limits.uhat:
        return 0
    machine = machine_of(body)
    problems = check_network(network, chip, batch, with_uhat, limits, machine, learner)
    return 0 if problems else with_uhat


def _image(case: Case, run: Run, weights: Weights) -> Image:
    steps = min(CALIBRATION_STEPS, run.steps)
    x, y = run.input(0, steps), run.target(0, steps)
    if case.x is not None:
        x, y = case.x, run.target(0, run.steps)
    scales = calibrate_on(case.network, case.chip, weights, x, y, case.learn)
    return build_image(
        case.network,
        case.chip,
        scales,
        batch=case.batch,
        learning_rate=case.learning_rate,
        learner=case.learner,
        range_every=RANGE_EVERY if case.learn else 0,
        seed=case.seed,
    )
