"""Fully connected nets of any depth."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_ln_relu_backward,
    affine_ln_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
)
from cs231n.layers import affine_backward, affine_forward, softmax_loss

HIDDEN_LAYERS = {
    None: (affine_relu_forward, affine_relu_backward),
    "batchnorm": (affine_bn_relu_forward, affine_bn_relu_backward),
    "layernorm": (affine_ln_relu_forward, affine_ln_relu_backward),
}


class FullyConnectedNet:
    """{affine - [batch or layer norm] - relu - [dropout]} x (L - 1) - affine - softmax.

    hidden_dims: the width of each hidden layer.  input_dim: D, the numbers in one input.  num_classes: C.
    dropout: the probability of KEEPING a unit; None or 1 for no dropout.
    normalization: "batchnorm", "layernorm" or None; use_batchnorm=True is short for the first.
    reg: strength of the L2 penalty 0.5 * reg * sum(W * W), on the weights alone.
    weight_scale: standard deviation of the initial weights; biases and beta start at 0, gamma at 1.
    dtype: float32, or float64 for gradient checks.
    seed: fixes the initial weights, and the dropout masks: every call of `loss` then draws the same ones, as a gradient
    check needs, until `reseed`, which the Solver calls before each step.  None: all is drawn afresh.

    params: name -> array: W1 (D, H1), b1 (H1,), gamma1, beta1 (H1,), W2, ...
    bn_params: a dict for each normalization layer; batch norm's holds its running statistics.
    """

    def __init__(
        self,
        hidden_dims=(100, 100),
        input_dim=3 * 32 * 32,
        num_classes=10,
        dropout=None,
        use_batchnorm=False,
        normalization=None,
        reg=0.0,
        weight_scale=1e-2,
        dtype=np.float32,
        seed=None,
    ):
        if use_batchnorm and normalization not in (None, "batchnorm"):
            raise ValueError(f"use_batchnorm=True contradicts normalization={normalization!r}; give one of the two")
        normalization = "batchnorm" if use_batchnorm else normalization
        if normalization not in HIDDEN_LAYERS:
            choices = ", ".join(map(repr, HIDDEN_LAYERS))
            raise ValueError(f"normalization: wanted one of {choices}, got {normalization!r}")
        if dropout is not None and not 0 < dropout <= 1:
            raise ValueError(f"dropout: wanted the probability of KEEPING a unit, 0 < p <= 1, or None, got {dropout}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype: wanted float32 or float64, got {np.dtype(dtype)}")
        for name, value in (("reg", reg), ("weight_scale", weight_scale)):
            if not value >= 0:
                raise ValueError(f"{name}: wanted a number of at least 0, got {value}")
        if not isinstance(hidden_dims, Iterable):
            raise ValueError(f"hidden_dims: wanted a list of widths, got {hidden_dims!r}")
        dims = [input_dim, *hidden_dims, num_classes]
        if not all(isinstance(d, (int, np.integer)) and d > 0 for d in dims):
            raise ValueError(f"input_dim, hidden_dims, num_classes: wanted whole numbers above 0, got {dims}")

        self.normalization = normalization
        self.reg = float(reg)
        self.dtype = np.dtype(dtype)
        self.num_layers = len(dims) - 1
        self.dropout_param = {"p": 1.0 if dropout is None else float(dropout), "seed": seed}
        self.bn_params = []
        self.params = {}
        rng = np.random.default_rng(seed)
        for i, (d_in, d_out) in enumerate(pairwise(dims), start=1):
            self.params[f"W{i}"] = (weight_scale * rng.standard_normal((d_in, d_out))).astype(self.dtype)
            self.params[f"b{i}"] = np.zeros(d_out, self.dtype)
            if normalization and i < self.num_layers:
                self.params[f"gamma{i}"] = np.ones(d_out, self.dtype)
                self.params[f"beta{i}"] = np.zeros(d_out, self.dtype)
                self.bn_params.append(self._initial_bn_param(d_out))

    def _initial_bn_param(self, d):
        """Running statistics that make batch norm the identity until it has seen a batch; layer norm keeps none."""
        if self.normalization == "layernorm":
            return {}
        return {"mode": "train", "running_mean": np.zeros(d, self.dtype), "running_var": np.ones(d, self.dtype)}

    def reseed(self, seed):
        """Draw the dropout masks of the calls to come from this seed.  Returns the seed that stood before."""
        before, self.dropout_param["seed"] = self.dropout_param["seed"], seed
        return before

    def loss(self, X, y=None):
        """Scores of the classes, or the loss and its gradients.

        X (N, d1, ..., dk), d1 * ... * dk = D.  y (N,): integer labels, or None.
        Without y, in test mode: returns scores (N, C).  With y, in training mode: returns loss (a float) and grads, a
        dict with the keys of params.  Raises ValueError where X or y do not fit.
        """
        scores, caches = self._forward(np.asarray(X, self.dtype), "test" if y is None else "train")
        if y is None:
            return scores
        loss, dscores = softmax_loss(scores, y)
        grads = self._backward(dscores, caches)
        if self.reg:
            for i in range(1, self.num_layers + 1):
                W = self.params[f"W{i}"]
                loss += 0.5 * self.reg * float(np.vdot(W, W))
                grads[f"W{i}"] += self.reg * W
        return loss, grads

    def _forward(self, h, mode):
        """Scores (N, C) of a batch h, and the caches that `_backward` needs."""
        hidden_forward, _ = HIDDEN_LAYERS[self.normalization]
        p, rng = self.dropout_param["p"], np.random.default_rng(self.dropout_param["seed"])
        for bn_param in self.bn_params:
            bn_param["mode"] = mode
        caches = []
        for i in range(1, self.num_layers):
            h, cache = hidden_forward(h, *self._layer_arguments(i))
            h, mask = dropout_forward(h, {"mode": mode, "p": p, "rng": rng}) if p < 1 else (h, None)
            caches.append((cache, mask))
        scores, cache = affine_forward(h, *self._layer_arguments(self.num_layers))
        return scores, [*caches, cache]

    def _backward(self, dscores, caches):
        """The gradient of the loss with respect to each parameter, from that with respect to the scores."""
        _, hidden_backward = HIDDEN_LAYERS[self.normalization]
        need_dx = self.num_layers > 1
        dh, *gradients = affine_backward(dscores, caches.pop(), need_dx)
        grads = dict(zip(self._layer_names(self.num_layers), gradients, strict=True))
        for i in range(self.num_layers - 1, 0, -1):
            cache, mask = caches.pop()
            dh = dropout_backward(dh, mask)
            dh, *gradients = hidden_backward(dh, cache, need_dx=i > 1)
            grads.update(zip(self._layer_names(i), gradients, strict=True))
        return grads

    def _layer_names(self, i):
        """The names of layer i's parameters, in the order in which its forward takes them."""
        normalized = self.normalization and i < self.num_layers
        return [f"W{i}", f"b{i}", f"gamma{i}", f"beta{i}"] if normalized else [f"W{i}", f"b{i}"]

    def _layer_arguments(self, i):
        """What layer i's forward takes after its input."""
        return [self.params[name] for name in self._layer_names(i)] + self.bn_params[i - 1 : i]
