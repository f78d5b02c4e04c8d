"""Checks of exercises 4.6 and 4.7: max-pooling, as loops and without them."""

import numpy as np

from grading.checks.common import draw, draw_dout, forward, gradients
from grading.checks.images import OVERWRITTEN, fold, pool, unfold
from grading.expect import expect
from grading.oracle import F, torch

POOLS = [  # shape of x, window, stride
    ((2, 3, 5, 7), (2, 2), 2),  # the last row and column are in no window
    ((1, 1, 4, 5), (2, 2), 1),
    ((2, 2, 7, 6), (3, 2), 2),
    ((1, 2, 5, 6), (2, 3), 1),
    ((1, 1, 6, 5), (3, 3), 1),
    ((2, 1, 6, 7), (1, 2), 3),  # gaps between the windows
]
LARGE_POOLS = [((2, 1, 513, 512), (3, 2), 2)]  # more than one block
LARGE_WINDOWS = (2, 4, 224, 224), (8, 8), 8  # few windows, for loops


def max_pool_forward_naive(learner):
    _check_pool_forward(learner, learner.conv_layers.max_pool_forward_naive, POOLS)


def max_pool_backward_naive(learner):
    _check_pool_backward(learner, learner.conv_layers, "naive", [*POOLS, LARGE_WINDOWS])


def max_pool_forward_fast(learner):
    _check_pool_forward(learner, learner.fast_layers.max_pool_forward_fast, POOLS + LARGE_POOLS)


def max_pool_backward_fast(learner):
    _check_pool_backward(learner, learner.fast_layers, "fast", POOLS + LARGE_POOLS)


def _check_pool_forward(learner, layer, cases):
    for x, pool_param, case in _pools(learner, cases):
        out, _ = forward(layer, x, dict(pool_param))
        x, window, stride = torch.tensor(x), (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"]
        wanted = F.max_pool2d(x, window, stride)
        H_out, W_out = wanted.shape[2:]
        endless = F.pad(x, (0, 9, 0, 9), value=-torch.inf)
        mistakes = {
            "a maximum that starts at 0 is wrong where all pixels are negative": wanted.clamp(min=0),
            "height and width are swapped": F.max_pool2d(endless, window[::-1], stride)[:, :, :H_out, :W_out],
            "the stride is ignored": F.max_pool2d(x, window, 1)[:, :, :H_out, :W_out],
            "the stride need not be the window's size": F.max_pool2d(endless, window)[:, :, :H_out, :W_out],
            "out is the maximum of a window, not its mean": F.avg_pool2d(x, window, stride),
        }
        expect("out", out, wanted, mistakes, case)


def _check_pool_backward(learner, module, kind, cases):
    layer, backward = getattr(module, f"max_pool_forward_{kind}"), getattr(module, f"max_pool_backward_{kind}")
    runs = [(*run, forward(layer, run[0], dict(run[1]))) for run in _pools(learner, cases)]
    for x, pool_param, case, (_, cache) in runs:
        dout = draw_dout(learner, pool, [x], pool_param)
        (wanted,) = gradients(pool, [x], dout, pool_param)
        mistakes = _pool_mistakes(x, dout, pool_param) if x.size < 1000 else {}
        expect("dx", backward(dout, cache), wanted, mistakes, case)


def _pool_mistakes(x, dout, pool_param):
    """What known mistakes would give for dx."""
    window = pool_param["pool_height"], pool_param["pool_width"]
    planes = torch.tensor(x).reshape(-1, 1, *x.shape[2:])
    patches, given = unfold(planes, window, pool_param), torch.tensor(dout).reshape(len(planes), 1, -1)
    largest = patches == patches.amax(1, keepdim=True)
    last = largest & (largest.flip(1).cumsum(1).flip(1) == 1)
    _, index = F.max_pool2d(planes, window, pool_param["stride"], return_indices=True)
    put = np.zeros((len(planes), planes[0].numel()), x.dtype)
    np.put_along_axis(put, index.flatten(1).numpy(), dout.reshape(len(planes), -1), axis=1)

    def shared_out(shares):
        return fold(shares * given, planes.shape, window, pool_param).reshape(x.shape)

    return {
        OVERWRITTEN: put.reshape(x.shape),
        "among equal maxima the first gets everything, the others nothing": shared_out(largest),
        "among equal maxima the first gets everything, not a share": shared_out(largest / largest.sum(1, keepdim=True)),
        "among equal maxima the first gets it, not the last": shared_out(last),
        "only the maximum of a window gets the gradient": shared_out(torch.ones_like(patches)),
    }


def _pools(learner, cases):
    """x, pool_param and a description; x has only different pixels, or ties, or only negative ones."""
    for shape, window, stride in cases:
        pool_param = {"pool_height": window[0], "pool_width": window[1], "stride": stride}
        words = f"x {shape}, pool_param {pool_param}"
        x = draw(learner, shape)
        if x.size > 1000:
            yield x.astype("float32"), dict(pool_param), words
        else:
            yield x, dict(pool_param), words
            yield np.round(x).astype("float32"), dict(pool_param), f"{words}, many pixels equal"
            yield -1 - abs(x), dict(pool_param), f"{words}, all pixels negative"
