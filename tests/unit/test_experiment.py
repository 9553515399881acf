"""The experiment file and the files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwgle.errors import FileMistakes, UsageError
from hwgle.experiment import Constant, Cosine, Experiment, Exponential, Plateau
from hwgle.learning.schedule import rate_on_chip
from hwgle.onchip import OnChip
from hwgle.yamlfile import zoo_names

GOOD = """\
format: hwgle/experiment/1
name: mine
network: mnist1d-15k
chip: ideal:5
task: {name: mnist1d, seed: 42, validation_seed: 43}
training:
  rule: adam
  epochs: 150
  batch: 100
  learning_rate: 1e-3
  schedule: {kind: cosine, final: 1e-6}
  seed: 0
"""
NET = """\
format: hwgle/network/1
name: other
dt: 0.2
inputs: 1
loss: cross_entropy
layers:
  - {name: out, phi: linear, populations: [{size: 10, tau_m: 1, tau_r: 1}]}
"""
CHIP = """\
format: hwgle/chip/1
name: bench
weight: {bits: 6, stored_bits: 8}
rate: {bits: 8}
input: {bits: 5}
error: {bits: 12}
"""


def load(tmp_path: Path, text: str) -> Experiment:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return Experiment.load(path)


def test_an_experiment(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD)
    assert experiment.load_network().parameters == 14_956
    assert experiment.load_chip().seed == 5
    assert (experiment.task.train, experiment.task.test) == (4000, 1000)
    assert experiment.training.learning_rate == 1e-3
    assert experiment.training.schedule == Cosine(kind="cosine", final=1e-6)


def test_rules_on_the_chip(tmp_path: Path) -> None:
    text = GOOD.replace("{kind: cosine, final: 1e-6}", "{kind: halving, every: 360, final: 1e-4}")
    for rule, more, learner in (
        ("normalised", "", OnChip("normalised", 3, 10, 1, 360, 3)),
        (
            "normalised",
            "\n  norm_shift: 8\n  momentum_shift: 0",
            OnChip("normalised", 0, 8, 1, 360, 3),
        ),
        ("sign", "\n  apply_every: 9", OnChip("sign", 3, 0, 9, 360, 3)),
        ("sgd", "", OnChip("sgd", 0, 0, 1, 360, 3)),
    ):
        training = load(tmp_path, text.replace("rule: adam", f"rule: {rule}{more}")).training
        assert training.on_chip() == learner
        assert rate_on_chip(training, 1e-3, 719) == 0.5e-3
        assert rate_on_chip(training, 1e-3, 10**6) == 1e-3 / 8
    assert load(tmp_path, GOOD).training.on_chip() == OnChip()
    words = [0] * 21 + list(OnChip("sign", 3, 0, 9, 360, 3).words())
    assert OnChip.of_words(words) == OnChip("sign", 3, 0, 9, 360, 3)


def test_paths_start_at_the_file_not_at_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "chip.yaml").write_text(CHIP)
    text = GOOD.replace("mnist1d-15k", "net.yaml").replace("ideal:5", "sub/chip.yaml:9")
    experiment = load(tmp_path, text)
    assert experiment.load_network().name == "other"
    assert (experiment.load_chip().name, experiment.load_chip().seed) == ("bench", 9)


def test_schedules(tmp_path: Path) -> None:
    for text, schedule in (
        ("{kind: constant}", Constant()),
        ("{kind: exponential, final: 1e-5}", Exponential(kind="exponential", final=1e-5)),
        ("{kind: plateau}", Plateau(kind="plateau", factor=0.5, patience=2, final=0.0)),
    ):
        got = load(tmp_path, GOOD.replace("{kind: cosine, final: 1e-6}", text))
        assert got.training.schedule == schedule
    got = load(tmp_path, GOOD.replace("  schedule: {kind: cosine, final: 1e-6}\n", ""))
    assert got.training.schedule == Constant()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "text"),
    [
        ("experiment/1", "experiment/2", 1, "format", "hwgle/experiment/1"),
        ("network: mnist1d-15k", "network: mnist1d-16k", 3, "network", "did you mean mnist1d-15k?"),
        ("network: mnist1d-15k", "network: gone.yaml", 3, "network", "no such file"),
        ("network: mnist1d-15k", "network: 15", 3, "network", "the name or path of a network"),
        ("network: mnist1d-15k", "network: ''", 3, "network", "the name or path of a network"),
        ("chip: ideal:5", "chip: ideal:x", 4, "chip", "a whole number from 0 to"),
        ("chip: ideal:5", "chip: idea", 4, "chip", "no chip named 'idea'"),
        ("chip: ideal:5\n", "", 1, "chip", "missing"),
        ("name: mnist1d,", "name: mnist,", 5, "task.name", "mnist1d"),
        ("validation_seed: 43", "validation_seed: 42", 5, "task.validation_seed", "another seed"),
        ("seed: 42", "seed: -1", 5, "task.seed", "from 0 to"),
        ("seed: 42", "train: 0, seed: 42", 5, "task.train", "from 1 to"),
        ("seed: 42", "train: 90, seed: 42", 9, "training.batch", "at most train = 90"),
        ("rule: adam", "rule: adamw", 7, "training.rule", "one of adam, sgd"),
        ("seed: 0", "momentum_shift: 3", 12, "training.momentum_shift", "nothing with rule adam"),
        ("seed: 0", "apply_every: 2", 12, "training.apply_every", "1 with rule adam"),
        ("rule: adam", "rule: sign\n  norm_shift: 9", 8, "training.norm_shift",
         "10 with rule sign"),
        ("rule: adam", "rule: normalised\n  beta2: 0.99", 8, "training.beta2",
         "0.999 with rule normalised"),
        ("rule: adam", "rule: normalised\n  norm_shift: 3", 8, "training.norm_shift",
         "from 4 to 14"),
        ("rule: adam", "rule: sign\n  momentum_shift: 17", 8, "training.momentum_shift",
         "from 0 to 16"),
        ("rule: adam", "rule: sgd\n  apply_every: 0", 8, "training.apply_every", "from 1 to"),
        ("{kind: cosine, final: 1e-6}", "{kind: halving, every: 9, final: 1e-6}", 11,
         "training.schedule.kind", "with rule adam, which the host has"),
        ("epochs: 150", "epochs: 0", 8, "training.epochs", "from 1 to"),
        ("seed: 0", "starts: 0", 12, "training.starts", "from 1 to"),
        ("seed: 0", "start_epochs: 0", 12, "training.start_epochs", "from 1 to"),
        ("batch: 100", "batch: 4001", 9, "training.batch", "at most train = 4000"),
        ("1e-3", "0", 10, "training.learning_rate", "a number > 0"),
        ("kind: cosine", "kind: linear", 11, "training.schedule.kind", "constant, cosine"),
        ("final: 1e-6", "final: 1", 11, "training.schedule.final", "at most learning_rate"),
        (", final: 1e-6", "", 11, "training.schedule.final", "missing"),
        ("kind: cosine, final: 1e-6", "kind: constant, final: 1e-6", 11,
         "training.schedule.final", "unknown key"),
        ("kind: cosine, final: 1e-6", "kind: exponential, final: 0", 11,
         "training.schedule.final", "> 0"),
        ("kind: cosine, final: 1e-6", "kind: plateau, factor: 1", 11,
         "training.schedule.factor", "> 0 and < 1"),
        ("  seed: 0", "  sed: 0", 12, "training.sed", "did you mean seed?"),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, old: str, new: str, line: int, key: str, text: str) -> None:
    assert old in GOOD
    with pytest.raises(FileMistakes) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    (mistake,) = caught.value.mistakes
    assert (mistake.file, mistake.line, mistake.key) == (str(tmp_path / "mine.yaml"), line, key)
    assert text in str(mistake)


def test_mistakes_of_all_three_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NET.replace("dt: 0.2", "dt: 2"))
    (tmp_path / "chip.yaml").write_text(CHIP.replace("bits: 5", "bits: 50"))
    text = GOOD.replace("mnist1d-15k", "net.yaml").replace("ideal:5", "chip.yaml")
    with pytest.raises(FileMistakes) as caught:
        load(tmp_path, text.replace("epochs: 150", "epochs: many"))
    assert [(Path(m.file).name, m.line, m.key) for m in caught.value.mistakes] == [
        ("mine.yaml", 8, "training.epochs"),
        ("net.yaml", 7, "layers[0].populations[0].tau_m"),
        ("net.yaml", 7, "layers[0].populations[0].tau_r"),
        ("chip.yaml", 5, "input.bits"),
    ]


def test_the_network_must_fit_the_task(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NET.replace("inputs: 1", "inputs: 3").replace("10", "9"))
    with pytest.raises(FileMistakes) as caught:
        load(tmp_path, GOOD.replace("mnist1d-15k", "net.yaml"))
    assert [(m.line, m.key) for m in caught.value.mistakes] == [(3, "network"), (3, "network")]
    assert "3 inputs" in str(caught.value)
    assert "9 outputs" in str(caught.value)


@pytest.mark.parametrize(
    ("training", "mistakes"),
    [
        ("rule: normalised", [(7, "training.rule")]),
        (
            "rule: sign\n  apply_every: 4",
            [(7, "training.rule"), (8, "training.apply_every")],
        ),
        ("rule: sgd\n  momentum_shift: 2", [(8, "training.momentum_shift")]),
        ("rule: sgd", []),
        ("rule: adam", []),
    ],
)
def test_feedback_that_learns_knows_no_rule_that_remembers(
    tmp_path: Path, training: str, mistakes: list[tuple[int, str]]
) -> None:
    text = GOOD.replace("network: mnist1d-15k", "network: mnist1d-15k-kolen-pollack")
    text = text.replace("rule: adam", training)
    if not mistakes:
        assert load(tmp_path, text).training.rule in training
        return
    with pytest.raises(FileMistakes) as caught:
        load(tmp_path, text)
    assert [(m.line, m.key) for m in caught.value.mistakes] == mistakes
    assert "kolen-pollack" in str(caught.value)
    assert "allowed" in str(caught.value)


def test_overrides_are_checked_and_leave_the_original_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load(tmp_path, GOOD)
    changed = experiment.with_(epochs=3, seed=9, chip="ideal8:2")
    assert (changed.training.epochs, changed.training.seed) == (3, 9)
    assert (changed.load_chip().name, changed.load_chip().seed) == ("ideal8", 2)
    assert (experiment.training.epochs, experiment.training.seed) == (150, 0)
    assert experiment.with_().hash() == experiment.hash()
    with pytest.raises(
        UsageError, match=r"training\.epochs: found 0; allowed: a whole number"
    ) as e:
        experiment.with_(epochs=0, seed=-1)
    assert "training.seed" in str(e.value)
    with pytest.raises(FileMistakes, match="no chip named"):
        experiment.with_(chip="none")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "chip.yaml").write_text(CHIP)
    monkeypatch.chdir(elsewhere)  # --chip is relative to where the user stands
    assert experiment.with_(chip="chip.yaml:4").load_chip().seed == 4


def test_every_experiment_of_the_zoo_loads() -> None:
    names = zoo_names("experiments")
    assert {"mnist1d-15k", "mnist1d-42k", "lagnet-mnist1d"} <= set(names)
    for name in names:
        if name != "speech":  # its folder is the user's, see test_tasks_experiments.py
            assert Experiment.load(name).name == name


def test_missing_experiment_lists_those_there_are() -> None:
    with pytest.raises(FileMistakes, match=r"no experiment named 'mnist'.*mnist1d-15k"):
        Experiment.load("mnist")
