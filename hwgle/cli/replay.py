"""`hwgle replay`: a recording against the emulated device, answer by answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwgle.cli import options
from hwgle.cli.progress import Bar
from hwgle.cli.table import pairs, table
from hwgle.errors import NotEqual

if TYPE_CHECKING:
    from hwgle.recording.replay import Played


@click.command()
@click.argument("file", type=options.FILE, metavar="FILE")
def command(file: Path) -> None:
    """Play FILE, of `hwgle record`, against the device in this process: no board is needed.

    What the host said is put together from the recorded bytes, each message once, and fed
    to the same C that runs on the board; every answer must be the board's, byte for byte.
    Exit code 1 names the first that is not.
    """
    from hwgle._core import lib
    from hwgle.recording.file import Reader
    from hwgle.recording.replay import replay
    from hwgle.recording.sessions import Line

    reader = Reader(file)
    if reader.head.messages != lib.message_list_crc():
        click.echo(
            f"warning: recorded by hwgle {reader.head.hwgle} with another list of messages "
            f"({reader.head.messages:08x}, here {lib.message_list_crc():08x})",
            err=True,
        )
    with Bar("reading") as bar:
        line = Line().read(reader.records())
        bar.label = "replaying"
        played: list[Played] = []
        for one in replay(line.sessions):
            played.append(one)
            bar.update(len(played), len(line.sessions))
    to, back = line.bytes
    click.echo(
        pairs(
            [
                ("recorded", f"hwgle {' '.join(reader.head.command)}"),
                ("by", f"hwgle {reader.head.hwgle}, {reader.head.began}, {reader.head.system}"),
                (
                    "line",
                    f"{to:,} bytes to the board, {back:,} from it, {line.seconds:.2f} s; "
                    f"{line.damaged} frames damaged",
                ),
                ("ended", reader.cut or str(reader.end.get("ended", "?"))),
            ]
        )
    )
    whole = reader.cut is None and reader.end.get("ended") == "done"
    if not played:
        if whole and to:
            raise NotEqual("no session in a recording that ended well: nothing was compared")
        click.echo("no session: nothing to compare")
        return
    click.echo("\n" + table(_rows(played)))
    last = played[-1]
    if last.unequal is not None:
        raise NotEqual(unequal_text(last))
    missing = len(last.session.out.messages) - last.fed
    if missing or last.unseen:
        text = f"{missing} requests and {last.unseen} answers of the last session were not compared"
        if whole:
            raise NotEqual(f"incomplete, though the recorded command ended well: {text}")
        click.echo(f"\nincomplete: {text}")
    steps = sum(p.steps for p in played)
    cut = "" if whole else ", as far as the recording goes: it ends before its command did"
    click.echo(f"\nequal: {sum(p.equal for p in played)} answers, {steps} steps{cut}")


def _rows(played: list[Played]) -> list[list[str]]:
    head = ["session", "board", "requests", "answers", "equal", "not compared", "steps"]
    head += ["sent again", "came again", "s", "ended"]
    rows = [head]
    for k, p in enumerate(played):
        s = p.session
        row = [str(k), s.device, str(p.fed), str(p.answers), str(p.equal), str(p.skipped)]
        row += [str(p.steps), str(s.out.repeated), str(s.inward.repeated + s.inward.ahead)]
        rows.append([*row, f"{s.ended - s.began:.2f}", s.how])
    return rows


def unequal_text(played: Played) -> str:
    """The first answer that differs, both sides in words."""
    from hwgle.recording.words import first_byte, words

    u = played.unequal
    assert u is not None
    at = first_byte(u.board, u.replay)
    asked = f"request {u.number}, {words(u.request)}" if u.request else "no request"
    return (
        f"DIFFERENT in session {u.session}, answer {u.answer} ({u.time:.3f} s), to {asked}; "
        f"byte {at} of\n"
        f"  board:  {words(u.board)}\n"
        f"  replay: {words(u.replay) if u.replay else 'nothing more'}"
    )
