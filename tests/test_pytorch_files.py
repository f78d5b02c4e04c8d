"""What a run leaves on the disk: whole files, or the old ones."""

import builtins
import platform
import sys
import types

import pytest
import torch

from cs231n import pytorch_files as files
from cs231n.files import read_csv

PNG = b"\x89PNG\r\n\x1a\n"


pytestmark = pytest.mark.usefixtures("fast_disk")


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path):
    files.save(tmp_path / "a.pt", {"model": {"w": torch.arange(3.0)}, "epoch": 4})
    state = files.load(tmp_path / "a.pt", "cpu")
    assert state["epoch"] == 4
    assert torch.equal(state["model"]["w"], torch.arange(3.0))
    assert files.load(tmp_path / "a.pt", "meta")["model"]["w"].device.type == "meta"  # on the device that is asked for


def test_a_missing_checkpoint_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        files.load(tmp_path / "none.pt", "cpu")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", PNG, "half"], ids=["empty", "text", "picture", "half"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, content):
    path = tmp_path / "a.pt"
    files.save(path, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000] if content == "half" else content)
    with pytest.raises(ValueError, match=r"a\.pt is not a complete checkpoint of cs231n\.pytorch_cifar10$"):
        files.load(path, "cpu")


@pytest.mark.parametrize("state", [{"w": torch.zeros(2)}, torch.zeros(2), {"format": "other"}])
def test_a_foreign_checkpoint_is_one_clear_line(tmp_path, state):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt is a checkpoint, but not one of cs231n\.pytorch_cifar10$"):
        files.load(tmp_path / "a.pt", "cpu")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    torch.save({"format": files.FORMAT, "evil": Evil()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="is not a complete checkpoint"):
        files.load(tmp_path / "a.pt", "cpu")
    assert not (tmp_path / "evil").exists()


def test_an_epoch_that_is_repeated_replaces_its_row_and_those_after_it(tmp_path):
    path = tmp_path / "log.csv"
    assert read_csv(path) == []
    for epoch, loss in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.5)):
        files.log_epoch(path, {"epoch": epoch, "loss": loss})
    assert path.read_bytes() == b"epoch,loss\n1,0.1\n2,0.5\n"
    assert read_csv(path) == [{"epoch": "1", "loss": "0.1"}, {"epoch": "2", "loss": "0.5"}]


def test_the_versions_are_those_of_this_environment_as_plain_strings():
    versions = files.versions(torch.device("cpu"))
    assert versions["python"] == platform.python_version()
    assert (versions["torch"], type(versions["torch"])) == (torch.__version__, str)
    assert (versions["device"], versions["cuda"]) == ("cpu", torch.version.cuda)
    assert versions["torchvision"].count(".") == 2


def test_a_package_that_is_absent_has_no_version(monkeypatch):
    def absent(name):
        raise files.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(files.metadata, "version", absent)
    assert files.versions(torch.device("cpu"))["torchvision"] is None


# Pictures

ROWS = [
    {"epoch": str(e), "lr": "0.1", "train_loss": "2", "val_loss": "1.5", "train_acc": "0.25", "val_acc": str(e / 10)}
    for e in (1, 2, 3)
]


def test_the_curves_show_losses_accuracies_in_percent_and_the_learning_rate(monkeypatch, tmp_path):
    from matplotlib import pyplot

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    files.draw_curves(tmp_path / "curves.png", ROWS, "Shapes10")
    monkeypatch.undo()
    (fig,) = drawn
    lines = {line.get_label(): line for ax in fig.axes for line in ax.lines}
    loss, acc, rate = fig.axes
    assert [[line.get_label() for line in ax.lines] for ax in (loss, acc)] == [["training", "validation"]] * 2
    assert list(loss.lines[1].get_ydata()) == [1.5] * 3
    assert list(acc.lines[1].get_ydata()) == [10, 20, 30]
    assert list(rate.lines[0].get_ydata()) == [0.1] * 3
    assert list(lines["learning rate"].get_xdata()) == [1, 2, 3]
    assert "Shapes10, not from CIFAR-10" in fig.get_suptitle()
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    pyplot.close(fig)


def test_a_picture_that_is_written_is_closed(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    files.draw_curves(tmp_path / "curves.png", ROWS, "CIFAR-10")
    assert pyplot.get_fignums() == before


# TensorBoard


def test_tensorboard_is_written_to_where_it_is_installed(monkeypatch, tmp_path):
    made = []
    fake = types.SimpleNamespace(SummaryWriter=lambda folder, purge_step: made.append((folder, purge_step)) or "writer")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    assert files.tensorboard_writer(tmp_path, 3) == "writer"
    assert made == [(tmp_path, 4)]


def test_without_tensorboard_there_is_no_writer(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert files.tensorboard_writer(tmp_path, 3) is None
