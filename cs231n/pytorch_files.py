"""The files that a run writes: checkpoints, a log, curves, its configuration.  Each is replaced as a whole."""

import io
import platform
from importlib import metadata

import torch

from cs231n.files import read_csv, write_bytes, write_csv
from cs231n.pytorch_device import device_name

FORMAT = "cs231n.pytorch_cifar10, 1"  # marks a file as a checkpoint of this program


def save(path, state):
    """Write a checkpoint of state, a dict of tensors, numbers, strings, and dicts and lists of these.

    Raises OSError where path cannot be written; the old file is then unchanged.
    """
    buffer = io.BytesIO()  # on a full disk, torch.save to a file raises a RuntimeError that gives no reason
    torch.save({"format": FORMAT} | state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path, device):
    """Read a checkpoint, with its tensors on device, and return its state; nothing in the file is executed.

    Raises OSError where the file cannot be read, ValueError where it is damaged or was not written by `save`.
    """
    with open(path, "rb") as file:
        try:
            state = torch.load(file, map_location=device, weights_only=True)
            is_ours = isinstance(state, dict) and state.get("format") == FORMAT
        except Exception as error:  # damaged and foreign files raise errors of many types
            raise ValueError(f"{path} is not a complete checkpoint of cs231n.pytorch_cifar10") from error
    if not is_ours:
        raise ValueError(f"{path} is a checkpoint, but not one of cs231n.pytorch_cifar10")
    return state


def log_epoch(path, row):
    """Append a row, a dict with an int epoch, to a log (CSV); rows that it has from this epoch on are dropped.

    Such rows are left by a run that was interrupted and now repeats an epoch.  Raises OSError where path cannot be
    written.
    """
    write_csv(path, [*(old for old in read_csv(path) if int(old["epoch"]) < row["epoch"]), row])


def versions(device):
    """The versions of Python, the platform, CUDA and the packages used, and the device's name.

    Returns a dict of strings, with None for what is absent.
    """
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
    """Draw the losses, the accuracies (in percent) and the learning rate by epoch, into a PNG file.

    rows: the log's, as `cs231n.files.read_csv` returns them.  data_name: the data set's; a stand-in is named in the
    figure.  Raises ImportError where matplotlib is not installed, OSError where path cannot be written.
    """
    from matplotlib import pyplot  # here: optional, and 0.4 s of start-up
    from matplotlib.ticker import MaxNLocator  # here: as above

    from cs231n import plots  # here: as above

    epochs = [int(row["epoch"]) for row in rows]
    column = {name: [float(row[name]) for row in rows] for name in rows[0]}
    fig, axes = plots.figure(1, 3, {"name": data_name})
    loss, acc, rate = axes
    plots.curves(loss, {"training": column["train_loss"], "validation": column["val_loss"]}, epochs, "epoch", "loss")
    accuracies = {"training": column["train_acc"], "validation": column["val_acc"]}
    percent = {name: [100 * accuracy for accuracy in values] for name, values in accuracies.items()}
    plots.curves(acc, percent, epochs, "epoch", "accuracy (%)")
    plots.curves(rate, {"learning rate": column["lr"]}, epochs, "epoch", "learning rate")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=150)
    pyplot.close(fig)
    write_bytes(path, picture.getvalue())


def tensorboard_writer(folder, epoch):
    """A SummaryWriter for events after epoch, or None where TensorBoard is not installed.

    Events of later epochs that an interrupted run left in folder are hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # here: optional
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=epoch + 1)
