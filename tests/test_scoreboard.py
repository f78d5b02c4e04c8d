"""The scoreboard: what is recorded is shown, by data set; several writers lose nothing, and damage costs no run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cs231n import scoreboard
from cs231n.cifar10 import project_data_dir

ROOT = Path(__file__).resolve().parents[1]
CIFAR, SHAPES = {"name": np.array("CIFAR-10")}, {"name": "Shapes10"}


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(scoreboard, "FILE", tmp_path / "new/scoreboard.json")
    return scoreboard.FILE


def shown(capsys, data=CIFAR):
    """Row -> its other words, of the five that are shown."""
    assert scoreboard.show(data) is None
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.startswith(str(data["name"]))
    return {row[:18].strip(): row[18:].split() for row in rows}


def test_rows_that_were_not_run_say_so(capsys):
    assert shown(capsys) == {
        "fully connected": ["01", "not", "run", "yet"],
        "batch norm": ["02", "not", "run", "yet"],
        "dropout": ["03", "not", "run", "yet"],
        "convolutional": ["04", "not", "run", "yet"],
        "residual": ["05", "not", "run", "yet"],
    }


def test_a_result_is_shown_in_its_row_of_its_data_set(capsys):
    scoreboard.record("dropout", np.float32(0.5), 61.6, CIFAR)
    assert shown(capsys)["dropout"] == ["03", "50.0", "%", "62", "s"]
    assert shown(capsys)["batch norm"][-1] == "yet"
    assert shown(capsys, SHAPES)["dropout"][-1] == "yet"


def test_a_later_run_replaces_the_earlier_one_and_no_other(capsys):
    scoreboard.record("batch norm", 0.6, 10, CIFAR)
    scoreboard.record("residual", 0.9, 10, CIFAR)
    scoreboard.record("residual", 0.8, 20, CIFAR)
    assert (shown(capsys)["residual"], shown(capsys)["batch norm"][1]) == (["05", "80.0", "%", "20", "s"], "60.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Dropout", 0.5, 1), "name: wanted one of fully connected, batch norm, dropout, convolutional, residual, got"),
        (("dropout", 52.0, 1), "accuracy: wanted a number from 0 to 1, got 52.0"),
        (("dropout", 0.5, float("nan")), "seconds: wanted a number of at least 0, got nan"),
    ],
)
def test_what_cannot_be_is_named_and_not_recorded(arguments, message, file):
    with pytest.raises(ValueError, match=f"^{message}"):
        scoreboard.record(*arguments, CIFAR)
    assert not file.exists()


def test_two_processes_lose_nothing(file, capsys):
    code = """
import sys
from pathlib import Path
from cs231n import scoreboard
scoreboard.FILE = Path(sys.argv[1])
for i in range(20):
    scoreboard.record(sys.argv[2], 0.5, 1, {"name": f"set {i}"})
"""
    names = ("dropout", "residual")
    children = [subprocess.Popen([sys.executable, "-c", code, file, name], cwd=ROOT) for name in names]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    for i in range(20):
        rows = shown(capsys, {"name": f"set {i}"})
        assert [rows[name][1] for name in names] == ["50.0", "50.0"]


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b"[]", b'{"CIFAR-10": 3}', b'{"CIFAR-10": {"dropout": {"accuracy": "high"}}}']
)
def test_a_damaged_file_is_said_and_replaced(content, file, capsys, caplog):
    file.parent.mkdir()
    file.write_bytes(content)
    assert shown(capsys)["dropout"][-1] == "yet"
    assert "scoreboard.json is damaged, and counts as empty" in caplog.text
    scoreboard.record("dropout", 0.5, 1, CIFAR)
    assert shown(capsys)["dropout"][1] == "50.0"


def test_a_folder_that_cannot_be_written_costs_no_run(file, caplog):
    file.parent.write_text("a file in the place of the folder")
    scoreboard.record("dropout", 0.5, 1, CIFAR)
    assert "could not be written, and dropout is not on it" in caplog.text


def test_it_is_kept_in_the_project_whatever_folder_holds_the_data(monkeypatch):
    monkeypatch.setenv("CS231N_DATA_DIR", "/shared")
    assert project_data_dir() == ROOT / "data"
