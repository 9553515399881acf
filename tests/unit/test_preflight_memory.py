"""Bytes of a network on a board: against the core here, chip.h, and what boards answer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hwgle._core import lib

from hwgle import weights
from hwgle.calibrate import calibrate
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.onchip import PLAIN, OnChip
from hwgle.preflight.memory import BOARD, CHIP, HERE, LAYER, Shape, arena_bytes, image_bytes
from hwgle.quantise import LayerScales, Scales, build_image
from tests.networks import chip_with, draw_topology, quantised, random_case

CSRC = Path(__file__).parents[2] / "csrc"
KINDS = {"int32_t": "i", "uint32_t": "i", "uint64_t": "q", "gle_counters": "q" * 13,
         "gle_window": "i" * 6, "gle_learner": "i" * 8, "gle_fracs": "i"}  # fmt: skip
LEARNERS = (PLAIN, OnChip("sgd", 3), OnChip("sgd", 0, 0, 9, 5, 2), OnChip.named("normalised"),
            OnChip.named("sign"))  # fmt: skip


@pytest.mark.parametrize("case_seed", range(40))
def test_the_walk_gives_what_the_core_gives(case_seed: int) -> None:
    batch = 1 if case_seed % 2 else 20
    wide = case_seed % 8 >= 6  # some of them beyond what tiles of AMX take
    case = random_case(case_seed, layers=6, neurons=400 if wide else 40, batch=batch, steps=2)
    chip = Chip.load("ideal") if case_seed % 3 else chip_with(stored=14)
    scales = Scales(8, 8, (LayerScales(8, 16, 8, 8, 4),) * len(case.network.layers))
    learner = LEARNERS[case_seed % 5]
    q = quantised(case, chip, scales, learner=learner)
    assert image_bytes(case.network, chip) == q.image.words.nbytes
    gradient, uhat = bool(case_seed & 4), bool(case_seed & 8)
    with Emulator() as emu:
        emu.load(q.image, case.batch, gradient=gradient, uhat=uhat)
        options = lib.GLE_WITH_GRADIENT * gradient | lib.GLE_WITH_UHAT * uhat
        shape = Shape.of(case.network, chip, learner)
        assert shape == Shape.of_words(q.image.words.tolist())
        assert arena_bytes(shape, case.batch, options, HERE) == emu.arena_bytes


@pytest.mark.parametrize("kind", ["transposed", "alignment", "kolen-pollack", "direct"])
def test_the_walk_of_other_topologies(kind: str, seed: int) -> None:
    for case in range(6):
        batch = 1 if case % 2 else 20
        network = draw_topology(np.random.default_rng([seed, case]), kind, neurons=40)
        chip = Chip.load("mixed-signal" if case % 3 == 2 else "ideal")
        w = weights.initial(network, case)
        x = np.zeros((2, 2, network.inputs)) + 0.1
        image = build_image(network, chip, calibrate(network, chip, w, x))
        assert image_bytes(network, chip) == image.words.nbytes
        with Emulator() as emu:
            emu.load(image, batch, gradient=True)
            options = lib.GLE_WITH_GRADIENT | lib.GLE_WITH_UHAT
            shape = Shape.of(network, chip)
            assert shape == Shape.of_words(image.words.tolist())
            assert arena_bytes(shape, batch, options, HERE) == emu.arena_bytes


def test_the_members_are_those_of_the_header() -> None:
    text = (CSRC / "chip.h").read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for start, end, members in (
        ("typedef struct gle_layer {\n    const gle_image_layer", "} gle_layer;", LAYER),
        ("struct gle_chip {", "gle_layer layer[];", CHIP),
    ):
        body = text[text.index(start) :]
        body = body[body.index("{") + 1 : body.index(end)]
        found = {}
        for line in body.split(";"):
            if not (words := line.replace("const ", "").replace("struct ", "").split(None, 1)):
                continue
            for name in words[1].split(","):
                plain = re.sub(r"\[\d\]|\W", "", name)
                count = int((re.search(r"\[(\d)\]", name) or [0, "1"])[1])
                found[plain] = ("p" if "*" in name else KINDS[words[0]]) * count
        assert found == members


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        pytest.param("arm-none-eabi-gcc", "-mcpu=cortex-m4 -mthumb",
                     marks=pytest.mark.board("arm-none-eabi-gcc")),
        pytest.param("riscv64-unknown-elf-gcc", "-march=rv32imac -mabi=ilp32",
                     marks=pytest.mark.board("riscv64-unknown-elf-gcc")),
    ],
)  # fmt: skip
def test_sizes_on_32_bit_boards(compiler: str, flags: str, tmp_path: Path) -> None:
    """The compilers of the boards agree: an assertion that does not hold stops them."""
    layer, chip = BOARD.struct_bytes(LAYER), BOARD.struct_bytes(CHIP, "q")
    source = tmp_path / "sizes.c"
    source.write_text(
        f'#include "chip.h"\n_Static_assert(sizeof(gle_layer) == {layer}, "layer");\n'
        f'_Static_assert(sizeof(gle_chip) == {chip}, "chip");\n'
    )
    options = [*flags.split(), "-ffreestanding", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8"]
    command = [compiler, *options, f"-I{CSRC}", "-fsyntax-only", str(source)]
    subprocess.run(command, check=True)
