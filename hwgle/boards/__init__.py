"""Boards: what they are, their firmware built, their emulators and host processes run.

A board is a folder under firmware/boards with a board.yaml; nothing here names one.
"""

from __future__ import annotations

from hwgle.boards.builder import build
from hwgle.boards.description import Board, names
from hwgle.boards.host import HostBoard, start_host
from hwgle.boards.qemu import QemuBoard, start_qemu

__all__ = ["Board", "HostBoard", "QemuBoard", "build", "names", "start_host", "start_qemu"]
