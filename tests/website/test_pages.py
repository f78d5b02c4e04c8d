"""The built pages: every link leads somewhere, and nothing of a notebook or a docstring is lost."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from grading.instructor import student
from website import links, sources

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(file.stem for file in (ROOT / "cs231n").glob("[!_]*.py"))
NOTEBOOKS = sorted(file.stem for file in (ROOT / "notebooks").glob("*.ipynb"))


def article(site, page):
    """The article of a page."""
    return BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser").find("article")


def test_no_link_is_broken(site):
    assert links.broken(site) == []


def test_no_page_names_the_folder_that_the_site_was_built_in(site):
    pages = [file for file in site.rglob("*.html") if str(ROOT) in file.read_text(encoding="utf-8")]
    assert pages == []


def test_a_link_to_a_page_or_an_anchor_that_is_gone_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="top"></h1><a href="b.html#top"></a><a href="#top"></a><img src="x.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#top"></a><a href="a.html#bottom"></a><a href="c.html"></a>')
    (tmp_path / "c").mkdir()
    (tmp_path / "c/d.html").write_text('<link href="https://cdn.example/x.css"><a href="https://example.org/"></a>')
    assert links.broken(tmp_path) == [
        "a.html: b.html#top",
        "a.html: x.png",
        "b.html: a.html#bottom",
        "b.html: c.html",
        "c/d.html: https://cdn.example/x.css",
    ]


@pytest.mark.parametrize("module", MODULES)
def test_each_docstring_is_on_its_page_with_every_symbol(site, module):
    shown = bare(article(site, f"api/{module}.html").get_text())
    tree = ast.parse((ROOT / f"cs231n/{module}.py").read_text(encoding="utf-8"))
    docstrings = [ast.get_docstring(node) or "" for node in [tree, *public(tree)]]
    assert [docstring for docstring in docstrings if bare(docstring) not in shown] == []


def public(tree):
    """The public classes, functions and methods of a module or a class."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def bare(text):
    """A text without what its page shows in another way: spaces, breaks, backticks, the marks of indices and powers."""
    return re.sub(r"[\s`_^{}]", "", text)


def test_a_docstrings_names_and_sections_are_links(site):
    page = article(site, "api/layers.html")
    addresses = {link.get_text(): link["href"] for link in page.find_all("a") if link.get_text()}
    assert addresses["affine_backward"] == "#cs231n.layers.affine_backward"
    assert addresses["notebook 01, section 1.1"] == "../notebooks/01_fully_connected_nets.html#section-1-1"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_each_equation_of_a_notebook_has_its_number_and_its_link(site, notebook):
    page = article(site, f"notebooks/{notebook}.html")
    equations = page.select("div.math")
    assert [e.select_one(".eqno").get_text() for e in equations] == [
        f"({int(notebook[:2])}.{k})#" for k in range(1, len(equations) + 1)
    ]
    assert [e.select_one(".eqno a")["href"] for e in equations] == [f"#{e['id']}" for e in equations]
    for code in page.select("pre, code, .math"):
        code.decompose()
    assert "$" not in page.get_text()  # no formula is left as its source


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_each_figure_says_what_it_shows(site, notebook):
    figures = article(site, f"notebooks/{notebook}.html").find_all("img")
    assert figures
    assert [figure for figure in figures if len(figure.get("alt", "").split()) < 8] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_each_code_cell_of_a_notebook_is_on_its_page(site, notebook):
    cells = sources.nbformat.read(ROOT / f"notebooks/{notebook}.ipynb", as_version=4).cells
    shown = [pre.get_text().strip() for pre in article(site, f"notebooks/{notebook}.html").select("div.cell_input pre")]
    assert shown == [cell.source.strip() for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_page_of_a_notebook_that_runs_in_the_browser_leads_there(site, notebook):
    link = article(site, f"notebooks/{notebook}.html").find("a", string="Run this notebook in the browser")
    given = [file.stem for file in (site / "lite/files/notebooks").glob("*.ipynb")]
    assert (link is not None) == (notebook in given) == (notebook < "05")
    if link is not None:
        file, path = (site / "notebooks" / link["href"]).as_posix().split("?path=")
        assert Path(file).is_file()
        assert path == f"notebooks/{notebook}.ipynb"


def test_each_notebook_leads_to_the_next(site):
    for before, after in itertools.pairwise(NOTEBOOKS):
        text = (site / f"notebooks/{before}.html").read_text(encoding="utf-8")
        assert BeautifulSoup(text, "html.parser").select_one("a.right-next")["href"] == f"{after}.html"


def test_the_student_edition_builds_its_own_site_without_solutions(site, edition, tmp_path):
    edition = shutil.copytree(edition, tmp_path / "student")
    build = [
        sys.executable,
        "-c",
        "import website.browser as b; b.chromium = lambda: None; import website.build as w; w.main([])",
    ]
    done = subprocess.run(build, cwd=edition, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert links.broken(edition / "dist/site") == []
    assert "the student edition" in article(edition / "dist/site", "index.html").get_text()
    assert not (edition / "dist/site/docs").exists()
    assert solved(edition / "dist/site", edition, tmp_path / "edition") == []
    assert len(solved(site, edition, tmp_path / "whole")) > 100  # the same search finds those of the whole pack


def solved(site, edition, texts):
    """Where the pages of a site tell what the edition leaves out: statements of solutions, and results to derive."""
    for page in sorted(site.glob("*/*.html")):
        text = article(site, page.relative_to(site))
        if text:
            sources.put(texts / f"{page.parent.name}-{page.stem}.md", text.get_text())
    exercises, given = student.read(ROOT / "grading/exercises.toml")
    opened = student.cut_code.modules(edition)
    statements = student.solutions(student.cut_code.modules(ROOT), exercises.values(), given, opened)
    hidden = tomllib.loads((ROOT / "grading/instructor/hidden.toml").read_text(encoding="utf-8"))
    return student.leaks(texts, statements) + student.given_away(texts, student.results(ROOT, hidden))
