"""Two residual nets for images of 32 x 32 pixels: the classic `ResNet`, and `FastResNet`, for short training runs.

Both map normalized images x (N, 3, H, W) to scores (N, num_classes).  x has the dtype of the weights, float32 by
default, and so do the scores; under bfloat16 autocast the scores are bfloat16.
"""

import math
from itertools import chain, pairwise, repeat

import torch
from torch import nn
from torch.nn import functional as F

PATCH = 2  # the side of the patches that `FastResNet` whitens
SCORE_SCALE = 1 / 9


class ResidualBlock(nn.Module):
    """out = relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x, or bn(conv1x1(x)) where the shape changes.

    x (N, c_in, H, W) -> out (N, c_out, H / stride, W / stride), rounded up; x and out have the dtype of the weights.
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
        """The out (N, c_out, H / stride, W / stride) of x (N, c_in, H, W)."""
        return F.relu(self.shortcut(x) + self.residual(x))


class ResNet(nn.Module):
    """conv - bn - relu - stages of residual blocks - mean over the pixels - affine.

    widths: channels of each stage; each stage but the first halves height and width.  blocks: residual blocks per
    stage.  With widths (64, 128, 256, 512) and 2 blocks it is ResNet-18 with a 3x3 convolution as its stem.
    Source: He et al., Deep residual learning for image recognition, CVPR 2016.
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
        """Scores (N, num_classes) of x (N, 3, H, W): affine in the mean of each feature map."""
        return self.affine(self.layers(x).mean(dim=(2, 3)))


class FastBlock(nn.Module):
    """out = gelu(x + bn(conv(gelu(bn(conv(x)))))); x and out (N, c, H, W), in the dtype of the weights."""

    def __init__(self, c):
        super().__init__()
        self.residual = nn.Sequential(_conv(c, c), _norm(c), nn.GELU(), _conv(c, c), _norm(c))

    def forward(self, x):
        """The out (N, c, H, W) of x (N, c, H, W)."""
        return F.gelu(x + self.residual(x))


class FastResNet(nn.Module):
    """conv 2x2 - gelu - stages of (conv - max-pool - bn - gelu - residual blocks) - max over the pixels - linear.

    widths: channels of each stage; each stage halves height and width.  blocks: residual blocks in each stage; the last
    number counts for all further stages, and an int n is short for (0, n).  Batch norm shifts but does not scale (gamma
    stays 1), and the scores are divided by 9.  The first layer has 24 filters: 12, one for each value of a 2 x 2 patch
    in 3 colours, and their negatives; `whiten` sets them.

    Sources: Coleman et al., DAWNBench, 2017, and Page, How to train your ResNet, 2019 (a residual net with few wide
    stages, fixed gammas, scaled scores); Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv
    2404.00498, section 3 (frozen 2 x 2 whitening, identity initialization; that net has no residuals).
    """

    def __init__(self, widths=(64, 256, 256), blocks=1, num_classes=10):
        super().__init__()
        self.first = nn.Conv2d(3, 2 * 3 * PATCH**2, PATCH)
        layers = [nn.GELU()]
        blocks = (0, blocks) if isinstance(blocks, int) else blocks
        stages = pairwise([self.first.out_channels, *widths])
        for (c_in, c_out), count in zip(stages, chain(blocks, repeat(blocks[-1])), strict=False):
            layers += [_conv(c_in, c_out), nn.MaxPool2d(2), _norm(c_out), nn.GELU()]
            layers += [FastBlock(c_out) for _ in range(count)]
        self.layers = nn.Sequential(*layers)
        self.affine = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, x):
        """Scores (N, num_classes) of x (N, 3, H, W): linear in the maximum of each feature map, and without a bias."""
        maxima = F.adaptive_max_pool2d(self.layers(self.first(x)), 1)  # amax: nan gradients, compiled under bfloat16
        return SCORE_SCALE * self.affine(maxima.flatten(1))

    def whiten(self, x):
        """Set the first layer's filters to `whitening_filters(x)`, freeze them, and set its bias, still trained, to 0.

        x (N, 3, H, W) float32: normalized training images.
        """
        with torch.no_grad():
            self.first.weight.copy_(whitening_filters(x.cpu() if x.device.type == "mps" else x))  # MPS has no float64
            self.first.bias.zero_()
        self.first.weight.requires_grad_(False)

    def start_as_identity(self):
        """Initialize each 3x3 convolution as the identity: output channel k is input channel k, where both exist.

        Output channels beyond the number of input channels keep their random filters.

        Source: Zagoruyko and Komodakis, DiracNets, 2017, arXiv 1706.00388.
        """
        for conv in self.layers.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.dirac_(conv.weight.data[: conv.in_channels])


def _conv(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def _norm(c):
    norm = nn.BatchNorm2d(c, momentum=0.4)  # the share of the new batch; PyTorch's default is 0.1
    norm.weight.requires_grad_(False)
    return norm


def whitening_filters(x, eps=5e-4):
    """Filters whose outputs on the 2 x 2 patches of x are uncorrelated, with variance near 1, and their negatives.

    With the patches' covariance sum_k lambda_k v_k v_k^T, the filters are w_k = v_k / sqrt(lambda_k + eps) and -w_k.
    Each output has the variance lambda_k / (lambda_k + eps).  With both signs no information is lost in a ReLU or a
    GELU: f(z) - f(-z) = z for either.

    x (N, 3, H, W), float32 or float64, normalized.  Returns (24, 3, 2, 2) in the dtype and on the device of x: the 12
    filters by falling lambda, then their negatives.  They are computed in float64.
    Source: Page, How to train your ResNet 8: bag of tricks, 2019.
    """
    patches = F.unfold(x.double(), PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2)  # (patches, 12)
    covariance = torch.cov(patches.T)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance.cpu())
    filters = (eigenvectors / torch.sqrt(eigenvalues + eps)).T.flip(0).reshape(-1, 3, PATCH, PATCH)
    return torch.cat([filters, -filters]).to(x)


NETS = {"ResNet": ResNet, "FastResNet": FastResNet}


def build(architecture):
    """Build the net that a checkpoint's architecture describes.

    architecture: a dict of net, a key of NETS, and of that net's widths, blocks and num_classes.
    Raises KeyError for another net.
    """
    settings = dict(architecture)
    return NETS[settings.pop("net")](**settings)


def scores_of(model, x, test_flip=False, test_shifts=False, unsure=1.0):
    """Scores (N, num_classes) of images x (N, 3, H, W): those of model, float32 at least, or a mean over several views.

    test_flip: s(x) = (model(x) + model(mirrored x)) / 2, and without it model(x).  test_shifts: s(x) / 2 + s(x') / 4 +
    s(x") / 4, where x' and x" are x shifted by one pixel, down and right, and up and left, and reflected in its border.
    unsure: the fraction of the images that are averaged, those with the least difference between their two highest
    scores; the others have the scores of x alone.  Below 1 this saves time, but the scores of an image then depend on
    which images it is compared with.
    """
    if unsure < 1 and (test_flip or test_shifts):
        scores = scores_of(model, x)
        first, second = scores.topk(2).values.T
        chosen = (first - second).topk(math.ceil(unsure * len(x)), largest=False).indices
        return scores.index_copy(0, chosen, scores_of(model, x[chosen], test_flip, test_shifts))
    if test_shifts:
        framed, views = F.pad(x, (1, 1, 1, 1), "reflect"), (slice(None, -2), slice(2, None))
        moved = [scores_of(model, framed[:, :, view, view], test_flip) for view in views]
        return scores_of(model, x, test_flip) / 2 + sum(moved) / 4
    if test_flip:
        return (scores_of(model, x) + scores_of(model, x.flip(3))) / 2
    scores = model(x)
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
