"""Checks of the exercises of notebook 04, convolutional nets."""

import numpy as np
import torch
from torch.nn import functional as F

from grading.expect import expect, require, several

TOL = {"float64": 1e-6, "float32": 1e-4}

CONVS = [  # shapes of x and w, conv_param, dtype
    ((2, 3, 5, 7), (4, 3, 3, 2), {"stride": 2, "pad": 1}, "float64"),
    ((2, 3, 5, 7), (4, 3, 3, 2), {"stride": 2, "pad": 1}, "float32"),
    ((1, 1, 4, 5), (1, 1, 2, 3), {}, "float64"),
    ((2, 2, 6, 4), (3, 2, 3, 3), {"stride": 2, "pad": 0}, "float64"),  # the last row and column are never looked at
    ((1, 2, 6, 5), (2, 2, 4, 3), {"stride": 3, "pad": 2}, "float64"),
    ((2, 1, 3, 4), (2, 1, 1, 2), {"stride": 3}, "float64"),  # gaps between the windows
    ((1, 2, 2, 3), (1, 2, 2, 3), {"pad": 3}, "float64"),  # windows that see nothing but the frame
]
LARGE_CONVS = [  # for the fast layer: filters that fit Winograd's way, where it is allowed and not, and several blocks
    ((1, 16, 6, 5), (16, 16, 3, 3), {"stride": 2, "pad": 1}, "float64"),
    ((1, 16, 2, 3), (16, 16, 3, 3), {"pad": 3}, "float64"),
    ((2, 17, 6, 5), (16, 17, 3, 3), {"stride": 1, "pad": 2}, "float64"),
    ((2, 17, 6, 5), (16, 17, 3, 3), {"stride": 1, "pad": 1}, "float32"),
    ((3, 16, 30, 31), (3, 16, 5, 5), {"stride": 1, "pad": 0}, "float32"),
]
POOLS = [  # shape of x, window, stride
    ((2, 3, 5, 7), (2, 2), 2),  # the last row and column are never looked at
    ((1, 1, 4, 5), (2, 2), 1),
    ((2, 2, 7, 6), (3, 2), 2),
    ((1, 2, 5, 6), (2, 3), 1),
    ((1, 1, 6, 5), (3, 3), 1),
    ((2, 1, 6, 7), (1, 2), 3),  # gaps between the windows
]
LARGE_POOLS = [((2, 1, 513, 512), (3, 2), 2)]  # more than one block
CONV_POOLS = [  # shapes of x and w, conv_param, pool_param
    ((2, 3, 6, 9), (4, 3, 3, 2), {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}),
    ((1, 1, 9, 8), (2, 1, 2, 3), {"stride": 2, "pad": 2}, {"pool_height": 3, "pool_width": 2, "stride": 1}),
]
SMALL_NET = {"input_dim": (2, 5, 7), "num_filters": 3, "hidden_dim": 4, "num_classes": 5}
REG = 0.5
NETS = [  # further settings, images in the batch, dtype
    ({"filter_size": 3}, 4, "float64"),
    ({"filter_size": 3, "use_batchnorm": True}, 4, "float64"),
    ({"filter_size": 2, "use_batchnorm": True}, 6, "float64"),
    ({"filter_size": 5}, 1, "float32"),
]

MEAN = "the loss has divided by N already: gradients are sums, not means"
LAST = "the whole batch adds up, and this is the last image's part"
OVERWRITTEN = "where windows overlap, a pixel adds up what each of them gives; nothing is overwritten"
WRONG_SIDE = "the frame has pad pixels at each side, and is cut off at the wrong one"


# 4.1 and 4.2, and 4.5, which does the same.


def conv_forward_naive(solution):
    _check_conv_forward(solution, solution.conv_layers.conv_forward_naive, CONVS)


def conv_db(solution):
    _check_conv_backward(solution, "naive", CONVS, ["db"])


def conv_dw(solution):
    _check_conv_backward(solution, "naive", CONVS, ["dw"])


def conv_dx(solution):
    _check_conv_backward(solution, "naive", CONVS, ["dx"])


def conv_forward_fast(solution):
    _check_conv_forward(solution, solution.fast_layers.conv_forward_fast, CONVS + LARGE_CONVS)


def conv_backward_fast(solution):
    _check_conv_backward(solution, "fast", CONVS + LARGE_CONVS, ["dx", "dw", "db"])
    for arrays, conv_param, case in _convs(solution, CONVS[:1] + LARGE_CONVS):
        _, cache = solution.fast_layers.conv_forward_fast(*arrays, conv_param)
        dout = _draw_dout(solution, _conv, arrays, conv_param)
        wanted = _gradients(_conv, arrays, dout, conv_param)
        grads = solution.fast_layers.conv_backward_fast(dout, cache, need_dx=False)
        _check_without_dx("conv_backward_fast", grads, wanted, case, TOL[str(dout.dtype)])


def _check_conv_forward(solution, forward, cases):
    for arrays, conv_param, case in _convs(solution, cases):
        x, w, b = map(torch.tensor, arrays)
        out, _ = several("forward", forward(*arrays, dict(conv_param)), "out, cache")
        wanted, bias = _conv(x, w, b, conv_param), b[:, None, None]
        frame, unframed = 2 * conv_param.get("pad", 0), conv_param | {"pad": 0}
        mistakes = {
            "b is missing": wanted - bias,
            "b is added once, not once for each channel": wanted + (x.shape[1] - 1) * bias,
            "the formula mirrors no filter": _conv(x, w.flip(2, 3), b, conv_param),
            "the stride is forgotten": _conv_at_stride_1(x, w, b, conv_param),
            "the frame of zeros lies on all four sides": _conv(F.pad(x, (0, frame, 0, frame)), w, b, unframed),
            "a filter looks at all channels": _conv(x[:, :1], w[:, :1], b, conv_param),
        }
        expect("out", out, wanted, mistakes, case, TOL[str(arrays[0].dtype)])


def _check_conv_backward(solution, kind, cases, names):
    """All of forward comes first: what a cache holds must last until its own backward."""
    module = solution.conv_layers if kind == "naive" else solution.fast_layers
    forward, backward = getattr(module, f"conv_forward_{kind}"), getattr(module, f"conv_backward_{kind}")
    runs = [(*run, several("forward", forward(*run[0], dict(run[1])), "out, cache")) for run in _convs(solution, cases)]
    for arrays, conv_param, case, (_, cache) in runs:
        dout = _draw_dout(solution, _conv, arrays, conv_param)
        grads = several(f"conv_backward_{kind}", backward(dout, cache), "dx, dw, db")
        wanted = _gradients(_conv, arrays, dout, conv_param)
        mistakes = _conv_mistakes(arrays, dout, conv_param, wanted)
        for name, *args in zip(("dx", "dw", "db"), grads, wanted, mistakes, strict=True):
            if name in names:
                expect(name, *args, case, TOL[str(dout.dtype)])


def _conv_mistakes(arrays, dout, conv_param, wanted):
    """What known mistakes make of dx, of dw and of db."""
    x, w, b = arrays
    _, last_dw, last_db = _gradients(_conv, [x[-1:], w, b], dout[-1:], conv_param)
    dx, dw, _ = _gradients(_conv_at_stride_1, arrays, dout, conv_param)
    of_dw = {MEAN: wanted[1] / len(x), LAST: last_dw, "the stride is forgotten": dw}
    of_db = {MEAN: wanted[2] / len(x), LAST: last_db, "b counts at all i and j: add over them too": dout.sum(axis=0)}
    return {"the stride is forgotten": dx} | _mistakes_of_dx(x, w, b, dout, conv_param), of_dw, of_db


def _mistakes_of_dx(x, w, b, dout, conv_param):
    pad = conv_param.get("pad", 0)
    framed = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dframed, *_ = _gradients(_conv, [framed, w, b], dout, conv_param | {"pad": 0})
    last = dout[:, -1].reshape(len(x), 1, -1, 1) * w[-1].reshape(len(w[0]), 1, -1)
    put = _put(last, _places(framed.shape, w.shape[2:], conv_param).T, framed.shape)
    return {
        OVERWRITTEN: _crop(put, pad),
        WRONG_SIDE: dframed[:, :, : x.shape[2], : x.shape[3]],
        "the frame has to be cut off": dframed,
    }


def _convs(solution, cases):
    """(x, w, b), conv_param and words that name the case, for each of the cases."""
    for shape, filters, conv_param, dtype in cases:
        arrays = [_draw(solution, size, dtype) for size in (shape, filters, filters[:1])]
        yield arrays, dict(conv_param), f"x {shape}, w {filters}, conv_param {conv_param}"


def _conv(x, w, b, conv_param):
    return F.conv2d(x, w, b, conv_param.get("stride", 1), conv_param.get("pad", 0))


def _conv_at_stride_1(x, w, b, conv_param):
    """What comes out, in the right shape, where window i starts at row i in place of i s."""
    _, _, H_out, W_out = _conv(x, w, b, conv_param).shape
    return _conv(x, w, b, conv_param | {"stride": 1})[:, :, :H_out, :W_out]


# 4.3 and 4.4.


def im2col(solution):
    for (x, w, _), conv_param, _ in _convs(solution, CONVS):
        kernel = w.shape[2:]
        cols = solution.fast_layers.im2col(x, *kernel, **conv_param)
        patches = _unfold(torch.tensor(x), kernel, conv_param).reshape(*x.shape[:2], *kernel, -1)  # n, c, p, q, (i, j)
        wanted, every = _columns(patches), _unfold(torch.tensor(x), kernel, conv_param | {"stride": 1})
        mistakes = {
            "the columns run over n, i, j, n the slowest": _columns(patches, (1, 2, 3, 4, 0)),
            "the rows run over c, p, q, c the slowest": _columns(patches, (2, 3, 1, 0, 4)),
            "the rows run over c, p, q, q the fastest": _columns(patches, (1, 3, 2, 0, 4)),
            "a patch is a column, not a row": wanted.T,
            "the stride is forgotten": every.swapaxes(0, 1).flatten(1),
        }
        expect("X_col", cols, wanted, mistakes, f"x {x.shape}, kernel {kernel}, {conv_param}")


def _columns(patches, order=(1, 2, 3, 0, 4)):
    """Patches (N, C, KH, KW, H_out * W_out) as a matrix, three of their axes its rows and two its columns."""
    return patches.permute(order).flatten(3).flatten(0, 2)


def col2im(solution):
    for (x, w, _), conv_param, _ in _convs(solution, CONVS):
        kernel, pad, (N, C, H, W) = w.shape[2:], conv_param.get("pad", 0), x.shape
        framed = N, C, H + 2 * pad, W + 2 * pad
        index = _places(framed, kernel, conv_param)
        cols = _draw(solution, (C * len(index), N * len(index.T)), x.dtype)
        got = solution.fast_layers.col2im(cols, x.shape, *kernel, **conv_param)
        patches = torch.tensor(cols).reshape(len(cols), N, -1).swapaxes(0, 1)
        wanted, count = (_fold(array, x.shape, kernel, conv_param) for array in (patches, torch.ones_like(patches)))
        interleaved = torch.tensor(cols).reshape(len(cols), -1, N).permute(2, 0, 1)
        dframed = _fold(patches, framed, kernel, conv_param | {"pad": 0})
        mistakes = {
            OVERWRITTEN: _crop(_put(patches.numpy(), index, framed), pad),
            WRONG_SIDE: dframed[:, :, :H, :W],
            "the frame has to be cut off": dframed,
            "a pixel gets the sum of its entries, not their mean": wanted / count.clamp(min=1),
            "the columns run over n, i, j, n the slowest": _fold(interleaved, x.shape, kernel, conv_param),
        }
        case = f"x_shape {x.shape}, kernel {kernel}, {conv_param}"
        expect("the image", got, wanted, mistakes, case, TOL[str(x.dtype)])


def _unfold(x, kernel, conv_param):
    return F.unfold(x, kernel, padding=conv_param.get("pad", 0), stride=conv_param.get("stride", 1))


def _fold(patches, shape, kernel, conv_param):
    return F.fold(patches, shape[2:], kernel, padding=conv_param.get("pad", 0), stride=conv_param.get("stride", 1))


# 4.6 and 4.7.


def max_pool_forward_naive(solution):
    _check_pool_forward(solution, solution.conv_layers.max_pool_forward_naive, POOLS)


def max_pool_backward_naive(solution):
    _check_pool_backward(solution, solution.conv_layers, "naive", POOLS)


def max_pool_forward_fast(solution):
    _check_pool_forward(solution, solution.fast_layers.max_pool_forward_fast, POOLS + LARGE_POOLS)


def max_pool_backward_fast(solution):
    _check_pool_backward(solution, solution.fast_layers, "fast", POOLS + LARGE_POOLS)


def _check_pool_forward(solution, forward, cases):
    for x, pool_param, case in _pools(solution, cases):
        out, _ = several("forward", forward(x, dict(pool_param)), "out, cache")
        x, window, stride = torch.tensor(x), (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"]
        wanted = F.max_pool2d(x, window, stride)
        H_out, W_out = wanted.shape[2:]
        endless = F.pad(x, (0, 9, 0, 9), value=-torch.inf)
        mistakes = {
            "a maximum that starts at 0 is wrong where all pixels are negative": wanted.clamp(min=0),
            "height and width are exchanged": F.max_pool2d(endless, window[::-1], stride)[:, :, :H_out, :W_out],
            "the stride is forgotten": F.max_pool2d(x, window, 1)[:, :, :H_out, :W_out],
            "the stride need not be the window's size": F.max_pool2d(endless, window)[:, :, :H_out, :W_out],
            "out is the maximum of a window, not its mean": F.avg_pool2d(x, window, stride),
        }
        expect("out", out, wanted, mistakes, case)


def _check_pool_backward(solution, module, kind, cases):
    forward, backward = getattr(module, f"max_pool_forward_{kind}"), getattr(module, f"max_pool_backward_{kind}")
    runs = [(*run, several("forward", forward(run[0], dict(run[1])), "out, cache")) for run in _pools(solution, cases)]
    for x, pool_param, case, (_, cache) in runs:
        dout = _draw_dout(solution, _pool, [x], pool_param)
        (wanted,) = _gradients(_pool, [x], dout, pool_param)
        mistakes = _pool_mistakes(x, dout, pool_param) if x.size < 1000 else {}
        expect("dx", backward(dout, cache), wanted, mistakes, case)


def _pool_mistakes(x, dout, pool_param):
    """What known mistakes make of dx."""
    window = pool_param["pool_height"], pool_param["pool_width"]
    planes = torch.tensor(x).reshape(-1, 1, *x.shape[2:])
    patches, given = _unfold(planes, window, pool_param), torch.tensor(dout).reshape(len(planes), 1, -1)
    largest = patches == patches.amax(1, keepdim=True)
    last = largest & (largest.flip(1).cumsum(1).flip(1) == 1)
    _, index = F.max_pool2d(planes, window, pool_param["stride"], return_indices=True)
    put = np.zeros((len(planes), planes[0].numel()), x.dtype)
    np.put_along_axis(put, index.flatten(1).numpy(), dout.reshape(len(planes), -1), axis=1)

    def shared_out(shares):
        return _fold(shares * given, planes.shape, window, pool_param).reshape(x.shape)

    return {
        OVERWRITTEN: put.reshape(x.shape),
        "among equals the first gets it all, the others nothing": shared_out(largest),
        "among equals the first gets it all, not a share": shared_out(largest / largest.sum(1, keepdim=True)),
        "among equals the first gets it, not the last": shared_out(last),
        "only the maximum of a window gets what flows back": shared_out(torch.ones_like(patches)),
    }


def _pools(solution, cases):
    """x, pool_param and words that name the case; x all different, with ties, and all negative."""
    for shape, window, stride in cases:
        pool_param = {"pool_height": window[0], "pool_width": window[1], "stride": stride}
        words = f"x {shape}, pool_param {pool_param}"
        x = _draw(solution, shape)
        if x.size > 1000:
            yield x.astype("float32"), dict(pool_param), words
        else:
            yield x, dict(pool_param), words
            yield np.round(x).astype("float32"), dict(pool_param), f"{words}, many pixels equal"
            yield -1 - abs(x), dict(pool_param), f"{words}, all pixels negative"


# 4.8 and 4.9.


def conv_relu_pool_forward(solution):
    for arrays, params, case in _conv_pools(solution):
        x, w, b = map(torch.tensor, arrays)
        got = solution.layer_utils.conv_relu_pool_forward(*arrays, *map(dict, params))
        out, _ = several("forward", got, "out, cache")
        mistakes = {
            "the ReLU is missing": _pool(_conv(x, w, b, params[0]), params[1]),
            "the pooling is missing": F.relu(_conv(x, w, b, params[0])),
        }
        expect("out", out, _conv_relu_pool(x, w, b, *params), mistakes, case, TOL[str(arrays[0].dtype)])


def conv_relu_pool_backward(solution):
    layers = solution.layer_utils
    runs = [
        (*run, several("forward", layers.conv_relu_pool_forward(*run[0], *map(dict, run[1])), "out, cache"))
        for run in _conv_pools(solution)
    ]
    for arrays, params, case, (_, cache) in runs:
        dout = _draw_dout(solution, _conv_relu_pool, arrays, *params)
        wanted = _gradients(_conv_relu_pool, arrays, dout, *params)
        linear = _gradients(_without_backward_of_relu, arrays, dout, *params)
        grads, tol = layers.conv_relu_pool_backward(dout, cache), TOL[str(dout.dtype)]
        grads = several("conv_relu_pool_backward", grads, "dx, dw, db")
        for name, got, right, wrong in zip(("dx", "dw", "db"), grads, wanted, linear, strict=True):
            expect(name, got, right, {"the ReLU's backward is missing": wrong}, case, tol)
        grads = layers.conv_relu_pool_backward(dout, cache, need_dx=False)
        _check_without_dx("conv_relu_pool_backward", grads, wanted, case, tol)


def _conv_pools(solution):
    """(x, w, b), (conv_param, pool_param) and words that name the case."""
    for shape, filters, conv_param, pool_param in CONV_POOLS:
        for dtype in TOL:
            arrays = [_draw_for_relu(solution, size, dtype) for size in (shape, filters, filters[:1])]
            case = f"x {shape}, w {filters}, conv_param {conv_param}, pool_param {pool_param}"
            yield arrays, (dict(conv_param), dict(pool_param)), case


def _conv_relu_pool(x, w, b, conv_param, pool_param):
    return _pool(F.relu(_conv(x, w, b, conv_param)), pool_param)


def _without_backward_of_relu(x, w, b, conv_param, pool_param):
    a = _conv(x, w, b, conv_param)
    return _pool(a + (F.relu(a) - a).detach(), pool_param)


def _pool(x, pool_param):
    return F.max_pool2d(x, (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"])


def convnet_forward(solution):
    for net, X, params, case in _convnets(solution):
        tol, widths = TOL[str(X.dtype)], (len(params["b1"]), len(params["b2"]))
        scores, _ = net._forward(X, "train")
        running = [(torch.zeros(width).double(), torch.ones(width).double()) for width in widths]
        wanted = _convnet(params, X, running)
        mistakes = {
            "the last layer has no ReLU": F.relu(wanted),
            "the ReLU behind the hidden affine layer is missing": _convnet(params, X, relu=lambda h: h),
        }
        expect("scores", scores, wanted, mistakes, case, tol)
        if "gamma1" in params:
            _check_running_means(net, running, case)
            _check_test_mode(solution, net, X, params, widths, case)


def _check_running_means(net, running, case):
    for i, (mean, _) in enumerate(running):
        got = net.get("bn_params")[i].get("running_mean")
        unmoved = {"batch norm shall write to the net's own bn_params": 0 * mean}
        expect(f"bn_params[{i}]['running_mean']", got, mean, unmoved, f"{case}, after a batch in training mode")


def _check_test_mode(solution, net, X, params, widths, case):
    running = [(_draw(solution, width), 1 + _draw(solution, width) ** 2) for width in widths]
    net.set("bn_params", [{"mode": "test", "running_mean": mean, "running_var": var} for mean, var in running])
    scores, _ = net._forward(X, "test")
    wanted = _convnet(params, X, [tuple(map(torch.tensor, pair)) for pair in running], "test")
    expect("scores", scores, wanted, case=f"{case}, in test mode")


def convnet_backward(solution):
    for net, X, params, case in _convnets(solution):
        _, caches = net._forward(X, "train")
        dscores = _draw(solution, (len(X), SMALL_NET["num_classes"]), X.dtype)
        wanted = _gradients(_convnet_of, list(params.values()), dscores, list(params), X)
        grads = net._backward(dscores, caches)
        require(isinstance(grads, dict), f"_backward: expected a dict, got {type(grads).__name__}")
        told = f"grads: expected {', '.join(params)}; got {', '.join(map(str, grads))} (with {case})"
        require(set(grads) == set(params), told)
        for (name, value), right in zip(params.items(), wanted, strict=True):
            mistakes = {"loss adds the L2 penalty, not _backward": right + REG * value, MEAN: right / len(X)}
            expect(f"grads[{name!r}]", grads[name], right, mistakes, case, TOL[str(X.dtype)])


def _convnets(solution):
    """Nets, batches for them, their parameters, biases and beta included, and words that name the case."""
    for settings, N, dtype in NETS:
        net = solution.cnn_model.ThreeLayerConvNet(**SMALL_NET, **settings, reg=REG, dtype=dtype)
        params = {name: _draw_for_relu(solution, w.shape, dtype) for name, w in net.get("params").items()}
        for name, value in params.items():
            net.set(f"params.{name}", value)
        X = _draw_for_relu(solution, (N, *SMALL_NET["input_dim"]), dtype)
        yield net, X, params, f"{N} images {X.shape[1:]}, {settings}"


def _convnet_of(*args):
    """`_convnet`, as a function of the values of its parameters, their names and X."""
    *values, names, X = args
    return _convnet(dict(zip(names, values, strict=True)), X)


def _convnet(params, X, running=2 * ((None, None),), mode="train", relu=F.relu):
    """The net's scores.  running: mean and variance of both batch norms, which move in training mode."""
    params = {name: torch.as_tensor(value) for name, value in params.items()}

    def normalized(h, i):
        if "gamma1" not in params:
            return h
        return F.batch_norm(h, *running[i - 1], params[f"gamma{i}"], params[f"beta{i}"], training=mode == "train")

    h = _conv(torch.tensor(X), params["W1"], params["b1"], {"pad": (params["W1"].shape[2] - 1) // 2})
    h = F.max_pool2d(F.relu(normalized(h, 1)), 2).flatten(1)
    h = relu(normalized(F.linear(h, params["W2"].T, params["b2"]), 2))
    return F.linear(h, params["W3"].T, params["b3"])


# What they share.


def _draw(solution, shape, dtype="float64"):
    return solution.rng.standard_normal(shape).astype(dtype)


def _draw_for_relu(solution, shape, dtype):
    """In float32 whole numbers, whose sums are exact in any order: so all agree about what is above 0, or largest."""
    x = _draw(solution, shape, dtype)
    return x if dtype == "float64" else np.round(2 * x)


def _gradients(function, arrays, dout, *args):
    """The gradients of sum(function(*arrays, *args) * dout) with respect to the arrays."""
    tensors = [torch.tensor(array).requires_grad_() for array in arrays]
    grads = torch.autograd.grad(function(*tensors, *args), tensors, torch.tensor(dout))
    return [grad.numpy() for grad in grads]


def _draw_dout(solution, function, arrays, *args):
    """What may flow back to a function's output."""
    out = function(*map(torch.tensor, arrays), *args)
    return _draw(solution, tuple(out.shape), arrays[0].dtype)


def _check_without_dx(function, grads, wanted, case, tol):
    dx, *others = several(function, grads, "dx, dw, db")
    require(dx is None, f"dx: expected None with need_dx=False (with {case})")
    for name, got, right in zip(("dw", "db"), others, wanted[1:], strict=True):
        expect(name, got, right, case=f"{case}, need_dx=False", tol=tol)


def _places(shape, kernel, conv_param):
    """Which pixel of a plane of images of that shape, counted in reading order, each window has at each place."""
    plane = torch.arange(float(np.prod(shape[2:]))).reshape(1, 1, *shape[2:])
    return _unfold(plane, kernel, {"stride": conv_param.get("stride", 1)})[0].long().numpy()


def _put(values, index, shape):
    """Images of that shape with values (N, C, ...) at the pixels index; the last one stays."""
    images = np.zeros((*shape[:2], shape[2] * shape[3]), values.dtype)
    images[:, :, index.ravel()] = values.reshape(*shape[:2], -1)
    return images.reshape(shape)


def _crop(images, pad):
    return images[:, :, pad : images.shape[2] - pad, pad : images.shape[3] - pad]
