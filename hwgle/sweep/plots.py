"""Pictures of a sweep: heat maps, curves, the Pareto front, yields over chips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hwgle.report.plots import CHIP, FLOAT, GREY, STYLE, save
from hwgle.report.yield_plot import curve
from hwgle.sweep.study import Study
from hwgle.sweep.summary import ACCURACIES, Settled, front

MAPS = 3  # heat maps at most
WRITTEN = 200  # cells up to which each says its number
CURVES = 6  # of yields in one picture
NAMES = {"raw": "raw", "offset_calibrated": "offset-calibrated"}


def draw_all(study: Study, settled: Sequence[Settled], out: Path) -> list[Path]:
    """All pictures that this sweep has, as SVG and PNG; the same bytes for the same table."""
    title = study.sweep.name
    firsts = [axis.all_keys[0] for axis in study.sweep.axes]
    varied = [key for key in firsts if len({repr(s.setting[key]) for s in settled}) > 1]
    paths: list[Path] = []
    if study.sweep.search.kind == "grid" and len(varied) == 1:
        paths += save(curves(settled, varied[0], title), out / "curve")
    if study.sweep.search.kind == "grid":
        for a, b in list(combinations(varied, 2))[:MAPS]:
            stem = f"heat-{_stem(a)}-{_stem(b)}"
            paths += save(heat_map(settled, a, b, title), out / stem)
    if len(settled) > 1:
        paths += save(pareto(settled, title), out / "pareto")
    if any(s.distinct > 1 for s in settled):
        paths += save(yields(settled, title), out / "yield")
    return paths


def label(key: str) -> str:
    """A key as an axis says it: `weight.stored_bits` as weight stored bits."""
    return key.split(".", 1)[1].replace(".", " ").replace("_", " ")


def _stem(key: str) -> str:
    return key.split(".", 1)[1].replace(".", "-").replace("_", "-")


def _sorted(values: set[Any]) -> list[Any]:
    return sorted(values, key=lambda v: (isinstance(v, str), v is not None, v if v else 0))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def means(
    settled: Sequence[Settled], x: str, y: str, kind: str
) -> tuple[list[Any], list[Any], NDArray[np.float64]]:
    """Values along x and y, and (len(y), len(x)) means over all else; NaN where nothing is."""
    columns = _sorted({s.setting[x] for s in settled})
    rows = _sorted({s.setting[y] for s in settled})
    cells: dict[tuple[int, int], list[float]] = {}
    for s in settled:
        at = rows.index(s.setting[y]), columns.index(s.setting[x])
        cells.setdefault(at, []).append(s.mean(kind))
    grid = np.full((len(rows), len(columns)), np.nan)
    for at, values in cells.items():
        grid[at] = np.mean(values)
    return columns, rows, grid


def heat_map(settled: Sequence[Settled], x: str, y: str, title: str) -> Figure:
    """Accuracy over two axes, raw and offset-calibrated side by side on one scale."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        found = {kind: means(settled, x, y, kind) for kind in ACCURACIES}
        columns, rows, _ = found["raw"]
        width = 1.6 + 2 * max(2.6, 0.42 * len(columns))
        height = 1.4 + max(1.8, 0.3 * len(rows))
        figure = _figure(width, height)
        least = 100 * min(float(np.nanmin(grid)) for _, _, grid in found.values())
        most = 100 * max(float(np.nanmax(grid)) for _, _, grid in found.values())
        left, right, bottom, top = 0.75 / width, 0.75 / width, 0.55 / height, 0.6 / height
        each = (1 - left - right - 0.35 / width) / 2
        for k, (kind, (_, _, grid)) in enumerate(found.items()):
            at = left + k * (each + 0.35 / width)
            axes = figure.add_axes((at, bottom, each, 1 - bottom - top))
            image = axes.imshow(
                100 * grid, origin="lower", aspect="auto", cmap="viridis", vmin=least, vmax=most
            )
            axes.set_xticks(range(len(columns)), [str(v) for v in columns])
            axes.set_yticks(range(len(rows)), [str(v) for v in rows] if k == 0 else [])
            axes.set_xlabel(label(x))
            if k == 0:
                axes.set_ylabel(label(y))
            axes.set_title(NAMES[kind], loc="left")
            _write_cells(axes, 100 * grid, least, most)
        place = (1 - right + 0.12 / width, bottom, 0.14 / width, 1 - bottom - top)
        bar = figure.colorbar(image, cax=figure.add_axes(place))
        bar.set_label("accuracy on the test split (%)")
        figure.text(left, 1 - 0.25 / height, title, fontsize=11, weight="bold")
    return figure


def _write_cells(axes: Axes, grid: NDArray[np.float64], least: float, most: float) -> None:
    if grid.size > WRITTEN:
        return
    middle = least + 0.6 * (most - least)
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            text = f"{value:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)


def curves(settled: Sequence[Settled], key: str, title: str) -> Figure:
    """Accuracy along the only axis that varies: means over seeds, and from worst to best."""
    with mpl.rc_context(STYLE):
        figure = _figure(7.5, 4.2)
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.12, top=0.92)
        axes = figure.add_subplot()
        values = [s.setting[key] for s in settled]
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        order = np.argsort(values) if numeric else np.arange(len(values))
        at = np.array([values[k] if numeric else k for k in order], dtype=np.float64)
        for kind, colour, style in zip(ACCURACIES, (CHIP, FLOAT), ("--", "-"), strict=True):
            found = [100 * settled[k].accuracies[kind] for k in order]
            mean = [a.mean() for a in found]
            axes.plot(at, mean, ls=style, marker="o", ms=4, color=colour, label=NAMES[kind])
            low, high = [a.min() for a in found], [a.max() for a in found]
            if any(h > low_ for h, low_ in zip(high, low, strict=True)):
                axes.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
        ticks = at if len(at) <= 20 else at[:: -(-len(at) // 20)]
        names = [str(values[k]) for k in order] if not numeric else [f"{v:g}" for v in ticks]
        axes.set_xticks(ticks, names[: len(ticks)])
        axes.set_xlabel(label(key))
        axes.set_ylabel("accuracy on the test split (%)")
        axes.set_title(title, loc="left")
        axes.legend(loc="best")
    return figure


def pareto(settled: Sequence[Settled], title: str) -> Figure:
    """Every setting by its bits of memory and its accuracy, and the front."""
    with mpl.rc_context(STYLE):
        figure = _figure(7.5, 4.6)
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.11, top=0.92)
        axes = figure.add_subplot()
        bits = np.array([s.memory_bits for s in settled]) / 1000
        accuracy = 100 * np.array([s.mean() for s in settled])
        axes.scatter(bits, accuracy, s=14, color=GREY, alpha=0.5, lw=0, label="settings")
        best = front(settled)
        x = [s.memory_bits / 1000 for s in best]
        y = [100 * s.mean() for s in best]
        axes.step(x, y, where="post", color=CHIP, lw=1.2)
        axes.plot(x, y, "o", color=CHIP, ms=5, label=f"Pareto front, {len(best)} settings")
        axes.set_xlabel("memory for weights, biases, membranes, rates (kbit)")
        axes.set_ylabel("offset-calibrated accuracy, mean over seeds (%)")
        axes.set_title(title, loc="left")
        axes.legend(loc="lower right")
    return figure


def yields(settled: Sequence[Settled], title: str) -> Figure:
    """Share of chips at or above an accuracy, for settings from the worst to the best."""
    with mpl.rc_context(STYLE):
        figure = _figure(7.5, 5.4)
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.32, top=0.93)
        axes = figure.add_subplot()
        ranked = sorted((s for s in settled if s.distinct > 1), key=lambda s: (s.mean(), s.number))
        count = min(CURVES, len(ranked))
        chosen = [ranked[round(k * (len(ranked) - 1) / max(1, count - 1))] for k in range(count)]
        colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, count))
        varied = [k for k in chosen[0].setting if len({repr(s.setting[k]) for s in chosen}) > 1]
        for s, colour in zip(chosen, colours, strict=True):
            x, y = curve(s.accuracies["offset_calibrated"])
            words = ", ".join(f"{label(k)} {s.setting[k]}" for k in varied) or "all chips"
            text = f"{words}: mean {100 * s.mean():.1f} %"
            axes.plot(100 * x, 100 * y, color=colour, lw=1.6, label=text)
        chips = max(s.accuracies["raw"].size for s in chosen)
        least = min(float(s.accuracies["offset_calibrated"].min()) for s in chosen)
        axes.set_xlim(max(0.0, 100 * least - 5), 100)
        axes.set_ylim(0, 104)
        axes.set_xlabel("offset-calibrated accuracy on the test split (%)")
        axes.set_ylabel(f"chips at or above it (% of {chips})")
        axes.set_title(title, loc="left")
        # Below the panel: curves of all kinds run through any of its corners.
        figure.legend(loc="upper left", bbox_to_anchor=(0.08, 0.24), fontsize=8)
    return figure
