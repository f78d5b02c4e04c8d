"""Optimizers for the recipes: AdamW or Nesterov's SGD from PyTorch, Muon written out, and averages of the weights."""

from contextlib import contextmanager

import torch
from torch import nn

FUSED = ("cuda", "cpu")  # devices on which PyTorch updates all weights in one kernel
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315), 5  # the polynomial's a, b and c, and how often it is applied


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized:  v = mu v + dw;  w = w sqrt(c_out) / |w| - lr U V^T, where U S V^T = mu v + dw.

    For each weight (c_out, ...), read as a matrix of c_out rows.  A norm follows the layer, so that the size of w has
    no effect on what the net computes: it is held at sqrt(c_out), the most that U V^T has, in place of weight decay.
    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(self, params, lr, momentum):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in (w for w in group["params"] if w.grad is not None):
                if not self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
                v = self.state[w]["momentum_buffer"]
                v.mul_(group["momentum"]).add_(w.grad)
                update = orthogonalized((w.grad + group["momentum"] * v).flatten(1)).view_as(w)
                w.mul_(len(w) ** 0.5 / w.norm()).sub_(group["lr"] * update)


def orthogonalized(g):
    """About U V^T of the singular value decomposition U S V^T of g (m, n): singular values come to lie near 1.

    x = a x + (b x x^T + c (x x^T)^2) x, five times from x = g / |g|, drives each singular value s to a fixed region
    around 1 by way of the odd polynomial a s + b s^3 + c s^5.  On a GPU it runs in bfloat16.
    Source: as for `Muon`; Newton and Schulz's iteration with steeper coefficients.
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
    """The weights of model that are trained, in three lists: convolutions before a norm, biases, and the rest.

    A convolution has no bias where a norm follows; the norms' shifts count as biases.
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
    """AdamW over all weights of model: Adam, and w = w - lr weight_decay w.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019.
    """
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=weight_decay, fused=device.type in FUSED)


def nesterov(groups, momentum, device):
    """SGD with Nesterov's momentum.  groups: pairs of a list of weights and its settings, lr and weight_decay."""
    groups = [{"params": weights, **settings} for weights, settings in groups if weights]
    return torch.optim.SGD(groups, momentum=momentum, nesterov=True, fused=device.type in FUSED)


class SlowWeights:
    """An average of a model's weights and running statistics: slow = slow + s (fast - slow), every period updates.

    s falls from 1 to share, slowly at first: s = 1 - (1 - share) t^3, where t is the share of the run that is over; so
    an average neither remembers the first weights nor holds up the first steps.
    pull: False is the exponential moving average, which leaves training alone; True is Lookahead, where the fast
    weights then go back to the slow ones.
    Sources: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; Zhang et al., Lookahead
    optimizer: k steps forward, 1 step back, NeurIPS 2019; Jordan, arXiv 2404.00498, section 3.4 (s over the run).
    """

    def __init__(self, model, share, period, pull):
        self.fast = {name: w for name, w in model.state_dict().items() if w.is_floating_point()}  # no copies
        self.slow = {name: w.clone() for name, w in self.fast.items()}
        self.share, self.period, self.pull, self.updates = share, period, pull, 0

    @torch.no_grad()
    def update(self, progress):
        """Call after each of the optimizer's steps; progress: t, from 0 to 1."""
        self.updates += 1
        if self.updates % self.period == 0:
            slow, fast = list(self.slow.values()), list(self.fast.values())
            torch._foreach_lerp_(slow, fast, 1 - (1 - self.share) * progress**3)
            if self.pull:
                torch._foreach_copy_(fast, slow)

    @contextmanager
    def in_model(self):
        """Within it, the model has the slow weights."""
        kept = {name: w.clone() for name, w in self.fast.items()}
        self._set(self.fast, self.slow)
        try:
            yield
        finally:
            self._set(self.fast, kept)

    def state_dict(self):
        return {"updates": self.updates, "slow": self.slow}

    def load_state_dict(self, state):
        self.updates = state["updates"]
        self._set(self.slow, state["slow"])

    @staticmethod
    @torch.no_grad()
    def _set(weights, values):
        for name, w in weights.items():
            w.copy_(values[name])
