"""The derivations as code: the names and shapes that the docstrings promise, and the same results as the layers."""

import inspect
import re

import numpy as np
import pytest

from cs231n import derivations
from cs231n.batchnorm import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
)
from cs231n.conv_layers import conv_backward_naive, conv_forward_naive
from cs231n.derivations import (
    affine_softmax_steps,
    batchnorm_closed_form_steps,
    batchnorm_steps,
    conv_steps,
    dropout_steps,
    layernorm_steps,
)
from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.layers import affine_backward, affine_forward, softmax_loss

SIZES = {"N": 6, "D": 4, "C": 3}
CONV_SIZES = {"N": 2, "C": 3, "H": 5, "W": 6, "HP": 7, "WP": 8, "F": 4, "KH": 3, "KW": 2, "H_out": 3, "W_out": 4}
EPS, P = 1e-5, 0.7


def arguments(function, dtype=np.float64):
    """Arguments of the function, by name."""
    if function is conv_steps:
        rng = np.random.default_rng(0)
        shapes = {"x": "N C H W", "w": "F C KH KW", "b": "F", "dout": "N F H_out W_out"}
        drawn = {name: rng.standard_normal([CONV_SIZES[n] for n in shape.split()]) for name, shape in shapes.items()}
        return {name: a.astype(dtype) for name, a in drawn.items()} | {"conv_param": {"stride": 2, "pad": 1}}
    rng, (N, D, C) = np.random.default_rng(0), SIZES.values()
    x, gamma, beta, dout = (rng.standard_normal(shape).astype(dtype) for shape in ((N, D), D, D, (N, D)))
    w, b, y = rng.standard_normal((D, C)).astype(dtype), rng.standard_normal(C).astype(dtype), rng.integers(C, size=N)
    uniform = np.random.default_rng(3).random((N, D), np.float32)
    drawn = {"x": x, "w": w, "b": b, "y": y, "gamma": gamma, "beta": beta, "dout": dout, "uniform": uniform}
    drawn |= {"eps": EPS, "p": P}
    return {name: drawn[name] for name in inspect.signature(function).parameters}


STEPS = [f for _, f in inspect.getmembers(derivations, inspect.isfunction) if f.__module__ == derivations.__name__]


@pytest.mark.parametrize("function", STEPS)
def test_the_steps_have_the_names_order_and_shapes_of_the_docstring(function):
    promised = inspect.getdoc(function).split("Returns a dict")[1]
    steps = function(**arguments(function))
    found = re.findall(r"(\w+)(?: \((?!bool)([\w, ]*)\))?(?: \(bool\))?(?=[,;.])", promised.split("\n", 1)[1])
    all_sizes = CONV_SIZES if function is conv_steps else SIZES
    assert [name for name, _ in found] == list(steps)
    for name, shape in found:
        sizes = tuple(all_sizes.get(size, 1) for size in re.findall(r"\w+", shape))
        assert np.shape(steps[name]) == (sizes or (() if name == "loss" else (6, 4))), name


@pytest.mark.parametrize("function", STEPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_steps_have_the_dtype_of_x_and_leave_the_arguments_alone(function, dtype):
    given = arguments(function, dtype)
    before = {name: np.copy(value) for name, value in given.items()}
    dtypes = {name: np.asarray(step).dtype for name, step in function(**given).items()}
    assert dtypes.pop("mask", np.dtype(bool)).kind == "b"
    assert set(dtypes.values()) == {np.dtype(dtype)}
    assert all(np.array_equal(given[name], before[name]) for name in given)


def test_integers_are_refused_by_name():
    given = arguments(batchnorm_steps)
    with pytest.raises(ValueError, match="gamma: wanted float32 or float64"):
        batchnorm_steps(**{**given, "gamma": np.ones(4, int)})


def test_affine_and_softmax_agree_with_the_layers():
    given = arguments(affine_softmax_steps)
    steps, y = affine_softmax_steps(**given), given.pop("y")
    scores, cache = affine_forward(**given)
    loss, dscores = softmax_loss(scores, y)
    agree(steps, scores=scores, loss=loss, dscores=dscores)
    agree(steps, **dict(zip(("dx", "dw", "db"), affine_backward(dscores, cache), strict=True)))


@pytest.mark.parametrize(
    ("function", "forward", "backward", "param"),
    [
        (batchnorm_steps, batchnorm_forward, batchnorm_backward, {"mode": "train", "eps": EPS}),
        (layernorm_steps, layernorm_forward, layernorm_backward, {"eps": EPS}),
    ],
)
def test_a_norm_agrees_with_its_layer(function, forward, backward, param):
    given = arguments(function)
    out, cache = forward(given["x"], given["gamma"], given["beta"], param)
    dx, dgamma, dbeta = backward(given["dout"], cache)
    agree(function(**given), out=out, dx=dx, dgamma=dgamma, dbeta=dbeta)


def test_the_closed_form_agrees_with_the_layer_and_with_the_sum_of_its_slopes():
    given = arguments(batchnorm_closed_form_steps)
    _, cache = batchnorm_forward(given["x"], given["gamma"], np.zeros(4), {"mode": "train", "eps": EPS})
    steps = batchnorm_closed_form_steps(**given)
    agree(steps, dx=batchnorm_backward_alt(given["dout"], cache)[0])
    agree(steps, dx=np.einsum("md,mnd->nd", steps["dxhat"], steps["dxhat_dx"]))


def test_dropout_agrees_with_the_layer():
    given = arguments(dropout_steps)
    out, cache = dropout_forward(given["x"], {"mode": "train", "p": P, "seed": 3})
    agree(dropout_steps(**given), out=out, dx=dropout_backward(given["dout"], cache))


def test_convolution_agrees_with_the_layer():
    given = arguments(conv_steps)
    steps, dout = conv_steps(**given), given.pop("dout")
    out, cache = conv_forward_naive(**given)
    agree(steps, out=out, **dict(zip(("dx", "dw", "db"), conv_backward_naive(dout, cache), strict=True)))


def agree(steps, **wanted):
    for name, value in wanted.items():
        assert np.allclose(steps[name], value, rtol=1e-10, atol=1e-13), name
