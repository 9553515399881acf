"""What an image may say, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from chip_checks import (
    accepted,
)
from random_images import (
    LINEAR,
    ONE,
    ONE_COEFFICIENT,
    LayerPlan,
    Plan,
    noise_word,
)


def small_plan() -> Plan:
    """One layer of one neuron with one input, every section there."""
    plan = Plan(1, [LayerPlan(1, LINEAR, w_max=1, w_left=3)], [(ONE_COEFFICIENT,) * 4])
    plan.input_max = 1
    plan.rows, plan.analog, plan.dac, plan.gains = [0], [(0, ONE, 0, ONE)], [ONE], [[[ONE]]]
    return plan


# Word of small_plan -> the least and the largest values that are allowed.
HEAD, LAYER = 0, 24
SECTIONS = 24 + 20 + 4
LIMITS: dict[str, tuple[int, Sequence[int], Sequence[int]]] = {
    "input_left": (16, [0, 12], [-1, 13, 14]),
    "drift_every": (17, [0, 1, 1 << 20], [-1]),
    "drift_shift": (18, [1, 30], [0, 31, -1]),
    "update_max": (19, [1, 65535], [0, -1, 65536]),
    "update_noise": (20, [0, noise_word(0, -5)], [2, 40, 1 << 8, 32768 << 8 | 8]),
    "learner": (21, [0, 2, 16 << 8, 1 | 3 << 8 | 4 << 16, 1 | 16 << 8 | 14 << 16],
                [3, 17 << 8, 1, 1 | 3 << 16, 1 | 15 << 16, 10 << 16, 2 | 10 << 16, 1 << 24]),
    "apply_every": (22, [0, 1, 1 << 24], [-1, (1 << 24) + 1]),
    "rate_every": (23, [0, 1, (1 << 31) - 1], [-1]),
    "w_left": (LAYER + 14, [0, 12], [-1, 13]),
    "noise_e": (LAYER + 15, [0, noise_word(32767, -5)], [1, 2, 40, 32768 << 8 | 8, 0x80000008]),
    "noise_r": (LAYER + 16, [0, noise_word(32767, 31)], [1, 2, 40, 32768 << 8 | 8]),
    "adc_drop": (LAYER + 17, [0, 2], [-1, 14]),
    "adc_max": (LAYER + 18, [1, 8191], [0, -1, 8192]),
    "reserved 19": (LAYER + 19, [0], [1]),
    "rows": (SECTIONS, [0, 7], [-1, 8]),
    "offset": (SECTIONS + 1, [-(1 << 28) + 1, (1 << 28) - 1], [-(1 << 28), 1 << 28, 1 << 31]),
    "gain": (SECTIONS + 2, [0, 16383], [-1, 16384]),
    "noise_u": (SECTIONS + 3, [0, noise_word(32767, -5)], [1, 2, 40, 32768 << 8 | 8]),
    "adc": (SECTIONS + 4, [0, 32767, 0x80000000, 0xFFFF7FFF], [0x8000, 0xFFFF]),
    "dac": (SECTIONS + 5, [0, 32767, 0x80000000, 0xFFFF7FFF], [0x8000, 0xFFFF]),
    "synapse": (SECTIONS + 6, [0, 32767, -16383 & 0xFFFF, 0xFFFF], [-16384 & 0xFFFF, 0x8000]),
}  # fmt: skip


@pytest.mark.parametrize("word", LIMITS)
def test_words_out_of_range_are_refused(word: str) -> None:
    at, good, bad = LIMITS[word]
    words = small_plan().words()
    assert accepted(words)
    for value, allowed in [*((v, True) for v in good), *((v, False) for v in bad)]:
        changed = [*words]
        changed[at] = value
        if word == "drift_shift":
            changed[17] = 5
        assert accepted(changed) == allowed, value


def test_sections_must_be_what_the_image_says() -> None:
    words = small_plan().words()
    for flags in range(15):
        assert not accepted([*words[:15], flags, *words[16:]]), flags
    for flags in (16, 31, 0x8000000F):
        assert not accepted([*words[:15], flags, *words[16:]]), flags
    for changed in ([*words, 0], words[:-1]):
        assert not accepted([changed[0], len(changed), *changed[2:]])
    assert not accepted([0x31454C47, *words[1:]])  # the layout before this one
    plan = small_plan()
    plan.layers[0].adc_drop, plan.layers[0].adc_max = 2, 8191
    assert accepted(plan.words())
    plan.layers[0].adc_drop, plan.layers[0].adc_max = 3, 4095
    assert accepted(plan.words())
    plan.layers[0].adc_max = 4096
    assert not accepted(plan.words())
