"""The gradient checks: they pass what is right, catch what is wrong by 0.1 %, and say where."""

import copy
import logging
import re

import numpy as np
import pytest

from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.layers import affine_backward, affine_forward, relu_backward, relu_forward, softmax_loss
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


def test_check_gradient_names_argument_and_both_slopes_of_a_projection():
    x = np.full(1, 2.0)  # of one entry, so that the random unit direction is 1 or -1
    slopes = (
        r"dx has the slope -?12\.012 along a random direction, but the numerical gradient gives -?1(2(\.0\d*)?|1\.9\d*)"
    )
    with pytest.raises(AssertionError, match=rf"relu: {slopes} \(relative error 1\.0e-03, allowed 1e-07\)"):
        check_gradient("relu: dx", cubes, x, 1.001 * cubes_gradient(x), directions=1)


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
    found = rf"dx\[1, 0\] is {value}" if directions is None else f"dx has the slope -?{value}"
    with pytest.raises(AssertionError, match=found):
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
