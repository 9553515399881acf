"""Where a step's time goes, stage by stage: what bounds a figure that is not reached.

    python -m bench profile [--seconds N] [--out FILE.md]

`perf record` (Debian: linux-perf) on a process that only steps; samples inside the core, by
the name of the function. `allowed`: microseconds of a step with which the figures of
bench/limits.py would hold, from NumPy's time and the int16 peak of this run. `peak`: the
multiply-accumulates of a step at that peak, as if nothing else took time.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.limits import LIMITS
from bench.speed import (
    WARM_UP,
    WORK,
    Case,
    available,
    contestants,
    peak_of,
    peaks_or_why,
    three_layers,
)
from bench.speed import seconds as cpu_seconds
from hwgle.network import Network

STAGES = {  # the first that fits a function's name
    "neurons": r"neurons|ideal_rows|analog_rows",
    "target error": r"target_error|softmax",
    "Adam": r"^values|^store_|adam",
    "layouts": r"pairs|turn|transpose|split",
    "learning": r"learn|outer|update|sgd|error_sum|gradient",
    "products": r"product|stored|forward|back",
    "seen weights": r"see|effective",
}
REST = "rest"
PROFILED = (("mnist1d-15k", 100, "sgd"), ("mnist1d-42k", 100, "sgd"), ("3x750", 100, "sgd"),
            ("mnist1d-15k", 100, "adam"), ("mnist1d-15k", 100, "infer"), ("mnist1d-15k", 1, "sgd"),
            ("mnist1d-42k", 1, "sgd"), ("3x750", 1, "sgd"))  # fmt: skip
CORE = "_core.abi3.so"
LINE = re.compile(r"^\s*([\d.]+)%\s+.*\[[.k]\]\s+(\S+)")
CALL_STEPS = {1: 2000, 100: 200}


@dataclass(frozen=True)
class Profile:
    """us: of a step, by stage; step: all of it; allowed: None where nothing is asked."""

    network: str
    batch: int
    work: str
    us: Mapping[str, float]
    step: float
    allowed: float | None
    peak: float


def case_of(name: str, batch: int) -> Case:
    """A case of bench/speed.py."""
    network = three_layers() if name == "3x750" else Network.load(name)
    return Case(network, batch, CALL_STEPS[batch] if name != "3x750" else 40, 5)


def stage_of(symbol: str) -> str:
    """Of a function of the core."""
    return next((s for s, pattern in STAGES.items() if re.search(pattern, symbol)), REST)


def shares(report: str) -> dict[str, float]:
    """By stage, of what `perf report` says of the core's functions; they sum up to 1."""
    found = dict.fromkeys((*STAGES, REST), 0.0)
    for line in report.splitlines():
        match = LINE.match(line)
        if match:
            found[stage_of(match[2])] += float(match[1])
    total = sum(found.values())
    return {stage: share / total for stage, share in found.items()} if total else found


def child(name: str, batch: int, work: str, length: float) -> None:
    """Steps for so many seconds; says what one took, the median of the calls."""
    case = case_of(name, batch)
    run = contestants(case, available()[:1])[work][f"hwgle {available()[0]}"]
    run(WARM_UP)
    calls = []
    end = time.monotonic() + length
    while time.monotonic() < end:
        calls.append(cpu_seconds(run, case.steps) / case.steps)
    print(json.dumps(sorted(calls)[len(calls) // 2]))


def recorded(name: str, batch: int, work: str, length: float) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and shares of the stages."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        me = [sys.executable, "-m", "bench.profile", "--child", name, str(batch), work, str(length)]
        out = subprocess.run(
            ["perf", "record", "-q", "-o", data, "--", *me],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        report = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", "-q", "--sort", "symbol", "--dsos", CORE],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    return float(json.loads(out.strip().splitlines()[-1])), shares(report)


def allowed(name: str, batch: int, work: str, numpy: float, peak: float) -> float | None:
    """Seconds of a step with which all figures of this case hold."""
    most = []
    prefix = f"speed/{name}/batch {batch}/{work}/hwgle */"
    for limit in LIMITS:
        if limit.pattern == prefix + "times numpy":
            most.append(numpy / limit.limit)
        if limit.pattern == prefix + "of peak":
            most.append(peak / limit.limit)
    return min(most) if most else None


def profile(name: str, batch: int, work: str, length: float, gmacs: float) -> Profile:
    """Of one kind of step."""
    case = case_of(name, batch)
    rival = contestants(case, [])[work]["numpy"]
    rival(WARM_UP)
    steps = max(2, case.steps // 4)
    numpy = sorted(cpu_seconds(rival, steps) / steps for _ in range(5))[2]
    step, by = recorded(name, batch, work, length)
    peak = WORK[work] * case.network_weights * batch / gmacs / 1e9
    most = allowed(name, batch, work, numpy, peak)
    us = {stage: share * step * 1e6 for stage, share in by.items()}
    return Profile(name, batch, work, us, step * 1e6, most and most * 1e6, peak * 1e6)


def table(profiles: Sequence[Profile]) -> str:
    """Microseconds of a step."""
    head = ["network", "batch", "step", "all", *STAGES, REST, "allowed", "peak"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for p in profiles:
        most = "" if p.allowed is None else f"{p.allowed:.3g}"
        cells = [f"{p.us[s]:.3g}" for s in (*STAGES, REST)]
        rows.append(f"| {p.network} | {p.batch} | {p.work} | {p.step:.3g} | "
                    + " | ".join(cells) + f" | {most} | {p.peak:.3g} |")  # fmt: skip
    return "\n".join(rows)


def verdict(p: Profile) -> str | None:
    """What bounds a step that takes longer than allowed; None for one that does not."""
    if p.allowed is None or p.step <= p.allowed:
        return None
    name = f"{p.network}, batch {p.batch}, {p.work}: {p.step:.3g} us, allowed {p.allowed:.3g}"
    floor = p.us["neurons"] + p.peak
    if floor > p.allowed:
        return (
            f"- {name}. Its neurons ({p.us['neurons']:.3g}) and the multiply-accumulates at the "
            f"peak ({p.peak:.3g}) alone take {floor:.3g}: no product, however fast, gets there."
        )
    most = sorted(p.us, key=lambda stage: -p.us[stage])[:3]
    parts = ", ".join(f"{stage} {p.us[stage]:.3g}" for stage in most)
    return (
        f"- {name}. Neurons and multiply-accumulates at the peak take {floor:.3g}; the largest "
        f"parts are {parts}."
    )


def verdicts(profiles: Sequence[Profile]) -> str:
    """Of all that take longer than allowed."""
    found = [said for p in profiles if (said := verdict(p)) is not None]
    return "\n".join(found) if found else "Every step takes what is allowed, or less."


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench profile`. Returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench profile", None, __doc__, formatter_class=raw)
    parser.add_argument("--seconds", type=float, default=4, help="of each case")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        name, batch, work, length = options.child
        child(name, int(batch), work, float(length))
        return 0
    tops, without = peaks_or_why()
    table_name = available()[0]
    if peak_of(f"hwgle {table_name}") not in tops:
        parser.error(f"no int16 peak on this machine: {without or table_name}")
    gmacs = tops[peak_of(f"hwgle {table_name}")].gmacs()
    try:
        profiles = [profile(*which, options.seconds, gmacs) for which in PROFILED]
    except FileNotFoundError:
        parser.error("needs perf (Debian: linux-perf)")
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines()
        parser.error(f"perf or what it ran ended with {error.returncode}: {said[-1:]}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    text = (f"kernels {table_name}, int16 peak {gmacs:.0f} GMAC/s, microseconds of CPU time a step"
            f"\n\n{table(profiles)}\n\n{verdicts(profiles)}\n")  # fmt: skip
    print(text)
    if options.out:
        head = "# Where a step's time goes\n\nMade by `./run bench profile`: "
        options.out.write_text(head + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
