"""Train a residual net on CIFAR-10 with PyTorch, on a GPU where there is one: `python -m cs231n.pytorch_cifar10`.

The recipe is the classic one: random crops and flips, Adam with decoupled weight decay, and a learning rate that falls
in steps.  5,000 training images are held out for validation and choose the best epoch; the test set is read once, at
the end.  The images lie on the device as bytes, and are cropped, flipped and normalized there, a batch at a time.

After each epoch `last.pt` and, if it is the best so far, `best.pt` are replaced whole, and a line goes into `log.csv`.
A run that was stopped goes on with --resume from its last epoch; on a CPU it ends with the same weights, bit for bit.
"""

import argparse
import csv
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from cs231n.utils import check_count, read_images

logger = logging.getLogger(__name__)

VALIDATION = 5000  # of the 50,000 training images, the last ones


def _option(default, words):
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Recipe:
    """What a run is set to.  Each field is an option of the command line.  Raises ValueError for a bad setting."""

    epochs: int = _option(30, "passes over the training images")
    batch_size: int = _option(128, "images in a step")
    lr: float = _option(2e-3, "Adam's learning rate, at first")
    weight_decay: float = _option(5e-2, "decoupled weight decay")
    lr_steps: tuple[float, ...] = _option((0.5, 0.75, 0.9), "shares of the run after which the learning rate falls")
    lr_factor: float = _option(0.2, "what the learning rate is then multiplied by")
    widths: tuple[int, ...] = _option((64, 128, 256), "channels of each stage; each but the first halves the image")
    blocks: int = _option(2, "residual blocks in a stage")
    pad: int = _option(4, "pixels by which a random crop may be shifted")
    train_images: int = _option(45000, "training images to use, from the first")
    seed: int = _option(0, "fixes the initial weights and all that is random")

    def __post_init__(self):
        for name in ("epochs", "batch_size", "blocks", "train_images"):
            check_count(name, getattr(self, name), 1)
        for name in ("pad", "seed"):
            check_count(name, getattr(self, name), 0)
        for width in self.widths:
            check_count("widths", width, 1)
        for name in ("lr", "weight_decay", "lr_factor"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: wanted a number of at least 0, got {getattr(self, name)}")


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

    x (N, 3, H, W) -> scores (N, num_classes).
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


class Images:
    """Images (N, 3, 32, 32) uint8 and labels (N,) on a device, handed out as normalized float batches.

    name: the data set's.  statistics: the mean and the standard deviation of each channel, (3,) each, in 0 to 255
    (None: those of x).
    """

    def __init__(self, name, x, y, device, statistics=None):
        self.name = name
        self.x, self.y = torch.as_tensor(x).to(device), torch.as_tensor(y).to(device)
        if statistics is None:
            pixels = self.x.to(torch.float32)
            statistics = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3))
        self.statistics = statistics

    def __len__(self):
        return len(self.x)

    def batches(self, batch_size):
        """Yield x (N, 3, 32, 32) float32 and y (N,) in order, all of them."""
        for x, y in zip(self.x.split(batch_size), self.y.split(batch_size), strict=True):
            yield self._normalized(x), y

    def shuffled_batches(self, batch_size, pad, generator):
        """Yield the batches of an epoch, cropped and flipped; what does not fill a batch is left out."""
        order = torch.randperm(len(self), generator=generator, device=self.x.device)
        for chosen in order.split(batch_size):
            if len(chosen) == min(batch_size, len(self)):
                x = random_flip(random_crop(self.x[chosen], pad, generator), generator)
                yield self._normalized(x), self.y[chosen]

    def _normalized(self, x):
        mean, std = (s[:, None, None] for s in self.statistics)
        return ((x - mean) / std).contiguous(memory_format=memory_format(self.x.device))


def memory_format(device):
    """Channels last suits a GPU's tensor cores; on a CPU, this net's backward pass in torch 2.13 crashes with it."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def random_crop(x, pad, generator):
    """Shift each image of x (N, C, H, W) by up to pad pixels, each by its own amount, and fill up with 0."""
    N, _, H, W = x.shape
    dy, dx = torch.randint(0, 2 * pad + 1, (2, N, 1), generator=generator, device=x.device)
    rows, columns = torch.arange(H, device=x.device) + dy, torch.arange(W, device=x.device) + dx  # (N, H), (N, W)
    example = torch.arange(N, device=x.device)[:, None, None]
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # (N, H + 2 pad, W + 2 pad, C)
    return padded[example, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(x, generator):
    """Mirror each image of x (N, C, H, W), left to right, with probability 1/2."""
    flipped = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(flipped, x.flip(3), x)


class Training:
    """A run: the model, its optimizer and schedule, and the random generator, which a checkpoint holds together."""

    def __init__(self, recipe, train, val, output_dir):
        self.recipe, self.train_images, self.val_images = recipe, train, val
        self.output_dir, self.device = Path(output_dir), train.x.device
        with torch.random.fork_rng(devices=[]):  # PyTorch draws initial weights from its global generator alone
            torch.manual_seed(recipe.seed)
            model = ResNet(recipe.widths, recipe.blocks)
        self.model = model.to(self.device, memory_format=memory_format(self.device))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
        milestones = [max(1, round(share * recipe.epochs)) for share in recipe.lr_steps]
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, milestones, recipe.lr_factor)
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.epoch, self.best_val_acc = 0, -1.0

    def run(self):
        """Train until the recipe's epochs are complete, and leave model with the weights of the best."""
        from tqdm.auto import tqdm

        self.output_dir.mkdir(parents=True, exist_ok=True)
        with tqdm(total=self.recipe.epochs, initial=self.epoch, unit="epoch") as bar:
            while self.epoch < self.recipe.epochs:
                start, rate = time.perf_counter(), self.schedule.get_last_lr()[0]
                loss = self._train_epoch()
                seconds = time.perf_counter() - start
                val_acc = accuracy(self.model, self.val_images)
                self.epoch += 1
                is_best = val_acc > self.best_val_acc
                self.best_val_acc = max(val_acc, self.best_val_acc)
                if is_best:
                    save(self.output_dir / "best.pt", self.state())
                self._log(loss=loss, val_acc=val_acc, lr=rate, images_per_second=len(self.train_images) / seconds)
                save(self.output_dir / "last.pt", self.state())
                bar.set_postfix(loss=f"{loss:.3f}", val=f"{val_acc:.4f}", refresh=False)
                bar.update()
        self.model.load_state_dict(load(self.output_dir / "best.pt", self.device)["model"])

    def _train_epoch(self):
        """One pass over the training images.  Returns the mean loss of its batches."""
        self.model.train()
        losses = []
        for x, y in self.train_images.shuffled_batches(self.recipe.batch_size, self.recipe.pad, self.generator):
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        self.schedule.step()
        return torch.stack(losses).mean().item()

    def _log(self, **values):
        """Add a line to log.csv; what a run that is being repeated had written there beyond this epoch is dropped."""
        path, row = self.output_dir / "log.csv", {"epoch": self.epoch, **values}
        rows = []
        if self.epoch > 1 and path.exists():
            with open(path, newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < self.epoch]
        beside = path.with_suffix(".tmp")
        with open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows([*rows, row])
        os.replace(beside, path)

    def state(self):
        """All that `resume` needs, in types that `torch.load(weights_only=True)` admits."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        position = {"epoch": self.epoch, "best_val_acc": self.best_val_acc, "generator": self.generator.get_state()}
        return {"recipe": self._made_with(), **parts, **position}

    def _made_with(self):
        return {"data": self.train_images.name, **asdict(self.recipe)}

    def resume(self):
        """Go on from last.pt.  Raises FileNotFoundError without one, ValueError if recipe or data set were others."""
        state = load(self.output_dir / "last.pt", self.device)
        ours = self._made_with()
        if changed := [name for name in ours if state["recipe"].get(name) != ours[name]]:
            told = ", ".join(f"{name} {state['recipe'].get(name)} and not {ours[name]}" for name in changed)
            raise ValueError(f"{self.output_dir / 'last.pt'} was made with {told}")
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())
        self.epoch, self.best_val_acc = state["epoch"], state["best_val_acc"]


@torch.inference_mode()
def accuracy(model, images, batch_size=1000):
    """The share of images whose highest score is that of their label, between 0 and 1."""
    model.eval()
    correct = sum((model(x).argmax(dim=1) == y).sum() for x, y in images.batches(batch_size))
    return int(correct) / len(images)


def save(path, state):
    """Write a checkpoint beside its place, and then into it, so that a whole one stands there at any moment."""
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def load(path, device):
    """Read a checkpoint; nothing in the file is executed."""
    return torch.load(path, map_location=device, weights_only=True)


def best_device():
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def main(argv=None):
    """The command line.  Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cs231n.pytorch_cifar10",
        description="Train a residual net on CIFAR-10.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for setting in fields(Recipe):
        name, default, words = setting.name.replace("_", "-"), setting.default, setting.metadata["help"]
        several = isinstance(default, tuple)
        kind, nargs = (type(default[0]), "+") if several else (type(default), None)
        parser.add_argument(f"--{name}", type=kind, nargs=nargs, default=default, help=words)
    parser.add_argument("--device", default=best_device(), help="cuda, cuda:1, mps or cpu")
    parser.add_argument("--data-dir", help="where CIFAR-10 lies or shall lie")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/classic"), help="for checkpoints and the log")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of output-dir")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        values = {setting.name: getattr(args, setting.name) for setting in fields(Recipe)}
        recipe = Recipe(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        _check_device(args.device)
        _train_and_test(recipe, args)
    except (ValueError, OSError) as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("Stopped by Ctrl-C; --resume goes on from the last complete epoch.")
        return 130
    return 0


def _check_device(device):
    """Raise ValueError unless PyTorch can put an array there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: {device} cannot be used here ({str(error).splitlines()[0]})") from error


def _train_and_test(recipe, args):
    name, _, (x_train, y_train, x_test, y_test) = read_images(args.data_dir)
    if not 0 < recipe.train_images <= len(x_train) - VALIDATION:
        raise ValueError(f"train_images: wanted 1 to {len(x_train) - VALIDATION}, got {recipe.train_images}")
    train = Images(name, x_train[: recipe.train_images], y_train[: recipe.train_images], args.device)
    val = Images(name, x_train[-VALIDATION:], y_train[-VALIDATION:], args.device, train.statistics)
    training = Training(recipe, train, val, args.output_dir)
    if args.resume:
        training.resume()
    logger.info("%s on %s, %d images, epoch %d of %d", name, args.device, len(train), training.epoch, recipe.epochs)
    training.run()
    logger.info("best validation accuracy %.2f %%; checkpoints in %s", 100 * training.best_val_acc, args.output_dir)
    test_accuracy = accuracy(training.model, Images(name, x_test, y_test, args.device, train.statistics))
    logger.info("test accuracy on %s: %.2f %%", name, 100 * test_accuracy)


if __name__ == "__main__":
    sys.exit(main())
