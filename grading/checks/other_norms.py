"""Checks of exercises 2.5 and 2.7: layer norm and group norm."""

from grading.checks.derivations import check_norm_steps
from grading.checks.norms import (
    BATCHES,
    LARGE_BATCH,
    LARGE_IMAGES,
    batch_norm,
    check_backward,
    check_large_mean,
    check_out,
    draw_case,
)
from grading.oracle import F, torch

GROUPS = [  # shape of x, eps or None, dtype; and the number of groups
    (((2, 6, 3, 2), 0.5, "float64"), 2),
    (((2, 6, 2, 1), 0.5, "float64"), 3),
    (((3, 3, 2, 4), None, "float32"), 1),
    (((1, 4, 2, 3), 0.5, "float64"), 4),
]


def _layer_case(rng, drawn):
    def norm(x, gamma, beta, eps):
        return F.layer_norm(x, x.shape[1:], gamma, beta, eps)

    return draw_case(rng, drawn, norm, lambda a: a.mean(1, keepdim=True))


def layernorm_steps(learner):
    check_norm_steps(learner.derivations.layernorm_steps, learner.rng, lambda a: a.mean(1, keepdim=True))


def layernorm_forward(learner):
    for drawn in BATCHES:
        for mode in ({}, {"mode": "test"}):
            case = _layer_case(learner.rng, drawn)
            batch = batch_norm()(case.x, case.gamma, case.beta, case.eps)
            mistakes = {"mu and var are those of each example, over its features": batch}
            words, same = (", mode='test'", "layer norm is the same in both modes") if mode else ("", "")
            check_out(
                learner, "layernorm_forward", case, case.param(**mode), mistakes=mistakes, words=words, otherwise=same
            )
    case = _layer_case(learner.rng, BATCHES[0])
    check_large_mean(learner, "layernorm_forward", case, case.param())


def layernorm_backward(learner):
    for drawn in (*BATCHES, LARGE_BATCH):
        case = _layer_case(learner.rng, drawn)
        mistakes = _means_over_the_batch(case)
        check_backward(learner, "layernorm_forward", "layernorm_backward", case, case.param(), mistakes=mistakes)


def _means_over_the_batch(case, G=1):
    """What dx would be if the means of its closed form were taken over the other axis of the rows (N * G, ...)."""
    (gamma, _), (_, var), rows = case.scales, case.moments, (len(case.x) * G, -1)
    xhat, dxhat = (a.reshape(rows) for a in (F.group_norm(case.x, G, eps=case.eps), case.dout * gamma))
    dx = (dxhat - dxhat.mean(0) - xhat * (dxhat * xhat).mean(0)).reshape(case.x.shape) / (var + case.eps).sqrt()
    return {"the means of dx run over the entries that share one mu": dx}


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

    return draw_case(rng, drawn, norm, average, scale_shape=scale_shape)


def groupnorm_forward(learner):
    for case, G in _group_cases(learner.rng):
        (gamma, beta), C = case.scales, case.x.shape[1]
        order = torch.arange(C).reshape(-1, G).T.flatten()  # of channels, so that those of a wrong group are neighbours
        by_channel, of_all, of_each = (F.group_norm(case.x, n, eps=case.eps) * gamma + beta for n in (C // G, 1, C))
        strided = F.group_norm(case.x[:, order], G, eps=case.eps)[:, order.argsort()] * gamma + beta
        rows = case.x.reshape(len(case.x) * G, -1)
        by_place = ((rows - rows.mean(0)) / (rows.var(0, correction=0) + case.eps).sqrt()).reshape(case.x.shape)
        mistakes = {
            "mu and var are those of one group, not of one place in all groups": by_place * gamma + beta,
            "the channels of a group are neighbours": strided,
            "G is the number of groups, not of the channels in one": by_channel,
            "mu and var are those of a group, not of all channels": of_all,
            "mu and var are those of a group, not of a channel": of_each,
        }
        if case.gamma.ndim > 1:
            mistakes["gamma and beta of shape (1, C, 1, 1) have their axes already"] = case.out_and_grads[0][None, None]
        param = case.param(mode="test")
        check_out(learner, "spatial_groupnorm_forward", case, G, param, mistakes=mistakes, words=f", G = {G}")
    case = _group_case(learner.rng, *GROUPS[0])
    check_large_mean(learner, "spatial_groupnorm_forward", case, GROUPS[0][1], case.param())


def groupnorm_backward(learner):
    large = _group_case(learner.rng, LARGE_IMAGES, 4), 4
    for case, G in (*_group_cases(learner.rng), large):
        arguments, mistakes = (case, G, case.param()), _means_over_the_batch(case, G)
        check_backward(
            learner, "spatial_groupnorm_forward", "spatial_groupnorm_backward", *arguments, mistakes=mistakes
        )
