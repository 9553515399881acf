"""Pictures of what grows: one for each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.footprint import Bytes
    from bench.growth import Point
    from bench.products import Products

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#000000")
MARKERS = "oD^vsPX*"


def canvas(width: float = 7.2, height: float = 4.4) -> tuple[Any, Any]:
    """A figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """The same bytes for the same numbers."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "hwgle"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def ticks(axis: Any, values: Sequence[int]) -> None:
    """The measured values and no others, thinned out where they would touch."""
    from matplotlib.ticker import FixedLocator, NullLocator

    shown: list[int] = []
    for value in sorted(set(values)):
        if not shown or value >= 1.3 * shown[-1]:
            shown.append(value)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_minor_locator(NullLocator())


def logarithmic(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def plot_growth(points: Sequence[Point], told: str, machine: Mapping[str, str], path: Path) -> None:
    """Nanoseconds for each multiply-accumulate, a line for each family."""
    figure, axes = canvas()
    for k, line in enumerate(dict.fromkeys(p.line for p in points)):
        of_line = [p for p in points if p.line == line]
        x, ns = [p.x for p in of_line], [p.ns for p in of_line]
        down = [p.ns - p.ns_range[0] for p in of_line]
        up = [p.ns_range[1] - p.ns for p in of_line]
        axes.errorbar(
            x,
            ns,
            yerr=(down, up),
            color=COLOURS[k % 8],
            marker=MARKERS[k % 8],
            markersize=5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
            label=line,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks(axes.xaxis, [p.x for p in points])
    logarithmic(axes.yaxis)
    axes.set_xlabel(told)
    axes.set_ylabel("CPU time for each multiply-accumulate (ns)")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    about = f"{machine.get('cpu', '')}, {machine.get('caches', '')}; one thread. Bars: all rounds."
    figure.supxlabel(about, fontsize=8)
    save(figure, path)


def plot_bytes(rows: Sequence[Bytes], path: Path) -> None:
    """Bytes of a body for each stored weight, against the batch."""
    figure, axes = canvas()
    keys = dict.fromkeys((r.network, r.gradient) for r in rows if r.body == "emu")
    for k, (network, gradient) in enumerate(keys):
        some = [r for r in rows if (r.network, r.gradient, r.body) == (network, gradient, "emu")]
        label = network + (", with gradient" if gradient else "")
        axes.plot([r.batch for r in some], [r.bytes / r.weights for r in some],
                  color=COLOURS[k // 2 % 8], marker=MARKERS[k % 8], markersize=5, label=label,
                  linestyle="--" if gradient else "-")  # fmt: skip
    axes.axhline(2, color="#999999", linewidth=0.8)
    axes.annotate("the stored weights alone", (8, 2), (0, 3), textcoords="offset points",
                  fontsize=8, color="#666666")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks(axes.xaxis, [r.batch for r in rows])
    logarithmic(axes.yaxis)
    axes.set_xlabel("streams at once")
    axes.set_ylabel("bytes of the emulator for each weight")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    save(figure, path)


def plot_products(rows: Sequence[Products], path: Path) -> None:
    """Instructions of each board for each multiply-accumulate."""
    kinds = ("forward", "transposed", "outer nearest", "outer stochastic")
    boards = list(dict.fromkeys(r.board for r in rows))
    figure, axes = canvas(height=4.0)
    wide = 0.8 / max(1, 2 * len(boards))
    for b, board in enumerate(boards):
        for s, length in enumerate((64, 256)):
            for x, kind in enumerate(kinds):
                for r in rows:
                    if (r.board, r.length, r.kind) != (board, length, kind):
                        continue
                    at = x - 0.4 + (2 * b + s + 0.5) * wide
                    name = f"{board}, sums of {length}" if x == 0 else None
                    axes.bar(at, r.per_mac, wide * 0.92, color=COLOURS[b % 8],
                             alpha=1.0 if s else 0.55, label=name)  # fmt: skip
                    axes.annotate(f"{r.per_mac:.1f}", (at, r.per_mac), (0, 1), ha="center",
                                  textcoords="offset points", fontsize=6)  # fmt: skip
    axes.set_yscale("log")
    logarithmic(axes.yaxis)
    axes.set_ylim(0.8, None)
    axes.set_xticks(range(len(kinds)), [f"{k}" for k in kinds])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("instructions for each multiply-accumulate")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    save(figure, path)
