"""Batch norm, with two derivations of its backward pass, and layer, spatial batch and group norm.

All standardize x to mean 0 and variance 1, then scale by gamma and shift by beta.  They differ in what they average
over.  For x (N, D), batch norm averages over the N examples, layer norm over the D features of an example.  For images
x (N, C, H, W), spatial batch norm averages each channel over examples and pixels; group norm averages each example over
the pixels of a group of channels.  Arrays are float32 or float64, and results have the dtype of the input.
"""

import numpy as np

from cs231n.arguments import check_count, check_dout, check_floats, check_keys, check_number


def batchnorm_forward(x, gamma, beta, bn_param):
    """Standardize each feature over the batch: xhat = (x - mu) / sqrt(var + eps), out = gamma * xhat + beta.

    x (N, D) float.  gamma (D,) float: scales.  beta (D,) float: shifts.  mu and var (D,) are the mean and the (biased)
    variance of the batch in training, and their running averages at test time.
    bn_param is a dict of
      mode: "train" or "test".
      eps >= 0: added to the variance, so that a constant feature does not divide by zero (1e-5 if absent).
      momentum, 0 to 1: how much the averages keep, running = momentum * running + (1 - momentum) * batch (0.9 if
      absent).  torch calls 1 - momentum the momentum, and averages the unbiased variance, N / (N - 1) times as large.
      running_mean, running_var (D,) float: read in test mode, updated in train mode (from 0 if absent).
    Returns out (N, D), of x's dtype, and the cache for `batchnorm_backward` and `batchnorm_backward_alt`.
    Raises ValueError if shapes or bn_param do not fit.
    Source: Ioffe and Szegedy, Batch normalization, ICML 2015, algorithm 1.
    """
    x, gamma, beta = check_floats(x=x, gamma=gamma, beta=beta)
    _check_shapes(x, gamma, beta)
    _check_param("bn_param", bn_param, ("mode", "eps", "momentum", "running_mean", "running_var"))
    _check_running(bn_param, gamma.shape)
    mode, eps, momentum = bn_param.get("mode"), float(bn_param.get("eps", 1e-5)), float(bn_param.get("momentum", 0.9))
    if mode == "train":
        xhat, *statistics = _standardize(x, eps, axis=0)
        mu, var, std = (statistic[0] for statistic in statistics)
        for name, batch in (("running_mean", mu), ("running_var", var)):
            bn_param[name] = momentum * bn_param.get(name, 0.0) + (1 - momentum) * batch
    elif mode == "test":
        if "running_mean" not in bn_param or "running_var" not in bn_param:
            raise ValueError("bn_param: test mode needs running_mean and running_var; run a batch in train mode first")
        std = np.sqrt(bn_param["running_var"] + eps).astype(x.dtype, copy=False)
        xhat = x - bn_param["running_mean"].astype(x.dtype, copy=False)
        xhat /= std
    else:
        raise ValueError(f"bn_param['mode']: wanted 'train' or 'test', got {mode!r}")
    out = gamma * xhat
    out += beta
    return out, (xhat, gamma, std, mode)


def batchnorm_backward(dout, cache):
    """Gradients of `batchnorm_forward`, by walking its computational graph backwards, one operation a line.

    The graph: mu = mean(x), xc = x - mu, var = mean(xc^2), std = sqrt(var + eps), inv = 1 / std, xhat = xc * inv.
    dout (N, D) float.  Returns dx (N, D), dgamma (D,), dbeta (D,), of x's dtype.  In test mode mu and var are
    constants.
    """
    xhat, gamma, std, mode = cache
    dout = check_dout(dout, xhat.shape, xhat.dtype)
    N = len(dout)
    dbeta = dout.sum(axis=0)  # out = gamma * xhat + beta
    dgamma = (dout * xhat).sum(axis=0)
    dxhat = dout * gamma
    inv = 1 / std
    dxc = dxhat * inv  # xhat = xc * inv
    if mode == "test":
        return dxc, dgamma, dbeta
    xc = xhat * std
    dinv = (dxhat * xc).sum(axis=0)
    dstd = -dinv / std**2  # inv = 1 / std
    dvar = 0.5 * dstd * inv  # std = sqrt(var + eps)
    dxc += xc * (2 * dvar / N)  # var = mean(xc^2)
    dmu = -dxc.sum(axis=0)  # xc = x - mu
    dx = dxc + dmu / N  # mu = mean(x)
    return dx, dgamma, dbeta


def batchnorm_backward_alt(dout, cache):
    """The same gradients in closed form.

    dx = (N dxhat - sum dxhat - xhat * sum(dxhat * xhat)) / (N std), where dxhat = gamma * dout and the sums run over
    the batch.  gamma is the same for the whole batch and can be taken out of the sums, which are then dbeta and dgamma.
    The lines below work in place: dx is the only new (N, D) array.
    dout (N, D) float.  Returns dx (N, D), dgamma (D,), dbeta (D,), of x's dtype.
    """
    xhat, gamma, std, mode = cache
    dout = check_dout(dout, xhat.shape, xhat.dtype)
    N = len(dout)
    dbeta = dout.sum(axis=0)
    dgamma = np.einsum("nd,nd->d", dout, xhat)
    if mode == "test":
        return dout * (gamma / std), dgamma, dbeta
    dx = xhat * (dgamma / -N)
    dx += dout
    dx -= dbeta / N
    dx *= gamma / std
    return dx, dgamma, dbeta


def fold_batchnorm(w, b, gamma, beta, bn_param):
    """The one affine layer that does the work of two: an affine layer, and batch norm in test mode after it.

    w (D, M), b (M,) float: of the affine layer.  gamma, beta (M,) float, bn_param with its running averages (M,): of
    batch norm, as in `batchnorm_forward`.
    Returns w (D, M) and b (M,) of the one layer, of w's dtype.
    Raises ValueError if shapes or bn_param do not fit.
    """
    w, b, gamma, beta = check_floats(w=w, b=b, gamma=gamma, beta=beta)
    if w.ndim != 2 or not w.shape[1:] == b.shape == gamma.shape == beta.shape:
        raise ValueError(
            f"wanted w (D, M), with b, gamma and beta (M,), "
            f"got w {w.shape}, b {b.shape}, gamma {gamma.shape} and beta {beta.shape}"
        )
    _check_param("bn_param", bn_param, ("mode", "eps", "momentum", "running_mean", "running_var"))
    _check_running(bn_param, b.shape)
    if "running_mean" not in bn_param or "running_var" not in bn_param:
        raise ValueError("bn_param: needs running_mean and running_var; run a batch in train mode first")
    mean = bn_param["running_mean"].astype(w.dtype)
    std = np.sqrt(bn_param["running_var"] + float(bn_param.get("eps", 1e-5))).astype(w.dtype)
    scale = gamma / std
    return w * scale, (b - mean) * scale + beta


def layernorm_forward(x, gamma, beta, ln_param):
    """Standardize each example over its features: xhat = (x - mu) / sqrt(var + eps), out = gamma * xhat + beta.

    x (N, D) float.  gamma (D,) float: scales.  beta (D,) float: shifts.  mu and var (N, 1): the mean and the (biased)
    variance of each example, in training and at test time alike.
    ln_param is a dict of eps (1e-5 if absent).  It may also have a mode, which has no effect.
    Returns out (N, D), of x's dtype, and the cache for `layernorm_backward`.
    Raises ValueError if shapes or ln_param do not fit.
    Source: Ba, Kiros and Hinton, Layer normalization, 2016, section 3.
    """
    x, gamma, beta = check_floats(x=x, gamma=gamma, beta=beta)
    _check_shapes(x, gamma, beta)
    _check_param("ln_param", ln_param, ("mode", "eps"))
    xhat, _, _, std = _standardize(x, float(ln_param.get("eps", 1e-5)), axis=1)
    out = gamma * xhat
    out += beta
    return out, (xhat, gamma, std)


def layernorm_backward(dout, cache):
    """Gradients of `layernorm_forward`: the closed form of batch norm, with the means over the features.

    dx = (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)) / std, where dxhat = gamma * dout.
    dout (N, D) float.  Returns dx (N, D), dgamma (D,), dbeta (D,), of x's dtype.
    """
    xhat, gamma, std = cache
    dout = check_dout(dout, xhat.shape, xhat.dtype)
    dbeta = dout.sum(axis=0)
    dgamma = np.einsum("nd,nd->d", dout, xhat)
    return _standardize_backward(dout * gamma, xhat, std), dgamma, dbeta


def spatial_batchnorm_forward(x, gamma, beta, bn_param):
    """Batch norm of images: each channel is a feature, and each pixel of each image is one of its examples.

    x (N, C, H, W) float.  gamma, beta (C,) float.  bn_param: as in `batchnorm_forward`, with D = C.
    Returns out (N, C, H, W), of x's dtype, and the cache for `spatial_batchnorm_backward`.
    Raises ValueError if shapes or bn_param do not fit.
    Source: Ioffe and Szegedy, Batch normalization, ICML 2015, section 3.2.
    """
    check_floats(x=x, gamma=gamma, beta=beta)
    _check_images(x, gamma, beta, [x.shape[1:2]])
    out, cache = batchnorm_forward(_pixels(x), gamma, beta, bn_param)
    return _images(out, x.shape), cache


def spatial_batchnorm_backward(dout, cache):
    """Gradients of `spatial_batchnorm_forward`: those of `batchnorm_forward`, with pixels as examples.

    dout (N, C, H, W) float.  Returns dx (N, C, H, W), dgamma (C,), dbeta (C,), of x's dtype.
    """
    check_floats(dout=dout)
    if dout.ndim != 4:
        raise ValueError(f"dout: wanted the shape of out, (N, C, H, W), got {dout.shape}")
    dx, dgamma, dbeta = batchnorm_backward_alt(_pixels(dout), cache)
    return _images(dx, dout.shape), dgamma, dbeta


def _pixels(x):
    """Images (N, C, H, W) as examples (N * H * W, C), with each channel contiguous in memory."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1).T


def _images(x, shape):
    """The inverse of `_pixels`, for images of that shape."""
    N, C, H, W = shape
    return x.T.reshape(C, N, H, W).swapaxes(0, 1)


def spatial_groupnorm_forward(x, gamma, beta, G, gn_param):
    """Standardize each group of channels of each example: xhat = (x - mu) / sqrt(var + eps), out = gamma * xhat + beta.

    x (N, C, H, W) float.  gamma, beta (C,) or (1, C, 1, 1) float.  G: the number of groups, each of C / G neighbouring
    channels.  mu and var (N * G, 1): the mean and the (biased) variance of each group, in training and at test time.
    gn_param is a dict of eps (1e-5 if absent).  It may also have a mode, which has no effect.
    G = 1 is layer norm over (C, H, W), except that gamma and beta are one a channel; G = C is instance norm.
    Returns out (N, C, H, W), of x's dtype, and the cache for `spatial_groupnorm_backward`.
    Raises ValueError if shapes or gn_param do not fit, or G does not divide C.
    Source: Wu and He, Group normalization, ECCV 2018, section 3, equations 1, 2, 6 and 7.
    """
    x, gamma, beta = check_floats(x=x, gamma=gamma, beta=beta)
    _check_images(x, gamma, beta, [x.shape[1:2], (1, *x.shape[1:2], 1, 1)])
    _check_param("gn_param", gn_param, ("mode", "eps"))
    G = check_count("G", G, 1)
    if x.shape[1] % G:
        raise ValueError(f"G: wanted a number of groups that divides the {x.shape[1]} channels, got {G}")
    C = x.shape[1]
    xhat, _, _, std = _standardize(x.reshape(len(x) * G, -1), float(gn_param.get("eps", 1e-5)), axis=1)
    xhat = xhat.reshape(x.shape)
    out = gamma.reshape(C, 1, 1) * xhat
    out += beta.reshape(C, 1, 1)
    return out, (xhat, gamma, std)


def spatial_groupnorm_backward(dout, cache):
    """Gradients of `spatial_groupnorm_forward`: the closed form of layer norm, with the means over each group.

    dout (N, C, H, W) float.  Returns dx (N, C, H, W), and dgamma and dbeta in the shapes of gamma and beta, all of
    x's dtype.
    """
    xhat, gamma, std = cache
    dout = check_dout(dout, xhat.shape, xhat.dtype)
    dbeta = dout.sum(axis=(0, 2, 3)).reshape(gamma.shape)
    dgamma = np.einsum("nchw,nchw->c", dout, xhat).reshape(gamma.shape)
    dxhat = dout * gamma.reshape(-1, 1, 1)
    dx = _standardize_backward(dxhat.reshape(len(std), -1), xhat.reshape(len(std), -1), std)
    return dx.reshape(dout.shape), dgamma, dbeta


def _standardize(x, eps, axis):
    """Return xhat = (x - mu) / std, mu, var and std = sqrt(var + eps), the last three of length 1 along the axis.

    The first entries along the axis are subtracted before anything is summed.  The mean of the rest is small, so a mean
    of 1e4 costs no digits in float32.
    """
    shift = x[:1] if axis == 0 else x[:, :1]
    xhat = x - shift
    mean = xhat.mean(axis, keepdims=True)
    xhat -= mean
    var = _mean_product(xhat, xhat, axis)
    std = np.sqrt(var + eps)
    xhat /= std
    return xhat, shift + mean, var, std


def _standardize_backward(dxhat, xhat, std):
    """The gradient of x, where xhat = _standardize(x, eps, axis=1), in closed form: see `layernorm_backward`."""
    dx = xhat * -_mean_product(dxhat, xhat, axis=1)
    dx += dxhat
    dx -= dxhat.mean(axis=1, keepdims=True)
    dx /= std
    return dx


def _mean_product(a, b, axis):
    """mean(a * b) along the axis, of length 1 there.  einsum adds the products without storing them."""
    total = np.einsum("nd,nd->d", a, b)[None] if axis == 0 else np.einsum("nd,nd->n", a, b)[:, None]
    return total / a.shape[axis]


def _check_shapes(x, gamma, beta):
    if x.ndim != 2 or x.size == 0 or gamma.shape != x.shape[1:] or beta.shape != x.shape[1:]:
        raise ValueError(
            f"wanted x (N, D), at least one example and one feature, with gamma and beta (D,), "
            f"got x {x.shape}, gamma {gamma.shape} and beta {beta.shape}"
        )


def _check_images(x, gamma, beta, shapes):
    if x.ndim != 4 or x.size == 0 or gamma.shape not in shapes or beta.shape != gamma.shape:
        raise ValueError(
            f"wanted x (N, C, H, W), none of them 0, with gamma and beta {' or '.join(map(str, shapes))}, "
            f"got x {x.shape}, gamma {gamma.shape} and beta {beta.shape}"
        )


def _check_param(name, param, known):
    check_keys(name, param, known)
    check_number(f"{name}['eps']", param.get("eps", 0))
    check_number(f"{name}['momentum']", param.get("momentum", 0), most=1)


def _check_running(bn_param, shape):
    for name in ("running_mean", "running_var"):
        if name in bn_param:
            check_floats(**{f"bn_param[{name!r}]": bn_param[name]})
            if bn_param[name].shape != shape:
                raise ValueError(f"bn_param[{name!r}]: wanted shape {shape}, got {bn_param[name].shape}")
