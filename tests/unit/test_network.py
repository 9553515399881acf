"""The network file: what is allowed, what is told, and what a network knows."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwgle.errors import FileMistakes
from hwgle.network import Network
from hwgle.yamlfile import zoo_names

GOOD = """\
format: hwgle/network/1
name: small
dt: 0.1
inputs: 2
loss: cross_entropy
beta: 1.0
gamma: 0.0
layers:
  - name: h1
    phi: tanh
    populations:
      - {size: 3, tau_m: 0.6, tau_r: 0.1}
      - {size: 1, tau_m: 0.3, tau_r: 0.3}
  - name: out
    phi: linear
    populations:
      - {size: 2, tau_m: 1.2, tau_r: 1.2}
"""


def load(tmp_path: Path, text: str) -> Network:
    path = tmp_path / "net.yaml"
    path.write_text(text)
    return Network.load(path)


def told(tmp_path: Path, text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(FileMistakes) as caught:
        load(tmp_path, text)
    return [(m.line, m.key, f"{m.found}; {m.allowed}") for m in caught.value.mistakes]


def test_a_network_and_what_it_knows(tmp_path: Path) -> None:
    network = load(tmp_path, GOOD)
    assert network.sizes == (4, 2)
    assert network.outputs == 2
    assert [network.fan_in(i) for i in range(2)] == [2, 4]
    assert network.parameters == 4 * 2 + 4 + 2 * 4 + 2
    hidden = network.layers[0]
    assert (hidden.size, hidden.learn, hidden.init) == (4, True, "uniform")
    np.testing.assert_array_equal(hidden.tau_m, [0.6, 0.6, 0.6, 0.3])
    np.testing.assert_array_equal(hidden.tau_r, [0.1, 0.1, 0.1, 0.3])
    assert hidden.tau_m.dtype == np.float64
    with pytest.raises(ValidationError):
        network.dt = 0.2


P = "layers[0].populations"


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "text"),
    [
        ("network/1", "network/2", 1, "format", "hwgle/network/1"),
        ("name: small", "name: ../small", 2, "name", "letters, digits"),
        ("name: small", "name: 3", 2, "name", "letters, digits"),
        ("dt: 0.1", "dt: 0", 3, "dt", "> 0"),
        ("dt: 0.1", "dt: '0.1'", 3, "dt", "the text '0.1'"),
        ("dt: 0.1", "dt: .nan", 3, "dt", "nan"),
        ("inputs: 2", "inputs: 0", 4, "inputs", "from 1 to 4096"),
        ("inputs: 2", "inputs: 4097", 4, "inputs", "from 1 to 4096"),
        ("inputs: 2", "inputs: 2.0", 4, "inputs", "a whole number"),
        ("cross_entropy", "hinge", 5, "loss", "one of cross_entropy, mse"),
        ("beta: 1.0", "beta: 0", 6, "beta", "a number > 0"),
        ("beta: 1.0", "beta: .inf", 6, "beta", "a number > 0"),
        ("gamma: 0.0", "gamma: -1e-9", 7, "gamma", "a number >= 0"),
        ("gamma", "gama", 7, "gama", "did you mean gamma?"),
        ("name: h1", "name: 1h", 9, "layers[0].name", "a letter first"),
        ("name: h1", "name: h.1", 9, "layers[0].name", "a letter first"),
        ('name: h1', 'name: "h1\\n"', 9, "layers[0].name", "a letter first"),
        ("name: out", "name: h1", 14, "layers[1].name", "layers[0] already"),
        ("phi: tanh", "phi: Tanh", 10, "layers[0].phi", "linear, tanh, sigmoid, softplus, relu"),
        ("phi: tanh", "phi: tanh\n    learn: 0", 11, "layers[0].learn", "true or false"),
        ("phi: tanh", "phi: tanh\n    init: ones", 11, "layers[0].init", "uniform, identity"),
        ("size: 3", "size: 0", 12, P + "[0].size", "from 1 to 4096"),
        ("size: 3", "size: 4097", 12, P + "[0].size", "from 1 to 4096"),
        ("size: 3", "size: 4096", 11, P, "4097 neurons in the layer; at most 4096"),
        ("size: 3, ", "", 12, P + "[0].size", "the key is missing"),
        ("tau_m: 0.3", "tau_m: 0.0999", 13, P + "[1].tau_m", "0.0999; at least dt = 0.1"),
        ("tau_r: 0.1", "tau_r: 0.01", 12, P + "[0].tau_r", "at least dt = 0.1"),
        ("tau_r: 0.1", "tau_r: -1", 12, P + "[0].tau_r", "> 0"),
        ("tau_m: 0.6", "tau_m: 26", 12, P + "[0]", "a ratio of 260; a ratio of at most 256"),
        ("tau_m: 0.3, tau_r: 0.3", "tau_m: 0.3, tau_r: 78", 13, P + "[1]", "a ratio of 260"),
        ("tau_m: 1.2, tau_r: 1.2", "tau_m: 6554, tau_r: 6553", 17, "layers[1].populations[0].tau_m",
         "at most 65536 dt"),
        ("size: 2", "size: 1", 16, "layers[1].populations", "2 or more outputs"),
        ("size: 2", "size: 2048", 16, "layers[1].populations", "2048 outputs; at most 2047"),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, old: str, new: str, line: int, key: str, text: str) -> None:
    assert old in GOOD
    ((got_line, got_key, got_text),) = told(tmp_path, GOOD.replace(old, new, 1))
    assert (got_line, got_key) == (line, key)
    assert text in got_text


@pytest.mark.parametrize("key", ["format", "name", "dt", "inputs", "loss"])
def test_a_missing_key_is_told_at_its_parent(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in GOOD.split("\n") if not line.startswith(key + ":"))
    ((line, got, words),) = told(tmp_path, text)
    assert (line, got) == (1, key)
    assert "missing" in words


def test_no_layers_and_too_many(tmp_path: Path) -> None:
    head = GOOD[: GOOD.index("layers:")]
    layer = "  - {{name: l{}, phi: relu, populations: [{{size: 2, tau_m: 1, tau_r: 1}}]}}\n"
    ((line, key, words),) = told(tmp_path, head + "layers: []\n")
    assert (line, key) == (8, "layers")
    assert "1 to 64" in words
    many = [layer.format(i) for i in range(65)]
    ((line, key, words),) = told(tmp_path, head + "layers:\n" + "".join(many))
    assert (line, key) == (8, "layers")
    assert "a list of 65" in words
    assert len(load(tmp_path, head + "layers:\n" + "".join(many[:64])).layers) == 64
    ((line, key, _),) = told(
        tmp_path, head + "layers:\n  - {name: a, phi: relu, populations: []}\n"
    )
    assert (line, key) == (9, "layers[0].populations")


def test_mistakes_within_and_across_fields_are_told_together(tmp_path: Path) -> None:
    text = GOOD.replace("inputs: 2", "inputs: 0").replace("tau_r: 0.1", "tau_r: 0.05")
    text = text.replace("name: out", "name: h1").replace("size: 2", "size: 1")
    assert [(line, key) for line, key, _ in told(tmp_path, text)] == [
        (4, "inputs"),
        (12, P + "[0].tau_r"),
        (14, "layers[1].name"),
        (16, "layers[1].populations"),
    ]


def test_mse_may_have_one_output_and_tau_equals_dt_up_to_rounding(tmp_path: Path) -> None:
    text = GOOD.replace("cross_entropy", "mse").replace("size: 2", "size: 1")
    assert load(tmp_path, text).outputs == 1
    assert 0.1 * 3 > 0.3  # the decimals of a file must not fall over this
    raw: dict[str, Any] = yaml.safe_load(text)
    raw["dt"] = 0.1 * 3
    for layer in raw["layers"]:
        for population in layer["populations"]:
            population.update(tau_m=0.3, tau_r=0.3)
    assert Network.model_validate(raw).dt == 0.1 * 3


def test_limits_are_inclusive(tmp_path: Path) -> None:
    text = GOOD.replace("tau_m: 0.6, tau_r: 0.1", "tau_m: 25.6, tau_r: 0.1")
    text = text.replace("tau_m: 1.2, tau_r: 1.2", "tau_m: 6553.6, tau_r: 6553.6")
    assert load(tmp_path, text).layers[0].tau_m[0] == 25.6


def test_hash_is_of_the_content_not_of_the_text(tmp_path: Path) -> None:
    one = load(tmp_path, GOOD)
    same = load(tmp_path, "# a comment\n" + GOOD.replace("beta: 1.0\n", "").replace("1.2", "12e-1"))
    other = load(tmp_path, GOOD.replace("tau_m: 0.6", "tau_m: 0.7"))
    assert one == same
    assert one.hash() == same.hash()
    assert one.hash() != other.hash()


@pytest.mark.parametrize(
    ("name", "parameters", "sizes"),
    [
        ("mnist1d-15k", 14_956, (53,) * 6 + (10,)),
        ("mnist1d-42k", 42_040, (90,) * 6 + (10,)),
        ("lagnet-mnist1d", 5_280, (10,) * 4 + (60, 60, 10)),
    ],
)
def test_zoo(name: str, parameters: int, sizes: tuple[int, ...]) -> None:
    network = Network.load(name)
    assert (network.name, network.parameters, network.sizes) == (name, parameters, sizes)
    assert (network.dt, network.inputs, network.loss) == (0.2, 1, "cross_entropy")


def test_every_network_of_the_zoo_loads() -> None:
    assert [Network.load(name).name for name in zoo_names("networks")] == zoo_names("networks")


def test_lagnet_is_frozen_with_tau_spread_linearly_from_dt() -> None:
    network = Network.load("lagnet-mnist1d")
    for layer in network.layers[:4]:
        assert (layer.learn, layer.init, layer.phi) == (False, "identity", "linear")
        np.testing.assert_allclose(layer.tau_m, np.linspace(0.2, 1.8, 10), rtol=1e-5)
        assert set(layer.tau_r) == {0.2}
    assert all(layer.learn and set(layer.tau_m) == {1.2} for layer in network.layers[4:])


RAW = yaml.safe_load(GOOD)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**400),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.just({"size": 1}),
    st.just(math.inf),
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(picks=st.lists(st.tuples(st.integers(0, 40), JUNK), min_size=1, max_size=4))
def test_junk_anywhere_is_a_mistake_or_valid_never_a_crash(picks: list[tuple[int, Any]]) -> None:
    raw = copy.deepcopy(RAW)
    for pick, junk in picks:
        places: list[tuple[Any, Any]] = []

        def walk(node: Any, into: list[tuple[Any, Any]] = places) -> None:
            entries = node.items() if isinstance(node, dict) else enumerate(node)
            for key, value in entries:
                into.append((node, key))
                if isinstance(value, (dict, list)):
                    walk(value, into)

        walk(raw)
        node, key = places[pick % len(places)]
        node[key] = copy.deepcopy(junk)
    list(Network.rules(raw))
    try:
        network = Network.model_validate(raw)
    except ValidationError:
        return
    assert network.parameters > 0
