"""Sources, masks and feedback: the float64 oracle against a literal transcription, the adjoint
against finite differences, and what a network file may say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from literal_gle import LiteralGle
from networks import draw_topology

from hwgle import topology, weights
from hwgle.adjoint import adjoint_gradient
from hwgle.baselines.copies import Copies
from hwgle.calibrate import calibrate
from hwgle.chip import Chip
from hwgle.errors import FileMistakes, UsageError
from hwgle.network import Network
from hwgle.onchip import OnChip
from hwgle.quantise import build_image
from hwgle.reference import Adam, Reference, Sgd

KINDS = ("transposed", "alignment", "kolen-pollack", "direct", "broadcast")


def drawn(seed: int, kind: str, **more: Any) -> tuple[Network, weights.Weights, Any, Any]:
    """A random topology with weights (masks not yet applied), input and target of 14 steps."""
    rng = np.random.default_rng([seed, 77])
    network = draw_topology(rng, kind, **more)
    w = {
        name: rng.normal(0, 0.6 / np.sqrt(shape[-1]), shape)
        for name, shape in weights.shapes(network).items()
    }
    x = rng.normal(size=(14, 3, network.inputs))
    if network.loss == "mse":
        return network, w, x, rng.normal(size=(14, 3, network.outputs))
    return network, w, x, rng.integers(0, network.outputs, (14, 3))


def literal(network: Network, w: weights.Weights) -> LiteralGle:
    """The same written down by hand: its sources and masks from the network's own text."""
    data = network.model_dump()
    names = [layer["name"] for layer in data["layers"]]
    sources = []
    for k, layer in enumerate(data["layers"]):
        named = layer["from"] or ([names[k - 1]] if k else ["input"])
        mine = sorted(-1 if name == "input" else names.index(name) for name in named)
        sources.append(mine + ([k] if layer["recurrent"] else []))
    masks: list[Any] = [
        topology.mask(network, k).tolist() if layer["sparsity"] else None
        for k, layer in enumerate(data["layers"])
    ]
    kind = data["feedback"]["kind"] if data["feedback"] else "transposed"
    decay = data["feedback"]["decay"] if data["feedback"] else 0.0
    start = {name: a.copy() for name, a in w.items()}
    weights.masked_away(network, start)
    return LiteralGle(network, start, 3, sources, kind, masks, decay)


@pytest.mark.parametrize("kind", KINDS)
def test_literal_transcription(kind: str, seed: int) -> None:
    for case in range(8):
        network, w, x, y = drawn(seed + case, kind)
        reference, other, sgd = Reference(network, w, 3), literal(network, w), Sgd(0.02)
        for t in range(len(x)):
            reference.step(x[t], y[t])
            other.step(x[t].tolist(), y[t].tolist())
            for k, layer in enumerate(network.layers):
                s = reference.state[layer.name]
                for name in ("x", "u", "uhat", "r", "v", "inst", "e"):
                    np.testing.assert_allclose(
                        getattr(s, name), other.signal(k, name), rtol=1e-12, atol=1e-12
                    )
            grads = reference.gradient()
            for k, layer in enumerate(network.layers):
                for kind_of, own in (("weight", other.dW), ("bias", other.db)):
                    np.testing.assert_allclose(
                        grads[f"{layer.name}.{kind_of}"], own[k], rtol=1e-12, atol=1e-12
                    )
            sgd(reference)
            other.learn(0.02)
        for k, layer in enumerate(network.layers):
            for name, own in (("weight", other.W), ("bias", other.b), ("feedback", other.B)):
                if f"{layer.name}.{name}" in reference.weights:
                    np.testing.assert_allclose(
                        reference.weights[f"{layer.name}.{name}"], own[k], rtol=1e-12, atol=1e-12
                    )


def test_the_cases_cover_every_topology(seed: int) -> None:
    """What is claimed above: skips, recurrence, masks, frozen layers, each with each kind."""
    for kind in KINDS:
        networks = [drawn(seed + case, kind)[0] for case in range(8)]
        layers = [(n, k, y) for n in networks for k, y in enumerate(n.layers)]
        assert any(len(topology.segments(n, k)) > 1 and not y.recurrent for n, k, y in layers)
        assert any(y.recurrent for _, _, y in layers)
        assert any(y.sparsity for _, _, y in layers)
        assert any(not y.learn for _, _, y in layers)
        assert {n.loss for n in networks} == {"mse", "cross_entropy"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [Sgd(0.1), Adam(0.1)])
def test_what_is_frozen_or_absent_stays(kind: str, rule: Any, seed: int) -> None:
    network, w, x, y = drawn(seed, kind, sparse=True)
    reference = Reference(network, w, 3)
    before = {name: a.copy() for name, a in reference.weights.items()}
    reference.run(x, y, learner=type(rule)(rule.lr))
    changed = set()
    for k, layer in enumerate(network.layers):
        there = topology.mask(network, k)
        now = reference.weights[f"{layer.name}.weight"]
        assert not now[~there].any()
        for name in (f"{layer.name}.{part}" for part in ("weight", "bias", "feedback")):
            if name not in before:
                continue
            same = np.array_equal(reference.weights[name], before[name])
            learns = layer.learn and (not name.endswith("feedback") or kind == "kolen-pollack")
            assert same or learns, name
            changed.add(name.rpartition(".")[2]) if not same else None
    assert "weight" in changed
    assert ("feedback" in changed) == (kind == "kolen-pollack")


def test_kolen_pollack_feedback_comes_to_be_the_weights(seed: int) -> None:
    """With decay, W and B forget where they began and keep what they both learned."""
    network, w, _, _ = drawn(seed, "kolen-pollack", sparse=False)
    data = network.model_dump()
    data["feedback"]["decay"] = 0.02
    for layer in data["layers"]:
        layer["learn"] = True
    network = Network.model_validate(data)
    reference, rng = Reference(network, w, 3), np.random.default_rng(seed)

    def apart() -> float:
        names = [name for name in w if name.endswith("feedback")]
        return max(
            float(np.abs(reference.weights[n] - reference.weights[n[:-8] + "weight"]).max())
            for n in names
        )

    first = apart()
    for _ in range(400):
        y = rng.integers(0, network.outputs, 3)
        target = y if network.loss == "cross_entropy" else rng.normal(size=(3, network.outputs))
        reference.step(rng.normal(size=(3, network.inputs)), target)
        Sgd(0.01)(reference)
    assert apart() == pytest.approx(first * 0.98**400, rel=1e-6)


def test_adjoint_equals_finite_differences(seed: int) -> None:
    for case in range(6):
        network, w, x, y = drawn(seed + case, "transposed", smooth=True)
        w = dict(w)
        weights.masked_away(network, w)
        _, gradient = adjoint_gradient(network, w, x, y)
        rng = np.random.default_rng(case)
        for k, layer in enumerate(network.layers):
            for kind in ("weight", "bias"):
                name = f"{layer.name}.{kind}"
                for _ in range(3):
                    at = tuple(int(rng.integers(n)) for n in w[name].shape)
                    if kind == "weight" and not topology.mask(network, k)[at]:
                        assert gradient[name][at] == 0
                        continue
                    losses = []
                    for change in (1e-5, -1e-5):
                        other = {n: a.copy() for n, a in w.items()}
                        other[name][at] += change
                        losses.append(adjoint_gradient(network, other, x, y)[0])
                    slope = -(losses[0] - losses[1]) / 2e-5
                    assert gradient[name][at] == pytest.approx(slope, rel=2e-5, abs=2e-7)


def test_a_network_of_alignment_with_transposed_matrices_is_transposed(seed: int) -> None:
    network, w, x, y = drawn(seed, "alignment")
    plain = Network.model_validate({**network.model_dump(), "feedback": None})
    for name in list(w):
        if name.endswith(".feedback"):
            w[name] = w[name.removesuffix("feedback") + "weight"].copy()
    one = Reference(network, w, 3).run(x, y, ("e",))
    other = Reference(plain, w, 3).run(x, y, ("e",))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


# --- what is drawn -----------------------------------------------------------------------------


def layer(name: str, size: int = 4, **more: Any) -> dict[str, Any]:
    """As a file has it."""
    rest = {"phi": "tanh", "populations": [{"size": size, "tau_m": 1.0, "tau_r": 1.0}]}
    return {"name": name, **rest, **more}


def network_of(*layers: dict[str, Any], **more: Any) -> Network:
    """Of these layers, three inputs."""
    head = {"format": "hwgle/network/1", "name": "n", "dt": 0.1, "inputs": 3, "loss": "mse"}
    return Network.model_validate({**head, "layers": list(layers), **more})


def test_columns_come_in_the_order_of_the_network() -> None:
    network = network_of(
        layer("a"), layer("b", 5), layer("c", 2, recurrent=True, **{"from": ["b", "input", "a"]})
    )
    assert [tuple(s) for s in topology.segments(network, 2)] == [
        (-1, 0, 3), (0, 3, 4), (1, 7, 5), (2, 12, 2),
    ]  # fmt: skip
    assert network.fan_in(2) == 14
    assert weights.shapes(network)["c.weight"] == (2, 14)
    assert not topology.is_chain(network)


def test_density_modules_and_what_they_are_for() -> None:
    sparse = {"density": 0.25, "seed": 3}
    network = network_of(layer("a", 400, sparsity=sparse), layer("b", 400, sparsity=sparse))
    first, second = (topology.mask(network, k) for k in range(2))
    assert abs(first.mean() - 0.25) < 0.06
    assert abs(second.mean() - 0.25) < 0.01
    assert not np.array_equal(first[:, :3], second[:, :3])
    assert np.array_equal(second, topology.mask(network, 1))
    blocks = network_of(layer("a", 6), layer("b", 4, sparsity={"modules": 2}))
    want = np.kron(np.eye(2), np.ones((2, 3))) == 1
    np.testing.assert_array_equal(topology.mask(blocks, 1), want)
    assert blocks.parameters == 6 * 3 + 6 + 4 * 3 + 4
    mixed = network_of(
        layer("a", 6),
        layer("b", 4, recurrent=True, sparsity=[{"modules": 2, "of": ["b"]}]),
    )
    there = topology.mask(mixed, 1)
    assert there[:, :6].all()
    np.testing.assert_array_equal(there[:, 6:], np.kron(np.eye(2), np.ones((2, 2))) == 1)
    some = network_of(layer("a", 60, sparsity={"modules": 3, "density": 0.1}), layer("b", 60))
    assert topology.mask(some, 0)[:20, 0].all()
    assert 0 < topology.mask(some, 0)[20:, 0].mean() < 0.4


def test_feedback_is_drawn_from_its_own_seed() -> None:
    def back(**feedback: Any) -> dict[str, Any]:
        network = network_of(layer("a", 40), layer("b", 50), layer("c", 8), feedback=feedback)
        return topology.drawn_feedback(network)

    one = back(kind="alignment", seed=1)
    assert {name: b.shape for name, b in one.items()} == {
        "b.feedback": (50, 40), "c.feedback": (8, 50),
    }  # fmt: skip
    bound = 1 / np.sqrt(40)
    assert 0.95 * bound < np.abs(one["b.feedback"]).max() <= bound
    assert abs(one["b.feedback"].mean()) < 0.1 * bound
    again = back(kind="kolen-pollack", seed=1)
    np.testing.assert_array_equal(one["b.feedback"], again["b.feedback"])
    assert not np.array_equal(one["b.feedback"], back(kind="alignment", seed=2)["b.feedback"])
    direct = back(kind="direct", scale=2.0)
    assert {name: b.shape for name, b in direct.items()} == {
        "a.feedback": (8, 40), "b.feedback": (8, 50),
    }  # fmt: skip
    assert 1 / np.sqrt(8) < np.abs(direct["a.feedback"]).max() <= 2 / np.sqrt(8)
    told = back(kind="broadcast", scale=0.5)
    np.testing.assert_allclose(told["a.feedback"], 0.5 / np.sqrt(8) * np.tile(np.eye(8), 5))
    assert back(kind="transposed") == {}


def test_files_of_weights_with_and_without_feedback(tmp_path: Path) -> None:
    network = network_of(
        layer("a", sparsity={"density": 0.5}), layer("b"), feedback={"kind": "kolen-pollack"}
    )
    w = weights.initial(network, 3)
    assert not w["a.weight"][~topology.mask(network, 0)].any()
    w["b.feedback"] = w["b.feedback"] + 1.0
    weights.save(tmp_path / "w.npz", w)
    np.testing.assert_array_equal(
        weights.load(tmp_path / "w.npz", network)["b.feedback"], w["b.feedback"]
    )
    del w["b.feedback"]
    weights.save(tmp_path / "v.npz", {**w, "a.weight": np.ones((4, 3))})
    loaded = weights.load(tmp_path / "v.npz", network)
    drawn = topology.drawn_feedback(network)
    np.testing.assert_array_equal(loaded["b.feedback"], drawn["b.feedback"])
    np.testing.assert_array_equal(loaded["a.weight"], topology.mask(network, 0))
    weights.save(tmp_path / "u.npz", {**w, "b.feedback": np.ones((3, 4))})
    with pytest.raises(FileMistakes, match=r"b\.feedback"):
        weights.load(tmp_path / "u.npz", network)
    chain = network_of(layer("a"), layer("b"))
    with pytest.raises(FileMistakes, match=r"b\.feedback"):
        weights.load(tmp_path / "u.npz", chain)


GOOD = """\
format: hwgle/network/1
name: small
dt: 0.1
inputs: 2
loss: mse
feedback: {kind: alignment, seed: 4}
layers:
  - name: h1
    phi: tanh
    populations: [{size: 3, tau_m: 0.6, tau_r: 0.1}]
  - name: h2
    phi: tanh
    from: [h1, input]
    recurrent: true
    sparsity: {density: 0.5}
    populations: [{size: 3, tau_m: 0.6, tau_r: 0.1}]
  - name: out
    phi: linear
    from: [h1, h2]
    populations: [{size: 2, tau_m: 1.2, tau_r: 1.2}]
"""


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(GOOD)
    network = Network.load(tmp_path / "n.yaml")
    assert [network.fan_in(k) for k in range(3)] == [2, 8, 6]
    assert Network.model_validate(network.model_dump()) == network
    chain = GOOD.replace("    from: [h1, input]\n    recurrent: true\n", "")
    chain = chain.replace("    sparsity: {density: 0.5}\n", "").replace("    from: [h1, h2]\n", "")
    chain = chain.replace("feedback: {kind: alignment, seed: 4}\n", "")
    (tmp_path / "c.yaml").write_text(chain)
    assert Network.load(tmp_path / "c.yaml").hash() != network.hash()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "text"),
    [
        ("kind: alignment", "kind: aligned", 6, "feedback.kind", "kolen-pollack"),
        ("seed: 4", "decay: 0.1", 6, "feedback.decay", "alignment, which knows none"),
        ("seed: 4", "scale: 0", 6, "feedback.scale", "> 0"),
        ("[h1, input]", "[out]", 13, "layers[1].from[0]", "input, h1"),
        ("[h1, input]", "[h2]", 13, "layers[1].from[0]", "recurrent: true"),
        ("[h1, input]", "[h1, h1]", 13, "layers[1].from[1]", "each source once"),
        ("[h1, input]", "[]", 13, "layers[1].from", "one or more"),
        ("[h1, input]", "[nobody]", 13, "layers[1].from[0]", "'nobody'"),
        ("[h1, input]", "h1", 13, "layers[1].from", "a list"),
        ("recurrent: true", "recurrent: 1", 14, "layers[1].recurrent", "true"),
        ("{density: 0.5}", "{seed: 1}", 15, "layers[1].sparsity", "neither density nor modules"),
        ("{density: 0.5}", "{density: 2}", 15, "layers[1].sparsity", "from 0 to 1"),
        ("{density: 0.5}", "{modules: 2, of: [out]}", 15, "layers[1].sparsity", "h1, input, h2"),
        ("[h1, h2]", "[h1]", 11, "layers[1].name", "heard by none"),
        ("name: h1", "name: input", 8, "layers[0].name", "another name"),
    ],
)  # fmt: skip
def test_every_mistake_is_told(
    tmp_path: Path, old: str, new: str, line: int, key: str, text: str
) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(FileMistakes) as caught:
        Network.load(path)
    told = [(m.line, m.key, f"{m.found}; {m.allowed}") for m in caught.value.mistakes]
    assert any(
        at == line and where.startswith(key) and text in words for at, where, words in told
    ), told


def test_too_many_rates_for_one_layer() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        network_of(layer("a", 4096), layer("b", 2, **{"from": ["a", "input"]}))


def test_a_chip_learns_feedback_by_plain_sgd_alone(seed: int) -> None:
    chip = Chip.load("ideal")
    for kind in ("kolen-pollack", "alignment"):
        network = draw_topology(np.random.default_rng(seed), kind)
        w = weights.initial(network, 0)
        scales = calibrate(network, chip, w, np.zeros((2, 2, network.inputs)) + 0.1)
        for learner in (OnChip("sgd", 2), OnChip("sgd", 0, 0, 3), OnChip.named("normalised")):
            if kind == "alignment":
                assert build_image(network, chip, scales, learner=learner).learner == learner
                continue
            with pytest.raises(UsageError, match=f"found rule {learner.rule}.*allowed.*sgd"):
                build_image(network, chip, scales, learner=learner)
        build_image(network, chip, scales, learner=OnChip(rate_every=5, rate_rises=2))


def test_baselines_refuse_what_they_do_not_know(seed: int) -> None:
    network, w, _, _ = drawn(seed, "alignment")
    with pytest.raises(ValueError, match="plain chains only"):
        Copies(network, [w], 2)
