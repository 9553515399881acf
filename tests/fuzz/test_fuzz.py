"""Fuzzing: the invariants of SECURITY.md on any bytes, for a little while.

Without clang the fuzzers still run, on what is kept and on damaged copies of it. How many
executions they have seen in all stands in bench/results/fuzz.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import fuzzers
import pytest
from fuzzers import CORPUS, FUZZERS, REGRESSIONS, build, built, checked, kept, run_libfuzzer
from programs import present

SHORT, LONG = 2, 60  # seconds of each


alone = pytest.mark.skipif(present("libFuzzer"), reason="libFuzzer does the same and more")


def run_alone(name: str, seed: int, rounds: int) -> None:
    compiler = next((c for c in ("gcc", "cc", "clang") if shutil.which(c)), None)
    assert compiler, "no C compiler, yet hwgle was built"
    program = built(name, compiler, libfuzzer=False)
    files = [str(f) for f in kept(name)]
    assert len(files) >= 5
    assert f"{len(files)} files" in checked([str(program), *files])
    checked([str(program), "--damage", str(seed), str(rounds), *files])


@alone
@pytest.mark.parametrize("name", FUZZERS)
def test_what_is_kept_and_damaged_copies_of_it(name: str, seed: int) -> None:
    run_alone(name, seed, 1000)


@pytest.mark.long
@pytest.mark.parametrize("name", FUZZERS)
def test_many_damaged_copies_of_what_is_kept(name: str, seed: int) -> None:
    run_alone(name, seed, 20000)


@pytest.mark.board("libFuzzer")
@pytest.mark.parametrize("name", FUZZERS)
def test_a_short_while_under_libfuzzer(name: str, tmp_path: Path, seed: int) -> None:
    fuzz(name, tmp_path, SHORT, seed)


@pytest.mark.long
@pytest.mark.board("libFuzzer")
@pytest.mark.parametrize("name", FUZZERS)
def test_a_minute_under_libfuzzer(name: str, tmp_path: Path, seed: int) -> None:
    fuzz(name, tmp_path, LONG, seed)


def fuzz(name: str, work: Path, seconds: int, seed: int) -> None:
    seeds = [CORPUS / name, REGRESSIONS / name]
    program = built(name, "clang", libfuzzer=True)
    ran = run_libfuzzer(program, name, seconds, work, seeds, seed % 2**31)
    print(ran)
    assert ran.executions >= len(kept(name))


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong"),
    [
        ("frame", "link/frame.c", "n < receiver->capacity", "n <= receiver->capacity"),
        ("message", "device/message_codec.h", "n / (size_t)one : SIZE_MAX", "n / (size_t)one : 0"),
    ],
)
def test_a_fault_in_the_core_is_noticed(
    name: str, file: str, right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "csrc"
    shutil.copytree(fuzzers.CSRC, copy)
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong, 1))
    monkeypatch.setattr(fuzzers, "CSRC", copy)
    compiler = shutil.which("gcc") or "cc"
    program = build(name, tmp_path / "bin", compiler, libfuzzer=False)
    files = [str(f) for f in kept(name)]
    with pytest.raises(AssertionError, match=r"INVARIANT BROKEN|AddressSanitizer|runtime error"):
        checked([str(program), "--damage", "1", "3000", *files])
