"""Checks of exercises 1.8, 1.9 and 1.10: a step of the Solver, its accuracy, and its best model."""

from itertools import pairwise

import numpy as np

from grading.expect import Wrong, expect, fitting, numbers, require
from grading.session import Failed

N_TRAIN, N_VAL, BATCH = 23, 6, 5  # 4 batches in an epoch, and 3 examples left over
BATCHES = "the examples go through the model in batches of batch_size, the last one shorter, none twice"
DRAWN = "num_samples examples are drawn, without replacement"
KEPT = "at each best accuracy, a copy of all that _model_arrays gives goes into _best, running statistics included"
BEST = "best_val_acc is the largest validation accuracy so far; the first one counts even if it is 0"
AT_A_TIE = "at a tie, the earlier net stays"
DRAWS = "a step finds its batch from self.step and its epoch's shuffle alone: after resume, _order is None"
SAMPLED = "self._rng(SAMPLE, self.epoch) draws the sample: a run that is resumed has to draw the same one again"
SHAPES = {"W1": (2, 3), "b1": (3,), "gamma1": (1,)}


def _data(learner):
    """Examples that X[:, 0] numbers: training from 0, validation from 1000."""
    rng, data = learner.rng, {}
    for split, first, number in (("train", 0, N_TRAIN), ("val", 1000, N_VAL)):
        data[f"X_{split}"] = np.stack([first + np.arange(number), rng.standard_normal(number)], 1)
        data[f"y_{split}"] = rng.integers(3, size=number)
    return data


def _params(learner):
    return {name: learner.rng.standard_normal(shape) for name, shape in SHAPES.items()}


def _solver(learner, steps=0, kind="ReseededModel", data=None, bn_params=(), params=None, **settings):
    """A Solver, its model, which has results for so many steps, and these losses and gradients.

    params: those that the model begins with (None: drawn).
    """
    model = getattr(learner.drivers, kind)(params or _params(learner), bn_params)
    losses = [float(loss) for loss in learner.rng.uniform(1, 2, steps)]
    gradients = [dict(reversed(_params(learner).items())) for _ in range(steps)]
    model.set("losses", losses)
    model.set("gradients", gradients)
    learner.drivers.add_counting_rule()
    settings = {"batch_size": BATCH, "verbose": False, "seed": 1, **settings}
    solver = learner.trainer.Solver(model=model, data=data or _data(learner), **settings)
    return solver, model, losses, gradients


def _trained(model, steps):
    """What the model was asked to train on: (numbers, y, seed) of each step's batch, integers (BATCH,) and a text."""
    batches = model.get("trained")
    require(
        isinstance(batches, list),
        "model.loss was not called as a Solver calls it",
        "a step calls model.loss(X, y) once",
    )
    require(
        len(batches) == steps,
        f"model.loss was called {len(batches)} times with y in {steps} steps",
        "a step calls model.loss(X, y) once",
    )
    for batch in batches:
        size = np.shape(batch["numbers"])
        require(
            size == (BATCH,),
            f"a batch has {size[0] if size else 0} examples, expected batch_size={BATCH}",
            "a batch takes the next batch_size entries of the shuffle",
        )
        fitting("the numbers of a batch", batch["numbers"], (BATCH,), int)
        known = set(batch["numbers"].tolist()) <= set(range(N_TRAIN))
        require(
            known and isinstance(batch["seed"], str),
            "a batch has examples that are not in X_train",
            "a batch is drawn from X_train and y_train",
        )
    return batches


def _measured(model, limit):
    """The numbers of the examples of each call without y, arrays of integers; limit: how many examples at most."""
    calls = model.get("measured")
    require(
        isinstance(calls, list) and calls,
        "check_accuracy has not asked the model for scores",
        "scores come from model.loss(X)",
    )
    sizes = [np.shape(call) for call in calls]
    require(
        all(len(size) == 1 for size in sizes),
        "model.loss was not called with examples",
        "scores come from model.loss(X)",
    )
    calls = [fitting("the numbers of the examples", call, size, int) for call, size in zip(calls, sizes, strict=True)]
    seen = np.concatenate(calls)
    require(
        ((seen >= 0) & (seen < limit)).all(),
        "the model was asked for scores of examples that are not in X",
        "scores come from model.loss(X)",
    )
    return calls


def solver_step(learner):
    for rule in ("counting", "sgd"):
        _check_updates(learner, rule)
    _check_batches(learner)
    _check_not_finite(learner)


def _check_updates(learner, rule, steps=3, rate=0.2):
    config = {"learning_rate": rate}
    wanted = _params(learner)
    solver, model, losses, gradients = _solver(
        learner, steps, params=dict(wanted), update_rule=rule, optim_config=config
    )
    own = "each parameter has a config of its own in optim_configs: what the rule returned in the step before"
    for t in range(steps):
        solver._step()
        factor = rate * (t + 1 if rule == "counting" else 1)
        case = f"the rule {rule}, step {t + 1}"
        require(
            solver.get("step") == t + 1,
            f"step is {solver.get('step')} after {t + 1} steps",
            "each step adds 1 to self.step",
        )
        params = model.get("params")
        require(isinstance(params, dict), "params: expected a dict")
        require(
            params.keys() == wanted.keys(),
            f"params has the keys {list(params)}, expected {list(wanted)}",
            "a step replaces the entries of params and adds none",
        )
        for name, w in wanted.items():
            dw = gradients[t][name]
            mistakes = {
                "the step must go against the gradient, downhill": w + factor * dw,
                "the rule's next w is not put into params": w,
            }
            expect(f"params[{name!r}]", params[name], w - factor * dw, mistakes, case, otherwise=own)
            wanted[name] = w - factor * dw
    expect("loss_history", numbers("loss_history", solver.get("loss_history"), steps), np.array(losses))


def _check_batches(learner):
    """Check the size of each step's batch, its labels, and the seed of its dropout."""
    data, seeds = _data(learner), []
    for _ in range(2):
        solver, model, *_ = _solver(learner, 6, data=data)
        for _ in range(6):
            solver._step()
        trained = _trained(model, 6)
        for batch in trained:
            mixed = {"X and y belong to different examples": batch["y"]}
            expect("y of a batch", batch["y"], data["y_train"][batch["numbers"]], mixed)
        seeds.append([batch["seed"] for batch in trained])
    require(
        not {"none yet", "None"} & set(seeds[0]),
        "reseed: the model got no seed before its loss",
        "call self._reseed with a seed, before model.loss",
    )
    require(len(set(seeds[0])) == 6, "reseed: the model got the same seed in two steps", "each step needs a fresh seed")
    require(
        seeds[0] == seeds[1],
        "seed: two solvers with the same seed gave their models other seeds",
        "two such solvers need the same seeds for their models: from the solver's seed and the step",
    )
    solver, *_ = _solver(learner, 1, "Model")  # a model without reseed
    solver._step()


def _check_not_finite(learner):
    for name, hint in (("losses", "the loss"), ("gradients", "a parameter")):
        for bad in (np.nan, np.inf):
            solver, model, _, gradients = _solver(learner, 1)
            gradients[0]["b1"][1] = bad
            model.set(name, [float(bad)] if name == "losses" else gradients)
            _raises_floating_point_error(f"{hint} that is {bad}", solver._step)


def _raises_floating_point_error(name, call):
    try:
        call()
    except Failed as error:
        if error.kind != "FloatingPointError":
            raise
        return
    raise Wrong(
        f"{name}: expected a FloatingPointError, and none was raised", "_require_finite raises it, if it is called"
    )


def solver_epoch(learner):
    per_epoch = N_TRAIN // BATCH
    epochs = _epochs(learner, 3, seed=1)
    for e, batches in enumerate(epochs, start=1):
        case = f"epoch {e} of {per_epoch} batches"
        drawn = np.concatenate(batches)
        twice = "an epoch goes through one shuffle, without replacement"
        require(len(set(drawn.tolist())) == len(drawn), f"{case}: some examples come twice", twice)
        require(
            not np.array_equal(np.sort(drawn), drawn),
            f"{case}: the examples come in the order of X_train",
            "an epoch is not shuffled",
        )
    for before, after in pairwise(epochs):
        require(
            not np.array_equal(before, after), "two epochs had the same batches", "each epoch needs a fresh shuffle"
        )
    left_out = [frozenset(range(N_TRAIN)) - set(np.ravel(batches).tolist()) for batches in _epochs(learner, 6, seed=2)]
    require(
        len(set(left_out)) > 1,
        "each epoch leaves out the same examples",
        "the batches come from a shuffle of all examples, not of the first ones",
    )
    again = _epochs(learner, 3, seed=1)
    own = "the shuffle comes from the solver's own generator, made from its seed and the epoch"
    require(np.array_equal(epochs, again), "seed: two solvers with the same seed had other batches", own)
    require(not np.array_equal(epochs, _epochs(learner, 3, seed=7)), "seed: another one gave the same batches", own)
    _check_resumed(learner, epochs[0][2])


def _check_resumed(learner, third_batch):
    """A Solver from `resume` may be in the middle of an epoch before it has drawn a shuffle."""
    solver, model, *_ = _solver(learner, 1, seed=1)
    solver.set("step", 2)
    resumed = "a Solver that is resumed in the middle of an epoch"
    try:
        solver._step()
    except Failed as error:
        raise Wrong(f"{resumed}: {error}", DRAWS) from None
    (trained,) = _trained(model, 1)
    require(np.array_equal(trained["numbers"], third_batch), f"{resumed} had another batch", DRAWS)


def _epochs(learner, number, seed):
    """The numbers of the examples of each batch of each epoch."""
    steps = number * (N_TRAIN // BATCH)
    solver, model, *_ = _solver(learner, steps, seed=seed)
    for _ in range(steps):
        solver._step()
    trained = [batch["numbers"] for batch in _trained(model, steps)]
    return [trained[i : i + N_TRAIN // BATCH] for i in range(0, steps, N_TRAIN // BATCH)]


def accuracy(learner):
    solver, model, *_ = _solver(learner)
    N = 11
    X, y = np.stack([np.arange(N), np.zeros(N)], 1), learner.rng.integers(3, size=N)
    scores = learner.rng.standard_normal((N, 3)) + 2 * np.eye(3)[y] * (np.arange(N) % 3 > 0)[:, None]
    right = scores.argmax(1) == y
    model.set("scores", scores)
    for batch_size in (500, N, 4, 1):
        model.set("measured", [])
        got = solver.check_accuracy(X, y, batch_size=batch_size)
        mistakes = {
            "a number from 0 to 1, not a count": right.sum(),
            "a number from 0 to 1, not percent": 100 * right.mean(),
            "this is the fraction of wrong predictions": 1 - right.mean(),
            "an incomplete last batch counts, too": right[: N - N % batch_size].sum() / N,
            "the batches differ in size, so the mean of their means is wrong": _mean_of_means(right, batch_size),
        }
        expect("the accuracy", got, right.mean(), mistakes, f"{N} examples, batch_size={batch_size}")
        measured = _measured(model, N)
        largest, seen = max(map(len, measured)), np.sort(np.concatenate(measured))
        require(largest <= batch_size, f"batch_size={batch_size}: the model got {largest} examples at a time", BATCHES)
        require(np.array_equal(seen, np.arange(N)), "not each example went through the model once", BATCHES)
    _check_samples(learner, X, y, scores)
    _check_bad_scores(solver, model, X, y, scores)


def _mean_of_means(right, size):
    return np.mean([right[i : i + size].mean() for i in range(0, len(right), size)])


def _check_samples(learner, X, y, scores):
    draws = _samples(learner, X, y, scores, range(6), seed=1)
    require(
        any(draw != draws[0] for draw in draws),
        "num_samples: each epoch drew the same examples",
        "each epoch has to draw its own examples",
    )
    again = _samples(learner, X, y, scores, reversed(range(6)), seed=1)[::-1]
    require(draws == again, "seed: two solvers with the same seed drew other examples in the same epoch", SAMPLED)
    other = _samples(learner, X, y, scores, range(6), seed=7)
    require(draws != other, "seed: another one drew the same examples", SAMPLED)


def _samples(learner, X, y, scores, epochs, seed):
    """The numbers of the examples that a new Solver measures on after each of these epochs, sorted lists."""
    solver, model, *_ = _solver(learner, seed=seed)
    model.set("scores", scores)
    right, draws = scores.argmax(1) == y, []
    for epoch in epochs:
        solver.set("step", epoch * (N_TRAIN // BATCH))
        model.set("measured", [])
        got = solver.check_accuracy(X, y, num_samples=6, batch_size=4)
        drawn = np.concatenate(_measured(model, len(X)))
        case = "num_samples=6 of 11 examples"
        require(len(drawn) == 6, f"the model got {len(drawn)} examples, expected 6 (with {case})", DRAWN)
        require(len(set(drawn.tolist())) == 6, f"an example was drawn twice (with {case})", DRAWN)
        mistakes = {"divide by num_samples": right[drawn].sum() / len(X)}
        expect("the accuracy", got, right[drawn].mean(), mistakes, case)
        draws.append(np.sort(drawn).tolist())
    for enough in (11, 50):
        got = solver.check_accuracy(X, y, num_samples=enough)
        expect("the accuracy", got, right.mean(), case=f"num_samples={enough} of 11")
    return draws


def _check_bad_scores(solver, model, X, y, scores):
    """argmax picks a score of inf, and of nan, too: for the true class, the prediction is then right by accident."""
    for bad in (np.nan, np.inf):
        broken = scores.copy()
        broken[:4][np.arange(4), y[:4]] = bad
        model.set("scores", broken)
        wanted = ((scores.argmax(1) == y) & (np.arange(len(X)) >= 4)).mean()
        mistakes = {"an example with a score that is not finite counts as wrong": (broken.argmax(1) == y).mean()}
        expect("the accuracy", solver.check_accuracy(X, y), wanted, mistakes, f"scores that are {bad}")


def keeping_the_best(learner):
    _check_best(learner)
    _check_zero(learner)
    _check_numbers(learner)


def _measure(learner, solver, model):
    """Measure new parameters.  Returns them, and their running statistics."""
    params = _params(learner)
    mean, var = learner.rng.uniform(1, 2, (2, 3))
    for name, array in params.items():
        model.set(f"params.{name}", array)
    for name, array in (("running_mean", mean), ("running_var", var)):
        model.set(f"bn_params.0.{name}", array)
    solver._measure()
    return params, {"running_mean": mean, "running_var": var}


def _solver_to_measure(learner, train, val, **settings):
    """A Solver whose check_accuracy returns these numbers, one after another; its model; and the calls' recorder."""
    data = _data(learner)
    bn_params = [{"mode": "train", "running_mean": np.zeros(3), "running_var": np.ones(3)}]
    solver, model, *_ = _solver(learner, data=data, bn_params=bn_params, **settings)
    return solver, model, learner.drivers.Accuracies(train, val), data


def _check_kept(learner, solver, best, case, tied=None):
    """Check that the model has the best parameters after training.  tied: later ones with the same accuracy."""
    _check_names(solver, best)
    params, bn_params = learner.drivers.best_of(solver)
    for name, array in best[0].items():
        mistakes = {AT_A_TIE: tied[0][name]} if tied else {}
        expect(f"the best params[{name!r}]", params[name], array, mistakes, case, otherwise=KEPT)
    for name, array in best[1].items():
        expect(f"the best model's {name}, in bn_params,", bn_params[0][name], array, case=case, otherwise=KEPT)


def _check_names(solver, best):
    """Check the names of the arrays in _best, by which given code puts them back."""
    kept = solver.get("_best")
    wanted = [f"params/{name}" for name in best[0]] + [f"bn_params/0/{name}" for name in best[1]]
    if kept is not None:
        require(isinstance(kept, dict), "_best: expected a dict", KEPT)
        has = ", ".join(map(str, kept))
        require(kept.keys() == {*wanted}, f"_best has the keys {has}, expected {', '.join(wanted)}", KEPT)


def _check_best(learner):
    train, val = [0.1, 1.0, 0.4, 0.8, 0.7, 0.9], [0.4, 0.2, 0.85, 0.5, 0.85, 0.0]
    solver, model, *_ = _solver_to_measure(learner, train, val)
    best, case = None, "validation accuracies of 0.4, 0.2, 0.85, 0.5, 0.85 and 0"
    for i in range(len(val)):
        measured = _measure(learner, solver, model)
        before = max(val[:i], default=-1)
        best = measured if val[i] > before else best  # of two that are equal, the first
        expect("best_val_acc", solver.get("best_val_acc"), max(val[: i + 1]), case=case, otherwise=BEST)
        _check_kept(learner, solver, best, f"{case}, after {i + 1} of them", measured if val[i] == before else None)
    for name, accuracies in (("train_acc_history", train), ("val_acc_history", val)):
        expect(name, numbers(name, solver.get(name), len(val)), np.array(accuracies))


def _check_zero(learner):
    solver, model, *_ = _solver_to_measure(learner, [0.0], [0.0])
    best = _measure(learner, solver, model)
    for name, array in _params(learner).items():
        model.set(f"params.{name}", array)
    expect("best_val_acc", solver.get("best_val_acc"), 0.0, case="a validation accuracy of 0", otherwise=BEST)
    _check_kept(learner, solver, best, "a validation accuracy of 0, the best so far")


def _check_numbers(learner):
    """Check the calls of check_accuracy: one for each split, with its examples, labels and num_samples."""
    samples = {"num_train_samples": 7, "num_val_samples": 4}
    solver, model, accuracies, data = _solver_to_measure(learner, [0.5], [0.5], **samples)
    _measure(learner, solver, model)
    calls = accuracies.get("calls")
    require(
        isinstance(calls, list) and len(calls) == 2,
        "check_accuracy was not called twice",
        "call check_accuracy once for each of the two splits",
    )
    for split, first, call in zip(("train", "val"), (0, 1000), sorted(calls, key=lambda c: c["split"]), strict=True):
        y = data[f"y_{split}"]
        expect(f"the examples X_{split} of check_accuracy", call["numbers"], first + np.arange(len(y)))
        expect(f"the labels y_{split} of check_accuracy", call["y"], y)
        asked, wanted = call["num_samples"], samples[f"num_{split}_samples"]
        require(
            asked == wanted,
            f"num_{split}_samples={wanted}: check_accuracy got num_samples={asked!r}",
            "each split has a setting of its own, self.num_train_samples and self.num_val_samples",
        )
