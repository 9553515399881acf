"""Build hwgle._core: the chip inside Python, a cffi extension in API mode.

The declarations that Python sees are the C headers themselves, preprocessed here, so
that sizes, ids and limits come from the compiler and are written once.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent
CORE = [
    "access.c",
    "chip.c",
    "digest.c",
    "effective.c",
    "image.c",
    "matvec_avx2.c",
    "matvec_scalar.c",
    "matvec_vnni.c",
    "neurons_avx2.c",
    "neurons_scalar.c",
    "neurons_vnni.c",
    "plasticity.c",
    "ranges.c",
    "snapshot.c",
    "softmax.c",
]
HOST = ["host/adam.c", "host/loop.c"]


def declarations(header: str) -> str:
    """A header as cffi reads it: no comments, no preprocessor, plain constants."""
    text = (CSRC / header).read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"^#define (GLE_\w+) .+$", r"#define \1 ...", text, flags=re.M)
    text = re.sub(r"^#(?!define \w+ \.\.\.).*$", "", text, flags=re.M)
    return text


ffi = FFI()
ffi.cdef(declarations("gle.h") + declarations("host/loop.h"))
ffi.set_source(
    "hwgle._core",
    '#include "gle.h"\n#include "host/loop.h"\n',
    sources=[f"csrc/{name}" for name in CORE + HOST],
    include_dirs=["csrc"],
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
    ],
    libraries=["m"],
    py_limited_api=True,
)
