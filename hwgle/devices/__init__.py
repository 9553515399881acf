"""The bodies a chip can have, by the string that `--device` and `hwgle.open()` take.

emu:            the core in this process (the default)

A body adds a file here and one line in BODIES; its module is imported when first used.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from hwgle.device import Device
from hwgle.errors import UsageError

# scheme -> (module, class or function taking what stands behind the colon)
BODIES: dict[str, tuple[str, str]] = {"emu": ("hwgle.devices.emulator", "open_emulator")}


def open_device(url: str = "emu:") -> Device:
    """The body behind `url`, opened. Raises UsageError for one that hwgle does not know."""
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in BODIES:
        known = ", ".join(f"{name}:" for name in BODIES)
        raise UsageError(f"device {url!r} is not known; allowed: {known}")
    module, name = BODIES[scheme]
    make: Callable[[str], Device] = getattr(import_module(module), name)
    return make(rest)
