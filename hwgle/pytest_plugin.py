"""pytest plugin for tests of boards: `--hwgle-device`, a device, golden networks, equality.

    def test_my_board(hwgle_device, hwgle_golden):
        hwgle_golden.check(hwgle_device)

Nothing of hwgle is imported before a fixture or an assertion is used, so that it costs
nothing where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hwgle.device import Device
    from hwgle.golden import Golden

DEFAULT = ("emu:",)
# tests/conftest.py and other plugins have options, marks and fixtures of their own: all of
# these begin with hwgle.


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--hwgle-device URL`, as often as there are devices; `--hwgle-baud`."""
    group = parser.getgroup("hwgle", "hwgle: boards that run GLE networks")
    group.addoption(
        "--hwgle-device",
        action="append",
        default=[],
        metavar="URL",
        dest="hwgle_devices",
        help="a device for the fixture hwgle_device: emu:, host:, qemu:BOARD, /dev/ttyACM0 "
        "...; may be given again: each test runs on each (default: emu:)",
    )
    group.addoption(
        "--hwgle-baud", type=int, metavar="BAUD", help="of a serial port (default: 115200)"
    )


def devices(config: pytest.Config) -> list[str]:
    """The device strings of this run, each once."""
    return list(dict.fromkeys(config.getoption("hwgle_devices") or DEFAULT))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each device; one for each golden network."""
    if "hwgle_device_url" in metafunc.fixturenames:
        urls = devices(metafunc.config)
        metafunc.parametrize("hwgle_device_url", urls, ids=urls, scope="session")
    if "hwgle_golden_name" in metafunc.fixturenames:
        from hwgle.golden import golden_names

        metafunc.parametrize("hwgle_golden_name", golden_names(), scope="session")


@pytest.fixture(scope="session")
def _hwgle_opened() -> Iterator[dict[str, Any]]:
    """Devices by their string: a board is opened once for all tests."""
    opened: dict[str, Any] = {}
    yield opened
    for device in opened.values():
        device.close()


@pytest.fixture
def hwgle_device(
    hwgle_device_url: str, _hwgle_opened: dict[str, Any], pytestconfig: pytest.Config
) -> Iterator[Device]:
    """The device of `--hwgle-device`, open; a test must load a network first.

    It is opened once, and again after a test that ended its session. There is no shadow:
    what it does is for the test to judge (`hwgle_golden.check`, `assert_bit_equal`).
    """
    from hwgle.devices import open_device
    from hwgle.errors import DeviceError, HwgleError

    if hwgle_device_url not in _hwgle_opened:
        try:
            baud = pytestconfig.getoption("hwgle_baud")
            opened = open_device(hwgle_device_url, shadow=False, baud=baud)
        except HwgleError as error:
            pytest.fail(f"--hwgle-device {hwgle_device_url}: {error}", pytrace=False)
        _hwgle_opened[hwgle_device_url] = opened
    device: Device = _hwgle_opened[hwgle_device_url]
    yield device
    try:
        device.answered()
    except DeviceError:
        _hwgle_opened.pop(hwgle_device_url).close()


@pytest.fixture
def hwgle_golden(hwgle_golden_name: str) -> Golden:
    """Every golden network in turn; see hwgle/golden.py, and `hwgle.golden.load_golden` for
    one by its name."""
    from hwgle.golden import load_golden

    return load_golden(hwgle_golden_name)


def assert_bit_equal(a: Any, b: Any, message: str = "") -> None:
    """Fail with the first difference in time: layer, signal, neuron, stream and step.

    a, b: what `Golden.run` or `hwgle.session.run` gave, paths of OUT.npz files, mappings of
    arrays, stored weights, arrays or digests, of the same kind. Bits count: there is no
    tolerance, and NaN equals NaN.
    """
    __tracebackhide__ = True
    from hwgle.bits import first_difference

    found = first_difference(a, b)
    if found is not None:
        head = f"{message}: " if message else ""
        pytest.fail(f"{head}not equal in every bit: first difference: {found}", pytrace=True)


@pytest.fixture(name="assert_bit_equal")
def _assert_bit_equal() -> Any:
    """The function of this name, for tests that would rather not import it."""
    return assert_bit_equal
