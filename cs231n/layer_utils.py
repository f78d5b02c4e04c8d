"""Composite layers: layers that often follow one another, as one forward and one backward.

Arguments, shapes, dtypes and errors are those of the layers; the cache of each is a tuple of theirs.
"""

from cs231n.batchnorm import (
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
)
from cs231n.fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from cs231n.layers import affine_backward, affine_forward, relu_backward, relu_forward


def affine_relu_forward(x, w, b):
    """out = relu(x w + b).  Returns out (N, M) and the cache."""
    a, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(a)
    return out, (affine_cache, relu_cache)


def affine_relu_backward(dout, cache, need_dx=True):
    """Gradients of `affine_relu_forward`: dx (None if not need_dx), dw, db."""
    affine_cache, relu_cache = cache
    da = relu_backward(dout, relu_cache)
    return affine_backward(da, affine_cache, need_dx)


def affine_bn_relu_forward(x, w, b, gamma, beta, bn_param):
    """out = relu(batchnorm(x w + b)).  Returns out (N, M) and the cache."""
    a, affine_cache = affine_forward(x, w, b)
    h, bn_cache = batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(h)
    return out, (affine_cache, bn_cache, relu_cache)


def affine_bn_relu_backward(dout, cache, need_dx=True):
    """Gradients of `affine_bn_relu_forward`: dx (None if not need_dx), dw, db, dgamma, dbeta."""
    affine_cache, bn_cache, relu_cache = cache
    dh = relu_backward(dout, relu_cache)
    da, dgamma, dbeta = batchnorm_backward_alt(dh, bn_cache)
    return *affine_backward(da, affine_cache, need_dx), dgamma, dbeta


def affine_ln_relu_forward(x, w, b, gamma, beta, ln_param):
    """out = relu(layernorm(x w + b)).  Returns out (N, M) and the cache."""
    a, affine_cache = affine_forward(x, w, b)
    h, ln_cache = layernorm_forward(a, gamma, beta, ln_param)
    out, relu_cache = relu_forward(h)
    return out, (affine_cache, ln_cache, relu_cache)


def affine_ln_relu_backward(dout, cache, need_dx=True):
    """Gradients of `affine_ln_relu_forward`: dx (None if not need_dx), dw, db, dgamma, dbeta."""
    affine_cache, ln_cache, relu_cache = cache
    dh = relu_backward(dout, relu_cache)
    da, dgamma, dbeta = layernorm_backward(dh, ln_cache)
    return *affine_backward(da, affine_cache, need_dx), dgamma, dbeta


def conv_relu_forward(x, w, b, conv_param):
    """out = relu(conv(x, w) + b).  Returns out (N, F, H_out, W_out) and the cache."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, relu_cache = relu_forward(a)
    return out, (conv_cache, relu_cache)


def conv_relu_backward(dout, cache, need_dx=True):
    """Gradients of `conv_relu_forward`: dx (None if not need_dx), dw, db."""
    conv_cache, relu_cache = cache
    da = relu_backward(dout, relu_cache)
    return conv_backward_fast(da, conv_cache, need_dx)


def conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, bn_param):
    """out = relu(spatial_batchnorm(conv(x, w) + b)).  Returns out (N, F, H_out, W_out) and the cache."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    h, bn_cache = spatial_batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(h)
    return out, (conv_cache, bn_cache, relu_cache)


def conv_bn_relu_backward(dout, cache, need_dx=True):
    """Gradients of `conv_bn_relu_forward`: dx (None if not need_dx), dw, db, dgamma, dbeta."""
    conv_cache, bn_cache, relu_cache = cache
    dh = relu_backward(dout, relu_cache)
    da, dgamma, dbeta = spatial_batchnorm_backward(dh, bn_cache)
    return *conv_backward_fast(da, conv_cache, need_dx), dgamma, dbeta


def conv_relu_pool_forward(x, w, b, conv_param, pool_param):
    """out = max_pool(relu(conv(x, w) + b)).  Returns out (N, F, H_out, W_out) and the cache."""
    h, conv_cache = conv_relu_forward(x, w, b, conv_param)
    out, pool_cache = max_pool_forward_fast(h, pool_param)
    return out, (conv_cache, pool_cache)


def conv_relu_pool_backward(dout, cache, need_dx=True):
    """Gradients of `conv_relu_pool_forward`: dx (None if not need_dx), dw, db."""
    conv_cache, pool_cache = cache
    dh = max_pool_backward_fast(dout, pool_cache)
    return conv_relu_backward(dh, conv_cache, need_dx)


def conv_bn_relu_pool_forward(x, w, b, gamma, beta, conv_param, bn_param, pool_param):
    """out = max_pool(relu(spatial_batchnorm(conv(x, w) + b))).  Returns out (N, F, H_out, W_out) and the cache."""
    h, conv_cache = conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, bn_param)
    out, pool_cache = max_pool_forward_fast(h, pool_param)
    return out, (conv_cache, pool_cache)


def conv_bn_relu_pool_backward(dout, cache, need_dx=True):
    """Gradients of `conv_bn_relu_pool_forward`: dx (None if not need_dx), dw, db, dgamma, dbeta."""
    conv_cache, pool_cache = cache
    dh = max_pool_backward_fast(dout, pool_cache)
    return conv_bn_relu_backward(dh, conv_cache, need_dx)
