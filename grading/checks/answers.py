"""Checks of the exercises whose answers are numbers: 1.16, 2.8, 3.4, 4.11 and 5.9.

Each expected number comes from a computation of its own, such as a net that is built or a sum that is run.  A hint does
not say it: it says how far off the answer is.
"""

import math
from itertools import count, product

import numpy as np

from grading.expect import Wrong, close, fitting, several
from grading.oracle import torch

ROUNDED, EXACT = 5e-3, 1e-9  # relative errors that are allowed: that of three digits, and that of a count


def numbers_of_the_net(learner):
    net = torch.nn.Sequential(torch.nn.Linear(3072, 200), torch.nn.Linear(200, 50), torch.nn.Linear(50, 10))
    sizes = [parameter.numel() for parameter in net.parameters()]
    mistakes = {"each unit has a bias, too": sum(sizes[::2])}
    _check(learner, "parameters_of_the_net", [sum(sizes)], [mistakes], EXACT)

    changes = [torch.tensor(scores, dtype=torch.float64) for scores in ([1, 3], [6, 8], [5, 15])]
    right, wrong = ([torch.nn.functional.cross_entropy(s, torch.tensor(y)).item() for s in changes] for y in (1, 0))
    mistakes = [{"the second class is the true one": loss} for loss in wrong]
    _check(learner, "losses_after_a_change_of_scores", right, mistakes)


def numbers_of_training(learner):
    steps = _first(lambda t: sum(0.1 * 0.9**i for i in range(t)) >= 0.99)
    mistakes = {"at 99 % or above, and not yet in the step before": steps - 1}
    _check(learner, "steps_of_momentum", [steps], [mistakes], EXACT)

    images = 100 * _first(lambda hundreds: 2 * math.sqrt(2 * 0.25 / (100 * hundreds)) <= 0.01 + 1e-12)
    mistakes = {
        "a difference has the variances of both nets": images / 2,
        "two standard errors, not one": images / 4,
        "two standard errors, and the variances of both nets": images / 8,
    }
    _check(learner, "images_to_tell_two_nets_apart", [images], [mistakes], EXACT)


def batchnorm_numbers(learner):
    (images, *_) = map(len, np.split(np.arange(32), 8))
    _check(learner, "images_in_the_statistics", [images], [{"a device sees its own images alone": 32}], EXACT)

    x = np.empty((16, 8, 14, 14))
    counts = x[:, 0].size, x[0].size, x[0, :2].size
    per_example = {"the mean is taken over the examples, too": x[0, 0].size}
    all_of_x = {"each example has a mean of its own": x.size}
    groups = {"a group has 8 / 4 channels": x[0, :4].size, "each example has means of its own": x[:, :2].size}
    _check(learner, "numbers_in_a_mean", counts, [per_example, all_of_x, groups], EXACT)

    scale = 1 / float(np.linalg.norm(np.ones(400)))
    mistakes = {"ReLU halves a mean square, and there is none": math.sqrt(2) * scale, "a deviation is a root": scale**2}
    _check(learner, "scale_without_relu", [scale], [mistakes])

    batches, at_09 = (_first(lambda t, m=m: m**t < 0.01) for m in (0.95, 0.9))
    mistakes = {"below 1 %, and not yet in the batch before": batches - 1, "the momentum is 0.95": at_09}
    _check(learner, "batches_to_forget_the_start", [batches], [mistakes], EXACT)


def dropout_numbers(learner):
    coins = [(a * b, 0.5 * (0.8 if b else 0.2)) for a, b in product((0, 1), repeat=2)]
    keep = sum(chance for kept, chance in coins if kept)
    variance = sum(chance * (kept / 0.5 / 0.8 - 1) ** 2 for kept, chance in coins)
    of_variance = {
        "the second dropout scales what the first added": 1.25,
        "this is the mean of the square: a variance has the squared mean taken off": variance + 1,
        "p (1 - p) is the variance of the coin, and y is x / p times the coin": keep * (1 - keep),
    }
    _check(learner, "dropout_twice", [keep, variance], [{"a unit stays if both coins keep it": 0.8}, of_variance])

    one = 0.25 * (1 / 0.25 - 1) ** 2 + 0.75  # the variance of one draw
    mistakes = {
        "a standard error is a root": one / 0.01,
        "p (1 - p) is the variance of the coin, and y is x / p times the coin": 0.75 * 0.25 / 0.01**2,
        "p is the probability of keeping a unit": 0.25 / 0.75 / 0.01**2,
        "this is the mean of the square: a variance has the squared mean taken off": (one + 1) / 0.01**2,
    }
    _check(learner, "draws_for_a_standard_error", [one / 0.01**2], [mistakes], EXACT)

    x = np.linspace(-12, 12, 24_001)
    density, relu = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), np.maximum(x, 0)
    mean, square = (float(np.trapezoid(density * relu**k, x)) for k in (1, 2))
    ratio, swapped = ((square - mean**2) / (square / p - mean**2) for p in (0.8, 0.2))
    mistakes = {"at test time over in training": 1 / ratio, "p is the probability of keeping a unit": swapped}
    mistakes |= {"a variance has mean^2 taken off": 0.8, "the mean is squared": (square - mean) / (square / 0.8 - mean)}
    _check(learner, "variance_ratio_at_test_time", [ratio], [mistakes])


def convolution_numbers(learner):
    """Sizes are those of layers of PyTorch's, and of the gradients of one output."""
    pair = [torch.nn.Conv2d(16, 16, 3, bias=False) for _ in range(2)]
    weights = sum(layer.weight.numel() for layer in pair)
    side = _seen(pair, torch.zeros(1, 16, 9, 9))
    single = torch.nn.Conv2d(16, 16, side, bias=False).weight.numel()
    mistakes = (
        {"the second layer's window reaches two pixels further": 6, "two pixels more, one to each side": 4},
        {
            "each filter sees all 16 channels, and there are 16 filters": weights // 16,
            "there are two layers": weights // 2,
        },
        {"each filter sees all 16 channels, and there are 16 filters": single // 16},
    )
    _check(learner, "two_small_filters", [side, weights, single], mistakes, EXACT)

    columns = torch.nn.functional.unfold(torch.zeros(100, 3, 32, 32), 5, padding=1, stride=2)
    rows = math.isqrt(columns.shape[2])
    mistakes = (
        {"windows that do not fit are discarded: the division rounds down": rows + 1, "the frame has two sides": 14},
        {
            "X_col has the columns of all 100 images": columns[0].numel(),
            "a window covers all three channels": columns.numel() // 3,
        },
        {"each of the 16 filters is a row of W_row": columns.numel(), "a sum is not a product": 32 * columns.numel()},
    )
    _check(learner, "strided_convolution", [rows, columns.numel(), 16 * columns.numel()], mistakes, EXACT)

    def pooled(*layers):
        return torch.nn.Sequential(*layers)(torch.zeros(1, 3, 32, 32)).numel()

    pool, first, second = (
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(3, 16, 5, padding=2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
    )
    parameters = sum(parameter.numel() for parameter in second.parameters())
    before, after = pooled(first, pool), pooled(first, pool, second, pool)
    mistakes = (
        {
            "each filter has a bias, too": parameters - 32,
            "a filter sees the 16 channels of the layer before it": 32 * 9 + 32,
        },
        {
            "the second pool halves rows and columns, and the channels double": after / before / 2,
            "after over before": before / after,
        },
    )
    _check(learner, "a_second_convolution", [parameters, after / before], mistakes)

    zero = float(np.mean([max(signs) < 0 for signs in product((-1, 1), repeat=9)]))
    slopes = sum(max(h, 0) - max(-h, 0) for h in [1e-5] * 9) / 2e-5
    mistakes = (
        {"all nine have to be 0, not one of them": 1 / 2, "a maximum is 0 only if all of them are": 511 / 512},
        {
            "at a tie a step up raises the maximum, and a step down does not lower it": 9,
            "each of the nine pixels has a slope": slopes / 9,
            "central differences measure the same at each of the nine, whatever backward sends": 1,
        },
    )
    _check(learner, "ties_after_a_relu", [zero, slopes], mistakes)


def _seen(layers, x):
    """How many columns of x the middle output of some layers depends on."""
    for layer in layers:
        torch.nn.init.ones_(layer.weight)
    out = torch.nn.Sequential(*layers)(x.requires_grad_())
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    return int((x.grad[0, 0] != 0).any(0).sum())


def graph_numbers(learner):
    """On one net: what its layers keep, how its gradients add up, and how far it sees."""
    theirs, ours, from_one = torch.nn.BatchNorm1d(1), 0.0, 1.0
    x = torch.tensor([[-2.0], [2.0]]).repeat(8, 1)
    for _ in range(10):
        theirs(x)
        ours, from_one = 0.9 * ours + 0.1 * 4, 0.9 * from_one + 0.1 * 4
    theirs = theirs.running_var.item()
    mistakes = (
        {"this one starts at 0": from_one, "this one averages the biased variance": 16 / 15 * ours},
        {"this one averages the unbiased variance": from_one, "this one starts at 1": 16 / 15 * ours},
    )
    _check(learner, "running_variances", [ours, theirs], mistakes)

    first = h = torch.ones(1, dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        h = h + h
    (paths,) = torch.autograd.grad(h.sum(), first)
    mistakes = (
        {"each sum doubles the gradient, and does not add 2 to it": 60, "there are thirty sums": paths.item() / 2},
        {"a node has its turn once, when its gradient is complete, and not once for each path": paths.item()},
    )
    _check(learner, "thirty_sums", [paths.item(), 30], mistakes, EXACT)

    growth = float(np.prod([np.linalg.norm([1, 2]) for _ in range(16)]))
    mistakes = {
        "lengths of orthogonal vectors do not add": 3.0**16,
        "dy itself is added, too": 2.0**16,
        "a length is a root": growth**2,
    }
    _check(learner, "length_of_a_gradient", [growth], [mistakes])

    strides = [1] + [1] * 4 + ([2] + [1] * 3) * 3
    net = [torch.nn.Conv2d(1, 1, (1, 3), (1, stride), (0, 1), bias=False) for stride in strides]
    reach = _seen(net, torch.zeros(1, 1, 1, 401)) // 2
    mistakes = {
        "to each side, and not on both sides together": 2 * reach,
        "a step of a later stage is several pixels wide": len(net),
        "the stem is a convolution, too": reach - 1,
        "a block's first convolution moves by 2, over pixels that are still close together": 61,
    }
    _check(learner, "reach_of_the_last_stage", [reach], [mistakes], EXACT)

    small, large = (torch.nn.Conv2d(4, 4, size, bias=False).weight.numel() for size in (3, 5))
    mistakes = {"there are two 3 x 3 convolutions": large / small, "after over before": 2 * small / large}
    _check(learner, "one_large_filter", [large / (2 * small)], [mistakes])


def recipe_numbers(learner):
    epochs = _first(lambda t: 1 - math.prod(1 - shown / 162 for shown in range(t)) >= 0.5)
    fresh = [1.0]
    while len(fresh) < 30:
        fresh.append(fresh[-1] * 161 / 162)
    mistakes = (
        {
            "at least half, and not yet in the epoch before": epochs - 1,
            "it is enough that any two of the showings agree": _first(lambda t: (161 / 162) ** t <= 0.5),
            "two showings may agree long before half of the versions were seen": 81,
        },
        {"some versions come twice": 30, "how many are different, and not how many come again": 30 - sum(fresh)},
    )
    _check(learner, "versions_of_a_picture", [epochs, sum(fresh)], mistakes)

    steps = _first(lambda t: 0.9 ** (2 * t) < 0.01)
    limit = 0.0
    for _ in range(1000):
        limit = 0.8**2 * limit + 0.2**2
    mistakes = (
        {
            "x^2 is asked for, and not x": _first(lambda t: 0.9**t < 0.01),
            "below 1 %, and not yet in the step before": steps - 1,
        },
        {
            "eta / 2 is its approximation for a small eta": 0.1,
            "its mean square, and not its root": math.sqrt(limit),
            "the noise of earlier steps is still there": 0.04,
        },
    )
    _check(learner, "descent_with_noise", [steps, limit], mistakes)

    moved = sum(np.cumsum(np.ones(10)))
    mistakes = {"compare with 10 steps, and not with one": moved, "earlier steps moved by less than the last one": 10}
    _check(learner, "without_zero_grad", [moved / 10], [mistakes])


def _first(condition):
    """The first of 1, 2, ... for which the condition holds."""
    return next(filter(condition, count(1)))


def _check(learner, name, wanted, mistakes, tol=ROUNDED):
    """Check the numbers that the function of that name returns.  mistakes: for each, words -> what that would give."""
    got, names = getattr(learner.answers, name)(), ", ".join(f"number {i}" for i in range(1, len(wanted) + 1))
    got = several(name, got, names) if len(wanted) > 1 else [got]
    for i, (value, right, likely) in enumerate(zip(got, wanted, mistakes, strict=True)):
        shown = f"{name}()[{i}]" if len(wanted) > 1 else f"{name}()"
        value = float(fitting(shown, value, (), float))
        if not close(value, right, tol):
            words = next((words for words, wrong in likely.items() if close(value, wrong, tol)), "")
            if not words and tol == EXACT and math.isfinite(value) and not close(value, round(value), tol):
                raise Wrong(
                    f"{shown} is {value:g}, expected a whole number", "round up: the first whole number is enough"
                )
            raise Wrong(f"{shown} is {value:g}, {_off(value, right)}", words)


def _off(value, right):
    """How far a number is from the right one, which is above 0 and not named."""
    if not 0 < value < math.inf:
        return "expected a number above 0"
    factor = max(value / right, right / value)
    by = f"by a factor of {factor:.3g}" if factor > 1.01 else "by less than 1 %"
    return f"too {'large' if value > right else 'small'} {by}"
