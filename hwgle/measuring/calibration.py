"""What was measured of one chip, as a value and as a file (`hwgle/calibration/1`).

The file is an uncompressed .npz: `header` (JSON as bytes: format, identity, shape of the
network, facts) and arrays. It holds no date and no path: the same measurement gives the same
bytes. It belongs to one identity and one shape of network, and is refused for any other.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.arrays import describe_shape, from_bytes, open_regular, read_header, save_npz_atomic
from hwgle.chip import Chip, Profile
from hwgle.errors import FileMistakes, Mistake
from hwgle.identity import identity_hash
from hwgle.measured import shape_hash
from hwgle.measuring.bench import Floats
from hwgle.measuring.corrections import Corrected, correct
from hwgle.measuring.estimates import Estimate, LayerEstimates
from hwgle.measuring.observable import not_observable
from hwgle.measuring.twin import twin_of
from hwgle.network import Network
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
        """Raises FileMistakes where this was measured on another chip."""
        own = identity_hash(chip)
        if self.identity != own:
            found = f"a calibration of the chip {self.identity[:12] or '(none)'}..."
            allowed = f"one of {chip.name}:{chip.seed}, {own[:12]}..."
            raise FileMistakes([Mistake(file, None, "identity", found, allowed)])

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
            except FileMistakes:
                raise
            except Exception as error:  # a damaged archive can fail in every way
                found = f"damaged data ({error})" if str(error) else "damaged data"
                raise FileMistakes([Mistake(str(path), None, "", found, ALLOWED)]) from None


def _sizes(sizes: tuple[int, ...]) -> str:
    return f"{sizes[0]} inputs and {' + '.join(str(n) for n in sizes[1:])} neurons"


# --- the file ----------------------------------------------------------------------------------

ESTIMATES = tuple(
    f.name for f in fields(LayerEstimates) if f.name not in ("dead", "residual", "synapse", "stuck")
)
CURVE = ("membrane", "rate", "fit")


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

    def get(self, name: str, shape: tuple[int, ...] | None, kind: str) -> NDArray[Any]:
        """One array. shape None: bytes, at most HEADER_MAX. Raises ValueError or KeyError."""
        info = self._archive.getinfo(f"{name}.npy")
        with self._archive.open(info) as stream:
            header = read_header(stream)
            if shape is None and header.nbytes > HEADER_MAX:
                raise ValueError(f"{name}: {header.nbytes} bytes")
            if header.dtype.kind != kind or (shape is not None and header.shape != shape):
                found = f"{describe_shape(header.shape)} {header.dtype}"
                raise ValueError(f"{name}: {found}, not {describe_shape(shape or ())}")
            data = stream.read(header.nbytes + 1)
        if len(data) != header.nbytes:
            raise ValueError(f"{name}: {len(data)} bytes of {header.nbytes}")
        return from_bytes(header, data)

    def floats(self, name: str, shape: tuple[int, ...]) -> Floats:
        """An array as float64; a NaN only where a synapse is stuck."""
        return np.asarray(self.get(name, shape, "f"), dtype=np.float64)

    def estimate(self, name: str, shape: tuple[int, ...]) -> Estimate:
        """Values and errors."""
        value, error = self.floats(name, shape), self.floats(f"{name}.error", shape)
        if len(shape) == 1 and not (np.isfinite(value).all() and np.isfinite(error).all()):
            raise ValueError(f"{name}: numbers that are not finite")
        return Estimate(value, error)


def _read(members: _Members) -> Calibration:
    header: Mapping[str, Any] = json.loads(members.get("header", None, "u").tobytes())
    if header.get("format") != FORMAT:
        raise ValueError(f"format {header.get('format')!r}, not {FORMAT!r}")
    sizes = tuple(int(n) for n in header["sizes"])
    names = tuple(str(n) for n in header["names"])
    levels = int(header["levels"])
    layers, curves = [], []
    for k, name in enumerate(names):
        n, m = sizes[k + 1], sizes[k]
        found: dict[str, Any] = {key: members.estimate(f"{name}.{key}", (n,)) for key in ESTIMATES}
        found["dead"] = members.get(f"{name}.dead", (n,), "b")
        found["residual"] = members.floats(f"{name}.residual", (n,))
        if header["synapses"][k]:
            found["synapse"] = members.estimate(f"{name}.synapse", (n, m))
            found["stuck"] = members.get(f"{name}.stuck", (n, m), "i")
        layers.append(LayerEstimates(**found))
        shapes = ((levels, n), (levels, n), (n, 3))
        arrays = [
            members.floats(f"{name}.curve.{key}", shape)
            for key, shape in zip(CURVE, shapes, strict=True)
        ]
        told = header["curves"][k]
        curves.append(Curve(str(told["phi"]), float(told["lsb"]), *arrays))
    m = sizes[0]
    return Calibration(
        identity=str(header["identity"]),
        network=str(header["network"]),
        sizes=sizes,
        names=names,
        steps=int(header["steps"]),
        layers=tuple(layers),
        input_gain=members.estimate("inputs.input_gain", (m,)),
        input_offset=members.estimate("inputs.input_offset", (m,)),
        curves=tuple(curves),
        facts=dict(header["facts"]),
    )
