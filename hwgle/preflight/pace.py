"""The smallest step in real time, from instructions that were counted on the board.

Its board.yaml carries them under `speed`, with the command that counted them; a board
without them has no answer here. They are taken as one a cycle: what flash and multipliers
make the core wait for comes on top, so the true step is longer, not shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from hwgle import topology
from hwgle.network import Network


@dataclass(frozen=True)
class Speed:
    """Instructions of a core at `hz`: for a step whatever its size, for each neuron, for each
    product of the forward and the backward sums, for each weight that learns."""

    hz: float
    step: float
    neuron: float
    forward: float
    back: float
    update: float
    command: str = ""

    @classmethod
    def of(cls, board: Any) -> Speed | None:
        """What a board's description says; None where it says nothing."""
        told = getattr(board, "speed", None)
        if told is None:
            return None
        names = [f.name for f in fields(cls)]
        values = {n: told[n] if isinstance(told, dict) else getattr(told, n, None) for n in names}
        return cls(**{k: v for k, v in values.items() if v is not None})

    def instructions(self, network: Network, batch: int, learn: bool) -> float:
        """Of one step of all streams."""
        sizes = network.sizes
        products = [n * network.fan_in(k) for k, n in enumerate(sizes)]
        backs = [
            n * sum(s.size for s in topology.segments(network, k) if s.source >= 0)
            for k, n in enumerate(sizes)
        ]
        if topology.is_direct(network):
            backs = [topology.feedback_count(network)]
        learning = sum(p for p, layer in zip(products, network.layers, strict=True) if layer.learn)
        each = (
            self.neuron * sum(sizes)
            + self.forward * sum(products)
            + self.back * sum(backs)
            + (self.update * learning if learn else 0.0)
        )
        return self.step + batch * each

    def seconds(self, network: Network, batch: int, learn: bool) -> float:
        """The shortest step that the core keeps up with."""
        return self.instructions(network, batch, learn) / self.hz
