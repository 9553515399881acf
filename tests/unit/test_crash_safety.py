"""What is written is whole or absent, whatever ends the writer and whenever."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwgle import identity
from hwgle import weights as weights_file
from hwgle.arrays import load_npz_stored, save_npz_atomic
from hwgle.cache import write_text
from hwgle.chip import Chip
from hwgle.errors import FileMistakes, UsageError
from hwgle.learning import checkpoint
from hwgle.learning.checkpoint import Checkpoint, Position
from hwgle.learning.trainer import _alone
from hwgle.montecarlo import write_lines
from hwgle.recording.file import OUT, Head, Reader, Writer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of itself")
Write = Callable[[Path, int], None]
HEAD = Head(("run",), "1", "3", "linux", "now", 1, 1)


def a_checkpoint(path: Path, version: int) -> None:
    position = Position("key", epoch=version)
    arrays = {"m": np.full(500, version, np.float32), "empty": np.zeros((0, 3), np.int16)}
    best = {"h.weight": np.full((5, 5), version, np.float64)}
    lesson = {"votes": np.full((2, 3), version)}
    checkpoint.save(path, Checkpoint(position, bytes([version]) * 900, arrays, best, lesson))


def a_weights_file(path: Path, version: int) -> None:
    arrays = {"h.weight": np.full((20, 20), version, float), "h.bias": np.zeros(20)}
    weights_file.save(path, arrays)


def an_identity(path: Path, version: int) -> None:
    identity.save(Chip.load("mixed-signal").model_copy(update={"seed": version}), path)


def a_text(path: Path, version: int) -> None:
    write_text(path, f"{version}\n" * 2000)


def some_lines(path: Path, version: int) -> None:
    write_lines(path, {k: {"seed": k, "version": version} for k in range(100)})


WRITERS: list[Write] = [a_checkpoint, a_weights_file, an_identity, a_text, some_lines]


def in_a_fork(call: Callable[[], None]) -> int:
    """How the child ended: its exit code, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
            os._exit(0)
        except UsageError:
            os._exit(7)
        except BaseException:
            os._exit(8)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def limit_files(size: int, deadly: bool) -> None:
    """No file may become larger: writing beyond kills, or fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)


def kill_at(event: int) -> None:
    """SIGKILL at this call of open, rename, fsync, unlink or write, counted from now."""
    count = 0

    def hit() -> None:
        nonlocal count
        if count == event:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def hook(name: str, _: Any) -> None:
        if name in ("open", "os.rename", "os.remove"):
            hit()

    for name in ("fsync", "close"):
        original = getattr(os, name)

        def wrapped(*a: Any, original: Any = original) -> Any:
            hit()
            return original(*a)

        setattr(os, name, wrapped)
    sys.addaudithook(hook)


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
def test_killed_at_each_call_it_is_the_old_file_or_the_new(write: Write, tmp_path: Path) -> None:
    path, new = tmp_path / "file.x", tmp_path / "new.x"
    write(new, 2)
    seen = set()
    for event in range(40):
        for before in (None, 1):
            path.unlink(missing_ok=True)
            if before is not None:
                write(path, before)
            old = path.read_bytes() if before is not None else None

            def call(event: int = event) -> None:
                kill_at(event)
                write(path, 2)

            ended = in_a_fork(call)
            assert ended in (0, -signal.SIGKILL)
            found = path.read_bytes() if path.exists() else None
            assert found in (old, new.read_bytes()), event
            seen.add((ended == 0, found == new.read_bytes()))
            if ended == 0:
                assert found == new.read_bytes()
        if ended == 0:
            break
    # Killed before it has its name, killed after, and not killed any more.
    assert seen == {(False, False), (False, True), (True, True)}


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
@pytest.mark.parametrize("deadly", [True, False], ids=["killed", "disk full"])
def test_at_any_byte_the_old_file_stays(write: Write, deadly: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.x"
    write(path, 1)
    old = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):

        def call(size: int = int(share * len(old))) -> None:
            limit_files(size, deadly)
            write(path, 2)

        assert in_a_fork(call) == (-signal.SIGXFSZ if deadly else 7)
        assert path.read_bytes() == old
        if not deadly:
            assert os.listdir(tmp_path) == ["file.x"]


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
def test_where_nothing_can_be_written(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in place of a folder")
    with pytest.raises(UsageError, match=r"cannot write|cannot be written"):
        write(tmp_path / "file" / "x.npz", 1)
    assert (tmp_path / "file").read_text() == "in place of a folder"
    (tmp_path / "folder.x").mkdir()
    with pytest.raises(UsageError, match=r"cannot write|cannot be written"):
        write(tmp_path / "folder.x", 1)


def test_a_recording_that_was_killed_holds_its_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "r.hwr"

    def record(size: int) -> None:
        limit_files(size, deadly=True)
        writer = Writer(path, HEAD)
        for k in range(100):
            writer.append(OUT, 0, k, bytes([k]) * 40)

    for size in (300, 700, 2001, 4000):
        assert in_a_fork(lambda size=size: record(size)) == -signal.SIGXFSZ  # type: ignore[misc]
        reader = Reader(path)
        records = list(reader.records())
        assert [r.data for r in records] == [bytes([k]) * 40 for k in range(len(records))]
        assert reader.cut is not None
        assert len(records) >= (size - 250) // 56


def test_two_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    context = multiprocessing.get_context("fork")

    def write(version: int) -> None:
        for _ in range(30):
            a_checkpoint(path, version)

    a_checkpoint(path, 1)
    both = [context.Process(target=write, args=(version,)) for version in (1, 2)]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        found = checkpoint.load(path, "key")
        assert found is not None
        v = found.position.epoch
        assert found.snapshot == bytes([v]) * 900
        assert (found.lesson["votes"] == v).all()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert os.listdir(tmp_path) == ["both.npz"]


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        _alone(tmp_path),
        pytest.raises(UsageError, match=r"another training is writing to .*--out"),
        _alone(tmp_path),
    ):
        pass
    with _alone(tmp_path):
        pass


# --- archives that lie ---------------------------------------------------------------


def bomb(path: Path, how: str) -> None:
    """An archive that claims or unpacks to far more than it holds."""
    head = b"\x93NUMPY\x01\x00"
    text = json.dumps({"descr": "<f8", "fortran_order": False, "shape": [1 << 40]})
    text = text.replace("false", "False").replace("[", "(").replace("]", ",)").replace('"', "'")
    line = (text + " " * 20 + "\n").encode()
    member = head + len(line).to_bytes(2, "little") + line
    with zipfile.ZipFile(path, "w") as archive:
        if how == "deflated":
            archive.writestr("position.npy", bytes(40 << 20), zipfile.ZIP_DEFLATED)
        else:
            archive.writestr("position.npy", member)


@pytest.mark.parametrize("how", ["deflated", "claims"])
def test_a_checkpoint_that_is_a_bomb(how: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    bomb(path, how)
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        with pytest.raises(FileMistakes, match="no checkpoint"):
            checkpoint.load(path, "key")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 4), np.int8),
        "one": np.array(3), "turned": np.arange(6).reshape(2, 3).T,
    }  # fmt: skip
    save_npz_atomic(tmp_path / "x.npz", arrays)
    found = load_npz_stored(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
