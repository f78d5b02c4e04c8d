"""Checks of exercises 1.6 and 1.7: the loss of a net, and the fully connected net."""

from functools import partial

import numpy as np

from grading.checks.common import TOLERANCE, check_grads, draw, forward
from grading.checks.nets import check_grads_of_net, draw_net, leaves, torch_net
from grading.expect import expect, require, several
from grading.oracle import F, torch

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
LARGE_NET = {"hidden_dims": [250, 200], "num_classes": 10, "input_dim": 200}
FORWARD = "the output of hidden layer i goes through _dropout_forward, which takes it, i and the mode"
BACKWARD = "dh goes through _dropout_backward before it goes through the hidden layer"


def net_forward(learner):
    for net, params, X, case, tol in _nets(learner):
        wanted = torch_net(torch.tensor(X), leaves(params)).detach()
        mistakes = {"the last layer is only affine, without ReLU": F.relu(wanted)}
        for mode in ("train", "test"):
            expect("scores", forward(net._forward, X, mode)[0], wanted, mistakes, case, tol)
    net, params, X, case = _net_with_factors(learner)
    for mode, scale in (("train", _scaled), ("test", _unscaled)):
        wanted, without = (torch_net(torch.tensor(X), leaves(params), dropout=f).detach() for f in (scale, _unscaled))
        expect("scores", forward(net._forward, X, mode)[0], wanted, {FORWARD: without}, f"{case}, {mode} mode")


def net_backward(learner):
    for net, params, X, case, tol in _nets(learner):
        check_grads_of_net(learner, net, params, X, case, tol)
    net, params = draw_net(learner, **LARGE_NET)
    X = draw(learner, (200, LARGE_NET["input_dim"]))
    check_grads_of_net(learner, net, params, X, f"X {X.shape}, {LARGE_NET}", TOLERANCE["float64"])
    net, params, X, case = _net_with_factors(learner)
    right, half = partial(torch_net, dropout=_scaled), partial(torch_net, dropout=_scaled_in_forward)
    likely = {FORWARD: torch_net, BACKWARD: half}
    check_grads_of_net(learner, net, params, X, case, TOLERANCE["float64"], right, likely)


def _nets(learner):
    """Nets with random parameters, their X, a description, and the tolerance."""
    for hidden_dims in HIDDEN_DIMS:
        for dtype, tol in TOLERANCE.items():
            X = draw(learner, (5, 2, 3), dtype)
            yield *draw_net(learner, hidden_dims, dtype=dtype), X, f"hidden_dims={hidden_dims}, dtype={dtype!r}", tol


def _net_with_factors(learner):
    """A net that multiplies by known factors where it would have dropout, its params, an X, and a description."""
    learner.drivers.put_factors_in_place_of_dropout()
    return *draw_net(learner, [5, 4]), draw(learner, (5, 6)), "hidden_dims=[5, 4], and a known factor for each mask"


def _scaled(h, i):
    """What the net of `_net_with_factors` does to the output h of hidden layer i in training."""
    return h * (i + 1)


def _scaled_in_forward(h, i):
    """The same, with gradients that know nothing of it."""
    return h + (h * i).detach()


def _unscaled(h, i):
    return h
