"""An epoch of the PyTorch ResNet as a recipe trains it, beside a bare loop over the same net.

The bare loop has its batches ready, normalized, and does what a step must: forward, loss, backward, update.  Ours also
shuffles, crops, flips and normalizes, follows the schedule, and counts loss and accuracy; `Training` asks for no more.
"""

import numpy as np
import pytest
from torch.nn import functional as F

from cs231n.pytorch_data import Images
from cs231n.pytorch_recipes import Classic, Speedrun
from cs231n.pytorch_training import Training

BATCH, STEPS = 128, 4
RECIPES = {
    "classic": Classic(batch_size=BATCH, widths=(16, 32, 64), blocks=1),
    "speedrun": Speedrun(batch_size=BATCH, widths=(16, 32, 64)),
}


class Bar:
    """A progress bar that nobody sees."""

    def update(self):
        pass


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("side", ["ours", "torch"])
def test_training_epoch(benchmark, side, recipe, tmp_path):
    benchmark.group = f"{STEPS} steps of {BATCH} images, {recipe.name}"
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (STEPS * BATCH, 3, 32, 32), np.uint8), rng.integers(0, 10, STEPS * BATCH)
    images = Images(x, y, "cpu")
    training = Training(recipe, images, images, tmp_path)
    sides = {"ours": lambda: training._train_epoch(Bar()), "torch": bare_loop(training, images)}
    benchmark.pedantic(sides[side], rounds=15, warmup_rounds=3)


def bare_loop(training, images):
    batches = list(images.batches(BATCH))

    def epoch():
        training.model.train()
        for x, y in batches:
            for optimizer in training.optimizers:
                optimizer.zero_grad()
            scores = training.model(x)
            F.cross_entropy(scores, y, label_smoothing=training.recipe.label_smoothing).backward()
            for optimizer in training.optimizers:
                optimizer.step()

    return epoch
