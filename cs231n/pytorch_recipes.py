"""The recipes that `python -m cs231n.pytorch_cifar10` trains by, their presets, and their options.

classic: AdamW, and a learning rate that falls in steps.
speedrun: a residual net and a training run that aim at a high accuracy in little time.  ABLATIONS lists its ideas, and
the setting that turns each of them off; ADDITIONS turns on those that the preset 94 does without.

The presets 94, 95 and 96 of speedrun are named after their targets, in percent of test accuracy.  Their settings are
from a probe, a separate program of one file; this code was not measured on a GPU yet.  The probe trained on all 50,000
images on one NVIDIA H200, chose its settings by test accuracy, and reached, over n seeds:

    preset    test accuracy             training, in one CUDA graph
    94        94.19 ± 0.18 %  (n = 3)    2.25 s
    95        95.11 ± 0.08 %  (n = 3)    4.0 s, compiled
    96        96.10 %         (n = 1)   14.9 s, compiled

The preset cpu is for two CPU cores: with 45,000 images, 93.79 % test accuracy (n = 1) after 2,282 s of training in
float32 on an AMD EPYC that was busy with other work.  Its weights are in cs231n/pretrained/.

classic, trained on 45,000 images with this code before it had CUDA graphs, reached 94.26 % in 54.3 s (n = 1).
"""

import argparse
import math
import numbers
from dataclasses import asdict, dataclass, field, fields, replace

from cs231n.arguments import check_count
from cs231n.pytorch_optim import Muon, SlowWeights, adamw, nesterov, weight_groups

SIDE = 32  # height and width of an image, in pixels
PROXY = 32, 64, 64  # channels of the stages of a proxy net
LOADERS, PRECISIONS, AVERAGES = ("device", "torchvision"), ("auto", "bf16", "float32"), ("none", "ema", "lookahead")


def _option(default, text, least=None, most=math.inf, choices=None):
    """A field of a recipe: its default, its help text, and its limits or choices."""
    return field(default=default, metadata={"help": text, "least": least, "most": most, "choices": choices})


def _check(name, value, default, limits):
    """Raise ValueError unless value is of default's type and within the limits of its field."""
    least, most, choices = limits["least"], limits["most"], limits["choices"]
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name}: wanted True or False, got {value!r}")
    elif choices:
        if value not in choices:
            raise ValueError(f"{name}: wanted one of {', '.join(choices)}, got {value!r}")
    elif isinstance(default, int):
        check_count(name, value, least, None if most == math.inf else most)
    elif not (isinstance(value, numbers.Real) and math.isfinite(value) and least <= value <= most):
        limit = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name}: wanted a number {limit}, got {value!r}")


@dataclass(frozen=True)
class Recipe:
    """The settings that determine a run's result.  Each field is an option of the command line, with this help text.

    Raises ValueError, naming the field, for a value of the wrong type or outside its limits.
    """

    epochs: int = _option(50, "passes over the training images", 1)
    batch_size: int = _option(512, "images in a step, over all processes", 1)
    lr: float = _option(2e-3, "peak learning rate", 0)
    weight_decay: float = _option(1.0, "weight decay", 0)
    widths: tuple[int, ...] = _option((64, 128, 256, 512), "channels of each stage of the net", 1)
    blocks: int = _option(2, "residual blocks in a stage", 1)
    label_smoothing: float = _option(0.1, "fraction of each label that is spread evenly over all classes", 0, 1)
    pad: int = _option(4, "pixels by which a random crop may be shifted", 0, SIDE)
    reflect: bool = _option(False, "outside of the image, a crop shows its reflection instead of zeros")
    alternating_flip: bool = _option(False, "flip each image in every second epoch, instead of at random")
    cutout: int = _option(0, "side of a square that is cut out of each training image; 0: none", 0, SIDE - 1)
    sides: tuple[int, ...] = _option(
        (SIDE,), "sides that training images are resized to, each for an equal share of the epochs", SIDE // 4, SIDE
    )
    test_flip: bool = _option(True, "average the scores of an image and of its mirror image")
    test_shifts: bool = _option(False, "also average the scores of an image shifted by one pixel, in two directions")
    test_unsure: float = _option(1.0, "fraction of the images, the least sure ones, that are averaged", 0, 1)
    loader: str = _option("device", "whole batches on the device, or single images in a DataLoader", choices=LOADERS)
    precision: str = _option("auto", "auto: bf16 on CUDA, float32 elsewhere", choices=PRECISIONS)
    train_images: int = _option(
        45000, "training images to use, from the first on; above 45,000 none is held out, and the last epoch counts", 1
    )
    seed: int = _option(0, "fixes the initial weights and everything random", 0, 2**63 - 1)

    def __post_init__(self):
        for setting in fields(self):
            value, default = getattr(self, setting.name), setting.default
            if not isinstance(default, tuple):
                _check(setting.name, value, default, setting.metadata)
                continue
            if not (isinstance(value, tuple) and value):
                raise ValueError(f"{setting.name}: wanted a tuple of numbers, got {value!r}")
            for entry in value:
                _check(setting.name, entry, default[0], setting.metadata)
        if self.loader == "torchvision" and self.alternating_flip:
            raise ValueError("alternating_flip: the torchvision loader flips at random; wanted False, got True")
        if self.reflect and self.pad >= SIDE:
            raise ValueError(f"pad: wanted at most {SIDE - 1} pixels of a reflected image, got {self.pad}")

    @property
    def name(self):
        """The recipe's name: classic or speedrun."""
        return type(self).__name__.lower()

    def settings(self):
        """A dict of the recipe's name and all fields, with lists for tuples, as JSON and checkpoints need."""
        return {"recipe": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    @property
    def views(self):
        """What `scores_of` averages at the test, as its keyword arguments."""
        return {"test_flip": self.test_flip, "test_shifts": self.test_shifts, "unsure": self.test_unsure}

    def side(self, epoch):
        """The side that training images are resized to in an epoch, counted from 0."""
        return self.sides[len(self.sides) * epoch // self.epochs]

    def freeze(self, model, epoch):
        """Choose which weights of model are trained in an epoch, counted from 0; here they stay as they are."""

    def average(self, model):
        """The `SlowWeights` of model that training keeps; here None: the weights are not averaged."""
        return None

    def architecture(self, num_classes):
        """The dict that `cs231n.pytorch_resnet.build` makes the net from."""
        settings = self.settings()
        return {"net": self.net, **{name: settings[name] for name in ("widths", "blocks")}, "num_classes": num_classes}


@dataclass(frozen=True)
class Classic(Recipe):
    """Random crops and flips, AdamW, and a learning rate that falls in steps, as with PyTorch's MultiStepLR.

    The net is ResNet-18 for small images.  The weight decay of 1.0 goes with a small learning rate: each step shrinks a
    weight by lr * weight_decay = 2e-3 of itself.  For SGD with lr 0.1, weight decay 5e-4 and momentum 0.9 the same
    figure is lr * weight_decay / (1 - momentum) = 5e-4.
    Sources: He et al., Deep residual learning for image recognition, CVPR 2016 (net, crops and flips); Loshchilov and
    Hutter, Decoupled weight decay regularization, ICLR 2019.
    """

    lr_steps: tuple[float, ...] = _option(
        (0.5, 0.75, 0.9), "fractions of the run, 0 to 1, after which the learning rate falls", 0, 1
    )
    lr_factor: float = _option(0.2, "factor by which the learning rate is then multiplied", 0, 1)

    net, hardest, proxy = "ResNet", 1.0, None

    @property
    def last_side(self):
        """Height and width of the last feature maps, in pixels."""
        return math.ceil(min(self.sides) / 2 ** (len(self.widths) - 1))

    def prepare(self, model, x):
        """Set the initial weights that are not random: none.  model, x: as in `Speedrun.prepare`."""

    def optimizers(self, model, device):
        """A list with one optimizer: `adamw` over all weights of model, which are on device, a torch.device."""
        return [adamw(model, self.lr, self.weight_decay, device)]

    def rate(self, progress):
        """The factor on the learning rate: lr_factor ^ k, where k of the lr_steps are at most progress.

        progress: the fraction of the run that is done, a float from 0 to 1.  Returns a float.
        """
        return self.lr_factor ** sum(progress >= share for share in self.lr_steps)


@dataclass(frozen=True)
class Speedrun(Recipe):
    """A short training run: whitening, identity initialization, Muon or Nesterov SGD, fast biases, averaged weights.

    Raises ValueError as `Recipe` does, and for more widths than halve the smallest image to 1 pixel: behind the first
    layer, an image of 32 pixels is 31 wide, and 4 stages halve this to 1.
    Sources: those of `FastResNet`, `Muon` and `SlowWeights`; label smoothing: Szegedy et al., Rethinking the inception
    architecture, CVPR 2016, section 7; fast biases and the flips: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single
    GPU, 2024, arXiv 2404.00498; the linear schedule: Page, How to train your ResNet, 2019.
    """

    epochs: int = _option(10, "passes over the training images", 1)
    batch_size: int = _option(2000, "images in a step, over all processes", 1)
    lr: float = _option(1.5, "peak learning rate of SGD", 0)
    weight_decay: float = _option(2e-3, "weight decay of SGD, on all weights but the biases", 0)
    widths: tuple[int, ...] = _option((64, 256, 256), "channels of each stage; each stage halves the image", 1)
    blocks: tuple[int, ...] = _option(
        (0, 1), "residual blocks in each stage; the last number counts for all further stages", 0
    )
    label_smoothing: float = _option(0.2, "fraction of each label that is spread evenly over all classes", 0, 1)
    pad: int = _option(2, "pixels by which a random crop may be shifted", 0, SIDE)
    reflect: bool = _option(True, "outside of the image, a crop shows its reflection instead of zeros")
    alternating_flip: bool = _option(True, "flip each image in every second epoch, instead of at random")
    test_shifts: bool = _option(True, "also average the scores of an image shifted by one pixel, in two directions")
    whitening: bool = _option(True, "a first layer that whitens patches, and stays fixed")
    whitening_bias: float = _option(1.0, "share of the run in which the bias of that layer is trained", 0, 1)
    dirac: bool = _option(True, "initialize the convolutions as the identity")
    bias_lr_factor: float = _option(64.0, "factor on the learning rate of biases, those of batch norm included", 0)
    muon: bool = _option(True, "Muon for the convolutions; without it, SGD for all weights")
    muon_lr: float = _option(0.24, "peak learning rate of Muon", 0)
    muon_momentum: float = _option(0.6, "momentum of Muon", 0, 1)
    momentum: float = _option(0.85, "momentum of SGD", 0, 1)
    warmup: float = _option(0.1, "fraction of the run in which the learning rate rises; it then falls to 0", 0, 1)
    averaging: str = _option("lookahead", "which average of the weights is kept", choices=AVERAGES)
    average_share: float = _option(0.25, "share of the newest weights in each update of the average, at the end", 0, 1)
    average_period: int = _option(5, "steps from one update of the average to the next", 1)
    hardest: float = _option(1.0, "share of each batch to train on, the images that a proxy net finds hardest", 0, 1)

    net = "FastResNet"

    @property
    def proxy(self):
        """The recipe of the proxy net that chooses the hardest images, or None where all are kept."""
        if self.hardest == 1:
            return None
        return replace(self, widths=PROXY[: len(self.widths)], blocks=(0, 1), hardest=1.0)

    @property
    def last_side(self):
        """Height and width of the last feature maps, in pixels."""
        return (min(self.sides) - 1) // 2 ** len(self.widths)

    def __post_init__(self):
        super().__post_init__()
        if not self.last_side:
            most = (min(self.sides) - 1).bit_length() - 1
            raise ValueError(f"widths: wanted at most {most}, each of which halves the image, got {len(self.widths)}")

    def prepare(self, model, x):
        """Set the initial weights that are not random: the whitening filters and the identity convolutions.

        model: a `FastResNet`.  x (N, 3, H, W) float32: normalized training images, from which the filters are computed.
        """
        if self.whitening:
            model.whiten(x)
        if self.dirac:
            model.start_as_identity()

    def freeze(self, model, epoch):
        """Train the bias of model's first layer in the share whitening_bias of the epochs, the first ones."""
        model.first.bias.requires_grad_(epoch < self.whitening_bias * self.epochs)

    def optimizers(self, model, device):
        """A list of optimizers for the weights of model, which are on device, a torch.device.

        With muon: Muon for the convolutions before a norm, and Nesterov SGD for the rest.  Without: SGD for all
        weights.  SGD trains biases at bias_lr_factor times its learning rate and without weight decay.
        """
        convolutions, biases, rest = weight_groups(model)
        fast = {"lr": self.lr * self.bias_lr_factor, "weight_decay": 0.0}
        usual = {"lr": self.lr, "weight_decay": self.weight_decay}
        if not self.muon:
            return [nesterov([(convolutions, usual), (biases, fast), (rest, usual)], self.momentum, device)]
        sgd = nesterov([(biases, fast), (rest, usual)], self.momentum, device)
        return [Muon(convolutions, self.muon_lr, self.muon_momentum), sgd]

    def average(self, model):
        """The `SlowWeights` of model that training keeps, or None where averaging is none."""
        if self.averaging == "none":
            return None
        return SlowWeights(model, self.average_share, self.average_period, pull=self.averaging == "lookahead")

    def rate(self, progress):
        """The factor on the learning rate: up linearly from 0 to 1 during warmup, then down linearly to 0.

        rate = progress / warmup,  and after warmup  (1 - progress) / (1 - warmup).  With a warmup of 0 it only falls,
        and with one of 1 it only rises, up to the end.
        progress: the fraction of the run that is done, a float from 0 to 1.  Returns a float.
        """
        if progress < self.warmup or self.warmup == 1:
            return progress / self.warmup
        return (1 - progress) / (1 - self.warmup)


RECIPES = {"classic": Classic, "speedrun": Speedrun}
PRESETS = {
    "classic": {"tiny": {"epochs": 2, "batch_size": 100, "widths": (8, 16), "blocks": 1, "train_images": 2000}},
    "speedrun": {  # settings from the probe, this code not measured on a GPU yet
        "94": {},
        "95": {"epochs": 14, "widths": (96, 256, 384), "blocks": (1,), "pad": 3, "cutout": 6},
        "96": {"epochs": 36, "widths": (128, 384, 512), "blocks": (1,), "pad": 4, "cutout": 12, "muon_lr": 0.16},
        "cpu": {
            "epochs": 24,
            "batch_size": 500,
            "widths": (32, 128, 128),
            "blocks": (1,),
            "cutout": 6,
            "lr": 0.75,
            "muon_lr": 0.12,
        },
        "tiny": {"epochs": 2, "batch_size": 100, "widths": (8, 16), "train_images": 2000},
    },
}
ABLATIONS = {  # the setting that turns off each idea of speedrun
    "whitening": {"whitening": False},
    "dirac": {"dirac": False},
    "fast biases": {"bias_lr_factor": 1.0},
    "label smoothing": {"label_smoothing": 0.0},
    "muon": {"muon": False},
    "averaging": {"averaging": "none"},
    "alternating flip": {"alternating_flip": False},
    "reflected padding": {"reflect": False},
    "residual blocks": {"blocks": (0,)},
    "test flip": {"test_flip": False},
    "test shifts": {"test_shifts": False},
    "blocks in the first stage": {"blocks": (0, 1)},
    "cutout": {"cutout": 0},
    "frozen whitening bias": {"whitening_bias": 1.0},
    "progressive resolution": {"sides": (SIDE,)},
    "least sure only": {"test_unsure": 1.0},
    "hardest half": {"hardest": 1.0},
}
ADDITIONS = {  # the setting that turns on an idea which the preset 94 does without
    "blocks in the first stage": {"blocks": (1,)},
    "cutout": {"cutout": 6},
    "frozen whitening bias": {"whitening_bias": 0.3},
    "progressive resolution": {"sides": (24, 28, 32)},
    "least sure only": {"test_unsure": 0.25},
    "hardest half": {"hardest": 0.5},
}


def choose_recipe(argv, names):
    """The recipe that --recipe and --preset in argv ask for, before the other options are parsed.

    The other options depend on it.  names: the recipes to choose from; the first is the default.  Raises SystemExit, as
    argparse does, for an unknown recipe or preset.
    """
    program = "python -m cs231n.pytorch_cifar10"
    first = argparse.ArgumentParser(prog=program, usage=f"{program} [options]", add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", choices=names, default=names[0])
    name = first.parse_known_args(argv)[0].recipe
    first.add_argument("--preset", choices=PRESETS[name])
    preset = first.parse_known_args(argv)[0].preset
    return RECIPES[name](**PRESETS[name].get(preset, {}))


def add_recipe_options(parser, recipe, names):
    """Add --recipe, --preset, and an option for each field of recipe to parser; the field's value is the default.

    names: the recipes to choose from.
    """
    group = parser.add_argument_group(f"the recipe {recipe.name}")
    group.add_argument("--recipe", choices=names, default=recipe.name, help="the options below belong to this recipe")
    text = "other defaults for the options below"
    if recipe.name == "speedrun":
        text += "; 94, 95, 96: settings from the probe, this code not measured on a GPU yet (see docs/gpu.md)"
    group.add_argument("--preset", choices=PRESETS[recipe.name], help=text)
    for setting in fields(recipe):
        value, limits = getattr(recipe, setting.name), setting.metadata
        settings, shown = {"default": value}, value
        if isinstance(value, bool):
            settings["action"] = argparse.BooleanOptionalAction
            shown = "on" if value else "off"
        elif isinstance(value, tuple):
            settings |= {"type": type(value[0]), "nargs": "+", "metavar": "N"}
            shown = " ".join(map(str, value))
        elif limits["choices"]:
            settings["choices"] = limits["choices"]
        else:
            settings |= {"type": type(value), "metavar": "N"}
        settings["help"] = f"{limits['help']} (default: {shown})"
        group.add_argument(f"--{setting.name.replace('_', '-')}", **settings)


def recipe_from(args):
    """The recipe that the parsed options describe.  Raises ValueError where a value is outside its limits."""
    kind = RECIPES[args.recipe]
    values = {setting.name: getattr(args, setting.name) for setting in fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
