"""Rivals of GLE, each against something independent: finite differences, the adjoint, GLE."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from hwgle import reference
from hwgle.adjoint import adjoint_gradient, cosine
from hwgle.baselines import conditioning, lagline, lagnet
from hwgle.baselines.copies import Copies
from hwgle.baselines.costate import Costate
from hwgle.baselines.exact import exact_gradient
from hwgle.baselines.following import Following, cosines
from hwgle.baselines.gle import Gle
from hwgle.baselines.instantaneous import Instantaneous
from hwgle.baselines.online import Online
from hwgle.baselines.optimisers import Adam, Momentum
from hwgle.baselines.rtrl import Rtrl
from hwgle.baselines.truncated import Truncated
from hwgle.errors import UsageError
from hwgle.reference import PARAMETERS, Reference
from hwgle.tasks import Series
from hwgle.tasks import lagline as lagline_task

SMOOTH = ("linear", "tanh", "sigmoid", "softplus")
LOSSES = ("mse", "cross_entropy")
METHODS = (Gle, Instantaneous, Rtrl, lambda: Rtrl(8), lambda: Truncated(6, 3), lambda: Truncated(5))


def make_case(seed, loss="mse", *, copies=3, batch=2, steps=14, gamma=0.0, instantaneous=False):
    """A random network, a set of parameters for each copy, inputs and targets with gaps."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(1, 5, int(rng.integers(1, 4)))]
    sizes[-1] = max(sizes[-1], 2)
    layers, weights, below = [], [{} for _ in range(copies)], 2
    for k, size in enumerate(sizes):
        tau_m = rng.uniform(0.2, 1.2, size)
        tau_r = tau_m if instantaneous else rng.uniform(0.1, 1.2, size)
        phi = SMOOTH[(seed + k) % 4]
        layers.append(
            SimpleNamespace(name=f"l{k}", phi=phi, size=size, tau_m=tau_m, tau_r=tau_r, learn=True)
        )
        for c, mine in enumerate(weights):
            mine[f"l{k}.weight"] = rng.uniform(-1.5, 1.5, (size, below)) / math.sqrt(below)
            mine[f"l{k}.bias"] = rng.uniform(-0.5, 0.5, size)
            if c and not instantaneous:  # the first copy has the network's own
                mine[f"l{k}.tau_m"] = rng.uniform(0.2, 1.2, size)
        below = size
    network = SimpleNamespace(
        dt=0.1, inputs=2, loss=loss, beta=0.7, gamma=gamma, layers=tuple(layers)
    )
    x = rng.normal(size=(steps, copies, batch, 2))
    if loss == "mse":
        y = rng.normal(size=(steps, copies, batch, below))
        y[rng.random(y.shape) < 0.1] = np.nan
    else:
        y = rng.integers(-1, below, (steps, copies, batch))
    return network, weights, x, y


def of_copy(network, weights):
    """The network with the time constants of one copy."""
    layers = [
        SimpleNamespace(**(vars(y) | {"tau_m": weights.get(f"{y.name}.tau_m", y.tau_m)}))
        for y in network.layers
    ]
    return SimpleNamespace(**(vars(network) | {"layers": tuple(layers)}))


def total(network, weights, x, y, method):
    """Sum of a method's directions over a run with fixed parameters, (C, P)."""
    net = Copies(network, weights, x.shape[2])
    method.begin(net)
    direction = np.zeros_like(net.flat)
    for t in range(len(x)):
        net.step(x[t], y[t] if method.in_network else None)
        found = method.after_step(net, y[t])
        if found is not None:
            direction += found
    return direction


def run_loss(network, weights, x, y, first=0):
    """Loss of one copy in the oracle, summed over the steps from `first` on."""
    r = Reference(network, weights, x.shape[1]).run(x)["output"]
    value = 0.0
    for t in range(first, len(x)):
        if network.loss == "mse":
            value += 0.5 * np.nansum((y[t] - r[t]) ** 2)
        else:
            for b, label in enumerate(y[t]):
                if label >= 0:
                    value += np.log(np.exp(r[t, b]).sum()) - r[t, b, label]
    return network.beta * value / x.shape[1]


def differences(function, at, h=1e-5):
    """Minus the derivative of a function of a flat array, by central differences."""
    estimate = np.empty(at.size)
    for i in range(at.size):
        up, down = at.copy(), at.copy()
        up[i] += h
        down[i] -= h
        estimate[i] = -(function(up) - function(down)) / (2 * h)
    return estimate


def unflat(net, row):
    return {name: part.copy() for name, part in net.named(row).items()}


# --- copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(8))
def test_every_copy_is_the_oracle(seed, loss):
    network, weights, x, y = make_case(seed, loss, gamma=0.2)
    net = Copies(network, weights, x.shape[2])
    method = Gle()
    oracles = [
        Reference(of_copy(network, mine), {k: v for k, v in mine.items() if "tau" not in k}, 2)
        for mine in weights
    ]
    rng = np.random.default_rng(seed)
    for t in range(len(x)):
        net.step(x[t], y[t])
        found = net.named(method.after_step(net, y[t]))
        change = 0.01 * rng.normal(size=net.flat.shape)
        for c, oracle in enumerate(oracles):
            oracle.step(x[t, c], y[t, c])
            for s in net.layers:
                for name in ("u", "uhat", "r", "v", "e"):
                    expected = getattr(oracle.state[s.name], name)
                    np.testing.assert_allclose(
                        getattr(s, name)[c], expected, rtol=1e-10, atol=1e-13
                    )
            for name, grad in oracle.gradient().items():
                np.testing.assert_allclose(found[name][c], grad, rtol=1e-9, atol=1e-12)
            for name, part in net.named(change).items():
                oracle.add(name, part[c])
        net.add(change)


def test_parameters_are_views_and_a_state_can_be_taken_up():
    network, weights, x, y = make_case(3)
    net = Copies(network, weights, 2)
    net.step(x[0], y[0])
    net.add(np.ones_like(net.flat))
    for s in net.layers:
        for kind in PARAMETERS:
            assert np.shares_memory(getattr(s, kind), net.flat)
        np.testing.assert_array_equal(s.weight[1], weights[1][f"{s.name}.weight"] + 1)
    other = Copies(network, weights, 2)
    other.restore(net.state())
    for n in (net, other):
        n.step(x[1], y[1])
    np.testing.assert_array_equal(net.output, other.output)


def test_without_a_target_errors_rest_and_gamma_is_nothing():
    network, weights, x, _ = make_case(1, gamma=0.5)
    silent = SimpleNamespace(**(vars(network) | {"gamma": 0.0}))
    a, b = Copies(network, weights, 2), Copies(silent, weights, 2)
    for t in range(5):
        a.step(x[t])
        b.step(x[t])
    np.testing.assert_array_equal(a.output, b.output)
    assert not any(s.e.any() or s.v.any() for s in a.layers)


def test_senseless_arguments_of_copies():
    network, weights, _, _ = make_case(0)
    with pytest.raises(ValueError, match="at least one"):
        Copies(network, [], 2)
    with pytest.raises(ValueError, match=r"l0\.bias is missing"):
        Copies(network, [{k: v for k, v in weights[0].items() if k != "l0.bias"}], 2)
    with pytest.raises(ValueError, match=r"l0\.weight has shape"):
        Copies(network, [weights[0] | {"l0.weight": np.zeros((9, 9))}], 2)
    with pytest.raises(ValueError, match="hinge"):
        Copies(SimpleNamespace(**(vars(network) | {"loss": "hinge"})), weights, 2)
    with pytest.raises(ValueError, match="delay"):
        Copies(network, weights, 2).mask(("weight", "delay"))


def test_mask_keeps_frozen_layers_and_other_kinds_out():
    network, weights, _, _ = make_case(2)
    network.layers[0].learn = False
    net = Copies(network, weights, 2)
    for name, part in net.named(net.mask(("weight", "tau_m"))).items():
        assert (part == (name[:2] != "l0" and not name.endswith("bias"))).all()


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(12))
def test_rtrl_is_the_adjoint(seed, loss):
    network, weights, x, y = make_case(seed, loss)
    _, expected = exact_gradient(Copies(network, weights, 2), x, y)
    found = total(network, weights, x, y, Rtrl())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(12))
def test_a_window_as_long_as_the_run_is_the_adjoint(seed, loss):
    network, weights, x, y = make_case(seed, loss)
    _, expected = exact_gradient(Copies(network, weights, 2), x, y)
    found = total(network, weights, x, y, Truncated(len(x)))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("window", [1, 2, 7])
def test_rtrl_that_forgets_is_truncated_backpropagation(window, loss):
    case = make_case(20 + window, loss)
    expected = total(*case, Truncated(window))
    found = total(*case, Rtrl(window))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    with pytest.raises(ValueError, match="window of 0"):
        Rtrl(0)


@pytest.mark.parametrize("every", [1, 2, 7])
def test_overlapping_windows_add_up_to_the_adjoint(every):
    network, weights, x, y = make_case(5)
    _, expected = exact_gradient(Copies(network, weights, 2), x, y)
    found = total(network, weights, x, y, Truncated(len(x), every))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_exact_is_the_adjoint_of_each_copy():
    network, weights, x, y = make_case(4, gamma=0.3)  # gamma counts as 0
    losses, found = exact_gradient(Copies(network, weights, 2), x, y)
    for c, mine in enumerate(weights):
        alone = of_copy(network, mine)
        alone.gamma = 0.0
        loss, expected = adjoint_gradient(alone, mine, x[:, c], y[:, c])
        assert losses[c] == loss
        np.testing.assert_array_equal(
            found[c], np.concatenate([grad.ravel() for grad in expected.values()])
        )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("method", [Rtrl, lambda: Truncated(14)])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_finite_differences_of_a_run(seed, method, loss):
    network, weights, x, y = make_case(seed, loss, copies=2)
    net = Copies(network, weights, 2)
    found = total(network, weights, x, y, method())
    for c in range(2):

        def loss_at(row, c=c):
            mine = unflat(net, row)
            return run_loss(of_copy(network, mine), mine, x[:, c], y[:, c])

        expected = differences(loss_at, net.flat[c])
        np.testing.assert_allclose(
            found[c], expected, rtol=1e-6, atol=1e-7 * max(1, np.abs(expected).max())
        )


@pytest.mark.parametrize(("window", "every"), [(5, 5), (6, 3), (4, 1)])
def test_finite_differences_of_a_window(window, every):
    """The losses of the last steps, from a state that was reached before and stays as it is."""
    network, weights, x, y = make_case(6, copies=1, steps=12)
    last = 12 - 12 % every
    net = Copies(network, weights, 2)
    method = Truncated(window, every)
    method.begin(net)
    for t in range(last):
        if t == last - window:
            before = {name: array.copy() for name, array in net.state().items()}
        net.step(x[t])
        found = method.after_step(net, y[t])

    def loss_at(row):
        net.restore(before | {"flat": row[None]})
        value = 0.0
        for t in range(last - window, last):
            net.step(x[t])
            if t >= last - every:
                value += 0.5 * np.nansum((y[t] - net.output) ** 2)
        return network.beta * value / 2

    expected = differences(loss_at, net.flat[0].copy())
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loss", LOSSES)
def test_instantaneous_networks_at_rest_gle_is_backpropagation(seed, loss):
    network, weights, x, y = make_case(seed, loss, instantaneous=True)
    net = Copies(network, weights, 2)
    target = np.zeros_like(y[0]) if loss == "cross_entropy" else np.nan_to_num(y[0])
    for _ in range(400):  # u relaxes; rates and errors are there after a step per layer
        net.step(x[0], target)
    gle, backpropagation = (m.after_step(net, target) for m in (Gle(), Instantaneous()))
    keep = net.mask(("weight", "bias")) > 0
    np.testing.assert_allclose(gle[:, keep], backpropagation[:, keep], rtol=1e-9, atol=1e-11)

    def loss_at(row, c):
        rates = x[0, c]
        mine = unflat(net, row)
        for layer in network.layers:
            a = rates @ mine[f"{layer.name}.weight"].T + mine[f"{layer.name}.bias"]
            rates = {
                "linear": lambda a: a,
                "tanh": np.tanh,
                "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
                "softplus": lambda a: np.log1p(np.exp(a)),
            }[layer.phi](a)
        if loss == "mse":
            return 0.7 / 2 * ((target[c] - rates) ** 2).sum() / 2
        return 0.7 * (np.log(np.exp(rates).sum(1)) - rates[:, 0]).sum() / 2

    for c in range(3):
        expected = differences(lambda row, c=c: loss_at(row, c), net.flat[c])
        np.testing.assert_allclose(backpropagation[c, keep], expected[keep], rtol=1e-5, atol=1e-8)


def test_instantaneous_backpropagation_is_blind_to_time():
    """It needs the state and the input of this step and nothing of what came before."""
    network, weights, x, y = make_case(7)
    net = Copies(network, weights, 2)
    method = Instantaneous()
    for t in range(10):
        net.step(x[t])
    expected = method.after_step(net, y[9])
    fresh = Copies(network, weights, 2)
    fresh.restore(net.state())
    fresh.input = x[9]
    np.testing.assert_array_equal(method.after_step(fresh, y[9]), expected)
    exact = total(network, weights, x[:10], y[:10], Rtrl())
    assert cosine(exact, expected) < 0.99


@pytest.mark.parametrize("window", [0, 3])
def test_senseless_windows_are_refused(window):
    with pytest.raises(ValueError, match="window"):
        Truncated(window, 4)


# --- optimisers ---------------------------------------------------------------------------------


def test_adam_is_that_of_the_oracle():
    network, weights, x, y = make_case(9, copies=1)
    kinds = ("weight", "bias", "tau_m")
    oracle = Reference(network, weights[0], 2)
    oracle.run(x[:, 0], y[:, 0], learner=reference.Adam(0.01, parameters=kinds))
    net, adam = Copies(network, weights, 2), Adam(0.01)
    for t in range(len(x)):
        net.step(x[t], y[t])
        net.add(adam.increment(Gle().after_step(net, y[t])))
    for name, part in net.named(net.flat).items():
        layer, _, kind = name.partition(".")
        expected = oracle.tau_m[layer] if kind == "tau_m" else oracle.weights[name]
        np.testing.assert_allclose(part[0], expected, rtol=1e-8, atol=1e-10)


def test_a_rate_for_each_copy():
    gradient = np.ones((2, 3))
    rates = np.array([[0.1], [0.2]])
    np.testing.assert_allclose(Adam(rates).increment(gradient), rates * gradient, rtol=1e-6)
    np.testing.assert_allclose(Momentum(rates).increment(gradient), rates * gradient)


def test_momentum_is_the_geometric_sum():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 2, 3))
    momentum = Momentum(0.1, 0.8)
    found = [momentum.increment(g) for g in gradients]
    for t in range(6):
        expected = 0.1 * sum(0.8 ** (t - k) * gradients[k] for k in range(t + 1))
        np.testing.assert_allclose(found[t], expected, rtol=1e-12)


# --- online -------------------------------------------------------------------------------------


def small_series(steps=40, streams=2):
    rng = np.random.default_rng(0)
    return Series(rng.normal(size=(streams, steps, 2)), 0.3 * rng.normal(size=(streams, steps, 2)))


def small_online(method, **options):
    network, *_ = make_case(8)
    network.layers = network.layers[:1]
    network.layers[0].size = 2
    for name in ("tau_m", "tau_r"):
        setattr(network.layers[0], name, np.full(2, 0.5))
    rng = np.random.default_rng(1)
    mine = [{"l0.weight": rng.normal(size=(2, 2)), "l0.bias": np.zeros(2)} for _ in range(3)]
    return Online(Copies(network, mine, 2), method, Adam(0.01), small_series(), **options)


@pytest.mark.parametrize("make", METHODS)
def test_continued_from_a_file_is_uninterrupted(make, tmp_path):
    options = {"loops": True, "block": 10, "kinds": PARAMETERS, "settle": 7}
    whole = small_online(make(), **options)
    whole.run(100)
    first, second = small_online(make(), **options), small_online(make(), **options)
    assert second.load(tmp_path / "none.npz") is None
    first.run(43)
    first.save(tmp_path / "half.npz", {"more": np.arange(3.0)})
    np.testing.assert_array_equal(second.load(tmp_path / "half.npz")["more"], np.arange(3.0))
    second.run(57)
    assert second.step == 100
    np.testing.assert_array_equal(second.net.flat, whole.net.flat)
    np.testing.assert_array_equal(second.loss, whole.loss)
    np.testing.assert_array_equal(second.parameters, whole.parameters)
    with pytest.raises(UsageError, match="another more"):
        second.load(tmp_path / "half.npz", {"more": np.arange(4.0)})
    (tmp_path / "half.npz").write_bytes(b"damaged")
    assert second.load(tmp_path / "half.npz") is None


def test_online_with_gle_is_the_oracle_with_targets_a_step_later():
    online = small_online(Gle(), block=5)
    oracle = Reference(
        online.net.network,
        {name: part[1] for name, part in online.net.named(online.net.flat.copy()).items()},
        2,
    )
    series = small_series()
    late = np.full((40, 2, 2), np.nan)
    late[1:] = np.swapaxes(series.y, 0, 1)[:-1]
    online.run(40)
    out = oracle.run(np.swapaxes(series.x, 0, 1), late, learner=reference.Adam(0.01))["output"]
    for name in ("l0.weight", "l0.bias"):
        got = online.net.named(online.net.flat)[name][1]
        np.testing.assert_allclose(got, oracle.weights[name], rtol=1e-8)
    error = 0.5 * ((np.swapaxes(series.y, 0, 1) - out) ** 2).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(
        [block[1] for block in online.loss], error.reshape(8, 5).mean(axis=1), rtol=1e-8
    )


def test_each_copy_may_have_a_series_of_its_own():
    network, weights, x, _ = make_case(10)
    y = np.random.default_rng(0).normal(size=(*x.shape[:3], network.layers[-1].size))
    series = [Series(np.swapaxes(x[:, c], 0, 1), np.swapaxes(y[:, c], 0, 1)) for c in range(3)]
    together = Online(Copies(network, weights, 2), Rtrl(), Adam(0.01), series, block=7)
    together.run(14)
    for c in range(3):
        alone = Online(Copies(network, weights[c : c + 1], 2), Rtrl(), Adam(0.01), series[c])
        alone.run(14)
        np.testing.assert_allclose(together.net.flat[c], alone.net.flat[0], rtol=1e-9)
    with pytest.raises(ValueError, match="2 series for 3"):
        Online(Copies(network, weights, 2), Rtrl(), None, series[:2])


def test_a_series_ends_unless_it_loops():
    online = small_online(Rtrl())
    with pytest.raises(ValueError, match="series of 40"):
        online.run(41)


def test_only_asked_kinds_learn_and_not_before_settling():
    online = small_online(Rtrl(), kinds=("tau_m",), settle=20)
    before = online.net.flat.copy()
    online.run(20)
    np.testing.assert_array_equal(online.net.flat, before)
    online.run(20)
    moved = {name: part.any() for name, part in online.net.named(online.net.flat - before).items()}
    assert moved == {"l0.weight": False, "l0.bias": False, "l0.tau_m": True}


# --- following ----------------------------------------------------------------------------------


def test_exact_methods_follow_each_other_and_the_curves_add_up():
    network, weights, _, _ = make_case(8)
    net = Copies(network, weights, 2)
    series = Series(small_series().x, np.zeros((2, 40, network.layers[-1].size)))
    following = Following(net, Truncated(40, 10), 10, PARAMETERS)
    Online(net, Rtrl(), None, series, watcher=following).run(40)
    assert set(following.curves) == {"all", *net.names()}
    for curve in following.curves.values():
        assert np.shape(curve) == (4, 3)
        np.testing.assert_allclose(curve, 1, rtol=1e-9)


def test_following_matches_sums_over_blocks():
    network, weights, x, _ = make_case(11, copies=1)
    y = np.random.default_rng(0).normal(size=(14, 1, 2, network.layers[-1].size))
    net = Copies(network, weights, 2)
    series = Series(np.swapaxes(x[:, 0], 0, 1), np.swapaxes(y[:, 0], 0, 1))
    following = Following(net, Rtrl(), 14, ("weight", "bias"))
    Online(net, Gle(), None, series, watcher=following).run(14)
    late = np.concatenate([np.full_like(y[:1], np.nan), y[:-1]])
    a = total(network, weights, x, late, Gle())
    b = total(network, weights, x, y, Rtrl())
    keep = net.mask(("weight", "bias")) > 0
    assert following.curves["all"][0][0] == pytest.approx(cosine(a[0, keep], b[0, keep]))
    part = {name: (net.named(a)[name], net.named(b)[name]) for name in net.names()}
    for name, curve in following.curves.items():
        if name != "all":
            assert curve[0][0] == pytest.approx(cosine(*part[name]))
    with pytest.raises(ValueError, match="errors"):
        Following(net, Gle(), 10)


def test_cosines():
    a = np.array([[3.0, 4.0], [0.0, 0.0]])
    found = cosines(a, np.array([[6.0, 8.0], [1.0, 0.0]]))
    assert found[0] == pytest.approx(1)
    assert math.isnan(found[1])


# --- costate --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("block", [1, 2, 7])
def test_costates_of_all_blocks_are_the_adjoint(block, loss):
    network, weights, x, y = make_case(block, loss)
    ahead = 14  # nothing more to come after the run: steps without a target make it complete
    none = np.full_like(y[:1], np.nan if loss == "mse" else -1)
    _, expected = exact_gradient(Copies(network, weights, 2), x, y)
    longer = np.concatenate([x, np.zeros_like(x)]), np.concatenate([y, *[none] * ahead])
    found = total(network, weights, *longer, Costate(block, ahead))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("kind", range(3))
def test_costate_of_a_block_is_what_using_parameters_then_does_to_later_losses(kind):
    network, weights, x, y = make_case(10 + kind, copies=1)
    net = Copies(network, weights, 2)
    method = Costate(3, 6)
    method.begin(net)
    for t in range(12):
        net.step(x[t])
        direction = method.after_step(net, y[t])
        assert (direction is None) is (t not in (8, 11))
    first, fresh = net.flat.copy(), {k: np.zeros_like(v) for k, v in net.state().items()}

    def loss_at(row):
        net.restore(fresh | {"flat": first})
        value = 0.0
        for t in range(12):  # the second block of 3: steps 3, 4, 5
            net.add((row if 3 <= t < 6 else first) - net.flat)
            net.step(x[t])
            if t >= 3:
                value += 0.5 * np.nansum((y[t] - net.output) ** 2)
        return network.beta * value / 2

    expected = differences(loss_at, first[0].copy())
    np.testing.assert_allclose(direction[0], expected, rtol=1e-5, atol=1e-8)


def test_following_waits_for_a_truth_that_looks_ahead():
    """At rest in time, with a steady input and weights, GLE's errors are the costates."""
    network, weights, _, _ = make_case(3, instantaneous=True, copies=1)
    net = Copies(network, weights, 2)
    x = np.tile(np.random.default_rng(0).normal(size=(2, 1, 2)), (1, 200, 1))
    series = Series(x, np.ones((2, 200, network.layers[-1].size)))
    following = Following(net, Costate(10, 20), 10, ("weight", "bias"))
    Online(net, Gle(), None, series, watcher=following).run(200)
    assert np.shape(following.curves["all"]) == (18, 1)
    np.testing.assert_allclose(following.curves["all"][10:], 1, rtol=1e-6)
    for truth in (Costate(10, 25), Costate(5, 20)):
        with pytest.raises(ValueError, match="fit together"):
            Following(net, truth, 10)


# --- the measurements -------------------------------------------------------------------------


@pytest.mark.long
def test_lagline_runs_from_end_to_end(tmp_path):
    command = ["--seeds", "0", "1", "--time", "10", "--streams", "2", "--out", str(tmp_path)]
    for method in ("gle", "bptt1-windows"):
        lagline.main([method, *command])
    summary = json.loads((tmp_path / "gle.json").read_text())
    assert summary["steps"] == 6000
    assert len(summary["worst_error"]) == len(summary["runs"]) == 2
    assert not summary["all_within_2_percent"]
    with np.load(tmp_path / "gle.npz") as curves:
        assert curves["error"].shape == (len(curves["time"]), 2, 4)
        worst = np.abs(curves["error"][-1]).max(axis=-1)
        np.testing.assert_allclose(worst, summary["worst_error"], rtol=1e-5)  # a whole block
    several = json.loads((tmp_path / "bptt1-windows.json").read_text())
    assert len(several["runs"]) == 6
    lagline.main(["plot", "--out", str(tmp_path)])
    left = {path.name for path in tmp_path.iterdir()}
    assert {"lagline.svg", "lagline.png"} <= left
    assert not any("checkpoint" in name for name in left)


def test_lagline_time_to_reach_the_teacher():
    worst = np.array([1.0] * 20 + [0.01, 0.5] + [0.01] * 5)
    assert lagline.reached(worst) == (23 * 400 - 5000) / 100
    assert lagline.reached(np.array([0.01, 0.5])) is None
    assert lagline.reached(np.array([0.01, np.nan])) is None


@pytest.mark.long
def test_lagnet_runs_from_end_to_end(tmp_path):
    for method in ("gle", "bptt3"):
        lagnet.main([method, "--seeds", "0", "--time", "150", "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "gle.json").read_text())
    assert summary["steps"] == 15000
    assert summary["loss_falls_by"][0] > 10
    held = summary["cosine"]["h1.weight"]["held"]
    assert held["blocks"] == 4
    assert held["smallest"] > 0.98
    lagnet.main(["plot", "--out", str(tmp_path)])
    assert {"lagnet.svg", "lagnet.png"} <= {path.name for path in tmp_path.iterdir()}


def test_where_the_loss_of_lagline_is_soft_gle_is_not():
    series = lagline_task.load_series(0, 1, 3).train
    exact, gle = (conditioning.jacobian(method, series) for method in (Rtrl(), Gle()))
    # curvature: symmetric and negative, but for the loss being filed under its own time
    np.testing.assert_allclose(exact, exact.T, rtol=1e-3, atol=1e-3 * np.abs(exact).max())
    soft = [np.linalg.eigvals(j).real.max() for j in (exact, gle)]
    assert soft[0] < 0
    assert soft[1] < 50 * soft[0]
