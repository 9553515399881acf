"""What must hold, and whether it does: figures against what issue 5 asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench import products
from bench.figures import Figure

FOUR = "stm32f405"  # the Cortex-M4


@dataclass(frozen=True)
class Limit:
    """A figure by a pattern of its name, of which the best counts, and what it must reach:
    at least, or (most) at most."""

    told: str
    pattern: str
    limit: float
    most: bool = False
    percent: bool = False

    def best(self, figures: Mapping[str, Figure]) -> Figure | None:
        """None: not measured."""
        some = [f for name, f in figures.items() if fnmatchcase(name, self.pattern)]
        return (min if self.most else max)(some, key=lambda f: f.value) if some else None

    def holds(self, figure: Figure) -> bool:
        """Whether it does."""
        return figure.value <= self.limit if self.most else figure.value >= self.limit


def _limits() -> list[Limit]:
    found = []
    nets = ("mnist1d-15k", "mnist1d-42k", "3x750")
    for net, share in zip(nets, (0.35, 0.50, 0.60), strict=True):
        name = f"speed/{net}/batch 100/sgd/hwgle */of peak"
        found.append(
            Limit(f"train, batch 100, {net}: of the int16 peak", name, share, percent=True)
        )
    for batch, needs in ((100, (4.5, 4.0, 3.0)), (1, (60.0, 30.0, 18.0))):
        for net, need in zip(nets, needs, strict=True):
            name = f"speed/{net}/batch {batch}/sgd/hwgle */times numpy"
            found.append(Limit(f"train, batch {batch}, {net}: times NumPy", name, need))
    name = "speed/mnist1d-15k/batch 100/infer/hwgle */of peak"
    found.append(Limit("inference, batch 100, mnist1d-15k: of the int16 peak", name, 0.45,
                       percent=True))  # fmt: skip
    found.append(Limit("train with host Adam over SGD on the chip, batch 100, mnist1d-15k: speed",
                       "speed/mnist1d-15k/batch 100/adam over sgd", 0.65))  # fmt: skip
    for (kind, length), most in products.LIMITS.items():
        name = f"boards/{FOUR}/{kind}/{length}/instructions per MAC"
        told = f"Cortex-M4, {kind}, {length} inputs: instructions for each MAC"
        found.append(Limit(told, name, most, most=True))
    for line in ("deep", "same"):
        for batch in (100, 1):
            name = f"growth/neurons/{line}, batch {batch}/most over least"
            told = f"128 .. 2048 neurons, {line}, batch {batch}: most over least time for each MAC"
            found.append(Limit(told, name, 1.25, most=True))
    return found


LIMITS = _limits()


def table(figures: Iterable[Figure]) -> str:
    """As Markdown."""
    by_name = {figure.name: figure for figure in figures}
    lines = ["| what | must be | is | |", "|---|---|---|---|"]
    for limit in LIMITS:
        figure = limit.best(by_name)
        scale, unit = (100, " %") if limit.percent else (1, "")
        need = f"{'<=' if limit.most else '>='} {limit.limit * scale:g}{unit}"
        if figure is None:
            lines.append(f"| {limit.told} | {need} | not measured | |")
            continue
        is_told = f"{figure.value * scale:.3g}{unit}"
        if figure.low != figure.high:
            is_told += f" ({figure.low * scale:.3g} .. {figure.high * scale:.3g})"
        holds = "holds" if limit.holds(figure) else "**missed**"
        lines.append(f"| {limit.told} | {need} | {is_told} | {holds} |")
    return "\n".join(lines)
