"""`hwgle board`: what boards there are, their firmware, and how they are."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import click

from hwgle.boards import build as build_firmware
from hwgle.boards import flash as flashing
from hwgle.boards import start_host, start_qemu
from hwgle.boards.description import Board, load, names
from hwgle.boards.process import RunningBoard
from hwgle.boards.size import size_of
from hwgle.chip import MAX_SEED
from hwgle.cli import options
from hwgle.cli.progress import Bar
from hwgle.cli.table import pairs
from hwgle.errors import NotEqual, UsageError

BOARD = click.argument("board", metavar="BOARD")
URL = click.option(
    "--device", required=True, metavar="URL", help="host:, qemu:BOARD, /dev/ttyACM0, COM3 ..."
)
PAYLOAD = click.option("--payload", type=click.IntRange(64, 8192), help="Largest message, bytes.")
WINDOW = click.option("--window", type=click.IntRange(1, 64), help="Messages under way.")
LOOK_EVERY_SECONDS = 0.2


@click.group()
def command() -> None:
    """Boards that carry a chip: list, build, start, flash, info, selftest.

    BOARD is a name that `list` shows, or the path of a folder with a board.yaml.
    """


@command.command("list")
def list_boards() -> None:
    """All boards that hwgle knows, and where each has been tried."""
    rows = [("board", "cpu", "flash", "RAM", "without hardware", "proven")]
    for name in names():
        board = load(name).board
        kept = _kib(board.memory.flash), _kib(board.memory.ram)
        rows.append((name, board.cpu, *kept, _body(board), board.proven))
    click.echo(_columns(rows))


def _body(board: Board) -> str:
    if board.body == "host":
        return "--device host:"
    return "-" if board.qemu is None else f"--device qemu:{board.name}"


def _kib(count: int | None) -> str:
    return "-" if count is None else f"{count // 1024} K"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


@command.command("build")
@BOARD
@click.option(
    "--out", type=options.FILE, metavar="FILE", help="A copy: ELF, or the bare image as *.bin."
)
@PAYLOAD
@WINDOW
def build_board(board: str, out: Path | None, payload: int | None, window: int | None) -> None:
    """Build a board's firmware and tell what it takes."""
    described = load(board)
    elf = build_firmware(board, payload=payload, window=window)
    size = size_of(described.board, elf)
    if out is not None and out.suffix == ".bin":
        flashing.write_image(elf, out)
    elif out is not None:
        build_firmware(board, out, payload=payload, window=window)
    memory = described.board.memory
    rows = [("firmware", str(out or elf))]
    of = "" if memory.flash is None else f" of {memory.flash:,}"
    rows.append(("flash", f"{size.flash:,}{of} bytes"))
    rows.append(("RAM", f"{size.ram:,} bytes of data"))
    if size.stack is not None:
        bound = "" if size.stack_bound is None else f", of which at most {size.stack_bound:,} used"
        rows.append(("stack", f"{size.stack:,} bytes{bound}"))
    if size.memory is not None:
        rows.append(("left", f"{size.memory:,} bytes for link, network and chip"))
    click.echo(pairs(rows))


@command.command("start")
@BOARD
@click.option("--memory", type=click.IntRange(4096), help="Bytes of the chip; host only.")
@PAYLOAD
@WINDOW
def start_board(board: str, memory: int | None, payload: int | None, window: int | None) -> None:
    """Run a board without hardware, print its port, stop it on Ctrl-C."""
    described = load(board)
    if memory is not None and described.board.body != "host":
        raise UsageError("--memory: only the host board has as much as one says")
    running: RunningBoard
    if described.board.body == "host":
        running = start_host(memory, payload, window)
    else:
        running = start_qemu(board, payload, window)
    with running:
        try:
            click.echo(running.port)
            click.echo(f"{described.board.name} runs; Ctrl-C stops it", err=True)
            while running.alive():
                time.sleep(LOOK_EVERY_SECONDS)
        except KeyboardInterrupt:
            return
    raise UsageError(f"{described.board.name} has ended by itself")


@command.command("flash")
@BOARD
@click.option("--port", metavar="PORT", help="A serial port, for tools that flash over one.")
@click.option("--probe", metavar="ID", help="Which probe, if several are connected.")
@click.option("--tool", metavar="NAME", help="Which tool, if several are installed.")
@click.option("--dry-run", is_flag=True, help="Print the command line, run nothing.")
def flash_board(
    board: str, port: str | None, probe: str | None, tool: str | None, dry_run: bool
) -> None:
    """Build a board's firmware and write it to the board."""
    described = load(board)
    method = flashing.choose(described.board, port, tool)
    line = flashing.prepare(described, method, port, probe)
    click.echo(f"{described.board.title}; proven: {described.board.proven}", err=True)
    click.echo(shlex.join(line))
    if not dry_run:
        click.echo(f"needs {method.needs}", err=True)
        flashing.run(line, described.folder)


@command.command("info")
@URL
@options.baud
def info(device: str, baud: int | None) -> None:
    """What a board is, what it can hold and how it is."""
    from hwgle.devices import open_board

    with open_board(device, baud=baud) as board:
        facts, limits, status = board.info, board.limits, board.status()
        rows = [
            ("board", facts.name),
            ("booted", f"{facts.boots} times; last: {facts.boot_cause}"),
            ("up", f"{status['uptime_ms'] / 1e3:.1f} s"),
            ("memory", f"{status['memory_used']:,} of {status['memory']:,} bytes in use"),
            ("link", f"messages of {limits.payload} bytes, {limits.window} under way"),
            ("streams", f"{limits.max_batch} at once, as far as memory allows"),
        ]
        if status["stack_size"]:
            used, size = status["stack_used"], status["stack_size"]
            rows.append(("stack", f"{used:,} of {size:,} bytes used at most"))
        rows.append(("line", f"{status['rx_lost']} bytes lost, {status['discarded']} frames "
                             f"discarded, {status['retransmitted']} sent again"))  # fmt: skip
    click.echo(pairs(rows))


@command.command("selftest")
@URL
@options.baud
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=1, show_default=True)
@click.option("--steps", type=click.IntRange(1, 10**6), default=1000, show_default=True)
def selftest(device: str, baud: int | None, seed: int, steps: int) -> None:
    """Try a board: echo, memory, line, and a network that learns as on the emulator.

    Exits with 1 if anything is not as it should be.
    """
    from hwgle.boards.selftest import selftest as run
    from hwgle.devices import open_board

    bad = []
    with open_board(device, baud=baud) as board, Bar("selftest") as bar:
        click.echo(f"{board.info.name}, booted {board.info.boots} times")
        for result in run(board, seed, steps, bar.update):
            bar.clear()
            mark = "ok    " if result.good else "FAILED"
            click.echo(f"{mark}  {result.name.ljust(8)}  {result.text}")
            if not result.good:
                bad.append(result.name)
    if bad:
        raise NotEqual(f"not as it should be: {', '.join(bad)}")
