"""Classify image files with a trained net: `python -m cs231n.pytorch_cifar10 predict [CHECKPOINT] IMAGE...`."""

import logging
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin

from cs231n.arguments import check_count
from cs231n.pytorch_data import normalized
from cs231n.pytorch_device import best_device, memory_format, usable_device
from cs231n.pytorch_files import check_tensors, in_single_precision, interpreted, load
from cs231n.pytorch_resnet import build, scores_of

logger = logging.getLogger(__name__)

PRETRAINED = Path(__file__).with_name("pretrained") / "half.pt"  # of the preset cpu; its log is beside it
SIDE = 32  # height and width, in pixels, of the images that the nets are trained on
GREYS = {"L;2": 255 // 3, "L;4": 255 // 15}  # what a PNG's grey of fewer bits is multiplied by
# Editors write texts and colour profiles of more than Pillow's 1 MiB into a PNG.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 256 << 20


class Classifier:
    """The net of a checkpoint, ready to classify.

    checkpoint: the path of a run's best.pt, last.pt or half.pt (None: `PRETRAINED`, the net that comes with the pack).
    device: a name, such as cpu or cuda (None: that of `best_device`).  class_names, data: the class names and the name
    of the data set that it was trained on.
    Raises OSError where the checkpoint cannot be read, ValueError where it is damaged or was not written by a training
    run, or where the device cannot be used.
    """

    def __init__(self, checkpoint=None, device=None):
        checkpoint, self.device = checkpoint or PRETRAINED, usable_device(device or best_device())
        state = load(checkpoint, self.device)
        with interpreted(checkpoint):
            self.class_names, self.data = state["class_names"], state["data"]
            self._views = {name: state.get(name, False) for name in ("test_flip", "test_shifts")}
            self._statistics = tuple(torch.tensor(state["statistics"][s], device=self.device) for s in ("mean", "std"))
            with torch.device("meta"):  # names and shapes, without memory for the weights
                self.model = build(state["architecture"] | {"num_classes": len(self.class_names)})
            weights = in_single_precision(state["model"])
            check_tensors(checkpoint, weights, self.model.state_dict())
            self.model.load_state_dict(weights, assign=True)
        self.model.to(self.device, memory_format=memory_format(self.device)).eval()

    @torch.inference_mode()
    def probabilities(self, x):
        """The probability of each class: the softmax of the scores.

        x (N, 3, 32, 32) uint8, an array or a tensor.  Returns an array (N, num_classes) float32; each row sums to 1.
        Where the recipe has test_flip or test_shifts, the scores are averaged over these views of each image.
        """
        x = normalized(torch.as_tensor(x, device=self.device), self._statistics)
        return scores_of(self.model, x, **self._views).float().softmax(dim=1).cpu().numpy()

    def classify(self, path):
        """A dict from class name to probability, most probable first, for an image file.

        Raises what `read_image` raises.
        """
        (probabilities,) = self.probabilities(read_image(path)[None]).tolist()
        by_class = zip(self.class_names, probabilities, strict=True)
        return dict(sorted(by_class, key=lambda pair: pair[1], reverse=True))


def predict(checkpoint, paths, device=None):
    """For each image file of paths, a dict from class name to probability, most probable first.

    checkpoint, device: as for `Classifier`.  Raises what `Classifier` and `read_image` raise.
    """
    classifier = Classifier(checkpoint, device)
    return [classifier.classify(path) for path in paths]


def read_image(path):
    """The central square of a PNG or JPEG image, resized to 32 x 32 pixels (bicubic): an array (3, 32, 32) uint8.

    The image may have any pixel format: grey becomes colour, transparent pixels are put on white, and a photograph is
    rotated as its EXIF orientation says.  Of an animation, the first image is taken.  A large JPEG image is read at a
    half, a quarter or an eighth of its size.
    Raises OSError where the file cannot be read, ValueError where it is not a complete PNG or JPEG image, or has more
    pixels than Pillow's MAX_IMAGE_PIXELS, 89 million, a JPEG image more than twice as many.
    """
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of the number of pixels, which `_open` checks
        try:
            image = _open(file)
            image.load()
            with suppress(Exception):  # damaged EXIF data raises errors of many types: the image is not rotated then
                image = ImageOps.exif_transpose(image)
            image = ImageOps.fit(_on_white(image), (SIDE, SIDE), Image.Resampling.BICUBIC)
        except Image.DecompressionBombError as error:
            most = Image.MAX_IMAGE_PIXELS
            raise ValueError(f"{path} has too many pixels: at most {most} are read, or {2 * most} of a JPEG") from error
        except Exception as error:  # damaged images raise errors of many types
            raise ValueError(f"{path} is not a complete PNG or JPEG image that fits in memory") from error
    return np.asarray(image).transpose(2, 0, 1).copy()


def _open(file):
    """An image file as a Pillow image of 8 bits, with its transparent colour, if it has one, at the same depth."""
    image = Image.open(file, formats=("PNG", "JPEG"))
    image.draft(None, (16 * SIDE, 16 * SIDE))  # libjpeg can leave out pixels; these are still many more than SIDE
    if image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError
    layout, key = image.tile[0].args, image.info.get("transparency")
    if layout in GREYS and key is not None:
        image.info["transparency"] = GREYS[layout] * key  # Pillow scales only the pixels to 8 bits
    elif layout == "I;16B":
        return _in_8_bits(image, np.asarray(image)[..., None], key)
    elif layout == "RGB;16B" and key is not None:
        low = Image.open(file, formats=("PNG",))
        low.tile = [low.tile[0]._replace(args="RGB;16L")]  # Pillow keeps what it takes for the upper byte of a number
        return _in_8_bits(image, np.asarray(image).astype(np.uint16) << 8 | np.asarray(low), key)
    return image


def _in_8_bits(image, pixels, key):
    """A Pillow image of 8 bits, from pixels (H, W, C) of 16 bits, the transparent colour key in an alpha channel."""
    alpha = np.full(pixels.shape[:2], 255) if key is None else 255 * np.any(pixels != key, axis=2)
    converted = Image.fromarray(np.dstack([pixels >> 8, alpha]).astype(np.uint8))
    converted.info = image.info  # with its orientation
    return converted


def _on_white(image):
    """image as RGB, over white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def add_options(parser, argv):
    """Add the options of predict to parser; argv, the words of the command line, has no effect on them."""
    text = "PNG or JPEG files of any size; before them perhaps a checkpoint, such as best.pt, whose name ends in .pt"
    parser.add_argument("files", nargs="+", metavar="FILE", help=f"{text} (default: the net that comes with the pack)")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: a GPU, if there is one)")
    parser.add_argument("--top", type=int, metavar="N", help="how many classes to print, best first (default: all)")


def run(args):
    """Print a line for each image: its path, and class names with probabilities in percent.

    args: the parsed options.  An image that cannot be read is logged as an error and skipped.  Returns the exit status:
    0, or 1 if there was such an image.  Raises what `Classifier` raises, and ValueError unless args.top is at least 1.
    """
    if args.top is not None:
        check_count("top", args.top, 1)
    names_checkpoint = args.files[0].endswith(".pt")
    classifier = Classifier(args.files[0] if names_checkpoint else None, args.device)
    failed = 0
    for path in args.files[names_checkpoint:]:
        try:
            ranked = list(classifier.classify(path).items())[: args.top]
            percent = ", ".join(f"{name} {100 * probability:.2f} %" for name, probability in ranked)
            sys.stdout.write(_printable(f"{path}: {percent}") + "\n")
        except (ValueError, OSError) as error:
            logger.error("%s", _printable(str(error)))
            failed = 1
    return failed


def _printable(text):
    """text in one line, with escapes for the characters that the terminal cannot print."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)
