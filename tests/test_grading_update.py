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
from grading.reset import main as reset_main
from grading.reset import reset
from grading.session import Session
from grading.update import main as update_main
from grading.update import update

ROOT = Path(__file__).parent.parent
EXERCISES, _ = read()
NOTEBOOK = "notebooks/01_fully_connected_nets.ipynb"
OWN = (
    "out = x.reshape(len(x), -1) @ w + b\n    return out, _packed(x, w)\n\n\ndef _packed(*arrays):\n    return arrays\n"
)


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
    before, _, after = text.partition("    raise NotImplementedError(")
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
        "data/errata.md": lambda text: "errata\n",
    })  # fmt: skip
    lines = list(update(copy, new))
    assert sorted(line.split(":")[0].split()[:2] for line in lines) == [
        ["merged", "README.md"], ["merged", "cs231n/layers.py"], ["new", "data/errata.md"],
        ["removed", "environment.yml"], ["replaced", "cs231n/utils.py"], ["replaced", "grading/checks/layers.py"],
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


def test_an_update_that_was_interrupted_goes_on(copy, corrected, monkeypatch):
    layers = copy / "cs231n/layers.py"
    layers.write_text(in_affine_forward(layers.read_text(), OWN))
    changes = {"cs231n/layers.py": replace("an affine map", "a map"), "cs231n/utils.py": lambda text: f"{text}# new\n"}
    new, replace_file, left = corrected(**changes), os.replace, iter([True, True, False])

    def interrupted(*args):
        if not next(left):
            raise KeyboardInterrupt
        replace_file(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(update(copy, new))
    assert list(update(copy, new)) == ["yours     cs231n/layers.py", "replaced  cs231n/utils.py"]
    assert OWN in layers.read_text()
    assert "Apply a map" in layers.read_text()
    assert list(update(copy, new)) == []


def test_where_both_changed_the_same_place_the_learners_is_kept_and_the_new_one_is_beside_it(copy, corrected):
    (copy / "LICENSE").write_text("mine\n")
    (copy / "data/extra.md").write_text("mine\n")
    new = corrected(LICENSE=lambda text: "new\n", **{"data/extra.md": lambda text: "new\n"})
    lines = list(update(copy, new))
    assert ["LICENSE.new" in line or "extra.md.new" in line for line in lines] == [True, True]
    for name in ("LICENSE", "data/extra.md"):
        assert (copy / name).read_text() == "mine\n"
        assert (copy / f"{name}.new").read_text() == "new\n"


def test_a_module_that_is_no_python_yet_is_kept_and_its_line_is_named(copy, corrected):
    layers = copy / "cs231n/layers.py"
    layers.write_text("def (:\n")
    (line,) = update(copy, corrected(**{"cs231n/layers.py": lambda text: f"{text}# new\n"}))
    assert "layers.py.new beside it: line 1 of yours is not Python" in line
    assert layers.read_text() == "def (:\n"


def test_line_ends_and_a_bom_are_no_change(copy, corrected):
    for name in ("cs231n/utils.py", "README.md"):
        (copy / name).write_bytes(b"\xef\xbb\xbf" + (copy / name).read_bytes().replace(b"\n", b"\r\n"))
    lines = list(update(copy, corrected(**{"cs231n/utils.py": lambda text: f"{text}# new\n"})))
    assert [line.split() for line in lines] == [["replaced", "cs231n/utils.py"]]


@pytest.mark.parametrize("name", ["no.zip", "other.zip", "text.zip"])
def test_what_is_no_edition_is_refused_in_one_line(copy, tmp_path, name):
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        zipped.writestr("a/b.txt", "")
    before = texts(copy)
    with pytest.raises(ValueError, match="expected the zip of an edition"):
        list(update(copy, tmp_path / name))
    assert texts(copy) == before


# --- notebooks ---


def as_saved(notebook, by):
    """The bytes of a notebook, as a program saves it."""
    if by == "jupyter":
        return nbformat.writes(notebook).encode()
    notebook = json.loads(nbformat.writes(notebook))
    for cell in notebook["cells"]:
        name = cell.pop("id")
        if by == "colab":
            cell["metadata"]["id"] = f"x{name[::-1]}"
        if by in ("colab", "vs code"):
            cell["source"] = "".join(cell["source"])
    notebook["nbformat_minor"] = 0 if by == "colab" else 2
    if by == "colab":
        notebook["metadata"] = {"colab": {"provenance": []}, "kernelspec": notebook["metadata"]["kernelspec"]}
    if by == "format 3":
        with_ids = nbformat.reads(json.dumps(notebook), 4)
        return nbformat.writes(nbformat.convert(with_ids, 3), 3).encode()
    text = json.dumps(notebook, indent=1)
    return text.replace("\n", "\r\n").encode("utf-8-sig") if by == "windows" else text.encode()


@pytest.mark.parametrize("by", ["jupyter", "colab", "vs code", "windows", "older jupyter", "format 3"])
def test_in_notebooks_answers_and_own_cells_stay_whatever_saved_them(copy, corrected, by):
    given = read_notebook((copy / NOTEBOOK).read_bytes())
    notebook = read_notebook((copy / NOTEBOOK).read_bytes())
    answer = next(i for i, cell in enumerate(notebook.cells) if "*Your answer:*" in cell.source)
    notebook.cells[answer].source = notebook.cells[answer].source.replace(
        "*Your answer:*", "*Your answer:* Because.", 1
    )
    notebook.cells.insert(5, nbformat.v4.new_code_cell("mine = 1"))
    (copy / NOTEBOOK).write_bytes(as_saved(notebook, by))
    heading, question = given.cells[0].source, given.cells[answer].source.split("\n")[0]

    def change(text):
        new = nbformat.reads(text, 4)
        new.cells[0].source = f"{heading}\n\nCorrected."
        new.cells[answer].source = new.cells[answer].source.replace(question, f"{question} Corrected.")
        new.cells.insert(6, nbformat.v4.new_markdown_cell("A new cell.", id="new-cell"))
        return nbformat.writes(new) + "\n"

    new = corrected(**{NOTEBOOK: change})
    (line,) = update(copy, new)
    assert line.startswith(f"merged    {NOTEBOOK}")
    assert ".new" not in line
    merged = nbformat.read(copy / NOTEBOOK, 4)
    nbformat.validate(merged)
    sources = [cell.source for cell in merged.cells]
    assert len(sources) == len(given.cells) + 2
    assert sources[0] == f"{heading}\n\nCorrected."
    assert sources.index("mine = 1") == 5
    assert "A new cell." in sources
    (answered,) = [source for source in sources if "Because." in source]
    assert f"{question} Corrected." in answered
    assert [s for s in sources if s.startswith("%grade")] == [c.source for c in given.cells if c.source[:6] == "%grade"]
    assert list(update(copy, new)) == []


def test_a_cell_in_which_both_changed_the_same_line_is_kept_and_named(copy, corrected):
    notebook = nbformat.read(copy / NOTEBOOK, 4)
    notebook.cells[0].source = "Mine."
    nbformat.write(notebook, copy / NOTEBOOK)

    def change(text):
        new = nbformat.reads(text, 4)
        new.cells[0].source, new.cells[1].source = "New.", "Corrected."
        return nbformat.writes(new) + "\n"

    (line,) = update(copy, corrected(**{NOTEBOOK: change}))
    assert notebook.cells[0].id in line
    assert f"{Path(NOTEBOOK).name}.new" in line
    assert [cell.source for cell in nbformat.read(copy / NOTEBOOK, 4).cells[:2]] == ["Mine.", "Corrected."]


def cells(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s, id=s.split()[0]) for s in sources])


def test_cells_that_one_side_removed_and_the_other_changed_are_not_lost():
    base, mine, new = cells("a", "b", "c"), cells("a", "b changed", "d mine"), cells("a", "c changed", "e new")
    merged, kept = merge_notebook(base, mine, new)
    assert sorted(cell.source for cell in merged.cells) == ["a", "b changed", "c changed", "d mine", "e new"]
    assert kept == []


def test_a_damaged_notebook_is_kept(copy, corrected):
    (copy / NOTEBOOK).write_text("{")
    (line,) = update(copy, corrected(**{NOTEBOOK: replace("%grade 1.1", "%grade  1.1")}))
    assert "cannot be read as a notebook" in line
    assert (copy / NOTEBOOK).read_text() == "{"


# --- merging ---


def test_a_merge_takes_what_one_side_changed():
    assert merge("abcde", "aXbcde", "abcdYe") == list("aXbcdYe")
    assert merge("abcde", "acde", "abcdef") == list("acdef")
    assert merge("abc", "aXc", "aXc") == list("aXc")
    with pytest.raises(Conflict):
        merge("abc", "aXc", "aYc")
    assert merge("abc", "aXc", "aYc", keep_mine=True) == list("aXc")


def test_a_function_that_the_learner_wrote_stays_even_where_the_new_edition_has_none():
    base = 'class A:\n    def f(self):\n        """Doc."""\n        raise NotImplementedError\n\n\nx = 1\n'
    mine = base.replace("raise NotImplementedError", "return 7")
    other_stub = base.replace("NotImplementedError", "NotImplementedError('do it')").replace("Doc.", "New.")
    assert merge_module(base, mine, other_stub, ["A.f"]) == mine.replace("Doc.", "New.")
    with pytest.raises(Conflict):
        merge_module(base, mine, "x = 1\n", ["A.f"])


# --- one exercise put back ---


def test_an_exercise_is_put_back_and_the_old_text_is_kept(copy):
    layers, given = copy / "cs231n/layers.py", (copy / "cs231n/layers.py").read_text()
    written = in_affine_forward(given, OWN)
    layers.write_text(written)
    (line,) = reset(copy, EXERCISES["1.2"])
    assert line == "cs231n/layers.py has nothing to reset"
    (line,) = reset(copy, EXERCISES["1.1"])
    assert "affine_forward and affine_backward as given" in line
    assert "exercise 1.1 is open: affine_forward" in layers.read_text()
    assert "def _packed" in layers.read_text()
    assert (copy / "cs231n/layers.py.before-reset-1.1").read_text() == written
    layers.write_text(written + "# again\n")
    list(reset(copy, EXERCISES["1.1"]))
    assert (copy / "cs231n/layers.py.before-reset-1.1").read_text() == written
    assert (copy / "cs231n/layers.py.before-reset-1.1-2").read_text() == written + "# again\n"


def test_a_method_and_a_function_that_is_no_python_are_put_back(copy):
    solver = copy / "cs231n/trainer.py"
    given = solver.read_text()
    start = given.index("    def check_accuracy(")
    end = given.index("\n\n", given.index("NotImplementedError", start)) + 1
    solver.write_text(f"{given[:start]}    def check_accuracy(self, X, y:\n        return (\n\n{given[end:]}")
    list(reset(copy, EXERCISES["1.9"]))
    assert solver.read_text().replace("\n\n", "\n") == given.replace("\n\n", "\n")


def test_without_the_record_nothing_is_reset(copy):
    (copy / "grading/given.zip").unlink()
    with pytest.raises(ValueError, match="the record of what was given"):
        list(reset(copy, EXERCISES["1.1"]))


# --- the commands, in the edition ---


def test_the_command_runs_whatever_the_learners_modules_hold(copy, corrected):
    new = corrected(**{"cs231n/utils.py": lambda text: f"{text}# new\n"})
    (copy / "cs231n/layers.py").write_text("no Python\n")
    command = [sys.executable, "-m", "grading.update", str(new)]
    done = subprocess.run(
        command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("replaced  cs231n/utils.py\nThis folder has the new edition.\n", "")


def test_the_commands_say_what_they_did(copy, corrected, capsys, monkeypatch):
    monkeypatch.setattr("grading.update.ROOT", copy)
    monkeypatch.setattr("grading.reset.ROOT", copy)
    update_main([str(corrected())])
    reset_main(["1.1"])
    assert capsys.readouterr().out == ("This folder has this edition already.\ncs231n/layers.py has nothing to reset\n")
    for main, word, hint in ((update_main, "", "expected the zip of an edition"), (reset_main, "9.9", "one of 1.1")):
        with pytest.raises(SystemExit):
            main([word])
        assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "command"),
    [("update FROM=a\\ b.zip", 'grading.update "a b.zip"'), ("reset EXERCISE=2.3", 'grading.reset "2.3"')],
)
def test_the_makefile_runs_the_commands(edition, target, command):
    said = subprocess.run(["sh", "-c", f"make -n {target}"], cwd=edition, capture_output=True, text=True).stdout
    assert command in said


# --- what counts where it is handed in ---


def test_given_modules_count_as_given_and_a_change_is_named(copy):
    assert edited(copy) == []
    (copy / "cs231n/arguments.py").write_text("raise SystemExit\n")
    layers = copy / "cs231n/layers.py"
    layers.write_text(in_affine_forward(layers.read_text(), "import cs231n.arguments\n    " + OWN))
    with Session() as session:
        assert [r.earned for r in grade_own(EXERCISES["1.1"], session, copy)] == [1, 0]
    assert edited(copy) == ["cs231n/arguments.py"]
    assert given_files(ROOT) == {}
