"""Lay out what Sphinx reads: the notebooks, the documents and a page for each module."""

import ast
import base64
import hashlib
import re
import shutil
import tomllib
from pathlib import Path, PurePath

import nbformat

ROOT = Path(__file__).parents[1]
# A pattern without a file is none: the student edition has fewer documents.
DOCUMENTS = ("*.md", "docs/*.md", "data/README.md", "LICENSE", "notebooks/*.png", "grading/instructor/*.toml")
NOTEBOOKS_IN_BROWSER = "notebooks/0[1-4]*.ipynb"  # those that run there: see website/lite.py
PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')


def lay_out(out, root=ROOT, pdf=False):
    """Write the sources of the site into the folder out, in place of earlier ones.

    pdf: whether the pages of notebooks link to a PDF.
    """
    shutil.rmtree(out, ignore_errors=True)
    (out / "extra").mkdir(parents=True)
    for pattern in DOCUMENTS:
        for file in sorted(root.glob(pattern)):
            put(out / file.relative_to(root), file.read_bytes())
    put(out / "index.md", (root / "website/index.md").read_bytes())
    modules = {file.stem: file for file in sorted((root / "cs231n").glob("*.py")) if file.stem[0] != "_"}
    for name in modules:
        put(out / f"api/{name}.rst", module_page(name))
    put(out / "api/index.md", module_list(modules))
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        put(out / "notebooks" / file.name, nbformat.writes(page_of(notebook, file.stem, modules, out, pdf)))


def put(file, content):
    """Write content, a text or bytes, into file, in a folder that is made if it is absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def module_page(name):
    """The page of a module: its docstring, and those of what is public in it, in the order of the code."""
    title = f"cs231n.{name}"
    options = "   :members:\n   :member-order: bysource\n"
    return f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n{options}"


def module_list(modules):
    """The page that lists the modules, each with the first line of its docstring."""
    rows = "".join(f"| [{name}]({name}.rst) | {summary(file)} |\n" for name, file in modules.items())
    toctree = "".join(f"{name} <{name}>\n" for name in modules)
    return (
        "# Modules\n\nThe package `cs231n`, from its docstrings. Each page says what a module's functions compute, "
        "what they take and return, and where a formula comes from.\n\n"
        f"| module | what it is for |\n|---|---|\n{rows}\n"
        f"```{{toctree}}\n:hidden:\n\n{toctree}```\n"
    )


def summary(file):
    """The first sentence of a module's docstring, in Markdown."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split())
    parts = re.split(r"(?<=\.) |: `", text)[0].split("`")
    parts[::2] = [re.sub(r"([*_|<>])", r"\\\1", prose) for prose in parts[::2]]
    return "`".join(parts)


def page_of(notebook, name, modules, out, pdf):
    """A notebook with targets and links, and with its pictures in files of their own."""
    first = True
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, modules)
            if first:
                cell.source += f"\n\n{other_forms(name, pdf)}"
            first = False
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = PICTURE.sub(lambda found: _picture(found[1], out), data["text/html"])
    return notebook


def other_forms(name, pdf):
    """HTML that leads from the page of a notebook to other forms of it."""
    forms = {}
    if PurePath(f"notebooks/{name}.ipynb").match(NOTEBOOKS_IN_BROWSER):
        forms["Run this notebook in the browser"] = f"../lite/lab/index.html?path=notebooks/{name}.ipynb"
    if pdf:
        forms["This notebook as a PDF"] = f"../pdf/{name}.pdf"
    return "".join(f'<p class="other-form"><a href="{address}">{text}</a></p>' for text, address in forms.items())


def linked(text, modules):
    """Markdown with a target at each numbered section, and a link at each name of a module's file."""
    text = re.sub(r"^(#+ (\d\.\d+) )", r"(section-\2)=\n\1", text, flags=re.MULTILINE)
    page = lambda found: f"[{found[0]}](/api/{found[1]}.rst)" if found[1] in modules else found[0]
    return re.sub(r"(?<!\[)`cs231n/(\w+)\.py`", page, text)


def setting(name, root=ROOT):
    """A setting of [tool.cs231n] in pyproject.toml; empty where none is set."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cs231n"][name]


def _picture(base64_text, out):
    """Write a picture beside the sources, and return the attribute that shows it on a notebook's page."""
    png = base64.b64decode(base64_text)
    name = f"{hashlib.sha256(png).hexdigest()[:16]}.png"
    put(out / "extra/figures" / name, png)
    return f'src="../figures/{name}"'
