"""The bench: its rival computes what the oracle computes, and its output comes out whole.

Nothing here looks at a time.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hwgle.reference import Adam, Reference, Sgd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # bench/ is no part of the installed package

from bench import speed  # noqa: E402
from bench.machine import describe  # noqa: E402
from bench.numpy_rival import Rival  # noqa: E402
from bench.peak import peaks  # noqa: E402
from bench.show import plot, table  # noqa: E402

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
def test_rival_equals_the_reference(loss, gamma, batch, work, seed):
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
    rival = Rival(network, weights, batch, learner.lr, adam=work == "adam")
    learns = work in ("sgd", "adam")
    for t in range(STEPS):
        oracle.step(x[t], None if work == "infer" else target[t])
        if learns:
            learner(oracle)
        rival.step(x[t].astype(np.float32), None if work == "infer" else for_rival[t], learns)
        for layer, part in zip(network.layers, rival.parts, strict=True):
            state = oracle.state[layer.name]
            for signal in ("u", "r", "v", "e"):
                what = f"{signal} of {layer.name} at step {t}"
                close(getattr(rival, signal)[:, part], getattr(state, signal), what)
    moved = 0.0
    for layer, w, part in zip(network.layers, rival.W, rival.parts, strict=True):
        close(w, oracle.weights[f"{layer.name}.weight"], "weight")
        close(rival.b[part], oracle.weights[f"{layer.name}.bias"], "bias")
        moved = max(moved, np.abs(w - weights[f"{layer.name}.weight"]).max())
    assert (moved > 1e-3) == learns


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
    assert [(r.work, r.who) for r in tiny] == [
        (work, who) for work in speed.WORK for who in ("numpy", "hwgle scalar")
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
    assert json.loads(json.dumps([asdict(r) for r in tiny]))[1]["who"] == "hwgle scalar"
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
