"""What a run leaves on the disk: checkpoints, a log, curves, its configuration.  Each file is replaced whole."""

import io
import platform
from importlib import metadata

import torch

from cs231n.files import read_csv, write_bytes, write_csv
from cs231n.pytorch_device import device_name

FORMAT = "cs231n.pytorch_cifar10, 1"  # what a checkpoint says of itself


def save(path, state):
    """Write a checkpoint of state, a dict of tensors, numbers, strings, and dicts and lists of these."""
    buffer = io.BytesIO()  # torch.save itself makes a RuntimeError without a reason of a full disk
    torch.save({"format": FORMAT} | state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path, device):
    """Read a checkpoint; nothing in the file is executed.

    Raises OSError where it cannot be read, ValueError where it is damaged or nothing that `save` wrote.
    """
    with open(path, "rb") as file:
        try:
            state = torch.load(file, map_location=device, weights_only=True)
            is_ours = isinstance(state, dict) and state.get("format") == FORMAT
        except Exception as error:  # what a damaged or foreign file raises has no type in common
            raise ValueError(f"{path} is not a whole checkpoint of cs231n.pytorch_cifar10") from error
    if not is_ours:
        raise ValueError(f"{path} is a checkpoint of another program than cs231n.pytorch_cifar10")
    return state


def log_epoch(path, row):
    """Add a row to a log; what a run that is being repeated had written there, from this epoch on, is dropped."""
    write_csv(path, [*(old for old in read_csv(path) if int(old["epoch"]) < row["epoch"]), row])


def versions(device):
    """The versions of all that computes, and the device's name."""
    packages = {}
    for package in ("numpy", "torch", "torchvision"):
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            packages[package] = None
    system = {"python": platform.python_version(), "platform": platform.platform()}
    return (
        system | packages | {"torch": str(torch.__version__), "cuda": torch.version.cuda, "device": device_name(device)}
    )


def draw_curves(path, rows, data_name):
    """Draw losses, accuracies and the learning rate of a log's rows, over the epochs, into a PNG file.

    Raises ImportError where matplotlib is not installed.
    """
    from matplotlib import pyplot  # here: optional, and 0.4 s of start-up
    from matplotlib.ticker import MaxNLocator  # here: as above

    from cs231n import plots  # here: as above

    epochs = [int(row["epoch"]) for row in rows]
    column = {name: [float(row[name]) for row in rows] for name in rows[0]}
    fig, axes = plots.figure(1, 3, {"name": data_name})
    loss, acc, rate = axes
    plots.curves(loss, {"training": column["train_loss"], "validation": column["val_loss"]}, epochs, "epoch", "loss")
    percent = {"training": column["train_acc"], "validation": column["val_acc"]}
    percent = {name: [100 * share for share in shares] for name, shares in percent.items()}
    plots.curves(acc, percent, epochs, "epoch", "accuracy (%)")
    plots.curves(rate, {"learning rate": column["lr"]}, epochs, "epoch", "learning rate")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=150)
    pyplot.close(fig)
    write_bytes(path, picture.getvalue())


def tensorboard_writer(folder, epoch):
    """A writer of TensorBoard's events from after epoch on, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # here: optional
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=epoch + 1)
