"""MNIST-1D: the data are what they should be, on every machine, cached or not."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from hwgle.errors import UsageError
from hwgle.tasks import TASKS, Split, Task
from hwgle.tasks import mnist1d as module

load = TASKS["mnist1d"]
SMALL = {"train": 80, "test": 20}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("HWGLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds for which data were generated rather than read, in order."""
    seeds: list[int] = []
    generate = module._generate

    def counting(seed: int, count: int) -> Split:
        seeds.append(seed)
        return generate(seed, count)

    monkeypatch.setattr(module, "_generate", counting)
    return seeds


def splits(task: Task) -> tuple[Split, Split, Split]:
    return task.train, task.validation, task.test


def same(a: Task, b: Task) -> bool:
    pairs = zip(splits(a), splits(b), strict=True)
    return all(np.array_equal(s.x, t.x) and np.array_equal(s.y, t.y) for s, t in pairs)


def digest(split: Split) -> str:
    """SHA-256 of classes and inputs, the latter rounded to 11 fraction bits.

    Float64 sums may differ in their last bit between versions of the libraries.
    After this rounding the chance that one shows is about 1e-6 per data set.
    """
    rounded = np.rint(split.x.astype(np.float64) * 2**11).astype("<i2")
    return hashlib.sha256(split.y.astype("<i8").tobytes() + rounded.tobytes()).hexdigest()


def test_two_generations_agree_and_are_the_known_data(tmp_path, monkeypatch):
    first = load(0, 1, **SMALL)
    monkeypatch.setenv("HWGLE_CACHE", str(tmp_path / "other"))
    second = load(0, 1, **SMALL)
    assert same(first, second)
    assert [digest(split) for split in splits(first)] == DIGESTS


def test_the_whole_data_set():
    whole = module._generate(0, 5000)
    assert whole.x.shape == (5000, 360, 1)
    assert whole.x.dtype == np.float32
    assert whole.y.dtype == np.int64
    assert np.bincount(whole.y).tolist() == [500] * 10
    assert whole.x.mean(dtype=float) == pytest.approx(0, abs=1e-6)
    assert whole.x.std(dtype=float) == pytest.approx(1, abs=1e-6)
    # A fixed-point input with 2 integer bits besides the sign would clip this.
    assert 4 < np.abs(whole.x).max() < 8
    assert digest(whole) == WHOLE_DIGEST


def test_splits_have_the_sizes_asked_for_and_share_no_sample():
    task = load(3, 4, train=63, test=27)
    assert [split.x.shape for split in splits(task)] == [(63, 360, 1), (27, 360, 1), (27, 360, 1)]
    assert [len(split) for split in splits(task)] == [63, 27, 27]
    assert np.bincount(np.concatenate([task.train.y, task.test.y])).tolist() == [9] * 10
    rows = np.concatenate([split.x[:, :, 0] for split in splits(task)])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_validation_depends_on_its_own_seed_only():
    a, b, c = load(3, 4, **SMALL), load(3, 5, **SMALL), load(4, 3, **SMALL)
    assert np.array_equal(a.test.x, b.test.x)
    assert not np.array_equal(a.validation.x, b.validation.x)
    assert np.array_equal(a.validation.x, c.test.x)


def test_the_second_time_comes_from_the_cache(generated):
    first = load(0, 1, **SMALL)
    assert same(load(0, 1, **SMALL), first)
    assert generated == [0, 1]
    load(0, 2, **SMALL)
    assert generated == [0, 1, 2]


def test_global_random_states_are_left_alone():
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    load(0, 1, **SMALL)
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def wrong_shape(path: Path) -> None:
    np.savez(path, x=np.zeros((3, 360, 1), np.float32), y=np.zeros(3, np.int64))


def pickled(path: Path) -> None:
    np.savez(path, x=np.array([{}], dtype=object), y=np.zeros(100, np.int64))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, wrong_shape, pickled])
def test_a_damaged_cache_is_made_again(cache, generated, damage):
    first = load(0, 1, **SMALL)
    (path,) = (cache / "tasks").glob("*-seed0.npz")
    sound = path.read_bytes()
    damage(path)
    assert same(load(0, 1, **SMALL), first)
    assert generated == [0, 1, 0]
    assert path.stat().st_size == len(sound)
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        p.name for p in path.parent.glob("mnist1d-*.npz")
    ), "a temporary file was left"


def test_without_a_cache_directory_it_works_and_warns(cache, generated):
    # A file in the place of the directory stops even root, unlike its mode.
    cache.write_text("not a directory")
    with pytest.warns(UserWarning, match="mnist1d: not cached"):
        first = load(0, 1, **SMALL)
    with pytest.warns(UserWarning, match="mnist1d: not cached"):
        assert same(load(0, 1, **SMALL), first)
    assert generated == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": 0, "validation_seed": 0},
        {"seed": -1, "validation_seed": 0},
        {"seed": 0, "validation_seed": 2**32},
        {"seed": 0, "validation_seed": 1, "train": 0},
        {"seed": 0, "validation_seed": 1, "train": 81, "test": 20},
    ],
)
def test_senseless_arguments_are_refused(arguments, generated):
    with pytest.raises(UsageError, match="mnist1d"):
        load(**arguments)
    assert not generated


# Seed 0 and validation seed 1, 80 + 20 samples: train, validation, test.
DIGESTS = [
    "7d1aa2cb8cdb3858006f234dfba95e33928f650bf704d1839622c660c335f256",
    "47a5501a93490581e52cd57ff96f181e3c3cfa35d79cbe21ee47bdcdab7fa424",
    "ac9cb4eab703fff0d98a587295237c882e2008d0bfe8f6ef6f1016a302fe1a0f",
]
# Seed 0, 5000 samples.
WHOLE_DIGEST = "537640d41b945202b7ab87daea87132e34aac8b4828ea03232ffc8f9a73e0137"
