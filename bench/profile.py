"""Where a step's time goes, stage by stage, and what it needs at the least: what bounds a figure
that is not reached.

    python -m bench profile [--seconds N] [--out FILE.md]

`perf record` (Debian: linux-perf) on a process that only steps; samples inside the core, by
the name of the function. `at least`: of the instructions of one step, counted one by one
(bench/executed.py, some minutes in a virtual machine); of one stream also of memory, which has to
bring each weight for each product and take it back when it has learned. `allowed`: microseconds of
a step with which the figures of bench/limits.py would hold, from NumPy's time and the int16 peak
of this run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import executed, growth
from bench.limits import LIMITS
from bench.peak import Memory
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
    "neurons": r"neurons|^errors|noisy_errors|membranes|^rates_of",
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
# Time for each multiply-accumulate is to be flat along these: their ends.
FLAT = 1.25
GROWN = (("deep", 1), ("same", 100), ("same", 1))
ENDS = (128, 2048)
MADE: Mapping[str, Callable[[int], Network]] = {"deep": growth.deep, "same": growth.same}
CORE = "_core.abi3.so"
LINE = re.compile(r"^\s*([\d.]+)%\s+.*\[[.k]\]\s+(\S+)")
CALL_STEPS = {1: 2000, 100: 200}


@dataclass(frozen=True)
class Profile:
    """us: of a step, by stage; step: all of it; least: what it needs at the least, by stage;
    allowed: None where nothing is asked. macs: multiply-accumulates of a step."""

    network: str
    batch: int
    work: str
    us: Mapping[str, float]
    step: float
    least: Mapping[str, float]
    allowed: float | None
    macs: float

    @property
    def needs(self) -> float:
        """All stages at the least."""
        return sum(self.least.values())


def network_of(name: str) -> Network:
    """Of the zoo, of bench/speed.py, or of bench/growth.py."""
    line, _, size = name.partition("-")
    if line in MADE:
        return MADE[line](int(size))
    return three_layers() if name == "3x750" else Network.load(name)


def case_of(name: str, batch: int) -> Case:
    """A case of bench/speed.py."""
    return Case(network_of(name), batch, CALL_STEPS[batch] if name != "3x750" else 40, 5)


def stepping(name: str, batch: int, work: str) -> tuple[Callable[[int], None], int]:
    """What steps, with the fastest kernels, and how many steps a call."""
    case, table = case_of(name, batch), available()[0]
    if name.partition("-")[0] in MADE:
        return growth.body_of(case.network, batch, work, table), min(case.steps, growth.LENGTH)
    return contestants(case, [table])[work][f"hwgle {table}"], case.steps


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
    run, steps = stepping(name, batch, work)
    run(WARM_UP)
    calls = []
    end = time.monotonic() + length
    while time.monotonic() < end:
        calls.append(cpu_seconds(run, steps) / steps)
    print(json.dumps(sorted(calls)[len(calls) // 2]))


def count(name: str, batch: int, work: str, gmacs: float) -> None:
    """Says what a step needs at the least by its instructions, in microseconds, by stage."""
    run, _ = stepping(name, batch, work)
    run(WARM_UP)
    found = executed.needs(executed.counted(lambda: run(1)), executed.listing())
    print(json.dumps(executed.least(found, stage_of, gmacs, 1)))


def said_by(*command: str) -> str:
    """The last line that a process prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def recorded(name: str, batch: int, work: str, length: float) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and shares of the stages."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        me = [sys.executable, "-m", "bench.profile", "--child", name, str(batch), work, str(length)]
        step = float(json.loads(said_by("perf", "record", "-q", "-o", data, "--", *me)))
        report = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", "-q", "--sort", "symbol", "--dsos", CORE],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    return step, shares(report)


def moved(network: Network) -> dict[str, float]:
    """Microseconds that one core's memory needs for the weights of a step of one stream: read
    for W r, read for W^T e, and read and written in turn when they learn."""
    weights, back = growth.weights_of(network), growth.weights_of(network)
    back -= network.sizes[0] * network.inputs
    memory = Memory(2 * weights)
    return {
        "products": 2 * (weights + back) / memory.read() / 1e3,
        "learning": 4 * weights / memory.copy() / 1e3,
    }


def at_least(name: str, batch: int, work: str, gmacs: float) -> dict[str, float]:
    """Microseconds, by stage: instructions, or of one stream memory, where that takes longer."""
    me = [sys.executable, "-m", "bench.profile", "--count", name, str(batch), work, str(gmacs)]
    by: dict[str, float] = json.loads(said_by(*me))
    for stage, us in moved(network_of(name)).items() if batch == 1 else ():
        by[stage] = max(by.get(stage, 0.0), us)
    return by


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
    print(f"profiling {name}, batch {batch}, {work} ...", file=sys.stderr, flush=True)
    network = network_of(name)
    step, by = recorded(name, batch, work, length)
    most = None
    if name.partition("-")[0] in MADE:
        macs = growth.macs_of(network, work) * batch
    else:
        case = case_of(name, batch)
        macs = WORK[work] * case.network_weights * batch
        rival = contestants(case, [])[work]["numpy"]
        rival(WARM_UP)
        steps = max(2, case.steps // 4)
        numpy = sorted(cpu_seconds(rival, steps) / steps for _ in range(5))[2]
        most = allowed(name, batch, work, numpy, macs / gmacs / 1e9)
    us = {stage: share * step * 1e6 for stage, share in by.items()}
    least = at_least(name, batch, work, gmacs)
    return Profile(name, batch, work, us, step * 1e6, least, most and most * 1e6, macs)


def table(profiles: Sequence[Profile]) -> str:
    """Microseconds of a step / at the least."""
    head = ["network", "batch", "step", "all", *STAGES, REST, "allowed"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for p in profiles:
        most = "" if p.allowed is None else f"{p.allowed:.3g}"
        cells = [f"{p.step:.3g} / {p.needs:.3g}"]
        cells += [f"{p.us.get(s, 0.0):.3g} / {p.least.get(s, 0.0):.3g}" for s in (*STAGES, REST)]
        cells = ["" if cell == "0 / 0" else cell for cell in cells]
        rows.append(f"| {p.network} | {p.batch} | {p.work} | " + " | ".join(cells) + f" | {most} |")
    return "\n".join(rows)


def largest(by: Mapping[str, float]) -> str:
    """The three largest."""
    most = sorted(by, key=lambda stage: -by[stage])[:3]
    return ", ".join(f"{stage} {by[stage]:.3g}" for stage in most)


def verdict(p: Profile) -> str | None:
    """What bounds a step that takes longer than allowed; None for one that does not."""
    if p.allowed is None or p.step <= p.allowed:
        return None
    name = f"- {p.network}, batch {p.batch}, {p.work}: {p.step:.3g} us, allowed {p.allowed:.3g}"
    if p.needs > p.allowed:
        return (
            f"{name}. Its instructions and memory need {p.needs:.3g} at the least "
            f"({largest(p.least)}): these kernels cannot get there."
        )
    over = {stage: p.us[stage] - p.least.get(stage, 0.0) for stage in p.us}
    return (
        f"{name}. At the least it needs {p.needs:.3g}, which would do; above that are "
        f"{largest(over)}."
    )


def grown(first: Profile, last: Profile) -> str | None:
    """What bounds a line that is not flat; None for one that is."""
    ends = sorted((first, last), key=lambda p: p.step / p.macs)
    cheap, dear = (1e3 * p.step / p.macs for p in ends)
    if dear / cheap <= FLAT:
        return None
    need = [1e3 * p.needs / p.macs for p in ends]
    stages = {
        stage: 1e3 * (ends[1].us[stage] / ends[1].macs - ends[0].us[stage] / ends[0].macs)
        for stage in ends[0].us
    }
    return (
        f"- {ends[0].network} to {ends[1].network}, batch {first.batch}: {cheap:.3g} to {dear:.3g} "
        f"ns for each multiply-accumulate, {dear / cheap:.2f} times, allowed {FLAT}. At the least "
        f"{need[0]:.3g} to {need[1]:.3g}, {need[1] / need[0]:.2f} times; what grows most is "
        f"{largest(stages)}."
    )


def verdicts(profiles: Sequence[Profile], lines: Sequence[tuple[Profile, Profile]] = ()) -> str:
    """Of all that take longer than allowed."""
    found = [said for p in profiles if (said := verdict(p)) is not None]
    found += [said for ends in lines if (said := grown(*ends)) is not None]
    return "\n".join(found) if found else "Every step takes what is allowed, or less."


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench profile`. Returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench profile", None, __doc__, formatter_class=raw)
    parser.add_argument("--seconds", type=float, default=4, help="of each case")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--count", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        name, batch, work, length = options.child
        child(name, int(batch), work, float(length))
        return 0
    if options.count:
        name, batch, work, length = options.count
        try:
            count(name, int(batch), work, float(length))
        except executed.NoCount as error:
            parser.error(str(error))
        return 0
    tops, without = peaks_or_why()
    table_name = available()[0]
    if peak_of(f"hwgle {table_name}") not in tops:
        parser.error(f"no int16 peak on this machine: {without or table_name}")
    gmacs = tops[peak_of(f"hwgle {table_name}")].gmacs()
    try:
        profiles = [profile(*which, options.seconds, gmacs) for which in PROFILED]
        lines = [
            (profile(f"{line}-{ENDS[0]}", batch, "sgd", options.seconds, gmacs),
             profile(f"{line}-{ENDS[1]}", batch, "sgd", options.seconds, gmacs))
            for line, batch in GROWN
        ]  # fmt: skip
    except FileNotFoundError:
        parser.error("needs perf (Debian: linux-perf)")
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines()
        parser.error(f"perf or what it ran ended with {error.returncode}: {said[-1:]}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    every = [*profiles, *(p for ends in lines for p in ends)]
    text = (f"kernels {table_name}, int16 peak {gmacs:.0f} GMAC/s, microseconds of CPU time a step"
            f" / at the least\n\n{table(every)}\n\n{verdicts(profiles, lines)}\n")  # fmt: skip
    print(text)
    if options.out:
        head = "# Where a step's time goes\n\nMade by `./run bench profile`: "
        options.out.write_text(head + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
