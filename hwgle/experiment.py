"""An experiment: network + chip + task + training, `hwgle/experiment/1`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

from pydantic import Field, PrivateAttr, ValidationError

from hwgle import topology
from hwgle.chip import Chip, split_seed
from hwgle.errors import FileMistakes, Mistake, UsageError
from hwgle.network import Network
from hwgle.onchip import (
    MAX_APPLY_EVERY,
    MAX_RISES,
    MOMENTUM_SHIFTS,
    NORM_SHIFT,
    NORM_SHIFTS,
    PLAIN,
    OnChip,
)
from hwgle.tasks import SETTINGS, SeriesTask, Task
from hwgle.tasks.settings import Needs, Progress, TaskSettings
from hwgle.yamlfile import (
    Checked,
    Rule,
    Where,
    YamlFile,
    dotted,
    find,
    number,
    read,
    validate,
    validation_rules,
    zoo_names,
)

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=1, le=10**6)]
T = TypeVar("T")
OF_ADAM = (
    "beta1",
    "beta2",
    "weight_decay",
    "weight_limit",
    "average",
    "tau_rate",
    "tau_floor",
)
# What is a mistake beside a rule that does not know it.
UNKNOWN_TO = {
    "adam": ("momentum_shift", "norm_shift", "apply_every"),
    "sgd": (*OF_ADAM, "norm_shift"),
    "sign": (*OF_ADAM, "norm_shift"),
    "normalised": OF_ADAM,
}


# The settings of all tasks that there are, told apart by `name`.
if TYPE_CHECKING:
    AnyTask = TaskSettings
else:
    AnyTask = Annotated[Union[tuple(SETTINGS.values())], Field(discriminator="name")]  # noqa: UP007


class Constant(Checked):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"


class Cosine(Checked):
    """Half a cosine from the learning rate to `final` at the end of the last epoch."""

    kind: Literal["cosine"]
    final: float = Field(ge=0)


class Exponential(Checked):
    """A constant factor per epoch, from the learning rate to `final`."""

    kind: Literal["exponential"]
    final: float = Field(gt=0)


class Plateau(Checked):
    """Times `factor` after `patience` epochs without a better validation loss."""

    kind: Literal["plateau"]
    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(2, ge=1, le=10**6)
    final: float = Field(0.0, ge=0)


class Halving(Checked):
    """Halves every `every` learning steps, down to `final`: the chip does it by itself."""

    kind: Literal["halving"]
    every: int = Field(ge=1, le=2**31 - 1)
    final: float = Field(gt=0)


Schedule = Annotated[
    Constant | Cosine | Exponential | Plateau | Halving, Field(discriminator="kind")
]


class Training(Checked):
    """How it learns; the learning rate is per step of the network.

    error_clip: share of errors that may clip before auto-ranging makes a layer's scale
    coarser. layer_rate: factor on the learning rate for each layer further from the
    output (the chip takes the nearest power of two of each layer's): an error is amplified by
    tau_m/tau_r in every layer that it passes, its noise most of all, and a normaliser would
    let noise take full steps. beta1, beta2: of Adam's running means.
    initial_gain: factor on the initial weights of all layers but the output, so that signals
    and errors of deep networks are not lost in rounding.
    weight_decay: share of the weights that is lost per step and unit of learning rate,
    with rule adam (decoupled, arXiv 1711.05101; taken off after each batch of samples):
    large weights amplify rounding and, with saturated activations, stop learning. weight_limit:
    largest size of a weight, in units of 1/sqrt(inputs of its layer), as conductances have a
    range (null: none), with rule adam. average:
    epochs over which a host that keeps weights averages them for validation (0: none).
    hold_weight_range: the format of stored weights stays as it was chosen for the first ones, and
    what leaves it clips; else it widens, and of few bits little is left.
    tau_rate: factor on the rate of time constants that are learned (learn_tau_m), with rule
    adam; tau_floor: the least that they may become, in steps dt.
    momentum_shift, norm_shift: 2^-shift of the running means of the gradient and of its size is
    new at each update, with rules on the chip (see hwgle/onchip.py). apply_every: steps whose
    gradients the chip sums before it applies them. validate_every: epochs between two looks at
    the validation split; the weights that did best there are kept. starts: draws of initial
    weights that learn for start_epochs each (at most for all epochs); the one that did best in
    the last of them, on what it learned from, goes on (see hwgle/learning/starts.py). focus: 0
    shows each sample once an epoch; from there to less than 1, those more often that were voted
    wrong or nearly so when they were last shown, and others less (samples with classes; see
    hwgle/learning/focus.py).
    """

    rule: Literal["adam", "sgd", "normalised", "sign"]
    epochs: Count
    batch: Annotated[int, Field(ge=1, le=4096)]
    learning_rate: float = Field(gt=0)
    schedule: Schedule = Constant()
    error_clip: float = Field(0.0003, ge=0, le=0.5)
    layer_rate: float = Field(1.0, gt=0, le=1)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    initial_gain: float = Field(1.0, gt=0, le=100)
    weight_decay: float = Field(0.0, ge=0, le=1)
    weight_limit: float | None = Field(
        None, gt=0, le=1e6, description="a number above 0, at most 1e6, or null: none"
    )
    hold_weight_range: bool = False
    average: float = Field(0.0, ge=0, le=1000)
    tau_rate: float = Field(1.0, gt=0, le=1000)
    tau_floor: float = Field(1.0, ge=1, le=10000)
    momentum_shift: int | None = Field(
        None,
        ge=MOMENTUM_SHIFTS[0],
        le=MOMENTUM_SHIFTS[1],
        description="a whole number from 0 to 16, or null: the rule's own",
    )
    norm_shift: int = Field(NORM_SHIFT, ge=NORM_SHIFTS[0], le=NORM_SHIFTS[1])
    apply_every: int = Field(1, ge=1, le=MAX_APPLY_EVERY)
    validate_every: Count = 1
    starts: Annotated[int, Field(ge=1, le=1000)] = 1
    start_epochs: Count = 10
    focus: float = Field(0.0, ge=0, lt=1)
    seed: Seed = 0

    def on_chip(self) -> OnChip:
        """What the chip does by itself; of a rule on the host, nothing."""
        if self.rule == "adam":
            return PLAIN
        rule = OnChip.named(self.rule, self.momentum_shift, self.norm_shift, self.apply_every)
        if isinstance(self.schedule, Halving):
            rises = round(math.log2(self.learning_rate / self.schedule.final))
            rule = replace(rule, rate_every=self.schedule.every, rate_rises=min(rises, MAX_RISES))
        return rule


class Experiment(Checked):
    """What `hwgle train` takes; `network` and `chip` are names or paths."""

    format: Literal["hwgle/experiment/1"]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=64,
        description="a name of letters, digits, _ . and -, at most 64 long",
    )
    network: str = Field(min_length=1, description="the name or path of a network")
    chip: str = Field(min_length=1, description="the name or path of a chip, :SEED after it or not")
    task: AnyTask
    training: Training

    _file: YamlFile | None = PrivateAttr(None)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Experiment:
        """Read an experiment by name (zoo) or path, and check the files it names.

        Raises:
            FileMistakes: all mistakes of the experiment, its network and its chip.
        """
        file = read(find("experiments", os.fspath(name_or_path)))
        mistakes: list[Mistake] = []
        experiment = _collect(mistakes, lambda: validate(cls, file))
        network = _collect(mistakes, lambda: _network(file.data.get("network"), file))
        _collect(mistakes, lambda: _chip(file.data.get("chip"), file))
        needs = _collect(mistakes, lambda: _needs(file))
        if network is not None and needs is not None:
            mistakes += _fits(network, needs, file)
        if network is not None and experiment is not None:
            mistakes += _learnable(network, experiment.training, file)
        if mistakes or experiment is None:
            raise FileMistakes(list(dict.fromkeys(mistakes)))
        experiment._file = file
        return experiment

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """The task's own, a batch can be filled, the rule knows its settings, the rate falls."""
        training = data.get("training")
        training = training if isinstance(training, Mapping) else {}
        batch = number(training.get("batch"))
        settings, task = _settings(data.get("task"))
        if settings is not None:
            for own in settings.rules(task):
                yield own._replace(path=("task", *own.path))
            count = settings.count(task)
            if count is not None and batch is not None and batch > count >= 1:
                allowed = f"at most {settings.COUNTED or 'streams'} = {count:g}"
                yield Rule(("training", "batch"), f"{batch:g}", allowed)
        rule, schedule = training.get("rule"), training.get("schedule")
        for key in UNKNOWN_TO.get(rule, ()) if isinstance(rule, str) else ():
            only = Training.model_fields[key].default
            value = number(training.get(key, only))
            if value is not None and value != only:
                known = "nothing" if only is None else f"{only:g}"
                allowed = f"{known} with rule {rule}, which knows none"
                yield Rule(("training", key), f"{value:g}", allowed)
        kind = schedule.get("kind") if isinstance(schedule, Mapping) else None
        if kind == "halving" and rule == "adam":
            allowed = "constant, cosine, exponential or plateau with rule adam, which the host has"
            yield Rule(("training", "schedule", "kind"), "halving", allowed)
        final = number(schedule.get("final")) if isinstance(schedule, Mapping) else None
        rate = number(training.get("learning_rate"))
        if final is not None and rate is not None and final > rate > 0:
            allowed = f"at most learning_rate = {rate:g}"
            yield Rule(("training", "schedule", "final"), f"{final:g}", allowed)

    def load_network(self) -> Network:
        """The network that is named, relative paths from the experiment's file."""
        return _network(self.network, self._file)

    def load_chip(self) -> Chip:
        """The chip that is named, relative paths from the experiment's file."""
        return _chip(self.chip, self._file)

    def load_task(self, progress: Progress | None = None) -> Task | SeriesTask:
        """The data, relative paths from the experiment's file.

        Raises:
            UsageError, FileMistakes: see the task.
        """
        return self.task.load(self._base(), progress)

    def _base(self) -> Path:
        return Path() if self._file is None else self._file.path.parent

    def with_(
        self, *, epochs: int | None = None, seed: int | None = None, chip: str | None = None
    ) -> Experiment:
        """A copy with other epochs, training seed or chip; None keeps what stands.

        A relative path in `chip` starts at the working directory: it comes from
        the command line, not from the experiment's file.

        Raises:
            UsageError: a value that is not allowed.
            FileMistakes: mistakes of the chip.
        """
        data = self.model_dump()
        if epochs is not None:
            data["training"]["epochs"] = epochs
        if seed is not None:
            data["training"]["seed"] = seed
        if chip is not None:
            Chip.load(chip)
            name, text = split_seed(chip)
            if os.path.isfile(name) or name not in zoo_names("chips"):
                name = os.path.abspath(name)
            data["chip"] = name if text is None else f"{name}:{text}"
        try:
            copy = type(self).model_validate(data)
        except ValidationError as error:
            lines = [
                f"{dotted(rule.path)}: found {rule.found}; allowed: {rule.allowed}"
                for rule in validation_rules(type(self), error)
            ]
            raise UsageError("\n".join(lines)) from None
        copy._file = self._file
        return copy


def _collect(mistakes: list[Mistake], check: Callable[[], T]) -> T | None:
    """Run one check; its mistakes join the others and None stands for its result."""
    try:
        return check()
    except FileMistakes as error:
        mistakes += error.mistakes
        return None


def _at(file: YamlFile | None, key: str) -> tuple[Path | None, Where | None]:
    """Where relative paths start, and where a mistake in the reference is told."""
    if file is None:
        return None, None
    return file.path.parent, Where(str(file.path), file.line((key,)), key)


def _network(name: object, file: YamlFile | None) -> Network:
    if not isinstance(name, str) or not name:
        raise FileMistakes([])  # told by the experiment's own validation
    base, where = _at(file, "network")
    return Network.load(name, base=base, where=where)


def _chip(spec: object, file: YamlFile | None) -> Chip:
    if not isinstance(spec, str) or not spec:
        raise FileMistakes([])
    base, where = _at(file, "chip")
    return Chip.load(spec, base=base, where=where)


def _settings(data: object) -> tuple[type[TaskSettings] | None, Mapping[str, Any]]:
    """The settings that raw `task:` names and its keys, defaults filled in; None: no such."""
    name = data.get("name") if isinstance(data, Mapping) else None
    settings = SETTINGS.get(name) if isinstance(name, str) else None
    if settings is None or not isinstance(data, Mapping):
        return None, {}
    return settings, settings.filled(data)


def _needs(file: YamlFile) -> Needs | None:
    """What the task asks of a network, its files looked at; None where that depends on keys
    that are wrong, which is told by the experiment's validation."""
    data = file.data.get("task")
    settings, _ = _settings(data)
    if settings is None:
        return None
    try:
        task = settings.model_validate(data)
    except ValidationError:
        return settings.NEEDS
    broken = list(task.check(file.path.parent))
    if broken:
        raise FileMistakes([file.mistake(("task", *r.path), r.found, r.allowed) for r in broken])
    return task.needs(file.path.parent)


def _fits(network: Network, needs: Needs, file: YamlFile) -> Iterator[Mistake]:
    """The network must have the task's inputs, outputs, loss and, for some, layers."""
    name = file.data["task"]["name"]

    def mistake(has: str, wanted: str) -> Mistake:
        found, allowed = f"{network.name!r} with {has}", f"a network with {wanted} for {name}"
        return file.mistake(("network",), found, allowed)

    for what, count, wanted, more in (
        ("inputs", network.inputs, needs.inputs, False),
        ("outputs", network.outputs, needs.outputs, needs.at_least),
    ):
        if wanted is not None and (count < wanted if more else count != wanted):
            words = f"{wanted} {what}{' or more' if more else ''}"
            yield mistake(f"{count} {what}", words)
    if network.loss != needs.loss:
        yield mistake(f"loss {network.loss}", f"loss {needs.loss}")
    layers = tuple((layer.name, layer.size) for layer in network.layers)
    if needs.layers is not None and layers != needs.layers:
        yield mistake(f"layers {_sizes(layers)}", f"layers {_sizes(needs.layers)}")


def _sizes(layers: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} of {size}" for name, size in layers)


def _learnable(network: Network, training: Training, file: YamlFile) -> Iterator[Mistake]:
    """Feedback that learns goes by plain SGD or a host; a series has no votes."""
    if training.focus and network.loss != "cross_entropy":
        allowed = f"0 with loss {network.loss} of {network.name!r}: it goes by the votes of samples"
        yield file.mistake(("training", "focus"), f"{training.focus:g}", allowed)
    rule = training.on_chip()
    if not rule.remembers or not topology.learns_feedback(network):
        return
    because = f"with feedback kolen-pollack of {network.name!r}"
    if rule.rule != "sgd":
        yield file.mistake(("training", "rule"), rule.rule, f"sgd or adam {because}")
    if rule.rule == "sgd" and rule.momentum_shift > 0:
        yield file.mistake(("training", "momentum_shift"), str(rule.momentum_shift), f"0 {because}")
    if rule.apply_every > 1:
        yield file.mistake(("training", "apply_every"), str(rule.apply_every), f"1 {because}")
