"""Solver: a run that was killed, stopped by Ctrl-C or spoilt by a number that is not finite loses nothing."""

import re
import signal
import threading
import time

import numpy as np
import pytest
from children import Child, hang_in_write
from small_run import (
    STEPS,
    WRECKED,
    FixedNet,
    PowerCutError,
    assert_best_is_left_behind,
    assert_same,
    assert_same_results,
    before_step,
    contents,
    cut_power,
    make_solver,
    press_ctrl_c,
    resume,
    resumed,
    small_data,
    small_net,
    trained,
    training_stops,
    wreck,
)

# Killed


def killable_run(checkpoint):
    """A run that uses all that a checkpoint has to hold and writes one after each step; or the rest of it."""
    net = small_net(use_batchnorm=True, dropout=0.6)
    if checkpoint.exists():
        return resume(checkpoint, net)
    settings = {"update_rule": "adam", "lr_decay": 0.9, "num_epochs": 12}
    return make_solver(net, **settings, checkpoint_name=checkpoint, checkpoint_every=1)


def train_and_tell(tell, checkpoint, *hang):
    run = killable_run(checkpoint)
    if hang:
        hang_in_write(tell, checkpoint, *hang)
    tell("ready")
    run.train()


def kill(checkpoint, *hang, after=0.0):
    """Kill a run in a write, or some seconds after its start.  Returns whether it was still running."""
    with Child(train_and_tell, checkpoint, *hang) as child:
        child.wait_for("ready")
        if hang:
            child.wait_for("writing")
        time.sleep(after)
        return child.kill()


@pytest.mark.parametrize("moment", ["half written", "before the replacement"])
def test_killed_in_mid_write_leaves_the_old_checkpoint_whole(tmp_path, moment):
    path = tmp_path / "run.npz"
    assert kill(path, 5, moment)
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
            kills += kill(path, rng.integers(1, 6), ["half written", "before the replacement"][kills % 8 // 4])
        else:
            kills += kill(path, after=rng.uniform(0, 0.08))
        if path.exists() and contents(path)["meta"]["step"] > 12 * STEPS - 6:  # too few writes left to hang in one
            killable_run(path).train()
            assert_same(contents(path), expected)
            path.unlink()
    killable_run(path).train()
    assert_same(contents(path), expected)


# Ctrl-C


def press_ctrl_c_twice():
    press_ctrl_c()
    press_ctrl_c()


def test_ctrl_c_ends_training_after_the_current_step(caplog):
    solver = trained(before_step(8, press_ctrl_c), num_epochs=4)
    assert solver.step == len(solver.loss_history) == 9
    assert "Stopped by Ctrl-C after step 9" in caplog.text


def test_ctrl_c_leaves_the_best_so_far_in_the_model():
    solver = trained(before_step(4 * STEPS + 3, press_ctrl_c, small_net(use_batchnorm=True)), **WRECKED)
    assert solver.epoch == 4
    assert_best_is_left_behind(solver)


@pytest.mark.parametrize("step", [0, 8, 2 * STEPS - 1])
def test_train_again_after_ctrl_c_continues_bit_for_bit(step):
    net = {"use_batchnorm": True, "dropout": 0.6}
    solver = trained(before_step(step, press_ctrl_c, small_net(**net)), update_rule="adam", num_epochs=4)
    assert solver.step == step + 1
    solver.train()
    assert_same_results(solver, trained(small_net(**net), update_rule="adam", num_epochs=4))


def test_ctrl_c_saves_the_step_it_stopped_at(tmp_path):
    settings = {"update_rule": "adam", "num_epochs": 4}
    trained(before_step(8, press_ctrl_c), checkpoint_name=tmp_path / "run", **settings)
    assert contents(tmp_path / "run.npz")["meta"]["step"] == 9
    assert_same_results(resumed(tmp_path / "run"), trained(**settings))


def test_ctrl_c_in_the_callback_ends_training():
    assert trained(callback=lambda solver: press_ctrl_c(), num_epochs=4).epoch == 1


def test_a_second_ctrl_c_interrupts_the_current_step_with_the_best_in_the_model(tmp_path):
    settings = WRECKED | {"checkpoint_every": 1}
    model = before_step(4 * STEPS + 3, press_ctrl_c_twice)
    solver = training_stops(KeyboardInterrupt, model, checkpoint_name=tmp_path / "run", **settings)
    assert solver.step == 4 * STEPS + 3
    assert_best_is_left_behind(solver)
    assert_same_results(resumed(tmp_path / "run", callback=wreck), trained(**settings))


@pytest.mark.parametrize("act", [press_ctrl_c, press_ctrl_c_twice, cut_power, lambda: None])
def test_ctrl_c_means_what_it_did_before_once_training_has_ended(act):
    before = signal.getsignal(signal.SIGINT)
    try:
        trained(before_step(3, act))
    except (KeyboardInterrupt, PowerCutError):
        assert act in (press_ctrl_c_twice, cut_power)
    assert signal.getsignal(signal.SIGINT) is before


def test_train_works_in_a_thread_where_no_ctrl_c_arrives():
    solver = make_solver()
    thread = threading.Thread(target=solver.train)
    thread.start()
    thread.join()
    assert_same_results(solver, trained())


# Not finite


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_checkpoint(tmp_path):
    solver = training_stops(
        FloatingPointError,
        optim_config={"learning_rate": 1e20},
        checkpoint_name=tmp_path / "run",
        match=r"the loss, (nan|inf), is not finite at step \d \(epoch 1\) with learning rate 1e\+20: "
        rf"make a new Solver .* the last good checkpoint is {re.escape(str(tmp_path / 'run.npz'))}\.$",
    )
    assert 0 < len(solver.loss_history) < STEPS


def test_the_message_of_a_loss_that_is_not_finite_has_the_decayed_rate_and_no_checkpoint():
    settings = {"num_epochs": 4, "lr_decay": 1e20, "optim_config": {"learning_rate": 0.5}}
    message = r"\(epoch 2\) with learning rate 5e\+19: .*; no checkpoint was kept"
    training_stops(FloatingPointError, **settings, match=message)


def test_a_loss_that_is_not_finite_leaves_the_best_in_the_model():
    model = small_net()

    def spoil():
        model.params["W3"][0] = np.nan

    message = rf"at step {4 * STEPS + 3} \(epoch 5\)"
    solver = training_stops(FloatingPointError, before_step(4 * STEPS + 2, spoil, model), **WRECKED, match=message)
    assert all(np.isfinite(w).all() for w in model.params.values())
    assert_best_is_left_behind(solver)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    solver = trained(checkpoint_name=tmp_path / "run")
    old = (tmp_path / "run.npz").read_bytes()
    solver._latest["params/W2"][0, 0] = np.inf
    with pytest.raises(FloatingPointError, match=r"params/W2 is not finite"):
        solver.save()
    assert (tmp_path / "run.npz").read_bytes() == old


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_parameter_that_is_not_finite_stops_at_its_step_and_reaches_no_checkpoint(tmp_path, dtype):
    settings = {"update_rule": "rmsprop", "optim_config": {"learning_rate": 1e308}, "checkpoint_every": 1}
    settings |= {"checkpoint_name": tmp_path / "run", "match": r"^W1 is not finite at step 1 \(epoch 1\)"}
    solver = training_stops(FloatingPointError, small_net(dtype=dtype, weight_scale=1), **settings)
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
    training_stops(FloatingPointError, model, match=r"w is not finite at step 12 \(epoch 2\)")


def test_numbers_beyond_the_nets_dtype_stop_at_the_first_step_without_a_warning():
    data = small_data() | {"X_train": np.full((50, 6), 1e300), "X_val": np.full((60, 6), 1e300)}
    training_stops(FloatingPointError, data=data, match="at step 1 ")
