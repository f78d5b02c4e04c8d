"""The table of what each idea of speedrun adds."""

import csv
import os
import statistics
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from cs231n import pytorch_ablation, pytorch_data
from cs231n.pytorch_ablation import ablate, variants
from cs231n.pytorch_cifar10 import main
from cs231n.pytorch_files import locked
from cs231n.pytorch_recipes import ABLATIONS, ADDITIONS, PRESETS, Speedrun

TINY = Speedrun(epochs=1, batch_size=16, widths=(2, 2), train_images=32, seed=5)
VARIANTS = variants(TINY)
COLUMNS = ["variant", "preset", "measured_on", "n", "mean", "std", "target", "share_at_target", "p"]

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (48, 3, 32, 32), np.uint8), rng.integers(0, 10, 48)
    monkeypatch.setattr(pytorch_data, "VALIDATION", 16)
    monkeypatch.setattr(pytorch_data, "read_images", lambda data_dir: ("CIFAR-10", "abcdefghij", (x, y, x[:8], y[:8])))
    monkeypatch.setattr(os, "fsync", lambda _: None)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(monkeypatch):
    """Runs that take no time: (recipe, accuracy, seconds) of each."""
    made = []

    class FakeTraining:
        compiled: ClassVar = []

        def __init__(self, recipe, train, val, folder, compiled, graphed):
            made.append((recipe, 0.01 * (len(made) ** 2 % 31), 1.0 + len(made)))
            self.compiled.append(compiled)
            self.history = [{"val_acc": 0.0, "training_seconds": 0.0}]

        def run(self):
            self.history.append(dict(zip(("val_acc", "training_seconds"), made[-1][1:], strict=True)))

    monkeypatch.setattr(pytorch_ablation, "Training", FakeTraining)
    return made


def test_an_idea_is_left_out_where_the_recipe_has_it_and_added_where_it_lacks_it():
    assert next(iter(VARIANTS)) == "as it is"
    assert VARIANTS["without muon"] == replace(TINY, muon=False)
    assert VARIANTS["with cutout"] == replace(TINY, cutout=6)
    assert sum(name.startswith("with ") for name in VARIANTS) == len(ADDITIONS)
    largest = variants(Speedrun(**PRESETS["speedrun"]["96"]))
    assert largest["without cutout"].cutout == 0
    assert largest["without blocks in the first stage"].blocks == (0, 1)
    for found in (VARIANTS, largest):
        assert len(set(found.values())) == len(found) == 1 + len(ABLATIONS)


def test_each_idea_is_left_out_in_turn_with_each_seed(runs, tmp_path):
    ablate(TINY, 2, None, tmp_path, "cpu")
    wanted = [replace(variant, seed=seed) for seed in (5, 6) for variant in VARIANTS.values()]
    assert [recipe for recipe, *_ in runs] == wanted
    ablate(TINY, 1, None, tmp_path / "compiled", "cpu", compiled=True)
    assert pytorch_ablation.Training.compiled == [False] * 2 * len(VARIANTS) + [True] * len(VARIANTS)


def test_the_table_has_mean_and_standard_deviation_of_the_last_epochs(runs, tmp_path):
    rows = ablate(TINY, 3, None, tmp_path, "cpu")
    written = rows_of(tmp_path / "ablation.csv")
    assert list(written[0])[:9] == COLUMNS
    assert {row["measured_on"] for row in rows} == {"validation"}
    assert [row["variant"] for row in written] == list(VARIANTS)
    for i, row in enumerate(rows):
        accuracies, seconds = zip(*((acc, s) for _, acc, s in runs[i :: len(VARIANTS)]), strict=True)
        assert row["n"] == 3
        assert row["mean"] == pytest.approx(statistics.mean(accuracies))
        assert row["std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert row["training_seconds"] == pytest.approx(np.mean(seconds))
        assert {key: str(value) for key, value in row.items()} == written[i]


def test_the_table_grows_with_each_run(runs, tmp_path, monkeypatch):
    seen = []
    write_csv = pytorch_ablation.write_csv
    monkeypatch.setattr(
        pytorch_ablation, "write_csv", lambda path, rows: (seen.append([r["n"] for r in rows]), write_csv(path, rows))
    )
    ablate(TINY, 2, None, tmp_path, "cpu")
    assert seen[0] == [1]
    assert seen[len(VARIANTS) - 1] == [1] * len(VARIANTS)
    assert seen[len(VARIANTS)] == [2] + [1] * (len(VARIANTS) - 1)
    assert rows_of(tmp_path / "ablation.csv")[0]["n"] == "2"


def test_a_preset_is_named_in_the_table_and_an_ablation_needs_images_held_out(runs, tmp_path, small_data):
    settings = {"epochs": 1, "batch_size": 100, "widths": (8, 16), "train_images": 20}
    assert ablate(Speedrun(**settings), 1, None, tmp_path / "other", "cpu")[0]["preset"] == ""
    assert pytorch_ablation._preset(Speedrun(**PRESETS["speedrun"]["95"], seed=3)) == "95"
    with pytest.raises(ValueError, match="train_images: wanted some held out, to measure the accuracy, got 40"):
        ablate(replace(TINY, train_images=40), 1, None, tmp_path, "cpu")


def test_one_run_has_no_standard_deviation(runs, tmp_path):
    assert {row["std"] for row in ablate(TINY, 1, None, tmp_path, "cpu")} == {""}


def test_a_recipe_that_lacks_an_idea_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match=r"recipe: wanted one with all ideas but .*, got one without fast biases"):
        ablate(replace(TINY, bias_lr_factor=1.0), 1, None, tmp_path, "cpu")
    with pytest.raises(ValueError, match="seeds: wanted a whole number of at least 1, got 0"):
        ablate(TINY, 0, None, tmp_path, "cpu")
    assert runs == []


def test_the_command_line_trains_without_each_idea_and_reads_no_test_set(tmp_path, monkeypatch):
    seen = []
    batches = pytorch_data.Images.batches
    monkeypatch.setattr(pytorch_data.Images, "batches", lambda self, n: (seen.append(len(self)), *batches(self, n))[1:])
    settings = ["--epochs=1", "--batch-size=16", "--widths", "2", "2", "--train-images=32", "--device=cpu"]
    assert main(["ablate", *settings, "--seeds=1", "--output-dir", str(tmp_path)]) == 0
    rows = rows_of(tmp_path / "ablation.csv")
    assert [(row["variant"], row["n"]) for row in rows] == [(name, "1") for name in VARIANTS]
    assert all(0 <= float(row["mean"]) <= 1 and float(row["training_seconds"]) > 0 for row in rows)
    assert (tmp_path / "without-fast-biases-0" / "last.pt").exists()
    assert set(seen) == {16}  # of 8 test images, none


def test_an_earlier_ablation_is_kept_unless_overwrite_is_given(runs, tmp_path, caplog):
    argv = ["ablate", "--device=cpu", "--train-images=32", "--seeds=1", "--output-dir", str(tmp_path)]
    assert main(argv) == 0
    before = (tmp_path / "ablation.csv").read_bytes()
    assert main(argv) == 1
    says = f"{tmp_path} has {tmp_path / 'ablation.csv'} of an earlier run: use --overwrite, or another --output-dir"
    assert [record.message for record in caplog.records] == [says]
    assert ((tmp_path / "ablation.csv").read_bytes(), len(runs)) == (before, len(VARIANTS))
    assert main([*argv, "--overwrite"]) == 0
    assert len(runs) == 2 * len(VARIANTS)


def test_an_ablation_that_was_stopped_in_its_first_run_is_not_mixed_with_another(runs, tmp_path):
    best = tmp_path / "without-muon-6" / "best.pt"
    best.parent.mkdir()
    best.touch()
    ablate(TINY, 1, None, tmp_path / "other", "cpu")
    with pytest.raises(ValueError, match=r"without-muon-6/best\.pt of an earlier run"):
        ablate(TINY, 2, None, tmp_path, "cpu")
    ablate(TINY, 2, None, tmp_path, "cpu", overwrite=True)
    assert not best.exists()


@pytest.mark.parametrize("folder", [".", "without-muon-5"])
def test_an_ablation_writes_to_no_folder_that_is_in_use(runs, tmp_path, folder):
    with locked(tmp_path / folder), pytest.raises(ValueError, match="is in use by another run"):
        ablate(TINY, 1, None, tmp_path, "cpu")
    assert not (tmp_path / "without-muon-5" / "best.pt").exists()


def test_seeds_beyond_the_largest_are_refused_before_the_first_run(runs, tmp_path):
    with pytest.raises(ValueError, match="seed: wanted a whole number from 0"):
        ablate(replace(TINY, seed=2**63 - 1), 2, None, tmp_path, "cpu")
    assert runs == []


def test_ctrl_c_does_not_offer_to_resume(tmp_path, monkeypatch, caplog):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pytorch_ablation, "ablate", stop)
    assert main(["ablate", "--device=cpu", "--output-dir", str(tmp_path)]) == 130
    assert caplog.messages == ["Stopped by Ctrl-C."]


def test_a_wrong_ablation_is_one_clear_line(tmp_path, caplog):
    assert main(["ablate", "--no-whitening", "--output-dir", str(tmp_path)]) == 1
    (record,) = caplog.records
    assert "got one without whitening" in record.message
