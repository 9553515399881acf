"""Products and updates with the DSP extension of a Cortex-M4 give the integers of plain C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwgle.boards import sources

ROOT = sources.root()
sys.path.insert(0, str(ROOT / "csrc"))
from build_core import CORE_PORTABLE  # noqa: E402

SOURCES = [
    ROOT / "tests" / "c" / "dsp_kernels.c",
    *(ROOT / "csrc" / name for name in CORE_PORTABLE if "/" not in name),
    ROOT / "firmware" / "common" / "freestanding.c",
]
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib",
         "-static", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft", "-DGLE_SCALAR_ONLY",
         "-DGLE_ALIGN=8"]  # fmt: skip
# Code at 0, where the emulated part has its vectors, and 4 MB of memory.
LINK = """SECTIONS
{
    . = 0;
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) }
    . = 0x20000000;
    .data : { *(.data*) }
    .bss : { *(.bss*) *(COMMON) }
    stack_top = 0x20400000;
}
"""


def ends(tmp_path: Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """What the program says in an emulated Cortex-M4."""
    script, elf = tmp_path / "link.ld", tmp_path / "kernels.elf"
    script.write_text(LINK)
    words = [*FLAGS, f"-I{ROOT / 'csrc'}", f"-T{script}", *map(str, files), "-lgcc", "-o", str(elf)]
    subprocess.run(["arm-none-eabi-gcc", *words], check=True)
    run = ["qemu-system-arm", "-M", "mps2-an386", "-nodefaults", "-display", "none"]
    run += ["-semihosting", "-kernel", str(elf)]
    return subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
def test_dsp_kernels_equal_plain_c(tmp_path: Path) -> None:
    done = ends(tmp_path, SOURCES)
    assert "all equal" in done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.board("qemu-system-arm", "arm-none-eabi-gcc")
@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("single_dsp.c", "#0x00030003", "#0x00010001"),
        ("single_dsp.c", "shadd16 r6, r6, %[half]", "shadd16 r6, r6, %[zero]"),
        ("single_dsp.c", "pkhtb r5, r5, r4", "pkhtb r5, r4, r5"),
        ("single_dsp_nearest.h", '"r"(0x8000)', '"r"(0x7fff)'),
        ("single_dsp_nearest.h", "addge r5, r5, #2", "addge r5, r5, #1"),
        ("single_dsp_learn.c", "to->others = to->first", "to->others = to->others"),
        ("single_dsp_random.h", "smmlar %[t]", "smmla %[t]"),
        ("single_dsp_random.h", "eor %[t], %[t], %[t], lsr #16", "eor %[t], %[t], %[t], lsr #17"),
        ("single_dsp_plan.h", "add %[t], %[t], %[reach]", "mov %[t], %[t]"),
        ("single_dsp_bounds.h", "twice = 2u * both", "twice = 2u * both + ONES"),
    ],
)
def test_a_fault_in_a_dsp_kernel_is_found(
    tmp_path: Path, file: str, right: str, wrong: str
) -> None:
    for path in (ROOT / "csrc").glob("single_dsp*"):  # a header is looked for beside its source
        (tmp_path / path.name).write_text(path.read_text())
    text = (tmp_path / file).read_text()
    assert right in text
    (tmp_path / file).write_text(text.replace(right, wrong))
    files = [
        tmp_path / path.name if path.name.startswith("single_dsp") else path for path in SOURCES
    ]
    done = ends(tmp_path, files)
    assert done.returncode == 1
    assert " n m w_shift " in done.stdout + done.stderr
