"""A convolutional net of three layers."""

import numpy as np

from cs231n.conv_layers import conv_geometry, pool_geometry
from cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
    conv_bn_relu_pool_backward,
    conv_bn_relu_pool_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from cs231n.layers import affine_backward, affine_forward, softmax_loss
from cs231n.utils import check_count

POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


class ThreeLayerConvNet:
    """conv - [batch norm] - relu - 2x2 max-pool - affine - [batch norm] - relu - affine - softmax.

    input_dim: (C, H, W) of an image.  num_filters: F.  filter_size: K, height and width of a filter; with stride 1 and
    (K - 1) // 2 pixels of padding, an odd K keeps the image's size.  hidden_dim: the width of the hidden affine layer.
    num_classes: how many scores an image gets.  use_batchnorm: normalize after both hidden layers.
    reg: strength of the L2 penalty 0.5 * reg * sum(W * W), on the weights alone.
    weight_scale: standard deviation of the initial weights; biases and beta start at 0, gamma at 1.
    dtype: float32, or float64 for gradient checks.  seed: fixes the initial weights (None: drawn afresh).

    params: name -> array: W1 (F, C, K, K), b1 (F,), W2 (F * H_pool * W_pool, hidden_dim), b2, W3 (hidden_dim,
    num_classes), b3, and with batch norm gamma1, beta1 (F,) and gamma2, beta2 (hidden_dim,).
    bn_params: a dict for each batch norm, with its running statistics.
    """

    def __init__(
        self,
        input_dim=(3, 32, 32),
        num_filters=32,
        filter_size=7,
        hidden_dim=100,
        num_classes=10,
        use_batchnorm=False,
        reg=0.0,
        weight_scale=1e-3,
        dtype=np.float32,
        seed=None,
    ):
        if len(input_dim) != 3:
            raise ValueError(f"input_dim: wanted (C, H, W), got {input_dim!r}")
        for name, count in zip("CHW", input_dim, strict=True):
            check_count(f"input_dim: {name}", count, 1)
        check_count("num_filters", num_filters, 1)
        check_count("filter_size", filter_size, 1)
        check_count("hidden_dim", hidden_dim, 1)
        check_count("num_classes", num_classes, 1)
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype: wanted float32 or float64, got {np.dtype(dtype)}")
        for name, value in (("reg", reg), ("weight_scale", weight_scale)):
            if not value >= 0:
                raise ValueError(f"{name}: wanted a number of at least 0, got {value}")

        self.use_batchnorm = use_batchnorm
        self.reg = float(reg)
        self.dtype = np.dtype(dtype)
        self.conv_param = {"stride": 1, "pad": (filter_size - 1) // 2}
        image, filters = np.empty((1, *input_dim)), np.empty((num_filters, input_dim[0], filter_size, filter_size))
        convolved, _, _ = conv_geometry(image, filters, np.empty(num_filters), self.conv_param)
        pooled, _, _ = pool_geometry(np.empty(convolved), POOL)

        rng = np.random.default_rng(seed)
        shapes = [filters.shape, (int(np.prod(pooled)), hidden_dim), (hidden_dim, num_classes)]
        widths = [num_filters, hidden_dim, num_classes]
        self.params, self.bn_params = {}, []
        for i, (shape, width) in enumerate(zip(shapes, widths, strict=True), start=1):
            self.params[f"W{i}"] = (weight_scale * rng.standard_normal(shape)).astype(self.dtype)
            self.params[f"b{i}"] = np.zeros(width, self.dtype)
            if use_batchnorm and i < 3:
                self.params[f"gamma{i}"] = np.ones(width, self.dtype)
                self.params[f"beta{i}"] = np.zeros(width, self.dtype)
                self.bn_params.append(
                    {"mode": "train", "running_mean": np.zeros(width, dtype), "running_var": np.ones(width, dtype)}
                )

    def loss(self, X, y=None):
        """Scores of the classes, or the loss and its gradients.

        X (N, C, H, W).  y (N,): integer labels, or None.
        Without y, in test mode: returns scores (N, num_classes).  With y, in training mode: returns loss (a float) and
        grads, a dict with the keys of params.  Raises ValueError where X or y do not fit.
        """
        scores, caches = self._forward(np.asarray(X, self.dtype), "test" if y is None else "train")
        if y is None:
            return scores
        loss, dscores = softmax_loss(scores, y)
        grads = self._backward(dscores, caches)
        if self.reg:
            for name in ("W1", "W2", "W3"):
                W = self.params[name]
                loss += 0.5 * self.reg * float(np.vdot(W, W))
                grads[name] += self.reg * W
        return loss, grads

    def _forward(self, X, mode):
        """Scores (N, num_classes) of a batch, and the caches that `_backward` needs."""
        for bn_param in self.bn_params:
            bn_param["mode"] = mode
        conv, affine = (
            (conv_bn_relu_pool_forward, affine_bn_relu_forward)
            if self.use_batchnorm
            else (conv_relu_pool_forward, affine_relu_forward)
        )
        h1, conv_cache = conv(X, *self._arrays(1), self.conv_param, *self.bn_params[:1], POOL)
        h2, affine_cache = affine(h1, *self._arrays(2), *self.bn_params[1:])
        scores, scores_cache = affine_forward(h2, *self._arrays(3))
        return scores, (conv_cache, affine_cache, scores_cache)

    def _backward(self, dscores, caches):
        """The gradient of the loss with respect to each parameter, from that with respect to the scores."""
        conv, affine = (
            (conv_bn_relu_pool_backward, affine_bn_relu_backward)
            if self.use_batchnorm
            else (conv_relu_pool_backward, affine_relu_backward)
        )
        conv_cache, affine_cache, scores_cache = caches
        dh2, *gradients3 = affine_backward(dscores, scores_cache)
        dh1, *gradients2 = affine(dh2, affine_cache)
        _, *gradients1 = conv(dh1, conv_cache, need_dx=False)
        names = self._names(1) + self._names(2) + self._names(3)
        return dict(zip(names, gradients1 + gradients2 + gradients3, strict=True))

    def _names(self, i):
        """The names of layer i's parameters, in the order in which its forward takes them."""
        return [f"{kind}{i}" for kind in ("W", "b", "gamma", "beta") if f"{kind}{i}" in self.params]

    def _arrays(self, i):
        return [self.params[name] for name in self._names(i)]
