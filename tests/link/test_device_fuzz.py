"""No message, whatever its bytes, makes the device leave its memory or believe a lie.

A good session is recorded to a file; device_fuzz.c plays it, damaged, under sanitizers.
"""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from device_cases import loaded, run_of, snapshot_of
from device_ends import GRADIENT, UHAT, Board, block_messages, cut, image_messages, pack, set_of

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
sys.path.insert(0, str(CSRC))
from build_core import CORE_PORTABLE  # noqa: E402

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
ALONE = ["-DGLE_SCALAR_ONLY", "-DGLE_ALIGN=8", "-ffreestanding", "-nostdlib", "-fno-pic", "-Os"]
SANITIZED = [
    "-std=c11", "-g1", "-O1", "-DGLE_SCALAR_ONLY",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip
TARGETS = {
    "gcc": [],
    "clang": [],
    "arm-none-eabi-gcc": ["-mcpu=cortex-m3", "-mthumb"],
    "riscv64-unknown-elf-gcc": ["-march=rv32imac", "-mabi=ilp32"],
}
BUILTINS = {"memcpy", "memset", "memmove", "memcmp"}


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def objects(compiler: str, sources: list[Path], to: Path, flags: list[str]) -> list[str]:
    def one(source: Path) -> str:
        made = to / f"{source.parent.name}_{source.stem}.o"
        run([compiler, *flags, "-I", str(CSRC), "-c", str(source), "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, sources))


@pytest.mark.parametrize("compiler", TARGETS)
def test_what_a_board_compiles_needs_nothing(compiler: str, tmp_path: Path) -> None:
    """Without a warning, without a libc, without a byte of memory of its own."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    flags = [*STRICT, *ALONE, *TARGETS[compiler]]
    if compiler == "gcc" and platform.machine() in ("x86_64", "aarch64"):
        flags.append("-mgeneral-regs-only")  # refuses every floating-point operation
    made = objects(compiler, [CSRC / name for name in CORE_PORTABLE], tmp_path, flags)
    whole = tmp_path / "whole.o"
    machine = [flag for flag in TARGETS[compiler] if flag.startswith("-m")]
    run([compiler, *machine, "-nostdlib", "-r", *made, "-o", str(whole)])
    nm = compiler.replace("gcc", "nm") if "-" in compiler else "nm"
    lines = [line.split() for line in run([nm, str(whole)]).splitlines()]
    missing = {line[-1] for line in lines if line[-2] == "U"}
    # of 64-bit division, which a 32-bit machine has in libgcc
    assert {name for name in missing if not name.startswith("__")} <= BUILTINS
    assert not {line[-1] for line in lines if line[-2] in "bBdDcC"} - {"message_list"}


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    to = tmp_path_factory.mktemp("fuzz")
    sources = [*(CSRC / name for name in CORE_PORTABLE), Path(__file__).with_name("device_fuzz.c")]
    made = objects(gcc, sources, to, SANITIZED)
    run([gcc, *SANITIZED, *made, "-o", str(to / "device_fuzz")])
    return to / "device_fuzz"


def session(seed: int, batch: int) -> bytes:
    """Everything that a host does, once, as a file of messages."""
    case = run_of(seed, layers=3, neurons=6, streams=batch, ranging=2)
    rng = np.random.default_rng(seed)
    options = UHAT | GRADIENT
    top = len(case.case.network.layers) - 1
    taken = snapshot_of(loaded(Board(), case, options))
    how = {"learn": True, "ranging": True, "votes": True}
    messages = [
        pack("INFO"), pack("STATUS"), pack("ECHO", b"echo"), pack("REBOOT", how=0),
        *image_messages(case.image, case.batch, options, 200),
        *set_of(case.image, case.weights, 64),
        pack("GRADIENT_CLEAR", drop=2),
        *block_messages(case.block(0, 6, record=case.pairs()[:20], **how), rng, 64, True),
        pack("WEIGHTS_ADD", [100], layer=0, first=0), pack("BIAS_ADD", [-9], layer=top, first=0),
        pack("WEIGHTS_READ", layer=0, first=0, count=1),
        pack("BIAS_READ", layer=0, first=0, count=1), pack("GRADIENT_READ", layer=top),
        pack("DIGEST"), pack("COUNTERS", layer=0),
        pack("FORMATS", layer=0), pack("SET_RATE", shift=3), pack("COUNTERS_CLEAR"),
        pack("TAMPER", step=8, layer=0, signal=1, index=0, bit=9),
        *block_messages(case.block(6, 10, **how), rng, 64),
        pack("SNAPSHOT_READ"),
        pack("SNAPSHOT_BEGIN", size=len(taken)),
        *(pack("SNAPSHOT_DATA", p, offset=100 * k) for k, p in enumerate(cut(taken, 100))),
        pack("SNAPSHOT_COMMIT", crc=zlib.crc32(taken)),
        pack("TAMPER", step=0, layer=0, signal=0, index=0, bit=255),
        pack("RESET_STATES", first=0),
        *block_messages(case.block(0, 3, record=[(0, "r")], **how), rng, 200),
    ]  # fmt: skip
    return b"".join(struct.pack("<I", len(m)) + m for m in messages)


@pytest.mark.parametrize("batch", [1, 3])
def test_damaged_sessions_under_sanitizers(
    fuzzer: Path, batch: int, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "session"
    for k in range(2):
        path.write_bytes(session(seed + 50 * k, batch))
        print(run([str(fuzzer), str(path), str(seed + k), "100"]))


@pytest.mark.long
@pytest.mark.parametrize("batch", [1, 3])
def test_very_many_damaged_sessions(fuzzer: Path, batch: int, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "session"
    for k in range(10):
        path.write_bytes(session(seed + 50 * k, batch))
        print(run([str(fuzzer), str(path), str(seed + 1000 * k), "500"]))
