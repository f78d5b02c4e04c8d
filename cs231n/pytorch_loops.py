"""The training loop at three levels: plain tensors, a module, and an optimizer with a schedule.

The loss of a batch is the mean cross-entropy of its scores; x (n, ...) are its images, and y (n,) int64 their labels.
Notebook 05, section 5.7, leads to these functions.
"""

import torch
from torch.nn import functional as F

from cs231n.arguments import check_count


def train_tensors(params, scores, batches, lr, momentum=0.9):
    """Train tensors by SGD with momentum, one step for each batch:  v <- momentum v + dw,  w <- w - lr v,  v = 0 first.

    params: a dict from name to tensor, float; copies are trained, and params stays as it is.  scores: a function of
    such a dict and x, which returns scores (n, C).  batches: pairs of x and y.  lr, momentum: floats.
    Returns the trained copies, a dict like params of tensors that require no gradient, and a list with the loss of each
    step, before its update, as floats.
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
    """
    w = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    v = {name: torch.zeros_like(value) for name, value in params.items()}
    losses = []
    for x, y in batches:
        loss = F.cross_entropy(scores(w, x), y)
        loss.backward()
        with torch.no_grad():  # an update is no part of the next loss
            for name in w:
                v[name] = momentum * v[name] + w[name].grad
                w[name] -= lr * v[name]
                w[name].grad = None  # backward adds to it
        losses.append(loss.item())  # a float: the tensor would keep its graph
    return {name: value.detach() for name, value in w.items()}, losses


def train_module(model, batches, lr, momentum=0.9):
    """Train a module, in training mode, by the steps of `train_tensors`.

    model: an nn.Module that maps x to scores (n, C); its parameters, each of which has a gradient, are updated in
    place.  batches, lr, momentum: as for `train_tensors`.
    Returns a list with the loss of each step, before its update, as floats.
    """
    model.train()
    v = [torch.zeros_like(w) for w in model.parameters()]
    losses = []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for i, w in enumerate(model.parameters()):
                v[i] = momentum * v[i] + w.grad
                w -= lr * v[i]
        losses.append(loss.item())
    return losses


def accuracy(model, batches):
    """The share of the images in all batches whose highest score is that of their label, in evaluation mode: a float.

    No graph is recorded.  The batches need not be of one size.  The model is left in the mode in which it was.
    """
    training = model.training
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in batches:
            right += (model(x).argmax(dim=1) == y).sum().item()
            total += len(y)
    model.train(training)
    return right / total


def train_scheduled(model, optimizer, rate, batches, val, epochs):
    """Train a module by an optimizer of torch.optim, whose learning rate follows a schedule from step to step.

    In step t = 0, 1, ... of the T steps of the run, the learning rate is the optimizer's first one times
    rate((t + 1/2) / T).  After each epoch, `accuracy` measures the model on val.

    model: as for `train_module`.  optimizer: over its parameters.  rate: a function from the fraction of the run that
    is done to a float, such as `Recipe.rate`; LambdaLR asks it for step T, too, which is not taken.  batches: such as
    `DeviceBatches`, with steps, the number of batches in an epoch, and epoch(number), which yields those of an epoch,
    counted from 0.  val: a list of batches.
    Returns a list with a dict for each epoch: loss, the mean of the losses of its steps, and val_acc, both floats.
    Raises ValueError unless epochs is at least 1.
    """
    check_count("epochs", epochs, 1)
    T = epochs * batches.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: rate((t + 0.5) / T))
    history = []
    for number in range(epochs):
        model.train()
        losses = []
        for x, y in batches.epoch(number):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        history.append({"loss": sum(losses) / len(losses), "val_acc": accuracy(model, val)})
    return history
