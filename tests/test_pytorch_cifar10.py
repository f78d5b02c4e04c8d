"""The PyTorch ResNet: its shapes, its augmentation on the device, and a run that can be stopped and resumed."""

import csv
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from cs231n import pytorch_cifar10
from cs231n.pytorch_cifar10 import (
    Images,
    Recipe,
    ResidualBlock,
    ResNet,
    Training,
    accuracy,
    main,
    random_crop,
    random_flip,
)

TINY = Recipe(epochs=3, batch_size=16, widths=(4, 8), blocks=1, lr=1e-2, train_images=64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bytes_and_labels(n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, n)
    x = rng.integers(0, 40, (n, 3, 32, 32)) + 20 * y[:, None, None, None]  # the brighter, the higher the label
    return x.astype(np.uint8), y


@pytest.fixture
def images():
    train = Images("CIFAR-10", *bytes_and_labels(64), "cpu")
    return train, Images("CIFAR-10", *bytes_and_labels(32, seed=1), "cpu", train.statistics)


# --- the net ---


@pytest.mark.parametrize(("c_in", "c_out", "stride", "side"), [(4, 4, 1, 8), (4, 6, 1, 8), (4, 8, 2, 4), (4, 4, 2, 4)])
def test_a_block_keeps_or_halves_the_picture(c_in, c_out, stride, side):
    block = ResidualBlock(c_in, c_out, stride)
    assert block(torch.randn(2, c_in, 8, 8)).shape == (2, c_out, side, side)
    assert isinstance(block.shortcut, torch.nn.Identity) == (c_in == c_out and stride == 1)


def test_a_block_whose_residual_is_zero_passes_its_input_on():
    block = ResidualBlock(4, 4, 1)
    torch.nn.init.zeros_(block.residual[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x.relu())


def test_the_net_takes_any_picture_and_has_the_weights_that_are_counted_by_hand():
    net = ResNet(widths=(4, 8), blocks=1)
    assert net(torch.randn(2, 3, 20, 24)).shape == (2, 10)
    # stem 3*4*9 + 8; block 1: 2 * (4*4*9 + 8); block 2: 4*8*9 + 16, 8*8*9 + 16, 4*8 + 16; affine 8*10 + 10
    assert sum(w.numel() for w in net.parameters()) == 116 + 304 + 304 + 592 + 48 + 90


# --- the data ---


def test_each_crop_is_a_window_of_the_padded_image_at_its_own_place():
    x = torch.from_numpy(bytes_and_labels(50)[0])
    out = random_crop(x, 4, generator())
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    places = []
    for image, window in zip(padded, out.numpy(), strict=True):
        found = [
            (dy, dx)
            for dy in range(9)
            for dx in range(9)
            if np.array_equal(image[:, dy : dy + 32, dx : dx + 32], window)
        ]
        assert len(found) == 1
        places += found
    assert {dy for dy, _ in places} == {dx for _, dx in places} == set(range(9))
    assert any(dy != dx for dy, dx in places)


def test_each_image_is_mirrored_left_to_right_or_not_by_itself():
    x = torch.from_numpy(bytes_and_labels(200)[0])
    out = random_flip(x, generator())
    mirrored = [torch.equal(b, a.flip(2)) for a, b in zip(x, out, strict=True)]
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, x, out, strict=True))
    assert 70 < sum(mirrored) < 130


def test_an_epoch_shows_every_image_once_in_another_order_each_time(images):
    train, _ = images
    epochs = []
    shared = generator()
    for _ in range(2):
        batches = list(train.shuffled_batches(16, 0, shared))
        assert [len(y) for _, y in batches] == [16] * 4
        epochs.append(torch.cat([y for _, y in batches]))
        assert torch.equal(epochs[-1].sort().values, train.y.sort().values)
    assert not torch.equal(*epochs)


def test_batches_are_normalized_by_the_training_images_alone(images):
    train, val = images
    x = torch.cat([x for x, _ in train.batches(10)])
    assert x.dtype == torch.float32
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)
    (again, _), *_ = val.batches(32)
    mean, std = train.statistics
    assert torch.allclose(again * std[:, None, None] + mean[:, None, None], val.x.float(), atol=1e-3)


def test_what_does_not_fill_a_batch_is_left_out_of_training_and_counted_in_accuracy(images):
    train, _ = images
    assert sum(len(y) for _, y in train.shuffled_batches(60, 4, generator())) == 60
    assert sum(len(y) for _, y in train.batches(60)) == 64
    assert sum(len(y) for _, y in train.shuffled_batches(100, 4, generator())) == 64


# --- the run ---


def test_a_run_learns(images, tmp_path):
    training = Training(replace(TINY, epochs=12), *images, tmp_path)
    before = accuracy(training.model, images[1])
    training.run()
    assert accuracy(training.model, images[1]) == training.best_val_acc > before + 0.1


def test_the_best_weights_are_restored_with_their_running_statistics(images, tmp_path, monkeypatch):
    measured = iter([0.1, 0.9, 0.3])
    seen = []

    def measure(model, images):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(measured)

    monkeypatch.setattr(pytorch_cifar10, "accuracy", measure)
    training = Training(TINY, *images, tmp_path)
    training.run()
    assert training.best_val_acc == 0.9
    restored = training.model.state_dict()
    assert all(torch.equal(restored[name], value) for name, value in seen[1].items())
    assert not torch.equal(restored["layers.1.running_mean"], seen[2]["layers.1.running_mean"])


def test_a_run_that_was_broken_off_in_an_epoch_ends_with_the_same_weights(images, tmp_path):
    whole = Training(TINY, *images, tmp_path / "whole")
    whole.run()

    broken = Training(TINY, *images, tmp_path / "broken")
    steps = iter(range(100))

    def break_off(*_):
        if next(steps) == 6:  # in the middle of the second epoch
            raise KeyboardInterrupt

    broken.optimizer.register_step_pre_hook(break_off)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = Training(TINY, *images, tmp_path / "broken")
    resumed.resume()
    assert resumed.epoch == 1
    resumed.run()

    last = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken")]
    for name, value in last[0]["model"].items():
        assert torch.equal(value, last[1]["model"][name]), name
    assert last[0]["schedule"] == last[1]["schedule"]
    assert torch.equal(last[0]["generator"], last[1]["generator"])
    assert resumed.best_val_acc == whole.best_val_acc


def test_the_log_has_a_line_for_each_epoch_after_a_repeat_too(images, tmp_path):
    training = Training(TINY, *images, tmp_path)
    training.run()
    training.epoch = 1
    training._log(loss=0.0, val_acc=0.0, lr=0.0, images_per_second=0.0)
    training.epoch = 2
    training._log(loss=0.5, val_acc=0.5, lr=0.5, images_per_second=0.5)
    with open(tmp_path / "log.csv", newline="") as file:
        assert [(row["epoch"], row["loss"]) for row in csv.DictReader(file)] == [("1", "0.0"), ("2", "0.5")]


def test_the_learning_rate_falls_at_the_recipes_steps(images, tmp_path):
    recipe = Recipe(epochs=4, batch_size=64, widths=(2,), blocks=1, lr=1.0, lr_steps=(0.5, 0.75), lr_factor=0.1)
    Training(recipe, *images, tmp_path).run()
    with open(tmp_path / "log.csv", newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_the_first_epoch_has_the_full_learning_rate_however_short_the_run(images, tmp_path):
    training = Training(Recipe(epochs=1, batch_size=64, widths=(2,), blocks=1, lr=0.5), *images, tmp_path)
    assert training.schedule.get_last_lr() == [0.5]


def test_nothing_in_a_checkpoint_is_executed(images, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    torch.save({"recipe": Evil()}, tmp_path / "last.pt")
    with pytest.raises(pickle.UnpicklingError):
        Training(TINY, *images, tmp_path).resume()
    assert not (tmp_path / "evil").exists()


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    pytorch_cifar10.save(tmp_path / "last.pt", {"epoch": 1})
    with pytest.raises(AttributeError):
        pytorch_cifar10.save(tmp_path / "last.pt", {"epoch": lambda: 2})
    assert pytorch_cifar10.load(tmp_path / "last.pt", "cpu") == {"epoch": 1}


# --- the command line ---

OPTIONS = ["--epochs=1", "--batch-size=16", "--widths=4", "--blocks=1", "--train-images=48", "--device=cpu"]


@pytest.fixture
def small_data(monkeypatch):
    x, y = bytes_and_labels(5100)
    read = ("CIFAR-10", (), (x, y, x[:200], y[:200]))
    monkeypatch.setattr(pytorch_cifar10, "read_images", lambda data_dir: read)


def test_the_command_line_trains_tests_and_resumes(small_data, tmp_path, caplog):
    caplog.set_level("INFO")
    place = ["--output-dir", str(tmp_path)]
    assert main([*OPTIONS, *place]) == 0
    assert re.search(r"test accuracy on CIFAR-10: \d+\.\d\d %", caplog.text)
    assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "last.pt", "log.csv"}
    assert main([*OPTIONS, *place, "--resume"]) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--train-images", "101"], "train_images: wanted 1 to 100, got 101"),
        (["--resume"], "No such file or directory"),
        (["--epochs", "0"], "epochs: wanted a whole number of at least 1, got 0"),
        (["--widths", "4", "0"], "widths: wanted a whole number of at least 1, got 0"),
        (["--pad", "-1"], "pad: wanted a whole number of at least 0, got -1"),
        (["--lr", "nan"], "lr: wanted a number of at least 0, got nan"),
        (["--device", "nonsense"], "device: nonsense cannot be used here"),
    ],
)
def test_a_wrong_command_is_one_clear_line(small_data, tmp_path, caplog, options, says):
    assert main([*OPTIONS, "--output-dir", str(tmp_path), *options]) == 1
    (record,) = caplog.records
    assert says in record.message


def test_a_checkpoint_of_another_recipe_is_refused(small_data, tmp_path, caplog):
    place = ["--output-dir", str(tmp_path)]
    assert main([*OPTIONS, *place]) == 0
    assert main([*OPTIONS, *place, "--lr", "0.5", "--resume"]) == 1
    assert "was made with lr 0.002 and not 0.5" in caplog.text


def test_a_run_on_the_stand_in_is_not_gone_on_with_on_cifar10(small_data, tmp_path, monkeypatch, caplog):
    place = ["--output-dir", str(tmp_path)]
    assert main([*OPTIONS, *place]) == 0
    read = pytorch_cifar10.read_images
    monkeypatch.setattr(pytorch_cifar10, "read_images", lambda data_dir: ("Shapes10", *read(data_dir)[1:]))
    assert main([*OPTIONS, *place, "--resume"]) == 1
    assert "was made with data CIFAR-10 and not Shapes10" in caplog.text


def test_help_explains_each_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--lr-steps LR_STEPS [LR_STEPS ...] shares of the run after which the learning rate falls" in said
