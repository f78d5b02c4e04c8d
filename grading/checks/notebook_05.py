"""Checks of the exercises of notebook 05, a residual net in PyTorch.

A module of the learner's stays in its process.  What it should give is computed from its state: filters are what has
four axes, a norm is what has running statistics, both in the order in which the module holds them.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.nn import functional as F

from grading.expect import expect, require

BLOCKS = [(3, 3, 1), (3, 5, 1), (4, 4, 2), (3, 6, 2), (6, 4, 1)]  # c_in, c_out, stride
NETS = [  # widths, blocks in a stage, classes, and the blocks that there should be
    ((4,), 1, 10, [(4, 4, 1)]),
    ((4, 6), 1, 5, [(4, 4, 1), (4, 6, 2)]),
    ((5, 3, 3), 2, 7, [(5, 5, 1), (5, 5, 1), (5, 3, 2), (3, 3, 1), (3, 3, 2), (3, 3, 1)]),
]
DTYPES = (torch.float32, torch.float64)


def _normal(rng, *shape):
    return torch.tensor(rng.standard_normal(shape))


def _drawn_state(module, rng):
    """Give a module other weights and running statistics, in float64.  Returns its state, a dict of tensors."""
    state = module.double().state_dict()
    for name, value in state.items():
        if value.ndim > 1:
            state[name] = _normal(rng, *value.shape) / value[0].numel() ** 0.5
        elif value.is_floating_point():
            of_mean = name.endswith(("bias", "running_mean"))
            state[name] = torch.tensor(rng.uniform(0.5, 1.5, len(value))) - float(of_mean)
    module.load_state_dict(state)
    return state


def _below(state, prefix):
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _convolutions(state, name, shapes):
    """Pairs of filters and their norm: running mean and variance, gamma, beta.  shapes: what the filters' shall be."""
    filters = {key: value for key, value in state.items() if value.ndim == 4}
    found = [tuple(value.shape) for value in filters.values()]
    require(found == shapes, f"{name}: expected filters of the shapes {shapes}, got {found}")
    biased = any(key.removesuffix("weight") + "bias" in state for key in filters)
    require(not biased, f"{name}: a convolution before a norm needs no bias, since the norm takes the mean off again")
    owners = [key.removesuffix("running_var") for key in state if key.endswith("running_var")]
    norms = [[state.get(owner + key) for key in ("running_mean", "running_var", "weight", "bias")] for owner in owners]
    whole = len(norms) == len(shapes) and all(value is not None for norm in norms for value in norm)
    require(whole, f"{name}: expected a batch norm, with gamma and beta, for each convolution")
    return list(zip(filters.values(), norms, strict=True))


def _normed(x, convolution, stride, training):
    filters, (mean, var, gamma, beta) = convolution
    x = F.conv2d(x, filters, stride=stride, padding=filters.shape[2] // 2)
    return F.batch_norm(x, mean.clone(), var.clone(), gamma, beta, training)


def _parts_of_block(state, name, c_in, c_out, stride):
    """The convolutions of a block's residual, and those of its shortcut, none or one."""
    residual = _convolutions(
        _below(state, "residual."), f"{name}.residual", [(c_out, c_in, 3, 3), (c_out, c_out, 3, 3)]
    )
    changed = [(c_out, c_in, 1, 1)] if (c_in, stride) != (c_out, 1) else []
    return residual, _convolutions(_below(state, "shortcut."), f"{name}.shortcut", changed)


def _two_ways(parts, x, stride, training, between=F.relu, late=False):
    """What comes by the shortcut, and what by the residual.  late: the residual's second convolution has the stride."""
    (first, second), shortcut = parts
    strides = (1, stride) if late else (stride, 1)
    residual = _normed(between(_normed(x, first, strides[0], training)), second, strides[1], training)
    return _normed(x, shortcut[0], stride, training) if shortcut else x, residual


def _of_block(parts, x, stride, training, **changes):
    return F.relu(sum(_two_ways(parts, x, stride, training, **changes)))


def residual_block(solution):
    for c_in, c_out, stride in BLOCKS:
        block = solution.pytorch_resnet.ResidualBlock(c_in, c_out, stride)
        parts = _parts_of_block(_drawn_state(block, solution.rng), "block", c_in, c_out, stride)
        x = _normal(solution.rng, 3, c_in, 6, 8)
        for mode, training in (("eval", False), ("train", True)):
            getattr(block, mode)()
            around, residual = _two_ways(parts, x, stride, training)
            no_relu = _of_block(parts, x, stride, training, between=lambda x: x)
            mistakes = {
                "the ReLU behind the sum is missing": around + residual,
                "the ReLU comes behind the sum, not before it": around + F.relu(residual),
                "the ReLU between the convolutions is missing": no_relu,
                "the way around is missing": F.relu(residual),
                "the first convolution has the stride": _of_block(parts, x, stride, training, late=True),
            }
            case = f"c_in={c_in}, c_out={c_out}, stride={stride}, in {mode} mode"
            expect("out", block(x), F.relu(around + residual), mistakes, case)
        dout, x = _normal(solution.rng, *residual.shape), x.requires_grad_()
        (dx,) = torch.autograd.grad(_of_block(parts, x, stride, True), x, dout)
        expect("dx", solution.vjp(block, [x], dout)[1], dx, case=case)


def _parts_of_net(state, widths, plan):
    """The net's first convolution, and the parts of its blocks.  plan: c_in, c_out and stride of each."""
    layers = _below(state, "layers.")
    prefixes = list(dict.fromkeys(name.partition("residual.")[0] for name in layers if "residual." in name))
    require(len(prefixes) == len(plan), f"layers: expected {len(plan)} residual blocks, got {len(prefixes)}")
    stem = {name: value for name, value in layers.items() if not name.startswith(tuple(prefixes))}
    blocks = [
        _parts_of_block(_below(layers, prefix), f"block {i}", *sizes)
        for i, (prefix, sizes) in enumerate(zip(prefixes, plan, strict=True))
    ]
    return _convolutions(stem, "layers before the blocks", [(widths[0], 3, 3, 3)])[0], blocks


def _features(parts, x, strides, training, start=F.relu):
    stem, blocks = parts
    x = start(_normed(x, stem, 1, training))
    for block, stride in zip(blocks, strides, strict=True):
        x = _of_block(block, x, stride, training)
    return x


def resnet(solution):
    for widths, blocks, num_classes, plan in NETS:
        net = solution.pytorch_resnet.ResNet(widths, blocks, num_classes)
        state = _drawn_state(net, solution.rng)
        parts, strides = _parts_of_net(state, widths, plan), [stride for *_, stride in plan]
        w, b = state.get("affine.weight"), state.get("affine.bias")
        require(w is not None and b is not None, "affine: expected an affine layer, with a weight and a bias")
        sizes, found = (num_classes, widths[-1]), tuple(w.shape)
        require(found == sizes, f"affine.weight has the shape {found}, expected {sizes} with num_classes={num_classes}")
        x = _normal(solution.rng, 2, 3, 8, 12)
        for mode, training in (("eval", False), ("train", True)):
            getattr(net, mode)()
            last = _features(parts, x, strides, training)
            no_relu = _features(parts, x, strides, training, start=lambda x: x)
            all_alike = _features(parts, x, [1] * len(plan), training)
            wanted = F.linear(last.mean((2, 3)), w, b)
            mistakes = {
                "it is the mean over the picture, not the maximum": F.linear(last.amax((2, 3)), w, b),
                "it is the mean over the picture, not the sum": F.linear(last.sum((2, 3)), w, b),
                "the ReLU before the blocks is missing": F.linear(no_relu.mean((2, 3)), w, b),
                "each stage but the first halves the picture": F.linear(all_alike.mean((2, 3)), w, b),
                "the loss takes the softmax, and not the net": wanted.softmax(dim=1),
                "the affine layer comes last, with no ReLU behind it": F.relu(wanted),
            }
            case = f"widths={widths}, blocks={blocks}, in {mode} mode"
            expect("scores", net(x), wanted, mistakes, case)
        dout, x = _normal(solution.rng, *wanted.shape), x.requires_grad_()
        scores = F.linear(_features(parts, x, strides, True).mean((2, 3)), w, b)
        expect("dx", solution.vjp(net, [x], dout)[1], torch.autograd.grad(scores, x, dout)[0], case=case)


def _images(rng, dtype, N, H=5, W=7):
    x = torch.tensor(rng.integers(1, 256, (N, 3, H, W)))
    return x.to(dtype) if dtype == torch.uint8 else (x / 255).to(dtype)


def _moved(x, rows, columns):
    """rows x columns, a product of matrices for each image and channel: rows (N, H, H), columns (N, W, W)."""
    return torch.tensor(np.asarray(rows)[:, None] @ x.double().numpy() @ np.asarray(columns)[:, None]).to(x.dtype)


def _window(x, down, right, picked=lambda n, k: np.eye(n, k=k)):
    """Each image of x moved up by its entry of down, and to the left by that of right.

    picked (n, k): the matrix (n, n) whose row i picks entry i + k; by default it gives 0 where there is none.
    """
    height, width = x.shape[2:]
    return _moved(x, [picked(height, k) for k in down], [picked(width, k).T for k in right])


def shifted(solution):
    for dtype in (torch.uint8, *DTYPES):
        for N, pad in ((4, 4), (3, 1), (1, 2), (2, 0)):
            x = _images(solution.rng, dtype, N)
            dy, dx = solution.rng.integers(0, 2 * pad + 1, (2, N))
            dy[0], dx[0], dx[-1] = 2 * pad, 0, max(2 * pad - 1, 0)
            down, right = dy - pad, dx - pad
            repeated = _window(x, down, right, lambda n, k: np.eye(n)[np.clip(np.arange(n) + k, 0, n - 1)])
            mistakes = {
                "dy and dx are interchanged": _window(x, right, down),
                "each image has a shift of its own": _window(x, down[:1].repeat(N), right[:1].repeat(N)),
                "it is shifted the other way: the window's corner is at dy, dx": _window(x, -down, -right),
                "dy and dx count from the corner of the padded image": _window(x, dy, dx),
                "beyond the border there is 0, and not the border again": repeated,
                "what is shifted out comes back on the other side": _window(
                    x, down, right, lambda n, k: np.roll(np.eye(n), k, axis=1)
                ),
            }
            out = solution.pytorch_data.shifted(x, torch.tensor(dy), torch.tensor(dx), pad)
            case = f"pad={pad}, dy={dy.tolist()}, dx={dx.tolist()}"
            expect("windows", out, _window(x, down, right), mistakes, case)


def mirrored(solution):
    for dtype in (torch.uint8, *DTYPES):
        for flips in ([True, False, True, True], [False, True], [True], [False]):
            x, chosen = _images(solution.rng, dtype, len(flips)), np.array(flips)[:, None, None]
            rows, columns = np.eye(5)[None], np.eye(7)[None]
            turned = np.where(chosen, columns[:, ::-1], columns)
            mistakes = {
                "it is turned upside down; left and right have to change places": _moved(
                    x, np.where(chosen, rows[:, ::-1], rows), columns
                ),
                "the images where flips is False are mirrored": _moved(x, rows, turned[:, ::-1]),
                "all images are mirrored": _moved(x, rows, columns[:, ::-1]),
            }
            out = solution.pytorch_data.mirrored(x, torch.tensor(flips))
            expect("x", out, _moved(x, rows, turned), mistakes, f"flips={flips}")


def _steps_of_torch(lr_steps, lr_factor, steps):
    """The rate at each of so many steps, by PyTorch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    milestones = [round(share * steps) for share in lr_steps]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, lr_factor)
    for _ in range(steps + 1):
        yield schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()


def rate_in_steps(solution):
    for lr_steps, factor in (((0.5, 0.75, 0.9), 0.2), ((0.25, 0.5), 0.1), ((0.6,), 0.7)):
        recipe = solution.pytorch_recipes.Classic(lr=0.03, lr_steps=lr_steps, lr_factor=factor)
        rates = {step / 20: rate for step, rate in enumerate(_steps_of_torch(lr_steps, factor, 20))}
        for progress, wanted in sorted(rates.items(), key=lambda pair: pair[0] in lr_steps):
            mistakes = {"it is multiplied by the learning rate elsewhere": 0.03 * wanted}
            if progress in lr_steps:
                mistakes["at a share itself it has fallen already"] = wanted / factor
            elif progress > lr_steps[0]:
                mistakes["it falls at each of lr_steps, not once"] = factor
            case = f"progress={progress:g}, lr_steps={lr_steps}, lr_factor={factor:g}"
            expect("rate", recipe.rate(progress), wanted, mistakes, case)
    expect("rate", solution.pytorch_recipes.Classic().rate(0.8), 0.2**2, case="progress=0.8 and the default settings")


def rate_up_and_down(solution):
    for warmup in (0.1, 0.25, 0.5, 0.0):
        recipe = solution.pytorch_recipes.Speedrun(warmup=warmup)
        for progress in (0.0, 0.05, 0.25, 0.4, 0.5, 0.75, 1.0)[warmup == 0 :]:
            wanted = np.interp(progress, [0, warmup, 1], [0, 1, 0]) if warmup else 1 - progress
            mistakes = {}
            if progress > warmup:
                mistakes = {
                    "it falls from 1 at the end of the warmup": 1 - progress,
                    "it falls to 0, and does not stay at 1": 1.0,
                    "it still rises after the warmup": progress / max(warmup, 1e-9),
                }
            expect("rate", recipe.rate(progress), wanted, mistakes, f"progress={progress:g}, warmup={warmup:g}")


def _filters(patches, eps, mean_off=True, lost=1):
    """Whitening filters (12, 12) by a singular value decomposition.  lost: what the divisor n is reduced by."""
    centred = patches - patches.mean(axis=0) if mean_off else patches
    _, s, directions = np.linalg.svd(centred / np.sqrt(len(patches) - lost), full_matrices=False)
    return directions / np.sqrt(s**2 + eps)[:, None]


def _signed(filters, got):
    """The filters with the signs that got has: that of a direction is free."""
    along = (filters * got).sum(axis=1, keepdims=True)
    return np.where(along < 0, -filters, filters)


def whitening(solution):
    for dtype in DTYPES:
        for settings in ({}, {"eps": 1e-6}, {"eps": 0.1}):
            x = _alike(solution.rng).to(dtype)
            case = ", ".join([str(dtype), *(f"{name}={value:g}" for name, value in settings.items())])
            got = solution.pytorch_resnet.whitening_filters(x, **settings)
            told = f"{tuple(got.shape)} of {got.dtype}" if isinstance(got, torch.Tensor) else type(got).__name__
            require(told == f"(24, 3, 2, 2) of {dtype}", f"filters: expected (24, 3, 2, 2) of {dtype}, got {told}")
            expect("filters[12:]", got[12:], -got[:12], {"the negatives are missing": got[:12]}, case)
            eps, filters = settings.get("eps", 5e-4), got[:12].flatten(1).double().numpy()
            windows = sliding_window_view(x.double().numpy(), (2, 2), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
            patches = windows.reshape(-1, 12)
            wanted = _filters(patches, eps)
            size = np.linalg.norm(wanted, axis=1, keepdims=True)
            mistakes = {
                "the weakest direction stands first": wanted[::-1],
                "a direction is divided by sqrt(lambda + eps)": wanted / size,
                "a direction is divided by its standard deviation, not its variance": wanted * size,
                "eps is added to lambda, under the root": wanted / size / (np.sqrt(1 / size**2 - eps) + eps),
                "the patches have not lost their mean": _filters(patches, eps, mean_off=False, lost=0),
                "the covariance divides by n - 1, not by n": _filters(patches, eps, lost=0),
                "patches overlap: there is one at each pixel": _filters(windows[:, ::2, ::2].reshape(-1, 12), eps),
            }
            mistakes = {words: _signed(wrong, filters) for words, wrong in mistakes.items()}
            expect("filters[:12], as rows,", filters, _signed(wanted, filters), mistakes, case, 1e-5)


def _alike(rng):
    """Images (8, 3, 6, 8) whose neighbouring pixels and whose colours are nearly the same, as in photographs."""
    x = _normal(rng, 8, 1, 7, 8) + 0.02 * _normal(rng, 8, 3, 7, 8) + _normal(rng, 3, 1, 1) / 2
    return x[:, :, 1:] + 0.9 * x[:, :, :-1]


def _applied(s, times):
    """Singular values s, after so many times the polynomial."""
    a, b, c = 3.4445, -4.775, 2.0315
    for _ in range(times):
        s = s * (a + s**2 * (b + s**2 * c))
    return s


def orthogonalized(solution):
    for dtype in DTYPES:
        for scale, shape in ((0.05, (4, 4)), (20, (3, 7)), (0.2, (6, 2)), (1, (1, 5)), (5, (5, 1))):
            g = (scale * _normal(solution.rng, *shape)).to(dtype)
            U, S, Vh = torch.linalg.svd(g.double(), full_matrices=False)
            s, product = S / S.norm(), lambda s, U=U, Vh=Vh, dtype=dtype: (U * s @ Vh).to(dtype)
            wanted = product(_applied(s, 5))
            mistakes = {
                "g has to be divided by its norm": product(_applied(S, 5)),
                "|g| is the root of the sum of all squares": product(_applied(S / S[0], 5)),
                "it is applied 4 times, expected 5": product(_applied(s, 4)),
                "it is applied 6 times, expected 5": product(_applied(s, 6)),
                "U V^T itself is too slow on a GPU: it is the polynomial that is asked for": product(
                    torch.ones_like(s)
                ),
                "a matrix higher than wide has to be transposed back": wanted.T,
            }
            got = solution.pytorch_optim.orthogonalized(g)
            expect("x", got, wanted, mistakes, f"g {shape} of {dtype}", 1e-3)
