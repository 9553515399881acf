"""Limits: paths, files with mistakes, what holds and what does not, JUnit."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from hwgle.accuracy_report import limits, paths
from hwgle.accuracy_report.schema import resolve
from hwgle.errors import FileMistakes

REPORT = {
    "chips": [
        {"task": {"chip": {"raw": 0.8}}, "budget": {"layers": {"a": {"x": 1.0}, "b": {"x": 3}}}},
        {"task": {"chip": {"raw": 0.9}}, "budget": {"layers": {"a": {"x": None}}}},
    ]
}


def test_paths_name_values() -> None:
    assert list(paths.matches(REPORT, "chips[1].task.chip.raw")) == [
        ("chips[1].task.chip.raw", 0.9)
    ]
    found = dict(paths.matches(REPORT, "chips[*].budget.layers.*.x"))
    assert found == {
        "chips[0].budget.layers.a.x": 1.0,
        "chips[0].budget.layers.b.x": 3,
        "chips[1].budget.layers.a.x": None,
    }
    assert not list(paths.matches(REPORT, "chips[2].task"))
    assert not list(paths.matches(REPORT, "chips[0].tusk"))
    with pytest.raises(KeyError):
        paths.value(REPORT, "chips[7]")


@pytest.mark.parametrize("path", ["", "a..b", "a[", "a[x]", ".a", "a b", "a[-1]"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        paths.parse(path)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("chips[0].task.chip.calibrated", None),
        ("chips[*].budget.layers.h1.r.sqnr", None),
        ("chips[*].budget.layers.*.dW.accumulated.mismatch.rms", None),
        ("chips[0].budget.output.powers.pairs.converters+mismatch", None),
        ("chips[0].bodies[0].real_time_dt", None),
        ("chips[0].formats.each[*].clipped", None),
        ("chips[0].widths.each.rate.chip.more.output", None),
        ("chips[0].task.confusion.chip[0][1]", None),
        ("chips[0].budget.time.layers.h1.r.noise[3]", None),
        ("chips[0].budget.layers.h9.r.sqnr", "h9"),
        ("chips[0].tusk.chip.raw", "tusk"),
        ("chips.task", "task"),
        ("chips[0].task", "task"),
        ("chips[0].name", "name"),
        ("network[0]", "[0]"),
    ],
)
def test_paths_are_held_against_the_schema(path: str, wrong: str | None) -> None:
    found = resolve(paths.parse(path), ["h1", "out"])
    assert (None if found is None else found[0]) == wrong


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "limits.yaml"
    file.write_text(text)
    return file


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "format: hwgle/limits/1\n"
        "limits:\n"
        "  - {path: 'chips[0].task.chip.raw', min: high}\n"
        "  - {path: 'chips[0].task.chip.raw', min: 2, max: 1}\n"
        "  - {path: 'chips[0].task.chip.raw'}\n"
        "  - {path: 'chips[.x', min: 1}\n"
        "  - {min: 1, mux: 3}\n",
    )
    with pytest.raises(FileMistakes) as error:
        limits.load(file, ["h1"])
    text = str(error.value)
    for part in (
        f"{file}:3: limits[0].min: found the text 'high'",
        f"{file}:4: limits[1].min: found 2; allowed: at most max = 1",
        f"{file}:5: limits[2]: found neither min nor max",
        f"{file}:6: limits[3].path: found '[.x' in 'chips[.x'",
        f"{file}:7: limits[4].path: found nothing",
        f"{file}:7: limits[4].mux: found unknown key",
    ):
        assert part in text, text
    assert error.value.exit_code == 4


def test_a_path_that_no_report_has(tmp_path: Path) -> None:
    text = "format: hwgle/limits/1\nlimits:\n  - {path: 'chips[0].tusk.chip.raw', min: 1}\n"
    with pytest.raises(FileMistakes, match=r"limits.yaml:3: .*no 'tusk'.*did you mean task"):
        limits.load(write(tmp_path, text), ["h1"])


def test_what_holds_and_what_junit_is_told(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "format: hwgle/limits/1\n"
        "limits:\n"
        "  - {path: 'chips[*].task.chip.raw', min: 0.85, why: \"review <May>\"}\n"
        "  - {path: 'chips[0].budget.output.sqnr', max: 60}\n",
    )
    _, loaded = limits.load(file, ["a"])
    results = limits.check(loaded, REPORT)
    assert [r["met"] for r in results] == [False, True, False]  # the last was not measured
    assert limits.in_words(results[0]) == (
        "chips[0].task.chip.raw: found 0.8; allowed: at least 0.85 (review <May>)"
    )
    root = ElementTree.fromstring(limits.junit(results, "tiny"))
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    failures = [case.find("failure") for case in suite]
    assert [f is not None for f in failures] == [True, False, True]
    assert failures[0] is not None
    assert "review <May>" in (failures[0].text or "")


def test_ends_belong_to_a_limit() -> None:
    one = limits.Limit(path="chips[0].task.chip.raw", min=0.8, max=0.8)
    found = limits.Limits(format="hwgle/limits/1", limits=(one,))
    assert limits.check(found, REPORT)[0]["met"]
