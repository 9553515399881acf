"""The demo: a trained GLE network classifies and learns MNIST-1D on a chip, next to float64.

The float64 side runs in processes of its own, so that on two cores the whole takes no
longer than its slower half. All numbers follow from the seeds below.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle import weights as weights_file
from hwgle.chip import Chip
from hwgle.device import Block, Device
from hwgle.errors import DeviceError
from hwgle.experiment import Experiment
from hwgle.learning.adam import Learner
from hwgle.learning.order import balanced_order
from hwgle.network import Layer, Network
from hwgle.quantise import build_image, to_int16
from hwgle.reference import Adam, Reference
from hwgle.report.comparison import Comparison, compare
from hwgle.report.floats import FloatPool, ignore_interrupts
from hwgle.session import calibrate_on, run
from hwgle.tasks import Split, Task
from hwgle.undisturbed import undisturbed
from hwgle.weights import Weights

EXPERIMENT = "mnist1d-15k"
PUBLISHED = (0.9172, 0.0080)  # arXiv 2403.16933, 10 seeds, in float
SHOWN_STREAMS = 32  # the first of them that the chip gets right is drawn
SHOWN_NEURONS = 3
SIGNALS = ("u", "r", "e")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Relearning:
    """How the forgotten read-out is learned again; the same on the chip and in float64.

    rate: of Adam, at every step. seed: of the new read-out weights.
    """

    batch: int = 50
    batches: int = 16
    rate: float = 5e-4
    seed: int = 1


@dataclass(frozen=True)
class Setting:
    """What the demo works on; shown: streams of which one is drawn."""

    network: Network
    chip: Chip
    weights: Weights
    metrics: list[dict[str, Any]]
    task: Task
    relearning: Relearning = Relearning()
    shown: int = SHOWN_STREAMS


@dataclass(frozen=True)
class Stream:
    """One stream on both sides: x (T, inputs), `<layer>.<signal>` (T, n)."""

    index: int
    label: int
    decided: int
    x: NDArray[np.float32]
    floating: dict[str, NDArray[np.float64]]
    chip: dict[str, NDArray[np.float64]]


def load(folder: Path | None = None) -> Setting:
    """The zoo's trained network, its metrics and its data (generated on first use).

    folder: where `mnist1d-15k.npz` and `.jsonl` lie, the zoo unless given. Raises
    FileMistakes when the weights are not there.
    """
    experiment = Experiment.load(EXPERIMENT)
    network = experiment.load_network()
    where = folder or Path(str(resources.files("hwgle") / "zoo" / "weights"))
    weights = weights_file.load(where / f"{EXPERIMENT}.npz", network)
    metrics_file = where / f"{EXPERIMENT}.jsonl"
    lines = metrics_file.read_text().splitlines() if metrics_file.is_file() else []
    task = experiment.load_task()
    assert isinstance(task, Task)
    return Setting(
        network=network,
        chip=experiment.load_chip(),
        weights=weights,
        metrics=[json.loads(line) for line in lines],
        task=task,
    )


def forgotten(setting: Setting) -> Weights:
    """The weights with a read-out as drawn before any learning."""
    fresh = weights_file.initial(setting.network, setting.relearning.seed)
    top = setting.network.layers[-1].name
    new = {key: fresh[key] for key in (f"{top}.weight", f"{top}.bias")}
    return {**setting.weights, **new}


def lesson(setting: Setting) -> Split:
    """What is learned from again: training samples, the classes in equal shares in each batch."""
    how, train = setting.relearning, setting.task.train
    rng = np.random.Generator(np.random.PCG64(how.seed))
    order = balanced_order(train.y, rng)[: how.batch * how.batches]
    return Split(train.x[order], train.y[order])


def prepared(
    device: Device, setting: Setting
) -> tuple[Learner, NDArray[np.int16], NDArray[np.int64]]:
    """The chip with a forgotten read-out, ready to learn; inputs and labels of all batches.

    Raises DeviceRefused or UsageError on a body that cannot.
    """
    how, network, chip = setting.relearning, setting.network, setting.chip
    train = lesson(setting)
    x = np.swapaxes(train.x, 0, 1)
    weights = forgotten(setting)
    scales = calibrate_on(network, chip, weights, x, train.y, learning=True)
    image = build_image(network, chip, scales, batch=how.batch, range_every=len(x), seed=how.seed)
    rule = Learner()
    rule.begin(device, image, how.batch, weights)
    rule.set_rate(how.rate)
    return rule, to_int16(x, scales.input, chip.input_max)[0], train.y


def relearn_chip(device: Device, setting: Setting, progress: Progress) -> list[float]:
    """Accuracy of each batch while the chip learns it; the gradient is read out each step."""
    how = setting.relearning
    rule, x, labels = prepared(device, setting)
    accuracies = []
    for k in range(how.batches):
        who = slice(k * how.batch, (k + 1) * how.batch)
        y = labels[who]
        votes = rule.run(Block(x[:, who], y.astype(np.int16), ranging=True, votes=True)).votes
        assert votes is not None
        accuracies.append(float(np.mean(votes.argmax(axis=1) == y)))
        progress("chip learns", k + 1, how.batches)
    return accuracies


def relearn_float(
    network: Network, weights: Weights, train: Split, how: Relearning
) -> Iterator[float]:
    """The same in float64: yields the accuracy of each batch."""
    oracle, adam = Reference(network, weights, how.batch), Adam(how.rate)
    for k in range(how.batches):
        who = slice(k * how.batch, (k + 1) * how.batch)
        x, y = train.x[who], train.y[who]
        votes = np.zeros((how.batch, network.outputs))
        for t in range(x.shape[1]):
            oracle.step(x[:, t], y)
            adam(oracle)
            votes += oracle.output
        yield float(np.mean(votes.argmax(axis=1) == y))


def _relearn_in_child(
    to: Connection, network: Network, weights: Weights, train: Split, how: Relearning
) -> None:
    ignore_interrupts()
    for accuracy in relearn_float(network, weights, train, how):
        to.send(accuracy)
    to.close()


@contextmanager
def float_relearning(setting: Setting) -> Iterator[Iterator[float]]:
    """Begin to relearn in float64 in another process; gives accuracies as they come.

    Raises DeviceError from the iterator when that process dies.
    """
    how = setting.relearning
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    args = (theirs, setting.network, forgotten(setting), lesson(setting), how)
    child = context.Process(target=_relearn_in_child, args=args, daemon=True)
    with undisturbed():
        child.start()
    theirs.close()

    def accuracies() -> Iterator[float]:
        for _ in range(how.batches):
            try:
                yield mine.recv()
            except EOFError:
                raise DeviceError("the process that learns in float64 has died") from None

    try:
        yield accuracies()
    finally:
        child.terminate()
        child.join()
        mine.close()


def show_stream(device: Device, setting: Setting) -> Stream:
    """One test stream with its label as target: signals of all layers, chip and float64.

    A target without learning drives the errors and changes no weight.
    """
    network, weights = setting.network, setting.weights
    test = setting.task.test
    x = np.swapaxes(test.x[: setting.shown], 0, 1)
    y = test.y[: setting.shown]
    on_chip = run(device, network, setting.chip, weights, x, y, record=SIGNALS).signals
    decided = on_chip["output"].sum(axis=0).argmax(axis=1)
    index = int(np.argmax(decided == y))
    oracle = Reference(network, weights, 1)
    one = slice(index, index + 1)
    floating = oracle.run(x[:, one], y[one], record=SIGNALS)
    return Stream(
        index=index,
        label=int(y[index]),
        decided=int(decided[index]),
        x=x[:, index],
        floating={name: values[:, 0].astype(np.float64) for name, values in floating.items()},
        chip={name: values[:, index].astype(np.float64) for name, values in on_chip.items()},
    )


def chosen_neurons(layer: Layer, rates: NDArray[np.float64], label: int | None) -> dict[int, str]:
    """A few neurons and their names: the liveliest of each population, or of the output
    layer the label and its strongest rivals."""
    if label is not None:
        order = [int(n) for n in rates.mean(axis=0).argsort()[::-1] if n != label]
        return {label: f"class {label} (label)"} | {
            n: f"class {n}" for n in order[: SHOWN_NEURONS - 1]
        }
    chosen = {}
    first = 0
    for p in layer.populations[:SHOWN_NEURONS]:
        n = first + int(rates[:, first : first + p.size].std(axis=0).argmax())
        chosen[n] = f"neuron {n}: τm {p.tau_m:g}, τr {p.tau_r:g}"
        first += p.size
    return chosen


def draw_stream(setting: Setting, stream: Stream, out: Path) -> list[Path]:
    """The picture of a stream: first, middle and output layer."""
    from hwgle.report import plots

    layers = setting.network.layers
    traces = []
    for k in sorted({0, len(layers) // 2, len(layers) - 1}):
        name = layers[k].name
        label = stream.label if k == len(layers) - 1 else None
        chosen = chosen_neurons(layers[k], stream.floating[f"{name}.r"], label)
        which = list(chosen)
        floating = {s: stream.floating[f"{name}.{s}"][:, which] for s in SIGNALS}
        chip = {s: stream.chip[f"{name}.{s}"][:, which] for s in SIGNALS}
        traces.append(plots.LayerTraces(name, list(chosen.values()), floating, chip))
    title = (
        f"MNIST-1D test stream {stream.index}: label {stream.label}, "
        f"class on the chip {stream.decided} ({setting.network.name} on {setting.chip.name})"
    )
    return plots.save(plots.stream(setting.network.dt, stream.x, traces, title), out / "stream")


def draw_relearning(
    setting: Setting, floating: list[float], chip: list[float], before: float, out: Path
) -> list[Path]:
    """The picture of learning the read-out again."""
    from hwgle.report import plots

    how = setting.relearning
    title = f"The read-out is forgotten and learned again (Adam at every step, rate {how.rate:g})"
    figure = plots.relearning(how.batch, floating, chip, before, title)
    return plots.save(figure, out / "relearning")


def draw_epochs(setting: Setting, out: Path) -> list[Path]:
    """The picture of the full training, none if its metrics are not there."""
    from hwgle.report import plots

    if not setting.metrics:
        return []
    title = f"Full training of {setting.network.name}, chip {setting.chip.name} in the loop"
    return plots.save(plots.epochs(setting.metrics, PUBLISHED, title), out / "epochs")


def classify(
    device: Device,
    setting: Setting,
    pool: FloatPool,
    progress: Progress,
    meanwhile: Callable[[], None],
) -> Comparison:
    """All test streams on the chip and in float64."""
    return compare(
        device,
        setting.network,
        setting.chip,
        setting.weights,
        setting.task,
        pool,
        progress,
        meanwhile,
    )
