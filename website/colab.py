"""Write into each notebook a link that opens it in Colab, and a cell that gets the pack there: `make colab`.

The address of the repository is the setting repository of [tool.cs231n] in pyproject.toml.  The cell was tested on
Colab's package versions (`make test-colab`), and not yet in Colab.
"""

import sys
from pathlib import Path

import nbformat

from website import sources

ROOT = Path(__file__).parents[1]
IDS = "colab-link", "colab"
LINK = "[Open this notebook in Colab](https://colab.research.google.com/github/{name}/blob/main/notebooks/{file})"
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
    return sources.setting("repository", root)


def with_cells(notebook, file, address):
    """Put the link and the cell behind the title of a notebook, in place of earlier ones; file: its name.

    They are tagged as a solution: the student edition, whose address is another one, does not have them.
    """
    link = LINK.format(name=address.removeprefix("https://github.com/"), file=file)
    code = CELL.format(repository=address)
    cells = [nbformat.v4.new_markdown_cell(link, id=IDS[0]), nbformat.v4.new_code_cell(code, id=IDS[1])]
    for cell in cells:
        cell.metadata["tags"] = ["solution"]
    title, *others = [other for other in notebook.cells if other.get("id") not in IDS]
    notebook.cells = [title, *cells, *others]
    return notebook


def main():
    address = repository()
    if not address:
        sys.exit("set the repository's address first: repository, below [tool.cs231n] in pyproject.toml")
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        nbformat.write(with_cells(nbformat.read(file, as_version=4), file.name, address), file)
    print(f"the notebooks open in Colab, and get {address} there: now `make notebooks` numbers the cells")


if __name__ == "__main__":
    main()
