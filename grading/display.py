"""What `%grade`, `%hint` and `%progress` show in a notebook: the points as a table, and the hints as parts that open.

A terminal gets the plain text.  The HTML has no colours of its own, so it follows the notebook's light or dark theme.
Of a hint, it holds only the tiers that the learner has asked for, since what is folded can be read, too.
"""

from html import escape

from IPython import get_ipython
from IPython.display import display

from grading.grade import LATER, OPEN, first_failing, helped, verdict
from grading.progress import later, next_up, rows

# Formulas are not typeset in it: a dollar sign in the message of an error is one.
PAGE = '<div class="mathjax_ignore">{}</div>'
TABLE = "<table><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
HEAD = '<th scope="{}" style="text-align: left">{}</th>'
CELL = '<td style="text-align: left">{}</td>'
BELOW = '<tr><td colspan="3" style="text-align: left">{}</td></tr>'
LINE = '<div style="overflow-wrap: anywhere">{}</div>'
TIER = '<details{}><summary>{}</summary><div style="overflow-wrap: anywhere; padding-left: 1em">{}</div></details>'
BAR = '<progress value="{}" max="{}" aria-hidden="true"></progress> '


def show(text, html):
    """Show the HTML if what is displayed here is shown as HTML, as in a notebook.  Returns whether it is."""
    shell = get_ipython()
    rich = shell is not None and "text/html" in shell.display_formatter.active_types
    if rich:
        display({"text/plain": text, "text/html": html}, raw=True)
    return rich


def report(graded, tiers, note=""):
    """A table of the graded exercises, with the hints on what is wrong.

    graded: a dict from `Exercise` to its results; tiers: a dict from it to how many tiers of the hint on its first
    failing part are shown; note: what is said below the table.
    """
    body = ""
    for exercise, results in graded.items():
        earned = sum(result.earned for result in results)
        body += _row(f"{exercise.id} {exercise.title}", verdict(results), f"{earned} of {exercise.points}")
        if below := "".join(_below(exercise, results, tiers[exercise], graded)):
            body += BELOW.format(below)
    earned, points = (sum(getattr(r, name) for rs in graded.values() for r in rs) for name in ("earned", "points"))
    return _page(f"{earned} of {points} points in all", ("Exercise", "Verdict", "Points"), body, [note])


def _below(exercise, results, tiers, graded):
    """What is said below an exercise."""
    if verdict(results) in (OPEN, LATER):
        yield _line(results[0].hint)
        return
    first = first_failing(results)
    for result in results:
        shown = tiers if result is first else 1
        for i, (title, text) in enumerate(_tiers(result)[:shown]):
            opened = result is first and i in (0, shown - 1)
            yield TIER.format(" open" * opened, f"{result.part}: {title}", escape(text))
    yield from (_line(result.note) for result in results if result.note)
    if first and tiers < len(first.tiers):
        yield _line(f"next: %hint {exercise.id}")
    if others := helped(exercise, results, graded):
        yield _line(others)


def _tiers(result):
    """Pairs of a title and a text: the tiers of the hint on a part of an exercise."""
    titles = f"{result.earned} of {result.points} points", "question", "answer"
    return list(zip(titles, (result.hint, result.question, result.answer), strict=True))[: len(result.tiers)]


def progress(earned):
    """A table with a bar for the points of each notebook.  earned: as `earned_points` returns it."""
    body = ""
    for name, points, whole, done, exercises, minutes in rows(earned):
        bar = BAR.format(points, whole)
        left = f"{minutes} minutes" if minutes else "nothing"
        body += _row(name, f"{bar}{points} of {whole}", f"{done} of {exercises}", left)
    below = *later(earned), *next_up(earned)
    return _page("Progress", ("Notebook", "Points", "Exercises", "Left, about"), body, below)


def _page(caption, names, body, below):
    head = "".join(HEAD.format("col", name) for name in names)
    return PAGE.format(TABLE.format(caption, head, body) + "".join(map(_line, below)))


def _row(name, *cells):
    return f"<tr>{HEAD.format('row', escape(name))}{''.join(map(CELL.format, cells))}</tr>"


def _line(text):
    return LINE.format(escape(text))
