"""Checks of exercises 1.3 and 1.4: the softmax and the SVM loss."""

import numpy as np

from grading.checks.common import TOLERANCE
from grading.checks.derivations import Graph, check_steps
from grading.expect import expect, several
from grading.oracle import F, torch

LARGE_SCORES = 400, 500  # N and C
SOFTMAX = "scores shift shifted exps sums log_sums log_p loss"  # the steps, in order
SOFTMAX_BACKWARD = "dlog_p dlog_sums dsums dexps dshifted dscores db dw dx"


def _score_cases(learner):
    """Scores x, labels y, a description, and the tolerance."""
    for N, C in [(5, 4), (1, 3), (4, 2), (3, 7)]:
        for dtype, tol in TOLERANCE.items():
            x, y = 2 * learner.rng.standard_normal((N, C)), learner.rng.integers(C, size=N)
            yield x.astype(dtype), y, f"{dtype}, x {(N, C)}", tol


def _large_cases(learner):
    """Scores whose exp overflows, or rounds to 0 in a row or for the true class, and what is needed for them."""
    x, y = learner.rng.standard_normal((4, 3)), learner.rng.integers(3, size=4)
    shift = "exp overflows, or rounds to 0 everywhere: shift each row by its own maximum"
    yield x + 1000, y, "scores of about 1000", shift
    yield x - 1000, y, "scores of about -1000", shift
    yield x + np.array([[800], [-800], [0], [10]]), y, "rows of about 800, -800, 0 and 10", shift
    lost = "a probability is rounded to 0 before its log is taken: take the log of the sum of exp only"
    x, y = np.array([[0.0, 900, 1], [3, 2, 1]]), np.array([0, 2])
    yield x, y, "a score 900 below the largest for the true class", lost


def _loss(function, x, y):
    return several("the loss function", function(x, y), "the loss, dx")


def _value_and_gradient(loss, x, y):
    """The value of a torch loss of scores, and its gradient."""
    scores = torch.tensor(x).requires_grad_()
    value = loss(scores, torch.tensor(y))
    return value.item(), torch.autograd.grad(value, scores)[0].numpy()


def _check_large_gradient(learner, name, loss):
    x, y = 2 * learner.rng.standard_normal(LARGE_SCORES), learner.rng.integers(LARGE_SCORES[1], size=LARGE_SCORES[0])
    _, dx = _value_and_gradient(loss, x, y)
    expect("dx", _loss(getattr(learner.layers, name), x, y)[1], dx, case=f"x {x.shape}")


def softmax_value(learner):
    for x, y, case, tol in _score_cases(learner):
        wanted, _ = _value_and_gradient(F.cross_entropy, x, y)
        mistakes = {
            "a mean over the batch, not a sum": wanted * len(x),
            "the sign: the loss is minus the log of a probability": -wanted,
            "a mean over the N examples alone, not over the N * C scores": wanted / x.shape[1],
            "the log is the natural one": wanted / np.log(2),
            "only the true class's log counts": -F.log_softmax(torch.tensor(x), 1).sum() / len(x),
        }
        expect("loss", _loss(learner.layers.softmax_loss, x, y)[0], wanted, mistakes, case, tol)
    for x, y, case, likely in _large_cases(learner):
        wanted, _ = _value_and_gradient(F.cross_entropy, x, y)
        loss, _ = _loss(learner.layers.softmax_loss, x, y)
        expect("loss", loss, wanted, case=case, otherwise=likely)


def softmax_gradient(learner):
    for x, y, case, tol in _score_cases(learner):
        _, dx = _value_and_gradient(F.cross_entropy, x, y)
        onehot = F.one_hot(torch.tensor(y), x.shape[1]).numpy()
        mistakes = {
            "the loss is a mean, so dx is divided by N": dx * len(x),
            "1 is subtracted at the true class": dx + onehot / len(x),
            "1 is subtracted only at the true class, before dividing by N": dx + onehot / len(x) - onehot,
            "the sign": -dx,
        }
        expect("dx", _loss(learner.layers.softmax_loss, x, y)[1], dx, mistakes, case, tol)
    for x, y, case, _ in _large_cases(learner):
        _, dx = _value_and_gradient(F.cross_entropy, x, y)
        expect("dx", _loss(learner.layers.softmax_loss, x, y)[1], dx, case=case)
    _check_large_gradient(learner, "softmax_loss", F.cross_entropy)


def softmax_steps(learner):
    function, rng = learner.derivations.affine_softmax_steps, learner.rng
    for N, D, C in [(5, 3, 4), (4, 6, 2)]:
        x, w, b = rng.standard_normal((N, D)), rng.standard_normal((D, C)), rng.standard_normal(C)
        y = rng.integers(C, size=N)
        wanted, one_path = (_softmax_steps(x, w, b, y, constants) for constants in ((), ("log_sums",)))
        mistakes = {
            "loss": {
                "a mean over the batch, not a sum": wanted["loss"] * N,
                "only the true class counts": -wanted["log_p"].mean(),
            },
            "dexps": {"each class of a row gets dsums of its row: dexps has a column for each": wanted["dsums"]},
            "dshifted": {
                "shifted is used twice, and the path through exps is missing": one_path["dshifted"],
                "shifted is used twice, and the path straight to log_p is missing": wanted["dshifted"]
                - one_path["dshifted"],
            },
            "dw": {"dw is transposed": wanted["dw"].T},
        }
        check_steps(function, function(x, w, b, y), wanted, mistakes, f"x {x.shape}, w {w.shape}")


def _softmax_steps(x, w, b, y, constants=()):
    """The steps of softmax after an affine layer, by PyTorch."""
    graph = Graph((*constants, "shift"))
    x, w, b = map(graph.leaf, ("x", "w", "b"), (x, w, b))
    scores = graph.add("scores", torch.addmm(b, x, w))
    shifted = graph.add("shifted", scores - graph.add("shift", scores.amax(1, keepdim=True)))
    sums = graph.add("sums", graph.add("exps", shifted.exp()).sum(1, keepdim=True))
    log_p = graph.add("log_p", shifted - graph.add("log_sums", sums.log()))
    loss = graph.add("loss", F.nll_loss(log_p, torch.tensor(y)))
    return graph.steps(loss, 1.0, f"{SOFTMAX} {SOFTMAX_BACKWARD}")


def _hinge(scores, y):
    """multi_margin_loss divides by the number of classes, too."""
    return F.multi_margin_loss(scores, y) * scores.shape[1]


def svm_value(learner):
    for x, y, case, tol in _score_cases(learner):
        wanted, _ = _value_and_gradient(_hinge, x, y)
        turned, _ = _value_and_gradient(_hinge, -x, y)
        mistakes = {
            "the true class has no margin of its own": wanted + 1,
            "a mean over the batch, not a sum": wanted * len(x),
            "a mean over the N examples alone, not over the N * C margins": wanted / x.shape[1],
            "the margin's sign: x_ij - x_{i, y_i} + 1": turned,
        }
        expect("loss", _loss(learner.layers.svm_loss, x, y)[0], wanted, mistakes, case, tol)


def svm_gradient(learner):
    for x, y, case, tol in _score_cases(learner):
        _, dx = _value_and_gradient(_hinge, x, y)
        true, once = F.one_hot(torch.tensor(y), x.shape[1]).numpy().astype(bool), np.sign(dx) / len(x)
        mistakes = {
            "the loss is a mean, so dx is divided by N": dx * len(x),
            "each violated margin also pulls at the true class's score": np.where(true, 0, dx),
            "the true class's score is in as many terms as margins are violated": np.where(true, once, dx),
            "the true class's score is in each violated margin: count them, none included": np.where(
                true, -1 / len(x), dx
            ),
            "the sign at the true class": np.where(true, -dx, dx),
        }
        expect("dx", _loss(learner.layers.svm_loss, x, y)[1], dx, mistakes, case, tol)
    _check_large_gradient(learner, "svm_loss", _hinge)
