"""`hwgle record` and `replay`: what was recorded can be played, whatever happened to it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hwgle._core import ffi, lib

from hwgle.cli.main import cli
from hwgle.devices.messages import LAYOUTS, name_of, pack
from hwgle.recording import file as recording_file
from hwgle.recording.file import IN, OUT, Reader, Writer
from hwgle.recording.frames import Decoder, Frame
from hwgle.recording.replay import Played, comparable, replay, volatile
from hwgle.recording.sessions import Line
from hwgle.recording.words import first_byte, words

GOLDEN = sorted((Path(__file__).parents[1] / "devices/golden").glob("*.rec"))
HERE = Path(__file__).parents[2]
VERIFY = ["verify", "net.yaml", "--steps", "300", "--device"]
HOST = pytest.mark.board("cc")
PATIENCE = 300.0  # seconds for a command to get going, on a machine that is busy


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(args))
    return result.exit_code, result.output


def play(path: str | Path) -> list[Played]:
    return list(replay(Line().read(Reader(Path(path)).records()).sessions))


@pytest.fixture
def recorded(files: Path) -> Path:
    """A recording of 300 steps on the host board."""
    code, text = run("record", "v.rec", *VERIFY, "host:")
    assert code == 0, text
    return Path("v.rec")


@pytest.mark.parametrize("name", ["w.npz", "o.npz"])
def test_no_file_of_the_command_is_recorded_to(files: Path, name: str) -> None:
    before = Path("w.npz").read_bytes()
    words = ["run", "net.yaml", "--weights", "w.npz", "--input", "x.npy", "--out", "o.npz"]
    code, text = run("record", name, *words)
    assert code == 2, text
    assert name in text
    assert Path("w.npz").read_bytes() == before
    assert not Path("o.npz").exists()


def rewrite(source: Path, to: Path, change: object) -> None:
    """A copy with each good frame of the board's handed to `change(frame)`: the payload to
    take instead, or None for as it was."""
    reader = Reader(source)
    writer = Writer(to, reader.head)
    decoder = Decoder()
    for record in reader.records():
        if record.kind != IN:
            writer.append(record.kind, record.port, round(record.time * 1e9), record.data)
            continue
        for frame in decoder.take(record.data, record.time):
            payload = change(frame)  # type: ignore[operator]
            raw = encoded(frame, frame.payload if payload is None else payload)
            writer.append(IN, record.port, round(record.time * 1e9), raw)
    writer.close()


def encoded(frame: Frame, payload: bytes) -> bytes:
    """A frame as it is on the line."""
    sender, header = ffi.new("frame_sender *"), ffi.new("frame_header *")
    for name in ("type", "flags", "held", "session", "boot", "sequence", "ack"):
        setattr(header, name, getattr(frame, name))
    body, out = ffi.from_buffer("uint8_t[]", payload), ffi.new("uint8_t[]", 9000)
    lib.frame_send_start(sender, 1, header, ffi.NULL, 0, body, len(payload))
    n = lib.frame_send(sender, out, 9000)
    assert sender.stage == lib.FRAME_IDLE
    return bytes(ffi.buffer(out, n))


@HOST
def test_a_recording_plays_equal(recorded: Path) -> None:
    code, text = run("replay", str(recorded))
    assert code == 0, text
    assert "equal: " in text
    assert "300 steps" in text
    assert "closed by the host" in text
    reader = Reader(recorded)
    assert reader.head.command == (*VERIFY, "host:")
    assert reader.head.messages == lib.message_list_crc()
    list(reader.records())
    assert reader.cut is None
    assert reader.end == {"ended": "done"}


@HOST
def test_what_travels_both_ways_is_all_there(recorded: Path) -> None:
    (played,) = play(recorded)
    s = played.session
    assert played.fed == len(s.out.messages) == s.executed
    assert played.answers == len(s.inward.messages)
    assert played.skipped == 1  # INFO_IS
    names = {name_of(m) for m in s.out.messages}
    assert {"IMAGE_COMMIT", "WEIGHTS_COMMIT", "BLOCK", "STEPS", "SNAPSHOT_READ"} <= names


@HOST
def test_a_changed_answer_is_named(recorded: Path) -> None:
    def change(frame: Frame) -> bytes | None:
        if frame.type != lib.FRAME_DATA or name_of(frame.payload) != "BLOCK_DONE":
            return None
        return frame.payload[:-1] + bytes([frame.payload[-1] ^ 4])

    rewrite(recorded, Path("changed.rec"), change)
    code, text = run("replay", "changed.rec")
    assert code == 1
    assert "DIFFERENT in session 0" in text
    assert "to request" in text
    assert text.count("BLOCK_DONE steps 256, digest") == 2
    assert "byte 12 of" in text


@HOST
def test_volatile_answers_may_differ(recorded: Path) -> None:
    def change(frame: Frame) -> bytes | None:
        if frame.type != lib.FRAME_DATA or name_of(frame.payload) != "INFO_IS":
            return None
        return frame.payload[:-2] + b"zz"

    rewrite(recorded, Path("other.rec"), change)
    assert run("replay", "other.rec")[0] == 0


@HOST
def test_a_tampered_run_plays_equal(files: Path) -> None:
    """The device did what it was told, flips and snapshots included."""
    assert run("record", "t.rec", *VERIFY, "host:", "--tamper")[0] == 1
    code, text = run("replay", "t.rec")
    assert code == 0, text
    assert "NotEqual" in text  # how the command ended


@HOST
def test_a_bad_line_plays_equal(files: Path) -> None:
    url = "fault+host:?flip=2e-4&drop=1e-4&dup=1e-4&seed=3"
    code, text = run("record", "f.rec", *VERIFY, url)
    assert code == 0, text
    line = Line().read(Reader(Path("f.rec")).records())
    played = list(replay(line.sessions))
    assert all(p.unequal is None for p in played)
    assert sum(p.steps for p in played) == 300
    again = sum(p.session.out.repeated + p.session.inward.repeated for p in played)
    assert again + line.damaged > 0


@HOST
def test_every_prefix_can_be_read(recorded: Path) -> None:
    """Whatever killed the command: what is there of it plays equal."""
    raw = recorded.read_bytes()
    begin = raw.index(b"\n", len(recording_file.MAGIC)) + 1
    for k in [*range(begin, len(raw), max(1, (len(raw) - begin) // 40)), len(raw) - 1]:
        Path("cut.rec").write_bytes(raw[:k])
        reader = Reader(Path("cut.rec"))
        played = list(replay(Line().read(reader.records()).sessions))
        assert reader.cut is not None
        assert all(p.unequal is None for p in played)
    for k in (0, 5, begin - 1):
        Path("cut.rec").write_bytes(raw[:k])
        assert run("replay", "cut.rec")[0] == 4


@HOST
def test_damage_inside_ends_the_reading_there(recorded: Path) -> None:
    raw = bytearray(recorded.read_bytes())
    at = raw.index(b"\n", len(recording_file.MAGIC)) + 1
    raw[at + 2] = 7  # a part of a record that is always 0
    Path("bad.rec").write_bytes(raw)
    reader = Reader(Path("bad.rec"))
    assert list(reader.records()) == []
    assert "damaged" in str(reader.cut)


@HOST
def test_a_killed_command_leaves_a_prefix(files: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hwgle", "record", "k.rec", *VERIFY, "host:"]
    command[command.index("300")] = "1000000"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    try:
        while not (Path("k.rec").exists() and Path("k.rec").stat().st_size > 60_000):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    code, text = run("replay", "k.rec")
    assert code == 0, text
    assert "killed" in text


@HOST
def test_refusals_for_want_of_memory_play_equal(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six streams do not fit and go in groups; this machine's chips are larger."""
    monkeypatch.setattr("hwgle.devices.serial.check", lambda *_: [])  # the board has to refuse
    url = "host:?memory=4200&payload=64&window=2"
    args = ["run", "net.yaml", "--weights", "w.npz", "--input", "x.npy", "--out", "o.npz"]
    code, text = run("record", "m.rec", *args, "--device", url)
    assert code == 0, text
    (played,) = play("m.rec")
    assert played.unequal is None
    refused = [m for m in played.session.inward.messages if name_of(m) == "REFUSED"]
    assert refused
    assert played.steps == 6 * 40


@HOST
def test_damaged_recordings_never_crash(recorded: Path, seed: int) -> None:
    raw = recorded.read_bytes()
    rng = random.Random(seed)
    for _ in range(30):
        changed = bytearray(raw)
        for _ in range(rng.choice([1, 3, 30])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        Path("d.rec").write_bytes(changed)
        result = CliRunner().invoke(cli, ["replay", "d.rec"])
        assert result.exit_code in (0, 1, 3, 4)
        assert result.exception is None or isinstance(result.exception, SystemExit)


def test_nothing_to_record_is_said(files: Path) -> None:
    code, text = run("record", "e.rec", *VERIFY, "emu:")
    assert code == 0
    assert "no port was opened" in text
    code, text = run("replay", "e.rec")
    assert code == 0
    assert "no session" in text


def test_mistakes_are_told(files: Path) -> None:
    assert run("record", "x.rec", "replay", "y")[0] == 2
    assert run("record", "x.rec", "nothing")[0] == 2
    assert not Path("x.rec").exists()
    assert run("record", "no/x.rec", "verify", "net.yaml")[0] == 2
    assert run("replay", "none.rec")[0] == 4
    assert run("replay", "net.yaml")[0] == 4
    code, text = run("record", "x.rec", *VERIFY, "nowhere")
    assert code == 2
    assert "not known" in text


def test_messages_in_words() -> None:
    assert words(pack("SYNC", 7)) == "SYNC cookie 7"
    assert words(pack("SET_RATE", -3)) == "SET_RATE shift -3"
    assert "numbers: 1 -2 3" in words(pack("WEIGHTS_ADD", 0, 5, tail=b"\1\0\xfe\xff\3\0"))
    text = words(pack("REFUSED", 9, LAYOUTS["BLOCK"].id, lib.REASON_NO_MODEL, 0, 0))
    assert "message BLOCK" in text
    assert "reason no_model" in text
    assert "no message of the list" in words(b"\xff\0")
    assert first_byte(b"abc", b"abd") == 2
    assert first_byte(b"abc", b"ab") == 2
    assert first_byte(b"abc", b"abc") is None


def test_what_is_not_compared_is_said_in_one_place() -> None:
    assert volatile(pack("STATUS_IS", *[0] * 9))
    assert not volatile(pack("SYNCED", 1))
    no_memory = [pack("REFUSED", 1, 8, lib.REASON_NO_MEMORY, need, 5) for need in (10, 20)]
    assert comparable(no_memory[0]) == comparable(no_memory[1])
    other = [pack("REFUSED", 1, 8, lib.REASON_ORDER, need, 5) for need in (10, 20)]
    assert comparable(other[0]) != comparable(other[1])


def test_there_is_a_golden_run_of_each_board() -> None:
    assert {p.stem for p in GOLDEN} >= {"stm32f405", "hifive1", "stm32vldiscovery"}
    assert all(p.stat().st_size < 100_000 for p in GOLDEN)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda p: p.stem)
def test_golden_runs_play_equal_without_any_board(golden: Path) -> None:
    reader = Reader(golden)
    anew = f"record anew: python -m hwgle record {golden} {' '.join(reader.head.command)}"
    assert reader.head.messages == lib.message_list_crc(), anew
    line = Line().read(reader.records())
    assert reader.cut is None
    played = list(replay(line.sessions))
    assert all(p.unequal is None for p in played), anew
    assert sum(p.steps for p in played) >= 500
    assert all(p.fed == len(p.session.out.messages) for p in played)
    code, _ = run("replay", os.fspath(golden))
    assert code == 0


def test_out_of_range_kinds_are_refused(tmp_path: Path) -> None:
    assert len({OUT, IN, recording_file.PORT, recording_file.END}) == 4
    with pytest.raises(Exception, match="something else"):
        Reader(_written(tmp_path / "x", b"hwgle recording 2\n{}\n"))
    for head in (b"{}", b"[]", b"not json", b'{"command": 3}'):
        with pytest.raises(Exception, match="damaged"):
            Reader(_written(tmp_path / "x", recording_file.MAGIC + head + b"\n"))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("share", [0.0, 0.75])
def test_replay_was_content_with_what_the_board_never_said(files: Path, share: float) -> None:
    reader = Reader(GOLDEN[0])
    records = list(reader.records())
    said = sum(r.kind == IN for r in records)
    writer = Writer(Path("less.rec"), reader.head)
    heard = 0
    for r in records:
        heard += r.kind == IN
        if r.kind != IN or heard <= share * said:
            writer.append(r.kind, r.port, round(r.time * 1e9), r.data)
    writer.append_json(recording_file.END, 0, 10**9, {"ended": "done"})
    writer.close()
    code, text = run("replay", "less.rec")
    assert code == 1
    assert "compared" in text
