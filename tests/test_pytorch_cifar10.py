"""The command line: a run from the data to the test, killed and resumed, and shared by several processes."""

import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from children import Child, hang_in_write, limit_files_to
from test_pytorch_data import bytes_and_labels
from test_pytorch_training import assert_same, assert_same_end

import cs231n.files
from cs231n import pytorch_cifar10, pytorch_data, pytorch_device
from cs231n import pytorch_files as files
from cs231n.files import read_csv
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_recipes import Classic, Speedrun
from cs231n.pytorch_training import Training

ROOT = Path(__file__).resolve().parents[1]
NAMES = tuple("abcdefghij")
SMALL = ["--epochs=1", "--batch-size=16", "--widths=4", "--blocks=1", "--train-images=48", "--device=cpu"]
DRAW_CURVES = files.draw_curves
WRITTEN = {"best.pt", "last.pt", "half.pt", "log.csv", "configuration.json", "result.json", "curves.png", ".lock"}

pytestmark = pytest.mark.usefixtures("fast_disk", "one_torch_thread")


def read_small(data_dir=None, name="CIFAR-10"):
    """64 images to train on, 40 for validation and 24 for the test."""
    return name, NAMES, (*bytes_and_labels(104), *bytes_and_labels(24, seed=1))


def use_small_data(set_attribute):
    set_attribute(pytorch_data, "VALIDATION", 40)
    set_attribute(pytorch_data, "read_images", read_small)


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """The small data, and a picture that is not drawn: drawing takes longer than training."""
    use_small_data(monkeypatch.setattr)
    monkeypatch.setattr(files, "draw_curves", lambda path, *_: path.touch())


def in_folder(folder, *options):
    return [*SMALL, "--output-dir", str(folder), *options]


# A whole run


@pytest.mark.parametrize("recipe", ["classic", "speedrun"])
def test_the_command_line_trains_tests_draws_and_resumes(recipe, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(files, "draw_curves", DRAW_CURVES)
    argv = in_folder(tmp_path, "--recipe", recipe)
    assert main(argv) == 0
    assert re.search(r"test accuracy on CIFAR-10: \d+\.\d\d %", caplog.text)
    times = r"training \d+\.\d s, without validation and the warm-up of \d+\.\d s; the whole run \d+\.\d s"
    assert re.search(times, caplog.text)
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert main([*argv, "--resume"]) == 0


def test_the_result_is_what_the_best_checkpoint_reaches(tmp_path, monkeypatch):
    read = pytorch_cifar10.read_splits
    monkeypatch.setattr(pytorch_cifar10, "read_splits", lambda *settings: (time.sleep(0.1), read(*settings))[1])
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
    assert result["run_seconds"] > 0.1 + result["training_seconds"] + result["warm_up_seconds"]  # reading included
    assert result["warm_up_seconds"] > 0
    assert result["data"] == "CIFAR-10"


def test_a_run_on_all_images_holds_none_out_and_says_so(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(files, "draw_curves", DRAW_CURVES)
    assert main(in_folder(tmp_path, "--train-images=104", "--epochs=2")) == 0
    assert "no image held out; checkpoints in" in caplog.text
    assert json.loads((tmp_path / "result.json").read_text())["val_acc"] is None
    assert "val_acc" not in read_csv(tmp_path / "log.csv")[0]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_test_set_is_read_once_at_the_end(tmp_path, monkeypatch):
    seen = []
    batches = pytorch_data.Images.batches
    monkeypatch.setattr(pytorch_data.Images, "batches", lambda self, n: (seen.append(len(self)), batches(self, n))[1])
    assert main(in_folder(tmp_path, "--epochs=2")) == 0
    assert seen == [40, 40, 24]


def test_the_configuration_and_the_versions_are_beside_the_checkpoint(tmp_path):
    assert main(in_folder(tmp_path, "--recipe=speedrun", "--no-muon", "--deterministic", "--preset=94")) == 0
    configuration = json.loads((tmp_path / "configuration.json").read_text())
    recipe = Speedrun(epochs=1, batch_size=16, widths=(4,), blocks=(1,), train_images=48, muon=False)
    assert configuration["recipe"] == recipe.settings()
    assert configuration["versions"] == files.versions(torch.device("cpu"))
    options = {"device": "cpu", "output_dir": str(tmp_path), "data_dir": None, "preset": "94", "processes": 1}
    options |= {
        "compile": False,
        "graph": True,
        "stand_in": False,
        "deterministic": True,
        "resume": False,
        "overwrite": False,
        "workers": 0,
        "tensorboard": False,
    }
    assert configuration["options"] == options


def test_a_tilde_in_the_output_folder_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pytorch_cifar10._parse(["train", "--output-dir=~/runs"]).output_dir == tmp_path / "runs"


def test_the_run_is_deterministic_where_asked(tmp_path, monkeypatch):
    seen = []
    run = Training.run
    monkeypatch.setattr(
        Training,
        "run",
        lambda self, report: (seen.append(torch.are_deterministic_algorithms_enabled()), run(self, report=report)),
    )
    assert main(in_folder(tmp_path)) == 0
    assert main(in_folder(tmp_path, "--deterministic", "--overwrite")) == 0
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_loader_compile_workers_and_data_dir_are_passed_on(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: (seen.append(data_dir), read_small())[1])

    class Refusing(Training):
        def __init__(self, recipe, train, val, output_dir, compiled, workers, graphed):
            seen.extend([recipe.loader, compiled, workers, graphed])
            raise ValueError("far enough")

    monkeypatch.setattr(pytorch_cifar10, "Training", Refusing)
    options = ["--compile", "--no-graph", "--workers=2", "--loader=torchvision", "--data-dir", "here"]
    assert main(in_folder(tmp_path, *options)) == 1
    assert seen == ["here", "torchvision", True, 2, False]


def test_the_tiny_preset_is_a_small_change_of_each_recipe(tmp_path):
    for name in ("classic", "speedrun"):
        folder = tmp_path / name
        argv = ["--recipe", name, "--preset=tiny", "--train-images=48", "--output-dir", str(folder), "--device=cpu"]
        assert main(argv) == 0
        assert json.loads((folder / "configuration.json").read_text())["recipe"]["widths"] == [8, 16]
        assert len(read_csv(folder / "log.csv")) == 2


@pytest.mark.parametrize("recipe", ["classic", "speedrun"])
@pytest.mark.parametrize("train_images", [1, 64])
def test_a_run_takes_one_image_and_all_of_them(recipe, train_images, tmp_path):
    assert main(in_folder(tmp_path, "--recipe", recipe, f"--train-images={train_images}")) == 0


def test_the_stand_in_is_named_wherever_its_result_is(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: read_small(name="Shapes10"))
    drawn = []
    monkeypatch.setattr(files, "draw_curves", lambda path, rows, name: drawn.append((path.name, len(rows), name)))
    assert main(in_folder(tmp_path, "--stand-in")) == 0
    assert "test accuracy on Shapes10" in caplog.text
    assert "CIFAR-10" not in caplog.text
    assert json.loads((tmp_path / "result.json").read_text())["data"] == "Shapes10"
    assert drawn == [("curves.png", 1, "Shapes10")]


@pytest.mark.parametrize("command", [["train"], ["ablate"], ["bench", "--presets", "94", "tiny"]], ids=lambda c: c[0])
def test_a_run_of_full_size_does_not_train_on_the_stand_in_unasked(tmp_path, monkeypatch, caplog, command):
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: read_small(name="Shapes10"))
    where = ["--output-dir", str(tmp_path / "run"), "--data-dir", str(tmp_path / "data"), "--device=cpu"]
    assert main([*command, *where]) == 1
    says = f"CIFAR-10 is neither in {tmp_path / 'data'} nor beside it: run `make get-data`, name its folder with"
    assert [message.startswith(says) and "--stand-in" in message for message in caplog.messages] == [True]
    assert not list((tmp_path / "run").glob("*.*t"))


def test_a_tiny_preset_may_train_on_the_stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: read_small(name="Shapes10"))
    small = ["--train-images=48", "--device=cpu", "--output-dir", str(tmp_path)]
    assert main(["--preset=tiny", "--epochs=1", *small]) == 0
    assert main(["bench", "--presets=tiny", "--seeds=1", *small]) == 0
    assert read_csv(tmp_path / "bench.csv")[0]["data"] == "Shapes10"


def test_without_matplotlib_a_run_says_that_it_draws_nothing(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(files, "draw_curves", DRAW_CURVES)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(in_folder(tmp_path)) == 0
    assert caplog.messages[-1] == "No curves were drawn: matplotlib is not installed."
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN - {"curves.png"}


# One run in a folder


def test_an_earlier_run_is_kept_unless_overwrite_is_given(tmp_path, caplog):
    assert main(in_folder(tmp_path)) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(in_folder(tmp_path, "--seed=1")) == 1
    assert [record.message for record in caplog.records] == [
        f"{tmp_path} has best.pt, last.pt, half.pt, log.csv, curves.png, result.json of an earlier run: "
        f"use --resume to continue it, --overwrite to start over, or another --output-dir"
    ]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main(in_folder(tmp_path, "--seed=1", "--overwrite")) == 0
    assert files.load(tmp_path / "best.pt", "cpu")["recipe"]["seed"] == 1


def test_overwrite_deletes_nothing_before_it_can_start(tmp_path):
    assert main(in_folder(tmp_path)) == 0
    for options in (["--train-images=105"], ["--batch-size=0"], ["--workers=2"], ["--lr=-1"]):
        assert main(in_folder(tmp_path, *options, "--overwrite")) == 1
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN


def test_overwrite_leaves_nothing_of_the_earlier_run(tmp_path):
    assert main(in_folder(tmp_path, "--epochs=3")) == 0
    assert main(in_folder(tmp_path, "--lr=1e30", "--overwrite")) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"configuration.json", ".lock"}


def test_a_tilde_in_a_path_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--output-dir=~/run"]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == WRITTEN
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert files.load("~/run/best.pt", "cpu")["progress"]["epoch"] == 1


def test_resume_and_overwrite_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(in_folder(tmp_path, "--resume", "--overwrite"))
    assert "argument --overwrite: not allowed with argument --resume" in capsys.readouterr().err


def test_resume_before_the_first_epoch_is_complete_starts_with_it_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    for _ in range(2):
        assert main(in_folder(tmp_path, "--resume")) == 0
    says = f"no epoch to resume from in {tmp_path}: starting with the first"
    assert [record.message for record in caplog.records].count(says) == 1


def test_resume_starts_nothing_over_the_result_of_a_run_whose_last_checkpoint_is_gone(tmp_path, caplog):
    assert main(in_folder(tmp_path)) == 0
    (tmp_path / "last.pt").unlink()
    assert main(in_folder(tmp_path, "--resume")) == 1
    (record,) = caplog.records
    assert "has the result of a run, but no last.pt to resume it from: use --overwrite" in record.message


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_damaged_checkpoint_is_one_clear_line_in_each_command(tmp_path, caplog, name):
    assert main(in_folder(tmp_path)) == 0
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    for argv in (in_folder(tmp_path, "--resume"), ["predict", str(tmp_path / name), "a.png", "--device=cpu"]):
        assert main(argv) == 1
    says = f"{tmp_path / name} is damaged, as its checksum shows; use another copy of it, or train again"
    assert [record.message for record in caplog.records] == [says] * 2


# What goes wrong is one clear line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--train-images=105"], "train_images: wanted a whole number from 1 to 104, got 105"),
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


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C; --resume continues from the last complete epoch."),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate"),
            1,
            "The device's memory is full: try a smaller --batch-size.",
        ),
        (torch.OutOfMemoryError("a\nlong\nstory"), 1, "The device's memory is full: try a smaller --batch-size."),
        (torch.distributed.DistBackendError("peer closed\nlong"), 1, "Another process failed: peer closed"),
        (RuntimeError("[gloo/pair.cc:5] Read error\nlong"), 1, "Another process failed: [gloo/pair.cc:5] Read error"),
        (RuntimeError("DataLoader worker (7) died. "), 1, "Another process failed: DataLoader worker (7) died"),
    ],
)
def test_what_stops_a_run_is_one_clear_line(tmp_path, monkeypatch, caplog, error, status, says):
    monkeypatch.setattr(Training, "run", Mock(side_effect=error))
    assert main(in_folder(tmp_path)) == status
    assert [record.message for record in caplog.records] == [says]


@pytest.mark.parametrize("fault", ["a fault", "Caught RuntimeError in DataLoader worker process 0."])
def test_an_error_of_the_program_itself_keeps_its_traceback(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(Training, "run", Mock(side_effect=RuntimeError(fault)))
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
    assert "--epochs N passes over the training images (default: 36)" in said
    assert "--averaging {none,ema,lookahead} which average of the weights is kept (default: lookahead)" in said


def test_help_explains_the_other_commands(capsys):
    assert "PNG or JPEG files of any size" in said_by_help(capsys, "predict")
    assert "runs of each variant, with seeds from --seed on (default: 5)" in said_by_help(capsys, "ablate")


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}


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


# Killed


RUN = ["--epochs=3", "--batch-size=16", "--widths=4", "--blocks=1", "--train-images=64", "--device=cpu", "--lr=0.01"]
SPEEDRUN = [*RUN, "--recipe=speedrun", "--average-period=3", "--blocks=0", "--whitening-bias=0.4"]
EPOCH = 4  # steps


def train(tell, folder, options, number=0, act=None):
    """In a process of its own, run the command line on the small data, and act after its numberth step.

    The files of the epochs before are then written.
    """
    torch.set_num_threads(1)
    sys.modules["matplotlib"] = None  # its import takes a while
    use_small_data(setattr)
    steps, step = count(1), Training._step

    def step_and_act(training, x, y):
        result = step(training, x, y)
        if next(steps) == number:
            training.writer.wait()
            act(tell, folder, training, y)
        return result

    Training._step = step_and_act
    return main([*options, "--output-dir", str(folder)])


def hang(tell, *_):
    tell("training")
    time.sleep(60)


def train_until_killed(tell, folder, options, moment):
    if moment == "in an epoch":
        return train(tell, folder, options, EPOCH + 3, hang)
    hang_in_write(tell, folder / "last.pt", 2, moment)
    return train(tell, folder, options)


@pytest.mark.parametrize(
    ("moment", "run"), [("in an epoch", RUN), ("half written", RUN), ("before the replacement", SPEEDRUN)]
)
def test_killed_and_resumed_a_run_ends_with_the_same_weights(moment, run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with Child(train_until_killed, killed, run, moment) as child:
        assert main([*run, "--output-dir", str(whole)]) == 0
        child.wait_for("training" if moment == "in an epoch" else "writing")
        assert child.kill()
    left = list(killed.glob("last.pt.*.tmp"))  # the next run writes to a file of its own
    assert len(left) == (moment != "in an epoch")
    assert len(read_csv(killed / "log.csv")) == (1 if moment == "in an epoch" else 2)
    assert files.load(killed / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert main([*run, "--output-dir", str(killed), "--resume"]) == 0
    assert_same_end(whole, killed)
    assert_same(*(files.load(folder / "best.pt", "cpu")["model"] for folder in (whole, killed)))
    assert {path.name for path in killed.iterdir()} == WRITTEN | {path.name for path in left}


def fill_disk(tell, folder, *_):
    limit_files_to((folder / "last.pt").stat().st_size // 2)


def test_a_full_disk_is_one_clear_line_and_leaves_the_last_whole_checkpoint(tmp_path):
    folder, stderr = tmp_path / "run", tmp_path / "stderr"
    with Child(train, folder, RUN, EPOCH + 1, fill_disk, stderr=stderr) as child:
        assert child.exit_status() == 1
    assert "Traceback" not in stderr.read_text()
    assert re.search(r"^\[Errno 27\] File too large: '.*\.pt'$", stderr.read_text().splitlines()[-1])
    assert files.load(folder / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert files.load(folder / "best.pt", "cpu")["progress"]["epoch"] == 1
    assert not list(folder.glob("*.tmp"))


# One run in a folder, in several processes


@pytest.mark.parametrize("options", [[], ["--resume"], ["--overwrite"]])
def test_a_second_run_in_the_folder_of_one_is_one_clear_line_until_the_first_is_killed(tmp_path, caplog, options):
    with Child(train, tmp_path, RUN, EPOCH + 1, hang) as first:
        first.wait_for("training")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert main([*RUN, "--output-dir", str(tmp_path), *options]) == 1
        assert [record.message for record in caplog.records] == [
            f"{tmp_path} is in use by another run; wait for its end, or choose another --output-dir"
        ]
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert first.kill()
    assert main([*RUN, "--output-dir", str(tmp_path), "--resume"]) == 0


def hold(tell, folder):
    with files.locked(folder):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        tell(worker.pid)
        time.sleep(60)


def test_the_lock_of_a_killed_process_is_free_though_its_loaders_workers_live_on(tmp_path):
    with Child(hold, tmp_path) as child:
        worker = child.message()
        with pytest.raises(ValueError, match="is in use by another run"), files.locked(tmp_path):
            pass
        assert child.kill()
    try:
        with files.locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


# Stopped by a signal


def run_main(tell, argv, function):
    """In a process of its own, run the command line; function, a pair of module and name, tells the test and hangs."""
    sys.modules["matplotlib"] = None
    use_small_data(setattr)
    module, name = function
    setattr(sys.modules[f"cs231n.{module}"], name, lambda *_: hang(tell))
    return main(argv)


def assert_stopped(number, status, says, act, *args, folder):
    with Child(act, *args, stderr=folder / "stderr") as child:
        child.wait_for("training")
        os.kill(child.process.pid, number)
        assert child.exit_status() == status
    said = (folder / "stderr").read_text()
    assert said.splitlines()[-1] == says
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("number", "cause", "status"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
def test_a_signal_in_training_is_one_line_and_leaves_whole_checkpoints(tmp_path, number, cause, status):
    says = f"Stopped by {cause}; --resume continues from the last complete epoch."
    folder = tmp_path / "run"
    assert_stopped(number, status, says, train, folder, RUN, EPOCH + 1, hang, folder=tmp_path)
    assert files.load(folder / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert {path.name for path in folder.iterdir()} == {"best.pt", "last.pt", "log.csv", "configuration.json", ".lock"}
    assert main([*RUN, "--output-dir", str(folder), "--resume"]) == 0


@pytest.mark.parametrize(
    ("number", "cause", "status"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
@pytest.mark.parametrize(
    ("argv", "function"),
    [
        (["predict", "best.pt", "a.png"], ("pytorch_predict", "load")),
        (["ablate", "--device=cpu"], ("pytorch_ablation", "read_splits")),
    ],
)
def test_a_signal_in_the_other_commands_is_one_line(tmp_path, number, cause, status, argv, function):
    argv = [*argv, "--output-dir", str(tmp_path / "runs")] if argv[0] == "ablate" else argv
    assert_stopped(number, status, f"Stopped by {cause}.", run_main, argv, function, folder=tmp_path)


def test_ctrl_c_while_the_program_starts_is_one_line():
    argv = [sys.executable, "-X", "importtime", "-m", "cs231n.pytorch_cifar10", "predict", "none.pt", "none.png"]
    with subprocess.Popen(argv, env=environment(), stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c) as child:
        while "torch" not in child.stderr.readline():  # the first part of torch has been imported
            pass
        child.send_signal(signal.SIGINT)
        said = [line for line in child.stderr if not line.startswith("import time:")]
    assert (said, child.returncode) == (["Stopped by Ctrl-C.\n"], 130)


def heed_ctrl_c():
    """Undo what a shell does for a program in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Two processes


def keep_step(tell, folder, training, y):
    gradients = {name: w.grad for name, w in training.model.named_parameters() if w.requires_grad}
    kept = {"y": y, "gradients": gradients, "model": training.model.state_dict()}
    torch.save(kept, folder / f"step{pytorch_device.rank()}")
    if pytorch_device.rank() == 1:
        cs231n.files.open = None  # a process that writes a file fails


def test_two_processes_compute_what_one_does(tmp_path):
    """Under torchrun, as it runs this file: see the end."""
    one, two, stderr = tmp_path / "one", tmp_path / "two", tmp_path / "stderr"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    with Child(train, one, SPEEDRUN, 1, keep_step, stderr=stderr) as child:
        done = subprocess.run([*torchrun, two], env=environment(), capture_output=True, text=True, timeout=90)
        assert child.exit_status() == 0
    assert done.returncode == 0, done.stderr
    for said in (stderr.read_text(), done.stderr):
        assert "Warning" not in said
        assert said.count("test accuracy") == 1  # the first process alone speaks
    kept = torch.load(one / "step0", weights_only=True)
    first, second = (torch.load(two / f"step{rank}", weights_only=True) for rank in range(2))
    assert torch.equal(torch.cat([first["y"], second["y"]]), kept["y"])
    assert_same(first["gradients"], second["gradients"])
    for name, gradient in kept["gradients"].items():
        error = (gradient - first["gradients"][name]).abs().max() / gradient.abs().max()
        assert error < 1e-4, name
    for name, value in kept["model"].items():
        if "running" in name:
            assert torch.allclose(value, first["model"][name], rtol=1e-4, atol=1e-5), name
    logs = [read_csv(folder / "log.csv") for folder in (one, two)]
    assert [row["epoch"] for row in logs[1]] == ["1", "2", "3"]
    for column in ("train_loss", "val_loss"):
        first_epoch = [float(log[0][column]) for log in logs]
        assert first_epoch[0] == pytest.approx(first_epoch[1], rel=0.02)
    assert json.loads((two / "configuration.json").read_text())["options"]["processes"] == 2
    assert {path.name for path in two.iterdir()} == WRITTEN - {"curves.png"} | {"step0", "step1"}
    assert main([*SPEEDRUN, "--output-dir", str(two), "--resume"]) == 0  # one process reads what two have written


def die(*_):
    if pytorch_device.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def train_as(tell, rank, port, folder, run=RUN, act=None):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}  # as torchrun sets them
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return train(tell, folder, run, EPOCH + 2 if act else 0, act)


def train_together(folder, *options):
    """The exit statuses of two processes that train by RUN, and what each wrote to stderr."""
    stderr = [folder.with_name(f"stderr{rank}") for rank in range(2)]
    for path in stderr:
        path.unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = [*RUN, *options]
    with (
        Child(train_as, 0, port, folder, run, stderr=stderr[0]) as first,
        Child(train_as, 1, port, folder, run, stderr=stderr[1]) as second,
    ):
        return [child.exit_status() for child in (first, second)], [path.read_text() for path in stderr]


def test_several_processes_of_a_run_share_its_folder_and_a_second_run_is_one_clear_line(tmp_path):
    folder = tmp_path / "run"
    assert train_together(folder)[0] == [0, 0]
    before = (folder / "last.pt").read_bytes()
    with files.locked(folder):
        statuses, said = train_together(folder, "--resume")
    assert statuses == [1, 1]
    assert said == [f"{folder} is in use by another run; wait for its end, or choose another --output-dir\n", ""]
    statuses, said = train_together(folder)
    assert statuses == [1, 1]
    assert "use --resume to continue it" in said[0]
    assert said[0].count("\n") == 1
    assert said[1] == ""
    assert (folder / "last.pt").read_bytes() == before
    assert train_together(folder, "--resume")[0] == [0, 0]


def test_when_a_process_dies_the_other_ends_with_one_clear_line_and_the_run_can_be_resumed(tmp_path):
    folder, stderr = tmp_path / "run", tmp_path / "stderr"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        Child(train_as, 0, port, folder, RUN, die, stderr=stderr) as first,
        Child(train_as, 1, port, folder, RUN, die) as second,
    ):
        assert second.exit_status() == -signal.SIGKILL
        assert first.exit_status() == 1
    assert "Traceback" not in stderr.read_text()
    assert stderr.read_text().splitlines()[-1].startswith("Another process failed: ")
    assert files.load(folder / "last.pt", "cpu")["progress"]["epoch"] == 1
    assert main([*RUN, "--output-dir", str(folder), "--resume"]) == 0
    assert [row["epoch"] for row in read_csv(folder / "log.csv")] == ["1", "2", "3"]


def test_an_ablation_is_for_one_process(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pytorch_cifar10, "world_size", lambda: 2)
    assert main(["ablate", "--output-dir", str(tmp_path), "--device=cpu"]) == 1
    assert "ablate: wanted one process, got 2" in caplog.text


if __name__ == "__main__":
    status = train(print, Path(sys.argv[1]), SPEEDRUN, 1, keep_step)
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]  # Linux
    assert not any("gloo" in name for name in threads), f"the group is not at its end: {threads}"  # they can abort exit
    sys.exit(status)
