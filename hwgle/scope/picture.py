"""What a scope has seen, as a picture: one row a layer, one column a signal."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hwgle.cache import replacing
from hwgle.report.plots import COLOURS, DPI, GREY, SIGNAL_NAMES, STYLE, short
from hwgle.scope.probe import View
from hwgle.scope.screen import link_text

NEURONS = 3
FORMATS = (".svg", ".png")


def draw(view: View) -> Figure:
    """The last steps of some neurons of every layer; what was clipped beside the layer's name."""
    with mpl.rc_context(STYLE):
        layers = view.image.network.layers
        signals = list(dict.fromkeys(s for _, s in view.traces))
        width, row, top, bottom = 1.0 + 3.6 * len(signals), 1.45, 1.9, 0.2
        height = top + row * len(layers) + bottom
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        chip = view.image.chip
        title = f"{view.image.network.name} on {chip.name}:{chip.seed}, {view.device}"
        figure.text(0.7 / width, 1 - 0.3 / height, title, fontsize=12, weight="bold")
        x = np.array(view.input)
        told = f"{view.steps:,} steps"
        told += f", the last {len(x):,} below" if len(x) < view.steps else ""
        told += f"; {link_text(view)}" if view.link else ""
        figure.text(0.7 / width, 1 - 0.52 / height, told, color=GREY)
        for n in range(NEURONS):
            place = (1 - (0.2 + 0.75 * (NEURONS - 1 - n)) / width, 1 - 0.7 / height)
            figure.text(*place, f"neuron {n}", ha="right", fontsize=8, color=COLOURS[n])
        steps = np.arange(view.steps - len(x) + 1, view.steps + 1)
        box = (0.7 / width, 1 - 1.35 / height, 1 - 0.9 / width, 0.6 / height)
        axes = figure.add_axes(box)
        axes.plot(steps, x[:, :NEURONS], color=GREY, lw=0.9)
        axes.set_ylabel("input")
        axes.set_xlim(steps[0], steps[-1])
        for k, layer in enumerate(layers):
            for j, signal in enumerate(signals):
                pitch = (width - 0.3) / len(signals)
                left, each = 0.7 + j * pitch, pitch - 0.6
                below = height - top - row * k - 1.0
                axes = figure.add_axes((left / width, below / height, each / width, 0.95 / height))
                values = view.trace(k, signal)
                for n in range(min(NEURONS, values.shape[1])):
                    axes.plot(steps[-len(values) :], values[:, n], color=COLOURS[n], lw=0.9)
                axes.set_xlim(steps[0], steps[-1])
                axes.locator_params(axis="y", nbins=4)
                axes.locator_params(axis="x", nbins=5)
                axes.yaxis.set_major_formatter(lambda value, _: short(value))
                axes.tick_params(labelsize=7.5, labelbottom=k == len(layers) - 1)
                said = f"{layer.name}: {SIGNAL_NAMES[signal]}"
                axes.set_title(said, loc="left", fontsize=8.5, pad=3)
                if k == len(layers) - 1:
                    axes.set_xlabel("step")
            clipped = [f"{n} {c:,}" for n, c in view.counters[k].items() if c]
            if clipped:
                at = 1 - (top + row * k - 0.16) / height
                text = ", ".join(clipped)
                figure.text(1 - 0.2 / width, at, text, ha="right", fontsize=7, color=GREY)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As SVG or PNG by its ending, whole or not at all; the same bytes for the same run."""
    with mpl.rc_context(STYLE):
        held = io.BytesIO()
        if path.suffix == ".svg":
            figure.savefig(held, format="svg", metadata={"Date": None})
        else:
            figure.savefig(held, format="png", dpi=DPI, metadata={"Software": None})
    with replacing(path) as temporary:
        temporary.write_bytes(held.getvalue())
