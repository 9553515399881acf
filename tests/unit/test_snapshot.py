"""The layout of a snapshot, against the same values read by other means."""

from __future__ import annotations

import numpy as np
import pytest

from hwgle.chip import Chip
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.errors import DeviceError
from hwgle.onchip import OnChip
from hwgle.quantise import quantise_weights
from hwgle.snapshot import COUNTERS, differences, pieces, place, step_of
from tests.networks import quantised, random_case


@pytest.mark.parametrize("case_seed", range(6))
def test_every_piece_is_what_other_calls_read(case_seed: int) -> None:
    case = random_case(case_seed, layers=4, neurons=12, inputs=5, batch=5, steps=60)
    chip = Chip.load("ideal")
    q = quantised(case, chip, learning_rate=1e-2, range_every=16)
    with Emulator() as emu:
        emu.load(q.image, case.batch)
        emu.write_weights(quantise_weights(q.image, case.weights))
        signals = ("u", "v", "r", "e", "uhat")
        layers = range(len(case.network.layers))
        pairs = [(k, s) for k in layers for s in signals]
        records = emu.run(Block(q.input, q.target, learn=True, ranging=True, record=pairs))
        raw = emu.snapshot()
        parts = list(pieces(case.network, case.batch))
        assert parts[-1].end == len(raw)
        got = {(p.layer, p.kind): p.values(raw) for p in parts}
        assert step_of(raw) == case.x.shape[0]
        np.testing.assert_array_equal(got[None, "digest"], emu.stream_digests())
        weights, counters, formats = emu.read_weights(), emu.counters(), emu.formats()
        for k, layer in enumerate(case.network.layers):
            np.testing.assert_array_equal(got[k, "weight"], weights[layer.name][0])
            np.testing.assert_array_equal(got[k, "bias"], weights[layer.name][1])
            assert got[k, "counter"].tolist() == [counters[k][name] for name in COUNTERS]
            f = formats[k]
            assert got[k, "format"][:4].tolist() == [f.stored, f.rate, f.error, f.error_state]
            for s in signals:
                if (k, s) in got:
                    recorded = records.signals[pairs.index((k, s))][-1].T
                    np.testing.assert_array_equal(got[k, s], recorded)
        assert (len(layers) - 1, "uhat") in got


@pytest.mark.parametrize("rule", ["sgd", "normalised", "sign"])
def test_differences_name_what_was_changed(rule: str) -> None:
    case = random_case(3, layers=3, neurons=9, inputs=4, batch=3, steps=20)
    learner = OnChip.named(rule)
    q = quantised(case, Chip.load("ideal"), learner=learner)
    with Emulator() as emu:
        emu.load(q.image, case.batch)
        raw = emu.snapshot()
    parts = list(pieces(case.network, case.batch, learner))
    assert parts[-1].end == len(raw)
    for p in parts:
        changed = bytearray(raw)
        last = tuple(n - 1 for n in p.shape)
        changed[p.end - p.dtype.itemsize] ^= 1
        (d,) = differences(case.network, case.batch, raw, bytes(changed), learner)
        assert (d.layer, d.kind) == (p.layer, p.kind)
        assert d.at == (() if p.names else last)
        assert d.first ^ d.second == 1
        assert place(case.network, d)
    with pytest.raises(DeviceError):
        differences(case.network, case.batch, raw, raw[:-1], learner)
    with pytest.raises(DeviceError):
        differences(case.network, case.batch, raw, bytes([raw[0] ^ 1]) + raw[1:], learner)
