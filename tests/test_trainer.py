"""Solver: the model it keeps, the batches, masks and samples it draws, and the histories it leaves."""

import math
import re

import numpy as np
import pytest
from small_run import (
    BATCH,
    NUM_TRAIN,
    STEPS,
    WRECKED,
    FixedNet,
    LinearNet,
    PowerCutError,
    assert_best_is_left_behind,
    assert_same,
    assert_same_results,
    contents,
    cut_power,
    make_solver,
    resume,
    small_data,
    small_net,
    state,
    trained,
    training_stops,
    wreck,
)

from cs231n import fully_connected_net, optim

pytestmark = pytest.mark.usefixtures("fast_disk")

NETS = {
    "plain": {},
    "batchnorm and dropout": {"use_batchnorm": True, "dropout": 0.6},
    "layernorm and dropout": {"normalization": "layernorm", "dropout": 0.6},
}


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


def numbers_drawn(**settings):
    """The numbers of the examples in each batch of a run (steps, batch)."""
    return np.array([X[:, 0] for X in trained(LinearNet(), numbered_data(), **settings).model.batches], int)


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


def test_a_validation_accuracy_of_0_still_keeps_a_best_model_the_first_of_equals(tmp_path):
    data = small_data()
    data["y_val"][:] = 2
    model = FixedNet([1, 0, 0])
    assert trained(model, data, checkpoint_name=tmp_path / "run").best_val_acc == 0
    assert_same(model.params, {"w": np.zeros(1)})  # the initial ones were the first to reach it
    assert "best/params/w" in contents(tmp_path / "run.npz")["arrays"]


def test_best_model_may_be_changed_in_place_and_training_still_continues_from_the_latest():
    solver = trained()
    for w in solver.model.params.values():
        w[...] = 7
    solver.num_epochs = 3
    solver.train()
    assert_same_results(solver, trained(num_epochs=3))


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


def test_any_model_with_params_and_loss_can_be_trained():
    solver = trained(LinearNet(), num_epochs=20, optim_config={"learning_rate": 0.3})
    assert solver.best_val_acc > 0.6 > solver.val_acc_history[0]


# Batches, masks and samples


def test_an_epoch_draws_each_example_once_and_omits_those_that_fill_no_batch():
    drawn = numbers_drawn()
    assert drawn.shape == (2 * STEPS, BATCH)
    for epoch in (drawn[:STEPS], drawn[STEPS:]):
        assert len(np.unique(epoch)) == STEPS * BATCH


def test_each_epoch_is_shuffled_differently():
    drawn = numbers_drawn()
    assert np.any(np.diff(drawn.ravel()) < 0)
    assert set(drawn[:STEPS].ravel()) != set(drawn[STEPS:].ravel())  # each omits other examples


def test_labels_stay_with_their_examples():
    data = numbered_data()
    model, batches = noting_batches(LinearNet())
    trained(model, data)
    for X, y in batches:
        assert_same(y, data["y_train"][X[:, 0].astype(int)])


def test_a_batch_larger_than_the_data_is_all_of_it():
    assert np.sort(numbers_drawn(batch_size=1000)).tolist() == [list(range(NUM_TRAIN))] * 2


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


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_has_its_own_seed_again_after_training(fails):
    model = small_net(dropout=0.5, seed=5)
    if fails:
        training_stops(FloatingPointError, model, optim_config={"learning_rate": 1e20})
    else:
        trained(model)
    assert model.reseed(None) == 5


def test_the_same_seed_gives_the_same_run():
    assert_same_results(*(trained(small_net(**NETS["batchnorm and dropout"])) for _ in range(2)))


@pytest.mark.parametrize("seeds", [(1, 2), (None, None)])
def test_other_seeds_give_other_batches(seeds):
    a, b = (numbers_drawn(seed=seed) for seed in seeds)
    assert np.any(a != b)


@pytest.mark.parametrize("seeds", [(1, 2), (None, None)])
def test_other_seeds_give_other_masks(seeds):
    data = small_data()
    data["X_train"][:], data["y_train"][:] = data["X_train"][0], data["y_train"][0]  # all batches are equal
    a, b = (trained(small_net(dropout=0.5), data, seed=seed) for seed in seeds)
    assert abs(a.loss_history[0] - b.loss_history[0]) > 1e-3


def test_a_seed_from_the_system_can_be_used_again():
    first = trained(seed=None)
    assert_same_results(first, trained(seed=first.seed))


@pytest.mark.parametrize(("given", "measured"), [(40, 40), (None, NUM_TRAIN), (1000, NUM_TRAIN)])
def test_train_accuracy_is_measured_on_num_train_samples(given, measured):
    model = LinearNet()
    solver = make_solver(model, numbered_data(), num_train_samples=given)
    model.measured.clear()
    solver.train()
    samples = [X[:, 0].astype(int).tolist() for X in model.measured[::2]]  # validation has every second call
    assert [len(set(sample)) for sample in samples] == [measured] * 3
    assert measured == NUM_TRAIN or samples[0] != samples[1] != samples[2]


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
    assert trained(LinearNet()).loss_history[0] == pytest.approx(math.log(3))


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


def test_training_continues_when_num_epochs_is_raised(caplog):
    solver = trained()
    solver.train()
    assert "Already trained for 2 epochs" in caplog.text
    solver.num_epochs = 4
    solver.train()
    assert_same_results(solver, trained(num_epochs=4))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 500])
def test_check_accuracy_is_the_share_of_labels_with_the_highest_score(batch_size):
    solver = make_solver(FixedNet([0, 1, 0]))
    assert solver.check_accuracy(np.zeros((4, 6)), np.array([1, 0, 1, 1]), batch_size=batch_size) == 0.75


def test_check_accuracy_keeps_the_labels_of_the_samples_it_draws():
    solver = make_solver(LinearNet())
    solver.model.params["w"][:3] = np.eye(3)
    y = np.random.default_rng(0).integers(0, 3, 50)
    assert solver.check_accuracy(np.eye(6)[y], y, num_samples=20) == 1


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


def test_check_accuracy_refuses_to_measure_on_no_samples():
    with pytest.raises(ValueError, match="num_samples: wanted a whole number of at least 1, got 0"):
        make_solver().check_accuracy(np.zeros((4, 6)), np.zeros(4, int), num_samples=0)


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


def test_verbose_false_is_silent_in_a_resumed_run_too(tmp_path, capfd):
    trained(checkpoint_name=tmp_path / "run", verbose=False)
    resume(tmp_path / "run", num_epochs=3, verbose=False).train()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def bars(monkeypatch):
    """For each progress bar, the steps at which it starts and ends, and those that it shows."""
    made = []

    class Bar:
        def __init__(self, total, initial, **_):
            made.append({"from": initial, "to": total, "shown": []})
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
            made[-1]["shown"].append(self.n)

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    return made


def test_the_bar_moves_every_print_every_steps_and_at_the_end_of_an_epoch(bars, tmp_path):
    trained(print_every=4, checkpoint_name=tmp_path / "run")
    resume(tmp_path / "run", num_epochs=3).train()  # from where the first run stopped
    assert bars == [{"from": 0, "to": 12, "shown": [4, 6, 8, 12]}, {"from": 12, "to": 18, "shown": [16, 18]}]


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
    assert_same_results(solver, trained(num_epochs=4))


@pytest.mark.parametrize("answer", [0.5, 1, "yes", False, np.False_, np.ones(2)], ids=repr)
def test_callback_that_returns_anything_but_true_does_not_stop_training(answer):
    assert trained(callback=lambda s: answer).epoch == 2


def test_after_an_exception_in_the_callback_the_model_is_the_best_and_training_can_continue():
    solver = training_stops(PowerCutError, num_epochs=4, callback=lambda s: cut_power())
    assert solver.check_accuracy(solver.data["X_val"], solver.data["y_val"]) == solver.best_val_acc
    solver.callback = None
    solver.train()
    assert_same_results(solver, trained(num_epochs=4))
