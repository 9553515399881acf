"""Activation functions phi and their derivatives, in floating point.

Five functions turn a (prospective) membrane potential into a rate: `linear`,
`tanh`, `sigmoid`, `softplus` and `relu`. All arguments and results are arrays
of any shape, elementwise, in network units (dimensionless); float32 stays
float32 and anything that is not floating point becomes float64. Nothing
overflows however large |x| is.

`relu` has the derivative 0 at its kink.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating[Any]]


class Elementwise(Protocol):
    """A function of one array; `out` (may be `x` itself) receives the result if given."""

    def __call__(self, x: FloatArray, out: FloatArray | None = None) -> FloatArray: ...


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        name: as written in a network file.
        phi: rate r = phi(x).
        dphi: derivative phi'(x).
        dphi_of_rate: the same derivative, from the rate r = phi(x) alone. It saves a
            transcendental function; its error is that of r (1e-16 of the largest value).
    """

    name: str
    phi: Elementwise
    dphi: Elementwise
    dphi_of_rate: Elementwise


def _ones(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    if out is None:
        return np.ones_like(x)
    out.fill(1)
    return out


def _linear(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.positive(x, out=out)


def _tanh(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.tanh(x, out=out)


def _dtanh(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    # 1 - tanh^2 cancels for large |x|; 4 z / (1 + z)^2 with z = exp(-2 |x|) does not.
    z: FloatArray = np.square(np.exp(-np.abs(x)))
    slope: FloatArray = np.divide(4 * z, np.square(1 + z), out=out)
    return slope


def _dtanh_of_rate(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    out = np.multiply(x, x, out=out)
    return np.subtract(1, out, out=out)


def _sigmoid(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    z = np.exp(-np.abs(x))
    rate: FloatArray = np.divide(np.where(x >= 0, 1, z), 1 + z, out=out)
    return rate


def _dsigmoid(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    z = np.exp(-np.abs(x))
    slope: FloatArray = np.divide(z, np.square(1 + z), out=out)
    return slope


def _dsigmoid_of_rate(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.multiply(x, 1 - x, out=out)


def _softplus(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.add(np.maximum(x, 0), np.log1p(np.exp(-np.abs(x))), out=out)


def _dsoftplus_of_rate(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    # exp(-softplus(x)) = 1 - sigmoid(x)
    out = np.expm1(-x, out=out)
    return np.negative(out, out=out)


def _relu(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.maximum(x, 0, out=out)


def _drelu(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    return np.heaviside(x, 0, out=out)


ACTIVATIONS: Final[Mapping[str, Activation]] = MappingProxyType(
    {
        "linear": Activation("linear", _linear, _ones, _ones),
        "tanh": Activation("tanh", _tanh, _dtanh, _dtanh_of_rate),
        "sigmoid": Activation("sigmoid", _sigmoid, _dsigmoid, _dsigmoid_of_rate),
        "softplus": Activation("softplus", _softplus, _sigmoid, _dsoftplus_of_rate),
        "relu": Activation("relu", _relu, _drelu, _drelu),
    }
)


def activation(name: str) -> Activation:
    """The activation called `name`.

    Raises:
        ValueError: no activation has this name; the message lists those that exist.
    """
    try:
        return ACTIVATIONS[name]
    except KeyError:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"no activation is called {name!r}; there are {known}") from None


def phi(name: str, x: ArrayLike) -> FloatArray:
    """Rate phi(x), elementwise, of the activation called `name`.

    Raises:
        ValueError: no activation has this name.
    """
    return activation(name).phi(_floating(x))


def dphi(name: str, x: ArrayLike) -> FloatArray:
    """Derivative phi'(x), elementwise, of the activation called `name`.

    Raises:
        ValueError: no activation has this name.
    """
    return activation(name).dphi(_floating(x))


def softmax(r: FloatArray) -> FloatArray:
    """exp(r) / sum(exp(r)) over the last axis, safe for large |r|; same shape as `r`."""
    p: FloatArray = np.exp(r - r.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def _floating(x: ArrayLike) -> FloatArray:
    array = np.asarray(x)
    if np.issubdtype(array.dtype, np.floating):
        return array
    return array.astype(np.float64)
