"""A test for each part of each exercise: that of an open exercise fails, and says what to write, and where."""

import pytest

from grading.exercises import read
from grading.grade import grade_own
from grading.session import Session

PARTS = [(exercise, part) for exercise in read()[0].values() for part in exercise.parts]


@pytest.fixture(scope="module")
def results():
    """A function that returns the results of an exercise's parts; it grades each exercise only once."""
    graded = {}
    with Session() as session:

        def results(exercise):
            if exercise.id not in graded:
                graded[exercise.id] = {result.part: result for result in grade_own(exercise, session)}
            return graded[exercise.id]

        yield results


@pytest.mark.parametrize(("exercise", "part"), PARTS, ids=lambda value: getattr(value, "id", value))
def test_exercise(exercise, part, results):
    hint = results(exercise)[part].hint
    if hint:
        pytest.fail(hint, pytrace=False)
