"""The files that a run writes: checkpoints, a log, curves, its configuration.  Each is replaced as a whole."""

import errno
import io
import logging
import math
import platform
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from copy import copy
from importlib import metadata
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from cs231n.files import ADVICE, read_checked_zip, write_bytes, write_checked_zip, write_csv
from cs231n.pytorch_device import device_name, reason

logger = logging.getLogger(__name__)

FORMAT = "cs231n.pytorch_cifar10, 2"  # marks a file as a checkpoint of this version of the program
RESULTS = "best.pt", "last.pt", "half.pt", "log.csv", "curves.png", "result.json", "ablation.csv", "ablation.md"
NO_LOCKS = errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS


# Checkpoints


def save(path, state):
    """Write a checkpoint of state, a dict of tensors, numbers, strings, and dicts and lists of these.

    Raises OSError where path cannot be written; the old file is then unchanged.
    """
    buffer = io.BytesIO()  # on a full disk, torch.save to a file raises a RuntimeError that gives no reason
    torch.save({"format": FORMAT} | state, buffer)
    write_checked_zip(path, buffer.getbuffer())


def load(path, device):
    """Read a checkpoint, with its tensors on device, and return its state; nothing in the file is executed.

    Raises OSError where the file cannot be read, ValueError where it is damaged, has a number that is not finite, or
    was not written by `save` of this version.
    """
    path = Path(path).expanduser()
    content = read_checked_zip(path)
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        found = state["format"]
    except Exception as error:  # foreign files raise errors of many types
        raise ValueError(f"{path} is not a checkpoint of cs231n.pytorch_cifar10; {ADVICE}") from error
    if found != FORMAT:
        raise ValueError(f"{path} has the format {found!r}, and this version reads {FORMAT!r}; {ADVICE}")
    if name := not_finite(state):
        raise ValueError(f"{path}: {name} is not finite; {ADVICE}")
    return state


def write_half(folder):
    """Write half.pt, a small file to share: best.pt of the same folder, with its filters and matrices in float16.

    Their relative error is at most 2^-11, above 6e-5.  Vectors, such as the statistics of batch norm, stay as they are.
    Raises what `load` and `save` raise.
    """
    state = load(Path(folder) / "best.pt", "cpu")
    weights = {name: w.half() if w.ndim > 1 else w for name, w in state["model"].items()}
    save(Path(folder) / "half.pt", state | {"model": weights})


def in_single_precision(weights):
    """weights, a dict of tensors, with float32 in place of float16."""
    return {name: w.float() if w.dtype == torch.float16 else w for name, w in weights.items()}


def not_finite(value, name=""):
    """The name, such as model/affine.weight, of a number or tensor in nested dicts and lists that is not finite.

    Returns "" where all are finite.
    """
    if isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        found = (not_finite(entry, f"{name}/{key}" if name else str(key)) for key, entry in entries)
        return next(filter(None, found), "")
    if isinstance(value, torch.Tensor):
        # The sum is quick, and finite unless an entry is not, or the entries are huge.
        return "" if value.is_meta or value.sum().isfinite() or value.isfinite().all() else name
    return name if isinstance(value, float) and not math.isfinite(value) else ""


def check_tensors(path, tensors, wanted):
    """Raise ValueError, naming path, unless tensors, a dict, has the names, dtypes and shapes of the dict wanted."""
    for name in wanted | tensors:
        ours, theirs = (f"{x[name].dtype} {tuple(x[name].shape)}" if name in x else "absent" for x in (wanted, tensors))
        if ours != theirs:
            raise ValueError(f"{path}: {name} is {theirs}, where its net has {ours}; {ADVICE}")


@contextmanager
def interpreted(path):
    """A context in which an error that the content of path, a checkpoint, leads to is a ValueError that names path."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or str(error).startswith(str(path)):
            raise
        found = f"{type(error).__name__}: {reason(error)}"
        raise ValueError(f"{path} does not hold what this version needs ({found}); {ADVICE}") from error


# Writing while training goes on


def snapshot(state):
    """A copy of nested dicts and lists, with each tensor copied to the memory of the CPU.

    Tensors that are one tensor stay one.  Copies of a CUDA device's tensors are pinned, which makes copying fast; they
    are complete once the device has finished its work, see `cs231n.pytorch_device.wait_for`.
    """
    copies = {}

    def copied(value):
        if isinstance(value, dict):
            same_kind = copy(value)  # PyTorch's dicts of weights are of a type of their own
            same_kind.update((key, copied(entry)) for key, entry in value.items())
            return same_kind
        if isinstance(value, list | tuple):
            return type(value)(map(copied, value))
        if not isinstance(value, torch.Tensor):
            return value
        same = value.data_ptr(), value.shape, value.stride(), value.dtype
        if same not in copies:
            empty = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            copies[same] = empty.copy_(value, non_blocking=True)
        return copies[same]

    return copied(state)


def save_epoch(folder, state, is_best):
    """Write the files of an epoch, last.pt at the end: a run that is killed in between repeats the epoch.

    state: that of a run's checkpoint.  is_best: whether it is the best so far, and is written to best.pt too.
    Raises OSError where a file cannot be written.
    """
    if is_best:
        save(folder / "best.pt", {name: value for name, value in state.items() if name != "resume"})
    write_csv(folder / "log.csv", state["resume"]["history"])
    save(folder / "last.pt", state)


class Writer:
    """Writes in a thread of its own, one write at a time, while its caller goes on.

    Used with `with`: on exit, after an error or an interruption too, it waits for the write that is under way, so that
    the files are whole, and nothing is written after the folder's lock has ended.
    """

    def __init__(self):
        self._pending = None

    def start(self, write, *args):
        """Start write(*args), when the write before is complete.  Raises what that one raised."""
        self.wait()
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending = thread.submit(write, *args)
        thread.shutdown(wait=False)  # the thread ends after this write

    def wait(self):
        """Wait for the write that is under way, if there is one.  Raises what it raised."""
        if self._pending:
            wait([self._pending])  # where this is interrupted, __exit__ waits again
            pending, self._pending = self._pending, None
            pending.result()

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error is None:
            self.wait()
        elif self._pending:
            wait([self._pending])


# The folder of a run


@contextmanager
def locked(folder):
    """A context in which no other process can enter this context for the same folder, which is made if it is absent.

    The lock ends with the process that holds it, however that ends.  Where the file system has no locks, a warning is
    logged.  Raises ValueError where another process holds the lock, OSError where the folder cannot be written.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"{folder} is in use by another run; wait for its end, or choose another --output-dir"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        logger.warning("The file system of %s has no locks: start no second run there while this one runs.", folder)
    try:
        yield
    finally:
        lock.release()


def results(folder):
    """The names of the files in folder that a run left and another run would replace."""
    return [name for name in RESULTS if (Path(folder) / name).exists()]


def remove_results(folder):
    """Delete the files that `results` names."""
    for name in results(folder):
        (Path(folder) / name).unlink()


# What a run writes for its reader


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

    rows: those of the log, a dict of numbers for each epoch.  data_name: the data set's; a stand-in is named in the
    figure.  Raises ImportError where matplotlib is not installed, OSError where path cannot be written.
    """
    from matplotlib import pyplot  # here: optional, and 0.4 s of start-up
    from matplotlib.ticker import MaxNLocator  # here: as above

    from cs231n import plots  # here: as above

    column = {name: [row[name] for row in rows] for name in rows[0]}
    epochs = column["epoch"]
    fig, axes = plots.figure(1, 3, {"name": data_name})
    loss, acc, rate = axes
    measured = {"training": "train", "validation": "val"} if "val_loss" in column else {"training": "train"}
    losses = {name: column[f"{images}_loss"] for name, images in measured.items()}
    percent = {name: [100 * accuracy for accuracy in column[f"{images}_acc"]] for name, images in measured.items()}
    plots.curves(loss, losses, epochs, "epoch", "loss")
    plots.curves(acc, percent, epochs, "epoch", "accuracy (%)")
    plots.curves(rate, {"learning rate": column["lr"]}, epochs, "epoch", "learning rate")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=150)
    pyplot.close(fig)
    write_bytes(path, picture.getvalue())


@contextmanager
def tensorboard(folder, epoch):
    """A context with a function that writes a row of the log, a dict of numbers, to TensorBoard's event file in folder.

    Events of later epochs than epoch, which an interrupted run left there, are hidden.
    Raises ValueError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # here: optional, and seconds of start-up
    except ImportError as error:
        raise ValueError(f"tensorboard: it cannot be imported ({error}); pip install tensorboard") from error
    with SummaryWriter(folder, purge_step=epoch + 1) as writer:

        def write(row):
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], row["epoch"])

        yield write
