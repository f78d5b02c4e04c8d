"""Optimizers for the recipes: PyTorch's AdamW and Nesterov SGD, Muon, and averages of the weights."""

import copy
from collections import defaultdict
from contextlib import contextmanager

import torch
from torch import nn

FUSED = ("cuda", "cpu")  # devices on which the fused optimizers of torch.optim are used
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315), 5  # the polynomial's a, b and c, and the number of iterations


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, for weights that a batch norm follows.

        v <- mu v + dw,   w <- w sqrt(c_out) / |w| - lr U V^T,   where U S V^T = dw + mu v.

    Each weight (c_out, ...), of any float dtype, is read as a matrix of c_out rows, and |w| is its Frobenius norm.  Up
    to the eps of the batch norm, a factor on w does not change the net's output, so |w| is reset to sqrt(c_out) before
    each update; there is no weight decay.  |U V^T| is at most sqrt(c_out).  Weights of the same shape are updated
    together, with each matrix product over all of them.

    params: weights, or groups of them, as in torch.optim.  lr: the learning rate, a float or a tensor ().  momentum:
    mu, from 0 to 1.
    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(self, params, lr, momentum):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        """Update in place each weight that has a gradient, and its v: `momentum_buffer`, shape and dtype as w."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for w in group["params"]:
                if w.grad is not None:
                    alike[w.shape, w.dtype].append(w)
            for weights in alike.values():
                self._update(weights, group["lr"], group["momentum"])

    def _update(self, weights, lr, mu):
        """Update weights of the same shape; a first axis, which the equation lacks, counts them."""
        for w in weights:
            if not self.state[w]:
                self.state[w]["momentum_buffer"] = torch.zeros_like(w)
        buffers = [self.state[w]["momentum_buffer"] for w in weights]
        w, v, dw = torch.stack(weights), torch.stack(buffers), torch.stack([w.grad for w in weights])
        v = mu * v + dw
        directions = torch.vmap(orthogonalized)((dw + mu * v).flatten(2)).view_as(w)  # U V^T
        lengths = w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1))
        w = w * (w.shape[1] ** 0.5 / lengths) - lr * directions
        torch._foreach_copy_(weights, list(w))
        torch._foreach_copy_(buffers, list(v))


def orthogonalized(g):
    """Approximate U V^T, where U S V^T is the singular value decomposition of g: bring the singular values near 1.

    x <- a x + (b x x^T + c (x x^T)^2) x, five times, starting from x = g / |g|.  Each iteration maps each singular
    value s to a s + b s^3 + c s^5, which drives s > 0 towards an interval around 1 without converging to 1.

    g (m, n), a float tensor.  Returns (m, n) in the dtype of g; zeros for g = 0.  On CUDA it computes in bfloat16.
    Source: as for `Muon`; the Newton-Schulz iteration with coefficients that are steeper at 0.
    """
    (a, b, c), steps = NEWTON_SCHULZ
    x = g.to(torch.bfloat16) if g.device.type == "cuda" else g
    x = x / (x.norm() + 1e-7)
    wide = x if len(x) <= x.shape[1] else x.T
    for _ in range(steps):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return (wide if len(x) <= x.shape[1] else wide.T).to(g.dtype)


def weight_groups(model):
    """Split the weights of model that are trained into three lists: convolutions before a norm, biases, and the rest.

    A convolution without a bias is taken to be followed by a norm.  The shifts (beta) of norms count as biases.
    """
    convolutions = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is None}
    before_a_norm, biases, others = [], [], []
    for name, w in model.named_parameters():
        if not w.requires_grad:
            continue
        if id(w) in convolutions:
            before_a_norm.append(w)
        elif name.endswith("bias"):
            biases.append(w)
        else:
            others.append(w)
    return before_a_norm, biases, others


def adamw(model, lr, weight_decay, device):
    """AdamW over all weights of model: Adam's step, and w <- w - lr weight_decay w.

    device: the torch.device of the weights.  Returns a torch.optim.AdamW.
    Source: Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019.
    """
    settings = {"fused": device.type in FUSED, "capturable": device.type == "cuda"}  # capturable: in a CUDA graph
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=weight_decay, **settings)


def nesterov(groups, momentum, device):
    """SGD with Nesterov momentum: g = dw + weight_decay w,  v <- mu v + g,  w <- w - lr (g + mu v).

    groups: pairs of a list of weights and a dict of its lr and weight_decay; empty lists are left out.  momentum: mu.
    With momentum 0 this is plain SGD.  device: the torch.device of the weights.  Returns a torch.optim.SGD.
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
    """
    groups = [{"params": weights, **settings} for weights, settings in groups if weights]
    return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=device.type in FUSED)


def keep_rates_on(device, optimizer):
    """Turn the learning rate of each group of optimizer into a tensor () on device, which schedules then write into.

    A CUDA graph reads the rate from that tensor, and would repeat a float as it was when the graph was captured.
    """
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)


def copy_of_state(optimizer):
    """Copies of the tensors that optimizer keeps, by weight and name, for `rewind`."""
    return {w: {name: value.clone() for name, value in kept.items()} for w, kept in optimizer.state.items()}


def rewind(optimizer, state):
    """Write an earlier `copy_of_state` into the tensors that optimizer keeps; those that are new become 0."""
    for w, kept in optimizer.state.items():
        for name, value in kept.items():
            if value is not None:  # the momentum of SGD without momentum
                value.copy_(state[w][name]) if w in state else value.zero_()


class Scheduled:
    """A model, its optimizers, and their learning rates, which follow a schedule from step to step.

    rate(step): the factor on all learning rates in a step, counted from 0.  device: that of the learning rates.
    """

    def __init__(self, model, optimizers, rate, device):
        self.model, self.optimizers = model, optimizers
        for optimizer in optimizers:
            keep_rates_on(device, optimizer)
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]

    def advance(self):
        """Set the learning rates of the next step."""
        for schedule in self.schedules:
            schedule.step()

    @contextmanager
    def undone(self):
        """A context whose steps are undone at its end, in place, as CUDA graphs refer to these tensors."""
        weights = copy.deepcopy(self.model.state_dict())
        states = [copy_of_state(optimizer) for optimizer in self.optimizers]
        yield
        self.model.load_state_dict(weights)
        for optimizer, state in zip(self.optimizers, states, strict=True):
            rewind(optimizer, state)
            optimizer.zero_grad()

    def state_dict(self):
        """The state to save, a dict of those of its parts (not copied)."""
        parts = {name: [part.state_dict() for part in getattr(self, name)] for name in ("optimizers", "schedules")}
        return {"model": self.model.state_dict(), **parts}

    def load_state_dict(self, state):
        """Restore what `state_dict` returned.  Raises KeyError or ValueError where a part is missing."""
        self.model.load_state_dict(state["model"])
        for name in ("optimizers", "schedules"):
            for part, saved in zip(getattr(self, name), state[name], strict=True):
                part.load_state_dict(saved)


class SlowWeights:
    """A running average of a model's weights and running statistics.

        slow <- slow + s (fast - slow),   s = 1 - (1 - share) t^3,   once every period updates,

    where fast are the weights in training, and t is the fraction of the run that is done.  s falls from 1, a plain
    copy, to share.  All floating-point entries of model.state_dict() are averaged, each in its own shape and dtype.

    share: s at the end of the run, from 0 to 1.  period: updates from one average to the next.
    pull: False, an exponential moving average, which does not touch training; True, Lookahead: fast <- slow afterwards.
    Sources: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; Zhang et al., Lookahead
    optimizer: k steps forward, 1 step back, NeurIPS 2019; Jordan, arXiv 2404.00498, section 3.4 (s over the run).
    """

    def __init__(self, model, share, period, pull):
        self.fast = {name: w for name, w in model.state_dict().items() if w.is_floating_point()}  # the model's own
        self.slow = {name: w.clone() for name, w in self.fast.items()}
        self.share, self.period, self.pull, self.updates = share, period, pull, 0

    @torch.no_grad()
    def update(self, progress):
        """Count a step, and average if a period is complete.  Call it after each step of the optimizer.

        progress: t, the fraction of the run that is done, from 0 to 1.
        """
        self.updates += 1
        if self.updates % self.period == 0:
            slow, fast = list(self.slow.values()), list(self.fast.values())
            torch._foreach_lerp_(slow, fast, 1 - (1 - self.share) * progress**3)
            if self.pull:
                torch._foreach_copy_(fast, slow)

    @contextmanager
    def in_model(self):
        """A context in which the model has the slow weights; on exit, even after an error, it gets its own back."""
        trained = {name: w.clone() for name, w in self.fast.items()}
        self._set(self.fast, self.slow)
        try:
            yield
        finally:
            self._set(self.fast, trained)

    def state_dict(self):
        """The state to save: updates, their number so far, and slow, a dict from name to tensor (not copied)."""
        return {"updates": self.updates, "slow": self.slow}

    def load_state_dict(self, state):
        """Restore what `state_dict` returned, copying the tensors.  Raises KeyError where an entry is missing."""
        self.updates = state["updates"]
        self._set(self.slow, state["slow"])

    @staticmethod
    @torch.no_grad()
    def _set(weights, values):
        for name, w in weights.items():
            w.copy_(values[name])
