"""Many copies of one network side by side, each with parameters of its own.

The forward and error equations are those of `hwgle.reference`, to which a test
holds every copy; here arrays carry one more axis in front, so that learning over
several seeds (or learning rates) costs little more than over one. C is the number
of copies, B of streams of each, P of parameters of one copy; signals are (C, B, n).

All parameters of a copy lie in one row of `flat`, layer by layer as weight, bias,
tau_m, so that a gradient is one array (C, P) too and an optimiser a few operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle import topology
from hwgle.activation import Activation, activation
from hwgle.reference import LOSSES, PARAMETERS, LayerLike, NetworkLike, target_error

Array = NDArray[np.float64]
STATES = ("u", "uhat", "r", "r_old", "dphi", "v", "e", "pull")


@dataclass
class CopiedLayer:
    """One layer of all copies. `weight` (C, n, m), `bias` and `tau_m` (C, 1, n) are views of
    `Copies.flat`; `at` says where each kind lies in it.

    u, uhat, r, v, e are the signals of the oracle; dphi is phi'(uhat), r_old the rate before
    the step, pull x - u_old. dt_m is dt/tau_m, prospective tau_r/tau_m, both (C, 1, n).
    """

    name: str
    size: int
    fan_in: int
    phi: Activation
    learn: bool
    tau_r: Array
    at: dict[str, slice]
    weight: Array
    bias: Array
    tau_m: Array
    u: Array
    uhat: Array
    r: Array
    r_old: Array
    dphi: Array
    v: Array
    e: Array
    pull: Array
    dt_m: Array = field(default_factory=lambda: np.zeros(0))
    prospective: Array = field(default_factory=lambda: np.zeros(0))


class Copies:
    """C copies of a network.

    Args:
        network: see `hwgle.reference.NetworkLike`.
        weights: one mapping for each copy, `<layer>.weight` (n, m) and `<layer>.bias` (n,);
            where it also holds `<layer>.tau_m` (n,), that replaces the network's.
        batch: streams B of each copy.

    Attributes:
        flat: all parameters, (C, P).
        layers: from input to output.
        input: inputs of the latest step, (C or 1, B, inputs).
        tau_m_floor: `add` keeps every tau_m at or above it; dt at first.

    Raises:
        ValueError: no copies, parameters missing or of the wrong shape, an unknown loss, or a
            network that is no plain chain.
    """

    def __init__(
        self, network: NetworkLike, weights: Sequence[Mapping[str, ArrayLike]], batch: int
    ) -> None:
        if not weights or batch < 1:
            raise ValueError(f"{len(weights)} copies of {batch} streams; at least one of each")
        if network.loss not in LOSSES:
            raise ValueError(f"loss is {network.loss!r}; there are {', '.join(LOSSES)}")
        plain = topology.is_chain(network) and topology.feedback_kind(network) == "transposed"
        if not plain or any(topology.masked(network, k) for k in range(len(network.layers))):
            raise ValueError(
                "the baselines know plain chains only: no from, recurrent, sparsity or feedback"
            )
        self.network = network
        self.copies, self.batch = len(weights), batch
        self.tau_m_floor = float(network.dt)
        self.input = np.zeros((1, batch, network.inputs))
        self.layers: list[CopiedLayer] = []
        places, count = _layout(network)
        self.flat = np.empty((self.copies, count))
        below = network.inputs
        for layer, at in zip(network.layers, places, strict=True):
            self._fill(layer, below, at, weights)
            self.layers.append(self._layer(layer, below, at))
            below = layer.size
        self._refresh()

    def _fill(
        self,
        layer: LayerLike,
        below: int,
        at: Mapping[str, slice],
        weights: Sequence[Mapping[str, ArrayLike]],
    ) -> None:
        shapes = {"weight": (layer.size, below), "bias": (layer.size,), "tau_m": (layer.size,)}
        for row, given in zip(self.flat, weights, strict=True):
            for kind, shape in shapes.items():
                name = f"{layer.name}.{kind}"
                if kind != "tau_m" and name not in given:
                    raise ValueError(f"{name} is missing from the weights")
                value = np.asarray(given.get(name, layer.tau_m), np.float64)
                if value.shape != shape:
                    raise ValueError(f"{name} has shape {value.shape}; it must be {shape}")
                row[at[kind]] = value.ravel()

    def _layer(self, layer: LayerLike, below: int, at: dict[str, slice]) -> CopiedLayer:
        copies, n = self.copies, layer.size
        states = {name: np.zeros((copies, self.batch, n)) for name in STATES}
        return CopiedLayer(
            layer.name,
            n,
            below,
            activation(layer.phi),
            layer.learn,
            np.asarray(layer.tau_r, np.float64),
            at,
            weight=self.flat[:, at["weight"]].reshape(copies, n, below),
            bias=self.flat[:, None, at["bias"]],
            tau_m=self.flat[:, None, at["tau_m"]],
            **states,
        )

    def _refresh(self) -> None:
        """The multipliers that follow from tau_m."""
        for s in self.layers:
            s.dt_m = self.network.dt / s.tau_m
            s.prospective = s.tau_r / s.tau_m

    @property
    def output(self) -> Array:
        """Rates of the output layer after the latest step, (C, B, outputs); live."""
        return self.layers[-1].r

    def names(self) -> list[str]:
        """`<layer>.<kind>` in the order of `flat`."""
        return [f"{s.name}.{kind}" for s in self.layers for kind in PARAMETERS]

    def named(self, flat: Array) -> dict[str, Array]:
        """Parts of an array (..., P) by name: weight (..., n, m), bias and tau_m (..., n)."""
        parts: dict[str, Array] = {}
        for s in self.layers:
            for kind in PARAMETERS:
                part = flat[..., s.at[kind]]
                if kind == "weight":
                    part = part.reshape(*part.shape[:-1], s.size, s.fan_in)
                parts[f"{s.name}.{kind}"] = part
        return parts

    def mask(self, kinds: Iterable[str]) -> Array:
        """1 where a parameter is of these kinds in a layer that learns, else 0; (P,)."""
        wanted = frozenset(kinds)
        if unknown := wanted - frozenset(PARAMETERS):
            raise ValueError(f"no parameter is called {', '.join(sorted(unknown))}")
        mask = np.zeros(self.flat.shape[1])
        for s in self.layers:
            for kind in wanted:
                mask[s.at[kind]] = s.learn
        return mask

    def step(self, x: Array, target: NDArray[np.generic] | None = None) -> None:
        """One time step forward and, with a target, of the errors.

        Args:
            x: inputs, (C, B, inputs) or (1, B, inputs) for all copies.
            target: None leaves the errors alone altogether, which is what a method without
                errors in the network wants; mse (C or 1, B, outputs), NaN where there is
                none; cross_entropy integers (C or 1, B), -1 where there is none.
        """
        self.input = x
        if target is not None:
            self._errors(self.error_of_output(target))
        gamma = self.network.gamma if target is not None else 0.0
        below = x
        for s in self.layers:
            drive = _weighted(below, s.weight)
            drive += s.bias
            if gamma != 0:
                drive += gamma * s.e
            np.copyto(s.r_old, s.r)
            np.subtract(drive, s.u, out=s.pull)
            np.multiply(s.pull, s.prospective, out=s.uhat)
            s.uhat += s.u
            np.multiply(s.pull, s.dt_m, out=drive)
            s.u += drive
            s.phi.phi(s.uhat, out=s.r)
            s.phi.dphi_of_rate(s.r, out=s.dphi)
            below = s.r_old

    def _errors(self, above: Array) -> None:
        """e and v of every layer, from e of the layer above at the previous step."""
        dt = self.network.dt
        for k in reversed(range(len(self.layers))):
            s = self.layers[k]
            handed_down = _handed_down(s.e, s.weight) if k else above
            inst = s.dphi * above
            inst -= s.v
            np.divide(inst, s.prospective, out=s.e)
            s.e += s.v
            inst *= dt / s.tau_r
            s.v += inst
            above = handed_down

    def error_of_output(self, target: NDArray[np.generic]) -> Array:
        """-dloss/dr of the output layer as it is now, (C, B, outputs), for these targets."""
        r = self.output
        if self.network.loss == "mse":
            error: Array = np.asarray(target, np.float64) - r
            error[np.isnan(error)] = 0
            error *= self.network.beta
            return error
        classes = np.broadcast_to(target, r.shape[:2]).reshape(-1)
        flat = r.reshape(-1, r.shape[2])
        out = np.empty_like(flat)
        target_error("cross_entropy", self.network.beta, flat, classes, out)
        return out.reshape(r.shape)

    def directions(self, errors: Sequence[Array], below: Sequence[Array]) -> Array:
        """Means over the batch of e below^T, e and -e (x - u_old)/tau_m, as one array (C, P).

        Args:
            errors: e of each layer, (C, B, n).
            below: what each layer hears, (C or 1, B, m).
        """
        gradient = np.empty_like(self.flat)
        for s, e, r in zip(self.layers, errors, below, strict=True):
            outer = np.matmul(e.swapaxes(1, 2), r)
            gradient[:, s.at["weight"]] = outer.reshape(self.copies, -1)
            gradient[:, s.at["bias"]] = e.sum(axis=1)
            pull = np.einsum("cbn,cbn->cn", e, s.pull)
            gradient[:, s.at["tau_m"]] = -pull / s.tau_m[:, 0]
        gradient /= self.batch
        return gradient

    def add(self, increment: Array) -> None:
        """Add (C, P) to the parameters; a tau_m stops at `tau_m_floor`, its tau_r stays."""
        self.flat += increment
        for s in self.layers:
            np.maximum(s.tau_m, self.tau_m_floor, out=s.tau_m)
        self._refresh()

    def state(self) -> dict[str, Array]:
        """Everything that changes, for a checkpoint."""
        arrays = {f"{s.name}.{name}": getattr(s, name) for s in self.layers for name in STATES}
        return {"flat": self.flat, **arrays}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up what `state` returned."""
        for name, array in self.state().items():
            array[:] = state[name]
        self._refresh()


def _layout(network: NetworkLike) -> tuple[list[dict[str, slice]], int]:
    """Where the parameters of each layer lie in a row of `flat`, and how many there are."""
    places, count, below = [], 0, network.inputs
    for layer in network.layers:
        at = {}
        for kind in PARAMETERS:
            length = layer.size * below if kind == "weight" else layer.size
            at[kind] = slice(count, count + length)
            count += length
        places.append(at)
        below = layer.size
    return places, count


def _weighted(below: Array, weight: Array) -> Array:
    """W below, (C, B, n). A single source needs no matrix product, which is slow if tiny."""
    transposed = weight.swapaxes(1, 2)
    if weight.shape[2] == 1:
        return below * transposed
    drive: Array = np.matmul(below, transposed)
    return drive


def _handed_down(e: Array, weight: Array) -> Array:
    """W^T e, (C, B, m)."""
    if weight.shape[1] == 1:
        return e * weight
    down: Array = np.matmul(e, weight)
    return down
