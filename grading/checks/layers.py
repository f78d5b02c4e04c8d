"""Checks of exercises 1.1, 1.2 and 1.5: the affine layer, ReLU, and both in a row."""

import numpy as np
import torch
from torch.nn import functional as F

from grading.checks.common import MEAN, TOLERANCE, check_without_dx, forward, gradients
from grading.expect import expect, several

AFFINE = [((4, 2, 3), 5), ((1, 3), 4), ((3, 2), 2), ((2, 1, 2, 3), 1)]  # shapes of x, and M


def _affine(x, w, b):
    return F.linear(x.flatten(1), w.T, b)


def _affine_cases(learner):
    """x, w, b and dout, a description, and the tolerance."""
    for shape, M in AFFINE:
        for dtype, tol in TOLERANCE.items():
            shapes = shape, (int(np.prod(shape[1:])), M), (M,), (shape[0], M)
            arrays = [learner.rng.standard_normal(s).astype(dtype) for s in shapes]
            yield arrays, f"{dtype}, x {shape} and w {shapes[1]}", tol


def affine_forward(learner):
    for (x, w, b, _), case, tol in _affine_cases(learner):
        out, _ = forward(learner.layers.affine_forward, x, w, b)
        wanted = _affine(*map(torch.tensor, (x, w, b))).numpy()
        expect("out", out, wanted, {"b is missing": wanted - b, "b is subtracted": wanted - 2 * b}, case, tol)


def affine_backward(learner):
    layers = learner.layers
    cases = list(_affine_cases(learner))
    caches = [forward(layers.affine_forward, x, w, b)[1] for (x, w, b, _), _, _ in cases]
    for ((x, w, b, dout), case, tol), cache in zip(cases, caches, strict=True):
        dx, dw, db = gradients(_affine, (x, w, b), dout)
        grads = several("affine_backward", layers.affine_backward(dout, cache), "dx, dw, db")
        expect("dx", grads[0], dx, {"dx has to get the shape of x": dx.reshape(len(x), -1)}, case, tol)
        expect("dw", grads[1], dw, {MEAN: dw / len(x), "dw is transposed": dw.T}, case, tol)
        expect("db", grads[2], db, {MEAN: db / len(x), "b's gradient is a sum over the batch": dout}, case, tol)
        check_without_dx(layers.affine_backward, dout, cache, (dx, dw, db), case, tol)


def _relu_cases(learner):
    """x, with some zeros, dout, and a description."""
    for shape in [(4, 5), (1, 7), (6,), (2, 3, 2, 2)]:
        for dtype in TOLERANCE:
            x, dout = learner.rng.standard_normal((2, *shape)).astype(dtype)
            x.flat[:: x.size // 2] = 0
            yield x, dout, f"{x.dtype}, x {shape}"


def relu_forward(learner):
    for x, _, case in _relu_cases(learner):
        out, _ = forward(learner.layers.relu_forward, x)
        mistakes = {"this is the absolute value": np.abs(x), "this is the minimum, not the maximum": np.minimum(x, 0)}
        expect("out", out, F.relu(torch.tensor(x)).numpy(), mistakes, case)


def relu_backward(learner):
    for x, dout, case in _relu_cases(learner):
        _, cache = forward(learner.layers.relu_forward, x)
        (dx,) = gradients(F.relu, [x], dout)
        mistakes = {
            "at x = 0 the gradient is 0 by convention": np.where(x < 0, 0, dout),
            "the sign of x decides, not that of dout": F.relu(torch.tensor(dout)),
            "dout is missing: by the chain rule it multiplies the slope": x > 0,
            "the gradient passes where x > 0": np.where(x > 0, 0, dout),
        }
        expect("dx", learner.layers.relu_backward(dout, cache), dx, mistakes, case)


def _affine_relu(x, w, b):
    return F.relu(_affine(x, w, b))


def affine_relu_forward(learner):
    for (x, w, b, _), case, tol in _affine_cases(learner):
        out, _ = forward(learner.layer_utils.affine_relu_forward, x, w, b)
        x, w, b = map(torch.tensor, (x, w, b))
        a, early = _affine(x, w, b), _affine(F.relu(x), w, b)
        mistakes = {"ReLU is missing": a, "ReLU comes after the affine layer": early}
        expect("out", out, F.relu(a).numpy(), mistakes, case, tol)


def affine_relu_backward(learner):
    utils = learner.layer_utils
    for (x, w, b, dout), case, tol in _affine_cases(learner):
        _, cache = forward(utils.affine_relu_forward, x, w, b)
        wanted, without_relu = gradients(_affine_relu, (x, w, b), dout), gradients(_affine, (x, w, b), dout)
        grads = several("affine_relu_backward", utils.affine_relu_backward(dout, cache), "dx, dw, db")
        for name, got, right, wrong in zip(("dx", "dw", "db"), grads, wanted, without_relu, strict=True):
            expect(name, got, right, {"dout goes through ReLU's backward first": wrong}, case, tol)
        check_without_dx(utils.affine_relu_backward, dout, cache, wanted, case, tol)
