"""Chips with one imperfection each, and with all of them."""

from __future__ import annotations

from typing import Any

from hwgle.chip import Chip

# name -> what it changes in the ideal profile
EACH: dict[str, dict[str, dict[str, Any]]] = {
    "weight bits": {"weight": {"bits": 6, "stored_bits": 6}},
    "scale per neuron": {"weight": {"scale": "neuron"}},
    "synapse gain": {"weight": {"mismatch": 0.1}},
    "stuck synapses": {"weight": {"stuck_zero": 0.05, "stuck_full": 0.05}},
    "drift": {"weight": {"drift": 100.0}},
    "input bits": {"input": {"bits": 5}},
    "input converter": {"input": {"bits": 6, "offset": 0.5, "gain": 0.05}},
    "rate bits": {"rate": {"bits": 7}},
    "membrane range": {"membrane": {"range": 1.0}},
    "membrane bits": {"membrane": {"bits": 14}},
    "membrane noise": {"membrane": {"noise": 0.02}},
    "leak bits": {"leak": {"bits": 5}},
    "leak mismatch": {"leak": {"mismatch": 0.1}},
    "leak mismatch apart": {"leak": {"mismatch": 0.1, "tracks": False}},
    "activation gain": {"activation": {"gain": 0.1}},
    "activation offset": {"activation": {"offset": 0.1}},
    "dead neurons": {"activation": {"dead": 0.2}},
    "error bits": {"error": {"bits": 8}},
    "error noise": {"error": {"noise": 0.01}},
    "read-out bits": {"readout": {"bits": 6}},
    "read-out offset": {"readout": {"offset": 2.0}},
    "read-out gain": {"readout": {"gain": 0.05}},
    "read-out noise": {"readout": {"noise": 0.7}},
    "update bits": {"plasticity": {"update_bits": 4}},
    "update noise": {"plasticity": {"update_noise": 0.3}},
}


def chip_of(changes: dict[str, dict[str, Any]], seed: int) -> Chip:
    """The ideal chip, changed."""
    data = Chip.load("ideal").model_dump()
    for section, values in changes.items():
        data[section].update(values)
    data["seed"] = seed
    return Chip.model_validate(data)


def with_one(name: str, seed: int) -> Chip:
    """A chip with one imperfection of EACH."""
    return chip_of(EACH[name], seed)


def with_all(seed: int) -> Chip:
    """A chip with all of them at once."""
    changes: dict[str, dict[str, Any]] = {}
    for one in EACH.values():
        for section, values in one.items():
            changes.setdefault(section, {}).update(values)
    return chip_of(changes, seed)
