"""The gradient checks: they pass what is right, catch what is wrong by 0.1 %, and say where."""

import copy
import logging
import re

import numpy as np
import pytest

from cs231n.cnn_model import ThreeLayerConvNet
from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.fast_layers import max_pool_backward_fast, max_pool_forward_fast
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.layers import affine_backward, affine_forward, relu_backward, relu_forward, softmax_loss, svm_loss
from cs231n.utils import (
    check_gradient,
    check_layer,
    check_loss,
    check_model,
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    must_fail,
    rel_error,
)

entries_and_projections = pytest.mark.parametrize("directions", [None, 5], ids=["entries", "projections"])


def cubes(x):
    return np.sum(x**3)


def cubes_gradient(x):
    return 3 * x**2


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# rel_error.


def test_rel_error_is_the_largest_difference_over_the_largest_magnitude():
    assert rel_error(np.array([1.0, 4.0, 0.0]), np.array([1.0, 5.0, 0.5])) == 0.2  # |4 - 5| / 5
    assert rel_error(np.array([-5.0]), np.array([4.0])) == 1.8
    assert rel_error(np.array([4.0]), np.array([-5.0])) == 1.8
    assert rel_error(2.0, 2.0) == 0


def test_rel_error_of_zeros_is_0_and_of_tiny_numbers_is_over_the_floor():
    assert rel_error(np.zeros(3), np.zeros(3)) == 0
    assert rel_error(np.array([1e-12]), np.array([0.0])) == pytest.approx(1e-4)  # 1e-12 / 1e-8
    assert rel_error(np.array([1e-12]), np.array([0.0]), floor=1e-3) == pytest.approx(1e-9)


def test_rel_error_of_a_nan_is_nan():
    assert np.isnan(rel_error(np.array([1.0, np.nan]), np.ones(2)))
    assert np.isnan(rel_error(np.ones(2), np.array([np.nan, 1.0])))


@pytest.mark.parametrize("shapes", [((3, 1), (3,)), ((3,), ()), ((1,), (1, 1)), ((0,), (1,))], ids=str)
def test_rel_error_refuses_two_shapes(shapes):
    with pytest.raises(ValueError, match=re.escape(f"the same shape, got {shapes[0]} and {shapes[1]}")):
        rel_error(*map(np.ones, shapes))


@pytest.mark.parametrize(
    ("dtype", "x", "y", "wanted"),
    [
        ("uint8", [0, 10], [1, 10], 0.1),
        ("int8", [-128], [127], 255 / 128),
        ("uint16", [0], [2], 1),
        ("int32", [-(2**31)], [2**31 - 1], 2),
        ("int64", [-(2**63)], [2**63 - 1], 2),
        ("uint64", [2**64 - 1], [2**63], 0.5),
        ("bool", [True, False], [True, True], 1),
        ("bool", [True], [True], 0),
        ("float16", [6e4], [-6e4], 2),
        ("float64", [1e308], [-1e308], 2),
        ("complex128", [3 + 4j], [3 - 4j], 1.6),
    ],
)
def test_rel_error_of_every_dtype(dtype, x, y, wanted):
    for a, b in ((x, y), (y, x)):
        assert rel_error(np.array(a, dtype), np.array(b, dtype)) == pytest.approx(wanted)


def test_rel_error_of_two_dtypes():
    assert rel_error(np.array([255], np.uint8), np.array([-1], np.int8)) == pytest.approx(256 / 255)
    assert rel_error(np.array([2**63], np.uint64), np.array([-(2**63)])) == 2
    assert rel_error(2, np.float32(2.5)) == pytest.approx(0.2)


def test_rel_error_of_infinities():
    inf = np.inf
    assert rel_error(np.array([inf, 4.0, -inf]), np.array([inf, 5.0, -inf])) == 0.2
    assert rel_error(np.array([inf, 1.0]), np.array([1.0, 1.0])) == inf
    assert rel_error(np.array([1.0]), np.array([-inf])) == inf
    assert rel_error(np.array([inf]), np.array([-inf])) == inf
    assert np.isnan(rel_error(np.array([inf, np.nan]), np.array([1.0, np.nan])))


def test_rel_error_of_empty_arrays_and_of_0_dimensions():
    assert rel_error(np.ones((0, 3)), np.ones((0, 3))) == 0
    assert rel_error(np.array(4.0), 5) == 0.2


# Numerical gradients.


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3, 2)], ids=str)
def test_numerical_gradient_of_cubes(shape):
    x = np.array(random(*shape))
    gradient = eval_numerical_gradient(cubes, x)
    assert gradient.shape == shape
    assert rel_error(gradient, cubes_gradient(x)) < 1e-8


def test_numerical_gradient_is_central_so_that_its_error_falls_as_h_squared():
    x = np.array([0.3])
    errors = [abs(eval_numerical_gradient(cubes, x, h=h) - cubes_gradient(x)).item() for h in (1e-1, 1e-2)]
    assert errors == pytest.approx([1e-2, 1e-4])  # ((x + h)^3 - (x - h)^3) / 2h = 3 x^2 + h^2; one-sided: 3 x h + h^2


def test_numerical_gradient_of_an_array_is_weighted_by_df():
    x, w, df = random(3, 4), random(4, 5), random(3, 5)
    assert rel_error(eval_numerical_gradient_array(lambda x: x @ w, x, df), df @ w.T) < 1e-8


def test_numerical_gradient_may_read_x_elsewhere():
    """f ignores its argument, as a net's loss does that reads its params."""
    x = random(3, 2)
    assert rel_error(eval_numerical_gradient(lambda _: cubes(x), x), cubes_gradient(x)) < 1e-8


def test_numerical_gradient_of_a_function_that_returns_x_itself():
    x = random(3)
    np.testing.assert_allclose(eval_numerical_gradient_array(lambda x: x, x, np.ones(3)), 1, rtol=1e-9)


def test_numerical_gradient_of_a_strided_x():
    x = random(6, 4)[::2, ::-1]
    assert rel_error(eval_numerical_gradient(cubes, x), cubes_gradient(x)) < 1e-8


def test_numerical_gradient_calls_f_at_x_plus_h_and_x_minus_h_to_the_bit():
    seen = []
    eval_numerical_gradient(lambda x: seen.append(x.item()) or 0.0, np.array([0.3]), h=0.1)
    assert seen == [0.3 + 0.1, 0.3 - 0.1]  # (0.3 + 0.1) - 0.2 is another number


@entries_and_projections
def test_x_is_put_back_to_the_bit(directions):
    x = random(4, 5) * 1e3
    before = x.tobytes()
    check_gradient("dx", cubes, x, cubes_gradient(x), h=0.1, tol=1, directions=directions)  # a step that rounds
    assert x.tobytes() == before


@entries_and_projections
@pytest.mark.parametrize("fatal_call", [1, 2, 3])
def test_x_is_put_back_when_f_raises(directions, fatal_call):
    x = random(4, 5)
    before = x.tobytes()
    calls = []

    def f(x):
        calls.append(None)
        if len(calls) == fatal_call:
            raise RuntimeError("f fails")
        return cubes(x)

    with pytest.raises(RuntimeError, match="f fails"):
        check_gradient("dx", f, x, cubes_gradient(x), directions=directions)
    assert x.tobytes() == before


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_logs_each_entry(verbose, caplog):
    caplog.set_level(logging.INFO, "cs231n.utils")
    eval_numerical_gradient(cubes, np.array([[1.0, 2.0]]), verbose=verbose)
    wanted = ["gradient at (0, 0): 3", "gradient at (0, 1): 12"] if verbose else []
    assert [record.getMessage() for record in caplog.records] == wanted


@entries_and_projections
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_a_loss_may_be_an_array_of_one_number(directions, shape):
    x = random(3, 4)
    check_gradient("dx", lambda x: np.reshape(cubes(x), shape), x, cubes_gradient(x), directions=directions)
    gradient = eval_numerical_gradient(lambda x: np.reshape(cubes(x), shape), x)
    assert rel_error(gradient, cubes_gradient(x)) < 1e-8


@entries_and_projections
@pytest.mark.parametrize("shape", [(2,), (0,), (3, 1)], ids=str)
def test_a_loss_of_several_numbers_is_named(directions, shape):
    message = re.escape(f"f: wanted a scalar loss, got an array of shape {shape}")
    with pytest.raises(ValueError, match=message):
        check_gradient("dx", lambda x: np.ones(shape), np.ones(3), np.ones(3), directions=directions)
    with pytest.raises(ValueError, match=message):
        eval_numerical_gradient(lambda x: np.ones(shape), np.ones(3))


def test_df_has_the_shape_of_f():
    with pytest.raises(ValueError, match=re.escape("f: wanted an array of df's shape, (3,), got (3, 1)")):
        eval_numerical_gradient_array(lambda x: x, np.ones((3, 1)), np.ones(3))


@entries_and_projections
@pytest.mark.parametrize("h", [0, -1e-5, np.nan])
def test_a_step_is_above_0(directions, h):
    with pytest.raises(ValueError, match=f"h: wanted a step above 0, got {h}"):
        check_gradient("dx", cubes, np.ones(3), np.ones(3), h=h, directions=directions)


@pytest.mark.parametrize("directions", [0, -1, 1.5, True])
def test_directions_are_at_least_1(directions):
    with pytest.raises(ValueError, match=f"directions: wanted a whole number of at least 1, got {directions}"):
        check_gradient("dx", cubes, np.ones(3), np.zeros(3), directions=directions)


@entries_and_projections
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_only_float64_is_taken(directions, dtype):
    x = np.ones(3, dtype)
    with pytest.raises(ValueError, match=f"x: wanted float64, got {x.dtype}"):
        check_gradient("dx", cubes, x, cubes_gradient(x), directions=directions)
    with pytest.raises(ValueError, match=f"x: wanted float64, got {x.dtype}"):
        eval_numerical_gradient(cubes, x)


# check_gradient.


@entries_and_projections
def test_check_gradient_passes_the_right_gradient(directions):
    x = random(4, 5)
    check_gradient("dx", cubes, x, cubes_gradient(x), directions=directions)


@entries_and_projections
def test_check_gradient_rejects_0_1_percent_error(directions):
    x = random(4, 5)
    with pytest.raises(AssertionError, match="dx"):
        check_gradient("dx", cubes, x, 1.001 * cubes_gradient(x), directions=directions)


@entries_and_projections
@pytest.mark.parametrize("entry", list(np.ndindex(2, 3)), ids=str)
def test_check_gradient_rejects_one_entry_wrong_by_0_1_percent(directions, entry):
    x = 1 + np.abs(random(2, 3))
    dx = cubes_gradient(x)
    dx[entry] *= 1.001
    with pytest.raises(AssertionError, match="dx"):
        check_gradient("dx", cubes, x, dx, directions=directions)


@pytest.mark.parametrize(("wrong", "error"), [(3.003, "1.0e-03"), (2.97, "1.0e-02")])
def test_check_gradient_names_argument_index_and_both_values(wrong, error):
    x = np.ones((2, 3))
    dx = cubes_gradient(x)
    dx[1, 2] = wrong
    values = rf"dw\[1, 2\] is {wrong}, but the numerical gradient gives (3(\.0\d*)?|2\.99\d*)"
    with pytest.raises(AssertionError, match=rf"affine: {values} \(relative error {error}, allowed 1e-07\)"):
        check_gradient("affine: dw", cubes, x, dx)


def test_projections_name_argument_index_and_both_values_too():
    x = np.ones((4, 5))
    dx = cubes_gradient(x)
    dx[2, 3] = 3.003
    values = r"dx\[2, 3\] is 3\.003, but the numerical gradient gives (3(\.0\d*)?|2\.99\d*)"
    with pytest.raises(AssertionError, match=rf"relu: {values} \(relative error 1\.0e-03, allowed 1e-07\)"):
        check_gradient("relu: dx", cubes, x, dx, directions=1)


def test_projections_cost_two_calls_each():
    x, calls = random(30, 30), []
    check_gradient("dx", lambda x: calls.append(None) or cubes(x), x, cubes_gradient(x), directions=3)
    assert len(calls) == 6


def test_projections_differ_from_each_other_and_follow_the_seed():
    x = np.zeros((2, 2))

    def directions_of(seed):
        seen = []
        check_gradient("dx", lambda x: seen.append(x.copy()) or 0.0, x, x, directions=2, seed=seed)
        return np.array(seen[::2])

    first = directions_of(0)
    assert rel_error(first[0], first[1]) > 0.01
    np.testing.assert_array_equal(first, directions_of(0))
    assert rel_error(first, directions_of(1)) > 0.01
    np.testing.assert_allclose(np.linalg.norm(first, axis=(1, 2)), 1e-5)  # h along a unit vector


@entries_and_projections
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_check_gradient_catches_a_value_that_is_not_finite(directions, value):
    x = random(2, 3)
    dx = cubes_gradient(x)
    dx[1, 0] = value
    with pytest.raises(AssertionError, match=rf"dx\[1, 0\] is {value}"):
        check_gradient("dx", cubes, x, dx, directions=directions)


@entries_and_projections
def test_check_gradient_catches_a_function_that_is_nan(directions):
    x = random(2, 3)
    with pytest.raises(AssertionError, match="the numerical gradient gives nan"):
        check_gradient("dx", lambda x: np.nan, x, cubes_gradient(x), directions=directions)


@entries_and_projections
@pytest.mark.parametrize(
    ("dx", "got"), [(None, "None"), (np.ones((3, 2)), "(3, 2)"), (np.ones(3), "(3,)"), (1.0, "()")], ids=str
)
def test_check_gradient_catches_a_gradient_of_another_shape(directions, dx, got):
    x = np.ones((2, 3))
    with pytest.raises(AssertionError, match=re.escape(f"dw: wanted an array of shape (2, 3), got {got}")):
        check_gradient("dw", cubes, x, dx, directions=directions)


def test_check_gradient_catches_a_gradient_of_a_scalar_that_is_none():
    with pytest.raises(AssertionError, match=re.escape("dx: wanted an array of shape (), got None")):
        check_gradient("dx", cubes, np.array(2.0), None)


def test_tol_is_the_error_allowed():
    x = random(4)
    check_gradient("dx", cubes, x, 1.001 * cubes_gradient(x), tol=2e-3)
    with pytest.raises(AssertionError):
        check_gradient("dx", cubes, x, 1.001 * cubes_gradient(x), tol=0.9e-3)


@entries_and_projections
def test_check_gradient_of_an_empty_array(directions):
    check_gradient("dx", cubes, np.ones((0, 3)), np.ones((0, 3)), directions=directions)


@entries_and_projections
def test_rounding_of_a_large_loss_is_no_error(directions):
    x = random(4, 5)
    check_gradient("dx", lambda x: 1e4 + 1e-4 * cubes(x), x, 1e-4 * cubes_gradient(x), directions=directions)


@entries_and_projections
def test_a_random_function_is_named(directions):
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="dx cannot be checked: f is random, two calls at the same x differ"):
        check_gradient("dx", lambda x: cubes(x) * rng.random(), np.ones(3), np.ones(3), directions=directions)


# Kinks.

POOL, OVERLAPPING = ({"pool_height": size, "pool_width": size, "stride": 2} for size in (2, 3))


def whole_numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(float)


@entries_and_projections
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("dims", "settings"),
    [
        ([8, 8, 8, 12], {"weight_scale": 5e-2}),  # activations as small as h
        ([8], {"normalization": "batchnorm", "weight_scale": 5e-2}),
        ([8], {"normalization": "layernorm", "reg": 0.1}),
        ([12, 6], {"dropout": 0.7}),
    ],
    ids=["deep", "batchnorm", "layernorm", "dropout"],
)
def test_a_right_net_passes_whatever_its_kinks(directions, seed, dims, settings):
    X, y = random(3, 6, seed=seed), np.array([0, 3, 1])
    net = FullyConnectedNet(dims, 6, 4, dtype=np.float64, seed=seed, **settings)
    for inputs in (X, np.zeros_like(X)) if settings.get("normalization") is None else (X,):  # of 0: kinks at x
        check_model(net, inputs, y, directions=directions, log=str)


@entries_and_projections
@pytest.mark.parametrize("X", [random(2, 2, 4, 4), whole_numbers(2, 2, 4, 4), np.zeros((2, 2, 4, 4))])
def test_a_right_convolutional_net_passes_whatever_its_kinks(directions, X):
    net = ThreeLayerConvNet((2, 4, 4), 3, 3, 4, 3, dtype=np.float64, seed=0)
    check_model(net, X, np.array([0, 2]), directions=directions, log=str)


@entries_and_projections
@pytest.mark.parametrize("seed", range(2))
def test_layers_pass_at_their_kinks(directions, seed):
    images = whole_numbers(2, 2, 4, 4, seed=seed)
    check_layer(relu_forward, relu_backward, images, directions=directions, log=str)
    check_layer(max_pool_forward_fast, max_pool_backward_fast, images, POOL, directions=directions, log=str)
    check_layer(max_pool_forward_fast, max_pool_backward_fast, 0 * images, POOL, directions=directions, log=str)
    check_loss(svm_loss, whole_numbers(5, 4, seed=seed), np.array([0, 3, 1, 1, 2]), directions=directions, log=str)


@entries_and_projections
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1e-2, 5e-2])
@pytest.mark.parametrize("wrong", ["0.1 %", "sign", "dropped", "one entry"])
def test_a_wrong_gradient_of_a_net_with_kinks_is_caught(directions, seed, scale, wrong):
    X, y = random(3, 6, seed=seed), np.array([0, 3, 1])
    net = FullyConnectedNet([8, 6, 12], 6, 4, dtype=np.float64, seed=seed, weight_scale=scale)
    _, grads = net.loss(X, y)
    for name, w in net.params.items():
        dw = grads[name].copy()
        if wrong == "one entry":  # few of the random directions show 0.1 % of one
            dw.flat[np.argmax(np.abs(dw))] *= 1.001 if directions is None else 1.1
        else:
            dw *= {"0.1 %": 1.001, "sign": -1, "dropped": 0}[wrong]
        if np.max(np.abs(dw - grads[name])) > 1e-8:
            with pytest.raises(AssertionError, match=rf"{name}\["):
                check_gradient(name, lambda _: net.loss(X, y)[0], w, dw, directions=directions)


@pytest.mark.parametrize("slope", [-1.0, 1.001, 2.001])
def test_a_slope_of_neither_side_of_a_kink_is_undecided(slope):
    f = lambda x: np.sum(x + np.maximum(x, 0))
    message = r"dx\[0\] is .*, 1 on the one side of x and 2 on the other: at a kink, the check cannot tell"
    with pytest.raises(AssertionError, match=message):
        check_gradient("dx", f, np.zeros(1), np.array([slope]))
    check_gradient("dx", f, np.zeros(1), np.array([1.0]))
    check_gradient("dx", f, np.zeros(1), np.array([2.0]))


def test_a_wrong_slope_beside_a_kink_is_wrong():
    f, x = lambda x: np.sum(np.maximum(x, 0)), np.array([3e-6, -3e-6])
    check_gradient("dx", f, x, np.array([1.0, 0.0]))
    for i, wrong in ((0, [1.001, 0.0]), (1, [1.0, 0.001])):
        with pytest.raises(AssertionError, match=rf"dx\[{i}\] is {wrong[i]}, .*relative error"):
            check_gradient("dx", f, x, np.array(wrong))


def test_ties_in_overlapping_windows_are_undecided():
    """Each tie is a kink; an entry that is first in one window, but not in another, has the slope of neither side."""
    with pytest.raises(AssertionError, match="at a kink, the check cannot tell"):
        check_layer(max_pool_forward_fast, max_pool_backward_fast, np.ones((1, 1, 7, 7)), OVERLAPPING)


# check_layer.


def linear(dw=1.0, db=1.0):
    """The backward of an affine layer, off by the factors dw and db."""

    def backward(dout, cache):
        dx, true_dw, true_db = affine_backward(dout, cache)
        return dx, dw * true_dw, db * true_db

    return backward


@entries_and_projections
def test_check_layer_reports_success_in_one_stable_line(directions, capsys):
    lines = []
    check_layer(affine_forward, affine_backward, random(3, 4), random(4, 2), random(2), directions=directions)
    check_layer(relu_forward, relu_backward, random(3, 4), tol=1e-6, directions=directions, log=lines.append)
    assert capsys.readouterr().out == ("affine: gradient check passed for dx, dw, db (relative error below 1e-07)\n")
    assert lines == ["relu: gradient check passed for dx (relative error below 1e-06)"]


@entries_and_projections
@pytest.mark.parametrize("argument", ["dw", "db"])
def test_check_layer_rejects_0_1_percent_error_and_names_the_argument(directions, argument):
    backward, lines = linear(**{argument: 1.001}), []
    with pytest.raises(AssertionError, match=f"affine: {argument}"):
        check_layer(
            affine_forward, backward, random(3, 4), random(4, 2), random(2), directions=directions, log=lines.append
        )
    assert not lines


@pytest.mark.parametrize("p", [0.5, 1])
def test_check_layer_takes_a_parameter_dict(p):
    check_layer(dropout_forward, dropout_backward, random(3, 4), {"mode": "train", "p": p, "seed": 0}, log=str)


@entries_and_projections
@pytest.mark.parametrize("rng", [{}, {"rng": np.random.default_rng(0)}], ids=["no seed", "rng"])
def test_check_layer_names_a_random_layer(directions, rng):
    with pytest.raises(AssertionError, match=r"dropout: dx cannot be checked: f is random, .* give it a seed"):
        check_layer(
            dropout_forward, dropout_backward, random(3, 4), {"mode": "train", "p": 0.5, **rng}, directions=directions
        )


@entries_and_projections
def test_check_model_names_a_random_model(directions):
    net = FullyConnectedNet([20], 4, 3, dropout=0.5, weight_scale=1.0, dtype=np.float64)
    with pytest.raises(AssertionError, match=r"dW1 cannot be checked: f is random, .* give it a seed"):
        check_model(net, random(6, 4), np.arange(6) % 3, directions=directions)


def test_check_layer_catches_a_gradient_that_is_left_out():
    with pytest.raises(AssertionError, match="affine: wanted the gradients dx, dw, db, got 2 of them"):
        check_layer(affine_forward, lambda *a: affine_backward(*a)[:2], random(3, 4), random(4, 2), random(2))


def test_check_layer_catches_a_gradient_that_is_none():
    backward = lambda dout, cache: affine_backward(dout, cache, need_dx=False)
    with pytest.raises(AssertionError, match=r"affine: dx: wanted an array of shape \(3, 4\), got None"):
        check_layer(affine_forward, backward, random(3, 4), random(4, 2), random(2))


def test_check_layer_catches_a_backward_that_writes_into_dout():
    def backward(dout, cache):
        dout *= cache > 0
        return dout

    with pytest.raises(ValueError, match="read-only"):
        check_layer(relu_forward, backward, random(3, 4))


def test_check_layer_catches_a_backward_that_writes_into_x():
    def backward(dout, cache):
        dx = relu_backward(dout, cache)
        cache[:] = 0
        return dx

    with pytest.raises(ValueError, match="read-only"):
        check_layer(relu_forward, backward, random(3, 4))


def test_check_layer_catches_a_forward_that_writes_into_x():
    def forward(x):
        mask = x > 0
        x *= mask
        return x, mask

    with pytest.raises(ValueError, match="read-only"):
        check_layer(forward, lambda dout, mask: dout * mask, random(3, 4))


def test_check_layer_leaves_its_arguments_as_they_were():
    args = random(3, 4), {"mode": "train", "p": 0.5, "seed": 0, "seen": []}
    before = copy.deepcopy(args)

    def forward(x, param):
        param["seen"].append(1)
        return dropout_forward(x, {key: value for key, value in param.items() if key != "seen"})

    check_layer(forward, dropout_backward, *args, log=str)
    np.testing.assert_array_equal(args[0], before[0])
    assert args[0].flags.writeable
    assert args[1] == before[1]


@pytest.mark.parametrize(("directions", "calls"), [(None, 1 + 2 * 12), (3, 1 + 2 * 3)])
def test_each_check_passes_directions_on(directions, calls):
    """One call for the gradient, and two for each entry, of which x has 12, or for each direction."""
    seen = []

    def relu(x):
        seen.append("layer")
        return relu_forward(x)

    def loss(x, y):
        seen.append("loss")
        return softmax_loss(x, y)

    class Net(ScaledNet):
        def loss(self, X, y=None):
            seen.append("model")
            return super().loss(X, y)

    model, y = Net(), np.array([0, 3, 1])
    model.params = {"W1": random(4, 3), "b1": random(3)}
    model.num_layers = 1
    check_layer(relu, relu_backward, random(3, 4), directions=directions, log=str)
    check_loss(loss, random(3, 4), y, directions=directions, log=str)
    check_model(model, random(3, 4), y % 3, directions=directions, log=str)
    assert [seen.count(kind) for kind in ("layer", "loss")] == [calls, calls]
    assert seen.count("model") == calls + (2 * 3)  # b1: 3 entries, or 3 directions


def test_check_layer_draws_dout_from_the_seed():
    seen = []

    def backward(dout, cache):
        seen.append(dout)
        return relu_backward(dout, cache)

    for seed in (0, 0, 1):
        check_layer(relu_forward, backward, random(3, 4), seed=seed, log=str)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).all()


def test_check_layer_takes_float64_alone():
    with pytest.raises(ValueError, match="x: wanted float64, got float32"):
        check_layer(relu_forward, relu_backward, random(3, 4).astype(np.float32))


# check_loss and check_model.


@entries_and_projections
def test_check_loss_reports_success_in_one_stable_line(directions, capsys):
    check_loss(softmax_loss, random(3, 4), np.array([0, 3, 1]), directions=directions)
    assert capsys.readouterr().out == "softmax_loss: gradient check passed for dx (relative error below 1e-07)\n"


@entries_and_projections
def test_check_loss_rejects_0_1_percent_error(directions):
    def loss(x, y):
        value, dx = softmax_loss(x, y)
        return value, 1.001 * dx

    with pytest.raises(AssertionError, match="loss: dx"):
        check_loss(loss, random(3, 4), np.array([0, 3, 1]), directions=directions)


def test_check_loss_catches_a_loss_that_writes_into_the_scores():
    def loss(x, y):
        x -= x.max(axis=1, keepdims=True)
        return softmax_loss(x, y)

    x = random(3, 4)
    with pytest.raises(ValueError, match="read-only"):
        check_loss(loss, x, np.array([0, 3, 1]))
    assert x.flags.writeable


def test_check_loss_leaves_its_scores_as_they_were():
    x = random(3, 4)
    x.flags.writeable = False  # so that any write would raise
    check_loss(softmax_loss, x, np.array([0, 3, 1]), log=str)


class ScaledNet(FullyConnectedNet):
    """A net whose gradient of one parameter is off by a factor."""

    def __init__(self, name=None, factor=1.001):
        super().__init__([5], input_dim=4, num_classes=3, weight_scale=1.0, dtype=np.float64, seed=0)
        self.name, self.factor = name, factor

    def loss(self, X, y=None):
        loss, grads = super().loss(X, y)
        if self.name:
            grads[self.name] *= self.factor
        return loss, grads


@entries_and_projections
def test_check_model_reports_success_in_one_stable_line(directions, capsys):
    check_model(ScaledNet(), random(6, 4), np.arange(6) % 3, directions=directions)
    assert capsys.readouterr().out == (
        "ScaledNet: gradient check passed for dW1, db1, dW2, db2 (relative error below 1e-07)\n"
    )


@entries_and_projections
@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_check_model_rejects_0_1_percent_error_and_names_the_parameter(directions, name):
    with pytest.raises(AssertionError, match=f"ScaledNet: d{name}"):
        check_model(ScaledNet(name), random(6, 4), np.arange(6) % 3, directions=directions)


@pytest.mark.parametrize("change", [lambda grads: grads.pop("b1"), lambda grads: grads.update(extra=np.zeros(1))])
def test_check_model_rejects_a_gradient_too_few_or_too_many(change):
    model = ScaledNet()
    whole_loss = model.loss

    def loss(X, y):
        value, grads = whole_loss(X, y)
        change(grads)
        return value, grads

    model.loss = loss
    with pytest.raises(AssertionError, match="grads: wanted W1, b1, W2, b2, got "):
        check_model(model, random(6, 4), np.arange(6) % 3)


def test_check_model_leaves_the_parameters_as_they_were():
    model = ScaledNet()
    before = {name: w.tobytes() for name, w in model.params.items()}
    check_model(model, random(6, 4), np.arange(6) % 3, log=str)
    assert {name: w.tobytes() for name, w in model.params.items()} == before


# must_fail.


@pytest.mark.parametrize("error", [AssertionError, ValueError])
def test_must_fail_says_what_the_check_found(error, capsys):
    def check(x, tol):
        raise error(f"{x} is over {tol}")

    must_fail(check, 2, 1)
    assert capsys.readouterr().out == "caught: 2 is over 1\n"


def test_must_fail_fails_where_the_check_passes():
    with pytest.raises(AssertionError, match="wrong code has passed the check"):
        must_fail(check_layer, relu_forward, relu_backward, random(3, 4))


def test_must_fail_passes_on_an_error_of_another_kind():
    with pytest.raises(ZeroDivisionError):
        must_fail(lambda: 1 / 0)


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([b"a"]), np.array([None]), np.zeros(1, "m8[s]"), {}])
def test_rel_error_names_what_is_no_array_of_numbers(x):
    one = np.ones(np.shape(x))
    for name, pair in (("x", (x, one)), ("y", (one, x))):
        with pytest.raises(ValueError, match=f"^{name}: wanted numbers, got "):
            rel_error(*pair)


@pytest.mark.parametrize("floor", [None, "1", -1, np.nan, 1j, [1]])
def test_rel_error_names_a_floor_that_is_no_magnitude(floor):
    with pytest.raises(ValueError, match=r"^floor: wanted a number of at least 0, got "):
        rel_error(np.ones(2), np.ones(2), floor)


def half_square(x):
    return 0.5 * np.sum(np.square(x))


READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "x", [None, 1.0, np.float64(1), [1.0, 2.0], np.ma.ones(3), READ_ONLY], ids=lambda x: type(x).__name__
)
def test_numerical_gradients_name_an_x_that_cannot_be_moved(x):
    for gradient in (
        lambda: eval_numerical_gradient(half_square, x),
        lambda: eval_numerical_gradient_array(np.square, x, np.ones(3)),
        lambda: check_gradient("dx", half_square, x, x),
    ):
        with pytest.raises(ValueError, match=r"^x: wanted "):
            gradient()


@pytest.mark.parametrize("h", [None, "1e-5", 1j, [1e-5], np.inf])
def test_numerical_gradients_name_a_step_that_is_no_number(h):
    with pytest.raises(ValueError, match=r"^h: wanted a step above 0, got "):
        eval_numerical_gradient(half_square, np.ones(3), h=h)


@pytest.mark.parametrize("df", [np.array(["a", "b"]), np.array([None, None]), np.array([1j, 1j])])
def test_numerical_gradients_name_a_df_that_is_not_of_numbers(df):
    with pytest.raises(ValueError, match=r"^df: wanted numbers"):
        eval_numerical_gradient_array(np.square, np.ones(2), df)


@pytest.mark.parametrize("tol", [None, "1e-7", np.nan, -1, 1j])
def test_check_gradient_names_a_tolerance_that_is_no_number(tol):
    with pytest.raises(ValueError, match=r"^tol: wanted a number of at least 0, got "):
        check_gradient("dx", half_square, np.ones(3), np.ones(3), tol=tol)


@pytest.mark.parametrize("dtype", [complex, object, "U3"])
def test_check_gradient_names_a_dx_that_is_not_of_floats(dtype):
    with pytest.raises(AssertionError, match=r"^dx: wanted an array of floats, got "):
        check_gradient("dx", half_square, np.ones(3), np.ones(3).astype(dtype))
