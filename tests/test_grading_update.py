"""A corrected edition, and what it must leave alone in a learner's copy; and one exercise put back as it was given."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from grading.exercises import read
from grading.given import given_files
from grading.grade import edited, grade_own
from grading.instructor import student
from grading.merge import Conflict, merge, merge_module, merge_notebook, read_notebook
from grading.reset import reset
from grading.session import Session
from grading.update import update

ROOT = Path(__file__).parent.parent
EXERCISES, _ = read()
NOTEBOOK = "notebooks/01_fully_connected_nets.ipynb"
OWN = "out = x.reshape(len(x), -1) @ w + b\n    return out, _packed(x, w)\n\n\ndef _packed(*arrays):\n    return arrays\n"


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    """The edition, with fewer files than it has, and its zip."""
    out = tmp_path_factory.mktemp("edition") / "student"
    student.write(out)
    student.zip_folder(out, out.with_suffix(".zip"))
    return out


@pytest.fixture
def copy(edition, tmp_path):
    """A learner's copy."""
    return Path(shutil.copytree(edition, tmp_path / "copy"))


@pytest.fixture
def corrected(edition, tmp_path):
    """A function that writes the zip of a corrected edition: names, and what changes in each file."""

    def corrected(**changes):
        out = tmp_path / "new" / "student"
        shutil.copytree(edition, out)
        (out / "grading/given.zip").unlink()
        for name, change in changes.items():
            file = out / name
            text = change(file.read_text() if file.exists() else "")
            file.unlink() if text is None else file.write_text(text)
        student.zip_folder(out, out / "grading/given.zip")
        student.zip_folder(out, tmp_path / "new.zip")
        shutil.rmtree(out)
        return tmp_path / "new.zip"

    return corrected


def replace(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


def in_affine_forward(text, body):
    """layers.py with the body of affine_forward in place of its stub."""
    before, stub, after = text.partition("    raise NotImplementedError(")
    return before + "    " + body + after[after.index("\n    )\n") + 7 :]


def texts(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_the_learner_wrote_stays_and_what_was_corrected_arrives(copy, corrected):
    layers = copy / "cs231n/layers.py"
    layers.write_text("import itertools\n" + in_affine_forward(layers.read_text(), OWN))
    (copy / "cs231n/helpers.py").write_text("mine = 1\n")
    (copy / "README.md").write_text((copy / "README.md").read_text() + "My notes.\n")
    new = corrected(**{
        "cs231n/layers.py": replace("Apply an affine map to each example", "Map each example"),
        "cs231n/utils.py": lambda text: text + "# corrected\n",
        "grading/checks/layers.py": lambda text: text + "# corrected\n",
        "README.md": replace("## Start", "## Begin"),
        "environment.yml": lambda text: None,
        "docs/errata.md": lambda text: "errata\n",
    })  # fmt: skip
    lines = list(update(copy, new))
    assert sorted(line.split(":")[0].split()[:2] for line in lines) == [
        ["merged", "README.md"], ["merged", "cs231n/layers.py"], ["new", "docs/errata.md"], ["removed", "environment.yml"],
        ["replaced", "cs231n/utils.py"], ["replaced", "grading/checks/layers.py"],
    ]  # fmt: skip
    text = layers.read_text()
    assert text.startswith("import itertools\n")
    assert OWN in text
    assert "Map each example" in text
    assert "exercise 1.1 is open: affine_backward" in text
    assert (copy / "cs231n/helpers.py").read_text() == "mine = 1\n"
    assert (copy / "README.md").read_text().endswith("My notes.\n")
    assert "## Begin" in (copy / "README.md").read_text()
    assert "corrected" in (copy / "cs231n/utils.py").read_text()
    assert "affine map" in (copy / "cs231n/layers.py.before-update").read_text()
    before = texts(copy)
    assert list(update(copy, new)) == []
    assert texts(copy) == before
    with Session() as session:
        assert [r.earned for r in grade_own(EXERCISES["1.1"], session, copy)] == [1, 0]
