"""Convolution, max-pooling and a training step of the three-layer net, forward and backward, beside torch.

The floor of a convolution is its matrix products alone, Out = W_row X_col, dW_row = dOut X_col^T and dX_col = W_row^T
dOut, in the same blocks on the same threads, between arrays that exist already.
"""

import functools
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from memory import memory_of
from training import adam_step

from cs231n import ThreeLayerConvNet
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from cs231n.parallel import in_blocks

CONVS = [  # x, w, stride, pad
    ((100, 3, 31, 31), (25, 3, 3, 3), 2, 1),
    ((100, 3, 32, 32), (32, 3, 7, 7), 1, 3),
    ((64, 64, 32, 32), (64, 64, 3, 3), 1, 1),
    ((64, 128, 16, 16), (128, 128, 3, 3), 1, 1),
    ((64, 256, 8, 8), (256, 256, 3, 3), 1, 1),
    ((64, 64, 32, 32), (128, 64, 1, 1), 1, 0),
    ((64, 64, 32, 32), (128, 64, 3, 3), 2, 1),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "stride", "pad"), CONVS, ids=str)
@pytest.mark.parametrize("side", ["ours", "torch", "floor"])
def test_conv(benchmark, side, x_shape, w_shape, stride, pad):
    benchmark.group = f"x {x_shape} w {w_shape} / {stride}".replace(" ", "").replace("w(", " w(")
    x, w, b = draw(x_shape, w_shape, w_shape[:1])
    conv_param = {"stride": stride, "pad": pad}
    out, _ = conv_forward_fast(x, w, b, conv_param)
    (dout,) = draw(out.shape)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]

    def ours():
        _, cache = conv_forward_fast(x, w, b, conv_param)
        return conv_backward_fast(dout, cache)

    def theirs():
        out = F.conv2d(*tensors, stride=stride, padding=pad)
        return torch.autograd.grad(out, tensors, torch.from_numpy(dout))

    measure(benchmark, {"ours": ours, "torch": theirs, "floor": matrix_products(out, w)}[side])
    if side == "ours":
        benchmark.extra_info["peak"] = memory_of(ours)[1]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("side", ["ours", "torch"])
def test_max_pool(benchmark, side, size):
    benchmark.group = f"max-pool {size}x{size} / 2, x (64,64,32,32)"
    (x,) = draw((64, 64, 32, 32))
    tensor, pool_param = torch.tensor(x, requires_grad=True), {"pool_height": size, "pool_width": size, "stride": 2}
    out, _ = max_pool_forward_fast(x, pool_param)
    (dout,) = draw(out.shape)

    def ours():
        _, cache = max_pool_forward_fast(x, pool_param)
        return max_pool_backward_fast(dout, cache)

    def theirs():
        return torch.autograd.grad(F.max_pool2d(tensor, size, 2), tensor, torch.from_numpy(dout))

    measure(benchmark, {"ours": ours, "torch": theirs}[side])
    if side == "ours":
        benchmark.extra_info["peak"] = memory_of(ours)[1]


@pytest.mark.parametrize("side", ["ours", "torch"])
def test_training_step(benchmark, side):
    benchmark.group = "three-layer net, a step of 50, Adam"
    (X,), y = draw((50, 3, 32, 32)), np.random.default_rng(1).integers(0, 10, 50)
    net = ThreeLayerConvNet(hidden_dim=500, reg=1e-3, seed=0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 7, padding=3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 16 * 16, 500),
        torch.nn.ReLU(),
        torch.nn.Linear(500, 10),
    )
    optimizer = torch.optim.Adam(model.parameters())
    weights = [w for w in model.parameters() if w.ndim > 1]
    X_torch, y_torch = torch.from_numpy(X), torch.from_numpy(y)

    def theirs():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X_torch), y_torch) + 0.5e-3 * sum((w * w).sum() for w in weights)
        loss.backward()
        optimizer.step()

    measure(benchmark, {"ours": adam_step(net, X, y), "torch": theirs}[side])


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def matrix_products(out, w):
    """The three products of a convolution, in its blocks."""
    F, K, P = len(w), w[0].size, out[0, 0].size

    @functools.cache
    def arrays(thread, n):
        return draw((F, K), (K, n * P), (F, n * P), (F, K), (K, n * P))

    def products(block):
        W_row, X_col, Out, dW_row, dX_col = arrays(threading.get_ident(), block.stop - block.start)
        np.matmul(W_row, X_col, out=Out)
        np.matmul(Out, X_col.T, out=dW_row)
        np.matmul(W_row.T, Out, out=dX_col)

    return lambda: in_blocks(products, len(out), K * P)


def measure(benchmark, function):
    benchmark.pedantic(function, rounds=15, warmup_rounds=3)
