"""Samples for real time, as they come: from an array, a file of text, or standard input.

A thread reads and puts them into a queue, so that outputs never wait for the next sample.
It reads the descriptor itself: a thread inside `sys.stdin` would hold up Python's end.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwgle import arrays
from hwgle.errors import FileMistakes, Mistake
from hwgle.stream import Source

AHEAD = 4096  # samples read before they are wanted
CHUNK = 65536
LINE_MAX = 1 << 20
BETWEEN = re.compile(r"[,;\s]+")


def mistake(file: str, line: int | None, found: str, allowed: str) -> FileMistakes:
    """One mistake in samples."""
    return FileMistakes([Mistake(file, line, "", found, allowed)])


def parse(line: bytes, number: int, inputs: int, file: str) -> NDArray[np.float64] | None:
    """The numbers of a line; None for an empty one or a comment (#).

    Raises FileMistakes with the line's number.
    """
    allowed = f"{inputs} number{'s' if inputs > 1 else ''}, with commas or spaces between"
    text = line.decode("utf-8", "replace").strip()
    if not text or text.startswith("#"):
        return None
    words = [w for w in BETWEEN.split(text) if w]
    if len(words) != inputs:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise mistake(file, number, f"{len(words)} values ({shown!r})", allowed)
    try:
        sample = np.array([float(w) for w in words])
    except ValueError as error:
        raise mistake(file, number, str(error).split(": ", 1)[-1], allowed) from None
    if not np.isfinite(sample).all():
        raise mistake(file, number, "a number that is not finite", allowed)
    return sample


def text_samples(descriptor: int, inputs: int, file: str) -> Iterator[NDArray[np.float64]]:
    """Lines of numbers, one step each. Raises FileMistakes at the first bad one."""
    rest, number = b"", 0
    while data := os.read(descriptor, CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            number += 1
            if (sample := parse(line, number, inputs, file)) is not None:
                yield sample
        if len(rest) > LINE_MAX:
            raise mistake(file, number + 1, f"more than {LINE_MAX} bytes", "a line of numbers")
    if rest and (sample := parse(rest, number + 1, inputs, file)) is not None:
        yield sample


def raw_samples(descriptor: int, inputs: int, file: str) -> Iterator[NDArray[np.float64]]:
    """float32, little endian, `inputs` of them a step. Raises FileMistakes at a bad one."""
    rest, number, size = b"", 0, 4 * inputs
    while data := os.read(descriptor, CHUNK):
        rest += data
        whole = len(rest) // size
        rows = np.frombuffer(rest, dtype="<f4", count=whole * inputs).reshape(whole, inputs)
        rest = rest[whole * size :]
        for row in rows:
            number += 1
            if not np.isfinite(row).all():
                raise mistake(file, None, f"sample {number} not finite", "finite float32")
            yield row.astype(np.float64)
    if rest:
        found = f"{len(rest)} bytes behind sample {number}"
        raise mistake(file, None, found, f"whole samples of {size} bytes")


def array_samples(path: Path, inputs: int) -> NDArray[np.float64]:
    """A .npy of (T, inputs), (T, 1, inputs), or (T,) for one input, as (T, inputs).

    Raises FileMistakes for anything else.
    """
    allowed = f"a .npy of finite numbers (T, {inputs})" + (" or (T,)" if inputs == 1 else "")
    with arrays.open_regular(path) as stream:
        try:
            header = arrays.read_header(stream)
            values = np.asarray(arrays.from_bytes(header, stream.read()), dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise mistake(str(path), None, str(error), allowed) from None
    if values.ndim == 3 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1 and inputs == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != inputs:
        raise mistake(str(path), None, arrays.describe_shape(values.shape), allowed)
    if (wrong := arrays.not_finite(values)) is not None:
        raise mistake(str(path), None, wrong, allowed)
    return values


def start(samples: Iterator[NDArray[np.float64]]) -> Source:
    """A thread that reads them into a queue, with the end or what ended them behind."""
    source: Source = queue.Queue(AHEAD)

    def read() -> None:
        try:
            for sample in samples:
                source.put(sample)
        except BaseException as error:
            source.put(error)
        else:
            source.put(None)

    threading.Thread(target=read, name="hwgle samples", daemon=True).start()
    return source
