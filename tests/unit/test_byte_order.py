"""The wire on a machine of the other byte order: an emulated PowerPC says the same bytes."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "fuzz")]
from fuzzers import CORE_PORTABLE, CORPUS, CSRC, HERE, checked, kept  # noqa: E402

BIG = "powerpc-linux-gnu-gcc"
FLAGS = ["-std=c11", "-O1", "-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8", "-DDEVICE_LOOKS", f"-I{CSRC}",
         f"-I{CSRC / 'link'}", f"-I{ROOT / 'tests' / 'c'}"]  # fmt: skip
big_endian = pytest.mark.board(BIG, "qemu-ppc", "gcc")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The core's object files, by compiler."""
    to = tmp_path_factory.mktemp("core")

    def one(compiler: str, name: str) -> str:
        made = to / f"{compiler}_{name.replace('/', '_')}.o"
        checked([compiler, *FLAGS, "-c", str(CSRC / name), "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        return {
            compiler: list(pool.map(lambda name, c=compiler: one(c, name), CORE_PORTABLE))
            for compiler in ("gcc", BIG)
        }


def program(compiler: str, objects: dict[str, list[str]], to: Path, *sources: Path) -> list[str]:
    """How to run a program of these sources and the core."""
    made = to / f"{compiler}_{sources[0].stem}"
    how = ["-static"] if compiler == BIG else []
    checked([compiler, *FLAGS, *how, *map(str, sources), *objects[compiler], "-o", str(made)])
    return ["qemu-ppc", str(made)] if compiler == BIG else [str(made)]


@big_endian
def test_a_device_answers_with_the_same_bytes(
    tmp_path: Path, objects: dict[str, list[str]]
) -> None:
    """Images, weights, blocks, records, digests, snapshots, and the CRC of the list of messages."""
    sessions = [str(path) for path in sorted((CORPUS / "device").glob("seed-*"))]
    assert len(sessions) >= 15
    source = ROOT / "tests" / "c" / "device_replay.c"
    little, big = (
        checked([*program(compiler, objects, tmp_path, source), *sessions])
        for compiler in ("gcc", BIG)
    )
    assert little.count("\n") > 500
    assert big == little


@pytest.mark.long
@big_endian
@pytest.mark.parametrize("name", ["frame", "link", "message", "device"])
def test_the_invariants_hold(name: str, tmp_path: Path, objects: dict[str, list[str]]) -> None:
    """What the fuzzers keep; their oracles know no byte order."""
    world = ROOT / "tests" / "c" / "link_world.c"
    sources = (HERE / f"{name}.c", HERE / "standalone.c", world)
    fuzzer = program(BIG, objects, tmp_path, *sources)
    files = [str(f) for f in kept(name)]
    assert f"{len(files)} files" in checked([*fuzzer, *files])
    checked([*fuzzer, "--damage", "1", "500", *files])


@pytest.mark.long
@big_endian
def test_links_on_bad_lines(tmp_path: Path, objects: dict[str, list[str]]) -> None:
    folder = ROOT / "tests" / "c"
    sources = folder / "link_sim.c", folder / "link_world.c"
    checked([*program(BIG, objects, tmp_path, *sources), "1", "200"])
