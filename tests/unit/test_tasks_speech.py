"""Speech: folders of sounds that the tests make themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from hwgle import cache
from hwgle.errors import FileMistakes
from hwgle.tasks import Task, mel, speech
from hwgle.tasks.mel import Mel, read_wav, to_mel
from hwgle.tasks.speech import Settings
from hwgle.tasks.speech_folder import WORDS

RATE = 8000
MEL = {"rate": RATE, "bands": 12, "window": 32.0, "hop": 16.0, "seconds": 0.25}


@pytest.fixture(autouse=True)
def cached(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HWGLE_CACHE", str(folder))
    return folder


def chirp(start: float, end: float, seed: int, rate: int = RATE, seconds: float = 0.2) -> Any:
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (start * t + (end - start) * t**2 / (2 * seconds))
    noise = np.random.default_rng(seed).normal(size=len(t))
    return (8000 * np.sin(phase) + 100 * noise).astype(np.int16)


def words(folder: Path, names: tuple[str, ...], each: int, rate: int = RATE) -> Path:
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            tone = 300 + 250 * k
            wavfile.write(folder / name / f"{i:02d}.wav", rate, chirp(tone, tone + 200, i, rate))
    return folder


def settings(**keys: Any) -> Settings:
    return Settings.model_validate({"name": "speech", "folder": "sounds", **MEL, **keys})


def test_bands_are_triangles_at_equal_distances_in_mel() -> None:
    m = Mel(16000, 32, 25.0, 10.0, 1.0)
    assert (m.frames, m.bins, m.filters.shape) == (98, 512, (32, 257))
    assert to_mel(1000) == pytest.approx(1000, abs=0.1)
    frequency = np.fft.rfftfreq(512, 1 / 16000)
    peaks = np.array([to_mel(frequency[row.argmax()]) for row in m.filters])
    ends = np.linspace(to_mel(20), to_mel(8000), 34)
    np.testing.assert_allclose(peaks, ends[1:-1], atol=25)  # half a bin at the low end
    edges = ends[[1, -2]]
    inner = np.array([edges[0] < to_mel(f) < edges[1] for f in frequency])
    np.testing.assert_allclose(m.filters.sum(axis=0)[inner], 1, atol=1e-9)


@pytest.mark.parametrize("rate", [16000, 22050, 8000])
def test_a_tone_is_loudest_in_its_own_band_at_any_rate(rate: int) -> None:
    m = Mel(16000, 32, 25.0, 10.0, 0.5)
    centres = np.linspace(to_mel(20), to_mel(8000), 34)[1:-1]
    for tone in (400.0, 2500.0):
        sound = 0.5 * np.sin(2 * np.pi * tone * np.arange(rate) / rate)
        features = m.features(sound, rate)
        assert features.shape == (m.frames, 32)
        assert set(features[2:-2].argmax(axis=1)) == {np.abs(centres - to_mel(tone)).argmin()}
    quiet = m.features(np.zeros(100), rate)
    np.testing.assert_allclose(quiet, np.log(mel.FLOOR), rtol=1e-6)


def test_wavs_of_all_kinds(tmp_path: Path) -> None:
    wave = np.sin(np.arange(800) / 9)
    kinds = {
        "int16": (wave * 32767).astype(np.int16),
        "int32": (wave * (2**31 - 1)).astype(np.int32),
        "uint8": np.rint(wave * 127 + 128).astype(np.uint8),
        "float32": wave.astype(np.float32),
        "stereo": np.stack([wave, wave], axis=1).astype(np.float32),
    }
    for name, data in kinds.items():
        wavfile.write(tmp_path / f"{name}.wav", 11025, data)
        sound, rate = read_wav(tmp_path / f"{name}.wav")
        assert rate == 11025
        np.testing.assert_allclose(sound, wave, atol=0.02 if name == "uint8" else 1e-4)


def test_a_folder_without_lists(tmp_path: Path) -> None:
    words(tmp_path / "sounds", ("ah", "bee", "sea"), 10, rate=11025)
    ex = settings(validation=0.2, test=0.2)
    assert list(ex.check(tmp_path)) == []
    needs = ex.needs(tmp_path)
    assert (needs.inputs, needs.outputs) == (12, 3)
    task = ex.load(tmp_path)
    assert [len(s) for s in (task.train, task.validation, task.test)] == [18, 6, 6]
    for split in (task.train, task.validation, task.test):
        assert split.x.shape[1:] == (14, 12)
        assert np.bincount(split.y).tolist() == [len(split) // 3] * 3
    assert np.abs(task.train.x.mean(axis=(0, 1))).max() < 1e-5
    np.testing.assert_allclose(task.train.x.std(axis=(0, 1)), 1, atol=1e-5)
    again = ex.load(tmp_path)
    np.testing.assert_array_equal(again.train.x, task.train.x)
    assert again.content == task.content
    other = settings(validation=0.2, test=0.2, seed=1).load(tmp_path)
    assert other.content != task.content
    # told apart by nothing more than the nearest mean of a class
    means = np.stack([task.train.x[task.train.y == c].mean(axis=0) for c in range(3)])
    far = np.square(task.test.x[:, None] - means).sum(axis=(2, 3))
    assert (far.argmin(axis=1) == task.test.y).all()


def twelve(folder: Path) -> Path:
    words(folder, (*WORDS, "cat", "dog"), 6)
    (folder / "_background_noise_").mkdir()
    noise = np.random.default_rng(0).normal(size=8000) * 1000
    wavfile.write(folder / "_background_noise_" / "white.wav", RATE, noise.astype(np.int16))
    names = (*WORDS, "cat", "dog")
    (folder / "validation_list.txt").write_text("".join(f"{w}/00.wav\n" for w in names))
    (folder / "testing_list.txt").write_text("".join(f"{w}/01.wav\n" for w in names))
    return folder


def test_twelve_classes_as_in_speech_commands(tmp_path: Path) -> None:
    twelve(tmp_path / "sounds")
    ex = settings(classes=12)
    assert list(ex.check(tmp_path)) == []
    assert ex.needs(tmp_path).outputs == 12
    task = ex.load(tmp_path)
    assert np.bincount(task.train.y, minlength=12).tolist() == [4, 4] + [4] * 10
    for split in (task.validation, task.test):
        assert np.bincount(split.y, minlength=12).tolist() == [1, 1] + [1] * 10
    told = [r.found for r in settings(classes=35).check(tmp_path)]
    assert told == [f"{tmp_path / 'sounds'}: 12 labels with sounds"]


def test_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    assert [r.path for r in settings().check(tmp_path)] == [("folder",)]
    folder = words(tmp_path / "sounds", ("yes", "no"), 3)
    told = " ".join(r.found for r in settings(classes=12).check(tmp_path))
    assert "no sounds of up, down, left, right, on, off, stop, go" in told
    assert "no other words" in told
    assert "no _background_noise_/*.wav" in told
    (folder / "validation_list.txt").write_text("yes/00.wav\n\nyes/09.wav\n")
    told = " ".join(r.found for r in settings().check(tmp_path))
    assert "validation_list.txt without the other list" in told
    (folder / "testing_list.txt").write_text("no/00.wav\nyes/00.wav\n")
    broken = [(r.found, r.allowed) for r in settings().check(tmp_path)]
    assert broken == [
        (f"{folder}/validation_list.txt:3: 'yes/09.wav', which is not there",
         "label/file.wav in the folder"),
        (f"{folder}/testing_list.txt:2: 'yes/00.wav', in both lists",
         "each file in one of them"),
    ]  # fmt: skip
    (folder / "ah").mkdir()
    wavfile.write(folder / "ah" / "0.wav", RATE, chirp(300, 400, 0))
    for name in ("validation", "testing"):
        (folder / f"{name}_list.txt").unlink()
    (rule,) = settings().check(tmp_path)
    assert rule.found == f"{folder / 'ah'}: 1 sounds"


def test_bad_wavs_are_told_all_at_once(tmp_path: Path) -> None:
    folder = words(tmp_path / "sounds", ("ah", "bee"), 6)
    (folder / "ah" / "02.wav").write_bytes(b"RIFF nothing")
    (folder / "ah" / "03.wav").write_bytes(b"")
    wavfile.write(folder / "bee" / "01.wav", RATE, np.zeros(0, np.int16))
    wavfile.write(folder / "bee" / "04.wav", RATE, np.full(9, np.nan, np.float32))
    with pytest.raises(FileMistakes) as caught:
        settings().load(tmp_path)
    found = {Path(m.file).relative_to(folder).as_posix() for m in caught.value.mistakes}
    assert found == {"ah/02.wav", "ah/03.wav", "bee/01.wav", "bee/04.wav"}
    (folder / "ah" / "02.wav").unlink()  # and what is mended is read again
    for name in ("ah/03.wav", "bee/01.wav", "bee/04.wav"):
        wavfile.write(folder / name, RATE, chirp(300, 400, 0))
    assert isinstance(settings().load(tmp_path), Task)


def test_reading_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: Path
) -> None:
    words(tmp_path / "sounds", ("ah", "bee"), 10)
    monkeypatch.setattr(speech, "SHARD", 5)
    whole = settings().load(tmp_path)
    for file in (cached / "tasks").iterdir():
        file.unlink()
    read: list[Path] = []
    original = speech.read_wav

    def reading(path: Path) -> Any:
        read.append(path)
        if len(read) == 13:
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(speech, "read_wav", reading)
    with pytest.raises(KeyboardInterrupt):
        settings().load(tmp_path)
    assert len(list((cached / "tasks").iterdir())) == 2  # nothing half-written
    steps: list[tuple[int, int]] = []
    task = settings().load(tmp_path, lambda what, done, total: steps.append((done, total)))
    assert len(read) == 13 + 10  # 20 sounds, of which 10 were kept
    assert steps[-1] == (20, 20)
    np.testing.assert_array_equal(task.train.x, whole.train.x)
    assert task.content == whole.content
    stored = sorted((cache.directory() / "tasks").iterdir())
    stored[0].write_bytes(stored[0].read_bytes()[:100])  # damaged: made again
    np.testing.assert_array_equal(settings().load(tmp_path).train.x, whole.train.x)
    wavfile.write(tmp_path / "sounds" / "ah" / "03.wav", RATE, chirp(900, 100, 9))
    assert settings().load(tmp_path).content != whole.content
    assert len(read) == 13 + 10 + 5 + 5


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hop": 40.0}, ("hop",)),
        ({"seconds": 0.01}, ("seconds",)),
        ({"bands": 200}, ("bands",)),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], path: tuple[str, ...]) -> None:
    data = {"name": "speech", "folder": "x", **MEL, **keys}
    assert [rule.path for rule in Settings.rules(Settings.filled(data))] == [path]
