"""`hwgle run`: streams through a network on a chip, and everything about it in one OUT.npz."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from hwgle.arrays import save_npz_atomic
from hwgle.chip import Chip
from hwgle.cli import options
from hwgle.cli.files import Files, unwritable
from hwgle.cli.naming import chip_text
from hwgle.cli.progress import Bar, duration
from hwgle.cli.table import pairs, percent, small_share, table
from hwgle.device import SIGNALS
from hwgle.devices import open_device
from hwgle.errors import UsageError
from hwgle.measuring import prepare
from hwgle.network import Network
from hwgle.onchip import RATE, RULES, OnChip
from hwgle.session import Result, calibrate_on
from hwgle.session import run as run_session
from hwgle.weights import CALIBRATION, with_times

MAX_RATE = 16.0


@click.command()
@click.argument("network", metavar="NETWORK")
@options.weights
@click.option(
    "--input",
    "input_",
    type=options.FILE,
    required=True,
    metavar="X.npy",
    help="Input (T, streams, inputs), network units.",
)
@click.option(
    "--target",
    type=options.FILE,
    metavar="Y.npy",
    help="(streams,) classes, -1 for none, or for mse (T, streams, outputs).",
)
@click.option(
    "--chip",
    "chip_spec",
    default="ideal",
    show_default=True,
    metavar="NAME|FILE[:SEED]",
    help="The chip.",
)
@options.device
@options.shadow
@options.baud
@click.option(
    "--learn",
    is_flag=False,
    flag_value="sgd",
    metavar="[RULE]",
    help="Learn on the chip while running: sgd (if no RULE is named), normalised or sign.",
)
@click.option(
    "--rate", type=float, metavar="R", help="Learning rate per step.  [default: the chip's own]"
)
@click.option(
    "--scales",
    type=options.FILE,
    metavar="OUT.npz",
    help="Scales of an earlier run; calibrated on the first streams unless given.",
)
@options.calibration
@click.option("--record", default="", metavar="r,u,uhat,v,e",
              help="Signals of all layers to keep: rates, membranes, prospective membranes, error "
              "neurons, errors.")  # fmt: skip
@options.seed
@click.option("--out", type=options.FILE, required=True, metavar="OUT.npz", help="What is written.")
def command(
    network: str,
    weights: Path,
    input_: Path,
    target: Path | None,
    chip_spec: str,
    device: str,
    shadow: bool,
    baud: int | None,
    learn: str | None,
    rate: float | None,
    scales: Path | None,
    calibration: Path | None,
    record: str,
    seed: int | None,
    out: Path,
) -> None:
    """Run streams through NETWORK (a name or a file) on a chip.

    Writes the output, recorded signals, weights, scales, digest and counters to OUT.npz,
    whole or not at all.
    """
    signals = tuple(dict.fromkeys(s.strip() for s in record.split(",") if s.strip()))
    _check_usage(signals, learn, rate, target, out)
    files = Files()
    net, chip = files.network(network), files.chip(chip_spec)
    w = files.weights(weights, net, corrected=calibration is None)
    x = files.input(input_, net)
    y = None if target is None else files.target(target, net, x)
    s = None if scales is None else files.scales(scales, net, chip)
    measured = None if calibration is None else files.calibration(calibration)
    files.check()
    assert net is not None
    assert chip is not None
    assert w is not None
    net = with_times(net, w)
    assert x is not None
    prepared = None
    if measured is not None:
        measured.check(chip, net, str(calibration))
        prepared = prepare(
            measured, chip, net, w,
            lambda n, v: s or calibrate_on(n, chip, v, x, y, learn is not None),
        )  # fmt: skip
        net, w, s = prepared.network, prepared.weights, prepared.scales
    rule = OnChip.named(learn or "sgd")
    applied = rate or RATE.get(rule.rule, chip.plasticity.learning_rate)
    begun = time.monotonic()
    with open_device(device, shadow=shadow, baud=baud) as body, Bar("running") as bar:
        result = run_session(
            body,
            net,
            chip,
            w,
            x,
            y,
            scales=s,
            record=signals,
            learning_rate=0.0 if learn is None else applied,
            learner=rule,
            seed=seed,
            progress=bar.update,
        )
    if prepared is not None:
        result = prepared.result(result)
    seconds = time.monotonic() - begun
    arrays: dict[str, NDArray[Any]] = dict(result.arrays())
    if measured is not None:
        arrays[CALIBRATION] = np.array(measured.hash())
    save_npz_atomic(out, arrays)
    for line in warnings(net, result):
        click.echo(f"warning: {line}", err=True)
    click.echo(counter_table(net, result, y is not None, learn is not None))
    click.echo()
    click.echo(pairs(_facts(net, chip, device, x, y, result, seconds, out, rule)))


def _check_usage(
    record: tuple[str, ...],
    learn: str | None,
    rate: float | None,
    target: Path | None,
    out: Path,
) -> None:
    """Raises UsageError with everything that is wrong with the options themselves."""
    wrong = []
    if unknown := [s for s in record if s not in SIGNALS]:
        allowed = ", ".join(SIGNALS)
        wrong.append(f"--record: cannot record {', '.join(unknown)}; allowed: {allowed}")
    if learn is not None and learn not in RULES:
        wrong.append(f"--learn: no rule {learn!r}; allowed: {', '.join(RULES)}, or nothing")
    if learn is not None and target is None:
        wrong.append("--learn: without --target there is no error to learn from")
    if rate is not None and learn is None:
        wrong.append("--rate: only together with --learn")
    if rate is not None and not (math.isfinite(rate) and 0 < rate <= MAX_RATE):
        wrong.append(f"--rate: found {rate}; allowed: more than 0, at most {MAX_RATE:g}")
    if (why := unwritable(out)) is not None:
        wrong.append(why)
    if wrong:
        raise UsageError("\n".join(wrong))


def counter_table(network: Network, result: Result, errors: bool, learned: bool) -> str:
    """Per layer, what did not fit its format, as shares of all neuron steps (or updates)."""
    head = ["layer", "rates clipped", "membranes clipped"]
    head += ["errors clipped", "errors to 0"] if errors else []
    head += ["updates to 0", "weights clipped"] if learned else []
    rows = [head]
    for layer, c in zip(network.layers, result.counters, strict=True):
        steps, updates = c["steps"], c["updates"]
        row = [layer.name, small_share(c["sat_r"], steps)]
        row.append(small_share(c["sat_x"] + c["sat_uhat"], steps))
        if errors:
            row.append(small_share(c["sat_e"] + c["sat_inst"], steps))
            row.append(small_share(c["under_e"], steps))
        if learned:
            row += [small_share(c["under_w"], updates), small_share(c["sat_w"], updates)]
        rows.append(row)
    return table(rows)


def warnings(network: Network, result: Result) -> list[str]:
    """What a person should hear about: values that were clipped, neurons that are not well."""
    lines = []
    kinds = {
        "rates": ("sat_r",),
        "membranes": ("sat_x", "sat_uhat"),
        "errors": ("sat_e", "sat_inst"),
    }
    for layer, c in zip(network.layers, result.counters, strict=True):
        parts = []
        for kind, names in kinds.items():
            if count := sum(c[n] for n in names):
                parts.append(f"{small_share(count, c['steps'])} of its {kind}")
        if c["sat_w"]:
            parts.append(f"{c['sat_w']} updates of its weights")
        if c["sat_read"]:
            parts.append(f"{c['sat_read']} read-outs of its rates")
        if parts:
            lines.append(f"layer {layer.name} clipped {', '.join(parts)}")
    if result.clipped_input:
        lines.append(f"{result.clipped_input} values of the input were clipped")
    if result.clipped_weights:
        lines.append(f"{result.clipped_weights} weights were clipped to what the array holds")
    return lines + result.health.sentences()


def _facts(
    network: Network,
    chip: Chip,
    device: str,
    x: NDArray[np.float64],
    y: NDArray[Any] | None,
    result: Result,
    seconds: float,
    out: Path,
    rule: OnChip,
) -> list[tuple[str, str]]:
    rows = [
        ("network", f"{network.name} on chip {chip_text(chip)}, {device}"),
        ("streams", f"{x.shape[1]} of {x.shape[0]} steps"),
    ]
    if y is not None and network.loss == "cross_entropy" and np.any(y >= 0):
        has = y >= 0
        votes = result.signals["output"].sum(axis=0, dtype=np.float64)
        share = float(np.mean(votes.argmax(axis=1)[has] == y[has]))
        rows.append(("accuracy", f"{percent(share)} (largest output summed over the steps)"))
    if result.rate:
        text = f"{rule.rule}, rate {result.rate:g} (the nearest that the chip has)"
        rows.append(("learning", text))
    rows += [
        ("digest", f"{result.digest:016x}"),
        ("time", duration(seconds) if seconds >= 10 else f"{seconds:.2f} s"),
        ("written", str(out)),
    ]
    return rows
