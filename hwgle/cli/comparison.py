"""A comparison of chip and float64 as text."""

from __future__ import annotations

from collections.abc import Sequence

from hwgle.cli.table import pairs, percent, small_share, table
from hwgle.report.comparison import Comparison
from hwgle.report.tracking import Tracking


def comparison_text(c: Comparison, more: Sequence[tuple[str, str]] = ()) -> str:
    """Accuracies as a table, then what the arithmetic cost, then what else is to tell."""
    rows = [["accuracy", "raw", "offset-calibrated"]]
    for name, score in (("float64", c.floating), ("chip", c.chip)):
        if score is not None:
            rows.append([name, percent(score.raw), percent(score.calibrated)])
    if c.floating is not None:
        raw, calibrated = c.chip.raw - c.floating.raw, c.chip.calibrated - c.floating.calibrated
        rows.append(["difference", f"{100 * raw:+.1f}  ", f"{100 * calibrated:+.1f}  "])
    return table(rows) + "\n\n" + pairs([*_facts(c), *more])


def tracking_text(c: Tracking, more: Sequence[tuple[str, str]] = ()) -> str:
    """Normalised errors as a table, then the same as of a comparison."""
    outputs = len(c.chip.nrmse)
    each = [f"output {k}" for k in range(outputs)] if outputs > 1 else []
    rows = [["normalised error", "mean", *each, "loss"]]
    for name, fit in (("float64", c.floating), ("chip", c.chip)):
        if fit is not None:
            errors = [fit.error, *(fit.nrmse if each else ())]
            rows.append([name, *(f"{value:.4f}" for value in errors), f"{fit.loss:.3g}"])
    return table(rows) + "\n\n" + pairs([*_facts(c), *more])


def _facts(c: Comparison | Tracking) -> list[tuple[str, str]]:
    what = f"{c.samples} samples of {c.steps} steps in " if isinstance(c, Comparison) else ""
    length = "" if what else f" of {c.steps} steps"
    rows = [("test", f"{what}{c.streams} stream{'s' if c.streams != 1 else ''}{length}")]
    if c.sqnr is not None and c.bits is not None:
        rows.append(("SQNR", f"{c.sqnr:.1f} dB of the output, {c.bits:.1f} effective bits"))
    clipped = []
    for name, r, u, of in zip(
        c.layers, c.clipped_rates, c.clipped_membranes, c.values, strict=True
    ):
        if r:
            clipped.append(f"{name} {small_share(r, of)} of its rates")
        if u:
            clipped.append(f"{name} {small_share(u, of)} of its membranes")
    if c.clipped_input:
        clipped.append(f"{c.clipped_input} values of the input")
    if c.clipped_weights:
        clipped.append(f"{c.clipped_weights} weights")
    rows.append(("saturated", ", ".join(clipped) or "nothing"))
    rows += [("neurons", line) for line in c.health.sentences()]
    rows.append(("digest", c.digest))
    return rows
