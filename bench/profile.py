"""Where a step's time goes, stage by stage, and what it needs at the least: what bounds a figure
that is not reached.

    python -m bench profile [--seconds N] [--out FILE.md] [--counts FILE.json]

`perf record` (Debian: linux-perf) on a process that only steps; samples inside the core, by
the name of the function. `at least`: of the instructions of one step, counted one by one
(bench/executed.py, some minutes in a virtual machine), by what such instructions take here
(bench/units.py; of vectors of less than 512 bits and scalars, only that they are brought in).
`memory`: that the weights need to come and go. `allowed`: microseconds of a step with which the
figures of bench/limits.py would hold, from NumPy's time and the int16 peak of this run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench import executed, growth
from bench.bounds import Profile, table, verdicts
from bench.limits import LIMITS
from bench.peak import Memory, Peak
from bench.speed import (
    WARM_UP,
    WORK,
    Case,
    available,
    check_folders,
    contestants,
    peak_of,
    peaks_or_why,
    three_layers,
)
from bench.speed import seconds as cpu_seconds
from bench.units import Meter, NoUnits, Units
from hwgle import _core
from hwgle.network import Network

STAGES = {  # the first that fits a function's name
    "neurons": r"neurons|^errors|noisy_errors|membranes|rates",
    "target error": r"target_error|softmax",
    "Adam": r"^values|^store_|adam",
    "layouts": r"pairs|turn|transpose|split",
    "learning": r"learn|outer|update|sgd|error_sum|gradient",
    "products": r"product|stored|forward|back|few",
    "seen weights": r"see|effective",
}
REST = "rest"
Which = tuple[str, int, str]  # network, batch, kind of step
PROFILED = (("mnist1d-15k", 100, "sgd"), ("mnist1d-42k", 100, "sgd"), ("3x750", 100, "sgd"),
            ("mnist1d-15k", 100, "adam"), ("mnist1d-15k", 100, "infer"), ("mnist1d-15k", 1, "sgd"),
            ("mnist1d-42k", 1, "sgd"), ("3x750", 1, "sgd"))  # fmt: skip
# Time for each multiply-accumulate is to be flat along these: their ends.
GROWN = (("deep", 1), ("same", 100), ("same", 1))
ENDS = (128, 2048)
MADE: Mapping[str, Callable[[int], Network]] = {"deep": growth.deep, "same": growth.same}
CORE = "_core.abi3.so"
LINE = re.compile(r"^\s*([\d.]+)%\s+.*\[[.k]\]\s+(\S+)")
CALL_STEPS = {1: 2000, 100: 200}
SAMPLES = 5  # of memory's bandwidth, of which the best counts
ROUNDS = 3  # recordings, of which the fastest counts
SETTLING = 1.0  # seconds, in which formats follow the errors, before instructions are counted


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
    """Steps for so many seconds; says what one took in the fastest call: a shared machine slows
    down by half for a second at a time."""
    run, steps = stepping(name, batch, work)
    run(WARM_UP)
    calls = []
    end = time.monotonic() + length
    while time.monotonic() < end:
        calls.append(cpu_seconds(run, steps) / steps)
    print(json.dumps(min(calls)))


def count(name: str, batch: int, work: str) -> None:
    """Says what a step executes, by function and kind."""
    run, steps = stepping(name, batch, work)
    text = executed.listing()  # of the core that is loaded, whatever is built meanwhile
    end = time.monotonic() + SETTLING
    while time.monotonic() < end:
        run(steps)
    print(json.dumps(executed.by_function(executed.counted(lambda: run(1)), text)))


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


def moved(network: Network, work: str) -> float:
    """Microseconds in which one core brings the weights of a step and takes back those that
    learned, each once: a layer that the next cache holds comes from no further for what follows.
    All are in the cache that holds them together."""
    weights = 2 * growth.weights_of(network)
    memory = Memory(weights)
    if work == "infer":
        return weights / max(memory.read() for _ in range(SAMPLES)) / 1e3
    return 2 * weights / max(memory.copy() for _ in range(SAMPLES)) / 1e3


Counts = Mapping[str, Mapping[str, int]]  # by function and kind


def counted(cases: Sequence[Which], kept: Path | None) -> list[Counts]:
    """The instructions of each; some counted at once. kept: taken from there where they are of
    this core and these kernels, else left there."""
    counting = Path(executed.__file__).read_bytes() + repr(cases).encode()
    of = sha256(Path(_core.__file__).read_bytes() + counting).hexdigest() + " " + available()[0]
    known: dict[str, Counts] = {}
    if kept is not None and kept.is_file():
        held = json.loads(kept.read_text())
        known = held["counts"] if held["of"] == of else {}
    new = [which for which in cases if str(which) not in known]
    print(f"counting the instructions of {len(new)} steps ...", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        command = (sys.executable, "-m", "bench.profile", "--count")
        found = pool.map(lambda w: said_by(*command, w[0], str(w[1]), w[2]), new)
        for which, said in zip(new, found, strict=True):
            known[str(which)] = json.loads(said)
            if kept is not None:
                kept.write_text(json.dumps({"of": of, "counts": known}, indent=1) + "\n")
    return [known[str(which)] for which in cases]


def least(counts: Counts, units: Units) -> dict[str, float]:
    """Microseconds that the stages need at the least, function by function."""
    by: dict[str, float] = {}
    for name, of in counts.items():
        stage = stage_of(name)
        by[stage] = by.get(stage, 0.0) + units.needs(of) * 1e6
    return by


def allowed(name: str, batch: int, work: str, numpy: float, peak: float) -> dict[str, float]:
    """Seconds of a step with which the figures of this case hold, by what is asked."""
    prefix = f"speed/{name}/batch {batch}/{work}/hwgle *"
    best = {f"{prefix}/of peak": ("peak", peak), f"{prefix}/times numpy": ("NumPy", numpy)}
    found = {}
    for limit in LIMITS:
        if limit.pattern in best:
            asked, seconds = best[limit.pattern]
            found[asked] = seconds / limit.limit
    return found


@dataclass(frozen=True)
class Timed:
    """A kind of step: microseconds of all and by stage, and what each thing asked of it allows;
    memory: that its weights need. gmacs: the int16 peak of that moment."""

    us: Mapping[str, float]
    step: float
    memory: float
    allowed: Mapping[str, float]
    macs: float
    gmacs: float


def timed(which: Which, length: float, peak: Peak) -> Timed:
    """One kind of step."""
    name, batch, work = which
    print(f"profiling {name}, batch {batch}, {work} ...", file=sys.stderr, flush=True)
    before = peak.gmacs()
    step, by = min((recorded(name, batch, work, length) for _ in range(ROUNDS)), key=lambda r: r[0])
    gmacs = max(before, peak.gmacs())
    most: dict[str, float] = {}
    if name.partition("-")[0] in MADE:
        macs = growth.macs_of(network_of(name), work) * batch
    else:
        case = case_of(name, batch)
        macs = WORK[work] * case.network_weights * batch
        rival = contestants(case, [])[work]["numpy"]
        rival(WARM_UP)
        steps = max(2, case.steps // 4)
        numpy = sorted(cpu_seconds(rival, steps) / steps for _ in range(5))[2]
        most = allowed(name, batch, work, numpy, macs / gmacs / 1e9)
    us = {stage: share * step * 1e6 for stage, share in by.items()}
    memory = moved(network_of(name), work)
    return Timed(us, step * 1e6, memory, {k: v * 1e6 for k, v in most.items()}, macs, gmacs)


def profiles_of(
    cases: Sequence[Which], length: float, peak: Peak, kept: Path | None
) -> tuple[list[Profile], float]:
    """Of all, and the int16 peak: this and the units' the best of all moments, so that no stage is
    said to need more than it does."""
    meter = Meter()
    counts = counted(cases, kept)
    times = []
    for which in cases:
        meter.measure()
        times.append(timed(which, length, peak))
    units = meter.units()
    gmacs = max(t.gmacs for t in times)
    found = []
    for which, t, count in zip(cases, times, counts, strict=True):
        need = least(count, units)
        found.append(Profile(*which, t.us, t.step, need, t.memory, t.allowed, t.macs))
    return found, gmacs


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m bench profile`. Returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench profile", None, __doc__, formatter_class=raw)
    parser.add_argument("--seconds", type=float, default=4, help="of each case")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table")
    parser.add_argument("--counts", type=Path, metavar="FILE.json",
                        help="counted instructions: from there, where they are of this core, or "
                        "left there")  # fmt: skip
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--count", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        name, batch, work, length = options.child
        child(name, int(batch), work, float(length))
        return 0
    if options.count:
        name, batch, work = options.count
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a step may take minutes here
        try:
            count(name, int(batch), work)
        except executed.NoCount as error:
            parser.error(str(error))
        return 0
    tops, without = peaks_or_why()
    table_name = available()[0]
    if table_name not in executed.COUNTED:
        parser.error(f"instructions are counted for AVX-512 kernels, not for {table_name}")
    if peak_of(f"hwgle {table_name}") not in tops:
        parser.error(f"no int16 peak on this machine: {without or table_name}")
    if shutil.which("perf") is None:
        parser.error("needs perf (Debian: linux-perf)")
    check_folders(parser, options.out, options.counts)
    cases = [*PROFILED, *((f"{line}-{n}", b, "sgd") for line, b in GROWN for n in ENDS)]
    try:
        top = tops[peak_of(f"hwgle {table_name}")]
        every, gmacs = profiles_of(cases, options.seconds, top, options.counts)
    except NoUnits as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines()
        parser.error(f"perf or what it ran ended with {error.returncode}: {said[-1:]}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    profiles, ends = every[: len(PROFILED)], every[len(PROFILED) :]
    lines = list(zip(ends[::2], ends[1::2], strict=True))
    text = (f"kernels {table_name}, int16 peak {gmacs:.0f} GMAC/s. Microseconds of CPU time a "
            f"step, at best in {ROUNDS} recordings / that its instructions need at the least "
            "(vectors of less than 512 bits and scalars, only to be brought in); `memory`: what "
            "weights need to come and go; `all`: the larger of both; "
            "`allowed`: with which the figures of bench/limits.py hold in this run.\n\n"
            f"{table(every, (*STAGES, REST))}\n\n{verdicts(profiles, lines)}\n")  # fmt: skip
    print(text)
    if options.out:
        head = "# Where a step's time goes\n\nMade by `./run bench profile`: "
        options.out.write_text(head + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
