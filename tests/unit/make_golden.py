"""Makes hwgle/zoo/golden anew: only where the arithmetic is meant to change.

    python tests/unit/make_golden.py

Weights and inputs are drawn once and kept as integers, so that no later version of NumPy's
generators can change them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hwgle.arrays import save_npz_atomic
from hwgle.calibrate import FOR_TRAINING, calibrate
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.golden import load_golden
from hwgle.identity import save
from hwgle.network import Network
from hwgle.quantise import build_image, quantise_weights, to_int16
from hwgle.verify.drawing import Signal, draw_weights

FOLDER = Path(__file__).parents[2] / "hwgle" / "zoo" / "golden"
STEPS = 96
IDEAL = Chip.load("ideal").profile.model_dump()
EVERYTHING = {
    "weight": {
        "bits": 6, "stored_bits": 10, "scale": "neuron", "mismatch": 0.2, "stuck_zero": 0.02,
        "stuck_full": 0.02, "drift": 300.0,
    },
    "rate": {"bits": 10},
    "input": {"bits": 6, "offset": 1.0, "gain": 0.05},
    "membrane": {"bits": 20, "noise": 0.01},
    "leak": {"bits": 8, "mismatch": 0.1, "tracks": False},
    "activation": {"gain": 0.1, "offset": 0.05, "dead": 0.05},
    "error": {"bits": 10, "noise": 0.002},
    "readout": {"bits": 8, "offset": 1.0, "gain": 0.05, "noise": 0.5},
    "plasticity": {"rounding": "stochastic", "update_bits": 6, "update_noise": 0.1},
}  # fmt: skip


def layer(name: str, phi: str, *populations: tuple[int, float, float]) -> dict[str, Any]:
    rows = [{"size": n, "tau_m": m, "tau_r": r} for n, m, r in populations]
    return {"name": name, "phi": phi, "populations": rows}


CASES: dict[str, dict[str, Any]] = {
    "plain": {
        "about": "tanh and linear layers, classes, errors without learning, chip ideal",
        "network": {
            "inputs": 2, "loss": "cross_entropy", "gamma": 0.0,
            "layers": [
                layer("hidden", "tanh", (4, 0.6, 0.2), (3, 0.4, 0.4)),
                layer("upper", "linear", (5, 0.4, 0.2)),
                layer("out", "linear", (3, 0.4, 0.4)),
            ],
        },
        "chip": {}, "seed": 0, "batch": 1, "rate": 0.0,
    },
    "learning": {
        "about": "SGD on the chip with stochastic rounding, errors that drive membranes",
        "network": {
            "inputs": 3, "loss": "mse", "gamma": 0.05,
            "layers": [
                layer("hidden", "sigmoid", (4, 0.5, 0.2), (3, 0.2, 0.6)),
                layer("out", "linear", (2, 0.3, 0.3)),
            ],
        },
        "chip": {}, "seed": 5, "batch": 1, "rate": 0.02,
    },
    "narrow": {
        "about": "8-bit weights and rates, 12-bit errors, softplus and relu, learning",
        "network": {
            "inputs": 2, "loss": "cross_entropy", "gamma": 0.01,
            "layers": [
                layer("hidden", "softplus", (5, 0.5, 0.1), (2, 0.4, 0.4)),
                layer("upper", "relu", (6, 0.3, 0.3)),
                layer("out", "linear", (3, 0.4, 0.4)),
            ],
        },
        "chip": {"weight": {"bits": 8, "stored_bits": 16}, "rate": {"bits": 8},
                 "error": {"bits": 12}},
        "seed": 7, "batch": 1, "rate": 0.02,
    },
    "imperfect": {
        "about": "every imperfection that a chip can have, learning",
        "network": {
            "inputs": 2, "loss": "mse", "gamma": 0.02,
            "layers": [
                layer("hidden", "tanh", (6, 0.6, 0.2)),
                layer("upper", "relu", (5, 0.3, 0.3)),
                layer("out", "linear", (2, 0.4, 0.2)),
            ],
        },
        "chip": EVERYTHING, "seed": 11, "batch": 1, "rate": 0.05,
    },
}  # fmt: skip


def make(name: str, case: dict[str, Any]) -> dict[str, Any]:
    data = {"format": "hwgle/network/1", "name": name, "dt": 0.1, "beta": 1.0, **case["network"]}
    network = Network.model_validate(data)
    (FOLDER / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    profile = {**IDEAL, **case["chip"], "name": f"golden-{name}"}
    chip = Chip.model_validate({**profile, "seed": case["seed"]})
    save(chip, FOLDER / f"{name}-chip.yaml")
    rng = np.random.default_rng(case["seed"])
    weights = draw_weights(network, rng)
    batch = case["batch"]
    x = Signal(rng, batch, network.inputs, 1.0).at(0, STEPS)
    if network.loss == "mse":
        target = Signal(rng, batch, network.outputs, 0.8).at(0, STEPS)
    else:
        target = rng.integers(0, network.outputs, batch)
    scales = calibrate(network, chip, weights, x, target, FOR_TRAINING)
    image = build_image(network, chip, scales, batch=batch)
    xi, _ = to_int16(x, scales.input, chip.input_max)
    yi = target.astype(np.int16)
    if network.loss == "mse":
        yi, _ = to_int16(target, scales.target, 32767)
    arrays: dict[str, Any] = {"scales": scales.to_array(), "input": xi, "target": yi}
    for layer_name, (w, b) in quantise_weights(image, weights).items():
        arrays |= {f"{layer_name}.weight": w, f"{layer_name}.bias": b}
    save_npz_atomic(FOLDER / f"{name}.npz", arrays)
    return {"about": case["about"], "learning_rate": case["rate"], "digest": "0"}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    told = {name: make(name, case) for name, case in CASES.items()}
    path = FOLDER / "digests.json"
    path.write_text(json.dumps(told, indent=2) + "\n")
    with Emulator("scalar") as emulator:
        for name, own in told.items():
            own["digest"] = f"{load_golden(name).run(emulator).digest:016x}"
    path.write_text(json.dumps(told, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
