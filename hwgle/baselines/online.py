"""Learning online on series: all copies at once, every step, to be continued from a file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.method import Method
from hwgle.baselines.optimisers import Optimiser
from hwgle.cache import replacing
from hwgle.errors import UsageError
from hwgle.tasks import Series

Watcher = Callable[["Online", Array, Array | None], None]


class Online:
    """A method and an optimiser teach copies of a network, step after step.

    Args:
        net: the copies; they change.
        method: see `Method`; one whose errors live in the network gets the target of the step
            before, which is what its rates are compared with.
        optimiser: None to let the parameters be.
        series: shown to all copies, or one for each; its streams are the batch.
        kinds: of parameters that learn, where the layer does.
        settle: steps before the first increment.
        loops: begin again at the end of the series without a break.
        block: steps between two entries of the record.
        watcher: called after every step, before the increment, with this object, the target
            of the step (C or 1, B, outputs) and the method's direction.

    Attributes:
        step: steps done.
        loss: of each block, mean over steps and streams of |y - r|^2 / 2 (C,), beta left out.
        parameters: `net.flat` at the end of each block.

    Raises:
        ValueError: more than one series and not one for each copy.
    """

    def __init__(
        self,
        net: Copies,
        method: Method,
        optimiser: Optimiser | None,
        series: Series | Sequence[Series],
        *,
        kinds: Iterable[str] = ("weight", "bias"),
        settle: int = 0,
        loops: bool = False,
        block: int = 100,
        watcher: Watcher | None = None,
    ) -> None:
        self.net, self.method, self.optimiser = net, method, optimiser
        each = [series] if isinstance(series, Series) else list(series)
        if len(each) not in (1, net.copies):
            raise ValueError(f"{len(each)} series for {net.copies} copies; one, or one for each")
        self._x = np.stack([np.swapaxes(s.x, 0, 1) for s in each], axis=1)  # (T, C or 1, B, n)
        self._y = np.stack([np.swapaxes(s.y, 0, 1) for s in each], axis=1)
        self._mask = net.mask(kinds)
        self._settle, self._loops, self._block = settle, loops, block
        self._watcher = watcher
        self._none = np.full_like(self._y[0], np.nan)
        self.step = 0
        self._sum = np.zeros(net.copies)
        self.loss: list[Array] = []
        self.parameters: list[Array] = []
        method.begin(net)

    def run(self, steps: int) -> None:
        """Go on by so many steps.

        Raises:
            ValueError: the series has not so many left.
        """
        length = len(self._x)
        if not self._loops and self.step + steps > length:
            raise ValueError(f"{self.step} + {steps} steps of a series of {length}")
        net, method = self.net, self.method
        for t in range(self.step, self.step + steps):
            target = self._y[t % length]
            if method.in_network:
                net.step(self._x[t % length], self._y[(t - 1) % length] if t else self._none)
            else:
                net.step(self._x[t % length])
            direction = method.after_step(net, target)
            if self._watcher is not None:
                self._watcher(self, target, direction)
            if direction is not None and self.optimiser is not None and t >= self._settle:
                net.add(self.optimiser.increment(direction * self._mask))
            self._account(target)
            self.step = t + 1
            if self.step % self._block == 0:
                self.loss.append(self._sum / self._block)
                self.parameters.append(net.flat.copy())
                self._sum = np.zeros(net.copies)

    def _account(self, target: Array) -> None:
        error = target - self.net.output
        error *= error
        if np.isnan(error).any():
            error = np.nan_to_num(error)
        self._sum += 0.5 * error.sum(axis=(1, 2)) / self.net.batch

    def save(self, path: Path, extra: Mapping[str, Array] | None = None) -> None:
        """Write all that is needed to go on with the same bits, as `.npz`."""
        parts: dict[str, Mapping[str, Array]] = {
            "net": self.net.state(),
            "method": self.method.state(),
            "optimiser": {} if self.optimiser is None else self.optimiser.state(),
            "extra": extra or {},
            "record": {
                "step": np.array([float(self.step)]),
                "sum": self._sum,
                "loss": np.array(self.loss),
                "parameters": np.array(self.parameters),
            },
        }
        arrays = {f"{part}/{name}": a for part, group in parts.items() for name, a in group.items()}
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def load(self, path: Path, same: Mapping[str, Array] | None = None) -> dict[str, Array] | None:
        """Take up what `save` wrote; None if it is not there or damaged, else `extra`.

        Raises:
            UsageError: it is of another run: `extra` differs from `same` in one of its arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile):
            return None
        parts: dict[str, dict[str, Array]] = {}
        for name, array in arrays.items():
            part, _, key = name.partition("/")
            parts.setdefault(part, {})[key] = array
        extra = parts.get("extra", {})
        for key, wanted in (same or {}).items():
            if key not in extra or not np.array_equal(extra[key], wanted):
                raise UsageError(f"{path} was left by a run with another {key}; remove it")
        self.net.restore(parts["net"])
        self.method.restore(parts.get("method", {}))
        if self.optimiser is not None:
            self.optimiser.restore(parts.get("optimiser", {}))
        record = parts["record"]
        self.step = int(record["step"][0])
        self._sum = record["sum"]
        self.loss, self.parameters = list(record["loss"]), list(record["parameters"])
        return extra
