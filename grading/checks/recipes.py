"""Checks of exercises 5.5 and 5.6: augmentation, and schedules of the learning rate."""

import numpy as np
import torch

from grading.expect import expect

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
    for warmup in (0.1, 0.25, 0.5, 0.0, 1.0):
        recipe = learner.pytorch_recipes.Speedrun(warmup=warmup)
        for progress in (0.0, 0.05, 0.25, 0.4, 0.5, 0.75, 1.0)[warmup == 0 :]:
            both = np.interp(progress, [0, warmup, 1], [0, 1, 0])
            wanted = {0.0: 1 - progress, 1.0: progress}.get(warmup, both)
            mistakes = {"it rises from 0 during the warmup": 1.0}
            if progress > warmup:
                mistakes = {
                    "it falls from 1 at the end of the warmup": 1 - progress,
                    "it falls to 0 and does not stay at 1": 1.0,
                    "it still rises after the warmup": progress / max(warmup, 1e-9),
                }
            expect("rate", recipe.rate(progress), wanted, mistakes, f"progress={progress:g}, warmup={warmup:g}")
