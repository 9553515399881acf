"""The bench: its rival computes what the oracle computes, and its output comes out whole.

Nothing here looks at a time.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from signal import SIGTRAP, getsignal, raise_signal
from signal import signal as set_handler
from types import SimpleNamespace

import numpy as np
import pytest

from hwgle.reference import Adam, Reference, Sgd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # bench/ is no part of the installed package

from bench import (  # noqa: E402
    bounds,
    compare,
    executed,
    footprint,
    growth,
    learning,
    limits,
    products,
    profile,
    speed,
    units,
)
from bench.counting import _part  # noqa: E402
from bench.everything import Everything  # noqa: E402
from bench.figures import Figure, WrongFormat, document, exact, measured, read, write  # noqa: E402
from bench.gradients import by_steps_and_votes  # noqa: E402
from bench.machine import describe  # noqa: E402
from bench.numpy_rival import Rival  # noqa: E402
from bench.peak import Memory, peaks  # noqa: E402
from bench.show import plot, table  # noqa: E402
from bench.torch_rival import TorchRival, torch_or_none  # noqa: E402

STEPS = 50


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine threads that wait for each other take most of the time."""
    with speed.one_thread():
        yield


def small_network(rng, loss, gamma):
    phis = ("linear", "tanh", "tanh", "sigmoid", "linear")
    sizes = (7, 6, 5, 6, 3)
    layers = tuple(
        SimpleNamespace(
            name=f"l{k}",
            phi=phi,
            size=n,
            learn=True,
            tau_m=rng.choice([0.2, 0.6, 1.2], n),
            tau_r=rng.choice([0.2, 1.2], n),
        )
        for k, (phi, n) in enumerate(zip(phis, sizes, strict=True))
    )
    return SimpleNamespace(dt=0.2, inputs=2, loss=loss, beta=0.8, gamma=gamma, layers=layers)


@pytest.mark.parametrize("work", ["infer", "error", "sgd", "adam"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(("loss", "gamma"), [("cross_entropy", 0.0), ("mse", 0.1)])
@pytest.mark.parametrize("kind", [Rival, TorchRival])
def test_rival_equals_the_reference(kind, loss, gamma, batch, work, seed):
    if kind is TorchRival and torch_or_none() is None:
        pytest.skip("torch is not installed")
    rng = np.random.default_rng(seed)
    network = small_network(rng, loss, gamma)
    below = [network.inputs] + [layer.size for layer in network.layers]
    weights = {}
    for m, layer in zip(below, network.layers, strict=False):
        weights[f"{layer.name}.weight"] = rng.normal(size=(layer.size, m)) / (2 * np.sqrt(m))
        weights[f"{layer.name}.bias"] = rng.normal(size=layer.size) * 0.1
    x = 0.5 * rng.normal(size=(STEPS, batch, network.inputs))
    if loss == "mse":
        target = rng.normal(size=(STEPS, batch, 3))
        for_rival = target.astype(np.float32)
    else:
        target = np.tile(rng.integers(0, 3, batch), (STEPS, 1))
        for_rival = np.eye(3, dtype=np.float32)[target]
    oracle = Reference(network, weights, batch)
    learner = Adam(0.002) if work == "adam" else Sgd(0.005)
    rival = kind(network, weights, batch, learner.lr, adam=work == "adam")
    learns = work in ("sgd", "adam")
    for t in range(STEPS):
        oracle.step(x[t], None if work == "infer" else target[t])
        if learns:
            learner(oracle)
        rival.step(x[t].astype(np.float32), None if work == "infer" else for_rival[t], learns)
        for k, layer in enumerate(network.layers):
            state = oracle.state[layer.name]
            for signal in ("u", "r", "v", "e"):
                what = f"{signal} of {layer.name} at step {t}"
                close(state_of(rival, k, signal), getattr(state, signal), what)
    moved = 0.0
    for k, layer in enumerate(network.layers):
        w, b = parameters_of(rival, k)
        close(w, oracle.weights[f"{layer.name}.weight"], "weight")
        close(b, oracle.weights[f"{layer.name}.bias"], "bias")
        moved = max(moved, np.abs(w - weights[f"{layer.name}.weight"]).max())
    assert rival.finite()
    assert (moved > 1e-3) == learns


def state_of(rival, k, signal):
    if isinstance(rival, Rival):
        return getattr(rival, signal)[:, rival.parts[k]]
    return getattr(rival.layers[k], signal).numpy()


def parameters_of(rival, k):
    if isinstance(rival, Rival):
        return rival.W[k], rival.b[rival.parts[k]]
    return rival.layers[k].W.numpy(), rival.layers[k].b.numpy()


def close(got, expected, what):
    assert got.dtype == np.float32
    scale = max(1.0, np.abs(expected).max())
    error = np.abs(got - expected).max()
    assert error <= 1e-4 * scale, f"{what}: off by {error} of {scale}"


@pytest.fixture
def tiny():
    """Two steps of a small network, all contestants: real results, meaningless times."""
    case = speed.Case(speed.three_layers(6), 2, 2, 2)
    return speed.measure(case, ["scalar"], {})


def test_results_cover_every_kind_of_step(tiny):
    rivals = ("numpy",) if torch_or_none() is None else ("numpy", "torch")
    assert [(r.work, r.who) for r in tiny] == [
        (work, who) for work in speed.WORK for who in (*rivals, "hwgle scalar")
    ]
    assert all(r.share is None for r in tiny)
    assert "scalar" in speed.available()


def test_cases_are_the_promised_ones():
    names = {(c.network.name, c.batch) for c in speed.cases(False)}
    networks = ("mnist1d-15k", "mnist1d-42k", "3x750")
    assert names == {(name, batch) for name in networks for batch in (1, 100)}
    assert speed.three_layers().sizes == (750, 750, 750, 12)
    assert all(c.steps >= 200 for c in speed.cases(False) + speed.cases(True))


def test_table_json_and_plot_hold_all_results(tiny, tmp_path):
    machine = describe()
    text = table(tiny, machine, {}, "no compiler")
    assert "not measured (no compiler)" in text
    assert text.count("hwgle scalar") == len(speed.WORK)
    assert json.loads(json.dumps([asdict(r) for r in tiny]))[-1]["who"] == "hwgle scalar"
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for picture in pictures:
        plot(tiny, machine, picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_missing_folder_is_told_before_measuring(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        speed.main(["--json", str(tmp_path / "none" / "a.json")])
    assert left.value.code == 2
    assert "no such folder" in capsys.readouterr().err


def test_peak_counts_what_it_runs():
    try:
        found = peaks()
    except RuntimeError as why:
        pytest.skip(str(why).splitlines()[0])
    assert all(peak.gmacs() > 0 for peak in found.values())


def test_memory_is_read_and_copied():
    try:
        memory = Memory(10_000)
    except RuntimeError as why:
        pytest.skip(str(why).splitlines()[0])
    assert memory.size == 9728  # two halves of whole turns
    assert memory.read() > 0
    assert memory.copy() > 0
    half = memory.size // 2
    held = memory._memory[memory._offset :][: memory.size]
    held[:half] = np.arange(half) % 251
    memory.copy()
    assert (held[half:] == held[:half]).all()


def test_growing_networks_have_what_they_promise():
    for n in (128, 2048):
        for made in (growth.wide, growth.deep, growth.same):
            assert sum(made(n).sizes[:-1]) == n
        hidden = growth.weights_of(growth.same(n)) - 10 * n
        assert hidden == growth.SAME
    assert growth.weights_of(growth.deep(2048)) * 6 < 2 << 20  # three copies fit an L2
    small = growth.layers("small", 3, (4, 5))
    assert growth.macs_of(small, "infer") == 3 * 4 + 4 * 5 + 5 * 10
    assert growth.macs_of(small, "sgd") == 2 * 82 + 70  # no errors below the first layer


@pytest.fixture(scope="module")
def points():
    """One tiny question: real points, meaningless times."""
    small = growth.layers("small", 3, (4, 5))
    spots = [
        growth.Spot("batch", line, batch, 234 * batch, 164, run(small, batch, "sgd"))
        for line, run in (
            ("train", lambda *a: growth.body_of(*a, "scalar")),
            ("NumPy: train", growth.rival_of),
        )
        for batch in (1, 3)
    ]
    with speed.one_thread():
        return growth.measure(spots, 2, None)


def test_growth_is_over_the_first_point_of_its_line(points, tmp_path):
    assert [(p.line, p.x) for p in points] == [
        (line, batch) for line in ("train", "NumPy: train") for batch in (1, 3)
    ]
    assert [p.growth for p in points if p.x == 1] == [1.0, 1.0]
    assert {f.name for f in growth.figures(points)} == {
        "growth/batch/train/3/over the first",
        "growth/batch/NumPy: train/3/over the first",
    }
    assert growth.table(points).count("\n") == 1 + len(points)
    growth.draw(points, describe(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["growth-batch.svg"]


def test_flat_is_the_dearest_over_the_cheapest():
    def point(x, ns, low, high):
        return growth.Point("neurons", "deep", x, 0, 1, ns, (low, high), 1.0, (1, 1), None, None)

    (found,) = growth.flat([point(1, 2.0, 1.0, 4.0), point(2, 3.0, 2.5, 5.0)])
    assert found.name == "growth/neurons/deep/most over least"
    assert (found.value, found.low, found.high) == (1.5, 2.5 / 4, 5.0)
    assert growth.flat([]) == []


def test_one_body_runs_on_whatever_the_length():
    run = growth.body_of(growth.layers("small", 3, (4, 5)), 1, "sgd", "scalar")
    run(3)
    run(growth.LENGTH + 5)
    run(3)


def test_bytes_of_a_body():
    small = growth.layers("small", 3, (4, 5))
    rows = footprint.count(small)
    assert [r.batch for r in rows if r.body == "emu" and not r.gradient] == [*footprint.BATCHES]
    by_key = {(r.body, r.batch, r.gradient): r.bytes for r in rows}
    assert by_key["emu", 2, False] <= by_key["emu", 100, False] < by_key["emu", 100, True]
    assert all(r.states == r.bytes - 2 * 82 - 4 * 19 > 0 for r in rows)
    assert all(figure.exact for figure in footprint.figures(rows, None))


def test_nothing_grows_with_steps():
    run = footprint.steady(growth.layers("small", 3, (4, 5)), 20_000)
    assert run.flat
    assert len(run.arena) == len(run.resident) == footprint.LOOKS + 1
    grown = footprint.Steady("x", 2, [0, 2 * footprint.GROWN], [1, 1], [1, 1])
    assert not grown.flat
    assert not footprint.Steady("x", 2, [0, 0], [1, 2], [1, 1]).flat


@pytest.mark.parametrize("how", ["nearest", "stochastic"])
@pytest.mark.parametrize("sizes", [(8,), (4, 64)])
def test_what_boards_count_has_errors_that_are_not_zero(sizes, how):
    job = products.job_of(products.network(64, sizes), products.rounding(how))
    assert job.image.chip.plasticity.rounding == how
    assert job.x.shape == (products.LONG, 1, 64)


def test_functions_of_a_firmware_are_told_apart():
    for name, file, part in (
        ("gle_product_one_dsp", "", 0),
        ("gle_learn_one", "", 0),
        ("block_2", "single_dsp.c", 0),
        ("update_row", "matvec_scalar.c", 0),
        ("gle_neurons_scalar", "", 1),
        ("gle_layer_sgd", "", 2),
        ("gle_step", "", 2),
        ("__udivdi3", "", 2),
    ):
        assert _part(name, file) == part, name


@pytest.mark.board("qemu-system-riscv32", "riscv64-unknown-elf-gcc")
@pytest.mark.long
def test_board_counts_the_same_twice():
    first, second = (products.measure("hifive1") for _ in range(2))
    assert first == second
    rows, neurons = first
    assert {row.kind for row in rows} == {kind for kind, _ in products.LIMITS}
    assert all(row.per_mac > 1 for row in rows)
    assert neurons is not None
    assert neurons.step > 0


MACHINE = {"cpu": "a", "flags": "", "cores": "2", "system": "s", "caches": "L1"}


def saved(path, figures, **machine):
    write(path, document({**MACHINE, **machine}, figures, {"speed": 0}, {"more": [1]}))
    return path


def test_figures_come_back_from_their_file(tmp_path):
    figures = [measured("a/b", [1.0, 3.0, 2.0], "more"), exact("c/d", 1234567.0)]
    found, by_name = read(saved(tmp_path / "a.json", figures))
    assert by_name == {figure.name: figure for figure in figures}
    assert found["machine"] == MACHINE
    assert found["seeds"] == {"speed": 0}
    assert found["details"] == {"more": [1]}
    for text in ("{}", "[1]", "no json", '{"format": "hwgle/bench/1", "figures": [{"x": 1}]}'):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(WrongFormat):
            read(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([1.0, 1.1, 1.2], [1.05, 1.15, 1.3], None),  # within each other's rounds
        ([1.0, 1.1, 1.2], [1.4, 1.5, 1.6], "better"),
        ([1.4, 1.5, 1.6], [1.0, 1.1, 1.2], "worse"),
        ([1.0, 1.0, 1.0], [1.01, 1.02, 1.03], None),  # no overlap, but too little
        ([1.0, 1.1, 1.2], [0.5, 1.4, 1.5], None),  # one of the new rounds was wild
    ],
)
def test_measured_figures_change_beyond_their_spread(old, new, verdict):
    before, after = (measured("a", rounds, "more") for rounds in (old, new))
    found = compare.changes({"a": before}, {"a": after})
    assert [change.verdict for change in found] == ([verdict] if verdict else [])
    if verdict:
        assert verdict in found[0].line()


def test_any_change_of_an_exact_figure_is_told(tmp_path, capsys):
    old = saved(tmp_path / "old.json", [exact("boards/x", 1.0), exact("memory/y", 10.0)])
    new = saved(tmp_path / "new.json", [exact("boards/x", 1.0001), exact("memory/y", 9.0)])
    assert compare.main([str(new), str(old)]) == 1
    text = capsys.readouterr().out
    assert text.index("worse    boards/x") < text.index("better   memory/y")
    assert compare.main([str(old), str(old)]) == 0
    assert "2 as they were, 0 not" in capsys.readouterr().out
    assert compare.main([str(tmp_path / "none.json"), str(old)]) == 2


def test_ratios_of_another_machine_are_told_and_do_not_count(tmp_path, capsys):
    old = saved(tmp_path / "old.json", [measured("a", [2.0, 2.1], "more")])
    same = saved(tmp_path / "same.json", [measured("a", [1.0, 1.1], "more")])
    other = saved(tmp_path / "other.json", [measured("a", [1.0, 1.1], "more")], cpu="b")
    assert compare.main([str(same), str(old)]) == 1
    assert "another machine" not in capsys.readouterr().out
    assert compare.main([str(other), str(old)]) == 0
    assert "another machine" in capsys.readouterr().out


def test_limits_find_their_figures(tiny, points):
    names = {
        *(figure.name for figure in speed.figures(tiny)),
        "boards/stm32f405/forward/64/instructions per MAC",
        "growth/neurons/deep, batch 100/most over least",
    }
    assert "speed/3x6/batch 2/sgd/hwgle scalar/times numpy" in names
    figures = [
        Figure("speed/mnist1d-15k/batch 1/sgd/hwgle avx2/times numpy", 50, 49, 51, "more"),
        Figure("speed/mnist1d-15k/batch 1/sgd/hwgle vnni/times numpy", 61, 60, 62, "more"),
        exact("boards/stm32f405/forward/64/instructions per MAC", 2.5),
    ]
    text = limits.table(figures)
    assert ">= 60 | 61 (60 .. 62) | holds" in text
    assert "<= 1.8 | 2.5 | **missed**" in text
    assert text.count("not measured") == len(limits.LIMITS) - 2


def test_everything_in_one_file_and_folder(tiny, points, tmp_path):
    rows = footprint.count(growth.layers("small", 3, (4, 5)))
    counted = [products.Products("stm32f405", "forward", 64, 4, 1.5)]
    neurons = [products.Neurons("stm32f405", 4, 400.0, 20.0, 80.0)]
    run = footprint.Steady("small", 2, [0, 0], [1, 1], [1, 1])
    found = Everything(describe(), tiny, {}, "no compiler", points, rows, run, counted, neurons)
    write(tmp_path / "a.json", found.document())
    _, figures = read(tmp_path / "a.json")
    assert {name.split("/")[0] for name in figures} == {"speed", "growth", "memory", "boards"}
    found.draw(tmp_path)
    pictures = {path.name for path in tmp_path.glob("*.svg")}
    assert pictures == {"speed.svg", "growth-batch.svg", "memory.svg", "boards.svg"}
    assert "| product, forward | 64 | 1.8 | 1.50 |" in found.markdown()


def test_growing_networks_keep_errors_alive(monkeypatch):
    """What is 0 is skipped, and would flatter."""
    seen = []
    run = growth.Emulator.run

    def recorded(body, block, adam=None):
        layers = [(k, "e") for k in range(len(body.image.network.layers))]
        records = run(body, replace(block, record=layers), adam)
        seen.append(max(float(np.mean(e[-20:] == 0)) for e in records.signals))
        return records

    monkeypatch.setattr(growth.Emulator, "run", recorded)
    for network in (growth.deep(512), growth.wide(128), growth.same(128)):
        growth.body_of(network, 1, "sgd", "scalar")(100)
    assert max(seen) < 0.1


def test_a_profile_is_split_into_stages_by_functions() -> None:
    report = """
    40.00%  [.] rates_of.constprop.0                       -      -
    20.00%  [.] product_4                                  -      -
    10.00%  [.] gle_learn_stream_vnni
     5.00%  [.] store_avx2
     5.00%  [.] stored_forward
    """
    found = profile.shares(report)
    assert found["neurons"] == pytest.approx(40 / 80)
    assert found["products"] == pytest.approx(25 / 80)
    assert found["learning"] == pytest.approx(10 / 80)
    assert found["Adam"] == pytest.approx(5 / 80)
    assert sum(found.values()) == pytest.approx(1)
    assert profile.stage_of("memcpy") == profile.REST
    assert set(profile.shares("").values()) == {0.0}


def test_what_a_step_may_take_is_told_for_each_limit() -> None:
    """15k at batch 100 must be 4.5 times as fast as NumPy, and 35 % of the peak."""
    found = profile.allowed("mnist1d-15k", 100, "sgd", 45.0, 7.0)
    assert found == {"peak": pytest.approx(20), "NumPy": pytest.approx(10)}
    assert profile.allowed("mnist1d-15k", 100, "infer", 45.0, 9.0) == {"peak": pytest.approx(20)}
    assert profile.allowed("3x750", 1, "sgd", 36.0, 9.0) == {"NumPy": pytest.approx(2)}
    assert profile.allowed("mnist1d-15k", 100, "error", 1.0, 1.0) == {}


def test_a_profile_tells_what_bounds_a_step_that_takes_too_long() -> None:
    def taking(step: float, **allowed: float) -> bounds.Profile:
        us = {"neurons": 60.0, "learning": step - 80.0, "products": 20.0}
        least = {"neurons": 50.0, "learning": 25.0, "products": 15.0}
        return bounds.Profile("mnist1d-15k", 100, "sgd", us, step, least, 70.0, allowed, 1e6)

    assert bounds.verdict(taking(150.0, peak=150.0), "peak") is None
    bound = bounds.verdict(taking(150.0, peak=86.0), "peak")
    assert bound is not None
    assert "150 us, allowed 86 (peak). At the least" in bound
    assert "instructions need 90 (neurons 50, learning 25, products 15), its weights 70:" in bound
    open_ = bounds.verdict(taking(150.0, NumPy=100.0), "NumPy")
    assert open_ is not None
    assert open_.endswith("rule it out; above that are learning 45, neurons 10, products 5.")
    both = bounds.verdicts([taking(150.0, peak=86.0, NumPy=150.0), taking(80.0, peak=86.0)])
    assert both.splitlines() == [bound]
    every = "Every step takes what is allowed, or less."
    assert bounds.verdicts([taking(150.0), taking(80.0, peak=86.0)]) == every
    table = bounds.table([taking(150.0, peak=86.0, NumPy=99.0)], ["neurons"])
    assert "| 150 / 90 | 60 / 50 | 70 | 86 (peak), 99 (NumPy) |" in table


def test_a_step_needs_what_its_instructions_or_its_weights_do() -> None:
    least = {"neurons": 3.0, "products": 4.0}
    for memory, needed in ((5.0, 7.0), (9.0, 9.0)):
        assert bounds.Profile("a", 1, "sgd", {}, 10.0, least, memory, {}, 1.0).needs == needed


def test_a_profile_tells_what_grows() -> None:
    def of(name: str, neurons: float, macs: float) -> bounds.Profile:
        us = {"neurons": neurons, "products": macs / 1e3}
        return bounds.Profile(name, 1, "sgd", us, sum(us.values()), us, 5.0, {}, macs)

    small, large = of("same-128", 100.0, 1e6), of("same-2048", 900.0, 1e6)
    said = bounds.grown(small, large)
    every = "Every step takes what is allowed, or less."
    assert bounds.verdicts([], [(small, large)]) == f"{every}\n{said}"
    assert "1.1 to 1.9 ns for each multiply-accumulate, 1.73 times, allowed 1.25" in said
    assert said.endswith("what grows most is neurons 0.8, products 0.")
    assert bounds.grown(large, small) == said
    assert " 1.18 times, allowed 1.25" in bounds.grown(small, of("same-2048", 300.0, 1e6))


def test_an_instruction_takes_what_a_core_has_for_it() -> None:
    for name, operands, of in (
        ("vpaddd", "%zmm1,%zmm2,%zmm3", ("add",)),
        ("vpaddd", "(%rax),%zmm2,%zmm3", ("add", "read")),
        ("vpaddd", "0x10(%rdx){1to16},%zmm3,%zmm3", ("add",)),
        ("vpdpwssd", "%zmm1,%zmm2,%zmm3", ("product",)),
        ("vpmulld", "%zmm1,%zmm2,%zmm3", ("product of 32",)),
        ("vpmulhrsw", "%zmm1,%zmm2,%zmm3", ("product",)),
        ("vpsrad", "$0x1,%zmm2,%zmm3", ("shift",)),
        ("vpsllvd", "%zmm1,%zmm2,%zmm3", ("shift",)),
        ("vpackssdw", "%zmm1,%zmm2,%zmm3", ("shuffle",)),
        ("vpmovsxwd", "(%rax),%zmm2", ("shuffle",)),
        ("vpabsd", "%zmm2,%zmm3", ("saturated",)),
        ("vpcmpgtd", "%zmm1,%zmm2,%k1", ("mask",)),
        ("vpunpckldq", "%zmm1,%zmm2,%zmm3", ("add",)),
        ("vpgatherdd", "(%rax,%zmm1,4),%zmm2{%k1}", ("gather",)),
        ("vmovdqu64", "(%rax),%zmm2", ("read",)),
        ("vmovdqa64", "%zmm2,0x40(%rax)", ("write",)),
        ("vmovdqa64", "%zmm2,%zmm3", ()),
        ("vpbroadcastd", "(%rax),%zmm2", ()),
        ("vextracti64x4", "$0x1,%zmm2,%ymm3", ("shuffle",)),
        ("vextracti64x4", "$0x1,%zmm2,0x20(%rax)", ()),
        ("vpmovdw", "%zmm2,(%rax){%k1}", ()),
        ("vinserti64x4", "$0x1,(%rax),%zmm2,%zmm3", ("shuffle",)),
        ("vpaddd", "%ymm1,%ymm2,%ymm3", ()),
        ("tdpbssd", "%tmm1,%tmm2,%tmm3", ("tile",)),
    ):
        assert executed.kinds(name, operands) == ("any", *of), name
    assert executed.kinds("jne", "55 <one>") == ()
    assert executed.kinds("jmp", "55 <one>") == executed.kinds("add", "%eax,%ebx") == ("any",)
    assert {kind for kind, _ in executed.KINDS} == set(units.VECTOR)


def test_what_is_executed_is_summed_by_function_and_kind() -> None:
    listing = """
0000000000000010 <one.constprop.0>:
      10:\tvpaddd (%rax),%zmm2,%zmm3
      16:\tvmovdqu64 %zmm3,(%rax)
      1c:\tret

0000000000000020 <two>:
      20:\tadd    %eax,%ebx
      22:\tret
"""
    counts = np.zeros(64, np.uint32)
    counts[[0x10, 0x16, 0x20]] = 8, 1, 3
    found = executed.by_function(counts, listing)
    assert found == {"one": {"any": 9, "add": 8, "read": 8, "write": 1}, "two": {"any": 3}}
    takes = units.Units({**dict.fromkeys((*units.LOOPS, "tile"), 1e-6), "any": 1e-7}, [], {})
    stages = profile.least({"product_2": found["one"], "memcpy": found["two"]}, takes)
    assert stages == {"products": pytest.approx(8.0), "rest": pytest.approx(0.3)}


def test_kinds_that_share_their_units_take_as_long_as_all_of_them() -> None:
    """Units as Zen 4 has them: products and masks have one, shifts another, shuffles half of
    each; and as a core where all have their own."""
    alone = {"product": 2.0, "mask": 2.0, "shift": 2.0, "shuffle": 2.0}
    in_turn = {("product", "mask"): 4.0, ("product", "shift"): 2.02, ("product", "shuffle"): 2.7,
               ("mask", "shift"): 2.0, ("mask", "shuffle"): 2.66,
               ("shift", "shuffle"): 2.66}  # fmt: skip
    groups, pairs = units.grouped(alone, in_turn)
    assert groups == [["product", "mask"], ["shift"], ["shuffle"]]
    assert pairs == {(0, 2): 1.33, (1, 2): 1.33}
    others = {**dict.fromkeys(("read", "tile", "gather"), 3.0), "any": 0.3}
    core = units.Units({"add": 1.0, "write": 4.0, **others, **alone}, groups, pairs)
    for counts, needed in (
        ({"product": 10}, 20),
        ({"product": 10, "mask": 5}, 30),
        ({"product": 10, "shift": 10}, 20),
        ({"product": 10, "shuffle": 10}, 26.6),
        ({"product": 10, "shift": 10, "add": 4}, 24),
        ({"read": 10, "write": 8}, 32),
        ({"read": 10, "write": 7, "gather": 4}, 30),
        ({"gather": 4, "tile": 5}, 15),
        ({"product": 10, "any": 70}, 21),
        ({}, 0),
    ):
        assert core.needs(counts) == pytest.approx(needed), counts
    free = units.grouped(alone, dict.fromkeys(in_turn, 2.0))
    assert free == ([["product"], ["mask"], ["shift"], ["shuffle"]], {})
    slower = units.grouped({"product": 1.0, "shift": 2.0}, {("product", "shift"): 2.5})
    assert slower == ([["product"], ["shift"]], {}), "one in turn says nothing of other mixes"


def test_units_are_measured() -> None:
    try:
        meter = units.Meter()
    except units.NoUnits as error:
        pytest.skip(str(error))
    meter.measure()
    core = meter.units()
    assert set(core.seconds) == {*units.LOOPS, "tile"}
    assert all(1e-11 < core.seconds[kind] < 1e-7 for kind in units.LOOPS)
    assert sorted(kind for group in core.groups for kind in group) == sorted(units.VECTOR)
    # Whatever else a core has, products bound what has nothing but products.
    assert core.needs({"product": 100}) == pytest.approx(100 * core.seconds["product"], rel=0.1)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("objdump") is None,
    reason="the trap flag of x86, and objdump",
)
def test_the_instructions_of_a_step_are_counted() -> None:
    before = getsignal(SIGTRAP)
    run = growth.body_of(growth.layers("few", 3, (6,)), 1, "sgd", "scalar")
    run(1)
    counts = executed.counted(lambda: run(3))
    entry = re.search(r"^0*([0-9a-f]+) <gle_step>:$", executed.listing(), flags=re.M)
    assert entry is not None
    assert counts[int(entry[1], 16)] == 3
    set_handler(SIGTRAP, trapped := Trapped())
    try:  # what handled traps before does again
        executed.counted(lambda: run(1))
        raise_signal(SIGTRAP)
    finally:
        set_handler(SIGTRAP, before)
    assert trapped.times == 1


class Trapped:
    """Counts signals."""

    times = 0

    def __call__(self, number: int, frame: object) -> None:
        self.times += 1


def trained(folder: Path, seed: int) -> Path:
    """What `hwgle train` leaves of two epochs, the second one validated."""
    folder.mkdir()
    summary = {"experiment": "waves", "seed": seed, "best_epoch": 2, "validation": 0.875,
               "test": 0.8125, "test_calibrated": 0.825, "seconds": 61.4,
               "health": {"reads": 3}}  # fmt: skip
    lines = [{"epoch": 1, "accuracy_learning": 0.5, "health": {"reads": 1}},
             {"epoch": 2, "accuracy_learning": 0.75, "validation": 0.875,
              "validation_calibrated": 0.88, "health": {"reads": 2}}]  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in lines))
    return folder


def test_trainings_are_told_drawn_and_kept_without_their_health(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(trained(tmp_path / f"out{seed}", seed)) for seed in (3, 5)]
    kept, picture = tmp_path / "kept", tmp_path / "curves.svg"
    learning.main([*folders, "--out", str(picture), "--keep", str(kept)])
    told = capsys.readouterr().out
    rows = [line.split() for line in told.splitlines()[1:]]
    assert rows == [["waves", seed, "2", "2", "87.5", "81.2", "82.5", "61"] for seed in "35"]
    drawn = picture.read_bytes()
    assert b"waves, seed 3" in drawn
    assert b"waves, seed 5" in drawn
    assert "health" not in (kept / "waves-3" / "summary.json").read_text()
    assert "health" not in (kept / "waves-5" / "metrics.jsonl").read_text()
    again = [str(kept / "waves-3"), str(kept / "waves-5")]
    learning.main([*again, "--out", str(picture)])
    assert capsys.readouterr().out == told
    assert picture.read_bytes() == drawn
    (kept / "waves-3" / "summary.json").unlink()
    with pytest.raises(SystemExit, match=r"found no summary\.json; needed"):
        learning.main(again)


def test_samples_that_are_right_by_votes_alone() -> None:
    """Two steps, two samples of class 0: each is right at one of them, both by their sums."""
    right, wrong = np.log([0.9, 0.1]), np.log([0.4, 0.6])
    out = np.array([[right, wrong], [wrong, right]])
    entropy = -(np.log(0.9) + np.log(0.4)) / 2
    said = by_steps_and_votes(out, np.array([0, 0]))
    assert "best single step: 50 % of" in said
    assert f"all steps {entropy:.2f}, chance {np.log(2):.2f}" in said
    assert said.endswith("by votes: 100 %")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("source", sorted((ROOT / "bench").glob("*.c")), ids=lambda p: p.name)
def test_sources_fit_the_core(source):
    """They are built when their bench runs, which takes longer than a test should: what they ask
    of the core must still be there."""
    if source.name == "neon.c" and platform.machine() != "aarch64":
        pytest.skip("is built for AArch64")
    command = ["gcc", "-std=gnu11", "-fsyntax-only", "-Werror", "-Icsrc", str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of x86-64 are timed")
def test_each_kernel_is_timed():
    """It is built from the core's sources, and so fails when they ask for other arguments."""
    command = [sys.executable, "-m", "bench", "kernels", "--rounds", "1", "130"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kernels in set(speed.available()) & {"amx", "vnni", "avx2"}:
        assert f"| 130 | {kernels} |" in done.stdout
