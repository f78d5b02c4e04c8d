"""A convolutional net of three layers."""

import numpy as np

from cs231n.arguments import check_count, check_seed
from cs231n.conv_layers import output_size
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
from cs231n.layers import affine_backward, affine_forward
from cs231n.softmax_net import SoftmaxNet

POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
HIDDEN_LAYERS = {  # use_batchnorm -> forward and backward of the convolutional layer, and of the affine one
    False: (
        (conv_relu_pool_forward, conv_relu_pool_backward),
        (affine_relu_forward, affine_relu_backward),
    ),
    True: (
        (conv_bn_relu_pool_forward, conv_bn_relu_pool_backward),
        (affine_bn_relu_forward, affine_bn_relu_backward),
    ),
}


class ThreeLayerConvNet(SoftmaxNet):
    """conv - [batch norm] - relu - 2x2 max-pool - affine - [batch norm] - relu - affine - softmax.

    input_dim: (C, H, W) of an image.  num_filters: F.  filter_size: K, height and width of a filter; with stride 1 and
    (K - 1) // 2 pixels of padding, an odd K keeps the image's size.  hidden_dim: the width of the hidden affine layer.
    num_classes: how many scores an image gets.  use_batchnorm: batch norm in both hidden layers.
    reg: strength of the L2 penalty 0.5 * reg * sum(W * W), on the weights alone.
    weight_scale: standard deviation of the initial weights; biases and beta start at 0, gamma at 1.
    dtype: float32, or float64 for gradient checks.  seed: an int that fixes the initial weights (None: random).

    params: name -> array of dtype: W1 (F, C, K, K), b1 (F,), W2 (F * H_pool * W_pool, hidden_dim), b2, W3 (hidden_dim,
    num_classes), b3, and with batch norm gamma1, beta1 (F,) and gamma2, beta2 (hidden_dim,).
    bn_params: a list with a dict for each batch norm, which holds its running statistics.
    Raises ValueError for settings that do not fit.
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
        if np.shape(input_dim) != (3,):
            raise ValueError(f"input_dim: wanted (C, H, W), got {input_dim!r}")
        C, H, W = (check_count(f"input_dim: {name}", n, 1) for name, n in zip("CHW", input_dim, strict=True))
        num_filters = check_count("num_filters", num_filters, 1)
        filter_size = check_count("filter_size", filter_size, 1)
        hidden_dim = check_count("hidden_dim", hidden_dim, 1)
        num_classes = check_count("num_classes", num_classes, 1)
        super().__init__(reg, weight_scale, dtype)
        self.use_batchnorm = bool(use_batchnorm)
        self.conv_param = {"stride": 1, "pad": (filter_size - 1) // 2}

        pad = self.conv_param["pad"]
        convolved = output_size((H + 2 * pad, W + 2 * pad), (filter_size, filter_size), stride=1)
        H_pool, W_pool = output_size(convolved, (POOL["pool_height"], POOL["pool_width"]), POOL["stride"])
        shapes = [
            (num_filters, C, filter_size, filter_size),
            (num_filters * H_pool * W_pool, hidden_dim),
            (hidden_dim, num_classes),
        ]
        rng = check_seed("seed", seed)
        for i, shape in enumerate(shapes, start=1):
            self._add_layer(
                i, weight_scale * rng.standard_normal(shape), "batchnorm" if use_batchnorm and i < 3 else None
            )

    def _forward(self, X, mode):
        """Scores (N, num_classes) of a batch, and the caches that `_backward` needs."""
        (conv, _), (affine, _) = HIDDEN_LAYERS[self.use_batchnorm]
        h1, conv_cache = conv(X, *self._layer_params(1), self.conv_param, *self.bn_params[:1], POOL)
        h2, affine_cache = affine(h1, *self._layer_params(2), *self.bn_params[1:])
        scores, scores_cache = affine_forward(h2, *self._layer_params(3))
        return scores, (conv_cache, affine_cache, scores_cache)

    def _backward(self, dscores, caches):
        """The gradient of the loss with respect to each parameter, given dscores (N, num_classes)."""
        (_, conv), (_, affine) = HIDDEN_LAYERS[self.use_batchnorm]
        conv_cache, affine_cache, scores_cache = caches
        dh2, *gradients3 = affine_backward(dscores, scores_cache)
        dh1, *gradients2 = affine(dh2, affine_cache)
        _, *gradients1 = conv(dh1, conv_cache, need_dx=False)
        names = self._layer_names(1) + self._layer_names(2) + self._layer_names(3)
        return dict(zip(names, gradients1 + gradients2 + gradients3, strict=True))
