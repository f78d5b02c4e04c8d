"""Checks of exercise 5.7: training loops with plain tensors, with a module, and with an optimizer and a schedule.

The nets run in the learner's process, and are trained once more here, by gradients of `torch.autograd.grad`.
"""

import functools

import torch
from torch.nn import functional as F

from grading import drivers
from grading.checks.common import NAMES, draw_tensor
from grading.expect import RETURNED, expect, numbers, require, small_fault
from grading.session import Passed

D, H, C = 4, 5, 3
SIZES = 6, 6, 3  # of the batches of an epoch
GATHERED = "gradients add up from step to step: they have to be cleared"
LAST = "the last batch counts, too, though it is smaller"
PLAIN = "v keeps a share of itself from step to step"
AVERAGED = "dw has no factor of 1 - momentum here"
NESTEROV = "this is Nesterov's momentum"
UPHILL = "the step goes downhill"
SUMMED = "the loss is the mean over the batch, not the sum"
UNCHANGED = "nothing was trained"
ALIVE = "a loss that is kept as a tensor keeps its graph, too: keep its number, a float"
COPIES = "copies are trained; the tensors that were passed stay as they are"
IN_TRAINING = "training is done in training mode, in which batch norm uses the batch"
IN_EVALUATION = "it is measured in evaluation mode, in which batch norm uses its running statistics"
WEIGHTED = "a small batch must not count as much as a large one: count images, not batches"
LEFT = "the model is left in the mode in which it was"
NO_GRAPH = "no graph is needed: gradients are switched off"
EACH_STEP = "the schedule advances in each step, not in each epoch"
FIRST = "the optimizer takes its step before the schedule advances"
NEVER = "the schedule never advances"
MIDDLE = "the rate is that of the middle of a step, t + 1/2"
ALL_STEPS = "the run has the steps of all epochs, not of one"
SQUARED = "rate gives a factor, by which the optimizer's rate is multiplied once"
NUMBERED = "each epoch has batches of its own, by its number"
WHOLE = "loss is the mean over the steps of the epoch"
EARLIER = "the losses of earlier epochs do not count"
MEASURED = "val_acc is what accuracy returns for val"


def _batches(rng, sizes=SIZES):
    return [(2 * draw_tensor(rng, n, D) + 1, torch.tensor(rng.integers(0, C, n))) for n in sizes]


def _descend(weights, loss_of, batches, rates, momentum, gathered=False, averaged=False, nesterov=False):
    """Take a step of SGD with momentum on weights, a list of tensors, for each batch.  Returns the losses."""
    losses, v, sums = [], [0.0] * len(weights), [0.0] * len(weights)
    for (x, y), rate in zip(batches, rates, strict=True):
        loss = loss_of(x, y)
        dw = torch.autograd.grad(loss, weights)
        sums = [s + d for s, d in zip(sums, dw, strict=True)]
        dw = sums if gathered else dw
        v = [momentum * a + (1 - momentum if averaged else 1) * d for a, d in zip(v, dw, strict=True)]
        with torch.no_grad():
            for w, a, d in zip(weights, v, dw, strict=True):
                w -= rate * (d + momentum * a if nesterov else a)
        losses.append(loss.item())
    return losses


def _of_tensors(params, batches, lr, momentum, reduction="mean", **changes):
    w, net = {name: value.clone().requires_grad_() for name, value in params.items()}, drivers.TensorNet()
    rates = [lr] * len(batches)
    losses = _descend(
        list(w.values()),
        lambda x, y: F.cross_entropy(net(w, x), y, reduction=reduction),
        batches,
        rates,
        momentum,
        **changes,
    )
    return w, losses


def _of_module(state, batches, rates, momentum, reduction="mean", training=True, **changes):
    net = drivers.module_net(state).train(training)
    losses = _descend(
        list(net.parameters()),
        lambda x, y: F.cross_entropy(net(x), y, reduction=reduction),
        batches,
        rates,
        momentum,
        **changes,
    )
    return net.state_dict(), losses


def _known(train, batches, momentum):
    """Words -> what a known mistake gives.  train: a function of batches, a sign of the rate, and further changes."""
    yield GATHERED, train(batches, gathered=True)
    yield LAST, train(batches[:-1])
    yield SUMMED, train(batches, reduction="sum")
    yield UPHILL, train(batches, sign=-1)
    yield UNCHANGED, train([])
    if momentum:
        yield PLAIN, train(batches, momentum=0.0)
        yield AVERAGED, train(batches, averaged=True)
        yield NESTEROV, train(batches, nesterov=True)


def _compare(name, got, wanted, mistakes, case):
    """Compare a dict of tensors, all of those in wanted, with it.  mistakes: words -> such a dict."""
    require(isinstance(got, dict), f"{name}: expected a dict, got {type(got).__name__}", RETURNED)
    require(
        sorted(map(str, got)) == sorted(wanted),
        f"{name} has the keys {sorted(map(str, got))}, not {sorted(wanted)}",
        NAMES,
    )
    for key, right in wanted.items():
        likely = {words: wrong[key] for words, wrong in mistakes.items()}
        expect(f"{name}[{key!r}]", got[key], right, likely, case)


def _compare_losses(losses, wanted, case):
    expect("losses", numbers("losses", losses, len(wanted)), torch.tensor(wanted, dtype=torch.float64), case=case)


def _check_graphs(left, case):
    """Check that no graphs of earlier steps are alive.  left: a `GraphCount`'s."""
    require(isinstance(left, list) and left, f"the net is never called (with {case})", UNCHANGED)
    alive = max((count for count in left if type(count) is int), default=0)
    require(alive < 2, f"after {len(left) - 1} steps, the graphs of {alive} are still in memory (with {case})", ALIVE)


def tensor_loop(learner):
    for lr, momentum in ((0.1, 0.0), (0.2, 0.8)):
        params = {"W1": draw_tensor(learner.rng, D, H), "b1": draw_tensor(learner.rng, H)}
        params |= {"W2": draw_tensor(learner.rng, H, C), "b2": draw_tensor(learner.rng, C)}
        batches, case = _batches(learner.rng), f"lr={lr}, momentum={momentum}, batches of {SIZES}"

        def train(batches, sign=1, params=params, lr=lr, momentum=momentum, **changes):
            return _of_tensors(params, batches, sign * lr, changes.pop("momentum", momentum), **changes)

        wanted, wanted_losses = train(batches)
        mistakes = {words: wrong for words, (wrong, _) in _known(train, batches, momentum)}
        net, passed = learner.drivers.TensorNet(), Passed(params)
        result = learner.pytorch_loops.train_tensors(passed, net, batches, lr, momentum)
        pair = isinstance(result, tuple | list) and len(result) == 2
        require(pair, "train_tensors: expected the trained tensors and a list of losses", RETURNED)
        _compare("trained", result[0], wanted, mistakes, case)
        _compare_losses(result[1], wanted_losses, case)
        _check_graphs(net.get("graphs.left"), case)
        if not all(torch.equal(torch.as_tensor(passed.after.get(name)), value) for name, value in params.items()):
            small_fault(f"params was changed (with {case})", COPIES)


def _state(rng):
    """The state of a `drivers.module_net`."""
    of_norm = {"weight": 0.5 + torch.tensor(rng.random(H)), "bias": draw_tensor(rng, H)}
    of_norm |= {"running_mean": draw_tensor(rng, H), "running_var": 2 + torch.tensor(rng.random(H))}
    state = {"first.weight": draw_tensor(rng, H, D), "first.bias": draw_tensor(rng, H)}
    state |= {f"norm.{name}": value for name, value in of_norm.items()}
    state |= {"norm.num_batches_tracked": torch.tensor(0)}
    return state | {"last.weight": draw_tensor(rng, C, H), "last.bias": draw_tensor(rng, C)}


def module_loop(learner):
    for lr, momentum in ((0.1, 0.0), (0.2, 0.8)):
        state, batches = _state(learner.rng), _batches(learner.rng)
        case = f"lr={lr}, momentum={momentum}, batches of {SIZES}"

        def train(batches, sign=1, state=state, lr=lr, momentum=momentum, **changes):
            rates = [sign * lr] * len(batches)
            return _of_module(state, batches, rates, changes.pop("momentum", momentum), **changes)

        wanted, wanted_losses = train(batches)
        mistakes = {words: wrong for words, (wrong, _) in _known(train, batches, momentum)}
        mistakes[IN_TRAINING] = train(batches, training=False)[0]
        net = learner.drivers.module_net(state)
        net.eval()
        losses = learner.pytorch_loops.train_module(net, batches, lr, momentum)
        _compare("the state", net.state_dict(), wanted, mistakes, case)
        _compare_losses(losses, wanted_losses, case)
        _check_graphs(net.get("graphs.left"), case)


def module_accuracy(learner):
    sizes = 40, 40, 10
    for training in (True, False):
        state, batches = _state(learner.rng), _batches(learner.rng, sizes)
        x, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
        answers = drivers.module_net(state).eval()(x).argmax(dim=1)
        labels[:60] = answers[:60]  # many are right in the first batches, few in the last
        batches = list(zip(x.split(sizes), labels.split(sizes), strict=True))
        shares = [(drivers.module_net(state).train(mode)(x).argmax(dim=1) == y).double() for mode in (True, False)
                  for x, y in batches]  # fmt: skip
        in_training, right = (torch.cat(part).mean().item() for part in (shares[:3], shares[3:]))
        mistakes = {
            IN_EVALUATION: in_training,
            WEIGHTED: sum(part.mean().item() for part in shares[3:]) / 3,
            LAST: torch.cat(shares[3:5]).mean().item(),
        }
        net, case = learner.drivers.module_net(state), f"batches of {sizes}, and the model in {_mode(training)} mode"
        net.train(training)
        expect("accuracy", learner.pytorch_loops.accuracy(net, batches), right, mistakes, case)
        after = net.state_dict()
        _compare("the state afterwards", after, state, {}, case)
        require(net.get("training") is training, f"the model is in {_mode(not training)} mode afterwards", LEFT)
        if any(graph for _, graph in net.get("modes")):
            small_fault(f"a graph is recorded (with {case})", NO_GRAPH)


def _mode(training):
    return "training" if training else "evaluation"


def optimizer_loop(learner):
    lr, momentum, epochs, rate = 0.2, 0.8, 3, drivers.falling_rate()
    state, data = _state(learner.rng), [_batches(learner.rng) for _ in range(epochs)]
    steps, T = [batch for epoch in data for batch in epoch], epochs * len(SIZES)
    results = learner.rng.random(epochs).tolist()

    def rates(progress):
        return [lr * rate(progress(t)) for t in range(T)]

    train = functools.partial(_of_module, state, momentum=momentum)
    middle = rates(lambda t: (t + 0.5) / T)
    wanted, losses = train(steps, middle)
    changed = {
        EACH_STEP: {"rates": rates(lambda t: (t // len(SIZES) + 0.5) / T)},
        FIRST: {"rates": rates(lambda t: (t + 1.5) / T)},
        NEVER: {"rates": [middle[0]] * T},
        MIDDLE: {"rates": rates(lambda t: t / T)},
        ALL_STEPS: {"rates": rates(lambda t: (t + 0.5) / len(SIZES))},
        GATHERED: {"gathered": True},
        IN_TRAINING: {"training": False},
        NUMBERED: {"batches": epochs * data[0]},
        UNCHANGED: {"batches": [], "rates": []},
        SQUARED: {"rates": [lr * one for one in middle]},
    }
    mistakes = {words: train(**{"batches": steps, "rates": middle, **change})[0] for words, change in changed.items()}
    learner.drivers.put_results_in_place_of_accuracy(results)
    net = learner.drivers.module_net(state)
    net.eval()
    given = learner.drivers.sgd(net, lr, momentum), learner.drivers.falling_rate(), learner.drivers.Epochs(data)
    history = learner.pytorch_loops.train_scheduled(net, *given, data[0], epochs)
    case = f"{epochs} epochs of {len(SIZES)} steps"
    _compare("the state", net.state_dict(), wanted, mistakes, case)
    _check_graphs(net.get("graphs.left"), case)
    rows = isinstance(history, list) and len(history) == epochs and all(isinstance(row, dict) for row in history)
    require(rows, f"history: expected a list of {epochs} dicts", RETURNED)
    for i, row in enumerate(history):
        names = sorted(map(str, row))
        require(names == ["loss", "val_acc"], f"history[{i}] has the keys {names}, expected loss and val_acc", NAMES)
        own = losses[i * len(SIZES) : (i + 1) * len(SIZES)]
        so_far = losses[: (i + 1) * len(SIZES)]
        mistakes = {WHOLE: own[-1], EARLIER: sum(so_far) / len(so_far)}
        expect(f"history[{i}]['loss']", row["loss"], sum(own) / len(own), mistakes, case)
        expect(f"history[{i}]['val_acc']", row["val_acc"], results[i], case=case, otherwise=MEASURED)
