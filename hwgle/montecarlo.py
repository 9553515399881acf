"""Monte Carlo over identities: one network on many chips of a profile, side by side.

Each chip is judged with the weights as they are, after its calibration on the bench, and
after learning on it; what comes out is a function of the chip's seed alone, whatever runs
beside it. Chips run in threads: the core lets go of Python's lock while it computes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle import weights as weights_file
from hwgle.accuracy import OFFSET_SAMPLES, Votes, chip_scales, chip_votes, part, score
from hwgle.cache import write_text
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.errors import FileMistakes, Interrupted, Mistake, UsageError
from hwgle.experiment import Experiment
from hwgle.identity import identity_hash
from hwgle.learning.trainer import Event, Trainer, key_of
from hwgle.measuring import Calibration, Corrected, Readout, measure_chip
from hwgle.network import Network
from hwgle.parallel import Call, drive, interruptible
from hwgle.quantise import Scales
from hwgle.tasks import Task
from hwgle.weights import Weights

STAGES = ("before", "calibrated", "learned")
SCORES = ("raw", "offset_calibrated")
Line = dict[str, Any]
Tell = Callable[[int, float], None]


@dataclass(frozen=True)
class Study:
    """What is done with each chip: everything that decides a result, but the chip's seed.

    chip: the profile, as the chip of any seed. experiment: its training is the learning on
    each chip, from `weights`; learn: whether there is any. calibrate: whether the chip is
    measured on the bench, and time constants, weights and read-out are corrected by that,
    before it learns.
    """

    experiment: Experiment
    network: Network
    chip: Chip
    weights: Weights
    learn: bool = True
    calibrate: bool = False

    def key(self) -> str:
        """Hash of it all: results of another study are never continued."""
        profile = self.chip_of(0)
        text = key_of(self.experiment, self.network, profile, self.weights)
        text += f" learn {self.learn} calibrate {self.calibrate}"
        return hashlib.sha256(text.encode()).hexdigest()

    def chip_of(self, seed: int) -> Chip:
        """The identity of that seed."""
        return self.chip.model_copy(update={"seed": seed})

    def experiment_of(self, seed: int) -> Experiment:
        """Learning on that chip: order of samples and noise go with the chip's seed."""
        return self.experiment.with_(seed=seed)


def votes_of(
    chip: Chip,
    network: Network,
    weights: Weights,
    task: Task,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Scales, Votes, Votes]:
    """Scales from training data, and with them the votes on the test split and on the
    training samples that output offsets are fitted on. Raises Interrupted as soon as `stop`
    says so."""
    look = _looking(stop)
    scales = chip_scales(network, chip, weights, task.train)
    with Emulator() as body:
        votes = chip_votes(body, network, chip, weights, scales, task.test, look)
        some = part(task.train, OFFSET_SAMPLES)
        on_train = chip_votes(body, network, chip, weights, scales, some, look)
    return scales, votes, on_train


def judge(
    chip: Chip,
    network: Network,
    weights: Weights,
    task: Task,
    stop: Callable[[], bool] = lambda: False,
    readout: Readout | None = None,
) -> dict[str, float]:
    """Accuracies on the test split, raw and with output offsets fitted on training data.

    readout: takes what was measured of the ADCs off before anything else. Raises Interrupted
    as soon as `stop` says so.
    """
    scales, votes, on_train = votes_of(chip, network, weights, task, stop)
    some = part(task.train, OFFSET_SAMPLES)
    if readout is not None:
        steps, lsb = task.test.x.shape[1], 2.0 ** (chip.adc_drop - scales.layers[-1].rate)
        votes, on_train = (
            replace(v, sums=readout.apply(v.sums / steps, lsb) * steps) for v in (votes, on_train)
        )
    result = score(votes, task.test, on_train, some)
    return {"raw": result.raw, "offset_calibrated": result.calibrated}


def _looking(stop: Callable[[], bool]) -> Callable[[int, int], None]:
    """A progress that leaves as soon as `stop` says so."""

    def look(done: int, total: int) -> None:
        if stop():
            raise Interrupted("interrupted; the same command continues")

    return look


def corrected(
    study: Study, chip: Chip, task: Task, folder: Path, stop: Callable[[], bool] = lambda: False
) -> tuple[Corrected, str]:
    """The network as it is to be set on a chip that was measured, and the hash of what was
    measured, which is kept in `folder` and not measured again."""
    path = folder / "calibration.npz"
    if path.exists():
        calibration = Calibration.load(path)
        calibration.check(chip, study.network)
    else:
        with Emulator() as body:
            calibration = measure_chip(body, chip, study.network, progress=_looking(stop))
        folder.mkdir(parents=True, exist_ok=True)
        calibration.save(path)
    scales = chip_scales(study.network, chip, study.weights, task.train)
    better = calibration.correct(study.network, study.weights, input_lsb=2.0**-scales.input)
    return better, calibration.hash()


def measure(
    study: Study,
    task: Task,
    seed: int,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
    tell: Tell = lambda seed, share: None,
) -> Line:
    """One chip through all stages; `folder` is its own and can be continued.

    What was learned stays there: weights.npz (of a measured chip as corrected, which it
    says), metrics.jsonl and summary.json.
    Raises Interrupted, with a checkpoint written, as soon as `stop` says so.
    """
    if stop():
        raise Interrupted("interrupted before it began")
    chip, network, weights = study.chip_of(seed), study.network, study.weights
    readout = calibration = None
    line: Line = {"key": study.key(), "seed": seed, "identity": identity_hash(chip)}
    line["before"] = judge(chip, network, weights, task, stop)
    if study.calibrate:
        better, calibration = corrected(study, chip, task, folder, stop)
        network, weights, readout = better.network, better.weights, better.readout
        line["calibrated"] = judge(chip, network, weights, task, stop, readout)
    if not study.learn:
        return line

    def show(event: Event) -> None:
        tell(seed, event.share)

    experiment = study.experiment_of(seed)
    with Emulator() as body:
        trainer = Trainer(
            experiment, network, chip, task, body, folder, show,
            weights=weights, stop=stop, calibration=calibration,
        )  # fmt: skip
        learned = trainer.run()
    result = {"raw": learned["test"], "offset_calibrated": learned["test_calibrated"]}
    if readout is not None:
        weights = weights_file.load(folder / "weights.npz", network)
        result = judge(chip, network, weights, task, stop, readout)
    line["learned"] = {
        **result,
        "validation": learned["validation"],
        "epoch": learned["best_epoch"],
        "weights_digest": learned["weights_digest"],
    }
    return line


# --- many chips --------------------------------------------------------------------------------


def simulate(
    study: Study,
    task: Task,
    seeds: Sequence[int],
    out: Path,
    executor: Executor,
    progress: Callable[[int, float, Line | None], None] = lambda finished, parts, line: None,
) -> list[Line]:
    """All chips of `seeds`, those that out/chips.jsonl does not hold yet on the executor.

    executor: threads of this process. Each chip's line is in the file as soon as it is
    there. progress(chips finished, parts of chips under way, line of the chip that has just
    been finished or None) is called ten times a second. Returns the lines in the order of seeds.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with what is finished written; the same call
            continues.
        UsageError, FileMistakes: the folder holds something else.
    """
    key, path = study.key(), out / "chips.jsonl"
    lines = read_lines(path, key)
    missing = [seed for seed in seeds if seed not in lines]
    shares: dict[int, float] = {}
    stop = threading.Event()

    def finished(seed: int, line: Line) -> None:
        lines[seed] = line
        write_lines(path, lines)
        # What the checkpoint was for is done; it is by far the largest file of a chip.
        (chip_folder(out, seed) / "checkpoint.npz").unlink(missing_ok=True)
        done(line)

    def done(line: Line | None = None) -> None:
        parts = sum(share for seed, share in shares.copy().items() if seed not in lines)
        progress(sum(seed in lines for seed in seeds), parts, line)

    def calls() -> Iterator[Call[Line]]:
        for seed in missing:
            folder, tell = chip_folder(out, seed), shares.__setitem__
            yield Call(seed, measure, (study, task, seed, folder, stop.is_set, tell))

    done()
    with interruptible(stop):
        drive(executor, calls(), max(1, len(missing)), stop, finished, done)
    count = sum(seed in lines for seed in seeds)
    if count < len(seeds):
        raise Interrupted(
            f"interrupted: {count} of {len(seeds)} chips are finished, in {path}; "
            "the same command continues"
        )
    return [lines[seed] for seed in seeds]


def chip_folder(out: Path, seed: int) -> Path:
    """Where one chip keeps what it learned."""
    return out / "chips" / str(seed)


def read_lines(path: Path, key: str) -> dict[int, Line]:
    """Finished chips by seed; none if there is no such file.

    Raises UsageError for those of another study, FileMistakes for a damaged file.
    """
    if not path.exists():
        return {}
    lines: dict[int, Line] = {}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
            other = line["key"] != key
            lines[int(line["seed"])] = line
            if not isinstance(line["before"], Mapping):
                raise TypeError("no accuracy before")
        except (ValueError, KeyError, TypeError) as error:
            mistake = Mistake(str(path), number, "", f"no line of a chip ({error})", "its results")
            raise FileMistakes([mistake]) from None
        if other:
            raise UsageError(
                f"{path} belongs to another experiment, network, profile, weights or number of "
                "epochs; name another --out, or remove the folder to start anew"
            )
    return lines


def write_lines(path: Path, lines: Mapping[int, Line]) -> None:
    """All lines in the order of their seeds, whole or not at all."""
    text = "".join(json.dumps(lines[seed]) + "\n" for seed in sorted(lines))
    write_text(path, text)


# --- what came out -----------------------------------------------------------------------------


def stages(lines: Sequence[Line]) -> list[str]:
    """The stages that all chips went through, in their order."""
    return [stage for stage in STAGES if all(stage in line for line in lines)]


def accuracies(lines: Sequence[Line], stage: str, kind: str) -> NDArray[np.float64]:
    """Of every chip, 0..1. kind: one of SCORES."""
    return np.array([line[stage][kind] for line in lines], dtype=np.float64)


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, standard deviation (of a sample; 0 for one chip), least, quartiles and most."""
    q = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    sd = float(values.std(ddof=1)) if values.size > 1 else 0.0
    names = ("min", "q1", "median", "q3", "max")
    return {"mean": float(values.mean()), "sd": sd} | dict(zip(names, q.tolist(), strict=True))


def yield_at(values: NDArray[np.float64], least: float) -> float:
    """Share of chips whose accuracy is `least` or more."""
    return float(np.mean(values >= least))


def summarise(lines: Sequence[Line]) -> dict[str, dict[str, dict[str, float]]]:
    """`spread` of each stage and score."""
    return {
        stage: {kind: spread(accuracies(lines, stage, kind)) for kind in SCORES}
        for stage in stages(lines)
    }
