"""The student edition: whole, without solutions, and worth exactly the points of the solutions that are put back."""

import ast
import filecmp
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
import types
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
from bytecode import global_names
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from grading.exercises import Exercise, choose, read
from grading.grade import grade, gradescope, main, table
from grading.instructor import cut_code, cut_notebooks, student
from grading.notebooks import read as read_notebook
from grading.session import Session
from website.sources import lay_out

ROOT = Path(__file__).parents[2]
EXERCISES, GIVEN = read()
REFERENCE = cut_code.modules(ROOT)
HIDDEN = tomllib.loads((ROOT / "grading/instructor/hidden.toml").read_text())
FOLDED = {"jupyter": {"source_hidden": True}}


@pytest.fixture(scope="module")
def statements(edition):
    """The statements of solutions."""
    return student.solutions(REFERENCE, EXERCISES.values(), GIVEN, cut_code.modules(edition))


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


# --- the exercises ---


def test_there_are_about_30_exercises_of_100_points():
    assert len(EXERCISES) >= 28
    assert sum(exercise.points for exercise in EXERCISES.values()) == 100
    assert [exercise.notebook for exercise in EXERCISES.values()] == sorted(e.notebook for e in EXERCISES.values())


def test_each_part_is_a_check_and_each_check_is_a_part():
    checks = {(exercise.checks, part) for exercise in EXERCISES.values() for part in exercise.parts}
    for name in {module for module, _ in checks}:
        module = importlib.import_module(f"grading.checks.{name}")
        defined = inspect.getmembers(module, inspect.isfunction)
        public = {f for f, function in defined if function.__module__ == module.__name__ and not f.startswith("_")}
        assert public == {part for other, part in checks if other == name}, name


def test_uses_and_needs_are_what_the_reference_calls_of_the_notebooks_so_far():
    for exercise in EXERCISES.values():
        below = {*exercise.uses, *exercise.needs}
        assert below <= {e.id for e in choose(map(str, range(1, exercise.notebook + 1)), EXERCISES)}
        later = {e.id for e in EXERCISES.values() if e.notebook > exercise.notebook}
        assert used_by(exercise) - {exercise.id} - later <= below, exercise.id


def used_by(exercise):
    """The exercises whose functions the reference's call, directly or by way of what is given."""
    owners = {name: e.id for e in EXERCISES.values() for name in e.functions}
    found, seen, todo = set(), set(), [reference(name) for name in exercise.functions]
    while todo:
        function = todo.pop()
        names, methods = called(function)
        for name in names - {"RULES"}:  # a rule is chosen by its name, and the checks take sgd, which is given
            for value in functions(function.__globals__.get(name)):
                qualified = f"{value.__module__.removeprefix('cs231n.')}.{value.__qualname__}"
                if qualified in owners:
                    found.add(owners[qualified])
                elif value.__module__.startswith("cs231n.") and value not in seen:
                    seen.add(value)
                    todo.append(value)
        classes = {mine.rpartition(".")[0] for mine in exercise.functions}
        found |= {owners[f] for f in owners for owner in classes for name in methods if f == f"{owner}.{name}"}
    return found


def reference(name):
    module, *below = name.split(".")
    found = importlib.import_module(f"cs231n.{module}")
    for attribute in below:
        found = getattr(found, attribute)
    return inspect.unwrap(found)


def called(function):
    """The globals that a function's code looks up, and what it takes of self; another object's methods do not count."""
    source = textwrap.dedent(inspect.getsource(function))
    attributes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return {*global_names(function.__code__)}, {a.attr for a in attributes if ast.unparse(a.value) == "self"}


def functions(value):
    """The functions that a global name refers to: one, or those of a table."""
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, dict | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from functions(entry)


def test_a_method_of_another_object_is_no_use_of_the_exercise_of_that_name():
    def solution(self, entered):
        entered.add(self.loss(sum(entered)))

    assert called(solution) == ({"sum"}, {"loss"})


def test_autoreload_reaches_each_function_since_no_decorator_keeps_an_older_one():
    for function in (function for exercise in EXERCISES.values() for function in exercise.functions):
        decorators = cut_code.find(cut_code.tree(REFERENCE[function.split(".")[0]]), function).decorator_list
        assert {ast.unparse(decorator) for decorator in decorators} <= {"staticmethod", "property"}, function


def test_a_method_that_is_saved_is_used_at_the_next_call_in_the_same_kernel(edition, tmp_path):
    copy = shutil.copytree(edition, tmp_path / "copy")
    first = """
from itertools import pairwise
from pathlib import Path
import numpy as np
from cs231n.trainer import Solver

def says(method, *args):
    try:
        return method(None, *args)[:12]
    except NotImplementedError:
        return "open"

def both():
    return says(Solver._step), says(Solver.check_accuracy, np.ones((1, 1)), np.zeros(1, int))

print(*both())"""
    save = """
file = Path("cs231n/trainer.py")
saved = file.write_text(file.read_text().replace("raise NotImplementedError(", "return str("))"""
    cells = [*cut_notebooks.SET_UP.splitlines(), first, save, "print(*both())"]
    run = f"for cell in {cells!r}: get_ipython().run_cell(cell)"
    command = [sys.executable, "-m", "IPython", "--quick", "--colors=nocolor", "-c", run]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[:2] == ["open open", "exercise 1.8 exercise 1.9"], done.stdout + done.stderr


def test_an_unknown_exercise_is_refused_by_name():
    with pytest.raises(ValueError, match=r"got '9\.9'"):
        choose(["9.9"], EXERCISES)
    assert [exercise.id for exercise in choose(["1.3", "1.2"], EXERCISES)] == ["1.2", "1.3"]
    assert {exercise.notebook for exercise in choose(["3", "1.2"], EXERCISES)} == {1, 3}


# --- the cut ---


def test_two_editions_are_the_same_byte_for_byte(edition, tmp_path):
    student.write(tmp_path / "student")
    for number, folder in enumerate((edition, tmp_path / "student")):
        student.zip_folder(folder, tmp_path / f"{number}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        student.write(tmp_path)
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        student.write(ROOT)
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"


def test_what_is_open_keeps_its_signature_and_docstring_and_says_what_to_do(edition):
    for exercise in EXERCISES.values():
        for function in exercise.functions:
            module = function.split(".")[0]
            before = cut_code.find(cut_code.tree(REFERENCE[module]), function)
            after = cut_code.find(cut_code.tree((edition / f"cs231n/{module}.py").read_text()), function)
            assert ast.dump(before.args) == ast.dump(after.args)
            assert (ast.get_docstring(before) != ast.get_docstring(after)) == (function in HIDDEN["docstrings"])
            raised = after.body[-1]
            assert isinstance(raised, ast.Raise)
            assert ast.literal_eval(raised.exc.args[0]) == exercise.message(function)


def test_group_norm_keeps_all_checks_that_its_docstring_promises(edition):
    stub = cut_code.find(
        cut_code.tree((edition / "cs231n/batchnorm.py").read_text()), "batchnorm.spatial_groupnorm_forward"
    )
    checks = {"check_floats", "_check_images", "_check_param", "check_count", "ValueError"}
    assert checks <= {node.id for node in ast.walk(stub) if isinstance(node, ast.Name)}


def test_helpers_and_imports_that_only_solutions_need_are_gone(edition):
    text = (edition / "cs231n/batchnorm.py").read_text()
    assert "_standardize" not in text
    assert "_mean_product" not in text
    assert "def _check_shapes" in text
    assert "sliding_window_view" not in (edition / "cs231n/fast_layers.py").read_text()


def test_what_is_cut_leaves_no_gap():
    texts = cut_code.cut(REFERENCE, EXERCISES.values(), GIVEN)
    assert [module for module, text in texts.items() if re.search(r"\n\n\n\n|\n\n\Z", text)] == []


def test_imports_of_exercises_that_a_solution_calls_stay(edition):
    assert "import softmax_loss\n" in (edition / "cs231n/softmax_net.py").read_text()
    assert "import affine_backward, affine_forward\n" in (edition / "cs231n/fully_connected_net.py").read_text()


def test_no_statement_of_a_solution_is_left(edition, statements):
    assert len(statements) > 150
    assert student.leaks(edition, statements) == []


def test_a_statement_is_searched_for_as_it_is_written_and_as_python_writes_it():
    source = 'def f(größe):\n    größe = größe * ("é" + (\n        "a" "b")); return größe.sum( axis=((0), 1) )\n'
    assert [*student._statements(source)] == [
        (2, 'größe=größe*("é"+"ab")'), (2, 'größe=größe*("é"+("a""b"))'),
        (3, "returngröße.sum(axis=(0,1))"), (3, "returngröße.sum(axis=((0),1))"),
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["notebooks/01_fully_connected_nets.ipynb", "cs231n/layers.py", "README.md"])
def test_a_statement_that_is_left_is_found(edition, statements, file, tmp_path):
    path, statement = with_a_copy_of(edition, file, tmp_path), "dx = (dout @ w.T).reshape(x.shape) if need_dx else None"
    assert student.leaks(tmp_path, statements) == []
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, 4)
        notebook.metadata["left"] = statement
        nbformat.write(notebook, path)
    else:
        path.write_text(f"{path.read_text()}\n{statement}\n")
    assert any(file in found for found in student.leaks(tmp_path, statements))


def with_a_copy_of(edition, file, folder):
    """The path of a copy of one of the edition's files, in a folder of its own."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(edition / file, folder / file)


def test_the_notebooks_hold_no_output_no_solution_and_each_exercise_once(edition):
    graded = []
    for file in sorted((edition / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(file, 4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert cell.metadata in ({}, FOLDED)
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
        graded += [cell.source.split()[1] for cell in notebook.cells if cell.source.startswith("%grade")]
    assert sorted(graded) == sorted(EXERCISES)


def test_each_name_that_a_notebook_imports_is_used_in_its_code_or_named_in_its_text(edition):
    for file in sorted((edition / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(file, 4).cells
        trees = [*map(ast.parse, student._code([nbformat.v4.new_notebook(cells=cells)]))]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = {alias.asname or alias.name for node in imports for alias in node.names}
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        words = re.findall(r"\w+", " ".join(cell.source for cell in cells if cell.cell_type == "markdown"))
        assert imported - used - {*words} == set(), file.name


def test_a_notebook_loses_its_solutions_its_steps_and_its_answers():
    source = (
        "**Derivation.** It is short.\n\n1. One.\n2. Two:\n$$dx = 2$$\n3. Three.\n\n4. Four.\n\nSo it is.\n\n"
        "*Question 1.* Why?\n\n*Your answer:* Because.\n\n## 1.2 Another\n\n*Question 2.* How?"
    )
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    blanks = {"2": "Two: $dx =$", "4": "From ____ comes four."}
    cells = [
        nbformat.v4.new_markdown_cell(source, id="a", metadata={"tags": ["derivation", "question"], "blanks": blanks}),
        nbformat.v4.new_markdown_cell("## 1.1 A section\n\n1. A step.\n\n*Question 2.* What?", id="b"),
        nbformat.v4.new_markdown_cell("This announces the code:", id="words", metadata={"tags": ["solution"]}),
        nbformat.v4.new_code_cell("a = 1", id="c", metadata={"tags": ["solution"], "student": "a = yours"}),
        nbformat.v4.new_code_cell("b = 2", id="d", metadata={"tags": ["solution"]}),
    ]
    exercise = Exercise("1.1", "One", "1.1", {"layers.one": "1"}, "layers", {"one": 2})
    cut = cut_notebooks.cut(nbformat.v4.new_notebook(cells=cells, metadata=python), [exercise])
    sources = {cell.id: cell.source for cell in cut.cells}
    assert sources["a"].split("\n\n")[1:] == [
        "1. One.\n2. Two: $dx =$ ____\n3. Three.", "4. From ____ comes four.", "So it is.", "*Question 1.* Why?",
        "*Your answer:*",
    ]  # fmt: skip
    assert sources["a-2"] == "## 1.2 Another\n\n*Question 2.* How?\n\n*Your answer:*"
    assert [*sources][:2] == ["a", "a-2"]
    assert sources["b"] == cells[1].source  # it has no tag
    assert sources["c"] == "a = yours"
    assert {"words", "d"}.isdisjoint(sources)
    assert sources["grade-1-1"] == "%grade 1.1"
    assert "(2 points)" in sources["exercise-1-1"]


def test_the_code_that_answers_a_prediction_is_folded_up_to_the_next_text():
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [
        code("before"), markdown("**Predict** it.", metadata={"tags": ["prediction"]}), code("run"),
        code("solved", metadata={"tags": ["solution"], "student": "drawn"}), markdown("So.\n\nAnd."), code("after"),
    ]  # fmt: skip
    cut = cut_notebooks.cut(nbformat.v4.new_notebook(cells=cells), [])
    folded = {cell.source: cell.metadata == FOLDED for cell in cut.cells if cell.cell_type == "code"}
    assert folded == {cut_notebooks.SET_UP: False, "before": False, "run": True, "drawn": True, "after": False}
    *_, result, _ = cut.cells
    closed, rest = result.source.split("</details>\n\n")
    assert closed.startswith("<details><summary>")
    assert "\n\nSo.\n\n" in closed
    assert rest == "And."


@pytest.mark.parametrize("first", ["### A section", "*Question 1.1.* Why?"])
def test_a_heading_or_a_question_after_a_prediction_stays_open(first):
    ask = nbformat.v4.new_markdown_cell("**Predict** it.", metadata={"tags": ["prediction"]})
    cells = [ask, nbformat.v4.new_code_cell("run"), nbformat.v4.new_markdown_cell(first)]
    assert cut_notebooks.cut(nbformat.v4.new_notebook(cells=cells), []).cells[-1].source == first


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("0*.ipynb")), ids=lambda file: file.stem)
def test_each_prediction_has_its_tag_and_code_below_it(file):
    cells = nbformat.read(file, 4).cells
    for cell, following in pairwise(cells):
        asks = re.search(r"(?<!says )\*\*Predict\b|\*A prediction: ", cell.source) is not None
        tagged = "prediction" in cell.metadata.get("tags", [])
        assert cell.cell_type == "code" or asks == tagged, cell.source
        assert not tagged or following.cell_type == "code", following.source


def test_a_notebook_that_colab_saved_is_cut_as_well():
    cells = [nbformat.v4.new_markdown_cell("## 1.1 A section"), nbformat.v4.new_code_cell("a = 1")]
    saved = json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    for i, cell in enumerate(saved["cells"]):
        cell["metadata"] = {"id": f"x{i}"}
        del cell["id"]
    saved |= {"nbformat_minor": 0, "metadata": {"colab": {"provenance": []}}}
    exercise = Exercise("1.1", "One", "1.1", {"layers.one": "1"}, "layers", {"one": 2})
    cut = cut_notebooks.cut(read_notebook(b"\xef\xbb\xbf" + json.dumps(saved).encode()), [exercise])
    assert cut.metadata.kernelspec.name == "python3"
    assert [cell.id for cell in cut.cells][-2:] == ["grade-1-1", "x1"]


@pytest.mark.parametrize(
    ("tag", "blanks", "lacks"),
    [
        ("derivation", {}, r"the steps \['1'\]"),
        ("derivation", {"2": "$dx =$"}, r"the blanks \['2'\]"),
        ("question", {}, r"no paragraph .* \*Question"),
    ],
)
def test_a_tag_without_what_it_is_about_is_refused(tag, blanks, lacks):
    cell = nbformat.v4.new_markdown_cell("1. Prose.", metadata={"tags": [tag], "blanks": blanks})
    with pytest.raises(ValueError, match=lacks):
        cut_notebooks.cut(nbformat.v4.new_notebook(cells=[cell]), [])


def test_the_equations_of_a_step_that_is_cut_are_its_results():
    source = (
        "1. Given: $a = 1$.\n2. From $b = 2$:\n" r"$$dx_{n} = \sum_{i=1}^n x [m = n] = 3, \qquad dw = \frac{1}{N} .$$"
    )
    blanks = {"2": r"From $b = 2$: $dx_n =$"}
    cell = nbformat.v4.new_markdown_cell(source, metadata={"tags": ["derivation"], "blanks": blanks})
    found = [*cut_notebooks.results(nbformat.v4.new_notebook(cells=[cell]))]
    assert found == [r"dx_{n} = \sum_{i=1}^n x [m = n]", "dx_{n} = 3", r"dw = \frac{1}{N}"]


def test_a_docstring_loses_what_is_hidden_and_a_text_that_is_not_there_is_refused():
    source = 'def f(x):\n    """Square: x^2,\n    as you see.  x: any shape."""\n    return x * x\n'
    hidden = cut_code.hide(source, "m.f", {": x^2, as you see.": " of x."})
    assert hidden == 'def f(x):\n    """Square of x.  x: any shape."""\n    return x * x\n'
    with pytest.raises(ValueError, match=r"m\.f: its docstring has 0 times"):
        cut_code.hide(source, "m.f", {"cube": ""})


@pytest.fixture(scope="module")
def results():
    return student.results(ROOT, HIDDEN)


RESULTS = [
    r"By step 3, $dx = \text{dout}\,w^{T}$.",
    r"$$d\hat{x} = 0, \quad \frac{\partial\,\text{std}}{\partial x_n} = \frac{1}{N} \hat x_n$$",
    "The gradient is the prediction minus\nthe truth.",
    "Remember `dX_col = W_row^T dOut`.",
]


@pytest.mark.parametrize("file", ["notebooks/02_batch_normalization.ipynb", "cs231n/optim.py", "README.md"])
@pytest.mark.parametrize("result", RESULTS)
def test_a_result_that_is_given_away_is_found(edition, results, file, result, tmp_path):
    path = with_a_copy_of(edition, file, tmp_path)
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, 4)
        notebook.cells.append(nbformat.v4.new_markdown_cell(result))
        nbformat.write(notebook, path)
    else:
        path.write_text(f'{path.read_text()}\n\nclass Told:\n    r"""{result}"""\n')
    (found,) = student.given_away(tmp_path, results)
    assert found.startswith(file)


def test_no_result_is_given_away(edition, results):
    assert len(results) > 60
    assert student.given_away(edition, results) == []


def test_a_release_that_gives_a_result_away_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(student, "results", lambda *_: ["it is yours: double-click"])  # what each notebook says
    with pytest.raises(ValueError, match=r"given away in the edition:\nnotebooks/01_\w+.ipynb: it is yours"):
        student.write(tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_an_exercise_without_a_place_in_its_notebook_is_refused():
    exercise = Exercise("1.1", "One", "7.7", {"layers.one": "1"}, "layers", {"one": 2})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One")])
    with pytest.raises(ValueError, match=r"no section 7\.7"):
        cut_notebooks.cut(notebook, [exercise])


# --- what the edition is worth ---


def test_each_exercise_put_back_with_what_it_needs_earns_its_own_points_and_no_others(edition, session, tmp_path):
    for alone in EXERCISES.values():
        solved = [alone, *(EXERCISES[needed] for needed in alone.needs)]
        put_back(tmp_path, solved)
        earned = {e.id: sum(result.earned for result in grade(e, session, tmp_path)) for e in affected(alone)}
        assert earned == {e.id: e.points if e in solved else 0 for e in affected(alone)}


def test_a_part_that_needs_an_open_exercise_is_named_after_it(session, tmp_path):
    put_back(tmp_path, [EXERCISES["2.4"]])
    net, *_ = grade(EXERCISES["2.4"], session, tmp_path)
    assert net.part == "net_normalization"
    assert net.hint.startswith("exercise 1.7 is open")


def affected(alone):
    """The exercise, those that use it or that it uses, and those whose functions stand beside its own."""
    for exercise in EXERCISES.values():
        near = alone.id in exercise.uses or exercise.id in alone.uses or set(exercise.files) & set(alone.files)
        if exercise is alone or near:
            yield exercise


def put_back(tree, solved):
    """The edition's modules with the reference's solutions of some exercises."""
    (tree / "cs231n").mkdir(exist_ok=True)
    others = [exercise for exercise in EXERCISES.values() if exercise not in solved]
    for module, text in cut_code.cut(REFERENCE, others, GIVEN, solved=solved).items():
        (tree / "cs231n" / f"{module}.py").write_text(text)
    for exercise in EXERCISES.values():
        for name in exercise.hand_ins:
            (tree / name).unlink(missing_ok=True)
            if exercise in solved:
                shutil.copy(ROOT / name, tree)


NET = """
import sys
import numpy as np
from cs231n.fully_connected_net import FullyConnectedNet
net = FullyConnectedNet([5, 4], input_dim=6, **eval(sys.argv[1]))
loss, grads = net.loss(np.ones((3, 6)), np.zeros(3, int))
print(sorted(grads) == sorted(net.params))
"""


@pytest.mark.parametrize(
    ("settings", "open_exercise"), [({}, None), ({"dropout": 0.5}, "3.2"), ({"normalization": "batchnorm"}, "2.1")]
)
def test_with_the_exercises_of_notebook_01_a_plain_net_runs_and_others_say_what_is_open(
    settings, open_exercise, tmp_path
):
    put_back(tmp_path, choose(["1"], EXERCISES))
    command = [sys.executable, "-c", NET, repr(settings)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout == "True\n") == (open_exercise is None)
    assert f"exercise {open_exercise} is open" in done.stderr or not open_exercise


def test_all_put_back_is_the_reference():
    assert cut_code.cut(REFERENCE, [], GIVEN, solved=EXERCISES.values()) == REFERENCE


def test_the_given_tests_pass_and_each_open_part_fails_with_the_message_of_its_exercise(edition, tmp_path):
    copy = shutil.copytree(edition, tmp_path / "copy")
    for module in ("cifar10", "download", "shapes10", "plots", "pytorch_files", "pytorch_vision"):  # the same as here
        for file in (f"cs231n/{module}.py", f"tests/test_{module}.py"):
            assert filecmp.cmp(ROOT / file, copy / file, shallow=False)
        (copy / f"tests/test_{module}.py").unlink()
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "CS231N_DATA_DIR": str(tmp_path),
        "CS231N_CIFAR10_URL": "absent",
        "COLUMNS": "1000",  # a failure's message is on one line with its name
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take 3 s to import
    }
    options = ["-q", "-ra", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "tests", *options]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
    failed = re.findall(
        r"^FAILED tests/test_exercises.py::test_exercise\[(\S+)\] - Failed: (.*)", done.stdout, re.MULTILINE
    )
    parts = {f"{exercise.id}-{part}": exercise for exercise in EXERCISES.values() for part in exercise.parts}
    assert dict(failed).keys() == parts.keys(), done.stdout[-3000:]
    for part, message in failed:
        owners = [parts[part], *(EXERCISES[needed] for needed in parts[part].needs)]
        assert message in [possible for owner in owners for possible in owner.messages]
    assert re.search(rf"{len(parts)} failed, \d\d+ passed", done.stdout)


def test_a_notebook_runs_up_to_the_first_open_exercise_and_says_where_to_go(edition, tmp_path):
    edition = shutil.copytree(edition, tmp_path / "copy")
    notebook = nbformat.read(edition / "notebooks/03_dropout.ipynb", 4)
    first = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("%grade"))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(edition / "notebooks")}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(edition))
        patch.setenv(
            "CS231N_DATA_DIR", os.environ.get("CS231N_DATA_DIR", str(ROOT / "data"))
        )  # it need not draw it again
        with pytest.raises(CellExecutionError) as raised:
            client.execute()
    assert raised.value.ename == "NotYet"
    shown, error = notebook.cells[first].outputs
    assert error.traceback == ["exercise 3.1 is open: a run of several cells stops here"]
    text = shown.data["text/plain"]
    assert re.match(r"exercise +points +time\n3\.1 +\S.* 0 of ", text)
    assert "exercise 3.1 is open: dropout_steps in cs231n/derivations.py must return" in " ".join(text.split())
    assert "<table>" in shown.data["text/html"]
    assert not [cell for cell in notebook.cells[first + 1 :] if cell.get("outputs")]


# --- what a grading looks like ---


def test_the_hint_of_the_edition_leads_from_a_wrong_solution_to_the_mistake(edition, tmp_path):
    copy = shutil.copytree(edition, tmp_path / "copy")
    put_back(copy, [EXERCISES["1.2"]])
    layers = copy / "cs231n/layers.py"
    layers.write_text(layers.read_text().replace("return np.maximum(x, 0), x", "return np.minimum(x, 0), x"))
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "grading.grade", "1.1", "1.2", "--tier", "3"]
    shown = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=True).stdout
    assert "exercise 1.1 is open" in shown
    assert "relu_forward\n     out[" in shown
    assert "Question: What should come out for -3, and what for 3?" in shown
    assert "Answer: this is the minimum, not the maximum" in shown


def test_the_table_says_what_failed_and_what_was_checked_with_right_parts(edition, session, tmp_path):
    put_back(tmp_path, [EXERCISES["1.5"]])
    graded = {EXERCISES[name]: grade(EXERCISES[name], session, tmp_path) for name in ("1.1", "1.5")}
    text = "\n".join(table(graded))
    assert "exercise 1.1 is open: affine_forward in cs231n/layers.py" in " ".join(text.split())
    assert "checked with correct functions for 1.1, where yours are not right yet" in " ".join(text.split())
    assert re.search(r"in all +2 of +5", text)


def test_an_interrupt_leaves_no_answer_behind_for_the_next_question(monkeypatch):
    def interrupt(readers, writers):
        if readers:  # the question is out
            raise KeyboardInterrupt

    with Session() as session:
        assert not [r for r in grade(EXERCISES["1.2"], session, ROOT) if r.hint]
        with monkeypatch.context() as patch:
            patch.setattr(session, "_wait", interrupt)
            with pytest.raises(KeyboardInterrupt):
                grade(EXERCISES["1.2"], session, ROOT)
        assert not [r for r in grade(EXERCISES["1.2"], session, ROOT) if r.hint]


def test_the_results_for_gradescope_have_its_fields(session):
    results = gradescope({EXERCISES["1.2"]: grade(EXERCISES["1.2"], session, ROOT)})
    assert results["score"] == 2
    assert results["execution_time"] >= 0
    names = {"number", "name", "score", "max_score", "status", "output"}
    assert [test.keys() for test in results["tests"]] == [names, names]
    assert json.loads(json.dumps(results)) == results


def test_the_command_grades_what_it_is_asked_for(capsys, tmp_path):
    main(["1.2", "--json", str(tmp_path / "results.json")])
    assert re.search(r"^1.2 +ReLU +2 of +2", capsys.readouterr().out, re.MULTILINE)
    assert json.loads((tmp_path / "results.json").read_text())["score"] == 2
    with pytest.raises(SystemExit):
        main(["9.9"])
    assert "expected one of 1.1, 1.2" in capsys.readouterr().err


def test_the_sites_pages_of_the_edition_hold_no_solution_and_tell_no_result(edition, statements, tmp_path):
    lay_out(tmp_path, edition)
    assert {file.stem for file in (tmp_path / "api").glob("*.rst")} >= {"layers", "trainer", "pytorch_recipes"}
    assert len(list((tmp_path / "notebooks").glob("*.ipynb"))) == 5
    assert (tmp_path / "index.md").read_text().startswith("# Deep learning from scratch: the student edition")
    assert student.leaks(tmp_path, statements) == []
    assert student.given_away(tmp_path, student.results(ROOT, HIDDEN)) == []
    lay_out(tmp_path)  # of the reference: the search can fail
    assert student.leaks(tmp_path, statements)


def test_the_edition_has_only_what_a_student_needs(edition):
    assert {path.name for path in edition.iterdir()} == {
        ".devcontainer", ".dockerignore", ".gitignore", "Dockerfile", "LICENSE", "Makefile", "README.md", "binder",
        "conftest.py", "constraints.txt", "cs231n", "data", "environment.yml", "grading", "notebooks", "pyproject.toml",
        "tests", "website",
    }  # fmt: skip
    targets = subprocess.run(["make", "help"], cwd=edition, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make ([a-z-]+)", targets, re.MULTILINE) == [
        "help", "install", "lab", "get-data", "test", "update", "reset", "grade", "hint", "progress", "site", "lite",
        "colab", "train", "clean",
    ]  # fmt: skip
    assert {path.name for path in (edition / "grading").iterdir()} - {"__pycache__"} == {
        "__init__.py", "checks", "child.py", "display.py", "drivers.py", "edition.py", "exercises.py", "exercises.toml",
        "expect.py", "expected.npz", "given.zip", "grade.py", "hand_ins.py", "hints.py", "in_place.py", "magic.py",
        "merge.py", "notebooks.py", "oracle.py", "products.py", "progress.py", "questions.toml", "reset.py", "rules.py",
        "session.py", "start.py", "storage.py", "substitutes.py", "update.py",
    }  # fmt: skip
    same = "LICENSE", "conftest.py", "cs231n/utils.py", "cs231n/plots.py"
    assert all(filecmp.cmp(ROOT / path, edition / path, shallow=False) for path in same)


# --- where there is no PyTorch ---


def test_what_pytorch_gave_is_stored_as_numbers_and_the_names_of_operations(edition):
    with np.load(edition / "grading/expected.npz", allow_pickle=False) as stored:
        assert {stored[name].dtype.kind for name in stored.files} <= set("biuf")
        index = json.loads(stored["index"].tobytes())
    assert re.fullmatch("[0-9a-f]{16}", index.pop("checks"))
    for part, results in index.items():
        assert re.fullmatch(r"[a-z_]+\.[a-z_0-9]+", part)
        for operation, result in results.items():
            assert re.fullmatch(r"\d+ [a-z_]+", operation)
            assert {text for text in texts(result) if not re.fullmatch(r"(torch\.)?(float|int|bool)\d*", text)} == set()


def texts(node):
    """The texts in a value of JSON, but for the five keys of an array."""
    if isinstance(node, dict):
        assert set(node) in (set(), {"first", "shape", "kept", "step", "dtype"})
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return {node} if isinstance(node, str) else set().union(*map(texts, inner))


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
for cell in ("%load_ext grading", "%grade 1.1 1.2", "%hint 1.4", "%grade 1.14", "%progress"):
    get_ipython().run_cell(cell)
"""


def test_the_magics_work_without_pytorch_and_with_grading_installed_elsewhere(edition, tmp_path):
    copy, installed = shutil.copytree(edition, tmp_path / "copy"), tmp_path / "installed"
    for package in ("grading", "cs231n"):
        shutil.copytree(edition / package, installed / package)
    put_back(copy, [EXERCISES["1.1"], EXERCISES["1.2"], EXERCISES["1.14"]])
    command = [sys.executable, "-m", "IPython", "--quick", "--colors=nocolor", "-c", WITHOUT_TORCH]
    env = {**os.environ, "PYTHONPATH": str(installed), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy / "notebooks", env=env, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["exercise 1.1: 3 of 3 points", "exercise 1.2: 2 of 2 points"], done.stdout + done.stderr
    assert lines[2] == "1.4  The multiclass SVM's loss: svm_value"
    assert lines[3].startswith("     exercise 1.4 is open: svm_loss in cs231n/layers.py must return the loss")
    later = "graded when your work is handed in, since its check needs PyTorch, which is not here"
    assert f"     {later}" in lines  # below 1.14
    assert f"{later}: 1.14, 1.15, 4.10, notebook 05" in lines
    assert re.search(r"^in all +5 of +73 +2 of ", done.stdout, re.MULTILINE)
