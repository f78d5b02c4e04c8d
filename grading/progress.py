"""How far you are: the points of each notebook, what is next, and about how long it takes: `make progress`."""

from tqdm import tqdm

from grading import edition
from grading.exercises import read
from grading.grade import LATER, SUBSTITUTES, grade_own, known_here, names_below
from grading.in_place import new_session
from grading.merge import parts


def earned_points(root=edition.ROOT):
    """The points that each exercise in the folder root earns, as `make grade` counts them: a dict from `Exercise`.

    Those whose functions are as they were given, or whose file is missing, earn none; only the others are run.  Those
    that cannot be graded here are not in it.
    """
    with new_session() as session:
        exercises = [exercise for exercise in read()[0].values() if session.stand_ins or known_here(exercise)]
        begun = [exercise for exercise in exercises if not _untouched(exercise, root)]
        earned = dict.fromkeys(exercises, 0)
        if any(map(names_below, begun)):
            session.prepare(SUBSTITUTES)
        for exercise in tqdm(begun, unit="exercise", leave=False, disable=None):
            earned[exercise] = sum(result.earned for result in grade_own(exercise, session, root))
    return earned


def _untouched(exercise, root):
    """Whether an exercise's functions are all as they were given, or its file is missing."""
    if exercise.hand_in:
        return not (root / exercise.hand_in).exists()
    if not (root / edition.RECORD).exists():  # nothing was given
        return False
    given = edition.given(root)
    return all(
        (root / file).exists() and _functions(exercise, (root / file).read_bytes()) == _functions(exercise, given[file])
        for file in exercise.files
    )


def _functions(exercise, content):
    """The texts of an exercise's functions that a module holds, from its bytes."""
    found = parts(content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n"))
    names = [name.split(".", 1)[1] for name in exercise.functions]
    return {name: found[name].rstrip() for name in names if name in found}


def lines(earned):
    """The lines to read.  earned: as `earned_points` returns it."""
    yield f"{'notebook':10s}{'points':>11s}{'exercises':>13s}   left, about"
    for number in sorted({exercise.notebook for exercise in earned}):
        yield _line(f"0{number}", {exercise: n for exercise, n in earned.items() if exercise.notebook == number})
    yield _line("in all", earned)
    if others := [*_not_in(earned)]:
        yield f"{LATER}: {', '.join(others)}"
    if left := _left(earned):
        first = left[0]
        yield f"next: exercise {first.id}, {first.title}: {earned[first]} of {first.points} points so far"
        yield f"      notebook 0{first.notebook}, section {first.section}; about {first.minutes} minutes"


def _not_in(earned):
    """The exercises that are not in a dict: their ids, or their notebook, if all of it is not there."""
    notebooks = {exercise.notebook for exercise in earned}
    others = [exercise for exercise in read()[0].values() if exercise not in earned]
    return dict.fromkeys(e.id if e.notebook in notebooks else f"notebook 0{e.notebook}" for e in others)


def _line(name, earned):
    left, points = _left(earned), sum(exercise.points for exercise in earned)
    done = len(earned) - len(left)
    minutes = f"{sum(exercise.minutes for exercise in left):4d} minutes" if left else "nothing"
    return f"{name:10s}{sum(earned.values()):4d} of {points:3d}{done:6d} of {len(earned):3d}   {minutes}"


def _left(earned):
    """The exercises that have not earned all of their points, in order."""
    return [exercise for exercise, points in earned.items() if points < exercise.points]


def progress(line=""):
    """Print how far the learner is: `%progress`."""
    print("\n".join(lines(earned_points())))


if __name__ == "__main__":
    progress()
