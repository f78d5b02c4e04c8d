"""Two residual nets for images of 32 x 32: `ResNet`, in the classic form, and `FastResNet`, made for a short training.

Both take x (N, 3, H, W), normalized, and return scores (N, num_classes).
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

PATCH = 2  # the side of the patches that `FastResNet` whitens
SCORE_SCALE = 1 / 9


class ResidualBlock(nn.Module):
    """out = relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x, or conv 1x1 and bn of it where the shape changes.

    x (N, c_in, H, W) -> out (N, c_out, H / stride, W / stride).
    Source: He et al., Deep residual learning for image recognition, CVPR 2016, figure 2.
    """

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.residual(x))


class ResNet(nn.Module):
    """conv - bn - relu - stages of residual blocks - mean over the picture - affine.

    widths: channels of each stage; each but the first halves the picture.  blocks: residual blocks in a stage.
    """

    def __init__(self, widths=(64, 128, 256), blocks=2, num_classes=10):
        super().__init__()
        layers = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for stage, (c_in, c_out) in enumerate(pairwise([widths[0], *widths])):
            layers.append(ResidualBlock(c_in, c_out, stride=1 if stage == 0 else 2))
            layers += [ResidualBlock(c_out, c_out, stride=1) for _ in range(blocks - 1)]
        self.layers = nn.Sequential(*layers)
        self.affine = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        return self.affine(self.layers(x).mean(dim=(2, 3)))


class FastBlock(nn.Module):
    """out = gelu(x + bn(conv(gelu(bn(conv(x)))))); x and out (N, c, H, W)."""

    def __init__(self, c):
        super().__init__()
        self.residual = nn.Sequential(_conv(c, c), _norm(c), nn.GELU(), _conv(c, c), _norm(c))

    def forward(self, x):
        return F.gelu(x + self.residual(x))


class FastResNet(nn.Module):
    """conv 2x2 - gelu - stages of (conv - max-pool - bn - gelu - residual blocks) - max over the picture - product.

    widths: channels of each stage, which halves the picture.  blocks: residual blocks in each stage but the first.
    Batch norms shift but do not scale (gamma stays 1), and the scores are divided by 9, which keeps the first ones
    small.  The first layer has 24 filters, for the 12 values of a patch and for their negatives; `whiten` sets them.

    Sources: Coleman et al., DAWNBench, 2017, and Page, How to train your ResNet, 2019 (the residual net with few wide
    stages, fixed gammas, scaled scores); Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv
    2404.00498, section 3 (patches of 2 x 2, frozen; dirac initialization), which has no residuals.
    """

    def __init__(self, widths=(64, 256, 256), blocks=1, num_classes=10):
        super().__init__()
        self.first = nn.Conv2d(3, 2 * 3 * PATCH**2, PATCH)
        layers = [nn.GELU()]
        for stage, (c_in, c_out) in enumerate(pairwise([self.first.out_channels, *widths])):
            layers += [_conv(c_in, c_out), nn.MaxPool2d(2), _norm(c_out), nn.GELU()]
            layers += [FastBlock(c_out) for _ in range(blocks if stage else 0)]
        self.layers = nn.Sequential(*layers)
        self.affine = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, x):
        return SCORE_SCALE * self.affine(self.layers(self.first(x)).amax(dim=(2, 3)))

    def whiten(self, x):
        """Make the first layer's filters those of `whitening_filters(x)`, keep them so, and start its bias at 0."""
        with torch.no_grad():
            self.first.weight.copy_(whitening_filters(x))
            self.first.bias.zero_()
        self.first.weight.requires_grad_(False)

    def start_as_identity(self):
        """Let each 3x3 convolution hand on its input, as far as it has channels for it; further filters stay random.

        Source: Zagoruyko and Komodakis, DiracNets, 2017, arXiv 1706.00388.
        """
        for conv in self.layers.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.dirac_(conv.weight.data[: conv.in_channels])


def _conv(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def _norm(c):
    norm = nn.BatchNorm2d(c, momentum=0.4)  # an epoch has few steps, and the running statistics must keep up
    norm.weight.requires_grad_(False)
    return norm


def whitening_filters(x, eps=5e-4):
    """Filters whose outputs on the patches of x are uncorrelated, of variance about 1, and the negatives of these.

    The patches' covariance is sum_k lambda_k v_k v_k^T; the filters are w_k = v_k / sqrt(lambda_k + eps) and -w_k: a
    ReLU or GELU behind them then loses nothing.  x (N, 3, H, W), normalized; returns (24, 3, 2, 2) in x's dtype, on
    its device, largest lambda first.  It is computed in float64 on the CPU, so that a seed gives the same net anywhere.
    Source: Page, How to train your ResNet 8: bag of tricks, 2019.
    """
    patches = F.unfold(x.cpu().double(), PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2)  # (patches, 12)
    eigenvalues, eigenvectors = torch.linalg.eigh(torch.cov(patches.T))
    filters = (eigenvectors / torch.sqrt(eigenvalues + eps)).T.flip(0).reshape(-1, 3, PATCH, PATCH)
    return torch.cat([filters, -filters]).to(x)


NETS = {"ResNet": ResNet, "FastResNet": FastResNet}


def build(architecture):
    """The net that a checkpoint's architecture describes: net, widths, blocks and num_classes."""
    settings = dict(architecture)
    return NETS[settings.pop("net")](**settings)


def scores_of(model, x, test_flip):
    """The scores (N, num_classes) of x (N, 3, H, W); with test_flip, the mean of those of x and of its mirror image."""
    return (model(x) + model(x.flip(3))) / 2 if test_flip else model(x)
