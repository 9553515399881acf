"""Yield curves: which share of chips reaches an accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hwgle.montecarlo import SCORES, Line, accuracies, stages
from hwgle.report.plots import CHIP, FLOAT, GREY, STYLE, THIRD

COLOURS = {"before": CHIP, "calibrated": FLOAT, "learned": THIRD}


def curve(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the share of chips at or above an accuracy, which falls from 1 to 0.

    values: of every chip, 0..1. Returns accuracies and shares, to be drawn with straight
    lines: a chip counts up to its own accuracy, and not above it.
    """
    at = np.sort(values)
    count = len(at)
    x = np.repeat(at, 2)
    y = np.repeat(np.arange(count, -1, -1) / count, 2)[1:-1]
    return np.concatenate([[0.0], x, [1.0]]), np.concatenate([[1.0], y, [0.0]])


def yield_curves(
    lines: Sequence[Line],
    names: Mapping[str, str],
    reference: float | None,
    title: str,
) -> Figure:
    """Share of chips above an accuracy, one colour a stage; names: of the stages.

    Dashed: raw; solid: with output offsets fitted on training data; the legend says means.
    reference: accuracy of the same weights on the ideal chip, offset-calibrated.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 5.0))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.31, top=0.93)
        axes = figure.add_subplot()
        least = 1.0
        for stage in stages(lines):
            for kind, style in zip(SCORES, ((0, (3, 2)), "-"), strict=True):
                values = accuracies(lines, stage, kind)
                x, y = curve(values)
                mean = f"mean {100 * values.mean():.1f} %"
                label = f"{names[stage]}, {kind.replace('_', '-')}: {mean}"
                width = 1.2 if kind == "raw" else 2.0
                axes.plot(100 * x, 100 * y, color=COLOURS[stage], ls=style, lw=width, label=label)
                least = min(least, float(values.min()))
        if reference is not None:
            label = f"same weights on chip ideal: {100 * reference:.1f} %"
            axes.axvline(100 * reference, color=GREY, lw=1.0, ls=":", label=label)
        axes.set_xlabel("accuracy on the test split (%)")
        axes.set_ylabel(f"chips at or above it (% of {len(lines)})")
        axes.set_xlim(max(0.0, 10 * np.floor(10 * least) - 5), 100)
        axes.set_ylim(0, 104)
        axes.set_title(title, loc="left")
        # Below the panel: curves of all kinds run through any of its corners.
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.08, 0.21), ncols=2, fontsize=8
        )
    return figure
