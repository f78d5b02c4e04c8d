"""Checks of the exercises of notebook 02, batch norm and its relatives."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from grading.expect import expect, require, several

BATCHES = [  # shapes of x, eps or None where it is absent, and dtypes
    ((6, 3), 0.5, "float64"),
    ((5, 4), 0.5, "float32"),
    ((4, 2), None, "float64"),
    ((1, 2), 0.5, "float64"),
    ((3, 1), 0.5, "float64"),
]
IMAGES = [((2, 3, 4, 5), 0.5, "float64"), ((3, 2, 2, 3), None, "float32"), ((1, 4, 3, 2), 0.5, "float64")]
GROUPS = [  # as above, and the number of groups
    (((2, 6, 3, 2), 0.5, "float64"), 2),
    (((2, 6, 2, 1), 0.5, "float64"), 3),
    (((3, 3, 2, 4), None, "float32"), 1),
    (((1, 4, 2, 3), 0.5, "float64"), 4),
]
AVERAGES = ["running_mean", "running_var"]
TOLERANCE = {"float64": 1e-6, "float32": 1e-4}


@dataclass(frozen=True)
class Case:
    """What a norm is given, and what is right: by PyTorch, and by autograd.

    norm: out of x, gamma, beta and eps.  average: the mean over what is standardized together, which broadcasts with x.
    statistics: the mean and the variance that take the place of x's own in test mode.
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
        mode = ", test mode, where mu and var are constants" if self.statistics else ""
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
        """A layer's dict."""
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
        """How many numbers of x a mean is over."""
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
            "eps stands under the root": centred / (var.sqrt() + eps) + beta,
            "eps is missing, or not the one given": centred / var.sqrt() + beta,
            "eps is not the one given": centred / (var + 1e-5).sqrt() + beta,
            "mu is not subtracted": (centred + gamma * mu) / (var + eps).sqrt() + beta,
        }

    def mistakes_of_grads(self):
        """Those of dx, dgamma and dbeta."""
        (_, var), (gamma, _), eps = self.moments, self.scales, self.eps
        out, (dx, dgamma, dbeta) = self.out_and_grads
        without_gamma = replace(self, gamma=torch.ones_like(self.gamma)).out_and_grads[1][0]
        of_dx = {
            "gamma is missing": without_gamma,
            "gamma differs from term to term, and has to stay in the means": without_gamma * gamma,
            "gamma comes in once, not twice": dx * gamma,
            "the 1 / std is missing": dx * (var + eps).sqrt(),
            "1 / std comes in once, not twice": dx / (var + eps).sqrt(),
        }
        if not self.statistics:
            direct = self.dout * gamma / (var + eps).sqrt()
            by_mu = -self.average(direct)
            by_var, more = dx - direct - by_mu, self.terms - 1
            of_dx |= {
                "mu and var depend on x too": direct,
                "the way through mu is missing": dx - by_mu,
                "the way through var is missing": dx - by_var,
                "mu is a mean: what comes through it is divided by the number of its terms": dx + more * by_mu,
                "var is a mean: what comes through it is divided by the number of its terms": dx + more * by_var,
                "the 2 of the square is missing": dx - by_var / 2,
                "the way through mu has the wrong sign": dx - 2 * by_mu,
                "the way through var has the wrong sign": dx - 2 * by_var,
                "the whole has to be divided by N": dx * self.terms,
                "dx is divided by N once too often": dx / self.terms,
            }
        share = dbeta.numel() / dx.numel()
        others = [axis for axis in range(dx.ndim) if axis != 1]
        mean = "gradients are sums over the batch, not means"
        of_dgamma = {
            "dout is multiplied by xhat first": dbeta,
            "dout is multiplied by xhat, not by x": (self.dout * self.x).sum(others).reshape(dgamma.shape),
            "dout is multiplied by xhat, not by out": (self.dout * out).sum(others).reshape(dgamma.shape),
            mean: dgamma * share,
        }
        return of_dx, of_dgamma, {mean: dbeta * share, "dgamma and dbeta are swapped": dgamma}


def _case(rng, drawn, norm, average, statistics=(), scale_shape=None):
    """A `Case`.  drawn: a shape of x, eps and dtype.  scale_shape: that of gamma and beta."""
    shape, eps, dtype = drawn
    x = (3 + 2 * rng.standard_normal(shape)) * _size(eps)
    gamma = rng.uniform(0.5, 2, shape[1]) * rng.choice([-1, 1], shape[1])
    gamma, beta = (array.reshape(scale_shape or shape[1]) for array in (gamma, rng.standard_normal(shape[1])))
    arrays = x, gamma, beta, rng.standard_normal(shape)
    return Case(*(torch.tensor(array.astype(dtype)) for array in arrays), eps, norm, average, statistics)


def _size(eps):
    """Of x: where eps is absent, x is so small that 1e-5 shows."""
    return 0.003 if eps is None else 1


def _check_out(solution, forward, case, *others, mistakes=None, words=""):
    """Check the out of a function of batchnorm.py."""
    got = getattr(solution.batchnorm, forward)(*case.arguments, *others)
    out, _ = several(forward, got, "out, cache")
    mistakes = (mistakes or {}) | case.mistakes_of_out()
    expect("out", out, case.out_and_grads[0], mistakes, f"{case}{words}", TOLERANCE[case.dtype])


def _check_large_mean(solution, forward, case, *others):
    words = ", x around 1e7: mu has to be subtracted before anything is squared"
    _check_out(solution, forward, replace(case, x=case.x + 1e7), *others, words=words)


def _check_grads(solution, forward, backward, case, *others):
    """Check dx, dgamma and dbeta, twice: a backward pass leaves the cache as it is."""
    _, cache = several(forward, getattr(solution.batchnorm, forward)(*case.arguments, *others), "out, cache")
    for words in (str(case), f"{case}, and the cache used a second time"):
        grads = several(backward, getattr(solution.batchnorm, backward)(case.dout.numpy(), cache), "dx, dgamma, dbeta")
        rows = zip(("dx", "dgamma", "dbeta"), grads, case.out_and_grads[1], case.mistakes_of_grads(), strict=True)
        for what, got, wanted, mistakes in rows:
            expect(what, got, wanted, mistakes, words, TOLERANCE[case.dtype])


# Batch norm.


def _batch_case(rng, drawn, test=False):
    """A case of batch norm, of rows or of images."""
    (_, D, *image), eps, dtype = drawn
    axes, statistics = [0, *range(2, 2 + len(image))], ()
    if test:
        arrays = rng.standard_normal(D) * _size(eps), rng.uniform(0.5, 2, D) * _size(eps) ** 2
        statistics = tuple(torch.tensor(array.astype(dtype)).reshape(-1, *[1] * len(image)) for array in arrays)
    return _case(rng, drawn, _batch_norm(statistics), lambda a: a.mean(axes, keepdim=True), statistics)


def _batch_norm(statistics=()):
    """Batch norm by PyTorch, in test mode with statistics."""
    averages = [tensor.flatten() for tensor in statistics] or [None, None]
    return lambda x, gamma, beta, eps: torch.batch_norm(x, gamma, beta, *averages, not statistics, 0.0, eps, False)


def _bn_param(case):
    averages = {name: tensor.flatten().numpy() for name, tensor in zip(AVERAGES, case.statistics, strict=False)}
    return case.param(mode="test" if averages else "train", **averages)


def batchnorm_training(solution):
    rng = solution.rng
    for drawn in BATCHES:
        case = _batch_case(rng, drawn)
        by_example = F.layer_norm(case.x, case.x.shape[1:], case.gamma, case.beta, case.eps)
        mistakes = {"mu and var are those of each feature, over the batch": by_example}
        _check_out(solution, "batchnorm_forward", case, _bn_param(case), mistakes=mistakes)
    case, earlier = _batch_case(rng, BATCHES[0]), _batch_case(rng, BATCHES[0], test=True)
    by_averages = earlier.norm(case.x, case.gamma, case.beta, case.eps)
    mistakes = {"in train mode mu and var are the batch's own, not the running averages": by_averages}
    bn_param = _bn_param(earlier) | {"mode": "train"}
    _check_out(solution, "batchnorm_forward", case, bn_param, mistakes=mistakes, words=", and running averages")
    _check_large_mean(solution, "batchnorm_forward", case, _bn_param(case))


def batchnorm_running(solution):
    rng, D = solution.rng, 3
    start = dict(zip(AVERAGES, (rng.standard_normal(D), rng.uniform(1, 2, D)), strict=True))
    for momentum, averages in ((None, {}), (0.75, {}), (0.3, start)):
        bn_param = {"mode": "train", **averages, **({} if momentum is None else {"momentum": momentum})}
        wanted = averages or dict.fromkeys(AVERAGES, np.zeros(D))
        for step in ("first", "second"):
            x = 3 + 2 * rng.standard_normal((5, D))
            solution.batchnorm.batchnorm_forward(x, np.ones(D), np.zeros(D), bn_param)
            case = f"momentum {momentum or 'absent'}, the {step} batch"
            for name, batch in zip(AVERAGES, (x.mean(0), x.var(0)), strict=True):
                right, mistakes = _moved(wanted[name], batch, momentum or 0.9, len(x))
                expect(f"bn_param[{name!r}]", bn_param.get(name), right, mistakes, case)
                wanted = wanted | {name: right}
    _check_float32_stays(solution)


def _moved(old, batch, momentum, N):
    """A running average after a batch of N, and what mistakes make of it."""
    root, unbiased = np.sqrt(abs(batch)), batch * N / (N - 1)
    return batch + momentum * (old - batch), {
        "it has not been updated": old,
        "momentum is the share of the old average that stays": old + momentum * (batch - old),
        "momentum is the one in bn_param": batch + 0.9 * (old - batch),
        "the variance divides by N, not by N - 1": unbiased + momentum * (old - unbiased),
        "each batch comes in times 1 - momentum, the first one too": momentum * old + batch,
        "an average that is absent stands at 0, the variance too": batch + momentum * (1 - batch),
        "the variance is averaged, not its root": root + momentum * (old - root),
    }


def _check_float32_stays(solution):
    """Running averages may be float64, if that does not reach an out of float32 in test mode."""
    arguments, bn_param = _batch_case(solution.rng, BATCHES[1]).arguments, {"mode": "train"}
    solution.batchnorm.batchnorm_forward(*arguments, bn_param)
    if {bn_param[name].dtype.name for name in AVERAGES} != {"float32"}:
        got = solution.batchnorm.batchnorm_forward(*arguments, bn_param | {"mode": "test"})
        out, _ = several("batchnorm_forward", got, "out, cache")
        words = "the running averages are float64 for x of float32, so that out is float64 in test mode"
        require(out.dtype == np.float32, words)


def batchnorm_test(solution):
    for drawn in BATCHES:
        case = _batch_case(solution.rng, drawn, test=True)
        own = _batch_norm()(case.x, case.gamma, case.beta, case.eps)
        mistakes = {"in test mode mu and var are the running averages, not the batch's": own}
        bn_param = _bn_param(case)
        _check_out(solution, "batchnorm_forward", case, bn_param, mistakes=mistakes)
        for name in AVERAGES:
            expect(f"bn_param[{name!r}] after a batch in test mode", bn_param.get(name), _bn_param(case)[name])


def batchnorm_graph(solution):
    _check_batch_grads(solution, "batchnorm_backward")


def batchnorm_graph_test_mode(solution):
    _check_batch_grads(solution, "batchnorm_backward", test=True)


def batchnorm_closed_form(solution):
    _check_batch_grads(solution, "batchnorm_backward_alt")


def batchnorm_closed_form_test_mode(solution):
    _check_batch_grads(solution, "batchnorm_backward_alt", test=True)


def _check_batch_grads(solution, backward, test=False):
    for drawn in BATCHES:
        case = _batch_case(solution.rng, drawn, test)
        _check_grads(solution, "batchnorm_forward", backward, case, _bn_param(case))


# Affine, batch norm and ReLU in a row.

ROWS = [((5, 2, 3), 4), ((4, 3), 2), ((3, 2), 5)]  # shapes of x, and M


@dataclass(frozen=True)
class Row:
    """The arguments of the row: arrays x, w, b, gamma and beta; a case of its batch norm; and dout."""

    arrays: list
    norm: Case

    def __str__(self):
        return f"x {self.arrays[0].shape}, w {self.arrays[1].shape}, {_bn_param(self.norm)['mode']} mode"

    @cached_property
    def inputs(self):
        return [torch.tensor(array).requires_grad_() for array in self.arrays]

    @property
    def a(self):
        x, w, b, *_ = self.inputs
        return F.linear(x.flatten(1), w.T, b)

    def normed(self, a):
        return self.norm.norm(a, *self.inputs[3:], self.norm.eps)

    def grads(self, out):
        return torch.autograd.grad(out, self.inputs, self.norm.dout, retain_graph=True)


def _rows(rng):
    """The cases of the row, in both modes."""
    for shape, M in ROWS:
        for test in (False, True):
            norm = _batch_case(rng, ((shape[0], M), 0.3, "float64"), test)
            x, w, b = (rng.standard_normal(size) for size in (shape, (int(np.prod(shape[1:])), M), M))
            yield Row([x, w, b, norm.gamma.numpy(), norm.beta.numpy()], norm)


def affine_bn_relu_forward(solution):
    for row in _rows(solution.rng):
        bn_param = _bn_param(row.norm)
        got = solution.layer_utils.affine_bn_relu_forward(*row.arrays, bn_param)
        out, _ = several("affine_bn_relu_forward", got, "out, cache")
        mistakes = {
            "ReLU is missing": row.normed(row.a),
            "batch norm is missing": row.a.relu(),
            "batch norm comes before ReLU": row.normed(row.a.relu()),
        }
        expect("out", out, row.normed(row.a).relu(), mistakes, str(row))
        _check_bn_param(bn_param, row.norm, row.a)


def _check_bn_param(bn_param, case, x):
    """Check that batch norm of x has got the bn_param that came in, and not a copy."""
    mean = _bn_param(case).get("running_mean", 0.1 * case.average(x).flatten())
    hint = "bn_param holds no running_mean: batch norm shall write to the dict that came in, not to a copy"
    require("running_mean" in bn_param, hint)
    expect("bn_param['running_mean']", bn_param["running_mean"], mean, case=str(case), tol=TOLERANCE[case.dtype])


def affine_bn_relu_backward(solution):
    forward, backward = solution.layer_utils.affine_bn_relu_forward, solution.layer_utils.affine_bn_relu_backward
    names = "dx, dw, db, dgamma, dbeta"
    for row in _rows(solution.rng):
        _, cache = several("affine_bn_relu_forward", forward(*row.arrays, _bn_param(row.norm)), "out, cache")
        dout, out = row.norm.dout.numpy(), row.normed(row.a)
        for need_dx in (True, False):
            grads = several("affine_bn_relu_backward", backward(dout, cache, need_dx), names)
            require(need_dx or grads[0] is None, "dx: expected None with need_dx=False")
            compared = list(zip(names.split(", "), grads, row.grads(out.relu()), row.grads(out), strict=True))
            for name, got, wanted, linear in compared if need_dx else compared[1:]:
                expect(name, got, wanted, {"the way back begins at ReLU": linear}, f"{row}, need_dx={need_dx}")


# Layer norm.


def _layer_case(rng, drawn):
    def norm(x, gamma, beta, eps):
        return F.layer_norm(x, x.shape[1:], gamma, beta, eps)

    return _case(rng, drawn, norm, lambda a: a.mean(1, keepdim=True))


def layernorm_forward(solution):
    for drawn in BATCHES:
        for mode in ({}, {"mode": "test"}):
            case = _layer_case(solution.rng, drawn)
            batch = _batch_norm()(case.x, case.gamma, case.beta, case.eps)
            mistakes = {"mu and var are those of each example, over its features": batch}
            _check_out(solution, "layernorm_forward", case, case.param(**mode), mistakes=mistakes)
    case = _layer_case(solution.rng, BATCHES[0])
    _check_large_mean(solution, "layernorm_forward", case, case.param())


def layernorm_backward(solution):
    for drawn in BATCHES:
        case = _layer_case(solution.rng, drawn)
        _check_grads(solution, "layernorm_forward", "layernorm_backward", case, case.param())


# Images.


def spatial_batchnorm_forward(solution):
    for drawn in IMAGES:
        for test in (False, True):
            case = _batch_case(solution.rng, drawn, test)
            rows, bn_param = case.x.reshape(-1, case.x.shape[1]), _bn_param(case)
            mixed = case.norm(rows, case.gamma, case.beta, case.eps).reshape(case.x.shape)
            mistakes = {"a reshape is not a transpose: the channels have to go to the end first": mixed}
            _check_out(solution, "spatial_batchnorm_forward", case, bn_param, mistakes=mistakes)
            _check_bn_param(bn_param, case, case.x)


def spatial_batchnorm_backward(solution):
    for drawn in IMAGES:
        for test in (False, True):
            case = _batch_case(solution.rng, drawn, test)
            _check_grads(solution, "spatial_batchnorm_forward", "spatial_batchnorm_backward", case, _bn_param(case))


def _group_cases(rng):
    """Pairs of a case and G, with gamma and beta in both shapes."""
    for drawn, G in GROUPS:
        for scale_shape in (None, (1, drawn[0][1], 1, 1)):
            yield _group_case(rng, drawn, G, scale_shape), G


def _group_case(rng, drawn, G, scale_shape=None):
    N, C, *_ = drawn[0]

    def norm(x, gamma, beta, eps):
        return F.group_norm(x, G, gamma.flatten(), beta.flatten(), eps)

    def average(a):
        return a.reshape(N, G, -1).mean(2).repeat_interleave(C // G, 1)[..., None, None]

    return _case(rng, drawn, norm, average, scale_shape=scale_shape)


def groupnorm_forward(solution):
    for case, G in _group_cases(solution.rng):
        (gamma, beta), C = case.scales, case.x.shape[1]
        order = torch.arange(C).reshape(-1, G).T.flatten()  # of channels, so that those of a wrong group are neighbours
        by_channel, of_all, of_each = (F.group_norm(case.x, n, eps=case.eps) * gamma + beta for n in (C // G, 1, C))
        strided = F.group_norm(case.x[:, order], G, eps=case.eps)[:, order.argsort()] * gamma + beta
        mistakes = {
            "the channels of a group are neighbours": strided,
            "G is the number of groups, not of the channels in one": by_channel,
            "mu and var are those of a group, not of all channels": of_all,
            "mu and var are those of a group, not of a channel": of_each,
        }
        param = case.param(mode="test")
        _check_out(solution, "spatial_groupnorm_forward", case, G, param, mistakes=mistakes, words=f", G = {G}")
    case = _group_case(solution.rng, *GROUPS[0])
    _check_large_mean(solution, "spatial_groupnorm_forward", case, GROUPS[0][1], case.param())


def groupnorm_backward(solution):
    for case, G in _group_cases(solution.rng):
        _check_grads(solution, "spatial_groupnorm_forward", "spatial_groupnorm_backward", case, G, case.param())
