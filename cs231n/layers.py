"""The affine and ReLU layers, and the softmax and SVM losses.

A layer is a pair of functions.  Forward returns the output and a cache; backward takes dout, the gradient of the loss
with respect to that output, and the cache, and returns the gradients of the loss with respect to forward's arguments,
in their order.  A loss returns its value and its gradient together.

N is the number of examples in a batch, D the number of a layer's inputs, M that of its outputs and C that of the
classes.  Arrays are float32 or float64, and results have the dtype of the input.  No argument is written to.
"""

import math

import numpy as np

from cs231n.arguments import check_dout, check_floats


def affine_forward(x, w, b):
    """Apply an affine map to each example of a batch: out = x w + b.

    x (N, d1, ..., dk) float: each example is read as a row of D = d1 * ... * dk numbers.  w (D, M) float: weights.
    b (M,) float: biases.
    Returns out (N, M), of x's dtype, and the cache for `affine_backward`.
    Raises ValueError if the shapes do not fit, and for arrays of another dtype than float32 and float64.
    """
    x, w, b = check_floats(x=x, w=w, b=b)
    D = math.prod(x.shape[1:])
    if w.ndim != 2 or len(w) != D or b.shape != w.shape[1:]:
        raise ValueError(f"affine_forward: x {x.shape} takes w ({D}, M) and b (M,), got w {w.shape} and b {b.shape}")
    out = x.reshape(len(x), D) @ w
    out += b
    return out, (x, w)


def affine_backward(dout, cache, need_dx=True):
    """Gradients of `affine_forward`: dx = dout w^T, dw = x^T dout, db = sum over the batch of dout.

    dout (N, M) float.  Returns dx (the shape of x), dw (D, M), db (M,), of x's dtype.  The first layer of a net does
    not need dx: with need_dx=False it is None and is not computed.  Derived in notebook 01, section 1.1.
    """
    x, w = cache
    dout = check_dout(dout, (len(x), w.shape[1]), x.dtype)
    dx = (dout @ w.T).reshape(x.shape) if need_dx else None
    dw = x.reshape(len(x), len(w)).T @ dout
    db = dout.sum(axis=0)
    return dx, dw, db


def relu_forward(x):
    """Rectify each element: out = max(x, 0).

    x: float, any shape.  Returns out (the shape and dtype of x) and the cache for `relu_backward`.
    Source: Nair and Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010.
    """
    check_floats(x=x)
    return np.maximum(x, 0), x


def relu_backward(dout, cache):
    """Gradient of `relu_forward`: dx = dout where x > 0, else 0.  At x = 0, a kink, 0 is the convention.

    dout: float, the shape of x.  Returns dx, of the same shape and dtype.
    """
    x = cache
    dout = check_dout(dout, x.shape, x.dtype)
    return dout * (x > 0)


def softmax_loss(x, y):
    """Mean cross-entropy of the softmax: p_ij = exp(x_ij) / sum_k exp(x_ik), loss = -1/N sum_i log p_{i, y_i}.

    x (N, C) float: scores.  y (N,) int: labels, 0 <= y < C.
    Returns the loss (a Python float) and dx (N, C) = (p - onehot(y)) / N, of x's dtype.
    Raises ValueError if the labels do not fit the scores.
    Each row of scores is shifted by its maximum, which leaves p unchanged and keeps exp from overflowing.
    Derived in notebook 01, section 1.3.
    """
    true = _true_class_index(x, y)
    shifted = x - x.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_p[true].mean()

    dx = np.exp(log_p)
    dx[true] -= 1
    dx /= len(x)
    return float(loss), dx


def svm_loss(x, y):
    """Mean multiclass hinge loss: loss = 1/N sum_i sum_{j != y_i} max(0, x_ij - x_{i, y_i} + 1).

    x (N, C) float: scores.  y (N,) int: labels, 0 <= y < C.
    Returns the loss (a Python float) and dx (N, C), of x's dtype.  Raises ValueError if the labels do not fit.
    Source: Weston and Watkins, Support vector machines for multi-class pattern recognition, ESANN 1999.
    Derived in notebook 01, section 1.3.
    """
    true = _true_class_index(x, y)
    margins = np.maximum(x - x[true][:, None] + 1, 0)
    margins[true] = 0
    loss = margins.sum() / len(x)

    dx = (margins > 0).astype(x.dtype)
    dx[true] = -dx.sum(axis=1)
    dx /= len(x)
    return float(loss), dx


def _true_class_index(x, y):
    """The index (i, y_i) of each example's true class in the scores x (N, C), after checking that y fits them."""
    y = np.asarray(y)
    check_floats(x=x)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"x: wanted float scores (N, C), at least one example and one class, got {x.dtype} {x.shape}")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"y: wanted {len(x)} integer labels for x {x.shape}, got shape {y.shape} and dtype {y.dtype}")
    if y.min() < 0 or y.max() >= x.shape[1]:
        i = int(np.argmax((y < 0) | (y >= x.shape[1])))
        raise ValueError(f"y: wanted labels from 0 to {x.shape[1] - 1} for x {x.shape}, got y[{i}] = {y[i]}")
    return np.arange(len(x)), y
