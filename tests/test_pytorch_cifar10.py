"""The command line: a run from the data to the test, killed and gone on with, and shared by several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_pytorch_data import bytes_and_labels
from test_pytorch_training import assert_same, assert_same_end

from cs231n import pytorch_cifar10, pytorch_data
from cs231n import pytorch_files as files
from cs231n.files import read_csv
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_recipes import Classic, Speedrun
from cs231n.pytorch_training import Training

ROOT = Path(__file__).resolve().parents[1]
NAMES = tuple("abcdefghij")
SMALL = ["--epochs=1", "--batch-size=16", "--widths=4", "--blocks=1", "--train-images=48", "--device=cpu"]
WRITTEN = {"best.pt", "last.pt", "log.csv", "configuration.json", "result.json", "curves.png"}

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """64 images to train on, 40 for validation and 24 for the test; and a disk that does not keep one waiting."""
    x, y = bytes_and_labels(104)
    read = ("CIFAR-10", NAMES, (x, y, *bytes_and_labels(24, seed=1)))
    monkeypatch.setattr(pytorch_data, "VALIDATION", 40)
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: read)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def in_folder(folder, *options):
    return [*SMALL, "--output-dir", str(folder), *options]


# A whole run


@pytest.mark.parametrize("recipe", ["classic", "speedrun"])
def test_the_command_line_trains_tests_and_resumes(recipe, tmp_path, caplog):
    caplog.set_level("INFO")
    argv = in_folder(tmp_path, "--recipe", recipe)
    assert main(argv) == 0
    assert re.search(r"test accuracy on CIFAR-10: \d+\.\d\d %", caplog.text)
    times = r"training \d+\.\d s, without validation and the warm-up of \d+\.\d s; the whole run \d+\.\d s"
    assert re.search(times, caplog.text)
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN
    assert main([*argv, "--resume"]) == 0


def test_the_result_is_what_the_best_checkpoint_reaches(tmp_path, monkeypatch):
    read = pytorch_cifar10.read_splits
    monkeypatch.setattr(pytorch_cifar10, "read_splits", lambda *settings: (time.sleep(0.5), read(*settings))[1])
    assert main(in_folder(tmp_path, "--epochs=3", "--lr=0.01")) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    recipe = Classic(epochs=3, batch_size=16, widths=(4,), blocks=1, train_images=48, lr=0.01)
    train, val, test = pytorch_data.read_splits(None, 48, "cpu")
    training = Training(recipe, train, val, tmp_path)
    training.model.load_state_dict(files.load(tmp_path / "best.pt", "cpu")["model"])
    assert training.evaluate(val)[1] == result["val_acc"]
    assert training.evaluate(test) == (result["test_loss"], result["test_acc"])
    rows = read_csv(tmp_path / "log.csv")
    assert result["training_seconds"] == float(rows[-1]["training_seconds"])
    assert result["run_seconds"] > 0.5 + result["training_seconds"] + result["warm_up_seconds"]  # reading included
    assert result["warm_up_seconds"] > 0
    assert result["data"] == "CIFAR-10"


def test_the_test_set_is_read_once_at_the_end(tmp_path, monkeypatch):
    seen = []
    batches = pytorch_data.Images.batches
    monkeypatch.setattr(pytorch_data.Images, "batches", lambda self, n: (seen.append(len(self)), batches(self, n))[1])
    assert main(in_folder(tmp_path, "--epochs=2")) == 0
    assert seen == [40, 40, 24]


def test_the_configuration_and_the_versions_lie_beside_the_checkpoint(tmp_path):
    assert main(in_folder(tmp_path, "--recipe=speedrun", "--no-muon", "--deterministic", "--preset=94")) == 0
    configuration = json.loads((tmp_path / "configuration.json").read_text())
    recipe = Speedrun(epochs=1, batch_size=16, widths=(4,), train_images=48, muon=False)
    assert configuration["recipe"] == recipe.settings()
    assert configuration["versions"] == files.versions(torch.device("cpu"))
    options = {"device": "cpu", "output_dir": str(tmp_path), "data_dir": None, "preset": "94", "processes": 1}
    options |= {"compile": False, "deterministic": True, "resume": False, "workers": 0}
    assert configuration["options"] == options


def test_the_run_is_deterministic_where_asked(tmp_path, monkeypatch):
    seen = []
    run = Training.run
    monkeypatch.setattr(
        Training, "run", lambda self: (seen.append(torch.are_deterministic_algorithms_enabled()), run(self))
    )
    assert main(in_folder(tmp_path)) == 0
    assert main(in_folder(tmp_path, "--deterministic")) == 0
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_compile_workers_and_data_dir_are_handed_on(tmp_path, monkeypatch):
    seen = []
    read = pytorch_data.read_images("")
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: (seen.append(data_dir), read)[1])

    class Refusing(Training):
        def __init__(self, recipe, train, val, output_dir, compiled, workers):
            seen.extend([recipe.loader, compiled, workers])
            raise ValueError("far enough")

    monkeypatch.setattr(pytorch_cifar10, "Training", Refusing)
    options = ["--compile", "--workers=2", "--loader=torchvision", "--data-dir", "here"]
    assert main(in_folder(tmp_path, *options)) == 1
    assert seen == ["here", "torchvision", True, 2]


def test_the_torchvision_loader_trains_too(tmp_path):
    assert main(in_folder(tmp_path, "--loader=torchvision")) == 0


def test_the_tiny_preset_is_a_small_change_of_each_recipe(tmp_path):
    for name in ("classic", "speedrun"):
        argv = ["--recipe", name, "--preset=tiny", "--train-images=48", "--output-dir", str(tmp_path), "--device=cpu"]
        assert main(argv) == 0
        assert json.loads((tmp_path / "configuration.json").read_text())["recipe"]["widths"] == [8, 16]
        assert len(read_csv(tmp_path / "log.csv")) == 2


def test_the_stand_in_is_named_wherever_its_result_is(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    read = pytorch_data.read_images("")
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: ("Shapes10", *read[1:]))
    drawn = []
    monkeypatch.setattr(files, "draw_curves", lambda path, rows, name: drawn.append((path.name, len(rows), name)))
    assert main(in_folder(tmp_path)) == 0
    assert "test accuracy on Shapes10" in caplog.text
    assert "CIFAR-10" not in caplog.text
    assert json.loads((tmp_path / "result.json").read_text())["data"] == "Shapes10"
    assert drawn == [("curves.png", 1, "Shapes10")]


def test_without_matplotlib_a_run_says_that_it_draws_nothing(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(in_folder(tmp_path)) == 0
    assert caplog.messages[-1] == "No curves were drawn: matplotlib is not installed."
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN - {"curves.png"}


# What goes wrong is one clear line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--train-images=65"], "train_images: wanted a whole number from 1 to 64, got 65"),
        (["--resume"], "No such file or directory"),
        (["--epochs=0"], "epochs: wanted a whole number of at least 1, got 0"),
        (["--widths", "4", "0"], "widths: wanted a whole number of at least 1, got 0"),
        (["--lr=nan"], "lr: wanted a number of at least 0, got nan"),
        (["--lr=1e30"], "in epoch 1, with a learning rate of 1e+30: try a smaller one"),
        (["--device=nonsense"], "device: wanted cuda, mps, cpu, or one with a number"),
        (["--workers=-1"], "workers: wanted a whole number of at least 0, got -1"),
        (["--workers=2"], "workers: wanted 0, since only the torchvision loader has any, got 2"),
        (["--lr-steps=15"], "lr_steps: wanted a number from 0 to 1, got 15"),
        (["--loader=torchvision", "--alternating-flip"], "alternating_flip: the torchvision loader flips at random"),
        (["--output-dir", str(Path(__file__) / "runs")], "Not a directory"),
    ],
)
def test_a_wrong_command_is_one_clear_line(tmp_path, caplog, options, says):
    assert main(in_folder(tmp_path, *options)) == 1
    (record,) = caplog.records
    assert says in record.message
    assert "\n" not in record.message


def test_a_checkpoint_of_another_recipe_or_other_data_is_refused(tmp_path, monkeypatch, caplog):
    assert main(in_folder(tmp_path)) == 0
    assert main(in_folder(tmp_path, "--lr=0.5", "--resume")) == 1
    assert "was made with lr 0.002 and not 0.5" in caplog.text
    assert main(in_folder(tmp_path, "--recipe=speedrun", "--resume")) == 1
    assert "was made with recipe classic and not speedrun" in caplog.text
    read = pytorch_data.read_images("")
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: ("Shapes10", *read[1:]))
    assert main(in_folder(tmp_path, "--resume")) == 1
    assert "was made with data CIFAR-10 and not Shapes10" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C; --resume continues from the last complete epoch."),
        (torch.OutOfMemoryError("a\nlong\nstory"), 1, "The device's memory is full: try a smaller --batch-size."),
        (torch.distributed.DistBackendError("peer closed\nlong"), 1, "Another process failed: peer closed"),
        (RuntimeError("[gloo/pair.cc:5] Read error\nlong"), 1, "Another process failed: [gloo/pair.cc:5] Read error"),
        (RuntimeError("DataLoader worker (7) died. "), 1, "Another process failed: DataLoader worker (7) died"),
    ],
)
def test_what_stops_a_run_is_one_clear_line(tmp_path, monkeypatch, caplog, error, status, says):
    def stop(self):
        raise error

    monkeypatch.setattr(Training, "run", stop)
    assert main(in_folder(tmp_path)) == status
    assert [record.message for record in caplog.records] == [says]


@pytest.mark.parametrize("fault", ["a fault", "Caught RuntimeError in DataLoader worker process 0."])
def test_an_error_of_the_program_itself_keeps_its_traceback(tmp_path, monkeypatch, fault):
    def stop(self):
        raise RuntimeError(fault)

    monkeypatch.setattr(Training, "run", stop)
    with pytest.raises(RuntimeError, match=fault):
        main(in_folder(tmp_path))


# Help


def said_by_help(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--help"])
    assert stopped.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_explains_each_option_of_the_recipe_and_where_the_others_are(capsys):
    said = said_by_help(capsys)
    assert "--lr-steps N [N ...] fractions of the run, 0 to 1, after which the learning rate falls" in said
    assert "--alternating-flip, --no-alternating-flip" in said
    assert "The recipes are classic and speedrun: --recipe NAME --help lists the options of one" in said
    assert "--muon" not in said
    assert "None" not in said
    said = said_by_help(capsys, "--recipe", "speedrun", "--preset", "96")
    assert "--muon, --no-muon Muon for the convolutions; without it, SGD for all weights (default: on)" in said
    assert "--epochs N passes over the training images (default: 45)" in said
    assert "--averaging {none,ema,lookahead} which average of the weights is kept (default: lookahead)" in said


def test_help_explains_the_other_commands(capsys):
    assert "a PNG or JPEG file of any size" in said_by_help(capsys, "predict")
    assert "runs of each variant, with seeds from --seed on (default: 5)" in said_by_help(capsys, "ablate")


def test_the_module_runs_as_a_program_and_fails_without_a_traceback():
    child = subprocess.run(
        [sys.executable, "-W", "error", "-m", "cs231n.pytorch_cifar10", "predict", "none.pt", "none.png"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr == "[Errno 2] No such file or directory: 'none.pt'\n"


# Killed. A child runs the command line on the small data, and does WHAT at its NUMBERth chance.

CHILD = """
import os, resource, signal, sys, time
from pathlib import Path

import torch
from test_pytorch_data import bytes_and_labels

from cs231n import files, pytorch_data, pytorch_device, pytorch_files
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_training import Training

what, number, folder, *options = sys.argv[1:]
torch.set_num_threads(1)
sys.modules["matplotlib"] = None  # it takes a while to import
x, y = bytes_and_labels(104)
pytorch_data.VALIDATION = 40
pytorch_data.read_images = lambda data_dir: ("CIFAR-10", tuple("abcdefghij"), (x, y, *bytes_and_labels(24, seed=1)))
chances = iter(range(1, 1000))
step, replace, open_file = Training._step, os.replace, open


def is_now():
    return next(chances) == int(number)


def hang():
    print("there", flush=True)
    time.sleep(100)


def hanging_step(self, x, y):
    if is_now():
        hang()
    return step(self, x, y)


def dying_step(self, x, y):
    (Path(folder) / f"pid{pytorch_device.rank()}").write_text(str(os.getpid()))
    if is_now() and pytorch_device.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, x, y)


def telling_step(self, x, y):
    result = step(self, x, y)
    if is_now():
        gradients = {name: w.grad for name, w in self.model.named_parameters() if w.requires_grad}
        state = {"y": y, "gradients": gradients, "model": self.model.state_dict()}
        torch.save(state, Path(folder) / f"told{pytorch_device.rank()}")
    if pytorch_device.rank() == 1:
        files.open = None  # whoever writes a file fails
    return result


class Half:
    def __init__(self, path, mode):
        self.file = open_file(path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        hang()


def half_open(path, *mode, **settings):
    is_half = Path(path).name.startswith("last.pt.") and is_now()
    return Half(path, *mode) if is_half else open_file(path, *mode, **settings)


def late_replace(a, b):
    if Path(b).name == "last.pt" and is_now():
        hang()
    replace(a, b)


def full_disk_step(self, x, y):
    if is_now():
        size = (Path(folder) / "last.pt").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
    return step(self, x, y)


if what == "half written":
    files.open = half_open
elif what == "before the replacement":
    os.replace = late_replace
elif what != "nothing":
    Training._step = {"step": hanging_step, "die": dying_step, "tell": telling_step, "full disk": full_disk_step}[what]
sys.exit(main(["--output-dir", folder, *options]))
"""

RUN = ["--epochs=3", "--batch-size=16", "--widths=4", "--blocks=1", "--train-images=64", "--device=cpu", "--lr=0.01"]
SPEEDRUN = [*RUN, "--recipe=speedrun", "--average-period=3"]
WARM_UP, EPOCH = 3, 4  # steps


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}


def start_child(what, number, folder, *options, torchrun=(), **settings):
    folder.mkdir(exist_ok=True)
    program = [sys.executable, "-m", "torch.distributed.run", *torchrun] if torchrun else [sys.executable]
    script = folder.parent / "child.py"
    script.write_text(CHILD)
    return subprocess.Popen(
        [*program, str(script), what, str(number), str(folder), *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def finish(child, timeout=90):
    with child:
        try:
            _, said = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return child.returncode, said


def kill_when_there(child):
    with child:
        assert child.stdout.readline() == "there\n"
        child.kill()
        assert child.wait() == -signal.SIGKILL


def test_killed_in_mid_epoch_and_resumed_a_run_ends_with_the_same_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    child = start_child("step", WARM_UP + EPOCH + 3, killed, *RUN)
    assert main([*RUN, "--output-dir", str(whole)]) == 0
    kill_when_there(child)
    assert files.load(killed / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert finish(start_child("nothing", 0, killed, *RUN, "--resume"))[0] == 0
    assert_same_end(whole, killed)
    best = [files.load(folder / "best.pt", "cpu")["model"] for folder in (whole, killed)]
    assert_same(*best)


@pytest.mark.parametrize(("moment", "run"), [("half written", RUN), ("before the replacement", SPEEDRUN)])
def test_killed_in_mid_write_and_resumed_a_run_ends_with_the_same_weights(moment, run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    child = start_child(moment, 2, killed, *run)
    assert main([*run, "--output-dir", str(whole)]) == 0
    kill_when_there(child)
    (left,) = killed.glob("last.pt.*.tmp")  # the next run writes to a file of its own
    left.unlink()
    assert len(read_csv(killed / "log.csv")) == 2
    assert files.load(killed / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert main([*run, "--output-dir", str(killed), "--resume"]) == 0
    assert_same_end(whole, killed)
    assert {path.name for path in killed.iterdir()} == WRITTEN


def test_a_full_disk_is_one_clear_line_and_leaves_the_last_whole_checkpoint(tmp_path):
    pytest.importorskip("resource", reason="limits the size of files as POSIX does")
    folder = tmp_path / "run"
    status, said = finish(start_child("full disk", WARM_UP + EPOCH + 1, folder, *RUN))
    assert status == 1
    assert "Traceback" not in said
    assert re.search(r"^\[Errno 27\] File too large: '.*\.pt'$", said.splitlines()[-1])
    assert files.load(folder / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert files.load(folder / "best.pt", "cpu")["progress"]["epoch"] == 1
    assert not list(folder.glob("*.tmp"))


# Two processes

TWO = ("--standalone", "--nproc-per-node=2")


def test_two_processes_compute_what_one_does(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    children = [start_child("tell", WARM_UP + 1, one, *SPEEDRUN)]
    children.append(start_child("tell", WARM_UP + 1, two, *SPEEDRUN, torchrun=TWO))
    for child in children:
        status, said = finish(child)
        assert status == 0, said
        assert "Warning" not in said
        assert said.count("test accuracy") == 1  # the first process alone speaks
    told = torch.load(one / "told0", weights_only=True)
    first, second = (torch.load(two / f"told{rank}", weights_only=True) for rank in range(2))
    assert torch.equal(torch.cat([first["y"], second["y"]]), told["y"])
    assert_same(first["gradients"], second["gradients"])
    for name, gradient in told["gradients"].items():
        error = (gradient - first["gradients"][name]).abs().max() / gradient.abs().max()
        assert error < 1e-4, name
    for name, value in told["model"].items():
        if "running" in name:
            assert torch.allclose(value, first["model"][name], rtol=1e-4, atol=1e-5), name
    logs = [read_csv(folder / "log.csv") for folder in (one, two)]
    assert [row["epoch"] for row in logs[1]] == ["1", "2", "3"]
    for column in ("train_loss", "val_loss"):
        first_epoch = [float(log[0][column]) for log in logs]
        assert first_epoch[0] == pytest.approx(first_epoch[1], rel=0.02)
    assert json.loads((two / "configuration.json").read_text())["options"]["processes"] == 2
    assert {path.name for path in two.iterdir()} == WRITTEN - {"curves.png"} | {"told0", "told1"}
    assert main([*SPEEDRUN, "--output-dir", str(two), "--resume"]) == 0  # one process reads what two have written


def test_when_a_process_dies_the_others_end_and_the_run_can_be_gone_on_with(tmp_path):
    folder = tmp_path / "run"
    status, said = finish(start_child("die", WARM_UP + EPOCH + 2, folder, *RUN, torchrun=TWO), timeout=60)
    assert status != 0
    assert "[rank0]" not in said  # so begins a traceback of process 0
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / f"pid{rank}").read_text()), 0)
    assert files.load(folder / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert main([*RUN, "--output-dir", str(folder), "--resume"]) == 0
    assert [row["epoch"] for row in read_csv(folder / "log.csv")] == ["1", "2", "3"]


def test_an_ablation_is_for_one_process(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pytorch_cifar10, "world_size", lambda: 2)
    assert main(["ablate", "--output-dir", str(tmp_path), "--device=cpu"]) == 1
    assert "ablate: wanted one process, got 2" in caplog.text
