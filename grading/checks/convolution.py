"""Checks of exercises 4.1 to 4.5: convolution as loops, im2col and col2im, and convolution as a matrix product."""

import numpy as np

from grading.checks.common import MEAN, TOLERANCE, check_without_dx, draw, draw_dout, forward, gradients
from grading.checks.derivations import Graph, check_steps
from grading.checks.images import OVERWRITTEN, conv, fold, unfold
from grading.expect import expect, several
from grading.oracle import F, torch

CONVS = [  # shapes of x and w, conv_param, dtype
    ((2, 3, 5, 7), (4, 3, 3, 2), {"stride": 2, "pad": 1}, "float64"),
    ((2, 3, 5, 7), (4, 3, 3, 2), {"stride": 2, "pad": 1}, "float32"),
    ((1, 1, 4, 5), (1, 1, 2, 3), {}, "float64"),
    ((2, 2, 6, 4), (3, 2, 3, 3), {"stride": 2, "pad": 0}, "float64"),  # the last row and column are in no window
    ((1, 2, 6, 5), (2, 2, 4, 3), {"stride": 3, "pad": 2}, "float64"),
    ((2, 1, 3, 4), (2, 1, 1, 2), {"stride": 3}, "float64"),  # gaps between the windows
    ((1, 2, 2, 3), (1, 2, 2, 3), {"pad": 3}, "float64"),  # windows that see only padding
]
LARGE_CONVS = [  # for the fast layer: many channels, and several blocks
    ((1, 16, 6, 5), (16, 16, 3, 3), {"stride": 2, "pad": 1}, "float64"),
    ((1, 16, 2, 3), (16, 16, 3, 3), {"pad": 3}, "float64"),
    ((2, 17, 6, 5), (16, 17, 3, 3), {"stride": 1, "pad": 2}, "float64"),
    ((2, 17, 6, 5), (16, 17, 3, 3), {"stride": 1, "pad": 1}, "float32"),
    ((3, 16, 30, 31), (3, 16, 5, 5), {"stride": 1, "pad": 0}, "float32"),
]
LARGE_GRADS = {  # which of the loops' and of the fast layer's backward
    "naive": ((1, 768, 6, 6), (16, 768, 3, 3), {"pad": 1}, "float64"),
    "fast": ((4, 64, 14, 14), (64, 64, 3, 3), {"pad": 1}, "float64"),
}
LARGE_IMAGE = (4, 8, 72, 72), (8, 8, 3, 3), {"pad": 1}, "float32"
LAST = "the gradient is a sum over the batch; this is only the last image's part"
EVERY_FILTER = "every filter sees the window: sum over them"
STEPS = "xp windows out db dw dwindows dxp dx"
STEP_CONVS = [  # windows that overlap and leave the last row out; gaps between the windows, without padding
    ((2, 3, 8, 7), (4, 3, 3, 2), {"stride": 2, "pad": 1}, "float64"),
    ((3, 2, 4, 7), (2, 2, 1, 2), {"stride": 3, "pad": 0}, "float64"),
]
UNSORTED = "the rows of dOut are the filters: move their axis before that of the images, and then reshape"
NO_END = "-0 is 0: where pad is 0, a slice from pad to -pad is empty"
WRONG_SIDE = "the padding has pad pixels on each side, and is cut off on the wrong one"


def conv_forward_naive(learner):
    _check_conv_forward(learner, learner.conv_layers.conv_forward_naive, CONVS)


def conv_steps(learner):
    function = learner.derivations.conv_steps
    for (x, w, b), conv_param, case in _convs(learner, STEP_CONVS):
        dout = draw_dout(learner, conv, (x, w, b), conv_param)
        wanted = _steps(x, w, b, dout, **conv_param)
        framed, dwindows = wanted["xp"].shape, wanted["dwindows"]
        places = _places(framed, w.shape[2:], conv_param)  # (p, q), (i, j)
        mistakes = {
            "out": {"b is missing": wanted["out"] - b[:, None, None]},
            "db": {"b is added at all i and j: sum over them, too": dout.sum(axis=0)},
            "dw": {LAST: _steps(x[-1:], w, b, dout[-1:], **conv_param)["dw"]},
            "dwindows": {EVERY_FILTER: dout[:, -1:, :, :, None, None] * w[-1][:, None, None]},
            "dxp": {
                OVERWRITTEN: _put(dwindows.transpose(0, 1, 4, 5, 2, 3), places, framed),
                "a pixel gets the sum of its entries in all windows": _put(dwindows, places.T, framed),
            },
            "dx": {
                "the padding has to be cut off": wanted["dxp"],
                WRONG_SIDE: wanted["dxp"][:, :, : x.shape[2], : x.shape[3]],
                NO_END: _crop_to_minus_pad(wanted["dxp"], conv_param["pad"]),
            },
        }
        check_steps(function, function(x, w, b, conv_param, dout), wanted, mistakes, case)


def _steps(x, w, b, dout, stride, pad):
    """The steps of a convolution, by PyTorch."""
    graph, (KH, KW) = Graph(), w.shape[2:]
    x, w, b = map(graph.leaf, ("x", "w", "b"), (x, w, b))
    windows = graph.add("xp", F.pad(x, 4 * [pad])).unfold(2, KH, stride).unfold(3, KW, stride)
    sums = torch.einsum("ncijpq,fcpq->nfij", graph.add("windows", windows), w)
    return graph.steps(graph.add("out", sums + b[:, None, None]), dout, STEPS)


def conv_db(learner):
    _check_conv_backward(learner, "naive", [*CONVS, LARGE_GRADS["naive"]], ["db"])


def conv_dw(learner):
    _check_conv_backward(learner, "naive", [*CONVS, LARGE_GRADS["naive"]], ["dw"])


def conv_dx(learner):
    _check_conv_backward(learner, "naive", [*CONVS, LARGE_GRADS["naive"]], ["dx"])


def conv_forward_fast(learner):
    _check_conv_forward(learner, learner.fast_layers.conv_forward_fast, CONVS + LARGE_CONVS)


def conv_backward_fast(learner):
    layers = learner.fast_layers
    _check_conv_backward(learner, "fast", [*CONVS, *LARGE_CONVS, LARGE_GRADS["fast"]], ["dx", "dw", "db"])
    for arrays, conv_param, case in _convs(learner, CONVS[:1] + LARGE_CONVS):
        _, cache = forward(layers.conv_forward_fast, *arrays, conv_param)
        dout = draw_dout(learner, conv, arrays, conv_param)
        wanted = gradients(conv, arrays, dout, conv_param)
        check_without_dx(layers.conv_backward_fast, dout, cache, wanted, case, TOLERANCE[str(dout.dtype)])


def _check_conv_forward(learner, layer, cases):
    for arrays, conv_param, case in _convs(learner, cases):
        x, w, b = map(torch.tensor, arrays)
        out, _ = forward(layer, *arrays, dict(conv_param))
        wanted, bias = conv(x, w, b, conv_param), b[:, None, None]
        frame, unframed = 2 * conv_param.get("pad", 0), conv_param | {"pad": 0}
        mistakes = {
            "b is missing": wanted - bias,
            "b is added once, not once for each channel": wanted + (x.shape[1] - 1) * bias,
            "filters must not be mirrored": conv(x, w.flip(2, 3), b, conv_param),
            "the stride is ignored": _conv_at_stride_1(x, w, b, conv_param),
            "the product has the filters in its rows: its axes are F, N, H_out, W_out": _unexchanged(wanted),
            "the zeros are padded on all four sides": conv(F.pad(x, (0, frame, 0, frame)), w, b, unframed),
            "a filter sees all channels": conv(x[:, :1], w[:, :1], b, conv_param),
        }
        expect("out", out, wanted, mistakes, case, TOLERANCE[str(arrays[0].dtype)])


def _unexchanged(out):
    """The product W_row X_col + b, read as if the images came before the filters."""
    return out.transpose(0, 1).reshape(out.shape)


def _check_conv_backward(learner, kind, cases, names):
    """Check the gradients in names.  All forward passes come first: a cache must last until its own backward.

    conv_param has both entries, since backward promises nothing about absent ones.
    """
    module = learner.conv_layers if kind == "naive" else learner.fast_layers
    layer, backward = getattr(module, f"conv_forward_{kind}"), getattr(module, f"conv_backward_{kind}")
    cases = [(*shapes, {"stride": 1, "pad": 0} | conv_param, dtype) for *shapes, conv_param, dtype in cases]
    runs = [(*run, forward(layer, *run[0], dict(run[1]))) for run in _convs(learner, cases)]
    for arrays, conv_param, case, (_, cache) in runs:
        dout = draw_dout(learner, conv, arrays, conv_param)
        grads = several(backward, backward(dout, cache), "dx, dw, db")
        wanted = gradients(conv, arrays, dout, conv_param)
        mistakes = _conv_mistakes(arrays, dout, conv_param, wanted) if arrays[0].size < 1000 else ({}, {}, {})
        for name, *args in zip(("dx", "dw", "db"), grads, wanted, mistakes, strict=True):
            if name in names:
                expect(name, *args, case, TOLERANCE[str(dout.dtype)])


def _conv_mistakes(arrays, dout, conv_param, wanted):
    """What known mistakes would give for dx, dw and db."""
    x, w, b = arrays
    _, last_dw, last_db = gradients(conv, [x[-1:], w, b], dout[-1:], conv_param)
    dx, dw, _ = gradients(_conv_at_stride_1, arrays, dout, conv_param)
    of_dw = {MEAN: wanted[1] / len(x), LAST: last_dw, "the stride is ignored": dw}
    of_db = {MEAN: wanted[2] / len(x), LAST: last_db, "b is added at all i and j: sum over them, too": dout.sum(axis=0)}
    of_dx = {"the stride is ignored": dx} | _mistakes_of_dx(x, w, b, dout, conv_param)
    unsorted = gradients(conv, arrays, _unsorted(dout), conv_param)
    return [known | {UNSORTED: wrong} for known, wrong in zip((of_dx, of_dw, of_db), unsorted, strict=True)]


def _unsorted(dout):
    """The gradient (N, F, H_out, W_out) whose dOut, sorted by filters, is dout.reshape(F, -1)."""
    N, F, *size = dout.shape
    return np.ascontiguousarray(dout.reshape(F, N, *size).swapaxes(0, 1))


def _mistakes_of_dx(x, w, b, dout, conv_param):
    pad = conv_param.get("pad", 0)
    framed = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dframed, *_ = gradients(conv, [framed, w, b], dout, conv_param | {"pad": 0})
    last = dout[:, -1].reshape(len(x), 1, -1, 1) * w[-1].reshape(len(w[0]), 1, -1)
    put = _put(last, _places(framed.shape, w.shape[2:], conv_param).T, framed.shape)
    return {
        OVERWRITTEN: _crop(put, pad),
        WRONG_SIDE: dframed[:, :, : x.shape[2], : x.shape[3]],
        "the padding has to be cut off": dframed,
        NO_END: _crop_to_minus_pad(dframed, pad),
    }


def _convs(learner, cases):
    """(x, w, b), conv_param and a description, for each of the cases."""
    for shape, filters, conv_param, dtype in cases:
        arrays = [draw(learner, size, dtype) for size in (shape, filters, filters[:1])]
        yield arrays, dict(conv_param), f"x {shape}, w {filters}, conv_param {conv_param}"


def _conv_at_stride_1(x, w, b, conv_param):
    """The output, in the right shape, if window i started at row i instead of row i s."""
    _, _, H_out, W_out = conv(x, w, b, conv_param).shape
    return conv(x, w, b, conv_param | {"stride": 1})[:, :, :H_out, :W_out]


# im2col and col2im.


def im2col(learner):
    for (x, w, _), conv_param, _ in _convs(learner, CONVS):
        kernel = w.shape[2:]
        cols = learner.fast_layers.im2col(x, *kernel, **conv_param)
        patches = unfold(torch.tensor(x), kernel, conv_param).reshape(*x.shape[:2], *kernel, -1)  # n, c, p, q, (i, j)
        wanted, every = _columns(patches), unfold(torch.tensor(x), kernel, conv_param | {"stride": 1})
        mistakes = {
            "the columns run over n, i, j, n the slowest": _columns(patches, (1, 2, 3, 4, 0)),
            "the rows run over c, p, q, c the slowest": _columns(patches, (2, 3, 1, 0, 4)),
            "the rows run over c, p, q, q the fastest": _columns(patches, (1, 3, 2, 0, 4)),
            "a patch is a column, not a row": wanted.T,
            "the stride is ignored": every.swapaxes(0, 1).flatten(1),
            "n belongs to the columns: its axis has to come behind c, p and q before the reshape": _unmoved(patches),
        }
        expect("X_col", cols, wanted, mistakes, f"x {x.shape}, kernel {kernel}, {conv_param}")


def _columns(patches, order=(1, 2, 3, 0, 4)):
    """Patches (N, C, KH, KW, H_out * W_out) as a matrix, three of their axes its rows and two its columns."""
    return patches.permute(order).flatten(3).flatten(0, 2)


def _unmoved(patches):
    """Patches as a matrix of the right shape, reshaped from the order of axes that they have."""
    return patches.reshape(patches[0, ..., 0].numel(), -1)


def col2im(learner):
    for (x, w, _), conv_param, _ in _convs(learner, [*CONVS, LARGE_IMAGE]):
        kernel, pad, (N, C, H, W) = w.shape[2:], conv_param.get("pad", 0), x.shape
        framed = N, C, H + 2 * pad, W + 2 * pad
        index = _places(framed, kernel, conv_param)
        cols = draw(learner, (C * len(index), N * len(index.T)), x.dtype)
        got = learner.fast_layers.col2im(cols, x.shape, *kernel, **conv_param)
        patches = torch.tensor(cols).reshape(len(cols), N, -1).swapaxes(0, 1)
        wanted, count = (fold(array, x.shape, kernel, conv_param) for array in (patches, torch.ones_like(patches)))
        interleaved = torch.tensor(cols).reshape(len(cols), -1, N).permute(2, 0, 1)
        dframed = fold(patches, framed, kernel, conv_param | {"pad": 0})
        mistakes = {
            OVERWRITTEN: _crop(_put(patches.numpy(), index, framed), pad),
            WRONG_SIDE: dframed[:, :, :H, :W],
            "the padding has to be cut off": dframed,
            NO_END: _crop_to_minus_pad(dframed, pad),
            "a pixel gets the sum of its entries, not their mean": wanted / count.clamp(min=1),
            "the columns run over n, i, j, n the slowest": fold(interleaved, x.shape, kernel, conv_param),
            "the rows come first: reshape to C, KH, KW, N, H_out, W_out, and then move the axes": fold(
                torch.tensor(cols).reshape(N, len(cols), -1), x.shape, kernel, conv_param
            ),
        }
        case = f"x_shape {x.shape}, kernel {kernel}, {conv_param}"
        expect("the image", got, wanted, mistakes, case, TOLERANCE[str(x.dtype)])


def _places(shape, kernel, conv_param):
    """The number, in reading order, of the pixel that each window has at each place, for images of this shape."""
    plane = torch.arange(float(np.prod(shape[2:]))).reshape(1, 1, *shape[2:])
    return unfold(plane, kernel, {"stride": conv_param.get("stride", 1)})[0].long().numpy()


def _put(values, index, shape):
    """Images of this shape with values (N, C, ...) written at the pixels index, where a later one overwrites."""
    images = np.zeros((*shape[:2], shape[2] * shape[3]), values.dtype)
    images[:, :, index.ravel()] = values.reshape(*shape[:2], -1)
    return images.reshape(shape)


def _crop_to_minus_pad(images, pad):
    return images[:, :, pad:-pad, pad:-pad]


def _crop(images, pad):
    return images[:, :, pad : images.shape[2] - pad, pad : images.shape[3] - pad]
