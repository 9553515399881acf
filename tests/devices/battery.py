"""What every body must do, once: each body subclasses Battery and names itself.

Everything is compared by `==` with the emulator, scalar and with the kernels of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
from imperfections import EACH, with_all, with_one
from networks import Case, Quantised, chip_with, quantised, random_case

from hwgle.accuracy import chip_votes
from hwgle.calibrate import FOR_TRAINING
from hwgle.chip import Chip
from hwgle.device import SIGNALS, Block, Device, Records
from hwgle.devices import open_device
from hwgle.devices.emulator import Emulator
from hwgle.errors import DeviceRefused, UsageError
from hwgle.quantise import quantise_weights
from hwgle.session import run
from hwgle.tasks import Split

KERNELS = ("scalar", None)  # None: the fastest of this machine


def same_records(got: Records, want: Records) -> None:
    """Every number that a block brought is equal."""
    assert got.steps == want.steps
    assert np.array_equal(got.fracs, want.fracs)
    assert len(got.signals) == len(want.signals)
    for a, b in zip(got.signals, want.signals, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert (got.votes is None) == (want.votes is None)
    assert got.votes is None or np.array_equal(got.votes, want.votes)


def same_state(got: Device, want: Device) -> None:
    """Everything that a chip tells of itself is equal."""
    assert got.digest() == want.digest()
    assert got.weights_digest() == want.weights_digest()
    assert np.array_equal(got.stream_digests(), want.stream_digests())
    assert got.formats() == want.formats()
    assert got.counters() == want.counters()
    assert got.snapshot() == want.snapshot()
    a, b = got.read_weights(), want.read_weights()
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name][0], b[name][0])
        assert np.array_equal(a[name][1], b[name][1])


def every_signal(case: Case) -> list[tuple[int, str]]:
    return [(k, s) for k in range(len(case.network.layers)) for s in SIGNALS]


def blocks(q: Quantised, case: Case, cuts: list[int], **options: Any) -> list[Block]:
    """A run cut into blocks at these steps."""
    edges = [0, *cuts, q.input.shape[0]]
    per_step = case.network.loss == "mse"
    return [
        Block(q.input[a:b], q.target[a:b] if per_step else q.target, **options)
        for a, b in pairwise(edges)
    ]


class Battery:
    """Subclass it, name the body, and say how large its cases may be."""

    url: ClassVar[str]
    layers: ClassVar[int] = 3
    neurons: ClassVar[int] = 10
    batch: ClassVar[int] = 3
    steps: ClassVar[int] = 40
    cases: ClassVar[int] = 3

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls) -> Iterator[Device]:
        """One body for the whole class: starting one takes a while."""
        with open_device(cls.url, shadow=False) as device:
            yield device

    @pytest.fixture
    def device(self, opened: Device) -> Device:
        return opened

    def case(self, seed: int, loss: str | None = None) -> Case:
        """A random case that this body can hold."""
        for k in range(seed, seed + 100):
            found = random_case(
                k,
                layers=self.layers,
                neurons=self.neurons,
                inputs=3,
                batch=self.batch,
                steps=self.steps,
            )
            if loss in (None, found.network.loss):
                return found
        raise AssertionError("no such case")

    def loaded(
        self, device: Device, case: Case, chip: Chip, gradient: bool = False, **options: Any
    ) -> tuple[Quantised, list[Device]]:
        """The body and two emulators, with the same network and weights."""
        q = quantised(case, chip, margins=FOR_TRAINING, **options)
        weights = quantise_weights(q.image, case.weights)
        twins = [Emulator(kernels) for kernels in KERNELS]
        for one in (device, *twins):
            one.load(q.image, case.batch, gradient=gradient)
            one.write_weights(weights)
        return q, [device, *twins]

    def test_runs_are_equal(self, device: Device, seed: int) -> None:
        for k in range(self.cases):
            case = self.case(seed + 100 * k, ("mse", "cross_entropy")[k % 2])
            q, bodies = self.loaded(device, case, chip_with(seed=k))
            (block,) = blocks(q, case, [], record=every_signal(case), votes=True)
            got, *want = (one.run(block) for one in bodies)
            for twin, records in zip(bodies[1:], want, strict=True):
                same_records(got, records)
                same_state(device, twin)
            device.reset()
            bodies[1].reset()
            same_state(device, bodies[1])

    def test_learning_is_equal(self, device: Device, seed: int) -> None:
        for k, rounding in enumerate(("stochastic", "nearest", "stochastic")[: self.cases]):
            case = self.case(seed + 100 * k + 1000, ("cross_entropy", "mse")[k % 2])
            chip = chip_with(seed=seed + k, rounding=rounding)
            options = {"learning_rate": 0.1, "range_every": 16}
            q, bodies = self.loaded(device, case, chip, **options)
            first, second = blocks(q, case, [q.input.shape[0] // 2], learn=True, ranging=True)
            for one in bodies:
                one.run(first)
                one.set_rate(3)
                one.run(second)
            for twin in bodies[1:]:
                same_state(device, twin)
            assert sum(c["updates"] for c in device.counters()) > 0

    def test_every_imperfection_is_equal(self, device: Device, seed: int) -> None:
        names = [*EACH, "all", "all"]
        for k, name in enumerate(names):
            case = self.case(seed + 50 * k + 7000, ("cross_entropy", "mse")[k % 2])
            chip = with_all(seed + k) if name == "all" else with_one(name, seed + k)
            options = {"learning_rate": 0.1, "range_every": 16}
            q, bodies = self.loaded(device, case, chip, **options)
            first, second = blocks(
                q, case, [q.input.shape[0] // 2],
                learn=True, ranging=True, record=every_signal(case), votes=True,
            )  # fmt: skip
            for one in bodies:
                one.reset(3)
            for block in (first, second):
                got, *want = (one.run(block) for one in bodies)
                for records in want:
                    same_records(got, records)
            for twin in bodies[1:]:
                same_state(device, twin)

    def test_weights_are_written_added_and_read(self, device: Device, seed: int) -> None:
        case = self.case(seed + 2000)
        _, bodies = self.loaded(device, case, chip_with(seed=3))
        rng = np.random.default_rng(seed)
        stored = device.read_weights()
        large = {
            name: (
                rng.integers(-(2**15), 2**15, w.shape).astype(np.int16),
                rng.integers(-(2**31), 2**31, b.shape).astype(np.int32),
            )
            for name, (w, b) in stored.items()
        }
        first = dict([next(iter(large.items()))])
        for one in bodies:
            one.write_weights(large)
            one.add_weights(large)
            one.add_weights(first)
        assert sum(c["sat_w"] for c in device.counters()) > 0
        for twin in bodies[1:]:
            same_state(device, twin)

    def test_snapshots_are_equal_and_restored(self, device: Device, seed: int) -> None:
        case = self.case(seed + 3000)
        options = {"learning_rate": 0.1, "range_every": 16}
        q, bodies = self.loaded(device, case, chip_with(seed=5), **options)
        twin = bodies[1]
        first, second = blocks(q, case, [q.input.shape[0] // 2], learn=True, ranging=True)
        for one in (device, twin):
            one.run(first)
        middle = device.snapshot()
        assert middle == twin.snapshot()
        for one in (device, twin):
            one.run(second)
        end = twin.snapshot()
        assert device.snapshot() == end
        device.restore(middle)
        same = device.snapshot()
        assert same == middle
        device.run(second)
        assert device.snapshot() == end

    def test_gradients_are_equal(self, device: Device, seed: int) -> None:
        if not device.limits.gradient:
            pytest.skip("this body reads no gradient out")
        case = self.case(seed + 4000)
        q, bodies = self.loaded(device, case, chip_with(seed=6), gradient=True, range_every=16)
        for drop in (0, 6):
            for one in bodies:
                one.clear_gradient(drop)
                one.run(blocks(q, case, [], gradient=True, ranging=True)[0])
            got, *want = (one.read_gradient() for one in bodies)
            for other in want:
                for a, b in zip(got, other, strict=True):
                    assert np.array_equal(a.weight, b.weight)
                    assert np.array_equal(a.bias, b.bias)
                    assert (a.frac, a.bias_frac) == (b.frac, b.bias_frac)
        assert any(g.weight.any() for g in got)

    def test_several_blocks_under_way(self, device: Device, seed: int) -> None:
        case = self.case(seed + 5000, "cross_entropy")
        q, bodies = self.loaded(device, case, chip_with(seed=7), learning_rate=0.1)
        options = {"learn": True, "record": every_signal(case), "votes": True}
        steps = q.input.shape[0]
        cuts = sorted({1, 2, steps // 3, steps // 2, steps - 1} - {0, steps})
        parts = blocks(q, case, cuts, **options)
        pending = [device.submit(part) for part in parts]
        want = [bodies[1].run(part) for part in parts]
        for k in reversed(range(len(parts))):
            same_records(pending[k].result(), want[k])
        assert pending[0].result() is pending[0].result()
        same_state(device, bodies[1])

    def test_what_does_not_fit_is_refused(self, device: Device, seed: int) -> None:
        case = self.case(seed + 6000)
        other = self.case(seed + 6500)
        q, bodies = self.loaded(device, other, chip_with())
        foreign = device.snapshot()
        q, bodies = self.loaded(device, case, chip_with())
        (block,) = blocks(q, case, [])
        device.run(block)
        before = device.digest()
        with pytest.raises(UsageError, match="is not"):
            device.run(Block(q.input[:, :0]))
        with pytest.raises(UsageError, match="do not fit"):
            device.write_weights({case.network.layers[0].name: (np.zeros((1, 1)), np.zeros(1))})
        with pytest.raises((DeviceRefused, UsageError), match=r"snapshot of another|belongs to"):
            device.restore(foreign)
        with pytest.raises(UsageError):
            device.set_rate(1000)
        assert device.digest() == before
        bodies[1].run(block)
        same_state(device, bodies[1])

    def test_sessions_are_equal(self, device: Device, seed: int) -> None:
        """More streams than fit at once, one group after another."""
        case = self.case(seed + 7000, "cross_entropy")
        rng = np.random.default_rng(seed)
        x = np.concatenate([case.x, case.x[:, ::-1] * 0.5, rng.normal(size=case.x.shape)], axis=1)
        chip = Chip.load("ideal")
        results = []
        for body in (device, Emulator("scalar")):
            got = run(body, case.network, chip, case.weights, x, record=("r", "u")).arrays()
            results.append(got)
        assert results[0].keys() == results[1].keys()
        for key in results[0]:
            assert np.array_equal(results[0][key], results[1][key]), key

    def test_votes_are_equal(self, device: Device, seed: int) -> None:
        case = self.case(seed + 8000, "cross_entropy")
        chip = Chip.load("ideal")
        q = quantised(case, chip)
        split = Split(np.swapaxes(case.x, 0, 1), np.zeros(case.batch, dtype=np.int64))
        got, want = (
            chip_votes(body, case.network, chip, case.weights, q.image.scales, split)
            for body in (device, Emulator())
        )
        assert np.array_equal(got.sums, want.sums)
        assert (got.digest, got.clipped) == (want.digest, want.clipped)
