"""The recipes that `python -m cs231n.pytorch_cifar10` trains by, their presets, and their options.

classic: Adam with decoupled weight decay, and a learning rate that falls in steps.
speedrun: a residual net and a training made for the least time to an accuracy.  Each of its ideas has a switch, and
ABLATIONS tells how to turn it off.  The presets 94, 95 and 96 are meant for these test accuracies, in percent.

The settings of both follow their sources; none has been tuned or measured on a GPU.
"""

import argparse
import math
import numbers
from dataclasses import asdict, dataclass, field, fields

from cs231n.arguments import check_count
from cs231n.pytorch_optim import Muon, SlowWeights, adamw, nesterov, weight_groups

LOADERS, PRECISIONS, AVERAGES = ("device", "torchvision"), ("auto", "bf16", "float32"), ("none", "ema", "lookahead")


def _option(default, words, least=None, most=math.inf, choices=None):
    return field(default=default, metadata={"help": words, "least": least, "most": most, "choices": choices})


def _check(name, value, default, limits):
    """Raise ValueError unless value is of default's kind and within a field's limits."""
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
    """What decides a run's result.  Each field is an option of the command line.  Raises ValueError for a bad one."""

    epochs: int = _option(50, "passes over the training images", 1)
    batch_size: int = _option(512, "images in a step, over all processes", 1)
    lr: float = _option(2e-3, "learning rate, at its highest", 0)
    weight_decay: float = _option(0.5, "weight decay", 0)
    widths: tuple[int, ...] = _option((64, 128, 256, 512), "channels of each stage of the net", 1)
    blocks: int = _option(2, "residual blocks in a stage", 1)
    label_smoothing: float = _option(0.1, "the share of a label that goes to all classes alike", 0, 1)
    pad: int = _option(4, "pixels by which a random crop may be shifted", 0)
    alternating_flip: bool = _option(False, "flip each image in every second epoch, in place of at random")
    test_flip: bool = _option(False, "average the scores of an image and of its mirror image")
    loader: str = _option("device", "whole batches on the device, or images in a DataLoader", choices=LOADERS)
    precision: str = _option("auto", "auto: bf16 on a CUDA device alone", choices=PRECISIONS)
    train_images: int = _option(45000, "training images to use, from the first", 1)
    seed: int = _option(0, "fixes the initial weights and all that is random", 0, 2**63 - 1)

    def __post_init__(self):
        for setting in fields(self):
            value, default = getattr(self, setting.name), setting.default
            several = isinstance(default, tuple)
            if several and not (isinstance(value, tuple) and value):
                raise ValueError(f"{setting.name}: wanted a tuple of numbers, got {value!r}")
            for one in value if several else (value,):
                _check(setting.name, one, default[0] if several else default, setting.metadata)
        if self.loader == "torchvision" and self.alternating_flip:
            raise ValueError("alternating_flip: the torchvision loader flips at random; wanted False, got True")

    @property
    def name(self):
        """classic or speedrun."""
        return type(self).__name__.lower()

    def settings(self):
        """All of it, in types that JSON and a checkpoint admit."""
        return {"recipe": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    def average(self, model):
        """The average of the weights that is kept, or None."""
        return None

    def architecture(self, num_classes):
        """What `cs231n.pytorch_resnet.build` makes the net of."""
        return {"net": self.net, "widths": list(self.widths), "blocks": self.blocks, "num_classes": num_classes}


@dataclass(frozen=True)
class Classic(Recipe):
    """Random crops and flips, AdamW, and a learning rate that falls in steps, as PyTorch's MultiStepLR lets it.

    The net is ResNet-18 for small images.  A step takes lr * weight_decay = 1e-3 off a weight, of the order of SGD's
    usual lr * weight_decay / (1 - momentum) = 0.1 * 5e-4 / 0.1; it looks large only because Adam's lr is small.
    Sources: He et al., Deep residual learning for image recognition, CVPR 2016 (net, crops and flips); Loshchilov and
    Hutter, Decoupled weight decay regularization, ICLR 2019.
    """

    lr_steps: tuple[float, ...] = _option(
        (0.5, 0.75, 0.9), "shares of the run, 0 to 1, after which the learning rate falls", 0, 1
    )
    lr_factor: float = _option(0.2, "what the learning rate is then multiplied by", 0)

    net = "ResNet"

    def prepare(self, model, x):
        """Set the weights that are not to be random."""

    def optimizers(self, model, device):
        return [adamw(model, self.lr, self.weight_decay, device)]

    def rate(self, progress):
        """What multiplies the learning rate when this share of the run is over."""
        return self.lr_factor ** sum(progress >= share for share in self.lr_steps)


@dataclass(frozen=True)
class Speedrun(Recipe):
    """Whitening, identity initialization, Muon or Nesterov's SGD, fast biases, averaged weights: for a short training.

    Sources: those of `FastResNet`, `Muon` and `SlowWeights`; label smoothing: Szegedy et al., Rethinking the inception
    architecture, CVPR 2016, section 7; fast biases and the flips: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single
    GPU, 2024, arXiv 2404.00498; the linear schedule: Page, How to train your ResNet, 2019.  Raises ValueError for more
    widths than a picture can be halved for.
    """

    epochs: int = _option(12, "passes over the training images", 1)
    batch_size: int = _option(2000, "images in a step, over all processes", 1)
    lr: float = _option(1.5, "SGD's learning rate, at its highest", 0)
    weight_decay: float = _option(2e-3, "SGD's weight decay, of all weights but the biases", 0)
    widths: tuple[int, ...] = _option((64, 256, 256), "channels of each stage; each halves the picture", 1)
    blocks: int = _option(1, "residual blocks in each stage but the first", 1)
    label_smoothing: float = _option(0.2, "the share of a label that goes to all classes alike", 0, 1)
    pad: int = _option(2, "pixels by which a random crop may be shifted", 0)
    alternating_flip: bool = _option(True, "flip each image in every second epoch, in place of at random")
    test_flip: bool = _option(True, "average the scores of an image and of its mirror image")
    whitening: bool = _option(True, "a first layer that whitens patches, and stays")
    dirac: bool = _option(True, "let convolutions start as the identity")
    bias_lr_factor: float = _option(64.0, "how much faster biases, those of norms too, learn", 0)
    muon: bool = _option(True, "Muon for the convolutions; without it, SGD for all weights")
    muon_lr: float = _option(0.24, "Muon's learning rate, at its highest", 0)
    muon_momentum: float = _option(0.6, "Muon's momentum", 0, 1)
    momentum: float = _option(0.85, "SGD's momentum", 0, 1)
    warmup: float = _option(0.1, "the share of the run in which the learning rate rises; it then falls to 0", 0, 1)
    averaging: str = _option("lookahead", "which average of the weights is kept", choices=AVERAGES)
    average_share: float = _option(0.25, "how far the average goes to the newest weights each time, at the end", 0, 1)
    average_period: int = _option(5, "steps from one time to the next", 1)

    net = "FastResNet"

    def __post_init__(self):
        super().__post_init__()
        if len(self.widths) > 4:
            raise ValueError(f"widths: wanted at most 4, each of which halves the picture, got {len(self.widths)}")

    def prepare(self, model, x):
        """Set the weights that are not to be random; x (N, 3, H, W): normalized images to compute them from."""
        if self.whitening:
            model.whiten(x)
        if self.dirac:
            model.start_as_identity()

    def optimizers(self, model, device):
        convolutions, biases, rest = weight_groups(model)
        fast = {"lr": self.lr * self.bias_lr_factor, "weight_decay": 0.0}
        usual = {"lr": self.lr, "weight_decay": self.weight_decay}
        if not self.muon:
            return [nesterov([(convolutions, usual), (biases, fast), (rest, usual)], self.momentum, device)]
        sgd = nesterov([(biases, fast), (rest, usual)], self.momentum, device)
        return [Muon(convolutions, self.muon_lr, self.muon_momentum), sgd]

    def average(self, model):
        if self.averaging == "none":
            return None
        return SlowWeights(model, self.average_share, self.average_period, pull=self.averaging == "lookahead")

    def rate(self, progress):
        """What multiplies the learning rate when this share of the run is over."""
        if progress < self.warmup:
            return progress / self.warmup
        return (1 - progress) / (1 - self.warmup)


RECIPES = {"classic": Classic, "speedrun": Speedrun}
PRESETS = {
    "classic": {"tiny": {"epochs": 2, "batch_size": 100, "widths": (8, 16), "blocks": 1, "train_images": 2000}},
    "speedrun": {
        "94": {},
        "95": {"epochs": 18, "widths": (128, 384, 384)},
        "96": {"epochs": 45, "widths": (128, 512, 512), "pad": 4},
        "tiny": {"epochs": 2, "batch_size": 100, "widths": (8, 16), "train_images": 2000},
    },
}
ABLATIONS = {  # what turns off each idea of speedrun
    "whitening": {"whitening": False},
    "dirac": {"dirac": False},
    "fast biases": {"bias_lr_factor": 1.0},
    "label smoothing": {"label_smoothing": 0.0},
    "muon": {"muon": False},
    "averaging": {"averaging": "none"},
    "alternating flip": {"alternating_flip": False},
    "test flip": {"test_flip": False},
}


def choose_recipe(argv, names):
    """The recipe that the options in argv ask for, one of names (the first by default), or a preset of it.

    The parser of the remaining options depends on it, which is why it comes first.
    """
    program = "python -m cs231n.pytorch_cifar10"
    first = argparse.ArgumentParser(prog=program, usage=f"{program} [options]", add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", choices=names, default=names[0])
    name = first.parse_known_args(argv)[0].recipe
    first.add_argument("--preset", choices=PRESETS[name])
    preset = first.parse_known_args(argv)[0].preset
    return RECIPES[name](**PRESETS[name].get(preset, {}))


def add_recipe_options(parser, recipe, names):
    """Give parser --recipe, --preset, and an option for each field of a recipe, whose values are the defaults."""
    group = parser.add_argument_group(f"the recipe {recipe.name}")
    group.add_argument("--recipe", choices=names, default=recipe.name, help="the options below are this one's")
    group.add_argument("--preset", choices=PRESETS[recipe.name], help="other defaults for the options below")
    for setting in fields(recipe):
        value, limits = getattr(recipe, setting.name), setting.metadata
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        shown = ("off", "on")[value] if isinstance(value, bool) else shown
        settings = {"default": value, "help": f"{limits['help']} (default: {shown})"}
        if isinstance(value, bool):
            settings["action"] = argparse.BooleanOptionalAction
        elif isinstance(value, tuple):
            settings |= {"type": type(value[0]), "nargs": "+", "metavar": "N"}
        elif limits["choices"]:
            settings["choices"] = limits["choices"]
        else:
            settings |= {"type": type(value), "metavar": "N"}
        group.add_argument(f"--{setting.name.replace('_', '-')}", **settings)


def recipe_from(args):
    """The recipe that the parsed options describe.  Raises ValueError where a value is out of its limits."""
    kind = RECIPES[args.recipe]
    values = {setting.name: getattr(args, setting.name) for setting in fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
