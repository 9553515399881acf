"""Training an experiment on a chip: epochs, validation, checkpoints, interruption.

Streams of a batch run side by side and go on from sample to sample without a reset, as
they would on a bench. Everything random is a function of (seed, epoch), and a run may be
cut anywhere, so that an interrupted and continued training ends with the bits of an
uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwgle import weights as weights_file
from hwgle.cache import write_text
from hwgle.chip import Chip
from hwgle.device import Device, Pending
from hwgle.errors import DeviceRefused, Interrupted, UsageError
from hwgle.experiment import Experiment, Plateau, Training
from hwgle.learning import checkpoint as checkpoints
from hwgle.learning import starts as beginnings
from hwgle.learning.checkpoint import Checkpoint, Position
from hwgle.learning.labelled import Labelled
from hwgle.learning.lesson import Judged, Lesson, Shown
from hwgle.learning.rule import make_rule
from hwgle.learning.schedule import PlateauState, rate_at, rate_on_chip
from hwgle.learning.series import SeriesLesson
from hwgle.learning.starts import Begun, Starts
from hwgle.network import Network
from hwgle.parallel import when_told_to_end
from hwgle.quantise import build_image
from hwgle.session import too_many, weights_from
from hwgle.tasks import SeriesTask, Task
from hwgle.weights import Weights

PIECE_SECONDS = 0.1  # of steps between two looks at Ctrl-C
UNDER_WAY = 2  # pieces on their way to a board
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Event:
    """What progress shows: position, accuracy while learning, best validation (negative: none
    yet), time left, what the last validation found wrong with neurons (see hwgle/health.py).
    measure: what is there instead of an accuracy, see Lesson. start: which of several starts
    this is, None where there is one or the best goes on. line: the metrics of the last epoch
    that has ended."""

    epoch: int
    epochs: int
    share: float
    accuracy: float
    validation: float
    seconds_left: float
    findings: tuple[str, ...] = ()
    measure: str = "accuracy"
    start: int | None = None
    starts: int = 1
    line: Mapping[str, Any] | None = None


def key_of(
    experiment: Experiment,
    network: Network,
    chip: Chip,
    weights: Weights | None = None,
    content: str = "",
    start: int = 0,
) -> str:
    """Hash of all that decides the bits of a training; weights: those it begins with;
    content: of the task's files; start: of several, see hwgle/learning/starts.py."""
    # The experiment holds names of network and chip; what they stand for may have changed.
    told = experiment.model_dump(mode="json")
    if experiment.training.starts == 1:  # then both decide nothing
        del told["training"]["starts"], told["training"]["start_epochs"]
    if experiment.training.focus == 0:
        del told["training"]["focus"]
    text = {
        "experiment": told,
        "network": network.hash(),
        "chip": chip.hash(),
    }
    if weights is not None:
        text["weights"] = weights_file.content_hash(weights)
    if content:
        text["content"] = content
    if start:
        text["start"] = str(start)
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()


def make_lesson(
    network: Network, chip: Chip, task: Task | SeriesTask, training: Training
) -> Lesson:
    """What shows and judges a task. Raises UsageError for data that do not fit the network
    or the training."""
    if isinstance(task, SeriesTask):
        if training.focus:
            raise UsageError(f"training.focus is {training.focus:g}: a series has no votes")
        return SeriesLesson(network, chip, task, training)
    return Labelled(network, chip, task, training)


class Trainer:
    """Trains one experiment into one folder.

    out: checkpoint.npz, metrics.jsonl (a line an epoch), weights.npz (best on validation)
    and summary.json; of several starts also starts.json and a folder each. A folder with a
    checkpoint of the same experiment is continued.
    weights: to begin with, the only start; None for those that the experiment draws. stop:
    asked after each piece of steps, True ends as Ctrl-C does, for trainers that are not in the
    main thread.
    calibration: hash of what has corrected network and weights, which weights.npz then names.
    """

    def __init__(
        self,
        experiment: Experiment,
        network: Network,
        chip: Chip,
        task: Task | SeriesTask,
        device: Device,
        out: Path,
        on_event: Callable[[Event], None] | None = None,
        *,
        weights: Weights | None = None,
        stop: Callable[[], bool] = lambda: False,
        calibration: str | None = None,
    ) -> None:
        self._network, self._chip, self._task = network, chip, task
        self._experiment, self._training = experiment, experiment.training
        self._device, self._out, self._on_event = device, out, on_event
        self._batch = self._training.batch
        self._lesson = make_lesson(network, chip, task, self._training)
        self._batches = self._lesson.batches
        self._rule = make_rule(self._training, self._batches)
        self._plateau = PlateauState()
        self._rule.check(device, self._batch)
        self._piece = 16  # steps of a block: PIECE_SECONDS as soon as that is known
        self._given, self._told_to_stop, self._calibration = weights, stop, calibration
        self._stop = False
        self._validating = False
        self._checked = time.monotonic()
        self._start, self._starts = 0, 1 if weights is not None else self._training.starts
        self._start_epochs = min(self._training.start_epochs, self._training.epochs)
        self._is_start = False
        self._epochs_before, self._seconds_before = 0, 0.0

    def run(self) -> dict[str, Any]:
        """Train to the end; returns the summary (also in summary.json).

        Raises Interrupted after Ctrl-C, with a checkpoint written.
        """
        _make_folder(self._out)
        with _alone(self._out):
            starts = None
            if self._starts > 1:
                starts = self._choose()
            else:
                self._refuse_starts()
            first = self._begin()
            with self._interruptible():
                while self._position.epoch < self._training.epochs:
                    self._epoch()
            return self._finish(first, starts)

    def _choose(self) -> Starts:
        """Which start goes on: all of them learn for their epochs, those that have not yet."""
        self._start = 0
        key = self._key()
        starts = beginnings.load(self._out)
        if starts is None:
            checkpoints.load(self._out / "checkpoint.npz", key)  # refuses another training's
            begun: list[Begun] = []
            with self._interruptible():
                for number in range(self._starts):
                    sub = self._sub(number, begun)
                    begun.append(sub._begun())
                    # Ctrl-C after its last look; the next one, or the one that goes on, looks.
                    self._stop |= sub._stop
            learned = [b.learned for b in begun]
            starts = Starts(key, tuple(begun), beginnings.best(learned, self._lesson.measure))
        elif starts.key != key:
            raise checkpoints.of_another(self._out / beginnings.FILE)
        self._start = starts.chosen
        beginnings.go_on(self._out, starts, self._key())
        self._epochs_before = (self._starts - 1) * self._start_epochs
        self._seconds_before = starts.others
        return starts

    def _refuse_starts(self) -> None:
        """Refuses a folder where another training's starts are under way."""
        there = beginnings.stands_at(self._out)
        if there is not None and there.parent != self._out:
            raise checkpoints.of_another(there)

    def _sub(self, number: int, before: Sequence[Begun]) -> Trainer:
        """The trainer of a start, after those before it."""
        sub = Trainer(
            self._experiment, self._network, self._chip, self._task, self._device,
            beginnings.folder(self._out, number), self._on_event,
            stop=lambda: self._stop or self._told_to_stop(),
        )  # fmt: skip
        sub._start, sub._is_start = number, True
        sub._epochs_before = number * self._start_epochs
        sub._seconds_before = sum(b.seconds for b in before)
        return sub

    def _begun(self) -> Begun:
        """Learn as a start does, to the last of its epochs; nothing where that is done."""
        _make_folder(self._out)
        found = checkpoints.load(self._out / "checkpoint.npz", self._key())
        if found is not None and found.position.epoch >= self._start_epochs:
            self._position = found.position
        else:
            self._begin()
            with self._interruptible():
                while self._position.epoch < self._start_epochs:
                    self._epoch()
                self._save()
        last = self._position.metrics[self._start_epochs - 1]
        learned = last[f"{self._lesson.measure}_learning"]
        if math.isnan(learned):
            raise UsageError(
                f"training.start_epochs is {self._start_epochs}: this task settles for longer than "
                "that, and no start has learned anything yet; more are needed to choose one"
            )
        return Begun(learned, self._position.seconds)

    def _key(self) -> str:
        parts = self._experiment, self._network, self._chip, self._given, self._task.content
        return key_of(*parts, self._start)

    def _begin(self) -> Weights:
        """Load the device with what stands in the checkpoint, or with the first weights, which
        are returned."""
        t = self._training
        seed = beginnings.seed_of(t.seed, self._start)
        weights = self._given
        if weights is None:
            weights = self._experiment.task.first_weights(self._network, seed)
        if weights is None:
            weights = weights_file.initial(self._network, seed, t.initial_gain)
        network = weights_file.with_times(self._network, weights)
        self._image = build_image(
            network,
            self._chip,
            self._lesson.begin(weights),
            batch=self._batch,
            range_every=self._lesson.range_every,
            range_clip=self._training.error_clip,
            seed=self._training.seed,
            learner=self._training.on_chip(),
            hold_weights=self._training.hold_weight_range,
            layer_rate=1.0 if t.rule == "adam" else t.layer_rate,
        )
        try:
            self._rule.begin(self._device, self._image, self._batch, weights)
        except DeviceRefused as error:
            if error.reason != "no_memory":
                raise
            text = f"rule {self._training.rule}, training.batch {self._batch} streams"
            raise too_many(error, text) from error
        key = self._key()
        found = checkpoints.load(self._out / "checkpoint.npz", key)
        self._position = Position(key)
        self._best = weights
        if found is not None:
            self._position, self._best = found.position, found.best
            self._lesson.restore(found.lesson)
            self._plateau = PlateauState(**found.position.plateau)
            self._device.restore(found.snapshot)
            self._rule.restore(found.rule)
        self._since = time.monotonic() - self._position.seconds
        return weights

    def _epoch(self) -> None:
        p = self._position
        while p.batch < self._batches:
            self._rule.set_rate(self._rate(p.batch))
            shown = self._lesson.batch(p.epoch, p.batch)
            self._show(shown)
            self._lesson.batch_done(shown)
            p.batch, p.step = p.batch + 1, 0
            self._rule.sample_done()
            self._tell()
        self._epoch_done()

    def _show(self, shown: Shown) -> None:
        """A batch from where it stands to its end; a board gets pieces ahead."""
        p = self._position
        most = 1 if self._device.limits.immediate else UNDER_WAY
        under_way: deque[tuple[Pending, int, int]] = deque()
        steps = len(shown.x)
        sent = p.step
        begun = time.perf_counter()
        while p.step < steps:
            ahead = 1 if self._stop else most
            while sent < steps and len(under_way) < ahead:
                end = min(sent + self._piece, shown.free if sent < shown.free else steps)
                block = self._lesson.block(shown, sent, end)
                under_way.append((self._rule.submit(block), sent, end))
                sent = end
            pending, first, end = under_way.popleft()
            self._lesson.take(shown, first, end, pending.result())
            now = time.perf_counter()
            seconds, begun = max(1e-6, now - begun) / (end - p.step), now
            self._piece = max(1, int(PIECE_SECONDS / seconds))
            p.step = end
            if not under_way:
                self._look()

    def _rate(self, batch: int) -> float:
        """Learning rate of a batch of this epoch."""
        done = (self._position.epoch * self._batches + batch) / self._batches
        return rate_at(self._training, done / self._training.epochs, self._plateau)

    def _rate_there(self) -> float:
        """What it is in the last step of this epoch, on the chip too."""
        steps = (self._position.epoch + 1) * self._lesson.steps
        return rate_on_chip(self._training, self._rate(self._batches - 1), steps - 1)

    def _epoch_done(self) -> None:
        p = self._position
        formats = self._device.formats()
        line: dict[str, Any] = {
            "epoch": p.epoch + 1,
            "learning_rate": self._rate_there(),
            **self._lesson.learning(),
            "error_frac": [f.error for f in formats],
            "weight_frac": [f.stored for f in formats],
            "rate_frac": [f.rate for f in formats],
        }
        last = p.epoch + 1 == self._training.epochs
        if last or (p.epoch + 1) % self._training.validate_every == 0:
            weights = self._weights()
            judged = self._validated(weights)
            line |= {f"validation{name}": value for name, value in judged.facts.items()}
            line["health"] = judged.health.to_dict()
            if p.best is None or judged.score >= p.best:
                p.best, p.best_epoch, self._best = judged.score, p.epoch + 1, weights
            if isinstance(self._training.schedule, Plateau):
                self._plateau.look(judged.score, self._training.schedule)
        p.seconds = time.monotonic() - self._since
        line["seconds"] = round(p.seconds, 3)
        p.metrics.append(line)
        p.epoch, p.batch, p.step = p.epoch + 1, 0, 0
        self._lesson.epoch_done()
        write_text(self._out / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in p.metrics))
        self._save_sometimes()
        self._tell()

    def _validated(self, weights: Weights) -> Judged:
        """How they do on the validation split; Ctrl-C leaves before them, at the epoch's end."""
        self._validating = True
        try:
            if self._stop:
                raise KeyboardInterrupt
            return self._judged(weights, "validation")
        except (KeyboardInterrupt, Interrupted):
            self._stop = True
            self._look()
            raise
        finally:
            self._validating = False

    def _judged(self, weights: Weights, split: str) -> Judged:
        return self._lesson.judge(weights, split, self._evaluating)

    def _evaluating(self, done: int, total: int) -> None:
        if self._told_to_stop():
            raise Interrupted("interrupted; the same command continues")

    def _weights(self) -> Weights:
        kept = self._rule.weights()
        if kept is not None:
            return kept
        return weights_from(self._image, self._device.read_weights(), self._device.formats())

    def _look(self) -> None:
        if self._stop or self._told_to_stop():
            self._save()
            p = self._position
            raise Interrupted(
                f"interrupted in epoch {p.epoch + 1}; the same command continues from "
                f"{self._out / 'checkpoint.npz'}"
            )

    def _save_sometimes(self) -> None:
        finished = self._position.epoch == self._training.epochs
        if finished or time.monotonic() - self._checked > CHECKPOINT_SECONDS:
            self._save()

    def _save(self) -> None:
        p = self._position
        p.seconds = time.monotonic() - self._since
        p.plateau = asdict(self._plateau)
        saved = Checkpoint(
            p, self._device.snapshot(), self._rule.state(), self._best, self._lesson.state()
        )
        checkpoints.save(self._out / "checkpoint.npz", saved)
        self._checked = time.monotonic()

    def _finish(self, first: Weights, starts: Starts | None) -> dict[str, Any]:
        p = self._position
        weights_file.save(self._out / "weights.npz", self._best, self._calibration)
        judged = self._judged(self._best, "test")
        assert p.best is not None
        before: dict[str, Any] = {}
        if self._lesson.tells_before:
            facts = self._judged(first, "test").facts
            before = {f"before{name}": value for name, value in facts.items()}
        summary = {
            "experiment": self._experiment.name,
            "chip": self._chip.name,
            "rule": self._training.rule,
            "seed": self._training.seed,
            "epochs": self._training.epochs,
            "best_epoch": p.best_epoch,
            "measure": self._lesson.measure,
            "validation": self._lesson.value(p.best),
            **{f"test{name}": value for name, value in judged.facts.items()},
            **before,
            **({} if starts is None else {"starts": _told(starts)}),
            "seconds": round(self._seconds_before + p.seconds, 1),
            "weights_digest": f"{self._device.weights_digest():016x}",
            "health": judged.health.to_dict(),
        }
        write_text(self._out / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary

    def _tell(self) -> None:
        if self._on_event is None:
            return
        p = self._position
        t = self._training
        epochs = t.epochs + (self._starts - 1) * self._start_epochs
        share = (self._epochs_before + p.epoch + p.batch / self._batches) / epochs
        seconds = self._seconds_before + time.monotonic() - self._since
        left = seconds / share * (1 - share) if share > 0 else float("nan")
        name, learning = next(iter(self._lesson.learning().items()))
        if learning != learning and p.metrics:
            learning = p.metrics[-1][name]
        best = -1.0 if p.best is None else self._lesson.value(p.best)
        looked = (m["health"]["findings"] for m in reversed(p.metrics) if "health" in m)
        findings = tuple(next(looked, ()))
        until = self._start_epochs if self._is_start else t.epochs
        self._on_event(
            Event(
                p.epoch, until, share, learning, best, left, findings, self._lesson.measure,
                self._start if self._is_start else None, self._starts,
                p.metrics[-1] if p.metrics else None,
            )
        )  # fmt: skip

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Being told to end ends at the next piece of steps; a second time at once."""

        def told() -> None:
            if self._stop or self._validating:
                raise KeyboardInterrupt
            self._stop = True

        with when_told_to_end(told):
            yield


def _told(starts: Starts) -> dict[str, Any]:
    return {"learned": [b.learned for b in starts.begun], "chosen": starts.chosen}


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("not writable")
    except OSError as error:
        raise UsageError(f"cannot write to folder {path}: {error.strerror or error}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The only training that writes here, where folders can be locked (not on Windows).

    Raises UsageError while another one does.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another training is writing to {folder}: wait for it, or name another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
