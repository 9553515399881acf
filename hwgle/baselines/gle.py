"""GLE itself: the directions of the errors that live in the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.method import Memoryless


class Gle(Memoryless):
    """dW = e below^T, db = e, dtau_m = -e (x - u_old)/tau_m at every step."""

    in_network = True

    def after_step(self, net: Copies, target: NDArray[np.generic]) -> Array:
        """See Method; the target has driven the errors already."""
        below = [net.input, *(s.r_old for s in net.layers[:-1])]
        return net.directions([s.e for s in net.layers], below)
