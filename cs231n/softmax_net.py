"""What nets that end in a softmax share: parameters, and a loss with an L2 penalty."""

import numpy as np

from cs231n.arguments import check_dtype, check_number, check_numbers
from cs231n.layers import softmax_loss


class SoftmaxNet:
    """A net whose subclass adds its layers, and goes through them in `_forward` and `_backward`.

    reg: strength of the L2 penalty 0.5 * reg * sum(W * W), on the weights alone.  dtype: float32 or float64, for
    the parameters and all that the net computes.  Raises ValueError for another dtype, and for a negative reg or
    weight_scale.
    params: name -> array: W1, b1, gamma1, beta1, W2, ...  bn_params: a list with a dict for each normalization layer.
    """

    def __init__(self, reg, weight_scale, dtype):
        check_number("weight_scale", weight_scale)
        self.reg = check_number("reg", reg)
        self.dtype = check_dtype(dtype)
        self.params, self.bn_params = {}, []

    def _add_layer(self, i, W, normalization=None):
        """Layer i with the weights W, and b, gamma and beta for each of its outputs: filters if W (F, C, KH, KW).

        The first running statistics make batch norm the identity; layer norm has none.
        """
        width = len(W) if W.ndim == 4 else W.shape[1]
        self.params[f"W{i}"] = W.astype(self.dtype)
        self.params[f"b{i}"] = np.zeros(width, self.dtype)
        if normalization:
            self.params[f"gamma{i}"] = np.ones(width, self.dtype)
            self.params[f"beta{i}"] = np.zeros(width, self.dtype)
            statistics = {"running_mean": np.zeros(width, self.dtype), "running_var": np.ones(width, self.dtype)}
            self.bn_params.append({"mode": "train", **statistics} if normalization == "batchnorm" else {})

    def loss(self, X, y=None):
        """Scores of the classes, or the loss and its gradients.

        X (N, ...): numbers, in the shape that the first layer takes; converted to the net's dtype.  y (N,) int: labels,
        or None.
        Without y, in test mode: returns scores (N, C).  With y, in training mode: returns the loss (a Python float) and
        grads, a dict with the keys, shapes and dtype of params.  Raises ValueError if X or y do not fit.
        """
        check_numbers("X", X)
        mode = "test" if y is None else "train"
        for bn_param in self.bn_params:
            bn_param["mode"] = mode
        scores, caches = self._forward(np.asarray(X, self.dtype), mode)
        if y is None:
            return scores
        loss, dscores = softmax_loss(scores, y)
        grads = self._backward(dscores, caches)
        if self.reg:
            for name, W in self.params.items():
                if name.startswith("W"):
                    loss += 0.5 * self.reg * float(np.vdot(W, W))
                    grads[name] += self.reg * W
        return loss, grads

    def _layer_names(self, i):
        """The names of layer i's parameters, in the order of its forward's arguments."""
        return [f"{kind}{i}" for kind in ("W", "b", "gamma", "beta") if f"{kind}{i}" in self.params]

    def _layer_params(self, i):
        return [self.params[name] for name in self._layer_names(i)]
