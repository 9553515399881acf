"""A GLE network as the user writes it: `hwgle/network/1`.

Times (`dt`, `tau_m`, `tau_r`) share one unit of the user's choice; everything
else is dimensionless.  Layer l maps the rates of its sources (m of them, `fan_in`)
to n = `size` rates; unless its file says otherwise it hears the layer below alone.
What sources, sparsity and feedback mean: see hwgle/topology.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator

from hwgle import topology
from hwgle.topology import Feedback, Sparsity
from hwgle.yamlfile import (
    Checked,
    KeyPath,
    Rule,
    Where,
    canonical_hash,
    find,
    mappings,
    number,
    read,
    validate,
)

MAX_SIZE = 4096
MAX_CLASSES = 2047  # see gle_image_check in csrc/image.c
MAX_LAYERS = 64
# Multipliers on the chip are integer mantissas with a shift: these are the
# widest ratios whose mantissas keep their precision in an int32.
MAX_TAU_RATIO = 256.0
MAX_TAU_STEPS = 65536.0
# dt and tau are decimals in the file: 3 * 0.1 must count as 0.3.
SLACK = 1e-9

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Tau = Annotated[float, Field(gt=0, description="a number > 0 (a time, in the unit of dt)")]


class Population(Checked):
    """`size` neurons of one layer that share their time constants."""

    size: Size
    tau_m: Tau
    tau_r: Tau


class Layer(Checked):
    """One layer: weights W (n x m), bias b (n), activation, populations in order.

    learn: weights and biases. bias: false for biases that are and stay 0. learn_tau_m: a
    host learns tau_m of each neuron too, from the populations' on (or from `<layer>.tau_m`
    of a weights file); tau_r stays.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        max_length=64,
        description="a name of letters, digits and _, a letter first, at most 64 long",
    )
    phi: Literal["linear", "tanh", "sigmoid", "softplus", "relu"]
    learn: bool = True
    bias: bool = True
    learn_tau_m: bool = False
    init: Literal["uniform", "identity"] = "uniform"
    sources: tuple[str, ...] | None = Field(
        default=None,
        alias="from",
        strict=False,
        description="a list of `input` and names of earlier layers",
    )
    recurrent: bool = False
    sparsity: tuple[Sparsity, ...] = Field(
        default=(),
        strict=False,
        max_length=MAX_LAYERS,
        description="{density, modules, seed, of}, or a list of them",
    )
    populations: tuple[Population, ...] = Field(
        strict=False,
        min_length=1,
        max_length=MAX_SIZE,
        description="a list of one or more {size, tau_m, tau_r}",
    )

    @field_validator("sparsity", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, (Mapping, Sparsity)) else value

    @property
    def size(self) -> int:
        """Number of neurons n."""
        return sum(p.size for p in self.populations)

    @property
    def tau_m(self) -> NDArray[np.float64]:
        """Membrane time constants, float64 (n,), in the unit of dt."""
        return np.repeat([p.tau_m for p in self.populations], [p.size for p in self.populations])

    @property
    def tau_r(self) -> NDArray[np.float64]:
        """Prospective time constants, float64 (n,), in the unit of dt."""
        return np.repeat([p.tau_r for p in self.populations], [p.size for p in self.populations])


class Network(Checked):
    """GLE layers with their step dt, their loss, their nudging and the way of errors back."""

    format: Literal["hwgle/network/1"]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=64,
        description="a name of letters, digits, _ . and -, at most 64 long",
    )
    dt: Tau
    inputs: Size
    loss: Literal["cross_entropy", "mse"]
    beta: float = Field(1.0, gt=0)
    gamma: float = Field(0.0, ge=0)
    feedback: Feedback | None = None
    layers: tuple[Layer, ...] = Field(
        strict=False,
        min_length=1,
        max_length=MAX_LAYERS,
        description=f"a list of 1 to {MAX_LAYERS} layers",
    )

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        base: Path | None = None,
        where: Where | None = None,
    ) -> Network:
        """Read a network by name (zoo) or path (relative to `base`).

        Raises:
            FileMistakes: all mistakes of the file, or no such file or name.
        """
        path = find("networks", os.fspath(name_or_path), base=base, where=where)
        return validate(cls, read(path))

    @classmethod
    def rules(cls, data: Mapping[str, Any]) -> Iterator[Rule]:
        """What holds across fields: unique names, sizes, time constants, outputs."""
        dt = number(data.get("dt"))
        names: dict[str, int] = {}
        for i, layer in mappings(data.get("layers")):
            name = layer.get("name")
            if name == topology.INPUT:
                yield Rule(("layers", i, "name"), repr(name), "another name: the inputs have it")
            if isinstance(name, str) and names.setdefault(name, i) != i:
                found = f"{name!r}, the name of layers[{names[name]}] already"
                yield Rule(("layers", i, "name"), found, "a name of its own for each layer")
            size = _layer_size(layer)
            if size is not None and size > MAX_SIZE:
                found = f"{size} neurons in the layer"
                yield Rule(("layers", i, "populations"), found, f"at most {MAX_SIZE}")
            for k, population in mappings(layer.get("populations")):
                where: KeyPath = ("layers", i, "populations", k)
                yield from _tau_rules(where, population, dt)
        layers = data.get("layers")
        if data.get("loss") == "cross_entropy" and isinstance(layers, (list, tuple)) and layers:
            last = len(layers) - 1
            size = _layer_size(layers[last]) if isinstance(layers[last], Mapping) else None
            if size == 1:
                allowed = "2 or more outputs for cross_entropy (or loss: mse)"
                yield Rule(("layers", last, "populations"), "1 output", allowed)
            if size is not None and MAX_CLASSES < size <= MAX_SIZE:
                allowed = f"at most {MAX_CLASSES} for cross_entropy, whose sum is of 32 bits"
                yield Rule(("layers", last, "populations"), f"{size} outputs", allowed)
        yield from topology.rules(data)

    def hash(self) -> str:
        """See Checked; of a plain chain as before there was anything else."""
        data = self.model_dump(mode="json")
        if data["feedback"] is None:
            del data["feedback"]
        for layer in data["layers"]:
            for key, plain in (("from", None), ("recurrent", False), ("sparsity", [])):
                if layer[key] == plain:
                    del layer[key]
        return canonical_hash(data)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons per layer, first layer first (the inputs are not among them)."""
        return tuple(layer.size for layer in self.layers)

    @property
    def outputs(self) -> int:
        """Neurons in the last layer."""
        return self.layers[-1].size

    @property
    def parameters(self) -> int:
        """Number of weights and biases, frozen layers included, absent synapses not."""
        absent = sum(
            int(np.count_nonzero(~topology.mask(self, i)))
            for i in range(len(self.layers))
            if topology.masked(self, i)
        )
        return -absent + sum(n * (self.fan_in(i) + 1) for i, n in enumerate(self.sizes))

    def fan_in(self, index: int) -> int:
        """m of layer `index` (from 0): the rates of all of its sources."""
        return topology.fan_in(self, index)


def _layer_size(layer: Mapping[str, Any]) -> int | None:
    """Neurons of a raw layer, None unless every population's size is allowed."""
    populations = layer.get("populations")
    if not isinstance(populations, (list, tuple)):
        return None
    sizes = [p.get("size") for _, p in mappings(populations)]
    whole = [s for s in sizes if isinstance(s, int) and not isinstance(s, bool)]
    good = len(whole) == len(populations) and all(1 <= s <= MAX_SIZE for s in whole)
    return sum(whole) if good else None


def _tau_rules(where: KeyPath, population: Mapping[str, Any], dt: float | None) -> Iterator[Rule]:
    tau = {key: number(population.get(key)) for key in ("tau_m", "tau_r")}
    tau = {key: value for key, value in tau.items() if value is not None and value > 0}
    for key, value in tau.items():
        if value is None or dt is None or dt <= 0:
            continue
        if value < dt * (1 - SLACK):
            yield Rule((*where, key), f"{value:g}", f"at least dt = {dt:g}")
        elif value > dt * MAX_TAU_STEPS * (1 + SLACK):
            allowed = f"at most {MAX_TAU_STEPS:g} dt = {MAX_TAU_STEPS * dt:g}"
            yield Rule((*where, key), f"{value:g}", allowed)
    tau_m, tau_r = tau.get("tau_m"), tau.get("tau_r")
    if tau_m and tau_r:
        ratio = max(tau_m / tau_r, tau_r / tau_m)
        if ratio > MAX_TAU_RATIO * (1 + SLACK):
            found = f"tau_m = {tau_m:g} with tau_r = {tau_r:g}, a ratio of {ratio:g}"
            yield Rule(where, found, f"a ratio of at most {MAX_TAU_RATIO:g} either way")
