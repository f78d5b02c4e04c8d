"""A corrected edition reaches a learner's copy, and an exercise is opened again; what the learner wrote is kept."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import nbformat
import pytest
from hypothesis import given as given_examples
from hypothesis import strategies as st

from grading import edition, merge, notebooks, reset, update
from grading.exercises import read
from grading.grade import edited, grade_own
from grading.instructor import student
from grading.session import Session

EXERCISES, _ = read()
SOLVED = "    return np.maximum(x, 0), x  # mine\n"
QUESTION = "02_batch_normalization.ipynb"


@pytest.fixture(scope="module")
def given(edition):
    """The edition, by a name that no module here has."""
    return edition


@pytest.fixture
def copy(given, tmp_path, fast_disk):
    """A learner's copy of the edition."""
    return shutil.copytree(given, tmp_path / "copy")


@pytest.fixture
def new(given, tmp_path):
    """A corrected edition; the test corrects it."""
    return shutil.copytree(given, tmp_path / "new")


def change(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def solve_relu(copy):
    text = merge.parts((copy / "cs231n/layers.py").read_text())["relu_forward"]
    change(copy / "cs231n/layers.py", text[text.index("    raise NotImpl") :], f"{SOLVED}\n\n")


def zipped(folder):
    student.zip_folder(folder, folder.with_suffix(".zip"))
    return folder.with_suffix(".zip")


def run(copy, source):
    return list(update.update(copy, source))


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- update ---


@pytest.mark.parametrize("pack", [zipped, lambda folder: folder], ids=["zip", "folder"])
def test_a_correction_arrives_and_what_the_learner_wrote_stays(copy, new, pack):
    solve_relu(copy)
    change(copy / "cs231n/layers.py", "import numpy as np\n", "import numpy as np\n\nHELPER = 1\n")
    (copy / "cs231n/my_helpers.py").write_text("def helper(): ...\n")
    text = (copy / "cs231n/layers.py").read_text()
    change(new / "cs231n/layers.py", "Apply an affine map", "Apply a corrected map")
    (new / "grading/checks/added.py").write_text("# new\n")
    change(new / "README.md", "# cs231n", "# Corrected: cs231n")
    lines = run(copy, pack(new))
    assert (copy / "cs231n/layers.py").read_text() == text.replace("Apply an affine map", "Apply a corrected map")
    assert (copy / "cs231n/my_helpers.py").read_text() == "def helper(): ...\n"
    assert (copy / "README.md").read_bytes() == (new / "README.md").read_bytes()
    assert sorted(line.split()[:2] for line in lines) == [
        ["merged", "cs231n/layers.py:"], ["new", "grading/checks/added.py"], ["replaced", "README.md"],
    ]  # fmt: skip
    assert (copy / "cs231n/layers.py.before-update").read_text() == text
    before = tree(copy)
    assert run(copy, pack(new)) == []
    assert tree(copy) == before


def test_what_both_changed_is_named_and_the_learners_is_kept_with_the_new_one_beside_it(copy, given, new):
    for side in (copy, new):
        change(side / "cs231n/layers.py", "Rectify each element", f"Rectify, says {side.name}")
        file = side / "notebooks" / QUESTION
        notebook = notebooks.read(file.read_bytes())
        notebook.cells[0].source, notebook.cells[-1].source = f"Of {side.name}.", "The same."
        file.write_bytes(notebooks.write(notebook))
    (copy / "cs231n/layers.py.new").write_text("of another time")
    before = tree(copy)
    for _ in range(2):  # the record as it was, as if the first call had been interrupted
        shutil.copy(given / edition.RECORD, copy / edition.RECORD)
        code, cells = run(copy, new)
        assert "changed relu_forward; yours is kept, compare with layers.py.new-2" in code
        assert f"changed {notebook.cells[0].id}; yours is kept, compare with {QUESTION}.new" in cells
    after = tree(copy)
    assert {path.name for path in before if after[path] != before[path]} == {"given.zip"}
    assert {path.name for path in after.keys() - before.keys()} == {"layers.py.new-2", f"{QUESTION}.new"}
    assert (copy / "cs231n/layers.py.new-2").read_bytes() == (new / "cs231n/layers.py").read_bytes()


LINES = st.lists(st.sampled_from(["", "a", "b", "c", "return"]), max_size=8)


def text(lines, own=""):
    return "".join(f"{line}{own}\n" for line in lines).encode()


@given_examples(LINES, st.data())
def test_a_merge_loses_no_line_of_the_learner_and_can_be_repeated(lines, data):
    def edited(own):
        start = data.draw(st.integers(0, len(lines)))
        end = data.draw(st.integers(start, len(lines)))
        return text(lines[:start]) + text(data.draw(LINES), own) + text(lines[end:])

    given, mine, new = text(lines), edited("_mine"), edited("_new")
    for name in ("file.md", "file.py"):
        merged, clashes = merge.merge_files(name, given, mine, new)
        assert merge.merge_files(name, given, merged, new) == (merged, clashes)
        assert merged.count(b"_mine") == mine.count(b"_mine")
        assert clashes or merged.count(b"_new") == new.count(b"_new")
        assert merge.merge_files(name, given, given, new) == (new, [])
        assert merge.merge_files(name, given, mine, given) == (mine, [])


@pytest.mark.parametrize(
    ("mine", "new", "merged"),
    [
        ("abxc", "abcd", "abxcd"),  # one's own cell, and a new one
        ("abxc", "cab", "cabx"),  # the edition moved a cell: one's own follows that before it
        ("cab", "abcd", "cdab"),  # the learner moved it
        ("ac", "abcd", "acd"),  # the learner removed a cell
        ("abc", "ac", "ac"),  # the edition did
        ("xabc", "xbc", "xbc"),
    ],
)
def test_the_order_of_cells_and_functions(mine, new, merged):
    def source(names):
        return "".join(f"def {name}():\n    return 1\n" for name in names)

    assert merge.merge_code(source("abc"), source(mine), source(new)) == (source(merged), [])


def test_a_new_wording_of_a_stub_does_not_matter_to_who_has_replaced_it(copy, new):
    solve_relu(copy)
    mine = (copy / "cs231n/layers.py").read_text()
    for part in ("relu_forward", "relu_backward"):
        text = merge.parts((new / "cs231n/layers.py").read_text())[part]
        change(new / "cs231n/layers.py", text, text.replace(" is open", " is still open"))
    (line,) = run(copy, new)
    assert line.startswith("merged ")
    text = merge.parts(mine)["relu_backward"]
    assert (copy / "cs231n/layers.py").read_text() == mine.replace(text, text.replace(" is open", " is still open"))


def test_a_file_with_a_syntax_error_or_windows_line_ends_is_merged_too(copy, new):
    solve_relu(copy)
    file = copy / "cs231n/layers.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"def unfinished(:\r\n")
    mine = file.read_bytes()
    change(new / "cs231n/layers.py", "Apply an affine map", "Apply a corrected map")
    (line,) = run(copy, new)
    assert line.startswith("merged ")
    assert file.read_bytes() == mine.replace(b"Apply an affine map", b"Apply a corrected map")


def test_a_removed_file_goes_and_a_lost_one_comes_back_but_none_of_the_learner_is_replaced(copy, new):
    for name in ("data/README.md", "environment.yml"):
        (new / name).unlink()
    change(copy / "environment.yml", "name:", "name: my-")
    (copy / "cs231n/utils.py").unlink()
    for side in (copy, new):
        (side / "cs231n/tricks.py").write_text(f"{side.name} = 1\n")
    lines = run(copy, new)
    assert [line.split()[:2] for line in lines] == [
        ["kept", "cs231n/tricks.py:"], ["replaced", "cs231n/utils.py"],
        ["removed", "data/README.md"], ["kept", "environment.yml:"],
    ]  # fmt: skip
    assert (copy / "cs231n/utils.py").read_bytes() == (new / "cs231n/utils.py").read_bytes()
    assert (copy / "cs231n/tricks.py").read_text() == "copy = 1\n"
    assert (copy / "cs231n/tricks.py.new").read_text() == "new = 1\n"


def test_an_update_that_is_interrupted_at_any_write_continues(copy, new, monkeypatch, tmp_path):
    solve_relu(copy)
    change(copy / "README.md", "# cs231n", "# Mine")
    for name, word in {"cs231n/layers.py": "Apply an affine", "README.md": "# cs231n", "Makefile": "# The"}.items():
        change(new / name, word, f"{word} corrected")
    whole = shutil.copytree(copy, tmp_path / "whole")
    run(whole, new)
    write = edition.write_bytes
    for allowed in range(5):  # Makefile, README.md.new, layers.py.before-update, layers.py, the record
        broken, left = shutil.copytree(copy, tmp_path / f"broken-{allowed}"), iter(range(allowed))

        def interrupted(path, content, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(edition, "write_bytes", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(broken, new)
        run(broken, new)
        assert tree(broken) == tree(whole)


def with_entry(new, name, kind=stat.S_IFREG):
    with zipfile.ZipFile(zipped(new), "a") as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    return new.with_suffix(".zip")


def of_other_exercises(new):
    file = new / edition.EXERCISES
    return file.write_text(file.read_text().replace('functions."', 'functions."other_')) and new


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (lambda new: with_entry(new, "new/../../out.py"), r"inside of the edition; got 'new/\.\./\.\./out\.py'"),
        (lambda new: with_entry(new, "new/link", stat.S_IFLNK), "inside of the edition; got 'new/link'"),
        (lambda new: (new / "cs231n/link.py").symlink_to("/etc/passwd") or new, "link.py: expected a file or a folder"),
        (lambda new: change(new / "pyproject.toml", '"cs231n"', '"cs9"') or new, "cs231n; got one of another course"),
        (of_other_exercises, "one of another course"),
        (lambda new: solve_relu(new) or new, "relu_forward in cs231n/layers.py is not"),
        (lambda new: os.truncate(zipped(new), 99_999) or new.with_suffix(".zip"), "a zip that can be read"),
        (lambda new: shutil.rmtree(new) or new.mkdir() or new, "there is no grading/exercises.toml"),
        (lambda new: new / "absent.zip", "No such file"),
        (lambda new: new.with_name("copy"), "this copy itself"),
        (lambda new: "", "expected FROM="),
        (lambda new: (new.with_name("copy") / edition.RECORD).unlink() or new, "what was given, .*; found none"),
    ],
)
def test_what_is_no_corrected_edition_is_refused_in_one_line(copy, new, source, why, capsys):
    source, before = str(source(new)), tree(copy)
    with pytest.raises(SystemExit) as stopped:
        update.main([source], root=copy)
    assert stopped.value.code == 2
    assert re.fullmatch(rf"make update: .*{why}.*\n", capsys.readouterr().err)
    assert tree(copy) == before


# --- notebooks ---


def learner(notebook):
    """Answer a question, add a cell, run one, and delete one."""
    answered = next(cell for cell in notebook.cells if "*Your answer:*" in cell.source)
    answered.source = answered.source.replace("*Your answer:*", "*Your answer:* because\n\nof this.")
    notebook.cells.insert(5, nbformat.v4.new_code_cell("my_own = 1", id="my-own"))
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="run")]
    del notebook.cells[8]


def as_jupyter(notebook):
    return nbformat.v4.writes(notebook).encode()


def as_colab(notebook):
    """Format 4.0, no ids, Colab's metadata, and sources as strings."""
    for cell in notebook.cells:
        del cell["id"]
        cell.metadata = {"id": f"x{abs(hash(cell.source))}", "colab": {"base_uri": "https://localhost/"}}
    whole = {**notebook, "nbformat_minor": 0, "metadata": {"colab": {"provenance": []}, "accelerator": "GPU"}}
    return json.dumps(whole).encode()


def as_windows(notebook):
    return b"\xef\xbb\xbf" + as_jupyter(notebook).replace(b"\n", b"\r\n")


def as_format_3(notebook):
    return nbformat.v3.writes_json(nbformat.convert(notebook, 3)).encode()


def with_odd_outputs(notebook):
    for i, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs, cell.execution_count = ([[{"output_type": "odd"}], None, [3]][i % 3], "7")
    return json.dumps(notebook).encode()


@pytest.mark.parametrize("saved", [as_jupyter, as_colab, as_windows, as_format_3, with_odd_outputs])
def test_answers_and_own_cells_stay_and_new_text_arrives_whatever_saved_the_notebook(copy, given, new, saved):
    file = copy / "notebooks" / QUESTION
    mine = notebooks.read(file.read_bytes())
    deleted = mine.cells[7]
    learner(mine)
    sources = [cell.source for cell in mine.cells]
    file.write_bytes(saved(mine))
    corrected = notebooks.read((new / "notebooks" / QUESTION).read_bytes())
    question = next(cell for cell in corrected.cells if "*Your answer:*" in cell.source)
    question.source = question.source.replace("*Question ", "*Corrected question ", 1)
    corrected.cells[0].source += "\n\nCorrected."
    corrected.cells.append(nbformat.v4.new_markdown_cell("A new end.", id="new-end"))
    (new / "notebooks" / QUESTION).write_bytes(notebooks.write(corrected))
    (line,) = run(copy, new)
    assert line.startswith("merged ")
    before, merged = file.read_bytes(), notebooks.read(file.read_bytes())
    wanted = [text.replace("*Question ", "*Corrected question ", 1) if "of this." in text else text for text in sources]
    assert [cell.source for cell in merged.cells] == [f"{wanted[0]}\n\nCorrected.", *wanted[1:], "A new end."]
    assert deleted.id not in {cell.id for cell in merged.cells}
    for record in (new, given):  # and once more, as if the first call had been interrupted before the record
        shutil.copy(record / edition.RECORD, copy / edition.RECORD)
        assert run(copy, new) == []
        assert file.read_bytes() == before
    if saved is not with_odd_outputs:
        nbformat.validate(merged)
        assert ["".join(cell.outputs[0].text) for cell in merged.cells if cell.get("outputs")] == ["run"]


def test_a_cell_that_one_side_removed_and_the_other_changed_stays_and_one_that_is_merged_has_no_outputs():
    def of_cells(*sources):
        output = nbformat.v4.new_output("stream", text="1")
        cells = [nbformat.v4.new_code_cell(source, id=source[0], outputs=[output]) for source in sources]
        return notebooks.write(nbformat.v4.new_notebook(cells=cells))

    mine = of_cells("a mine\n\nb", "b changed", "d mine")
    merged, clashes = merge.merge_notebooks(of_cells("a\n\nb", "b", "c"), mine, of_cells("a\n\nnew", "c changed"))
    outputs = {cell.source: len(cell.outputs) for cell in notebooks.read(merged).cells}
    assert outputs == {"a mine\n\nnew": 0, "b changed": 1, "d mine": 1, "c changed": 0}
    assert clashes == ["b"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"cells": 3, "nbformat": 4}', b"\xff", b'{"nbformat": 9}'])
def test_what_is_no_notebook_is_a_value_error_and_stays_as_it_is(copy, new, content):
    with pytest.raises(ValueError, match="expected a notebook"):
        notebooks.read(content)
    (copy / "notebooks" / QUESTION).write_bytes(content)
    change(new / "notebooks" / QUESTION, "The numbers inside a deep net", "The numbers in a deep net")
    (line,) = run(copy, new)
    assert line.startswith("kept ")
    assert (copy / "notebooks" / QUESTION).read_bytes() == content


@pytest.mark.parametrize(
    "notebook",
    [
        {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": ["1 +\n", " 1"]}]}]},
        {"nbformat": 4, "metadata": None, "cells": [{"cell_type": "code", "source": ["1 +\r\n", " 1"], "id": 5}]},
        {"nbformat": 4, "cells": [{"cell_type": "code", "source": "1 +\n 1", "outputs": None}]},
    ],
)
def test_a_notebook_that_lacks_fields_is_completed_the_same_way_each_time(notebook):
    content = json.dumps(notebook).encode()
    complete = notebooks.read(content)
    nbformat.validate(complete)
    assert [cell.source for cell in complete.cells] == ["1 +\n 1"]
    assert notebooks.read(content) == notebooks.read(notebooks.write(complete)) == complete


# --- reset ---


def test_reset_opens_one_exercise_and_never_overwrites_what_it_keeps(copy, given):
    file = copy / "cs231n/layers.py"
    change(file, "import numpy as np\n", "import numpy as np\n\nHELPER = 1\n")
    unsolved = file.read_text()
    for number, ending in enumerate(["before-reset-1.2", "before-reset-1.2-2"]):
        solve_relu(copy)
        change(file, "# mine", f"# mine {number}")
        solved = file.read_text()
        (line,) = reset.reset(copy, EXERCISES["1.2"])
        assert f"exercise 1.2 is open again; what you wrote is in layers.py.{ending}" in line
        assert file.read_text() == unsolved
        assert (copy / f"cs231n/layers.py.{ending}").read_text() == solved
    assert list(reset.reset(copy, EXERCISES["1.2"])) == ["cs231n/layers.py: exercise 1.2 is as it was given"]


def test_reset_finds_its_functions_in_a_file_that_does_not_run_and_restores_a_lost_one(copy):
    file = copy / "cs231n/layers.py"
    text = file.read_text()
    for before, after in ("def relu_forward(x):", "def relu_forward(x:"), (merge.parts(text)["relu_forward"], ""):
        change(file, before, after)
        list(reset.reset(copy, EXERCISES["1.2"]))
        assert file.read_text() == text


def test_every_exercise_can_be_reset(copy, given):
    """Methods too.  Each function is replaced by one with a nested function, which goes."""
    for exercise in EXERCISES.values():
        for function in exercise.functions:
            module, name = function.split(".", 1)
            text = merge.parts((copy / f"cs231n/{module}.py").read_text())[name]
            stub = re.search(r"^( +)raise NotImplementedError\(\n(.*\n)*?\1\)\n", text, re.MULTILINE)
            mine = f"{stub[1]}def inner():\n{stub[1]}    return 1\n\n{stub[1]}return inner()\n"
            change(copy / f"cs231n/{module}.py", stub[0], mine)
    for exercise in EXERCISES.values():
        list(reset.reset(copy, exercise))
    for file in (given / "cs231n").glob("*.py"):
        assert (copy / "cs231n" / file.name).read_text() == file.read_text()


def test_the_commands_work_in_a_copy_whose_modules_do_not_run(copy, new):
    """In a new interpreter, as `make` starts them."""
    for name in ("layers", "files"):
        (copy / f"cs231n/{name}.py").write_text("def unfinished(:\n")
    change(new / "README.md", "# cs231n", "# Corrected: cs231n")
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    code = f"""if True:
        import runpy, sys
        for module, word in ("update", {str(zipped(new))!r}), ("reset", "1.2"), ("reset", "9.9"):
            sys.argv[1:] = [word]
            runpy.run_module("grading." + module, run_name="__main__")
    """
    child = subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True)
    said = "replaced  README.md\nThis copy is up to date.\ncs231n/layers.py: exercise 1.2 is open"
    assert child.stdout.startswith(said)
    assert child.returncode == 2
    assert re.fullmatch(r"make reset: expected EXERCISE=, one of 1\.1, .*; got '9\.9'\n", child.stderr)


def test_the_makefile_passes_on_what_it_is_given(given):
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    for target, name, value in ("update", "FROM", "it's a new.zip"), ("reset", "EXERCISE", "2.3"):
        command = ["make", target, f"{name}={value}", "VENV_PYTHON=printf '%s|'", "SET_UP="]
        said = subprocess.run(command, cwd=given, env=env, capture_output=True, text=True, check=True).stdout
        assert said == f"-m|grading.{target}|{value}|"


def test_given_modules_count_as_given_and_a_change_is_named(copy):
    assert edited(copy) == []
    (copy / "cs231n/arguments.py").write_text("raise SystemExit\n")
    solve_relu(copy)
    with Session() as session:
        assert [result.earned for result in grade_own(EXERCISES["1.2"], session, copy)] == [1, 0]
    assert edited(copy) == ["cs231n/arguments.py"]
    assert edited(edition.ROOT) == []
