"""The images of a run, as normalized batches on its device, by one of two ways.

`DeviceBatches` keeps all images on the device as bytes, and crops, flips and normalizes a whole batch at a time there.
`TorchvisionBatches` is the way that most code takes: torchvision's transforms, an image at a time, in a DataLoader.

What an epoch draws depends on the seed and on the epoch's number alone, so that a run which was stopped draws the same
again; and each process of several draws all of it and takes its share.
"""

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from cs231n.arguments import check_count
from cs231n.cifar10 import CLASS_NAMES
from cs231n.pytorch_device import memory_format, rank, world_size
from cs231n.utils import read_images

VALIDATION = 5000  # of the 50,000 training images, the last ones
FLIPS, EPOCH = range(2)  # what a generator, seeded by the run's seed, this and a number, is for


class Images:
    """Images (N, 3, 32, 32) uint8 and labels (N,) on a device.

    statistics: the mean and the standard deviation of each channel, (3,) each, in 0 to 255 (None: those of x).
    name and class_names: the data set's.
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

    def batches(self, batch_size):
        """Yield x (n, 3, 32, 32) float32 and y (n,), n <= batch_size, in order: this process's share of all images."""
        share = slice(rank(), None, world_size())
        for x, y in zip(self.x[share].split(batch_size), self.y[share].split(batch_size), strict=True):
            yield normalized(x, self.statistics), y


def read_splits(data_dir, train_images, device):
    """The first train_images training images, the 5,000 held out for validation, and the test set, each as `Images`.

    All are normalized by the statistics of the first.  data_dir: as in `cs231n.utils.get_cifar10_data`.
    Raises ValueError for more training images than there are.
    """
    name, class_names, (x_train, y_train, x_test, y_test) = read_images(data_dir)
    check_count("train_images", train_images, 1, len(x_train) - VALIDATION)
    train = Images(x_train[:train_images], y_train[:train_images], device, None, name, class_names)
    held_out = (x_train[-VALIDATION:], y_train[-VALIDATION:]), (x_test, y_test)
    return train, *(Images(x, y, device, train.statistics, name, class_names) for x, y in held_out)


def normalized(x, statistics):
    """(x - mean) / std for each channel of x (N, 3, H, W), as float32 in the memory format that suits the device."""
    mean, std = (s[:, None, None] for s in statistics)
    return ((x - mean) / std).contiguous(memory_format=memory_format(x.device))


class DeviceBatches:
    """Training batches from images that lie on the device; each image is cropped and flipped by itself.

    batch_size: images in a step, over all processes; what does not fill a batch is left out of its epoch.
    pad: pixels by which a crop may be shifted, either way.
    alternating: an image is flipped in every second epoch, half of the images in the even ones, and so is shown both
    ways in any two epochs; else it is flipped or not with probability 1/2 each time.
    Raises ValueError where the processes cannot share a batch evenly.
    Source of the alternation: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv 2404.00498.
    """

    def __init__(self, images, batch_size, pad, alternating, seed):
        self.images, self.pad, self.alternating, self.seed = images, pad, alternating, seed
        self.batch_size = min(batch_size, len(images))
        self.steps = len(images) // self.batch_size
        _check_shares(self.batch_size)

    def epoch(self, number):
        """Yield x (n, 3, 32, 32) float32 and y (n,): this process's share of each batch of epoch number, from 0."""
        x, y = self.images.x, self.images.y
        generator = seeded_generator(x.device, self.seed, EPOCH, number)
        order = torch.randperm(len(x), generator=generator, device=x.device)
        shifts = torch.randint(0, 2 * self.pad + 1, (2, len(x)), generator=generator, device=x.device)
        flips = self._flips(number, generator)
        for step in range(self.steps):
            chosen = order[share_of_batch(step, self.batch_size)]
            batch = mirrored(shifted(x[chosen], *shifts[:, chosen], self.pad), flips[chosen])
            yield normalized(batch, self.images.statistics), y[chosen]

    def _flips(self, number, generator):
        """Whether each image is flipped in epoch number, (N,)."""
        if self.alternating:
            generator = seeded_generator(generator.device, self.seed, FLIPS, 0)  # the same in every epoch
        flips = torch.rand(len(self.images), generator=generator, device=generator.device) < 0.5
        return ~flips if self.alternating and number % 2 else flips


def shifted(x, dy, dx, pad):
    """The window of each image of x (N, C, H, W), padded by pad with 0, whose corner is at its dy, dx (N,)."""
    H, W = x.shape[2:]
    rows = (torch.arange(H, device=x.device) + dy[:, None])[:, :, None]  # (N, H, 1)
    columns = (torch.arange(W, device=x.device) + dx[:, None])[:, None, :]  # (N, 1, W)
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # (N, H + 2 pad, W + 2 pad, C)
    example = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[example, rows, columns].permute(0, 3, 1, 2)


def mirrored(x, flips):
    """x (N, C, H, W) with each image mirrored, left to right, where flips (N,) is True."""
    return torch.where(flips[:, None, None, None], x.flip(3), x)


class TorchvisionBatches:
    """The like of `DeviceBatches`, by torchvision.transforms.v2 and a DataLoader; flips are drawn each time.

    The order is that of `DeviceBatches`.  workers: processes that prepare images (0: this one).  Each image gets a seed
    of its own, so that neither their number nor that of the training's processes matters.
    Raises ValueError as `DeviceBatches` does.
    """

    def __init__(self, images, batch_size, pad, seed, workers=0):
        from cs231n.pytorch_vision import torchvision  # here: 1.2 s of start-up, for one loader of two

        v2, device = torchvision.transforms.v2, images.x.device
        self.batch_size, self.device, self.seed = min(batch_size, len(images)), device, seed
        self.steps = len(images) // self.batch_size
        _check_shares(self.batch_size)
        mean, std = ((s / 255).tolist() for s in images.statistics)
        transform = v2.Compose(
            [
                v2.RandomCrop(images.x.shape[2:], padding=pad),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )
        self.loader = DataLoader(
            _Transformed(images.x.cpu(), images.y.cpu(), transform),
            batch_sampler=self,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the loader draws from it; by default, from the generator that all share
        )

    def epoch(self, number):
        """As `DeviceBatches.epoch`."""
        self._number = number
        for x, y in self.loader:
            yield x.to(self.device, memory_format=memory_format(self.device), non_blocking=True), y.to(self.device)

    def __iter__(self):
        """Yield, for each batch of this epoch, this process's share of it: pairs of an image's index and its seed."""
        generator = seeded_generator("cpu", self.seed, EPOCH, self._number)
        order = torch.randperm(len(self.loader.dataset), generator=generator)
        seeds = torch.randint(0, 2**62, (len(order),), generator=generator)
        for step in range(self.steps):
            chosen = order[share_of_batch(step, self.batch_size)]
            yield list(zip(chosen.tolist(), seeds[chosen].tolist(), strict=True))

    def __len__(self):
        return self.steps


class _Transformed:
    """A data set for a DataLoader: transform of image and label, for a pair of index and seed."""

    def __init__(self, x, y, transform):
        self.x, self.y, self.transform = x, y, transform

    def __len__(self):
        return len(self.x)

    def __getitem__(self, pair):
        index, seed = pair
        with torch.random.fork_rng(devices=[]):  # torchvision draws from PyTorch's global generator alone
            torch.default_generator.manual_seed(seed)
            return self.transform(self.x[index]), self.y[index]


def seeded_generator(device, seed, purpose, number):
    """The generator for one purpose at one point of a run."""
    words = np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(words[0] >> np.uint64(1)))


def share_of_batch(step, batch_size):
    """Where this process's share of a step's batch lies in the epoch's order."""
    share = batch_size // world_size()
    start = step * batch_size + rank() * share
    return slice(start, start + share)


def _check_shares(batch_size):
    if batch_size % world_size():
        raise ValueError(f"batch_size: wanted a multiple of the {world_size()} processes, got {batch_size}")
