"""Activations: values, derivatives, extremes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwgle.activation import ACTIVATIONS, activation, dphi, phi, softmax

NAMES = ("linear", "tanh", "sigmoid", "softplus", "relu")
EXTREMES = [0.0, 1e-300, 1e-9, 20.0, 37.0, 500.0, 745.0, 1e4, 1e154, 1e308]

names = st.sampled_from(NAMES)
moderate = st.floats(-25, 25)
finite = st.floats(allow_nan=False, allow_infinity=False)


def test_these_five_exist():
    assert tuple(ACTIVATIONS) == NAMES
    assert all(ACTIVATIONS[name].name == name for name in NAMES)


@pytest.mark.parametrize("call", [activation, lambda n: phi(n, 0.0), lambda n: dphi(n, 0.0)])
def test_unknown_name_lists_the_known_ones(call):
    with pytest.raises(ValueError, match=r"'swish'.*linear, tanh, sigmoid, softplus, relu"):
        call("swish")


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("linear", 0.7, 1.0),
        ("tanh", 0.6043677771171636, 0.6347395899824584),
        ("sigmoid", 0.668187772168166, 0.22171287329310904),
        ("softplus", 1.1031860488854584, 0.668187772168166),
        ("relu", 0.7, 1.0),
    ],
)
def test_values_at_0_7(name, value, slope):
    assert phi(name, 0.7) == pytest.approx(value, rel=1e-14)
    assert dphi(name, 0.7) == pytest.approx(slope, rel=1e-14)


@given(names, moderate)
def test_derivative_is_that_of_phi(name, x):
    h = 1e-5
    if name == "relu" and abs(x) <= 2 * h:
        return
    slope = (phi(name, x + h) - phi(name, x - h)) / (2 * h)
    # truncation h^2/6 |phi'''| <= 4e-11, rounding 25 * 2^-52 / h = 6e-10
    assert abs(dphi(name, x) - slope) < 1e-9


@given(names, moderate)
def test_derivative_from_the_rate_is_the_derivative(name, x):
    x = np.array([x])
    act = activation(name)
    np.testing.assert_allclose(act.dphi_of_rate(act.phi(x)), act.dphi(x), rtol=0, atol=1e-15)


@given(names, finite, finite)
def test_phi_is_monotonic_and_never_overflows(name, a, b):
    low, high = sorted((a, b))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        rates = phi(name, [low, high])
        slopes = dphi(name, [low, high])
    assert np.isfinite(rates).all()
    assert rates[0] - rates[1] <= 1e-15 * abs(rates[1])
    assert ((slopes >= 0) & (slopes <= 1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_extremes(name, dtype):
    big = min(1e308, float(np.finfo(dtype).max))
    x = np.array([-np.inf, -big, big, np.inf], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        rates = phi(name, x)
    ends = {
        "linear": [-math.inf, -big, big, math.inf],
        "tanh": [-1, -1, 1, 1],
        "sigmoid": [0, 0, 1, 1],
        "softplus": [0, 0, big, math.inf],
        "relu": [0, 0, big, math.inf],
    }
    np.testing.assert_array_equal(rates, np.array(ends[name], dtype))


@pytest.mark.parametrize("x", [*EXTREMES, *(-x for x in EXTREMES)])
def test_tails_keep_their_relative_precision(x):
    # exp(-40) is a rate that a naive 1 / (1 + exp) or log(1 + exp) still gets right or
    # loses altogether; here every tail that is a normal number is right to 1e-14.
    tail = math.exp(-abs(x)) if abs(x) < 700 else 0.0
    if x <= -20:
        assert phi("sigmoid", x) == pytest.approx(tail / (1 + tail), rel=1e-14, abs=1e-300)
        assert phi("softplus", x) == pytest.approx(math.log1p(tail), rel=1e-14, abs=1e-300)
    assert dphi("sigmoid", x) == pytest.approx(tail / (1 + tail) ** 2, rel=1e-14, abs=1e-300)
    if 20 <= abs(x) < 300:
        assert dphi("tanh", x) == pytest.approx(1 / math.cosh(x) ** 2, rel=1e-13)


def test_relu_kink_has_slope_zero():
    np.testing.assert_array_equal(dphi("relu", [-1.0, -0.0, 0.0, 1e-300]), [0, 0, 0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(name):
    assert np.isnan(phi(name, np.nan))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", ["phi", "dphi", "dphi_of_rate"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_receives_the_same_result_even_in_place(name, function, dtype):
    x = np.linspace(-3, 3, 14, dtype=dtype).reshape(2, 7)
    call = getattr(activation(name), function)
    fresh = call(x)
    assert fresh.dtype == dtype
    assert fresh.shape == x.shape
    assert fresh is not x
    other = np.full_like(x, np.nan)
    assert call(x, out=other) is other
    np.testing.assert_array_equal(other, fresh)
    assert call(x, out=x) is x
    np.testing.assert_array_equal(x, fresh)


def test_integers_become_float64():
    assert phi("relu", [1, -2]).dtype == np.float64


def test_softmax_is_a_distribution_and_safe():
    r = np.array([[0.0, math.log(3.0)], [1e300, 1e300], [-1e4, 1e4]])
    np.testing.assert_allclose(softmax(r), [[0.25, 0.75], [0.5, 0.5], [0, 1]], rtol=1e-15)
