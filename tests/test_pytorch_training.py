"""A run: what it learns, what it writes, and that it continues where it was stopped."""

import os
import threading
import time
from dataclasses import fields, replace
from itertools import count

import numpy as np
import pytest
import torch
from test_pytorch_data import bytes_and_labels
from torch import nn

from cs231n import pytorch_files as files
from cs231n import pytorch_step, pytorch_training
from cs231n.files import read_csv
from cs231n.pytorch_data import Images
from cs231n.pytorch_recipes import Classic, Speedrun
from cs231n.pytorch_step import WARM_UP, Evaluation, Step
from cs231n.pytorch_training import Training

TINY = Classic(epochs=3, batch_size=16, widths=(4, 8), blocks=1, lr=1e-2, train_images=64)
TINY_SPEEDRUN = Speedrun(epochs=3, batch_size=16, lr=0.05, widths=(4, 8), average_period=3, train_images=64)
RECIPES = {
    "classic": TINY,
    "torchvision": replace(TINY, loader="torchvision"),
    "lookahead": TINY_SPEEDRUN,
    "ema without muon": replace(TINY_SPEEDRUN, averaging="ema", muon=False),
    "hardest half": replace(TINY_SPEEDRUN, hardest=0.5),
}
EACH = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
CPU = torch.device("cpu")
COLUMNS = ["epoch", "lr", "images_per_second", "training_seconds", "train_loss", "train_acc", "val_loss", "val_acc"]

pytestmark = pytest.mark.usefixtures("fast_disk", "one_torch_thread")


@pytest.fixture
def images():
    train = Images(*bytes_and_labels(64), "cpu")
    return train, Images(*bytes_and_labels(32, seed=1), "cpu", train.statistics)


def trained(recipe, images, folder):
    training = Training(recipe, *images, folder)
    training.run(verbose=False)
    return training


def assert_same(a, b, where="state"):
    """a equals b in type and to the last bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def assert_same_end(folder, other):
    """The last checkpoints are the same, but for the time they took."""
    assert_same(*(without_times_in(files.load(f / "last.pt", "cpu")) for f in (folder, other)))
    assert_same(*(without_times(read_csv(f / "log.csv")) for f in (folder, other)))


def without_times_in(state):
    del state["progress"]["training_seconds"]
    state["resume"]["history"] = without_times(state["resume"]["history"])
    return state


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in ("images_per_second", "training_seconds")} for row in rows]


# Learning


@pytest.mark.parametrize("recipe", [TINY, TINY_SPEEDRUN], ids=["classic", "speedrun"])
def test_a_run_learns(recipe, tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = rng.integers(0, 100, (96, 3, 32, 32)) + 60 * np.eye(3, dtype=int)[y][:, :, None, None]  # red, green or blue
    x = x.astype(np.uint8)
    train = Images(x[:64], y[:64], "cpu")
    val = Images(x[64:], y[64:], "cpu", train.statistics)
    training = trained(replace(recipe, epochs=10), (train, val), tmp_path)
    assert training.evaluate(val)[1] == training.best_val_acc > 0.8
    assert float(read_csv(tmp_path / "log.csv")[-1]["train_acc"]) > 0.7


@pytest.mark.parametrize("loader", ["device", "torchvision"])
def test_another_seed_gives_other_first_weights_and_other_batches(loader, images, tmp_path):
    a, b = (Training(replace(TINY, loader=loader, seed=seed), *images, tmp_path) for seed in (0, 1))
    assert {type(run.batches).__name__.lower() for run in (a, b)} == {f"{loader}batches"}
    assert not torch.equal(a.model.affine.weight, b.model.affine.weight)
    assert not torch.equal(*(next(iter(run.batches.epoch(0)))[1] for run in (a, b)))


def test_the_global_generator_is_left_alone(images, tmp_path):
    before = torch.get_rng_state()
    trained(replace(TINY_SPEEDRUN, epochs=1), images, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@EACH
def test_the_warm_up_leaves_no_trace(recipe, images, tmp_path, monkeypatch):
    recipe = replace(recipe, epochs=1)
    trained(recipe, images, tmp_path / "warm")
    assert WARM_UP > 0
    monkeypatch.setattr(pytorch_training, "WARM_UP", 0)
    trained(recipe, images, tmp_path / "cold")
    assert_same_end(tmp_path / "warm", tmp_path / "cold")


def test_the_warm_up_is_not_timed(images, tmp_path, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(pytorch_training.time, "perf_counter", lambda: next(clock))
    training = trained(TINY, images, tmp_path)
    # one tick for the first weights and for each epoch: the clock is read at its start and at its end alone
    assert training.training_seconds == 4
    assert [float(row["training_seconds"]) for row in read_csv(tmp_path / "log.csv")] == [2, 3, 4]


def test_the_clock_of_an_epoch_waits_for_the_device_at_its_start_and_at_its_end(images, tmp_path, monkeypatch):
    training, seen = Training(TINY, *images, tmp_path), []
    monkeypatch.setattr(pytorch_training, "wait_for", lambda device: seen.append("wait"))
    monkeypatch.setattr(pytorch_training.time, "perf_counter", lambda: seen.append("clock") or len(seen))
    training._train_epoch(Bar())
    assert seen == ["wait", "clock"] * 2


def test_first_weights_are_computed_from_the_training_images(images, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Classic, "prepare", lambda self, model, x: seen.append(x))
    Training(TINY, *images, tmp_path)
    assert torch.equal(seen[0], next(images[0].batches(64))[0])


def test_the_learning_rate_falls_at_the_recipes_steps(images, tmp_path):
    recipe = Classic(epochs=4, batch_size=64, widths=(2,), blocks=1, lr=1.0, lr_steps=(0.5, 0.75), lr_factor=0.1)
    trained(recipe, images, tmp_path)
    assert [float(row["lr"]) for row in read_csv(tmp_path / "log.csv")] == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_the_learning_rate_of_every_optimizer_follows_the_schedule_step_by_step(images, tmp_path):
    training = Training(replace(TINY_SPEEDRUN, epochs=1, warmup=0.5, lr=2.0, muon_lr=0.4), *images, tmp_path)
    seen = []
    for optimizer in training.optimizers:
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(float(o.param_groups[-1]["lr"])))
    training._train_epoch(bar=Bar())
    # 4 steps, whose middles are at 1/8, 3/8, 5/8 and 7/8 of the run
    assert seen[::2] == pytest.approx([0.1, 0.3, 0.3, 0.1])
    assert seen[1::2] == pytest.approx([0.5, 1.5, 1.5, 0.5])


def test_the_average_knows_what_share_of_the_run_is_over(images, tmp_path):
    training = Training(replace(TINY_SPEEDRUN, epochs=2), *images, tmp_path)
    seen, update = [], training.average.update
    training.average.update = lambda progress: (seen.append(progress), update(progress))
    training.run(verbose=False)
    assert seen == [step / 8 for step in range(1, 9)]


class Bar:
    def update(self):
        pass


def test_labels_are_smoothed_in_training(images, tmp_path, monkeypatch):
    seen = []
    real = pytorch_step.F.cross_entropy

    def spy(scores, y, **settings):
        seen.append(settings)
        return real(scores, y, **settings)

    monkeypatch.setattr(pytorch_step.F, "cross_entropy", spy)
    trained(replace(TINY, epochs=1, label_smoothing=0.3), images, tmp_path)
    assert {"label_smoothing": 0.3} in seen
    assert {"reduction": "sum"} in seen


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_written(images, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) in epoch 1, with a learning rate of 1e\+30"):
        trained(replace(TINY, lr=1e30), images, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("auto", torch.float32)])
def test_the_net_computes_in_the_recipes_precision(images, tmp_path, precision, dtype):
    training = Training(replace(TINY, epochs=1, precision=precision), *images, tmp_path)
    seen = set()
    training.model.affine.register_forward_hook(lambda _, inputs, out: seen.add((training.model.training, out.dtype)))
    training.run(verbose=False)
    assert seen == {(True, dtype), (False, dtype)}
    assert training.model.affine.weight.dtype == torch.float32


# torch.compile


def test_a_compiled_net_is_trained_and_the_plain_one_evaluated(images, tmp_path, monkeypatch):
    calls = []

    class Compiled(nn.Module):
        def __init__(self, net, dynamic):
            super().__init__()
            self.net = net

        def forward(self, x):
            calls.append(self.training)
            return self.net(x)

    monkeypatch.setattr(torch, "compile", Compiled)
    training = Training(replace(TINY, epochs=1), *images, tmp_path, compiled=True)
    training.run(verbose=False)
    assert calls == [True] * (WARM_UP + 4)
    trained(replace(TINY, epochs=1), images, tmp_path / "plain")
    assert_same_end(tmp_path, tmp_path / "plain")
    assert len(calls) == WARM_UP + 4


@pytest.mark.parametrize(
    ("compiled", "error"), [(False, RuntimeError("gloo: lost")), (True, torch.OutOfMemoryError("full"))]
)
def test_what_fails_in_the_warm_up_for_another_reason_is_passed_on(images, tmp_path, monkeypatch, compiled, error):
    def fail(self, x, y):
        raise error

    monkeypatch.setattr(Step, "_update", fail)
    monkeypatch.setattr(torch, "compile", lambda net, dynamic: net)
    with pytest.raises(type(error), match=str(error)):
        Training(TINY, *images, tmp_path, compiled).run(verbose=False)


# Settings at their limits


def limits():
    """Triples of recipe, setting and value: both ends of each range, and each choice."""
    for kind in (Classic, Speedrun):
        for setting in fields(kind):
            allowed = setting.metadata
            ends = [True, False] if isinstance(setting.default, bool) else [allowed["least"], allowed["most"]]
            for value in allowed["choices"] or ends:
                if value != np.inf:
                    yield pytest.param(kind, setting, value, id=f"{kind.__name__}-{setting.name}-{value}")


@pytest.mark.parametrize(("kind", "setting", "value"), list(limits()))
def test_a_run_takes_each_setting_at_both_ends_of_its_range(kind, setting, value, tmp_path):
    train = Images(*bytes_and_labels(8), "cpu")
    settings = {"epochs": 1, "batch_size": 4, "widths": (2, 2), "alternating_flip": False, "reflect": False}
    settings[setting.name] = (value,) if isinstance(setting.default, tuple) else value
    training = trained(kind(**settings), (train, train), tmp_path)
    assert training.epoch == 1
    resumed(training.recipe, (train, train), tmp_path)


@pytest.mark.parametrize(("kind", "widths"), [(Classic, (2,) * 6), (Speedrun, (2,) * 4)])
def test_batch_norm_over_a_single_value_is_one_clear_line(kind, widths, tmp_path):
    images = Images(*bytes_and_labels(8), "cpu")
    with pytest.raises(ValueError, match=r"^batch_size, train_images: wanted at least 2, as batch norm .*, got 1$"):
        Training(kind(batch_size=1, widths=widths), images, images, tmp_path)
    trained(kind(batch_size=1, widths=widths[1:], epochs=1), (images, images), tmp_path)
    trained(kind(batch_size=2, widths=widths, epochs=1), (images, images), tmp_path)


# Evaluation


class Fixed(nn.Module):
    """Scores 0, 1 and 0 for three classes, whatever it sees."""

    def forward(self, x):
        assert not self.training
        return torch.tensor([0.0, 1, 0]).expand(len(x), 3)


def test_loss_and_accuracy_worked_by_hand_over_batches_that_are_not_full():
    images = Images(bytes_and_labels(5)[0], np.array([1, 1, 0, 2, 1]), "cpu")
    loss, acc = Evaluation(Fixed(), CPU)(images, batch_size=2)
    # log(2 + e) is 1.5514; less 1 where the label is 1
    assert loss == pytest.approx((5 * np.log(2 + np.e) - 3) / 5, rel=1e-5)
    assert acc == 3 / 5


def test_evaluation_flips_only_where_asked(images):
    class Left(nn.Module):
        def forward(self, x):
            left = x[:, :, :, :16].mean(dim=(1, 2, 3)) - x[:, :, :, 16:].mean(dim=(1, 2, 3))
            return torch.stack([left, -left], dim=1)

    x = np.zeros((6, 3, 32, 32), np.uint8)
    x[:3, :, :, :16] = x[3:, :, :, 16:] = 200
    halves = Images(x, np.array([0, 0, 0, 1, 1, 1]), "cpu")
    assert Evaluation(Left(), CPU)(halves)[1] == 1
    assert Evaluation(Left(), CPU, {"test_flip": True})(halves)[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize("test_flip", [True, False])
def test_a_run_evaluates_with_its_recipes_flip(images, tmp_path, test_flip):
    training = Training(replace(TINY, test_flip=test_flip), *images, tmp_path)
    losses = [Evaluation(training.model, CPU, {"test_flip": flip})(images[1])[0] for flip in (False, True)]
    assert losses[0] != losses[1]
    assert training.evaluate(images[1])[0] == losses[test_flip]


# The ideas that change from epoch to epoch


def test_pictures_grow_and_the_whitening_bias_stays_as_it_is_after_its_share_of_the_run(images, tmp_path):
    recipe = replace(TINY_SPEEDRUN, epochs=4, sides=(16, 32), whitening_bias=0.5, averaging="none")
    training, sides, biases = Training(recipe, *images, tmp_path), [], []
    training.model.register_forward_pre_hook(lambda model, inputs: sides.append(inputs[0].shape[2:]))
    for _ in range(4):
        training._train_epoch(Bar())
        biases.append(training.model.first.bias.clone())
    assert sides == [(16, 16)] * 8 + [(32, 32)] * 8
    assert not torch.equal(biases[0], biases[1])
    assert torch.equal(biases[1], biases[2])
    assert torch.equal(biases[1], biases[3])


# No image held out


def test_without_validation_images_the_last_epoch_is_kept_and_a_run_resumes(images, tmp_path):
    train, _ = images
    whole = trained(TINY, (train, None), tmp_path / "whole")
    assert list(whole.history[0]) == COLUMNS[:6]
    last, best = (files.load(tmp_path / "whole" / name, "cpu") for name in ("last.pt", "best.pt"))
    assert best["progress"]["epoch"] == 3
    assert_same(best["model"], last["model"])
    assert_same(whole.model.state_dict(), best["model"])
    (tmp_path / "short").mkdir()
    short = Training(TINY, train, None, tmp_path / "short")
    short._warm_up()
    for _ in range(2):
        short._save(short._record(short._train_epoch(Bar())))
    short.writer.wait()
    again = Training(TINY, train, None, tmp_path / "short")
    again.resume()
    again.run(verbose=False)
    assert_same_end(tmp_path / "whole", tmp_path / "short")


# The log and the best


def test_the_log_has_a_row_for_each_epoch_with_all_that_was_measured(images, tmp_path):
    training = trained(TINY, images, tmp_path)
    rows = read_csv(tmp_path / "log.csv")
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    seconds = [float(row["training_seconds"]) for row in rows]
    assert float(rows[1]["images_per_second"]) == pytest.approx(64 / (seconds[1] - seconds[0]))
    assert training.best_val_acc == max(float(row["val_acc"]) for row in rows)
    loss, acc = Evaluation(load_model(training, tmp_path / "last.pt"), CPU, TINY.views)(images[1])
    assert (loss, acc) == pytest.approx((float(rows[-1]["val_loss"]), float(rows[-1]["val_acc"])))


def load_model(training, path):
    training.model.load_state_dict(files.load(path, "cpu")["model"])
    return training.model


def test_training_loss_and_accuracy_are_means_over_the_epochs_batches(images, tmp_path):
    training = Training(replace(TINY, lr=0.0, label_smoothing=0.0), *images, tmp_path)
    x, y = next(training.batches.epoch(0))
    training.batches.epoch = lambda number, side: [(x, y), (x, 0 * y + 3)]
    training.batches.steps = 2
    row = training._train_epoch(Bar())
    scores = training.model.train()(x)
    losses = [nn.functional.cross_entropy(scores, labels).item() for labels in (y, 0 * y + 3)]
    assert row["train_loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)
    right = (scores.argmax(1) == y).sum() + (scores.argmax(1) == 3).sum()
    assert row["train_acc"] == right.item() / 32


@pytest.mark.parametrize("recipe", [TINY, TINY_SPEEDRUN], ids=["classic", "speedrun"])
def test_the_best_weights_are_restored_with_their_running_statistics(recipe, images, tmp_path, monkeypatch):
    measured = iter([(1.0, 0.0), (1.0, 0.9), (1.0, 0.9)])
    seen = []

    def measure(evaluation, images):
        seen.append({name: value.clone() for name, value in evaluation.model.state_dict().items()})
        return next(measured)

    monkeypatch.setattr(Evaluation, "__call__", measure)
    training = trained(recipe, images, tmp_path)
    assert training.best_val_acc == 0.9
    assert_same(dict(training.model.state_dict()), seen[1])
    assert not torch.equal(seen[1]["layers.1.weight"], seen[2]["layers.1.weight"])


def test_a_validation_accuracy_of_0_still_keeps_a_best(images, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluation, "__call__", lambda *_: (1.0, 0.0))
    training = trained(TINY, images, tmp_path)
    assert training.best_val_acc == 0
    assert files.load(tmp_path / "best.pt", "cpu")["progress"] == {
        "epoch": 1,
        "best_val_acc": 0.0,
        "training_seconds": pytest.approx(training.training_seconds, rel=1),
    }


def test_what_is_measured_with_averaged_weights_is_the_average(images, tmp_path):
    recipe = replace(TINY_SPEEDRUN, averaging="ema", average_period=99, epochs=1)  # it stays at the first weights
    training = Training(recipe, *images, tmp_path)
    before = {name: w.clone() for name, w in training.model.state_dict().items() if w.is_floating_point()}
    training.run(verbose=False)
    state = files.load(tmp_path / "best.pt", "cpu")
    for name, w in before.items():
        assert torch.equal(state["model"][name], w)
        assert torch.equal(training.model.state_dict()[name], w)
    row = read_csv(tmp_path / "log.csv")[0]
    assert training.evaluate(images[1]) == (float(row["val_loss"]), float(row["val_acc"]))
    fast = files.load(tmp_path / "last.pt", "cpu")["resume"]["model"]
    assert not torch.equal(fast["layers.1.weight"], before["layers.1.weight"])


def test_best_has_what_predict_needs_and_not_what_resume_does(images, tmp_path):
    recipe = replace(TINY, epochs=1)
    trained(recipe, images, tmp_path)
    best, last = (files.load(tmp_path / name, "cpu") for name in ("best.pt", "last.pt"))
    assert set(last) - set(best) == {"resume"}
    assert best["class_names"] == list(images[0].class_names)
    assert best["statistics"] == {"mean": images[0].statistics[0].tolist(), "std": images[0].statistics[1].tolist()}
    assert best["architecture"] == {"net": "ResNet", "widths": [4, 8], "blocks": 1, "num_classes": 10}
    checksums = {"images with the checksums": [split.checksum for split in images]}
    assert best["recipe"] == {"data": "CIFAR-10", **checksums, **recipe.settings()}
    assert best["versions"] == files.versions(torch.device("cpu"))


def test_each_epochs_row_is_reported_and_those_before_a_resume_are_not_again(images, tmp_path):
    reported = []
    first = Training(replace(TINY, epochs=2), *images, tmp_path)
    first.run(verbose=False, report=reported.append)
    assert reported == first.history
    assert [row["epoch"] for row in reported] == [1, 2]
    again = Training(replace(TINY, epochs=2), *images, tmp_path)
    again.resume()
    again.run(verbose=False, report=reported.append)
    assert len(reported) == 2


# Resuming


@EACH
def test_a_run_that_was_interrupted_in_an_epoch_and_resumed_ends_with_the_same_weights(recipe, images, tmp_path):
    recipe = replace(recipe, epochs=2)
    trained(recipe, images, tmp_path / "whole")
    interrupted = Training(recipe, *images, tmp_path / "interrupted")
    steps = iter(range(100))

    def interrupt(*_):
        if next(steps) == WARM_UP + 6:  # in the middle of the second epoch
            raise KeyboardInterrupt

    interrupted.optimizers[0].register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(verbose=False)
    torch.rand(3)  # draws from the generator that all share
    resumed = Training(recipe, *images, tmp_path / "interrupted")
    resumed.resume()
    assert resumed.epoch == 1
    assert resumed.training_seconds > 0
    resumed.run(verbose=False)
    assert_same_end(tmp_path / "whole", tmp_path / "interrupted")


def test_a_complete_run_that_is_resumed_has_the_best_and_trains_no_more(images, tmp_path):
    recipe = replace(TINY, epochs=1)
    whole = trained(recipe, images, tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    again = Training(recipe, *images, tmp_path)
    again.resume()
    again.run(verbose=False)
    assert_same(dict(again.model.state_dict()), dict(whole.model.state_dict()))
    assert (again.best_val_acc, (tmp_path / "last.pt").read_bytes()) == (whole.best_val_acc, before)


def test_a_checkpoint_of_another_recipe_or_other_data_is_refused(images, tmp_path):
    trained(replace(TINY, epochs=1), images, tmp_path)
    with pytest.raises(ValueError, match=r"last.pt was made with epochs 1 and not 3, lr 0.01 and not 0.5$"):
        Training(replace(TINY, lr=0.5), *images, tmp_path).resume()
    with pytest.raises(ValueError, match=r"was made with recipe classic and not speedrun, "):
        Training(replace(TINY_SPEEDRUN, epochs=1), *images, tmp_path).resume()
    images[0].name = "Shapes10"
    with pytest.raises(ValueError, match=r"was made with data CIFAR-10 and not Shapes10$"):
        Training(replace(TINY, epochs=1), *images, tmp_path).resume()


def test_a_run_cannot_be_resumed_from_best(images, tmp_path):
    trained(replace(TINY, epochs=1), images, tmp_path)
    os.replace(tmp_path / "best.pt", tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt lacks the state that a run continues from"):
        Training(replace(TINY, epochs=1), *images, tmp_path).resume()


@pytest.mark.parametrize("array", ["x", "y"])
@pytest.mark.parametrize("split", [0, 1])
def test_a_checkpoint_made_with_other_images_is_refused(images, tmp_path, array, split):
    trained(replace(TINY, epochs=1), images, tmp_path)
    values = getattr(images[split], array).flatten().clone()
    values[-1] += 1
    changed = {name: getattr(images[split], name) for name in ("x", "y")}
    changed[array] = values.view_as(changed[array])
    other = list(images)
    other[split] = Images(changed["x"], changed["y"], "cpu", images[0].statistics)
    with pytest.raises(ValueError, match=r"last\.pt was made with images with the checksums \[\d+, \d+\] and not \["):
        Training(replace(TINY, epochs=1), *other, tmp_path).resume()


def resumed(recipe, images, folder):
    training = Training(recipe, *images, folder)
    training.resume()
    training.run(verbose=False)
    return training


def test_resuming_before_the_first_epoch_is_complete_starts_with_it(images, tmp_path):
    recipe = replace(TINY, epochs=1)
    trained(recipe, images, tmp_path / "whole")
    resumed(recipe, images, tmp_path / "none")
    assert_same_end(tmp_path / "whole", tmp_path / "none")
    (tmp_path / "none" / "last.pt").unlink()  # as if killed after best.pt was written
    (tmp_path / "none" / "log.csv").unlink()
    resumed(recipe, images, tmp_path / "none")
    assert_same_end(tmp_path / "whole", tmp_path / "none")


def test_the_best_weights_are_those_of_this_run_whatever_happens_to_the_file(images, tmp_path):
    recipe = replace(TINY, epochs=1)
    training = Training(recipe, *images, tmp_path)
    save, best = training._save, tmp_path / "best.pt"
    training._save = lambda *args: (save(*args), training.writer.wait(), best.write_bytes(b"another run's"))
    training.run(verbose=False)
    assert best.read_bytes() == b"another run's"
    assert training.evaluate(images[1])[1] == training.best_val_acc
    assert_same(training.model.state_dict(), files.load(tmp_path / "last.pt", "cpu")["model"])


@pytest.mark.parametrize("text", ["\ufeffepoch,lr\n1,0.1\n", "epoch;lr\n1;0.1\n", "", "notes of mine\n"])
def test_a_log_that_was_changed_is_written_again_from_the_runs_own_history(images, tmp_path, text):
    trained(replace(TINY, epochs=1), images, tmp_path)
    before = (tmp_path / "log.csv").read_text()
    again = Training(replace(TINY, epochs=1), *images, tmp_path)
    again.resume()
    again.recipe, again.steps = replace(TINY, epochs=2), 8
    (tmp_path / "log.csv").write_text(text)
    again.run(verbose=False)
    assert (tmp_path / "log.csv").read_text().startswith(before)
    assert [row["epoch"] for row in read_csv(tmp_path / "log.csv")] == ["1", "2"]


def test_without_the_best_weights_a_run_cannot_be_resumed(images, tmp_path):
    trained(replace(TINY, epochs=1), images, tmp_path)
    (tmp_path / "best.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"best\.pt is missing, and .*last\.pt needs it; use another copy"):
        Training(replace(TINY, epochs=1), *images, tmp_path).resume()


def test_the_best_weights_of_another_point_of_the_run_are_refused(images, tmp_path):
    trained(TINY, images, tmp_path)
    best = files.load(tmp_path / "best.pt", "cpu")
    files.save(tmp_path / "best.pt", best | {"progress": best["progress"] | {"best_val_acc": 0.99}})
    with pytest.raises(ValueError, match=r"best\.pt, of epoch \d, is not the best of the run in .*last\.pt; use"):
        Training(TINY, *images, tmp_path).resume()
    (tmp_path / "last.pt").unlink()
    files.save(tmp_path / "best.pt", best | {"progress": best["progress"] | {"epoch": 2}})
    with pytest.raises(ValueError, match=r"best\.pt, of epoch 2, is not the best of the run in"):
        Training(TINY, *images, tmp_path).resume()


def change_first(tensors, change):
    name = next(iter(tensors))
    tensors[name] = change(tensors[name])


def change_moment(state):
    change_first(state["resume"]["optimizers"][0]["state"][0], lambda value: torch.zeros(7))


CHANGES = {
    "another shape": lambda state: change_first(state["resume"]["model"], lambda w: w[:1]),
    "another dtype": lambda state: change_first(state["resume"]["model"], lambda w: w.double()),
    "nan": lambda state: change_first(state["resume"]["model"], lambda w: w * torch.nan),
    "a proxy of another shape": lambda state: change_first(state["resume"]["proxy"]["model"], lambda w: w[:1]),
    "no proxy": lambda state: state["resume"].update(proxy=None),
    "an average of another shape": lambda state: change_first(state["resume"]["average"]["slow"], lambda w: w[:1]),
    "a weight less": lambda state: state["resume"]["model"].popitem(),
    "a moment of another shape": change_moment,
    "an optimizer less": lambda state: state["resume"]["optimizers"].pop(),
    "no history": lambda state: state["resume"].pop("history"),
    "a short history": lambda state: state["resume"]["history"].pop(),
    "no progress": lambda state: state.pop("progress"),
    "no recipe": lambda state: state.pop("recipe"),
    "an epoch too many": lambda state: state["progress"].update(epoch=2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_does_not_fit_is_one_line_that_names_it(images, tmp_path, change):
    recipe = replace(TINY_SPEEDRUN, epochs=1, hardest=0.5)
    trained(recipe, images, tmp_path)
    state = files.load(tmp_path / "last.pt", "cpu")
    change(state)
    files.save(tmp_path / "last.pt", state)
    with pytest.raises(ValueError, match=r"^.*last\.pt.*; use another copy of it, or train again$"):
        Training(recipe, *images, tmp_path).resume()


def test_weights_that_are_not_finite_after_the_last_step_stop_the_run_before_anything_is_written(images, tmp_path):
    training = Training(replace(TINY, epochs=1), *images, tmp_path)
    steps = iter(range(100))

    def spoil(*_):
        if next(steps) == WARM_UP + 3:
            training.model.affine.weight.data[0, 0] = torch.inf

    training.optimizers[0].register_step_post_hook(spoil)
    message = (
        r"^(the validation loss|model/affine\.weight) is not finite after epoch 1, with a learning rate of 0\.01: try"
    )
    with pytest.raises(FloatingPointError, match=message):
        training.run(verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_the_new_epoch_is_in_best_and_log_before_it_is_in_last(images, tmp_path, monkeypatch):
    """So that a run that is cut short between two of these files repeats the epoch, and writes them all again."""
    order = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(b.name), rename(a, b)))
    trained(replace(TINY, epochs=1), images, tmp_path)
    assert order == ["best.pt", "log.csv", "last.pt"]


def test_training_goes_on_while_a_slow_disk_takes_its_time_and_the_files_are_those_without_it(
    images, tmp_path, monkeypatch
):
    steps, goes_on, save = count(1), threading.Event(), files.save
    kept = {"at once": [], "slow": []}

    def slow_save(path, state):
        name = path.parent.name
        assert name == "at once" or goes_on.wait(20), "training waits for the disk"
        save(path, state)
        if path.name == "last.pt":
            kept[name].append(without_times_in(files.load(path, "cpu")))

    def go_on(*_):
        if next(steps) == WARM_UP + 6:  # in the middle of the second epoch
            goes_on.set()

    monkeypatch.setattr(files, "save", slow_save)
    at_once, slow = (Training(TINY_SPEEDRUN, *images, tmp_path / name) for name in kept)
    at_once.writer.start = lambda write, *args: write(*args)
    slow.optimizers[0].register_step_pre_hook(go_on)
    for training in (at_once, slow):
        training.run(verbose=False)
    assert [state["progress"]["epoch"] for state in kept["slow"]] == [1, 2, 3]
    assert_same(*kept.values())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_file_that_cannot_be_written_ends_the_run_at_the_next_epoch_or_at_the_end(images, tmp_path, epochs):
    training, steps = Training(replace(TINY, epochs=epochs + 1), *images, tmp_path), []
    training.recipe = replace(TINY, epochs=epochs)  # it ends there
    (tmp_path / "last.pt").mkdir()
    training.optimizers[0].register_step_pre_hook(lambda *_: steps.append(1))
    with pytest.raises(OSError, match=r"last\.pt"):
        training.run(verbose=False)
    assert len(steps) == WARM_UP + 4 * epochs


def test_an_interruption_waits_for_the_files_of_the_epoch_before(images, tmp_path, monkeypatch):
    training, rename, steps = Training(TINY, *images, tmp_path), os.replace, count(1)
    monkeypatch.setattr(os, "replace", lambda *paths: (time.sleep(0.1), rename(*paths)))

    def interrupt(*_):
        if next(steps) == WARM_UP + 5:
            raise KeyboardInterrupt

    training.optimizers[0].register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.run(verbose=False)
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "log.csv", "last.pt"}
    assert files.load(tmp_path / "last.pt", "cpu")["progress"]["epoch"] == 1


def test_the_bar_counts_steps_and_continues_where_the_run_was(images, tmp_path, capsys):
    trained(replace(TINY, epochs=2), images, tmp_path)
    assert capsys.readouterr().err == ""
    training = Training(replace(TINY, epochs=2), *images, tmp_path)
    training.run()
    said = capsys.readouterr().err
    assert "0/8" in said
    assert "8/8" in said
    assert "val=" in said
    training.resume()
    training.run()
    said = capsys.readouterr().err
    assert "0/8" not in said
    assert "8/8" in said
