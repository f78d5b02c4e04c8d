"""Objects that the checks need in the learner's process, such as a model that a Solver can train."""

import numpy as np


def generator(seed):
    """A `numpy.random.Generator`."""
    return np.random.default_rng(seed)


class Model:
    """A model for a Solver.  It returns results that were set beforehand, and records what it is asked.

    X[:, 0] numbers the examples.  Without y it returns their rows of scores; with y, the next of losses and gradients.
    """

    def __init__(self, params, bn_params=()):
        self.params, self.bn_params = params, list(bn_params)
        self.scores, self.losses, self.gradients = np.zeros((1, 3)), [], []
        self.trained, self.measured, self.seed = [], [], "none yet"

    def loss(self, X, y=None):
        numbers = X[:, 0].astype(int)
        if y is None:
            self.measured.append(numbers)
            return self.scores[numbers % len(self.scores)]
        self.trained.append({"numbers": numbers, "y": y, "seed": str(self.seed)})
        return self.losses.pop(0), self.gradients.pop(0)


class ReseededModel(Model):
    def reseed(self, seed):
        self.seed, before = seed, self.seed
        return before


def best_of(solver):
    """The parameters and bn_params that a Solver's model holds after training."""
    with solver._latest_in_model():
        pass
    return solver.model.params, solver.model.bn_params


def add_counting_rule():
    """Add an update rule "counting", whose t-th step is t times as long, which shows whose config it is called with."""
    from cs231n import optim  # here, since each `load` brings another cs231n

    optim.RULES["counting"] = optim.counting = counting


def counting(w, dw, config):
    config.setdefault("learning_rate", 1.0)
    config["count"] = config.get("count", 0) + 1
    return w - config["learning_rate"] * config["count"] * dw, config


def small_net(reg, dtype, params):
    """A SoftmaxNet that records what it is asked: scores = (X W1 gamma1 + beta1 + b1) W2.

    params: arrays of the dtype, W1 (D, M), b1, gamma1 and beta1 (M,), W2 (M, C).  In NumPy, since the instructor's
    grader does not let PyTorch into the process of such an exercise.
    """
    from cs231n.softmax_net import SoftmaxNet  # here, since each `load` brings another cs231n

    class SmallNet(SoftmaxNet):
        def _forward(self, h, mode):
            self.asked = {
                "dtype": str(h.dtype),
                "mode": mode,
                "bn": [bn_param.get("mode") for bn_param in self.bn_params],
            }
            W1, b1, gamma1, beta1, W2 = self.params.values()
            h = h.astype(W1.dtype)
            linear = h @ W1
            hidden = linear * gamma1 + beta1 + b1
            return hidden @ W2, (h, linear, hidden)

        def _backward(self, dscores, caches):
            (h, linear, hidden), dscores = caches, np.asarray(dscores, caches[0].dtype)
            dhidden = np.einsum("nc,mc->nm", dscores, self.params["W2"])
            shift = np.einsum("nm->m", dhidden)
            gradients = {
                "W1": np.einsum("nd,nm,m->dm", h, dhidden, self.params["gamma1"]),
                "gamma1": np.einsum("nm,nm->m", linear, dhidden),
                "W2": np.einsum("nm,nc->mc", hidden, dscores),
            }
            return {**gradients, "b1": shift, "beta1": shift.copy()}

    net = SmallNet(reg, 1.0, dtype)
    net.params = dict(params)
    net.bn_params = [{"mode": "train"}, {}]
    return net


def global_number():
    """A float from NumPy's global generator, which no layer may seed."""
    return np.random.random()  # noqa: NPY002
