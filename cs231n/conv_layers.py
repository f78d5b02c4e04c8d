"""Convolution and max-pooling, as loops that read like their formulas.

Images are (N, C, H, W): N examples, C channels, H rows and W columns of pixels.  Arrays are float32 or float64, and
results have the dtype of the input.  `cs231n.fast_layers` computes the same with matrix products.
"""

import numpy as np

from cs231n.arguments import check_count, check_dout, check_floats, check_keys


def conv_forward_naive(x, w, b, conv_param):
    """Slide F filters over each image: out[n,f,i,j] = sum over c,p,q of xp[n, c, i s + p, j s + q] w[f,c,p,q] + b[f].

    x (N, C, H, W) float.  w (F, C, KH, KW) float: filters.  b (F,) float: biases.  xp is x with a border of pad zeros.
    conv_param is a dict of stride, s >= 1 (1 if absent), and pad >= 0 (0 if absent), in pixels.
    Returns out (N, F, H_out, W_out), H_out = floor((H + 2 pad - KH) / s) + 1 and W_out likewise, of x's dtype, and the
    cache for `conv_backward_naive`.  Raises ValueError if shapes or conv_param do not fit.
    Mathematicians call this the cross-correlation; their convolution mirrors the filters first.
    Source: LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86, 1998, section II.A.
    """
    x, w, b = check_floats(x=x, w=w, b=b)
    shape, s, pad = conv_geometry(x, w, b, conv_param)
    KH, KW = w.shape[2:]
    xp = pad_images(x, pad)
    out = np.empty(shape, x.dtype)
    for n, f, i, j in np.ndindex(shape):
        rows, columns = slice(i * s, i * s + KH), slice(j * s, j * s + KW)
        out[n, f, i, j] = np.sum(xp[n, :, rows, columns] * w[f]) + b[f]
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout, cache):
    """Gradients of `conv_forward_naive`: dout[n,f,i,j] flows to every factor of the sum that made out[n,f,i,j].

    dout (N, F, H_out, W_out) float.  Returns dx (N, C, H, W), dw (F, C, KH, KW), db (F,), of x's dtype.
    Raises ValueError if dout does not have the shape of out.  Derived in notebook 04, section 4.2.
    """
    x, w, b, conv_param = cache
    shape, s, pad = conv_geometry(x, w, b, conv_param)
    dout = check_dout(dout, shape, x.dtype)
    KH, KW = w.shape[2:]
    xp = pad_images(x, pad)
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), np.zeros_like(b)
    for n, f, i, j in np.ndindex(shape):
        rows, columns = slice(i * s, i * s + KH), slice(j * s, j * s + KW)
        dxp[n, :, rows, columns] += dout[n, f, i, j] * w[f]
        dw[f] += dout[n, f, i, j] * xp[n, :, rows, columns]
        db[f] += dout[n, f, i, j]
    return crop_images(dxp, pad), dw, db


def max_pool_forward_naive(x, pool_param):
    """Keep the maximum of each window of each channel: out[n,c,i,j] = max over p,q of x[n, c, i s + p, j s + q].

    x (N, C, H, W) float.  pool_param is a dict of pool_height and pool_width, 0 <= p < pool_height and
    0 <= q < pool_width, and stride, s >= 1, in pixels.  Windows overlap if s is smaller than the window.
    Returns out (N, C, H_out, W_out), H_out = floor((H - pool_height) / s) + 1 and W_out likewise, of x's dtype, and
    the cache for `max_pool_backward_naive`.  Raises ValueError if x or pool_param do not fit.
    """
    shape, s, (PH, PW) = pool_geometry(x, pool_param)
    out = np.empty(shape, x.dtype)
    for n, c, i, j in np.ndindex(shape):
        rows, columns = slice(i * s, i * s + PH), slice(j * s, j * s + PW)
        out[n, c, i, j] = x[n, c, rows, columns].max()
    return out, (x, pool_param)


def max_pool_backward_naive(dout, cache):
    """Gradient of `max_pool_forward_naive`: dout[n,c,i,j] goes to the pixel that was the maximum of its window.

    Where several are equal, as is common after a ReLU, the first in reading order gets all of it.
    dout (N, C, H_out, W_out) float.  Returns dx (N, C, H, W), of x's dtype.
    Raises ValueError if dout does not have the shape of out.
    """
    x, pool_param = cache
    shape, s, (PH, PW) = pool_geometry(x, pool_param)
    dout = check_dout(dout, shape, x.dtype)
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(shape):
        rows, columns = slice(i * s, i * s + PH), slice(j * s, j * s + PW)
        p, q = np.unravel_index(np.argmax(x[n, c, rows, columns]), (PH, PW))
        dx[n, c, i * s + p, j * s + q] += dout[n, c, i, j]
    return dx


# Shared with the fast layers.


def conv_geometry(x, w, b, conv_param):
    """The shape of a convolution's output, its stride and its pad.  Raises ValueError if the arguments do not fit."""
    check_keys("conv_param", conv_param, ("stride", "pad"))
    s = check_count("conv_param['stride']", conv_param.get("stride", 1), 1)
    pad = check_count("conv_param['pad']", conv_param.get("pad", 0), 0)
    if x.ndim != 4 or w.ndim != 4 or x.size == 0 or w.size == 0 or w.shape[1] != x.shape[1] or b.shape != w.shape[:1]:
        raise ValueError(
            f"wanted x (N, C, H, W), w (F, C, KH, KW) and b (F,), none of them empty, "
            f"got x {x.shape}, w {w.shape} and b {b.shape}"
        )
    padded = x.shape[2] + 2 * pad, x.shape[3] + 2 * pad
    return (len(x), len(w), *output_size(padded, w.shape[2:], s)), s, pad


def pool_geometry(x, pool_param):
    """The shape of a pooling's output, its stride and its window (PH, PW).  Raises ValueError for bad arguments."""
    check_floats(x=x)
    names = "pool_height", "pool_width", "stride"
    check_keys("pool_param", pool_param, names)
    PH, PW, s = (check_count(f"pool_param[{name!r}]", pool_param.get(name), 1) for name in names)
    if x.ndim != 4 or x.size == 0:
        raise ValueError(f"x: wanted images (N, C, H, W), at least one pixel, got {x.shape}")
    return (*x.shape[:2], *output_size(x.shape[2:], (PH, PW), s)), s, (PH, PW)


def pad_images(x, pad):
    """x with a border of zeros, pad pixels wide, of x's dtype: (N, C, H + 2 pad, W + 2 pad)."""
    if not pad:
        return x
    N, C, H, W = x.shape
    xp = np.zeros((N, C, H + 2 * pad, W + 2 * pad), x.dtype)
    xp[:, :, pad:-pad, pad:-pad] = x
    return xp


def crop_images(xp, pad):
    """xp without its border, a view: the inverse of `pad_images`."""
    return xp[:, :, pad:-pad, pad:-pad] if pad else xp


def check_window(kernel_h, kernel_w, stride, pad):
    """Raise ValueError unless these are whole numbers, all but pad above 0."""
    check_count("kernel_h", kernel_h, 1)
    check_count("kernel_w", kernel_w, 1)
    check_count("stride", stride, 1)
    check_count("pad", pad, 0)


def output_size(size, window, stride):
    """How many times a window fits into an image, moved by stride pixels at a time: (H_out, W_out).

    size: (H, W) of the image, its border included.  window: (KH, KW).  Raises ValueError if the window is larger.
    """
    if window[0] > size[0] or window[1] > size[1]:
        raise ValueError(f"a window of {window} pixels does not fit into an image of {size}, its padding included")
    return tuple((length - reach) // stride + 1 for length, reach in zip(size, window, strict=True))
