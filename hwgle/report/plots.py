"""Pictures: arrays in, a matplotlib Figure out; no window, no global state.

Float64 is a wide pale line and the chip a thin dark one on top of it, in colours that
people who see fewer of them can tell apart (Okabe and Ito).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hwgle.accuracy import sqnr
from hwgle.cache import replacing
from hwgle.errors import UsageError

COLOURS = ("#0072B2", "#D55E00", "#009E73")
CHIP, FLOAT, THIRD = "#D55E00", "#0072B2", "#009E73"
GREY = "#5a5a5a"
DPI = 130
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "hwgle",
}
SIGNAL_NAMES = {"u": "membrane u", "r": "rate r", "e": "error e"}


@dataclass(frozen=True)
class LayerTraces:
    """Some neurons of one layer: names of k neurons, and per signal (T, k) of each side."""

    layer: str
    neurons: Sequence[str]
    floating: Mapping[str, NDArray[np.float64]]
    chip: Mapping[str, NDArray[np.float64]]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as SVG and PNG beside each other, the same bytes for the same numbers.

    Raises:
        UsageError: they cannot be written there, or the disk is full.
    """
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    kinds: list[dict[str, Any]] = [
        {"metadata": {"Date": None}},
        {"metadata": {"Software": None}, "dpi": DPI},
    ]
    with mpl.rc_context(STYLE):
        for path, kind in zip(paths, kinds, strict=True):
            try:
                with replacing(path) as temporary:
                    figure.savefig(temporary, **kind)
            except OSError as error:
                raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    return paths


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _small() -> tuple[Figure, Axes]:
    """One panel. Margins are set by hand everywhere: a layout engine draws it all again."""
    figure = _figure(7.5, 4.2)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.12, top=0.92)
    return figure, figure.add_subplot()


# The sheet of a stream, in inches from its left and upper edges.
LEFT, COLUMN, GAP = 0.95, 3.05, 0.92
TOP, INPUT, HEADER, PANEL, SLIT, DIFFERENCE, BOTTOM = 0.75, 0.75, 0.55, 1.5, 0.07, 0.55, 0.6


def stream(dt: float, x: NDArray[np.floating], layers: Sequence[LayerTraces], title: str) -> Figure:
    """One stream through some layers: membranes, rates, errors, and chip minus float64.

    dt: time of a step. x: input (T, inputs). Rows are layers, columns signals; below each
    panel stands the difference on a scale of its own, with its SQNR.
    """
    with mpl.rc_context(STYLE):
        signals = [s for s in SIGNAL_NAMES if s in layers[0].chip]
        row = HEADER + PANEL + SLIT + DIFFERENCE
        width = LEFT + len(signals) * (COLUMN + GAP) - GAP + 0.25
        height = TOP + INPUT + len(layers) * row + BOTTOM
        figure = _figure(width, height)
        time = np.asarray(dt * np.arange(1, len(x) + 1), dtype=np.float64)

        def place(left: float, top: float, w: float, h: float) -> Axes:
            box = (left / width, 1 - (top + h) / height, w / width, h / height)
            axes = figure.add_axes(box)
            axes.set_xlim(0, time[-1])
            axes.locator_params(axis="y", nbins=5)
            return axes

        axes = place(LEFT, TOP, width - LEFT - 0.25, INPUT)
        axes.plot(time, x, color=GREY, lw=1.0)
        axes.set_ylabel("input")
        axes.yaxis.set_label_coords(-0.045, 0.5)
        for i, traces in enumerate(layers):
            top = TOP + INPUT + i * row + HEADER
            for k, signal in enumerate(signals):
                left = LEFT + k * (COLUMN + GAP)
                above = place(left, top, COLUMN, PANEL)
                below = place(left, top + PANEL + SLIT, COLUMN, DIFFERENCE)
                _panel(above, below, time, traces, signal)
                below.tick_params(labelbottom=i == len(layers) - 1)
                if i == len(layers) - 1:
                    below.set_xlabel(f"time (unit of the time constants; a step is {dt:g})")
                if k == 0:
                    _header(above, traces)
        sides = [
            Line2D([], [], color=GREY, lw=4.5, alpha=0.35, label="float64"),
            Line2D([], [], color=GREY, lw=1.0, label="chip"),
        ]
        figure.text(LEFT / width, 1 - 0.32 / height, title, fontsize=12.5, weight="bold")
        what = "u, r, e and the input in network units"
        figure.text(LEFT / width, 1 - 0.57 / height, what, color=GREY)
        figure.legend(
            handles=sides,
            loc="upper right",
            bbox_to_anchor=(1 - 0.2 / width, 1 - 0.1 / height),
            ncols=2,
            fontsize=10,
        )
    return figure


def _header(first: Axes, traces: LayerTraces) -> None:
    """Name of the layer and of its neurons, above its first panel."""
    first.set_title(f"layer {traces.layer}", loc="left", weight="bold", pad=9)
    handles = [
        Line2D([], [], color=c, lw=2.0, label=name)
        for c, name in zip(COLOURS, traces.neurons, strict=False)
    ]
    first.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.42, 1.0),
        ncols=len(handles),
        handlelength=1.4,
        borderaxespad=0.25,
    )


def _panel(
    above: Axes, below: Axes, time: NDArray[np.float64], traces: LayerTraces, signal: str
) -> None:
    floating, chip = traces.floating[signal], traces.chip[signal]
    for n, colour in zip(range(chip.shape[1]), COLOURS, strict=False):
        above.plot(time, floating[:, n], color=colour, lw=3.2, alpha=0.35)
        above.plot(time, chip[:, n], color=colour, lw=0.8)
        below.plot(time, chip[:, n] - floating[:, n], color=colour, lw=0.6)
    above.set_ylabel(SIGNAL_NAMES[signal])
    above.tick_params(labelbottom=False)
    _leave_out_start(above, floating)
    below.set_ylabel("chip −\nfloat64", fontsize=7.5)
    for axes in (above, below):
        axes.yaxis.set_label_coords(-0.19, 0.5)
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
    largest = float(np.abs(chip - floating).max()) or 1.0
    below.set_ylim(-1.2 * largest, 1.2 * largest)
    below.locator_params(axis="y", nbins=3)
    below.tick_params(axis="y", labelsize=7.5)
    ratio = sqnr(floating, chip)
    _note(below, f"SQNR {ratio:.0f} dB" if np.isfinite(ratio) else "equal", 0.97)


def _leave_out_start(axes: Axes, values: NDArray[np.float64]) -> None:
    """Scale to what follows the start, where it dwarfs all else: states begin at 0, and
    the error of that jump is amplified by every slow layer that it comes down through."""
    peak = float(np.abs(values).max())
    rest = float(np.abs(values[len(values) // 8 :]).max())
    if 0 < rest * 3 < peak:
        axes.set_ylim(-1.15 * rest, 1.15 * rest)
        _note(axes, f"cut: up to {short(float(f'{peak:.1g}'))} at the start, from rest", 0.98)


def short(value: float) -> str:
    """A number for an axis, without the offset in a corner: 0.5, 3e-4, 2e5."""
    if value == 0 or 0.00999 < abs(value) < 99999:
        return f"{value:.6g}".replace("-", "−")
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")


def _note(axes: Axes, text: str, at: float) -> None:
    box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.0}
    axes.text(
        0.995, at, text, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, bbox=box
    )


def relearning(
    batch: int,
    floating: Sequence[float],
    chip: Sequence[float],
    before: float,
    title: str,
) -> Figure:
    """Accuracy (0..1) on each batch while it is learned, chip next to float64.

    before: accuracy of the network before it forgot, a line to reach.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _small()
        seen = batch * np.arange(1, len(chip) + 1)
        axes.axhline(
            100 * before, color=GREY, lw=1.0, ls=(0, (4, 3)), label="before forgetting (test)"
        )
        axes.plot(seen, 100 * np.array(floating), color=FLOAT, lw=4.5, alpha=0.4, label="float64")
        axes.plot(seen, 100 * np.array(chip), "o-", color=CHIP, lw=1.2, ms=4, label="chip")
        axes.axhline(10, color=GREY, lw=0.8, ls=":", label="guessing")
        axes.set_xlabel(f"streams learned from (a dot is a batch of {batch})")
        axes.set_ylabel("accuracy on the batch being learned (%)")
        axes.set_ylim(0, 100)
        axes.set_xlim(0, None)
        axes.set_title(title, loc="left")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.12))
    return figure


def epochs(
    metrics: Sequence[Mapping[str, Any]], published: tuple[float, float] | None, title: str
) -> Figure:
    """Accuracy over the epochs of a training, from the lines of metrics.jsonl.

    published: mean and standard deviation (0..1) in float of others, as a band.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _small()
        if published is not None:
            mean, spread = 100 * published[0], 100 * published[1]
            label = f"published, float: {mean:.1f} ± {spread:.1f} %"
            axes.axhspan(
                mean - spread, mean + spread, color="#cccccc", alpha=0.6, label=label, lw=0
            )
        lines = (
            ("accuracy_learning", "while learning (training streams)", FLOAT, "-", ""),
            ("validation", "validation, raw", CHIP, "-", "o"),
            ("validation_calibrated", "validation, offset-calibrated", THIRD, "--", "s"),
        )
        for key, label, colour, style, marker in lines:
            points = [(m["epoch"], 100 * m[key]) for m in metrics if key in m]
            if points:
                at, values = zip(*points, strict=True)
                axes.plot(
                    at, values, ls=style, marker=marker, color=colour, ms=3.5, lw=1.3, label=label
                )
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(0, 100)
        axes.set_xlim(0, None)
        axes.set_title(title, loc="left")
        axes.legend(loc="best")
    return figure
