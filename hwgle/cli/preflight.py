"""`hwgle preflight`: memory, line and time of a network on a board, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from hwgle._core import lib
from hwgle.chip import Chip
from hwgle.cli import options
from hwgle.cli.files import Files
from hwgle.cli.table import pairs
from hwgle.cli.verify import learner_of, what_is_named
from hwgle.device import SIGNALS, Limits
from hwgle.errors import NotEqual, UsageError
from hwgle.identity import draw
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.preflight import check_network, machine_of, replaced_in_place
from hwgle.preflight.memory import Machine, Shape, arena_bytes, board_bytes, image_bytes
from hwgle.preflight.pace import Speed
from hwgle.preflight.wire import BITS, block_traffic, load_bytes
from hwgle.quantise import check_learnable

DEFAULT_BAUD = 115200


@dataclass(frozen=True)
class Asked:
    """What is wanted of the board."""

    batch: int
    learn: bool
    learner: OnChip
    record: tuple[str, ...]
    rate: float | None
    baud: int


@dataclass(frozen=True)
class Facts:
    """What the board told. source: who was asked."""

    name: str
    source: str
    limits: Limits
    machine: Machine
    speed: Speed | None


@click.command()
@click.argument("network", metavar="NETWORK|EXPERIMENT")
@click.option("--board", metavar="B", help="One of `hwgle board list`; asked in its emulator.")
@click.option("--device", metavar="URL", help="Or a board that is there: it is asked itself.")
@click.option("--chip", "chip_spec", metavar="NAME|FILE[:SEED]", help="The chip.  [default: ideal]")
@click.option(
    "--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Streams."
)
@click.option("--learn", is_flag=True, help="With targets, learning on the chip.")
@options.rule
@click.option("--record", default="", metavar="r,u,uhat,v,e", help="Signals of all layers.")
@click.option("--rate", type=float, metavar="HZ", help="Steps a second that must be kept up with.")
@options.baud
def command(
    network: str,
    board: str | None,
    device: str | None,
    chip_spec: str | None,
    batch: int,
    learn: bool,
    rule: str | None,
    record: str,
    rate: float | None,
    baud: int | None,
) -> None:
    """Whether NETWORK fits a board: memory, bytes on the line, the smallest real-time step.

    Exit code 1 when something does not fit. Nothing is loaded onto the board.
    """
    if (board is None) == (device is None):
        raise UsageError("say --board B or --device URL, one of them")
    signals = tuple(dict.fromkeys(s.strip() for s in record.split(",") if s.strip()))
    if unknown := [s for s in signals if s not in SIGNALS]:
        raise UsageError(f"--record: {', '.join(unknown)}; allowed: {', '.join(SIGNALS)}")
    if rate is not None and not 0 < rate < 1e9:
        raise UsageError(f"--rate: found {rate}; allowed: more than 0")
    files = Files()
    loaded = files.read(lambda: what_is_named(network))
    chip = None if chip_spec is None else files.chip(chip_spec)
    files.check()
    assert loaded is not None
    net, own, training = loaded
    chip = chip or own or Chip.load("ideal")
    learner = learner_of(training, rule) if learn else PLAIN
    check_learnable(net, learner)  # before any board is asked
    draw(chip, net)  # so is a twin for another network
    facts = _ask(board, device, baud)
    asked = Asked(batch, learn, learner, signals, rate, baud or DEFAULT_BAUD)
    options_ = int(lib.GLE_WITH_UHAT) if "uhat" in signals else 0
    problems = check_network(
        net, chip, batch, options_, facts.limits, facts.machine, asked.learner
    )
    rows = _memory_rows(net, chip, options_, asked, facts)
    more, late = _time_rows(net, chip, asked, facts)
    click.echo(pairs([*rows, *more]))
    wrong = [*map(str, problems), *late]
    if wrong:
        raise NotEqual("does not fit\n" + "\n".join(f"  {text}" for text in wrong))
    click.echo("fits")


def _ask(board: str | None, device: str | None, baud: int | None) -> Facts:
    """Limits from the firmware itself: on its emulator, or where it runs."""
    from hwgle.boards.description import load
    from hwgle.devices import open_board

    speed, name = None, device or ""
    url = device
    if board is not None:
        described = load(board).board
        speed, name = Speed.of(described), described.name
        if described.body == "host":
            url = "host:"
        elif described.qemu is not None:
            url = f"qemu:{board}"
        else:
            raise UsageError(f"board {board}: it has no emulator to ask; give --device URL")
    assert url is not None
    with open_board(url, baud=baud) as body:
        name = body.info.name or name
        limits, machine = body.limits, machine_of(body)
    if speed is None and board is None:
        speed = _speed_of(name)
    return Facts(name, url, limits, machine, speed)


def _speed_of(name: str) -> Speed | None:
    from hwgle.boards.description import load, names

    return Speed.of(load(name).board) if name in names() else None


def _memory_rows(
    network: Network, chip: Chip, options_: int, asked: Asked, facts: Facts
) -> list[tuple[str, str]]:
    batch, machine, have = asked.batch, facts.machine, facts.limits.memory or 0
    learner = asked.learner
    need = board_bytes(network, chip, batch, options_, machine, learner)
    arena = arena_bytes(Shape.of(network, chip, learner), batch, options_, machine)
    image = image_bytes(network, chip)
    rows = [
        ("network", f"{network.name}: {network.parameters:,} parameters, "
                    f"{sum(network.sizes)} neurons; chip {chip.name}"),
        ("board", f"{facts.name}, as {facts.source} tells"),
        ("memory", f"{need:,} bytes of {have:,}: chip {arena:,}, image {image:,}, "
                   f"buffers {need - arena - image:,}"),
    ]  # fmt: skip
    if need <= have and replaced_in_place(
        network, chip, batch, options_, facts.limits, machine, learner
    ):
        text = "fit once: out of service while a new set is written"
        rows.append(("weights", text))
    return rows


def _time_rows(
    network: Network, chip: Chip, asked: Asked, facts: Facts
) -> tuple[list[tuple[str, str]], list[str]]:
    """Line and core; what is too slow for the rate."""
    payload, baud = facts.limits.payload, asked.baud
    layers = range(len(network.layers))
    record = [(k, s) for k in layers for s in asked.record] or [(len(network.layers) - 1, "r")]
    blocks = block_traffic(network, asked.batch, target=asked.learn, record=record, payload=payload)
    one = block_traffic(network, asked.batch, 1, target=asked.learn, record=record, payload=payload)
    load = load_bytes(network, chip, payload)
    rows = [
        ("loading", f"{load:,} bytes, {load * BITS / baud:.1f} s at {baud:,} baud"),
        ("blocks", _line_text(blocks.out / blocks.steps, blocks.back / blocks.steps,
                              blocks.fastest(baud), baud)),
        ("real time", _line_text(one.out, one.back, one.fastest(baud), baud)
                      + f"; latency {1000 * (one.out + one.back) * BITS / baud:.2g} ms at least"),
    ]  # fmt: skip
    wrong = _too_slow(asked.rate, [("the line, a step at a time,", one.fastest(baud))])
    if facts.speed is None:
        rows.append(("core", "instructions per step were not measured on this board"))
    else:
        count = facts.speed.instructions(network, asked.batch, asked.learn)
        seconds = facts.speed.seconds(network, asked.batch, asked.learn)
        rows.append(("core", _core_text(facts.speed.hz, count, asked)))
        wrong += _too_slow(asked.rate, [("the core", 1 / seconds)])
    return rows, wrong


def _core_text(hz: float, count: float, asked: Asked) -> str:
    """Two digits: a fit over networks tells no more (board.yaml says how near it comes)."""
    each = float(f"{count:.2g}")
    most = float(f"{hz / each:.2g}")
    text = (
        f"about {each:,.0f} instructions a step, by a fit that can be half off; one a cycle at "
        f"{hz / 1e6:g} MHz: dt >= {1000 * each / hz:.2g} ms, at most {most:,.0f} steps/s"
    )
    if asked.learn and asked.learner != PLAIN:
        text += f"; of plain SGD: {asked.learner.rule} takes more"
    return text


def _line_text(out: float, back: float, fastest: float, baud: int) -> str:
    text = f"{out:.1f} bytes a step to the board, {back:.1f} from it"
    return f"{text}: at most {fastest:,.0f} steps/s at {baud:,} baud"


def _too_slow(rate: float | None, ways: Sequence[tuple[str, float]]) -> list[str]:
    if rate is None:
        return []
    return [
        f"{what} does {most:,.0f} steps/s: {rate:,.6g} are needed, {most:,.0f} are there"
        for what, most in ways
        if rate > most
    ]
