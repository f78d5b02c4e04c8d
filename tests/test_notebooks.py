"""The notebooks as committed: executed once from the top, without error, warning, or a trace of the machine."""

import dis
import html
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest
from bytecode import global_names

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DESCRIBED = NOTEBOOKS  # each of their figures has an alternative text
SYMBOLS = {*"CHNWXbpswxy", "beta", "cache", "gamma", "out", "pad"}  # of formulas; each section has its own


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text())


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_cells_are_numbered_from_one_fresh_run(notebook):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


def test_the_kernel_is_any_python_3(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_no_output_is_an_error_a_warning_or_a_path(notebook):
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            text = json.dumps({k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")})
            text = re.sub("base64,[A-Za-z0-9+/=]*", "", text) + "".join(output.get("text", []))
            assert not re.search(r"Warning|/home/|/tmp/|/Users/|/root/|site-packages", text), text


def test_what_is_compared_does_not_name_a_time(notebook):
    for cell in code_cells(notebook):
        if "nbval-ignore-output" not in cell["metadata"].get("tags", []):
            printed = "".join(line for output in cell["outputs"] for line in output.get("text", []))
            assert not re.search(r"\d s\b|\d ms\b|0x[0-9a-f]{6}", printed), printed


def test_a_cell_whose_output_is_ignored_still_checks_something(notebook):
    """A check whose output is ignored and which asserts nothing is no check; fetching and drawing are not checks."""
    for cell in code_cells(notebook):
        source = "".join(cell["source"])
        if "nbval-ignore-output" in cell["metadata"].get("tags", []) and "print(" in source:
            checks = ("assert ", "must_fail(", "raise AssertionError")
            assert any(check in source for check in checks) or "get_cifar10_data()" in source or ".train()" in source


def test_each_tag_is_known_and_each_question_is_tagged(notebook):
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        assert set(tags) <= {"solution", "derivation", "question", "prediction", "nbval-ignore-output"}
        paragraphs = "".join(cell["source"]).split("\n\n") if cell["cell_type"] == "markdown" else []
        assert ("question" in tags) == any(paragraph.startswith("*Question ") for paragraph in paragraphs)


def test_each_picture_says_where_it_was_drawn_from(notebook):
    """The committed pictures are of the real CIFAR-10: the stand-in would have named itself."""
    printed = "".join(
        line for cell in code_cells(notebook) for output in cell["outputs"] for line in output.get("text", [])
    )
    assert "CIFAR-10" in printed
    assert "Shapes10" not in printed


@pytest.mark.parametrize("path", DESCRIBED, ids=lambda path: path.stem)
def test_each_figure_has_a_text_for_those_who_cannot_see_it(path):
    cells = code_cells(json.loads(path.read_text()))
    assert not [cell["id"] for cell in cells if "plt.show(" in "".join(cell["source"])]
    outputs = [output for cell in cells for output in cell["outputs"] if "image/png" in output.get("data", {})]
    texts = [output["metadata"].get("image/png", {}).get("alt", "") for output in outputs]
    assert texts
    assert [text for text in texts if len(text.split()) < 8] == []
    for text, output in zip(texts, outputs, strict=True):  # JupyterLab shows the HTML
        assert f'alt="{html.escape(text)}"' in "".join(output["data"]["text/html"])


class Cell(NamedTuple):
    """A cell's names: what it takes from earlier ones, all that it loads, what it binds, what each function reads."""

    reads: set
    loads: set
    binds: set
    functions: dict


def names_of(source):
    cell = Cell(set(), set(), set(), {})
    for line in dis.get_instructions(compile(source, "cell", "exec")):
        if line.opname == "STORE_NAME":
            cell.binds.add(line.argval)
            continue
        code = line.argval if isinstance(line.argval, types.CodeType) else None
        if code and not code.co_name.startswith("<"):  # neither a lambda nor a comprehension
            cell.functions[code.co_name] = {*global_names(code)}
            continue
        loaded = {*global_names(code)} if code else {line.argval} if line.opname == "LOAD_NAME" else set()
        cell.loads.update(loaded)
        cell.reads.update(loaded - cell.binds)
    return cell


def changed_inputs(sources):
    """Pairs of a cell's number and a name that it takes from an earlier cell, which a later one binds again."""
    cells, bound, functions = [names_of(source) for source in sources], {}, {}
    last = {name: i for i, cell in enumerate(cells) for name in cell.binds}
    for i, cell in enumerate(cells):
        functions |= cell.functions
        inputs, called, todo = {*cell.reads}, set(), [*cell.loads]
        while todo:
            name = todo.pop()
            if name in functions and name not in called:
                called.add(name)
                inputs |= functions[name] - cell.binds
                todo += functions[name]
        yield from ((i, name) for name in sorted(inputs) if bound.get(name, last.get(name)) != last.get(name))
        bound |= dict.fromkeys(cell.binds, i)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_that_is_run_again_after_all_others_takes_what_it_took_at_first(path):
    sources = ["".join(cell["source"]) for cell in code_cells(json.loads(path.read_text()))]
    assert [found for found in changed_inputs(sources) if found[1] not in SYMBOLS] == []


def test_the_name_of_a_function_means_nothing_else_in_another_cell(notebook):
    cells = [names_of("".join(cell["source"])) for cell in code_cells(notebook)]
    defined = [(i, name) for i, cell in enumerate(cells) for name in cell.functions]
    assert [name for i, name in defined for other in cells[:i] + cells[i + 1 :] if name in other.binds] == []


def test_an_input_that_is_bound_again_is_found_also_where_a_function_reads_it():
    cells = ["net = 1", "def f():\n    return [net for _ in g()]", "g = list", "f()", "a = lambda: g", "net = g = 2"]
    assert [*changed_inputs(cells)] == [(3, "g"), (3, "net"), (4, "g")]
    assert [*changed_inputs(["a = 1", "a = 2; print(a)", "[a for a in ()]", "print(b); b = 3"])] == []


def test_nbval_finds_the_notebooks_from_their_own_folder():
    """From the project's, `make test` runs them."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--collect-only", "-q", "."]
    done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.stem in done.stdout for path in NOTEBOOKS)
