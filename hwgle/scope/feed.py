"""What a scope's network is fed with: samples of a file or a pipe, or drawn ones, with targets."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block
from hwgle.quantise import Image, to_int16
from hwgle.stream import Source
from hwgle.verify.drawing import BLOCK, Blocks, Run

WAIT_SECONDS = 0.05


@dataclass(frozen=True)
class Piece:
    """Steps to run: the block, and its input in network units, (T, inputs)."""

    block: Block
    x: NDArray[np.float64]
    clipped: int = 0


class Feed(Protocol):
    """Where steps come from. ended: there will be no more."""

    ended: bool

    def next(self, count: int) -> Piece | None:
        """Up to `count` steps; None where there are none yet."""
        ...


class Drawn:
    """Smooth inputs and targets from a seed, without end."""

    ended = False

    def __init__(self, image: Image, seed: int, learn: bool) -> None:
        self._run = Run(image.network, 1, 0, seed)
        self._blocks = Blocks(self._run, image, learn)
        self._step = 0

    def next(self, count: int) -> Piece:
        """See Feed; never across the border of a drawn label."""
        count = min(count, BLOCK - self._step % BLOCK)
        x = self._run.input(self._step, count)[:, 0]
        piece = Piece(self._blocks.block(self._step, count), x)
        self._step += count
        return piece


class Given:
    """Samples (T, inputs) of a file, once or in a loop; no targets."""

    def __init__(self, image: Image, x: NDArray[np.float64], loop: bool) -> None:
        self._image, self._x, self._loop = image, x, loop
        self._at = 0
        self.ended = False

    def next(self, count: int) -> Piece:
        """See Feed."""
        part = self._x[self._at : self._at + count]
        self._at += len(part)
        if self._at == len(self._x):
            self._at, self.ended = 0, not self._loop
        return _piece(self._image, part)


class Piped:
    """Samples as they come from a thread that reads them; no targets."""

    def __init__(self, image: Image, source: Source) -> None:
        self._image, self._source = image, source
        self._failed: BaseException | None = None
        self.ended = False

    def next(self, count: int) -> Piece | None:
        """See Feed. Raises what ended the source, after what came before it."""
        if self._failed is not None:
            raise self._failed
        got: list[NDArray[np.float64]] = []
        while len(got) < count:
            try:
                item = self._source.get(timeout=0 if got else WAIT_SECONDS)
            except queue.Empty:
                break
            if isinstance(item, BaseException):
                if not got:
                    raise item
                self._failed = item
                break
            if item is None:
                self.ended = True
                break
            got.append(item)
        return _piece(self._image, np.array(got)) if got else None


def _piece(image: Image, x: NDArray[np.float64]) -> Piece:
    xi, clipped = to_int16(x, image.scales.input, image.chip.input_max)
    return Piece(Block(xi[:, None, :]), x, clipped)
