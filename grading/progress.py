"""How far you are: the points of each notebook, what is next, and about how long it takes: `make progress`."""

from tqdm import tqdm

from grading import edition
from grading.exercises import read
from grading.grade import SUBSTITUTES, WHEN_HANDED_IN, grade_own, known_here, names_below, untouched
from grading.in_place import new_session


def earned_points(root=edition.ROOT):
    """The points that each exercise in the folder root earns, as `make grade` counts them: a dict from `Exercise`.

    Those that are untouched earn none and are not run.  Those that cannot be graded here are not in it.
    """
    with new_session() as session:
        exercises = [exercise for exercise in read()[0].values() if session.stand_ins or known_here(exercise)]
        begun = [exercise for exercise in exercises if not untouched(exercise, root)]
        earned = dict.fromkeys(exercises, 0)
        if any(map(names_below, begun)):
            session.prepare(SUBSTITUTES)
        for exercise in tqdm(begun, unit="exercise", leave=False, disable=None):
            earned[exercise] = sum(result.earned for result in grade_own(exercise, session, root))
    return earned


def lines(earned):
    """The lines to read.  earned: as `earned_points` returns it."""
    yield f"{'notebook':10s}{'points':>11s}{'exercises':>13s}   left, about"
    for name, points, whole, done, exercises, minutes in rows(earned):
        left = f"{minutes:4d} minutes" if minutes else "nothing"
        yield f"{name:10s}{points:4d} of {whole:3d}{done:6d} of {exercises:3d}   {left}"
    yield from later(earned)
    if following := "\n      ".join(next_up(earned)):
        yield following


def rows(earned):
    """For each notebook, and for all: its name, points of how many, exercises of how many, and the minutes left."""
    for number in sorted({exercise.notebook for exercise in earned}):
        yield _row(f"0{number}", {exercise: n for exercise, n in earned.items() if exercise.notebook == number})
    yield _row("in all", earned)


def _row(name, earned):
    left, points = _left(earned), sum(exercise.points for exercise in earned)
    minutes = sum(exercise.minutes for exercise in left)
    return name, sum(earned.values()), points, len(earned) - len(left), len(earned), minutes


def later(earned):
    """The line on the exercises that are not in earned: their ids, or their notebook, if all of it is not there."""
    notebooks = {exercise.notebook for exercise in earned}
    others = [exercise for exercise in read()[0].values() if exercise not in earned]
    if names := dict.fromkeys(e.id if e.notebook in notebooks else f"notebook 0{e.notebook}" for e in others):
        yield f"{WHEN_HANDED_IN}: {', '.join(names)}"


def next_up(earned):
    """The exercise that is next, and where it is; nothing at the end."""
    if left := _left(earned):
        first = left[0]
        yield f"next: exercise {first.id}, {first.title}: {earned[first]} of {first.points} points so far"
        yield f"notebook 0{first.notebook}, section {first.section}; about {first.minutes} minutes"


def _left(earned):
    """The exercises that have not earned all of their points, in order."""
    return [exercise for exercise, points in earned.items() if points < exercise.points]


if __name__ == "__main__":
    print("\n".join(lines(earned_points())))
