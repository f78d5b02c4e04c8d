"""The notebook magics `%grade 1.1` and `%hint 1.1`."""

import functools

from grading.exercises import choose, read
from grading.grade import LATER, first_failing, grade_own, hint_lines, notes, notes_of, table
from grading.in_place import new_session

_shown = {}  # exercise -> its first failing result's tiers, and how many of them have been shown


class NotYet(Exception):
    """An exercise is not right yet."""

    def _render_traceback_(self):
        """What IPython shows: the message, without a traceback."""
        return [str(self)]


def grade(line):
    """Grade the exercises that the line names.  Raises `NotYet` if one is wrong, which stops a run of all cells."""
    graded = _graded(line)
    text = "\n".join([*table(graded, 1, "%hint "), *notes()])
    if any(result.hint and not result.later for results in graded.values() for result in results):
        raise NotYet(text)
    lines = []
    for exercise, results in graded.items():
        points = f"exercise {exercise.id}: {exercise.points} of {exercise.points} points"
        lines += [f"exercise {exercise.id}: {LATER}"] if results[0].later else [points, *notes_of(results)]
    print("\n".join([*lines, *notes()]))


def hint(line):
    """Show one more tier of the hint on the first failing part of each exercise that the line names."""
    for exercise, results in _graded(line, more=1).items():
        print("\n".join(hint_lines(exercise, results, _shown[exercise][1], f"%hint {exercise.id}")))


def _graded(line, more=0):
    """Exercise -> its results; more: how many more tiers of its hint will be shown than so far."""
    graded = {exercise: grade_own(exercise, _session()) for exercise in choose(line.split(), read()[0])}
    for exercise, results in graded.items():
        result = first_failing(results)
        tiers = result.tiers if result else []
        before, shown = _shown.get(exercise, ([], 0))
        _shown[exercise] = tiers, min(shown + more, 3) if tiers == before else 1
    return graded


@functools.cache
def _session():
    """One for all cells: its process of the correct functions takes seconds to start.  It ends with the kernel."""
    return new_session()
