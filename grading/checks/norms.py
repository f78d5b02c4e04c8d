"""Cases for the checks of norms: what a norm is given, what is right, and what known mistakes would give."""

from dataclasses import dataclass, replace
from functools import cached_property

from grading.checks.common import TOLERANCE, forward
from grading.expect import expect, several
from grading.oracle import torch

BATCHES = [  # shapes of x, eps or None where it is absent, and dtypes
    ((6, 3), 0.5, "float64"),
    ((5, 4), 0.5, "float32"),
    ((4, 2), None, "float64"),
    ((1, 2), 0.5, "float64"),
    ((3, 1), 0.5, "float64"),
]
LARGE_BATCH = (500, 400), 0.5, "float64"
LARGE_IMAGES = (20, 16, 25, 25), 0.5, "float64"


@dataclass(frozen=True)
class Case:
    """The input of a norm, and the expected output and gradients, by PyTorch.  All tensors have the dtype of x.

    norm: out of x, gamma, beta and eps.  average: the mean over what is standardized together, which broadcasts with x.
    statistics: the mean and the variance that replace those of x in test mode.
    """

    x: torch.Tensor
    gamma: torch.Tensor
    beta: torch.Tensor
    dout: torch.Tensor
    given_eps: float | None
    norm: object
    average: object
    statistics: tuple = ()

    def __str__(self):
        eps = "" if self.given_eps is None else f", eps={self.given_eps}"
        mode = ", test mode" if self.statistics else ""
        return f"x {tuple(self.x.shape)} of {self.dtype}, gamma {tuple(self.gamma.shape)}{eps}{mode}"

    @property
    def eps(self):
        return 1e-5 if self.given_eps is None else self.given_eps

    @property
    def dtype(self):
        return str(self.x.dtype).removeprefix("torch.")

    @property
    def arguments(self):
        """x, gamma and beta, as a layer takes them."""
        return self.x.numpy(), self.gamma.numpy(), self.beta.numpy()

    def param(self, **others):
        """The dict that a layer takes."""
        return others if self.given_eps is None else {"eps": self.given_eps, **others}

    @cached_property
    def out_and_grads(self):
        inputs = [tensor.clone().requires_grad_() for tensor in (self.x, self.gamma, self.beta)]
        out = self.norm(*inputs, self.eps)
        return out.detach(), torch.autograd.grad(out, inputs, self.dout)

    @cached_property
    def moments(self):
        """mu and var, which broadcast with x."""
        mu = self.average(self.x)
        return self.statistics or (mu, self.average((self.x - mu).square()))

    @property
    def terms(self):
        """How many entries of x a mean is over."""
        one = torch.zeros_like(self.x)
        one.view(-1)[0] = 1
        return round(1 / self.average(one).max().item())

    @property
    def scales(self):
        """gamma and beta as they broadcast with x."""
        return [tensor.reshape(-1, *[1] * (self.x.ndim - 2)) for tensor in (self.gamma, self.beta)]

    def mistakes_of_out(self):
        (mu, var), (gamma, beta), eps = self.moments, self.scales, self.eps
        scaled = self.out_and_grads[0] - beta
        standardized, centred = scaled / gamma, scaled * (var + eps).sqrt()
        unbiased = var * self.terms / max(self.terms - 1, 1)
        return {
            "gamma is missing": standardized + beta,
            "beta is missing": scaled,
            "gamma and beta are missing": standardized,
            "var divides by the number of its terms, not by one less": centred / (unbiased + eps).sqrt() + beta,
            "x - mu is divided by the root of var + eps": centred / (var + eps) + beta,
            "eps belongs under the root": centred / (var.sqrt() + eps) + beta,
            "eps is missing, or not the one given": centred / var.sqrt() + beta,
            "eps is not the one given": centred / (var + 1e-5).sqrt() + beta,
            "mu is not subtracted": (centred + gamma * mu) / (var + eps).sqrt() + beta,
        }

    def mistakes_of_grads(self):
        """What known mistakes would give for dx, dgamma and dbeta."""
        (_, var), (gamma, _), eps = self.moments, self.scales, self.eps
        out, (dx, dgamma, dbeta) = self.out_and_grads
        without_gamma = replace(self, gamma=torch.ones_like(self.gamma)).out_and_grads[1][0]
        of_dx = {
            "gamma is missing": without_gamma,
            "gamma differs from term to term, and has to stay in the means": without_gamma * gamma,
            "gamma is a factor once, not twice": dx * gamma,
            "the 1 / std is missing": dx * (var + eps).sqrt(),
            "1 / std is a factor once, not twice": dx / (var + eps).sqrt(),
        }
        if not self.statistics:
            direct = self.dout * gamma / (var + eps).sqrt()
            by_mu = -self.average(direct)
            by_var, more = dx - direct - by_mu, self.terms - 1
            of_dx |= {
                "mu and var depend on x too": direct,
                "the path through mu is missing": dx - by_mu,
                "the path through var is missing": dx - by_var,
                "mu is a mean: its gradient is divided by the number of its terms": dx + more * by_mu,
                "var is a mean: its gradient is divided by the number of its terms": dx + more * by_var,
                "mu collects a sum of gradients, not their mean": dx - by_mu * more / self.terms,
                "var collects a sum of gradients, not their mean": dx - by_var * more / self.terms,
                "two means are subtracted, not two sums": dx + more * (by_mu + by_var),
                "the 2 of the square is missing": dx - by_var / 2,
                "the path through mu has the wrong sign": dx - 2 * by_mu,
                "the path through var has the wrong sign": dx - 2 * by_var,
                "dx has to be divided by N": dx * self.terms,
                "dx is divided by N twice": dx / self.terms,
            }
        share = dbeta.numel() / dx.numel()
        others = [axis for axis in range(dx.ndim) if axis != 1]
        mean = "gradients are sums over the batch, not means"
        shapes = "dgamma and dbeta have the shapes of gamma and beta"

        def reshaped(grad):
            return grad.reshape(1, -1, 1, 1) if grad.ndim == 1 else grad.flatten()

        of_dgamma = {
            "dout is multiplied by xhat first": dbeta,
            "dout is multiplied by xhat, not by x": (self.dout * self.x).sum(others).reshape(dgamma.shape),
            "dout is multiplied by xhat, not by out": (self.dout * out).sum(others).reshape(dgamma.shape),
            mean: dgamma * share,
            shapes: reshaped(dgamma),
        }
        of_dbeta = {mean: dbeta * share, "dgamma and dbeta are swapped": dgamma, shapes: reshaped(dbeta)}
        return of_dx, of_dgamma, of_dbeta


def draw_case(rng, drawn, norm, average, statistics=(), scale_shape=None):
    """A `Case`.  drawn: a shape of x, eps and dtype.  scale_shape: that of gamma and beta."""
    shape, eps, dtype = drawn
    x = (3 + 2 * rng.standard_normal(shape)) * size_of_x(eps)
    gamma = rng.uniform(0.5, 2, shape[1]) * rng.choice([-1, 1], shape[1])
    gamma, beta = (array.reshape(scale_shape or shape[1]) for array in (gamma, rng.standard_normal(shape[1])))
    arrays = x, gamma, beta, rng.standard_normal(shape)
    return Case(*(torch.tensor(array.astype(dtype)) for array in arrays), eps, norm, average, statistics)


def size_of_x(eps):
    """The scale of x: without an eps, so small that the default of 1e-5 matters."""
    return 0.003 if eps is None else 1


def batch_norm(statistics=()):
    """Batch norm by PyTorch, in test mode with statistics."""
    averages = [tensor.flatten() for tensor in statistics] or [None, None]
    return lambda x, gamma, beta, eps: torch.batch_norm(x, gamma, beta, *averages, not statistics, 0.0, eps, False)


def check_out(learner, layer, case, *others, mistakes=None, words="", otherwise=""):
    """Check the out of a function of batchnorm.py."""
    out, _ = forward(getattr(learner.batchnorm, layer), *case.arguments, *others)
    mistakes = (mistakes or {}) | case.mistakes_of_out()
    expect("out", out, case.out_and_grads[0], mistakes, f"{case}{words}", TOLERANCE[case.dtype], otherwise)


def check_large_mean(learner, layer, case, *others):
    squared = "mu has to be subtracted before anything is squared"
    check_out(learner, layer, replace(case, x=case.x + 1e7), *others, words=", x around 1e7", otherwise=squared)


def check_backward(learner, layer, backward, case, *others, mistakes=None):
    """Check dx, dgamma and dbeta; of a small case twice, since a backward pass must not change the cache.

    mistakes: further ones of dx.
    """
    _, cache = forward(getattr(learner.batchnorm, layer), *case.arguments, *others)
    small = case.x.numel() < 1000
    of_dx, *of_others = case.mistakes_of_grads() if small else ({}, {}, {})
    known = of_dx | (mistakes or {}), *of_others
    first = "in test mode mu and var are constants" if case.statistics else ""
    second = "backward writes to an array in the cache: work on new ones"
    runs = (str(case), first), (f"{case}, and the cache used a second time", second)
    for words, otherwise in runs[: 1 + small]:
        grads = several(backward, getattr(learner.batchnorm, backward)(case.dout.numpy(), cache), "dx, dgamma, dbeta")
        rows = zip(("dx", "dgamma", "dbeta"), grads, case.out_and_grads[1], known, strict=True)
        for what, got, wanted, likely in rows:
            expect(what, got, wanted, likely, words, TOLERANCE[case.dtype], otherwise)
