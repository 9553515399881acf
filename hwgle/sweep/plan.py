"""Which settings come next. What is asked depends on the sweep and on results alone, never
on which of them ended first: settings come in generations, told in the order asked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from hwgle.errors import UsageError
from hwgle.sweep.file import Axis, Pareto, Random, Tpe
from hwgle.sweep.study import Setting, Study, setting_of

TRIES = 1000  # draws of one setting until its values go together


class Plan(Protocol):
    """Generations of settings, until one is empty."""

    total: int

    def ask(self) -> list[Setting]:
        """The next ones."""
        ...

    def tell(self, accuracies: Sequence[float | None]) -> None:
        """Of those asked last, the mean over all seeds; None where a chip was refused."""
        ...


def make_plan(study: Study) -> Plan:
    """The plan that the sweep asks for. Raises UsageError where optuna is not there."""
    search = study.sweep.search
    if isinstance(search, Random):
        return Fixed(draw(study, search))
    if isinstance(search, (Pareto, Tpe)):
        return Search(study, search)
    return Fixed(list(study.grid()))


class Fixed:
    """Settings that are known before anything has run."""

    def __init__(self, settings: list[Setting]) -> None:
        self.total, self._settings = len(settings), settings

    def ask(self) -> list[Setting]:
        """See Plan."""
        settings, self._settings = self._settings, []
        return settings

    def tell(self, accuracies: Sequence[float | None]) -> None:
        """See Plan."""


def allowed(study: Study, setting: Setting) -> bool:
    """Whether there can be a chip, and a training, of this setting."""
    try:
        study.chip_of(setting)
        study.experiment_of(setting)
    except ValidationError:
        return False
    return True


def draw(study: Study, search: Random) -> list[Setting]:
    """Settings that are drawn axis by axis; those whose values do not go together are drawn
    again. Raises UsageError where none go together."""
    axes = study.sweep.axes
    result = []
    for k in range(search.points):
        rng = np.random.Generator(np.random.PCG64([search.seed, k]))
        for _ in range(TRIES):
            setting = setting_of(axes, tuple(_drawn(axis, rng) for axis in axes))
            if allowed(study, setting):
                result.append(setting)
                break
        else:
            raise UsageError("the axes' values never go together: see what a chip allows")
    return result


def _drawn(axis: Axis, rng: np.random.Generator) -> tuple[Any, ...]:
    if axis.points and axis.scale == "linear":
        return axis.points[int(rng.integers(len(axis.points)))]
    assert axis.low is not None
    assert axis.high is not None
    share = float(rng.random())
    if axis.scale == "log":
        value = float(axis.low * (axis.high / axis.low) ** share)
    else:
        value = float(axis.low + (axis.high - axis.low) * share)
    value = float(f"{min(max(value, axis.low), axis.high):.9g}")
    return (round(value) if isinstance(axis.low, int) and isinstance(axis.high, int) else value,)


class Search:
    """TPE: what comes next follows from what was found."""

    def __init__(self, study: Study, search: Pareto | Tpe) -> None:
        try:
            import optuna
        except ImportError:
            raise UsageError(
                f"search: {{kind: {search.kind}}} needs optuna: pip install 'hwgle[search]'"
            ) from None
        self._optuna: Any = optuna
        self._study, self._search, self.total = study, search, search.points
        self._asked: list[tuple[Any, Setting]] = []
        self._count = 0
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = optuna.samplers.TPESampler(
                seed=search.seed % 2**32,
                n_startup_trials=max(2, min(10, search.points // 2)),
                constant_liar=True,
            )
        directions: Any = ["maximize", "minimize"] if search.kind == "pareto" else ["maximize"]
        self._found: Any = optuna.create_study(sampler=sampler, directions=directions)
        self._space = {str(k): self._range(axis) for k, axis in enumerate(study.sweep.axes)}

    def _range(self, axis: Axis) -> Any:
        d = self._optuna.distributions
        if axis.points and axis.scale == "linear":
            ordered = all(
                isinstance(v, (int, float)) and not isinstance(v, bool)
                for values in axis.points for v in values
            )  # fmt: skip
            if ordered and axis.points == sorted(axis.points):
                return d.IntDistribution(0, len(axis.points) - 1)
            return d.CategoricalDistribution(list(range(len(axis.points))))
        log = axis.scale == "log"
        if isinstance(axis.low, int) and isinstance(axis.high, int):
            return d.IntDistribution(axis.low, axis.high, log=log)
        return d.FloatDistribution(float(axis.low or 0), float(axis.high or 0), log=log)

    def ask(self) -> list[Setting]:
        """See Plan."""
        self._asked = []
        axes = self._study.sweep.axes
        tries = 0
        while len(self._asked) < min(self._search.generation, self.total - self._count):
            trial = self._found.ask(self._space)
            chosen = tuple(
                axis.points[trial.params[str(k)]]
                if axis.points and axis.scale == "linear"
                else (trial.params[str(k)],)
                for k, axis in enumerate(axes)
            )
            setting = setting_of(axes, chosen)
            if allowed(self._study, setting):
                self._asked.append((trial, setting))
                continue
            self._found.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            tries += 1
            if tries > TRIES:
                raise UsageError("the axes' values never go together: see what a chip allows")
        self._count += len(self._asked)
        return [setting for _, setting in self._asked]

    def tell(self, accuracies: Sequence[float | None]) -> None:
        """See Plan."""
        for (trial, setting), accuracy in zip(self._asked, accuracies, strict=True):
            if accuracy is None:
                self._found.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            elif self._search.kind == "pareto":
                bits = float(self._study.memory_bits(setting))
                self._found.tell(trial, [accuracy, bits])
            else:
                self._found.tell(trial, accuracy)
