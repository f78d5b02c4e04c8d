"""Every layer and loss, checked in the same ways; then what is particular to affine, relu and the losses.

The first half runs over two tables, LAYERS and LOSSES.  A layer's row names its forward and backward, the shapes of
its arguments and what torch calls it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cs231n.batchnorm import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
)
from cs231n.conv_layers import (
    conv_backward_naive,
    conv_forward_naive,
    max_pool_backward_naive,
    max_pool_forward_naive,
)
from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_ln_relu_backward,
    affine_ln_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from cs231n.layers import affine_backward, affine_forward, relu_backward, relu_forward, softmax_loss, svm_loss
from cs231n.utils import check_layer, check_loss, rel_error

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# Shapes of the arguments, for N examples of shape T and M features (D = the product of T).


def elementwise(N, T, M):
    return [(N, *T)]  # x


def affine(N, T, M):
    return [(N, *T), (math.prod(T), M), (M,)]  # x, w, b


def norm(N, T, M):
    return [(N, M), (M,), (M,)]  # x, gamma, beta


def affine_norm(N, T, M):
    return [*affine(N, T, M), (M,), (M,)]  # x, w, b, gamma, beta


def spatial(N, T, M):
    return [(N, M, T[0], T[-1]), (M,), (M,)]  # x, gamma, beta


def grouped(N, T, M):
    return [(N, 2 * M, T[0], T[-1]), (2 * M,), (2 * M,)]  # x, gamma, beta


def grouped_4d(N, T, M):
    return [(N, 2 * M, T[0], T[-1]), (1, 2 * M, 1, 1), (1, 2 * M, 1, 1)]  # x, gamma, beta


def conv(N, T, M):
    return [(N, T[0], T[-1] + 1, M + 1), (M, T[0], 3, 2), (M,)]  # x, w, b


def conv_16(N, T, M):
    return [(N, 16, T[-1], M), (16, 16, 3, 3), (16,)]  # x, w, b: of a kind that the fast layer treats apart


def pool(N, T, M):
    return [(N, T[0], T[-1] + 1, M + 1)]  # x


# The parameter dict of a layer with M features.


def nothing(M, dtype):
    return []


def bn_train(M, dtype):
    return [{"mode": "train", "eps": 1e-4, "running_mean": np.full(M, 0.5, dtype), "running_var": np.full(M, 2, dtype)}]


def bn_test(M, dtype):
    k = np.arange(M, dtype=dtype)
    return [{"mode": "test", "eps": 1e-4, "running_mean": k - 1, "running_var": 0.3 + k}]


def ln(M, dtype):
    return [{"eps": 1e-4}]


def two_groups(M, dtype):
    return [2, {"eps": 1e-4}]


def stride_1(M, dtype):
    return [{"stride": 1, "pad": 1}]


def stride_2(M, dtype):
    return [{"stride": 2, "pad": 1}]


def windows(M, dtype):
    return [{"pool_height": 2, "pool_width": 2, "stride": 1}]


def in_turn(*params):
    return lambda M, dtype: [p for param in params for p in param(M, dtype)]


def drop(mode):
    return lambda M, dtype: [{"mode": mode, "p": 0.7, "seed": 3}]


# The same layers in torch.


def torch_affine(x, w, b):
    return F.linear(x.flatten(1), w.T, b)


def torch_bn(x, gamma, beta, param):
    if param["mode"] == "train" and x.numel() == x.shape[1]:
        shape = (-1, *[1] * (x.ndim - 2))
        return beta.reshape(shape) + 0 * gamma.reshape(shape) * x  # F.batch_norm refuses a single example
    mean, var = (torch.from_numpy(param[name].copy()) for name in ("running_mean", "running_var"))
    return F.batch_norm(x, mean, var, gamma, beta, training=param["mode"] == "train", eps=param["eps"])


def torch_ln(x, gamma, beta, param):
    return F.layer_norm(x, gamma.shape, gamma, beta, eps=param["eps"])


def torch_gn(x, gamma, beta, G, param):
    return torch.group_norm(x, G, gamma.flatten(), beta.flatten(), param["eps"])  # F.group_norm refuses a single entry


def torch_dropout(x, param):
    if param["mode"] == "test":
        return F.dropout(x, training=False)
    mask, _ = dropout_forward(np.ones(x.shape), dict(param))  # torch draws other masks
    return x * torch.from_numpy(mask).to(x.dtype)


def torch_conv(x, w, b, param):
    return F.conv2d(x, w, b, param["stride"], param["pad"])


def torch_pool(x, param):
    return F.max_pool2d(x, (param["pool_height"], param["pool_width"]), param["stride"])


@dataclass(frozen=True)
class Layer:
    forward: Callable
    backward: Callable
    shapes: Callable
    torch: Callable
    param: Callable = nothing

    def draw(self, N=6, T=(2, 3), M=4, dtype=np.float64, seed=0):
        """Random arguments: a list of arrays, and a list of what follows them."""
        rng = np.random.default_rng(seed)
        return [rng.standard_normal(s).astype(dtype) for s in self.shapes(N, T, M)], self.param(M, dtype)

    def run(self, arrays, param, seed=1):
        """Forward, and backward for a random dout.  Returns out, the gradients and dout."""
        out, cache = self.forward(*arrays, *param)
        dout = np.random.default_rng(seed).standard_normal(out.shape).astype(out.dtype)
        grads = self.backward(dout, cache)
        return out, list(grads) if isinstance(grads, tuple) else [grads], dout

    def run_torch(self, arrays, param, dout):
        tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
        out = self.torch(*tensors, *param)
        grads = torch.autograd.grad(out, tensors, torch.from_numpy(dout))
        return out.detach().numpy(), [g.numpy() for g in grads]


LAYERS = {
    "affine": Layer(affine_forward, affine_backward, affine, torch_affine),
    "relu": Layer(relu_forward, relu_backward, elementwise, F.relu),
    "batchnorm": Layer(batchnorm_forward, batchnorm_backward, norm, torch_bn, bn_train),
    "batchnorm, alt": Layer(batchnorm_forward, batchnorm_backward_alt, norm, torch_bn, bn_train),
    "batchnorm, test": Layer(batchnorm_forward, batchnorm_backward, norm, torch_bn, bn_test),
    "batchnorm, alt, test": Layer(batchnorm_forward, batchnorm_backward_alt, norm, torch_bn, bn_test),
    "layernorm": Layer(layernorm_forward, layernorm_backward, norm, torch_ln, ln),
    "spatial_batchnorm": Layer(spatial_batchnorm_forward, spatial_batchnorm_backward, spatial, torch_bn, bn_train),
    "spatial_batchnorm, test": Layer(spatial_batchnorm_forward, spatial_batchnorm_backward, spatial, torch_bn, bn_test),
    "spatial_groupnorm": Layer(spatial_groupnorm_forward, spatial_groupnorm_backward, grouped, torch_gn, two_groups),
    "spatial_groupnorm, 4d": Layer(
        spatial_groupnorm_forward, spatial_groupnorm_backward, grouped_4d, torch_gn, two_groups
    ),
    "dropout": Layer(dropout_forward, dropout_backward, elementwise, torch_dropout, drop("train")),
    "dropout, test": Layer(dropout_forward, dropout_backward, elementwise, torch_dropout, drop("test")),
    "affine_relu": Layer(
        affine_relu_forward, affine_relu_backward, affine, lambda x, w, b: torch_affine(x, w, b).relu()
    ),
    "affine_bn_relu": Layer(
        affine_bn_relu_forward,
        affine_bn_relu_backward,
        affine_norm,
        lambda x, w, b, gamma, beta, param: torch_bn(torch_affine(x, w, b), gamma, beta, param).relu(),
        bn_train,
    ),
    "affine_bn_relu, test": Layer(
        affine_bn_relu_forward,
        affine_bn_relu_backward,
        affine_norm,
        lambda x, w, b, gamma, beta, param: torch_bn(torch_affine(x, w, b), gamma, beta, param).relu(),
        bn_test,
    ),
    "affine_ln_relu": Layer(
        affine_ln_relu_forward,
        affine_ln_relu_backward,
        affine_norm,
        lambda x, w, b, gamma, beta, param: torch_ln(torch_affine(x, w, b), gamma, beta, param).relu(),
        ln,
    ),
    "conv, naive": Layer(conv_forward_naive, conv_backward_naive, conv, torch_conv, stride_2),
    "conv, fast": Layer(conv_forward_fast, conv_backward_fast, conv, torch_conv, stride_2),
    "conv, fast, 16 channels": Layer(conv_forward_fast, conv_backward_fast, conv_16, torch_conv, stride_1),
    "max_pool, naive": Layer(max_pool_forward_naive, max_pool_backward_naive, pool, torch_pool, windows),
    "max_pool, fast": Layer(max_pool_forward_fast, max_pool_backward_fast, pool, torch_pool, windows),
    "conv_relu": Layer(
        conv_relu_forward,
        conv_relu_backward,
        conv,
        lambda x, w, b, param: torch_conv(x, w, b, param).relu(),
        stride_1,
    ),
    "conv_relu_pool": Layer(
        conv_relu_pool_forward,
        conv_relu_pool_backward,
        conv,
        lambda x, w, b, param, pooling: torch_pool(torch_conv(x, w, b, param).relu(), pooling),
        in_turn(stride_1, windows),
    ),
}


def arrays_in(param):
    """The arrays in a layer's parameter dict, its running averages."""
    return [v for p in param if isinstance(p, dict) for v in p.values() if isinstance(v, np.ndarray)]


LOSSES = {
    "softmax": (softmax_loss, F.cross_entropy),
    "svm": (svm_loss, lambda x, y: F.multi_margin_loss(x, y, p=1, margin=1) * x.shape[1]),  # torch divides by C
}

every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
every_loss = pytest.mark.parametrize(("loss_function", "torch_loss"), LOSSES.values(), ids=LOSSES)
digits = pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-10), (np.float32, 1e-5)], ids=["f64", "f32"])
any_shape = given(
    N=st.integers(1, 5),
    T=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    M=st.integers(1, 5),
    seed=st.integers(0, 999),
)
any_scores = given(
    N=st.integers(1, 6), C=st.integers(1, 6), scale=st.sampled_from([0.1, 1, 30]), seed=st.integers(0, 99)
)


def draw_scores(N=7, C=5, scale=2, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((N, C))).astype(dtype), rng.integers(0, C, N)


# Every layer.


@every_layer
def test_gradients_agree_with_numerical_ones(layer):
    arrays, param = layer.draw(N=4)
    # With the seed of x, dout would be x itself, to which a norm's dx is orthogonal: a check of zeros.
    check_layer(layer.forward, layer.backward, *arrays, *param, tol=1e-7, seed=1)


@every_layer
@digits
def test_output_and_gradients_agree_with_torch(layer, dtype, tol):
    arrays, param = layer.draw(N=16, T=(3, 4), M=7, dtype=dtype)
    out, grads, dout = layer.run(arrays, param)
    torch_out, torch_grads = layer.run_torch(arrays, layer.param(7, dtype), dout)
    for ours, theirs in zip([out, *grads], [torch_out, *torch_grads], strict=True):
        assert rel_error(ours, theirs, floor=0.1) < tol  # the db before a batch norm is 0


@every_layer
@any_shape
def test_agrees_with_torch_at_any_shape(layer, N, T, M, seed):
    arrays, param = layer.draw(N, T, M, seed=seed)
    out, grads, dout = layer.run(arrays, param)
    torch_out, torch_grads = layer.run_torch(arrays, layer.param(M, np.float64), dout)
    for ours, theirs in zip([out, *grads], [torch_out, *torch_grads], strict=True):
        assert ours.shape == theirs.shape
        assert rel_error(ours, theirs, floor=1e-3) < 1e-10


@every_layer
@any_shape
def test_arguments_and_dout_are_not_written_to(layer, N, T, M, seed):
    arrays, param = layer.draw(N, T, M, seed=seed)
    kept_arrays = arrays_in(param)  # running averages are replaced
    before = [a.tobytes() for a in arrays + kept_arrays]
    _, _, dout = layer.run(arrays, param, seed)
    assert [a.tobytes() for a in arrays + kept_arrays] == before
    assert dout.tobytes() == np.random.default_rng(seed).standard_normal(dout.shape).tobytes()


@every_layer
def test_backward_can_be_called_twice(layer):
    arrays, param = layer.draw()
    out, cache = layer.forward(*arrays, *param)
    first, second = layer.backward(np.ones_like(out), cache), layer.backward(np.ones_like(out), cache)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@every_layer
@any_shape
def test_float32_in_float32_out(layer, N, T, M, seed):
    arrays, param = layer.draw(N, T, M, np.float32, seed)
    out, grads, _ = layer.run(arrays, param)
    assert {a.dtype for a in [out, *grads, *arrays_in(param)]} == {np.dtype(np.float32)}


# Every loss.


@every_loss
def test_loss_gradient_agrees_with_the_numerical_one(loss_function, torch_loss):
    check_loss(loss_function, *draw_scores(), tol=1e-7)


@every_loss
@digits
def test_loss_and_gradient_agree_with_torch(loss_function, torch_loss, dtype, tol):
    x, y = draw_scores(N=50, C=10, dtype=dtype)
    loss, dx = loss_function(x, y)
    x_torch = torch.tensor(x, requires_grad=True)
    expected = torch_loss(x_torch, torch.from_numpy(y))
    expected.backward()
    assert rel_error(loss, expected.item()) < tol
    assert rel_error(dx, x_torch.grad.numpy()) < tol


@every_loss
@any_scores
def test_loss_agrees_with_torch_at_any_shape(loss_function, torch_loss, N, C, scale, seed):
    x, y = draw_scores(N, C, scale, seed=seed)
    loss, dx = loss_function(x, y)
    x_torch = torch.tensor(x, requires_grad=True)
    expected = torch_loss(x_torch, torch.from_numpy(y))
    expected.backward()
    assert rel_error(loss, expected.item(), floor=1e-3) < 1e-10
    assert rel_error(dx, x_torch.grad.numpy(), floor=1e-3) < 1e-10


@every_loss
@any_scores
def test_loss_reads_scores_and_labels_and_keeps_the_dtype(loss_function, torch_loss, N, C, scale, seed):
    x, y = draw_scores(N, C, scale, np.float32, seed)
    before = x.tobytes(), y.tobytes()
    loss, dx = loss_function(x, y)
    assert (x.tobytes(), y.tobytes()) == before
    assert isinstance(loss, float)
    assert dx.dtype == np.float32
    assert dx.shape == x.shape


@every_loss
@any_scores
def test_loss_gradient_of_each_example_sums_to_0(loss_function, torch_loss, N, C, scale, seed):
    """Only differences of scores matter, so that shifting all scores of an example changes nothing."""
    x, y = draw_scores(N, C, scale, seed=seed)
    loss, dx = loss_function(x, y)
    assert np.abs(dx.sum(axis=1)).max() < 1e-14
    assert loss_function(x + 5, y)[0] == pytest.approx(loss, abs=1e-12)


@every_loss
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_be_any_integers(loss_function, torch_loss, dtype):
    x, y = draw_scores()
    loss, dx = loss_function(x, y)
    loss_of_cast, dx_of_cast = loss_function(x, y.astype(dtype))
    assert loss_of_cast == loss
    np.testing.assert_array_equal(dx_of_cast, dx)


@every_loss
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((2, 3)), [0, 3], r"y: wanted labels from 0 to 2 for x \(2, 3\), got y\[1\] = 3"),
        (np.ones((2, 3)), [-1, 0], r"y: wanted labels from 0 to 2 for x \(2, 3\), got y\[0\] = -1"),
        (np.ones((2, 3)), [0, 1, 2], r"y: wanted 2 integer labels for x \(2, 3\), got shape \(3,\)"),
        (np.ones((2, 3)), [[0], [1]], r"y: wanted 2 integer labels for x \(2, 3\), got shape \(2, 1\)"),
        (np.ones((2, 3)), [0.0, 1.0], r"y: wanted 2 integer labels .* and dtype float64"),
        (np.ones(3), [0], r"x: wanted float scores \(N, C\), .* got float64 \(3,\)"),
        (np.ones((0, 3)), [], r"x: wanted float scores \(N, C\), .* got float64 \(0, 3\)"),
        (np.ones((2, 0)), [0, 0], r"x: wanted float scores \(N, C\), .* got float64 \(2, 0\)"),
        (np.ones((2, 3), int), [0, 1], "x: wanted float32 or float64, got int64"),
    ],
)
def test_loss_names_the_label_or_shape_that_does_not_fit(loss_function, torch_loss, x, y, message):
    with pytest.raises(ValueError, match=message):
        loss_function(x, np.array(y))


@every_loss
def test_loss_takes_a_list_of_labels(loss_function, torch_loss):
    x = np.eye(3)
    assert loss_function(x, [0, 1, 2])[0] == loss_function(x, np.arange(3))[0]


# Affine and relu.


def test_affine_worked_by_hand():
    x, w, b = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, -1.0], [3.0, 1.0, 0.5]]), np.array([0.0, 10.0, 100.0])
    out, cache = affine_forward(x, w, b)
    assert out.tolist() == [[7, 12, 100]]  # 1*1 + 2*3 + 0, 1*0 + 2*1 + 10, 1*-1 + 2*0.5 + 100
    dx, dw, db = affine_backward(np.array([[1.0, 0.0, 2.0]]), cache)
    assert dx.tolist() == [[-1, 4]]  # 1*1 + 2*-1, 1*3 + 2*0.5
    assert dw.tolist() == [[1, 0, 2], [2, 0, 4]]  # x_d dout_m
    assert db.tolist() == [1, 0, 2]


def test_affine_reads_trailing_axes_as_one_row():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 2, 4, 5)), rng.standard_normal((40, 6)), rng.standard_normal(6)
    np.testing.assert_array_equal(affine_forward(x, w, b)[0], affine_forward(x.reshape(3, 40), w, b)[0])


@pytest.mark.parametrize(
    ("x", "w", "b", "message"),
    [
        ((5, 2, 3), (7, 4), (4,), r"x \(5, 2, 3\) takes w \(6, M\) and b \(M,\), got w \(7, 4\) and b \(4,\)"),
        ((5, 6), (6, 4), (3,), r"got w \(6, 4\) and b \(3,\)"),
        ((5, 6), (6, 4), (1, 4), r"got w \(6, 4\) and b \(1, 4\)"),
        ((5, 6), (6,), (6,), r"got w \(6,\) and b \(6,\)"),
        ((5, 6), (6,), (), r"got w \(6,\) and b \(\)"),
        ((5, 6), (6, 4, 2), (4, 2), r"got w \(6, 4, 2\) and b \(4, 2\)"),
    ],
)
def test_affine_names_the_shapes_that_do_not_fit(x, w, b, message):
    with pytest.raises(ValueError, match=message):
        affine_forward(np.zeros(x), np.zeros(w), np.zeros(b))


def test_relu_passes_no_gradient_at_0():
    x = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0])
    out, cache = relu_forward(x)
    assert out.tolist() == [0, 0, 0, 1e-300, 3]
    assert relu_backward(np.full(5, 7.0), cache).tolist() == [0, 0, 0, 7, 7]


def test_relu_backward_does_not_write_into_dout():
    dout = np.full((4, 5), 7.0)
    dout.flags.writeable = False
    _, cache = relu_forward(np.full((4, 5), -1.0))
    dx = relu_backward(dout, cache)
    assert not np.shares_memory(dx, dout)


# The losses.


def test_softmax_worked_by_hand():
    x = np.log([[1.0, 3.0], [1.0, 1.0]])
    loss, dx = softmax_loss(x, np.array([0, 1]))
    # p = (1/4, 3/4) and (1/2, 1/2); the loss is the mean of -log 1/4 and -log 1/2
    assert loss == pytest.approx((math.log(4) + math.log(2)) / 2, rel=1e-15)
    np.testing.assert_allclose(dx, [[-3 / 8, 3 / 8], [1 / 4, -1 / 4]], rtol=1e-14)  # (p - onehot) / 2


def test_svm_worked_by_hand():
    x = np.array([[3.0, 1.0, 2.5], [0.0, 0.5, 0.25]])
    loss, dx = svm_loss(x, np.array([0, 2]))
    # margins (-, 1 - 3 + 1, 2.5 - 3 + 1) and (0 - 0.25 + 1, 0.5 - 0.25 + 1, -), of which the positive ones count
    assert loss == (0.5 + 0.75 + 1.25) / 2
    assert dx.tolist() == [[-0.5, 0, 0.5], [0.5, 0.5, -1]]


def test_svm_of_a_margin_met_exactly_has_no_gradient():
    loss, dx = svm_loss(np.array([[2.0, 1.0]]), np.array([0]))
    assert loss == 0
    assert not dx.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_does_not_overflow_at_scores_of_1e4(dtype):
    loss, dx = softmax_loss(np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype), np.array([1, 2]))
    assert loss == pytest.approx((2e4 + math.log(3)) / 2, rel=1e-6)  # -log of exp(-2e4), and of 1/3
    np.testing.assert_allclose(dx, [[1 / 2, -1 / 2, 0], [1 / 6, 1 / 6, -1 / 3]], rtol=1e-6)
