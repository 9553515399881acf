"""`hwgle scope`: a live view of a running network in the terminal, from any body."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from hwgle import samples
from hwgle.chip import Chip
from hwgle.cli import options
from hwgle.cli.files import Files, unwritable
from hwgle.cli.stream import open_samples
from hwgle.devices import open_device
from hwgle.errors import Interrupted, UsageError
from hwgle.golden import load_golden
from hwgle.network import Network
from hwgle.quantise import Image, Scales, build_image, quantise_weights
from hwgle.scope.feed import Drawn, Feed, Given, Piped
from hwgle.scope.probe import SIGNALS, Probe
from hwgle.scope.screen import Look, lines, plain
from hwgle.scope.terminal import Terminal, blocks
from hwgle.session import RANGE_EVERY, calibrate_on
from hwgle.verify.drawing import Run, draw_weights
from hwgle.weights import Weights, with_times

CALIBRATE = 500
GOLDEN = "plain"  # what is shown where nobody names a network: it fits every board
RATE = 500.0
# Of the chip's own rate. Drawn targets teach nothing: at that rate a trained network of seven
# layers clips within 50 steps, at this one it is watched for thousands.
LEARNING = 2.0**-10
FRAMES_A_SECOND = 10
WAIT = 0.05


@click.command()
@click.argument("network", metavar="[NETWORK]", required=False)
@click.argument("file", metavar="[FILE|-]", required=False)
@click.option("--weights", type=options.FILE, metavar="W.npz",
              help="Weights of the network; drawn from the seed unless given.")  # fmt: skip
@options.device
@options.shadow
@options.baud
@click.option("--chip", "chip_spec", default="ideal", show_default=True,
              metavar="NAME|FILE[:SEED]", help="The chip.")  # fmt: skip
@click.option("--scales", type=options.FILE, metavar="OUT.npz", help="Scales of an earlier run.")
@click.option("--learn", is_flag=True, help="SGD on the chip, from drawn targets.")
@click.option("--learning-rate", type=click.FloatRange(0, 16, min_open=True), metavar="R",
              help="Per step.  [default: a thousandth of the chip's own]")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, 1e6), default=RATE, show_default=True,
              metavar="HZ", help="Steps a second at most; 0: as fast as it goes.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 10_000), metavar="N",
              help="Steps of a frame.  [default: a tenth of a second]")  # fmt: skip
@click.option("--signals", default=",".join(SIGNALS), show_default=True, metavar="u,r,e",
              help="What is looked at: fewer need less of a slow line.")  # fmt: skip
@click.option("--neuron", type=click.IntRange(0, 4095), default=0, show_default=True,
              help="Whose trace is drawn in each layer.")  # fmt: skip
@click.option("--loop", is_flag=True, help="FILE again when it ends.")
@click.option("--frames", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--out", type=options.FILE, metavar="FILE.svg|png",
              help="At the end, a picture of the last steps.")  # fmt: skip
@options.seed
def command(
    network: str | None,
    file: str | None,
    weights: Path | None,
    device: str,
    shadow: bool,
    baud: int | None,
    chip_spec: str,
    scales: Path | None,
    learn: bool,
    learning_rate: float | None,
    rate: float,
    steps: int | None,
    signals: str,
    neuron: int,
    loop: bool,
    frames: int | None,
    out: Path | None,
    seed: int | None,
) -> None:
    """Watch NETWORK run: membranes, rates, errors, counters and the line, on any device.

    FILE: samples as `hwgle stream` takes them, - for standard input; without one, inputs and
    targets are drawn from the seed, without end. Without NETWORK a small one that fits every
    board. Keys: q quits, space holds, n shows the next neuron. Where standard output is no
    terminal, each frame is one line.
    """
    wanted = tuple(dict.fromkeys(s.strip() for s in signals.split(",") if s.strip()))
    _check_usage(network, file, weights, scales, learn, learning_rate, loop, wanted, out)
    setup = _read(
        network, file, weights, chip_spec, scales, learn, learning_rate, loop, seed or 0
    )
    many = steps or max(1, round((rate or RATE) / FRAMES_A_SECOND))
    with open_device(device, shadow=shadow, baud=baud) as body:
        body.load(setup.image, 1, uhat=False)
        body.write_weights(quantise_weights(setup.image, setup.weights))
        probe = Probe(body, setup.image, setup.feed, device, many, wanted, fixed=steps is not None)
        stopped = None
        try:
            _watch(probe, setup.feed, rate, frames, neuron, file != "-")
        except KeyboardInterrupt:
            stopped = Interrupted("interrupted")
    written = out is not None and probe.view.frames > 0
    if out is not None and written:
        from hwgle.scope.picture import draw, save

        save(draw(probe.view), out)
        click.echo(f"written  {out}", err=True)
    if stopped is not None:
        raise stopped


def _check_usage(
    network: str | None, file: str | None, weights: Path | None, scales: Path | None,
    learn: bool, learning_rate: float | None, loop: bool, signals: tuple[str, ...],
    out: Path | None,
) -> None:  # fmt: skip
    wrong = []
    if unknown := [s for s in signals if s not in SIGNALS]:
        wrong.append(f"--signals: no {', '.join(unknown)}; allowed: {', '.join(SIGNALS)}")
    if not signals:
        wrong.append(f"--signals: none; allowed: some of {', '.join(SIGNALS)}")
    if network is None and (weights is not None or scales is not None):
        wrong.append("--weights, --scales: of which NETWORK?")
    if file == "-" and scales is None:
        wrong.append("--scales: standard input cannot be calibrated on; name an OUT.npz of a run")
    if learn and file is not None:
        wrong.append("--learn: FILE has no targets to learn from; leave it out")
    if learning_rate is not None and not learn:
        wrong.append("--learning-rate: only together with --learn")
    if loop and file in (None, "-"):
        wrong.append("--loop: only a FILE can begin again")
    if out is not None and out.suffix not in (".svg", ".png"):
        wrong.append(f"--out {out}: allowed: a name that ends in .svg or .png")
    elif out is not None and (why := unwritable(out)) is not None:
        wrong.append(why)
    if wrong:
        raise UsageError("\n".join(wrong))


@dataclass(frozen=True)
class Setup:
    """What is run."""

    image: Image
    weights: Weights
    feed: Feed


def _read(
    network: str | None, file: str | None, weights: Path | None, chip_spec: str,
    scales: Path | None, learn: bool, learning_rate: float | None, loop: bool, seed: int,
) -> Setup:  # fmt: skip
    files = Files()
    net = load_golden(GOLDEN).network if network is None else files.network(network)
    chip = files.chip(chip_spec)
    w = None if weights is None else files.weights(weights, net)
    s = None if scales is None else files.scales(scales, net, chip)
    opened = None
    if file is not None and net is not None:
        inputs = net.inputs
        opened = files.read(lambda: open_samples(file, inputs, False))
    files.check()
    assert net is not None
    assert chip is not None
    if w is not None:
        net = with_times(net, w)
    else:
        w = draw_weights(net, np.random.default_rng([seed, 1]))
    if opened is not None and file == "-":
        assert s is not None
        image = _image(net, chip, s)
        return Setup(image, w, Piped(image, samples.start(opened)))
    if opened is not None:
        x = _all(opened, str(file))
        s = s or calibrate_on(net, chip, w, x[:CALIBRATE, None, :], None)
        image = _image(net, chip, s)
        return Setup(image, w, Given(image, x, loop))
    if s is None:
        run = Run(net, 1, CALIBRATE, seed)
        s = calibrate_on(
            net, chip, w, run.input(0, CALIBRATE), _labels(run, net, CALIBRATE), learn
        )
    applied = learning_rate or LEARNING * chip.plasticity.learning_rate
    image = _image(net, chip, s, applied if learn else 0.0)
    return Setup(image, w, Drawn(image, seed, learn))


def _labels(run: Run, network: Network, count: int) -> NDArray[Any]:
    """Targets to calibrate on: a class that is there (a drawn one may be missing, -1)."""
    if network.loss == "mse":
        return np.asarray(run.target(0, count))
    return np.zeros(1, dtype=np.int64)


def _image(network: Network, chip: Chip, scales: Scales, rate: float = 0.0) -> Image:
    every = RANGE_EVERY if rate else 0
    return build_image(network, chip, scales, learning_rate=rate, range_every=every)


def _all(opened: Iterator[NDArray[np.float64]], file: str) -> NDArray[np.float64]:
    first = list(islice(opened, 1))
    if not first:
        raise UsageError(f"{file}: no samples")
    return np.array(list(chain(first, opened)))


def _watch(
    probe: Probe, feed: Feed, rate: float, frames: int | None, neuron: int, keys: bool
) -> None:
    """Until q, the end of the input or the last frame."""
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal(keys)) if sys.stdout.isatty() else None
        look = Look(blocks=blocks(sys.stdout), neuron=neuron)
        if terminal is not None:
            look = replace(look, keys=terminal.keys)
        due = time.perf_counter()
        while not feed.ended and (frames is None or probe.view.frames < frames):
            before = probe.view.steps
            if not look.held and probe.frame():
                if rate > 0:  # what was late is not made up for
                    due = max(due + (probe.view.steps - before) / rate, time.perf_counter() - WAIT)
                if terminal is None:
                    click.echo(plain(probe.view))
            elif look.held:
                due = time.perf_counter() + WAIT
                probe.idle()
            while terminal is not None or due > time.perf_counter():
                if terminal is None:
                    time.sleep(min(WAIT, max(0.0, due - time.perf_counter())))
                    continue
                width, height = terminal.size()
                look = replace(look, width=width, height=height)
                terminal.draw(lines(probe.view, look))
                pressed = terminal.pressed(min(WAIT, max(0.0, due - time.perf_counter())))
                if "q" in pressed or "\x04" in pressed:
                    return
                for _ in range(pressed.count(" ")):
                    look = replace(look, held=not look.held)
                look = replace(look, neuron=look.neuron + pressed.count("n"))
                if due <= time.perf_counter():
                    break
