"""Checks of exercises 5.3 to 5.6: augmentation, schedules of the learning rate, whitening, and orthogonalization."""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from grading.checks.common import draw_tensor
from grading.expect import RETURNED, expect, fitting, require

DTYPES = (torch.float32, torch.float64)


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


def shifted(learner):
    for dtype in (torch.uint8, *DTYPES):
        for N, pad in ((4, 4), (3, 1), (1, 2), (2, 0)):
            x = _images(learner.rng, dtype, N)
            dy, dx = learner.rng.integers(0, 2 * pad + 1, (2, N))
            dy[0], dx[0], dx[-1] = 2 * pad, 0, max(2 * pad - 1, 0)
            down, right = dy - pad, dx - pad
            repeated = _window(x, down, right, lambda n, k: np.eye(n)[np.clip(np.arange(n) + k, 0, n - 1)])
            mistakes = {
                "dy and dx are swapped": _window(x, right, down),
                "each image has its own shift": _window(x, down[:1].repeat(N), right[:1].repeat(N)),
                "the shift has the wrong sign: the window's corner is at dy, dx": _window(x, -down, -right),
                "dy and dx count from the corner of the padded image": _window(x, dy, dx),
                "outside of the image there is 0, not a copy of the border": repeated,
                "what is shifted out must not return on the other side": _window(
                    x, down, right, lambda n, k: np.roll(np.eye(n), k, axis=1)
                ),
            }
            out = learner.pytorch_data.shifted(x, torch.tensor(dy), torch.tensor(dx), pad)
            case = f"pad={pad}, dy={dy.tolist()}, dx={dx.tolist()}"
            expect("windows", out, _window(x, down, right), mistakes, case)


def mirrored(learner):
    for dtype in (torch.uint8, *DTYPES):
        for flips in ([True, False, True, True], [False, True], [True], [False]):
            x, chosen = _images(learner.rng, dtype, len(flips)), np.array(flips)[:, None, None]
            rows, columns = np.eye(5)[None], np.eye(7)[None]
            turned = np.where(chosen, columns[:, ::-1], columns)
            mistakes = {
                "it is turned upside down; left and right should be swapped": _moved(
                    x, np.where(chosen, rows[:, ::-1], rows), columns
                ),
                "the images where flips is False are mirrored": _moved(x, rows, turned[:, ::-1]),
                "all images are mirrored": _moved(x, rows, columns[:, ::-1]),
            }
            out = learner.pytorch_data.mirrored(x, torch.tensor(flips))
            expect("x", out, _moved(x, rows, turned), mistakes, f"flips={flips}")


def rate_in_steps(learner):
    for lr_steps, factor in (((0.5, 0.75, 0.9), 0.2), ((0.25, 0.5), 0.1), ((0.6,), 0.7)):
        recipe = learner.pytorch_recipes.Classic(lr=0.03, lr_steps=lr_steps, lr_factor=factor)
        rates = {step / 20: factor ** sum(step >= round(20 * share) for share in lr_steps) for step in range(21)}
        for progress, wanted in sorted(rates.items(), key=lambda pair: pair[0] in lr_steps):
            passed = sum(progress >= share for share in lr_steps)
            mistakes = {
                "the learning rate is multiplied elsewhere": 0.03 * wanted,
                "each step multiplies by the factor": factor * passed,
                "the factor is the one given": 0.2**passed,
            }
            if progress in lr_steps:
                mistakes["at one of lr_steps it has fallen already"] = wanted / factor
            elif progress > lr_steps[0]:
                mistakes = {"it falls at each of lr_steps, not once": factor, **mistakes}
            case = f"progress={progress:g}, lr_steps={lr_steps}, lr_factor={factor:g}"
            expect("rate", recipe.rate(progress), wanted, mistakes, case)
    expect("rate", learner.pytorch_recipes.Classic().rate(0.8), 0.2**2, case="progress=0.8 and the default settings")


def rate_up_and_down(learner):
    for warmup in (0.1, 0.25, 0.5, 0.0):
        recipe = learner.pytorch_recipes.Speedrun(warmup=warmup)
        for progress in (0.0, 0.05, 0.25, 0.4, 0.5, 0.75, 1.0)[warmup == 0 :]:
            wanted = np.interp(progress, [0, warmup, 1], [0, 1, 0]) if warmup else 1 - progress
            mistakes = {"it rises from 0 during the warmup": 1.0}
            if progress > warmup:
                mistakes = {
                    "it falls from 1 at the end of the warmup": 1 - progress,
                    "it falls to 0 and does not stay at 1": 1.0,
                    "it still rises after the warmup": progress / max(warmup, 1e-9),
                }
            expect("rate", recipe.rate(progress), wanted, mistakes, f"progress={progress:g}, warmup={warmup:g}")


def _filters(patches, eps, mean_off=True, lost=1):
    """Whitening filters (12, 12) by a singular value decomposition.  lost: the divisor is n - lost."""
    centred = patches - patches.mean(axis=0) if mean_off else patches
    _, s, directions = np.linalg.svd(centred / np.sqrt(len(patches) - lost), full_matrices=False)
    return directions / np.sqrt(s**2 + eps)[:, None]


def _signed(filters, got):
    """The filters with the signs of those in got, since a direction may have either sign."""
    along = (filters * got).sum(axis=1, keepdims=True)
    return np.where(along < 0, -filters, filters)


def whitening(learner):
    for dtype in DTYPES:
        for settings in ({}, {"eps": 1e-6}, {"eps": 0.1}):
            x = _alike(learner.rng).to(dtype)
            case = ", ".join([str(dtype), *(f"{name}={value:g}" for name, value in settings.items())])
            got = learner.pytorch_resnet.whitening_filters(x, **settings)
            require(isinstance(got, torch.Tensor), f"filters: expected a tensor, got {type(got).__name__}", RETURNED)
            got = torch.tensor(fitting("filters", got, (24, 3, 2, 2), str(dtype).removeprefix("torch."), case))
            require(
                bool(got.isfinite().all()),
                f"filters: they are not finite (with {case})",
                "an eigenvalue of about 0 may come out negative: eps keeps the root from 0",
            )
            expect("filters[12:]", got[12:], -got[:12], {"the negatives are missing": got[:12]}, case)
            eps, filters = settings.get("eps", 5e-4), got[:12].flatten(1).double().numpy()
            windows = sliding_window_view(x.double().numpy(), (2, 2), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
            patches = windows.reshape(-1, 12)
            wanted = _filters(patches, eps)
            size = np.linalg.norm(wanted, axis=1, keepdims=True)
            mistakes = {
                "the strongest direction comes first": wanted[::-1],
                "a direction is divided by sqrt(lambda + eps)": wanted / size,
                "a direction is divided by its standard deviation, not its variance": wanted * size,
                "eps is added to lambda, under the root": wanted / size / (np.sqrt(1 / size**2 - eps) + eps),
                "the mean of the patches is not subtracted": _filters(patches, eps, mean_off=False, lost=0),
                "the covariance divides by n - 1, not by n": _filters(patches, eps, lost=0),
                "eps is not the one given": _filters(patches, 5e-4),
                "patches overlap: there is one at each pixel": _filters(windows[:, ::2, ::2].reshape(-1, 12), eps),
            }
            mistakes = {words: _signed(wrong, filters) for words, wrong in mistakes.items()}
            expect("filters[:12], as rows,", filters, _signed(wanted, filters), mistakes, case, 1e-5)


def _alike(rng):
    """Images (8, 3, 6, 8) whose neighbouring pixels and whose colours are nearly the same, as in photographs."""
    x = draw_tensor(rng, 8, 1, 7, 8) + 0.02 * draw_tensor(rng, 8, 3, 7, 8) + draw_tensor(rng, 3, 1, 1) / 2
    return x[:, :, 1:] + 0.9 * x[:, :, :-1]


def _applied(s, times):
    """Singular values s after applying the polynomial so many times."""
    a, b, c = 3.4445, -4.775, 2.0315
    for _ in range(times):
        s = s * (a + s**2 * (b + s**2 * c))
    return s


def orthogonalized(learner):
    for dtype in DTYPES:
        for scale, shape in ((0.05, (4, 4)), (20, (3, 7)), (0.2, (6, 2)), (1, (1, 5)), (5, (5, 1))):
            g = (scale * draw_tensor(learner.rng, *shape)).to(dtype)
            U, S, Vh = torch.linalg.svd(g.double(), full_matrices=False)
            s, product = S / S.norm(), lambda s, U=U, Vh=Vh, dtype=dtype: (U * s @ Vh).to(dtype)
            wanted = product(_applied(s, 5))
            mistakes = {
                "g has to be divided by its norm": product(_applied(S, 5)),
                "|g| is the root of the sum of all squares": product(_applied(S / S[0], 5)),
                "it is applied 4 times, expected 5": product(_applied(s, 4)),
                "it is applied 6 times, expected 5": product(_applied(s, 6)),
                "U V^T itself is too slow on a GPU: use the polynomial": product(torch.ones_like(s)),
                "a matrix with more rows than columns has to be transposed back": wanted.T,
            }
            got = learner.pytorch_optim.orthogonalized(g)
            powers = "a, b and c belong to x, x x^T x and x x^T x x^T x, products of matrices, in g's own precision"
            expect("x", got, wanted, mistakes, f"g {shape} of {dtype}", 1e-3, powers)
