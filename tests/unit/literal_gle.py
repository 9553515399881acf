"""GLE written down a second time, in plain Python, one neuron and one synapse at a time.

A literal transcription of the equations of arXiv 2403.16933 as hwgle discretises
them. Slow on purpose and without NumPy: it shares nothing with the code it
checks, neither arithmetic nor order of sums nor activation functions.
"""

import math


def phi(name, x):
    if name == "linear":
        return x
    if name == "tanh":
        return math.tanh(x)
    if name == "sigmoid":
        return 1.0 / (1.0 + math.exp(-x))
    if name == "softplus":
        return math.log(1.0 + math.exp(x))
    if name == "relu":
        return x if x > 0.0 else 0.0
    raise AssertionError(name)


def dphi(name, x):
    if name == "linear":
        return 1.0
    if name == "tanh":
        return 1.0 / math.cosh(x) ** 2
    if name == "sigmoid":
        return 1.0 / (2.0 + math.exp(x) + math.exp(-x))
    if name == "softplus":
        return 1.0 / (1.0 + math.exp(-x))
    if name == "relu":
        return 1.0 if x > 0.0 else 0.0
    raise AssertionError(name)


class Neuron:
    """One neuron of one stream, before its first step."""

    def __init__(self):
        self.u = self.uhat = self.r = self.v = self.e = self.dphi = 0.0
        self.inst = self.x = self.u_old = 0.0


class LiteralGle:
    """The network; `W[l][i][j]`, `b[l][i]` are its live parameters, `B[l][i][j]` feedback.

    `sources[l]`: what layer l hears, -1 the inputs; None: a chain. `kind`: of feedback, with
    its matrices among the weights; learned with the weights if it is kolen-pollack, when
    `decay` is the share of both that a step of learning takes. `mask[l][i][j]`: 0 for synapses
    that are not there, None for none.
    """

    def __init__(
        self, network, weights, batch, sources=None, kind="transposed", mask=None, decay=0.0
    ):
        depth = len(network.layers)
        self.sources = sources or [[k - 1] for k in range(depth)]
        self.kind, self.decay = kind, decay
        self.mask = mask or [None] * depth
        self.B = [
            None if (back := weights.get(f"{layer.name}.feedback")) is None else back.tolist()
            for layer in network.layers
        ]
        self.net = network
        self.batch = batch
        self.W = [weights[f"{layer.name}.weight"].tolist() for layer in network.layers]
        self.b = [weights[f"{layer.name}.bias"].tolist() for layer in network.layers]
        self.tau_m = [[float(tau) for tau in layer.tau_m] for layer in network.layers]
        self.tau_r = [[float(tau) for tau in layer.tau_r] for layer in network.layers]
        self.neurons = [
            [[Neuron() for _ in range(layer.size)] for layer in network.layers]
            for _ in range(batch)
        ]
        self.dW = self.db = self.dtau_m = None

    def _target_error(self, r, target):
        """`target`: None, a class (cross_entropy), or a list with None for a missing entry."""
        if target is None:
            return [0.0] * len(r)
        if self.net.loss == "mse":
            return [
                0.0 if y is None else self.net.beta * (y - ri)
                for y, ri in zip(target, r, strict=True)
            ]
        powers = [math.exp(ri) for ri in r]
        total = math.fsum(powers)
        return [
            self.net.beta * ((1.0 if i == target else 0.0) - p / total)
            for i, p in enumerate(powers)
        ]

    def step(self, x, targets):
        """`x[b][j]`, `targets[b]`; afterwards dW, db and dtau_m are means over the batch."""
        layers = self.net.layers
        depth = len(layers)
        dt = self.net.dt
        self.dW = [[[0.0] * len(row) for row in w] for w in self.W]
        self.db = [[0.0] * layer.size for layer in layers]
        self.dtau_m = [[0.0] * layer.size for layer in layers]
        for stream in range(self.batch):
            neurons = self.neurons[stream]
            # Everything that crosses from layer to layer is of the previous step.
            r_before = [[n.r for n in layer] for layer in neurons]
            e_before = [[n.e for n in layer] for layer in neurons]
            for k in range(depth):
                below = []
                for source in self.sources[k]:
                    below += list(x[stream]) if source < 0 else r_before[source]
                if k == depth - 1:
                    above = self._target_error(r_before[k], targets[stream])
                else:
                    above = [0.0] * layers[k].size
                if self.kind in ("direct", "broadcast"):
                    for i in range(layers[k].size if k < depth - 1 else 0):
                        for j in range(layers[-1].size):
                            above[i] += self.B[k][j][i] * e_before[-1][j]
                else:
                    for upper in range(depth):
                        at = 0
                        for source in self.sources[upper]:
                            if source == k:
                                back = self.W if self.kind == "transposed" else self.B
                                for i in range(layers[k].size):
                                    for j in range(layers[upper].size):
                                        w = back[upper][j][at + i]
                                        above[i] += w * e_before[upper][j]
                            at += len(x[stream]) if source < 0 else layers[source].size
                for i in range(layers[k].size):
                    n = neurons[k][i]
                    tau_m, tau_r = self.tau_m[k][i], self.tau_r[k][i]
                    n.inst = n.dphi * above[i]
                    n.e = n.v + tau_m / tau_r * (n.inst - n.v)
                    n.v = n.v + dt / tau_r * (n.inst - n.v)
                    n.x = self.b[k][i] + self.net.gamma * n.e
                    for j in range(len(below)):
                        n.x += self.W[k][i][j] * below[j]
                    n.u_old = n.u
                    n.uhat = n.u_old + tau_r / tau_m * (n.x - n.u_old)
                    n.u = n.u_old + dt / tau_m * (n.x - n.u_old)
                    n.r = phi(layers[k].phi, n.uhat)
                    n.dphi = dphi(layers[k].phi, n.uhat)
                    for j in range(len(below)):
                        if self.mask[k] is None or self.mask[k][i][j]:
                            self.dW[k][i][j] += n.e * below[j] / self.batch
                    self.db[k][i] += n.e / self.batch
                    self.dtau_m[k][i] += -n.e * (n.x - n.u_old) / tau_m / self.batch

    def learn(self, lr):
        """Plain SGD, ascent, on layers that learn."""
        for k, layer in enumerate(self.net.layers):
            if not layer.learn:
                continue
            for i in range(layer.size):
                self.b[k][i] += lr * self.db[k][i]
                for j in range(len(self.W[k][i])):
                    self.W[k][i][j] += lr * self.dW[k][i][j]
                    self.W[k][i][j] -= self.decay * self.W[k][i][j]
                    if self.kind == "kolen-pollack" and self.B[k] is not None:
                        self.B[k][i][j] += lr * self.dW[k][i][j]
                        self.B[k][i][j] -= self.decay * self.B[k][i][j]

    def signal(self, k, name):
        """`[b][i]` of layer k."""
        return [[getattr(n, name) for n in stream[k]] for stream in self.neurons]
