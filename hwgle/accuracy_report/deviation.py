"""How far one run is from another: powers, largest and mean deviation, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.accuracy_report.signals import Segment, Values
from hwgle.report.comparison import effective_bits

MOST_DB = 200.0  # stands for "equal", and below for "nothing but error"
PRODUCTS = 300_000  # of a layer's updates that are looked at one by one in a segment


def decibel(signal: float, error: float) -> float:
    """SQNR in dB, within +-MOST_DB; MOST_DB where there is no error at all."""
    if error <= 0:
        return MOST_DB
    if signal <= 0:
        return -MOST_DB
    return min(MOST_DB, max(-MOST_DB, 10 * math.log10(signal / error)))


def bits_of(sqnr: float) -> float:
    """Effective bits, never below 0."""
    return max(0.0, effective_bits(sqnr))


@dataclass
class Deviation:
    """Sums over what was compared; in network units. steps: of a segment.

    signal, error: powers at each step of a segment, summed over all else. total, each: sum of
    the deviations of all values, and of each neuron (none for dW). largest: |deviation|.
    """

    count: int = 0
    signal: NDArray[np.float64] | None = None
    error: NDArray[np.float64] | None = None
    total: float = 0.0
    each: NDArray[np.float64] | None = None
    largest: float = 0.0

    @property
    def power(self) -> float:
        """Of the error, summed."""
        return 0.0 if self.error is None else float(self.error.sum())

    @property
    def reference(self) -> float:
        """Power of the signal, summed."""
        return 0.0 if self.signal is None else float(self.signal.sum())

    def _add(
        self,
        count: int,
        signal: NDArray[np.float64],
        error: NDArray[np.float64],
        total: float,
        largest: float,
    ) -> None:
        self.count += count
        self.signal = signal if self.signal is None else self.signal + signal
        self.error = error if self.error is None else self.error + error
        self.total += total
        self.largest = max(self.largest, largest)

    def add(self, reference: Values, other: Values, signal: NDArray[np.float64]) -> None:
        """Values (steps, B, n); signal (steps,): power that counts as the signal's."""
        d = other - reference
        flat = d.reshape(len(d), -1)
        error = np.einsum("ti,ti->t", flat, flat, dtype=np.float64)
        each = d.sum(axis=(0, 1), dtype=np.float64)
        largest = float(max(d.max(initial=0.0), -d.min(initial=0.0)))
        self._add(d.size, signal, error, float(each.sum()), largest)
        self.each = each if self.each is None else self.each + each

    def add_products(
        self, a: tuple[Values, Values], b: tuple[Values, Values], signal: NDArray[np.float64]
    ) -> None:
        """Outer products of two runs: a (reference) and b are (e (steps, B, n), below (steps,
        B, m)); |e r^T - e' r'^T|^2 without forming them."""
        (e, r), (f, s) = a, b
        error = products(e, r, e, r) + products(f, s, f, s) - 2 * products(e, r, f, s)
        total = product_sum(f, s) - product_sum(e, r)
        n, m = e.shape[2], r.shape[2]
        stride = max(1, math.ceil(e.shape[0] * e.shape[1] * n * m / PRODUCTS))
        largest = 0.0
        for t in range(0, len(e), stride):
            d = f[t][:, :, None] * s[t][:, None, :] - e[t][:, :, None] * r[t][:, None, :]
            largest = max(largest, float(np.abs(d).max(initial=0.0)))
        count = e.shape[0] * e.shape[1] * n * m
        self._add(count, signal, np.maximum(error, 0.0), total, largest)

    def figures(self, unit: float) -> dict[str, float]:
        """For JSON. unit: one LSB. sqnr in dB, bits effective; largest, rms, bias (mean) and
        pattern (rms over neurons of each one's mean) in LSB."""
        ratio = decibel(self.reference, self.power)
        found = {
            "sqnr": ratio,
            "bits": bits_of(ratio),
            "largest": self.largest / unit,
            "rms": math.sqrt(self.power / max(1, self.count)) / unit,
            "bias": self.total / max(1, self.count) / unit,
        }
        if self.each is not None:
            mean = self.each * self.each.size / max(1, self.count)
            found["pattern"] = float(np.sqrt(np.mean(np.square(mean)))) / unit
        return found


def products(e: Values, r: Values, f: Values, s: Values) -> NDArray[np.float64]:
    """Inner products of outer products at each step, summed over streams: (steps,)."""
    left = np.einsum("tbi,tbi->tb", e, f, dtype=np.float64)
    right = np.einsum("tbj,tbj->tb", r, s, dtype=np.float64)
    total: NDArray[np.float64] = (left * right).sum(axis=1)
    return total


def product_sum(e: Values, r: Values) -> float:
    """Sum of all entries of all outer products."""
    left, right = e.sum(axis=2, dtype=np.float64), r.sum(axis=2, dtype=np.float64)
    return float((left * right).sum())


Key = tuple[int, str]


class Deviations:
    """One run against another, all layers and signals."""

    def __init__(self, keys: list[Key]) -> None:
        self.of: dict[Key, Deviation] = {key: Deviation() for key in keys}

    def add(self, reference: Segment, other: Segment, signal: dict[Key, Any]) -> None:
        """One more segment. signal: per key (steps,), powers of the float64 reference."""
        for (k, name), deviation in self.of.items():
            if name == "dW":
                a = reference.signals[k, "e"], reference.below[k]
                b = other.signals[k, "e"], other.below[k]
                deviation.add_products(a, b, signal[k, name])
            else:
                deviation.add(reference.signals[k, name], other.signals[k, name], signal[k, name])


def signal_powers(reference: Segment, keys: list[Key]) -> dict[Key, NDArray[np.float64]]:
    """Power of each signal at each step of a segment, summed over streams and neurons."""
    found = {}
    for k, name in keys:
        if name == "dW":
            e, below = reference.signals[k, "e"], reference.below[k]
            found[k, name] = products(e, below, e, below)
        else:
            values = reference.signals[k, name]
            flat = values.reshape(len(values), -1)
            found[k, name] = np.einsum("ti,ti->t", flat, flat, dtype=np.float64)
    return found
