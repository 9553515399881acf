"""Trying a chip: SQNR of its rates and errors on samples, for questions of the kind "and with
a bit more?". The same chip with the same scales is run once."""

from __future__ import annotations

from dataclasses import dataclass

from hwgle.accuracy_report.deviation import Deviations, decibel, signal_powers
from hwgle.accuracy_report.material import Material
from hwgle.accuracy_report.signals import Basis, ChipRun, Segment, float_segments
from hwgle.chip import Chip
from hwgle.network import Network
from hwgle.quantise import Scales
from hwgle.weights import Weights

TRIED = ("r", "e")


@dataclass(frozen=True)
class Outcome:
    """SQNR in dB against float64. output: of the output's rates; rates: mean over layers, as
    read out; errors: mean over layers. parts: the same of each segment by itself."""

    output: float
    rates: float
    errors: float
    parts: tuple[Outcome, ...] = ()

    def figures(self) -> dict[str, float]:
        """All but the parts."""
        return {"output": self.output, "rates": self.rates, "errors": self.errors}

    def least_gain(self, other: Outcome) -> dict[str, float]:
        """What it has more than another on the segment where that is least, dB."""
        gains = [a.gain(b) for a, b in zip(self.parts, other.parts, strict=True)]
        return {name: min(g[name] for g in [*gains, self.gain(other)]) for name in self.figures()}

    def gain(self, other: Outcome) -> dict[str, float]:
        """What this one has more than another, dB."""
        return {
            "output": self.output - other.output,
            "rates": self.rates - other.rates,
            "errors": self.errors - other.errors,
        }


class Trials:
    """Chips on one material; scales from the basis unless given."""

    def __init__(
        self,
        network: Network,
        weights: Weights,
        material: Material,
        basis: Basis,
        reference: list[Segment] | None = None,
    ) -> None:
        self.network, self.weights, self.material = network, weights, material
        self.basis = basis
        self._reference = reference or float_segments(network, weights, material)
        self._known: dict[tuple[Chip, Scales], Outcome] = {}
        self.count = 0

    def __call__(self, chip: Chip, scales: Scales | None = None) -> Outcome:
        """Run it, or remember what came out. Raises UsageError for scales that cannot be
        built."""
        scales = scales or self.basis.scales(chip)
        if (chip, scales) not in self._known:
            self._known[chip, scales] = self._run(chip, scales)
        return self._known[chip, scales]

    def _run(self, chip: Chip, scales: Scales) -> Outcome:
        self.count += 1
        m = self.material
        run = ChipRun(self.network, chip, self.weights, scales, m.streams, signals=TRIED)
        layers = range(len(self.network.layers))
        keys = [(k, s) for k in layers for s in TRIED]
        whole, parts = Deviations(keys), []
        for k in range(m.segments):
            segment = run.segment(*m.segment(k))
            if k >= m.settle:
                true, one = self._reference[k], Deviations(keys)
                powers = signal_powers(true, keys)
                whole.add(true, segment, powers)
                one.add(true, segment, powers)
                parts.append(self._outcome(one))
        return self._outcome(whole, tuple(parts))

    def _outcome(self, found: Deviations, parts: tuple[Outcome, ...] = ()) -> Outcome:
        layers = range(len(self.network.layers))
        ratio = {key: decibel(d.reference, d.power) for key, d in found.of.items()}
        count = len(self.network.layers)
        return Outcome(
            output=ratio[count - 1, "r"],
            rates=sum(ratio[k, "r"] for k in layers) / count,
            errors=sum(ratio[k, "e"] for k in layers) / count,
            parts=parts,
        )
