"""Fully connected nets of any depth."""

import numbers
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from cs231n.arguments import check_count, check_seed
from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_ln_relu_backward,
    affine_ln_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
)
from cs231n.layers import affine_backward, affine_forward
from cs231n.softmax_net import SoftmaxNet

HIDDEN_LAYERS = {
    None: (affine_relu_forward, affine_relu_backward),
    "batchnorm": (affine_bn_relu_forward, affine_bn_relu_backward),
    "layernorm": (affine_ln_relu_forward, affine_ln_relu_backward),
}


class FullyConnectedNet(SoftmaxNet):
    """{affine - [batch or layer norm] - relu - [dropout]} x (L - 1) - affine - softmax.

    hidden_dims: the width of each hidden layer.  input_dim: D, how many numbers an input has.  num_classes: C.
    dropout: the probability of KEEPING a unit; None or 1 for no dropout.
    normalization: "batchnorm", "layernorm" or None; use_batchnorm=True is short for the first.
    reg: strength of the L2 penalty 0.5 * reg * sum(W * W), on the weights alone.
    weight_scale: standard deviation of the initial weights; biases and beta start at 0, gamma at 1.
    dtype: float32, or float64 for gradient checks.
    seed: an int, or a list of ints, that fixes the initial weights and the dropout masks (None: random).  Every call of
    `loss` then draws the same masks, as a gradient check needs, until `reseed`, which the Solver calls before each
    step.

    params: name -> array of dtype: W1 (D, H1), b1 (H1,), gamma1, beta1 (H1,), W2, ...
    bn_params: a list with a dict for each normalization layer; that of batch norm holds its running statistics.
    Raises ValueError for settings that do not fit.
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
        if normalization not in tuple(HIDDEN_LAYERS):  # a list cannot be looked up in a dict
            choices = ", ".join(map(repr, HIDDEN_LAYERS))
            raise ValueError(f"normalization: wanted one of {choices}, got {normalization!r}")
        if not (dropout is None or (isinstance(dropout, numbers.Real) and 0 < dropout <= 1)):
            raise ValueError(f"dropout: wanted the probability of KEEPING a unit, 0 < p <= 1, or None, got {dropout!r}")
        super().__init__(reg, weight_scale, dtype)
        if not isinstance(hidden_dims, Iterable):
            raise ValueError(f"hidden_dims: wanted a list of widths, got {hidden_dims!r}")
        dims = [input_dim, *hidden_dims, num_classes]
        check_count("input_dim", input_dim, 1)
        check_count("num_classes", num_classes, 1)
        for width in dims[1:-1]:
            check_count("hidden_dims", width, 1)

        self.normalization = normalization
        self.num_layers = len(dims) - 1
        self.dropout_param = {"p": 1.0 if dropout is None else float(dropout), "seed": seed}
        rng = check_seed("seed", seed)
        for i, shape in enumerate(pairwise(dims), start=1):
            W = weight_scale * rng.standard_normal(shape)
            self._add_layer(i, W, normalization if i < self.num_layers else None)

    def reseed(self, seed):
        """Draw the dropout masks of later calls from this seed, an int or a list of ints (None: random).

        Returns the previous seed.
        """
        before, self.dropout_param["seed"] = self.dropout_param["seed"], seed
        return before

    def _forward(self, h, mode):
        """Scores (N, C) of a batch h, and the caches that `_backward` needs."""
        hidden_forward, _ = HIDDEN_LAYERS[self.normalization]
        caches = []
        for i in range(1, self.num_layers):
            h, cache = hidden_forward(h, *self._layer_arguments(i))
            h, mask = self._dropout_forward(h, i, mode)
            caches.append((cache, mask))
        scores, cache = affine_forward(h, *self._layer_arguments(self.num_layers))
        return scores, [*caches, cache]

    def _backward(self, dscores, caches):
        """The gradient of the loss with respect to each parameter, given dscores (N, C)."""
        _, hidden_backward = HIDDEN_LAYERS[self.normalization]
        need_dx = self.num_layers > 1
        dh, *gradients = affine_backward(dscores, caches.pop(), need_dx)
        grads = dict(zip(self._layer_names(self.num_layers), gradients, strict=True))
        for i in range(self.num_layers - 1, 0, -1):
            cache, mask = caches.pop()
            dh = self._dropout_backward(dh, mask)
            dh, *gradients = hidden_backward(dh, cache, need_dx=i > 1)
            grads.update(zip(self._layer_names(i), gradients, strict=True))
        return grads

    def _dropout_forward(self, h, i, mode):
        """The output h (N, M) of hidden layer i after dropout, and the mask; h and None where there is no dropout.

        The mask is drawn from the seed in dropout_param and from i, so that each layer has a mask of its own; with None
        for the seed, it is drawn afresh.
        """
        if self.dropout_param["p"] == 1:
            return h, None
        p, seed = self.dropout_param["p"], self.dropout_param["seed"]
        return dropout_forward(h, {"mode": mode, "p": p, "seed": None if seed is None else [seed, i]})

    def _dropout_backward(self, dh, mask):
        """The gradient with respect to the h of `_dropout_forward`, given that with respect to its output."""
        if mask is None:
            return dh
        return dropout_backward(dh, mask)

    def _layer_arguments(self, i):
        """What layer i's forward takes after its input: its parameters and, where it has a norm, the norm's dict."""
        params = self._layer_params(i)
        if self.normalization and i < self.num_layers:
            return [*params, self.bn_params[i - 1]]
        return params
