"""Build hwgle._core: the chip inside Python, a cffi extension in API mode.

The declarations that Python sees are the C headers themselves, preprocessed here, so
that sizes, ids and limits come from the compiler and are written once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent
# What a board compiles, with -DGLE_SCALAR_ONLY: plain C, no libc, no floating point.
CORE_PORTABLE = [
    "access.c",
    "chip.c",
    "digest.c",
    "drift.c",
    "effective.c",
    "feedback.c",
    "gradient.c",
    "image.c",
    "matvec_scalar.c",
    "neurons_scalar.c",
    "plasticity.c",
    "time_constants.c",
    "ranges.c",
    "read_out.c",
    "rule_normalised.c",
    "rule_sgd.c",
    "rule_sign.c",
    "sections.c",
    "single_dsp.c",
    "single_dsp_learn.c",
    "snapshot.c",
    "softmax.c",
    "topology.c",
    "link/cobs.c",
    "link/crc32.c",
    "link/frame.c",
    "link/hello.c",
    "link/link.c",
    "link/link_poll.c",
    "link/link_receive.c",
    "link/rto.c",
    "link/session.c",
    "device/device.c",
    "device/device_answers.c",
    "device/device_block.c",
    "device/device_image.c",
    "device/device_snapshot.c",
    "device/device_weights.c",
    "device/message.c",
]
# Vector kernels; empty on other machines.
CORE_X86 = [
    "matvec_vnni.c",
    "matvec_amx.c",
    "learn_vnni.c",
    "neurons_vnni.c",
    "matvec_avx2.c",
    "neurons_one_avx2.c",
    "neurons_avx2.c",
    "neurons_one_vnni.c",
    "learn_one_vnni.c",
    "pack_vnni.c",
    "rule_avx2.c",
    "rule_vnni.c",
    "single_avx2.c",
    "single_vnni.c",
    "softmax_vnni.c",
    "few_vnni.c",
    "stored_vnni.c",
]
CORE_AARCH64 = [
    "matvec_neon.c",
    "neurons_neon.c",
    "neurons_one_neon.c",
    "learn_one_neon.c",
    "rule_neon.c",
    "single_neon.c",
]
HOST = ["host/adam.c", "host/amx.c", "host/crew.c", "host/loop.c"]
# What Python sees, each after those that it includes.
HEADERS = [
    "gle.h",
    "host/loop.h",
    "link/crc32.h",
    "link/cobs.h",
    "link/frame.h",
    "link/rto.h",
    "link/link.h",
    "device/message.h",
    "device/device.h",
]
NAMED = r"^(#define (?:GLE|LINK|DEVICE)_\w+)"
LIST = '#include "messages.def"'
ROW = re.compile(r"^MESSAGE\((\w+), (0x\w+),", re.M)


def declarations(header: str) -> str:
    """A header as cffi reads it: no comments, no preprocessor, plain constants."""
    text = (CSRC / header).read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    if LIST in text:
        messages = (CSRC / "device/messages.def").read_text()
        ids = "\n".join(f"MESSAGE_{name} = {number}," for name, number in ROW.findall(messages))
        text = text.replace(LIST, ids)
    # A plain number may size an array; of anything else the compiler finds the value.
    text = re.sub(NAMED + r" (?!(?:\d+|0x[0-9a-f]+) *$).+$", r"\1 ...", text, flags=re.M)
    text = re.sub(r"^#(?!define \w+ (?:\.\.\.|\d)).*$", "", text, flags=re.M)
    return text


ffi = FFI()
ffi.cdef("".join(map(declarations, HEADERS)))
ffi.set_source(
    "hwgle._core",
    "".join(f'#include "{name}"\n' for name in HEADERS),
    # Those that take longest first: the others then fill the cores beside them.
    sources=[f"csrc/{name}" for name in CORE_X86 + CORE_AARCH64 + CORE_PORTABLE + HOST],
    include_dirs=["csrc"],
    extra_compile_args=[
        "-std=c11",
        "-O3",
        # Python's own flags ask for debugging information, which takes a third of the time.
        *([] if "-g" in os.environ.get("CFLAGS", "").split() else ["-g0"]),
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
    ],
    libraries=["m", "pthread"],
    py_limited_api=True,
)
