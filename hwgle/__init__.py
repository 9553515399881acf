"""hwgle: a hardware-in-the-loop emulator for neuromorphic chips that run GLE."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwgle.device import Device

__version__ = "0.1.0"


def open(url: str = "emu:") -> Device:
    """The chip behind a device string, the one that `--device` takes.

    Raises UsageError for a string that names no body, DeviceError when it does not answer.
    """
    from hwgle.devices import open_device

    return open_device(url)
