"""A picture of one chip: what is off in each of its neurons, and the worst of them.

A row for each imperfection: to the left every neuron in the order of the layers, to the
right how often which deviation occurs, beside what the profile says.
"""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hwgle.chip import Chip
from hwgle.network import Network
from hwgle.report.individual import (
    Quantity,
    Worst,
    dead_neurons,
    quantities,
    synapse_deviations,
    worst,
)
from hwgle.report.plots import CHIP, FLOAT, GREY, STYLE, short

WORST = 5
LEFT, STRIP, GAP, SIDE, RIGHT = 0.95, 6.2, 0.18, 1.55, 0.3
TOP, PANEL, SLIT, BOTTOM = 1.12, 1.25, 0.22, 0.4


def individual(chip: Chip, network: Network) -> Figure:
    """What is individual in a chip with this network on it."""
    found = quantities(chip, network)
    each = synapse_deviations(chip, network)
    with mpl.rc_context(STYLE):
        width = LEFT + STRIP + GAP + SIDE + RIGHT
        height = TOP + max(1, len(found)) * (PANEL + SLIT) + BOTTOM
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        title = f"Chip {chip.name}:{chip.seed} carrying {network.name}"
        figure.text(LEFT / width, 1 - 0.35 / height, title, fontsize=12.5, weight="bold")
        what = "deviation from design of every neuron, layer by layer; right: distribution"
        figure.text(LEFT / width, 1 - 0.6 / height, what, color=GREY)
        if not found:
            text = "All its neurons and synapses are alike."
            figure.text(0.5, 0.4, text, ha="center", fontsize=11)
            return figure
        marked = worst(chip, network, WORST)
        for row, q in enumerate(found):
            top = TOP + row * (PANEL + SLIT)
            box = [LEFT / width, 1 - (top + PANEL) / height, STRIP / width, PANEL / height]
            strip = figure.add_axes((box[0], box[1], box[2], box[3]))
            left = (LEFT + STRIP + GAP) / width
            side = figure.add_axes((left, box[1], SIDE / width, box[3]), sharey=strip)
            last = row == len(found) - 1
            _strip(strip, q, network, dead_neurons(chip, network), marked)
            _names(strip, network, row == 0, last)
            values = np.concatenate(each) if q.low and each else q.all()
            _side(side, q, values, last)
        _legend(figure, found, width, height, any(d.any() for d in dead_neurons(chip, network)))
    return figure


def _strip(
    axes: Axes,
    q: Quantity,
    network: Network,
    dead: list[NDArray[np.bool_]],
    marked: list[Worst],
) -> None:
    """All neurons side by side; the worst ringed and named, dead ones crossed."""
    values, gone = q.all(), np.concatenate(dead)
    at = np.arange(values.size)
    share = q.name == "stuck synapses"
    if q.spread is not None:
        axes.axhspan(-q.spread, q.spread, color="#cccccc", alpha=0.5, lw=0)
    axes.axhline(0, color=GREY, lw=0.8)
    if q.low:
        low, high = np.concatenate(q.low), np.concatenate(q.high)
        axes.vlines(at, low, high, color=FLOAT, lw=0.7, alpha=0.45)
    elif share:
        axes.vlines(at, 0, values, color=FLOAT, lw=0.9, alpha=0.8)
    axes.plot(at[~gone], values[~gone], ".", color=FLOAT, ms=3.2 if not share else 2.5)
    axes.plot(at[gone], values[gone], "x", color=CHIP, ms=5, mew=1.4)
    names = [layer.name for layer in network.layers]
    first = np.cumsum([0, *network.sizes])
    for w in marked:
        k = first[names.index(w.layer)] + w.neuron
        axes.plot(k, values[k], "o", mfc="none", mec=CHIP, ms=7, mew=1.1)
        if w.kind == q.name:
            right = k < 0.85 * values.size
            axes.annotate(
                f"{w.layer}[{w.neuron}]",
                (k, values[k]),
                xytext=(6 if right else -6, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=7.5,
                color=CHIP,
            )
    axes.set_xlim(-1, values.size)
    axes.set_ylabel(f"{q.name}\n({q.unit})", fontsize=8.5)
    axes.yaxis.set_label_coords(-0.085, 0.5)
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    axes.locator_params(axis="y", nbins=5)
    axes.grid(visible=False, axis="x")
    if share:
        axes.set_ylim(0, None)


def _names(axes: Axes, network: Network, top: bool, last: bool) -> None:
    """Borders of the layers; their names above the first panel."""
    first = np.cumsum([0, *network.sizes])
    for border in first[1:-1]:
        axes.axvline(border - 0.5, color="#b5b5b5", lw=0.7)
    axes.tick_params(labelbottom=last)
    if last:
        axes.set_xlabel("neuron, counted through all layers")
    if not top:
        return
    room = first[-1] / 40  # neurons that a name needs
    end = -math.inf
    for layer, a, b in zip(network.layers, first, first[1:], strict=False):
        middle = (a + b - 1) / 2
        if middle - end >= room:
            axes.annotate(
                layer.name,
                (middle, 1.0),
                xytext=(0, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=GREY,
            )
            end = middle


def _side(axes: Axes, q: Quantity, values: NDArray[np.float64], last: bool) -> None:
    """How often which deviation occurs, and the curve that the profile says."""
    low, high = float(values.min()), float(values.max())
    bins = np.linspace(low, high, 41) if high > low else np.array([low - 1, low + 1])
    if q.name == "stuck synapses":
        bins = np.linspace(0, high, 21)
    axes.hist(values, bins=list(bins), density=True, orientation="horizontal", color=FLOAT)
    if q.spread:
        y = np.linspace(-4 * q.spread, 4 * q.spread, 201)
        curve = np.exp(-0.5 * np.square(y / q.spread)) / (q.spread * math.sqrt(2 * math.pi))
        axes.plot(curve, y, color=CHIP, lw=1.2)
    axes.tick_params(labelleft=False, labelbottom=False)
    axes.set_xlim(0, None)
    axes.grid(visible=False, axis="x")
    axes.tick_params(axis="x", length=0)
    text = f"{values.mean():.2g} ± {values.std():.2g} {q.unit if q.unit == '%' else ''}"
    what = "each synapse\n" if q.low else ""
    axes.text(0.98, 0.96, what + text, transform=axes.transAxes, ha="right", va="top", fontsize=7.5)
    if last:
        axes.set_xlabel("how often")


def _legend(figure: Figure, found: list[Quantity], width: float, height: float, dead: bool) -> None:
    """What marks mean, above the panels."""
    marks: list[Line2D | Patch] = [
        Line2D([], [], color=FLOAT, marker=".", ls="", label="a neuron"),
        Line2D([], [], color=CHIP, marker="o", mfc="none", ls="", label=f"the {WORST} worst"),
    ]
    if dead:
        marks.append(Line2D([], [], color=CHIP, marker="x", ls="", label="dead"))
    if any(q.low for q in found):
        marks.append(Line2D([], [], color=FLOAT, lw=1, alpha=0.5, label="90 % of its synapses"))
    if any(q.spread for q in found):
        marks.append(Patch(color="#cccccc", alpha=0.5, label="± sd of the profile"))
        marks.append(Line2D([], [], color=CHIP, lw=1.2, label="as the profile says"))
    figure.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=((LEFT - 0.1) / width, 1 - 0.62 / height),
        ncols=len(marks),
        fontsize=8,
        handlelength=1.3,
        columnspacing=1.2,
        handletextpad=0.5,
    )
