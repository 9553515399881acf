"""`hwgle verify`: the same stream on a body and on the emulator, compared bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from hwgle import topology
from hwgle.chip import MAX_SEED, Chip
from hwgle.cli import options
from hwgle.cli.files import Files
from hwgle.cli.progress import Bar
from hwgle.cli.table import pairs
from hwgle.device import Device
from hwgle.errors import NotEqual, UsageError
from hwgle.experiment import Experiment, Training
from hwgle.network import Network
from hwgle.onchip import PLAIN, OnChip
from hwgle.snapshot import Difference, place
from hwgle.verify import Case, Located, Outcome, Tampering, draw_case, verify
from hwgle.verify.bodies import kernels_here, names, open_body, opposite
from hwgle.verify.drawing import BLOCK
from hwgle.weights import Weights, with_times
from hwgle.yamlfile import find, read, zoo_names

STEPS = 5000
SHOWN = 8  # differences listed


@click.command()
@click.argument("network", metavar="[NETWORK|EXPERIMENT]", required=False)
@options.device
@options.baud
@click.option("--networks", type=click.IntRange(1, 10**6), help="Random networks instead, so many.")
@click.option("--weights", type=options.FILE, metavar="W.npz", help="Drawn unless given.")
@click.option(
    "--input", "input_", type=options.FILE, metavar="X.npy",
    help="(T, streams, inputs); drawn unless given.",
)  # fmt: skip
@click.option(
    "--target", type=options.FILE, metavar="Y.npy", help="As for run; drawn unless given."
)
@click.option("--chip", "chip_spec", metavar="NAME|FILE[:SEED]", help="The chip.  [default: ideal]")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=1, show_default=True,
              help="Of all that is drawn, and of stochastic rounding.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 10**9), help=f"[default: {STEPS}, or the input's]")
@click.option("--batch", type=click.IntRange(1, 4096), help="Streams at once.  [default: 1]")
@click.option("--learn/--no-learn", default=True, help="Learn on the chip.  [default: learn]")
@options.rule
@click.option("--tamper", is_flag=True, help="Flip one bit on the device: it must be found.")
def command(
    network: str | None,
    device: str,
    baud: int | None,
    networks: int | None,
    weights: Path | None,
    input_: Path | None,
    target: Path | None,
    chip_spec: str | None,
    seed: int,
    steps: int | None,
    batch: int | None,
    learn: bool,
    rule: str | None,
    tamper: bool,
) -> None:
    """Run the same stream on a body and on the emulator and compare every state.

    NETWORK: a network or an experiment (its network and chip), by name or file. Weights,
    input and target are drawn from the seed unless given; learning and stochastic rounding
    are on. After a difference the steps are halved down to the first one whose states
    differ, and that step, layer, neuron and signal are named; exit code 1.

    With --device emu: the fastest kernels of this machine are compared with plain C.
    """
    if (network is None) == (networks is None):
        raise UsageError("name a NETWORK or EXPERIMENT, or say --networks N for random ones")
    if network is None and (weights, input_, target) != (None, None, None):
        raise UsageError("--weights, --input and --target go with a NETWORK, not with --networks")
    given = _read(network, weights, input_, target, chip_spec)
    if given.x is not None:
        if batch not in (None, given.x.shape[1]):
            raise UsageError(f"--batch {batch}: the input has {given.x.shape[1]} streams")
        if steps is not None and steps > given.x.shape[0]:
            raise UsageError(f"--steps {steps}: the input has {given.x.shape[0]}")
        batch, steps = given.x.shape[1], steps or given.x.shape[0]
    steps, batch = steps or STEPS, batch or 1
    unequal = missed = 0
    with open_body(device, baud) as body, Bar("verifying") as bar:
        for turn in range(networks or 1):
            case = _case(body, given, seed + turn, steps, batch, learn, rule)
            found = _one(body, device, case, turn, tamper, bar)
            unequal += found
            missed += tamper and not found
    if missed:
        raise NotEqual(f"{missed} flipped bits were not found")
    if unequal:
        which = "" if networks is None else f" in {unequal} of {networks} networks"
        raise NotEqual(f"{device} and the emulator differ{which}")


class Given:
    """What the command line names; None: to be drawn."""

    def __init__(
        self, network: Network | None, chip: Chip, weights: Weights | None,
        x: NDArray[np.float64] | None, target: NDArray[Any] | None, training: Training | None,
    ) -> None:  # fmt: skip
        self.network, self.chip, self.weights = network, chip, weights
        self.x, self.target, self.training = x, target, training


def _read(
    network: str | None,
    weights: Path | None,
    input_: Path | None,
    target: Path | None,
    chip: str | None,
) -> Given:
    if target is not None and input_ is None:
        raise UsageError("--target: only together with --input")
    files = Files()
    net, own, training = None, None, None
    if network is not None:
        loaded = files.read(lambda: what_is_named(network))
        net, own, training = loaded if loaded is not None else (None, None, None)
    profile = files.chip(chip) if chip is not None else own or Chip.load("ideal")
    w = None if weights is None else files.weights(weights, net)
    x = None if input_ is None else files.input(input_, net)
    y = None if target is None else files.target(target, net, x)
    files.check()
    assert profile is not None
    if net is not None and w is not None:
        net = with_times(net, w)
    return Given(net, profile, w, x, y, training)


def what_is_named(name: str) -> tuple[Network, Chip | None, Training | None]:
    """A network, or an experiment's network with its chip and its training.

    Raises:
        FileMistakes: no such thing, or mistakes in it.
    """
    unknown = name not in zoo_names("networks") and not Path(name).is_file()
    is_experiment = unknown and name in zoo_names("experiments")
    data = read(find("experiments" if is_experiment else "networks", name)).data
    kind = data.get("format") if isinstance(data, dict) else None
    if isinstance(kind, str) and kind.startswith("hwgle/experiment/"):
        experiment = Experiment.load(name)
        return experiment.load_network(), experiment.load_chip(), experiment.training
    return Network.load(name), None, None


def learner_of(training: Training | None, rule: str | None) -> OnChip:
    """What learns on the chip: the rule that is asked for, else the experiment's."""
    if training is not None and rule in (None, training.rule):
        return training.on_chip()
    return OnChip.named(rule or "sgd")


def _case(
    body: Device, given: Given, seed: int, steps: int, batch: int, learn: bool, rule: str | None
) -> Case:
    learner = learner_of(given.training, rule) if learn else PLAIN
    if given.network is None:
        case = draw_case(body, given.chip, seed, steps, batch, learn, learner)
        if case is None:
            raise UsageError(f"{batch} streams of not even the smallest network fit this body")
        return case
    return Case(
        given.network, given.chip, seed, steps, batch, learn, given.weights, given.x,
        given.target, learner,
    )  # fmt: skip


def _one(body: Device, url: str, case: Case, turn: int, tamper: bool, bar: Bar) -> bool:
    """One comparison, told; whether a difference was found."""
    with opposite(body, kernels_here(), turn) as emulator:
        one, other = names(url, body, emulator)
        bar.label = f"verifying {case.network.name}"
        outcome, flipped = verify(
            body, emulator, case, name=one, tamper=tamper, progress=bar.update
        )
        bar.clear()
        click.echo(pairs(_facts(case, one, other, emulator.kernels, outcome)))
    if outcome.located is None:
        click.echo("equal: every state of every step, all weights, formats and counters\n")
    else:
        click.echo(difference_text(case, outcome.located, one, other))
    if flipped is not None:
        click.echo(_tamper_text(case, flipped, outcome.located))
    return outcome.located is not None


def _facts(case: Case, one: str, other: str, kernels: str, o: Outcome) -> list[tuple[str, str]]:
    layers = " ".join(f"{layer.phi}{layer.size}" for layer in case.network.layers)
    n = case.network
    body, emulator = o.steps / max(o.body_seconds, 1e-9), o.steps / max(o.emulator_seconds, 1e-9)
    rows = [
        ("network", f"{n.name}: {n.inputs} in, {layers}, {n.loss}; chip {case.chip.name}"),
        ("compared", f"{one} with {other}, kernels {kernels}"),
        ("equal", f"{o.steps} of {case.steps} steps in {o.blocks} blocks, streams: {case.batch}"),
        ("speed", f"{body:,.0f} steps/s, the emulator {emulator:,.0f}"),
    ]
    if o.located is None:
        rounding = case.chip.plasticity.rounding
        if case.learn:
            text = f"{case.learner.rule}: {o.updates:,} updates, {rounding} rounding; "
            text += f"{o.weights_changed:,} of "
            there = n.parameters - sum(n.sizes)
            if topology.learns_feedback(n):
                backs = [k for k in range(len(n.layers)) if topology.feedback_shape(n, k)]
                there += sum(int(topology.mask(n, k).sum()) for k in backs)
            text += f"{there:,} weights changed, {o.moves} moves of scales"
            rows.append(("learning", text))
        rows.append(("digest", f"{o.digest:016x}; snapshots of {o.snapshot_bytes:,} bytes"))
    return rows


def difference_text(case: Case, found: Located, one: str, other: str) -> str:
    """Where the first difference lies, with both values."""
    first, count = found.block
    what = f"block {first // BLOCK} (steps {first}..{first + count - 1})"
    if found.digests[0] == found.digests[1]:
        lines = [f"DIFFERENT state behind {what}, although the digests agree"]
    else:
        a, b = (f"{digest:016x}" for digest in found.digests)
        lines = [f"DIFFERENT in {what}: digest {a} on {one}, {b} on {other}"]
    if found.step is None:
        lines.append(
            "  It does not come again when the steps are run again from equal states: transient."
        )
        head = f"  after step {found.seen_after - 1}, first in the order of causes:"
    elif found.written:
        head = f"  before step {found.step}: a state that was written to it reads back otherwise:"
    else:
        head = f"  first in step {found.step} (found in {found.runs} runs from equal states):"
    lines.append(head)
    lines += [f"    {_values(case.network, d, one, other)}" for d in found.found[:SHOWN]]
    if more := len(found.found) - SHOWN:
        lines += [f"    and {more} more"] if more > 0 else []
    if found.found and all(d.kind == "digest" for d in found.found):
        lines.append("    no state differs there any more: the difference has died away")
    if not found.found:
        lines.append("    no number of the snapshots: only the digest differs")
    return "\n".join(lines) + "\n"


def _values(network: Network, d: Difference, one: str, other: str) -> str:
    return f"{place(network, d)}: {d.first} on {one}, {d.second} on {other}"


def _tamper_text(case: Case, flipped: Tampering, found: Located | None) -> str:
    m, n = case.network.fan_in(flipped.layer), case.network.sizes[flipped.layer]
    layer, kind, index = flipped.difference(m, n)
    where = place(case.network, Difference(layer, kind, kind, index, 0, 0))
    text = f"tampered: bit {flipped.bit} after step {flipped.step}: {where}"
    if flipped.passed_over:
        text += f" ({flipped.passed_over} draws that change no later state were passed over)"
    if found is None:
        return text + "\nNOT FOUND"
    same = found.step == flipped.step and bool(found.found) and flipped.is_at(found.found[0], m, n)
    return text + ("\nfound, and located where it is" if same else "\nfound, but located elsewhere")
