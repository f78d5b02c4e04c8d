"""A PyTorch net as a file of layers: the same scores, and nothing that the file cannot say."""

import numpy as np
import pytest
import torch
from torch import nn

from cs231n import handin, shapes10
from cs231n.pytorch_handin import layers_of, save_module
from cs231n.pytorch_resnet import FastResNet, ResidualBlock, ResNet

IMAGES, _ = shapes10.draw(40, 2)
STATISTICS = torch.tensor([110.0, 120, 130]), torch.tensor([50.0, 60, 70])
NETS = {
    "resnet": lambda: ResNet((4, 8, 12), 2),
    "sequential": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 5, 2, 1),
        nn.BatchNorm2d(6, eps=1e-3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Dropout(0.5),
        nn.Sequential(ResidualBlock(6, 6, 1), nn.Identity(), ResidualBlock(6, 8, 2)),
        nn.Flatten(),
        nn.Linear(8 * 16, 20, bias=False),
        nn.BatchNorm1d(20),
        nn.ReLU(),
        nn.Linear(20, 10),
    ),
    "mean": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(5, 10)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_file_gives_the_scores_of_the_module(name, tmp_path):
    torch.manual_seed(0)
    net = NETS[name]()
    mean, std = (s[:, None, None] for s in STATISTICS)
    x = (torch.tensor(IMAGES).float() - mean) / std
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        net(x)  # the running statistics are no longer those of the start
        wanted = net.eval()(x).numpy()
    save_module(net, STATISTICS, tmp_path / "net.npz")
    assert np.abs(handin.scores(IMAGES, tmp_path / "net.npz") - wanted).max() < 1e-4 * np.abs(wanted).max()


class Own(ResidualBlock):
    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize(
    "module",
    [
        Own(4, 4, 1),
        FastResNet((4, 4, 4)),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, stride=(1, 2)),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, dilation=2),
        nn.AdaptiveAvgPool2d(2),
        nn.GELU(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_the_file_cannot_say_is_refused(module):
    with pytest.raises(ValueError, match="module: wanted"):
        layers_of(nn.Sequential(module))
