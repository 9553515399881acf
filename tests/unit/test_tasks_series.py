"""Tasks other than mnist1d: the same data every time, and what they should be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hwgle.errors import UsageError
from hwgle.network import Network
from hwgle.prediction import nrmse
from hwgle.reference import Reference
from hwgle.tasks import SERIES, TASKS, Series, SeriesTask, digits, lagline, lagnet, mackey_glass

SMALL = {
    "lagline": ((3, 4), {"streams": 3}),
    "lagnet": ((), {"train": 400, "test": 100}),
    "mackey-glass": ((3, 4), {"train": 150, "test": 100, "streams": 2}),
}


def splits(task):
    return task.train, task.validation, task.test


def small(name):
    positional, named = SMALL[name]
    return SERIES[name](*positional, **named)


def digest(series: Series) -> str:
    """SHA-256 of x and y in steps of 2^-20: libraries may differ in a last bit of exp or sin."""
    both = np.concatenate([series.x.ravel(), series.y.ravel()])
    return hashlib.sha256(np.rint(both * 2**20).astype("<i8").tobytes()).hexdigest()[:16]


def test_each_file_is_known_by_its_name():
    assert {"mnist1d", "digits"} <= set(TASKS)
    assert set(SMALL) <= set(SERIES)
    assert not set(TASKS) & set(SERIES)


@pytest.mark.parametrize("name", SMALL)
def test_series_are_the_same_every_time_and_as_known(name):
    first, second = small(name), small(name)
    for a, b in zip(splits(first), splits(second), strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)
    assert [digest(split) for split in splits(first)] == DIGESTS[name]


@pytest.mark.parametrize("name", SMALL)
def test_series_fit_their_network(name):
    task = small(name)
    network = Network.load(name)
    assert isinstance(task, SeriesTask)
    assert task.name == network.name == name
    assert network.loss == "mse"
    for split in splits(task):
        assert split.x.dtype == split.y.dtype == np.float64
        assert split.x.shape == (len(split), split.y.shape[1], network.inputs)
        assert split.y.shape[2] == network.outputs
        assert np.isfinite(split.x).all()
        assert np.isfinite(split.y).all()
    assert not np.array_equal(task.train.x[:, :50], task.validation.x[:, :50])
    assert not np.array_equal(task.validation.x[:, :50], task.test.x[:, :50])


@pytest.mark.parametrize("name", ["lagline", "mackey-glass"])
def test_validation_depends_on_its_own_seed_only(name):
    _, named = SMALL[name]
    a, b = SERIES[name](3, 4, **named), SERIES[name](3, 5, **named)
    np.testing.assert_array_equal(a.train.y, b.train.y)
    np.testing.assert_array_equal(a.test.y, b.test.y)
    assert not np.array_equal(a.validation.y, b.validation.y)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lagline", (1, 1)),
        ("lagline", (-1, 1)),
        ("lagline", (0, 1, 0)),
        ("lagnet", (0, 1)),
        ("lagnet", (1, 0)),
        ("mackey-glass", (2, 2)),
        ("mackey-glass", (2, -1)),
        ("mackey-glass", (0, 1, 0)),
        ("mackey-glass", (0, 1, 10, 10, 0)),
    ],
)
def test_senseless_arguments_are_refused(name, arguments):
    with pytest.raises(UsageError, match=name):
        SERIES[name](*arguments)


# --- lagline ------------------------------------------------------------------------------------


def test_lagline_is_a_smoothed_square_wave_shifted_within_half_a_period():
    wave = lagline.wave()
    np.testing.assert_allclose(wave[:200], -wave[200:], atol=1e-14)
    assert wave[100] == pytest.approx(1)
    assert wave[0] == pytest.approx(0.08, abs=0.01)  # half a step behind the edge
    assert (np.diff(wave[-25:]) > 0).all()
    x = small("lagline").train.x[:, :, 0]
    for row in x:
        shifts = [k for k in range(200) if np.array_equal(np.roll(wave, -k), row)]
        assert len(shifts) == 1


def test_lagline_goes_on_without_a_seam():
    task = small("lagline")
    assert task.loops
    network = Network.load("lagline").model_copy(update={"gamma": 0.0})
    reference = Reference(network, lagline.teacher(), 3)
    x = np.swapaxes(task.train.x, 0, 1)
    for _ in range(25):
        out = reference.run(x)["output"]
    np.testing.assert_allclose(np.swapaxes(out, 0, 1), task.train.y, rtol=1e-9)


def test_lagline_students():
    a, b = lagline.student(0), lagline.student(0)
    assert set(a) == set(lagline.teacher())
    assert all(np.array_equal(a[name], b[name]) for name in a)
    values = [lagline.student(seed) for seed in range(200)]
    for kind, low in (("weight", 0.0), ("tau_m", 0.1)):
        drawn = np.array([s[f"first.{kind}"] for s in values])
        assert drawn.min() >= low
        assert drawn.max() < 1
        assert len(np.unique(drawn)) > 100
    assert not any(s["second.bias"].any() for s in values)


# --- lagnet -------------------------------------------------------------------------------------


def test_lagnet_is_one_stream_cut_in_three():
    task = small("lagnet")
    whole = SERIES["lagnet"](train=600, test=1).train
    np.testing.assert_array_equal(np.concatenate([s.x for s in splits(task)], axis=1), whole.x)
    np.testing.assert_array_equal(np.concatenate([s.y for s in splits(task)], axis=1), whole.y)
    t = 0.01 * np.arange(600)
    expected = np.sin(0.49 * t) + np.sin(1.07 * t) + np.sin(1.98 * t)
    np.testing.assert_allclose(whole.x[0, :, 0], expected, atol=1e-12)


def test_lagnet_students_differ_in_the_first_layer_only():
    teacher = lagnet.teacher()
    for seed in range(5):
        student = lagnet.student(seed)
        assert (student["h1.weight"] < 0).all()
        differ = [name for name in teacher if not np.array_equal(teacher[name], student[name])]
        assert differ == ["h1.weight"]
        np.testing.assert_array_equal(student["h1.weight"], lagnet.student(seed)["h1.weight"])
    frozen = {layer.name for layer in Network.load("lagnet").layers if not layer.learn}
    assert frozen == {"h2", "out"}


# --- mackey-glass -------------------------------------------------------------------------------


def test_mackey_glass_targets_are_the_series_ahead():
    task = small("mackey-glass")
    for split in splits(task):
        steps = split.x.shape[1]
        np.testing.assert_array_equal(split.y[:, : steps - 6, 0], split.x[:, 6:, 0])
        np.testing.assert_array_equal(split.y[:, : steps - 84, 1], split.x[:, 84:, 0])
    assert task.train.x.mean() == pytest.approx(0, abs=1e-12)
    assert task.train.x.std() == pytest.approx(1)


def test_mackey_glass_solves_its_equation():
    """Over one delay of finely sampled values, against a solver with a tenth of the step."""
    history = np.array([1.2])
    coarse = mackey_glass.generate(history, 40)
    saved = mackey_glass.PER_SAMPLE
    mackey_glass.PER_SAMPLE = 10 * saved
    try:
        fine = mackey_glass.generate(history, 40)
    finally:
        mackey_glass.PER_SAMPLE = saved
    assert 0.2 < coarse.min() < coarse.max() < 1.5
    # chaos: 1000 samples of transient amplify what the coarse steps leave out
    np.testing.assert_allclose(coarse, fine, atol=5e-3)


def test_mackey_glass_keeps_its_fixed_point():
    # 0.2 / (1 + 1) = 0.1: x = 1 stays where it is
    np.testing.assert_allclose(mackey_glass.generate(np.array([1.0]), 3), 1, atol=1e-12)


def test_nrmse():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, 50, 2)) * (1.0, 4.0)
    np.testing.assert_allclose(nrmse(y, y), 0)
    mean = np.broadcast_to(y.mean(axis=(0, 1)), y.shape)
    np.testing.assert_allclose(nrmse(mean, y), 1)
    moved = nrmse(y + np.array([0.5, 0.0]), y)
    np.testing.assert_allclose(moved, [0.5 / y[..., 0].std(), 0])
    gaps = y.copy()
    gaps[0] = np.nan
    expected = nrmse(mean[1:], y[1:])
    np.testing.assert_allclose(nrmse(mean, gaps), expected)


# --- digits -------------------------------------------------------------------------------------


@pytest.fixture
def _sklearn():
    pytest.importorskip("sklearn.datasets")


@pytest.mark.usefixtures("_sklearn")
def test_digits_are_dealt_out_without_overlap_and_the_same_every_time():
    a, b = digits.load(0, 1), digits.load(0, 1)
    for s, t in zip(splits(a), splits(b), strict=True):
        np.testing.assert_array_equal(s.x, t.x)
        np.testing.assert_array_equal(s.y, t.y)
    assert [len(s) for s in splits(a)] == [1197, 300, 300]
    network = Network.load("digits")
    assert a.train.x.shape == (1197, 8, network.inputs)
    assert (a.train.x == a.train.x[:, :1]).all()
    assert a.train.x.min() == -1
    assert a.train.x.max() == 1
    assert set(a.train.y) == set(range(network.outputs))
    rows = np.concatenate([s.x[:, 0] for s in splits(a)])
    assert len(np.unique(rows, axis=0)) == 1797
    assert np.bincount(np.concatenate([s.y for s in splits(a)])).tolist() == CLASSES


@pytest.mark.usefixtures("_sklearn")
def test_digits_seeds():
    a, b, c = digits.load(0, 1), digits.load(0, 2), digits.load(1, 1)
    np.testing.assert_array_equal(a.test.x, b.test.x)
    assert not np.array_equal(a.validation.x, b.validation.x)
    assert not np.array_equal(a.test.x, c.test.x)


def test_digits_without_scikit_learn_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(digits, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install .hwgle\[digits\]"):
        digits.load(0, 1)


@pytest.mark.parametrize("arguments", [(0, 1, 1300, 300), (0, 1, 0), (0, 1, 9, 9, 0), (-1, 1)])
def test_senseless_digits_are_refused(arguments):
    with pytest.raises(UsageError, match="digits"):
        digits.load(*arguments)


CLASSES = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
DIGESTS = {
    "lagline": ["28817f89c6914ae6", "75fe4e568ae954b6", "695a0f34d0fb0389"],
    "lagnet": ["118d668486222bc5", "9dd373105cd64387", "73352760317712d3"],
    "mackey-glass": ["8390cbe4cfc5feaa", "300bde3c10f354c8", "4cb331c96dbdec55"],
}
