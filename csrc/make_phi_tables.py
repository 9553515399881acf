"""Write the activation tables of the core, in 18 fraction bits: phi_tables.h, and others.

Run by hand (`python csrc/make_phi_tables.py`), its output is committed: the bits
must not depend on the libm of whoever builds. Computed with 50 digits by `decimal`.

An entry is `value << 13 | step to the next value`, so that one 32-bit load serves a
linear interpolation. Errors against the function (in units of 2^-18): tanh 8,
softplus 9; a rate with 13 fraction bits has an LSB of 32 units.
"""

from decimal import Decimal, getcontext
from itertools import pairwise
from pathlib import Path

getcontext().prec = 50
SEGMENTS = 512
ONE = 1 << 18


def tanh(x: Decimal) -> Decimal:
    t = (2 * x).exp()
    return (t - 1) / (t + 1)


def softplus_residual(x: Decimal) -> Decimal:
    return (1 + (-x).exp()).ln()


def rounded(x: Decimal) -> int:
    return int((x * ONE + Decimal("0.5")).to_integral_value(rounding="ROUND_FLOOR"))


def entries_of(values: list[int]) -> list[int]:
    assert all(abs(b - a) < 1 << 13 and 0 <= a < 1 << 19 for a, b in pairwise(values))
    return [v << 13 | abs(values[i + 1] - v) for i, v in enumerate(values[:SEGMENTS])]


def table(name: str, values: list[int]) -> str:
    entries = [f"0x{entry:08x}u" for entry in entries_of(values)]
    lines = [", ".join(entries[i : i + 8]) for i in range(0, SEGMENTS, 8)]
    return f"static const uint32_t {name}[{SEGMENTS}] = {{\n    " + ",\n    ".join(lines) + "\n};\n"


def bytes_table(name: str, values: list[int]) -> str:
    planes = []
    for k in range(4):
        entries = [f"0x{entry >> 8 * k & 0xFF:02x}" for entry in entries_of(values)]
        lines = [", ".join(entries[i : i + 16]) for i in range(0, SEGMENTS, 16)]
        planes.append("    {" + ",\n     ".join(lines) + "},\n")
    return f"static const uint8_t {name}[4][{SEGMENTS}] = {{\n" + "".join(planes) + "};\n"


def exp2_table() -> str:
    """2^-f for f = 0..1 in 256 segments, 20 fraction bits."""
    two = Decimal(2)
    values = [int(two ** (-Decimal(i) / 256) * (1 << 20) + Decimal("0.5")) for i in range(257)]
    entries = [f"0x{v:06x}" for v in values]
    lines = [", ".join(entries[i : i + 8]) for i in range(0, 257, 8)]
    return "static const int32_t gle_exp2_table[257] = {\n    " + ",\n    ".join(lines) + "\n};\n"


def headers() -> dict[str, str]:
    h_tanh = [rounded(tanh(Decimal(i) / 64)) for i in range(SEGMENTS + 1)]
    h_soft = [rounded(softplus_residual(Decimal(i) / 32)) for i in range(SEGMENTS + 1)]
    return {
        "phi_tables.h": (
            "/* Made by make_phi_tables.py: value << 13 | step to the next, 18 fraction bits.\n"
            " * tanh on [0, 8) in steps of 1/64; log(1 + exp(-x)) on [0, 16) in steps of 1/32. */\n"
            "#ifndef GLE_PHI_TABLES_H\n#define GLE_PHI_TABLES_H\n\n#include <stdint.h>\n\n"
            + table("gle_tanh_table", h_tanh)
            + "\n"
            + table("gle_softplus_table", h_soft)
            + "\n#endif\n"
        ),
        "tanh_bytes.h": (
            "/* Made by make_phi_tables.py: the bytes of tanh's table in phi_tables.h, the lowest\n"
            " * of all entries first. */\n"
            "#ifndef GLE_TANH_BYTES_H\n#define GLE_TANH_BYTES_H\n\n#include <stdint.h>\n\n"
            + bytes_table("gle_tanh_bytes", h_tanh)
            + "\n#endif\n"
        ),
        "exp2_table.h": (
            "/* Made by make_phi_tables.py: 2^-f for f = 0, 1/256 .. 1, 20 fraction bits. */\n"
            "#ifndef GLE_EXP2_TABLE_H\n#define GLE_EXP2_TABLE_H\n\n#include <stdint.h>\n\n"
            + exp2_table()
            + "\n#endif\n"
        ),
    }


def main() -> None:
    for name, text in headers().items():
        (Path(__file__).parent / name).write_text(text)


if __name__ == "__main__":
    main()
