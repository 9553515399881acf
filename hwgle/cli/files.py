"""The files that a command line names: all of their mistakes in one message.

Readers that need to know of another file (weights of their network, a target of its
input) still look for what is wrong in themselves when that other file is broken.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from hwgle import arrays, weights
from hwgle.chip import Chip
from hwgle.errors import FileMistakes, Mistake, UsageError
from hwgle.identity import draw
from hwgle.measuring import Calibration
from hwgle.network import Layer, Network, Population
from hwgle.quantise import Scales, build_image

T = TypeVar("T")
SCALES_BYTES = 1 << 20  # of 64 layers 3 kB are needed
UNPACKED = 100  # times the packed size of an array, at most, to look at its values
FRACTIONS = 64  # no format of the core has more fraction bits, or fewer than minus these


class Files:
    """Reads files one after another and keeps their mistakes until `check`."""

    def __init__(self) -> None:
        self._mistakes: list[Mistake] = []

    def read(self, reader: Callable[[], T]) -> T | None:
        """What the reader returns, None if it found mistakes."""
        try:
            return reader()
        except FileMistakes as error:
            self._mistakes += error.mistakes
            return None

    def check(self) -> None:
        """Raises FileMistakes with all mistakes of all files read, if there are any."""
        if self._mistakes:
            raise FileMistakes(list(dict.fromkeys(self._mistakes)))

    def network(self, name: str) -> Network | None:
        """A network by name or path."""
        return self.read(lambda: Network.load(name))

    def chip(self, spec: str) -> Chip | None:
        """A chip by name or path, with or without a seed."""
        return self.read(lambda: Chip.load(spec))

    def weights(
        self, path: Path, network: Network | None, *, corrected: bool = True
    ) -> weights.Weights | None:
        """Weights; without a network only whether they can be read and are finite.

        corrected: whether they may have been corrected for a chip already.
        """
        if not corrected:
            self.read(lambda: _uncorrected(path))
        if network is None:
            self.read(lambda: _weights_alone(path))
            return None
        return self.read(lambda: weights.load(path, network))

    def input(self, path: Path, network: Network | None) -> NDArray[np.float64] | None:
        """An input; without a network with as many inputs as it has."""
        fits = network or self.read(lambda: _network_like(path))
        return None if fits is None else self.read(lambda: arrays.load_input(path, fits))

    def target(
        self, path: Path, network: Network | None, x: NDArray[np.float64] | None
    ) -> NDArray[Any] | None:
        """A target; without an input with as many steps and streams as it has."""
        fits = network or self.read(lambda: _network_like(path))
        shape = x.shape if x is not None else self.read(lambda: _steps_and_batch(path))
        if fits is None or shape is None:
            return None
        return self.read(lambda: arrays.load_target(path, fits, shape[0], shape[1]))

    def calibration(self, path: Path) -> Calibration | None:
        """A calibration, of whichever chip."""
        return self.read(lambda: Calibration.load(path))

    def scales(self, path: Path, network: Network | None, chip: Chip | None) -> Scales | None:
        """The scales in an OUT.npz, and whether such a chip can be built."""
        return self.read(lambda: load_scales(path, network, chip))


def _mistake(path: Path, key: str, found: str, allowed: str) -> FileMistakes:
    return FileMistakes([Mistake(str(path), None, key, found, allowed)])


def _shape(path: Path) -> tuple[int, ...]:
    with arrays.open_regular(path) as stream:
        try:
            return arrays.read_header(stream).shape
        except ValueError as error:
            allowed = "a .npy of numbers, not pickled"
            raise _mistake(path, "", str(error), allowed) from None


def _steps_and_batch(path: Path) -> tuple[int, ...]:
    shape = _shape(path)
    return shape[:2] if len(shape) == 3 else (1, shape[0] if shape else 1)


def _network_like(path: Path) -> Network:
    """A network that an input or a target of this shape fits."""
    shape = _shape(path)
    values = max(1, shape[2]) if len(shape) == 3 else 1
    population = Population.model_construct(size=values, tau_m=1.0, tau_r=1.0)
    if len(shape) == 1:  # classes: of how many nobody can tell
        population = population.model_copy(update={"size": 1 << 15})
    layer = Layer.model_construct(name="out", phi="linear", populations=(population,))
    loss = "cross_entropy" if len(shape) == 1 else "mse"
    return Network.model_construct(name="?", inputs=values, loss=loss, layers=(layer,))


def _weights_alone(path: Path) -> None:
    """What can be told of weights without their network."""
    mistakes = []
    with arrays.open_regular(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
            found = f"no complete zip archive ({error})"
            raise _mistake(path, "", found, "a .npz of weights") from None
        with archive:
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                if not key.endswith(weights.SUFFIXES) or member.file_size > weights.MEMBER_MAX:
                    continue
                wrong = _unusable(archive, member)
                if wrong is not None:
                    mistakes.append(Mistake(str(path), None, key, wrong, "finite numbers"))
    if mistakes:
        raise FileMistakes(mistakes)


def _uncorrected(path: Path) -> None:
    """Raises FileMistakes for weights that a calibration has corrected."""
    done = weights.corrected_by(path)
    if done is not None:
        found = f"weights already corrected by calibration {done}"
        allowed = "the weights that were corrected; or these without a calibration"
        raise _mistake(path, weights.CALIBRATION, found, allowed)


def _unusable(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str | None:
    try:
        with archive.open(member) as stream:
            header = arrays.read_header(stream)
            # Without a network nothing says how large it may be: no bombs are unpacked.
            if header.nbytes > max(UNPACKED * member.compress_size, 1 << 20):
                return None
            values = arrays.from_bytes(header, stream.read(header.nbytes))
        return arrays.not_finite(np.asarray(values, dtype=np.float64))
    except Exception as error:  # a damaged archive can fail in every way
        return f"damaged data ({error})"


def load_scales(path: Path, network: Network | None, chip: Chip | None) -> Scales:
    """Read `scales` from an OUT.npz.

    Raises:
        FileMistakes: no such array, or not one for this network and chip.
        UsageError: the chip is a twin for another network.
    """
    key = "scales"
    allowed = "integers (1 + layers) x 5 (or more), as `hwgle run` writes them"
    with arrays.open_regular(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                member = archive.getinfo(f"{key}.npy")
                if member.file_size > SCALES_BYTES:
                    raise ValueError(f"{member.file_size} bytes")
                with archive.open(member) as packed:
                    header = arrays.read_header(packed)
                    rows = arrays.from_bytes(header, packed.read())
        except KeyError:
            raise _mistake(path, key, "nothing, the key is missing", allowed) from None
        except Exception as error:  # a damaged archive can fail in every way
            raise _mistake(path, key, f"damaged data ({error})", allowed) from None
    if rows.dtype.kind not in "iu" or rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] < 5:
        found = f"{arrays.describe_shape(rows.shape)}, {rows.dtype}"
        raise _mistake(path, key, found, allowed)
    if np.any(np.abs(rows.astype(np.float64)) > FRACTIONS):
        raise _mistake(path, key, "numbers far from any format", f"{-FRACTIONS} to {FRACTIONS}")
    scales = Scales.from_array(rows)
    if network is None:
        return scales
    if len(scales.layers) != len(network.layers):
        found = f"scales of {len(scales.layers)} layers"
        raise _mistake(path, key, found, f"those of {network.name!r}: {len(network.layers)}")
    if chip is not None:
        draw(chip, network)  # whether the chip carries this network is no matter of scales
        try:
            build_image(network, chip, scales)
        except UsageError as error:
            on = f"{network.name!r} on chip {chip.name!r}"
            found = f"scales that cannot be built for {on} ({error})"
            raise _mistake(path, key, found, "scales of a run of the two") from None
    return scales


def unwritable(path: Path) -> str | None:
    """Why a file cannot be written there, None if it can. Leaves nothing behind.

    Nor may it be one that the command line names elsewhere: what is read there, or written
    there too, would be lost.
    """
    if (other := _named_too(path)) is not None:
        return f"--out {path}: that is the file of {other}, which would be lost"
    if path.is_dir():
        return f"--out {path}: it is a folder; name a file in it"
    if path.exists() and not path.is_file():
        return f"--out {path}: it is there and is not a file"
    if not path.parent.is_dir():
        return f"--out {path}: there is no folder {path.parent}"
    return _closed(path.parent, path)


def _named_too(path: Path) -> str | None:
    """The option or argument of the command under way that names the same file."""
    context = click.get_current_context(silent=True)
    if context is None:
        return None
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        for one in value if isinstance(value, tuple) else (value,):
            if one is not path and any(_same_file(path, name) for name in _files_in(one)):
                option = isinstance(parameter, click.Option)
                return parameter.opts[0] if option else parameter.make_metavar(context)
    return None


def _files_in(value: object) -> list[Path]:
    """What a value may name: a file, or one with a seed behind it."""
    if isinstance(value, Path):
        return [value]
    if not isinstance(value, str):
        return []
    return [Path(name) for name in dict.fromkeys((value, value.rpartition(":")[0])) if name]


def _same_file(path: Path, other: Path) -> bool:
    try:
        return path.is_file() and path.samefile(other)
    except (OSError, ValueError):  # no such file, or no name of one
        return False


def unwritable_folder(path: Path) -> str | None:
    """Why a folder cannot be made or written there, None if it can. Makes nothing."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"--out {path}: {there} is there and is not a folder"
    return _closed(there, path)


def _closed(folder: Path, path: Path) -> str | None:
    try:
        # Only trying tells: permissions do not know of read-only file systems or of root.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"--out {path}: cannot write to folder {folder}: {error.strerror or error}"
    return None if os.access(folder, os.W_OK) else f"--out {path}: cannot write to {folder}"
