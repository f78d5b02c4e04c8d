"""Training runs of the Solver so small that one takes milliseconds, and what the tests of the Solver share."""

import json
import os
import signal

import numpy as np
import pytest

from cs231n import FullyConnectedNet
from cs231n.trainer import Solver

NUM_TRAIN, BATCH = 50, 8
STEPS = NUM_TRAIN // BATCH  # in an epoch; 2 examples are left over


def small_data(seed=0, dtype=np.float32):
    """Three classes in six dimensions, which overlap a little: much accuracy is reached, but not all."""
    rng = np.random.default_rng(seed)
    centers = 1.5 * rng.standard_normal((3, 6))
    y_train, y_val = rng.integers(0, 3, NUM_TRAIN), rng.integers(0, 3, 60)
    x_train, x_val = (centers[y] + rng.standard_normal((len(y), 6)) for y in (y_train, y_val))
    return {"X_train": x_train.astype(dtype), "y_train": y_train, "X_val": x_val.astype(dtype), "y_val": y_val}


def small_net(**settings):
    return FullyConnectedNet(
        **{"hidden_dims": [5, 4], "input_dim": 6, "num_classes": 3, "weight_scale": 0.5, "seed": 0} | settings
    )


def make_solver(model=None, data=None, **settings):
    settings = {"batch_size": BATCH, "num_epochs": 2, "seed": 1, "verbose": False} | settings
    return Solver(small_net() if model is None else model, small_data() if data is None else data, **settings)


def trained(*args, **settings):
    solver = make_solver(*args, **settings)
    solver.train()
    return solver


def resume(checkpoint, model=None, data=None, **settings):
    settings = {"verbose": False} | settings
    return Solver.resume(checkpoint, model or small_net(), small_data() if data is None else data, **settings)


def resumed(*args, **settings):
    solver = resume(*args, **settings)
    solver.train()
    return solver


# Comparing


def assert_same(a, b):
    """a equals b in type and to the last bit, dicts and lists item by item."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for ai, bi in zip(a, b, strict=True):
            assert_same(ai, bi)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert a == b


def state(model):
    """Copies of a net's parameters and running statistics."""
    stats = [{name: v.copy() for name, v in p.items() if isinstance(v, np.ndarray)} for p in model.bn_params]
    return {"params": {name: w.copy() for name, w in model.params.items()}, "bn_params": stats}


def results(solver):
    """All that a run ends with."""
    names = ("step", "loss_history", "train_acc_history", "val_acc_history", "best_val_acc", "optim_configs")
    return {name: getattr(solver, name) for name in names} | {"model": state(solver.model)}


def assert_same_results(a, b):
    assert_same(results(a), results(b))


def contents(checkpoint):
    """What a checkpoint holds."""
    with np.load(checkpoint) as file:
        arrays = dict(file)
    return {"meta": json.loads(str(arrays.pop("meta"))), "arrays": arrays}


# Models and events


class LinearNet:
    """The least that the Solver takes for a model; it also remembers what it was asked."""

    def __init__(self):
        self.params = {"w": np.zeros((6, 3))}
        self.batches, self.measured = [], []

    def loss(self, X, y=None):
        scores = X @ self.params["w"]
        if y is None:
            self.measured.append(X)
            return scores
        self.batches.append(X)
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        e /= e.sum(axis=1, keepdims=True)
        loss = -np.log(e[np.arange(len(y)), y]).mean()
        e[np.arange(len(y)), y] -= 1
        return loss, {"w": X.T @ e / len(y)}


class FixedNet:
    """Always the same scores, and a gradient of one."""

    def __init__(self, scores):
        self.scores = np.array(scores, dtype=float)
        self.params = {"w": np.zeros(1)}

    def loss(self, X, y=None):
        scores = np.tile(self.scores, (len(X), 1))
        return scores if y is None else (1.0, {"w": np.ones(1)})


def before_step(step, act, model=None):
    """The model, made to call act() in the forward pass of training step 0, 1, ..."""
    model = model or small_net()
    loss, calls = model.loss, iter(range(1000))

    def loss_and_act(X, y=None):
        if y is not None and next(calls) == step:
            act()
        return loss(X, y)

    model.loss = loss_and_act
    return model


class PowerCutError(Exception):
    """Stands for the end of the process."""


def cut_power():
    raise PowerCutError


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def wreck(solver):
    """A callback that leaves the best behind: after epoch 3 the net is a random one, and learns no more."""
    if solver.epoch == 3:
        rng = np.random.default_rng(0)
        for name, w in solver.model.params.items():
            solver.model.params[name] = rng.standard_normal(w.shape).astype(w.dtype)
            solver.optim_configs[name]["learning_rate"] = 0.0


WRECKED = {"update_rule": "adam", "optim_config": {"learning_rate": 0.05}, "num_epochs": 5, "callback": wreck}


def assert_best_is_left_behind(solver):
    assert solver.best_val_acc == max(solver.val_acc_history) > solver.val_acc_history[-1]
    assert solver.check_accuracy(solver.data["X_val"], solver.data["y_val"]) == solver.best_val_acc


def training_stops(error, *args, match=None, **settings):
    """The solver whose training raised error."""
    solver = make_solver(*args, **settings)
    with pytest.raises(error, match=match):
        solver.train()
    return solver
