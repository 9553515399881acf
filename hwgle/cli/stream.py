"""`hwgle stream`: samples in, outputs out, at a rate, with latencies."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from hwgle import samples
from hwgle.cache import write_text
from hwgle.chip import Chip
from hwgle.cli import options
from hwgle.cli.files import Files, unwritable
from hwgle.cli.table import pairs
from hwgle.device import Device
from hwgle.devices import open_device
from hwgle.errors import HwgleError, Interrupted, UsageError
from hwgle.network import Network
from hwgle.quantise import Image, Scales, build_image, quantise_weights
from hwgle.session import calibrate_on
from hwgle.stream import Latencies, Streamer, deadline_text
from hwgle.weights import Weights, with_times

MAX_RATE = 1e6
CALIBRATE = 500
MAX_CALIBRATE = 100_000


@click.command()
@click.argument("network", metavar="NETWORK")
@click.argument("file", metavar="[FILE|-]", default="-")
@options.weights
@options.device
@options.shadow
@options.baud
@click.option("--chip", "chip_spec", default="ideal", show_default=True,
              metavar="NAME|FILE[:SEED]", help="The chip.")  # fmt: skip
@click.option(
    "--rate", type=float, metavar="HZ", help="Samples a second; as they come unless given."
)
@click.option("--scales", type=options.FILE, metavar="OUT.npz", help="Scales of an earlier run.")
@click.option("--calibrate", type=click.IntRange(1, MAX_CALIBRATE), default=CALIBRATE,
              show_default=True, help="Samples of FILE to calibrate on.")  # fmt: skip
@click.option("--raw", is_flag=True, help="FILE or - holds float32, little endian, not text.")
@click.option("--tsv", is_flag=True, help="Tabs between the outputs, not commas.")
@click.option("--record-latency", type=options.FILE, metavar="H.csv",
              help="Write a histogram of the latencies.")  # fmt: skip
def command(
    network: str,
    file: str,
    weights: Path,
    device: str,
    shadow: bool,
    baud: int | None,
    chip_spec: str,
    rate: float | None,
    scales: Path | None,
    calibrate: int,
    raw: bool,
    tsv: bool,
    record_latency: Path | None,
) -> None:
    """Stream samples through NETWORK in real time, one step each, states going on.

    FILE: a .npy (T, inputs), or text with one line of numbers a step; - is standard input.
    The outputs (r of the last layer, network units) come to standard output as they are
    there, one line a step; latencies and missed deadlines at the end to standard error.
    A sample's latency counts from when it was due (or came) to its output.
    """
    _check_usage(file, rate, scales, record_latency)
    files = Files()
    net, chip = files.network(network), files.chip(chip_spec)
    w = files.weights(weights, net)
    s = None if scales is None else files.scales(scales, net, chip)
    inputs = 0 if net is None else net.inputs
    opened = None if net is None else files.read(lambda: open_samples(file, inputs, raw))
    files.check()
    assert net is not None
    assert chip is not None
    assert w is not None
    assert opened is not None
    net = with_times(net, w)
    if s is None:
        first = list(itertools.islice(opened, calibrate))
        if not first:
            raise UsageError(f"{file}: no samples to calibrate on")
        opened = itertools.chain(first, opened)
        s = calibrate_on(net, chip, w, np.stack(first)[:, None, :], None)
    with open_device(device, shadow=shadow, baud=baud) as body:
        image = _load(body, net, chip, w, s)
        writer = Writer("\t" if tsv else ",")
        streamer = Streamer(body, image, rate, writer.write)
        ended: BaseException | None = None
        try:
            streamer.run(samples.start(opened))
        except (KeyboardInterrupt, HwgleError, BrokenPipeError) as error:
            ended = error
        rows = deadline_text(streamer.summary, net, streamer.period)
        click.echo(pairs(rows), err=True)
    if record_latency is not None:
        write_text(record_latency, histogram_text(streamer.summary.latencies))
    if isinstance(ended, KeyboardInterrupt):
        raise Interrupted("interrupted; what is written is complete")
    if isinstance(ended, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: the end
    elif ended is not None:
        raise ended


def _check_usage(
    file: str, rate: float | None, scales: Path | None, histogram: Path | None
) -> None:
    wrong = []
    if rate is not None and not (np.isfinite(rate) and 0 < rate <= MAX_RATE):
        wrong.append(f"--rate: found {rate}; allowed: more than 0, at most {MAX_RATE:g}")
    if file == "-" and scales is None:
        wrong.append("--scales: standard input cannot be calibrated on; name an OUT.npz of a run")
    if histogram is not None and (why := unwritable(histogram)) is not None:
        wrong.append(why.replace("--out", "--record-latency", 1))
    if wrong:
        raise UsageError("\n".join(wrong))


def open_samples(file: str, inputs: int, raw: bool) -> Iterator[NDArray[np.float64]]:
    """The samples of FILE, or of standard input. Raises FileMistakes for no such file."""
    if file == "-":
        descriptor, name = 0, "standard input"
    elif file.endswith(".npy"):
        return iter(samples.array_samples(Path(file), inputs))
    else:
        try:
            descriptor, name = os.open(file, os.O_RDONLY | os.O_CLOEXEC), file
        except OSError as error:
            found = error.strerror or str(error)
            raise samples.mistake(file, None, found, "a file of samples") from None
    read = samples.raw_samples if raw else samples.text_samples
    return read(descriptor, inputs, name)


def _load(body: Device, network: Network, chip: Chip, weights: Weights, scales: Scales) -> Image:
    image = build_image(network, chip, scales)
    body.load(image, 1, uhat=False)
    body.write_weights(quantise_weights(image, weights))
    return image


class Writer:
    """Outputs as lines on standard output, each at once."""

    def __init__(self, between: str) -> None:
        self._between = between

    def write(self, output: NDArray[np.float64]) -> None:
        """One step. Raises BrokenPipeError when nobody reads any more."""
        sys.stdout.write(self._between.join(f"{x:.9g}" for x in output) + "\n")
        sys.stdout.flush()


def histogram_text(latencies: Latencies) -> str:
    """CSV: upper end of each bin in ms, and how many."""
    lines = ["upto_ms,count"]
    lines += [f"{1000 * upper:.4g},{count}" for upper, count in latencies.histogram()]
    return "\n".join(lines) + "\n"
