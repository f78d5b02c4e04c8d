"""Cut the solutions out of notebooks, and put the exercises in.

A cell with the tag `solution` goes, and with it the last paragraph before it, where that only announces it.  What its
metadata have as `student` takes its place.  A cell with the tag `derivation` keeps what it says, but for its numbered
steps.  Under each question there is room for an answer.  Outputs and tags go too.
"""

import re

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor

DERIVATION, ANSWER = "*Your derivation:*", "*Your answer:*"
ANNOUNCEMENTS = ("**Break it", "**One operation a line", "All three in one walk", "What is left is the way")
SET_UP = "%load_ext autoreload\n%autoreload 2\n%load_ext grading"
SET_UP_WORDS = """\
This is the student edition. What is yours to write stands in `cs231n/`, one function or two at a time; an open one
raises an error that says where you are needed. Save a file, and the notebook takes it anew: the next cell sees to that.
Then `%grade` checks what you wrote."""


def cut(notebook, exercises):
    """A notebook of the edition, from one of the reference.  exercises: those of this notebook, in order."""
    notebook = nbformat.from_dict(notebook)
    insertions = _insertions(notebook, exercises)
    cells, last = [], None
    for i, cell in enumerate(notebook.cells):
        if "solution" in _tags(cell):
            _drop_announcement(last)
            if "student" in cell.metadata:
                cells.append(_cell("code", cell.id, cell.metadata.student))
        else:
            if cell.cell_type == "markdown":
                cell.source = _open_questions(
                    _without_steps(cell.source) if "derivation" in _tags(cell) else cell.source
                )
            cells.append(last := cell)
        cells += insertions.get(i, [])
    for cell in cells:
        cell.metadata = {}
    notebook.cells = [cell for cell in cells if cell.source]
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    notebook, _ = ClearOutputPreprocessor(enabled=True).preprocess(notebook, {})
    nbformat.validate(notebook)
    return notebook


def _insertions(notebook, exercises):
    """The cells to put behind each of the notebook's cells, by its index."""
    where = {0: [_cell("markdown", "edition", SET_UP_WORDS), _cell("code", "set-up", SET_UP)]}
    for exercise in exercises:
        name = exercise.id.replace(".", "-")
        cells = [_cell("markdown", f"exercise-{name}", _words(exercise))]
        cells.append(_cell("code", f"grade-{name}", f"%grade {exercise.id}"))
        where.setdefault(_place(notebook, exercise), []).extend(cells)
    return where


def _place(notebook, exercise):
    """The index of the cell that the exercise stands behind."""
    for i, cell in enumerate(notebook.cells):
        heading = re.search(rf"^#+ {re.escape(exercise.section)} ", cell.source, re.MULTILINE)
        if cell.id == exercise.after or (not exercise.after and cell.cell_type == "markdown" and heading):
            return i
    raise ValueError(f"exercise {exercise.id}: its notebook has no {exercise.after or 'section ' + exercise.section}")


def _words(exercise):
    """The cell that says what there is to do."""
    points = "1 point" if exercise.points == 1 else f"{exercise.points} points"
    tasks = [
        f"- `{name.split('.', 1)[1]}` in `cs231n/{name.split('.')[0]}.py`, which returns {_code(returns)}"
        for name, returns in exercise.functions.items()
    ]
    return "\n".join([f"**Exercise {exercise.id}: {exercise.title}** ({points}). Write", "", *tasks, ""])


def _code(words):
    """words as Markdown, in which `*` and `_` are no signs."""
    return re.sub(r"([*_])", r"\\\1", words)


def _cell(kind, name, source):
    cell = (nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell)(source)
    cell.id = name  # a random one otherwise
    return cell


def _tags(cell):
    return cell.metadata.get("tags", [])


def _drop_announcement(cell):
    """Take the last paragraph of a cell away, if all that it does is to announce the code that goes."""
    text, _, last = cell.source.rpartition("\n\n")
    if last.startswith(ANNOUNCEMENTS):
        cell.source = text


def _without_steps(source):
    """Markdown without its numbered steps, and room for the learner's in place of the first ones."""
    blocks = []
    for block in source.split("\n\n"):
        step = re.match(r"\d+\. ", block)
        if not step:
            blocks.append(block)
        elif not blocks or blocks[-1] != DERIVATION:
            blocks.append(DERIVATION)
    return "\n\n".join(blocks)


def _open_questions(source):
    """Markdown with room for an answer under each question, and without the answers that stand there."""
    blocks = []
    for block in source.split("\n\n"):
        if not block.startswith("*Your answer:*"):
            blocks += [block, ANSWER] if block.startswith("*Question ") else [block]
    return "\n\n".join(blocks)
