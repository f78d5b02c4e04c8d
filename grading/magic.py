"""The notebook magics `%grade 1.1`, `%hint 1.1` and `%progress`."""

import functools
import itertools

from grading import display
from grading.exercises import choose, read
from grading.grade import LATER, RIGHT, first_failing, grade_own, hint_lines, notes, notes_of, table, verdict
from grading.in_place import new_session
from grading.progress import earned_points, lines

_shown = {}  # exercise -> its first failing result's tiers, and how many of them have been shown


class NotYet(Exception):
    """An exercise is not right yet."""

    def _render_traceback_(self):
        """What IPython shows: the message, without a traceback."""
        return [str(self)]


def grade(line):
    """Grade the exercises that the line names.  Raises `NotYet` if one is wrong, which stops a run of all cells."""
    graded, tiers = _graded(line)
    verdicts = {exercise: verdict(results) for exercise, results in graded.items()}
    wrong = [exercise for exercise, words in verdicts.items() if words not in (RIGHT, LATER)]
    note = [*notes()]
    text = "\n".join([*(_right(graded) if {*verdicts.values()} == {RIGHT} else table(graded, 1, "%hint ")), *note])
    html = display.report(graded, tiers, " ".join(note))
    if wrong:
        stops = f"exercise {wrong[0].id} is {verdicts[wrong[0]]}: a run of several cells stops here"
        raise NotYet(stops if display.show(text, html) else text)
    display.show(text, html) or print(text)


def _right(graded):
    """The lines on exercises that are right."""
    for exercise, results in graded.items():
        yield f"exercise {exercise.id}: {exercise.points} of {exercise.points} points"
        yield from notes_of(results)


def hint(line):
    """Show one more tier of the hint on the first failing part of each exercise that the line names."""
    graded, tiers = _graded(line, more=1)
    hints = (hint_lines(e, results, tiers[e], f"%hint {e.id}") for e, results in graded.items())
    text = "\n".join(itertools.chain(*hints))
    display.show(text, display.report(graded, tiers)) or print(text)


def progress(line=""):
    """Show how far the learner is."""
    earned = earned_points()
    text = "\n".join(lines(earned))
    display.show(text, display.progress(earned)) or print(text)


def _graded(line, more=0):
    """Two dicts, from an exercise to its results, and to how many tiers of its hint to show.

    more: how many more than so far.
    """
    graded = {exercise: grade_own(exercise, _session()) for exercise in choose(line.split(), read()[0])}
    for exercise, results in graded.items():
        result = first_failing(results)
        tiers = result.tiers if result else []
        before, shown = _shown.get(exercise, ([], 0))
        _shown[exercise] = tiers, min(shown + more, 3) if tiers == before else 1
    return graded, {exercise: _shown[exercise][1] for exercise in graded}


@functools.cache
def _session():
    """One for all cells: its process of the correct functions takes seconds to start.  It ends with the kernel."""
    return new_session()
