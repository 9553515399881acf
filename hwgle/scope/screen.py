"""A view as lines of text, for a terminal of any width and height.

Per layer and signal: one neuron over time, its value now, the rms of the layer, and all
neurons side by side as they are now, each by its size next to the largest of the layer.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgle.scope.probe import View

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#%"
LABEL = 10
NUMBERS = 22
LEAST_WIDTH = 24
NAMES = {"u": "membrane", "r": "rate", "e": "error"}


@dataclass(frozen=True)
class Look:
    """How to draw. blocks: characters from nothing to full; neuron: whose trace is drawn."""

    width: int = 80
    height: int = 24
    blocks: str = BLOCKS
    neuron: int = 0
    held: bool = False
    keys: bool = True


def spark(values: NDArray[np.float64], width: int, blocks: str) -> str:
    """The last `width` values, from their least to their largest."""
    shown = values[-width:]
    if not len(shown):
        return " " * width
    low, high = float(shown.min()), float(shown.max())
    if not high > low:
        level = np.full(len(shown), 1 if low == 0 else (len(blocks) - 1) // 2)
    else:
        top = len(blocks) - 1
        level = 1 + np.floor((shown - low) / (high - low) * (top - 1e-9)).astype(int)
        level = np.clip(level, 1, top)
    return "".join(blocks[k] for k in level).rjust(width)


def strip(values: NDArray[np.float64], width: int, blocks: str) -> str:
    """Sizes side by side next to the largest; neighbours share a place, by their largest,
    where there are more than places."""
    sizes = np.abs(values)
    if len(sizes) > width:
        edges = np.linspace(0, len(sizes), width + 1).astype(int)[:-1]
        sizes = np.maximum.reduceat(sizes, edges)
    most = float(sizes.max()) if len(sizes) else 0.0
    top = len(blocks) - 1
    level = np.ceil(sizes / most * top).astype(int) if most > 0 else np.zeros(len(sizes), int)
    return "".join(blocks[k] for k in level).ljust(width)


def number(value: float) -> str:
    """A value in eight places, with its sign."""
    text = f"{value:+.3f}"
    if not np.isfinite(value) or len(text) > 8 or (value != 0 and abs(value) < 0.01):
        text = f"{value:+.1e}"
    return text.rjust(8)


def lines(view: View, look: Look) -> list[str]:
    """At most look.height lines, each at most look.width wide."""
    width = max(LEAST_WIDTH, look.width)
    network = view.image.network
    signals = list(dict.fromkeys(s for _, s in view.traces))
    foot = _foot(view, look)
    room = look.height - 3 - len(foot)
    full = len(network.layers) * (len(signals) + 1)
    shown = signals if full <= room else signals[1:2] or signals
    body: list[str] = []
    for k, layer in enumerate(network.layers):
        head = f"{layer.name}  {layer.phi} {layer.size}{_counters(view, k)}"
        if shown is not signals:
            body.append(_row(view, k, shown[0], layer.name[: LABEL - 2], width, look))
            continue
        body.append(head)
        body += [_row(view, k, s, f"  {NAMES[s]}", width, look) for s in shown]
    if len(body) > room:
        left = len(body) - max(0, room - 1)
        body = [*body[: max(0, room - 1)], f"... {left} more lines: a higher terminal shows them"]
    top = [_title(view, look), _input(view, width, look), ""]
    return [line[: look.width].rstrip() for line in (*top, *body, *foot)][: max(1, look.height)]


def _title(view: View, look: Look) -> str:
    chip = view.image.chip
    text = f"{view.image.network.name} on {chip.name}:{chip.seed}, {view.device}"
    held = "  HELD" if look.held else ""
    return f"{text}  step {view.steps:,}  {view.rate:,.0f} steps/s{held}"


def _columns(width: int) -> tuple[int, int]:
    """Widths of the trace and of the strip."""
    left = max(4, width - LABEL - NUMBERS - 3)
    trace = max(4, left * 3 // 5)
    return trace, max(0, left - trace)


def _input(view: View, width: int, look: Look) -> str:
    x = np.array(view.input)
    trace, _ = _columns(width)
    first = x[:, 0] if x.size else np.zeros(0)
    now = number(float(first[-1])) if first.size else ""
    return f"{'input':{LABEL}} {spark(first, trace, look.blocks)} {now}"


def _row(view: View, k: int, signal: str, label: str, width: int, look: Look) -> str:
    values = view.trace(k, signal)
    trace, bars = _columns(width)
    if not values.size:
        return f"{label:{LABEL}}"
    neuron = look.neuron % values.shape[1]
    rms = float(np.sqrt(np.mean(np.square(values[-trace:]))))
    drawn = spark(values[:, neuron], trace, look.blocks)
    numbers = f"{number(float(values[-1, neuron]))} rms {number(rms).strip().lstrip('+'):8}"
    return f"{label:{LABEL}} {drawn} {numbers} {strip(values[-1], bars, look.blocks)}"


def _counters(view: View, k: int) -> str:
    if not view.counters:
        return ""
    said = [f"{name} {count:,}" for name, count in view.counters[k].items() if count]
    return f"   {', '.join(said)}" if said else ""


def _foot(view: View, look: Look) -> list[str]:
    notes = [view.shown] if view.shown else []
    if view.clipped_input:
        notes.append(f"{view.clipped_input} values of the input clipped")
    result = ["", *_wrapped(link_text(view), look.width)]
    if notes:
        result.append("; ".join(notes))
    if look.keys:
        result.append(f"q quit   space hold   n next neuron (now {look.neuron})")
    return result


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(LEAST_WIDTH, width), subsequent_indent="     ")


def link_text(view: View) -> str:
    """The line to the board in one line."""
    link = view.link
    if not link:
        return "no line: the emulator is in this process"
    out, in_ = (f"{rate / 1000:.1f}" for rate in view.link_rates)
    bad = sum(link[name] for name in ("bad_cobs", "bad_crc", "too_long", "too_short", "bad_type"))
    return (
        f"line {out} kB/s out, {in_} kB/s in, round trip {link['srtt']} ms, "
        f"sent again {link['retransmitted']}, damaged {bad}, time-outs {link['timeouts']}"
    )


def plain(view: View) -> str:
    """A frame in one line, for what is no terminal."""
    parts = [f"step {view.steps}"]
    for k, layer in enumerate(view.image.network.layers):
        words = []
        for signal in dict.fromkeys(s for _, s in view.traces):
            values = view.trace(k, signal)
            rms = float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
            words.append(f"{signal} {rms:.4g}")
        clipped = sum(
            n for name, n in view.counters[k].items() if name.endswith("clipped")
        ) if view.counters else 0  # fmt: skip
        parts.append(f"{layer.name}: rms {' '.join(words)}, clipped {clipped}")
    if view.link:
        parts.append(link_text(view))
    return " | ".join(parts)
