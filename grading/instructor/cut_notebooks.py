"""Cut the solutions out of notebooks and insert the exercises.

The cells' tags say what to do:

    solution    the cell is left out, or replaced by the code that its metadata hold as `student`
    derivation  the numbered steps (paragraphs that start with "1. ") are left out
    question    below each question (a paragraph that starts with "*Question") there is room for an answer

The edition has no outputs and no tags.
"""

import re

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor

PYTHON = {  # what a notebook's metadata say, unless they are lost, as in Colab
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}
DERIVATION, ANSWER = "*Your derivation:*", "*Your answer:*"
SET_UP = "%load_ext autoreload\n%autoreload 2\n%load_ext grading"
SET_UP_WORDS = """\
This is the student edition. You write the functions in `cs231n/`, one or two at a time; until then, each raises an
error that says what to write. Thanks to the next cell, the notebook uses a file as soon as you save it. Then `%grade`
checks what you wrote."""


def cut(notebook, exercises):
    """A notebook of the edition, from one of the reference.  exercises: those of this notebook, in order.

    Raises ValueError where an exercise has no place, and where a tagged cell lacks what its tag is about.
    """
    notebook = nbformat.from_dict(notebook)
    insertions = _insertions(notebook, exercises)
    cells = []
    for i, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if "derivation" in tags:
            cell.source = _without_steps(cell)
        if "question" in tags:
            cell.source = _with_room_for_answers(cell)
        if "solution" not in tags:
            cells.append(cell)
        elif "student" in cell.metadata:
            cells.append(_cell("code", cell.id, cell.metadata.student))
        cells += insertions.get(i, [])
    for cell in cells:
        cell.metadata = {}
    notebook.cells = cells
    notebook.metadata = {name: notebook.metadata.get(name, PYTHON[name]) for name in PYTHON}
    notebook, _ = ClearOutputPreprocessor(enabled=True).preprocess(notebook, {})
    nbformat.validate(notebook)
    return notebook


def _insertions(notebook, exercises):
    """The cells to insert after each of the notebook's cells, by its index."""
    where = {0: [_cell("markdown", "edition", SET_UP_WORDS), _cell("code", "set-up", SET_UP)]}
    for exercise in exercises:
        name = exercise.id.replace(".", "-")
        cells = [_cell("markdown", f"exercise-{name}", _words(exercise))]
        cells.append(_cell("code", f"grade-{name}", f"%grade {exercise.id}"))
        where.setdefault(_place(notebook, exercise), []).extend(cells)
    return where


def _place(notebook, exercise):
    """The index of the cell after which the exercise comes."""
    for i, cell in enumerate(notebook.cells):
        heading = re.search(rf"^#+ {re.escape(exercise.section)} ", cell.source, re.MULTILINE)
        if cell.id == exercise.after or (not exercise.after and cell.cell_type == "markdown" and heading):
            return i
    raise ValueError(f"exercise {exercise.id}: its notebook has no {exercise.after or 'section ' + exercise.section}")


def _words(exercise):
    """The text of the cell that says what to do."""
    points = "1 point" if exercise.points == 1 else f"{exercise.points} points"
    title = f"**Exercise {exercise.id}: {exercise.title}** ({points})."
    if exercise.hand_in:
        return f"{title} Hand in `{exercise.hand_in}`, as described above."
    tasks = [
        f"- `{name.split('.', 1)[1]}` in `cs231n/{name.split('.')[0]}.py`, which returns {_code(returns)}"
        for name, returns in exercise.functions.items()
    ]
    return "\n".join([f"{title} Write", "", *tasks, ""])


def _code(words):
    """The words as Markdown in which `*` and `_` are ordinary characters."""
    return re.sub(r"([*_])", r"\\\1", words)


def _cell(kind, name, source):
    cell = (nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell)(source)
    cell.id = name  # a random one otherwise
    return cell


def _without_steps(cell):
    """The cell's Markdown with room for the learner's derivation in place of each run of numbered steps."""
    blocks = []
    for block in cell.source.split("\n\n"):
        if not re.match(r"\d+\. ", block):
            blocks.append(block)
        elif not blocks or blocks[-1] != DERIVATION:
            blocks.append(DERIVATION)
    if DERIVATION not in blocks:
        raise ValueError(f"{cell.id} has the tag derivation, but no numbered step")
    return "\n\n".join(blocks)


def _with_room_for_answers(cell):
    """The cell's Markdown with room for an answer below each question, and without any answer that is there already."""
    blocks = []
    for block in cell.source.split("\n\n"):
        if not block.startswith(ANSWER):
            blocks += [block, ANSWER] if block.startswith("*Question ") else [block]
    if ANSWER not in blocks:
        raise ValueError(f"{cell.id} has the tag question, but no paragraph that starts with *Question")
    return "\n\n".join(blocks)
