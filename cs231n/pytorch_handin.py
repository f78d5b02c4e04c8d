"""Write a PyTorch net as the file of layers that is handed in, without any of its code."""

import torch
from torch import nn

from cs231n import handin
from cs231n.pytorch_resnet import ResidualBlock, ResNet


def save_module(module, statistics, path=handin.RESNET):
    """Write a net of the modules that `layers_of` knows; path gets what `handin.save_layers` writes.

    statistics: mean and std of the pixels, from 0 to 255, by which the net's images were normalized: (3,) each, such as
    the attribute of that name of `pytorch_data.Images`.  The net may be on any device, and stays as it is.
    """
    mean, std = (_array(s) for s in statistics)
    handin.save_layers(layers_of(module), mean, std, path)


def layers_of(module):
    """The layers of a module in test mode, for `handin.save_layers`.

    It is one of Conv2d, BatchNorm1d, BatchNorm2d, ReLU, MaxPool2d, AdaptiveAvgPool2d(1), Flatten, Linear, Dropout,
    Identity; a Sequential of such modules; or a `ResidualBlock` or `ResNet` of cs231n.pytorch_resnet.  A Flatten is
    left out, since an affine layer reads each example as a row, and so is whatever does nothing in test mode.
    Raises ValueError for another class, even if it is derived from one of these: its forward may do anything; and for
    settings that the file does not have, such as groups.
    """
    if type(module) not in LAYERS:
        known = ", ".join(kind.__name__ for kind in LAYERS)
        raise ValueError(f"module: wanted a net of {known}; got {type(module).__name__}")
    return LAYERS[type(module)](module)


def _conv(module):
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        raise ValueError(f"module: wanted a convolution without groups and dilation, padded by zeros; got {module}")
    settings = {"stride": _both(module, "stride"), "pad": _both(module, "padding")}
    return [("conv", {"w": _array(module.weight), "b": _bias(module), **settings})]


def _norm(module):
    names = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
    arrays = {name: _array(getattr(module, theirs)) for name, theirs in names.items()}
    return [("norm", {**arrays, "eps": module.eps})]


def _max_pool(module):
    if _both(module, "padding") or _both(module, "dilation") != 1 or module.ceil_mode:
        raise ValueError(f"module: wanted max-pooling without padding, dilation and ceil_mode; got {module}")
    return [("max_pool", {"size": _both(module, "kernel_size"), "stride": _both(module, "stride")})]


def _mean(module):
    if module.output_size not in (1, (1, 1)):
        raise ValueError(f"module: wanted a mean over all positions, of output size 1; got {module}")
    return [("mean", {})]


def _linear(module):
    return [("affine", {"w": _array(module.weight.T), "b": _bias(module)})]


def _block(module):
    sides = {"branch": layers_of(module.residual), "shortcut": layers_of(module.shortcut)}
    return [("residual", sides), ("relu", {})]


def _both(module, name):
    """A setting that is the same for height and width."""
    value = getattr(module, name)
    both = value if isinstance(value, tuple) else (value, value)
    if both[0] != both[1]:
        raise ValueError(f"module: wanted the same {name} for height and width; got {module}")
    return both[0]


def _bias(module):
    """The biases of a convolution or an affine layer; zeros where it has none."""
    return _array(torch.zeros(len(module.weight)) if module.bias is None else module.bias)


def _array(tensor):
    return tensor.detach().cpu().float().numpy()


LAYERS = {  # class -> a function that gives the layers of its modules
    nn.Sequential: lambda module: [layer for part in module for layer in layers_of(part)],
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: lambda _: [("relu", {})],
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: _mean,
    nn.Linear: _linear,
    ResidualBlock: _block,
    ResNet: lambda module: [*layers_of(module.layers), ("mean", {}), *layers_of(module.affine)],
    **dict.fromkeys((nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d), lambda _: []),
}
