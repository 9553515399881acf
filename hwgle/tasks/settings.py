"""What a task is to an experiment file: the keys under `task:` and what they ask of a network.

A task file declares a class `Settings`, a `TaskSettings` whose first field is its own name;
everything that an experiment checks or loads goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hwgle.network import Network
from hwgle.weights import Weights
from hwgle.yamlfile import Checked, Rule, number

if TYPE_CHECKING:
    from hwgle.tasks import SeriesTask, Task

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Steps = Annotated[int, Field(ge=0, le=10**7)]
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Needs:
    """What a network must have for a task; None where anything goes.

    at_least: more outputs than `outputs` are fine. layers: names and sizes, in order.
    """

    loss: str
    inputs: int | None = None
    outputs: int | None = None
    at_least: bool = False
    layers: tuple[tuple[str, int], ...] | None = None


class TaskSettings(Checked):
    """Base of the settings of a task."""

    # Key that says how many samples (or streams of a series) there are to learn from.
    COUNTED: ClassVar[str | None] = None
    # What the network must have, where it does not depend on the other keys.
    NEEDS: ClassVar[Needs | None] = None

    @classmethod
    def filled(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Raw settings with the defaults of the keys that are not there."""
        fields = cls.model_fields.items()
        return {k: f.get_default() for k, f in fields if not f.is_required()} | dict(data)

    @classmethod
    def count(cls, data: Mapping[str, Any]) -> float | None:
        """Samples or streams to learn from, by filled raw settings; None before loading."""
        return None if cls.COUNTED is None else number(data.get(cls.COUNTED))

    def needs(self, base: Path) -> Needs:
        """What the network must have; relative paths start at `base`."""
        if self.NEEDS is None:
            raise NotImplementedError
        return self.NEEDS

    def check(self, base: Path) -> Iterator[Rule]:
        """What is wrong with the files that the settings name, without reading all of them."""
        yield from ()

    def load(self, base: Path, progress: Progress | None = None) -> Task | SeriesTask:
        """The data.

        Raises:
            UsageError, FileMistakes: see the task.
        """
        raise NotImplementedError

    def first_weights(self, network: Network, seed: int) -> Weights | None:
        """Weights that learning begins with, where the task says so; else None."""
        return None

    def summary(self) -> str:
        """One line for a terminal."""
        own = self.model_dump(exclude={"name"}, exclude_none=True)
        name = getattr(self, "name", type(self).__module__.rpartition(".")[2])
        return ", ".join([str(name), *(f"{key} {value}" for key, value in own.items())])


def other_seed(data: Mapping[str, Any]) -> Iterator[Rule]:
    """`validation_seed` differs from `seed`: validation would be test or training data."""
    seed, other = number(data.get("seed")), data.get("validation_seed")
    if seed is not None and seed == number(other):
        allowed = "another seed than the training data's"
        yield Rule(("validation_seed",), str(other), allowed)


def settled(data: Mapping[str, Any], *keys: str) -> Iterator[Rule]:
    """`settle` leaves something of the shortest split that begins at rest and has an end."""
    lengths = [(key, number(data.get(key))) for key in keys]
    known = [(value, key) for key, value in lengths if value is not None and value >= 1]
    settle = number(data.get("settle"))
    if settle is not None and known and settle >= min(known)[0]:
        value, key = min(known)
        yield Rule(("settle",), f"{settle:g}", f"less than {key} = {value:g}")
