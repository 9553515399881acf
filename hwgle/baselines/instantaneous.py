"""Instantaneous backpropagation: the gradient of the loss of one step, blind to time.

Every neuron is taken for an instantaneous one, uhat = x, and every connection for one
without delay: with the rates r and slopes phi'(uhat) that the (slow) network has at the end
of this step,

    e_L = phi' * (target error),    e_l = phi' * W^T e_{l+1},    dW = e below^T,  db = e

In a network that is instantaneous and at rest this is the gradient. tau_m gets GLE's
-e (x - u_old)/tau_m with this e: the effect of tau_m on uhat of this very step, in units of
the effect of x.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.method import Memoryless


class Instantaneous(Memoryless):
    """See the module."""

    in_network = False

    def after_step(self, net: Copies, target: NDArray[np.generic]) -> Array:
        """See Method."""
        above = net.error_of_output(target)
        errors: list[Array] = []
        for s in reversed(net.layers):
            errors.append(s.dphi * above)
            above = np.matmul(errors[-1], s.weight)
        below = [net.input, *(s.r for s in net.layers[:-1])]
        return net.directions(errors[::-1], below)
