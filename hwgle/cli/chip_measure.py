"""`hwgle chip calibrate` and `hwgle chip twin`: measure a chip, and make the emulator like it."""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from hwgle.calibrate import calibrate as scales_of
from hwgle.chip import Chip, Profile
from hwgle.cli import options
from hwgle.cli.files import Files, unwritable
from hwgle.cli.progress import Bar, duration
from hwgle.cli.table import pairs, table
from hwgle.device import Device
from hwgle.devices import open_device
from hwgle.errors import UsageError
from hwgle.identity import identity_hash, save
from hwgle.measuring import Calibration, Estimate, Residual, measure_chip, residuals
from hwgle.measuring.bench import nominal
from hwgle.measuring.calibration import DB_MAX
from hwgle.measuring.observable import spread
from hwgle.measuring.regression import NORMAL
from hwgle.network import Network
from hwgle.quantise import build_image
from hwgle.weights import Weights, initial, with_times

CHIP = click.option(
    "--chip", "spec", required=True, metavar="NAME|FILE[:SEED]", help="The chip on the device."
)
COLUMNS = {  # estimate -> title, factor from its unit
    "gain": ("gain (%)", 100.0),
    "offset": ("offset (1e-3)", 1000.0),
    "readout_offset": ("ADC offset (LSB)", 1.0),
    "tau_m": ("tau_m (%)", 100.0),
    "tau_r": ("tau_r (%)", 100.0),
    "synapse": ("synapses (%)", 100.0),
}
WORST = 6
STREAMS, STEPS = 4, 500  # fresh ones, for what is left of a twin


@click.command("calibrate")
@click.argument("network", metavar="NETWORK")
@CHIP
@options.device
@options.shadow
@options.baud
@click.option(
    "--effort",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Times as long; errors go with its root.",
)
@click.option("--plot", type=options.FILE, metavar="STEM", help="A picture, STEM.svg and STEM.png.")
@click.option("--out", type=options.FILE, required=True, metavar="FILE", help="What is written.")
def calibrate(
    network: str,
    spec: str,
    device: str,
    shadow: bool,
    baud: int | None,
    effort: int,
    plot: Path | None,
    out: Path,
) -> None:
    """Measure a chip with NETWORK on it, by stimulating and reading out alone.

    Offsets, gains and time constants of every neuron, gains of every synapse, with their
    uncertainty. FILE then corrects what can be corrected: --calibration of run and eval.
    """
    wrong = [why] if (why := unwritable(out)) is not None else []
    if plot is not None:
        wrong += _no_picture(plot)
    if wrong:
        raise UsageError("\n".join(wrong))
    files = Files()
    net, chip = files.network(network), files.chip(spec)
    files.check()
    assert net is not None
    assert chip is not None
    begun = time.monotonic()
    with open_device(device, shadow=shadow, baud=baud) as body, Bar("measuring") as bar:
        found = measure_chip(body, chip, net, effort=effort, progress=bar.update)
    seconds = time.monotonic() - begun
    found.save(out)
    rows = [("chip", f"{chip.name}:{chip.seed}, {device}"), ("network", net.name)]
    click.echo(pairs([*rows, ("identity", found.identity)]) + "\n")
    click.echo(report(found, chip.profile))
    rows = [("steps", f"{found.steps:,}"), ("time", duration(seconds)),
            ("calibration", found.hash()), ("written", str(out))]  # fmt: skip
    if plot is not None:
        from hwgle.report.calibration_plot import picture
        from hwgle.report.plots import save as save_figure

        figure = picture(found, chip.profile, f"Chip {chip.name}:{chip.seed} carrying {net.name}")
        rows += [("written", str(path)) for path in save_figure(figure, plot)]
    click.echo("\n" + pairs(rows))


def _no_picture(stem: Path) -> list[str]:
    """Why the picture cannot be written, nothing if it can."""
    for path in (stem.with_suffix(".svg"), stem.with_suffix(".png")):
        if (why := unwritable(path)) is not None:
            return [why.replace("--out", "--plot", 1)]
    return []


@click.command("twin")
@click.argument("calibration", type=options.FILE, metavar="CALIBRATION")
@CHIP
@click.option("--network", metavar="NETWORK", help="Try the twin on fresh streams through it.")
@click.option("--weights", type=options.FILE, metavar="W.npz", help="Of it; random unless given.")
@options.device
@options.shadow
@options.baud
@options.seed
@click.option("--out", type=options.FILE, required=True, metavar="FILE", help="What is written.")
def twin(
    calibration: Path,
    spec: str,
    network: str | None,
    weights: Path | None,
    device: str,
    shadow: bool,
    baud: int | None,
    seed: int | None,
    out: Path,
) -> None:
    """Write the identity that makes the emulator behave like the chip of CALIBRATION.

    With --network the twin is tried: rates of the device on streams that nothing was fitted
    to, against those of the twin and of the chip as designed; `noise` is how well the chip
    repeats itself, beyond which nothing can predict it.
    """
    wrong = [why] if (why := unwritable(out)) is not None else []
    if weights is not None and network is None:
        wrong.append("--weights: of which network? name it with --network")
    if wrong:
        raise UsageError("\n".join(wrong))
    files = Files()
    measured, chip = files.calibration(calibration), files.chip(spec)
    net = None if network is None else files.network(network)
    w = None if weights is None else files.weights(weights, net)
    files.check()
    assert measured is not None
    assert chip is not None
    measured.check_identity(chip, str(calibration))
    if net is not None and w is not None:
        net = with_times(net, w)
    made = measured.twin(chip.profile)
    rows = [["layer", "sweep: design", "twin"]]
    for name, (design, fitted) in zip(measured.names, measured.facts["sweep_db"], strict=True):
        rows.append([name, _db(design), _db(fitted)])
    if net is not None:
        measured.check(chip, net, str(calibration))
        rng = np.random.default_rng(seed or 0)
        w = initial(net, seed or 0) if w is None else w
        with open_device(device, shadow=shadow, baud=baud) as body:
            left = tried(body, chip, made, net, w, rng)
        noisy = any(np.isfinite(one.repeated) for one in left)
        rows[0] += ["streams: design", "twin", "better", *(["noise"] if noisy else [])]
        for row, one in zip(rows[1:], left, strict=True):
            row += [_db(one.designed), _db(one.twin), _db(one.better, "+")]
            row += [_db(one.repeated)] if noisy else []
    save(made, out)
    click.echo(table(rows) + "\n")
    click.echo(pairs([("twin of", measured.identity), ("identity", identity_hash(made)),
                      ("written", str(out))]))  # fmt: skip


def tried(
    device: Device, chip: Chip, made: Chip, network: Network, weights: Weights,
    rng: np.random.Generator,
) -> list[Residual]:  # fmt: skip
    """Twin and design against the device on fresh streams."""
    x = streams(rng, network.inputs)
    scales = scales_of(network, nominal(chip.profile), weights, x)
    return residuals(
        device, lambda n, s: build_image(n, chip, s), made, network, weights, scales, x
    )


def streams(rng: np.random.Generator, inputs: int) -> NDArray[np.float64]:
    """Sums of three sines of random period and phase, (STEPS, STREAMS, inputs), within +-1."""
    shape = (3, 1, STREAMS, inputs)
    turn = 2 * np.pi / (10.0 ** rng.uniform(1.2, 2.3, shape))
    t = np.arange(STEPS).reshape(1, -1, 1, 1)
    wave = np.sin(turn * t + rng.uniform(0, 2 * np.pi, shape)).mean(axis=0)
    return np.asarray(wave, dtype=np.float64)


def _db(value: float, sign: str = "") -> str:
    """A ratio; without a difference there is none."""
    return f"{value:{sign}.1f} dB" if abs(value) < DB_MAX else "equal"


# --- what a person reads -----------------------------------------------------------------------


def report(c: Calibration, profile: Profile) -> str:
    """Error bars layer by layer, the neurons furthest from design, what is not observable."""
    names = [n for n in COLUMNS if spread(profile, n) > 0]
    if profile.leak.tracks and "tau_r" in names:
        names.remove("tau_r")
    rows = [["layer", "dead", "stuck", *(COLUMNS[n][0] for n in names)]]
    for name, own in zip(c.names, c.layers, strict=True):
        stuck = 0 if own.stuck is None else int((own.stuck != NORMAL).sum())
        row = [name, str(int(own.dead.sum())), str(stuck)]
        for n in names:
            row.append(_bars(getattr(own, n), own.dead, COLUMNS[n][1]))
        rows.append(row)
    parts = ["Standard errors, median and worst:", table(rows)]
    far = worst(c, profile, names)
    if far:
        parts += ["", "Furthest from design (in standard deviations of the data sheet):"]
        parts.append(pairs(far))
    if lines := c.not_observable(profile):
        parts += ["", "Not observable:", *(f"- {line}" for line in lines)]
    return "\n".join(parts)


def _bars(estimate: Estimate | None, dead: NDArray[np.bool_], factor: float) -> str:
    if estimate is None:
        return "-"
    errors = estimate.error[~dead]
    errors = errors[np.isfinite(errors)] * factor
    return f"{np.median(errors):.2g}, {errors.max():.2g}" if errors.size else "-"


def worst(c: Calibration, profile: Profile, names: list[str]) -> list[tuple[str, str]]:
    """The neurons that are off most, with what is off most in each."""
    found = []
    for layer, own in zip(c.names, c.layers, strict=True):
        for i in np.flatnonzero(~own.dead):
            off = {
                n: (getattr(own, n).value[i] - (1.0 if "offset" not in n else 0.0))
                / spread(profile, n)
                for n in names
                if n != "synapse"
            }
            if off:
                most = max(off, key=lambda n: abs(off[n]))
                e: Estimate = getattr(own, most)
                text = f"{off[most]:+.1f}  {most} {e.value[i]:.4g} +- {e.error[i]:.2g}"
                found.append((abs(off[most]), f"{layer}[{i}]", text))
    found.sort(reverse=True)
    return [(name, text) for _, name, text in found[:WORST]]
