"""Nothing in the edition's notebooks refers to what was cut: a step, a section, code above or below, a name."""

import re
import subprocess
import sys
from itertools import pairwise, takewhile
from pathlib import Path

import pytest

from grading.exercises import read
from grading.instructor import cut_notebooks
from grading.notebooks import read as read_notebook

ROOT = Path(__file__).parent.parent
EXERCISES, _ = read()
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
HEADING = re.compile(r"^#+ (\d\.\d+) ", re.MULTILINE)
STEPS = re.compile(r"\b[Ss]teps? (\d+)(?: (?:to|and) (\d+))?(?: of section (\d\.\d+))?")
NEARBY = re.compile(
    r"\b(?:code|cells?|functions?|lines?|loops?|figures?|plots?|histograms?|curves?|panels?|checks?|output|experiment)"
    r" (above|below)\b"
)


def exercises_of(name):
    return [exercise for exercise in EXERCISES.values() if exercise.notebook == int(name[:2])]


BEFORE = {name: read_notebook((ROOT / "notebooks" / name).read_bytes()) for name in NOTEBOOKS}
AFTER = {name: cut_notebooks.cut(notebook, exercises_of(name)).cells for name, notebook in BEFORE.items()}
BEFORE = {name: notebook.cells for name, notebook in BEFORE.items()}


def sections(cells):
    """Section -> the text of its cells; what comes before the first heading belongs to "0"."""
    text = "\n\n".join(cell.source for cell in cells)
    starts = [0, *(heading.start() for heading in HEADING.finditer(text)), len(text)]
    numbers = ["0", *(heading[1] for heading in HEADING.finditer(text))]
    return {number: text[a:b] for number, a, b in zip(numbers, starts, starts[1:], strict=False)}


def missing_steps(texts):
    """References to numbered steps that their section does not have."""
    for section, text in texts.items():
        for found in STEPS.finditer(text):
            first, last, other = found.groups()
            has = set(re.findall(r"^(\d+)\. ", texts.get(other or section, ""), re.MULTILINE))
            wanted = set(map(str, range(int(first), int(last or first) + 1)))
            if not wanted <= has:
                yield f"section {section}: {found[0]!r}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_step_that_is_mentioned_is_there(name):
    assert list(missing_steps(sections(AFTER[name]))) == []


def test_a_step_that_is_not_there_is_found():
    texts = {"1.1": "1. One.\n2. Two.\n\nBy step 2 and step 3.", "1.2": "Steps 1 to 2 of section 1.1; step 1."}
    assert list(missing_steps(texts)) == ["section 1.1: 'step 3'", "section 1.2: 'step 1'"]


def test_each_section_exercise_and_question_that_is_mentioned_is_there():
    texts = {name: "\n\n".join(cell.source for cell in AFTER[name]) for name in NOTEBOOKS}
    everything = "\n\n".join(texts.values())
    headings = set(HEADING.findall(everything))
    questions = set(re.findall(r"^\*Question (\d\.\d+)", everything, re.MULTILINE))
    for name, text in texts.items():
        assert set(re.findall(r"\b[Ss]ections? (\d\.\d+)", text)) <= headings, name
        assert set(re.findall(r"\b[Ee]xercises? (\d\.\d+)", text)) <= EXERCISES.keys(), name
        assert set(re.findall(r"\b[Qq]uestions? (\d\.\d+)", text)) <= questions, name


def lost_neighbours(before, after):
    """Markdown of the edition, the cells after, that refers to code near it which only the reference has."""
    kept = {cell.id: cell for cell in after}
    for i, cell in enumerate(before):
        if cell.cell_type == "markdown" and cell.id in kept:
            for found in NEARBY.finditer(kept[cell.id].source):
                near = reversed(before[:i]) if found[1] == "above" else before[i + 1 :]
                code = next(other for other in near if other.cell_type == "code")
                if code.id not in kept:
                    yield f"{cell.id}: {found[0]!r}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_code_above_or_below_a_text_that_mentions_it_is_there(name):
    assert list(lost_neighbours(BEFORE[name], AFTER[name])) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_text_announces_follows_it(name):
    """A text that ends with a colon announces the next cell; one operation per line, all code up to the next text."""
    before, after = BEFORE[name], AFTER[name]
    following = {cell.id: other.id for cell, other in pairwise(before)}
    kept = {cell.id for cell in after}
    for cell, other in pairwise(after):
        if cell.cell_type == "markdown" and cell.source.endswith((":", ":**")):
            assert following[cell.id] == other.id, cell.id
        if cell.cell_type == "markdown" and "**One operation per line" in cell.source:
            ids = [c.id for c in before]
            rest = before[ids.index(cell.id) + 1 :]
            assert kept.issuperset(c.id for c in takewhile(lambda c: c.cell_type == "code", rest)), cell.id


def code(cells):
    """The code of the cells, without IPython's magics."""
    texts = [cell.source for cell in cells if cell.cell_type == "code"]
    return "\n".join(re.sub(r"^\s*%.*$", "", text, flags=re.MULTILINE) for text in texts) + "\n"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_code_uses_a_name_that_only_a_cell_that_was_cut_defines(name):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821", "--output-format=concise", "-"]
    done = subprocess.run(command, input=code(AFTER[name]), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_text_names_a_function_that_only_a_cell_that_was_cut_defines(name):
    before, after = BEFORE[name], AFTER[name]
    functions = re.compile(r"^ *def (\w+)", re.MULTILINE)
    lost = set(functions.findall(code(before))) - set(functions.findall(code(after)))
    for cell in after:
        assert lost.isdisjoint(re.findall(r"`(\w+)`", cell.source)), cell.id
