"""The exact gradient through time, to judge GLE's online gradient by.

The loss of a run is the mean over the batch of the sum over the steps of

    beta/2 |y(t) - r_L(t)|^2                     mse
    beta * -log softmax(r_L(t))[y(t)]            cross_entropy

where r_L(t) is the output rate at the END of step t. Its gradient is taken by
reverse time through the discrete-time forward dynamics of `hwgle.reference`, the
delay of one step per layer included; sources and masks are the network's, its way of
feedback, which is GLE's own business, plays no part. It needs the whole past, which GLE does not;
it is for small networks and short runs.

Signs: all gradients are directions of ASCENT in the sense of GLE, that is minus
the derivative of the loss, so that a cosine with GLE's own is +1 at best.

tau_m: its gradient holds tau_r fixed. Both multipliers of the membrane, dt/tau_m
and tau_r/tau_m, change with it; in an instantaneous neuron (tau_m = tau_r) a step
of tau_m alone therefore leaves the instantaneous regime. GLE's own direction for
tau_m is a poor one (the mean of e (x - u) nearly cancels for slow signals, and what
remains is of the order of GLE's error): expect lower cosines than for W and b.

GLE forms its target error of step t from y(t) and r_L(t-1); for targets that
change slowly against dt that shift by one step is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgle import topology
from hwgle.activation import FloatArray, activation, softmax
from hwgle.reference import (
    PARAMETERS,
    NetworkLike,
    Reference,
    target_error,
    targets_per_step,
)


def adjoint_gradient(
    network: NetworkLike,
    weights: Mapping[str, NDArray[Any]],
    X: ArrayLike,
    target: ArrayLike,
) -> tuple[float, dict[str, FloatArray]]:
    """Loss of a run from zero state and minus its exact gradient.

    Args:
        network: with gamma = 0 (else the errors act back on the rates).
        weights: `<layer>.weight` (n, m) and `<layer>.bias` (n,).
        X: inputs (T, B, inputs).
        target: for mse (T, B, outputs) with NaN where there is none; for cross_entropy
            integers (B,) or (T, B) with -1 where there is none.

    Returns:
        The loss, and minus its derivative with respect to `<layer>.weight` (n, m),
        `<layer>.bias` (n,) and `<layer>.tau_m` (n,; tau_r held fixed).

    Raises:
        ValueError: gamma is not 0, or arrays of the wrong shape or type.
    """
    if network.gamma != 0:
        raise ValueError(f"gamma is {network.gamma}; the adjoint gradient needs gamma = 0")
    inputs = np.asarray(X, np.float64)
    if inputs.ndim != 3:
        raise ValueError(f"input has shape {inputs.shape}; expected (T, B, inputs)")
    steps, batch = inputs.shape[:2]
    past = Reference(network, weights, batch).run(inputs, record=("r", "u", "uhat", "x"))
    targets = targets_per_step(network.loss, target, steps)

    loss = 0.0
    handed_down = np.empty_like(past["output"])  # -dloss/dr(t), at first of the output layer
    for t in range(steps):
        r = past["output"][t]
        loss += network.beta * _loss(network.loss, r, targets[t])
        target_error(network.loss, network.beta, r, targets[t], out=handed_down[t])

    x_bar = _costates(network, weights, past, handed_down)
    gradient: dict[str, FloatArray] = {}
    for k, layer in enumerate(network.layers):
        own = x_bar[k]
        below = _heard(network, k, inputs, past)
        pull = past[f"{layer.name}.x"] - _previous(past[f"{layer.name}.u"])
        dw = np.tensordot(own, below, ((0, 1), (0, 1))) / batch
        if topology.masked(network, k):
            dw *= topology.mask(network, k)
        gradient[f"{layer.name}.weight"] = dw
        gradient[f"{layer.name}.bias"] = own.sum(axis=(0, 1)) / batch
        tau_m = np.asarray(layer.tau_m, np.float64)
        gradient[f"{layer.name}.tau_m"] = -(own * pull).sum(axis=(0, 1)) / (batch * tau_m)
    names = [f"{layer.name}.{kind}" for layer in network.layers for kind in PARAMETERS]
    return loss / batch, {name: gradient[name] for name in names}


def _costates(
    network: NetworkLike,
    weights: Mapping[str, NDArray[Any]],
    past: Mapping[str, FloatArray],
    handed_down: FloatArray,
) -> list[FloatArray]:
    """Of x(t) of every layer, (T, B, n): minus the derivative of the loss.

    Rates of one step are heard in the next, whoever hears them: all layers go back through
    time together, which holds for skips and recurrence as for a chain.
    """
    layers = network.layers
    count = range(len(layers))
    heard = [topology.segments(network, k) for k in count]
    w = [np.asarray(weights[f"{y.name}.weight"], np.float64) for y in layers]
    w = [m * topology.mask(network, k) if topology.masked(network, k) else m
         for k, m in enumerate(w)]  # fmt: skip
    slope = [activation(y.phi).dphi(past[f"{y.name}.uhat"]) for y in layers]
    tau = [np.asarray(y.tau_m, np.float64) for y in layers]
    dt_m = [network.dt / t for t in tau]
    prospective = [np.asarray(y.tau_r, np.float64) / t for y, t in zip(layers, tau, strict=True)]
    x_bar = [np.zeros_like(past[f"{y.name}.x"]) for y in layers]
    u_bar = [np.zeros_like(a[0]) for a in x_bar]  # u(t) acts through step t+1 only
    for t in reversed(range(len(handed_down))):
        r_bar = [np.zeros_like(a[0]) for a in x_bar]
        r_bar[-1] += handed_down[t]
        for k in count if t + 1 < len(handed_down) else ():
            for s in heard[k]:
                if s.source >= 0:
                    r_bar[s.source] += x_bar[k][t + 1] @ w[k][:, s.columns]
        for k in count:
            uhat_bar = r_bar[k] * slope[k][t]
            x_bar[k][t] = prospective[k] * uhat_bar + dt_m[k] * u_bar[k]
            u_bar[k] = (1 - prospective[k]) * uhat_bar + (1 - dt_m[k]) * u_bar[k]
    return x_bar


def _heard(
    network: NetworkLike, k: int, inputs: FloatArray, past: Mapping[str, FloatArray]
) -> FloatArray:
    """What layer k heard at each step, (T, B, m)."""
    parts = [
        inputs if s.source < 0 else _previous(past[f"{network.layers[s.source].name}.r"])
        for s in topology.segments(network, k)
    ]
    return np.concatenate(parts, axis=2)


def online_gradient(
    network: NetworkLike,
    weights: Mapping[str, NDArray[Any]],
    X: ArrayLike,
    target: ArrayLike,
    skip: int = 0,
) -> dict[str, FloatArray]:
    """GLE's own directions of ascent, summed over the steps of a run with fixed weights.

    Args:
        network: see `NetworkLike`; any gamma.
        weights: `<layer>.weight` (n, m) and `<layer>.bias` (n,).
        X: inputs (T, B, inputs).
        target: as for `adjoint_gradient`.
        skip: steps at the start whose contributions are left out (transients).

    Returns:
        `<layer>.weight`, `<layer>.bias` and `<layer>.tau_m`, comparable with what
        `adjoint_gradient` returns.
    """
    total: dict[str, FloatArray] = {}
    seen = 0

    def accumulate(reference: Reference) -> None:
        nonlocal seen
        seen += 1
        if seen <= skip:
            return
        for name, grad in reference.gradient().items():
            if name in total:
                total[name] += grad
            else:
                total[name] = grad

    inputs = np.asarray(X, np.float64)
    Reference(network, weights, inputs.shape[1]).run(inputs, target, (), accumulate)
    return total


def cosine(
    a: ArrayLike | Mapping[str, NDArray[Any]], b: ArrayLike | Mapping[str, NDArray[Any]]
) -> float:
    """Cosine of the angle between two gradients, -1..1; NaN if one of them is zero.

    Args:
        a: an array, or a mapping whose arrays are taken together as one long vector.
        b: an array of the same shape, or a mapping with the same keys.

    Raises:
        ValueError: keys or shapes differ.
    """
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError("cosine of an array and a mapping")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            raise ValueError(f"different keys: {sorted(a)} and {sorted(b)}")
        if any(np.shape(a[key]) != np.shape(b[key]) for key in a):
            raise ValueError("arrays of different shapes under one key")
        p, q = _flat(a[key] for key in a), _flat(b[key] for key in a)
    else:
        if np.shape(a) != np.shape(b):  # type: ignore[arg-type]
            raise ValueError("arrays of different shapes")
        p, q = _flat([a]), _flat([b])  # type: ignore[list-item]
    norms = float(np.linalg.norm(p) * np.linalg.norm(q))
    return float(p @ q) / norms if norms > 0 else float("nan")


def _flat(arrays: Iterable[ArrayLike]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def _previous(signal: FloatArray) -> FloatArray:
    """The signal (T, B, n) one step earlier; 0 before the first step."""
    out = np.zeros_like(signal)
    out[1:] = signal[:-1]
    return out


def _loss(loss: str, r: FloatArray, target: NDArray[Any]) -> float:
    """The loss of one step at beta 1, summed over the batch."""
    if loss == "mse":
        return float(0.5 * np.nansum(np.square(target - r)))
    asked = np.flatnonzero(target >= 0)
    return float(-np.log(softmax(r)[asked, target[asked]]).sum())
