"""Checks of exercises 4.8 and 4.9: convolution, ReLU and pooling in a row, and the net of three layers."""

import numpy as np

from grading.checks.common import (
    MEAN,
    TOLERANCE,
    check_grads,
    check_initial_params,
    check_without_dx,
    draw,
    draw_dout,
    forward,
    gradients,
)
from grading.checks.images import conv, pool
from grading.expect import expect, several
from grading.oracle import F, torch

CONV_POOLS = [  # shapes of x and w, conv_param, pool_param
    ((2, 3, 6, 9), (4, 3, 3, 2), {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}),
    ((1, 1, 9, 8), (2, 1, 2, 3), {"stride": 2, "pad": 2}, {"pool_height": 3, "pool_width": 2, "stride": 1}),
]
LARGE_CONV_POOL = (4, 64, 14, 14), (64, 64, 3, 3), {"pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
SMALL_NET = {"input_dim": (2, 5, 7), "num_filters": 3, "hidden_dim": 4, "num_classes": 5}
REG = 0.5
NETS = [  # further settings, images in the batch, dtype
    ({"filter_size": 3}, 4, "float64"),
    ({"filter_size": 3, "use_batchnorm": True}, 4, "float64"),
    ({"filter_size": 2, "use_batchnorm": True}, 6, "float64"),
    ({"filter_size": 5}, 1, "float32"),
]
LARGE_NET = {"input_dim": (3, 16, 16), "num_filters": 16, "filter_size": 5, "hidden_dim": 100}


def conv_relu_pool_forward(learner):
    for arrays, params, case in _conv_pools(learner):
        x, w, b = map(torch.tensor, arrays)
        out, _ = forward(learner.layer_utils.conv_relu_pool_forward, *arrays, *map(dict, params))
        mistakes = {
            "the ReLU is missing": pool(conv(x, w, b, params[0]), params[1]),
            "the pooling is missing": F.relu(conv(x, w, b, params[0])),
        }
        expect("out", out, _conv_relu_pool(x, w, b, *params), mistakes, case, TOLERANCE[str(arrays[0].dtype)])


def conv_relu_pool_backward(learner):
    layers = learner.layer_utils
    runs = [(*run, forward(layers.conv_relu_pool_forward, *run[0], *map(dict, run[1]))) for run in _conv_pools(learner)]
    for arrays, params, case, (_, cache) in runs:
        dout = draw_dout(learner, _conv_relu_pool, arrays, *params)
        wanted = gradients(_conv_relu_pool, arrays, dout, *params)
        linear = gradients(_without_backward_of_relu, arrays, dout, *params)
        tol = TOLERANCE[str(dout.dtype)]
        grads = several("conv_relu_pool_backward", layers.conv_relu_pool_backward(dout, cache), "dx, dw, db")
        for name, got, right, wrong in zip(("dx", "dw", "db"), grads, wanted, linear, strict=True):
            expect(name, got, right, {"the ReLU's backward is missing": wrong}, case, tol)
        check_without_dx(layers.conv_relu_pool_backward, dout, cache, wanted, case, tol)
    shape, filters, *params = LARGE_CONV_POOL
    arrays = [draw(learner, size) for size in (shape, filters, filters[:1])]
    _, cache = forward(layers.conv_relu_pool_forward, *arrays, *map(dict, params))
    dout = draw_dout(learner, _conv_relu_pool, arrays, *params)
    grads = several("conv_relu_pool_backward", layers.conv_relu_pool_backward(dout, cache), "dx, dw, db")
    wanted = gradients(_conv_relu_pool, arrays, dout, *params)
    for name, got, right in zip(("dx", "dw", "db"), grads, wanted, strict=True):
        expect(name, got, right, case=f"x {shape}, w {filters}")


def _conv_pools(learner):
    """(x, w, b), (conv_param, pool_param) and a description of the case."""
    for shape, filters, conv_param, pool_param in CONV_POOLS:
        for dtype in TOLERANCE:
            arrays = [_draw_for_relu(learner, size, dtype) for size in (shape, filters, filters[:1])]
            case = f"x {shape}, w {filters}, conv_param {conv_param}, pool_param {pool_param}"
            yield arrays, (dict(conv_param), dict(pool_param)), case


def _conv_relu_pool(x, w, b, conv_param, pool_param):
    return pool(F.relu(conv(x, w, b, conv_param)), pool_param)


def _without_backward_of_relu(x, w, b, conv_param, pool_param):
    a = conv(x, w, b, conv_param)
    return pool(a + (F.relu(a) - a).detach(), pool_param)


def convnet_forward(learner):
    for net, X, params, case in _convnets(learner):
        tol, widths = TOLERANCE[str(X.dtype)], (len(params["b1"]), len(params["b2"]))
        if "gamma1" in params:
            _set_bn_params(net, "train", [(np.zeros(width), np.ones(width)) for width in widths])
        scores, _ = forward(net._forward, X, "train")
        running = [(torch.zeros(width).double(), torch.ones(width).double()) for width in widths]
        wanted = _convnet(params, X, running)
        mistakes = {
            "the last layer has no ReLU": F.relu(wanted),
            "the ReLU after the hidden affine layer is missing": _convnet(params, X, relu=lambda h: h),
        }
        expect("scores", scores, wanted, mistakes, case, tol)
        if "gamma1" in params:
            _check_running_means(net, running, case)
            _check_test_mode(learner, net, X, params, widths, case)


def _check_running_means(net, running, case):
    for i, (mean, _) in enumerate(running):
        got = net.get(f"bn_params.{i}.running_mean")
        unmoved = {"batch norm must write to the net's own bn_params": 0 * mean}
        expect(f"bn_params[{i}]['running_mean']", got, mean, unmoved, f"{case}, after a batch in training mode")


def _check_test_mode(learner, net, X, params, widths, case):
    running = [(draw(learner, width), 1 + draw(learner, width) ** 2) for width in widths]
    _set_bn_params(net, "test", running)
    scores, _ = forward(net._forward, X, "test")
    wanted = _convnet(params, X, [tuple(map(torch.tensor, pair)) for pair in running], "test")
    running = "in test mode batch norm takes the running averages of the net's bn_params"
    expect("scores", scores, wanted, case=f"{case}, in test mode", otherwise=running)


def _set_bn_params(net, mode, running):
    net.set("bn_params", [{"mode": mode, "running_mean": mean, "running_var": var} for mean, var in running])


def convnet_backward(learner):
    for net, X, params, case in (*_convnets(learner), _large_convnet(learner)):
        _, caches = forward(net._forward, X, "train")
        dscores = draw(learner, (len(X), len(params["b3"])), X.dtype)
        wanted = gradients(_convnet_of, list(params.values()), dscores, list(params), X)
        wanted = dict(zip(params, wanted, strict=True))
        mistakes = {
            "loss adds the L2 penalty, not _backward": {name: wanted[name] + REG * params[name] for name in params},
            MEAN: {name: right / len(X) for name, right in wanted.items()},
        }
        check_grads(net._backward(dscores, caches), wanted, mistakes, case, TOLERANCE[str(X.dtype)])


def _convnets(learner):
    """Nets, batches for them, their parameters, biases and beta included, and a description of the case."""
    for settings, N, dtype in NETS:
        net, params = _net_and_params(learner, {**SMALL_NET, **settings}, dtype)
        X = _draw_for_relu(learner, (N, *SMALL_NET["input_dim"]), dtype)
        yield net, X, params, f"{N} images {X.shape[1:]}, {settings}"


def _large_convnet(learner):
    net, params = _net_and_params(learner, LARGE_NET, "float64")
    return net, draw(learner, (50, *LARGE_NET["input_dim"])), params, f"50 images, {LARGE_NET}"


def _net_and_params(learner, settings, dtype):
    net = learner.cnn_model.ThreeLayerConvNet(**settings, reg=REG, dtype=dtype)
    shapes = _shapes(**settings)
    check_initial_params(net, shapes, dtype, 1e-3)
    params = {name: _draw_for_relu(learner, shape, dtype) for name, shape in shapes.items()}
    for name, value in params.items():
        net.set(f"params.{name}", value)
    return net, params


def _shapes(input_dim, num_filters, filter_size, hidden_dim, num_classes=10, use_batchnorm=False):
    """The shapes of the net's parameters, in the order of its layers."""
    (C, *size), F, K, H = input_dim, num_filters, filter_size, hidden_dim
    rows, columns = ((n + 2 * ((K - 1) // 2) - K + 1) // 2 for n in size)
    weights = [(F, C, K, K), (F * rows * columns, H), (H, num_classes)]
    shapes = {}
    for i, (weight, width) in enumerate(zip(weights, (F, H, num_classes), strict=True), start=1):
        scales = {f"gamma{i}": (width,), f"beta{i}": (width,)} if use_batchnorm and i < 3 else {}
        shapes |= {f"W{i}": weight, f"b{i}": (width,), **scales}
    return shapes


def _convnet_of(*args):
    """`_convnet`, as a function of the values of its parameters, their names and X."""
    *values, names, X = args
    return _convnet(dict(zip(names, values, strict=True)), X)


def _convnet(params, X, running=2 * ((None, None),), mode="train", relu=F.relu):
    """The net's scores.  running: mean and variance of both batch norms, which it updates in training mode."""
    params = {name: torch.as_tensor(value) for name, value in params.items()}

    def normalized(h, i):
        if "gamma1" not in params:
            return h
        return F.batch_norm(h, *running[i - 1], params[f"gamma{i}"], params[f"beta{i}"], training=mode == "train")

    h = conv(torch.tensor(X), params["W1"], params["b1"], {"pad": (params["W1"].shape[2] - 1) // 2})
    h = F.max_pool2d(F.relu(normalized(h, 1)), 2).flatten(1)
    h = relu(normalized(F.linear(h, params["W2"].T, params["b2"]), 2))
    return F.linear(h, params["W3"].T, params["b3"])


def _draw_for_relu(learner, shape, dtype):
    """An array; in float32, of whole numbers, whose sums are exact, so that rounding decides no ReLU and no maximum."""
    x = draw(learner, shape, dtype)
    return x if dtype == "float64" else np.round(2 * x)
