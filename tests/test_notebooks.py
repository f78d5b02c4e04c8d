"""The notebooks as committed: executed once from the top, without error, warning, or a trace of the machine."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DESCRIBED = NOTEBOOKS  # each of their figures has an alternative text


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


def test_nbval_finds_the_notebooks_from_their_own_folder():
    """From the project's, `make test` runs them."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--collect-only", "-q", "."]
    done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.stem in done.stdout for path in NOTEBOOKS)
