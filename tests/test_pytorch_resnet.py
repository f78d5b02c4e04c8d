"""The two residual nets: their shapes, their first weights, and the outputs of their layers."""

import pytest
import torch
from torch.nn import functional as F

from cs231n.pytorch_resnet import (
    FastBlock,
    FastResNet,
    ResidualBlock,
    ResNet,
    build,
    scores_of,
    whitening_filters,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("c_in", "c_out", "stride", "side"), [(4, 4, 1, 8), (4, 6, 1, 8), (4, 8, 2, 4), (4, 4, 2, 4)])
def test_a_block_keeps_or_halves_the_picture(c_in, c_out, stride, side):
    block = ResidualBlock(c_in, c_out, stride)
    assert block(torch.randn(2, c_in, 8, 8)).shape == (2, c_out, side, side)
    assert isinstance(block.shortcut, torch.nn.Identity) == (c_in == c_out and stride == 1)


@pytest.mark.parametrize(("block", "activation"), [(ResidualBlock(4, 4, 1), F.relu), (FastBlock(4), F.gelu)])
def test_a_block_whose_residual_is_zero_passes_its_input_on(block, activation):
    torch.nn.init.zeros_(block.residual[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), activation(x))


@pytest.mark.parametrize(("block", "activation"), [(ResidualBlock(4, 4, 1), F.relu), (FastBlock(4), F.gelu)])
def test_a_blocks_output_worked_out_step_by_step(block, activation):
    x = torch.randn(2, 4, 8, 8)
    conv1, bn1, _, conv2, bn2 = block.residual
    assert torch.allclose(block(x), activation(x + bn2(conv2(activation(bn1(conv1(x)))))), atol=1e-5)


def test_the_classic_net_takes_any_picture_and_has_the_weights_that_are_counted_by_hand():
    net = ResNet(widths=(4, 8), blocks=1)
    assert net(torch.randn(2, 3, 20, 24)).shape == (2, 10)
    # stem 3*4*9 + 8; block 1: 2 * (4*4*9 + 8); block 2: 4*8*9 + 16, 8*8*9 + 16, 4*8 + 16; affine 8*10 + 10
    assert sum(w.numel() for w in net.parameters()) == 116 + 304 + 304 + 592 + 48 + 90


def test_the_classic_nets_scores_are_affine_in_the_mean_over_the_picture():
    net = ResNet(widths=(4, 8), blocks=1)
    x = torch.randn(2, 3, 8, 8)
    features = net.layers(x)
    assert features.shape == (2, 8, 4, 4)
    assert torch.allclose(net(x), net.affine(features.sum(dim=(2, 3)) / 16), atol=1e-5)


def test_the_fast_net_has_the_weights_that_are_counted_by_hand():
    net = FastResNet(widths=(4, 8), blocks=1)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    # first 3*24*4 + 24; stage 1: 24*4*9 + 8; stage 2: 4*8*9 + 16 and a block 2 * (8*8*9 + 16); affine 8*10
    assert sum(w.numel() for w in net.parameters()) == 312 + 872 + 304 + 1184 + 80


def test_the_fast_nets_scores_are_a_ninth_of_a_product_with_the_maxima_of_the_picture():
    net = FastResNet(widths=(4, 8), blocks=1)
    x = torch.randn(2, 3, 32, 32)
    features = net.layers(net.first(x))
    assert features.shape == (2, 8, 7, 7)
    maxima = features.flatten(2).sort().values[:, :, -1]
    assert torch.allclose(net(x), maxima @ net.affine.weight.T / 9, atol=1e-6)


@pytest.mark.parametrize(
    ("blocks", "counts"),
    [(2, [0, 2, 2]), ((1, 0, 2), [1, 0, 2]), ((1,), [1, 1, 1]), ((0, 1), [0, 1, 1]), ((1, 1, 1, 5), [1, 1, 1])],
)
def test_each_stage_of_the_fast_net_has_its_number_of_blocks_and_the_last_one_repeats(blocks, counts):
    layers = FastResNet((2, 3, 4), blocks).layers
    assert [sum(isinstance(m, FastBlock) and len(m.residual[1].bias) == c for m in layers) for c in (2, 3, 4)] == counts


def test_the_fast_net_takes_smaller_pictures_too():
    net = FastResNet((2, 3, 4), (1,)).eval()
    assert [net(torch.randn(2, 3, side, side)).shape for side in (24, 28)] == [(2, 10)] * 2


def test_the_fast_nets_norms_shift_but_do_not_scale():
    norms = [m for m in FastResNet((4, 8), 1).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 4
    assert all(not n.weight.requires_grad and n.bias.requires_grad and torch.all(n.weight == 1) for n in norms)


# Whitening


def images():
    """Images whose neighbouring pixels and whose colours are alike, (50, 3, 16, 16)."""
    x = torch.randn(50, 1, 17, 17) + 0.3 * torch.randn(50, 3, 17, 17)
    return x[:, :, 1:, 1:] + x[:, :, :-1, 1:] + 0.5 * x[:, :, 1:, :-1]


def test_whitening_makes_patches_uncorrelated_with_variance_1():
    x = images()
    out = F.conv2d(x, whitening_filters(x, eps=0))[:, :12].transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(out), torch.eye(12), atol=1e-3)


def test_whitening_has_each_filters_negative_and_the_strongest_direction_first():
    x = images()
    filters = whitening_filters(x)
    assert filters.shape == (24, 3, 2, 2)
    assert filters.dtype == torch.float32
    assert torch.equal(filters[:12], -filters[12:])
    norms = filters[:12].flatten(1).norm(dim=1)
    assert torch.all(norms[1:] > norms[:-1])  # 1 / sqrt(lambda + eps) grows as lambda falls


def test_whitening_does_not_blow_up_a_direction_without_variance():
    x = images().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)  # grey
    norms = whitening_filters(x, eps=5e-4).flatten(1).norm(dim=1)
    assert norms.max() == pytest.approx(5e-4**-0.5, rel=1e-3)


def test_a_whitened_first_layer_stays_and_its_bias_is_trained_from_0():
    net, x = FastResNet((4, 8), 1), images()
    net.whiten(x)
    assert torch.equal(net.first.weight, whitening_filters(x))
    assert not net.first.weight.requires_grad
    assert net.first.bias.requires_grad
    assert torch.all(net.first.bias == 0)


def test_a_convolution_that_starts_as_the_identity_passes_its_input_on():
    net = FastResNet((32, 40), 1)
    net.start_as_identity()
    convolutions = [m for m in net.layers.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 4
    for conv in convolutions:
        x = torch.randn(1, conv.in_channels, 6, 6)
        out = conv(x)
        assert torch.equal(out[:, : conv.in_channels], x)
        further = out[:, conv.in_channels :]
        assert torch.all(further.amax(dim=(2, 3)) > further.amin(dim=(2, 3)))


# Nets by name, and test-time flips


@pytest.mark.parametrize("name", ["ResNet", "FastResNet"])
def test_a_net_is_built_from_its_architecture(name):
    net = build({"net": name, "widths": [4, 6], "blocks": 2, "num_classes": 7})
    assert type(net).__name__ == name
    assert net.affine.weight.shape == (7, 6)
    assert len(net.layers) == {"ResNet": 3 + 2 + 2, "FastResNet": 1 + 4 + 4 + 2}[name]


def test_scores_with_a_test_flip_are_the_mean_over_both_ways_to_see_an_image():
    net, x = ResNet((4,), 1).eval(), torch.randn(3, 3, 8, 8)
    assert torch.equal(scores_of(net, x, False), net(x))
    flipped = scores_of(net, x, True)
    assert torch.allclose(flipped, (net(x) + net(torch.flip(x, (3,)))) / 2, atol=1e-6)
    assert not torch.allclose(flipped, net(x), atol=1e-4)


def test_scores_with_test_shifts_are_half_those_of_the_image_and_a_quarter_each_of_two_shifted_ones():
    net, x = ResNet((4,), 1).eval(), torch.randn(3, 3, 8, 8)
    down, up = torch.roll(x, (1, 1), (2, 3)), torch.roll(x, (-1, -1), (2, 3))
    down[:, :, 0], up[:, :, -1] = down[:, :, 2], up[:, :, -3]  # the rows and columns that the border reflects
    down[:, :, :, 0], up[:, :, :, -1] = down[:, :, :, 2], up[:, :, :, -3]
    for flip in (False, True):
        one, two, three = (scores_of(net, view, flip) for view in (x, down, up))
        assert torch.allclose(scores_of(net, x, flip, True), one / 2 + two / 4 + three / 4, atol=1e-6)
    assert not torch.allclose(scores_of(net, x, False, True), net(x), atol=1e-4)


def test_only_the_least_sure_images_are_averaged_where_asked():
    net, x = ResNet((4,), 1).eval(), torch.randn(7, 3, 8, 8)
    plain, averaged, mixed = net(x), scores_of(net, x, True, True), scores_of(net, x, True, True, unsure=0.25)
    ranked = plain.sort(dim=1).values
    order = (ranked[:, -1] - ranked[:, -2]).argsort()
    assert torch.allclose(mixed[order[:2]], averaged[order[:2]], atol=1e-6)  # 2 is 7 / 4, rounded up
    assert torch.equal(mixed[order[2:]], plain[order[2:]])


def test_scores_are_averaged_in_float32_at_least():
    with torch.autocast("cpu", torch.bfloat16):
        assert scores_of(ResNet((4,), 1).eval(), torch.randn(2, 3, 8, 8), True).dtype == torch.float32
    assert scores_of(ResNet((4,), 1).double().eval(), torch.randn(2, 3, 8, 8).double()).dtype == torch.float64
