"""A sweep as objects: what stays the same, the settings, and what each point is."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hwgle import weights as weights_file
from hwgle.chip import Chip, Profile, split_seed
from hwgle.errors import FileMistakes, Mistake
from hwgle.experiment import Experiment, Training
from hwgle.golden import arithmetic
from hwgle.measured import Measured
from hwgle.network import Network
from hwgle.sweep.file import Axis, Sweep, Train
from hwgle.sweep.seeds import seedless
from hwgle.weights import Weights
from hwgle.yamlfile import (
    KeyPath,
    Rule,
    Where,
    YamlFile,
    dotted,
    find,
    read,
    show,
    validate,
    validation_rules,
)

RULES = 1  # raise when the same arithmetic, data and settings are judged in another way
MAX_SETTINGS = 10**6
MAX_TOLD = 10  # combinations that are not allowed, in one message
Setting = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One row of the table: a setting on one chip, learned with one seed (None: not at all).

    number: of the setting, in the order of the axes' values or of the draws.
    """

    number: int
    setting: Setting
    chip_seed: int
    training_seed: int | None


@dataclass(frozen=True)
class Job:
    """What is run for one or more points. key: hash of all that decides its result."""

    key: str
    chip: Chip
    experiment: Experiment | None


@dataclass(frozen=True)
class Study:
    """All that a sweep names, read and checked. chip: the profile, as the chip of seed 0."""

    sweep: Sweep
    experiment: Experiment
    network: Network
    chip: Chip
    weights: Weights | None

    @property
    def learns(self) -> bool:
        """Whether points are trained."""
        return isinstance(self.sweep.do, Train)

    @property
    def samples(self) -> int:
        """Samples of the test split that count."""
        most = test_samples(self.experiment)
        return min(most, self.sweep.do.samples or most)

    def points(self, number: int, setting: Setting) -> Iterator[Point]:
        """The points of a setting, one for each pair of seeds, in their order."""
        seeds = self.sweep.seeds
        training: tuple[int | None, ...] = (None,)
        if self.learns:
            training = seeds.training or (self.experiment.training.seed,)
        for chip_seed, training_seed in product(seeds.chip, training):
            yield Point(number, setting, chip_seed, training_seed)

    def chip_of(self, setting: Setting, seed: int = 0) -> Chip:
        """The chip of a setting. Raises ValidationError for one that there cannot be."""
        data = self.chip.model_dump(exclude={"seed", "measured"})
        _put(data, setting, "chip.")
        return Chip.model_validate({**data, "seed": seed})

    def experiment_of(self, setting: Setting, seed: int | None = None) -> Experiment | None:
        """What a setting trains, None where nothing learns. Raises ValidationError."""
        if not isinstance(self.sweep.do, Train):
            return None
        data = self.experiment.model_dump()
        data["training"]["epochs"] = self.sweep.do.epochs
        if seed is not None:
            data["training"]["seed"] = seed
        _put(data["training"], setting, "training.")
        return Experiment.model_validate(data)

    def job(self, point: Point) -> Job:
        """What is run for a point: the same for points that cannot differ."""
        chip = seedless(self.chip_of(point.setting, point.chip_seed))
        experiment = self.experiment_of(point.setting, point.training_seed)
        return Job(self._key(chip, experiment), chip, experiment)

    def _key(self, chip: Chip, experiment: Experiment | None) -> str:
        decides = {
            "rules": RULES,
            "arithmetic": arithmetic(),
            "network": self.network.hash(),
            "weights": None if self.weights is None else weights_file.content_hash(self.weights),
            "task": self.experiment.task.model_dump(mode="json"),
            "data": {name: version(name) for name in MAKERS[task_name(self.experiment)]},
            "chip": chip.model_dump(mode="json", exclude={"format", "name"}),
            "training": None if experiment is None else experiment.training.model_dump(mode="json"),
            "samples": self.samples,
        }
        text = json.dumps(decides, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def memory_bits(self, setting: Setting) -> int:
        """Bits that a digital chip of this setting holds for the network: stored weights;
        bias, membrane and rate of every neuron; its error and error neuron where it learns."""
        chip = self.chip_of(setting)
        net = self.network
        synapses = sum(n * net.fan_in(k) for k, n in enumerate(net.sizes))
        each = 2 * chip.membrane.bits + chip.rate.bits + 2 * chip.error.bits * self.learns
        return synapses * chip.weight.stored_bits + sum(net.sizes) * each

    def grid(self) -> Iterator[Setting]:
        """Every combination of the axes' values, the last axis fastest."""
        axes = self.sweep.axes
        for values in product(*(axis.points for axis in axes)):
            yield setting_of(axes, values)


def setting_of(axes: tuple[Axis, ...], values: tuple[tuple[Any, ...], ...]) -> Setting:
    """Keys and values of one choice on each axis."""
    return {
        key: value
        for axis, chosen in zip(axes, values, strict=True)
        for key, value in zip(axis.all_keys, chosen, strict=True)
    }


def _put(data: dict[str, Any], setting: Setting, prefix: str) -> None:
    """Set the keys that begin with `prefix` in nested mappings."""
    for key, value in setting.items():
        if not key.startswith(prefix):
            continue
        *way, last = key.removeprefix(prefix).split(".")
        here = data
        for word in way:
            here = here[word]
        here[last] = value


# --- reading -----------------------------------------------------------------------------------


def load_sweep(name_or_path: str) -> Study:
    """Read a sweep by name (zoo) or path, all that it names, and hold every value of every
    axis against the chip and the training.

    Raises FileMistakes: all mistakes of all files.
    """
    file = read(find("sweeps", name_or_path))
    mistakes: list[Mistake] = []

    def kept(error: FileMistakes) -> None:
        mistakes.extend(error.mistakes)

    sweep: Sweep | None = None
    try:
        sweep = validate(Sweep, file)
    except FileMistakes as error:
        kept(error)
    experiment = chip = None
    try:
        experiment = _experiment(file)
        chip = experiment.load_chip() if experiment is not None else None
    except FileMistakes as error:
        kept(error)
    try:
        chip = _chip(file, chip)
    except FileMistakes as error:
        kept(error)
    network = None if experiment is None else experiment.load_network()
    weights = None
    try:
        weights = _weights(file, network)
    except FileMistakes as error:
        kept(error)
    if experiment is not None and task_name(experiment) not in MAKERS:
        found = f"{experiment.name!r} with task {task_name(experiment)}"
        allowed = f"an experiment with task {' or '.join(MAKERS)}"
        mistakes.append(file.mistake(("experiment",), found, allowed))
    elif sweep is not None and experiment is not None and network is not None and chip is not None:
        if weights is not None:
            network = weights_file.with_times(network, weights)
        study = Study(sweep, experiment, network, chip, weights)
        mistakes += _axis_mistakes(study, file)
        if not mistakes:
            mistakes += _combined_mistakes(study, file)
        if not mistakes:
            return study
    raise FileMistakes(list(dict.fromkeys(mistakes)))


# Tasks that a sweep can take, whose settings and makers decide every sample.
MAKERS = {"mnist1d": ("mnist1d",), "digits": ("scikit-learn",)}


def task_name(experiment: Experiment) -> str:
    """The name of an experiment's task."""
    return str(experiment.task.model_dump()["name"])


def test_samples(experiment: Experiment) -> int:
    """Samples of the test split."""
    return int(experiment.task.model_dump()["test"])


def _where(file: YamlFile, key: str) -> Where:
    return Where(str(file.path), file.line((key,)), key)


def _experiment(file: YamlFile) -> Experiment | None:
    name = file.data.get("experiment")
    if not isinstance(name, str) or not name:
        return None
    path = find("experiments", name, base=file.path.parent, where=_where(file, "experiment"))
    return Experiment.load(str(path))


def _chip(file: YamlFile, own: Chip | None) -> Chip | None:
    name = file.data.get("chip")
    if isinstance(name, str) and name:
        own = Chip.load(name, base=file.path.parent, where=_where(file, "chip"))
        if split_seed(name)[1] is not None:
            allowed = "the profile alone; seeds: {chip: [...]}"
            raise FileMistakes([file.mistake(("chip",), f"{name!r}: a seed", allowed)])
    if own is not None and own.measured != Measured():
        allowed = "a profile: what is drawn cannot be swept on a twin"
        raise FileMistakes([file.mistake(("chip",), "a twin, measured of one chip", allowed)])
    return None if own is None else own.model_copy(update={"seed": 0})


def _weights(file: YamlFile, network: Network | None) -> Weights | None:
    name = file.data.get("weights")
    if not isinstance(name, str) or not name or network is None:
        return None
    path = Path(file.path.parent, name)
    if not path.exists():
        found = f"no such file: {path}"
        raise FileMistakes([file.mistake(("weights",), found, "an existing .npz of weights")])
    return weights_file.load(path, network)


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Dotted keys of all numbers and words of a model."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def known_keys(learns: bool) -> list[str]:
    """All keys that an axis can have."""
    keys = [k for k in _leaves(Profile, "chip.") if k not in ("chip.format", "chip.name")]
    if learns:
        left_out = ("training.seed", "training.schedule")
        keys += [k for k in _leaves(Training, "training.") if k not in left_out]
    return keys


def _axis_mistakes(study: Study, file: YamlFile) -> Iterator[Mistake]:
    known = known_keys(study.learns)
    for i, axis in enumerate(study.sweep.axes):
        at: KeyPath = ("axes", i)
        unknown = [key for key in axis.all_keys if key not in known]
        for key in unknown:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
            allowed = f"a key such as {', '.join(near or known[:3])}"
            yield file.mistake((*at, "keys" if axis.keys else "key"), f"no key {key!r}", allowed)
        if unknown:
            continue
        told: set[KeyPath] = set()
        for path, values in _values(axis, at):
            place = path if path in file.lines else at
            setting = dict(zip(axis.all_keys, values, strict=True))
            # what does not go together with other axes is told later, by combinations
            for key, found, allowed in _broken(study, setting, alone=True):
                if key in setting and (*place, key) not in told:
                    told.add((*place, key))
                    yield file.mistake(place, f"{key} = {found}", allowed)


def _values(axis: Axis, at: KeyPath) -> Iterator[tuple[KeyPath, tuple[Any, ...]]]:
    """Where each value of an axis stands, of a range both ends, and the values."""
    if axis.values:
        for k, values in enumerate(axis.points):
            yield (*at, "values", k), values
        return
    yield (*at, "low"), (axis.low,)
    yield (*at, "high"), (axis.high,)


def _broken(
    study: Study, setting: Setting, alone: bool = False
) -> list[tuple[str, str, str]]:
    """Keys, found and allowed of all that a setting breaks. alone: values that are wrong by
    themselves, not those that do not fit others."""

    def rules(model: type[BaseModel], error: ValidationError) -> list[Rule]:
        across = all(e["type"] == "rule" for e in error.errors())
        return [] if alone and across else validation_rules(model, error)

    result = []
    try:
        study.chip_of(setting)
    except ValidationError as error:
        found = rules(Chip, error)
        result += [(f"chip.{dotted(r.path)}", r.found, r.allowed) for r in found]
    try:
        study.experiment_of(setting)
    except ValidationError as error:
        found = rules(Experiment, error)
        result += [(dotted(r.path), r.found, r.allowed) for r in found]
    return result


def _combined_mistakes(study: Study, file: YamlFile) -> Iterator[Mistake]:
    """Of a grid, combinations of values that do not go together."""
    if study.sweep.search.kind != "grid":
        return
    count = math.prod(len(axis.points) for axis in study.sweep.axes)
    if count > MAX_SETTINGS:
        found = f"{count:,} combinations"
        yield file.mistake(("axes",), found, f"at most {MAX_SETTINGS:,}")
        return
    told: dict[tuple[str, ...], str] = {}
    for setting in study.grid():
        for key, found, allowed in _broken(study, setting):
            words = ", ".join(f"{k} = {show(v)}" for k, v in setting.items())
            told.setdefault((key, found, allowed), words)
    for (key, found, allowed), words in list(told.items())[:MAX_TOLD]:
        yield file.mistake(("axes",), f"{key} = {found} together with {words}", allowed)
