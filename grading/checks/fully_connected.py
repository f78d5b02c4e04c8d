"""Checks of exercises 1.6 and 1.7: the loss of a net, and the fully connected net."""

from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F

from grading.checks.common import TOLERANCE, check_grads, check_initial_params, draw, forward
from grading.expect import expect, fitting, require, several

MODE = "without y the mode is 'test', with y 'train', for _forward and for each of bn_params, in every call"
SHAPES = {"W1": (4, 5), "b1": (5,), "gamma1": (5,), "beta1": (5,), "W2": (5, 3)}


def _scripted_net(learner, reg, dtype):
    """A net from drivers.scripted_net, its params, scores and gradients, and X and y."""
    rng = learner.rng
    params, gradients = ({name: draw(learner, shape, dtype) for name, shape in SHAPES.items()} for _ in range(2))
    scores, X, y = draw(learner, (6, 3), dtype), rng.standard_normal((6, 4)), rng.integers(3, size=6)
    return learner.drivers.scripted_net(reg, dtype, params, scores, gradients), params, scores, gradients, X, y


def _softmax(scores, y):
    """The softmax loss of scores, and its gradient."""
    leaf = torch.tensor(scores).requires_grad_()
    value = F.cross_entropy(leaf, torch.tensor(y))
    return value.item(), torch.autograd.grad(value, leaf)[0].numpy()


def _check_asked(net, mode, dtype):
    """Check the arguments of `_forward`."""
    asked, when = net.get("asked"), "without y" if mode == "test" else "with y"
    require(asked["mode"] == mode, f"mode: _forward got {asked['mode']!r} {when}, expected {mode!r}", MODE)
    require(asked["bn"] == [mode] * 2, f"bn_params: the modes are {asked['bn']} {when}, expected {mode!r}", MODE)
    require(
        asked["dtype"] == dtype,
        f"X: _forward got {asked['dtype']}, expected {dtype}",
        "X goes into _forward in the net's own dtype",
    )


def net_loss(learner):
    for dtype, tol in TOLERANCE.items():
        net, _, scores, gradients, X, y = _scripted_net(learner, 0.0, dtype)
        expect("scores", net.loss(X), scores, case="y=None", tol=tol)
        _check_asked(net, "test", dtype)
        loss, grads = several("loss", net.loss(X, y), "the loss, grads")
        _check_asked(net, "train", dtype)
        value, dscores = _softmax(scores, y)
        expect("loss", loss, value, case="reg=0", tol=tol)
        mistakes = {"_backward gets the gradient with respect to the scores, not the scores": scores}
        expect("dscores, which _backward gets,", net.get("dscores"), dscores, mistakes, "reg=0", tol)
        check_grads(grads, gradients, case="reg=0", tol=tol)
        net.loss(X)
        _check_asked(net, "test", dtype)


def l2_penalty(learner):
    for reg in (0.3, 2.0):
        for dtype, tol in TOLERANCE.items():
            net, params, scores, without, X, y = _scripted_net(learner, reg, dtype)
            (bare, _), case = _softmax(scores, y), f"reg={reg}"
            squares = {name: np.square(array, dtype=float).sum() for name, array in params.items()}
            penalty, every = reg / 2 * (squares["W1"] + squares["W2"]), sum(squares.values())
            mistakes = {
                "0.5 is missing from the penalty": bare + 2 * penalty,
                "the penalty is missing": bare,
                "the penalty is on all parameters, but belongs on the weights only": bare + reg / 2 * every,
                "the penalty is on W1 only": bare + reg / 2 * squares["W1"],
                "reg is squared, or missing": bare + penalty / reg,
            }
            loss, grads = several("loss", net.loss(X, y), "the loss, grads")
            expect("loss", loss, bare + penalty, mistakes, case, tol)
            wanted = {n: without[n] + reg * params[n] * n.startswith("W") for n in params}
            mistakes = {
                "the penalty's gradient is missing": without,
                "the penalty's gradient is added to the loss's own": {n: wanted[n] - without[n] for n in wanted},
                "the gradient of 0.5 * reg * W^2 is reg * W": {n: 2 * wanted[n] - without[n] for n in wanted},
                "the penalty's gradient has no 0.5": {n: (wanted[n] + without[n]) / 2 for n in wanted},
                "only weights are penalized": {n: without[n] + reg * params[n] for n in wanted},
            }
            check_grads(grads, {n: array.astype(dtype) for n, array in wanted.items()}, mistakes, case, tol)


HIDDEN_DIMS = [[], [5], [6, 6, 6], [5, 4]]
NORMS = [(None, "float32"), (None, "float64"), ("batchnorm", "float64"), ("layernorm", "float64")]


LARGE_NET = {"hidden_dims": [250, 200], "num_classes": 10, "input_dim": 200}


def _nets(learner):
    """Nets with random parameters, their X, a description, and the tolerance."""
    for hidden_dims in HIDDEN_DIMS:
        for norm, dtype in NORMS:
            settings = {"hidden_dims": hidden_dims, "normalization": norm, "dtype": dtype}
            X = learner.rng.standard_normal((5, 2, 3)).astype(dtype)
            case = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            yield *_net(learner, **settings), norm, X, case, TOLERANCE[dtype]


def _net(learner, hidden_dims, num_classes=3, normalization=None, dtype="float64", input_dim=6, **settings):
    """A FullyConnectedNet, and its parameters, which are random, biases and gamma too."""
    settings |= {"hidden_dims": hidden_dims, "normalization": normalization, "dtype": dtype}
    net = learner.fully_connected_net.FullyConnectedNet(input_dim=input_dim, num_classes=num_classes, **settings)
    shapes = {}
    for i, (D, M) in enumerate(pairwise([input_dim, *hidden_dims, num_classes]), start=1):
        scales = {f"gamma{i}": (M,), f"beta{i}": (M,)} if normalization and i <= len(hidden_dims) else {}
        shapes |= {f"W{i}": (D, M), f"b{i}": (M,), **scales}
    check_initial_params(net, shapes, dtype, 1e-2)
    params = {name: (draw(learner, shape) + name.startswith("gamma")).astype(dtype) for name, shape in shapes.items()}
    _set_params(net, params)
    return net, params


def _set_params(net, params):
    for name, array in params.items():
        net.set(f"params.{name}", array)


def _set_bn_params(learner, net, params, norm, mode):
    """Give each normalization layer its dict, with random running statistics.  Returns the dicts."""
    widths = [len(params[name]) for name in params if name.startswith("gamma")]
    bn_params = [{"mode": mode} for _ in widths]
    for bn_param, width in zip(bn_params, widths, strict=True):
        if norm == "batchnorm":
            bn_param["running_mean"], bn_param["running_var"] = learner.rng.uniform(0.5, 2, (2, width))
    net.set("bn_params", bn_params)
    return bn_params


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
        before = _set_bn_params(learner, net, params, norm, "train")
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
        statistics = _set_bn_params(learner, net, params, norm, "test")
        wanted = _torch_net(torch.tensor(X), _leaves(params), norm, statistics).detach().numpy()
        scores, _ = forward(net._forward, X, "test")
        expect("scores", scores, wanted, case=f"{case}, test mode", tol=tol)


def net_backward(learner):
    for net, params, norm, X, case, tol in _nets(learner):
        _set_bn_params(learner, net, params, norm, "train")
        _check_grads_of_net(learner, net, params, norm, X, case, tol)
    net, params = _net(learner, **LARGE_NET)
    X = learner.rng.standard_normal((200, LARGE_NET["input_dim"]))
    _check_grads_of_net(learner, net, params, None, X, f"X {X.shape}, {LARGE_NET}", TOLERANCE["float64"])


def _check_grads_of_net(learner, net, params, norm, X, case, tol):
    _, caches = forward(net._forward, X, "train")
    leaves = _leaves(params)
    out = _torch_net(torch.tensor(X), leaves, norm)
    dscores = learner.rng.standard_normal(out.shape).astype(X.dtype)
    gradients = torch.autograd.grad(out, list(leaves.values()), torch.tensor(dscores))
    wanted = {name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)}
    check_grads(net._backward(dscores, caches), wanted, case=case, tol=tol)


WIDTH, KEPT = 20, 0.8  # of both hidden layers; the probability of keeping a unit
CODE = 2.0 ** np.arange(WIDTH)


def net_dropout(learner):
    settings = {"hidden_dims": [WIDTH, WIDTH], "num_classes": WIDTH, "dropout": KEPT, "seed": 1}
    net, params = _net(learner, **settings)
    case = f"dropout={KEPT}, two hidden layers"
    _check_whole(net, case)
    masks = _masks(net, case)
    again = _masks(net, case)
    same = all(map(np.array_equal, masks, again))
    text = "seed: with the same seed, a second call drew other masks"
    require(same, text, "each call makes its generator from the seed again")
    _check_masked(learner, net, params, masks, case)
    _check_seeds(net, masks, case)


def _set_layers(net, *layers):
    for i, (W, b) in enumerate(layers, start=1):
        net.set(f"params.W{i}", W)
        net.set(f"params.b{i}", np.full(WIDTH, float(b)))


def _check_whole(net, case):
    """Check that nothing is dropped in test mode, and that both layers have dropout in training."""
    X, whole = np.ones((100, 6)), np.full((100, WIDTH), 2.0)
    _set_layers(net, (np.zeros((6, WIDTH)), 1), (np.eye(WIDTH), 1), (np.eye(WIDTH), 0))
    expect("scores", forward(net._forward, X, "test")[0], whole, case=f"{case}, test mode: nothing is dropped")
    scores = fitting("scores", forward(net._forward, X, "train")[0], whole.shape, float, case)
    kept, once = scores != 0, 1 / KEPT
    share, (low, high) = kept.mean(), (once, (once + 1) * once)
    require(
        not kept.all(),
        f"scores: nothing is dropped (with {case})",
        "in training, dropout comes after each hidden layer",
    )
    likely = "dropout is the probability of KEEPING a unit" if abs(share - 1 + KEPT) < 0.06 else ""
    require(
        abs(share - KEPT) < 0.06,
        f"a fraction of {share:.3f} of the units is kept, expected {KEPT} (with {case})",
        likely,
    )
    both = scores > (low + high) / 2 if (scores > (low + high) / 2).any() else kept
    mistakes = {"each hidden layer has dropout, after its ReLU": np.where(kept, 2 * once, 0)}
    expect("scores", scores, np.where(kept, np.where(both, high, low), 0), mistakes, case)
    share = both.sum() / kept.sum()
    require(share < 1, "all layers draw the same mask", "each layer takes the seed: give them one generator")


def _masks(net, case):
    """The masks (100, WIDTH) of both layers in training: the second layer writes the first one's, in binary."""
    X = np.ones((100, 6))
    _set_layers(net, (np.zeros((6, WIDTH)), 1), (np.tile(CODE[:, None], WIDTH), 1), (np.eye(WIDTH), 0))
    scores = fitting("scores", forward(net._forward, X, "train")[0], (100, WIDTH), float, case)
    kept = scores != 0
    code = np.clip(np.nan_to_num(scores.max(axis=1, keepdims=True) * KEPT - 1), 0, 2.0**40) * KEPT
    first = (np.rint(code).astype(int) >> np.arange(WIDTH)) % 2 == 1
    wanted = np.where(kept, (first @ CODE[:, None] / KEPT + 1) / KEPT, 0)
    expect("scores", scores, wanted, case=f"{case}, W2 of powers of 2")
    for i, mask in enumerate((first, kept), start=1):
        share = mask.mean()
        require(abs(share - KEPT) < 0.06, f"layer {i} keeps a fraction of {share:.3f} of its units, expected {KEPT}")
    return first, kept


def _check_masked(learner, net, params, masks, case):
    """Check scores and gradients, with other parameters and examples, and the masks that the net draws for its seed."""
    _set_params(net, params)
    X, dscores = draw(learner, (100, 6)), draw(learner, (100, WIDTH))
    scores, caches = forward(net._forward, X, "train")
    leaves = _leaves(params)
    wanted = _masked(torch.tensor(X), leaves, masks)
    expect("scores", scores, wanted.detach(), case=case)
    right, unmasked = (
        dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), torch.tensor(dscores)), strict=True))
        for out in (wanted, _masked(torch.tensor(X), leaves, masks, backward=False))
    )
    mistakes = {"backward uses the masks of forward, scaled by 1 / p": unmasked}
    check_grads(net._backward(dscores, caches), right, mistakes, case)


def _masked(h, params, masks, backward=True):
    """The scores of the net of `net_dropout`.  backward: False for gradients that know nothing of the masks."""
    for i, mask in enumerate(masks, start=1):
        h = F.relu(F.linear(h, params[f"W{i}"].T, params[f"b{i}"]))
        dropped = h * torch.tensor(mask) / KEPT
        h = dropped if backward else h + (dropped - h).detach()
    return F.linear(h, params["W3"].T, params["b3"])


def _check_seeds(net, masks, case):
    net.reseed([3, 1, 4])
    other = _masks(net, case)
    require(
        not np.array_equal(masks[0], other[0]),
        "reseed: another seed gave the same masks",
        "the generator of the masks is made from the net's seed in each call",
    )
    net.reseed(None)
    first, second = (_masks(net, case) for _ in range(2))
    require(
        not np.array_equal(first[0], second[0]),
        "seed: with None, two calls drew the same masks",
        "without a seed, each call draws from fresh entropy",
    )
