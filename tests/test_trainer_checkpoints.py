"""Solver: a checkpoint holds all of a run, and a file that is damaged, hostile or another's is refused."""

import io
import json
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
    resume,
    resumed,
    small_data,
    small_net,
    state,
    trained,
    training_stops,
)

from cs231n.files import write_checked_zip
from cs231n.trainer import Solver

pytestmark = pytest.mark.usefixtures("fast_disk")

BATCHNORM = {"use_batchnorm": True}


@pytest.fixture
def checkpoint(tmp_path):
    """The file of a whole run, and the only one in its folder."""
    trained(small_net(**BATCHNORM), update_rule="adam", checkpoint_name=tmp_path / "run")
    return tmp_path / "run.npz"


def assert_refused(path, says):
    """By one line that names the file and what to do."""
    message = rf"^{re.escape(str(path))}.*{says}[^\n]*; use another copy of it, or train again$"
    with pytest.raises(ValueError, match=message):
        resume(path, small_net(**BATCHNORM))


def rewrite(path, meta=None, remove=(), **arrays):
    """Change some of what a checkpoint holds; its checksum is right."""
    with np.load(path) as file:
        old = dict(file)
    new = old | arrays | {"meta": np.array(json.dumps(json.loads(str(old["meta"])) | (meta or {})))}
    content = io.BytesIO()
    np.savez(content, **{name: array for name, array in new.items() if name not in remove})
    write_checked_zip(path, content.getvalue())


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


def test_a_tilde_in_checkpoint_name_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trained(checkpoint_name="~/runs/a")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "a.npz"]
    resume("~/runs/a")


def test_without_checkpoint_name_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(checkpoint_every=1).save()
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_in_the_history_are_saved_as_they_are(tmp_path):
    solver = trained(small_net(), checkpoint_name=tmp_path / "run")
    solver.loss_history[0] = np.float32(0.1)  # as where a learner's step, exercise 1.8, appends what the net returns
    solver.save()
    assert resume(tmp_path / "run.npz", small_net()).loss_history == solver.loss_history


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
    write_npz(path, meta=np.array(load, dtype=object))


def write_object_array(path, load):
    rewrite(path, **{"model/params/W1": np.array([load], dtype=object)})


def write_npz(path, **arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_checked_zip(path, content.getvalue())


@pytest.mark.parametrize("write", [write_pickle, write_object_meta, write_object_array])
def test_a_checkpoint_with_a_pickle_is_refused_and_nothing_in_it_runs(checkpoint, write):
    mark = checkpoint.with_name("executed")
    write(checkpoint, Explosive(mark))
    assert_refused(checkpoint, "has no checksum" if write is write_pickle else "pickle|meta")
    assert not mark.exists()
    if write is write_pickle:  # the charge is live
        pickle.loads(checkpoint.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(checkpoint, share):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    assert_refused(checkpoint, "has no checksum")


def test_a_checkpoint_with_a_flipped_bit_is_refused_wherever_it_is(checkpoint):
    whole = checkpoint.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.choice(len(whole), 50, replace=False), *range(len(whole) - 120, len(whole))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        checkpoint.write_bytes(flipped)
        assert_refused(checkpoint, "(is damaged|has no checksum)")


def test_numpy_reads_a_checkpoint(checkpoint):
    with np.load(checkpoint) as file:
        assert file["model/params/W1"].shape == (6, 5)


def test_a_checkpoint_of_an_earlier_version_is_refused(checkpoint):
    with np.load(checkpoint) as file:
        np.savez(checkpoint, **dict(file))
    assert_refused(checkpoint, "has no checksum: it is damaged, or another program or an earlier version wrote it")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"meta": {"format": "cs231n.Solver, 3"}}, "this version reads 'cs231n.Solver, 2'"),
        ({"remove": ["optim/W1/m"]}, "it lacks a part"),
        ({"model/params/W2": np.full((5, 4), np.nan, np.float32)}, "model/params/W2 is not finite"),
        ({"best/bn_params/0/running_var": np.full(5, np.inf, np.float32)}, "running_var is not finite"),
        ({"optim/W1/m": np.zeros((5, 6))}, r"W1/m, of shape \(5, 6\), fits no parameter"),
    ],
)
def test_a_checkpoint_with_wrong_content_and_a_right_checksum_is_refused(checkpoint, change, says):
    rewrite(checkpoint, **change)
    assert_refused(checkpoint, says)


def test_the_best_parameters_of_another_shape_are_refused(checkpoint):
    rewrite(checkpoint, **{"best/params/W1": np.zeros((6, 4), np.float32)})
    with pytest.raises(ValueError, match=r"does not fit .*run\.npz; params/W1 is float32 \(6, 5\) in the model and"):
        resume(checkpoint, small_net(**BATCHNORM))


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("not a checkpoint"),
        lambda path: write_npz(path, x=np.zeros(3)),
        lambda path: write_npz(path, meta=np.zeros(3)),
        lambda path: write_npz(path, meta=np.array("{}")),
        lambda path: write_npz(path, meta=np.array("[]")),
        write_npy,
    ],
    ids=["text", "foreign npz", "meta of numbers", "empty meta", "meta of another type", "npy"],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, write):
    write(tmp_path / "run.npz")
    assert_refused(tmp_path / "run.npz", "(has no checksum|is not a checkpoint of this Solver)")


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


@pytest.mark.parametrize("key", ["X_train", "y_train", "X_val", "y_val"])
@pytest.mark.parametrize("place", [0, 2500, -1])
def test_resume_refuses_data_that_differs_in_one_number(tmp_path, key, place):
    rng = np.random.default_rng(0)
    data = {f"X_{split}": rng.standard_normal((3001, 6)) for split in ("train", "val")}
    data |= {f"y_{split}": rng.integers(0, 3, 3001) for split in ("train", "val")}
    make_solver(data=data, checkpoint_name=tmp_path / "run").save()
    resume(tmp_path / "run", data=data)
    changed = data[key].copy()
    changed[place] = (changed[place] + 1) % 3
    with pytest.raises(ValueError, match=rf"data: .*run\.npz was made with other data: wanted {key} with"):
        resume(tmp_path / "run", data=data | {key: changed})


def test_resume_takes_the_same_data_in_another_layout(checkpoint):
    data = small_data()
    resume(checkpoint, small_net(**BATCHNORM), data | {"X_train": np.asfortranarray(data["X_train"])})


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"reg": 0.1}, r"wanted reg 0\.0, got 0\.1"),
        ({"dropout": 0.5}, r"wanted dropout_param \{'p': 1\.0\}, got \{'p': 0\.5\}"),
    ],
)
def test_resume_refuses_a_model_that_would_train_differently_and_leaves_it_as_it_is(checkpoint, net, message):
    model = small_net(**BATCHNORM | net)
    before = state(model)
    with pytest.raises(ValueError, match=rf"model: .*run\.npz was made with another one: {message}$"):
        resume(checkpoint, model)
    assert_same(state(model), before)


@pytest.mark.parametrize("name", ["momentum", "eps"])
def test_resume_refuses_another_setting_of_a_batch_norm(checkpoint, name):
    model = small_net(**BATCHNORM)
    model.bn_params[1][name] = 0.3
    with pytest.raises(ValueError, match=rf"wanted bn_params .*, got .*'{name}': 0\.3"):
        resume(checkpoint, model)


def test_resume_takes_a_model_whose_settings_change_in_training(tmp_path):
    """They are a part of the run, such as a count of steps, and the model may be the one that was trained."""

    def count(model):
        model.steps += 1

    model = small_net(dropout=0.6, seed=4)
    model.steps, model.annealed = 0, {"reg": 1.0}
    before_step(0, lambda: count(model), model)
    before_step(3, lambda: model.annealed.update(reg=0.5), model)
    trained(model, checkpoint_name=tmp_path / "run")
    resume(tmp_path / "run", model)
    fresh = small_net(dropout=0.6, seed=9)
    fresh.steps, fresh.annealed = 0, {"reg": 1.0}
    resume(tmp_path / "run", fresh)


def test_resume_takes_the_same_labels_in_another_dtype(checkpoint):
    data = small_data()
    resume(checkpoint, small_net(**BATCHNORM), data | {"y_train": data["y_train"].astype(np.uint8)})


def test_resume_checks_the_data_as_the_solver_does(checkpoint):
    with pytest.raises(ValueError, match="data: lacks X_train"):
        resume(checkpoint, data={})
