"""Dead, saturated and silent: each is found, and nobody is accused who is well."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from networks import draw_weights, make_network, slow_sines
from numpy.typing import NDArray

from hwgle import health as module
from hwgle import session, weights
from hwgle.accuracy import chip_scales, chip_votes, in_streams, part
from hwgle.chip import Chip
from hwgle.devices.emulator import Emulator
from hwgle.health import Health, LayerHealth, Moments, Watch, look_steps, still_variance
from hwgle.identity import draw
from hwgle.network import Network
from hwgle.session import run
from hwgle.tasks import Split
from hwgle.tasks.mnist1d import load

IDEAL = Chip.load("ideal")
LOOKS, STREAMS = 16, 40
FRAC = IDEAL.rate.bits - 1
FULL = IDEAL.rate_max


def chip_of(base: str = "ideal", **sections: dict[str, Any]) -> Chip:
    """A chip of the zoo with something else in some sections of its profile."""
    data = Chip.load(base).model_dump()
    for name, values in sections.items():
        data[name] = {**data[name], **values}
    return Chip.model_validate(data)


def layer_of(phi: str, size: int, tau_m: float = 0.2, tau_r: float = 0.2) -> Network:
    """One layer of neurons that all hear one input."""
    return Network.model_validate(
        {
            "format": "hwgle/network/1",
            "name": "one",
            "dt": 0.1,
            "inputs": 1,
            "loss": "mse",
            "layers": [
                {
                    "name": "a",
                    "phi": phi,
                    "populations": [{"size": size, "tau_m": tau_m, "tau_r": tau_r}],
                }
            ],
        }
    )


def seen(
    network: Network,
    rates: NDArray[Any],
    *,
    chip: Chip = IDEAL,
    x: NDArray[Any] | None = None,
    w: NDArray[np.float64] | None = None,
) -> LayerHealth:
    """What is said of one layer that reads (looks, streams, n) while its input is noise."""
    looks, streams, size = rates.shape
    if x is None:
        x = np.random.default_rng(1).normal(0, 1000, (looks, streams, 1))
    given = {"a.weight": np.ones((size, 1)) if w is None else w, "a.bias": np.zeros(size)}
    watch = Watch(network, chip, given, 10_000, streams)
    fracs = np.full((1, 1, 2), FRAC, dtype=np.int8)
    for k in range(looks):
        r = rates[k : k + 1].astype(np.int32)
        watch.look(x[k : k + 1].astype(np.int16), [r], fracs, 0)
    (layer,) = watch.health().layers
    return layer


def swinging(size: int, sd: float = 1000, looks: int = LOOKS, seed: int = 0) -> NDArray[Any]:
    """Rates of neurons that are well, in LSB."""
    rng = np.random.default_rng(seed)
    r = np.round(rng.normal(0, sd, (looks, STREAMS, size)))
    return np.clip(r, -FULL, FULL)


def found(layer: LayerHealth) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    return layer.dead, layer.saturated, layer.silent


WELL: tuple[tuple[int, ...], tuple[int, ...], bool] = ((), (), False)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.6, 1.0, 1.9, 2.1, 7.0])
def test_a_constant_read_through_noise_varies_at_most_so_much(noise: float) -> None:
    rng = np.random.default_rng(2)
    draws = rng.normal(0, noise, 100_000)
    most = max(np.round(c + draws).var() for c in np.linspace(0, 0.5, 11))
    assert still_variance(noise) == pytest.approx(most, rel=0.02)
    assert still_variance(0) == 0


def test_moments_are_those_of_the_columns() -> None:
    rng = np.random.default_rng(3)
    rows = np.round(rng.normal(5000, 3, (60, 4)))
    rows[:, 2] = 8191
    moments = Moments()
    for piece in (rows[:1], rows[1:20], rows[20:]):
        moments.add(piece)
    assert np.allclose(moments.variance, rows.var(axis=0, ddof=1), rtol=1e-12)
    assert np.allclose(moments.mean, rows.mean(axis=0))
    assert moments.variance[2] == 0


def test_looks_are_enough_and_lie_irregularly() -> None:
    network = Network.load("mnist1d-15k")
    settled = len(network.layers) + 3 * 6
    for steps, streams, reads in ((7200, 50, 400), (7200, 1, 64), (360, 500, 2000), (360, 1, 21)):
        looks = look_steps(network, steps, streams)
        assert len(looks) * streams == reads
        assert list(looks) == sorted(set(looks))
        assert settled <= looks[0]
        assert looks[-1] < steps
    gaps = np.diff(look_steps(network, 100_000, 1))
    assert gaps.std() > 0.2 * gaps.mean()  # does not keep time with an input that repeats
    assert gaps.max() < 2 * 100_000 / 64
    assert look_steps(network, len(network.layers), 500) == ()


def test_a_stream_before_its_slowest_neurons_have_settled_is_looked_at_from_a_quarter_on() -> None:
    looks = look_steps(layer_of("tanh", 1, tau_m=50.0), 400, 100)
    assert looks[0] >= 101
    assert len(looks) == 4


@pytest.mark.parametrize("phi", ["linear", "tanh", "relu", "sigmoid", "softplus"])
@pytest.mark.parametrize(("noise", "offset"), [(0.0, 0.0), (0.0, 20.0), (0.4, 5.0), (3.0, 20.0)])
def test_dead_neurons_are_found_whatever_the_adc_makes_of_their_zero(
    phi: str, noise: float, offset: float
) -> None:
    """300 dead ones and 300 that are well: all of those, none of these."""
    chip = chip_of(readout={"noise": noise, "offset": offset})
    rng = np.random.default_rng(4)
    r = swinging(600, 800)
    if phi in ("relu", "sigmoid", "softplus"):
        r = np.abs(r)
    r[:, :, ::2] = 0
    r += rng.normal(0, offset, 600) if offset else 0
    r = np.round(r + rng.normal(0, noise, r.shape))
    layer = seen(layer_of(phi, 600), r, chip=chip)
    assert sorted(layer.dead) == list(range(0, 600, 2))
    assert (layer.saturated, layer.silent) == ((), False)


def test_neurons_that_move_a_little_are_not_dead() -> None:
    r = swinging(40)
    r[:, :, 3] = np.round(r[:, :, 3] / 2000)  # some LSB
    r[:, :, 4] = 0
    r[2, 5, 4] = 1  # one read of all
    assert found(seen(layer_of("linear", 40), r)) == WELL


def test_an_adc_coarser_than_the_rates_hides_small_movements() -> None:
    """Of 14-bit rates an 8-bit ADC shows steps of 64; a layer that moves three of them could
    hide a neuron that is well, one that moves thirty could not. Its own end is 127 * 64."""
    chip = chip_of(readout={"bits": 8})
    for sd, dead in ((200, ()), (2000, (4,))):
        r = np.clip(np.round(swinging(30, sd) / 64), -120, 120)
        r[:, :, 4] = 3
        r[:, :, 6] = 127
        layer = seen(layer_of("linear", 30), r * 64, chip=chip)
        assert found(layer) == (dead, (6,), False)


def test_what_noise_may_hide_is_not_called_dead() -> None:
    """Read-outs that look like noise, where the layer itself moves hardly more than that."""
    chip = chip_of(readout={"noise": 3.0})
    rng = np.random.default_rng(5)
    r = swinging(60, 12.0)
    r[:, :, 7] = 0
    noisy = np.round(r + rng.normal(0, 3.0, r.shape))
    assert found(seen(layer_of("linear", 60), noisy, chip=chip)) == WELL


def test_tiny_weights_accuse_nobody_and_no_weights_do() -> None:
    r = swinging(30)
    r[:, :, [4, 9, 14]] = 0
    w = np.ones((30, 1))
    w[[4, 9], 0] = 1e-3, 0.0
    assert found(seen(layer_of("tanh", 30), r, w=w)) == ((9, 14), (), False)


def test_slow_neurons_are_expected_to_move_less() -> None:
    """Of 50 LSB that the others move, white noise leaves a tenth with tau_m = 50 dt."""
    chip = chip_of("ideal8")
    r = np.clip(np.round(swinging(30, 20)), -127, 127)
    r[:, :, 4] = 0
    assert found(seen(layer_of("linear", 30), r, chip=chip))[0] == (4,)
    slow = layer_of("linear", 30, tau_m=5.0, tau_r=0.1)
    assert found(seen(slow, r, chip=chip)) == WELL


def test_a_neuron_that_may_rest_needs_more_reads() -> None:
    r = np.abs(swinging(30, looks=4))
    r[:, :, 8] = 0
    assert found(seen(layer_of("tanh", 30), r))[0] == (8,)
    assert found(seen(layer_of("relu", 30), r)) == WELL  # 160 reads
    r = np.abs(swinging(30))
    r[:, :, 8] = 0
    assert found(seen(layer_of("relu", 30), r))[0] == (8,)
    r[3, :6, 8] = 70  # speaks in 1 % of the reads
    assert found(seen(layer_of("relu", 30), r)) == WELL


def test_too_few_reads_say_nothing() -> None:
    r = swinging(30, looks=1)
    r[:, :, 8] = 0
    r[:, :, 9] = FULL
    assert found(seen(layer_of("tanh", 30), r)) == WELL
    assert found(seen(layer_of("tanh", 1), 0 * r[:, :, :1])) == WELL


@pytest.mark.parametrize("value", [0.0, 700.0])
def test_an_input_that_stands_still_says_nothing(value: float) -> None:
    r = swinging(30)
    r[:, :, 8] = 0
    r[:, :, 9] = FULL
    x = np.full((LOOKS, STREAMS, 1), value)
    for rates in (r, 0 * r):
        assert found(seen(layer_of("tanh", 30), rates, x=x)) == WELL


@pytest.mark.parametrize("phi", ["linear", "tanh", "relu", "sigmoid"])
def test_neurons_at_one_end_are_saturated(phi: str) -> None:
    r = np.abs(swinging(30, 1000)) + 200
    r[:, :, 5] = FULL
    want = (5,)
    if phi in ("linear", "tanh"):
        r[:, :, 6] = -FULL
        want = (5, 6)
    if phi == "sigmoid":
        r[:, :, 7] = np.abs(swinging(1, 20)[:, :, 0])
        want = (5, 7)
    assert found(seen(layer_of(phi, 30), r)) == ((), want, False)


def test_near_its_end_a_bounded_activation_is_saturated_and_a_linear_one_is_well() -> None:
    r = swinging(30)
    r[:, :, 5] = FULL - 5 - np.abs(swinging(1, 20)[:, :, 0])
    assert found(seen(layer_of("tanh", 30), r)) == ((), (5,), False)
    assert found(seen(layer_of("linear", 30), r)) == WELL


def test_a_neuron_that_swings_between_both_ends_is_well() -> None:
    rng = np.random.default_rng(6)
    r = swinging(30)
    r[:, :, 5] = np.where(rng.random((LOOKS, STREAMS)) < 0.5, FULL, -FULL)
    r[:, :, 6] = np.where(rng.random((LOOKS, STREAMS)) < 0.977, FULL, -FULL)
    r[:, :, 7] = FULL
    r[4, :3, 7] = -FULL
    r[:, :, 8] = FULL
    r[4, 0, 8] = -FULL  # 1 of 640
    r[:, :, 9] = FULL
    assert found(seen(layer_of("tanh", 30), r)) == ((), (9, 8), False)  # the worst first


def test_gains_and_offsets_move_the_ends() -> None:
    """Saturated at 0.9 of full scale, read with an offset and noise; and one that moves there."""
    chip = chip_of(readout={"gain": 0.05, "noise": 2.0, "offset": 4.0}, activation={"gain": 0.05})
    rng = np.random.default_rng(7)
    r = swinging(30)
    r[:, :, 5] = 0.9 * FULL + 7
    r[:, :, 6] = 0.95 * FULL + np.clip(swinging(1, 300)[:, :, 0], -400, 400)
    r = np.round(r + rng.normal(0, 2.0, r.shape))
    assert found(seen(layer_of("tanh", 30), r, chip=chip)) == ((), (5,), False)
    ideal = seen(layer_of("tanh", 30), r)
    assert ideal.saturated == ()


def test_an_end_is_where_offset_and_noise_leave_it() -> None:
    for readout, value in (({"offset": 20.0}, FULL - 55), ({"noise": 20.0}, FULL)):
        r = swinging(30)
        r[:, :, 5] = value
        noise = np.random.default_rng(8).normal(0, readout.get("noise", 0.0), r.shape)
        r = np.minimum(FULL, np.round(r + noise))
        layer = seen(layer_of("linear", 30), r, chip=chip_of(readout=readout))
        assert found(layer) == ((), (5,), False)


def test_where_an_end_may_be_anywhere_a_neuron_that_hears_little_is_well() -> None:
    chip = chip_of(activation={"gain": 0.07})
    w = np.ones((30, 1))
    w[5] = 1e-3
    r = swinging(30)
    r[:, :, 5] = 0.8 * FULL + swinging(1, 2)[:, :, 0]
    assert found(seen(layer_of("tanh", 30), np.round(r), chip=chip, w=w)) == WELL
    assert found(seen(layer_of("tanh", 30), np.round(r), chip=chip)) == ((), (5,), False)


def test_an_end_moves_with_the_format() -> None:
    watch = Watch(layer_of("tanh", 2), IDEAL, {"a.weight": np.ones((2, 1))}, 10_000, STREAMS)
    rng = np.random.default_rng(12)
    for frac in [FRAC - 1] * 5 + [FRAC] * 4:
        r = np.round(rng.normal(0, 1000, (1, STREAMS, 2)))
        r[:, :, 1] = min(2**frac, FULL)
        x = rng.normal(0, 1000, (1, STREAMS, 1)).astype(np.int16)
        watch.look(x, [r.astype(np.int32)], np.full((1, 1, 2), frac, np.int8), 0)
    assert watch.health().layers[0].saturated == (1,)


def test_saturation_needs_many_reads() -> None:
    r = swinging(30, looks=7)
    r[:, :, 5] = FULL
    assert found(seen(layer_of("tanh", 30), r)) == WELL  # 280
    r = swinging(30, looks=8)
    r[:, :, 5] = FULL
    assert found(seen(layer_of("tanh", 30), r)) == ((), (5,), False)  # 320


@pytest.mark.parametrize(("noise", "offset"), [(0.0, 0.0), (0.0, 20.0), (0.4, 5.0), (3.0, 20.0)])
def test_silent_layers_are_found_through_the_adc(noise: float, offset: float) -> None:
    chip = chip_of(readout={"noise": noise, "offset": offset})
    rng = np.random.default_rng(8)
    r = np.zeros((LOOKS, STREAMS, 30)) + rng.normal(0, offset, 30)
    r = np.round(r + rng.normal(0, noise, r.shape))
    layer = seen(layer_of("linear", 30), r, chip=chip)
    assert found(layer) == ((), (), True)
    assert layer.sentences() == ["layer a is silent: all 30 read-outs stay at 0"]
    one_speaks = r.copy()
    one_speaks[:, :, 3] += swinging(1, 100)[:, :, 0]
    assert not seen(layer_of("linear", 30), one_speaks, chip=chip).silent
    constant = r + 300
    assert not seen(layer_of("linear", 30), constant, chip=chip).silent


def test_a_layer_below_the_noise_of_its_read_out_is_not_silent() -> None:
    """No neuron by itself can be told from a dead one; all of them together can."""
    chip = chip_of(readout={"noise": 3.0})
    rng = np.random.default_rng(9)
    r = np.round(swinging(60, 1.0) + rng.normal(0, 3.0, (LOOKS, STREAMS, 60)))
    for k in (0, 1, 2):
        only = seen(layer_of("linear", 1), r[:, :, k : k + 1], chip=chip)
        assert only.silent
    assert found(seen(layer_of("linear", 60), r, chip=chip)) == WELL


def test_nothing_grows_with_the_steps() -> None:
    rates = swinging(20, looks=1)
    watch = Watch(layer_of("tanh", 20), IDEAL, {"a.weight": np.ones((20, 1))}, 10**9, STREAMS)
    assert len(watch.steps) <= 64
    sizes = []
    for _ in range(300):
        x = np.ones((1, STREAMS, 1), dtype=np.int16)
        watch.look(x, [rates.astype(np.int32)], np.full((1, 1, 2), FRAC, np.int8), 0)
        sizes.append(len(pickle.dumps(watch)))
    assert max(sizes[-50:]) < max(sizes[:50]) + 64


def test_sentences_name_the_worst_first_and_not_all() -> None:
    layer = LayerHealth("h", 50, tuple(range(7, 0, -1)), (3,))
    dead, saturated = layer.sentences()
    text = "7 of 50 neurons dead (read-out does not move though its input does)"
    assert dead == f"layer h: {text}: 7, 6, 5, 4, 3 and 2 more"
    assert saturated.endswith(
        "1 of 50 neurons saturated (read-out stays at one end of its range): 3"
    )
    health = Health((LayerHealth("g", 3), layer), 99)
    assert health.sentences() == [dead, saturated]
    assert health.to_dict()["layers"].keys() == {"h"}
    assert health.to_dict()["layers"]["h"]["dead"] == [7, 6, 5, 4, 3, 2, 1]
    arrays = health.arrays()
    assert np.flatnonzero(arrays["health.dead"]).tolist() == [3 + k for k in range(1, 8)]
    assert np.flatnonzero(arrays["health.saturated"]).tolist() == [6]
    assert arrays["health.silent"].tolist() == [False, False]
    assert arrays["health.reads"] == 99


RNG = np.random.default_rng(10)
NETWORK = make_network([12, 10, 4], ["tanh", "relu", "linear"], RNG, inputs=2)
WEIGHTS = draw_weights(NETWORK, RNG)
X = slow_sines(RNG, 200, 150, 2)  # more streams than are looked at


def planted(x: NDArray[np.float64] = X, **options: Any) -> Health:
    """A run with neurons 2 of l0 and 5 of l1 dead, 7 of l0 saturated."""
    w = {k: v.copy() for k, v in WEIGHTS.items()}
    for name, i in (("l0", 2), ("l1", 5)):
        w[f"{name}.weight"][i] = 0
        w[f"{name}.bias"][i] = 0
    w["l0.bias"][7] = 50
    w["l1.bias"] += 1
    w["l1.bias"][5] = 0
    with Emulator() as device:
        return run(device, NETWORK, IDEAL, w, x, **options).health


def test_a_run_finds_what_was_planted_and_nothing_else() -> None:
    health = planted()
    first, second, out = health.layers
    assert (2 in first.dead, 7 in first.saturated) == (True, True)
    assert 5 in second.dead
    assert found(out) == WELL
    with Emulator() as device:
        well = run(device, NETWORK, IDEAL, WEIGHTS, X).health
    assert (set(first.dead) - {2}) <= set(well.layers[0].dead) == set()
    assert set(first.saturated) - {7} == set()


@pytest.mark.parametrize("group", [1, 7, 64, 149])
def test_groups_of_streams_find_the_same(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    whole = planted()
    monkeypatch.setattr(session, "GROUP", group)
    assert planted() == whole


def test_learning_runs_are_looked_at_too() -> None:
    target = slow_sines(np.random.default_rng(3), 200, 150, 4)
    health = planted(target=target, learning_rate=1e-3)
    assert 7 in health.layers[0].saturated
    assert health.reads == planted().reads


def test_no_input_no_findings() -> None:
    assert planted(0 * X).sentences() == []
    assert planted(X[:3]).sentences() == []


TASK = load(1, 2, 40, 60)


@pytest.mark.parametrize("chip", ["ideal", "ideal8"])
def test_a_trained_network_is_well_and_so_is_an_untrained_one(chip: str) -> None:
    network, profile = Network.load("mnist1d-15k"), Chip.load(chip)
    trained = weights.load("hwgle/zoo/weights/mnist1d-15k.npz", network)
    x = np.swapaxes(TASK.test.x, 0, 1)
    for w in (trained, weights.initial(network, 0), weights.initial(network, 1, 2.0)):
        with Emulator() as device:
            health = run(device, network, profile, w, x).health
        assert health.sentences() == []
        assert health.reads >= 400


def test_dead_neurons_of_a_chip_are_found_and_no_others() -> None:
    network = Network.load("mnist1d-15k")
    trained = weights.load("hwgle/zoo/weights/mnist1d-15k.npz", network)
    chip = chip_of(activation={"dead": 0.1})
    with Emulator() as device:
        health = run(device, network, chip, trained, np.swapaxes(TASK.test.x, 0, 1)).health
    drawn = draw(chip, network).layers
    assert sum(int(layer.dead.sum()) for layer in drawn) > 10
    for layer, truth in zip(health.layers, drawn, strict=True):
        assert sorted(layer.dead) == np.flatnonzero(truth.dead).tolist()


def test_votes_with_looks_are_those_without() -> None:
    network = Network.load("mnist1d-15k")
    loaded = weights.load("hwgle/zoo/weights/mnist1d-15k.npz", network)
    trained = {k: v.copy() for k, v in loaded.items()}
    trained["h3.weight"][11], trained["h3.bias"][11] = 0, 0
    scales = chip_scales(network, IDEAL, trained, TASK.train)
    split = part(TASK.test, 40)
    with Emulator() as device:
        plain = chip_votes(device, network, IDEAL, trained, scales, split)
        looked = chip_votes(device, network, IDEAL, trained, scales, split, health=True)
        x = np.swapaxes(in_streams(split), 0, 1)
        whole = run(device, network, IDEAL, trained, x, scales=scales)
    assert plain.health is None
    assert np.array_equal(plain.sums, looked.sums)
    assert plain.digest == looked.digest
    assert looked.health == whole.health
    assert looked.health is not None
    assert [(layer.name, layer.dead) for layer in looked.health.layers if layer.dead] == [
        ("h3", (11,))
    ]


def test_a_run_of_single_steps_can_be_looked_at() -> None:
    split = Split(np.zeros((3, 1, 1), dtype=np.float32), np.zeros(3, dtype=np.int64))
    network = Network.load("mnist1d-15k")
    w = weights.initial(network, 0)
    with Emulator() as device:
        scales = chip_scales(network, IDEAL, w, TASK.train)
        votes = chip_votes(device, network, IDEAL, w, scales, split, health=True)
    assert votes.health is not None
    assert votes.health.sentences() == []
    assert module.look_steps(network, 3, 1) == ()
