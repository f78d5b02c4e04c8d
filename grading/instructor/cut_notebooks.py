"""Cut the solutions out of notebooks and insert the exercises.

The cells' tags say what to do:

    solution    the cell is left out, or replaced by the code that its metadata hold as `student`
    derivation  the cell has numbered steps ("1. ...").  Those that its metadata name in `blanks`, a dict from number to
                what the step asks for, become "1. $dx =$ ____"; the others are given
    question    below each question (a paragraph that starts with "*Question") there is room for an answer, and the cell
                ends; what follows is a cell of its own
    prediction  the text asks what the next cells will show, so the code below it, up to the next text, is folded: the
                code, and the alternative text of its figure, would give the answer away.  So would the first
                paragraph of that text, which opens at a click

The edition has no outputs and no tags.
"""

import re

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor

PYTHON = {  # what a notebook's metadata say, unless they are lost, as in Colab
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}
BLANK, ANSWER = "____", "*Your answer:*"
RESULT = "<details><summary><b>The result</b>, for after your prediction</summary>\n\n{}\n\n</details>"
STEP = re.compile(r"^(\d+)\. .*?(?=\n\d+\. |\n\n|\Z)", re.MULTILINE | re.DOTALL)
FULL_SIZE = re.compile(r"""at_full_size\("([^"]+)"\)""")
MATHS = re.compile(r"\$\$(.*?)\$\$|\$(.*?)\$", re.DOTALL)
SET_UP = "%load_ext autoreload\n%autoreload 2\n%load_ext grading"
SET_UP_WORDS = """\
This is the student edition. You write the functions in `cs231n/`, one or two at a time; until then, each raises an
error that says what to write. Thanks to the next cell, the notebook uses a file as soon as you save it. Then `%grade`
checks what you wrote, `%hint 1.1` asks a question that leads on, and `%progress` counts your points. If a cell says
that an *autoreload failed*, or shows a SyntaxError of your file, the notebook goes on with your old code: repair the
file, and restart the kernel if the message stays. Where a step of a derivation has a blank, ____, it is yours:
double-click the text, and fill it in. Where you are asked for a prediction, the code below is folded: run it once you
have written yours down, click on its three dots to read it, and open *The result* below it."""


def cut(notebook, exercises):
    """A notebook of the edition, from one of the reference.  exercises: those of this notebook, in order.

    Raises ValueError where an exercise has no place, and where a tagged cell lacks what its tag is about.
    """
    notebook = nbformat.from_dict(notebook)
    insertions = _insertions(notebook, exercises)
    cells, folded, predicted = [], set(), False
    for i, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            cell.source = _with_result_closed(cell.source) if predicted else cell.source
            predicted = "prediction" in tags
        elif predicted:
            folded.add(cell.id)
        if "derivation" in tags:
            cell.source = _with_blanks(cell)
        if "solution" not in tags:
            cells += _with_room_for_answers(cell) if "question" in tags else [cell]
        elif "student" in cell.metadata:
            cells.append(_cell("code", cell.id, cell.metadata.student))
        cells += insertions.get(i, [])
    for cell in cells:
        cell.metadata = {"jupyter": {"source_hidden": True}} if cell.id in folded else {}
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
        return f"{title} Hand in {' and '.join(f'`{name}`' for name in exercise.hand_ins)}, as described above."
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


def _with_result_closed(text):
    """The text, whose first paragraph opens at a click, unless that is a heading or a question."""
    first, *others = text.split("\n\n")
    if not first.startswith(("#", "*Question ")):
        first = RESULT.format(first)
    return "\n\n".join([first, *others])


def _with_blanks(cell):
    """The cell's Markdown, in which the steps that its `blanks` name only say what to find."""
    blanks = _blanks(cell)

    def cut(step):
        ask = blanks.get(step[1])
        return step[0] if ask is None else f"{step[1]}. {ask if BLANK in ask else f'{ask} {BLANK}'}"

    return STEP.sub(cut, cell.source)


def _blanks(cell):
    """Number of a step -> what it asks for.  Raises ValueError unless there are such steps."""
    blanks = cell.metadata.get("blanks", {})
    steps = {step[1] for step in STEP.finditer(cell.source)}
    if not blanks or not blanks.keys() <= steps:
        raise ValueError(f"{cell.id} has the tag derivation and the blanks {[*blanks]}, but the steps {sorted(steps)}")
    return blanks


def results(notebook):
    """The equations in the steps that are cut from a notebook, without those that their blanks give."""
    for cell in notebook.cells:
        blanks = _blanks(cell) if "derivation" in cell.metadata.get("tags", []) else {}
        for step in STEP.finditer(cell.source):
            if step[1] in blanks:
                given = set(_equations(blanks[step[1]]))
                yield from (equation for equation in _equations(step[0]) if equation not in given)


def _equations(text):
    """Each equation in the formulas of a text; a chain a = b = c has two, a = b and a = c."""
    for maths in MATHS.finditer(text):
        formulas = re.sub(r"\\boxed\{(.*)\}", r"\1", "".join(maths.groups("")))
        for formula in re.split(r",?\s*\\q?quad", formulas):
            left, *others = _sides(formula)
            yield from (f"{left.strip()} = {side.strip(' .,')}" for side in others)


def _sides(formula):
    """The parts of a formula between its equality signs, except for those in brackets."""
    depth, sides = 0, [""]
    for character in formula:
        depth += (character in "([{") - (character in ")]}")
        if character == "=" and depth == 0:
            sides.append("")
        else:
            sides[-1] += character
    return sides


def _with_room_for_answers(cell):
    """Cells with the Markdown of one: each question is followed by room for an answer, which ends its cell.

    An answer that is there already is left out.  The first cell keeps the id; the others have it with -2, -3, ...
    """
    parts = [[]]
    for block in cell.source.split("\n\n"):
        if not block.startswith(ANSWER):
            parts[-1].append(block)
        if block.startswith("*Question "):
            parts[-1].append(ANSWER)
            parts.append([])
    if len(parts) == 1:
        raise ValueError(f"{cell.id} has the tag question, but no paragraph that starts with *Question")
    names = [cell.id, *(f"{cell.id}-{i}" for i in range(2, len(parts) + 1))]
    return [_cell("markdown", name, "\n\n".join(blocks)) for name, blocks in zip(names, parts, strict=True) if blocks]


def full_size_figures(notebook):
    """Name -> HTML of each figure that `cs231n.plots.at_full_size("name")` shows in a browser.

    It is the last one that the cell with the call drew or, if it drew none, a cell above.
    Raises ValueError where there is none.
    """
    figures, figure = {}, None
    for cell in notebook.cells:
        drawn = [
            "".join(output.data["text/html"])
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        figure = drawn[-1] if drawn else figure
        for name in FULL_SIZE.findall(cell.source):
            if figure is None:
                raise ValueError(f"{cell.id}: there is no figure {name!r} in the outputs; first execute the notebooks")
            figures[name] = figure
    return figures
