"""Training: interrupted anywhere and continued gives the bits of an uninterrupted one."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imperfections import with_all
from networks import make_network
from numpy.typing import NDArray

from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.errors import FileMistakes, Interrupted, UsageError
from hwgle.experiment import Experiment, Training
from hwgle.learning import trainer as module
from hwgle.learning.adam import Learner
from hwgle.learning.schedule import PlateauState, rate_at
from hwgle.learning.trainer import Event, Trainer
from hwgle.network import Network
from hwgle.onchip import OnChip
from hwgle.quantise import build_image, quantise_weights, to_int16
from hwgle.session import calibrate_on
from hwgle.tasks import Split, Task
from hwgle.weights import Weights, initial

STEPS, CLASSES = 20, 3
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"kind": "cosine", "final": 1e-5},
    "plateau": {"kind": "plateau", "patience": 1},
}

# Everything that this rule knows, so that what is interrupted holds all of it.
ADAM = {"layer_rate": 0.5, "average": 1.0, "beta2": 0.99, "weight_decay": 0.1, "initial_gain": 2.0}


def split(count: int, seed: int) -> Split:
    """Waves of three frequencies, which are the classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    t = np.arange(STEPS)
    wave = np.sin((y[:, None] + 1) * 0.3 * t + rng.uniform(0, 6, (count, 1)))
    return Split(wave[:, :, None].astype(np.float32), y.astype(np.int64))


TASK = Task("waves", split(35, 1), split(20, 2), split(20, 3))  # 5 samples do not fill a batch


def network(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    return make_network([6, CLASSES], ["tanh", "linear"], rng, inputs=1, loss="cross_entropy")


def experiment(rule: str = "adam", schedule: str = "cosine", **training: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "format": "hwgle/experiment/1",
            "name": "waves",
            "network": "waves",
            "chip": "ideal",
            "task": {"name": "mnist1d", "seed": 1, "validation_seed": 2, "train": 40, "test": 20},
            "training": {
                "rule": rule,
                "epochs": 3,
                "batch": 10,
                "learning_rate": {"adam": 1e-2, "sgd": 0.5}.get(rule, 2.0**-8),
                "schedule": SCHEDULES[schedule],
                "validate_every": 2,
                "seed": 4,
                **(ADAM if rule == "adam" else {}),
                **({"apply_every": 7} if rule in ("normalised", "sign") else {}),
                **training,
            },
        }
    )


def trainer(
    out: Path,
    ex: Experiment,
    on_event: Any = None,
    chip: str = "ideal",
    net: Network | None = None,
) -> Trainer:
    return Trainer(ex, net or network(), Chip.load(chip), TASK, Emulator(), out, on_event)


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a training leaves behind, apart from how long it took."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    for part in (*metrics, summary):
        del part["seconds"]
    with np.load(folder / "weights.npz") as file:
        weights = {name: file[name].tobytes() for name in file.files}
    with np.load(folder / "checkpoint.npz") as file:
        state = {name: file[name].tobytes() for name in file.files if name != "position"}
    return {"metrics": metrics, "summary": summary, "weights": weights, "state": state}


class Looks:
    """Stops a trainer at its n-th look for Ctrl-C, which comes after each piece of steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, piece_seconds: float = 0.0) -> None:
        monkeypatch.setattr(module, "PIECE_SECONDS", piece_seconds)
        self.count = 0
        self.at: int | None = None
        original = Trainer._look

        def look(this: Trainer) -> None:
            self.count += 1
            if self.count == self.at:
                this._stop = True
            original(this)

        monkeypatch.setattr(Trainer, "_look", look)


@pytest.mark.parametrize("rule", ["adam", "sgd", "normalised", "sign"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_interrupted_and_continued_is_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, rule: str, schedule: str
) -> None:
    ex = experiment(rule, schedule)
    trainer(tmp_path / "whole", ex).run()
    whole = outcome(tmp_path / "whole")
    looks = Looks(monkeypatch)
    trainer(tmp_path / "counted", ex).run()
    assert outcome(tmp_path / "counted") == whole  # pieces of steps do not matter
    rng = np.random.default_rng(seed)
    total = looks.count
    for case in range(4):
        out = tmp_path / f"cut{case}"
        # Counted over all parts; a continued part takes fewer looks, so not up to the end.
        at = sorted(int(n) for n in rng.choice(np.arange(1, total // 2), 3, replace=False))
        at = [[1], [total], at, at[:2]][case]
        looks.count = 0
        for n in at:
            looks.at = n
            with pytest.raises(Interrupted, match="the same command continues"):
                trainer(out, ex).run()
            assert not (out / "summary.json").exists()
        looks.at = None
        trainer(out, ex).run()
        assert outcome(out) == whole, f"interrupted after {at} of {total} pieces"


@pytest.mark.parametrize("rule", ["adam", "sgd", "normalised"])
def test_noise_goes_on_where_a_training_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """On a chip with everything that a chip can have, noise of every kind among it."""
    chip, ex = with_all(3), experiment(rule, epochs=2)

    def make(out: Path) -> Trainer:
        return Trainer(ex, network(), chip, TASK, Emulator(), out)

    looks = Looks(monkeypatch)
    make(tmp_path / "whole").run()
    whole, total = outcome(tmp_path / "whole"), looks.count
    for at in (3, total // 2, total - 2):
        looks.count, looks.at = 0, at
        with pytest.raises(Interrupted):
            make(tmp_path / f"cut{at}").run()
        looks.at = None
        make(tmp_path / f"cut{at}").run()
        assert outcome(tmp_path / f"cut{at}") == whole, f"interrupted after {at} of {total} pieces"


def test_learning_from_given_weights_and_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ex, given = experiment(), initial(network(), 77)

    def make(out: Path, weights: Weights | None, **more: Any) -> Trainer:
        parts = network(), Chip.load("ideal"), TASK, Emulator()
        return Trainer(ex, *parts, out, weights=weights, **more)

    make(tmp_path / "whole", given).run()
    whole = outcome(tmp_path / "whole")
    trainer(tmp_path / "drawn", ex).run()
    assert outcome(tmp_path / "drawn")["weights"] != whole["weights"]
    looks = Looks(monkeypatch)
    looks.at = 20
    with pytest.raises(Interrupted):
        make(tmp_path / "cut", given).run()
    for other in (None, {name: 2 * w for name, w in given.items()}):
        with pytest.raises(UsageError, match="belongs to another"):
            make(tmp_path / "cut", other).run()
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == 10

    looks.at = None
    with pytest.raises(Interrupted):
        make(tmp_path / "cut", given, stop=stop).run()
    make(tmp_path / "cut", given).run()
    assert outcome(tmp_path / "cut") == whole


def test_sigint_is_an_interruption(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    ex = experiment()
    with pytest.raises(Interrupted) as caught:
        trainer(tmp_path / "cut", ex, on_event).run()
    assert caught.value.exit_code == 130
    assert len(events) == 2
    assert signal.getsignal(signal.SIGINT) is before
    trainer(tmp_path / "cut", ex).run()
    trainer(tmp_path / "whole", ex).run()
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("call", [1, 2])
def test_interrupted_while_validating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    ex = experiment("adam", "plateau")
    trainer(tmp_path / "whole", ex).run()
    original, calls = Trainer._judged, 0

    def judged(this: Trainer, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGINT)
        return original(this, *args)

    monkeypatch.setattr(Trainer, "_judged", judged)
    with pytest.raises(Interrupted):
        trainer(tmp_path / "cut", ex).run()
    trainer(tmp_path / "cut", ex).run()
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("change", [{"seed": 5}, {"learning_rate": 0.02}, {"batch": 5}])
def test_a_checkpoint_of_another_experiment_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    trainer(tmp_path, experiment()).run()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="belongs to another experiment"):
        trainer(tmp_path, experiment(**change)).run()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_checkpoint_of_a_changed_network_or_chip_of_the_same_name_is_refused(
    tmp_path: Path,
) -> None:
    trainer(tmp_path, experiment()).run()
    changed = network().model_copy(update={"gamma": 0.1})
    for others in ({"chip": "ideal:9"}, {"chip": "ideal8"}, {"net": changed}):
        with pytest.raises(UsageError, match="belongs to another experiment"):
            trainer(tmp_path, experiment(), **others).run()  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_a_file_with_mistakes(tmp_path: Path) -> None:
    trainer(tmp_path, experiment()).run()
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileMistakes, match="no checkpoint"):
        trainer(tmp_path, experiment()).run()


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    trainer(tmp_path, experiment()).run()
    whole = outcome(tmp_path)
    trainer(tmp_path, experiment()).run()
    assert outcome(tmp_path) == whole


def test_metrics_and_events(tmp_path: Path) -> None:
    events: list[Event] = []
    summary = trainer(tmp_path, experiment(), events.append).run()
    metrics = outcome(tmp_path)["metrics"]
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    assert ["validation" in m for m in metrics] == [False, True, True]  # every 2nd, and the last
    best = max(m["validation"] for m in metrics if "validation" in m)
    assert summary["validation"] == best
    assert len(events) == 3 * (3 + 1)  # after each batch, and after each epoch
    assert events[-1].share == 1.0
    assert events[-1].validation == best
    assert [e.share for e in events] == sorted(e.share for e in events)


def test_it_learns(tmp_path: Path) -> None:
    plain = {"layer_rate": 1.0, "average": 0.0, "beta2": 0.999, "weight_decay": 0.0}
    ex = experiment(epochs=40, validate_every=40, initial_gain=1.0, **plain)
    trainer(tmp_path, ex).run()
    metrics = outcome(tmp_path)["metrics"]
    assert metrics[-1]["accuracy_learning"] > 0.6 > metrics[0]["accuracy_learning"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to folder"):
        trainer(tmp_path / "file" / "out", experiment()).run()


def test_learning_rates() -> None:
    cosine = experiment().training
    nothing = PlateauState()
    assert rate_at(cosine, 0.0, nothing) == cosine.learning_rate
    assert rate_at(cosine, 1.0, nothing) == pytest.approx(1e-5)
    assert rate_at(cosine, 0.5, nothing) == pytest.approx((1e-2 + 1e-5) / 2)
    plateau = experiment(schedule="plateau").training
    state = PlateauState()
    for score in (0.5, 0.6, 0.6, 0.6, 0.7, 0.1):
        state.look(score, plateau.schedule)  # type: ignore[arg-type]
    assert state.reductions == 1
    assert rate_at(plateau, 0.3, state) == plateau.learning_rate / 2


def begun(training: Training) -> tuple[Learner, NDArray[np.int16]]:
    """A rule that has begun on the emulator, and inputs for it."""
    net, chip = network(), Chip.load("ideal")
    weights = initial(net, 3)
    x = np.swapaxes(TASK.train.x, 0, 1)[:, :10]
    scales = calibrate_on(net, chip, weights, x, TASK.train.y[:10], learning=True)
    rule = Learner(training, 3)
    rule.begin(Emulator(), build_image(net, chip, scales, batch=10), 10, weights)
    return rule, to_int16(x, scales.input, chip.input_max)[0]


def test_weight_decay_takes_its_share_of_the_weights_and_nothing_of_the_biases() -> None:
    """Without a target there is no gradient: what changes is the decay alone."""
    training, rate, steps = experiment().training, 0.25, 7
    rule, x = begun(training)
    net, weights = network(), initial(network(), 3)
    rule.set_rate(rate)
    before = rule.state()["adam.weight"].copy()
    for part in (slice(0, 3), slice(3, steps)):
        rule.run(Block(x[part]))
    assert np.array_equal(rule.state()["adam.weight"], before)
    rule.sample_done()
    after = rule.state()["adam.weight"]
    kept = np.float32(1.0 - training.weight_decay * rate * steps)
    at = 0
    for layer in net.layers:
        for kind, share in (("weight", kept), ("bias", np.float32(1))):
            part = slice(at, at + weights[f"{layer.name}.{kind}"].size)
            assert np.array_equal(after[part], before[part] * share)
            at = part.stop
    assert at == after.size
    assert kept < 1


def test_no_weight_passes_its_limit_and_biases_have_none() -> None:
    """In units of 1/sqrt(inputs); what is within goes its way."""
    net, ended = network(), []
    for limit in (None, 0.5):
        rule, x = begun(experiment(weight_limit=limit, weight_decay=0.0).training)
        rule.set_rate(0.05)
        rule.run(Block(x, TASK.train.y[:10].astype(np.int16)))
        ended.append(rule.state()["adam.weight"])
    free, limited = ended
    at, reached = 0, 0
    for k, layer in enumerate(net.layers):
        most = np.float32(0.5 / math.sqrt(net.fan_in(k)))
        weights = slice(at, at + layer.size * net.fan_in(k))
        biases = slice(weights.stop, weights.stop + layer.size)
        at = biases.stop
        assert np.abs(free[weights]).max() > most
        assert np.abs(limited[weights]).max() <= most
        reached += np.count_nonzero(np.abs(limited[weights]) == most)
        assert np.abs(limited[biases]).max() > most
    assert at == free.size
    assert reached > 0


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.5, 0.75)])
def test_adam_gets_its_betas_from_the_experiment(beta1: float, beta2: float) -> None:
    rule, x = begun(experiment(beta1=beta1, beta2=beta2).training)
    rule.run(Block(x[:3]))
    powers = rule.state()["adam.powers"]
    assert np.array_equal(powers, [float(np.float32(b)) ** 3 for b in (beta1, beta2)])


def test_initial_gain_is_of_all_layers_but_the_output() -> None:
    net = network()
    plain, more = initial(net, 3), initial(net, 3, gain=2.0)
    hidden, out = (layer.name for layer in net.layers)
    assert np.array_equal(more[f"{hidden}.weight"], 2 * plain[f"{hidden}.weight"])
    for key in (f"{hidden}.bias", f"{out}.weight", f"{out}.bias"):
        assert np.array_equal(more[key], plain[key])


def test_layers_far_from_the_output_learn_slower_on_the_chip() -> None:
    """By the nearest power of two: one application of the sign rule moves a weight by the rate."""
    net, chip = network(), Chip.load("ideal")
    weights, rule = initial(net, 3), OnChip("sign", 1)
    x = np.swapaxes(TASK.train.x, 0, 1)[:, :10]
    scales = calibrate_on(net, chip, weights, x, TASK.train.y[:10], learning=True)
    inputs = to_int16(x, scales.input, chip.input_max)[0]
    for layer_rate, hidden in ((1.0, 2.0**-6), (0.3, 2.0**-8), (0.4, 2.0**-7)):
        image = build_image(net, chip, scales, batch=10, learner=rule, layer_rate=layer_rate)
        body = Emulator()
        body.load(image, 10)
        body.write_weights(quantise_weights(image, weights))
        body.set_rate(6)
        before = body.read_weights()
        body.submit(Block(inputs[:3], TASK.train.y[:10].astype(np.int16), learn=False)).result()
        body.submit(Block(inputs[3:4], TASK.train.y[:10].astype(np.int16), learn=True)).result()
        after = body.read_weights()
        moved = [
            np.abs(after[name][0].astype(int) - before[name][0]).max() * 2.0**-f.stored
            for name, f in zip(after, body.formats(), strict=True)
        ]
        assert moved == [hidden, 2.0**-6]


@pytest.mark.parametrize(("rule", "halved"), [("sign", [2, 0]), ("sgd", [2, 0]), ("adam", [0, 0])])
def test_a_training_asks_the_chip_for_slower_layers(
    tmp_path: Path, rule: str, halved: list[int]
) -> None:
    lesson = trainer(tmp_path, experiment(rule, epochs=1, layer_rate=0.25))
    lesson.run()
    words = lesson._image.words
    assert [int(words[24 + 20 * k + 2]) >> 8 for k in range(2)] == halved
