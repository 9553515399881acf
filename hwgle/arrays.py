"""Arrays that users hand in and get back: `.npy` and `.npz`, never pickled.

Sizes are checked against what the file really holds before anything is
allocated, and what is written appears under its name as a whole or not at all.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from hwgle.cache import replacing
from hwgle.errors import FileMistakes, Mistake, UsageError
from hwgle.network import Network

NO_TARGET = -1
HEADER_MAX = 10_000  # numpy's own limit for a header that it parses


class Header(NamedTuple):
    """What the head of a `.npy` says about the data behind it."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes]) -> Header:
    """Read the head of a `.npy` and leave `stream` where the data starts.

    Raises:
        ValueError: no `.npy`, an unknown version, or an object array, which
            would have to be unpickled; the text says which.
    """
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} of .npy")
        # The length comes first: read it here, as numpy would read what it claims.
        start = stream.tell()
        width = 2 if version == (1, 0) else 4
        length = int.from_bytes(stream.read(width), "little")
        if length > HEADER_MAX:
            raise ValueError(f"a header of {length} bytes")
        stream.seek(start)
        reader = npy.read_array_header_1_0 if width == 2 else npy.read_array_header_2_0
        shape, fortran, dtype = reader(stream, max_header_size=HEADER_MAX)
    except (SyntaxError, TokenError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"a damaged header ({type(error).__name__})") from None
    if dtype.hasobject:
        raise ValueError("an object array (pickled)")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"the shape {shape}")
    return Header(tuple(int(n) for n in shape), fortran, dtype)


def from_bytes(header: Header, data: bytes) -> NDArray[Any]:
    """The array that `header` describes from exactly `header.nbytes` bytes."""
    flat: NDArray[Any] = np.frombuffer(data, dtype=header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def describe_shape(shape: tuple[int, ...]) -> str:
    """`(3, 4)` as `3 x 4`; a single number says how many values there are."""
    if len(shape) <= 1:
        return f"{shape[0]} values" if shape else "a single value"
    return " x ".join(str(n) for n in shape)


def load_input(path: str | os.PathLike[str], network: Network) -> NDArray[np.float64]:
    """Read an input: `.npy` of (T, batch, inputs), float or integer, network units.

    Returns float64 (T, batch, inputs), C-contiguous.

    Raises:
        FileMistakes: missing or damaged, pickled, another dtype or shape, or
            values that are not finite.
    """
    allowed = f"(T, batch, {network.inputs}) float or integer, T and batch >= 1"

    def fits(header: Header) -> bool:
        shape = header.shape
        good = len(shape) == 3 and min(shape) >= 1 and shape[2] == network.inputs
        return good and header.dtype.kind in "fiu"

    return _finite(_load(path, fits, allowed), path)


def load_target(
    path: str | os.PathLike[str], network: Network, steps: int, batch: int
) -> NDArray[np.float64] | NDArray[np.int64]:
    """Read the target of an input of (steps, batch, inputs).

    Returns for mse float64 (steps, batch, outputs) in network units; for
    cross_entropy int64 (batch,), a class each, -1 where there is no target.

    Raises:
        FileMistakes: missing or damaged, pickled, another dtype or shape,
            values that are not finite, or classes that the network lacks.
    """
    if network.loss == "mse":
        want = (steps, batch, network.outputs)
        allowed = f"{want} float or integer, as the input and the network have it"
        values = _load(path, lambda h: h.shape == want and h.dtype.kind in "fiu", allowed)
        return _finite(values, path)
    allowed = f"({batch},) integers for cross_entropy, one class for each stream of the input"
    classes = _load(path, lambda h: h.shape == (batch,) and h.dtype.kind in "iu", allowed)
    bad = np.flatnonzero((classes < NO_TARGET) | (classes >= network.outputs))
    if bad.size:
        found = f"{classes[bad[0]]} at index {bad[0]}" + _and_more(bad.size)
        allowed = f"0 to {network.outputs - 1}, or {NO_TARGET} for no target"
        raise FileMistakes([Mistake(str(path), None, "", found, allowed)])
    return classes.astype(np.int64)


def _load(path: str | os.PathLike[str], fits: Any, allowed: str) -> NDArray[Any]:
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            header = read_header(stream)
        except ValueError as error:
            raise _mistake(path, str(error), "a .npy of numbers, not pickled") from None
        held = size - stream.tell()
        if held != header.nbytes:
            found = f"{held} bytes of data where the header claims {header.nbytes}"
            raise _mistake(path, found, "a complete .npy")
        if not fits(header):
            raise _mistake(path, f"{header.shape} {header.dtype}", allowed)
        return from_bytes(header, stream.read(header.nbytes))


def _finite(values: NDArray[Any], path: str | os.PathLike[str]) -> NDArray[np.float64]:
    result = np.ascontiguousarray(values, dtype=np.float64)
    found = not_finite(result)
    if found is not None:
        raise _mistake(path, found, "finite numbers")
    return result


def not_finite(values: NDArray[np.float64]) -> str | None:
    """The first value that is NaN or infinite and its index, None if there is none."""
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size:
        return None
    index = tuple(int(i) for i in np.unravel_index(bad[0], values.shape))
    return f"{values[index]} at index {list(index)}" + _and_more(bad.size)


def _and_more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def _mistake(path: str | os.PathLike[str], found: str, allowed: str) -> FileMistakes:
    return FileMistakes([Mistake(os.fspath(path), None, "", found, allowed)])


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading (a pipe would block, a folder has no bytes).

    Raises:
        FileMistakes: there is none, or it cannot be read.
    """
    if not os.path.exists(path):
        raise _mistake(path, "no such file", "an existing file")
    if not os.path.isfile(path):
        raise _mistake(path, "not a regular file", "a file")
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed below; only opening may fail here)
    except OSError as error:
        raise _mistake(path, f"cannot be read ({error.strerror})", "a readable file") from None
    with stream:
        yield stream


def save_npz_atomic(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Write an uncompressed `.npz`; dtypes stay as they are.

    Equal arrays give equal bytes (no time stamps).  The file appears under its
    name complete or not at all: a temporary file in the same folder is synced
    and then renamed.

    Raises:
        UsageError: the folder is missing or cannot be written, or `path` is
            something else than a file.
        ValueError: an object array, which would have to be pickled.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"cannot write {path}: it is there and is not a file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        with replacing(path) as temporary, open(temporary, "xb") as stream:
            _write_npz(stream, arrays)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def load_npz_stored(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """All arrays of an archive that `save_npz_atomic` wrote.

    It is not compressed, so nothing in it can be larger than the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, compressed, encrypted or pickled; the text says which.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ValueError(f"{member.filename}: compressed or encrypted")
                if member.file_size != member.compress_size:
                    raise ValueError(f"{member.filename}: it claims another size than it has")
                data = archive.read(member)
                stream = BytesIO(data)
                header = read_header(stream)
                if len(data) - stream.tell() != header.nbytes:
                    raise ValueError(f"{member.filename}: not the bytes that its head claims")
                name = member.filename.removesuffix(".npy")
                arrays[name] = from_bytes(header, data[stream.tell() :]).copy()
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    return arrays


def _write_npz(stream: BinaryIO, arrays: Mapping[str, ArrayLike]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key, values in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy")  # dated 1980, whatever the clock says
            with archive.open(member, "w", force_zip64=True) as out:
                npy.write_array(out, np.asarray(values), allow_pickle=False)
