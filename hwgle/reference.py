"""Generalized Latent Equilibrium in floating point: the oracle for everything else.

The equations of B. Ellenberger, P. Haider, J. Jordan, K. Max, I. Jaras,
L. Kriener, F. Benitez and M. A. Petrovici, "Backpropagation through space, time
and the brain" (arXiv 2403.16933; Nature Communications 2025), integrated with
the forward Euler method. One step of one layer, with weights W (n x m), bias b,
time constants tau_m, tau_r (one per neuron) and activation phi:

    below  = the input (first layer) or r of the layer below
    above  = W^T e of the layer above, or the target error of the output layer
    inst   = phi'(uhat of the previous step) * above
    e      = v + (tau_m/tau_r) (inst - v)          prospective error
    v     += (dt/tau_r)  (inst - v)                error neuron
    x      = W below + b + gamma e
    uhat   = u + (tau_r/tau_m) (x - u)             prospective membrane
    u     += (dt/tau_m)  (x - u)                   membrane
    r      = phi(uhat)
    dW     = e below^T,  db = e,  dtau_m = -e (x - u_old)/tau_m

All layers step together from their neighbours' values of the previous step. Where a
network has other sources than the layer below, `below` is their rates one behind the
other; where it has another feedback than the transposed weights, `above` is what
hwgle/topology.py says. Weights that a mask leaves out are 0 and stay so.
Potentials, rates and errors are in network units (dimensionless); dt and the
time constants share one unit of time. B is the number of streams (the batch),
T the number of steps; arrays are (B, n) and (T, B, n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hwgle import topology
from hwgle.activation import Activation, FloatArray, activation, softmax

SIGNALS: Final = ("r", "u", "uhat", "v", "e")
INNER_SIGNALS: Final = ("x", "inst")
PARAMETERS: Final = ("weight", "bias", "tau_m")
LOSSES: Final = ("cross_entropy", "mse")


class LayerLike(Protocol):
    """What the reference needs to know of a layer of n neurons.

    `tau_m` and `tau_r` are arrays (n,) in the unit of the network's dt; `learn`
    says whether learners may change the layer.
    """

    @property
    def name(self) -> str: ...
    @property
    def phi(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def tau_m(self) -> NDArray[Any]: ...
    @property
    def tau_r(self) -> NDArray[Any]: ...
    @property
    def learn(self) -> bool: ...


class NetworkLike(Protocol):
    """What the reference needs to know of a network; layers run from input to output.

    `loss` is "cross_entropy" or "mse", `beta` the strength of nudging and `gamma`
    how strongly an error drives its membrane. `sources`, `recurrent` and `sparsity` of a
    layer and `feedback` of the network may be missing: a plain chain.
    """

    @property
    def dt(self) -> float: ...
    @property
    def inputs(self) -> int: ...
    @property
    def loss(self) -> str: ...
    @property
    def beta(self) -> float: ...
    @property
    def gamma(self) -> float: ...
    @property
    def layers(self) -> Sequence[LayerLike]: ...


Learner = Callable[["Reference"], None]  # called after a step; changes weights of the reference


@dataclass(slots=True)
class LayerState:
    """One layer's values after the latest step, each (B, n) and updated in place.

    Attributes:
        u: membrane.  uhat: prospective membrane.  r: rate.
        v: error neuron.  e: prospective error.
        dphi: phi'(uhat), which the next step multiplies with what comes from above.
        x: W below + b + gamma e.  x_minus_u: x - u_old.  inst: instantaneous error.
        r_old: rate before this step (what the layer above was given).
        above: what the layer above handed down for this step.
    """

    u: FloatArray
    uhat: FloatArray
    r: FloatArray
    v: FloatArray
    e: FloatArray
    dphi: FloatArray
    x: FloatArray
    inst: FloatArray
    x_minus_u: FloatArray
    r_old: FloatArray
    above: FloatArray
    _scratch: FloatArray

    @classmethod
    def zeros(cls, batch: int, size: int, dtype: np.dtype[Any]) -> LayerState:
        """The state before the first step: everything 0, r and phi' included."""
        return cls(*(_aligned((batch, size), dtype) for _ in cls.__slots__))


@dataclass(slots=True)
class _Multipliers:
    """The multipliers of one layer, (B, n): a full array is faster than repeating a row."""

    membrane: FloatArray  # dt / tau_m
    membrane_prospective: FloatArray  # tau_r / tau_m
    error: FloatArray  # dt / tau_r
    error_prospective: FloatArray  # tau_m / tau_r


class Reference:
    """A GLE network in floating point.

    Args:
        network: see `NetworkLike`.
        weights: `<layer>.weight` (n, m) and `<layer>.bias` (n,) of every layer, in network
            units; copied. `<layer>.feedback` where the network has such a path: as its own
            seed draws it if it is missing. Other keys are ignored.
        batch: number of streams B, at least 1.
        dtype: float64 (the oracle) or float32.

    Attributes:
        weights: the live parameters, same keys and shapes as given.
        tau_m: the live membrane time constants, `<layer>` -> (n,); change them with `add`.
        tau_m_floor: `add` keeps tau_m at or above this (unit of dt; dt itself at first).
        state: `<layer>` -> `LayerState`.

    Raises:
        ValueError: weights missing or of the wrong shape, an unknown activation or loss, or
            a batch below 1.
    """

    def __init__(
        self,
        network: NetworkLike,
        weights: Mapping[str, NDArray[Any]],
        batch: int,
        dtype: DTypeLike = np.float64,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        if network.loss not in LOSSES:
            raise ValueError(f"loss is {network.loss!r}; there are {', '.join(LOSSES)}")
        self.network = network
        self.batch = batch
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.tau_m_floor = float(network.dt)
        self.weights: dict[str, FloatArray] = {}
        self.tau_m: dict[str, FloatArray] = {}
        self.state: dict[str, LayerState] = {}
        self._phi: list[Activation] = []
        self._k: list[_Multipliers] = []
        self._input = np.zeros((batch, network.inputs), self.dtype)
        self._mean = np.full(batch, 1 / batch, self.dtype)  # its product with (B, n) is the mean
        self._segments = [topology.segments(network, k) for k in range(len(network.layers))]
        self._feedback = topology.feedback_kind(network)
        self._plain = topology.is_chain(network) and self._feedback == "transposed"
        self._masks: dict[str, FloatArray] = {}  # of weights and feedback
        weights = topology.with_feedback(network, weights)
        for k, layer in enumerate(network.layers):
            shapes: dict[str, tuple[int, ...]] = {
                f"{layer.name}.weight": (layer.size, topology.fan_in(network, k)),
                f"{layer.name}.bias": (layer.size,),
            }
            back = topology.feedback_shape(network, k)
            if back is not None:
                shapes[f"{layer.name}.feedback"] = back
            if topology.masked(network, k):
                there = topology.mask(network, k).astype(self.dtype)
                self._masks[f"{layer.name}.weight"] = there
                if back == there.shape and not topology.is_direct(network):
                    self._masks[f"{layer.name}.feedback"] = there
            for key, shape in shapes.items():
                if key not in weights:
                    raise ValueError(f"{key} is missing from the weights")
                value = self.weights[key] = np.array(weights[key], self.dtype)
                if value.shape != shape:
                    raise ValueError(f"{key} has shape {value.shape}; it must be {shape}")
                if key in self._masks:
                    value *= self._masks[key]
            self.tau_m[layer.name] = np.array(layer.tau_m, self.dtype)
            self.state[layer.name] = LayerState.zeros(batch, layer.size, self.dtype)
            self._phi.append(activation(layer.phi))
            self._k.append(self._make_multipliers(layer))
        self._layers = [self.state[layer.name] for layer in network.layers]

    def _make_multipliers(self, layer: LayerLike) -> _Multipliers:
        tau_m = self.tau_m[layer.name].astype(np.float64)
        tau_r = np.asarray(layer.tau_r, np.float64)
        dt = float(self.network.dt)
        shape = (self.batch, layer.size)
        k = _Multipliers(*(_aligned(shape, self.dtype) for _ in range(4)))
        k.membrane[:] = dt / tau_m
        k.membrane_prospective[:] = tau_r / tau_m
        k.error[:] = dt / tau_r
        k.error_prospective[:] = tau_m / tau_r
        return k

    @property
    def output(self) -> FloatArray:
        """Rates of the output layer after the latest step, (B, outputs); live, not a copy."""
        return self._layers[-1].r

    def reset(self) -> None:
        """All states back to zero; weights and time constants stay as they are."""
        self._input.fill(0)
        for s in self._layers:
            for name in s.__slots__:
                getattr(s, name).fill(0)

    def step(self, x: ArrayLike, target: ArrayLike | None = None) -> None:
        """One time step of length dt of every layer.

        Args:
            x: the inputs (B, inputs) of this step.
            target: None for no target; for mse (B, outputs), where NaN is no target for that
                output of that stream; for cross_entropy (B,) integers, the class or -1 for
                no target.

        Raises:
            ValueError: `x` or `target` of the wrong shape or type, or a class out of range.
        """
        sample = np.asarray(x, self.dtype)
        if sample.shape != self._input.shape:
            raise ValueError(f"input has shape {sample.shape}; expected {self._input.shape}")
        network, top = self.network, self._layers[-1]
        top.above.fill(0)
        if target is not None:
            target_error(network.loss, network.beta, top.r, target, out=top.above)
        self._exchange(sample)
        for s, act, k in zip(self._layers, self._phi, self._k, strict=True):
            _advance(s, act, k, network.gamma)

    def _exchange(self, sample: FloatArray) -> None:
        """Hand each layer its neighbours' values of the previous step: `above`, W below + b."""
        np.copyto(self._input, sample)
        if not self._plain:
            self._exchange_any()
            return
        below = self._input
        s_below: LayerState | None = None
        for layer, s in zip(self.network.layers, self._layers, strict=True):
            weight = self.weights[f"{layer.name}.weight"]
            if s_below is not None:
                np.matmul(s.e, weight, out=s_below.above)
            np.matmul(below, weight.T, out=s.x)
            s.x += self.weights[f"{layer.name}.bias"]
            np.copyto(s.r_old, s.r)
            below, s_below = s.r_old, s

    def _exchange_any(self) -> None:
        """The same for any sources and any feedback."""
        top = self._layers[-1]
        direct = self._feedback in ("direct", "broadcast")
        for s in self._layers:
            np.copyto(s.r_old, s.r)
            if s is not top:
                s.above.fill(0)
        for k, (layer, s) in enumerate(zip(self.network.layers, self._layers, strict=True)):
            weight = self.weights[f"{layer.name}.weight"]
            np.matmul(self._heard(k), weight.T, out=s.x)
            s.x += self.weights[f"{layer.name}.bias"]
            back = self.weights.get(f"{layer.name}.feedback", weight)
            if direct:
                if s is not top:
                    np.matmul(top.e, back, out=s.above)
                continue
            for segment in self._segments[k]:
                if segment.source >= 0:
                    self._layers[segment.source].above += s.e @ back[:, segment.columns]

    def _heard(self, k: int) -> FloatArray:
        """What layer k heard in the latest step: rates of its sources, (B, m)."""
        parts = [
            self._input if s.source < 0 else self._layers[s.source].r_old
            for s in self._segments[k]
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def gradient(
        self, parameters: Iterable[str] = PARAMETERS, learned_only: bool = False
    ) -> dict[str, FloatArray]:
        """The directions of ascent of the latest step, as means over the batch.

        They are made of the values that step used; before the first step they are zero.

        Args:
            parameters: which kinds to compute, of "weight", "bias" and "tau_m".
            learned_only: leave out layers whose `learn` is false.

        Returns:
            `<layer>.weight` (n, m), `<layer>.bias` (n,) and `<layer>.tau_m` (n,), new arrays;
            with Kolen-Pollack `<layer>.feedback` too, where "weight" is asked for.
        """
        kinds = frozenset(parameters)
        grads: dict[str, FloatArray] = {}
        for k, (layer, s) in enumerate(zip(self.network.layers, self._layers, strict=True)):
            if layer.learn or not learned_only:
                if "weight" in kinds:
                    name = f"{layer.name}.weight"
                    dw = np.matmul(s.e.T, self._heard(k))
                    dw /= self.batch
                    if name in self._masks:
                        dw *= self._masks[name]
                    grads[name] = dw
                    if self._feedback == "kolen-pollack" and self._back(layer.name) is not None:
                        grads[f"{layer.name}.feedback"] = dw.copy()
                if "bias" in kinds:
                    grads[f"{layer.name}.bias"] = self._mean @ s.e
                if "tau_m" in kinds:
                    pull = self._mean @ (s.e * s.x_minus_u)
                    grads[f"{layer.name}.tau_m"] = -pull / self.tau_m[layer.name]
        return grads

    def _back(self, name: str) -> FloatArray | None:
        return self.weights.get(f"{name}.feedback")

    def decay(self) -> None:
        """Weights and feedback of layers that learn lose the share that the network's
        feedback says (0 but for Kolen-Pollack)."""
        share = topology.feedback_decay(self.network)
        for layer in self.network.layers if share else ():
            for kind in ("weight", "feedback"):
                if layer.learn and f"{layer.name}.{kind}" in self.weights:
                    self.weights[f"{layer.name}.{kind}"] *= 1 - share

    def add(self, parameter: str, increment: ArrayLike) -> None:
        """Add to one parameter; a time constant stops at `tau_m_floor` and its tau_r stays.

        Args:
            parameter: `<layer>.weight`, `<layer>.bias`, `<layer>.feedback` or
                `<layer>.tau_m`; absent synapses stay 0.
            increment: array of the parameter's shape, in its unit.

        Raises:
            KeyError: there is no such parameter.
        """
        layer_name, _, kind = parameter.rpartition(".")
        if kind != "tau_m":
            self.weights[parameter] += np.asarray(increment, self.dtype)
            if parameter in self._masks:
                self.weights[parameter] *= self._masks[parameter]
            return
        tau_m = self.tau_m[layer_name]
        tau_m += np.asarray(increment, self.dtype)
        np.maximum(tau_m, self.tau_m_floor, out=tau_m)
        for index, layer in enumerate(self.network.layers):
            if layer.name == layer_name:
                self._k[index] = self._make_multipliers(layer)

    def run(
        self,
        X: ArrayLike,
        target: ArrayLike | None = None,
        record: Iterable[str] = ("r",),
        learner: Learner | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, FloatArray]:
        """Step through `X` from the present state, which is not reset first.

        Args:
            X: inputs (T, B, inputs).
            target: None; for mse (T, B, outputs); for cross_entropy integers, (B,) for one
                class during the whole run or (T, B). Missing targets as in `step`.
            record: signals to keep, of r, u, uhat, v, e and the inner x and inst.
            learner: called with this object after every step, e.g. `Sgd` or `Adam`.
            progress: called after every step with the steps done and T.

        Returns:
            `<layer>.<signal>` (T, B, n), the values at the end of each step, and `output`
            (T, B, outputs), r of the output layer.

        Raises:
            ValueError: arrays of the wrong shape or type, or an unknown signal.
        """
        inputs = np.asarray(X, self.dtype)
        if inputs.ndim != 3:
            raise ValueError(f"input has shape {inputs.shape}; expected (T, batch, inputs)")
        steps = len(inputs)
        targets = None if target is None else targets_per_step(self.network.loss, target, steps)
        signals = tuple(dict.fromkeys(record))
        known = SIGNALS + INNER_SIGNALS
        for signal in signals:
            if signal not in known:
                raise ValueError(f"no signal is called {signal!r}; there are {', '.join(known)}")
        records = {"output": np.empty((steps, *self.output.shape), self.dtype)}
        sources = {"output": self.output}
        for name, s in self.state.items():
            for signal in signals:
                key = f"{name}.{signal}"
                sources[key] = getattr(s, signal)
                records[key] = np.empty((steps, *sources[key].shape), self.dtype)
        for t in range(steps):
            self.step(inputs[t], None if targets is None else targets[t])
            if learner is not None:
                learner(self)
            for key, source in sources.items():
                records[key][t] = source
            if progress is not None:
                progress(t + 1, steps)
        return records


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    """Zeros that start at a multiple of 64 bytes, where NumPy's loops are up to twice as fast."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _advance(s: LayerState, act: Activation, k: _Multipliers, gamma: float) -> None:
    """One layer's own equations, in place, from `above` and from W below + b (in `x`)."""
    tmp = s._scratch
    np.multiply(s.dphi, s.above, out=s.inst)  # inst = phi'(uhat) above

    np.subtract(s.inst, s.v, out=tmp)
    np.multiply(tmp, k.error_prospective, out=s.e)
    s.e += s.v  # e = v + (tau_m/tau_r) (inst - v)
    tmp *= k.error
    s.v += tmp  # v += (dt/tau_r) (inst - v)

    if gamma != 0:
        np.multiply(s.e, gamma, out=tmp)
        s.x += tmp  # x = W below + b + gamma e

    np.subtract(s.x, s.u, out=s.x_minus_u)
    np.multiply(s.x_minus_u, k.membrane_prospective, out=s.uhat)
    s.uhat += s.u  # uhat = u + (tau_r/tau_m) (x - u)
    np.multiply(s.x_minus_u, k.membrane, out=tmp)
    s.u += tmp  # u += (dt/tau_m) (x - u)

    act.phi(s.uhat, out=s.r)
    act.dphi_of_rate(s.r, out=s.dphi)


def target_error(
    loss: str, beta: float, r: FloatArray, target: ArrayLike, out: FloatArray
) -> FloatArray:
    """The error of the output layer: minus the derivative of the loss with respect to r.

    Args:
        loss: "cross_entropy", beta (y - softmax(r)), or "mse", beta (y - r).
        beta: nudging strength.
        r: output rates (B, outputs).
        target: (B,) integers for cross_entropy, (B, outputs) for mse; the error is 0 where
            the target is missing (-1 or NaN).
        out: receives the error, (B, outputs), and is returned.

    Raises:
        ValueError: target of the wrong shape or type, or a class out of range.
    """
    y = np.asarray(target)
    shape = r.shape if loss == "mse" else r.shape[:1]
    if y.shape != shape:
        raise ValueError(f"target has shape {y.shape}; {loss} wants {shape}")
    if loss == "mse":
        np.subtract(y, r, out=out)
        np.copyto(out, 0, where=np.isnan(y))
    else:
        if not np.issubdtype(y.dtype, np.integer):
            raise ValueError(f"target is {y.dtype}; cross_entropy wants integers")
        classes = r.shape[1]
        if y.min() < -1 or y.max() >= classes:
            raise ValueError(f"classes {y.min()} to {y.max()}; allowed: -1..{classes - 1}")
        np.negative(softmax(r), out=out)
        out[np.arange(len(y)), y] += 1
        out[y < 0] = 0
    if beta != 1:
        out *= beta
    return out


def targets_per_step(loss: str, target: ArrayLike, steps: int) -> NDArray[Any]:
    """What `Reference.run` takes as targets, with the step as the first axis.

    (T, B, outputs) for mse; (T, B) for cross_entropy, where (B,) is repeated for all steps.
    Raises ValueError on targets for another number of steps.
    """
    targets = np.asarray(target)
    if loss == "cross_entropy" and targets.ndim == 1:
        targets = np.broadcast_to(targets, (steps, *targets.shape))
    if targets.ndim == 0 or len(targets) != steps:
        raise ValueError(f"target has shape {targets.shape}; the input has {steps} steps")
    return targets


class Sgd:
    """Plain gradient ascent, w += lr * gradient, on every layer whose `learn` is true.

    Args:
        lr: step size; may be changed between steps. Per step, not per unit of time.
        parameters: the kinds that learn; add "tau_m" to learn time constants too.
    """

    def __init__(self, lr: float, parameters: Iterable[str] = ("weight", "bias")) -> None:
        self.lr = lr
        self.parameters = tuple(parameters)

    def __call__(self, reference: Reference) -> None:
        for name, grad in reference.gradient(self.parameters, learned_only=True).items():
            grad *= self.lr
            reference.add(name, grad)
        reference.decay()


class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980, algorithm 1) as ascent, where `learn` is true.

    Args:
        lr: step size; may be changed between steps.
        beta1, beta2: decay of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
        parameters: the kinds that learn; add "tau_m" to learn time constants too.

    One object serves one network: moments (in its dtype) and count of steps go on.
    """

    def __init__(
        self,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        parameters: Iterable[str] = ("weight", "bias"),
    ) -> None:
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.parameters = tuple(parameters)
        self.steps = 0
        self._moments: dict[str, tuple[FloatArray, FloatArray]] = {}

    def __call__(self, reference: Reference) -> None:
        self.steps += 1
        unbias1 = 1 - self.beta1**self.steps
        unbias2 = 1 - self.beta2**self.steps
        for name, g in reference.gradient(self.parameters, learned_only=True).items():
            if name not in self._moments:
                self._moments[name] = (np.zeros_like(g), np.zeros_like(g))
            m, v = self._moments[name]
            m *= self.beta1
            m += (1 - self.beta1) * g
            v *= self.beta2
            v += (1 - self.beta2) * np.square(g)
            root = np.sqrt(v / unbias2)
            root += self.eps
            reference.add(name, m * (self.lr / unbias1) / root)
        reference.decay()
