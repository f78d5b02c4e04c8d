"""Muon, the groups of weights that learn at rates of their own, and the averages of weights."""

import copy

import pytest
import torch
from torch import nn

from cs231n.pytorch_optim import (
    Muon,
    SlowWeights,
    adamw,
    keep_rates_on,
    nesterov,
    orthogonalized,
    weight_groups,
)

CPU = torch.device("cpu")


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Muon


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (6, 6)])
def test_orthogonalizing_keeps_the_singular_vectors_and_moves_the_singular_values_near_1(shape):
    g = randn(*shape)
    U, S, V = torch.linalg.svd(g, full_matrices=False)
    assert S.max() / S.min() > 1.5
    out = orthogonalized(g)
    assert (out.shape, out.dtype) == (g.shape, torch.float32)
    inner = U.T @ out @ V.T
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-4)
    assert torch.all((inner.diagonal() > 0.6) & (inner.diagonal() < 1.3))


def test_orthogonalizing_does_not_depend_on_the_scale_and_makes_nothing_of_0():
    g = randn(4, 9)
    assert torch.allclose(orthogonalized(1e-3 * g), orthogonalized(1e3 * g), atol=1e-3)
    assert torch.all(orthogonalized(0 * g) == 0)


def test_muon_two_steps_worked_by_hand():
    w0, g1, g2 = randn(4, 3, 2, 2), randn(4, 3, 2, 2, seed=1), randn(4, 3, 2, 2, seed=2)
    w = nn.Parameter(w0.clone())
    muon = Muon([w], lr=0.1, momentum=0.5)
    w.grad = g1
    muon.step()
    u1 = orthogonalized((1.5 * g1).reshape(4, 12)).reshape(w0.shape)  # v = g1; dw + mu v
    w1 = w0 * 2 / w0.square().sum().sqrt() - 0.1 * u1  # sqrt(4) is 2
    assert torch.allclose(w, w1, atol=1e-6)
    w.grad = g2
    muon.step()
    u2 = orthogonalized((g2 + 0.5 * (0.5 * g1 + g2)).reshape(4, 12)).reshape(w0.shape)
    assert torch.allclose(w, w1 * 2 / w1.square().sum().sqrt() - 0.1 * u2, atol=1e-6)


def one_by_one(weights, gradients, lr, mu, steps):
    """Muon as its equation says, on one weight at a time; gradients[t][i] is that of weight i in step t."""
    weights = [w.clone() for w in weights]
    for i, w in enumerate(weights):
        v = torch.zeros_like(w)
        for t in range(steps):
            v = mu * v + gradients[t][i]
            update = orthogonalized((gradients[t][i] + mu * v).flatten(1)).view_as(w)
            w.copy_(w * len(w) ** 0.5 / w.norm() - lr * update)
    return weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_muon_updates_weights_of_the_same_shape_together_as_it_would_one_by_one(dtype):
    shapes = [(4, 3, 2, 2), (6, 4, 3, 3), (4, 3, 2, 2), (12, 1), (4, 3, 2, 2), (6, 4, 3, 3)]
    weights = [randn(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes)]
    weights[1] = weights[1].contiguous(memory_format=torch.channels_last)
    gradients = [[randn(*shape, seed=10 * t + i).to(dtype) for i, shape in enumerate(shapes, 10)] for t in range(3)]
    trained = [nn.Parameter(w.clone()) for w in weights]
    muon = Muon(trained, lr=0.1, momentum=0.6)
    for step in gradients:
        for w, gradient in zip(trained, step, strict=True):
            w.grad = gradient
        muon.step()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for w, wanted in zip(trained, one_by_one(weights, gradients, 0.1, 0.6, steps=3), strict=True):
        assert torch.allclose(w, wanted, rtol=0, atol=tolerance)
    assert trained[1].is_contiguous(memory_format=torch.channels_last)


def muon_and_sgd(net):
    convolutions, biases, rest = weight_groups(net)
    return [Muon(convolutions, 0.1, 0.5), nesterov([(biases, {"lr": 0.2}), (rest, {"lr": 0.1})], 0.9, CPU)]


@pytest.mark.parametrize("make", [muon_and_sgd, lambda net: [adamw(net, 0.1, 0.5, CPU)]], ids=["speedrun", "adamw"])
def test_a_rate_in_a_tensor_gives_the_same_weights_and_a_schedule_writes_into_it(make):
    first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    ends = []
    for in_tensors in (False, True):
        net = copy.deepcopy(first)
        optimizers = make(net)
        if in_tensors:
            for optimizer in optimizers:
                keep_rates_on(CPU, optimizer)
        tensors = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (step + 1)) for o in optimizers]
        for step in range(3):
            for w in net.parameters():
                w.grad = randn(*w.shape, seed=step)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        if in_tensors:
            assert all(one is other for one, other in zip(rates, tensors, strict=True))
        ends.append([*net.state_dict().values(), *map(torch.tensor, map(float, rates))])
    for one, other in zip(*ends, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_muon_leaves_a_weight_without_a_gradient_alone():
    w = nn.Parameter(randn(2, 3))
    before = w.detach().clone()
    Muon([w], lr=0.1, momentum=0.5).step()
    assert torch.equal(w, before)


def test_muons_momentum_goes_through_a_state_dict():
    weights = [nn.Parameter(randn(2, 3)) for _ in range(2)]
    optimizers = [Muon([w], lr=0.1, momentum=0.5) for w in weights]
    weights[0].grad = randn(2, 3, seed=1)
    optimizers[0].step()
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    weights[1].data.copy_(weights[0].data)
    for w, optimizer in zip(weights, optimizers, strict=True):
        w.grad = randn(2, 3, seed=2)
        optimizer.step()
    assert torch.equal(*weights)


# Groups


def test_weights_are_grouped_into_convolutions_before_a_norm_biases_and_the_rest():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2)
    )
    net[2].weight.requires_grad_(False)
    convolutions, biases, rest = weight_groups(net)
    assert [id(w) for w in convolutions] == [id(net[1].weight)]
    assert {id(w) for w in biases} == {id(net[0].bias), id(net[2].bias), id(net[4].bias)}
    assert {id(w) for w in rest} == {id(net[0].weight), id(net[4].weight)}


def test_nesterovs_step_worked_by_hand_with_a_rate_and_a_decay_for_each_group():
    w, b = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([1.0]))
    groups = [([w], {"lr": 0.1, "weight_decay": 0.5}), ([b], {"lr": 0.2, "weight_decay": 0.0}), ([], {"lr": 1.0})]
    optimizer = nesterov(groups, 0.5, CPU)
    for _ in range(2):
        w.grad, b.grad = torch.tensor([1.0]), torch.tensor([1.0])
        optimizer.step()
    # w: g = 1 + 0.5 * 2 = 2, v = 2, w = 2 - 0.1 * (2 + 0.5 * 2) = 1.7; g = 1.85, v = 2.85, w = 1.7 - 0.3275
    assert w.item() == pytest.approx(1.3725)
    # b: v = 1, b = 1 - 0.2 * 1.5 = 0.7; v = 1.5, b = 0.7 - 0.2 * (1 + 0.75)
    assert b.item() == pytest.approx(0.35)


@pytest.mark.parametrize(("name", "fused"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_an_update_is_fused_where_the_device_can(monkeypatch, name, fused):
    seen = []
    for optimizer in ("SGD", "AdamW"):
        monkeypatch.setattr(torch.optim, optimizer, lambda *args, fused, **settings: seen.append(fused))
    net = nn.Linear(2, 2)
    adamw(net, 0.1, 0.0, torch.device(name))
    nesterov([([net.weight], {"lr": 0.1})], 0.9, torch.device(name))
    assert seen == [fused, fused]


def test_adamw_has_its_rate_and_its_decoupled_decay():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(2.0)
    net.weight.grad = torch.tensor([[5.0]])
    adamw(net, 0.1, 0.5, CPU).step()
    assert net.weight.item() == pytest.approx(2 - 0.1 * 0.5 * 2 - 0.1, abs=1e-6)  # Adam's first step is lr long


# Averages


def net_at(value):
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    set_to(net, value)
    return net


def set_to(net, value):
    net[0].weight.data.fill_(value)
    net[1].running_mean.fill_(10 * value)


def values(net):
    return net[0].weight.item(), net[1].running_mean.item()


def test_the_moving_average_worked_by_hand_leaves_training_alone():
    net = net_at(0.0)
    average = SlowWeights(net, share=0.25, period=1, pull=False)
    for value in (4.0, 8.0):
        set_to(net, value)
        average.update(1.0)
        assert values(net) == (value, 10 * value)
    with average.in_model():  # 0 -> 1 -> 1 + 7 / 4
        assert values(net) == (2.75, 27.5)
    assert values(net) == (8.0, 80.0)


def test_lookahead_worked_by_hand_pulls_the_fast_weights_back_every_period():
    net = net_at(0.0)
    average = SlowWeights(net, share=0.25, period=2, pull=True)
    seen = []
    for value in (4.0, 8.0, 6.0, 10.0):
        set_to(net, value)
        average.update(1.0)
        seen.append(values(net))
    assert seen == [(4.0, 40.0), (2.0, 20.0), (6.0, 60.0), (4.0, 40.0)]  # 0 + 8 / 4; 2 + (10 - 2) / 4


def test_an_average_follows_training_at_first_and_lags_the_more_the_more_of_the_run_is_over():
    for progress, share in ((0.0, 1.0), (0.5, 1 - 0.75 / 8), (1.0, 0.25)):
        net = net_at(0.0)
        average = SlowWeights(net, share=0.25, period=1, pull=True)
        set_to(net, 4.0)
        average.update(progress)
        assert values(net) == (4 * share, 40 * share)


def test_the_fast_weights_are_restored_after_an_error():
    net = net_at(1.0)
    average = SlowWeights(net, share=0.5, period=1, pull=False)
    set_to(net, 3.0)
    with pytest.raises(KeyError), average.in_model():
        raise KeyError
    assert values(net) == (3.0, 30.0)


def test_an_averages_state_has_its_values_and_its_place_in_the_period():
    net = net_at(0.0)
    average = SlowWeights(net, share=0.5, period=2, pull=False)
    set_to(net, 4.0)
    average.update(1.0)
    state = copy.deepcopy(average.state_dict())
    other = SlowWeights(net, share=0.5, period=2, pull=False)
    other.load_state_dict(state)
    other.update(1.0)
    with other.in_model():
        assert values(net) == (2.0, 20.0)
