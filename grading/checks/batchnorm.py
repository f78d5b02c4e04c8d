"""Checks of exercises 2.1 to 2.4 and 2.6: batch norm of rows and of images, in a net, and folded into a layer."""

from functools import partial

import numpy as np

from grading.checks.common import TOLERANCE, draw, draw_tensor, forward
from grading.checks.derivations import STEP_ROWS, check_norm_steps, check_steps, draw_rows
from grading.checks.nets import check_grads_of_net, draw_net, leaves, torch_net
from grading.checks.norms import (
    BATCHES,
    LARGE_BATCH,
    LARGE_IMAGES,
    batch_norm,
    check_backward,
    check_large_mean,
    check_out,
    draw_case,
    size_of_x,
)
from grading.expect import expect, fitting, require, small_faults
from grading.oracle import F, torch
from grading.session import Passed

IMAGES = [((2, 3, 4, 5), 0.5, "float64"), ((3, 2, 2, 3), None, "float32"), ((1, 4, 3, 2), 0.5, "float64")]
AVERAGES = ["running_mean", "running_var"]
LARGE_TEST_BATCH = (1000, 400), 0.5, "float32"  # in test mode out is linear in x, and large steps lose no digits


def _batch_case(rng, drawn, test=False):
    """A case of batch norm, of rows or of images."""
    (_, D, *image), eps, dtype = drawn
    axes, statistics = [0, *range(2, 2 + len(image))], ()
    if test:
        arrays = rng.standard_normal(D) * size_of_x(eps), rng.uniform(0.5, 2, D) * size_of_x(eps) ** 2
        statistics = tuple(torch.tensor(array.astype(dtype)).reshape(-1, *[1] * len(image)) for array in arrays)
    return draw_case(rng, drawn, batch_norm(statistics), lambda a: a.mean(axes, keepdim=True), statistics)


def _bn_param(case):
    averages = {name: tensor.flatten().numpy() for name, tensor in zip(AVERAGES, case.statistics, strict=False)}
    return Passed(case.param(mode="test" if averages else "train", **averages))


def _left(bn_param, name):
    """An average that a layer has left in a `Passed` dict."""
    mistake = "batch norm must write to the dict that was passed, not to a copy"
    require(name in bn_param.after, f"bn_param holds no {name} afterwards", mistake)
    return bn_param.after[name]


def batchnorm_training(learner):
    rng = learner.rng
    for drawn in BATCHES:
        case = _batch_case(rng, drawn)
        by_example = F.layer_norm(case.x, case.x.shape[1:], case.gamma, case.beta, case.eps)
        mistakes = {"mu and var are those of each feature, over the batch": by_example}
        check_out(learner, "batchnorm_forward", case, _bn_param(case), mistakes=mistakes)
    case, earlier = _batch_case(rng, BATCHES[0]), _batch_case(rng, BATCHES[0], test=True)
    by_averages = earlier.norm(case.x, case.gamma, case.beta, case.eps)
    mistakes = {"in train mode mu and var are the batch's own, not the running averages": by_averages}
    bn_param = _bn_param(earlier) | {"mode": "train"}
    check_out(learner, "batchnorm_forward", case, bn_param, mistakes=mistakes, words=", and running averages")
    check_large_mean(learner, "batchnorm_forward", case, _bn_param(case))


def batchnorm_running(learner):
    rng, D = learner.rng, 3
    start = dict(zip(AVERAGES, (rng.standard_normal(D), rng.uniform(1, 2, D)), strict=True))
    for momentum, averages in ((None, {}), (0.75, {}), (0.3, start)):
        wanted = averages or dict.fromkeys(AVERAGES, np.zeros(D))
        for step in ("first", "second"):
            x = 3 + 2 * rng.standard_normal((5, D))
            given = wanted if averages or step == "second" else {}
            bn_param = Passed({"mode": "train", **given, **({} if momentum is None else {"momentum": momentum})})
            forward(learner.batchnorm.batchnorm_forward, x, np.ones(D), np.zeros(D), bn_param)
            case = f"momentum {momentum or 'absent'}, the {step} batch"
            for name, batch in zip(AVERAGES, (x.mean(0), x.var(0)), strict=True):
                right, mistakes = _moved(wanted[name], batch, momentum or 0.9, len(x))
                expect(f"bn_param[{name!r}]", _left(bn_param, name), right, mistakes, case)
                wanted = wanted | {name: right}
    _check_float32_stays(learner)


def _moved(old, batch, momentum, N):
    """A running average after a batch of N examples, and what known mistakes would make of it."""
    root, unbiased = np.sqrt(abs(batch)), batch * N / (N - 1)
    return batch + momentum * (old - batch), {
        "it has not been updated": old,
        "momentum is the weight of the old average": old + momentum * (batch - old),
        "momentum is read from bn_param": batch + 0.9 * (old - batch),
        "the variance divides by N, not by N - 1": unbiased + momentum * (old - unbiased),
        "each batch is weighted by 1 - momentum, the first one too": momentum * old + batch,
        "an absent average starts at 0, that of the variance too": batch + momentum * (1 - batch),
        "the variance is averaged, not its root": root + momentum * (old - root),
    }


def _check_float32_stays(learner):
    """Check that float32 input gives float32 output in test mode, even if the running averages are float64."""
    case, bn_param = _batch_case(learner.rng, BATCHES[1]), Passed(mode="train")
    forward(learner.batchnorm.batchnorm_forward, *case.arguments, bn_param)
    with small_faults() as other_dtypes:
        for name in AVERAGES:
            fitting(f"bn_param[{name!r}]", _left(bn_param, name), case.gamma.shape, "float32")
    if other_dtypes:
        shape = BATCHES[1][0]
        test = dict.fromkeys(AVERAGES, np.ones(shape[1]))
        out, _ = forward(learner.batchnorm.batchnorm_forward, *case.arguments, {"mode": "test", **test})
        words = "test mode, where the running averages are float64 after x of float32"
        fitting("out", out, shape, "float32", words)


def batchnorm_test(learner):
    for drawn in BATCHES:
        case = _batch_case(learner.rng, drawn, test=True)
        own = batch_norm()(case.x, case.gamma, case.beta, case.eps)
        mistakes = {"in test mode mu and var are the running averages, not the batch's": own}
        bn_param = _bn_param(case)
        check_out(learner, "batchnorm_forward", case, bn_param, mistakes=mistakes)
        for name in AVERAGES:
            left = _left(bn_param, name)
            kept = "test mode leaves the running averages as they are"
            expect(f"bn_param[{name!r}]", left, bn_param[name], case="after a batch in test mode", otherwise=kept)


def batchnorm_steps(learner):
    check_norm_steps(learner.derivations.batchnorm_steps, learner.rng, lambda a: a.mean(0))


def batchnorm_graph(learner):
    _check_batch_grads(learner, "batchnorm_backward")


def batchnorm_graph_test_mode(learner):
    _check_batch_grads(learner, "batchnorm_backward", test=True)


def closed_form_steps(learner):
    function = learner.derivations.batchnorm_closed_form_steps
    for shape, eps in STEP_ROWS:
        x, gamma, _, dout = draw_rows(learner.rng, shape)
        wanted = _closed_form_steps(x, gamma, eps, dout)
        by_xc = wanted["dxc_dx"][:, :, None] / wanted["std"]
        by_std = wanted["dxhat_dx"] - by_xc
        mistakes = {
            "dxc_dx": {"mu depends on x_n too, with the slope 1 / N": np.eye(len(x))},
            "dxhat_dx": {
                "the quotient has a second term: std depends on x_n too": by_xc,
                "both terms of the quotient's slope are divided by std": by_xc + by_std * wanted["std"],
                "m and n are swapped": wanted["dxhat_dx"].swapaxes(0, 1),
            },
        }
        check_steps(function, function(x, gamma, eps, dout), wanted, mistakes, f"x {shape}, eps={eps}")


def _closed_form_steps(x, gamma, eps, dout):
    """The steps by PyTorch.  A slope is the part of a Jacobian that is within a column."""
    x, gamma, dout = map(torch.tensor, (x, gamma, dout))

    def slope(function, indices):
        return np.einsum(indices, torch.autograd.functional.jacobian(function, x).numpy())

    def centred(x):
        return x - x.mean(0)

    def var(x):
        return x.var(0, correction=0)

    def std(x):
        return (var(x) + eps).sqrt()

    def xhat(x):
        return torch.batch_norm(x, None, None, None, None, True, 0.0, eps, False)

    dxhat = gamma.mul(dout)
    _, dx = torch.autograd.functional.vjp(xhat, x, dxhat)
    forward = {"xc": centred(x), "std": std(x), "xhat": xhat(x)}
    slopes = {
        "dxc_dx": slope(centred, "mdnd->mnd")[:, :, 0],
        "dvar_dx": slope(var, "dnd->nd"),
        "dstd_dx": slope(std, "dnd->nd"),
        "dxhat_dx": slope(xhat, "mdnd->mnd"),
    }
    means = {"mean_dxhat": dxhat.mean(0), "mean_dxhat_xhat": dxhat.mul(xhat(x)).mean(0)}
    steps = forward | slopes | {"dxhat": dxhat} | means | {"dx": dx}
    return {name: np.asarray(step) for name, step in steps.items()}


def batchnorm_closed_form(learner):
    _check_batch_grads(learner, "batchnorm_backward_alt")


def batchnorm_closed_form_test_mode(learner):
    _check_batch_grads(learner, "batchnorm_backward_alt", test=True)


def _check_batch_grads(learner, backward, test=False):
    for drawn in (*BATCHES, LARGE_TEST_BATCH if test else LARGE_BATCH):
        case = _batch_case(learner.rng, drawn, test)
        check_backward(learner, "batchnorm_forward", backward, case, _bn_param(case))


# In test mode, and in a net.


FOLDED = [((3, 4), 0.3, "float64"), ((4, 4), None, "float32"), ((5, 2), 0.5, "float64")]  # shape of w, eps, dtype


def folded_weights(learner):
    for case, b, scale in _foldable(learner.rng):
        w, (_, var), (gamma, _), eps = case.x, case.moments, case.scales, case.eps
        mistakes = {
            "gamma is missing": w * scale / gamma,
            "the running variance is under a root": w * gamma / (var + eps),
            "eps is missing, or not the one given": w * gamma / var.sqrt(),
            "eps is not the one given": w * gamma / (var + 1e-5).sqrt(),
            "w is scaled, too": w,
        }
        if len(w) == len(b):
            mistakes["each column of w has a scale of its own, not each row"] = w * scale[:, None]
        got, _ = _folded(learner, case, b)
        expect("w", got, _one_layer(case, b)[0], mistakes, str(case), TOLERANCE[case.dtype])


def folded_bias(learner):
    for case, b, scale in _foldable(learner.rng):
        (mean, _), (_, beta) = case.moments, case.scales
        mistakes = {
            "the running mean is not subtracted": b * scale + beta,
            "b goes through batch norm, which scales it": b - mean * scale + beta,
            "the running mean is subtracted before b is scaled": b * scale - mean + beta,
            "b is missing": beta - mean * scale,
            "beta is missing": (b - mean) * scale,
            "beta is added after the scale": (b - mean + beta) * scale,
        }
        _, got = _folded(learner, case, b)
        expect("b", got, _one_layer(case, b)[1], mistakes, str(case), TOLERANCE[case.dtype])


def _foldable(rng):
    """Cases of batch norm in test mode, whose x is the w of an affine layer; its b; and the scale of each column."""
    for drawn in FOLDED:
        case = _batch_case(rng, drawn, test=True)
        b = draw_tensor(rng, drawn[0][1]).to(case.x.dtype) * size_of_x(case.given_eps)
        yield case, b, case.scales[0] / (case.moments[1] + case.eps).sqrt()


def _folded(learner, case, b):
    """What fold_batchnorm returns, where the running averages are float64."""
    averages = {name: tensor.double().flatten().numpy() for name, tensor in zip(AVERAGES, case.statistics, strict=True)}
    w, *scales = case.arguments
    param = case.param(mode="test", **averages)
    return forward(learner.batchnorm.fold_batchnorm, w, b.numpy(), *scales, param, names="w, b")


def _one_layer(case, b):
    """w and b of the one layer, from what both layers in a row give for 0 and for each unit vector."""
    w, b, gamma, beta, *averages = (t.double() for t in (case.x, b, case.gamma, case.beta, *case.statistics))
    x = torch.cat([torch.zeros(1, len(w)), torch.eye(len(w))]).double()
    outs = batch_norm(averages)(x @ w + b, gamma, beta, case.eps)
    return (outs[1:] - outs[0]).to(case.x.dtype), outs[0].to(case.x.dtype)


NETS = [([5], "batchnorm"), ([5, 4], "batchnorm"), ([5, 4], "layernorm")]


def net_normalization(learner):
    for hidden_dims, kind in NETS:
        net, params = draw_net(learner, hidden_dims, normalization=kind)
        X, case = draw(learner, (7, 2, 3)), f"hidden_dims={hidden_dims}, normalization={kind!r}"
        bare = torch_net(torch.tensor(X), leaves(params)).detach()
        mistakes = {"the hidden layers are those of HIDDEN_LAYERS, by the net's normalization": bare}
        for mode in ("test", "train"):
            averages = _set_averages(learner, net, hidden_dims, kind, mode)
            right = partial(torch_net, norm=partial(_normed, kind, mode, averages))
            wanted = right(torch.tensor(X), leaves(params)).detach()
            expect("scores", forward(net._forward, X, mode)[0], wanted, mistakes, f"{case}, {mode} mode")
        for i, (mean, _) in reversed(list(enumerate(averages))):
            own = "layer i takes bn_params[i - 1], and batch norm writes to it"
            expect(
                f"bn_params[{i}]['running_mean']",
                net.get(f"bn_params.{i}.running_mean"),
                mean,
                case=case,
                otherwise=own,
            )
        check_grads_of_net(learner, net, params, X, case, TOLERANCE["float64"], right)


def _set_averages(learner, net, hidden_dims, kind, mode):
    """Give each hidden layer of a net its dict.  Returns batch norm's running averages, random tensors."""
    widths = hidden_dims if kind == "batchnorm" else ()
    averages = [draw_tensor(learner.rng, 2, width).abs() + 0.5 for width in widths]
    dicts = [dict(zip(AVERAGES, pair.numpy().copy(), strict=True)) for pair in averages]
    net.set("bn_params", [{"mode": mode, **entries} for entries in dicts or [{}] * len(hidden_dims)])
    return averages


def _normed(kind, mode, averages, a, i, params):
    """The output a of hidden layer i, normalized.  In train mode, it updates the averages."""
    gamma, beta = params[f"gamma{i}"], params[f"beta{i}"]
    if kind == "layernorm":
        return F.layer_norm(a, a.shape[1:], gamma, beta)
    return F.batch_norm(a, *averages[i - 1], gamma, beta, training=mode == "train")


# Images.


def _check_bn_param(bn_param, case, x):
    """Check that batch norm of x has updated the bn_param that was passed, and not a copy."""
    mean = _bn_param(case).get("running_mean", 0.1 * case.average(x).flatten())
    left = _left(bn_param, "running_mean")
    expect("bn_param['running_mean']", left, mean, case=str(case), tol=TOLERANCE[case.dtype])


def spatial_batchnorm_forward(learner):
    for drawn in IMAGES:
        for test in (False, True):
            case = _batch_case(learner.rng, drawn, test)
            rows, bn_param = case.x.reshape(-1, case.x.shape[1]), _bn_param(case)
            mixed = case.norm(rows, case.gamma, case.beta, case.eps).reshape(case.x.shape)
            mistakes = {"a reshape is not a transpose: the channels have to go to the end first": mixed}
            check_out(learner, "spatial_batchnorm_forward", case, bn_param, mistakes=mistakes)
            _check_bn_param(bn_param, case, case.x)


def spatial_batchnorm_backward(learner):
    for drawn in IMAGES:
        for test in (False, True):
            case = _batch_case(learner.rng, drawn, test)
            check_backward(learner, "spatial_batchnorm_forward", "spatial_batchnorm_backward", case, _bn_param(case))
    case = _batch_case(learner.rng, LARGE_IMAGES)
    check_backward(learner, "spatial_batchnorm_forward", "spatial_batchnorm_backward", case, _bn_param(case))
