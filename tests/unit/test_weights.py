"""Weights and arrays in files: drawn, written, read, and refused when hostile."""

from __future__ import annotations

import io
import os
import pickle
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwgle import weights
from hwgle.arrays import load_input, load_target, save_npz_atomic
from hwgle.errors import FileMistakes, UsageError
from hwgle.network import Network


def network(loss: str = "cross_entropy", name: str = "small", hidden: str = "h1") -> Network:
    return Network.model_validate(
        {
            "format": "hwgle/network/1",
            "name": name,
            "dt": 0.2,
            "inputs": 2,
            "loss": loss,
            "layers": [
                {
                    "name": hidden,
                    "phi": "linear",
                    "init": "identity",
                    "populations": [{"size": 5, "tau_m": 0.6, "tau_r": 0.2}],
                },
                {
                    "name": "out",
                    "phi": "linear",
                    "populations": [{"size": 3, "tau_m": 0.6, "tau_r": 0.6}],
                },
            ],
        }
    )


NET = network()
GOOD = weights.initial(NET, 0)


def told(path: Path, net: Network = NET) -> dict[str, str]:
    with pytest.raises(FileMistakes) as caught:
        weights.load(path, net)
    assert all(m.file == str(path) for m in caught.value.mistakes)
    return {m.key: f"{m.found}; {m.allowed}" for m in caught.value.mistakes}


def npz(path: Path, changes: Mapping[str, Any], *, drop: str = "") -> Path:
    content: dict[str, Any] = {**GOOD, **changes}
    content.pop(drop, None)
    np.savez(path, **content)
    return path


# --- drawing ------------------------------------------------------------------


def test_initial_weights() -> None:
    drawn = weights.initial(NET, 3)
    assert {k: v.shape for k, v in drawn.items()} == weights.shapes(NET)
    assert list(drawn) == ["h1.weight", "h1.bias", "out.weight", "out.bias"]
    expected = [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]]
    np.testing.assert_array_equal(drawn["h1.weight"], expected)
    assert not drawn["h1.bias"].any()
    bound = 1 / np.sqrt(5)
    for key in ("out.weight", "out.bias"):
        assert drawn[key].dtype == np.float64
        assert 0 < np.abs(drawn[key]).max() <= bound
    again, other = weights.initial(NET, 3), weights.initial(NET, 4)
    assert all(np.array_equal(drawn[k], again[k]) for k in drawn)
    assert not np.array_equal(drawn["out.weight"], other["out.weight"])


def test_the_draws_of_a_seed_never_change() -> None:
    draws = np.random.Generator(np.random.PCG64(0))
    bound = 1 / np.sqrt(5)
    np.testing.assert_array_equal(GOOD["out.weight"], draws.uniform(-bound, bound, (3, 5)))
    np.testing.assert_array_equal(GOOD["out.bias"], draws.uniform(-bound, bound, 3))


# --- reading and writing ------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.npz", GOOD)
    back = weights.load(tmp_path / "w.npz", NET)
    assert list(back) == list(GOOD)
    for key, values in GOOD.items():
        assert back[key].dtype == np.float64
        np.testing.assert_array_equal(back[key], values)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", ">f8", "g"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_float_and_order_is_read(tmp_path: Path, dtype: str, compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    some: dict[str, Any] = {k: np.asfortranarray(v.astype(dtype)) for k, v in GOOD.items()}
    save(tmp_path / "w.npz", **some)
    back = weights.load(tmp_path / "w.npz", NET)
    for key, values in some.items():
        np.testing.assert_array_equal(back[key], values.astype(np.float64))


def test_what_a_run_records_is_passed_over(tmp_path: Path) -> None:
    extra = {"output": np.zeros((4, 1, 3)), "h1.r": np.ones(3), "digest": np.array("abc")}
    assert set(weights.load(npz(tmp_path / "w.npz", extra), NET)) == set(GOOD)


@pytest.mark.parametrize(
    ("key", "values", "text"),
    [
        ("out.weight", np.zeros((5, 3)), "5 x 3, float64; 3 x 5, float"),
        ("out.weight", np.zeros((3, 5, 1)), "3 x 5 x 1"),
        ("out.bias", np.zeros(4), "4 values, float64; 3 values, float"),
        ("out.bias", np.float64(1), "a single value"),
        ("out.bias", np.zeros(3, int), "int64; 3 values, float"),
        ("out.bias", np.zeros(3, complex), "complex128"),
        ("out.bias", np.zeros(3, bool), "bool"),
        ("out.bias", np.array(["a", "b", "c"]), "<U1"),
        ("out.bias", np.array([0, np.nan, np.inf]), "nan at index [1] and 1 more; finite"),
        ("out.weight", np.full((3, 5), -np.inf), "-inf at index [0, 0] and 14 more"),
        ("out.bias", np.array([1, None, 2], object), "an object array (pickled)"),
        ("h2.weight", np.zeros((2, 2)), "weights of another network; layers of 'small': h1, out"),
        ("out.bias", np.zeros(3000), "3000 values, float64; 3 values"),
    ],
)
def test_one_mistake(tmp_path: Path, key: str, values: Any, text: str) -> None:
    got = told(npz(tmp_path / "w.npz", {key: values}))
    assert list(got) == [key]
    assert text in got[key]


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    changes = {
        "h1.bias": np.full(5, np.nan),
        "out.weight": np.zeros(2),
        "h3.bias": np.zeros(2),
    }
    got = told(npz(tmp_path / "w.npz", changes, drop="h1.weight"))
    assert set(got) == {"h1.weight", "h1.bias", "out.weight", "h3.bias"}
    assert "missing; 5 x 2, float" in got["h1.weight"]


def test_weights_of_another_network(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.npz", GOOD)
    got = told(tmp_path / "w.npz", network(hidden="g1"))
    assert "another network" in got["h1.weight"]
    assert "missing" in got["g1.weight"]


class Bang:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("w.npz", **GOOD, **{"h1.r": np.array([Bang()], object)})  # type: ignore[arg-type]
    weights.load("w.npz", NET)
    got = told(npz(Path("w.npz"), {"out.bias": np.array([Bang()] * 3, object)}))
    assert "pickled" in got["out.bias"]
    Path("p.npz").write_bytes(pickle.dumps(Bang()))
    assert "no complete zip archive" in told(Path("p.npz"))[""]
    Path("p.npy").write_bytes(pickle.dumps(Bang()))
    with pytest.raises(FileMistakes):
        load_input("p.npy", NET)
    assert not Path("ran").exists()


def member(values: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, values in GOOD.items():
            archive.writestr(f"{key}.npy", members.get(key, member(values)))
    return path


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: Any) -> None:
    bomb = member(np.zeros(8_000_000))
    path = zipped(tmp_path / "w.npz", {"out.bias": bomb})
    assert path.stat().st_size < len(bomb) // 500
    unpacked: list[int] = []
    read = zipfile.ZipExtFile.read

    def counted(self: Any, n: int | None = -1) -> bytes:
        data = read(self, n)
        unpacked.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    assert "8000000 values" in told(path)["out.bias"]
    assert sum(unpacked) < 50_000


def test_a_bomb_behind_an_honest_head(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.npz", {"out.bias": member(np.zeros(3)) + bytes(10**7)})
    assert "bytes of data for 24" in told(path)["out.bias"]


def test_a_directory_that_claims_too_little(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.npz", {"out.bias": member(np.zeros(3)) + bytes(10**6)})
    size = len(member(np.zeros(3)))
    raw = path.read_bytes()
    lie = raw.replace((size + 10**6).to_bytes(4, "little"), size.to_bytes(4, "little"))
    assert lie != raw
    path.write_bytes(lie)
    assert "damaged data" in told(path)["out.bias"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "magic"),
        (b"\x93NUMPY\x01\x00", "header"),
        (b"\x93NUMPY\x07\x00" + bytes(20), "version 7.0"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(20), "a header of 2147483647 bytes"),
        (b"\x93NUMPY\x01\x00\x08\x00[[[[[[[\n", "header"),
        (member(np.zeros(3))[:-8], "16 bytes of data for 24"),
        (member(np.zeros(3)) + b"x", "25 bytes of data for 24"),
    ],
)
def test_a_damaged_member(tmp_path: Path, data: bytes, text: str) -> None:
    assert text in told(zipped(tmp_path / "w.npz", {"out.bias": data}))["out.bias"]


def test_other_compression_and_second_members(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.npz", {}, zipfile.ZIP_LZMA)
    assert set(told(path)) == set(GOOD)
    path = zipped(tmp_path / "w.npz", {})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("out.bias.npy", b"")
    assert "a second array" in told(path)["out.bias"]


def test_missing_folder_and_empty_file(tmp_path: Path) -> None:
    assert "no such file" in told(tmp_path / "none.npz")[""]
    assert "not a regular file" in told(tmp_path)[""]
    (tmp_path / "w.npz").write_bytes(b"")
    assert "no complete zip archive" in told(tmp_path / "w.npz")[""]
    (tmp_path / "w.npy").write_bytes(member(np.zeros(3)))
    assert "no complete zip archive" in told(tmp_path / "w.npy")[""]


def test_truncated_anywhere(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.npz", GOOD)
    raw = (tmp_path / "w.npz").read_bytes()
    for n in range(0, len(raw), 23):
        (tmp_path / "cut.npz").write_bytes(raw[:n])
        assert told(tmp_path / "cut.npz")


@settings(derandomize=True, deadline=None, max_examples=120)
@given(place=st.floats(0, 0.9999), value=st.integers(1, 255), compressed=st.booleans())
def test_any_flipped_byte_is_survived(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int, compressed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    zipped(path, {}, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= value
    path.write_bytes(raw)
    try:
        back = weights.load(path, NET)
    except FileMistakes:
        return
    assert all(np.array_equal(back[key], GOOD[key]) for key in GOOD)


# --- writing ------------------------------------------------------------------


def test_written_as_it_is_uncompressed_and_reproducible(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "output": np.ones((2, 1, 3), np.float32),
        "file": np.int64(7),
        "digest": "abc",
    }
    save_npz_atomic(tmp_path / "a.npz", content)
    save_npz_atomic(tmp_path / "b.npz", content)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as back:
        assert back["output"].dtype == np.float32
        assert back["file"] == 7
        assert str(back["digest"]) == "abc"
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED}
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.npz"]


def test_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    weights.save(path, GOOD)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Object arrays"):
        weights.save(path, {"a": np.zeros(9), "b": np.array([None])})

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            weights.save(path, {"a": np.zeros(9)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.npz"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        weights.save(tmp_path / "none" / "w.npz", GOOD)
    with pytest.raises(UsageError, match="is not a file"):
        weights.save(tmp_path, GOOD)
    with pytest.raises(UsageError, match="is not a file"):
        weights.save("/dev/null", GOOD)  # a rename would replace the device
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="there is no folder"):
        weights.save(tmp_path / "file" / "w.npz", GOOD)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.npz", GOOD)
    (tmp_path / "plain").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("w.npz", "plain")]
    assert modes[0] == modes[1]


# --- inputs and targets -------------------------------------------------------


def saved(tmp_path: Path, values: Any) -> Path:
    np.save(tmp_path / "x.npy", values)
    return tmp_path / "x.npy"


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i2", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_input(tmp_path: Path, dtype: str, order: Any) -> None:
    values = np.arange(12).reshape(3, 2, 2).astype(dtype, order=order)
    got = load_input(saved(tmp_path, values), NET)
    assert got.dtype == np.float64
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_array_equal(got, np.arange(12).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((3, 2)), "(3, 2) float64; allowed: (T, batch, 2) float or integer"),
        (np.zeros((3, 2, 1)), "(3, 2, 1)"),
        (np.zeros((0, 2, 2)), "T and batch >= 1"),
        (np.zeros((3, 2, 2), complex), "complex128"),
        (np.zeros((3, 2, 2), bool), "bool"),
        (np.full((3, 2, 2), np.nan), "nan at index [0, 0, 0] and 11 more"),
        (np.zeros((3, 2, 2), object), "pickled"),
    ],
)
def test_input_mistakes(tmp_path: Path, values: Any, text: str) -> None:
    with pytest.raises(FileMistakes) as caught:
        load_input(saved(tmp_path, values), NET)
    assert text in str(caught.value)


def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = saved(tmp_path, np.zeros((3, 2, 2)))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"(3, 2, 2), }      ", b"(300000000, 2, 2),}"[:18]))
    with pytest.raises(FileMistakes):
        load_input(path, NET)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 2, 2)}
    )
    path.write_bytes(head.getvalue() + bytes(96))
    with pytest.raises(
        FileMistakes, match="96 bytes of data where the header claims 32000000000000"
    ):
        load_input(path, NET)
    path.write_bytes(raw[:-1])
    with pytest.raises(FileMistakes, match="95 bytes of data"):
        load_input(path, NET)


def test_target_of_classes(tmp_path: Path) -> None:
    got = load_target(saved(tmp_path, np.array([0, 2, -1, 1], np.int8)), NET, 9, 4)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, [0, 2, -1, 1])
    for values, text in (
        (np.array([0, 1, 3, -2]), "3 at index 2 and 1 more; allowed: 0 to 2, or -1"),
        (np.array([0, 1, 2, 2**63], np.uint64), "9223372036854775808 at index 3"),
        (np.zeros(4), "(4,) float64; allowed: (4,) integers"),
        (np.zeros(3, int), "(3,) int64"),
        (np.zeros((9, 4, 3)), "integers for cross_entropy"),
    ):
        with pytest.raises(FileMistakes) as caught:
            load_target(saved(tmp_path, values), NET, 9, 4)
        assert text in str(caught.value)


def test_target_of_values(tmp_path: Path) -> None:
    net = network("mse")
    got = load_target(saved(tmp_path, np.ones((9, 4, 3), np.float32)), net, 9, 4)
    assert got.dtype == np.float64
    assert got.shape == (9, 4, 3)
    for values in (np.ones((9, 4, 2)), np.zeros(4, int), np.full((9, 4, 3), np.inf)):
        with pytest.raises(FileMistakes):
            load_target(saved(tmp_path, values), net, 9, 4)
