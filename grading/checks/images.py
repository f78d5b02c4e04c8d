"""Convolution and max-pooling by PyTorch, for the checks of notebook 04."""

from grading.oracle import F

OVERWRITTEN = "where windows overlap, a pixel gets the sum of what each gives; nothing is overwritten"


def conv(x, w, b, conv_param):
    return F.conv2d(x, w, b, conv_param.get("stride", 1), conv_param.get("pad", 0))


def pool(x, pool_param):
    return F.max_pool2d(x, (pool_param["pool_height"], pool_param["pool_width"]), pool_param["stride"])


def unfold(x, kernel, conv_param):
    return F.unfold(x, kernel, padding=conv_param.get("pad", 0), stride=conv_param.get("stride", 1))


def fold(patches, shape, kernel, conv_param):
    return F.fold(patches, shape[2:], kernel, padding=conv_param.get("pad", 0), stride=conv_param.get("stride", 1))
