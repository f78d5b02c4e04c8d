"""Update rules: each takes parameters w, the loss's gradient dw and a config, and returns the next w and the config.

w and dw: float arrays of the same shape, any shape; they are not written to.  config: a dict of the rule's settings and
its state, or None; whatever is absent takes its default.  State has the shape and dtype of w and is updated in place.
The next w has the shape and dtype of w.  Raises ValueError if one of w, dw and state is not float or their shapes
differ, and for a config key that the rule does not know.

Each rule states its algorithm for one block of entries; `_in_blocks` applies it to all of them, on all cores.
"""

import numpy as np

from cs231n.arguments import check_count, check_floats, check_keys, check_number
from cs231n.parallel import in_blocks

NUMBERS = 8  # that an update holds for each entry of w: its arguments, and a few of its intermediate results


def sgd(w, dw, config=None):
    """Stochastic gradient descent: w <- w - learning_rate * dw.

    config: learning_rate (1e-2).  Returns the next w and config.
    """
    config = _with_defaults(config, w, dw, learning_rate=1e-2)
    lr = float(config["learning_rate"])

    def update(w, dw):
        return w - lr * dw

    return _in_blocks(update, w, dw), config


def sgd_momentum(w, dw, config=None):
    """Gradient descent with momentum: v <- momentum * v - learning_rate * dw, w <- w + v.

    config: learning_rate (1e-2), momentum (0.9), velocity (v, from 0).
    Returns the next w and config.  Source: Sutskever et al., ICML 2013, equations 1 and 2.
    """
    config = _with_defaults(config, w, dw, learning_rate=1e-2, momentum=0.9, velocity=None)
    lr, momentum = float(config["learning_rate"]), float(config["momentum"])

    def update(w, dw, v):
        v[:] = momentum * v - lr * dw
        return w + v

    return _in_blocks(update, w, dw, config["velocity"]), config


def rmsprop(w, dw, config=None):
    """Divide each step by a running root mean square of its gradient.

    cache <- decay_rate * cache + (1 - decay_rate) * dw^2, w <- w - learning_rate * dw / (sqrt(cache) + epsilon).
    config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8), cache (from 0).
    Returns the next w and config.  Source: Tieleman and Hinton, Lecture 6.5 of Neural networks for machine learning,
    Coursera, 2012.
    """
    config = _with_defaults(config, w, dw, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8, cache=None)
    lr, decay, eps = float(config["learning_rate"]), float(config["decay_rate"]), float(config["epsilon"])

    def update(w, dw, cache):
        cache[:] = decay * cache + (1 - decay) * dw * dw
        return w - lr * dw / (np.sqrt(cache) + eps)

    return _in_blocks(update, w, dw, config["cache"]), config


def adam(w, dw, config=None):
    """Momentum and RMSProp together, each corrected for having started from 0.

    t <- t + 1, m <- beta1 * m + (1 - beta1) * dw, v <- beta2 * v + (1 - beta2) * dw^2,
    w <- w - learning_rate * mhat / (sqrt(vhat) + epsilon), mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t).
    config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8); m, v, t (0).
    Returns the next w and config.  Source: Kingma and Ba, Adam, ICLR 2015, algorithm 1.
    """
    config = _with_defaults(
        config, w, dw, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, m=None, v=None, t=0
    )
    lr, eps = float(config["learning_rate"]), float(config["epsilon"])
    beta1, beta2 = float(config["beta1"]), float(config["beta2"])
    t = config["t"] = config["t"] + 1

    def update(w, dw, m, v):
        m[:] = beta1 * m + (1 - beta1) * dw
        v[:] = beta2 * v + (1 - beta2) * dw * dw
        mhat, vhat = m / (1 - beta1**t), v / (1 - beta2**t)
        return w - lr * mhat / (np.sqrt(vhat) + eps)

    return _in_blocks(update, w, dw, config["m"], config["v"]), config


RULES = {rule.__name__: rule for rule in (sgd, sgd_momentum, rmsprop, adam)}


def _with_defaults(config, w, dw, **defaults):
    """Fill in what config lacks; a default of None means a state array of w's shape and dtype that starts at 0."""
    check_floats(w=w, dw=dw)
    if w.shape != dw.shape:
        raise ValueError(f"dw: wanted the shape of w, {w.shape}, got {dw.shape}")
    config = {} if config is None else config
    check_keys("config", config, defaults)
    for name, default in defaults.items():
        if default is None:
            state = config.get(name)
            state = np.zeros(w.shape, w.dtype) if state is None else state
            check_floats(**{f"config[{name!r}]": state})
            config[name] = np.require(state, w.dtype, "CW")
            if config[name].shape != w.shape:
                raise ValueError(f"config[{name!r}]: wanted the shape of w, {w.shape}, got {config[name].shape}")
        elif default == 0:  # t
            config[name] = check_count(f"config[{name!r}]", config.get(name, default), 0)
        else:
            check_number(f"config[{name!r}]", config.setdefault(name, default))
            if name.startswith("beta") and not config[name] < 1:
                raise ValueError(f"config[{name!r}]: wanted a number below 1, got {config[name]!r}")
    return config


def _in_blocks(update, w, dw, *states):
    """The next w, by update(w, dw, *states), a block of entries at a time, on all cores."""
    next_w = np.empty_like(w, order="C")
    flat_next, *flat = (array.reshape(-1) for array in (next_w, w, dw, *states))

    def step(block):
        flat_next[block] = update(*(array[block] for array in flat))

    in_blocks(step, w.size, NUMBERS)
    return next_w
