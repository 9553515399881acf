"""Which sounds a folder of `label/*.wav` holds, of which class and split.

Laid out as Google Speech Commands (P. Warden, arXiv 1804.03209): `validation_list.txt` and
`testing_list.txt` name the files of those splits, `_background_noise_` holds long sounds.
Without lists the files of each label are dealt out at random. With 12 classes ten words are
told apart, all others are `_unknown_` and pieces of noise `_silence_`, each a tenth as many
as there are of the ten words, as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwgle.errors import FileMistakes, Mistake

SPLITS = ("train", "validation", "test")
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
NOISE, SILENCE, UNKNOWN = "_background_noise_", "_silence_", "_unknown_"
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
EXTRA_SHARE = 0.1  # of silence and of unknown words, of the number of words


@dataclass(frozen=True)
class Sound:
    """A file relative to the folder and its class. piece: of silence, where in the noise it
    lies and how loud it is, both in 0..1."""

    file: str
    label: int
    piece: tuple[float, float] | None = None


@dataclass(frozen=True)
class Folder:
    """classes: names in the order of the outputs. splits: sounds of each."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Sound, ...]]


def labels(folder: Path) -> list[str]:
    """Names of the folders with sounds, sorted."""
    found = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    return sorted(p.name for p in found if any(p.glob("*.wav")))


def look(folder: Path, classes: int | str, seed: int, shares: Mapping[str, float]) -> Folder:
    """All sounds of a folder; none of them is read.

    Args:
        classes: 12, 35 or "all".
        seed: of splits without lists, of silence and of the unknown words that are taken.
        shares: of validation and test, where there are no lists.

    Raises:
        FileMistakes: labels missing, too few files, lists that name what is not there; all
            of them at once.
    """
    words = labels(folder)
    mistakes = _wrong_labels(folder, words, classes)
    files = {word: sorted(p.name for p in (folder / word).glob("*.wav")) for word in words}
    lists = all((folder / name).is_file() for name in LISTS.values())
    rng = np.random.Generator(np.random.PCG64(seed))
    if lists:
        parts = _listed(folder, files, mistakes)
    else:
        one = [name for name in LISTS.values() if (folder / name).is_file()]
        if one:
            found = f"{one[0]} without the other list"
            allowed = " and ".join(LISTS.values()) + ", or neither"
            mistakes.append(Mistake(str(folder), None, "", found, allowed))
        parts = _dealt(folder, files, shares, rng, mistakes)
    if mistakes:
        raise FileMistakes(mistakes)
    if classes != 12:
        names = tuple(words)
        sounds = {
            split: [Sound(file, names.index(word)) for word, file in part]
            for split, part in parts.items()
        }
    else:
        names = (SILENCE, UNKNOWN, *WORDS)
        noise = sorted(f"{NOISE}/{p.name}" for p in (folder / NOISE).glob("*.wav"))
        sounds = {split: _twelve(part, noise, names, rng) for split, part in parts.items()}
    return Folder(names, {split: tuple(part) for split, part in sounds.items()})


def _wrong_labels(folder: Path, words: Sequence[str], classes: int | str) -> list[Mistake]:
    def mistake(found: str, allowed: str) -> Mistake:
        return Mistake(str(folder), None, "", found, allowed)

    if classes == 12:
        missing = [word for word in WORDS if word not in words]
        wrong = []
        if missing:
            allowed = "label/*.wav of " + ", ".join(WORDS)
            wrong.append(mistake(f"no sounds of {', '.join(missing)}", allowed))
        if not any(word not in WORDS for word in words):
            wrong.append(mistake("no other words", f"some, which are {UNKNOWN}"))
        if not any((folder / NOISE).glob("*.wav")):
            wrong.append(mistake(f"no {NOISE}/*.wav", f"some, for {SILENCE}"))
        return wrong
    if classes == 35 and len(words) != 35:
        return [mistake(f"{len(words)} labels with sounds", "35 (or classes: all)")]
    if len(words) < 2:
        return [mistake(f"{len(words)} labels with sounds", "2 or more folders label/*.wav")]
    return []


Parts = dict[str, list[tuple[str, str]]]  # split -> (word, file relative to the folder)


def _listed(folder: Path, files: Mapping[str, list[str]], mistakes: list[Mistake]) -> Parts:
    """Splits by the lists; what neither names is to learn from."""
    of = {f"{word}/{name}": word for word, names in files.items() for name in names}
    where: dict[str, str] = {}
    for split, name in LISTS.items():
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            file = line.strip()
            if not file:
                continue
            if file not in of:
                found, allowed = f"{file!r}, which is not there", "label/file.wav in the folder"
                mistakes.append(Mistake(str(folder / name), number, "", found, allowed))
            elif where.setdefault(file, split) != split:
                found, allowed = f"{file!r}, in both lists", "each file in one of them"
                mistakes.append(Mistake(str(folder / name), number, "", found, allowed))
    parts: Parts = {split: [] for split in SPLITS}
    for file, word in of.items():
        parts[where.get(file, "train")].append((word, file))
    for split, part in parts.items():
        if not part:
            found = f"no sounds left for {split}"
            mistakes.append(Mistake(str(folder), None, "", found, "some in each split"))
    return parts


def _dealt(
    folder: Path,
    files: Mapping[str, list[str]],
    shares: Mapping[str, float],
    rng: np.random.Generator,
    mistakes: list[Mistake],
) -> Parts:
    """The files of each label, at random: at least one in each split."""
    parts: Parts = {split: [] for split in SPLITS}
    for word, names in files.items():
        counts = {split: max(1, round(share * len(names))) for split, share in shares.items()}
        if sum(counts.values()) >= len(names):
            found = f"{len(names)} sounds"
            allowed = f"at least {sum(counts.values()) + 1}, or a smaller share to test with"
            mistakes.append(Mistake(str(folder / word), None, "", found, allowed))
            continue
        mixed = [names[k] for k in rng.permutation(len(names))]
        for split, count in counts.items():
            parts[split] += [(word, f"{word}/{name}") for name in sorted(mixed[:count])]
            mixed = mixed[count:]
        parts["train"] += [(word, f"{word}/{name}") for name in sorted(mixed)]
    return parts


def _twelve(
    part: Sequence[tuple[str, str]],
    noise: Sequence[str],
    names: Sequence[str],
    rng: np.random.Generator,
) -> list[Sound]:
    known = [Sound(file, names.index(word)) for word, file in part if word in WORDS]
    others = [file for word, file in part if word not in WORDS]
    extra = math.ceil(EXTRA_SHARE * len(known))
    some = sorted(rng.permutation(len(others))[:extra])
    unknown = [Sound(others[k], names.index(UNKNOWN)) for k in some]
    silence = []
    for _ in range(extra):
        file = noise[int(rng.integers(len(noise)))]
        piece = float(rng.random()), float(rng.random())
        silence.append(Sound(file, names.index(SILENCE), piece))
    return known + unknown + silence
