"""What is connected to what: sources, masks and feedback paths of a network.

Layer k of n neurons hears its sources: the rates of m neurons in all, in this order whatever
order the file names them in: the inputs, then layers from the first on, the layer itself last
(`recurrent`). One matrix W (n, m) holds all of its projections; a mask (n, m) says which of
its synapses there are. A chain, where each layer hears the one before it, is the plain case.

Feedback: what a layer l hears of errors, `above`, of the previous step.

    transposed      sum over the layers k that hear it of W_k^T e_k (their columns of l)
    alignment       the same with fixed random B_k (n, m) in place of W_k (Lillicrap, Cownden,
                    Tweed and Akerman, Nature Communications 7, 13276, 2016)
    kolen-pollack   the same with B_k that learns by W_k's own local product and decays with
                    it (Kolen and Pollack 1994; Akrout et al., arXiv 1904.05391)
    direct          B_l^T e_L with a fixed random B_l (outputs, n) from the output layer
                    alone (Nokland, arXiv 1609.01596)
    broadcast       the same with B_l[i, j] = scale / sqrt(outputs) if i = j mod outputs, else 0:
                    each neuron hears one output's error, neither random nor learned (after
                    Clark, Abbott and Chung, arXiv 2108.10447)

Matrices B are stored like W, "<layer>.feedback"; a mask of W is one of B_k too. On a chip
they are seen through the same converters in the same format as the layer's weights, without
the gains and the scales of single rows that those have.

Of global error-vector broadcasting its path carries over to scalar neurons: one vector, the
same for all layers, neither random nor learned nor transposed. What does not: vectorised
units, each of which would hear the whole vector, and nonnegative weights above the first
layer, which there make the sign of what arrives right. Here that is left to learning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwgle.counter import Floats, uniform
from hwgle.yamlfile import Checked, KeyPath, Rule, mappings, number

INPUT: Final = "input"  # what the network's inputs are called where sources are named
MAX_FAN_IN = 4096
ROW = np.uint64(4096)  # a synapse has index i * ROW + j, whatever the fan-in
FEEDBACK_DRAW, MASK_DRAW = 267, 268  # purposes of draws; hwgle/identity.py has the others

Seed = Annotated[int, Field(ge=0, le=(1 << 64) - 1)]
Kind = Literal["transposed", "alignment", "kolen-pollack", "direct", "broadcast"]
Bools = NDArray[np.bool_]


class Sparsity(Checked):
    """Which synapses of a layer's projections there are.

    density: the chance of each, drawn from `seed`. modules: source and layer are cut into so
    many groups of neurons; within a group every synapse is there, between groups `density`
    holds (0 unless said). of: the sources it is for, all of them if none is named.
    """

    density: float | None = Field(default=None, ge=0, le=1)
    modules: int | None = Field(default=None, ge=1, le=4096)
    seed: Seed = 0
    of: tuple[str, ...] = Field(default=(), strict=False, description="a list of sources")


class Feedback(Checked):
    """How errors come back, see the module. scale: a factor on what is drawn, which is
    uniform within 1/sqrt(m) as initial weights are (direct: 1/sqrt(outputs)). decay: of
    kolen-pollack on the chip, the share of W and B that a learning step takes."""

    kind: Kind
    seed: Seed = 0
    scale: float = Field(default=1.0, gt=0, le=1e6)
    decay: float = Field(default=0.0, ge=0, le=0.5)


class LayerLike(Protocol):
    """Of a layer; `sources`, `recurrent` and `sparsity` may be missing."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...


class NetworkLike(Protocol):
    """Of a network; `feedback` may be missing."""

    @property
    def inputs(self) -> int: ...
    @property
    def layers(self) -> Sequence[Any]: ...


class Segment(NamedTuple):
    """Columns of a layer's weights that are of one source; source -1: the inputs."""

    source: int
    first: int
    size: int

    @property
    def columns(self) -> slice:
        """Of W."""
        return slice(self.first, self.first + self.size)


def segments(network: NetworkLike, k: int) -> tuple[Segment, ...]:
    """Sources of layer k in the order of the columns of its weights."""
    layer = network.layers[k]
    named = getattr(layer, "sources", None)
    heard = [k - 1] if named is None else sorted(_index(network, name) for name in named)
    if getattr(layer, "recurrent", False):
        heard.append(k)
    result, first = [], 0
    for source in heard:
        size = network.inputs if source < 0 else network.layers[source].size
        result.append(Segment(source, first, size))
        first += size
    return tuple(result)


def _index(network: NetworkLike, name: str) -> int:
    if name == INPUT:
        return -1
    return next(k for k, layer in enumerate(network.layers) if layer.name == name)


def source_name(network: NetworkLike, source: int) -> str:
    """As a file says it."""
    return INPUT if source < 0 else str(network.layers[source].name)


def fan_in(network: NetworkLike, k: int) -> int:
    """m of layer k."""
    return sum(s.size for s in segments(network, k))


def is_chain(network: NetworkLike) -> bool:
    """Every layer hears the one before it and nothing else."""
    return all(
        tuple(s.source for s in segments(network, k)) == (k - 1,)
        for k in range(len(network.layers))
    )


# --- masks -------------------------------------------------------------------------------------


def masked(network: NetworkLike, k: int) -> bool:
    """Whether layer k lacks synapses, or could."""
    return bool(getattr(network.layers[k], "sparsity", ()))


def mask(network: NetworkLike, k: int) -> Bools:
    """Which synapses of layer k there are, (n, m)."""
    layer = network.layers[k]
    result = np.ones((layer.size, fan_in(network, k)), dtype=np.bool_)
    for rule in getattr(layer, "sparsity", ()):
        for s in segments(network, k):
            if rule.of and source_name(network, s.source) not in rule.of:
                continue
            result[:, s.columns] &= _drawn_mask(rule, k, layer.size, s)
    return result


def _drawn_mask(rule: Sparsity, k: int, n: int, s: Segment) -> Bools:
    i = np.arange(n, dtype=np.uint64)[:, None]
    j = np.arange(s.size, dtype=np.uint64)
    density = rule.density if rule.density is not None else 0.0
    index = i * ROW + j + np.uint64(s.first)
    there: Bools = uniform(rule.seed, MASK_DRAW, k, index) < density
    if rule.modules is not None:
        count = np.uint64(rule.modules)
        there |= i * count // np.uint64(n) == j * count // np.uint64(s.size)
    return there


# --- feedback ----------------------------------------------------------------------------------


def feedback_kind(network: NetworkLike) -> Kind:
    """How errors come back."""
    feedback: Feedback | None = getattr(network, "feedback", None)
    return "transposed" if feedback is None else feedback.kind


def is_direct(network: NetworkLike) -> bool:
    """Errors come back from the output layer alone."""
    return feedback_kind(network) in ("direct", "broadcast")


def learns_feedback(network: NetworkLike) -> bool:
    """B learns."""
    return feedback_kind(network) == "kolen-pollack"


def feedback_decay(network: NetworkLike) -> float:
    """Share of W and B that a learning step takes."""
    feedback: Feedback | None = getattr(network, "feedback", None)
    return 0.0 if feedback is None else feedback.decay


def feedback_shape(network: NetworkLike, k: int) -> tuple[int, int] | None:
    """Of "<layer>.feedback", None where layer k has none."""
    kind, layers = feedback_kind(network), network.layers
    if kind == "transposed":
        return None
    if is_direct(network):
        return (layers[-1].size, layers[k].size) if k + 1 < len(layers) else None
    if all(s.source < 0 for s in segments(network, k)):
        return None
    return layers[k].size, fan_in(network, k)


def feedback_count(network: NetworkLike) -> int:
    """Numbers in all feedback matrices."""
    shapes = (feedback_shape(network, k) for k in range(len(network.layers)))
    return sum(math.prod(shape) for shape in shapes if shape is not None)


def drawn_feedback(network: NetworkLike) -> dict[str, Floats]:
    """Every "<layer>.feedback" as the network's own seed draws it."""
    result: dict[str, Floats] = {}
    for k, layer in enumerate(network.layers):
        shape = feedback_shape(network, k)
        if shape is not None:
            result[f"{layer.name}.feedback"] = _drawn(network, k, shape)
    return result


def _drawn(network: NetworkLike, k: int, shape: tuple[int, int]) -> Floats:
    feedback: Feedback = network.feedback  # type: ignore[attr-defined]
    i = np.arange(shape[0], dtype=np.uint64)[:, None]
    j = np.arange(shape[1], dtype=np.uint64)
    if feedback.kind == "broadcast":
        return np.where(j % np.uint64(shape[0]) == i, feedback.scale / math.sqrt(shape[0]), 0.0)
    bound = feedback.scale / math.sqrt(shape[0] if feedback.kind == "direct" else shape[1])
    drawn = uniform(feedback.seed, FEEDBACK_DRAW, k, i * ROW + j)
    result: Floats = (2.0 * drawn - 1.0) * bound
    if not is_direct(network) and masked(network, k):
        result *= mask(network, k)
    return result


def with_feedback(network: NetworkLike, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights with what feedback they lack, as drawn."""
    return {**drawn_feedback(network), **weights}


# --- what a file must obey ---------------------------------------------------------------------


def rules(data: Mapping[str, Any]) -> Iterator[Rule]:
    """Mistakes of sources, sparsity and feedback in a raw network."""
    layers = dict(mappings(data.get("layers")))
    names = {
        layer["name"]: i for i, layer in reversed(layers.items())
        if isinstance(layer.get("name"), str)
    }  # fmt: skip
    sizes = {i: _size(layer) for i, layer in layers.items()}
    heard: set[int] = set()
    known = True  # of every layer what it hears
    for i, layer in layers.items():
        given = layer.get("from", layer.get("sources"))
        if given is None:
            sources: list[int] = [i - 1]
        elif isinstance(given, (list, tuple)):
            sources = []
            yield from _sources(("layers", i, "from"), given, i, names, sources)
        else:
            known = False
            continue
        heard.update(sources)
        if layer.get("recurrent") is True:
            sources.append(i)
        yield from _fan_in(i, sources, sizes, data.get("inputs"))
        yield from _sparsity(i, layer, sources, layers)
    if known and isinstance(data.get("layers"), (list, tuple)):
        for i in sorted(layers.keys() - heard - {len(data["layers"]) - 1}):
            allowed = "a layer that a later one hears (from), or the last"
            yield Rule(("layers", i, "name"), f"{layers[i].get('name')!r}, heard by none", allowed)
    yield from _feedback(data)


def _sources(
    where: KeyPath, given: Sequence[Any], i: int, names: Mapping[str, int], to: list[int]
) -> Iterator[Rule]:
    earlier = ", ".join([INPUT, *(name for name, k in names.items() if k < i)])
    if not given:
        yield Rule(where, "an empty list", f"one or more of {earlier}")
    for at, name in enumerate(given):
        if not isinstance(name, str):
            continue  # told by the field itself
        source = -1 if name == INPUT else names.get(name)
        if source is None or source >= i:
            hint = " (recurrent: true for a layer's own rates)" if source == i else ""
            yield Rule((*where, at), repr(name), f"{earlier}{hint}")
        elif source in to:
            yield Rule((*where, at), f"{name!r} for the second time", "each source once")
        else:
            to.append(source)


def _fan_in(
    i: int, sources: Iterable[int], sizes: Mapping[int, int | None], inputs: Any
) -> Iterator[Rule]:
    every = [inputs if s < 0 else sizes.get(s) for s in sources]
    whole = [n for n in every if isinstance(n, int) and not isinstance(n, bool)]
    if len(every) > 1 and len(whole) == len(every) and sum(whole) > MAX_FAN_IN:
        found = f"{sum(whole)} rates from all sources of the layer"
        yield Rule(("layers", i, "from"), found, f"at most {MAX_FAN_IN}")


def _sparsity(
    i: int, layer: Mapping[str, Any], sources: Iterable[int], layers: Mapping[int, Any]
) -> Iterator[Rule]:
    given = layer.get("sparsity")
    single = isinstance(given, Mapping)
    for at, one in mappings([given] if single else given):
        where: KeyPath = ("layers", i, "sparsity") + (() if single else (at,))
        if one.get("density") is None and one.get("modules") is None:
            yield Rule(where, "neither density nor modules", "one of them, or both")
        mine = [INPUT if s < 0 else layers.get(s, {}).get("name") for s in sources]
        named = one.get("of")
        for name in named if isinstance(named, (list, tuple)) else ():
            if isinstance(name, str) and name not in mine:
                allowed = f"sources of the layer: {', '.join(str(s) for s in mine)}"
                yield Rule((*where, "of"), repr(name), allowed)


def _feedback(data: Mapping[str, Any]) -> Iterator[Rule]:
    feedback = data.get("feedback")
    if not isinstance(feedback, Mapping):
        return
    kind = feedback.get("kind")
    unused = {
        "transposed": ("seed", "scale", "decay"),
        "alignment": ("decay",),
        "direct": ("decay",),
        "broadcast": ("seed", "decay"),
    }
    for key in unused.get(kind, ()) if isinstance(kind, str) else ():
        only = Feedback.model_fields[key].default
        value = number(feedback.get(key, only))
        if value is not None and value != only:
            yield Rule(("feedback", key), f"{value:g}", f"{only:g} with {kind}, which knows none")


def _size(layer: Mapping[str, Any]) -> int | None:
    sizes = [p.get("size") for _, p in mappings(layer.get("populations"))]
    whole = [s for s in sizes if isinstance(s, int) and not isinstance(s, bool)]
    return sum(whole) if whole and len(whole) == len(sizes) else None
