"""Convolution and max-pooling as in `cs231n.conv_layers`: the same arguments and results, through im2col and GEMM.

im2col copies each patch of an image that a filter looks at into a column of X_col; a filter is a row of W_row.  A
convolution is then one matrix product, Out = W_row X_col, for which every machine has fast code (BLAS calls it GEMM).
The columns take KH * KW times the memory of the images, more than a cache holds for a whole batch.  With
`cs231n.parallel`, each core takes a few images at a time and frees their columns before taking the next.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cs231n.arguments import check_count, check_dout, check_floats
from cs231n.conv_layers import check_window, conv_geometry, crop_images, output_size, pad_images, pool_geometry
from cs231n.parallel import in_blocks


def conv_forward_fast(x, w, b, conv_param):
    """As `conv_forward_naive`: Out = W_row X_col + b."""
    x, w, b = check_floats(x=x, w=w, b=b)
    shape, stride, pad = conv_geometry(x, w, b, conv_param)
    F, _, KH, KW = w.shape
    W_row, out = w.reshape(F, -1), np.empty(shape, x.dtype)

    def forward(images):
        X_col = im2col(x[images], KH, KW, stride, pad)
        Out = W_row @ X_col
        Out += b[:, None]
        out[images] = Out.reshape(F, -1, *shape[2:]).swapaxes(0, 1)

    in_blocks(forward, len(x), W_row[0].size * out[0, 0].size)
    return out, (x, w, b, conv_param)


def conv_backward_fast(dout, cache, need_dx=True):
    """As `conv_backward_naive`: dW_row = dOut X_col^T, db = sum of dOut's columns, and dX_col = W_row^T dOut.

    The first layer of a net does not need dx: with need_dx=False it is None and is not computed.
    """
    x, w, b, conv_param = cache
    shape, stride, pad = conv_geometry(x, w, b, conv_param)
    dout = check_dout(dout, shape, x.dtype)
    F, _, KH, KW = w.shape
    W_row, dx = w.reshape(F, -1), np.empty_like(x) if need_dx else None

    def backward(images):
        X_col = im2col(x[images], KH, KW, stride, pad)
        dOut = dout[images].swapaxes(0, 1).reshape(F, -1)
        if need_dx:
            dx[images] = col2im(W_row.T @ dOut, x[images].shape, KH, KW, stride, pad)
        return (X_col @ dOut.T).T, dOut.sum(axis=1)  # BLAS computes this transpose in less time

    dW_row, db = in_blocks(backward, len(x), W_row[0].size * dout[0, 0].size)
    return dx, dW_row.reshape(w.shape), db


def im2col(x, kernel_h, kernel_w, stride=1, pad=0):
    """The patches of x (N, C, H, W) that a kernel looks at, as columns: (C * kernel_h * kernel_w, N * H_out * W_out).

    The rows run over c, p, q, the columns over n, i, j: X_col[(c,p,q), (n,i,j)] = xp[n, c, i stride + p, j stride + q].
    xp, H_out and W_out are those of `conv_forward_naive`.  x: any dtype.  Returns X_col, of x's dtype.
    """
    check_window(kernel_h, kernel_w, stride, pad)
    if not isinstance(x, np.ndarray) or x.ndim != 4:
        raise ValueError(f"x: wanted an array of images (N, C, H, W), got {type(x).__name__} of shape {np.shape(x)}")
    kernel = kernel_h, kernel_w
    patches = sliding_window_view(pad_images(x, pad), kernel, axis=(2, 3))[:, :, ::stride, ::stride]
    return patches.transpose(1, 4, 5, 0, 2, 3).reshape(x.shape[1] * kernel_h * kernel_w, -1)


def col2im(cols, x_shape, kernel_h, kernel_w, stride=1, pad=0):
    """The adjoint of `im2col`: each entry of cols is added to the pixel that it was, or would have been, copied from.

    cols (C * kernel_h * kernel_w, N * H_out * W_out) float.  x_shape: (N, C, H, W).  Returns an array of that shape and
    of cols' dtype.
    """
    _check_columns(cols, x_shape, kernel_h, kernel_w, stride, pad)
    N, C, H, W = x_shape
    H_out, W_out = output_size((H + 2 * pad, W + 2 * pad), (kernel_h, kernel_w), stride)
    cols = cols.reshape(C, kernel_h, kernel_w, N, H_out, W_out)
    xp = np.zeros((C, N, H + 2 * pad, W + 2 * pad), cols.dtype)
    for p, q in np.ndindex(kernel_h, kernel_w):
        xp[:, :, p : p + stride * H_out : stride, q : q + stride * W_out : stride] += cols[:, p, q]
    return crop_images(xp.swapaxes(0, 1), pad)


def _check_columns(cols, x_shape, kernel_h, kernel_w, stride, pad):
    check_window(kernel_h, kernel_w, stride, pad)
    check_floats(cols=cols)
    if np.shape(x_shape) != (4,):
        raise ValueError(f"x_shape: wanted (N, C, H, W), got {x_shape!r}")
    N, C, H, W = (check_count("x_shape", size, 0) for size in x_shape)
    H_out, W_out = output_size((H + 2 * pad, W + 2 * pad), (kernel_h, kernel_w), stride)
    wanted = C * kernel_h * kernel_w, N * H_out * W_out
    if cols.shape != wanted:
        raise ValueError(f"cols: wanted the columns of images {tuple(x_shape)}, {wanted}, got {cols.shape}")


def max_pool_forward_fast(x, pool_param):
    """As `max_pool_forward_naive`, for all windows at once: a running maximum over the positions p, q in the window."""
    shape, stride, window = pool_geometry(x, pool_param)
    first, *others = np.ndindex(window)
    out = np.empty(shape, x.dtype)

    def forward(images):
        pixels = _pixels(x[images], shape, stride)
        out[images] = pixels(*first)
        for p, q in others:
            np.maximum(out[images], pixels(p, q), out=out[images])

    in_blocks(forward, len(x), x[0].size)
    return out, (x, out, pool_param)


def max_pool_backward_fast(dout, cache):
    """As `max_pool_backward_naive`, for finite numbers: the first position with the maximum takes all of dout."""
    x, out, pool_param = cache
    shape, stride, window = pool_geometry(x, pool_param)
    dout = check_dout(dout, shape, x.dtype)
    dx = np.zeros_like(x)

    def backward(images):
        pixels, dpixels = _pixels(x[images], shape, stride), _pixels(dx[images], shape, stride)
        open_windows = np.ones(dout[images].shape, bool)  # those whose maximum has not been reached yet
        for p, q in np.ndindex(window):
            first = open_windows & (pixels(p, q) == out[images])
            open_windows ^= first
            if p < stride and q < stride:  # no other position of a window has covered these pixels
                np.multiply(dout[images], first, out=dpixels(p, q))
            else:
                dpixels(p, q)[...] += dout[images] * first

    in_blocks(backward, len(x), 2 * x[0].size)
    return dx


def _pixels(x, shape, stride):
    """A function of p and q that gives a view (N, C, H_out, W_out) of the pixels at p, q in their windows."""
    H, W = stride * shape[2], stride * shape[3]
    return lambda p, q: x[:, :, p : p + H : stride, q : q + W : stride]
