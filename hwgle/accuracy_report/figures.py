"""Pictures of a report as inline SVG: colours are CSS variables of the page, so that they
follow light and dark, and identical numbers give identical bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Colours that stand for a variable of the style sheet.
INK, MUTED, GRID = "#010203", "#020304", "#030405"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {
    colour: f"c{k + 1}" for k, colour in enumerate(SERIES)
}
STAGE = {"fixed": 0, "converters": 1, "mismatch": 2, "noise": 3}
WIDTH = 4.7  # inches: so narrow that text is legible on a phone, where all of it is shown
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
}
Report = Mapping[str, Any]


def _new(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def inline(figure: Figure, name: str, label: str) -> str:
    """A figure as an <svg> element for a page. name: makes its ids its own."""
    to = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(to, format="svg", transparent=True, metadata={"Date": None})
    text = to.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', text)
    assert size is not None
    text = text.replace(size.group(0), f'class="plot" role="img" aria-label="{label}"', 1)
    return text.strip()


def all_of(chip: Report, number: int) -> dict[str, str]:
    """Every picture of one chip's part, by name."""
    with mpl.rc_context(STYLE):
        drawn = {
            "layers": (by_layer(chip), "SQNR of rates and errors by layer, stages accumulated"),
            "time": (over_time(chip), "SQNR of the output over a sample, stages accumulated"),
            "imperfections": (alone(chip), "SQNR of the output with one imperfection each"),
            "bits": (bits_used(chip), "share of values by the bits that they use"),
            "widths": (widths(chip), "what a bit more gains and a bit fewer costs"),
            "cosines": (cosines(chip), "cosine of updates by layer"),
            "loss": (loss(chip), "loss while learning, chip and float shadow"),
        }
    return {
        name: inline(figure, f"c{number}-{name}", label)
        for name, (figure, label) in drawn.items()
        if figure is not None
    }


def _stages(chip: Report) -> list[tuple[str, str]]:
    """Names and titles of those that the chip has, accumulated."""
    have = [s for s in chip["budget"]["stages"] if s["present"]]
    return [(s["name"], s["title"] if k == 0 else f"+ {s['title']}") for k, s in enumerate(have)]


def by_layer(chip: Report) -> Figure:
    """Rates and errors, a line for each accumulated stage."""
    figure = Figure(figsize=(WIDTH, 3.6))
    FigureCanvasSVG(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    layers = chip["budget"]["layers"]
    for axes, signal, title in ((upper, "r", "rates"), (lower, "e", "errors")):
        for name, label in _stages(chip):
            y = [own[signal]["accumulated"][name]["sqnr"] for own in layers.values()]
            axes.plot(range(len(y)), y, "o-", ms=3.5, color=SERIES[STAGE[name]], label=label)
        axes.set_ylabel("SQNR / dB")
        axes.set_title(title)
    _layer_ticks(lower, list(layers))
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _layer_ticks(axes: Axes, names: Sequence[str]) -> None:
    every = max(1, -(-len(names) // 12))
    axes.set_xticks(range(0, len(names), every), list(names)[::every])


def over_time(chip: Report) -> Figure:
    """The output layer's rates."""
    figure, axes = _new(2.6)
    time = chip["budget"]["time"]
    last = list(time["layers"])[-1]
    for name, label in _stages(chip):
        y = time["layers"][last]["r"][name]
        axes.plot(time["at"], y, color=SERIES[STAGE[name]], label=label, lw=1.5)
    axes.set_xlabel("time since the beginning of the sample (unit of dt)")
    axes.set_ylabel("SQNR / dB")
    axes.set_title("output over a sample")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def alone(chip: Report) -> Figure | None:
    """Imperfections by what they cost, the worst on top."""
    own = sorted(chip["budget"]["imperfections"], key=lambda i: -i["sqnr"])
    own = [i for i in own if i["sqnr"] < 199]
    if not own:
        return None
    figure, axes = _new(0.9 + 0.24 * len(own))
    left = min(0.0, *(i["sqnr"] for i in own))
    for k, i in enumerate(own):
        axes.barh(k, i["sqnr"] - left, left=left, height=0.62, color=SERIES[STAGE[i["stage"]]])
    axes.set_yticks(range(len(own)), [_cut(i["text"]) for i in own], fontsize=8.5)
    axes.set_xlabel("SQNR of the output / dB, this alone")
    axes.grid(axis="y", visible=False)
    return figure


def _cut(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def bits_used(chip: Report) -> Figure | None:
    """A row for each format, a column for each number of bits; darker: more values."""
    kinds = ("weight", "rate", "error")
    rows = [f for kind in kinds for f in chip["formats"]["each"] if f["kind"] == kind]
    rows = [f for f in chip["formats"]["each"] if f["kind"] == "input"] + rows
    if len(rows) > 60:
        return None
    widest = max(f["bits"] for f in rows)
    figure, axes = _new(0.95 + 0.19 * len(rows))
    for k, f in enumerate(rows):
        y = len(rows) - 1 - k
        shares = f["bits_used"]
        for bits, share in enumerate(shares):
            over = bits == len(shares) - 1
            x = widest if over else bits
            colour = SERIES[2] if over or bits == 0 else SERIES[0]
            if share > 0:
                depth = 0.08 + 0.92 * min(1.0, float(np.sqrt(share)))
                box = Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, color=colour, alpha=depth, lw=0)
                axes.add_patch(box)
        axes.plot([f["bits"] - 0.5] * 2, [y - 0.45, y + 0.45], color=INK, lw=1.2)
    axes.set_xlim(-0.6, widest + 0.6)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    names = [f["kind"] if f["layer"] is None else f"{f['layer']} {f['kind']}" for f in rows]
    axes.set_yticks(range(len(rows)), names[::-1], fontsize=8.0)
    step = 2 if widest > 9 else 1
    ticks = [*range(0, widest - 1, step), widest]
    axes.set_xticks(ticks, [*map(str, ticks[:-1]), "over"])
    axes.set_xlabel("bits that values use, sign apart (0: none)")
    axes.grid(visible=False)
    return figure


def widths(chip: Report) -> Figure | None:
    """One bit more to the right, one fewer to the left; filled: converters alone."""
    each = chip["widths"]["each"]
    names = [n for n in each if n != "error"]
    if not names:
        return None
    figure, axes = _new(1.25 + 0.36 * len(names))
    for k, name in enumerate(names[::-1]):
        for side, colour, y in (("converters", SERIES[1], 0.17), ("chip", SERIES[2], -0.17)):
            for step in ("more", "fewer"):
                gain = each[name][side][step]
                if gain is not None:
                    alpha = 1.0 if step == "more" else 0.55
                    axes.barh(k + y, gain["output"], height=0.3, color=colour, alpha=alpha)
    axes.axvline(0, color=INK, lw=0.8)
    labels = [f"{each[n]['title']}, {each[n]['bits']}" for n in names[::-1]]
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("dB at the output: a bit more (full), a bit fewer (pale)")
    axes.grid(axis="y", visible=False)
    handles = [
        Rectangle((0, 0), 1, 1, color=SERIES[1], label="converters alone"),
        Rectangle((0, 0), 1, 1, color=SERIES[2], label="the whole chip"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def cosines(chip: Report) -> Figure:
    """Of updates of each layer's weights."""
    figure, axes = _new(2.5)
    layers = chip["learning"]["directions"]["layers"]
    for k, (key, label) in enumerate(
        (("cosine_gle", "chip, float GLE"), ("cosine_adjoint", "chip, exact"),
         ("gle_cosine_adjoint", "float GLE, exact"))
    ):  # fmt: skip
        y = [own[key] for own in layers.values()]
        if any(v is not None for v in y):
            values = [np.nan if v is None else v for v in y]
            axes.plot(range(len(y)), values, "o-", ms=3.5, color=SERIES[k], label=label)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.set_ylim(top=1.05)
    _layer_ticks(axes, list(layers))
    axes.set_ylabel("cosine")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def loss(chip: Report) -> Figure:
    """While learning, chip and float shadow."""
    figure, axes = _new(2.2)
    found = chip["learning"]["plasticity"]["loss"]
    for name, colour, label in (("float", SERIES[0], "float64"), ("chip", SERIES[2], "chip")):
        y = found[name]
        axes.plot(range(1, len(y) + 1), y, "o-", ms=3.5, color=colour, label=label)
    axes.set_xticks(range(1, len(found["chip"]) + 1))
    axes.set_xlabel("samples that each stream has seen")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
