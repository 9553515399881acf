"""A good session with a device, which the fuzzer damages."""

from __future__ import annotations

import zlib

import numpy as np
from device_cases import loaded, run_of, snapshot_of
from device_ends import GRADIENT, UHAT, Board, block_messages, cut, image_messages, pack, set_of


def session(seed: int, batch: int, layers: int = 3, neurons: int = 6) -> list[bytes]:
    """Everything that a host does, once, message by message."""
    case = run_of(seed, layers=layers, neurons=neurons, streams=batch, ranging=2)
    rng = np.random.default_rng(seed)
    options = UHAT | GRADIENT
    top = len(case.case.network.layers) - 1
    taken = snapshot_of(loaded(Board(), case, options))
    how = {"learn": True, "ranging": True, "votes": True}
    return [
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
