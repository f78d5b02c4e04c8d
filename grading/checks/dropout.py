"""Checks of exercises 3.1 and 3.2: dropout, and dropout in the fully connected net."""

import numpy as np

from grading.checks.common import forward
from grading.checks.derivations import Graph, check_steps
from grading.expect import expect, fitting, require, several
from grading.oracle import torch

SHAPES = [(40, 50), (6, 5, 8, 9), (3000,)]
LARGE = (600, 1000)
UNIFORM = "a unit is kept with probability p if a uniform number from 0 to 1 is below p"
SEED = "a seed that is given, 0 too, makes the generator of this call"
KEEP_OR_DROP = "p is the probability of keeping a unit, not of dropping it"


def _forward(learner, x, **dropout_param):
    return several("dropout_forward", learner.dropout.dropout_forward(x, dropout_param), "out, cache")


def _train(learner, x, **dropout_param):
    """out in train mode, an array of the shape and dtype of x."""
    return fitting("out", _forward(learner, x, mode="train", **dropout_param)[0], x.shape, x.dtype)


def dropout_steps(learner):
    function, rng = learner.derivations.dropout_steps, learner.rng
    for shape, p in (((4, 6), 0.75), ((5, 3), 0.3)):
        x, dout, uniform = rng.standard_normal(shape), rng.standard_normal(shape), rng.random(shape)
        uniform.flat[0] = p  # which is not below p
        graph, mask = Graph(), uniform < p
        kept = graph.add("kept", graph.leaf("x", x).mul(torch.tensor(mask)))
        wanted = {"mask": mask, **graph.steps(graph.add("out", kept.div(p)), dout, "kept out dkept dx")}
        mistakes = {
            "mask": {KEEP_OR_DROP: ~mask},
            "out": {"what is kept is divided by p": wanted["kept"], "it is divided by p, not multiplied": p * x * mask},
            "dkept": {"out = kept / p, so its slope is 1 / p": dout, "dout is divided by p, not multiplied": dout * p},
            "dx": {"a unit that was left out gets no gradient": wanted["dkept"]},
        }
        check_steps(function, function(x, p, uniform, dout), wanted, mistakes, f"x {shape}, p={p}")


def dropout_training(learner):
    rng = learner.rng
    for shape, p, dtype in zip(SHAPES, (0.8, 0.3, 0.6), (np.float64, np.float32, np.float64), strict=True):
        x = rng.uniform(1, 2, shape).astype(dtype)
        for out in (_train(learner, x, p=p), _train(learner, x, p=p, seed=int(rng.integers(1000)))):
            _check_kept_and_dropped(out, x, p)
    x = rng.uniform(1, 2, (40, 50))
    expect("out", _train(learner, x, p=1.0), x, case="p=1, which keeps every unit")
    _check_draws(learner, x)


def _check_kept_and_dropped(out, x, p):
    """Check the array out of x, which has no zeros.  Returns which units are kept."""
    kept = out != 0
    rows, share, spread = kept.reshape(len(x), -1), kept.mean(), np.sqrt(p * (1 - p) / x.size)
    swapped = KEEP_OR_DROP if abs(share - (1 - p)) < 7 * spread else UNIFORM
    one_for_all = x.ndim > 1 and 0 < share < 1 and any((rows == rows.take([0], axis)).all() for axis in (0, 1))
    require(not one_for_all, "out: whole rows or columns are dropped", "the mask is drawn for each element")
    text = f"out: {share:.1%} of the units are kept, expected about {p:.0%}, with p={p}"
    require(abs(share - p) < 7 * spread, text, swapped)
    mistakes = {
        "what is kept is divided by p": x * kept,
        "what is kept is divided by p, not by 1 - p": x * kept / (1 - p),
        "what is kept is divided by p, not multiplied": x * kept * p,
        "what is kept is divided by p, once": x * kept / p**2,
    }
    expect("out", out, np.where(kept, x / p, 0).astype(x.dtype), mistakes, f"p={p}", 1e-5)
    return kept


def _check_draws(learner, x):
    """Check which calls of forward draw the same mask, and which draw different ones."""

    def differ(a, b):
        return not np.array_equal(a, b)

    def draw(**source):
        return _train(learner, x, p=0.5, **source)

    require(
        differ(draw(), draw()),
        "out: two calls without rng and seed drop the same units",
        "without rng and seed, each call draws from fresh entropy",
    )
    for seed in (0, 7):
        require(
            not differ(draw(seed=seed), draw(seed=seed)), f"out: two calls with seed={seed} drop different units", SEED
        )
    require(differ(draw(seed=1), draw(seed=2)), "out: two calls with different seeds drop the same units", SEED)
    one, other = (learner.drivers.generator(3) for _ in range(2))
    first, second = draw(rng=one), draw(rng=one)
    require(
        differ(first, second),
        "out: two calls with the same rng drop the same units",
        "the rng itself draws, and so advances",
    )
    require(
        not differ(first, draw(rng=other)),
        "out: rngs in the same state drop different units",
        "the mask is not drawn by the rng in dropout_param",
    )
    after = []
    for _ in range(2):
        draw(seed=5)
        after.append(learner.drivers.global_number())
    text = "after dropout_forward with a seed, np.random.random() gives the same number twice"
    require(after[0] != after[1], text, "it seeds NumPy's global generator, from which others draw: create a new one")


def dropout_test(learner):
    for shape, p in zip(SHAPES, (0.8, 0.3, 0.6), strict=True):
        for seed in ({}, {"seed": 3}):
            x = learner.rng.standard_normal(shape).astype(np.float32)
            out, _ = _forward(learner, x, mode="test", p=p, **seed)
            mistakes = {
                "train mode has scaled already; test mode leaves x as it is": x * p,
                "test mode leaves x as it is, and does not divide by p": x / p,
            }
            out = fitting("out", out, x.shape, x.dtype, f"test mode, p={p}")
            if 0 < np.mean(out == 0) < 1:
                mistakes["test mode drops nothing"] = out
            expect("out", out, x, mistakes, f"test mode, p={p}", 1e-6)


def dropout_backward(learner):
    rng, backward = learner.rng, learner.dropout.dropout_backward
    for shape, p, dtype in zip(SHAPES, (0.8, 0.3, 0.6), (np.float64, np.float32, np.float64), strict=True):
        seed = {"p": p, "seed": int(rng.integers(1000))}
        ones = np.ones(shape, dtype)
        kept = _check_kept_and_dropped(_train(learner, ones, **seed), ones, p)
        x, dout = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        x[rng.random(shape) < 0.1] = 0  # a zero that is kept passes its gradient on
        _, cache = _forward(learner, x, mode="train", **seed)
        mistakes = {
            "what is kept is divided by p": dout * kept,
            "dout passes where the unit was kept": dout,
            "dout passes where the unit was kept, also where x is 0": dout * (kept & (x != 0)) / p,
            "what is kept is divided by p, once": dout * kept / p**2,
            "what is kept is divided by p, not multiplied": dout * kept * p,
            "dout passes where the unit was kept, and not where it was dropped": dout * ~kept / p,
            "dx = dout * mask / p, which does not depend on x": dout * x * kept / p,
        }
        for words in (f"p={p}", f"p={p}, and the cache used a second time"):
            expect("dx", backward(dout, cache), (dout * kept / p).astype(dtype), mistakes, words, 1e-5)
        _, cache = _forward(learner, x, mode="test", **seed)
        scaled = {"in test mode dx = dout": dout * p, "in test mode dx = dout, without 1 / p": dout / p}
        expect("dx", backward(dout, cache), dout, scaled, f"test mode, p={p}")
    x, dout = rng.uniform(1, 2, LARGE).astype("float32"), rng.standard_normal(LARGE).astype("float32")
    out, cache = _forward(learner, x, mode="train", p=0.5)
    kept = _check_kept_and_dropped(fitting("out", out, LARGE, "float32"), x, 0.5)
    expect("dx", backward(dout, cache), dout * kept / np.float32(0.5), case=f"x {LARGE}, p=0.5", tol=1e-5)


KEPT, SHAPE = 0.8, (60, 50)  # the probability of keeping a unit, and the shape of h
SAME_MASK = "both hidden layers draw the same mask", "both take the same seed, without the layer's number"
NOTHING = "in test mode nothing is dropped, and nothing scaled"
OWN_SEED = "the generator of a layer's mask is made, in each pass, from the net's seed and the layer's number"


def net_dropout(learner):
    settings = {"hidden_dims": [SHAPE[1]] * 2, "input_dim": 6, "dropout": KEPT, "seed": 1}
    net = learner.fully_connected_net.FullyConnectedNet(**settings)
    h = learner.rng.uniform(1, 2, SHAPE)
    for i in (1, 2):
        out, mask = forward(net._dropout_forward, h, i, "test")
        expect("out", out, h, case="test mode", otherwise=NOTHING)
        expect("dh", net._dropout_backward(h, mask), h, case="test mode", otherwise=NOTHING)
    masks = _masks_of_net(learner, net)
    require(np.any(masks[0] != masks[1]), *SAME_MASK)
    again = _masks_of_net(learner, net)
    require(np.array_equal(masks, again), "with the same seed, a second pass drew other masks", OWN_SEED)
    net.reseed([3, 1, 4])
    other = _masks_of_net(learner, net)
    require(np.any(masks != other), "reseed: another seed gave the same masks", OWN_SEED)
    require(np.any(other[0] != other[1]), *SAME_MASK)
    net.reseed(None)
    first, second = _masks_of_net(learner, net), _masks_of_net(learner, net)
    require(
        np.any(first != second),
        "seed: with None, two passes drew the same masks",
        "without a seed, each pass draws from fresh entropy",
    )


def _masks_of_net(learner, net):
    """Which units the two hidden layers keep in a pass, after a check of the values of those kept and dropped."""
    h, dout = learner.rng.uniform(1, 2, SHAPE).astype("float32"), learner.rng.standard_normal(SHAPE).astype("float32")
    passes = [forward(net._dropout_forward, h, i, "train") for i in (1, 2)]
    outs = [fitting("out", out, SHAPE, "float32", f"hidden layer {i}") for i, (out, _) in enumerate(passes, start=1)]
    masks = [_check_kept_and_dropped(out, h, KEPT) for out in outs]
    for i, mask in reversed(list(enumerate(masks))):
        mistakes = {
            "the mask of forward is missing": dout,
            "dh goes through the mask of its own layer": dout * masks[1 - i] / np.float32(KEPT),
        }
        dh = net._dropout_backward(dout, passes[i][1])
        expect("dh", dh, dout * mask / np.float32(KEPT), mistakes, f"hidden layer {i + 1}, dropout={KEPT}", 1e-5)
    return np.array(masks)
