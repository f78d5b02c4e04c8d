"""Update rules: each takes parameters w, the loss's gradient dw and a config, and returns the next w and the config.

config holds the rule's settings and its state; what is absent takes its default, so that None will do for the first
step.  State is updated in place, w and dw are not.  Large arrays are walked in blocks that fit into a core's cache, and
what is computed on the way lies where the next w shall stand: an update makes a dozen passes over its numbers, and
only the first of them then waits for memory.

Raises ValueError for a w, dw and state of different shapes, and for a config key that the rule does not know.
"""

import math

import numpy as np

BLOCK = 1 << 15  # entries; the five float32 arrays of an Adam step then take 640 KiB


def sgd(w, dw, config=None):
    """Stochastic gradient descent: w <- w - learning_rate * dw.

    w and dw: any one shape.  config: learning_rate (1e-2).  Returns the next w and config.
    """
    config = _with_defaults(config, w, dw, learning_rate=1e-2)
    lr = float(config["learning_rate"])
    next_w = np.empty_like(w, order="C")
    for wi, dwi, out in _blocks(w, dw, next_w):
        np.multiply(dwi, -lr, out=out)
        out += wi
    return next_w, config


def sgd_momentum(w, dw, config=None):
    """Gradient descent with momentum: v <- momentum * v - learning_rate * dw, w <- w + v.

    w and dw: any one shape.  config: learning_rate (1e-2), momentum (0.9), velocity (v, from 0).
    Returns the next w and config.  Source: Sutskever et al., ICML 2013, equations 1 and 2.
    """
    config = _with_defaults(config, w, dw, learning_rate=1e-2, momentum=0.9, velocity=None)
    lr, momentum = float(config["learning_rate"]), float(config["momentum"])
    next_w = np.empty_like(w, order="C")
    for wi, dwi, v, out in _blocks(w, dw, config["velocity"], next_w):
        v *= momentum
        v -= np.multiply(dwi, lr, out=out)
        np.add(wi, v, out=out)
    return next_w, config


def rmsprop(w, dw, config=None):
    """Divide each step by a running root mean square of its gradient.

    cache <- decay_rate * cache + (1 - decay_rate) * dw^2, w <- w - learning_rate * dw / (sqrt(cache) + epsilon).
    w and dw: any one shape.  config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8), cache (from 0).
    Returns the next w and config.  Source: Tieleman and Hinton, Lecture 6.5 of Neural networks for machine learning,
    Coursera, 2012.
    """
    config = _with_defaults(config, w, dw, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8, cache=None)
    lr, decay, eps = float(config["learning_rate"]), float(config["decay_rate"]), float(config["epsilon"])
    next_w = np.empty_like(w, order="C")
    for wi, dwi, cache, out in _blocks(w, dw, config["cache"], next_w):
        cache *= decay
        np.multiply(dwi, dwi, out=out)
        out *= 1 - decay
        cache += out
        np.sqrt(cache, out=out)
        out += eps
        np.divide(dwi, out, out=out)
        out *= -lr
        out += wi
    return next_w, config


def adam(w, dw, config=None):
    """Momentum and RMSProp together, each corrected for having started from 0.

    t <- t + 1, m <- beta1 * m + (1 - beta1) * dw, v <- beta2 * v + (1 - beta2) * dw^2,
    w <- w - learning_rate * mhat / (sqrt(vhat) + epsilon), mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t).
    The two corrections are numbers, and are taken out of the fraction: one pass less (the paper, end of section 2).
    w and dw: any one shape.  config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8); m, v, t (0).
    Returns the next w and config.  Source: Kingma and Ba, Adam, ICLR 2015, algorithm 1.
    """
    config = _with_defaults(
        config, w, dw, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, m=None, v=None, t=0
    )
    lr, eps = float(config["learning_rate"]), float(config["epsilon"])
    beta1, beta2 = float(config["beta1"]), float(config["beta2"])
    config["t"] += 1
    correct1, correct2 = 1 - beta1 ** config["t"], math.sqrt(1 - beta2 ** config["t"])
    next_w = np.empty_like(w, order="C")
    for wi, dwi, m, v, out in _blocks(w, dw, config["m"], config["v"], next_w):
        m *= beta1
        m += np.multiply(dwi, 1 - beta1, out=out)
        v *= beta2
        np.multiply(dwi, dwi, out=out)
        out *= 1 - beta2
        v += out
        np.sqrt(v, out=out)
        out += eps * correct2
        np.divide(m, out, out=out)
        out *= -lr * correct2 / correct1
        out += wi
    return next_w, config


RULES = {rule.__name__: rule for rule in (sgd, sgd_momentum, rmsprop, adam)}


def _with_defaults(config, w, dw, **defaults):
    """Fill in what config lacks; a default of None stands for a state array of w's shape and dtype, from 0."""
    if w.shape != dw.shape:
        raise ValueError(f"dw: wanted the shape of w, {w.shape}, got {dw.shape}")
    config = {} if config is None else config
    if unknown := sorted(config.keys() - defaults.keys()):
        raise ValueError(f"config: unknown {', '.join(unknown)}; this rule knows {', '.join(defaults)}")
    for name, default in defaults.items():
        if default is None:
            state = config.get(name)
            config[name] = np.zeros(w.shape, w.dtype) if state is None else np.require(state, w.dtype, "CW")
            if config[name].shape != w.shape:
                raise ValueError(f"config[{name!r}]: wanted the shape of w, {w.shape}, got {config[name].shape}")
        else:
            config.setdefault(name, default)
    return config


def _blocks(*arrays):
    """Yield the arrays' entries, flattened, a block at a time."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield [a[start : start + BLOCK] for a in flat]
