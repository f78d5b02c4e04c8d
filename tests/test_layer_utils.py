"""Composite layers are their layers in a row; test_layers.py checks their gradients, dtypes and shapes."""

import numpy as np
import pytest

from cs231n.batchnorm import (
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
)
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_ln_relu_backward,
    affine_ln_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
    conv_bn_relu_backward,
    conv_bn_relu_forward,
    conv_bn_relu_pool_backward,
    conv_bn_relu_pool_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from cs231n.layers import affine_backward, affine_forward, relu_backward, relu_forward
from cs231n.utils import check_layer

# Forward and backward of the composite, and of the layer between affine and relu.
COMPOSITES = {
    "affine_relu": (affine_relu_forward, affine_relu_backward, lambda a: (a, None), lambda dh, cache: (dh,)),
    "affine_bn_relu": (affine_bn_relu_forward, affine_bn_relu_backward, batchnorm_forward, batchnorm_backward_alt),
    "affine_ln_relu": (affine_ln_relu_forward, affine_ln_relu_backward, layernorm_forward, layernorm_backward),
}
every_composite = pytest.mark.parametrize(
    ("forward", "backward", "between_forward", "between_backward"), COMPOSITES.values(), ids=COMPOSITES
)


def arguments(forward, seed=0):
    rng = np.random.default_rng(seed)
    x, w, b = rng.standard_normal((5, 2, 3)), rng.standard_normal((6, 4)), rng.standard_normal(4)
    if forward is affine_relu_forward:
        return x, w, b
    return x, w, b, rng.standard_normal(4), rng.standard_normal(4), {"mode": "train"}


@every_composite
def test_composite_is_its_layers_in_a_row(forward, backward, between_forward, between_backward):
    x, w, b, *rest = arguments(forward)
    out, cache = forward(x, w, b, *rest)
    a, affine_cache = affine_forward(x, w, b)
    h, between_cache = between_forward(a, *rest)
    expected, relu_cache = relu_forward(h)
    np.testing.assert_array_equal(out, expected)

    dout = np.random.default_rng(1).standard_normal(out.shape)
    dh = relu_backward(dout, relu_cache)
    da, *rest_grads = between_backward(dh, between_cache)
    expected_grads = [*affine_backward(da, affine_cache), *rest_grads]
    for got, wanted in zip(backward(dout, cache), expected_grads, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("forward", "backward"),
    [(affine_forward, affine_backward), *[(forward, backward) for forward, backward, *_ in COMPOSITES.values()]],
)
def test_need_dx_false_leaves_out_dx_alone(forward, backward):
    args = arguments(forward)[: 3 if forward is affine_forward else None]
    out, cache = forward(*args)
    dx, *grads = backward(out, cache, need_dx=True)
    nothing, *same_grads = backward(out, cache, need_dx=False)
    assert nothing is None
    assert dx.shape == args[0].shape
    for got, wanted in zip(same_grads, grads, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("mode", ["train", "test"])
def test_affine_bn_relu_updates_the_running_averages_in_train_mode_alone(mode):
    x, w, b, gamma, beta, _ = arguments(affine_bn_relu_forward)
    bn_param = {"mode": mode, "running_mean": np.zeros(4), "running_var": np.ones(4)}
    affine_bn_relu_forward(x, w, b, gamma, beta, bn_param)
    assert bn_param["running_mean"].any() == (mode == "train")


# Convolutional composites: forward, backward, and whether they normalize and pool.
CONV, POOL = {"stride": 2, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 1}
CONV_COMPOSITES = {
    "conv_relu": (conv_relu_forward, conv_relu_backward, False, False),
    "conv_bn_relu": (conv_bn_relu_forward, conv_bn_relu_backward, True, False),
    "conv_relu_pool": (conv_relu_pool_forward, conv_relu_pool_backward, False, True),
    "conv_bn_relu_pool": (conv_bn_relu_pool_forward, conv_bn_relu_pool_backward, True, True),
}
every_conv_composite = pytest.mark.parametrize(
    ("forward", "backward", "normalizes", "pools"), CONV_COMPOSITES.values(), ids=CONV_COMPOSITES
)


def conv_arguments(normalizes, pools):
    """Arrays, and the parameter dicts after them."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in [(3, 2, 7, 6), (4, 2, 3, 3), (4,), (4,), (4,)]]
    params = [dict(CONV)] + [{"mode": "train"}] * normalizes + [dict(POOL)] * pools
    return arrays[: 5 if normalizes else 3], params


@every_conv_composite
def test_conv_composite_is_its_layers_in_a_row(forward, backward, normalizes, pools):
    (x, w, b, *norm), params = conv_arguments(normalizes, pools)
    out, cache = forward(x, w, b, *norm, *params)
    h, conv_cache = conv_forward_fast(x, w, b, CONV)
    if normalizes:
        h, bn_cache = spatial_batchnorm_forward(h, *norm, {"mode": "train"})
    h, relu_cache = relu_forward(h)
    if pools:
        h, pool_cache = max_pool_forward_fast(h, POOL)
    np.testing.assert_array_equal(out, h)

    dout = dh = np.random.default_rng(1).standard_normal(out.shape)
    if pools:
        dh = max_pool_backward_fast(dh, pool_cache)
    dh, norm_grads = relu_backward(dh, relu_cache), []
    if normalizes:
        dh, *norm_grads = spatial_batchnorm_backward(dh, bn_cache)
    for got, wanted in zip(backward(dout, cache), [*conv_backward_fast(dh, conv_cache), *norm_grads], strict=True):
        np.testing.assert_array_equal(got, wanted)
    nothing, *grads = backward(dout, cache, need_dx=False)
    assert nothing is None
    for got, wanted in zip(grads, backward(dout, cache)[1:], strict=True):
        np.testing.assert_array_equal(got, wanted)


@every_conv_composite
def test_gradients_of_conv_composites_agree_with_numerical_ones(forward, backward, normalizes, pools):
    arrays, params = conv_arguments(normalizes, pools)
    check_layer(forward, backward, *arrays, *params, tol=1e-6, log=str)
