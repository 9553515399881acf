"""The bodies behind a port: `host:`, `qemu:<board>`, serial ports, and faults before them.

Options stand behind a `?`, as in a URL: `host:?memory=65536&payload=64`,
`/dev/ttyACM0?baud=1000000`, `fault+host:?flip=1e-5&seed=3`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from hwgle.devices.faults import KEYS, FaultLine, Faults
from hwgle.devices.line import Line, open_line
from hwgle.devices.port import FAST, GENEROUS
from hwgle.devices.serial import SerialDevice
from hwgle.errors import UsageError

BAUD = 115200
OURS = {"host": ("memory", "payload", "window"), "qemu": ("payload", "window"), "serial": ()}
FAULT = "fault+"
Reset = Callable[[], None]
Wrap = Callable[[Line, Reset | None], Line]


def split_options(url: str) -> tuple[str, dict[str, str]]:
    """What stands before the `?`, and the options behind it."""
    name, _, query = url.partition("?")
    return name, dict(parse_qsl(query, keep_blank_values=True))


def open_body(
    url: str, baud: int | None = None, wrap: Wrap | None = None, **port: Any
) -> SerialDevice:
    """The board behind a device string, its session open.

    wrap: puts a layer around its line. Raises UsageError for a string that names none,
    DeviceError when it cannot be started or opened or does not answer.
    """
    if url.startswith(FAULT):
        return _open_fault(url, baud, wrap, port)
    if url.startswith("host:"):
        return _open_host(url, wrap, port)
    if url.startswith("qemu:"):
        return _open_qemu(url, wrap, port)
    return _open_serial(url, baud, wrap, port)


def _open_fault(
    url: str, baud: int | None, wrap: Wrap | None, port: dict[str, Any]
) -> SerialDevice:
    from hwgle.devices import on_the_wire

    on_the_wire(url.removeprefix(FAULT))
    name, options = split_options(url.removeprefix(FAULT))
    faults = Faults.parse({k: v for k, v in options.items() if k in KEYS})
    rest = {k: v for k, v in options.items() if k not in KEYS}
    inner = f"{name}?{urlencode(rest)}" if rest else name
    if faults.wrap is not None:
        port = {**port, "wrap_in": faults.wrap}

    here = [faults]

    def wrapped(line: Line, reset: Reset | None) -> Line:
        line = FaultLine(line, here[0], reset)
        here[0] = faults.unplanned()  # a line that is opened again has had them
        return wrap(line, reset) if wrap is not None else line

    return open_body(inner, baud, wrapped, **port)


def _integers(kind: str, name: str, options: dict[str, str], also: str = "") -> dict[str, int]:
    allowed = OURS[kind]
    if unknown := [k for k in options if k not in allowed]:
        text = ", ".join((*allowed, *([also] if also else []))) or "none"
        faults = f"; with fault+ before it: {', '.join(KEYS)}"
        raise UsageError(f"device {name}: no option {', '.join(unknown)}; allowed: {text}{faults}")
    for key, text in options.items():
        if not text.isdecimal() or int(text) < 1:
            raise UsageError(f"device {name}: {key}={text}; allowed: a positive number")
    return {k: int(v) for k, v in options.items()}


def _open_host(url: str, wrap: Wrap | None, port: dict[str, Any]) -> SerialDevice:
    name, options = split_options(url)
    if name != "host:":
        raise UsageError(f"device {url!r}: only options may stand behind 'host:', after a '?'")
    numbers = _integers("host", name, options)
    from hwgle import boards

    return _opened(boards.start_host(**numbers), "host", wrap, {"timing": FAST, **port})


def _open_qemu(url: str, wrap: Wrap | None, port: dict[str, Any]) -> SerialDevice:
    name, options = split_options(url)
    numbers = _integers("qemu", name, options)
    from hwgle import boards

    runner = boards.start_qemu(
        name.removeprefix("qemu:"), numbers.get("payload"), numbers.get("window")
    )
    return _opened(runner, name, wrap, {"timing": GENEROUS, **port})


def _open_serial(
    url: str, baud: int | None, wrap: Wrap | None, port: dict[str, Any]
) -> SerialDevice:
    name, options = split_options(url)
    if text := options.pop("baud", None):
        baud = _integers_baud(name, text)
    if "://" in name and options:
        name = f"{name}?{urlencode(options)}"  # pyserial's own
    else:
        _integers("serial", name, options, "baud")

    def again() -> Line:
        return _line(name, baud or BAUD, wrap, None)

    return SerialDevice(again(), name, again=again, **port)


def _line(port: str, baud: int, wrap: Wrap | None, reset: Reset | None) -> Line:
    """A line with the layer around it, or neither left open."""
    line = open_line(port, baud)
    if wrap is None:
        return line
    try:
        return wrap(line, reset)
    except BaseException:
        line.close()
        raise


def _integers_baud(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"device {name}: baud={text}; allowed: a positive number")
    return int(text)


def _opened(runner: Any, name: str, wrap: Wrap | None, port: dict[str, Any]) -> SerialDevice:
    """A session with an emulated board; the runner is closed with it, or on failure."""

    def again() -> Line:
        return _line(runner.port, BAUD, wrap, runner.reset)

    try:
        line = again()
    except BaseException:
        runner.close()
        raise
    return SerialDevice(line, name, body=runner, again=again, **port)
