"""What is particular to each normalization; test_layers.py checks their gradients, dtypes and shapes."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from memory import memory_of

from cs231n.batchnorm import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    fold_batchnorm,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
)
from cs231n.utils import check_layer, rel_error

pytestmark = pytest.mark.usefixtures("one_torch_thread")

both_backwards = pytest.mark.parametrize("backward", [batchnorm_backward, batchnorm_backward_alt])


def train(x, gamma=None, beta=None, **bn_param):
    """Batch norm in train mode.  Returns out, cache and bn_param."""
    D = x.shape[1]
    gamma, beta = np.ones(D, x.dtype) if gamma is None else gamma, np.zeros(D, x.dtype) if beta is None else beta
    bn_param["mode"] = "train"
    return *batchnorm_forward(x, gamma, beta, bn_param), bn_param


def draw_images(N=3, C=4, H=5, W=2, dtype=np.float64, seed=0):
    """x, gamma and beta; and dout."""
    rng = np.random.default_rng(seed)
    x, dout = 3 + 2 * rng.standard_normal((2, N, C, H, W))
    return [a.astype(dtype) for a in (x, rng.standard_normal(C), rng.standard_normal(C))], dout.astype(dtype)


def as_examples(x):
    """(N, C, H, W) -> (N * H * W, C)."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


# Each norm on x (N, 3), which the spatial ones take as (N, 3, 1, 1), with its parameter dict.
NORMS = {
    "bn_param": lambda x, param: batchnorm_forward(x, np.ones(3), np.zeros(3), {"mode": "train"} | param),
    "bn_param, spatial": lambda x, param: spatial_batchnorm_forward(
        x[:, :, None, None], np.ones(3), np.zeros(3), {"mode": "train"} | param
    ),
    "ln_param": lambda x, param: layernorm_forward(x, np.ones(3), np.zeros(3), param),
    "gn_param": lambda x, param: spatial_groupnorm_forward(x[:, :, None, None], np.ones(3), np.zeros(3), 1, param),
}
every_norm = pytest.mark.parametrize(("name", "norm"), NORMS.items(), ids=NORMS)


# Batch norm in train mode.


def test_batchnorm_worked_by_hand():
    x, gamma, beta = np.array([[0.0], [4.0]]), np.array([3.0]), np.array([10.0])
    out, cache, bn_param = train(x, gamma, beta, eps=0, momentum=0.75)
    # mu = 2, var = ((0 - 2)^2 + (4 - 2)^2) / 2 = 4, xhat = -1 and 1
    assert out.tolist() == [[7], [13]]
    assert bn_param["running_mean"].tolist() == [0.5]  # 0.75 * 0 + 0.25 * 2
    assert bn_param["running_var"].tolist() == [1]  # 0.75 * 0 + 0.25 * 4
    _, dgamma, dbeta = batchnorm_backward(np.array([[1.0], [5.0]]), cache)
    assert dgamma.tolist() == [4]  # 1 * -1 + 5 * 1
    assert dbeta.tolist() == [6]


def test_batchnorm_gives_each_feature_mean_beta_and_deviation_gamma():
    rng = np.random.default_rng(0)
    x, gamma, beta = 5 + 3 * rng.standard_normal((200, 3)), np.array([1.0, 2.0, -3.0]), np.array([11.0, 12.0, 13.0])
    out, _, _ = train(x, gamma, beta)
    np.testing.assert_allclose(out.mean(axis=0), beta, rtol=1e-12)
    np.testing.assert_allclose(out.std(axis=0), np.abs(gamma), rtol=1e-5)


def test_eps_is_1e_5_and_momentum_0_9_where_absent():
    x = np.random.default_rng(0).standard_normal((5, 3)) * 1e-3  # so small that eps shows
    out, _, bn_param = train(x)
    explicit, _, explicit_param = train(x, eps=1e-5, momentum=0.9)
    np.testing.assert_array_equal(out, explicit)
    np.testing.assert_array_equal(bn_param["running_mean"], explicit_param["running_mean"])
    assert abs(out).max() < 1
    np.testing.assert_allclose(bn_param["running_mean"], 0.1 * x.mean(axis=0), rtol=1e-12)  # from 0
    np.testing.assert_allclose(bn_param["running_var"], 0.1 * x.var(axis=0), rtol=1e-12)


def test_a_constant_feature_gives_beta_and_no_division_by_zero():
    beta = np.array([7.0])
    out, cache, _ = train(np.full((4, 1), 0.1), np.array([2.0]), beta)
    assert out.tolist() == [[7], [7], [7], [7]]
    dx, _, _ = batchnorm_backward_alt(np.array([[1.0], [2.0], [3.0], [4.0]]), cache)
    assert np.isfinite(dx).all()


@both_backwards
def test_a_batch_of_1_gives_beta_and_passes_no_gradient_to_x(backward):
    beta = np.array([7.0, 8.0])
    out, cache, _ = train(np.array([[3.0, -5.0]]), np.array([2.0, 4.0]), beta)
    assert out.tolist() == [[7, 8]]
    dx, dgamma, dbeta = backward(np.array([[1.0, 2.0]]), cache)
    np.testing.assert_allclose(dx, 0, atol=1e-13)
    assert dgamma.tolist() == [0, 0]
    assert dbeta.tolist() == [1, 2]


@both_backwards
@pytest.mark.parametrize("D", [1, 5])
def test_batchnorm_gradients_of_a_small_batch_and_a_single_feature(backward, D):
    rng = np.random.default_rng(D)
    for N in (1, 2, 3):
        x, gamma, beta = rng.standard_normal((N, D)), rng.standard_normal(D), rng.standard_normal(D)
        check_layer(batchnorm_forward, backward, x, gamma, beta, {"mode": "train", "eps": 1e-2})


# Two derivations of one backward.


@pytest.mark.parametrize("mode", ["train", "test"])
def test_both_backwards_agree(mode):
    rng = np.random.default_rng(0)
    x, gamma, beta = 3 + rng.standard_normal((50, 7)), rng.standard_normal(7), rng.standard_normal(7)
    bn_param = {"mode": mode, "running_mean": rng.standard_normal(7), "running_var": rng.random(7)}
    out, cache = batchnorm_forward(x, gamma, beta, bn_param)
    dout = rng.standard_normal(out.shape)
    for graph, closed in zip(batchnorm_backward(dout, cache), batchnorm_backward_alt(dout, cache), strict=True):
        assert rel_error(graph, closed) < 1e-13


@both_backwards
def test_backward_uses_gamma_once(backward):
    rng = np.random.default_rng(0)
    x, gamma, dout = rng.standard_normal((6, 3)), rng.standard_normal(3), rng.standard_normal((6, 3))
    _, cache, _ = train(x, gamma)
    _, doubled_cache, _ = train(x, 2 * gamma)
    dx, dgamma, dbeta = backward(dout, cache)
    doubled_dx, same_dgamma, same_dbeta = backward(dout, doubled_cache)
    np.testing.assert_array_equal(doubled_dx, 2 * dx)
    np.testing.assert_array_equal(same_dgamma, dgamma)
    np.testing.assert_array_equal(same_dbeta, dbeta)


def batchnorm_backward_gamma_twice(dout, cache):
    """The classic slip: gamma in dxhat, and once more at the end."""
    dx, dgamma, dbeta = batchnorm_backward_alt(dout, cache)
    return dx * cache[1], dgamma, dbeta


def test_gamma_twice_is_caught_unless_gamma_is_1():
    rng = np.random.default_rng(1)
    x, ones, beta = rng.standard_normal((6, 3)), np.ones(3), rng.standard_normal(3)
    check_layer(batchnorm_forward, batchnorm_backward_gamma_twice, x, ones, beta, {"mode": "train"})
    with pytest.raises(AssertionError, match="batchnorm: dx"):
        check_layer(batchnorm_forward, batchnorm_backward_gamma_twice, x, 1.1 * ones, beta, {"mode": "train"})


def arrays_of_memory(function, *args):
    """The most memory that a call holds at a time, in arrays of the size of its first argument."""
    _, peak, _ = memory_of(function, *args)
    return peak / args[0].nbytes


def test_closed_form_writes_no_array_but_dx():
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, 5000, 40), np.float32)
    _, cache, _ = train(x)
    assert arrays_of_memory(batchnorm_backward_alt, dout, cache) < 1.1
    assert arrays_of_memory(batchnorm_backward, dout, cache) > 3  # dxhat, dxc, xc and one product


def test_batchnorm_forward_writes_no_array_but_xhat_and_out():
    x = np.random.default_rng(0).standard_normal((5000, 40), np.float32)
    assert arrays_of_memory(train, x) < 2.1


# Running averages and test mode.


def test_running_averages_move_from_their_current_values():
    x = np.array([[1.0], [3.0]])  # mu = 2, var = 1
    _, _, bn_param = train(x, momentum=0.8, running_mean=np.array([10.0]), running_var=np.array([5.0]))
    assert bn_param["running_mean"] == pytest.approx([8.4], rel=1e-15)  # 0.8 * 10 + 0.2 * 2
    assert bn_param["running_var"] == pytest.approx([4.2], rel=1e-15)  # 0.8 * 5 + 0.2 * 1


def test_running_averages_are_those_of_torch_but_for_the_biased_variance():
    rng = np.random.default_rng(0)
    N, D, momentum = 9, 4, 0.8
    bn_param = {"mode": "train", "momentum": momentum, "running_mean": np.zeros(D), "running_var": np.ones(D)}
    torch_mean, torch_var = torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64)
    for step in range(1, 6):
        x = 3 + 2 * rng.standard_normal((N, D))
        batchnorm_forward(x, np.ones(D), np.zeros(D), bn_param)
        F.batch_norm(torch.from_numpy(x), torch_mean, torch_var, training=True, momentum=1 - momentum)
        # What the averages still hold of the first 1 is the same; torch took all else N / (N - 1) times as large.
        of_batches = (torch_var.numpy() - momentum**step) * (N - 1) / N
        assert rel_error(bn_param["running_mean"], torch_mean.numpy()) < 1e-12
        assert rel_error(bn_param["running_var"], momentum**step + of_batches) < 1e-12


def test_momentum_0_keeps_the_last_batch_and_momentum_1_the_first_averages():
    x, mean, var = np.array([[1.0], [3.0]]), np.array([10.0]), np.array([5.0])
    _, _, bn_param = train(x, momentum=0, running_mean=mean, running_var=var)
    assert (bn_param["running_mean"], bn_param["running_var"]) == ([2], [1])  # mu and var of x
    _, _, bn_param = train(x, momentum=1, running_mean=mean, running_var=var)
    assert (bn_param["running_mean"], bn_param["running_var"]) == ([10], [5])


def test_running_averages_are_float32_for_float32():
    _, _, bn_param = train(np.ones((2, 3), np.float32))
    assert bn_param["running_mean"].dtype == bn_param["running_var"].dtype == np.float32


def test_batchnorm_test_mode_uses_gamma_and_beta():
    # xhat = (9 - 5) / sqrt(4 + 0) = 2, out = 3 * 2 + 100
    bn_param = {"mode": "test", "eps": 0, "running_mean": np.array([5.0]), "running_var": np.array([4.0])}
    out, _ = batchnorm_forward(np.array([[9.0]]), np.array([3.0]), np.array([100.0]), bn_param)
    assert out.tolist() == [[106]]


def test_batchnorm_test_mode_adds_eps():
    bn_param = {"mode": "test", "eps": 7.0, "running_mean": np.array([5.0]), "running_var": np.array([9.0])}
    out, _ = batchnorm_forward(np.array([[9.0]]), np.array([1.0]), np.array([0.0]), bn_param)
    assert out.tolist() == [[1]]  # (9 - 5) / sqrt(9 + 7)


def test_batchnorm_test_mode_treats_each_example_alone_and_updates_nothing():
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.standard_normal((5, 3)), rng.standard_normal(3), rng.standard_normal(3)
    bn_param = {"mode": "test", "running_mean": rng.standard_normal(3), "running_var": rng.random(3)}
    before = copy.deepcopy(bn_param)
    out, _ = batchnorm_forward(x, gamma, beta, bn_param)
    alone = [batchnorm_forward(x[i : i + 1], gamma, beta, bn_param)[0][0] for i in range(5)]
    np.testing.assert_array_equal(out, alone)
    assert bn_param.keys() == before.keys()
    np.testing.assert_array_equal(bn_param["running_mean"], before["running_mean"])
    np.testing.assert_array_equal(bn_param["running_var"], before["running_var"])


def test_float64_running_averages_do_not_leak_into_a_float32_output():
    ones = np.ones(3, np.float32)
    bn_param = {"mode": "test", "running_mean": np.zeros(3), "running_var": np.ones(3)}
    out, cache = batchnorm_forward(np.ones((2, 3), np.float32), ones, ones, bn_param)
    assert out.dtype == np.float32
    assert {g.dtype for g in batchnorm_backward(out, cache)} == {np.dtype(np.float32)}


# Batch norm, folded into the affine layer before it.


def folded(dtype="float64", of_averages="float64", **options):
    """Arguments of fold_batchnorm: 3 inputs, 2 outputs."""
    rng = np.random.default_rng(0)
    w, b, gamma, beta = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 2), 2, 2, 2))
    averages = {"running_mean": rng.standard_normal(2), "running_var": rng.random(2)}
    return w, b, gamma, beta, {name: array.astype(of_averages) for name, array in averages.items()} | options


def test_fold_batchnorm_worked_by_hand():
    # std = sqrt(9 + 7) = 4, scale = 8 / 4 = 2
    bn_param = {"eps": 7.0, "running_mean": np.array([5.0]), "running_var": np.array([9.0])}
    w, b = fold_batchnorm(np.array([[1.0], [-3.0]]), *np.array([[6.0], [8.0], [100.0]]), bn_param)
    assert w.tolist() == [[2], [-6]]
    assert b.tolist() == [102]  # (6 - 5) * 2 + 100


@pytest.mark.parametrize("options", [{}, {"eps": 0.3}])
def test_a_folded_layer_does_the_work_of_both_and_writes_to_no_argument(options):
    arguments = w, b, gamma, beta, bn_param = folded(**options)
    before = copy.deepcopy(arguments)
    x = np.random.default_rng(1).standard_normal((5, 3))
    both, _ = batchnorm_forward(x @ w + b, gamma, beta, {"mode": "test", **bn_param})
    w, b = fold_batchnorm(*arguments)
    assert rel_error(x @ w + b, both) < 1e-12
    np.testing.assert_equal(arguments, before)


def test_a_folded_layer_is_of_the_dtype_of_w():
    assert {a.dtype for a in fold_batchnorm(*folded("float32"))} == {np.dtype(np.float32)}
    assert {a.dtype for a in fold_batchnorm(*folded("float64", "float32"))} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.ones(2)}, r"wanted w \(D, M\), with b, gamma and beta \(M,\), got w \(2,\), b \(2,\)"),
        ({1: np.ones(3)}, r"got w \(3, 2\), b \(3,\)"),
        ({2: np.ones((1, 2))}, r"gamma \(1, 2\)"),
        ({3: np.ones(1)}, r"beta \(1,\)"),
        ({4: {}}, "bn_param: needs running_mean and running_var; run a batch in train mode first"),
        (
            {4: {"running_mean": np.ones(3), "running_var": np.ones(2)}},
            r"bn_param\['running_mean'\]: .*\(2,\), got \(3,\)",
        ),
    ],
)
def test_fold_batchnorm_names_what_does_not_fit(change, message):
    arguments = [change.get(i, argument) for i, argument in enumerate(folded())]
    with pytest.raises(ValueError, match=message):
        fold_batchnorm(*arguments)


# eps at its edges.


def test_eps_0_gives_variance_1_exactly():
    x = 1e-6 * np.random.default_rng(0).standard_normal((50, 50))
    for out in (train(x, eps=0)[0], layernorm_forward(x.T, np.ones(50), np.zeros(50), {"eps": 0})[0].T):
        np.testing.assert_allclose(out.var(axis=0), 1, rtol=1e-12)


@both_backwards
@pytest.mark.parametrize("eps", [1e-30, 1e-40])
def test_a_tiny_eps_in_float32_gives_no_nan_for_a_constant_feature(backward, eps):
    out, cache, _ = train(np.full((4, 1), 3, np.float32), eps=eps)
    assert out.tolist() == [[0]] * 4
    dout = np.array([[1], [2], [3], [4]], np.float32)
    dx, dgamma, _ = backward(dout, cache)
    np.testing.assert_allclose(dx, (dout - 2.5) / np.sqrt(eps), rtol=1e-5)  # xhat is 0: the means alone are lost
    assert dgamma.tolist() == [0]


# A large mean.


@pytest.mark.parametrize("mean", [1e4, 1e8])
def test_variance_is_not_negative_at_a_large_mean(mean):
    rng = np.random.default_rng(0)
    x = mean + 1e-3 * rng.standard_normal((50, 20))
    out, _, bn_param = train(x, eps=1e-12)
    assert (bn_param["running_var"] > 0).all()
    assert np.isfinite(out).all()
    np.testing.assert_allclose(bn_param["running_var"], 0.1 * x.var(axis=0), rtol=1e-6)
    x = x.T.copy()
    out, _ = layernorm_forward(x, np.ones(50), np.zeros(50), {"eps": 1e-12})
    np.testing.assert_allclose(out.std(axis=1), 1, rtol=1e-4)


def test_a_mean_of_1e4_costs_no_digits_in_float32():
    x = (1e4 + np.random.default_rng(0).standard_normal((64, 10))).astype(np.float32)
    exact = x.astype(np.float64)
    out, _, bn_param = train(x)
    assert rel_error(out, (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)) < 1e-6
    assert rel_error(bn_param["running_mean"], 0.1 * exact.mean(axis=0)) < 2e-7
    assert rel_error(bn_param["running_var"], 0.1 * exact.var(axis=0)) < 1e-6
    out, _ = layernorm_forward(x.T.copy(), np.ones(64, np.float32), np.zeros(64, np.float32), {})
    assert rel_error(out.T, (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)) < 1e-6


@pytest.mark.parametrize("norm", ["batch", "layer", "spatial batch", "group"])
def test_gradients_at_a_mean_of_1e4_keep_their_digits_in_float32(norm):
    passes = {
        "batch": (lambda *args: batchnorm_forward(*args, {"mode": "train"}), batchnorm_backward_alt),
        "layer": (lambda *args: layernorm_forward(*args, {}), layernorm_backward),
        "spatial batch": (
            lambda *args: spatial_batchnorm_forward(*args, {"mode": "train"}),
            spatial_batchnorm_backward,
        ),
        "group": (lambda *args: spatial_groupnorm_forward(*args, 2, {}), spatial_groupnorm_backward),
    }
    forward, backward = passes[norm]
    (x, gamma, beta), dout = draw_images(4, 6, 8, 8)
    if norm in ("batch", "layer"):
        x, dout = as_examples(x), as_examples(dout)
    x = (1e4 + x).astype(np.float32)
    both = []
    for dtype in (np.float32, np.float64):
        out, cache = forward(x.astype(dtype), gamma.astype(dtype), beta.astype(dtype))
        both.append([out, *backward(dout.astype(dtype), cache)])
    for single, double in zip(*both, strict=True):
        assert single.dtype == np.float32
        assert rel_error(single, double) < 3e-6


# Layer norm.


def test_layernorm_worked_by_hand():
    x, gamma, beta = np.array([[0.0, 4.0], [5.0, 5.0]]), np.array([3.0, 2.0]), np.array([10.0, 20.0])
    out, cache = layernorm_forward(x, gamma, beta, {"eps": 4.0})
    # mu = 2 and 5, var = 4 and 0, xhat = (-2, 2) / sqrt(4 + 4) and (0, 0)
    r = np.sqrt(1 / 2)
    np.testing.assert_allclose(out, [[10 - 3 * r, 20 + 2 * r], [10, 20]], rtol=1e-15)
    _, dgamma, dbeta = layernorm_backward(np.array([[1.0, 2.0], [3.0, 4.0]]), cache)
    np.testing.assert_allclose(dgamma, [-r, 2 * r], rtol=1e-15)
    assert dbeta.tolist() == [4, 6]


def test_layernorm_treats_each_example_alone():
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.standard_normal((5, 4)), rng.standard_normal(4), rng.standard_normal(4)
    out, _ = layernorm_forward(x, gamma, beta, {})
    alone = [layernorm_forward(x[i : i + 1], gamma, beta, {})[0][0] for i in range(5)]
    np.testing.assert_allclose(out, alone, rtol=1e-13)


def test_layernorm_eps_is_1e_5_where_absent():
    x = 1e-3 * np.random.default_rng(0).standard_normal((3, 6))
    out, _ = layernorm_forward(x, np.ones(6), np.zeros(6), {})
    np.testing.assert_array_equal(out, layernorm_forward(x, np.ones(6), np.zeros(6), {"eps": 1e-5})[0])
    assert abs(out).max() < 1


def test_layernorm_writes_nothing_into_ln_param():
    ln_param = {}
    layernorm_forward(np.ones((2, 3)), np.ones(3), np.zeros(3), ln_param)
    assert ln_param == {}


# Spatial batch norm.


def test_spatial_batchnorm_is_batchnorm_with_pixels_for_examples():
    (x, gamma, beta), dout = draw_images()
    spatial_param, bn_param = ({"mode": "train", "momentum": 0.6} for _ in range(2))
    out, cache = spatial_batchnorm_forward(x, gamma, beta, spatial_param)
    dx, dgamma, dbeta = spatial_batchnorm_backward(dout, cache)
    vanilla, vanilla_cache = batchnorm_forward(as_examples(x), gamma, beta, bn_param)
    vanilla_dx, vanilla_dgamma, vanilla_dbeta = batchnorm_backward(as_examples(dout), vanilla_cache)
    np.testing.assert_allclose(as_examples(out), vanilla, rtol=1e-12)
    np.testing.assert_allclose(as_examples(dx), vanilla_dx, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose((dgamma, dbeta), (vanilla_dgamma, vanilla_dbeta), rtol=1e-12)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(spatial_param[name], bn_param[name], rtol=1e-12)


def test_spatial_batchnorm_gives_each_channel_mean_beta_and_deviation_gamma():
    (x, gamma, beta), _ = draw_images()
    out, _ = spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), beta, rtol=1e-12)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), np.abs(gamma), rtol=1e-5)


def test_spatial_batchnorm_counts_every_pixel_in_the_unbiased_variance_of_torch():
    (x, gamma, beta), _ = draw_images()  # N * H * W = 3 * 5 * 2 = 30
    bn_param = {"mode": "train", "momentum": 0}
    spatial_batchnorm_forward(x, gamma, beta, bn_param)
    torch_mean, torch_var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    F.batch_norm(torch.from_numpy(x), torch_mean, torch_var, training=True, momentum=1)
    assert rel_error(bn_param["running_mean"], torch_mean.numpy()) < 1e-12
    assert rel_error(bn_param["running_var"], torch_var.numpy() * 29 / 30) < 1e-12


def test_spatial_batchnorm_test_mode_uses_gamma_and_beta():
    # channel 0: (9 - 5) / sqrt(4) = 2, 3 * 2 + 100; channel 1: (1 - 2) / sqrt(1) = -1, 7 * -1 + 200
    x = np.array([9.0, 1.0]).reshape(1, 2, 1, 1)
    bn_param = {"mode": "test", "eps": 0, "running_mean": np.array([5.0, 2.0]), "running_var": np.array([4.0, 1.0])}
    out, _ = spatial_batchnorm_forward(x, np.array([3.0, 7.0]), np.array([100.0, 200.0]), bn_param)
    assert out.ravel().tolist() == [106, 193]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_images_may_have_any_memory_layout_and_are_not_written_to(order):
    """_pixels is a view, not a copy, where each channel is already contiguous."""
    (x, gamma, beta), dout = draw_images()
    expected = spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    expected_grads = spatial_batchnorm_backward(dout, expected[1])
    x, dout = (np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order)) for a in (x, dout))
    x.flags.writeable = dout.flags.writeable = False
    out, cache = spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    for a, b in zip([out, *spatial_batchnorm_backward(dout, cache)], [expected[0], *expected_grads], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_spatial_batchnorm_of_one_pixel_gives_beta():
    beta = np.array([7.0, 8.0])
    x = np.array([3.0, -5.0]).reshape(1, 2, 1, 1)
    out, cache = spatial_batchnorm_forward(x, np.array([2.0, 4.0]), beta, {"mode": "train"})
    assert out.ravel().tolist() == [7, 8]
    dx, dgamma, dbeta = spatial_batchnorm_backward(np.ones((1, 2, 1, 1)), cache)
    np.testing.assert_allclose(dx, 0, atol=1e-13)
    assert (dgamma.tolist(), dbeta.tolist()) == ([0, 0], [1, 1])


# Group norm.


def check_against_torch(G, torch_norm):
    """out and the gradients of x, gamma and beta agree with those of torch_norm(x, gamma, beta)."""
    arguments, dout = draw_images()
    out, cache = spatial_groupnorm_forward(*arguments, G, {})
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    torch_out = torch_norm(*tensors)
    torch_grads = torch.autograd.grad(torch_out, tensors, torch.from_numpy(dout))
    ours, theirs = [out, *spatial_groupnorm_backward(dout, cache)], [torch_out.detach(), *torch_grads]
    for a, b in zip(ours, theirs, strict=True):
        assert rel_error(a, b.numpy()) < 1e-12


def test_groupnorm_of_one_group_is_layer_norm_over_channels_and_pixels():
    def layer_norm(x, gamma, beta):
        gamma, beta = (a[:, None, None].expand(x.shape[1:]) for a in (gamma, beta))
        return F.layer_norm(x, x.shape[1:], gamma, beta)

    check_against_torch(1, layer_norm)


def test_groupnorm_of_a_group_a_channel_is_instance_norm():
    check_against_torch(4, lambda x, gamma, beta: F.instance_norm(x, weight=gamma, bias=beta))


def test_groupnorm_of_one_group_without_gamma_and_beta_is_our_layernorm():
    (x, _, _), _ = draw_images()
    out, _ = spatial_groupnorm_forward(x, np.ones(4), np.zeros(4), 1, {})
    expected, _ = layernorm_forward(x.reshape(3, -1), np.ones(40), np.zeros(40), {})
    np.testing.assert_array_equal(out.reshape(3, -1), expected)


@given(
    N=st.integers(1, 3), G=st.integers(1, 4), channels=st.integers(1, 3), H=st.integers(1, 4), W=st.integers(1, 4),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_groupnorm_agrees_with_torch_for_any_groups(N, G, channels, H, W, seed):
    arguments, dout = draw_images(N, G * channels, H, W, seed=seed)
    out, cache = spatial_groupnorm_forward(*arguments, G, {})
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    torch_out = torch.group_norm(tensors[0], G, tensors[1], tensors[2])
    torch_grads = torch.autograd.grad(torch_out, tensors, torch.from_numpy(dout))
    ours, theirs = [out, *spatial_groupnorm_backward(dout, cache)], [torch_out.detach(), *torch_grads]
    for a, b in zip(ours, theirs, strict=True):
        assert rel_error(a, b.numpy(), floor=0.1) < 1e-10


def test_groupnorm_worked_by_hand():
    x = np.array([0.0, 4.0, 7.0, 7.0]).reshape(1, 4, 1, 1)
    gamma, beta = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0, 40.0])
    out, cache = spatial_groupnorm_forward(x, gamma, beta, 2, {"eps": 12.0})
    # mu = 2 and 7, var = 4 and 0, xhat = (-2, 2) / sqrt(4 + 12) and (0, 0)
    assert out.ravel().tolist() == [10 - 0.5, 20 + 2 * 0.5, 30, 40]
    _, dgamma, dbeta = spatial_groupnorm_backward(np.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1), cache)
    assert dgamma.tolist() == [-0.5, 1.5, 0, 0]
    assert dbeta.tolist() == [1, 3, 5, 7]


def test_groupnorm_treats_each_example_alone():
    (x, gamma, beta), _ = draw_images()
    out, _ = spatial_groupnorm_forward(x, gamma, beta, 2, {})
    alone = [spatial_groupnorm_forward(x[i : i + 1], gamma, beta, 2, {})[0][0] for i in range(3)]
    np.testing.assert_array_equal(out, alone)


def test_groupnorm_of_one_number_a_group_gives_beta():
    beta = np.array([7.0, 8.0])
    x = np.array([3.0, -5.0]).reshape(1, 2, 1, 1)
    out, cache = spatial_groupnorm_forward(x, np.array([2.0, 4.0]), beta, 2, {})
    assert out.ravel().tolist() == [7, 8]
    dx, _, _ = spatial_groupnorm_backward(np.ones((1, 2, 1, 1)), cache)
    np.testing.assert_allclose(dx, 0, atol=1e-13)


@pytest.mark.parametrize("G", [3, 8, 0, -2, 2.0, True])
def test_groupnorm_names_a_G_that_does_not_divide_C(G):
    (x, gamma, beta), _ = draw_images()
    with pytest.raises(ValueError, match=rf"^G: wanted a .*number .*, got {G}$"):
        spatial_groupnorm_forward(x, gamma, beta, G, {})


# Bad input.


@pytest.mark.parametrize("forward", [batchnorm_forward, layernorm_forward])
@pytest.mark.parametrize(
    ("x", "gamma", "beta"),
    [
        ((4, 3), (4,), (3,)),
        ((4, 3), (3,), (1, 3)),
        ((4, 3, 2), (3,), (3,)),
        ((4, 3, 2), (3, 2), (3, 2)),
        ((0, 3), (3,), (3,)),
        ((4, 0), (0,), (0,)),
    ],
)
def test_norm_names_the_shapes_that_do_not_fit(forward, x, gamma, beta):
    with pytest.raises(ValueError, match=r"wanted x \(N, D\), .*, with gamma and beta \(D,\)") as error:
        forward(np.ones(x), np.ones(gamma), np.ones(beta), {"mode": "train"})
    assert str(error.value).endswith(f"got x {x}, gamma {gamma} and beta {beta}")


@pytest.mark.parametrize(
    ("bn_param", "message"),
    [
        ({"mode": "trian"}, r"bn_param\['mode'\]: wanted 'train' or 'test', got 'trian'"),
        ({}, r"bn_param\['mode'\]: wanted 'train' or 'test', got None"),
        ({"mode": "test"}, "bn_param: test mode needs running_mean and running_var"),
        ({"mode": "test", "running_mean": np.zeros(3)}, "bn_param: test mode needs running_mean and running_var"),
        ({"mode": "test", "running_var": np.ones(3)}, "bn_param: test mode needs running_mean and running_var"),
        (
            {"mode": "train", "running_mean": np.zeros(1)},
            r"bn_param\['running_mean'\]: wanted shape \(3,\), got \(1,\)",
        ),
        ({"mode": "test", "running_var": np.ones((4, 3))}, r"bn_param\['running_var'\]: .*\(3,\), got \(4, 3\)"),
    ],
)
def test_batchnorm_names_what_is_wrong_in_bn_param(bn_param, message):
    with pytest.raises(ValueError, match=message):
        batchnorm_forward(np.ones((4, 3)), np.ones(3), np.zeros(3), bn_param)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (0, 4, 5, 2), (3, 4, 0, 2), (3, 0, 5, 2), (4,)])
@pytest.mark.parametrize(
    "forward", [spatial_batchnorm_forward, lambda *args: spatial_groupnorm_forward(*args[:3], 2, {})], ids=["bn", "gn"]
)
def test_spatial_norm_names_an_x_that_is_not_images(forward, shape):
    with pytest.raises(ValueError, match=r"wanted x \(N, C, H, W\), none of them 0, with gamma and beta") as error:
        forward(np.ones(shape), np.ones(shape[1:2]), np.ones(shape[1:2]), {"mode": "train"})
    assert str(error.value).endswith(f"got x {shape}, gamma {shape[1:2]} and beta {shape[1:2]}")


@pytest.mark.parametrize(("gamma", "beta"), [((5,), (4,)), ((4,), (5,)), ((4,), (1, 4, 1, 1)), ((4, 1, 1), (4, 1, 1))])
def test_groupnorm_names_a_gamma_or_beta_that_does_not_fit(gamma, beta):
    with pytest.raises(ValueError, match=r"with gamma and beta \(4,\) or \(1, 4, 1, 1\), got x \(3, 4, 5, 2\)"):
        spatial_groupnorm_forward(np.ones((3, 4, 5, 2)), np.ones(gamma), np.ones(beta), 2, {})


@pytest.mark.parametrize(("gamma", "beta"), [((5,), (4,)), ((4,), (5,)), ((1, 4, 1, 1), (1, 4, 1, 1))])
def test_spatial_batchnorm_names_a_gamma_or_beta_that_does_not_fit(gamma, beta):
    with pytest.raises(ValueError, match=r"with gamma and beta \(4,\), got x \(3, 4, 5, 2\)"):
        spatial_batchnorm_forward(np.ones((3, 4, 5, 2)), np.ones(gamma), np.ones(beta), {"mode": "train"})


@every_norm
@pytest.mark.parametrize("eps", [-1e-5, np.nan])
def test_norm_refuses_a_negative_eps(name, norm, eps):
    with pytest.raises(ValueError, match=rf"{name[:8]}\['eps'\]: wanted a number of at least 0, got {eps}"):
        norm(np.eye(3), {"eps": eps})


@pytest.mark.parametrize("momentum", [-0.1, 1.1, np.nan])
@pytest.mark.parametrize("mode", ["train", "test"])
def test_batchnorm_refuses_a_momentum_outside_0_to_1(mode, momentum):
    bn_param = {"mode": mode, "momentum": momentum, "running_mean": np.zeros(3), "running_var": np.ones(3)}
    with pytest.raises(ValueError, match=rf"bn_param\['momentum'\]: wanted a number from 0 to 1, got {momentum}"):
        batchnorm_forward(np.eye(3), np.ones(3), np.zeros(3), bn_param)


@every_norm
def test_norm_lists_what_is_known_where_a_key_is_not(name, norm):
    known = "mode, eps, momentum, running_mean, running_var" if name.startswith("bn") else "mode, eps"
    with pytest.raises(ValueError, match=rf"{name[:8]}: wanted {known}, and nothing else; got 'momentm', 'epsilon'"):
        norm(np.eye(3), {"momentm": 0.9, "epsilon": 1e-5})


@every_norm
@pytest.mark.parametrize("mode", ["train", "test"])
def test_norm_takes_a_mode(name, norm, mode):
    """Layer and group norm do the same in both; a net may set it all the same."""
    param = {"running_mean": np.zeros(3), "running_var": np.ones(3)} if name.startswith("bn") else {}
    out, _ = norm(np.eye(3), param | {"mode": mode})
    assert np.isfinite(out).all()
