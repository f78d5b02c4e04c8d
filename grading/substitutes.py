"""Correct functions, by PyTorch, for the exercises that another exercise uses: theirs may still be wrong.

They run in a process of their own, apart from the learner's.  A forward function computes with tensors that require
gradients and keeps them in its cache; backward is autograd.  The functions take and return what the course's do, arrays
of the same shapes and dtypes, and the caches that an exercise reads have the layout that it describes.
"""

import inspect

import numpy as np
import torch
from torch.nn import functional as F


class Cache(tuple):
    """A cache in the course's layout, which also holds what autograd needs: the output and the inputs."""

    graph = None


def layer(function, contents=lambda *args: args):
    """Forward and backward of a function of tensors.  contents: a function of forward's arguments, for the cache."""

    def forward(*args, **kwargs):
        args = inspect.signature(function).bind(*args, **kwargs).args
        inputs = [_tensor(arg) for arg in args]
        out = function(*inputs)
        cache = Cache(contents(*args))
        cache.graph = out, [arg for arg in inputs if isinstance(arg, torch.Tensor)]
        return out.detach().numpy(), cache

    def backward(dout, cache, need_dx=True):
        out, inputs = cache.graph
        grads = torch.autograd.grad(out, inputs, torch.tensor(dout), retain_graph=True)
        first, *others = (grad.numpy() for grad in grads)
        return (first if need_dx else None, *others) if others else first

    return forward, backward


def _tensor(arg):
    return torch.tensor(arg).requires_grad_() if isinstance(arg, np.ndarray) else arg


def affine(x, w, b):
    return x.flatten(1) @ w + b


affine_forward, affine_backward = layer(affine)
relu_forward, relu_backward = layer(lambda x: F.relu(x))
affine_relu_forward, affine_relu_backward = layer(lambda x, w, b: F.relu(affine(x, w, b)))


def softmax_loss(x, y):
    scores = _tensor(x)
    loss = F.cross_entropy(scores, torch.tensor(y))
    loss.backward()
    return loss.item(), scores.grad.numpy()


def batchnorm(x, gamma, beta, bn_param):
    """Batch norm of a tensor x (N, D).  In train mode it updates the running averages, which are arrays."""
    mean, var = moments(x, bn_param)
    if bn_param["mode"] == "train":
        for name, moment in (("running_mean", mean), ("running_var", var)):
            batch = moment[0].detach().numpy()
            bn_param[name] = batch + bn_param.get("momentum", 0.9) * (bn_param.get(name, 0 * batch) - batch)
    return torch.addcmul(beta, gamma, (x - mean) / deviation(var, bn_param))


def moments(x, bn_param):
    """Mean and variance, tensors: (1, D), of the batch, in train mode; (D,), the running averages, in test mode."""
    if bn_param["mode"] == "train":
        return torch.var_mean(x, 0, correction=0, keepdim=True)[::-1]
    return [torch.tensor(bn_param[name]).to(x.dtype) for name in ("running_mean", "running_var")]


def deviation(var, bn_param):
    return (var + bn_param.get("eps", 1e-5)).sqrt()


def batchnorm_cache(x, gamma, beta, bn_param):
    mean, var = moments(torch.tensor(x), bn_param)
    std = deviation(var, bn_param)
    return ((torch.tensor(x) - mean) / std).numpy(), gamma, std.numpy().reshape(-1), bn_param["mode"]


def layernorm(x, gamma, beta, ln_param):
    return F.layer_norm(x, x.shape[1:], gamma, beta, ln_param.get("eps", 1e-5))


def spatial_batchnorm(x, gamma, beta, bn_param):
    pixels = x.movedim(1, -1)
    return batchnorm(pixels.flatten(0, 2), gamma, beta, bn_param).view_as(pixels).movedim(-1, 1)


batchnorm_forward, batchnorm_backward_alt = layer(batchnorm, batchnorm_cache)
layernorm_forward, layernorm_backward = layer(layernorm)
spatial_batchnorm_forward, spatial_batchnorm_backward = layer(spatial_batchnorm)


def dropout(x, dropout_param):
    if dropout_param["mode"] == "test":
        return x.clone()
    rng = np.random.default_rng(dropout_param.get("rng") or dropout_param.get("seed"))
    return x * torch.tensor(rng.binomial(1, dropout_param["p"], x.shape)) / dropout_param["p"]


dropout_forward, dropout_backward = layer(dropout)


def conv(x, w, b, conv_param):
    return F.conv2d(x, w, b, conv_param.get("stride", 1), conv_param.get("pad", 0))


def max_pool(x, pool_param):
    return F.max_pool2d(x, (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"])


def conv_relu_pool(x, w, b, conv_param, pool_param):
    return max_pool(F.relu(conv(x, w, b, conv_param)), pool_param)


conv_forward, conv_backward = layer(conv)
max_pool_forward, max_pool_backward = layer(max_pool)
conv_relu_pool_forward, conv_relu_pool_backward = layer(conv_relu_pool)


def im2col(x, kernel_h, kernel_w, stride=1, pad=0):
    patches = F.unfold(torch.tensor(x), (kernel_h, kernel_w), padding=pad, stride=stride)
    return patches.swapaxes(0, 1).flatten(1).numpy()


def col2im(cols, x_shape, kernel_h, kernel_w, stride=1, pad=0):
    patches = torch.tensor(cols).reshape(len(cols), x_shape[0], -1).swapaxes(0, 1)
    return F.fold(patches, x_shape[2:], (kernel_h, kernel_w), padding=pad, stride=stride).numpy()


SUBSTITUTES = {
    "layers.affine_forward": affine_forward,
    "layers.affine_backward": affine_backward,
    "layers.relu_forward": relu_forward,
    "layers.relu_backward": relu_backward,
    "layers.softmax_loss": softmax_loss,
    "layer_utils.affine_relu_forward": affine_relu_forward,
    "layer_utils.affine_relu_backward": affine_relu_backward,
    "batchnorm.batchnorm_forward": batchnorm_forward,
    "batchnorm.batchnorm_backward": batchnorm_backward_alt,
    "batchnorm.batchnorm_backward_alt": batchnorm_backward_alt,
    "batchnorm.layernorm_forward": layernorm_forward,
    "batchnorm.layernorm_backward": layernorm_backward,
    "batchnorm.spatial_batchnorm_forward": spatial_batchnorm_forward,
    "batchnorm.spatial_batchnorm_backward": spatial_batchnorm_backward,
    "dropout.dropout_forward": dropout_forward,
    "dropout.dropout_backward": dropout_backward,
    "conv_layers.conv_forward_naive": conv_forward,
    "fast_layers.im2col": im2col,
    "fast_layers.col2im": col2im,
    "fast_layers.conv_forward_fast": conv_forward,
    "fast_layers.conv_backward_fast": conv_backward,
    "fast_layers.max_pool_forward_fast": max_pool_forward,
    "fast_layers.max_pool_backward_fast": max_pool_backward,
    "layer_utils.conv_relu_pool_forward": conv_relu_pool_forward,
    "layer_utils.conv_relu_pool_backward": conv_relu_pool_backward,
}
