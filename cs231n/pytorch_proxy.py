"""Training on the hardest images of each batch, as a small proxy net sees them.

Which images of a batch are worth a step of a large net?  Those that the net gets right already have a small loss and a
small gradient.  To find out which they are costs a forward pass of the large net over all of them; here a small net is
asked instead.
"""

import math

import torch
from torch.nn import functional as F

from cs231n.pytorch_device import autocast, memory_format
from cs231n.pytorch_optim import Scheduled
from cs231n.pytorch_resnet import build
from cs231n.pytorch_step import Step

PERIOD = 4  # steps of the training from one update of the proxy to the next


class Proxy:
    """A small net that chooses the images which it finds hardest, and is trained on them, beside the main net.

    recipe: the `Speedrun` of the proxy.  share: of a batch, that is kept.  images: the training images, on the device;
    num_classes: theirs.  x (N, 3, H, W) float32: normalized ones, for the first weights.  rate: as for `Scheduled`.
    graphed: as for `Step`.

    Its choice in a step depends on the batches so far, but not on the main net.
    Source: Jordan, airbench96_faster, 2024, which trains the proxy before the main net, on the same batches, and keeps
    the choices; it also updates the proxy in every fourth step.
    """

    def __init__(self, recipe, share, num_classes, x, rate, graphed):
        self.share, self.device = share, x.device
        self.precision, self.label_smoothing = recipe.precision, recipe.label_smoothing
        self.model = build(recipe.architecture(num_classes)).to(x.device, memory_format=memory_format(x.device))
        recipe.prepare(self.model, x)
        self.trained = Scheduled(self.model, recipe.optimizers(self.model, x.device), rate, x.device)
        settings = x.device, recipe.precision, recipe.label_smoothing, graphed
        self.step = Step(self.model, self.trained.optimizers, *settings, choose=self.choose)

    def choose(self, x, y):
        """The `kept` images of x (n, 3, H, W) with the highest loss under the proxy, the hardest first, with their y.

        The proxy is in training mode, so its batch norm uses the statistics of x.
        """
        with torch.no_grad(), autocast(self.device, self.precision):
            losses = F.cross_entropy(self.model(x), y, label_smoothing=self.label_smoothing, reduction="none")
        chosen = losses.topk(kept(self.share, len(x))).indices
        return x[chosen].contiguous(memory_format=memory_format(self.device)), y[chosen]

    def train(self, number, x, y):
        """Update the proxy by its choice of x, in every fourth step; number: that of the step, from 0."""
        if number % PERIOD == 0:
            self.step(x, y)
        self.trained.advance()


def kept(share, n):
    """The number of images that a share of n images is, at least 1."""
    return max(1, math.ceil(share * n))
