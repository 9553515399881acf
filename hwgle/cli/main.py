"""`hwgle`: finds the command's file, and turns what goes wrong into a text and an exit code.

Exit codes: 0 done, 1 a limit or an equality did not hold, 2 usage, 3 device or link,
4 a file with mistakes, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from hwgle.errors import HwgleError

# name of the file in hwgle/cli/ -> its line in the help; the file is imported when used.
COMMANDS = {
    "demo": "Classify and learn MNIST-1D on a chip, next to float64; writes pictures.",
    "run": "Run streams through a network on a chip.",
    "train": "Train an experiment; the same command continues after Ctrl-C.",
    "eval": "Accuracy and SQNR of trained weights on a chip, next to float64.",
    "report": "What each stage of a chip costs, as a page, as JSON, against limits.",
    "stream": "Real time: samples in, outputs out as they come, latencies.",
    "scope": "A live view of a running network in the terminal, from any device.",
    "verify": "Prove that a body equals the emulator in every bit, or find where not.",
    "record": "Run another command with every byte to and from a board recorded.",
    "replay": "Play a recording against the emulated device: every answer must be equal.",
    "preflight": "Whether a network fits a board: memory, line, real time.",
    "sweep": "One experiment over bits, mismatch, rules, seeds: tables, heat maps, Pareto front.",
    "chip": "One chip: new identities from a profile, and what is individual in them.",
    "board": "Boards: list, build, start, flash, info, selftest.",
}
INTERRUPTED = 130


class Commands(click.Group):
    """A group that imports a command's file only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hwgle.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run and exit; never a traceback for what a user can do or meet."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **extra)
        except HwgleError as error:
            click.echo(str(error), err=True)
            code = error.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted; nothing half-written", err=True)
            code = INTERRUPTED
        except OSError as error:  # a full disk, a folder that was taken away meanwhile
            named = f"{error.filename}: " if error.filename else ""
            click.echo(f"{named}{error.strerror or error}", err=True)
            code = 2
        except MemoryError:
            click.echo("not enough memory: fewer streams, steps or signals at once", err=True)
            code = 2
        sys.exit(code if isinstance(code, int) else 0)


def _version() -> str:
    try:
        return version("hwgle")
    except PackageNotFoundError:
        return "(run from its source, not installed)"


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), "--version", prog_name="hwgle")
def cli() -> None:
    """GLE networks on mixed-signal chips: emulated, on a board, next to float64.

    `hwgle COMMAND --help` tells a command's options.
    """


def main() -> None:
    """The console script."""
    # The float64 oracle multiplies small matrices: threads of BLAS cost more than they
    # give, and fight with what runs beside. Must be set before NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cli()


if __name__ == "__main__":
    main()
