"""Batch normalization, with two derivations of its backward pass, and layer normalization.

Both standardize x to mean 0 and variance 1, then scale by gamma and shift by beta.  They differ in what they average
over: batch norm over the examples of a batch (axis 0), layer norm over the features of an example (axis 1).
"""

import numpy as np


def batchnorm_forward(x, gamma, beta, bn_param):
    """Standardize each feature over the batch: xhat = (x - mu) / sqrt(var + eps), out = gamma * xhat + beta.

    x (N, D).  gamma (D,): scales.  beta (D,): shifts.  mu and var (D,) are the mean and the (biased) variance of the
    batch in training, and their running averages at test time.
    bn_param holds
      mode: "train" or "test".
      eps: added to the variance, so that a constant feature does not divide by zero (1e-5 if absent).
      momentum: how much the averages keep, running = momentum * running + (1 - momentum) * batch (0.9 if absent).
      running_mean, running_var (D,): read in test mode, updated in train mode (from 0 if absent).
    Returns out (N, D) and the cache for `batchnorm_backward` and `batchnorm_backward_alt`.
    Raises ValueError where shapes or bn_param do not fit.
    Source: Ioffe and Szegedy, Batch normalization, ICML 2015, algorithm 1.
    """
    _check_shapes(x, gamma, beta)
    for name in ("running_mean", "running_var"):
        if name in bn_param and bn_param[name].shape != gamma.shape:
            raise ValueError(f"bn_param[{name!r}]: wanted shape {gamma.shape}, got {bn_param[name].shape}")
    mode, eps, momentum = bn_param.get("mode"), float(bn_param.get("eps", 1e-5)), float(bn_param.get("momentum", 0.9))
    if mode == "train":
        xhat, mu, var, std = _standardize(x, eps, axis=0)
        for name, batch in (("running_mean", mu[0]), ("running_var", var[0])):
            bn_param[name] = momentum * bn_param.get(name, np.zeros_like(batch)) + (1 - momentum) * batch
    elif mode == "test":
        if "running_mean" not in bn_param or "running_var" not in bn_param:
            raise ValueError("bn_param: test mode needs running_mean and running_var; run a batch in train mode first")
        std = np.sqrt(bn_param["running_var"] + eps).astype(x.dtype, copy=False)
        xhat = (x - bn_param["running_mean"].astype(x.dtype, copy=False)) / std
    else:
        raise ValueError(f"bn_param['mode']: wanted 'train' or 'test', got {mode!r}")
    out = gamma * xhat
    out += beta
    return out, (xhat, gamma, std, mode)


def batchnorm_backward(dout, cache):
    """Gradients of `batchnorm_forward`, by walking its computational graph backwards, one operation a line.

    The graph: mu = mean(x), xc = x - mu, var = mean(xc^2), std = sqrt(var + eps), inv = 1 / std, xhat = xc * inv.
    dout (N, D).  Returns dx (N, D), dgamma (D,), dbeta (D,).  In test mode mu and var are constants.
    """
    xhat, gamma, std, mode = cache
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
    dstd = -dinv * inv**2  # inv = 1 / std
    dvar = 0.5 * dstd * inv  # std = sqrt(var + eps)
    dxc += 2 * xc * dvar / N  # var = mean(xc^2)
    dmu = -dxc.sum(axis=0)  # xc = x - mu
    dx = dxc + dmu / N  # mu = mean(x)
    return dx, dgamma, dbeta


def batchnorm_backward_alt(dout, cache):
    """The same gradients in closed form, with fewer passes over memory.

    dx = (N dxhat - sum dxhat - xhat * sum(dxhat * xhat)) / (N std), where dxhat = gamma * dout and the sums run over
    the batch.  gamma is the same for the whole batch, so that it comes out of the sums, and they are dbeta and dgamma.
    dout (N, D).  Returns dx (N, D), dgamma (D,), dbeta (D,).
    """
    xhat, gamma, std, mode = cache
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


def layernorm_forward(x, gamma, beta, ln_param):
    """Standardize each example over its features: xhat = (x - mu) / sqrt(var + eps), out = gamma * xhat + beta.

    x (N, D).  gamma (D,): scales.  beta (D,): shifts.  mu and var (N, 1): the mean and the (biased) variance of each
    example, in training and at test time alike.  ln_param holds eps (1e-5 if absent).
    Returns out (N, D) and the cache for `layernorm_backward`.  Raises ValueError where the shapes do not fit.
    Source: Ba, Kiros and Hinton, Layer normalization, 2016, section 3.
    """
    _check_shapes(x, gamma, beta)
    xhat, _, _, std = _standardize(x, float(ln_param.get("eps", 1e-5)), axis=1)
    out = gamma * xhat
    out += beta
    return out, (xhat, gamma, std)


def layernorm_backward(dout, cache):
    """Gradients of `layernorm_forward`: the closed form of batch norm, with the means over the features.

    dx = (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)) / std, where dxhat = gamma * dout.
    dout (N, D).  Returns dx (N, D), dgamma (D,), dbeta (D,).
    """
    xhat, gamma, std = cache
    dbeta = dout.sum(axis=0)
    dgamma = np.einsum("nd,nd->d", dout, xhat)
    dxhat = dout * gamma
    dx = dxhat - dxhat.mean(axis=1, keepdims=True)
    dx -= xhat * (dxhat * xhat).mean(axis=1, keepdims=True)
    dx /= std
    return dx, dgamma, dbeta


def _standardize(x, eps, axis):
    """Return xhat = (x - mu) / std, mu, var and std = sqrt(var + eps), the last three 1 long along the axis.

    The first entries along the axis are subtracted before anything is summed: the mean of what is left is small, so a
    mean of 1e4 costs no digits in float32.
    """
    shift = x.take([0], axis)
    xhat = x - shift
    mean = xhat.mean(axis, keepdims=True)
    xhat -= mean
    var = np.square(xhat).mean(axis, keepdims=True)
    std = np.sqrt(var + eps)
    xhat /= std
    return xhat, shift + mean, var, std


def _check_shapes(x, gamma, beta):
    if x.ndim != 2 or x.size == 0 or gamma.shape != x.shape[1:] or beta.shape != x.shape[1:]:
        raise ValueError(
            f"wanted x (N, D), at least one example and one feature, with gamma and beta (D,), "
            f"got x {x.shape}, gamma {gamma.shape} and beta {beta.shape}"
        )
