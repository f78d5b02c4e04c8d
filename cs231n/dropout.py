"""Inverted dropout."""

import numbers

import numpy as np

from cs231n.arguments import check_dout, check_floats, check_keys, check_seed


def dropout_forward(x, dropout_param):
    """Keep each unit with probability p, scaled so that its expectation stays the same: y = x * mask / p.

    x: float, any shape.  mask ~ Bernoulli(p), drawn for each element.
    dropout_param is a dict of
      mode: "train" drops units; "test" returns x unchanged.
      p: the probability of KEEPING a unit, 0 < p <= 1.
      rng: the `numpy.random.Generator` that draws the mask; or
      seed: an int, or a list of ints, that fixes the mask: the same at every call, as a gradient check needs.
      Without rng and seed, each call draws a new mask.
    Returns out (the shape and dtype of x) and the cache for `dropout_backward`.
    Raises ValueError if x is not float, or dropout_param has another key, mode or p.
    Source: Srivastava et al., Dropout, JMLR 15, 2014, section 10 (the inverted form).
    """
    check_floats(x=x)
    _check_param(dropout_param)
    mode, p = dropout_param["mode"], dropout_param["p"]
    if mode == "test":
        return x, None
    rng = dropout_param.get("rng") or np.random.default_rng(dropout_param.get("seed"))
    mask = (rng.random(x.shape, dtype=np.float32) < p).astype(x.dtype)
    mask /= p
    return x * mask, mask


def dropout_backward(dout, cache):
    """Gradient of `dropout_forward`: dx = dout * mask / p in training; dx = dout in test mode.

    dout: float, the shape of x.  Returns dx, of the same shape and dtype.
    """
    mask = cache
    if mask is None:
        check_floats(dout=dout)
        return dout
    dout = check_dout(dout, mask.shape, mask.dtype)
    return dout * mask


def _check_param(param):
    check_keys("dropout_param", param, ("mode", "p", "rng", "seed"))
    mode, p, rng = param.get("mode"), param.get("p"), param.get("rng")
    if not (isinstance(p, numbers.Real) and 0 < p <= 1):
        raise ValueError(f"dropout_param['p']: wanted a probability of keeping, 0 < p <= 1, got {p!r}")
    if not isinstance(mode, str) or mode not in ("train", "test"):
        raise ValueError(f"dropout_param['mode']: wanted 'train' or 'test', got {mode!r}")
    if not isinstance(rng, np.random.Generator | None):
        raise ValueError(f"dropout_param['rng']: wanted a numpy.random.Generator, got {rng!r}")
    check_seed("dropout_param['seed']", param.get("seed"))
