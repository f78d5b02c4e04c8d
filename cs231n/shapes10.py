"""Shapes10, the stand-in for CIFAR-10: pictures of ten kinds of objects, drawn by this module.

As in CIFAR-10, an image is 3 x 32 x 32.  Colours are correlated with the classes but do not decide them.  Shape and
pattern do, in any place, size, rotation and colour, among clutter, under uneven light and noise.
Accuracy on 10,000 test images after training on 49,000 (Shapes10: mean of 3 seeds, 2 for the conv net; CIFAR-10: 1):

                                                                                        Shapes10   CIFAR-10
    softmax (`FullyConnectedNet([])`), 7 epochs                                          35 %       38 %
    `FullyConnectedNet([256, 256, 128, 128])`, batch norm, dropout 0.9, 7 epochs         58 %       56 %
    conv 7x7, 32 filters - relu - 2x2 max-pool - affine 100 - relu - affine, 3 epochs    78 %       66 %

The bytes are the same on every platform and with every NumPy.  The random words are those of PCG64 itself, whose
stream NumPy guarantees.  Everything computed from them uses comparisons, floor, and + - * / and square roots in
float32, whose rounding IEEE 754 fixes.  exp, cos and sums over an array are avoided: their last digits vary.
"""

import logging
import os
from pathlib import Path

import numpy as np

from cs231n.arguments import check_count
from cs231n.browser import budget
from cs231n.files import atomic_write

logger = logging.getLogger(__name__)

WHOLE, IN_BROWSER = (50000, 10000), (5000, 1000)  # images for training and testing
SEED, (TRAIN, TEST) = 10, budget(WHOLE, IN_BROWSER)  # what `load` draws
SIDE = 32
BLOCK = 100  # images drawn at a time: few enough for the processor's cache
ROLLS, NOISE = 72, 3 * SIDE * SIDE // 8  # 64-bit random words per image: one for each roll, and a byte for each value
PIXEL_Y, PIXEL_X = np.indices((SIDE, SIDE), np.float32) - (SIDE - 1) / 2  # (32, 32), 0 in the middle

LOYALTY = 0.53  # the share of objects, and of backgrounds, that have the colours of their own class
SCRAPS = 5  # pieces of clutter behind the object

# Shapes: the signed distance of points, float32 arrays x and y of one shape, from an outline about 1 from the origin;
# negative is inside, y points down.  Patterns: positive where the object has its second colour.
FIVE = ((0, -1), (0.951, -0.309), (0.588, 0.809), (-0.588, 0.809), (-0.951, -0.309))  # directions, 72 degrees apart


def length(x, y):
    """Distance of (x, y) from the origin."""
    return np.sqrt(x * x + y * y)


def box(x, y, width, height):
    """Distance from a rectangle 2 width wide and 2 height high, measured along the axes."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def heart(x, y):
    """A square turned by 45 degrees, with a disc on each of its upper sides."""
    x, y = np.abs(x), y - 0.1
    return np.minimum(0.707 * (x + np.abs(y)) - 0.54, length(x - 0.38, y + 0.38) - 0.54)


def star(x, y):
    """The points outside at most one side of a pentagon: those whose second largest distance is negative."""
    first = second = np.full_like(x, -1)
    for a, b in FIVE:
        side = -0.36 - a * x - b * y
        first, second = np.maximum(first, side), np.maximum(second, np.minimum(first, side))
    return second


def flower(x, y):
    """Five discs, the petals."""
    return np.minimum.reduce([length(x - 0.55 * a, y - 0.55 * b) for a, b in FIVE]) - 0.36


def wave(x):
    """A triangle wave of period 1 from -1 to 1."""
    return 4 * np.abs(x - np.floor(x) - 0.5) - 1


SHAPES = {
    "disc": lambda x, y: length(x, y) - 0.85,
    "ring": lambda x, y: np.abs(length(x, y) - 0.68) - 0.22,
    "crescent": lambda x, y: np.maximum(length(x, y) - 0.9, 0.72 - length(x - 0.42, y)),
    "heart": heart,
    "star": star,
    "flower": flower,
    "triangle": lambda x, y: np.maximum(y - 0.55, 0.866 * np.abs(x) - 0.5 * y - 0.45),
    "cross": lambda x, y: np.minimum(box(x, y, 0.9, 0.28), box(x, y, 0.28, 0.9)),
    "stripes": lambda x, y: box(x, y, 0.75, 0.75),
    "chequers": lambda x, y: box(x, y, 0.75, 0.75),
}
PATTERNS = {
    "flower": lambda x, y: 6 * (0.3 - length(x, y)),
    "stripes": lambda x, y: 2 * wave(1.6 * x),
    "chequers": lambda x, y: 4 * wave(1.2 * x) * wave(1.2 * y),
}
COLOURS = {  # of the object and of its background: red, green, blue
    "disc": ((230, 120, 40), (90, 160, 220)),
    "ring": ((60, 80, 190), (215, 200, 160)),
    "crescent": ((240, 220, 130), (30, 35, 80)),
    "heart": ((215, 40, 70), (235, 200, 205)),
    "star": ((250, 200, 50), (60, 40, 90)),
    "flower": ((200, 90, 190), (70, 150, 70)),
    "triangle": ((50, 140, 90), (190, 215, 235)),
    "cross": ((225, 225, 220), (170, 60, 50)),
    "stripes": ((110, 80, 60), (150, 130, 110)),
    "chequers": ((70, 70, 80), (120, 145, 120)),
}
CLASS_NAMES = tuple(SHAPES)
INKS, PAPERS = np.array(list(COLOURS.values()), np.float32).transpose(1, 0, 2)[..., None, None]  # (10, 3, 1, 1) each


def draw(n, seed):
    """Draw n images.

    seed: a whole number.  Image i depends on seed and i alone: fewer images are the first of more.
    Returns images (n, 3, 32, 32) uint8 and labels (n,) int64; the classes are about equally frequent.
    Raises ValueError unless n and seed are whole numbers of at least 0.
    """
    from tqdm.auto import tqdm  # here: 60 ms of start-up

    n, bits = check_count("n", n, 0), np.random.PCG64(check_count("seed", seed, 0))
    images, labels = np.empty((n, 3, SIDE, SIDE), np.uint8), np.empty(n, np.int64)
    with tqdm(total=n, desc="drawing Shapes10", unit="image", disable=n < TEST) as bar:
        for start in range(0, n, BLOCK):
            block = slice(start, min(start + BLOCK, n))
            words = bits.random_raw((block.stop - start, ROLLS + NOISE))
            images[block], labels[block] = _paint(words)
            bar.update(len(words))
    return images, labels


def load(folder):
    """The data set: 50,000 images for training and 10,000 for testing (in a browser 5,000 and 1,000).

    It is read from shapes10.npz in folder.  If that is absent, damaged or of another version, it is drawn and written
    there; a folder that cannot be written to is not an error.
    Returns x_train (50000, 3, 32, 32) uint8, y_train (50000,) int64, x_test (10000, 3, 32, 32) and y_test (10000,).
    """
    path = Path(os.path.expanduser(folder)) / "shapes10.npz"
    images, labels = _read(path) or _keep(path, *draw(TRAIN + TEST, SEED))
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


def _paint(words):
    """The images (B, 3, 32, 32) uint8 and labels (B,) int64 that random words (B, ROLLS + NOISE) uint64 describe."""
    rolls = iter((words[:, :ROLLS] >> 40).astype(np.float32).T[..., None, None] / 2**24)  # each (B, 1, 1), in [0, 1)

    def roll(low, high):  # (B, 1, 1)
        return low + (high - low) * next(rolls)

    def colour(low, high):  # (B, 3, 1, 1)
        return np.stack([roll(low, high) for _ in range(3)], axis=1)

    def label():  # (B,)
        return roll(0, len(CLASS_NAMES)).astype(np.int64).ravel()

    def loyal_colour(palette):
        return palette[np.where(roll(0, 1).ravel() < LOYALTY, labels, label())] + colour(-60, 60)

    def slope(steepest):  # (B, 32, 32)
        return roll(-steepest, steepest) * PIXEL_X + roll(-steepest, steepest) * PIXEL_Y

    labels = label()
    canvas = loyal_colour(PAPERS) + slope(2)[:, None]
    for _ in range(SCRAPS):
        x, y, size = _place(roll, away=16, smallest=2, largest=6, turn=1)
        _lay(canvas, size * box(x, y, 1, roll(0.3, 2)), colour(0, 255), roll(0.2, 0.8))

    x, y, size = _place(roll, away=6, smallest=7.5, largest=14, turn=0.35)
    x = np.where(roll(-1, 1) < 0, x, -x) * roll(1, 1.3)  # mirrored or not, and stretched
    distance, pattern = np.empty_like(x), np.full_like(x, -1)
    for i, name in enumerate(CLASS_NAMES):
        mine = labels == i
        distance[mine] = size[mine] * SHAPES[name](x[mine], y[mine])
        if name in PATTERNS:
            pattern[mine] = PATTERNS[name](x[mine], y[mine])
    ink = loyal_colour(INKS)
    _lay(canvas, distance, ink - (roll(0, 40) * (x + y))[:, None])  # darker towards one side
    shift = colour(70, 140)
    second = np.where(ink < 128, ink + shift, ink - shift)
    _lay(canvas, np.maximum(distance + 0.5, -pattern), second)

    canvas *= (roll(0.7, 1.1) + slope(0.015))[:, None]
    noise = words[:, ROLLS:].astype("<u8").view(np.uint8).reshape(canvas.shape)
    canvas += roll(0, 0.4)[:, None] * (noise - np.float32(127.5))
    return np.clip(canvas, 0, 255).astype(np.uint8), labels


def _place(roll, away, smallest, largest, turn):
    """The pixels as an object sees them, x and y (B, 32, 32), and its size in pixels (B, 1, 1).

    The object's size becomes 1, its centre, up to `away` pixels from the middle, 0; it is turned by up to
    2 arctan(turn) to either side: with t = tan(angle / 2), cos = (1 - t^2) / (1 + t^2) and sin = 2t / (1 + t^2).
    """
    x, y, size, t = PIXEL_X - roll(-away, away), PIXEL_Y - roll(-away, away), roll(smallest, largest), roll(-turn, turn)
    stretch = size * (1 + t * t)
    cos, sin = (1 - t * t) / stretch, 2 * t / stretch
    return cos * x + sin * y, cos * y - sin * x, size


def _lay(canvas, distance, colour, opacity=1):
    """Paint over canvas (B, 3, 32, 32), in place, where distance (B, 32, 32), in pixels, is negative."""
    coverage = opacity * np.clip(0.5 - distance, 0, 1)  # an edge fades over one pixel
    canvas += coverage[:, None] * (colour - canvas)


def _read(path):
    """Images and labels from a file that `_keep` wrote; None unless it is there, whole, and what `draw` gives."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]  # this compares the archive's checksums
    except Exception as error:  # a foreign file makes NumPy raise nearly anything
        logger.info("%s cannot be read, so the images are drawn again: %s", path, error)
        return None
    for kept, drawn in zip((images, labels), draw(BLOCK, SEED), strict=True):
        fits = kept.dtype == drawn.dtype and kept.shape == (TRAIN + TEST, *drawn.shape[1:])
        if not fits or not np.array_equal(kept[:BLOCK], drawn):
            logger.info("%s is of another version, so the images are drawn again.", path)
            return None
    return images, labels


def _keep(path, images, labels):
    """Write images and labels to path, whole or not at all, and return them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, images=images, labels=labels)
    except (OSError, ValueError) as error:  # ValueError: no path has a null character
        logger.info("Shapes10 cannot be written to %s, so it is drawn at each call: %s", path, error)
    return images, labels
