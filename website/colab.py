"""Write a first cell into each notebook that gets the pack in Colab, and does nothing elsewhere: `make colab`.

The address of the repository is the setting repository of [tool.cs231n] in pyproject.toml.
"""

import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
ID = "colab"
# A clone, and no pip: Colab's torch and numpy stay as they are, and after a restart the clone is still there.
CELL = """# Only in Colab: get the pack, once, and work in it.
import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    if not os.path.isdir("/content/cs231n"):
        clone = ["git", "clone", "--quiet", "--depth=1", "{repository}"]
        subprocess.run([*clone, "/content/cs231n"], check=True)
    os.chdir("/content/cs231n/notebooks")
    sys.path.insert(0, "/content/cs231n")"""


def repository(root=ROOT):
    """The address of the repository, as in https://github.com/someone/cs231n; empty where none is set."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cs231n"]["repository"]


def with_cell(notebook, address):
    """Put the cell behind the title of a notebook, in place of an earlier one.

    It is tagged as a solution: the student edition, whose address is another one, does not have it.
    """
    cell = nbformat.v4.new_code_cell(CELL.format(repository=address), id=ID, metadata={"tags": ["solution"]})
    others = [other for other in notebook.cells if other.get("id") != ID]
    notebook.cells = [others[0], cell, *others[1:]]
    return notebook


def main():
    address = repository()
    if not address:
        sys.exit("set the repository's address first: repository, below [tool.cs231n] in pyproject.toml")
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(with_cell(nbformat.read(file, as_version=4), address), file)
    print(f"the notebooks have a first cell for Colab that gets {address}: now `make notebooks` numbers the cells")


if __name__ == "__main__":
    main()
