"""A report as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwgle.accuracy_report import numbers
from hwgle.accuracy_report.compare import Compared
from hwgle.accuracy_report.limits import in_words
from hwgle.cli.table import pairs, table

SIGNALS = ("u", "uhat", "r", "e", "dW")


def text(report: Mapping[str, Any]) -> str:
    """Verdict, then for each chip what was found, its budget and its layers."""
    lines = [report["verdict"]["text"]]
    if report["limits"]:
        lines += ["  " + in_words(r) for r in report["limits"]["results"] if not r["met"]]
    for chip in report["chips"]:
        lines += ["", f"{report['experiment']} on chip {chip['name']}:{chip['seed']}"]
        lines += [f"  {f['severity']}: {f['text']}" for f in chip["found"]]
        lines += ["", _accuracy(chip), "", _budget(chip), "", _layers(chip), "", _bodies(chip)]
    return "\n".join(lines)


def _accuracy(chip: Mapping[str, Any]) -> str:
    task = chip["task"]
    rows = [["accuracy", "raw", "offset-calibrated"]]
    own = task["float"]
    rows.append(["float64", numbers.percent(own["raw"]), numbers.percent(own["calibrated"])])
    titles = {s["name"]: s["title"] for s in chip["budget"]["stages"]}
    for k, (name, own) in enumerate(task["stages"].items()):
        label = titles[name] if k == 0 else f"+ {titles[name]}"
        rows.append([label, numbers.percent(own["raw"]), numbers.percent(own["calibrated"])])
    seeds = task["seeds"]
    if seeds["count"] > 1:
        each = [
            f"{numbers.percent(seeds[k]['mean'])} sd {100 * seeds[k]['sd']:.1f}"
            for k in ("raw", "calibrated")
        ]
        rows.append([f"{seeds['count']} seeds", *each])
    return table(rows)


def _budget(chip: Mapping[str, Any]) -> str:
    output = chip["budget"]["output"]
    rows = [["output, dB", "alone", "accumulated", "eff. bits", "rms LSB", "largest", "bias"]]
    for stage in chip["budget"]["stages"]:
        if stage["present"]:
            own = output["accumulated"][stage["name"]]
            alone = output["alone"][stage["name"]]["sqnr"]
            rows.append(
                [stage["title"], numbers.db(alone), numbers.db(own["sqnr"]),
                 numbers.bits(own["bits"]), numbers.compact(own["rms"]),
                 numbers.compact(own["largest"]), numbers.compact(own["bias"])]
            )  # fmt: skip
    return table(rows)


def _layers(chip: Mapping[str, Any]) -> str:
    rows = [["SQNR, dB", *SIGNALS, "cosine of dW"]]
    directions = chip["learning"]["directions"]["layers"]
    for name, layer in chip["budget"]["layers"].items():
        cosine = numbers.text(directions[name]["cosine_gle"], "cosine")
        rows.append([name, *(numbers.db(layer[s]["sqnr"]) for s in SIGNALS), cosine])
    return table(rows)


def _bodies(chip: Mapping[str, Any]) -> str:
    rows = []
    for body in chip["bodies"]:
        state = "equal" if body["equal"] else "DIFFERS"
        dt = numbers.text(body["real_time_dt"], "seconds")
        what = f"digest {body['digest']} {state}; dt >= {dt} ({body['real_time_by']})"
        rows.append((body["device"], what))
    return pairs(rows)


def compared_text(found: Compared) -> str:
    """What differs between two reports."""
    lines = [f"{found.count} numbers differ"]
    for one, other, rows in found.chips:
        differing = [r for r in rows if r.differs]
        lines += ["", one if one == other else f"{one} and {other}"]
        if differing:
            cells = [
                [r.path, numbers.text(r.a, r.kind), numbers.text(r.b, r.kind), r.change]
                for r in differing
            ]
            lines.append(table([["", "A", "B", "B - A"], *cells]))
    lines += [f"{name}: {x} | {y}" for name, x, y in found.others]
    return "\n".join(lines)
