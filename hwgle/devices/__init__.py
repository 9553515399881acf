"""The bodies a chip can have, by the string that `--device` and `hwgle.open()` take.

emu:               the core in this process (the default)
host:              the firmware as a process of its own, built on first use
qemu:<board>       the firmware in an emulated board
/dev/ttyACM0 COM3 socket://host:port rfc2217://host:port
                   a board: whatever pyserial's serial_for_url takes
fault+<any but emu:>?flip=1e-5&seed=1
                   the same over a bad line, see faults/options.py

A body adds a file here and one line in BODIES; its module is imported when first used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from hwgle.device import Device
from hwgle.errors import UsageError

if TYPE_CHECKING:
    from hwgle.devices.serial import SerialDevice

# what a device string begins with -> (module, function taking the string and the baud rate)
BODIES: dict[str, tuple[str, str]] = {
    "emu:": ("hwgle.devices.emulator", "open_emulator"),
    "host:": ("hwgle.devices.bodies", "open_body"),
    "qemu:": ("hwgle.devices.bodies", "open_body"),
    "fault+": ("hwgle.devices.bodies", "open_body"),
}
SERIAL = re.compile(r"/|COM\d+|\\\\\.\\|(socket|rfc2217|spy|hwgrep|alt|loop)://", re.IGNORECASE)


def open_device(url: str = "emu:", *, shadow: bool = True, baud: int | None = None) -> Device:
    """The body behind `url`, opened.

    shadow: give the emulator the same calls and compare every bit. Raises UsageError for a
    string that names no body, DeviceError for one that cannot be reached.
    """
    if url.startswith("emu:"):
        return cast(Device, _function("emu:")(url))
    board = open_board(url, baud=baud)
    if not shadow:
        return board
    from hwgle.devices.shadow import ShadowedDevice

    return ShadowedDevice(board)


def open_board(url: str, *, baud: int | None = None, **port: Any) -> SerialDevice:
    """A body on the wire, without a shadow; `port`: options of Port.

    Raises UsageError for a string that names none, DeviceError for one that cannot be
    started or reached.
    """
    begin = on_the_wire(url)
    return cast("SerialDevice", _function(begin or "host:")(url, baud, **port))


def on_the_wire(url: str) -> str | None:
    """What of BODIES a device string begins with, None for a serial port.

    Raises UsageError for one that names no body or one without a wire.
    """
    begin = next((b for b in BODIES if url.startswith(b)), None)
    if begin == "emu:":
        raise UsageError("device 'emu:' is the emulator itself: there is no wire to it")
    if begin is None and SERIAL.match(url) is None:
        known = ", ".join(BODIES)
        raise UsageError(
            f"device {url!r} is not known; allowed: {known}, or a serial port such as "
            "/dev/ttyACM0, COM3, socket://host:port, rfc2217://host:port"
        )
    return begin


def _function(begin: str) -> Callable[..., object]:
    module, name = BODIES[begin]
    made: Callable[..., object] = getattr(import_module(module), name)
    return made
