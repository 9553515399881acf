"""What all tests share: the seed, and which tests run where.

Long tests run with `--all` only. A test marked `board("PROGRAM", ...)` is
skipped where one of the programs is missing, or fails there if
`HWGLE_REQUIRE_BOARDS=1`. What was skipped, and why, is said in one line at the end.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from programs import present

BASE_SEED = int(os.environ.get("HWGLE_TEST_SEED", "20250101"))
REQUIRE_BOARDS = os.environ.get("HWGLE_REQUIRE_BOARDS", "") not in ("", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked long too")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # What a shell starts in its background ignores Ctrl-C, and so would every program that a
    # test starts and interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hypothesis draws from the base seed too, unless --hypothesis-seed is given.
    if getattr(config.option, "hypothesis_seed", 0) is None:
        config.option.hypothesis_seed = BASE_SEED


def pytest_report_header() -> str:
    return f"hwgle: base seed {BASE_SEED} (HWGLE_TEST_SEED)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        reason = None
        if item.get_closest_marker("long") and not config.getoption("--all"):
            reason = "long (--all runs them)"
        elif not REQUIRE_BOARDS and (missing := missing_programs(item)):
            reason = f"board (no {', '.join(missing)})"
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Without HWGLE_REQUIRE_BOARDS such a test has been skipped before this.
    if missing := missing_programs(item):
        pytest.fail(f"HWGLE_REQUIRE_BOARDS is set and there is no {', '.join(missing)}")


def missing_programs(item: pytest.Item) -> list[str]:
    """The programs that a board test needs and this machine lacks."""
    needed = dict.fromkeys(name for mark in item.iter_markers("board") for name in mark.args)
    return [name for name in needed if not present(name)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if skipped:
        parts = (f"{count} {reason}" for reason, count in sorted(skipped.items()))
        terminalreporter.write_line(f"hwgle: tests skipped: {'; '.join(parts)}")


@pytest.fixture
def seed() -> int:
    """The base seed of this run: the same for every test."""
    return BASE_SEED
