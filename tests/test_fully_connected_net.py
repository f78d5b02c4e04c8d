"""FullyConnectedNet: its gradients, the same net in torch, and what it promises about dtypes, dropout and modes."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cs231n import fully_connected_net, layer_utils
from cs231n.dropout import dropout_forward
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.layers import affine_backward, softmax_loss
from cs231n.utils import check_model, rel_error

pytestmark = pytest.mark.usefixtures("one_torch_thread")

DEPTHS = [(), (5,), (6, 5), (6, 6, 4)]  # widths that differ, and widths that could be taken for each other
NORMALIZATIONS = [None, "batchnorm", "layernorm"]

every_net = pytest.mark.parametrize(
    ("hidden_dims", "normalization", "dropout", "reg"),
    list(itertools.product(DEPTHS, NORMALIZATIONS, [None, 0.7], [0.0, 0.02])),
)
every_normalization = pytest.mark.parametrize("normalization", NORMALIZATIONS)


def make_net(hidden_dims=(6, 5), *, randomize=True, **settings):
    """A small net for inputs of shape (2, 3) and 4 classes; no parameter of it is 0 or 1, which would hide errors."""
    settings = {"input_dim": 6, "num_classes": 4, "dtype": np.float64, "seed": 3} | settings
    model = FullyConnectedNet(hidden_dims, **settings)
    if randomize:
        rng = np.random.default_rng(0)
        model.params = {name: (0.5 * rng.standard_normal(w.shape)).astype(w.dtype) for name, w in model.params.items()}
    return model


def make_batch(N=7, dtype=np.float64, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, 2, 3)).astype(dtype), rng.integers(0, 4, N)


# The same net in torch.


class KeepUnits(nn.Module):
    """Dropout with the mask of a seed; torch draws another."""

    def __init__(self, p, seed):
        super().__init__()
        self.p, self.seed = p, seed

    def forward(self, x):
        if not self.training:
            return x
        mask, _ = dropout_forward(np.ones(x.shape), {"mode": "train", "p": self.p, "seed": self.seed})
        return x * torch.from_numpy(mask).to(x.dtype)


NORMS = {"batchnorm": nn.BatchNorm1d, "layernorm": nn.LayerNorm}


def torch_twin(model, dropout, seed=3):
    """A torch.nn.Sequential with the parameters and running averages of model, and those parameters by our names."""
    modules, twin_params = [nn.Flatten()], {}
    bn_params = iter(model.bn_params)
    with torch.no_grad():
        for i in range(1, model.num_layers + 1):
            W = torch.from_numpy(model.params[f"W{i}"])
            linear = nn.Linear(*W.shape, dtype=W.dtype)
            linear.weight.copy_(W.T)
            modules.append(linear)
            twin_params |= {f"W{i}": linear.weight, f"b{i}": linear.bias}
            if i == model.num_layers:
                break
            if model.normalization:
                norm = NORMS[model.normalization](W.shape[1], dtype=W.dtype)
                modules.append(norm)
                twin_params |= {f"gamma{i}": norm.weight, f"beta{i}": norm.bias}
            if model.normalization == "batchnorm":
                bn_param = next(bn_params)
                norm.running_mean.copy_(torch.from_numpy(bn_param["running_mean"]))
                norm.running_var.copy_(torch.from_numpy(bn_param["running_var"]))
            modules.append(nn.ReLU())
            if dropout:
                modules.append(KeepUnits(dropout, [seed, i]))
        for name, tensor in twin_params.items():
            if not name.startswith("W"):
                tensor.copy_(torch.from_numpy(model.params[name]))
    return nn.Sequential(*modules), twin_params


@every_net
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-10), (np.float32, 1e-5)], ids=["f64", "f32"])
def test_loss_and_gradients_agree_with_torch(hidden_dims, normalization, dropout, reg, dtype, tol):
    model = make_net(hidden_dims, normalization=normalization, dropout=dropout, reg=reg, dtype=dtype)
    X, y = make_batch(N=40, dtype=dtype)
    twin, twin_params = torch_twin(model, dropout)
    loss, grads = model.loss(X, y)
    twin_loss = F.cross_entropy(twin(torch.from_numpy(X)), torch.from_numpy(y))
    twin_loss = twin_loss + 0.5 * reg * sum(W.square().sum() for name, W in twin_params.items() if name[0] == "W")
    twin_loss.backward()
    assert rel_error(loss, twin_loss.item()) < tol
    assert grads.keys() == twin_params.keys() == model.params.keys()
    for name, tensor in twin_params.items():
        theirs = tensor.grad.numpy().T if name[0] == "W" else tensor.grad.numpy()
        assert rel_error(grads[name], theirs, floor=0.1) < tol, name  # the b before a batch norm has the gradient 0


@every_net
def test_scores_in_test_mode_agree_with_torch(hidden_dims, normalization, dropout, reg):
    model = make_net(hidden_dims, normalization=normalization, dropout=dropout, reg=reg)
    for seed in range(3):
        model.loss(*make_batch(seed=seed))  # moves the running averages
    X, _ = make_batch(N=5)
    twin, _ = torch_twin(model, dropout)
    assert rel_error(model.loss(X), twin.eval()(torch.from_numpy(X)).detach().numpy()) < 1e-10


@every_net
def test_gradients_agree_with_numerical_ones(hidden_dims, normalization, dropout, reg):
    model = make_net(hidden_dims, normalization=normalization, dropout=dropout, reg=reg)
    check_model(model, *make_batch(), tol=1e-7)


@every_normalization
def test_gradients_of_a_large_net_agree_along_random_directions(normalization):
    model = make_net((100, 100), input_dim=300, normalization=normalization, dropout=0.7, reg=1e-3, randomize=False)
    for name in model.params:
        model.params[name] += 0.1 * np.random.default_rng(0).standard_normal(model.params[name].shape)
    X = np.random.default_rng(0).standard_normal((20, 300))
    check_model(model, X, np.arange(20) % 4, directions=2)


# Loss.


def test_first_loss_is_that_of_a_guess_among_the_classes():
    model = make_net(weight_scale=1e-3, randomize=False)
    loss, _ = model.loss(*make_batch())
    assert loss == pytest.approx(np.log(4), abs=1e-3)


def test_loss_without_hidden_layers_is_the_softmax_of_an_affine_map():
    model, (X, y) = make_net(()), make_batch()
    scores = X.reshape(7, 6) @ model.params["W1"] + model.params["b1"]
    np.testing.assert_allclose(model.loss(X), scores, rtol=1e-14)
    assert model.loss(X, y)[0] == pytest.approx(softmax_loss(scores, y)[0], rel=1e-14)


def test_reg_adds_half_of_reg_times_the_square_of_the_weights_alone():
    settings = {"normalization": "layernorm", "seed": 0}
    plain, penalized, (X, y) = make_net(**settings), make_net(reg=0.4, **settings), make_batch()
    loss, grads = plain.loss(X, y)
    penalized_loss, penalized_grads = penalized.loss(X, y)
    squares = sum((w**2).sum() for name, w in plain.params.items() if name.startswith("W"))
    assert penalized_loss - loss == pytest.approx(0.2 * squares)
    for name, w in plain.params.items():
        extra = 0.4 * w if name.startswith("W") else 0
        np.testing.assert_allclose(penalized_grads[name], grads[name] + extra, rtol=1e-12)


def test_scores_are_computed_in_test_mode_and_the_loss_in_train_mode():
    model, (X, y) = make_net(normalization="batchnorm", dropout=0.5), make_batch()
    running_mean = model.bn_params[0]["running_mean"].copy()
    np.testing.assert_array_equal(model.loss(X), model.loss(X))
    np.testing.assert_allclose(model.loss(X[:1]), model.loss(X)[:1], rtol=1e-12)  # each example alone
    np.testing.assert_array_equal(model.bn_params[0]["running_mean"], running_mean)
    model.loss(X, y)
    assert (model.bn_params[0]["running_mean"] != running_mean).all()


def test_scores_before_any_training_take_batch_norm_for_the_identity():
    X, _ = make_batch()
    plain, normalized = make_net(randomize=False), make_net(normalization="batchnorm", randomize=False)
    np.testing.assert_allclose(normalized.loss(X), plain.loss(X), rtol=2e-5)  # eps = 1e-5 on a variance of 1, twice


@every_normalization
def test_loss_leaves_x_y_and_parameters_alone(normalization):
    model, (X, y) = make_net(normalization=normalization, dropout=0.5, reg=0.1), make_batch()
    arrays = [X, y, *model.params.values()]
    before = [a.tobytes() for a in arrays]
    _, grads = model.loss(X, y)
    assert [a.tobytes() for a in arrays] == before
    assert not any(np.shares_memory(g, a) for g in grads.values() for a in arrays)


@every_normalization
@pytest.mark.parametrize("hidden_dims", DEPTHS, ids=str)
def test_the_gradient_of_the_images_is_not_computed(monkeypatch, hidden_dims, normalization):
    asked = []

    def affine_backward_seen(dout, cache, need_dx=True):
        asked.append(need_dx)
        return affine_backward(dout, cache, need_dx)

    for module in (layer_utils, fully_connected_net):
        monkeypatch.setattr(module, "affine_backward", affine_backward_seen)
    make_net(hidden_dims, normalization=normalization).loss(*make_batch())
    assert asked == [True] * len(hidden_dims) + [False]


def test_batches_may_come_flat_as_lists_or_as_bytes():
    model, (X, y) = make_net(), make_batch()
    X = np.round(X * 10 + 100)
    loss, _ = model.loss(X, y)
    assert model.loss(X.reshape(7, 6), y)[0] == loss
    assert model.loss(X.tolist(), y.tolist())[0] == loss
    assert model.loss(X.astype(np.uint8), y.astype(np.uint8))[0] == loss


# Parameters.


@every_normalization
@pytest.mark.parametrize("hidden_dims", DEPTHS, ids=str)
def test_parameters_names_shapes_and_gradients(hidden_dims, normalization):
    model = make_net(hidden_dims, normalization=normalization)
    dims, shapes = [6, *hidden_dims, 4], {}
    for i in range(1, len(dims)):
        shapes |= {f"W{i}": (dims[i - 1], dims[i]), f"b{i}": (dims[i],)}
        if normalization and i < len(dims) - 1:
            shapes |= {f"gamma{i}": (dims[i],), f"beta{i}": (dims[i],)}
    _, grads = model.loss(*make_batch())
    assert {name: w.shape for name, w in model.params.items()} == shapes
    assert {name: g.shape for name, g in grads.items()} == shapes
    assert len(model.bn_params) == (len(hidden_dims) if normalization else 0)


def test_initial_weights_have_the_scale_and_the_rest_is_0_and_1():
    model = FullyConnectedNet([200], input_dim=300, weight_scale=0.05, normalization="layernorm", seed=0)
    W = model.params["W1"]
    assert abs(W.std() / 0.05 - 1) < 0.01
    assert abs(W.mean()) < 1e-3
    assert not model.params["b1"].any()
    assert not model.params["b2"].any()
    assert not model.params["beta1"].any()
    assert (model.params["gamma1"] == 1).all()


def test_defaults_are_a_net_for_cifar10():
    model = FullyConnectedNet()
    assert {name: w.shape for name, w in model.params.items()} == {
        "W1": (3072, 100), "b1": (100,), "W2": (100, 100), "b2": (100,), "W3": (100, 10), "b3": (10,),
    }  # fmt: skip
    assert model.reg == 0
    assert abs(model.params["W1"].std() / 1e-2 - 1) < 0.01


def test_use_batchnorm_is_short_for_normalization_batchnorm():
    short, spelt = make_net(use_batchnorm=True), make_net(normalization="batchnorm")
    assert short.params.keys() == spelt.params.keys()
    assert short.loss(*make_batch())[0] == spelt.loss(*make_batch())[0]
    assert make_net(use_batchnorm=True, normalization="batchnorm").normalization == "batchnorm"


def test_a_seed_fixes_the_initial_weights():
    def weights(seed):
        return FullyConnectedNet([5], input_dim=6, seed=seed).params["W1"]

    np.testing.assert_array_equal(weights(0), weights(0))
    assert (weights(0) != weights(1)).any()
    assert (weights(None) != weights(None)).any()


# Dtypes.


@every_net
def test_a_float32_net_given_float64_computes_in_float32(hidden_dims, normalization, dropout, reg):
    model = FullyConnectedNet(
        hidden_dims, 6, 4, dropout=dropout, normalization=normalization, reg=np.float64(reg), weight_scale=np.float64(1)
    )
    X, y = make_batch(dtype=np.float64)
    loss, grads = model.loss(X, y)
    running = [v for bn_param in model.bn_params for v in bn_param.values() if isinstance(v, np.ndarray)]
    arrays = [model.loss(X), *model.params.values(), *grads.values(), *running]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    assert isinstance(loss, float)


def test_a_float64_net_computes_in_float64():
    model = make_net(normalization="batchnorm", dropout=0.5, reg=0.1)
    X, y = make_batch(dtype=np.float32)
    _, grads = model.loss(X, y)
    assert {a.dtype for a in [model.loss(X), *grads.values(), *model.params.values()]} == {np.dtype(np.float64)}


# Dropout.


def test_dropout_is_the_probability_of_keeping():
    """With W1 = 0, b1 = 1 and W2 summing, a score is the number of units kept, over p."""
    model = FullyConnectedNet([10_000], input_dim=6, num_classes=2, dropout=0.8, dtype=np.float64, seed=0)
    model.params = {"W1": np.zeros((6, 10_000)), "b1": np.ones(10_000), "W2": np.ones((10_000, 2)), "b2": np.zeros(2)}
    _, grads = model.loss(np.ones((1, 6)), np.array([0]))
    hidden = -2 * grads["W2"][:, 0]  # dW2 = hidden dscores, where dscores = (-1/2, 1/2)
    assert set(hidden.tolist()) == {0, 1.25}
    assert abs((hidden > 0).mean() - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 10_000)
    assert (model.loss(np.ones((1, 6))) == 10_000).all()  # in test mode all are kept


@pytest.mark.parametrize("dropout", [None, 1, 1.0])
def test_dropout_of_none_or_1_is_no_dropout(dropout):
    loss, grads = make_net(dropout=dropout, seed=None).loss(*make_batch())
    plain_loss, plain_grads = make_net(seed=None).loss(*make_batch())
    assert loss == plain_loss
    for name, plain in plain_grads.items():
        np.testing.assert_array_equal(grads[name], plain)


def test_a_seeded_net_draws_the_same_masks_at_every_call():
    model = make_net(dropout=0.5, seed=3)
    assert model.loss(*make_batch())[0] == model.loss(*make_batch())[0]


def test_reseed_draws_other_masks_and_returns_the_seed_before():
    model = make_net(dropout=0.5, seed=3)
    first = model.loss(*make_batch())[0]
    assert model.reseed([7, 1]) == 3
    other = model.loss(*make_batch())[0]
    assert other != first
    assert model.loss(*make_batch())[0] == other
    assert model.reseed(3) == [7, 1]
    assert model.loss(*make_batch())[0] == first


@pytest.mark.parametrize("reseeded", [False, True])
def test_a_net_without_a_seed_draws_fresh_masks(reseeded):
    model = make_net(dropout=0.5, seed=3 if reseeded else None)
    if reseeded:
        model.reseed(None)
    assert len({model.loss(*make_batch())[0] for _ in range(5)}) == 5


def test_hidden_layers_have_masks_of_their_own():
    """Layers of one width, each the identity: a mask used twice would leave half of the units, two masks a quarter."""
    eye = np.eye(1000)
    model = FullyConnectedNet([1000, 1000], input_dim=1000, num_classes=2, dropout=0.5, dtype=np.float64, seed=0)
    model.params = {
        "W1": eye,
        "b1": np.zeros(1000),
        "W2": eye,
        "b2": np.zeros(1000),
        "W3": eye[:, :2],
        "b3": np.zeros(2),
    }
    _, grads = model.loss(np.ones((1, 1000)), np.array([0]))
    assert 0.2 < (grads["W3"][:, 0] != 0).mean() < 0.3


def test_loss_does_not_touch_the_global_generator():
    np.random.random()  # noqa: NPY002  moves the state away from that of any seed
    before = np.random.get_state()  # noqa: NPY002
    make_net(dropout=0.5).loss(*make_batch())
    after = np.random.get_state()  # noqa: NPY002
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


# Bad input.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalization": "batch"}, "normalization: wanted one of None, 'batchnorm', 'layernorm', got 'batch'"),
        ({"normalization": "layernorm", "use_batchnorm": True}, "use_batchnorm=True contradicts .*'layernorm'"),
        ({"dropout": 0}, "dropout: wanted the probability of KEEPING a unit, .* got 0"),
        ({"dropout": 1.5}, "dropout: wanted the probability of KEEPING a unit, .* got 1.5"),
        ({"dropout": float("nan")}, "dropout: wanted the probability of KEEPING a unit, .* got nan"),
        ({"dtype": np.float16}, "dtype: wanted float32 or float64, got float16"),
        ({"dtype": int}, "dtype: wanted float32 or float64, got int64"),
        ({"hidden_dims": [5, 0]}, "hidden_dims: wanted a whole number of at least 1, got 0"),
        ({"hidden_dims": [5.0]}, "hidden_dims: wanted a whole number of at least 1, got 5.0"),
        ({"input_dim": -6}, "input_dim: wanted a whole number of at least 1, got -6"),
        ({"hidden_dims": 100}, "hidden_dims: wanted a list of widths, got 100"),
        ({"reg": -0.1}, "reg: wanted a number of at least 0, got -0.1"),
        ({"weight_scale": float("nan")}, "weight_scale: wanted a number of at least 0, got nan"),
        ({"num_classes": 0}, "num_classes: wanted a whole number of at least 1, got 0"),
    ],
)
def test_net_names_the_setting_that_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        make_net(**settings)


def test_net_refuses_an_unknown_setting():
    with pytest.raises(TypeError, match="droput"):
        make_net(droput=0.5)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((3, 7)), [0, 1, 2], r"x \(3, 7\) takes w \(7, M\) .* got w \(6, 6\)"),
        (np.ones((3, 6)), [0, 1, 4], r"y: wanted labels from 0 to 3 for x \(3, 4\), got y\[2\] = 4"),
        (np.ones((3, 6)), [0, 1], r"y: wanted 3 integer labels for x \(3, 4\), got shape \(2,\)"),
        (np.ones((3, 6)), [0.5, 1, 2], "y: wanted 3 integer labels .* dtype float64"),
    ],
)
def test_loss_names_the_batch_or_labels_that_do_not_fit(X, y, message):
    with pytest.raises(ValueError, match=message):
        make_net().loss(X, y)
