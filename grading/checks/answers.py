"""Checks of the exercises whose answers are numbers: 1.16, 2.8 and 3.4.

Each expected number comes from a computation of its own, such as a net that is built or a sum that is run.  A hint does
not say it: it says how far off the answer is.
"""

import math
from itertools import count, product

import numpy as np
import torch

from grading.expect import Wrong, close, fitting, several

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
