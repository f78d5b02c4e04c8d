"""Inverted dropout."""

import numpy as np

from cs231n.arguments import check_keys


def dropout_forward(x, dropout_param):
    """Keep each unit with probability p, and scale what is kept so that the expectation stays: y = x * mask / p.

    x: any shape.  mask ~ Bernoulli(p), drawn for each element.
    dropout_param holds
      mode: "train" drops; "test" returns x as it is.
      p: the probability of KEEPING a unit, 0 < p <= 1.
      rng: the `numpy.random.Generator` that draws the mask, or instead
      seed: the same mask at every call, which a gradient check needs.  With neither, each call draws afresh.
    Returns out (the shape and dtype of x) and the cache for `dropout_backward`.
    Raises ValueError for a dropout_param that does not fit.
    Source: Srivastava et al., Dropout, JMLR 15, 2014, section 10 (the inverted form).
    """
    check_keys("dropout_param", dropout_param, ("mode", "p", "rng", "seed"))
    mode, p = dropout_param.get("mode"), dropout_param.get("p")
    if p is None or not 0 < p <= 1:
        raise ValueError(f"dropout_param['p']: wanted a probability of keeping, 0 < p <= 1, got {p}")
    if mode == "test":
        return x, None
    if mode != "train":
        raise ValueError(f"dropout_param['mode']: wanted 'train' or 'test', got {mode!r}")
    rng = dropout_param.get("rng") or np.random.default_rng(dropout_param.get("seed"))
    mask = (rng.random(x.shape, dtype=np.float32) < p).astype(x.dtype)
    mask /= p
    return x * mask, mask


def dropout_backward(dout, cache):
    """Gradient of `dropout_forward`: dx = dout * mask / p in training; dx = dout in test mode.

    dout and dx: the shape of x.
    """
    mask = cache
    return dout if mask is None else dout * mask
