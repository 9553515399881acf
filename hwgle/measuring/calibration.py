"""What was measured of one chip, as a value and as a file (`hwgle/calibration/1`).

The file is an uncompressed .npz: `header` (JSON as bytes: format, identity, shape of the
network, facts) and arrays. It holds no date and no path: the same measurement gives the same
bytes. It belongs to one identity and one shape of network, and is refused for any other.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.activation import ACTIVATIONS
from hwgle.arrays import describe_shape, from_bytes, open_regular, read_header, save_npz_atomic
from hwgle.chip import Chip, Profile
from hwgle.errors import FileMistakes, Mistake
from hwgle.identity import identity_hash
from hwgle.measured import FACTOR_MAX, OFFSET_MAX, shape_hash, sizes_hash
from hwgle.measuring import synapses
from hwgle.measuring.bench import Floats
from hwgle.measuring.corrections import Corrected, correct
from hwgle.measuring.estimates import Estimate, LayerEstimates
from hwgle.measuring.observable import not_observable
from hwgle.measuring.regression import MINUS, NORMAL, PLUS, ZERO
from hwgle.measuring.twin import twin_of
from hwgle.network import MAX_LAYERS, MAX_SIZE, Network
from hwgle.weights import Weights

FORMAT = "hwgle/calibration/1"
HEADER_MAX = 1 << 20
ALLOWED = "a calibration as `hwgle chip calibrate` wrote it"


@dataclass(frozen=True)
class Curve:
    """A layer's sweep for people to look at: phi, LSB of the ADC, at the end of each level the
    prospective membrane (levels, n), as the fitted time constants have it, and the rate as read
    (levels, n); gain, offset and read-out's offset of the fit (n, 3)."""

    phi: str
    lsb: float
    membrane: Floats
    rate: Floats
    fit: Floats


@dataclass(frozen=True)
class Calibration:
    """Everything measured of one chip with one shape of network.

    identity: of the chip, "" where it has none. network: `shape_hash`. sizes: inputs, then
    neurons of each layer. steps: that the measurement took. facts: what else a reader of
    the numbers should know, plain JSON.
    """

    identity: str
    network: str
    sizes: tuple[int, ...]
    names: tuple[str, ...]
    steps: int
    layers: tuple[LayerEstimates, ...]
    input_gain: Estimate
    input_offset: Estimate
    curves: tuple[Curve, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def check_identity(self, chip: Chip, file: str = "calibration") -> None:
        """Raises FileMistakes where this was measured on another chip, or not all of it was."""
        own = identity_hash(chip)
        allowed = f"one of {chip.name}:{chip.seed}, {own[:12]}..."
        if self.identity != own:
            found = f"a calibration of the chip {self.identity[:12] or '(none)'}..."
            raise FileMistakes([Mistake(file, None, "identity", found, allowed)])
        for k, (name, layer) in enumerate(zip(self.names, self.layers, strict=True)):
            if synapses.needed(chip.profile, k) != (layer.synapse is not None):
                found = "gains" if layer.synapse is not None else "no gains"
                raise FileMistakes([Mistake(file, None, f"{name}.synapse", found, allowed)])

    def check(self, chip: Chip, network: Network, file: str = "calibration") -> None:
        """Raises FileMistakes where this was measured on another chip or network."""
        mistakes: list[Mistake] = []
        try:
            self.check_identity(chip, file)
        except FileMistakes as error:
            mistakes += error.mistakes
        if self.network != shape_hash(network):
            found = "a calibration of a network of " + _sizes(self.sizes)
            allowed = f"one of {network.name}: " + _sizes((network.inputs, *network.sizes))
            mistakes.append(Mistake(file, None, "network", found, allowed))
        if mistakes:
            raise FileMistakes(mistakes)

    def correct(
        self,
        network: Network,
        weights: Weights,
        *,
        input_lsb: float = 0.0,
        per: str = "synapse",
    ) -> Corrected:
        """What to ask of the chip so that it does what network and weights say; see `correct`."""
        return correct(self, network, weights, input_lsb=input_lsb, per=per)

    def twin(self, profile: Profile) -> Chip:
        """The identity that makes the emulator behave like the chip; see `twin_of`."""
        return twin_of(self, profile)

    def not_observable(self, profile: Profile) -> list[str]:
        """What the measurement cannot tell, a sentence each."""
        return not_observable(self, profile)

    def hash(self) -> str:
        """SHA-256 (hex) of everything measured, by which weights say what corrected them."""
        digest = hashlib.sha256()
        for name, values in _arrays(self):
            digest.update(f"{name} {values.dtype.str} {describe_shape(values.shape)} ".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises UsageError where that cannot be done."""
        save_npz_atomic(path, dict(_arrays(self)))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file. Raises FileMistakes where it is not one, is damaged, or says otherwise
        than its own header."""
        with open_regular(path) as stream:
            try:
                with zipfile.ZipFile(stream) as archive:
                    return _read(_Members(archive))
            except _Wrong as wrong:
                mistake = Mistake(str(path), None, wrong.key, wrong.found, ALLOWED)
                raise FileMistakes([mistake]) from None
            except Exception as error:  # a damaged archive can fail in every way
                found = f"damaged data ({error})" if str(error) else "damaged data"
                raise FileMistakes([Mistake(str(path), None, "", found, ALLOWED)]) from None


def _sizes(sizes: tuple[int, ...]) -> str:
    return f"{sizes[0]} inputs and {' + '.join(str(n) for n in sizes[1:])} neurons"


# --- the file ----------------------------------------------------------------------------------

ESTIMATES = tuple(
    f.name for f in fields(LayerEstimates) if f.name not in ("dead", "residual", "synapse", "stuck")
)
INPUTS = ("input_gain", "input_offset")
CURVE = ("membrane", "rate", "fit")
KEYS = {"format", "identity", "network", "sizes", "names", "steps", "levels", "synapses", "curves",
        "facts"}  # fmt: skip
NAME, HASH = r"[A-Za-z][A-Za-z0-9_]{0,63}", r"[0-9a-f]{64}"
KINDS = (NORMAL, ZERO, PLUS, MINUS)
LEVELS_MAX = 1 << 16
DB_MAX = 999.0  # of a sweep: so many stand for no difference at all

# Wider than what any measurement comes to, so narrow that all that follows is finite.
MOST = 1e6
LEAST_GAIN, MOST_GAIN = 1e-3, 1e3  # of a neuron that is not dead
LIMITS = {
    "gain": (0.0, MOST_GAIN),
    "activation_gain": (0.0, MOST_GAIN),
    "readout_gain": (0.0, MOST_GAIN),
    "input_gain": (0.0, MOST_GAIN),
    "offset": (-OFFSET_MAX, OFFSET_MAX),
    "readout_offset": (-OFFSET_MAX, OFFSET_MAX),
    "input_offset": (-OFFSET_MAX, OFFSET_MAX),
    "tau_m": (1.0 / FACTOR_MAX, FACTOR_MAX),
    "tau_r": (1.0 / FACTOR_MAX, FACTOR_MAX),
}


def _arrays(c: Calibration) -> Iterator[tuple[str, NDArray[Any]]]:
    header = {
        "format": FORMAT,
        "identity": c.identity,
        "network": c.network,
        "sizes": list(c.sizes),
        "names": list(c.names),
        "steps": c.steps,
        "levels": len(c.curves[0].membrane),
        "synapses": [layer.synapse is not None for layer in c.layers],
        "curves": [{"phi": v.phi, "lsb": v.lsb} for v in c.curves],
        "facts": c.facts,
    }
    text = json.dumps(header, sort_keys=True, indent=1).encode()
    yield "header", np.frombuffer(text, dtype=np.uint8)
    for name, estimate in (("input_gain", c.input_gain), ("input_offset", c.input_offset)):
        yield f"inputs.{name}", estimate.value
        yield f"inputs.{name}.error", estimate.error
    for name, layer, curve in zip(c.names, c.layers, c.curves, strict=True):
        for key in ESTIMATES:
            yield f"{name}.{key}", getattr(layer, key).value
            yield f"{name}.{key}.error", getattr(layer, key).error
        yield f"{name}.dead", layer.dead
        yield f"{name}.residual", layer.residual
        if layer.synapse is not None and layer.stuck is not None:
            yield f"{name}.synapse", layer.synapse.value.astype(np.float32)
            yield f"{name}.synapse.error", layer.synapse.error.astype(np.float32)
            yield f"{name}.stuck", layer.stuck
        for key in CURVE:
            yield f"{name}.curve.{key}", getattr(curve, key).astype(np.float32)


class _Members:
    """Arrays of an archive, each checked against what it must be before it is unpacked."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = {member.filename for member in archive.infolist()}

    def get(self, name: str, shape: tuple[int, ...] | None, kind: str) -> NDArray[Any]:
        """One array. shape None: bytes, at most HEADER_MAX. Raises _Wrong, ValueError."""
        try:
            info = self._archive.getinfo(f"{name}.npy")
        except KeyError:
            raise _Wrong(name, "nothing, the key is missing") from None
        self._left.discard(info.filename)
        with self._archive.open(info) as stream:
            header = read_header(stream)
            if shape is None and (len(header.shape) != 1 or header.nbytes > HEADER_MAX):
                raise _Wrong(name, f"{header.nbytes} bytes")
            if header.dtype.kind != kind or (shape is not None and header.shape != shape):
                found = f"{describe_shape(header.shape)} {header.dtype}"
                raise _Wrong(name, f"{found}, not {describe_shape(shape or ())}")
            data = stream.read(header.nbytes + 1)
        if len(data) != header.nbytes:
            raise _Wrong(name, f"{len(data)} bytes of {header.nbytes}")
        return from_bytes(header, data)

    def floats(self, name: str, shape: tuple[int, ...], low: float, high: float) -> Floats:
        """An array as float64 of numbers from low to high."""
        return _within(name, np.asarray(self.get(name, shape, "f"), np.float64), low, high)

    def estimate(self, name: str, shape: tuple[int, ...], low: float, high: float) -> Estimate:
        """Values and errors."""
        return Estimate(
            self.floats(name, shape, low, high), self.floats(f"{name}.error", shape, 0.0, MOST)
        )

    def synapses(self, name: str, shape: tuple[int, int]) -> tuple[Estimate, NDArray[np.int8]]:
        """Factors of the synapses of a layer, NaN where one is stuck, and which are."""
        stuck = self.get(f"{name}.stuck", shape, "i")
        if not np.isin(stuck, KINDS).all():
            raise _Wrong(f"{name}.stuck", "numbers that are no kind of synapse")
        parts = []
        for key, low in ((f"{name}.synapse", -MOST), (f"{name}.synapse.error", 0.0)):
            values = np.asarray(self.get(key, shape, "f"), dtype=np.float64)
            living = np.where((stuck != NORMAL) & np.isnan(values), 0.0, values)
            _within(key, living, low, MOST)
            parts.append(values)
        return Estimate(*parts), stuck.astype(np.int8)

    def nothing_else(self) -> None:
        """Raises _Wrong for arrays that nobody asked for."""
        if self._left:
            raise _Wrong(min(self._left).removesuffix(".npy"), "an array that does not belong here")


class _Wrong(Exception):
    """What is wrong with one key."""

    def __init__(self, key: str, found: str) -> None:
        super().__init__(f"{key}: {found}")
        self.key, self.found = key, found


def _within(key: str, values: Floats, low: float, high: float) -> Floats:
    bad = np.flatnonzero(~((values >= low) & (values <= high)))
    if bad.size:
        at = [int(i) for i in np.unravel_index(bad[0], values.shape)]
        found = f"{values.flat[bad[0]]:g} at index {at}"
        raise _Wrong(key, f"{found}, not a number from {low:g} to {high:g}")
    return values


class _Header:
    """The header's entries, each checked."""

    def __init__(self, text: bytes) -> None:
        data = json.loads(text)
        self._data: dict[str, Any] = data if isinstance(data, dict) else {}
        told = self._data.get("format")
        if told != FORMAT:
            raise _Wrong("header", f"format {told!r:.80}, not {FORMAT!r}")
        if self._data.keys() != KEYS:
            odd = min(KEYS ^ self._data.keys())
            there = "does not belong here" if odd in self._data else "is missing"
            raise _Wrong("header", f"{odd!r:.80}, which {there}")
        self.sizes = tuple(self._list("sizes", lambda n: _whole(n, 1, MAX_SIZE)))
        layers = len(self.sizes) - 1
        if not 1 <= layers <= MAX_LAYERS:
            raise self._wrong("sizes")
        self.names = tuple(self._list("names", lambda v: bool(_text(v, NAME)), layers))
        if len(set(self.names)) != layers:
            raise self._wrong("names")
        self.synapses = self._list("synapses", lambda v: isinstance(v, bool), layers)
        self.curves = self._list("curves", _is_curve, layers)
        self.levels = self._one("levels", lambda n: _whole(n, 1, LEVELS_MAX))
        self.steps = self._one("steps", lambda n: _whole(n, 0, 1 << 53))
        self.identity = self._one("identity", lambda v: v == "" or _text(v, HASH))
        self.network = self._one("network", lambda v: v == sizes_hash(self.sizes))
        self.facts = self._one("facts", lambda v: isinstance(v, dict))
        pairs = self.facts.get("sweep_db")
        if not isinstance(pairs, list) or len(pairs) != layers or not all(map(_is_pair, pairs)):
            raise _Wrong("header", f"sweep_db: {pairs!r:.80}")

    def _wrong(self, key: str) -> _Wrong:
        return _Wrong("header", f"{key}: {self._data[key]!r:.80}")

    def _one(self, key: str, good: Callable[[Any], bool]) -> Any:
        if not good(self._data[key]):
            raise self._wrong(key)
        return self._data[key]

    def _list(self, key: str, good: Callable[[Any], bool], count: int | None = None) -> list[Any]:
        values = self._data[key]
        fits = isinstance(values, list) and count in (None, len(values))
        if not fits or not all(map(good, values)):
            raise self._wrong(key)
        return list(values)


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _text(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _is_pair(value: Any) -> bool:
    fits = isinstance(value, list) and len(value) == 2
    return fits and all(_number(db, -DB_MAX, DB_MAX) for db in value)


def _is_curve(value: Any) -> bool:
    fits = isinstance(value, dict) and value.keys() == {"phi", "lsb"}
    return fits and value["phi"] in tuple(ACTIVATIONS) and _number(value["lsb"], 1e-12, MOST)


def _read(members: _Members) -> Calibration:
    head = _Header(members.get("header", None, "u").tobytes())
    layers, curves = [], []
    for k, name in enumerate(head.names):
        n, m = head.sizes[k + 1], head.sizes[k]
        found: dict[str, Any] = {
            key: members.estimate(f"{name}.{key}", (n,), *LIMITS[key]) for key in ESTIMATES
        }
        found["dead"] = members.get(f"{name}.dead", (n,), "b")
        living = np.where(found["dead"], 1.0, found["gain"].value)
        _within(f"{name}.gain", living, LEAST_GAIN, MOST_GAIN)
        found["residual"] = members.floats(f"{name}.residual", (n,), 0.0, MOST)
        if head.synapses[k]:
            found["synapse"], found["stuck"] = members.synapses(name, (n, m))
        layers.append(LayerEstimates(**found))
        shapes = ((head.levels, n), (head.levels, n), (n, 3))
        arrays = [
            members.floats(f"{name}.curve.{key}", shape, -MOST, MOST)
            for key, shape in zip(CURVE, shapes, strict=True)
        ]
        told = head.curves[k]
        curves.append(Curve(told["phi"], float(told["lsb"]), *arrays))
    m = head.sizes[0]
    inputs = [members.estimate(f"inputs.{key}", (m,), *LIMITS[key]) for key in INPUTS]
    members.nothing_else()
    return Calibration(
        identity=head.identity,
        network=head.network,
        sizes=head.sizes,
        names=head.names,
        steps=head.steps,
        layers=tuple(layers),
        input_gain=inputs[0],
        input_offset=inputs[1],
        curves=tuple(curves),
        facts=head.facts,
    )
