"""`hwgle stream`: outputs as `run` gives them, at a rate, from whatever brings samples."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from hwgle.cli.main import cli
from hwgle.samples import parse
from hwgle.stream import Latencies

HWGLE = [sys.executable, "-m", "hwgle"]
HOST = pytest.param("host:", marks=pytest.mark.board("cc"))
PATIENCE = 300.0  # seconds for a command, on a machine that is busy
STREAM = ["stream", "net.yaml", "--weights", "w.npz"]


def run(*args: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, [*STREAM, *args], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def values(text: str, between: str = ",") -> NDArray[np.float64]:
    return np.array([[float(x) for x in line.split(between)] for line in text.splitlines()])


@pytest.fixture
def reference(files: Path) -> NDArray[np.float64]:
    """The outputs of `hwgle run` for one stream, whose scales s.npz holds."""
    x = np.load("x.npy")[:, :1]
    np.save("one.npy", x)
    np.save("flat.npy", x[:, 0])
    args = ["run", "net.yaml", "--weights", "w.npz", "--input", "one.npy", "--out", "s.npz"]
    assert CliRunner().invoke(cli, args).exit_code == 0
    with np.load("s.npz") as out:
        return np.asarray(out["output"][:, 0], dtype=np.float64)


@pytest.mark.parametrize("body", ["emu:", HOST])
@pytest.mark.parametrize("rate", [None, "400"])
def test_outputs_are_those_of_run(
    reference: NDArray[np.float64], body: str, rate: str | None
) -> None:
    more = [] if rate is None else ["--rate", rate]
    code, out, err = run("flat.npy", "--scales", "s.npz", "--device", body, *more)
    assert code == 0, err
    np.testing.assert_allclose(values(out), reference, rtol=1e-6)
    assert "40 in " in err
    assert re.search(r"p50 [\d.e-]+, p95 [\d.e-]+, p99 [\d.e-]+, max [\d.e-]+ ms", err)
    assert ("deadlines" in err) == (rate is not None)


def test_all_ways_to_bring_samples_are_equal(
    reference: NDArray[np.float64], environment: dict[str, str]
) -> None:
    x = np.load("flat.npy")
    np.savetxt("x.txt", x, header="two numbers a step", delimiter=", ")
    x.astype("<f4").tofile("x.f32")
    scales = ["--scales", "s.npz"]
    texts = {name: run(name, *scales)[1] for name in ("one.npy", "flat.npy", "x.txt")}
    texts["raw"] = run("x.f32", "--raw", *scales)[1]
    texts["tabs"] = run("flat.npy", "--tsv", *scales)[1].replace("\t", ",")
    command = [*HWGLE, *STREAM, *scales]
    for name, file, more in (("stdin", "x.txt", []), ("stdin raw", "x.f32", ["--raw"])):
        with open(file, "rb") as stdin:
            done = subprocess.run(
                [*command, "-", *more], env=environment, stdin=stdin, capture_output=True,
                text=True, timeout=PATIENCE, check=True,
            )  # fmt: skip
        texts[name] = done.stdout
    first = values(texts["flat.npy"])
    for name, text in texts.items():
        np.testing.assert_allclose(values(text), first, atol=2e-3, err_msg=name)
    assert texts["one.npy"] == texts["flat.npy"] == texts["tabs"]
    assert texts["stdin raw"] == texts["raw"]


def test_a_rate_is_kept(reference: NDArray[np.float64]) -> None:
    begun = time.monotonic()
    code, out, err = run("flat.npy", "--scales", "s.npz", "--rate", "100")
    assert code == 0
    assert len(out.splitlines()) == 40
    assert time.monotonic() - begun > 0.38  # how much later depends on the machine
    assert "asked for 100" in err


def test_missed_deadlines_are_counted(reference: NDArray[np.float64]) -> None:
    _, _, err = run("flat.npy", "--scales", "s.npz", "--rate", "1000000")
    assert re.search(r"missed +(39|40) of 40 deadlines", err)


def test_it_calibrates_on_the_first_samples(reference: NDArray[np.float64]) -> None:
    code, out, err = run("flat.npy", "--calibrate", "20")
    assert code == 0, err
    np.testing.assert_allclose(values(out), reference, atol=0.02)


def test_outputs_come_while_samples_are_still_to_come(
    reference: NDArray[np.float64], environment: dict[str, str]
) -> None:
    process = subprocess.Popen(
        [*HWGLE, *STREAM, "--scales", "s.npz"], env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(3):
        process.stdin.write("0.5 0.25\n")
        process.stdin.flush()
        assert len(process.stdout.readline().split(",")) == 3
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert out == ""
    assert "3 in " in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "found"),
    [("1 2 3", "3 values"), ("1", "1 values"), ("1 x", "'x'"), ("nan 1", "not finite")],
)
def test_a_bad_line_is_one_message(reference: NDArray[np.float64], line: str, found: str) -> None:
    Path("bad.txt").write_text(f"# numbers\n1 2\n\n{line}\n1 2\n")
    code, out, err = run("bad.txt", "--scales", "s.npz")
    assert code == 4
    assert len(out.splitlines()) == 1
    (message,) = [text for text in err.splitlines() if "bad.txt" in text]
    assert message.startswith("bad.txt:4: found ")
    assert found in message
    assert "1 in " in err


def test_mistakes_are_told(reference: NDArray[np.float64]) -> None:
    assert run("-")[0] == 2  # no scales
    assert run("flat.npy", "--rate", "0")[0] == 2
    assert run("flat.npy", "--rate", "nan")[0] == 2
    assert run("flat.npy", "--record-latency", "no/h.csv")[0] == 2
    assert run("none.txt", "--scales", "s.npz")[0] == 4
    np.save("wide.npy", np.zeros((4, 3)))
    code, _, err = run("wide.npy", "--scales", "s.npz")
    assert code == 4
    assert "(T, 2)" in err
    Path("short.f32").write_bytes(b"\0" * 12)
    assert run("short.f32", "--raw", "--scales", "s.npz")[0] == 4
    Path("empty.txt").write_text("")
    assert run("empty.txt")[0] == 2
    code, _, err = run("empty.txt", "--scales", "s.npz")
    assert code == 0
    assert "0 in " in err


def test_a_reader_that_goes_away_ends_it(
    reference: NDArray[np.float64], environment: dict[str, str]
) -> None:
    np.save("long.npy", np.zeros((20000, 2)))
    command = " ".join([*HWGLE, *STREAM, "--scales", "s.npz", "long.npy"]) + " | head -2"
    done = subprocess.run(
        command,
        shell=True,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr
    assert "latency" in done.stderr


def test_the_histogram(reference: NDArray[np.float64]) -> None:
    assert run("flat.npy", "--scales", "s.npz", "--record-latency", "h.csv")[0] == 0
    head, *rows = Path("h.csv").read_text().splitlines()
    assert head == "upto_ms,count"
    assert sum(int(row.split(",")[1]) for row in rows) == 40


def test_latencies_by_hand() -> None:
    one = Latencies()
    one.seconds.extend([0.001, 0.002, 0.003, 0.2])
    assert one.percentiles()[-1] == 0.2
    assert one.missed(0.0025) == 2
    assert one.missed(None) == 0
    assert sum(n for _, n in one.histogram()) == 4
    assert all(np.isnan(Latencies().percentiles()))
    assert Latencies().histogram() == []


def test_lines_by_hand() -> None:
    for text in (b"1 2", b"1,2", b" 1;\t2 \r", b"1e0, 2.0"):
        sample = parse(text, 1, 2, "f")
        assert sample is not None
        assert sample.tolist() == [1.0, 2.0]
    assert parse(b"  # words", 1, 2, "f") is None
