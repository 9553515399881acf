"""How a run is cut up, what is recorded and where it is interrupted changes no bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from networks import Case, Quantised, chip_with, quantised, random_case
from test_kernels import VECTORS, all_signals, differences, table_exists

from hwgle.calibrate import FOR_TRAINING
from hwgle.device import Block
from hwgle.devices.emulator import Emulator
from hwgle.errors import UsageError
from hwgle.quantise import Image, build_image, quantise_weights

TABLES = ["scalar", *filter(table_exists, VECTORS)]
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"uhat": False}, {"gradient": True})
LEARNING: dict[str, dict[str, Any]] = {
    "no learning": {"learn": False, "ranging": False},
    "learning": {"learn": True, "ranging": False},
    "ranging": {"learn": False, "ranging": True},
    "learning and ranging": {"learn": True, "ranging": True},
}


def prepared(seed: int, **largest: int) -> tuple[Case, Quantised]:
    """A case with an image that learns fast and looks at its ranges every 5 steps."""
    case = random_case(
        seed, layers=4, neurons=largest.get("neurons", 24), steps=largest.get("steps", 90)
    )
    chip = chip_with(seed, rounding="stochastic" if seed % 2 else "nearest")
    options = {"learning_rate": 2.0**-5, "range_every": 5, "range_clip": 0.01}
    return case, quantised(case, chip, None, FOR_TRAINING, **options)


def run_pieces(
    chip: Emulator, q: Quantised, cuts: Sequence[int], rng: np.random.Generator | None, **how: Any
) -> list[np.ndarray]:
    """Run in pieces that end at `cuts`; with `rng` each piece records another subset.

    Returns the output rates of all steps, recorded or not, as far as they were.
    """
    pairs = all_signals(q.image.network)
    held = q.image.network.loss == "cross_entropy"
    top = len(q.image.network.layers) - 1
    rates = []
    for first, last in zip([0, *cuts], [*cuts, len(q.input)], strict=True):
        record = [(top, "r")]
        if rng is not None:
            record += [pairs[k] for k in rng.permutation(len(pairs))[: rng.integers(len(pairs))]]
        block = Block(
            q.input[first:last], q.target if held else q.target[first:last],
            record=record, votes=rng is not None, **how,
        )  # fmt: skip
        rates.append(chip.run(block).signals[0])
    return rates


def opened(case: Case, image: Image, kernels: str | None = None, **options: Any) -> Emulator:
    """An emulator with the case's weights."""
    chip = Emulator(kernels)
    chip.load(image, case.batch, **options)
    chip.write_weights(quantise_weights(image, case.weights))
    return chip


def state_of(chip: Emulator) -> dict[str, Any]:
    """All that can be read from a chip between two calls."""
    result: dict[str, Any] = {
        "digest": chip.digest(),
        "streams": chip.stream_digests(),
        "counters": chip.counters(),
        "formats": chip.formats(),
        "snapshot": chip.snapshot(),
    }
    for name, (w, b) in chip.read_weights().items():
        result[f"{name}.weight"], result[f"{name}.bias"] = w, b
    return result


@pytest.mark.parametrize("how", LEARNING)
def test_cut_points_and_records(how: str, seed: int) -> None:
    moved = 0
    for k in range(8):
        case, q = prepared(seed + k)
        rng = np.random.default_rng(seed + k)
        with opened(case, q.image) as chip:
            whole = run_pieces(chip, q, [], None, **LEARNING[how])
            expected = state_of(chip)
            moved += sum(c["range_moves"] for c in expected["counters"])
        for options in OPTIONS:
            count = int(rng.integers(1, 8))
            cuts = sorted(rng.integers(0, len(q.input) + 1, count).tolist())
            recording = rng if options.get("uhat", True) else None
            with opened(case, q.image, **options) as chip:
                rates = run_pieces(chip, q, cuts, recording, **LEARNING[how])
                assert differences(state_of(chip), expected) == [], (case, how, cuts, options)
                assert np.array_equal(np.concatenate(rates), whole[0]), (case, how, cuts)
    assert (moved > 0) == LEARNING[how]["ranging"]


def test_every_cut_point(seed: int) -> None:
    """One run cut at each of its steps, step by step included."""
    case, q = prepared(seed, neurons=9, steps=40)
    how = LEARNING["learning and ranging"]
    with opened(case, q.image) as chip:
        run_pieces(chip, q, [], None, **how)
        expected = state_of(chip)
    for cuts in [[k] for k in range(len(q.input) + 1)] + [list(range(1, len(q.input)))]:
        with opened(case, q.image) as chip:
            run_pieces(chip, q, cuts, None, **how)
            assert differences(state_of(chip), expected) == [], (case, cuts)


@pytest.mark.parametrize("kernels", TABLES)
def test_streams_of_a_batch_do_not_know_of_each_other(kernels: str, seed: int) -> None:
    """Without learning, a batch equals its parts, down to single streams, in any order."""
    for k in range(8):
        case, q = prepared(seed + 50 + k)
        network, batch = case.network, case.batch
        pairs = all_signals(network)
        held = network.loss == "cross_entropy"
        rng = np.random.default_rng(seed + k)
        with opened(case, q.image, kernels) as chip:
            whole = chip.run(Block(q.input, q.target, record=pairs)).signals
            digests = chip.stream_digests()
        order = rng.permutation(batch)
        singles = [order[b : b + 1] for b in range(batch)]
        cuts = sorted(rng.integers(0, batch + 1, 2).tolist())
        for parts in (singles, [p for p in np.split(order, cuts) if p.size]):
            for part in parts:
                with Emulator(kernels) as chip:
                    # the image is the same: the batch is no part of it but for the rate
                    chip.load(q.image, len(part))
                    chip.write_weights(quantise_weights(q.image, case.weights))
                    target = q.target[part] if held else q.target[:, part]
                    got = chip.run(Block(q.input[:, part], target, record=pairs)).signals
                    assert np.array_equal(chip.stream_digests(), digests[part]), (case, part)
                for pair, one, all_of in zip(pairs, got, whole, strict=True):
                    assert np.array_equal(one, all_of[:, part]), (case, part, pair)


@pytest.mark.parametrize("how", LEARNING)
def test_snapshot_in_the_middle(how: str, seed: int) -> None:
    """Taken up by a fresh emulator of any kernel table, the run ends with the same bits."""
    for k in range(6):
        case, q = prepared(seed + 100 + k)
        rng = np.random.default_rng(seed + k)
        cut = int(rng.integers(0, len(q.input) + 1))
        rest = Quantised(
            q.image, q.input[cut:],
            q.target if case.network.loss == "cross_entropy" else q.target[cut:],
        )  # fmt: skip
        for first in TABLES:
            with opened(case, q.image, first) as chip:
                run_pieces(chip, q, [cut], None, **LEARNING[how])
                expected = state_of(chip)
            with opened(case, q.image, first) as chip:
                head = Quantised(
                    q.image, q.input[:cut],
                    q.target if case.network.loss == "cross_entropy" else q.target[:cut],
                )  # fmt: skip
                run_pieces(chip, head, [], None, **LEARNING[how])
                taken = chip.snapshot()
                assert chip.snapshot() == taken
            for second in TABLES:
                with Emulator(second) as chip:
                    chip.load(q.image, case.batch, gradient=bool(k % 2), uhat=bool(k % 3))
                    if k % 2:  # whatever it did before must not shine through
                        run_pieces(chip, rest, [], None, **LEARNING[how])
                    chip.restore(taken)
                    assert chip.snapshot() == taken, (case, how, cut)
                    run_pieces(chip, rest, [], None, **LEARNING[how])
                    assert differences(state_of(chip), expected) == [], (case, how, cut, second)


def test_snapshot_of_something_else_is_refused(seed: int) -> None:
    case, q = prepared(seed)
    with opened(case, q.image) as chip:
        run_pieces(chip, q, [], None, learn=True)
        taken = chip.snapshot()
    scales = q.image.scales
    first = scales.layers[0]
    others = [
        build_image(case.network, q.image.chip, scales, batch=case.batch, learning_rate=0.5),
        build_image(case.network, chip_with(seed + 1), scales, batch=case.batch),
        build_image(
            case.network, q.image.chip, scales.with_layer(0, weight=first.weight + 1),
            batch=case.batch,
        ),
    ]  # fmt: skip
    for image in others:
        with opened(case, image) as chip:
            run_pieces(chip, q, [], None)
            before = chip.snapshot()
            with pytest.raises(UsageError):
                chip.restore(taken)
            assert chip.snapshot() == before  # refused as a whole
    with Emulator() as chip:
        chip.load(q.image, case.batch + 1)
        with pytest.raises(UsageError):
            chip.restore(taken)
    with opened(case, q.image) as chip:
        before = chip.snapshot()
        for wrong in (b"", taken[:-1], taken + b"\0", bytes(len(taken))):
            with pytest.raises(UsageError):
                chip.restore(wrong)
        assert chip.snapshot() == before
        chip.restore(taken)


def test_reset_starts_again(seed: int) -> None:
    for k in range(6):
        case, q = prepared(seed + 200 + k)
        with opened(case, q.image) as chip:
            run_pieces(chip, q, [], None)
            expected, digests = chip.digest(), chip.stream_digests()
            assert np.any(digests != 0)
            chip.reset()
            assert not np.any(chip.stream_digests())
            run_pieces(chip, q, [], None)
            assert chip.digest() == expected, case
            assert np.array_equal(chip.stream_digests(), digests), case
            # with learning: the weights stay as learned and are written anew
            chip.reset()
            run_pieces(chip, q, [], None, learn=True)
            after, learned = chip.digest(), chip.weights_digest()
            chip.reset()
            assert chip.weights_digest() == learned, case
            chip.write_weights(quantise_weights(q.image, case.weights))
            run_pieces(chip, q, [], None, learn=True)
            assert chip.digest() == after, case


def test_one_flipped_bit_changes_the_digest(seed: int) -> None:
    """In any bit of a weight or a bias that is not clipped away."""
    rng = np.random.default_rng(seed)
    for k in range(6):
        case, q = prepared(seed + 300 + k, steps=25, neurons=12)
        weights = quantise_weights(q.image, case.weights)

        def digest(values: Any, block: Block, case: Case = case, image: Image = q.image) -> int:
            with Emulator() as chip:
                chip.load(image, case.batch)
                chip.write_weights(values)
                chip.run(block)
                return chip.digest()

        expected = digest(weights, Block(q.input, q.target))
        for _ in range(20):
            name = f"l{rng.integers(len(case.network.layers))}"
            w, b = weights[name][0].copy(), weights[name][1].copy()
            if rng.random() < 0.7:
                i, j = (int(rng.integers(size)) for size in w.shape)
                flipped = int(w[i, j]) ^ 1 << int(rng.integers(15))
                if abs(flipped) > 32764:  # would be clipped when it is written
                    continue
                w[i, j] = flipped
            else:
                b[rng.integers(b.size)] ^= 1 << int(rng.integers(20))
            value = digest({**weights, name: (w, b)}, Block(q.input, q.target))
            assert value != expected, (case, name)


def test_one_flipped_bit_of_an_input_changes_the_digest(seed: int) -> None:
    """The state sees it, so its stream's digest does, and no other stream's."""
    rng = np.random.default_rng(seed)
    for k in range(20):
        case, q = prepared(seed + 400 + k, steps=25, neurons=12)
        case.weights["l0.weight"][:] += 0.2 * np.sign(case.weights["l0.weight"])
        with opened(case, q.image) as chip:
            chip.run(Block(q.input, q.target))
            expected = chip.stream_digests()
        x = q.input.copy()
        t, b, j = (int(rng.integers(size)) for size in x.shape)
        x[t, b, j] ^= 1 << int(rng.integers(13))
        with opened(case, q.image) as chip:
            chip.run(Block(x, q.target))
            differ = np.flatnonzero(chip.stream_digests() != expected)
        assert differ.tolist() == [b], (case, t, b, j)
