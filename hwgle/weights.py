"""Weights of a network: drawn from a seed, read from and written to `.npz`.

Everywhere a dict with `<layer>.weight` (n, m) and `<layer>.bias` (n,), float64,
in the network's own units, layers in the network's order. Layers that learn their tau_m
may have `<layer>.tau_m` (n,) too, in the network's unit of time; a network with feedback of
its own (hwgle/topology.py) has `<layer>.feedback`, which a file may leave out.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle import topology
from hwgle.arrays import (
    HEADER_MAX,
    Header,
    describe_shape,
    from_bytes,
    not_finite,
    open_regular,
    read_header,
    save_npz_atomic,
)
from hwgle.errors import FileMistakes, Mistake
from hwgle.network import MAX_TAU_RATIO, MAX_TAU_STEPS, SLACK, Network, Population

Weights = dict[str, NDArray[np.float64]]

# The largest layer allowed, 4096 x 4096 in float64, is 128 MiB; nothing needs this.
MEMBER_MAX = 1 << 30
ITEM_MAX = 16  # bytes of the widest float that numpy writes
SUFFIXES = (".weight", ".bias", ".tau_m", ".feedback")
CALIBRATION = "calibration"  # key of the hash of what corrected them, if anything did
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy itself writes


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shape of every weight (n, m), bias (n,) and feedback by key, in the network's order."""
    result: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(network.layers):
        result[f"{layer.name}.weight"] = (layer.size, network.fan_in(index))
        result[f"{layer.name}.bias"] = (layer.size,)
        back = topology.feedback_shape(network, index)
        if back is not None:
            result[f"{layer.name}.feedback"] = back
    return result


def learned_times(network: Network) -> dict[str, tuple[int, ...]]:
    """Shape (n,) of every tau_m that is learned, by key: a file may have them or not."""
    return {f"{layer.name}.tau_m": (layer.size,) for layer in network.layers if layer.learn_tau_m}


def with_times(network: Network, weights: Mapping[str, ArrayLike]) -> Network:
    """The network with the time constants that the weights bring, if they bring any."""
    layers = []
    for layer in network.layers:
        tau_m = weights.get(f"{layer.name}.tau_m") if layer.learn_tau_m else None
        if tau_m is not None:
            own = [
                Population(size=1, tau_m=float(m), tau_r=float(r))
                for m, r in zip(np.asarray(tau_m), layer.tau_r, strict=True)
            ]
            layer = layer.model_copy(update={"populations": tuple(own)})
        layers.append(layer)
    return network.model_copy(update={"layers": tuple(layers)})


def masked_away(network: Network, weights: Weights) -> None:
    """Set to 0 in the mapping what the network's masks leave out."""
    for index, layer in enumerate(network.layers):
        if topology.masked(network, index):
            there = topology.mask(network, index)
            kinds = ("weight",) if topology.is_direct(network) else ("weight", "feedback")
            for name in (f"{layer.name}.{kind}" for kind in kinds):
                if name in weights:
                    weights[name] = weights[name] * there


def initial(network: Network, seed: int, gain: float = 1.0) -> Weights:
    """Weights before learning.

    `uniform`: weight and bias from U(-1/sqrt(m), 1/sqrt(m)), drawn from PCG64 of
    `seed` in the order of the layers, weight before bias.  `identity`:
    W[i, i mod m] = 1, everything else 0, nothing drawn.  `gain`: factor on the drawn
    weights of all layers but the last. What a mask leaves out is 0; feedback is drawn from
    the network's own seed.
    """
    draws = np.random.Generator(np.random.PCG64(seed))
    result: Weights = {}
    for index, layer in enumerate(network.layers):
        n, m = layer.size, network.fan_in(index)
        if layer.init == "identity":
            weight, bias = np.zeros((n, m)), np.zeros(n)
            weight[np.arange(n), np.arange(n) % m] = 1.0
        else:
            bound = 1.0 / math.sqrt(m)
            weight, bias = draws.uniform(-bound, bound, (n, m)), draws.uniform(-bound, bound, n)
            if index + 1 < len(network.layers):
                weight *= gain
        if not layer.bias:
            bias = np.zeros(n)
        result[f"{layer.name}.weight"], result[f"{layer.name}.bias"] = weight, bias
    result |= topology.drawn_feedback(network)
    masked_away(network, result)
    return result


def content_hash(weights: Mapping[str, NDArray[np.float64]]) -> str:
    """SHA-256 (hex) of all values, whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.asarray(weights[name], dtype="<f8")
        digest.update(f"{name} {describe_shape(values.shape)} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def save(
    path: str | os.PathLike[str], weights: Mapping[str, ArrayLike], calibration: str | None = None
) -> None:
    """Write weights as uncompressed `.npz`, complete or not at all.

    calibration: hash of what corrected them, see `corrected_by`.

    Raises:
        UsageError: the folder is missing or cannot be written.
    """
    told = {} if calibration is None else {CALIBRATION: np.array(calibration)}
    save_npz_atomic(path, {**weights, **told})


def corrected_by(path: str | os.PathLike[str]) -> str | None:
    """The hash of the calibration that has corrected the weights in a `.npz`, None if none
    has; of a file that is damaged in any other way `load` tells.

    Raises:
        FileMistakes: there is no such file, or the hash is damaged.
    """
    with open_regular(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
            member = archive.getinfo(f"{CALIBRATION}.npy")
        except Exception:  # a damaged archive can fail in every way
            return None
        with archive:
            try:
                with archive.open(member) as packed:
                    header = read_header(packed)
                    if header.dtype.kind != "U" or header.nbytes > HEADER_MAX:
                        raise ValueError(f"{describe_shape(header.shape)}, {header.dtype}")
                    return str(from_bytes(header, packed.read(header.nbytes)).item())
            except Exception as error:
                allowed = "the hash of a calibration"
                found = f"damaged data ({_reason(error)})"
                raise FileMistakes(
                    [Mistake(os.fspath(path), None, CALIBRATION, found, allowed)]
                ) from None


def load(path: str | os.PathLike[str], network: Network) -> Weights:
    """Read the weights of `network` from a `.npz`, as float64.

    Keys that do not end in .weight, .bias or .feedback (recordings, scales, counters of an
    OUT.npz, the calibration's hash) are passed over.  Sizes are checked in the zip directory before
    anything is unpacked. Feedback that a file lacks is drawn; synapses that the network
    does not have are 0 whatever the file says.

    Raises:
        FileMistakes: no (complete) zip, keys missing or of a layer that the
            network does not have, pickled, another dtype or shape, values that
            are not finite; all of them at once.
    """
    file = os.fspath(path)
    wanted = shapes(network)
    optional = learned_times(network)
    result: Weights = {}
    with open_regular(path) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (
            zipfile.BadZipFile,
            ValueError,
            EOFError,
            OSError,
            struct.error,
            RuntimeError,
        ) as error:
            found = f"no complete zip archive ({_reason(error)})"
            raise FileMistakes([Mistake(file, None, "", found, "a .npz of weights")]) from None
        with archive:
            members, mistakes = _members(archive, wanted, optional, network, file)
            for key, member in members.items():
                try:
                    result[key] = _read(archive, member, (wanted | optional)[key])
                    _check_times(network, key, result[key])
                except _Refused as refused:
                    mistakes.append(Mistake(file, None, key, refused.found, refused.allowed))
    if mistakes:
        raise FileMistakes(mistakes)
    drawn = topology.drawn_feedback(network)
    result |= {key: back for key, back in drawn.items() if key not in result}
    masked_away(network, result)
    return result


def times_between(network: Network, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest tau_m (n,) that neurons of a layer can have, for their tau_r."""
    tau_r = network.layers[index].tau_r
    least = np.maximum(network.dt, tau_r / MAX_TAU_RATIO)
    return least, np.minimum(network.dt * MAX_TAU_STEPS, tau_r * MAX_TAU_RATIO)


def _check_times(network: Network, key: str, values: NDArray[np.float64]) -> None:
    for index, layer in enumerate(network.layers):
        if key != f"{layer.name}.tau_m":
            continue
        least, most = times_between(network, index)
        wrong = np.flatnonzero((values < least * (1 - SLACK)) | (values > most * (1 + SLACK)))
        if len(wrong):
            i = int(wrong[0])
            raise _Refused(
                f"tau_m = {values[i]:g} of neuron {i}", f"{least[i]:g} to {most[i]:g} for its tau_r"
            )


class _Refused(Exception):
    """One member of the archive is not what it should be."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(found)
        self.found, self.allowed = found, allowed


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _members(
    archive: zipfile.ZipFile,
    wanted: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]],
    network: Network,
    file: str,
) -> tuple[dict[str, zipfile.ZipInfo], list[Mistake]]:
    """The member of each wanted key, and the mistakes that the directory shows."""
    found: dict[str, zipfile.ZipInfo] = {}
    mistakes: list[Mistake] = []
    for member in archive.infolist():
        key = member.filename.removesuffix(".npy")
        if key in found:
            mistakes.append(Mistake(file, None, key, "a second array", "each key once"))
        elif key in wanted or key in optional:
            found[key] = member
        elif key.endswith(SUFFIXES):
            layers = ", ".join(layer.name for layer in network.layers)
            mistakes.append(
                Mistake(
                    file,
                    None,
                    key,
                    "weights of another network",
                    f"layers of {network.name!r}: {layers}",
                )
            )
    for key, shape in wanted.items():
        if key not in found and not key.endswith(".feedback"):
            allowed = f"{describe_shape(shape)}, float"
            mistakes.append(Mistake(file, None, key, "nothing, the key is missing", allowed))
    return {key: found[key] for key in (*wanted, *optional) if key in found}, mistakes


def _read(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Unpack one array of at most the bytes that `shape` can need."""
    allowed = f"{describe_shape(shape)}, float"
    limit = min(math.prod(shape) * ITEM_MAX + HEADER_MAX + 16, MEMBER_MAX)
    if member.compress_type not in READABLE:
        raise _Refused(f"compression method {member.compress_type}", "stored or deflated")
    if member.flag_bits & 0x1:
        raise _Refused("an encrypted member", "no encryption")
    # zipfile unpacks no more than the directory claims.  Of a member that claims
    # too much only the head is unpacked, enough to say what shape it has.
    size = member.file_size
    try:
        with archive.open(member) as packed:
            data = packed.read(limit if size <= limit else HEADER_MAX)
        stream = BytesIO(data)
        header = read_header(stream)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError) as error:
        raise _Refused(f"damaged data ({_reason(error)})", allowed) from None
    except ValueError as error:
        raise _Refused(str(error), "an array of floats, not pickled") from None
    if header.dtype.kind != "f" or header.shape != shape:
        raise _Refused(f"{describe_shape(header.shape)}, {header.dtype}", allowed)
    if size - stream.tell() != header.nbytes or len(data) != size:
        raise _Refused(f"{size - stream.tell()} bytes of data for {header.nbytes}", allowed)
    return _values(header, data[stream.tell() :])


def _values(header: Header, data: bytes) -> NDArray[np.float64]:
    values = np.ascontiguousarray(from_bytes(header, data), dtype=np.float64)
    found = not_finite(values)
    if found is not None:
        raise _Refused(found, "finite numbers")
    return values
