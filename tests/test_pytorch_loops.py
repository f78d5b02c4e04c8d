"""Training loops: the same weights from plain tensors, from a module and from torch.optim, and as a library's run."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cs231n.pytorch_data import DeviceBatches, Images
from cs231n.pytorch_loops import accuracy, train_module, train_scheduled, train_tensors
from cs231n.pytorch_recipes import Classic
from cs231n.pytorch_training import Training

SIZES = 8, 8, 3


def two_layers(seed=0, norm=False):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5) if norm else nn.Identity(), nn.ReLU(), nn.Linear(5, 3))


def as_tensors(model):
    return {name: w.detach().clone() for name, w in model.named_parameters()}


def scores(w, x):
    return F.linear(F.linear(x, w["0.weight"], w["0.bias"]).relu(), w["3.weight"], w["3.bias"])


def batches(seed=1):
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 6, generator=draw), torch.randint(0, 3, (n,), generator=draw)) for n in SIZES]


class Epochs:
    steps = len(SIZES)

    def epoch(self, number):
        return batches(number)


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(one, other):
    for name, w in one.items():
        torch.testing.assert_close(w, other[name])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_all_three_levels_give_the_same_weights_and_losses(momentum):
    by_module, by_optimizer, epochs = two_layers(), two_layers(), [*batches(0), *batches(1)]
    w, losses = train_tensors(as_tensors(two_layers()), scores, epochs, 0.1, momentum)
    assert train_module(by_module, epochs, 0.1, momentum) == pytest.approx(losses)
    optimizer = torch.optim.SGD(by_optimizer.parameters(), lr=0.1, momentum=momentum)
    history = train_scheduled(by_optimizer, optimizer, lambda _: 1.0, Epochs(), batches(), 2)
    assert [row["loss"] for row in history] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])
    assert_same(w, by_module.state_dict())
    assert_same(w, by_optimizer.state_dict())


def test_two_steps_worked_by_hand():
    """Two classes, x = 1, scores w and 0: dw = -1 / (1 + e^w), which is -1/2 at w = 0."""
    x, y, w = torch.ones(1, 1), torch.tensor([0]), {"w": torch.zeros(1, 1)}
    trained, losses = train_tensors(w, lambda w, x: F.pad(x @ w["w"], (0, 1)), 2 * [(x, y)], 1.0, 0.5)
    second = 0.5 * 0.5 + 1 / (1 + torch.tensor(0.5).exp())  # momentum times 1/2, and the gradient at w = 1/2
    torch.testing.assert_close(trained["w"], (0.5 + second).view(1, 1))
    assert losses == pytest.approx([0.693147, 0.474077], abs=1e-6)  # log 2, and log(1 + e^-0.5)


def test_the_tensors_that_are_passed_stay_as_they_are_and_the_results_need_no_gradient():
    w = as_tensors(two_layers())
    before = copy.deepcopy(w)
    trained, _ = train_tensors(w, scores, batches(), 0.1)
    assert_same(before, w)
    assert not any(value.requires_grad for value in [*w.values(), *trained.values()])
    assert not any(torch.equal(w[name], trained[name]) for name in w)


def test_training_is_in_training_mode_and_moves_the_running_statistics():
    model = two_layers(norm=True).eval()
    train_module(model, batches(), 0.1)
    assert model.training
    assert model.state_dict()["1.num_batches_tracked"] == len(SIZES)


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_counts_images_in_evaluation_mode_and_leaves_the_model_as_it_was(training):
    model = two_layers(norm=True).train(training)
    before = copy.deepcopy(model.state_dict())
    x = torch.cat([x for x, _ in batches()])
    answers = copy.deepcopy(model).eval()(x).argmax(dim=1)
    answers[-3:] = (answers[-3:] + 1) % 3  # the last batch, of 3, is all wrong
    pairs = list(zip(x.split(SIZES), answers.split(SIZES), strict=True))
    assert accuracy(model, pairs) == 16 / 19
    assert model.training is training
    assert_same(before, model.state_dict())


def test_the_rate_falls_from_step_to_step_and_not_from_epoch_to_epoch():
    model, asked, used = two_layers(), [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    optimizer.register_step_pre_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))

    def rate(progress):
        asked.append(progress)
        return 1 - progress

    train_scheduled(model, optimizer, rate, Epochs(), batches(), 2)
    middles = [(t + 0.5) / 6 for t in range(6)]
    assert asked[:6] == pytest.approx(middles)
    assert used == pytest.approx([0.5 * (1 - middle) for middle in middles])


def test_the_validation_accuracy_is_measured_after_each_epoch():
    model = two_layers(norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = train_scheduled(model, optimizer, lambda _: 1.0, Epochs(), batches(9), 3)
    other = two_layers(norm=True)
    for row, number in zip(history, range(3), strict=True):
        train_module(other, batches(number), 0.1, 0.0)
        assert row["val_acc"] == accuracy(other, batches(9))


def test_no_epoch_is_refused():
    with pytest.raises(ValueError, match="epochs: wanted a whole number of at least 1, got 0"):
        train_scheduled(None, None, None, Epochs(), [], 0)


def test_a_run_of_the_library_gives_the_same_weights():
    torch.set_default_dtype(torch.float32)
    recipe = Classic(epochs=2, batch_size=10, widths=(4, 6), label_smoothing=0.0)
    draw = torch.Generator().manual_seed(0)
    images = Images(torch.randint(0, 256, (40, 3, 32, 32), generator=draw).byte(), torch.arange(40) % 10, "cpu")
    training = Training(recipe, images, None, None)
    model = copy.deepcopy(training.model)
    training.run(verbose=False)
    (optimizer,) = recipe.optimizers(model, torch.device("cpu"))
    loader = DeviceBatches(images, 10, recipe.pad, recipe.alternating_flip, recipe.seed)
    history = train_scheduled(model, optimizer, recipe.rate, loader, list(images.batches(250)), 2)
    assert [row["loss"] for row in history] == pytest.approx([row["train_loss"] for row in training.history], rel=1e-5)
    for name, w in training.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], w, rtol=1e-3, atol=1e-5)
