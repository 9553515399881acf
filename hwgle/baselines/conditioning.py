"""How fast a method closes in on the teacher of `lagline` from each direction.

    python -m hwgle.baselines.conditioning --seed 0 --out DIR

Near the teacher the mean direction of a method is J (parameters - teacher). The eigenvalues of
J, here by central differences with the weights held, tell whether the teacher attracts (all
real parts negative) and how differently stiff directions are: the ratio of the largest to the
smallest is what an optimiser has to overcome. Four parameters: both weights and tau_m.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgle.baselines.copies import Array, Copies
from hwgle.baselines.gle import Gle
from hwgle.baselines.instantaneous import Instantaneous
from hwgle.baselines.method import Method
from hwgle.baselines.online import Online
from hwgle.baselines.rtrl import Rtrl
from hwgle.cache import replacing
from hwgle.network import Network
from hwgle.tasks import Series, lagline

KINDS = ("weight", "tau_m")
OFFSET = 1e-3
SETTLING, AVERAGED = 10, 5  # periods


def jacobian(method: Method, series: Series) -> NDArray[np.float64]:
    """J of a method at the teacher, (4, 4), rows and columns in the order of `Copies.flat`."""
    teacher = lagline.teacher()
    names = [name for name in teacher if name.rpartition(".")[2] in KINDS]
    moved = [teacher | {name: teacher[name] + sign * OFFSET} for name in names for sign in (1, -1)]
    net = Copies(Network.load("lagline"), moved, len(series))
    total = np.zeros_like(net.flat)

    def sum_up(online: Online, target: Array, direction: Array | None) -> None:
        if direction is not None and online.step >= SETTLING * lagline.PERIOD:
            np.add(total, direction, out=total)

    online = Online(net, method, None, series, loops=True, watcher=sum_up)
    online.run((SETTLING + AVERAGED) * lagline.PERIOD)
    mean = total[:, net.mask(KINDS) > 0] / (AVERAGED * lagline.PERIOD)
    slopes: NDArray[np.float64] = (mean[0::2] - mean[1::2]).T / (2 * OFFSET)
    return slopes


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m hwgle.baselines.conditioning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    series = lagline.load_series(given.seed, given.seed + 1, given.streams).train
    methods: dict[str, Method] = {
        "gle": Gle(),
        "rtrl": Rtrl(),
        "bptt4": Rtrl(400),
        "bptt2": Rtrl(200),
        "bptt1": Rtrl(100),
        "instantaneous": Instantaneous(),
    }
    found: dict[str, Any] = {}
    for name, method in methods.items():
        values = np.linalg.eigvals(jacobian(method, series))
        values = values[np.argsort(np.abs(values))]
        found[name] = {
            "eigenvalues_real": values.real.tolist(),
            "eigenvalues_imaginary": values.imag.tolist(),
            "attracts": bool((values.real < 0).all()),
            "ratio": float(np.abs(values[-1]) / np.abs(values[0])),
        }
        print(name, json.dumps(found[name]), flush=True)
    with replacing(given.out / "conditioning.json") as path:
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
