"""Whether a chip's seed decides anything.

A seed decides what is drawn of a chip, and the noise of its run. A chip that draws nothing
and has no noise is the same chip whatever its seed: such points are run once. Rounding of
updates and their noise go by the seed of the training, see hwgle/learning/trainer.py.
"""

from __future__ import annotations

from operator import attrgetter

from hwgle.chip import Chip

# keys of a profile: what is drawn where they are not 0 ...
DRAWN = (
    "input.offset", "input.gain",
    "weight.mismatch", "weight.stuck_zero", "weight.stuck_full",
    "leak.mismatch",
    "activation.gain", "activation.offset", "activation.dead",
    "readout.offset", "readout.gain",
)  # fmt: skip
# ... and what is noise.
NOISE = ("membrane.noise", "error.noise", "readout.noise")
# Random too, by the seed of the training.
OF_TRAINING = ("plasticity.rounding", "plasticity.update_noise")


def seed_matters(chip: Chip) -> bool:
    """Whether two chips of this profile with other seeds can differ in any bit."""
    return any(attrgetter(key)(chip) > 0 for key in (*DRAWN, *NOISE))


def seedless(chip: Chip) -> Chip:
    """The chip with seed 0 if its seed decides nothing, otherwise as it is."""
    return chip if seed_matters(chip) else chip.model_copy(update={"seed": 0})
