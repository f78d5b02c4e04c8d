"""What the checks share: tolerances, random arrays, gradients by autograd, and checks that several exercises need.

Each backward function is also checked on one case that is named LARGE.  It has some 100,000 inputs or more, so that
finite differences, one input at a time, take longer in any precision than an exercise may.
"""

import numpy as np

from grading.expect import RETURNED, expect, fitting, require, several, small_fault
from grading.hints import Hint
from grading.oracle import F, torch
from grading.session import Failed

TOLERANCE = {"float64": 1e-6, "float32": 1e-4}  # the largest error allowed, relative to the largest entry
DEFAULTS = {"stride": 1, "pad": 0, "eps": 1e-5, "momentum": 0.9}  # entries of a layer's dict that may be absent
NAMES = "a name is missing, too much or misspelled: a gradient has the name of its parameter"
MEAN = "the loss has divided by N already: gradients are sums over the batch, not means"


def affine(x, w, b):
    """The affine layer, of tensors."""
    return F.linear(x.flatten(1), w.T, b)


def draw(learner, shape, dtype="float64"):
    """An array of standard normal numbers."""
    return learner.rng.standard_normal(shape).astype(dtype)


def draw_tensor(rng, *shape):
    """A float64 tensor of standard normal numbers."""
    return torch.tensor(rng.standard_normal(shape))


def draw_dout(learner, function, arrays, *args):
    """A random gradient with respect to function(*arrays, *args), in the dtype of the first array."""
    out = function(*map(torch.tensor, arrays), *args)
    return draw(learner, tuple(out.shape), arrays[0].dtype)


def gradients(function, arrays, dout, *args):
    """The gradients of sum(function(*arrays, *args) * dout) with respect to the arrays, by autograd, as arrays.

    function: of tensors, to a tensor of the shape and dtype of dout.
    """
    leaves = [torch.tensor(array).requires_grad_() for array in arrays]
    grads = torch.autograd.grad(function(*leaves, *args), leaves, torch.tensor(dout))
    return [grad.numpy() for grad in grads]


def forward(function, *args, names="out, cache"):
    """out and cache, the result of a layer's forward function; scores and caches, that of a net's; or what names says.

    If it needs an entry of its dict that has a default, it is called again with that entry: a small fault.
    """
    try:
        return several(function, function(*args), names)
    except Failed as error:
        name, param = error.text.strip("'"), next((arg for arg in args if isinstance(arg, dict)), {})
        if error.kind != "KeyError" or name not in DEFAULTS or name in param:
            raise
        param[name] = DEFAULTS[name]
        question = "Which entries of this dict may be absent, by the docstring?"
        small_fault(str(error), Hint(question, f"{name} may be absent, and is then {DEFAULTS[name]}: use get"))
        return forward(function, *args, names=names)


def check_without_dx(backward, dout, cache, wanted, case, tol, names="dx, dw, db"):
    """Check that backward(..., need_dx=False) returns None for dx, and the other gradients unchanged."""
    dx, *others = several(backward, backward(dout, cache, need_dx=False), names)
    if dx is not None:
        small_fault(f"dx: expected None with need_dx=False (with {case})", "need_dx is ignored")
    for name, got, right in zip(names.split(", ")[1:], others, wanted[1:], strict=True):
        expect(name, got, right, case=f"{case}, need_dx=False", tol=tol)


def check_initial_params(net, shapes, dtype, weight_scale):
    """Check that a new net has params of these names and shapes; weights of that spread, gamma 1, biases and beta 0."""
    params = net.get("params")
    require(isinstance(params, dict), "params: expected a dict")
    names = sorted(map(str, params)), sorted(shapes)
    require(names[0] == names[1], f"params has the keys {names[0]}, expected {names[1]}", NAMES)
    for name, shape in shapes.items():
        array = fitting(f"params[{name!r}]", params[name], shape, dtype, "a new net")
        if name.startswith("W"):
            spread = np.sqrt(np.mean(np.square(array, dtype=float))) / weight_scale
            sane = 0.1 < spread < 1 + 8 / np.sqrt(2 * array.size)  # 8 standard deviations of the spread
            require(sane, f"params[{name!r}] has {spread:.3g} times the spread of weight_scale={weight_scale:g}")
        else:
            expect(f"params[{name!r}]", array, np.full(shape, name.startswith("gamma"), dtype), case="a new net")


def check_grads(grads, wanted, mistakes=None, case="", tol=TOLERANCE["float64"]):
    """Check a dict of gradients against the dict wanted.  mistakes: words -> the dict that the mistake would give."""
    require(isinstance(grads, dict), f"grads: expected a dict, got {type(grads).__name__}", RETURNED)
    names = sorted(map(str, grads)), sorted(wanted)
    require(names[0] == names[1], f"grads has the keys {names[0]}, expected those of params, {names[1]}", NAMES)
    for name, right in wanted.items():
        likely = {words: wrong[name] for words, wrong in (mistakes or {}).items()}
        expect(f"grads[{name!r}]", grads[name], right, likely, case, tol)
