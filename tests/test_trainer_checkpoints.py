"""Solver: a checkpoint holds all of a run, and a file that is damaged, hostile or another's is refused."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from children import Child, limit_files_to
from small_run import (
    STEPS,
    WRECKED,
    PowerCutError,
    assert_same,
    assert_same_results,
    before_step,
    contents,
    cut_power,
    make_solver,
    results,
    resume,
    resumed,
    small_data,
    small_net,
    state,
    trained,
    training_stops,
)

from cs231n.trainer import Solver

pytestmark = pytest.mark.usefixtures("fast_disk")

BATCHNORM = {"use_batchnorm": True}


@pytest.fixture
def checkpoint(tmp_path):
    """The file of a whole run, and the only one in its folder."""
    trained(small_net(**BATCHNORM), update_rule="adam", checkpoint_name=tmp_path / "run")
    return tmp_path / "run.npz"


def assert_refused(path):
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not a whole checkpoint"):
        resume(path, small_net(**BATCHNORM))


# Resuming


def test_a_tilde_in_a_checkpoints_name_is_the_users_home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    trained(small_net(), checkpoint_name="~/run")
    assert [path.name for path in tmp_path.rglob("*")] == ["home", "run.npz"]
    resume("~/run", small_net())


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [("sgd", np.float64), ("sgd_momentum", np.float32), ("rmsprop", np.float64), ("adam", np.float32)],
)
@pytest.mark.parametrize(
    ("every", "cut", "saved"),
    [(4, 10, 8), (1, 9, 9), (None, 2 * STEPS + 3, 2 * STEPS)],
    ids=["in mid-epoch", "at each step", "at the end of an epoch"],
)
def test_resume_is_bit_for_bit_the_uninterrupted_run(tmp_path, rule, dtype, every, cut, saved):
    net = {"use_batchnorm": True, "dropout": 0.6, "dtype": dtype}
    settings = {"update_rule": rule, "lr_decay": 0.8, "num_epochs": 3, "checkpoint_every": every}
    settings |= {"num_train_samples": 20, "num_val_samples": 40}
    whole = trained(small_net(**net), checkpoint_name=tmp_path / "whole", **settings)

    model = before_step(cut, cut_power, small_net(**net))
    training_stops(PowerCutError, model, checkpoint_name=tmp_path / "cut", **settings)
    assert contents(tmp_path / "cut.npz")["meta"]["step"] == saved
    assert_same_results(resumed(tmp_path / "cut", small_net(**net)), whole)
    assert_same(contents(tmp_path / "cut.npz"), contents(tmp_path / "whole.npz"))


def test_resume_puts_the_best_into_the_model(tmp_path):
    solver = trained(small_net(**BATCHNORM), checkpoint_name=tmp_path / "run", **WRECKED)
    model = small_net(**BATCHNORM, seed=9)
    resume(tmp_path / "run", model)
    assert_same(state(model), state(solver.model))


def test_resume_keeps_the_settings(tmp_path):
    settings = {"update_rule": "rmsprop", "lr_decay": 0.7, "batch_size": 5, "num_epochs": 3, "num_train_samples": 11}
    settings |= {"num_val_samples": 12, "print_every": 13, "checkpoint_every": 14, "seed": 15}
    trained(**settings, checkpoint_name=tmp_path / "run")
    solver = resume(tmp_path / "run")
    assert {name: getattr(solver, name) for name in settings} == settings


def test_resume_takes_more_epochs_and_keeps_a_learning_rate_that_the_callback_set(tmp_path):
    def halve(solver):
        for config in solver.optim_configs.values():
            config["learning_rate"] /= 2

    trained(callback=halve, checkpoint_name=tmp_path / "run")
    solver = resumed(tmp_path / "run", num_epochs=4, callback=halve)
    assert_same_results(solver, trained(num_epochs=4, callback=halve))


def test_a_checkpoint_saved_before_training_can_be_resumed(tmp_path):
    make_solver(checkpoint_name=tmp_path / "run").save()
    assert_same_results(resumed(tmp_path / "run", small_net(seed=9)), trained())


# Writing


@pytest.mark.parametrize(("every", "steps"), [(None, [0, 6, 12]), (4, [0, 4, 6, 8, 12]), (6, [0, 6, 12])])
def test_a_checkpoint_is_written_at_the_start_at_each_epoch_and_every_so_many_steps(
    tmp_path, monkeypatch, every, steps
):
    saved, save = [], Solver.save
    monkeypatch.setattr(Solver, "save", lambda solver: (save(solver), saved.append(contents(path)["meta"]["step"])))
    path = tmp_path / "run.npz"
    trained(checkpoint_name=path, checkpoint_every=every)
    assert saved == steps


@pytest.mark.parametrize(("name", "file"), [("run", "run.npz"), ("run.npz", "run.npz"), ("lr0.1", "lr0.1.npz")])
def test_checkpoint_name_gains_npz_and_its_folder_is_made(tmp_path, name, file):
    trained(checkpoint_name=str(tmp_path / "a" / "b" / name), checkpoint_every=1)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [file]
    resume(str(tmp_path / "a" / "b" / name))


def test_without_checkpoint_name_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(checkpoint_every=1).save()
    assert list(tmp_path.iterdir()) == []


def test_save_after_train_saves_the_latest_parameters_and_not_the_best(tmp_path):
    solver = trained(checkpoint_name=tmp_path / "run", **WRECKED)
    before = contents(tmp_path / "run.npz")
    solver.save()
    assert_same(contents(tmp_path / "run.npz"), before)


def test_training_continues_after_a_write_that_failed(checkpoint, monkeypatch):
    solver = resume(checkpoint, small_net(**BATCHNORM), num_epochs=4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            solver.train()
    solver.train()
    assert_same_results(solver, trained(small_net(**BATCHNORM), update_rule="adam", num_epochs=4))


def train_on_a_full_disk(tell, path):
    solver = trained(checkpoint_name=path)
    old = path.read_bytes()
    limit_files_to(len(old) // 2)
    solver.num_epochs = 3
    try:
        solver.train()
    except OSError as error:
        tell((error.filename, path.read_bytes() == old, [p.name for p in path.parent.iterdir()]))


def test_a_full_disk_leaves_the_old_checkpoint_and_no_other_file(tmp_path):
    path = tmp_path / "run.npz"
    with Child(train_on_a_full_disk, path) as child:
        child.wait_for((str(path), True, ["run.npz"]))
        assert child.exit_status() == 0


# Damage and malice


def test_a_missing_checkpoint_is_named_and_no_folder_is_made_for_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none" / "run.npz"))):
        resume(tmp_path / "none" / "run")
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
    assert_refused(checkpoint)
    assert not mark.exists()
    if write is write_pickle:  # the charge is live
        pickle.loads(checkpoint.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(checkpoint, share):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    assert_refused(checkpoint)


def test_a_checkpoint_with_a_flipped_bit_is_refused_or_unharmed(checkpoint):
    whole = checkpoint.read_bytes()
    expected = results(resume(checkpoint, small_net(**BATCHNORM)))
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 50, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        checkpoint.write_bytes(flipped)
        try:
            solver = resume(checkpoint, small_net(**BATCHNORM))
        except ValueError:
            refused += 1
        else:
            assert_same(results(solver), expected)
    assert refused > 30


def test_a_checkpoint_that_lacks_an_array_is_refused(checkpoint):
    with np.load(checkpoint) as file:
        arrays = dict(file)
    del arrays["optim/W1/m"]
    np.savez(checkpoint, **arrays)
    assert_refused(checkpoint)


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("not a checkpoint"),
        lambda path: np.savez(path, x=np.zeros(3)),
        lambda path: np.savez(path, meta=np.zeros(3)),
        lambda path: np.savez(path, meta=np.array("{}")),
        lambda path: np.savez(path, meta=np.array("[]")),
        write_npy,
    ],
    ids=["text", "foreign npz", "meta of numbers", "empty meta", "meta of another type", "npy"],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, write):
    write(tmp_path / "run.npz")
    assert_refused(tmp_path / "run.npz")


# Another model, other data


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
    model = small_net(**BATCHNORM | net)
    before = state(model)
    with pytest.raises(ValueError, match=f"model: does not fit .*{message}"):
        resume(checkpoint, model)
    assert_same(state(model), before)


def test_resume_refuses_a_model_with_more_than_the_file_holds(tmp_path):
    trained(checkpoint_name=tmp_path / "run")
    with pytest.raises(ValueError, match=r"params/gamma1 is float32 .* in the model and absent in the file"):
        resume(tmp_path / "run", small_net(**BATCHNORM))


@pytest.mark.parametrize("key", ["X_train", "y_train", "X_val", "y_val", "fewer in train", "fewer in val"])
def test_resume_refuses_other_data(checkpoint, key):
    data = small_data()
    if key in data:
        data[key] = small_data(seed=1)[key]
    else:
        data = {name: x[:-1] if name.endswith(key.removeprefix("fewer in ")) else x for name, x in data.items()}
    with pytest.raises(ValueError, match=r"data: .*run\.npz was made with other data"):
        resume(checkpoint, small_net(**BATCHNORM), data)


def test_resume_takes_the_same_labels_in_another_dtype(checkpoint):
    data = small_data()
    resume(checkpoint, small_net(**BATCHNORM), data | {"y_train": data["y_train"].astype(np.uint8)})


def test_resume_checks_the_data_as_the_solver_does(checkpoint):
    with pytest.raises(ValueError, match="data: lacks X_train"):
        resume(checkpoint, data={})
