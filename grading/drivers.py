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


class Accuracies:
    """Takes the place of `Solver.check_accuracy`: returns accuracies that were set beforehand, and records its calls.

    train, val: the accuracies, one for each call with training examples or, if X[0, 0] >= 1000, with validation ones.
    """

    def __init__(self, train, val):
        from cs231n.trainer import Solver  # here, since each `load` brings another cs231n

        self.left, self.calls = {"train": train, "val": val}, []
        Solver.check_accuracy = lambda solver, *args, **kwargs: self.next(*args, **kwargs)

    def next(self, X, y, num_samples=None, batch_size=500):
        split = "val" if X[0, 0] >= 1000 else "train"
        self.calls.append({"split": split, "numbers": X[:, 0].astype(int), "y": y, "num_samples": num_samples})
        return self.left[split].pop(0)


def best_of(solver):
    """The parameters and bn_params that a Solver's model holds after training."""
    with solver._latest_in_model():
        pass
    return solver.model.params, solver.model.bn_params


def add_counting_rule():
    """Add an update rule "counting", whose t-th step is t times as long, which shows whose config it is called with.

    The config that it returns is a new dict.
    """
    from cs231n import optim  # here, since each `load` brings another cs231n

    optim.RULES["counting"] = optim.counting = counting


def counting(w, dw, config):
    config = {"learning_rate": 1.0, **config, "count": config.get("count", 0) + 1}
    return w - config["learning_rate"] * config["count"] * dw, config


def scripted_net(reg, dtype, params, scores, gradients):
    """A SoftmaxNet of these params that returns these scores and gradients, whatever X is, and records its calls.

    asked: the dtype of X, the mode, and the modes of its two bn_params; dscores: what `_backward` was given.
    """
    from cs231n.softmax_net import SoftmaxNet  # here, since each `load` brings another cs231n

    class ScriptedNet(SoftmaxNet):
        def _forward(self, h, mode):
            modes = [bn_param.get("mode") for bn_param in self.bn_params]
            self.asked = {"dtype": str(h.dtype), "mode": mode, "bn": modes}
            return np.array(scores), ()

        def _backward(self, dscores, caches):
            self.dscores = dscores
            return {name: np.array(gradient) for name, gradient in gradients.items()}

    net = ScriptedNet(reg, 1.0, dtype)
    net.params, net.bn_params = dict(params), [{"mode": "train"}, {}]
    return net


def put_factors_in_place_of_dropout():
    """Let FullyConnectedNet multiply the output of hidden layer i by i + 1 in training, in place of dropout."""
    from cs231n.fully_connected_net import FullyConnectedNet  # here, since each `load` brings another cs231n

    def _dropout_forward(net, h, i, mode):
        factor = i + 1 if mode == "train" else 1
        return h * factor, factor

    FullyConnectedNet._dropout_forward = _dropout_forward
    FullyConnectedNet._dropout_backward = lambda net, dh, factor: dh * factor


def put_simple_blocks_in_resnet():
    """Let ResNet build simple blocks: out = tanh(the channels of every stride-th pixel, mixed by a matrix)."""
    import torch  # here, since exercises in NumPy run without it

    from cs231n import pytorch_resnet  # here, since each `load` brings another cs231n

    class SimpleBlock(torch.nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.mix = torch.nn.Parameter(torch.randn(c_out, c_in))
            self.register_buffer("stride", torch.tensor(stride))  # a check sees it in the state

        def forward(self, x):
            stride = int(self.stride)
            return torch.einsum("oc,nchw->nohw", self.mix, x[:, :, ::stride, ::stride]).tanh()

    pytorch_resnet.ResidualBlock = SimpleBlock


def global_number():
    """A float from NumPy's global generator, which no layer may seed."""
    return np.random.random()  # noqa: NPY002
