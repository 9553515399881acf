"""The pictures of `lagline` and `lagnet`, from the files that their runs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hwgle.report.plots import GREY, STYLE, save

NAMES = {
    "gle": "GLE",
    "ideal": "GLE in fixed point, chip ideal",
    "instantaneous": "instantaneous backpropagation",
    "bptt4": "truncated BPTT, window 4",
    "bptt2": "truncated BPTT, window 2",
    "bptt1": "truncated BPTT, window 1",
    "bptt3": "BPTT, window 3",
    "rtrl": "RTRL (exact gradient)",
}
COLOURS = {
    "gle": "#0072B2",
    "ideal": "#111111",
    "instantaneous": "#D55E00",
    "bptt4": "#009E73",
    "bptt2": "#56B4E9",
    "bptt1": "#CC79A7",
    "bptt3": "#009E73",
    "rtrl": "#5a5a5a",
}
SMALLEST = 1e-5  # errors below this are drawn at it


def _runs(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """What is there of each method: summary and curves."""
    found = {}
    for name in NAMES:
        if (folder / f"{name}.json").is_file():
            summary = json.loads((folder / f"{name}.json").read_text())
            with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
                found[name] = summary, dict(archive)
    return found


def _sheet(width: float, height: float, rows: int, columns: int, bottom: float) -> Any:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.9, bottom=bottom, hspace=0.24, wspace=0.2)
    return figure, axes


def _spread(axes: Axes, time: NDArray[Any], values: NDArray[Any], name: str) -> None:
    """Median over the seeds as a line, each seed as a thin one."""
    axes.plot(time, values, color=COLOURS[name], lw=0.5, alpha=0.35)
    axes.plot(time, np.median(values, axis=1), color=COLOURS[name], lw=1.8, label=NAMES[name])


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8.5)


def lagline_figure(folder: Path) -> list[Path]:
    """Relative errors of the four parameters over time, `lagline.svg` and `.png`."""
    runs = _runs(folder)
    if not runs:
        raise SystemExit(f"{folder}: no results yet")
    titles = ("weight of the first", "weight of the second", "τm of the first", "τm of the second")
    with mpl.rc_context(STYLE):
        figure, panels = _sheet(9.0, 6.2, 2, 2, 0.18)
        for k, (axes, title) in enumerate(zip(panels.flat, titles, strict=True)):
            for name, (_, curves) in runs.items():
                error = np.maximum(np.abs(curves["error"][:, :, k]), SMALLEST)
                _spread(axes, curves["time"], error, name)
            axes.axhline(0.02, color=GREY, lw=0.9, ls=(0, (4, 3)))
            axes.text(0.995, 0.02, "2 %", transform=axes.get_yaxis_transform(), ha="right",
                      va="bottom", fontsize=7.5, color=GREY)  # fmt: skip
            axes.set_yscale("log")
            axes.set_ylim(SMALLEST, 30)
            axes.set_title(title + " neuron", loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("time (τm of the teacher: 1 and 2)")
            axes.set_xlim(0, None)
        for axes in panels[:, 0]:
            axes.set_ylabel("relative error |student/teacher − 1|")
        seeds = len(next(iter(runs.values()))[0]["seeds"])
        figure.suptitle(
            f"lagline: a chain of two neurons learns its teacher, {seeds} seeds (thick: median)",
            x=0.085, ha="left", fontsize=11.5, weight="bold",
        )  # fmt: skip
        _legend(figure, panels[0, 0])
    return save(figure, folder / "lagline")


def lagnet_figure(folder: Path) -> list[Path]:
    """Loss, first-layer weights' cosines over time, `lagnet.svg` and `.png`."""
    runs = _runs(folder)
    if not runs:
        raise SystemExit(f"{folder}: no results yet")
    with mpl.rc_context(STYLE):
        figure, panels = _sheet(9.0, 6.4, 2, 1, 0.17)
        above, below = panels[:, 0]
        for name, (_, curves) in runs.items():
            _spread(above, curves["time"], np.maximum(curves["loss"], 1e-12), name)
        above.set_yscale("log")
        above.set_ylabel("loss (mean of 3 units of time)")
        _, curves = runs["gle"]
        for name, label, colour in (
            ("h1.weight", "first layer (it learns)", "#0072B2"),
            ("h2.weight", "second layer", "#009E73"),
            ("out.weight", "output layer", "#D55E00"),
        ):
            values = curves[f"cosine/{name}"]
            time = curves["cosine.time"]
            below.plot(time, values, color=colour, lw=0.5, alpha=0.35)
            below.plot(time, np.median(values, axis=1), color=colour, lw=1.6, label=label)
        below.axhline(0.9, color=GREY, lw=0.9, ls=(0, (4, 3)))
        below.set_ylim(-1.05, 1.05)
        below.set_ylabel("cosine, GLE and the adjoint")
        below.set_xlabel("time (τm = 1)")
        below.set_xlim(0, None)
        below.legend(loc="lower right", ncols=3, fontsize=8)
        for axes in (above, below):
            axes.axvline(80, color=GREY, lw=0.8, ls=":")
        seeds = len(next(iter(runs.values()))[0]["seeds"])
        figure.suptitle(
            f"lagnet: a student learns the first layer, {seeds} seeds (thick: median)",
            x=0.085, ha="left", fontsize=11.5, weight="bold",
        )  # fmt: skip
        _legend(figure, above)
    return save(figure, folder / "lagnet")
