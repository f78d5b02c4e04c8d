"""Checks of what a learner chooses: 1.14 (two settings), 1.15, 4.10 and 5.8 (trained nets) and 3.3 (an ablation).

The numbers that come from the learner are used here, unlike elsewhere: their kind, size and range are compared first.
"""

from itertools import pairwise

import numpy as np

from grading import hand_ins
from grading.checks import layered
from grading.checks.common import affine
from grading.edition import given_module
from grading.expect import Wrong, fitting, numbers, require, small_fault
from grading.hints import Hint
from grading.oracle import F, torch

handin, shapes10 = given_module("handin"), given_module("shapes10")

WIDTHS, BATCH, STEPS = (3072, 100, 100, 100, 100, 10), 25, 40
RANGES = {"learning_rate": 10.0, "weight_scale": 10.0}  # the largest values that make sense at all

CHANCE = "10 % is chance: train the net, and let it take pixels from 0 to 255, as save_net sees to"
TOO_LOW = "where the training accuracy is as low, give the net hidden layers, more images or more epochs"
NOT_YET_GOOD = "where the training accuracy is far higher, use more images or a penalty; where it is not, more epochs"
PICTURES, PLAIN, GOOD = 5000, 0.42, 0.64  # how many are drawn, and the accuracies for one point and for two

IN_LAYERS = 3000  # pictures for a net that is handed in layer by layer
CONV_NET, RESNET = (0.70, 0.80), (0.55, 0.75, 0.83, 0.88)  # the accuracies for each point
AS_SAVED = "the file is not as handin.save_layers writes it"
UNTRAINED = (
    "10 % is chance: train the net, and save the mean, the std and the running statistics that it was trained with"
)
LEARN_MORE = (
    "where your validation accuracy is far above this, the file lacks the mean image or the running statistics of the "
    "net; where the training accuracy is as low, try rates three times as large and as small, smaller batches, more "
    "epochs or another design; where it is far higher, more images"
)
ATTEMPTS = 3

TEXTS, SHORTEST, LONGEST = ("question", "setting", "change"), 15, 2000  # characters
HIGH_OR_LOW = "On which side of 0 is the interval, and is your number a loss, of which less is better, or an accuracy?"
SIDES = "baseline", "changed", "control"
SEEDS, MOST_SEEDS = 3, 1000


# --- 1.14: overfit 50 pictures ---


def overfit(learner):
    settings = learner.choices.overfit_settings()
    require(isinstance(settings, dict), "overfit_settings: expected a dict")
    require(set(settings) == set(RANGES), f"overfit_settings: expected the keys {', '.join(RANGES)}")
    rate, scale = (float(fitting(name, settings[name], (), float)) for name in RANGES)
    for name, value in (("learning_rate", rate), ("weight_scale", scale)):
        require(
            0 < value <= RANGES[name], f"{name} is {value:g}, expected a number above 0, and at most {RANGES[name]:g}"
        )
    X, y = _fifty(learner.rng)
    losses, right = _trained(X, y, rate, scale, learner.rng)
    if right < len(y):
        shown = f"{right} of {len(y)} pictures are classified correctly after {STEPS} steps"
        raise Wrong(f"{shown}, and the loss went from {losses[0]:.3g} to {losses[-1]:.3g}", _trouble(losses))


def _fifty(rng):
    """50 pictures of Shapes10, less their mean image, and their labels."""
    images, y = shapes10.draw(50, int(rng.integers(1 << 62)))
    X = torch.tensor(images.reshape(50, -1)).float()
    return X - X.mean(0), torch.tensor(y)


def _trained(X, y, rate, scale, rng):
    """Train a net by SGD: the loss of each step, and how many pictures it then classifies correctly."""
    layers = []
    for shape in pairwise(WIDTHS):
        W = torch.tensor(scale * rng.standard_normal(shape), dtype=torch.float32)
        layers.append((W.requires_grad_(), torch.zeros(shape[1], requires_grad=True)))
    optimizer, losses = torch.optim.SGD([array for layer in layers for array in layer], rate), []
    for step in range(STEPS):
        if step % 2 == 0:
            halves = np.split(rng.permutation(len(y)), len(y) // BATCH)
        batch = torch.tensor(halves[step % 2])
        loss = F.cross_entropy(_scores(X[batch], layers), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, int((_scores(X, layers).argmax(1) == y).sum())


def _scores(h, layers):
    """The scores of a fully connected net.  layers: pairs of W and b."""
    for W, b in layers[:-1]:
        h = F.relu(affine(h, W, b))
    return affine(h, *layers[-1])


def _trouble(losses):
    """What the losses of a training say about its settings."""
    if not np.isfinite(losses).all():
        return "the scores have grown beyond the range of float32: the steps, or the weights, are too large"
    if max(losses) > 1.25 * losses[0]:
        return "the loss jumps: each step goes too far"
    if losses[0] < 2.5 and losses[-1] > 0.9 * losses[0]:
        return "the loss stays near log 10: with tiny weights, the signal and its gradient shrink in each of the layers"
    return "the loss falls too slowly: take larger steps, or begin with a larger signal"


# --- 1.15: train a good net ---


def good_net(hand_in):
    """One point for a net that a first attempt reaches, and two for a good one.

    Measured on 9,999 new pictures, means of three seeds: untrained 11 %, linear 28 %, two hidden layers of 100 units at
    common settings 47 to 49 %, the net and settings of section 1.7 on 49,000 pictures 61 %, a single hidden layer at
    chosen settings 64 to 68 %.  On 5,000 pictures, the standard error of an accuracy near one half is 0.7 percentage
    points.
    """
    try:
        layers = _layers(hand_ins.arrays(hand_in.content))
    except Wrong as wrong:
        raise Wrong(str(wrong), "the file is not as handin.save_net writes it") from None
    images, y = _new_pictures(PICTURES, hand_in.rng)
    X = torch.tensor(images.reshape(PICTURES, -1))
    scores = torch.cat([_scores(part.float(), layers) for part in X.split(500)])
    return _check_accuracy(scores, y, (PLAIN, GOOD), CHANCE, TOO_LOW, NOT_YET_GOOD)


def _new_pictures(n, rng):
    return shapes10.draw(n, int(rng.integers(1 << 62)))


def _check_accuracy(scores, y, steps, chance, low="", not_yet=""):
    """One point for each of the steps, accuracies, that scores (N, 10) of new pictures reach; the first is a must.

    chance, low, not_yet: the mistake where the accuracy is that of a guess, below the first step, or below the last.
    Returns a sentence with the accuracy.
    """
    require(bool(scores.isfinite().all()), "the net's scores are not all finite numbers")
    accuracy = (scores.argmax(1) == torch.tensor(y)).double().mean().item()
    got = f"the net is right on {accuracy:.1%} of {len(y)} new pictures"
    require(accuracy >= steps[0], f"{got}, expected {steps[0]:.0%}", chance if accuracy < 0.15 else low)
    reached = [step for step in steps if accuracy >= step]
    if len(reached) < len(steps):
        more = f"more than {reached[-1]:.0%}, and {steps[len(reached)]:.0%} are worth another point"
        small_fault(f"{got}: {more}", not_yet, lost=len(steps) - len(reached))
    return got


def _layers(arrays):
    """Pairs of W and b, float32 tensors whose shapes fit, from the arrays of a file."""
    depth = len(arrays) // 2
    names = [f"{kind}{i}" for i in range(1, depth + 1) for kind in "Wb"]
    require(depth and set(arrays) == set(names), "the file must hold W1, b1, W2, b2, ... and nothing else")
    inputs, layers = 3 * 32 * 32, []
    for i in range(1, depth + 1):
        W, b = arrays[f"W{i}"], arrays[f"b{i}"]
        width = W.shape[-1] if i < depth else 10
        require(W.shape == (inputs, width), f"W{i} has the shape {W.shape}, expected {(inputs, width)}")
        require(b.shape == (width,), f"b{i} has the shape {b.shape}, expected {(width,)}")
        with np.errstate(over="ignore"):
            layer = [torch.tensor(array.astype(np.float32)) for array in (W, b)]
        require(all(bool(array.isfinite().all()) for array in layer), f"W{i} or b{i} has entries that are not finite")
        inputs, layers = width, [*layers, layer]
    return layers


# --- 4.10: the best net in ten minutes; 5.8: ten epochs ---


def conv_net(hand_in):
    """Two points for a good net with a list of attempts, and one for a net that a first attempt reaches.

    `grading/instructor/reference_hand_ins.py` has what nets were measured to reach; with 3,000 pictures, the standard
    error of an accuracy of 85 % is 0.65 percentage points.
    """
    got = _check_layers(hand_in, CONV_NET)
    try:
        _check_attempts(hand_in.beside)
    except Wrong as wrong:
        small_fault(f"my_attempts.json: {wrong}", wrong.mistake or "the second point needs a list of three attempts")
    return got


def ten_epochs(hand_in):
    """A point for each accuracy that the net reaches; measured as for `conv_net`."""
    return _check_layers(hand_in, RESNET)


def _check_layers(hand_in, steps):
    images, y = _new_pictures(IN_LAYERS, hand_in.rng)
    try:
        arrays = hand_ins.arrays(hand_in.content, layered.MOST_ARRAYS, layered.DTYPES, layered.AXES)
        scores = layered.scores_of(arrays, images)
    except Wrong as wrong:
        raise Wrong(str(wrong), wrong.mistake or AS_SAVED) from None
    return _check_accuracy(scores, y, steps, UNTRAINED, LEARN_MORE, LEARN_MORE)


def _check_attempts(content):
    """Check the form of a list of attempts: what was tried, with which accuracy, in which time."""
    require(content is not None, "it is not there")
    values = hand_ins.values(content)
    attempts = values.get("attempts")
    require(set(values) == {"attempts"} and isinstance(attempts, list), "expected one key, attempts, with a list")
    require(ATTEMPTS <= len(attempts) <= 1000, f"{len(attempts)} attempts, expected {ATTEMPTS} or more")
    for attempt in attempts:
        known = isinstance(attempt, dict) and set(attempt) == {"settings", "accuracy", "seconds"}
        require(known, "expected settings, accuracy and seconds of each attempt")
        words = attempt["settings"]
        fits = isinstance(words, str) and SHORTEST <= len(words.strip()) <= LONGEST
        require(fits, "settings: expected a sentence on what was tried")
        accuracy, seconds = (float(fitting(name, attempt[name], (), float)) for name in ("accuracy", "seconds"))
        require(0 <= accuracy <= 1, f"accuracy is {accuracy:g}, expected 0 to 1")
        require(0 < seconds < 1e9, f"seconds is {seconds:g}, expected a number above 0")
    different = len({attempt["settings"] for attempt in attempts}) == len(attempts)
    require(different, "two attempts have the same settings", "an attempt changes at least one setting")


# --- 3.3: one ablation ---


def ablation(hand_in):
    """One point for an ablation that is complete, and two if its conclusion follows from its numbers."""
    try:
        values, interval = _complete(hand_in.content)
    except Wrong as wrong:
        raise Wrong(str(wrong), wrong.mistake or "the ablation is not complete") from None
    _check_conclusion(values["conclusion"], *interval, values["higher_is_better"])


def _complete(content):
    """The values of an ablation that is complete, and the interval of the difference."""
    values = hand_ins.values(content)
    wanted = {*TEXTS, "labels", "numbers", "higher_is_better", "conclusion"}
    require(set(values) == wanted, f"expected the keys {', '.join(sorted(wanted))}")
    for name in TEXTS:
        words = values[name]
        require(isinstance(words, str), f"{name}: expected words")
        require(SHORTEST <= len(words.strip()) <= LONGEST, f"{name}: expected a sentence, got {len(words)} characters")
    labels, results = values["labels"], values["numbers"]
    for name, found in (("labels", labels), ("numbers", results)):
        require(
            isinstance(found, dict) and set(found) == set(SIDES), f"{name}: expected one of each: {', '.join(SIDES)}"
        )
    require(all(isinstance(label, str) for label in labels.values()), "labels: expected words")
    require(len(set(labels.values())) == len(SIDES), "labels: the baseline, the change and the control are three runs")
    baseline, changed, control = (_numbers_of(side, results[side]) for side in SIDES)
    for side, other in ((baseline, "baseline"), (changed, "changed")):
        require(not np.array_equal(side, control), f"the control's numbers are those of {other}")
        require(side.std() > 0, f"{other}: all seeds give the same number", "a run does not use its seed")
    require(isinstance(values["higher_is_better"], bool), "higher_is_better: expected true or false")
    require(values["conclusion"] in handin.CONCLUSIONS, f"conclusion: expected one of {', '.join(handin.CONCLUSIONS)}")
    return values, handin.welch_interval(baseline, changed)


def _numbers_of(side, found):
    """The numbers of a side of the ablation, an array: one for each seed."""
    require(isinstance(found, list), f"numbers of {side}: expected a list")
    require(len(found) >= SEEDS, f"numbers of {side}: {len(found)} seeds, expected {SEEDS} or more")
    require(len(found) <= MOST_SEEDS, f"numbers of {side}: more than {MOST_SEEDS}")
    array = numbers(f"numbers of {side}", found, len(found))
    require(bool(np.isfinite(array).all()) and np.abs(array).max() < 1e100, f"numbers of {side}: not all are finite")
    return array


def _check_conclusion(conclusion, low, high, higher_is_better):
    """Check that a conclusion is the one that the interval of the difference allows."""
    better, worse, none = handin.CONCLUSIONS
    right = none if low <= 0 <= high else better if (low > 0) == higher_is_better else worse
    if conclusion != right:
        shown = f"the conclusion is {conclusion!r}, and the 95 % interval of the difference is {low:.3g} to {high:.3g}"
        side = "above" if low > 0 else "below"
        direction = f"the interval is {side} 0, which says {right!r} with higher_is_better={higher_is_better}"
        no_side = f"the interval has 0 in it, which says {none!r}"
        small_fault(shown, no_side if right == none else Hint(HIGH_OR_LOW, direction))
