"""The adjoint's own errors, step by step: what each use of a parameter does to the future.

`Rtrl` and `Truncated` file the gradient under the time of the LOSS. GLE's errors are made for
another order: e(t) below(t) is the part that the drive x(t) at time t has in the losses from t
on, the adjoint's costate of x. Summed over a long run both are the same gradient; over a
block that is short against the time scales of the signals they are not, and it is the costate
that GLE's update is to be compared with. It needs to look ahead, by as many steps as the network
remembers anything for; a direction therefore comes `ahead` steps late. gamma is not
differentiated.
"""

from __future__ import annotations

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.truncated import Truncated


class Costate(Truncated):
    """See the module; a yardstick for `following`, no learner.

    Args:
        block: steps that are summed to one direction.
        ahead: steps to look beyond them; losses later than that are taken as independent.
    """

    def __init__(self, block: int, ahead: int) -> None:
        super().__init__(block + ahead, block)
        self.delay = ahead

    def _now(self, net: Copies, done: int) -> Array | None:
        """The direction of the steps done - ahead - block .. done - ahead."""
        if done < self.window or (done - self.delay) % self.every:
            return None
        return self._direction(net, done, slice(None), slice(self.every))
