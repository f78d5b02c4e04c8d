"""The three-layer convolutional net."""

import numpy as np
import pytest

from cs231n import Solver, ThreeLayerConvNet
from cs231n.utils import check_model

with_and_without_batchnorm = pytest.mark.parametrize("use_batchnorm", [False, True], ids=["plain", "batchnorm"])

SMALL = {"input_dim": (2, 7, 10), "num_filters": 3, "filter_size": 3, "hidden_dim": 5, "num_classes": 4, "seed": 0}


def batch(N=6, image=(2, 7, 10), C=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, *image)), rng.integers(0, C, N)


@with_and_without_batchnorm
@pytest.mark.parametrize("filter_size", [2, 5])
def test_gradients_agree_with_numerical_ones(use_batchnorm, filter_size):
    settings = SMALL | {"filter_size": filter_size, "reg": 0.1, "weight_scale": 0.3, "dtype": np.float64}
    check_model(ThreeLayerConvNet(**settings, use_batchnorm=use_batchnorm), *batch(), tol=1e-6, log=str)


@with_and_without_batchnorm
def test_initial_loss_is_that_of_guessing(use_batchnorm):
    X, y = batch(20, (3, 32, 32), 10)
    loss, _ = ThreeLayerConvNet(use_batchnorm=use_batchnorm, seed=0).loss(X, y)
    assert loss == pytest.approx(np.log(10), rel=0.01)


def test_l2_penalty_is_on_the_weights_alone():
    X, y = batch()
    bare = ThreeLayerConvNet(**SMALL, use_batchnorm=True, dtype=np.float64)
    net = ThreeLayerConvNet(**SMALL, use_batchnorm=True, dtype=np.float64, reg=0.5)
    for params in (bare.params, net.params):
        for name in params:
            params[name] += 1  # so that a penalty on biases, gamma or beta would show
    (loss, grads), (bare_loss, bare_grads) = net.loss(X, y), bare.loss(X, y)
    W = [net.params[name] for name in ("W1", "W2", "W3")]
    assert loss - bare_loss == pytest.approx(0.5 * 0.5 * sum(np.sum(w**2) for w in W), rel=1e-9)
    for name in grads:
        penalty = 0.5 * net.params[name] if name.startswith("W") else 0
        np.testing.assert_allclose(grads[name] - bare_grads[name], penalty, rtol=1e-9, atol=1e-9)


@with_and_without_batchnorm
@pytest.mark.parametrize(("K", "pixels"), [(3, 3 * 5), (2, 3 * 4)])  # an odd filter keeps 7 x 10, an even one takes one
def test_parameters_have_the_fields_names_and_shapes(use_batchnorm, K, pixels):
    net = ThreeLayerConvNet(**SMALL | {"filter_size": K}, use_batchnorm=use_batchnorm)
    shapes = {"W1": (3, 2, K, K), "b1": (3,), "W2": (3 * pixels, 5), "b2": (5,), "W3": (5, 4), "b3": (4,)}
    if use_batchnorm:
        shapes |= {"gamma1": (3,), "beta1": (3,), "gamma2": (5,), "beta2": (5,)}
    assert {name: w.shape for name, w in net.params.items()} == shapes


def test_the_defaults_are_the_fields():
    net = ThreeLayerConvNet()
    shapes = {"W1": (32, 3, 7, 7), "b1": (32,), "W2": (32 * 16 * 16, 100), "b2": (100,), "W3": (100, 10), "b3": (10,)}
    assert {name: w.shape for name, w in net.params.items()} == shapes
    assert net.params["W2"].std() == pytest.approx(1e-3, rel=0.01)
    assert (net.dtype, net.reg, net.use_batchnorm, net.bn_params) == (np.float32, 0, False, [])


def test_biases_and_beta_start_at_0_and_gamma_at_1_and_batch_norm_as_the_identity():
    net = ThreeLayerConvNet(**SMALL, use_batchnorm=True)
    for name in ("b1", "beta1", "b2", "beta2", "b3"):
        assert not net.params[name].any()
    assert (net.params["gamma1"] == 1).all()
    assert (net.params["gamma2"] == 1).all()
    X, _ = batch()
    plain = ThreeLayerConvNet(**SMALL)
    np.testing.assert_allclose(net.loss(X), plain.loss(X), rtol=1e-4)  # eps is 1e-5


@with_and_without_batchnorm
def test_float32_stays_float32_to_the_end(use_batchnorm):
    X, y = batch()
    net = ThreeLayerConvNet(**SMALL, use_batchnorm=use_batchnorm, reg=0.1)
    loss, grads = net.loss(X, y)
    assert type(loss) is float
    statistics = [v for param in net.bn_params for v in param.values() if isinstance(v, np.ndarray)]
    arrays = [*net.params.values(), *grads.values(), *statistics, net.loss(X)]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}


def test_the_seed_fixes_the_weights():
    first, same = ThreeLayerConvNet(**SMALL), ThreeLayerConvNet(**SMALL)
    other = ThreeLayerConvNet(**(SMALL | {"seed": 1}))
    np.testing.assert_array_equal(first.params["W1"], same.params["W1"])
    assert (first.params["W1"] != other.params["W1"]).all()
    assert len({first.params[name].flat[0] for name in ("W1", "W2", "W3")}) == 3  # no layer draws what another drew


def test_weight_scale_is_the_deviation_of_all_weights():
    net = ThreeLayerConvNet(weight_scale=0.02, seed=0)
    for name in ("W1", "W2", "W3"):
        assert net.params[name].std() == pytest.approx(0.02, rel=0.1)
    assert np.abs(net.params["W2"]).max() > 4 * 0.02  # the tails of a normal distribution


def test_scores_come_from_the_running_statistics_and_leave_them_alone():
    X, y = batch()
    net = ThreeLayerConvNet(**SMALL, use_batchnorm=True, weight_scale=0.3)
    net.loss(X, y)
    before = [param["running_mean"].tobytes() + param["running_var"].tobytes() for param in net.bn_params]
    together, alone = net.loss(X), np.concatenate([net.loss(x[None]) for x in X])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert [param["running_mean"].tobytes() + param["running_var"].tobytes() for param in net.bn_params] == before


def test_training_normalizes_with_the_batch_and_moves_the_running_statistics_of_both_norms():
    X, y = batch()
    net = ThreeLayerConvNet(**SMALL, use_batchnorm=True, weight_scale=0.3, dtype=np.float64)
    for beta in ("beta1", "beta2"):
        net.params[beta] += 3  # so that a relu passes nearly all, and the scale of the input would show
    (loss, _), (scaled_loss, _) = net.loss(X, y), net.loss(3 * X, y)
    assert scaled_loss == pytest.approx(loss, rel=1e-3)
    for param in net.bn_params:
        assert param["running_mean"].all()
        assert (param["running_var"] != 1).all()


@with_and_without_batchnorm
def test_it_overfits_a_few_images_and_the_best_model_scores_best_val_acc(use_batchnorm):
    X, y = batch(40)
    data = {"X_train": X.astype(np.float32), "y_train": y, "X_val": X.astype(np.float32), "y_val": y}
    net = ThreeLayerConvNet(**SMALL | {"hidden_dim": 30}, use_batchnorm=use_batchnorm, weight_scale=0.1)
    solver = Solver(net, data, "adam", {"learning_rate": 1e-2}, batch_size=20, num_epochs=30, verbose=False, seed=0)
    solver.train()
    assert solver.best_val_acc > 0.95
    assert np.mean(net.loss(X).argmax(axis=1) == y) == solver.best_val_acc


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_dim", (3, 32), "input_dim: wanted (C, H, W)"),
        ("input_dim", (0, 7, 10), "input_dim: C"),
        ("input_dim", (2, 7.5, 10), "input_dim: H"),
        ("input_dim", (2, 7, -1), "input_dim: W"),
        ("num_filters", 0, "num_filters"),
        ("filter_size", 1.5, "filter_size"),
        ("hidden_dim", -1, "hidden_dim"),
        ("num_classes", 0, "num_classes"),
        ("reg", -0.1, "reg"),
        ("weight_scale", float("nan"), "weight_scale"),
        ("dtype", np.int64, "dtype"),
        ("dtype", np.float16, "dtype"),
    ],
)
def test_a_bad_setting_is_named(name, value, message):
    with pytest.raises(ValueError) as error:
        ThreeLayerConvNet(**SMALL | {name: value})
    assert message in str(error.value)


def test_images_too_small_for_the_net_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        ThreeLayerConvNet(input_dim=(3, 1, 8), filter_size=3)
