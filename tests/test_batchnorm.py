"""What is particular to batch norm and layer norm; test_layers.py checks their gradients, dtypes and shapes."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cs231n.batchnorm import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
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


# Running averages and test mode.


def test_running_averages_move_from_where_they_stand():
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
