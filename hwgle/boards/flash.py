"""Firmware onto a real board, with whichever of its flashing tools is installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from hwgle import cache
from hwgle.boards.builder import MissingProgram, build
from hwgle.boards.description import Board, Described, FlashMethod
from hwgle.boards.elf import Elf
from hwgle.errors import DeviceError, UsageError


class FlashFailed(DeviceError):
    """The flashing tool ended with an error; what it said stands above."""


def choose(board: Board, port: str | None = None, tool: str | None = None) -> FlashMethod:
    """The first method whose tool is installed; with a port, one that takes it.

    Raises:
        UsageError: the board cannot be flashed, not with this tool, or not over a port.
        MissingProgram: none is installed; the text says how to get each.
    """
    if not board.flash:
        raise UsageError(f"board {board.name}: there is nothing to flash")
    methods = list(board.flash)
    if tool is not None and not (methods := [m for m in methods if m.command[0] == tool]):
        known = ", ".join(m.command[0] for m in board.flash)
        raise UsageError(f"board {board.name}: no way to flash with {tool}; allowed: {known}")
    if port is not None and not (methods := [m for m in methods if "{port}" in m.command]):
        raise UsageError(f"board {board.name}: nothing here flashes over a port")
    for method in methods:
        # What needs a port is only meant when one is named, or when nothing else is.
        meant = port is not None or tool is not None or "{port}" not in method.command
        if meant and shutil.which(method.command[0]):
            return method
    raise MissingProgram(
        f"board {board.name}: no flashing tool is installed. Any of these will do:\n"
        + "\n".join(_advice(board, method, port) for method in methods)
    )


def _advice(board: Board, method: FlashMethod, port: str | None) -> str:
    again = f"hwgle board flash {board.name}" + " --port PORT" * ("{port}" in method.command)
    by_hand = shlex.join(words(method, "FIRMWARE.elf", "FIRMWARE.bin", port or "PORT", None))
    return f"  {method.install}\n    needs {method.needs}; then `{again}`, or\n    {by_hand}"


def words(
    method: FlashMethod, elf: str, binary: str, port: str | None, probe: str | None
) -> list[str]:
    """The command line of a method. Raises UsageError for a port that is not named."""
    if "{port}" in method.command and port is None:
        raise UsageError(f"{method.command[0]} flashes over a serial port: say --port")
    if probe is not None and "{probe}" not in method.command:
        raise UsageError(f"{method.command[0]} cannot be told which probe to use")
    result = []
    for word in method.command:
        if word == "{probe}":
            result += [w.format(probe=probe) for w in method.probe if probe is not None]
        else:
            result.append(word.format(elf=elf, bin=binary, port=port))
    return result


def prepare(
    described: Described, method: FlashMethod, port: str | None, probe: str | None
) -> list[str]:
    """Build what the method needs and return its command line."""
    words(method, "", "", port, probe)  # mistakes before a long build
    elf = build(described.folder if described.outside else described.board.name)
    binary = elf.with_suffix(".bin")
    write_image(elf, binary)
    return words(method, str(elf), str(binary), port, probe)


def write_image(elf: Path, out: Path) -> None:
    """The bytes of the flash, from its first one on. Raises DeviceError."""
    try:
        with cache.replacing(out) as fresh:
            fresh.write_bytes(Elf(elf).image()[1])
    except OSError as error:
        raise DeviceError(f"{out} cannot be written: {error.strerror}") from error


def run(command: list[str], folder: Path) -> None:
    """Run a flashing tool, its words going to the terminal. Raises FlashFailed."""
    try:
        done = subprocess.run(command, cwd=folder, check=False)
    except OSError as error:
        raise FlashFailed(f"{command[0]} does not run: {error.strerror}") from error
    if done.returncode:
        raise FlashFailed(f"{command[0]} ended with {done.returncode}; is the board connected?")
