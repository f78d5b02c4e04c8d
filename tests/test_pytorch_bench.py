"""The benchmark of presets: what it runs, its table, and that it goes on after an interruption."""

from types import SimpleNamespace

import pytest
import torch
from test_pytorch_cifar10 import use_small_data
from test_pytorch_data import bytes_and_labels
from torch.profiler import ProfilerActivity, profile

from cs231n import pytorch_bench
from cs231n.files import read_csv, write_csv
from cs231n.pytorch_bench import (
    device_seconds,
    gpu_busy,
    markdown,
    recipes,
    surroundings,
    table_row,
    tail_of_student_t,
)
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_data import Images
from cs231n.pytorch_recipes import PRESETS, Classic, Speedrun
from cs231n.pytorch_training import Training

COLUMNS = "preset measured_on n mean std target share_at_target p training_seconds whole_seconds gpu_busy data device"

pytestmark = pytest.mark.usefixtures("fast_disk", "one_torch_thread")


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    use_small_data(monkeypatch.setattr)


@pytest.fixture
def one_commit(monkeypatch):
    """The same commit in several runs, whatever is committed meanwhile."""
    monkeypatch.setattr(pytorch_bench, "_commit", lambda: "0123abc")


@pytest.fixture
def seeds(monkeypatch):
    """The seeds of the runs that train."""
    found, run = [], Training.run
    monkeypatch.setattr(
        Training, "run", lambda self, **settings: (found.append(self.recipe.seed), run(self, **settings))
    )
    return found


def bench(folder, *options):
    argv = ["bench", "--presets", "tiny", "--train-images=48", "--device=cpu", "--output-dir", str(folder), *options]
    return main(argv)


def test_a_benchmark_trains_tests_and_writes_its_table(tmp_path, caplog):
    caplog.set_level("INFO")
    before = surroundings(torch.device("cpu"))
    assert bench(tmp_path, "--seeds=2") == 0
    after = surroundings(torch.device("cpu"))
    runs, (row,) = read_csv(tmp_path / "runs.csv"), read_csv(tmp_path / "bench.csv")
    assert [(run["preset"], run["seed"]) for run in runs] == [("tiny", "0"), ("tiny", "1")]
    assert list(row) == [*COLUMNS.split(), "torch", "cuda", "python", "commit", "date"]
    assert (row["preset"], row["measured_on"], row["n"], row["target"]) == ("tiny", "test", "2", "")
    assert float(row["mean"]) == pytest.approx(sum(float(run["accuracy"]) for run in runs) / 2)
    assert 0 < float(row["training_seconds"]) < float(row["whole_seconds"])
    assert (row["data"], row["gpu_busy"]) == ("CIFAR-10", "")
    assert all(row[key] in (before[key], after[key]) for key in before)  # a commit, or midnight, may come in between
    table = (tmp_path / "bench.md").read_text()
    assert table.splitlines()[0] == f"| {' | '.join(row)} |"
    assert table in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"runs.csv", "bench.csv", "bench.md", ".lock"}


def test_a_benchmark_goes_on_after_an_interruption(seeds, one_commit, tmp_path, monkeypatch):
    evaluate = Training.evaluate

    def stop(training, images):
        if training.recipe.seed == 1:
            raise KeyboardInterrupt
        return evaluate(training, images)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "evaluate", stop)
        assert bench(tmp_path, "--seeds=3") == 130
    first = read_csv(tmp_path / "runs.csv")
    assert (seeds, len(first)) == ([0, 1], 1)
    assert bench(tmp_path, "--seeds=3") == 0
    assert seeds == [0, 1, 1, 2]
    assert read_csv(tmp_path / "runs.csv")[:1] == first
    assert read_csv(tmp_path / "bench.csv")[0]["n"] == "3"
    assert bench(tmp_path, "--seeds=3") == 0
    assert len(seeds) == 4


def test_runs_by_other_settings_or_another_version_are_not_mixed(seeds, one_commit, tmp_path, caplog):
    assert bench(tmp_path, "--seeds=1") == 0
    assert bench(tmp_path, "--seeds=2", "--no-graph") == 1
    assert "the runs of tiny were made with another settings" in caplog.text
    write_csv(tmp_path / "runs.csv", [run | {"torch": "1.0"} for run in read_csv(tmp_path / "runs.csv")])
    assert bench(tmp_path, "--seeds=2") == 1
    assert caplog.messages[-1].endswith("the runs of tiny were made with another torch; use another --output-dir")
    assert seeds == [0]


def test_presets_named_after_a_target_train_on_all_images_unless_told_otherwise():
    found = recipes(["94", "96", "tiny", "classic"])
    assert found["94"] == Speedrun(train_images=50_000)
    assert found["96"] == Speedrun(**PRESETS["speedrun"]["96"], train_images=50_000)
    assert (found["tiny"].train_images, found["classic"]) == (2000, Classic())
    assert recipes(["95", "classic"], 45_000)["95"].train_images == 45_000


def test_a_row_worked_by_hand():
    runs = [{"accuracy": a, "training_seconds": s, "whole_seconds": 4} for a, s in ((0.95, 1.0), ("0.93", "3.0"))]
    runs.append({"accuracy": 0.94, "training_seconds": 2.0, "whole_seconds": 4.0})
    for run, busy in zip(runs, (0.9, "0.7", ""), strict=True):
        run["gpu_busy"] = busy
    row = table_row("94", "test", runs, {"device": "card"})
    assert (row["mean"], row["std"], row["share_at_target"]) == pytest.approx((0.94, 0.01, 2 / 3))
    assert (row["p"], row["training_seconds"], row["whole_seconds"]) == pytest.approx((0.5, 2.0, 4.0))
    assert (row["n"], row["device"], row["gpu_busy"]) == (3, "card", pytest.approx(0.8))
    single = table_row("94", "test", runs[:1], {})
    assert (single["std"], single["p"], single["share_at_target"]) == ("", "", 1.0)
    line = markdown([row]).splitlines()[2]
    assert line == "| 94 | test | 3 | 94.00 % | 1.00 % | 94.00 % | 66.67 % | 0.5 | 2.00 | 4.00 | 80.00 % | card |"


def event(microseconds, device_type, is_user_annotation=False):
    return SimpleNamespace(
        self_device_time_total=microseconds,
        device_type=getattr(torch.autograd.DeviceType, device_type),
        is_user_annotation=is_user_annotation,
    )


def test_the_time_of_a_gpu_is_that_of_its_own_events():
    events = [event(3e5, "CUDA"), event(2e5, "CUDA"), event(7e5, "CPU"), event(9e5, "CUDA", is_user_annotation=True)]
    assert device_seconds(events) == pytest.approx(0.5)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        torch.ones(9).sum()
    assert len(profiled.events()) > 0
    assert device_seconds(profiled.events()) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_busy_for_a_part_of_each_step():
    training = Training(Speedrun(batch_size=16, widths=(8,)), Images(*bytes_and_labels(48), "cuda"), None, None)
    training.run(verbose=False)
    assert 0 < gpu_busy(training) < 1.1


@pytest.mark.parametrize(
    ("t", "df", "tail"),  # from a printed table of Student's t
    [(0, 4, 0.5), (1, 1, 0.25), (2.262, 9, 0.025), (1.833, 9, 0.05), (-1.833, 9, 0.95), (3.365, 5, 0.01)],
)
def test_the_tail_of_students_t_is_the_tables(t, df, tail):
    assert tail_of_student_t(t, df) == pytest.approx(tail, abs=2e-5)


def test_a_wrong_benchmark_is_one_clear_line(tmp_path, caplog, monkeypatch):
    assert bench(tmp_path, "--seeds=0") == 1
    assert caplog.messages == ["seeds: wanted a whole number of at least 1, got 0"]
    assert bench(tmp_path, "--train-images=105") == 1
    assert "train_images: wanted a whole number from 1 to 104, got 105" in caplog.text
