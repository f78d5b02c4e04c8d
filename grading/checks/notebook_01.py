"""Checks of the exercises of notebook 01, fully connected nets."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F

from grading.expect import Wrong, expect, require, several
from grading.session import Failed

FLOATS = {np.float64: 1e-6, np.float32: 1e-4}  # dtypes, and how near a result has to come
AFFINE = [((4, 2, 3), 5), ((1, 3), 4), ((3, 2), 2), ((2, 1, 2, 3), 1)]  # shapes of x, and M
MEAN = "the loss has divided by N already: gradients are sums over the batch, not means"


def _forward(function, *args):
    """out and the cache of a layer, or scores and the caches of a net."""
    return several("forward", function(*args), "out, cache")


def _gradients(function, arrays, dout):
    """The gradients of sum(function(*arrays) * dout), by autograd."""
    leaves = [torch.tensor(array).requires_grad_() for array in arrays]
    gradients = torch.autograd.grad(function(*leaves), leaves, torch.tensor(dout))
    return [gradient.numpy() for gradient in gradients]


def _affine(x, w, b):
    return F.linear(x.flatten(1), w.T, b)


def _affine_cases(solution):
    """x, w, b and dout, words for them, and the tolerance."""
    for shape, M in AFFINE:
        for dtype, tol in FLOATS.items():
            shapes = shape, (int(np.prod(shape[1:])), M), (M,), (shape[0], M)
            arrays = [solution.rng.standard_normal(s).astype(dtype) for s in shapes]
            yield arrays, f"{np.dtype(dtype)}, x {shape} and w {shapes[1]}", tol


def affine_forward(solution):
    for (x, w, b, _), case, tol in _affine_cases(solution):
        out, _ = _forward(solution.layers.affine_forward, x, w, b)
        wanted = _affine(*map(torch.tensor, (x, w, b))).numpy()
        expect("out", out, wanted, {"b is missing": wanted - b, "b is subtracted": wanted - 2 * b}, case, tol)


def affine_backward(solution):
    layers = solution.layers
    cases = list(_affine_cases(solution))
    caches = [_forward(layers.affine_forward, x, w, b)[1] for (x, w, b, _), _, _ in cases]
    for ((x, w, b, dout), case, tol), cache in zip(cases, caches, strict=True):
        dx, dw, db = _gradients(_affine, (x, w, b), dout)
        grads = several("affine_backward", layers.affine_backward(dout, cache), "dx, dw, db")
        expect("dx", grads[0], dx, {"dx has to get the shape of x": dx.reshape(len(x), -1)}, case, tol)
        expect("dw", grads[1], dw, {MEAN: dw / len(x), "dw is transposed": dw.T}, case, tol)
        expect("db", grads[2], db, {MEAN: db / len(x), "b's gradient is a sum over the batch": dout}, case, tol)
        _check_without_dx(layers.affine_backward, dout, cache, (dw, db), tol)


def _check_without_dx(backward, dout, cache, others, tol=1e-6):
    grads = several("need_dx=False", backward(dout, cache, need_dx=False), "None, dw, db")
    require(grads[0] is None, "dx: expected None with need_dx=False")
    for name, got, wanted in zip(("dw", "db"), grads[1:], others, strict=True):
        expect(name, got, wanted, case="need_dx=False", tol=tol)


def _relu_cases(solution):
    """x, with zeros in it, and dout."""
    for shape in [(4, 5), (1, 7), (6,), (2, 3, 2, 2)]:
        for dtype in FLOATS:
            x, dout = solution.rng.standard_normal((2, *shape)).astype(dtype)
            x.flat[:: x.size // 2] = 0
            yield x, dout, f"{x.dtype}, x {shape}"


def relu_forward(solution):
    for x, _, case in _relu_cases(solution):
        out, _ = _forward(solution.layers.relu_forward, x)
        mistakes = {"that is the absolute value": np.abs(x), "the minimum in place of the maximum": np.minimum(x, 0)}
        expect("out", out, F.relu(torch.tensor(x)).numpy(), mistakes, case)


def relu_backward(solution):
    for x, dout, case in _relu_cases(solution):
        _, cache = _forward(solution.layers.relu_forward, x)
        (dx,) = _gradients(F.relu, [x], dout)
        mistakes = {
            "at x = 0 the gradient is 0 by convention": np.where(x < 0, 0, dout),
            "the sign of x decides, not that of dout": F.relu(torch.tensor(dout)),
            "dout is missing: by the chain rule it multiplies the slope": x > 0,
            "the gradient passes where x > 0": np.where(x > 0, 0, dout),
        }
        expect("dx", solution.layers.relu_backward(dout, cache), dx, mistakes, case)


def _score_cases(solution):
    """Scores x and labels y of losses."""
    for N, C in [(5, 4), (1, 3), (4, 2), (3, 7)]:
        for dtype, tol in FLOATS.items():
            x, y = 2 * solution.rng.standard_normal((N, C)), solution.rng.integers(C, size=N)
            yield x.astype(dtype), y, f"{np.dtype(dtype)}, x {(N, C)}", tol


def _large_cases(solution):
    """Scores whose exp overflows, or comes to 0 in one row or for the true class; and what it takes to stand them."""
    x, y = solution.rng.standard_normal((4, 3)), solution.rng.integers(3, size=4)
    shift = "exp overflows, or all of it rounds to 0: shift each row by its own maximum"
    yield x + 1000, y, "scores of about 1000", shift
    yield x - 1000, y, "scores of about -1000", shift
    yield x + np.array([[800], [-800], [0], [10]]), y, "rows of about 800, -800, 0 and 10", shift
    lost = "a probability has been rounded to 0 before its log is taken: take the log of the sum of exp alone"
    x, y = np.array([[0.0, 900, 1], [3, 2, 1]]), np.array([0, 2])
    yield x, y, "a score 900 below the largest for the true class", lost


def _loss(function, x, y):
    return several("the loss function", function(x, y), "the loss, dx")


def _value_and_gradient(loss, x, y):
    """The value of a torch loss of scores, and its gradient."""
    scores = torch.tensor(x).requires_grad_()
    value = loss(scores, torch.tensor(y))
    return value.item(), torch.autograd.grad(value, scores)[0].numpy()


def softmax_value(solution):
    for x, y, case, tol in _score_cases(solution):
        wanted, _ = _value_and_gradient(F.cross_entropy, x, y)
        mistakes = {
            "a mean over the batch, not a sum": wanted * len(x),
            "the sign: the loss is minus the log of a probability": -wanted,
            "a mean over the N examples alone, not over the N * C scores": wanted / x.shape[1],
            "the log is the natural one": wanted / np.log(2),
            "only the true class's log counts": -F.log_softmax(torch.tensor(x), 1).sum() / len(x),
        }
        expect("loss", _loss(solution.layers.softmax_loss, x, y)[0], wanted, mistakes, case, tol)
    for x, y, case, likely in _large_cases(solution):
        wanted, _ = _value_and_gradient(F.cross_entropy, x, y)
        loss, _ = _loss(solution.layers.softmax_loss, x, y)
        require(np.isfinite(loss), f"loss is {loss}, expected {wanted:.6g} (with {case}). Likely mistake: {likely}")
        expect("loss", loss, wanted, case=case)


def softmax_gradient(solution):
    for x, y, case, tol in _score_cases(solution):
        _, dx = _value_and_gradient(F.cross_entropy, x, y)
        onehot = F.one_hot(torch.tensor(y), x.shape[1]).numpy()
        mistakes = {
            "the loss is a mean, so dx is divided by N": dx * len(x),
            "1 is subtracted at the true class": dx + onehot / len(x),
            "1 is subtracted at the true class alone, after which N divides": dx + onehot / len(x) - onehot,
            "the sign": -dx,
        }
        expect("dx", _loss(solution.layers.softmax_loss, x, y)[1], dx, mistakes, case, tol)
    for x, y, case, _ in _large_cases(solution):
        _, dx = _value_and_gradient(F.cross_entropy, x, y)
        expect("dx", _loss(solution.layers.softmax_loss, x, y)[1], dx, case=case)


def _hinge(scores, y):
    """multi_margin_loss divides by the number of classes, too."""
    return F.multi_margin_loss(scores, y) * scores.shape[1]


def svm_value(solution):
    for x, y, case, tol in _score_cases(solution):
        wanted, _ = _value_and_gradient(_hinge, x, y)
        turned, _ = _value_and_gradient(_hinge, -x, y)
        mistakes = {
            "the true class has no margin of its own": wanted + 1,
            "a mean over the batch, not a sum": wanted * len(x),
            "a mean over the N examples alone, not over the N * C margins": wanted / x.shape[1],
            "the margin's sign: x_ij - x_{i, y_i} + 1": turned,
        }
        expect("loss", _loss(solution.layers.svm_loss, x, y)[0], wanted, mistakes, case, tol)


def svm_gradient(solution):
    for x, y, case, tol in _score_cases(solution):
        _, dx = _value_and_gradient(_hinge, x, y)
        true, once = F.one_hot(torch.tensor(y), x.shape[1]).numpy().astype(bool), np.sign(dx) / len(x)
        mistakes = {
            "the loss is a mean, so dx is divided by N": dx * len(x),
            "each violated margin pulls at the true class's score, too": np.where(true, 0, dx),
            "the true class's score is in as many terms as margins are violated": np.where(true, once, dx),
            "the sign at the true class": np.where(true, -dx, dx),
        }
        expect("dx", _loss(solution.layers.svm_loss, x, y)[1], dx, mistakes, case, tol)


def _affine_relu(x, w, b):
    return F.relu(_affine(x, w, b))


def affine_relu_forward(solution):
    for (x, w, b, _), case, tol in _affine_cases(solution):
        out, _ = _forward(solution.layer_utils.affine_relu_forward, x, w, b)
        x, w, b = map(torch.tensor, (x, w, b))
        a, early = _affine(x, w, b), _affine(F.relu(x), w, b)
        mistakes = {"ReLU is missing": a, "ReLU comes after the affine layer": early}
        expect("out", out, F.relu(a).numpy(), mistakes, case, tol)


def affine_relu_backward(solution):
    utils = solution.layer_utils
    for (x, w, b, dout), case, tol in _affine_cases(solution):
        _, cache = _forward(utils.affine_relu_forward, x, w, b)
        wanted, without_relu = _gradients(_affine_relu, (x, w, b), dout), _gradients(_affine, (x, w, b), dout)
        grads = several("affine_relu_backward", utils.affine_relu_backward(dout, cache), "dx, dw, db")
        for name, got, right, wrong in zip(("dx", "dw", "db"), grads, wanted, without_relu, strict=True):
            expect(name, got, right, {"dout goes through ReLU's backward first": wrong}, case, tol)
        _check_without_dx(utils.affine_relu_backward, dout, cache, wanted[1:], tol)


def _small_net(solution, reg, dtype):
    """A net of drivers.small_net, its parameters, X and y."""
    shapes = {"W1": (4, 5), "b1": (5,), "gamma1": (5,), "beta1": (5,), "W2": (5, 3)}
    params = {name: solution.rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    net = solution.drivers.small_net(reg, np.dtype(dtype).name, params)
    return net, params, solution.rng.standard_normal((6, 4)), solution.rng.integers(3, size=6)


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
    """Check what `_forward` was asked."""
    asked, when = net.get("asked"), "without y" if mode == "test" else "with y"
    require(asked["mode"] == mode, f"mode: _forward got {asked['mode']!r} {when}, expected {mode!r}")
    require(set(asked["bn"]) == {mode}, f"bn_params: each one's mode has to be {mode!r} {when}, got {asked['bn']}")
    require(asked["dtype"] == np.dtype(dtype).name, f"X: _forward got {asked['dtype']}, expected the net's own dtype")


def net_loss(solution):
    for dtype, tol in FLOATS.items():
        net, params, X, y = _small_net(solution, 0.0, dtype)
        scores = _net_scores(X, {name: torch.tensor(array) for name, array in params.items()}).numpy()
        expect("scores", net.loss(X), scores, case="y=None", tol=tol)
        _asked(net, "test", dtype)
        loss, grads = several("loss", net.loss(X, y), "the loss, grads")
        _asked(net, "train", dtype)
        value, wanted = _net_loss(X, y, params, 0.0)
        expect("loss", loss, value, case="reg=0", tol=tol)
        _check_grads(grads, wanted, case="reg=0", tol=tol)
        net.loss(X)
        _asked(net, "test", dtype)


def _check_grads(grads, wanted, mistakes=None, case="", tol=1e-6):
    """mistakes: by the words, gradients by name."""
    require(isinstance(grads, dict), f"grads: expected a dict, got {type(grads).__name__}")
    names = sorted(grads), sorted(wanted)
    require(names[0] == names[1], f"grads has the keys {names[0]}, expected those of params, {names[1]}")
    for name, right in wanted.items():
        likely = {words: wrong[name] for words, wrong in (mistakes or {}).items()}
        expect(f"grads[{name!r}]", grads[name], right, likely, case, tol)


def l2_penalty(solution):
    for reg in (0.3, 2.0):
        for dtype, tol in FLOATS.items():
            net, params, X, y = _small_net(solution, reg, dtype)
            (value, wanted), (bare, without) = (_net_loss(X, y, params, strength) for strength in (reg, 0.0))
            penalty, case = value - bare, f"reg={reg}"
            every = bare + reg / 2 * sum(np.square(array).sum() for array in params.values())
            mistakes = {
                "0.5 is missing from the penalty": bare + 2 * penalty,
                "the penalty is missing": bare,
                "the penalty is on all parameters, but belongs on the weights alone": every,
                "the penalty is on W1 alone": bare + reg / 2 * np.square(params["W1"]).sum(),
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
            _check_grads(grads, wanted, mistakes, case, tol)


HIDDEN_DIMS = [[], [5], [6, 6, 6], [5, 4]]
NORMS = [(None, np.float32), (None, np.float64), ("batchnorm", np.float64), ("layernorm", np.float64)]


def _nets(solution):
    """Nets with random parameters, their X, words for them, and the tolerance."""
    for hidden_dims in HIDDEN_DIMS:
        for norm, dtype in NORMS:
            settings = {"hidden_dims": hidden_dims, "normalization": norm, "dtype": np.dtype(dtype).name}
            X = solution.rng.standard_normal((5, 2, 3)).astype(dtype)
            case = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            yield *_net(solution, **settings), norm, X, case, FLOATS[dtype]


def _net(solution, hidden_dims, num_classes=3, normalization=None, dtype="float64", **settings):
    """A FullyConnectedNet of 6 inputs, and its parameters, which are random, biases and gamma too."""
    settings |= {"hidden_dims": hidden_dims, "normalization": normalization, "dtype": dtype}
    net = solution.fully_connected_net.FullyConnectedNet(input_dim=6, num_classes=num_classes, **settings)
    params = {}
    for i, (D, M) in enumerate(pairwise([6, *hidden_dims, num_classes]), start=1):
        scales = {f"gamma{i}": (M,), f"beta{i}": (M,)} if normalization and i <= len(hidden_dims) else {}
        for name, shape in {f"W{i}": (D, M), f"b{i}": (M,), **scales}.items():
            params[name] = (solution.rng.standard_normal(shape) + name.startswith("gamma")).astype(dtype)
            net.set(f"params.{name}", params[name])
    return net, params


def _set_mode(net, mode):
    for i in range(len(net.get("bn_params"))):
        net.set(f"bn_params.{i}.mode", mode)


def _torch_net(X, params, norm, statistics=None, means=None):
    """Scores.  statistics: those of batch norm, in test mode.  means: a list that gets those of the batches."""
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


def net_forward(solution):
    for net, params, norm, X, case, tol in _nets(solution):
        means = []
        _set_mode(net, "train")
        before = net.get("bn_params")
        wanted = _torch_net(torch.tensor(X), _leaves(params), norm, means=means).detach()
        scores, _ = _forward(net._forward, X, "train")
        mistakes = {"the last layer is affine alone, without ReLU": F.relu(wanted)}
        expect("scores", scores, wanted.numpy(), mistakes, case, tol)
        for i, mean in reversed(list(enumerate(means))):
            name, old = "running_mean", before[i]["running_mean"]
            mistakes = {"layer i takes bn_params[i - 1], and batch norm writes to it": old}
            expect(
                f"bn_params[{i}][{name!r}]", net.get(f"bn_params.{i}.{name}"), 0.9 * old + 0.1 * mean, mistakes, case
            )
        _set_mode(net, "test")
        wanted = _torch_net(torch.tensor(X), _leaves(params), norm, net.get("bn_params")).detach().numpy()
        scores, _ = _forward(net._forward, X, "test")
        expect("scores", scores, wanted, case=f"{case}, test mode", tol=tol)


def net_backward(solution):
    for net, params, norm, X, case, tol in _nets(solution):
        _set_mode(net, "train")
        _, caches = _forward(net._forward, X, "train")
        leaves = _leaves(params)
        out = _torch_net(torch.tensor(X), leaves, norm)
        dscores = solution.rng.standard_normal(out.shape).astype(X.dtype)
        gradients = torch.autograd.grad(out, list(leaves.values()), torch.tensor(dscores))
        wanted = {name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)}
        _check_grads(net._backward(dscores, caches), wanted, case=case, tol=tol)


def net_dropout(solution):
    p, width = 0.8, 20
    settings = {"hidden_dims": [width, width], "num_classes": width, "dropout": p, "dtype": "float64", "seed": 1}
    (net, _), X = _net(solution, **settings), np.ones((100, 6))
    # Layer 1's units are 1; layer 2's are 1 more than layer 1's, and are the scores.
    for i, W in enumerate([np.zeros((6, width)), np.eye(width), np.eye(width)], start=1):
        net.set(f"params.W{i}", W)
        net.set(f"params.b{i}", np.full(width, float(i < 3)))
    whole, case = np.full((100, width), 2.0), f"dropout={p}, two hidden layers"
    expect("scores", _forward(net._forward, X, "test")[0], whole, case=f"{case}, test mode: nothing is dropped")
    scores = _forward(net._forward, X, "train")[0]
    require(np.shape(scores) == whole.shape, f"scores has the shape {np.shape(scores)}, expected {whole.shape}")
    _check_masks(scores, p, case)
    _check_seeds(net, X, scores)
    _check_slopes(solution, p)


def _check_masks(scores, p, case):
    """Two layers of dropout must have made 0, 1 / p or (1 / p + 1) / p of 2."""
    kept = scores != 0
    share = kept.mean()
    require(not kept.all(), f"scores: nothing is dropped (with {case})")
    likely = ". Likely mistake: dropout is the probability of KEEPING a unit" if abs(share - 1 + p) < 0.06 else ""
    require(abs(share - p) < 0.06, f"the share of units kept is {share:.3f}, expected {p} (with {case}){likely}")
    both = scores > (1.5 / p if (scores > 1.5 / p).any() else 0)
    wanted = np.where(kept, np.where(both, 1 / p + 1, 1) / p, 0)
    mistakes = {"each hidden layer has dropout, behind its ReLU": np.where(kept, 2 / p, 0)}
    expect("scores", scores, wanted, mistakes, case)
    share = both.sum() / kept.sum()
    require(share < 1, "all layers draw the same mask. Likely mistake: each takes the seed; give them one generator")
    require(abs(share - p) < 0.07, f"where layer 2 keeps a unit, layer 1 keeps a share of {share:.3f}, expected {p}")


def _check_seeds(net, X, scores):
    again = _forward(net._forward, X, "train")[0]
    require(np.array_equal(scores, again), "seed: with the same seed, a second call has to draw the same masks")
    net.reseed([3, 1, 4])
    other = _forward(net._forward, X, "train")[0]
    require(not np.array_equal(scores, other), "reseed: another seed has to give other masks")
    net.reseed(None)
    first, second = (_forward(net._forward, X, "train")[0] for _ in range(2))
    require(not np.array_equal(first, second), "seed: with None, each call has to draw masks afresh")


def _check_slopes(solution, p):
    """All units are positive, so that scores are linear in each parameter, and a step of any length tells the slope."""
    rng = solution.rng
    net, params = _net(solution, hidden_dims=[7, 5], dropout=p, seed=2)
    params = {name: rng.uniform(0.1, 1, array.shape) for name, array in params.items()}
    for name, array in params.items():
        net.set(f"params.{name}", array)
    X = rng.uniform(0.1, 1, (8, 6))
    scores, caches = _forward(net._forward, X, "train")
    dscores = rng.standard_normal(scores.shape)
    grads = net._backward(dscores, caches)
    require(isinstance(grads, dict) and grads.keys() == params.keys(), "grads: expected a dict with the keys of params")
    for name, array in params.items():
        direction = rng.uniform(0.1, 1, array.shape)
        net.set(f"params.{name}", array + direction)
        slope = np.sum(dscores * (_forward(net._forward, X, "train")[0] - scores))
        net.set(f"params.{name}", array)
        shape = np.shape(grads[name])
        require(shape == array.shape, f"grads[{name!r}] has the shape {shape}, expected {array.shape}")
        masks = f"dropout={p}; the masks of forward, which 1 / p scales, belong into backward"
        expect(f"the slope along grads[{name!r}]", np.sum(grads[name] * direction), slope, case=masks)


N_TRAIN, N_VAL, BATCH = 23, 6, 5  # 4 batches in an epoch, and 3 examples left over
SHAPES = {"W1": (2, 3), "b1": (3,), "gamma1": (1,)}


def _data(solution):
    """Examples that X[:, 0] numbers: training from 0, validation from 1000."""
    rng, data = solution.rng, {}
    for split, first, number in (("train", 0, N_TRAIN), ("val", 1000, N_VAL)):
        data[f"X_{split}"] = np.stack([first + np.arange(number), rng.standard_normal(number)], 1)
        data[f"y_{split}"] = rng.integers(3, size=number)
    return data


def _params(solution):
    return {name: solution.rng.standard_normal(shape) for name, shape in SHAPES.items()}


def _solver(solution, steps=0, kind="ReseededModel", data=None, bn_params=(), **settings):
    """A Solver, its model, which has answers for so many steps, and these answers."""
    model = getattr(solution.drivers, kind)(_params(solution), bn_params)
    losses = [float(loss) for loss in solution.rng.uniform(1, 2, steps)]
    gradients = [dict(reversed(_params(solution).items())) for _ in range(steps)]
    model.set("losses", losses)
    model.set("gradients", gradients)
    solution.drivers.add_counting_rule()
    settings = {"batch_size": BATCH, "verbose": False, "seed": 1, **settings}
    solver = solution.trainer.Solver(model=model, data=data or _data(solution), **settings)
    return solver, model, losses, gradients


def solver_step(solution):
    for rule in ("counting", "sgd"):
        _check_updates(solution, rule)
    _check_batches(solution)
    _check_not_finite(solution)


def _check_updates(solution, rule, steps=3, rate=0.2):
    config = {"learning_rate": rate}
    solver, model, losses, gradients = _solver(solution, steps, update_rule=rule, optim_config=config)
    wanted, own = model.get("params"), "each parameter has a config of its own in optim_configs, kept from step to step"
    for t in range(steps):
        solver._step()
        factor = rate * (t + 1 if rule == "counting" else 1)
        case = f"the rule {rule}, step {t + 1}" + (f"; {own}" if rule == "counting" else "")
        require(solver.get("step") == t + 1, f"step is {solver.get('step')} after {t + 1} steps")
        params = model.get("params")
        require(params.keys() == wanted.keys(), f"params has the keys {sorted(params)}, expected {sorted(wanted)}")
        for name, w in wanted.items():
            dw = gradients[t][name]
            mistakes = {"the gradient points uphill": w + factor * dw, "the rule's next w is not put into params": w}
            expect(f"params[{name!r}]", params[name], w - factor * dw, mistakes, case)
            wanted[name] = w - factor * dw
    history = solver.get("loss_history")
    require(isinstance(history, list) and len(history) == steps, f"loss_history: expected a list of {steps} losses")
    expect("loss_history", np.array(history, float), np.array(losses))


def _check_batches(solution):
    """Of each step: how many examples, their labels and the seed of their dropout."""
    data, seeds = _data(solution), []
    for _ in range(2):
        solver, model, *_ = _solver(solution, 6, data=data)
        for _ in range(6):
            solver._step()
        trained = model.get("trained")
        require(len(trained) == 6, f"model.loss was called {len(trained)} times with y in 6 steps, expected 6")
        for batch in trained:
            size = len(batch["numbers"])
            require(size == BATCH, f"a batch has {size} examples, expected batch_size={BATCH}")
            mixed = {"X and y are of different examples": batch["y"]}
            expect("y of a batch", batch["y"], data["y_train"][batch["numbers"]], mixed)
        seeds.append([batch["seed"] for batch in trained])
    require(not {"none yet", "None"} & set(seeds[0]), "reseed: call the model's, with a seed, before its loss")
    require(len(set(seeds[0])) == 6, "reseed: each step has to bring a fresh seed")
    require(seeds[0] == seeds[1], "seed: two solvers with the same one need the same seeds for their models' dropout")
    solver, *_ = _solver(solution, 1, "Model")  # a model without reseed
    solver._step()


def _check_not_finite(solution):
    for name, hint in (("losses", "the loss"), ("gradients", "a parameter")):
        for bad in (np.nan, np.inf):
            solver, model, _, gradients = _solver(solution, 1)
            gradients[0]["b1"][1] = bad
            model.set(name, [float(bad)] if name == "losses" else gradients)
            _raises_floating_point_error(f"{hint} that is {bad}", solver._step)


def _raises_floating_point_error(name, call):
    try:
        call()
    except Failed as error:
        if error.kind != "FloatingPointError":
            raise
        return
    raise Wrong(f"{name}: expected a FloatingPointError, and none was raised; _require_finite raises it")


def solver_epoch(solution):
    per_epoch = N_TRAIN // BATCH
    epochs = _epochs(solution, 3, seed=1)
    for e, batches in enumerate(epochs, start=1):
        case = f"epoch {e} of {per_epoch} batches"
        require(all(len(batch) == BATCH for batch in batches), f"{case}: a batch has not {BATCH} examples")
        drawn = np.concatenate(batches)
        twice = "an epoch goes through one shuffle, without replacement"
        require(len(set(drawn.tolist())) == len(drawn), f"{case}: examples come twice. Likely mistake: {twice}")
        require(not np.array_equal(np.sort(drawn), drawn), f"{case}: the examples are not shuffled")
    for before, after in pairwise(epochs):
        require(not np.array_equal(before, after), "each epoch needs a fresh shuffle: two had the same batches")
    left_out = [frozenset(range(N_TRAIN)) - set(np.ravel(batches).tolist()) for batches in _epochs(solution, 6, seed=2)]
    require(len(set(left_out)) > 1, "the examples that an epoch leaves out have to be others in the next")
    again = _epochs(solution, 3, seed=1)
    require(np.array_equal(epochs, again), "seed: two solvers with the same one need the same batches")
    require(not np.array_equal(epochs, _epochs(solution, 3, seed=7)), "seed: another one has to give other batches")
    _check_resumed(solution, epochs[0][2])


def _check_resumed(solution, third_batch):
    """A Solver that `resume` has made stands in the middle of an epoch, with no shuffle drawn yet."""
    solver, model, *_ = _solver(solution, 1, seed=1)
    solver.set("step", 2)
    solver._step()
    (trained,) = model.get("trained")
    same = np.array_equal(trained["numbers"], third_batch)
    require(same, "a Solver that is resumed in the middle of an epoch has to go on with that epoch's shuffle")


def _epochs(solution, number, seed):
    """The numbers of the examples of each batch of each epoch."""
    steps = number * (N_TRAIN // BATCH)
    solver, model, *_ = _solver(solution, steps, seed=seed)
    for _ in range(steps):
        solver._step()
    trained = [batch["numbers"] for batch in model.get("trained")]
    require(len(trained) == steps, f"model.loss was called {len(trained)} times with y in {steps} steps")
    return [trained[i : i + N_TRAIN // BATCH] for i in range(0, steps, N_TRAIN // BATCH)]


def accuracy(solution):
    solver, model, *_ = _solver(solution)
    N = 11
    X, y = np.stack([np.arange(N), np.zeros(N)], 1), solution.rng.integers(3, size=N)
    scores = solution.rng.standard_normal((N, 3)) + 2 * np.eye(3)[y] * (np.arange(N) % 3 > 0)[:, None]
    right = scores.argmax(1) == y
    model.set("scores", scores)
    for batch_size in (500, N, 4, 1):
        model.set("measured", [])
        got = solver.check_accuracy(X, y, batch_size=batch_size)
        mistakes = {
            "a number from 0 to 1, not a count": right.sum(),
            "a number from 0 to 1, not percent": 100 * right.mean(),
            "that is the share of the wrong ones": 1 - right.mean(),
            "what does not fill the last batch counts, too": right[: N - N % batch_size].sum() / N,
            "the batches are not of one size, so a mean of their means is wrong": _mean_of_means(right, batch_size),
        }
        expect("the accuracy", got, right.mean(), mistakes, f"{N} examples, batch_size={batch_size}")
        sizes = [len(numbers) for numbers in model.get("measured")]
        require(max(sizes) <= batch_size, f"batch_size={batch_size}: the model got {max(sizes)} examples at a time")
        seen = np.sort(np.concatenate(model.get("measured")))
        require(np.array_equal(seen, np.arange(N)), "each example has to go through the model once")
    _check_samples(solver, model, X, y, right)
    _check_bad_scores(solver, model, X, y, scores)


def _mean_of_means(right, size):
    return np.mean([right[i : i + size].mean() for i in range(0, len(right), size)])


def _check_samples(solver, model, X, y, right):
    draws = []
    for epoch in range(6):
        solver.set("step", epoch * (N_TRAIN // BATCH))
        model.set("measured", [])
        got = solver.check_accuracy(X, y, num_samples=6, batch_size=4)
        drawn = np.concatenate(model.get("measured"))
        case = "num_samples=6 of 11 examples"
        require(len(drawn) == 6, f"the model got {len(drawn)} examples, expected 6 (with {case})")
        require(len(set(drawn.tolist())) == 6, f"an example was drawn twice (with {case})")
        mistakes = {"as many labels as samples: divide by num_samples": right[drawn].sum() / len(X)}
        expect("the accuracy", got, right[drawn].mean(), mistakes, case)
        draws.append(np.sort(drawn).tolist())
    require(any(draw != draws[0] for draw in draws), "num_samples: each epoch has to draw examples of its own")
    for enough in (11, 50):
        got = solver.check_accuracy(X, y, num_samples=enough)
        expect("the accuracy", got, right.mean(), case=f"num_samples={enough} of 11")


def _check_bad_scores(solver, model, X, y, scores):
    """A score of inf wins, and one of nan does too; in the true class's place they are right by accident."""
    for bad in (np.nan, np.inf):
        broken = scores.copy()
        broken[:4][np.arange(4), y[:4]] = bad
        model.set("scores", broken)
        wanted = ((scores.argmax(1) == y) & (np.arange(len(X)) >= 4)).mean()
        mistakes = {"an example with a score that is not finite counts as wrong": (broken.argmax(1) == y).mean()}
        expect("the accuracy", solver.check_accuracy(X, y), wanted, mistakes, f"scores that are {bad}")


def keeping_the_best(solution):
    _check_best(solution)
    _check_zero(solution)
    _check_numbers(solution)


def _measure(solution, solver, model, data, val_right, train_right=0):
    """Measure new parameters that get so many examples right.  Returns them, and their running statistics."""
    params = _params(solution)
    mean, var = solution.rng.uniform(1, 2, (2, 3))
    for name, array in params.items():
        model.set(f"params.{name}", array)
    for name, array in (("running_mean", mean), ("running_var", var)):
        model.set(f"bn_params.0.{name}", array)
    scores = np.zeros((2000, 3))
    for split, first, number in (("train", 0, train_right), ("val", 1000, val_right)):
        y = data[f"y_{split}"]
        hits = np.arange(len(y)) < number
        scores[first + np.arange(len(y)), np.where(hits, y, (y + 1) % 3)] = 1
    model.set("scores", scores)
    solver._measure()
    return params, {"running_mean": mean, "running_var": var}


def _solver_to_measure(solution, **settings):
    data = _data(solution)
    bn_params = [{"mode": "train", "running_mean": np.zeros(3), "running_var": np.ones(3)}]
    solver, model, *_ = _solver(solution, data=data, bn_params=bn_params, **settings)
    return solver, model, data


def _check_kept(solution, solver, best, case):
    """Whether the model has the best parameters after the training."""
    params, bn_params = solution.drivers.best_of(solver)
    for name, array in best[0].items():
        expect(f"the best params[{name!r}]", params[name], array, case=case)
    for name, array in best[1].items():
        expect(f"the best model's {name}, in bn_params,", bn_params[0][name], array, case=case)


def _check_best(solution):
    solver, model, data = _solver_to_measure(solution)
    train, val = [3, 23, 10, 20, 22], [2, 1, 5, 3, 0]
    best, case = None, "validation accuracies of 2, 1, 5, 3 and 0 of 6"
    for i in range(len(val)):
        measured = _measure(solution, solver, model, data, val[i], train[i])
        best = measured if val[i] == max(val[: i + 1]) else best
        expect("best_val_acc", solver.get("best_val_acc"), max(val[: i + 1]) / N_VAL, case=case)
        _check_kept(solution, solver, best, f"{case}, after {i + 1} of them")
    for name, numbers, size in (("train_acc_history", train, N_TRAIN), ("val_acc_history", val, N_VAL)):
        history = solver.get(name)
        require(isinstance(history, list) and len(history) == 5, f"{name}: expected a list of 5 accuracies")
        expect(name, np.array(history, float), np.array(numbers) / size)


def _check_zero(solution):
    solver, model, data = _solver_to_measure(solution)
    best = _measure(solution, solver, model, data, 0)
    for name, array in _params(solution).items():
        model.set(f"params.{name}", array)
    expect("best_val_acc", solver.get("best_val_acc"), 0.0, case="a validation accuracy of 0")
    _check_kept(solution, solver, best, "a validation accuracy of 0, the best so far")


def _check_numbers(solution):
    solver, model, data = _solver_to_measure(solution, num_train_samples=7, num_val_samples=4)
    model.set("measured", [])
    _measure(solution, solver, model, data, N_VAL, N_TRAIN)
    seen = np.concatenate(model.get("measured"))
    for name, number, wanted in (("train", np.sum(seen < 1000), 7), ("val", np.sum(seen >= 1000), 4)):
        require(number == wanted, f"num_{name}_samples={wanted}: accuracy was measured on {number} examples")


@dataclass
class Update:
    """What a rule returned in step t.  last: w before it.  grads and rates: those of all steps so far."""

    last: np.ndarray
    grads: list
    rates: list
    w: np.ndarray
    config: dict
    case: str

    @property
    def t(self):
        return len(self.grads)

    def faded(self, beta, power=1, rates=(1, 1, 1, 1)):
        """The sum over the steps of rate * dw^power, each step's beta times as much as the next one's."""
        return np.polyval([rate * dw.astype(float) ** power for rate, dw in zip(rates, self.grads, strict=False)], beta)

    def check(self, step, state, variants):
        """Check w and config.  step: what w loses.  variants: other steps, by the words for the mistake."""
        tol = FLOATS[self.last.dtype.type]
        mistakes = {words: self.last - wrong for words, wrong in {"the step goes downhill": -step, **variants}.items()}
        expect("the next w", self.w, (self.last - step).astype(self.last.dtype), mistakes, self.case, tol)
        for name, wanted in state.items():
            has = ", ".join(map(repr, self.config))
            require(name in self.config, f"config lacks {name!r}, the rule's state; it has {has}")
            mistakes = {"the sign": -wanted, "that is its root": np.sqrt(np.abs(wanted))}
            if "beta1" in self.config:
                beta = self.config["beta1" if name == "m" else "beta2"]
                mistakes = {"it is kept as it is, without its correction": wanted / (1 - beta**self.t)}
            expect(f"config[{name!r}]", self.config[name], wanted.astype(self.last.dtype), mistakes, self.case, tol)


def _updates(solution, rule, cases, **defaults):
    """An `Update`, and the settings, for each step of the rule along random gradients.

    cases: pairs of a config and, if it changes then, the learning rate from the third step on.
    """
    for settings, change in cases:
        given = {**defaults, **(settings or {})}
        rates = [given["learning_rate"]] * 2 + [change or given["learning_rate"]] * 2
        for shape, dtype in [((4, 3), np.float64), ((5,), np.float32), ((2, 3, 2, 1), np.float64)]:
            w, *grads = (solution.rng.standard_normal(shape).astype(dtype) for _ in range(5))
            config = None if settings is None else dict(settings)
            for t, dw in enumerate(grads, start=1):
                if change and t == 3:
                    config["learning_rate"] = change
                last, results = w, getattr(solution.optim, rule)(w, dw, config)
                w, config = several(rule, results, "the next w, config")
                require(isinstance(config, dict), f"config: expected a dict, got {type(config).__name__}")
                case = f"{np.dtype(dtype)}, {settings or 'the default settings'}, step {t}"
                yield Update(last, grads[:t], rates[:t], w, config, case), given


def momentum(solution):
    cases = [(None, None), ({"learning_rate": 0.3, "momentum": 0.6}, 0.1), ({"momentum": 0.0}, None)]
    for update, given in _updates(solution, "sgd_momentum", cases, learning_rate=1e-2, momentum=0.9):
        rho, v = given["momentum"], -update.faded(given["momentum"], rates=update.rates)
        pull = update.rates[-1] * update.grads[-1]
        variants = {
            "the velocity has to be kept in config": pull,
            "the gradient's share is learning_rate, not 1 - momentum": -(1 - rho) * v,
            "that is Nesterov's momentum": pull - rho * v,
            "w moves by the new velocity, not by the old": -(v + pull) / (rho or 1),
        }
        update.check(-v, {"velocity": v}, variants)


def rmsprop(solution):
    cases = [
        (None, None),
        ({"learning_rate": 0.3, "decay_rate": 0.7, "epsilon": 0.1}, 0.1),
        ({"learning_rate": 0.1, "decay_rate": 0.5}, None),
    ]
    for update, given in _updates(solution, "rmsprop", cases, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8):
        decay, eps, dw = given["decay_rate"], given["epsilon"], update.grads[-1]
        mean = (1 - decay) * update.faded(decay, 2)
        pull, size = update.rates[-1] * dw, np.abs(dw)
        variants = {
            "the root is missing": pull / (mean + eps),
            "epsilon is added to the root, not below it": pull / np.sqrt(mean + eps),
            "epsilon is missing": pull / np.sqrt(mean),
            "decay_rate is the cache's share, 1 - decay_rate that of dw^2": pull / (size * decay**0.5 + eps),
            "the cache has to be kept in config": pull / (size * (1 - decay) ** 0.5 + eps),
        }
        update.check(pull / (mean**0.5 + eps), {"cache": mean}, variants)


def adam(solution):
    cases = [
        (None, None),
        ({"learning_rate": 0.3, "beta1": 0.7, "beta2": 0.9, "epsilon": 0.1}, 0.1),
        ({"learning_rate": 0.1, "beta1": 0.4, "beta2": 0.3}, None),
    ]
    defaults = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    for update, given in _updates(solution, "adam", cases, **defaults):
        beta1, beta2, eps, t, rate = given["beta1"], given["beta2"], given["epsilon"], update.t, update.rates[-1]
        m, v = (1 - beta1) * update.faded(beta1), (1 - beta2) * update.faded(beta2, 2)
        counted = {"t counts the steps: 1 is added to it": t - 1}
        expect("config['t']", update.config.get("t"), t, counted, update.case)
        wanted, *variants = _adam_steps(m, v, t, beta1, beta2, eps)
        update.check(rate * wanted[1], {"m": m, "v": v}, {words: rate * step for words, step in variants})


def _adam_steps(m, v, t, beta1, beta2, eps):
    """The right step, and those that known mistakes would take, each with words that tell of it; but for the rate."""
    first, second = 1 - beta1**t, 1 - beta2**t
    yield "", m / first / ((v / second) ** 0.5 + eps)
    yield "the corrections of m and v are missing", m / (np.sqrt(v) + eps)
    yield "the correction of v is missing", m / first / (np.sqrt(v) + eps)
    yield "the correction of m is missing", m / (np.sqrt(v / second) + eps)
    yield "epsilon is added to the root, not below it", m / first / np.sqrt(v / second + eps)
    yield "epsilon is added after the correction of v", m * np.sqrt(second) / first / (np.sqrt(v) + eps)
    yield "the root is missing", m / first / (v / second + eps)
    first, second = 1 - beta1 ** (t + 1), 1 - beta2 ** (t + 1)
    yield "the corrections take t after 1 was added to it, once", m / first / (np.sqrt(v / second) + eps)
