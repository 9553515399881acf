"""`hwgle record`: another command, with every byte to and from a board in a file."""

from __future__ import annotations

from pathlib import Path

import click

from hwgle.cli import options
from hwgle.cli.files import unwritable
from hwgle.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("file", type=options.FILE, metavar="FILE")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND ...")
def command(file: Path, words: tuple[str, ...]) -> None:
    """Run COMMAND, for instance `run ... --device /dev/ttyACM0`, and record its ports to FILE.

    FILE can be read up to its last whole record whatever ends the command; `hwgle replay`
    plays it without the board.
    """
    from hwgle.cli.main import COMMANDS, cli
    from hwgle.recording.recorder import recording

    if words[0] not in COMMANDS or words[0] in ("record", "replay"):
        known = ", ".join(c for c in COMMANDS if c not in ("record", "replay"))
        raise UsageError(f"cannot record {words[0]!r}; allowed: {known}")
    if (why := unwritable(file)) is not None:
        raise UsageError(why.removeprefix("--out "))
    if any(Path(word).absolute() == file.absolute() for word in words):
        raise UsageError(f"{file}: {words[0]} writes to it too; name another file")
    with recording(file, words) as on, cli.make_context("hwgle", list(words)) as context:
        cli.invoke(context)
    if on.ports:
        click.echo(f"recorded {on.bytes:,} bytes of {on.ports} ports to {file}", err=True)
    else:
        click.echo(f"warning: no port was opened, {file} holds no bytes", err=True)
