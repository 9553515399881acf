"""The pytest plugin, as those who test their own boards use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

# The plugin may be installed (then pytest loads it by its entry point) or not.
LOAD = ("-p", "no:hwgle", "-p", "hwgle.pytest_plugin", "-p", "no:cacheprovider")

BOARD_TEST = """
    from dataclasses import replace

    def test_golden(hwgle_device, hwgle_golden, assert_bit_equal):
        trace = hwgle_golden.check(hwgle_device)
        assert_bit_equal(trace, hwgle_golden.expected())
"""


def test_golden_networks_on_the_emulator(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BOARD_TEST)
    result = pytester.runpytest(*LOAD, "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_golden*emu:*imperfect* PASSED*"])


def test_each_test_runs_on_each_device(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        SEEN = []

        def test_one(hwgle_device):
            SEEN.append(hwgle_device)

        def test_opened_once(hwgle_device):
            assert hwgle_device is SEEN[0]

        def test_without():
            pass
        """
    )
    result = pytester.runpytest(*LOAD, "--hwgle-device", "emu:", "--hwgle-device=emu:")
    result.assert_outcomes(passed=3)
    result = pytester.runpytest(*LOAD, "--hwgle-device", "emu:", "--hwgle-device=nothing")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*--hwgle-device nothing: device 'nothing' is not known*"])


def test_a_difference_names_layer_signal_neuron_stream_and_step(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        from hwgle.golden import load_golden
        from hwgle.pytest_plugin import assert_bit_equal

        def test_one_bit(hwgle_device):
            golden = load_golden("narrow")
            a, b = golden.run(hwgle_device), golden.expected()
            b.signals["upper.e"][17:, 0, 4] ^= 2
            b.signals["out.r"][18:] += 1
            assert_bit_equal(a, b, "board and emulator")
        """
    )
    result = pytester.runpytest(*LOAD)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*board and emulator: not equal in every bit: first difference: layer upper, signal e, "
         "neuron 4, stream 0, step 17: *"]
    )  # fmt: skip


def test_a_device_that_fails_is_told_and_closed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from hwgle.devices import emulator
        from hwgle.errors import LinkLost

        CLOSED = []

        def test_unplugged(hwgle_device, monkeypatch):
            def lost():
                raise LinkLost("gone")
            hwgle_device.answered = lost
            hwgle_device.close = lambda: CLOSED.append(hwgle_device)

        def test_after(hwgle_device):
            assert len(CLOSED) == 1
            assert hwgle_device is not CLOSED[0]
            assert hwgle_device.answered()
        """
    )
    pytester.runpytest(*LOAD).assert_outcomes(passed=2)


def test_it_lives_beside_the_conftest_of_this_project(pytester: pytest.Pytester) -> None:
    conftest = Path(__file__).parents[1] / "conftest.py"
    pytester.makeconftest(conftest.read_text())
    pytester.makeini("[pytest]\nmarkers =\n  long: x\n  board(*programs): x\n")
    pytester.makepyfile(BOARD_TEST)
    result = pytester.runpytest(*LOAD, "--strict-markers", "--strict-config")
    result.assert_outcomes(passed=4)


def test_unused_it_imports_nothing_of_weight(environment_of_python: dict[str, str]) -> None:
    code = (
        "import sys, pytest, hwgle.pytest_plugin; "
        "heavy = {'numpy', 'hwgle._core', 'hwgle.device', 'pydantic', 'yaml'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment_of_python, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def environment_of_python() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_entry_point_names_the_plugin() -> None:
    import tomllib

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    points = tomllib.loads(text)["project"]["entry-points"]["pytest11"]
    assert points == {"hwgle": "hwgle.pytest_plugin"}


@pytest.mark.long
def test_golden_networks_on_the_host_process(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BOARD_TEST)
    pytester.runpytest(*LOAD, "--hwgle-device", "host:").assert_outcomes(passed=4)


@pytest.mark.long
@pytest.mark.board("qemu-system-riscv32", "riscv64-unknown-elf-gcc")
def test_golden_networks_on_an_emulated_board(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BOARD_TEST)
    pytester.runpytest(*LOAD, "--hwgle-device", "qemu:hifive1").assert_outcomes(passed=4)
