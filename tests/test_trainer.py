"""Solver: what it keeps, what it draws, and that a run which was stopped in whatever way ends as if it had not been."""

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from small_run import BATCH, NUM_TRAIN, killable_run, small_data, small_net

from cs231n import fully_connected_net, optim
from cs231n.trainer import Solver

STEPS = NUM_TRAIN // BATCH  # an epoch's
NETS = {
    "plain": {},
    "batchnorm and dropout": {"use_batchnorm": True, "dropout": 0.6},
    "layernorm and dropout": {"normalization": "layernorm", "dropout": 0.6},
}


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """No power fails here, and waiting for the disk would take most of the time; the runs that are killed do wait."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def make_solver(model=None, data=None, cls=Solver, **settings):
    settings = {"batch_size": BATCH, "num_epochs": 2, "seed": 1, "verbose": False} | settings
    return cls(small_net() if model is None else model, small_data() if data is None else data, **settings)


def trained(*args, **settings):
    solver = make_solver(*args, **settings)
    solver.train()
    return solver


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


def contents(checkpoint):
    """What a checkpoint holds."""
    with np.load(checkpoint) as file:
        arrays = dict(file)
    return {"meta": json.loads(str(arrays.pop("meta"))), "arrays": arrays}


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


def noting_batches(model):
    """The model, made to note each training batch (X, y), and the list of its notes."""
    loss, batches = model.loss, []

    def noting_loss(X, y=None):
        if y is not None:
            batches.append((X, y))
        return loss(X, y)

    model.loss = noting_loss
    return model, batches


def numbered_data():
    """Data whose first feature is the number of the example."""
    data = small_data(dtype=np.float64)
    data["X_train"][:, 0] = np.arange(NUM_TRAIN)
    return data


def numbers_drawn(solver):
    """The numbers of the examples that a LinearNet has seen (steps, batch)."""
    return np.array([X[:, 0] for X in solver.model.batches], int)


def before_step(step, act, model):
    """The model, made to call act() in the forward pass of training step 0, 1, ..."""
    loss, calls = model.loss, iter(range(1000))

    def loss_and_act(X, y=None):
        if y is not None and next(calls) == step:
            act()
        return loss(X, y)

    model.loss = loss_and_act
    return model


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


class PowerCutError(Exception):
    """Stands for the end of the process."""


def cut_power():
    raise PowerCutError


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


# The best model


@pytest.mark.parametrize("settings", NETS.values(), ids=NETS)
def test_best_model_scores_best_val_acc(settings):
    assert_best_is_left_behind(trained(small_net(**settings), **WRECKED))


def test_best_model_has_the_params_and_the_running_statistics_of_its_epoch():
    model = small_net(use_batchnorm=True)
    states = [state(model)]

    def note_and_wreck(solver):
        states.append(state(model))
        wreck(solver)

    solver = trained(model, **WRECKED | {"callback": note_and_wreck})
    best = int(np.argmax(solver.val_acc_history))
    assert 0 < best <= 3
    assert_same(state(model), states[best])


def test_a_validation_accuracy_of_0_still_keeps_a_best_model(tmp_path):
    data = small_data()
    data["y_val"][:] = 2
    model = FixedNet([1, 0, 0])
    solver = trained(model, data, checkpoint_name=tmp_path / "run")
    assert solver.best_val_acc == 0
    assert_same(model.params, {"w": np.zeros(1)})  # the initial ones were the first to reach it
    assert "best/params/w" in contents(tmp_path / "run.npz")["arrays"]


def test_best_model_is_the_first_of_equals():
    assert_same(trained(FixedNet([1, 0, 0])).model.params, {"w": np.zeros(1)})


def test_best_model_may_be_changed_in_place_and_training_still_goes_on_from_the_latest():
    whole = trained(num_epochs=3)
    solver = trained()
    for w in solver.model.params.values():
        w[...] = 7
    solver.num_epochs = 3
    solver.train()
    assert_same(results(solver), results(whole))


def test_best_model_may_be_changed_in_place_and_is_put_back_by_train():
    solver = trained(**WRECKED)
    best = state(solver.model)
    for w in solver.model.params.values():
        w[...] = 7
    solver.train()
    assert_same(state(solver.model), best)


def test_train_accuracy_is_measured_before_the_best_is_restored():
    measured = []
    data = small_data()

    def measure_and_wreck(solver):
        measured.append(solver.check_accuracy(data["X_train"], data["y_train"]))
        wreck(solver)

    solver = trained(data=data, num_train_samples=None, **WRECKED | {"callback": measure_and_wreck})
    assert solver.train_acc_history[1:] == measured
    assert solver.check_accuracy(data["X_train"], data["y_train"]) > measured[-1]


def test_any_model_with_params_and_loss_will_do():
    solver = trained(LinearNet(), num_epochs=20, optim_config={"learning_rate": 0.3})
    assert solver.best_val_acc > 0.6 > solver.val_acc_history[0]


# Batches, masks and samples


def test_an_epoch_draws_each_example_once_and_leaves_out_what_fills_no_batch():
    drawn = numbers_drawn(trained(LinearNet(), numbered_data()))
    assert drawn.shape == (2 * STEPS, BATCH)
    for epoch in (drawn[:STEPS], drawn[STEPS:]):
        assert len(np.unique(epoch)) == STEPS * BATCH


def test_each_epoch_is_shuffled_afresh():
    drawn = numbers_drawn(trained(LinearNet(), numbered_data()))
    assert np.any(np.diff(drawn.ravel()) < 0)
    assert set(drawn[:STEPS].ravel()) != set(drawn[STEPS:].ravel())  # others are left out


def test_labels_stay_with_their_examples():
    data = numbered_data()
    model, batches = noting_batches(LinearNet())
    trained(model, data)
    for X, y in batches:
        assert_same(y, data["y_train"][X[:, 0].astype(int)])


def test_a_batch_larger_than_the_data_is_all_of_it():
    solver = trained(LinearNet(), numbered_data(), batch_size=1000)
    assert np.sort(numbers_drawn(solver)).tolist() == [list(range(NUM_TRAIN))] * 2


def test_solver_seeded_dropout_draws_fresh_batches():
    model, batches = noting_batches(small_net(dropout=0.5))
    trained(model, num_epochs=20)
    assert len({X.tobytes() for X, _ in batches}) == 20 * STEPS


def test_solver_seeded_dropout_draws_fresh_masks(monkeypatch):
    masks = []
    forward = fully_connected_net.dropout_forward

    def noting_forward(x, dropout_param):
        out, mask = forward(x, dropout_param)
        if mask is not None:
            masks.append(mask.tobytes())
        return out, mask

    monkeypatch.setattr(fully_connected_net, "dropout_forward", noting_forward)
    trained(small_net(hidden_dims=[40, 30], dropout=0.5), num_epochs=20)
    assert len(set(masks)) == 20 * STEPS * 2  # two layers


@pytest.mark.parametrize("learning_rate", [0.1, 1e20])
def test_solver_gives_the_model_its_seed_back(learning_rate):
    model = small_net(dropout=0.5, seed=5)
    solver = make_solver(model, optim_config={"learning_rate": learning_rate})
    try:
        solver.train()
    except FloatingPointError:
        assert learning_rate > 1
    assert model.reseed(None) == 5


def test_the_same_seed_gives_the_same_run():
    assert_same(*(results(trained(small_net(**NETS["batchnorm and dropout"]))) for _ in range(2)))


@pytest.mark.parametrize("seeds", [(1, 2), (None, None)])
def test_other_seeds_give_other_batches(seeds):
    a, b = (numbers_drawn(trained(LinearNet(), numbered_data(), seed=seed)) for seed in seeds)
    assert np.any(a != b)


@pytest.mark.parametrize("seeds", [(1, 2), (None, None)])
def test_other_seeds_give_other_masks(seeds):
    data = small_data()
    data["X_train"][:], data["y_train"][:] = data["X_train"][0], data["y_train"][0]  # all batches are alike
    a, b = (trained(small_net(dropout=0.5), data, seed=seed) for seed in seeds)
    assert abs(a.loss_history[0] - b.loss_history[0]) > 1e-3


def test_a_seed_from_the_system_can_be_given_again():
    first = trained(seed=None)
    assert_same(results(first), results(trained(seed=first.seed)))


@pytest.mark.parametrize(("given", "measured"), [(40, 40), (None, NUM_TRAIN), (1000, NUM_TRAIN)])
def test_train_accuracy_is_measured_on_num_train_samples(given, measured):
    model = LinearNet()
    solver = make_solver(model, numbered_data(), num_train_samples=given)
    model.measured.clear()
    solver.train()
    samples = [X[:, 0].astype(int).tolist() for X in model.measured[::2]]  # validation has every second call
    assert [len(set(sample)) for sample in samples] == [measured] * 3
    assert measured == NUM_TRAIN or samples[0] != samples[1] != samples[2]


def test_samples_keep_their_labels():
    solver = make_solver(LinearNet())
    solver.model.params["w"][:3] = np.eye(3)
    y = np.random.default_rng(0).integers(0, 3, 50)
    assert solver.check_accuracy(np.eye(6)[y], y, num_samples=20) == 1


def test_validation_accuracy_is_measured_on_num_val_samples():
    model = LinearNet()
    solver = make_solver(model, num_val_samples=9)
    model.measured.clear()
    solver.train()
    assert [len(X) for X in model.measured] == [NUM_TRAIN, 9] * 3


# Histories, learning rate, accuracy


def test_histories_have_a_loss_a_step_and_an_accuracy_an_epoch_and_one_before():
    solver = trained(num_epochs=3)
    assert (solver.epoch, solver.step, len(solver.loss_history)) == (3, 3 * STEPS, 3 * STEPS)
    assert len(solver.train_acc_history) == len(solver.val_acc_history) == 4
    assert {type(x) for x in solver.loss_history + solver.train_acc_history + solver.val_acc_history} == {float}


def test_loss_history_starts_with_the_loss_of_the_first_batch():
    solver = trained(LinearNet())
    assert solver.loss_history[0] == pytest.approx(math.log(3))


def test_learning_rate_is_multiplied_by_lr_decay_after_each_epoch():
    seen = []
    settings = {"lr_decay": 0.5, "optim_config": {"learning_rate": 1.0}, "num_epochs": 3}
    solver = trained(FixedNet([1, 0, 0]), callback=lambda s: seen.append(s.model.params["w"].item()), **settings)
    assert seen == [-STEPS, -1.5 * STEPS, -1.75 * STEPS]
    assert solver.optim_configs["w"]["learning_rate"] == 0.125


@pytest.mark.parametrize("rule", optim.RULES)
def test_update_rule_is_applied_to_each_parameter_with_its_own_state(rule):
    model, batches = noting_batches(small_net())
    after = []
    trained(model, update_rule=rule, num_epochs=1, callback=lambda s: after.append(state(model)["params"]))
    twin = small_net()
    configs = dict.fromkeys(twin.params)
    for X, y in batches:
        _, grads = twin.loss(X, y)
        for name, w in twin.params.items():
            twin.params[name], configs[name] = optim.RULES[rule](w, grads[name], configs[name])
    assert_same(after, [twin.params])


def test_optim_config_reaches_the_rule_and_is_not_written_to():
    config = {"learning_rate": 1, "momentum": 0.5}
    solver = trained(update_rule="sgd_momentum", optim_config=config, lr_decay=0.5)
    assert config == {"learning_rate": 1, "momentum": 0.5}
    assert {c["momentum"] for c in solver.optim_configs.values()} == {0.5}


@pytest.mark.parametrize("batch_size", [1, 3, 4, 500])
def test_check_accuracy_is_the_share_of_labels_with_the_highest_score(batch_size):
    solver = make_solver(FixedNet([0, 1, 0]))
    assert solver.check_accuracy(np.zeros((4, 6)), np.array([1, 0, 1, 1]), batch_size=batch_size) == 0.75


def test_check_accuracy_counts_scores_that_are_not_finite_as_wrong():
    solver = make_solver()
    solver.model = FixedNet([np.nan, 1, 0])
    assert solver.check_accuracy(np.zeros((2, 6)), np.array([0, 1])) == 0


def test_check_accuracy_of_a_net_that_overflows_gives_no_warning():
    solver = make_solver()
    for name in ("W1", "W2", "W3"):
        solver.model.params[name] += np.float32(1e30)
    assert solver.check_accuracy(solver.data["X_val"], solver.data["y_val"]) < 1


@pytest.mark.parametrize(("n", "y_shape"), [(4, (4, 1)), (4, (3,)), (0, (0,))])
def test_check_accuracy_refuses_labels_that_do_not_fit(n, y_shape):
    with pytest.raises(ValueError, match=re.escape(f"X ({n}, 6) and y {y_shape}")):
        make_solver().check_accuracy(np.zeros((n, 6)), np.zeros(y_shape, int))


def test_training_goes_on_when_num_epochs_is_raised(caplog):
    solver = trained()
    solver.train()
    assert "Already trained for 2 epochs" in caplog.text
    solver.num_epochs = 4
    solver.train()
    assert_same(results(solver), results(trained(num_epochs=4)))


# Checkpoints


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", optim.RULES)
@pytest.mark.parametrize(
    ("every", "cut", "saved"),
    [(4, 10, 8), (1, 9, 9), (None, 2 * STEPS + 3, 2 * STEPS)],
    ids=["in mid-epoch", "at each step", "at the end of an epoch"],
)
def test_resume_is_bit_for_bit_the_uninterrupted_run(tmp_path, dtype, rule, every, cut, saved):
    net = {"use_batchnorm": True, "dropout": 0.6, "dtype": dtype}
    settings = {"update_rule": rule, "lr_decay": 0.8, "num_epochs": 4, "checkpoint_every": every}
    settings |= {"num_train_samples": 20, "num_val_samples": 40}
    whole = trained(small_net(**net), checkpoint_name=tmp_path / "whole", **settings)

    model = before_step(cut, cut_power, small_net(**net))
    with pytest.raises(PowerCutError):
        trained(model, checkpoint_name=tmp_path / "cut", **settings)
    assert contents(tmp_path / "cut.npz")["meta"]["step"] == saved
    resumed = Solver.resume(tmp_path / "cut", small_net(**net), small_data(), verbose=False)
    resumed.train()
    assert_same(results(resumed), results(whole))
    assert_same(contents(tmp_path / "cut.npz"), contents(tmp_path / "whole.npz"))


def test_resume_a_second_time_is_bit_for_bit_too(tmp_path):
    net = {"use_batchnorm": True, "dropout": 0.6}
    settings = {"update_rule": "adam", "num_epochs": 4, "checkpoint_every": 1}
    whole = trained(small_net(**net), **settings)
    with pytest.raises(PowerCutError):
        trained(before_step(8, cut_power, small_net(**net)), checkpoint_name=tmp_path / "run", **settings)
    model = before_step(7, cut_power, small_net(**net))
    resumed = Solver.resume(tmp_path / "run", model, small_data(), verbose=False)
    with pytest.raises(PowerCutError):
        resumed.train()
    resumed = Solver.resume(tmp_path / "run", small_net(**net), small_data(), verbose=False)
    assert resumed.step == 15
    resumed.train()
    assert_same(results(resumed), results(whole))


def test_resume_takes_a_larger_num_epochs(tmp_path):
    trained(update_rule="adam", checkpoint_name=tmp_path / "run")
    resumed = Solver.resume(tmp_path / "run", small_net(), small_data(), num_epochs=4, verbose=False)
    resumed.train()
    assert_same(results(resumed), results(trained(update_rule="adam", num_epochs=4)))


def test_resume_puts_the_best_into_the_model(tmp_path):
    solver = trained(small_net(use_batchnorm=True), checkpoint_name=tmp_path / "run", **WRECKED)
    model = small_net(use_batchnorm=True, seed=9)
    Solver.resume(tmp_path / "run", model, small_data())
    assert_same(state(model), state(solver.model))


def test_resume_keeps_the_settings(tmp_path):
    settings = {"update_rule": "rmsprop", "lr_decay": 0.7, "batch_size": 5, "num_epochs": 3, "num_train_samples": 11}
    settings |= {"num_val_samples": 12, "print_every": 13, "checkpoint_every": 14, "seed": 15}
    trained(**settings, checkpoint_name=tmp_path / "run")
    resumed = Solver.resume(tmp_path / "run", small_net(), small_data())
    assert {name: getattr(resumed, name) for name in settings} == settings


def test_resume_keeps_a_learning_rate_that_the_callback_set(tmp_path):
    def halve(solver):
        for config in solver.optim_configs.values():
            config["learning_rate"] /= 2

    whole = trained(num_epochs=4, callback=halve)
    trained(num_epochs=2, callback=halve, checkpoint_name=tmp_path / "run")
    resumed = Solver.resume(tmp_path / "run", small_net(), small_data(), num_epochs=4, callback=halve, verbose=False)
    resumed.train()
    assert_same(results(resumed), results(whole))


def test_checkpoint_keeps_adams_moments(tmp_path):
    solver = trained(update_rule="adam", checkpoint_name=tmp_path / "run")
    arrays = contents(tmp_path / "run.npz")["arrays"]
    for name in solver.model.params:
        for moment in ("m", "v"):
            assert np.any(arrays[f"optim/{name}/{moment}"])
            assert_same(arrays[f"optim/{name}/{moment}"], solver.optim_configs[name][moment])
        assert arrays[f"optim/{name}/t"] == 2 * STEPS


class NotingSolver(Solver):
    def save(self):
        super().save()
        self.saved = [*getattr(self, "saved", []), contents(self.checkpoint)["meta"]["step"]]


@pytest.mark.parametrize(("every", "steps"), [(None, [0, 6, 12]), (4, [0, 4, 6, 8, 12]), (6, [0, 6, 12])])
def test_checkpoint_is_written_at_the_start_at_each_epoch_and_every_so_many_steps(tmp_path, every, steps):
    solver = trained(cls=NotingSolver, checkpoint_name=tmp_path / "run", checkpoint_every=every)
    assert solver.saved == steps


def test_checkpoint_is_the_only_file_left(tmp_path):
    trained(checkpoint_name=tmp_path / "run", checkpoint_every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


@pytest.mark.parametrize(("name", "file"), [("run", "run.npz"), ("run.npz", "run.npz"), ("lr0.1", "lr0.1.npz")])
def test_checkpoint_name_gains_npz_and_its_folder_is_made(tmp_path, name, file):
    trained(checkpoint_name=str(tmp_path / "a" / "b" / name))
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [file]
    Solver.resume(str(tmp_path / "a" / "b" / name), small_net(), small_data())


def test_no_checkpoint_name_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(checkpoint_every=1).save()
    assert list(tmp_path.iterdir()) == []


def test_save_after_train_saves_the_latest_and_not_the_best_in_its_place(tmp_path):
    solver = trained(checkpoint_name=tmp_path / "run", **WRECKED)
    before = contents(tmp_path / "run.npz")
    solver.save()
    assert_same(contents(tmp_path / "run.npz"), before)


def test_save_before_train_can_be_resumed(tmp_path):
    make_solver(checkpoint_name=tmp_path / "run").save()
    resumed = Solver.resume(tmp_path / "run", small_net(seed=9), small_data(), verbose=False)
    resumed.train()
    assert_same(results(resumed), results(trained()))


@pytest.fixture
def checkpoint(tmp_path):
    """The file of a whole run, and the only one in its folder."""
    trained(small_net(use_batchnorm=True), update_rule="adam", checkpoint_name=tmp_path / "run")
    return tmp_path / "run.npz"


def resume_small(checkpoint, data=None, **net):
    model = small_net(**({"use_batchnorm": True} | net))
    return Solver.resume(checkpoint, model, small_data() if data is None else data, verbose=False)


def test_a_missing_checkpoint_is_named_and_no_folder_is_made_for_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none" / "run.npz"))):
        resume_small(tmp_path / "none" / "run")
    assert list(tmp_path.iterdir()) == []


class Explosive:
    """Its pickle makes a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_pickle(path, load):
    path.write_bytes(pickle.dumps(load))


def write_object_meta(path, load):
    np.savez(path, meta=np.array(load, dtype=object))


def write_object_array(path, load):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"model/params/W1": np.array([load], dtype=object)}))


@pytest.mark.parametrize("write", [write_pickle, write_object_meta, write_object_array])
def test_a_checkpoint_with_a_pickle_is_refused_and_nothing_in_it_runs(checkpoint, write):
    mark = checkpoint.with_name("executed")
    write(checkpoint, Explosive(mark))
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        resume_small(checkpoint)
    assert not mark.exists()
    if write is write_pickle:  # the charge is live
        pickle.loads(checkpoint.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(checkpoint, share):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"{re.escape(str(checkpoint))} is not a whole checkpoint"):
        resume_small(checkpoint)


def test_a_checkpoint_with_a_flipped_bit_is_refused_or_unharmed(checkpoint):
    whole, damaged = checkpoint.read_bytes(), checkpoint.with_name("damaged.npz")
    expected = results(resume_small(checkpoint))
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 100, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.write_bytes(flipped)
        try:
            resumed = resume_small(damaged)
        except ValueError:
            refused += 1
        else:
            assert_same(results(resumed), expected)
    assert refused > 60


def test_a_checkpoint_that_lacks_an_array_is_refused(checkpoint):
    with np.load(checkpoint) as file:
        arrays = dict(file)
    del arrays["optim/W1/m"]
    np.savez(checkpoint, **arrays)
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        resume_small(checkpoint)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("not a checkpoint"),
        lambda path: np.savez(path, x=np.zeros(3)),
        lambda path: np.savez(path, meta=np.zeros(3)),
        lambda path: np.savez(path, meta=np.array("{}")),
        lambda path: np.savez(path, meta=np.array("[]")),
        lambda path: np.save(path.open("wb"), np.zeros(3)),
    ],
    ids=["text", "foreign npz", "meta of numbers", "empty meta", "meta of another type", "npy"],
)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, write):
    path = tmp_path / "run.npz"
    write(path)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a whole checkpoint"):
        resume_small(path)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"hidden_dims": [5]}, r"params/W2 is float32 \(5, 3\) in the model and float32 \(5, 4\) in the file"),
        ({"hidden_dims": [5, 4, 4]}, r"params/W3 is float32 \(4, 4\) in the model and float32 \(4, 3\) in the file"),
        ({"dtype": np.float64}, r"params/W1 is float64 \(6, 5\) in the model and float32 \(6, 5\) in the file"),
        ({"use_batchnorm": False}, "params/gamma1 is absent in the model"),
        ({"use_batchnorm": False, "normalization": "layernorm"}, "bn_params/0/running_mean is absent in the model"),
    ],
    ids=str,
)
def test_resume_refuses_another_model_and_leaves_it_as_it_is(checkpoint, net, message):
    model = small_net(**({"use_batchnorm": True} | net))
    before = state(model)
    with pytest.raises(ValueError, match=f"model: does not fit .*{message}"):
        Solver.resume(checkpoint, model, small_data(), verbose=False)
    assert_same(state(model), before)


def test_resume_refuses_a_model_with_more_than_the_file_holds(tmp_path):
    trained(checkpoint_name=tmp_path / "run")
    with pytest.raises(ValueError, match=r"params/gamma1 is float32 .* in the model and absent in the file"):
        resume_small(tmp_path / "run")


@pytest.mark.parametrize("key", ["X_train", "y_train", "X_val", "y_val"])
def test_resume_refuses_other_data(checkpoint, key):
    other = small_data() | {key: small_data(seed=1)[key]}
    with pytest.raises(ValueError, match=r"data: .*run\.npz was made with other data"):
        resume_small(checkpoint, other)


@pytest.mark.parametrize("split", ["train", "val"])
def test_resume_refuses_more_or_less_data(checkpoint, split):
    fewer = {name: x[:-1] if name.endswith(split) else x for name, x in small_data().items()}
    with pytest.raises(ValueError, match=r"data: .*run\.npz was made with other data"):
        resume_small(checkpoint, fewer)


def test_resume_takes_the_same_labels_in_another_dtype(checkpoint):
    data = small_data()
    resume_small(checkpoint, data | {"y_train": data["y_train"].astype(np.uint8)})


def test_resume_checks_the_data_as_the_solver_does(checkpoint):
    with pytest.raises(ValueError, match="data: lacks X_train"):
        resume_small(checkpoint, {})


def test_a_write_that_fails_keeps_the_old_checkpoint_and_leaves_no_other_file(checkpoint, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    old = checkpoint.read_bytes()
    resumed = Solver.resume(checkpoint, small_net(use_batchnorm=True), small_data(), num_epochs=3, verbose=False)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        resumed.train()
    assert checkpoint.read_bytes() == old
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_training_goes_on_after_a_write_that_failed(checkpoint, monkeypatch):
    resumed = Solver.resume(checkpoint, small_net(use_batchnorm=True), small_data(), num_epochs=4, verbose=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resumed.train()
    resumed.train()
    whole = trained(small_net(use_batchnorm=True), update_rule="adam", num_epochs=4)
    assert_same(results(resumed), results(whole))


FULL_DISK = """
import resource, sys
from pathlib import Path
from small_run import killable_run
path = Path(sys.argv[1])
run = killable_run(path)
run.num_epochs = 1
run.train()
old = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, resource.RLIM_INFINITY))
run.num_epochs = 2
try:
    run.train()
except OSError as error:
    print(type(error).__name__, path.read_bytes() == old, [p.name for p in path.parent.iterdir()])
"""


def test_a_full_disk_keeps_the_old_checkpoint_and_leaves_no_other_file(tmp_path):
    pytest.importorskip("resource", reason="limits the size of files as POSIX does")
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "run.npz")],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.stdout, child.stderr) == ("OSError True ['run.npz']\n", "")


# Killed


def start_child(checkpoint, *hang):
    """A process that trains until it is killed; it returns once it has begun or, with hang, is in mid-write."""
    root = Path(__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "tests/small_run.py", checkpoint, *map(str, hang)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    if hang:
        assert child.stdout.readline() == "writing\n"
    return child


def kill(child):
    """Returns whether it was still running."""
    child.kill()
    with child:
        return child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["half written", "before the replacement"])
def test_killed_in_mid_write_leaves_the_old_checkpoint_whole(tmp_path, moment):
    path = tmp_path / "run.npz"
    assert kill(start_child(path, 5, moment))
    assert contents(path)["meta"]["step"] == 3  # the fifth write is that of step 4
    assert killable_run(path).step == 3


def test_killed_at_20_random_moments_a_run_ends_bit_for_bit_as_if_never_stopped(tmp_path):
    path, whole = tmp_path / "run.npz", tmp_path / "whole.npz"
    killable_run(whole).train()
    expected = contents(whole)
    rng = np.random.default_rng(0)
    kills = 0
    while kills < 20:
        if kills % 4 == 3:
            child = start_child(path, rng.integers(1, 6), ["half written", "before the replacement"][kills % 8 // 4])
        else:
            child = start_child(path)
            time.sleep(rng.uniform(0, 0.08))
        kills += kill(child)
        if path.exists() and contents(path)["meta"]["step"] > 12 * STEPS - 6:  # too few writes left to hang in one
            killable_run(path).train()
            assert_same(contents(path), expected)
            path.unlink()
    killable_run(path).train()
    assert_same(contents(path), expected)


# Ctrl-C


def test_ctrl_c_ends_training_after_the_step_in_hand(caplog):
    solver = trained(before_step(8, press_ctrl_c, small_net()), num_epochs=4)
    assert solver.step == len(solver.loss_history) == 9
    assert "Stopped by Ctrl-C after step 9" in caplog.text


def test_ctrl_c_leaves_the_best_so_far_in_the_model():
    model = small_net(use_batchnorm=True)
    solver = trained(before_step(4 * STEPS + 3, press_ctrl_c, model), **WRECKED)
    assert solver.epoch == 4
    assert_best_is_left_behind(solver)


@pytest.mark.parametrize("step", [0, 8, 2 * STEPS - 1])
def test_train_again_after_ctrl_c_goes_on_bit_for_bit(step):
    net = {"use_batchnorm": True, "dropout": 0.6}
    solver = trained(before_step(step, press_ctrl_c, small_net(**net)), update_rule="adam", num_epochs=4)
    assert solver.step == step + 1
    solver.train()
    assert_same(results(solver), results(trained(small_net(**net), update_rule="adam", num_epochs=4)))


def test_ctrl_c_saves_the_step_it_stopped_at(tmp_path):
    settings = {"update_rule": "adam", "num_epochs": 4}
    trained(before_step(8, press_ctrl_c, small_net()), checkpoint_name=tmp_path / "run", **settings)
    resumed = Solver.resume(tmp_path / "run", small_net(), small_data(), verbose=False)
    assert resumed.step == 9
    resumed.train()
    assert_same(results(resumed), results(trained(**settings)))


def test_ctrl_c_in_the_callback_ends_training():
    assert trained(callback=lambda solver: press_ctrl_c(), num_epochs=4).epoch == 1


def press_ctrl_c_twice():
    press_ctrl_c()
    press_ctrl_c()


def test_a_second_ctrl_c_breaks_off_the_step_with_the_best_in_the_model(tmp_path):
    settings = WRECKED | {"checkpoint_every": 1}
    model = before_step(4 * STEPS + 3, press_ctrl_c_twice, small_net())
    solver = make_solver(model, checkpoint_name=tmp_path / "run", **settings)
    with pytest.raises(KeyboardInterrupt):
        solver.train()
    assert solver.step == 4 * STEPS + 3
    assert_best_is_left_behind(solver)
    resumed = Solver.resume(tmp_path / "run", small_net(), small_data(), callback=wreck, verbose=False)
    resumed.train()
    assert_same(results(resumed), results(trained(**settings)))


@pytest.mark.parametrize("act", [press_ctrl_c, press_ctrl_c_twice, cut_power, lambda: None])
def test_ctrl_c_means_what_it_did_before_once_training_has_ended(act):
    before = signal.getsignal(signal.SIGINT)
    try:
        trained(before_step(3, act, small_net()))
    except (KeyboardInterrupt, PowerCutError):
        assert act in (press_ctrl_c_twice, cut_power)
    assert signal.getsignal(signal.SIGINT) is before


def test_train_works_in_a_thread_where_no_ctrl_c_arrives():
    solver = make_solver()
    thread = threading.Thread(target=solver.train)
    thread.start()
    thread.join()
    assert_same(results(solver), results(trained()))


# Not finite


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_checkpoint(tmp_path):
    solver = make_solver(optim_config={"learning_rate": 1e20}, checkpoint_name=tmp_path / "run")
    with pytest.raises(FloatingPointError) as caught:
        solver.train()
    step = len(solver.loss_history) + 1
    assert 1 < step <= STEPS
    assert re.match(
        rf"the loss, (nan|inf), is not finite at step {step} \(epoch 1\) with learning rate 1e\+20: "
        r"make a new Solver .* "
        rf"the last good checkpoint is {re.escape(str(tmp_path / 'run.npz'))}\.$",
        str(caught.value),
    )


def test_a_loss_that_is_not_finite_is_told_with_the_decayed_rate_and_no_checkpoint():
    solver = make_solver(num_epochs=4, lr_decay=1e20, optim_config={"learning_rate": 0.5})
    with pytest.raises(FloatingPointError, match=r"\(epoch 2\) with learning rate 5e\+19: .*; no checkpoint was kept"):
        solver.train()


def test_a_loss_that_is_not_finite_leaves_the_best_in_the_model():
    model = small_net()

    def spoil():
        model.params["W3"][0] = np.nan

    solver = make_solver(before_step(4 * STEPS + 2, spoil, model), **WRECKED)
    with pytest.raises(FloatingPointError, match=rf"at step {4 * STEPS + 3} \(epoch 5\)"):
        solver.train()
    assert all(np.isfinite(w).all() for w in model.params.values())
    assert_best_is_left_behind(solver)


def test_parameters_that_are_not_finite_are_not_saved(checkpoint):
    old = checkpoint.read_bytes()
    solver = resume_small(checkpoint)
    solver._latest["params/W2"][0, 0] = np.inf
    with pytest.raises(FloatingPointError, match=r"params/W2 is not finite"):
        solver.save()
    assert checkpoint.read_bytes() == old


def test_measuring_on_no_samples_is_refused():
    X, y = small_data()["X_val"], small_data()["y_val"]
    with pytest.raises(ValueError, match="num_samples: wanted a whole number of at least 1, got 0"):
        make_solver().check_accuracy(X, y, num_samples=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_parameter_that_is_not_finite_stops_at_its_step_and_reaches_no_checkpoint(tmp_path, dtype):
    settings = {"optim_config": {"learning_rate": 1e308}, "update_rule": "rmsprop"}
    solver = make_solver(
        small_net(dtype=dtype, weight_scale=1), checkpoint_name=tmp_path / "run", checkpoint_every=1, **settings
    )
    with pytest.raises(FloatingPointError, match=r"^W1 is not finite at step 1 \(epoch 1\)"):
        solver.train()
    assert solver.loss_history == []
    assert all(np.isfinite(array).all() for array in contents(tmp_path / "run.npz")["arrays"].values())


def test_a_parameter_that_is_not_finite_after_the_last_step_is_found():
    model = FixedNet([1, 0, 0])
    model.params["w"] = np.zeros(2)
    gradient = np.ones(2)
    model.loss = lambda X, y=None: np.zeros((len(X), 3)) if y is None else (1.0, {"w": gradient})

    def spoil():
        gradient[1] = np.inf

    before_step(2 * STEPS - 1, spoil, model)
    with pytest.raises(FloatingPointError, match=r"w is not finite at step 12 \(epoch 2\)"):
        make_solver(model).train()


# Progress and callback


def test_verbose_shows_epoch_steps_loss_and_accuracies(capsys):
    solver = trained(verbose=True)
    out, err = capsys.readouterr()
    last = err.split("\r")[-1]
    assert out == ""
    assert "epoch 2/2" in last
    assert "12/12" in last
    accuracies = f"train={solver.train_acc_history[-1]:.3f}, val={solver.val_acc_history[-1]:.3f}"
    assert f"loss={solver.loss_history[-1]:.3f}, {accuracies}" in last


def test_verbose_false_is_silent(capfd):
    trained(verbose=False)
    assert capfd.readouterr() == ("", "")


def test_resume_with_verbose_false_is_silent(tmp_path, capfd):
    trained(checkpoint_name=tmp_path / "run")
    Solver.resume(tmp_path / "run", small_net(), small_data(), num_epochs=3, verbose=False).train()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def bars(monkeypatch):
    """What is told to the progress bar: the steps at which it starts, ends, and is moved to."""
    told = []

    class Bar:
        def __init__(self, total, initial, **_):
            told.append({"from": initial, "to": total, "shown": []})
            self.n = initial

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def set_description(self, *_, **__):
            pass

        set_postfix = set_description

        def update(self, n):
            self.n += n
            told[-1]["shown"].append(self.n)

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    return told


def test_the_bar_moves_every_print_every_steps_and_at_the_end_of_an_epoch(bars):
    trained(print_every=4)
    assert bars == [{"from": 0, "to": 12, "shown": [4, 6, 8, 12]}]


def test_the_bar_of_a_resumed_run_starts_where_that_stopped(bars, tmp_path):
    trained(print_every=4, checkpoint_name=tmp_path / "run")
    Solver.resume(tmp_path / "run", small_net(), small_data(), num_epochs=3).train()
    assert bars[1] == {"from": 12, "to": 18, "shown": [16, 18]}


def test_callback_is_called_with_the_solver_after_each_epoch():
    calls = []
    solver = trained(num_epochs=3, callback=lambda s: calls.append((s, s.epoch, len(s.val_acc_history))))
    assert calls == [(solver, 1, 2), (solver, 2, 3), (solver, 3, 4)]


@pytest.mark.parametrize("true", [True, np.True_])
def test_callback_stops_training_by_returning_true(true):
    solver = trained(num_epochs=4, callback=lambda s: true if s.epoch == 2 else None)
    assert (solver.epoch, len(solver.loss_history)) == (2, 2 * STEPS)
    solver.callback = None
    solver.train()
    assert_same(results(solver), results(trained(num_epochs=4)))


@pytest.mark.parametrize("answer", [0.5, 1, "yes", False, np.False_, np.ones(2)], ids=repr)
def test_callback_that_returns_anything_but_true_does_not_stop_training(answer):
    assert trained(callback=lambda s: answer).epoch == 2


def test_an_exception_in_the_callback_leaves_the_best_and_training_can_go_on():
    def fail(solver):
        raise PowerCutError

    solver = make_solver(num_epochs=4, callback=fail)
    with pytest.raises(PowerCutError):
        solver.train()
    assert solver.check_accuracy(solver.data["X_val"], solver.data["y_val"]) == solver.best_val_acc
    solver.callback = None
    solver.train()
    assert_same(results(solver), results(trained(num_epochs=4)))


# Bad input


def test_update_rule_np_is_refused_and_lists_the_choices():
    with pytest.raises(ValueError, match="update_rule: wanted one of sgd, sgd_momentum, rmsprop, adam, got 'np'"):
        make_solver(update_rule="np")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size: wanted a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: .* got 2.5"),
        ({"num_epochs": 0}, "num_epochs: .* got 0"),
        ({"num_train_samples": 0}, "num_train_samples: .* got 0"),
        ({"num_val_samples": -1}, "num_val_samples: .* got -1"),
        ({"print_every": 0}, "print_every: .* got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: .* got 0"),
        ({"seed": -1}, "seed: .* got -1"),
        ({"lr_decay": "slow"}, "lr_decay: wanted a number of at least 0, got 'slow'"),
        ({"lr_decay": None}, "lr_decay: wanted a number of at least 0, got None"),
        ({"optim_config": {"lr": 0.1}}, "unknown lr; this rule knows learning_rate"),
        ({"lr_decay": -1}, "lr_decay: wanted a number of at least 0, got -1"),
        (
            {"optim_config": {"learning_rate": "high"}},
            r"optim_config\['learning_rate'\]: wanted a number .* got 'high'",
        ),
        ({"optim_config": {"learning_rate": float("nan")}}, r"optim_config\['learning_rate'\]: .* got nan"),
        ({"optim_config": "adam"}, "optim_config: wanted a dict, got 'adam'"),
        ({"optim_config": {"velocity": np.ones(3)}, "update_rule": "sgd_momentum"}, r"optim_config\['velocity'\]"),
    ],
    ids=str,
)
def test_a_setting_that_does_not_serve_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_solver(**settings)


def test_a_setting_that_is_misspelt_is_refused():
    with pytest.raises(TypeError, match="num_epoch"):
        make_solver(num_epoch=3)


def with_entry(key, index, value, dtype=None):
    """The small data with one entry changed."""
    data = small_data()
    data[key] = data[key].astype(dtype or data[key].dtype)
    data[key][index] = value
    return data


def with_both(key, index, *values):
    data = small_data()
    for i, value in zip(index, values, strict=True):
        data[key][i] = value
    return data


DATA = small_data()
BAD_DATA = {
    "None": (None, "data: wanted a dict, got NoneType"),
    "a tuple": (tuple(DATA.values()), "data: wanted a dict, got tuple"),
    "no y_val": ({k: DATA[k] for k in ("X_train", "y_train", "X_val")}, "data: lacks y_val; it has X_train, y_train"),
    "empty": ({}, "data: lacks X_train, y_train, X_val, y_val"),
    "X a list": (DATA | {"X_train": DATA["X_train"].tolist()}, "X_train: wanted a NumPy array, got list"),
    "y a list": (DATA | {"y_val": DATA["y_val"].tolist()}, "y_val: wanted a NumPy array, got list"),
    "X flat": (DATA | {"X_train": np.zeros(50)}, r"X_train: wanted numbers of shape \(N, ...\).* shape \(50,\)"),
    "X without examples": (DATA | {"X_val": np.zeros((0, 6))}, r"X_val: .* N > 0, got float64 of shape \(0, 6\)"),
    "X of objects": (DATA | {"X_val": np.full((60, 6), None)}, "X_val: wanted numbers .* got object"),
    "X complex": (DATA | {"X_train": np.zeros((50, 6), complex)}, "X_train: wanted numbers .* got complex128"),
    "X of words": (DATA | {"X_train": np.full((50, 6), "a")}, "X_train: wanted numbers .* got <U1"),
    "X too wide for the model": (DATA | {"X_train": np.zeros((50, 7))}, r"X_train: does not fit the model: .*\(1, 7\)"),
    "X of val unlike X of train": (DATA | {"X_val": np.zeros((60, 5))}, r"X_val: does not fit the model: .*\(1, 5\)"),
    "NaN in X": (with_entry("X_train", (41, 2), np.nan), r"X_train: .* finite numbers, got nan at index \(41, 2\)"),
    "inf in X": (with_entry("X_val", (0, 5), -np.inf), r"X_val: .* finite numbers, got -inf at index \(0, 5\)"),
    "inf and -inf in X": (
        with_both("X_train", [(3, 1), (4, 0)], np.inf, -np.inf),
        r"X_train: .* finite numbers, got inf at index \(3, 1\)",
    ),
    "y too short": (DATA | {"y_train": DATA["y_train"][:-1]}, r"y_train: wanted 50 integer labels, .* \(49,\)"),
    "y a column": (DATA | {"y_train": DATA["y_train"][:, None]}, r"y_train: wanted 50 integer .* \(50, 1\)"),
    "y of floats": (DATA | {"y_val": DATA["y_val"] + 0.0}, "y_val: wanted 60 integer labels, got float64"),
    "y of booleans": (DATA | {"y_val": DATA["y_val"] > 1}, "y_val: wanted 60 integer labels, got bool"),
    "a negative label": (with_entry("y_train", 7, -1), "y_train: wanted labels from 0 to 2, got -1 at index 7"),
    "a label too high": (with_entry("y_val", 59, 3), "y_val: wanted labels from 0 to 2, got 3 at index 59"),
    "a uint8 label too high": (with_entry("y_val", 0, 255, np.uint8), "y_val: .* from 0 to 2, got 255 at index 0"),
}


@pytest.mark.parametrize(("data", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused_with_what_and_where(data, message):
    with pytest.raises(ValueError, match=message):
        Solver(small_net(), data)


@pytest.mark.parametrize("huge", [1e38, -1e38])
def test_large_finite_numbers_whose_sum_overflows_are_no_error(huge):
    Solver(small_net(), DATA | {"X_train": np.full((50, 6), huge, np.float32)})


def test_numbers_beyond_the_nets_dtype_stop_at_the_first_step_without_a_warning():
    data = DATA | {"X_train": np.full((50, 6), 1e300), "X_val": np.full((60, 6), 1e300)}
    with pytest.raises(FloatingPointError, match="at step 1 "):
        make_solver(data=data).train()


def test_labels_of_uint8_train_like_those_of_int64():
    small = {name: x.astype(np.uint8) if name.startswith("y") else x for name, x in DATA.items()}
    assert_same(results(trained(data=small)), results(trained(data=DATA)))


def test_images_of_float64_are_computed_in_the_nets_float32():
    model = small_net(use_batchnorm=True)
    loss, dtypes = model.loss, set()

    def noting_loss(X, y=None):
        answer = loss(X, y)
        dtypes.update([answer.dtype] if y is None else [grad.dtype for grad in answer[1].values()])
        return answer

    model.loss = noting_loss
    trained(model, small_data(dtype=np.float64), update_rule="adam")
    assert dtypes | {w.dtype for w in model.params.values()} == {np.dtype(np.float32)}


def test_the_data_is_not_written_to():
    data = small_data()
    for array in data.values():
        array.flags.writeable = False
    trained(small_net(use_batchnorm=True, dropout=0.5), data)
