"""The fault matrix: sessions under one fault at a time, counted and tabulated.

    PYTHONPATH=. python tests/link/fault_matrix.py --sessions 1000 --host 30 --out DIR
    PYTHONPATH=. python tests/link/fault_matrix.py --sessions 0 --host 2 --device qemu:stm32f405

Two parts. The link alone, on a virtual clock, with an oracle that aborts for anything
executed twice, never, out of order or confirmed without having been executed
(tests/c/link_matrix.c). And whole sessions that load, learn, add increments and read a
digest, on the firmware as a process (or another device string, --device): each ends with the
digest of a good one or with a typed error, within its deadline and with no descriptor left.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "unit")]
from networks import Case, Quantised, chip_with, quantised, random_case  # noqa: E402

from hwgle.boards import start_host, start_qemu  # noqa: E402
from hwgle.device import Block  # noqa: E402
from hwgle.devices.emulator import Emulator  # noqa: E402
from hwgle.devices.faults import FaultLine, Faults  # noqa: E402
from hwgle.devices.line import open_line  # noqa: E402
from hwgle.devices.port import FAST, GENEROUS  # noqa: E402
from hwgle.devices.serial import SerialDevice  # noqa: E402
from hwgle.errors import BoardReset, DeviceError, LinkLost, LinkRefused  # noqa: E402
from hwgle.quantise import Quantised as Weights  # noqa: E402
from hwgle.quantise import quantise_weights  # noqa: E402

DEADLINE = 60.0  # seconds for a session, however bad its line and busy the machine
SLOWER = 3.0  # an emulated board, whose machine may be short of time
RECOVERS, TYPED, EITHER = "recovers", "typed", "either"
Draw = Callable[[np.random.Generator], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """A fault: what it does to a session drawn from a seed, and what may become of it."""

    name: str
    faults: Draw
    must: str = RECOVERS
    errors: tuple[type[DeviceError], ...] = ()


def at(way: str = "") -> Callable[[np.random.Generator], frozenset[tuple[str, int]]]:
    """A frame of the first thirty, that way or either."""

    def draw(rng: np.random.Generator) -> frozenset[tuple[str, int]]:
        where = way or ("out", "in")[int(rng.integers(2))]
        return frozenset({(where, int(rng.integers(30)))})

    return draw


def planned(key: str, way: str = "", **more: Any) -> Draw:
    return lambda rng: {key: at(way)(rng), **more}


LOST = (LinkLost,)
ROWS = (
    Row("none", lambda rng: {}),
    Row("flip 1e-4", lambda rng: {"flip": 1e-4}),
    Row("flip, drop, duplicate, insert 3e-4 each",
        lambda rng: dict.fromkeys(("flip", "drop", "dup", "insert"), 3e-4)),
    Row("burst 1e-4, up to 60 bytes", lambda rng: {"burst": 1e-4}),
    Row("one burst", planned("burst_at")),
    Row("one frame lost", planned("lose")),
    Row("one frame twice", planned("twice")),
    Row("latency 5 ms, jitter 10 ms", lambda rng: {"latency": 5, "jitter": 10}),
    Row("batches of 16 ms (USB)", lambda rng: {"batch": 16}),
    Row("short writes and reads, EAGAIN", lambda rng: {"short": 0.5, "again": 0.3}),
    Row("stands still for 300 ms", planned("stall", stall_ms=300)),
    Row("300 bytes of boot noise", lambda rng: {"noise": 300}),
    Row("baud rate 3 % off", lambda rng: {"skew": float(rng.choice([0.97, 1.03]))}),
    Row("clock wraps", lambda rng: {"wrap": int(rng.integers(80))}),
    Row("baud rate 25 % off", lambda rng: {"skew": float(rng.choice([0.8, 1.25]))}, TYPED, LOST),
    Row("mute from a frame on", planned("mute"), EITHER, LOST),
    Row("mute both ways", lambda rng: {"mute": at("out")(rng) | at("in")(rng)}, EITHER, LOST),
    Row("EIO", planned("eio"), EITHER, LOST),
    Row("unplugged", planned("unplug"), EITHER, LOST),
    Row("board reset", planned("reset"), EITHER, (BoardReset, LinkLost)),
    Row("board reset, boot noise", planned("reset", noise=200), EITHER, (BoardReset, LinkLost)),
    Row("second host on the port", planned("intruder"), EITHER, (BoardReset, LinkLost)),
    Row("other list of messages", lambda rng: {"messages": 7}, TYPED, (LinkRefused,)),
    Row("other version of the link", lambda rng: {"version": 9}, TYPED, (LinkRefused,)),
)  # fmt: skip


@dataclass(frozen=True)
class Script:
    """What a session does: whatever is executed twice or never changes its digest."""

    case: Case
    q: Quantised
    weights: Weights
    increments: Weights
    rounds: int = 3

    def play(self, device: SerialDevice | Emulator) -> int:
        """The session; returns the digest at its end."""
        device.load(self.q.image, self.case.batch, uhat=False)
        device.write_weights(self.weights)
        pending = []
        for k in range(self.rounds):
            device.set_rate(2 + k)
            pending.append(device.submit(Block(self.q.input, self.q.target, learn=True)))
            device.add_weights(self.increments)
        for block in pending:
            block.result()
        return device.digest()


def written(case: Case | None = None, rounds: int = 3) -> Script:
    """The script of a case; a small one by itself."""
    case = case or random_case(20, layers=1, neurons=2, inputs=1, batch=1, steps=6)
    q = quantised(case, chip_with(seed=1), learning_rate=0.1, range_every=16)
    weights = quantise_weights(q.image, case.weights)
    rng = np.random.default_rng(1)
    increments = {
        name: (
            rng.integers(-9, 10, w.shape).astype(np.int16),
            rng.integers(-9, 10, b.shape).astype(np.int32),
        )
        for name, (w, b) in weights.items()
    }
    return Script(case, q, weights, increments, rounds)


@dataclass
class Count:
    """What became of a row's sessions. goodput: bytes of a good session over those of one."""

    row: Row
    sessions: int = 0
    recovered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    slowest: float = 0.0


@contextmanager
def board(device: str = "host:") -> Iterator[tuple[Any, Any]]:
    """A board that serves many sessions, and the times that suit it."""
    if device == "host:":
        with start_host(payload=256, window=4) as running:
            yield running, FAST
        return
    with start_qemu(device.removeprefix("qemu:"), None, None) as running:
        yield running, GENEROUS


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def deadline(timing: Any) -> float:
    """Seconds for a session."""
    return DEADLINE if timing is FAST else SLOWER * DEADLINE


def run_row(running: Any, timing: Any, script: Script, row: Row, seeds: range) -> Count:
    """Sessions of one row. Raises AssertionError for what must not be."""
    with Emulator() as emulator:
        want = script.play(emulator)
    # A bad line may take its time on a busy machine; a dead one is to be noticed.
    slow = max(timing.stalled_after, 9000) if row.must == RECOVERS else timing.stalled_after
    patient = replace(timing, stalled_after=slow)
    count = Count(row)
    for seed in seeds:
        rng = np.random.default_rng([seed, *row.name.encode()])
        faults = Faults(**row.faults(rng), seed=seed)
        before, begun = descriptors(), time.monotonic()
        line = FaultLine(open_line(running.port, 115200), faults, running.reset)
        count.sessions += 1
        try:
            wrap = {} if faults.wrap is None else {"wrap_in": faults.wrap}
            with SerialDevice(line, "board", patient, **wrap) as device:
                digest = script.play(device)
            assert digest == want, (row.name, seed, "a wrong digest")
            assert row.must != TYPED, (row.name, seed, "recovered")
            count.recovered += 1
        except DeviceError as error:
            if row.must == RECOVERS or not isinstance(error, row.errors):
                raise AssertionError(f"{row.name}, seed {seed}: {error!r}") from error
            count.errors[type(error).__name__] += 1
        seconds = time.monotonic() - begun
        assert seconds < deadline(timing), (row.name, seed, seconds)
        assert descriptors() == before, (row.name, seed, "a descriptor is left")
        count.slowest = max(count.slowest, seconds)
        count.bytes += sum(way.struck.bytes for way in line.ways.values())
    return count


SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build_link_matrix(to: Path, compiler: str = "cc", flags: Sequence[str] = SANITIZERS) -> Path:
    """The program of the link's own matrix."""
    program = to / "link_matrix"
    sources = [*sorted((ROOT / "csrc" / "link").glob("*.c")), ROOT / "tests/c/link_world.c",
               ROOT / "tests/c/link_matrix.c"]  # fmt: skip
    command = [compiler, "-std=c11", "-g", "-Wall", "-Wextra", "-Werror", *flags,
               f"-I{ROOT / 'csrc' / 'link'}", *map(str, sources), "-o", str(program)]  # fmt: skip
    subprocess.run(command, check=True)
    return program


def link_rows(program: Path, sessions: int, seed: int) -> list[list[str]]:
    """Fault, sessions, recovered, typed, frames damaged, sent again, goodput, ms a session."""
    done = subprocess.run(
        [str(program), str(sessions), str(seed)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    raw = [line.split("|") for line in done.stdout.splitlines()]
    clean = int(raw[0][6]) / int(raw[0][7])
    rows = []
    for name, *numbers in raw:
        n, recovered, typed, damaged, again, messages, sent, ms = map(int, numbers)
        share = messages / sent / clean if sent else 0.0
        rows.append([name, str(n), str(recovered), str(typed), str(damaged), str(again),
                     f"{100 * share:.0f} %", f"{ms / n:.0f}"])  # fmt: skip
    return rows


def link_part(sessions: int, seed: int) -> str:
    """The link alone, as a section of Markdown."""
    head = ["fault", "sessions", "recovered", "typed", "damaged", "sent again", "goodput", "ms"]
    with tempfile.TemporaryDirectory() as work:
        rows = [head, *link_rows(build_link_matrix(Path(work), flags=["-O2"]), sessions, seed)]
    total = sum(int(row[1]) for row in rows[1:])
    return f"""{total} sessions of the link alone on a virtual clock (tests/c/link_matrix.c),
checked by an oracle that aborts for what is executed twice, never, out of order, or confirmed
without having been executed.

{markdown(rows)}
"""


def device_part(device: str, sessions: int, seed: int) -> str:
    """Whole sessions on a device, as a section of Markdown."""
    rows = [["fault", "sessions", "recovered", "typed errors", "goodput", "slowest, s"]]
    clean = 0.0
    with board(device) as (running, timing):
        script = written(rounds=12)
        for row in ROWS:
            c = run_row(running, timing, script, row, range(seed, seed + sessions))
            each = c.bytes / max(1, c.sessions)
            clean = clean or each
            errors = ", ".join(f"{n} {name}" for name, n in c.errors.most_common()) or "none"
            share = f"{100 * clean / each:.0f} %" if c.recovered == c.sessions else ""
            rows.append([row.name, str(c.sessions), str(c.recovered), errors, share,
                         f"{c.slowest:.1f}"])  # fmt: skip
            print(rows[-1], flush=True)
    total = sum(int(row[1]) for row in rows[1:])
    return f"""{total} whole sessions on `{device}`, each of which loads a network, writes weights,
learns in 12 blocks, adds increments and ends with the digest of a good one or a typed error,
within {deadline(timing):.0f} s and with no descriptor left.

{markdown(rows)}
"""


def main(argv: list[str]) -> int:
    """Run both parts, or one, and write each into a file of a folder, or print it."""
    parser = argparse.ArgumentParser(description="The fault matrix.")
    parser.add_argument("--sessions", type=int, default=20, help="of each fault, the link alone")
    parser.add_argument("--host", type=int, default=4, help="of each fault, on a device")
    parser.add_argument("--device", default="host:", help="host: or qemu:<board>")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    command = f"PYTHONPATH=. python tests/link/fault_matrix.py --seed {given.seed}"
    made = []
    if given.sessions:
        text = link_part(given.sessions, given.seed)
        made.append(("link", f"--sessions {given.sessions} --host 0", text))
    if given.host:
        text = device_part(given.device, given.host, given.seed)
        name = given.device.strip(":").replace(":", "-")
        made.append((name, f"--sessions 0 --host {given.host} --device {given.device}", text))
    for name, options, text in made:
        whole = f"    {command} {options}\n\n{text}"
        if given.out is None:
            print(whole)
        else:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / f"{name}.md").write_text(whole)
    return 0


def markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
