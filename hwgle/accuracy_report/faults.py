"""What is wrong with a chip, by name, and what is worth knowing: from the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hwgle.accuracy_report.numbers import gain as decibels
from hwgle.accuracy_report.numbers import small

CLIPPED = {"rate": 1e-3, "membrane": 1e-3, "error": 1e-2, "input": 1e-2, "weight": 2e-2}
SHORT = 2.0  # dB that one bit more gains, of at most 6: this width is what limits
ASTRAY = 0.5  # cosine of an update with float64's, below which it points elsewhere
LOST = 0.02  # of accuracy
ADDS_UP = 1.0  # dB
SURE = 2.0  # standard deviations that a loss of accuracy must be off chance
NAMED = 5
WORDS = {
    "rate": "rates",
    "membrane": "membranes",
    "error": "errors",
    "input": "inputs",
    "weight": "weights",
}
FAULT, NOTE = "fault", "note"

Found = dict[str, Any]


def _found(kind: str, severity: str, text: str, layer: str | None = None, **more: Any) -> Found:
    return {"kind": kind, "severity": severity, "layer": layer, "text": text, **more}


def find(chip: Mapping[str, Any]) -> list[Found]:
    """All that is found in one chip's part of a report, faults first."""
    found = [
        *_bodies(chip),
        *_health(chip),
        *_saturation(chip),
        *_short(chip),
        *_accuracy(chip),
        *_largest(chip),
        *_learning(chip),
        *_plasticity(chip),
        *_narrower(chip),
        *_formats(chip),
        *_adds_up(chip),
    ]
    return sorted(found, key=lambda f: f["severity"] != FAULT)


def _bodies(chip: Mapping[str, Any]) -> Iterator[Found]:
    for body in chip["bodies"]:
        if not body["equal"]:
            text = f"{body['device']} and the emulator differ: hwgle verify finds where"
            yield _found("body", FAULT, text)


def _health(chip: Mapping[str, Any]) -> Iterator[Found]:
    for name, layer in chip["health"]["layers"].items():
        size = layer["size"]
        if layer["silent"]:
            text = f"layer {name} is silent: all {size} read-outs stay at 0"
            yield _found("silent", FAULT, text, name)
        for kind, what in (
            ("dead", "does not move though its input does"),
            ("saturated", "stays at one end of its range"),
        ):
            which = layer[kind]
            if which:
                named = ", ".join(str(i) for i in which[:NAMED])
                more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
                text = f"layer {name}: {len(which)} of {size} neurons {kind} (read-out {what}): "
                yield _found(kind, FAULT, text + named + more, name, neurons=list(which))


def _saturation(chip: Mapping[str, Any]) -> Iterator[Found]:
    for use in chip["formats"]["each"]:
        most = CLIPPED[use["kind"]]
        if use["clipped"] > most:
            where = "the input" if use["layer"] is None else f"layer {use['layer']}"
            text = (
                f"{where} saturates: {small(use['clipped'])} of its {WORDS[use['kind']]} clip at "
                f"±{use['full']:.4g}"
            )
            yield _found("saturation", FAULT, text, use["layer"], signal=use["kind"])


def _short(chip: Mapping[str, Any]) -> Iterator[Found]:
    for name, width in chip["widths"]["each"].items():
        more = width["converters"]["more"]
        if more is None:
            continue
        what = {"output": "the output", "rates": "the layers' read-outs"}
        if name == "error":
            what = {"errors": "the errors"}
        gain, where = max((more[key], text) for key, text in what.items())
        if gain < SHORT:
            continue
        own = width["chip"]["more"]
        here = ""
        if own is not None:
            here = f" ({decibels(own['output'])} dB at the output as the chip is)"
        text = (
            f"{width['title']}: {width['bits']} bits are short; one more would gain "
            f"{gain:.1f} dB of {where} with converters alone{here}"
        )
        yield _found("short", FAULT, text, None, width=name)


def _accuracy(chip: Mapping[str, Any]) -> Iterator[Found]:
    lost = -chip["task"]["difference"]["calibrated"]
    raw = -chip["task"]["difference"]["raw"]
    task = chip["task"]
    net = lost * task["samples"]  # of the samples that change their class
    if lost > LOST and net > SURE * math.sqrt(task["changed"]["calibrated_count"]):
        text = f"the chip loses {100 * lost:.1f} points of offset-calibrated accuracy"
        yield _found("accuracy", NOTE, text)
    if raw - lost > LOST:
        text = (
            f"offsets of the outputs cost {100 * (raw - lost):.1f} points: ten numbers fitted on "
            "training samples give them back"
        )
        yield _found("offsets", NOTE, text)


def _largest(chip: Mapping[str, Any]) -> Iterator[Found]:
    parts = chip["budget"]["output"]["powers"]["parts"]
    titles = {s["name"]: s["title"] for s in chip["budget"]["stages"]}
    if sum(p > 0 for p in parts.values()) < 2:
        return
    stage = max(parts, key=lambda name: parts[name])
    text = f"most of the output's error comes from {titles[stage]}"
    own = [i for i in chip["budget"]["imperfections"] if i["stage"] == stage]
    if own:
        worst = min(own, key=lambda i: i["sqnr"])
        text += f", most of all from {worst['text']} (alone {worst['sqnr']:.1f} dB)"
    yield _found("largest", NOTE, text, None, stage=stage)


def _learning(chip: Mapping[str, Any]) -> Iterator[Found]:
    layers = chip["learning"]["directions"]["layers"]
    astray = [
        (name, own["cosine_gle"])
        for name, own in layers.items()
        if own["cosine_gle"] is not None and own["cosine_gle"] < ASTRAY
    ]
    if astray:
        named = ", ".join(f"{name} {value:.2f}" for name, value in astray)
        text = f"updates point elsewhere than in float64 (cosine of a layer's weights): {named}"
        yield _found("astray", NOTE, text, None, layers=[name for name, _ in astray])


def _plasticity(chip: Mapping[str, Any]) -> Iterator[Found]:
    layers = chip["learning"]["plasticity"]["layers"]
    for key, kind, most, text in (
        ("saturated", "range", 0.01, "updates that meet the end of the weights' range"),
        ("to_nothing", "lost", 0.5, "updates that round to nothing"),
    ):
        if key == "to_nothing" and "stochastic" in dict_of(chip)["plasticity"]:
            text += " (drawn: on average nothing is lost)"
        named = [f"{name} {small(own[key])}" for name, own in layers.items() if own[key] > most]
        if named:
            text = f"{text}, with plain SGD at the chip's own rate: {', '.join(named)}"
            yield _found(kind, NOTE, text)


def _narrower(chip: Mapping[str, Any]) -> Iterator[Found]:
    found = chip["widths"]["narrower"]
    if found["changes"]:
        each = ", ".join(
            f"{c['title']} {c['now']} → {c['then']}" for c in found["changes"].values()
        )
        text = (
            f"fewer bits would do: {each}; all together measured "
            f"{decibels(found['measured']['output'])} dB at the output"
        )
        yield _found("narrower", NOTE, text)


def _formats(chip: Mapping[str, Any]) -> Iterator[Found]:
    found = chip["formats"]["recommended"]
    if found["kinds"]:
        words = " and ".join(WORDS[k] for k in found["kinds"])
        gain = found["measured"]
        text = (
            f"other scales for {words} would gain {decibels(gain['output'])} dB at the output, "
            f"{decibels(gain['errors'])} dB of the errors, with the same bits"
        )
        yield _found("formats", NOTE, text)


def _adds_up(chip: Mapping[str, Any]) -> Iterator[Found]:
    worst = chip["budget"]["adds_up"]
    if worst["worst"] > ADDS_UP:
        text = (
            f"stages and pairs explain the error of {worst['signal']} in layer "
            f"{worst['layer']} only within {worst['worst']:.1f} dB: three of them interact"
        )
        yield _found("adds_up", NOTE, text)


def dict_of(chip: Mapping[str, Any]) -> dict[str, str]:
    """The parts of the chip in words."""
    return {p["part"]: p["text"] for p in chip["parts"]}


def verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    """The first lines of a report: whether limits hold, and what is wrong."""
    limits = report["limits"]
    broken = [r for r in limits["results"] if not r["met"]] if limits else []
    faults = sum(f["severity"] == FAULT for c in report["chips"] for f in c["found"])
    unequal = any(not b["equal"] for c in report["chips"] for b in c["bodies"])
    if limits is None:
        text = "No limits were given."
    elif broken:
        text = f"{len(broken)} of {len(limits['results'])} limits are broken."
    else:
        text = f"All {len(limits['results'])} limits are met."
    if unequal:
        text += " A body differs from the emulator."
    text += f" {faults} fault{'' if faults == 1 else 's'} found." if faults else " No fault found."
    passed = None if limits is None and not unequal else not broken and not unequal
    return {"passed": passed, "text": text, "faults": faults, "broken": len(broken)}
