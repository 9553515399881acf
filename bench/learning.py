"""How trainings went: a table, and their accuracy over the epochs in one picture.

    ./run python -m bench.learning OUT [OUT...] --out curves.svg [--keep FOLDER]

OUT: a folder that `hwgle train` wrote, or one that --keep made of it: the summary and the
metrics of each epoch, without what is said of the neurons' health.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.curves import COLOURS, canvas, save

COLUMNS = "{:28} {:>4} {:>6} {:>10} {:>10} {:>8} {:>15} {:>8}"
HEAD = ("experiment", "seed", "epochs", "best epoch", "validation", "test", "test calibrated",
        "seconds")  # fmt: skip
NEEDED = ("metrics.jsonl", "summary.json")

Metrics = list[dict[str, Any]]


def read(folder: Path) -> tuple[dict[str, Any], Metrics]:
    """A training's summary and the lines of its epochs. Raises SystemExit where it has none."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"{folder}: found no {' and no '.join(missing)}; needed: a training's OUT")
    summary = json.loads((folder / "summary.json").read_text())
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return summary, [json.loads(line) for line in lines]


def keep(summary: Mapping[str, Any], metrics: Metrics, folder: Path) -> None:
    """The same without the neurons' health, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    lean = {key: value for key, value in summary.items() if key != "health"}
    (folder / "summary.json").write_text(json.dumps(lean, indent=2) + "\n")
    lines = [{key: value for key, value in m.items() if key != "health"} for m in metrics]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def table(trainings: Sequence[tuple[Mapping[str, Any], Metrics]]) -> str:
    """Validation and test of each, raw and offset-calibrated, in %."""
    rows = [COLUMNS.format(*HEAD)]
    for s, metrics in trainings:
        scores = (percent(s[key]) for key in ("validation", "test", "test_calibrated"))
        who = s["experiment"], s["seed"], len(metrics), s["best_epoch"]
        rows.append(COLUMNS.format(*who, *scores, f"{s['seconds']:.0f}"))
    return "\n".join(rows)


def draw(trainings: Sequence[tuple[Mapping[str, Any], Metrics]], path: Path) -> None:
    """Thin: while learning. With markers: validation, offset-calibrated."""
    figure, axes = canvas()
    for k, (s, metrics) in enumerate(trainings):
        colour = COLOURS[k % len(COLOURS)]
        name = f"{s['experiment']}, seed {s['seed']}"
        learning = [(m["epoch"], 100 * m["accuracy_learning"]) for m in metrics]
        axes.plot(*zip(*learning, strict=True), color=colour, lw=0.8, alpha=0.7)
        looks = [
            (m["epoch"], 100 * m["validation_calibrated"])
            for m in metrics
            if "validation_calibrated" in m
        ]
        if looks:
            axes.plot(*zip(*looks, strict=True), "o-", color=colour, ms=3.5, lw=1.4, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 100)
    axes.set_xlim(0, None)
    axes.set_title("dots: validation, offset-calibrated; thin: while learning", loc="left")
    axes.legend(loc="lower right")
    save(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=__doc__)
    parser.add_argument("folders", metavar="OUT", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", metavar="FOLDER", type=Path)
    arguments = parser.parse_args(argv)
    trainings = [read(folder) for folder in arguments.folders]
    if arguments.keep is not None:
        for summary, metrics in trainings:
            name = f"{summary['experiment']}-{summary['seed']}"
            keep(summary, metrics, arguments.keep / name)
    print(table(trainings))
    if arguments.out is not None:
        draw(trainings, arguments.out)


if __name__ == "__main__":
    main()
