"""What was measured on one chip for one network: a twin's numbers, in place of drawn ones.

Everything that is empty stays as drawn. Per layer of n neurons with m inputs; units as in
`hwgle.identity.LayerDraws`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from hwgle.network import Network
from hwgle.yamlfile import Checked

GAIN_ONE = 1 << 13  # Q13, as the core multiplies with it
GAIN_MAX = (1 << 15) - 1

# Of a leak that may be off by 100 %, six standard deviations are factors of 150.
FACTOR_MAX, OFFSET_MAX = 1e4, 1e6

Factor = Annotated[
    float, Field(ge=1 / FACTOR_MAX, le=FACTOR_MAX, description="numbers from 1e-4 to 1e4")
]
Gain = Annotated[float, Field(ge=0, lt=4, description="numbers from 0 to less than 4")]
Activation = Annotated[float, Field(ge=0, lt=2, description="numbers from 0 to less than 2")]
Offset = Annotated[
    float, Field(ge=-OFFSET_MAX, le=OFFSET_MAX, description="numbers from -1e6 to 1e6")
]


def _list(words: str) -> object:
    return Field(strict=False, description=words)


class MeasuredLayer(Checked):
    """One layer. An activation gain of 0 is a dead neuron.

    synapse_gain: base64 of n*m little-endian int16, row after row: Q13 codes as in the
    image (negative: stuck), see `encode` and `decode`.
    """

    tau_m: Annotated[tuple[Factor, ...], _list("a list of factors on tau_m, n or none")] = ()
    tau_r: Annotated[tuple[Factor, ...], _list("a list of factors on tau_r, n or none")] = ()
    activation_gain: Annotated[
        tuple[Activation, ...], _list("a list of gains of the activation, n or none")
    ] = ()
    activation_offset: Annotated[
        tuple[Offset, ...], _list("a list of offsets in network units, n or none")
    ] = ()
    readout_gain: Annotated[
        tuple[Gain, ...], _list("a list of gains of the ADC's channels, n or none")
    ] = ()
    readout_offset: Annotated[
        tuple[Offset, ...], _list("a list of offsets in LSB of the ADC, n or none")
    ] = ()
    synapse_gain: str = Field(default="", description="base64 of n*m little-endian int16")


class Measured(Checked):
    """All layers and the inputs. network: `shape_hash` of the network it was measured with."""

    network: str = ""
    layers: Annotated[tuple[MeasuredLayer, ...], _list("a list with one entry for each layer")] = ()
    input_gain: Annotated[
        tuple[Gain, ...], _list("a list of gains of the input DACs, one an input or none")
    ] = ()
    input_offset: Annotated[
        tuple[Offset, ...], _list("a list of offsets in LSB of the input DAC, one an input or none")
    ] = ()

    def has(self, *names: str) -> bool:
        """Whether any layer has one of these quantities."""
        return any(len(getattr(layer, name)) > 0 for layer in self.layers for name in names)

    def misfit(self, network: Network) -> str | None:
        """Why these numbers are not of that network, None if they are."""
        if self == Measured():
            return None
        if self.network != shape_hash(network):
            return "they were measured with a network of another shape"
        if len(self.layers) != len(network.layers):
            return f"{len(self.layers)} layers for {len(network.layers)}"
        for k, (layer, own) in enumerate(zip(network.layers, self.layers, strict=True)):
            for name in MeasuredLayer.model_fields:
                need, have = layer.size, len(getattr(own, name))
                if name == "synapse_gain":
                    need *= network.fan_in(k)
                    have = 0 if not own.synapse_gain else decode(own.synapse_gain).size
                if have not in (0, need):
                    return f"layer {layer.name}: {have} values of {name} for {need}"
        for name in ("input_gain", "input_offset"):
            if len(getattr(self, name)) not in (0, network.inputs):
                return f"{len(getattr(self, name))} values of {name} for {network.inputs} inputs"
        return None


def shape_hash(network: Network) -> str:
    """SHA-256 (hex) of the numbers of inputs and neurons: what measured arrays must fit."""
    return sizes_hash((network.inputs, *network.sizes))


def sizes_hash(sizes: Sequence[int]) -> str:
    """The same of inputs, then neurons of each layer."""
    text = " ".join(str(n) for n in sizes)
    return hashlib.sha256(f"hwgle/shape/1 {text}".encode()).hexdigest()


def encode(gain: ArrayLike) -> str:
    """Codes (n, m) int16 as the text of a `synapse_gain`."""
    return base64.b64encode(np.asarray(gain, dtype="<i2").tobytes()).decode()


def decode(text: str) -> NDArray[np.int16]:
    """The codes of a `synapse_gain`, flat; none (size 0) for text that is not one."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return np.zeros(0, dtype=np.int16)
    if len(raw) % 2:
        return np.zeros(0, dtype=np.int16)
    return np.frombuffer(raw, dtype="<i2").astype(np.int16)
