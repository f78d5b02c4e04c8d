"""The notebook magic `%grade 1.1`."""

import functools

from grading.exercises import choose, read
from grading.grade import HERE, table
from grading.grade import grade as grade_exercise
from grading.session import Session


class NotYet(Exception):
    """An exercise is not right yet."""

    def _render_traceback_(self):
        """What IPython shows: the message, without a traceback."""
        return [str(self)]


def grade(line):
    """Grade the exercises that the line names.  Raises `NotYet` if one is wrong, which stops a run of all cells."""
    exercises = choose(line.split(), read()[0])
    graded = {exercise: grade_exercise(exercise, _session(), HERE.parent) for exercise in exercises}
    text = "\n".join(table(graded))
    if any(result.hint for results in graded.values() for result in results):
        raise NotYet(text)
    print("\n".join(f"exercise {exercise.id}: {exercise.points} of {exercise.points} points" for exercise in graded))


@functools.cache
def _session():
    """One process for all cells, since it takes seconds to start.  It ends with the kernel, whose pipe it reads."""
    return Session()
