"""Bytes that a network takes on a board, exactly: the walk of csrc/image.c once more.

`gle_arena_bytes` answers for the machine that it runs on. A board has other pointers and
pads to 8 bytes, so the walk is repeated here for any machine; tests hold it against
`gle_arena_bytes`, against the fields of csrc/chip.h and against what boards answer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hwgle import topology
from hwgle._core import lib
from hwgle.chip import Chip
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.packing import section_words
from hwgle.quantise import HEAD, weight_shift
from hwgle.quantise import LAYER as LAYER_WORDS

LANES = 16
# Members of gle_chip and gle_layer in their order; p: a pointer, i: 32 bits, q: 64 bits.
# Padding follows from the rules of C for the machine.
CHIP = {
    "image": "p", "kernels": "p", "layers": "i", "batch": "i", "columns": "i", "options": "i",
    "inputs": "p", "feedback": "p", "e_top": "p", "gathered": "p", "seed": "q", "step": "q",
    "learned": "q", "learner": "i" * 8, "first": "i", "weights_digest": "q",
    "digest_known": "i", "input": "p", "pairs": "p", "turned": "p",
    "sums": "p", "above": "pp", "rows": "p", "hash": "p", "digest": "p",
}  # fmt: skip
LAYER = {
    "image": "p", "neurons": "p", "times": "p", "analog": "p", "off": "i", "rows": "p",
    "gains": "p", "gain_words": "i", "mask": "p", "sources": "p", "back": "p", "above": "p",
    "noted": "i",
    "n": "i", "m": "i", "first": "i", "stride": "i",
    "stride_t": "i", "w_frac": "i", "u_frac": "i", "r_frac": "i", "e_frac": "i", "v_frac": "i",
    "rate_shift": "i", "stale": "i", "most": "i", "most_t": "i", "w": "p", "seen": "p",
    "seen_t": "p", "lent": "p", "tops": "p", "bias": "p", "gradient": "p",
    "gradient_bias": "p", "gradient_tau": "p", "u_old": "p", "gradient_frac": "i",
    "gradient_bias_frac": "i", "memory": "p", "memory_bias": "p", "norm": "p", "norm_bias": "p",
    "u": "p", "v": "p", "uhat": "p", "r": "p", "e": "p", "dphi": "p",
    "counters": "q" * 13, "window": "i" * 6,
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Bytes of a pointer, and of the alignment of arrays (GLE_ALIGN). Numbers of 64 bits
    are aligned to 8 on all of them."""

    pointer: int
    align: int

    def struct_bytes(self, members: dict[str, str], end: str = "") -> int:
        """sizeof a struct of these members; `end` aligns it as that member would."""
        size = {"p": self.pointer, "i": 4, "q": 8}
        at, widest = 0, max((size[c] for c in end), default=1)
        for kinds in members.values():
            for c in kinds:
                at = up(at, size[c]) + size[c]
                widest = max(widest, size[c])
        return up(at, widest)


BOARD = Machine(pointer=4, align=8)
HOST = Machine(pointer=struct.calcsize("P"), align=8)
HERE = Machine(pointer=struct.calcsize("P"), align=64)


@dataclass(frozen=True)
class Shape:
    """What of a network decides on bytes. copied: layers whose array does not see what is
    stored, so that with several streams the core keeps a copy of what it does see. timed:
    layers that learn tau_m. gained: synapses differ, so that it does for one stream too
    where there are vectors.

    fan_in: inputs of each layer. backs: shapes of feedback weights. wired: layers have sources
    of their own. direct: errors come from the output layer alone. back_copied, back_left: of
    feedback, what `copied` and `gained` are of weights. remembered: layers with accumulators of
    learning. normalised: and with running means."""

    inputs: int
    sizes: tuple[int, ...]
    copied: tuple[bool, ...]
    timed: tuple[bool, ...]
    gained: bool
    fan_in: tuple[int, ...]
    backs: tuple[tuple[int, int] | None, ...]
    wired: bool
    fed_back: bool
    direct: bool
    back_copied: tuple[bool, ...]
    back_left: tuple[bool, ...]
    remembered: tuple[bool, ...]
    normalised: bool

    @classmethod
    def of(cls, network: Network, chip: Chip, learner: OnChip = PLAIN) -> Shape:
        """Of a network on a chip that learns by such a rule."""
        copied = weight_shift(chip) > 0 or chip.synapses_differ
        count = range(len(network.layers))
        left = chip.weight_left > 0
        fed_back = topology.feedback_kind(network) != "transposed"
        return cls(
            network.inputs,
            network.sizes,
            tuple(copied for _ in count),
            tuple(layer.learn_tau_m for layer in network.layers),
            chip.synapses_differ,
            tuple(network.fan_in(k) for k in count),
            tuple(topology.feedback_shape(network, k) for k in count),
            not topology.is_chain(network),
            fed_back,
            topology.is_direct(network),
            tuple(fed_back and (weight_shift(chip) > 0 or left) for _ in count),
            tuple(fed_back and left for _ in count),
            tuple(learner.remembers and layer.learn for layer in network.layers),
            learner.normalises,
        )

    @classmethod
    def of_words(cls, words: Sequence[int]) -> Shape:
        """Of an image that gle_image_check has accepted; see csrc/gle.h."""
        heads = [words[HEAD + LAYER_WORDS * k :][:LAYER_WORDS] for k in range(words[2])]
        gains = words[15] & lib.GLE_HAS_GAINS != 0
        copied = tuple(gains or h[4] != 0 or h[14] != 0 for h in heads)
        learner = OnChip.of_words(words)
        sizes = tuple(h[0] for h in heads)
        count, last = range(len(sizes)), len(sizes) - 1
        at = HEAD + LAYER_WORDS * len(sizes) + 4 * sum(sizes)
        wired = words[15] & lib.GLE_HAS_SOURCES != 0
        heard = [[k - 1] for k in count]
        if wired:
            bits = [sum(words[at + 3 * k + i] << 32 * i for i in range(3)) for k in count]
            heard = [[s for s in range(-1, k + 1) if bits[k] >> s + 1 & 1] for k in count]
            at += 3 * len(sizes)
        fan_in = tuple(sum(words[3] if s < 0 else sizes[s] for s in heard[k]) for k in count)
        fed_back = words[15] & lib.GLE_HAS_FEEDBACK != 0
        direct = fed_back and words[at] == lib.GLE_DIRECT
        backs: list[tuple[int, int] | None] = [None] * len(sizes)
        for k in count if fed_back else ():
            if direct and k < last:
                backs[k] = sizes[last], sizes[k]
            elif not direct and max(heard[k]) >= 0:
                backs[k] = sizes[k], fan_in[k]
        return cls(
            words[3],
            sizes,
            copied,
            tuple(h[2] & lib.GLE_LEARNS_TAU != 0 for h in heads),
            gains,
            fan_in,
            tuple(backs),
            wired,
            fed_back,
            direct,
            tuple(fed_back and (h[4] != 0 or h[14] != 0) for h in heads),
            tuple(fed_back and h[14] != 0 for h in heads),
            tuple(learner.remembers and h[2] & lib.GLE_LEARNS_WEIGHTS != 0 for h in heads),
            learner.normalises,
        )


def up(n: int, to: int) -> int:
    """The least multiple of `to` that is not below n."""
    return -(-n // to) * to


def arena_bytes(shape: Shape, batch: int, options: int, machine: Machine) -> int:
    """What gle_arena_bytes answers on such a machine."""
    columns = 1 if batch == 1 else up(batch, LANES)
    used = 0

    def take(count: int, size: int) -> None:
        nonlocal used
        used = up(used, machine.align) + count * size

    pad = LANES if columns > 1 else 32 if machine.align >= 64 else 2
    layers = len(shape.sizes)
    take(1, machine.struct_bytes(CHIP, "q") + layers * machine.struct_bytes(LAYER))
    if shape.fed_back:
        take(layers, machine.struct_bytes(LAYER))
    take(shape.inputs * columns, 2)

    def matrix(n: int, m: int, copied: bool, copy_one: bool) -> None:
        take(n * up(m, pad), 2)
        if copied and (columns > 1 or (machine.align >= 64 and copy_one)):
            take(n * up(m, pad), 2)
        if columns > 1:
            take(m * up(n, pad), 2)

    most = shape.inputs
    for k, n in enumerate(shape.sizes):
        m = shape.fan_in[k]
        stride, cells = up(m, pad), n * columns
        matrix(n, m, shape.copied[k], shape.gained)
        take(n, 4)
        if options & lib.GLE_WITH_GRADIENT:
            take(n * stride, 4)
            take(n, 4)
        if shape.timed[k]:
            take(n, 16)
            if options & lib.GLE_WITH_GRADIENT:
                take(n, 4)
                take(cells, 4)
        if shape.remembered[k]:
            take(n * stride, 4)
            take(n, 4)
            if shape.normalised:
                take(n * stride, 1)
                take(n, 1)
        take(cells, 4)
        take(cells, 4)
        if k + 1 == layers or options & lib.GLE_WITH_UHAT:
            take(cells, 4)
        for _ in range(3):
            take(cells, 2)
        back = shape.backs[k]
        if back is not None:
            matrix(*back, shape.back_copied[k], shape.back_left[k])
        if shape.wired and not shape.direct:
            take(cells, 4)
        most = max(most, n, m)
    deep = 64 if machine.align >= 64 and most >= 128 else 2  # tiles of AMX read whole ones
    take(0 if columns == 1 else up(most, deep) * columns, 2)
    take(0 if columns == 1 else up(most, LANES) * up(columns, deep), 2)
    for _ in range(3):
        take(most * columns, 4)
    take(up(most, max(pad, LANES)) * 4, 4)
    take(columns, 4)
    take(batch, 8)
    take(shape.sizes[-1] * columns if shape.direct else 0, 2)
    take(up(most, max(pad, LANES)) * columns if shape.wired else 0, 2)
    return up(used, machine.align)


def image_bytes(network: Network, chip: Chip) -> int:
    """Of the image: its head, a head for each layer, four words for each neuron, and what
    makes this chip differ from the ideal one."""
    plain = HEAD + LAYER_WORDS * len(network.layers) + 4 * sum(network.sizes)
    return 4 * (plain + section_words(network, chip))


def board_bytes(
    network: Network,
    chip: Chip,
    batch: int,
    options: int,
    machine: Machine = BOARD,
    learner: OnChip = PLAIN,
) -> int:
    """What a device needs for a network to be live: csrc/device/device_image.c."""
    target = batch * 2 * (network.outputs if network.loss == "mse" else 1)
    buffers = up(batch * network.inputs * 2, 8) + up(target, 8) + batch * network.outputs * 8
    arena = arena_bytes(Shape.of(network, chip, learner), batch, options, machine)
    return arena + buffers + image_bytes(network, chip)


def weights_bytes(network: Network) -> int:
    """What a second set of weights needs beside the one in service (device_weights.c)."""
    numbers = sum(n * (2 * network.fan_in(k) + 4) for k, n in enumerate(network.sizes))
    numbers += 2 * topology.feedback_count(network)
    return numbers + 24 * len(network.layers)
