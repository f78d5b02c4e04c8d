"""Checks of exercises 1.1, 1.2 and 1.5: the affine layer, ReLU, and both in a row."""

import numpy as np

from grading.checks.common import MEAN, TOLERANCE, affine, check_without_dx, forward, gradients
from grading.expect import expect, several
from grading.oracle import F, torch

AFFINE = [((4, 2, 3), 5), ((1, 3), 4), ((3, 2), 2), ((2, 1, 2, 3), 1)]  # shapes of x, and M
LARGE_AFFINE = (300, 8, 25), 250
RELU = [(4, 5), (1, 7), (6,), (2, 3, 2, 2)]  # shapes of x
LARGE_RELU = (600, 1000)


def _affine_cases(learner):
    """x, w, b and dout, a description, and the tolerance."""
    for shape, M in AFFINE:
        for dtype, tol in TOLERANCE.items():
            yield _affine_case(learner, shape, M, dtype), f"{dtype}, x {shape}, M = {M}", tol


def _affine_case(learner, shape, M, dtype="float64"):
    """x, w, b and dout."""
    shapes = shape, (int(np.prod(shape[1:])), M), (M,), (shape[0], M)
    return [learner.rng.standard_normal(s).astype(dtype) for s in shapes]


def _check_large_affine(learner, layer, function):
    """Check the gradients of the layer, in a module and of a name as in "layers.affine", on `LARGE_AFFINE`."""
    module, name = layer.split(".")
    *arrays, dout = _affine_case(learner, *LARGE_AFFINE)
    _, cache = forward(getattr(getattr(learner, module), f"{name}_forward"), *arrays)
    backward = getattr(getattr(learner, module), f"{name}_backward")
    grads, wanted = several(backward, backward(dout, cache), "dx, dw, db"), gradients(function, arrays, dout)
    for what, got, right in zip(("dx", "dw", "db"), grads, wanted, strict=True):
        expect(what, got, right, case=f"x {arrays[0].shape}, w {arrays[1].shape}")


def affine_forward(learner):
    for (x, w, b, _), case, tol in _affine_cases(learner):
        out, _ = forward(learner.layers.affine_forward, x, w, b)
        wanted = affine(*map(torch.tensor, (x, w, b))).numpy()
        mistakes = {
            "b is missing": wanted - b,
            "b is subtracted": wanted - 2 * b,
            "a reshape to (D, N) mixes the numbers of the examples": x.reshape(-1, len(x)).T @ w + b,
        }
        expect("out", out, wanted, mistakes, case, tol)


def affine_backward(learner):
    layers = learner.layers
    cases = list(_affine_cases(learner))
    caches = [forward(layers.affine_forward, x, w, b)[1] for (x, w, b, _), _, _ in cases]
    for ((x, w, b, dout), case, tol), cache in zip(cases, caches, strict=True):
        dx, dw, db = gradients(affine, (x, w, b), dout)
        grads = several("affine_backward", layers.affine_backward(dout, cache), "dx, dw, db")
        expect("dx", grads[0], dx, {"dx has to get the shape of x": dx.reshape(len(x), -1)}, case, tol)
        expect("dw", grads[1], dw, {MEAN: dw / len(x), "dw is transposed": dw.T}, case, tol)
        expect("db", grads[2], db, {MEAN: db / len(x), "b's gradient is a sum over the batch": dout}, case, tol)
        check_without_dx(layers.affine_backward, dout, cache, (dx, dw, db), case, tol)
    _check_large_affine(learner, "layers.affine", affine)


def _relu_cases(learner):
    """x, with some zeros, dout, and a description."""
    for shape in RELU:
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
    x, dout = learner.rng.standard_normal((2, *LARGE_RELU)).astype("float32")
    _, cache = forward(learner.layers.relu_forward, x)
    expect("dx", learner.layers.relu_backward(dout, cache), np.where(x > 0, dout, 0), case=f"x {x.shape}")


def _affine_relu(x, w, b):
    return F.relu(affine(x, w, b))


def affine_relu_forward(learner):
    for (x, w, b, _), case, tol in _affine_cases(learner):
        out, _ = forward(learner.layer_utils.affine_relu_forward, x, w, b)
        x, w, b = map(torch.tensor, (x, w, b))
        a, early = affine(x, w, b), affine(F.relu(x), w, b)
        mistakes = {"ReLU is missing": a, "ReLU comes after the affine layer": early}
        expect("out", out, F.relu(a).numpy(), mistakes, case, tol)


def affine_relu_backward(learner):
    utils = learner.layer_utils
    for (x, w, b, dout), case, tol in _affine_cases(learner):
        _, cache = forward(utils.affine_relu_forward, x, w, b)
        wanted, without_relu = gradients(_affine_relu, (x, w, b), dout), gradients(affine, (x, w, b), dout)
        grads = several("affine_relu_backward", utils.affine_relu_backward(dout, cache), "dx, dw, db")
        for name, got, right, wrong in zip(("dx", "dw", "db"), grads, wanted, without_relu, strict=True):
            expect(name, got, right, {"dout goes through ReLU's backward first": wrong}, case, tol)
        check_without_dx(utils.affine_relu_backward, dout, cache, wanted, case, tol)
    _check_large_affine(learner, "layer_utils.affine_relu", _affine_relu)
