"""The normalizations' forward and backward beside torch; and batch norm's backward in four ways.

graph is `batchnorm_backward`, ours its closed form `batchnorm_backward_alt`, and formula the closed form as one
expression, as it is often written.  The formula is hardly faster than the graph: both write (N, D) arrays that nobody
asked for, each a trip through memory, and a far longer one where the system has to hand out new pages.  Ours adds up
without writing the products, and updates dx in place.

The floor is the memory that has to move, at the speed of a copy: forward reads x and writes out, backward reads dout
and x and writes dx, each once.  Arrays larger than the cache cost more: the sums over a batch need all of it before the
first entry of out or dx is known, so that the inputs are read twice.

No row is a whole number of memory pages long, such as 1024 float32.  On an AMD Zen 3 such rows make NumPy's
`matrix * vector`, which the graph, the formula and ours all need, 5 to 8 times slower for hundreds of calls, and then
fast again; rows of 1000 or 1040 never.  The likely cause: where each row has the same offset in its page, the
processor takes a load of the vector for a reload of what it has just stored.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cs231n.batchnorm import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
)

ARRAYS = {"forward": 2, "backward": 3}  # of the size of x, that have to move
ROWS = [(100, 100), (500, 1000), (64 * 32 * 32, 64)]
IMAGES = [(64, 64, 32, 32)]
GROUPS = 32


@pytest.fixture(autouse=True)
def memory_is_kept():
    """Free one large array: glibc then keeps up to twice its size of what is freed, and each side starts alike."""
    np.ones(31 << 20, np.uint8)


def torch_batchnorm(x, gamma, beta):
    return F.batch_norm(x, None, None, gamma, beta, training=True)


NORMS = {  # forward, backward, torch's, and the shapes
    "batch norm": (
        lambda *args: batchnorm_forward(*args, {"mode": "train"}),
        batchnorm_backward_alt,
        torch_batchnorm,
        ROWS,
    ),
    "layer norm": (
        lambda *args: layernorm_forward(*args, {}),
        layernorm_backward,
        lambda x, gamma, beta: F.layer_norm(x, gamma.shape, gamma, beta),
        ROWS,
    ),
    "spatial batch norm": (
        lambda *args: spatial_batchnorm_forward(*args, {"mode": "train"}),
        spatial_batchnorm_backward,
        torch_batchnorm,
        IMAGES,
    ),
    "group norm": (
        lambda *args: spatial_groupnorm_forward(*args, GROUPS, {}),
        spatial_groupnorm_backward,
        lambda x, gamma, beta: F.group_norm(x, GROUPS, gamma, beta),
        IMAGES,
    ),
}
CASES = [pytest.param(name, shape, id=f"{name}-{shape}") for name, norm in NORMS.items() for shape in norm[-1]]


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("side", ["ours", "torch", "floor"])
def test_forward(benchmark, side, name, shape):
    benchmark.group = f"{name} forward, {shape}"
    forward, _, torch_forward, _ = NORMS[name]
    arguments, _ = draw(shape)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    sides = {
        "ours": lambda: forward(*arguments),
        "torch": lambda: torch_forward(*tensors),
        "floor": copy_arrays("forward", shape),
    }
    measure(benchmark, sides[side], shape)


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("side", ["ours", "torch", "floor"])
def test_backward(benchmark, side, name, shape):
    benchmark.group = f"{name} backward, {shape}"
    forward, backward, torch_forward, _ = NORMS[name]
    arguments, dout = draw(shape)
    _, cache = forward(*arguments)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    torch_out, torch_dout = torch_forward(*tensors), torch.from_numpy(dout)
    sides = {
        "ours": lambda: backward(dout, cache),
        "torch": lambda: torch.autograd.grad(torch_out, tensors, torch_dout, retain_graph=True),
        "floor": copy_arrays("backward", shape),
    }
    measure(benchmark, sides[side], shape)


@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("side", ["graph", "formula"])
def test_batchnorm_backward_in_other_ways(benchmark, side, shape):
    benchmark.group = f"batch norm backward, {shape}"
    arguments, dout = draw(shape)
    _, cache = batchnorm_forward(*arguments, {"mode": "train"})
    backward = {"graph": batchnorm_backward, "formula": formula}[side]
    measure(benchmark, lambda: backward(dout, cache), shape)


def formula(dout, cache):
    xhat, gamma, std, _ = cache
    N = len(dout)
    dbeta = dout.sum(axis=0)
    dgamma = (dout * xhat).sum(axis=0)
    dxhat = dout * gamma
    dx = 1 / (N * std) * (N * dxhat - dxhat.sum(axis=0) - xhat * (dxhat * xhat).sum(axis=0))
    return dx, dgamma, dbeta


def draw(shape):
    """x, gamma and beta; and dout."""
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, *shape), np.float32)
    return (x, *rng.standard_normal((2, shape[1]), np.float32)), dout


def copy_arrays(direction, shape):
    size = ARRAYS[direction] * math.prod(shape) // 2
    to, moved = torch.empty(size), torch.ones(size)
    return lambda: to.copy_(moved)  # torch copies on all threads, NumPy on one


def measure(benchmark, function, shape):
    size = math.prod(shape)
    rounds, iterations = (200, 10) if size < 1e5 else (100, 1) if size < 1e6 else (25, 1)
    benchmark.pedantic(function, rounds=rounds, iterations=iterations, warmup_rounds=3)
