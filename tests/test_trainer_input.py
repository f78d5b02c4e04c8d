"""Solver: settings and data that it cannot train with are refused, by name; others train as they are."""

import numpy as np
import pytest
from small_run import assert_same_results, make_solver, small_data, small_net, trained

from cs231n.trainer import Solver


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
        ({"optim_config": {"lr": 0.1}}, "config: wanted learning_rate, and nothing else; got 'lr'"),
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
def test_a_bad_setting_is_named(settings, message):
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


def test_labels_of_uint8_train_like_those_of_int64():
    small = {name: x.astype(np.uint8) if name.startswith("y") else x for name, x in DATA.items()}
    assert_same_results(trained(data=small), trained(data=DATA))


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
