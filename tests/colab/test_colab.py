"""Notebook 01 with Colab's first cell, on Colab's package versions: `make test-colab`, outside of the suite.

The module `google.colab` is an empty one, and the repository is this one; the rest is as in Colab, as far as known.
"""

import ast
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks/01_fully_connected_nets.ipynb"
CELLS = ast.parse((ROOT / "website/colab.py").read_text(encoding="utf-8"))
CELL = next(n.value.value for n in CELLS.body if isinstance(n, ast.Assign) and n.targets[0].id == "CELL")
IN_COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')"
WHERE = "import cs231n, os\nprint(os.getcwd(), cs231n.__file__)"
SECTIONS = 20  # cells of notebook 01: the data, the affine layer and its checks


def packages():
    return sorted(f"{found.name} {found.version}" for found in distributions())


@pytest.fixture
def content(tmp_path):
    """A folder in place of /content, with a repository to clone beside it."""
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, tmp_path / "pack"], check=True)
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def run(content, *cells):
    """Run cells in a fresh kernel, as after a restart, and return what they print."""
    cell = CELL.format(repository=(content.parent / "pack").as_uri()).replace("/content", str(content))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (IN_COLAB, cell, *cells)])
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": content}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


def test_the_pack_works_after_a_restart_too_and_no_package_is_changed(content):
    before = packages()
    clone = content / "cs231n"
    for _ in range(2):
        assert run(content, WHERE) == f"{clone}/notebooks {clone}/cs231n/__init__.py\n"
        (clone / "mine.txt").write_text("an answer")
    assert (clone / "mine.txt").exists()
    assert packages() == before


def test_the_first_sections_of_notebook_01_run(content):
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells[:SECTIONS] if cell.cell_type == "code"]
    printed = run(content, *cells)
    assert "affine, one operation per line: the same as the library" in printed
