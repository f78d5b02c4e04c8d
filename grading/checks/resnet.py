"""Checks of exercises 5.3 and 5.4: a residual block, and the ResNet, which is checked with simple blocks.

The learner's module stays in its process.  The names and shapes of its state are checked first; then it gets tensors
that are drawn here, from which the expected output is computed.
"""

import torch
from torch.nn import functional as F

from grading.checks.common import draw_tensor
from grading.expect import expect, require

BLOCKS = [(3, 3, 1), (3, 5, 1), (4, 4, 2), (3, 6, 2), (6, 4, 1)]  # c_in, c_out, stride
NETS = [  # widths, blocks in a stage, classes, and the expected blocks
    ((4,), 1, 10, [(4, 4, 1)]),
    ((4, 6), 1, 5, [(4, 4, 1), (4, 6, 2)]),
    ((5, 3, 3), 2, 7, [(5, 5, 1), (5, 5, 1), (5, 3, 2), (3, 3, 1), (3, 3, 2), (3, 3, 1)]),
]


PARTS = "only convolutions, batch norms and the last affine layer have parameters here"
FILTERS = (
    "a convolution is missing or too much, or its channels or kernel are others; a shortcut needs one to change shape"
)
NORMS = "each convolution is followed by a batch norm of its own output's channels"
AFFINE = "the last layer is affine, from the channels of the last stage to the classes, with a bias"
MOST, LARGEST = 100, 10_000  # tensors in a state, and numbers in a tensor


def _state(module):
    """The state of a module in float64, a dict of tensors: filters with four axes, matrices and vectors."""
    state = module.double().state_dict()
    require(isinstance(state, dict) and len(state) <= MOST, "the module's state_dict() is not one of a net's", PARTS)
    for name, value in state.items():
        tensor = isinstance(name, str) and isinstance(value, torch.Tensor)
        fits = tensor and value.ndim in (0, 1, 2, 4) and value.numel() <= LARGEST
        kinds = (torch.int64,) if tensor and value.ndim == 0 else (torch.float64,)
        require(fits and value.dtype in kinds, f"the module's state holds {name!r}, which no layer of it needs", PARTS)
    return state


def _drawn(module, state, rng):
    """Give a module other weights and running statistics, in the shapes of a state that has been checked.

    Returns them, a dict of tensors.
    """
    state = dict(state)
    for name, value in state.items():
        if value.ndim > 1:
            state[name] = draw_tensor(rng, *value.shape) / value[0].numel() ** 0.5
        elif value.ndim == 1:
            of_mean = name.endswith(("bias", "running_mean"))
            state[name] = torch.tensor(rng.uniform(0.5, 1.5, len(value))) - float(of_mean)
    module.load_state_dict(state)
    return state


def _below(state, prefix):
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _convolutions(state, name, shapes):
    """Pairs of filters and norm (running mean, running variance, gamma, beta).  shapes: of the filters, as expected."""
    filters = {key: value for key, value in state.items() if value.ndim == 4}
    found = [tuple(value.shape) for value in filters.values()]
    require(found == shapes, f"{name}: expected filters of the shapes {shapes}, got {found}", FILTERS)
    biased = any(key.removesuffix("weight") + "bias" in state for key in filters)
    require(
        not biased,
        f"{name}: a convolution has a bias",
        "a convolution before a norm needs no bias, since the norm subtracts the mean",
    )
    owners = [key.removesuffix("running_var") for key in state if key.endswith("running_var")]
    norms = [[state.get(owner + key) for key in ("running_mean", "running_var", "weight", "bias")] for owner in owners]
    whole = len(norms) == len(shapes) and all(value is not None for norm in norms for value in norm)
    require(whole, f"{name}: expected a batch norm, with gamma and beta, for each convolution", NORMS)
    widths = [(tuple(value.shape), shape[:1]) for norm, shape in zip(norms, shapes, strict=True) for value in norm]
    require(
        all(found == wanted for found, wanted in widths), f"{name}: a batch norm has another number of channels", NORMS
    )
    return list(zip(filters.values(), norms, strict=True))


def _normed(x, convolution, stride, training):
    filters, (mean, var, gamma, beta) = convolution
    x = F.conv2d(x, filters, stride=stride, padding=filters.shape[2] // 2)
    return F.batch_norm(x, mean.clone(), var.clone(), gamma, beta, training)


def _parts_of_block(state, name, c_in, c_out, stride):
    """The convolutions of a block's residual, and of its shortcut, which has one or none."""
    residual = _convolutions(
        _below(state, "residual."), f"{name}.residual", [(c_out, c_in, 3, 3), (c_out, c_out, 3, 3)]
    )
    changed = [(c_out, c_in, 1, 1)] if (c_in, stride) != (c_out, 1) else []
    return residual, _convolutions(_below(state, "shortcut."), f"{name}.shortcut", changed)


def _shortcut_and_residual(parts, x, stride, training, between=F.relu, late=False):
    """The outputs of shortcut and residual.  late: the second convolution of the residual has the stride."""
    (first, second), shortcut = parts
    strides = (1, stride) if late else (stride, 1)
    residual = _normed(between(_normed(x, first, strides[0], training)), second, strides[1], training)
    return _normed(x, shortcut[0], stride, training) if shortcut else x, residual


def _of_block(parts, x, stride, training, **changes):
    return F.relu(sum(_shortcut_and_residual(parts, x, stride, training, **changes)))


def residual_block(learner):
    for c_in, c_out, stride in BLOCKS:
        block = learner.pytorch_resnet.ResidualBlock(c_in, c_out, stride)
        state = _state(block)
        _parts_of_block(state, "block", c_in, c_out, stride)
        parts = _parts_of_block(_drawn(block, state, learner.rng), "block", c_in, c_out, stride)
        x = draw_tensor(learner.rng, 3, c_in, 6, 8)
        for mode, training in (("eval", False), ("train", True)):
            getattr(block, mode)()
            around, residual = _shortcut_and_residual(parts, x, stride, training)
            no_relu = _of_block(parts, x, stride, training, between=lambda x: x)
            mistakes = {
                "the ReLU after the sum is missing": around + residual,
                "the ReLU comes after the sum, not before it": around + F.relu(residual),
                "the ReLU between the convolutions is missing": no_relu,
                "the shortcut is missing": F.relu(residual),
                "the first convolution has the stride": _of_block(parts, x, stride, training, late=True),
            }
            case = f"c_in={c_in}, c_out={c_out}, stride={stride}, in {mode} mode"
            expect("out", block(x), F.relu(around + residual), mistakes, case)
        dout, x = draw_tensor(learner.rng, *residual.shape), x.requires_grad_()
        (dx,) = torch.autograd.grad(_of_block(parts, x, stride, True), x, dout)
        both = "x reaches out by the shortcut and by the residual, and the gradient returns by both"
        expect("dx", learner.vjp(block, [x], dout)[1], dx, case=case, otherwise=both)


def _parts_of_net(state, widths, plan, num_classes):
    """The net's first convolution, the matrices of its blocks, and w and b of its last layer.

    plan: c_in, c_out and stride of each block.
    """
    layers = _below(state, "layers.")
    mixes = [value for name, value in layers.items() if name.endswith(".mix")]
    require(
        len(mixes) == len(plan),
        f"layers: expected {len(plan)} residual blocks, got {len(mixes)}",
        "a stage for each of widths, with so many blocks each",
    )
    strides = [value for name, value in layers.items() if name.endswith(".stride")]
    for i, (mix, stride, wanted) in enumerate(zip(mixes, strides, plan, strict=True)):
        found = *tuple(mix.shape)[::-1], int(stride)
        text = f"block {i} has c_in, c_out, stride = {found}, expected {wanted}"
        require(found == wanted, text, "each stage except the first halves the image, in its first block alone")
    stem = {name: value for name, value in layers.items() if not name.endswith((".mix", ".stride"))}
    stem = _convolutions(stem, "layers before the blocks", [(widths[0], 3, 3, 3)])[0]
    w, b = state.get("affine.weight"), state.get("affine.bias")
    require(w is not None and b is not None, "affine: expected an affine layer, with a weight and a bias", AFFINE)
    wanted, found = (num_classes, widths[-1]), tuple(w.shape)
    require(
        found == wanted,
        f"affine.weight has the shape {found}, expected {wanted} with num_classes={num_classes}",
        AFFINE,
    )
    require(tuple(b.shape) == wanted[:1], f"affine.bias has the shape {tuple(b.shape)}, expected {wanted[:1]}", AFFINE)
    return stem, mixes, w, b


def _features(stem, mixes, x, strides, training, start=F.relu):
    x = start(_normed(x, stem, 1, training))
    for mix, stride in zip(mixes, strides, strict=True):
        x = torch.einsum("oc,nchw->nohw", mix, x[:, :, ::stride, ::stride]).tanh()
    return x


def resnet(learner):
    learner.drivers.put_simple_blocks_in_resnet()
    for widths, blocks, num_classes, plan in NETS:
        net, strides = learner.pytorch_resnet.ResNet(widths, blocks, num_classes), [stride for *_, stride in plan]
        state = _state(net)
        _parts_of_net(state, widths, plan, num_classes)
        *parts, w, b = _parts_of_net(_drawn(net, state, learner.rng), widths, plan, num_classes)
        x = draw_tensor(learner.rng, 2, 3, 8, 12)
        for mode, training in (("eval", False), ("train", True)):
            getattr(net, mode)()
            last = _features(*parts, x, strides, training)
            no_relu = _features(*parts, x, strides, training, start=lambda x: x)
            wanted = F.linear(last.mean((2, 3)), w, b)
            mistakes = {
                "it is the mean over the image, not the maximum": F.linear(last.amax((2, 3)), w, b),
                "it is the mean over the image, not the sum": F.linear(last.sum((2, 3)), w, b),
                "the ReLU before the blocks is missing": F.linear(no_relu.mean((2, 3)), w, b),
                "the softmax belongs to the loss, not to the net": wanted.softmax(dim=1),
                "the affine layer comes last, with no ReLU after it": F.relu(wanted),
            }
            case = f"widths={widths}, blocks={blocks}, in {mode} mode"
            expect("scores", net(x), wanted, mistakes, case)
        dout, x = draw_tensor(learner.rng, *wanted.shape), x.requires_grad_()
        scores = F.linear(_features(*parts, x, strides, True).mean((2, 3)), w, b)
        expect("dx", learner.vjp(net, [x], dout)[1], torch.autograd.grad(scores, x, dout)[0], case=case)
