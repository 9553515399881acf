"""What was measured, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.speed import Result

NAMES = {
    "sgd": "train (SGD on the chip)",
    "adam": "train (Adam on the host)",
    "error": "errors, no learning",
    "infer": "inference",
}
RIVAL_STYLE = {"numpy": ("#555555", "s"), "torch": ("#999999", "P")}
NOTES = """\
ms/step    median CPU time of one step of the whole batch, one thread
ratio      time of NumPy / time of this, median (min..max) over the rounds
GMAC/s     weights x batch x 3 for a training step, x 2 for errors, x 1 for inference.
           The emulator looks at its error neurons in inference too (its digest covers
           them), without the products of errors that are all 0; NumPy does not.
of peak    GMAC/s over the int16 peak of this core in the same round, in registers, with the
           instructions of the kernels: vpdpwssd for vnni, else AVX2's vpmaddwd and vpaddd
of memory  the time that one core needs to read and write what a step of one stream must
           touch (weights once for each product, learner's numbers), over the time it took;
           the buffer is as large as these numbers, so in the same cache
numpy      the same equations in float32 (bench/numpy_rival.py); torch: in PyTorch, if it is
           installed (bench/torch_rival.py)"""


def table(
    results: Sequence[Result],
    machine: Mapping[str, str],
    peaks: Mapping[str, float],
    without: str = "",
) -> str:
    """All results as text. peaks: int16 GMAC/s by instructions; without: why there is none."""
    head = ("network", "batch", "step", "who", "ms/step", "ratio", "GMAC/s", "of peak", "of memory")
    rows = [head]
    before: tuple[str, ...] = ()
    for r in results:
        key = (r.network, str(r.batch), NAMES[r.work])
        ratio = f"{r.ratio:.2f} ({r.ratio_range[0]:.2f}..{r.ratio_range[1]:.2f})"
        rows.append(
            (
                *(("", "", "") if key == before else key),
                r.who,
                f"{r.ms:.4g}",
                "" if r.who == "numpy" else ratio,
                f"{r.gmacs:.1f}",
                "" if r.share is None else f"{100 * r.share:.0f} %",
                "" if r.roof is None else f"{100 * r.roof:.0f} %",
            )
        )
        before = key
    wide = [max(len(row[k]) for row in rows) for k in range(len(head))]
    left = (True, False, True, True, False, True, False, False, False)
    lines = [
        "  ".join(
            c.ljust(w) if is_left else c.rjust(w)
            for c, w, is_left in zip(row, wide, left, strict=True)
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in wide))
    told = [f"{key:<9}  {value}" for key, value in machine.items()]
    tops = ", ".join(f"{name} {gmacs:.0f} GMAC/s" for name, gmacs in peaks.items())
    top = tops or f"not measured ({without})"
    return "\n".join([*told, f"int16 peak {top}", "", *lines, "", NOTES])


def plot(results: Sequence[Result], machine: Mapping[str, str], path: Path) -> None:
    """One panel per batch: milliseconds per step (log), a row per network and kind of step."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    colours = ("#0072b2", "#009e73", "#d55e00", "#cc79a7")
    markers = ("o", "D", "^", "v")
    whos = [w for w in dict.fromkeys(r.who for r in results) if w not in RIVAL_STYLE]
    style = {w: (colours[k % 4], markers[k % 4]) for k, w in enumerate(whos)}
    style |= {w: look for w, look in RIVAL_STYLE.items() if any(r.who == w for r in results)}
    batches = list(dict.fromkeys(r.batch for r in results))
    rows = {b: list(dict.fromkeys((r.network, r.work) for r in results if r.batch == b))
            for b in batches}  # fmt: skip
    height = 1.4 + 0.3 * max(len(keys) for keys in rows.values())
    figure = Figure(figsize=(5.6 * len(batches), height), layout="constrained")
    panels = figure.subplots(1, len(batches), squeeze=False)[0]
    for batch, axes in zip(batches, panels, strict=True):
        for r in (r for r in results if r.batch == batch):
            y = rows[batch].index((r.network, r.work))
            colour, marker = style[r.who]
            axes.plot(r.ms_range, (y, y), color=colour, linewidth=1)
            axes.plot(r.ms, y, marker, color=colour, markersize=5)
        for y, key in enumerate(rows[batch]):
            of_row = [r for r in results if (r.batch, r.network, r.work) == (batch, *key)]
            best = max((r for r in of_row if r.who not in RIVAL_STYLE), key=lambda r: r.ratio)
            slowest = max(r.ms_range[1] for r in of_row)
            axes.annotate(
                f"{best.ratio:.2g}×", (slowest, y), (6, 0), textcoords="offset points",
                va="center", fontsize=8, color=style[best.who][0],
            )  # fmt: skip
            if y and rows[batch][y - 1][0] != key[0]:
                axes.axhline(y - 0.5, color="#cccccc", linewidth=0.8)
        axes.set_yticks(range(len(rows[batch])))
        axes.set_yticklabels([f"{n}: {NAMES[w]}" for n, w in rows[batch]], fontsize=8)
        axes.set_ylim(len(rows[batch]) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.margins(x=0.17)
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", color="#e5e5e5")
        axes.set_axisbelow(True)
        axes.set_title(f"batch {batch}", fontsize=10)
        axes.set_xlabel("CPU time per step (ms), one thread")
    handles = [
        Line2D([], [], color=c, marker=m, linewidth=0, label=w) for w, (c, m) in style.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.supxlabel(
        f"{machine.get('cpu', '')}. Lines: fastest to slowest round. "
        "Numbers: NumPy's time over that of the fastest kernels.",
        fontsize=8,
    )
    with matplotlib.rc_context({"svg.hashsalt": "hwgle"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
