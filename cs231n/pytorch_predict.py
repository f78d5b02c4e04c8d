"""Classify image files by a checkpoint: `python -m cs231n.pytorch_cifar10 predict CHECKPOINT IMAGE...`."""

import logging
import sys
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps

from cs231n.arguments import check_count
from cs231n.pytorch_data import normalized
from cs231n.pytorch_device import best_device, memory_format, usable_device
from cs231n.pytorch_files import load
from cs231n.pytorch_resnet import build, scores_of

logger = logging.getLogger(__name__)

SIDE = 32  # of the images that the nets are trained on


class Classifier:
    """The net of a checkpoint, ready to classify.

    checkpoint: best.pt or last.pt of a run.  device: a name, such as cpu or cuda (None: the fastest here).
    Raises OSError where the checkpoint cannot be read, ValueError where it is damaged or foreign, or for a device that
    cannot be used.
    """

    def __init__(self, checkpoint, device=None):
        self.device = usable_device(device or best_device())
        state = load(checkpoint, self.device)
        self.class_names, self.data, self._test_flip = state["class_names"], state["data"], state["test_flip"]
        self._statistics = tuple(torch.tensor(state["statistics"][s], device=self.device) for s in ("mean", "std"))
        self.model = build(state["architecture"]).to(self.device, memory_format=memory_format(self.device))
        self.model.load_state_dict(state["model"])
        self.model.eval()

    @torch.inference_mode()
    def probabilities(self, x):
        """The probability of each class, (N, num_classes) float32, for images x (N, 3, 32, 32) uint8."""
        x = normalized(torch.as_tensor(x, device=self.device), self._statistics)
        return scores_of(self.model, x, self._test_flip).float().softmax(dim=1).cpu().numpy()

    def classify(self, path):
        """A dict from class name to probability, the surest first, for an image file; errors as in `read_image`."""
        (probabilities,) = self.probabilities(read_image(path)[None]).tolist()
        by_class = zip(self.class_names, probabilities, strict=True)
        return dict(sorted(by_class, key=lambda pair: pair[1], reverse=True))


def predict(checkpoint, paths, device=None):
    """For each image file of paths, a dict from class name to probability, the surest first.

    Raises what `Classifier` and `read_image` raise.
    """
    classifier = Classifier(checkpoint, device)
    return [classifier.classify(path) for path in paths]


def read_image(path):
    """The square in the middle of a PNG or JPEG file, shrunk or grown to 32 x 32: (3, 32, 32) uint8.

    Any size and any kind of pixels: grey becomes colour, and what is transparent lies on white.  A photograph is turned
    as its camera says.  Raises OSError where the file cannot be read, ValueError where it is no whole image.
    """
    with open(path, "rb") as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = Image.open(file, formats=("PNG", "JPEG"))
                image = _on_white(ImageOps.exif_transpose(image))
                image = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC)
        except Exception as error:  # what a damaged image raises has no type in common
            raise ValueError(f"{path} is not a whole PNG or JPEG image that fits in memory") from error
    return np.asarray(image).transpose(2, 0, 1).copy()


def _on_white(image):
    """image in 8 bits of red, green and blue, over white where it is transparent."""
    if image.mode.startswith("I"):  # 16 bits of grey, of which `convert` would cut off the upper 8
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def add_options(parser, argv):
    """Give parser the options of predict."""
    parser.add_argument("checkpoint", help="best.pt of a run")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a PNG or JPEG file of any size")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the fastest here)")
    parser.add_argument("--top", type=int, metavar="N", help="classes to name, the surest first (default: all)")


def run(args):
    """Write a line for each image.  Returns the exit status, 1 where an image cannot be read."""
    if args.top is not None:
        check_count("top", args.top, 1)
    classifier = Classifier(args.checkpoint, args.device)
    failed = 0
    for path in args.images:
        try:
            ranked = list(classifier.classify(path).items())[: args.top]
            said = ", ".join(f"{name} {100 * probability:.2f} %" for name, probability in ranked)
            sys.stdout.write(f"{path}: {said}\n")
        except (ValueError, OSError) as error:
            logger.error("%s", error)
            failed = 1
    return failed
