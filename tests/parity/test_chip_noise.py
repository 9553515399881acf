"""What the noise of a chip is worth: sizes, independence, shares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chip_checks import (
    SIGMAS,
    check_against_oracle,
    check_uncorrelated,
    noise_plan,
    oracle_of,
    part,
    same,
    state_of,
    target_at,
)
from imperfections import chip_of
from networks import make_network
from numpy.typing import NDArray
from random_images import (
    FEATURES,
    ONE,
    Core,
    Plan,
    all_signals,
    draw_plan,
    draw_run,
    noise_of,
)

from hwgle.devices.emulator import Emulator
from hwgle.network import Population
from hwgle.session import run as session_run

SD_OF_BYTES = 21845**0.5


def noise_records(plan: Plan, steps: int, batch: int, first: int = 0) -> dict[Any, NDArray[Any]]:
    """All signals of a chip with weights 0 that gets input 0, and labels that ask for nothing:
    without a target there is no noise on errors."""
    core = Core(replace(plan, loss=0).words(), batch, first=first)
    x, labels = np.zeros((steps, batch, 1), np.int16), np.full(batch, -1, np.int16)
    return core.run(x, labels, record=all_signals(plan))


def check_noise(values: NDArray[Any], sd: float) -> None:
    """Mean 0, this sd, the shape of four bytes' sum, within 5 standard errors."""
    x = values.astype(float).ravel()
    n = x.size
    assert n >= 10000
    assert abs(x.mean()) < SIGMAS * sd / n**0.5
    kurtosis = 3 - 6 / 5 / 4  # of four uniform numbers
    assert abs(x.var() / sd**2 - 1) < SIGMAS * ((kurtosis - 1) / n) ** 0.5
    assert abs((x**4).mean() / sd**4 - kurtosis) < SIGMAS * (24 / n) ** 0.5
    assert np.abs(x).max() <= 510 / SD_OF_BYTES * sd + 1


NOISES = {"membrane": "u", "error": "e", "read-out": "r"}


def noisy_plan(kind: str, sd: float, seed: int, layers: int = 1, neurons: int = 8) -> Plan:
    """A chip with one noise, of this sd in the LSB of what it shows itself in."""
    plan = noise_plan(layers, neurons, seed)
    noise_u = noise_of(sd) if kind in ("membrane", "all") else 0
    plan.analog = [(0, ONE, noise_u, ONE)] * (layers * neurons)
    for y in plan.layers:
        y.noise_e = noise_of(sd) if kind in ("error", "all") else 0
        y.noise_r = noise_of(sd * ONE) if kind in ("read-out", "all") else 0
    return plan


@pytest.mark.parametrize("sd", [30.0, 400.0])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_the_sd_of_its_word(kind: str, sd: float, seed: int) -> None:
    records = noise_records(noisy_plan(kind, sd, seed), steps=400, batch=10)
    for other, signal in NOISES.items():
        x = records[0, signal]
        if other == kind:
            check_noise(x, sd)
        else:
            assert not x.any(), other


def test_small_noise_is_as_often_up_as_down(seed: int) -> None:
    """Below 1 LSB: mean 0 still, since rounding of halves up is all that is not even."""
    x = noise_records(noisy_plan("membrane", 0.4, seed), steps=500, batch=20)[0, "u"]
    share_up, share_down = (x > 0).mean(), (x < 0).mean()
    assert 0.05 < share_up < 0.2
    assert abs(share_up - share_down) < SIGMAS * (2 * share_up / x.size) ** 0.5


@pytest.mark.parametrize("kind", NOISES)
def test_noise_of_neurons_streams_steps_and_layers_is_independent(kind: str, seed: int) -> None:
    signal = NOISES[kind]
    records = noise_records(noisy_plan(kind, 100.0, seed, layers=2), steps=1200, batch=10)
    x = np.stack([records[k, signal] for k in range(2)], axis=-1)  # T, B, n, layers
    _, b, n, layer = np.indices((1, *x.shape[1:]))
    words = (b * 2 + layer) * 2 + n // 4
    check_uncorrelated(x.reshape(len(x), -1), words.ravel())
    steps = x.reshape(len(x), -1)
    for lag in (1, 2, 3):
        check_uncorrelated(np.stack([steps[:-lag].ravel(), steps[lag:].ravel()], axis=1))
    other = noise_records(noisy_plan(kind, 100.0, seed + 1, layers=2), steps=1200, batch=10)
    check_uncorrelated(np.stack([x[..., 0].ravel(), other[0, signal].ravel()], axis=1))
    shifted = noise_records(noisy_plan(kind, 100.0, seed, layers=2), 1200, 10, first=1)
    assert np.array_equal(shifted[0, signal][:, :-1], x[:, 1:, :, 0])


def test_noises_of_different_purposes_are_independent(seed: int) -> None:
    """Same seed, layer, step and index. (A step's read-out has the number of the next one.)"""
    records = noise_records(noisy_plan("all", 100.0, seed), steps=2000, batch=10)
    u, e, r = (records[0, s].astype(float) for s in ("u", "e", "r"))
    check_uncorrelated(np.stack([u.ravel(), e.ravel(), r.ravel()], axis=1))
    check_uncorrelated(np.stack([u[1:].ravel(), e[1:].ravel(), r[:-1].ravel()], axis=1))


@pytest.mark.parametrize("kind", NOISES)
def test_four_neurons_of_one_word_are_uncorrelated(kind: str, seed: int) -> None:
    """100,000 draws of each pair: their product has the mean 0, within 5 standard errors, as have
    products of three; whether they are odd they know of each other."""
    plan = noisy_plan(kind, SD_OF_BYTES, seed, neurons=6)  # so that a value is its sum of bytes
    x = noise_records(plan, 1000, 100)[0, NOISES[kind]].reshape(-1, 6).astype(float)
    for value in x.T:
        check_noise(value, SD_OF_BYTES)
    of_a_word = x[:, :4] / SD_OF_BYTES
    # E[a^2 b^2] = 0.7 of two, 0.4 + ... of three: at most 1
    bound = SIGMAS / len(x) ** 0.5
    for a in range(4):
        for b in range(a):
            assert abs((of_a_word[:, a] * of_a_word[:, b]).mean()) < bound, (a, b)
    for out in range(4):
        assert abs(np.delete(of_a_word, out, axis=1).prod(axis=1).mean()) < bound, out
    odd = x % 2
    assert (odd[:, :4] == odd[:, :1]).all()
    assert abs((odd[:, 0] == odd[:, 4]).mean() - 0.5) < bound


def test_errors_that_nobody_listens_to_have_no_noise(table: str, seed: int) -> None:
    """Without a target and with gamma 0 error neurons decay; else their noise is there in each
    step; wherever a run is cut."""
    for k in range(6):
        gamma = (15, 20000 << 8 | 19)[k % 2]
        plan = replace(draw_plan(seed, 900 + k, on=FEATURES), gamma=gamma)
        for y in plan.layers:
            y.noise_e = noise_of(2.0**y.v_frac_extra)
        batch = (1, 1, 5, 18, 33, 2)[k]
        run = draw_run(plan, seed, 900 + k, steps=12, batch=batch)
        oracle = oracle_of(plan, run)
        core, cut = (Core(plan.words(), batch, table).write(run.weights) for _ in range(2))
        pairs = [(n, s) for n in range(len(plan.layers)) for s in ("v", "e", "u")]
        for first, last, given in ((0, 3, True), (3, 9, False), (9, 12, True)):
            x, target = part(plan, run, first, last)
            got = core.run(x, target if given else None, learn=given, record=pairs)
            for t in range(first, last):
                asked = target_at(plan, run, t)
                oracle.step(run.x[t].tolist(), asked.tolist() if given else None, given)
                for n, s in pairs:
                    same(got[n, s][t - first], getattr(oracle.layers[n], s), plan.what, t, n, s)
                one = part(plan, run, t, t + 1)
                cut.run(one[0], one[1] if given else None, learn=given)
        assert state_of(core) == state_of(cut), plan.what
        assert core.stream_digests() == oracle.digests
    x = np.zeros((50, 20, 1), np.int16)
    for gamma in (15, 1 << 8 | 31):  # none, and one so small that nothing comes of it
        plan = replace(noisy_plan("error", 30.0, seed), gamma=gamma)
        e = Core(plan.words(), 20, table).run(x, record=[(0, "e")])[0, "e"]
        assert e.any() == (gamma != 15)


def test_update_noise_is_a_share_of_the_update(seed: int, table: str) -> None:
    """Weights back to 0 after each step: what they have learned then is the update alone."""
    for relative in (0.05, 0.3):
        plan = noise_plan(1, 24, seed)
        plan.inputs, plan.stochastic = 24, 0
        plan.layers[0] = replace(plan.layers[0], learn=1, w_frac=12, w_max=32000, w_shift=2)
        plan.layers[0].rate_shift = 8 - 8 - 10 + 12  # g * 2^-8
        plan.input_frac, plan.target_frac = 10, 8
        plan.update_noise = noise_of(relative * ONE)
        core = Core(plan.words(), 1, table)
        zero = [(np.zeros((24, 24), np.int16), np.zeros(24, np.int32))]
        x, y = np.full((1, 1, 24), 1000, np.int16), np.full((1, 1, 24), 900, np.int16)
        core.write(zero).run(x, y)
        seen = []
        for _ in range(24):
            core.write(zero).run(x, y, learn=True)
            seen.append(core.read()[0][0])
        updates = np.array(seen).reshape(24, -1)
        exact = 900 * 1000 / 256
        noise = (updates / exact - 1) * ONE
        check_noise(noise, relative * ONE)
        check_uncorrelated(updates.T)
        check_uncorrelated(np.array(seen).reshape(-1, 24))
        by_neuron = np.moveaxis(np.array(seen), 1, -1).reshape(-1, 24)
        check_uncorrelated(by_neuron, np.arange(24) // 4)


def test_update_noise_has_the_sign_of_nothing(seed: int) -> None:
    """An update of one LSB is not made larger on average, nor is its sign lost."""
    plan = draw_plan(seed, 400, on=("update_noise",), layers=1)
    run = draw_run(plan, seed, 400, steps=10, batch=4)
    plan.update_noise = noise_of(0.2 * ONE)
    check_against_oracle(plan, run, learn=True)


def test_membrane_noise_reaches_a_rate_by_its_share(seed: int) -> None:
    """rms as the profile says on u; on the rate 1 - tau_r/tau_m of it: an instantaneous neuron
    answers with its input and shows none."""
    network = make_network([3], ["linear"], np.random.default_rng(seed), inputs=1, loss="mse")
    layer = network.layers[0]
    taus = ((0.6, 0.1), (0.6, 0.3), (0.6, 0.6))
    populations = tuple(Population(size=1, tau_m=m, tau_r=r) for m, r in taus)
    layer = layer.model_copy(update={"populations": populations})
    network = network.model_copy(update={"layers": (layer,), "dt": 0.1, "gamma": 0.0})
    chip = chip_of({"membrane": {"noise": 0.1}}, seed)
    weights = {f"{layer.name}.weight": np.zeros((3, 1)), f"{layer.name}.bias": np.full(3, 0.5)}
    x = np.ones((4000, 6, 1))
    with Emulator() as body:
        got = session_run(body, network, chip, weights, x, record=("r", "u"))
    for signal, share in (("u", (1.0, 1.0, 1.0)), ("r", (5 / 6, 1 / 2, 0.0))):
        rms = got.signals[f"{layer.name}.{signal}"][200:].std(axis=(0, 1))
        assert rms == pytest.approx(0.1 * np.array(share), rel=0.05, abs=1e-3), (signal, seed)
