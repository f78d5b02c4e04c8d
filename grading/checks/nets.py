"""Fully connected nets with random parameters, and the same nets in PyTorch: for exercises 1.7 and 2.4."""

from itertools import pairwise

from grading.checks.common import check_grads, check_initial_params, draw, forward
from grading.oracle import F, torch


def draw_net(learner, hidden_dims, num_classes=3, normalization=None, dtype="float64", input_dim=6):
    """A FullyConnectedNet of the learner's, and its parameters, which are random, biases and gamma too."""
    settings = {"hidden_dims": hidden_dims, "normalization": normalization, "dtype": dtype}
    net = learner.fully_connected_net.FullyConnectedNet(input_dim=input_dim, num_classes=num_classes, **settings)
    shapes = {}
    for i, (D, M) in enumerate(pairwise([input_dim, *hidden_dims, num_classes]), start=1):
        scales = {f"gamma{i}": (M,), f"beta{i}": (M,)} if normalization and i <= len(hidden_dims) else {}
        shapes |= {f"W{i}": (D, M), f"b{i}": (M,), **scales}
    check_initial_params(net, shapes, dtype, 1e-2)
    params = {name: (draw(learner, shape) + name.startswith("gamma")).astype(dtype) for name, shape in shapes.items()}
    for name, array in params.items():
        net.set(f"params.{name}", array)
    return net, params


def torch_net(h, params, norm=lambda a, i, params: a, dropout=lambda h, i: h):
    """The scores of a batch h.

    params: name -> tensor.  norm: the normalization of a, the output of hidden layer i before its ReLU.  dropout: what
    is done to h, the output of hidden layer i.
    """
    h, depth = h.flatten(1), sum(name.startswith("W") for name in params)
    for i in range(1, depth):
        a = F.linear(h, params[f"W{i}"].T, params[f"b{i}"])
        h = dropout(F.relu(norm(a, i, params)), i)
    return F.linear(h, params[f"W{depth}"].T, params[f"b{depth}"])


def leaves(params):
    """The parameters as tensors that require gradients."""
    return {name: torch.tensor(array).requires_grad_() for name, array in params.items()}


def check_grads_of_net(learner, net, params, X, case, tol, right=torch_net, likely=None):
    """Check what the net's backward gives after its forward on X.

    right: the net as a function of X and the parameters, tensors.  likely: words -> a function like it, of a mistake.
    """
    _, caches = forward(net._forward, X, "train")
    last = next(reversed(params.values()))  # b, one for each class
    dscores = draw(learner, (len(X), len(last)), X.dtype)
    wanted, *wrong = (_grads(function, X, params, dscores) for function in (right, *(likely or {}).values()))
    check_grads(net._backward(dscores, caches), wanted, dict(zip(likely or {}, wrong, strict=True)), case, tol)


def _grads(function, X, params, dscores):
    tensors = leaves(params)
    scores = function(torch.tensor(X), tensors)
    grads = torch.autograd.grad(scores, list(tensors.values()), torch.tensor(dscores))
    return {name: grad.numpy() for name, grad in zip(tensors, grads, strict=True)}
