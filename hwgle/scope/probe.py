"""What a body did, frame by frame: traces of all layers, counters, the line."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Device, Records
from hwgle.quantise import Image, to_float
from hwgle.scope.feed import Feed, Piece

KEPT = 600  # steps of traces
SIGNALS = ("u", "r", "e")
# what a person hears of: name, and the counters that are added up for it
COUNTED = {
    "rates clipped": ("sat_r",),
    "membranes clipped": ("sat_x", "sat_uhat"),
    "errors clipped": ("sat_e", "sat_inst"),
    "errors to 0": ("under_e",),
    "updates to 0": ("under_w",),
    "weights clipped": ("sat_w",),
    "read-outs clipped": ("sat_read",),
}
SLOW_SECONDS = 0.5  # of a frame: shorter ones from then on
LEAST_STEPS = 4


@dataclass
class View:
    """What there is to see, in network units.

    traces: per (layer number, signal) the last steps that were shown, (T, n); input: (T,
    inputs). counters: per layer since the start, by the names of COUNTED. link: of the line,
    empty without one. steps: run since the start; rate: of the last frame, a second.
    """

    image: Image
    device: str
    traces: dict[tuple[int, str], deque[NDArray[np.float64]]]
    input: deque[NDArray[np.float64]]
    counters: list[dict[str, int]] = field(default_factory=list)
    link: dict[str, int] = field(default_factory=dict)
    link_rates: tuple[float, float] = (0.0, 0.0)
    steps: int = 0
    frames: int = 0
    rate: float = 0.0
    clipped_input: int = 0
    shown: str = ""

    def trace(self, layer: int, signal: str) -> NDArray[np.float64]:
        """(T, n)."""
        return np.array(self.traces[layer, signal])


class Probe:
    """Runs a loaded body in frames and looks at all of it.

    steps: of a frame; fixed: keep them even where a frame takes long. A body that takes
    longer than SLOW_SECONDS shows the last part of each frame only, then runs shorter ones.
    """

    def __init__(
        self, device: Device, image: Image, feed: Feed, name: str, steps: int,
        signals: Sequence[str] = SIGNALS, fixed: bool = False,
    ) -> None:  # fmt: skip
        self._device, self._image, self._feed = device, image, feed
        self._pairs = [(k, s) for k in range(len(image.network.layers)) for s in signals]
        self._steps, self._shown, self._fixed = steps, steps, fixed
        traces = {pair: deque[NDArray[np.float64]](maxlen=KEPT) for pair in self._pairs}
        self.view = View(image, name, traces, deque(maxlen=KEPT))
        self._told = time.perf_counter()

    def frame(self) -> bool:
        """Run one frame; False where nothing has come to be run."""
        begun = time.perf_counter()
        piece = self._feed.next(self._steps)
        if piece is None or not len(piece.x):
            self.idle()
            return False
        count = len(piece.x)
        first = count - min(self._shown, count)
        blocks = [_part(piece, 0, first)] if first else []
        blocks.append(replace(_part(piece, first, count), record=self._pairs))
        pending = [self._device.submit(block) for block in blocks]
        records = [p.result() for p in pending][-1]
        self._take(records, piece.x[first:])
        view = self.view
        seconds = time.perf_counter() - begun
        view.steps, view.frames = view.steps + count, view.frames + 1
        view.rate = count / max(1e-9, seconds)
        view.clipped_input += piece.clipped
        view.counters = [_counted(c) for c in self._device.counters()]
        self._look_at_link()
        view.shown = "" if not first else f"the last {count - first} of each {count} steps"
        if seconds > SLOW_SECONDS and not self._fixed:
            self._shorten()
        return True

    def idle(self) -> None:
        """Nothing to run: raises what has ended the session to the board meanwhile."""
        self._device.answered()

    def _shorten(self) -> None:
        """Records cost most on a slow line, so fewer of them first."""
        if self._shown > max(LEAST_STEPS, self._steps // 4):
            self._shown = max(LEAST_STEPS, self._shown // 2)
        elif self._steps > LEAST_STEPS:
            self._steps = max(LEAST_STEPS, self._steps // 2)
            self._shown = min(self._shown, self._steps)

    def _take(self, records: Records, x: NDArray[np.float64]) -> None:
        assert records.fracs is not None
        scales = self._image.scales.layers
        for (k, signal), values in zip(self._pairs, records.signals, strict=True):
            if signal == "u":
                frac = np.array(scales[k].membrane)
            else:
                column = 0 if signal == "r" else 1
                frac = records.fracs[:, k, column].astype(np.int64)[:, None]
            self.view.traces[k, signal].extend(to_float(values[:, 0], frac))
        self.view.input.extend(x)

    def _look_at_link(self) -> None:
        port: Any = getattr(self._device, "port", None)
        if port is None:
            return
        now, before = time.perf_counter(), self.view.link
        found = dict(port.statistics())
        seconds = max(1e-9, now - self._told)
        if before:
            self.view.link_rates = (
                (found["bytes_out"] - before["bytes_out"]) / seconds,
                (found["bytes_in"] - before["bytes_in"]) / seconds,
            )
        self.view.link, self._told = found, now


def _part(piece: Piece, first: int, end: int) -> Any:
    block = piece.block
    target = block.target
    if target is not None and target.ndim == 3:
        target = target[first:end]
    return replace(block, input=block.input[first:end], target=target)


def _counted(counters: dict[str, int]) -> dict[str, int]:
    return {name: sum(counters[c] for c in which) for name, which in COUNTED.items()}
