"""Speech: spoken words from a folder of `label/*.wav`, such as Google Speech Commands v2.

Which sounds there are: `speech_folder.py`; how they become inputs: `mel.py`. Features are kept
in the cache, some hundred sounds a file, so that an interrupted reading goes on where it was
and the next one takes seconds. Each band is shifted and scaled by its mean and standard
deviation over the sounds to learn from.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwgle import cache
from hwgle.errors import FileMistakes, Mistake
from hwgle.tasks import Split, Task
from hwgle.tasks.mel import Mel, read_wav
from hwgle.tasks.settings import Needs, Progress, Seed, TaskSettings
from hwgle.tasks.speech_folder import SPLITS, Folder, Sound, labels, look
from hwgle.yamlfile import Rule, number

SHARD = 500  # sounds of a file of the cache
STORE_FORMAT = 1  # changes with whatever changes the features of the same sounds

Share = Annotated[float, Field(gt=0, le=0.5)]


class Settings(TaskSettings):
    """folder: of the sounds, relative to the experiment. classes: 12 (ten words, silence,
    unknown), 35, or all labels. bands, window and hop (milliseconds), seconds, rate (samples
    per second): see `Mel`. seed: of all draws; validation, test: shares of the sounds where
    the folder has no lists."""

    name: Literal["speech"]
    folder: str = Field(min_length=1, description="the path of a folder of label/*.wav")
    classes: Literal[12, 35, "all"] = "all"
    bands: Annotated[int, Field(ge=2, le=256)] = 32
    rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    window: Annotated[float, Field(gt=0, le=1000)] = 25.0
    hop: Annotated[float, Field(gt=0, le=1000)] = 10.0
    validation: Share = 0.1
    test: Share = 0.1
    seed: Seed = 0

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """Frames fit into the sound, and every band hears something."""
        keys = ("rate", "bands", "window", "hop", "seconds")
        values = {key: number(data.get(key)) for key in keys}
        if any(value is None or value <= 0 for value in values.values()):
            return
        rate, bands, window, hop, seconds = (float(values[key] or 0) for key in keys)
        if max(rate, bands) > 200_000 or seconds > 60 or window > 1000:
            return  # told by the fields
        mel = Mel(int(rate), int(bands), window, hop, seconds)
        if mel.hop_length > mel.window_length:
            yield Rule(("hop",), f"{hop:g}", f"at most window = {window:g}")
        elif mel.frames < 1:
            yield Rule(("seconds",), f"{seconds:g}", f"at least window = {window:g} ms")
        if int(bands) >= 2 and not mel.filters.any(axis=1).all():
            allowed = "fewer, or a longer window: some bands lie between two frequencies of it"
            yield Rule(("bands",), f"{bands:g}", allowed)

    @property
    def mel(self) -> Mel:
        """How sounds become inputs."""
        return Mel(self.rate, self.bands, self.window, self.hop, self.seconds)

    def check(self, base: Path) -> Iterator[Rule]:
        """Whether the folder is there and has the labels; no sound is read."""
        folder = base / self.folder
        if not folder.is_dir():
            yield Rule(("folder",), f"no such folder: {folder}", "a folder of label/*.wav")
            return
        try:
            self._look(base)
        except FileMistakes as error:
            for m in error.mistakes:
                at = m.file if m.line is None else f"{m.file}:{m.line}"
                yield Rule(("folder",), f"{at}: {m.found}", m.allowed)

    def needs(self, base: Path) -> Needs:
        """See TaskSettings."""
        if self.classes == "all":
            return Needs("cross_entropy", self.bands, len(labels(base / self.folder)))
        return Needs("cross_entropy", self.bands, self.classes)

    def load(self, base: Path, progress: Progress | None = None) -> Task:
        """See TaskSettings."""
        return load(base / self.folder, self._look(base), self.mel, progress)

    def _look(self, base: Path) -> Folder:
        shares = {"validation": self.validation, "test": self.test}
        return look(base / self.folder, self.classes, self.seed, shares)


def load(path: Path, folder: Folder, mel: Mel, progress: Progress | None = None) -> Task:
    """Features of all sounds, from the cache as far as they are there.

    Raises:
        FileMistakes: sounds that cannot be read, all of them.
    """
    sounds = [sound for split in SPLITS for sound in folder.splits[split]]
    files = sorted({sound.file for sound in sounds if sound.piece is None})
    features, content = _features(path, files, mel, progress)
    at = {file: k for k, file in enumerate(files)}
    pieces = [sound for sound in sounds if sound.piece is not None]
    noise = _silence(path, pieces, mel)
    taken = iter(noise)
    arrays = {}
    for split in SPLITS:
        part = folder.splits[split]
        arrays[split] = np.stack(
            [next(taken) if s.piece is not None else features[at[s.file]] for s in part]
        )
    mean = arrays["train"].mean(axis=(0, 1), dtype=np.float64)
    spread = arrays["train"].std(axis=(0, 1), dtype=np.float64)
    spread[spread == 0] = 1.0
    made = {}
    for split, x in arrays.items():
        x -= mean.astype(np.float32)
        x /= spread.astype(np.float32)
        made[split] = Split(x, np.array([s.label for s in folder.splits[split]], dtype=np.int64))
    digest = hashlib.sha256(content.encode())
    digest.update(repr((folder.classes, [folder.splits[s] for s in SPLITS])).encode())
    return Task("speech", made["train"], made["validation"], made["test"], digest.hexdigest())


def _features(
    path: Path, files: Sequence[str], mel: Mel, progress: Progress | None
) -> tuple[NDArray[np.float32], str]:
    """(files, frames, bands), and a hash of what they were made from."""
    result = np.empty((len(files), mel.frames, mel.bands), dtype=np.float32)
    mistakes: list[Mistake] = []
    digest = hashlib.sha256()
    told = False
    for first in range(0, len(files), SHARD):
        some = files[first : first + SHARD]
        key = _key(path, some, mel)
        digest.update(key.encode())
        part = result[first : first + SHARD]
        store = _store(key)
        if store is not None and _read(store, part):
            continue
        broken = len(mistakes)
        for k, file in enumerate(some):
            try:
                sound, rate = read_wav(path / file)
                part[k] = mel.features(sound, rate)
            except ValueError as error:
                mistakes.append(Mistake(str(path / file), None, "", str(error), "a .wav of PCM"))
            if progress is not None:
                progress("reading sounds", first + k + 1, len(files))
        if store is None or len(mistakes) > broken:
            continue
        try:
            with cache.replacing(store) as temporary:
                np.savez(temporary, x=part)
        except OSError as error:
            if not told:
                warnings.warn(f"speech: not cached: {error}", stacklevel=3)
            told = True
    if mistakes:
        raise FileMistakes(mistakes)
    return result, digest.hexdigest()


def _key(path: Path, files: Sequence[str], mel: Mel) -> str:
    """Hash of all that features depend on: a file that changed has another size or time."""
    stats = [(path / file).stat() for file in files]
    facts = [
        STORE_FORMAT,
        [mel.rate, mel.bands, mel.window, mel.hop, mel.seconds],
        [[f, s.st_size, s.st_mtime_ns] for f, s in zip(files, stats, strict=True)],
        str(path.resolve()),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _store(key: str) -> Path | None:
    try:
        return cache.directory() / "tasks" / f"speech-{key[:32]}.npz"
    except OSError:
        return None


def _read(store: Path, into: NDArray[np.float32]) -> bool:
    """Take up what is stored; False if there is nothing or it is damaged."""
    try:
        with np.load(store, allow_pickle=False) as archive:  # its members carry a CRC
            found = archive["x"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return False
    if found.shape != into.shape or found.dtype != np.float32:
        return False
    into[:] = found
    return True


def _silence(path: Path, pieces: Sequence[Sound], mel: Mel) -> list[NDArray[np.float32]]:
    """Features of pieces of noise, in their order."""
    read: dict[str, tuple[NDArray[np.float64], int]] = {}
    mistakes = []
    for file in sorted({piece.file for piece in pieces}):
        try:
            read[file] = read_wav(path / file)
        except ValueError as error:
            mistakes.append(Mistake(str(path / file), None, "", str(error), "a .wav of PCM"))
    if mistakes:
        raise FileMistakes(mistakes)
    result = []
    for piece in pieces:
        assert piece.piece is not None
        sound, rate = read[piece.file]
        where, loudness = piece.piece
        length = min(len(sound), int(np.ceil(mel.seconds * rate)))
        first = int(where * (len(sound) - length + 1))
        result.append(mel.features(loudness * sound[first : first + length], rate))
    return result
