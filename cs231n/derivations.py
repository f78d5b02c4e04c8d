"""The derivations of notebooks 01 to 04 as code: each function takes the steps one at a time, one operation a line.

Forward comes first, then backward through the same lines from the last to the first; dname is the gradient of the loss
with respect to name, and has its shape.  A function returns a dict from the names in its docstring to their values, in
that order.  Further names do no harm, so `return locals()` is one way to write it.

These functions are for reading and checking; the layers in `layers`, `batchnorm`, `dropout` and `conv_layers` do the
same in fewer lines or less memory.  Arrays are float32 or float64, and results have the dtype of x.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cs231n.arguments import check_floats


def affine_softmax_steps(x, w, b, y):
    """The steps of an affine layer with the softmax loss on its scores: notebook 01, sections 1.1 and 1.3.

    x (N, D), w (D, C), b (C,) float.  y (N,) int: labels, 0 <= y < C.  The loss is the mean over the batch; shift is
    the largest score of each example, and no gradient goes through it.  Returns a dict of
      scores (N, C), shift (N, 1), shifted (N, C), exps (N, C), sums (N, 1), log_sums (N, 1), log_p (N, C), loss;
      dlog_p (N, C), dlog_sums (N, 1), dsums (N, 1), dexps (N, C), dshifted (N, C), dscores (N, C), db (C,), dw (D, C),
      dx (N, D).
    """
    check_floats(x=x, w=w, b=b)
    N = len(x)
    true = np.arange(len(x)), y  # the index of each example's true class
    scores = x @ w + b
    shift = scores.max(axis=1, keepdims=True)
    shifted = scores - shift
    exps = np.exp(shifted)
    sums = exps.sum(axis=1, keepdims=True)
    log_sums = np.log(sums)
    log_p = shifted - log_sums
    loss = -log_p[true].mean()

    dlog_p = np.zeros_like(log_p)
    dlog_p[true] = -1 / N  # loss = -mean of log_p[true]
    dlog_sums = -dlog_p.sum(axis=1, keepdims=True)  # log_p = shifted - log_sums
    dsums = dlog_sums / sums  # log_sums = log(sums)
    dexps = np.broadcast_to(dsums, exps.shape)  # sums = sum of exps
    dshifted = dlog_p + dexps * exps  # shifted is used twice: log_p, and exps = exp(shifted)
    dscores = dshifted  # shifted = scores - shift
    db = dscores.sum(axis=0)  # scores = x w + b
    dw = x.T @ dscores
    dx = dscores @ w.T
    return {
        "scores": scores, "shift": shift, "shifted": shifted, "exps": exps, "sums": sums, "log_sums": log_sums,
        "log_p": log_p, "loss": loss, "dlog_p": dlog_p, "dlog_sums": dlog_sums, "dsums": dsums, "dexps": dexps,
        "dshifted": dshifted, "dscores": dscores, "db": db, "dw": dw, "dx": dx,
    }  # fmt: skip


def batchnorm_steps(x, gamma, beta, eps, dout):
    """The steps of batch norm in training, with backward through the graph: notebook 02, sections 2.1 and 2.2.

    x (N, D), gamma (D,), beta (D,) float; eps, a number; dout (N, D) float.  xc is the centred x; std is the root of
    var + eps, and inv is 1 / std.  Returns a dict of
      mu (D,), xc (N, D), var (D,), std (D,), inv (D,), xhat (N, D), out (N, D);
      dbeta (D,), dgamma (D,), dxhat (N, D), dinv (D,), dstd (D,), dvar (D,), dxc (N, D), dmu (D,), dx (N, D).
    """
    check_floats(x=x, gamma=gamma, beta=beta, dout=dout)
    N = len(x)
    mu = x.mean(axis=0)
    xc = x - mu
    var = (xc**2).mean(axis=0)
    std = np.sqrt(var + eps)
    inv = 1 / std
    xhat = xc * inv
    out = beta + gamma * xhat

    dbeta = dout.sum(axis=0)  # out = gamma * xhat + beta
    dgamma = (dout * xhat).sum(axis=0)
    dxhat = dout * gamma
    dinv = (dxhat * xc).sum(axis=0)  # xhat = xc * inv
    dstd = -dinv / std**2  # inv = 1 / std
    dvar = dstd / (2 * std)  # std = sqrt(var + eps)
    dxc = dxhat * inv + xc * (2 * dvar / N)  # xc is used twice: xhat = xc * inv, var = mean(xc^2)
    dmu = -dxc.sum(axis=0)  # xc = x - mu
    dx = dxc + dmu / N  # x is used twice: xc = x - mu, mu = mean(x)
    return {
        "mu": mu, "xc": xc, "var": var, "std": std, "inv": inv, "xhat": xhat, "out": out, "dbeta": dbeta,
        "dgamma": dgamma, "dxhat": dxhat, "dinv": dinv, "dstd": dstd, "dvar": dvar, "dxc": dxc, "dmu": dmu, "dx": dx,
    }  # fmt: skip


def batchnorm_closed_form_steps(x, gamma, eps, dout):
    """The steps to the closed form of batch norm's backward pass: notebook 02, section 2.3.

    x (N, D), gamma (D,) float; eps, a number; dout (N, D) float.  Names such as dvar_dx are slopes: how much var moves
    when x_n moves, at [n, d] for column d.  Where an output has an example of its own, m, that comes first: dxhat_dx at
    [m, n, d].  mean_dxhat and mean_dxhat_xhat are the two means over the batch that the closed form needs.
    Returns a dict of
      xc (N, D), std (D,), xhat (N, D), dxc_dx (N, N), dvar_dx (N, D), dstd_dx (N, D), dxhat_dx (N, N, D);
      dxhat (N, D), mean_dxhat (D,), mean_dxhat_xhat (D,), dx (N, D).
    """
    check_floats(x=x, gamma=gamma, dout=dout)
    N = len(x)
    xc = x - x.mean(axis=0)
    std = np.sqrt((xc**2).mean(axis=0) + eps)
    xhat = xc / std
    dxc_dx = np.eye(N, dtype=x.dtype) - 1 / N
    dvar_dx = 2 / N * xc
    dstd_dx = dvar_dx / (2 * std)
    dxhat_dx = (dxc_dx[:, :, None] - xhat[:, None] * dstd_dx) / std  # xhat = xc / std, a quotient

    dxhat = gamma * dout
    mean_dxhat = dxhat.mean(axis=0)
    mean_dxhat_xhat = (dxhat * xhat).mean(axis=0)
    dx = (dxhat - mean_dxhat - xhat * mean_dxhat_xhat) / std  # the sum over m of dxhat[m] * dxhat_dx[m]
    return {
        "xc": xc, "std": std, "xhat": xhat, "dxc_dx": dxc_dx, "dvar_dx": dvar_dx, "dstd_dx": dstd_dx,
        "dxhat_dx": dxhat_dx, "dxhat": dxhat, "mean_dxhat": mean_dxhat, "mean_dxhat_xhat": mean_dxhat_xhat, "dx": dx,
    }  # fmt: skip


def layernorm_steps(x, gamma, beta, eps, dout):
    """The steps of layer norm: notebook 02, section 2.7.

    x (N, D), gamma (D,), beta (D,) float; eps, a number; dout (N, D) float.  The names are those of `batchnorm_steps`;
    the statistics are those of each example.  Returns a dict of
      mu (N, 1), xc (N, D), var (N, 1), std (N, 1), inv (N, 1), xhat (N, D), out (N, D);
      dbeta (D,), dgamma (D,), dxhat (N, D), dinv (N, 1), dstd (N, 1), dvar (N, 1), dxc (N, D), dmu (N, 1), dx (N, D).
    """
    check_floats(x=x, gamma=gamma, beta=beta, dout=dout)
    D = x.shape[1]
    mu = x.mean(axis=1, keepdims=True)
    xc = x - mu
    var = (xc**2).mean(axis=1, keepdims=True)
    std = np.sqrt(var + eps)
    inv = 1 / std
    xhat = xc * inv
    out = beta + gamma * xhat

    dbeta = dout.sum(axis=0)  # out = gamma * xhat + beta: each example uses the same gamma and beta
    dgamma = (dout * xhat).sum(axis=0)
    dxhat = dout * gamma
    dinv = (dxhat * xc).sum(axis=1, keepdims=True)  # xhat = xc * inv: each feature uses the same inv
    dstd = -dinv / std**2  # inv = 1 / std
    dvar = dstd / (2 * std)  # std = sqrt(var + eps)
    dxc = dxhat * inv + xc * (2 * dvar / D)  # xc is used twice: xhat = xc * inv, var = mean(xc^2)
    dmu = -dxc.sum(axis=1, keepdims=True)  # xc = x - mu
    dx = dxc + dmu / D  # x is used twice: xc = x - mu, mu = mean(x)
    return {
        "mu": mu, "xc": xc, "var": var, "std": std, "inv": inv, "xhat": xhat, "out": out, "dbeta": dbeta,
        "dgamma": dgamma, "dxhat": dxhat, "dinv": dinv, "dstd": dstd, "dvar": dvar, "dxc": dxc, "dmu": dmu, "dx": dx,
    }  # fmt: skip


def dropout_steps(x, p, uniform, dout):
    """The steps of dropout in training: notebook 03, section 3.1.

    x, dout: float, any shape.  p: the probability of keeping a unit.  uniform (the shape of x): random numbers between
    0 and 1; a unit is kept where its number is below p.  mask is True there, and kept is x there and 0 elsewhere.
    Returns a dict of these, all in the shape of x:
      mask (bool), kept, out;
      dkept, dx.
    """
    check_floats(x=x, dout=dout)
    mask = uniform < p
    kept = x * mask
    out = kept / p

    dkept = dout / p  # out = kept / p
    dx = dkept * mask  # kept = x * mask; the mask is drawn, not computed, so it has no gradient
    return {"mask": mask, "kept": kept, "out": out, "dkept": dkept, "dx": dx}


def conv_steps(x, w, b, conv_param, dout):
    """The steps of a convolution: notebook 04, sections 4.1 and 4.2.

    x (N, C, H, W), w (F, C, KH, KW), b (F,), dout (N, F, H_out, W_out) float.  conv_param: a dict of stride and pad.
    xp is x in its frame of zeros, with HP = H + 2 pad rows and WP = W + 2 pad columns.  windows[n, c, i, j] is the part
    of xp[n, c] that the filters look at for the output at i, j.  Returns a dict of
      xp (N, C, HP, WP), windows (N, C, H_out, W_out, KH, KW), out (N, F, H_out, W_out);
      db (F,), dw (F, C, KH, KW), dwindows (N, C, H_out, W_out, KH, KW), dxp (N, C, HP, WP), dx (N, C, H, W).
    """
    check_floats(x=x, w=w, b=b, dout=dout)
    s, pad = conv_param["stride"], conv_param["pad"]
    (H, W), (KH, KW), (H_out, W_out) = x.shape[2:], w.shape[2:], dout.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(xp, (KH, KW), axis=(2, 3))[:, :, ::s, ::s]
    out = np.einsum("ncijpq,fcpq->nfij", windows, w) + b[:, None, None]

    db = dout.sum(axis=(0, 2, 3))  # every output of filter f has the term b[f]
    dw = np.einsum("nfij,ncijpq->fcpq", dout, windows)  # a weight is used at every n, i, j
    dwindows = np.einsum("nfij,fcpq->ncijpq", dout, w)  # a window is seen by every filter
    dxp = np.zeros_like(xp)
    for p, q in np.ndindex(KH, KW):  # a pixel is in several windows
        dxp[:, :, p : p + s * H_out : s, q : q + s * W_out : s] += dwindows[..., p, q]
    dx = dxp[:, :, pad : pad + H, pad : pad + W]
    return {
        "xp": xp, "windows": windows, "out": out,
        "db": db, "dw": dw, "dwindows": dwindows, "dxp": dxp, "dx": dx,
    }  # fmt: skip
