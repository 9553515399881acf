"""Several beginnings, the best of which goes on.

From some initial weights a network never learns what it learns from others, and with rules on the
chip, each sample shown once an epoch, that shows early. So some draws may learn for a few epochs
each, in folders of their own, and the one that did best in the last of them, on the samples that it
learned from (highest accuracy, or lowest error of a series), goes on from where it stands. No
validation or test sample is looked at for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hwgle.cache import replacing, write_text
from hwgle.errors import FileMistakes, Mistake, UsageError
from hwgle.learning import checkpoint as checkpoints

FILE = "starts.json"
CARRIED = ("metrics.jsonl", "checkpoint.npz")  # the one that says that all are there comes last


@dataclass(frozen=True)
class Begun:
    """What a start came to. learned: its measure in its last epoch, on samples learned from."""

    learned: float
    seconds: float


@dataclass(frozen=True)
class Starts:
    """All starts of a training, and which goes on. key: of what is trained, see Position."""

    key: str
    begun: tuple[Begun, ...]
    chosen: int

    @property
    def others(self) -> float:
        """Seconds of those that do not go on."""
        return sum(b.seconds for n, b in enumerate(self.begun) if n != self.chosen)


def seed_of(seed: int, start: int) -> int:
    """The seed that a start draws its weights from; of the first one the training's own."""
    if start == 0:
        return seed
    return int(
        np.random.SeedSequence([seed, start]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )


def folder(out: Path, start: int) -> Path:
    """Where a start learns."""
    return out / f"start-{start}"


def stands_at(out: Path) -> Path | None:
    """The checkpoint that a training in a folder continues from; None: it begins."""
    there = sorted(out.glob("start-*/checkpoint.npz"), key=lambda path: path.stat().st_mtime)
    return next((path for path in (out / CARRIED[-1], *reversed(there)) if path.exists()), None)


def best(learned: Sequence[float], measure: str) -> int:
    """The first of those that learned best: the highest accuracy, the lowest error."""
    sign = 1 if measure == "accuracy" else -1
    return max(range(len(learned)), key=lambda n: (sign * learned[n], -n))


def load(out: Path) -> Starts | None:
    """Those of a training whose starts have ended, None if they have not.

    Raises FileMistakes for a file that holds something else.
    """
    path = out / FILE
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        begun = tuple(Begun(float(b["learned"]), float(b["seconds"])) for b in data["begun"])
        found = Starts(str(data["key"]), begun, int(data["chosen"]))
        if not 0 <= found.chosen < len(begun):
            raise ValueError(f"{found.chosen} chosen of {len(begun)}")
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        allowed = "what hwgle train wrote; remove the folder to start anew"
        text = f"no starts ({type(error).__name__})"
        raise FileMistakes([Mistake(str(path), None, "", text, allowed)]) from error
    return found


def go_on(out: Path, starts: Starts, key: str) -> None:
    """Write the choice, and put the chosen start where the training goes on, if it is not yet.

    key: of its checkpoint. Raises FileMistakes or UsageError where that is gone or another's.
    """
    write_text(out / FILE, json.dumps(asdict(starts), indent=2) + "\n")
    if (out / CARRIED[-1]).exists():
        return
    source = folder(out, starts.chosen)
    if checkpoints.load(source / CARRIED[-1], key) is None:
        allowed = f"the start that {FILE} names; remove the folder to start anew"
        raise FileMistakes([Mistake(str(source / CARRIED[-1]), None, "", "no such file", allowed)])
    try:
        for name in CARRIED:
            with replacing(out / name) as temporary:
                shutil.copyfile(source / name, temporary)
    except OSError as error:
        raise UsageError(f"cannot copy {source} to {out}: {error.strerror or error}") from None
