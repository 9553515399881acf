"""The kernels of NEON against this machine's emulator: AArch64 under QEMU, bit for bit.

The core is compiled for AArch64 and plays random chips from a file (tests/c/table_replay.c),
once on the table "neon" and once on "scalar". What comes out must equal, by ==, what the
emulator gives here: digests, snapshots, all signals, counters and gradients after each piece
of a run. That the kernels of NEON are what has run shows each of their files with one
instruction replaced by its like: the difference is found.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hwgle._core import lib
from random_images import FEATURES, SIGNALS, WIRINGS, Core, Draws, Plan, Run, draw_plan, draw_run
from test_learning_rules import RULES, learning_plan

ROOT = Path(__file__).resolve().parents[2]
CSRC, HERE = ROOT / "csrc", ROOT / "tests" / "c"
sys.path[:0] = [str(CSRC)]
from build_core import CORE_AARCH64, CORE_PORTABLE, HOST  # noqa: E402

GCC, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FLAGS = ["-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror",
         f"-I{CSRC}"]  # fmt: skip
DRIVERS = ("table_replay.c", "step_driver.c")
SOURCES = [*CORE_AARCH64, *(name for name in CORE_PORTABLE if "/" not in name), "link/crc32.c",
           *HOST]  # fmt: skip
LEARN, READ, RANGE, ADD = (
    lib.GLE_LEARN, lib.GLE_READ_GRADIENT, lib.GLE_RANGE, lib.GLE_ADD_GRADIENT,
)  # fmt: skip

SEED = int(os.environ.get("HWGLE_TEST_SEED", "20250101"))

pytestmark = pytest.mark.board(GCC, QEMU)


# --- what is played -----------------------------------------------------------------------------


@dataclass
class Piece:
    """Steps with the same flags, at whose end a chip is looked at."""

    steps: int
    flags: int
    target: bool = True


@dataclass
class Case:
    """A chip and what it is given; `first`: number of the first stream."""

    plan: Plan
    run: Run
    pieces: list[Piece]
    first: int = 0

    @property
    def batch(self) -> int:
        """Streams."""
        return int(self.run.x.shape[1])

    def words(self) -> list[int]:
        """As the program reads it."""
        image = self.plan.words()
        out = [len(image), *image, self.batch, self.first, len(self.pieces)]
        for piece in self.pieces:
            out += piece.steps, piece.flags, piece.target
        for (w, b), back in zip(self.run.weights, self.run.backs, strict=True):
            out += [*w.ravel().tolist(), *(() if back is None else back.ravel().tolist())]
            out += b.tolist()
        return [*out, *self.run.x.ravel().tolist(), *self.run.target.ravel().tolist()]

    def part(self, streams: slice) -> Case:
        """The same with some of its streams."""
        held = self.plan.loss == 0
        target = self.run.target[streams] if held else self.run.target[:, streams]
        run = replace(self.run, x=self.run.x[:, streams], target=target)
        return replace(self, run=run, first=self.first + streams.start)


def looked_at(core: Core) -> str:
    """Digest and CRCs, as the program prints them."""
    signals = gradient = 0
    for k in range(core.layers):
        for name in SIGNALS:
            signals = zlib.crc32(core.signal(k, name).astype("<i4").tobytes(), signals)
        counters = core.counters()[k]
        signals = zlib.crc32(np.array([*counters.values()], dtype="<u8").tobytes(), signals)
        for part in core.gradient(k):
            gradient = zlib.crc32(part.astype("<i4").tobytes(), gradient)
    return f"{core.digest():016x} {zlib.crc32(core.snapshot()):08x} {signals:08x} {gradient:08x}"


def played_here(cases: Sequence[Case]) -> list[str]:
    """What the emulator of this machine, with its fastest kernels, makes of the cases."""
    said = []
    for number, case in enumerate(cases):
        core = Core(case.plan.words(), case.batch, first=case.first, gradient=True)
        core.write(case.run.weights).write_back(case.run.backs)
        core.reset(case.first)
        t = 0
        for k, piece in enumerate(case.pieces):
            target = case.run.target
            if case.plan.loss:
                target = target[t : t + piece.steps]
            core.run(
                case.run.x[t : t + piece.steps],
                target if piece.target and piece.steps else None,
                flags=piece.flags,
            )
            t += piece.steps
            said.append(f"{number} {k} {looked_at(core)}")
        streams = " ".join(f"{digest:016x}" for digest in core.stream_digests())
        said.append(f"{number} streams {streams}")
    return said


def pieces_of(d: Draws, steps: int, *, learn: bool) -> list[Piece]:
    """Two or three pieces; of those that learn, some steps read or add gradients, or range."""
    cuts = sorted(d.between(0, steps) for _ in range(d.between(1, 2)))
    flags = [d.pick(0, LEARN * learn) | d.pick(0, RANGE) | d.pick(0, READ, ADD) for _ in range(3)]
    flags[-1] |= LEARN * learn
    lengths = np.diff([0, *cuts, steps]).tolist()
    return [
        Piece(n, f, d.chance(85)) for n, f in zip(lengths, flags[-len(lengths) :], strict=True)
    ]


def random_cases(seed: int) -> list[Case]:
    """Chips of every kind for 1 to 33 streams, and wide ones for sums that do not fit int32."""
    cases = []
    for batch in [*range(1, 34), *[1] * 23, 40, 70]:
        at = seed + len(cases)
        d = Draws(at, 5)
        kind = len(cases) % 6
        extreme = kind in (1, 4)
        large = {"neurons": d.pick(9, 40), "inputs": d.pick(7, 70)}
        if kind in (3, 4):
            rule = RULES[(len(cases) // 6 + kind) % 3]
            plan, _ = learning_plan(at, rule, extreme, **large)
        else:
            wiring = d.pick(*WIRINGS) if kind == 2 else None
            on = () if batch == 1 and kind in (0, 5) else None  # whole rows learn at once
            plan = draw_plan(at, extreme=extreme, wiring=wiring, on=on, **large)
        if d.chance(50):
            plan = replace(plan, range_every=d.between(1, 5), range_clip=d.between(0, 6000))
        run = draw_run(plan, at, steps=8, batch=batch, extreme=extreme)
        cases.append(Case(plan, run, pieces_of(d, 8, learn=True)))
    for k, (batch, inputs, sizes) in enumerate(
        [(1, 560, [5, 70]), (18, 70, [67, 40]), (1, 33, [140, 3]), (34, 5, [66, 2])]
    ):
        plan = draw_plan(seed, k, extreme=True, on=(), inputs=inputs, sizes=sizes)
        run = draw_run(plan, seed, k, steps=4, batch=batch, extreme=True)
        cases.append(Case(plan, run, [Piece(4, LEARN | READ)]))
    return cases


def parts_of(cases: Sequence[Case]) -> list[tuple[Case, list[Case]]]:
    """Cases without learning whose streams are played together and in parts."""
    found = []
    for case in cases:
        if 7 <= case.batch <= 33 and len(found) < 4:
            whole = replace(case, pieces=[Piece(8, 0)], plan=replace(case.plan, range_every=0))
            cut = case.batch // 3
            streams = slice(0, cut), slice(cut, case.batch - 1), slice(case.batch - 1, case.batch)
            found.append((whole, [whole.part(s) for s in streams]))
    return found


# --- where it is played -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The core for AArch64, by source."""
    to = tmp_path_factory.mktemp("aarch64")
    with ThreadPoolExecutor(2) as pool:
        sources = [*(CSRC / name for name in SOURCES), *(HERE / name for name in DRIVERS)]
        made = pool.map(lambda source: compiled(source, to), sources)
        return {source.name: path for source, path in zip(sources, made, strict=True)}


def checked(command: Sequence[str]) -> str:
    """What it printed; its messages are the failure when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}"
    return done.stdout


def compiled(source: Path, to: Path, *flags: str) -> Path:
    made = to / f"{source.stem}.o"
    checked([GCC, *FLAGS, *flags, "-c", str(source), "-o", str(made)])
    return made


@pytest.fixture(scope="module")
def replay(objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that plays cases."""
    return linked(objects, tmp_path_factory.mktemp("replay") / "table_replay")


def linked(objects: dict[str, Path], to: Path, driver: str = "table_replay.c") -> Path:
    parts = [str(path) for name, path in objects.items() if name not in DRIVERS]
    checked([GCC, "-static", *parts, str(objects[driver]), "-lm", "-o", str(to)])
    return to


def played(program: Path, table: str, cases: Sequence[Case], folder: Path) -> list[str]:
    """What the program says of the cases, after it has named the table."""
    file = folder / "cases"
    words = np.array([w & 0xFFFFFFFF for case in cases for w in case.words()], dtype="<u4")
    file.write_bytes(words.tobytes())
    lines = checked([QEMU, str(program), table, str(file)]).splitlines()
    assert lines[0] == f"table {table}, fastest neon"
    return lines[1:]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return random_cases(SEED)


@pytest.fixture(scope="module")
def wanted(cases: list[Case]) -> list[str]:
    return played_here(cases)


# --- tests --------------------------------------------------------------------------------------


def test_the_cases_are_of_every_kind(cases: list[Case]) -> None:
    plans = [case.plan for case in cases]
    assert {y.phi for plan in plans for y in plan.layers} == set(range(5))
    assert {case.batch for case in cases} >= set(range(1, 34))
    assert {plan.learner & 0xFF for plan in plans if plan.learner} == {0, 1, 2}
    assert {plan.stochastic for plan in plans} == {0, 1}
    assert {name for plan in plans for name in FEATURES if f" {name}" in plan.what} == set(FEATURES)
    for flag in (LEARN, READ, RANGE, ADD):
        assert sum(bool(p.flags & flag) for case in cases for p in case.pieces) > 5


@pytest.mark.parametrize("table", ["neon", "scalar"])
def test_an_aarch64_gives_the_bits_of_this_machine(
    table: str, replay: Path, cases: list[Case], wanted: list[str], tmp_path: Path
) -> None:
    assert len(wanted) > 2 * len(cases)
    assert played(replay, table, cases, tmp_path) == wanted


def test_streams_do_not_know_of_each_other(
    replay: Path, cases: list[Case], tmp_path: Path
) -> None:
    """A batch there in parts, down to one stream: the digests of the whole batch here."""
    for whole, parts in parts_of(cases):
        alone = [line for line in played(replay, "neon", parts, tmp_path) if "streams" in line]
        together = played_here([whole])[-1].split()[2:]
        assert [digest for line in alone for digest in line.split()[2:]] == together


def test_kernels_at_the_limits_of_what_they_are_given(
    objects: dict[str, Path], tmp_path: Path
) -> None:
    """Products at every shift and at their largest against the definition; chips that move from
    one table to the other."""
    driver = linked(objects, tmp_path / "step_driver", "step_driver.c")
    for what, rounds in (("kernels", "100"), ("parity", "8")):
        said = checked([QEMU, str(driver), what, str(SEED), rounds])
        assert said == f"{what}: {rounds} rounds of scalar neon\n"


@pytest.mark.long
def test_kernels_at_many_limits(objects: dict[str, Path], tmp_path: Path) -> None:
    driver = linked(objects, tmp_path / "step_driver", "step_driver.c")
    for what, rounds in (("kernels", "1000"), ("parity", "150")):
        checked([QEMU, str(driver), what, str(SEED + 10**6), rounds])


BROKEN = {
    "matvec_neon.c": ("laneq_s16(sum[r][3], more, ws[r], k)", "s16(sum[r][3], more, ws[r])"),
    "single_neon.c": ("more[r] = vmlal_high_s16(", "more[r] = vmlsl_high_s16("),
    "neurons_neon.c": ("raw = round_by(ehat, row.v_extra)", "raw = round_by(v, row.v_extra)"),
    "neurons_one_neon.c": ("vmlaq_u32(t->hash", "vmlsq_u32(t->hash"),
    "learn_one_neon.c": ("next = vqaddq_s16(", "next = vqsubq_s16("),
    "rule_neon.c": ("vsubq_s32(a, vshlq_s32(", "vaddq_s32(a, vshlq_s32("),
}  # fmt: skip


def test_every_file_of_neon_can_be_broken() -> None:
    assert set(BROKEN) == set(CORE_AARCH64)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_found(
    name: str, objects: dict[str, Path], cases: list[Case], wanted: list[str], tmp_path: Path
) -> None:
    """One instruction of a kernel replaced: some digest differs. So it is what has run."""
    right, wrong = BROKEN[name]
    text = (CSRC / name).read_text()
    assert text.count(right) == 1
    (tmp_path / name).write_text(text.replace(right, wrong))
    broken = {**objects, name: compiled(tmp_path / name, tmp_path, "-O1")}
    said = played(linked(broken, tmp_path / "broken"), "neon", cases, tmp_path)
    assert len(said) == len(wanted)
    assert said != wanted
