"""What a run leaves on the disk: whole files, or the old ones."""

import errno
import fcntl
import io
import os
import platform
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from cs231n import pytorch_files as files
from cs231n.files import write_checked_zip
from cs231n.pytorch_device import device_name

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
    with pytest.raises(
        ValueError, match=r"a\.pt has no checksum: it is damaged, or .*; use another copy of it, or train"
    ):
        files.load(path, "cpu")


def test_a_checkpoint_with_a_flipped_bit_is_refused_wherever_it_is(tmp_path):
    path = tmp_path / "a.pt"
    files.save(path, {"w": torch.zeros(500)})
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.choice(len(content), 60, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"a\.pt (is damaged|has no checksum)"):
            files.load(path, "cpu")


def test_pytorch_reads_a_checkpoint(tmp_path):
    files.save(tmp_path / "a.pt", {"w": torch.arange(3.0)})
    for mmap in (False, True):
        assert torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)["w"].tolist() == [0, 1, 2]


def test_a_checkpoint_of_an_earlier_version_is_one_clear_line(tmp_path):
    torch.save({"format": "cs231n.pytorch_cifar10, 1", "w": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a\.pt has no checksum: .* an earlier version wrote it; use another copy of it"
    ):
        files.load(tmp_path / "a.pt", "cpu")


def test_a_snapshot_keeps_what_its_tensors_were_and_what_they_share():
    w = torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    state = {"model": {"w": w}, "best": [w.detach(), {"epoch": 3}], "none": None, "pair": (1, w[:, :1])}
    copy = files.snapshot(state)
    w.zero_()
    assert torch.equal(copy["model"]["w"], torch.arange(24.0).view(1, 2, 3, 4))
    assert copy["model"]["w"].stride() == w.stride()
    assert copy["best"][0] is copy["model"]["w"]
    assert copy["best"][1] == {"epoch": 3}
    assert copy["none"] is None
    assert torch.equal(copy["pair"][1], torch.arange(12.0).view(1, 1, 3, 4))
    assert copy["best"][1] is not state["best"][1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_snapshot_of_a_gpus_tensors_is_in_pinned_memory():
    copy = files.snapshot([torch.ones(3, device="cuda")])[0]
    torch.cuda.synchronize()
    assert copy.is_pinned()
    assert copy.tolist() == [1, 1, 1]


def test_a_writer_writes_one_after_another_and_tells_of_an_error_once():
    order, first, second = [], threading.Event(), threading.Event()
    with files.Writer() as writer:
        writer.start(lambda: (first.wait(20), order.append("first")))
        assert order == []
        threading.Timer(0.05, first.set).start()
        writer.start(lambda: (second.wait(20), order.append("second")))
        assert order == ["first"]
        second.set()
        writer.wait()
        assert order == ["first", "second"]
        writer.start(lambda: os.stat("absent"))
        with pytest.raises(FileNotFoundError, match="absent"):
            writer.start(order.append, "third")
        writer.start(order.append, "fourth")
    assert order[2:] == ["fourth"]


def stopped_by(error, done):
    with files.Writer() as writer:
        writer.start(lambda: (time.sleep(0.05), done.append(error), os.stat("absent")))
        if error:
            raise error


@pytest.mark.parametrize(("error", "raised"), [(KeyboardInterrupt,) * 2, (ValueError,) * 2, (None, FileNotFoundError)])
def test_at_its_end_a_writer_waits_for_the_last_write_and_keeps_the_error_that_ends_it(error, raised):
    done = []
    with pytest.raises(raised):
        stopped_by(error, done)
    assert done == [error]


def write_foreign(path, state):
    content = io.BytesIO()
    torch.save(state, content)
    write_checked_zip(path, content.getvalue())


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"w": torch.zeros(2)}, "is not a checkpoint of cs231n"),
        (torch.zeros(2), "is not a checkpoint of cs231n"),
        ({"format": "other"}, f"has the format 'other', and this version reads '{files.FORMAT}'"),
        ({"format": files.FORMAT, "a": [{"b": torch.tensor([0, torch.nan])}]}, "a/0/b is not finite"),
        ({"format": files.FORMAT, "a": torch.inf}, "a is not finite"),
    ],
)
def test_a_foreign_checkpoint_is_one_clear_line(tmp_path, state, says):
    write_foreign(tmp_path / "a.pt", state)
    with pytest.raises(ValueError, match=rf"a\.pt:? {says}.*; use another copy of it, or train again$"):
        files.load(tmp_path / "a.pt", "cpu")


@pytest.mark.parametrize("entry", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_is_named_and_huge_ones_are_finite(entry):
    huge = torch.full((3,), 3e38)
    assert files.not_finite({"a": [1, "b", True, None, huge, -huge, torch.arange(3), torch.tensor([True])]}) == ""
    assert files.not_finite({"a": [huge, {"b": torch.tensor([entry, 1])}]}) == "a/1/b"
    assert files.not_finite({"a": [huge, {"b": entry}]}) == "a/1/b"


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    write_foreign(tmp_path / "a.pt", {"format": files.FORMAT, "evil": Evil()})
    with pytest.raises(ValueError, match="is not a checkpoint of cs231n"):
        files.load(tmp_path / "a.pt", "cpu")
    assert not (tmp_path / "evil").exists()


# The folder of a run


def test_a_folder_is_locked_until_the_end_of_the_context(tmp_path):
    folder = tmp_path / "runs" / "a"
    for _ in range(2):
        message = r"runs/a is in use by another run; wait for its end, or choose another --output-dir$"
        with files.locked(folder), pytest.raises(ValueError, match=message), files.locked(folder):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(monkeypatch, tmp_path, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(tmp_path):
        pass
    message = f"The file system of {tmp_path} has no locks: start no second run there while this one runs."
    assert caplog.messages == [message]


def test_a_lock_that_fails_for_another_reason_is_passed_on(monkeypatch, tmp_path):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), files.locked(tmp_path):
        pass


def test_the_results_of_a_run_are_found_and_removed_and_other_files_stay(tmp_path):
    assert files.results(tmp_path / "none") == []
    for name in ("last.pt", "best.pt", "log.csv", "notes.txt", "configuration.json"):
        (tmp_path / name).touch()
    assert files.results(tmp_path) == ["best.pt", "last.pt", "log.csv"]
    files.remove_results(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configuration.json", "notes.txt"]


# What a run writes for its reader


def test_the_versions_are_those_of_this_environment_as_plain_strings():
    versions = files.versions(torch.device("cpu"))
    assert versions["python"] == platform.python_version()
    assert (versions["torch"], type(versions["torch"])) == (torch.__version__, str)
    assert (versions["device"], versions["cuda"]) == (device_name(torch.device("cpu")), torch.version.cuda)
    assert versions["torchvision"].count(".") == 2


def test_a_package_that_is_absent_has_no_version(monkeypatch):
    def absent(name):
        raise files.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(files.metadata, "version", absent)
    assert files.versions(torch.device("cpu"))["torchvision"] is None


# Pictures

ROWS = [
    {"epoch": e, "lr": 0.1, "train_loss": 2.0, "val_loss": 1.5, "train_acc": 0.25, "val_acc": e / 10} for e in (1, 2, 3)
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


def test_tensorboards_event_file_has_the_numbers_of_each_epoch(tmp_path):
    code = """
import sys
from cs231n import pytorch_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for start, epochs in ((0, (1, 2, 3)), (2, (3,))):  # the second run resumes after epoch 2
    with pytorch_files.tensorboard(sys.argv[1], start) as write:
        for epoch in epochs:
            write({"epoch": epoch, "val_acc": epoch / 10 + start})
events = EventAccumulator(sys.argv[1]).Reload()
print(events.Tags()["scalars"], [(event.step, round(event.value, 3)) for event in events.Scalars("val_acc")])
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "['val_acc'] [(1, 0.1), (2, 0.2), (3, 2.3)]\n"


def test_where_tensorboard_is_not_installed_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"^tensorboard: it cannot be imported .*; pip install tensorboard$"):
        files.tensorboard(tmp_path, 0).__enter__()
