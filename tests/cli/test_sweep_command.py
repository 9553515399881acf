"""`hwgle sweep` as a process: Ctrl-C, SIGKILL at any moment, shards, wrong usage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sweeps import BITS, ROUGH, threads, write

from hwgle.sweep.driver import run_sweep
from hwgle.sweep.study import load_sweep
from hwgle.sweep.table import rows, write_table

COMMAND = [sys.executable, "-m", "hwgle", "sweep"]
DEADLINE = 300.0


def sweep(environment: dict[str, str], *args: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("finished*.jsonl"))


def started(environment: dict[str, str], out: Path, *args: object) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, args), "--out", str(out)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def until(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Wait for so many finished jobs, or the end."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and lines(out) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def table(out: Path) -> bytes:
    return (out / "table.jsonl").read_bytes() + (out / "table.npz").read_bytes()


def killed_and_continued(
    tmp_path: Path, environment: dict[str, str], times: int, workers: int, seed: int
) -> None:
    path = write(tmp_path, seeds={"chip": [0, 1, 2]}, axes=BITS + ROUGH)
    whole = tmp_path / "whole"
    what = load_sweep(str(path))
    with threads() as found:
        write_table(whole, rows(what, run_sweep(what, whole, found)))
    assert len(table(whole)) > 1000
    rng = np.random.default_rng(seed)
    out = tmp_path / "killed"
    killed = 0
    for _ in range(times):
        process = started(environment, out, path, "--workers", workers)
        until(process, out, lines(out) + int(rng.integers(1, 4)))
        time.sleep(float(rng.uniform(0, 0.05)))  # anywhere in what it is doing then
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed
    result = sweep(environment, path, "--workers", workers, "--out", out)
    assert result.returncode == 0, result.stderr
    assert table(out) == table(whole)
    # every job once, and nothing half-written is left
    keys = [json.loads(line)["job"] for p in out.glob("finished*") for line in p.open()]
    assert len(keys) == len(set(keys)) == 3 * 2 * (1 + 3)
    pictures = {"heat-weight-bits-rate-bits", "heat-weight-bits-weight-mismatch",
                "heat-rate-bits-weight-mismatch", "pareto", "yield"}  # fmt: skip
    files = {f"{name}.{kind}" for name in pictures for kind in ("svg", "png")}
    files |= {"finished.jsonl", "table.jsonl", "table.npz"}
    assert {p.name for p in out.iterdir()} == files


def test_killed_at_random_it_ends_with_the_same_table(
    tmp_path: Path, environment: dict[str, str], seed: int
) -> None:
    killed_and_continued(tmp_path, environment, 1, 1, seed)


@pytest.mark.long
def test_killed_ten_times_it_ends_with_the_same_table(
    tmp_path: Path, environment: dict[str, str], seed: int
) -> None:
    killed_and_continued(tmp_path, environment, 10, 2, seed)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, environment: dict[str, str]) -> None:
    axes = [{"key": "chip.weight.mismatch", "low": 0.01, "high": 0.9, "step": 0.001}]
    path = write(tmp_path, axes=axes)
    out = tmp_path / "out"
    process = started(environment, out, path, "--workers", 1)
    until(process, out, 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, told = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, told
    assert "points are finished" in told
    assert "Traceback" not in told
    assert lines(out) >= 3
    assert sorted(p.name for p in out.iterdir()) == ["finished.jsonl"]


def test_shards_end_with_a_table_and_wrong_usage_is_told(
    tmp_path: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    from click.testing import CliRunner

    from hwgle.cli.sweep import command

    path = write(tmp_path, axes=BITS[1:])
    out = tmp_path / "out"
    first = sweep(environment, path, "--shard", "2/3", "--out", out)
    assert first.returncode == 0, first.stderr
    assert "shard 2/3 is done; 1 of 2 points are there" in first.stdout
    assert not (out / "table.jsonl").exists()
    last = sweep(environment, path, "--shard", "1/3", "--out", out)
    assert "Pareto front" in last.stdout
    assert {"table.jsonl", "table.npz", "curve.svg", "pareto.svg"} <= {
        p.name for p in out.iterdir()
    }
    lines_found = [json.loads(line) for line in (out / "table.jsonl").open()]
    with np.load(out / "table.npz") as arrays:
        assert arrays["raw"].tolist() == [row["raw"] for row in lines_found]
        assert arrays["chip.rate.bits"].tolist() == [4, 8]
    for options, told in (
        (["--shard", "3/2"], "allowed: I/N with 1 <= I <= N"),
        (["--shard", "1/2", "--scheduler", "tcp://x:1"], "no --workers, no --shard"),
    ):
        result = CliRunner().invoke(command, [str(path), "--out", str(out), *options])
        assert told in str(result.exception)
    search = {"kind": "tpe", "points": 3}
    path = write(tmp_path, search=search)
    result = CliRunner().invoke(command, [str(path), "--out", str(out), "--shard", "1/2"])
    assert "--shard: search tpe" in str(result.exception)
