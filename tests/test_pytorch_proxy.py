"""Training on the hardest images of each batch: which they are, and what chooses them."""

from dataclasses import replace

import pytest
import torch
from test_pytorch_data import bytes_and_labels
from test_pytorch_training import TINY_SPEEDRUN, Bar, assert_same, trained
from torch.nn import functional as F

from cs231n import pytorch_training
from cs231n.pytorch_data import Images
from cs231n.pytorch_proxy import Proxy, kept
from cs231n.pytorch_recipes import Speedrun
from cs231n.pytorch_training import Training

RECIPE = replace(TINY_SPEEDRUN, hardest=0.25)

pytestmark = pytest.mark.usefixtures("fast_disk", "one_torch_thread")


@pytest.fixture
def images():
    train = Images(*bytes_and_labels(64), "cpu")
    return train, Images(*bytes_and_labels(32, seed=1), "cpu", train.statistics)


@pytest.mark.parametrize("recipe", [RECIPE, replace(Speedrun(), batch_size=16, widths=(8, 16), hardest=0.25)])
def test_the_images_kept_are_those_with_the_highest_loss_under_the_proxy(recipe, images):
    training = Training(recipe, *images, None)
    x, y = next(training.batches.epoch(0))
    scores = training.proxy.model(x)
    losses = [F.cross_entropy(scores[i : i + 1], y[i : i + 1], label_smoothing=0.2).item() for i in range(16)]
    kept_x, kept_y = training.proxy.choose(x, y)
    hardest = sorted(range(16), key=lambda i: -losses[i])[:4]
    assert min(losses[i] for i in hardest) > max(losses[i] for i in set(range(16)) - set(hardest))
    assert torch.equal(kept_x, x[hardest])
    assert torch.equal(kept_y, y[hardest])
    assert not kept_x.requires_grad


def test_the_net_sees_the_kept_images_alone_and_the_log_counts_them(images):
    training, seen = Training(replace(RECIPE, lr=0.0, muon_lr=0.0), *images, None), []
    training.model.register_forward_hook(lambda model, inputs, out: seen.append((inputs[0], out)))
    training.proxy.model.register_forward_hook(lambda model, inputs, out: seen.append(len(inputs[0])))
    row = training._train_epoch(Bar())
    assert [len(s[0]) if isinstance(s, tuple) else s for s in seen] == [16, 4, 16, 4, *[16, 4] * 3]  # one update
    losses, right = [], 0
    for (x, y), (_, scores) in zip(training.batches.epoch(0), [s for s in seen if isinstance(s, tuple)], strict=True):
        _, kept_y = training.proxy.choose(x, y)  # it has learned nothing, with a learning rate of 0
        losses.append(F.cross_entropy(scores, kept_y, label_smoothing=0.2).item())
        right += (scores.argmax(1) == kept_y).sum().item()
    assert row["train_loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert row["train_acc"] == right / 16


def test_a_share_of_few_images_is_one_at_least():
    assert [kept(share, 10) for share in (1.0, 0.5, 0.25, 0.0)] == [10, 5, 3, 1]


def test_the_proxy_learns(images):
    x = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(64) % 3
    x += 3 * F.one_hot(y, 3)[:, :, None, None]  # red, green or blue
    proxy = Training(replace(TINY_SPEEDRUN, hardest=0.5, lr=0.5), *images, None).proxy
    before = F.cross_entropy(proxy.model(x), y).item()
    for step in range(12):
        proxy.train(step, x, y)
    assert F.cross_entropy(proxy.model(x), y).item() < before / 2


def test_the_proxy_never_sees_the_validation_images(images, tmp_path):
    train, val = images
    other = Images(255 - val.x, (val.y + 1) % 10, "cpu", train.statistics)
    runs = [trained(RECIPE, (train, held_out), tmp_path / name) for name, held_out in (("a", val), ("b", other))]
    assert runs[0].history[-1]["val_loss"] != runs[1].history[-1]["val_loss"]
    assert_same(*(run.proxy.trained.state_dict() for run in runs))
    calls = []
    runs[0].proxy.model.register_forward_hook(lambda *_: calls.append(1))
    runs[0].evaluate(val)
    assert calls == []


def test_the_proxys_time_counts_as_training(images, monkeypatch):
    clock = [0.0]

    def taking(seconds, function):
        def slow(*args):
            clock[0] += seconds
            return function(*args)

        return slow

    monkeypatch.setattr(pytorch_training.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Proxy, "__init__", taking(100, Proxy.__init__))
    monkeypatch.setattr(Proxy, "train", taking(1, Proxy.train))
    training = Training(RECIPE, *images, None)
    training.run(verbose=False)
    assert training.training_seconds == 100 + 3 * 4


def test_the_torchvision_loader_has_hardest_images_too(images, tmp_path):
    recipe = replace(RECIPE, loader="torchvision", alternating_flip=False, epochs=1)
    assert trained(recipe, images, tmp_path).epoch == 1


def test_several_processes_and_a_single_value_are_refused_in_one_clear_line(images, monkeypatch):
    with pytest.raises(ValueError, match=r"^batch_size, train_images: wanted at least 2, as batch norm .*, got 1$"):
        Training(replace(RECIPE, batch_size=4, widths=(2,) * 4), *images, None)
    monkeypatch.setattr(pytorch_training, "world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"^hardest: wanted 1\.0 with several processes, got 0\.25$"):
        Training(RECIPE, *images, None)
