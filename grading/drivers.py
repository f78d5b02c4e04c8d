"""Objects that the checks need in the learner's process, such as a model that a Solver can train."""

import weakref

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


class GraphCount:
    """Counts, for each call of a net with it, the graphs of earlier calls that something still holds.

    left: a list of these counts.  The loss of the step before still holds one.
    """

    def __init__(self):
        import torch  # here, since exercises in NumPy run without it

        tokens = self.tokens = weakref.WeakSet()

        class Watched(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.token = Token()  # it lives as long as the graph
                tokens.add(ctx.token)
                return x.clone()

            @staticmethod
            def backward(ctx, dout):
                return dout

        self.watched, self.left = Watched.apply, []

    def __call__(self, x):
        self.left.append(len(self.tokens))
        return self.watched(x)


class Token:
    """Something of which a weak reference can be kept."""


class TensorNet:
    """Scores of a net of two affine layers, a function of a dict of its tensors and x."""

    def __init__(self):
        self.graphs = GraphCount()

    def __call__(self, w, x):
        return self.graphs(x @ w["W1"] + w["b1"]).relu() @ w["W2"] + w["b2"]


def module_net(state):
    """A module of two affine layers, with batch norm between them, of this state.

    graphs: a `GraphCount`.  modes: for each call, whether it was in training mode, and whether a graph was recorded.
    """
    import torch  # here, since exercises in NumPy run without it

    class ModuleNet(torch.nn.Module):
        def __init__(self, D, H, C):
            super().__init__()
            self.first, self.norm, self.last = (
                torch.nn.Linear(D, H),
                torch.nn.BatchNorm1d(H),
                torch.nn.Linear(H, C),
            )
            self.graphs, self.modes = GraphCount(), []

        def forward(self, x):
            self.modes.append([self.training, torch.is_grad_enabled()])
            return self.last(self.norm(self.graphs(self.first(x))).relu())

    (H, D), C = state["first.weight"].shape, len(state["last.weight"])
    net = ModuleNet(D, H, C).double()
    net.load_state_dict(state)
    return net


class Epochs:
    """Batches of several epochs: steps, their number in an epoch, and epoch(number), which yields those of one."""

    def __init__(self, batches):
        self.batches, self.steps = batches, len(batches[0])

    def epoch(self, number):
        yield from self.batches[number]


def falling_rate():
    """A schedule: a function of the fraction of the run that is done."""
    return lambda progress: (1.1 - progress) ** 2


def sgd(net, lr, momentum):
    """An optimizer of torch.optim."""
    import torch  # here, since exercises in NumPy run without it

    return torch.optim.SGD(net.parameters(), lr, momentum)


def put_results_in_place_of_accuracy(results):
    """Let `pytorch_loops.accuracy` return these, one after another."""
    from cs231n import pytorch_loops  # here, since each `load` brings another cs231n

    left = list(results)
    pytorch_loops.accuracy = lambda model, batches: left.pop(0)


class Graph:
    """A graph of the learner's nodes, each with a name, with operations of its own.

    recipe: a dict from name to (operation, *names of its inputs), in order.  leaves: a dict from name to an array.
    calls: how often the backward of each of the recipe's nodes has run.
    """

    def __init__(self, recipe, leaves):
        from cs231n import autograd  # here, since each `load` brings another cs231n

        self.autograd, self.recipe, self.calls = autograd, recipe, dict.fromkeys(recipe, 0)
        self.nodes = {name: autograd.Node(value) for name, value in leaves.items()}
        for name, (operation, *inputs) in recipe.items():
            self.nodes[name] = self._node(name, operation, [self.nodes[source] for source in inputs])

    def _node(self, name, operation, nodes):
        values = [node.value for node in nodes]
        out, slopes = OPERATIONS[operation](*values)

        def backward(dout):
            self.calls[name] += 1
            grads = tuple(dout if slope is None else dout * slope for slope in slopes)
            for grad in grads:
                grad.flags.writeable = False  # a backward may return one array for two inputs
            return grads

        return self.autograd.Node(out, nodes, backward)

    def order(self, last):
        """The names of the nodes in the order that in_order finds."""
        names = {id(node): name for name, node in self.nodes.items()}
        found = self.autograd.in_order(self.nodes[last])
        return [names.get(id(node), "another node") for node in found] if isinstance(found, list) else None

    def backward(self, last):
        """Call backward, for which the order is that of the recipe."""
        needed = {self.nodes[last]}
        for node in reversed(self.nodes.values()):
            needed.update(node.inputs if node in needed else ())
        order = [node for node in self.nodes.values() if node in needed]
        self.autograd.in_order = lambda node: list(order)
        self.autograd.backward(self.nodes[last])

    def grads(self, names):
        return {f"d{name}": self.nodes[name].grad for name in names}


OPERATIONS = {  # out, and the slope for each input; None: 1
    "add": lambda a, b: (a + b, (None, None)),
    "mul": lambda a, b: (a * b, (b, a)),
    "tanh": lambda a: (np.tanh(a), (1 - np.tanh(a) ** 2,)),
}


def global_number():
    """A float from NumPy's global generator, which no layer may seed."""
    return np.random.random()  # noqa: NPY002
