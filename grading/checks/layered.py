"""Nets that are handed in layer by layer: what their arrays mean, what they would cost, and the scores that they give.

The name of an array is INDEX.KIND.VALUE, such as 03.conv.w: the indices are 00, 01, ... without a gap.  `KINDS` lists
the kinds and their values; a kind without a value has an array of the shape (0,), such as 04.relu.  A residual layer
has layers in place of values: 05.residual.branch.00.conv.w, ..., and 05.residual.shortcut.00.conv.w, ... unless the
shortcut is x itself.  No residual layer is inside of another.

A net is not run before the shapes of all its layers fit, and its operations and its largest activation were counted.
The slowest nets that the limits allow were measured: 3,000 images take up to 45 s on one core.
"""

import math

import numpy as np

from grading.expect import require
from grading.oracle import F, torch

IMAGE = (3, 32, 32)
MOST_ARRAYS, DTYPES, AXES = 600, ("<f4", "<f8", "<i8"), (0, 1, 2, 3, 4)
OPERATIONS, ACTIVATION = 250_000_000, 1 << 18  # for an image: multiplications, and numbers in a layer's output
ELEMENTWISE = 32  # multiplications of a convolution that take as long as one number of another layer
FEWEST = 16  # filters: a convolution with fewer takes about as long as with so many
TOO_COSTLY = "the grader runs no net that costs so much: pool earlier, or take fewer filters or layers"
LARGEST_SETTING = 32  # of a stride, a pad and the side of a pooling window
BATCH = 20


def scores_of(arrays, images):
    """The scores (N, 10) float32 that a net gives to images (N, 3, 32, 32) uint8.

    arrays: name -> array of one of `DTYPES`.  Raises `Wrong` for a net that is not as described above, or costs more.
    """
    net, shape, operations = _stretch(arrays, IMAGE, "")
    text = f"the net takes {operations:,} multiplications for an image, expected {OPERATIONS:,} at most"
    require(operations <= OPERATIONS, text, TOO_COSTLY)
    require(shape == (10,), f"the net's output for an image has the shape {shape}, expected (10,)")
    with torch.inference_mode():
        return torch.cat([net(part.float()) for part in torch.tensor(images).split(BATCH)])


def _stretch(arrays, shape, inside):
    """A function of a batch, its output's shape for an example, and its operations, from the arrays of some layers.

    shape: of its input.  inside: the name of the residual layer whose layers they are, or "".
    """
    layers, functions, total = {}, [], 0
    for name, array in arrays.items():
        index, _, rest = name.partition(".")
        layers.setdefault(index, {})[rest] = array
    indices = [f"{i:02d}" for i in range(len(layers))]
    unknown = sorted(set(layers) - set(indices))
    text = f"expected the layers {inside}00, {inside}01, ... without a gap, got {', '.join(unknown[:1]) or 'none'}"
    require(layers and not unknown, text)
    for index in indices:
        kinds = sorted({rest.partition(".")[0] for rest in layers[index]})
        where = f"layer {inside}{index}"
        allowed = [kind for kind in KINDS if not (inside and kind == "residual")]
        require(len(kinds) == 1 and kinds[0] in allowed, f"{where}: expected one of {', '.join(allowed)}, got {kinds}")
        values = {rest.partition(".")[2]: array for rest, array in layers[index].items()}
        function, shape, operations = _layer(kinds[0], values, shape, f"{where}.{kinds[0]}")
        size = math.prod(shape)
        text = f"{where}: its output for an image has {size:,} numbers, expected 1 to {ACTIVATION:,}"
        require(0 < size <= ACTIVATION, text, TOO_COSTLY if size else "")
        functions.append(function)
        total += operations
    return lambda x: _apply(functions, x), shape, total


def _apply(functions, x):
    for function in functions:
        x = function(x)
    return x


def _layer(kind, values, shape, where):
    """As `_stretch`, of one layer."""
    if kind == "residual":
        return _residual(values, shape, where)
    make, names = KINDS[kind]
    require(
        set(values) == set(names), f"{where}: expected the values {', '.join(names) or 'none'}, got {sorted(values)}"
    )
    require(names != [""] or values[""].shape == (0,), f"{where} has entries, expected an array of the shape (0,)")
    return make(shape, where, **{name: _value(f"{where}.{name}", values[name]) for name in names if name})


def _value(name, array):
    """A tensor of floats, or a setting, an int."""
    if array.dtype.kind == "i":
        require(array.shape == (), f"{name}: expected a whole number, got an array of them")
        require(0 <= array <= LARGEST_SETTING, f"{name} is {array}, expected 0 to {LARGEST_SETTING}")
        return int(array)
    with np.errstate(over="ignore"):
        tensor = torch.tensor(array.astype(np.float32))
    require(bool(tensor.isfinite().all()), f"{name} has entries that are not finite")
    return tensor


def _check(value, shape, name):
    """Check that a value is an array of floats of this shape; None: any size."""
    wanted = f"({', '.join('*' if n is None else str(n) for n in shape)})"
    require(isinstance(value, torch.Tensor), f"{name}: expected floats of the shape {wanted}, got a whole number")
    fits = value.ndim == len(shape) and all(n in (None, size) for n, size in zip(shape, value.shape, strict=True))
    require(fits, f"{name} has the shape {tuple(value.shape)}, expected {wanted}")


def _conv(shape, where, w, b, stride, pad):
    C, H, W = _maps(shape, where)
    _check(w, (None, C, None, None), f"{where}.w")
    _check(b, (len(w),), f"{where}.b")
    H_out, W_out = _windows((H, W), w.shape[2:], stride, pad, where)
    products = max(len(w), FEWEST) * math.prod(w.shape[1:]) * H_out * W_out
    moved = C * (H + 2 * pad) * (W + 2 * pad) + len(w) * H_out * W_out
    return lambda x: F.conv2d(x, w, b, stride, pad), (len(w), H_out, W_out), products + ELEMENTWISE * moved


def _max_pool(shape, where, size, stride):
    C, H, W = _maps(shape, where)
    require(isinstance(size, int), f"{where}.size: expected a whole number")
    H_out, W_out = _windows((H, W), (size, size), stride, 0, where)
    cost = ELEMENTWISE * size**2 * C * H_out * W_out
    return lambda x: F.max_pool2d(x, size, stride), (C, H_out, W_out), cost


def _norm(shape, where, scale, shift):
    for name, value in (("scale", scale), ("shift", shift)):
        each = isinstance(value, torch.Tensor) and value.ndim == len(shape)
        _check(value, shape if each else shape[:1], f"{where}.{name}")
    scale, shift = (value.reshape(*value.shape, *[1] * (len(shape) - value.ndim)) for value in (scale, shift))
    return lambda x: x * scale + shift, shape, ELEMENTWISE * math.prod(shape)


def _relu(shape, where):
    return F.relu, shape, ELEMENTWISE * math.prod(shape)


def _mean(shape, where):
    _maps(shape, where)
    return lambda x: x.mean(dim=(2, 3)), shape[:1], ELEMENTWISE * math.prod(shape)


def _affine(shape, where, w, b):
    _check(w, (math.prod(shape), None), f"{where}.w")
    _check(b, (w.shape[1],), f"{where}.b")
    return lambda x: x.flatten(1) @ w + b, (w.shape[1],), w.numel()


def _residual(values, shape, where):
    """out = branch(x) + shortcut(x)."""
    sides = {"branch": {}, "shortcut": {}}
    for name, array in values.items():
        side, _, rest = name.partition(".")
        require(side in sides, f"{where}: expected branch or shortcut, got {side!r}")
        sides[side][rest] = array
    branch, out, operations = _stretch(sides["branch"], shape, f"{where.removeprefix('layer ')}.branch.")
    shortcut, other, more = (lambda x: x), shape, 0
    if sides["shortcut"]:
        shortcut, other, more = _stretch(sides["shortcut"], shape, f"{where.removeprefix('layer ')}.shortcut.")
    require(out == other, f"{where}: the branch gives the shape {out}, and the shortcut {other}")
    return lambda x: branch(x) + shortcut(x), out, operations + more + ELEMENTWISE * math.prod(out)


def _maps(shape, where):
    require(len(shape) == 3, f"{where}: its input has the shape {shape}, expected (C, H, W)")
    return shape


def _windows(image, window, stride, pad, where):
    """How many windows fit into an image, in both directions."""
    whole = isinstance(stride, int) and isinstance(pad, int)
    require(whole and stride > 0, f"{where}: expected a stride above 0 and a pad, both whole numbers")
    fits = all(0 < k <= n + 2 * pad for n, k in zip(image, window, strict=True))
    require(fits, f"{where}: a window of {tuple(window)} does not fit into {image}, padded by {pad}")
    require(pad < max(window), f"{where}: a pad of {pad} makes windows of zeros alone")
    return [(n + 2 * pad - k) // stride + 1 for n, k in zip(image, window, strict=True)]


KINDS = {  # kind -> the function that makes a layer, and the names of its values
    "conv": (_conv, ["w", "b", "stride", "pad"]),
    "norm": (_norm, ["scale", "shift"]),
    "relu": (_relu, [""]),
    "max_pool": (_max_pool, ["size", "stride"]),
    "mean": (_mean, [""]),
    "affine": (_affine, ["w", "b"]),
    "residual": (_residual, []),
}
