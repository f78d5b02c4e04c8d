"""The images of a run, as normalized batches on its device, from one of two loaders.

`DeviceBatches` keeps all images on the device as bytes; a few operations there crop, flip and normalize many batches at
once, on a GPU thousands of images.
`TorchvisionBatches` applies torchvision's transforms to one image at a time, in a DataLoader.

The random draws of an epoch depend only on the seed and on the epoch's number, so a resumed run repeats them.  Where
there are several processes, each makes all of the draws and uses its share.
"""

import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from cs231n.arguments import check_count
from cs231n.cifar10 import CLASS_NAMES
from cs231n.cifar10 import data_dir as default_dir
from cs231n.pytorch_device import memory_format, rank, world_size
from cs231n.utils import read_images

VALIDATION = 5000  # images held out, the last of the 50,000 for training
FLIPS, EPOCH = range(2)  # purposes of `seeded_generator`
CHUNK = {"cuda": 10_000, "mps": 10_000, "cpu": 500}  # images to augment at a time: as floats, 123 MB on a GPU


class Images:
    """Images x (N, 3, 32, 32) uint8, labels y (N,) int64, and what normalizes and names them.

    x, y: arrays or tensors; both are moved to device.  statistics: the mean and the standard deviation of each
    channel, two float32 tensors (3,) on the device, in units of a pixel's 0 to 255 (None: those of x).  name,
    class_names: of the data set.
    """

    def __init__(self, x, y, device, statistics=None, name="CIFAR-10", class_names=CLASS_NAMES):
        self.x, self.y = torch.as_tensor(x).to(device), torch.as_tensor(y).to(device)
        self.name, self.class_names = name, tuple(class_names)
        if statistics is None:
            pixels = self.x.to(torch.float32)
            statistics = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
        self.statistics = statistics

    def __len__(self):
        return len(self.x)

    @cached_property
    def checksum(self):
        """The CRC-32 of all images and labels."""
        x, y = (array.cpu().contiguous().numpy() for array in (self.x, self.y))
        return zlib.crc32(y, zlib.crc32(x))

    def batches(self, batch_size):
        """Yield this process's share of all images in order, in batches of n <= batch_size.

        Each is a pair of x (n, 3, 32, 32) float32, normalized, and y (n,) int64, on the device.
        """
        check_count("batch_size", batch_size, 1)
        share = slice(rank(), None, world_size())
        for x, y in zip(self.x[share].split(batch_size), self.y[share].split(batch_size), strict=True):
            yield normalized(x, self.statistics), y


def read_splits(data_dir, train_images, device, stand_in=True):
    """The first train_images training images, the 5,000 held out for validation, and the test set, as three `Images`.

    All three are normalized by the statistics of the first.  With more than 45,000 training images none is held out,
    and None takes the place of the validation images.  data_dir: as in `cs231n.utils.get_cifar10_data`, which also says
    what happens where the data is absent.  device: where the images are kept.  stand_in: whether the drawn stand-in may
    take the place of absent data.
    Raises ValueError unless train_images is from 1 to 50,000, and FileNotFoundError where the data is absent and no
    stand-in is wanted.
    """
    name, class_names, (x_train, y_train, x_test, y_test) = read_images(data_dir)
    if name != "CIFAR-10" and not stand_in:
        raise FileNotFoundError(
            f"CIFAR-10 is neither in {Path(data_dir or default_dir()).absolute()} nor beside it: run `make get-data`, "
            f"name its folder with --data-dir, or train on the drawn {name} with --stand-in"
        )
    check_count("train_images", train_images, 1, len(x_train))
    train = Images(x_train[:train_images], y_train[:train_images], device, None, name, class_names)
    test = Images(x_test, y_test, device, train.statistics, name, class_names)
    if train_images > len(x_train) - VALIDATION:
        return train, None, test
    held_out = x_train[-VALIDATION:], y_train[-VALIDATION:]
    return train, Images(*held_out, device, train.statistics, name, class_names), test


def normalized(x, statistics):
    """Normalize each channel: out = (x - mean) / std.

    x (N, 3, H, W) uint8; statistics: mean and std, (3,) float32 each, on x's device.  Returns out (N, 3, H, W) float32,
    in the `memory_format` of the device.
    """
    mean, std = (s[:, None, None] for s in statistics)
    return ((x - mean) / std).contiguous(memory_format=memory_format(x.device))


class DeviceBatches:
    """Training batches from images on the device; each image is cropped, flipped and cut out independently.

    images: `Images`.  batch_size: images in a step, over all processes, at most all images; images left over after
    the last full batch are skipped in that epoch.  pad: pixels by which a crop may be shifted in each direction.
    alternating: True, an image is flipped in every second epoch, one half of the images in even epochs and the other
    in odd ones, so any two successive epochs show both versions of each image; False, it is flipped with probability
    1/2 each time.  seed: an int from 0.  reflect: False, a crop shows zeros outside of the image; True, the image's
    reflection in its border, for which pad must be below its side.  cutout: the side, in pixels, of a square that is
    set to the mean colour, somewhere within each image (0: none).  steps: the number of batches in an epoch.
    Raises ValueError where batch_size is not a multiple of the number of processes.
    Sources: DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, 2017, arXiv
    1708.04552; of the alternation, Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv 2404.00498.
    """

    def __init__(self, images, batch_size, pad, alternating, seed, reflect=False, cutout=0):
        self.images, self.pad, self.alternating, self.seed = images, pad, alternating, seed
        self.reflect, self.cutout = reflect, cutout
        self.batch_size = min(batch_size, len(images))
        self.steps = len(images) // self.batch_size
        _check_shares(self.batch_size)

    def epoch(self, number, side=None):
        """Yield this process's share of each batch of an epoch; number counts from 0.

        side: the height and width in pixels that the images are resized to (None: they keep theirs).
        Each is a pair of x (n, 3, side, side) float32, normalized, and y (n,) int64, on the device, where n is
        batch_size over the number of processes.
        """
        device, n = self.images.x.device, len(self.images)
        generator = seeded_generator(device, self.seed, EPOCH, number)
        order = torch.randperm(n, generator=generator, device=device)
        shifts = torch.randint(0, 2 * self.pad + 1, (2, n), generator=generator, device=device)
        flips = self._flips(number, generator)
        free = self.images.x.shape[2] - self.cutout + 1
        corners = torch.randint(0, free, (2, n), generator=generator, device=device) if self.cutout else None
        shares = share_of_epoch(order, self.steps, self.batch_size)
        for chosen in shares.split(max(1, CHUNK[device.type] // shares.shape[1])):
            x = resized(self._augmented(chosen.flatten(), shifts, flips, corners), side)
            yield from zip(x.split(shares.shape[1]), self.images.y[chosen], strict=True)

    def _augmented(self, chosen, shifts, flips, corners):
        """The chosen images, cropped, flipped, normalized and cut out."""
        x, (dy, dx), pad = self.images.x[chosen], shifts[:, chosen], self.pad
        if self.reflect:
            inner = slice(pad, -pad or None)  # the crop of a reflected image, without what `shifted` pads it with
            x = shifted(reflected(x, pad), dy, dx, pad)[:, :, inner, inner]
        else:
            x = shifted(x, dy, dx, pad)
        x = normalized(mirrored(x, flips[chosen]), self.images.statistics)
        return cut_out(x, *corners[:, chosen], self.cutout) if self.cutout else x

    def _flips(self, number, generator):
        """Whether each image is flipped in epoch number: (N,) bool."""
        if self.alternating:
            generator = seeded_generator(generator.device, self.seed, FLIPS, 0)  # the same in every epoch
        flips = torch.rand(len(self.images), generator=generator, device=generator.device) < 0.5
        return ~flips if self.alternating and number % 2 else flips


def shifted(x, dy, dx, pad):
    """Crop each image, padded with zeros, at its own offset.

    out[n, c, i, j] = x[n, c, i + dy[n] - pad, j + dx[n] - pad], where x is 0 outside of the image.
    x (N, C, H, W), of any dtype; dy, dx (N,) int64, from 0 to 2 pad; pad in pixels.
    Returns out (N, C, H, W) in the dtype of x.
    """
    H, W = x.shape[2:]
    rows = (torch.arange(H, device=x.device) + dy[:, None])[:, :, None]  # (N, H, 1)
    columns = (torch.arange(W, device=x.device) + dx[:, None])[:, None, :]  # (N, 1, W)
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # (N, H + 2 pad, W + 2 pad, C)
    example = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[example, rows, columns].permute(0, 3, 1, 2)


def mirrored(x, flips):
    """Mirror the chosen images left to right.

    out[n, c, i, j] = x[n, c, i, W - 1 - j] where flips[n] is True, and x[n, c, i, j] elsewhere.
    x (N, C, H, W), of any dtype; flips (N,) bool.  Returns out (N, C, H, W) in the dtype of x.
    """
    return torch.where(flips[:, None, None, None], x.flip(3), x)


def reflected(x, pad):
    """Surround each image with its reflection in its border; the pixels of the border itself are not repeated.

    x (N, C, H, W), of any dtype; pad in pixels, below H and W.  Returns (N, C, H + 2 pad, W + 2 pad) in the dtype of x.
    """
    H, W = x.shape[2:]
    rows, columns = (torch.arange(-pad, n + pad, device=x.device).abs() for n in (H, W))
    rows, columns = (torch.minimum(i, 2 * (n - 1) - i) for i, n in ((rows, H), (columns, W)))
    return x[:, :, rows[:, None], columns]


def cut_out(x, top, left, side):
    """Set a square of each image to 0, which is the mean colour where x is normalized.

    out[n, c, i, j] = 0 where 0 <= i - top[n] < side and 0 <= j - left[n] < side, and x[n, c, i, j] elsewhere.
    x (N, C, H, W), of any dtype; top, left (N,) int64; side in pixels.  Returns out (N, C, H, W) in the dtype of x.
    """
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape[2:])
    rows, columns = rows - top[:, None], columns - left[:, None]  # (N, H) and (N, W), from the square's corner
    rows, columns = ((i >= 0) & (i < side) for i in (rows, columns))
    return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def resized(x, side):
    """Images x (N, C, H, W), of a float dtype, resized to (N, C, side, side) by bilinear interpolation; None: x."""
    if side is None or x.shape[2:] == (side, side):
        return x
    x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
    return x.contiguous(memory_format=memory_format(x.device))


class TorchvisionBatches:
    """Like `DeviceBatches`, through torchvision.transforms.v2 and a DataLoader; each flip has probability 1/2.

    The images come in the order of `DeviceBatches`.  workers: processes that prepare images (0: none but this one).
    Each image is drawn with its own seed, so the result depends neither on workers nor on the number of training
    processes.  Raises ValueError as `DeviceBatches` does, and ImportError where torchvision is not installed.
    """

    def __init__(self, images, batch_size, pad, seed, workers=0, reflect=False, cutout=0):
        from cs231n.pytorch_vision import torchvision  # here: over a second of start-up, for one loader

        v2, device = torchvision.transforms.v2, images.x.device
        self.batch_size, self.device, self.seed = min(batch_size, len(images)), device, seed
        self.steps = len(images) // self.batch_size
        _check_shares(self.batch_size)
        mean, std = ((s / 255).tolist() for s in images.statistics)
        shape, area = images.x.shape[2:], (cutout / images.x.shape[2]) ** 2
        transforms = [
            v2.RandomCrop(shape, padding=pad, padding_mode="reflect" if reflect else "constant"),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
        if cutout:
            transforms.append(v2.RandomErasing(p=1, scale=(area, area), ratio=(1, 1)))
        self.loader = DataLoader(
            _Transformed(images.x.cpu(), images.y.cpu(), v2.Compose(transforms)),
            batch_sampler=self,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the loader draws from it; by default, from the generator that all share
        )

    def epoch(self, number, side=None):
        """Yield batches as `DeviceBatches.epoch` does."""
        self._number = number
        for x, y in self.loader:
            x = x.to(self.device, memory_format=memory_format(self.device), non_blocking=True)
            yield resized(x, side), y.to(self.device)

    def __iter__(self):
        """Yield this process's share of each batch of the epoch, as a list of pairs: an image's index and its seed."""
        generator = seeded_generator("cpu", self.seed, EPOCH, self._number)
        order = torch.randperm(len(self.loader.dataset), generator=generator)
        seeds = torch.randint(0, 2**62, (len(order),), generator=generator)
        for chosen in share_of_epoch(order, self.steps, self.batch_size):
            yield list(zip(chosen.tolist(), seeds[chosen].tolist(), strict=True))

    def __len__(self):
        """The number of batches in an epoch, for the DataLoader."""
        return self.steps


class _Transformed:
    """A data set for a DataLoader: for a pair of index and seed, the transformed image and its label."""

    def __init__(self, x, y, transform):
        self.x, self.y, self.transform = x, y, transform

    def __len__(self):
        return len(self.x)

    def __getitem__(self, pair):
        index, seed = pair
        with torch.random.fork_rng(devices=[]):  # torchvision draws from PyTorch's global generator only
            torch.default_generator.manual_seed(seed)
            return self.transform(self.x[index]), self.y[index]


def seeded_generator(device, seed, purpose, number):
    """A torch.Generator on device, for one purpose at one point of a run.

    seed, number: ints from 0; number is an epoch, for example.  purpose: FLIPS or EPOCH.
    """
    words = np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(words[0] >> np.uint64(1)))


def share_of_epoch(order, steps, batch_size):
    """This process's share of each batch in an epoch's order (N,): (steps, batch_size over the number of processes)."""
    return order[: steps * batch_size].view(steps, world_size(), -1)[:, rank()]


def _check_shares(batch_size):
    if batch_size % world_size():
        raise ValueError(f"batch_size: wanted a multiple of the {world_size()} processes, got {batch_size}")
