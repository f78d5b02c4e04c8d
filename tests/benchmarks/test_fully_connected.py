"""A training step of the fully connected net, each optimizer's update, and the loading of the data, beside torch.

The floor of a training step is its matrix products alone: 2 * N * D * M operations each for out, dw and dx, with no dx
in the first layer.  The floor of an update is the memory that it has to move, each array once in and once out.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from training import adam_step

from cs231n import FullyConnectedNet, get_cifar10_data
from cs231n.cifar10 import find_cifar10
from cs231n.optim import RULES

N, D, C = 100, 3072, 10
SIDES = pytest.mark.parametrize("side", ["ours", "torch", "floor"])


@pytest.mark.parametrize("normalization", [None, "batchnorm"], ids=["plain", "batchnorm"])
@pytest.mark.parametrize("hidden", [[100] * 4, [1024] * 2], ids=["4x100", "2x1024"])
@SIDES
def test_training_step(benchmark, side, hidden, normalization):
    benchmark.group = f"training step, Adam, {len(hidden)} x {hidden[0]}, {normalization or 'no norm'}"
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, 3, 32, 32), np.float32), rng.integers(0, C, N)
    sides = {"ours": our_step, "torch": torch_step, "floor": matrix_products}
    benchmark.pedantic(sides[side](hidden, normalization, X, y), rounds=100, warmup_rounds=20)


def our_step(hidden, normalization, X, y):
    return adam_step(FullyConnectedNet(hidden, normalization=normalization, seed=0), X, y)


def torch_step(hidden, normalization, X, y):
    layers = [torch.nn.Flatten()]
    for d_in, d_out in pairwise([D, *hidden]):
        layers += [torch.nn.Linear(d_in, d_out), torch.nn.BatchNorm1d(d_out), torch.nn.ReLU()]
        if normalization is None:
            del layers[-2]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(hidden[-1], C))
    optimizer = torch.optim.Adam(net.parameters())
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(X), y).backward()
        optimizer.step()

    return step


def matrix_products(hidden, normalization, X, y):
    dims = [D, *hidden, C]
    shapes = [(N, d_in, d_out) for d_in, d_out in pairwise(dims)]  # out
    shapes += [(d_in, N, d_out) for d_in, d_out in pairwise(dims)]  # dw
    shapes += [(N, d_out, d_in) for d_in, d_out in pairwise(dims[1:])]  # dx
    products = [
        (np.ones((m, k), np.float32), np.ones((k, n), np.float32), np.empty((m, n), np.float32)) for m, k, n in shapes
    ]

    def step():
        for a, b, out in products:
            np.matmul(a, b, out=out)

    return step


TORCH_RULES = {
    "sgd": lambda w: torch.optim.SGD([w], 1e-2),
    "sgd_momentum": lambda w: torch.optim.SGD([w], 1e-2, momentum=0.9),
    "rmsprop": lambda w: torch.optim.RMSprop([w], 1e-2),
    "adam": lambda w: torch.optim.Adam([w], 1e-3),
}
ARRAYS = {"sgd": 3, "sgd_momentum": 5, "rmsprop": 5, "adam": 7}  # w, dw and the state read, w and the state written


@pytest.mark.parametrize("rule", RULES)
@SIDES
def test_update_of_ten_million_parameters(benchmark, side, rule):
    benchmark.group = f"update of 10 M parameters, {rule}"
    size = 10_000_000
    rng = np.random.default_rng(0)
    w, dw = rng.standard_normal((2, size), np.float32)
    if side == "ours":
        state = {"w": w, "config": None}

        def update():
            state["w"], state["config"] = RULES[rule](state["w"], dw, state["config"])

    elif side == "torch":
        w = torch.from_numpy(w).requires_grad_()
        w.grad = torch.from_numpy(dw)
        update = TORCH_RULES[rule](w).step
    else:
        to, moved = np.empty(size * ARRAYS[rule] // 2, np.float32), np.ones(size * ARRAYS[rule] // 2, np.float32)

        def update():
            np.copyto(to, moved)

    benchmark.pedantic(update, rounds=15, warmup_rounds=3)


@pytest.mark.parametrize("side", ["ours", "torch"])
@pytest.mark.filterwarnings("ignore")  # torchvision's plain pickle and NumPy 2.4 do not agree
def test_loading_the_data(benchmark, side):
    benchmark.group = "loading CIFAR-10 as centred float32"
    if not (place := find_cifar10()):
        pytest.skip("needs the real CIFAR-10: make get-data")
    from cs231n.pytorch_vision import torchvision

    def torchvision_load():
        sets = [torchvision.datasets.CIFAR10(place.parent, train) for train in (True, False)]
        train, test = (torch.from_numpy(s.data).permute(0, 3, 1, 2).float().contiguous() for s in sets)
        mean = train[:49000].mean(dim=0)
        return train[:49000] - mean, train[49000:] - mean, test[:1000] - mean

    benchmark.pedantic(get_cifar10_data if side == "ours" else torchvision_load, rounds=3, warmup_rounds=1)
