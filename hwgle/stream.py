"""Real time: a sample goes to the body when it is due, its output comes when it comes.

Every sample is a block of one step. Several are under way at once where the line allows, so
that a round trip longer than a step costs latency and not the rate. A deadline is the
moment at which the next sample is due.
"""

from __future__ import annotations

import math
import queue
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwgle.device import Block, Device, Pending
from hwgle.network import Network
from hwgle.quantise import Image, to_float, to_int16

DEPTH = 8  # samples under way at most
PAUSE = 1e-4  # seconds between two looks at what has arrived
IDLE = 0.02
Sample = NDArray[np.float64]
# What a source puts into the queue: samples, then None for the end or what ended it.
Source = queue.Queue["Sample | None | BaseException"]
Output = Callable[[NDArray[np.float64]], None]
PERCENTILES = (50.0, 95.0, 99.0)


@dataclass
class Latencies:
    """From when a sample was due (or came, if later) to its output, in seconds."""

    seconds: array[float] = field(default_factory=lambda: array("d"))

    def percentiles(self) -> list[float]:
        """Of PERCENTILES, then the largest; NaN without samples."""
        if not self.seconds:
            return [math.nan] * (len(PERCENTILES) + 1)
        values = np.frombuffer(self.seconds)
        return [*np.percentile(values, PERCENTILES).tolist(), float(values.max())]

    def missed(self, period: float | None) -> int:
        """Outputs that came after the next sample was due."""
        if period is None or not self.seconds:
            return 0
        return int(np.count_nonzero(np.frombuffer(self.seconds) > period))

    def histogram(self) -> list[tuple[float, int]]:
        """(upper end in seconds, count), ten bins a decade, from the first to the last in use."""
        if not self.seconds:
            return []
        values = np.maximum(np.frombuffer(self.seconds), 1e-9)
        bins = np.ceil(np.log10(values) * 10).astype(int)
        return [
            (10 ** (k / 10), int(np.count_nonzero(bins == k)))
            for k in range(int(bins.min()), int(bins.max()) + 1)
        ]


@dataclass
class Summary:
    """What a stream was. waited: samples that were not there when they were due; clipped:
    values beyond the range of the input."""

    steps: int = 0
    seconds: float = 0.0
    waited: int = 0
    clipped: int = 0
    latencies: Latencies = field(default_factory=Latencies)


@dataclass(frozen=True)
class _UnderWay:
    due: float
    pending: Pending


class Streamer:
    """Samples from a source through a loaded body, at a rate or as fast as they come."""

    def __init__(self, body: Device, image: Image, rate: float | None, output: Output) -> None:
        self._body, self._image, self._output = body, image, output
        self.period = None if rate is None else 1.0 / rate
        self.summary = Summary()
        limits = body.limits
        self._depth = 1 if limits.immediate else max(1, min(DEPTH, limits.window // 2))
        self._under_way: deque[_UnderWay] = deque()
        self._top = len(image.network.layers) - 1
        self._starved = False

    def run(self, source: Source) -> None:
        """Until the source ends. Raises what ended it, after the outputs of what came before."""
        begun = due = None
        ended: BaseException | None = None
        try:
            while True:
                self._collect(wait=len(self._under_way) >= self._depth)
                if due is not None and not self._sleep_until(due):
                    continue
                item = self._next(source)
                if item is None or isinstance(item, BaseException):
                    ended = item
                    break
                if not isinstance(item, np.ndarray):
                    continue
                now = time.perf_counter()
                begun = now if begun is None else begun
                if due is None:
                    due = now
                elif self._starved:  # it was not there when it was due
                    self.summary.waited += 1
                    due = now
                self._submit(item, due)
                due = None if self.period is None else due + self.period
                self._starved = False
            while self._under_way:
                self._collect(wait=True)
        finally:
            if begun is not None:
                self.summary.seconds = time.perf_counter() - begun
        if ended is not None:
            raise ended

    def _next(self, source: Source) -> Sample | BaseException | bool | None:
        """The next sample; False when there is none yet."""
        try:
            return source.get_nowait()
        except queue.Empty:
            self._starved = True
        if self._under_way:
            time.sleep(PAUSE)
            return False
        try:
            return source.get(timeout=IDLE)
        except queue.Empty:
            self._body.answered()  # says if it has been unplugged meanwhile
            return False

    def _sleep_until(self, due: float) -> bool:
        """A little nearer to the moment; True when it has come."""
        left = due - time.perf_counter()
        if left <= 0:
            return True
        time.sleep(min(left, PAUSE if self._under_way else left, IDLE))
        return False

    def _submit(self, sample: Sample, due: float) -> None:
        image = self._image
        x, clipped = to_int16(sample, image.scales.input, image.chip.input_max)
        self.summary.clipped += clipped
        block = Block(x.reshape(1, 1, -1), record=[(self._top, "r")])
        self._under_way.append(_UnderWay(due, self._body.submit(block)))

    def _collect(self, wait: bool) -> None:
        """Outputs that have come; with `wait` at least one."""
        while self._under_way and (wait or self._body.answered()):
            one = self._under_way[0]
            records = one.pending.result()
            now = time.perf_counter()
            self._under_way.popleft()
            self.summary.latencies.seconds.append(now - one.due)
            self.summary.steps += 1
            wait = False
            assert records.fracs is not None
            frac = int(records.fracs[0, self._top, 0])
            self._output(to_float(records.signals[0][0, 0], frac))


def deadline_text(
    summary: Summary, network: Network, period: float | None
) -> list[tuple[str, str]]:
    """A summary as names and values."""
    values = [f"{1000 * x:.3g}" for x in summary.latencies.percentiles()]
    names = [*(f"p{p:g}" for p in PERCENTILES), "max"]
    hertz = summary.steps / summary.seconds if summary.seconds > 0 else 0.0
    asked = "" if period is None else f" (asked for {1 / period:,.6g})"
    rows = [
        ("network", network.name),
        ("steps", f"{summary.steps} in {summary.seconds:.2f} s: {hertz:,.1f} a second{asked}"),
        ("latency", ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True)) + " ms"),
    ]
    if period is not None:
        missed = summary.latencies.missed(period)
        share = missed / summary.steps if summary.steps else 0.0
        rows.append(("missed", f"{missed} of {summary.steps} deadlines ({100 * share:.2g} %)"))
    if summary.waited:
        rows.append(("waited", f"{summary.waited} samples came after they were due"))
    if summary.clipped:
        rows.append(("clipped", f"{summary.clipped} values beyond the input's range"))
    return rows
