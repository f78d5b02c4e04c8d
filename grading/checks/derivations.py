"""Compare the steps of a derivation one by one, and name the first that is wrong: for the checks of `derivations.py`.

The expected gradients are PyTorch's: each step of forward is a tensor that keeps its gradient.
"""

import functools

import numpy as np

from grading.expect import RETURNED, Wrong, expect, require
from grading.oracle import torch

ALL_STEPS = "each step is in the dict, under its own name"
STEP_ROWS = [((6, 3), 0.5), ((4, 5), 0.1)]  # shapes of x, and eps
NORM = "mu xc var std inv xhat out dbeta dgamma dxhat dinv dstd dvar dxc dmu dx"  # the steps, in order


class Graph:
    """The steps of a forward pass in PyTorch.  constants: names of steps through which no gradient goes."""

    def __init__(self, constants=()):
        self.constants, self.tensors = constants, {}

    def add(self, name, tensor):
        """Give a step a name.  Returns the tensor to go on with."""
        tensor = tensor.detach() if name in self.constants else tensor
        if tensor.requires_grad:
            tensor.retain_grad()
        self.tensors[name] = tensor
        return tensor

    def leaf(self, name, array):
        return self.add(name, torch.tensor(array).requires_grad_())

    def steps(self, out, dout, names):
        """The steps of these names, which a space separates, as arrays; "dx" is the gradient of sum(out * dout)."""
        (out * torch.as_tensor(dout)).sum().backward()
        values = {name: tensor.detach().numpy() for name, tensor in self.tensors.items()}
        values |= {f"d{name}": t.grad.numpy() for name, t in self.tensors.items() if t.grad is not None}
        return {name: values.get(name) for name in names.split()}


def norm_steps(arrays, eps, dout, mean, names=NORM, constants=()):
    """The steps of batch or layer norm.  arrays: x, gamma and beta.  mean: over what is standardized together."""
    graph = Graph(constants)
    x, gamma, beta = map(graph.leaf, ("x", "gamma", "beta"), arrays)
    mu = graph.add("mu", mean(x))
    xc = graph.add("xc", x - mu)
    var = graph.add("var", mean(xc.square()))
    std = graph.add("std", (var + eps).sqrt())
    xhat = graph.add("xhat", xc.mul(graph.add("inv", std.reciprocal())))
    return graph.steps(graph.add("out", torch.addcmul(beta, gamma, xhat)), dout, names)


def check_norm_steps(function, rng, mean):
    """Check the steps of batch or layer norm, which function(x, gamma, beta, eps, dout) returns."""
    for shape, eps in STEP_ROWS:
        x, gamma, beta, dout = draw_rows(rng, shape)
        steps = functools.partial(norm_steps, (x, gamma, beta), eps, dout, mean)
        without_gamma = norm_steps((x, np.ones_like(gamma), beta), eps, dout, mean, "dinv")
        wanted, direct = steps(), steps("dxc", constants=("var",))
        mistakes = {
            "dgamma": {"dout is multiplied by xhat first": wanted["dbeta"]},
            "dxhat": {"gamma is missing": dout},
            "dinv": {"what comes back to xhat is dxhat, not dout": without_gamma["dinv"]},
            "dxc": {
                "xc is used twice, and the path through var is missing": direct["dxc"],
                "xc is used twice, and the path straight to xhat is missing": wanted["dxc"] - direct["dxc"],
                "var is a mean: its slope is divided by the number of its terms": direct["dxc"]
                + (wanted["dxc"] - direct["dxc"]) * (x.size // wanted["var"].size),
            },
            "dx": {"x is used twice, and the path through mu is missing": steps("dx", constants=("mu",))["dx"]},
        }
        check_steps(function, function(x, gamma, beta, eps, dout), wanted, mistakes, f"x {shape}, eps={eps}")


def draw_rows(rng, shape):
    """x, gamma, beta and dout."""
    gamma = rng.uniform(0.5, 2, shape[1]) * rng.choice([-1, 1], shape[1])
    return 3 + 2 * rng.standard_normal(shape), gamma, rng.standard_normal(shape[1]), rng.standard_normal(shape)


def check_steps(function, got, wanted, mistakes=None, case=""):
    """Raise `Wrong` for the first of the steps that is missing or wrong.

    got: what the function has returned.  wanted: a dict from the names of the steps, in order, to arrays.  mistakes: a
    dict from names to dicts as `expect` takes them.
    """
    require(isinstance(got, dict), f"{function}: expected a dict of the steps, got {type(got).__name__}", RETURNED)
    names = list(wanted)
    for name, right in wanted.items():
        before = _all_right(names[: names.index(name)])
        require(name in got, f"{before}{name} is missing in the dict that {function} returns", ALL_STEPS)
        try:
            value = _as_mask(got[name]) if right.dtype == bool else got[name]
            expect(name, value, right, (mistakes or {}).get(name), case)
        except Wrong as wrong:
            wrong.args = (f"{before}{name} is not: {wrong}" if before else str(wrong),)
            raise


def _all_right(names):
    match names:
        case []:
            return ""
        case [only]:
            return f"{only} is right, "
        case [first, *_, last]:
            return f"{first} to {last} are right, "


def _as_mask(value):
    """A mask may be of zeros and ones."""
    zeros_and_ones = isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and np.isin(value, (0, 1)).all()
    return value.astype(bool) if zeros_and_ones else value
