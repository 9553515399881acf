"""Sweeps: what is run, that it is run once, and that the table is always the same."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeps import BITS, NETWORK, ROUGH, study, threads, write

from hwgle.chip import Chip
from hwgle.errors import DeviceError, FileMistakes, Interrupted, UsageError
from hwgle.montecarlo import judge
from hwgle.network import Network
from hwgle.parallel import Call, drive
from hwgle.quantise import build_image
from hwgle.session import calibrate_on
from hwgle.sweep import work as work_module
from hwgle.sweep.driver import Batches, Outcome, Progress, run_sweep
from hwgle.sweep.executors import cluster, local
from hwgle.sweep.journal import Journal, read_lines
from hwgle.sweep.plan import make_plan
from hwgle.sweep.plots import draw_all, heat_map, means, pareto
from hwgle.sweep.seeds import DRAWN, NOISE, OF_TRAINING, seed_matters, seedless
from hwgle.sweep.study import Study, known_keys, load_sweep
from hwgle.sweep.summary import front, settle
from hwgle.sweep.table import columns, read_table, rows, write_table
from hwgle.tasks import TASKS
from hwgle.weights import initial, save


def table(what: Study, out: Path, outcome: Outcome) -> bytes:
    """The bytes of both files of the table."""
    return b"".join(path.read_bytes() for path in write_table(out, rows(what, outcome)))


def run(what: Study, out: Path, workers: int = 2, **options: Any) -> Outcome:
    with threads(workers) as found:
        return run_sweep(what, out, found, **options)


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": None}, "weights: found nothing (null); allowed: weights to evaluate"),
        ({"weights": "no.npz"}, "weights: found no such file"),
        ({"experiment": "none"}, "experiment: found no experiment named 'none'"),
        ({"chip": "ideal:3"}, "chip: found 'ideal:3': a seed"),
        ({"do": {"kind": "train", "epochs": 0}}, "do.epochs: found 0"),
        ({"do": {"kind": "learn"}}, "do.kind: found the text 'learn'; allowed: one of evaluate"),
        ({"search": {"kind": "random"}}, "search.points: found nothing, the key is missing"),
        ({"seeds": {"chip": [1, 1]}}, "seeds.chip: found a seed twice"),
        ({"seeds": {"training": [1]}}, "seeds.training: found a list of 1; allowed: none"),
        ({"axes": []}, "axes: found an empty list"),
        ({"axes": [{"key": "chip.weight.bit", "values": [1]}]}, "no key 'chip.weight.bit'"),
        ({"axes": [{"key": "chip.seed", "values": [1]}]}, "name them in seeds: {chip: [...]}"),
        ({"axes": [{"key": "training.batch", "values": [1]}]}, "keys of the chip, as nothing"),
        ({"axes": [{"key": "chip.rate.bits"}]}, "an axis without values"),
        ({"axes": [{"key": "chip.rate.bits", "low": 9, "high": 4}]}, "found 4; allowed: at least"),
        ({"axes": [{"key": "chip.rate.bits", "low": 4}]}, "axes[0].high: found nothing"),
        ({"axes": [{"key": "chip.rate.bits", "values": [4, 15]}]},
         "axes[0].values[1]: found chip.rate.bits = 15; allowed: a whole number from 2 to 14"),
        ({"axes": [{"key": "chip.rate.bits", "values": [4, 5, 4]}]}, "found 4 again"),
        ({"axes": [{"key": "chip.rate.bits", "values": [4], "low": 3}]}, "not both"),
        ({"axes": [{"key": "chip.rate.bits", "values": [{"a": 1}]}]}, "found a mapping"),
        ({"axes": [{"key": "chip.leak.mismatch", "low": 0.1, "high": 0.2}]}, "a step"),
        ({"axes": [{"key": "chip.leak.mismatch", "low": 0.1, "high": 0.2, "scale": "log"}]},
         "linear in a grid"),
        ({"axes": [{"key": "chip.rate.bits", "values": [4]}] * 2}, "each key once"),
        ({"axes": [{"keys": ["chip.rate.bits", "chip.error.bits"], "values": [[4, 5], [6]]}]},
         "axes[0].values[1]: found a list of 1; allowed: a list of 2 values"),
        ({"axes": [{"key": "chip.weight.bits", "values": [4, 8]},
                   {"key": "chip.weight.stored_bits", "values": [6]}]},
         "chip.weight.stored_bits = 6 together with chip.weight.bits = 8"),
        ({"axes": [{"key": "chip.rate.bits", "low": 2, "high": 14, "step": 1e-6}]}, "10000 values"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(FileMistakes) as caught:
        load_sweep(str(path))
    assert told in str(caught.value)
    assert all(f"{path}:" in line for line in str(caught.value).splitlines())


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, name="a b", chip="nochip", weights="none.npz", do={"kind": "evaluate", "n": 1},
        axes=[{"key": "chip.rate.bits", "values": [4]}, {"key": "chip.x", "low": 1}],
    )  # fmt: skip
    with pytest.raises(FileMistakes) as caught:
        load_sweep(str(path))
    text = str(caught.value)
    for key in (" name:", " chip:", " weights:", " do.n:", " axes[1].high:"):
        assert key in text


@pytest.mark.parametrize("name", ["bits-15k", "errors-15k", "pareto-15k"])
def test_sweeps_of_the_zoo_are_sound(name: str) -> None:
    found = load_sweep(name)
    assert found.sweep.name == name
    if name == "bits-15k":
        points = [p for k, s in enumerate(found.grid()) for p in found.points(k, s)]
        assert len(points) == 13 * 11 * 3
        assert len({found.job(p).key for p in points[:30]}) == 10


def test_the_sweep_of_the_readme_is_sound(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    text = next(
        part.split("```")[0] for part in readme.split("```yaml\n")
        if part.startswith("format: hwgle/sweep/1")
    )  # fmt: skip
    folder = tmp_path / "my-training"
    folder.mkdir()
    save(folder / "weights.npz", initial(Network.load("mnist1d-15k"), 0))
    (tmp_path / "sweep.yaml").write_text(text)
    found = load_sweep(str(tmp_path / "sweep.yaml"))
    points = [p for k, s in enumerate(found.grid()) for p in found.points(k, s)]
    assert len(points) == 3 * 2 * 2 * 3
    # without mismatch weights8 draws nothing
    assert len({found.job(p).key for p in points}) == 2 * 2 * (1 + 3 + 3)


# --- which seeds decide ------------------------------------------------------------------------

FIXED = {
    "input.bits", "weight.bits", "weight.stored_bits", "weight.scale", "weight.distribution",
    "weight.drift", "rate.bits", "membrane.bits", "membrane.range", "leak.bits", "leak.tracks",
    "error.bits", "readout.bits", "plasticity.learning_rate", "plasticity.update_bits",
}  # fmt: skip


def words(chip: Chip) -> np.ndarray:
    """The image of a small network on a chip, its seed left out."""
    net = Network.load("digits")
    x = np.random.default_rng(1).normal(size=(20, 4, net.inputs))
    weights = initial(net, 1)
    found = build_image(net, chip, calibrate_on(net, chip, weights, x, None), seed=0).words.copy()
    return found


def with_key(key: str, value: Any, seed: int = 0) -> Chip:
    data = Chip.load("ideal").model_dump()
    part, name = key.split(".")
    data[part][name] = value
    return Chip.model_validate({**data, "seed": seed})


def test_every_key_of_a_profile_is_known_to_draw_or_not() -> None:
    keys = {key.removeprefix("chip.") for key in known_keys(False)}
    assert keys == {*DRAWN, *NOISE, *OF_TRAINING} | FIXED
    assert len(keys) == len(DRAWN) + len(NOISE) + len(OF_TRAINING) + len(FIXED)
    assert not seed_matters(Chip.load("ideal"))
    assert not seed_matters(Chip.load("ideal8"))
    assert seed_matters(Chip.load("mismatch10"))
    for key in (*DRAWN, *NOISE):
        assert attrgetter(key)(Chip.load("ideal")) == 0
        assert seed_matters(with_key(key, 0.1))
        assert seedless(with_key(key, 0.1, 7)).seed == 7
    assert seedless(Chip.load("ideal:7")) == Chip.load("ideal:0")


@pytest.mark.parametrize("key", DRAWN)
def test_what_draws_makes_other_chips_of_other_seeds(key: str) -> None:
    value = 0.4
    assert not np.array_equal(words(with_key(key, value, 0)), words(with_key(key, value, 1)))


def test_what_does_not_draw_is_one_chip() -> None:
    others = {
        "weight.bits": 5, "weight.scale": "neuron", "weight.drift": 100.0, "rate.bits": 5,
        "membrane.bits": 16, "membrane.range": 4.0, "leak.bits": 6, "error.bits": 6,
        "readout.bits": 4, "input.bits": 6, "weight.distribution": "normal", "leak.tracks": False,
        "plasticity.rounding": "nearest",
    }  # fmt: skip
    for key, value in others.items():
        same = [words(with_key(key, value, seed)) for seed in (0, 1)]
        assert np.array_equal(*same), key


# --- what is run -------------------------------------------------------------------------------


def test_points_are_what_eval_says_and_those_that_cannot_differ_are_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = study(tmp_path, seeds={"chip": [5, 6]}, axes=BITS + ROUGH)
    asked: list[str] = []
    original = work_module._evaluate

    def evaluate(common: Any, job: Any, task: Any) -> Any:
        asked.append(job.key)
        return original(common, job, task)

    monkeypatch.setattr(work_module, "_evaluate", evaluate)
    told: list[Progress] = []
    outcome = run(what, tmp_path / "out", tell=lambda p: told.append(Progress(**vars(p))))
    assert len(outcome.points) == 3 * 2 * 2 * 2
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == 3 * 2 * (1 + 2)  # without mismatch both seeds are one chip
    assert (told[-1].finished, told[-1].total, told[-1].run) == (24, 24, 18)
    task = TASKS["mnist1d"](3, 4, 20, 10)
    table_rows = rows(what, outcome)
    for row in (table_rows[0], table_rows[-1]):
        data = Chip.load("ideal8").model_dump()
        data["weight"] |= {"bits": row["chip.weight.bits"]}
        data["weight"] |= {"mismatch": row["chip.weight.mismatch"]}
        data["rate"] |= {"bits": row["chip.rate.bits"]}
        chip = Chip.model_validate({**data, "seed": row["seed.chip"]})
        assert what.weights is not None
        want = judge(chip, what.network, what.weights, task)
        assert {k: row[k] for k in want} == want
    assert [r["seed.chip"] for r in table_rows[:4]] == [5, 6, 5, 6]
    assert len({r["digest"] for r in table_rows}) == 18
    # nothing is left to do, and the table does not change
    asked.clear()
    again = run(what, tmp_path / "out")
    assert not asked
    assert rows(what, again) == table_rows


def test_more_values_run_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(tmp_path, axes=[{"key": "chip.rate.bits", "values": [4, 8]}]), tmp_path / "out")
    what = study(tmp_path, axes=[{"key": "chip.rate.bits", "values": [4, 6, 8]}])
    asked: list[Any] = []
    original = work_module._evaluate
    monkeypatch.setattr(
        work_module, "_evaluate", lambda c, j, t: (asked.append(j.chip), original(c, j, t))[1]
    )
    outcome = run(what, tmp_path / "out")
    assert [chip.rate.bits for chip in asked] == [6]
    assert [p.setting["chip.rate.bits"] for p in outcome.points] == [4, 6, 8]
    # other weights, data or samples are other points
    for changes in ({"do": {"kind": "evaluate", "samples": 5}}, {"chip": "ideal"}):
        other = study(tmp_path, axes=[{"key": "chip.rate.bits", "values": [4]}], **changes)
        point = next(other.points(0, {"chip.rate.bits": 4}))
        assert other.job(point).key not in {job.key for job in outcome.jobs}


def test_another_arithmetic_is_another_point_and_is_refused_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = study(tmp_path)
    point = next(what.points(0, next(iter(what.grid()))))
    before = what.job(point).key
    monkeypatch.setattr("hwgle.sweep.study.arithmetic", lambda: "ff" * 32)
    assert what.job(point).key != before
    monkeypatch.setattr(work_module, "arithmetic", lambda: "ee" * 32)
    common = work_module.Common.of(what, None)
    monkeypatch.setattr(work_module, "arithmetic", lambda: "dd" * 32)
    with pytest.raises(DeviceError, match="install the same hwgle on all workers"):
        work_module.work(common, [what.job(point)])


def test_weights_bring_the_time_constants_that_they_learned(tmp_path: Path) -> None:
    layers = [{**layer, "learn_tau_m": True} for layer in NETWORK["layers"]]
    keys = []
    for tau_m in (0.8, 1.6):
        folder = tmp_path / str(tau_m)
        path = write(folder)
        (folder / "net.yaml").write_text(json.dumps({**NETWORK, "layers": layers}))
        weights = initial(Network.load(str(folder / "net.yaml")), 3)
        save(folder / "w.npz", {**weights, "hidden.tau_m": np.full(6, tau_m)})
        found = load_sweep(str(path))
        assert set(found.network.layers[0].tau_m) == {tau_m}
        keys.append(found.job(next(found.points(0, next(found.grid())))).key)
    assert keys[0] != keys[1]


def test_training_sweeps_continue_and_leave_no_checkpoints(tmp_path: Path) -> None:
    axes = [{"key": "chip.error.bits", "values": [6, 12]},
            {"key": "training.learning_rate", "values": [1e-4, 1e-2]}]  # fmt: skip
    what = study(
        tmp_path, do={"kind": "train", "epochs": 1}, axes=axes, seeds={"training": [1, 2]},
        weights=None,
    )  # fmt: skip
    whole = table(what, tmp_path, run(what, tmp_path / "whole"))
    lines = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert {line["seed.training"] for line in lines} == {1, 2}
    assert len({line["digest"] for line in lines}) == 8
    assert not (tmp_path / "whole" / "trainings").exists()
    # interrupted in the middle of trainings, then on two shards
    stop = threading.Event()
    work_module.set_stop(stop.is_set)
    try:
        with pytest.raises(Interrupted, match="of 8 points are finished"):
            run(what, tmp_path / "cut", 1, tell=lambda p: stop.set() if p.run >= 3 else None)
    finally:
        work_module.set_stop(lambda: False)
    left = [read_lines(p)[0] for p in (tmp_path / "cut").glob("finished*")]
    assert 3 <= sum(map(len, left)) < 8
    run(what, tmp_path / "cut", shard=(1, 2))
    outcome = run(what, tmp_path / "cut", shard=(2, 2))
    assert outcome.complete
    assert table(what, tmp_path, outcome) == whole


def test_what_a_chip_cannot_do_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = work_module._evaluate

    def evaluate(common: Any, job: Any, task: Any) -> Any:
        if job.chip.rate.bits == 8:
            raise UsageError("these scales cannot be built")
        return original(common, job, task)

    monkeypatch.setattr(work_module, "_evaluate", evaluate)
    what = study(tmp_path)
    lines = rows(what, run(what, tmp_path / "out"))
    assert [("refused" in line) for line in lines] == [False, True] * 3
    assert len(settle(lines, ["chip.weight.bits"])) == 3
    found = columns(lines)
    assert np.isnan(found["raw"]).sum() == 3
    assert set(found["refused"]) == {"", "these scales cannot be built"}


# --- always the same table ---------------------------------------------------------------------


def test_table_is_the_same_however_it_was_run(tmp_path: Path) -> None:
    what = study(tmp_path, seeds={"chip": [0, 1]}, axes=BITS[1:] + ROUGH)
    whole = table(what, tmp_path, run(what, tmp_path / "one", 1))
    with local(2) as workers:
        outcome = run_sweep(what, tmp_path / "processes", workers)
    assert table(what, tmp_path, outcome) == whole
    for k in (3, 1, 2):
        outcome = run(what, tmp_path / "shards", shard=(k, 3))
        assert outcome.complete == (k == 2)
    assert table(what, tmp_path, outcome) == whole
    names = sorted(p.name for p in (tmp_path / "shards").iterdir())
    assert names == [f"finished-{k}-of-3.jsonl" for k in (1, 2, 3)]
    assert read_table(tmp_path / "table.jsonl") == rows(what, outcome)


def test_dask_cluster_gives_the_same_table(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    axes = [*BITS[1:], {"key": "chip.weight.mismatch", "values": [0.1]}]
    what = study(tmp_path, axes=axes, seeds={"chip": [0, 1]})
    whole = table(what, tmp_path, run(what, tmp_path / "threads"))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, host="127.0.0.1", protocol="tcp",
        dashboard_address=None, silence_logs=50,
    ) as found, cluster(found.scheduler_address) as workers:  # fmt: skip
        assert workers.count == 2
        outcome = run_sweep(what, tmp_path / "dask", workers)
    assert table(what, tmp_path, outcome) == whole


@pytest.mark.long
def test_dask_processes_give_the_same_table_of_trainings(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    what = study(tmp_path, do={"kind": "train", "epochs": 1}, seeds={"training": [0, 1]})
    whole = table(what, tmp_path, run(what, tmp_path / "threads"))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address=None, silence_logs=50,
    ) as found, cluster(found.scheduler_address) as workers:  # fmt: skip
        outcome = run_sweep(what, tmp_path / "dask", workers)
    assert table(what, tmp_path, outcome) == whole


def test_no_scheduler_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("hwgle.sweep.executors.CONNECT_SECONDS", 0.5)
    with pytest.raises(DeviceError, match="no scheduler answers"), cluster("tcp://127.0.0.1:9"):
        pass


@pytest.mark.parametrize(
    "kind", ["random", pytest.param("tpe", marks=pytest.mark.long), "pareto"]
)
def test_searches_ask_the_same_whoever_answers_first(tmp_path: Path, kind: str) -> None:
    if kind != "random":
        pytest.importorskip("optuna")
    search = {"kind": kind, "points": 9, "seed": 3}
    search |= {"generation": 3} if kind != "random" else {}
    axes = [
        {"keys": ["chip.weight.stored_bits", "chip.weight.bits"], "values": [[4, 3], [8, 6]]},
        {"key": "chip.rate.bits", "low": 4, "high": 9},
        {"key": "chip.leak.mismatch", "low": 0.01, "high": 0.3, "scale": "log"},
        {"key": "chip.plasticity.rounding", "values": ["nearest", "stochastic"]},
    ]
    what = study(tmp_path, search=search, axes=axes)
    one = run(what, tmp_path / "one", 1)
    whole = table(what, tmp_path, one)
    assert len(one.points) == 9
    assert len({json.dumps(p.setting) for p in one.points}) > 5
    # continued from a part of the journal, by other workers
    lines = (tmp_path / "one" / "finished.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "finished.jsonl").write_text("".join(lines[::3]))
    assert table(what, tmp_path, run(what, tmp_path / "two", 3)) == whole
    other = study(tmp_path, search={**search, "seed": 4}, axes=axes)
    first = make_plan(other).ask()
    assert first != [p.setting for p in one.points[: len(first)]]


def test_values_that_do_not_go_together_are_not_drawn(tmp_path: Path) -> None:
    axes = [{"key": "chip.weight.bits", "low": 3, "high": 10},
            {"key": "chip.weight.stored_bits", "low": 4, "high": 10}]  # fmt: skip
    what = study(tmp_path, search={"kind": "random", "points": 30}, axes=axes)
    pairs = [tuple(setting.values()) for setting in make_plan(what).ask()]
    assert len(pairs) == 30
    assert all(bits <= stored for bits, stored in pairs)


# --- the journal, and driving ------------------------------------------------------------------


def test_a_torn_line_is_run_again_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    with Journal(tmp_path).open() as journal:
        journal.add({"a": {"raw": 0.5}})
        journal.add({"b": {"raw": 0.25}, "c": {"raw": 0.125}})
    path = tmp_path / "finished.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(tmp_path).open() as journal:
            lines = whole[:cut].count(b"\n")
            assert list(journal.results) == ["a", "b", "c"][:lines]
            journal.add({"d": {"raw": 1.0}})
        assert list(read_lines(path)[0]) == [*["a", "b", "c"][:lines], "d"]
    path.write_bytes(whole.replace(b'"b"', b'"b'))
    with pytest.raises(FileMistakes, match=r"finished\.jsonl:2: found a damaged line"):
        Journal(tmp_path).read()


def test_what_a_killed_run_was_writing_is_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = study(tmp_path, axes=BITS[1:])
    out = tmp_path / "out"
    lines = rows(what, run(what, out))

    replace = os.replace
    for at in (1, 2):  # the rename of table.jsonl, and of table.npz
        calls = iter(range(1, 9))

        def killed(old: Any, new: Any, calls: Any = calls, at: int = at) -> None:
            if next(calls) == at:
                raise KeyboardInterrupt
            replace(old, new)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", killed)
            patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            with pytest.raises(KeyboardInterrupt):
                write_table(out, lines)
        assert [p for p in out.iterdir() if p.name.startswith(".")]
        (out / ".mine").write_text("not of a sweep")
        run(what, out)
        assert [p.name for p in out.iterdir() if p.name.startswith(".")] == [".mine"]
        (out / ".mine").unlink()


def test_two_sweeps_do_not_write_one_journal(tmp_path: Path) -> None:
    with (
        Journal(tmp_path).open(),
        pytest.raises(UsageError, match="another sweep"),
        Journal(tmp_path).open(),
    ):
        pass
    with Journal(tmp_path).open(), Journal(tmp_path, (1, 2)).open():
        pass  # shards have files of their own


def test_drive_keeps_what_is_finished_and_begins_nothing_after_a_failure() -> None:
    begun: list[int] = []
    kept: list[int] = []

    def one(k: int) -> int:
        begun.append(k)
        if k == 2:
            raise UsageError("two")
        return k

    calls = (Call(k, one, (k,)) for k in range(100))
    with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="two"):
        drive(pool, calls, 2, threading.Event(), lambda tag, r: kept.append(r), lambda: None)
    assert kept[:2] == [0, 1]
    assert len(begun) <= 5


def test_drive_abandons_what_cannot_be_told() -> None:
    class Silent(ThreadPoolExecutor):
        def submit(self, *call: Any, **more: Any) -> Future[Any]:
            return Future()

    stop = threading.Event()
    with Silent(1) as pool:
        calls = (Call(k, abs, (k,)) for k in range(3))
        drive(pool, calls, 3, stop, lambda tag, r: None, stop.set, abandon=True)
    assert stop.is_set()


def test_batches_last_about_a_second_and_share_the_end() -> None:
    batches = Batches()
    assert batches.size(1000, 2) == 1
    batches.told(1, 0.01)
    assert batches.size(10_000, 2) == 150
    assert batches.size(8, 2) == 2
    batches.told(10, 50.0)
    assert batches.size(10_000, 2) == 1


# --- what it says ------------------------------------------------------------------------------


def lines_of(values: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [
        {"setting": k, "chip.rate.bits": k, "memory_bits": bits, "raw": x, "offset_calibrated": x,
         "job": str(k)}
        for k, (bits, x) in enumerate(values)
    ]  # fmt: skip


def test_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    values = [(int(b), float(x) / 20) for b, x in rng.integers(1, 20, (60, 2))]
    found = front(settle(lines_of(values), ["chip.rate.bits"]))
    got = [(s.memory_bits, s.mean()) for s in found]
    want = {
        (b, x)
        for b, x in values
        if not any(c <= b and y >= x and (c, y) != (b, x) for c, y in values)
    }
    assert set(got) == want
    assert len(got) == len(want)
    assert got == sorted(got)


def test_pictures_are_the_same_bytes_and_say_what_the_table_says(tmp_path: Path) -> None:
    what = study(tmp_path, seeds={"chip": [0, 1]}, axes=BITS + ROUGH)
    rng = np.random.default_rng(0)
    lines = []
    for number, setting in enumerate(what.grid()):
        for point in what.points(number, setting):
            raw, calibrated = rng.uniform(0.1, 0.9, 2)
            bits = what.memory_bits(setting)
            job = f"{number} {point.chip_seed * (setting['chip.weight.mismatch'] > 0)}"
            lines.append(
                {"setting": number, **setting, "seed.chip": point.chip_seed, "memory_bits": bits,
                 "raw": raw, "offset_calibrated": calibrated, "job": job}
            )  # fmt: skip
    keys = ["chip.weight.bits", "chip.rate.bits", "chip.weight.mismatch"]
    settled = settle(lines, keys)
    first = draw_all(what, settled, tmp_path / "a")
    second = draw_all(what, settled, tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    assert {p.stem for p in first} == {
        "heat-weight-bits-rate-bits", "heat-weight-bits-weight-mismatch",
        "heat-rate-bits-weight-mismatch", "pareto", "yield",
    }  # fmt: skip
    assert all(p.read_bytes() == q.read_bytes() for p, q in zip(first, second, strict=True))
    x, y, grid = means(settled, keys[0], keys[1], "raw")
    assert (x, y) == ([3, 4, 5], [4, 8])
    want = np.mean([r["raw"] for r in lines if r[keys[0]] == 5 and r[keys[1]] == 8])
    assert grid[1, 2] == pytest.approx(want)
    figure = heat_map(settled, keys[0], keys[1], "t")
    assert f"{100 * want:.0f}" in [text.get_text() for text in figure.axes[0].texts]
    labels = [t.get_text() for t in pareto(settled, "t").axes[0].get_legend().get_texts()]
    assert f"Pareto front, {len(front(settled))} settings" in labels


def test_memory_counts_weights_states_and_what_learns(tmp_path: Path) -> None:
    what = study(tmp_path)
    setting = {"chip.weight.stored_bits": 10, "chip.rate.bits": 7}
    synapses, neurons = 6 * 1 + 10 * 6, 16
    assert what.memory_bits(setting) == synapses * 10 + neurons * (29 + 29 + 7)
    learns = study(tmp_path, do={"kind": "train", "epochs": 1})
    assert learns.memory_bits(setting) == what.memory_bits(setting) + neurons * 2 * 12


def test_a_study_does_not_depend_on_where_it_stands(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        what = study(tmp_path / name)
        keys.append([what.job(p).key for p in what.points(0, next(iter(what.grid())))])
    assert keys[0] == keys[1]
