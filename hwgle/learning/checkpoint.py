"""Checkpoints: everything that training needs to go on with the same bits.

One npz, written whole or not at all: the device's snapshot, the rule's arrays, the best
weights so far, and a JSON text with the position and the metrics.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwgle.arrays import load_npz_stored, save_npz_atomic
from hwgle.errors import FileMistakes, Mistake, UsageError
from hwgle.learning.rule import Arrays
from hwgle.weights import Weights

FORMAT = "hwgle/checkpoint/2"


@dataclass
class Position:
    """Where training stands. key: what is trained, so that nothing else continues here.

    best: highest score on validation and its epoch (None, -1: none yet). plateau: see
    schedule.PlateauState.
    """

    key: str
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0
    plateau: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Checkpoint:
    """A position with the arrays that belong to it."""

    position: Position
    snapshot: bytes
    rule: Arrays
    best: Weights
    lesson: Arrays


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically; an older checkpoint stays until this one is whole."""
    text = json.dumps({"format": FORMAT, **asdict(checkpoint.position)}).encode()
    arrays: Arrays = {f"rule.{k}": v for k, v in checkpoint.rule.items()}
    arrays |= {f"best.{k}": v for k, v in checkpoint.best.items()}
    arrays["position"] = np.frombuffer(text, dtype=np.uint8)
    arrays["snapshot"] = np.frombuffer(checkpoint.snapshot, dtype=np.uint8)
    arrays |= {f"lesson.{k}": v for k, v in checkpoint.lesson.items()}
    save_npz_atomic(path, arrays)


def of_another(path: Path) -> UsageError:
    """What to say where a file's key is another training's."""
    return UsageError(
        f"{path} belongs to another experiment, network, chip, number of epochs, seed or initial "
        "weights (a training that has begun cannot be changed); "
        "name another --out, or remove the folder to start anew"
    )


def load(path: Path, key: str) -> Checkpoint | None:
    """The checkpoint at a path, None if there is none.

    Raises FileMistakes for a file that is no checkpoint, UsageError for one of another
    experiment.
    """
    if not path.exists():
        return None
    try:
        arrays = load_npz_stored(path)
        text = json.loads(arrays.pop("position").tobytes())
        if text.pop("format") != FORMAT:
            raise ValueError("another format")
        position = Position(**text)
        snapshot = arrays.pop("snapshot").tobytes()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        mistake = Mistake(str(path), None, "", f"no checkpoint ({error})", f"a {FORMAT} file")
        raise FileMistakes([mistake]) from error
    if position.key != key:
        raise of_another(path)
    rule, best, lesson = (
        {k[len(name) :]: v for k, v in arrays.items() if k.startswith(name)}
        for name in ("rule.", "best.", "lesson.")
    )
    return Checkpoint(position, snapshot, rule, best, lesson)
