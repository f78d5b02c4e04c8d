"""Checks of exercises 1.6 and 1.7: the loss of a net, and the fully connected net."""

from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F

from grading.checks.common import TOLERANCE, check_grads, forward
from grading.expect import expect, require, several


def _small_net(learner, reg, dtype):
    """A net from drivers.small_net, its parameters, X and y."""
    shapes = {"W1": (4, 5), "b1": (5,), "gamma1": (5,), "beta1": (5,), "W2": (5, 3)}
    params = {name: learner.rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    net = learner.drivers.small_net(reg, dtype, params)
    return net, params, learner.rng.standard_normal((6, 4)), learner.rng.integers(3, size=6)


def _net_scores(X, params):
    W1, b1, gamma1, beta1, W2 = params.values()
    return (torch.tensor(X).to(W1.dtype) @ W1 * gamma1 + beta1 + b1) @ W2


def _net_loss(X, y, params, reg):
    """The loss with its penalty, and gradients, by name."""
    leaves = {name: torch.tensor(array).requires_grad_() for name, array in params.items()}
    value = F.cross_entropy(_net_scores(X, leaves), torch.tensor(y))
    value = value + reg / 2 * sum(leaves[name].square().sum() for name in ("W1", "W2"))
    value.backward()
    return value.item(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def _asked(net, mode, dtype):
    """Check the arguments of `_forward`."""
    asked, when = net.get("asked"), "without y" if mode == "test" else "with y"
    require(asked["mode"] == mode, f"mode: _forward got {asked['mode']!r} {when}, expected {mode!r}")
    require(set(asked["bn"]) == {mode}, f"bn_params: each one's mode has to be {mode!r} {when}, got {asked['bn']}")
    require(asked["dtype"] == dtype, f"X: _forward got {asked['dtype']}, expected the net's own dtype")


def net_loss(learner):
    for dtype, tol in TOLERANCE.items():
        net, params, X, y = _small_net(learner, 0.0, dtype)
        scores = _net_scores(X, {name: torch.tensor(array) for name, array in params.items()}).numpy()
        expect("scores", net.loss(X), scores, case="y=None", tol=tol)
        _asked(net, "test", dtype)
        loss, grads = several("loss", net.loss(X, y), "the loss, grads")
        _asked(net, "train", dtype)
        value, wanted = _net_loss(X, y, params, 0.0)
        expect("loss", loss, value, case="reg=0", tol=tol)
        check_grads(grads, wanted, case="reg=0", tol=tol)
        net.loss(X)
        _asked(net, "test", dtype)


def l2_penalty(learner):
    for reg in (0.3, 2.0):
        for dtype, tol in TOLERANCE.items():
            net, params, X, y = _small_net(learner, reg, dtype)
            (value, wanted), (bare, without) = (_net_loss(X, y, params, strength) for strength in (reg, 0.0))
            penalty, case = value - bare, f"reg={reg}"
            every = bare + reg / 2 * sum(np.square(array).sum() for array in params.values())
            mistakes = {
                "0.5 is missing from the penalty": bare + 2 * penalty,
                "the penalty is missing": bare,
                "the penalty is on all parameters, but belongs on the weights only": every,
                "the penalty is on W1 only": bare + reg / 2 * np.square(params["W1"]).sum(),
                "reg is squared, or missing": bare + penalty / reg,
            }
            loss, grads = several("loss", net.loss(X, y), "the loss, grads")
            expect("loss", loss, value, mistakes, case, tol)
            mistakes = {
                "the penalty's gradient is missing": without,
                "the gradient of 0.5 * reg * W^2 is reg * W": {n: 2 * wanted[n] - without[n] for n in wanted},
                "the penalty's gradient has no 0.5": {n: (wanted[n] + without[n]) / 2 for n in wanted},
                "only weights are penalized": {n: without[n] + reg * params[n] for n in wanted},
            }
            check_grads(grads, wanted, mistakes, case, tol)


HIDDEN_DIMS = [[], [5], [6, 6, 6], [5, 4]]
NORMS = [(None, "float32"), (None, "float64"), ("batchnorm", "float64"), ("layernorm", "float64")]


def _nets(learner):
    """Nets with random parameters, their X, a description, and the tolerance."""
    for hidden_dims in HIDDEN_DIMS:
        for norm, dtype in NORMS:
            settings = {"hidden_dims": hidden_dims, "normalization": norm, "dtype": dtype}
            X = learner.rng.standard_normal((5, 2, 3)).astype(dtype)
            case = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            yield *_net(learner, **settings), norm, X, case, TOLERANCE[dtype]


def _net(learner, hidden_dims, num_classes=3, normalization=None, dtype="float64", **settings):
    """A FullyConnectedNet of 6 inputs, and its parameters, which are random, biases and gamma too."""
    settings |= {"hidden_dims": hidden_dims, "normalization": normalization, "dtype": dtype}
    net = learner.fully_connected_net.FullyConnectedNet(input_dim=6, num_classes=num_classes, **settings)
    params = {}
    for i, (D, M) in enumerate(pairwise([6, *hidden_dims, num_classes]), start=1):
        scales = {f"gamma{i}": (M,), f"beta{i}": (M,)} if normalization and i <= len(hidden_dims) else {}
        for name, shape in {f"W{i}": (D, M), f"b{i}": (M,), **scales}.items():
            params[name] = (learner.rng.standard_normal(shape) + name.startswith("gamma")).astype(dtype)
            net.set(f"params.{name}", params[name])
    return net, params


def _set_mode(net, mode):
    for i in range(len(net.get("bn_params"))):
        net.set(f"bn_params.{i}.mode", mode)


def _torch_net(X, params, norm, statistics=None, means=None):
    """The scores.  statistics: of batch norm, in test mode.  means: a list that receives the batches' means."""
    h, depth = X.flatten(1), sum(name.startswith("W") for name in params)
    for i in range(1, depth + 1):
        h = F.linear(h, params[f"W{i}"].T, params[f"b{i}"])
        if i == depth:
            return h
        scale = [params[f"{name}{i}"] for name in ("gamma", "beta")] if norm else []
        if norm == "batchnorm":
            stored = [None, None]
            if statistics:
                stored = [torch.tensor(statistics[i - 1][f"running_{name}"]) for name in ("mean", "var")]
            if means is not None:
                means.append(h.mean(0).detach().numpy())
            h = F.batch_norm(h, *stored, *scale, training=not statistics)
        elif norm == "layernorm":
            h = F.layer_norm(h, h.shape[1:], *scale)
        h = F.relu(h)


def _leaves(params):
    return {name: torch.tensor(array).requires_grad_() for name, array in params.items()}


def net_forward(learner):
    for net, params, norm, X, case, tol in _nets(learner):
        means = []
        _set_mode(net, "train")
        before = net.get("bn_params")
        wanted = _torch_net(torch.tensor(X), _leaves(params), norm, means=means).detach()
        scores, _ = forward(net._forward, X, "train")
        mistakes = {"the last layer is only affine, without ReLU": F.relu(wanted)}
        expect("scores", scores, wanted.numpy(), mistakes, case, tol)
        for i, mean in reversed(list(enumerate(means))):
            name, old = "running_mean", before[i]["running_mean"]
            mistakes = {"layer i takes bn_params[i - 1], and batch norm writes to it": old}
            expect(
                f"bn_params[{i}][{name!r}]", net.get(f"bn_params.{i}.{name}"), 0.9 * old + 0.1 * mean, mistakes, case
            )
        _set_mode(net, "test")
        wanted = _torch_net(torch.tensor(X), _leaves(params), norm, net.get("bn_params")).detach().numpy()
        scores, _ = forward(net._forward, X, "test")
        expect("scores", scores, wanted, case=f"{case}, test mode", tol=tol)


def net_backward(learner):
    for net, params, norm, X, case, tol in _nets(learner):
        _set_mode(net, "train")
        _, caches = forward(net._forward, X, "train")
        leaves = _leaves(params)
        out = _torch_net(torch.tensor(X), leaves, norm)
        dscores = learner.rng.standard_normal(out.shape).astype(X.dtype)
        gradients = torch.autograd.grad(out, list(leaves.values()), torch.tensor(dscores))
        wanted = {name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)}
        check_grads(net._backward(dscores, caches), wanted, case=case, tol=tol)


def net_dropout(learner):
    p, width = 0.8, 20
    settings = {"hidden_dims": [width, width], "num_classes": width, "dropout": p, "dtype": "float64", "seed": 1}
    (net, _), X = _net(learner, **settings), np.ones((100, 6))
    # Units of layer 1 are 1; those of layer 2 are 1 more than those of layer 1, and are the scores.
    for i, W in enumerate([np.zeros((6, width)), np.eye(width), np.eye(width)], start=1):
        net.set(f"params.W{i}", W)
        net.set(f"params.b{i}", np.full(width, float(i < 3)))
    whole, case = np.full((100, width), 2.0), f"dropout={p}, two hidden layers"
    expect("scores", forward(net._forward, X, "test")[0], whole, case=f"{case}, test mode: nothing is dropped")
    scores = forward(net._forward, X, "train")[0]
    require(np.shape(scores) == whole.shape, f"scores has the shape {np.shape(scores)}, expected {whole.shape}")
    _check_masks(scores, p, case)
    _check_seeds(net, X, scores)
    _check_slopes(learner, p)


def _check_masks(scores, p, case):
    """Check that two layers of dropout have turned 2 into 0, 1 / p or (1 / p + 1) / p."""
    kept = scores != 0
    share = kept.mean()
    require(not kept.all(), f"scores: nothing is dropped (with {case})")
    likely = ". Likely mistake: dropout is the probability of KEEPING a unit" if abs(share - 1 + p) < 0.06 else ""
    require(abs(share - p) < 0.06, f"the fraction of units kept is {share:.3f}, expected {p} (with {case}){likely}")
    both = scores > (1.5 / p if (scores > 1.5 / p).any() else 0)
    wanted = np.where(kept, np.where(both, 1 / p + 1, 1) / p, 0)
    mistakes = {"each hidden layer has dropout, after its ReLU": np.where(kept, 2 / p, 0)}
    expect("scores", scores, wanted, mistakes, case)
    share = both.sum() / kept.sum()
    require(share < 1, "all layers draw the same mask. Likely mistake: each takes the seed; give them one generator")
    require(abs(share - p) < 0.07, f"where layer 2 keeps a unit, layer 1 keeps a fraction of {share:.3f}, expected {p}")


def _check_seeds(net, X, scores):
    again = forward(net._forward, X, "train")[0]
    require(np.array_equal(scores, again), "seed: with the same seed, a second call has to draw the same masks")
    net.reseed([3, 1, 4])
    other = forward(net._forward, X, "train")[0]
    require(not np.array_equal(scores, other), "reseed: another seed has to give other masks")
    net.reseed(None)
    first, second = (forward(net._forward, X, "train")[0] for _ in range(2))
    require(not np.array_equal(first, second), "seed: with None, each call has to draw masks afresh")


def _check_slopes(learner, p):
    """All units are positive, so that scores are linear in each parameter, and a step of any length gives the slope."""
    rng = learner.rng
    net, params = _net(learner, hidden_dims=[7, 5], dropout=p, seed=2)
    params = {name: rng.uniform(0.1, 1, array.shape) for name, array in params.items()}
    for name, array in params.items():
        net.set(f"params.{name}", array)
    X = rng.uniform(0.1, 1, (8, 6))
    scores, caches = forward(net._forward, X, "train")
    dscores = rng.standard_normal(scores.shape)
    grads = net._backward(dscores, caches)
    require(isinstance(grads, dict) and grads.keys() == params.keys(), "grads: expected a dict with the keys of params")
    for name, array in params.items():
        direction = rng.uniform(0.1, 1, array.shape)
        net.set(f"params.{name}", array + direction)
        slope = np.sum(dscores * (forward(net._forward, X, "train")[0] - scores))
        net.set(f"params.{name}", array)
        shape = np.shape(grads[name])
        require(shape == array.shape, f"grads[{name!r}] has the shape {shape}, expected {array.shape}")
        masks = f"dropout={p}; backward uses the masks of forward, scaled by 1 / p"
        expect(f"the slope along grads[{name!r}]", np.sum(grads[name] * direction), slope, case=masks)
