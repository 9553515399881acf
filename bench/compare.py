"""What changed between two runs of the bench: `compare [NEW.json] [BASELINE.json]`.

Ratios are compared, never milliseconds. A measured figure has changed if all rounds of the
one run lie above all of the other, with more than SLACK between them; a counted one
(instructions, bytes) if it is not the same. Without NEW it is measured now (`all --quick`);
BASELINE is bench/baseline.json. Exit code 1: something got worse; 2: a file is none of ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, WrongFormat, read

BASELINE = Path(__file__).with_name("baseline.json")
# Between the ranges, of the lower one: less is no news. Of 118 measured figures of two runs
# of the same sources, 3 rounds each on a busy machine, 12 were apart by 0.05, 5 by this.
SLACK = 0.15
# What makes another machine; the rest is told, but may differ.
MACHINE = ("cpu", "flags", "cores", "system", "caches")
TOOLS = ("python", "numpy", "blas", "torch", "compiler")


@dataclass(frozen=True)
class Change:
    """A figure that is not what it was. verdict: better, worse or changed."""

    verdict: str
    old: Figure
    new: Figure

    def line(self) -> str:
        """As text."""
        by = (self.new.value / self.old.value - 1) * 100 if self.old.value else float("inf")
        return (
            f"{self.verdict:<8} {self.new.name}: {told(self.old)} -> {told(self.new)} ({by:+.1f} %)"
        )


def told(figure: Figure) -> str:
    """Value, and range of a measured one."""
    if figure.exact:
        return f"{figure.value:,.10g}"
    return f"{figure.value:.3g} ({figure.low:.3g} .. {figure.high:.3g})"


def differs(old: Figure, new: Figure) -> bool:
    """Beyond the spread of the rounds of both, or at all if they are exact."""
    if old.exact or new.exact:
        return old.value != new.value
    return new.low > old.high * (1 + SLACK) or old.low > new.high * (1 + SLACK)


def verdict(old: Figure, new: Figure) -> str:
    """Which way it went."""
    if not new.better:
        return "changed"
    return "better" if (new.value > old.value) == (new.better == "more") else "worse"


def changes(old: Mapping[str, Figure], new: Mapping[str, Figure]) -> list[Change]:
    """Of all figures that both have, in the order of the new ones; worse ones first."""
    found = [
        Change(verdict(old[name], figure), old[name], figure)
        for name, figure in new.items()
        if name in old and differs(old[name], figure)
    ]
    return sorted(found, key=lambda change: ("worse", "changed", "better").index(change.verdict))


def other(old: Mapping[str, str], new: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    """What of two descriptions is not the same."""
    return [
        f"{key}: {old.get(key, '?')} -> {new.get(key, '?')}"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def report(new_path: Path, old_path: Path) -> tuple[str, int]:
    """The text, and the exit code. Raises WrongFormat."""
    (new_file, new), (old_file, old) = read(new_path), read(old_path)
    elsewhere = other(old_file["machine"], new_file["machine"], MACHINE)
    lines = []
    if elsewhere:
        lines += ["another machine: measured ratios may differ for that alone, and do not count",
                  *(f"  {what}" for what in elsewhere)]  # fmt: skip
    lines += [f"  {what}" for what in other(old_file["machine"], new_file["machine"], TOOLS)]
    found = changes(old, new)
    lines += [change.line() for change in found]
    both = [name for name in new if name in old]
    lines.append(
        f"{len(both)} figures in both, {sum(new[name].exact for name in both)} of them exact: "
        f"{len(both) - len(found)} as they were, {len(found)} not; "
        f"{len(new) - len(both)} only in the new run, {len(old) - len(both)} only in the old one"
    )
    counts = [change for change in found if change.new.exact or not elsewhere]
    return "\n".join(lines), int(any(change.verdict == "worse" for change in counts))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench compare`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__)
    parser.add_argument("new", nargs="?", type=Path, metavar="NEW.json")
    parser.add_argument("baseline", nargs="?", type=Path, metavar="BASELINE.json", default=BASELINE)
    options = parser.parse_args(argv)
    try:
        if options.new is not None:
            text, code = report(options.new, options.baseline)
        else:
            text, code = measured_now(options.baseline)
    except WrongFormat as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(text)
    return code


def measured_now(baseline: Path) -> tuple[str, int]:
    """Against a quick run."""
    import tempfile

    from bench.everything import collect
    from bench.figures import write

    read(baseline)  # not after minutes of measuring
    with tempfile.TemporaryDirectory(prefix="hwgle-bench-") as folder:
        path = Path(folder) / "new.json"
        write(path, collect(quick=True).document())
        return report(path, baseline)
