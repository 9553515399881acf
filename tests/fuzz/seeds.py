"""Writes the seeds of the corpus: what good hosts and boards say.

    PYTHONPATH=. python tests/fuzz/seeds.py FOLDER
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BESIDE = (HERE.parent / name for name in ("link", "parity", "unit"))
sys.path[:0] = map(str, (HERE, HERE.parent, *BESIDE))
from device_ends import LAYOUTS, pack  # noqa: E402
from link_ends import wire_frame  # noqa: E402
from random_images import draw_plan  # noqa: E402
from recorded import session  # noqa: E402


def frames() -> list[bytes]:
    """Good frames, short and long, one behind the other."""
    rng = np.random.default_rng(1)
    made = [wire_frame(kind, rng.bytes(n)) for kind in range(1, 8) for n in (0, 5, 40, 300)]
    one_each = [bytes([200, 7]) + b"\0" + frame for frame in made]
    return [*one_each, bytes([60, 0]) + b"".join(made[:12])]


def messages() -> list[bytes]:
    """Each message of the list, its tail empty and with some numbers; the first byte of an
    input is the message's place in the list, so its id is changed to that."""
    made = []
    for k, (name, layout) in enumerate(LAYOUTS.items()):
        fields = {field: 1 for _, field in layout.fields}
        made += [bytes([k]) + pack(name, tail, **fields)[1:] for tail in (b"", bytes(16))]
    return made


def sessions() -> list[bytes]:
    """Recorded sessions, on roomy and on tight devices of each payload."""
    made = []
    for seed, batch, layers in [(0, 1, 1), (1, 3, 1), (2, 1, 2), (3, 2, 3), (4, 1, 3)]:
        told = b"".join(struct.pack("<H", len(m)) + m for m in session(seed, batch, layers, 4))
        made += [bytes([payload, 0]) + told for payload in (0, 2)]
        made.append(bytes([6 + 8 * seed, 100]) + told)
    return made


def images() -> list[bytes]:
    """Random images with all of their sections."""
    made = []
    for seed in range(24):
        words = np.asarray(draw_plan(seed, extreme=seed % 3 == 2).words(), dtype="<u4")
        made.append(bytes([seed % 5, 3, 13, seed]) + words.tobytes())
    return [data for data in made if len(data) < 4000]


def links() -> list[bytes]:
    """Operations that lead somewhere: open, talk, send, take, be silent."""
    opened = bytes([1, 1, 0, 1, 2]) + bytes(4)
    talk = bytes([6, 7, 255, 3, 3, 0, 4, 4, 8, *range(8), 5, 7, 200, 4, 50, 0])
    return [bytes([how]) + opened * 2 + talk * times for how in range(4) for times in (1, 8)]


MADE = {"frame": frames, "message": messages, "device": sessions, "image": images, "link": links}


def main(to: Path) -> None:
    """Write them, a folder for each fuzzer."""
    for name, make in MADE.items():
        (to / name).mkdir(parents=True, exist_ok=True)
        for k, data in enumerate(make()):
            (to / name / f"seed-{k:03d}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
